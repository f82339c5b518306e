//! What every engine has to do, as tests any engine can run.
//!
//! An engine implements [`Fixture`] for itself and calls [`conformance_suite!`](crate::conformance_suite)
//! in a test module; every function here whose name is a sentence becomes a test of its own. They
//! speak the contract only, so a failure is a broken promise and not a matter of taste.
//!
//! ```ignore
//! storage::conformance_suite!(|| OnDisk::new());
//! ```

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::task::JoinSet;

use crate::{
    Attachment, Durability, Error, Event, EventKind, Key, KeyValue, Observer, Precondition, RangeRequest,
    Revision, Store, Write,
};

/// A fresh, empty store and what surrounds it. Everything goes away when the fixture is dropped.
#[async_trait]
pub trait Fixture: Send {
    /// The store under test.
    fn store(&self) -> Arc<dyn Store>;

    /// Closes the store and opens it again; `None` if the engine keeps nothing.
    async fn reopen(&mut self) -> Option<Arc<dyn Store>>;

    /// Opens a snapshot that the store wrote.
    fn open_snapshot(&self, path: &Path) -> Result<Arc<dyn Store>, Error>;

    /// A directory of the fixture's own in which snapshots may be written.
    fn scratch(&self) -> PathBuf;
}

/// Makes one test out of every promise, each on a fixture of its own made by the given function.
#[macro_export]
macro_rules! conformance_suite {
    ($make:expr) => {
        $crate::conformance_suite!(@tests $make;
            revisions_are_consecutive
            each_precondition_holds_or_refuses
            a_refusal_carries_the_version_found
            exactly_one_of_many_concurrent_creates_wins
            exactly_one_of_many_concurrent_updates_wins
            unconditional_writes_of_one_key_all_succeed_in_some_order
            a_deleted_key_starts_a_new_life
            deleting_what_is_absent_is_refused
            range_keeps_to_its_prefix_and_pages_in_key_order
            range_at_an_old_revision_ignores_what_came_later
            range_outside_history_is_refused
            scan_visits_exactly_the_live_keys
            watch_sees_exactly_the_later_events_in_order
            watch_goes_on_with_events_as_they_happen
            watch_outside_history_is_refused
            compaction_forgets_what_was_superseded_and_nothing_else
            a_watcher_that_compaction_overtakes_is_told
            an_observer_sees_a_write_before_its_writer_is_answered
            an_observer_sees_its_prefix_only_from_its_revision_on
            relaxed_writes_are_visible_when_answered
            large_and_empty_values_come_back_as_written
            an_unusable_key_is_refused
            a_snapshot_opens_elsewhere_as_an_equal_store
            a_snapshot_does_not_overwrite
            a_reopened_store_goes_on_where_it_was
            a_closed_store_refuses_everything
        );
    };
    (@tests $make:expr; $($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                $crate::conformance::run(async { $crate::conformance::$name(&mut $make()).await });
            }
        )*
    };
}

/// Runs one test on several threads, and fails it if it hangs.
pub fn run(test: impl Future<Output = ()>) {
    const HANGS_AFTER: Duration = Duration::from_secs(60);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a test can start threads").block_on(async {
        tokio::time::timeout(HANGS_AFTER, test).await.expect("the test hangs");
    });
}

// === writing ===

fn write(key: &str, value: Option<&str>, precondition: Precondition) -> Write {
    Write {
        key: Key::from(key),
        precondition,
        value: value.map(|value| Bytes::copy_from_slice(value.as_bytes())),
        attachment: None,
        durability: Durability::Synced,
    }
}

async fn put(store: &dyn Store, key: &str, value: &str) -> Revision {
    store.commit(write(key, Some(value), Precondition::None)).await.expect("an unconditional put").revision
}

async fn delete(store: &dyn Store, key: &str) -> Revision {
    store.commit(write(key, None, Precondition::None)).await.expect("a delete of what is there").revision
}

// === describing what was read, so that a failure shows it ===

fn describe(pair: &KeyValue) -> String {
    let value = String::from_utf8_lossy(&pair.value);
    format!("{}={} c{} m{}", pair.key, value, pair.create_revision, pair.mod_revision)
}

