//! Files of this machine as a layer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use camino::{Utf8Path, Utf8PathBuf};
use tar::{Builder, EntryType, Header};

use crate::{Error, Result};

/// All of a folder, sorted, with owners and modes as they are; its root is the image's.
pub(super) fn append_folder(archive: &mut Builder<impl Write>, folder: &Utf8Path) -> Result<()> {
    let root = folder.as_std_path();
    let metadata = fs::metadata(root).map_err(|error| unread(root, error))?;
    if !metadata.is_dir() {
        return Err(Error::Invalid(format!("{folder} is no folder")));
    }
    // Of files with several names, where the first one went.
    let mut linked: HashMap<(u64, u64), PathBuf> = HashMap::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(inside) = waiting.pop() {
        let path = root.join(&inside);
        let mut names = Vec::new();
        for entry in fs::read_dir(&path).map_err(|error| unread(&path, error))? {
            names.push(entry.map_err(|error| unread(&path, error))?.file_name());
        }
        names.sort_unstable();
        for name in &names {
            let inside = inside.join(name);
            append_path(archive, &root.join(&inside), &inside, &mut linked, &mut waiting)?;
        }
    }
    Ok(())
}

fn append_path(
    archive: &mut Builder<impl Write>,
    path: &Path,
    inside: &Path,
    linked: &mut HashMap<(u64, u64), PathBuf>,
    folders: &mut Vec<PathBuf>,
) -> Result<()> {
    let metadata = fs::symlink_metadata(path).map_err(|error| unread(path, error))?;
    let kind = metadata.file_type();
    if kind.is_file() {
        if metadata.nlink() > 1 {
            if let Some(first) = linked.get(&(metadata.dev(), metadata.ino())) {
                let mut header = header_of(&metadata, EntryType::Link, 0);
                return archive.append_link(&mut header, inside, first).map_err(unwritten);
            }
            linked.insert((metadata.dev(), metadata.ino()), inside.to_owned());
        }
        append_xattrs(archive, path)?;
        return append_file(archive, path, inside, &metadata, (metadata.uid(), metadata.gid()));
    }
    if kind.is_symlink() {
        let target = fs::read_link(path).map_err(|error| unread(path, error))?;
        let mut header = header_of(&metadata, EntryType::Symlink, 0);
        return archive.append_link(&mut header, inside, target).map_err(unwritten);
    }
    let mut header = if kind.is_dir() {
        folders.push(inside.to_owned());
        header_of(&metadata, EntryType::Directory, 0)
    } else if kind.is_fifo() {
        header_of(&metadata, EntryType::Fifo, 0)
    } else if kind.is_char_device() || kind.is_block_device() {
        let entry = if kind.is_char_device() { EntryType::Char } else { EntryType::Block };
        let mut header = header_of(&metadata, entry, 0);
        let device = metadata.rdev();
        header
            .set_device_major(rustix::fs::major(device))
            .and_then(|()| header.set_device_minor(rustix::fs::minor(device)))
            .map_err(unwritten)?;
        header
    } else {
        // A socket is nothing without whoever listens.
        return Ok(());
    };
    archive.append_data(&mut header, inside, io::empty()).map_err(unwritten)
}

/// Capabilities of programs; nothing else that is attached to files says something in an image.
fn append_xattrs(archive: &mut Builder<impl Write>, path: &Path) -> Result<()> {
    let mut value = vec![0_u8; 256];
    let Ok(read) = rustix::fs::lgetxattr(path, "security.capability", &mut value[..]) else { return Ok(()) };
    let records = [("SCHILY.xattr.security.capability", &value[..read])];
    archive.append_pax_extensions(records).map_err(unwritten)
}

/// Some files, with the folders that they are in.
pub(super) fn append_files(
    archive: &mut Builder<impl Write>,
    files: &BTreeMap<Utf8PathBuf, Utf8PathBuf>,
) -> Result<()> {
    let inside = |path: &Utf8Path| path.strip_prefix("/").unwrap_or(path).to_owned();
    let mut folders = BTreeSet::new();
    for path in files.keys() {
        let above = inside(path);
        let above = above.ancestors().skip(1).filter(|folder| !folder.as_str().is_empty());
        folders.extend(above.map(Utf8Path::to_owned));
    }
    for folder in folders {
        let mut header = plain_header(EntryType::Directory, 0o755, 0);
        archive.append_data(&mut header, folder, io::empty()).map_err(unwritten)?;
    }
    for (target, source) in files {
        let source = source.as_std_path();
        let metadata = fs::metadata(source).map_err(|error| unread(source, error))?;
        if !metadata.is_file() {
            return Err(Error::Invalid(format!("{} is no file", source.display())));
        }
        append_file(archive, source, inside(target).as_std_path(), &metadata, (0, 0))?;
    }
    Ok(())
}

fn append_file(
    archive: &mut Builder<impl Write>,
    path: &Path,
    inside: &Path,
    metadata: &Metadata,
    (uid, gid): (u32, u32),
) -> Result<()> {
    let content = File::open(path).map_err(|error| unread(path, error))?;
    let mut header = header_of(metadata, EntryType::Regular, metadata.len());
    header.set_uid(uid.into());
    header.set_gid(gid.into());
    // A file that grows meanwhile is taken as long as it was, one that shrinks is no file to take.
    let mut content = Exactly { content, left: metadata.len() };
    archive
        .append_data(&mut header, inside, &mut content)
        .map_err(|error| Error::of_io(format!("put {} into the image", path.display()), error))
}

/// Reads as many bytes as were promised, or fails.
struct Exactly<R> {
    content: R,
    left: u64,
}

impl<R: io::Read> io::Read for Exactly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let read = self.content.read(&mut buffer[..most])?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter"));
        }
        self.left -= read as u64;
        Ok(read)
    }
}

fn header_of(metadata: &Metadata, kind: EntryType, size: u64) -> Header {
    let mut header = plain_header(kind, metadata.mode() & 0o7777, size);
    header.set_uid(metadata.uid().into());
    header.set_gid(metadata.gid().into());
    header
}

fn plain_header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header
}

fn unread(path: &Path, error: io::Error) -> Error {
    Error::of_io(format!("read {}", path.display()), error)
}

pub(super) fn unwritten(error: io::Error) -> Error {
    Error::of_io("write a layer".to_owned(), error)
}
