//! Manifests and blobs, from whichever host of a registry has them.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::sync::atomic::Ordering;

use bytes::Bytes;
use camino::Utf8PathBuf;
use http::header::{ACCEPT, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use hyper::body::Incoming;
use rustix::fs::FlockOperation;
use tokio::io::{AsyncSeekExt, AsyncWriteExt};

use super::request::{self, Host, Session};
use crate::manifest::{DOCUMENT_BYTES_MAX, Descriptor, media_type};
use crate::store::{Layout, Lease};
use crate::{Digest, Error, Hasher, Result};

const DOCKER_CONTENT_DIGEST: &str = "docker-content-digest";
/// A blob is asked for again so often without getting any further.
const FRUITLESS_MAX: u32 = 3;
const READ_BUFFER_BYTES: usize = 1 << 20;

/// A manifest or index.
pub(crate) struct Fetched {
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
    pub(crate) bytes: Bytes,
}

impl Session {
    /// What the registry has under the image's name now, if it says so without sending it.
    pub(crate) async fn current(&self) -> Result<Option<Digest>> {
        if let Some(digest) = self.reference.digest() {
            return Ok(Some(digest.clone()));
        }
        let selector = self.reference.selector().to_owned();
        let mut last = self.nowhere();
        for host in self.candidates(true) {
            match self.ask(host, &Method::HEAD, "manifests", &selector, &accept()).await {
                Ok(response) => return Ok(said_digest(&response)),
                Err(error) => last = passed_over(host, error)?,
            }
        }
        Err(last)
    }

    /// What the image's name means.
    pub(crate) async fn resolve(&self) -> Result<Fetched> {
        self.document(self.reference.selector(), self.reference.digest()).await
    }

    /// A manifest of an index.
    pub(crate) async fn manifest(&self, descriptor: &Descriptor) -> Result<Fetched> {
        self.document(descriptor.digest.as_str(), Some(&descriptor.digest)).await
    }

    async fn document(&self, selector: &str, expected: Option<&Digest>) -> Result<Fetched> {
        let mut last = self.nowhere();
        for host in self.candidates(expected.is_none()) {
            match self.document_of(host, selector, expected).await {
                Ok(fetched) => return Ok(fetched),
                Err(error) => last = passed_over(host, error)?,
            }
        }
        Err(last)
    }

    async fn document_of(&self, host: &Host, selector: &str, expected: Option<&Digest>) -> Result<Fetched> {
        let response = self.ask(host, &Method::GET, "manifests", selector, &accept()).await?;
        let media_type = text(&response, CONTENT_TYPE.as_str());
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_owned();
        let said = said_digest(&response);
        let peer = host.peer(self.stall_timeout);
        let bytes = peer.read(response.into_body(), DOCUMENT_BYTES_MAX as usize).await?;
        let wanted = expected.or(said.as_ref());
        let mut hasher = wanted.map_or_else(Hasher::sha256, Digest::hasher);
        hasher.update(&bytes);
        let digest = hasher.finish();
        match wanted {
            Some(wanted) if *wanted != digest => Err(Error::Corrupt(format!(
                "digest mismatch: manifest {wanted} of {} came with digest {digest}",
                self.reference.repository()
            ))),
            _ => Ok(Fetched { digest, media_type, bytes }),
        }
    }

    /// The hosts to ask, one after the other. Of several failures the last one counts, which is the registry's own.
    fn candidates(&self, by_tag: bool) -> impl Iterator<Item = &Host> {
        self.hosts
            .iter()
            .map(|host| &**host)
            .filter(move |host| host.endpoint.resolves || !by_tag)
            .filter(|host| host.is_last || !host.is_down.load(Ordering::Relaxed))
    }

    /// When there is nobody to ask.
    fn nowhere(&self) -> Error {
        Error::NotFound(format!("{}: not found", self.reference))
    }

    /// Fetches a blob into the store, from where it broke off the last time. `progress` is told how much of it is
    /// here.
    pub(crate) async fn blob(
        &self,
        layout: &Layout,
        lease: &Lease,
        descriptor: &Descriptor,
        progress: impl Fn(u64),
    ) -> Result<()> {
        let mut partial = {
            let (layout, descriptor, name) = (layout.clone(), descriptor.clone(), lease.new_name());
            crate::store::blocking(move || Partial::open(&layout, descriptor, &name)).await?
        };
        // What an earlier run left may be what is wrong.
        let mut may_restart = partial.bytes > 0;
        loop {
            progress(partial.bytes);
            self.complete(&mut partial, &progress).await?;
            let found = partial.digest();
            if found == partial.descriptor.digest {
                return partial.finish(layout).await;
            }
            partial.restart().await?;
            if !std::mem::take(&mut may_restart) {
                let wanted = &partial.descriptor.digest;
                return Err(Error::Corrupt(format!(
                    "digest mismatch: content {wanted} of {} came with digest {found}",
                    self.reference.repository()
                )));
            }
        }
    }

    /// Reads until everything is here; each host goes on where the last one left.
    async fn complete(&self, partial: &mut Partial, progress: &impl Fn(u64)) -> Result<()> {
        let mut last = self.nowhere();
        for host in self.candidates(false) {
            match self.complete_from(host, partial, progress).await {
                Ok(()) => return Ok(()),
                Err(error) => last = passed_over(host, error)?,
            }
        }
        Err(last)
    }

    async fn complete_from(&self, host: &Host, partial: &mut Partial, progress: &impl Fn(u64)) -> Result<()> {
        let mut fruitless = 0;
        while partial.bytes < partial.descriptor.size {
            let before = partial.bytes;
            let Err(error) = self.stream(host, partial, progress).await else { continue };
            if !error.is_passing() {
                return Err(error);
            }
            fruitless = if partial.bytes > before { 1 } else { fruitless + 1 };
            if fruitless > if host.is_last { FRUITLESS_MAX } else { 0 } {
                return Err(error);
            }
            rt::sleep(request::backoff(fruitless)).await;
        }
        Ok(())
    }

    /// One request's worth.
    async fn stream(&self, host: &Host, partial: &mut Partial, progress: &impl Fn(u64)) -> Result<()> {
        let mut headers = HeaderMap::new();
        if partial.bytes > 0 {
            let range = HeaderValue::from_str(&format!("bytes={}-", partial.bytes));
            headers.extend(range.ok().map(|range| (RANGE, range)));
        }
        let digest = partial.descriptor.digest.clone();
        let response = match self.ask(host, &Method::GET, "blobs", digest.as_str(), &headers).await {
            Ok(response) => response,
            // It does not do ranges, or not this one.
            Err(Error::Invalid(problem)) if partial.bytes > 0 => {
                partial.restart().await?;
                return Err(Error::Unavailable(problem));
            }
            Err(error) => return Err(error),
        };
        if partial.bytes > 0 && !continues(&response, partial.bytes) {
            if response.status() == StatusCode::PARTIAL_CONTENT {
                partial.restart().await?;
                return Err(Error::Unavailable(format!("another part of {digest} came than was asked for")));
            }
            partial.restart().await?;
        }
        let peer = host.peer(self.stall_timeout);
        let mut body = response.into_body();
        while let Some(part) = peer.part(&mut body).await? {
            if part.len() as u64 > partial.descriptor.size - partial.bytes {
                let size = partial.descriptor.size;
                return Err(Error::Corrupt(format!(
                    "size mismatch: content {digest} has more than its {size} bytes"
                )));
            }
            partial.push(&part).await?;
            progress(partial.bytes);
        }
        partial.flush().await?;
        if partial.bytes < partial.descriptor.size {
            let (bytes, size) = (partial.bytes, partial.descriptor.size);
            return Err(Error::Unavailable(format!("content {digest} ended after {bytes} of {size} bytes")));
        }
        Ok(())
    }
}

/// What a host could not do may be another one's to do; unless it is this machine that could not.
fn passed_over(host: &Host, error: Error) -> Result<Error> {
    if matches!(error, Error::NoSpace(_) | Error::Io { .. }) {
        return Err(error);
    }
    let authority = &host.endpoint.authority;
    tracing::debug!(%authority, %error, "A host of the registry did not help");
    if error.is_passing() {
        host.is_down.store(true, Ordering::Relaxed);
    }
    Ok(error)
}

fn text(response: &Response<Incoming>, name: &str) -> String {
    response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

/// What a registry says that it sends.
fn said_digest(response: &Response<Incoming>) -> Option<Digest> {
    text(response, DOCKER_CONTENT_DIGEST).parse().ok()
}

fn accept() -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(&media_type::ACCEPTED.join(", ")) {
        headers.insert(ACCEPT, value);
    }
    headers
}

/// Whether an answer goes on at this byte.
fn continues(response: &Response<Incoming>, start: u64) -> bool {
    let range =
        response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    response.status() == StatusCode::PARTIAL_CONTENT && range.trim().starts_with(&format!("bytes {start}-"))
}

/// What has come of a blob so far.
struct Partial {
    descriptor: Descriptor,
    path: Utf8PathBuf,
    file: tokio::fs::File,
    bytes: u64,
    /// `None` only while it is replaced.
    hasher: Option<Hasher>,
    /// Whether another process fetches the same, so that this beginning is of use to nobody else.
    is_private: bool,
}

impl Partial {
    /// Opens what is there and takes its digest.
    fn open(layout: &Layout, descriptor: Descriptor, private_name: &str) -> Result<Self> {
        let open = |path: &Utf8PathBuf| {
            OpenOptions::new()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(path)
                .map_err(|error| Error::io("open", path, error))
        };
        let mut path = layout.partial(&descriptor.digest);
        let mut file = open(&path)?;
        let is_private = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err();
        if is_private {
            path = path.with_file_name(private_name);
            file = open(&path)?;
        }
        let failed = |error| Error::io("read", &path, error);
        let mut hasher = descriptor.digest.hasher();
        let mut bytes = 0;
        let mut buffer = vec![0; READ_BUFFER_BYTES];
        loop {
            let read = file.read(&mut buffer).map_err(failed)?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
            bytes += read as u64;
        }
        if bytes > descriptor.size {
            file.set_len(0).map_err(failed)?;
            file.seek(SeekFrom::Start(0)).map_err(failed)?;
            (hasher, bytes) = (descriptor.digest.hasher(), 0);
        }
        let file = tokio::fs::File::from_std(file);
        Ok(Self { descriptor, path, file, bytes, hasher: Some(hasher), is_private })
    }

    async fn push(&mut self, part: &[u8]) -> Result<()> {
        self.file.write_all(part).await.map_err(|error| Error::io("write", &self.path, error))?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(part);
        }
        self.bytes += part.len() as u64;
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        self.file.flush().await.map_err(|error| Error::io("write", &self.path, error))
    }

    async fn restart(&mut self) -> Result<()> {
        let failed = |error| Error::io("empty", &self.path, error);
        self.file.flush().await.map_err(failed)?;
        self.file.set_len(0).await.map_err(failed)?;
        self.file.rewind().await.map_err(failed)?;
        (self.hasher, self.bytes) = (Some(self.descriptor.digest.hasher()), 0);
        Ok(())
    }

    /// Of what is here. What comes after is not counted.
    fn digest(&mut self) -> Digest {
        self.hasher.take().unwrap_or_else(Hasher::sha256).finish()
    }

    /// Makes it a blob.
    async fn finish(self, layout: &Layout) -> Result<()> {
        let layout = layout.clone();
        let file: File = self
            .file
            .try_clone()
            .await
            .map_err(|error| Error::io("open", &self.path, error))?
            .into_std()
            .await;
        let (path, digest) = (self.path.clone(), self.descriptor.digest.clone());
        crate::store::blocking(move || layout.adopt_blob(&file, &path, &digest)).await
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if self.is_private {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
