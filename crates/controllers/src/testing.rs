//! A world for controllers' tests: a fake API with some controllers running on it.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::{GroupVersionResource, Object, Value};
use client::fake::FakeApi;
use client::{Api, Informers};
use controller_runtime::ControllerDescriptor;
use rt::Shutdown;

use crate::Options;

pub(crate) struct World {
    pub(crate) fake: Arc<FakeApi>,
    shutdown: Shutdown,
}

impl World {
    /// Starts controllers on an API that holds `seeds`.
    pub(crate) fn start(descriptors: Vec<ControllerDescriptor<Options>>, seeds: Vec<Value>) -> Self {
        let options = Options { root_ca: "-----TEST CA-----".into(), ..Options::default() };
        Self::start_with(descriptors, seeds, options)
    }

    /// As [`World::start`], with options of one's own.
    pub(crate) fn start_with(
        descriptors: Vec<ControllerDescriptor<Options>>,
        seeds: Vec<Value>,
        options: Options,
    ) -> Self {
        let world = Self { fake: FakeApi::new(), shutdown: Shutdown::new() };
        seeds.into_iter().for_each(|seed| drop(world.fake.seed(seed)));
        world.run(descriptors, options);
        world
    }

    /// Stops all controllers wherever they are, and starts these with what the API holds.
    pub(crate) fn restart(&mut self, descriptors: Vec<ControllerDescriptor<Options>>) {
        self.shutdown.cancel();
        self.shutdown = Shutdown::new();
        self.run(descriptors, Options::default());
    }

    fn run(&self, descriptors: Vec<ControllerDescriptor<Options>>, options: Options) {
        let api: Arc<dyn Api> = self.fake.clone();
        let informers = Informers::new(api.clone(), self.shutdown.clone());
        let options = Arc::new(options);
        controller_runtime::start_all(descriptors, &|_| api.clone(), &informers, &options, &self.shutdown);
    }

    /// Waits until `reached` holds.
    ///
    /// # Panics
    /// After ten seconds, with what was waited for.
    pub(crate) async fn wait_for(&self, what: &str, mut reached: impl FnMut(&FakeApi) -> bool) {
        for _ in 0..10_000 {
            if reached(&self.fake) {
                return;
            }
            rt::sleep(Duration::from_millis(1)).await;
        }
        panic!("not reached within ten seconds: {what}");
    }

    pub(crate) fn tree(&self, resource: &GroupVersionResource, namespace: &str, name: &str) -> Value {
        self.fake.peek(resource, namespace, name).map(|object| object.to_value()).unwrap_or_default()
    }

    /// Makes all pods running and ready, as a node would.
    pub(crate) fn run_pods(&self) {
        for pod in self.fake.peek_all(&api::gvr::PODS) {
            if pod.to_value().str_at(&["status", "phase"]) != "Running" {
                self.fake.edit(&api::gvr::PODS, pod.namespace(), pod.name(), make_ready);
            }
        }
    }

    /// Runs pods until `reached` holds.
    pub(crate) async fn run_until(&self, what: &str, reached: impl Fn(&FakeApi) -> bool) {
        self.wait_for(what, |fake| {
            self.run_pods();
            reached(fake)
        })
        .await;
    }

    /// The numbers of all ControllerRevisions, in ascending order.
    pub(crate) fn revision_numbers(&self) -> Vec<i64> {
        let revisions = self.fake.peek_all(&api::gvr::CONTROLLER_REVISIONS);
        let mut numbers: Vec<i64> =
            revisions.iter().filter_map(|own| own.to_value()["revision"].as_i64()).collect();
        numbers.sort_unstable();
        numbers
    }

    /// Events' reasons and messages, in order of name.
    pub(crate) fn events(&self) -> Vec<String> {
        let events = self.fake.peek_all(&api::gvr::EVENTS);
        events
            .iter()
            .map(|event| event.to_value())
            .map(|e| format!("{}: {}", e.str_at(&["reason"]), e.str_at(&["message"])))
            .collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

pub(crate) fn make_ready(pod: &mut Value) {
    let now = apimachinery::time::format_seconds(rt::now());
    pod.set_at(&["status", "phase"], "Running");
    pod.set_at(
        &["status", "conditions"],
        apimachinery::json!([{"type": "Ready", "status": "True", "lastTransitionTime": now}]),
    );
}

/// Gives the first container of a workload's template another image.
pub(crate) fn change_image(workload: &mut Value, image: &str) {
    let containers = workload.at_mut(&["spec", "template", "spec", "containers"]);
    let first = containers.and_then(Value::as_array_mut).and_then(|all| all.first_mut());
    first.expect("the workload has a container").set_at(&["image"], image);
}

/// An object for pure tests.
pub(crate) fn object(tree: Value) -> Arc<Object> {
    Arc::new(Object::from_value(&tree, 1, &[]).expect("the test's tree has metadata"))
}
