//! Opening a store: setting up a new one, or reading everything again and checking that it adds up.
//!
//! All tables are read in full, which fills the index and verifies every checksum. Then the journal
//! is replayed. Along the way the records have to form an unbroken sequence from the last compaction
//! on, and what was live at that compaction has to have the sum the manifest says.

use std::path::Path;
use std::sync::Arc;

use parking_lot::RwLock;
use storage::Error;

use crate::Options;
use crate::directory::{Directory, Found, corrupt};
use crate::index::Index;
use crate::journal::{Appender, Journal};
use crate::keeper::Inheritance;
use crate::log::{DiskLog, Log, MemoryLog};
use crate::manifest::{LiveSum, Manifest};
use crate::record::{self, Record};
use crate::shared::{EngineOptions, Shared};
use crate::store::EmbeddedStore;
use crate::tables::Tables;

/// Offsets in journal files have four bytes, and one more frame may follow a full file.
const JOURNAL_FILE_BYTES_MAX: u64 = 1 << 30;
/// The header block and a little more.
const JOURNAL_FILE_BYTES_MIN: u64 = 8 << 10;

/// Opens the store in a directory, creating it if the directory is missing or empty.
///
/// Reads all of it, at the speed of the disk or of the page cache; blocks meanwhile.
///
/// # Errors
/// [`Error::InUse`] if another store has it open, [`Error::Format`] if the directory holds something
/// else, [`Error::Corrupt`] naming what is damaged, [`Error::Full`] and [`Error::Io`].
pub fn open(path: &Path, options: Options) -> Result<EmbeddedStore, Error> {
    let options = limit(options);
    match Directory::open(path)? {
        Found::Empty(directory) => create(directory, options),
        Found::Store(directory) => recover(directory, options),
    }
}

/// A store that keeps everything in memory and forgets it when dropped. For tests of what is above:
/// the same code as on disk, but for the files.
///
/// # Panics
/// If the operating system has no thread left.
#[must_use]
pub fn memory() -> EmbeddedStore {
    let options = EngineOptions { path: "(memory)".into(), options: Options::default() };
    let shared = Shared::new(options, Index::new(0), Log::Memory(MemoryLog::default()));
    EmbeddedStore::start(shared, None, None, Inheritance::default()).expect("a test can start two threads")
}

pub(crate) fn limit(mut options: Options) -> Options {
    options.journal_file_bytes =
        options.journal_file_bytes.clamp(JOURNAL_FILE_BYTES_MIN, JOURNAL_FILE_BYTES_MAX);
    options
}

fn create(directory: Directory, options: Options) -> Result<EmbeddedStore, Error> {
    let (log, appender, manifest) = set_up(&directory, &options, Manifest::default(), |_| Ok(()))?;
    let inheritance = Inheritance { manifest, ..Inheritance::default() };
    start(directory, options, Index::new(0), (log, appender), inheritance)
}

/// Lays out a store in an empty directory, with the records that `fill` adds to its tables.
pub(crate) fn set_up(
    directory: &Directory,
    options: &Options,
    manifest: Manifest,
    fill: impl FnOnce(&Tables) -> Result<(), Error>,
) -> Result<(DiskLog, Appender, Manifest), Error> {
    directory.begin()?;
    let tables = Tables::create(&directory.tables(), options.block_cache_bytes)?;
    fill(&tables)?;
    let manifest = Manifest { tables: tables.mark()?, ..manifest };
    let (journal, appender) = Journal::create(
        &directory.journal(),
        &directory.durable(),
        options.journal_file_bytes,
        manifest.ingested,
    )?;
    manifest.write(&directory.manifest())?;
    directory.finish()?;
    Ok((DiskLog { journal, tables: RwLock::new(Some(Arc::new(tables))) }, appender, manifest))
}

