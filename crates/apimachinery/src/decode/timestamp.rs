//! RFC 3339 as Go's `time.Parse` reads it, with its messages.

use jiff::Timestamp;

use crate::Str;
use crate::field::go_quote;
use crate::time::{format_micros, format_seconds};

const SECONDS_LAYOUT: &str = "2006-01-02T15:04:05Z07:00";
const MICROS_LAYOUT: &str = "2006-01-02T15:04:05.000000Z07:00";

/// Text that is not a time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    #[error("parsing time {} as {}: cannot parse {} as {}", go_quote(.text), go_quote(.layout), go_quote(.rest), go_quote(.element))]
    Form { text: String, layout: &'static str, rest: String, element: &'static str },
    #[error("parsing time {}: {what} out of range", go_quote(.text))]
    Range { text: String, what: &'static str },
    #[error("parsing time {}: extra text: {}", go_quote(.text), go_quote(.rest))]
    Extra { text: String, rest: String },
}

/// How a time is stored.
pub(super) enum Canonical {
    Same,
    Other(Str),
    /// The first instant of the year 1, which Go takes for no time at all.
    Zero,
}

pub(super) fn canonicalize(text: &str, micros: bool) -> Result<Canonical, TimeError> {
    let zone = check(text, micros)?;
    if text.starts_with("0001-01-01T00:00:00") && zone == "Z" {
        return Ok(Canonical::Zero);
    }
    let length = if micros { "2006-01-02T15:04:05.000000Z".len() } else { "2006-01-02T15:04:05Z".len() };
    if zone == "Z" && text.len() == length {
        return Ok(Canonical::Same);
    }
    let Ok(time) = text.parse::<Timestamp>() else {
        return Err(TimeError::Range { text: text.into(), what: "day" });
    };
    Ok(Canonical::Other(if micros { format_micros(time) } else { format_seconds(time) }.into()))
}

/// Checks the form element by element and returns the zone.
fn check(text: &str, micros: bool) -> Result<&str, TimeError> {
    let layout = if micros { MICROS_LAYOUT } else { SECONDS_LAYOUT };
    let mut reader = Reader { text, layout, at: 0 };
    let year = reader.number(4, "2006")?;
    reader.literal("-")?;
    let month = reader.ranged(2, "01", "month", 1..=12)?;
    reader.literal("-")?;
    let day = reader.number(2, "02")?;
    reader.literal("T")?;
    reader.ranged(2, "15", "hour", 0..=23)?;
    reader.literal(":")?;
    reader.ranged(2, "04", "minute", 0..=59)?;
    reader.literal(":")?;
    reader.ranged(2, "05", "second", 0..=59)?;
    reader.fraction(micros)?;
    let zone = reader.zone()?;
    if reader.at < text.len() {
        return Err(TimeError::Extra { text: text.into(), rest: text[reader.at..].into() });
    }
    if day < 1 || day > days_in(year, month) {
        return Err(TimeError::Range { text: text.into(), what: "day" });
    }
    Ok(zone)
}

fn days_in(year: u32, month: u32) -> u32 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

