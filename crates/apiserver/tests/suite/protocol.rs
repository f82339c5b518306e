//! The wire: versions of HTTP, encodings, limits, and input that is no request at all.

use std::io::Read;

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use crate::server::Server;
use crate::wire::{Client, JSON, MERGE};

const CONFIG_MAPS: &str = "/api/v1/namespaces/t/configmaps";

/// Above the 128 KiB from which answers are compressed.
async fn create_large(admin: &Client, count: usize) {
    for n in 0..count {
        let object =
            json!({"metadata": {"name": format!("l{n:02}")}, "data": {"k": "abcdefgh".repeat(2_000)}});
        admin.post(CONFIG_MAPS, &object).await.expect(201);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_versions_of_http_are_spoken() {
    let (server, admin) = Server::with_namespace().await;
    let newer = server.admin_http2();
    admin.post(CONFIG_MAPS, &json!({"metadata": {"name": "one"}})).await.expect(201);
    newer.post(CONFIG_MAPS, &json!({"metadata": {"name": "two"}})).await.expect(201);
    let (old, new) = (admin.get(CONFIG_MAPS).await, newer.get(CONFIG_MAPS).await);
    assert_eq!(old.names(), ["kube-root-ca.crt", "one", "two"]);
    assert_eq!(old.json(), new.json());
    let mut watch = newer.stream(&format!("{CONFIG_MAPS}?watch=1&fieldSelector=metadata.name%3Dtwo")).await;
    assert_eq!(watch.next_summary().await, "ADDED two");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_answers_are_compressed_for_those_who_ask() {
    let (server, admin) = Server::with_namespace().await;
    create_large(&admin, 30).await;
    let plain = admin.get(CONFIG_MAPS).await;
    assert_eq!(plain.header("content-encoding"), "");
    let asking = server.admin().with_header("accept-encoding", "gzip");
    let zipped = asking.get(CONFIG_MAPS).await;
    assert_eq!(zipped.header("content-encoding"), "gzip");
    assert!(zipped.body.len() * 4 < plain.body.len(), "{} of {}", zipped.body.len(), plain.body.len());
    let mut text = String::new();
    flate2::read::GzDecoder::new(&zipped.body[..]).read_to_string(&mut text).expect("gzip");
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), plain.json());
    let small = asking.get(&format!("{CONFIG_MAPS}/kube-root-ca.crt")).await;
    assert_eq!(small.header("content-encoding"), "", "small answers are sent as they are");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn head_answers_as_get_without_a_body() {
    let (server, admin) = Server::with_namespace().await;
    for client in [admin, server.admin_http2()] {
        for path in [&format!("{CONFIG_MAPS}/kube-root-ca.crt"), CONFIG_MAPS, "/version"] {
            let head = client.send(Method::HEAD, path, &[], Bytes::new()).await;
            assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
            assert_eq!(head.header("content-type"), JSON, "{path}");
        }
        let absent = client.send(Method::HEAD, &format!("{CONFIG_MAPS}/absent"), &[], Bytes::new()).await;
        assert_eq!((absent.status, absent.body.len()), (404, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_are_taken_up_to_three_mebibytes() {
    let (server, admin) = Server::with_namespace().await;
    let too_large = "x".repeat((3 << 20) + 1);
    for client in [admin.fork(), server.admin_http2()] {
        for (method, path, media) in [
            (Method::POST, CONFIG_MAPS.to_owned(), JSON),
            (Method::PUT, format!("{CONFIG_MAPS}/kube-root-ca.crt"), JSON),
            (Method::PATCH, format!("{CONFIG_MAPS}/kube-root-ca.crt"), MERGE),
        ] {
            let reply =
                client.send(method.clone(), &path, &[("content-type", media)], too_large.clone()).await;
            let status = reply.expect(413);
            assert_eq!(status["reason"], "RequestEntityTooLarge", "{method}");
            assert_eq!(status["message"], "Request entity too large: limit is 3145728", "{method}");
        }
    }
    // Within the limit, but more than a ConfigMap may hold.
    let object = json!({"metadata": {"name": "big"}, "data": {"k": "x".repeat(2 << 20)}});
    let refused = admin.post(CONFIG_MAPS, &object).await.expect(422);
    assert_eq!(refused["details"]["causes"][0]["reason"], "FieldValueTooLong", "{}", refused["message"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_gets_a_status_and_harms_nobody() {
    let (_server, admin) = Server::with_namespace().await;
    let yaml = "application/yaml";
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep_object = format!("{}1{}", "{\"a\":".repeat(50_000), "}".repeat(50_000));
    let aliases = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n\
                   d: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e]\n\
                   g: &g [*f,*f,*f,*f,*f,*f,*f,*f]\nh: [*g,*g,*g,*g,*g,*g,*g,*g]\n";
    let bodies: [(&str, &[u8], u16); 14] = [
        (JSON, b"{", 400),
        (JSON, b"{\"metadata\":{\"name\":\"a\"},}", 400),
        (JSON, b"null", 400),
        (JSON, b"[]", 400),
        (JSON, b"\"text\"", 400),
        (JSON, b"{\"metadata\":[]}", 400),
        (JSON, b"{\"metadata\":{\"name\":1}}", 400),
        (JSON, b"\xff\xfe{}", 400),
        (JSON, deep.as_bytes(), 400),
        (JSON, deep_object.as_bytes(), 400),
        (yaml, b"metadata: [", 400),
        (yaml, b"a: b: c", 400),
        (yaml, aliases.as_bytes(), 400),
        ("text/csv", b"a,b", 415),
    ];
    for (media, body, status) in bodies {
        let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
        let reply = admin.send(Method::POST, CONFIG_MAPS, &[("content-type", media)], body.to_vec()).await;
        assert_eq!(reply.status, status, "{media} {shown}: {}", reply.text());
        assert_eq!(reply.json()["kind"], "Status", "{media} {shown}");
    }
    let path = format!("{CONFIG_MAPS}/kube-root-ca.crt");
    let patches: [(&str, &str, u16); 7] = [
        (MERGE, "{", 400),
        (MERGE, "1", 400),
        ("application/json-patch+json", "{}", 400),
        ("application/json-patch+json", "[{\"op\":\"add\"}]", 422),
        ("application/json-patch+json", "[{\"op\":\"copy\",\"from\":\"/nope\",\"path\":\"/data/x\"}]", 422),
        ("application/strategic-merge-patch+json", "[]", 400),
        ("application/nope+json", "{}", 415),
    ];
    for (media, body, status) in patches {
        let reply =
            admin.send(Method::PATCH, &path, &[("content-type", media)], body.as_bytes().to_vec()).await;
        assert_eq!(reply.status, status, "{media} {body}: {}", reply.text());
    }
    admin.get(CONFIG_MAPS).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths_and_verbs_that_are_not_served_are_refused() {
    let (_server, admin) = Server::with_namespace().await;
    let get = [
        ("/api/v1/nopes", 404),
        ("/api/v1/namespaces/t/nopes/x", 404),
        ("/api/v2/pods", 404),
        ("/apis/nope.example/v1/things", 404),
        ("/apis/apps/v9/deployments", 404),
        ("/api/v1/namespaces/t/pods/p/nope", 404),
        ("/api/v1/namespaces/t/nodes", 404),
        ("/nope", 404),
        ("/api/v1/namespaces/t/configmaps/a%2Fb", 404),
        ("/api/v1/namespaces/t/configmaps/%ff", 404),
        ("/api/v1/namespaces/t/configmaps/%zz", 400),
        ("/api/v1/namespaces/t/configmaps/..%2f..%2fsecrets", 404),
        ("/api/v1/namespaces/t/configmaps?labelSelector=%zz", 400),
        ("/api/v1/namespaces/t/configmaps?limit=x", 400),
        ("/api/v1/namespaces/t/configmaps?continue=%00", 400),
        ("//api//v1//configmaps", 404),
    ];
    for (path, status) in get {
        let reply = admin.get(path).await;
        assert_eq!(reply.status, status, "{path}: {}", reply.text());
    }
    let others = [
        (Method::PUT, CONFIG_MAPS, 405),
        (Method::PATCH, CONFIG_MAPS, 405),
        (Method::POST, "/api/v1/namespaces/t/configmaps/x", 405),
        (Method::OPTIONS, CONFIG_MAPS, 405),
        (Method::POST, "/version", 405),
        (Method::DELETE, "/api/v1/namespaces", 405),
        (Method::POST, "/api/v1/configmaps", 405),
        (Method::GET, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", 405),
    ];
    for (method, path, status) in others {
        let reply = admin.send(method.clone(), path, &[("content-type", JSON)], "{}").await;
        assert_eq!(reply.status, status, "{method} {path}: {}", reply.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_beyond_all_measure_end_the_request_and_not_the_server() {
    let (server, admin) = Server::with_namespace().await;
    let large = "x".repeat(600_000);
    let refused = server.admin().send(Method::GET, "/version", &[("x-large", &large)], Bytes::new()).await;
    assert_eq!(refused.status, 431);
    let long_name = "n".repeat(5_000);
    assert_eq!(admin.get(&format!("{CONFIG_MAPS}/{long_name}")).await.status, 404);
    let agent = server.admin().with_header("user-agent", &"a".repeat(10_000));
    let created =
        agent.post(CONFIG_MAPS, &json!({"metadata": {"name": "m"}, "data": {"k": "v"}})).await.expect(201);
    assert_eq!(created["metadata"]["managedFields"][0]["manager"].as_str().unwrap().len(), 128);
    admin.get("/version").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn yaml_is_read_and_written() {
    let (_server, admin) = Server::with_namespace().await;
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: written\ndata:\n  answer: \"yes\"\n  count: '1'\n";
    let media = ("content-type", "application/yaml");
    let created = admin.send(Method::POST, CONFIG_MAPS, &[media], yaml).await.expect(201);
    assert_eq!(created["data"], json!({"answer": "yes", "count": "1"}));
    let read = admin
        .send(Method::GET, &format!("{CONFIG_MAPS}/written"), &[("accept", "application/yaml")], Bytes::new())
        .await;
    assert_eq!((read.status, read.header("content-type").as_str()), (200, "application/yaml"));
    assert!(read.text().contains("\n  answer: \"yes\"\n  count: \"1\"\n"), "{}", read.text());
}
