//! Pods and nodes for tests, written as the JSON of the part that matters.

use std::sync::Arc;

use api::view::{Node, Pod};
use client::fake::FakeApi;
use client::{Informers, Recorder};
use rt::Shutdown;
use serde_json::{Value, json};

use crate::DEFAULT_SCHEDULER;
use crate::framework::{Handle, Profile};
use crate::plugins::default_profile;
use crate::pod::PodInfo;

/// A handle of an API without objects.
pub fn handle() -> Handle {
    handle_of(FakeApi::new())
}

/// A handle whose informers, asked inside a runtime, read what was seeded.
pub fn handle_of(api: Arc<FakeApi>) -> Handle {
    let informers = Informers::new(api.clone(), Shutdown::new());
    Handle { api, informers, recorder: Recorder::silent(), groups: None }
}

/// The default profile of the default scheduler.
pub fn profile() -> Profile {
    default_profile(DEFAULT_SCHEDULER, &handle()).expect("the default profile is one")
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).expect("test data is JSON")
}

/// A pod whose uid is its name.
pub fn pod(name: &str, spec: &str) -> Pod {
    labelled_pod(name, "{}", spec)
}

fn labelled_pod(name: &str, labels: &str, spec: &str) -> Pod {
    let metadata = json!({"name": name, "namespace": "default", "uid": name, "labels": parse(labels)});
    let mut spec = parse(spec);
    if spec["schedulerName"].is_null() {
        spec["schedulerName"] = DEFAULT_SCHEDULER.into();
    }
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("test data is a pod")
}

pub fn labelled_pod_info(name: &str, labels: &str, spec: &str) -> Arc<PodInfo> {
    Arc::new(PodInfo::new(Arc::new(labelled_pod(name, labels, spec)), 1))
}

pub fn pod_info(name: &str, spec: &str) -> Arc<PodInfo> {
    Arc::new(PodInfo::new(Arc::new(pod(name, spec)), 1))
}

/// A node with room for 110 pods unless `status` says otherwise.
pub fn node(name: &str, spec: &str, status: &str) -> Arc<Node> {
    labelled_node(name, "{}", spec, status)
}

pub fn labelled_node(name: &str, labels: &str, spec: &str, status: &str) -> Arc<Node> {
    let mut node = json!({
        "metadata": {"name": name, "uid": name, "labels": parse(labels)}, "spec": parse(spec), "status": parse(status),
    });
    if node["status"]["allocatable"].is_null() {
        node["status"]["allocatable"] = json!({"cpu": "4", "memory": "8Gi", "pods": "110"});
    }
    Arc::new(serde_json::from_value(node).expect("test data is a node"))
}
