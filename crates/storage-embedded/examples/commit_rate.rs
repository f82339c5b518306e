//! Measures the embedded engine on this machine's disk: commits per second, start-up, bulk deletes.
//!
//! Run with `cargo run --release -p storage-embedded --example commit_rate [directory]`. Without a
//! directory it uses a temporary one, which may lie in memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use storage::{Durability, Key, Precondition, Store, Write};
use storage_embedded::{EmbeddedStore, Options, open};
use tokio::task::JoinSet;

const MEASURED: Duration = Duration::from_secs(2);
const OBJECTS: usize = 50_000;
const OBJECT_BYTES: usize = 6 << 10;
const DELETED: usize = 2_000;

/// In the environment of a second run of this program: only open the store there and scan it.
const OPEN_ONLY: &str = "COMMIT_RATE_OPEN_ONLY";

fn main() {
    if let Some(path) = std::env::var_os(OPEN_ONLY) {
        return open_and_scan(Path::new(&path));
    }
    let folder = tempfile::tempdir().expect("a temporary directory");
    let root = std::env::args().nth(1).map_or_else(|| folder.path().to_owned(), PathBuf::from);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("threads");
    println!("{:>8} {:>10} {:>12} {:>12}", "value", "committers", "commits/s", "p99");
    for bytes in [1 << 10, 6 << 10] {
        for committers in [1, 16, 64] {
            let path = root.join(format!("rate-{bytes}-{committers}"));
            let (rate, p99) = runtime.block_on(rate(&path, bytes, committers));
            println!("{bytes:>8} {committers:>10} {rate:>12.0} {p99:>12.0?}");
            let _ = std::fs::remove_dir_all(path);
        }
    }
    let path = root.join("start-up");
    runtime.block_on(start_up(&path));
    let _ = std::fs::remove_dir_all(path);
}

fn put(key: String, value: Bytes) -> Write {
    Write {
        key: Key::from(key),
        precondition: Precondition::Absent,
        value: Some(value),
        attachment: None,
        durability: Durability::Synced,
    }
}

async fn rate(path: &Path, bytes: usize, committers: usize) -> (f64, Duration) {
    let store = Arc::new(open(path, Options::default()).expect("a store"));
    let value = Bytes::from(vec![b'v'; bytes]);
    let end = rt::instant() + MEASURED;
    let mut tasks = JoinSet::new();
    for number in 0..committers {
        let (store, value) = (Arc::clone(&store), value.clone());
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            for step in 0_u64.. {
                let began = rt::instant();
                if began >= end {
                    break;
                }
                let key = format!("/registry/configmaps/namespace-{number}/object-{step}");
                store.commit(put(key, value.clone())).await.expect("a commit");
                latencies.push(began.elapsed());
            }
            latencies
        });
    }
    let mut latencies: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
    latencies.sort_unstable();
    store.close().await.expect("close");
    (latencies.len() as f64 / MEASURED.as_secs_f64(), latencies[latencies.len() * 99 / 100])
}

async fn start_up(path: &Path) {
    let store = Arc::new(open(path, Options::default()).expect("a store"));
    fill(&store).await;
    let began = rt::instant();
    let deletes = (0..DELETED).map(|number| {
        let write =
            Write { precondition: Precondition::Present, value: None, ..put(name(number), Bytes::new()) };
        store.commit(write)
    });
    futures::future::try_join_all(deletes).await.expect("deletes");
    println!("{DELETED} deletes at once: {:.0?}", began.elapsed());
    store.close().await.expect("close");
    drop(store);

    // In a process of its own, whose memory shows nothing of what filling the store needed.
    let exe = std::env::current_exe().expect("the path of this program");
    let status = std::process::Command::new(exe).env(OPEN_ONLY, path).status();
    assert!(status.is_ok_and(|status| status.success()), "opening failed");
}

fn open_and_scan(path: &Path) {
    let began = rt::instant();
    let store = open(path, Options::default()).expect("a store");
    println!("open {OBJECTS} objects of {OBJECT_BYTES} bytes: {:.0?}", began.elapsed());
    let began = rt::instant();
    let (mut count, mut bytes) = (0, 0);
    let scanned = store.scan("/registry/pods/", &mut |pair| {
        count += 1;
        bytes += pair.value.len();
        Ok(())
    });
    scanned.expect("a scan");
    println!("scan of {count} objects, {} MiB: {:.0?}", bytes >> 20, began.elapsed());
    println!("memory with the store open: {} KiB", resident_kib());
}

fn name(number: usize) -> String {
    format!("/registry/pods/namespace-{}/pod-{number}", number % 100)
}

async fn fill(store: &Arc<EmbeddedStore>) {
    let value = Bytes::from(vec![b'v'; OBJECT_BYTES]);
    let began = rt::instant();
    for chunk in (0..OBJECTS).collect::<Vec<_>>().chunks(256) {
        let commits = chunk.iter().map(|number| store.commit(put(name(*number), value.clone())));
        futures::future::try_join_all(commits).await.expect("commits");
    }
    println!("fill with {OBJECTS} objects, 256 at once: {:.0?}", began.elapsed());
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}
