//! Everything older than the journal, in tables of a log-structured tree. The only module that knows
//! lsm-tree, the tree underneath fjall.
//!
//! Owns: opening the tree, taking over full journal files in one atomic step, and reading by
//! revision. Records are keyed by their revision, so every take-over lies behind all tables there
//! are: tables are moved, not rewritten, and no filter is needed to find one.
//!
//! Why not all of fjall? Its own journal takes damage anywhere for the end of the log and cuts it
//! there, its threads change the catalogue at any time, so that nothing can vouch for it, and a panic
//! while it opens damaged files ends the process. The tree alone has none of this: data enters by
//! ingestion (finished table files, registered atomically), and all changes happen on the keeper's
//! thread, after which [`Tables::mark`] says exactly what the tables consist of.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_tree::compaction::Leveled;
use lsm_tree::config::{BlockSizePolicy, FilterPolicy, PinningPolicy};
use lsm_tree::{AbstractTree, AnyTree, Cache, Config, DescriptorTable, Guard, SequenceNumberCounter, Slice};
use parking_lot::Mutex;
use storage::Error;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::directory::{self, corrupt, io_error};
use crate::manifest::{TableFile, TablesMark};

/// Handles of table files kept open. A full table has [`TABLE_BYTES`], so this covers 8 GiB.
const OPEN_FILES_MAX: usize = 128;
const TABLE_BYTES: u64 = 64 << 20;
/// Larger blocks make a full read faster and the index smaller; a point read costs one block.
const BLOCK_BYTES: u32 = 16 << 10;
/// Merges after one take-over. One usually moves the new table; more follow only after removals.
const MERGES_MAX: usize = 8;

/// What [`Tables::ingest`] is filled through: a revision and its record, ascending.
pub(crate) type Add<'a> = &'a mut dyn FnMut(u64, &[u8]) -> Result<(), Error>;

pub(crate) struct Tables {
    path: PathBuf,
    tree: AnyTree,
    /// Up to which of the tree's own sequence numbers readers see. Not to be mixed up with revisions.
    visible: SequenceNumberCounter,
    open_views: OpenViews,
}

/// How many views read at which sequence number. What they see must not be merged away.
type OpenViews = Arc<Mutex<BTreeMap<u64, usize>>>;

impl Tables {
    pub(crate) fn create(path: &Path, cache_bytes: u64) -> Result<Self, Error> {
        directory::create_directory(path)?;
        Self::start(path, cache_bytes)
    }

    /// Opens existing tables after checking that they are what they were when `mark` was taken. Only
    /// a process killed right after a take-over or merge leaves a later catalogue.
    pub(crate) fn open(path: &Path, cache_bytes: u64, mark: &TablesMark) -> Result<Self, Error> {
        let current = path.join(CURRENT);
        let pointer = Pointer::read(path)?;
        if pointer.catalogue < mark.catalogue {
            return Err(corrupt(&current, "the file is older than the manifest"));
        }
        if pointer.catalogue == mark.catalogue {
            if pointer.checksum != mark.pointer_checksum {
                return Err(corrupt(&current, "the checksum does not match"));
            }
            pointer.check_catalogue(path)?;
            expect_files(path, &mark.files)?;
        } else if pointer.check_catalogue(path).is_err() {
            return Err(corrupt(&current, format!("it does not fit catalogue {}", pointer.catalogue)));
        }
        Self::start(path, cache_bytes).map_err(|error| locate_damage(path, &mark.files, error))
    }

    fn start(path: &Path, cache_bytes: u64) -> Result<Self, Error> {
        let (next, visible) = (SequenceNumberCounter::default(), SequenceNumberCounter::default());
        let tree = guarded(path, || config(path, cache_bytes, &next, &visible).open())?;
        next.fetch_max(tree.get_highest_seqno().map_or(1, |highest| highest + 1));
        visible.set(next.get());
        let tables = Self { path: path.to_owned(), tree, visible, open_views: OpenViews::default() };
        tables.restrict();
        Ok(tables)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes on disk.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.tree.disk_space()
    }

    /// What the tables consist of now. Only whoever changes them may ask.
    pub(crate) fn mark(&self) -> Result<TablesMark, Error> {
        let pointer = Pointer::read(&self.path)?;
        let files = self.files()?;
        Ok(TablesMark { catalogue: pointer.catalogue, pointer_checksum: pointer.checksum, files })
    }

    fn files(&self) -> Result<Vec<TableFile>, Error> {
        let mut files = Vec::new();
        for table in self.tree.current_version().iter_tables() {
            let length = table.path.metadata().map_err(io_error("inspect", &table.path))?.len();
            files.push(TableFile { id: table.id(), length, checksum: table.checksum().into_u128() });
        }
        files.sort_unstable_by_key(|file| file.id);
        Ok(files)
    }

