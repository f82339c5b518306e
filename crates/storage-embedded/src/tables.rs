//! Everything older than the journal, in tables of a log-structured tree. The only module that knows
//! fjall.
//!
//! Owns: opening the tree, taking over full journal files in one atomic step, and reading by
//! revision. Records are keyed by their revision, so every take-over lies behind all tables there
//! are: tables are moved, not rewritten, and no filter is needed to find one.
//!
//! Data only ever enters by ingestion (a finished table file, registered atomically), never through
//! fjall's journal or memtables, so fjall's own journal stays empty and none of its threads touches
//! the path of a commit.
//!
//! fjall answers damage with an error, a panic or by setting directories aside as unreferenced;
//! [`Tables::open`] looks for the latter before fjall does, and [`guarded`] turns the second into the
//! first.

use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use fjall::config::{BlockSizePolicy, FilterPolicy, PinningPolicy};
use fjall::{AbstractTree, Database, Keyspace, KeyspaceCreateOptions, Readable, Slice, Snapshot};
use storage::Error;

use crate::directory::{self, corrupt, io_error};

const KEYSPACE: &str = "log";
/// The smallest number fjall accepts; one thread is enough to merge tables now and then.
const WORKERS: usize = 1;
/// Handles of table files kept open. A full table has [`TABLE_BYTES`], so this covers 8 GiB.
const OPEN_FILES_MAX: usize = 128;
const TABLE_BYTES: u64 = 64 << 20;
/// Larger blocks make a full read faster and the index smaller; a point read costs one block.
const BLOCK_BYTES: u32 = 16 << 10;
/// Never filled: nothing is written through memtables.
const MEMTABLE_BYTES: u64 = 1 << 20;

pub(crate) struct Tables {
    path: PathBuf,
    database: Database,
    log: Keyspace,
}

impl Tables {
    pub(crate) fn create(path: &Path, cache_bytes: u64) -> Result<Self, Error> {
        directory::create_directory(path)?;
        Self::start(path, cache_bytes)
    }

    /// Opens existing tables; `expect_some` says that they hold at least one table.
    pub(crate) fn open(path: &Path, cache_bytes: u64, expect_some: bool) -> Result<Self, Error> {
        expect_files(path, expect_some)?;
        Self::start(path, cache_bytes)
    }

    fn start(path: &Path, cache_bytes: u64) -> Result<Self, Error> {
        let tables = guarded(path, || {
            let database = Database::builder(path)
                .cache_size(cache_bytes)
                .worker_threads(WORKERS)
                .max_cached_files(Some(OPEN_FILES_MAX))
                .manual_journal_persist(true)
                .open()?;
            let log = database.keyspace(KEYSPACE, keyspace_options)?;
            Ok(Self { path: path.to_owned(), database, log })
        })?;
        tables.restrict();
        Ok(tables)
    }

    /// Files that never change after creation: fjall's own catalogue. Were it lost, fjall would take
    /// all tables for unreferenced and delete them.
    pub(crate) fn unchanging(&self) -> Result<Vec<PathBuf>, Error> {
        let catalogue = self.path.join("keyspaces/0");
        let mut files = vec![self.path.join("version"), catalogue.join("current"), current_version(&catalogue)?];
        let tables = catalogue.join("tables");
        for entry in std::fs::read_dir(&tables).map_err(io_error("list", &tables))? {
            files.push(entry.map_err(io_error("list", &tables))?.path());
        }
        Ok(files)
    }

    /// The highest revision held.
    pub(crate) fn last_revision(&self) -> Result<Option<u64>, Error> {
        guarded(&self.path, || self.log.last_key_value().map(fjall::Guard::key).transpose())?
            .map(|key| self.revision_of(&key))
            .transpose()
    }

    fn revision_of(&self, key: &[u8]) -> Result<u64, Error> {
        revision_of(&self.path, key)
    }

    /// What is there now, unaffected by later take-overs and removals.
    pub(crate) fn view(&self) -> TablesView {
        TablesView {
            path: self.path.clone(),
            snapshot: self.database.snapshot(),
            log: self.log.clone(),
        }
    }

