//! What the entries of a layer's archive mean for overlayfs.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::FileType;
use rustix::io::Errno;

use super::Limits;
use super::archive::{Archive, Entry, Kind};
use super::compression::unreadable;
use super::tree::{self, Ownership, Tree};
use crate::{Error, Result};

const WHITEOUT_PREFIX: &[u8] = b".wh.";
/// Everything of this folder that is below.
const OPAQUE_MARKER: &[u8] = b".wh..wh..opq";
/// What AUFS, whose whiteouts these are, kept for itself.
const AUFS_PREFIX: &[u8] = b".wh..wh.";
const BUFFER_BYTES: usize = 256 << 10;

/// Unpacks an archive. Returns the number of its entries and the bytes of its files.
pub(super) fn apply(
    archive: impl Read,
    root: &Utf8Path,
    below: &[Utf8PathBuf],
    limits: &Limits,
) -> Result<(u64, u64)> {
    let mut layer = Layer {
        tree: Tree::open(root)?,
        below: below.iter().map(|path| Tree::open(path)).collect::<Result<_>>()?,
        limits: *limits,
        entries: 0,
        bytes: 0,
        last_parent: None,
        folder_times: Vec::new(),
        buffer: vec![0; BUFFER_BYTES],
    };
    // An archive need not name the root.
    layer.inherit(
        layer.tree.root().try_clone_to_owned().map_err(|error| of("open", b"/", error))?,
        b".",
        b"",
    )?;
    let mut archive = Archive::new(archive);
    while let Some(entry) = archive.next()? {
        layer.apply(&entry, &mut archive)?;
    }
    layer.set_folder_times()?;
    Ok((layer.entries, layer.bytes))
}

struct Layer {
    tree: Tree,
    /// The topmost first.
    below: Vec<Tree>,
    limits: Limits,
    entries: u64,
    bytes: u64,
    /// Entries of one folder come together.
    last_parent: Option<(Vec<u8>, Rc<OwnedFd>)>,
    /// Set at the end, as every file that is made in a folder changes it.
    folder_times: Vec<(Vec<u8>, (i64, u32))>,
    buffer: Vec<u8>,
}

impl Layer {
    fn apply(&mut self, entry: &Entry, content: &mut impl Read) -> Result<()> {
        self.entries += 1;
        if self.entries > self.limits.entries_max {
            return Err(Error::Invalid(format!(
                "the archive has more than {} entries",
                self.limits.entries_max
            )));
        }
        if entry.kind == Kind::Ignored {
            return Ok(());
        }
        let path = clean(&entry.path)?;
        let (parent_path, name) = split(&path);
        if let Some(hidden) = name.strip_prefix(WHITEOUT_PREFIX) {
            return self.hide(&path, parent_path, name, hidden);
        }
        let parent = self.parent(parent_path)?;
        // The root is in itself.
        let name = if name.is_empty() { b"." } else { name };
        match entry.kind {
            Kind::Folder => self.folder(&parent, name, &path)?,
            Kind::File => {
                self.clear(&parent, name)?;
                let file = tree::make_file(&parent, name).map_err(|error| of("create", &path, error))?;
                self.fill(file, entry, content, &path)?;
            }
            Kind::Symlink => {
                self.clear(&parent, name)?;
                tree::make_symlink(&parent, name, &entry.link).map_err(|error| of("link", &path, error))?;
            }
            Kind::HardLink => return self.hard_link(&parent, name, &path, &entry.link),
            Kind::Character => self.node(&parent, name, &path, FileType::CharacterDevice, entry.device)?,
            Kind::Block => self.node(&parent, name, &path, FileType::BlockDevice, entry.device)?,
            Kind::Fifo => self.node(&parent, name, &path, FileType::Fifo, (0, 0))?,
            Kind::Ignored => {}
        }
        self.set_attributes(&parent, name, &path, entry)
    }