    /// The highest revision held.
    pub(crate) fn last_revision(&self) -> Result<Option<u64>, Error> {
        let last = guarded(&self.path, || {
            self.tree.last_key_value(self.visible.get(), None).map(Guard::key).transpose()
        });
        let last = last.map_err(|error| self.locate_damage(error))?;
        last.map(|key| revision_of(&self.path, &key)).transpose()
    }

    /// What is there now, unaffected by later take-overs and removals.
    pub(crate) fn view(&self) -> TablesView {
        let mut open = self.open_views.lock();
        let seqno = self.visible.get();
        *open.entry(seqno).or_default() += 1;
        drop(open);
        let pin = Pin { seqno, open_views: Arc::clone(&self.open_views) };
        TablesView { path: self.path.clone(), tree: self.tree.clone(), pin }
    }

    /// Removes and adds records in one atomic and durable step. Revisions must ascend over both.
    pub(crate) fn ingest(
        &self,
        removed: impl IntoIterator<Item = u64>,
        add: impl FnOnce(Add<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.cleaning_up(|| {
            let mut ingestion = guarded(&self.path, || self.tree.ingestion())?;
            for revision in removed {
                guarded(&self.path, || ingestion.write_tombstone(revision.to_be_bytes()))?;
            }
            add(&mut |revision, raw| guarded(&self.path, || ingestion.write(revision.to_be_bytes(), raw)))?;
            guarded(&self.path, || ingestion.finish())
        })
    }

    /// Moves and merges tables where that pays, which is what finally frees removed records.
    pub(crate) fn merge(&self) -> Result<(), Error> {
        let strategy = Arc::new(Leveled::default().with_table_target_size(TABLE_BYTES));
        self.cleaning_up(|| {
            for _ in 0..MERGES_MAX {
                let before = self.tree.current_version().id();
                let unread_before = self.unread_before();
                guarded(&self.path, || self.tree.compact(Arc::clone(&strategy) as _, unread_before))?;
                if self.tree.current_version().id() == before {
                    break;
                }
            }
            Ok(())
        })
    }

    /// The sequence number before which nobody reads.
    fn unread_before(&self) -> u64 {
        let open = self.open_views.lock();
        let oldest = open.keys().next().copied().unwrap_or_else(|| self.visible.get());
        oldest.saturating_sub(1)
    }

    /// Runs a change of the tables; if it fails, deletes the files it began, so that trying again on a
    /// full disk does not fill it further.
    fn cleaning_up(&self, change: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        let before = self.file_names();
        let outcome = change();
        // If even registering failed half-way, the disk may know files that memory does not.
        let is_settled =
            || Pointer::read(&self.path).is_ok_and(|p| p.catalogue == self.tree.current_version().id());
        if outcome.is_err() && is_settled() {
            let registered: HashSet<OsString> = self
                .tree
                .current_version()
                .iter_tables()
                .filter_map(|table| table.path.file_name().map(OsString::from))
                .collect();
            for name in self.file_names().difference(&before).filter(|name| !registered.contains(*name)) {
                let _ = fs::remove_file(self.path.join(TABLES).join(name));
            }
        }
        self.restrict();
        outcome
    }

    fn file_names(&self) -> HashSet<OsString> {
        let entries = fs::read_dir(self.path.join(TABLES));
        entries.into_iter().flatten().flatten().map(|entry| entry.file_name()).collect()
    }

    /// The tree creates files with default modes; the directory above is private, and so are they then.
    fn restrict(&self) {
        if let Err(error) = directory::restrict(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "Left file modes as they are");
        }
    }

    /// Makes an error about damage name the table file that is not as it was written, if there is one.
    pub(crate) fn locate_damage(&self, error: Error) -> Error {
        match self.files() {
            Ok(files) => locate_damage(&self.path, &files, error),
            Err(_) => error,
        }
    }
}

/// The tables at one moment.
pub(crate) struct TablesView {
    path: PathBuf,
    tree: AnyTree,
    pin: Pin,
}

/// Keeps what a view sees from being merged away.
struct Pin {
    seqno: u64,
    open_views: OpenViews,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut open = self.open_views.lock();
        if let Some(count) = open.get_mut(&self.seqno) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.seqno);
            }
        }
    }
}

impl TablesView {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn get(&self, revision: u64) -> Result<Option<Slice>, Error> {
        guarded(&self.path, || self.tree.get(revision.to_be_bytes(), self.pin.seqno))
    }

