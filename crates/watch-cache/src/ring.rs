//! The recent events of one resource, bounded by count and by the bytes they keep alive.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::{Event, Expired};

/// A watcher may lag this many events behind before it has to list again.
pub(crate) const EVENTS_MAX: usize = 32_768;
/// Superseded states that the ring alone keeps alive: 64 MiB, the price of letting watchers lag.
const SUPERSEDED_BYTES_MAX: usize = 64 << 20;
/// Kept however large they are, so that a few huge objects do not make watching impossible.
const EVENTS_MIN: usize = 128;

pub(crate) struct Ring {
    events: VecDeque<Arc<Event>>,
    /// Every event after this revision is in `events`.
    oldest: u64,
    superseded_bytes: usize,
}

impl Ring {
    pub fn starting_at(revision: u64) -> Self {
        Self { events: VecDeque::new(), oldest: revision, superseded_bytes: 0 }
    }

    /// Forgets everything; history begins after `revision`.
    pub fn restart(&mut self, revision: u64) {
        *self = Self::starting_at(revision);
    }

    pub fn oldest(&self) -> u64 {
        self.oldest
    }

    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Size of the old states that only the ring keeps alive.
    pub fn superseded_bytes(&self) -> usize {
        self.superseded_bytes
    }

    pub fn push(&mut self, event: Arc<Event>) {
        self.superseded_bytes += superseded_bytes(&event);
        self.events.push_back(event);
        while self.events.len() > EVENTS_MAX
            || (self.superseded_bytes > SUPERSEDED_BYTES_MAX && self.events.len() > EVENTS_MIN)
        {
            let Some(dropped) = self.events.pop_front() else { return };
            self.superseded_bytes -= superseded_bytes(&dropped);
            self.oldest = dropped.revision;
        }
    }

    /// Events after `revision`, oldest first.
    pub fn after(&self, revision: u64) -> Result<impl DoubleEndedIterator<Item = &Arc<Event>>, Expired> {
        if revision < self.oldest {
            return Err(Expired { requested: revision, oldest: self.oldest });
        }
        let from = self.events.partition_point(|event| event.revision <= revision);
        Ok(self.events.range(from..))
    }
}

fn superseded_bytes(event: &Event) -> usize {
    event.previous.as_ref().map_or(0, |previous| previous.json().len())
}
