use std::sync::Arc;

use apimachinery::object::FieldPaths;
use apimachinery::{Object, json, object};
use bytes::Bytes;
use storage::{
    Durability, Event as StoredEvent, EventKind as StoredKind, Observer, Precondition, Revision, Store, Write,
};

use crate::{EventKind, Next, WatchCache};

const PREFIX: &str = "/registry/configmaps/";

fn put(revision: u64, name: &str, data: &str) -> StoredEvent {
    let value = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "ns"}, "data": {"k": data}});
    StoredEvent {
        revision: Revision(revision),
        kind: StoredKind::Put,
        key: format!("{PREFIX}ns/{name}").into(),
        value: object::encode(&value),
        create_revision: Revision(revision),
        attachment: None,
    }
}

fn delete(revision: u64, name: &str) -> StoredEvent {
    StoredEvent { kind: StoredKind::Delete, value: Bytes::new(), ..put(revision, name, "") }
}

fn names(objects: &crate::Objects) -> Vec<String> {
    objects.values().map(|object| format!("{}@{}", object.name(), object.revision())).collect()
}

#[tokio::test]
async fn a_snapshot_at_a_revision_ignores_what_came_later() {
    let cache = WatchCache::new();
    let maps = cache.add_resource(PREFIX, FieldPaths::Fixed(&["metadata.name"]));
    cache.committed(&[put(1, "a", "1"), put(2, "b", "1")]);
    let old = maps.snapshot();
    cache.committed(&[put(3, "a", "2"), delete(4, "b"), put(5, "c", "1")]);
    assert_eq!(names(&old.objects), ["a@1", "b@2"]);
    assert_eq!(names(&maps.snapshot().objects), ["a@3", "c@5"]);
    for (revision, expected) in [(2, vec!["a@1", "b@2"]), (3, vec!["a@3", "b@2"]), (4, vec!["a@3"])] {
        assert_eq!(names(&maps.snapshot_at(revision).unwrap().objects), expected, "at {revision}");
    }
    assert_eq!(cache.revision(), 5);
}

#[tokio::test]
async fn a_watcher_sees_each_event_once_with_the_state_before() {
    let cache = WatchCache::new();
    let maps = cache.add_resource(PREFIX, FieldPaths::NONE);
    cache.committed(&[put(1, "a", "1")]);
    let mut watcher = maps.watch(1).unwrap();
    let publisher = cache.clone();
    rt::spawn("publisher", async move { publisher.committed(&[put(2, "a", "2"), delete(3, "a")]) });
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let Next::Events(events) = watcher.next().await else { panic!("expired") };
        seen.extend(
            events.iter().map(|e| (e.kind, e.object.revision(), e.previous.as_ref().map(|p| p.revision()))),
        );
    }
    assert_eq!(seen, [(EventKind::Modified, 2, Some(1)), (EventKind::Deleted, 3, Some(2))]);
    assert!(watcher.ready().is_none());
    assert_eq!(watcher.progress(), 3);
}

#[tokio::test]
async fn progress_follows_writes_to_other_resources() {
    let cache = WatchCache::new();
    let maps = cache.add_resource(PREFIX, FieldPaths::NONE);
    cache.add_resource("/registry/secrets/", FieldPaths::NONE);
    let watcher = maps.watch(0).unwrap();
    let mut other = put(7, "s", "");
    other.key = "/registry/secrets/ns/s".into();
    cache.committed(&[other]);
    assert_eq!(watcher.progress(), 7);
    assert_eq!(maps.snapshot().revision, 7);
}

#[tokio::test]
async fn a_watcher_that_lags_too_far_is_told() {
    let cache = WatchCache::new();
    let maps = cache.add_resource(PREFIX, FieldPaths::NONE);
    let mut slow = maps.watch(0).unwrap();
    for revision in 1..=40_000 {
        cache.committed(&[put(revision, "a", "x")]);
    }
    assert!(matches!(slow.next().await, Next::Expired(expired) if expired.requested == 0));
    assert!(maps.watch(1).is_err());
    assert!(maps.watch(39_999).is_ok());
}

#[tokio::test]
async fn the_committers_object_is_used_and_nested_prefixes_stay_apart() {
    let cache = WatchCache::new();
    let outer = cache.add_resource("/registry/services/", FieldPaths::NONE);
    let inner = cache.add_resource("/registry/services/specs/", FieldPaths::NONE);
    let mut event = put(1, "a", "1");
    event.key = "/registry/services/specs/ns/a".into();
    event.attachment = Some(Arc::new(Object::from_json(event.value.clone(), 0, &[]).unwrap()));
    cache.committed(&[event]);
    assert_eq!((outer.len(), inner.len()), (0, 1));
    assert_eq!(inner.get("/registry/services/specs/ns/a").unwrap().revision(), 1);
}