struct Reader<'a> {
    text: &'a str,
    layout: &'static str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn fail<T>(&self, element: &'static str) -> Result<T, TimeError> {
        Err(TimeError::Form {
            text: self.text.into(),
            layout: self.layout,
            rest: self.rest().into(),
            element,
        })
    }

    fn number(&mut self, digits: usize, element: &'static str) -> Result<u32, TimeError> {
        let taken = self.rest().get(..digits).filter(|taken| taken.bytes().all(|byte| byte.is_ascii_digit()));
        let Some(number) = taken.and_then(|taken| taken.parse().ok()) else { return self.fail(element) };
        self.at += digits;
        Ok(number)
    }

    fn ranged(
        &mut self,
        digits: usize,
        element: &'static str,
        what: &'static str,
        allowed: std::ops::RangeInclusive<u32>,
    ) -> Result<u32, TimeError> {
        let number = self.number(digits, element)?;
        if !allowed.contains(&number) {
            return Err(TimeError::Range { text: self.text.into(), what });
        }
        Ok(number)
    }

    fn literal(&mut self, element: &'static str) -> Result<(), TimeError> {
        if !self.rest().starts_with(element) {
            return self.fail(element);
        }
        self.at += element.len();
        Ok(())
    }

    /// Micros ask for exactly six digits; seconds take any number of them.
    fn fraction(&mut self, micros: bool) -> Result<(), TimeError> {
        let digits = match self.rest().strip_prefix(['.', ',']) {
            Some(rest) => rest.bytes().take_while(u8::is_ascii_digit).count(),
            None => 0,
        };
        if micros && digits != 6 {
            return self.fail(".000000");
        }
        if digits > 0 {
            self.at += 1 + digits;
        }
        Ok(())
    }

    fn zone(&mut self) -> Result<&'a str, TimeError> {
        const ELEMENT: &str = "Z07:00";
        let rest = self.rest();
        if rest.starts_with('Z') {
            self.at += 1;
            return Ok("Z");
        }
        let form = |zone: &&str| {
            zone.bytes().enumerate().all(|(at, byte)| match at {
                0 => matches!(byte, b'+' | b'-'),
                3 => byte == b':',
                _ => byte.is_ascii_digit(),
            })
        };
        let Some(zone) = rest.get(..6).filter(form) else { return self.fail(ELEMENT) };
        let pair = |at: usize| zone[at..at + 2].parse::<u32>().unwrap_or(u32::MAX);
        if pair(1) > 24 || pair(4) > 60 {
            return Err(TimeError::Range { text: self.text.into(), what: "time zone offset" });
        }
        self.at += 6;
        Ok(zone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(text: &str, micros: bool) -> String {
        match canonicalize(text, micros) {
            Ok(Canonical::Same) => "same".into(),
            Ok(Canonical::Zero) => "zero".into(),
            Ok(Canonical::Other(other)) => other.into(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn times_are_stored_in_utc() {
        for (text, micros, expected) in [
            ("2026-01-02T03:04:05Z", false, "same"),
            ("2026-01-02T03:04:05.75Z", false, "2026-01-02T03:04:05Z"),
            ("2026-01-02T03:04:05+02:00", false, "2026-01-02T01:04:05Z"),
            ("2026-01-02T03:04:05.123456Z", true, "same"),
            ("2026-01-02T03:04:05.123456-01:30", true, "2026-01-02T04:34:05.123456Z"),
            ("0001-01-01T00:00:00Z", false, "zero"),
        ] {
            assert_eq!(stored(text, micros), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused_in_gos_words() {
        for (text, micros, expected) in [
            (
                "yesterday",
                false,
                r#"parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006""#,
            ),
            (
                "2026-01-02",
                false,
                r#"parsing time "2026-01-02" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "T""#,
            ),
            ("2026-13-02T00:00:00Z", false, r#"parsing time "2026-13-02T00:00:00Z": month out of range"#),
            ("2026-02-29T00:00:00Z", false, r#"parsing time "2026-02-29T00:00:00Z": day out of range"#),
            ("2026-01-02T03:04:05Zx", false, r#"parsing time "2026-01-02T03:04:05Zx": extra text: "x""#),
            (
                "2026-01-02T03:04:05Z",
                true,
                r#"parsing time "2026-01-02T03:04:05Z" as "2006-01-02T15:04:05.000000Z07:00": cannot parse "Z" as ".000000""#,
            ),
        ] {
            assert_eq!(stored(text, micros), expected, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in ".{0,30}", near in "20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9:.]{8,12}[Z+0-9:]{1,6}") {
            for micros in [true, false] {
                let _ = canonicalize(&text, micros);
                let _ = canonicalize(&near, micros);
            }
        }
    }
}
