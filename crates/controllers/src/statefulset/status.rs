//! A StatefulSet's status: counted, compared, written. Pure.

use api::view::{StatefulSet, StatefulSetStatus};
use apimachinery::Value;
use jiff::Timestamp;

use super::plan::{Fleet, Member, Revisions, wanted};
use crate::pods::is_available;

/// Counts the fleet. `collisions` is how often a revision's name was taken.
pub(super) fn calculate(
    set: &StatefulSet,
    fleet: &Fleet,
    revisions: &Revisions,
    collisions: i32,
    now: Timestamp,
) -> StatefulSetStatus {
    let count = |counts: &dyn Fn(&Member) -> bool| {
        i32::try_from(fleet.members().filter(|member| counts(member)).count()).unwrap_or(i32::MAX)
    };
    let of_revision = |name: &str| count(&|own: &Member| !own.is_deleting && own.revision() == name);
    let min_ready = set.spec.min_ready_seconds;
    StatefulSetStatus {
        observed_generation: set.metadata.generation,
        replicas: count(&|_| true),
        ready_replicas: count(&Member::is_running_and_ready),
        available_replicas: count(&|own| {
            own.is_running_and_ready() && is_available(&own.pod, min_ready, now)
        }),
        current_replicas: of_revision(revisions.current.name()),
        updated_replicas: of_revision(revisions.update.name()),
        current_revision: revisions.current.name().into(),
        update_revision: revisions.update.name().into(),
        collision_count: Some(collisions),
    }
}

/// When all pods are of the update revision and ready, that is the current one.
pub(super) fn complete(set: &StatefulSet, status: &mut StatefulSetStatus) {
    let all = wanted(set);
    if set.spec.update_strategy.type_ == "RollingUpdate"
        && status.updated_replicas == all
        && status.ready_replicas == all
        && status.replicas == all
    {
        status.current_replicas = status.updated_replicas;
        status.current_revision = status.update_revision.clone();
    }
}

/// The collisions alone are no reason to write.
pub(super) fn is_news(have: &StatefulSetStatus, wanted: &StatefulSetStatus) -> bool {
    let collision_count = have.collision_count;
    StatefulSetStatus { collision_count, ..wanted.clone() } != *have
}

/// Replaces the status; conditions that others wrote go, as upstream's.
pub(super) fn write(tree: &mut Value, wanted: &StatefulSetStatus) {
    let mut status = Value::object();
    let map = status.ensure_object();
    map.insert("replicas", wanted.replicas);
    map.insert("availableReplicas", wanted.available_replicas);
    for (field, number) in [
        ("observedGeneration", wanted.observed_generation),
        ("readyReplicas", wanted.ready_replicas.into()),
        ("currentReplicas", wanted.current_replicas.into()),
        ("updatedReplicas", wanted.updated_replicas.into()),
    ] {
        if number != 0 {
            map.insert(field, number);
        }
    }
    for (field, name) in
        [("currentRevision", &wanted.current_revision), ("updateRevision", &wanted.update_revision)]
    {
        if !name.is_empty() {
            map.insert(field, name.clone());
        }
    }
    if let Some(collisions) = wanted.collision_count {
        map.insert("collisionCount", collisions);
    }
    tree.set_at(&["status"], status);
}
