//! From volumes chosen for a node to claims that are bound: assume, write, wait.

use std::sync::Arc;

use api::gvr::{PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES};
use api::view::{
    ClaimReference, CsiNode, Node, ObjectMeta, PersistentVolume, PersistentVolumeClaim, StringMap,
};
use api::volumes::{SELECTED_NODE, is_fully_bound, name_claim};
use apimachinery::{GroupVersionResource, Object, Str, Value};
use client::{ObjectKey, WriteOptions};

use super::claims::{PodVolumes, WaitingClaim, is_reachable_from};
use super::{VolumeBinding, no_node};
use crate::pod::PodInfo;

/// What is to be written for a pod, and then to be waited for.
pub struct Reserved(Vec<Step>);

struct Step {
    what: What,
    claim: ObjectKey,
    /// The volume or claim to write, as it was when this was decided.
    object: Arc<Object>,
    /// As it shall be; `None` when it is so already.
    tree: Option<Value>,
    /// The version from which on the API shows it so.
    written: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    /// The volume names the claim.
    Bind,
    /// The claim names the node.
    Provision,
}

impl What {
    fn resource(self) -> GroupVersionResource {
        match self {
            Self::Bind => PERSISTENT_VOLUMES,
            Self::Provision => PERSISTENT_VOLUME_CLAIMS,
        }
    }
}

impl VolumeBinding {
    /// Keeps the volumes from other pods.
    pub(super) fn assume(&self, volumes: &PodVolumes<'_>, node: &str) -> Reserved {
        let mut steps = Vec::new();
        for (claim, volume) in &volumes.bindings {
            let mut tree = volume.object.to_value();
            let changes = name_claim(&mut tree, &claim.object);
            if changes {
                let reference = reference_to(&claim.view);
                let mut assumed = PersistentVolume::clone(&volume.view);
                assumed.spec.claim_ref = Some(reference);
                self.assumed_volumes.assume(&volume.object, assumed);
            }
            steps.push(Step::new(What::Bind, claim, volume.object.clone(), changes.then_some(tree)));
        }
        for claim in &volumes.provisions {
            let is_set = claim.view.metadata.annotations.get(SELECTED_NODE).is_some_and(|own| own == node);
            let tree = (!is_set).then(|| {
                let mut assumed = PersistentVolumeClaim::clone(&claim.view);
                assumed.metadata.annotations = with_node(&claim.view.metadata, node);
                self.assumed_claims.assume(&claim.object, assumed);
                let mut tree = claim.object.to_value();
                tree.set_at(&["metadata", "annotations", SELECTED_NODE], node);
                tree
            });
            steps.push(Step::new(What::Provision, claim, claim.object.clone(), tree));
        }
        Reserved(steps)
    }

    /// What was not written is free again. What was, the API shows, or soon will.
    pub(super) fn restore(&self, reserved: &Reserved) {
        for step in reserved.0.iter().filter(|step| step.written.is_none()) {
            match step.what {
                What::Bind => self.assumed_volumes.restore(&step.object),
                What::Provision => self.assumed_claims.restore(&step.object),
            }
        }
    }

    /// Writes what was assumed and waits until the binder has bound all claims.
    pub(super) async fn bind(
        &self,
        reserved: &mut Reserved,
        pod: &PodInfo,
        node: &str,
    ) -> Result<(), String> {
        for step in &mut reserved.0 {
            step.written = Some(self.write(step).await?);
        }
        let claims = reserved.0.iter().map(|step| Str::from(step.claim.to_string()));
        let waiter = self.waiters.wait_for(claims.chain([pod.uid().clone()]).collect());
        let bound = async {
            while !self.is_bound(reserved, pod, node)? {
                waiter.news().await;
            }
            Ok(())
        };
        let outcome = rt::timeout(self.bind_timeout, bound).await;
        outcome
            .unwrap_or_else(|_| Err("context deadline exceeded".to_owned()))
            .map_err(|why| format!("binding volumes: {why}"))
    }

    async fn write(&self, step: &mut Step) -> Result<u64, String> {
        let Some(tree) = step.tree.take() else { return Ok(step.object.revision()) };
        let (namespace, name) = (step.object.namespace(), step.object.name());
        let options = WriteOptions::default();
        let written = self.api.update(&step.what.resource(), namespace, name, None, tree, &options).await;
        written.map(|object| object.revision()).map_err(|status| status.message)
    }

