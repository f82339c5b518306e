//! The string formats that a schema may ask for, as upstream's registry checks them.

use std::net::Ipv6Addr;
use std::sync::OnceLock;

use apimachinery::{Str, dns, duration, ip};
use regex::Regex;

use crate::structural::Kind;

/// A format that is checked, under the name it was given.
#[derive(Debug, Clone)]
pub struct Format {
    pub name: Str,
    check: Check,
}

/// One name means one check for texts, and another for numbers.
impl PartialEq for Format {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && std::mem::discriminant(&self.check) == std::mem::discriminant(&other.check)
    }
}

#[derive(Debug, Clone, Copy)]
enum Check {
    /// Of a number: a matter of its range.
    Int32,
    Int64,
    Float,
    Double,
    Text(TextCheck),
}

type TextCheck = fn(&str) -> bool;

/// Names without their dashes.
const FORMATS: &[(&str, TextCheck)] = &[
    ("bsonobjectid", is_object_id),
    ("byte", is_base64),
    ("cidr", is_cidr),
    ("creditcard", is_credit_card),
    ("date", is_date),
    ("datetime", is_date_time),
    ("duration", is_duration),
    ("email", is_email),
    ("hexcolor", |text| matches(HEX_COLOR, text)),
    ("hostname", is_hostname),
    ("ipv4", is_ipv4),
    ("ipv6", is_ipv6),
    ("isbn", |text| is_isbn10(text) || is_isbn13(text)),
    ("isbn10", is_isbn10),
    ("isbn13", is_isbn13),
    ("k8slongname", |text| dns::dns1123_subdomain(text).is_empty()),
    ("k8sshortname", |text| dns::dns1123_label(text).is_empty()),
    ("mac", is_mac),
    ("password", |_| true),
    ("rgbcolor", |text| matches(RGB_COLOR, text)),
    ("ssn", |text| text.len() == 11 && matches(SSN, text)),
    ("uri", cel::is_request_uri),
    ("uuid", |text| matches(UUID, text)),
    ("uuid3", |text| matches(UUID3, text)),
    ("uuid4", |text| matches(UUID4, text)),
    ("uuid5", |text| matches(UUID5, text)),
];

impl Format {
    /// The format of a node of this type; `None` for one that is not checked there.
    pub fn parse(name: &str, kind: Option<Kind>) -> Option<Self> {
        if name.is_empty() {
            return None;
        }
        let check = match (kind, name) {
            (Some(Kind::Integer), "int32") => Check::Int32,
            (Some(Kind::Integer), "int64") => Check::Int64,
            (Some(Kind::Number), "float") => Check::Float,
            (Some(Kind::Number), "double") => Check::Double,
            (None | Some(Kind::String), _) => {
                let plain = name.replace('-', "");
                let at = FORMATS.binary_search_by(|(own, _)| (*own).cmp(&plain)).ok()?;
                Check::Text(FORMATS[at].1)
            }
            _ => return None,
        };
        Some(Self { name: name.into(), check })
    }

    /// Whether texts are checked for it.
    pub fn is_of_text(&self) -> bool {
        matches!(self.check, Check::Text(_))
    }

    pub fn allows_text(&self, text: &str) -> bool {
        match self.check {
            Check::Text(check) => check(text),
            Check::Int32 | Check::Int64 | Check::Float | Check::Double => true,
        }
    }

    /// Whether a number is within the range of a numeric format.
    pub fn allows_number(&self, number: f64) -> bool {
        match self.check {
            Check::Int32 => (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&number),
            Check::Float => number.abs() <= f64::from(f32::MAX),
            Check::Int64 | Check::Double | Check::Text(_) => true,
        }
    }
}

const HEX_COLOR: &str = "^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$";
const RGB_COLOR: &str = r"^rgb\([\t\n\f\r ]*(0|[1-9][0-9]?|1[0-9][0-9]?|2[0-4][0-9]|25[0-5])[\t\n\f\r ]*,[\t\n\f\r ]*(0|[1-9][0-9]?|1[0-9][0-9]?|2[0-4][0-9]|25[0-5])[\t\n\f\r ]*,[\t\n\f\r ]*(0|[1-9][0-9]?|1[0-9][0-9]?|2[0-4][0-9]|25[0-5])[\t\n\f\r ]*\)$";
const SSN: &str = "^[0-9]{3}[- ]?[0-9]{2}[- ]?[0-9]{4}$";
const UUID: &str = "(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$";
const UUID3: &str = "(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?3[0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}$";
const UUID4: &str = "(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?4[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$";
const UUID5: &str = "(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?5[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$";
const HOSTNAME: &str = r"^([a-zA-Z0-9\p{S}\p{L}]((-?[a-zA-Z0-9\p{S}\p{L}]{0,62})?)|([a-zA-Z0-9\p{S}\p{L}](([a-zA-Z0-9-\p{S}\p{L}]{0,61}[a-zA-Z0-9\p{S}\p{L}])?)(\.)){1,}([a-zA-Z\p{L}]){2,63})$";
const CREDIT_CARD: &str = "^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35[0-9]{3})[0-9]{11})$";
const TIME_OF_DAY: &str = "^([0-9]{2}):([0-9]{2}):([0-9]{2})(.[0-9]+)?(z|([+-][0-9]{2}:[0-9]{2}))$";

