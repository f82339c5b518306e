//! Which of an image's variants runs on this machine.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::manifest::Descriptor;
use crate::{Error, Result};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

impl Platform {
    /// This machine, in the words of images.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", ""),
            "x86" => ("386", ""),
            "aarch64" => ("arm64", "v8"),
            "arm" => ("arm", "v7"),
            "powerpc64" if cfg!(target_endian = "little") => ("ppc64le", ""),
            other => (other, ""),
        };
        Self { architecture: architecture.into(), os: "linux".into(), variant: variant.into() }
    }

    /// How well `offered` runs here: higher is better, `None` is not at all.
    fn rank(&self, offered: &Self) -> Option<u8> {
        if offered.os != self.os || offered.architecture != self.architecture {
            return None;
        }
        let level = |variant: &str| variant.strip_prefix('v').and_then(|level| level.parse::<u8>().ok());
        match (offered.variant.as_str(), self.variant.as_str()) {
            ("", _) => Some(1),
            (offered, own) if offered == own => Some(u8::MAX),
            // Later ARMs run what was made for earlier ones; what a later x86 is made for may not run here.
            (offered, own) => match (level(offered), level(own)) {
                (Some(offered), Some(own)) if offered <= own => Some(1 + offered),
                (Some(1), None) => Some(1),
                _ => None,
            },
        }
    }

    /// Whether an image for `offered` runs here. An image that says nothing is believed to.
    pub fn runs(&self, offered: &Self) -> bool {
        (offered.os.is_empty() && offered.architecture.is_empty()) || self.rank(offered).is_some()
    }

    /// The best of an index.
    pub fn choose<'a>(&self, offered: &'a [Descriptor]) -> Result<&'a Descriptor> {
        let mut best: Option<(u8, &Descriptor)> = None;
        for descriptor in offered {
            let rank = match &descriptor.platform {
                Some(platform) => self.rank(platform),
                // Nothing is said, so it is tried, after those that fit.
                None => Some(0),
            };
            if let Some(rank) = rank
                && best.is_none_or(|(best, _)| rank > best)
            {
                best = Some((rank, descriptor));
            }
        }
        best.map(|(_, descriptor)| descriptor).ok_or_else(|| {
            let mut names: Vec<String> = offered
                .iter()
                .filter_map(|descriptor| descriptor.platform.as_ref())
                // Attestations lie in an index as images of no platform.
                .filter(|platform| platform.os != "unknown")
                .map(Self::to_string)
                .collect();
            names.dedup();
            let has = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            Error::Invalid(format!(
                "no match for platform in manifest: this machine is {self}, the image has {has}"
            ))
        })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(formatter, "/{}", self.variant)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;

    fn platform(text: &str) -> Platform {
        let mut parts = text.split('/');
        let mut next = || parts.next().unwrap_or_default().to_owned();
        let (os, architecture, variant) = (next(), next(), next());
        Platform { architecture, os, variant }
    }

    fn offer(text: &str) -> Descriptor {
        let platform = (!text.is_empty()).then(|| platform(text));
        Descriptor { platform, ..Descriptor::new("", Digest::of(text.as_bytes()), 1) }
    }

    #[test]
    fn the_best_variant_is_chosen() {
        for (host, offered, chosen) in [
            ("linux/amd64", &["linux/arm64/v8", "linux/amd64"][..], Some(1)),
            ("linux/amd64", &["linux/amd64/v3", "linux/amd64"], Some(1)),
            ("linux/amd64", &["windows/amd64"], None),
            ("linux/amd64", &["unknown/unknown"], None),
            ("linux/amd64", &["", "linux/amd64"], Some(1)),
            ("linux/amd64", &["linux/s390x", ""], Some(1)),
            ("linux/arm64/v8", &["linux/arm64"], Some(0)),
            ("linux/arm64/v8", &["linux/arm64", "linux/arm64/v8"], Some(1)),
            ("linux/arm/v7", &["linux/arm/v5", "linux/arm/v6", "linux/arm/v8"], Some(1)),
        ] {
            let offered: Vec<_> = offered.iter().map(|text| offer(text)).collect();
            let found = platform(host).choose(&offered).ok();
            assert_eq!(found, chosen.map(|index: usize| &offered[index]), "{host} of {offered:?}");
        }
    }

    #[test]
    fn an_image_for_other_machines_names_them() {
        let offered = [offer("linux/arm64/v8"), offer("linux/s390x"), offer("unknown/unknown")];
        let error = platform("linux/amd64").choose(&offered).unwrap_err().to_string();
        assert_eq!(
            error,
            "no match for platform in manifest: this machine is linux/amd64, the image has linux/arm64/v8, linux/s390x"
        );
    }
}
