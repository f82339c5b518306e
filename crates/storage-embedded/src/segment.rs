//! One journal file: a header, then frames, each holding the records of one batch.
//!
//! Owns: the file layout, appending a frame, reading a record back by revision, and finding the
//! valid frames again after a restart. What several files mean together is [`crate::journal`].
//!
//! ```text
//! 0     magic · number · salt · first revision · checksum         (the rest of 4096 bytes is unused)
//! 4096  frame: magic · payload length · first revision · durable revision · count · checksum · records
//!       frame …
//! ```
//!
//! **Invariant (journal-salt):** files are reused, so old frames lie behind the new ones. Every use
//! has a fresh salt, which seeds all frame checksums; an old frame never reads as a new one.
//!
//! **Invariant (journal-append-once):** a file that was open when the process ended is never appended
//! to again. A torn frame therefore stays the last thing in its file and cannot line up with new ones.

use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use storage::{Error, EventKind};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::directory::{FILE_MODE, corrupt, io_error};
use crate::record::{self, Record, u64_at};

const FILE_MAGIC: &[u8; 8] = b"PNTLJNL1";
const FILE_HEADER: usize = 40;
/// Frames start on the block after the header, so that writing them never touches the header's block.
const FRAMES_AT: u64 = 4096;

const FRAME_MAGIC: &[u8; 4] = b"pFrm";
const FRAME_HEADER: usize = 36;
const FRAME_CHECKSUM_AT: usize = 28;

/// Where a record lies in its file.
#[derive(Clone, Copy, Debug)]
struct Extent {
    offset: u32,
    length: u32,
}

/// One batch, encoded while its revisions are handed out.
pub(crate) struct Frame {
    bytes: Vec<u8>,
    first: u64,
    extents: Vec<Extent>,
}

impl Frame {
    pub(crate) fn new() -> Self {
        Self { bytes: Vec::new(), first: 0, extents: Vec::new() }
    }

    /// Starts over; `first` is the revision of the first record that will be pushed.
    pub(crate) fn reset(&mut self, first: u64) {
        /// Keep what ordinary batches need, give back what one huge batch needed.
        const KEPT_BYTES_MAX: usize = 1 << 20;
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES_MAX);
        self.bytes.resize(FRAME_HEADER, 0);
        self.extents.clear();
        self.first = first;
    }

    pub(crate) fn push(&mut self, kind: EventKind, created: u64, key: &str, value: &[u8]) {
        let offset = self.bytes.len();
        let revision = self.next_revision();
        record::encode(&mut self.bytes, revision, kind, created, key, value);
        let length = self.bytes.len() - offset;
        self.extents.push(Extent { offset: offset as u32, length: length as u32 });
    }

    pub(crate) fn next_revision(&self) -> u64 {
        self.first + self.extents.len() as u64
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.extents.is_empty()
    }

    /// Size on disk.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The records, by revision.
    pub(crate) fn records(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.extents.iter().zip(self.first..).map(|(extent, revision)| {
            let start = extent.offset as usize;
            (revision, &self.bytes[start..start + extent.length as usize])
        })
    }

    /// Fills in the header: which file this goes to and what was durable before it.
    fn seal(&mut self, salt: u64, durable: u64) {
        let payload = (self.bytes.len() - FRAME_HEADER) as u32;
        let count = self.extents.len() as u32;
        let header = &mut self.bytes[..FRAME_HEADER];
        header[..4].copy_from_slice(FRAME_MAGIC);
        header[4..8].copy_from_slice(&payload.to_le_bytes());
        header[8..16].copy_from_slice(&self.first.to_le_bytes());
        header[16..24].copy_from_slice(&durable.to_le_bytes());
        header[24..28].copy_from_slice(&count.to_le_bytes());
        let checksum = frame_checksum(salt, &self.bytes);
        self.bytes[FRAME_CHECKSUM_AT..FRAME_HEADER].copy_from_slice(&checksum.to_le_bytes());
    }
}

fn frame_checksum(salt: u64, frame: &[u8]) -> u64 {
    let mut hasher = Xxh3::with_seed(salt);
    hasher.update(&frame[..FRAME_CHECKSUM_AT]);
    hasher.update(&frame[FRAME_HEADER..]);
    hasher.digest()
}

