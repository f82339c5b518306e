//! Volumes that one pod alone may use: claims with `ReadWriteOncePod` in the cluster, some kinds of disks on a node.

use api::gvr::PERSISTENT_VOLUME_CLAIMS;
use api::view::{PersistentVolumeClaim, Pod, Volume};
use apimachinery::Str;

use super::{Change, Lister, named_claims, not_found, sign};
use crate::cache::{Cache, NodeInfo};
use crate::framework::{
    CycleState, EnqueueExtensions, Event, EventSet, Filter, Handle, Hint, NotShareable, Plugin, PreFilter,
    Relevance, Sign, Signature, Status,
};
use crate::pod::PodInfo;

pub struct VolumeRestrictions {
    claims: Lister,
}

/// The pod's claims that no other pod may use, and the nodes of those who do.
struct Exclusive {
    claims: Vec<Str>,
    nodes: Vec<Str>,
}

impl VolumeRestrictions {
    pub fn new(handle: &Handle) -> Self {
        Self { claims: Lister::new(handle, PERSISTENT_VOLUME_CLAIMS) }
    }

    fn exclusive_claims(&self, pod: &Pod) -> Result<Vec<Str>, Status> {
        let mut exclusive = Vec::new();
        for name in named_claims(pod) {
            let Some(claim) = self.claims.get::<PersistentVolumeClaim>(&pod.metadata.namespace, name) else {
                return Err(Status::unresolvable(not_found("persistentvolumeclaim", name)));
            };
            if claim.spec.access_modes.iter().any(|mode| mode == "ReadWriteOncePod") {
                exclusive.push(name.clone());
            }
        }
        Ok(exclusive)
    }
}

impl Plugin for VolumeRestrictions {
    fn name(&self) -> &'static str {
        "VolumeRestrictions"
    }
}

impl Sign for VolumeRestrictions {
    fn sign(&self, pod: &PodInfo, _: &Cache, _: &mut Signature) -> Result<(), NotShareable> {
        sign(pod)
    }
}

impl PreFilter for VolumeRestrictions {
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        cluster: &Cache,
    ) -> Result<Relevance, Status> {
        let claims = self.exclusive_claims(&pod.pod)?;
        let users = claims.iter().flat_map(|claim| cluster.claim_users(pod.namespace(), claim));
        let nodes: Vec<Str> = users.cloned().collect();
        if nodes.is_empty() && !pod.pod.spec.volumes.iter().any(is_restricted) {
            return Ok(Relevance::Skip);
        }
        state.insert(Exclusive { claims, nodes });
        Ok(Relevance::EveryNode)
    }
}

impl Filter for VolumeRestrictions {
    fn filter(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Status> {
        if node.pods.iter().any(|placed| conflict(&pod.pod, &placed.pod)) {
            return Err(Status::unschedulable("node(s) had no available disk"));
        }
        let Some(exclusive) = state.get::<Exclusive>() else { return Ok(()) };
        // Users on this node are looked for in what is there: preemption asks what if they were not.
        let elsewhere = exclusive.nodes.iter().any(|user| *user != node.name);
        if elsewhere || node.pods.iter().any(|placed| uses(placed, pod.namespace(), &exclusive.claims)) {
            return Err(Status::unschedulable(
                "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use \
                 by another pod",
            ));
        }
        Ok(())
    }
}

fn uses(pod: &PodInfo, namespace: &str, claims: &[Str]) -> bool {
    pod.namespace() == namespace && named_claims(&pod.pod).any(|name| claims.contains(name))
}

fn is_restricted(volume: &Volume) -> bool {
    volume.gce_persistent_disk.is_some()
        || volume.aws_elastic_block_store.is_some()
        || volume.rbd.is_some()
        || volume.iscsi.is_some()
}

/// Some disk of the one is a disk of the other, and not both only read it.
fn conflict(pod: &Pod, placed: &Pod) -> bool {
    let restricted = pod.spec.volumes.iter().filter(|volume| is_restricted(volume));
    restricted.into_iter().any(|volume| placed.spec.volumes.iter().any(|other| is_same_disk(volume, other)))
}

fn is_same_disk(a: &Volume, b: &Volume) -> bool {
    if let (Some(a), Some(b)) = (&a.gce_persistent_disk, &b.gce_persistent_disk)
        && a.pd_name == b.pd_name
        && !(a.read_only && b.read_only)
    {
        return true;
    }
    if let (Some(a), Some(b)) = (&a.aws_elastic_block_store, &b.aws_elastic_block_store)
        && a.volume_id == b.volume_id
    {
        return true;
    }
    if let (Some(a), Some(b)) = (&a.iscsi, &b.iscsi)
        && a.iqn == b.iqn
        && !(a.read_only && b.read_only)
    {
        return true;
    }
    matches!((&a.rbd, &b.rbd), (Some(a), Some(b))
        if a.monitors.iter().any(|monitor| b.monitors.contains(monitor))
            && (&a.pool, &a.image) == (&b.pool, &b.image)
            && !(a.read_only && b.read_only))
}

impl EnqueueExtensions for VolumeRestrictions {
    fn events(&self) -> EventSet {
        EventSet::POD_DELETE.with(EventSet::NODE_ADD).with(EventSet::PERSISTENT_VOLUME_CLAIM)
    }

    fn hint(&self, pod: &PodInfo, event: &Event<'_>) -> Hint {
        let own = &pod.pod;
        let helps = match event {
            Event::NodeAdded(_) => true,
            Event::AssignedPodDeleted(gone) => {
                gone.namespace() == pod.namespace()
                    && (conflict(own, &gone.pod)
                        || named_claims(&gone.pod).any(|name| named_claims(own).any(|claim| claim == name)))
            }
            event => {
                let change = Change::<PersistentVolumeClaim>::of(event, &PERSISTENT_VOLUME_CLAIMS);
                change.and_then(Change::added).is_some_and(|claim| {
                    claim.metadata.namespace == *pod.namespace()
                        && named_claims(own).any(|name| *name == claim.metadata.name)
                })
            }
        };
        if helps { Hint::Queue } else { Hint::Skip }
    }
}
