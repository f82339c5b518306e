//! The API's two forms of time: whole seconds (`metav1.Time`) and microseconds (`metav1.MicroTime`).

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// `2006-01-02T15:04:05Z`, the form of every `metav1.Time`.
pub fn format_seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `2006-01-02T15:04:05.000000Z`, the form of `metav1.MicroTime`.
pub fn format_micros(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Reads RFC 3339 with any offset and any number of fractional digits.
pub fn parse(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// A zone by its name in the tz database, in the case that it has there, as Go wants it.
pub fn zone(name: &str) -> Option<TimeZone> {
    let is_exact = |zone: &TimeZone| zone.iana_name() == Some(name) && !zone.is_unknown();
    TimeZone::get(name).ok().filter(is_exact)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_round_trip() {
        let time = parse("2026-01-02T05:04:05.123456+02:00").unwrap();
        assert_eq!(format_seconds(time), "2026-01-02T03:04:05Z");
        assert_eq!(format_micros(time), "2026-01-02T03:04:05.123456Z");
        assert!(parse("yesterday").is_none());
    }

    #[test]
    fn zones_are_known_by_their_exact_names() {
        for name in ["UTC", "Etc/UTC", "America/New_York", "US/Eastern", "Asia/Kolkata", "GMT", "EST5EDT"] {
            assert!(zone(name).is_some(), "{name}");
        }
        for name in ["", "utc", "america/new_york", "America/New_york", "Etc/Unknown", "Moon/Tycho"] {
            assert!(zone(name).is_none(), "{name}");
        }
    }
}
