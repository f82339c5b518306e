//! [`Watcher`]: a cursor into a resource's events.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::{Event, Expired, ResourceCache};

/// Events handed out at a time, so that one watcher does not hold the lock for long.
const BATCH_MAX: usize = 512;

/// Delivers each event after a revision once and in order. Dropping it ends the watch.
pub struct Watcher {
    cache: Arc<ResourceCache>,
    /// Everything up to here was delivered.
    revision: u64,
    newest: tokio::sync::watch::Receiver<u64>,
}

/// What a watcher got.
#[derive(Debug)]
pub enum Next {
    /// At least one event.
    Events(Vec<Arc<Event>>),
    /// The watcher fell further behind than history is kept; it has to list again.
    Expired(Expired),
}

impl Watcher {
    pub(crate) fn new(cache: Arc<ResourceCache>, revision: u64) -> Self {
        let newest = cache.newest.subscribe();
        Self { cache, revision, newest }
    }

    /// Everything up to this revision of the store has been delivered: what a bookmark may say.
    pub fn progress(&self) -> u64 {
        let state = self.cache.state.read();
        if state.revision > self.revision {
            self.revision
        } else {
            self.revision.max(self.cache.store_revision.load(Ordering::Acquire))
        }
    }

    /// Events that are there now, without waiting.
    pub fn ready(&mut self) -> Option<Next> {
        let state = self.cache.state.read();
        let events: Vec<Arc<Event>> = match state.ring.after(self.revision) {
            Ok(events) => events.take(BATCH_MAX).cloned().collect(),
            Err(expired) => {
                self.cache.count_terminated_watcher();
                return Some(Next::Expired(expired));
            }
        };
        let last = events.last()?.revision;
        self.revision = last;
        Some(Next::Events(events))
    }

    /// Waits for the next events. Cancel-safe: an event is lost only if it was returned.
    pub async fn next(&mut self) -> Next {
        loop {
            self.newest.borrow_and_update();
            if let Some(next) = self.ready() {
                return next;
            }
            if self.newest.changed().await.is_err() {
                // The cache holds the sender and we hold the cache, so this cannot be reached; wait for ever.
                std::future::pending::<()>().await;
            }
        }
    }
}
