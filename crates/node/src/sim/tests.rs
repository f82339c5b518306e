//! Simulated nodes against a fake API.

use std::collections::HashSet;
use std::time::Duration;

use api::gvr::LEASES;
use apimachinery::{Status, Value, json};
use client::fake::FakeApi;

use super::*;

fn options(count: usize) -> SimOptions {
    SimOptions { count, ..SimOptions::default() }
}

async fn start(api: &Arc<FakeApi>, options: SimOptions) -> Shutdown {
    let shutdown = Shutdown::new();
    let (ready, is_ready) = oneshot::channel();
    let (api, stop) = (api.clone(), shutdown.clone());
    rt::spawn("sim", async move {
        let informers = Informers::new(api.clone(), stop.clone());
        run(api, &informers, options, ready, stop).await.unwrap();
    });
    is_ready.await.unwrap();
    shutdown
}

fn seed_pod(api: &FakeApi, name: &str, node: &str) {
    api.seed(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "app"}]},
        "status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}]}}));
}

fn pod(api: &FakeApi, name: &str) -> Value {
    api.peek(&PODS, "default", name).map(|pod| pod.to_value()).unwrap_or_default()
}

fn text(api: &FakeApi, name: &str, field: &str) -> String {
    pod(api, name).str_at(&["status", field]).to_owned()
}

/// Waits for a state, not for time to pass.
async fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = rt::instant() + Duration::from_secs(20);
    while !reached() {
        assert!(rt::instant() < deadline, "not reached: {what}");
        rt::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn nodes_are_made_once_and_kept_alive() {
    let api = FakeApi::new();
    let shutdown = start(&api, options(3)).await;
    let names: Vec<String> = api.peek_all(&NODES).iter().map(|node| node.name().to_owned()).collect();
    assert_eq!(names, ["sim-node-0", "sim-node-1", "sim-node-2"]);
    let node = || api.peek(&NODES, "", "sim-node-1").unwrap().view::<api::view::Node>().unwrap();
    until("ready", || node().is_ready()).await;
    let node = node();
    assert_eq!(node.spec.pod_cidr, "10.128.0.128/25");
    assert_eq!(node.address("InternalIP"), Some("172.16.0.2"));
    assert_eq!(node.status.allocatable.get("pods").unwrap(), "110");
    until("leases", || api.peek_all(&LEASES).len() == 3).await;
    shutdown.cancel();

    api.take_writes();
    let again = start(&api, options(3)).await;
    assert!(!api.take_writes().iter().any(|write| write.starts_with("create nodes")));
    again.cancel();
}

#[tokio::test]
async fn pods_run_with_addresses_of_their_own_and_one_write_each() {
    let api = FakeApi::new();
    let shutdown = start(&api, options(2)).await;
    for n in 0..200 {
        seed_pod(&api, &format!("p{n}"), &format!("sim-node-{}", n % 2));
    }
    until("all running", || (0..200).all(|n| text(&api, &format!("p{n}"), "phase") == "Running")).await;
    let addresses: HashSet<String> = (0..200).map(|n| text(&api, &format!("p{n}"), "podIP")).collect();
    assert_eq!(addresses.len(), 200);
    let types: Vec<String> = pod(&api, "p0")
        .array_at(&["status", "conditions"])
        .iter()
        .map(|c| c.str_at(&["type"]).to_owned())
        .collect();
    assert!(
        ["PodScheduled", "Ready", "ContainersReady"].iter().all(|type_| types.iter().any(|own| own == type_))
    );
    assert_eq!(text(&api, "p1", "hostIP"), "172.16.0.2");
    let patches = api.take_writes().iter().filter(|write| write.starts_with("patch pods/status")).count();
    assert_eq!(patches, 200);
    shutdown.cancel();
}

#[tokio::test]
async fn pods_of_other_nodes_are_left_alone_until_the_node_is_declared_fake() {
    let api = FakeApi::new();
    let shutdown = start(&api, options(0)).await;
    api.seed(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "real"}}));
    seed_pod(&api, "p", "real");
    seed_pod(&api, "q", "later");
    api.seed(json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "later", "annotations": {"kwok.x-k8s.io/node": "fake"}}}));
    until("q running", || text(&api, "q", "phase") == "Running").await;
    until("node ready", || {
        api.peek(&NODES, "", "later").unwrap().view::<api::view::Node>().unwrap().is_ready()
    })
    .await;
    assert_eq!(text(&api, "p", "phase"), "Pending");
    assert_eq!(text(&api, "q", "podIP"), "100.64.0.2", "a node without a range uses the shared one");
    shutdown.cancel();
}

