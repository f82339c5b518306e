//! How containers end: hooks, signals, patience, and in which order.

use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use runtime::{ContainerState, ContainerStatus};
use tracing::warn;

use super::observed::{self, Observed, is_sidecar};
use super::plan::KillReason;
use super::worker::Worker;
use crate::agent::probes::{HookTarget, run_hook};

/// What a container gets at least after its hook, however long that took.
const GRACE_MIN: Duration = Duration::from_secs(2);

/// The kubelet's default, which the API fills in, too.
const GRACE_DEFAULT: Duration = Duration::from_secs(30);

/// Until when processes may end by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grace {
    period: Duration,
    ends: rt::Instant,
}

impl Grace {
    /// What a pod that ends now is granted: what its deletion says, or else its specification.
    pub fn of(pod: &Pod, now: Timestamp) -> Self {
        let metadata = &pod.metadata;
        let specified = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
        let granted = metadata.deletion_grace_period_seconds.or(specified);
        let period =
            granted.map_or(GRACE_DEFAULT, |seconds| Duration::from_secs(seconds.max(1).unsigned_abs()));
        // An agent that comes back while a pod ends does not begin anew.
        let left =
            metadata.deletion_timestamp.as_ref().map(|at| until(at.0, now).max(Duration::from_secs(1)));
        let period = left.map_or(period, |left| period.min(left));
        Self { period, ends: rt::instant() + period }
    }

    /// What a container gets that a probe found dead, or that is replaced.
    pub fn of_probe(pod: &Pod, name: &str, why: KillReason) -> Self {
        let container = container_of(pod, name);
        let probe = container.and_then(|container| match why {
            KillReason::Liveness => container.liveness_probe.as_ref(),
            KillReason::Startup => container.startup_probe.as_ref(),
            KillReason::Changed | KillReason::Resized | KillReason::Unknown => None,
        });
        let own = probe.and_then(|probe: &Probe| probe.termination_grace_period_seconds);
        match own {
            Some(seconds) => {
                let period = Duration::from_secs(seconds.max(1).unsigned_abs());
                Self { period, ends: rt::instant() + period }
            }
            None => Self::of(pod, rt::now()),
        }
    }

    /// As this, but no longer than somebody else allows.
    pub fn at_most(self, max: Option<Duration>) -> Self {
        let period = max.map_or(self.period, |max| self.period.min(max.max(Duration::from_secs(1))));
        Self { period, ends: self.ends.min(rt::instant() + period) }
    }

    /// Whether it ends clearly sooner: by more than clocks and rounding differ.
    pub fn ends_before(self, other: Self) -> bool {
        self.ends + Duration::from_secs(1) < other.ends
    }

    fn left(self) -> Duration {
        self.ends.saturating_duration_since(rt::instant())
    }
}

fn until(at: Timestamp, now: Timestamp) -> Duration {
    at.duration_since(now).try_into().unwrap_or_default()
}

/// How long the pod may still run by its `activeDeadlineSeconds`; `None` without one.
pub fn until_deadline(pod: &Pod, now: Timestamp) -> Option<Duration> {
    let seconds = pod.spec.as_ref()?.active_deadline_seconds?;
    let started = pod.status.as_ref()?.start_time.as_ref()?.0;
    let allowed = Duration::from_secs(seconds.max(0).unsigned_abs());
    let ran: Duration = now.duration_since(started).try_into().unwrap_or_default();
    Some(allowed.saturating_sub(ran))
}

fn container_of<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    observed::containers(pod)
        .iter()
        .chain(observed::init_containers(pod))
        .find(|container| container.name == name)
}

/// Ends everything that runs: containers at once, then sidecars, the last one first (KEP-753).
pub async fn kill_all(worker: &Worker, pod: &Pod, observed: &Observed, grace: Grace) {
    let order: Vec<&str> = observed::init_containers(pod)
        .iter()
        .filter(|container| is_sidecar(container))
        .map(|container| container.name.as_str())
        .collect();
    let running = |container: &&ContainerStatus| {
        matches!(container.state, ContainerState::Running | ContainerState::Unknown)
    };
    let (mut sidecars, others): (Vec<_>, Vec<_>) =
        observed.all().filter(running).partition(|container| order.contains(&container.name.as_str()));
    join_all(
        others
            .into_iter()
            .map(|container| kill_one(worker, pod, &container.id, &container.name, grace, None)),
    )
    .await;
    sidecars
        .sort_by_key(|container| std::cmp::Reverse(order.iter().position(|name| *name == container.name)));
    for sidecar in sidecars {
        kill_one(worker, pod, &sidecar.id, &sidecar.name, grace, None).await;
    }
}

/// Ends one container: its hook first, then its stop signal, then, when its time is over, KILL.
pub async fn kill_one(
    worker: &Worker,
    pod: &Pod,
    id: &str,
    name: &str,
    grace: Grace,
    message: Option<String>,
) {
    let about = worker.node.reporter.container(pod, name);
    about.normal("Killing", message.unwrap_or_else(|| format!("Stopping container {name}")));
    if let Some(container) = container_of(pod, name) {
        run_pre_stop(worker, pod, id, container, grace).await;
    }
    let left = if grace.period <= GRACE_MIN { grace.left() } else { grace.left().max(GRACE_MIN) };
    if let Err(error) = worker.node.runtime.stop_container(id, left).await {
        warn!(container = id, %error, "A container was not stopped");
    }
}

async fn run_pre_stop(worker: &Worker, pod: &Pod, id: &str, container: &Container, grace: Grace) {
    let Some(hook) = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref()) else {
        return;
    };
    let target = HookTarget { pod, container, container_id: id, pod_ip: worker.address() };
    let about = worker.node.reporter.container(pod, &container.name);
    match rt::timeout(grace.left(), run_hook(&worker.node.runtime, target, hook)).await {
        Ok(Ok(hooked)) => {
            if let Some(fallback) = hooked.fallback {
                about.warning("LifecycleHTTPFallback", fallback);
            }
        }
        Ok(Err(error)) => {
            warn!(container = id, %error, "A preStop hook failed");
            about.warning("FailedPreStopHook", "PreStopHook failed");
        }
        Err(_) => warn!(container = id, "A preStop hook did not end in time"),
    }
}
