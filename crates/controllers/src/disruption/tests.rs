use std::time::Duration;

use api::gvr::{POD_DISRUPTION_BUDGETS, PODS, REPLICA_SETS};
use apimachinery::{Value, json, time};
use client::fake::FakeApi;

use super::*;
use crate::testing::World;

const UID: &str = "5e7";

fn pod(name: &str, owner: Option<(&str, &str, &str)>, ready: bool) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "ns", "labels": {"app": "web"}},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}});
    if let Some((api_version, kind, uid)) = owner {
        pod.set_at(
            &["metadata", "ownerReferences"],
            json!([{"apiVersion": api_version, "kind": kind, "name": "web", "uid": uid, "controller": true}]),
        );
    }
    pod
}

fn of_set(name: &str, ready: bool) -> Value {
    pod(name, Some(("apps/v1", "ReplicaSet", UID)), ready)
}

fn replica_set(replicas: i64) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": "web", "namespace": "ns", "uid": UID}, "spec": {"replicas": replicas}})
}

fn budget(spec: Value) -> Value {
    let mut budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": "web", "namespace": "ns", "generation": 1},
        "spec": {"selector": {"matchLabels": {"app": "web"}}}});
    for (key, value) in spec.as_object().expect("a spec").iter() {
        budget.set_at(&["spec", key], value.clone());
    }
    budget
}

fn status(fake: &FakeApi) -> Value {
    fake.peek(&POD_DISRUPTION_BUDGETS, "ns", "web")
        .map(|own| own.to_value()["status"].clone())
        .unwrap_or_default()
}

/// Healthy, desired, expected and allowed.
fn numbers(status: &Value) -> [i64; 4] {
    ["currentHealthy", "desiredHealthy", "expectedPods", "disruptionsAllowed"]
        .map(|key| status[key].as_i64().unwrap_or(-1))
}

fn condition(status: &Value) -> (String, String) {
    let condition = &status["conditions"][0];
    (condition.str_at(&["reason"]).into(), condition.str_at(&["message"]).into())
}

#[tokio::test]
async fn budgets_allow_what_their_bounds_and_the_scale_leave() {
    let five = || (0..5).map(|n| of_set(&format!("p{n}"), n > 0)).collect::<Vec<_>>();
    let rows = [
        (json!({"minAvailable": 2}), [4, 2, 5, 2]),
        (json!({"minAvailable": 5}), [4, 5, 5, 0]),
        // Of ten that the ReplicaSet asks for.
        (json!({"minAvailable": "31%"}), [4, 4, 10, 0]),
        (json!({"minAvailable": "30%"}), [4, 3, 10, 1]),
        (json!({"maxUnavailable": 7}), [4, 3, 10, 1]),
        (json!({"maxUnavailable": 20}), [4, 0, 10, 4]),
        (json!({"maxUnavailable": "65%"}), [4, 3, 10, 1]),
        (json!({}), [4, 0, 5, 4]),
    ];
    for (spec, wanted) in rows {
        let mut seeds = five();
        seeds.extend([replica_set(10), budget(spec.clone())]);
        let world = World::start(vec![descriptor()], seeds);
        world.wait_for("a status", |fake| status(fake)["observedGeneration"].as_i64() == Some(1)).await;
        let status = status(&world.fake);
        assert_eq!(numbers(&status), wanted, "{spec}");
        let reason = if wanted[3] > 0 { "SufficientPods" } else { "InsufficientPods" };
        assert_eq!(condition(&status), (reason.into(), String::new()), "{spec}");
    }
}

#[tokio::test]
async fn scales_come_from_the_workload_on_top() {
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "ns", "uid": "d"}, "spec": {"replicas": 6}});
    let mut set = replica_set(3);
    set.set_at(
        &["metadata", "ownerReferences"],
        json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "d", "controller": true}]),
    );
    let stateful = json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": "web", "namespace": "ns", "uid": "s"}, "spec": {"replicas": 4}});
    let seeds = vec![
        deployment,
        set,
        stateful,
        of_set("a", true),
        of_set("b", true),
        pod("c", Some(("apps/v1", "StatefulSet", "s")), true),
        budget(json!({"maxUnavailable": 8})),
    ];
    let world = World::start(vec![descriptor()], seeds);
    world.wait_for("both scales", |fake| numbers(&status(fake)) == [3, 2, 10, 1]).await;
    let asked: Vec<_> = world.fake.calls().into_iter().filter(|call| call.subresource == "scale").collect();
    assert!(asked.is_empty(), "the caches know them all: {asked:?}");
}

#[tokio::test]
async fn a_replica_set_under_no_deployment_counts_for_itself() {
    let owned_by = |api_version: &str, kind: &str| {
        let mut set = replica_set(10);
        set.set_at(
            &["metadata", "ownerReferences"],
            json!([{"apiVersion": api_version, "kind": kind, "name": "web", "uid": "x", "controller": true}]),
        );
        set
    };
    for set in [owned_by("apps/v1", "Deployment"), owned_by("example.com/v1", "Rollout")] {
        let seeds = vec![set, of_set("a", true), budget(json!({"maxUnavailable": 9}))];
        let world = World::start(vec![descriptor()], seeds);
        world.wait_for("its scale", |fake| numbers(&status(fake)) == [1, 1, 10, 0]).await;
    }
}

