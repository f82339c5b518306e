//! `batch/v1.Job`.

use apimachinery::field::{Error, ErrorList, Path, go_quote};
use apimachinery::{Map, Value};

use crate::kinds::apps::workload;
use crate::kinds::core::pod;
use crate::kinds::networking::ingress::domain_prefixed_path;
use crate::kinds::warnings;
use crate::strategy::{Context, Strategy};
use crate::validation::fields::{
    Fields, Verbatim, as_go_struct, immutable, invalid_each, not_negative, same, supported,
};
use crate::validation::meta::shown_labels;
use crate::validation::selector::{self, Match};
use crate::validation::text;

const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
const JOB_NAME: &str = "batch.kubernetes.io/job-name";
const OLD_CONTROLLER_UID: &str = "controller-uid";
const OLD_JOB_NAME: &str = "job-name";

const MANAGED_BY_MAX: usize = 63;
const FAILURE_RULES_MAX: usize = 20;
const SUCCESS_RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const CONDITIONS_MAX: usize = 20;
const PARALLELISM_MAX: i64 = 100_000;
const FAILED_INDEXES_MAX: i64 = 100_000;
/// Indexed jobs with more completions than this have tighter limits.
const MANY_COMPLETIONS: i64 = 100_000;
const TIGHT_MAX: i64 = 10_000;

pub struct Job;

impl Strategy for Job {
    fn prepare_for_create(&self, _ctx: &Context<'_>, object: &mut Value) {
        generate_selector(object);
    }

    fn validate(&self, ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        generated_selector(&mut errors, object);
        with_selector(&mut errors, ctx, &object["spec"]);
        pod_names(&mut errors, object);
        errors
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        if ctx.subresource == Some("status") {
            status(&mut errors, new, old);
            return errors;
        }
        with_selector(&mut errors, ctx, &new["spec"]);
        changes(&mut errors, &new["spec"], &old["spec"]);
        errors
    }

    fn warnings(&self, _ctx: &Context<'_>, new: &Value, old: Option<&Value>) -> Vec<String> {
        let mut warnings = Vec::from_iter(warnings::workload_name(new, old));
        warnings.extend(workload::template_warnings(new, old));
        warnings
    }
}

/// A job selects its own pods by its UID, unless it brings a selector of its own.
fn generate_selector(object: &mut Value) {
    if object["spec"].truth("manualSelector") {
        return;
    }
    let uid = object["metadata"].text("uid").to_owned();
    let name = object["metadata"].text("name").to_owned();
    let labels = object.ensure_object_at(&["spec", "template", "metadata", "labels"]);
    for (key, value) in
        [(OLD_JOB_NAME, &name), (JOB_NAME, &name), (OLD_CONTROLLER_UID, &uid), (CONTROLLER_UID, &uid)]
    {
        if !labels.contains_key(key) {
            labels.insert(key, value.as_str());
        }
    }
    let labels = labels.clone();
    let wanted = object.ensure_object_at(&["spec", "selector", "matchLabels"]);
    if !wanted.contains_key(CONTROLLER_UID) {
        wanted.insert(CONTROLLER_UID, uid);
    }
    // A job without labels has those of its template.
    if object["metadata"].map("labels").is_none_or(Map::is_empty) {
        object.set_at(&["metadata", "labels"], labels);
    }
}

fn generated_selector(errors: &mut ErrorList, object: &Value) {
    let spec = &object["spec"];
    if spec.truth("manualSelector") || !spec.has("selector") {
        return;
    }
    let (uid, name) = (object["metadata"].text("uid"), object["metadata"].text("name"));
    let labels = spec["template"]["metadata"].map("labels");
    let path = Path::root("spec");
    let path = path.child("template");
    let path = path.child("metadata");
    let path = path.child("labels");
    let expected = [(OLD_CONTROLLER_UID, uid), (OLD_JOB_NAME, name), (CONTROLLER_UID, uid), (JOB_NAME, name)];
    for (key, value) in expected {
        let path = path.key(key);
        match labels.and_then(|labels| labels.maybe_text(key)) {
            None => errors.push(Error::required(&path, format!("must be '{value}'"))),
            Some(own) if own != value => {
                errors.push(Error::invalid(&path, shown_labels(labels), format!("must be '{value}'")));
            }
            Some(_) => {}
        }
    }
    let expected: Map = expected.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
    if selector::matches(spec.maybe("selector"), Some(&expected)) == Match::No {
        errors.push(Error::invalid(
            &Path::root("spec").child("selector"),
            selector::shown(&spec["selector"]),
            "`selector` not auto-generated",
        ));
    }
}

