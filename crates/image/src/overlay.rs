//! A root file system of layers, mounted.

use std::fs::File;
use std::os::fd::AsRawFd;

use camino::{Utf8Path, Utf8PathBuf};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, move_mount,
};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The kernel takes no longer string for one parameter (`fsconfig`).
const PARAMETER_BYTES_MAX: usize = 255;
/// The kernel takes one page of options (`mount`).
const OPTIONS_BYTES_MAX: usize = 4095;

/// What overlayfs puts together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rootfs {
    /// Read-only folders, the topmost first.
    pub lower: Vec<Utf8PathBuf>,
    /// Where changes go. `None` for a view that cannot be written to.
    pub upper: Option<Utf8PathBuf>,
    /// Scratch space of the kernel's, on the file system of `upper`.
    pub work: Option<Utf8PathBuf>,
}

impl Rootfs {
    /// Mounts it at an existing folder. Needs `CAP_SYS_ADMIN`, and the mount namespace of the calling thread.
    pub fn mount(&self, target: &Utf8Path, read_only: bool) -> Result<()> {
        let read_only = read_only || self.upper.is_none();
        let outcome = match self.mount_by_parameters(target, read_only) {
            // A kernel before 5.2, or before 6.5 and its `lowerdir+`.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => self.mount_by_options(target, read_only),
            outcome => outcome,
        };
        outcome.map_err(|error| {
            let layers = self.lower.len();
            Error::io(&format!("mount an overlay of {layers} layers at"), target, error)
        })
    }

    /// Layer by layer, so that neither their number nor their names' lengths matter.
    fn mount_by_parameters(&self, target: &Utf8Path, read_only: bool) -> rustix::io::Result<()> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        // They are asked for by number when their names are too long, so they stay open until the mount is made.
        let mut held = Vec::new();
        fsconfig_set_string(&context, "source", "overlay")?;
        for folder in &self.lower {
            fsconfig_set_string(&context, "lowerdir+", short(folder, PARAMETER_BYTES_MAX, &mut held)?)?;
        }
        if let (Some(upper), Some(work)) = (&self.upper, &self.work) {
            fsconfig_set_string(&context, "upperdir", short(upper, PARAMETER_BYTES_MAX, &mut held)?)?;
            fsconfig_set_string(&context, "workdir", short(work, PARAMETER_BYTES_MAX, &mut held)?)?;
            // Two containers of one image would otherwise fight for the index of its hard links.
            fsconfig_set_string(&context, "index", "off")?;
        }
        if read_only {
            fsconfig_set_flag(&context, "ro")?;
        }
        fsconfig_create(&context)?;
        let attributes = if read_only { MountAttrFlags::MOUNT_ATTR_RDONLY } else { MountAttrFlags::empty() };
        let mounted = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
        move_mount(&mounted, "", rustix::fs::CWD, target.as_str(), MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
    }

    /// As one string; folders whose names do not fit, or hold what separates options, are named by number.
    fn mount_by_options(&self, target: &Utf8Path, read_only: bool) -> rustix::io::Result<()> {
        let mut held = Vec::new();
        let plain = self.options(usize::MAX, &mut held)?;
        let options = if plain.len() > OPTIONS_BYTES_MAX { self.options(0, &mut held)? } else { plain };
        if options.len() > OPTIONS_BYTES_MAX {
            return Err(Errno::TOOBIG);
        }
        let flags = if read_only { MountFlags::RDONLY } else { MountFlags::empty() };
        let options = std::ffi::CString::new(options).map_err(|_| Errno::INVAL)?;
        mount("overlay", target.as_str(), "overlay", flags, options.as_c_str())
    }

    fn options(&self, bytes_max: usize, held: &mut Vec<File>) -> rustix::io::Result<String> {
        let mut options = String::from("lowerdir=");
        for (index, folder) in self.lower.iter().enumerate() {
            if index > 0 {
                options.push(':');
            }
            options.push_str(&short(folder, bytes_max, held)?);
        }
        if let (Some(upper), Some(work)) = (&self.upper, &self.work) {
            options.push_str(",upperdir=");
            options.push_str(&short(upper, bytes_max, held)?);
            options.push_str(",workdir=");
            options.push_str(&short(work, bytes_max, held)?);
            options.push_str(",index=off");
        }
        Ok(options)
    }
}

/// The folder's path, or the number under which it is open where the path is too long or would be misread.
fn short(folder: &Utf8Path, bytes_max: usize, held: &mut Vec<File>) -> rustix::io::Result<String> {
    if folder.as_str().len() <= bytes_max && !folder.as_str().contains([':', ',', '\\']) {
        return Ok(folder.to_string());
    }
    let file = File::open(folder).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let name = format!("/proc/self/fd/{}", file.as_raw_fd());
    held.push(file);
    Ok(name)
}

/// Unmounts what is mounted there, also while it is in use; what is not mounted, or not there, is no error.
pub fn unmount(target: &Utf8Path) -> Result<()> {
    match rustix::mount::unmount(target.as_str(), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(error) => Err(Error::io("unmount", target, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Unmounted and removed with the test.
    struct World {
        _folder: tempfile::TempDir,
        path: Utf8PathBuf,
    }

    impl Drop for World {
        fn drop(&mut self) {
            let _ = unmount(&self.path.join("mounted"));
        }
    }

    /// A root of this many layers with a file each, with names that separate options, long enough for one page to
    /// hold few of them.
    fn world(layers: usize) -> (World, Rootfs) {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(folder.path().to_owned()).unwrap();
        let own = |name: &str| {
            let folder = path.join(name);
            fs::create_dir_all(&folder).unwrap();
            folder
        };
        let lower = (0..layers)
            .map(|layer| {
                let folder = own(&format!("{}:,{layer}", "long".repeat(40)));
                fs::write(folder.join(layer.to_string()), "").unwrap();
                fs::write(folder.join("top"), layer.to_string()).unwrap();
                folder
            })
            .collect();
        let rootfs = Rootfs { lower, upper: Some(own("upper,")), work: Some(own("work")) };
        own("mounted");
        (World { _folder: folder, path }, rootfs)
    }

    #[test]
    fn both_ways_mount_many_layers_with_any_name() {
        type Way = fn(&Rootfs, &Utf8Path, bool) -> rustix::io::Result<()>;
        let ways: [(Way, usize); 2] = [(Rootfs::mount_by_parameters, 400), (Rootfs::mount_by_options, 150)];
        for (way, layers) in ways {
            let (world, rootfs) = world(layers);
            let at = world.path.join("mounted");
            match way(&rootfs, &at, false) {
                Ok(()) => {}
                Err(error @ (Errno::PERM | Errno::ACCESS)) => {
                    println!("skipped: this process may not mount: {error}");
                    return;
                }
                // The first way wants a kernel of 6.5.
                Err(Errno::INVAL) if layers == 400 => continue,
                Err(error) => panic!("{layers} layers: {error}"),
            }
            assert_eq!(fs::read_dir(&at).unwrap().count(), layers + 1);
            assert_eq!(fs::read_to_string(at.join("top")).unwrap(), "0");
            fs::write(at.join("new"), "").unwrap();
            assert!(world.path.join("upper,/new").exists());
            unmount(&at).unwrap();
            unmount(&at).unwrap();
            assert_eq!(fs::read_dir(&at).unwrap().count(), 0);
        }
    }
}