    fn set_attributes(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8], entry: &Entry) -> Result<()> {
        let id = |id: u64| {
            u32::try_from(id)
                .map_err(|_| invalid(path, &format!("it belongs to {id}, which is nobody's number")))
        };
        let ownership = Ownership { uid: id(entry.uid)?, gid: id(entry.gid)?, mode: entry.mode };
        tree::set_ownership(parent, name, ownership, entry.kind == Kind::Symlink)
            .map_err(|error| of("set the owner of", path, error))?;
        set_xattrs(parent, name, path, &entry.xattrs)?;
        if entry.kind == Kind::Folder {
            self.folder_times.push((path.to_vec(), entry.modified));
            return Ok(());
        }
        tree::set_modified(parent, name, entry.modified).map_err(|error| of("set the time of", path, error))
    }

    /// Removes what an earlier entry made here.
    fn clear(&mut self, parent: &OwnedFd, name: &[u8]) -> Result<()> {
        if name == b"." {
            return Err(invalid(b"/", "the root is a folder"));
        }
        let Some(found) = tree::stat(parent, name).map_err(|error| of("examine", name, error))? else {
            return Ok(());
        };
        if tree::is_folder(&found) {
            // Whose way led through it has to look again.
            self.last_parent = None;
        }
        tree::remove(parent, name).map_err(|error| of("replace", name, error))
    }

    fn node(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        kind: FileType,
        device: (u32, u32),
    ) -> Result<()> {
        self.clear(parent, name)?;
        tree::make_node(parent, name, kind, device).map_err(|error| of("create", path, error))
    }

    fn folder(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8]) -> Result<()> {
        let found = tree::stat(parent, name).map_err(|error| of("examine", path, error))?;
        if found.as_ref().is_some_and(tree::is_folder) {
            return Ok(());
        }
        if found.is_some() {
            tree::remove(parent, name).map_err(|error| of("replace", path, error))?;
        }
        tree::make_folder(parent, name).map_err(|error| of("create", path, error))?;
        // It replaces what was below, and does not show it again.
        if found.as_ref().is_some_and(tree::is_whiteout) {
            tree::make_opaque(parent, name).map_err(|error| of("mark", path, error))?;
        }
        Ok(())
    }

    fn fill(&mut self, mut file: File, entry: &Entry, content: &mut impl Read, path: &[u8]) -> Result<()> {
        if entry.size > self.limits.bytes_max {
            return Err(invalid(path, "it is larger than a layer may be"));
        }
        let whole = [(0, entry.size)];
        for (offset, length) in entry.segments.as_deref().unwrap_or(&whole) {
            if entry.segments.is_some() {
                file.seek(SeekFrom::Start(*offset)).map_err(|error| of("write", path, error))?;
            }
            let mut left = *length;
            while left > 0 {
                let most = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
                let read = content.read(&mut self.buffer[..most]).map_err(unreadable)?;
                if read == 0 {
                    return Err(invalid(path, "it breaks off"));
                }
                self.count(read as u64)?;
                file.write_all(&self.buffer[..read]).map_err(|error| of("write", path, error))?;
                left -= read as u64;
            }
        }
        if entry.segments.is_some() {
            file.set_len(entry.size).map_err(|error| of("write", path, error))?;
        }
        Ok(())
    }

    fn count(&mut self, bytes: u64) -> Result<()> {
        self.bytes += bytes;
        if self.bytes > self.limits.bytes_max {
            return Err(Error::Invalid(format!(
                "the archive holds more than {} bytes",
                self.limits.bytes_max
            )));
        }
        Ok(())
    }

    fn hard_link(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8], target: &[u8]) -> Result<()> {
        let target = clean(target)?;
        if target == path {
            return Ok(());
        }
        let (target_parent, target_name) = split(&target);
        if target_name.is_empty() {
            return Err(invalid(path, "it is a hard link to the root"));
        }
        let found = match self.tree.folder(target_parent) {
            Ok(folder) => match tree::stat(&folder, target_name) {
                Ok(Some(_)) => Some(folder),
                Ok(None) => None,
                Err(error) => return Err(of("examine", &target, error)),
            },
            Err(Errno::NOENT | Errno::NOTDIR) => None,
            Err(error) => return Err(of("examine", &target, error)),
        };
        let folder = match found {
            Some(folder) => folder,
            None => {
                self.copy_up(&target, path)?;
                self.tree.folder(target_parent).map_err(|error| of("examine", &target, error))?
            }
        };
        self.clear(parent, name)?;
        tree::link(&folder, target_name, parent, name).map_err(|error| of("link", path, error))
    }

    /// Makes in this layer what so far is only below, as a write to it would.
    fn copy_up(&mut self, target: &[u8], wanted_by: &[u8]) -> Result<()> {
        let missing = || {
            let target = String::from_utf8_lossy(target).into_owned();
            invalid(wanted_by, &format!("it is a hard link to {target:?}, which is not there"))
        };
        let source = self.find_below(target)?.ok_or_else(missing)?;
        let stat = rustix::fs::fstat(&source).map_err(|error| of("examine", target, error))?;
        let (parent_path, name) = split(target);
        let parent = self.parent(parent_path)?;
        let xattrs = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let from = File::open(format!("/proc/self/fd/{}", source.as_raw_fd()))
                    .map_err(|error| of("open", target, error))?;
                let mut to = tree::make_file(&parent, name).map_err(|error| of("create", target, error))?;
                let copied = std::io::copy(&mut &from, &mut to).map_err(|error| of("copy", target, error))?;
                self.count(copied)?;
                tree::xattrs(&source).map_err(|error| of("examine", target, error))?
            }
            FileType::Symlink => {
                let link = rustix::fs::readlinkat(&source, "", Vec::new())
                    .map_err(|error| of("examine", target, error))?;
                tree::make_symlink(&parent, name, link.as_bytes())
                    .map_err(|error| of("link", target, error))?;
                Vec::new()
            }
            _ => return Err(missing()),
        };
        let ownership = Ownership { uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode & 0o7777 };
        let is_link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
        tree::set_ownership(&parent, name, ownership, is_link)
            .map_err(|error| of("set the owner of", target, error))?;
        set_xattrs(&parent, name, target, &xattrs)?;
        tree::set_modified(&parent, name, (stat.st_mtime, stat.st_mtime_nsec as u32))
            .map_err(|error| of("set the time of", target, error))
    }

    /// What `.wh.` names stand for.
    fn hide(&mut self, path: &[u8], parent_path: &[u8], name: &[u8], hidden: &[u8]) -> Result<()> {
        if name == OPAQUE_MARKER {
            let parent = self.parent(parent_path)?;
            return tree::make_opaque(&*parent, b".").map_err(|error| of("mark", parent_path, error));
        }
        if name.starts_with(AUFS_PREFIX) {
            return Ok(());
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(invalid(path, "it hides nothing that can be"));
        }
        let parent = self.parent(parent_path)?;
        match tree::stat(&*parent, hidden).map_err(|error| of("examine", path, error))? {
            None => tree::make_whiteout(&*parent, hidden).map_err(|error| of("hide", path, error)),
            // Only what is below is meant. A folder of this layer hides it by being opaque, a file by being there.
            Some(found) if tree::is_folder(&found) => {
                tree::make_opaque(&*parent, hidden).map_err(|error| of("mark", path, error))
            }
            Some(_) => Ok(()),
        }
    }

    /// The folder that a path names; what is missing of it is made as it is below.
    fn parent(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>> {
        if let Some((last, folder)) = &self.last_parent
            && last == path
        {
            return Ok(folder.clone());
        }
        let folder = match self.tree.folder(path) {
            Ok(folder) => folder,
            Err(Errno::NOENT | Errno::NOTDIR) => self.make_all(path)?,
            Err(error) => return Err(of("open", path, error)),
        };
        let folder = Rc::new(folder);
        self.last_parent = Some((path.to_vec(), folder.clone()));
        Ok(folder)
    }

    fn make_all(&mut self, path: &[u8]) -> Result<OwnedFd> {
        let mut folder = self.tree.folder(b"").map_err(|error| of("open", b"/", error))?;
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(index, _)| index);
        for end in ends.chain([path.len()]) {
            let here = &path[..end];
            folder = match self.tree.folder(here) {
                Ok(folder) => folder,
                Err(Errno::NOENT | Errno::NOTDIR) => {
                    let (_, name) = split(here);
                    let found = tree::stat(&folder, name).map_err(|error| of("examine", here, error))?;
                    if found.as_ref().is_some_and(|found| !tree::is_whiteout(found)) {
                        return Err(invalid(path, "a part of its path is no folder"));
                    }
                    self.folder(&folder, name, here)?;
                    self.inherit(folder, name, here)?;
                    self.tree.folder(here).map_err(|error| of("open", here, error))?
                }
                Err(error) => return Err(of("open", here, error)),
            };
        }
        Ok(folder)
    }

    /// A folder that the archive does not describe is as it is below: overlayfs shows the topmost one's attributes.
    fn inherit(&self, parent: OwnedFd, name: &[u8], path: &[u8]) -> Result<()> {
        let mut ownership = Ownership { uid: 0, gid: 0, mode: 0o755 };
        if let Some(found) = self.find_below(path)? {
            let stat = rustix::fs::fstat(&found).map_err(|error| of("examine", path, error))?;
            if tree::is_folder(&stat) {
                ownership = Ownership { uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode & 0o7777 };
                let xattrs = tree::xattrs(&found).map_err(|error| of("examine", path, error))?;
                set_xattrs(&parent, name, path, &xattrs)?;
            }
        }
        // Who is not root makes what is theirs.
        if !rustix::process::geteuid().is_root() && ownership.uid == 0 {
            return Ok(());
        }
        tree::set_ownership(&parent, name, ownership, false)
            .map_err(|error| of("set the owner of", path, error))
    }

    /// What the layers below show under a path.
    fn find_below(&self, path: &[u8]) -> Result<Option<OwnedFd>> {
        for layer in &self.below {
            match layer.file(path) {
                Ok(found) => {
                    let stat = rustix::fs::fstat(&found).map_err(|error| of("examine", path, error))?;
                    return Ok((!tree::is_whiteout(&stat)).then_some(found));
                }
                // Something on the way is no folder, or not there any more.
                Err(Errno::NOTDIR) => return Ok(None),
                Err(Errno::NOENT) if is_cut_off(layer, path) => return Ok(None),
                Err(Errno::NOENT) => {}
                Err(error) => return Err(of("examine", path, error)),
            }
        }
        Ok(None)
    }

    fn set_folder_times(&self) -> Result<()> {
        for (path, modified) in &self.folder_times {
            // A later entry may have replaced it.
            match self.tree.folder(path) {
                Ok(folder) => tree::set_modified(&folder, b".", *modified)
                    .map_err(|error| of("set the time of", path, error))?,
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(error) => return Err(of("open", path, error)),
            }
        }
        Ok(())
    }
}

