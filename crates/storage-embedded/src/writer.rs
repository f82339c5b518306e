//! The one thread that commits.
//!
//! Owns: the order of all writes. It takes everything that waits, judges each precondition against
//! the index and the writes before it in the batch, hands out revisions, writes one frame, syncs
//! once, shows the batch to readers and observers, and then answers. Never reads values.
//!
//! **Invariant (observe-then-answer):** index, then observers, then answers, and no batch begins
//! before the one ahead is through: whoever is answered finds its write everywhere.
//!
//! **Invariant (all-or-nothing):** a batch whose frame could not be written leaves no trace, its
//! revisions are handed out again. A failed *sync* leaves the disk in an unknown state, so the store
//! takes no more writes until it is opened again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use storage::{Committed, Durability, Error, Event, EventKind, Key, Precondition, Revision, Write};
use tokio::sync::oneshot;

use crate::index::{Index, Live};
use crate::journal::Appender;
use crate::log::Log;
use crate::queue::{Answer, Refusal, Waiting, Work};
use crate::segment::Frame;
use crate::shared::{Shared, notify};

/// A frame is ended when it has this much, so that one sync stays short and buffers small.
const FRAME_BYTES_MAX: usize = 4 << 20;

pub(crate) struct Writer {
    shared: Arc<Shared>,
    appender: Option<Appender>,
    frame: Frame,
    batch: Batch,
    /// By when relaxed writes have to be synced.
    sync_by: Option<Instant>,
    /// Why no more writes are taken.
    broken: Option<Error>,
}

