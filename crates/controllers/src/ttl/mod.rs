//! The TTL controller: tells kubelets by annotation how long they may keep what they read of Secrets and ConfigMaps,
//! longer in larger clusters.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use api::gvr::NODES;
use apimachinery::{Object, json};
use async_trait::async_trait;
use client::{Api, Delta, Informer, ObjectKey, Patch, WriteOptions};
use controller_runtime::controller::boxed;
use controller_runtime::{Action, Context, ControllerDescriptor, Reconcile, Result};
use futures::future::BoxFuture;

use crate::Options;

const NAME: &str = "ttl-controller";
const ANNOTATION: &str = "node.alpha.kubernetes.io/ttl";

/// Sizes of clusters and their seconds. They overlap, so that a node more or less does not change all nodes.
const STEPS: [Step; 5] = [
    Step { nodes_min: 0, nodes_max: 100, seconds: 0 },
    Step { nodes_min: 90, nodes_max: 500, seconds: 15 },
    Step { nodes_min: 450, nodes_max: 1_000, seconds: 30 },
    Step { nodes_min: 900, nodes_max: 2_000, seconds: 60 },
    Step { nodes_min: 1_800, nodes_max: usize::MAX, seconds: 300 },
];

struct Step {
    nodes_min: usize,
    nodes_max: usize,
    seconds: u32,
}

/// The step of a cluster that has `nodes` now and was at `step`.
fn next_step(mut step: usize, nodes: usize) -> usize {
    while nodes > STEPS[step].nodes_max {
        step += 1;
    }
    while nodes < STEPS[step].nodes_min {
        step -= 1;
    }
    step
}

pub fn descriptor() -> ControllerDescriptor<Options> {
    ControllerDescriptor { name: NAME, service_account: NAME, event_source: NAME, workers: 5, start }
}

fn start(context: Context<Options>) -> BoxFuture<'static, ()> {
    let nodes = context.informers.of(&NODES);
    let reconciler =
        Arc::new(Controller { api: context.api.clone(), nodes: nodes.clone(), step: AtomicUsize::new(0) });
    let observer = reconciler.clone();
    let controller = controller_runtime::Controller::new(&context, reconciler)
        .watches(&nodes, move |delta, keys| observer.observe(delta, keys));
    boxed(controller.run())
}

struct Controller {
    api: Arc<dyn Api>,
    nodes: Arc<Informer>,
    /// Index in [`STEPS`].
    step: AtomicUsize,
}

impl Controller {
    fn observe(&self, delta: &Delta, keys: &mut Vec<ObjectKey>) {
        let before = self.step.load(Ordering::Relaxed);
        let now = next_step(before, self.nodes.len());
        if now != before {
            self.step.store(now, Ordering::Relaxed);
            keys.extend(self.nodes.list().iter().map(|node| ObjectKey::cluster(node.name())));
        } else if let Delta::Upsert { new, .. } = delta {
            keys.push(ObjectKey::cluster(new.name()));
        }
    }
}

#[async_trait]
impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result {
        let seconds = STEPS[self.step.load(Ordering::Relaxed)].seconds;
        if let Some(node) = self.nodes.get("", &key.name).filter(|node| told(node) != Some(seconds)) {
            let patch = json!({"metadata": {"annotations": {ANNOTATION: seconds.to_string()}}});
            let options = WriteOptions::default();
            match self.api.patch(&NODES, "", node.name(), None, Patch::Strategic(patch), &options).await {
                Err(status) if status.is_not_found() => {}
                result => drop(result?),
            }
        }
        Ok(Action::await_change())
    }
}

/// What a node was told.
fn told(node: &Object) -> Option<u32> {
    node.metadata_value().str_at(&["annotations", ANNOTATION]).parse().ok()
}

#[cfg(test)]
mod tests {
    use apimachinery::Value;

    use super::*;
    use crate::testing::World;

    #[test]
    fn the_step_changes_at_its_ends_only() {
        for (step, nodes, wanted) in [
            (0, 100, 0),
            (0, 101, 1),
            (1, 90, 1),
            (1, 89, 0),
            (0, 5_000, 4),
            (4, 1_800, 4),
            (4, 1_799, 3),
            (4, 0, 0),
        ] {
            assert_eq!(next_step(step, nodes), wanted, "{nodes} nodes at step {step}");
        }
    }

    fn node(name: &str, annotations: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "annotations": annotations}})
    }

    #[tokio::test]
    async fn all_nodes_are_told_when_the_cluster_grows() {
        let seeds = vec![node("a", json!({})), node("b", json!({ANNOTATION: "soon", "x": "y"}))];
        let world = World::start(vec![descriptor()], seeds);
        let all = |fake: &client::fake::FakeApi, seconds: u32| {
            fake.peek_all(&NODES).iter().all(|node| told(node) == Some(seconds))
        };
        world.wait_for("told", |fake| all(fake, 0)).await;
        assert_eq!(world.tree(&NODES, "", "b").str_at(&["metadata", "annotations", "x"]), "y");
        (0..100).for_each(|number| drop(world.fake.seed(node(&format!("n{number}"), json!({})))));
        world.wait_for("told of the new size", |fake| all(fake, 15)).await;
    }
}
