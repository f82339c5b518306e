//! The scheduling task: feeds the [`Engine`] from informers and carries its decisions out.
//!
//! Owns: the loop, the writes in flight and their bound. Never touches: decisions.
//!
//! One task owns the engine, so that nothing is locked: it handles events, then schedules a batch, then yields.
//! Writes run in tasks of their own, at most [`Options::writes_in_flight`] at a time; while all are taken, no pod is
//! popped, so that a slow API server shows as a long queue and not as memory.

use std::collections::HashMap;
use std::sync::Arc;

use api::gvr::{NAMESPACES, NODES, POD_DISRUPTION_BUDGETS, POD_GROUPS, PODS};
use apimachinery::{Str, json, time};
use client::events::{Recorder, Reference};
use client::informer::Subscription;
use client::{Api, DeleteOptions, Delta, Informer, Informers, Patch, WriteOptions};
use futures::StreamExt;
use rt::{Instant, Shutdown};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, info, warn};

use crate::configuration::{Configuration, ConfigurationError};
use crate::diagnosis::truncated;
use crate::engine::{Decision, Engine, Placement, Preemption, SCHEDULER_ERROR, Verdict};
use crate::framework::{
    Candidate, Handle, Nomination, Opinion, Profile, ProfileError, Profiles, Status, WATCHED, Watched,
};
use crate::groups::{GroupFeatures, Groups};
use crate::metrics::Metrics;
use crate::plugins::{PREEMPTION_REASON, Row, rows};
use crate::pod::PodInfo;

/// Events handled before pods get their turn, and pods scheduled before other tasks get theirs: about a millisecond.
const EVENTS_PER_TURN: usize = 256;
const PODS_PER_TURN: usize = 128;

/// Pods with work before their binding at the same time. It may take minutes, e.g. until a volume is made, so they hold
/// up nobody until there are so many.
const PREPARING_MAX: usize = 16_384;

/// Victims of one preemption evicted at the same time.
const EVICTIONS_MAX: usize = 16;

/// `schedulerName` of pods that name none.
pub const DEFAULT_SCHEDULER: &str = "default-scheduler";

/// How to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The profiles, and what else a file can say.
    pub configuration: Configuration,
    /// The plugins that a program adds to those that profiles can have.
    pub plugins: Vec<Row>,
    /// Bindings and status patches under way at the same time, without those that others must prepare.
    pub writes_in_flight: usize,
    /// Where the API has groups of pods: what of them is on.
    pub groups: Option<GroupFeatures>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            configuration: Configuration::default(),
            plugins: Vec::new(),
            writes_in_flight: 256,
            groups: None,
        }
    }
}

/// Schedules pods until `shutdown`. `ready` is told once everything that matters has been read.
pub async fn run(
    api: Arc<dyn Api>,
    informers: &Informers,
    options: Options,
    ready: oneshot::Sender<()>,
    shutdown: Shutdown,
) -> Result<(), RunError> {
    let profiles = profiles(api, informers, &options, &shutdown)?;
    Ok(run_profiles(profiles, options, ready, shutdown).await?)
}

/// Why nothing was scheduled.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Configuration(#[from] ConfigurationError),
    #[error(transparent)]
    Profiles(#[from] ProfileError),
}

/// Makes the profiles of the configuration: what is wrong with it is known before anything is read. Call inside a
/// tokio runtime.
pub fn profiles(
    api: Arc<dyn Api>,
    informers: &Informers,
    options: &Options,
    shutdown: &Shutdown,
) -> Result<Vec<(Profile, Handle)>, ConfigurationError> {
    let mut rows = rows(options.groups.is_some());
    rows.extend(&options.plugins);
    // All profiles see the same groups.
    let groups = options.groups.map(Groups::new);
    options.configuration.profiles(&rows, |scheduler_name| Handle {
        api: api.clone(),
        informers: informers.clone(),
        recorder: Recorder::new(api.clone(), scheduler_name, shutdown.clone()),
        groups: groups.clone(),
    })
}

