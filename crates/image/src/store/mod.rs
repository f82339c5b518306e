//! The store: images, their content and layers, and what containers made of them, in one folder.
//!
//! Start at [`Store`]; how the folder looks is in [`layout`]. What is made is claimed by a [`lease`] until an image
//! or a snapshot refers to it; [`collect`] removes the rest.
//!
//! Lock order: the store's lock, then a lease's. Neither is held across `.await`.

mod blobs;
mod collect;
mod filesystem;
mod keyed;
mod layers;
mod layout;
mod lease;
mod lookup;
mod pull;
mod records;
mod snapshots;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};

pub(crate) use blobs::FreshBlob;
pub use collect::Collected;
pub use filesystem::Filesystem;
pub(crate) use keyed::KeyedLocks;
pub(crate) use layout::Layout;
pub(crate) use lease::Lease;
use lookup::{find, not_found, remove};
pub use pull::{Progress, Pull, Silent, Step};
pub use records::ImageRecord;
use records::StoredImage;
pub use snapshots::{Snapshot, Usage};

use crate::build::Build;
use crate::manifest::{Document, media_type};
use crate::platform::Platform;
use crate::registry::Registries;
use crate::{ConfigFile, Digest, Error, Reference, Result, Rootfs};

/// How a store behaves.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where registries are configured, `DIR/<registry>/hosts.toml` as containerd reads it; see [`crate::registry`].
    pub registries: Option<Utf8PathBuf>,
}

/// Images in a folder. Cheap to clone; several processes may have the same folder open.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    layout: Layout,
    registries: Registries,
    /// By what is being fetched or unpacked: a second one that wants the same waits and finds it done.
    working: KeyedLocks,
    /// Only root can make files of others, devices and the marks of overlayfs. Without that images are kept packed.
    unpacks: bool,
}

