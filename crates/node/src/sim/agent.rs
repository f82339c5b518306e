//! The task that drives simulated nodes and their pods.
//!
//! Owns: which nodes are driven, which pods have work queued or under way, and the addresses. Never touches: what a
//! step is (that is `stage`).
//!
//! **Invariant (one-write):** a pod has at most one write under way, and none is prepared from a state older than the
//! last write: after a write the informer must have caught up with it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use api::gvr::{NODES, PODS};
use api::view::{Node, Pod};
use apimachinery::{Object, Status, Str, Value, json, time};
use client::informer::Subscription;
use client::{Api, DeleteOptions, Delta, Informer, ObjectKey, Patch, WriteOptions};
use futures::StreamExt;
use rt::Instant;
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};

use super::address::{Addresses, Cidr};
use super::lease::Wheel;
use super::network::Network;
use super::stage::{FAST, Next, Stage, Surroundings, first_match};
use super::stages::Replaced;
use super::timers::{Timer, Timers};
use super::{Plan, node_object};

/// Pod writes under way at the same time.
const WRITES_MAX: usize = 256;

/// Node creations at the same time.
const CREATIONS_MAX: usize = 64;

/// Deltas handled before writes get their turn.
const EVENTS_PER_TURN: usize = 512;

/// A failed write is tried again after this, doubling up to the maximum.
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Pods by `spec.nodeName`, for nodes that appear after their pods.
pub(super) const BY_NODE: &str = "spec.nodeName";

pub(super) struct Agent {
    api: Arc<dyn Api>,
    stages: &'static [Stage],
    plan: Arc<Plan>,
    pods: Arc<Informer>,
    nodes: Arc<Informer>,
    pod_deltas: Subscription,
    node_deltas: Subscription,
    wheel: Arc<Wheel>,
    driven: HashMap<Str, Driven>,
    network: Arc<Network>,
    /// Which kinds live by Stages that users wrote, and not by these here.
    replaced: watch::Receiver<Replaced>,
    /// Pods that have work. As many as there are pods at most, a key each.
    work: HashMap<ObjectKey, Work>,
    queue: VecDeque<ObjectKey>,
    /// Pods whose time has not come: a stage's delay, or a retry.
    timers: Timers,
    in_flight: usize,
    done: mpsc::Sender<Written>,
    results: mpsc::Receiver<Written>,
}

/// A node that is simulated here.
#[derive(Debug)]
struct Driven {
    range: Cidr,
    host_ip: Option<Str>,
    /// Pods that found no free address; tried again when one is released.
    starved: Vec<ObjectKey>,
}

/// Where a pod with work stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Queued {
        failures: u32,
    },
    /// For `timer` (a delay, a retry), or for an address without one. Not for ever: when another stage applies, the
    /// pod is queued at once.
    Waiting {
        stage: &'static str,
        timer: Option<Timer>,
        failures: u32,
    },
    /// `stale`: the pod changed meanwhile.
    Writing {
        stale: bool,
        failures: u32,
    },
    /// Waits for the informer to show this revision.
    Written {
        revision: u64,
    },
}

/// The end of a write.
struct Written {
    key: ObjectKey,
    /// The revision after a patch; 0 after a deletion.
    result: Result<u64, Status>,
}

/// Creates the nodes of the plan that do not exist. A creation that fails is tried again until it succeeds.
pub(super) async fn create_nodes(api: &Arc<dyn Api>, nodes: &Informer, plan: &Plan) {
    let missing =
        (0..plan.options.count).filter(|&index| nodes.get("", &node_object::name(plan, index)).is_none());
    let created = futures::stream::iter(missing)
        .map(|index| create_node(&**api, plan, index))
        .buffer_unordered(CREATIONS_MAX)
        .count()
        .await;
    info!(count = plan.options.count, created, "Created simulated nodes");
}