/// [`run`] with plugins of the caller's choice. All profiles have handles of one API and its informers.
pub async fn run_profiles(
    profiles: Vec<(Profile, Handle)>,
    options: Options,
    ready: oneshot::Sender<()>,
    shutdown: Shutdown,
) -> Result<(), ProfileError> {
    let (profiles, handles): (Vec<_>, Vec<_>) = profiles.into_iter().unzip();
    let profiles = Profiles::new(profiles)?;
    let Some(Handle { api, informers, groups, .. }) = handles.first().cloned() else {
        return Err(ProfileError::NoProfiles);
    };
    let seed = (rt::jitter() * u64::MAX as f64) as u64;
    let (done, results) = mpsc::channel(options.writes_in_flight.max(1) + PREPARING_MAX);
    let (pods, nodes, namespaces) = (informers.of(&PODS), informers.of(&NODES), informers.of(&NAMESPACES));
    let budgets = informers.of(&POD_DISRUPTION_BUDGETS);
    let awaited =
        WATCHED.iter().filter(|watched| profiles.iter().any(|profile| profile.awaits(watched.events)));
    let task = Task {
        looked_up: profiles.iter().flat_map(Profile::reads).map(|resource| informers.of(resource)).collect(),
        objects: awaited.map(|watched| Objects::of(watched, &informers)).collect(),
        writer: Arc::new(Writer {
            api,
            recorders: handles.into_iter().map(|handle| handle.recorder).collect(),
            metrics: Metrics::new(&profiles),
            shutdown: shutdown.clone(),
            profiles: profiles.clone(),
        }),
        engine: Engine::new(profiles, options.configuration.backoff, seed).with_groups(groups),
        pod_deltas: pods.subscribe(),
        node_deltas: nodes.subscribe(),
        namespace_deltas: namespaces.subscribe(),
        budget_deltas: budgets.subscribe(),
        pods,
        nodes,
        namespaces,
        budgets,
        done,
        results,
        in_flight: 0,
        preparing: HashMap::new(),
        in_flight_max: options.writes_in_flight.max(1),
    };
    tokio::select! {
        () = task.run(ready) => {}
        () = shutdown.cancelled() => {}
    }
    Ok(())
}

struct Task {
    engine: Engine,
    writer: Arc<Writer>,
    pods: Arc<Informer>,
    nodes: Arc<Informer>,
    namespaces: Arc<Informer>,
    budgets: Arc<Informer>,
    pod_deltas: Subscription,
    node_deltas: Subscription,
    namespace_deltas: Subscription,
    budget_deltas: Subscription,
    /// Of the resources that plugins wait for.
    objects: Vec<Objects>,
    /// Of those that plugins look up.
    looked_up: Vec<Arc<Informer>>,
    done: mpsc::Sender<(Place, Written)>,
    results: mpsc::Receiver<(Place, Written)>,
    in_flight: usize,
    /// Nodes of pods, by uid, that have work before their binding.
    preparing: HashMap<Str, Str>,
    in_flight_max: usize,
}

/// The objects of a resource that some plugin waits for.
struct Objects {
    watched: &'static Watched,
    informer: Arc<Informer>,
    deltas: Subscription,
}

/// What a task counts against.
enum Place {
    /// The writes in flight.
    Write,
    /// The pods that are being prepared: this one.
    Preparing(Str),
}

/// The end of a write.
enum Written {
    Bound { uid: Str },
    BindFailed(Placement),
    Answered { pod: Arc<PodInfo>, answer: Result<Opinion, String> },
    Chosen { preemption: Preemption, answer: Result<Vec<Candidate>, Status> },
    Told,
}

/// What the tasks that write share.
struct Writer {
    api: Arc<dyn Api>,
    profiles: Profiles,
    /// Of each profile.
    recorders: Vec<Recorder>,
    metrics: Metrics,
    shutdown: Shutdown,
}

// === impl Objects ===

impl Objects {
    fn of(watched: &'static Watched, informers: &Informers) -> Self {
        let informer = informers.of(&watched.resource);
        Self { watched, deltas: informer.subscribe(), informer }
    }

