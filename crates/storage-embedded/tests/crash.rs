//! Kills a writing process at random moments and checks what the next one finds.
//!
//! The parent starts this very executable again as the child, with the data directory in an
//! environment variable. The child opens the store, writes from several threads' worth of committers
//! and prints each acknowledged write; the parent kills it with SIGKILL, opens the store and compares.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use storage::{Durability, EventKind, Key, Precondition, RangeRequest, Revision, Store, Write};
use storage_embedded::{EmbeddedStore, Options, open};

const CHILD: &str = "PINTLE_CRASH_TEST_DATA";
const ROUNDS: u64 = 54;
const COMMITTERS: u64 = 16;
/// Keys each committer overwrites in turn, so that most writes supersede something.
const KEYS: u64 = 40;

/// Small files, and in every other round fast compaction: crashes hit take-overs and compactions as
/// well as commits.
fn options(round: u64) -> Options {
    let compaction_interval = Duration::from_millis(if round.is_multiple_of(2) { 20 } else { 60_000 });
    Options { journal_file_bytes: 256 << 10, compaction_interval, ..Options::default() }
}

/// For looking at what was left.
const CALM: u64 = 1;

#[test]
fn a_killed_process_loses_nothing_it_acknowledged() {
    if let Ok(path) = std::env::var(CHILD) {
        return child(Path::new(&path));
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    let mut known = Known::default();
    for round in 0..ROUNDS {
        run_and_kill(&path, round, &mut known);
        check(&path, &mut known);
    }
    eprintln!("{} revisions in {ROUNDS} rounds", known.revision);
    assert!(known.revision > Revision(ROUNDS * 20), "hardly anything was written: {}", known.revision);
}

/// What must be found: for each key the last acknowledged write, and which value may stand beyond it.
#[derive(Default)]
struct Known {
    /// Key to revision and round of the last acknowledged write; an empty value is a delete.
    acknowledged: BTreeMap<String, (u64, String)>,
    revision: Revision,
}

fn run_and_kill(path: &Path, round: u64, known: &mut Known) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "a_killed_process_loses_nothing_it_acknowledged",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(CHILD, path)
        .env("PINTLE_CRASH_TEST_ROUND", round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = child.stdout.take().unwrap();
    let (storm, storming) = sync_channel(1);
    let reader = std::thread::spawn(move || {
        let lines = BufReader::new(output).lines().map_while(Result::ok);
        let announce = |line: &String| {
            if line.starts_with("ack ") {
                let _ = storm.try_send(());
            }
        };
        lines.inspect(announce).collect::<Vec<String>>()
    });
    // In some rounds anywhere while it opens the store, in most somewhere in the storm.
    if round % 6 != 5 {
        storming.recv_timeout(Duration::from_secs(20)).expect("the child writes");
    }
    std::thread::park_timeout(Duration::from_millis(1 + (round * 37) % 61));
    child.kill().unwrap();
    child.wait().unwrap();
    for line in reader.join().unwrap() {
        // A line without its end is a write whose acknowledgement was cut off: nothing is promised.
        let Some(line) = line.strip_prefix("ack ").and_then(|line| line.strip_suffix(" .")) else { continue };
        let mut words = line.split(' ');
        let (revision, key, value) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
        let revision: u64 = revision.parse().unwrap();
        let entry = known.acknowledged.entry(key.to_owned()).or_default();
        if revision > entry.0 {
            *entry = (revision, value.trim_matches('-').to_owned());
        }
        known.revision = known.revision.max(Revision(revision));
    }
}

/// Opens what the killed process left and compares it with what it said.
fn check(path: &Path, known: &mut Known) {
    let store = open(path, options(CALM)).unwrap();
    let current = store.current_revision();
    assert!(current >= known.revision, "{} was acknowledged, {current} is found", known.revision);

    let found: BTreeMap<String, (u64, String)> = store
        .range(&RangeRequest::default())
        .unwrap()
        .items
        .iter()
        .map(|pair| (pair.key.to_string(), (pair.mod_revision.0, tag_of(&pair.value))))
        .collect();
    for (key, (revision, value)) in &known.acknowledged {
        match found.get(key) {
            Some((at, found)) if at == revision => assert_eq!(found, value, "{key}@{revision}"),
            // Written again without an acknowledgement that reached us.
            Some((at, _)) => assert!(at > revision, "{key} is at {at}, but {revision} was acknowledged"),
            None => assert!(value.is_empty() || is_deleted_after(&store, key, *revision), "{key} is gone"),
        }
    }
    known.acknowledged = found;
    known.revision = current;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let next = store.commit(put("/after", "x".into(), Durability::Synced)).await.unwrap().revision;
        assert_eq!(next, current.next(), "revisions do not continue");
        store.close().await.unwrap();
    });
    known.acknowledged.insert("/after".to_owned(), (current.next().0, String::new()));
    known.revision = current.next();
}

/// Whether history shows an unacknowledged delete of the key.
fn is_deleted_after(store: &EmbeddedStore, key: &str, revision: u64) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let Ok(stream) = store.watch(key, Revision(revision)) else { return true };
        let count = (store.current_revision().0 - revision) as usize;
        let mut stream = stream.take(count);
        while let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(200), stream.next()).await {
            // Compacted since, which only happens to what was superseded.
            let Ok(event) = event else { return true };
            if &*event.key == key && event.kind == EventKind::Delete {
                return true;
            }
        }
        false
    })
}

/// Values are a tag repeated, so that a value from two writes mixed would show.
fn value_of(tag: &str, length: usize) -> Bytes {
    let mut value = tag.repeat(length / tag.len() + 1);
    value.truncate(length.max(tag.len()));
    value.into()
}

fn tag_of(value: &[u8]) -> String {
    let text = std::str::from_utf8(value).unwrap();
    let Some((tag, _)) = text.split_once(';') else { return String::new() };
    let tag = format!("{tag};");
    assert_eq!(text, std::str::from_utf8(&value_of(&tag, text.len())).unwrap(), "a torn value");
    tag
}

fn put(key: &str, value: Bytes, durability: Durability) -> Write {
    Write {
        key: Key::from(key),
        precondition: Precondition::None,
        value: Some(value),
        attachment: None,
        durability,
    }
}

fn child(path: &Path) {
    let round = std::env::var("PINTLE_CRASH_TEST_ROUND").unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Arc::new(open(path, options(round.parse().unwrap())).unwrap());
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..COMMITTERS {
            tasks.spawn(storm(Arc::clone(&store), number, round.clone()));
        }
        tasks.join_all().await;
    });
}

/// Writes until killed: mostly puts of different sizes, some deletes, some relaxed.
async fn storm(store: Arc<EmbeddedStore>, number: u64, round: String) {
    for step in 0_u64.. {
        let key = format!("/storm/{number}/{}", step * 7 % KEYS);
        let tag = format!("{round}:{step};");
        let durability = if step % 8 == 7 { Durability::Relaxed } else { Durability::Synced };
        let value = (step % 11 != 10).then(|| value_of(&tag, (step * 131 % 3000) as usize));
        let is_delete = value.is_none();
        let write = Write { value, ..put(&key, Bytes::new(), durability) };
        // Deleting what an earlier round deleted is refused, which is fine.
        let Ok(committed) = store.commit(write).await else { continue };
        let shown = if is_delete { "-" } else { &tag };
        // One write call per line: a kill leaves whole lines, or a last one without its end.
        let line = format!("ack {} {key} {shown} .\n", committed.revision);
        std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
    }
}
