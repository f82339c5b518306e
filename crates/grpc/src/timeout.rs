//! The header `grpc-timeout`: at most eight digits and a unit.

use std::time::Duration;

pub(crate) const TIMEOUT_HEADER: &str = "grpc-timeout";

/// What eight digits hold.
const VALUE_MAX: u128 = 99_999_999;

/// Each unit, from the finest on, and how many nanoseconds it has.
const UNITS: [(char, u128); 6] = [
    ('n', 1),
    ('u', 1_000),
    ('m', 1_000_000),
    ('S', 1_000_000_000),
    ('M', 60_000_000_000),
    ('H', 3_600_000_000_000),
];

/// The finest form that fits, rounded up, so that the server never gives up before the client.
pub(crate) fn encode(timeout: Duration) -> String {
    let nanoseconds = timeout.as_nanos();
    for (unit, size) in UNITS {
        let value = nanoseconds.div_ceil(size);
        if value <= VALUE_MAX {
            return format!("{value}{unit}");
        }
    }
    format!("{VALUE_MAX}H")
}

/// `None` for what is no timeout.
pub(crate) fn decode(text: &str) -> Option<Duration> {
    let unit = text.chars().next_back()?;
    let digits = &text[..text.len() - unit.len_utf8()];
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (_, size) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let nanoseconds = digits.parse::<u128>().ok()? * size;
    Some(Duration::new((nanoseconds / 1_000_000_000) as u64, (nanoseconds % 1_000_000_000) as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_has_at_most_eight_digits_and_never_shrinks() {
        for (timeout, text) in [
            (Duration::ZERO, "0n"),
            (Duration::from_millis(99), "99000000n"),
            (Duration::from_millis(100), "100000u"),
            (Duration::from_secs(2), "2000000u"),
            (Duration::from_nanos(1_000_000_001), "1000001u"),
            (Duration::from_secs(120), "120000m"),
            (Duration::from_secs(u64::MAX), "99999999H"),
        ] {
            assert_eq!(encode(timeout), text);
            if timeout < Duration::from_secs(1_000_000_000) {
                assert!(decode(text).is_some_and(|decoded| decoded >= timeout), "{text}");
            }
        }
    }

    #[test]
    fn what_is_no_timeout_is_none() {
        for (text, expected) in [
            ("5S", Some(Duration::from_secs(5))),
            ("1H", Some(Duration::from_secs(3600))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("", None),
            ("S", None),
            ("5", None),
            ("5x", None),
            ("-5S", None),
            ("123456789S", None),
            ("5é", None),
        ] {
            assert_eq!(decode(text), expected, "{text}");
        }
    }
}
