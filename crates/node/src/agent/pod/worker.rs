//! The task of one pod: observes, plans, acts and reports until the pod is gone from the API and from the runtime.
//!
//! Owns: the order of a pod's steps. Decisions are [`plan`]'s, words are [`status`]'s, ends are [`termination`]'s.
//! A step may be cut short only while it waits for somebody else's answer (an image, a hook): calls of the runtime run
//! to their end, so that nothing is left half made without a name.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::Object;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use parking_lot::Mutex;
use rt::Shutdown;
use runtime::{ContainerState, Resources};
use tokio::sync::Notify;
use tracing::warn;

use super::backoff::Backoff;
use super::observed::{self, Observed};
use super::plan::{self, KillReason, Plan};
use super::status::{Ended, Phase, Waiting};
use super::termination::{self, Grace};
use super::turns::Turn;
use crate::agent::Node;
use crate::agent::probes::Target;
use crate::agent::resize::Course;
use crate::agent::server::PodView;
use crate::agent::static_pods;

/// Whatever failed without saying when to try again is tried again after this.
pub(super) const RETRY: Duration = Duration::from_secs(10);

/// A runtime or an API that did not answer is asked again after this.
pub(super) const RETRY_SOON: Duration = Duration::from_secs(1);

/// One pod's task, as others reach it.
pub struct Worker {
    pub(super) node: Arc<Node>,
    pub uid: String,
    /// It comes from a file: the API has only its mirror.
    pub is_static: bool,
    pub(super) target: Mutex<Wanted>,
    wake: Notify,
    /// The pod's own, once it has one.
    address: Mutex<Option<IpAddr>>,
    running: Mutex<Running>,
    /// What this worker wrote last, the newest at the end.
    pub(super) reported: Mutex<VecDeque<PodStatus>>,
    /// The status that was written last, until somebody else changes the pod.
    pub(super) said: Mutex<Option<PodStatus>>,
    /// How far its resize has come.
    pub(in crate::agent) course: Mutex<Course>,
    /// Cancelled when the pod is to end: nobody waits for images and hooks any more.
    pub(super) ending: Shutdown,
}

/// What the worker works towards.
#[derive(Clone)]
pub(super) struct Wanted {
    pub pod: Arc<Pod>,
    /// It is in the API no longer.
    pub gone: bool,
    /// The node wants it to end.
    pub ended: Option<Arc<Ended>>,
}

/// The runtime's names of what a pod has.
#[derive(Clone, Debug, Default)]
struct Running {
    sandbox: Option<String>,
    containers: BTreeMap<String, String>,
}

impl Running {
    fn of(observed: &Observed) -> Self {
        let named = observed.newest().map(|container| (container.name.clone(), container.id.clone()));
        Self { sandbox: observed.sandbox().map(|sandbox| sandbox.id.clone()), containers: named.collect() }
    }
}

/// What a worker remembers between steps; all of it may be lost.
#[derive(Default)]
pub(super) struct Memory {
    pub backoff: Backoff,
    /// Why containers do not run, by name.
    pub waiting: BTreeMap<String, Waiting>,
    /// What was said of volumes that are not there.
    pub complaints_of_volumes: Vec<String>,
    /// The images of volumes that are images, by the volume's name.
    pub volume_images: BTreeMap<String, String>,
    /// The limits that the pod as a whole was given last.
    pub limits: Option<Resources>,
    /// Held while the pod is started.
    pub(super) turn: Option<Turn>,
    /// A sandbox was made and its containers are next: their status tells of both.
    has_new_sandbox: bool,
}

/// When to look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Now,
    Event,
    After(Duration),
    Done,
}

impl Next {
    fn sooner(self, other: Self) -> Self {
        match (self, other) {
            (Self::Now, _) | (_, Self::Now) => Self::Now,
            (Self::After(a), Self::After(b)) => Self::After(a.min(b)),
            (Self::After(a), _) | (_, Self::After(a)) => Self::After(a),
            (other, _) => other,
        }
    }

