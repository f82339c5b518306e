//! What happens in the cluster that may let a rejected pod be scheduled.

use std::ops::BitOr;

use api::view::{Node, Pod};

use crate::pod::PodInfo;
use crate::resource::{Missing, Resources};

/// A set of kinds of events: what a plugin waits for, and what an update changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventSet(u32);

/// One event, with what changed.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    NodeAdded(&'a Node),
    NodeUpdated {
        old: &'a Node,
        new: &'a Node,
    },
    NodeDeleted(&'a Node),
    /// A pod was bound (also by others).
    PodAssigned(&'a PodInfo),
    AssignedPodUpdated {
        old: &'a PodInfo,
        new: &'a PodInfo,
    },
    /// A bound pod is gone or has ended.
    AssignedPodDeleted(&'a PodInfo),
    /// The waiting pod itself changed.
    PodUpdated {
        old: &'a PodInfo,
        new: &'a PodInfo,
    },
}

/// A plugin's answer to whether an event may help a pod that it rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    Queue,
    Skip,
}

// === impl EventSet ===

impl EventSet {
    pub const NONE: Self = Self(0);
    pub const NODE_ADD: Self = Self(1);
    pub const NODE_DELETE: Self = Self(1 << 1);
    pub const NODE_ALLOCATABLE: Self = Self(1 << 2);
    pub const NODE_LABEL: Self = Self(1 << 3);
    /// Taints, and a node that is uncordoned.
    pub const NODE_TAINT: Self = Self(1 << 4);
    pub const NODE_CONDITION: Self = Self(1 << 5);
    pub const NODE_ANNOTATION: Self = Self(1 << 6);
    pub const NODE_DECLARED_FEATURE: Self = Self(1 << 7);
    pub const POD_ASSIGNED: Self = Self(1 << 8);
    /// Of a bound pod.
    pub const POD_DELETE: Self = Self(1 << 9);
    pub const POD_LABEL: Self = Self(1 << 10);
    pub const POD_SCALE_DOWN: Self = Self(1 << 11);
    pub const POD_TOLERATION: Self = Self(1 << 12);
    pub const POD_GATES_ELIMINATED: Self = Self(1 << 13);

    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn when(condition: bool, set: Self) -> Self {
        if condition { set } else { Self::NONE }
    }
}

impl BitOr for EventSet {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        self.with(other)
    }
}

// === impl Event ===

impl Event<'_> {
    /// The event's name in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NodeAdded(_) => "NodeAdd",
            Self::NodeUpdated { .. } => "NodeUpdate",
            Self::NodeDeleted(_) => "NodeDelete",
            Self::PodAssigned(_) => "AssignedPodAdd",
            Self::AssignedPodUpdated { .. } => "AssignedPodUpdate",
            Self::AssignedPodDeleted(_) => "AssignedPodDelete",
            Self::PodUpdated { .. } => "UnschedulablePodUpdate",
        }
    }

    /// The kinds that this event is of; empty when nothing a plugin could wait for has changed.
    pub fn kinds(&self) -> EventSet {
        match *self {
            Self::NodeAdded(_) => EventSet::NODE_ADD,
            Self::NodeUpdated { old, new } => node_changes(old, new),
            Self::NodeDeleted(_) => EventSet::NODE_DELETE,
            Self::PodAssigned(_) => EventSet::POD_ASSIGNED,
            Self::AssignedPodUpdated { old, new } | Self::PodUpdated { old, new } => {
                pod_changes(&old.pod, &new.pod)
            }
            Self::AssignedPodDeleted(_) => EventSet::POD_DELETE,
        }
    }
}

fn node_changes(old: &Node, new: &Node) -> EventSet {
    let uncordoned = old.spec.unschedulable && !new.spec.unschedulable;
    EventSet::when(uncordoned || old.spec.taints != new.spec.taints, EventSet::NODE_TAINT)
        | EventSet::when(old.status.allocatable != new.status.allocatable, EventSet::NODE_ALLOCATABLE)
        | EventSet::when(old.metadata.labels != new.metadata.labels, EventSet::NODE_LABEL)
        | EventSet::when(conditions_differ(old, new), EventSet::NODE_CONDITION)
        | EventSet::when(old.metadata.annotations != new.metadata.annotations, EventSet::NODE_ANNOTATION)
        | EventSet::when(
            old.status.declared_features != new.status.declared_features,
            EventSet::NODE_DECLARED_FEATURE,
        )
}

/// Heartbeats do not count: only which conditions there are and whether they hold.
fn conditions_differ(old: &Node, new: &Node) -> bool {
    let (old, new) = (&old.status.conditions, &new.status.conditions);
    old.len() != new.len()
        || !new.iter().all(|new| old.iter().any(|old| old.type_ == new.type_ && old.status == new.status))
}

fn pod_changes(old: &Pod, new: &Pod) -> EventSet {
    let gates_gone = !old.spec.scheduling_gates.is_empty() && new.spec.scheduling_gates.is_empty();
    EventSet::when(old.metadata.labels != new.metadata.labels, EventSet::POD_LABEL)
        | EventSet::when(scaled_down(old, new), EventSet::POD_SCALE_DOWN)
        | EventSet::when(gates_gone, EventSet::POD_GATES_ELIMINATED)
        | EventSet::when(old.spec.tolerations.len() != new.spec.tolerations.len(), EventSet::POD_TOLERATION)
}

fn scaled_down(old: &Pod, new: &Pod) -> bool {
    let (old, new) =
        (Resources::requested_by(old, Missing::Zero), Resources::requested_by(new, Missing::Zero));
    old.cpu_milli > new.cpu_milli
        || old.memory > new.memory
        || old.ephemeral_storage > new.ephemeral_storage
        || old.extended.iter().any(|(name, amount)| *amount > new.extended(name))
}
