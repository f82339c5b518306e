//! Durations and timestamps as Go reads and writes them.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::{Offset, TimeZone};

/// Go's zero time, the first instant of the year 1.
pub(crate) const ZERO: Timestamp = Timestamp::constant(SECONDS_MIN, 0);
/// The last instant of the year 9999.
const SECONDS_MAX: i64 = 253_402_300_799;
const SECONDS_MIN: i64 = -62_135_596_800;

/// Whether the language has a timestamp for it: years 1 to 9999.
pub(crate) fn in_range(time: Timestamp) -> Option<Timestamp> {
    (SECONDS_MIN..=SECONDS_MAX).contains(&time.as_second()).then_some(time)
}

pub(crate) fn from_seconds(seconds: i64) -> Option<Timestamp> {
    Timestamp::from_second(seconds).ok().and_then(in_range)
}

/// RFC 3339.
pub(crate) fn parse_timestamp(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let strict = bytes.len() >= 20 && matches!(bytes[10], b'T') && !text.contains('[');
    if !strict {
        return None;
    }
    text.parse().ok().and_then(in_range)
}

/// What a `date` or `date-time` string of a schema is.
pub(crate) fn parse_date_or_timestamp(text: &str) -> Option<Timestamp> {
    if text.len() == 10 {
        let date: Date = text.parse().ok()?;
        return TimeZone::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok();
    }
    parse_timestamp(text)
}

/// RFC 3339 with as many fractional digits as are needed.
pub(crate) fn format_timestamp(time: Timestamp) -> String {
    time.to_string()
}

/// Go's `time.ParseDuration`.
pub(crate) fn parse_duration(text: &str) -> Option<i64> {
    parse_duration_in(text, |_| None)
}

/// What a `duration` string of a schema is: also days and weeks.
pub(crate) fn parse_schema_duration(text: &str) -> Option<i64> {
    parse_duration_in(text, |unit| match unit {
        "d" => Some(86_400_000_000_000),
        "w" => Some(604_800_000_000_000),
        _ => None,
    })
}

fn parse_duration_in(text: &str, longer: impl Fn(&str) -> Option<u128>) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes() {
        [b'-', ..] => (true, &text[1..]),
        [b'+', ..] => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let whole = digits(rest);
        let mut fraction = "";
        let mut unit = &rest[whole.len()..];
        if let Some(after) = unit.strip_prefix('.') {
            fraction = digits(after);
            unit = &after[fraction.len()..];
        }
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let length = unit.bytes().take_while(|byte| *byte != b'.' && !byte.is_ascii_digit()).count();
        let nanos = unit_nanos(&unit[..length]).or_else(|| longer(&unit[..length]))?;
        let value: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(value.checked_mul(nanos)?)?;
        let fraction = &fraction[..fraction.len().min(18)];
        if !fraction.is_empty() {
            let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
            total = total.checked_add(fraction.parse::<u128>().ok()? * nanos / scale)?;
        }
        rest = &unit[length..];
    }
    let signed = i128::try_from(total).ok()?;
    i64::try_from(if negative { -signed } else { signed }).ok()
}

fn digits(text: &str) -> &str {
    &text[..text.bytes().take_while(u8::is_ascii_digit).count()]
}

fn unit_nanos(unit: &str) -> Option<u128> {
    Some(match unit {
        "ns" => 1,
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// Seconds with the fraction that is needed: `90s`, `1.5s`.
pub(crate) fn format_duration_seconds(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let absolute = nanos.unsigned_abs();
    let (seconds, rest) = (absolute / 1_000_000_000, absolute % 1_000_000_000);
    if rest == 0 {
        return format!("{sign}{seconds}s");
    }
    let fraction = format!("{rest:09}");
    format!("{sign}{seconds}.{}s", fraction.trim_end_matches('0'))
}

/// A time zone by name (`America/New_York`) or offset (`-08:00`).
pub(crate) fn zone(name: &str) -> Option<TimeZone> {
    if name.is_empty() || name == "UTC" || name == "Z" {
        return Some(TimeZone::UTC);
    }
    let Some((hours, minutes)) = name.split_once(':') else { return TimeZone::get(name).ok() };
    let negative = hours.starts_with('-');
    let hours: i32 = hours.parse().ok()?;
    let minutes: i32 = minutes.parse().ok()?;
    let seconds = hours * 3_600 + if negative { -minutes * 60 } else { minutes * 60 };
    Offset::from_seconds(seconds).ok().map(TimeZone::fixed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_in_go() {
        for (text, wanted) in [
            ("0", Some(0)),
            ("1h2m3.5s", Some(3_723_500_000_000)),
            ("-1.5h", Some(-5_400_000_000_000)),
            (".5s", Some(500_000_000)),
            ("100us", Some(100_000)),
            ("", None),
            ("1", None),
            ("1x", None),
            (".s", None),
            ("9223372036854775808ns", None),
        ] {
            assert_eq!(parse_duration(text), wanted, "{text}");
        }
        assert_eq!(format_duration_seconds(-1_500_000_000), "-1.5s");
        assert_eq!(format_duration_seconds(3_600_000_000_000), "3600s");
    }

    #[test]
    fn timestamps_need_date_time_and_zone() {
        assert!(parse_timestamp("2023-01-01T00:00:00Z").is_some());
        assert!(parse_timestamp("2023-01-01 00:00:00Z").is_none());
        assert!(parse_timestamp("2023-01-01").is_none());
        assert_eq!(parse_date_or_timestamp("1970-01-02").unwrap().as_second(), 86_400);
    }
}
