//! The pod garbage collector: removes pods that nobody else will ever finish.
//!
//! Orphans of nodes that are gone, pods that were deleted before they had a node, pods being deleted on nodes that
//! were declared out of service, and the oldest of too many that are done.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use api::gvr::{NODES, PODS};
use api::view::{Node, Pod};
use apimachinery::{Object, Status, Value, json, time};
use async_trait::async_trait;
use client::typed::view;
use client::{Api, DeleteOptions, Delta, Informer, ObjectKey, Patch, WriteOptions};
use controller_runtime::controller::boxed;
use controller_runtime::{Action, Context, ControllerDescriptor, Queue, Reconcile, Result};
use futures::StreamExt;
use futures::future::BoxFuture;

use crate::Options;
use crate::pods::{BY_NODE, index_by_node};

const NAME: &str = "pod-garbage-collector-controller";

/// Pods that are done and kept (`--terminated-pod-gc-threshold`).
const TERMINATED_MAX: usize = 12_500;

/// How long a node must be missing before its pods are orphans.
const QUARANTINE: Duration = Duration::from_secs(40);

/// Pods deleted at the same time when there are too many.
const CONCURRENT_MAX: usize = 32;

const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
const TERMINATED: &str = "terminated";

pub fn descriptor() -> ControllerDescriptor<Options> {
    ControllerDescriptor {
        name: NAME,
        service_account: "pod-garbage-collector",
        event_source: NAME,
        workers: 4,
        start,
    }
}

fn start(context: Context<Options>) -> BoxFuture<'static, ()> {
    let (nodes, pods) = (context.informers.of(&NODES), context.informers.of(&PODS));
    index_by_node(&pods);
    pods.add_index(TERMINATED, |object| match object.view::<Pod>() {
        Ok(pod) if pod.is_terminal() => vec!["".into()],
        _ => Vec::new(),
    });
    let reconciler = Arc::new(Controller {
        api: context.api.clone(),
        nodes: nodes.clone(),
        pods: pods.clone(),
        terminated_max: TERMINATED_MAX,
    });
    let controller = controller_runtime::Controller::new(&context, reconciler.clone());
    let (on_node, node_queue) = (reconciler.clone(), controller.queue().clone());
    let (on_pod, pod_queue) = (reconciler, controller.queue().clone());
    let controller = controller
        .watches(&nodes, move |delta, keys| on_node.observe_node(delta, keys, &node_queue))
        .watches(&pods, move |delta, keys| on_pod.observe_pod(delta, keys, &pod_queue));
    boxed(controller.run())
}

/// What may need a look.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Pod(ObjectKey),
    /// A node that is missing.
    Node(String),
    /// The number of pods that are done.
    Terminated,
}

struct Controller {
    api: Arc<dyn Api>,
    nodes: Arc<Informer>,
    pods: Arc<Informer>,
    terminated_max: usize,
}

impl Controller {
    fn observe_node(&self, delta: &Delta, keys: &mut Vec<Key>, queue: &Queue<Key>) {
        match delta {
            Delta::Delete { old } => queue.add_after(Key::Node(old.name().to_owned()), QUARANTINE),
            Delta::Upsert { new, .. } if new.view::<Node>().is_ok_and(|node| is_out_of_service(&node)) => {
                let pods = self.pods.by_index(BY_NODE, new.name());
                keys.extend(pods.iter().map(|pod| Key::Pod(ObjectKey::from(&**pod))));
            }
            _ => {}
        }
    }

    fn observe_pod(&self, delta: &Delta, keys: &mut Vec<Key>, queue: &Queue<Key>) {
        let Delta::Upsert { old, new } = delta else { return };
        let Ok(pod) = new.view::<Pod>() else { return };
        let bound = !pod.spec.node_name.is_empty();
        let newly_bound = bound
            && old
                .as_ref()
                .and_then(|old| old.view::<Pod>().ok())
                .is_none_or(|old| old.spec.node_name.is_empty());
        if newly_bound && self.nodes.get("", &pod.spec.node_name).is_none() {
            // The node's own cache may be a moment behind; its absence is judged after the quarantine.
            queue.add_after(Key::Node(pod.spec.node_name.to_string()), QUARANTINE);
        }
        if new.is_deleting() {
            keys.push(Key::Pod(ObjectKey::from(&**new)));
        }
        if pod.is_terminal() && self.pods.index_len(TERMINATED, "") > self.terminated_max {
            keys.push(Key::Terminated);
        }
    }
}