    pub(super) fn after(wait: Option<Duration>) -> Self {
        wait.map_or(Self::Event, Self::After)
    }
}

impl Worker {
    pub fn new(node: Arc<Node>, pod: Arc<Pod>) -> Arc<Self> {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let ending = node.shutdown.child_token();
        let course = Mutex::new(Course::of(&pod));
        let is_static = static_pods::is_static(&pod);
        let target = Mutex::new(Wanted { pod, gone: false, ended: None });
        let worker = Self {
            node,
            uid,
            is_static,
            target,
            wake: Notify::new(),
            address: Mutex::default(),
            running: Mutex::default(),
            reported: Mutex::default(),
            said: Mutex::default(),
            course,
            ending,
        };
        worker.look_for_the_end();
        Arc::new(worker)
    }

    /// The pod as the API has it now.
    pub fn update(&self, pod: Arc<Pod>) {
        let before = std::mem::replace(&mut self.target.lock().pod, pod.clone());
        if !self.is_echo(&before, &pod) {
            self.node.volumes.pod_changed(&pod);
            self.said.lock().take();
            self.look_for_the_end();
            self.wake();
            if !self.is_active() {
                self.node.room.notify_one();
            }
        }
    }

    /// The API has it no longer.
    pub fn forget(&self) {
        self.target.lock().gone = true;
        self.look_for_the_end();
        self.wake();
        self.node.room.notify_one();
    }

    /// Ends the pod on the node's own account: it fails with this reason, and stays to be looked at.
    pub fn end(&self, ended: Ended) {
        self.target.lock().ended.get_or_insert(Arc::new(ended));
        self.look_for_the_end();
        self.wake();
        self.node.room.notify_one();
    }

    /// Something happened that the pod may depend on.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// The pod, and what runs of it, as the kubelet's API shows it.
    pub fn view(&self) -> PodView {
        let running = self.running.lock().clone();
        let mut pod = self.pod();
        if let Some(newest) = self.reported.lock().back()
            && pod.status.as_ref() != Some(newest)
        {
            pod = Arc::new(Pod { status: Some(newest.clone()), ..(*pod).clone() });
        }
        PodView { pod, sandbox: running.sandbox, containers: running.containers }
    }

    pub fn pod(&self) -> Arc<Pod> {
        self.target.lock().pod.clone()
    }

    /// Whether the pod is to go: nothing of it is started any more.
    pub fn is_gone(&self) -> bool {
        let target = self.target.lock();
        target.gone || target.pod.metadata.deletion_timestamp.is_some()
    }

    /// Waits until nothing of the pod is to be started any more.
    pub async fn is_to_end(&self) {
        self.ending.cancelled().await;
    }

    /// Whether the pod counts: it has not ended, and nobody ends it on the node's account.
    pub fn is_active(&self) -> bool {
        let target = self.target.lock();
        let phase = target.pod.status.as_ref().and_then(|status| status.phase.as_deref());
        !target.gone && target.ended.is_none() && !matches!(phase, Some("Succeeded" | "Failed"))
    }

