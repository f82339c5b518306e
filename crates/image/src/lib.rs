//! Container images: where they come from, how they lie on disk, and what a container sees of them.
//!
//! Owns: names of images ([`Reference`]), registries ([`registry`]), the content store with its images, layers and
//! containers' snapshots ([`Store`]), archives that other tools write and read ([`archive`]), and images made here
//! ([`build`]). Never touches: containers, pods, and when an image is pulled or removed (crate `node` decides that).
//!
//! Start at [`Store`]. One folder is shared by any number of processes: every file appears complete under its final
//! name, and what nobody refers to goes in [`Store::collect`], which others' work in progress survives by its lease.
//!
//! **Invariant (verified):** a blob in the store has the digest that is its name, and a layer's files were made from
//! an archive with the digest that the image's configuration names.
//!
//! **Invariant (inside):** no archive, whatever it says, makes, changes or reads a file outside the folder that it is
//! unpacked into.

pub mod archive;
pub mod build;
mod config;
mod digest;
mod error;
pub mod layer;
pub mod manifest;
mod overlay;
pub mod platform;
mod reference;
pub mod registry;
mod store;

pub use config::{ConfigFile, ImageConfig};
pub use digest::{Digest, Hasher};
pub use error::{Error, Result};
pub use overlay::{Rootfs, unmount};
pub use reference::Reference;
pub use store::{
    Collected, Filesystem, ImageRecord, Options, Progress, Pull, Silent, Snapshot, Step, Store, Usage,
};