/// The writes of one frame on their way through.
#[derive(Default)]
struct Batch {
    events: Vec<Event>,
    /// One for each event, in the same order.
    accepted: Vec<oneshot::Sender<Answer>>,
    refused: Vec<oneshot::Sender<Answer>>,
    /// What keys become through this batch; `None` is deleted.
    changed: HashMap<Key, Option<Live>>,
    is_synced: bool,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, appender: Option<Appender>) -> Self {
        Self { shared, appender, frame: Frame::new(), batch: Batch::default(), sync_by: None, broken: None }
    }

    /// Commits until the queue is closed and empty, then makes everything durable.
    pub(crate) fn run(mut self) -> Result<(), Error> {
        let mut waiting = Vec::new();
        loop {
            match self.shared.queue.take(self.sync_by, &mut waiting) {
                Work::Batch => self.commit_all(&mut waiting),
                Work::Deadline => drop(self.sync()),
                Work::Closed => return self.close(),
            }
        }
    }

    fn close(mut self) -> Result<(), Error> {
        if let Some(cause) = self.broken {
            return Err(cause);
        }
        match (&self.shared.log, &mut self.appender) {
            (Log::Disk(disk), Some(appender)) => appender.close(&disk.journal),
            _ => Ok(()),
        }
    }

    fn commit_all(&mut self, waiting: &mut Vec<Waiting>) {
        /// Give back what a rush needed.
        const KEPT_WAITING_MAX: usize = 512;
        let mut rest = waiting.drain(..).peekable();
        while rest.peek().is_some() {
            self.gather(&mut rest);
            self.commit_frame();
        }
        drop(rest);
        waiting.shrink_to(KEPT_WAITING_MAX);
    }

    /// Judges and encodes writes until the frame is full.
    fn gather(&mut self, waiting: &mut impl Iterator<Item = Waiting>) {
        let index = self.shared.index.read();
        self.frame.reset(index.current() + 1);
        for Waiting { write, answer } in waiting {
            if self.broken.is_some() {
                self.batch.refused.push(answer);
                continue;
            }
            let current = self.batch.current(&index, &write.key);
            if !holds(&write, current) {
                self.batch.refused.push(answer);
                continue;
            }
            self.batch.accept(&mut self.frame, write, current, answer);
            if self.frame.len() >= FRAME_BYTES_MAX {
                break;
            }
        }
    }

    fn commit_frame(&mut self) {
        if !self.frame.is_empty() {
            match self.write_frame() {
                Ok(()) => self.publish(),
                Err(error) => self.batch.fail(&error),
            }
        }
        let broken = self.broken.as_ref();
        for answer in self.batch.refused.drain(..) {
            let refusal = broken.map_or(Refusal::Precondition, |cause| Refusal::Failed(cause.clone()));
            notify(answer, Err(refusal));
        }
        self.batch.clear();
        self.after_batch();
    }

    fn write_frame(&mut self) -> Result<(), Error> {
        self.shared.keeper.wait_for_room(&self.shared)?;
        let starts_file = self.appender.as_ref().is_some_and(Appender::is_between_files);
        self.shared.log.append(&mut self.appender, &mut self.frame).map_err(|error| self.failed(error))?;
        telemetry::metrics().storage.batch_writes.observe_count(self.batch.events.len() as u64);
        if starts_file {
            self.shared.log.measure();
        }
        if self.batch.is_synced {
            return self.sync();
        }
        if self.sync_by.is_none() {
            self.sync_by = Some(rt::instant().into_std() + self.shared.options.relaxed_flush);
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Error> {
        self.sync_by = None;
        let (Log::Disk(disk), Some(appender)) = (&self.shared.log, &mut self.appender) else { return Ok(()) };
        let started = rt::instant();
        let synced = appender.sync(&disk.journal);
        telemetry::metrics().storage.sync_duration.observe(started.elapsed());
        synced.map_err(|error| {
            tracing::error!(%error, "Stopped taking writes");
            self.stop_writing(&error)
        })
    }

    /// A full disk may have room again for the next batch; anything else is final.
    fn failed(&mut self, error: Error) -> Error {
        if let Error::Full { .. } = error {
            return error;
        }
        tracing::error!(%error, "Stopped taking writes");
        self.stop_writing(&error)
    }

    fn stop_writing(&mut self, cause: &Error) -> Error {
        let path = self.shared.options.path.clone();
        self.broken = Some(Error::ReadOnly { path, cause: cause.to_string() });
        cause.clone()
    }

    /// Shows the batch to readers, then observers, then answers its writers.
    fn publish(&mut self) {
        let Some(last) = self.batch.events.last().map(|event| event.revision) else { return };
        {
            // Whoever registers now sees either all of this batch or none of it.
            let observers = self.shared.observers.lock();
            let mut index = self.shared.index.write();
            for event in &self.batch.events {
                index.apply(event.revision.0, event.kind, &event.key, event.create_revision.0);
            }
            drop(index);
            for observer in &*observers {
                observer.show(&self.batch.events);
            }
        }
        self.shared.progress.send_modify(|progress| progress.revision = last);
        telemetry::metrics().storage.revision.set(last.0 as i64);
        for (answer, event) in self.batch.accepted.drain(..).zip(&self.batch.events) {
            notify(answer, Ok(Committed { revision: event.revision }));
        }
    }

    /// Hands a full file to housekeeping, and asks it to trim history that grew too long.
    fn after_batch(&mut self) {
        if let (Log::Disk(disk), Some(appender)) = (&self.shared.log, &mut self.appender)
            && appender.is_full(&disk.journal)
            && self.broken.is_none()
        {
            if appender.is_dirty() && self.sync().is_err() {
                return;
            }
            if let Some(appender) = &mut self.appender {
                appender.seal();
            }
            self.shared.keeper.take_over();
        }
        let history = self.shared.index.read().history_len();
        telemetry::metrics().storage.history.set(history as i64);
        if history > self.shared.options.history_max {
            self.shared.keeper.trim();
        }
    }
}

// === impl Batch ===

impl Batch {
    /// The version of a key that the next write of this batch would meet.
    fn current(&self, index: &Index, key: &str) -> Option<Live> {
        match self.changed.get(key) {
            Some(changed) => *changed,
            None => index.live(key),
        }
    }

    fn accept(
        &mut self,
        frame: &mut Frame,
        write: Write,
        current: Option<Live>,
        answer: oneshot::Sender<Answer>,
    ) {
        let revision = frame.next_revision();
        let created = current.map_or(revision, |current| current.created);
        let (kind, value) = match write.value {
            Some(value) => (EventKind::Put, value),
            None => (EventKind::Delete, Bytes::new()),
        };
        frame.push(kind, created, &write.key, &value);
        let becomes = (kind == EventKind::Put).then_some(Live { created, modified: revision });
        self.changed.insert(Key::clone(&write.key), becomes);
        self.is_synced |= write.durability == Durability::Synced;
        self.accepted.push(answer);
        self.events.push(Event {
            revision: Revision(revision),
            kind,
            key: write.key,
            value,
            create_revision: Revision(created),
            attachment: write.attachment,
        });
    }

    fn fail(&mut self, error: &Error) {
        for answer in self.accepted.drain(..) {
            notify(answer, Err(Refusal::Failed(error.clone())));
        }
    }

    fn clear(&mut self) {
        /// Give back what a rush needed.
        const KEPT_MAX: usize = 512;
        self.events.clear();
        self.events.shrink_to(KEPT_MAX);
        self.accepted.clear();
        self.accepted.shrink_to(KEPT_MAX);
        self.refused.shrink_to(KEPT_MAX);
        self.changed.clear();
        self.changed.shrink_to(KEPT_MAX);
        self.is_synced = false;
    }
}

/// Whether a write may be applied to what is there. Deleting nothing is never applied.
fn holds(write: &Write, current: Option<Live>) -> bool {
    if write.value.is_none() && current.is_none() {
        return false;
    }
    match write.precondition {
        Precondition::None => true,
        Precondition::Absent => current.is_none(),
        Precondition::Present => current.is_some(),
        Precondition::ModRevision(revision) => current.is_some_and(|current| current.modified == revision.0),
    }
}
