use std::time::Duration;

use api::gvr::PODS;
use apimachinery::{Value, json};

use super::*;
use crate::fake::FakeApi;
use crate::{Api, WriteOptions};

fn pod(name: &str, node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "ns", "labels": {"app": name}},
        "spec": {"nodeName": node}
    })
}

fn by_node(object: &Object) -> Vec<Str> {
    vec![object.to_value().str_at(&["spec", "nodeName"]).into()]
}

async fn next(subscription: &mut Subscription) -> String {
    let delta = rt::timeout(Duration::from_secs(5), subscription.recv()).await.expect("a delta within 5 s");
    match delta {
        Some(Delta::Upsert { old: None, new }) => format!("+{}", new.name()),
        Some(Delta::Upsert { old: Some(_), new }) => format!("~{}", new.name()),
        Some(Delta::Delete { old }) => format!("-{}", old.name()),
        Some(Delta::Resync) => "resync".into(),
        None => "end".into(),
    }
}

fn names(objects: &[Arc<Object>]) -> Vec<&str> {
    let mut names: Vec<&str> = objects.iter().map(|object| object.name()).collect();
    names.sort_unstable();
    names
}

struct World {
    fake: Arc<FakeApi>,
    informers: Informers,
    shutdown: Shutdown,
}

fn world() -> World {
    let (fake, shutdown) = (FakeApi::new(), Shutdown::new());
    let informers = Informers::new(fake.clone(), shutdown.clone());
    World { fake, informers, shutdown }
}

#[tokio::test]
async fn a_store_has_the_list_and_follows_the_watch() {
    let World { fake, informers, .. } = world();
    fake.seed(pod("a", "n1"));
    let informer = informers.of(&PODS);
    informer.add_index("node", by_node);
    let mut deltas = informer.subscribe();
    informer.synced().await;
    assert_eq!(next(&mut deltas).await, "resync");
    assert_eq!(names(&informer.list()), ["a"]);

    fake.seed(pod("b", "n2"));
    assert_eq!(next(&mut deltas).await, "+b");
    fake.edit(&PODS, "ns", "b", |pod| pod.set_at(&["spec", "nodeName"], "n1"));
    assert_eq!(next(&mut deltas).await, "~b");
    assert_eq!(names(&informer.by_index("node", "n1")), ["a", "b"]);
    assert!(informer.by_index("node", "n2").is_empty());
    fake.drop_object(&PODS, "ns", "a");
    assert_eq!(next(&mut deltas).await, "-a");
    assert_eq!(names(&informer.by_index("node", "n1")), ["b"]);
    assert_eq!(names(&informer.list_namespace("ns")), ["b"]);
    assert!(informer.list_namespace("other").is_empty());
    assert!(informer.get("ns", "b").is_some() && informer.get("ns", "a").is_none());
}

#[tokio::test]
async fn the_objects_are_the_servers_own() {
    let World { fake, informers, .. } = world();
    let seeded = fake.seed(pod("a", ""));
    let informer = informers.of(&PODS);
    informer.synced().await;
    assert!(Arc::ptr_eq(&seeded, &informer.get("ns", "a").unwrap()));
}

#[tokio::test]
async fn an_index_added_late_is_filled() {
    let World { fake, informers, .. } = world();
    fake.seed(pod("a", "n1"));
    let informer = informers.of(&PODS);
    informer.synced().await;
    assert!(informer.by_index("node", "n1").is_empty());
    informer.add_index("node", by_node);
    assert_eq!(names(&informer.by_index("node", "n1")), ["a"]);
    assert_eq!(informer.index_len("node", "n1"), 1);
}

#[tokio::test]
async fn one_list_and_watch_per_resource_whoever_asks() {
    let World { fake, informers, .. } = world();
    let (first, second) = (informers.of(&PODS), informers.clone().of(&PODS));
    first.synced().await;
    second.synced().await;
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!(fake.calls().iter().filter(|call| call.verb == "list").count(), 1);
}