/// Each of the expressions above is compiled when it is first asked for.
fn matches(pattern: &'static str, text: &str) -> bool {
    static COMPILED: [OnceLock<Regex>; PATTERNS.len()] = [const { OnceLock::new() }; PATTERNS.len()];
    const PATTERNS: [&str; 10] =
        [HEX_COLOR, RGB_COLOR, SSN, UUID, UUID3, UUID4, UUID5, HOSTNAME, CREDIT_CARD, TIME_OF_DAY];
    let at = PATTERNS.iter().position(|own| *own == pattern).expect("all patterns are in the list");
    COMPILED[at].get_or_init(|| Regex::new(pattern).expect("the patterns above are good")).is_match(text)
}

fn is_object_id(text: &str) -> bool {
    text.len() == 24 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Standard alphabet, padded, and not empty.
fn is_base64(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    let padding = text.len() - body.len();
    !text.is_empty()
        && text.len().is_multiple_of(4)
        && padding <= 2
        && body.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
}

fn is_ipv4(text: &str) -> bool {
    text.contains('.') && ip::parse_sloppy(text).is_some()
}

fn is_ipv6(text: &str) -> bool {
    text.parse::<Ipv6Addr>().is_ok()
}

fn is_cidr(text: &str) -> bool {
    ip::parse_cidr(text).is_some()
}

/// Six, eight or twenty bytes as hex pairs with colons or dashes, or as groups of four digits with dots.
fn is_mac(text: &str) -> bool {
    let Some(separator) = text.chars().find(|c| !c.is_ascii_hexdigit()) else { return false };
    let (digits, groups): (usize, &[usize]) = match separator {
        ':' | '-' => (2, &[6, 8, 20]),
        '.' => (4, &[3, 4, 10]),
        _ => return false,
    };
    let is_group = |part: &str| part.len() == digits && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    groups.contains(&text.split(separator).count()) && text.split(separator).all(is_group)
}

fn is_hostname(text: &str) -> bool {
    text.len() <= 255 && matches(HOSTNAME, text) && text.split('.').all(|label| label.len() <= 63)
}

/// A mailbox as in RFC 5322, with or without a display name.
fn is_email(text: &str) -> bool {
    let text = text.trim_matches([' ', '\t']);
    let address = match text.strip_suffix('>') {
        Some(rest) => match rest.rsplit_once('<') {
            Some((name, address)) if is_display_name(name.trim_matches([' ', '\t'])) => address,
            _ => return false,
        },
        None => text,
    };
    let Some((local, domain)) = address.rsplit_once('@') else { return false };
    let is_atom = |part: &str| !part.is_empty() && part.chars().all(is_atom_char);
    let is_dot_atom = |text: &str| text.split('.').all(is_atom);
    let is_literal = domain.starts_with('[') && domain.ends_with(']');
    (is_dot_atom(local) || is_quoted(local)) && (is_dot_atom(domain) || is_literal)
}

fn is_display_name(name: &str) -> bool {
    name.is_empty()
        || is_quoted(name)
        || name.chars().all(|c| is_atom_char(c) || matches!(c, ' ' | '\t' | '.'))
}

fn is_quoted(text: &str) -> bool {
    text.len() >= 3
        && text.starts_with('"')
        && text.ends_with('"')
        && !text[1..text.len() - 1].contains(['"', '\r', '\n'])
}

fn is_atom_char(c: char) -> bool {
    !c.is_ascii() || c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c)
}

fn digits_without(text: &str, dropped: fn(char) -> bool) -> String {
    text.chars().filter(|c| !dropped(*c)).collect()
}

fn is_credit_card(text: &str) -> bool {
    let digits = digits_without(text, |c| !c.is_ascii_digit());
    if !matches(CREDIT_CARD, &digits) {
        return false;
    }
    let sum: u32 = digits
        .bytes()
        .rev()
        .map(|byte| u32::from(byte - b'0'))
        .enumerate()
        .map(|(index, digit)| match (index % 2, digit * 2) {
            (0, _) => digit,
            (_, doubled) if doubled >= 10 => doubled % 10 + 1,
            (_, doubled) => doubled,
        })
        .sum();
    sum.is_multiple_of(10)
}

