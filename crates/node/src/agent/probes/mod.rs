//! Probes: is a container started, alive, ready? And the hooks of its life, which are called the same ways.
//!
//! Owns: a task per probe of every running container, what the probes found ([`Results`]), and how postStart and
//! preStop are run ([`run_hook`]). Never touches: pods' status and containers' lives; who starts and stops containers
//! tells the [`Prober`], listens to the results and acts on them.
//!
//! Start at [`Prober`]; what a result means is decided in [`decision`], how a container is asked in [`check`].
//!
//! A container that is started again is another one, with another ID: it gets new tasks, and its results begin anew.
//! This process may be started again, too, and containers do not notice: what the pod's status says of them is true
//! until a probe finds otherwise.

mod check;
mod decision;
mod dial;
mod health;
mod hooks;
mod http;
mod results;
mod url;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use parking_lot::Mutex;
use runtime::SharedRuntime;
use tokio::sync::watch;

pub use decision::Kind;
pub use hooks::{HookError, HookTarget, Hooked, run_hook};
pub use results::{Change, Results};

use check::{CheckError, Outcome};
use decision::{Observation, Run};

/// A probe that could not be made at all is made again at once, this often in all.
const ATTEMPTS_MAX: usize = 3;

/// What is said of a pod's container: an Event of type Warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// `Unhealthy` or `ProbeWarning`.
    pub reason: &'static str,
    pub message: String,
}

/// Gets every warning, with the container's pod and name.
pub type Recorder = Arc<dyn Fn(&Pod, &str, Warning) + Send + Sync>;

/// A running container, as its probes see it.
#[derive(Clone, Debug)]
pub struct Target {
    pub pod: Arc<Pod>,
    /// The container's name and what it is made from.
    pub container: Arc<Container>,
    pub container_id: String,
    /// Whom the network is asked at, where a probe names no other host. `None` while it has none: probes that need it
    /// fail.
    pub pod_ip: Option<IpAddr>,
    pub started_at: Timestamp,
}

impl Target {
    fn pod_uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }
}

/// Probes the containers it is told of.
pub struct Prober {
    shared: Arc<Shared>,
    pods: Mutex<HashMap<String, HashMap<String, Probed>>>,
    shutdown: rt::Shutdown,
}

struct Shared {
    runtime: SharedRuntime,
    recorder: Recorder,
    results: Results,
    /// When this process began to probe.
    began_at: rt::Instant,
}

/// The probes of one container.
struct Probed {
    container_id: String,
    stop_all: rt::Shutdown,
    /// Liveness and startup; a child of `stop_all`.
    stop_restarting: rt::Shutdown,
    started: watch::Sender<bool>,
    kinds: Vec<Kind>,
}

impl Prober {
    pub fn new(runtime: SharedRuntime, recorder: Recorder, shutdown: rt::Shutdown) -> Prober {
        let shared = Shared { runtime, recorder, results: Results::default(), began_at: rt::instant() };
        Prober { shared: Arc::new(shared), pods: Mutex::default(), shutdown }
    }

    pub fn results(&self) -> &Results {
        &self.shared.results
    }

    /// Begins to probe a container that runs. Told again of the same one it does nothing; another ID under the same
    /// name replaces the former container.
    pub fn add_container(&self, target: Target) {
        let mut pods = self.pods.lock();
        let containers = pods.entry(target.pod_uid().to_owned()).or_default();
        match containers.get(&target.container.name) {
            Some(probed) if probed.container_id == target.container_id => return,
            Some(former) => self.end(former),
            None => {}
        }
        let stop_all = self.shutdown.child_token();
        let told = |kind| decision::told_before(kind, &target.pod, &target.container_id);
        let has_started = target.container.startup_probe.is_none() || told(Kind::Startup) == Some(true);
        let probed = Probed {
            container_id: target.container_id.clone(),
            stop_restarting: stop_all.child_token(),
            stop_all,
            started: watch::Sender::new(has_started),
            kinds: Kind::ALL.into_iter().filter(|kind| kind.spec(&target.container).is_some()).collect(),
        };
        let begins_with = |kind: Kind| told(kind).or(kind.initial());
        let kinds: Vec<_> = probed.kinds.iter().map(|&kind| (kind, begins_with(kind))).collect();
        let target = Arc::new(target);
        for (kind, passed) in kinds {
            let task = Task {
                shared: self.shared.clone(),
                target: target.clone(),
                kind,
                started: probed.started.clone(),
            };
            task.shared.results.begin(task.change(passed));
            if kind == Kind::Startup && has_started {
                continue;
            }
            let stop = if kind.restarts() { &probed.stop_restarting } else { &probed.stop_all };
            let stop = stop.clone();
            drop(rt::spawn("probe", async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = task.run() => {}
                }
            }));
        }
        containers.insert(target.container.name.clone(), probed);
    }

    /// The container under that name ended, or will now: it is probed no longer, and nothing is known of it.
    pub fn remove_container(&self, pod_uid: &str, container: &str) {
        let mut pods = self.pods.lock();
        let Some(containers) = pods.get_mut(pod_uid) else { return };
        if let Some(probed) = containers.remove(container) {
            self.end(&probed);
        }
        if containers.is_empty() {
            pods.remove(pod_uid);
        }
    }

    /// The pod is gone.
    pub fn remove(&self, pod_uid: &str) {
        let containers = self.pods.lock().remove(pod_uid).unwrap_or_default();
        for probed in containers.values() {
            self.end(probed);
        }
    }

    /// The pod is being ended: nothing starts its containers again, so liveness and startup count as passed from now
    /// on. Readiness is still probed.
    pub fn stop_liveness(&self, pod_uid: &str) {
        let pods = self.pods.lock();
        let Some(containers) = pods.get(pod_uid) else { return };
        for (name, probed) in containers {
            probed.stop_restarting.cancel();
            for kind in probed.kinds.iter().copied().filter(|kind| kind.restarts()) {
                self.shared.results.set(Change {
                    pod_uid: pod_uid.to_owned(),
                    container: name.clone(),
                    container_id: probed.container_id.clone(),
                    kind,
                    passed: Some(true),
                });
            }
            probed.started.send_replace(true);
        }
    }

    fn end(&self, probed: &Probed) {
        probed.stop_all.cancel();
        self.shared.results.remove(&probed.container_id);
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        for probed in self.pods.get_mut().values().flat_map(HashMap::values) {
            probed.stop_all.cancel();
        }
    }
}

