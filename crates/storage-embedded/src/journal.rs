//! Recent writes, in a chain of files ([`crate::segment`]): appended and synced by the writer, read
//! by revision, and handed to the tables when a file is full.
//!
//! Owns: the chain, starting the next file, recycling files whose records are in the tables, and the
//! judgement after a restart whether the end of the journal was torn by a crash or is damaged.
//!
//! Why not fjall's own journal? It takes an unreadable byte anywhere for the end and cuts the file
//! there, which loses acknowledged writes without a word; it locks writers out while it flushes; and
//! its files grow as they are written, which makes each sync write file-system metadata too.
//!
//! **Invariant (torn-or-damaged):** whatever was acknowledged as synced is found again or the start
//! fails. A journal may end in a torn frame only if nothing says that the frame was ever complete:
//! neither a later file, nor a later frame that was written when this one was already durable, nor
//! the `durable` mark.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use storage::Error;

use crate::directory::{self, corrupt, io_error};
use crate::manifest::DurableMark;
use crate::record::Record;
use crate::segment::{self, Frame, Segment};

const SUFFIX: &str = "journal";
/// One emptied file is kept for reuse: overwriting blocks that exist makes a sync cheaper.
const SPARE: &str = "spare";

pub(crate) type Segments = Arc<[Arc<Segment>]>;

/// The chain of journal files. Readers and housekeeping share it; see [`Appender`] for writing.
pub(crate) struct Journal {
    folder: PathBuf,
    segment_bytes: u64,
    segments: RwLock<Segments>,
    spare: Mutex<bool>,
    mark: DurableMark,
}

/// The writer's end of the journal.
pub(crate) struct Appender {
    active: Option<Active>,
    /// The highest revision known to be durable.
    durable: u64,
    /// The highest revision written.
    written: u64,
    next_number: u64,
}

struct Active {
    segment: Arc<Segment>,
    position: u64,
}

impl Journal {
    pub(crate) fn create(
        folder: &Path,
        mark: &Path,
        segment_bytes: u64,
        revision: u64,
    ) -> Result<(Self, Appender), Error> {
        directory::create_directory(folder)?;
        let journal = Self {
            folder: folder.to_owned(),
            segment_bytes,
            segments: RwLock::new(Arc::new([])),
            spare: Mutex::new(false),
            mark: DurableMark::create(mark, revision)?,
        };
        let appender = Appender { active: None, durable: revision, written: revision, next_number: 1 };
        Ok((journal, appender))
    }

