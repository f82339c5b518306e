//! Archives of images, read: an OCI layout, or what `docker save` writes, or both at once.
//!
//! The archive is read once, from start to end, and every file in it becomes a blob; what turns out to belong to no
//! image is collected later.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use serde::Deserialize;

use crate::layer::archive::{Archive, Kind};
use crate::layer::compression::{Compression, decompressed};
use crate::manifest::{DOCUMENT_BYTES_MAX, Descriptor, Document, Index, Manifest, media_type, or_default};
use crate::platform::Platform;
use crate::store::{Layout, Lease};
use crate::{Digest, Error, Reference, Result};

/// Files in an archive; each layer of each image is up to three.
const FILES_MAX: usize = 1 << 16;
/// An index may name indexes; nobody nests deeper.
const DEPTH_MAX: usize = 4;

/// An image's whole name, as containerd writes it.
const ANNOTATION_NAME: &str = "io.containerd.image.name";
/// A name or only a tag, as the specification has it.
const ANNOTATION_REFERENCE: &str = "org.opencontainers.image.ref.name";

/// An image of an archive; its content is in the store.
#[derive(Clone, Debug)]
pub(crate) struct Imported {
    pub(crate) manifest: Digest,
    pub(crate) references: Vec<Reference>,
}

/// An image in the `manifest.json` of `docker save`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default, deserialize_with = "or_default")]
    repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    layers: Vec<String>,
}

/// Takes over all images of an archive that are for this machine. `name` is for what has none.
pub(crate) fn import(
    layout: &Layout,
    lease: &Lease,
    archive: impl Read,
    name: Option<&Reference>,
) -> Result<Vec<Imported>> {
    let files = Files::read(layout, lease, archive)?;
    let docker: Vec<DockerImage> = match files.document(layout, "manifest.json")? {
        Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
            Error::Invalid(format!("manifest.json of the archive cannot be read: {error}"))
        })?,
        None => Vec::new(),
    };
    let mut images = match files.document(layout, "index.json")? {
        Some(bytes) => from_index(layout, &bytes, &docker)?,
        None if docker.is_empty() => {
            return Err(Error::Invalid(
                "not an archive of images: it has neither index.json nor manifest.json".to_owned(),
            ));
        }
        None => {
            docker.iter().map(|image| from_docker(layout, lease, &files, image)).collect::<Result<_>>()?
        }
    };
    if images.is_empty() {
        return Err(Error::Invalid("the archive has no image".to_owned()));
    }
    if let Some(name) = name {
        let is_unnamed = |image: &&mut Imported| image.references.is_empty();
        let unnamed = images.iter().filter(|image| image.references.is_empty()).count();
        match (images.as_mut_slice(), unnamed) {
            // The only one gets it, whatever else it is called.
            ([image], _) => image.references.push(name.clone()),
            (_, 0) => {}
            (images, 1) => {
                images.iter_mut().filter(is_unnamed).for_each(|image| image.references.push(name.clone()));
            }
            _ => return Err(Error::Invalid(format!("the archive has several images that could be {name}"))),
        }
    }
    Ok(images)
}

/// The files of an archive, as blobs.
struct Files {
    by_path: BTreeMap<String, (Digest, u64)>,
    /// Links: `docker save` used to write a layer that several images have once.
    links: BTreeMap<String, String>,
}

impl Files {
    fn read(layout: &Layout, lease: &Lease, archive: impl Read) -> Result<Self> {
        let mut files = Self { by_path: BTreeMap::new(), links: BTreeMap::new() };
        let mut archive = Archive::new(decompressed(archive)?);
        while let Some(entry) = archive.next()? {
            let path = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
            let Some(path_text) = path(&entry.path) else { continue };
            let normal = normal(&path_text, "");
            match entry.kind {
                Kind::File if entry.segments.is_none() => {
                    let (digest, size) = layout.put(lease, &mut archive)?;
                    check_name(&normal, &digest)?;
                    files.by_path.insert(normal, (digest, size));
                }
                Kind::Symlink => {
                    let Some(link) = path(&entry.link) else { continue };
                    let folder = normal.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
                    files.links.insert(normal, self::normal(&link, &folder));
                }
                Kind::HardLink => {
                    let Some(link) = path(&entry.link) else { continue };
                    files.links.insert(normal, self::normal(&link, ""));
                }
                _ => {}
            }
            if files.by_path.len() + files.links.len() > FILES_MAX {
                return Err(Error::Invalid(format!("the archive has more than {FILES_MAX} files")));
            }
        }
        Ok(files)
    }

    fn find(&self, path: &str) -> Option<&(Digest, u64)> {
        let path = normal(path, "");
        self.by_path.get(&path).or_else(|| self.by_path.get(self.links.get(&path)?))
    }

    fn document(&self, layout: &Layout, path: &str) -> Result<Option<Vec<u8>>> {
        let Some((digest, size)) = self.find(path) else { return Ok(None) };
        if *size > DOCUMENT_BYTES_MAX {
            return Err(Error::Invalid(format!(
                "{path} of the archive has more than {DOCUMENT_BYTES_MAX} bytes"
            )));
        }
        layout.read_document(digest).map(Some)
    }
}