/// One probe of one container.
struct Task {
    shared: Arc<Shared>,
    target: Arc<Target>,
    kind: Kind,
    /// Whether the startup probe passed, or there is none.
    started: watch::Sender<bool>,
}

impl Task {
    async fn run(self) {
        let Some(probe) = self.kind.spec(&self.target.container) else { return };
        let period = seconds(probe.period_seconds.unwrap_or(10).max(1));
        // After a restart of this process all containers are told of at once.
        if period > self.shared.began_at.elapsed() {
            rt::sleep(period.mul_f64(rt::jitter())).await;
        }
        rt::sleep(self.initial_delay(probe)).await;
        if self.kind != Kind::Startup {
            let mut started = self.started.subscribe();
            // It cannot close: this task has a sender.
            let _open = started.wait_for(|started| *started).await;
        }
        let mut run = Run::new(self.kind, probe);
        let mut ticks = rt::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            let Some(passed) = self.probe(probe).await else { continue };
            match run.observe(passed) {
                Observation::Undecided => {}
                Observation::Settled => self.set(passed),
                Observation::Final => {
                    self.set(passed);
                    return;
                }
            }
        }
    }

    fn initial_delay(&self, probe: &Probe) -> Duration {
        let delay = seconds(probe.initial_delay_seconds.unwrap_or(0));
        let runs_for = rt::now().duration_since(self.target.started_at);
        delay.saturating_sub(Duration::try_from(runs_for).unwrap_or_default())
    }

    /// Whether it passed; `None` where it could not be made.
    async fn probe(&self, probe: &Probe) -> Option<bool> {
        let mut attempt = 1;
        let outcome = loop {
            match check::run(&self.shared.runtime, &self.target, probe).await {
                Err(_) if attempt < ATTEMPTS_MAX => attempt += 1,
                outcome => break outcome,
            }
        };
        let kind = self.kind;
        match outcome {
            Ok(Outcome::Success) => Some(true),
            Ok(Outcome::Warning(output)) => {
                self.warn("ProbeWarning", format!("{kind} probe warning: {output}"));
                Some(true)
            }
            Ok(Outcome::Failure(output)) => {
                self.warn("Unhealthy", format!("{kind} probe failed: {output}"));
                Some(false)
            }
            Err(CheckError { state, message }) => {
                self.warn(
                    "Unhealthy",
                    format!("{kind} probe errored and resulted in {state} state: {message}"),
                );
                None
            }
        }
    }

    fn warn(&self, reason: &'static str, message: String) {
        (self.shared.recorder)(&self.target.pod, &self.target.container.name, Warning { reason, message });
    }

    fn change(&self, passed: Option<bool>) -> Change {
        let target = &self.target;
        Change {
            pod_uid: target.pod_uid().to_owned(),
            container: target.container.name.clone(),
            container_id: target.container_id.clone(),
            kind: self.kind,
            passed,
        }
    }

    fn set(&self, passed: bool) {
        self.shared.results.set(self.change(Some(passed)));
        if self.kind == Kind::Startup && passed {
            self.started.send_replace(true);
        }
    }
}

/// A number of seconds of the API; a negative one, which validation refuses, is none.
fn seconds(number: i32) -> Duration {
    Duration::from_secs(number.try_into().unwrap_or(0))
}
