//! A CronJob's schedule: five fields, a word such as `@daily`, or `@every` so long.
//!
//! Owns: what is in a schedule, and what is wrong with one in the words of the library that upstream uses. Never
//! touches: when it is due, which is for the controller that follows it.

use apimachinery::{Str, duration};

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// What the words stand for.
const WORDS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

const NANOSECONDS: i64 = 1_000_000_000;

/// A schedule that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// What stood behind `TZ=` or `CRON_TZ=`. Whether there is such a zone is not known here.
    pub zone: Option<Str>,
    pub rule: Rule,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    Calendar(Calendar),
    /// So many seconds after the last time; one at least.
    Every(i64),
}

/// The times at which every field fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calendar {
    pub minute: Numbers,
    pub hour: Numbers,
    pub day_of_month: Numbers,
    pub month: Numbers,
    /// 0 is Sunday.
    pub day_of_week: Numbers,
}

/// The numbers that a field allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    bits: u64,
    /// The field says `*` or `?`: it leaves the choice to the others.
    pub is_open: bool,
}

/// Bounds and names of one field.
struct Field {
    min: u64,
    max: u64,
    names: &'static [&'static str],
    /// The value of the first name.
    first: u64,
}

const FIELDS: [Field; 5] = [
    Field { min: 0, max: 59, names: &[], first: 0 },
    Field { min: 0, max: 23, names: &[], first: 0 },
    Field { min: 1, max: 31, names: &[], first: 0 },
    Field { min: 1, max: 12, names: &MONTHS, first: 1 },
    Field { min: 0, max: 6, names: &DAYS, first: 0 },
];

// === impl Schedule ===

impl Schedule {
    /// # Errors
    /// What is wrong, in the words of upstream's library.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("empty spec string".to_owned());
        }
        let Some(zoned) = text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ=")) else {
            return Ok(Self { zone: None, rule: Rule::parse(text)? });
        };
        // What upstream says, which looks for the space and cuts there without asking whether it is one.
        let no_space =
            || "invalid schedule format: runtime error: slice bounds out of range [:-1]".to_owned();
        let (zone, rest) = zoned.split_once(' ').ok_or_else(no_space)?;
        Ok(Self { zone: Some(zone.into()), rule: Rule::parse(rest.trim())? })
    }
}

impl Rule {
    fn parse(text: &str) -> Result<Self, String> {
        if !text.starts_with('@') {
            return Calendar::parse(text).map(Self::Calendar);
        }
        if let Some((_, fields)) = WORDS.iter().find(|(word, _)| *word == text) {
            return Calendar::parse(fields).map(Self::Calendar);
        }
        let Some(every) = text.strip_prefix("@every ") else {
            return Err(format!("unrecognized descriptor: {text}"));
        };
        let nanoseconds =
            duration::parse(every).map_err(|error| format!("failed to parse duration {text}: {error}"))?;
        Ok(Self::Every((nanoseconds / NANOSECONDS).max(1)))
    }
}

impl Calendar {
    fn parse(text: &str) -> Result<Self, String> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let Ok(fields) = <[&str; 5]>::try_from(fields.as_slice()) else {
            return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
        };
        let mut numbers = [Numbers::default(); 5];
        for ((own, text), field) in numbers.iter_mut().zip(fields).zip(&FIELDS) {
            *own = field.parse(text)?;
        }
        let [minute, hour, day_of_month, month, day_of_week] = numbers;
        Ok(Self { minute, hour, day_of_month, month, day_of_week })
    }

    /// Where both sorts of days are limited, either is enough.
    pub fn has_day(&self, day_of_month: u64, day_of_week: u64) -> bool {
        let (by_month, by_week) =
            (self.day_of_month.contains(day_of_month), self.day_of_week.contains(day_of_week));
        if self.day_of_month.is_open || self.day_of_week.is_open {
            by_month && by_week
        } else {
            by_month || by_week
        }
    }
}

impl Numbers {
    pub fn contains(&self, number: u64) -> bool {
        number < 64 && self.bits & (1 << number) != 0
    }

    fn union(self, other: Self) -> Self {
        Self { bits: self.bits | other.bits, is_open: self.is_open || other.is_open }
    }
}

impl Field {
    /// Ranges with commas between them.
    fn parse(&self, text: &str) -> Result<Numbers, String> {
        let ranges = text.split(',').filter(|range| !range.is_empty());
        ranges.map(|range| self.range(range)).try_fold(Numbers::default(), |all, own| Ok(all.union(own?)))
    }