    fn handle(&self, delta: Delta, engine: &mut Engine) {
        let now = rt::instant();
        match delta {
            Delta::Upsert { old, new } => engine.on_object(self.watched, old.as_deref(), Some(&new), now),
            Delta::Delete { old } => engine.on_object(self.watched, Some(&old), None, now),
            Delta::Resync => engine.on_objects(self.watched, &self.informer.list(), now),
        }
    }
}

/// The next delta of any of the resources, with which it is of; `None` when an informer has stopped.
async fn next_object_delta(objects: &mut [Objects]) -> Option<(usize, Delta)> {
    if objects.is_empty() {
        return std::future::pending().await;
    }
    let deltas = objects.iter_mut().map(|objects| Box::pin(objects.deltas.recv()));
    let (delta, at, _) = futures::future::select_all(deltas).await;
    Some((at, delta?))
}

// === impl Task ===

impl Task {
    async fn run(mut self, ready: oneshot::Sender<()>) {
        self.namespaces.synced().await;
        self.budgets.synced().await;
        for informer in self.objects.iter().map(|objects| &objects.informer).chain(&self.looked_up) {
            informer.synced().await;
        }
        self.nodes.synced().await;
        self.pods.synced().await;
        self.read_all();
        info!(
            nodes = self.engine.cache().node_count(),
            pods = self.engine.queue().len(),
            "Started scheduling"
        );
        // Nobody waiting for readiness is no reason to stop.
        let _ = ready.send(());
        loop {
            let events = self.handle_waiting_events();
            let pods = self.schedule_batch();
            self.writer.metrics.pending(self.engine.queue());
            if events + pods > 0 {
                tokio::task::yield_now().await;
            } else if !self.wait().await {
                return;
            }
        }
    }

    /// The first deltas are resyncs: nodes before pods, so that the first pods find them.
    fn read_all(&mut self) {
        let now = rt::instant();
        self.namespaces.for_each(|namespace| self.engine.on_namespace(namespace));
        self.budgets.for_each(|budget| self.engine.on_budget(budget));
        for Objects { watched, informer, .. } in &self.objects {
            self.engine.on_objects(watched, &informer.list(), now);
        }
        self.engine.on_nodes(&self.nodes.list(), now);
        self.engine.on_pods(&self.pods.list(), now);
    }

    fn handle_waiting_events(&mut self) -> usize {
        let mut handled = 0;
        while handled < EVENTS_PER_TURN {
            if let Some(delta) = self.namespace_deltas.try_recv() {
                self.on_namespace_delta(delta);
            } else if let Some(delta) = self.budget_deltas.try_recv() {
                self.on_budget_delta(delta);
            } else if self.handle_object_event() {
            } else if let Some(delta) = self.node_deltas.try_recv() {
                self.on_node_delta(delta);
            } else if let Ok(written) = self.results.try_recv() {
                self.on_written(written);
            } else if let Some(delta) = self.pod_deltas.try_recv() {
                self.on_pod_delta(delta);
            } else {
                break;
            }
            handled += 1;
        }
        handled
    }

    fn handle_object_event(&mut self) -> bool {
        let Self { objects, engine, .. } = self;
        let mut waiting =
            objects.iter_mut().filter_map(|objects| objects.deltas.try_recv().map(|delta| (objects, delta)));
        let Some((objects, delta)) = waiting.next() else { return false };
        objects.handle(delta, engine);
        true
    }

    fn schedule_batch(&mut self) -> usize {
        let mut scheduled = 0;
        while scheduled < PODS_PER_TURN && self.has_room() {
            let now = rt::instant();
            for decision in self.engine.next_permitted(now) {
                self.carry_out(decision, now);
            }
            let Some(decision) = self.engine.next(now) else { break };
            self.carry_out(decision, now);
            scheduled += 1;
        }
        scheduled
    }

    fn has_room(&self) -> bool {
        self.in_flight < self.in_flight_max && self.preparing.len() < PREPARING_MAX
    }

