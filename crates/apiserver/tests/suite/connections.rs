//! What is handed on: logs, commands and ports of pods, and proxies.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::server::Server;
use crate::wire::Client;

const POD: &str = "/api/v1/namespaces/t/pods/p";

/// Answers as a kubelet would: what it was asked for, and an echo on upgraded connections. It takes only clients that
/// show the API server's certificate.
async fn kubelet(server: &Server) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let names = pki::ServerNames::in_cluster().with("127.0.0.1");
    let certificate = server.authority.serving_certificate(names, SystemTime::now()).expect("a certificate");
    let verifier = server.authority.client_verifier().expect("a verifier");
    let tls = Arc::new(pki::server_config(certificate, &verifier).expect("TLS"));
    rt::spawn("kubelet", async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { return };
            let acceptor = TlsAcceptor::from(tls.clone());
            rt::spawn("kubelet connection", async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let known = stream.get_ref().1.peer_certificates().is_some();
                let service = service_fn(move |request| answer(known, request));
                let _ = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades()
                    .await;
            });
        }
    });
    address
}

async fn answer(known: bool, mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::default());
    let asked = request.uri().path_and_query().expect("a path").to_string();
    if !known {
        *response.status_mut() = http::StatusCode::UNAUTHORIZED;
    } else if asked.contains("/missing") {
        *response.status_mut() = http::StatusCode::BAD_REQUEST;
        *response.body_mut() = Full::from("container \"missing\" is waiting to start");
    } else if let Some(protocol) = request.headers().get("upgrade").cloned() {
        *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert("connection", "Upgrade".parse().expect("a value"));
        response.headers_mut().insert("upgrade", protocol);
        rt::spawn("echo", async move {
            let raw = hyper::upgrade::on(&mut request).await.expect("an upgraded connection");
            let (mut reader, mut writer) = tokio::io::split(TokioIo::new(raw));
            let _ = writer.write_all(format!("{asked}\n").as_bytes()).await;
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
        });
    } else {
        let seen: Vec<String> = ["authorization", "impersonate-user", "x-forwarded-for", "x-forwarded-proto"]
            .into_iter()
            .filter_map(|name| Some(format!("{name}={}", request.headers().get(name)?.to_str().ok()?)))
            .collect();
        let (method, body) = (request.method().clone(), request.into_body().collect().await);
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        let text = format!("{method} {asked} {} {}", seen.join(" "), String::from_utf8_lossy(&body));
        *response.body_mut() = Full::from(text);
        response.headers_mut().insert("x-own", "kept".parse().expect("a value"));
    }
    Ok(response)
}

/// A pod on a node whose kubelet is at this address.
async fn pod_on_node(admin: &Client, kubelet: SocketAddr) {
    add_node(admin, "n", json!({"type": "InternalIP", "address": kubelet.ip().to_string()}), kubelet.port())
        .await;
    let containers = json!([{"name": "main", "image": "i"}, {"name": "missing", "image": "i"}]);
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": containers}});
    admin.post("/api/v1/namespaces/t/pods", &pod).await.expect(201);
}

