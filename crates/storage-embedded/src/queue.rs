//! The bounded queue between committers and the writer.
//!
//! Owns: order of arrival, the bound, and waking the writer. The writer takes everything that waits
//! in one go, which is what makes one sync serve many commits.

use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use storage::{Committed, Error, Write};
use tokio::sync::{Semaphore, oneshot};

/// How many commits may wait. Each waits for at most one batch before its own, and a batch holds as
/// many as this; further committers wait for room without holding anything.
pub(crate) const WAITING_COMMITS_MAX: usize = 4096;

/// Why the writer refused.
#[derive(Debug)]
pub(crate) enum Refusal {
    Precondition,
    Failed(Error),
}

pub(crate) type Answer = Result<Committed, Refusal>;

/// A commit on its way to the writer.
pub(crate) struct Waiting {
    pub write: Write,
    pub answer: oneshot::Sender<Answer>,
}

/// What the writer has to do next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Commits were moved into the writer's batch.
    Batch,
    /// The deadline passed first.
    Deadline,
    /// No more commits will come.
    Closed,
}

pub(crate) struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
    room: Semaphore,
}

#[derive(Default)]
struct State {
    waiting: Vec<Waiting>,
    closed: bool,
}

impl Queue {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::default(), arrived: Condvar::new(), room: Semaphore::new(WAITING_COMMITS_MAX) }
    }

    /// Queues a write and returns where its answer will come.
    pub(crate) async fn push(&self, write: Write) -> Result<oneshot::Receiver<Answer>, Error> {
        let permit = self.room.acquire().await.map_err(|_| Error::Closed)?;
        let (answer, answered) = oneshot::channel();
        let mut state = self.state.lock();
        if state.closed {
            return Err(Error::Closed);
        }
        permit.forget();
        let was_empty = state.waiting.is_empty();
        state.waiting.push(Waiting { write, answer });
        telemetry::metrics().storage.waiting_commits.set(state.waiting.len() as i64);
        drop(state);
        if was_empty {
            self.arrived.notify_one();
        }
        Ok(answered)
    }

    /// Waits for commits, or until the deadline, and moves all that wait into the empty `batch`.
    pub(crate) fn take(&self, deadline: Option<Instant>, batch: &mut Vec<Waiting>) -> Work {
        let mut state = self.state.lock();
        loop {
            if !state.waiting.is_empty() {
                std::mem::swap(&mut state.waiting, batch);
                telemetry::metrics().storage.waiting_commits.set(0);
                self.room.add_permits(batch.len());
                return Work::Batch;
            }
            if state.closed {
                return Work::Closed;
            }
            match deadline {
                None => self.arrived.wait(&mut state),
                Some(deadline) => {
                    if self.arrived.wait_until(&mut state, deadline).timed_out() && state.waiting.is_empty() {
                        return if state.closed { Work::Closed } else { Work::Deadline };
                    }
                }
            }
        }
    }

    /// Refuses further commits; those that wait are still served.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.room.close();
        self.arrived.notify_one();
    }
}
