//! Two small facts files: how far the tables and compaction are, and what was promised as durable.
//!
//! Owns: the `manifest` and `durable` files. The first is replaced a few times an hour; the second
//! is overwritten in place after every sync, without syncing it again: a killed process leaves it
//! exact, a power cut leaves an older, still true, lower bound. It is what tells a journal cut short
//! by damage from one cut short by a crash.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use storage::Error;
use xxhash_rust::xxh3::xxh3_64;

use crate::directory::{self, FILE_MODE, corrupt, io_error};

/// What a set of live versions adds up to. Addition commutes, so it is kept up to date from the
/// versions that come and go, and it is checked whenever the tables are read in full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LiveSum {
    pub count: u64,
    pub sum: u64,
}

impl LiveSum {
    pub(crate) fn add(&mut self, revision: u64) {
        self.count += 1;
        self.sum = self.sum.wrapping_add(mix(revision));
    }

    pub(crate) fn remove(&mut self, revision: u64) {
        self.count = self.count.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(mix(revision));
    }
}

/// Spreads a revision over 64 bits, so that no two small sets of revisions add up to the same.
fn mix(revision: u64) -> u64 {
    xxh3_64(&revision.to_le_bytes())
}

/// How far the tables and compaction are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// History before this is gone.
    pub compacted: u64,
    /// Everything up to here is in the tables, the rest in the journal.
    pub ingested: u64,
    /// The versions live at `compacted`.
    pub live: LiveSum,
    /// What the tables consist of.
    pub tables: TablesMark,
}

/// The tables' own catalogue and files at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TablesMark {
    /// The number of the catalogue; it only grows.
    pub catalogue: u64,
    /// Checksum of the file that names the catalogue and has the catalogue's own checksum.
    pub pointer_checksum: u64,
    pub files: Vec<TableFile>,
}

/// One table file, which never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableFile {
    pub id: u64,
    pub length: u64,
    pub checksum: u128,
}

impl Manifest {
    pub(crate) fn write(&self, path: &Path) -> Result<(), Error> {
        let Self { compacted, ingested, live, tables } = self;
        let mut body = format!("compacted {compacted}\ningested {ingested}\n");
        body.push_str(&format!("live {} {:016x}\n", live.count, live.sum));
        let TablesMark { catalogue, pointer_checksum, files } = tables;
        body.push_str(&format!("catalogue {catalogue} {pointer_checksum:016x}\n"));
        for TableFile { id, length, checksum } in files {
            body.push_str(&format!("table {id} {length} {checksum:032x}\n"));
        }
        directory::replace(path, &body)
    }

    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let body = directory::read_checked(path)?;
        Self::parse(&body).ok_or_else(|| corrupt(path, "the file does not say what it should"))
    }

    fn parse(body: &str) -> Option<Self> {
        let mut lines = body.lines();
        let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        let compacted = field("compacted")?.parse().ok()?;
        let ingested = field("ingested")?.parse().ok()?;
        let (count, sum) = field("live")?.split_once(' ')?;
        let live = LiveSum { count: count.parse().ok()?, sum: u64::from_str_radix(sum, 16).ok()? };
        let (catalogue, pointer_checksum) = field("catalogue")?.split_once(' ')?;
        let tables = TablesMark {
            catalogue: catalogue.parse().ok()?,
            pointer_checksum: u64::from_str_radix(pointer_checksum, 16).ok()?,
            files: lines.map(TableFile::parse).collect::<Option<_>>()?,
        };
        Some(Self { compacted, ingested, live, tables })
    }
}

impl TableFile {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix("table ")?.split(' ');
        let (id, length) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let checksum = u128::from_str_radix(words.next()?, 16).ok()?;
        words.next().is_none().then_some(Self { id, length, checksum })
    }
}

/// The highest revision acknowledged as synced, in a file of one line.
pub(crate) struct DurableMark {
    path: PathBuf,
    file: File,
}

impl DurableMark {
    pub(crate) fn create(path: &Path, revision: u64) -> Result<Self, Error> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(FILE_MODE)
            .open(path)
            .map_err(io_error("create", path))?;
        let mark = Self { path: path.to_owned(), file };
        mark.set(revision)?;
        mark.file.sync_all().map_err(io_error("sync", path))?;
        Ok(mark)
    }

    pub(crate) fn open(path: &Path) -> Result<(Self, u64), Error> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(corrupt(path, "the file is missing"));
            }
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                return Err(corrupt(path, "the file is not text"));
            }
            Err(error) => return Err(io_error("read", path)(error)),
        };
        let revision = text.split(' ').next().and_then(|digits| u64::from_str_radix(digits, 16).ok());
        let revision = revision
            .filter(|revision| line(*revision) == text)
            .ok_or_else(|| corrupt(path, "the checksum does not match"))?;
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(io_error("open", path))?;
        Ok((Self { path: path.to_owned(), file }, revision))
    }

    /// Overwrites the line. It lies within one disk sector, so it is never torn.
    pub(crate) fn set(&self, revision: u64) -> Result<(), Error> {
        self.file.write_all_at(line(revision).as_bytes(), 0).map_err(io_error("write", &self.path))
    }

    pub(crate) fn sync(&self) -> Result<(), Error> {
        self.file.sync_data().map_err(io_error("sync", &self.path))
    }
}

fn line(revision: u64) -> String {
    format!("{revision:016x} {:016x}\n", mix(revision))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_reads_back_and_damage_to_any_byte_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest");
        let files =
            vec![TableFile { id: 4, length: 5, checksum: 6 }, TableFile { id: 7, length: 8, checksum: 9 }];
        let manifest = Manifest {
            compacted: 12,
            ingested: 40,
            live: LiveSum { count: 3, sum: u64::MAX },
            tables: TablesMark { catalogue: 2, pointer_checksum: 10, files },
        };
        manifest.write(&path).unwrap();
        assert_eq!(Manifest::read(&path).unwrap(), manifest);

        let good = std::fs::read(&path).unwrap();
        for index in 0..good.len() {
            let mut bad = good.clone();
            bad[index] ^= 4;
            std::fs::write(&path, &bad).unwrap();
            assert!(matches!(Manifest::read(&path), Err(Error::Corrupt { .. })), "byte {index}");
            std::fs::write(&path, &good[..index]).unwrap();
            assert!(matches!(Manifest::read(&path), Err(Error::Corrupt { .. })), "cut at {index}");
        }
    }

    #[test]
    fn the_durable_mark_moves_and_notices_damage() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("durable");
        let mark = DurableMark::create(&path, 1).unwrap();
        mark.set(0xabc).unwrap();
        assert_eq!(DurableMark::open(&path).unwrap().1, 0xabc);

        let good = std::fs::read(&path).unwrap();
        for index in 0..good.len() {
            let mut bad = good.clone();
            bad[index] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            assert!(DurableMark::open(&path).is_err(), "byte {index}");
        }
    }

    #[test]
    fn a_live_sum_forgets_what_was_removed() {
        let (mut left, mut right) = (LiveSum::default(), LiveSum::default());
        for revision in [5, 9, 7] {
            left.add(revision);
        }
        left.remove(9);
        for revision in [7, 5] {
            right.add(revision);
        }
        assert_eq!(left, right);
    }
}
