//! Parts of volumes, found so that no link leads out of the volume.
//!
//! Whoever can write to a volume can put links there, also between a look and a mount. So the kernel is asked to stay
//! below the volume while it resolves (`openat2` with `RESOLVE_BENEATH`), and what it found is bind-mounted by its
//! descriptor to a place of the node's own. The runtime gets that place.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::Refusal;
use super::mounts::SubPath;
use crate::agent::volumes::mount;

/// Tries of a resolution that the kernel gave up because something was renamed meanwhile.
const RESOLVE_TRIES: usize = 32;

/// Finds a part of a volume, making folders where there is nothing, and mounts it below `folder` (the pod's
/// `volume-subpaths`). Returns where it is.
///
/// # Errors
/// Where it would lead out of the volume or cannot be mounted. The cause is logged and not part of it: it could tell
/// the pod's owner of the host's files.
pub fn bind(part: &SubPath, container: &str, folder: &Utf8Path) -> Result<Utf8PathBuf, Refusal> {
    let refuse = |what: &str, cause: std::io::Error| {
        tracing::warn!(volume = %part.volume, container, path = %part.path, error = %cause, "Cannot prepare subPath");
        Refusal::config(format!("{what} for volumeMount {:?} of container {container:?}", part.volume))
    };
    let found = find_or_make(&part.root, &part.path)
        .map_err(|cause| refuse("failed to create subPath directory", cause))?;
    let target = folder.join(&part.volume).join(container).join(part.index.to_string());
    bind_descriptor(&found, &target).map_err(|cause| refuse("failed to prepare subPath", cause))?;
    Ok(target)
}

/// Opens what is at `path` below `root`, without leaving it. Missing folders get the root's mode.
fn find_or_make(root: &Utf8Path, path: &Utf8Path) -> std::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, root.as_str(), flags, Mode::empty())?;
    let mode = Mode::from_raw_mode(rustix::fs::fstat(&root)?.st_mode & 0o7777);
    match open_beneath(&root, path.as_str()) {
        Err(Errno::NOENT) => {}
        found => return Ok(found?),
    }
    // From the deepest folder that is there on, every step is one name in a folder that is held open.
    let parts: Vec<&str> = path.as_str().split('/').collect();
    let mut known = parts.len() - 1;
    let mut parent = loop {
        if known == 0 {
            break rustix::fs::openat(&root, ".", flags | OFlags::DIRECTORY, Mode::empty())?;
        }
        match open_beneath(&root, &parts[..known].join("/")) {
            Ok(found) => break found,
            Err(Errno::NOENT) => known -= 1,
            Err(error) => return Err(error.into()),
        }
    };
    for name in &parts[known..] {
        match rustix::fs::mkdirat(&parent, *name, mode) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(&parent, *name, flags, Mode::empty())?;
        // The process' umask is not the volume's.
        rustix::fs::fchmod(&made, mode)?;
        parent = made;
    }
    Ok(parent)
}

fn open_beneath(root: impl AsFd, path: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let mut tries = 0;
    loop {
        tries += 1;
        match rustix::fs::openat2(&root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) if tries < RESOLVE_TRIES => {}
            result => return result,
        }
    }
}

/// Bind-mounts what a descriptor is of. What is mounted there already is left where it is the same.
fn bind_descriptor(found: &OwnedFd, target: &Utf8Path) -> std::io::Result<()> {
    let own = rustix::fs::fstat(found)?;
    let is_folder = rustix::fs::FileType::from_raw_mode(own.st_mode).is_dir();
    if mount::is_mount_point(target)? {
        let there = rustix::fs::stat(target.as_str())?;
        if (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino) {
            return Ok(());
        }
        mount::unmount(target)?;
    }
    let folder = if is_folder { Some(target) } else { target.parent() };
    if let Some(folder) = folder {
        std::fs::create_dir_all(folder)?;
    }
    if !is_folder {
        std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(target)?;
    }
    mount::bind(&Utf8PathBuf::from(format!("/proc/self/fd/{}", found.as_raw_fd())), target, false)
}