    /// All claims are bound; an error when they never will be to these volumes, or nobody needs it any more.
    fn is_bound(&self, reserved: &Reserved, pod: &PodInfo, node: &str) -> Result<bool, String> {
        let known: Arc<Node> = self.nodes.get("", node).ok_or_else(|| no_node(node))?;
        let csi_node = self.csi_nodes.get::<CsiNode>("", node);
        let is_there =
            self.pods.object(pod.namespace(), pod.name()).is_some_and(|own| own.uid() == pod.uid());
        if !is_there {
            return Err(format!("pod does not exist any more: pod \"{}\" not found", pod.name()));
        }
        let labels = &known.metadata.labels;
        let reaches = |volume: &PersistentVolume| {
            if is_reachable_from(volume, labels, csi_node.as_deref()) {
                return Ok(());
            }
            Err(format!(
                "pv \"{}\" node affinity doesn't match node \"{node}\": no matching NodeSelectorTerms",
                volume.metadata.name
            ))
        };
        for step in &reserved.0 {
            let is_bound = match step.what {
                What::Bind => self.is_volume_bound(step, reaches)?,
                What::Provision => self.is_volume_made(step, node, reaches)?,
            };
            if !is_bound {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn is_volume_bound(
        &self,
        step: &Step,
        reaches: impl Fn(&PersistentVolume) -> Result<(), String>,
    ) -> Result<bool, String> {
        let name = step.object.name();
        let volume = self.volumes.object("", name);
        let volume = volume
            .ok_or_else(|| format!("failed to check binding: persistentvolumes \"{name}\" not found"))?;
        let claim = self.claims.object(&step.claim.namespace, &step.claim.name).ok_or_else(|| {
            format!("failed to check binding: persistentvolumeclaims \"{}\" not found", step.claim)
        })?;
        if !step.is_shown_by(&volume) {
            return Ok(false);
        }
        let volume: Arc<PersistentVolume> = volume.view().map_err(|error| error.to_string())?;
        reaches(&volume)?;
        if volume.spec.claim_ref.as_ref().is_none_or(|reference| reference.uid.is_empty()) {
            return Err(format!("ClaimRef got reset for pv \"{name}\""));
        }
        let claim: Arc<PersistentVolumeClaim> = claim.view().map_err(|error| error.to_string())?;
        Ok(is_fully_bound(&claim))
    }

    fn is_volume_made(
        &self,
        step: &Step,
        node: &str,
        reaches: impl Fn(&PersistentVolume) -> Result<(), String>,
    ) -> Result<bool, String> {
        let claim = self.claims.object(&step.claim.namespace, &step.claim.name).ok_or_else(|| {
            format!("failed to check provisioning pvc: persistentvolumeclaims \"{}\" not found", step.claim)
        })?;
        if !step.is_shown_by(&claim) {
            return Ok(false);
        }
        let claim: Arc<PersistentVolumeClaim> = claim.view().map_err(|error| error.to_string())?;
        if claim.metadata.annotations.is_empty() {
            return Err(format!("selectedNode annotation reset for PVC \"{}\"", claim.metadata.name));
        }
        // A provisioner that fails takes the annotation away: another node may do.
        if claim.metadata.annotations.get(SELECTED_NODE).is_none_or(|selected| selected != node) {
            return Err(format!("provisioning failed for PVC \"{}\"", claim.metadata.name));
        }
        if !claim.spec.volume_name.is_empty() {
            // The claim may be shown before its volume is.
            let volume: Option<Arc<PersistentVolume>> = self.volumes.get("", &claim.spec.volume_name);
            let Some(volume) = volume else { return Ok(false) };
            reaches(&volume)?;
        }
        Ok(is_fully_bound(&claim))
    }
}

impl Step {
    fn new(what: What, claim: &WaitingClaim, object: Arc<Object>, tree: Option<Value>) -> Self {
        Self { what, claim: ObjectKey::from(&*claim.object), object, tree, written: None }
    }

    fn is_shown_by(&self, object: &Object) -> bool {
        self.written.is_some_and(|written| object.revision() >= written)
    }
}

fn reference_to(claim: &PersistentVolumeClaim) -> ClaimReference {
    let ObjectMeta { namespace, name, uid, .. } = &claim.metadata;
    ClaimReference { namespace: namespace.clone(), name: name.clone(), uid: uid.clone() }
}

fn with_node(claim: &ObjectMeta, node: &str) -> StringMap {
    let own = claim.annotations.iter().map(|(key, value)| (key.clone(), value.clone()));
    own.chain([(Str::from(SELECTED_NODE), Str::from(node))]).collect()
}
