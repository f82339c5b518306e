//! Mounts: the kernel's table of them, and how they come and go.
//!
//! Nothing here follows a symbolic link at the target of an unmount, and nothing is unmounted that is not in the table.

use std::ffi::CString;

use camino::{Utf8Path, Utf8PathBuf};
use rustix::mount::{MountFlags, UnmountFlags};

/// A row of the table, as far as somebody here needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub point: Utf8PathBuf,
    pub file_system: String,
}

/// Everything that is mounted, in the order in which it was.
///
/// # Errors
/// Where the table cannot be read.
pub fn table() -> std::io::Result<Vec<Entry>> {
    // Paths are bytes; one that is no text is none of ours.
    let bytes = std::fs::read("/proc/self/mountinfo")?;
    Ok(String::from_utf8_lossy(&bytes).lines().filter_map(parse).collect())
}

/// `36 35 98:0 /root /point options [tags] - type source options`.
fn parse(line: &str) -> Option<Entry> {
    let (left, right) = line.split_once(" - ")?;
    let point = unescape(left.split(' ').nth(4)?);
    Some(Entry { point: point.into(), file_system: right.split(' ').next()?.to_owned() })
}

/// Blanks and backslashes are in octal there.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let octal = bytes.get(at + 1..at + 4).filter(|_| bytes[at] == b'\\');
        let value = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match value {
            Some(value) => {
                out.push(value);
                at += 4;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The path as the table has it: without links, but for its last name, which may not even be there.
fn resolved(path: &Utf8Path) -> Utf8PathBuf {
    let real = |path: &Utf8Path| path.canonicalize_utf8().ok();
    match (path.parent().and_then(real), path.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => path.to_owned(),
    }
}

/// Whether the path names anything. What is mounted there is not asked for anything: it may be a server that is gone.
fn is_there(path: &Utf8Path) -> bool {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    !matches!(rustix::fs::open(path.as_str(), flags, Mode::empty()), Err(rustix::io::Errno::NOENT))
}

/// # Errors
/// Where the table cannot be read.
pub fn is_mount_point(path: &Utf8Path) -> std::io::Result<bool> {
    if !is_there(path) {
        return Ok(false);
    }
    let path = resolved(path);
    Ok(table()?.iter().any(|entry| entry.point == path))
}

/// What is mounted at a path and below it, in the order in which it can be unmounted.
///
/// # Errors
/// Where the table cannot be read.
pub fn below(path: &Utf8Path) -> std::io::Result<Vec<Utf8PathBuf>> {
    // The table is long where there are many pods, and what is not there is not in it.
    if !is_there(path) {
        return Ok(Vec::new());
    }
    let path = resolved(path);
    let points = table()?.into_iter().map(|entry| entry.point);
    let mut inside: Vec<_> = points.filter(|point| point.starts_with(&path)).collect();
    inside.reverse();
    Ok(inside)
}

/// Whether the kernel has a kind of file system.
pub fn is_supported(file_system: &str) -> bool {
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    known.lines().any(|line| line.split_whitespace().next_back() == Some(file_system))
}

/// Shows what is at `source` at `target` too, with what is mounted below it.
///
/// # Errors
/// What the kernel says.
pub fn bind(source: &Utf8Path, target: &Utf8Path, read_only: bool) -> std::io::Result<()> {
    rustix::mount::mount_bind_recursive(source.as_str(), target.as_str())?;
    if read_only {
        let flags = MountFlags::BIND | MountFlags::RDONLY;
        if let Err(error) = rustix::mount::mount_remount(target.as_str(), flags, c"") {
            unmount(target)?;
            return Err(error.into());
        }
    }
    Ok(())
}

/// Mounts a file system that has no device.
///
/// # Errors
/// What the kernel says.
pub fn mount_virtual(file_system: &str, target: &Utf8Path, options: &str) -> std::io::Result<()> {
    let options = CString::new(options)?;
    let flags = MountFlags::empty();
    Ok(rustix::mount::mount(file_system, target.as_str(), file_system, flags, options.as_c_str())?)
}

/// Ends one mount; succeeds where there is none.
///
/// # Errors
/// What the kernel says: most often that somebody is still there.
pub fn unmount(target: &Utf8Path) -> std::io::Result<()> {
    match rustix::mount::unmount(target.as_str(), UnmountFlags::NOFOLLOW) {
        // Not mounted, or not even there.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(()),
        result => Ok(result?),
    }
}

/// Ends all mounts at a path and below it.
///
/// # Errors
/// The first one that cannot be ended.
pub fn unmount_below(path: &Utf8Path) -> std::io::Result<()> {
    for point in below(path)? {
        unmount(&point)
            .map_err(|error| std::io::Error::new(error.kind(), format!("unmounting {point}: {error}")))?;
    }
    Ok(())
}

/// Removes a folder and all that is in it, but never through a mount.
///
/// # Errors
/// Where something is mounted below it, and what the file system says.
pub fn remove_tree(path: &Utf8Path) -> std::io::Result<()> {
    if let Some(point) = below(path)?.last() {
        return Err(std::io::Error::other(format!("{point} is still mounted")));
    }
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Whether tests can mount here.
#[cfg(test)]
pub(crate) fn is_permitted() -> bool {
    if !rustix::process::geteuid().is_root() {
        return false;
    }
    let Ok(folder) = tempfile::tempdir() else { return false };
    let Some(path) = Utf8Path::from_path(folder.path()) else { return false };
    mount_virtual("tmpfs", path, "size=4096").and_then(|()| unmount(path)).is_ok()
}

/// Unmounts what a test mounted, also when it failed.
#[cfg(test)]
pub(crate) struct Unmounted(Utf8PathBuf);

#[cfg(test)]
impl Unmounted {
    pub fn below(path: &Utf8Path) -> Self {
        Self(path.to_owned())
    }
}

#[cfg(test)]
impl Drop for Unmounted {
    fn drop(&mut self) {
        if let Err(error) = unmount_below(&self.0) {
            println!("left mounted: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_with_their_blanks() {
        let line = r"36 35 98:0 /mnt1 /a\040b\134c rw,noatime master:1 - ext3 /dev/root rw,errors=continue";
        let wanted = Entry { point: r"/a b\c".into(), file_system: "ext3".into() };
        assert_eq!(parse(line), Some(wanted));
        assert_eq!(parse("36 35"), None);
        assert!(is_supported("proc") && !is_supported("no-such-thing"));
    }

    #[test]
    fn nothing_is_removed_through_a_mount() {
        if !is_permitted() {
            println!("skipped: mounting needs CAP_SYS_ADMIN");
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let root = Utf8Path::from_path(folder.path()).expect("it is text");
        let (data, pod) = (root.join("data"), root.join("pod"));
        std::fs::create_dir_all(data.join("in")).expect("made");
        std::fs::write(data.join("kept"), "x").expect("written");
        let (first, inner) = (pod.join("v"), pod.join("v/in"));
        std::fs::create_dir_all(&first).expect("made");
        let guard = Unmounted::below(&pod);
        bind(&data, &first, true).expect("bound");
        assert!(std::fs::write(first.join("x"), "").is_err(), "read-only");
        mount_virtual("tmpfs", &inner, "size=4096").expect("mounted");
        assert!(is_mount_point(&inner).expect("the table"));
        assert_eq!(
            below(&pod).expect("the table"),
            [inner.clone(), first.clone()].map(|path| resolved(&path))
        );
        let refused = remove_tree(&pod).expect_err("a mount is there").to_string();
        assert!(refused.ends_with("/pod/v is still mounted"), "{refused}");
        unmount_below(&pod).expect("unmounted");
        remove_tree(&pod).expect("removed");
        drop(guard);
        assert!(data.join("kept").exists() && !pod.exists());
        remove_tree(&pod).expect("it is gone already");
        unmount(&pod).expect("it is gone already");
        assert!(!is_mount_point(&pod).expect("nothing is there"));
    }
}
