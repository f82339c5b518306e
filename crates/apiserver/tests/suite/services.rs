//! Addresses of Services: what is given out, the objects that stand for them, and more blocks to take them of.

use registry::ServiceNetwork;
use serde_json::{Value, json};

use crate::server::Server;
use crate::wire::{Client, MERGE};

const SERVICES: &str = "/api/v1/namespaces/t/services";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";
const BLOCKS: &str = "/apis/networking.k8s.io/v1/servicecidrs";

async fn create(client: &Client, name: &str, mut spec: Value) -> Value {
    spec["ports"] = json!([{"port": 80}]);
    client.post(SERVICES, &json!({"metadata": {"name": name}, "spec": spec})).await.expect(201)
}

/// Follows the objects of addresses until one with this name has come or gone.
async fn wait_for(client: &Client, event: &str, address: &str) -> Value {
    let path = format!("{ADDRESSES}?watch=1&fieldSelector=metadata.name%3D{address}&resourceVersion=0");
    let mut watch = client.stream(&path).await;
    loop {
        let next = watch.next().await.expect("the watch goes on");
        if next["type"] == event {
            return next["object"].clone();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_has_an_object_as_long_as_its_service() {
    let (_server, admin) = Server::with_namespace().await;
    let service = create(&admin, "s", json!({})).await;
    let address = service["spec"]["clusterIP"].as_str().expect("an address").to_owned();
    let object = wait_for(&admin, "ADDED", &address).await;
    assert_eq!(object["spec"]["parentRef"], json!({"resource": "services", "namespace": "t", "name": "s"}));
    let labels = json!({"ipaddress.kubernetes.io/ip-family": "IPv4", "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"});
    assert_eq!(object["metadata"]["labels"], labels);
    // Somebody takes the object away: it comes back.
    let first = object["metadata"]["uid"].clone();
    admin.delete(&format!("{ADDRESSES}/{address}")).await.expect(200);
    let again = wait_for(&admin, "ADDED", &address).await;
    assert_ne!(again["metadata"]["uid"], first);
    let mut watch = admin
        .stream(&format!(
            "{ADDRESSES}?watch=1&resourceVersion={}",
            again["metadata"]["resourceVersion"].as_str().expect("a version")
        ))
        .await;
    admin.delete(&format!("{SERVICES}/s")).await.expect(200);
    assert_eq!(watch.next_summary().await, format!("DELETED {address}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_whose_object_is_refused_holds_up_no_other() {
    let (_server, admin) = Server::with_namespace().await;
    let group = "/apis/admissionregistration.k8s.io/v1";
    let rules = json!([{"apiGroups": ["networking.k8s.io"], "apiVersions": ["v1"], "resources": ["ipaddresses"],
        "operations": ["CREATE"]}]);
    let policy = json!({"metadata": {"name": "p"}, "spec": {
        "matchConstraints": {"resourceRules": rules},
        "validations": [{"expression": "object.metadata.name != '10.96.0.66'"}]}});
    admin.post(&format!("{group}/validatingadmissionpolicies"), &policy).await.expect(201);
    let binding =
        json!({"metadata": {"name": "p"}, "spec": {"policyName": "p", "validationActions": ["Deny"]}});
    admin.post(&format!("{group}/validatingadmissionpolicybindings"), &binding).await.expect(201);
    create(&admin, "refused", json!({"clusterIP": "10.96.0.66"})).await;
    create(&admin, "served", json!({"clusterIP": "10.96.0.67"})).await;
    wait_for(&admin, "ADDED", "10.96.0.67").await;
    assert_eq!(admin.get(&format!("{ADDRESSES}/10.96.0.66")).await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_somebody_else_has_is_not_given_out() {
    let (_server, admin) = Server::with_namespace().await;
    let reserved = json!({"metadata": {"name": "10.96.0.77"}, "spec": {"parentRef": {"resource": "gateways", "name": "g"}}});
    admin.post(ADDRESSES, &reserved).await.expect(201);
    let spec = json!({"clusterIP": "10.96.0.77", "ports": [{"port": 80}]});
    let refused = admin.post(SERVICES, &json!({"metadata": {"name": "s"}, "spec": spec})).await.expect(422);
    let message = refused["message"].as_str().expect("a message");
    assert!(
        message.ends_with("failed to allocate IP 10.96.0.77: provided IP is already allocated"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_further_block_has_addresses_until_it_is_not_ready() {
    let (_server, admin) = Server::with_namespace().await;
    let wanted = |name: &str, address: &str| json!({"metadata": {"name": name}, "spec": {"clusterIP": address, "ports": [{"port": 80}]}});
    let refused = admin.post(SERVICES, &wanted("a", "10.50.0.9")).await.expect(422);
    let message = refused["message"].as_str().expect("a message");
    assert!(message.ends_with("the provided network does not match the current range"), "{message}");
    admin
        .post(BLOCKS, &json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["10.50.0.0/24"]}}))
        .await
        .expect(201);
    admin.post(SERVICES, &wanted("a", "10.50.0.9")).await.expect(201);
    let unready = json!({"status": {"conditions": [{"type": "Ready", "status": "False", "reason": "Terminating", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    admin.patch(&format!("{BLOCKS}/more/status"), MERGE, &unready).await.expect(200);
    admin.post(SERVICES, &wanted("b", "10.50.0.10")).await.expect(422);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_both_families_gives_both() {
    let network = ServiceNetwork::parse("10.96.0.0/16,fd00:96::/112", ServiceNetwork::default().node_ports);
    let server = Server::on(network.expect("a network")).await;
    server.add_namespace("t", json!({})).await;
    let admin = server.admin();
    let block = admin.get(&format!("{BLOCKS}/kubernetes")).await.expect(200);
    assert_eq!(block["spec"]["cidrs"], json!(["10.96.0.0/16", "fd00:96::/112"]));
    assert_eq!(block["status"]["conditions"][0]["status"], "True");
    let single = create(&admin, "single", json!({})).await;
    assert_eq!(single["spec"]["ipFamilies"], json!(["IPv4"]));
    let both = create(&admin, "both", json!({"ipFamilyPolicy": "PreferDualStack"})).await;
    assert_eq!(both["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
    let second = both["spec"]["clusterIPs"][1].as_str().expect("a second address");
    assert!(second.starts_with("fd00:96::"), "{second}");
    wait_for(&admin, "ADDED", second).await;
    let narrowed = admin
        .patch(&format!("{SERVICES}/both"), MERGE, &json!({"spec": {"ipFamilyPolicy": "SingleStack"}}))
        .await
        .expect(200);
    assert_eq!(narrowed["spec"]["ipFamilies"], json!(["IPv4"]));
    assert_eq!(narrowed["spec"]["clusterIPs"].as_array().map(Vec::len), Some(1));
}
