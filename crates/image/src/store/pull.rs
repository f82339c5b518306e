//! Fetching an image from a registry into the store.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;

use super::{ImageRecord, Lease, Store, blocking};
use crate::manifest::{Descriptor, Document};
use crate::platform::Platform;
use crate::registry::{Credential, Fetched, Session};
use crate::{Digest, Error, Reference, Result};

/// Of one image at a time, as many as containerd fetches.
const CONCURRENT_BLOBS_MAX: usize = 3;
/// An index may name indexes; nobody nests deeper.
const INDEX_DEPTH_MAX: usize = 4;

/// How to fetch an image.
#[derive(Clone)]
pub struct Pull {
    /// Credentials to try, in order; the last resort is none.
    pub credentials: Vec<Credential>,
    /// After so long without progress it is given up.
    pub stall_timeout: Duration,
    pub progress: Arc<dyn Progress>,
}

const STALL_TIMEOUT: Duration = Duration::from_secs(60);

impl Default for Pull {
    fn default() -> Self {
        Self { credentials: Vec::new(), stall_timeout: STALL_TIMEOUT, progress: Arc::new(Silent) }
    }
}

/// Who wants to see how a pull goes on.
pub trait Progress: Send + Sync {
    fn step(&self, step: Step<'_>);
}

/// What happened to one blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// It has to be fetched.
    Wanted { digest: &'a Digest, bytes: u64 },
    /// So much of it is here.
    Fetched { digest: &'a Digest, bytes: u64 },
    /// It is here.
    Complete { digest: &'a Digest },
    /// Its files are being written.
    Unpacking { digest: &'a Digest },
}

/// Nobody looks.
pub struct Silent;

impl Progress for Silent {
    fn step(&self, _: Step<'_>) {}
}

/// What is said when a pull fails, as containerd says it.
fn failed(reference: &Reference, error: Error) -> Error {
    let of = |problem: String| format!("failed to pull and unpack image \"{reference}\": {problem}");
    match error {
        Error::NotFound(problem) => Error::NotFound(of(problem)),
        Error::Unauthorized(problem) => Error::Unauthorized(of(problem)),
        Error::Invalid(problem) => Error::Invalid(of(problem)),
        Error::Corrupt(problem) => Error::Corrupt(of(problem)),
        Error::Stalled(problem) => Error::Stalled(of(problem)),
        Error::Unavailable(problem) => Error::Unavailable(of(problem)),
        Error::NoSpace(problem) => Error::NoSpace(of(problem)),
        Error::InUse(problem) => Error::InUse(of(problem)),
        Error::Io { operation, source } => Error::Io { operation: of(operation), source },
        error @ Error::InvalidName { .. } => error,
    }
}

/// The step from a name to a manifest has its own words.
fn unresolved(reference: &Reference, error: Error) -> Error {
    let of = |problem: String| format!("failed to resolve reference \"{reference}\": {problem}");
    match error {
        Error::NotFound(problem) => Error::NotFound(of(problem)),
        Error::Unauthorized(problem) => Error::Unauthorized(of(problem)),
        Error::Stalled(problem) => Error::Stalled(of(problem)),
        Error::Unavailable(problem) => Error::Unavailable(of(problem)),
        error => error,
    }
}

pub(super) async fn pull(store: &Store, image: &str, pull: Pull) -> Result<ImageRecord> {
    let reference: Reference = image.parse()?;
    // Who pulls the same meanwhile waits and then finds it here.
    let _working = store.shared.working.lock(&format!("pull {reference}")).await;
    fetch(store, &reference, pull).await.map_err(|error| failed(&reference, error))
}

async fn fetch(store: &Store, reference: &Reference, pull: Pull) -> Result<ImageRecord> {
    let session = {
        let (shared, reference) = (store.shared.clone(), reference.clone());
        let (credentials, stall_timeout) = (pull.credentials.clone(), pull.stall_timeout);
        let opened =
            blocking(move || shared.registries.session(&reference, &credentials, stall_timeout)).await?;
        Arc::new(opened)
    };
    let lease = Arc::new(store.lease().await?);
    if let Some(record) = unchanged(store, &lease, reference, &session).await? {
        return Ok(record);
    }
    let top = session.resolve().await.map_err(|error| unresolved(reference, error))?;
    let target = top.digest.clone();
    let manifest = choose(store, &lease, &session, top).await?;
    let Document::Manifest(content) = Document::decode(&manifest.bytes, &manifest.media_type)? else {
        return Err(Error::Invalid("indexes are nested too deep".to_owned()));
    };
    let wanted: Vec<Descriptor> = std::iter::once(content.config).chain(content.layers).collect();
    let mut fetches = futures::stream::iter(wanted)
        .map(|blob| {
            let (store, lease, session) = (store.clone(), lease.clone(), session.clone());
            let progress = pull.progress.clone();
            async move { fetch_blob(&store, &lease, &session, &blob, &*progress).await }
        })
        .buffer_unordered(CONCURRENT_BLOBS_MAX);
    while let Some(fetched) = fetches.next().await {
        fetched?;
    }
    drop(fetches);
    let names = [reference.tagged(), Some(reference.at(&target))].into_iter().flatten().collect();
    let progress = pull.progress.clone();
    let record = store
        .adopt(&lease, &manifest.digest, &target, names, move |layer| {
            progress.step(Step::Unpacking { digest: &layer.digest });
        })
        .await?;
    Ok(record)
}

/// The image, where the registry still has under this name what is here.
async fn unchanged(
    store: &Store,
    lease: &Arc<Lease>,
    reference: &Reference,
    session: &Session,
) -> Result<Option<ImageRecord>> {
    let known = {
        let reference = reference.clone();
        store
            .with_layout(move |layout| {
                let by_digest = reference.digest().map(|digest| reference.at(digest));
                layout.reference(by_digest.as_ref().unwrap_or(&reference))
            })
            .await?
    };
    let Some(known) = known else { return Ok(None) };
    // What cannot say it without sending is asked to send.
    if session.current().await.ok().flatten() != Some(known.target.clone()) {
        return Ok(None);
    }
    let (lease, reference) = (lease.clone(), reference.clone());
    let found = store
        .with_layout(move |layout| {
            let Some(image) = layout.image(&known.image)? else { return Ok(None) };
            for blob in image.blobs() {
                lease.claim(blob)?;
            }
            // A store that lost something is mended by fetching it.
            let is_whole =
                image.layers.iter().all(|layer| layout.blob_size(&layer.digest) == Some(layer.size))
                    && layout.blob_size(&image.manifest.digest) == Some(image.manifest.size)
                    && layout.blob_size(&image.config.digest) == Some(image.config.size);
            if is_whole && let Some(tagged) = reference.tagged() {
                layout.put_reference(&tagged, image.id(), &known.target)?;
            }
            Ok(is_whole.then_some(image))
        })
        .await?;
    let Some(image) = found else { return Ok(None) };
    store.with_layout(move |layout| layout.describe(&image, &layout.all_references()?).map(Some)).await
}

/// Follows indexes to the manifest for this machine. Every document on the way is kept.
async fn choose(store: &Store, lease: &Arc<Lease>, session: &Session, top: Fetched) -> Result<Fetched> {
    let mut found = top;
    for _ in 0..=INDEX_DEPTH_MAX {
        let (lease, digest, bytes) = (lease.clone(), found.digest.clone(), found.bytes.clone());
        let document = Document::decode(&found.bytes, &found.media_type)?;
        store.with_layout(move |layout| layout.put_document(&lease, &digest, &bytes)).await?;
        match document {
            Document::Manifest(_) => return Ok(found),
            Document::Index(index) => {
                found = session.manifest(Platform::host().choose(&index.manifests)?).await?;
            }
        }
    }
    Err(Error::Invalid("indexes are nested too deep".to_owned()))
}

async fn fetch_blob(
    store: &Store,
    lease: &Arc<Lease>,
    session: &Session,
    blob: &Descriptor,
    progress: &dyn Progress,
) -> Result<()> {
    // Two images may have it in common.
    let _working = store.shared.working.lock(&format!("blob {}", blob.digest)).await;
    let digest = &blob.digest;
    let found = {
        let (lease, digest) = (lease.clone(), digest.clone());
        store
            .with_layout(move |layout| {
                // The claim comes first, so that what is found here stays.
                lease.claim(&digest)?;
                Ok(layout.blob_size(&digest))
            })
            .await?
    };
    if found != Some(blob.size) {
        progress.step(Step::Wanted { digest, bytes: blob.size });
        let fetched = |bytes| progress.step(Step::Fetched { digest, bytes });
        session.blob(&store.shared.layout, lease, blob, fetched).await?;
    }
    progress.step(Step::Complete { digest });
    Ok(())
}
