//! Claims for devices: what only the whole server can decide.

use serde_json::{Value, json};

use crate::server::Server;
use crate::wire::{Client, MERGE};

const CLAIMS: &str = "/apis/resource.k8s.io/v1/namespaces/t/resourceclaims";
const TEMPLATES: &str = "/apis/resource.k8s.io/v1/namespaces/t/resourceclaimtemplates";

fn spec() -> Value {
    let exactly = json!({"deviceClassName": "gpu", "adminAccess": true});
    json!({"devices": {"requests": [{"name": "gpu", "exactly": exactly}]}})
}

async fn create(admin: &Client) -> [u16; 2] {
    let claim = json!({"metadata": {"name": "c"}, "spec": spec()});
    let template = json!({"metadata": {"name": "c"}, "spec": {"spec": spec()}});
    let (claim, template) = (admin.post(CLAIMS, &claim).await, admin.post(TEMPLATES, &template).await);
    [claim, template].map(|reply| reply.status)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_says_whether_devices_in_use_can_be_claimed() {
    let (_server, admin) = Server::with_namespace().await;
    assert_eq!(create(&admin).await, [422, 422]);
    let label = json!({"metadata": {"labels": {"resource.kubernetes.io/admin-access": "true"}}});
    admin.patch("/api/v1/namespaces/t", MERGE, &label).await.expect(200);
    assert_eq!(create(&admin).await, [201, 201]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_allocation_may_not_bring_access_that_the_namespace_denies() {
    let (_server, admin) = Server::with_namespace().await;
    let claim = json!({"metadata": {"name": "c"}, "spec": {"devices": {"requests": [
        {"name": "gpu", "exactly": {"deviceClassName": "gpu"}},
    ]}}});
    admin.post(CLAIMS, &claim).await.expect(201);
    let allocate = |admin_access: bool| {
        let result = json!({
            "request": "gpu", "driver": "d.example.com", "pool": "p", "device": "gpu-0",
            "adminAccess": admin_access,
        });
        json!({"status": {"allocation": {"devices": {"results": [result]}}}})
    };
    let status = format!("{CLAIMS}/c/status");
    let refused = admin.patch(&status, MERGE, &allocate(true)).await;
    assert_eq!(refused.status, 422, "{}", refused.text());
    let field = refused.json()["details"]["causes"][0]["field"].clone();
    assert_eq!(field, "status.allocation.devices.results[0].adminAccess");
    admin.patch(&status, MERGE, &allocate(false)).await.expect(200);
}
