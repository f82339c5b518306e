//! Bound volumes with zone and region labels need a node in one of those zones and regions, if nodes have such labels.

use std::sync::Arc;

use api::gvr::{PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, STORAGE_CLASSES};
use api::view::{PersistentVolume, PersistentVolumeClaim, Pod, StorageClass, StringMap};
use apimachinery::Str;

use super::{Change, Lister, named_claims, not_found, sign};
use crate::cache::{Cache, NodeInfo};
use crate::framework::{
    CycleState, EnqueueExtensions, Event, EventSet, Filter, Handle, Hint, NotShareable, Plugin, PreFilter,
    Relevance, Sign, Signature, Status,
};
use crate::pod::PodInfo;

/// Labels of volumes and nodes, with today's name of each.
const TOPOLOGY: [(&str, &str); 4] = [
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("topology.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("topology.kubernetes.io/region", "topology.kubernetes.io/region"),
];

/// Between the zones of a volume in several.
const ZONE_SEPARATOR: &str = "__";

pub struct VolumeZone {
    claims: Lister,
    volumes: Lister,
    classes: Lister,
}

/// One label of a volume: the node must have one of the values.
#[derive(Debug, PartialEq, Eq)]
struct Topology {
    label: &'static str,
    label_today: &'static str,
    values: Vec<Str>,
}

/// What all volumes of the pod ask for.
struct Topologies(Vec<Topology>);

impl VolumeZone {
    pub fn new(handle: &Handle) -> Self {
        Self {
            claims: Lister::new(handle, PERSISTENT_VOLUME_CLAIMS),
            volumes: Lister::new(handle, PERSISTENT_VOLUMES),
            classes: Lister::new(handle, STORAGE_CLASSES),
        }
    }

    fn topologies(&self, pod: &Pod) -> Result<Vec<Topology>, Status> {
        let mut topologies = Vec::new();
        for name in named_claims(pod) {
            if name.is_empty() {
                return Err(Status::unresolvable("PersistentVolumeClaim had no name"));
            }
            if let Some(volume) = self.volume(&pod.metadata.namespace, name)? {
                topologies.extend(topologies_of(&volume));
            }
        }
        Ok(topologies)
    }

    /// The volume of a claim; `None` for one that waits for its consumer.
    fn volume(&self, namespace: &str, claim: &str) -> Result<Option<Arc<PersistentVolume>>, Status> {
        let missing = |what: &str, name: &str| Status::unresolvable(not_found(what, name));
        let claim: Arc<PersistentVolumeClaim> =
            self.claims.get(namespace, claim).ok_or_else(|| missing("persistentvolumeclaim", claim))?;
        let name = &claim.spec.volume_name;
        if !name.is_empty() {
            return self.volumes.get("", name).map(Some).ok_or_else(|| missing("persistentvolume", name));
        }
        let class = claim.class();
        if class.is_empty() {
            return Err(Status::unresolvable("PersistentVolumeClaim had no pv name and storageClass name"));
        }
        let found: Arc<StorageClass> =
            self.classes.get("", class).ok_or_else(|| missing("storageclass.storage.k8s.io", class))?;
        match found.volume_binding_mode.as_str() {
            "WaitForFirstConsumer" => Ok(None),
            "" => {
                let message = format!("VolumeBindingMode not set for StorageClass \"{class}\"");
                Err(Status::unresolvable(message))
            }
            _ => Err(Status::unresolvable("PersistentVolume had no name")),
        }
    }
}

/// A label that names no zone, or an empty one, says nothing.
fn topologies_of(volume: &PersistentVolume) -> Vec<Topology> {
    let of = |&(label, label_today): &(&'static str, &'static str)| {
        let value = volume.metadata.labels.get(label)?;
        let values: Vec<Str> = value.split(ZONE_SEPARATOR).map(|zone| zone.trim().into()).collect();
        let is_valid = !values.iter().any(Str::is_empty);
        is_valid.then_some(Topology { label, label_today, values })
    };
    TOPOLOGY.iter().filter_map(of).collect()
}

impl Topology {
    /// Nodes may know an old label by today's name.
    fn holds(&self, labels: &StringMap) -> bool {
        let value = labels.get(self.label).or_else(|| labels.get(self.label_today));
        value.is_some_and(|value| self.values.contains(value))
    }
}

impl Plugin for VolumeZone {
    fn name(&self) -> &'static str {
        "VolumeZone"
    }
}

impl Sign for VolumeZone {
    fn sign(&self, pod: &PodInfo, _: &Cache, _: &mut Signature) -> Result<(), NotShareable> {
        sign(pod)
    }
}

impl PreFilter for VolumeZone {
    fn pre_filter(&self, state: &mut CycleState, pod: &PodInfo, _: &Cache) -> Result<Relevance, Status> {
        let topologies = self.topologies(&pod.pod)?;
        if topologies.is_empty() {
            return Ok(Relevance::Skip);
        }
        state.insert(Topologies(topologies));
        Ok(Relevance::EveryNode)
    }
}

impl Filter for VolumeZone {
    fn filter(&self, state: &CycleState, _: &PodInfo, node: &NodeInfo) -> Result<(), Status> {
        let (Some(Topologies(topologies)), Some(node)) = (state.get(), &node.node) else { return Ok(()) };
        let labels = &node.metadata.labels;
        // Nodes of a cluster in one zone may say nothing of it.
        let has_topology = TOPOLOGY.iter().any(|(label, _)| labels.contains_key(label));
        if !has_topology || topologies.iter().all(|topology| topology.holds(labels)) {
            return Ok(());
        }
        Err(Status::unresolvable("node(s) had no available volume zone"))
    }
}

impl EnqueueExtensions for VolumeZone {
    fn events(&self) -> EventSet {
        EventSet::STORAGE_CLASS
            .with(EventSet::NODE_ADD)
            .with(EventSet::NODE_LABEL)
            .with(EventSet::PERSISTENT_VOLUME_CLAIM)
            .with(EventSet::PERSISTENT_VOLUME)
    }

    fn hint(&self, pod: &PodInfo, event: &Event<'_>) -> Hint {
        let helps = if let Some(change) = Change::of(event, &STORAGE_CLASSES) {
            change.added().is_some_and(|class: Arc<StorageClass>| class.waits_for_consumer())
        } else if let Some(Change { new, .. }) = Change::of(event, &PERSISTENT_VOLUME_CLAIMS) {
            new.is_some_and(|claim: Arc<PersistentVolumeClaim>| {
                claim.metadata.namespace == *pod.namespace()
                    && named_claims(&pod.pod).any(|name| *name == claim.metadata.name)
            })
        } else if let Some(Change { old, new }) = Change::<PersistentVolume>::of(event, &PERSISTENT_VOLUMES) {
            match (old, new) {
                (None, Some(_)) => true,
                (Some(old), Some(new)) => topologies_of(&old) != topologies_of(&new),
                (_, None) => false,
            }
        } else {
            matches!(event, Event::NodeAdded(_) | Event::NodeUpdated { .. })
        };
        if helps { Hint::Queue } else { Hint::Skip }
    }
}
