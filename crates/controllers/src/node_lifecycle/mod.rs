//! The node lifecycle controller: notices nodes that fell silent and says so by conditions and taints.
//!
//! ```text
//!     lease or Ready heartbeat ──> pulse        (no write, no queue)
//!     deadline of a pulse ───────> conditions Unknown
//!     conditions, cordon ────────> NoSchedule taints
//!     not Ready ─────────────────> NoExecute taint, as fast as the node's zone allows; pods marked not ready
//! ```
//!
//! One timer per node replaces upstream's look at all nodes every five seconds. Start at [`Controller::sync`];
//! [`plan`] decides taints and conditions, [`zones`] how fast nodes may be evicted. Deleting pods from tainted nodes
//! is the taint eviction controller's.

mod plan;
mod pulse;
#[cfg(test)]
mod tests;
mod zones;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use api::gvr::{LEASES, NODES, PODS};
use api::view::{Node, Pod};
use apimachinery::{Object, Status, json};
use async_trait::async_trait;
use client::events::Reference;
use client::typed::view;
use client::{Api, Delta, Informer, ObjectKey, Patch, Recorder, WriteOptions};
use controller_runtime::controller::boxed;
use controller_runtime::{Action, Context, ControllerDescriptor, Error, Queue, Reconcile, Result};
use futures::StreamExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;

use crate::Options;
use crate::pods::{BY_NODE, index_by_node};
use plan::Readiness;
use pulse::Pulses;
use zones::Zones;

const NAME: &str = "node-lifecycle-controller";

/// Silence after which a node counts as unknown (`--node-monitor-grace-period`).
const MONITOR_GRACE: Duration = Duration::from_secs(50);

/// The same for a node that never posted a status (`--node-startup-grace-period`).
const STARTUP_GRACE: Duration = Duration::from_secs(60);

/// Where nodes keep their leases.
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// Pods of one node marked at the same time.
const CONCURRENT_MAX: usize = 32;

pub fn descriptor() -> ControllerDescriptor<Options> {
    ControllerDescriptor {
        name: NAME,
        service_account: "node-controller",
        event_source: "node-controller",
        workers: 8,
        start,
    }
}

fn start(context: Context<Options>) -> BoxFuture<'static, ()> {
    let informers = &context.informers;
    let (nodes, leases, pods) = (informers.of(&NODES), informers.of(&LEASES), informers.of(&PODS));
    index_by_node(&pods);
    let reconciler = Arc::new(Controller {
        api: context.api.clone(),
        recorder: context.recorder.clone(),
        nodes: nodes.clone(),
        pods: pods.clone(),
        pulses: Pulses::default(),
        zones: Mutex::default(),
        queue: OnceLock::new(),
    });
    let (on_node, on_lease) = (reconciler.clone(), reconciler.clone());
    let controller = controller_runtime::Controller::new(&context, reconciler.clone())
        .watches(&nodes, move |delta, keys| on_node.observe_node(delta, keys))
        .watches(&leases, move |delta, keys| on_lease.observe_lease(delta, keys))
        .reads(&pods);
    let _ = reconciler.queue.set(controller.queue().clone());
    boxed(controller.run())
}

struct Controller {
    api: Arc<dyn Api>,
    recorder: Recorder,
    nodes: Arc<Informer>,
    pods: Arc<Informer>,
    pulses: Pulses,
    zones: Mutex<Zones>,
    queue: OnceLock<Arc<Queue<ObjectKey>>>,
}

// === Signs of life ===

impl Controller {
    /// A heartbeat in the Ready condition is a pulse; a change of what taints follow from is work.
    fn observe_node(&self, delta: &Delta, keys: &mut Vec<ObjectKey>) {
        let (old, new) = match delta {
            Delta::Upsert { old, new } => (old.as_ref(), new),
            Delta::Delete { old } => return keys.push(ObjectKey::from(&**old)),
            Delta::Resync => return,
        };
        let view_of = |object: &Arc<Object>| object.view::<Node>().ok();
        let (was, Some(is)) = (old.and_then(view_of), view_of(new)) else { return };
        let heartbeat =
            |node: &Node| node.condition("Ready").and_then(|ready| ready.last_heartbeat_time.clone());
        // Nothing is known of when an object that is seen for the first time was written: its time starts now. Only a
        // node itself says that it is ready, so that is a pulse, too.
        let recovered =
            |was: &Node| Readiness::of(was) != Readiness::Ready && Readiness::of(&is) == Readiness::Ready;
        if was.as_ref().is_none_or(|was| heartbeat(was) != heartbeat(&is) || recovered(was)) {
            self.pulses.beat(new.name());
        }
        let unchanged = was.is_some_and(|was| {
            plan::conditions_of(&was).eq(plan::conditions_of(&is))
                && was.spec.taints == is.spec.taints
                && was.spec.unschedulable == is.spec.unschedulable
                && was.metadata.labels == is.metadata.labels
        });
        if !unchanged {
            keys.push(ObjectKey::from(&**new));
        }
    }

    /// A renewed lease is a pulse. Only a node that was given up is looked at for it.
    fn observe_lease(&self, delta: &Delta, keys: &mut Vec<ObjectKey>) {
        let Delta::Upsert { new, .. } = delta else { return };
        if new.namespace() != LEASE_NAMESPACE {
            return;
        }
        self.pulses.beat(new.name());
        let node = self.nodes.get("", new.name()).and_then(|node| node.view::<Node>().ok());
        if node.is_some_and(|node| Readiness::of(&node) == Readiness::Unknown) {
            keys.push(ObjectKey::cluster(new.name()));
        }
    }
}

// === Reconcile ===

