//! The workspace's packages as cargo sees them.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, bail};
use camino::{Utf8Path, Utf8PathBuf};
use serde::Deserialize;

use super::Complaint;
use super::layers::Layer;

/// A member of the workspace.
#[derive(Clone, Debug)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) description: String,
    /// `None` when the manifest does not say, or says something else.
    pub(crate) layer: Option<Layer>,
    /// Relative to the repository.
    pub(crate) folder: Utf8PathBuf,
    /// Names of workspace members it builds with.
    pub(crate) uses: BTreeSet<String>,
    /// Names of workspace members that only its tests use.
    pub(crate) tests_use: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<MetadataPackage>,
}

#[derive(Deserialize)]
struct MetadataPackage {
    name: String,
    description: Option<String>,
    manifest_path: String,
    #[serde(default)]
    metadata: Option<OurMetadata>,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct OurMetadata {
    layer: Option<String>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
    path: Option<String>,
}

/// Reads every member's manifest, sorted by name.
pub(super) fn read(root: &Utf8Path) -> anyhow::Result<Vec<Package>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root)
        .output()
        .context("running cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let metadata: Metadata = serde_json::from_slice(&output.stdout).context("reading cargo's answer")?;
    let mut packages: Vec<Package> =
        metadata.packages.into_iter().map(|package| package.into(root)).collect();
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(packages)
}

impl MetadataPackage {
    fn into(self, root: &Utf8Path) -> Package {
        let folder = Utf8Path::new(&self.manifest_path).parent().unwrap_or(root);
        let members_of = |tests: bool| {
            self.dependencies
                .iter()
                .filter(|dependency| dependency.path.is_some())
                .filter(|dependency| (dependency.kind.as_deref() == Some("dev")) == tests)
                .map(|dependency| dependency.name.clone())
                .collect()
        };
        Package {
            description: self.description.clone().unwrap_or_default(),
            layer: self.metadata.as_ref().and_then(|own| Layer::parse(own.layer.as_deref()?)),
            folder: folder.strip_prefix(root).unwrap_or(folder).to_owned(),
            uses: members_of(false),
            tests_use: members_of(true),
            name: self.name,
        }
    }
}

/// The rules for a manifest alone.
pub(super) fn check(root: &Utf8Path, packages: &[Package]) -> anyhow::Result<Vec<Complaint>> {
    let mut complaints = Vec::new();
    for package in packages {
        let place = package.folder.join("Cargo.toml");
        let mut complain = |text: String| complaints.push(Complaint::new(place.as_str(), text));
        if package.description.is_empty() || package.description.contains('\n') {
            complain("needs a one-line `description`; it is the crate's line in ARCHITECTURE.md".to_owned());
        }
        if package.layer.is_none() {
            complain("needs `[package.metadata] layer = \"L0\"` to `\"L5\"` or `\"dev\"`".to_owned());
        }
        if package.folder.file_name() != Some(package.name.as_str()) {
            complain(format!("the package is called {}, so its folder should be, too", package.name));
        }
        let text = std::fs::read_to_string(root.join(&place)).with_context(|| format!("reading {place}"))?;
        if !text.contains("[lints]\nworkspace = true") {
            complain("needs `[lints]` with `workspace = true`".to_owned());
        }
    }
    Ok(complaints)
}
