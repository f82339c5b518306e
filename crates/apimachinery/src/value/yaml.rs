//! Writing a [`Value`] as YAML, byte for byte as upstream's server does.
//!
//! Upstream turns its JSON into YAML with go-yaml 2: block style, lists at the indentation of their field, keys in
//! natural order (`a2` before `a10`), long texts folded at spaces, and quotes only where a reader of YAML 1.1 would
//! otherwise see something else than a text. [`Writer`] follows its emitter; [`reads_as_text`] says what needs quotes.

use std::cmp::Ordering;
use std::fmt::Write as _;

use super::{Number, Value};

/// A line goes on at the next space once it is longer than this.
const LINE_CHARS: usize = 80;
/// Longer keys are written in the explicit form (`? key`).
const SIMPLE_KEY_BYTES_MAX: usize = 128;
const STEP: usize = 2;

impl Value {
    /// YAML as `kubectl -o yaml` would print it.
    pub fn to_yaml(&self) -> String {
        let mut writer = Writer { out: String::new(), column: 0 };
        match self {
            Self::Object(map) if !map.is_empty() => writer.mapping(map, 0),
            Self::Array(items) if !items.is_empty() => writer.sequence(items, 0),
            leaf => {
                writer.leaf(leaf, STEP);
                writer.end_line();
            }
        }
        writer.out
    }
}

struct Writer {
    out: String,
    /// Characters on the current line.
    column: usize,
}

impl Writer {
    fn put(&mut self, text: &str) {
        self.out.push_str(text);
        self.column += text.chars().count();
    }

    fn end_line(&mut self) {
        // A literal text that ends in a line break has done so.
        if self.column > 0 {
            self.out.push('\n');
            self.column = 0;
        }
    }

    fn start_line(&mut self, indent: usize) {
        self.end_line();
        self.fill(indent);
    }

    /// Goes to a column of the current line.
    fn fill(&mut self, indent: usize) {
        while self.column < indent {
            self.out.push(' ');
            self.column += 1;
        }
    }

    /// Fields at `indent`; the first stands where the line has got to.
    fn mapping(&mut self, map: &super::Map, indent: usize) {
        let mut fields: Vec<(&str, &Value)> = map.iter().map(|(key, value)| (key.as_str(), value)).collect();
        fields.sort_by(|(a, _), (b, _)| natural_order(a, b));
        for (index, (key, value)) in fields.into_iter().enumerate() {
            if index > 0 {
                self.start_line(indent);
            }
            self.fill(indent);
            if is_simple_key(key) {
                self.text(key, indent, Place::Key);
                self.put(":");
                self.value(value, indent);
            } else {
                self.put("?");
                self.item(&Value::String(key.into()), indent);
                self.start_line(indent);
                self.put(":");
                self.item(value, indent);
            }
        }
        self.end_line();
    }

    /// What follows `key:`.
    fn value(&mut self, value: &Value, indent: usize) {
        match value {
            Value::Object(map) if !map.is_empty() => {
                self.start_line(indent + STEP);
                self.mapping(map, indent + STEP);
            }
            Value::Array(items) if !items.is_empty() => {
                self.start_line(indent);
                self.sequence(items, indent);
            }
            leaf => {
                self.put(" ");
                self.leaf(leaf, indent + STEP);
            }
        }
    }