    /// Reads everything after `ingested` again, in order.
    ///
    /// # Errors
    /// [`Error::Corrupt`] naming the file if anything acknowledged is unreadable; what `visit` says.
    pub(crate) fn recover(
        folder: &Path,
        mark: &Path,
        segment_bytes: u64,
        ingested: u64,
        mut visit: impl FnMut(Record<'_>) -> Result<(), Error>,
    ) -> Result<(Self, Appender), Error> {
        let (mark, durable) = DurableMark::open(mark)?;
        let files = list(folder)?;
        let mut segments: Vec<Arc<Segment>> = Vec::new();
        let mut next = ingested + 1;
        let mut unstarted = None;
        for (index, (number, path)) in files.iter().enumerate() {
            let is_last = index + 1 == files.len();
            let Some(header) = segment::read_header(path, *number)? else {
                if !is_last {
                    return Err(corrupt(path, "the file header is damaged"));
                }
                unstarted = Some(path);
                break;
            };
            expect_continuation(segments.last(), path, header.first, next)?;
            let recovered = segment::recover(path, *number, &header, |record| {
                if record.revision > ingested { visit(record) } else { Ok(()) }
            })?;
            let end = recovered.segment.end();
            if recovered.durable_behind.is_some_and(|durable| durable >= end) {
                let reason =
                    format!("damaged at byte {}, with intact writes behind it", recovered.valid_until);
                return Err(corrupt(path, reason));
            }
            if is_last && durable >= end && durable > ingested {
                return Err(cut_short(path, recovered.valid_until, end - 1, durable));
            }
            next = end.max(ingested + 1);
            segments.push(Arc::new(recovered.segment));
        }
        let current = next - 1;
        if durable > current {
            let path = unstarted.cloned().unwrap_or_else(|| folder.to_owned());
            return Err(corrupt(
                &path,
                format!("the journal ends at revision {current}, but {durable} was acknowledged"),
            ));
        }
        if let Some(path) = unstarted {
            std::fs::remove_file(path).map_err(io_error("remove", path))?;
        }
        // What recovery found must not be lost by the next power cut either.
        for segment in &segments {
            segment.sync()?;
        }
        mark.set(current)?;
        let next_number = files.last().map_or(1, |(number, _)| number + 1);
        let journal = Self {
            folder: folder.to_owned(),
            segment_bytes,
            segments: RwLock::new(segments.into()),
            spare: Mutex::new(folder.join(SPARE).exists()),
            mark,
        };
        let appender = Appender { active: None, durable: current, written: current, next_number };
        Ok((journal, appender))
    }

    /// The files in use, oldest first.
    pub(crate) fn segments(&self) -> Segments {
        Arc::clone(&self.segments.read())
    }

    /// Bytes on disk: files have their full length from the start.
    pub(crate) fn disk_bytes(&self) -> u64 {
        let files = self.segments.read().len() + usize::from(*self.spare.lock());
        files as u64 * self.segment_bytes
    }

    /// The file that holds a revision, if it is still in the journal.
    pub(crate) fn find(segments: &[Arc<Segment>], revision: u64) -> Option<&Arc<Segment>> {
        let after = segments.partition_point(|segment| segment.first <= revision);
        segments[..after].last().filter(|segment| segment.revisions().contains(&revision))
    }

    /// The full files, oldest first: what the tables take over next.
    pub(crate) fn sealed(&self) -> Vec<Arc<Segment>> {
        self.segments.read().iter().take_while(|segment| segment.is_sealed()).cloned().collect()
    }

    /// Makes everything written so far durable, without telling the writer.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        self.segments().iter().filter(|segment| !segment.is_sealed()).try_for_each(|segment| segment.sync())
    }

    /// Takes files out of the chain whose records are in the tables.
    pub(crate) fn forget(&self, retired: &[Arc<Segment>]) {
        let mut segments = self.segments.write();
        let keep = |segment: &&Arc<Segment>| !retired.iter().any(|gone| gone.number == segment.number);
        *segments = segments.iter().filter(keep).cloned().collect();
    }

    /// Recycles or removes forgotten files. A file somebody still reads is only unlinked, which
    /// leaves its content alone.
    pub(crate) fn remove(&self, retired: &mut Vec<Arc<Segment>>) -> Result<(), Error> {
        if retired.is_empty() {
            return Ok(());
        }
        for segment in retired.drain(..) {
            let path = segment.path.clone();
            let unread = Arc::into_inner(segment).is_some();
            let mut spare = self.spare.lock();
            if unread && !*spare {
                std::fs::rename(&path, self.folder.join(SPARE)).map_err(io_error("rename", &path))?;
                *spare = true;
            } else {
                std::fs::remove_file(&path).map_err(io_error("remove", &path))?;
            }
        }
        directory::sync_directory(&self.folder)
    }

    /// Starts the next file of the chain.
    fn start(&self, number: u64, first: u64) -> Result<Arc<Segment>, Error> {
        let path = self.folder.join(format!("{number:016}.{SUFFIX}"));
        let mut spare = self.spare.lock();
        if *spare {
            *spare = false;
            std::fs::rename(self.folder.join(SPARE), &path).map_err(io_error("rename", &path))?;
        }
        drop(spare);
        let segment = Segment::create(&path, number, first, self.segment_bytes)
            .inspect_err(|_| drop(std::fs::remove_file(&path)))?;
        directory::sync_directory(&self.folder)?;
        let segment = Arc::new(segment);
        let mut segments = self.segments.write();
        *segments = segments.iter().cloned().chain([Arc::clone(&segment)]).collect();
        Ok(segment)
    }
}