fn write(name: &str, data: &str) -> Write {
    let StoredEvent { key, value, .. } = put(0, name, data);
    let (precondition, durability) = (Precondition::None, Durability::Relaxed);
    Write { key, value: Some(value), precondition, attachment: None, durability }
}

#[tokio::test]
async fn a_resource_that_comes_later_misses_no_write() {
    let store = Arc::new(storage_embedded::memory());
    let cache = WatchCache::new();
    store.observe("", cache.clone());
    for index in 0..50 {
        store.commit(write(&format!("before-{index}"), "1")).await.unwrap();
    }
    let writer = store.clone();
    let writing = rt::spawn("writer", async move {
        for index in 0..500 {
            writer.commit(write(&format!("during-{}", index % 100), &index.to_string())).await.unwrap();
            tokio::task::yield_now().await;
        }
    });
    tokio::task::yield_now().await;
    let maps = cache.load_resource(PREFIX, &FieldPaths::NONE, store.as_ref()).unwrap();
    writing.await.unwrap();
    let stored = store.range(&storage::RangeRequest { prefix: PREFIX.into(), ..Default::default() }).unwrap();
    let stored: Vec<(String, u64)> =
        stored.items.iter().map(|pair| (pair.key.to_string(), pair.mod_revision.0)).collect();
    let cached = maps.snapshot();
    let cached: Vec<(String, u64)> =
        cached.objects.iter().map(|(key, object)| (key.to_string(), object.revision())).collect();
    assert_eq!(stored.len(), 150);
    assert_eq!(cached, stored);
}

#[tokio::test]
async fn a_forgotten_resource_begins_with_what_is_stored() {
    let store = Arc::new(storage_embedded::memory());
    let cache = WatchCache::new();
    store.observe("", cache.clone());
    let load = || cache.load_resource(PREFIX, &FieldPaths::NONE, store.as_ref()).unwrap();
    store.commit(write("a", "1")).await.unwrap();
    assert_eq!(load().len(), 1);
    cache.remove_resource(PREFIX);
    let remove = Write { value: None, ..write("a", "") };
    store.commit(remove).await.unwrap();
    store.commit(write("b", "1")).await.unwrap();
    assert_eq!(names(&load().snapshot().objects), ["b@3"]);
}

#[tokio::test]
async fn a_resource_that_comes_later_knows_its_size() {
    let store = Arc::new(storage_embedded::memory());
    let cache = WatchCache::new();
    store.observe("", cache.clone());
    let first = write("a", "1");
    let bytes = first.value.as_ref().map_or(0, Bytes::len);
    store.commit(first).await.unwrap();
    let maps = cache.load_resource(PREFIX, &FieldPaths::NONE, store.as_ref()).unwrap();
    assert_eq!(maps.size(), (1, bytes));
    store.commit(write("b", "1")).await.unwrap();
    store.commit(Write { value: None, ..write("a", "") }).await.unwrap();
    assert_eq!(maps.size(), (1, bytes));
    cache.remove_resource(PREFIX);
    assert_eq!(maps.size(), (0, 0));
}

#[tokio::test]
async fn objects_are_found_by_fields_that_come_later() {
    let store = Arc::new(storage_embedded::memory());
    let cache = WatchCache::new();
    store.observe("", cache.clone());
    let fields = |paths: &[&str]| FieldPaths::Own(paths.iter().map(|path| (*path).into()).collect());
    let load = |paths: &[&str]| cache.load_resource(PREFIX, &fields(paths), store.as_ref()).unwrap();
    let maps = load(&["metadata.name"]);
    store.commit(write("a", "blue")).await.unwrap();
    let watcher = maps.watch(1).unwrap();
    load(&["metadata.name", "data.k"]);
    store.commit(write("b", "red")).await.unwrap();
    let seen: Vec<String> =
        maps.snapshot().objects.values().map(|object| object.field(1).into_owned()).collect();
    assert_eq!(seen, ["blue", "red"]);
    assert_eq!(watcher.progress(), 1);
    assert_eq!(
        load(&["data.k"]).fields(),
        fields(&["metadata.name", "data.k"]),
        "fields are never taken away"
    );
}