/// Without `.` and `..`, relative to the archive.
fn normal(path: &str, folder: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let folder = if path.starts_with('/') { "" } else { folder };
    for part in folder.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// A file below `blobs` has to be what it is called.
fn check_name(path: &str, digest: &Digest) -> Result<()> {
    match path.strip_prefix("blobs/sha256/") {
        Some(hex) if hex != digest.hex() => {
            Err(Error::Corrupt(format!("digest mismatch: {path} of the archive has digest {digest}")))
        }
        _ => Ok(()),
    }
}

fn from_index(layout: &Layout, bytes: &[u8], docker: &[DockerImage]) -> Result<Vec<Imported>> {
    let index: Index = serde_json::from_slice(bytes)
        .map_err(|error| Error::Invalid(format!("index.json of the archive cannot be read: {error}")))?;
    // One line for each name: the same image may come several times.
    let mut names: BTreeMap<Digest, BTreeSet<Reference>> = BTreeMap::new();
    let mut order = Vec::new();
    // Where every entry is the same image for another machine, the index is one image itself.
    let is_one_image = index.manifests.len() > 1
        && index.manifests.iter().all(|entry| entry.platform.is_some() && named(entry).is_none());
    let entries: Vec<&Descriptor> = if is_one_image {
        vec![Platform::host().choose(&index.manifests)?]
    } else {
        index.manifests.iter().collect()
    };
    for entry in entries {
        let Some((digest, manifest)) = choose(layout, entry, DEPTH_MAX)? else { continue };
        let known = names.entry(digest.clone()).or_default();
        if !order.contains(&digest) {
            order.push(digest);
        }
        known.extend(named(entry));
        let tags = docker
            .iter()
            .filter(|image| image.config.contains(manifest.config.digest.hex()))
            .flat_map(|image| &image.repo_tags);
        for tag in tags {
            known.insert(tag.parse()?);
        }
    }
    Ok(order
        .into_iter()
        .map(|manifest| {
            let references = names.remove(&manifest).unwrap_or_default().into_iter().collect();
            Imported { manifest, references }
        })
        .collect())
}

/// A tag alone names nothing.
fn named(entry: &Descriptor) -> Option<Reference> {
    if let Some(name) = entry.annotations.get(ANNOTATION_NAME) {
        return name.parse().ok();
    }
    let name = entry.annotations.get(ANNOTATION_REFERENCE)?;
    name.contains(['/', ':']).then(|| name.parse().ok())?
}

/// The manifest that an entry means on this machine; none for what is no image.
fn choose(layout: &Layout, entry: &Descriptor, depth: usize) -> Result<Option<(Digest, Manifest)>> {
    if layout.blob_size(&entry.digest).is_none() {
        return Err(Error::Invalid(format!("the archive names {}, and does not hold it", entry.digest)));
    }
    let bytes = layout.read_document(&entry.digest)?;
    match Document::decode(&bytes, &entry.media_type) {
        Ok(Document::Manifest(manifest)) => Ok(Some((entry.digest.clone(), manifest))),
        Ok(Document::Index(_)) if depth == 0 => Err(Error::Invalid("indexes are nested too deep".to_owned())),
        Ok(Document::Index(index)) => choose(layout, Platform::host().choose(&index.manifests)?, depth - 1),
        Err(error) => Err(error),
    }
}

/// Makes the manifest that `docker save` leaves out.
fn from_docker(layout: &Layout, lease: &Lease, files: &Files, image: &DockerImage) -> Result<Imported> {
    let find = |path: &str| {
        files
            .find(path)
            .ok_or_else(|| Error::Invalid(format!("the archive names {path}, and does not hold it")))
    };
    let (config, config_size) = find(&image.config)?;
    let mut layers = Vec::with_capacity(image.layers.len());
    for path in &image.layers {
        let (digest, size) = find(path)?;
        layers.push(Descriptor::new(layer_type(layout, digest)?, digest.clone(), *size));
    }
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::OCI_MANIFEST.to_owned(),
        config: Descriptor::new(media_type::OCI_CONFIG, config.clone(), *config_size),
        layers,
        annotations: BTreeMap::new(),
    };
    let manifest = layout.put_bytes(lease, &super::encode(&manifest)?)?;
    let references = image.repo_tags.iter().map(|tag| tag.parse()).collect::<Result<_>>()?;
    Ok(Imported { manifest, references })
}

fn layer_type(layout: &Layout, digest: &Digest) -> Result<&'static str> {
    let mut start = Vec::new();
    layout
        .open_blob(digest)?
        .take(8)
        .read_to_end(&mut start)
        .map_err(|error| Error::io("read", &layout.blob(digest), error))?;
    Ok(match Compression::of(&start)? {
        Compression::Plain => media_type::OCI_LAYER,
        Compression::Gzip => media_type::OCI_LAYER_GZIP,
        Compression::Zstd => media_type::OCI_LAYER_ZSTD,
    })
}