    fn sequence(&mut self, items: &[Value], indent: usize) {
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                self.start_line(indent);
            }
            self.fill(indent);
            self.put("-");
            self.item(item, indent);
        }
        self.end_line();
    }

    /// What follows a sign of one character on the same line.
    fn item(&mut self, value: &Value, indent: usize) {
        match value {
            Value::Object(map) if !map.is_empty() => self.mapping(map, indent + STEP),
            Value::Array(items) if !items.is_empty() => self.sequence(items, indent + STEP),
            leaf => {
                self.put(" ");
                self.leaf(leaf, indent + STEP);
            }
        }
    }

    /// A scalar or an empty collection; what is folded goes on at `indent`.
    fn leaf(&mut self, value: &Value, indent: usize) {
        match value {
            Value::Null => self.put("null"),
            Value::Bool(flag) => self.put(if *flag { "true" } else { "false" }),
            Value::Number(number) => self.put(&number_text(*number)),
            Value::String(text) => self.text(text, indent, Place::Value),
            Value::Array(_) => self.put("[]"),
            Value::Object(_) => self.put("{}"),
        }
    }

    fn text(&mut self, text: &str, indent: usize, place: Place) {
        let (style, quote) = match style(text, place) {
            Style::Literal => return self.literal(text, indent),
            style @ Style::Plain => (style, ""),
            style @ Style::SingleQuoted => (style, "'"),
            style @ Style::DoubleQuoted => (style, "\""),
        };
        self.put(quote);
        self.folded(text, indent, place, style);
        self.put(quote);
    }

    /// Writes a text of one line and breaks it at single spaces where it is too long; in double quotes also before
    /// further spaces, which a backslash keeps.
    fn folded(&mut self, text: &str, indent: usize, place: Place, style: Style) {
        let keeps_spaces = style == Style::DoubleQuoted;
        let mut written = 0;
        for (at, around) in (1..).zip(text.as_bytes().windows(3)) {
            let [before, b' ', next] = around else { continue };
            let may_break = *before != b' ' && (keeps_spaces || *next != b' ');
            if !may_break || place != Place::Value {
                continue;
            }
            self.styled(&text[written..at], style);
            written = at;
            if self.column > LINE_CHARS {
                self.start_line(indent);
                if *next == b' ' {
                    self.put("\\");
                }
                written += 1;
            }
        }
        self.styled(&text[written..], style);
    }

    /// A part of a text that goes on without a break.
    fn styled(&mut self, part: &str, style: Style) {
        let start = self.out.len();
        match style {
            Style::SingleQuoted => {
                for (index, quoted) in part.split('\'').enumerate() {
                    self.out.push_str(if index > 0 { "''" } else { "" });
                    self.out.push_str(quoted);
                }
            }
            Style::DoubleQuoted => part.chars().for_each(|c| escape(c, &mut self.out)),
            Style::Plain | Style::Literal => self.out.push_str(part),
        }
        self.column += self.out[start..].chars().count();
    }

    /// Line by line after `|`.
    fn literal(&mut self, text: &str, indent: usize) {
        self.put("|");
        if text.starts_with([' ', '\n']) {
            self.put("2");
        }
        if !text.ends_with('\n') {
            self.put("-");
        } else if text == "\n" || text.ends_with("\n\n") {
            self.put("+");
        }
        self.out.push('\n');
        self.column = 0;
        for line in text.split_inclusive('\n') {
            let line = line.strip_suffix('\n').unwrap_or(line);
            if !line.is_empty() {
                self.fill(indent);
                self.put(line);
            }
            self.out.push('\n');
            self.column = 0;
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Key,
    Value,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Plain,
    SingleQuoted,
    DoubleQuoted,
    Literal,
}

fn style(text: &str, place: Place) -> Style {
    if text.chars().any(|c| !is_printable(c)) || text.contains(" \n") {
        return Style::DoubleQuoted;
    }
    if text.contains('\n') {
        let literal = place == Place::Value && !text.ends_with(' ');
        return if literal { Style::Literal } else { Style::DoubleQuoted };
    }
    if !reads_as_text(text) {
        return Style::DoubleQuoted;
    }
    if has_indicators(text) || text.starts_with(' ') || text.ends_with(' ') {
        return Style::SingleQuoted;
    }
    Style::Plain
}

fn is_simple_key(key: &str) -> bool {
    !key.contains('\n') && key.len() <= SIMPLE_KEY_BYTES_MAX
}

/// Whether a character may stand for itself. Line breaks other than `\n` may not, nor what lies beyond the first
/// 65,536 characters.
fn is_printable(c: char) -> bool {
    match c {
        '\n' => true,
        '\u{2028}' | '\u{2029}' | '\u{feff}' => false,
        ' '..='~' | '\u{a0}'..='\u{fffd}' => true,
        _ => false,
    }
}

/// Whether signs of YAML stand where they would mean something.
fn has_indicators(text: &str) -> bool {
    let ends_word = |rest: &str| rest.is_empty() || rest.starts_with(' ');
    if text.starts_with("---") || text.starts_with("...") {
        return true;
    }
    let Some(first) = text.chars().next() else { return false };
    let rest = &text[first.len_utf8()..];
    match first {
        '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`' => {
            return true;
        }
        '?' | ':' | '-' if ends_word(rest) => return true,
        _ => {}
    }
    text.contains(" #")
        || text.match_indices(':').skip_while(|(at, _)| *at == 0).any(|(at, _)| ends_word(&text[at + 1..]))
}

/// Whether a reader of YAML 1.1 takes the bare word for a text, and not for a number, time, boolean or nothing.
fn reads_as_text(word: &str) -> bool {
    const WORDS: [&str; 39] = [
        "", "~", "null", "Null", "NULL", "y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On",
        "ON", "n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF", ".nan", ".NaN",
        ".NAN", ".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF", "-.inf", "-.Inf", "-.INF",
    ];
    if WORDS.contains(&word) {
        return false;
    }
    match word.as_bytes().first() {
        Some(b'.') => word.parse::<f64>().is_err(),
        Some(b'+' | b'-' | b'0'..=b'9') => {
            let plain = word.replace('_', "");
            !(is_timestamp(word) || is_integer(&plain) || is_float(&plain) || is_base_60(word))
        }
        _ => true,
    }
}

/// As Go's `ParseInt` and `ParseUint` with base 0 read it: decimal, `0x`, `0o`, `0b`, or octal after a `0`.
fn is_integer(text: &str) -> bool {
    let (signed, digits) = match text.strip_prefix(['+', '-']) {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (base, digits) = match lower.get(..2) {
        Some("0x") => (16, &lower[2..]),
        Some("0o") => (8, &lower[2..]),
        Some("0b") => (2, &lower[2..]),
        _ if lower.len() > 1 && lower.starts_with('0') => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(base)) {
        return false;
    }
    let Ok(magnitude) = u64::from_str_radix(digits, base) else { return false };
    let limit = u64::try_from(i64::MAX).unwrap_or_default();
    !signed || magnitude <= limit + u64::from(text.starts_with('-'))
}

/// Digits, a point, an exponent; not too large.
fn is_float(text: &str) -> bool {
    let digits = |text: &str| text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    let whole = digits(rest);
    let mut rest = &rest[whole..];
    if let Some(after) = rest.strip_prefix('.') {
        let fraction = digits(after);
        if whole == 0 && fraction == 0 {
            return false;
        }
        rest = &after[fraction..];
    } else if whole == 0 {
        return false;
    }
    if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        if exponent.is_empty() || digits(exponent) != exponent.len() {
            return false;
        }
    } else if !rest.is_empty() {
        return false;
    }
    text.parse::<f64>().is_ok_and(f64::is_finite)
}

/// `12:30:45`, a number of base 60 in YAML 1.1.
fn is_base_60(text: &str) -> bool {
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    let text = match text.split_once('.') {
        Some((whole, fraction)) if fraction.chars().all(|c| c.is_ascii_digit() || c == '_') => whole,
        Some(_) => return false,
        None => text,
    };
    let parts: Vec<&str> = text.split(':').collect();
    let [first, sixtieths @ ..] = &parts[..] else { return false };
    first.starts_with(|c: char| c.is_ascii_digit())
        && first.chars().all(|c| c.is_ascii_digit() || c == '_')
        && !sixtieths.is_empty()
        && sixtieths.iter().all(|part| number(part, 2, 59).is_some())
}

/// `2006-1-2`, alone or with a time of day.
fn is_timestamp(text: &str) -> bool {
    let Some((year, rest)) = text.split_once('-') else { return false };
    let Some((month, rest)) = rest.split_once('-') else { return false };
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (day, time) = rest.split_at(end);
    let is_date = year.len() == 4
        && number(year, 4, 9999).is_some()
        && number(month, 2, 12).is_some_and(|month| month > 0)
        && number(day, 2, 31).is_some_and(|day| day > 0 && is_day(year, month, day));
    let is_time = match time.chars().next() {
        None => true,
        Some(' ') => is_time_of_day(&time[1..]),
        Some('T' | 't') => strip_zone(&time[1..]).is_some_and(is_time_of_day),
        Some(_) => false,
    };
    is_date && is_time
}

/// A number of at most so many digits, and at most so large.
fn number(text: &str, digits_max: usize, max: u32) -> Option<u32> {
    let fits = (1..=digits_max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    fits.then(|| text.parse().ok()).flatten().filter(|number| *number <= max)
}

fn is_day(year: &str, month: &str, day: u32) -> bool {
    let parsed = |text: &str| text.parse::<i16>().ok();
    let (Some(year), Some(month)) = (parsed(year), parsed(month).and_then(|month| i8::try_from(month).ok()))
    else {
        return false;
    };
    jiff::civil::Date::new(year, month, 1)
        .is_ok_and(|first| day <= u32::from(first.days_in_month().unsigned_abs()))
}

fn is_time_of_day(text: &str) -> bool {
    let (time, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let parts: Vec<&str> = time.split(':').collect();
    let [hour, minute, second] = parts[..] else { return false };
    number(hour, 2, 23).is_some()
        && number(minute, 2, 59).is_some()
        && number(second, 2, 59).is_some()
        && !fraction.is_empty()
        && fraction.bytes().all(|byte| byte.is_ascii_digit())
}

/// The time of day before `Z` or `+02:00`.
fn strip_zone(text: &str) -> Option<&str> {
    if let Some(time) = text.strip_suffix('Z') {
        return Some(time);
    }
    let (time, zone) = text.split_at_checked(text.len().checked_sub(6)?)?;
    let (hours, minutes) = zone.strip_prefix(['+', '-'])?.split_once(':')?;
    let two = |text: &str, max| text.len() == 2 && number(text, 2, max).is_some();
    (two(hours, 24) && two(minutes, 60)).then_some(time)
}

/// As Go's `%g` prints it.
fn number_text(number: Number) -> String {
    match number {
        Number::Int(n) => n.to_string(),
        Number::Uint(n) => n.to_string(),
        // Go's JSON has no fraction there, and so this is an integer again.
        Number::Float(f) if f.fract() == 0.0 && f.abs() < 1e15 => f.to_string(),
        Number::Float(f) => crate::field::go_float(f),
    }
}

fn escape(c: char, out: &mut String) {
    let short = match c {
        '\0' => '0',
        '\u{7}' => 'a',
        '\u{8}' => 'b',
        '\t' => 't',
        '\n' => 'n',
        '\u{b}' => 'v',
        '\u{c}' => 'f',
        '\r' => 'r',
        '\u{1b}' => 'e',
        '"' => '"',
        '\\' => '\\',
        '\u{85}' => 'N',
        '\u{2028}' => 'L',
        '\u{2029}' => 'P',
        c if is_printable(c) => return out.push(c),
        c => {
            let code = u32::from(c);
            let (letter, width) = match code {
                0..=0xff => ('x', 2),
                0x100..=0xffff => ('u', 4),
                _ => ('U', 8),
            };
            let _ = write!(out, "\\{letter}{code:0width$X}");
            return;
        }
    };
    out.push('\\');
    out.push(short);
}

/// Letters by their code, numbers by their value, and what is no letter before letters.
fn natural_order(a: &str, b: &str) -> Ordering {
    let differing = a.char_indices().zip(b.chars()).find(|((_, own), other)| own != other);
    let Some(((at, own), other)) = differing else { return a.len().cmp(&b.len()) };
    match (own.is_alphabetic(), other.is_alphabetic()) {
        (true, true) => return own.cmp(&other),
        (true, false) => return Ordering::Greater,
        (false, true) => return Ordering::Less,
        (false, false) => {}
    }
    // A zero inside a number counts as a digit of it, not as one that leads it.
    let mut digits_before = a[..at].bytes().rev().take_while(u8::is_ascii_digit);
    let inside = (own == '0' || other == '0') && digits_before.any(|digit| digit != b'0');
    let value = |text: &str| -> (u128, usize) {
        let digits = text[at..].chars().map_while(|c| c.to_digit(10)).take(30);
        digits.fold((u128::from(inside), 0), |(value, len), digit| (value * 10 + u128::from(digit), len + 1))
    };
    value(a).cmp(&value(b)).then(own.cmp(&other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    #[track_caller]
    fn check(value: &Value, expected: &str) {
        assert_eq!(value.to_yaml(), expected);
        assert_eq!(Value::parse_yaml(expected).unwrap(), *value, "{expected}");
    }

    #[test]
    fn collections_are_blocks_and_lists_stand_below_their_field() {
        check(
            &json!({"a": [1, {"b": "c", "d": [[1, 2], []]}, {}], "e": {"f": null, "g": {}}}),
            "a:\n- 1\n- b: c\n  d:\n  - - 1\n    - 2\n  - []\n- {}\ne:\n  f: null\n  g: {}\n",
        );
        check(&json!([{"a": 1}]), "- a: 1\n");
        assert_eq!(json!("x").to_yaml(), "x\n");
    }

    #[test]
    fn quotes_stand_only_where_they_are_needed() {
        for (text, expected) in [
            ("f:data", "f:data"),
            (".", "."),
            ("k:{\"name\":\"c\"}", "k:{\"name\":\"c\"}"),
            ("a: b", "'a: b'"),
            ("a:", "'a:'"),
            ("it's", "it's"),
            ("'it's", "'''it''s'"),
            ("a #b", "'a #b'"),
            ("#a", "'#a'"),
            ("- a", "'- a'"),
            ("-a", "-a"),
            ("-", "'-'"),
            ("*", "'*'"),
            (" a", "' a'"),
            ("", "\"\""),
            ("yes", "\"yes\""),
            ("off", "\"off\""),
            ("null", "\"null\""),
            ("~", "\"~\""),
            ("479", "\"479\""),
            ("0x1f", "\"0x1f\""),
            ("0777", "\"0777\""),
            ("08", "\"08\""),
            ("1e3", "\"1e3\""),
            ("1_000", "\"1_000\""),
            ("1.", "\"1.\""),
            (".5", "\".5\""),
            ("1.2.3", "1.2.3"),
            ("1Gi", "1Gi"),
            ("12:30:45", "\"12:30:45\""),
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("2026-11-21T02:48:45Z", "\"2026-11-21T02:48:45Z\""),
            ("2026-1-2", "\"2026-1-2\""),
            ("2026-02-30", "2026-02-30"),
            ("2026-13-01", "2026-13-01"),
            ("a\tb", "\"a\\tb\""),
            ("é", "é"),
            ("😀", "\"\\U0001F600\""),
            ("a\u{0}", "\"a\\0\""),
        ] {
            assert_eq!(json!({ "k": text }).to_yaml(), format!("k: {expected}\n"), "{text:?}");
        }
    }

    #[test]
    fn texts_of_several_lines_are_literal() {
        check(&json!({"a": "x\ny\n", "b": 1}), "a: |\n  x\n  y\nb: 1\n");
        check(&json!({"a": "x\n\n  y"}), "a: |-\n  x\n\n    y\n");
        check(&json!({"a": " x\n\n"}), "a: |2+\n   x\n\n");
        check(&json!({"a": "x \ny"}), "a: \"x \\ny\"\n");
        check(&json!({"a": [{"b": "x\ny"}]}), "a:\n- b: |-\n    x\n    y\n");
    }

    #[test]
    fn long_texts_are_folded_at_single_spaces() {
        let word = "abcdefghi";
        let text = [word; 12].join(" ");
        let expected = format!("a: {}\n  {}\n", [word; 8].join(" "), [word; 4].join(" "));
        check(&json!({ "a": text.as_str() }), &expected);
        let quoted = format!("a: '{}\n  {}: x'\n", [word; 8].join(" "), [word; 4].join(" "));
        check(&json!({ "a": format!("{text}: x") }), &quoted);
        let escaped = format!("a: \"{}\n  {}\\t\"\n", [word; 8].join(" "), [word; 4].join(" "));
        check(&json!({ "a": format!("{text}\t") }), &escaped);
    }

    #[test]
    fn long_keys_are_explicit() {
        let key = "k".repeat(129);
        check(&json!({ key.as_str(): {"b": 1}, "a": 1 }), &format!("a: 1\n? {key}\n: b: 1\n"));
    }

    #[test]
    fn keys_are_in_natural_order() {
        let mut keys = ["a10", "a2", "b", "a", "B", ".", "a-b", "a02", "1"];
        keys.sort_by(|a, b| natural_order(a, b));
        assert_eq!(keys, [".", "1", "B", "a", "a-b", "a2", "a02", "a10", "b"]);
    }

    #[test]
    fn numbers_are_as_go_prints_them() {
        for (number, expected) in [
            (0.5, "0.5"),
            (1e21, "1e+21"),
            (1.5e-7, "1.5e-07"),
            (123_456.5, "123456.5"),
            (1_234_567.5, "1.2345675e+06"),
            (1e6, "1000000"),
        ] {
            assert_eq!(number_text(Number::Float(number)), expected);
        }
    }
}