// === impl Appender ===

impl Appender {
    /// Writes a frame behind all others. It is durable after the next [`Appender::sync`].
    ///
    /// # Errors
    /// Nothing counts as written then; after [`Error::Full`] the next attempt may succeed.
    pub(crate) fn append(&mut self, journal: &Journal, frame: &mut Frame) -> Result<(), Error> {
        if self.active.is_none() {
            let segment = journal.start(self.next_number, self.written + 1)?;
            self.next_number += 1;
            self.active = Some(Active { segment, position: Segment::first_position() });
        }
        let active = self.active.as_mut().expect("just made");
        active.position = active.segment.append(frame, active.position, self.durable)?;
        self.written = frame.next_revision() - 1;
        Ok(())
    }

    /// Makes everything written so far durable, and remembers that it was.
    pub(crate) fn sync(&mut self, journal: &Journal) -> Result<(), Error> {
        if self.durable == self.written {
            return Ok(());
        }
        if let Some(active) = &self.active {
            active.segment.sync()?;
        }
        self.durable = self.written;
        journal.mark.set(self.durable)
    }

    /// Whether the next append starts a file.
    pub(crate) fn is_between_files(&self) -> bool {
        self.active.is_none()
    }

    /// Whether there are writes that no sync has covered yet.
    pub(crate) fn is_dirty(&self) -> bool {
        self.durable != self.written
    }

    /// Whether the file in use has its full length.
    pub(crate) fn is_full(&self, journal: &Journal) -> bool {
        self.active.as_ref().is_some_and(|active| active.position >= journal.segment_bytes)
    }

    /// Ends the file in use; everything in it must be synced. The next append starts another one.
    pub(crate) fn seal(&mut self) {
        debug_assert!(!self.is_dirty(), "sealing a file with unsynced writes");
        if let Some(active) = self.active.take() {
            active.segment.seal();
        }
    }

    /// At the end: makes the `durable` mark itself survive a power cut.
    pub(crate) fn close(&mut self, journal: &Journal) -> Result<(), Error> {
        self.sync(journal)?;
        journal.mark.sync()
    }
}

/// The journal files by number. Leftovers of an interrupted replace are ignored.
fn list(folder: &Path) -> Result<Vec<(u64, PathBuf)>, Error> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(corrupt(folder, "the directory is missing"));
        }
        Err(error) => return Err(io_error("list", folder)(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(io_error("list", folder))?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        match number {
            Some(number) if path.extension().is_some_and(|extension| extension == SUFFIX) => {
                files.push((number, path));
            }
            _ => {}
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// Checks that a file begins where the one before ends (or, for the oldest, not after the tables end).
fn expect_continuation(
    before: Option<&Arc<Segment>>,
    path: &Path,
    first: u64,
    next: u64,
) -> Result<(), Error> {
    match before {
        None if first <= next => Ok(()),
        None => Err(corrupt(
            path.parent().unwrap_or(path),
            format!("the file with revisions {next} to {} is missing", first - 1),
        )),
        Some(before) if before.end() == first => Ok(()),
        Some(before) if before.end() < first => Err(corrupt(
            &before.path,
            format!(
                "revisions {} to {} are damaged, or the file with them is missing",
                before.end(),
                first - 1
            ),
        )),
        Some(_) => Err(corrupt(path, format!("it begins at revision {first}, which the file before holds"))),
    }
}

fn cut_short(path: &Path, valid_until: u64, end: u64, durable: u64) -> Error {
    corrupt(
        path,
        format!(
            "damaged or cut short at byte {valid_until}: it ends at revision {end}, but {durable} was \
             acknowledged"
        ),
    )
}
