//! What is left of the machine's memory, disks and process numbers.

use camino::Utf8Path;
use runtime::FilesystemUsage;

use super::pressure::{Observation, Observations};
use super::thresholds::Signal;
use crate::agent::machine;

pub struct Reading {
    pub observations: Observations,
    /// Images and layers lie on a filesystem of their own.
    pub has_image_filesystem: bool,
}

/// `root` is where volumes and logs lie.
pub fn read(root: &Utf8Path, images: Option<&FilesystemUsage>) -> Reading {
    let mut observations = Observations::new();
    let mut add = |signal, available, capacity| {
        // Some filesystems count no inodes, and what there is nothing of cannot run out.
        if capacity > 0 {
            observations.insert(signal, Observation { available, capacity });
        }
    };
    let (available, capacity) = machine::memory_left();
    add(Signal::MemoryAvailable, available, capacity);
    if let Ok(disk) = rustix::fs::statvfs(root.as_std_path()) {
        add(Signal::NodefsAvailable, disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize);
        add(Signal::NodefsInodesFree, disk.f_favail, disk.f_files);
    }
    if let Some(images) = images {
        add(Signal::ImagefsAvailable, images.available_bytes, images.capacity_bytes);
        add(Signal::ImagefsInodesFree, images.inodes.saturating_sub(images.used_inodes), images.inodes);
    }
    let (processes_max, processes) = machine::processes();
    add(Signal::PidAvailable, processes_max.saturating_sub(processes), processes_max);
    Reading { observations, has_image_filesystem: images.is_some_and(|images| differs(root, &images.path)) }
}

fn differs(root: &Utf8Path, images: &Utf8Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Utf8Path| path.metadata().map(|own| own.dev()).ok();
    matches!((device(root), device(images)), (Some(one), Some(other)) if one != other)
}
