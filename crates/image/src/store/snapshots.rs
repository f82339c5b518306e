//! What containers see and change: the layers of their image, and a folder on top that is theirs.

use std::fs;
use std::os::unix::fs::MetadataExt;

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use super::layout::{self, DEAD_PREFIX, Layout, NEW_PREFIX};
use super::lease::Lease;
use super::records::StoredImage;
use crate::{Digest, Error, Result, Rootfs};

const KEY_BYTES_MAX: usize = 128;

/// Who uses which image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// As its owner calls it; a container's ID.
    pub key: String,
    /// The image's ID.
    pub image: String,
    /// Whether it cannot be written to.
    pub read_only: bool,
    /// Chain IDs of the layers, the lowest first.
    pub(super) chain: Vec<Digest>,
}

/// What files take on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub bytes: u64,
    pub inodes: u64,
}

impl Layout {
    fn snapshot_folder(&self, key: &str) -> Result<Utf8PathBuf> {
        let fits = !key.is_empty()
            && key.len() <= KEY_BYTES_MAX
            && !key.starts_with('.')
            && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
        if fits {
            Ok(self.folder("snapshots").join(key))
        } else {
            Err(Error::Invalid(format!(
                "{key:?} cannot name a snapshot: use letters, digits, '-', '_' and '.'"
            )))
        }
    }

    pub(super) fn snapshot(&self, key: &str) -> Result<Option<Snapshot>> {
        layout::read_json(&self.snapshot_folder(key)?.join("snapshot.json"))
    }

    /// Makes it, or finds it as it was made before. The lease claims the image's layers, which are there.
    pub(super) fn make_snapshot(
        &self,
        lease: &Lease,
        key: &str,
        image: &StoredImage,
        read_only: bool,
    ) -> Result<Rootfs> {
        let target = self.snapshot_folder(key)?;
        if let Some(found) = self.snapshot(key)? {
            if found.image != image.id().as_str() || found.read_only != read_only {
                let other = found.image;
                return Err(Error::InUse(format!("snapshot {key} is there already, of image {other}")));
            }
            return Ok(self.rootfs(&target, &found));
        }
        let snapshot = Snapshot {
            key: key.to_owned(),
            image: image.id().to_string(),
            read_only,
            chain: image.chain.clone(),
        };
        let fresh = self.folder("snapshots").join(lease.new_name());
        let made = self
            .fill_snapshot(&fresh, &snapshot)
            .and_then(|()| fs::rename(&fresh, &target).map_err(|error| Error::io("rename", &fresh, error)));
        if let Err(error) = made {
            let _ = layout::remove_tree(&fresh);
            return Err(error);
        }
        Ok(self.rootfs(&target, &snapshot))
    }

    fn fill_snapshot(&self, folder: &Utf8Path, snapshot: &Snapshot) -> Result<()> {
        let make = |path: &Utf8Path| fs::create_dir(path).map_err(|error| Error::io("create", path, error));
        make(folder)?;
        if !snapshot.read_only {
            let upper = folder.join("upper");
            make(&upper)?;
            make(&folder.join("work"))?;
            // The root of what is mounted has the attributes of the topmost folder, which is this one.
            if let Some(top) = snapshot.chain.last() {
                copy_attributes(&self.layer_files(top), &upper)?;
            }
        }
        layout::write_scratch(&folder.join("snapshot.json"), snapshot)
    }

    fn rootfs(&self, folder: &Utf8Path, snapshot: &Snapshot) -> Rootfs {
        let mut lower: Vec<Utf8PathBuf> =
            snapshot.chain.iter().rev().map(|chain| self.layer_files(chain)).collect();
        // Overlayfs wants a layer below one that is written to, and two where there is none.
        while lower.len() < if snapshot.read_only { 2 } else { 1 } {
            lower.push(self.empty());
        }
        let (upper, work) = if snapshot.read_only {
            (None, None)
        } else {
            (Some(folder.join("upper")), Some(folder.join("work")))
        };
        Rootfs { lower, upper, work }
    }

    pub(super) fn all_snapshots(&self) -> Result<Vec<Snapshot>> {
        let mut all = Vec::new();
        for key in self.snapshot_keys()? {
            match self.snapshot(&key) {
                Ok(found) => all.extend(found),
                Err(error @ Error::Corrupt(_)) => {
                    tracing::warn!(key, %error, "A snapshot is not whole, and no container's");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    pub(super) fn snapshot_keys(&self) -> Result<Vec<String>> {
        let mut keys = layout::names(&self.folder("snapshots"))?;
        keys.retain(|key| !key.starts_with(NEW_PREFIX) && !key.starts_with(DEAD_PREFIX));
        Ok(keys)
    }

    pub(super) fn remove_snapshot(&self, key: &str) -> Result<()> {
        let path = self.snapshot_folder(key)?;
        let dead = self.folder("snapshots").join(format!("{DEAD_PREFIX}{}", rt::uuid()));
        match fs::rename(&path, &dead) {
            Ok(()) => layout::remove_tree(&dead),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::io("remove", &path, error)),
        }
    }

    /// What a container changed.
    pub(super) fn snapshot_usage(&self, key: &str) -> Result<Usage> {
        let folder = self.snapshot_folder(key)?;
        match self.snapshot(key)? {
            None => Err(Error::NotFound(format!("no snapshot {key}"))),
            Some(snapshot) if snapshot.read_only => Ok(Usage::default()),
            Some(_) => usage(&folder.join("upper")),
        }
    }
}

fn copy_attributes(from: &Utf8Path, to: &Utf8Path) -> Result<()> {
    let metadata = fs::metadata(from).map_err(|error| Error::io("read", from, error))?;
    std::os::unix::fs::chown(to, Some(metadata.uid()), Some(metadata.gid()))
        .and_then(|()| fs::set_permissions(to, metadata.permissions()))
        .map_err(|error| Error::io("set attributes of", to, error))
}

/// What the files below a folder take on disk, with it. Containers change them meanwhile: what is gone is not counted.
pub(super) fn usage(folder: &Utf8Path) -> Result<Usage> {
    let mut usage = Usage::default();
    // A file with several names is counted once.
    let mut linked = std::collections::HashSet::new();
    let mut folders = vec![folder.as_std_path().to_owned()];
    while let Some(path) = folders.pop() {
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::of_io(format!("read {}", path.display()), error)),
        };
        if let Ok(metadata) = fs::symlink_metadata(&path) {
            usage.bytes += metadata.blocks() * 512;
            usage.inodes += 1;
        }
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if metadata.nlink() < 2 || linked.insert((metadata.dev(), metadata.ino())) {
                usage.bytes += metadata.blocks() * 512;
                usage.inodes += 1;
            }
        }
    }
    Ok(usage)
}
