//! What a ReplicaSet needs: how many pods more or fewer, which ones go, what a new one looks like. Pure.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use api::view::{Pod, ReplicaSet};
use apimachinery::{Object, Str, Value};
use jiff::Timestamp;

use crate::pods::{self, PodOf, max_restarts, phase_rank, ready_since, timestamp};

/// `controller.kubernetes.io/pod-deletion-cost`: pods of lower cost go first.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Nothing,
    Create(usize),
    Delete(usize),
}

pub(super) fn change(set: &ReplicaSet, active: usize, burst: usize) -> Change {
    let wanted = usize::try_from(set.spec.replicas.unwrap_or(1)).unwrap_or(0);
    match active.cmp(&wanted) {
        Ordering::Equal => Change::Nothing,
        Ordering::Less => Change::Create((wanted - active).min(burst)),
        Ordering::Greater => Change::Delete((active - wanted).min(burst)),
    }
}

/// The tree of a new pod.
pub(super) fn pod_of(object: &Object, set: &ReplicaSet) -> Value {
    pods::from_template(&set.spec.template.to_value(), object)
}

/// The pods that go first, in upstream's order of preference.
pub(super) fn victims(active: &[PodOf], related: &[Arc<Pod>], count: usize, now: Timestamp) -> Vec<PodOf> {
    if count >= active.len() {
        return active.to_vec();
    }
    let mut per_node: HashMap<&str, usize> = HashMap::new();
    for pod in related {
        *per_node.entry(pod.spec.node_name.as_str()).or_default() += 1;
    }
    let ranked = |own: &PodOf| Rank::of(&own.pod, &per_node);
    let mut order: Vec<(Rank, &PodOf)> = active.iter().map(|own| (ranked(own), own)).collect();
    order.sort_by(|(a, _), (b, _)| a.compare(b, now));
    order.into_iter().take(count).map(|(_, own)| own.clone()).collect()
}

/// What the order of deletion looks at.
struct Rank {
    assigned: bool,
    phase: u8,
    ready: bool,
    cost: i64,
    on_node: usize,
    ready_since: Option<Timestamp>,
    restarts: (i32, i32),
    created: Option<Timestamp>,
    uid: Str,
}

impl Rank {
    fn of(pod: &Pod, per_node: &HashMap<&str, usize>) -> Self {
        let cost = pod.metadata.annotations.get(DELETION_COST).and_then(|text| text.parse::<i32>().ok());
        Self {
            assigned: !pod.spec.node_name.is_empty(),
            phase: phase_rank(pod),
            ready: pod.is_ready(),
            cost: cost.unwrap_or_default().into(),
            on_node: per_node.get(pod.spec.node_name.as_str()).copied().unwrap_or_default(),
            ready_since: ready_since(pod),
            restarts: max_restarts(pod),
            created: timestamp(pod.metadata.creation_timestamp.as_ref()),
            uid: pod.metadata.uid.clone(),
        }
    }

    /// `Less` goes first.
    fn compare(&self, other: &Self, now: Timestamp) -> Ordering {
        let readiness = if self.ready && other.ready {
            younger_first(self.ready_since, other.ready_since, now)
        } else {
            Ordering::Equal
        };
        self.assigned
            .cmp(&other.assigned)
            .then(self.phase.cmp(&other.phase))
            .then(self.ready.cmp(&other.ready))
            .then(self.cost.cmp(&other.cost))
            .then(other.on_node.cmp(&self.on_node))
            .then(readiness)
            .then(other.restarts.cmp(&self.restarts))
            .then(younger_first(self.created, other.created, now))
            .then_with(|| self.uid.cmp(&other.uid))
    }
}

/// Compares ages by order of magnitude, so that among pods of similar age the choice is arbitrary and not always the
/// same zone's or version's (upstream's logarithmic scale-down). An unknown time is the youngest.
fn younger_first(a: Option<Timestamp>, b: Option<Timestamp>, now: Timestamp) -> Ordering {
    let magnitude = |time: Timestamp| {
        let age = now.duration_since(time).as_nanos();
        if age > 0 { i64::from(age.ilog2()) } else { -1 }
    };
    match (a, b) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
        (Some(a), Some(b)) => magnitude(a).cmp(&magnitude(b)),
    }
}
