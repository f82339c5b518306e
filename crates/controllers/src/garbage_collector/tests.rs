use std::time::Duration;

use api::gvr::{CONFIG_MAPS, DEPLOYMENTS, PODS, REPLICA_SETS};
use client::Discovered;
use client::fake::FakeApi;

use super::*;
use crate::testing::World;

/// A uid that looks like one, so that deletions are remembered.
fn uid(n: u32) -> String {
    format!("00000000-0000-4000-8000-{n:012x}")
}

fn object(api_version: &str, kind: &str, name: &str, n: u32) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": "ns", "uid": uid(n)}})
}

fn owned(mut object: Value, owners: &[(&str, &str, &str, u32)]) -> Value {
    let references: Value = owners
        .iter()
        .map(|&(api_version, kind, name, n)| {
            json!({"apiVersion": api_version, "kind": kind, "name": name, "uid": uid(n), "blockOwnerDeletion": true})
        })
        .collect();
    object.set_at(&["metadata", "ownerReferences"], references);
    object
}

/// A Deployment with a ReplicaSet with pods.
fn cascade(pods: u32) -> Vec<Value> {
    let mut all = vec![
        object("apps/v1", "Deployment", "d", 1),
        owned(object("apps/v1", "ReplicaSet", "r", 2), &[("apps/v1", "Deployment", "d", 1)]),
    ];
    all.extend((0..pods).map(|n| {
        owned(object("v1", "Pod", &format!("p{n}"), 100 + n), &[("apps/v1", "ReplicaSet", "r", 2)])
    }));
    all
}

fn start(seeds: Vec<Value>) -> World {
    World::start(vec![descriptor()], seeds)
}

/// Waits until the collector listens to pods, which come after what owns them here.
async fn ready(world: &World) {
    let marker = owned(object("v1", "ConfigMap", "marker", 9999), &[("v1", "ConfigMap", "nobody", 9998)]);
    world.fake.seed(marker);
    world.wait_for("the collector", |fake| fake.peek(&CONFIG_MAPS, "ns", "marker").is_none()).await;
}

async fn delete(world: &World, resource: &GroupVersionResource, name: &str, propagation: Propagation) {
    let options = DeleteOptions { propagation: Some(propagation), ..DeleteOptions::default() };
    world.fake.delete(resource, "ns", name, &options).await.unwrap();
}

fn exists(fake: &FakeApi, resource: &GroupVersionResource, name: &str) -> bool {
    fake.peek(resource, "ns", name).is_some()
}

#[tokio::test]
async fn background_deletion_cascades() {
    let world = start(cascade(500));
    ready(&world).await;
    let started = rt::instant();
    delete(&world, &DEPLOYMENTS, "d", Propagation::Background).await;
    world
        .wait_for("all gone", |fake| fake.peek_all(&PODS).is_empty() && !exists(fake, &REPLICA_SETS, "r"))
        .await;
    println!("501 dependents in {:?}", started.elapsed());
}

#[tokio::test]
async fn what_had_lost_its_owner_before_the_start_is_collected_and_the_rest_kept() {
    let mut seeds = cascade(1);
    seeds.push(owned(object("v1", "Pod", "stray", 50), &[("apps/v1", "ReplicaSet", "gone", 51)]));
    seeds.push(owned(object("v1", "Pod", "reborn", 52), &[("apps/v1", "ReplicaSet", "r", 53)]));
    seeds.push(object("v1", "Pod", "free", 54));
    let mut elsewhere = owned(object("v1", "Pod", "elsewhere", 55), &[("apps/v1", "ReplicaSet", "r", 2)]);
    elsewhere.set_at(&["metadata", "namespace"], "other");
    seeds.push(elsewhere);
    let world = start(seeds);
    world
        .wait_for("strays gone", |fake| {
            !exists(fake, &PODS, "stray")
                && !exists(fake, &PODS, "reborn")
                && fake.peek(&PODS, "other", "elsewhere").is_none()
        })
        .await;
    for name in ["free", "p0"] {
        assert!(exists(&world.fake, &PODS, name), "{name}");
    }
}

