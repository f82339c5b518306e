//! Kinds through every verb: what upstream's conformance tests of their endpoints ask for, one row of [`kinds`] each.

use http::Method;
use serde_json::{Value, json};

use crate::kinds::kinds;
use crate::server::Server;
use crate::wire::{APPLY, MERGE};

const STRATEGIC: &str = "application/strategic-merge-patch+json";

/// Every field and item of a patch has its value.
#[track_caller]
fn assert_holds(object: &Value, patch: &Value) {
    match patch {
        Value::Object(fields) => fields.iter().for_each(|(key, field)| assert_holds(&object[key], field)),
        Value::Array(items) => {
            assert_eq!(object.as_array().map(Vec::len), Some(items.len()), "{object}");
            items.iter().enumerate().for_each(|(at, item)| assert_holds(&object[at], item));
        }
        other => assert_eq!(object, other),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_is_created_read_changed_watched_and_deleted() {
    let (_server, admin) = Server::with_namespace().await;
    for kind in kinds().into_iter().filter(|kind| !kind.is_protected) {
        let list = admin.get(&kind.collection()).await.expect(200);
        let from = list["metadata"]["resourceVersion"].as_str().expect("a version");
        let watch =
            format!("{}?watch=true&resourceVersion={from}&labelSelector=e2e%3Dyes", kind.collection());
        let mut watch = admin.stream(&watch).await;
        let created = kind.create(&admin, "one").await;
        let path = kind.path("one");
        let read = admin.get(&path).await.expect(200);
        assert_eq!(
            (&read["kind"], &read["metadata"]["uid"]),
            (&kind.kind.into(), &created["metadata"]["uid"])
        );
        let everywhere = format!("{}/{}?labelSelector=e2e%3Dyes", kind.root(), kind.plural);
        assert_eq!(admin.get(&everywhere).await.names(), ["one"], "{}", kind.kind);

        let labelled = json!({"metadata": {"labels": {"patched": "yes"}}});
        let patched = admin.patch(&path, STRATEGIC, &labelled).await.expect(200);
        assert_holds(&patched, &labelled);
        let change = (kind.change)();
        let patched = admin.patch(&path, MERGE, &change).await.expect(200);
        assert_holds(&patched, &change);
        let mut replaced = admin.get(&path).await.expect(200);
        replaced["metadata"]["annotations"] = json!({"updated": "yes"});
        let replaced = admin.put(&path, &replaced).await.expect(200);
        assert_eq!(replaced["metadata"]["annotations"]["updated"], "yes");
        if let Some(fixed) = kind.is_fixed {
            let refused = admin.patch(&path, MERGE, &fixed()).await.expect(422);
            assert_eq!(refused["reason"], "Invalid", "{refused}");
        }
        let applied = json!({"apiVersion": kind.api_version, "kind": kind.kind,
            "metadata": {"name": "one", "annotations": {"applied": "yes"}}});
        let apply = format!("{path}?fieldManager=e2e");
        let headers = [("content-type", APPLY)];
        let applied = admin.send(Method::PATCH, &apply, &headers, applied.to_string()).await.expect(200);
        assert_holds(&applied["metadata"]["annotations"], &json!({"applied": "yes", "updated": "yes"}));

        admin.delete(&format!("{path}?propagationPolicy=Background")).await.expect(200);
        admin.get(&path).await.expect(404);
        let mut seen = Vec::new();
        while seen.last().is_none_or(|last| last != "DELETED one") {
            seen.push(watch.next_summary().await);
        }
        let expected =
            ["ADDED one", "MODIFIED one", "MODIFIED one", "MODIFIED one", "MODIFIED one", "DELETED one"];
        assert_eq!(seen, expected, "{}", kind.kind);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_is_written_apart_from_the_rest() {
    let (_server, admin) = Server::with_namespace().await;
    for kind in kinds() {
        let Some(status) = kind.status else { continue };
        let created = kind.create(&admin, "one").await;
        let (path, status_path) = (kind.path("one"), kind.path("one/status"));
        let patch = json!({"metadata": {"annotations": {"patchedstatus": "true"}}, "status": status()});
        let patched = admin.patch(&status_path, MERGE, &patch).await.expect(200);
        assert_holds(&patched, &patch);
        assert_eq!(patched["spec"], created["spec"], "{}", kind.kind);

        let mut updated = admin.get(&status_path).await.expect(200);
        assert_holds(&updated, &json!({"status": status()}));
        updated["spec"]["minReadySeconds"] = 77.into();
        updated["metadata"]["labels"]["through-status"] = "yes".into();
        if let Some(conditions) = updated["status"].get_mut("conditions") {
            conditions[0]["message"] = "updated".into();
        }
        let updated = admin.put(&status_path, &updated).await.expect(200);
        assert_eq!(updated["spec"], created["spec"], "{}: a status write leaves the spec", kind.kind);
        assert_eq!(updated["metadata"]["generation"], created["metadata"]["generation"], "{}", kind.kind);
        if updated["status"].get("conditions").is_some() {
            assert_eq!(updated["status"]["conditions"][0]["message"], "updated");
        }

        let mut whole = admin.get(&path).await.expect(200);
        whole["status"] = json!({});
        let whole = admin.put(&path, &whole).await.expect(200);
        assert_eq!(whole["status"], updated["status"], "{}: other writes leave the status", kind.kind);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scale_is_read_and_written() {
    let (_server, admin) = Server::with_namespace().await;
    for kind in kinds().into_iter().filter(|kind| kind.has_scale) {
        kind.create(&admin, "one").await;
        let (path, scale_path) = (kind.path("one"), kind.path("one/scale"));
        admin.patch(&kind.path("one/status"), MERGE, &json!({"status": {"replicas": 1}})).await.expect(200);
        let mut scale = admin.get(&scale_path).await.expect(200);
        assert_eq!((&scale["apiVersion"], &scale["kind"]), (&json!("autoscaling/v1"), &json!("Scale")));
        assert_eq!(scale["spec"], json!({"replicas": 1}), "{}", kind.kind);
        assert_eq!(scale["status"], json!({"replicas": 1, "selector": "app=a"}), "{}", kind.kind);
        scale["spec"]["replicas"] = 2.into();
        assert_eq!(admin.put(&scale_path, &scale).await.expect(200)["spec"]["replicas"], 2);
        assert_eq!(admin.get(&path).await.expect(200)["spec"]["replicas"], 2, "{}", kind.kind);
        admin.put(&scale_path, &scale).await.expect(409);
        let patched = admin.patch(&scale_path, MERGE, &json!({"spec": {"replicas": 4}})).await.expect(200);
        assert_eq!(patched["spec"]["replicas"], 4);
        let object = admin.get(&path).await.expect(200);
        assert_eq!((&object["spec"]["replicas"], &object["metadata"]["generation"]), (&json!(4), &json!(3)));
        let refused = admin.patch(&scale_path, MERGE, &json!({"spec": {"replicas": -1}})).await.expect(422);
        assert_eq!(refused["details"]["causes"][0]["field"], "spec.replicas", "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn collections_are_listed_everywhere_and_deleted_as_selected() {
    let (server, admin) = Server::with_namespace().await;
    server.add_namespace("u", json!({})).await;
    for kind in kinds().into_iter().filter(|kind| !kind.is_protected) {
        for name in ["one", "two", "three"] {
            kind.create(&admin, name).await;
        }
        let relabelled = json!({"metadata": {"labels": {"e2e": "patched"}}});
        admin.patch(&kind.path("two"), MERGE, &relabelled).await.expect(200);
        let everywhere = format!("{}/{}?labelSelector=e2e", kind.root(), kind.plural);
        if kind.is_namespaced {
            let elsewhere = kind.collection().replace("/namespaces/t/", "/namespaces/u/");
            admin.post(&elsewhere, &kind.manifest("one")).await.expect(201);
            assert_eq!(admin.get(&everywhere).await.names(), ["one", "three", "two", "one"], "{}", kind.kind);
        }
        let selected =
            format!("{}?labelSelector=e2e%3Dpatched&propagationPolicy=Background", kind.collection());
        admin.delete(&selected).await.expect(200);
        let own = format!("{}?labelSelector=e2e", kind.collection());
        assert_eq!(admin.get(&own).await.names(), ["one", "three"], "{}", kind.kind);
        admin.delete(&format!("{own}%3Dyes&propagationPolicy=Background")).await.expect(200);
        assert!(admin.get(&own).await.names().is_empty(), "{}", kind.kind);
        if kind.is_namespaced {
            assert_eq!(admin.get(&everywhere).await.names(), ["one"], "{}: others stay", kind.kind);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_range_gives_pods_their_defaults_and_bounds() {
    let (_server, admin) = Server::with_namespace().await;
    let range = json!({"metadata": {"name": "r"}, "spec": {"limits": [{"type": "Container",
        "min": {"cpu": "50m", "memory": "100Mi"}, "max": {"cpu": "500m", "memory": "500Mi"},
        "defaultRequest": {"cpu": "100m", "memory": "200Mi"}, "default": {"cpu": "300m", "memory": "400Mi"}}]}});
    admin.post("/api/v1/namespaces/t/limitranges", &range).await.expect(201);
    let pod = |name: &str, resources: Value| {
        json!({"metadata": {"name": name},
            "spec": {"containers": [{"name": "c", "image": "i", "resources": resources}]}})
    };
    let pods = "/api/v1/namespaces/t/pods";
    let resources = |pod: Value| pod["spec"]["containers"][0]["resources"].clone();
    let bare = admin.post(pods, &pod("bare", json!({}))).await.expect(201);
    assert_eq!(
        resources(bare),
        json!({"requests": {"cpu": "100m", "memory": "200Mi"}, "limits": {"cpu": "300m", "memory": "400Mi"}})
    );
    let partial = json!({"requests": {"cpu": "150m"}, "limits": {"memory": "450Mi"}});
    let partial = admin.post(pods, &pod("partial", partial)).await.expect(201);
    assert_eq!(
        resources(partial),
        json!({"requests": {"cpu": "150m", "memory": "450Mi"}, "limits": {"cpu": "300m", "memory": "450Mi"}})
    );
    for (name, cpu) in [("little", "10m"), ("much", "600m")] {
        let resources = json!({"requests": {"cpu": cpu}, "limits": {"cpu": cpu}});
        let refused = admin.post(pods, &pod(name, resources)).await.expect(403);
        assert_eq!(refused["reason"], "Forbidden", "{refused}");
    }
}
