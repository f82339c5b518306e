//! Repository chores, as a library so that tests run the same code as `cargo xtask`.
//!
//! Owns: [`tidy`] (the shape of the repository), [`bench`] (measurements of the release binary),
//! [`codegen`] (tables of built-in kinds).
//! Never touches: anything that users run. The command line is in `main.rs` and only parses.

#![allow(clippy::disallowed_methods, reason = "chores run in real time, outside the platform")]

pub mod bench;
pub mod codegen;
pub mod codegen_descriptions;
pub mod codegen_protobuf;
mod codegen_unserved;
pub mod tidy;

use camino::Utf8PathBuf;

/// The repository's folder.
pub fn repository() -> Utf8PathBuf {
    let own = Utf8PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).map(ToOwned::to_owned).unwrap_or(own)
}

/// Where cargo builds to.
pub fn target_folder() -> Utf8PathBuf {
    std::env::var("CARGO_TARGET_DIR").map_or_else(|_| repository().join("target"), Utf8PathBuf::from)
}