    /// Removes and adds records in one atomic and durable step. Revisions must ascend over both.
    pub(crate) fn ingest(
        &self,
        removed: impl IntoIterator<Item = u64>,
        add: impl FnOnce(&mut dyn FnMut(u64, &[u8]) -> Result<(), Error>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let outcome = self.try_ingest(removed, add);
        if outcome.is_err() {
            self.remove_strays();
        }
        self.restrict();
        outcome
    }

    fn try_ingest(
        &self,
        removed: impl IntoIterator<Item = u64>,
        add: impl FnOnce(&mut dyn FnMut(u64, &[u8]) -> Result<(), Error>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut ingestion = guarded(&self.path, || self.log.start_ingestion())?;
        for revision in removed {
            guarded(&self.path, || ingestion.write_tombstone(revision.to_be_bytes()))?;
        }
        add(&mut |revision, raw| guarded(&self.path, || ingestion.write(revision.to_be_bytes(), raw)))?;
        guarded(&self.path, || ingestion.finish())
    }

    /// Deletes half-written table files of a failed take-over, so that trying again does not fill
    /// the disk further. While fjall merges tables, its unregistered files are left alone.
    fn remove_strays(&self) {
        if self.database.active_compactions() > 0 {
            return;
        }
        let known: Vec<u64> =
            self.log.tree.current_version().iter_tables().map(|table| table.id()).collect();
        let Ok(entries) = std::fs::read_dir(self.log.path().join("tables")) else { return };
        for entry in entries.flatten() {
            let id = entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok());
            if id.is_some_and(|id| !known.contains(&id)) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    /// fjall creates files with default modes; the directory above is private, and so are they then.
    fn restrict(&self) {
        if let Err(error) = directory::restrict(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "Left file modes as they are");
        }
    }
}

/// The tables at one moment.
pub(crate) struct TablesView {
    path: PathBuf,
    snapshot: Snapshot,
    log: Keyspace,
}

impl TablesView {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn get(&self, revision: u64) -> Result<Option<Slice>, Error> {
        guarded(&self.path, || self.snapshot.get(&self.log, revision.to_be_bytes()))
    }

    /// All records with revisions in the range, ascending.
    pub(crate) fn range(
        &self,
        revisions: RangeInclusive<u64>,
    ) -> Result<impl Iterator<Item = Result<(u64, Slice), Error>>, Error> {
        let (first, last) = revisions.into_inner();
        let bounds = first.to_be_bytes()..=last.to_be_bytes();
        let mut iterator = guarded(&self.path, || Ok(self.snapshot.range(&self.log, bounds)))?;
        Ok(std::iter::from_fn(move || {
            let item = guarded(&self.path, || {
                iterator.next().map(fjall::Guard::into_inner).transpose()
            });
            match item {
                Ok(None) => None,
                Ok(Some((key, value))) => Some(revision_of(&self.path, &key).map(|revision| (revision, value))),
                Err(error) => Some(Err(error)),
            }
        }))
    }
}

fn keyspace_options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(MEMTABLE_BYTES)
        .manual_journal_persist(true)
        .data_block_size_policy(BlockSizePolicy::all(BLOCK_BYTES))
        // A revision lies in exactly one table's range: a filter would never say no.
        .filter_policy(FilterPolicy::disabled())
        .expect_point_read_hits(true)
        .index_block_pinning_policy(PinningPolicy::disabled())
        .compaction_strategy(std::sync::Arc::new(
            fjall::compaction::Leveled::default().with_table_target_size(TABLE_BYTES),
        ))
}

fn revision_of(path: &Path, key: &[u8]) -> Result<u64, Error> {
    let key = key.try_into().map_err(|_| corrupt(path, "a table holds a key that is not a revision"))?;
    Ok(u64::from_be_bytes(key))
}

/// Refuses directories that fjall would take for new or unreferenced, and then clear.
fn expect_files(path: &Path, expect_some: bool) -> Result<(), Error> {
    expect_file(&path.join("version"))?;
    let keyspaces = path.join("keyspaces");
    for id in ["0", "1"] {
        let folder = keyspaces.join(id);
        expect_file(&folder.join("current"))?;
        expect_file(&current_version(&folder)?)?;
        let tables = folder.join("tables");
        expect_file(&tables)?;
        let is_empty = std::fs::read_dir(&tables).map_err(io_error("list", &tables))?.next().is_none();
        if expect_some && is_empty {
            return Err(corrupt(&tables, "all tables are missing"));
        }
    }
    Ok(())
}

fn expect_file(path: &Path) -> Result<(), Error> {
    if path.try_exists().map_err(io_error("inspect", path))? {
        return Ok(());
    }
    Err(corrupt(path, "it is missing"))
}

/// The file that lists the tables of one of fjall's trees.
fn current_version(folder: &Path) -> Result<PathBuf, Error> {
    let current = folder.join("current");
    let bytes = std::fs::read(&current).map_err(io_error("read", &current))?;
    let version = bytes.first_chunk().copied().map(u64::from_le_bytes);
    let version = version.ok_or_else(|| corrupt(&current, "the file is cut short"))?;
    Ok(folder.join(format!("v{version}")))
}

/// Runs a call into fjall; a panic in it is damage it did not expect.
fn guarded<T>(path: &Path, call: impl FnOnce() -> fjall::Result<T>) -> Result<T, Error> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)))) => {
            Err(from_io(path, error))
        }
        Ok(Err(fjall::Error::Locked)) => Err(Error::InUse { path: path.to_owned(), holder: None }),
        Ok(Err(error)) => Err(corrupt(path, error.to_string())),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown");
            Err(corrupt(path, format!("reading it failed unexpectedly: {text}")))
        }
    }
}

/// A file that ends too early or has vanished is damage, not a failing disk.
fn from_io(path: &Path, error: std::io::Error) -> Error {
    use std::io::ErrorKind::{InvalidData, InvalidInput, NotFound, UnexpectedEof};
    match error.kind() {
        UnexpectedEof | NotFound | InvalidData | InvalidInput => {
            corrupt(path, format!("a file is cut short or missing: {error}"))
        }
        _ => io_error("access", path)(error),
    }
}
