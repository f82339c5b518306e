//! What the scheduler tells about itself; its names and labels are in `telemetry`.
//!
//! Owns: the handles, looked up once. The queue counts what enters it itself.

use std::sync::Arc;

use rt::Instant;
use telemetry::{AttemptHandle, Gauge, InFlight};

use crate::engine::{Decision, SCHEDULER_ERROR};
use crate::queue::Queue;

pub(crate) struct Metrics {
    scheduled: AttemptHandle,
    unschedulable: AttemptHandle,
    error: AttemptHandle,
    /// In the order of [`Queue::lens`].
    pending: [Arc<Gauge>; 4],
    binding: Arc<Gauge>,
    telling: Arc<Gauge>,
}

impl Metrics {
    /// `profile` is the scheduler's name.
    pub fn new(profile: &str) -> Self {
        let metrics = &telemetry::metrics().scheduler;
        Self {
            scheduled: metrics.attempts("scheduled", profile),
            unschedulable: metrics.attempts("unschedulable", profile),
            error: metrics.attempts("error", profile),
            pending: ["active", "backoff", "unschedulable", "gated"].map(|queue| metrics.pending_pods(queue)),
            binding: metrics.goroutines("binding"),
            telling: metrics.goroutines("telling"),
        }
    }

    /// Shows how many pods wait, and for what.
    pub fn pending(&self, queue: &Queue) {
        for (gauge, len) in self.pending.iter().zip(queue.lens()) {
            gauge.set(len as i64);
        }
    }

    /// Counts an attempt that began at `since` and ends with the decision. One that goes on to binding ends with
    /// [`Metrics::bound`].
    pub fn decided(&self, decision: &Decision, since: Instant) {
        if let Decision::Unschedulable { reason, .. } = decision {
            let attempts = if *reason == SCHEDULER_ERROR { &self.error } else { &self.unschedulable };
            attempts.took(since.elapsed());
        }
    }

    /// Counts an attempt that began at `since` and got as far as binding.
    pub fn bound(&self, succeeded: bool, since: Instant) {
        let attempts = if succeeded { &self.scheduled } else { &self.error };
        attempts.took(since.elapsed());
    }

    /// A binding is under way until the guard is dropped.
    pub fn binding(&self) -> InFlight {
        self.binding.track()
    }

    /// A pod's condition is being written until the guard is dropped.
    pub fn telling(&self) -> InFlight {
        self.telling.track()
    }
}
