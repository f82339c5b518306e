//! Which images there are and what they are called: one small file each, so that several processes can change them.

use std::collections::BTreeMap;
use std::fs::File;
use std::time::SystemTime;

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use super::layout::{self, Layout, NEW_PREFIX};
use crate::manifest::{Descriptor, Manifest};
use crate::{ConfigFile, Digest, Error, ImageConfig, Reference, Result};

/// An image of the store.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageRecord {
    /// `sha256:…` of its configuration.
    pub id: String,
    /// `registry/repository:tag`.
    pub tags: Vec<String>,
    /// `registry/repository@sha256:…`, as it was pulled.
    pub digests: Vec<String>,
    /// Bytes of its content, as registries send it.
    pub size: u64,
    pub config: ImageConfig,
    /// `os/architecture`.
    pub platform: String,
    /// When its configuration says that it was made, or empty.
    pub created: String,
    /// When a container was made from it, or else when it came.
    pub last_used: SystemTime,
}

/// An image, on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct StoredImage {
    pub(super) config: Descriptor,
    /// Digest and size of the manifest are those of its bytes as they came.
    pub(super) manifest: Descriptor,
    pub(super) layers: Vec<Descriptor>,
    /// The lowest first.
    pub(super) chain: Vec<Digest>,
}

impl StoredImage {
    pub(super) fn new(digest: Digest, size: u64, manifest: &Manifest, config: &ConfigFile) -> Self {
        Self {
            config: manifest.config.clone(),
            manifest: Descriptor::new(&manifest.media_type, digest, size),
            layers: manifest.layers.clone(),
            chain: config.chain_ids(),
        }
    }

    pub(super) fn id(&self) -> &Digest {
        &self.config.digest
    }

    pub(super) fn size(&self) -> u64 {
        self.manifest.size + self.config.size + self.layers.iter().map(|layer| layer.size).sum::<u64>()
    }

    /// Of everything that belongs to it.
    pub(super) fn blobs(&self) -> impl Iterator<Item = &Digest> {
        [&self.config.digest, &self.manifest.digest]
            .into_iter()
            .chain(self.layers.iter().map(|layer| &layer.digest))
    }
}

/// A name, on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct StoredReference {
    pub(super) reference: String,
    /// The image's ID.
    pub(super) image: Digest,
    /// What the registry has under this name: the manifest, or the index that it was chosen from.
    pub(super) target: Digest,
}

impl Layout {
    fn image_file(&self, id: &Digest) -> Utf8PathBuf {
        self.folder("images").join(format!("{}.json", id.hex()))
    }

    fn reference_file(&self, reference: &str) -> Utf8PathBuf {
        self.folder("references").join(format!("{}.json", Digest::of(reference.as_bytes()).hex()))
    }

    pub(super) fn image(&self, id: &Digest) -> Result<Option<StoredImage>> {
        layout::read_json(&self.image_file(id))
    }

    pub(super) fn put_image(&self, image: &StoredImage) -> Result<()> {
        layout::write_json(&self.image_file(image.id()), image)
    }

    pub(super) fn remove_image_file(&self, id: &Digest) -> Result<()> {
        layout::remove_file(&self.image_file(id))
    }

    pub(super) fn reference(&self, reference: &Reference) -> Result<Option<StoredReference>> {
        layout::read_json(&self.reference_file(&reference.to_string()))
    }

    pub(super) fn put_reference(&self, reference: &Reference, image: &Digest, target: &Digest) -> Result<()> {
        let stored = StoredReference {
            reference: reference.to_string(),
            image: image.clone(),
            target: target.clone(),
        };
        layout::write_json(&self.reference_file(&stored.reference), &stored)
    }

    pub(super) fn remove_reference(&self, reference: &str) -> Result<()> {
        layout::remove_file(&self.reference_file(reference))
    }

    /// All images. One that cannot be read is logged and left out: the others are still good.
    pub(super) fn all_images(&self) -> Result<Vec<StoredImage>> {
        self.all("images")
    }

    pub(super) fn all_references(&self) -> Result<Vec<StoredReference>> {
        self.all("references")
    }

    fn all<T: serde::de::DeserializeOwned>(&self, folder: &str) -> Result<Vec<T>> {
        let folder = self.folder(folder);
        let mut all = Vec::new();
        for name in layout::names(&folder)? {
            if name.starts_with(NEW_PREFIX) {
                continue;
            }
            match layout::read_json(&folder.join(&name)) {
                Ok(Some(record)) => all.push(record),
                // Somebody removed it just now.
                Ok(None) => {}
                Err(error) => tracing::error!(%error, "Part of the image store cannot be read"),
            }
        }
        Ok(all)
    }

    /// The image was used just now.
    pub(super) fn touch_image(&self, id: &Digest) -> Result<()> {
        let path = self.image_file(id);
        let touched = File::open(&path).and_then(|file| {
            let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
            let times = rustix::fs::Timestamps { last_access: now, last_modification: now };
            Ok(rustix::fs::futimens(&file, &times)?)
        });
        match touched {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("touch", &path, error))
            }
            _ => Ok(()),
        }
    }

    /// Puts together what is asked for.
    pub(super) fn describe(
        &self,
        image: &StoredImage,
        references: &[StoredReference],
    ) -> Result<ImageRecord> {
        let config = ConfigFile::decode(&self.read_document(image.id())?)?;
        let (mut tags, mut digests) = (Vec::new(), Vec::new());
        for name in references.iter().filter(|name| name.image == *image.id()) {
            let list = if name.reference.contains('@') { &mut digests } else { &mut tags };
            list.push(name.reference.clone());
        }
        tags.sort_unstable();
        digests.sort_unstable();
        Ok(ImageRecord {
            id: image.id().to_string(),
            tags,
            digests,
            size: image.size(),
            config: config.config,
            platform: config.platform.to_string(),
            created: config.created,
            last_used: last_change(&self.image_file(image.id())),
        })
    }

    pub(super) fn references_by_image(&self) -> Result<BTreeMap<Digest, Vec<StoredReference>>> {
        let mut by_image: BTreeMap<Digest, Vec<StoredReference>> = BTreeMap::new();
        for reference in self.all_references()? {
            by_image.entry(reference.image.clone()).or_default().push(reference);
        }
        Ok(by_image)
    }
}

fn last_change(path: &Utf8Path) -> SystemTime {
    std::fs::metadata(path).and_then(|metadata| metadata.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
}
