//! `pintle sim` and the client of clusters elsewhere, against a cluster that runs.

mod running;

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use api::gvr::{CONFIG_MAPS, PODS};
use apimachinery::{GroupVersion, json};
use camino::Utf8Path;
use client::{Api, DeleteOptions, ListOptions, Patch, WatchEvent, WatchOptions, WriteOptions};
use futures::StreamExt;
use remote::RemoteApi;

use running::{Running, pintle, up, write};

const PATIENCE: Duration = Duration::from_secs(60);

fn start(folder: &Path) -> (Running, String) {
    let mut cluster = Running::start(up(folder));
    cluster.line_with("Cluster is ready");
    (cluster, folder.join("kubeconfig").to_str().expect("temporary paths are UTF-8").to_owned())
}

fn sim(kubeconfig: &str, arguments: &[&str]) -> Output {
    pintle().arg("sim").args(arguments).args(["--kubeconfig", kubeconfig]).output().expect("the binary runs")
}

/// What it says when all goes well.
fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn nodes_and_pods_are_made_once_and_removed_by_prefix_and_selector() {
    let folder = tempfile::tempdir().expect("a folder");
    let (cluster, kubeconfig) = start(folder.path());
    let nodes = ["nodes", "--count", "30", "--gpu", "8", "--zones", "3", "--labels", "pool=a"];
    assert!(said(&sim(&kubeconfig, &nodes)).starts_with("Created 30 nodes"));
    let again = said(&sim(&kubeconfig, &["nodes", "--count", "40", "--labels", "pool=b"]));
    assert!(again.starts_with("Created 10 nodes") && again.contains("30 were there already"), "{again}");

    let pods = ["pods", "--count", "20", "--namespace", "load", "--gpu", "1"];
    assert!(said(&sim(&kubeconfig, &pods)).starts_with("Created 20 pods"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let api = RemoteApi::from_kubeconfig(Utf8Path::new(&kubeconfig), "test").expect("a kubeconfig");
        // Each asks for a GPU, which only these nodes have.
        until(&api, &PODS, "load", "status.phase=Running", 20).await;
    });

    let gone = said(&sim(&kubeconfig, &["delete", "pods", "--namespace", "load", "--selector", "app=sim"]));
    assert!(gone.starts_with("Deleted 20 pods"), "{gone}");
    let gone = said(&sim(&kubeconfig, &["delete", "nodes", "--selector", "pool=b"]));
    assert!(gone.starts_with("Deleted 10 nodes"), "{gone}");
    let gone = said(&sim(&kubeconfig, &["delete", "nodes", "--prefix", "sim"]));
    assert!(gone.starts_with("Deleted 30 nodes"), "the cluster's own node stays: {gone}");
    cluster.signal("TERM");
    assert_eq!(cluster.exit_code(), Some(0));
}

#[test]
fn what_the_server_refuses_is_said_with_name_and_field() {
    let folder = tempfile::tempdir().expect("a folder");
    let (cluster, kubeconfig) = start(folder.path());
    let template = "apiVersion: v1\nkind: Pod\nspec: {containers: [{name: A, image: a}]}\n";
    let file = write(folder.path(), "pod.yaml", template);
    let refused = sim(&kubeconfig, &["pods", "--count", "2", "--template", &file]);
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1));
    assert!(error.contains("creating pods sim-") && error.contains("spec.containers[0].name"), "{error}");
    let elsewhere = sim(&format!("{kubeconfig}.gone"), &["nodes", "--count", "1"]);
    assert!(String::from_utf8_lossy(&elsewhere.stderr).contains("kubeconfig.gone"));
    cluster.signal("TERM");
    assert_eq!(cluster.exit_code(), Some(0));
}

/// Waits until so many objects of a namespace match.
async fn until(
    api: &RemoteApi,
    gvr: &apimachinery::GroupVersionResource,
    namespace: &str,
    fields: &str,
    count: usize,
) {
    let options = WatchOptions { field_selector: fields.to_owned(), ..WatchOptions::default() };
    let mut events = api.watch(gvr, namespace, &options).await.expect("a watch");
    let mut seen = 0;
    while seen < count {
        let event = rt::timeout(PATIENCE, events.next()).await.expect("in time").expect("the watch goes on");
        seen += usize::from(matches!(event, Ok(WatchEvent::Added(_))));
    }
}

