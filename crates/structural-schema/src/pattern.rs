//! Regular expressions in the syntax of Go's `regexp` (RE2), compiled on first use and once per text.
//!
//! The `regex` crate is RE2's child, but the dialects differ where it hurts: classes like `\d` are ASCII in Go, a `[`
//! inside a class is itself, and a `{` that begins no repetition is, too. [`translate`] writes one dialect in the other.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use regex::{Regex, RegexBuilder};

/// A compiled expression may take this much memory; Go limits repetition instead.
const COMPILED_BYTES_MAX: usize = 4 << 20;
/// Go's limit of `{n}`.
const REPEAT_MAX: u32 = 1000;

/// A pattern of a schema; equal ones are shared by all schemas.
#[derive(Debug)]
pub struct Pattern {
    text: Box<str>,
    compiled: OnceLock<Result<Regex, Box<str>>>,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

type Shared = Mutex<HashMap<Box<str>, Weak<Pattern>>>;

impl Pattern {
    /// The pattern of this text; the quantity pattern alone stands in a usual cluster's schemas a thousand times.
    pub fn shared(text: &str) -> Arc<Self> {
        static ALL: OnceLock<Shared> = OnceLock::new();
        let mut all = ALL.get_or_init(Shared::default).lock();
        if let Some(own) = all.get(text).and_then(Weak::upgrade) {
            return own;
        }
        if all.len() == all.capacity() {
            all.retain(|_, pattern| pattern.strong_count() > 0);
        }
        let pattern = Arc::new(Self { text: text.into(), compiled: OnceLock::new() });
        all.insert(text.into(), Arc::downgrade(&pattern));
        pattern
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the pattern occurs in `value`; why not, when it is no pattern at all.
    pub fn is_match(&self, value: &str) -> Result<bool, &str> {
        match self.compiled.get_or_init(|| compile(&self.text)) {
            Ok(regex) => Ok(regex.is_match(value)),
            Err(why) => Err(why),
        }
    }

    /// Go's complaint about the pattern.
    pub fn error(&self) -> Option<&str> {
        self.is_match("").err()
    }
}

fn compile(text: &str) -> Result<Regex, Box<str>> {
    let fail = |why: String| format!("error parsing regexp: {why}").into_boxed_str();
    let translated = translate(text).map_err(fail)?;
    RegexBuilder::new(&translated)
        .size_limit(COMPILED_BYTES_MAX)
        .build()
        .map_err(|error| fail(complaint(text, &error)))
}

/// What Go would say; where its words for the mistake are not known, the whole expression is at fault.
fn complaint(text: &str, error: &regex::Error) -> String {
    let detail = error.to_string();
    let has = |words: &str| detail.contains(words);
    if has("unclosed group") {
        format!("missing closing ): `{text}`")
    } else if has("unopened group") {
        format!("unexpected ): `{text}`")
    } else if has("unclosed character class") {
        format!("missing closing ]: `{}`", text.find('[').map_or(text, |at| &text[at..]))
    } else if has("repetition operator missing expression") {
        let at = text.find(['*', '+', '?']).unwrap_or_default();
        format!("missing argument to repetition operator: `{}`", text.get(at..=at).unwrap_or_default())
    } else if has("look-around") {
        let at = ["(?=", "(?!", "(?<"].into_iter().find(|form| text.contains(form)).unwrap_or("(?");
        format!("invalid or unsupported Perl syntax: `{at}`")
    } else if has("compiled regex exceeds size limit") {
        format!("expression too large: `{text}`")
    } else {
        format!("invalid regular expression: `{text}`")
    }
}

/// Writes a Go expression in the dialect of the `regex` crate.
pub fn translate(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len() + 8);
    let mut rest = text;
    let mut inside = false;
    // Where the repetition that was just read began.
    let mut repeated: Option<usize> = None;
    while let Some(c) = rest.chars().next() {
        let at = text.len() - rest.len();
        let after = &rest[c.len_utf8()..];
        let operator = if inside { None } else { operator(rest)? };
        match (repeated, operator) {
            (Some(start), Some(length)) => {
                return Err(format!("invalid nested repetition operator: `{}`", &text[start..at + length]));
            }
            (None, Some(length)) => {
                let lazy = usize::from(rest[length..].starts_with('?'));
                out.push_str(&rest[..length + lazy]);
                rest = &rest[length + lazy..];
                repeated = Some(at);
                continue;
            }
            (_, None) => repeated = None,
        }
        let taken = match c {
            '\\' => escape(rest, inside, &mut out)?,
            '[' if inside => {
                let posix = rest.starts_with("[:").then(|| rest.find(":]")).flatten();
                match posix {
                    Some(end) => {
                        out.push_str(&rest[..end + 2]);
                        end + 2
                    }
                    None => {
                        out.push_str("\\[");
                        1
                    }
                }
            }
            '[' => {
                let mut taken = 1;
                out.push('[');
                if after.starts_with('^') {
                    out.push('^');
                    taken += 1;
                }
                // A bracket that stands first is itself.
                if rest[taken..].starts_with(']') {
                    out.push_str("\\]");
                    taken += 1;
                }
                inside = true;
                taken
            }
            ']' if inside => {
                inside = false;
                out.push(']');
                1
            }
            '&' | '~' if inside => {
                out.push('\\');
                out.push(c);
                1
            }
            '-' if inside && after.starts_with('-') => {
                out.push_str("\\-");
                1
            }
            // What begins no repetition is itself.
            '{' if !inside => {
                out.push_str("\\{");
                1
            }
            other => {
                out.push(other);
                other.len_utf8()
            }
        };
        rest = &rest[taken..];
    }
    Ok(out)
}

/// One escape at the start of `rest`; says how long it was.
fn escape(rest: &str, inside: bool, out: &mut String) -> Result<usize, String> {
    let Some(c) = rest[1..].chars().next() else {
        return Err("trailing backslash at end of expression: ``".into());
    };
    let class = |members: &str, out: &mut String| {
        if inside {
            out.push_str(members);
        } else {
            out.push('[');
            out.push_str(members);
            out.push(']');
        }
    };
    let taken = 1 + c.len_utf8();
    match c {
        'd' => class("0-9", out),
        's' => class(r"\t\n\f\r ", out),
        'w' => class("0-9A-Za-z_", out),
        'D' => out.push_str("[^0-9]"),
        'S' => out.push_str(r"[^\t\n\f\r ]"),
        'W' => out.push_str("[^0-9A-Za-z_]"),
        'b' if !inside => out.push_str(r"(?-u:\b)"),
        'B' if !inside => out.push_str(r"\B"),
        'Q' if !inside => {
            let literal = &rest[2..];
            let end = literal.find("\\E");
            out.push_str(&regex::escape(&literal[..end.unwrap_or(literal.len())]));
            return Ok(2 + end.map_or(literal.len(), |end| end + 2));
        }
        '<' | '>' => out.push(c),
        '0'..='7' => return octal(rest, out),
        _ => out.push_str(&rest[..taken]),
    }
    Ok(taken)
}

/// `\0`, `\123`; a single digit other than zero would be a back reference, which RE2 has not.
fn octal(rest: &str, out: &mut String) -> Result<usize, String> {
    let digits = rest[1..].bytes().take(3).take_while(|byte| (b'0'..=b'7').contains(byte)).count();
    if digits == 1 && !rest[1..].starts_with('0') {
        return Err(format!("invalid escape sequence: `{}`", &rest[..2]));
    }
    let code = u32::from_str_radix(&rest[1..=digits], 8).expect("octal digits");
    out.push_str(&format!("\\x{{{code:x}}}"));
    Ok(1 + digits)
}

/// The length of a repetition operator at the start of `rest`.
fn operator(rest: &str) -> Result<Option<usize>, String> {
    match rest.as_bytes()[0] {
        b'*' | b'+' | b'?' => Ok(Some(1)),
        b'{' => repetition(rest),
        _ => Ok(None),
    }
}

/// The length of `{n}`, `{n,}` or `{n,m}` at the start of `rest`.
fn repetition(rest: &str) -> Result<Option<usize>, String> {
    let Some(end) = rest.find('}') else { return Ok(None) };
    let (low, high) = match rest[1..end].split_once(',') {
        None => (&rest[1..end], None),
        Some((low, high)) => (low, Some(high)),
    };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(low) || high.is_some_and(|high| !high.is_empty() && !is_number(high)) {
        return Ok(None);
    }
    let too_many = |text: &str| text.parse::<u32>().map_or(true, |count| count > REPEAT_MAX);
    if too_many(low) || high.is_some_and(|high| !high.is_empty() && too_many(high)) {
        return Err(format!("invalid repeat count: `{}`", &rest[..=end]));
    }
    Ok(Some(end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_go() {
        for (pattern, matching, other) in [
            (r"^\d+$", "12", "١٢"),
            (r"^\w+$", "a_1", "é"),
            (r"^[\w.-]+$", "a.b-c", "a/b"),
            (r"^[^\s]$", "x", " "),
            (r"^[[a]+$", "[a", "b"),
            (r"^[a&&b]+$", "&", "c"),
            (r"^a{2}$", "aa", "a"),
            (r"^a{,2}$", "a{,2}", "a"),
            (r"^{{x}}$", "{{x}}", "x"),
            (r"^\{x}$", "{x}", "x"),
            (r"^[]a]+$", "]", "b"),
            (r"^\Qa.b\E$", "a.b", "axb"),
            (r"^\<$", "<", ">"),
            (r"\bx\b", "a x", "ax"),
            (r"^[[:alpha:]]$", "a", "1"),
            (r"^\101$", "A", "1"),
            (r"^\/\-$", "/-", "/"),
            (r"^a+?b{2,}?$", "aabb", "ab"),
            (r"^[*+]$", "*", "a"),
        ] {
            let own = Pattern::shared(pattern);
            assert_eq!(own.is_match(matching), Ok(true), "{pattern} should match {matching}");
            assert_eq!(own.is_match(other), Ok(false), "{pattern} should not match {other}");
        }
    }

    #[test]
    fn what_is_no_pattern_says_so_in_gos_words() {
        for (pattern, expected) in [
            ("(a", "error parsing regexp: missing closing ): `(a`"),
            ("a)", "error parsing regexp: unexpected ): `a)`"),
            ("x[a", "error parsing regexp: missing closing ]: `[a`"),
            ("*", "error parsing regexp: missing argument to repetition operator: `*`"),
            ("(?=a)", "error parsing regexp: invalid or unsupported Perl syntax: `(?=`"),
            (r"(a)\1", r"error parsing regexp: invalid escape sequence: `\1`"),
            ("a**", "error parsing regexp: invalid nested repetition operator: `**`"),
            ("a{2}?+", "error parsing regexp: invalid nested repetition operator: `{2}?+`"),
            ("a{2000}", "error parsing regexp: invalid repeat count: `{2000}`"),
            ("a\\", "error parsing regexp: trailing backslash at end of expression: ``"),
        ] {
            assert_eq!(Pattern::shared(pattern).error(), Some(expected));
        }
    }

    #[test]
    fn equal_patterns_are_compiled_once() {
        let (one, two) = (Pattern::shared("^a+$"), Pattern::shared("^a+$"));
        assert!(Arc::ptr_eq(&one, &two));
    }
}
