//! What a CronJob is to do: which time it has missed, whether a Job is started for it, when to look again, and which of
//! its old Jobs go. Pure.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use api::view::{CronJob, Job, ObjectReference};
use apimachinery::{Object, Value};
use jiff::{SignedDuration, Timestamp};

use super::due::Timetable;
use crate::ownership;
use crate::pods::timestamp;

/// The time for which a Job was made, in the zone of its CronJob.
const SCHEDULED_TIMESTAMP: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// Missed times beyond these are worth a warning: a clock may be wrong.
const MISSED_MAX: i64 = 100;

/// Looks are a little late, so that a clock that is a little slow finds the time reached.
const LATE: Duration = Duration::from_millis(100);

/// What to do about the last time that was missed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// None, or it has its Job.
    Nothing,
    /// The schedule cannot be followed.
    Invalid(String),
    /// A Job is still active, and there may be one only.
    AlreadyActive,
    /// Start a Job, after deleting those that are active where they are to be replaced.
    Start { at: Timestamp, replace: bool },
}

/// The times that were missed.
struct Missed {
    last: Option<Timestamp>,
    /// A rough number; none at all while `last` is the only one.
    count: i64,
    /// Since when they were looked for.
    since: Timestamp,
}

/// What is due at `now`, and whether so many times were missed that it is worth a warning.
///
/// Times longer ago than `startingDeadlineSeconds` are not even looked for. So nothing that is found is too late, here
/// as upstream, whose event of that (`MissSchedule`) is never seen.
pub(super) fn due(
    cron: &CronJob,
    active: &[ObjectReference],
    timetable: &Timetable,
    now: Timestamp,
) -> (Due, bool) {
    let deadline = cron.spec.starting_deadline_seconds.map(SignedDuration::from_secs);
    let earliest = deadline.and_then(|deadline| now.checked_sub(deadline).ok());
    let last_scheduled = timestamp(cron.status.last_schedule_time.as_ref());
    let since = since(cron, last_scheduled).max(earliest.unwrap_or(Timestamp::MIN));
    let missed = match missed(timetable, since, now) {
        Ok(missed) => missed,
        Err(why) => return (Due::Invalid(why), false),
    };
    let Some(at) = missed.last else { return (Due::Nothing, false) };
    let name = job_name(cron, at);
    let due = if active.iter().any(|job| job.name == name) || last_scheduled == Some(at) {
        Due::Nothing
    } else if cron.spec.concurrency_policy == "Forbid" && !active.is_empty() {
        Due::AlreadyActive
    } else {
        Due::Start { at, replace: cron.spec.concurrency_policy == "Replace" }
    };
    (due, missed.count > MISSED_MAX)
}

/// How long until the next time; `None` if there is none.
pub(super) fn next_look(
    cron: &CronJob,
    last_scheduled: Option<Timestamp>,
    timetable: &Timetable,
    now: Timestamp,
) -> Option<Duration> {
    let from = match missed(timetable, since(cron, last_scheduled), now) {
        Ok(Missed { last: Some(last), .. }) => last,
        Ok(Missed { count: 0, since, .. }) => since,
        Ok(_) | Err(_) => now,
    };
    let left = timetable.next(from)?.duration_since(now);
    Some(Duration::try_from(left).unwrap_or_default() + LATE)
}

fn since(cron: &CronJob, last_scheduled: Option<Timestamp>) -> Timestamp {
    last_scheduled.or_else(|| timestamp(cron.metadata.creation_timestamp.as_ref())).unwrap_or_default()
}

