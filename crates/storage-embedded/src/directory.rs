//! The data directory: who may use it, which format it has, and how small files in it are replaced.
//!
//! Owns: the lock, the `format` marker, file modes (0600, directories 0700) and the checksum that
//! every small text file here ends with. Knows nothing of what the files say.
//!
//! ```text
//! lock        held while a process uses the directory; says which
//! format      format version, and whether the store is still being set up
//! manifest    how far compaction and the tables are, and what the tables consist of
//! durable     the highest revision that was acknowledged as synced
//! journal/    recent writes, one file after the other
//! tables/     everything older
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use storage::Error;
use xxhash_rust::xxh3::xxh3_64;

pub(crate) const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

const LOCK: &str = "lock";
const FORMAT: &str = "format";
const FORMAT_LINE: &str = "pintle storage 1";
const JOURNAL: &str = "journal";
const TABLES: &str = "tables";
const MANIFEST: &str = "manifest";
const DURABLE: &str = "durable";

/// Everything a store puts into its directory, apart from the lock.
const CONTENTS: [&str; 5] = [FORMAT, MANIFEST, DURABLE, JOURNAL, TABLES];

/// A locked data directory. Dropping it releases the lock.
pub(crate) struct Directory {
    path: PathBuf,
    _lock: File,
}

/// What was found on opening.
pub(crate) enum Found {
    /// Nothing, or an unfinished set-up that was cleared away: set it up, then [`Directory::finish`].
    Empty(Directory),
    Store(Directory),
}

impl Directory {
    /// Creates the directory if need be, locks it and looks what it holds.
    pub(crate) fn open(path: &Path) -> Result<Found, Error> {
        create_directory(path)?;
        let directory = Self { path: path.to_owned(), _lock: lock(path)? };
        match directory.read_format()?.as_deref() {
            None => directory.expect_empty().map(Found::Empty),
            Some("new") => directory.clear().map(Found::Empty),
            Some("ready") => Ok(Found::Store(directory)),
            Some(other) => {
                Err(corrupt(&directory.file(FORMAT), format!("state {other:?} is neither new nor ready")))
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.file(JOURNAL)
    }

    pub(crate) fn tables(&self) -> PathBuf {
        self.file(TABLES)
    }

    pub(crate) fn manifest(&self) -> PathBuf {
        self.file(MANIFEST)
    }

    pub(crate) fn durable(&self) -> PathBuf {
        self.file(DURABLE)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Says that set-up has begun; until [`Directory::finish`] the content is worth nothing.
    pub(crate) fn begin(&self) -> Result<(), Error> {
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        sync_directory(parent.unwrap_or(Path::new(".")))?;
        replace(&self.file(FORMAT), &format!("{FORMAT_LINE}\nstate new\n"))
    }

    /// Says that set-up is complete.
    pub(crate) fn finish(&self) -> Result<(), Error> {
        replace(&self.file(FORMAT), &format!("{FORMAT_LINE}\nstate ready\n"))
    }

    /// The state in the format marker, if there is one.
    fn read_format(&self) -> Result<Option<String>, Error> {
        let path = self.file(FORMAT);
        if !path.try_exists().map_err(io_error("read", &path))? {
            return Ok(None);
        }
        let body = read_checked(&path)?;
        let mut lines = body.lines();
        let version = lines.next().unwrap_or_default();
        if version != FORMAT_LINE {
            let reason = format!("format is {version:?}, this version reads {FORMAT_LINE:?}");
            return Err(Error::Format { path: self.path.clone(), reason });
        }
        let state = lines.next().and_then(|line| line.strip_prefix("state "));
        state.map(|state| Some(state.to_owned())).ok_or_else(|| corrupt(&path, "no state line"))
    }

    fn expect_empty(self) -> Result<Self, Error> {
        for entry in fs::read_dir(&self.path).map_err(io_error("list", &self.path))? {
            let name = entry.map_err(io_error("list", &self.path))?.file_name();
            if name == LOCK || name == "lost+found" || name.to_string_lossy().ends_with(".tmp") {
                continue;
            }
            if CONTENTS.iter().any(|known| name == *known) {
                return Err(corrupt(&self.file(FORMAT), "the file is missing beside the data of a store"));
            }
            let reason = format!("it holds {name:?} but no store");
            return Err(Error::Format { path: self.path, reason });
        }
        Ok(self)
    }

    /// Removes what an interrupted set-up left. Nothing was ever acknowledged from it.
    fn clear(self) -> Result<Self, Error> {
        for name in CONTENTS.iter().filter(|name| **name != FORMAT) {
            let path = self.file(name);
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error("remove", &path)(error));
                }
                _ => {}
            }
        }
        Ok(self)
    }
}

