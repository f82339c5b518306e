//! Files of variables that a container of the same pod wrote (`fileKeyRef`).
//!
//! The format is a small part of a shell's: `NAME='value'`, where the value may go over several lines and nothing in
//! it is special; empty lines, and lines that begin with `#`.

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
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            rest = after;
            number += 1;
            continue;
        }
        let malformed = || format!("invalid environment variable format at line {number}");
        let (name, quoted) = rest.split_once('=').ok_or_else(malformed)?;
        let name = name.trim();
        let is_name = !name.is_empty() && !name.contains(|own: char| own.is_whitespace() || own == '\'');
        let quoted = quoted.strip_prefix('\'').filter(|_| is_name).ok_or_else(malformed)?;
        let (value, after) = quoted.split_once('\'').ok_or_else(malformed)?;
        let (tail, after) = after.split_once('\n').unwrap_or((after, ""));
        if !tail.trim().is_empty() {
            return Err(malformed());
        }
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
        let text = "# note\n\nA='a $B \\n'\n  B='two\nlines' \nC=''\n";
        for (name, wanted) in
            [("A", Some("a $B \\n")), ("B", Some("two\nlines")), ("C", Some("")), ("D", None)]
        {
            assert_eq!(value_in(text, name).as_ref().map(Option::as_deref), Ok(wanted), "{name}");
        }
        for (text, line) in [("A=x", 1), ("A='x", 1), ("B='b\nb'\nA b='x'", 3), ("A='x' y", 1), ("A", 1)] {
            let wanted = Err(format!("invalid environment variable format at line {line}"));
            assert_eq!(value_in(text, "A"), wanted, "{text}");
        }
    }
}