/// The last time between `since` and `now`. From the distance of the first two follows about where it is, so that years
/// of missed times need not be gone through one by one.
fn missed(timetable: &Timetable, since: Timestamp, now: Timestamp) -> Result<Missed, String> {
    let too_close = || "time difference between two schedules is less than 1 second".to_owned();
    let first = timetable.next(since).ok_or_else(too_close)?;
    if now < first {
        return Ok(Missed { last: None, count: 0, since });
    }
    let second = timetable.next(first).ok_or_else(too_close)?;
    if now < second {
        return Ok(Missed { last: Some(first), count: 0, since });
    }
    let distance = second.as_second() - first.as_second();
    let count = now.duration_since(first).as_secs() / distance + 1;
    // One step further back, for schedules whose times are not evenly apart, such as `30 6-16/4 * * 1-5`.
    let back = SignedDuration::from_secs((count - 2) * distance);
    let mut next = first.checked_add(back).ok().and_then(|from| timetable.next(from));
    let mut last = None;
    while let Some(at) = next.filter(|at| *at <= now) {
        last = Some(at);
        next = timetable.next(at);
    }
    Ok(Missed { last, count, since })
}

/// The name of the Job of a time. It is the lock that keeps a Job from being made twice.
pub(super) fn job_name(cron: &CronJob, at: Timestamp) -> String {
    format!("{}-{}", cron.metadata.name, at.as_second().div_euclid(60))
}

/// The tree of the Job of a time.
pub(super) fn job_of(object: &Object, cron: &CronJob, at: Timestamp) -> Result<Value, String> {
    let tree = object.to_value();
    let template = &tree["spec"]["jobTemplate"];
    let zone = super::due::time_zone(cron.spec.time_zone.as_deref().unwrap_or_default())?;
    let mut job = Value::object();
    job.set_at(&["apiVersion"], "batch/v1");
    job.set_at(&["kind"], "Job");
    for field in ["labels", "annotations"] {
        if let Some(value) = template.at(&["metadata", field]) {
            job.set_at(&["metadata", field], value.clone());
        }
    }
    job.set_at(&["metadata", "name"], job_name(cron, at));
    job.set_at(&["metadata", "annotations", SCHEDULED_TIMESTAMP], with_offset(at, &zone));
    job.set_at(&["metadata", "ownerReferences"], vec![ownership::controller_reference(object)]);
    job.set_at(&["spec"], template["spec"].clone());
    Ok(job)
}

/// RFC 3339 with the offset of a zone, `Z` where there is none.
fn with_offset(at: Timestamp, zone: &jiff::tz::TimeZone) -> String {
    let zoned = at.to_zoned(zone.clone());
    let form = if zoned.offset().is_zero() { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S%:z" };
    zoned.strftime(form).to_string()
}

/// The Jobs that are more than the limits of the history allow, the oldest first.
pub(super) fn superfluous(cron: &CronJob, jobs: &[JobOf]) -> Vec<JobOf> {
    let limits = [
        ("Complete", cron.spec.successful_jobs_history_limit),
        ("Failed", cron.spec.failed_jobs_history_limit),
    ];
    let of = |(end, limit): (&str, Option<i32>)| {
        let Some(limit) = limit else { return Vec::new() };
        let ended = |own: &&JobOf| own.job.finished().is_some_and(|condition| condition.type_ == end);
        let mut ended: Vec<JobOf> = jobs.iter().filter(ended).cloned().collect();
        ended.sort_by(|a, b| by_start(&a.job, &b.job));
        let keep = usize::try_from(limit).unwrap_or_default();
        ended.truncate(ended.len().saturating_sub(keep));
        ended
    };
    limits.into_iter().flat_map(of).collect()
}

/// Jobs that have not started come last.
fn by_start(a: &Job, b: &Job) -> Ordering {
    let start = |job: &Job| timestamp(job.status.start_time.as_ref());
    let (a_start, b_start) = (start(a), start(b));
    a_start
        .is_none()
        .cmp(&b_start.is_none())
        .then(a_start.cmp(&b_start))
        .then_with(|| a.metadata.name.cmp(&b.metadata.name))
}

/// A Job with the object it was read from.
#[derive(Clone)]
pub(super) struct JobOf {
    pub(super) object: Arc<Object>,
    pub(super) job: Arc<Job>,
}
