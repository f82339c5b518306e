//! Layers: archives of files, unpacked for overlayfs.
//!
//! [`unpack`] is the way in. [`archive`] reads tar in all its dialects, [`compression`] what is around it, [`tree`]
//! makes files and never leaves its root, [`apply`] knows what entries mean in a layer: whiteouts, folders that exist
//! only below, links.

mod apply;
pub(crate) mod archive;
pub(crate) mod compression;
mod tree;

use std::io::Read;

use camino::{Utf8Path, Utf8PathBuf};

use crate::digest::Hashing;
use crate::{Digest, Hasher, Result};

/// Of what follows an archive's end; tools fill it up to a block, which is mostly of 10 KiB.
const TRAILER_BYTES_MAX: u64 = 64 << 20;

/// How much an archive may hold. What is too much for the disk is found out by the disk.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub entries_max: u64,
    /// Of files, as they are after unpacking.
    pub bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries_max: 1 << 24, bytes_max: 1 << 40 }
    }
}

/// What came out of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// Of the archive before compression.
    pub diff_id: Digest,
    pub entries: u64,
    /// Of files' content.
    pub bytes: u64,
}

/// Unpacks a layer, plain or compressed by gzip or zstd, into the empty folder `root`. `below` are the folders of the
/// layers under it, the topmost first.
pub fn unpack(
    archive: impl Read,
    root: &Utf8Path,
    below: &[Utf8PathBuf],
    limits: &Limits,
) -> Result<Unpacked> {
    let plain = compression::decompressed(archive)?;
    let mut hashing = Hashing::new(plain, Hasher::sha256());
    let (entries, bytes) = apply::apply(&mut hashing, root, below, limits)?;
    // The digest is of the whole archive, also of what follows its end.
    compression::drain(&mut hashing, TRAILER_BYTES_MAX)?;
    let (_, diff_id, _) = hashing.finish();
    Ok(Unpacked { diff_id, entries, bytes })
}
