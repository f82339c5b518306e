//! Durations as Go writes them, `1h15m30.5s`, and as the `duration` format of schemas has them, `2 days`.

use crate::field::go_quote;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    #[error("time: invalid duration {}", go_quote(.0))]
    Invalid(String),
    #[error("time: missing unit in duration {}", go_quote(.0))]
    MissingUnit(String),
    #[error("time: unknown unit {} in duration {}", go_quote(.unit), go_quote(.text))]
    UnknownUnit { unit: String, text: String },
}

/// Units and their nanoseconds.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads a duration in nanoseconds, as `time.ParseDuration` does.
pub fn parse(text: &str) -> Result<i64, DurationError> {
    let invalid = || DurationError::Invalid(text.to_owned());
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0_u64;
    while !rest.is_empty() {
        let whole = take(&mut rest, |letter| letter.is_ascii_digit());
        let fraction = match rest.strip_prefix('.') {
            Some(after) => {
                rest = after;
                take(&mut rest, |letter| letter.is_ascii_digit())
            }
            None => "",
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let unit = take(&mut rest, |letter| letter != '.' && !letter.is_ascii_digit());
        if unit.is_empty() {
            return Err(DurationError::MissingUnit(text.to_owned()));
        }
        let Some((_, nanoseconds)) = UNITS.iter().find(|(own, _)| *own == unit) else {
            return Err(DurationError::UnknownUnit { unit: unit.to_owned(), text: text.to_owned() });
        };
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
        let part = whole.checked_mul(*nanoseconds).ok_or_else(invalid)?;
        let part = part.checked_add(of_fraction(fraction, *nanoseconds)).ok_or_else(invalid)?;
        total = total.checked_add(part).ok_or_else(invalid)?;
    }
    match (negative, i64::try_from(total)) {
        (false, Ok(nanoseconds)) => Ok(nanoseconds),
        (true, Ok(nanoseconds)) => Ok(-nanoseconds),
        (true, Err(_)) if total == 1 << 63 => Ok(i64::MIN),
        _ => Err(invalid()),
    }
}

/// Units of the `duration` format by all their names, and their nanoseconds. What begins with the last name is one, too.
const FORMAT_UNITS: [(&[&str], i64); 8] = [
    (&["ns", "nano"], 1),
    (&["us", "µs", "micro"], 1_000),
    (&["ms", "milli"], 1_000_000),
    (&["s", "sec"], 1_000_000_000),
    (&["m", "min"], 60_000_000_000),
    (&["h", "hr", "hour"], 3_600_000_000_000),
    (&["d", "day"], 86_400_000_000_000),
    (&["w", "wk", "week"], 604_800_000_000_000),
];

/// Reads a string of the `duration` format in nanoseconds, as `strfmt.ParseDuration` does: Go's durations, else the sum
/// of all numbers with units that stand anywhere in the text.
pub fn parse_format(text: &str) -> Option<i64> {
    if let Ok(nanoseconds) = parse(text) {
        return Some(nanoseconds);
    }
    let mut total = None;
    let mut rest = text;
    while let Some(start) = rest.find(|letter: char| letter.is_ascii_digit()) {
        rest = &rest[start..];
        let count = take(&mut rest, |letter| letter.is_ascii_digit());
        let mut after = rest.trim_start_matches([' ', '\t', '\n', '\u{c}', '\r']);
        let unit = take(&mut after, |letter| letter.is_ascii_alphabetic() || letter == 'µ').to_lowercase();
        if unit.is_empty() {
            continue;
        }
        rest = after;
        let count: i64 = count.parse().ok()?;
        for nanoseconds in FORMAT_UNITS.iter().filter(|(names, _)| is_named(&unit, names)).map(|(_, own)| own)
        {
            total = Some(total.unwrap_or(0_i64).wrapping_add(count.wrapping_mul(*nanoseconds)));
        }
    }
    total
}

fn is_named(unit: &str, names: &[&str]) -> bool {
    names.contains(&unit) || names.last().is_some_and(|last| unit.starts_with(last))
}

/// Takes what is accepted off the front.
fn take<'a>(rest: &mut &'a str, accepted: impl Fn(char) -> bool) -> &'a str {
    let end = rest.find(|letter| !accepted(letter)).unwrap_or(rest.len());
    let (taken, left) = rest.split_at(end);
    *rest = left;
    taken
}

/// `0.fraction` of a unit; digits beyond what a double can tell apart do not count.
fn of_fraction(digits: &str, nanoseconds: u64) -> u64 {
    let digits = &digits[..digits.len().min(18)];
    let scale = 10_f64.powi(digits.len() as i32);
    let value: f64 = digits.parse().unwrap_or(0.0);
    (value * (nanoseconds as f64 / scale)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        let second = 1_000_000_000;
        let cases = [
            ("0", 0),
            ("0s", 0),
            ("+5s", 5 * second),
            ("-1.5h", -5_400 * second),
            ("1h15m30.918s", 4_530_918_000_000),
            (".5s", second / 2),
            ("1.s", second),
            ("100µs", 100_000),
            ("9223372036854775807ns", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
        ];
        for (text, nanoseconds) in cases {
            assert_eq!(parse(text), Ok(nanoseconds), "{text}");
        }
    }

    #[test]
    fn the_duration_format_knows_words() {
        let hour = 3_600_000_000_000;
        let cases = [
            ("1h30m", Some(hour * 3 / 2)),
            ("2 days", Some(48 * hour)),
            ("1 week and 3 Hours", Some(171 * hour)),
            ("1d", Some(24 * hour)),
            ("2", None),
            ("5 apples", None),
            ("99999999999999999999 s", None),
            ("", None),
        ];
        for (text, nanoseconds) in cases {
            assert_eq!(parse_format(text), nanoseconds, "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_in_gos_words() {
        let cases = [
            ("", r#"time: invalid duration """#),
            ("abc", r#"time: invalid duration "abc""#),
            ("-", r#"time: invalid duration "-""#),
            (".s", r#"time: invalid duration ".s""#),
            ("10", r#"time: missing unit in duration "10""#),
            ("10x", r#"time: unknown unit "x" in duration "10x""#),
            ("1d", r#"time: unknown unit "d" in duration "1d""#),
            ("3000000h", r#"time: invalid duration "3000000h""#),
            ("9223372036854775808ns", r#"time: invalid duration "9223372036854775808ns""#),
        ];
        for (text, error) in cases {
            assert_eq!(parse(text).map_err(|error| error.to_string()), Err(error.to_owned()), "{text}");
        }
    }
}
