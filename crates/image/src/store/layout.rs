//! Where things lie in the store's folder, how they get there whole, and who may remove them.
//!
//! ```text
//! lock                      held for moments: shared to claim something, alone to collect
//! blobs/<algorithm>/<hex>   content by its digest
//! ingest/<algorithm>-<hex>  what has come of a blob so far
//! images/<hex>.json         an image, by the digest of its configuration
//! references/<hex>.json     a name and the image it means, by the digest of the name
//! layers/<hex>/             a layer's files, by chain ID
//! snapshots/<key>/          what a container changed
//! leases/<id>               what somebody works with: one digest a line
//! ```
//!
//! **Invariant (whole):** a final name only ever names something complete and on disk. What is on its way is named
//! `.new-<lease>-…`, what is on its way out `.dead-…`. Snapshots are complete, but nobody waits until they are on disk:
//! a container ends with its machine, and one that cannot be read then counts as none.

use std::fs::{self, File, OpenOptions};
use std::io::Write;

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::FlockOperation;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Digest, Error, Result};

pub(super) const NEW_PREFIX: &str = ".new-";
pub(super) const DEAD_PREFIX: &str = ".dead-";

const FOLDERS: &[&str] = &[
    "blobs/sha256",
    "blobs/sha512",
    "ingest",
    "images",
    "references",
    "layers",
    "snapshots",
    "leases",
    "empty",
];

#[derive(Clone, Debug)]
pub(crate) struct Layout {
    root: Utf8PathBuf,
}

impl Layout {
    /// Makes what is missing.
    pub(super) fn open(root: &Utf8Path) -> Result<Self> {
        for folder in FOLDERS {
            let path = root.join(folder);
            fs::create_dir_all(&path).map_err(|error| Error::io("create", &path, error))?;
        }
        // Overlays are named by absolute paths: who mounts them may stand elsewhere.
        let root = root.canonicalize_utf8().map_err(|error| Error::io("resolve", root, error))?;
        // Root file systems hold programs with set-user-ID, which others of this machine must not reach.
        use std::os::unix::fs::PermissionsExt;
        let private = fs::Permissions::from_mode(0o711);
        fs::set_permissions(&root, private).map_err(|error| Error::io("restrict", &root, error))?;
        for folder in ["layers", "snapshots"] {
            let path = root.join(folder);
            let private = fs::Permissions::from_mode(0o700);
            fs::set_permissions(&path, private).map_err(|error| Error::io("restrict", &path, error))?;
        }
        let layout = Self { root };
        layout.open_lock()?;
        Ok(layout)
    }

    pub(crate) fn root(&self) -> &Utf8Path {
        &self.root
    }

    pub(super) fn folder(&self, name: &str) -> Utf8PathBuf {
        self.root.join(name)
    }

    pub(crate) fn blob(&self, digest: &Digest) -> Utf8PathBuf {
        self.root.join("blobs").join(digest.algorithm()).join(digest.hex())
    }

    pub(crate) fn partial(&self, digest: &Digest) -> Utf8PathBuf {
        self.root.join("ingest").join(format!("{}-{}", digest.algorithm(), digest.hex()))
    }

    pub(super) fn layer(&self, chain: &Digest) -> Utf8PathBuf {
        self.root.join("layers").join(chain.hex())
    }

    /// A folder that stays empty, which overlays of too few layers are filled up with.
    pub(super) fn empty(&self) -> Utf8PathBuf {
        self.root.join("empty")
    }

    fn open_lock(&self) -> Result<File> {
        let path = self.root.join("lock");
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| Error::io("open", &path, error))
    }

    /// Nobody collects while this is held. For a few lines: everybody else may be waiting.
    pub(super) fn lock_shared(&self) -> Result<File> {
        self.lock(FlockOperation::LockShared)
    }

    /// Nobody claims anything while this is held.
    pub(super) fn lock_alone(&self) -> Result<File> {
        self.lock(FlockOperation::LockExclusive)
    }

    fn lock(&self, operation: FlockOperation) -> Result<File> {
        let file = self.open_lock()?;
        rustix::io::retry_on_intr(|| rustix::fs::flock(&file, operation))
            .map_err(|error| Error::io("lock", &self.root, error))?;
        Ok(file)
    }
}

/// A file whose folder gets its name only later, and that nobody needs after the machine went down.
pub(super) fn write_scratch(path: &Utf8Path, value: &impl Serialize) -> Result<()> {
    fs::write(path, encode(path, value)?).map_err(|error| Error::io("write", path, error))
}

fn encode(path: &Utf8Path, value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value)
        .map_err(|error| Error::of_io(format!("encode {path}"), std::io::Error::other(error)))
}

/// Writes a small file so that it is there whole and on disk, or as it was before.
pub(super) fn write_json(path: &Utf8Path, value: &impl Serialize) -> Result<()> {
    let bytes = encode(path, value)?;
    let folder = path.parent().unwrap_or(path);
    let fresh = folder.join(format!("{NEW_PREFIX}{}", rt::uuid()));
    let written = File::create(&fresh)
        .and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&fresh, path));
    if let Err(error) = written {
        let _ = fs::remove_file(&fresh);
        return Err(Error::io("write", path, error));
    }
    sync_folder(folder)
}

/// `None` where there is none. A file that cannot be understood is [`Error::Corrupt`].
pub(super) fn read_json<T: DeserializeOwned>(path: &Utf8Path) -> Result<Option<T>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read", path, error)),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| Error::Corrupt(format!("the image store is damaged: {path}: {error}")))
}

/// Names in it are on disk.
pub(crate) fn sync_folder(path: &Utf8Path) -> Result<()> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(|error| Error::io("sync", path, error))
}

/// The names in a folder. What vanishes meanwhile is left out; so is what is not ours and has no name in UTF-8.
pub(super) fn names(path: &Utf8Path) -> Result<Vec<String>> {
    let failed = |error| Error::io("read", path, error);
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        if let Ok(name) = entry.map_err(failed)?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

pub(super) fn remove_file(path: &Utf8Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path, error)),
        _ => Ok(()),
    }
}

pub(super) fn remove_tree(path: &Utf8Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path, error)),
        _ => Ok(()),
    }
}