#[test]
fn a_cluster_elsewhere_is_an_api_like_one_in_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let (cluster, kubeconfig) = start(folder.path());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let api = RemoteApi::from_kubeconfig(Utf8Path::new(&kubeconfig), "test").expect("a kubeconfig");
        verbs(&api).await;
        discovery(&api).await;
    });
    cluster.signal("TERM");
    assert_eq!(cluster.exit_code(), Some(0));
}

async fn verbs(api: &RemoteApi) {
    let (maps, namespace, write) = (&CONFIG_MAPS, "default", WriteOptions::default());
    let start = api.list(maps, namespace, &ListOptions::default()).await.expect("a list").revision;
    let map = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"own": "yes"}}});
    let made = api.create(maps, namespace, map("a"), &write).await.expect("made");
    assert_eq!((made.kind(), made.name(), made.revision() > start), ("ConfigMap", "a", true));
    let again = api.create(maps, namespace, map("a"), &write).await.expect_err("it is there");
    assert!(again.is_already_exists(), "{again}");
    let patch = Patch::Merge(json!({"data": {"key": "value"}}));
    let patched = api.patch(maps, namespace, "a", None, patch, &write).await.expect("patched");
    assert_eq!(patched.to_value()["data"]["key"], "value".into());
    let mut stale = made.to_value();
    stale.set_at(&["metadata", "resourceVersion"], made.revision().to_string());
    let conflict = api.update(maps, namespace, "a", None, stale, &write).await.expect_err("it changed since");
    assert!(conflict.is_conflict(), "{conflict}");
    let apply = WriteOptions { field_manager: "test".into(), force: true, ..WriteOptions::default() };
    api.patch(maps, namespace, "b", None, Patch::Apply(map("b")), &apply).await.expect("applied");

    let page = ListOptions { label_selector: "own=yes".into(), limit: 1, ..ListOptions::default() };
    let first = api.list(maps, namespace, &page).await.expect("a page");
    let next = ListOptions { continue_token: first.continue_token.clone(), ..page };
    let second = api.list(maps, namespace, &next).await.expect("the next page");
    let names: Vec<_> = first.items.iter().chain(&second.items).map(|map| map.name().to_owned()).collect();
    assert_eq!((names, second.continue_token.as_str()), (vec!["a".to_owned(), "b".to_owned()], ""));

    let options =
        WatchOptions { revision: start, label_selector: "own=yes".into(), ..WatchOptions::default() };
    let mut events = api.watch(maps, namespace, &options).await.expect("a watch");
    let all = ListOptions { label_selector: "own=yes".into(), ..ListOptions::default() };
    api.delete_collection(maps, namespace, &all, &DeleteOptions::default()).await.expect("deleted");
    let mut seen = Vec::new();
    while seen.len() < 5 {
        match rt::timeout(PATIENCE, events.next()).await.expect("in time").expect("the watch goes on") {
            Ok(WatchEvent::Added(map)) => seen.push(format!("+{}", map.name())),
            Ok(WatchEvent::Modified(map)) => seen.push(format!("~{}", map.name())),
            Ok(WatchEvent::Deleted(map)) => seen.push(format!("-{}", map.name())),
            Ok(WatchEvent::Bookmark(_)) => {}
            Err(status) => panic!("{status}"),
        }
    }
    assert_eq!(seen, ["+a", "~a", "+b", "-a", "-b"]);
    let gone = api.get(maps, namespace, "a").await.expect_err("it is deleted");
    assert!(gone.is_not_found() && gone.details.is_some_and(|details| details.name == "a"));
}

async fn discovery(api: &RemoteApi) {
    let preferred = api.discover().await.expect("discovered");
    let pods = preferred.iter().find(|found| found.gvr == PODS).expect("pods are served");
    assert!(pods.namespaced && pods.kind == "Pod" && pods.verbs.iter().any(|verb| verb == "watch"));
    let is_review = |found: &&client::Discovered| found.kind == "SubjectAccessReview";
    assert!(!preferred.iter().any(|found| is_review(&found)), "nothing of them is stored");
    assert!(api.discover_all().await.expect("discovered").iter().any(|found| is_review(&found)));
    let apps = GroupVersion { group: "apps".into(), version: "v1".into() };
    let document = api.openapi(&apps).await.expect("a document");
    assert!(document["paths"].is_object());
    let none = GroupVersion { group: "none.example".into(), version: "v1".into() };
    assert!(api.openapi(&none).await.expect_err("nothing of it is served").is_not_found());
}
