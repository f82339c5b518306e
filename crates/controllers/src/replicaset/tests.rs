use std::time::Duration;

use api::gvr::{REPLICA_SETS, REPLICATION_CONTROLLERS};
use apimachinery::{Value, json, time};

use super::*;
use crate::testing::{World, make_ready, object};

fn set(replicas: i32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": "web", "namespace": "ns", "uid": "set-uid", "generation": 1},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}, "annotations": {"note": "x"}},
            "spec": {"containers": [{"name": "c", "image": "i"}], "anUnknownField": 1}}}
    })
}

fn pod(name: &str, labels: Value, owner: Option<&str>) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "ns"},
        "spec": {}, "status": {"phase": "Running"}});
    pod.set_at(&["metadata", "labels"], labels);
    if let Some(uid) = owner {
        pod.set_at(
            &["metadata", "ownerReferences"],
            json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet",
            "name": "web", "uid": uid, "controller": true}]),
        );
    }
    pod
}

fn replicas(fake: &client::fake::FakeApi) -> (i64, i64) {
    let tree = fake.peek(&REPLICA_SETS, "ns", "web").map(|object| object.to_value()).unwrap_or_default();
    (tree["status"]["replicas"].as_i64().unwrap_or(-1), tree["status"]["readyReplicas"].as_i64().unwrap_or(0))
}

#[tokio::test]
async fn pods_are_made_of_the_template_and_owned() {
    let world = World::start(vec![descriptor()], vec![set(2)]);
    world.wait_for("two pods", |fake| replicas(fake) == (2, 0)).await;
    let pod = world.fake.peek_all(&PODS)[0].to_value();
    assert!(pod.str_at(&["metadata", "name"]).starts_with("web-"));
    assert_eq!(pod["metadata"]["annotations"], json!({"note": "x"}));
    assert_eq!(pod["spec"]["anUnknownField"].as_i64(), Some(1));
    assert_eq!(
        pod["metadata"]["ownerReferences"],
        json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet",
        "name": "web", "uid": "set-uid", "controller": true, "blockOwnerDeletion": true}])
    );
    world.run_pods();
    world.wait_for("both ready", |fake| replicas(fake) == (2, 2)).await;
    let status = world.tree(&REPLICA_SETS, "ns", "web")["status"].clone();
    assert_eq!(
        status,
        json!({"replicas": 2, "fullyLabeledReplicas": 2, "readyReplicas": 2, "availableReplicas": 2,
        "terminatingReplicas": 0, "observedGeneration": 1})
    );
}

#[tokio::test]
async fn a_replication_controller_selects_by_a_map_and_counts_the_same() {
    let orphan = pod("orphan", json!({"app": "web"}), None);
    let world = World::start(vec![replication_descriptor()], vec![controller(2), orphan]);
    let status = |world: &World| world.tree(&REPLICATION_CONTROLLERS, "ns", "web")["status"].clone();
    world.wait_for("two pods", |fake| fake.peek_all(&PODS).len() == 2).await;
    world.run_pods();
    world.wait_for("one ready", |_| status(&world)["readyReplicas"].as_i64() == Some(1)).await;
    world.fake.edit(&PODS, "ns", "orphan", make_ready);
    world.wait_for("both ready", |_| status(&world)["readyReplicas"].as_i64() == Some(2)).await;
    assert_eq!(
        status(&world),
        json!({"replicas": 2, "fullyLabeledReplicas": 2, "readyReplicas": 2, "availableReplicas": 2,
        "observedGeneration": 1})
    );
    let owners = world
        .fake
        .peek_all(&PODS)
        .into_iter()
        .map(|pod| pod.to_value()["metadata"]["ownerReferences"].clone());
    for owner in owners {
        assert_eq!(
            (owner[0].str_at(&["apiVersion"]), owner[0].str_at(&["kind"])),
            ("v1", "ReplicationController")
        );
    }
    world.fake.edit(&REPLICATION_CONTROLLERS, "ns", "web", |own| own.set_at(&["spec", "replicas"], 0));
    world.wait_for("none", |fake| fake.peek_all(&PODS).is_empty()).await;
    world
        .wait_for("an event", |_| world.events().iter().any(|event| event.starts_with("SuccessfulDelete: ")))
        .await;
}

fn controller(replicas: i32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ReplicationController",
        "metadata": {"name": "web", "namespace": "ns", "uid": "rc-uid", "generation": 1},
        "spec": {"replicas": replicas, "selector": {"app": "web"}, "template": {
            "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}
    })
}

