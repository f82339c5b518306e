//! What the scheduler tells about itself; its names and labels are in `telemetry`.
//!
//! Owns: the handles, looked up once. The queue counts what enters it itself.

use std::sync::Arc;

use rt::Instant;
use telemetry::{AttemptHandle, Gauge, InFlight};

use crate::engine::{Decision, SCHEDULER_ERROR};
use crate::framework::Profiles;
use crate::pod::PodInfo;
use crate::queue::Queue;

pub(crate) struct Metrics {
    profiles: Profiles,
    /// Of each profile.
    attempts: Vec<Attempts>,
    /// In the order of [`Queue::lens`].
    pending: [Arc<Gauge>; 4],
    binding: Arc<Gauge>,
    telling: Arc<Gauge>,
}

/// How attempts of one profile ended.
struct Attempts {
    scheduled: AttemptHandle,
    unschedulable: AttemptHandle,
    error: AttemptHandle,
}

impl Attempts {
    fn new(scheduler_name: &str) -> Self {
        let metrics = &telemetry::metrics().scheduler;
        Self {
            scheduled: metrics.attempts("scheduled", scheduler_name),
            unschedulable: metrics.attempts("unschedulable", scheduler_name),
            error: metrics.attempts("error", scheduler_name),
        }
    }
}

impl Metrics {
    pub fn new(profiles: &Profiles) -> Self {
        let metrics = &telemetry::metrics().scheduler;
        Self {
            attempts: profiles.iter().map(|profile| Attempts::new(&profile.scheduler_name)).collect(),
            profiles: profiles.clone(),
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
        if let Decision::Unschedulable { pod, reason, .. } = decision {
            let attempts = self.attempts(pod);
            let attempts = if *reason == SCHEDULER_ERROR { &attempts.error } else { &attempts.unschedulable };
            attempts.took(since.elapsed());
        }
    }

    /// Counts an attempt that began at `since` and got as far as binding.
    pub fn bound(&self, pod: &PodInfo, succeeded: bool, since: Instant) {
        let attempts = self.attempts(pod);
        let attempts = if succeeded { &attempts.scheduled } else { &attempts.error };
        attempts.took(since.elapsed());
    }

    fn attempts(&self, pod: &PodInfo) -> &Attempts {
        &self.attempts[self.profiles.serving(pod).id()]
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
