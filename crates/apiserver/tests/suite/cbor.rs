//! CBOR (KEP-4222): every body and answer in it, and none of it while its gate is off.

use api::Features;
use apimachinery::{Value, cbor, json};
use http::Method;
use registry::ServiceNetwork;

use crate::server::Server;
use crate::wire::{Client, Reply};

const CONFIG_MAPS: &str = "/api/v1/namespaces/t/configmaps";

async fn server() -> (Server, Client) {
    let features = Features::parse("CBORServingAndStorage=true").expect("a gate");
    let apis = apiserver::options::Apis { features, ..Default::default() };
    let options = apiserver::Options { apis, ..Default::default() };
    let server = Server::on_with(ServiceNetwork::default(), options).await;
    server.add_namespace("t", serde_json::json!({})).await;
    let client = server.admin().with_header("accept", cbor::CONTENT_TYPE);
    (server, client)
}

#[track_caller]
fn decoded(reply: &Reply, status: u16) -> Value {
    let media = reply.header("content-type");
    assert_eq!((reply.status, media.as_str()), (status, cbor::CONTENT_TYPE), "{}", reply.text());
    assert!(reply.body.starts_with(&[0xd9, 0xd9, 0xf7]), "the answer is marked as CBOR");
    cbor::decode(&reply.body).expect("CBOR")
}

async fn send(client: &Client, method: Method, path: &str, media: &str, body: &Value) -> Reply {
    client.send(method, path, &[("content-type", media)], cbor::encode(body)).await
}

fn map(name: &str, value: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"w": "1"}}, "data": {"k": value},
    })
}

