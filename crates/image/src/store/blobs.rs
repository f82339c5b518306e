//! Content by its digest.

use std::fs::{self, File};
use std::io::{self, Read, Write};

use camino::{Utf8Path, Utf8PathBuf};

use super::layout::{self, Layout};
use super::lease::Lease;
use crate::digest::Hashing;
use crate::manifest::DOCUMENT_BYTES_MAX;
use crate::{Digest, Error, Hasher, Result};

const COPY_BUFFER_BYTES: usize = 1 << 20;

impl Layout {
    /// The size of a blob that is here.
    pub(crate) fn blob_size(&self, digest: &Digest) -> Option<u64> {
        fs::metadata(self.blob(digest)).ok().map(|metadata| metadata.len())
    }

    pub(crate) fn open_blob(&self, digest: &Digest) -> Result<File> {
        let path = self.blob(digest);
        File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                Error::Corrupt(format!("the image store is damaged: content {digest} is missing"))
            }
            _ => Error::io("open", &path, error),
        })
    }

    /// A manifest or configuration; it is checked again, as it is small and everything hangs on it.
    pub(crate) fn read_document(&self, digest: &Digest) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open_blob(digest)?
            .take(DOCUMENT_BYTES_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| Error::io("read", &self.blob(digest), error))?;
        if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
            return Err(Error::Invalid(format!(
                "{digest} is larger than the {DOCUMENT_BYTES_MAX} bytes of a document"
            )));
        }
        let mut hasher = digest.hasher();
        hasher.update(&bytes);
        let found = hasher.finish();
        if found != *digest {
            return Err(Error::Corrupt(format!(
                "the image store is damaged: digest mismatch: content {digest} has digest {found}"
            )));
        }
        Ok(bytes)
    }

    /// Stores what is small and known. Returns its digest.
    pub(crate) fn put_bytes(&self, lease: &Lease, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        lease.claim(&digest)?;
        if self.blob_size(&digest) == Some(bytes.len() as u64) {
            return Ok(digest);
        }
        self.put(lease, bytes).map(|(digest, _)| digest)
    }

    /// Stores what is known under a digest of its sender's choice, which the caller checked.
    pub(crate) fn put_document(&self, lease: &Lease, digest: &Digest, bytes: &[u8]) -> Result<()> {
        lease.claim(digest)?;
        if self.blob_size(digest) == Some(bytes.len() as u64) {
            return Ok(());
        }
        let mut fresh = FreshBlob::of(self, lease, digest.hasher())?;
        fresh.write_all(bytes).map_err(|error| Error::io("write", &fresh.path, error))?;
        fresh.finish().map(drop)
    }

    /// Stores everything that can be read, under the digest that it turns out to have.
    pub(crate) fn put(&self, lease: &Lease, mut content: impl Read) -> Result<(Digest, u64)> {
        let mut fresh = FreshBlob::new(self, lease)?;
        let mut buffer = vec![0; COPY_BUFFER_BYTES];
        loop {
            let read = content
                .read(&mut buffer)
                .map_err(|error| Error::of_io("read what is to be stored".to_owned(), error))?;
            if read == 0 {
                return fresh.finish();
            }
            fresh.write_all(&buffer[..read]).map_err(|error| Error::io("write", &fresh.path, error))?;
        }
    }

    /// Makes a complete file on the store's file system a blob; the caller took its digest.
    pub(crate) fn adopt_blob(&self, file: &File, path: &Utf8Path, digest: &Digest) -> Result<()> {
        let target = self.blob(digest);
        file.sync_all().map_err(|error| Error::io("sync", path, error))?;
        fs::rename(path, &target).map_err(|error| Error::io("rename", path, error))?;
        layout::sync_folder(target.parent().unwrap_or(&target))
    }
}

/// A file that becomes a blob: what is written to it, under the digest that it turns out to have. It is removed
/// again unless it is finished.
pub(crate) struct FreshBlob<'a> {
    layout: &'a Layout,
    lease: &'a Lease,
    path: Utf8PathBuf,
    content: Option<Hashing<File>>,
}

impl<'a> FreshBlob<'a> {
    pub(crate) fn new(layout: &'a Layout, lease: &'a Lease) -> Result<Self> {
        Self::of(layout, lease, Hasher::sha256())
    }

    fn of(layout: &'a Layout, lease: &'a Lease, hasher: Hasher) -> Result<Self> {
        let path = layout.folder("blobs").join("sha256").join(lease.new_name());
        let file = File::create_new(&path).map_err(|error| Error::io("create", &path, error))?;
        Ok(Self { layout, lease, path, content: Some(Hashing::new(file, hasher)) })
    }

    /// Its digest and size.
    pub(crate) fn finish(mut self) -> Result<(Digest, u64)> {
        let content =
            self.content.take().ok_or_else(|| Error::Invalid("a blob is finished once".to_owned()))?;
        let (file, digest, size) = content.finish();
        self.lease.claim(&digest)?;
        let outcome = self.layout.adopt_blob(&file, &self.path, &digest);
        if outcome.is_err() {
            let _ = fs::remove_file(&self.path);
        }
        outcome.map(|()| (digest, size))
    }
}

impl Write for FreshBlob<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.content.as_mut().map_or(Ok(0), |content| content.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.content.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for FreshBlob<'_> {
    fn drop(&mut self) {
        if self.content.is_some() {
            let _ = fs::remove_file(&self.path);
        }
    }
}
