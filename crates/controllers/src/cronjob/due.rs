//! When a schedule is due, in its time zone. Pure.
//!
//! Days on which the clock is changed are upstream's: a time that the change leaves out is due an hour later or on
//! the next day, as Go's calendar has it, and one that comes twice is due twice only where every hour is.

use api::kinds::batch::schedule::{Calendar, Rule, Schedule};
use apimachinery::time;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;

/// A schedule that never fits again within so many years is not looked at any further.
const YEARS_MAX: i16 = 5;

/// A schedule and the zone whose clock it means.
#[derive(Clone, Debug)]
pub(super) struct Timetable {
    rule: Rule,
    zone: TimeZone,
}

// === impl Timetable ===

impl Timetable {
    /// A zone in the schedule itself comes before `zone`; without either it is UTC.
    pub(super) fn parse(schedule: &str, zone: Option<&str>) -> Result<Self, String> {
        let Schedule { zone: own, rule } = Schedule::parse(schedule)?;
        let zone = match (own.as_deref(), zone) {
            (Some(own), _) => {
                time_zone(own).map_err(|error| format!("provided bad location {own}: {error}"))?
            }
            (None, zone) => zone.and_then(|zone| time_zone(zone).ok()).unwrap_or(TimeZone::UTC),
        };
        Ok(Self { rule, zone })
    }

    /// The first time after this one at which the schedule is due, if there is one.
    pub(super) fn next(&self, after: Timestamp) -> Option<Timestamp> {
        match &self.rule {
            Rule::Every(seconds) => {
                let second = Timestamp::from_second(after.as_second()).ok()?;
                second.checked_add(SignedDuration::from_secs(*seconds)).ok()
            }
            Rule::Calendar(calendar) => {
                let hand = Hand { zone: &self.zone, unix: after.as_second() + 1, is_reset: false };
                hand.advance(calendar)
            }
        }
    }
}

/// A zone by its name in the tz database.
pub(super) fn time_zone(name: &str) -> Result<TimeZone, String> {
    if name.is_empty() {
        return Ok(TimeZone::UTC);
    }
    time::zone(name).ok_or_else(|| format!("unknown time zone {name}"))
}

/// Moves forward until every field fits, the largest first.
struct Hand<'a> {
    zone: &'a TimeZone,
    unix: i64,
    /// The smaller fields were set to their beginning.
    is_reset: bool,
}

impl Hand<'_> {
    fn advance(mut self, calendar: &Calendar) -> Option<Timestamp> {
        let last_year = self.clock()?.year() + YEARS_MAX;
        loop {
            if self.clock()?.year() > last_year {
                return None;
            }
            let fits = self.reach_month(calendar)?
                && self.reach_day(calendar)?
                && self.reach_hour(calendar)?
                && self.reach_minute(calendar)?
                && self.reach_full_minute()?;
            if fits {
                return Timestamp::from_second(self.unix).ok();
            }
        }
    }

    /// What the clock shows.
    fn clock(&self) -> Option<DateTime> {
        Some(self.zone.to_datetime(Timestamp::from_second(self.unix).ok()?))
    }

    /// The steps say false when a larger field changed, which is then to be looked at again.
    fn reach_month(&mut self, calendar: &Calendar) -> Option<bool> {
        while !calendar.month.contains(number(self.clock()?.month())) {
            let clock = self.clock()?;
            let first = if self.is_reset { clock } else { clock.date().first_of_month().at(0, 0, 0, 0) };
            self.is_reset = true;
            self.set(first.checked_add(1.month()).ok()?)?;
            if self.clock()?.month() == 1 {
                return Some(false);
            }
        }
        Some(true)
    }

    fn reach_day(&mut self, calendar: &Calendar) -> Option<bool> {
        loop {
            let clock = self.clock()?;
            let weekday = number(clock.weekday().to_sunday_zero_offset());
            if calendar.has_day(number(clock.day()), weekday) {
                return Some(true);
            }
            let midnight = if self.is_reset { clock } else { clock.date().at(0, 0, 0, 0) };
            self.is_reset = true;
            self.set(midnight.checked_add(1.day()).ok()?)?;
            // Where the clock is changed at midnight, the day begins before or after it.
            match i64::from(self.clock()?.hour()) {
                hour @ 13.. => self.unix += (24 - hour) * HOUR,
                hour => self.unix -= hour * HOUR,
            }
            if self.clock()?.day() == 1 {
                return Some(false);
            }
        }
    }

    fn reach_hour(&mut self, calendar: &Calendar) -> Option<bool> {
        while !calendar.hour.contains(number(self.clock()?.hour())) {
            if !self.is_reset {
                let clock = self.clock()?;
                self.set(clock.date().at(clock.hour(), 0, 0, 0))?;
            }
            self.is_reset = true;
            self.unix += HOUR;
            if self.clock()?.hour() == 0 {
                return Some(false);
            }
        }
        Some(true)
    }

    fn reach_minute(&mut self, calendar: &Calendar) -> Option<bool> {
        while !calendar.minute.contains(number(self.clock()?.minute())) {
            if !self.is_reset {
                self.unix -= self.unix.rem_euclid(MINUTE);
            }
            self.is_reset = true;
            self.unix += MINUTE;
            if self.clock()?.minute() == 0 {
                return Some(false);
            }
        }
        Some(true)
    }

    fn reach_full_minute(&mut self) -> Option<bool> {
        let second = i64::from(self.clock()?.second());
        if second == 0 {
            return Some(true);
        }
        self.is_reset = true;
        self.unix += MINUTE - second;
        Some(false)
    }

    /// Sets the clock as Go does: the offset is the one that holds where the digits would be UTC, or else the one that
    /// holds after taking that off.
    fn set(&mut self, digits: DateTime) -> Option<()> {
        let as_utc = TimeZone::UTC.to_timestamp(digits).ok()?.as_second();
        let offset = self.offset(as_utc)?;
        let offset = if offset == 0 { 0 } else { self.offset(as_utc - offset)? };
        self.unix = as_utc - offset;
        Some(())
    }

    fn offset(&self, unix: i64) -> Option<i64> {
        Some(self.zone.to_offset(Timestamp::from_second(unix).ok()?).seconds().into())
    }
}

