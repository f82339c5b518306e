//! A node can have only so many volumes of a driver: what its CSINode says, against the volumes that its pods use and
//! those attached to it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use api::gvr::{
    CSI_NODES, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, STORAGE_CLASSES, VOLUME_ATTACHMENTS,
};
use api::view::{
    CsiNode, CsiNodeDriver, PersistentVolume, PersistentVolumeClaim, Pod, StorageClass, Volume,
    VolumeAttachment,
};
use api::volumes::claim_name;
use api::volumes::in_tree::{Disk, driver_and_handle, plugin};
use apimachinery::{Object, Str};

use super::{Change, Lister, OF_NODE, all_claims, check_owner, has_claim, not_found, sign};
use crate::cache::{Cache, NodeInfo};
use crate::framework::{
    CycleState, EnqueueExtensions, Event, EventSet, Filter, Handle, Hint, NotShareable, Plugin, PreFilter,
    Relevance, Sign, Signature, Status,
};
use crate::pod::PodInfo;

pub struct NodeVolumeLimits {
    claims: Lister,
    volumes: Lister,
    classes: Lister,
    nodes: Lister,
    attachments: Lister,
}

/// A volume as its driver knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Counted {
    driver: Str,
    handle: Str,
}

/// The volumes of the pod that looks for a node, or why they cannot be told.
struct Wanted(Result<HashSet<Counted>, Status>);

/// Whose volumes are counted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// It cannot run without its claims.
    New,
    /// A claim that is gone counts for nothing.
    Placed,
}

/// Index of VolumeAttachments.
pub(super) fn node_of(attachment: &Object) -> Vec<Str> {
    let view = attachment.view::<VolumeAttachment>().ok();
    view.map(|attachment| attachment.spec.node_name.clone()).into_iter().collect()
}

impl NodeVolumeLimits {
    pub fn new(handle: &Handle) -> Self {
        Self {
            claims: Lister::new(handle, PERSISTENT_VOLUME_CLAIMS),
            volumes: Lister::new(handle, PERSISTENT_VOLUMES),
            classes: Lister::new(handle, STORAGE_CLASSES),
            nodes: Lister::new(handle, CSI_NODES),
            attachments: Lister::new(handle, VOLUME_ATTACHMENTS),
        }
    }

    fn volumes_of(&self, pod: &Pod, whose: Whose) -> Result<HashSet<Counted>, Status> {
        let mut counted = HashSet::new();
        for volume in &pod.spec.volumes {
            counted.extend(match claim_name(&pod.metadata.name, volume) {
                Some(claim) => self.volume_of_claim(pod, volume, &claim, whose)?,
                None => inline(volume),
            });
        }
        Ok(counted)
    }

    fn volume_of_claim(
        &self,
        pod: &Pod,
        volume: &Volume,
        name: &str,
        whose: Whose,
    ) -> Result<Option<Counted>, Status> {
        let namespace = &pod.metadata.namespace;
        let claim: Option<Arc<PersistentVolumeClaim>> = self.claims.get(namespace, name);
        let Some(claim) = claim else {
            let missing = || not_found("persistentvolumeclaim", name);
            return match whose {
                Whose::New => {
                    Err(Status::unresolvable(format!("looking up PVC {namespace}/{name}: {}", missing())))
                }
                Whose::Placed => Ok(None),
            };
        };
        if volume.ephemeral.is_some() {
            check_owner(&claim, pod).map_err(Status::error)?;
        }
        let bound: Option<Arc<PersistentVolume>> = match claim.spec.volume_name.as_str() {
            "" => None,
            name => self.volumes.get("", name),
        };
        Ok(match bound {
            Some(volume) => {
                driver_and_handle(&volume).map(|(driver, handle)| Counted { driver, handle }).filter(is_known)
            }
            None => self.to_be_made(&claim),
        })
    }

    /// A claim without a volume will have one of its class's driver.
    fn to_be_made(&self, claim: &PersistentVolumeClaim) -> Option<Counted> {
        let class: Arc<StorageClass> = self.classes.get("", claim.class())?;
        let driver = match plugin(&class.provisioner) {
            Some(plugin) if plugin.is_counted => plugin.driver.into(),
            Some(_) => return None,
            None => class.provisioner.clone(),
        };
        let handle = format!("unbound claim {}/{}", claim.metadata.namespace, claim.metadata.name);
        Some(Counted { driver, handle: handle.into() }).filter(is_known)
    }

    /// How many volumes the node would have if each were another one and of the same driver. Mostly there is room for
    /// them, and nothing needs to be looked up.
    fn at_most(&self, wanted: usize, node: &NodeInfo) -> i64 {
        let used =
            node.pods.iter().flat_map(|placed| &placed.pod.spec.volumes).filter(|volume| is_counted(volume));
        let attached = self.attachments.informer().index_len(OF_NODE, &node.name);
        (wanted + used.count() + attached) as i64
    }

    fn attached_to<'a>(&'a self, node: &str) -> impl Iterator<Item = Counted> + 'a {
        let attachments = self.attachments.informer().by_index(OF_NODE, node);
        attachments.into_iter().filter_map(|attachment| {
            let spec = &attachment.view::<VolumeAttachment>().ok()?.spec;
            let volume: Arc<PersistentVolume> =
                self.volumes.get("", spec.source.persistent_volume_name.as_ref()?)?;
            let handle = volume.spec.csi.as_ref()?.volume_handle.clone();
            (!spec.attacher.is_empty()).then(|| Counted { driver: spec.attacher.clone(), handle })
        })
    }
}

