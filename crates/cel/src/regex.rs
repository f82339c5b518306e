//! Go's regular expressions (RE2) on the `regex` crate.
//!
//! The crate is RE2's child, but the dialects differ where it hurts: classes like `\d` are ASCII in Go, a `[` inside a
//! class is itself, and a `{` that begins no repetition is, too. [`translate`] writes one dialect in the other; the
//! library functions and the patterns of schemas go through it.

use ::regex::{Regex, RegexBuilder};

/// Memory of a compiled expression; Go limits repetition instead.
const COMPILED_BYTES_MAX: usize = 10 << 20;
/// Go's limit of `{n}`.
const REPEAT_MAX: u32 = 1000;

/// Compiles a pattern written for Go, or says what Go says about it.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    let fail = |why: String| format!("error parsing regexp: {why}");
    let translated = translate(pattern).map_err(fail)?;
    RegexBuilder::new(&translated)
        .size_limit(COMPILED_BYTES_MAX)
        .build()
        .map_err(|error| fail(complaint(pattern, &error)))
}

/// What is wrong in Go's words, and with which part.
fn complaint(pattern: &str, error: &::regex::Error) -> String {
    let text = error.to_string();
    // What stands before the last line is the pattern.
    let detail = text.lines().last().unwrap_or_default();
    let has = |words: &str| detail.contains(words);
    let from = |start: char| pattern.rfind(start).map_or(pattern, |at| &pattern[at..]);
    let (what, part) = if has("unclosed group") {
        ("missing closing )", pattern)
    } else if has("unopened group") {
        ("unexpected )", pattern)
    } else if has("unclosed character class") {
        ("missing closing ]", from('['))
    } else if has("repetition operator missing expression") {
        let at = pattern.find(['*', '+', '?']).unwrap_or_default();
        ("missing argument to repetition operator", pattern.get(at..=at).unwrap_or(pattern))
    } else if has("unrecognized escape sequence") {
        ("invalid escape sequence", from('\\'))
    } else if has("invalid character class range") {
        ("invalid character class range", pattern)
    } else if has("Unicode property") {
        ("invalid character class range", from('\\'))
    } else if has("look-around") || has("flag") {
        let at = ["(?=", "(?!", "(?<"].into_iter().find(|form| pattern.contains(form)).unwrap_or("(?");
        ("invalid or unsupported Perl syntax", at)
    } else if has("nest") {
        ("expression nests too deeply", pattern)
    } else {
        ("expression too large", pattern)
    };
    format!("{what}: `{part}`")
}