impl Store {
    /// Opens the store, made where it is missing.
    pub async fn open(root: &Utf8Path, options: Options) -> Result<Self> {
        let root = root.to_owned();
        let layout = blocking(move || Layout::open(&root)).await?;
        let shared = Shared {
            layout,
            registries: Registries::new(options.registries),
            working: KeyedLocks::default(),
            unpacks: rustix::process::geteuid().is_root(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Where it lies.
    pub fn root(&self) -> &Utf8Path {
        self.shared.layout.root()
    }

    /// Fetches an image, unless it is here already as the registry has it now.
    pub async fn pull(&self, image: &str, pull: Pull) -> Result<ImageRecord> {
        pull::pull(self, image, pull).await
    }

    /// The image that a reference or an ID means; a unique beginning of an ID is enough.
    pub async fn resolve(&self, name: &str) -> Result<Option<ImageRecord>> {
        let name = name.to_owned();
        self.with_layout(move |layout| match find(layout, &name)? {
            Some(image) => layout.describe(&image, &layout.all_references()?).map(Some),
            None => Ok(None),
        })
        .await
    }

    /// All images, also those without a name.
    pub async fn images(&self) -> Result<Vec<ImageRecord>> {
        self.with_layout(|layout| {
            let references = layout.references_by_image()?;
            let mut records = Vec::new();
            for image in layout.all_images()? {
                match layout.describe(&image, references.get(image.id()).map_or(&[], Vec::as_slice)) {
                    Ok(record) => records.push(record),
                    Err(error) => tracing::error!(image = %image.id(), %error, "An image cannot be read"),
                }
            }
            Ok(records)
        })
        .await
    }

    /// Gives an image another name.
    pub async fn tag(&self, name: &str, reference: &Reference) -> Result<()> {
        let (name, reference) = (name.to_owned(), reference.clone());
        self.with_layout(move |layout| {
            let _lock = layout.lock_shared()?;
            let image = find(layout, &name)?.ok_or_else(|| not_found(&name))?;
            layout.put_reference(&reference, image.id(), &image.manifest.digest)
        })
        .await
    }

    /// Removes a name and, with its last name, the image. By ID it removes the image with all its names. What is not
    /// there is no error; what a container is made from is one.
    pub async fn remove(&self, name: &str) -> Result<()> {
        let name = name.to_owned();
        self.with_layout(move |layout| {
            remove(layout, &name)?;
            layout.collect().map(drop)
        })
        .await
    }

    /// Removes what nobody refers to.
    pub async fn collect(&self) -> Result<Collected> {
        self.with_layout(Layout::collect).await
    }

    /// Layers of the image and a writable one on top, for the container `key`. The image stays as long as it has a
    /// snapshot. Asked again for the same it answers the same.
    pub async fn prepare(&self, image: &str, key: &str) -> Result<Rootfs> {
        self.snapshot(image, key, false).await
    }

    /// The same, but nothing can be written.
    pub async fn view(&self, image: &str, key: &str) -> Result<Rootfs> {
        self.snapshot(image, key, true).await
    }

    async fn snapshot(&self, image: &str, key: &str, read_only: bool) -> Result<Rootfs> {
        let stored = {
            let name = image.to_owned();
            self.with_layout(move |layout| find(layout, &name)?.ok_or_else(|| not_found(&name))).await?
        };
        let lease = self.unpack(self.lease().await?, stored.clone(), |_| ()).await?;
        let key = key.to_owned();
        self.with_layout(move |layout| {
            // So that the image cannot be removed between here and there.
            let _lock = layout.lock_shared()?;
            if layout.image(stored.id())?.is_none() {
                return Err(not_found(stored.id().as_str()));
            }
            layout.touch_image(stored.id())?;
            layout.make_snapshot(&lease, &key, &stored, read_only)
        })
        .await
    }

    /// Removes what a container changed, after it was unmounted. What is gone is no error.
    pub async fn remove_snapshot(&self, key: &str) -> Result<()> {
        let key = key.to_owned();
        self.with_layout(move |layout| layout.remove_snapshot(&key)).await
    }

    pub async fn snapshots(&self) -> Result<Vec<Snapshot>> {
        self.with_layout(Layout::all_snapshots).await
    }

    /// The keys of all snapshots, also of those that are not whole.
    pub async fn snapshot_keys(&self) -> Result<Vec<String>> {
        self.with_layout(Layout::snapshot_keys).await
    }

    /// What the container `key` wrote.
    pub async fn usage(&self, key: &str) -> Result<Usage> {
        let key = key.to_owned();
        self.with_layout(move |layout| layout.snapshot_usage(&key)).await
    }

    pub async fn filesystem(&self) -> Result<Filesystem> {
        self.with_layout(filesystem::examine).await
    }

    /// Takes over the images of an archive: an OCI layout or what `docker save` writes, plain or compressed. What has
    /// no name in it gets `name`.
    pub async fn import(
        &self,
        archive: impl Read + Send + 'static,
        name: Option<Reference>,
    ) -> Result<Vec<ImageRecord>> {
        let lease = self.lease().await?;
        let (lease, found) = self
            .with_layout(move |layout| {
                let found = crate::archive::import(layout, &lease, archive, name.as_ref())?;
                Ok((lease, found))
            })
            .await?;
        let lease = Arc::new(lease);
        let mut records = Vec::new();
        for image in found {
            records
                .push(self.adopt(&lease, &image.manifest, &image.manifest, image.references, |_| ()).await?);
        }
        Ok(records)
    }

    /// Writes images into an archive that is an OCI layout and that `docker load` reads as well.
    pub async fn export(&self, names: &[String], archive: impl Write + Send + 'static) -> Result<()> {
        let names = names.to_owned();
        let lease = self.lease().await?;
        self.with_layout(move |layout| {
            let references = layout.references_by_image()?;
            let mut images: BTreeMap<Digest, crate::archive::Exported> = BTreeMap::new();
            for name in &names {
                let image = find(layout, name)?.ok_or_else(|| not_found(name))?;
                for blob in image.blobs() {
                    lease.claim(blob)?;
                }
                // Asked for by ID it takes its names along; asked for by name it has that one.
                let called = match name.parse::<Reference>() {
                    Ok(reference) if layout.reference(&reference)?.is_some() => vec![reference.to_string()],
                    _ => references
                        .get(image.id())
                        .into_iter()
                        .flatten()
                        .map(|reference| reference.reference.clone())
                        .filter(|reference| !reference.contains('@'))
                        .collect(),
                };
                let exported = images.entry(image.id().clone()).or_insert_with(|| crate::archive::Exported {
                    manifest: image.manifest.clone(),
                    references: Vec::new(),
                });
                exported.references.extend(called);
            }
            let images: Vec<_> = images.into_values().collect();
            crate::archive::export(layout, &images, archive)
        })
        .await
    }

    /// Makes an image from files, and calls it `reference`.
    pub async fn build(&self, build: Build, reference: &Reference) -> Result<ImageRecord> {
        let lease = self.lease().await?;
        let (lease, manifest) = self
            .with_layout(move |layout| {
                let manifest = crate::build::build(layout, &lease, &build)?;
                Ok((lease, manifest))
            })
            .await?;
        self.adopt(&Arc::new(lease), &manifest, &manifest, vec![reference.clone()], |_| ()).await
    }

    /// An image of the running program with what it is linked to, so that a cluster has one without any registry.
    pub async fn build_self(&self, reference: &Reference) -> Result<ImageRecord> {
        let build = blocking(Build::of_this_process).await?;
        self.build(build, reference).await
    }

    /// Makes the manifest `digest`, whose content is here, an image with these names. `target` is what the names mean
    /// where they come from.
    async fn adopt(
        &self,
        lease: &Arc<Lease>,
        digest: &Digest,
        target: &Digest,
        references: Vec<Reference>,
        unpacking: impl FnMut(&crate::manifest::Descriptor) + Send + 'static,
    ) -> Result<ImageRecord> {
        let (digest, target) = (digest.clone(), target.clone());
        let image = self.with_layout(move |layout| read_image(layout, &digest)).await?;
        let lease = if self.shared.unpacks {
            self.unpack(lease.clone(), image.clone(), unpacking).await?
        } else {
            lease.clone()
        };
        self.with_layout(move |layout| {
            layout.put_image(&image)?;
            for reference in &references {
                layout.put_reference(reference, image.id(), &target)?;
            }
            drop(lease);
            layout.describe(&image, &layout.all_references()?)
        })
        .await
    }

    /// Unpacks what is not yet, which only one does at a time. Returns the lease that claims the layers.
    async fn unpack(
        &self,
        lease: impl Into<Arc<Lease>>,
        image: StoredImage,
        unpacking: impl FnMut(&crate::manifest::Descriptor) + Send + 'static,
    ) -> Result<Arc<Lease>> {
        let lease = lease.into();
        let _working = match image.chain.last() {
            Some(top) => Some(self.shared.working.lock(&format!("layer {top}")).await),
            None => None,
        };
        let (lease, image, fresh) = self
            .with_layout(move |layout| {
                let fresh = layout.unpack_image(&lease, &image, unpacking)?;
                Ok((lease, image, fresh))
            })
            .await?;
        if fresh > 0 {
            let store = self.clone();
            rt::spawn("image layers to disk", async move {
                let outcome = store.with_layout(move |layout| layout.make_durable(&image)).await;
                if let Err(error) = outcome {
                    // They went meanwhile, or else are unpacked again after the machine went down.
                    tracing::debug!(%error, "Layers of an image are not known to be on disk");
                }
            });
        }
        Ok(lease)
    }

    async fn lease(&self) -> Result<Lease> {
        self.with_layout(Lease::new).await
    }

    async fn with_layout<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Layout) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let shared = self.shared.clone();
        blocking(move || work(&shared.layout)).await
    }
}

/// Runs what waits for the disk on a thread that may.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Error::of_io("work on images".to_owned(), std::io::Error::other(error))))
}

/// Reads manifest and configuration of what is to be an image.
fn read_image(layout: &Layout, digest: &Digest) -> Result<StoredImage> {
    let bytes = layout.read_document(digest)?;
    let Document::Manifest(mut manifest) = Document::decode(&bytes, "")? else {
        return Err(Error::Invalid(format!("{digest} is an index, not a manifest")));
    };
    if manifest.media_type.is_empty() {
        manifest.media_type = media_type::OCI_MANIFEST.to_owned();
    }
    let config = ConfigFile::decode(&layout.read_document(&manifest.config.digest)?)?;
    let host = Platform::host();
    if !host.runs(&config.platform) {
        let offered = &config.platform;
        return Err(Error::Invalid(format!(
            "no match for platform in manifest: this machine is {host}, the image has {offered}"
        )));
    }
    for layer in &manifest.layers {
        if layout.blob_size(&layer.digest) != Some(layer.size) {
            return Err(Error::Invalid(format!("layer {} of {} bytes is missing", layer.digest, layer.size)));
        }
    }
    Ok(StoredImage::new(digest.clone(), bytes.len() as u64, &manifest, &config))
}