/// The items of a sequence.
fn items(mut bytes: &[u8]) -> Vec<Value> {
    let mut items = Vec::new();
    while !bytes.is_empty() {
        let end = (1..=bytes.len()).find(|end| cbor::decode(&bytes[..*end]).is_ok()).expect("a whole item");
        items.push(cbor::decode(&bytes[..end]).expect("CBOR"));
        bytes = &bytes[end..];
    }
    items
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_body_and_answer_can_be_cbor() {
    let (_server, client) = server().await;
    let created = send(&client, Method::POST, CONFIG_MAPS, cbor::CONTENT_TYPE, &map("a", "1")).await;
    assert_eq!(decoded(&created, 201)["data"], json!({"k": "1"}));
    let path = format!("{CONFIG_MAPS}/a");
    let put = send(&client, Method::PUT, &path, cbor::CONTENT_TYPE, &map("a", "2")).await;
    assert_eq!(decoded(&put, 200)["data"], json!({"k": "2"}));
    let applied = format!("{path}?fieldManager=m&force=true");
    let apply = send(&client, Method::PATCH, &applied, cbor::APPLY_CONTENT_TYPE, &map("a", "3")).await;
    let apply = decoded(&apply, 200);
    assert_eq!(apply["data"], json!({"k": "3"}));
    assert_eq!(apply["metadata"]["managedFields"][0].str_at(&["operation"]), "Apply");
    let list = decoded(&client.get(&format!("{CONFIG_MAPS}?labelSelector=w")).await, 200);
    assert_eq!((list.str_at(&["kind"]), &list["items"][0]["data"]), ("ConfigMapList", &json!({"k": "3"})));
    let missing = decoded(&client.get(&format!("{CONFIG_MAPS}/b")).await, 404);
    assert_eq!((missing.str_at(&["kind"]), missing.str_at(&["reason"])), ("Status", "NotFound"));
    let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "dryRun": ["All"]});
    decoded(&send(&client, Method::DELETE, &path, cbor::CONTENT_TYPE, &options).await, 200);
    decoded(&client.get(&path).await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contents_of_a_secret_are_bytes() {
    let (_server, client) = server().await;
    // {"metadata": {"name": "s"}, "data": {"k": bytes to be encoded as base64}}
    let body = b"\xd9\xd9\xf7\xa2\x68metadata\xa1\x64name\x61s\x64data\xa1\x61k\xd6\x43\x01\x02\x03";
    let headers = [("content-type", cbor::CONTENT_TYPE)];
    let reply = client.send(Method::POST, "/api/v1/namespaces/t/secrets", &headers, &body[..]).await;
    assert_eq!(decoded(&reply, 201)["data"], json!({"k": "AQID"}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_and_metadata_can_be_cbor() {
    let (server, client) = server().await;
    send(&client, Method::POST, CONFIG_MAPS, cbor::CONTENT_TYPE, &map("a", "1")).await;
    let asking = |kind: &str| {
        server.admin().with_header("accept", &format!("{};as={kind};g=meta.k8s.io;v=v1", cbor::CONTENT_TYPE))
    };
    let path = format!("{CONFIG_MAPS}?labelSelector=w");
    let table = decoded(&asking("Table").get(&path).await, 200);
    assert_eq!((table.str_at(&["kind"]), &table["rows"][0]["cells"][0]), ("Table", &json!("a")));
    let metadata = decoded(&asking("PartialObjectMetadataList").get(&path).await, 200);
    assert_eq!(metadata.str_at(&["kind"]), "PartialObjectMetadataList");
    assert_eq!(metadata["items"][0]["metadata"].str_at(&["name"]), "a");
    let watch = asking("Table").get(&format!("{path}&watch=1&timeoutSeconds=1")).await;
    let events = items(&watch.body);
    assert_eq!((events.len(), events[0]["object"].str_at(&["kind"])), (1, "Table"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_is_a_sequence_of_items() {
    let (_server, client) = server().await;
    for name in ["a", "b"] {
        send(&client, Method::POST, CONFIG_MAPS, cbor::CONTENT_TYPE, &map(name, "1")).await;
    }
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let reply = client.get(&format!("{CONFIG_MAPS}?labelSelector=w&timeoutSeconds=1&{query}")).await;
    assert_eq!((reply.status, reply.header("content-type").as_str()), (200, cbor::SEQUENCE_CONTENT_TYPE));
    let events: Vec<String> = items(&reply.body)
        .iter()
        .map(|event| format!("{} {}", event.str_at(&["type"]), event["object"]["metadata"].str_at(&["name"])))
        .collect();
    assert_eq!(events, ["ADDED a", "ADDED b", "BOOKMARK "]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_cbor_is_refused() {
    let (_server, client) = server().await;
    for (body, problem) in [
        (&b"\xa1\x61a"[..], "unexpected EOF"),
        (b"\xa2\x61a\x01\x61a\x02", "cbor: found duplicate map key \"a\" at map element index 1"),
        (
            b"\xa1\x61a\xfb\x7f\xf8\0\0\0\0\0\0",
            "cbor: cannot unmarshal NaN or infinity into Go value of type float64",
        ),
    ] {
        let reply =
            client.send(Method::POST, CONFIG_MAPS, &[("content-type", cbor::CONTENT_TYPE)], body).await;
        let status = decoded(&reply, 400);
        let expected = format!(
            "the object provided is unrecognized (must be of type ConfigMap): unable to determine group/version/kind: \
             {problem} ("
        );
        assert!(status.str_at(&["message"]).starts_with(&expected), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_gate_there_is_no_cbor() {
    let (server, admin) = Server::with_namespace().await;
    let asking = server.admin().with_header("accept", cbor::CONTENT_TYPE);
    assert_eq!(asking.get(CONFIG_MAPS).await.status, 406);
    let sent = send(&admin, Method::POST, CONFIG_MAPS, cbor::CONTENT_TYPE, &map("a", "1")).await;
    assert_eq!(sent.status, 415);
    let path = format!("{CONFIG_MAPS}/a?fieldManager=m");
    let applied = send(&admin, Method::PATCH, &path, cbor::APPLY_CONTENT_TYPE, &map("a", "1")).await;
    assert_eq!(applied.status, 415);
}
