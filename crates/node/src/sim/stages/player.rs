//! [`Player`]: plays the Stages of one kind on all objects of it.
//!
//! Owns: which objects wait for a delay, and which are written. Never touches: what Stages there are (`super`).
//!
//! As in KWOK, every change of an object chooses a stage anew and starts its delay anew. One wheel of timers serves all
//! objects; an object that matches nothing costs nothing.
//!
//! **Invariant (one-play):** an object has at most one stage under way, and none is chosen from a state older than what
//! the last one wrote.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use api::view::{Node, Pod};
use apimachinery::{Object, Status, Str};
use client::events::Reference;
use client::informer::Subscription;
use client::{Api, Delta, Informer, ObjectKey, Recorder};
use rt::{Instant, Shutdown};
use tokio::sync::{mpsc, watch};
use tracing::{debug, warn};

use super::functions::Scene;
use super::lifecycle::Lifecycle;
use super::play::{actions, perform};
use super::spec::Stage;
use crate::sim::address::Addresses;
use crate::sim::agent::BY_NODE;
use crate::sim::network::Network;
use crate::sim::timers::{Timer, Timers};

/// Stages under way at the same time.
const PLAYS_MAX: usize = 256;

/// Deltas handled before stages get their turn.
const EVENTS_PER_TURN: usize = 512;

/// A write that failed for a while is tried again after this, doubling up to the maximum.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(32 * 60);

/// The reason of events about stages that could not be played.
const FAILED: &str = "StageFailed";

/// What players share.
#[derive(Clone)]
pub struct World {
    pub api: Arc<dyn Api>,
    pub nodes: Arc<Informer>,
    pub network: Arc<Network>,
    pub recorder: Recorder,
}

/// Which objects are simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Population {
    /// Nodes that are annotated as such.
    Nodes,
    /// Pods of such nodes.
    Pods,
    /// All of a kind.
    All,
}

pub struct Player {
    world: World,
    population: Population,
    objects: Arc<Informer>,
    lifecycle: watch::Receiver<Lifecycle>,
    deltas: Subscription,
    node_deltas: Subscription,
    work: HashMap<ObjectKey, Work>,
    timers: Timers,
    /// Those whose time has come.
    due: VecDeque<ObjectKey>,
    /// Pods without an address, by node.
    starved: HashMap<Str, Vec<ObjectKey>>,
    in_flight: usize,
    done: mpsc::Sender<Played>,
    results: mpsc::Receiver<Played>,
}

/// A stage for an object, as of a revision of it.
#[derive(Clone)]
struct Job {
    stage: Arc<Stage>,
    revision: u64,
    /// The first step that is not done.
    step: usize,
    failures: u32,
}

enum Work {
    Waiting {
        job: Job,
        timer: Timer,
    },
    Due(Job),
    /// Waits for an address.
    Starved(Job),
    /// `stale`: the object changed meanwhile.
    Playing {
        job: Job,
        stale: bool,
    },
    /// Waits for the informer to show this revision.
    Played {
        revision: u64,
    },
}

/// The end of a stage.
struct Played {
    key: ObjectKey,
    result: Result<u64, (usize, Status)>,
}

impl Player {
    pub fn new(
        world: World,
        population: Population,
        objects: Arc<Informer>,
        lifecycle: watch::Receiver<Lifecycle>,
    ) -> Self {
        let (done, results) = mpsc::channel(PLAYS_MAX);
        Self {
            deltas: objects.subscribe(),
            node_deltas: world.nodes.subscribe(),
            world,
            population,
            objects,
            lifecycle,
            work: HashMap::new(),
            timers: Timers::default(),
            due: VecDeque::new(),
            starved: HashMap::new(),
            in_flight: 0,
            done,
            results,
        }
    }

