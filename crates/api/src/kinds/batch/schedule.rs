//! The form of a CronJob's schedule: five fields, or a word such as `@daily`.
//!
//! Owns: what is wrong with a schedule, in the words of the library that upstream uses. Never touches: when it is due.

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const WORDS: [&str; 7] = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

/// Bounds and names of one field.
struct Field {
    min: u32,
    max: u32,
    names: &'static [&'static str],
    /// The value of the first name.
    first: u32,
}

const FIELDS: [Field; 5] = [
    Field { min: 0, max: 59, names: &[], first: 0 },
    Field { min: 0, max: 23, names: &[], first: 0 },
    Field { min: 1, max: 31, names: &[], first: 0 },
    Field { min: 1, max: 12, names: &MONTHS, first: 1 },
    Field { min: 0, max: 6, names: &DAYS, first: 0 },
];

/// What is wrong with a schedule.
pub fn check(schedule: &str) -> Result<(), String> {
    if schedule.is_empty() {
        return Err("empty spec string".to_owned());
    }
    let rest = match schedule.strip_prefix("TZ=").or_else(|| schedule.strip_prefix("CRON_TZ=")) {
        Some(zoned) => zoned.split_once(' ').map(|(_, rest)| rest.trim()).unwrap_or_default(),
        None => schedule,
    };
    if rest.starts_with('@') {
        let known =
            WORDS.contains(&rest) || rest.strip_prefix("@every ").is_some_and(|every| !every.is_empty());
        return if known { Ok(()) } else { Err(format!("unrecognized descriptor: {rest}")) };
    }
    let fields: Vec<&str> = rest.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    }
    fields.iter().zip(&FIELDS).try_for_each(|(text, field)| {
        text.split(',').filter(|range| !range.is_empty()).try_for_each(|range| field.range(range))
    })
}

impl Field {
    /// `*`, `?`, `a`, `a-b`, each with `/step`.
    fn range(&self, text: &str) -> Result<(), String> {
        let parts: Vec<&str> = text.split('/').collect();
        let bounds: Vec<&str> = parts[0].split('-').collect();
        let (start, mut end) = match bounds.as_slice() {
            ["*" | "?"] => (self.min, self.max),
            [only] => {
                let value = self.value(only)?;
                (value, value)
            }
            [start, end] => (self.value(start)?, self.value(end)?),
            _ => return Err(format!("too many hyphens: {text}")),
        };
        match parts.as_slice() {
            [_] => {}
            [_, step] => {
                let step = number(step)?;
                if bounds.len() == 1 {
                    end = self.max;
                }
                if step == 0 {
                    return Err(format!("step of range should be a positive number: {text}"));
                }
            }
            _ => return Err(format!("too many slashes: {text}")),
        }
        if start < self.min {
            return Err(format!("beginning of range ({start}) below minimum ({}): {text}", self.min));
        }
        if end > self.max {
            return Err(format!("end of range ({end}) above maximum ({}): {text}", self.max));
        }
        if start > end {
            return Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
        }
        Ok(())
    }

    fn value(&self, text: &str) -> Result<u32, String> {
        match self.names.iter().zip(self.first..).find(|(name, _)| name.eq_ignore_ascii_case(text)) {
            Some((_, value)) => Ok(value),
            None => number(text),
        }
    }
}

fn number(text: &str) -> Result<u32, String> {
    let why = || format!("failed to parse int from {text}: strconv.Atoi: parsing \"{text}\": invalid syntax");
    text.parse().map_err(|_| why())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_have_five_fields_within_bounds() {
        for good in [
            "* * * * *",
            "*/5 0-6 1,15 jan-MAR mon",
            "@daily",
            "@every 1h",
            "TZ=UTC 0 0 * * *",
            "0/2 ? * * ?",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let cases = [
            ("", "empty spec string"),
            ("nope", "expected exactly 5 fields, found 1: [nope]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
            ("@never", "unrecognized descriptor: @never"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
        ];
        for (bad, complaint) in cases {
            assert_eq!(check(bad), Err(complaint.to_owned()), "{bad}");
        }
    }
}
