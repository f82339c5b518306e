//! Which resources are served: `--runtime-config` over upstream's defaults.
//!
//! Owns: the syntax and precedence of the flag, and which resources need a feature gate as well. All words about a
//! kind of version come first, then those about one version, then those about one resource.

use std::collections::{BTreeMap, BTreeSet};

use super::tables;
use crate::features::{self, Features};

/// What an administrator said about single APIs. The default says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeConfig {
    /// In the order in which they are applied.
    by_stage: Vec<(Stage, bool)>,
    by_version: BTreeMap<String, bool>,
    by_resource: BTreeMap<String, bool>,
}

/// `api/all`, `api/ga`, `api/beta`, `api/alpha`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    All,
    Stable,
    Beta,
    Alpha,
}

const STAGES: [(&str, Stage); 4] = [
    ("api/all", Stage::All),
    ("api/ga", Stage::Stable),
    ("api/beta", Stage::Beta),
    ("api/alpha", Stage::Alpha),
];

/// Resources that are served only while a gate is on, too: group, plural, gate.
const GATED: [(&str, &str, &str); 5] = [
    ("certificates.k8s.io", "clustertrustbundles", "ClusterTrustBundle"),
    ("certificates.k8s.io", "podcertificaterequests", "PodCertificateRequest"),
    ("scheduling.k8s.io", "podgroups", "GenericWorkload"),
    ("scheduling.k8s.io", "workloads", "GenericWorkload"),
    ("storagemigration.k8s.io", "storageversionmigrations", "StorageVersionMigrator"),
];

/// What is wrong with a `--runtime-config`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("invalid runtime-config with only api/all=false")]
    NothingServed,
    #[error("invalid value {key}={value}")]
    StageValue { key: String, value: String },
    #[error("invalid value of {key}: {value}, err: strconv.ParseBool: parsing {value:?}: invalid syntax")]
    Value { key: String, value: String },
    #[error("runtime-config invalid key {0}")]
    Key(String),
    #[error("unknown api groups {0}")]
    UnknownGroups(String),
    #[error("group version {0} that has not been registered")]
    UnknownVersion(String),
    #[error(
        "invalid key {key}: group/version/resource and resource is always lowercase plural, not {resource:?}"
    )]
    Resource { key: String, resource: String },
}

impl RuntimeConfig {
    /// Reads `key=bool,key`; a key alone means true.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let given: BTreeMap<&str, &str> = text
            .split(',')
            .filter(|word| !word.is_empty())
            .map(|word| word.split_once('=').unwrap_or((word, "")))
            .map(|(key, value)| (key.trim(), value.trim()))
            .collect();
        if given.len() == 1 && given.get("api/all") == Some(&"false") {
            return Err(Error::NothingServed);
        }
        let registered = Registered::new();
        registered.check_groups(&given)?;
        let mut config = Self::default();
        for (key, stage) in STAGES {
            match given.get(key) {
                None => {}
                Some(&"true") => config.by_stage.push((stage, true)),
                Some(&"false") => config.by_stage.push((stage, false)),
                Some(value) => {
                    return Err(Error::StageValue { key: key.to_owned(), value: (*value).to_owned() });
                }
            }
        }
        for (key, value) in given {
            if STAGES.iter().any(|(stage, _)| *stage == key) {
                continue;
            }
            let parts: Vec<&str> = key.split('/').collect();
            let (group, version) = match parts.as_slice() {
                [group, version] | [group, version, _] => (*group, *version),
                _ => return Err(Error::Key(key.to_owned())),
            };
            if !registered.versions.contains(&(group, version)) {
                return Err(Error::UnknownVersion(format!("{group}/{version}")));
            }
            let on = if value.is_empty() { Some(true) } else { features::parse_bool(value) };
            let on = on.ok_or_else(|| Error::Value { key: key.to_owned(), value: value.to_owned() })?;
            match parts.get(2) {
                None => config.by_version.insert(key.to_owned(), on),
                Some(resource) if resource.chars().any(char::is_uppercase) => {
                    return Err(Error::Resource { key: key.to_owned(), resource: (*resource).to_owned() });
                }
                Some(_) => config.by_resource.insert(key.to_owned(), on),
            };
        }
        Ok(config)
    }

    /// Whether a resource is served.
    pub fn serves(&self, row: &tables::Resource, features: &Features) -> bool {
        let mut served = row.served_by_default;
        for (stage, on) in &self.by_stage {
            if stage.has(row.version) {
                served = *on;
            }
        }
        let version = format!("{}/{}", row.group, row.version);
        served = self.by_version.get(&version).copied().unwrap_or(served);
        served = self.by_resource.get(&format!("{version}/{}", row.plural)).copied().unwrap_or(served);
        served
            && GATED
                .iter()
                .filter(|(group, plural, _)| (*group, *plural) == (row.group, row.plural))
                .all(|(_, _, gate)| features.enabled(gate))
    }
}

