//! Housekeeping, on its own thread: full journal files go to the tables, old history goes away.
//!
//! Owns: the manifest, the garbage not yet removed from the tables, and the timer of compaction.
//! Committing goes on meanwhile; only if [`FULL_FILES_MAX`] files wait does the writer wait too.
//!
//! A take-over is one atomic step of the tables: garbage out, new records in. The manifest is written
//! before it (garbage is only removed once it is on record that its history is gone) and after it
//! (journal files are only removed once it is on record that the tables have them). A crash in
//! between leaves records in both places, which reading the tables at start-up makes good.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use storage::{Error, Revision};
use tokio::sync::oneshot;

use crate::log::{DiskLog, Log};
use crate::manifest::{Manifest, TablesMark};
use crate::segment::Segment;
use crate::shared::Shared;
use crate::tables::{Add, Tables};

/// How many full journal files may wait for the tables before commits wait.
const FULL_FILES_MAX: usize = 8;

/// Removing garbage on its own, without a full journal file, is worth a table from here on.
const GARBAGE_MAX: usize = 16_384;

/// Steps of history dropped in one go while the index is locked: well below a millisecond.
const COMPACTION_STEPS: usize = 512;

/// What other threads ask of the keeper.
#[derive(Default)]
pub(crate) struct Keeper {
    requests: Mutex<Requests>,
    requested: Condvar,
    /// Signalled after each take-over, whatever became of it.
    took_over: Condvar,
}

#[derive(Default)]
struct Requests {
    take_over: bool,
    trim: bool,
    compact: Vec<(u64, oneshot::Sender<Result<(), Error>>)>,
    stop: bool,
    /// What became of the last take-over.
    failure: Option<Error>,
}

impl Keeper {
    /// Asks for full files to be taken over.
    pub(crate) fn take_over(&self) {
        self.requests.lock().take_over = true;
        self.requested.notify_one();
    }

    /// Asks for history to be cut to half its bound.
    pub(crate) fn trim(&self) {
        let mut requests = self.requests.lock();
        if !requests.trim {
            requests.trim = true;
            self.requested.notify_one();
        }
    }

    /// Compacts at a revision that was checked to be in range.
    pub(crate) async fn compact(&self, at: u64) -> Result<(), Error> {
        let (answer, answered) = oneshot::channel();
        {
            let mut requests = self.requests.lock();
            if requests.stop {
                return Err(Error::Closed);
            }
            requests.compact.push((at, answer));
        }
        self.requested.notify_one();
        answered.await.unwrap_or(Err(Error::Closed))
    }

    pub(crate) fn stop(&self) {
        self.requests.lock().stop = true;
        self.requested.notify_one();
        self.took_over.notify_all();
    }

    /// Holds the writer back while too many full files wait for the tables.
    ///
    /// # Errors
    /// Why they cannot be taken over; asking again tries again.
    pub(crate) fn wait_for_room(&self, shared: &Shared) -> Result<(), Error> {
        let Log::Disk(disk) = &shared.log else { return Ok(()) };
        if disk.journal.segments().len() <= FULL_FILES_MAX {
            return Ok(());
        }
        let mut requests = self.requests.lock();
        requests.failure = None;
        while disk.journal.sealed().len() >= FULL_FILES_MAX {
            if let Some(error) = requests.failure.take() {
                return Err(error);
            }
            if requests.stop {
                return Err(Error::Closed);
            }
            telemetry::metrics().storage.write_stalls.inc();
            requests.take_over = true;
            self.requested.notify_one();
            self.took_over.wait(&mut requests);
        }
        Ok(())
    }
}

/// The thread's own state.
pub(crate) struct Housekeeping {
    shared: Arc<Shared>,
    manifest_path: PathBuf,
    /// As last written.
    manifest: Manifest,
    /// Everything up to here is in the tables. May be ahead of the manifest, if that could not be
    /// written.
    ingested: u64,
    /// Revisions nobody can read any more that are still in the tables or in the journal.
    garbage: BTreeSet<u64>,
    /// Journal files whose records are in the tables, to be removed once the manifest says so.
    retired: Vec<Arc<Segment>>,
    /// The current revision one compaction interval ago.
    marked: u64,
    next_compaction: Instant,
}

/// What start-up found out, for housekeeping to go on from.
#[derive(Default)]
pub(crate) struct Inheritance {
    pub manifest_path: PathBuf,
    pub manifest: Manifest,
    pub ingested: u64,
    pub garbage: Vec<u64>,
}

impl Housekeeping {
    pub(crate) fn new(shared: Arc<Shared>, inheritance: Inheritance) -> Self {
        let Inheritance { manifest_path, manifest, ingested, garbage } = inheritance;
        let marked = shared.index.read().current();
        let next_compaction = rt::instant().into_std() + shared.options.compaction_interval;
        let garbage = garbage.into_iter().collect();
        let retired = Vec::new();
        Self { shared, manifest_path, manifest, ingested, garbage, retired, marked, next_compaction }
    }

    pub(crate) fn run(mut self) {
        telemetry::metrics().storage.revision.set(self.marked as i64);
        self.shared.log.measure();
        loop {
            let requests = self.wait();
            for (at, answer) in requests.compact {
                let _ = answer.send(self.compact(at));
            }
            if requests.stop {
                return;
            }
            if requests.trim {
                self.trim();
            }
            if rt::instant().into_std() >= self.next_compaction {
                self.compact_old();
            }
            if requests.take_over || self.garbage.len() > GARBAGE_MAX {
                self.take_over();
            }
        }
    }

