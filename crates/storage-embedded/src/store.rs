//! The store as callers see it: checks requests, reads through the index, and owns the threads.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use storage::{
    Committed, Error, EventStream, Key, KeyValue, Observer, RangeRequest, RangeResponse, Revision, Store,
    Write,
};
use tokio::sync::oneshot;

use crate::directory::{Directory, io_error};
use crate::index::{Index, Version};
use crate::journal::Appender;
use crate::keeper::{Housekeeping, Inheritance, check_compaction};
use crate::log::{Log, Spread, View};
use crate::queue::Refusal;
use crate::record::{KEY_BYTES_MAX, Record, VALUE_BYTES_MAX};
use crate::shared::{Registered, Shared, notify};
use crate::snapshot::{self, Content};
use crate::watch;
use crate::writer::Writer;

/// A store on the embedded engine. Made by [`crate::open`] or [`crate::memory`].
///
/// Dropping it without [`Store::close`] closes it all the same, but blocks and swallows errors.
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    running: Mutex<Option<Running>>,
}

/// What ends when the store is closed.
struct Running {
    writer: JoinHandle<Result<(), Error>>,
    keeper: JoinHandle<()>,
    /// Held for its lock.
    directory: Option<Directory>,
}

impl EmbeddedStore {
    pub(crate) fn start(
        shared: Arc<Shared>,
        appender: Option<Appender>,
        directory: Option<Directory>,
        inheritance: Inheritance,
    ) -> Result<Self, Error> {
        let writer = Writer::new(Arc::clone(&shared), appender);
        let keeping = Housekeeping::new(Arc::clone(&shared), inheritance);
        let keeper = spawn("storage-keeper", move || keeping.run())?;
        let writer = spawn("storage-writer", move || writer.run()).inspect_err(|_| shared.keeper.stop())?;
        let running = Running { writer, keeper, directory };
        Ok(Self { shared, running: Mutex::new(Some(running)) })
    }

    /// The index and everything it names at one moment.
    fn at_one_moment<T>(&self, look: impl FnOnce(&Index) -> Result<T, Error>) -> Result<(T, View), Error> {
        self.shared.expect_open()?;
        let index = self.shared.index.read();
        let found = look(&index)?;
        Ok((found, self.shared.log.view()?))
    }

    fn live_by_revision(index: &Index, prefix: &str) -> (Vec<Version>, Spread) {
        let mut versions: Vec<Version> = index.live_with(prefix, None).collect();
        versions.sort_unstable_by_key(|version| version.modified);
        let spread = spread(versions.len(), index);
        (versions, spread)
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn commit(&self, write: Write) -> Result<Committed, Error> {
        check_write(&write)?;
        let key = Key::clone(&write.key);
        let handed_in = rt::instant();
        let answered = self.shared.queue.push(write).await?;
        let answer = answered.await;
        telemetry::metrics().storage.commit_duration.observe(handed_in.elapsed());
        match answer {
            Ok(Ok(committed)) => Ok(committed),
            Ok(Err(Refusal::Failed(error))) => Err(error),
            Ok(Err(Refusal::Precondition)) => {
                let current = self.get(&key)?;
                Err(Error::PreconditionFailed { key, current })
            }
            Err(_) => Err(Error::Closed),
        }
    }

    fn current_revision(&self) -> Revision {
        Revision(self.shared.index.read().current())
    }

    fn get(&self, key: &str) -> Result<Option<KeyValue>, Error> {
        self.shared.expect_open()?;
        let (version, view) = {
            let index = self.shared.index.read();
            let Some(version) = index.version(key) else { return Ok(None) };
            let view = self.shared.log.view_of(version.modified)?;
            (version, view)
        };
        view.read(version.modified, |record| key_value(&version, record)).map(Some)
    }

    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Error> {
        let RangeRequest { prefix, start_after, limit, at } = request;
        let start_after = start_after.as_deref();
        let (found, view) = self.at_one_moment(|index| {
            let at = check_revision(index, *at)?;
            // One more than asked for, to know whether there is more.
            let take = if *limit == 0 { usize::MAX } else { limit.saturating_add(1) };
            let versions: Vec<Version> = if at == index.current() {
                index.live_with(prefix, start_after).take(take).collect()
            } else {
                index.versions_at(prefix, start_after, at).take(take).collect()
            };
            let spread = spread(versions.len(), index);
            Ok((Revision(at), versions, spread))
        })?;
        let (revision, mut versions, spread) = found;
        let more = *limit > 0 && versions.len() > *limit;
        if more {
            versions.truncate(*limit);
        }
        Ok(RangeResponse { items: read_all(&view, versions, spread)?, revision, more })
    }

    fn scan(
        &self,
        prefix: &str,
        visit: &mut dyn FnMut(KeyValue) -> Result<(), Error>,
    ) -> Result<Revision, Error> {
        let (found, view) = self
            .at_one_moment(|index| Ok((Revision(index.current()), Self::live_by_revision(index, prefix))))?;
        let (revision, (versions, spread)) = found;
        view.each(&versions, |v| v.modified, spread, |version, record| visit(key_value(version, record)))?;
        Ok(revision)
    }

    fn observe(&self, prefix: &str, observer: Arc<dyn Observer>) -> Revision {
        let mut observers = self.shared.observers.lock();
        observers.push(Registered { prefix: prefix.into(), observer });
        Revision(self.shared.index.read().current())
    }

    fn watch(&self, prefix: &str, after: Revision) -> Result<EventStream, Error> {
        self.shared.expect_open()?;
        watch::stream(&self.shared, prefix, after)
    }

    async fn compact(&self, at: Revision) -> Result<(), Error> {
        self.shared.expect_open()?;
        {
            let index = self.shared.index.read();
            check_compaction(at, index.compacted(), index.current())?;
        }
        self.shared.keeper.compact(at.0).await
    }

    async fn snapshot(&self, target: &Path) -> Result<Revision, Error> {
        let (found, view) =
            self.at_one_moment(|index| Ok((index.current(), Self::live_by_revision(index, "").0)))?;
        let (revision, versions) = found;
        let content = Content { revision, versions, view };
        let (target, options) = (target.to_owned(), self.shared.options.options.clone());
        on_thread("storage-snapshot", move || snapshot::write(&target, &options, &content)).await?;
        Ok(Revision(revision))
    }

    async fn close(&self) -> Result<(), Error> {
        let Some(running) = self.running.lock().take() else { return Ok(()) };
        let shared = Arc::clone(&self.shared);
        shared.close();
        on_thread("storage-close", move || running.end(&shared)).await
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        let Some(running) = self.running.get_mut().take() else { return };
        self.shared.close();
        if let Err(error) = running.end(&self.shared) {
            tracing::error!(%error, "Closed the store without making everything durable");
        }
    }
}

impl Running {
    /// Waits for the threads, then lets go of files and lock.
    fn end(self, shared: &Shared) -> Result<(), Error> {
        let outcome = self.writer.join().unwrap_or(Err(Error::Closed));
        shared.keeper.stop();
        let _ = self.keeper.join();
        shared.progress.send_modify(|progress| progress.closed = true);
        if let Log::Disk(disk) = &shared.log {
            drop(disk.tables.write().take());
        }
        drop(self.directory);
        outcome
    }
}

fn spawn<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, Error> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(io_error("start thread", name.as_ref()))
}

