//! Images made from files of this machine, without a registry and without running anything.
//!
//! **Invariant (reproducible):** the same files and options give the same image, byte for byte: entries are sorted,
//! and every time is the beginning of 1970.

mod folder;
mod self_image;

use std::collections::BTreeMap;
use std::io::Write;

use camino::Utf8PathBuf;
use flate2::write::GzEncoder;

use crate::config::{ConfigFile, Empty, History, RootfsLayers};
use crate::digest::Hashing;
use crate::manifest::{Descriptor, Manifest, media_type};
use crate::platform::Platform;
use crate::store::{FreshBlob, Layout, Lease};
use crate::{Digest, Hasher, ImageConfig, Result};

const EPOCH: &str = "1970-01-01T00:00:00Z";

/// What an image is made from.
#[derive(Clone, Debug, Default)]
pub struct Build {
    pub source: Source,
    pub config: ImageConfig,
}

#[derive(Clone, Debug)]
pub enum Source {
    /// The content of a folder.
    Folder(Utf8PathBuf),
    /// Files of this machine, by their paths in the image; they belong to root.
    Files(BTreeMap<Utf8PathBuf, Utf8PathBuf>),
}

impl Default for Source {
    fn default() -> Self {
        Self::Files(BTreeMap::new())
    }
}

impl Build {
    /// Everything in a folder.
    pub fn from_folder(folder: impl Into<Utf8PathBuf>) -> Self {
        Self { source: Source::Folder(folder.into()), config: ImageConfig::default() }
    }

    /// One program that needs no other file; it is what runs.
    pub fn from_binary(binary: impl Into<Utf8PathBuf>) -> Self {
        let binary = binary.into();
        let path = Utf8PathBuf::from("/").join(binary.file_name().unwrap_or("app"));
        let config = ImageConfig { entrypoint: vec![path.to_string()], ..ImageConfig::default() };
        Self { source: Source::Files(BTreeMap::from([(path, binary)])), config }
    }

    /// The program that runs here, with the loader and the libraries that it has in memory.
    pub fn of_this_process() -> Result<Self> {
        self_image::SelfImage::of_this_process()?.into_build()
    }

    /// `port` or `port/protocol`.
    pub fn expose(&mut self, port: &str) {
        let port = if port.contains('/') { port.to_owned() } else { format!("{port}/tcp") };
        self.config.exposed_ports.insert(port, Empty {});
    }
}

/// Writes an image of one layer into the store. Returns the digest of its manifest.
pub(crate) fn build(layout: &Layout, lease: &Lease, build: &Build) -> Result<Digest> {
    let blob = FreshBlob::new(layout, lease)?;
    // Without a name or a time in it, so that the same content is the same blob. Who waits for a build minds time more
    // than a tenth of its size.
    let gzip = GzEncoder::new(blob, flate2::Compression::fast());
    let mut archive = tar::Builder::new(Hashing::new(gzip, Hasher::sha256()));
    archive.follow_symlinks(false);
    match &build.source {
        Source::Folder(path) => folder::append_folder(&mut archive, path)?,
        Source::Files(files) => folder::append_files(&mut archive, files)?,
    }
    let (gzip, diff, _) = archive.into_inner().map_err(folder::unwritten)?.finish();
    let mut blob = gzip.finish().map_err(folder::unwritten)?;
    blob.flush().map_err(folder::unwritten)?;
    let (layer, layer_size) = blob.finish()?;
    let config = ConfigFile {
        created: EPOCH.to_owned(),
        platform: Platform { variant: String::new(), ..Platform::host() },
        config: build.config.clone(),
        rootfs: RootfsLayers { kind: "layers".to_owned(), diff_ids: vec![diff] },
        history: vec![History {
            created: EPOCH.to_owned(),
            created_by: "pintle image build".to_owned(),
            empty_layer: false,
        }],
    };
    let config = crate::archive::encode(&config)?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::OCI_MANIFEST.to_owned(),
        config: Descriptor::new(
            media_type::OCI_CONFIG,
            layout.put_bytes(lease, &config)?,
            config.len() as u64,
        ),
        layers: vec![Descriptor::new(media_type::OCI_LAYER_GZIP, layer, layer_size)],
        annotations: BTreeMap::new(),
    };
    layout.put_bytes(lease, &crate::archive::encode(&manifest)?)
}
