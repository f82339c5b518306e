//! Watches: order, selection, bookmarks, ends.

use std::time::Instant;

use serde_json::{Value, json};

use crate::server::Server;
use crate::wire::{Client, MERGE, summary};

const CONFIG_MAPS: &str = "/api/v1/namespaces/t/configmaps";

async fn create(client: &Client, name: &str, labels: Value) {
    client.post(CONFIG_MAPS, &json!({"metadata": {"name": name, "labels": labels}})).await.expect(201);
}

async fn version(client: &Client) -> String {
    let list = client.get(CONFIG_MAPS).await.expect(200);
    list["metadata"]["resourceVersion"].as_str().expect("a version").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_watcher_sees_every_change_once_and_in_order() {
    let (_server, admin) = Server::with_namespace().await;
    let from = version(&admin).await;
    let path = format!("{CONFIG_MAPS}?watch=true&resourceVersion={from}");
    let mut watches = Vec::new();
    for _ in 0..3 {
        watches.push(admin.stream(&path).await);
    }
    let mut expected = Vec::new();
    for n in 0..20 {
        create(&admin, &format!("c{n}"), json!({})).await;
        expected.push(format!("ADDED c{n}"));
        admin.patch(&format!("{CONFIG_MAPS}/c{n}"), MERGE, &json!({"data": {"k": "v"}})).await.expect(200);
        expected.push(format!("MODIFIED c{n}"));
        if n % 2 == 0 {
            admin.delete(&format!("{CONFIG_MAPS}/c{n}")).await.expect(200);
            expected.push(format!("DELETED c{n}"));
        }
    }
    // One that comes late and starts at the same version sees the same.
    watches.push(admin.stream(&path).await);
    for watch in &mut watches {
        let (mut seen, mut last) = (Vec::new(), 0);
        for _ in 0..expected.len() {
            let event = watch.next().await.expect("an event");
            let revision: u64 =
                event["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
            assert!(revision > last, "versions grow");
            last = revision;
            seen.push(summary(&event));
        }
        assert_eq!(seen, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_without_a_version_begins_with_what_is_there() {
    let (_server, admin) = Server::with_namespace().await;
    create(&admin, "a", json!({"w": "1"})).await;
    create(&admin, "b", json!({})).await;
    for query in ["", "&resourceVersion=0"] {
        let mut watch = admin.stream(&format!("{CONFIG_MAPS}?watch=1&labelSelector=w{query}")).await;
        assert_eq!(watch.next_summary().await, "ADDED a", "{query}");
        let name = format!("c{}", query.len());
        create(&admin, &name, json!({"w": "1"})).await;
        assert_eq!(watch.next_summary().await, format!("ADDED {name}"));
        admin.delete(&format!("{CONFIG_MAPS}/{name}")).await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_leaves_the_selection_is_deleted_for_the_watcher() {
    let (_server, admin) = Server::with_namespace().await;
    let from = version(&admin).await;
    let mut watch =
        admin.stream(&format!("{CONFIG_MAPS}?watch=1&labelSelector=w%3D1&resourceVersion={from}")).await;
    create(&admin, "other", json!({"w": "2"})).await;
    create(&admin, "m", json!({"w": "1"})).await;
    assert_eq!(watch.next_summary().await, "ADDED m");
    let label = |value: &str| json!({"metadata": {"labels": {"w": value}}});
    let changed = admin.patch(&format!("{CONFIG_MAPS}/m"), MERGE, &label("2")).await.expect(200);
    let left = watch.next().await.expect("an event");
    assert_eq!(summary(&left), "DELETED m");
    assert_eq!(left["object"]["metadata"]["resourceVersion"], changed["metadata"]["resourceVersion"]);
    assert_eq!(left["object"]["metadata"]["labels"]["w"], "1", "as it was last seen");
    admin.patch(&format!("{CONFIG_MAPS}/m"), MERGE, &label("1")).await.expect(200);
    assert_eq!(watch.next_summary().await, "ADDED m");
    admin.delete(&format!("{CONFIG_MAPS}/m")).await.expect(200);
    assert_eq!(watch.next_summary().await, "DELETED m");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn initial_events_end_with_a_marked_bookmark() {
    let (_server, admin) = Server::with_namespace().await;
    create(&admin, "a", json!({})).await;
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = admin.stream(&format!("{CONFIG_MAPS}?{query}")).await;
    assert_eq!(watch.next_summary().await, "ADDED a");
    assert_eq!(watch.next_summary().await, "ADDED kube-root-ca.crt");
    let bookmark = watch.next().await.expect("a bookmark");
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(bookmark["object"]["kind"], "ConfigMap");
    let at = bookmark["object"]["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    create(&admin, "b", json!({})).await;
    assert_eq!(watch.next_summary().await, "ADDED b");
    let mut resumed = admin.stream(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={at}")).await;
    assert_eq!(resumed.next_summary().await, "ADDED b", "the bookmark is a place to resume at");
    let mut quiet = admin
        .stream(&format!("{CONFIG_MAPS}?watch=1&sendInitialEvents=false&resourceVersionMatch=NotOlderThan"))
        .await;
    create(&admin, "c", json!({})).await;
    assert_eq!(quiet.next_summary().await, "ADDED c");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_ends_when_its_time_is_up() {
    let (_server, admin) = Server::with_namespace().await;
    let from = version(&admin).await;
    let started = Instant::now();
    let mut watch =
        admin.stream(&format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1&resourceVersion={from}")).await;
    assert_eq!(watch.status, 200);
    assert_eq!(watch.next_summary().await, "end");
    let took = started.elapsed().as_millis();
    assert!((900..5_000).contains(&took), "{took} ms");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_object_can_be_watched_by_field_or_by_the_old_path() {
    let (_server, admin) = Server::with_namespace().await;
    let from = version(&admin).await;
    let by_field = format!("{CONFIG_MAPS}?watch=1&fieldSelector=metadata.name%3Dm&resourceVersion={from}");
    let by_path = format!("/api/v1/watch/namespaces/t/configmaps/m?resourceVersion={from}");
    let mut watches = [admin.stream(&by_field).await, admin.stream(&by_path).await];
    create(&admin, "other", json!({})).await;
    create(&admin, "m", json!({})).await;
    for watch in &mut watches {
        assert_eq!(watch.status, 200);
        assert_eq!(watch.next_summary().await, "ADDED m");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_can_be_of_tables_or_of_metadata() {
    let (server, admin) = Server::with_namespace().await;
    create(&admin, "a", json!({"w": "1"})).await;
    let path = format!("{CONFIG_MAPS}?watch=1&labelSelector=w");
    let table = server.admin().with_header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
    let mut watch = table.stream(&path).await;
    let event = watch.next().await.expect("an event");
    assert_eq!(event["object"]["kind"], "Table");
    assert_eq!(event["object"]["rows"][0]["cells"][0], "a");
    assert!(event["object"]["columnDefinitions"].is_array(), "the first table has its columns");
    create(&admin, "b", json!({"w": "1"})).await;
    let event = watch.next().await.expect("an event");
    assert_eq!(event["object"]["rows"][0]["cells"][0], "b");
    let partial =
        server.admin().with_header("accept", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io");
    let event = partial.stream(&path).await.next().await.expect("an event");
    assert_eq!(event["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(event["object"]["metadata"]["name"], "a");
}