async fn create_node(api: &dyn Api, plan: &Plan, index: usize) {
    let mut pause = RETRY_MIN;
    loop {
        match api.create(&NODES, "", node_object::node(plan, index), &WriteOptions::default()).await {
            Ok(_) => return,
            Err(status) if status.is_already_exists() => return,
            Err(status) => warn!(name = %node_object::name(plan, index), error = %status, "Created no node"),
        }
        rt::sleep(rt::jittered(pause, 0.5)).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
}

// === impl Agent ===

impl Agent {
    pub fn new(
        api: Arc<dyn Api>,
        pods: Arc<Informer>,
        nodes: Arc<Informer>,
        plan: Arc<Plan>,
        wheel: Arc<Wheel>,
        network: Arc<Network>,
        replaced: watch::Receiver<Replaced>,
    ) -> Self {
        let (done, results) = mpsc::channel(WRITES_MAX);
        let stages = stages_of(*replaced.borrow());
        Self {
            api,
            stages,
            plan,
            pod_deltas: pods.subscribe(),
            node_deltas: nodes.subscribe(),
            pods,
            nodes,
            wheel,
            driven: HashMap::new(),
            network,
            replaced,
            work: HashMap::new(),
            queue: VecDeque::new(),
            timers: Timers::default(),
            in_flight: 0,
            done,
            results,
        }
    }

    /// Simulates until the informers stop.
    pub async fn run(mut self) {
        self.read_nodes();
        self.read_pods();
        loop {
            let handled = self.handle_waiting_events();
            self.fire_timers(rt::instant());
            let started = self.start_writes();
            if handled + started > 0 {
                tokio::task::yield_now().await;
            } else if !self.wait().await {
                return;
            }
        }
    }

    fn handle_waiting_events(&mut self) -> usize {
        let mut handled = 0;
        while handled < EVENTS_PER_TURN {
            if let Ok(written) = self.results.try_recv() {
                self.on_written(written);
            } else if let Some(delta) = self.node_deltas.try_recv() {
                self.on_node_delta(delta);
            } else if let Some(delta) = self.pod_deltas.try_recv() {
                self.on_pod_delta(delta);
            } else {
                break;
            }
            handled += 1;
        }
        handled
    }

    async fn wait(&mut self) -> bool {
        tokio::select! {
            delta = self.pod_deltas.recv() => match delta {
                Some(delta) => self.on_pod_delta(delta),
                None => return false,
            },
            delta = self.node_deltas.recv() => match delta {
                Some(delta) => self.on_node_delta(delta),
                None => return false,
            },
            Some(written) = self.results.recv() => self.on_written(written),
            Ok(()) = self.replaced.changed() => self.on_replaced(),
            () = self.timers.due() => {}
        }
        true
    }
}

// === impl Agent: who is driven by whom ===

impl Agent {
    /// Users' Stages took a kind over, or left it. What is under way ends.
    fn on_replaced(&mut self) {
        let replaced = *self.replaced.borrow_and_update();
        self.stages = stages_of(replaced);
        self.work.retain(|_, work| matches!(work, Work::Writing { .. } | Work::Written { .. }));
        self.queue.clear();
        self.timers.clear();
        self.read_nodes();
        self.read_pods();
    }
}

/// The stages of pods; none where users wrote others.
fn stages_of(replaced: Replaced) -> &'static [Stage] {
    if replaced.pods { &[] } else { FAST }
}

// === impl Agent: nodes ===

impl Agent {
    fn on_node_delta(&mut self, delta: Delta) {
        match delta {
            Delta::Upsert { old, new } => {
                if old.is_some_and(|old| old.uid() != new.uid()) {
                    self.drop_node(new.name());
                }
                self.on_node(&new);
            }
            Delta::Delete { old } => {
                self.drop_node(old.name());
                self.network.nodes.lock().release(old.uid());
            }
            Delta::Resync => self.read_nodes(),
        }
    }

    fn read_nodes(&mut self) {
        let nodes = self.nodes.list();
        let present: HashSet<&str> = nodes.iter().map(|node| node.name()).collect();
        let gone: Vec<Str> =
            self.driven.keys().filter(|name| !present.contains(name.as_str())).cloned().collect();
        gone.iter().for_each(|name| self.drop_node(name));
        // Addresses in use first, so that none is handed out twice.
        nodes.iter().for_each(|node| self.note_node_address(node));
        nodes.iter().for_each(|node| self.on_node(node));
    }

    fn note_node_address(&mut self, object: &Object) {
        let Ok(node) = object.view::<Node>() else { return };
        if let Some(address) = node.address("InternalIP") {
            self.network.nodes.lock().note(&node.metadata.uid, Plan::node_cidr(), address);
        }
    }

