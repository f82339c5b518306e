//! The node IPAM controller: every node has a range of pod addresses of its own.
//!
//! Ranges are cut from `--cluster-cidr`. A node that came with one keeps it, wherever it is from; simulated nodes,
//! whose pods need no way to anybody, are left to who simulates them.

mod range;

use std::collections::HashMap;
use std::sync::Arc;

use api::gvr::NODES;
use api::view::{Node, SIMULATED, SIMULATED_ANNOTATION};
use apimachinery::{Value, json};
use async_trait::async_trait;
use client::events::Reference;
use client::{Api, Delta, Informer, ObjectKey, Patch, Recorder, WriteOptions};
use controller_runtime::controller::boxed;
use controller_runtime::{Action, Context, ControllerDescriptor, Reconcile, Result};
use futures::future::BoxFuture;
use parking_lot::Mutex;

use crate::Options;
pub use range::{ClusterCidr, ClusterCidrError};

const NAME: &str = "node-ipam-controller";

pub fn descriptor() -> ControllerDescriptor<Options> {
    // One worker: two nodes must not be given the same range.
    ControllerDescriptor {
        name: NAME,
        service_account: "node-controller",
        event_source: NAME,
        workers: 1,
        start,
    }
}

fn start(context: Context<Options>) -> BoxFuture<'static, ()> {
    let nodes = context.informers.of(&NODES);
    let reconciler = Arc::new(Controller {
        api: context.api.clone(),
        recorder: context.recorder.clone(),
        nodes: nodes.clone(),
        ranges: context.options.cluster_cidrs.clone(),
        given: Mutex::default(),
    });
    let observer = reconciler.clone();
    let controller = controller_runtime::Controller::new(&context, reconciler)
        .watches(&nodes, move |delta, keys| observer.observe(delta, keys));
    boxed(controller.run())
}

struct Controller {
    api: Arc<dyn Api>,
    recorder: Recorder,
    nodes: Arc<Informer>,
    ranges: Vec<ClusterCidr>,
    /// What was given to whom, ahead of the informer.
    given: Mutex<HashMap<String, Vec<String>>>,
}

#[async_trait]
impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result {
        let Some(object) = self.nodes.get("", &key.name) else {
            self.given.lock().remove(key.name.as_str());
            return Ok(Action::await_change());
        };
        let Ok(node) = object.view::<Node>() else { return Ok(Action::await_change()) };
        let is_simulated =
            node.metadata.annotations.get(SIMULATED_ANNOTATION).is_some_and(|own| own == SIMULATED);
        if self.ranges.is_empty() || !node.spec.pod_cidr.is_empty() || is_simulated {
            return Ok(Action::await_change());
        }
        let Some(ranges) = self.choose(&key.name) else {
            let message = format!("Node {} status is now: CIDRNotAvailable", key.name);
            self.recorder.normal(&Reference::of(&object), "CIDRNotAvailable", message);
            return Ok(Action::await_change());
        };
        let listed: Vec<Value> = ranges.iter().map(|range| Value::from(range.as_str())).collect();
        let patch = json!({
            "metadata": {"uid": object.uid()},
            "spec": {"podCIDR": ranges[0].as_str(), "podCIDRs": listed},
        });
        match self
            .api
            .patch(&NODES, "", &key.name, None, Patch::Strategic(patch), &WriteOptions::default())
            .await
        {
            Err(status) if status.is_not_found() || status.is_conflict() => {}
            result => drop(result?),
        }
        Ok(Action::await_change())
    }
}

impl Controller {
    /// A node that goes leaves its range to those that wait for one.
    fn observe(&self, delta: &Delta, keys: &mut Vec<ObjectKey>) {
        match delta {
            Delta::Upsert { new, .. } => keys.push(ObjectKey::cluster(new.name())),
            Delta::Delete { old } => {
                keys.push(ObjectKey::cluster(old.name()));
                self.nodes.for_each(|object| {
                    if object.view::<Node>().is_ok_and(|node| node.spec.pod_cidr.is_empty()) {
                        keys.push(ObjectKey::cluster(object.name()));
                    }
                });
            }
            Delta::Resync => {}
        }
    }

    /// A free range of each family; `None` when one of them has none left.
    fn choose(&self, name: &str) -> Option<Vec<String>> {
        let mut given = self.given.lock();
        if let Some(before) = given.get(name) {
            return Some(before.clone());
        }
        let mut taken: Vec<String> = given.values().flatten().cloned().collect();
        self.nodes.for_each(|object| {
            if let Ok(node) = object.view::<Node>() {
                taken.extend(node.spec.pod_cidrs.iter().map(ToString::to_string));
                taken.push(node.spec.pod_cidr.to_string());
            }
        });
        let chosen: Option<Vec<String>> = self.ranges.iter().map(|range| range.first_free(&taken)).collect();
        let chosen = chosen?;
        given.insert(name.to_owned(), chosen.clone());
        Some(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;

    fn node(name: &str, spec: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": spec})
    }

    fn options(ranges: &str) -> Options {
        Options { cluster_cidrs: ClusterCidr::parse_list(ranges).unwrap(), ..Options::default() }
    }

    #[tokio::test]
    async fn every_node_gets_a_range_that_no_other_has() {
        let mut simulated = node("s", json!({}));
        simulated.set_at(&["metadata", "annotations"], json!({SIMULATED_ANNOTATION: SIMULATED}));
        let own = json!({"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24"]});
        let seeds = vec![node("a", own), node("b", json!({})), node("c", json!({})), simulated];
        let world = World::start_with(vec![descriptor()], seeds, options("10.244.0.0/16,fd00:244::/48"));
        let range = |fake: &client::fake::FakeApi, name: &str| {
            let node = fake.peek(&NODES, "", name).unwrap().to_value();
            node.array_at(&["spec", "podCIDRs"])
                .iter()
                .filter_map(Value::as_str)
                .collect::<Vec<_>>()
                .join(" ")
        };
        world.wait_for("ranges", |fake| !range(fake, "b").is_empty() && !range(fake, "c").is_empty()).await;
        let mut given = [range(&world.fake, "b"), range(&world.fake, "c")];
        given.sort_unstable();
        assert_eq!(given, ["10.244.0.0/24 fd00:244::/64", "10.244.2.0/24 fd00:244:0:1::/64"]);
        assert_eq!(range(&world.fake, "a"), "10.244.1.0/24");
        assert_eq!(range(&world.fake, "s"), "");
    }

    #[tokio::test]
    async fn a_node_waits_when_all_ranges_are_taken_until_one_is_free() {
        let seeds = vec![
            node("a", json!({"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"]})),
            node("b", json!({})),
        ];
        let world = World::start_with(vec![descriptor()], seeds, options("10.0.0.0/24"));
        let events = api::gvr::EVENTS;
        world.wait_for("the complaint", |fake| !fake.peek_all(&events).is_empty()).await;
        world.fake.drop_object(&NODES, "", "a");
        world
            .wait_for("the freed range", |fake| {
                fake.peek(&NODES, "", "b").unwrap().to_value().str_at(&["spec", "podCIDR"]) == "10.0.0.0/24"
            })
            .await;
    }
}
