//! API servers behind this one, and `metrics.k8s.io`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

use crate::custom_resources::define;
use crate::server::Server;
use crate::wire::{Client, MERGE};

const API_SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";

/// What is said between a test and the other server while a request is there.
#[derive(Default)]
struct Signals {
    /// A request came that is not answered at once.
    waits: Notify,
    may_go: Notify,
}

/// An API server of `wardle.example.com/v1` that says whom a request is from; it takes what the front proxy's
/// authority signed and nobody else. Watches are never answered, and what is called `slow` when it may go.
async fn other(server: &Server, front_proxy: &pki::Authority, signals: Arc<Signals>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let names = pki::ServerNames::in_cluster().with("wardle.t.svc");
    let certificate = server.authority.serving_certificate(names, SystemTime::now()).expect("a certificate");
    let verifier = front_proxy.client_verifier().expect("a verifier");
    let tls = Arc::new(pki::server_config(certificate, &verifier).expect("TLS"));
    rt::spawn("other server", async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { return };
            let (acceptor, signals) = (TlsAcceptor::from(tls.clone()), signals.clone());
            rt::spawn("other connection", async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let known = stream.get_ref().1.peer_certificates().is_some();
                let service = service_fn(move |request| answer(known, request, signals.clone()));
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

async fn answer(
    known: bool,
    request: Request<Incoming>,
    signals: Arc<Signals>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().query() == Some("watch=true") {
        signals.waits.notify_one();
        std::future::pending::<()>().await;
    }
    if request.uri().path().ends_with("/slow") {
        signals.waits.notify_one();
        signals.may_go.notified().await;
    }
    let header = |name: &str| {
        let all = request.headers().get_all(name).iter().filter_map(|value| value.to_str().ok());
        all.collect::<Vec<_>>().join(",")
    };
    let body = match request.uri().path() {
        "/apis/wardle.example.com/v1" => json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "wardle.example.com/v1", "resources": [
                {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder",
                    "verbs": ["get", "list"], "shortNames": ["fl"]},
                {"name": "flunders/status", "singularName": "", "namespaced": true, "kind": "Flunder",
                    "verbs": ["get"]},
            ],
        }),
        "/openapi/v3" => json!({
            "paths": {"apis/wardle.example.com/v1": {"serverRelativeURL": "/openapi/v3/apis/wardle.example.com/v1?hash=7"}},
        }),
        path => json!({
            "path": path, "user": header("x-remote-user"), "groups": header("x-remote-group"),
            "authorization": header("authorization"), "method": request.method().as_str(),
        }),
    };
    let mut response = Response::new(Full::from(body.to_string()));
    if !known {
        *response.status_mut() = http::StatusCode::UNAUTHORIZED;
    }
    response.headers_mut().insert("content-type", "application/json".parse().expect("a value"));
    Ok(response)
}

/// A Service that stands for a name outside of the cluster, since endpoints may not be on this machine.
async fn register(server: &Server, admin: &Client, address: SocketAddr) {
    use base64::Engine;
    let outside = json!({"metadata": {"name": "wardle"}, "spec": {"type": "ExternalName", "externalName": "localhost"}});
    admin.post("/api/v1/namespaces/t/services", &outside).await.expect(201);
    let bundle = base64::engine::general_purpose::STANDARD.encode(server.authority.ca_pem());
    let own = json!({
        "metadata": {"name": "v1.wardle.example.com"},
        "spec": {"group": "wardle.example.com", "version": "v1", "groupPriorityMinimum": 2000, "versionPriority": 15,
            "caBundle": bundle, "service": {"namespace": "t", "name": "wardle", "port": address.port()}},
    });
    admin.post(API_SERVICES, &own).await.expect(201);
}

/// Waits for the condition of an APIService to have a reason.
async fn until(admin: &Client, name: &str, reason: &str) -> Value {
    let mut seen = Value::Null;
    for _ in 0..400 {
        let reply = admin.get(&format!("{API_SERVICES}/{name}")).await;
        if reply.status == 200 {
            seen = reply.json()["status"]["conditions"][0].clone();
            if seen["reason"] == reason {
                return seen;
            }
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{name} does not become {reason}: {seen}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_server_answers_its_group_and_is_discovered() {
    let (server, front_proxy) = Server::aggregating().await;
    let admin = server.admin();
    server.add_namespace("t", json!({})).await;
    let signals = Arc::new(Signals::default());
    let address = other(&server, &front_proxy, signals.clone()).await;
    register(&server, &admin, address).await;
    let condition = until(&admin, "v1.wardle.example.com", "Passed").await;
    assert_eq!((&condition["status"], &condition["message"]), (&json!("True"), &json!("all checks passed")));

    let path = "/apis/wardle.example.com/v1/namespaces/t/flunders";
    let answer = admin.get(path).await.expect(200);
    assert_eq!(answer["user"], "kubernetes-admin");
    assert_eq!(answer["groups"], "system:masters,system:authenticated");
    assert_eq!((&answer["path"], &answer["authorization"]), (&json!(path), &json!("")));
    let stranger = server.user("jane", &[]).get(path).await.expect(403);
    assert_eq!(stranger["reason"], "Forbidden", "who may ask is decided here first");

    let component = server.component("root", &["system:masters"]);
    let read = component.get_raw(&format!("{path}?labelSelector=a%3Db")).await.expect("an answer");
    assert_eq!(
        (read.str_at(&["user"]), read.str_at(&["path"])),
        ("root", path),
        "components ask as anybody does"
    );
    let group = component.get_raw("/apis/wardle.example.com").await.expect("a group");
    assert_eq!(group.str_at(&["preferredVersion", "version"]), "v1");
    let refused = server.component("jane", &[]).get_raw(path).await.expect_err("she may not");
    assert_eq!((refused.code, &*refused.reason), (403, "Forbidden"));

    let groups = admin.get("/apis").await.expect(200);
    let group =
        groups["groups"].as_array().expect("groups").iter().find(|own| own["name"] == "wardle.example.com");
    assert_eq!(group.expect("the group")["preferredVersion"]["groupVersion"], "wardle.example.com/v1");
    let single = admin.get("/apis/wardle.example.com").await.expect(200);
    assert_eq!((&single["kind"], &single["name"]), (&json!("APIGroup"), &json!("wardle.example.com")));
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let aggregated = server.admin().with_header("accept", accept).get("/apis").await.expect(200);
    let items = aggregated["items"].as_array().expect("items");
    let own = items.iter().find(|item| item["metadata"]["name"] == "wardle.example.com").expect("the group");
    assert_eq!(
        own["versions"],
        json!([{"version": "v1", "freshness": "Current", "resources": [{
            "resource": "flunders", "scope": "Namespaced", "singularResource": "flunder", "shortNames": ["fl"],
            "verbs": ["get", "list"],
            "responseKind": {"group": "wardle.example.com", "version": "v1", "kind": "Flunder"},
            "subresources": [{"subresource": "status", "verbs": ["get"],
                "responseKind": {"group": "wardle.example.com", "version": "v1", "kind": "Flunder"}}],
        }]}])
    );
    let index = admin.get("/openapi/v3").await.expect(200);
    assert_eq!(
        index["paths"]["apis/wardle.example.com/v1"]["serverRelativeURL"],
        "/openapi/v3/apis/wardle.example.com/v1?hash=7"
    );
    let document = admin.get("/openapi/v3/apis/wardle.example.com/v1?hash=7").await.expect(200);
    assert_eq!(document["path"], "/openapi/v3/apis/wardle.example.com/v1");

    crate::fairness::add_level_of_one(&admin).await;
    let mallory = server.user("mallory", &[]);
    let watcher = mallory.fork();
    rt::spawn("watch", async move { drop(watcher.get(&format!("{path}?watch=true")).await) });
    signals.waits.notified().await;
    mallory.get("/api/v1/pods").await.expect(200);

    // A request that is no watch keeps its seat until it is answered.
    let (other, slow) = (mallory.fork(), format!("{path}/slow"));
    let beside = async {
        signals.waits.notified().await;
        let refused = mallory.get("/api/v1/pods").await;
        signals.may_go.notify_one();
        refused.status
    };
    let (answered, refused) = tokio::join!(other.get(&slow), beside);
    assert_eq!((answered.status, refused), (200, 429));

    let port = json!({"spec": {"service": {"port": 1}}});
    admin.patch(&format!("{API_SERVICES}/v1.wardle.example.com"), MERGE, &port).await.expect(200);
    until(&admin, "v1.wardle.example.com", "FailedDiscoveryCheck").await;
    let refused = admin.get(path).await.expect(503);
    assert_eq!(refused["message"], "service unavailable");
    let refused = component.get_raw(path).await.expect_err("nobody there");
    assert_eq!(refused.message, "the server is currently unable to handle the request");
    assert_eq!(admin.delete(&format!("{API_SERVICES}/v1.wardle.example.com")).await.status, 200);
    for _ in 0..400 {
        if admin.get(path).await.status == 404 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("the group is still served");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_served_here_has_its_api_services() {
    let (server, _front_proxy) = Server::aggregating().await;
    let admin = server.admin();
    for name in ["v1.", "v1.apps", "v2.autoscaling", "v1beta1.metrics.k8s.io"] {
        let condition = until(&admin, name, "Local").await;
        assert_eq!(condition["message"], "Local APIServices are always available", "{name}");
    }
    let apps = admin.get(&format!("{API_SERVICES}/v1.apps")).await.expect(200);
    assert_eq!(apps["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"], "onstart");
    assert_eq!(apps["spec"]["groupPriorityMinimum"], 17800);
    for (group, trust, value) in [
        ("gone.example.com", "insecureSkipTLSVerify", json!(true)),
        // No certificate at all.
        ("wrong.example.com", "caBundle", json!("QUFB")),
    ] {
        let name = format!("v1.{group}");
        let mut missing = json!({
            "metadata": {"name": name},
            "spec": {"group": group, "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1,
                "service": {"namespace": "t", "name": "gone"}},
        });
        missing["spec"][trust] = value;
        admin.post(API_SERVICES, &missing).await.expect(201);
        let condition = until(&admin, &name, "ServiceNotFound").await;
        assert_eq!(condition["message"], "service/gone in \"t\" is not present");
        let refused = admin.get(&format!("/apis/{group}/v1/things")).await.expect(503);
        assert_eq!(refused["message"], "service unavailable", "{group}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn use_of_simulated_pods_is_told() {
    let (server, _front_proxy) = Server::aggregating().await;
    let admin = server.admin();
    server.add_namespace("t", json!({})).await;
    let node = json!({"metadata": {"name": "sim", "annotations": {"kwok.x-k8s.io/node": "fake"}}});
    admin.post("/api/v1/nodes", &node).await.expect(201);
    admin.post("/api/v1/nodes", &json!({"metadata": {"name": "real"}})).await.expect(201);
    let pods = "/api/v1/namespaces/t/pods";
    for (name, node, annotations) in [
        ("plain", "sim", json!({})),
        ("busy", "sim", json!({"kwok.x-k8s.io/usage-cpu": "250m", "kwok.x-k8s.io/usage-memory": "64Mi"})),
        ("elsewhere", "real", json!({})),
        ("waiting", "sim", json!({})),
    ] {
        let containers = json!([{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]);
        let pod = json!({
            "metadata": {"name": name, "annotations": annotations, "labels": {"app": name}},
            "spec": {"nodeName": node, "containers": containers},
        });
        admin.post(pods, &pod).await.expect(201);
        if name != "waiting" {
            let running = json!({"status": {"phase": "Running"}});
            admin.patch(&format!("{pods}/{name}/status"), MERGE, &running).await.expect(200);
        }
    }
    let base = "/apis/metrics.k8s.io/v1beta1";
    let list = admin.get(&format!("{base}/namespaces/t/pods")).await;
    assert_eq!(list.names(), ["busy", "plain"], "those that run on a simulated node");
    let busy = admin.get(&format!("{base}/namespaces/t/pods/busy")).await.expect(200);
    assert_eq!(
        busy["containers"],
        json!([
            {"name": "a", "usage": {"cpu": "250m", "memory": "64Mi"}},
            {"name": "b", "usage": {"cpu": "250m", "memory": "64Mi"}},
        ])
    );
    let selected = admin.get(&format!("{base}/pods?labelSelector=app%3Dplain")).await;
    assert_eq!(selected.names(), ["plain"]);
    let component = server.component("root", &["system:masters"]);
    let read = component.get_raw(&format!("{base}/namespaces/t/pods?labelSelector=app%3Dbusy")).await;
    let read = read.expect("a list");
    let items = read.array_at(&["items"]);
    assert_eq!(items.len(), 1);
    assert_eq!(items[0]["containers"][0].str_at(&["usage", "cpu"]), "250m");
    let absent = component.get_raw("/apis/nobody.example.com/v1/pods").await.expect_err("nobody serves it");
    assert_eq!(absent.message, "the server could not find the requested resource");
    let node = admin.get(&format!("{base}/nodes/sim")).await.expect(200);
    assert_eq!(node["usage"], json!({"cpu": "502m", "memory": "130Mi"}));
    let named = admin.get(&format!("{base}/pods?fieldSelector=metadata.name%3Dbusy")).await;
    assert_eq!(named.names(), ["busy"]);
    let nodes = admin.get(&format!("{base}/nodes")).await.expect(200);
    assert_eq!(nodes["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(nodes["items"][0]["usage"], json!({"cpu": "502m", "memory": "130Mi"}));
    let absent = admin.get(&format!("{base}/namespaces/t/pods/waiting")).await.expect(404);
    assert_eq!(absent["message"], "pods.metrics.k8s.io \"t/waiting\" not found");
}

/// A definition of KWOK's, without what its schema says.
fn usages(kind: &str, plural: &str, scope: &str) -> Value {
    json!({
        "metadata": {"name": format!("{plural}.kwok.x-k8s.io")},
        "spec": {
            "group": "kwok.x-k8s.io", "scope": scope, "names": {"kind": kind, "plural": plural},
            "versions": [{"name": "v1alpha1", "served": true, "storage": true, "schema": {"openAPIV3Schema":
                {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}],
        },
    })
}

#[tokio::test]
async fn use_is_what_resource_usages_say() {
    let (server, _front_proxy) = Server::aggregating().await;
    let admin = server.admin();
    server.add_namespace("t", json!({})).await;
    for (kind, plural, scope) in [
        ("ResourceUsage", "resourceusages", "Namespaced"),
        ("ClusterResourceUsage", "clusterresourceusages", "Cluster"),
    ] {
        define(&admin, &usages(kind, plural, scope)).await;
    }
    let node = json!({"metadata": {"name": "sim", "annotations": {"kwok.x-k8s.io/node": "fake"}}});
    admin.post("/api/v1/nodes", &node).await.expect(201);
    let pods = "/api/v1/namespaces/t/pods";
    for (name, annotations) in [
        ("own", json!({})),
        ("chosen", json!({"x": "2"})),
        ("other", json!({"kwok.x-k8s.io/usage-cpu": "7m"})),
    ] {
        let containers = json!([{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]);
        let pod = json!({
            "metadata": {"name": name, "annotations": annotations},
            "spec": {"nodeName": "sim", "containers": containers},
        });
        admin.post(pods, &pod).await.expect(201);
        let running = json!({"status": {"phase": "Running"}});
        admin.patch(&format!("{pods}/{name}/status"), MERGE, &running).await.expect(200);
    }
    let own = json!({"apiVersion": "kwok.x-k8s.io/v1alpha1", "kind": "ResourceUsage", "metadata": {"name": "own"},
    "spec": {"usages": [
        {"usage": {"cpu": {"value": "1"}, "memory": {"value": "1Mi"}}},
        {"containers": ["b"], "usage": {"cpu": {"value": "2", "expression": "Quantity('9')"}}},
    ]}});
    admin.post("/apis/kwok.x-k8s.io/v1alpha1/namespaces/t/resourceusages", &own).await.expect(201);
    let cpu = "'x' in pod.metadata.annotations && node.metadata.name == 'sim' ? \
               Quantity(pod.metadata.annotations['x']) / 4 : Quantity('1m')";
    let cluster = json!({"apiVersion": "kwok.x-k8s.io/v1alpha1", "kind": "ClusterResourceUsage",
        "metadata": {"name": "c"},
        "spec": {"selector": {"matchNames": ["chosen", "own"]}, "usages": [{"usage": {
            "cpu": {"expression": cpu}, "memory": {"expression": "container.nonsense"}}}]}});
    admin.post("/apis/kwok.x-k8s.io/v1alpha1/clusterresourceusages", &cluster).await.expect(201);
    let base = "/apis/metrics.k8s.io/v1beta1";
    let of = |name: &'static str| {
        let path = format!("{base}/namespaces/t/pods/{name}");
        let admin = &admin;
        async move { admin.get(&path).await.expect(200)["containers"].clone() }
    };
    assert_eq!(
        of("own").await,
        json!([
            {"name": "a", "usage": {"cpu": "1", "memory": "1Mi"}},
            {"name": "b", "usage": {"cpu": "2", "memory": "0"}},
        ])
    );
    assert_eq!(of("chosen").await[0]["usage"], json!({"cpu": "500m", "memory": "0"}));
    assert_eq!(of("other").await[0]["usage"], json!({"cpu": "7m", "memory": "1Mi"}));
    let node = admin.get(&format!("{base}/nodes/sim")).await.expect(200);
    assert_eq!(node["usage"]["cpu"], "4014m");
}