    /// Waits for something to do; false when the informers have stopped.
    async fn wait(&mut self) -> bool {
        let due = self.engine.next_due().filter(|_| self.has_room());
        let timer = async {
            match due {
                Some(due) => rt::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            delta = self.node_deltas.recv() => match delta {
                Some(delta) => self.on_node_delta(delta),
                None => return false,
            },
            delta = self.budget_deltas.recv() => match delta {
                Some(delta) => self.on_budget_delta(delta),
                None => return false,
            },
            delta = self.namespace_deltas.recv() => match delta {
                Some(delta) => self.on_namespace_delta(delta),
                None => return false,
            },
            delta = self.pod_deltas.recv() => match delta {
                Some(delta) => self.on_pod_delta(delta),
                None => return false,
            },
            delta = next_object_delta(&mut self.objects) => match delta {
                Some((at, delta)) => self.objects[at].handle(delta, &mut self.engine),
                None => return false,
            },
            Some(written) = self.results.recv() => self.on_written(written),
            () = timer => {}
        }
        true
    }

    fn on_pod_delta(&mut self, delta: Delta) {
        let now = rt::instant();
        match delta {
            Delta::Upsert { old, new } => {
                if let Some(old) = old.filter(|old| old.uid() != new.uid()) {
                    self.on_pod_gone(old.uid(), now);
                }
                self.engine.on_pod(&new, now);
            }
            Delta::Delete { old } => self.on_pod_gone(old.uid(), now),
            Delta::Resync => {
                self.engine.on_pods(&self.pods.list(), now);
                self.wake(|_, _| true);
            }
        }
    }

    fn on_pod_gone(&mut self, uid: &str, now: Instant) {
        self.engine.on_pod_gone(uid, now);
        if self.preparing.contains_key(uid) {
            self.wake(|own, _| own == uid);
        }
    }

    /// Tells plugins about pods, by uid and node, that are prepared for their binding, and perhaps in vain.
    fn wake(&self, concerns: impl Fn(&str, &str) -> bool) {
        let concerned = self.preparing.iter().filter(|(uid, node)| concerns(uid, node));
        concerned.for_each(|(uid, _)| self.writer.profiles.iter().for_each(|profile| profile.wake(uid)));
    }

    fn on_node_delta(&mut self, delta: Delta) {
        let now = rt::instant();
        match delta {
            Delta::Upsert { new, .. } => self.engine.on_node(&new, now),
            Delta::Delete { old } => {
                self.engine.on_node_gone(old.name(), now);
                self.wake(|_, node| node == old.name());
            }
            Delta::Resync => {
                self.engine.on_nodes(&self.nodes.list(), now);
                self.wake(|_, _| true);
            }
        }
    }

    fn on_namespace_delta(&mut self, delta: Delta) {
        match delta {
            Delta::Upsert { new, .. } => self.engine.on_namespace(&new),
            Delta::Delete { old } => self.engine.on_namespace_gone(old.name()),
            // Namespaces that went meanwhile stay until the next start: nothing can be in them.
            Delta::Resync => self.namespaces.for_each(|namespace| self.engine.on_namespace(namespace)),
        }
    }

    fn on_budget_delta(&mut self, delta: Delta) {
        match delta {
            Delta::Upsert { new, .. } => self.engine.on_budget(&new),
            Delta::Delete { old } => self.engine.on_budget_gone(old.namespace(), old.name()),
            Delta::Resync => self.budgets.for_each(|budget| self.engine.on_budget(budget)),
        }
    }

    fn on_written(&mut self, (place, written): (Place, Written)) {
        match place {
            Place::Write => self.in_flight -= 1,
            Place::Preparing(uid) => drop(self.preparing.remove(&uid)),
        }
        match written {
            Written::Bound { uid } => self.engine.bound(&uid),
            Written::BindFailed(placement) => self.engine.bind_failed(placement, rt::instant()),
            Written::Answered { pod, answer } => {
                let now = rt::instant();
                if let Some(decision) = self.engine.answered(pod, answer, now) {
                    self.carry_out(decision, now);
                }
            }
            Written::Chosen { preemption, answer } => {
                let now = rt::instant();
                if let Some(decision) = self.engine.chosen(preemption, answer, now) {
                    self.carry_out(decision, now);
                }
            }
            Written::Told => {}
        }
    }

    /// `since`: when the attempt began.
    fn carry_out(&mut self, decision: Decision, since: Instant) {
        let (writer, done) = (self.writer.clone(), self.done.clone());
        writer.metrics.decided(&decision, since);
        match decision {
            Decision::Held => {}
            Decision::Ask(question) => {
                self.in_flight += 1;
                rt::spawn("consult", async move {
                    let (profiles, pod) = (&writer.profiles, question.pod.clone());
                    let mut guard = Answer { done, place: Place::Write, written: Some(unanswered(&pod)) };
                    if let Some((_, plugin)) = profiles.serving(&pod).consult_about(&pod) {
                        let answer = plugin.consult(question).await;
                        guard.written = Some(Written::Answered { pod: pod.clone(), answer });
                    }
                });
            }
            Decision::AskPreemption(mut preemption) => {
                self.in_flight += 1;
                rt::spawn("consult", async move {
                    let (profiles, pod) = (&writer.profiles, preemption.pod.clone());
                    let candidates = std::mem::take(&mut preemption.candidates);
                    let failed = Err(Status::error(NO_ANSWER));
                    let written = Some(Written::Chosen { preemption, answer: failed });
                    let mut guard = Answer { done, place: Place::Write, written };
                    if let Some(plugin) = profiles.serving(&pod).consult_about_preemption(&pod) {
                        let chosen = plugin.consult_preemption(&pod, candidates).await;
                        if let Some(Written::Chosen { answer, .. }) = &mut guard.written {
                            *answer = chosen;
                        }
                    }
                });
            }
            Decision::Bind(placement) => {
                let (pod, place) = (placement.pod.clone(), self.take_place(&placement));
                // What others prepare may take long; a mere binding is finished.
                let shutdown = matches!(place, Place::Preparing(_)).then(|| writer.shutdown.clone());
                let stop = async move {
                    match shutdown {
                        Some(shutdown) => shutdown.cancelled().await,
                        None => std::future::pending().await,
                    }
                };
                rt::spawn("bind", async move {
                    let _in_flight = writer.metrics.binding();
                    let mut guard = Answer { done, place, written: None };
                    let written = tokio::select! {
                        written = writer.bind(placement) => written,
                        () = stop => return,
                    };
                    writer.metrics.bound(&pod, matches!(written, Written::Bound { .. }), since);
                    guard.written = Some(written);
                });
            }
            Decision::Group(verdict) => {
                self.in_flight += 1;
                rt::spawn("tell-group", async move {
                    let _in_flight = writer.metrics.telling();
                    let _guard = Answer { done, place: Place::Write, written: Some(Written::Told) };
                    writer.tell_group(&verdict).await;
                });
            }
            Decision::Unschedulable { pod, reason, message, nomination } => {
                self.in_flight += 1;
                rt::spawn("tell-unschedulable", async move {
                    let _in_flight = writer.metrics.telling();
                    let _guard = Answer { done, place: Place::Write, written: Some(Written::Told) };
                    if let Nomination::Make { node, victims } = &nomination {
                        writer.evict_all(&pod, node, victims).await;
                    }
                    writer.tell(&pod, reason, &message, &nomination).await;
                });
            }
        }
    }

    fn take_place(&mut self, placement: &Placement) -> Place {
        let Placement { pod, node, state } = placement;
        if self.writer.profiles.serving(pod).needs_pre_bind(state, pod) {
            self.preparing.insert(pod.uid().clone(), node.clone());
            return Place::Preparing(pod.uid().clone());
        }
        self.in_flight += 1;
        Place::Write
    }
}

const NO_ANSWER: &str = "those who were asked did not answer";

fn unanswered(pod: &Arc<PodInfo>) -> Written {
    Written::Answered { pod: pod.clone(), answer: Err(NO_ANSWER.to_owned()) }
}

/// Answers when dropped, so that a task that panics does not take a place in flight with it.
struct Answer {
    done: mpsc::Sender<(Place, Written)>,
    place: Place,
    written: Option<Written>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        // The channel holds as many as can be under way. It is closed only when the scheduler stops.
        let place = std::mem::replace(&mut self.place, Place::Write);
        let _ = self.done.try_send((place, self.written.take().unwrap_or(Written::Told)));
    }
}

