//! A ReplicaSet's status: counted, compared, written. Pure.

use api::view::{Condition, ReplicaSet, ReplicaSetStatus};
use apimachinery::{Status, Value, json, time};
use jiff::Timestamp;

use crate::pods::{PodOf, is_available};

const REPLICA_FAILURE: &str = "ReplicaFailure";

/// The status to write.
pub(super) type Wanted = ReplicaSetStatus;

/// Counts `active` pods, and those terminating where the kind tells how many there are. `failure` is that of the creates or deletes which the counts do not show yet.
pub(super) fn calculate(
    set: &ReplicaSet,
    generation: i64,
    active: &[PodOf],
    terminating: Option<usize>,
    failure: Option<&Status>,
    now: Timestamp,
) -> Wanted {
    let template: Vec<(&str, &str)> = set.spec.template.labels().collect();
    let hash = set.spec.template.hash();
    let fully_labeled = |own: &&PodOf| {
        template.iter().all(|&(key, value)| own.object.label(key) == Some(value))
            && hash.is_none_or(|hash| own.object.label(api::view::POD_TEMPLATE_HASH) == Some(hash))
    };
    let ready = |own: &&PodOf| own.pod.is_ready();
    let available = |own: &&PodOf| is_available(&own.pod, set.spec.min_ready_seconds, now);
    ReplicaSetStatus {
        replicas: count(active.len()),
        fully_labeled_replicas: count(active.iter().filter(fully_labeled).count()),
        ready_replicas: count(active.iter().filter(ready).count()),
        available_replicas: count(active.iter().filter(available).count()),
        terminating_replicas: terminating.map(count),
        observed_generation: generation,
        conditions: conditions(set, active.len(), failure, now),
    }
}

fn conditions(set: &ReplicaSet, active: usize, failure: Option<&Status>, now: Timestamp) -> Vec<Condition> {
    let mut conditions = set.status.conditions.clone();
    let failing = conditions.iter().any(|own| own.type_ == REPLICA_FAILURE);
    match failure {
        Some(status) if !failing => conditions.push(Condition {
            type_: REPLICA_FAILURE.into(),
            status: "True".into(),
            reason: if count(active) < set.spec.replicas.unwrap_or(1) {
                "FailedCreate"
            } else {
                "FailedDelete"
            }
            .into(),
            message: status.message.as_str().into(),
            last_transition_time: Some(time::format_seconds(now).into()),
            ..Condition::default()
        }),
        Some(_) => {}
        None => conditions.retain(|own| own.type_ != REPLICA_FAILURE),
    }
    conditions
}

pub(super) fn equal(have: &ReplicaSetStatus, wanted: &Wanted) -> bool {
    have == wanted
}

pub(super) fn write(tree: &mut Value, wanted: &Wanted) {
    let mut status = tree.get("status").cloned().filter(Value::is_object).unwrap_or_else(Value::object);
    let map = status.ensure_object();
    map.insert("replicas", wanted.replicas);
    map.insert("observedGeneration", wanted.observed_generation);
    let optional = [
        ("fullyLabeledReplicas", wanted.fully_labeled_replicas),
        ("readyReplicas", wanted.ready_replicas),
        ("availableReplicas", wanted.available_replicas),
    ];
    for (field, number) in optional {
        match number {
            0 => map.remove(field),
            _ => map.insert(field, number),
        };
    }
    if let Some(number) = wanted.terminating_replicas {
        map.insert("terminatingReplicas", number);
    }
    match wanted.conditions.as_slice() {
        [] => map.remove("conditions"),
        some => map.insert("conditions", some.iter().map(condition).collect::<Value>()),
    };
    tree.set_at(&["status"], status);
}

fn condition(own: &Condition) -> Value {
    json!({
        "type": own.type_.as_str(), "status": own.status.as_str(), "reason": own.reason.as_str(),
        "message": own.message.as_str(), "lastTransitionTime": own.last_transition_time.as_deref(),
    })
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
