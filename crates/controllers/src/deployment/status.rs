//! A Deployment's status: counts, and the conditions by which a rollout is followed. Pure.

use std::time::Duration;

use api::view::{Condition, Deployment, DeploymentCondition, DeploymentStatus};
use apimachinery::{Object, Str, Value, json, time};
use controller_runtime::Action;
use jiff::Timestamp;

use super::plan::{Fleet, Set, max_unavailable};
use crate::pods::timestamp;

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
const REPLICA_FAILURE: &str = "ReplicaFailure";

const DEADLINE_EXCEEDED: &str = "ProgressDeadlineExceeded";
const NEW_SET_AVAILABLE: &str = "NewReplicaSetAvailable";

type Conditions = Vec<DeploymentCondition>;

// === Conditions ===

fn condition(
    type_: &str,
    status: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) -> DeploymentCondition {
    let now: Str = time::format_seconds(now).into();
    DeploymentCondition {
        type_: type_.into(),
        status: status.into(),
        reason: reason.into(),
        message: message.into(),
        last_update_time: Some(now.clone()),
        last_transition_time: Some(now),
    }
}

fn find<'a>(conditions: &'a [DeploymentCondition], type_: &str) -> Option<&'a DeploymentCondition> {
    conditions.iter().find(|own| own.type_ == type_)
}

/// Sets a condition unless one of equal status and reason is there; an equal status keeps its transition time.
fn set(conditions: &mut Conditions, mut new: DeploymentCondition) {
    if let Some(own) = find(conditions, &new.type_) {
        if own.status == new.status && own.reason == new.reason {
            return;
        }
        if own.status == new.status {
            new.last_transition_time = own.last_transition_time.clone();
        }
    }
    remove(conditions, &new.type_.clone());
    conditions.push(new);
}

fn remove(conditions: &mut Conditions, type_: &str) {
    conditions.retain(|own| own.type_ != type_);
}

fn progress_deadline(deployment: &Deployment) -> Option<Duration> {
    let seconds = deployment.spec.progress_deadline_seconds.filter(|seconds| *seconds != i32::MAX)?;
    Some(Duration::from_secs(seconds.max(0).unsigned_abs().into()))
}

/// A pause stops the clock of the progress deadline; resuming starts it anew. A deadline that has passed stays so.
pub(super) fn note_pause(deployment: &Deployment, conditions: &mut Conditions, now: Timestamp) {
    if progress_deadline(deployment).is_none() {
        return;
    }
    let reason = find(conditions, PROGRESSING).map(|own| own.reason.clone()).unwrap_or_default();
    let (reason, message) = match (deployment.spec.paused, reason.as_str()) {
        (_, DEADLINE_EXCEEDED) => return,
        (true, "DeploymentPaused") => return,
        (true, _) => ("DeploymentPaused", "Deployment is paused"),
        (false, "DeploymentPaused") => ("DeploymentResumed", "Deployment is resumed"),
        (false, _) => return,
    };
    set(conditions, condition(PROGRESSING, "Unknown", reason, message.into(), now));
}

pub(super) fn note_found(deployment: &Deployment, conditions: &mut Conditions, name: &str, now: Timestamp) {
    if progress_deadline(deployment).is_some() && find(conditions, PROGRESSING).is_none() {
        let message = format!("Found new replica set {name:?}");
        set(conditions, condition(PROGRESSING, "True", "FoundNewReplicaSet", message, now));
    }
}

pub(super) fn note_created(deployment: &Deployment, conditions: &mut Conditions, name: &str, now: Timestamp) {
    if progress_deadline(deployment).is_some() {
        let message = format!("Created new replica set {name:?}");
        set(conditions, condition(PROGRESSING, "True", "NewReplicaSetCreated", message, now));
    }
}

pub(super) fn note_creation_failed(
    deployment: &Deployment,
    conditions: &mut Conditions,
    why: &str,
    now: Timestamp,
) {
    if progress_deadline(deployment).is_some() {
        set(conditions, condition(PROGRESSING, "False", "ReplicaSetCreateError", why.into(), now));
    }
}

// === Status ===

/// Counts the fleet and judges availability.
pub(super) fn calculate(
    deployment: &Deployment,
    object: &Object,
    fleet: &Fleet,
    mut conditions: Conditions,
    now: Timestamp,
) -> DeploymentStatus {
    let sum = |of: fn(&Set) -> i32| fleet.all().map(of).sum::<i32>();
    let available = sum(|set| set.view.status.available_replicas);
    let enough = available >= deployment.spec.replicas.unwrap_or(1) - max_unavailable(deployment);
    let verdict = if enough {
        condition(
            AVAILABLE,
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.".into(),
            now,
        )
    } else {
        let message = "Deployment does not have minimum availability.".into();
        condition(AVAILABLE, "False", "MinimumReplicasUnavailable", message, now)
    };
    set(&mut conditions, verdict);
    DeploymentStatus {
        observed_generation: object.generation(),
        replicas: sum(|set| set.view.status.replicas),
        updated_replicas: fleet.new.as_ref().map_or(0, |new| new.view.status.replicas),
        ready_replicas: sum(|set| set.view.status.ready_replicas),
        available_replicas: available,
        unavailable_replicas: (fleet.total() - available).max(0),
        terminating_replicas: fleet.all().map(|set| set.view.status.terminating_replicas).sum(),
        conditions,
        collision_count: deployment.status.collision_count,
    }
}

/// Adds what is to be said about the rollout.
pub(super) fn progress(
    deployment: &Deployment,
    fleet: &Fleet,
    mut status: DeploymentStatus,
    name: &str,
    now: Timestamp,
) -> DeploymentStatus {
    if progress_deadline(deployment).is_none() {
        remove(&mut status.conditions, PROGRESSING);
    } else {
        judge_progress(deployment, fleet, &mut status, name, now);
    }
    match replica_failure(fleet) {
        Some(failure) => set(&mut status.conditions, failure),
        None => remove(&mut status.conditions, REPLICA_FAILURE),
    }
    status
}