fn isbn_digits(text: &str) -> String {
    digits_without(text, |c| matches!(c, '\t' | '\n' | '\u{c}' | '\r' | ' ' | '-'))
}

fn is_isbn10(text: &str) -> bool {
    let text = isbn_digits(text);
    let bytes = text.as_bytes();
    if bytes.len() != 10
        || !bytes[..9].iter().all(u8::is_ascii_digit)
        || !(bytes[9].is_ascii_digit() || bytes[9] == b'X')
    {
        return false;
    }
    let digit = |byte: u8| if byte == b'X' { 10 } else { u32::from(byte - b'0') };
    let sum: u32 = bytes.iter().zip(1..).map(|(byte, weight)| weight * digit(*byte)).sum();
    sum.is_multiple_of(11)
}

fn is_isbn13(text: &str) -> bool {
    let text = isbn_digits(text);
    let bytes = text.as_bytes();
    if bytes.len() != 13 || !bytes.iter().all(u8::is_ascii_digit) {
        return false;
    }
    let sum: u32 = bytes
        .iter()
        .zip([1, 3].into_iter().cycle())
        .map(|(byte, weight)| weight * u32::from(byte - b'0'))
        .sum();
    sum.is_multiple_of(10)
}

/// RFC 3339's `full-date`.
fn is_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
        return false;
    }
    let number = |range: std::ops::Range<usize>| -> Option<u32> {
        let part = text.get(range)?;
        part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok())?
    };
    let (Some(year), Some(month), Some(day)) = (number(0..4), number(5..7), number(8..10)) else {
        return false;
    };
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let last = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if is_leap => 29,
        2 => 28,
        _ => return false,
    };
    (1..=last).contains(&day)
}

fn is_date_time(text: &str) -> bool {
    let lower = text.to_lowercase();
    let mut parts = lower.split('t');
    let (Some(date), Some(time)) = (parts.next(), parts.next()) else { return false };
    is_date(date)
        && matches(TIME_OF_DAY, time)
        && &time[..2] <= "23"
        && &time[3..5] <= "59"
        && &time[6..8] <= "59"
}

fn is_duration(text: &str) -> bool {
    duration::parse_format(text).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_for_the_search() {
        assert!(FORMATS.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn formats_decide_as_upstream() {
        for (name, good, bad) in [
            ("bsonobjectid", "507f1f77bcf86cd799439011", "507f1f77"),
            ("uri", "http://foo.bar/#com", "foobar.com"),
            ("uri", "/abs/test/dir", "./rel/test/dir"),
            ("uri", "mailto:someone@example.com", ".com"),
            ("email", "a@b.example", "a.b.example"),
            ("email", "A B <a@b.example>", "a@"),
            ("hostname", "a.example.com", "-a.example"),
            ("ipv4", "010.0.0.1", "10.0.0.256"),
            ("ipv6", "::1", "10.0.0.1"),
            ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
            ("mac", "01:23:45:67:89:ab", "01:23:45:67:89"),
            ("uuid", "a7b0c6d0-0000-1000-8000-00805f9b34fb", "a7b0"),
            ("uuid4", "a7b0c6d0-0000-4000-8000-00805f9b34fb", "a7b0c6d0-0000-1000-8000-00805f9b34fb"),
            ("isbn10", "3 401 01319 X", "3423214121"),
            ("isbn13", "978-4-87311-368-5", "978-4-87311-368-6"),
            ("creditcard", "4220 8554 2622 2389", "4220855426213389"),
            ("ssn", "111-22-3333", "111223333"),
            ("hexcolor", "#f00", "#ff12FG"),
            ("rgbcolor", "rgb(0,  31, 255)", "rgb(01,31,255)"),
            ("byte", "YWJj", "YWJ"),
            ("date", "2024-02-29", "2023-02-29"),
            ("date-time", "2014-12-15T19:30:20.000Z", "2014-12-15T24:30:20.000Z"),
            ("duration", "2 days", "2"),
            ("duration", "1h30m", "x"),
            ("k8s-short-name", "a-b", "a.b"),
            ("k8s-long-name", "a.b", "A.b"),
        ] {
            let format = Format::parse(name, Some(Kind::String)).expect("known format");
            assert!(format.allows_text(good), "{name}: {good}");
            assert!(!format.allows_text(bad), "{name}: {bad}");
        }
    }

    #[test]
    fn formats_that_nobody_checks_are_none() {
        assert_eq!(Format::parse("int32", Some(Kind::String)), None);
        assert_eq!(Format::parse("quantity", Some(Kind::String)), None);
        assert_eq!(Format::parse("date", Some(Kind::Object)), None);
    }
}
