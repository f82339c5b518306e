//! What controllers ask about pods and their PersistentVolumeClaims.

use api::view::Pod;
use api::volumes::claim_name;
use apimachinery::{Object, Str};
use client::{Informer, ObjectKey};

/// Index of pods by `namespace/name` of the claims they may use.
pub const BY_CLAIM: &str = "claim";

/// Declares [`BY_CLAIM`].
pub fn index_by_claim(pods: &Informer) {
    pods.add_index(BY_CLAIM, |pod| claims_of(pod).iter().map(|key| Str::from(key.to_string())).collect());
}

/// The claims that a pod names, and those made for its own volumes.
pub fn claims_of(pod: &Object) -> Vec<ObjectKey> {
    let Ok(view) = pod.view::<Pod>() else { return Vec::new() };
    let names = view.spec.volumes.iter().filter_map(|volume| claim_name(pod.name(), volume));
    names.map(|name| ObjectKey::new(pod.namespace(), &name)).collect()
}