/// Not ready, and an administrator declared that what ran there runs no more.
fn is_out_of_service(node: &Node) -> bool {
    !node.is_ready() && node.spec.taints.iter().any(|taint| taint.key == OUT_OF_SERVICE)
}

#[async_trait]
impl Reconcile for Controller {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result {
        match key {
            Key::Pod(key) => self.finish_deleting(key).await,
            Key::Node(name) => self.collect_orphans(name).await,
            Key::Terminated => self.collect_terminated().await,
        }
    }
}

impl Controller {
    async fn finish_deleting(&self, key: &ObjectKey) -> Result {
        let Some(object) = self.pods.get(&key.namespace, &key.name).filter(|pod| pod.is_deleting()) else {
            return Ok(Action::await_change());
        };
        let pod = view::<Pod>(&object)?;
        let node = self.nodes.get("", &pod.spec.node_name).and_then(|node| node.view::<Node>().ok());
        let nobody_finishes =
            pod.spec.node_name.is_empty() || node.is_some_and(|node| is_out_of_service(&node));
        if nobody_finishes {
            self.fail_and_delete(&object, &pod, None).await?;
        }
        Ok(Action::await_change())
    }

    /// Asked a quarantine after a node was missed: its pods are orphans if it is missing still.
    async fn collect_orphans(&self, node: &str) -> Result {
        let pods = self.pods.by_index(BY_NODE, node);
        if pods.is_empty() || self.nodes.get("", node).is_some() {
            return Ok(Action::await_change());
        }
        if self.api.find(&NODES, "", node).await?.is_some() {
            return Ok(Action::await_change());
        }
        for object in &pods {
            let pod = view::<Pod>(object)?;
            let message = "PodGC: node no longer exists";
            self.fail_and_delete(object, &pod, Some(("DeletionByPodGC", message))).await?;
        }
        Ok(Action::await_change())
    }

    /// Deletes the oldest pods that are done beyond the limit, evicted ones first.
    async fn collect_terminated(&self) -> Result {
        let mut done = self.pods.by_index(TERMINATED, "");
        let surplus = done.len().saturating_sub(self.terminated_max);
        if surplus == 0 {
            return Ok(Action::await_change());
        }
        done.sort_by_cached_key(|object| {
            let evicted = object.view::<Pod>().is_ok_and(|pod| pod.status.reason == "Evicted");
            (!evicted, object.creation_timestamp().to_owned(), object.name().to_owned())
        });
        let deletions: Vec<_> = done.iter().take(surplus).map(|object| self.delete(object)).collect();
        let results: Vec<Result<(), Status>> =
            futures::stream::iter(deletions).buffer_unordered(CONCURRENT_MAX).collect().await;
        results.into_iter().collect::<Result<(), Status>>()?;
        Ok(Action::await_change())
    }

    /// A pod that is not done is failed first, so that its owner learns of it: no node will.
    async fn fail_and_delete(
        &self,
        object: &Object,
        pod: &Pod,
        why: Option<(&str, &str)>,
    ) -> Result<(), Status> {
        if !pod.is_terminal() {
            let mut patch = json!({"metadata": {"uid": object.uid()}, "status": {"phase": "Failed"}});
            if let Some((reason, message)) = why {
                let condition: Value = json!([{"type": "DisruptionTarget", "status": "True", "reason": reason,
                    "message": message, "lastTransitionTime": time::format_seconds(rt::now())}]);
                patch.set_at(&["status", "conditions"], condition);
            }
            let (namespace, name, options) = (object.namespace(), object.name(), WriteOptions::default());
            match self
                .api
                .patch(&PODS, namespace, name, Some("status"), Patch::Strategic(patch), &options)
                .await
            {
                Ok(_) => {}
                Err(status) if status.is_not_found() => return Ok(()),
                Err(status) => return Err(status),
            }
        }
        self.delete(object).await
    }

    async fn delete(&self, object: &Object) -> Result<(), Status> {
        let options = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::of(object) };
        match self.api.delete(&PODS, object.namespace(), object.name(), &options).await {
            Err(status) if !(status.is_not_found() || status.is_conflict()) => Err(status),
            _ => Ok(()),
        }
    }
}