fn list_at(store: &dyn Store, prefix: &str, at: Option<Revision>) -> Vec<String> {
    let request = RangeRequest { prefix: prefix.to_owned(), at, ..RangeRequest::default() };
    let response = store.range(&request).expect("a range within history");
    assert!(!response.more, "an unlimited range says that there is more");
    response.items.iter().map(describe).collect()
}

fn list(store: &dyn Store) -> Vec<String> {
    list_at(store, "", None)
}

fn describe_event(event: &Event) -> String {
    let kind = match event.kind {
        EventKind::Put if event.is_create() => "create",
        EventKind::Put => "update",
        EventKind::Delete => "delete",
    };
    let value = String::from_utf8_lossy(&event.value);
    format!("{kind} {}={value} c{} @{}", event.key, event.create_revision, event.revision)
}

/// The next `count` events of a watch.
async fn events(store: &dyn Store, prefix: &str, after: Revision, count: usize) -> Vec<String> {
    let stream = store.watch(prefix, after).expect("a watch within history");
    let events: Vec<_> = stream.take(count).collect().await;
    events.into_iter().map(|event| describe_event(&event.expect("an event"))).collect()
}

// === the promises ===

pub async fn revisions_are_consecutive(fixture: &mut impl Fixture) {
    let store = fixture.store();
    assert_eq!(store.current_revision(), Revision::ZERO);
    let mut last = put(&*store, "/a", "0").await;
    assert!(last > Revision::ZERO);
    for step in 0..20 {
        let next = if step % 5 == 4 { delete(&*store, "/a").await } else { put(&*store, "/a", "x").await };
        assert_eq!(next, last.next());
        assert_eq!(store.current_revision(), next);
        last = next;
    }
    let refused = store.commit(write("/a", Some("y"), Precondition::ModRevision(Revision(1)))).await;
    assert!(refused.is_err());
    assert_eq!(store.current_revision(), last, "a refused write took a revision");
    assert_eq!(put(&*store, "/a", "z").await, last.next());
}

pub async fn each_precondition_holds_or_refuses(fixture: &mut impl Fixture) {
    use Precondition::{Absent, ModRevision, None, Present};
    let store = fixture.store();
    let here = put(&*store, "/here", "v").await;
    let other = put(&*store, "/other", "v").await;
    let table = [
        ("/here", None, true),
        ("/gone", None, true),
        ("/here", Absent, false),
        ("/gone", Absent, true),
        ("/here", Present, true),
        ("/gone", Present, false),
        ("/here", ModRevision(here), true),
        ("/here", ModRevision(other), false),
        ("/here", ModRevision(Revision::ZERO), false),
        ("/gone", ModRevision(here), false),
    ];
    for (key, precondition, expected) in table {
        // Every row starts from the same state, but for the revision of what is there.
        let here_now = put(&*store, "/here", "v").await;
        if store.get("/gone").expect("get").is_some() {
            delete(&*store, "/gone").await;
        }
        let precondition = match precondition {
            ModRevision(revision) if revision == here => ModRevision(here_now),
            unchanged => unchanged,
        };
        let before = list(&*store);
        let outcome = store.commit(write(key, Some("new"), precondition)).await;
        assert_eq!(outcome.is_ok(), expected, "put {key} with {precondition:?}: {outcome:?}");
        if !expected {
            assert_eq!(list(&*store), before, "a refused put of {key} changed something");
            assert!(matches!(outcome, Err(Error::PreconditionFailed { .. })), "{outcome:?}");
        }
    }
    let now = put(&*store, "/here", "v").await;
    for precondition in [ModRevision(here), ModRevision(Revision(now.0 + 100))] {
        assert!(store.commit(write("/here", Option::None, precondition)).await.is_err(), "{precondition:?}");
    }
    assert!(store.commit(write("/here", Option::None, ModRevision(now))).await.is_ok());
    assert_eq!(store.get("/here").expect("get"), Option::None);
}

