use api::gvr::{CONFIG_MAPS, REPLICA_SETS, SECRETS};
use apimachinery::json;

use super::*;
use crate::testing::World;

fn terminating() -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "ns", "deletionTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Terminating"}})
}

fn object(api_version: &str, kind: &str, name: &str) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": "ns"}})
}

fn gone(fake: &client::fake::FakeApi) -> bool {
    fake.peek(&NAMESPACES, "", "ns").is_none()
}

fn messages(fake: &client::fake::FakeApi) -> Vec<String> {
    let tree = fake.peek(&NAMESPACES, "", "ns").map(|own| own.to_value()).unwrap_or_default();
    let conditions = tree["status"].array_at(&["conditions"]).iter();
    let wrong = conditions.filter(|own| own.str_at(&["status"]) == "True");
    wrong.map(|own| format!("{}: {}", own.str_at(&["reason"]), own.str_at(&["message"]))).collect()
}

#[tokio::test]
async fn a_namespace_with_a_thousand_objects_goes_at_once() {
    let started = rt::instant();
    let mut seeds = vec![terminating(), object("apps/v1", "ReplicaSet", "r"), object("v1", "Secret", "s")];
    seeds.extend((0..1000).map(|n| object("v1", "ConfigMap", &format!("m{n}"))));
    seeds.extend((0..500).map(|n| object("v1", "Pod", &format!("p{n}"))));
    let world = World::start(vec![descriptor()], seeds);
    world.wait_for("gone", gone).await;
    println!("1,502 objects in {:?}", started.elapsed());
    for resource in [CONFIG_MAPS, REPLICA_SETS, SECRETS, PODS] {
        assert!(world.fake.peek_all(&resource).is_empty(), "{resource}");
    }
    assert!(started.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn other_namespaces_and_living_ones_are_left_alone() {
    let mut other = object("v1", "ConfigMap", "m");
    other.set_at(&["metadata", "namespace"], "other");
    let alive = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"},
        "spec": {"finalizers": ["kubernetes"]}});
    let world = World::start(vec![descriptor()], vec![terminating(), alive, other]);
    world.wait_for("gone", gone).await;
    assert!(world.fake.peek(&CONFIG_MAPS, "other", "m").is_some());
    assert!(world.fake.peek(&NAMESPACES, "", "other").is_some());
}

#[tokio::test]
async fn pods_go_first_and_their_end_is_awaited_without_polling() {
    let mut pod = object("v1", "Pod", "p");
    pod.set_at(&["spec", "nodeName"], "n1");
    let world = World::start(vec![descriptor()], vec![terminating(), pod, object("v1", "ConfigMap", "m")]);
    world.wait_for("a condition", |fake| !messages(fake).is_empty()).await;
    assert_eq!(
        messages(&world.fake),
        ["SomeResourcesRemain: Some resources are remaining: pods. has 1 resource instances"]
    );
    assert!(world.fake.peek(&CONFIG_MAPS, "ns", "m").is_some(), "the pod may still need it");
    let started = rt::instant();
    world.fake.drop_object(&PODS, "ns", "p");
    world.wait_for("gone", gone).await;
    assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
}

#[tokio::test]
async fn finalizers_of_content_are_told_and_waited_for() {
    let mut map = object("v1", "ConfigMap", "m");
    map.set_at(&["metadata", "finalizers"], vec!["example.com/keep"]);
    let world = World::start(vec![descriptor()], vec![terminating(), map]);
    world.wait_for("conditions", |fake| messages(fake).len() == 2).await;
    assert_eq!(
        messages(&world.fake),
        [
            "SomeResourcesRemain: Some resources are remaining: configmaps. has 1 resource instances",
            "SomeFinalizersRemain: Some content in the namespace has finalizers remaining: example.com/keep in 1 resource instances",
        ]
    );
    world.fake.drop_object(&CONFIG_MAPS, "ns", "m");
    world.wait_for("gone", gone).await;
}

#[tokio::test]
async fn failures_are_told_and_tried_again() {
    let world = World::start(vec![descriptor()], vec![object("v1", "Secret", "s")]);
    let mut failures = 3;
    world.fake.fail(move |call| {
        let fails = call.verb == "deletecollection" && failures > 0;
        failures -= i32::from(fails);
        fails.then(|| Status::internal("out of order"))
    });
    world.fake.seed(terminating());
    world
        .wait_for("told", |fake| {
            messages(fake).iter().any(|message| message.starts_with("ContentDeletionFailed"))
        })
        .await;
    world.wait_for("gone", gone).await;
}
