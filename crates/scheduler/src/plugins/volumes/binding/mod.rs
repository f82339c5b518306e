//! Finds nodes that a pod's claims allow, chooses volumes for claims that wait for their consumer, and binds them.
//!
//! ```text
//!     PreFilter   read ──> PodClaims: bound, waiting            refuse: missing, lost, unbound and immediate, …
//!     Filter      PodClaims::on_node ──> volumes that are there, claims whose volume can be made
//!     Reserve     the same for the chosen node ──> assumed, so that no other pod gets them
//!     PreBind     write: the volume names the claim; the claim names the node ──> wait until the binder is done
//! ```
//!
//! Waiting is woken by events of the pod's claims and volumes, never by a clock; it has an end after
//! `bindTimeoutSeconds`. Scores are upstream's gate `StorageCapacityScoring`, which is off.

mod assumed;
mod bind;
mod claims;
mod read;
mod waiters;

use std::sync::Arc;
use std::time::Duration;

use api::gvr::{
    CSI_DRIVERS, CSI_NODES, CSI_STORAGE_CAPACITIES, NODES, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES,
    PODS, STORAGE_CLASSES,
};
use api::view::{
    CsiDriver, CsiNode, CsiStorageCapacity, Node, PersistentVolume, PersistentVolumeClaim, StorageClass,
};
use api::volumes::in_tree::MIGRATED_PLUGINS;
use apimachinery::field::{self, Path};
use apimachinery::{GroupVersionResource, Object, Str};
use async_trait::async_trait;
use client::{Api, ObjectKey};
use serde::Deserialize;

use self::assumed::Assumed;
use self::bind::Reserved;
use self::claims::PodClaims;
use self::waiters::Waiters;
use super::{Change, Lister, all_claims, has_claim, sign};
use crate::cache::{Cache, NodeInfo};
use crate::framework::{
    ArgumentError, Arguments, CycleState, EnqueueExtensions, Event, EventSet, Filter, Handle, Hint,
    NotShareable, Plugin, PreBind, PreFilter, Relevance, Reserve, Sign, Signature, Status,
};
use crate::pod::PodInfo;

pub struct VolumeBinding {
    api: Arc<dyn Api>,
    claims: Lister,
    volumes: Lister,
    classes: Lister,
    csi_nodes: Lister,
    drivers: Lister,
    capacities: Lister,
    nodes: Lister,
    pods: Lister,
    assumed_claims: Assumed<PersistentVolumeClaim>,
    assumed_volumes: Assumed<PersistentVolume>,
    waiters: Waiters,
    bind_timeout: Duration,
}

/// `VolumeBindingArgs`.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct VolumeBindingArgs {
    bind_timeout_seconds: i64,
}

impl Default for VolumeBindingArgs {
    fn default() -> Self {
        Self { bind_timeout_seconds: 600 }
    }
}

/// Index of PersistentVolumes.
pub(super) fn class_of(volume: &Object) -> Vec<Str> {
    volume.view::<PersistentVolume>().ok().map(|volume| volume.class().into()).into_iter().collect()
}

impl VolumeBinding {
    pub fn new(handle: &Handle, arguments: &Arguments) -> Result<Self, ArgumentError> {
        let seconds = arguments.decode::<VolumeBindingArgs>()?.bind_timeout_seconds;
        let bind_timeout = u64::try_from(seconds).map(Duration::from_secs).map_err(|_| {
            let detail = "invalid BindTimeoutSeconds, should not be a negative value";
            ArgumentError::of(field::Error::invalid(&Path::root("bindTimeoutSeconds"), seconds, detail))
        })?;
        Ok(Self {
            api: handle.api.clone(),
            claims: Lister::new(handle, PERSISTENT_VOLUME_CLAIMS),
            volumes: Lister::new(handle, PERSISTENT_VOLUMES),
            classes: Lister::new(handle, STORAGE_CLASSES),
            csi_nodes: Lister::new(handle, CSI_NODES),
            drivers: Lister::new(handle, CSI_DRIVERS),
            capacities: Lister::new(handle, CSI_STORAGE_CAPACITIES),
            nodes: Lister::new(handle, NODES),
            pods: Lister::new(handle, PODS),
            assumed_claims: Assumed::default(),
            assumed_volumes: Assumed::default(),
            waiters: Waiters::default(),
            bind_timeout,
        })
    }
}

impl Plugin for VolumeBinding {
    fn name(&self) -> &'static str {
        "VolumeBinding"
    }
}

impl Sign for VolumeBinding {
    fn sign(&self, pod: &PodInfo, _: &Cache, _: &mut Signature) -> Result<(), NotShareable> {
        sign(pod)
    }
}

impl PreFilter for VolumeBinding {
    fn pre_filter(&self, state: &mut CycleState, pod: &PodInfo, _: &Cache) -> Result<Relevance, Status> {
        if !pod.pod.spec.volumes.iter().any(has_claim) {
            return Ok(Relevance::Skip);
        }
        state.insert(self.read(&pod.pod)?);
        Ok(Relevance::EveryNode)
    }
}

impl Filter for VolumeBinding {
    fn filter(&self, state: &CycleState, _: &PodInfo, node: &NodeInfo) -> Result<(), Status> {
        let (Some(claims), Some(node)) = (state.get::<PodClaims>(), &node.node) else { return Ok(()) };
        let csi_node = || self.csi_nodes.get::<CsiNode>("", &node.metadata.name);
        let csi_node = if claims.ask_drivers() { csi_node() } else { None };
        claims.on_node(node, csi_node.as_deref()).map(drop)
    }
}