/// A valid frame found in a file.
struct FoundFrame<'a> {
    first: u64,
    durable: u64,
    count: u32,
    bytes: &'a [u8],
}

/// The frame at the beginning of `bytes`, if there is a whole and undamaged one.
fn frame_at(salt: u64, bytes: &[u8]) -> Option<FoundFrame<'_>> {
    let header = bytes.get(..FRAME_HEADER)?;
    if !header.starts_with(FRAME_MAGIC) {
        return None;
    }
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let frame = bytes.get(..FRAME_HEADER + word(4) as usize)?;
    if frame_checksum(salt, frame) != u64_at(header, FRAME_CHECKSUM_AT) {
        return None;
    }
    Some(FoundFrame { first: u64_at(header, 8), durable: u64_at(header, 16), count: word(24), bytes: frame })
}

/// One journal file in use. Shared with readers; only the writer appends.
pub(crate) struct Segment {
    pub path: PathBuf,
    pub number: u64,
    /// The revision of its first record.
    pub first: u64,
    file: File,
    salt: u64,
    extents: RwLock<Vec<Extent>>,
    sealed: AtomicBool,
    /// Set for good by a failed sync: the kernel reports the failure once, drops what it could not
    /// write, and would call the next sync a success.
    lost_writes: AtomicBool,
}

impl Segment {
    /// Starts a file whose first record will be `first`. A file at `path` is overwritten, blocks and
    /// all reused; a missing one is created with `capacity` bytes set aside.
    pub(crate) fn create(path: &Path, number: u64, first: u64, capacity: u64) -> Result<Self, Error> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(path)
            .map_err(io_error("create", path))?;
        let length = file.metadata().map_err(io_error("inspect", path))?.len();
        if length < capacity {
            // With the final length set once, a sync has no length to write.
            file.set_len(capacity).map_err(io_error("create", path))?;
        }
        // Each `RandomState` has its own random keys, which is all a salt needs.
        let salt = RandomState::new().hash_one((number, first));
        file.write_all_at(&file_header(number, salt, first), 0).map_err(io_error("write", path))?;
        file.sync_all().map_err(io_error("sync", path))?;
        Ok(Self {
            path: path.to_owned(),
            number,
            first,
            file,
            salt,
            extents: RwLock::default(),
            sealed: AtomicBool::new(false),
            lost_writes: AtomicBool::new(false),
        })
    }

    /// The revision after the last one it holds.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.extents.read().len() as u64
    }

    pub(crate) fn revisions(&self) -> Range<u64> {
        self.first..self.end()
    }

    /// Bytes in use by records.
    pub(crate) fn size(&self) -> u64 {
        self.extents.read().last().map_or(0, |last| u64::from(last.offset) + u64::from(last.length))
    }

    /// Whether nothing will be appended any more.
    pub(crate) fn is_sealed(&self) -> bool {
        self.sealed.load(Ordering::Acquire)
    }

    pub(crate) fn seal(&self) {
        self.sealed.store(true, Ordering::Release);
    }

    /// Writes a frame at `position` and returns the position after it. After an error nothing counts
    /// as written, and the same position can be written again.
    pub(crate) fn append(&self, frame: &mut Frame, position: u64, durable: u64) -> Result<u64, Error> {
        frame.seal(self.salt, durable);
        self.file.write_all_at(&frame.bytes, position).map_err(io_error("write", &self.path))?;
        let base = position as u32;
        let shifted = frame.extents.iter().map(|e| Extent { offset: base + e.offset, length: e.length });
        self.extents.write().extend(shifted);
        Ok(position + frame.bytes.len() as u64)
    }

    pub(crate) const fn first_position() -> u64 {
        FRAMES_AT
    }

    pub(crate) fn sync(&self) -> Result<(), Error> {
        let mut outcome = self.file.sync_data();
        if outcome.is_err() {
            self.lost_writes.store(true, Ordering::Release);
        } else if self.lost_writes.load(Ordering::Acquire) {
            outcome = Err(std::io::Error::other("an earlier sync of this file failed"));
        }
        outcome.map_err(io_error("sync", &self.path))
    }

    /// Hands the record of a revision to `visit`; `buffer` is scratch space for many reads.
    pub(crate) fn read<T>(
        &self,
        revision: u64,
        buffer: &mut Vec<u8>,
        visit: impl FnOnce(Record<'_>) -> T,
    ) -> Result<T, Error> {
        let index = revision.wrapping_sub(self.first) as usize;
        let extent = self.extents.read().get(index).copied();
        let extent = extent.ok_or_else(|| corrupt(&self.path, format!("revision {revision} is missing")))?;
        buffer.resize(extent.length as usize, 0);
        self.file.read_exact_at(buffer, u64::from(extent.offset)).map_err(io_error("read", &self.path))?;
        record::decode(revision, buffer)
            .map(visit)
            .map_err(|reason| corrupt(&self.path, format!("revision {revision}: {reason}")))
    }
}

