//! When a failed pod may be replaced: ten seconds after the first failure in a row, then twice as long each time, ten
//! minutes at most. Pure but for [`Backoffs`], which remembers the failures in a row of each Job.

use std::collections::HashMap;
use std::time::Duration;

use api::view::{ContainerStatus, Pod};
use client::ObjectKey;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

use super::indexes::failures_before;
use crate::pods::{PodOf, timestamp};

const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_mins(10);

/// The failures of a Job since its last success.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Backoff {
    failures: u32,
    last_failure: Option<Timestamp>,
}

/// By Job. In memory only: after a restart, a Job that fails starts with the first delay again.
#[derive(Default)]
pub(super) struct Backoffs(Mutex<HashMap<ObjectKey, Backoff>>);

impl Backoffs {
    pub(super) fn get(&self, key: &ObjectKey) -> Backoff {
        self.0.lock().get(key).copied().unwrap_or_default()
    }

    pub(super) fn set(&self, key: &ObjectKey, backoff: Backoff) {
        self.0.lock().insert(key.clone(), backoff);
    }

    pub(super) fn forget(&self, key: &ObjectKey) {
        self.0.lock().remove(key);
    }
}

impl Backoff {
    /// The failures in a row once these pods are done, too. Of the failed ones those after the last success count.
    pub(super) fn after<'a>(
        self,
        succeeded: impl IntoIterator<Item = &'a PodOf>,
        failed: impl IntoIterator<Item = &'a PodOf>,
    ) -> Self {
        let success = succeeded.into_iter().map(|own| finished_at(&own.pod)).max();
        let before = if success.is_some() { Self::default() } else { self };
        let failures = failed.into_iter().map(|own| finished_at(&own.pod));
        let counted: Vec<Timestamp> =
            failures.filter(|at| success.is_none_or(|success| *at > success)).collect();
        Self {
            failures: before.failures + u32::try_from(counted.len()).unwrap_or(u32::MAX),
            last_failure: counted.into_iter().max().or(before.last_failure),
        }
    }

    pub(super) fn remaining(&self, now: Timestamp) -> Duration {
        match self.last_failure {
            Some(last) => remaining(self.failures, last, now),
            None => Duration::ZERO,
        }
    }
}

/// How long the index whose pod failed last is still without a pod.
pub(super) fn remaining_of_index(last_failed: &Pod, now: Timestamp) -> Duration {
    let (counted, ignored) = failures_before(last_failed);
    let failures = counted.saturating_add(ignored).saturating_add(1);
    remaining(failures.unsigned_abs(), finished_at(last_failed), now)
}

fn remaining(failures: u32, last_failure: Timestamp, now: Timestamp) -> Duration {
    if failures == 0 {
        return Duration::ZERO;
    }
    // Ten seconds are more than ten minutes after seven failures; the shift is bounded long before it overflows.
    let wait = (FIRST * (1 << (failures - 1).min(10))).min(LONGEST);
    let left = SignedDuration::try_from(wait).unwrap_or_default() - now.duration_since(last_failure);
    Duration::try_from(left).unwrap_or_default()
}

/// When a pod was done: when its last container ended, else when it ceased to be ready, else when its deletion began,
/// else, which does not happen where nodes and the pod garbage collector run, when it was created.
pub(super) fn finished_at(pod: &Pod) -> Timestamp {
    last_container_end(pod)
        .or_else(|| {
            let ready = pod.condition("Ready").filter(|ready| ready.status == "False")?;
            timestamp(ready.last_transition_time.as_ref())
        })
        .or_else(|| {
            let deleted = timestamp(pod.metadata.deletion_timestamp.as_ref())?;
            let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or_default();
            deleted.checked_sub(SignedDuration::from_secs(grace)).ok()
        })
        .or_else(|| timestamp(pod.metadata.creation_timestamp.as_ref()))
        .unwrap_or_default()
}

/// `None` while a container or a sidecar has not ended, and where there is none.
fn last_container_end(pod: &Pod) -> Option<Timestamp> {
    let is_sidecar = |status: &&ContainerStatus| {
        pod.spec.init_containers.iter().any(|own| own.name == status.name && own.is_sidecar())
    };
    let sidecars = pod.status.init_container_statuses.iter().filter(is_sidecar);
    let ends = pod.status.container_statuses.iter().chain(sidecars).map(|status| {
        let terminated = status.state.terminated.as_ref()?;
        timestamp(terminated.finished_at.as_ref())
    });
    ends.collect::<Option<Vec<Timestamp>>>()?.into_iter().max()
}