#[tokio::test]
async fn a_replication_controller_adopts_what_matches_and_releases_what_no_longer_does() {
    let seeds = vec![controller(1), pod("own", json!({"app": "web"}), None)];
    let world = World::start(vec![replication_descriptor()], seeds);
    let owner = |name: &str| world.tree(&PODS, "ns", name)["metadata"]["ownerReferences"][0].clone();
    world.wait_for("it is adopted", |_| owner("own").str_at(&["uid"]) == "rc-uid").await;
    assert_eq!(world.fake.peek_all(&PODS).len(), 1, "none is made beside it");
    world.fake.edit(&PODS, "ns", "own", |pod| pod.set_at(&["metadata", "labels", "app"], "other"));
    world.wait_for("it is released and replaced", |fake| fake.peek_all(&PODS).len() == 2).await;
    world.wait_for("it has no owner", |_| owner("own").str_at(&["uid"]).is_empty()).await;
}

#[tokio::test]
async fn a_replication_controller_says_what_holds_it_up_until_it_asks_for_less() {
    let world = World::start(vec![replication_descriptor()], vec![]);
    let mut allowed = 2;
    world.fake.fail(move |call| {
        let counts = call.verb == "create" && call.resource == "pods";
        allowed -= i32::from(counts);
        (counts && allowed < 0).then(|| Status::forbidden(&PODS.group_resource(), "", "exceeded quota: q"))
    });
    world.fake.seed(controller(3));
    let condition =
        |world: &World| world.tree(&REPLICATION_CONTROLLERS, "ns", "web")["status"]["conditions"][0].clone();
    world.wait_for("a condition", |_| condition(&world).str_at(&["reason"]) == "FailedCreate").await;
    let said = condition(&world);
    assert_eq!((said.str_at(&["type"]), said.str_at(&["status"])), ("ReplicaFailure", "True"));
    assert!(said.str_at(&["message"]).ends_with("exceeded quota: q"), "{said}");
    world.fake.edit(&REPLICATION_CONTROLLERS, "ns", "web", |own| own.set_at(&["spec", "replicas"], 2));
    world.wait_for("no condition", |_| condition(&world).str_at(&["type"]).is_empty()).await;
    assert_eq!(world.fake.peek_all(&PODS).len(), 2);
}

#[tokio::test]
async fn a_thousand_pods_are_made_once_and_quickly() {
    let started = rt::instant();
    let world = World::start(vec![descriptor()], vec![set(1000)]);
    world.wait_for("a thousand pods", |fake| replicas(fake).0 == 1000).await;
    println!("1,000 pods in {:?}", started.elapsed());
    rt::sleep(Duration::from_millis(20)).await;
    assert_eq!(world.fake.peek_all(&PODS).len(), 1000);
}

#[tokio::test]
async fn a_stale_cache_makes_no_pod_twice() {
    let world = World::start(vec![descriptor()], vec![]);
    world
        .wait_for("caches", |fake| fake.calls().iter().filter(|call| call.verb == "watch").count() >= 2)
        .await;
    world.fake.seed(set(3));
    world.wait_for("three pods", |fake| fake.peek_all(&PODS).len() == 3).await;
    world.fake.pause_watches();
    // The set is reconciled again (after its status conflicts) while its cache lacks what follows.
    let victim = world.fake.peek_all(&PODS)[0].name().to_owned();
    world.fake.drop_object(&PODS, "ns", &victim);
    world.fake.resume_watches();
    world.wait_for("three pods again", |fake| fake.peek_all(&PODS).len() == 3 && replicas(fake).0 == 3).await;
    rt::sleep(Duration::from_millis(20)).await;
    assert_eq!(world.fake.peek_all(&PODS).len(), 3);
}

#[tokio::test]
async fn orphans_are_adopted_and_strays_released() {
    let seeds = vec![
        set(2),
        pod("orphan", json!({"app": "web"}), None),
        pod("stray", json!({"app": "other"}), Some("set-uid")),
        pod("foreign", json!({"app": "web"}), Some("other-uid")),
    ];
    let world = World::start(vec![descriptor()], seeds);
    world.wait_for("two replicas", |fake| replicas(fake).0 == 2).await;
    let owner = |name: &str| {
        world.tree(&PODS, "ns", name)["metadata"]["ownerReferences"][0].str_at(&["uid"]).to_owned()
    };
    assert_eq!(owner("orphan"), "set-uid");
    assert_eq!(owner("stray"), "");
    assert_eq!(owner("foreign"), "other-uid");
    assert_eq!(world.fake.peek_all(&PODS).len(), 4, "one more was made");
}

