//! Columns of jobs and cron jobs.

use apimachinery::{Value, time};
use jiff::Timestamp;

use super::{AGE, Kinds, NAME, boolean, cell, duration::human_duration, integer, selector, text, wide};

pub(super) const KINDS: Kinds = &[
    (
        "CronJob",
        &[
            NAME,
            text("Schedule"),
            text("Timezone"),
            boolean("Suspend"),
            integer("Active"),
            text("Last Schedule"),
            AGE,
            wide("Containers"),
            wide("Images"),
            wide("Selector"),
        ],
        cron_job,
    ),
    (
        "Job",
        &[
            NAME,
            text("Status"),
            text("Completions"),
            text("Duration"),
            AGE,
            wide("Containers"),
            wide("Images"),
            wide("Selector"),
        ],
        job,
    ),
];

fn cron_job(object: &Value, now: Timestamp) -> Vec<Value> {
    let suspend = match object.at(&["spec", "suspend"]).and_then(Value::as_bool) {
        Some(true) => "True",
        Some(false) => "False",
        None => "<unset>",
    };
    let [containers, images] = cell::containers(object, &["spec", "jobTemplate", "spec", "template", "spec"]);
    vec![
        cell::name(object),
        cell::text(object, &["spec", "schedule"]),
        cell::text_or(object, &["spec", "timeZone"], "<none>"),
        suspend.into(),
        cell::count(object, &["status", "active"]).into(),
        cell::ago(object, &["status", "lastScheduleTime"], now, "<none>"),
        cell::age(object, now),
        containers,
        images,
        selector::cell(object.at(&["spec", "jobTemplate", "spec", "selector"])),
    ]
}

fn job(object: &Value, now: Timestamp) -> Vec<Value> {
    let [containers, images] = cell::containers(object, &["spec", "template", "spec"]);
    vec![
        cell::name(object),
        job_status(object).into(),
        completions(object).into(),
        job_duration(object, now).into(),
        cell::age(object, now),
        containers,
        images,
        selector::cell(object.at(&["spec", "selector"])),
    ]
}

fn job_status(job: &Value) -> &'static str {
    let has = |kind| cell::condition_is_true(job, kind);
    match () {
        () if has("Complete") => "Complete",
        () if has("Failed") => "Failed",
        () if cell::is_deleting(job) => "Terminating",
        () if has("Suspended") => "Suspended",
        () if has("FailureTarget") => "FailureTarget",
        () if has("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

fn completions(job: &Value) -> String {
    let succeeded = cell::integer(job, &["status", "succeeded"]);
    match job.at(&["spec", "completions"]).and_then(Value::as_i64) {
        Some(wanted) => format!("{succeeded}/{wanted}"),
        None => match cell::integer(job, &["spec", "parallelism"]) {
            parallelism if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
            _ => format!("{succeeded}/1"),
        },
    }
}

fn job_duration(job: &Value, now: Timestamp) -> String {
    let Some(start) = time::parse(job.str_at(&["status", "startTime"])) else { return String::new() };
    let end = time::parse(job.str_at(&["status", "completionTime"])).unwrap_or(now);
    human_duration(cell::seconds_between(start, end))
}
