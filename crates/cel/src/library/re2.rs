//! Go's regular expressions on the `regex` crate, which has the same engine and almost the same syntax.
//!
//! What differs is translated: `\d`, `\w`, `\s` and `\b` are ASCII in Go, `[` needs no escape inside a class, and
//! classes have no operators.

use ::regex::{Regex, RegexBuilder};

/// Memory of a compiled expression.
const COMPILED_BYTES_MAX: usize = 10 << 20;

/// Compiles a pattern written for Go.
pub(crate) fn compile(pattern: &str) -> Result<Regex, String> {
    if let Some(operator) = nested_repetition(pattern) {
        return Err(format!("error parsing regexp: invalid nested repetition operator: `{operator}`"));
    }
    RegexBuilder::new(&translate(pattern))
        .size_limit(COMPILED_BYTES_MAX)
        .build()
        .map_err(|error| format!("error parsing regexp: {}", reason(&error, pattern)))
}

/// What is wrong in Go's words, and with which part.
fn reason(error: &::regex::Error, pattern: &str) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
    let from = |start: char| pattern.rfind(start).map_or(pattern, |at| &pattern[at..]);
    let (what, part) = match last {
        "unopened group" => ("unexpected )", pattern),
        "unclosed group" => ("missing closing )", pattern),
        "unclosed character class" => ("missing closing ]", from('[')),
        "repetition operator missing expression" => {
            let at = pattern.find(['*', '+', '?']).unwrap_or(0);
            ("missing argument to repetition operator", pattern.get(at..=at).unwrap_or(pattern))
        }
        "unrecognized escape sequence" => ("invalid escape sequence", from('\\')),
        "incomplete escape sequence, reached end of pattern prematurely" => {
            return "trailing backslash at end of expression: ``".into();
        }
        other if other.starts_with("invalid character class range") => {
            ("invalid character class range", pattern)
        }
        other if other.starts_with("look-around") => ("invalid or unsupported Perl syntax", pattern),
        _ => ("expression nests too deeply", pattern),
    };
    format!("{what}: `{part}`")
}

/// A repetition of a repetition (`a**`), which only the crate allows.
fn nested_repetition(pattern: &str) -> Option<&str> {
    let bytes = pattern.as_bytes();
    let (mut at, mut in_class, mut before) = (0, false, None);
    while at < bytes.len() {
        let start = at;
        let mut repeats = false;
        match bytes[at] {
            b'\\' => at += 1,
            b'[' if !in_class => in_class = true,
            b']' => in_class = false,
            b'*' | b'+' | b'?' if !in_class => repeats = true,
            b'{' if !in_class => {
                if let Some(length) = pattern[at..].find('}')
                    && pattern[at + 1..at + length].bytes().all(|byte| byte.is_ascii_digit() || byte == b',')
                    && bytes[at + 1].is_ascii_digit()
                {
                    repeats = true;
                    at += length;
                }
            }
            _ => {}
        }
        at += 1;
        if !repeats {
            before = None;
            continue;
        }
        if let Some(before) = before {
            return pattern.get(before..at);
        }
        // A question mark makes it lazy.
        if bytes.get(at) == Some(&b'?') {
            at += 1;
        }
        before = (start > 0 && bytes[start - 1] != b'(' && bytes[start - 1] != b'|').then_some(start);
    }
    None
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
        for (pattern, wanted) in [
            ("(", "missing closing ): `(`"),
            (")", "unexpected ): `)`"),
            ("a[b", "missing closing ]: `[b`"),
            ("*", "missing argument to repetition operator: `*`"),
            ("x++", "invalid nested repetition operator: `++`"),
            ("x{2}{3}", "invalid nested repetition operator: `{2}{3}`"),
        ] {
            assert_eq!(compile(pattern).unwrap_err(), format!("error parsing regexp: {wanted}"));
        }
        assert!(compile("(?:a+?)*[*+]+").is_ok());
        assert!(compile("a{2000000}").is_err());
    }
}
