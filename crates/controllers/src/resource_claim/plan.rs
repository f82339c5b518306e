//! Which claims a pod has and whom a claim is kept for. Pure.

use api::view::{Pod, PodResourceClaim};
use apimachinery::{Object, Str, Value, json};
use client::ObjectKey;

use crate::ownership;

/// Says for which entry of `spec.resourceClaims` a claim was made.
pub(super) const POD_CLAIM: &str = "resource.kubernetes.io/pod-claim-name";
/// Keeps a claim while it is allocated.
pub(super) const FINALIZER: &str = "resource.kubernetes.io/delete-protection";

/// What stands behind an entry of `spec.resourceClaims`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// Somebody made it and named it in the pod.
    ByUser(Str),
    /// Made for the pod from a template.
    Made(Str),
    /// There is a template, and nobody looked at it yet.
    NotYet,
    /// The template asks for nothing.
    NotNeeded,
}

/// `status` is the pod's `status.resourceClaimStatuses`.
pub(super) fn named(entry: &PodResourceClaim, status: &[Value]) -> Named {
    if !entry.resource_claim_name.is_empty() {
        return Named::ByUser(entry.resource_claim_name.clone());
    }
    match status.iter().find(|own| own.str_at(&["name"]) == entry.name.as_str()) {
        None => Named::NotYet,
        Some(own) => match own.str_at(&["resourceClaimName"]) {
            "" => Named::NotNeeded,
            name => Named::Made(name.into()),
        },
    }
}

/// Entries with what stands behind them.
pub(super) fn entries(pod: &Object) -> Vec<(PodResourceClaim, Named)> {
    let Ok(view) = pod.view::<Pod>() else { return Vec::new() };
    if view.spec.resource_claims.is_empty() {
        return Vec::new();
    }
    let tree = pod.to_value();
    let status = tree.array_at(&["status", "resourceClaimStatuses"]);
    view.spec.resource_claims.iter().map(|entry| (entry.clone(), named(entry, status))).collect()
}

/// The claims that a pod has by now.
pub(super) fn claims_of(pod: &Object) -> Vec<ObjectKey> {
    let names = entries(pod).into_iter().filter_map(|(_, named)| match named {
        Named::ByUser(name) | Named::Made(name) => Some(ObjectKey::new(pod.namespace(), &name)),
        Named::NotYet | Named::NotNeeded => None,
    });
    names.collect()
}

/// The templates that a pod names.
pub(super) fn templates_of(pod: &Object) -> Vec<ObjectKey> {
    let Ok(view) = pod.view::<Pod>() else { return Vec::new() };
    let names = view.spec.resource_claims.iter().map(|entry| &entry.resource_claim_template_name);
    names.filter(|name| !name.is_empty()).map(|name| ObjectKey::new(pod.namespace(), name)).collect()
}

/// Will not run any more, or never.
pub(super) fn is_done(pod: &Object) -> bool {
    pod.view::<Pod>()
        .is_ok_and(|view| view.is_terminal() || pod.is_deleting() && view.spec.node_name.is_empty())
}

/// A claim must be the pod's own before it is used as one.
pub(super) fn check_owner(pod: &Object, claim: &Object) -> Result<(), String> {
    if ownership::is_controlled_by(claim, pod.uid()) {
        return Ok(());
    }
    let (claim, pod) = (ObjectKey::from(claim), ObjectKey::from(pod));
    Err(format!("ResourceClaim {claim} was not created for Pod {pod} (Pod is not owner)"))
}

/// The claim that a template describes.
pub(super) fn claim_for(pod: &Object, entry: &str, template: &Value) -> Value {
    let mut claim = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
        "metadata": {"generateName": name_prefix(pod.name(), entry)},
    });
    for field in ["annotations", "labels"] {
        if let Some(value) = template.at(&["spec", "metadata", field]) {
            claim.set_at(&["metadata", field], value.clone());
        }
    }
    claim.set_at(&["metadata", "annotations", POD_CLAIM], entry);
    claim.set_at(&["metadata", "ownerReferences"], vec![ownership::controller_reference(pod)]);
    claim.set_at(&["spec"], template["spec"]["spec"].clone());
    claim
}

/// Leaves room for the five characters that are added: both names give in proportion.
fn name_prefix(pod: &str, entry: &str) -> String {
    const LEN_MAX: usize = 57;
    let prefix = format!("{pod}-{entry}-");
    if prefix.len() <= LEN_MAX {
        return prefix;
    }
    let part = |name: &str| name[..name.len() * LEN_MAX / prefix.len()].to_owned();
    format!("{}-{}", part(pod), part(entry))
}

/// Whether a pod on a node still has to be entered in its allocated claim.
pub(super) fn needs_reservation(pod: &Object, claim: &Value) -> bool {
    claim.at(&["status", "allocation"]).is_some()
        && !claim.array_at(&["status", "reservedFor"]).iter().any(|own| own.str_at(&["uid"]) == pod.uid())
}

/// Adds a pod to those that a claim is kept for.
pub(super) fn reserve(pod: &Object, claim: &mut Value) {
    let mut reserved = claim.array_at(&["status", "reservedFor"]).to_vec();
    reserved.push(json!({"resource": "pods", "name": pod.name(), "uid": pod.uid()}));
    claim.set_at(&["status", "reservedFor"], reserved);
}

/// Takes those out of a claim for whom `is_gone`, and the allocation when nobody is left; false when all stay.
pub(super) fn release(claim: &mut Value, is_gone: impl Fn(&Value) -> bool) -> bool {
    let before = claim.array_at(&["status", "reservedFor"]).to_vec();
    let after: Vec<Value> = before.iter().filter(|own| !is_gone(own)).cloned().collect();
    let (shrunk, empty) = (after.len() < before.len(), after.is_empty());
    if shrunk {
        match empty {
            true => drop(claim.remove_at(&["status", "reservedFor"])),
            false => claim.set_at(&["status", "reservedFor"], after),
        }
    }
    let deleting = claim.at(&["metadata", "deletionTimestamp"]).is_some();
    if empty && (shrunk || deleting) && has_finalizer(claim) {
        return claim.remove_at(&["status", "allocation"]).is_some() || shrunk;
    }
    shrunk
}

/// Takes the finalizer off a claim that has no allocation; `was_released` says that it has lost it just now.
pub(super) fn unprotect(claim: &mut Value, was_released: bool) -> bool {
    let deleting = claim.at(&["metadata", "deletionTimestamp"]).is_some();
    let in_use = claim.at(&["status", "allocation"]).is_some()
        || !claim.array_at(&["status", "reservedFor"]).is_empty();
    if in_use || !has_finalizer(claim) || !(was_released || deleting) {
        return false;
    }
    let finalizers = claim.array_at(&["metadata", "finalizers"]);
    let kept: Vec<Value> = finalizers.iter().filter(|own| own.as_str() != Some(FINALIZER)).cloned().collect();
    claim.set_at(&["metadata", "finalizers"], kept);
    true
}

fn has_finalizer(claim: &Value) -> bool {
    claim.array_at(&["metadata", "finalizers"]).iter().any(|own| own.as_str() == Some(FINALIZER))
}