#[tokio::test]
async fn a_controller_that_appears_later_is_found() {
    let stateful = json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": "web", "namespace": "ns", "uid": "s"}, "spec": {"replicas": 2}});
    let replication = json!({"apiVersion": "v1", "kind": "ReplicationController",
        "metadata": {"name": "web", "namespace": "ns", "uid": "c"}, "spec": {"replicas": 3}});
    let seeds = vec![
        pod("a", Some(("apps/v1", "StatefulSet", "s")), true),
        pod("b", Some(("v1", "ReplicationController", "c")), true),
        budget(json!({"maxUnavailable": 4})),
    ];
    let world = World::start(vec![descriptor()], seeds);
    world.wait_for("a refusal", |fake| condition(&status(fake)).0 == "SyncFailed").await;
    world.fake.seed(stateful);
    world.fake.seed(replication);
    world.wait_for("both scales", |fake| numbers(&status(fake)) == [2, 1, 5, 1]).await;
}

#[tokio::test]
async fn what_cannot_be_judged_allows_nothing_and_says_why() {
    let job = json!({"apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "web", "namespace": "ns", "uid": "j"}, "spec": {}});
    let rows = [
        (vec![of_set("a", true)], "found no controllers for pod \"a\""),
        (
            vec![job, pod("a", Some(("batch/v1", "Job", "j")), true)],
            "jobs.batch does not implement the scale subresource",
        ),
        (
            vec![pod("a", Some(("example.com/v1", "Web", "w")), true)],
            "no matches for kind \"Web\" in version \"example.com/v1\"",
        ),
    ];
    for (mut seeds, why) in rows {
        seeds.push(budget(json!({"maxUnavailable": 1})));
        let world = World::start(vec![descriptor()], seeds);
        world.wait_for("a refusal", |fake| !status(fake)["conditions"].is_null()).await;
        let status = status(&world.fake);
        assert_eq!(condition(&status), ("SyncFailed".into(), why.into()));
        assert_eq!(numbers(&status), [0, 0, 0, 0]);
        assert!(status["observedGeneration"].is_null(), "it was not judged: {status}");
        let told = format!(
            "CalculateExpectedPodCountFailed: Failed to calculate the number of expected pods: {why}"
        );
        world.wait_for("an event", |_| world.events().contains(&told)).await;
    }
}

#[tokio::test]
async fn pods_that_come_go_and_change_are_followed() {
    let world = World::start(vec![descriptor()], vec![budget(json!({"minAvailable": 1}))]);
    world.wait_for("no pods", |fake| numbers(&status(fake)) == [0, 1, 0, 0]).await;
    world.wait_for("an event", |_| world.events().contains(&"NoPods: No matching pods found".into())).await;
    for name in ["a", "b", "c"] {
        world.fake.seed(pod(name, None, true));
    }
    world.wait_for("three", |fake| numbers(&status(fake)) == [3, 1, 3, 2]).await;
    world.fake.edit(&PODS, "ns", "a", |pod| {
        pod.set_at(&["status", "conditions"], json!([{"type": "Ready", "status": "False"}]));
    });
    world.wait_for("one unready", |fake| numbers(&status(fake)) == [2, 1, 3, 1]).await;
    world.fake.edit(&PODS, "ns", "b", |pod| pod.set_at(&["metadata", "labels"], json!({"app": "other"})));
    world.wait_for("one that is no longer covered", |fake| numbers(&status(fake)) == [1, 1, 2, 0]).await;
    world.fake.drop_object(&PODS, "ns", "a");
    world.wait_for("one gone", |fake| numbers(&status(fake)) == [1, 1, 1, 0]).await;
    assert!(world.fake.peek(&REPLICA_SETS, "ns", "web").is_none(), "bare pods need no controller here");
}

/// This long before an eviction that was granted is overdue.
fn nearly_overdue() -> String {
    let at = rt::now() - (plan::DELETION_MAX - Duration::from_secs(2));
    time::format_seconds(at)
}

#[tokio::test]
async fn an_eviction_is_counted_until_the_pod_goes_or_its_time_is_over() {
    let mut granted = budget(json!({"minAvailable": 1}));
    granted.set_at(&["status", "disruptedPods", "a"], nearly_overdue());
    let seeds = vec![pod("a", None, true), pod("b", None, true), pod("c", None, true), granted];
    let world = World::start(vec![descriptor()], seeds);
    world.wait_for("the debt", |fake| numbers(&status(fake)) == [2, 1, 3, 1]).await;
    assert!(!status(&world.fake)["disruptedPods"]["a"].is_null());
    world.wait_for("forgiveness", |fake| numbers(&status(fake)) == [3, 1, 3, 2]).await;
    assert!(status(&world.fake)["disruptedPods"].is_null());
    let told = "NotDeleted: Pod was expected by PDB ns/web to be deleted but it wasn't";
    world.wait_for("an event", |_| world.events().iter().any(|event| event == told)).await;
}

#[tokio::test]
async fn a_target_that_stays_loses_its_mark() {
    let marked = |name: &str, reason: &str| {
        let mut pod = pod(name, None, true);
        let condition = json!([{"type": "DisruptionTarget", "status": "True", "reason": reason,
            "message": "going", "lastTransitionTime": nearly_overdue()}]);
        pod.set_at(&["status", "conditions"], condition);
        pod
    };
    let seeds = vec![marked("a", "EvictionByEvictionAPI"), marked("b", "TerminationByKubelet")];
    let world = World::start(vec![stale::descriptor()], seeds);
    let state = |fake: &FakeApi, name: &str| {
        let pod = fake.peek(&PODS, "ns", name).expect("the pod").to_value();
        pod.array_at(&["status", "conditions"])[0].clone()
    };
    assert_eq!(state(&world.fake, "a").str_at(&["status"]), "True");
    world.wait_for("the mark taken back", |fake| state(fake, "a").str_at(&["status"]) == "False").await;
    assert!(state(&world.fake, "a")["reason"].is_null());
    assert_eq!(state(&world.fake, "b").str_at(&["status"]), "True");
}