    /// `*`, `?`, `a`, `a-b`, each with `/step`.
    fn range(&self, text: &str) -> Result<Numbers, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let bounds: Vec<&str> = parts[0].split('-').collect();
        let is_star = matches!(bounds[0], "*" | "?");
        let (start, mut end) = match bounds.as_slice() {
            _ if is_star => (self.min, self.max),
            [only] => {
                let value = self.value(only)?;
                (value, value)
            }
            [start, end] => (self.value(start)?, self.value(end)?),
            _ => return Err(format!("too many hyphens: {text}")),
        };
        let step = match parts.as_slice() {
            [_] => 1,
            [_, step] => {
                // `a/step` goes on to the end.
                if bounds.len() == 1 {
                    end = self.max;
                }
                number(step)?
            }
            _ => return Err(format!("too many slashes: {text}")),
        };
        if start < self.min {
            return Err(format!("beginning of range ({start}) below minimum ({}): {text}", self.min));
        }
        if end > self.max {
            return Err(format!("end of range ({end}) above maximum ({}): {text}", self.max));
        }
        if start > end {
            return Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
        }
        let Some(step) = usize::try_from(step).ok().filter(|step| *step > 0) else {
            return Err(format!("step of range should be a positive number: {text}"));
        };
        let bits = (start..=end).step_by(step).fold(0, |bits, number| bits | 1 << number);
        Ok(Numbers { bits, is_open: is_star && step == 1 })
    }

    fn value(&self, text: &str) -> Result<u64, String> {
        match self.names.iter().zip(self.first..).find(|(name, _)| name.eq_ignore_ascii_case(text)) {
            Some((_, value)) => Ok(value),
            None => number(text),
        }
    }
}

fn number(text: &str) -> Result<u64, String> {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    let why = match text.parse::<i64>() {
        Ok(number) => {
            let negative = |_| format!("negative number ({number}) not allowed: {text}");
            return u64::try_from(number).map_err(negative);
        }
        Err(error) if matches!(error.kind(), PosOverflow | NegOverflow) => "value out of range",
        Err(_) => "invalid syntax",
    };
    Err(format!("failed to parse int from {text}: strconv.Atoi: parsing \"{text}\": {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(numbers: Numbers) -> Vec<u64> {
        (0..64).filter(|number| numbers.contains(*number)).collect()
    }

    #[test]
    fn fields_are_sets_of_numbers() {
        let rows: [(usize, &str, &[u64], bool); 9] = [
            (1, "*", &(0..24).collect::<Vec<_>>(), true),
            (1, "?", &(0..24).collect::<Vec<_>>(), true),
            (1, "*/6", &[0, 6, 12, 18], false),
            (1, "3", &[3], false),
            (1, "20/2", &[20, 22], false),
            (1, "1-3,8-12/2", &[1, 2, 3, 8, 10, 12], false),
            (3, "jan,MAR-may", &[1, 3, 4, 5], false),
            (4, "Sun,sat", &[0, 6], false),
            (2, "*/1", &(1..32).collect::<Vec<_>>(), true),
        ];
        for (field, text, wanted, is_open) in rows {
            let numbers = FIELDS[field].parse(text).unwrap();
            assert_eq!((allowed(numbers).as_slice(), numbers.is_open), (wanted, is_open), "{text}");
        }
    }

    #[test]
    fn words_zones_and_spans_are_schedules_too() {
        let rule = |text: &str| Schedule::parse(text).map(|schedule| schedule.rule);
        assert_eq!(rule("@weekly"), rule("0 0 * * 0"));
        assert_eq!(rule("@every 1h30m"), Ok(Rule::Every(5400)));
        assert_eq!(rule("@every 1.9s"), Ok(Rule::Every(1)));
        assert_eq!(rule("@every 1ns"), Ok(Rule::Every(1)));
        let zoned = Schedule::parse("TZ=Europe/Berlin  0 6 * * 1-5").unwrap();
        assert_eq!((zoned.zone.as_deref(), Ok(zoned.rule)), (Some("Europe/Berlin"), rule("0 6 * * 1-5")));
    }

    #[test]
    fn days_of_month_and_week_are_alternatives_unless_one_is_open() {
        let of = |text: &str| match Schedule::parse(text).unwrap().rule {
            Rule::Calendar(calendar) => calendar,
            Rule::Every(_) => unreachable!("the test asks for days"),
        };
        let both = of("0 0 13 * fri");
        assert!(both.has_day(13, 1) && both.has_day(4, 5) && !both.has_day(4, 1));
        let friday = of("0 0 * * fri");
        assert!(friday.has_day(13, 5) && !friday.has_day(13, 1));
        let stepped = of("0 0 */2 * fri");
        assert!(stepped.has_day(3, 1), "a step is a limit");
    }

    #[test]
    fn schedules_have_five_fields_within_bounds() {
        for good in [
            "* * * * *",
            "*/5 0-6 1,15 jan-MAR mon",
            "@daily",
            "@every 1h",
            "TZ=UTC 0 0 * * *",
            "0/2 ? * * ?",
            "*-5 * * * *",
        ] {
            assert!(Schedule::parse(good).is_ok(), "{good}");
        }
        let cases = [
            ("", "empty spec string"),
            ("nope", "expected exactly 5 fields, found 1: [nope]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
            (
                "99999999999999999999 * * * *",
                "failed to parse int from 99999999999999999999: strconv.Atoi: parsing \"99999999999999999999\": value out of range",
            ),
            ("@never", "unrecognized descriptor: @never"),
            ("@every x", "failed to parse duration @every x: time: invalid duration \"x\""),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            ("TZ=UTC", "invalid schedule format: runtime error: slice bounds out of range [:-1]"),
        ];
        for (bad, complaint) in cases {
            assert_eq!(Schedule::parse(bad), Err(complaint.to_owned()), "{bad}");
        }
    }
}
