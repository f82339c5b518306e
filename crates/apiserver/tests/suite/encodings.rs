//! Clients that take nothing but protobuf: every kind of answer in it, and as metadata only.

use api::protobuf;
use apimachinery::Value;
use http::Method;
use serde_json::json;

use crate::server::Server;
use crate::wire::{Client, Reply};

const CONFIG_MAPS: &str = "/api/v1/namespaces/t/configmaps";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const METADATA: &str = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

fn taking(server: &Server, accept: &str) -> Client {
    server.admin().with_header("accept", accept)
}

async fn create(client: &Client, name: &str) -> Reply {
    let map = json!({"metadata": {"name": name, "labels": {"w": "1"}}, "data": {"k": "v"}});
    client.post(CONFIG_MAPS, &map).await
}

#[track_caller]
fn decoded(reply: &Reply, status: u16) -> Value {
    assert_eq!((reply.status, reply.header("content-type").as_str()), (status, PROTOBUF), "{}", reply.text());
    protobuf::decode(&reply.body).expect("protobuf").value
}

/// The events of a watch that has ended: type and object.
fn events(mut bytes: &[u8]) -> Vec<(String, Value)> {
    let mut events = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let (event, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        let event = protobuf::decode_message("io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent", event);
        let event = event.expect("an event");
        events.push((event.str_at(&["type"]).to_owned(), event["object"].clone()));
        bytes = rest;
    }
    events
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_can_be_protobuf() {
    let (server, _) = Server::with_namespace().await;
    let client = taking(&server, PROTOBUF);
    assert_eq!(decoded(&create(&client, "a").await, 201)["data"]["k"], "v".into());
    let refused = decoded(&create(&client, "a").await, 409);
    assert_eq!((refused.str_at(&["kind"]), refused.str_at(&["reason"])), ("Status", "AlreadyExists"));
    let whole = decoded(&client.get(&format!("{CONFIG_MAPS}?labelSelector=w")).await, 200);
    assert_eq!(whole.str_at(&["kind"]), "ConfigMapList");
    assert_eq!(whole["items"][0]["data"]["k"], "v".into());
    assert!(whole["items"][0].get("kind").is_none(), "items of a list do not say what they are");
    let gone = decoded(&client.delete(&format!("{CONFIG_MAPS}/a")).await, 200);
    assert_eq!(gone.str_at(&["status"]), "Success");
    let missing = decoded(&client.get(&format!("{CONFIG_MAPS}/a")).await, 404);
    assert_eq!(missing.str_at(&["reason"]), "NotFound");
    let body = protobuf::encode(&apimachinery::json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "sent"}, "data": {"k": "w"}
    }));
    let headers = [("content-type", PROTOBUF)];
    let sent = client.send(Method::POST, CONFIG_MAPS, &headers, body.expect("protobuf")).await;
    assert_eq!(decoded(&sent, 201)["data"]["k"], "w".into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_list_is_the_same_in_protobuf_and_in_json() {
    let (server, admin) = Server::with_namespace().await;
    for n in 0..40 {
        let map = json!({"metadata": {"name": format!("m{n:02}")}, "data": {"k": "x".repeat(10_000)}});
        admin.post(CONFIG_MAPS, &map).await.expect(201);
    }
    let ours = decoded(&taking(&server, PROTOBUF).get(CONFIG_MAPS).await, 200);
    let theirs = Value::from(admin.get(CONFIG_MAPS).await.expect(200));
    assert_eq!(ours, theirs);
    let ours = decoded(&taking(&server, METADATA).get(CONFIG_MAPS).await, 200);
    let json = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let theirs = Value::from(taking(&server, json).get(CONFIG_MAPS).await.expect(200));
    assert_eq!(ours.array_at(&["items"]).len(), 41, "the maps and the root certificate");
    for (own, other) in ours.array_at(&["items"]).iter().zip(theirs.array_at(&["items"])) {
        assert_eq!(own["metadata"], other["metadata"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_alone_can_be_protobuf() {
    let (server, admin) = Server::with_namespace().await;
    create(&admin, "a").await.expect(201);
    let client = taking(&server, METADATA);
    let one = decoded(&client.get(&format!("{CONFIG_MAPS}/a")).await, 200);
    assert_eq!(one.str_at(&["apiVersion"]), "meta.k8s.io/v1");
    assert_eq!(one.str_at(&["kind"]), "PartialObjectMetadata");
    assert_eq!(one.str_at(&["metadata", "name"]), "a");
    assert!(one.get("data").is_none());
    let list = decoded(&client.get(&format!("{CONFIG_MAPS}?labelSelector=w")).await, 200);
    assert_eq!(list.str_at(&["kind"]), "PartialObjectMetadataList");
    assert_eq!(list["items"][0].str_at(&["metadata", "name"]), "a");
    let missing = client.get(&format!("{CONFIG_MAPS}/b")).await;
    assert_eq!(missing.expect(404)["reason"], "NotFound", "a failure has no metadata form and is JSON");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_in_protobuf_has_initial_events_and_their_end() {
    let (server, admin) = Server::with_namespace().await;
    create(&admin, "a").await.expect(201);
    let path = format!(
        "{CONFIG_MAPS}?watch=1&labelSelector=w&sendInitialEvents=true&resourceVersionMatch=NotOlderThan\
         &allowWatchBookmarks=true&timeoutSeconds=1"
    );
    for (accept, kind) in [(PROTOBUF, "ConfigMap"), (METADATA, "PartialObjectMetadata")] {
        let reply = taking(&server, accept).get(&path).await;
        assert_eq!(reply.header("content-type"), protobuf::WATCH_CONTENT_TYPE);
        let events = events(&reply.body);
        let kinds: Vec<_> = events.iter().map(|(event, object)| (event.as_str(), object)).collect();
        let [("ADDED", added), ("BOOKMARK", end)] = kinds.as_slice() else { panic!("{events:?}") };
        assert_eq!((added.str_at(&["kind"]), end.str_at(&["kind"])), (kind, kind));
        assert_eq!(added.str_at(&["metadata", "name"]), "a");
        assert_eq!(end["metadata"]["annotations"]["k8s.io/initial-events-end"], "true".into());
    }
}