#[tokio::test]
async fn scaling_down_deletes_with_events() {
    let world = World::start(vec![descriptor()], vec![set(5)]);
    world.wait_for("five", |fake| replicas(fake).0 == 5).await;
    world.fake.edit(&REPLICA_SETS, "ns", "web", |set| set.set_at(&["spec", "replicas"], 0));
    world.wait_for("none", |fake| replicas(fake).0 == 0 && fake.peek_all(&PODS).is_empty()).await;
    world
        .wait_for("an event", |_| world.events().iter().any(|event| event.starts_with("SuccessfulDelete: ")))
        .await;
}

#[tokio::test]
async fn a_refused_create_is_a_condition_and_stops_the_burst() {
    let world = World::start(vec![descriptor()], vec![]);
    world.fake.fail(|call| {
        let refused = call.verb == "create" && call.resource == "pods";
        refused.then(|| Status::forbidden(&PODS.group_resource(), "", "exceeded quota: q"))
    });
    world.fake.seed(set(100));
    let failing = |fake: &client::fake::FakeApi| {
        let tree = fake.peek(&REPLICA_SETS, "ns", "web").map(|object| object.to_value()).unwrap_or_default();
        tree["status"]["conditions"][0].str_at(&["reason"]) == "FailedCreate"
    };
    world.wait_for("a condition", failing).await;
    let creates =
        world.fake.calls().iter().filter(|call| call.verb == "create" && call.resource == "pods").count();
    assert!(creates < 10, "{creates} creates after the first was refused");
    world
        .wait_for("an event", |_| {
            world.events().iter().any(|e| e.starts_with("FailedCreate: Error creating: "))
        })
        .await;
}

fn ranked(name: &str, node: &str, change: impl FnOnce(&mut Value)) -> PodOf {
    let mut tree = pod(name, json!({}), None);
    tree.set_at(&["metadata", "uid"], name);
    tree.set_at(&["metadata", "creationTimestamp"], "2026-01-01T00:00:00Z");
    tree.set_at(&["spec", "nodeName"], node);
    make_ready(&mut tree);
    tree.set_at(
        &["status", "conditions"],
        json!([{"type": "Ready", "status": "True",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]),
    );
    change(&mut tree);
    let object = object(tree);
    PodOf { pod: object.view::<Pod>().unwrap(), object }
}

#[test]
fn victims_are_chosen_in_upstreams_order() {
    let not_ready = |pod: &mut Value| pod.set_at(&["status", "conditions"], json!([]));
    let pods = [
        ranked("steady", "n1", |_| {}),
        ranked("restarted", "n1", |pod| {
            pod.set_at(&["status", "containerStatuses"], json!([{"name": "c", "restartCount": 3}]));
        }),
        ranked("recent", "n1", |pod| {
            pod.set_at(
                &["status", "conditions"],
                json!([{"type": "Ready", "status": "True",
                "lastTransitionTime": "2026-01-01T23:59:00Z"}]),
            );
        }),
        ranked("crowded", "n2", |_| {}),
        ranked("cheap", "n1", |pod| pod.set_at(&["metadata", "annotations", DELETION_COST_KEY], "-5")),
        ranked("not-ready", "n1", not_ready),
        ranked("pending", "n1", |pod| pod.set_at(&["status", "phase"], "Pending")),
        ranked("unassigned", "", |pod| pod.set_at(&["status", "phase"], "Pending")),
    ];
    let crowd: Vec<Arc<Pod>> = (0..20).map(|n| ranked(&format!("c{n}"), "n2", |_| {}).pod).collect();
    let now = time::parse("2026-01-02T00:00:00Z").unwrap();
    let order = plan::victims(&pods, &crowd, pods.len() - 1, now);
    let names: Vec<&str> = order.iter().map(|own| own.object.name()).collect();
    assert_eq!(names, ["unassigned", "pending", "not-ready", "cheap", "crowded", "recent", "restarted"]);
    assert_eq!(plan::victims(&pods, &crowd, 100, now).len(), pods.len());
}

const DELETION_COST_KEY: &str = "controller.kubernetes.io/pod-deletion-cost";

#[test]
fn the_change_is_bounded_by_the_burst() {
    let of = |replicas| ReplicaSet {
        spec: api::view::ReplicaSetSpec { replicas, ..Default::default() },
        ..ReplicaSet::default()
    };
    let rows = [
        (Some(3), 3, Change::Nothing),
        (Some(3), 1, Change::Create(2)),
        (None, 0, Change::Create(1)),
        (Some(0), 4, Change::Delete(4)),
        (Some(-1), 1, Change::Delete(1)),
        (Some(100), 0, Change::Create(10)),
        (Some(0), 100, Change::Delete(10)),
    ];
    for (replicas, active, wanted) in rows {
        assert_eq!(plan::change(&of(replicas), active, 10), wanted, "{replicas:?} {active}");
    }
}
