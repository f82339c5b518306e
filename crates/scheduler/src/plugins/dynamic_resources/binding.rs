//! What is written about claims: allocations and reservations before a pod is bound, and their end when it is not.

use std::sync::Arc;
use std::time::Duration;

use api::gvr::{PODS, RESOURCE_CLAIMS};
use api::view::{AllocatedDeviceStatus, DeviceRequestAllocationResult, ResourceClaim};
use apimachinery::{Object, Status, Value, json, time};
use client::{Api, DeleteOptions, Patch, WriteOptions};
use jiff::Timestamp;
use tracing::info;

use super::extended::IN_MEMORY;
use crate::pod::PodInfo;

/// Keeps a claim while it is allocated.
pub const FINALIZER: &str = "resource.kubernetes.io/delete-protection";

/// Attempts when somebody else writes at the same time; upstream's.
const ATTEMPTS: usize = 5;

pub const BINDING_TIMEOUT: &str = "device binding timeout";
pub const BINDING_FAILED: &str = "device binding failed";

/// Enters a pod in a claim, with the allocation if it has none.
pub async fn bind(
    api: &Arc<dyn Api>,
    claim: &Object,
    allocation: Option<&Value>,
    pod: &PodInfo,
) -> Result<Arc<Object>, String> {
    let (namespace, name) = (claim.namespace(), claim.name());
    let mut tree = claim.to_value();
    for attempt in 1..=ATTEMPTS {
        match try_bind(api, tree, allocation, pod).await {
            Err(Refusal::Written(status, _)) if status.is_conflict() && attempt < ATTEMPTS => {}
            Err(Refusal::Written(status, what)) => {
                return Err(format!("{what} claim {namespace}/{name}: {status}"));
            }
            Err(Refusal::Meanwhile(what)) => {
                return Err(format!("claim {namespace}/{name} got {what} in the meantime"));
            }
            Ok(written) => return Ok(written),
        }
        let current = api.get(&RESOURCE_CLAIMS, namespace, name).await;
        tree = current
            .map_err(|status| format!("get updated claim {namespace}/{name} after conflict: {status}"))?
            .to_value();
    }
    unreachable!("the last attempt returns")
}

