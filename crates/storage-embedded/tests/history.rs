//! History: how long it is kept, that readers keep what they began to read, and that its space comes
//! back.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use storage::{Durability, Error, Key, Precondition, RangeRequest, Revision, Store, Write};
use storage_embedded::{EmbeddedStore, Options, memory, open};

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn put(store: &EmbeddedStore, key: &str, value: &str) -> Revision {
    let write = Write {
        key: Key::from(key),
        precondition: Precondition::None,
        value: Some(value.to_owned().into()),
        attachment: None,
        durability: Durability::Relaxed,
    };
    wait(store.commit(write)).unwrap().revision
}

/// Waits for a state, not for a time.
fn wait_for(what: &str, mut reached: impl FnMut() -> bool) {
    let end = rt::instant() + Duration::from_secs(20);
    while !reached() {
        assert!(rt::instant() < end, "never: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn is_compacted(store: &EmbeddedStore, at: Revision) -> bool {
    let request = RangeRequest { at: Some(at), limit: 1, ..RangeRequest::default() };
    matches!(store.range(&request), Err(Error::Compacted { .. }))
}

#[test]
fn history_is_compacted_after_one_to_two_intervals() {
    let folder = tempfile::tempdir().unwrap();
    let interval = Duration::from_millis(300);
    let store = open(folder.path(), Options { compaction_interval: interval, ..Options::default() }).unwrap();
    put(&store, "/a", "0");
    let old = put(&store, "/a", "1");
    let last = put(&store, "/a", "2");
    assert!(!is_compacted(&store, old));
    let began = rt::instant();
    wait_for("compaction", || is_compacted(&store, old));
    assert!(began.elapsed() < interval * 4, "took {:?}", began.elapsed());
    assert!(!is_compacted(&store, last), "the current state went too");
    assert_eq!(store.get("/a").unwrap().unwrap().value, "2".as_bytes());
}

#[test]
fn history_beyond_its_bound_is_compacted_early() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), Options { history_max: 100, ..Options::default() }).unwrap();
    for number in 0..90 {
        put(&store, "/a", &number.to_string());
    }
    assert!(!is_compacted(&store, Revision(1)), "compacted below its bound");
    for number in 0..200 {
        put(&store, "/a", &number.to_string());
    }
    wait_for("compaction", || is_compacted(&store, Revision(100)));
    let current = store.current_revision();
    assert!(!is_compacted(&store, Revision(current.0 - 10)), "recent history went too");
}

#[test]
fn a_scan_sees_one_moment_whatever_happens_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { journal_file_bytes: 1, ..Options::default() };
    let on_disk: Arc<EmbeddedStore> = Arc::new(open(folder.path(), options).unwrap());
    for store in [on_disk, Arc::new(memory())] {
        for number in 0..300 {
            put(&store, &format!("/{number:03}"), &format!("old {}", "x".repeat(500)));
        }
        let began_at = store.current_revision();
        let (mut seen, mut is_first) = (0, true);
        let revision = store
            .scan("", &mut |pair| {
                if std::mem::take(&mut is_first) {
                    // Everything is overwritten, moved to the tables and compacted away.
                    for number in 0..300 {
                        put(&store, &format!("/{number:03}"), &format!("new {}", "y".repeat(500)));
                    }
                    wait(store.compact(store.current_revision())).unwrap();
                    for number in 0..300 {
                        put(&store, &format!("/{number:03}"), &format!("newer {}", "z".repeat(500)));
                    }
                }
                assert!(pair.value.starts_with(b"old"), "{}", pair.key);
                assert!(pair.mod_revision <= began_at);
                seen += 1;
                Ok(())
            })
            .unwrap();
        assert_eq!((revision, seen), (began_at, 300));
    }
}

#[test]
fn space_of_compacted_history_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { journal_file_bytes: 256 << 10, ..Options::default() };
    let store = open(folder.path(), options.clone()).unwrap();
    let value = "v".repeat(10_000);
    for round in 0..150 {
        for number in 0..10 {
            put(&store, &format!("/{number}"), &format!("{round} {value}"));
        }
        if round % 20 == 19 {
            wait(store.compact(store.current_revision())).unwrap();
        }
    }
    // 15 MB were written, 100 KB are live; some files may still be on their way.
    wait_for("tables without garbage", || {
        put(&store, "/0", &value);
        wait(store.compact(store.current_revision())).unwrap();
        size_of(folder.path()) < 4 << 20
    });
    wait(store.close()).unwrap();
    let store = open(folder.path(), options).unwrap();
    assert_eq!(store.range(&RangeRequest::default()).unwrap().items.len(), 10);
}

fn size_of(folder: &Path) -> u64 {
    let mut size = 0;
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        // Files come and go while this looks.
        let Ok(metadata) = entry.metadata() else { continue };
        size += if metadata.is_dir() { size_of(&entry.path()) } else { metadata.len() };
    }
    size
}
