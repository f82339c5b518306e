//! Volumes: which nodes can have those of a pod, and binding its claims before the pod is bound.
//!
//! Owns: the four plugins, and how they read claims, volumes and what serves them. Never touches: which volume serves
//! which claim (`api::volumes`), and the binder, which completes what [`VolumeBinding`] begins.
//!
//! ```text
//!     VolumeRestrictions  ReadWriteOncePod, disks that only one pod of a node may have     preemption can help
//!     NodeVolumeLimits    volumes of a driver on the node, against its CSINode             preemption can help
//!     VolumeBinding       claims bound elsewhere; volumes or room for claims that wait ──> Reserve ──> PreBind
//!     VolumeZone          zone and region labels of bound volumes
//! ```
//!
//! The answers of all four depend on objects that no node and no signature knows of, so pods with such volumes share
//! nothing ([`is_concerned`]); all others are not asked.

mod binding;
mod limits;
mod restrictions;
mod zone;

use std::sync::{Arc, OnceLock};

use api::gvr::{PERSISTENT_VOLUMES, VOLUME_ATTACHMENTS};
use api::view::{PersistentVolumeClaim, Pod, Volume};
use api::volumes::in_tree::Disk;
use api::volumes::{claim_name, is_own_claim};
use apimachinery::{GroupVersionResource, Object, Str};
use client::{Informer, Informers};
use serde::de::DeserializeOwned;

use crate::framework::{Event, Handle, NotShareable};
use crate::pod::PodInfo;
pub use binding::VolumeBinding;
pub use limits::NodeVolumeLimits;
pub use restrictions::VolumeRestrictions;
pub use zone::VolumeZone;

/// Reads the objects of one resource; its informer is asked for when the first is.
struct Lister {
    informers: Informers,
    resource: GroupVersionResource,
    informer: OnceLock<Arc<Informer>>,
}

/// What an event says about an object: appeared, changed or gone.
struct Change<T> {
    old: Option<Arc<T>>,
    new: Option<Arc<T>>,
}

// === impl Lister ===

impl Lister {
    fn new(handle: &Handle, resource: GroupVersionResource) -> Self {
        Self { informers: handle.informers.clone(), resource, informer: OnceLock::new() }
    }

    fn informer(&self) -> &Arc<Informer> {
        self.informer.get_or_init(|| {
            let informer = self.informers.of(&self.resource);
            if let Some((name, values_of)) = index_of(&self.resource) {
                informer.add_index(name, values_of);
            }
            informer
        })
    }

    fn object(&self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.informer().get(namespace, name)
    }

    fn get<T: DeserializeOwned + Send + Sync + 'static>(
        &self,
        namespace: &str,
        name: &str,
    ) -> Option<Arc<T>> {
        self.object(namespace, name)?.view().ok()
    }
}

/// The name of an index, and the values that an object has in it.
type Index = (&'static str, fn(&Object) -> Vec<Str>);

/// PersistentVolumes by class.
const OF_CLASS: &str = "class";
/// VolumeAttachments by node.
const OF_NODE: &str = "attached-node";

fn index_of(resource: &GroupVersionResource) -> Option<Index> {
    if *resource == PERSISTENT_VOLUMES {
        Some((OF_CLASS, binding::class_of))
    } else if *resource == VOLUME_ATTACHMENTS {
        Some((OF_NODE, limits::node_of))
    } else {
        None
    }
}

// === impl Change ===

impl<T: DeserializeOwned + Send + Sync + 'static> Change<T> {
    /// `None` when the event is about something else.
    fn of(event: &Event<'_>, wanted: &GroupVersionResource) -> Option<Self> {
        let Event::Object { resource, old, new } = event else { return None };
        let view = |object: &Option<&Object>| object.and_then(|object| object.view().ok());
        (*resource == wanted).then(|| Self { old: view(old), new: view(new) })
    }

    /// The object as it is now, if it is new.
    fn added(self) -> Option<Arc<T>> {
        self.new.filter(|_| self.old.is_none())
    }
}

/// Whether any volume is one that some plugin here looks at.
fn is_concerned(pod: &Pod) -> bool {
    pod.spec.volumes.iter().any(|volume| has_claim(volume) || is_disk(volume))
}

/// How every plugin here signs.
fn sign(pod: &PodInfo) -> Result<(), NotShareable> {
    if is_concerned(&pod.pod) { Err(NotShareable) } else { Ok(()) }
}

fn has_claim(volume: &Volume) -> bool {
    volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some()
}

fn is_disk(volume: &Volume) -> bool {
    Disk::of_pod(volume).is_some() || volume.rbd.is_some() || volume.iscsi.is_some()
}

/// The claims that the pod names, without those that are made for it.
fn named_claims(pod: &Pod) -> impl Iterator<Item = &Str> {
    pod.spec.volumes.iter().filter_map(|volume| Some(&volume.persistent_volume_claim.as_ref()?.claim_name))
}

/// The names of all claims of the pod.
fn all_claims(pod: &Pod) -> impl Iterator<Item = Str> {
    pod.spec.volumes.iter().filter_map(|volume| claim_name(&pod.metadata.name, volume))
}

fn not_found(what: &str, name: &str) -> String {
    format!("{what} \"{name}\" not found")
}

/// An ephemeral volume's claim that has its name by chance or design must not be used.
fn check_owner(claim: &PersistentVolumeClaim, pod: &Pod) -> Result<(), String> {
    if is_own_claim(claim, pod) {
        return Ok(());
    }
    let (own, of) = (&claim.metadata, &pod.metadata);
    Err(format!(
        "PVC {}/{} was not created for pod {}/{} (pod is not owner)",
        own.namespace, own.name, of.namespace, of.name
    ))
}

#[cfg(test)]
mod tests;
