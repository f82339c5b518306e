//! Manifests and indexes, in OCI's form and in Docker's of version 2.
//!
//! `oci-spec` has these types too; ours keep maps sorted, so that what is built twice is the same twice, and read
//! `null` as nothing, which Docker writes.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::platform::Platform;
use crate::{Digest, Error, Result};

/// Of a manifest, an index or a configuration: registries accept no more than 4 MiB of them.
pub const DOCUMENT_BYTES_MAX: u64 = 4 << 20;
/// As many as overlayfs stacks.
pub const LAYERS_MAX: usize = 500;

pub mod media_type {
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Schema 1, which nobody makes any more.
    pub const DOCKER_OLD: &str = "application/vnd.docker.distribution.manifest.v1";

    /// What is asked for.
    pub const ACCEPTED: &[&str] = &[OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST];
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

impl Descriptor {
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self { media_type: media_type.to_owned(), digest, size, annotations: BTreeMap::new(), platform: None }
    }
}

/// One image for one platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub schema_version: u8,
    #[serde(default)]
    pub media_type: String,
    pub config: Descriptor,
    #[serde(default, deserialize_with = "or_default")]
    pub layers: Vec<Descriptor>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The same image for several platforms, or the images of an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    pub schema_version: u8,
    #[serde(default)]
    pub media_type: String,
    #[serde(default, deserialize_with = "or_default")]
    pub manifests: Vec<Descriptor>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    Manifest(Manifest),
    Index(Index),
}

/// Only what tells the forms apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outline {
    #[serde(default)]
    schema_version: u64,
    #[serde(default, deserialize_with = "or_default")]
    media_type: String,
    config: Option<serde::de::IgnoredAny>,
    manifests: Option<serde::de::IgnoredAny>,
}

impl Document {
    /// Reads a manifest or an index; `media_type` is what it came as, or empty.
    pub fn decode(bytes: &[u8], media_type: &str) -> Result<Self> {
        if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
            return Err(Error::Invalid(format!("a manifest of more than {DOCUMENT_BYTES_MAX} bytes")));
        }
        let broken =
            |error: serde_json::Error| Error::Invalid(format!("the manifest cannot be read: {error}"));
        let outline: Outline = serde_json::from_slice(bytes).map_err(broken)?;
        let said = if outline.media_type.is_empty() { media_type } else { &outline.media_type };
        if outline.schema_version == 1 || said.starts_with(media_type::DOCKER_OLD) {
            let problem = "the image has a manifest of Docker's schema 1, which is no longer supported";
            return Err(Error::Invalid(problem.to_owned()));
        }
        // A document that is one thing and says another is how a signed name gets an unsigned meaning.
        match (outline.config.is_some(), outline.manifests.is_some()) {
            (true, true) => Err(Error::Invalid("the manifest is an index as well".to_owned())),
            (true, false) if [media_type::OCI_INDEX, media_type::DOCKER_LIST].contains(&said) => {
                Err(Error::Invalid(format!("a manifest that says to be {said}")))
            }
            (false, true) if [media_type::OCI_MANIFEST, media_type::DOCKER_MANIFEST].contains(&said) => {
                Err(Error::Invalid(format!("an index that says to be {said}")))
            }
            (true, false) => {
                let manifest: Manifest = serde_json::from_slice(bytes).map_err(broken)?;
                manifest.check().map(|()| Self::Manifest(manifest))
            }
            (false, true) => Ok(Self::Index(serde_json::from_slice(bytes).map_err(broken)?)),
            (false, false) => Err(Error::Invalid("neither a manifest nor an index".to_owned())),
        }
    }
}

impl Manifest {
    fn check(&self) -> Result<()> {
        let config = self.config.media_type.as_str();
        if !config.is_empty() && ![media_type::OCI_CONFIG, media_type::DOCKER_CONFIG].contains(&config) {
            return Err(Error::Invalid(format!("not a container image but an artifact of type {config}")));
        }
        if self.config.size > DOCUMENT_BYTES_MAX {
            return Err(Error::Invalid(format!("a configuration of more than {DOCUMENT_BYTES_MAX} bytes")));
        }
        if self.layers.len() > LAYERS_MAX {
            let layers = self.layers.len();
            return Err(Error::Invalid(format!("the image has {layers} layers, more than {LAYERS_MAX}")));
        }
        Ok(())
    }
}

/// `null` is nothing.
pub(crate) fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> std::result::Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn forms_are_told_apart() {
        let descriptor = format!(r#"{{"mediaType":"","digest":"{DIGEST}","size":0}}"#);
        let manifest = format!(r#"{{"schemaVersion":2,"config":{descriptor},"layers":[{descriptor}]}}"#);
        assert!(matches!(Document::decode(manifest.as_bytes(), ""), Ok(Document::Manifest(_))));
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{descriptor}]}}"#);
        assert!(matches!(Document::decode(index.as_bytes(), media_type::OCI_INDEX), Ok(Document::Index(_))));
    }

    #[test]
    fn what_is_no_image_is_named() {
        let descriptor = |kind: &str| format!(r#"{{"mediaType":"{kind}","digest":"{DIGEST}","size":0}}"#);
        let layers = vec![descriptor(""); LAYERS_MAX + 1].join(",");
        for (text, kind, problem) in [
            ("{}".to_owned(), "", "neither"),
            ("[]".to_owned(), "", "cannot be read"),
            (r#"{"schemaVersion":1}"#.to_owned(), "", "schema 1"),
            (format!(r#"{{"config":{},"manifests":[]}}"#, descriptor("")), "", "index as well"),
            (
                format!(r#"{{"schemaVersion":2,"config":{}}}"#, descriptor("")),
                media_type::OCI_INDEX,
                "says to be",
            ),
            (r#"{"schemaVersion":2,"manifests":[]}"#.to_owned(), media_type::DOCKER_MANIFEST, "says to be"),
            (
                format!(
                    r#"{{"schemaVersion":2,"config":{}}}"#,
                    descriptor("application/vnd.cncf.helm.config.v1+json")
                ),
                "",
                "artifact of type application/vnd.cncf.helm",
            ),
            (
                format!(r#"{{"schemaVersion":2,"config":{},"layers":[{layers}]}}"#, descriptor("")),
                "",
                "501 layers",
            ),
        ] {
            let error = Document::decode(text.as_bytes(), kind).unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }
}
