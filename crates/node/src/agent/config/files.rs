//! Files that the node writes for a container: `/etc/hosts`, and an empty one for its last words.

use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};

use camino::{Utf8Path, Utf8PathBuf};

/// Bytes of last words that a status holds.
pub const TERMINATION_MESSAGE_MAX: u64 = 4_096;

/// Attempts before the newest one whose last words are kept; a status tells of one.
const ATTEMPTS_KEPT: u32 = 4;

/// Writes `/etc/hosts` of a pod. It is rewritten in place where it differs: containers have the file itself mounted.
///
/// # Errors
/// What the file system says.
pub fn write_hosts(path: &Utf8Path, text: &str) -> std::io::Result<()> {
    if std::fs::read(path).is_ok_and(|own| own == text.as_bytes()) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut file =
        std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o644).open(path)?;
    file.write_all(text.as_bytes())?;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

/// The file for the last words of a container's `attempt`, in the folder of its pod.
pub fn termination_file(pod_folder: &Utf8Path, container: &str, attempt: u32) -> Utf8PathBuf {
    pod_folder.join("containers").join(container).join(attempt.to_string())
}

/// Makes an empty file that every user of the container can write to. Files of attempts that nobody asks for any more
/// go: a container may fail for years.
///
/// # Errors
/// What the file system says.
pub fn make_termination_file(path: &Utf8Path) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
        let attempt = path.file_name().and_then(|name| name.parse::<u32>().ok());
        let oldest = attempt.unwrap_or(0).saturating_sub(ATTEMPTS_KEPT);
        for entry in folder.read_dir_utf8()?.flatten() {
            if entry.file_name().parse::<u32>().is_ok_and(|own| own < oldest) {
                std::fs::remove_file(entry.path())?;
            }
        }
    }
    let file = std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o666).open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o666))
}

/// The last words that a container left; empty where there are none. Never follows a link: the container could have
/// made one.
///
/// # Errors
/// What the file system says.
pub fn termination_message(path: &Utf8Path) -> std::io::Result<String> {
    use std::io::Read;
    let no_follow = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let flags = i32::try_from(no_follow.bits()).unwrap_or_default();
    let file = match std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
        file => file?,
    };
    if !file.metadata()?.is_file() {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    file.take(TERMINATION_MESSAGE_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_written_once_and_read_within_bounds() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = Utf8Path::from_path(folder.path()).expect("it is text");
        let hosts = root.join("pod/etc-hosts");
        write_hosts(&hosts, "a\n").expect("written");
        let first = std::fs::metadata(&hosts).expect("there");
        write_hosts(&hosts, "b\n").expect("written");
        let second = std::fs::metadata(&hosts).expect("there");
        assert_eq!(std::fs::read_to_string(&hosts).expect("there"), "b\n");
        assert_eq!(
            std::os::unix::fs::MetadataExt::ino(&first),
            std::os::unix::fs::MetadataExt::ino(&second),
            "mounted in containers"
        );
        let words = termination_file(&root.join("pod"), "c", 0);
        assert_eq!(termination_message(&words).expect("none"), "");
        make_termination_file(&words).expect("made");
        assert_eq!(std::fs::metadata(&words).expect("there").permissions().mode() & 0o777, 0o666);
        std::fs::write(&words, "x".repeat(5_000)).expect("written");
        assert_eq!(termination_message(&words).expect("there").len(), 4_096);
        for attempt in 1..=5 {
            make_termination_file(&termination_file(&root.join("pod"), "c", attempt)).expect("made");
            assert_eq!(words.exists(), attempt < 5);
        }
        std::os::unix::fs::symlink("/etc/hostname", &words).expect("made");
        assert!(termination_message(&words).is_err());
    }
}
