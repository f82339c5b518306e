//! The taint eviction controller: deletes pods from nodes with NoExecute taints that they do not tolerate, or no
//! longer.
//!
//! A pod's time is counted from when the taint was added (or the pod came, if later), as the taint says, so a restart
//! of this process gives nobody more time. [`plan`] decides.

mod plan;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;

use api::gvr::{NODES, PODS};
use api::view::{Node, Pod};
use apimachinery::{Object, Status};
use async_trait::async_trait;
use client::events::Reference;
use client::typed::view;
use client::{Api, Delta, Informer, ObjectKey, Recorder};
use controller_runtime::controller::boxed;
use controller_runtime::{Action, Context, ControllerDescriptor, Reconcile, Result};
use futures::future::BoxFuture;
use parking_lot::Mutex;

use crate::Options;
use crate::pods::{BY_NODE, evict_tainted, index_by_node};
use plan::Verdict;

const NAME: &str = "taint-eviction-controller";

pub fn descriptor() -> ControllerDescriptor<Options> {
    ControllerDescriptor {
        name: NAME,
        service_account: "node-controller",
        event_source: NAME,
        workers: 8,
        start,
    }
}

fn start(context: Context<Options>) -> BoxFuture<'static, ()> {
    let (nodes, pods) = (context.informers.of(&NODES), context.informers.of(&PODS));
    index_by_node(&pods);
    let reconciler = Arc::new(Controller {
        api: context.api.clone(),
        recorder: context.recorder.clone(),
        nodes: nodes.clone(),
        pods: pods.clone(),
        marked: Mutex::default(),
    });
    let (on_node, on_pod) = (reconciler.clone(), reconciler.clone());
    let controller = controller_runtime::Controller::new(&context, reconciler)
        .watches(&nodes, move |delta, keys| on_node.observe_node(delta, keys))
        .watches(&pods, move |delta, keys| on_pod.observe_pod(delta, keys));
    boxed(controller.run())
}

struct Controller {
    api: Arc<dyn Api>,
    recorder: Recorder,
    nodes: Arc<Informer>,
    pods: Arc<Informer>,
    /// Pods that are to be deleted some time.
    marked: Mutex<HashSet<ObjectKey>>,
}

impl Controller {
    /// All pods of a node whose NoExecute taints changed.
    fn observe_node(&self, delta: &Delta, keys: &mut Vec<ObjectKey>) {
        let Delta::Upsert { old, new } = delta else { return };
        let taints = |node: &Arc<Object>| {
            node.view::<Node>()
                .map(|node| plan::evicting(&node).cloned().collect::<Vec<_>>())
                .unwrap_or_default()
        };
        if old.as_ref().map(taints).unwrap_or_default() != taints(new) {
            keys.extend(self.pods.by_index(BY_NODE, new.name()).iter().map(|pod| ObjectKey::from(&**pod)));
        }
    }

    /// A pod that comes to a tainted node, changes its tolerations, or goes.
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
        if pod.spec.node_name.is_empty() {
            return;
        }
        let same = old.and_then(|old| old.view::<Pod>().ok()).is_some_and(|old| {
            old.spec.node_name == pod.spec.node_name && old.spec.tolerations == pod.spec.tolerations
        });
        if !same && self.tainted_node(&pod).is_some() {
            keys.push(ObjectKey::from(&**new));
        }
    }

    /// The pod's node, if it has a NoExecute taint.
    fn tainted_node(&self, pod: &Pod) -> Option<Arc<Node>> {
        let node = self.nodes.get("", &pod.spec.node_name)?.view::<Node>().ok()?;
        let tainted = plan::evicting(&node).next().is_some();
        tainted.then_some(node)
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
        let verdict = match self.tainted_node(&pod) {
            None => Verdict::Stays,
            Some(node) => plan::judge(&pod, &node, rt::now()),
        };
        match verdict {
            Verdict::Stays => {
                if self.marked.lock().remove(key) {
                    self.tell(&object, "Cancelling deletion of Pod");
                }
                Ok(Action::await_change())
            }
            Verdict::GoesAfter(wait) => {
                self.marked.lock().insert(key.clone());
                Ok(Action::requeue(wait))
            }
            Verdict::Goes => {
                self.evict(&object).await?;
                self.marked.lock().remove(key);
                Ok(Action::await_change())
            }
        }
    }
}

impl Controller {
    async fn evict(&self, pod: &Arc<Object>) -> Result<(), Status> {
        self.tell(pod, "Marking for deletion Pod");
        let message = "Taint manager: deleting due to NoExecute taint";
        evict_tainted(&*self.api, pod, "DeletionByTaintManager", message).await
    }

    fn tell(&self, pod: &Object, what: &str) {
        let message = format!("{what} {}", ObjectKey::from(pod));
        self.recorder.normal(&Reference::of(pod), "TaintManagerEviction", message);
    }
}
