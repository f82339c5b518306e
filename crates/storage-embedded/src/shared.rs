//! What the store's threads and its callers have in common.
//!
//! **Lock order:** observers, then index, then the journal's own locks. The queue and the keeper's
//! requests are never held while taking another lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};
use storage::{Error, Event, Observer, Revision};
use tokio::sync::{oneshot, watch};

use crate::Options;
use crate::index::Index;
use crate::keeper::Keeper;
use crate::log::Log;
use crate::queue::Queue;

pub(crate) struct Shared {
    pub options: EngineOptions,
    pub index: RwLock<Index>,
    pub log: Log,
    pub queue: Queue,
    pub keeper: Keeper,
    pub observers: Mutex<Vec<Registered>>,
    pub progress: watch::Sender<Progress>,
    closed: AtomicBool,
}

/// [`Options`] together with where the store is.
pub(crate) struct EngineOptions {
    pub path: std::path::PathBuf,
    pub options: Options,
}

impl std::ops::Deref for EngineOptions {
    type Target = Options;

    fn deref(&self) -> &Options {
        &self.options
    }
}

/// What watches wait for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    pub revision: Revision,
    pub closed: bool,
}

/// An observer and the keys it is for.
pub(crate) struct Registered {
    pub prefix: Box<str>,
    pub observer: Arc<dyn Observer>,
}

impl Shared {
    pub(crate) fn new(options: EngineOptions, index: Index, log: Log) -> Arc<Self> {
        let progress = Progress { revision: Revision(index.current()), closed: false };
        Arc::new(Self {
            options,
            index: RwLock::new(index),
            log,
            queue: Queue::new(),
            keeper: Keeper::default(),
            observers: Mutex::default(),
            progress: watch::Sender::new(progress),
            closed: AtomicBool::new(false),
        })
    }

    /// # Errors
    /// [`Error::Closed`] once closing has begun.
    pub(crate) fn expect_open(&self) -> Result<(), Error> {
        if self.closed.load(Ordering::Acquire) { Err(Error::Closed) } else { Ok(()) }
    }

    /// Refuses everything from now on and lets the threads end.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.queue.close();
    }
}

impl Registered {
    /// Shows those of a batch's events that match.
    pub(crate) fn show(&self, events: &[Event]) {
        let matches = |event: &Event| event.key.starts_with(&*self.prefix);
        let Some(first) = events.iter().position(matches) else { return };
        if events[first..].iter().all(matches) {
            return self.observer.committed(&events[first..]);
        }
        let matching: Vec<Event> = events[first..].iter().filter(|event| matches(event)).cloned().collect();
        self.observer.committed(&matching);
    }
}

/// Answers somebody who may have stopped waiting, which is fine.
pub(crate) fn notify<T>(answer: oneshot::Sender<T>, with: T) {
    let _ = answer.send(with);
}
