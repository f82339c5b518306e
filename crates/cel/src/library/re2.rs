//! Go's regular expressions on the `regex` crate, which has the same engine and almost the same syntax.
//!
//! What differs is translated: `\d`, `\w`, `\s` and `\b` are ASCII in Go, `[` needs no escape inside a class, and
//! classes have no operators.

use ::regex::{Regex, RegexBuilder};

/// Memory of a compiled expression.
const COMPILED_BYTES_MAX: usize = 10 << 20;

/// Compiles a pattern written for Go.
pub(crate) fn compile(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(&translate(pattern))
        .size_limit(COMPILED_BYTES_MAX)
        .build()
        .map_err(|error| format!("error parsing regexp: {}: `{pattern}`", reason(&error)))
}

/// The last line of the crate's message says what is wrong.
fn reason(error: &::regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default();
    last.trim_start_matches("error: ").into()
}

fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut characters = pattern.chars().peekable();
    let mut in_class = false;
    let mut class_begins = false;
    while let Some(character) = characters.next() {
        let first = std::mem::take(&mut class_begins);
        match character {
            '\\' => match characters.next() {
                Some(escaped) => escape(escaped, in_class, &mut characters, &mut out),
                None => out.push('\\'),
            },
            '[' if !in_class => {
                in_class = true;
                class_begins = true;
                out.push('[');
                if characters.peek() == Some(&'^') {
                    characters.next();
                    out.push('^');
                }
            }
            '[' => match named_class(characters.clone()) {
                Some(name) => {
                    out.push('[');
                    out.push_str(&name);
                    characters.nth(name.chars().count() - 1);
                }
                None => out.push_str("\\["),
            },
            ']' if in_class && first => out.push_str("\\]"),
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            '&' | '~' if in_class => {
                out.push('\\');
                out.push(character);
            }
            '-' if in_class && out.ends_with('-') => out.push_str("\\-"),
            other => out.push(other),
        }
    }
    out
}

/// `:alpha:]` after the bracket of a named class.
fn named_class(rest: impl Iterator<Item = char>) -> Option<String> {
    let rest: String = rest.take(12).collect();
    let end = rest.find(":]")?;
    (rest.starts_with(':') && end > 0).then(|| rest[..end + 2].into())
}

fn escape(
    escaped: char,
    in_class: bool,
    rest: &mut std::iter::Peekable<std::str::Chars<'_>>,
    out: &mut String,
) {
    let class = match escaped {
        'd' => "0-9",
        'w' => "0-9A-Za-z_",
        's' => "\\t\\n\\x0C\\r ",
        'D' => return out.push_str("[^0-9]"),
        'W' => return out.push_str("[^0-9A-Za-z_]"),
        'S' => return out.push_str("[^\\t\\n\\x0C\\r ]"),
        'b' if !in_class => return out.push_str("(?-u:\\b)"),
        'B' if !in_class => return out.push_str("(?-u:\\B)"),
        // Literal text up to \E.
        'Q' => {
            let mut quoted = String::new();
            while let Some(character) = rest.next() {
                if character == '\\' && rest.peek() == Some(&'E') {
                    rest.next();
                    break;
                }
                quoted.push(character);
            }
            return out.push_str(&::regex::escape(&quoted));
        }
        other => {
            out.push('\\');
            return out.push(other);
        }
    };
    if in_class {
        out.push_str(class);
    } else {
        out.push('[');
        out.push_str(class);
        out.push(']');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_in_go() {
        for (pattern, text, wanted) in [
            (r"^\d+$", "12", true),
            (r"^\d+$", "\u{0661}", false),
            (r"^[\w-]+$", "a-b_1", true),
            (r"^[^\s]+$", "a b", false),
            (r"^[[]$", "[", true),
            (r"^[]a]+$", "]a", true),
            (r"^[[:alpha:]]+$", "abc", true),
            (r"^[:]$", ":", true),
            (r"^[a&&b]+$", "&", true),
            (r"\bfoo\b", "a foo b", true),
            (r"^\Qa.b\E$", "a.b", true),
            (r"^\Qa.b\E$", "axb", false),
            (r"^[^\D]$", "5", true),
            (r"a$", "a\n", false),
        ] {
            assert_eq!(compile(pattern).unwrap().is_match(text), wanted, "{pattern} on {text}");
        }
        assert!(compile("(").is_err());
        assert!(compile("a{2000000}").is_err());
    }
}