impl Reserve for VolumeBinding {
    fn reserve(&self, state: &mut CycleState, pod: &PodInfo, node: &str) -> Result<(), Status> {
        if !pod.pod.spec.volumes.iter().any(has_claim) {
            return Ok(());
        }
        let claims = self.read(&pod.pod)?;
        if claims.waiting.is_empty() {
            return Ok(());
        }
        let Some(known) = self.nodes.get::<Node>("", node) else { return Err(Status::error(no_node(node))) };
        let csi_node = self.csi_nodes.get::<CsiNode>("", node);
        let reserved = self.assume(&claims.on_node(&known, csi_node.as_deref())?, node);
        state.insert(reserved);
        Ok(())
    }

    fn unreserve(&self, state: &mut CycleState, _: &PodInfo, _: &str) {
        if let Some(reserved) = state.get::<Reserved>() {
            self.restore(reserved);
        }
    }
}

#[async_trait]
impl PreBind for VolumeBinding {
    fn is_needed(&self, state: &CycleState, _: &PodInfo) -> bool {
        state.get::<Reserved>().is_some()
    }

    async fn pre_bind(&self, state: &mut CycleState, pod: &PodInfo, node: &str) -> Result<(), Status> {
        match state.get_mut::<Reserved>() {
            Some(reserved) => self.bind(reserved, pod, node).await.map_err(Status::error),
            None => Ok(()),
        }
    }

    fn wake(&self, uid: &str) {
        self.waiters.wake(uid);
    }
}

fn no_node(node: &str) -> String {
    format!("failed to get node \"{node}\": node \"{node}\" not found")
}

impl EnqueueExtensions for VolumeBinding {
    fn events(&self) -> EventSet {
        EventSet::STORAGE_CLASS
            .with(EventSet::PERSISTENT_VOLUME_CLAIM)
            .with(EventSet::PERSISTENT_VOLUME)
            .with(EventSet::NODE_ADD)
            .with(EventSet::NODE_LABEL)
            .with(EventSet::CSI_NODE)
            .with(EventSet::CSI_DRIVER)
            .with(EventSet::CSI_STORAGE_CAPACITY)
    }

    fn hint(&self, pod: &PodInfo, event: &Event<'_>) -> Hint {
        let helps = match event {
            Event::NodeAdded(_) | Event::NodeUpdated { .. } => true,
            Event::Object { resource, new: Some(_), .. } => object_helps(pod, resource, event),
            _ => false,
        };
        if helps { Hint::Queue } else { Hint::Skip }
    }

    fn on_object(&self, event: &Event<'_>) {
        if let Some(change) = Change::<PersistentVolume>::of(event, &PERSISTENT_VOLUMES) {
            for volume in change.old.iter().chain(&change.new) {
                if let Some(claim) = &volume.spec.claim_ref {
                    self.waiters.wake(&ObjectKey::new(&claim.namespace, &claim.name).to_string());
                }
            }
        }
        let Event::Object { resource, old, new } = event else { return };
        let Some(key) = new.or(*old).map(ObjectKey::from) else { return };
        let revision = new.map(Object::revision);
        if **resource == PERSISTENT_VOLUMES {
            self.assumed_volumes.seen(&key, revision);
        } else if **resource == PERSISTENT_VOLUME_CLAIMS {
            self.assumed_claims.seen(&key, revision);
            self.waiters.wake(&key.to_string());
        }
    }

    fn on_objects(&self, resource: &GroupVersionResource, objects: &[Arc<Object>]) {
        if *resource == PERSISTENT_VOLUMES {
            self.assumed_volumes.seen_all(objects);
        } else if *resource == PERSISTENT_VOLUME_CLAIMS {
            self.assumed_claims.seen_all(objects);
        }
        self.waiters.wake_all();
    }
}

/// An object that appeared or changed may help.
fn object_helps(pod: &PodInfo, resource: &GroupVersionResource, event: &Event<'_>) -> bool {
    if *resource == PERSISTENT_VOLUMES {
        return true;
    }
    if let Some(Change { new: Some(claim), .. }) =
        Change::<PersistentVolumeClaim>::of(event, &PERSISTENT_VOLUME_CLAIMS)
    {
        return claim.metadata.namespace == *pod.namespace()
            && all_claims(&pod.pod).any(|name| name == claim.metadata.name);
    }
    if let Some(Change { old, new: Some(new) }) = Change::<StorageClass>::of(event, &STORAGE_CLASSES) {
        return old.is_none_or(|old| old.allowed_topologies != new.allowed_topologies);
    }
    if let Some(Change { old, new: Some(new) }) = Change::<CsiNode>::of(event, &CSI_NODES) {
        let plugins = |node: &CsiNode| node.metadata.annotations.get(MIGRATED_PLUGINS).cloned();
        return old.is_none_or(|old| plugins(&old) != plugins(&new));
    }
    if let Some(Change { old: Some(old), new: Some(new) }) = Change::<CsiDriver>::of(event, &CSI_DRIVERS) {
        let is_said = |driver: &CsiDriver| driver.spec.storage_capacity == Some(true);
        let mut drivers = pod.pod.spec.volumes.iter().filter_map(|volume| volume.csi.as_ref());
        return is_said(&old) && !is_said(&new) && drivers.any(|volume| volume.driver == new.metadata.name);
    }
    if let Some(Change { old, new: Some(new) }) =
        Change::<CsiStorageCapacity>::of(event, &CSI_STORAGE_CAPACITIES)
    {
        return old.is_none_or(|old| new.volume_limit() > old.volume_limit());
    }
    false
}
