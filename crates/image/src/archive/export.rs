//! Archives of images, written: an OCI layout with the `manifest.json` that `docker load` wants.

use std::collections::BTreeSet;
use std::io::{Read, Write};

use serde::Serialize;
use tar::{Builder, EntryType, Header};

use crate::manifest::{Descriptor, Document, Index, media_type};
use crate::store::Layout;
use crate::{Digest, Error, Reference, Result};

/// An image and what it is called in the archive.
#[derive(Clone, Debug)]
pub(crate) struct Exported {
    pub(crate) manifest: Descriptor,
    pub(crate) references: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

/// The same images give the same bytes.
pub(crate) fn export(layout: &Layout, images: &[Exported], archive: impl Write) -> Result<()> {
    let mut archive = Builder::new(archive);
    let mut docker = Vec::new();
    let mut entries = Vec::new();
    let mut blobs: BTreeSet<Digest> = BTreeSet::new();
    for image in images {
        let bytes = layout.read_document(&image.manifest.digest)?;
        let Document::Manifest(manifest) = Document::decode(&bytes, &image.manifest.media_type)? else {
            return Err(Error::Corrupt(format!(
                "the image store is damaged: {} is no manifest",
                image.manifest.digest
            )));
        };
        blobs.insert(image.manifest.digest.clone());
        blobs.insert(manifest.config.digest.clone());
        blobs.extend(manifest.layers.iter().map(|layer| layer.digest.clone()));
        docker.push(DockerImage {
            config: path_of(&manifest.config.digest),
            repo_tags: image.references.iter().map(|name| familiar(name)).collect(),
            layers: manifest.layers.iter().map(|layer| path_of(&layer.digest)).collect(),
        });
        let plain =
            Descriptor::new(&image.manifest.media_type, image.manifest.digest.clone(), image.manifest.size);
        if image.references.is_empty() {
            entries.push(plain);
            continue;
        }
        for name in &image.references {
            let mut entry = plain.clone();
            let tag = name.parse::<Reference>()?.tag().unwrap_or_default().to_owned();
            entry.annotations.insert("io.containerd.image.name".to_owned(), name.clone());
            entry.annotations.insert("org.opencontainers.image.ref.name".to_owned(), tag);
            entries.push(entry);
        }
    }
    let index = Index { schema_version: 2, media_type: media_type::OCI_INDEX.to_owned(), manifests: entries };
    append_bytes(&mut archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    append_bytes(&mut archive, "index.json", &super::encode(&index)?)?;
    append_bytes(&mut archive, "manifest.json", &super::encode(&docker)?)?;
    for digest in &blobs {
        let content = layout.open_blob(digest)?;
        let size = layout.blob_size(digest).unwrap_or_default();
        append(&mut archive, &path_of(digest), size, content)?;
    }
    archive.into_inner().and_then(|mut archive| archive.flush()).map_err(failed)
}

fn path_of(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

/// As Docker calls it.
fn familiar(name: &str) -> String {
    let short = name.strip_prefix("docker.io/").unwrap_or(name);
    short.strip_prefix("library/").filter(|_| short.len() < name.len()).unwrap_or(short).to_owned()
}

fn append_bytes(archive: &mut Builder<impl Write>, path: &str, bytes: &[u8]) -> Result<()> {
    append(archive, path, bytes.len() as u64, bytes)
}

fn append(archive: &mut Builder<impl Write>, path: &str, size: u64, content: impl Read) -> Result<()> {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::Regular);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    archive.append_data(&mut header, path, content).map_err(failed)
}

fn failed(error: std::io::Error) -> Error {
    Error::of_io("write the archive".to_owned(), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_docker() {
        for (name, short) in [
            ("docker.io/library/busybox:1", "busybox:1"),
            ("docker.io/user/app:1", "user/app:1"),
            ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10"),
            ("host.example/library/app:1", "host.example/library/app:1"),
        ] {
            assert_eq!(familiar(name), short);
        }
    }
}