    fn on_node(&mut self, object: &Object) {
        let Ok(node) = object.view::<Node>() else { return };
        let name = &node.metadata.name;
        if !node.is_simulated() {
            return self.drop_node(name);
        }
        self.note_node_address(object);
        if !node.is_ready() && !self.replaced.borrow().nodes {
            self.make_ready(&node);
        }
        let host_ip = node.address("InternalIP").map(Str::from);
        let range = Addresses::range(&node.spec.pod_cidr);
        match self.driven.get_mut(name) {
            Some(driven) => (driven.host_ip, driven.range) = (host_ip, range),
            None => {
                self.driven.insert(name.clone(), Driven { range, host_ip, starved: Vec::new() });
                self.wheel.add(name, &node.metadata.uid);
                self.read_pods_of(&name.clone());
            }
        }
    }

    fn drop_node(&mut self, name: &str) {
        if self.driven.remove(name).is_some() {
            self.wheel.remove(name);
        }
    }

    /// Nodes become ready once in their life: this is no hot path, and a failure is met by the next event or resync.
    fn make_ready(&mut self, node: &Node) {
        let (api, name) = (self.api.clone(), node.metadata.name.clone());
        let status = self.ready_status(node);
        rt::spawn("sim-node-ready", async move {
            let patch = Patch::Strategic(json!({"status": serde_json::Value::from(&status)}));
            let result = api.patch(&NODES, "", &name, Some("status"), patch, &WriteOptions::default()).await;
            if let Err(status) = result {
                warn!(%name, error = %status, "Made no node ready");
            }
        });
    }

    fn ready_status(&mut self, node: &Node) -> Value {
        let name = &node.metadata.name;
        if let Some(index) = self.plan.index_of(name)
            && node.status.allocatable.is_empty()
        {
            return node_object::status(&self.plan, index);
        }
        let mut status = node_object::ready_status(node, &self.plan.options.kubelet_version);
        if node.address("InternalIP").is_none()
            && let Some(address) = self.network.nodes.lock().hold(&node.metadata.uid, Plan::node_cidr())
        {
            status.set_at(&["addresses"], node_object::addresses(name, address));
        }
        status
    }
}

// === impl Agent: pods ===

impl Agent {
    fn on_pod_delta(&mut self, delta: Delta) {
        match delta {
            Delta::Upsert { old, new } => {
                if let Some(old) = old.filter(|old| old.uid() != new.uid()) {
                    self.on_pod_gone(&old);
                }
                self.on_pod(&new);
            }
            Delta::Delete { old } => self.on_pod_gone(&old),
            Delta::Resync => self.read_pods(),
        }
    }

    /// Addresses in use first, so that none is handed out twice.
    fn read_pods(&mut self) {
        let pods = self.pods.list();
        let present: HashSet<&str> = pods.iter().map(|pod| pod.uid()).collect();
        self.network.pods.lock().retain(|uid| present.contains(uid));
        let pods_informer = self.pods.clone();
        self.work.retain(|key, _| pods_informer.get(&key.namespace, &key.name).is_some());
        self.start_all(&pods);
    }

    fn read_pods_of(&mut self, node: &str) {
        let pods = self.pods.by_index(BY_NODE, node);
        self.start_all(&pods);
    }

    fn start_all(&mut self, pods: &[Arc<Object>]) {
        pods.iter().for_each(|pod| self.note_address(pod));
        pods.iter().for_each(|pod| self.on_pod(pod));
    }

    fn note_address(&mut self, object: &Object) {
        let Ok(pod) = object.view::<Pod>() else { return };
        if let Some(driven) = self.driven.get(&pod.spec.node_name)
            && !pod.is_terminal()
            && !pod.spec.host_network
        {
            self.network.pods.lock().note(&pod.metadata.uid, driven.range, &pod.status.pod_ip);
        }
    }

