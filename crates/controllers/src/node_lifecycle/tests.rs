use apimachinery::{Value, time};

use super::*;
use crate::testing::{World, object};

fn node(name: &str, ready: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/os": "linux", "beta.kubernetes.io/os": "linux"}},
        "status": {"conditions": [{"type": "Ready", "status": ready, "lastHeartbeatTime": "2026-01-01T00:00:00Z"}]}})
}

fn lease(name: &str) -> Value {
    json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": name, "namespace": LEASE_NAMESPACE}, "spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}})
}

fn taints(tree: &Value) -> Vec<String> {
    let taints = tree["spec"].array_at(&["taints"]).iter();
    taints.map(|own| format!("{}:{}", own.str_at(&["key"]), own.str_at(&["effect"]))).collect()
}

fn ready_status(world: &World, name: &str) -> String {
    let tree = world.tree(&NODES, "", name);
    let conditions = tree["status"].array_at(&["conditions"]).iter();
    conditions
        .filter(|own| own.str_at(&["type"]) == "Ready")
        .map(|own| own.str_at(&["status"]).to_owned())
        .collect()
}

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

#[tokio::test(start_paused = true)]
async fn a_silent_node_becomes_unknown_and_its_pods_not_ready() {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "ns"},
        "spec": {"nodeName": "silent"}});
    crate::testing::make_ready(&mut pod);
    let world = World::start(
        vec![descriptor()],
        vec![node("silent", "True"), node("alive", "True"), lease("alive"), pod],
    );
    for _ in 0..20 {
        rt::sleep(Duration::from_secs(3)).await;
        world.fake.edit(&LEASES, LEASE_NAMESPACE, "alive", |lease| {
            let beats = lease["spec"]["leaseTransitions"].as_i64().unwrap_or_default();
            lease.set_at(&["spec", "leaseTransitions"], beats + 1);
        });
        if ready_status(&world, "silent") != "True" {
            break;
        }
    }
    world.wait_for("taints", |_| taints(&world.tree(&NODES, "", "silent")).len() == 2).await;
    assert_eq!(
        taints(&world.tree(&NODES, "", "silent")),
        [format!("{UNREACHABLE}:NoSchedule"), format!("{UNREACHABLE}:NoExecute")]
    );
    assert_eq!(ready_status(&world, "silent"), "Unknown");
    assert_eq!(ready_status(&world, "alive"), "True");
    assert!(taints(&world.tree(&NODES, "", "alive")).is_empty());
    world
        .wait_for("pod marked", |_| {
            world.tree(&PODS, "ns", "p")["status"]["conditions"][0].str_at(&["status"]) == "False"
        })
        .await;
    world
        .wait_for("events", |_| {
            let events = world.events();
            events.iter().any(|event| event == "NodeNotReady: Node silent status is now: NodeNotReady")
                && events.iter().any(|event| event == "NodeNotReady: Node is not ready")
        })
        .await;

    world.fake.edit(&NODES, "", "silent", |tree| {
        tree.set_at(&["status"], node("silent", "True")["status"].clone());
    });
    world.wait_for("recovered", |_| taints(&world.tree(&NODES, "", "silent")).is_empty()).await;
}

#[tokio::test]
async fn the_only_node_is_never_evicted() {
    let world = World::start(vec![descriptor()], vec![node("n", "False")]);
    world.wait_for("a taint", |_| !taints(&world.tree(&NODES, "", "n")).is_empty()).await;
    rt::sleep(Duration::from_millis(20)).await;
    assert_eq!(taints(&world.tree(&NODES, "", "n")), [format!("{NOT_READY}:NoSchedule")]);
    world.fake.seed(node("other", "True"));
    world.wait_for("evicted once another lives", |_| taints(&world.tree(&NODES, "", "n")).len() == 2).await;
}

#[test]
fn taints_follow_conditions_and_leave_others_alone() {
    let now = time::parse("2026-01-01T00:00:00Z").unwrap();
    let planned = |tree: Value, evict: bool, spare: bool| {
        let object = object(tree);
        let node = object.view::<Node>().unwrap();
        plan::node_patch(&object, &node, Readiness::of(&node), evict, spare, now).map(|patch| taints(&patch))
    };
    let with = |ready: &str, change: fn(&mut Value)| {
        let mut tree = node("n", ready);
        change(&mut tree);
        tree
    };
    let foreign = |tree: &mut Value| {
        tree.set_at(&["spec", "taints"], json!([{"key": "team", "value": "a", "effect": "NoSchedule"}]));
    };
    let tainted = |tree: &mut Value| {
        tree.set_at(
            &["spec", "taints"],
            json!([{"key": NOT_READY, "effect": "NoSchedule"},
            {"key": NOT_READY, "effect": "NoExecute"}, {"key": "team", "effect": "NoExecute"}]),
        );
    };
    let list = |taints: &[&str]| Some(taints.iter().map(|own| (*own).to_owned()).collect::<Vec<_>>());

    assert_eq!(planned(with("True", |_| {}), true, false), None);
    assert_eq!(
        planned(with("False", foreign), true, false),
        list(&[
            "team:NoSchedule",
            "node.kubernetes.io/not-ready:NoSchedule",
            "node.kubernetes.io/not-ready:NoExecute"
        ])
    );
    assert_eq!(
        planned(with("False", |_| {}), false, false),
        list(&["node.kubernetes.io/not-ready:NoSchedule"]),
        "not its turn"
    );
    assert_eq!(
        planned(with("Unknown", tainted), false, false),
        list(&[
            "team:NoExecute",
            "node.kubernetes.io/unreachable:NoSchedule",
            "node.kubernetes.io/unreachable:NoExecute"
        ]),
        "an eviction taint is swapped whether it is its turn or not"
    );
    assert_eq!(planned(with("True", tainted), true, false), list(&["team:NoExecute"]));
    assert_eq!(
        planned(with("False", tainted), false, true),
        list(&["node.kubernetes.io/not-ready:NoSchedule", "team:NoExecute"]),
        "spared"
    );
    let cordoned = |tree: &mut Value| tree.set_at(&["spec", "unschedulable"], true);
    assert_eq!(
        planned(with("True", cordoned), true, false),
        list(&["node.kubernetes.io/unschedulable:NoSchedule"])
    );
    let pressed = |tree: &mut Value| {
        tree.set_at(
            &["status", "conditions"],
            json!([{"type": "Ready", "status": "True"},
            {"type": "DiskPressure", "status": "True"}, {"type": "PIDPressure", "status": "False"}]),
        );
    };
    assert_eq!(
        planned(with("True", pressed), true, false),
        list(&["node.kubernetes.io/disk-pressure:NoSchedule"])
    );
}

#[test]
fn conditions_become_unknown_with_upstreams_reasons() {
    let now = time::parse("2026-01-01T00:00:00Z").unwrap();
    let node: Node = serde_json::from_str(
        r#"{"status":{"conditions":[{"type":"Ready","status":"True"},{"type":"DiskPressure","status":"Unknown"}]}}"#,
    )
    .unwrap();
    let patch = plan::unknown_conditions(&node, now).unwrap();
    let shown: Vec<String> = patch["status"]
        .array_at(&["conditions"])
        .iter()
        .map(|own| format!("{} {}", own.str_at(&["type"]), own.str_at(&["reason"])))
        .collect();
    assert_eq!(
        shown,
        [
            "Ready NodeStatusUnknown",
            "MemoryPressure NodeStatusNeverUpdated",
            "PIDPressure NodeStatusNeverUpdated"
        ]
    );
}
