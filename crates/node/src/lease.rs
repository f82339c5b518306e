//! A node's `Lease`: the heartbeat by which it counts as alive.

use std::time::Duration;

use api::gvr::LEASES;
use apimachinery::{Status, json, time};
use client::{Api, Patch, WriteOptions};

const NAMESPACE: &str = "kube-node-lease";

/// Upstream's defaults: a lease is good for 40 s and renewed after a quarter of that.
pub(crate) const DURATION_SECONDS: i64 = 40;
pub(crate) const RENEW: Duration = Duration::from_secs(10);

/// Writes that a node is alive now; makes the lease where it is missing.
pub(crate) async fn renew(api: &dyn Api, node: &str, uid: &str) -> Result<(), Status> {
    match patch(api, node).await {
        Err(status) if status.is_not_found() => create(api, node, uid).await,
        other => other,
    }
}

async fn patch(api: &dyn Api, node: &str) -> Result<(), Status> {
    let patch = Patch::Merge(json!({"spec": {
        "holderIdentity": node, "leaseDurationSeconds": DURATION_SECONDS,
        "renewTime": time::format_micros(rt::now()),
    }}));
    api.patch(&LEASES, NAMESPACE, node, None, patch, &WriteOptions::default()).await.map(drop)
}

async fn create(api: &dyn Api, node: &str, uid: &str) -> Result<(), Status> {
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": node, "namespace": NAMESPACE,
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid}],
        },
        "spec": {
            "holderIdentity": node, "leaseDurationSeconds": DURATION_SECONDS,
            "renewTime": time::format_micros(rt::now()),
        },
    });
    api.create(&LEASES, NAMESPACE, lease, &WriteOptions::default()).await.map(drop)
}
