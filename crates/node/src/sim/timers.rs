//! [`Timers`]: objects whose time has not come, the soonest first. A task has one of these instead of a timer an object.

use std::collections::BTreeMap;
use std::time::Duration;

use client::ObjectKey;
use rt::Instant;

/// One wait: when it ends, and a number of its own.
pub(super) type Timer = (Instant, u64);

#[derive(Default)]
pub(super) struct Timers {
    waiting: BTreeMap<Timer, ObjectKey>,
    count: u64,
}

impl Timers {
    pub(super) fn start(&mut self, delay: Duration, key: ObjectKey) -> Timer {
        self.count += 1;
        let timer = (rt::instant() + delay, self.count);
        self.waiting.insert(timer, key);
        timer
    }

    pub(super) fn cancel(&mut self, timer: Timer) {
        self.waiting.remove(&timer);
    }

    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// Takes the soonest, if its time has come.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<(Timer, ObjectKey)> {
        let first = self.waiting.first_entry().filter(|first| first.key().0 <= now)?;
        Some(first.remove_entry())
    }

    /// Ends when the soonest is due; never while there is none.
    pub(super) async fn due(&self) {
        match self.waiting.first_key_value() {
            Some(((at, _), _)) => rt::sleep_until(*at).await,
            None => std::future::pending().await,
        }
    }
}