/// Why a claim was not written.
enum Refusal {
    /// With what was tried.
    Written(Status, &'static str),
    /// What has happened to it.
    Meanwhile(&'static str),
}

async fn try_bind(
    api: &Arc<dyn Api>,
    mut tree: Value,
    allocation: Option<&Value>,
    pod: &PodInfo,
) -> Result<Arc<Object>, Refusal> {
    if tree.at(&["metadata", "deletionTimestamp"]).is_some() {
        return Err(Refusal::Meanwhile("deleted"));
    }
    let is_allocated = tree.at(&["status", "allocation"]).is_some();
    if let Some(allocation) = allocation {
        if is_allocated {
            return Err(Refusal::Meanwhile("allocated elsewhere"));
        }
        if add_finalizer(&mut tree) {
            let written = update(api, None, tree).await;
            tree = written.map_err(|status| Refusal::Written(status, "add finalizer to"))?.to_value();
        }
        tree.set_at(&["status", "allocation"], allocation.clone());
    } else if !is_allocated {
        return Err(Refusal::Meanwhile("deallocated elsewhere"));
    }
    reserve(&mut tree, pod, rt::now());
    let what = match allocation {
        Some(_) => "add allocation and reservation to",
        None => "add reservation to",
    };
    update(api, Some("status"), tree).await.map_err(|status| Refusal::Written(status, what))
}

/// True when it was missing.
fn add_finalizer(claim: &mut Value) -> bool {
    let mut finalizers = claim.array_at(&["metadata", "finalizers"]).to_vec();
    let is_new = finalizers.iter().all(|own| own.as_str() != Some(FINALIZER));
    if is_new {
        finalizers.push(FINALIZER.into());
        claim.set_at(&["metadata", "finalizers"], finalizers);
    }
    is_new
}

fn reserve(claim: &mut Value, pod: &PodInfo, now: Timestamp) {
    let mut reserved = claim.array_at(&["status", "reservedFor"]).to_vec();
    reserved.push(json!({"resource": "pods", "name": pod.name().as_str(), "uid": pod.uid().as_str()}));
    claim.set_at(&["status", "reservedFor"], reserved);
    let timestamp = ["status", "allocation", "allocationTimestamp"];
    if claim.at(&timestamp).is_none() {
        claim.set_at(&timestamp, time::format_seconds(now));
    }
}

async fn update(api: &Arc<dyn Api>, subresource: Option<&str>, tree: Value) -> Result<Arc<Object>, Status> {
    let metadata = |field: &str| tree.str_at(&["metadata", field]).to_owned();
    let (namespace, name) = (metadata("namespace"), metadata("name"));
    let options = WriteOptions::default();
    api.update(&RESOURCE_CLAIMS, &namespace, &name, subresource, tree, &options).await
}

/// Makes the claim for extended resources that existed in memory.
pub async fn create_extended(api: &Arc<dyn Api>, claim: &Object) -> Result<Arc<Object>, String> {
    let mut tree = claim.to_value();
    for field in ["name", "uid", "resourceVersion"] {
        tree.remove_at(&["metadata", field]);
    }
    let (namespace, options) = (claim.namespace(), WriteOptions::default());
    let created = api.create(&RESOURCE_CLAIMS, namespace, tree, &options).await;
    created.map_err(|status| format!("create claim for extended resources {namespace}/{IN_MEMORY}: {status}"))
}

/// Says in the pod's status which claim serves its extended resources.
pub async fn show_extended(
    api: &Arc<dyn Api>,
    pod: &PodInfo,
    claim: &Object,
    mappings: &[Value],
) -> Result<(), String> {
    let mut shown = json!({"resourceClaimName": claim.name()});
    shown.set_at(&["requestMappings"], mappings.to_vec());
    let mut patch = json!({"metadata": {"uid": pod.uid().as_str()}});
    patch.set_at(&["status", "extendedResourceClaimStatus"], shown);
    let (namespace, name) = (pod.namespace(), pod.name());
    let options = WriteOptions::default();
    let patched = api.patch(&PODS, namespace, name, Some("status"), Patch::Strategic(patch), &options).await;
    patched
        .map(drop)
        .map_err(|status| format!("update pod {namespace}/{name} ExtendedResourceClaimStatus: {status}"))
}

/// Takes a pod out of a claim that it was entered in.
pub async fn unreserve(api: Arc<dyn Api>, claim: Arc<Object>, pod: apimachinery::Str) {
    let mut patch = json!({"metadata": {"uid": claim.uid()}});
    patch.set_at(&["status", "reservedFor"], vec![json!({"$patch": "delete", "uid": pod.as_str()})]);
    let (namespace, name) = (claim.namespace(), claim.name());
    let options = WriteOptions::default();
    let patch = Patch::Strategic(patch);
    let result = api.patch(&RESOURCE_CLAIMS, namespace, name, Some("status"), patch, &options).await;
    if let Err(error) = result {
        // The claim's controller takes the pod out when it is done.
        info!(namespace, name, %error, "Could not unreserve a claim");
    }
}

/// Takes the devices away from a claim that nobody uses.
pub async fn deallocate(api: Arc<dyn Api>, claim: Arc<Object>) {
    let mut tree = claim.to_value();
    for field in ["allocation", "reservedFor", "devices"] {
        tree.remove_at(&["status", field]);
    }
    if let Err(error) = update(&api, Some("status"), tree).await {
        // The pod is tried again, and finds the claim as it was.
        info!(namespace = claim.namespace(), name = claim.name(), %error, "Could not deallocate a claim");
    }
}

/// Deletes the claim for extended resources of a pod that was not bound.
pub async fn delete_extended(api: Arc<dyn Api>, claim: Arc<Object>) {
    if let Err(error) = try_delete(&api, &claim).await {
        // The pod's end deletes it as well.
        info!(namespace = claim.namespace(), name = claim.name(), %error, "Could not delete a claim");
    }
}

async fn try_delete(api: &Arc<dyn Api>, claim: &Object) -> Result<(), Status> {
    let (namespace, name) = (claim.namespace(), claim.name());
    let mut tree = claim.to_value();
    for attempt in 1..=ATTEMPTS {
        let mut finalizers = tree.array_at(&["metadata", "finalizers"]).to_vec();
        finalizers.retain(|own| own.as_str() != Some(FINALIZER));
        tree.set_at(&["metadata", "finalizers"], finalizers);
        match update(api, None, tree).await {
            Err(status) if status.is_conflict() && attempt < ATTEMPTS => {}
            result => {
                result?;
                break;
            }
        }
        tree = api.get(&RESOURCE_CLAIMS, namespace, name).await?.to_value();
    }
    let options = DeleteOptions::of(claim);
    api.delete(&RESOURCE_CLAIMS, namespace, name, &options).await
}

// === binding conditions ===

/// Devices of a claim that have to be made ready.
pub fn has_binding_conditions(claim: &ResourceClaim) -> bool {
    results(claim).any(|result| !result.binding_conditions.is_empty())
}

/// Whether all devices of a claim have been made ready; an error when that has failed.
pub fn is_ready(claim: &ResourceClaim) -> Result<bool, String> {
    for result in results(claim).filter(|result| !result.binding_conditions.is_empty()) {
        let own =
            |device: &&AllocatedDeviceStatus| result.is_of(&device.driver, &device.pool, &device.device);
        let Some(device) = claim.status.devices.iter().find(own) else { return Ok(false) };
        let holds = |name: &str| {
            device.conditions.iter().find(|condition| condition.type_ == name && condition.is_true())
        };
        if let Some(failed) = result.binding_failure_conditions.iter().find_map(|name| holds(name)) {
            return Err(format!(
                "{BINDING_FAILED}: claim={}, reason={}, message={:?}",
                claim.metadata.name,
                failed.reason,
                failed.message.as_str()
            ));
        }
        if !result.binding_conditions.iter().all(|name| holds(name).is_some()) {
            return Ok(false);
        }
    }
    Ok(claim.status.allocation.is_some())
}

/// Whether it has taken too long to make a claim's devices ready.
pub fn is_overdue(claim: &ResourceClaim, timeout: Duration, now: Timestamp) -> bool {
    has_binding_conditions(claim) && ready_until(claim, timeout).is_some_and(|until| until < now)
}

/// By when a claim's devices are to be ready.
pub fn ready_until(claim: &ResourceClaim, timeout: Duration) -> Option<Timestamp> {
    let since = claim.status.allocation.as_ref()?.allocation_timestamp.as_ref()?;
    time::parse(since)?.checked_add(timeout).ok()
}

fn results(claim: &ResourceClaim) -> impl Iterator<Item = &DeviceRequestAllocationResult> {
    claim.status.allocation.iter().flat_map(|allocation| &allocation.devices.results)
}