/// Whether a folder on the way hides what is below this layer.
fn is_cut_off(layer: &Tree, path: &[u8]) -> bool {
    let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(index, _)| index);
    ends.map(|end| layer.folder(&path[..end]))
        .any(|folder| folder.is_ok_and(|folder| tree::is_opaque(folder.as_fd())))
}

fn set_xattrs(parent: &OwnedFd, name: &[u8], path: &[u8], xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
    for (key, value) in xattrs.iter().filter(|(key, _)| !tree::is_reserved(key)) {
        match tree::set_xattr(parent, name, key, value) {
            Ok(()) => {}
            // Not every file system has every kind, and not every file may have one; a program without its
            // capabilities is another program.
            Err(error @ (Errno::OPNOTSUPP | Errno::PERM | Errno::INVAL)) if key != b"security.capability" => {
                let (path, key) = (String::from_utf8_lossy(path), String::from_utf8_lossy(key));
                tracing::debug!(%path, %key, %error, "An extended attribute is left out");
            }
            Err(error) => return Err(of("set an attribute of", path, error)),
        }
    }
    Ok(())
}

/// The path in the layer, without `.` and `..`; one that leads out of it is refused.
fn clean(path: &[u8]) -> Result<Vec<u8>> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                if parts.pop().is_none() {
                    return Err(invalid(path, "its path leads out of the layer"));
                }
            }
            part if part.contains(&0) => return Err(invalid(path, "its path has a zero in it")),
            part => parts.push(part),
        }
    }
    Ok(parts.join(&b'/'))
}

/// Folder and name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

fn invalid(path: &[u8], problem: &str) -> Error {
    Error::Invalid(format!("{:?}: {problem}", String::from_utf8_lossy(path)))
}

fn of(operation: &str, path: &[u8], error: impl Into<std::io::Error>) -> Error {
    Error::of_io(format!("{operation} {:?}", String::from_utf8_lossy(path)), error.into())
}