#[async_trait]
impl Reconcile for Controller {
    /// The node.
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result {
        match self.nodes.get("", &key.name) {
            Some(object) => self.sync(key, object).await,
            None => {
                self.remove(key);
                Ok(Action::await_change())
            }
        }
    }
}

impl Controller {
    async fn sync(&self, key: &ObjectKey, mut object: Arc<Object>) -> Result {
        let mut node = view::<Node>(&object)?;
        if self.pulses.register(&key.name) {
            self.node_event(
                &object,
                "RegisteredNode",
                &format!("Registered Node {} in Controller", key.name),
            );
        }
        let grace = if node.condition("Ready").is_some() { MONITOR_GRACE } else { STARTUP_GRACE };
        let silent = self.pulses.silence(&key.name) >= grace;
        if silent && let Some(patch) = plan::unknown_conditions(&node, rt::now()) {
            let options = WriteOptions::default();
            object = self
                .api
                .patch(&NODES, "", &key.name, Some("status"), Patch::Strategic(patch), &options)
                .await?;
            node = view::<Node>(&object)?;
        }
        let readiness = Readiness::of(&node);
        let eviction_after = self.write_taints(key, &object, &node, readiness).await?;
        self.note_readiness(key, &object, readiness).await?;

        let next_pulse = (!silent).then(|| grace.saturating_sub(self.pulses.silence(&key.name)));
        let next = [next_pulse, eviction_after].into_iter().flatten().min();
        Ok(next.map_or(Action::await_change(), |after| Action::requeue(after + Duration::from_millis(1))))
    }

    /// Writes taints and derived labels. Returns when to come back if the zone allows no eviction now.
    async fn write_taints(
        &self,
        key: &ObjectKey,
        object: &Arc<Object>,
        node: &Node,
        readiness: Readiness,
    ) -> Result<Option<Duration>, Error> {
        let zone = plan::zone_of(node);
        let tainted = plan::has_eviction_taint(node);
        let (turn, disruption_changed) = {
            let mut zones = self.zones.lock();
            let changed = zones.note(&key.name, &zone, readiness == Readiness::Ready);
            (zones.turn(&zone, readiness == Readiness::Ready || tainted, rt::instant()), changed)
        };
        if disruption_changed {
            self.revisit_all();
        }
        let evict = turn == zones::Turn::Now;
        if let Some(patch) =
            plan::node_patch(object, node, readiness, evict, turn == zones::Turn::Never, rt::now())
        {
            self.api
                .patch(&NODES, "", &key.name, None, Patch::Merge(patch), &WriteOptions::default())
                .await?;
        }
        Ok(match turn {
            zones::Turn::After(wait) => Some(wait),
            zones::Turn::Now | zones::Turn::Never => None,
        })
    }

    /// The last node became silent, or the first one came back: what that means for eviction concerns all.
    fn revisit_all(&self) {
        if let Some(queue) = self.queue.get() {
            queue.add_all(self.nodes.list().iter().map(|node| ObjectKey::from(&**node)));
        }
    }

    /// When a node stops being ready, its pods do too: nobody else is there to say so.
    async fn note_readiness(
        &self,
        key: &ObjectKey,
        object: &Arc<Object>,
        readiness: Readiness,
    ) -> Result<(), Error> {
        if readiness == Readiness::Ready {
            self.pulses.set_ready(&key.name, true);
            return Ok(());
        }
        let was_ready = self.pulses.was_ready(&key.name);
        if was_ready {
            let message = format!("Node {} status is now: NodeNotReady", key.name);
            self.recorder.normal(&Reference::of(object), "NodeNotReady", message);
        }
        if was_ready || readiness == Readiness::Unknown {
            self.mark_pods_not_ready(&key.name).await?;
        }
        self.pulses.set_ready(&key.name, false);
        Ok(())
    }

    async fn mark_pods_not_ready(&self, node: &str) -> Result<(), Status> {
        let pods = self.pods.by_index(BY_NODE, node);
        let ready: Vec<_> =
            pods.iter().filter(|pod| pod.view::<Pod>().is_ok_and(|pod| pod.is_ready())).collect();
        let marks: Vec<_> = ready.into_iter().map(|pod| self.mark_pod_not_ready(pod)).collect();
        let results: Vec<Result<(), Status>> =
            futures::stream::iter(marks).buffer_unordered(CONCURRENT_MAX).collect().await;
        results.into_iter().collect()
    }

    async fn mark_pod_not_ready(&self, pod: &Object) -> Result<(), Status> {
        let now = apimachinery::time::format_seconds(rt::now());
        let patch = json!({"metadata": {"uid": pod.uid()}, "status": {"conditions": [
            {"type": "Ready", "status": "False", "lastTransitionTime": now},
        ]}});
        let (namespace, name, options) = (pod.namespace(), pod.name(), WriteOptions::default());
        match self.api.patch(&PODS, namespace, name, Some("status"), Patch::Strategic(patch), &options).await
        {
            Ok(_) => {
                self.recorder.warning(&Reference::of(pod), "NodeNotReady", "Node is not ready");
                Ok(())
            }
            Err(status) if status.is_not_found() || status.is_conflict() => Ok(()),
            Err(status) => Err(status),
        }
    }

    fn remove(&self, key: &ObjectKey) {
        if self.pulses.forget(&key.name) {
            let regarding = Reference {
                api_version: "v1".into(),
                kind: "Node".into(),
                name: key.name.clone(),
                ..Reference::default()
            };
            let message = format!("Node {0} event: Removing Node {0} from Controller", key.name);
            self.recorder.normal(&regarding, "RemovingNode", message);
        }
        if self.zones.lock().forget(&key.name) {
            self.revisit_all();
        }
    }

    fn node_event(&self, object: &Object, reason: &str, what: &str) {
        self.recorder.normal(&Reference::of(object), reason, format!("Node {} event: {what}", object.name()));
    }
}
