//! Fills the disk under a store and makes room again.
//!
//! The test starts this very executable again in a mount namespace of its own, where a small file
//! system in memory is the disk. Where that is not permitted it says so and is skipped.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use storage::{Durability, Error, Key, Precondition, RangeRequest, Store, Write};
use storage_embedded::{EmbeddedStore, Options, open};

const CHILD: &str = "PINTLE_FULL_DISK_TEST_MOUNT";
const DISK: &str = "16m";
const BALLAST_BYTES: usize = 10 << 20;

fn options() -> Options {
    Options { journal_file_bytes: 512 << 10, ..Options::default() }
}

#[test]
fn a_full_disk_refuses_writes_until_there_is_room_and_loses_nothing() {
    if let Ok(mount) = std::env::var(CHILD) {
        return fill_and_make_room(Path::new(&mount));
    }
    let folder = tempfile::tempdir().unwrap();
    let mount = folder.path().to_str().unwrap();
    let exe = std::env::current_exe().unwrap();
    let script = format!("mount -t tmpfs -o size={DISK} tmpfs {mount} || exit 77; exec {}", exe.display());
    let test = "a_full_disk_refuses_writes_until_there_is_room_and_loses_nothing";
    let output = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", &format!("{script} --exact {test} --nocapture")])
        .env(CHILD, mount)
        .output();
    match output {
        Ok(output) if output.status.success() => {}
        Ok(output) if output.status.code() == Some(77) || output.stdout.is_empty() => {
            eprintln!("skipped: no mount namespace: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(output) => {
            panic!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
        }
        Err(error) => eprintln!("skipped: no unshare command: {error}"),
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn put(store: &EmbeddedStore, key: &str, value: &Bytes) -> Result<u64, Error> {
    let write = Write {
        key: Key::from(key),
        precondition: Precondition::Absent,
        value: Some(value.clone()),
        attachment: None,
        durability: Durability::Synced,
    };
    wait(store.commit(write)).map(|committed| committed.revision.0)
}

fn content(store: &EmbeddedStore) -> BTreeMap<String, u64> {
    let items = store.range(&RangeRequest::default()).unwrap().items;
    items.iter().map(|pair| (pair.key.to_string(), pair.mod_revision.0)).collect()
}

fn fill_and_make_room(mount: &Path) {
    let (data, ballast) = (mount.join("data"), mount.join("ballast"));
    let store = open(&data, options()).unwrap();
    std::fs::write(&ballast, vec![0; BALLAST_BYTES]).unwrap();
    let value = Bytes::from(vec![7; 50_000]);
    let mut acknowledged = BTreeMap::new();
    let (mut number, mut refused_in_a_row) = (0, 0);
    // Housekeeping may free a little now and then; in the end nothing fits any more.
    while refused_in_a_row < 30 {
        let key = format!("/{number:04}");
        number += 1;
        match put(&store, &key, &value) {
            Ok(revision) => {
                acknowledged.insert(key, revision);
                refused_in_a_row = 0;
            }
            Err(error) => {
                assert!(matches!(error, Error::Full { .. }), "{error:?}");
                refused_in_a_row += 1;
            }
        }
    }
    assert!(acknowledged.len() > 20, "only {} writes fit", acknowledged.len());

    // Refused without a trace, while reads go on.
    let before = store.current_revision();
    assert_eq!(before.0, acknowledged.len() as u64);
    assert_eq!(content(&store), acknowledged);

    std::fs::remove_file(&ballast).unwrap();
    for number in 0..40 {
        let key = format!("/after/{number}");
        let revision = put(&store, &key, &value).unwrap();
        acknowledged.insert(key, revision);
    }
    assert_eq!(store.current_revision().0, before.0 + 40, "a refused write took a revision");
    assert_eq!(content(&store), acknowledged);
    wait(store.close()).unwrap();

    let store = open(&data, options()).unwrap();
    assert_eq!(content(&store), acknowledged);
    wait(store.close()).unwrap();
}