/// Writes a Go expression in the dialect of the `regex` crate.
fn translate(pattern: &str) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut rest = pattern;
    let mut inside = false;
    // Where the repetition that was just read began.
    let mut repeated: Option<usize> = None;
    while let Some(c) = rest.chars().next() {
        let at = pattern.len() - rest.len();
        let operator = if inside { None } else { operator(rest)? };
        match (repeated, operator) {
            (Some(start), Some(length)) => {
                let part = &pattern[start..at + length];
                return Err(format!("invalid nested repetition operator: `{part}`"));
            }
            (None, Some(length)) => {
                let lazy = usize::from(rest[length..].starts_with('?'));
                out.push_str(&rest[..length + lazy]);
                rest = &rest[length + lazy..];
                // What repeats nothing is the crate's to refuse.
                repeated = (at > 0 && !pattern[..at].ends_with(['(', '|'])).then_some(at);
                continue;
            }
            (_, None) => repeated = None,
        }
        let taken = match c {
            '\\' => escape(rest, inside, &mut out)?,
            '[' if inside => in_class(rest, &mut out),
            '[' => {
                inside = true;
                begin_class(rest, &mut out)
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
            '-' if inside && rest[1..].starts_with('-') => {
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

/// The start of a class; says how long it was.
fn begin_class(rest: &str, out: &mut String) -> usize {
    let mut taken = 1;
    out.push('[');
    if rest[taken..].starts_with('^') {
        out.push('^');
        taken += 1;
    }
    // A bracket that stands first is itself.
    if rest[taken..].starts_with(']') {
        out.push_str("\\]");
        taken += 1;
    }
    taken
}

/// A bracket inside a class: the start of a named class (`[:alpha:]`), or itself.
fn in_class(rest: &str, out: &mut String) -> usize {
    let named = rest.strip_prefix("[:").and_then(|name| name.find(":]"));
    match named {
        Some(length) => {
            let taken = length + 4;
            out.push_str(&rest[..taken]);
            taken
        }
        None => {
            out.push_str("\\[");
            1
        }
    }
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
        'B' if !inside => out.push_str(r"(?-u:\B)"),
        'Q' => {
            let literal = &rest[2..];
            let end = literal.find("\\E");
            out.push_str(&::regex::escape(&literal[..end.unwrap_or(literal.len())]));
            return Ok(2 + end.map_or(literal.len(), |end| end + 2));
        }
        '<' | '>' => out.push(c),
        '0'..='7' => return octal(rest, out),
        'p' | 'P' => return Ok(unicode_class(rest, c == 'P', out)),
        'x' => {
            let taken = braced(rest).unwrap_or(taken);
            out.push_str(&rest[..taken]);
            return Ok(taken);
        }
        _ => out.push_str(&rest[..taken]),
    }
    Ok(taken)
}

/// `\pL`, `\p{Greek}` and their negations, `\P{Greek}` and `\p{^Greek}`.
fn unicode_class(rest: &str, negated: bool, out: &mut String) -> usize {
    let Some(taken) = braced(rest) else {
        out.push_str(&rest[..2]);
        return 2;
    };
    let name = &rest[3..taken - 1];
    let (name, negated) = name.strip_prefix('^').map_or((name, negated), |name| (name, !negated));
    out.push_str(if negated { "\\P{" } else { "\\p{" });
    out.push_str(name);
    out.push('}');
    taken
}

/// The length of an escape whose letter is followed by something in braces.
fn braced(rest: &str) -> Option<usize> {
    rest[2..].strip_prefix('{')?.find('}').map(|length| length + 4)
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
    let count = |text: &str| text.parse::<u32>().unwrap_or(u32::MAX);
    let low = count(low);
    let high = high.filter(|high| !high.is_empty()).map_or(low, count);
    if low > REPEAT_MAX || high > REPEAT_MAX || high < low {
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
            (r"^\d+$", "12", "\u{661}\u{662}"),
            (r"^\w+$", "a_1", "\u{e9}"),
            (r"^[\w.-]+$", "a.b-c", "a/b"),
            (r"^[^\s]$", "x", " "),
            (r"^[^\D]$", "5", "x"),
            (r"^[[a]+$", "[a", "b"),
            (r"^[[]$", "[", "a"),
            (r"^[:]$", ":", "a"),
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
            (r"^(?:a+?)*[*+]+$", "aa*", "b"),
            ("a$", "a", "a\n"),
            (r"^\p{Greek}+$", "\u{3b1}\u{3b2}", "ab"),
            (r"^\p{Lu}{2}$", "AB", "A"),
            (r"^\pL\PL$", "a1", "1a"),
            (r"^\P{L}\p{^L}$", "12", "ab"),
            (r"^[\p{Lu}\d]+$", "A1", "a"),
            (r"^\x{1F600}\x41$", "\u{1f600}A", "x"),
        ] {
            let own = compile(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
            assert!(own.is_match(matching), "{pattern} should match {matching}");
            assert!(!own.is_match(other), "{pattern} should not match {other}");
        }
    }

    #[test]
    fn what_is_no_pattern_says_so_in_gos_words() {
        for (pattern, expected) in [
            ("(a", "missing closing ): `(a`"),
            ("a)", "unexpected ): `a)`"),
            ("unclosed group)", "unexpected ): `unclosed group)`"),
            ("(look-around\n", "missing closing ): `(look-around\n`"),
            ("x[a", "missing closing ]: `[a`"),
            ("*", "missing argument to repetition operator: `*`"),
            ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
            (r"(a)\1", r"invalid escape sequence: `\1`"),
            (r"a\y", r"invalid escape sequence: `\y`"),
            (r"\p{Nonsense}", r"invalid character class range: `\p{Nonsense}`"),
            ("a**", "invalid nested repetition operator: `**`"),
            ("x++", "invalid nested repetition operator: `++`"),
            ("x{2}{3}", "invalid nested repetition operator: `{2}{3}`"),
            ("a{2}?+", "invalid nested repetition operator: `{2}?+`"),
            ("a{2000}", "invalid repeat count: `{2000}`"),
            ("a{3,2}", "invalid repeat count: `{3,2}`"),
            ("a\\", "trailing backslash at end of expression: ``"),
        ] {
            assert_eq!(compile(pattern).unwrap_err(), format!("error parsing regexp: {expected}"));
        }
    }
}