impl Stage {
    fn has(self, version: &str) -> bool {
        let stage = if version.contains("alpha") {
            Self::Alpha
        } else if version.contains("beta") {
            Self::Beta
        } else {
            Self::Stable
        };
        self == Self::All || self == stage
    }
}

/// The groups and versions there are, served or not.
struct Registered {
    versions: BTreeSet<(&'static str, &'static str)>,
}

impl Registered {
    fn new() -> Self {
        let versions = tables::priorities()
            .map(|row| (row.group, row.version))
            .chain(tables::resources().map(|row| (row.group, row.version)))
            .collect();
        Self { versions }
    }

    fn check_groups(&self, given: &BTreeMap<&str, &str>) -> Result<(), Error> {
        let unknown: BTreeSet<String> = given
            .keys()
            .filter(|key| STAGES.iter().all(|(stage, _)| stage != *key))
            .filter_map(|key| {
                let mut parts = key.split('/');
                Some((parts.next()?, parts.next()?))
            })
            .filter(|(group, _)| self.versions.iter().all(|(own, _)| own != group))
            .map(|(group, version)| format!("{group}/{version}"))
            .collect();
        if unknown.is_empty() {
            return Ok(());
        }
        Err(Error::UnknownGroups(unknown.into_iter().collect::<Vec<_>>().join(",")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(config: &str, gates: &str) -> Vec<String> {
        let config = RuntimeConfig::parse(config).unwrap();
        let features = Features::parse(gates).unwrap();
        tables::resources()
            .filter(|row| config.serves(row, &features))
            .map(|row| format!("{}/{}/{}", row.group, row.version, row.plural))
            .collect()
    }

    #[test]
    fn the_more_special_word_wins() {
        let beta = "networking.k8s.io/v1beta1/servicecidrs";
        let cases = [
            ("", false),
            ("api/beta=true", true),
            ("api/all=true", true),
            ("api/all=false,networking.k8s.io/v1beta1=true", true),
            ("networking.k8s.io/v1beta1", true),
            ("api/beta=true,networking.k8s.io/v1beta1=false", false),
            ("networking.k8s.io/v1beta1=false,networking.k8s.io/v1beta1/servicecidrs=true", true),
            ("networking.k8s.io/v1beta1=true,networking.k8s.io/v1beta1/servicecidrs=false", false),
        ];
        for (config, expected) in cases {
            assert_eq!(served(config, "").iter().any(|own| own == beta), expected, "{config}");
        }
        assert_eq!(served("", "").len(), 68);
        assert!(!served("apps/v1=false", "").iter().any(|own| own.starts_with("apps/")));
    }

    #[test]
    fn some_resources_need_their_gate_too() {
        let workloads = "scheduling.k8s.io/v1alpha2/workloads".to_owned();
        assert!(!served("api/alpha=true", "").contains(&workloads));
        assert!(!served("", "GenericWorkload=true").contains(&workloads));
        assert!(served("api/alpha=true", "GenericWorkload=true").contains(&workloads));
        assert_eq!(served("api/all=true", "AllAlpha=true,AllBeta=true").len(), 95);
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_upstreams_words() {
        let cases = [
            ("api/all=false", "invalid runtime-config with only api/all=false"),
            ("api/all=yes,apps/v1=true", "invalid value api/all=yes"),
            (
                "apps/v1=maybe",
                "invalid value of apps/v1: maybe, err: strconv.ParseBool: parsing \"maybe\": invalid syntax",
            ),
            ("b.example/v1=true,a.example/v1=true", "unknown api groups a.example/v1,b.example/v1"),
            ("v1=true,apps/v1=true", "runtime-config invalid key v1"),
            ("apps/v7=true", "group version apps/v7 that has not been registered"),
            (
                "apps/v1/Deployments=true",
                "invalid key apps/v1/Deployments: group/version/resource and resource is always lowercase plural, not \
                 \"Deployments\"",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(RuntimeConfig::parse(text).unwrap_err().to_string(), expected, "{text}");
        }
    }
}
