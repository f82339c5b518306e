//! The device taint eviction controller: deletes pods that use devices with NoExecute taints which their claims do not
//! tolerate, or no longer.
//!
//! A pod's time is counted from when the taint was added, as the taint says, so a restart of this process gives nobody
//! more time. [`plan`] decides. DeviceTaintRules (`DRADeviceTaintRules`, off by default upstream) are not looked at.

mod plan;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use api::gvr::{PODS, RESOURCE_CLAIMS, RESOURCE_SLICES};
use api::view::{DeviceTaint, Pod, ResourceClaim, ResourceSlice};
use apimachinery::{Object, Status, Str};
use async_trait::async_trait;
use client::events::Reference;
use client::typed::view;
use client::{Api, Delta, Informer, ObjectKey, Recorder};
use controller_runtime::controller::boxed;
use controller_runtime::{Action, Context, ControllerDescriptor, Reconcile, Result};
use futures::future::BoxFuture;
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::Options;
use crate::pods::evict_tainted;

const NAME: &str = "device-taint-eviction-controller";
const EVENT_REASON: &str = "DeviceTaintManagerEviction";

/// Index of claims by the devices that they were given.
const BY_DEVICE: &str = "device";
/// Index of slices by their pool.
const BY_POOL: &str = "pool";

pub fn descriptor() -> ControllerDescriptor<Options> {
    ControllerDescriptor { name: NAME, service_account: NAME, event_source: NAME, workers: 8, start }
}

fn start(context: Context<Options>) -> BoxFuture<'static, ()> {
    let reconciler = Arc::new(Controller {
        api: context.api.clone(),
        recorder: context.recorder.clone(),
        pods: context.informers.of(&PODS),
        claims: context.informers.of(&RESOURCE_CLAIMS),
        slices: context.informers.of(&RESOURCE_SLICES),
        marked: Mutex::default(),
    });
    let Controller { pods, claims, slices, .. } = &*reconciler;
    claims.add_index(BY_DEVICE, devices_of);
    slices.add_index(BY_POOL, |slice| {
        slice.view::<ResourceSlice>().map(|slice| plan::pool_key(&slice)).into_iter().collect()
    });
    let (on_slice, on_pod) = (reconciler.clone(), reconciler.clone());
    let controller = controller_runtime::Controller::new(&context, reconciler.clone())
        .watches(slices, move |delta, keys| on_slice.observe_slice(delta, keys))
        .watches(claims, observe_claim)
        .watches(pods, move |delta, keys| on_pod.observe_pod(delta, keys));
    boxed(controller.run())
}

fn devices_of(claim: &Object) -> Vec<Str> {
    let Ok(claim) = claim.view::<ResourceClaim>() else { return Vec::new() };
    let results = claim.status.allocation.iter().flat_map(|allocation| &allocation.devices.results);
    results.map(|result| plan::device_key(&result.driver, &result.pool, &result.device)).collect()
}

/// The pods that may use a claim.
fn users_of(claim: &Object) -> Vec<ObjectKey> {
    let Ok(view) = claim.view::<ResourceClaim>() else { return Vec::new() };
    let pods =
        view.status.reserved_for.iter().filter(|user| user.api_group.is_empty() && user.resource == "pods");
    pods.map(|user| ObjectKey::new(claim.namespace(), &user.name)).collect()
}

/// Pods that came to a claim or left it, and those of one whose devices are others now.
fn observe_claim(delta: &Delta, keys: &mut Vec<ObjectKey>) {
    match delta {
        Delta::Upsert { old, new } => {
            keys.extend(old.iter().flat_map(|old| users_of(old)));
            keys.extend(users_of(new));
        }
        Delta::Delete { old } => keys.extend(users_of(old)),
        Delta::Resync => {}
    }
}

struct Controller {
    api: Arc<dyn Api>,
    recorder: Recorder,
    pods: Arc<Informer>,
    claims: Arc<Informer>,
    slices: Arc<Informer>,
    /// Pods that are to be deleted some time.
    marked: Mutex<HashSet<ObjectKey>>,
}

