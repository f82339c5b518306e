//! A Job's status: its conditions, and how it is written. Pure.

use api::view::{JobCondition, JobStatus};
use apimachinery::{Str, Value, json, time};
use jiff::Timestamp;

pub(super) const COMPLETE: &str = "Complete";
pub(super) const FAILED: &str = "Failed";
/// Comes before [`COMPLETE`], while pods are still running or counted.
pub(super) const SUCCESS_CRITERIA_MET: &str = "SuccessCriteriaMet";
/// Comes before [`FAILED`], while pods are still running or counted.
pub(super) const FAILURE_TARGET: &str = "FailureTarget";
pub(super) const SUSPENDED: &str = "Suspended";

/// A condition that begins now.
pub(super) fn condition(
    type_: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> JobCondition {
    let now = Str::from(time::format_seconds(now));
    JobCondition {
        type_: type_.into(),
        status: status.into(),
        reason: reason.into(),
        message: message.into(),
        last_probe_time: Some(now.clone()),
        last_transition_time: Some(now),
    }
}

/// Sets a condition; says whether that changed anything. One that never held is not written as `False`.
pub(super) fn ensure(conditions: &mut Vec<JobCondition>, wanted: JobCondition) -> bool {
    match conditions.iter_mut().find(|own| own.type_ == wanted.type_) {
        Some(own) => {
            let differs =
                own.status != wanted.status || own.reason != wanted.reason || own.message != wanted.message;
            if differs {
                *own = wanted;
            }
            differs
        }
        None if wanted.status == "False" => false,
        None => {
            conditions.push(wanted);
            true
        }
    }
}

/// Writes the status into the tree of its Job.
pub(super) fn write(tree: &mut Value, status: &JobStatus) {
    let fields = tree.ensure_object_at(&["status"]);
    let mut set = |key: &str, value: Option<Value>| match value {
        Some(value) => drop(fields.insert(key, value)),
        None => drop(fields.remove(key)),
    };
    let number = |number: i32| (number != 0).then(|| number.into());
    let text = |text: &Str| (!text.is_empty()).then(|| text.clone().into());
    set("active", number(status.active));
    set("succeeded", number(status.succeeded));
    set("failed", number(status.failed));
    set("ready", status.ready.map(Into::into));
    set("terminating", status.terminating.map(Into::into));
    set("startTime", status.start_time.clone().map(Into::into));
    set("completionTime", status.completion_time.clone().map(Into::into));
    set("completedIndexes", text(&status.completed_indexes));
    set("failedIndexes", status.failed_indexes.clone().map(Into::into));
    set("uncountedTerminatedPods", Some(uncounted(status)));
    let conditions = status.conditions.iter().map(condition_tree).collect();
    set("conditions", (!status.conditions.is_empty()).then_some(conditions));
}

/// There even when nothing is in it: that says that the Job counts its pods by finalizer.
fn uncounted(status: &JobStatus) -> Value {
    let mut tree = Value::object();
    let lists = &status.uncounted_terminated_pods;
    for (key, uids) in [("succeeded", &lists.succeeded), ("failed", &lists.failed)] {
        if !uids.is_empty() {
            tree.set_at(&[key], uids.iter().map(|uid| Value::from(uid.clone())).collect::<Value>());
        }
    }
    tree
}

fn condition_tree(own: &JobCondition) -> Value {
    let mut tree = json!({
        "type": own.type_.as_str(), "status": own.status.as_str(),
        "lastProbeTime": own.last_probe_time.as_deref(),
        "lastTransitionTime": own.last_transition_time.as_deref(),
    });
    for (key, text) in [("reason", &own.reason), ("message", &own.message)] {
        if !text.is_empty() {
            tree.set_at(&[key], text.clone());
        }
    }
    tree
}