/// Reads a small file of a volume, without leaving it; `None` where it is not there.
///
/// # Errors
/// A message.
pub fn read_beneath(root: &Utf8Path, path: &str, bytes_max: u64) -> Result<Option<String>, String> {
    use std::io::Read;
    let read = || -> std::io::Result<Option<String>> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, root.as_str(), flags, Mode::empty())?;
        let found = match open_beneath(&root, path) {
            Err(Errno::NOENT) => return Ok(None),
            found => found?,
        };
        if !rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode).is_file() {
            return Err(std::io::Error::other("it is no regular file"));
        }
        let file = std::fs::File::open(format!("/proc/self/fd/{}", found.as_raw_fd()))?;
        let mut text = String::new();
        file.take(bytes_max + 1).read_to_string(&mut text)?;
        if text.len() as u64 > bytes_max {
            return Err(std::io::Error::other(format!("it is larger than {bytes_max} bytes")));
        }
        Ok(Some(text))
    };
    read().map_err(|error| format!("reading {path:?}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn root() -> (tempfile::TempDir, Utf8PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let root = Utf8PathBuf::from_path_buf(folder.path().join("volume")).expect("it is text");
        std::fs::create_dir(&root).expect("it is made");
        std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o777)).expect("it is ours");
        (folder, root)
    }

    fn path_of(found: &OwnedFd) -> String {
        let link = std::fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd())).expect("it is open");
        link.to_string_lossy().into_owned()
    }

    #[test]
    fn links_inside_are_followed_and_others_are_not() {
        let (_folder, root) = root();
        std::fs::create_dir_all(root.join("..data/in")).expect("made");
        symlink("..data/in", root.join("in")).expect("made");
        symlink("/etc", root.join("absolute")).expect("made");
        symlink("../..", root.join("up")).expect("made");
        symlink(root.join("in"), root.join("own")).expect("made");
        let found = find_or_make(&root, "in".into()).expect("it stays inside");
        assert!(path_of(&found).ends_with("/volume/..data/in"));
        for path in ["absolute", "absolute/passwd", "up", "up/x", "in/../../..", "own"] {
            assert!(find_or_make(&root, path.into()).is_err(), "{path}");
        }
        let elsewhere = root.parent().expect("it has one").join("x");
        assert!(!elsewhere.exists());
    }

    #[test]
    fn what_is_missing_is_made_with_the_volumes_mode() {
        let (_folder, root) = root();
        find_or_make(&root, "a/b/c".into()).expect("it is made");
        for path in ["a", "a/b", "a/b/c"] {
            let meta = std::fs::metadata(root.join(path)).expect("it is there");
            assert_eq!(meta.mode() & 0o7777, 0o777, "{path}");
        }
        std::fs::write(root.join("file"), "x").expect("written");
        assert!(find_or_make(&root, "file".into()).is_ok());
        assert!(find_or_make(&root, "file/x".into()).is_err());
    }

    #[test]
    fn files_are_read_inside_only() {
        let (_folder, root) = root();
        std::fs::write(root.join("f"), "A='x'").expect("written");
        symlink("/etc/hostname", root.join("out")).expect("made");
        assert_eq!(read_beneath(&root, "f", 10), Ok(Some("A='x'".into())));
        assert_eq!(read_beneath(&root, "none", 10), Ok(None));
        assert!(read_beneath(&root, "f", 4).is_err());
        assert!(read_beneath(&root, "out", 10).is_err());
        assert!(read_beneath(&root, "../volume/f", 10).is_err());
    }

    #[test]
    fn a_part_is_mounted_once_and_by_what_it_is() {
        if !mount::is_permitted() {
            println!("skipped: mounting needs CAP_SYS_ADMIN");
            return;
        }
        let (_folder, root) = root();
        std::fs::create_dir(root.join("d")).expect("made");
        std::fs::write(root.join("d/f"), "inside").expect("written");
        let folder = root.parent().expect("it has one").join("subpaths");
        let part = |path: &str, index: usize| SubPath {
            mount: 0,
            index,
            volume: "v".into(),
            root: root.clone(),
            path: path.into(),
        };
        let guard = mount::Unmounted::below(&folder);
        let place = bind(&part("d", 0), "c", &folder).expect("a folder");
        assert_eq!(place, folder.join("v/c/0"));
        assert_eq!(std::fs::read_to_string(place.join("f")).expect("it is there"), "inside");
        assert_eq!(bind(&part("d", 0), "c", &folder), Ok(place.clone()));
        let file = bind(&part("d/f", 1), "c", &folder).expect("a file");
        assert_eq!(std::fs::read_to_string(file).expect("it is there"), "inside");
        assert_eq!(mount::below(&folder).expect("the table").len(), 2);
        symlink("/etc", root.join("out")).expect("made");
        let refused = bind(&part("out", 2), "c", &folder).map_err(|refusal| refusal.message);
        assert_eq!(
            refused,
            Err("failed to create subPath directory for volumeMount \"v\" of container \"c\"".into())
        );
        drop(guard);
        assert_eq!(mount::below(&folder).expect("the table").len(), 0);
    }
}
