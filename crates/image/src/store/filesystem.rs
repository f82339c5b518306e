//! How much room there is, and how much images take.

use camino::Utf8PathBuf;

use super::collect;
use super::layout::{self, Layout};
use super::snapshots::{self, Usage};
use crate::{Digest, Error, Result};

/// How full the file system is that the store lies on, and how much of it the store takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filesystem {
    pub path: Utf8PathBuf,
    /// Of images and what containers changed.
    pub used_bytes: u64,
    pub used_inodes: u64,
    pub capacity_bytes: u64,
    pub available_bytes: u64,
    pub inodes: u64,
    pub available_inodes: u64,
}

pub(super) fn examine(layout: &Layout) -> Result<Filesystem> {
    let root = layout.root();
    let found = rustix::fs::statvfs(root.as_str()).map_err(|error| Error::io("examine", root, error))?;
    let mut used = Usage::default();
    // Images never change, so what they take is known; what containers write has to be looked at.
    for digest in layer_names(layout)? {
        if let Some(info) = layout.layer_info(&digest)? {
            used.bytes += info.bytes;
            used.inodes += info.inodes;
        }
    }
    for folder in ["blobs", "snapshots", "ingest"] {
        let part = snapshots::usage(&layout.folder(folder))?;
        used.bytes += part.bytes;
        used.inodes += part.inodes;
    }
    Ok(Filesystem {
        path: root.to_owned(),
        used_bytes: used.bytes,
        used_inodes: used.inodes,
        capacity_bytes: found.f_blocks * found.f_frsize,
        available_bytes: found.f_bavail * found.f_frsize,
        inodes: found.f_files,
        available_inodes: found.f_favail,
    })
}

fn layer_names(layout: &Layout) -> Result<Vec<Digest>> {
    let names = layout::names(&layout.folder("layers"))?;
    Ok(names.iter().filter_map(|hex| collect::with_algorithm(hex).parse().ok()).collect())
}
