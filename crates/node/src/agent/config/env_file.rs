//! Files of variables that a container of the same pod wrote (`fileKeyRef`).
//!
//! The format is a small part of a shell's: `NAME='value'`, where the value may go over several lines and nothing in
//! it is special; comments from `#` to the end of a line; empty lines. `NAME= …` is an empty value, as in a shell.

const BLANK: [char; 2] = [' ', '\t'];

/// Reads such files.
pub trait EnvFiles: Sync {
    /// The file at `path` of a volume of the pod; `None` where it is not there.
    ///
    /// # Errors
    /// A message, also where `path` leads out of the volume.
    fn read(&self, volume: &str, path: &str) -> Result<Option<String>, String>;
}

/// A pod that has none.
pub struct NoEnvFiles;

impl EnvFiles for NoEnvFiles {
    fn read(&self, _volume: &str, _path: &str) -> Result<Option<String>, String> {
        Ok(None)
    }
}

/// The value of a variable, which is the first one that the file gives it.
///
/// # Errors
/// A message with the number of the line that is none of the format's.
pub fn value_in(text: &str, wanted: &str) -> Result<Option<String>, String> {
    let mut rest = text;
    let mut number = 1;
    while !rest.is_empty() {
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        let own = line.trim_start_matches(BLANK);
        if own.trim_end().is_empty() || own.starts_with('#') {
            (rest, number) = (after, number + 1);
            continue;
        }
        let malformed =
            |why: &str| Err(format!("invalid environment variable format at line {number}: {why}"));
        let Some((name, value)) = own.split_once('=') else { return malformed("missing '='") };
        if name.is_empty() {
            return malformed("empty variable name");
        }
        if name.ends_with(BLANK) {
            return malformed("whitespace before '=' is not allowed");
        }
        let (value, after) = if value.is_empty() || value.starts_with(BLANK) {
            ("", after)
        } else {
            if !value.starts_with('\'') {
                return malformed("value must be enclosed in single quotes");
            }
            // From behind the quote on, over lines.
            let start = line.len() - value.len() + 1;
            let Some((value, after)) = rest[start..].split_once('\'') else {
                return malformed("unclosed single quote");
            };
            let (tail, after) = after.split_once('\n').unwrap_or((after, ""));
            let tail = tail.trim();
            if !tail.is_empty() && !tail.starts_with('#') {
                return malformed("unexpected content after closing quote");
            }
            (value, after)
        };
        if name == wanted {
            return Ok(Some(value.to_owned()));
        }
        number += value.matches('\n').count() + 1;
        rest = after;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_what_stands_between_quotes() {
        let text = "# note\n\nA='a $B \\n'\n  B='two\nlines' # why\nC=''\nE= 'x'\nF=\nG='last'";
        for (name, wanted) in [
            ("A", Some("a $B \\n")),
            ("B", Some("two\nlines")),
            ("C", Some("")),
            ("D", None),
            ("E", Some("")),
            ("F", Some("")),
            ("G", Some("last")),
        ] {
            assert_eq!(value_in(text, name).as_ref().map(Option::as_deref), Ok(wanted), "{name}");
        }
        for (text, wanted) in [
            ("A=x", "1: value must be enclosed in single quotes"),
            ("A='x", "1: unclosed single quote"),
            ("B='b\nb'\n=''", "3: empty variable name"),
            ("A ='x'", "1: whitespace before '=' is not allowed"),
            ("A='x' y", "1: unexpected content after closing quote"),
            ("\nA", "2: missing '='"),
        ] {
            let wanted = Err(format!("invalid environment variable format at line {wanted}"));
            assert_eq!(value_in(text, "A"), wanted, "{text}");
        }
    }
}