fn pod_names(errors: &mut ErrorList, object: &Value) {
    let spec = &object["spec"];
    let completions = spec.int("completions");
    if spec.text("completionMode") != "Indexed" || completions <= 0 {
        return;
    }
    let name = object["metadata"].text("name");
    let longest = format!("{name}-{}", completions - 1);
    if !text::dns1123_label(&longest).is_empty() {
        errors.push(Error::invalid(
            &Path::root("metadata").child("name"),
            name,
            format!("will not able to create pod with invalid DNS label: {longest}"),
        ));
    }
}

fn with_selector(errors: &mut ErrorList, ctx: &Context<'_>, job: &Value) {
    let path = Path::root("spec");
    spec(errors, ctx, job, &path);
    let own = job.maybe("selector");
    if own.is_none() {
        errors.push(Error::required(&path.child("selector"), ""));
    }
    selector::label_selector(errors, own, &path.child("selector"));
    let labels = job["template"]["metadata"].map("labels");
    if selector::matches(own, labels) == Match::No {
        workload::not_selected(errors, &job["template"], &path.child("template"));
    }
}

/// The spec of a job, or of the jobs of a CronJob: everything but the selector.
pub fn spec(errors: &mut ErrorList, ctx: &Context<'_>, spec: &Value, path: &Path<'_>) {
    for key in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        not_negative(errors, spec, key, path);
    }
    if spec.has("maxFailedIndexes") && !spec.has("backoffLimitPerIndex") {
        errors
            .push(Error::required(&path.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified"));
    }
    if let Some(manager) = spec.maybe_text("managedBy") {
        domain_prefixed_path(errors, manager, &path.child("managedBy"));
        if manager.len() > MANAGED_BY_MAX {
            errors.push(Error::too_long(&path.child("managedBy"), MANAGED_BY_MAX));
        }
    }
    completion_mode(errors, spec, path);
    if let Some(policy) = spec.maybe("podFailurePolicy") {
        failure_policy(errors, policy, spec, &path.child("podFailurePolicy"));
    }
    if let Some(policy) = spec.maybe("successPolicy") {
        success_policy(errors, policy, spec, &path.child("successPolicy"));
    }
    if let Some(policy) = spec.maybe_text("podReplacementPolicy") {
        let allowed: &[&str] =
            if spec.has("podFailurePolicy") { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
        supported(errors, policy, &path.child("podReplacementPolicy"), allowed);
    }
    let template_path = path.child("template");
    pod::spec::template(errors, ctx, &spec["template"], &template_path);
    restart_policy(errors, spec, &template_path.child("spec").child("restartPolicy"));
}

fn restart_policy(errors: &mut ErrorList, spec: &Value, path: &Path<'_>) {
    match spec["template"]["spec"].text("restartPolicy") {
        "" | "Always" => {
            errors.push(Error::required(path, "valid values: \"OnFailure\", \"Never\""));
        }
        "Never" => {}
        "OnFailure" => {
            if spec.has("podFailurePolicy") {
                errors.push(Error::invalid(
                    path,
                    "OnFailure",
                    "only \"Never\" is supported when podFailurePolicy is specified",
                ));
            }
        }
        other => errors.push(Error::not_supported(path, other, &["OnFailure", "Never"])),
    }
}

fn completion_mode(errors: &mut ErrorList, spec: &Value, path: &Path<'_>) {
    let mode = spec.maybe_text("completionMode");
    if let Some(mode) = mode {
        supported(errors, mode, &path.child("completionMode"), &["NonIndexed", "Indexed"]);
    }
    match mode {
        Some("Indexed") => indexed(errors, spec, path),
        None | Some("NonIndexed") => {
            for key in ["backoffLimitPerIndex", "maxFailedIndexes"] {
                if let Some(number) = spec.maybe_int(key) {
                    errors.push(Error::invalid(&path.child(key), number, "requires indexed completion mode"));
                }
            }
        }
        Some(_) => {}
    }
}

fn indexed(errors: &mut ErrorList, spec: &Value, path: &Path<'_>) {
    let completions = spec.maybe_int("completions");
    let (parallelism, failed) = (spec.int("parallelism"), spec.maybe_int("maxFailedIndexes"));
    let (parallelism_path, failed_path) = (path.child("parallelism"), path.child("maxFailedIndexes"));
    if completions.is_none() {
        errors.push(Error::required(&path.child("completions"), "when completion mode is Indexed"));
    }
    if parallelism > PARALLELISM_MAX {
        errors.push(Error::invalid(
            &parallelism_path,
            parallelism,
            format!("must be less than or equal to {PARALLELISM_MAX} when completion mode is Indexed"),
        ));
    }
    if let Some(failed) = failed {
        if completions.is_some_and(|completions| failed > completions) {
            errors.push(Error::invalid(&failed_path, failed, "must be less than or equal to completions"));
        }
        if failed > FAILED_INDEXES_MAX {
            errors.push(Error::invalid(
                &failed_path,
                failed,
                format!("must be less than or equal to {FAILED_INDEXES_MAX}"),
            ));
        }
    }
    if completions.unwrap_or_default() <= MANY_COMPLETIONS || !spec.has("backoffLimitPerIndex") {
        return;
    }
    let tight = format!(
        "must be less than or equal to {TIGHT_MAX} when completions are above {MANY_COMPLETIONS} and used with backoff limit per index"
    );
    if failed.is_none() {
        errors.push(Error::required(
            &failed_path,
            format!("must be specified when completions is above {MANY_COMPLETIONS}"),
        ));
    }
    if parallelism > TIGHT_MAX {
        errors.push(Error::invalid(&parallelism_path, parallelism, tight.as_str()));
    }
    if let Some(failed) = failed.filter(|failed| *failed > TIGHT_MAX) {
        errors.push(Error::invalid(&failed_path, failed, tight));
    }
}

/// An `Invalid` that shows no value.
fn wrong(path: &Path<'_>, detail: &str) -> Error {
    let mut error = Error::invalid(path, "", detail);
    error.shown = None;
    error
}

fn quoted(values: &[&str]) -> String {
    let list: Vec<String> = values.iter().map(|value| go_quote(value)).collect();
    format!("valid values: [{}]", list.join(" "))
}

fn one_of(errors: &mut ErrorList, value: &str, path: &Path<'_>, allowed: &[&str]) {
    if value.is_empty() {
        errors.push(Error::required(path, quoted(allowed)));
    } else {
        supported(errors, value, path, allowed);
    }
}

fn failure_policy(errors: &mut ErrorList, policy: &Value, spec: &Value, path: &Path<'_>) {
    let rules = policy.list("rules");
    let rules_path = path.child("rules");
    if rules.len() > FAILURE_RULES_MAX {
        errors.push(Error::too_many(&rules_path, rules.len(), FAILURE_RULES_MAX));
    }
    for (index, rule) in rules.iter().enumerate() {
        let path = rules_path.index(index);
        let action = rule.text("action");
        let action_path = path.child("action");
        if action == "FailIndex" {
            if !spec.has("backoffLimitPerIndex") {
                errors.push(Error::invalid(
                    &action_path,
                    action,
                    "requires the backoffLimitPerIndex to be set",
                ));
            }
        } else {
            one_of(errors, action, &action_path, &["Count", "FailIndex", "FailJob", "Ignore"]);
        }
        let (codes, conditions) = (rule.maybe("onExitCodes"), rule.list("onPodConditions"));
        if let Some(codes) = codes {
            exit_codes(errors, codes, spec, &path.child("onExitCodes"));
        }
        let conditions_path = path.child("onPodConditions");
        if conditions.len() > CONDITIONS_MAX {
            errors.push(Error::too_many(&conditions_path, conditions.len(), CONDITIONS_MAX));
        } else {
            for (index, pattern) in conditions.iter().enumerate() {
                let path = conditions_path.index(index);
                let kind = pattern.text("type");
                invalid_each(errors, &path.child("type"), kind, text::qualified_name(kind));
                one_of(errors, pattern.text("status"), &path.child("status"), &["False", "True", "Unknown"]);
            }
        }
        match (codes.is_some(), conditions.is_empty()) {
            (true, false) => {
                errors.push(wrong(&path, "specifying both OnExitCodes and OnPodConditions is not supported"));
            }
            (false, true) => {
                errors.push(wrong(&path, "specifying one of OnExitCodes and OnPodConditions is required"));
            }
            _ => {}
        }
    }
}

fn exit_codes(errors: &mut ErrorList, codes: &Value, spec: &Value, path: &Path<'_>) {
    let operator = codes.text("operator");
    one_of(errors, operator, &path.child("operator"), &["In", "NotIn"]);
    let template = &spec["template"]["spec"];
    if let Some(name) = codes.maybe_text("containerName") {
        let known = ["containers", "initContainers"]
            .iter()
            .any(|list| template.list(list).iter().any(|container| container.text("name") == name));
        if !known {
            errors.push(Error::invalid(
                &path.child("containerName"),
                name,
                "must be one of the container or initContainer names in the pod template",
            ));
        }
    }
    let values = codes.list("values");
    let values_path = path.child("values");
    if values.is_empty() {
        errors.push(Error::invalid(&values_path, &codes["values"], "at least one value is required"));
    } else if values.len() > EXIT_CODES_MAX {
        errors.push(Error::too_many(&values_path, values.len(), EXIT_CODES_MAX));
    }
    for (index, value) in values.iter().enumerate() {
        let code = value.as_i64().unwrap_or_default();
        if operator == "In" && code == 0 {
            errors.push(Error::invalid(&values_path.index(index), code, "must not be 0 for the In operator"));
        }
        if values[..index].contains(value) {
            errors.push(Error::duplicate(&values_path.index(index), code));
        }
    }
    if !values.is_sorted_by_key(Value::as_i64) {
        errors.push(Error::invalid(&values_path, &codes["values"], "must be ordered"));
    }
}

fn success_policy(errors: &mut ErrorList, policy: &Value, spec: &Value, path: &Path<'_>) {
    let rules = policy.list("rules");
    if spec.text("completionMode") != "Indexed" {
        const LAYOUT: [(&str, &str, &str); 2] =
            [("succeededIndexes", "SucceededIndexes", "null"), ("succeededCount", "SucceededCount", "null")];
        let shown: Vec<String> = rules.iter().map(|rule| as_go_struct(rule, &LAYOUT).0).collect();
        let shown = Verbatim(format!("{{\"Rules\":[{}]}}", shown.join(",")));
        errors.push(Error::invalid(path, shown, "requires indexed completion mode"));
        return;
    }
    let rules_path = path.child("rules");
    if rules.is_empty() {
        errors.push(Error::required(
            &rules_path,
            "at least one rules must be specified when the successPolicy is specified",
        ));
    }
    if rules.len() > SUCCESS_RULES_MAX {
        errors.push(Error::too_many(&rules_path, rules.len(), SUCCESS_RULES_MAX));
    }
    let completions = spec.int("completions");
    for (index, rule) in rules.iter().enumerate() {
        let path = rules_path.index(index);
        let (indexes, count) = (rule.maybe_text("succeededIndexes"), rule.maybe_int("succeededCount"));
        if indexes.is_none() && count.is_none() {
            errors.push(Error::required(
                &path,
                "at least one of succeededCount or succeededIndexes must be specified",
            ));
        }
        let mut total = 0;
        if let Some(indexes) = indexes {
            match count_indexes(indexes, completions) {
                Ok(count) => total = count,
                Err(why) => errors.push(Error::invalid(
                    &path.child("succeededIndexes"),
                    indexes,
                    format!("error parsing succeededIndexes: {why}"),
                )),
            }
        }
        let Some(count) = count else { continue };
        not_negative(errors, rule, "succeededCount", &path);
        for (most, what) in [
            (Some(completions), "specified completions"),
            (indexes.map(|_| total), "indexes in the specified succeededIndexes field"),
        ] {
            if let Some(most) = most.filter(|most| count > *most) {
                errors.push(Error::invalid(
                    &path.child("succeededCount"),
                    count,
                    format!("must be less than or equal to {most} (the number of {what})"),
                ));
            }
        }
    }
}

/// How many indexes a text such as `0,3-5` names; they ascend and are below `completions`.
fn count_indexes(indexes: &str, completions: i64) -> Result<i64, String> {
    let (mut total, mut last) = (0, -1);
    for interval in indexes.split(',').filter(|_| !indexes.is_empty()) {
        let (first, end) = match interval.split_once('-') {
            Some((first, end)) => (first, end),
            None => (interval, interval),
        };
        let number = |text: &str| {
            text.parse::<i64>()
                .map_err(|_| format!("cannot convert string to integer for index: {}", go_quote(text)))
        };
        let (first, end) = (number(first)?, number(end)?);
        if first > end {
            return Err(format!("non-increasing order, previous: {first}, current: {end}"));
        }
        if end >= completions {
            return Err(format!("too large index: {}", go_quote(&end.to_string())));
        }
        if first <= last {
            return Err(format!("non-increasing order, previous: {last}, current: {first}"));
        }
        total += end - first + 1;
        last = end;
    }
    Ok(total)
}

fn changes(errors: &mut ErrorList, new: &Value, old: &Value) {
    let path = Path::root("spec");
    let completions_path = path.child("completions");
    if new.text("completionMode") != "Indexed" {
        immutable(errors, new, old, "completions", &completions_path);
    } else if !same(&new["completions"], &old["completions"])
        && new.int("completions") != new.int("parallelism")
    {
        errors.push(Error::invalid(
            &completions_path,
            &new["completions"],
            "can only be modified in tandem with spec.parallelism",
        ));
    }
    if !same(&new["selector"], &old["selector"]) {
        errors.push(Error::invalid(
            &path.child("selector"),
            selector::shown(&new["selector"]),
            crate::validation::fields::IMMUTABLE,
        ));
    }
    template_changes(errors, new, old, &path.child("template"));
    for key in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        immutable(errors, new, old, key, &path.child(key));
    }
}

/// While a job is suspended and has not started, where its pods may run is still open.
fn template_changes(errors: &mut ErrorList, new: &Value, old: &Value, path: &Path<'_>) {
    let mut expected = old["template"].clone();
    if old.truth("suspend") {
        let take = |expected: &mut Value, at: &[&str]| match new["template"].at(at) {
            Some(value) => expected.set_at(at, value.clone()),
            None => {
                expected.remove_at(at);
            }
        };
        for at in [
            &["metadata", "labels"][..],
            &["metadata", "annotations"],
            &["spec", "nodeSelector"],
            &["spec", "tolerations"],
            &["spec", "schedulingGates"],
            &["spec", "affinity", "nodeAffinity"],
        ] {
            take(&mut expected, at);
        }
    }
    if !same(&new["template"], &expected) {
        errors.push(Error::invalid(path, &new["template"], crate::validation::fields::IMMUTABLE));
    }
}

fn status(errors: &mut ErrorList, new: &Value, old: &Value) {
    let path = Path::root("status");
    let (status, before) = (&new["status"], &old["status"]);
    for key in ["active", "succeeded", "failed", "ready", "terminating"] {
        not_negative(errors, status, key, &path);
    }
    let is = |status: &Value, kind: &str| {
        status
            .list("conditions")
            .iter()
            .any(|condition| condition.text("type") == kind && condition.text("status") == "True")
    };
    let conditions = path.child("conditions");
    let (complete, failed) = (is(status, "Complete"), is(status, "Failed"));
    if complete && failed {
        errors.push(wrong(&conditions, "cannot set Complete=True and Failed=true conditions"));
    }
    if complete && is(status, "FailureTarget") {
        errors.push(wrong(&conditions, "cannot set Complete=True and FailureTarget=true conditions"));
    }
    if (complete || failed) && status.int("active") > 0 {
        errors.push(Error::invalid(
            &path.child("active"),
            status.int("active"),
            "active>0 is invalid for finished job",
        ));
    }
    if status.int("ready") > status.int("active") {
        errors.push(Error::invalid(
            &path.child("ready"),
            status.int("ready"),
            "cannot set more ready pods than active",
        ));
    }
    for kind in ["Failed", "Complete", "FailureTarget"] {
        if is(before, kind) && !is(status, kind) {
            errors.push(wrong(&conditions, &format!("cannot disable the terminal {kind}=True condition")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_lists_ascend_and_are_counted() {
        assert_eq!(count_indexes("0,3-5,7", 8), Ok(5));
        assert_eq!(count_indexes("", 8), Ok(0));
        for bad in ["8", "3-1", "1,1", "x", "2,1"] {
            assert!(count_indexes(bad, 8).is_err(), "{bad}");
        }
    }
}
