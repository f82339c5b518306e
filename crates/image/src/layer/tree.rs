//! A folder whose files are made by paths that nobody vouches for.
//!
//! **Invariant (inside):** every path is resolved by the kernel with this folder as its root (`openat2`), so neither
//! `..` nor a link that was made before leads out of it; the last component is never followed.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use camino::Utf8Path;
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, RawMode, ResolveFlags, Stat, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::{Error, Result};

/// Longer paths than the kernel takes at once can be made step by step, and then nobody can remove them.
const REAL_PATH_BYTES_MAX: usize = 4000;
const OPAQUE: &str = "trusted.overlay.opaque";
const XATTR_BYTES_MAX: usize = 64 << 10;

pub(super) struct Tree {
    root: OwnedFd,
}

/// Whom a file belongs to and who may use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ownership {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
}

impl Tree {
    pub(super) fn open(path: &Utf8Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path.as_str(), flags, Mode::empty())
            .map_err(|error| Error::io("open", path, error))?;
        Ok(Self { root })
    }

    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// A folder in it; links on the way are followed, with this folder as their root.
    pub(super) fn folder(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        self.resolve(path, OFlags::PATH | OFlags::DIRECTORY)
    }

    /// Whatever the path names; a link itself at its end.
    pub(super) fn file(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        self.resolve(path, OFlags::PATH | OFlags::NOFOLLOW)
    }

    fn resolve(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        // The kernel says `again` when somebody renamed something meanwhile.
        loop {
            let flags = flags | OFlags::CLOEXEC;
            match rustix::fs::openat2(&self.root, OsStr::from_bytes(path), flags, Mode::empty(), inside) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                outcome => return outcome,
            }
        }
    }
}

/// What is there; a link itself.
pub(super) fn stat(parent: impl AsFd, name: &[u8]) -> rustix::io::Result<Option<Stat>> {
    match rustix::fs::statat(parent, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn is_folder(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// How overlayfs says that something below is not there.
pub(super) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

pub(super) fn make_folder(parent: impl AsFd, name: &[u8]) -> rustix::io::Result<()> {
    let place = rustix::fs::readlink(format!("/proc/self/fd/{}", parent.as_fd().as_raw_fd()), Vec::new())?;
    if place.as_bytes().len() + name.len() > REAL_PATH_BYTES_MAX {
        return Err(Errno::NAMETOOLONG);
    }
    rustix::fs::mkdirat(parent, OsStr::from_bytes(name), Mode::from_raw_mode(0o755))
}

pub(super) fn make_file(parent: impl AsFd, name: &[u8]) -> rustix::io::Result<File> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, OsStr::from_bytes(name), flags, Mode::from_raw_mode(0o600)).map(File::from)
}

pub(super) fn make_symlink(parent: impl AsFd, name: &[u8], target: &[u8]) -> rustix::io::Result<()> {
    rustix::fs::symlinkat(OsStr::from_bytes(target), parent, OsStr::from_bytes(name))
}

pub(super) fn make_node(
    parent: impl AsFd,
    name: &[u8],
    kind: FileType,
    device: (u32, u32),
) -> rustix::io::Result<()> {
    let device = rustix::fs::makedev(device.0, device.1);
    rustix::fs::mknodat(parent, OsStr::from_bytes(name), kind, Mode::from_raw_mode(0o600), device)
}

pub(super) fn make_whiteout(parent: impl AsFd, name: &[u8]) -> rustix::io::Result<()> {
    make_node(parent, name, FileType::CharacterDevice, (0, 0))
}

pub(super) fn link(
    from: impl AsFd,
    from_name: &[u8],
    parent: impl AsFd,
    name: &[u8],
) -> rustix::io::Result<()> {
    rustix::fs::linkat(from, OsStr::from_bytes(from_name), parent, OsStr::from_bytes(name), AtFlags::empty())
}

/// Removes it with everything in it.
pub(super) fn remove(parent: impl AsFd, name: &[u8]) -> rustix::io::Result<()> {
    let parent = parent.as_fd();
    let name = OsStr::from_bytes(name);
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        outcome => return outcome,
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    for entry in Dir::read_from(&folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            remove(&folder, name)?;
        }
    }
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}

/// Owner before mode: a change of owner takes set-user-ID away.
pub(super) fn set_ownership(
    parent: impl AsFd,
    name: &[u8],
    ownership: Ownership,
    is_link: bool,
) -> rustix::io::Result<()> {
    let parent = parent.as_fd();
    let name = OsStr::from_bytes(name);
    let (uid, gid) = (Uid::from_raw(ownership.uid), Gid::from_raw(ownership.gid));
    rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if is_link {
        return Ok(());
    }
    rustix::fs::chmodat(parent, name, Mode::from_raw_mode(ownership.mode as RawMode), AtFlags::empty())
}

pub(super) fn set_modified(parent: impl AsFd, name: &[u8], modified: (i64, u32)) -> rustix::io::Result<()> {
    let time = rustix::fs::Timespec { tv_sec: modified.0, tv_nsec: modified.1.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(parent, OsStr::from_bytes(name), &times, AtFlags::SYMLINK_NOFOLLOW)
}

pub(super) fn set_xattr(parent: impl AsFd, name: &[u8], key: &[u8], value: &[u8]) -> rustix::io::Result<()> {
    let path = path_of(parent.as_fd(), name);
    rustix::fs::lsetxattr(OsStr::from_bytes(&path), OsStr::from_bytes(key), value, XattrFlags::empty())
}

/// Nothing below this folder is seen through it.
pub(super) fn make_opaque(parent: impl AsFd, name: &[u8]) -> rustix::io::Result<()> {
    set_xattr(parent, name, OPAQUE.as_bytes(), b"y")
}

pub(super) fn is_opaque(folder: impl AsFd) -> bool {
    let mut value = [0_u8; 2];
    let path = path_of(folder.as_fd(), b".");
    rustix::fs::lgetxattr(OsStr::from_bytes(&path), OPAQUE, &mut value[..])
        .is_ok_and(|read| value[..read] == *b"y")
}

/// Extended attributes, without those that say something to overlayfs.
pub(super) fn xattrs(file: impl AsFd) -> rustix::io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    let mut names = vec![0_u8; XATTR_BYTES_MAX];
    let read = match rustix::fs::listxattr(path.as_str(), &mut names[..]) {
        Ok(read) => read,
        Err(Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for name in names[..read].split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        if is_reserved(name.to_bytes()) {
            continue;
        }
        let mut value = vec![0_u8; XATTR_BYTES_MAX];
        let read = rustix::fs::getxattr(path.as_str(), name, &mut value[..])?;
        value.truncate(read);
        found.push((name.to_bytes().to_vec(), value));
    }
    Ok(found)
}

/// Attributes with which overlayfs is told where to look; an archive has no say in that.
pub(super) fn is_reserved(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

/// A folder that is open, and a name in it, as a path: some calls take nothing else.
fn path_of(parent: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    path
}