#[tokio::test]
async fn deleted_pods_go_at_once_and_their_address_is_free_again() {
    let api = FakeApi::new();
    let shutdown = start(&api, SimOptions { pods: 1, ..options(1) }).await;
    seed_pod(&api, "first", "sim-node-0");
    until("running", || text(&api, "first", "phase") == "Running").await;
    seed_pod(&api, "second", "sim-node-0");
    let grace = client::DeleteOptions { grace_period_seconds: Some(30), ..Default::default() };
    api.delete(&PODS, "default", "first", &grace).await.unwrap();
    until("gone", || api.peek(&PODS, "default", "first").is_none()).await;
    until("the next one runs", || text(&api, "second", "phase") == "Running").await;
    assert_eq!(text(&api, "second", "podIP"), "10.128.0.2", "the range has room for one");
    shutdown.cancel();
}

#[tokio::test]
async fn a_pod_that_waits_for_an_address_can_be_deleted() {
    let api = FakeApi::new();
    let shutdown = start(&api, SimOptions { pods: 1, ..options(1) }).await;
    seed_pod(&api, "holder", "sim-node-0");
    until("running", || text(&api, "holder", "phase") == "Running").await;
    seed_pod(&api, "starved", "sim-node-0");
    seed_pod(&api, "marker", "sim-node-0");
    let grace = client::DeleteOptions { grace_period_seconds: Some(30), ..Default::default() };
    api.delete(&PODS, "default", "starved", &grace).await.unwrap();
    until("gone", || api.peek(&PODS, "default", "starved").is_none()).await;
    assert_eq!(text(&api, "marker", "phase"), "Pending");
    shutdown.cancel();
}

#[tokio::test]
async fn after_a_restart_addresses_in_use_are_kept() {
    let api = FakeApi::new();
    let first = start(&api, options(1)).await;
    for n in 0..5 {
        seed_pod(&api, &format!("p{n}"), "sim-node-0");
    }
    until("running", || (0..5).all(|n| text(&api, &format!("p{n}"), "phase") == "Running")).await;
    first.cancel();
    let second = start(&api, options(1)).await;
    for n in 5..10 {
        seed_pod(&api, &format!("p{n}"), "sim-node-0");
    }
    until("running", || (0..10).all(|n| text(&api, &format!("p{n}"), "phase") == "Running")).await;
    let addresses: HashSet<String> = (0..10).map(|n| text(&api, &format!("p{n}"), "podIP")).collect();
    assert_eq!(addresses.len(), 10);
    second.cancel();
}

#[tokio::test]
async fn writes_that_fail_are_tried_again() {
    let api = FakeApi::new();
    let mut failures = 2;
    api.fail(move |call| {
        let fails = call.subresource == "status" && call.resource == "pods" && failures > 0;
        failures -= i32::from(fails);
        fails.then(|| Status::internal("disk full"))
    });
    let shutdown = start(&api, options(1)).await;
    seed_pod(&api, "p", "sim-node-0");
    until("running", || text(&api, "p", "phase") == "Running").await;
    shutdown.cancel();
}

#[tokio::test]
async fn stale_informers_cause_no_second_write() {
    let api = FakeApi::new();
    let shutdown = start(&api, options(1)).await;
    seed_pod(&api, "p", "sim-node-0");
    until("running", || text(&api, "p", "phase") == "Running").await;
    for n in 0..20 {
        api.edit(&PODS, "default", "p", |pod| pod.set_at(&["metadata", "labels", "n"], n.to_string()));
    }
    seed_pod(&api, "q", "sim-node-0");
    until("running", || text(&api, "q", "phase") == "Running").await;
    let patches =
        api.take_writes().iter().filter(|write| write.as_str() == "patch pods/status default/p").count();
    assert_eq!(patches, 1);
    shutdown.cancel();
}

#[test]
fn options_that_cannot_be_met_are_refused_by_name() {
    let error = |options| Plan::new(options).err().map(|error| error.to_string()).unwrap_or_default();
    assert_eq!(
        error(SimOptions { pod_cidr: "10.0.0.0/24".into(), ..options(3) }),
        "simulated nodes: pod range 10.0.0.0/24 has room for 2 nodes of 110 pods each, not for 3"
    );
    assert_eq!(
        error(SimOptions { pod_cidr: "fd00::/48".into(), ..options(3) }),
        "simulated nodes: pod range \"fd00::/48\": want an IPv4 range such as 10.128.0.0/9"
    );
    assert_eq!(
        error(SimOptions { memory: "lots".into(), ..options(3) }),
        "simulated nodes: memory: \"lots\" is not a quantity such as 4 or 256Gi"
    );
    assert_eq!(error(options(65_536)), "");
}

#[test]
fn many_nodes_are_for_fewer_pods_each() {
    for (count, pods) in [(1, 110), (65_536, 110), (65_537, 55), (100_000, 55)] {
        let options = SimOptions::of(count);
        assert_eq!(options.pods, pods, "{count} nodes");
        assert!(Plan::new(options).is_ok(), "{count} nodes");
    }
}