    /// Plays until `shutdown`, or until nobody says any more which Stages there are.
    pub async fn run(mut self, shutdown: Shutdown) {
        tokio::select! {
            () = self.play_all() => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn play_all(&mut self) {
        loop {
            let handled = self.handle_waiting_events();
            self.fire_timers(rt::instant());
            let started = self.start_plays();
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
            if let Ok(played) = self.results.try_recv() {
                self.on_played(played);
            } else if let Some(delta) = self.node_deltas.try_recv() {
                self.on_node_delta(delta);
            } else if let Some(delta) = self.deltas.try_recv() {
                self.on_delta(delta);
            } else {
                break;
            }
            handled += 1;
        }
        handled
    }

    async fn wait(&mut self) -> bool {
        tokio::select! {
            delta = self.deltas.recv() => match delta {
                Some(delta) => self.on_delta(delta),
                None => return false,
            },
            delta = self.node_deltas.recv() => match delta {
                Some(delta) => self.on_node_delta(delta),
                None => return false,
            },
            Some(played) = self.results.recv() => self.on_played(played),
            changed = self.lifecycle.changed() => match changed {
                Ok(()) => self.choose_all_anew(),
                Err(_) => return false,
            },
            () = self.timers.due() => {}
        }
        true
    }
}

// === impl Player: what changed ===

impl Player {
    fn on_delta(&mut self, delta: Delta) {
        match delta {
            Delta::Upsert { old, new } => {
                if let Some(old) = old.filter(|old| old.uid() != new.uid()) {
                    self.on_gone(&old);
                }
                self.on_object(&new);
            }
            Delta::Delete { old } => self.on_gone(&old),
            Delta::Resync => self.read_all(),
        }
    }

    /// Pods may be there before their node is, or before it is declared simulated.
    fn on_node_delta(&mut self, delta: Delta) {
        if self.population != Population::Pods {
            return;
        }
        let Delta::Upsert { old, new } = delta else { return };
        if is_simulated(&new) && !old.is_some_and(|old| is_simulated(&old)) {
            let pods = self.objects.by_index(BY_NODE, new.name());
            pods.iter().for_each(|pod| self.on_object(pod));
        }
    }

    fn read_all(&mut self) {
        let objects = self.objects.list();
        let present: HashSet<ObjectKey> = objects.iter().map(|object| ObjectKey::from(&**object)).collect();
        let gone: Vec<ObjectKey> = self.work.keys().filter(|key| !present.contains(*key)).cloned().collect();
        gone.iter().for_each(|key| self.forget(key));
        // Addresses in use first, so that none is handed out twice.
        objects.iter().for_each(|object| self.note_address(object));
        objects.iter().for_each(|object| self.on_object(object));
    }

    fn note_address(&self, object: &Object) {
        if self.population != Population::Pods {
            return;
        }
        let Ok(pod) = object.view::<Pod>() else { return };
        if pod.is_terminal() || pod.spec.host_network || pod.status.pod_ip.is_empty() {
            return;
        }
        let Some(node) = self.world.nodes.get("", &pod.spec.node_name) else { return };
        let Ok(node) = node.view::<Node>() else { return };
        let range = Addresses::range(&node.spec.pod_cidr);
        self.world.network.pods.lock().note(&pod.metadata.uid, range, &pod.status.pod_ip);
    }

    fn choose_all_anew(&mut self) {
        let waiting: Vec<ObjectKey> = self
            .work
            .iter()
            .filter(|(_, work)| !matches!(work, Work::Playing { .. } | Work::Played { .. }))
            .map(|(key, _)| key.clone())
            .collect();
        waiting.iter().for_each(|key| self.forget(key));
        self.read_all();
    }

    fn on_object(&mut self, object: &Arc<Object>) {
        let key = ObjectKey::from(&**object);
        if !self.is_simulated(object) {
            return self.forget(&key);
        }
        self.release_if_terminal(object);
        match self.work.get_mut(&key) {
            Some(Work::Playing { stale, .. }) => {
                *stale = true;
                return;
            }
            Some(Work::Played { revision }) if object.revision() < *revision => return,
            Some(Work::Waiting { job, .. } | Work::Due(job) | Work::Starved(job))
                if job.revision == object.revision() =>
            {
                return;
            }
            Some(_) => self.forget(&key),
            None => {}
        }
        self.choose(key, object);
    }

    fn choose(&mut self, key: ObjectKey, object: &Object) {
        let tree = object.to_value();
        let (stage, delay) = {
            let lifecycle = self.lifecycle.borrow();
            let Some(stage) = lifecycle.choose(&tree) else { return };
            (stage.clone(), stage.delay_of(&tree, rt::now()))
        };
        self.schedule(key, Job { stage, revision: object.revision(), step: 0, failures: 0 }, delay);
    }

    fn schedule(&mut self, key: ObjectKey, job: Job, delay: Duration) {
        if delay.is_zero() {
            self.work.insert(key.clone(), Work::Due(job));
            self.due.push_back(key);
        } else {
            let timer = self.timers.start(delay, key.clone());
            self.work.insert(key, Work::Waiting { job, timer });
        }
    }

    fn fire_timers(&mut self, now: Instant) {
        while let Some((_, key)) = self.timers.pop_due(now) {
            if let Some(Work::Waiting { job, .. }) = self.work.remove(&key) {
                self.work.insert(key.clone(), Work::Due(job));
                self.due.push_back(key);
            }
        }
    }

    /// A stage that is played keeps its entry until it has ended.
    fn forget(&mut self, key: &ObjectKey) {
        match self.work.get_mut(key) {
            Some(Work::Playing { stale, .. }) => *stale = true,
            Some(Work::Waiting { timer, .. }) => {
                self.timers.cancel(*timer);
                self.work.remove(key);
            }
            _ => _ = self.work.remove(key),
        }
    }

    fn on_gone(&mut self, object: &Object) {
        self.forget(&ObjectKey::from(object));
        if self.population == Population::Pods {
            self.release_address(object);
        }
    }

    fn release_if_terminal(&mut self, object: &Object) {
        if self.population == Population::Pods && object.view::<Pod>().is_ok_and(|pod| pod.is_terminal()) {
            self.release_address(object);
        }
    }

    /// Those that found none try again.
    fn release_address(&mut self, object: &Object) {
        self.world.network.pods.lock().release(object.uid());
        let Ok(pod) = object.view::<Pod>() else { return };
        for key in self.starved.remove(&pod.spec.node_name).unwrap_or_default() {
            match self.work.remove(&key) {
                Some(Work::Starved(job)) => self.schedule(key, job, Duration::ZERO),
                Some(other) => _ = self.work.insert(key, other),
                None => {}
            }
        }
    }

    fn is_simulated(&self, object: &Object) -> bool {
        match self.population {
            Population::All => true,
            Population::Nodes => is_simulated(object),
            Population::Pods => {
                let Ok(pod) = object.view::<Pod>() else { return false };
                self.world.nodes.get("", &pod.spec.node_name).is_some_and(|node| is_simulated(&node))
            }
        }
    }
}

// === impl Player: plays ===

impl Player {
    fn start_plays(&mut self) -> usize {
        let mut started = 0;
        while self.in_flight < PLAYS_MAX {
            let Some(key) = self.due.pop_front() else { break };
            started += usize::from(self.start(key));
        }
        started
    }

    /// An object that is another than the stage was chosen for is told of by the informer.
    fn start(&mut self, key: ObjectKey) -> bool {
        let Some(Work::Due(job)) = self.work.get(&key) else { return false };
        let job = job.clone();
        let object = self.objects.get(&key.namespace, &key.name);
        let Some(object) = object.filter(|object| object.revision() == job.revision) else {
            self.work.remove(&key);
            return false;
        };
        let scene = Scene {
            object: &object,
            nodes: &self.world.nodes,
            network: &self.world.network,
            starved: Default::default(),
        };
        let actions = match actions(&job.stage, job.step, &object.to_value(), &scene) {
            Ok(actions) => actions,
            Err(_) if scene.starved.get() => {
                let node = object.view::<Pod>().map(|pod| pod.spec.node_name.clone()).unwrap_or_default();
                warn!(%node, "Found no free pod address");
                self.starved.entry(node).or_default().push(key.clone());
                self.work.insert(key, Work::Starved(job));
                return false;
            }
            Err(message) => {
                self.work.remove(&key);
                self.report(&object, &job.stage, &message);
                return false;
            }
        };
        debug!(namespace = %key.namespace, name = %key.name, stage = %job.stage.name, "Started a stage");
        self.work.insert(key.clone(), Work::Playing { job, stale: false });
        self.in_flight += 1;
        let (world, done, resource) =
            (self.world.clone(), self.done.clone(), self.objects.resource().clone());
        rt::spawn("sim-stage", async move {
            let panicked = Err((0, Status::internal("panicked")));
            let mut answer = Answer { done, played: Some(Played { key, result: panicked }) };
            let result = perform(&*world.api, &resource, &object, actions, &world.recorder).await;
            if let Some(played) = &mut answer.played {
                played.result = result;
            }
        });
        true
    }

    fn on_played(&mut self, Played { key, result }: Played) {
        self.in_flight -= 1;
        let Some(Work::Playing { job, stale }) = self.work.remove(&key) else { return };
        let object = self.objects.get(&key.namespace, &key.name);
        match (result, object) {
            (Ok(revision), Some(object)) if object.revision() < revision => {
                self.work.insert(key, Work::Played { revision });
            }
            // The informer was quicker, so whatever comes next would not be told again.
            (Ok(_), Some(object)) if stale => self.on_object(&object),
            (Ok(_), _) | (Err(_), None) => {}
            // Gone, or another object of that name: the informer tells.
            (Err((_, status)), _) if status.is_not_found() => {}
            // Decided on an old state.
            (Err(_), Some(object)) if stale => self.on_object(&object),
            (Err((step, status)), Some(_)) if passes(&status) => {
                let failures = job.failures + 1;
                warn!(namespace = %key.namespace, name = %key.name, failures, error = %status, "Played no stage");
                let pause = RETRY_MIN.saturating_mul(1 << job.failures.min(11)).min(RETRY_MAX);
                self.schedule(key, Job { step, failures, ..job }, rt::jittered(pause, 0.2));
            }
            (Err((_, status)), Some(object)) => self.report(&object, &job.stage, &status.message),
        }
    }

    /// Tells on the object what is wrong; the next change of it, or of the Stages, is the next try.
    fn report(&self, object: &Object, stage: &Stage, message: &str) {
        debug!(namespace = object.namespace(), name = object.name(), stage = %stage.name, message, "Stage failed");
        let message = format!("stage {}: {message}", stage.name);
        self.world.recorder.warning(&Reference::of(object), FAILED, message);
    }
}

/// Whether a refusal is one that goes away.
fn passes(status: &Status) -> bool {
    status.code >= 500 || status.code == 429 || status.is_conflict()
}

fn is_simulated(node: &Object) -> bool {
    node.view::<Node>().is_ok_and(|node| node.is_simulated())
}

/// Answers when dropped, so that a task that panics does not take a place in flight with it.
struct Answer {
    done: mpsc::Sender<Played>,
    played: Option<Played>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(played) = self.played.take() {
            // The channel holds as many as can be in flight. It is closed only when the player stops.
            let _ = self.done.try_send(played);
        }
    }
}
