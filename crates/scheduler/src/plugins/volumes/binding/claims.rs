//! [`PodClaims`]: a pod's claims with all that decides about them, and which volumes they get on a node. Pure.

use std::sync::Arc;

use api::view::{
    CsiNode, CsiStorageCapacity, Node, PersistentVolume, PersistentVolumeClaim, StorageClass, StringMap,
    VolumeNodeAffinity,
};
use api::volumes::in_tree::{Disk, translated_affinity};
use api::volumes::{NO_PROVISIONER, SELECTED_NODE, is_allowed, is_reachable, match_on_node};
use apimachinery::{Object, Selector, Str};

use crate::framework::{Code, Reason, Status};

const NODE_CONFLICT: Reason = Reason::Borrowed("node(s) didn't match PersistentVolume's node affinity");
const BIND_CONFLICT: Reason = Reason::Borrowed("node(s) didn't find available persistent volumes to bind");
const NOT_ENOUGH_SPACE: Reason = Reason::Borrowed("node(s) did not have enough free storage");
const NO_SUCH_VOLUME: Reason =
    Reason::Borrowed("node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)");

/// The claims of a pod; none of them is to be bound by the binder alone.
#[derive(Default)]
pub struct PodClaims {
    /// Volumes of the claims that are bound; `None` for one that is not there.
    pub bound: Vec<Option<Arc<PersistentVolume>>>,
    /// Claims that wait for their consumer, the smallest first.
    pub waiting: Vec<WaitingClaim>,
}

/// A claim that wants a volume on the node of its pod.
pub struct WaitingClaim {
    pub object: Arc<Object>,
    pub view: Arc<PersistentVolumeClaim>,
    pub class: Arc<StorageClass>,
    /// All volumes of the class.
    pub volumes: Arc<[Candidate]>,
    pub room: Room,
}

/// A volume that may serve a claim.
#[derive(Clone)]
pub struct Candidate {
    pub object: Arc<Object>,
    pub view: Arc<PersistentVolume>,
}

/// Where a new volume of a claim's size would fit.
pub enum Room {
    /// Nobody says.
    Unknown,
    /// On nodes that one of these selects.
    On(Vec<Selector>),
}

/// What the waiting claims of a pod get on a node.
#[derive(Default)]
pub struct PodVolumes<'a> {
    /// Volumes that are there.
    pub bindings: Vec<(&'a WaitingClaim, &'a Candidate)>,
    /// Claims whose volumes are to be made for the node.
    pub provisions: Vec<&'a WaitingClaim>,
}

impl AsRef<PersistentVolume> for Candidate {
    fn as_ref(&self) -> &PersistentVolume {
        &self.view
    }
}

// === impl PodClaims ===

impl PodClaims {
    /// Whether the node's CSINode matters: it does where a driver took over from an old plugin.
    pub fn ask_drivers(&self) -> bool {
        self.bound.iter().flatten().any(|volume| Disk::of_volume(volume).is_some())
    }

    /// What the claims get on a node, or all reasons why it is none for the pod.
    pub fn on_node(&self, node: &Node, csi_node: Option<&CsiNode>) -> Result<PodVolumes<'_>, Status> {
        let bound = self.check_bound(&node.metadata.labels, csi_node);
        let waiting = self.for_waiting(node);
        if bound.is_ok()
            && let Ok(volumes) = waiting
        {
            return Ok(volumes);
        }
        let mut reasons: Vec<Reason> = bound.err().into_iter().chain(waiting.err()).collect();
        reasons.sort_by_key(|reason| *reason == NO_SUCH_VOLUME);
        Err(Status { code: Code::UnschedulableAndUnresolvable, reasons: reasons.into() })
    }

    fn check_bound(&self, labels: &StringMap, csi_node: Option<&CsiNode>) -> Result<(), Reason> {
        self.bound.iter().try_for_each(|volume| match volume {
            None => Err(NO_SUCH_VOLUME),
            Some(volume) if is_reachable_from(volume, labels, csi_node) => Ok(()),
            Some(_) => Err(NODE_CONFLICT),
        })
    }

    fn for_waiting(&self, node: &Node) -> Result<PodVolumes<'_>, Reason> {
        let (name, labels) = (&node.metadata.name, &node.metadata.labels);
        if self.waiting.iter().any(|claim| claim.selected_node().is_some_and(|selected| selected != name)) {
            return Err(BIND_CONFLICT);
        }
        let mut found = PodVolumes::default();
        for claim in &self.waiting {
            let is_left = |volume: &PersistentVolume| {
                !found.bindings.iter().any(|(_, taken)| taken.view.metadata.name == volume.metadata.name)
            };
            // Of a claim with a node, a volume is being made.
            let matching = match claim.selected_node() {
                Some(_) => None,
                None => match_on_node(&claim.view, &claim.volumes, labels, is_left),
            };
            match matching {
                Some(volume) => found.bindings.push((claim, volume)),
                None => found.provisions.push(claim),
            }
        }
        found.provisions.iter().try_for_each(|claim| claim.check_provision(labels))?;
        Ok(found)
    }
}

// === impl WaitingClaim ===

impl WaitingClaim {
    fn selected_node(&self) -> Option<&Str> {
        self.view.metadata.annotations.get(SELECTED_NODE)
    }

    /// Whether a volume can be made that nodes with these labels can have.
    fn check_provision(&self, labels: &StringMap) -> Result<(), Reason> {
        let provisioner = self.class.provisioner.as_str();
        if matches!(provisioner, "" | NO_PROVISIONER) || !is_allowed(&self.class.allowed_topologies, labels) {
            return Err(BIND_CONFLICT);
        }
        if self.room.is_on(labels) { Ok(()) } else { Err(NOT_ENOUGH_SPACE) }
    }
}

// === impl Room ===

impl Room {
    /// Where there is enough for `claim`, by what its driver says of its class.
    pub fn of<'a>(
        claim: &PersistentVolumeClaim,
        capacities: impl Iterator<Item = &'a CsiStorageCapacity>,
    ) -> Self {
        let size = claim.requested().value();
        let enough = capacities.filter(|capacity| {
            capacity.storage_class_name == claim.class()
                && capacity.volume_limit().is_some_and(|limit| limit >= size)
        });
        Self::On(enough.filter_map(|capacity| capacity.node_topology.as_ref()?.selector().ok()).collect())
    }

    fn is_on(&self, labels: &StringMap) -> bool {
        match self {
            Self::Unknown => true,
            Self::On(places) => {
                places.iter().any(|place| place.matches(|key| labels.get(key).map(Str::as_str)))
            }
        }
    }
}

/// The node with these labels can reach the volume, in the words of the driver that serves it there.
pub fn is_reachable_from(volume: &PersistentVolume, labels: &StringMap, csi_node: Option<&CsiNode>) -> bool {
    let translated: Option<VolumeNodeAffinity> = translated_affinity(volume, csi_node);
    is_reachable(translated.as_ref().or(volume.spec.node_affinity.as_ref()), labels)
}
