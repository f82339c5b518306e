use api::gvr::{CONFIG_MAPS, NAMESPACES, PODS, REPLICA_SETS};
use apimachinery::{Value, json};

use super::*;
use crate::Propagation;

fn config(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "ns"}, "data": {"a": "1"}})
}

#[tokio::test]
async fn a_stale_update_conflicts() {
    let fake = FakeApi::new();
    let first = fake.create(&CONFIG_MAPS, "ns", config("a"), &WriteOptions::default()).await.unwrap();
    let mut tree = first.to_value();
    tree.set_at(&["data", "a"], "2");
    let options = WriteOptions::default();
    fake.update(&CONFIG_MAPS, "ns", "a", None, tree.clone(), &options).await.unwrap();
    tree.set_at(&["data", "a"], "3");
    let status = fake.update(&CONFIG_MAPS, "ns", "a", None, tree, &options).await.unwrap_err();
    assert!(status.is_conflict(), "{status}");
    let again = fake.create(&CONFIG_MAPS, "ns", config("a"), &options).await.unwrap_err();
    assert!(again.is_already_exists(), "{again}");
}

#[tokio::test]
async fn status_and_spec_are_written_apart() {
    let fake = FakeApi::new();
    let set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "r", "namespace": "ns"},
        "spec": {"replicas": 1}, "status": {"replicas": 7}});
    let options = WriteOptions::default();
    let created = fake.create(&REPLICA_SETS, "ns", set, &options).await.unwrap();
    assert!(created.to_value()["status"].is_null());
    let both = Patch::Merge(json!({"spec": {"replicas": 2}, "status": {"replicas": 1}}));
    let patched = fake.patch(&REPLICA_SETS, "ns", "r", Some("status"), both.clone(), &options).await.unwrap();
    let tree = patched.to_value();
    assert_eq!((tree["spec"]["replicas"].as_i64(), tree["status"]["replicas"].as_i64()), (Some(1), Some(1)));
    assert_eq!(patched.generation(), 1);
    let patched = fake.patch(&REPLICA_SETS, "ns", "r", None, both, &options).await.unwrap();
    assert_eq!(patched.to_value()["spec"]["replicas"].as_i64(), Some(2));
    assert_eq!(patched.generation(), 2);
}

#[tokio::test]
async fn finalizers_hold_a_deleted_object_until_the_last_is_gone() {
    let fake = FakeApi::new();
    fake.seed(config("a"));
    let options = DeleteOptions { propagation: Some(Propagation::Foreground), ..DeleteOptions::default() };
    fake.delete(&CONFIG_MAPS, "ns", "a", &options).await.unwrap();
    let held = fake.peek(&CONFIG_MAPS, "ns", "a").unwrap();
    assert!(held.is_deleting());
    assert_eq!(held.finalizers().collect::<Vec<_>>(), ["foregroundDeletion"]);
    let release = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    fake.patch(&CONFIG_MAPS, "ns", "a", None, release, &WriteOptions::default()).await.unwrap();
    assert!(fake.peek(&CONFIG_MAPS, "ns", "a").is_none());
}

#[tokio::test]
async fn a_scheduled_pod_goes_gracefully_and_an_unscheduled_one_at_once() {
    let fake = FakeApi::new();
    for (name, node) in [("here", "n1"), ("nowhere", "")] {
        fake.seed(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "ns"},
            "spec": {"nodeName": node}}));
        fake.delete(&PODS, "ns", name, &DeleteOptions::default()).await.unwrap();
    }
    assert!(fake.peek(&PODS, "ns", "nowhere").is_none());
    assert!(fake.peek(&PODS, "ns", "here").unwrap().is_deleting());
    let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    fake.delete(&PODS, "ns", "here", &now).await.unwrap();
    assert!(fake.peek(&PODS, "ns", "here").is_none());
}

#[tokio::test]
async fn a_namespace_goes_when_it_is_finalized() {
    let fake = FakeApi::new();
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ns"}});
    let options = WriteOptions::default();
    fake.create(&NAMESPACES, "", namespace, &options).await.unwrap();
    fake.delete(&NAMESPACES, "", "ns", &DeleteOptions::default()).await.unwrap();
    let mut tree = fake.peek(&NAMESPACES, "", "ns").unwrap().to_value();
    assert_eq!(tree.str_at(&["status", "phase"]), "Terminating");
    let refused = fake.create(&CONFIG_MAPS, "ns", config("late"), &options).await.unwrap_err();
    assert_eq!(refused.code, 403);
    tree.set_at(&["spec", "finalizers"], Value::Array(Vec::new()));
    fake.update(&NAMESPACES, "", "ns", Some("finalize"), tree, &options).await.unwrap();
    assert!(fake.peek(&NAMESPACES, "", "ns").is_none());
}

#[tokio::test]
async fn patches_of_every_form_are_applied() {
    let base =
        json!({"a": 1, "list": [1, 2], "conditions": [{"type": "A", "status": "True"}, {"type": "B"}]});
    let rows = [
        (
            Patch::Merge(json!({"a": null, "list": [3], "new": {"x": null, "y": 1}})),
            json!({"list": [3], "new": {"y": 1}, "conditions": [{"type": "A", "status": "True"}, {"type": "B"}]}),
        ),
        (
            Patch::Strategic(json!({"conditions": [{"type": "A", "status": "False"}, {"type": "C"},
                {"$patch": "delete", "type": "B"}]})),
            json!({"a": 1, "list": [1, 2], "conditions": [{"type": "A", "status": "False"}, {"type": "C"}]}),
        ),
        (
            Patch::Json(
                json!([{"op": "test", "path": "/a", "value": 1}, {"op": "remove", "path": "/conditions"},
                {"op": "add", "path": "/list/-", "value": 3}, {"op": "replace", "path": "/a", "value": 2}]),
            ),
            json!({"a": 2, "list": [1, 2, 3]}),
        ),
    ];
    for (patch, wanted) in rows {
        let mut target = base.clone();
        let text = format!("{patch:?}");
        patch::apply(&mut target, patch).unwrap();
        assert_eq!(target, wanted, "{text}");
    }
    let failing = Patch::Json(json!([{"op": "test", "path": "/a", "value": 9}]));
    assert!(patch::apply(&mut base.clone(), failing).unwrap_err().is_invalid());
}

#[tokio::test]
async fn injected_failures_hit_the_calls_they_name() {
    let fake = FakeApi::new();
    fake.fail(|call| (call.name == "bad").then(|| Status::internal("injected")));
    let options = WriteOptions::default();
    fake.create(&CONFIG_MAPS, "ns", config("good"), &options).await.unwrap();
    assert_eq!(fake.create(&CONFIG_MAPS, "ns", config("bad"), &options).await.unwrap_err().code, 500);
    assert_eq!(fake.take_writes(), ["create configmaps ns/good", "create configmaps ns/bad"]);
    assert!(fake.take_writes().is_empty());
}