// === impl Writer ===

impl Writer {
    async fn bind(&self, mut placement: Placement) -> Written {
        match self.try_bind(&mut placement).await {
            Ok(()) => {
                let Placement { pod, node, .. } = &placement;
                let (namespace, name) = (pod.namespace(), pod.name());
                debug!(%namespace, %name, %node, "Bound pod");
                self.recorder(pod).normal(
                    &reference(pod),
                    "Scheduled",
                    format!("Successfully assigned {namespace}/{name} to {node}"),
                );
                Written::Bound { uid: pod.uid().clone() }
            }
            Err(message) => {
                let pod = &placement.pod;
                warn!(namespace = %pod.namespace(), name = %pod.name(), node = %placement.node, message, "Bound no pod");
                self.tell(pod, SCHEDULER_ERROR, &message, &Nomination::Keep).await;
                Written::BindFailed(placement)
            }
        }
    }

    async fn try_bind(&self, placement: &mut Placement) -> Result<(), String> {
        let Placement { pod, node, state } = placement;
        let profile = self.profiles.serving(pod);
        for (id, plugin) in &profile.pre_bind {
            let result = plugin.pre_bind(state, pod, node).await;
            result.map_err(|status| {
                format!("running PreBind plugin {:?}: {}", profile.plugin_name(*id), status.message())
            })?;
        }
        for (id, plugin) in &profile.bind {
            let result = plugin.bind(pod, node).await;
            let handled = result.map_err(|status| {
                format!("running Bind plugin {:?}: {}", profile.plugin_name(*id), status.message)
            })?;
            if handled {
                return Ok(());
            }
        }
        Err("no Bind plugin handled the pod".to_owned())
    }