impl Controller {
    /// The pods that use devices which have, or had, taints that evict. Another slice of the pool may have made this one
    /// the newest, or outdated.
    fn observe_slice(&self, delta: &Delta, keys: &mut Vec<ObjectKey>) {
        let (old, new) = match delta {
            Delta::Upsert { old, new } => (old.as_ref(), Some(new)),
            Delta::Delete { old } => (Some(old), None),
            Delta::Resync => return,
        };
        let slices = [old, new].into_iter().flatten().filter_map(|slice| slice.view::<ResourceSlice>().ok());
        let changed: Vec<Arc<ResourceSlice>> = slices.collect();
        let pools: BTreeSet<Str> = changed.iter().map(|slice| plan::pool_key(slice)).collect();
        let all = pools.iter().flat_map(|pool| self.slices_of(pool)).chain(changed);
        let devices: BTreeSet<Str> = all.flat_map(|slice| plan::tainted_devices(&slice)).collect();
        for device in devices {
            keys.extend(self.claims.by_index(BY_DEVICE, &device).iter().flat_map(|claim| users_of(claim)));
        }
    }

    /// A pod that comes to a node, or whose claims have got their names; or that goes.
    fn observe_pod(&self, delta: &Delta, keys: &mut Vec<ObjectKey>) {
        let (old, new) = match delta {
            Delta::Upsert { old, new } => (old.as_ref(), new),
            Delta::Delete { old } => {
                self.marked.lock().remove(&ObjectKey::from(&**old));
                return;
            }
            Delta::Resync => return,
        };
        let Ok(pod) = new.view::<Pod>() else { return };
        if pod.spec.node_name.is_empty() || pod.spec.resource_claims.is_empty() {
            return;
        }
        let same = old.and_then(|old| old.view::<Pod>().ok()).is_some_and(|old| {
            old.spec.node_name == pod.spec.node_name
                && old.status.resource_claim_statuses == pod.status.resource_claim_statuses
        });
        if !same {
            keys.push(ObjectKey::from(&**new));
        }
    }

    fn slices_of(&self, pool: &str) -> Vec<Arc<ResourceSlice>> {
        let slices = self.slices.by_index(BY_POOL, pool);
        slices.iter().filter_map(|slice| slice.view::<ResourceSlice>().ok()).collect()
    }

    /// The taints of a device that evict, as the newest slices of its pool say.
    fn taints_of(&self, driver: &str, pool: &str, device: &str) -> Vec<DeviceTaint> {
        plan::evicting_taints(&self.slices_of(&plan::pool_key_of(driver, pool)), device)
    }

    /// When a pod has to go because of its devices; `None` is never.
    fn eviction_of(&self, pod: &Pod) -> Option<Timestamp> {
        if pod.spec.node_name.is_empty() {
            return None;
        }
        let names = plan::claim_names(pod);
        let claims = names.iter().filter_map(|named| {
            let object = self.claims.get(&pod.metadata.namespace, &named.name)?;
            let is_own =
                object.controller_owner().is_some_and(|owner| owner.uid == pod.metadata.uid.as_str());
            let claim = object.view::<ResourceClaim>().ok()?;
            (claim.is_reserved_for(&pod.metadata.uid) && (is_own || !named.is_made)).then_some(claim)
        });
        let taints = |driver: &str, pool: &str, device: &str| self.taints_of(driver, pool, device);
        claims.filter_map(|claim| plan::eviction(&claim, taints)).min()
    }
}

#[async_trait]
impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result {
        let Some(object) = self.pods.get(&key.namespace, &key.name).filter(|pod| !pod.is_deleting()) else {
            self.marked.lock().remove(key);
            return Ok(Action::await_change());
        };
        let pod = view::<Pod>(&object)?;
        let Some(when) = self.eviction_of(&pod) else {
            if self.marked.lock().remove(key) {
                self.recorder.normal(&Reference::of(&object), EVENT_REASON, "Cancelling deletion");
            }
            return Ok(Action::await_change());
        };
        let wait = when.duration_since(rt::now());
        if let Ok(wait) = std::time::Duration::try_from(wait)
            && !wait.is_zero()
        {
            self.marked.lock().insert(key.clone());
            return Ok(Action::requeue(wait));
        }
        self.evict(&object).await?;
        self.marked.lock().remove(key);
        Ok(Action::await_change())
    }
}

impl Controller {
    async fn evict(&self, pod: &Arc<Object>) -> Result<(), Status> {
        self.recorder.normal(&Reference::of(pod), EVENT_REASON, "Marking for deletion");
        let message = "Device Taint manager: deleting due to NoExecute taint";
        evict_tainted(&*self.api, pod, "DeletionByDeviceTaintManager", message).await
    }
}
