//! Times, in UTC. Layouts are Go's: how the second of January 2006, 15:04:05, would be written.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::text;
use crate::Datum;
use crate::Parameter::{Any, Text};
use crate::builtin::{Native, fixed};

type Result<T = Datum> = std::result::Result<T, String>;

pub const FUNCTIONS: &[Native] = &[
    fixed("now", &[], |_| Ok(Datum::Time(rt::now()))),
    fixed("date", &[Text, Any], |args| Ok(layout(text(&args[0]), time(&args[1]), "UTC").into())),
    fixed("dateInZone", &[Text, Any, Text], |args| {
        Ok(layout(text(&args[0]), time(&args[1]), text(&args[2])).into())
    }),
    fixed("htmlDate", &[Any], |args| Ok(layout("2006-01-02", time(&args[0]), "UTC").into())),
    fixed("dateModify", &[Text, Any], |args| modified(text(&args[0]), time(&args[1]))),
    fixed("date_modify", &[Text, Any], |args| modified(text(&args[0]), time(&args[1]))),
    fixed("unixEpoch", &[Any], |args| Ok(time(&args[0]).as_second().to_string().into())),
];

/// A time, seconds since the epoch, or else now.
fn time(datum: &Datum) -> Timestamp {
    match datum {
        Datum::Time(time) => *time,
        Datum::Int(seconds) => Timestamp::from_second(*seconds).unwrap_or_default(),
        _ => rt::now(),
    }
}

/// A duration that cannot be read changes nothing.
fn modified(duration: &str, time: Timestamp) -> Result {
    let nanoseconds = apimachinery::duration::parse(duration).unwrap_or(0);
    let moved = time.checked_add(jiff::SignedDuration::from_nanos(nanoseconds));
    moved.map(Datum::Time).map_err(|error| error.to_string())
}

/// Parts of layouts, longest first, and what they are for `strftime`.
const PARTS: [(&str, &str); 34] = [
    ("January", "%B"),
    ("Monday", "%A"),
    ("Z07:00", "%:z"),
    ("-07:00", "%:z"),
    ("Z0700", "%z"),
    ("-0700", "%z"),
    ("2006", "%Y"),
    ("MST", "%Z"),
    ("Jan", "%b"),
    ("Mon", "%a"),
    ("002", "%j"),
    (".000000000", ".%9N"),
    (".000000", ".%6N"),
    (".000", ".%3N"),
    (".999999999", "%.f"),
    (".999999", "%.f"),
    (".999", "%.f"),
    ("-07", "%z"),
    ("01", "%m"),
    ("02", "%d"),
    ("_2", "%e"),
    ("15", "%H"),
    ("03", "%I"),
    ("04", "%M"),
    ("05", "%S"),
    ("06", "%y"),
    ("PM", "%p"),
    ("pm", "%P"),
    ("%", "%%"),
    ("1", "%-m"),
    ("2", "%-d"),
    ("3", "%-I"),
    ("4", "%-M"),
    ("5", "%-S"),
];

fn layout(layout: &str, time: Timestamp, zone: &str) -> String {
    let zone = apimachinery::time::zone(zone).unwrap_or(TimeZone::UTC);
    let time = time.to_zoned(zone);
    let mut out = String::new();
    let mut rest = layout;
    while let Some(letter) = rest.chars().next() {
        match PARTS.iter().find(|(part, _)| rest.starts_with(part)) {
            // Zero is a letter in one form and an offset in the other.
            Some((part @ ("Z07:00" | "Z0700"), _)) if time.offset().is_zero() => {
                out.push('Z');
                rest = &rest[part.len()..];
            }
            Some((part, directive)) => {
                out.push_str(&time.strftime(directive).to_string());
                rest = &rest[part.len()..];
            }
            None => {
                out.push(letter);
                rest = &rest[letter.len_utf8()..];
            }
        }
    }
    out
}