    /// Speaks for the profile that schedules the pod.
    fn recorder(&self, pod: &PodInfo) -> &Recorder {
        &self.recorders[self.profiles.serving(pod).id()]
    }

    /// An event, and the condition `PodScheduled` and the nominated node unless the pod says so already.
    async fn tell(&self, pod: &PodInfo, reason: &str, message: &str, nomination: &Nomination) {
        self.recorder(pod).warning(&reference(pod), "FailedScheduling", truncated(message));
        let mut status = serde_json::Map::new();
        if let Some(condition) = failed_condition(pod, reason, message) {
            status.insert("conditions".to_owned(), serde_json::json!([condition]));
        }
        match nomination {
            Nomination::Make { node, .. } => {
                status.insert("nominatedNodeName".to_owned(), node.as_str().into());
            }
            Nomination::Clear if !pod.pod.status.nominated_node_name.is_empty() => {
                status.insert("nominatedNodeName".to_owned(), serde_json::Value::Null);
            }
            _ => {}
        }
        if !status.is_empty() {
            self.patch_status(pod, status.into()).await;
        }
    }

    /// The condition `PodGroupScheduled`, unless the group says so already.
    async fn tell_group(&self, verdict: &Verdict) {
        let Some(condition) = group_condition(verdict) else { return };
        let metadata = &verdict.group.metadata;
        let patch = Patch::Strategic(json!({"status": {"conditions": [condition]}}));
        let (namespace, name) = (&metadata.namespace, &metadata.name);
        let options = WriteOptions::default();
        match self.api.patch(&POD_GROUPS, namespace, name, Some("status"), patch, &options).await {
            Err(status) if !status.is_not_found() => {
                warn!(%namespace, %name, error = %status, "Patched no status of a pod group");
            }
            _ => debug!(%namespace, %name, scheduled = verdict.is_scheduled, "Tried pod group"),
        }
    }

