use std::sync::Arc;

use apimachinery::{Object, json, object};
use bytes::Bytes;
use storage::{Event as StoredEvent, EventKind as StoredKind, Observer, Revision};

use crate::{EventKind, Next, WatchCache};

const PREFIX: &str = "/registry/configmaps/";

fn put(revision: u64, name: &str, data: &str) -> StoredEvent {
    let value = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "ns"}, "data": {"k": data}});
    StoredEvent {
        revision: Revision(revision),
        kind: StoredKind::Put,
        key: format!("{PREFIX}ns/{name}").into(),
        value: object::encode(&value).into(),
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
    let maps = cache.add_resource(PREFIX, &["metadata.name"]);
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
    let maps = cache.add_resource(PREFIX, &[]);
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
    let maps = cache.add_resource(PREFIX, &[]);
    cache.add_resource("/registry/secrets/", &[]);
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
    let maps = cache.add_resource(PREFIX, &[]);
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
    let outer = cache.add_resource("/registry/services/", &[]);
    let inner = cache.add_resource("/registry/services/specs/", &[]);
    let mut event = put(1, "a", "1");
    event.key = "/registry/services/specs/ns/a".into();
    event.attachment = Some(Arc::new(Object::from_json(event.value.clone(), 0, &[]).unwrap()));
    cache.committed(&[event]);
    assert_eq!((outer.len(), inner.len()), (0, 1));
    assert_eq!(inner.get("/registry/services/specs/ns/a").unwrap().revision(), 1);
}