pub async fn a_refusal_carries_the_version_found(fixture: &mut impl Fixture) {
    let store = fixture.store();
    let created = put(&*store, "/a", "1").await;
    let changed = put(&*store, "/a", "2").await;
    match store.commit(write("/a", Some("3"), Precondition::Absent)).await {
        Err(Error::PreconditionFailed { key, current: Some(current) }) => {
            assert_eq!(&*key, "/a");
            assert_eq!(describe(&current), format!("/a=2 c{created} m{changed}"));
        }
        other => panic!("{other:?}"),
    }
    match store.commit(write("/b", Some("3"), Precondition::Present)).await {
        Err(Error::PreconditionFailed { key, current: None }) => assert_eq!(&*key, "/b"),
        other => panic!("{other:?}"),
    }
}

async fn race(store: &Arc<dyn Store>, precondition: Precondition) -> Vec<(usize, Revision)> {
    const COMMITTERS: usize = 64;
    let mut tasks = JoinSet::new();
    for number in 0..COMMITTERS {
        let store = Arc::clone(store);
        tasks.spawn(async move {
            let outcome = store.commit(write("/raced", Some(&number.to_string()), precondition)).await;
            (number, outcome)
        });
    }
    let mut winners = Vec::new();
    for outcome in tasks.join_all().await {
        match outcome {
            (number, Ok(committed)) => winners.push((number, committed.revision)),
            (_, Err(Error::PreconditionFailed { .. })) => {}
            (number, Err(error)) => panic!("committer {number}: {error}"),
        }
    }
    winners
}

pub async fn exactly_one_of_many_concurrent_creates_wins(fixture: &mut impl Fixture) {
    let store = fixture.store();
    let winners = race(&store, Precondition::Absent).await;
    let [(number, revision)] = winners[..] else { panic!("winners: {winners:?}") };
    assert_eq!(list(&*store), [format!("/raced={number} c{revision} m{revision}")]);
    assert_eq!(store.current_revision(), revision);
}

pub async fn exactly_one_of_many_concurrent_updates_wins(fixture: &mut impl Fixture) {
    let store = fixture.store();
    let created = put(&*store, "/raced", "first").await;
    let winners = race(&store, Precondition::ModRevision(created)).await;
    let [(number, revision)] = winners[..] else { panic!("winners: {winners:?}") };
    assert_eq!(list(&*store), [format!("/raced={number} c{created} m{revision}")]);
}

pub async fn unconditional_writes_of_one_key_all_succeed_in_some_order(fixture: &mut impl Fixture) {
    let store = fixture.store();
    let mut order = race(&store, Precondition::None).await;
    assert_eq!(order.len(), 64);
    order.sort_by_key(|(_, revision)| *revision);
    let first = order[0].1;
    let expected: Vec<Revision> = (first.0..first.0 + 64).map(Revision).collect();
    let revisions: Vec<Revision> = order.iter().map(|(_, revision)| *revision).collect();
    assert_eq!(revisions, expected);
    let (number, last) = order[63];
    assert_eq!(list(&*store), [format!("/raced={number} c{first} m{last}")]);
    for (number, revision) in order {
        let expected = format!("/raced={number} c{first} m{revision}");
        assert_eq!(list_at(&*store, "", Some(revision)), [expected]);
    }
}

pub async fn a_deleted_key_starts_a_new_life(fixture: &mut impl Fixture) {
    let store = fixture.store();
    let first = put(&*store, "/a", "1").await;
    let updated = put(&*store, "/a", "2").await;
    delete(&*store, "/a").await;
    assert_eq!(store.get("/a").expect("get"), None);
    let second = put(&*store, "/a", "3").await;
    let pair = store.get("/a").expect("get").expect("the key is back");
    assert_eq!(describe(&pair), format!("/a=3 c{second} m{second}"));
    assert_eq!(list_at(&*store, "", Some(updated)), [format!("/a=2 c{first} m{updated}")]);
}

