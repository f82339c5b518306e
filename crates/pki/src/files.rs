//! Private files on disk: read whole, replaced whole.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};

use camino::{Utf8Path, Utf8PathBuf};

use crate::Error;

/// Only the owner may read and write: these files hold keys.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// Creates `directory` and its parents for the owner alone; an existing one is narrowed to that.
pub(crate) fn create_private_directory(directory: &Utf8Path) -> Result<(), Error> {
    let wrap = |source| Error::CreateDirectory { path: directory.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory).map_err(wrap)?;
    fs::set_permissions(directory, Permissions::from_mode(DIRECTORY_MODE)).map_err(wrap)
}

/// The file's text, or `None` when there is no such file.
pub(crate) fn read_if_present(path: &Utf8Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read { path: path.to_owned(), source }),
    }
}

/// Replaces `path` by `content`, readable for the owner alone.
///
/// A reader and a crash see the old content or the new, never a part: the content is written beside the file, synced,
/// and moved over it.
pub fn write_private(path: &Utf8Path, content: &[u8]) -> Result<(), Error> {
    write_and_rename(path, content).map_err(|source| Error::Write { path: path.to_owned(), source })
}

fn write_and_rename(path: &Utf8Path, content: &[u8]) -> io::Result<()> {
    let temporary = Utf8PathBuf::from(format!("{path}.tmp"));
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(&temporary)?;
    // A left-over of a crash keeps its old mode when it is opened again.
    file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    // The rename itself is durable only once the directory is.
    let directory = path.parent().filter(|parent| !parent.as_str().is_empty()).unwrap_or(Utf8Path::new("."));
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_file_is_private_and_replaces_the_old_one_whole() {
        let directory = tempfile::tempdir().unwrap();
        let directory = Utf8Path::from_path(directory.path()).unwrap();
        let path = directory.join("secret");
        fs::write(format!("{path}.tmp"), "left over from a crash, and longer").unwrap();
        write_private(&path, b"one").unwrap();
        write_private(&path, b"two").unwrap();
        assert_eq!(read_if_present(&path).unwrap().as_deref(), Some("two"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, FILE_MODE);
        assert!(!directory.join("secret.tmp").exists());
    }

    #[test]
    fn an_open_directory_is_narrowed_to_its_owner() {
        let directory = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(directory.path()).unwrap().join("a/b");
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        create_private_directory(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, DIRECTORY_MODE);
    }
}