fn lock(directory: &Path) -> Result<File, Error> {
    let path = directory.join(LOCK);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .open(&path)
        .map_err(io_error("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            return Err(Error::InUse { path: directory.to_owned(), holder: holder.trim().parse().ok() });
        }
        Err(TryLockError::Error(error)) => return Err(io_error("lock", &path)(error)),
    }
    file.set_len(0).map_err(io_error("write", &path))?;
    file.write_all(format!("{}\n", std::process::id()).as_bytes()).map_err(io_error("write", &path))?;
    Ok(file)
}

/// Creates a directory and its parents with the mode of private data.
pub(crate) fn create_directory(path: &Path) -> Result<(), Error> {
    DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(path)
        .map_err(io_error("create directory", path))
}

/// Replaces a small text file in one step, durably, and adds its checksum.
pub(crate) fn replace(path: &Path, body: &str) -> Result<(), Error> {
    let temporary = path.with_extension("tmp");
    let write = || -> io::Result<()> {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(&temporary)?;
        file.write_all(body.as_bytes())?;
        writeln!(file, "checksum {:016x}", xxh3_64(body.as_bytes()))?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(io_error("write", path))?;
    sync_directory(path.parent().unwrap_or(Path::new(".")))
}

/// Reads a file written by [`replace`] and checks it.
pub(crate) fn read_checked(path: &Path) -> Result<String, Error> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(corrupt(path, "the file is missing"));
        }
        Err(error) => return Err(io_error("read", path)(error)),
    };
    let text = String::from_utf8(bytes).map_err(|_| corrupt(path, "the file is not text"))?;
    let (body, sum) = text
        .strip_suffix('\n')
        .and_then(|text| text.rsplit_once('\n'))
        .ok_or_else(|| corrupt(path, "the file is cut short"))?;
    let body = format!("{body}\n");
    if sum != format!("checksum {:016x}", xxh3_64(body.as_bytes())) {
        return Err(corrupt(path, "the checksum does not match"));
    }
    Ok(body)
}

/// Makes created, renamed and removed names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<(), Error> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(io_error("sync directory", path))
}

/// Gives files and directories written by others below `path` our modes.
pub(crate) fn restrict(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        // A table may vanish at any moment, when it was merged into another.
        let Ok(metadata) = entry.metadata() else { continue };
        let mode = if metadata.is_dir() { DIRECTORY_MODE } else { FILE_MODE };
        if metadata.permissions().mode() & 0o777 != mode {
            let _ = fs::set_permissions(entry.path(), fs::Permissions::from_mode(mode));
        }
        if metadata.is_dir() {
            restrict(&entry.path())?;
        }
    }
    Ok(())
}

pub(crate) fn corrupt(path: &Path, reason: impl Into<String>) -> Error {
    Error::Corrupt { path: path.to_owned(), reason: reason.into() }
}

/// Turns an I/O error into ours, naming what was done to what. All ways in which a file system says
/// that there is no more room become [`Error::Full`].
pub(crate) fn io_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            Error::Full { path, reason: source.to_string() }
        }
        _ => Error::Io { operation, path, source: Arc::new(source) },
    }
}
