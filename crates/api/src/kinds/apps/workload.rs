//! What kinds that run pods from a template have in common.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use crate::kinds::core::pod;
use crate::strategy::Context;
use crate::validation::fields::{Fields, NOT_NEGATIVE, invalid_each, not_negative, supported};
use crate::validation::meta::shown_labels;
use crate::validation::selector::{self, Match};
use crate::validation::text;

/// `spec.selector`: required, well formed, and not empty, which would select every pod. `kind` is as upstream spells
/// it in the complaint.
pub fn selector(errors: &mut ErrorList, spec: &Value, kind: &str, path: &Path<'_>) {
    let path = path.child("selector");
    match spec.maybe("selector") {
        None => errors.push(Error::required(&path, "")),
        Some(own) => {
            selector::label_selector(errors, Some(own), &path);
            if selector::is_empty(own) {
                errors.push(Error::invalid(
                    &path,
                    selector::shown(own),
                    format!("empty selector is invalid for {kind}"),
                ));
            }
        }
    }
}

/// The template of a workload that keeps its pods running: its labels are what the selector selects, and pods are
/// always restarted. A selector without meaning ends the checks, as nothing can be said about the template then.
pub fn running_template(
    errors: &mut ErrorList,
    ctx: &Context<'_>,
    spec: &Value,
    kind: &str,
    path: &Path<'_>,
) {
    let template_path = path.child("template");
    let template = &spec["template"];
    let labels = template["metadata"].map("labels");
    match selector::matches(spec.maybe("selector"), labels) {
        Match::Invalid => {
            errors.push(Error::invalid(
                &path.child("selector"),
                selector::shown(&spec["selector"]),
                "invalid label selector",
            ));
            return;
        }
        Match::No => not_selected(errors, template, &template_path),
        Match::Yes => {}
    }
    pod::spec::template(errors, ctx, template, &template_path);
    always_restarted(errors, template, kind, &template_path);
}

pub fn not_selected(errors: &mut ErrorList, template: &Value, path: &Path<'_>) {
    errors.push(Error::invalid(
        &path.child("metadata").child("labels"),
        shown_labels(template["metadata"].map("labels")),
        "`selector` does not match template `labels`",
    ));
}

pub fn always_restarted(errors: &mut ErrorList, template: &Value, kind: &str, path: &Path<'_>) {
    let path = path.child("spec");
    supported(errors, template["spec"].text("restartPolicy"), &path.child("restartPolicy"), &["Always"]);
    if template["spec"].has("activeDeadlineSeconds") {
        errors.push(Error::forbidden(
            &path.child("activeDeadlineSeconds"),
            format!("activeDeadlineSeconds in {kind} is not Supported"),
        ));
    }
}

/// A number, or a percentage.
pub fn number_or_percent(errors: &mut ErrorList, value: &Value, path: &Path<'_>) {
    match value.as_str() {
        Some(percent) => invalid_each(errors, path, percent, text::percent(percent)),
        None => {
            let number = value.as_i64().unwrap_or_default();
            if number < 0 {
                errors.push(Error::invalid(path, number, NOT_NEGATIVE));
            }
        }
    }
}

fn percent_of(value: &Value) -> Option<i64> {
    value.as_str()?.strip_suffix('%')?.parse().ok()
}

pub fn at_most_all(errors: &mut ErrorList, value: &Value, path: &Path<'_>) {
    if percent_of(value).is_some_and(|percent| percent > 100) {
        errors.push(Error::invalid(path, value, "must not be greater than 100%"));
    }
}

/// Whether a number or percentage is nothing at all.
pub fn is_zero(value: &Value) -> bool {
    percent_of(value).or(value.as_i64()).unwrap_or_default() == 0
}

/// The numbers of a status: none negative, and none of `parts` above the whole.
pub fn replica_status(object: &Value, parts: &[&str]) -> ErrorList {
    let mut errors = ErrorList::new();
    let status = &object["status"];
    let path = Path::root("status");
    not_negative(&mut errors, status, "replicas", &path);
    for key in parts.iter().chain(&["observedGeneration", "terminatingReplicas", "collisionCount"]) {
        not_negative(&mut errors, status, key, &path);
    }
    let all = status.int("replicas");
    for key in parts.iter().filter(|key| status.int(key) > all) {
        errors.push(Error::invalid(
            &path.child(key),
            status.int(key),
            "cannot be greater than status.replicas",
        ));
    }
    if parts.contains(&"readyReplicas") && status.int("availableReplicas") > status.int("readyReplicas") {
        errors.push(Error::invalid(
            &path.child("availableReplicas"),
            status.int("availableReplicas"),
            "cannot be greater than readyReplicas",
        ));
    }
    errors
}

/// `status.collisionCount` only grows.
pub fn collisions_not_decremented(errors: &mut ErrorList, new: &Value, old: &Value) {
    let count = new["status"].int("collisionCount");
    if old["status"].has("collisionCount") && count < old["status"].int("collisionCount") {
        errors.push(Error::invalid(
            &Path::root("status").child("collisionCount"),
            count,
            "cannot be decremented",
        ));
    }
}

/// Warnings about the pods of a template.
pub fn template_warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    template_warnings_at(new, old, &["spec", "template"])
}

/// The same for a template that is somewhere else.
pub fn template_warnings_at(new: &Value, old: Option<&Value>, path: &[&str]) -> Vec<String> {
    let mut warnings = Vec::new();
    let Some(template) = new.at(path) else { return warnings };
    // An update that leaves the template alone was warned about before.
    if old.is_none_or(|old| old.at(path) != Some(template)) {
        pod::warnings::spec(&mut warnings, &template["metadata"], &template["spec"], &path.join("."));
    }
    warnings
}
