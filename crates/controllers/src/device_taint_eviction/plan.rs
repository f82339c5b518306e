//! When a claim's devices drive its pods away. Pure.

use std::sync::Arc;

use api::devices::tolerates;
use api::view::{DeviceTaint, DeviceToleration, Pod, ResourceClaim, ResourceSlice};
use apimachinery::{Str, time};
use jiff::{SignedDuration, Timestamp};

const NO_EXECUTE: &str = "NoExecute";

/// A claim of a pod.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NamedClaim {
    pub name: Str,
    /// For the pod, from a template.
    pub is_made: bool,
}

pub(super) fn pool_key(slice: &ResourceSlice) -> Str {
    pool_key_of(&slice.spec.driver, &slice.spec.pool.name)
}

pub(super) fn pool_key_of(driver: &str, pool: &str) -> Str {
    format!("{driver}/{pool}").into()
}

pub(super) fn device_key(driver: &str, pool: &str, device: &str) -> Str {
    format!("{driver}/{pool}/{device}").into()
}

/// Devices of a slice with taints that evict.
pub(super) fn tainted_devices(slice: &ResourceSlice) -> Vec<Str> {
    let tainted = slice.spec.devices.iter().filter(|device| device.taints.iter().any(evicts));
    tainted.map(|device| device_key(&slice.spec.driver, &slice.spec.pool.name, &device.name)).collect()
}

fn evicts(taint: &DeviceTaint) -> bool {
    taint.effect == NO_EXECUTE
}

/// The taints of a device that evict, by the slices of its pool of which only the newest generation counts.
pub(super) fn evicting_taints(slices: &[Arc<ResourceSlice>], device: &str) -> Vec<DeviceTaint> {
    let newest = slices.iter().map(|slice| slice.spec.pool.generation).max();
    let current = slices.iter().filter(|slice| Some(slice.spec.pool.generation) == newest);
    let mut devices = current.flat_map(|slice| &slice.spec.devices);
    let device = devices.find(|own| own.name == device);
    device.into_iter().flat_map(|device| &device.taints).filter(|taint| evicts(taint)).cloned().collect()
}

/// The claims that a pod has by now.
pub(super) fn claim_names(pod: &Pod) -> Vec<NamedClaim> {
    let named = pod.spec.resource_claims.iter().filter_map(|entry| {
        if !entry.resource_claim_name.is_empty() {
            return Some(NamedClaim { name: entry.resource_claim_name.clone(), is_made: false });
        }
        let made = pod.status.resource_claim_statuses.iter().find(|own| own.name == entry.name)?;
        Some(NamedClaim { name: made.resource_claim_name.clone()?, is_made: true })
    });
    named.collect()
}

/// When the pods of a claim have to go; `None` is never.
pub(super) fn eviction(
    claim: &ResourceClaim,
    taints_of: impl Fn(&str, &str, &str) -> Vec<DeviceTaint>,
) -> Option<Timestamp> {
    let results = claim.status.allocation.iter().flat_map(|allocation| &allocation.devices.results);
    let times = results.flat_map(|result| {
        let taints = taints_of(&result.driver, &result.pool, &result.device);
        taints
            .into_iter()
            .filter_map(|taint| tolerated_until(&taint, &result.tolerations))
            .collect::<Vec<_>>()
    });
    times.min()
}

/// `None` is for ever. Only tolerations that name the effect count, and the shortest of them.
fn tolerated_until(taint: &DeviceTaint, tolerations: &[DeviceToleration]) -> Option<Timestamp> {
    let added = taint.time_added.as_ref().and_then(|text| time::parse(text));
    let added = added.unwrap_or(Timestamp::UNIX_EPOCH);
    let meant = tolerations.iter().filter(|own| own.effect == NO_EXECUTE && tolerates(own, taint));
    let mut seconds = 0;
    for (at, toleration) in meant.enumerate() {
        let own = toleration.toleration_seconds?.max(0);
        seconds = if at == 0 { own } else { seconds.min(own) };
    }
    Some(added.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX))
}