fn recover(directory: Directory, options: Options) -> Result<EmbeddedStore, Error> {
    let manifest = Manifest::read(&directory.manifest())?;
    let tables = Tables::open(&directory.tables(), options.block_cache_bytes, &manifest.tables)?;
    // A take-over that was cut off before the manifest was written again is complete all the same.
    let ingested = manifest.ingested.max(tables.last_revision()?.unwrap_or(0));

    let mut loader = Loader::new(&manifest, &directory);
    load_tables(&tables, &mut loader, ingested).map_err(|error| tables.locate_damage(error))?;
    let (journal, appender) = Journal::recover(
        &directory.journal(),
        &directory.durable(),
        options.journal_file_bytes,
        ingested,
        |record| loader.load(record),
    )?;
    let (index, garbage) = loader.finish()?;
    let log = DiskLog { journal, tables: RwLock::new(Some(Arc::new(tables))) };
    let inheritance = Inheritance { manifest, ingested, garbage, ..Inheritance::default() };
    start(directory, options, index, (log, appender), inheritance)
}

fn load_tables(tables: &Tables, loader: &mut Loader<'_>, ingested: u64) -> Result<(), Error> {
    for item in tables.view().range(0..=u64::MAX)? {
        let (revision, raw) = item?;
        let record = record::decode(revision, &raw)
            .map_err(|reason| corrupt(tables.path(), format!("revision {revision}: {reason}")))?;
        loader.load(record)?;
    }
    loader.tables_end(ingested)
}

fn start(
    directory: Directory,
    options: Options,
    index: Index,
    (log, appender): (DiskLog, Appender),
    inheritance: Inheritance,
) -> Result<EmbeddedStore, Error> {
    let manifest_path = directory.manifest();
    let options = EngineOptions { path: directory.path().to_owned(), options };
    // Also puts on record what a take-over left that was cut off before it could.
    let is_settled = inheritance.manifest.ingested == inheritance.ingested;
    let take_over = !is_settled || has_much_to_take_over(&log.journal);
    let shared = Shared::new(options, index, Log::Disk(log));
    if take_over {
        shared.keeper.take_over();
    }
    let inheritance = Inheritance { manifest_path, ..inheritance };
    EmbeddedStore::start(shared, Some(appender), Some(directory), inheritance)
}

/// Whether what earlier runs left in the journal is worth a table now. Short runs leave short files,
/// which wait until there is more.
fn has_much_to_take_over(journal: &Journal) -> bool {
    const FILES: usize = 4;
    const BYTES: u64 = 8 << 20;
    let sealed = journal.sealed();
    sealed.len() >= FILES || sealed.iter().map(|segment| segment.size()).sum::<u64>() >= BYTES
}

/// Fills an index from records in order and checks that they add up.
struct Loader<'a> {
    index: Index,
    compacted: u64,
    expected: LiveSum,
    is_checked: bool,
    directory: &'a Directory,
}

impl<'a> Loader<'a> {
    fn new(manifest: &Manifest, directory: &'a Directory) -> Self {
        Self {
            index: Index::new(manifest.compacted),
            compacted: manifest.compacted,
            expected: manifest.live,
            is_checked: false,
            directory,
        }
    }

    fn load(&mut self, record: Record<'_>) -> Result<(), Error> {
        if record.revision > self.compacted {
            self.check_live()?;
        }
        self.index
            .load(record.revision, record.kind, record.key, record.created)
            .map_err(|reason| corrupt(&self.directory.tables(), reason))
    }

    /// After the tables: nothing between the compaction and their end may be missing.
    fn tables_end(&mut self, ingested: u64) -> Result<(), Error> {
        if ingested <= self.compacted {
            return Ok(());
        }
        self.check_live()?;
        let current = self.index.current().max(self.compacted);
        if current < ingested {
            let reason = format!("revisions {} to {ingested} are missing", current + 1);
            return Err(corrupt(&self.directory.tables(), reason));
        }
        Ok(())
    }

    /// Once everything up to the compaction is loaded: compares what is live with the manifest.
    fn check_live(&mut self) -> Result<(), Error> {
        if self.is_checked {
            return Ok(());
        }
        self.is_checked = true;
        let found = self.index.sum_live();
        if found == self.expected {
            return Ok(());
        }
        Err(corrupt(
            &self.directory.tables(),
            format!(
                "{} versions were live at revision {}, but {} other ones are found",
                self.expected.count, self.compacted, found.count
            ),
        ))
    }

    fn finish(mut self) -> Result<(Index, Vec<u64>), Error> {
        self.check_live()?;
        let garbage = self.index.finish_loading(self.expected);
        Ok((self.index, garbage))
    }
}
