//! Deletion: finalizers, grace, propagation, collections.

use serde_json::{Value, json};

use crate::server::Server;
use crate::wire::{Client, MERGE};

const CONFIG_MAPS: &str = "/api/v1/namespaces/t/configmaps";
const PODS: &str = "/api/v1/namespaces/t/pods";

async fn create(client: &Client, name: &str, metadata: Value) -> String {
    let mut metadata = metadata;
    metadata["name"] = name.into();
    client.post(CONFIG_MAPS, &json!({ "metadata": metadata })).await.expect(201);
    format!("{CONFIG_MAPS}/{name}")
}

async fn create_pod(client: &Client, name: &str, node: &str) -> String {
    let spec = json!({"containers": [{"name": "c", "image": "i"}], "nodeName": node});
    client.post(PODS, &json!({"metadata": {"name": name}, "spec": spec})).await.expect(201);
    format!("{PODS}/{name}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_goes_with_its_last_finalizer() {
    let (_server, admin) = Server::with_namespace().await;
    let path = create(&admin, "m", json!({"finalizers": ["example.com/a", "example.com/b"]})).await;
    let marked = admin.delete(&path).await.expect(200);
    assert_eq!(marked["kind"], "ConfigMap");
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0);
    let again = admin.delete(&path).await.expect(200);
    assert_eq!(
        again["metadata"]["resourceVersion"], marked["metadata"]["resourceVersion"],
        "nothing more to mark"
    );
    let added = json!({"metadata": {"finalizers": ["example.com/a", "example.com/b", "example.com/c"]}});
    let refused = admin.patch(&path, MERGE, &added).await.expect(422);
    assert_eq!(refused["details"]["causes"][0]["field"], "metadata.finalizers", "{refused}");
    admin.patch(&path, MERGE, &json!({"metadata": {"finalizers": ["example.com/b"]}})).await.expect(200);
    admin.get(&path).await.expect(200);
    admin.patch(&path, MERGE, &json!({"metadata": {"finalizers": null}})).await.expect(200);
    admin.get(&path).await.expect(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn propagation_is_written_as_finalizers() {
    let (_server, admin) = Server::with_namespace().await;
    for (policy, finalizers) in [("Foreground", json!(["foregroundDeletion"])), ("Orphan", json!(["orphan"]))]
    {
        let path = create(&admin, &policy.to_lowercase(), json!({})).await;
        let marked = admin.delete(&format!("{path}?propagationPolicy={policy}")).await.expect(200);
        assert_eq!(marked["metadata"]["finalizers"], finalizers, "{policy}");
        admin.get(&path).await.expect(200);
    }
    let path = create(&admin, "old", json!({})).await;
    let marked = admin.delete_with(&path, &json!({"orphanDependents": true})).await.expect(200);
    assert_eq!(marked["metadata"]["finalizers"], json!(["orphan"]));
    // Background takes such a finalizer away again.
    admin.delete(&format!("{path}?propagationPolicy=Background")).await.expect(200);
    admin.get(&path).await.expect(404);
    let path = create(&admin, "background", json!({})).await;
    let done = admin.delete_with(&path, &json!({"propagationPolicy": "Background"})).await.expect(200);
    assert_eq!((&done["kind"], &done["status"]), (&json!("Status"), &json!("Success")));
    admin.get(&path).await.expect(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_pod_is_deleted_within_its_grace_period() {
    let (_server, admin) = Server::with_namespace().await;
    let path = create_pod(&admin, "p", "n").await;
    let marked = admin.delete(&path).await.expect(200);
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    let first = marked["metadata"]["deletionTimestamp"].clone();
    let slower = admin.delete(&format!("{path}?gracePeriodSeconds=60")).await.expect(200);
    assert_eq!(slower["metadata"]["deletionTimestamp"], first, "a deletion is not put off");
    let sooner = admin.delete(&format!("{path}?gracePeriodSeconds=5")).await.expect(200);
    assert_eq!(sooner["metadata"]["deletionGracePeriodSeconds"], 5);
    admin.delete(&format!("{path}?gracePeriodSeconds=0")).await.expect(200);
    admin.get(&path).await.expect(404);
    let unscheduled = create_pod(&admin, "q", "").await;
    admin.delete(&unscheduled).await.expect(200);
    admin.get(&unscheduled).await.expect(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn preconditions_protect_another_object_of_the_same_name() {
    let (_server, admin) = Server::with_namespace().await;
    let path = create(&admin, "m", json!({})).await;
    let stored = admin.get(&path).await.expect(200);
    let other = json!({"preconditions": {"uid": "00000000-0000-0000-0000-000000000000"}});
    admin.delete_with(&path, &other).await.expect(409);
    admin.delete_with(&path, &json!({"preconditions": {"resourceVersion": "1"}})).await.expect(409);
    let own = json!({"preconditions": {"uid": stored["metadata"]["uid"], "resourceVersion": stored["metadata"]["resourceVersion"]}});
    admin.delete_with(&path, &own).await.expect(200);
    admin.delete(&path).await.expect(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collection_is_deleted_as_selected() {
    let (_server, admin) = Server::with_namespace().await;
    for n in 0..6 {
        let metadata = json!({"labels": {"even": (n % 2 == 0).to_string()}});
        create(&admin, &format!("c{n}"), metadata).await;
    }
    create(&admin, "held", json!({"labels": {"even": "true"}, "finalizers": ["example.com/f"]})).await;
    let deleted = admin.delete(&format!("{CONFIG_MAPS}?labelSelector=even%3Dtrue")).await;
    assert_eq!(deleted.names(), ["c0", "c2", "c4", "held"]);
    assert_eq!(deleted.expect(200)["kind"], "ConfigMapList");
    assert_eq!(admin.get(CONFIG_MAPS).await.names(), ["c1", "c3", "c5", "held", "kube-root-ca.crt"]);
    admin.delete(&format!("{CONFIG_MAPS}?fieldSelector=metadata.name%3Dc3")).await.expect(200);
    assert_eq!(admin.get(CONFIG_MAPS).await.names(), ["c1", "c5", "held", "kube-root-ca.crt"]);
    admin.delete("/api/v1/configmaps").await.expect(405);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_refuses_content_from_when_its_deletion_began() {
    let (_server, admin) = Server::with_namespace().await;
    let marked = admin.delete("/api/v1/namespaces/t").await.expect(200);
    assert_eq!(marked["status"]["phase"], "Terminating");
    let refused = admin.post(CONFIG_MAPS, &json!({"metadata": {"name": "late"}})).await.expect(403);
    assert_eq!(refused["details"]["causes"][0]["reason"], "NamespaceTerminating");
    let finalized = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "t"}, "spec": {"finalizers": []}});
    admin.put("/api/v1/namespaces/t/finalize", &finalized).await.expect(200);
    admin.get("/api/v1/namespaces/t").await.expect(404);
    let absent = admin.post(CONFIG_MAPS, &json!({"metadata": {"name": "later"}})).await.expect(404);
    assert_eq!(absent["message"], "namespaces \"t\" not found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_eviction_spends_a_disruption_or_is_told_to_wait() {
    let (_server, admin) = Server::with_namespace().await;
    let budget = json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}}});
    let budgets = "/apis/policy/v1/namespaces/t/poddisruptionbudgets";
    admin.post(budgets, &budget).await.expect(201);
    let status = json!({"status": {"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2,
        "desiredHealthy": 1, "expectedPods": 2}});
    admin.patch(&format!("{budgets}/b/status"), MERGE, &status).await.expect(200);
    let pods = "/api/v1/namespaces/t/pods";
    for name in ["p", "q"] {
        let pod = json!({"metadata": {"name": name, "labels": {"app": "x"}, "finalizers": ["example.com/watched"]},
            "spec": {"containers": [{"name": "c", "image": "i"}]}});
        admin.post(pods, &pod).await.expect(201);
        let running =
            json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        admin.patch(&format!("{pods}/{name}/status"), MERGE, &running).await.expect(200);
    }
    let evict = |name: &str| {
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
        let (client, path) = (admin.fork(), format!("{pods}/{name}/eviction"));
        async move { client.post(&path, &eviction).await }
    };
    evict("p").await.expect(201);
    let going = admin.get(&format!("{pods}/p")).await.expect(200);
    assert!(going["metadata"]["deletionTimestamp"].is_string());
    let target = &going["status"]["conditions"][1];
    assert_eq!(target["type"], "DisruptionTarget");
    assert_eq!(target["reason"], "EvictionByEvictionAPI");
    assert_eq!(target["message"], "Eviction API: evicting");
    let spent = admin.get(&format!("{budgets}/b")).await.expect(200)["status"].clone();
    assert_eq!(spent["disruptionsAllowed"], 0);
    assert!(spent["disruptedPods"]["p"].is_string());
    let refused = evict("q").await.expect(429);
    assert_eq!(refused["message"], "Cannot evict pod as it would violate the pod's disruption budget.");
    let cause = &refused["details"]["causes"][0];
    assert_eq!(cause["reason"], "DisruptionBudget");
    assert_eq!(
        cause["message"], "The disruption budget b does not allow evicting pods currently",
        "the status says that one of two is needed"
    );
    let unready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    admin.patch(&format!("{pods}/q/status"), MERGE, &unready).await.expect(200);
    evict("q").await.expect(201);
}
