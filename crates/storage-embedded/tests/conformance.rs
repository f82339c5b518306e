//! The contract's own tests, on disk and in memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use storage::conformance::Fixture;
use storage::{Error, Store};
use storage_embedded::{Options, memory, open};

struct OnDisk {
    folder: tempfile::TempDir,
    options: Options,
    store: Option<Arc<dyn Store>>,
}

impl OnDisk {
    fn new(options: Options) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(open(&folder.path().join("data"), options.clone()).unwrap());
        Self { folder, options, store: Some(store) }
    }
}

#[async_trait]
impl Fixture for OnDisk {
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(self.store.as_ref().unwrap())
    }

    async fn reopen(&mut self) -> Option<Arc<dyn Store>> {
        self.store.take().unwrap().close().await.unwrap();
        let store = open(&self.folder.path().join("data"), self.options.clone()).unwrap();
        self.store = Some(Arc::new(store));
        Some(self.store())
    }

    fn open_snapshot(&self, path: &Path) -> Result<Arc<dyn Store>, Error> {
        open(path, self.options.clone()).map(|store| Arc::new(store) as Arc<dyn Store>)
    }

    fn scratch(&self) -> PathBuf {
        self.folder.path().to_owned()
    }
}

struct InMemory {
    folder: tempfile::TempDir,
    store: Arc<dyn Store>,
}

impl InMemory {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), store: Arc::new(memory()) }
    }
}

#[async_trait]
impl Fixture for InMemory {
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    async fn reopen(&mut self) -> Option<Arc<dyn Store>> {
        None
    }

    fn open_snapshot(&self, path: &Path) -> Result<Arc<dyn Store>, Error> {
        open(path, Options::default()).map(|store| Arc::new(store) as Arc<dyn Store>)
    }

    fn scratch(&self) -> PathBuf {
        self.folder.path().to_owned()
    }
}

mod on_disk {
    use super::*;
    storage::conformance_suite!(|| OnDisk::new(Options::default()));
}

/// Files so small that most of a test's data is in the tables by the time it is read.
mod on_disk_with_tiny_journal_files {
    use super::*;
    storage::conformance_suite!(|| OnDisk::new(Options { journal_file_bytes: 1, ..Options::default() }));
}

mod in_memory {
    use super::*;
    storage::conformance_suite!(InMemory::new);
}
