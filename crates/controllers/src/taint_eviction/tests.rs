use std::time::Duration;

use apimachinery::{Value, json, time};

use super::*;
use crate::testing::World;

fn node(taints: Value) -> Value {
    let mut node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}});
    node.set_at(&["spec", "taints"], taints);
    node
}

fn pod(name: &str, tolerations: Value) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "ns", "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"nodeName": "n"}});
    pod.set_at(&["spec", "tolerations"], tolerations);
    pod
}

#[tokio::test]
async fn pods_go_unless_they_tolerate() {
    let seconds = |number: i64| json!([{"key": "t", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": number}]);
    let world = World::start(
        vec![descriptor()],
        vec![
            node(json!([])),
            pod("intolerant", json!([])),
            pod("tolerant", json!([{"operator": "Exists"}])),
            pod("soon", seconds(1)),
            pod("later", seconds(1_000_000_000)),
        ],
    );
    world
        .wait_for("caches", |fake| fake.calls().iter().filter(|call| call.verb == "watch").count() >= 2)
        .await;
    world.fake.edit(&NODES, "", "n", |node| {
        node.set_at(
            &["spec", "taints"],
            json!([{"key": "t", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"}]),
        );
    });
    let deleting = |fake: &client::fake::FakeApi, name: &str| {
        fake.peek(&PODS, "ns", name).is_some_and(|pod| pod.is_deleting())
    };
    world.wait_for("two go", |fake| deleting(fake, "intolerant") && deleting(fake, "soon")).await;
    assert!(!deleting(&world.fake, "tolerant") && !deleting(&world.fake, "later"));
    let condition = world.tree(&PODS, "ns", "intolerant")["status"]["conditions"][0].clone();
    assert_eq!(condition.str_at(&["reason"]), "DeletionByTaintManager");
    world.fake.edit(&NODES, "", "n", |node| node.set_at(&["spec", "taints"], json!([])));
    world
        .wait_for("events", |_| {
            let events = world.events();
            events.contains(&"TaintManagerEviction: Marking for deletion Pod ns/soon".to_owned())
                && events.contains(&"TaintManagerEviction: Cancelling deletion of Pod ns/later".to_owned())
        })
        .await;
}

#[test]
fn the_shortest_toleration_counts_from_when_pod_and_taint_met() {
    let read = |text: &str| time::parse(text).unwrap();
    let judge = |taints: Value, tolerations: Value, now: &str| {
        let node = crate::testing::object(node(taints)).view::<Node>().unwrap();
        let pod = crate::testing::object(pod("p", tolerations)).view::<Pod>().unwrap();
        plan::judge(&pod, &node, read(now))
    };
    let taint =
        |key: &str, added: &str| json!({"key": key, "value": "v", "effect": "NoExecute", "timeAdded": added});
    let for_seconds =
        |key: &str, number: i64| json!({"key": key, "operator": "Exists", "tolerationSeconds": number});
    let (a, b) = (taint("a", "2026-01-01T00:00:10Z"), taint("b", "2025-12-31T00:00:00Z"));
    let rows = [
        (vec![], vec![], Verdict::Stays),
        (vec![a.clone()], vec![], Verdict::Goes),
        (vec![a.clone()], vec![json!({"key": "a", "value": "v"})], Verdict::Stays),
        (vec![a.clone()], vec![json!({"key": "a", "value": "w"})], Verdict::Goes),
        (
            vec![a.clone()],
            vec![json!({"key": "a", "operator": "Exists", "effect": "NoSchedule"})],
            Verdict::Goes,
        ),
        (vec![a.clone()], vec![for_seconds("a", 30)], Verdict::GoesAfter(Duration::from_secs(20))),
        (vec![a.clone()], vec![for_seconds("a", 5)], Verdict::Goes),
        (vec![a.clone()], vec![for_seconds("a", -5)], Verdict::Goes),
        // `b` is older than the pod, so its time counts from the pod's creation.
        (
            vec![a.clone(), b.clone()],
            vec![for_seconds("a", 30), for_seconds("b", 25)],
            Verdict::GoesAfter(Duration::from_secs(5)),
        ),
        (vec![json!({"key": "soft", "effect": "NoSchedule"})], vec![], Verdict::Stays),
    ];
    for (taints, tolerations, wanted) in rows {
        let shown = format!("{taints:?} {tolerations:?}");
        assert_eq!(
            judge(Value::Array(taints), Value::Array(tolerations), "2026-01-01T00:00:20Z"),
            wanted,
            "{shown}"
        );
    }
}
