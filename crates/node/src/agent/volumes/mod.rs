//! Volumes of pods.
pub mod atomic;
pub mod mount;
pub mod mounted;
pub mod ownership;
pub mod payload;

pub use mounted::{Mounted, MountedVolume, Source};
