//! [`Claims`]: the claims that are known, and the devices that are promised but not yet seen as given.
//!
//! A device is taken from `Reserve` on. When the allocation has been written, the promise stands until the claim is
//! seen in the state that was written, or a later one: until then the claim as it is known would say that the devices
//! are free.
//!
//! **Invariant (counted-once):** what is counted in [`Allocated`] for a claim is its promise, else the allocation in its
//! last known status.

use std::collections::HashMap;
use std::sync::Arc;

use api::view::{AllocationResult, Pod, ResourceClaim};
use apimachinery::{Object, Str};
use client::ObjectKey;

use super::allocated::Allocated;

/// Marks a claim that stands for the extended resources of a pod.
pub const EXTENDED_ANNOTATION: &str = "resource.kubernetes.io/extended-resource-claim";

#[derive(Debug, Default)]
pub struct Claims {
    known: HashMap<ObjectKey, Arc<Object>>,
    by_uid: HashMap<Str, ObjectKey>,
    /// Claims for extended resources, by their pod.
    extended: HashMap<Str, ObjectKey>,
    promised: HashMap<Str, Promise>,
    /// By claim, what is counted.
    counted: HashMap<Str, Arc<AllocationResult>>,
    pub allocated: Allocated,
}

#[derive(Debug)]
struct Promise {
    allocation: Arc<AllocationResult>,
    /// The claim's revision once the allocation has been written.
    written: Option<u64>,
}

// === impl Claims ===

impl Claims {
    /// A claim appeared or changed.
    pub fn observe(&mut self, claim: &Arc<Object>) {
        let key = ObjectKey::from(&**claim);
        if let Some(pod) = owner_by_extended_resources(claim) {
            self.extended.insert(pod.into(), key.clone());
        }
        self.by_uid.insert(claim.uid().into(), key.clone());
        let old = self.known.insert(key, claim.clone());
        if let Some(old) = old.filter(|old| old.uid() != claim.uid()) {
            self.forget_uid(&old);
        }
        self.settle(claim.uid());
    }

    pub fn forget(&mut self, key: &ObjectKey) {
        if let Some(old) = self.known.remove(key) {
            self.forget_uid(&old);
        }
    }

    /// Names of the claims that are known.
    pub fn keys(&self) -> Vec<ObjectKey> {
        self.known.keys().cloned().collect()
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<&Arc<Object>> {
        self.known.get(&ObjectKey::new(namespace, name))
    }

    /// The claim that was made for a pod's extended resources.
    pub fn for_extended_resources_of(&self, pod: &Pod) -> Option<&Arc<Object>> {
        self.known.get(self.extended.get(&pod.metadata.uid)?)
    }

    /// Devices are taken for a claim whose status does not say so yet.
    pub fn promise(&mut self, uid: Str, allocation: Arc<AllocationResult>) {
        self.promised.insert(uid.clone(), Promise { allocation, written: None });
        self.recount(&uid);
    }

    pub fn is_promised(&self, uid: &str) -> bool {
        self.promised.contains_key(uid)
    }

    /// A claim that existed only in memory is there now, under a uid of its own.
    pub fn rename(&mut self, old: &str, new: &Str) {
        if let Some(promise) = self.promised.remove(old) {
            self.promised.insert(new.clone(), promise);
            self.recount(new);
            self.recount(old);
        }
    }

    /// The promise was kept: the claim says so from this revision on.
    pub fn kept(&mut self, uid: &str, revision: u64) {
        if let Some(promise) = self.promised.get_mut(uid) {
            promise.written = Some(revision);
        }
        self.settle(uid);
    }

    /// The devices are free again, unless the promise was kept.
    pub fn withdraw(&mut self, uid: &str) {
        if self.promised.get(uid).is_some_and(|promise| promise.written.is_none()) {
            self.promised.remove(uid);
            self.recount(uid);
        }
    }

    /// A promise that can be seen to be kept is none any more.
    fn settle(&mut self, uid: &str) {
        let seen = self.known_by_uid(uid).map_or(0, |claim| claim.revision());
        let is_kept = |promise: &Promise| promise.written.is_some_and(|written| written <= seen);
        if self.promised.get(uid).is_some_and(is_kept) {
            self.promised.remove(uid);
        }
        self.recount(uid);
    }

    fn recount(&mut self, uid: &str) {
        let promised = self.promised.get(uid).map(|promise| promise.allocation.clone());
        let wanted = promised.or_else(|| allocation_of(self.known_by_uid(uid)?).map(Arc::new));
        let old = self.counted.get(uid);
        if old.map(|old| &**old) == wanted.as_deref() {
            return;
        }
        if let Some(old) = self.counted.remove(uid) {
            self.allocated.remove(&old);
        }
        if let Some(wanted) = wanted {
            self.allocated.add(&wanted);
            self.counted.insert(uid.into(), wanted);
        }
    }

    fn forget_uid(&mut self, claim: &Object) {
        if let Some(pod) = owner_by_extended_resources(claim) {
            self.extended.remove(pod);
        }
        self.by_uid.remove(claim.uid());
        self.promised.remove(claim.uid());
        self.recount(claim.uid());
    }

    fn known_by_uid(&self, uid: &str) -> Option<&Arc<Object>> {
        self.known.get(self.by_uid.get(uid)?)
    }
}

fn allocation_of(claim: &Object) -> Option<AllocationResult> {
    claim.view::<ResourceClaim>().ok()?.status.allocation.clone()
}

/// The uid of the pod whose extended resources a claim stands for.
fn owner_by_extended_resources(claim: &Object) -> Option<&str> {
    let view = claim.view::<ResourceClaim>().ok()?;
    let is_marked = view.metadata.annotations.get(EXTENDED_ANNOTATION).is_some_and(|value| value == "true");
    claim.controller_owner().filter(|_| is_marked).map(|owner| owner.uid)
}
