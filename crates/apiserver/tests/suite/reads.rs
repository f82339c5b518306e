//! Lists: pages, versions, selectors.

use std::collections::BTreeSet;

use serde_json::json;

use crate::server::Server;
use crate::wire::{Client, MERGE, names};

const CONFIG_MAPS: &str = "/api/v1/namespaces/t/configmaps";

async fn create(client: &Client, name: &str) {
    client.post(CONFIG_MAPS, &json!({"metadata": {"name": name, "labels": {"n": name}}})).await.expect(201);
}

/// Rewrites a large object until the history of before is no longer kept.
async fn outlive_history(admin: &Client) {
    /// Above what history is bounded by: 64 MiB, and more than 128 changes.
    const CHANGES: usize = 140;
    let large = json!({"metadata": {"name": "large"}, "data": {"k": "x".repeat(600_000)}});
    admin.post(CONFIG_MAPS, &large).await.expect(201);
    for change in 0..CHANGES {
        let patch = json!({"metadata": {"labels": {"change": change.to_string()}}});
        admin.patch(&format!("{CONFIG_MAPS}/large"), MERGE, &patch).await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_show_exactly_the_objects_of_the_first_one_while_others_write() {
    let (server, admin) = Server::with_namespace().await;
    let wanted: BTreeSet<String> = (0..40).map(|n| format!("c{n:02}")).collect();
    for name in &wanted {
        create(&admin, name).await;
    }
    let before: BTreeSet<String> = admin.get(CONFIG_MAPS).await.names().into_iter().collect();
    let writer = server.admin();
    let writing = rt::spawn("writer", async move {
        for n in 0..40 {
            writer.delete(&format!("{CONFIG_MAPS}/c{n:02}")).await.expect(200);
            create(&writer, &format!("new{n:02}")).await;
        }
    });
    let first = admin.get(&format!("{CONFIG_MAPS}?limit=7")).await.expect(200);
    let version = first["metadata"]["resourceVersion"].clone();
    let mut seen = names(&first);
    let mut page = first;
    while let Some(token) = page["metadata"]["continue"].as_str().filter(|token| !token.is_empty()) {
        let path = format!("{CONFIG_MAPS}?limit=7&continue={token}");
        page = admin.get(&path).await.expect(200);
        assert_eq!(page["metadata"]["resourceVersion"], version, "every page is of one state");
        seen.extend(names(&page));
    }
    writing.await.expect("the writer ends");
    let at = version.as_str().expect("a version");
    let exact = admin.get(&format!("{CONFIG_MAPS}?resourceVersion={at}&resourceVersionMatch=Exact")).await;
    assert_eq!(seen, exact.names(), "pages are the list at their version");
    let sorted: Vec<String> = seen.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
    assert_eq!(seen, sorted, "in order and without repeats");
    assert!(
        seen.len() == before.len() || seen.len() == before.len() - 1,
        "the writer holds one at a time: {}",
        seen.len()
    );
    let after: BTreeSet<String> = admin.get(CONFIG_MAPS).await.names().into_iter().collect();
    assert!(after.is_disjoint(&wanted));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_page_has_no_token_and_others_count_what_remains() {
    let (_server, admin) = Server::with_namespace().await;
    for name in ["a", "b", "c"] {
        create(&admin, name).await;
    }
    let first = admin.get(&format!("{CONFIG_MAPS}?limit=2")).await.expect(200);
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 2, "c and the root certificate");
    let whole = admin.get(&format!("{CONFIG_MAPS}?limit=4")).await.expect(200);
    assert_eq!(whole["items"].as_array().unwrap().len(), 4);
    assert!(whole["metadata"]["continue"].is_null() && whole["metadata"]["remainingItemCount"].is_null());
    let selected = admin.get(&format!("{CONFIG_MAPS}?limit=1&labelSelector=n")).await.expect(200);
    assert!(selected["metadata"]["continue"].is_string());
    assert!(selected["metadata"]["remainingItemCount"].is_null(), "unknown with a selector");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_forgotten_history_is_gone_and_can_go_on_inconsistently() {
    let (_server, admin) = Server::with_namespace().await;
    for name in ["a", "b", "c"] {
        create(&admin, name).await;
    }
    let first = admin.get(&format!("{CONFIG_MAPS}?limit=1")).await.expect(200);
    let token = first["metadata"]["continue"].as_str().unwrap().to_owned();
    let version = first["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    outlive_history(&admin).await;
    let gone = admin.get(&format!("{CONFIG_MAPS}?limit=1&continue={token}")).await.expect(410);
    assert_eq!((gone["reason"].as_str(), gone["status"].as_str()), (Some("Expired"), Some("Failure")));
    let fresh = gone["metadata"]["continue"].as_str().expect("a token to go on with");
    let rest = admin.get(&format!("{CONFIG_MAPS}?continue={fresh}")).await.names();
    assert_eq!(rest, ["b", "c", "kube-root-ca.crt", "large"]);
    let exact =
        admin.get(&format!("{CONFIG_MAPS}?resourceVersion={version}&resourceVersionMatch=Exact")).await;
    assert_eq!(exact.expect(410)["reason"], "Expired");
    // A watch from there begins with 200 and tells in the stream.
    let mut watch = admin.stream(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={version}")).await;
    let event = watch.next().await.expect("an event");
    assert_eq!((event["type"].as_str(), event["object"]["code"].as_u64()), (Some("ERROR"), Some(410)));
    assert!(watch.next().await.is_none(), "and ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resource_versions_mean_what_they_do_upstream() {
    let (_server, admin) = Server::with_namespace().await;
    create(&admin, "a").await;
    let before =
        admin.get(CONFIG_MAPS).await.expect(200)["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    create(&admin, "b").await;
    let list = |query: String| {
        let admin = &admin;
        async move { admin.get(&format!("{CONFIG_MAPS}?labelSelector=n&{query}")).await }
    };
    let exact = list(format!("resourceVersion={before}&resourceVersionMatch=Exact")).await.expect(200);
    assert_eq!(names(&exact), ["a"]);
    assert_eq!(exact["metadata"]["resourceVersion"], before.as_str());
    for query in [
        format!("resourceVersion={before}&resourceVersionMatch=NotOlderThan"),
        format!("resourceVersion={before}"),
        "resourceVersion=0".to_owned(),
        String::new(),
    ] {
        assert_eq!(list(query.clone()).await.names(), ["a", "b"], "{query}");
    }
    for query in ["resourceVersion=99999999", "resourceVersion=99999999&resourceVersionMatch=Exact"] {
        let refused = list(query.to_owned()).await.expect(504);
        assert_eq!(refused["reason"], "Timeout", "{query}");
        assert_eq!(refused["details"]["causes"][0]["reason"], "ResourceVersionTooLarge", "{query}");
        assert!(
            refused["message"]
                .as_str()
                .unwrap()
                .starts_with("Too large resource version: 99999999, current: ")
        );
    }
    assert_eq!(list("resourceVersionMatch=Exact".to_owned()).await.status, 422, "a match needs a version");
    assert_eq!(list("resourceVersion=0&resourceVersionMatch=Exact".to_owned()).await.status, 422);
    let first = list("limit=1".to_owned()).await.expect(200);
    let token = first["metadata"]["continue"].as_str().unwrap();
    assert_eq!(list(format!("limit=1&continue={token}&resourceVersion={before}")).await.status, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn selectors_choose_exactly_the_matching_objects() {
    let (_server, admin) = Server::with_namespace().await;
    for (name, labels) in [
        ("a", json!({"app": "x", "tier": "1"})),
        ("b", json!({"app": "y"})),
        ("c", json!({"app": "x"})),
        ("d", json!({})),
    ] {
        admin.post(CONFIG_MAPS, &json!({"metadata": {"name": name, "labels": labels}})).await.expect(201);
    }
    let cases: [(&str, &[&str]); 8] = [
        ("labelSelector=app%3Dx", &["a", "c"]),
        ("labelSelector=app%21%3Dx", &["b", "d", "kube-root-ca.crt"]),
        ("labelSelector=app%20in%20(x,y),!tier", &["b", "c"]),
        ("labelSelector=app%20notin%20(x)", &["b", "d", "kube-root-ca.crt"]),
        ("labelSelector=tier%3E0", &["a"]),
        ("labelSelector=tier%3E1", &[]),
        ("fieldSelector=metadata.name%3Db", &["b"]),
        ("labelSelector=app&fieldSelector=metadata.name!%3Db,metadata.namespace%3Dt", &["a", "c"]),
    ];
    for (query, expected) in cases {
        assert_eq!(admin.get(&format!("{CONFIG_MAPS}?{query}")).await.names(), expected, "{query}");
    }
    assert_eq!(admin.get(&format!("{CONFIG_MAPS}?labelSelector=a%20in%20(")).await.status, 400);
    let across = admin.get("/api/v1/configmaps?labelSelector=app").await.names();
    assert_eq!(across, ["a", "b", "c"], "across namespaces");
}
