//! Memory in which secrets stand, so that no disk ever holds them, as the kubelet promises.

use std::io::{Error, ErrorKind};

use camino::Utf8Path;

use super::mount;

/// `statfs(2)`.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// Makes the folder of a volume, in memory. A folder that has files already is left where it is, since containers show it.
///
/// # Errors
/// What the kernel says.
pub fn set_up(folder: &Utf8Path) -> Result<(), Error> {
    std::fs::create_dir_all(folder)?;
    if is_memory(folder)? || folder.read_dir_utf8()?.next().is_some() {
        return Ok(());
    }
    // Linux has it from 6.4 on.
    match mount::mount_virtual("tmpfs", folder, "mode=755,noswap") {
        Err(error) if error.kind() == ErrorKind::InvalidInput => {
            mount::mount_virtual("tmpfs", folder, "mode=755")
        }
        mounted => mounted,
    }
}

fn is_memory(folder: &Utf8Path) -> Result<bool, Error> {
    Ok(u64::try_from(rustix::fs::statfs(folder.as_str())?.f_type).ok() == Some(TMPFS_MAGIC))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_new_folder_is_memory_and_one_with_files_stays() {
        if !mount::is_permitted() {
            return println!("skipped: nothing may be mounted here");
        }
        let temporary = tempfile::tempdir().expect("a folder");
        let root = Utf8Path::from_path(temporary.path()).expect("a name of text");
        let _mounts = mount::Unmounted::below(root);
        let (new, old) = (root.join("new"), root.join("old"));
        fs::create_dir(&old).expect("made");
        fs::write(old.join("key"), "").expect("written");
        for _ in 0..2 {
            set_up(&new).expect("set up");
            set_up(&old).expect("set up");
        }
        assert_eq!(mount::below(root).expect("read"), [new.canonicalize_utf8().expect("is there")]);
    }
}