pub async fn deleting_what_is_absent_is_refused(fixture: &mut impl Fixture) {
    let store = fixture.store();
    put(&*store, "/a", "1").await;
    let before = delete(&*store, "/a").await;
    for precondition in [Precondition::None, Precondition::Present, Precondition::Absent] {
        let outcome = store.commit(write("/a", None, precondition)).await;
        assert!(matches!(outcome, Err(Error::PreconditionFailed { .. })), "{precondition:?}: {outcome:?}");
    }
    assert_eq!(store.current_revision(), before);
}

pub async fn range_keeps_to_its_prefix_and_pages_in_key_order(fixture: &mut impl Fixture) {
    let store = fixture.store();
    // Neighbours on both sides of the prefix, one that merely begins like it, and no order.
    for key in ["/b/3", "/b/1", "/a/9", "/bb/1", "/b/2", "/c/1", "/b", "/b/", "/b/\u{10ffff}", "/b/10"] {
        put(&*store, key, "v").await;
    }
    let expected = ["/b/", "/b/1", "/b/10", "/b/2", "/b/3", "/b/\u{10ffff}"];
    for limit in 0..=7 {
        let mut request = RangeRequest { prefix: "/b/".to_owned(), limit, ..RangeRequest::default() };
        let mut keys = Vec::new();
        loop {
            let page = store.range(&request).expect("a page");
            assert!(limit == 0 || page.items.len() <= limit, "page of {} at {limit}", page.items.len());
            assert!(!page.items.is_empty());
            keys.extend(page.items.iter().map(|pair| pair.key.to_string()));
            request.start_after = keys.last().cloned();
            request.at = Some(page.revision);
            assert_eq!(page.more, keys.len() < expected.len(), "limit {limit} after {keys:?}");
            if !page.more {
                break;
            }
        }
        assert_eq!(keys, expected, "limit {limit}");
    }
    let nothing = RangeRequest { prefix: "/nothing".to_owned(), ..RangeRequest::default() };
    assert!(store.range(&nothing).expect("an empty range").items.is_empty());
    let past_the_end = RangeRequest {
        prefix: "/b/".to_owned(),
        start_after: Some("/c".to_owned()),
        ..RangeRequest::default()
    };
    assert!(store.range(&past_the_end).expect("an empty range").items.is_empty());
}

pub async fn range_at_an_old_revision_ignores_what_came_later(fixture: &mut impl Fixture) {
    let store = fixture.store();
    let mut past = vec![(Revision::ZERO, list(&*store))];
    for step in 0..60 {
        let key = format!("/k/{}", step * 7 % 10);
        let exists = store.get(&key).expect("get").is_some();
        let revision = if exists && step % 3 == 0 {
            delete(&*store, &key).await
        } else {
            put(&*store, &key, &step.to_string()).await
        };
        past.push((revision, list(&*store)));
    }
    for (revision, expected) in &past {
        assert_eq!(&list_at(&*store, "", Some(*revision)), expected, "at {revision}");
        let mut request = RangeRequest { limit: 3, at: Some(*revision), ..RangeRequest::default() };
        let mut paged = Vec::new();
        loop {
            let page = store.range(&request).expect("a page");
            assert_eq!(page.revision, *revision);
            paged.extend(page.items.iter().map(describe));
            request.start_after = page.items.last().map(|pair| pair.key.to_string());
            if !page.more {
                break;
            }
            put(&*store, "/k/0", "between two pages").await;
        }
        assert_eq!(&paged, expected, "paged at {revision}");
    }
}

pub async fn range_outside_history_is_refused(fixture: &mut impl Fixture) {
    let store = fixture.store();
    let current = put(&*store, "/a", "1").await;
    let request = RangeRequest { at: Some(current.next()), ..RangeRequest::default() };
    match store.range(&request) {
        Err(Error::FutureRevision { requested, current: now }) => {
            assert_eq!((requested, now), (current.next(), current));
        }
        other => panic!("{other:?}"),
    }
}

