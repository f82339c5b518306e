//! `cargo xtask tidy`: what the compiler cannot check about the shape of the repository.
//!
//! Owns: the layer rules ([`layers`]), the crate map in `ARCHITECTURE.md` ([`map`]), rules for single files
//! ([`files`]). Never touches: formatting and lints (rustfmt, clippy). Runs inside `cargo test`, so that a rule is
//! broken for minutes, not for months.

mod files;
mod layers;
mod manifests;
mod map;

use std::fmt;

use anyhow::Context;
use camino::Utf8Path;

/// Whether generated parts that are stale are rewritten or complained about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Check,
    Fix,
}

/// One broken rule, in words that say what to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Complaint {
    /// Relative to the repository, with a line where that helps: `crates/api/src/lib.rs:12`.
    pub place: String,
    pub text: String,
}

impl Complaint {
    fn new(place: impl Into<String>, text: impl Into<String>) -> Self {
        Self { place: place.into(), text: text.into() }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.text)
    }
}

/// Checks the repository at `root`; an empty answer means that it is tidy.
///
/// # Errors
/// Manifests or files that cannot be read at all.
pub fn run(root: &Utf8Path, mode: Mode) -> anyhow::Result<Vec<Complaint>> {
    let packages = manifests::read(root).context("reading the manifests")?;
    let allowed = layers::Exceptions::read(root).context("reading layering.toml")?;
    let mut complaints = manifests::check(root, &packages)?;
    complaints.extend(layers::check(&packages, &allowed));
    complaints.extend(map::check(root, &packages, mode)?);
    complaints.extend(files::check(root)?);
    complaints.sort();
    Ok(complaints)
}