    /// Where the pod is reached: its own address, or the node's, where it has none of its own.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.address.lock().or_else(|| self.node.addresses().first().copied())
    }

    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    fn look_for_the_end(&self) {
        let target = self.target.lock();
        if target.gone || target.ended.is_some() || target.pod.metadata.deletion_timestamp.is_some() {
            self.ending.cancel();
        }
    }

    /// Works until the pod is gone, or the agent stops: then containers go on.
    pub async fn run(self: Arc<Self>) {
        let mut memory = Memory::default();
        loop {
            let next = tokio::select! {
                next = self.step(&mut memory) => next,
                () = self.node.shutdown.cancelled() => return,
            };
            if next != Next::Now {
                memory.turn = None;
            }
            match next {
                Next::Now => {}
                Next::Done => return,
                Next::Event => tokio::select! {
                    () = self.woken() => {}
                    () = self.node.shutdown.cancelled() => return,
                },
                Next::After(wait) => tokio::select! {
                    () = self.woken() => {}
                    () = rt::sleep(wait) => {}
                    () = self.node.shutdown.cancelled() => return,
                },
            }
        }
    }

    async fn step(&self, memory: &mut Memory) -> Next {
        let target = self.target.lock().clone();
        // To everybody but the API, the pod asks for what it was granted.
        let pod = &self.node.resources.apply(&target.pod);
        if target.gone {
            return self.clean_up(pod).await;
        }
        let has_finished = pod
            .status
            .as_ref()
            .is_some_and(|status| matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")));
        if pod.metadata.deletion_timestamp.is_some() {
            return self.delete(pod, target.ended.as_deref(), memory).await;
        }
        if has_finished || target.ended.is_some() {
            return self.finish(pod, target.ended.as_deref(), memory).await;
        }
        if let Some(wait) = termination::until_deadline(pod, rt::now()) {
            if wait.is_zero() {
                let message = "Pod was active on the node longer than the specified deadline";
                self.node.reporter.pod(pod).normal("DeadlineExceeded", message);
                self.end(Ended {
                    reason: "DeadlineExceeded".into(),
                    message: message.into(),
                    ..Ended::default()
                });
                return Next::Now;
            }
            return self.sync(pod, memory).await.sooner(Next::After(wait));
        }
        self.sync(pod, memory).await
    }

    /// What the runtime has of this pod; `None` when it does not say.
    pub(in crate::agent) async fn observe(&self) -> Option<Observed> {
        let runtime = &self.node.runtime;
        let (sandboxes, containers) =
            tokio::join!(runtime.pod_sandboxes(&self.uid), runtime.pod_containers(&self.uid));
        match (sandboxes, containers) {
            (Ok(sandboxes), Ok(containers)) => {
                self.node.pods.belongs(&self.uid, sandboxes.iter().map(|sandbox| sandbox.id.as_str()));
                let containers =
                    containers.into_iter().map(|own| self.node.with_last_words(&self.uid, own)).collect();
                let mut observed = Observed::new(sandboxes, containers);
                if let Some(record) = self.node.resources.get(&self.uid) {
                    observed.given.clone_from(&record.given);
                }
                *self.running.lock() = Running::of(&observed);
                if let Some(sandbox) = observed.sandbox() {
                    *self.address.lock() = sandbox.addresses.first().copied();
                }
                Some(observed)
            }
            (Err(error), _) | (_, Err(error)) => {
                warn!(uid = %self.uid, %error, "The runtime does not say what it runs");
                None
            }
        }
    }

    /// One step of a pod that is to run.
    async fn sync(&self, pod: &Arc<Pod>, memory: &mut Memory) -> Next {
        let Some(observed) = self.observe().await else { return Next::After(RETRY_SOON) };
        memory.waiting.retain(|name, _| {
            observed.latest(name).is_none_or(|container| container.state != ContainerState::Running)
        });
        // First, since what is known of the probes of a container from before is told, too.
        self.watch_probes(pod, &observed);
        self.note_resized(pod, &observed);
        let plan = plan::plan(pod, &observed, self.node.probes.results());
        if !std::mem::take(&mut memory.has_new_sandbox) || plan.start.is_empty() {
            let phase = self.report(pod, &observed, &memory.waiting, None, false).await;
            if phase.is_some_and(Phase::is_terminal) {
                // The pod comes back with this phase, and is finished then.
                return Next::Event;
            }
        }
        self.carry_out(pod, &observed, plan, memory).await
    }

    async fn carry_out(&self, pod: &Arc<Pod>, observed: &Observed, plan: Plan, memory: &mut Memory) -> Next {
        if plan == Plan::default() {
            self.remove_superseded(observed).await;
            return self.resize(pod, observed, memory).await;
        }
        if memory.turn.is_none() && (plan.create_sandbox.is_some() || !plan.start.is_empty()) {
            tokio::select! {
                turn = self.node.turns.take() => memory.turn = Some(turn),
                () = self.ending.cancelled() => {}
            }
            // Others were first, and much may have changed.
            return Next::Now;
        }
        if plan.kill_pod {
            let grace = Grace::of(pod, rt::now());
            termination::kill_all(self, pod, observed, grace).await;
            self.stop_sandboxes(observed).await;
            if plan.create_sandbox.is_none() {
                return Next::After(RETRY_SOON);
            }
        }
        for kill in &plan.kill {
            let why = match kill.why {
                KillReason::Changed => "definition changed, will be restarted",
                KillReason::Resized => "resize requires restart",
                KillReason::Liveness => "failed liveness probe, will be restarted",
                KillReason::Startup => "failed startup probe, will be restarted",
                KillReason::Unknown => "is in unknown state, try killing it before restart",
            };
            let message = format!("Container {} {why}", kill.name);
            let grace = Grace::of_probe(pod, &kill.name, kill.why);
            termination::kill_one(self, pod, &kill.id, &kill.name, grace, Some(message)).await;
        }
        if let Some(attempt) = plan.create_sandbox {
            if let Err(wait) = self.mount(pod, memory).await {
                return Next::After(wait);
            }
            return match self.create_sandbox(pod, attempt, memory).await {
                Ok(()) => {
                    memory.has_new_sandbox = true;
                    Next::Now
                }
                Err(wait) => Next::After(wait),
            };
        }
        // After what ends, and before what begins: the pod as a whole has room for it then.
        let resized = self.resize(pod, observed, memory).await;
        self.start_all(pod, observed, &plan, memory).await.sooner(resized)
    }

    async fn start_all(&self, pod: &Arc<Pod>, observed: &Observed, plan: &Plan, memory: &mut Memory) -> Next {
        let mounted = match self.mount(pod, memory).await {
            Ok(mounted) => mounted,
            Err(wait) => return Next::After(wait),
        };
        let mut next = if plan.kill.is_empty() && plan.start.is_empty() { Next::Event } else { Next::Now };
        for start in &plan.start {
            if self.ending.is_cancelled() {
                return Next::Now;
            }
            match self.start(pod, observed, start, &mounted, memory).await {
                Ok(()) => {
                    memory.waiting.remove(&start.name);
                }
                Err(failed) => {
                    memory.waiting.insert(start.name.clone(), failed.waiting);
                    next = Next::after(failed.retry_after);
                    // The others go on; this one's wait is the pod's next step.
                    let observed = self.observe().await;
                    self.report(
                        pod,
                        observed.as_ref().unwrap_or(&Observed::default()),
                        &memory.waiting,
                        None,
                        false,
                    )
                    .await;
                }
            }
        }
        next
    }

    /// Every running container that is to be probed is.
    fn watch_probes(&self, pod: &Arc<Pod>, observed: &Observed) {
        let sidecars =
            observed::init_containers(pod).iter().filter(|container| observed::is_sidecar(container));
        for container in observed::containers(pod).iter().chain(sidecars) {
            let Some(running) = observed.present(&container.name) else { continue };
            if running.state == ContainerState::Running {
                self.node.probes.add_container(Target {
                    pod: pod.clone(),
                    container: Arc::new(container.clone()),
                    container_id: running.id.clone(),
                    pod_ip: self.address(),
                    started_at: running.started_at.unwrap_or(running.created_at),
                });
            }
        }
    }
}

pub(super) fn names(pod: &Pod) -> (&str, &str) {
    let metadata = &pod.metadata;
    (metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
}

/// A pod as this agent reads it.
pub fn decode(object: &Object) -> Result<Pod, serde_json::Error> {
    let mut pod: Pod = serde_json::from_slice(object.json())?;
    pod.metadata.resource_version = Some(object.revision().to_string());
    Ok(pod)
}