pub async fn scan_visits_exactly_the_live_keys(fixture: &mut impl Fixture) {
    let store = fixture.store();
    for number in 0..300 {
        put(&*store, &format!("/many/{number:03}"), &number.to_string()).await;
    }
    put(&*store, "/few/1", "1").await;
    put(&*store, "/few/2", "2").await;
    delete(&*store, "/few/1").await;
    delete(&*store, "/many/007").await;
    let last = put(&*store, "/many/008", "changed").await;
    for prefix in ["/many/", "/few/", "", "/none/"] {
        let mut seen = Vec::new();
        let revision = store.scan(prefix, &mut |pair| {
            seen.push(describe(&pair));
            Ok(())
        });
        assert_eq!(revision.expect("a scan"), last);
        seen.sort();
        assert_eq!(seen, list_at(&*store, prefix, None), "prefix {prefix:?}");
    }
    let mut visited = 0;
    let stopped = store.scan("", &mut |_| {
        visited += 1;
        if visited == 3 { Err(Error::Closed) } else { Ok(()) }
    });
    assert!(matches!(stopped, Err(Error::Closed)));
    assert_eq!(visited, 3, "the scan went on after the visitor had enough");
}

/// Writes a little of everything and returns what a watch from before it has to see.
async fn history(store: &dyn Store) -> (Revision, Vec<String>) {
    let start = put(store, "/before", "0").await;
    let a = put(store, "/w/a", "1").await;
    put(store, "/x/a", "not watched").await;
    let a2 = put(store, "/w/a", "2").await;
    let b = put(store, "/w/b", "3").await;
    let gone = delete(store, "/w/a").await;
    let again = put(store, "/w/a", "4").await;
    let expected = vec![
        format!("create /w/a=1 c{a} @{a}"),
        format!("update /w/a=2 c{a} @{a2}"),
        format!("create /w/b=3 c{b} @{b}"),
        format!("delete /w/a= c{a} @{gone}"),
        format!("create /w/a=4 c{again} @{again}"),
    ];
    (start, expected)
}

pub async fn watch_sees_exactly_the_later_events_in_order(fixture: &mut impl Fixture) {
    let store = fixture.store();
    let (start, expected) = history(&*store).await;
    assert_eq!(events(&*store, "/w/", start, 5).await, expected);
    assert_eq!(events(&*store, "/w/", Revision(start.0 + 1), 4).await, expected[1..]);
    assert_eq!(events(&*store, "", start, 6).await.len(), 6);
}

pub async fn watch_goes_on_with_events_as_they_happen(fixture: &mut impl Fixture) {
    const WRITES: u64 = 500;
    let store = fixture.store();
    let start = put(&*store, "/w/0", "before").await;
    let watched = Arc::clone(&store);
    let mut watching = JoinSet::new();
    watching.spawn(async move { events(&*watched, "/w/", start, WRITES as usize).await });
    let mut tasks = JoinSet::new();
    for number in 0..WRITES {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            put(&*store, &format!("/other/{number}"), "not watched").await;
            put(&*store, &format!("/w/{number}"), "watched").await
        });
    }
    let mut revisions = tasks.join_all().await;
    revisions.sort();
    let seen = watching.join_all().await.concat();
    let seen: Vec<&str> = seen.iter().filter_map(|event| event.rsplit('@').next()).collect();
    let expected: Vec<String> = revisions.iter().map(Revision::to_string).collect();
    assert_eq!(seen, expected);
}

pub async fn watch_outside_history_is_refused(fixture: &mut impl Fixture) {
    let store = fixture.store();
    put(&*store, "/a", "1").await;
    let current = put(&*store, "/a", "2").await;
    match store.watch("", current.next()).err() {
        Some(Error::FutureRevision { .. }) => {}
        other => panic!("{other:?}"),
    }
    store.compact(current).await.expect("compact");
    match store.watch("", Revision(current.0 - 1)).err() {
        Some(Error::Compacted { requested, oldest }) => {
            assert_eq!((requested, oldest), (Revision(current.0 - 1), current));
        }
        other => panic!("{other:?}"),
    }
    let next = put(&*store, "/b", "3").await;
    assert_eq!(events(&*store, "", current, 1).await, [format!("create /b=3 c{next} @{next}")]);
}

