//! `persistentVolumeClaimRetentionPolicy`: whose deletion takes a claim with it, said by owner references. Pure.
//!
//! | whenScaled | whenDeleted | the pod is in range | its claims are owned by |
//! |---|---|---|---|
//! | Retain | Retain | | nobody |
//! | Retain | Delete | | the set |
//! | Delete | Retain | yes | nobody |
//! | Delete | Retain | no | the pod |
//! | Delete | Delete | yes | the set |
//! | Delete | Delete | no | the pod |

use api::view::PersistentVolumeClaimRetentionPolicy;
use apimachinery::object::OwnerReference;
use apimachinery::{Object, Value, json};

/// A set and a pod of it, as far as their claims are concerned.
pub(super) struct Owners<'a> {
    pub(super) set: &'a Object,
    pub(super) pod_name: &'a str,
    /// Empty while there is no pod.
    pub(super) pod_uid: &'a str,
    pub(super) policy: &'a PersistentVolumeClaimRetentionPolicy,
    pub(super) in_range: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Nobody,
    Set,
    Pod,
}

// === impl Owners ===

impl Owners<'_> {
    fn wanted(&self) -> Owner {
        let (scaled, deleted) = (deletes(&self.policy.when_scaled), deletes(&self.policy.when_deleted));
        match (scaled, deleted, self.in_range) {
            (true, _, false) => Owner::Pod,
            (_, true, _) => Owner::Set,
            _ => Owner::Nobody,
        }
    }

    fn names_set(&self, owner: &OwnerReference<'_>) -> bool {
        owner.api_version == "apps/v1" && owner.kind == "StatefulSet" && owner.name == self.set.name()
    }

    fn names_pod(&self, owner: &OwnerReference<'_>) -> bool {
        owner.api_version == "v1" && owner.kind == "Pod" && owner.name == self.pod_name
    }

    /// The claim was of an earlier set or pod of the same name, and goes with that.
    fn is_of_predecessor(&self, claim: &Object) -> bool {
        let set = claim.owners().find(|owner| self.names_set(owner));
        set.is_some_and(|owner| owner.uid != self.set.uid()) || self.is_of_earlier_pod(claim)
    }

    /// The claim goes with an earlier pod of the same name.
    pub(super) fn is_of_earlier_pod(&self, claim: &Object) -> bool {
        let pod = claim.owners().find(|owner| self.names_pod(owner));
        pod.is_some_and(|owner| owner.uid != self.pod_uid)
    }

    /// Somebody else controls the claim, while the policy would have it controlled by the set or the pod.
    pub(super) fn has_conflict(&self, claim: &Object) -> bool {
        if !deletes(&self.policy.when_scaled) && !deletes(&self.policy.when_deleted) {
            return false;
        }
        claim.owners().any(|owner| {
            if self.names_set(&owner) {
                owner.uid != self.set.uid()
            } else if self.names_pod(&owner) {
                owner.uid != self.pod_uid
            } else {
                owner.controller
            }
        })
    }

    /// The claim's owners are as the policy has them, or nothing that is touched here.
    pub(super) fn are_right(&self, claim: &Object) -> bool {
        let of_set = claim.owners().any(|owner| owner.uid == self.set.uid());
        let of_pod = claim.owners().any(|owner| owner.uid == self.pod_uid);
        if self.is_of_predecessor(claim) {
            return true;
        }
        if self.has_conflict(claim) {
            return !of_set && !of_pod;
        }
        let ours = |owner: &OwnerReference<'_>| owner.uid == self.set.uid() || owner.uid == self.pod_uid;
        let wanted = self.wanted();
        claim.owners().filter(ours).all(|owner| owner.controller)
            && of_set == (wanted == Owner::Set)
            && of_pod == (wanted == Owner::Pod)
    }

    /// The `metadata.ownerReferences` that the claim is to have; others' stay.
    pub(super) fn references(&self, claim: &Object) -> Vec<Value> {
        let tree = claim.metadata_value();
        let pairs = tree.array_at(&["ownerReferences"]).iter().zip(claim.owners());
        let others = pairs.filter(|(_, owner)| !self.names_set(owner) && !self.names_pod(owner));
        let mut references: Vec<Value> = others.map(|(reference, _)| reference.clone()).collect();
        if !self.has_conflict(claim) {
            references.extend(self.own_reference());
        }
        references
    }

    fn own_reference(&self) -> Option<Value> {
        let (api_version, kind, name, uid) = match self.wanted() {
            Owner::Nobody => return None,
            Owner::Set => ("apps/v1", "StatefulSet", self.set.name(), self.set.uid()),
            Owner::Pod => ("v1", "Pod", self.pod_name, self.pod_uid),
        };
        Some(json!({"apiVersion": api_version, "kind": kind, "name": name, "uid": uid,
            "controller": true, "blockOwnerDeletion": true}))
    }
}

pub(super) fn deletes(when: &str) -> bool {
    when == "Delete"
}