    /// All records with revisions in the range, ascending.
    pub(crate) fn range(
        &self,
        revisions: RangeInclusive<u64>,
    ) -> Result<impl Iterator<Item = Result<(u64, Slice), Error>>, Error> {
        let (first, last) = revisions.into_inner();
        let bounds = first.to_be_bytes()..=last.to_be_bytes();
        let mut found = guarded(&self.path, || Ok(self.tree.range(bounds, self.pin.seqno, None)))?;
        Ok(std::iter::from_fn(move || {
            let next = guarded(&self.path, || found.next().map(Guard::into_inner).transpose());
            let pair = next.transpose()?;
            Some(pair.and_then(|(key, value)| Ok((revision_of(&self.path, &key)?, value))))
        }))
    }
}

fn config(
    path: &Path,
    cache_bytes: u64,
    next: &SequenceNumberCounter,
    visible: &SequenceNumberCounter,
) -> Config {
    Config::new(path, next.clone(), visible.clone())
        .use_cache(Arc::new(Cache::with_capacity_bytes(cache_bytes)))
        .use_descriptor_table(Some(Arc::new(DescriptorTable::new(OPEN_FILES_MAX))))
        .data_block_size_policy(BlockSizePolicy::all(BLOCK_BYTES))
        // A revision lies in exactly one table's range: a filter would never say no.
        .filter_policy(FilterPolicy::disabled())
        .expect_point_read_hits(true)
        .index_block_pinning_policy(PinningPolicy::disabled())
        .filter_block_pinning_policy(PinningPolicy::disabled())
}

fn revision_of(path: &Path, key: &[u8]) -> Result<u64, Error> {
    let key = key.try_into().map_err(|_| corrupt(path, "a table holds a key that is not a revision"))?;
    Ok(u64::from_be_bytes(key))
}

// === the tree's files ===

/// Names the catalogue in use.
const CURRENT: &str = "current";
/// The folder of table files, each named by its number.
const TABLES: &str = "tables";

/// The content of [`CURRENT`]: the number of the catalogue and its checksum.
struct Pointer {
    catalogue: u64,
    catalogue_checksum: u128,
    /// Of the file itself.
    checksum: u64,
}

impl Pointer {
    fn read(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(CURRENT);
        let bytes = read_existing(&path)?;
        let cut_short = || corrupt(&path, "the file is cut short");
        let (number, rest) = bytes.split_first_chunk().ok_or_else(cut_short)?;
        let catalogue_checksum = rest.first_chunk().ok_or_else(cut_short)?;
        Ok(Self {
            catalogue: u64::from_le_bytes(*number),
            catalogue_checksum: u128::from_le_bytes(*catalogue_checksum),
            checksum: xxh3_64(&bytes),
        })
    }

    /// Checks the list of tables that it names.
    fn check_catalogue(&self, folder: &Path) -> Result<(), Error> {
        let path = folder.join(format!("v{}", self.catalogue));
        if xxh3_128(&read_existing(&path)?) == self.catalogue_checksum {
            return Ok(());
        }
        Err(corrupt(&path, "the checksum does not match"))
    }
}

fn read_existing(path: &Path) -> Result<Vec<u8>, Error> {
    match fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(corrupt(path, "the file is missing"))
        }
        other => other.map_err(io_error("read", path)),
    }
}

fn expect_files(folder: &Path, files: &[TableFile]) -> Result<(), Error> {
    for file in files {
        let path = folder.join(TABLES).join(file.id.to_string());
        match fs::metadata(&path) {
            Ok(metadata) if metadata.len() == file.length => {}
            Ok(metadata) => {
                let reason = format!("the file has {} bytes, written were {}", metadata.len(), file.length);
                return Err(corrupt(&path, reason));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(corrupt(&path, "the file is missing"));
            }
            Err(error) => return Err(io_error("inspect", &path)(error)),
        }
    }
    Ok(())
}

/// The tree does not say which file it found damaged, so this looks for one.
fn locate_damage(folder: &Path, files: &[TableFile], error: Error) -> Error {
    let Error::Corrupt { path, reason } = &error else { return error };
    if path != folder {
        return error;
    }
    for file in files {
        let path = folder.join(TABLES).join(file.id.to_string());
        let found = fs::read(&path).map(|bytes| xxh3_128(&bytes));
        if found.ok() != Some(file.checksum) {
            return corrupt(&path, format!("the file is not as it was written ({reason})"));
        }
    }
    error
}

/// Runs a call into the tree; a panic in it is damage it did not expect.
fn guarded<T>(path: &Path, call: impl FnOnce() -> lsm_tree::Result<T>) -> Result<T, Error> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(lsm_tree::Error::Io(error))) => Err(from_io(path, error)),
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