pub async fn compaction_forgets_what_was_superseded_and_nothing_else(fixture: &mut impl Fixture) {
    let store = fixture.store();
    put(&*store, "/stays", "old but live").await;
    put(&*store, "/a", "1").await;
    let before = put(&*store, "/a", "2").await;
    put(&*store, "/dies", "x").await;
    delete(&*store, "/dies").await;
    let at = put(&*store, "/a", "3").await;
    put(&*store, "/b", "4").await;
    let later = delete(&*store, "/a").await;
    let expected: Vec<_> =
        (at.0..=later.0).map(|at| (Revision(at), list_at(&*store, "", Some(Revision(at))))).collect();

    store.compact(at).await.expect("compact");
    store.compact(at).await.expect("compacting at the same revision again changes nothing");

    for (revision, expected) in &expected {
        assert_eq!(&list_at(&*store, "", Some(*revision)), expected, "at {revision}");
    }
    for gone in [before, Revision(at.0 - 1)] {
        match store.range(&RangeRequest { at: Some(gone), ..RangeRequest::default() }) {
            Err(Error::Compacted { requested, oldest }) => assert_eq!((requested, oldest), (gone, at)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(events(&*store, "", at, 2).await.len(), 2);
    assert!(matches!(store.compact(before).await, Err(Error::Compacted { .. })));
    assert!(matches!(store.compact(later.next()).await, Err(Error::FutureRevision { .. })));
    let next = put(&*store, "/dies", "again").await;
    assert_eq!(next, later.next(), "compaction took a revision");
    let pair = store.get("/dies").expect("get").expect("it was created again");
    assert_eq!(describe(&pair), format!("/dies=again c{next} m{next}"));
}

pub async fn a_watcher_that_compaction_overtakes_is_told(fixture: &mut impl Fixture) {
    let store = fixture.store();
    let start = put(&*store, "/a", "0").await;
    let mut stream = store.watch("", start).expect("a watch");
    let mut last = start;
    for number in 0..2000 {
        last = put_relaxed(&*store, "/a", &number.to_string()).await;
    }
    store.compact(last).await.expect("compact");
    // Whatever it had read ahead is right; then it is told, rather than made to miss something.
    let mut expected = start.next();
    loop {
        match stream.next().await {
            Some(Ok(event)) => {
                assert_eq!(event.revision, expected);
                expected = expected.next();
            }
            Some(Err(Error::Compacted { .. })) => break,
            None => panic!("the watch ended without a word"),
            Some(Err(error)) => panic!("{error}"),
        }
        if expected > last {
            return;
        }
    }
    assert!(stream.next().await.is_none(), "the watch went on after an error");
}

async fn put_relaxed(store: &dyn Store, key: &str, value: &str) -> Revision {
    let write = Write { durability: Durability::Relaxed, ..write(key, Some(value), Precondition::None) };
    store.commit(write).await.expect("a relaxed put").revision
}

/// Collects what it is shown.
#[derive(Default)]
struct Recorder {
    seen: Mutex<Vec<Event>>,
}

impl Recorder {
    fn seen(&self) -> Vec<Event> {
        self.seen.lock().clone()
    }

    fn last_revision(&self) -> Revision {
        self.seen().last().map_or(Revision::ZERO, |event| event.revision)
    }
}

impl Observer for Recorder {
    fn committed(&self, events: &[Event]) {
        assert!(!events.is_empty(), "called without events");
        self.seen.lock().extend_from_slice(events);
    }
}

pub async fn an_observer_sees_a_write_before_its_writer_is_answered(fixture: &mut impl Fixture) {
    let store = fixture.store();
    let recorder = Arc::new(Recorder::default());
    assert_eq!(store.observe("", Arc::clone(&recorder) as Arc<dyn Observer>), Revision::ZERO);
    let mut tasks = JoinSet::new();
    for number in 0..64_u64 {
        let (store, recorder) = (Arc::clone(&store), Arc::clone(&recorder));
        tasks.spawn(async move {
            for round in 0..10_u64 {
                let attachment: Attachment = Arc::new(number * 100 + round);
                let write = Write {
                    attachment: Some(attachment),
                    ..write(&format!("/{number}"), Some("v"), Precondition::None)
                };
                let revision = store.commit(write).await.expect("commit").revision;
                assert!(recorder.last_revision() >= revision, "answered {revision} before it was observed");
            }
        });
    }
    tasks.join_all().await;
    let seen = recorder.seen();
    let revisions: Vec<u64> = seen.iter().map(|event| event.revision.0).collect();
    let first = revisions[0];
    assert_eq!(revisions, (first..first + 640).collect::<Vec<_>>());
    let mut attached: Vec<u64> = Vec::new();
    for event in &seen {
        let attachment = event.attachment.as_ref().expect("the attachment of the write");
        let number = *attachment.downcast_ref::<u64>().expect("what was attached");
        assert_eq!(&*event.key, format!("/{}", number / 100));
        attached.push(number);
    }
    attached.sort_unstable();
    let expected: Vec<u64> =
        (0..64).flat_map(|number| (0..10).map(move |round| number * 100 + round)).collect();
    assert_eq!(attached, expected);
}

pub async fn an_observer_sees_its_prefix_only_from_its_revision_on(fixture: &mut impl Fixture) {
    let store = fixture.store();
    let before = put(&*store, "/w/a", "unseen").await;
    let recorder = Arc::new(Recorder::default());
    assert_eq!(store.observe("/w/", Arc::clone(&recorder) as Arc<dyn Observer>), before);
    // Many at once, so that batches hold events inside and outside the prefix.
    let mut tasks = JoinSet::new();
    for number in 0..100 {
        let store = Arc::clone(&store);
        let key = if number % 3 == 0 { format!("/w/{number:02}") } else { format!("/x/{number:02}") };
        tasks.spawn(async move { put(&*store, &key, "v").await });
    }
    tasks.join_all().await;
    let gone = delete(&*store, "/w/a").await;
    let seen = recorder.seen();
    assert!(seen.is_sorted_by_key(|event| event.revision));
    assert_eq!(describe_event(&seen[seen.len() - 1]), format!("delete /w/a= c{before} @{gone}"));
    let mut keys: Vec<&str> = seen[..seen.len() - 1].iter().map(|event| &*event.key).collect();
    keys.sort_unstable();
    let expected: Vec<String> = (0..100).step_by(3).map(|number| format!("/w/{number:02}")).collect();
    assert_eq!(keys, expected);
}

pub async fn relaxed_writes_are_visible_when_answered(fixture: &mut impl Fixture) {
    let store = fixture.store();
    let recorder = Arc::new(Recorder::default());
    store.observe("", Arc::clone(&recorder) as Arc<dyn Observer>);
    for number in 0..20 {
        let revision = put_relaxed(&*store, "/lease", &number.to_string()).await;
        assert_eq!(store.current_revision(), revision);
        assert_eq!(recorder.last_revision(), revision);
        let pair = store.get("/lease").expect("get").expect("just written");
        assert_eq!(pair.value, number.to_string().as_bytes());
    }
    let synced = put(&*store, "/other", "v").await;
    assert_eq!(store.current_revision(), synced);
}

pub async fn large_and_empty_values_come_back_as_written(fixture: &mut impl Fixture) {
    let store = fixture.store();
    for (key, length) in [("/empty", 0), ("/one", 1), ("/page", 4096), ("/large", 3 << 20)] {
        let value: Bytes = (0..length).map(|index: usize| (index * 31 % 251) as u8).collect();
        let write = Write { value: Some(value.clone()), ..write(key, None, Precondition::Absent) };
        store.commit(write).await.expect("commit");
        let pair = store.get(key).expect("get").expect("just written");
        assert!(pair.value == value, "{key} came back different");
    }
}

pub async fn an_unusable_key_is_refused(fixture: &mut impl Fixture) {
    let store = fixture.store();
    for key in [String::new(), "/a\0b".to_owned(), "/".repeat(1 << 17)] {
        let outcome = store.commit(write(&key, Some("v"), Precondition::None)).await;
        assert!(matches!(outcome, Err(Error::InvalidWrite { .. })), "{} bytes: {outcome:?}", key.len());
    }
    assert_eq!(store.current_revision(), Revision::ZERO);
}

pub async fn a_snapshot_opens_elsewhere_as_an_equal_store(fixture: &mut impl Fixture) {
    let store = fixture.store();
    let (_, _) = history(&*store).await;
    for number in 0..200 {
        put(&*store, &format!("/many/{number}"), &"x".repeat(number)).await;
    }
    delete(&*store, "/many/100").await;
    let expected = list(&*store);
    let target = fixture.scratch().join("snapshot");
    let revision = store.snapshot(&target).await.expect("a snapshot");
    assert_eq!(revision, store.current_revision());
    put(&*store, "/many/0", "after the snapshot").await;

    let copy = fixture.open_snapshot(&target).expect("the snapshot opens");
    assert_eq!(copy.current_revision(), revision);
    assert_eq!(list(&*copy), expected);
    assert_eq!(put(&*copy, "/many/1", "in the copy").await, revision.next());
    assert_eq!(store.get("/many/1").expect("get").expect("it is there").value, "x".as_bytes());
    copy.close().await.expect("close");
}

pub async fn a_snapshot_does_not_overwrite(fixture: &mut impl Fixture) {
    let store = fixture.store();
    put(&*store, "/a", "1").await;
    let target = fixture.scratch().join("taken");
    std::fs::create_dir(&target).expect("the scratch directory is writable");
    assert!(matches!(store.snapshot(&target).await, Err(Error::Io { .. })));
    assert_eq!(std::fs::read_dir(&target).expect("it is still there").count(), 0);
}

pub async fn a_reopened_store_goes_on_where_it_was(fixture: &mut impl Fixture) {
    let store = fixture.store();
    let (start, expected_events) = history(&*store).await;
    let relaxed = put_relaxed(&*store, "/x/relaxed", "flushed by closing").await;
    let middle = Revision(start.0 + 3);
    let (expected, expected_at) = (list(&*store), list_at(&*store, "", Some(middle)));
    drop(store);
    let Some(store) = fixture.reopen().await else { return };

    assert_eq!(store.current_revision(), relaxed);
    assert_eq!(list(&*store), expected);
    assert_eq!(list_at(&*store, "", Some(middle)), expected_at);
    assert_eq!(events(&*store, "/w/", start, 5).await, expected_events);
    let next = put(&*store, "/w/c", "after").await;
    assert_eq!(next, relaxed.next());
    assert_eq!(events(&*store, "/w/", relaxed, 1).await, [format!("create /w/c=after c{next} @{next}")]);

    store.compact(middle).await.expect("compact");
    let expected = list(&*store);
    drop(store);
    let store = fixture.reopen().await.expect("it reopened before");
    assert_eq!(list(&*store), expected);
    assert!(matches!(store.watch("", start).err(), Some(Error::Compacted { .. })));
    assert_eq!(list_at(&*store, "", Some(middle)), expected_at);
    assert_eq!(put(&*store, "/w/d", "once more").await, next.next());
}

pub async fn a_closed_store_refuses_everything(fixture: &mut impl Fixture) {
    let store = fixture.store();
    let revision = put(&*store, "/a", "1").await;
    let mut watching = store.watch("", revision).expect("a watch");
    store.close().await.expect("close");
    store.close().await.expect("closing twice is fine");
    assert!(watching.next().await.is_none(), "a watch goes on after close");
    assert!(matches!(store.commit(write("/a", Some("2"), Precondition::None)).await, Err(Error::Closed)));
    assert!(matches!(store.get("/a"), Err(Error::Closed)));
    assert!(matches!(store.range(&RangeRequest::default()), Err(Error::Closed)));
    assert!(matches!(store.scan("", &mut |_| Ok(())), Err(Error::Closed)));
    assert!(matches!(store.watch("", revision).err(), Some(Error::Closed)));
    assert!(matches!(store.compact(revision).await, Err(Error::Closed)));
    assert!(matches!(store.snapshot(&fixture.scratch().join("late")).await, Err(Error::Closed)));
}