fn number(part: i8) -> u64 {
    u64::try_from(part).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use apimachinery::time;

    use super::*;

    /// Rows: schedule, zone, after, the next times.
    #[test]
    fn the_next_time_is_the_first_that_fits() {
        let rows: &[(&str, &str, &str, &[&str])] = &[
            ("* * * * *", "", "2026-01-01T00:00:30Z", &["2026-01-01T00:01:00Z", "2026-01-01T00:02:00Z"]),
            ("*/15 * * * *", "", "2026-01-01T00:45:00Z", &["2026-01-01T01:00:00Z"]),
            ("30 4 * * *", "", "2026-12-31T04:30:00Z", &["2027-01-01T04:30:00Z"]),
            ("0 0 29 2 *", "", "2026-01-01T00:00:00Z", &["2028-02-29T00:00:00Z"]),
            ("59 23 31 2 *", "", "2026-01-01T00:00:00Z", &[]),
            ("0 12 13 * fri", "", "2026-02-10T00:00:00Z", &["2026-02-13T12:00:00Z", "2026-02-20T12:00:00Z"]),
            (
                "0 0 1 jan,jul *",
                "",
                "2026-01-15T10:20:30Z",
                &["2026-07-01T00:00:00Z", "2027-01-01T00:00:00Z"],
            ),
            (
                "30 6-16/4 * * 1-5",
                "",
                "2026-01-02T14:30:00Z",
                &["2026-01-05T06:30:00Z", "2026-01-05T10:30:00Z"],
            ),
            ("@weekly", "", "2026-01-01T00:00:00Z", &["2026-01-04T00:00:00Z"]),
            ("@every 90m", "", "2026-01-01T00:00:00.5Z", &["2026-01-01T01:30:00Z", "2026-01-01T03:00:00Z"]),
            ("0 8 * * *", "Asia/Kolkata", "2026-01-01T00:00:00Z", &["2026-01-01T02:30:00Z"]),
            (
                "TZ=America/New_York 0 8 * * *",
                "Asia/Kolkata",
                "2026-01-01T00:00:00Z",
                &["2026-01-01T13:00:00Z"],
            ),
            // Clocks go forward at 2:00 and back at 3:00.
            (
                "30 2 * * *",
                "Europe/Berlin",
                "2026-03-28T00:00:00Z",
                &["2026-03-28T01:30:00Z", "2026-03-30T00:30:00Z"],
            ),
            (
                "0 * * * *",
                "Europe/Berlin",
                "2026-10-25T00:00:00Z",
                &["2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"],
            ),
            // Midnight is left out.
            ("0 0 * * *", "America/Sao_Paulo", "2018-11-03T12:00:00Z", &["2018-11-05T02:00:00Z"]),
        ];
        for (schedule, zone, after, wanted) in rows {
            let timetable = Timetable::parse(schedule, Some(zone)).unwrap();
            let mut at = time::parse(after).unwrap();
            for wanted in *wanted {
                at = timetable.next(at).unwrap();
                assert_eq!(time::format_seconds(at), *wanted, "{schedule} {zone} after {after}");
            }
            if wanted.is_empty() {
                assert_eq!(timetable.next(at), None, "{schedule}");
            }
        }
    }

    #[test]
    fn a_zone_that_is_not_known_is_an_error_only_in_the_schedule() {
        assert_eq!(
            Timetable::parse("TZ=Moon/Tycho 0 0 * * *", None).map(|_| ()),
            Err("provided bad location Moon/Tycho: unknown time zone Moon/Tycho".to_owned())
        );
        assert_eq!(time_zone("Moon/Tycho").map(|_| ()), Err("unknown time zone Moon/Tycho".to_owned()));
        assert!(Timetable::parse("0 0 * * *", Some("Moon/Tycho")).is_ok());
    }
}