    /// Evicts the victims of a preemption. One that cannot be evicted now is a victim again the next time.
    async fn evict_all(&self, preemptor: &PodInfo, node: &str, victims: &[Arc<PodInfo>]) {
        let evictions: Vec<_> = victims.iter().map(|victim| self.evict(preemptor, node, victim)).collect();
        futures::stream::iter(evictions).buffer_unordered(EVICTIONS_MAX).collect::<()>().await;
    }

    async fn evict(&self, preemptor: &PodInfo, node: &str, victim: &PodInfo) {
        let scheduler = &preemptor.pod.spec.scheduler_name;
        let condition = serde_json::json!({
            "type": "DisruptionTarget", "status": "True", "reason": PREEMPTION_REASON,
            "message": format!("{scheduler}: preempting to accommodate a higher priority pod"),
            "lastTransitionTime": time::format_seconds(rt::now()),
            "observedGeneration": victim.pod.metadata.generation,
        });
        self.patch_status(victim, serde_json::json!({"conditions": [condition]})).await;
        let options = DeleteOptions { uid: Some(victim.uid().clone()), ..DeleteOptions::default() };
        let (namespace, name) = (victim.namespace(), victim.name());
        match self.api.delete(&PODS, namespace, name, &options).await {
            Ok(()) => {
                info!(%namespace, %name, %node, preemptor = %preemptor.name(), "Preempted pod");
                let message = format!("Preempted by pod {} on node {node}", preemptor.uid());
                self.recorder(preemptor).normal(&reference(victim), "Preempted", message);
            }
            Err(status) if status.is_not_found() => {}
            Err(status) => warn!(%namespace, %name, error = %status, "Preempted no pod"),
        }
    }

    async fn patch_status(&self, pod: &PodInfo, status: serde_json::Value) {
        let patch = Patch::Strategic(json!({"status": status}));
        let (namespace, name) = (pod.namespace(), pod.name());
        let result =
            self.api.patch(&PODS, namespace, name, Some("status"), patch, &WriteOptions::default()).await;
        match result {
            Err(status) if !status.is_not_found() => {
                warn!(%namespace, %name, error = %status, "Patched no pod status");
            }
            _ => {}
        }
    }
}

/// The condition to write; `None` when the pod has it.
fn failed_condition(pod: &PodInfo, reason: &str, message: &str) -> Option<serde_json::Value> {
    let generation = pod.pod.metadata.generation;
    let old = pod.pod.condition("PodScheduled");
    if old.is_some_and(|old| {
        old.status == "False"
            && old.reason == reason
            && old.message == message
            && old.observed_generation == generation
    }) {
        return None;
    }
    let mut condition = serde_json::json!({
        "type": "PodScheduled", "status": "False", "reason": reason, "message": message,
        "observedGeneration": generation,
    });
    if old.is_none_or(|old| old.status != "False") {
        condition["lastTransitionTime"] = time::format_seconds(rt::now()).into();
    }
    Some(condition)
}

/// The condition to write; `None` when the group has it, or was scheduled and this is about more of its pods.
fn group_condition(verdict: &Verdict) -> Option<serde_json::Value> {
    const TYPE: &str = "PodGroupScheduled";
    let status = if verdict.is_scheduled { "True" } else { "False" };
    let old = verdict.group.status.conditions.iter().find(|own| own.type_ == TYPE);
    if old.is_some_and(|old| {
        let regresses = old.status == "True" && !verdict.is_scheduled;
        regresses || (old.status == status && old.reason == verdict.reason && old.message == verdict.message)
    }) {
        return None;
    }
    let mut condition = serde_json::json!({
        "type": TYPE, "status": status, "reason": verdict.reason, "message": verdict.message,
    });
    if old.is_none_or(|old| old.status != status) {
        condition["lastTransitionTime"] = time::format_seconds(rt::now()).into();
    }
    Some(condition)
}

pub(crate) fn reference(pod: &PodInfo) -> Reference {
    Reference {
        api_version: "v1".into(),
        kind: "Pod".into(),
        namespace: pod.namespace().clone(),
        name: pod.name().clone(),
        uid: pod.uid().clone(),
        revision: pod.revision,
        field_path: Str::default(),
    }
}

#[cfg(test)]
mod tests;