    fn on_pod(&mut self, object: &Object) {
        let Ok(pod) = object.view::<Pod>() else { return };
        if !self.driven.contains_key(&pod.spec.node_name) {
            return;
        }
        if pod.is_terminal() {
            self.release_address(&pod);
        }
        let key = ObjectKey::from(object);
        match self.work.get_mut(&key) {
            Some(Work::Queued { .. }) => return,
            Some(Work::Waiting { stage, .. })
                if first_match(self.stages, &pod).is_some_and(|now| now.name == *stage) =>
            {
                return;
            }
            Some(Work::Writing { stale, .. }) => {
                *stale = true;
                return;
            }
            Some(Work::Written { revision }) if object.revision() < *revision => return,
            Some(Work::Written { .. } | Work::Waiting { .. }) => _ = self.work.remove(&key),
            None => {}
        }
        self.enqueue(key, &pod, 0);
    }

    /// Queues the pod's next step, if it has one.
    fn enqueue(&mut self, key: ObjectKey, pod: &Pod, failures: u32) {
        let Some(stage) = first_match(self.stages, pod) else { return };
        self.queue_after(key, stage, stage.delay, failures);
    }

    fn queue_after(&mut self, key: ObjectKey, stage: &'static Stage, delay: Duration, failures: u32) {
        if delay.is_zero() {
            self.work.insert(key.clone(), Work::Queued { failures });
            self.queue.push_back(key);
        } else {
            let timer = Some(self.timers.start(delay, key.clone()));
            self.work.insert(key, Work::Waiting { stage: stage.name, timer, failures });
        }
    }

    fn fire_timers(&mut self, now: Instant) {
        while let Some((timer, key)) = self.timers.pop_due(now) {
            self.stop_waiting(key, Some(timer));
        }
    }

    /// Queues a pod that waits for just this; it may have been overtaken by events.
    fn stop_waiting(&mut self, key: ObjectKey, awaited: Option<Timer>) {
        if let Some(&Work::Waiting { timer, failures, .. }) = self.work.get(&key)
            && timer == awaited
        {
            self.work.insert(key.clone(), Work::Queued { failures });
            self.queue.push_back(key);
        }
    }

    fn on_pod_gone(&mut self, object: &Object) {
        let key = ObjectKey::from(object);
        // A write under way keeps its entry until it has answered.
        match self.work.get_mut(&key) {
            Some(Work::Writing { stale, .. }) => *stale = true,
            _ => _ = self.work.remove(&key),
        }
        if let Ok(pod) = object.view::<Pod>() {
            self.release_address(&pod);
        }
    }

    fn release_address(&mut self, pod: &Pod) {
        let released = self.network.pods.lock().release(&pod.metadata.uid);
        if released && let Some(driven) = self.driven.get_mut(&pod.spec.node_name) {
            for key in std::mem::take(&mut driven.starved) {
                self.stop_waiting(key, None);
            }
        }
    }
}

// === impl Agent: writes ===

impl Agent {
    fn start_writes(&mut self) -> usize {
        let mut started = 0;
        while self.in_flight < WRITES_MAX {
            let Some(key) = self.queue.pop_front() else { break };
            started += usize::from(self.start_write(key));
        }
        started
    }

    /// Decides on the state of now: what queued the pod may be history.
    fn start_write(&mut self, key: ObjectKey) -> bool {
        let Some(&Work::Queued { failures }) = self.work.get(&key) else { return false };
        let Some(pod) = self.present_pod(&key) else {
            self.work.remove(&key);
            return false;
        };
        let Some(stage) = first_match(self.stages, &pod) else {
            self.work.remove(&key);
            return false;
        };
        let write = match &stage.next {
            Next::Delete => Write::Delete,
            Next::Status(status) => match self.surroundings(&key, &pod) {
                Some(around) => Write::Status(status(&pod, &around)),
                None => {
                    self.work.insert(key, Work::Waiting { stage: stage.name, timer: None, failures });
                    return false;
                }
            },
        };
        debug!(namespace = %key.namespace, name = %key.name, stage = stage.name, "Started a stage");
        self.work.insert(key.clone(), Work::Writing { stale: false, failures });
        self.in_flight += 1;
        let (api, done, uid) = (self.api.clone(), self.done.clone(), pod.metadata.uid.clone());
        rt::spawn("sim-pod-write", async move {
            let mut answer =
                Answer { done, written: Some(Written { key, result: Err(Status::internal("panicked")) }) };
            if let Some(written) = &mut answer.written {
                written.result = write.commit(&*api, &written.key, &uid).await;
            }
        });
        true
    }