/// Runs something that blocks for long on a thread of its own.
async fn on_thread<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let (answer, answered) = oneshot::channel();
    spawn(name, move || notify(answer, run()))?;
    answered.await.unwrap_or(Err(Error::Closed))
}

fn check_write(write: &Write) -> Result<(), Error> {
    let key = &write.key;
    let value_bytes = write.value.as_ref().map_or(0, Bytes::len);
    let reason = if key.is_empty() || key.len() > KEY_BYTES_MAX {
        format!("the key has {} bytes, allowed are 1 to {KEY_BYTES_MAX}", key.len())
    } else if key.contains('\0') {
        "the key contains a NUL".to_owned()
    } else if value_bytes > VALUE_BYTES_MAX {
        format!("the value has {value_bytes} bytes, allowed are {VALUE_BYTES_MAX}")
    } else {
        return Ok(());
    };
    Err(Error::InvalidWrite { key: Key::clone(key), reason })
}

/// Resolves the revision to read at and checks that it is within history.
fn check_revision(index: &Index, at: Option<Revision>) -> Result<u64, Error> {
    let Some(at) = at else { return Ok(index.current()) };
    check_compaction(at, index.compacted(), index.current())?;
    Ok(at.0)
}

/// How many of the live versions are wanted decides how to read them: reading past three unwanted
/// records costs about as much as looking one up.
fn spread(wanted: usize, index: &Index) -> Spread {
    if wanted * 4 >= index.live_count() { Spread::Dense } else { Spread::Sparse }
}

/// Reads versions that are in key order, in whatever order is cheapest.
fn read_all(view: &View, mut versions: Vec<Version>, spread: Spread) -> Result<Vec<KeyValue>, Error> {
    if spread == Spread::Dense {
        versions.sort_unstable_by_key(|version| version.modified);
    }
    let mut items = Vec::with_capacity(versions.len());
    view.each(
        &versions,
        |version| version.modified,
        spread,
        |version, record| {
            items.push(key_value(version, record));
            Ok(())
        },
    )?;
    if spread == Spread::Dense {
        items.sort_unstable_by(|left, right| left.key.cmp(&right.key));
    }
    Ok(items)
}

fn key_value(version: &Version, record: Record<'_>) -> KeyValue {
    KeyValue {
        key: Key::clone(&version.key),
        value: Bytes::copy_from_slice(record.value),
        create_revision: Revision(version.created),
        mod_revision: Revision(version.modified),
    }
}