fn file_header(number: u64, salt: u64, first: u64) -> [u8; FILE_HEADER] {
    let mut header = [0; FILE_HEADER];
    header[..8].copy_from_slice(FILE_MAGIC);
    header[8..16].copy_from_slice(&number.to_le_bytes());
    header[16..24].copy_from_slice(&salt.to_le_bytes());
    header[24..32].copy_from_slice(&first.to_le_bytes());
    let checksum = xxh3_64(&header[..32]);
    header[32..].copy_from_slice(&checksum.to_le_bytes());
    header
}

/// The header of a file that may or may not be a started segment.
pub(crate) struct SegmentHeader {
    pub first: u64,
    salt: u64,
}

/// Reads the header; `None` if there is no valid one for this number, as after a crash between
/// making the file and writing its header.
pub(crate) fn read_header(path: &Path, number: u64) -> Result<Option<SegmentHeader>, Error> {
    let mut file = File::open(path).map_err(io_error("open", path))?;
    let mut header = [0; FILE_HEADER];
    match file.read_exact(&mut header) {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other.map_err(io_error("read", path))?,
    }
    let (salt, first) = (u64_at(&header, 16), u64_at(&header, 24));
    Ok((header == file_header(number, salt, first)).then_some(SegmentHeader { first, salt }))
}

/// A file read again after a restart.
pub(crate) struct Recovered {
    pub segment: Segment,
    /// Where the valid frames end.
    pub valid_until: u64,
    /// If there are valid frames behind an invalid one: the highest revision that they say was
    /// durable before them.
    pub durable_behind: Option<u64>,
}

/// Reads all frames in order and hands their records to `visit`.
pub(crate) fn recover(
    path: &Path,
    number: u64,
    header: &SegmentHeader,
    mut visit: impl FnMut(Record<'_>) -> Result<(), Error>,
) -> Result<Recovered, Error> {
    let bytes = std::fs::read(path).map_err(io_error("read", path))?;
    let mut extents = Vec::new();
    let mut position = FRAMES_AT as usize;
    let mut next = header.first;
    while let Some(frame) = bytes.get(position..).and_then(|rest| frame_at(header.salt, rest)) {
        if frame.first != next {
            break;
        }
        let mut offset = FRAME_HEADER;
        for revision in frame.first..frame.first + u64::from(frame.count) {
            let record = record::decode(revision, &frame.bytes[offset..])
                .map_err(|reason| corrupt(path, format!("revision {revision}: {reason}")))?;
            let length = record.raw.len();
            visit(record)?;
            extents.push(Extent { offset: (position + offset) as u32, length: length as u32 });
            offset += length;
        }
        next += u64::from(frame.count);
        position += frame.bytes.len();
    }
    let durable_behind = frames_behind(header.salt, bytes.get(position..).unwrap_or_default());
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(io_error("open", path))?;
    let segment = Segment {
        path: path.to_owned(),
        number,
        first: header.first,
        file,
        salt: header.salt,
        extents: RwLock::new(extents),
        sealed: AtomicBool::new(true),
        lost_writes: AtomicBool::new(false),
    };
    Ok(Recovered { segment, valid_until: position as u64, durable_behind })
}

/// Searches for valid frames of this use of the file behind the point where reading stopped.
fn frames_behind(salt: u64, bytes: &[u8]) -> Option<u64> {
    memchr::memmem::find_iter(bytes, FRAME_MAGIC)
        .filter_map(|at| frame_at(salt, &bytes[at..]))
        .map(|frame| frame.durable)
        .max()
}