#[tokio::test]
async fn a_foreground_deletion_waits_for_dependents() {
    let world = start(cascade(3));
    ready(&world).await;
    let mut held = world.tree(&PODS, "ns", "p1");
    held.set_at(&["metadata", "finalizers"], vec!["example.com/keep"]);
    world.fake.edit(&PODS, "ns", "p1", |pod| *pod = held);
    delete(&world, &DEPLOYMENTS, "d", Propagation::Foreground).await;
    world.wait_for("two pods gone", |fake| fake.peek_all(&PODS).len() == 1).await;
    rt::sleep(Duration::from_millis(20)).await;
    assert!(exists(&world.fake, &DEPLOYMENTS, "d") && exists(&world.fake, &REPLICA_SETS, "r"));
    world.fake.drop_object(&PODS, "ns", "p1");
    world
        .wait_for("all gone", |fake| !exists(fake, &DEPLOYMENTS, "d") && !exists(fake, &REPLICA_SETS, "r"))
        .await;
}

#[tokio::test]
async fn orphaning_leaves_dependents_without_the_reference() {
    let world = start(cascade(2));
    ready(&world).await;
    delete(&world, &REPLICA_SETS, "r", Propagation::Orphan).await;
    world.wait_for("the owner gone", |fake| !exists(fake, &REPLICA_SETS, "r")).await;
    rt::sleep(Duration::from_millis(20)).await;
    for pod in world.fake.peek_all(&PODS) {
        assert_eq!(pod.owners().len(), 0);
    }
    assert_eq!(world.fake.peek_all(&PODS).len(), 2);
}

#[tokio::test]
async fn one_remaining_owner_is_enough() {
    let mut seeds = vec![object("v1", "ConfigMap", "a", 1), object("v1", "ConfigMap", "b", 2)];
    seeds.push(owned(
        object("v1", "Secret", "s", 3),
        &[("v1", "ConfigMap", "a", 1), ("v1", "ConfigMap", "b", 2)],
    ));
    let world = start(seeds);
    ready(&world).await;
    delete(&world, &CONFIG_MAPS, "a", Propagation::Background).await;
    let owners = |fake: &FakeApi| {
        fake.peek(&api::gvr::SECRETS, "ns", "s")
            .map(|own| own.owners().map(|o| o.name.to_owned()).collect::<Vec<_>>())
    };
    world.wait_for("one reference gone", |fake| owners(fake) == Some(vec!["b".to_owned()])).await;
    delete(&world, &CONFIG_MAPS, "b", Propagation::Background).await;
    world.wait_for("collected", |fake| owners(fake).is_none()).await;
}

#[tokio::test]
async fn a_cluster_scoped_object_with_a_namespaced_owner_is_kept_and_reported() {
    let mut node = owned(object("v1", "Node", "n", 1), &[("v1", "ConfigMap", "c", 2)]);
    node.remove_at(&["metadata", "namespace"]);
    let world = start(vec![node]);
    world
        .wait_for("an event", |_| {
            world.events().iter().any(|event| {
                event == &format!("OwnerRefInvalidNamespace: ownerRef [v1/ConfigMap, name: c, uid: {}] does not exist in namespace \"\"", uid(2))
            })
        })
        .await;
    assert!(world.fake.peek(&api::gvr::NODES, "", "n").is_some());
}

#[tokio::test]
async fn resources_that_are_defined_later_are_collected_too() {
    let world = start(vec![]);
    ready(&world).await;
    let widgets = GroupVersionResource::new("example.com", "v1", "widgets");
    let verbs = ["create", "delete", "get", "list", "patch", "update", "watch"].map(Str::from).to_vec();
    world.fake.register(Discovered { gvr: widgets.clone(), kind: "Widget".into(), namespaced: true, verbs });
    world.fake.seed(json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"}}));
    let mut owner = object("example.com/v1", "Widget", "w", 1);
    owner.set_at(&["metadata", "finalizers"], json!([]));
    world.fake.seed(owner);
    world.fake.seed(owned(object("v1", "ConfigMap", "c", 2), &[("example.com/v1", "Widget", "w", 1)]));
    world.fake.seed(owned(object("example.com/v1", "Widget", "child", 3), &[("v1", "ConfigMap", "gone", 4)]));
    world.wait_for("the custom child gone", |fake| !exists(fake, &widgets, "child")).await;
    delete(&world, &widgets, "w", Propagation::Background).await;
    world.wait_for("the custom owner's child gone", |fake| !exists(fake, &CONFIG_MAPS, "c")).await;
}
