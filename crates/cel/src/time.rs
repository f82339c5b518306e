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
    let Some((hours, minutes)) = name.split_once(':') else { return apimachinery::time::zone(name) };
    let negative = hours.starts_with('-');
    let hours: i64 = hours.parse().ok()?;
    let minutes: i64 = minutes.parse().ok()?;
    let minutes = if negative { minutes.checked_neg()? } else { minutes };
    let seconds = hours.checked_mul(60)?.checked_add(minutes)?.checked_mul(60)?;
    Offset::from_seconds(i32::try_from(seconds).ok()?).ok().map(TimeZone::fixed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_print_as_seconds() {
        assert_eq!(format_duration_seconds(-1_500_000_000), "-1.5s");
        assert_eq!(format_duration_seconds(3_600_000_000_000), "3600s");
    }

    #[test]
    fn zones_have_names_or_offsets() {
        let offset = |name: &str| zone(name)?.to_fixed_offset().ok().map(Offset::seconds);
        assert_eq!(offset("UTC"), Some(0));
        assert_eq!(offset("-08:30"), Some(-30_600));
        assert_eq!(offset("02:00"), Some(7_200));
        for absurd in ["999999999:00", "-9223372036854775808:00", "0:9223372036854775807", "x:y", "26:00"] {
            assert_eq!(offset(absurd), None, "{absurd}");
        }
    }

    #[test]
    fn timestamps_need_date_time_and_zone() {
        assert!(parse_timestamp("2023-01-01T00:00:00Z").is_some());
        assert!(parse_timestamp("2023-01-01 00:00:00Z").is_none());
        assert!(parse_timestamp("2023-01-01").is_none());
        assert_eq!(parse_date_or_timestamp("1970-01-02").unwrap().as_second(), 86_400);
    }
}