async fn add_node(admin: &Client, name: &str, address: Value, port: u16) {
    admin.post("/api/v1/nodes", &json!({"metadata": {"name": name}})).await.expect(201);
    let status = json!({"status": {
        "addresses": [address], "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
    }});
    admin.patch(&format!("/api/v1/nodes/{name}/status"), crate::wire::MERGE, &status).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_come_from_the_kubelet() {
    let (server, admin) = Server::with_namespace().await;
    pod_on_node(&admin, kubelet(&server).await).await;
    let log = admin.get(&format!("{POD}/log?container=main&tailLines=3")).await;
    assert_eq!(log.status, 200);
    assert_eq!(log.header("content-type"), "text/plain");
    assert_eq!(log.text(), "GET /containerLogs/t/p/main?tailLines=3 x-forwarded-for=127.0.0.1 ");
    let refused = admin.get(&format!("{POD}/log?container=missing")).await.expect(400);
    assert_eq!(refused["message"], "container \"missing\" is waiting to start");
    assert_eq!(refused["reason"], "BadRequest");
    let unnamed = admin.get(&format!("{POD}/log")).await.expect(400);
    let text = "a container name must be specified for pod p, choose one of: [main missing]";
    assert_eq!(unnamed["message"], text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_is_a_connection_in_both_directions() {
    let (server, admin) = Server::with_namespace().await;
    pod_on_node(&admin, kubelet(&server).await).await;
    let path = format!("{POD}/exec?container=main&command=cat&stdin=true&stdout=true");
    let (reply, raw) = admin.upgrade(&path, "SPDY/3.1").await;
    assert_eq!((reply.status, reply.header("upgrade")), (101, "SPDY/3.1".to_owned()));
    let mut raw = raw.expect("a connection");
    let asked = "/exec/t/p/main?command=cat&input=1&output=1\n";
    let mut said = vec![0; asked.len()];
    raw.read_exact(&mut said).await.expect("what was asked for");
    assert_eq!(String::from_utf8_lossy(&said), asked);
    raw.write_all(b"hello").await.expect("written");
    let mut echo = [0; 5];
    raw.read_exact(&mut echo).await.expect("an echo");
    assert_eq!(&echo, b"hello");

    let plain = admin.send(Method::POST, &path, &[], Bytes::new()).await.expect(400);
    assert_eq!(plain["message"], "Upgrade request required");
    let (reply, raw) = admin.upgrade(&format!("{POD}/exec?container=missing&command=ls"), "SPDY/3.1").await;
    assert!(raw.is_none());
    assert_eq!((reply.status, reply.text()), (400, "container \"missing\" is waiting to start".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_may_only_read_may_not_run_commands() {
    let (server, admin) = Server::with_namespace().await;
    pod_on_node(&admin, kubelet(&server).await).await;
    let rules = json!([{"apiGroups": [""], "resources": ["pods/exec", "pods/log"], "verbs": ["get"]}]);
    let rbac = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    admin.post(rbac, &json!({"metadata": {"name": "reader"}, "rules": rules})).await.expect(201);
    let binding = json!({
        "metadata": {"name": "reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reader"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}],
    });
    admin.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding).await.expect(201);
    let jane = server.user("jane", &[]);
    assert_eq!(jane.get(&format!("{POD}/log?container=main")).await.status, 200);
    // A WebSocket begins with a GET.
    let exec = jane.get(&format!("{POD}/exec?container=main&command=ls")).await.expect(403);
    let text = exec["message"].as_str().expect("a message");
    assert!(text.contains("cannot create resource \"pods/exec\""), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_reached_is_said_as_upstream_says_it() {
    let (_server, admin) = Server::with_namespace().await;
    // Bound and dropped: nobody listens there.
    let nowhere = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    pod_on_node(&admin, nowhere).await;
    let log = admin.get(&format!("{POD}/log?container=main")).await.expect(500);
    let refused = format!("dial tcp {nowhere}: connect: connection refused");
    assert_eq!(log["message"], format!("Get \"https://{nowhere}/containerLogs/t/p/main\": {refused}"));
    let (reply, _) = admin.upgrade(&format!("{POD}/exec?container=main&command=ls"), "SPDY/3.1").await;
    assert_eq!(reply.json()["message"], format!("error dialing backend: {refused}"));
    let proxied: Value = admin.get("/api/v1/nodes/n/proxy/metrics").await.expect(400);
    assert_eq!(proxied["message"], "address not allowed");
    add_node(&admin, "named", json!({"type": "Hostname", "address": "localhost"}), nowhere.port()).await;
    for name in ["named".to_owned(), format!("named:{}", nowhere.port()), "named:1".to_owned()] {
        let named: Value = admin.get(&format!("/api/v1/nodes/{name}/proxy/metrics")).await.expect(400);
        assert_eq!(named["message"], "address not allowed", "a name is what it resolves to");
    }
    let redirect = admin.get("/api/v1/nodes/absent/proxy").await.expect(404);
    assert_eq!(redirect["message"], "nodes \"absent\" not found");
}
