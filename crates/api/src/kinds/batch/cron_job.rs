//! `batch/v1.CronJob`.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use super::job;
use super::schedule::Schedule;
use crate::kinds::apps::workload;
use crate::kinds::warnings;
use crate::strategy::{Context, Strategy};
use crate::validation::fields::{Fields, not_negative, one_of, same};
use crate::validation::selector;

/// What a Job's name, a time and a dash leave for the CronJob's.
const NAME_MAX: usize = 52;
const ZONE_PART_MAX: usize = 14;

pub struct CronJob;

impl Strategy for CronJob {
    fn validate(&self, ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        spec(&mut errors, ctx, &object["spec"], None);
        let name = object["metadata"].text("name");
        if name.len() > NAME_MAX {
            errors.push(Error::invalid(
                &Path::root("metadata").child("name"),
                name,
                format!("must be no more than {NAME_MAX} characters"),
            ));
        }
        errors
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        if ctx.subresource.is_none() {
            spec(&mut errors, ctx, &new["spec"], Some(&old["spec"]));
        }
        errors
    }

    fn warnings(&self, ctx: &Context<'_>, new: &Value, old: Option<&Value>) -> Vec<String> {
        let mut warnings = Vec::from_iter(warnings::workload_name(new, old));
        let template = ["spec", "jobTemplate", "spec", "template"];
        warnings.extend(workload::template_warnings_at(new, old, &template));
        if old.is_some() && ctx.subresource.is_none() && new["spec"].text("schedule").contains("TZ") {
            // Upstream's path, as it is.
            warnings.push(
                "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see \
                 https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
                    .to_owned(),
            );
        }
        warnings
    }
}

fn spec(errors: &mut ErrorList, ctx: &Context<'_>, spec: &Value, old: Option<&Value>) {
    let path = Path::root("spec");
    schedule_of(errors, spec, old, &path.child("schedule"));
    not_negative(errors, spec, "startingDeadlineSeconds", &path);
    if old.is_none_or(|old| !same(&old["timeZone"], &spec["timeZone"]))
        && let Some(zone) = spec.maybe_text("timeZone")
    {
        time_zone(errors, zone, &path.child("timeZone"));
    }
    one_of(
        errors,
        spec.text("concurrencyPolicy"),
        &path.child("concurrencyPolicy"),
        &["Allow", "Forbid", "Replace"],
    );
    let template = &spec["jobTemplate"];
    let template_path = path.child("jobTemplate");
    let job_path = template_path.child("spec");
    let job = &template["spec"];
    job::spec(errors, ctx, job, &job_path);
    if let Some(own) = job.maybe("selector") {
        errors.push(Error::invalid(
            &job_path.child("selector"),
            selector::shown(own),
            "`selector` will be auto-generated",
        ));
    }
    if job.truth("manualSelector") {
        errors.push(Error::not_supported(&job_path.child("manualSelector"), true, &["nil", "false"]));
    }
    for key in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        not_negative(errors, spec, key, &path);
    }
}

fn schedule_of(errors: &mut ErrorList, spec: &Value, old: Option<&Value>, path: &Path<'_>) {
    let schedule = spec.text("schedule");
    if schedule.is_empty() {
        errors.push(Error::required(path, ""));
        return;
    }
    if let Err(why) = Schedule::parse(schedule) {
        errors.push(Error::invalid(path, schedule, why));
    }
    if !schedule.contains("TZ") {
        return;
    }
    let held_before = old.is_some_and(|old| old.text("schedule").contains("TZ"));
    if !held_before {
        errors.push(Error::invalid(
            path,
            schedule,
            "cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
        ));
    } else if spec.has("timeZone") {
        errors.push(Error::invalid(
            path,
            schedule,
            "cannot use both timeZone field and TZ or CRON_TZ in schedule",
        ));
    }
}

fn time_zone(errors: &mut ErrorList, zone: &str, path: &Path<'_>) {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'+');
    let is_part = |part: &str| {
        (1..=ZONE_PART_MAX).contains(&part.len())
            && !matches!(part, "." | "..")
            && !part.starts_with('-')
            && part.bytes().all(allowed)
    };
    if zone.is_empty() {
        errors.push(Error::invalid(path, zone, "timeZone must be nil or non-empty string"));
    } else if !zone.split('/').all(is_part) {
        errors.push(Error::invalid(path, zone, format!("unknown time zone {zone}")));
    } else if zone.eq_ignore_ascii_case("Local") {
        errors.push(Error::invalid(
            path,
            zone,
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
        ));
    } else if apimachinery::time::zone(zone).is_none() {
        errors.push(Error::invalid(path, zone, format!("unknown time zone {zone}")));
    }
}
