//! The storage contract: a revisioned, watchable map from keys to bytes.
//!
//! Owns the shapes every storage engine speaks ([`Store`], [`Write`], [`Event`], [`Error`]) and
//! the [`conformance`] suite that says what they mean. It never looks inside a value and knows no
//! kinds, no namespaces and no HTTP: keys, bytes and revisions only. Start at [`Store`].
//!
//! The model is the one kube-apiserver relies on: every successful write gets the next
//! [`Revision`] of the whole store, a value remembers the revision that created it and the one
//! that last changed it, and superseded versions stay readable until they are compacted.

pub mod conformance;

use std::any::Any;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

/// A point in the history of a whole store. Every write takes the next one; there are no gaps.
///
/// Zero means that nothing was written yet. The first write of a fresh store may get any revision
/// from one upwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// Before the first write.
    pub const ZERO: Self = Self(0);

    /// The revision right after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of a value, for example `/registry/pods/default/web-1`. Any text without a NUL.
pub type Key = Arc<str>;

/// What the committer of a write attaches to it, usually the decoded form of the value.
///
/// Opaque to storage and never persisted: it is handed back in the [`Event`] of this very write so
/// that nobody decodes twice, and events read from history (after a restart, or by a watch that
/// starts in the past) come without it.
pub type Attachment = Arc<dyn Any + Send + Sync>;

/// One version of one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    pub key: Key,
    pub value: Bytes,
    /// The write that created the key. Deleting and creating it again starts afresh.
    pub create_revision: Revision,
    /// The write that produced this version.
    pub mod_revision: Revision,
}

/// What has to hold for a write to be applied. Checked atomically with the write itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// Apply in any case. Deleting a key that is absent still fails, with
    /// [`Error::PreconditionFailed`], because a delete that deletes nothing has no event.
    None,
    /// The key must not exist.
    Absent,
    /// The key must exist, in whatever version.
    Present,
    /// The key must exist and its last change must be this one.
    ModRevision(Revision),
}

/// When a commit is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Once the write would survive a power cut.
    Synced,
    /// Once the write is ordered and visible. It becomes durable with the next synced batch, or
    /// within the engine's named bound, whichever is earlier. A write never becomes durable before
    /// the writes ordered before it.
    Relaxed,
}

/// One change to one key.
#[derive(Clone)]
pub struct Write {
    pub key: Key,
    pub precondition: Precondition,
    /// The new value; `None` deletes the key.
    pub value: Option<Bytes>,
    pub attachment: Option<Attachment>,
    pub durability: Durability,
}

impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Write")
            .field("key", &self.key)
            .field("precondition", &self.precondition)
            .field("value_bytes", &self.value.as_ref().map(Bytes::len))
            .field("attachment", &self.attachment.is_some())
            .field("durability", &self.durability)
            .finish()
    }
}

/// The answer to a successful [`Store::commit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    pub revision: Revision,
}

/// What an [`Event`] did to its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// Created it if `create_revision == revision`, changed it otherwise.
    Put,
    Delete,
}

/// One committed write.
#[derive(Clone)]
pub struct Event {
    pub revision: Revision,
    pub kind: EventKind,
    pub key: Key,
    /// The new value; empty for a delete.
    pub value: Bytes,
    /// Of the version written, or of the one deleted.
    pub create_revision: Revision,
    /// What the committer attached; always absent in events read from history.
    pub attachment: Option<Attachment>,
}

impl Event {
    /// Whether this event brought its key into being.
    #[must_use]
    pub fn is_create(&self) -> bool {
        self.kind == EventKind::Put && self.create_revision == self.revision
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("revision", &self.revision)
            .field("kind", &self.kind)
            .field("key", &self.key)
            .field("value_bytes", &self.value.len())
            .field("create_revision", &self.create_revision)
            .field("attachment", &self.attachment.is_some())
            .finish()
    }
}

/// Sees every committed write before its writer is answered.
///
/// Called in revision order, once per committed batch that has at least one matching event, after
/// the batch is durable (ordered, where all of it is [`Durability::Relaxed`]) and before any of its
/// writers is answered, so that a writer always finds its own write in whatever the observer
/// maintains. It runs on the engine's writer: it must be quick, must not block and must not call
/// back into the store.
pub trait Observer: Send + Sync + 'static {
    fn committed(&self, events: &[Event]);
}

/// What [`Store::range`] reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeRequest {
    /// Only keys that begin with this.
    pub prefix: String,
    /// Only keys after this one: the last key of the page before.
    pub start_after: Option<String>,
    /// At most this many pairs; zero means all.
    pub limit: usize,
    /// As of this revision; `None` means now.
    pub at: Option<Revision>,
}

/// What [`Store::range`] found, in key order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeResponse {
    pub items: Vec<KeyValue>,
    /// The revision the items were read at. Pass it as `at` to read the next page of the same list.
    pub revision: Revision,
    /// Whether keys are left after the last item.
    pub more: bool,
}

/// Events in revision order. After an error the stream ends; the caller lists and watches again.
pub type EventStream = BoxStream<'static, Result<Event, Error>>;

