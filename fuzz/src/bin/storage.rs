//! Opening a store whose journal was written by somebody else.
#![no_main]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// An empty store, as it lies on disk.
fn template() -> &'static PathBuf {
    static FOLDER: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("store");
        drop(storage_embedded::open(&path, storage_embedded::Options::default()).expect("a new store"));
        (folder, path)
    });
    path
}

fn copy(from: &Path, to: &Path, journal: &[u8]) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("the template").flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to, journal);
        } else if from.extension().is_some_and(|extension| extension == "journal") {
            let mut bytes = fs::read(&from).expect("the journal");
            bytes.extend_from_slice(journal);
            fs::write(to, bytes).expect("a journal");
        } else {
            fs::copy(from, to).expect("a copy");
        }
    }
}

libfuzzer_sys::fuzz_target!(|journal: &[u8]| {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store");
    copy(template(), &path, journal);
    drop(storage_embedded::open(&path, storage_embedded::Options::default()));
});