    /// Waits for a request or the next compaction, and takes what was requested.
    fn wait(&self) -> Requests {
        let keeper = &self.shared.keeper;
        let mut requests = keeper.requests.lock();
        let idle = |r: &Requests| !(r.take_over || r.trim || r.stop) && r.compact.is_empty();
        while idle(&requests) {
            if keeper.requested.wait_until(&mut requests, self.next_compaction).timed_out() {
                break;
            }
        }
        Requests {
            take_over: std::mem::take(&mut requests.take_over),
            trim: std::mem::take(&mut requests.trim),
            compact: std::mem::take(&mut requests.compact),
            stop: requests.stop,
            failure: None,
        }
    }

    /// Compacts at where the store was one interval ago, so that between one and two intervals of
    /// history are kept, as kube-apiserver does with etcd.
    fn compact_old(&mut self) {
        self.next_compaction = rt::instant().into_std() + self.shared.options.compaction_interval;
        let current = self.shared.index.read().current();
        let at = std::mem::replace(&mut self.marked, current);
        self.compact_quietly(at);
    }

    /// Cuts history to half its bound, so that a storm of updates does not end in a storm of trims.
    fn trim(&mut self) {
        let point = self.shared.index.read().trim_point(self.shared.options.history_max / 2);
        if let Some(at) = point {
            tracing::info!(revision = at, "Compacted early, because history grew beyond its bound");
            self.compact_quietly(at);
        }
    }

    fn compact_quietly(&mut self, at: u64) {
        if let Err(error) = self.compact(at) {
            tracing::warn!(%error, revision = at, "Left the manifest behind compaction");
        }
    }

    fn compact(&mut self, at: u64) -> Result<(), Error> {
        if at <= self.shared.index.read().compacted() {
            return Ok(());
        }
        let mut garbage = Vec::new();
        while !self.shared.index.write().compact(at, COMPACTION_STEPS, &mut garbage) {}
        self.shared.log.forget(&garbage);
        if let Log::Disk(_) = &self.shared.log {
            self.garbage.extend(garbage);
            return self.write_manifest(self.manifest.tables.clone());
        }
        Ok(())
    }

    /// Puts on record how far everything is.
    fn write_manifest(&mut self, tables: TablesMark) -> Result<(), Error> {
        let manifest = {
            let index = self.shared.index.read();
            let (compacted, live) = (index.compacted(), index.live_at_compacted());
            Manifest { compacted, ingested: self.ingested, live, tables }
        };
        if manifest != self.manifest {
            if let Log::Disk(disk) = &self.shared.log {
                // Relaxed writes may be among what was compacted, and a power cut must not take back
                // what the manifest adds up.
                disk.journal.sync()?;
            }
            manifest.write(&self.manifest_path)?;
            self.manifest = manifest;
        }
        Ok(())
    }

    fn take_over(&mut self) {
        let shared = Arc::clone(&self.shared);
        let Log::Disk(disk) = &shared.log else { return };
        let outcome = self.try_take_over(disk);
        if let Err(error) = &outcome {
            tracing::warn!(%error, "Left full journal files for later");
        }
        shared.log.measure();
        let mut requests = shared.keeper.requests.lock();
        requests.failure = outcome.err();
        drop(requests);
        shared.keeper.took_over.notify_all();
    }

    fn try_take_over(&mut self, disk: &DiskLog) -> Result<(), Error> {
        let Some(tables) = disk.tables.read().clone() else { return Err(Error::Closed) };
        let full = disk.journal.sealed();
        let after = self.ingested;
        let ingested = full.last().map_or(after, |segment| segment.end() - 1).max(after);
        if !full.is_empty() || self.garbage.range(..=ingested).next().is_some() {
            self.write_manifest(self.manifest.tables.clone())?;
            let removed = self.garbage.range(..=after).copied();
            tables.ingest(removed, |add| self.add_all(&full, after, add))?;
            // From here on the tables have it, whatever goes wrong below.
            self.ingested = ingested;
            self.garbage = self.garbage.split_off(&(ingested + 1));
            disk.journal.forget(&full);
            self.retired.extend(full);
        }
        self.settle(disk, &tables)?;
        tables.merge()?;
        self.settle(disk, &tables)
    }

    /// Puts on record what the tables are now, and then removes journal files they replace.
    fn settle(&mut self, disk: &DiskLog, tables: &Tables) -> Result<(), Error> {
        self.write_manifest(tables.mark()?)?;
        disk.journal.remove(&mut self.retired)
    }

    /// Hands everything that can still be read to the tables.
    fn add_all(&self, full: &[Arc<Segment>], after: u64, add: Add<'_>) -> Result<(), Error> {
        let mut buffer = Vec::new();
        for segment in full {
            for revision in segment.revisions().filter(|revision| *revision > after) {
                if !self.garbage.contains(&revision) {
                    segment.read(revision, &mut buffer, |record| add(revision, record.raw))??;
                }
            }
        }
        Ok(())
    }
}

/// What [`crate::Store::compact`] checks before it asks the keeper.
pub(crate) fn check_compaction(at: Revision, compacted: u64, current: u64) -> Result<(), Error> {
    if at.0 < compacted {
        return Err(Error::Compacted { requested: at, oldest: Revision(compacted) });
    }
    if at.0 > current {
        return Err(Error::FutureRevision { requested: at, current: Revision(current) });
    }
    Ok(())
}
