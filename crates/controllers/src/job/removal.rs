//! Which active pods go when there are too many. Pure.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;

use api::view::{Job, Pod};
use jiff::Timestamp;

use super::indexes::completion_index;
use super::plan::completions;
use crate::pods::{PodOf, max_restarts, phase_rank, ready_since, timestamp};

/// At least `count` of the active pods: of an Indexed Job all that have no valid index or an index that another pod
/// has, too; then those that would be missed least.
pub(super) fn victims(job: &Job, active: &[PodOf], count: usize) -> Vec<PodOf> {
    let (mut gone, mut left) =
        if job.is_indexed() { duplicates(active, completions(job)) } else { (Vec::new(), active.to_vec()) };
    if gone.len() < count {
        left.sort_by(|a, b| least_missed(&a.pod, &b.pod));
        gone.extend(left.into_iter().take(count - gone.len()));
    }
    gone
}

/// Pods that an Indexed Job has no use for, and one pod of each index.
fn duplicates(active: &[PodOf], completions: u32) -> (Vec<PodOf>, Vec<PodOf>) {
    let (mut gone, mut left) = (Vec::new(), Vec::new());
    let mut by_index: BTreeMap<u32, Vec<PodOf>> = BTreeMap::new();
    for own in active {
        match completion_index(&own.pod).filter(|index| *index < completions) {
            Some(index) => by_index.entry(index).or_default().push(own.clone()),
            None => gone.push(own.clone()),
        }
    }
    for mut pods in by_index.into_values() {
        pods.sort_by(|a, b| least_missed(&a.pod, &b.pod));
        left.extend(pods.pop());
        gone.append(&mut pods);
    }
    (gone, left)
}

/// `Less` goes first: not yet on a node, not yet running, not ready, ready for a shorter time, restarted more often,
/// younger.
fn least_missed(a: &Pod, b: &Pod) -> Ordering {
    let assigned = |pod: &Pod| !pod.spec.node_name.is_empty();
    let readiness = match (a.is_ready(), b.is_ready()) {
        (true, true) => younger_first(ready_since(a), ready_since(b)),
        (a, b) => a.cmp(&b),
    };
    assigned(a)
        .cmp(&assigned(b))
        .then(phase_rank(a).cmp(&phase_rank(b)))
        .then(readiness)
        .then(Reverse(max_restarts(a)).cmp(&Reverse(max_restarts(b))))
        .then(younger_first(created(a), created(b)))
}

fn created(pod: &Pod) -> Option<Timestamp> {
    timestamp(pod.metadata.creation_timestamp.as_ref())
}

/// An unknown time is the youngest.
fn younger_first(a: Option<Timestamp>, b: Option<Timestamp>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => b.cmp(&a),
        (a, b) => a.is_some().cmp(&b.is_some()),
    }
}