fn judge_progress(
    deployment: &Deployment,
    fleet: &Fleet,
    status: &mut DeploymentStatus,
    name: &str,
    now: Timestamp,
) {
    let current = find(&status.conditions, PROGRESSING).cloned();
    let was_complete = current.as_ref().is_some_and(|own| own.reason == NEW_SET_AVAILABLE);
    if was_complete && status.replicas == status.updated_replicas {
        return;
    }
    let subject = match &fleet.new {
        Some(new) => format!("ReplicaSet {:?}", new.object.name()),
        None => format!("Deployment {name:?}"),
    };
    if is_complete(deployment, status) {
        let message = format!("{subject} has successfully progressed.");
        set(&mut status.conditions, condition(PROGRESSING, "True", NEW_SET_AVAILABLE, message, now));
    } else if has_progressed(&deployment.status, status) {
        let message = format!("{subject} is progressing.");
        let mut new = condition(PROGRESSING, "True", "ReplicaSetUpdated", message, now);
        if let Some(current) = current.filter(|own| own.status == "True") {
            new.last_transition_time = current.last_transition_time;
        }
        // Removed first, so that the time of the update is renewed even if nothing else about it changes.
        remove(&mut status.conditions, PROGRESSING);
        status.conditions.push(new);
    } else if has_timed_out(deployment, status, now) {
        let message = format!("{subject} has timed out progressing.");
        set(&mut status.conditions, condition(PROGRESSING, "False", DEADLINE_EXCEEDED, message, now));
    }
}

/// All pods are of the new template, available, and the spec was seen.
pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = deployment.spec.replicas.unwrap_or(1);
    status.updated_replicas == wanted
        && status.replicas == wanted
        && status.available_replicas == wanted
        && status.observed_generation >= deployment.metadata.generation
}

fn has_progressed(before: &DeploymentStatus, after: &DeploymentStatus) -> bool {
    let old = |status: &DeploymentStatus| status.replicas - status.updated_replicas;
    after.updated_replicas > before.updated_replicas
        || old(after) < old(before)
        || after.ready_replicas > before.ready_replicas
        || after.available_replicas > before.available_replicas
}

fn has_timed_out(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> bool {
    let Some(own) = find(&status.conditions, PROGRESSING) else { return false };
    match own.reason.as_str() {
        NEW_SET_AVAILABLE => false,
        DEADLINE_EXCEEDED => true,
        _ => until_deadline(deployment, own, now).is_some_and(|left| left.is_zero()),
    }
}

fn until_deadline(deployment: &Deployment, own: &DeploymentCondition, now: Timestamp) -> Option<Duration> {
    let since = timestamp(own.last_update_time.as_ref())?;
    let passed = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    Some(progress_deadline(deployment)?.saturating_sub(passed))
}

/// A rollout that makes no progress is looked at again when its deadline passes.
pub(super) fn next_check(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> Action {
    let waiting = find(&status.conditions, PROGRESSING)
        .filter(|own| own.reason != DEADLINE_EXCEEDED && !is_complete(deployment, status));
    match waiting.and_then(|own| until_deadline(deployment, own, now)) {
        Some(left) => Action::requeue(left + Duration::from_secs(1)),
        None => Action::await_change(),
    }
}

/// The first failure of the new ReplicaSet, or of any other.
fn replica_failure(fleet: &Fleet) -> Option<DeploymentCondition> {
    let failing =
        |set: &Set| set.view.status.conditions.iter().find(|own| own.type_ == REPLICA_FAILURE).cloned();
    let failure: Condition = fleet.new.iter().chain(&fleet.old).find_map(failing)?;
    Some(DeploymentCondition {
        type_: failure.type_,
        status: failure.status,
        reason: failure.reason,
        message: failure.message,
        last_update_time: failure.last_transition_time.clone(),
        last_transition_time: failure.last_transition_time,
    })
}

// === Writing ===

pub(super) fn write(tree: &mut Value, wanted: &DeploymentStatus) {
    let mut status = tree.get("status").cloned().filter(Value::is_object).unwrap_or_else(Value::object);
    let map = status.ensure_object();
    map.insert("observedGeneration", wanted.observed_generation);
    let counts = [
        ("replicas", wanted.replicas),
        ("updatedReplicas", wanted.updated_replicas),
        ("readyReplicas", wanted.ready_replicas),
        ("availableReplicas", wanted.available_replicas),
        ("unavailableReplicas", wanted.unavailable_replicas),
    ];
    for (field, number) in counts {
        match number {
            0 => map.remove(field),
            _ => map.insert(field, number),
        };
    }
    for (field, number) in
        [("terminatingReplicas", wanted.terminating_replicas), ("collisionCount", wanted.collision_count)]
    {
        match number {
            None => map.remove(field),
            Some(number) => map.insert(field, number),
        };
    }
    tree.set_at(&["status"], status);
    write_conditions(tree, &wanted.conditions);
}

pub(super) fn write_conditions(tree: &mut Value, conditions: &[DeploymentCondition]) {
    let list: Value = conditions.iter().map(to_value).collect();
    tree.set_at(&["status", "conditions"], list);
}

fn to_value(own: &DeploymentCondition) -> Value {
    json!({
        "type": own.type_.as_str(), "status": own.status.as_str(), "reason": own.reason.as_str(),
        "message": own.message.as_str(), "lastUpdateTime": own.last_update_time.as_deref(),
        "lastTransitionTime": own.last_transition_time.as_deref(),
    })
}
