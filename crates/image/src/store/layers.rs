//! Layers' files, unpacked: a folder for each chain ID, made once and never changed.

use std::fs::{self, File};
use std::io::ErrorKind;

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use super::layout::{self, Layout};
use super::lease::Lease;
use super::records::StoredImage;
use crate::layer::{self, Limits, Unpacked};
use crate::manifest::Descriptor;
use crate::{ConfigFile, Digest, Error, Result};

/// What is known of an unpacked layer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct LayerInfo {
    /// Which run of this machine wrote it.
    #[serde(default)]
    boot: String,
    /// Whether it would be there after the machine lost its power.
    #[serde(default)]
    is_durable: bool,
    /// Of its files.
    pub(super) bytes: u64,
    pub(super) inodes: u64,
}

impl Layout {
    pub(super) fn layer_files(&self, chain: &Digest) -> Utf8PathBuf {
        self.layer(chain).join("fs")
    }

    fn layer_file(&self, chain: &Digest) -> Utf8PathBuf {
        self.layer(chain).join("layer.json")
    }

    /// A layer that is there whole. One that was not on disk yet when the machine went down is not: it is made again.
    pub(super) fn layer_info(&self, chain: &Digest) -> Result<Option<LayerInfo>> {
        match layout::read_json::<LayerInfo>(&self.layer_file(chain)) {
            Ok(Some(info)) if info.is_durable || info.boot == boot()? => Ok(Some(info)),
            Ok(_) => Ok(None),
            Err(Error::Corrupt(problem)) => {
                tracing::warn!(%problem, "A layer is unpacked again");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Waits until an image's layers are on disk, which takes as long as the disk is busy, whoever keeps it so. Nobody
    /// else waits: until then a layer counts for this run of the machine only.
    pub(super) fn make_durable(&self, image: &StoredImage) -> Result<()> {
        let mut fresh = Vec::new();
        for chain in &image.chain {
            fresh.extend(self.layer_info(chain)?.filter(|info| !info.is_durable).map(|info| (chain, info)));
        }
        if fresh.is_empty() {
            return Ok(());
        }
        sync_all_below(&self.folder("layers"))?;
        for (chain, info) in fresh {
            // One that was collected in the meantime stays away.
            if self.layer(chain).is_dir() {
                layout::write_json(&self.layer_file(chain), &LayerInfo { is_durable: true, ..info })?;
            }
        }
        Ok(())
    }

    /// Unpacks those layers of an image that are not yet, and says how many. What it needs is claimed by the lease.
    pub(super) fn unpack_image(
        &self,
        lease: &Lease,
        image: &StoredImage,
        mut unpacking: impl FnMut(&Descriptor),
    ) -> Result<usize> {
        let config = ConfigFile::decode(&self.read_document(image.id())?)?;
        let diffs = &config.rootfs.diff_ids;
        if diffs.len() != image.layers.len() {
            return Err(Error::Invalid(format!(
                "mismatched image rootfs and manifest layers: {} and {}",
                diffs.len(),
                image.layers.len()
            )));
        }
        let mut fresh = 0;
        // Below the layer at hand, the topmost first.
        let mut below: Vec<Utf8PathBuf> = Vec::new();
        for ((layer, diff), chain) in image.layers.iter().zip(diffs).zip(&image.chain) {
            lease.claim(chain)?;
            if self.layer_info(chain)?.is_none() {
                unpacking(layer);
                self.unpack_layer(lease, layer, diff, chain, &below)?;
                fresh += 1;
            }
            below.insert(0, self.layer_files(chain));
        }
        Ok(fresh)
    }

    fn unpack_layer(
        &self,
        lease: &Lease,
        layer: &Descriptor,
        diff: &Digest,
        chain: &Digest,
        below: &[Utf8PathBuf],
    ) -> Result<()> {
        let fresh = Fresh(self.folder("layers").join(lease.new_name()));
        let files = fresh.0.join("fs");
        fs::create_dir_all(&files).map_err(|error| Error::io("create", &files, error))?;
        let content = self.open_blob(&layer.digest)?;
        let unpacked: Unpacked = layer::unpack(content, &files, below, &Limits::default())
            .map_err(|error| within(&format!("layer {}", layer.digest), error))?;
        if unpacked.diff_id != *diff {
            let found = unpacked.diff_id;
            return Err(Error::Corrupt(format!(
                "layer {}: digest mismatch: its archive has digest {found}, the image's configuration says {diff}",
                layer.digest
            )));
        }
        let info =
            LayerInfo { boot: boot()?, is_durable: false, bytes: unpacked.bytes, inodes: unpacked.entries };
        let file = fresh.0.join("layer.json");
        let text = crate::archive::encode(&info)?;
        fs::write(&file, text).map_err(|error| Error::io("write", &file, error))?;
        self.name_layer(&fresh.0, chain)
    }

    fn name_layer(&self, fresh: &Utf8Path, chain: &Digest) -> Result<()> {
        let target = self.layer(chain);
        let is_taken = |error: &std::io::Error| {
            matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists)
        };
        let mut renamed = fs::rename(fresh, &target);
        if renamed.as_ref().is_err_and(is_taken) {
            if self.layer_info(chain)?.is_some() {
                // Somebody else, in another process, was faster with the same.
                return Ok(());
            }
            // What has that name is no layer.
            layout::remove_tree(&target)?;
            renamed = fs::rename(fresh, &target);
        }
        renamed.map_err(|error| Error::io("rename", fresh, error))
    }
}

/// Says where it happened.
fn within(place: &str, error: Error) -> Error {
    match error {
        Error::Invalid(problem) => Error::Invalid(format!("{place}: {problem}")),
        Error::Corrupt(problem) => Error::Corrupt(format!("{place}: {problem}")),
        Error::NoSpace(problem) => Error::NoSpace(format!("{place}: {problem}")),
        Error::Io { operation, source } => Error::Io { operation: format!("{place}: {operation}"), source },
        other => other,
    }
}

/// Names this run of the machine.
fn boot() -> Result<String> {
    let path = Utf8Path::new("/proc/sys/kernel/random/boot_id");
    fs::read_to_string(path)
        .map(|text| text.trim().to_owned())
        .map_err(|error| Error::io("read", path, error))
}

/// One call for the whole file system is faster than one for each of thousands of small files.
fn sync_all_below(path: &Utf8Path) -> Result<()> {
    let folder = File::open(path).map_err(|error| Error::io("open", path, error))?;
    rustix::fs::syncfs(&folder).map_err(|error| Error::io("sync", path, error))
}

/// A folder that is removed again unless it got another name.
struct Fresh(Utf8PathBuf);

impl Drop for Fresh {
    fn drop(&mut self) {
        let _ = layout::remove_tree(&self.0);
    }
}
