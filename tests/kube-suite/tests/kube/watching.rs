//! Watch, watcher, reflector, controller.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;

use crate::{NAMESPACE, PATIENCE, World, config_map, object, until};

#[tokio::test]
async fn a_watch_continues_after_a_list_and_sees_everything_in_order() -> anyhow::Result<()> {
    let Some(world) = World::new().await? else { return Ok(()) };
    let maps: Api<ConfigMap> = world.api();
    let version =
        maps.list(&ListParams::default()).await?.metadata.resource_version.context("a list has a version")?;
    maps.create(&PostParams::default(), &config_map("one", json!({"a": "1"}))?).await?;
    maps.patch("one", &PatchParams::default(), &Patch::Merge(json!({"data": {"a": "2"}}))).await?;
    maps.delete("one", &DeleteParams::default()).await?;
    let mut events = pin!(maps.watch(&WatchParams::default().labels("suite=kube"), &version).await?);
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let event = tokio::time::timeout(PATIENCE, events.try_next()).await.context("no event")??;
        seen.push(match event.context("the watch ended")? {
            WatchEvent::Added(map) => format!("added {}", map.name_any()),
            WatchEvent::Modified(map) => format!("modified {}", map.name_any()),
            WatchEvent::Deleted(map) => format!("deleted {}", map.name_any()),
            WatchEvent::Bookmark(_) => continue,
            WatchEvent::Error(status) => bail!("{status:?}"),
        });
    }
    ensure!(seen == ["added one", "modified one", "deleted one"], "{seen:?}");
    world.stop()
}

#[tokio::test]
async fn a_watch_that_outlived_the_server_continues_or_is_told_to_list_again() -> anyhow::Result<()> {
    let Some(world) = World::new().await? else { return Ok(()) };
    let maps: Api<ConfigMap> = world.api();
    let version =
        maps.list(&ListParams::default()).await?.metadata.resource_version.context("a list has a version")?;
    maps.create(&PostParams::default(), &config_map("one", json!({}))?).await?;
    let world = world.restart().await?;
    let maps: Api<ConfigMap> = world.api();
    let gone = match maps.watch(&WatchParams::default().labels("suite=kube"), &version).await {
        Err(kube::Error::Api(status)) => status.code == 410,
        Err(error) => return Err(error.into()),
        Ok(events) => {
            let mut events = pin!(events);
            let event = tokio::time::timeout(PATIENCE, events.try_next()).await.context("no event")??;
            match event.context("the watch ended")? {
                // History survived: then the write must be in it.
                WatchEvent::Added(map) => map.name_any() == "one",
                WatchEvent::Error(status) => status.code == 410,
                other => bail!("{other:?}"),
            }
        }
    };
    ensure!(gone, "neither the event nor 410");
    ensure!(maps.get("one").await?.name_any() == "one", "the object is gone");
    world.stop()
}

#[tokio::test]
async fn a_watcher_lists_and_follows() -> anyhow::Result<()> {
    watcher_follows(watcher::Config::default()).await
}

#[tokio::test]
async fn a_watcher_that_streams_its_list_follows_too() -> anyhow::Result<()> {
    watcher_follows(watcher::Config::default().streaming_lists()).await
}

async fn watcher_follows(config: watcher::Config) -> anyhow::Result<()> {
    let Some(world) = World::new().await? else { return Ok(()) };
    let maps: Api<ConfigMap> = world.api();
    for name in ["one", "two"] {
        maps.create(&PostParams::default(), &config_map(name, json!({}))?).await?;
    }
    let mut events = pin!(watcher(maps.clone(), config.labels("suite=kube")));
    let mut initial = BTreeSet::new();
    loop {
        match next(&mut events).await? {
            Event::Init => {}
            Event::InitApply(map) => drop(initial.insert(map.name_any())),
            Event::InitDone => break,
            other => bail!("{other:?} before the list was done"),
        }
    }
    ensure!(initial == BTreeSet::from(["one".to_owned(), "two".to_owned()]), "{initial:?}");
    maps.create(&PostParams::default(), &config_map("three", json!({}))?).await?;
    maps.delete("one", &DeleteParams::default()).await?;
    let applied = next(&mut events).await?;
    ensure!(matches!(&applied, Event::Apply(map) if map.name_any() == "three"), "{applied:?}");
    let deleted = next(&mut events).await?;
    ensure!(matches!(&deleted, Event::Delete(map) if map.name_any() == "one"), "{deleted:?}");
    // An object that leaves the selection is gone for this watcher.
    let unlabelled = Patch::Merge(json!({"metadata": {"labels": null}}));
    maps.patch("two", &PatchParams::default(), &unlabelled).await?;
    let left = next(&mut events).await?;
    ensure!(matches!(&left, Event::Delete(map) if map.name_any() == "two"), "{left:?}");
    world.stop()
}

