//! Which volume serves which claim on which node, and what claims and volumes say to each other in annotations.
//!
//! The binder decides by it for claims that are bound at once, the scheduler for those that wait for their consumer.
//! The rules are those of upstream's `component-helpers/storage`.

pub mod in_tree;

use apimachinery::selector::SelectorError;
use apimachinery::{Object, Quantity, Selector, Str, Value, json};

use crate::placement;
use crate::view::{
    PersistentVolume, PersistentVolumeClaim, Pod, StringMap, TopologySelectorTerm, Volume, VolumeNodeAffinity,
};

/// Of a claim that was bound once; without its volume it is lost.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";

/// Of either side, where not a user but the binder or the scheduler chose the other one.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";

/// Of a volume that was made for a claim: by whom.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";

/// Of a claim that waits for its consumer: the node of the first one, where its volume shall be made.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// Who shall make a claim's volume, also under its older name.
pub const STORAGE_PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
pub const STORAGE_PROVISIONER_BETA: &str = "volume.beta.kubernetes.io/storage-provisioner";

/// The provisioner of classes whose volumes are made by hand.
pub const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// The name of the claim that a pod's volume is of, if it is of one.
pub fn claim_name(pod: &str, volume: &Volume) -> Option<Str> {
    match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(claim), _) => Some(claim.claim_name.clone()),
        (None, Some(_)) => Some(own_claim(pod, &volume.name).into()),
        (None, None) => None,
    }
}

/// The name of the claim that is made for a pod's ephemeral volume.
pub fn own_claim(pod: &str, volume: &str) -> String {
    format!("{pod}-{volume}")
}

/// The claim was made for this pod, which its name alone does not prove.
pub fn is_own_claim(claim: &PersistentVolumeClaim, pod: &Pod) -> bool {
    claim.metadata.namespace == pod.metadata.namespace
        && claim.metadata.controller().is_some_and(|owner| owner.uid == pod.metadata.uid)
}

/// Claim and volume know each other for good.
pub fn is_fully_bound(claim: &PersistentVolumeClaim) -> bool {
    !claim.spec.volume_name.is_empty() && claim.metadata.annotations.contains_key(BIND_COMPLETED)
}

/// Whether the volume names the claim; without a uid it names whoever has the name.
pub fn is_reserved_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    volume.spec.claim_ref.as_ref().is_some_and(|reference| {
        reference.name == claim.metadata.name
            && reference.namespace == claim.metadata.namespace
            && (reference.uid.is_empty() || reference.uid == claim.metadata.uid)
    })
}

/// The volume is large enough, of the right form and here to stay.
pub fn suits(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    volume.capacity() >= claim.requested()
        && volume.mode() == claim.mode()
        && volume.attributes_class() == claim.attributes_class()
        && volume.metadata.deletion_timestamp.is_none()
}

pub fn has_access_modes(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    claim.spec.access_modes.iter().all(|mode| volume.spec.access_modes.contains(mode))
}

/// Nobody has the volume, and the claim asks for one like it. `selector` is the claim's.
pub fn is_free_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim, selector: &Selector) -> bool {
    volume.spec.claim_ref.is_none()
        && volume.status.phase == "Available"
        && selector.matches(|key| volume.metadata.labels.get(key).map(Str::as_str))
        && volume.class() == claim.class()
}

/// Selects everything when the claim has none.
pub fn selector(claim: &PersistentVolumeClaim) -> Result<Selector, SelectorError> {
    claim.spec.selector.as_ref().map_or_else(|| Ok(Selector::default()), |selector| selector.selector())
}

/// The node with these labels can reach a volume of this affinity.
pub fn is_reachable(affinity: Option<&VolumeNodeAffinity>, labels: &StringMap) -> bool {
    let required = affinity.and_then(|affinity| affinity.required.as_ref());
    required.is_none_or(|required| {
        required.node_selector_terms.iter().any(|term| placement::matches_labels(term, labels))
    })
}

/// Volumes of a class with these topologies can be made for a node with these labels.
pub fn is_allowed(topologies: &[TopologySelectorTerm], labels: &StringMap) -> bool {
    let holds = |term: &TopologySelectorTerm| {
        let expressions = &term.match_label_expressions;
        !expressions.is_empty()
            && expressions
                .iter()
                .all(|wanted| labels.get(&wanted.key).is_some_and(|value| wanted.values.contains(value)))
    };
    topologies.is_empty() || topologies.iter().any(holds)
}

/// The volume for a claim on a node, among those of its class that pass `is_left`: the one that names it, if the node
/// can reach that, else the smallest that is free and fits.
pub fn match_on_node<'a, V: AsRef<PersistentVolume>>(
    claim: &PersistentVolumeClaim,
    volumes: &'a [V],
    labels: &StringMap,
    is_left: impl Fn(&PersistentVolume) -> bool,
) -> Option<&'a V> {
    let selector = selector(claim).ok()?;
    let mut smallest: Option<(Quantity, &V)> = None;
    for candidate in volumes {
        let volume = candidate.as_ref();
        if !is_left(volume) || !suits(volume, claim) {
            continue;
        }
        let reachable = || is_reachable(volume.spec.node_affinity.as_ref(), labels);
        if is_reserved_for(volume, claim) {
            return reachable().then_some(candidate);
        }
        let capacity = volume.capacity();
        if smallest.as_ref().is_none_or(|(least, _)| capacity < *least)
            && is_free_for(volume, claim, &selector)
            && has_access_modes(volume, claim)
            && reachable()
        {
            smallest = Some((capacity, candidate));
        }
    }
    smallest.map(|(_, volume)| volume)
}

/// Makes a volume name its claim; false when it does. That no user chose it is noted, so that it can be taken back.
pub fn name_claim(volume: &mut Value, claim: &Object) -> bool {
    let reference = &volume["spec"]["claimRef"];
    let names =
        reference.str_at(&["name"]) == claim.name() && reference.str_at(&["namespace"]) == claim.namespace();
    let uid = reference.str_at(&["uid"]);
    if names && uid == claim.uid() {
        return false;
    }
    let reserved = names && uid.is_empty();
    if !reserved && volume.at(&["metadata", "annotations", BOUND_BY_CONTROLLER]).is_none() {
        volume.set_at(&["metadata", "annotations", BOUND_BY_CONTROLLER], "yes");
    }
    let reference = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": claim.namespace(), "name": claim.name(),
        "uid": claim.uid(), "resourceVersion": claim.revision().to_string(),
    });
    volume.set_at(&["spec", "claimRef"], reference);
    true
}

#[cfg(test)]
mod tests;
