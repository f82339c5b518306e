//! Quotas under concurrency. There are no controllers here, so the tests do what the quota controller would.

use futures::future::join_all;
use serde_json::{Value, json};

use crate::server::Server;
use crate::wire::{Client, MERGE};

const CONFIG_MAPS: &str = "/api/v1/namespaces/t/configmaps";
const QUOTA: &str = "/api/v1/namespaces/t/resourcequotas/q";

async fn add_quota(admin: &Client, hard: Value, used: Value) {
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": hard}});
    admin.post("/api/v1/namespaces/t/resourcequotas", &quota).await.expect(201);
    let status = json!({"status": {"hard": hard, "used": used}});
    admin.patch(&format!("{QUOTA}/status"), MERGE, &status).await.expect(200);
}

async fn used(admin: &Client) -> Value {
    admin.get(QUOTA).await.expect(200)["status"]["used"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_creates_at_once_exactly_as_many_succeed_as_the_quota_allows() {
    const CREATES: usize = 64;
    const ALLOWED: usize = 10;
    let (_server, admin) = Server::with_namespace().await;
    add_quota(&admin, json!({"count/configmaps": "10"}), json!({"count/configmaps": "0"})).await;
    let creates = (0..CREATES).map(|number| {
        let client = admin.fork();
        async move { client.post(CONFIG_MAPS, &json!({"metadata": {"name": format!("m{number}")}})).await }
    });
    let replies = join_all(creates).await;
    let created = replies.iter().filter(|reply| reply.status == 201).count();
    assert_eq!(created, ALLOWED);
    for refused in replies.iter().filter(|reply| reply.status != 201) {
        assert_eq!(refused.status, 403, "{}", refused.text());
        let message = refused.json()["message"].as_str().unwrap_or_default().to_owned();
        let why = "exceeded quota: q, requested: count/configmaps=1, used: count/configmaps=10, limited: count/configmaps=10";
        assert!(message.ends_with(why), "{message}");
    }
    assert_eq!(used(&admin).await, json!({"count/configmaps": "10"}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_is_refused_but_not_charged() {
    let (_server, admin) = Server::with_namespace().await;
    add_quota(&admin, json!({"configmaps": "2"}), json!({"configmaps": "1"})).await;
    let dry = format!("{CONFIG_MAPS}?dryRun=All");
    admin.post(&dry, &json!({"metadata": {"name": "a"}})).await.expect(201);
    assert_eq!(used(&admin).await, json!({"configmaps": "1"}));
    admin.post(CONFIG_MAPS, &json!({"metadata": {"name": "a"}})).await.expect(201);
    admin.post(&dry, &json!({"metadata": {"name": "b"}})).await.expect(403);
    assert_eq!(used(&admin).await, json!({"configmaps": "2"}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_to_write_an_object_is_charged() {
    let (_server, admin) = Server::with_namespace().await;
    add_quota(&admin, json!({"services": "2"}), json!({"services": "0"})).await;
    let service = |name: &str| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"port": 1}]}});
    admin.post("/api/v1/namespaces/t/services", &service("a")).await.expect(201);
    let applied = "/api/v1/namespaces/t/services/b?fieldManager=me";
    admin.patch(applied, crate::wire::APPLY, &service("b")).await.expect(201);
    let third = "/api/v1/namespaces/t/services/c?fieldManager=me";
    admin.patch(third, crate::wire::APPLY, &service("c")).await.expect(403);
    admin.patch(applied, crate::wire::APPLY, &service("b")).await.expect(200);
    assert_eq!(used(&admin).await, json!({"services": "2"}));
}
