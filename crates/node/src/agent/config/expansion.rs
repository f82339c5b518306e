//! `$(NAME)` in commands, arguments and variables.
//!
//! `$$` is a dollar sign, so `$$(NAME)` stays `$(NAME)`. What is no reference, or refers to nothing, stays as it is.

/// Replaces every reference by what `value_of` says.
pub fn expand(text: &str, mut value_of: impl FnMut(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        rest = if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            after
        } else if let Some((name, after)) = after.strip_prefix('(').and_then(|open| open.split_once(')')) {
            match value_of(name) {
                Some(value) => out.push_str(&value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            after
        } else {
            out.push('$');
            after
        };
    }
    out.push_str(rest);
    out
}

/// As [`expand`], but every name has to have a value that is not empty.
///
/// # Errors
/// The names that have none, sorted.
pub fn expand_all(
    text: &str,
    mut value_of: impl FnMut(&str) -> Option<String>,
) -> Result<String, Vec<String>> {
    let mut missing = std::collections::BTreeSet::new();
    let expanded = expand(text, |name| {
        let value = value_of(name).unwrap_or_default();
        if value.is_empty() {
            missing.insert(name.to_owned());
        }
        Some(value)
    });
    if missing.is_empty() { Ok(expanded) } else { Err(missing.into_iter().collect()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value_of(name: &str) -> Option<String> {
        let known = [("A", "a"), ("B", "$(A)"), ("EMPTY", ""), ("", "nameless")];
        known.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn references_are_replaced_once_and_the_rest_stays() {
        for (text, wanted) in [
            ("", ""),
            ("plain", "plain"),
            ("$(A)", "a"),
            ("x$(A)y$(A)", "xaya"),
            ("$(B)", "$(A)"),
            ("$(EMPTY)|", "|"),
            ("$(NO)", "$(NO)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$a"),
            ("$$$$(A)", "$$(A)"),
            ("$A", "$A"),
            ("$", "$"),
            ("a$", "a$"),
            ("$(A", "$(A"),
            ("$(A$(A)", "$(A$(A)"),
            ("$((A))", "$((A))"),
            ("$()", "nameless"),
            ("$é$(A)", "$éa"),
        ] {
            assert_eq!(expand(text, value_of), wanted, "{text}");
        }
    }

    #[test]
    fn a_path_needs_all_its_values() {
        assert_eq!(expand_all("x/$(A)", value_of), Ok("x/a".into()));
        let missing = expand_all("$(NO)/$(EMPTY)/$(A)", value_of);
        assert_eq!(missing, Err(vec!["EMPTY".to_owned(), "NO".to_owned()]));
    }
}
