//! Where records are, and reading them by revision.
//!
//! Owns: putting journal and tables together into one sequence of records, or holding the sequence in
//! memory. A [`View`] is that sequence at one moment: taken while the index is locked, it can serve
//! everything that index names, however the journal moves on afterwards.

use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdMap;
use parking_lot::{Mutex, RwLock};
use storage::Error;

use crate::directory::corrupt;
use crate::journal::{Appender, Journal, Segments};
use crate::record::{self, Record};
use crate::segment::Frame;
use crate::tables::{Tables, TablesView};

/// The records of one store.
pub(crate) enum Log {
    Disk(DiskLog),
    Memory(MemoryLog),
}

pub(crate) struct DiskLog {
    pub journal: Journal,
    /// Gone once the store is closed.
    pub tables: RwLock<Option<Arc<Tables>>>,
}

/// Keeps encoded records, so that tests in memory run the same code as a store on disk.
#[derive(Default)]
pub(crate) struct MemoryLog {
    records: Mutex<OrdMap<u64, Bytes>>,
}

impl Log {
    /// Writes a frame; see [`Appender::append`].
    pub(crate) fn append(&self, appender: &mut Option<Appender>, frame: &mut Frame) -> Result<(), Error> {
        match (self, appender) {
            (Self::Disk(disk), Some(appender)) => appender.append(&disk.journal, frame),
            (Self::Memory(memory), _) => {
                let mut records = memory.records.lock();
                for (revision, raw) in frame.records() {
                    records.insert(revision, Bytes::copy_from_slice(raw));
                }
                Ok(())
            }
            (Self::Disk(_), None) => Err(Error::Closed),
        }
    }

    /// What there is now. Take it while holding the index.
    pub(crate) fn view(&self) -> Result<View, Error> {
        match self {
            Self::Memory(memory) => Ok(View::Memory(memory.records.lock().clone())),
            Self::Disk(disk) => {
                // The journal first: what moves to the tables in between is then seen in both.
                let segments = disk.journal.segments();
                let tables = disk.tables.read();
                let tables = tables.as_ref().ok_or(Error::Closed)?.view();
                Ok(View::Disk { segments, tables })
            }
        }
    }

    /// A view for reading one revision, without the cost of a full one if the journal has it.
    pub(crate) fn view_of(&self, revision: u64) -> Result<View, Error> {
        if let Self::Disk(disk) = self
            && let Some(segment) = Journal::find(&disk.journal.segments(), revision)
        {
            return Ok(View::Journal(Arc::new([Arc::clone(segment)])));
        }
        self.view()
    }

    /// Says how big the store is. Called when a file was added or removed.
    pub(crate) fn measure(&self) {
        let Self::Disk(disk) = self else { return };
        let tables = disk.tables.read().as_ref().map_or(0, |tables| tables.disk_bytes());
        telemetry::metrics().storage.size_bytes.set((disk.journal.disk_bytes() + tables) as i64);
    }

    /// Forgets records in memory; on disk that is the tables' take-over.
    pub(crate) fn forget(&self, revisions: &[u64]) {
        if let Self::Memory(memory) = self {
            let mut records = memory.records.lock();
            for revision in revisions {
                records.remove(revision);
            }
        }
    }
}

/// Records at one moment.
pub(crate) enum View {
    Disk { segments: Segments, tables: TablesView },
    Journal(Segments),
    Memory(OrdMap<u64, Bytes>),
}

/// How the wanted revisions lie among all there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spread {
    /// Most of a stretch: read it all in order and skip a few.
    Dense,
    /// A few here and there: look each one up.
    Sparse,
}

impl View {
    /// Reads one record.
    pub(crate) fn read<T>(&self, revision: u64, visit: impl FnOnce(Record<'_>) -> T) -> Result<T, Error> {
        match self {
            Self::Memory(records) => {
                let raw = records.get(&revision).ok_or_else(|| self.missing(revision))?;
                self.decode(revision, raw).map(visit)
            }
            Self::Journal(segments) | Self::Disk { segments, .. } => {
                if let Some(segment) = Journal::find(segments, revision) {
                    return segment.read(revision, &mut Vec::new(), visit);
                }
                let Self::Disk { tables, .. } = self else { return Err(self.missing(revision)) };
                let raw = tables.get(revision)?.ok_or_else(|| self.missing(revision))?;
                self.decode(revision, &raw).map(visit)
            }
        }
    }

    /// Reads the records of `wanted`, whose revisions ascend, in that order.
    pub(crate) fn each<W>(
        &self,
        wanted: &[W],
        revision_of: impl Fn(&W) -> u64,
        spread: Spread,
        mut visit: impl FnMut(&W, Record<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let rest = match (self, spread) {
            (Self::Disk { segments, tables }, Spread::Dense) => {
                let journal_from = segments.first().map_or(u64::MAX, |segment| segment.first);
                let split = wanted.partition_point(|w| revision_of(w) < journal_from);
                let (old, recent) = wanted.split_at(split);
                self.sweep(tables, old, &revision_of, &mut visit)?;
                recent
            }
            _ => wanted,
        };
        let mut buffer = Vec::new();
        for item in rest {
            let revision = revision_of(item);
            match self.segment_with(revision) {
                Some(segment) => segment.read(revision, &mut buffer, |record| visit(item, record))??,
                None => self.read(revision, |record| visit(item, record))??,
            }
        }
        Ok(())
    }

    fn segment_with(&self, revision: u64) -> Option<&Arc<crate::segment::Segment>> {
        match self {
            Self::Disk { segments, .. } | Self::Journal(segments) => Journal::find(segments, revision),
            Self::Memory(_) => None,
        }
    }

    /// Reads a stretch of the tables in order, visiting what is wanted.
    fn sweep<W>(
        &self,
        tables: &TablesView,
        wanted: &[W],
        revision_of: &impl Fn(&W) -> u64,
        visit: &mut impl FnMut(&W, Record<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (Some(first), Some(last)) = (wanted.first(), wanted.last()) else { return Ok(()) };
        let mut found = tables.range(revision_of(first)..=revision_of(last))?;
        for item in wanted {
            let revision = revision_of(item);
            let raw = loop {
                match found.next().transpose()? {
                    Some((at, raw)) if at == revision => break raw,
                    Some((at, _)) if at < revision => {}
                    _ => return Err(self.missing(revision)),
                }
            };
            visit(item, self.decode(revision, &raw)?)?;
        }
        Ok(())
    }

    /// Reads a stretch of history without gaps.
    pub(crate) fn stretch(
        &self,
        revisions: RangeInclusive<u64>,
        mut visit: impl FnMut(Record<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let wanted: Vec<u64> = revisions.collect();
        self.each(&wanted, |revision| *revision, Spread::Dense, |_, record| visit(record))
    }

    fn decode<'a>(&self, revision: u64, raw: &'a [u8]) -> Result<Record<'a>, Error> {
        record::decode(revision, raw).map_err(|reason| self.damaged(format!("revision {revision}: {reason}")))
    }

    fn missing(&self, revision: u64) -> Error {
        self.damaged(format!("revision {revision} is missing"))
    }

    fn damaged(&self, reason: String) -> Error {
        match self {
            Self::Disk { tables, .. } => corrupt(tables.path(), reason),
            Self::Journal(segments) => corrupt(segments.first().map_or("".as_ref(), |s| &*s.path), reason),
            Self::Memory(_) => corrupt("(memory)".as_ref(), reason),
        }
    }
}
