//! What happens in the cluster that may let a rejected pod be scheduled.

use std::borrow::Cow;
use std::ops::BitOr;

use api::gvr;
use api::view::{Node, Pod};
use apimachinery::{GroupVersionResource, Object};

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
    /// A pod that waits for a node appeared.
    PodAdded(&'a PodInfo),
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
    /// An object of one of the [`WATCHED`] resources appeared (without `old`), changed, or is gone (without `new`).
    Object {
        resource: &'a GroupVersionResource,
        old: Option<&'a Object>,
        new: Option<&'a Object>,
    },
}

/// A resource, besides those of nodes and pods, whose objects plugins can wait for.
pub struct Watched {
    pub events: EventSet,
    /// Upstream's name for it in the names of events.
    pub kind: &'static str,
    pub resource: GroupVersionResource,
}

/// The scheduler reads those of them that some plugin of some profile waits for, and no others.
pub static WATCHED: [Watched; 12] = [
    watched(EventSet::PERSISTENT_VOLUME, "PersistentVolume", gvr::PERSISTENT_VOLUMES),
    watched(EventSet::PERSISTENT_VOLUME_CLAIM, "PersistentVolumeClaim", gvr::PERSISTENT_VOLUME_CLAIMS),
    watched(EventSet::STORAGE_CLASS, "StorageClass", gvr::STORAGE_CLASSES),
    watched(EventSet::CSI_NODE, "CSINode", gvr::CSI_NODES),
    watched(EventSet::CSI_DRIVER, "CSIDriver", gvr::CSI_DRIVERS),
    watched(EventSet::CSI_STORAGE_CAPACITY, "CSIStorageCapacity", gvr::CSI_STORAGE_CAPACITIES),
    watched(EventSet::VOLUME_ATTACHMENT, "VolumeAttachment", gvr::VOLUME_ATTACHMENTS),
    watched(EventSet::RESOURCE_CLAIM, "ResourceClaim", gvr::RESOURCE_CLAIMS),
    watched(EventSet::RESOURCE_SLICE, "ResourceSlice", gvr::RESOURCE_SLICES),
    watched(EventSet::DEVICE_CLASS, "DeviceClass", gvr::DEVICE_CLASSES),
    watched(EventSet::POD_GROUP, "PodGroup", gvr::POD_GROUPS),
    watched(EventSet::WORKLOAD, "Workload", gvr::WORKLOADS),
];

const fn watched(events: EventSet, kind: &'static str, resource: GroupVersionResource) -> Watched {
    Watched { events, kind, resource }
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
    /// Whatever happens.
    pub const ANY: Self = Self(u32::MAX);
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
    pub const PERSISTENT_VOLUME: Self = Self(1 << 14);
    pub const PERSISTENT_VOLUME_CLAIM: Self = Self(1 << 15);
    pub const STORAGE_CLASS: Self = Self(1 << 16);
    pub const CSI_NODE: Self = Self(1 << 17);
    pub const CSI_DRIVER: Self = Self(1 << 18);
    pub const CSI_STORAGE_CAPACITY: Self = Self(1 << 19);
    pub const VOLUME_ATTACHMENT: Self = Self(1 << 20);
    pub const RESOURCE_CLAIM: Self = Self(1 << 21);
    pub const RESOURCE_SLICE: Self = Self(1 << 22);
    pub const DEVICE_CLASS: Self = Self(1 << 23);
    pub const POD_GROUP: Self = Self(1 << 24);
    pub const WORKLOAD: Self = Self(1 << 25);
    /// Of a pod without a node.
    pub const POD_ADD: Self = Self(1 << 26);
    /// Claims were made for the pod from templates.
    pub const POD_GENERATED_CLAIM: Self = Self(1 << 27);

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
    pub fn name(&self) -> Cow<'static, str> {
        let name = match *self {
            Self::NodeAdded(_) => "NodeAdd",
            Self::NodeUpdated { .. } => "NodeUpdate",
            Self::NodeDeleted(_) => "NodeDelete",
            Self::PodAdded(_) => "UnscheduledPodAdd",
            Self::PodAssigned(_) => "AssignedPodAdd",
            Self::AssignedPodUpdated { .. } => "AssignedPodUpdate",
            Self::AssignedPodDeleted(_) => "AssignedPodDelete",
            Self::PodUpdated { .. } => "UnschedulablePodUpdate",
            Self::Object { resource, old, new } => {
                let kind = Watched::of(resource).map_or(resource.resource.as_str(), |watched| watched.kind);
                let action = match (old, new) {
                    (None, _) => "Add",
                    (_, None) => "Delete",
                    _ => "Update",
                };
                return format!("{kind}{action}").into();
            }
        };
        name.into()
    }

    /// The kinds that this event is of; empty when nothing a plugin could wait for has changed.
    pub fn kinds(&self) -> EventSet {
        match *self {
            Self::NodeAdded(_) => EventSet::NODE_ADD,
            Self::NodeUpdated { old, new } => node_changes(old, new),
            Self::NodeDeleted(_) => EventSet::NODE_DELETE,
            Self::PodAdded(_) => EventSet::POD_ADD,
            Self::PodAssigned(_) => EventSet::POD_ASSIGNED,
            Self::AssignedPodUpdated { old, new } | Self::PodUpdated { old, new } => {
                pod_changes(&old.pod, &new.pod)
            }
            Self::AssignedPodDeleted(_) => EventSet::POD_DELETE,
            Self::Object { resource, .. } => {
                Watched::of(resource).map_or(EventSet::NONE, |watched| watched.events)
            }
        }
    }
}

// === impl Watched ===

impl Watched {
    pub fn of(resource: &GroupVersionResource) -> Option<&'static Self> {
        WATCHED.iter().find(|watched| watched.resource == *resource)
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
        | EventSet::when(
            old.status.resource_claim_statuses != new.status.resource_claim_statuses,
            EventSet::POD_GENERATED_CLAIM,
        )
}

fn scaled_down(old: &Pod, new: &Pod) -> bool {
    let (old, new) =
        (Resources::requested_by(old, Missing::Zero), Resources::requested_by(new, Missing::Zero));
    old.cpu_milli > new.cpu_milli
        || old.memory > new.memory
        || old.ephemeral_storage > new.ephemeral_storage
        || old.extended.iter().any(|(name, amount)| *amount > new.extended(name))
}