    /// The pod as the informer has it, if it is on a driven node still.
    fn present_pod(&self, key: &ObjectKey) -> Option<Arc<Pod>> {
        let pod = self.pods.get(&key.namespace, &key.name)?.view::<Pod>().ok()?;
        self.driven.contains_key(&pod.spec.node_name).then_some(pod)
    }

    /// `None` when there is no address for the pod; it waits for one to be released.
    fn surroundings(&mut self, key: &ObjectKey, pod: &Pod) -> Option<Surroundings> {
        let driven = self.driven.get_mut(&pod.spec.node_name)?;
        let pod_ip = if pod.spec.host_network {
            None
        } else {
            let address = self.network.pods.lock().hold(&pod.metadata.uid, driven.range);
            if address.is_none() {
                warn!(node = %pod.spec.node_name, range = %driven.range, "Found no free pod address");
                driven.starved.push(key.clone());
                return None;
            }
            address
        };
        let now = Str::from(time::format_seconds(rt::now()));
        Some(Surroundings { now, host_ip: driven.host_ip.clone(), pod_ip })
    }

    fn on_written(&mut self, Written { key, result }: Written) {
        self.in_flight -= 1;
        let Some(&Work::Writing { stale, failures }) = self.work.get(&key) else { return };
        self.work.remove(&key);
        match result {
            Ok(revision) => {
                let seen = self.pods.get(&key.namespace, &key.name);
                match seen {
                    Some(seen) if seen.revision() < revision => {
                        _ = self.work.insert(key, Work::Written { revision })
                    }
                    // The informer was quicker, so whatever comes next would not be told again.
                    Some(seen) if stale => self.on_pod(&seen),
                    _ => {}
                }
            }
            // Gone, or another pod of that name: the informer tells.
            Err(status) if status.is_not_found() => {}
            Err(status) => self.retry(key, failures + 1, &status),
        }
    }

    fn retry(&mut self, key: ObjectKey, failures: u32, status: &Status) {
        warn!(namespace = %key.namespace, name = %key.name, failures, error = %status, "Wrote no pod");
        let Some(stage) = self.present_pod(&key).and_then(|pod| first_match(self.stages, &pod)) else {
            return;
        };
        let pause = RETRY_MIN.saturating_mul(1 << failures.min(10)).min(RETRY_MAX);
        self.queue_after(key, stage, rt::jittered(pause, 0.5), failures);
    }
}

/// A step as a call.
enum Write {
    Status(Value),
    Delete,
}

impl Write {
    /// Returns the revision after a patch. The uid makes sure that it is this pod and not the next of its name.
    async fn commit(self, api: &dyn Api, key: &ObjectKey, uid: &Str) -> Result<u64, Status> {
        let ObjectKey { namespace, name } = key;
        match self {
            Self::Status(status) => {
                let metadata: Value =
                    [(Str::const_new("uid"), Value::from(uid.clone()))].into_iter().collect();
                let fields = [(Str::const_new("metadata"), metadata), (Str::const_new("status"), status)];
                let patch = Patch::Strategic(fields.into_iter().collect());
                let options = WriteOptions::default();
                api.patch(&PODS, namespace, name, Some("status"), patch, &options)
                    .await
                    .map(|pod| pod.revision())
            }
            Self::Delete => {
                let options = DeleteOptions {
                    grace_period_seconds: Some(0),
                    uid: Some(uid.clone()),
                    ..DeleteOptions::default()
                };
                api.delete(&PODS, namespace, name, &options).await.map(|()| 0)
            }
        }
    }
}

/// Answers when dropped, so that a task that panics does not take a place in flight with it.
struct Answer {
    done: mpsc::Sender<Written>,
    written: Option<Written>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(written) = self.written.take() {
            // The channel holds as many as can be in flight. It is closed only when the agent stops.
            let _ = self.done.try_send(written);
        }
    }
}

pub(super) fn node_names(object: &Object) -> Vec<Str> {
    let node = object.view::<Pod>().map(|pod| pod.spec.node_name.clone()).unwrap_or_default();
    if node.is_empty() { Vec::new() } else { vec![node] }
}
