//! What an informer tells its subscribers, through a bounded queue each.
//!
//! Owns: the queues. Never touches: the store (a subscriber that is told to resync reads it).
//! A subscriber that falls behind never holds the informer up: its queue is emptied and it gets one
//! [`Delta::Resync`] in place of what it missed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use apimachinery::Object;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Deltas a subscriber may have waiting; about 2 MiB of pointers. A burst of more makes it resync.
pub const QUEUE_MAX: usize = 65_536;

/// One change of an informer's store.
#[derive(Clone, Debug)]
pub enum Delta {
    /// An object appeared (`old` is `None`) or changed.
    Upsert { old: Option<Arc<Object>>, new: Arc<Object> },
    /// An object is gone; `old` is its last known state.
    Delete { old: Arc<Object> },
    /// Forget what deltas said so far and read the store: at the start, and after the queue was full. Deltas that
    /// follow may tell again what the store already contained.
    Resync,
}

/// The receiving side; dropping it ends the subscription.
pub struct Subscription {
    queue: Arc<Queue>,
}

#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<VecDeque<Delta>>,
    arrived: Notify,
    closed: AtomicBool,
}

// === impl Subscription ===

impl Subscription {
    pub(super) fn new() -> (Self, Arc<Queue>) {
        let queue = Arc::new(Queue::default());
        (Self { queue: queue.clone() }, queue)
    }

    /// The next delta, or `None` after the informer has stopped and the queue is empty. Cancel-safe.
    pub async fn recv(&mut self) -> Option<Delta> {
        // `notify_one` keeps a permit when nobody waits, so an arrival between the look and the wait is not lost.
        loop {
            let closed = self.queue.is_closed();
            match self.try_recv() {
                Some(delta) => return Some(delta),
                None if closed => return None,
                None => self.queue.arrived.notified().await,
            }
        }
    }

    /// The next delta if one is waiting.
    pub fn try_recv(&mut self) -> Option<Delta> {
        self.queue.waiting.lock().pop_front()
    }

    /// Waits for at least one delta and moves all that are there to `batch`, with one lock for all. False when the
    /// informer has stopped. Cancel-safe.
    pub async fn recv_batch(&mut self, batch: &mut Vec<Delta>) -> bool {
        match self.recv().await {
            Some(first) => {
                batch.push(first);
                batch.extend(self.queue.waiting.lock().drain(..));
                true
            }
            None => false,
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.queue.closed.store(true, Ordering::Release);
    }
}

// === impl Queue ===

impl Queue {
    pub(super) fn push_all(&self, deltas: &[Delta]) {
        {
            let mut waiting = self.waiting.lock();
            if waiting.len() + deltas.len() > QUEUE_MAX {
                telemetry::metrics().client.informer_overflows.inc();
                waiting.clear();
                waiting.push_back(Delta::Resync);
            } else {
                waiting.extend(deltas.iter().cloned());
            }
        }
        self.arrived.notify_one();
    }

    /// Either side is gone.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.arrived.notify_one();
    }
}
