//! Whose the files of a volume are: a pod's `fsGroup` can read them all, and write where the volume can be written to.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use camino::Utf8Path;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat};

const READ_WRITE: u32 = 0o660;
const READ: u32 = 0o440;
const ENTER: u32 = 0o110;
const SET_GROUP: u32 = 0o2000;

/// Levels of folders that are gone into; one descriptor is open for each.
const DEPTH_MAX: usize = 512;

/// `fsGroupChangePolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChangePolicy {
    #[default]
    Always,
    /// All is as it should be where the volume's root is.
    OnRootMismatch,
}

impl ChangePolicy {
    pub fn of(text: Option<&str>) -> Self {
        if text == Some("OnRootMismatch") { Self::OnRootMismatch } else { Self::Always }
    }
}

/// The mode that a file gets.
pub fn file_mode(mode: u32, group: Option<u32>, read_only: bool) -> u32 {
    match group {
        None => mode & 0o777,
        Some(_) => mode & 0o7777 | if read_only { READ } else { READ_WRITE },
    }
}

fn folder_mode(mode: u32, read_only: bool) -> u32 {
    file_mode(mode, Some(0), read_only) | ENTER | SET_GROUP
}

/// As [`apply`], unless the policy says that it was done before.
///
/// # Errors
/// What the file system says.
pub fn apply_by_policy(
    root: &Utf8Path,
    group: u32,
    read_only: bool,
    policy: ChangePolicy,
) -> std::io::Result<()> {
    if policy == ChangePolicy::OnRootMismatch {
        let own = rustix::fs::stat(root.as_str())?;
        let mode = own.st_mode & 0o7777;
        if own.st_gid == group && folder_mode(mode, read_only) == mode {
            return Ok(());
        }
    }
    apply(root, group, read_only)
}

/// Gives a tree to a group. Links are given and not followed, and nothing of another file system is touched.
///
/// # Errors
/// What the file system says.
pub fn apply(root: &Utf8Path, group: u32, read_only: bool) -> std::io::Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, root.as_str(), flags, Mode::empty())?;
    let own = rustix::fs::fstat(&root)?;
    let walk = Walk { group, read_only, device: own.st_dev };
    walk.visit(&root, &own, 0)
}

struct Walk {
    group: u32,
    read_only: bool,
    device: u64,
}

impl Walk {
    fn visit(&self, node: &OwnedFd, own: &Stat, depth: usize) -> std::io::Result<()> {
        if depth > DEPTH_MAX {
            return Err(std::io::Error::other(format!("folders are nested more than {DEPTH_MAX} deep")));
        }
        let kind = FileType::from_raw_mode(own.st_mode);
        if kind.is_dir() {
            // Its contents first: where its root is right, all of it is.
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let folder = rustix::fs::openat(node, ".", flags, Mode::empty())?;
            for entry in Dir::read_from(&folder)? {
                let entry = entry?;
                if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                    continue;
                }
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let child = match rustix::fs::openat(&folder, entry.file_name(), flags, Mode::empty()) {
                    // Somebody who shares the volume removed it.
                    Err(rustix::io::Errno::NOENT) => continue,
                    child => child?,
                };
                let stat = rustix::fs::fstat(&child)?;
                if stat.st_dev == self.device {
                    self.visit(&child, &stat, depth + 1)?;
                }
            }
        }
        self.give(node.as_fd(), own, kind)
    }

    fn give(&self, node: impl AsFd, own: &Stat, kind: FileType) -> std::io::Result<()> {
        if own.st_gid != self.group {
            let group = Some(Gid::from_raw(self.group));
            rustix::fs::chownat(node.as_fd(), "", None, group, AtFlags::EMPTY_PATH)?;
        }
        if kind.is_symlink() {
            return Ok(());
        }
        let mode = own.st_mode & 0o7777;
        let wanted = match kind.is_dir() {
            true => folder_mode(mode, self.read_only),
            false => file_mode(mode, Some(self.group), self.read_only),
        };
        // Giving a file away takes its set-ID bits, so the mode is said anew then.
        if wanted != mode || own.st_gid != self.group {
            // A descriptor that only names a file cannot change its mode; its path can, and it is no link.
            let path = format!("/proc/self/fd/{}", node.as_fd().as_raw_fd());
            rustix::fs::chmod(path, Mode::from_raw_mode(wanted))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_tree_is_given_and_links_are_not_followed() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: giving files away needs root");
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let outer = Utf8Path::from_path(folder.path()).expect("it is text");
        let root = outer.join("v");
        std::fs::create_dir_all(root.join("d")).expect("made");
        for (path, mode) in [("d/f", 0o600), ("s", 0o4711)] {
            std::fs::write(root.join(path), "").expect("written");
            std::fs::set_permissions(root.join(path), std::fs::Permissions::from_mode(mode)).expect("ours");
        }
        std::fs::write(outer.join("secret"), "").expect("written");
        std::fs::set_permissions(outer.join("secret"), std::fs::Permissions::from_mode(0o600)).expect("ours");
        symlink("../secret", root.join("link")).expect("made");
        apply(&root, 4_321, false).expect("given");
        let of = |path: &str| {
            let meta = std::fs::symlink_metadata(root.join(path)).expect("there");
            (meta.gid(), meta.mode() & 0o7777)
        };
        assert_eq!(of("d/f"), (4_321, 0o660));
        assert_eq!(of("d"), (4_321, 0o2775));
        assert_eq!(of("s"), (4_321, 0o4771));
        assert_eq!(of("link").0, 4_321);
        assert_eq!(of("../secret"), (0, 0o600));

        std::fs::set_permissions(root.join("d/f"), std::fs::Permissions::from_mode(0o600)).expect("ours");
        apply_by_policy(&root, 4_321, false, ChangePolicy::OnRootMismatch).expect("as it was");
        assert_eq!(of("d/f"), (4_321, 0o600));
        std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o755)).expect("ours");
        apply_by_policy(&root, 4_321, false, ChangePolicy::OnRootMismatch).expect("the root is not right");
        assert_eq!((of("d/f"), of("")), ((4_321, 0o660), (4_321, 0o2775)));
        std::fs::set_permissions(root.join("d/f"), std::fs::Permissions::from_mode(0o600)).expect("ours");
        apply_by_policy(&root, 5, true, ChangePolicy::OnRootMismatch).expect("given");
        assert_eq!(of("d/f"), (5, 0o640));
        apply_by_policy(&root, 5, false, ChangePolicy::Always).expect("given");
        assert_eq!(of("d/f"), (5, 0o660));
    }
}
