//! A DaemonSet's status: counted, compared, written. Pure.

use api::view::DaemonSetStatus;
use apimachinery::Value;

use super::plan::{ByNode, Daemon, Place};

/// Counts nodes by what their oldest pod is.
pub(super) fn calculate(daemon: &Daemon<'_>, places: &[Place], pods: &ByNode) -> DaemonSetStatus {
    let mut status = DaemonSetStatus {
        observed_generation: daemon.set.metadata.generation,
        collision_count: daemon.set.status.collision_count,
        ..DaemonSetStatus::default()
    };
    for place in places {
        let oldest = pods.get(place.name()).and_then(|members| members.first());
        if !place.verdict.should_run {
            status.number_misscheduled += i32::from(oldest.is_some());
            continue;
        }
        status.desired_number_scheduled += 1;
        let Some(oldest) = oldest else { continue };
        status.current_number_scheduled += 1;
        status.number_ready += i32::from(oldest.pod.is_ready());
        status.number_available += i32::from(daemon.is_available(oldest));
        status.updated_number_scheduled += i32::from(daemon.is_updated(oldest));
    }
    status.number_unavailable = status.desired_number_scheduled - status.number_available;
    status
}

pub(super) fn write(tree: &mut Value, wanted: &DaemonSetStatus) {
    let status = tree.ensure_object_at(&["status"]);
    for (field, number) in [
        ("currentNumberScheduled", wanted.current_number_scheduled),
        ("numberMisscheduled", wanted.number_misscheduled),
        ("desiredNumberScheduled", wanted.desired_number_scheduled),
        ("numberReady", wanted.number_ready),
    ] {
        status.insert(field, number);
    }
    for (field, number) in [
        ("observedGeneration", wanted.observed_generation),
        ("updatedNumberScheduled", wanted.updated_number_scheduled.into()),
        ("numberAvailable", wanted.number_available.into()),
        ("numberUnavailable", wanted.number_unavailable.into()),
    ] {
        match number {
            0 => status.remove(field),
            _ => status.insert(field, number),
        };
    }
}
