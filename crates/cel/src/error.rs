//! Errors of compiling, in upstream's form: one block per problem with the line and a pointer under it.
//!
//! ```text
//! ERROR: <input>:1:6: undeclared reference to 'foo' (in container '')
//!  | 1 + foo
//!  | ....^
//! ```

use std::fmt;

/// Problems beyond this many are counted and not shown.
const ISSUES_MAX: usize = 100;
/// Lines longer than this are not repeated under the problem.
const SNIPPET_BYTES_MAX: usize = 16_384;

/// Where something stands: line from 1, column from 0, in code points.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    pub line: i64,
    pub column: i64,
}

impl Location {
    /// Of problems with the text as a whole.
    pub const NONE: Self = Self { line: -1, column: -1 };
}

/// One problem of an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    pub location: Location,
    pub message: String,
}

/// Why an expression does not compile; prints as upstream does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileError {
    /// In order of position.
    pub issues: Vec<Issue>,
    source: Source,
    /// A checked expression that has no value whatever it is evaluated on: `int('a')`.
    instantiation: Option<String>,
}

impl CompileError {
    pub(crate) fn instantiation(error: impl fmt::Display) -> Self {
        Self { issues: Vec::new(), source: Source::new(""), instantiation: Some(error.to_string()) }
    }

    /// Whether the expression is well formed and typed, and failed in its constants.
    pub fn is_instantiation(&self) -> bool {
        self.instantiation.is_some()
    }
}

impl std::error::Error for CompileError {}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(message) = &self.instantiation {
            return f.write_str(message);
        }
        for (at, issue) in self.issues.iter().take(ISSUES_MAX).enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            self.source.write_issue(issue, f)?;
        }
        if self.issues.len() > ISSUES_MAX {
            write!(f, "\n{} more errors were truncated", self.issues.len() - ISSUES_MAX)?;
        }
        Ok(())
    }
}

/// Why an expression is no good where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is malformed, or of the wrong type.
    Invalid(String),
    /// It is well formed and typed, and its constants have no value.
    Internal(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(text) | Self::Internal(text) => f.write_str(text),
        }
    }
}

/// The text of an expression, for turning offsets into locations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    text: Box<str>,
}

impl Source {
    pub fn new(text: &str) -> Self {
        Self { text: text.into() }
    }

    /// The location of an offset in code points.
    pub fn locate(&self, offset: u32) -> Location {
        if self.text.is_empty() {
            return Location { line: 1, column: -1 };
        }
        let mut location = Location { line: 1, column: 0 };
        for character in self.text.chars().take(offset as usize) {
            if character == '\n' {
                location.line += 1;
                location.column = 0;
            } else {
                location.column += 1;
            }
        }
        location
    }

    pub fn error(self, mut issues: Vec<Issue>) -> CompileError {
        issues.sort_by_key(|issue| issue.location);
        CompileError { issues, source: self, instantiation: None }
    }

    fn line(&self, number: i64) -> Option<&str> {
        let index = usize::try_from(number.checked_sub(1)?).ok()?;
        self.text.split('\n').nth(index)
    }

    fn write_issue(&self, issue: &Issue, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Location { line, column } = issue.location;
        write!(f, "ERROR: <input>:{line}:{}: {}", column + 1, issue.message)?;
        let Some(text) = self.line(line).filter(|text| text.len() <= SNIPPET_BYTES_MAX && column >= 0) else {
            return Ok(());
        };
        write!(f, "\n | {}\n | ", text.replace('\t', " "))?;
        let mut characters = text.chars();
        for character in characters.by_ref().take(usize::try_from(column).unwrap_or(0)) {
            f.write_str(if character.is_ascii() { "." } else { "\u{ff0e}" })?;
        }
        f.write_str(if characters.next().is_none_or(|next| next.is_ascii()) { "^" } else { "\u{ff3e}" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pointer_is_as_wide_as_what_it_points_past() {
        let source = Source::new("a\n  \u{1f601}\t+ \u{1f601}");
        let location = source.locate(7);
        assert_eq!(location, Location { line: 2, column: 5 });
        let error = source.error(vec![Issue { location, message: "no".into() }]);
        assert_eq!(error.to_string(), "ERROR: <input>:2:6: no\n |   \u{1f601} + \u{1f601}\n | ..\u{ff0e}..^");
    }

    #[test]
    fn a_problem_of_the_whole_text_has_no_line() {
        let error = Source::new("a").error(vec![Issue { location: Location::NONE, message: "big".into() }]);
        assert_eq!(error.to_string(), "ERROR: <input>:-1:0: big");
    }
}