async fn next<S>(events: &mut S) -> anyhow::Result<Event<ConfigMap>>
where
    S: futures::Stream<Item = Result<Event<ConfigMap>, watcher::Error>> + Unpin,
{
    let event = tokio::time::timeout(PATIENCE, events.try_next()).await.context("no event")??;
    event.context("the watcher ended")
}

#[tokio::test]
async fn a_reflector_holds_what_is_there() -> anyhow::Result<()> {
    let Some(world) = World::new().await? else { return Ok(()) };
    let maps: Api<ConfigMap> = world.api();
    let (store, writer) = reflector::store();
    let config = watcher::Config::default().labels("suite=kube");
    let reflecting = reflector::reflector(writer, watcher(maps.clone(), config)).for_each(|_| async {});
    let reflecting = tokio::spawn(reflecting);
    tokio::time::timeout(PATIENCE, store.wait_until_ready()).await.context("it never became ready")??;
    for number in 0..10 {
        maps.create(&PostParams::default(), &config_map(&format!("map-{number}"), json!({}))?).await?;
    }
    until("the store has ten", || async { Ok(store.len() == 10) }).await?;
    maps.delete("map-3", &DeleteParams::default()).await?;
    let key = ObjectRef::new("map-3").within(NAMESPACE);
    until("the store has lost one", || async { Ok(store.get(&key).is_none()) }).await?;
    ensure!(store.len() == 9, "{}", store.len());
    reflecting.abort();
    world.stop()
}

#[derive(Debug)]
struct ReconcileError(kube::Error);

impl std::fmt::Display for ReconcileError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "applying the copy: {}", self.0)
    }
}

impl std::error::Error for ReconcileError {}

/// Keeps a copy of every map labelled `role=source`, owned by it.
async fn copy(source: Arc<ConfigMap>, maps: Arc<Api<ConfigMap>>) -> Result<Action, ReconcileError> {
    let name = format!("{}-copy", source.name_any());
    let owner: OwnerReference = source.controller_owner_ref(&()).expect("what was read has a name and a uid");
    let copy = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "ownerReferences": [owner]},
        "data": source.data,
    });
    let params = PatchParams::apply("copier").force();
    maps.patch(&name, &params, &Patch::Apply(copy)).await.map_err(ReconcileError)?;
    Ok(Action::await_change())
}

#[tokio::test]
async fn a_controller_keeps_what_it_owns_and_garbage_collection_ends_it() -> anyhow::Result<()> {
    let Some(world) = World::new().await? else { return Ok(()) };
    let maps: Api<ConfigMap> = world.api();
    let sources = watcher::Config::default().labels("role=source");
    let retry = |_: Arc<ConfigMap>, _: &ReconcileError, _: Arc<Api<ConfigMap>>| {
        Action::requeue(Duration::from_millis(50))
    };
    let controlling = Controller::new(maps.clone(), sources)
        .owns(maps.clone(), watcher::Config::default())
        .run(copy, retry, Arc::new(maps.clone()))
        .for_each(|_| async {});
    let controlling = tokio::spawn(controlling);

    let source: ConfigMap =
        object(json!({"metadata": {"name": "one", "labels": {"role": "source"}}, "data": {"a": "1"}}))?;
    maps.create(&PostParams::default(), &source).await?;
    let copied = |value: &'static str| {
        let maps = maps.clone();
        move || {
            let maps = maps.clone();
            async move {
                let copy = maps.get_opt("one-copy").await?;
                Ok(copy.and_then(|map| map.data).is_some_and(|data| data["a"] == value))
            }
        }
    };
    until("there is a copy", copied("1")).await?;
    maps.patch("one", &PatchParams::default(), &Patch::Merge(json!({"data": {"a": "2"}}))).await?;
    until("the copy follows", copied("2")).await?;
    maps.delete("one-copy", &DeleteParams::default()).await?;
    until("the copy comes back", copied("2")).await?;
    maps.delete("one", &DeleteParams::background()).await?;
    until("the copy goes with its source", || async { Ok(maps.get_opt("one-copy").await?.is_none()) })
        .await?;
    controlling.abort();
    world.stop()
}
