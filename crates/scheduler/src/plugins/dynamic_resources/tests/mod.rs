//! The allocator as tables and against a search that tries everything; the plugin with an API.

mod allocator;
mod brute_force;
mod plugin;

use std::sync::Arc;

use api::gvr::{DEVICE_CLASSES, RESOURCE_SLICES};
use api::view::{AllocationResult, Node, ResourceClaim};
use apimachinery::value::from_value;
use apimachinery::{GroupVersionResource, Object, Value, json};
use client::ObjectKey;

use super::allocator::{Allocation, Failure, Situation, allocate};
use super::cluster::Cluster;
use super::wanted::Wanted;
use crate::testing::labelled_node;

pub fn parse(text: &str) -> Value {
    Value::parse(text.as_bytes()).unwrap_or_else(|_| panic!("test data is JSON: {text}"))
}

fn object(tree: &Value) -> Arc<Object> {
    Arc::new(Object::from_value(tree, 1, &[]).expect("test data is an object"))
}

/// The only slice of a pool of driver `d.io` that is called like it, unless `spec` says otherwise.
pub fn slice(name: &str, spec: &str) -> Value {
    let mut tree =
        json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": name}});
    tree.set_at(
        &["spec"],
        json!({"driver": "d.io", "pool": {"name": name, "generation": 1, "resourceSliceCount": 1}}),
    );
    for (field, value) in parse(spec).as_object().expect("a spec is an object").iter() {
        tree.set_at(&["spec", field], value.clone());
    }
    tree
}

pub fn class(name: &str, spec: &str) -> Value {
    let mut tree =
        json!({"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": {"name": name}});
    tree.set_at(&["spec"], parse(spec));
    tree
}

/// What of `devices` is not said is as defaulted: `exactly` one of class `any`.
pub fn claim(name: &str, devices: &str) -> Value {
    let mut tree = json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
        "metadata": {"name": name, "namespace": "default", "uid": name}});
    let mut devices = parse(devices);
    for request in devices.get_mut("requests").and_then(Value::as_array_mut).into_iter().flatten() {
        if request.get("firstAvailable").is_none() {
            with_defaults(request.ensure_object_at(&["exactly"]));
        }
        for own in request.get_mut("firstAvailable").and_then(Value::as_array_mut).into_iter().flatten() {
            with_defaults(own.ensure_object());
        }
    }
    tree.set_at(&["spec", "devices"], devices);
    tree
}

fn with_defaults(exact: &mut apimachinery::Map) {
    exact.get_or_insert_with("deviceClassName", || "any".into());
    let mode = exact.get_or_insert_with("allocationMode", || "ExactCount".into());
    if mode.as_str() == Some("ExactCount") {
        exact.get_or_insert_with("count", || 1_i64.into());
    }
}

/// A cluster with class `any`, which chooses every device.
pub fn cluster(objects: &[Value]) -> Cluster {
    let mut cluster = Cluster::default();
    for tree in [class("any", "{}")].iter().chain(objects) {
        let resource: &GroupVersionResource =
            if tree.str_at(&["kind"]) == "DeviceClass" { &DEVICE_CLASSES } else { &RESOURCE_SLICES };
        let object = object(tree);
        cluster.set(resource, &ObjectKey::from(&*object), Some(&object));
    }
    cluster
}

pub fn node(name: &str) -> Arc<Node> {
    labelled_node(name, &format!(r#"{{"name":"{name}"}}"#), "{}", "{}")
}

fn wanted(cluster: &mut Cluster, claims: &[Value]) -> Result<Wanted, String> {
    let views = claims.iter().map(|claim| object(claim).view::<ResourceClaim>().expect("a claim"));
    let Cluster { selectors, classes, .. } = cluster;
    Wanted::new(views.collect::<Vec<_>>(), selectors, |name| classes.get(name))
}

pub fn search(
    cluster: &mut Cluster,
    node: &Arc<Node>,
    claims: &[Value],
) -> Result<Option<Vec<Allocation>>, Failure> {
    let wanted = wanted(cluster, claims).map_err(Failure::Fatal)?;
    let pools = cluster.inventory.pools_of(node);
    let Cluster { selectors, claims, .. } = cluster;
    let situation = Situation {
        node,
        pools: &pools,
        allocated: &claims.allocated,
        timeout: std::time::Duration::from_secs(10),
    };
    allocate(&wanted, &situation, selectors)
}

/// `request=pool/device` for each device, claims apart by `;`; or why there are none.
pub fn found(cluster: &mut Cluster, node_name: &str, claims: &[Value]) -> String {
    let result = search(cluster, &node(node_name), claims);
    let wanted = wanted(cluster, claims);
    match (result, wanted) {
        (Err(Failure::Fatal(why)), _) => format!("fatal: {why}"),
        (Err(Failure::OnNode(why)), _) => format!("on node: {why}"),
        (Ok(None), _) => "none".to_owned(),
        (Ok(Some(found)), Ok(wanted)) => {
            let shown = found.iter().zip(&wanted.claims).map(|(found, wanted)| {
                let picks = found.devices.iter().map(|pick| {
                    let name = wanted.name(pick.request, pick.alternative);
                    let device = &pick.slice.devices()[pick.device].name;
                    format!("{name}={}/{device}", pick.slice.view.spec.pool.name)
                });
                picks.collect::<Vec<_>>().join(" ")
            });
            shown.collect::<Vec<_>>().join("; ")
        }
        (Ok(Some(_)), Err(why)) => why,
    }
}

/// Devices that some claim has already, as `pool/device`.
pub fn taken(cluster: &mut Cluster, devices: &[&str]) {
    let results = devices.iter().map(|device| {
        let (pool, device) = device.split_once('/').expect("pool/device");
        json!({"request": "r", "driver": "d.io", "pool": pool, "device": device})
    });
    let mut tree = json!({});
    tree.set_at(&["devices", "results"], results.collect::<Vec<_>>());
    let allocation: AllocationResult = from_value(&tree).expect("test data is an allocation");
    cluster.claims.promise("taken".into(), Arc::new(allocation));
}
