//! Volumes of pods: what they need on this node before their containers start, and its end after them.
//!
//! Owns: everything below the node's `pods` folder that belongs to volumes, what is mounted there, the objects and
//! tokens that volumes show, and the StorageClass `local` ([`provisioner`]). Never touches: containers, images (a
//! volume of an image is passed on for the runtime to mount), and files of volumes that are not its own: those are
//! unmounted, and a folder that still has something in it is left with an error.
//!
//! Start at [`VolumeManager`]; [`plugins`] has the kinds in one table, `setup` what is done for each. The disk and the
//! kernel's table of mounts are the memory: after a restart what is mounted stays, and what nobody wants any more is
//! found there.

pub mod atomic;
pub mod cache;
mod claims;
pub mod csi;
pub mod empty_dir;
pub mod host_path;
pub mod layout;
mod manager;
mod memory;
pub mod mount;
mod mounted;
pub mod ownership;
pub mod payload;
pub mod plugins;
pub mod provisioner;
mod refresh;
mod setup;
#[cfg(test)]
mod tests;
pub mod tokens;
mod usage;

pub use manager::{Options, VolumeError, VolumeFiles, VolumeManager, reference};
pub use mounted::{Mounted, MountedVolume, Source};
pub use usage::VolumeUsages;
pub(crate) use usage::is_ephemeral;