/// A revisioned, watchable map from keys to bytes.
///
/// Reads see a write once its `commit` was answered (and may see it a moment earlier). All methods
/// may be called from any thread; the synchronous ones do not wait for writers, but `range`, `scan`
/// and `get` may read from disk.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Applies one write, or says why not.
    ///
    /// If the caller stops waiting, the write may or may not be applied.
    ///
    /// # Errors
    /// [`Error::PreconditionFailed`] with the version found; [`Error::Full`], [`Error::ReadOnly`],
    /// [`Error::Closed`] and [`Error::Io`] as their names say. Nothing is half applied.
    async fn commit(&self, write: Write) -> Result<Committed, Error>;

    /// The revision of the last write that reads can see.
    fn current_revision(&self) -> Revision;

    /// The current version of one key.
    ///
    /// # Errors
    /// [`Error::Corrupt`] and [`Error::Io`] if it cannot be read; [`Error::Closed`].
    fn get(&self, key: &str) -> Result<Option<KeyValue>, Error>;

    /// Pairs in key order, all as of one revision.
    ///
    /// # Errors
    /// [`Error::Compacted`] or [`Error::FutureRevision`] if `at` is outside the history kept;
    /// otherwise as [`Store::get`].
    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Error>;

    /// Hands every current pair with the prefix to `visit`, one at a time and in whatever order the
    /// engine reads fastest, and returns the revision they were read at. For filling a cache without
    /// holding everything twice.
    ///
    /// # Errors
    /// The first error of `visit`; otherwise as [`Store::get`].
    fn scan(
        &self,
        prefix: &str,
        visit: &mut dyn FnMut(KeyValue) -> Result<(), Error>,
    ) -> Result<Revision, Error>;

    /// Registers an observer for keys with the prefix, for the life of the store, and returns the
    /// revision after which it sees every event. Scan at or after that revision (and skip observed
    /// events that the scan already contains) to miss nothing.
    fn observe(&self, prefix: &str, observer: Arc<dyn Observer>) -> Revision;

    /// Every event with the prefix and a revision greater than `after`, first from history and then
    /// as it happens. Ends when the store is closed.
    ///
    /// # Errors
    /// [`Error::Compacted`] if the history after `after` is gone (also later, in the stream, if the
    /// reader falls behind compaction); [`Error::FutureRevision`]; [`Error::Closed`].
    fn watch(&self, prefix: &str, after: Revision) -> Result<EventStream, Error>;

    /// Forgets versions superseded at or before `at`. Current versions always stay. Afterwards `at`
    /// itself is the oldest revision that can be read and watched from.
    ///
    /// # Errors
    /// [`Error::Compacted`] if this was already compacted further; [`Error::FutureRevision`].
    async fn compact(&self, at: Revision) -> Result<(), Error>;

    /// Writes a consistent copy into the new directory `target`, which opens as a store, and returns
    /// the revision it holds.
    ///
    /// # Errors
    /// [`Error::Io`] if `target` exists or cannot be written; [`Error::Closed`].
    async fn snapshot(&self, target: &Path) -> Result<Revision, Error>;

    /// Makes everything durable and stops. Later calls give [`Error::Closed`]; closing twice is fine.
    ///
    /// # Errors
    /// [`Error::Io`] if the last writes could not be made durable.
    async fn close(&self) -> Result<(), Error>;
}

/// Why storage refused. Cheap to clone, because one failure may answer a whole batch of writers.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "write {key}: precondition failed, {}; read it again and retry",
        found(current.as_ref())
    )]
    PreconditionFailed {
        key: Key,
        /// The version found instead, if any.
        current: Option<KeyValue>,
    },

    #[error(
        "read at revision {requested}: compacted, the oldest revision kept is {oldest}; list again \
         without a revision"
    )]
    Compacted { requested: Revision, oldest: Revision },

    #[error("read at revision {requested}: not written yet, the current revision is {current}")]
    FutureRevision { requested: Revision, current: Revision },

    #[error(
        "data damaged: {}: {reason}; restore a snapshot, or move the data directory away to start \
         empty",
        path.display()
    )]
    Corrupt { path: PathBuf, reason: String },

    #[error("write {}: disk full: {reason}; make room and retry", path.display())]
    Full { path: PathBuf, reason: String },

    #[error(
        "write {}: the store takes no more writes since an earlier failure ({cause}); fix the cause \
         and restart",
        path.display()
    )]
    ReadOnly { path: PathBuf, cause: String },

    #[error(
        "open {}: in use by another process{}; stop it or choose another data directory",
        path.display(),
        holder.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    InUse { path: PathBuf, holder: Option<u32> },

    #[error(
        "open {}: {reason}; use a directory written by this version or move it away",
        path.display()
    )]
    Format { path: PathBuf, reason: String },

    #[error("write {key:?}: {reason}")]
    InvalidWrite { key: Key, reason: String },

    #[error("the store is closed; open it again")]
    Closed,

    #[error("{operation} {}: {source}; check that the disk and its permissions are in order", path.display())]
    Io { operation: &'static str, path: PathBuf, source: Arc<std::io::Error> },
}

fn found(current: Option<&KeyValue>) -> String {
    match current {
        Some(current) => format!("the key is at revision {}", current.mod_revision),
        None => "the key does not exist".to_owned(),
    }
}
