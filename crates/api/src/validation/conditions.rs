//! `metav1.Condition`, as many kinds' status has it.

use std::collections::HashSet;

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use super::fields::{Fields, supported};
use super::selector::label_name;

const REASON_MAX: usize = 1024;
const MESSAGE_MAX: usize = 32 * 1024;
const REASON: &str = "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";

/// Each condition has a type of its own, and all that a condition needs.
pub fn check(errors: &mut ErrorList, conditions: &[Value], path: &Path<'_>) {
    let mut seen = HashSet::new();
    for (index, own) in conditions.iter().enumerate() {
        let (kind, path) = (own.text("type"), path.index(index));
        if !seen.insert(kind) {
            errors.push(Error::duplicate(&path.child("type"), kind));
        }
        condition(errors, own, &path);
    }
}

fn condition(errors: &mut ErrorList, condition: &Value, path: &Path<'_>) {
    label_name(errors, condition.text("type"), &path.child("type"));
    supported(errors, condition.text("status"), &path.child("status"), &["False", "True", "Unknown"]);
    let generation = condition.int("observedGeneration");
    if generation < 0 {
        let path = path.child("observedGeneration");
        errors.push(Error::invalid(&path, generation, "must be greater than or equal to zero"));
    }
    if !condition.has("lastTransitionTime") {
        errors.push(Error::required(&path.child("lastTransitionTime"), ""));
    }
    reason(errors, condition.text("reason"), &path.child("reason"));
    if condition.text("message").len() > MESSAGE_MAX {
        errors.push(Error::too_long(&path.child("message"), MESSAGE_MAX));
    }
}

fn reason(errors: &mut ErrorList, reason: &str, path: &Path<'_>) {
    let is_edge = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if reason.is_empty() {
        errors.push(Error::required(path, ""));
        return;
    }
    if !reason.starts_with(|c: char| c.is_ascii_alphabetic())
        || !reason.ends_with(is_edge)
        || !reason.chars().all(|c| is_edge(c) || matches!(c, ',' | ':'))
    {
        errors.push(Error::invalid(path, reason, REASON));
    }
    if reason.len() > REASON_MAX {
        errors.push(Error::too_long(path, REASON_MAX));
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn conditions_are_complete_and_once_each() {
        let complaints = |conditions: Value| -> Vec<String> {
            let mut errors = ErrorList::new();
            let conditions = conditions.as_array().map(Vec::as_slice).unwrap_or_default();
            check(&mut errors, conditions, &Path::root("c"));
            errors.iter().map(ToString::to_string).collect()
        };
        let good = json!({"type": "Ready", "status": "True", "reason": "A:B_", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        assert_eq!(complaints(json!([good])), Vec::<String>::new());
        assert_eq!(complaints(json!([good, good])), ["c[1].type: Duplicate value: \"Ready\""]);
        let bad = json!({"type": "Ready", "status": "Yes", "reason": "1", "observedGeneration": -1});
        let found = complaints(json!([bad]));
        let starts: Vec<&str> =
            found.iter().map(|text| text.split(": ").next().unwrap_or_default()).collect();
        assert_eq!(
            starts,
            ["c[0].status", "c[0].observedGeneration", "c[0].lastTransitionTime", "c[0].reason"]
        );
    }
}