#[tokio::test]
async fn a_closed_watch_is_resumed_without_listing_again() {
    let World { fake, informers, .. } = world();
    let informer = informers.of(&PODS);
    let mut deltas = informer.subscribe();
    assert_eq!(next(&mut deltas).await, "resync");
    fake.close_watches();
    fake.seed(pod("a", ""));
    assert_eq!(next(&mut deltas).await, "+a");
    assert_eq!(fake.calls().iter().filter(|call| call.verb == "list").count(), 1);
}

#[tokio::test]
async fn expired_history_is_listed_again_and_told_as_differences() {
    let World { fake, informers, .. } = world();
    for name in ["gone", "changed", "same", "reborn"] {
        fake.seed(pod(name, ""));
    }
    let informer = informers.of(&PODS);
    let mut deltas = informer.subscribe();
    assert_eq!(next(&mut deltas).await, "resync");

    fake.pause_watches();
    fake.drop_object(&PODS, "ns", "gone");
    fake.edit(&PODS, "ns", "changed", |pod| pod.set_at(&["spec", "nodeName"], "n1"));
    fake.drop_object(&PODS, "ns", "reborn");
    fake.seed(pod("reborn", ""));
    fake.seed(pod("new", ""));
    fake.expire_history();
    fake.resume_watches();

    let mut told = Vec::new();
    for _ in 0..5 {
        told.push(next(&mut deltas).await);
    }
    told.sort_unstable();
    assert_eq!(told, ["+new", "+reborn", "-gone", "-reborn", "~changed"]);
    assert_eq!(names(&informer.list()), ["changed", "new", "reborn", "same"]);
}

#[tokio::test]
async fn a_list_that_fails_is_tried_again() {
    let World { fake, informers, .. } = world();
    let mut failures = 2;
    fake.fail(move |call| {
        let fails = call.verb == "list" && failures > 0;
        failures -= i32::from(fails);
        fails.then(|| apimachinery::Status::unavailable("starting"))
    });
    fake.seed(pod("a", ""));
    let informer = informers.of(&PODS);
    assert!(!informer.is_synced());
    informer.synced().await;
    assert_eq!(informer.len(), 1);
}

#[tokio::test]
async fn a_slow_subscriber_resyncs_instead_of_holding_others_up() {
    let World { fake, informers, .. } = world();
    let informer = informers.of(&PODS);
    let mut slow = informer.subscribe();
    informer.synced().await;
    let object = fake.seed(pod("a", ""));
    let one = Delta::Upsert { old: None, new: object };
    informer.publish(&vec![one.clone(); QUEUE_MAX]);
    informer.publish(std::slice::from_ref(&one));
    informer.publish(&[one]);
    let mut batch = Vec::new();
    slow.recv_batch(&mut batch).await;
    assert!(matches!(batch[0], Delta::Resync), "{:?}", batch[0]);
    assert!(batch.len() <= 3, "the queue was emptied: {}", batch.len());
}

#[tokio::test]
async fn a_scope_sees_only_its_part() {
    let World { fake, informers, .. } = world();
    fake.seed(pod("a", ""));
    fake.seed(pod("b", ""));
    let scope = Scope { label_selector: "app=b".into(), ..Scope::default() };
    let informer = informers.scoped(&PODS, scope);
    let mut deltas = informer.subscribe();
    informer.synced().await;
    assert_eq!(names(&informer.list()), ["b"]);
    assert_eq!(next(&mut deltas).await, "resync");
    fake.edit(&PODS, "ns", "b", |pod| pod.set_at(&["metadata", "labels", "app"], "c"));
    assert_eq!(next(&mut deltas).await, "-b");
}

#[tokio::test]
async fn ones_own_write_can_be_awaited() {
    let World { fake, informers, .. } = world();
    let informer = informers.of(&PODS);
    informer.synced().await;
    let created = fake.create(&PODS, "ns", pod("a", ""), &WriteOptions::default()).await.unwrap();
    informer.caught_up(created.revision()).await;
    assert!(informer.get("ns", "a").is_some());
}

#[tokio::test]
async fn shutdown_ends_subscriptions() {
    let World { informers, shutdown, .. } = world();
    let informer = informers.of(&PODS);
    let mut deltas = informer.subscribe();
    assert_eq!(next(&mut deltas).await, "resync");
    shutdown.cancel();
    assert_eq!(next(&mut deltas).await, "end");
    informer.synced().await;
}
