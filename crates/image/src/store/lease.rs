//! What somebody works with and nobody refers to yet.
//!
//! A lease is a file that its owner holds locked, so it ends with its owner, however that ends. Claiming takes the
//! store's lock, so that whoever claims a blob and then finds it there knows that it stays.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;

use camino::Utf8PathBuf;
use parking_lot::Mutex;
use rustix::fs::FlockOperation;

use super::layout::{self, Layout};
use crate::{Digest, Error, Result};

pub(crate) struct Lease {
    layout: Layout,
    id: String,
    file: Mutex<File>,
    path: Utf8PathBuf,
}

impl Lease {
    pub(super) fn new(layout: &Layout) -> Result<Self> {
        let id = rt::uuid();
        let path = layout.folder("leases").join(&id);
        // A lease that is there and not locked is taken for one whose owner died.
        let _lock = layout.lock_shared()?;
        let file = OpenOptions::new()
            .create_new(true)
            .append(true)
            .open(&path)
            .map_err(|error| Error::io("create", &path, error))?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|error| Error::io("lock", &path, error))?;
        Ok(Self { layout: layout.clone(), id, file: Mutex::new(file), path })
    }

    /// The blob or layer of that digest is not collected, now or when it comes.
    pub(crate) fn claim(&self, digest: &Digest) -> Result<()> {
        let _lock = self.layout.lock_shared()?;
        let mut file = self.file.lock();
        file.write_all(format!("{digest}\n").as_bytes())
            .map_err(|error| Error::io("write", &self.path, error))
    }

    /// A name for something that is being made.
    pub(crate) fn new_name(&self) -> String {
        format!("{}{}-{}", layout::NEW_PREFIX, self.id, rt::name_suffix(10))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// What all leases claim, and their IDs. Only while nobody can claim: those whose owners died are removed.
pub(super) fn claimed(layout: &Layout) -> Result<(HashSet<String>, Vec<String>)> {
    let folder = layout.folder("leases");
    let (mut digests, mut alive) = (HashSet::new(), Vec::new());
    for id in layout::names(&folder)? {
        let path = folder.join(&id);
        let Ok(file) = File::open(&path) else { continue };
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            layout::remove_file(&path)?;
            continue;
        }
        let text = fs::read_to_string(&path).map_err(|error| Error::io("read", &path, error))?;
        digests.extend(text.lines().map(str::to_owned));
        alive.push(id);
    }
    Ok((digests, alive))
}