/// It may be a volume of a driver.
fn is_counted(volume: &Volume) -> bool {
    has_claim(volume) || Disk::of_pod(volume).is_some()
}

fn is_known(volume: &Counted) -> bool {
    !volume.driver.is_empty() && !volume.handle.is_empty()
}

fn inline(volume: &Volume) -> Option<Counted> {
    let disk = Disk::of_pod(volume)?;
    Some(Counted { driver: disk.plugin().driver.into(), handle: disk.handle("")? })
}

/// The limits of those drivers that have one.
fn limits(node: &CsiNode) -> HashMap<&str, i64> {
    let count_of = |driver: &CsiNodeDriver| driver.allocatable.as_ref()?.count.map(i64::from);
    node.spec.drivers.iter().filter_map(|driver| Some((driver.name.as_str(), count_of(driver)?))).collect()
}

/// How many volumes each driver has.
fn count<'a>(volumes: impl Iterator<Item = &'a Counted>) -> HashMap<&'a str, i64> {
    let mut counts = HashMap::new();
    volumes.for_each(|volume| *counts.entry(volume.driver.as_str()).or_default() += 1);
    counts
}

impl Plugin for NodeVolumeLimits {
    fn name(&self) -> &'static str {
        "NodeVolumeLimits"
    }
}

impl Sign for NodeVolumeLimits {
    fn sign(&self, pod: &PodInfo, _: &Cache, _: &mut Signature) -> Result<(), NotShareable> {
        sign(pod)
    }
}

impl PreFilter for NodeVolumeLimits {
    fn pre_filter(&self, state: &mut CycleState, pod: &PodInfo, _: &Cache) -> Result<Relevance, Status> {
        let volumes = &pod.pod.spec.volumes;
        if !volumes.iter().any(is_counted) {
            return Ok(Relevance::Skip);
        }
        state.insert(Wanted(self.volumes_of(&pod.pod, Whose::New)));
        Ok(Relevance::EveryNode)
    }
}

impl Filter for NodeVolumeLimits {
    fn filter(&self, state: &CycleState, _: &PodInfo, node: &NodeInfo) -> Result<(), Status> {
        let Some(Wanted(wanted)) = state.get() else { return Ok(()) };
        let wanted = wanted.as_ref().map_err(Status::clone)?;
        let Some(csi_node) = self.nodes.get::<CsiNode>("", &node.name) else { return Ok(()) };
        let limits = limits(&csi_node);
        let lowest = wanted.iter().filter_map(|volume| limits.get(volume.driver.as_str())).min();
        if lowest.is_none_or(|lowest| self.at_most(wanted.len(), node) <= *lowest) {
            return Ok(());
        }
        let mut present = HashSet::new();
        for placed in &node.pods {
            present.extend(self.volumes_of(&placed.pod, Whose::Placed)?);
        }
        // A volume that another pod uses is not one more; one that is only attached is.
        let new = count(wanted.iter().filter(|volume| !present.contains(volume)));
        let attached: HashSet<Counted> = self.attached_to(&node.name).collect();
        let present = count(present.union(&attached));
        let exceeds = |(driver, new): (&&str, &i64)| {
            limits.get(driver).is_some_and(|limit| present.get(driver).unwrap_or(&0) + new > *limit)
        };
        match new.iter().any(exceeds) {
            true => Err(Status::unschedulable("node(s) exceed max volume count")),
            false => Ok(()),
        }
    }
}

impl EnqueueExtensions for NodeVolumeLimits {
    fn events(&self) -> EventSet {
        EventSet::CSI_NODE
            .with(EventSet::POD_DELETE)
            .with(EventSet::PERSISTENT_VOLUME_CLAIM)
            .with(EventSet::VOLUME_ATTACHMENT)
    }

    fn hint(&self, pod: &PodInfo, event: &Event<'_>) -> Hint {
        let helps = if let Some(change) = Change::of(event, &CSI_NODES) {
            is_raised(&change)
        } else if let Some(change) = Change::<PersistentVolumeClaim>::of(event, &PERSISTENT_VOLUME_CLAIMS) {
            change.added().is_some_and(|claim| {
                claim.metadata.namespace == *pod.namespace()
                    && all_claims(&pod.pod).any(|name| name == claim.metadata.name)
            })
        } else if let Some(change) = Change::<VolumeAttachment>::of(event, &VOLUME_ATTACHMENTS) {
            change.new.is_none() && change.old.is_some_and(|gone| may_use(&pod.pod, &gone.spec.attacher))
        } else if let Event::AssignedPodDeleted(gone) = event {
            gone.pod.spec.volumes.iter().any(is_counted)
        } else {
            false
        };
        if helps { Hint::Queue } else { Hint::Skip }
    }
}

/// The CSINode is new, or some driver's limit is higher than before.
fn is_raised(change: &Change<CsiNode>) -> bool {
    let Some(new) = &change.new else { return false };
    let Some(old) = &change.old else { return true };
    let old = limits(old);
    limits(new).iter().any(|(driver, limit)| limit > old.get(driver).unwrap_or(&0))
}

/// A volume of the pod may be one of this driver.
fn may_use(pod: &Pod, driver: &str) -> bool {
    pod.spec.volumes.iter().any(|volume| {
        volume.persistent_volume_claim.is_some()
            || Disk::of_pod(volume).is_some_and(|disk| disk.plugin().driver == driver)
    })
}
