//! Labels and taints as flags have them.

use apimachinery::label;

/// What keeps pods off a node that do not tolerate it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taint {
    pub key: String,
    pub value: String,
    pub effect: String,
}

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Reads `key[=value]:effect`.
pub(super) fn parse_taint(text: &str) -> Result<Taint, String> {
    let (key_and_value, effect) = text.rsplit_once(':').unwrap_or((text, ""));
    if !EFFECTS.contains(&effect) {
        return Err(format!(
            "the effect {effect:?} is none of {}, as in spot=true:NoSchedule",
            EFFECTS.join(", ")
        ));
    }
    let (key, value) = key_and_value.split_once('=').unwrap_or((key_and_value, ""));
    let (key, value) = checked_label(key, value)?;
    Ok(Taint { key, value, effect: effect.to_owned() })
}

/// Reads `key=value`.
pub(super) fn parse_label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label is KEY=VALUE")?;
    checked_label(key, value)
}

fn checked_label(key: &str, value: &str) -> Result<(String, String), String> {
    let mut problems = label::key_errors(key).into_iter().chain(label::value_errors(value));
    match problems.next() {
        Some(problem) => Err(problem.into_owned()),
        None => Ok((key.to_owned(), value.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taint_has_a_key_perhaps_a_value_and_an_effect() {
        let taint = |key: &str, value: &str| Taint {
            key: key.to_owned(),
            value: value.to_owned(),
            effect: "NoExecute".to_owned(),
        };
        assert_eq!(parse_taint("a=b:NoExecute"), Ok(taint("a", "b")));
        assert_eq!(parse_taint("example.com/a:NoExecute"), Ok(taint("example.com/a", "")));
        for wrong in ["a", "a:", "a=b:Never", ":NoExecute", "a=b c:NoExecute"] {
            assert!(parse_taint(wrong).is_err(), "{wrong}");
        }
    }
}
