//! An image's configuration: what runs in it, and which archives its layers are made from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::manifest::or_default;
use crate::platform::Platform;
use crate::{Digest, Error, Result};

/// What a container gets from its image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// `NAME=value`.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// `user`, `uid`, `user:group`, …; empty for root.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub user: String,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Paths, as the keys of a map.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Empty>,
    /// `port/protocol`, as the keys of a map.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Empty>,
}

/// `{}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// The whole file; its digest is the image's ID.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigFile {
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub created: String,
    #[serde(flatten)]
    pub platform: Platform,
    #[serde(default, deserialize_with = "or_default")]
    pub config: ImageConfig,
    pub rootfs: RootfsLayers,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootfsLayers {
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Digests of the layers' archives as they are before compression, the lowest first.
    #[serde(default, deserialize_with = "or_default")]
    pub diff_ids: Vec<Digest>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub created: String,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

impl ConfigFile {
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let config: Self = serde_json::from_slice(bytes)
            .map_err(|error| Error::Invalid(format!("the image's configuration cannot be read: {error}")))?;
        if !config.rootfs.kind.is_empty() && config.rootfs.kind != "layers" {
            let kind = &config.rootfs.kind;
            return Err(Error::Invalid(format!(
                "the image has a root file system of type {kind:?}, not \"layers\""
            )));
        }
        Ok(config)
    }

    /// For each layer, what names it together with everything below it.
    pub fn chain_ids(&self) -> Vec<Digest> {
        let mut chain: Vec<Digest> = Vec::with_capacity(self.rootfs.diff_ids.len());
        for diff in &self.rootfs.diff_ids {
            let id = match chain.last() {
                None => diff.clone(),
                Some(below) => Digest::of(format!("{below} {diff}").as_bytes()),
            };
            chain.push(id);
        }
        chain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_docker_writes_is_read() {
        let text = r#"{"architecture":"amd64","os":"linux","created":"2026-01-01T00:00:00Z",
            "config":{"Hostname":"","Entrypoint":null,"Cmd":["sh"],"Env":["A=b"],"Labels":null,"User":"",
                "Volumes":{"/data":{}},"ExposedPorts":{"80/tcp":{}},"OnBuild":null},
            "rootfs":{"type":"layers","diff_ids":[]},"history":[{"created_by":"x","empty_layer":true}]}"#;
        let file = ConfigFile::decode(text.as_bytes()).unwrap();
        assert_eq!(file.platform.to_string(), "linux/amd64");
        assert_eq!((file.config.cmd, file.config.env), (vec!["sh".to_owned()], vec!["A=b".to_owned()]));
        assert_eq!(file.config.volumes.into_keys().collect::<Vec<_>>(), ["/data"]);
        assert!(ConfigFile::decode(br#"{"config":null,"rootfs":{"diff_ids":null}}"#).is_ok());
        assert!(ConfigFile::decode(br#"{"rootfs":{"type":"base"}}"#).is_err());
    }

    #[test]
    fn a_layer_is_named_with_all_below_it() {
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let mut file = ConfigFile::default();
        file.rootfs.diff_ids = vec![one.clone(), two.clone()];
        let chain = file.chain_ids();
        assert_eq!(chain, [one.clone(), Digest::of(format!("{one} {two}").as_bytes())]);
    }
}
