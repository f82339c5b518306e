//! [`Engine`]: the scheduler without the outside world.
//!
//! Owns: queue, cache, shared shortlists and waiting pods of all profiles, and the scheduling cycle itself. Never
//! touches: the API, tasks, clocks; `run` feeds it and acts on its [`Decision`]s.
//!
//! ```text
//!     on_pod, on_node, …  ──>  queue, cache
//!     next                ──>  pop → shortlist → assume → reserve → permit  ──>  Decision
//!     bound, bind_failed  ──>  done, or forgotten and queued again
//! ```
//!
//! Start at [`Engine::next`].

mod group;
#[cfg(test)]
mod plain;

use std::collections::VecDeque;
use std::sync::Arc;

use api::view::{Node, Pod, PodDisruptionBudget};
use apimachinery::{Object, Str};
use rt::Instant;

use crate::budget::Budget;
use crate::cache::{Cache, Slot};
use crate::diagnosis::{Cause, Diagnosis, NO_NODES};
use crate::framework::{
    Candidate, Code, CycleState, Event, EventSet, Nomination, Opinion, PermitOutcome, PluginId, PluginSet,
    Profile, Profiles, Question, Status, Watched,
};
use crate::groups::{GroupKey, Groups};
use crate::permit::{Waiting, WaitingPod};
use crate::plugins::cheapest;
use crate::pod::PodInfo;
use crate::queue::{Backoff, Failure, Place, Queue};
use crate::shared::Shortlists;
use crate::shortlist::Shortlist;

pub use group::Verdict;

/// Scheduling of the pods of some profiles.
pub struct Engine {
    profiles: Profiles,
    cache: Cache,
    queue: Queue,
    shortlists: Shortlists,
    waiting: Waiting,
    /// Where pods are scheduled in groups.
    groups: Option<Groups>,
    /// What was decided about a group and not handed out yet.
    decided: VecDeque<Decision>,
    /// Somebody is asked about a pod; meanwhile no other one is placed. How many events there were before.
    asking: Option<u64>,
    /// Of a generator that only has to choose among equals.
    random: u64,
}

/// What is to be done about a pod.
pub enum Decision {
    /// Bind it; answer with [`Engine::bound`] or [`Engine::bind_failed`].
    Bind(Placement),
    /// Ask [`Profile::consult_about`] the pod; answer with [`Engine::answered`].
    Ask(Question),
    /// Ask [`Profile::consult_about_preemption`]; answer with [`Engine::chosen`].
    AskPreemption(Preemption),
    /// It waits for leave of a `Permit` plugin.
    Held,
    /// It found no place and is queued again; tell the user.
    Unschedulable { pod: Arc<PodInfo>, reason: &'static str, message: String, nomination: Nomination },
    /// A group was tried, and what to do about its pods has been said; tell the user.
    Group(Verdict),
}

/// Reasons of the condition `PodScheduled`, upstream's.
pub const UNSCHEDULABLE: &str = "Unschedulable";
pub const SCHEDULER_ERROR: &str = "SchedulerError";

/// A pod that found no place, and whom it could be made room by.
pub struct Preemption {
    pub pod: Arc<PodInfo>,
    pub candidates: Vec<Candidate>,
    no_place: NoPlace,
}

/// The outcome of a search that did not fail.
enum Found {
    Node(Slot),
    /// Others are to be asked about these nodes first.
    Ask(Vec<Str>),
}

/// Whether others may be asked about a pod's nodes.
#[derive(Clone, Copy)]
enum Asking<'a> {
    Allowed,
    Forbidden,
    Done(&'a Opinion),
}

/// Why a pod found no place.
struct NoPlace {
    failure: Failure,
    message: String,
    nomination: Nomination,
}

impl NoPlace {
    fn new(failure: Failure, message: String) -> Self {
        Self { failure, message, nomination: Nomination::Keep }
    }
}

/// A pod and the node it was assumed on.
pub struct Placement {
    pub pod: Arc<PodInfo>,
    pub node: Str,
    /// For the plugins of the binding part.
    pub state: CycleState,
}

// === impl Engine ===

impl Engine {
    /// `seed` decides among nodes of equal score.
    pub fn new(profiles: Profiles, backoff: Backoff, seed: u64) -> Self {
        Self {
            queue: Queue::new(profiles.clone(), backoff),
            cache: Cache::default(),
            shortlists: Shortlists::default(),
            waiting: Waiting::default(),
            groups: None,
            decided: VecDeque::new(),
            asking: None,
            // Xorshift never leaves zero.
            random: seed | 1,
            profiles,
        }
    }

    /// Schedules pods that are in one of these groups together.
    pub fn with_groups(self, groups: Option<Groups>) -> Self {
        Self { groups, ..self }
    }

    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Handles the next pod; `None` when none is ready, and while others are asked about one.
    pub fn next(&mut self, now: Instant) -> Option<Decision> {
        if self.asking.is_some() {
            return None;
        }
        loop {
            if let Some(decision) = self.decided.pop_front() {
                return Some(decision);
            }
            let pod = self.queue.pop(now)?;
            if pod.pod.is_deleting() || self.cache.is_assumed(pod.uid()) {
                self.queue.remove(pod.uid());
                continue;
            }
            match self.groups.clone().zip(GroupKey::of(&pod)) {
                Some((groups, key)) => self.schedule_group(&groups, pod, &key, now),
                None => return Some(self.schedule(pod, now)),
            }
        }
    }

    /// Pods whose `Permit` was decided; call after [`Engine::next`] and when [`Engine::next_due`] has come.
    pub fn next_permitted(&mut self, now: Instant) -> Vec<Decision> {
        let decided = self.waiting.take_decided(now);
        decided.into_iter().map(|(waiting, decision)| self.permitted(waiting, decision, now)).collect()
    }

    /// When there may be work without an event; `None` for never.
    pub fn next_due(&self) -> Option<Instant> {
        let queued = self.queue.next_due().filter(|_| self.asking.is_none());
        queued.into_iter().chain(self.waiting.next_deadline()).min()
    }

    /// The binding succeeded. The assumption stays until the pod is seen as bound.
    pub fn bound(&mut self, uid: &str) {
        self.queue.remove(uid);
    }

    /// The binding failed: the pod is taken off its node and tried again after a back-off.
    pub fn bind_failed(&mut self, mut placement: Placement, now: Instant) {
        self.unreserve(&mut placement);
        self.queue.fail(placement.pod.uid(), Failure::Error, now);
        self.queue.on_event(&Event::AssignedPodDeleted(&placement.pod), now);
    }

    fn schedule(&mut self, pod: Arc<PodInfo>, now: Instant) -> Decision {
        match self.search(&pod, Ok(()), Asking::Allowed) {
            Ok(Found::Node(slot)) => self.assume(pod, slot, now),
            Ok(Found::Ask(nodes)) => {
                self.asking = Some(self.queue.events());
                Decision::Ask(Question { pod, nodes })
            }
            Err(no_place) => self.reject(pod, no_place, now),
        }
    }

    /// What came of [`Decision::Ask`]. The cluster may have changed: the pod is judged anew, by the opinion besides.
    pub fn answered(
        &mut self,
        pod: Arc<PodInfo>,
        answer: Result<Opinion, String>,
        now: Instant,
    ) -> Option<Decision> {
        let before = self.asking.take();
        if self.queue.place(pod.uid()) != Some(Place::InFlight) {
            return None;
        }
        let found = match &answer {
            Ok(opinion) => self.search(&pod, Ok(()), Asking::Done(opinion)),
            Err(error) => Err(NoPlace::new(Failure::Error, error.clone())),
        };
        let no_place = match found {
            Ok(Found::Node(slot)) => return Some(self.assume(pod, slot, now)),
            // Asked already.
            Ok(Found::Ask(_)) => NoPlace::new(Failure::Error, "nobody has an opinion".to_owned()),
            Err(no_place) => no_place,
        };
        let uid = pod.uid().clone();
        let decision = self.reject(pod, no_place, now);
        if before != Some(self.queue.events()) {
            self.queue.wake(&uid, now);
        }
        Some(decision)
    }

    /// What came of [`Decision::AskPreemption`].
    pub fn chosen(
        &mut self,
        preemption: Preemption,
        answer: Result<Vec<Candidate>, Status>,
        now: Instant,
    ) -> Option<Decision> {
        let before = self.asking.take();
        let Preemption { pod, mut no_place, .. } = preemption;
        if self.queue.place(pod.uid()) != Some(Place::InFlight) {
            return None;
        }
        let told = match answer {
            Ok(candidates) => {
                no_place.nomination = make_room(&candidates);
                candidates.is_empty().then(|| "no candidate node for preemption".to_owned())
            }
            Err(status) => Some(status.message()),
        };
        no_place.message.extend(told.map(|told| format!(" preemption: {told}")));
        let uid = pod.uid().clone();
        let decision = self.reject(pod, no_place, now);
        if before != Some(self.queue.events()) {
            self.queue.wake(&uid, now);
        }
        Some(decision)
    }

    /// The best node, or who rejected the pod and why; nobody is asked. `preemption` says why others may not be evicted
    /// for it.
    fn find_node(
        &mut self,
        pod: &Arc<PodInfo>,
        preemption: Result<(), &'static str>,
    ) -> Result<Slot, NoPlace> {
        match self.search(pod, preemption, Asking::Forbidden)? {
            Found::Node(slot) => Ok(slot),
            Found::Ask(_) => Err(NoPlace::new(Failure::Error, "nobody may be asked".to_owned())),
        }
    }

    fn search(
        &mut self,
        pod: &Arc<PodInfo>,
        preemption: Result<(), &'static str>,
        asking: Asking<'_>,
    ) -> Result<Found, NoPlace> {
        if self.cache.node_count() == 0 {
            let failure = Failure::Rejected(self.profiles.serving(pod).interested_in(EventSet::NODE_ADD));
            return Err(NoPlace::new(failure, NO_NODES.to_owned()));
        }
        let random = self.next_random();
        let Self { profiles, cache, shortlists, .. } = self;
        let profile = profiles.serving(pod);
        let node_count = shortlists.node_count(cache);
        let cause = match shortlists.of(profile, pod, cache) {
            Err((plugin, status)) => Cause::PreFilter { plugins: PluginSet::from_iter([plugin]), status },
            Ok(shortlist) => {
                let name = |slot: Slot| cache.node(slot).map(|node| node.name.clone());
                match (profile.consult_about(pod), asking) {
                    (Some((id, _)), Asking::Done(opinion)) => heed(shortlist, id, opinion, name),
                    (Some(_), Asking::Allowed) if shortlist.feasible_count() > 0 => {
                        return Ok(Found::Ask(shortlist.feasible().filter_map(name).collect()));
                    }
                    _ => {}
                }
                let nominated = cache.nomination(pod.uid());
                if let Some(slot) = nominated.filter(|&slot| shortlist.is_feasible(slot)) {
                    return Ok(Found::Node(slot));
                }
                let extra = |slot, opinion: &Opinion| {
                    name(slot).and_then(|name| opinion.scores.get(&name).copied()).unwrap_or(0)
                };
                let best = match asking {
                    Asking::Allowed | Asking::Forbidden => shortlist.best(random),
                    Asking::Done(opinion) => shortlist.best_with(random, |slot| extra(slot, opinion)),
                };
                match best {
                    Some(slot) => return Ok(Found::Node(slot)),
                    None => Cause::Nodes(shortlist),
                }
            }
        };
        let diagnosis = Diagnosis { node_count, profile, cause };
        if diagnosis.is_error() {
            return Err(NoPlace::new(Failure::Error, diagnosis.message("")));
        }
        let (told, nomination) = match preemption {
            Ok(()) => match run_post_filters(profile, pod, cache, &diagnosis) {
                (told, Nomination::Choose(candidates)) if matches!(asking, Asking::Forbidden) => {
                    (told, make_room(&candidates))
                }
                outcome => outcome,
            },
            Err(why) => (why.to_owned(), Nomination::Keep),
        };
        let failure = Failure::Rejected(diagnosis.rejectors());
        Err(NoPlace { failure, message: diagnosis.message(&told), nomination })
    }

    fn assume(&mut self, pod: Arc<PodInfo>, slot: Slot, now: Instant) -> Decision {
        let mut placement = self.occupy(pod, slot);
        if let Err((plugin, status)) = self.reserve(&mut placement) {
            return self.reject_placed(placement, plugin, &status, now);
        }
        match self.permit(&mut placement) {
            Ok(None) => Decision::Bind(placement),
            Ok(Some(timeout)) => self.hold(placement, now + timeout),
            Err((plugin, status)) => self.reject_placed(placement, plugin, &status, now),
        }
    }

    /// Counts a pod on a node; [`Engine::unreserve`] undoes it.
    fn occupy(&mut self, pod: Arc<PodInfo>, slot: Slot) -> Placement {
        let node = self.cache.node(slot).map(|info| info.name.clone()).unwrap_or_default();
        self.cache.assume(pod.clone(), slot);
        if let Some(groups) = &self.groups {
            groups.mark(&pod, true);
        }
        Placement { pod, node, state: CycleState::default() }
    }

    fn hold(&mut self, placement: Placement, deadline: Instant) -> Decision {
        let Placement { pod, node, state } = placement;
        self.waiting.hold(WaitingPod { pod, node, deadline, state });
        Decision::Held
    }

    fn reserve(&self, placement: &mut Placement) -> Result<(), (PluginId, Status)> {
        for (id, plugin) in &self.profiles.serving(&placement.pod).reserve {
            let reserved = plugin.reserve(&mut placement.state, &placement.pod, &placement.node);
            reserved.map_err(|status| (*id, status))?;
        }
        Ok(())
    }

    /// How long to wait at most, if any plugin wants to.
    fn permit(
        &mut self,
        placement: &mut Placement,
    ) -> Result<Option<std::time::Duration>, (PluginId, Status)> {
        let mut longest = None;
        let Self { profiles, waiting, .. } = self;
        let Placement { pod, node, state } = placement;
        for (id, plugin) in &profiles.serving(pod).permit {
            match plugin.permit(state, pod, node, waiting) {
                PermitOutcome::Allow => {}
                PermitOutcome::Wait(timeout) => longest = longest.max(Some(timeout)),
                PermitOutcome::Reject(status) => return Err((*id, status)),
            }
        }
        Ok(longest)
    }

    fn permitted(&mut self, waiting: WaitingPod, decision: Result<(), Status>, now: Instant) -> Decision {
        let WaitingPod { pod, node, state, deadline: _ } = waiting;
        let placement = Placement { pod, node, state };
        match decision {
            Ok(()) => Decision::Bind(placement),
            Err(status) => {
                let profile = self.profiles.serving(&placement.pod);
                let rejectors = profile.permit.iter().map(|(id, _)| *id).collect();
                self.reject_from_node(placement, rejectors, &status, now)
            }
        }
    }

    fn reject_placed(
        &mut self,
        placement: Placement,
        plugin: PluginId,
        status: &Status,
        now: Instant,
    ) -> Decision {
        self.reject_from_node(placement, PluginSet::from_iter([plugin]), status, now)
    }

    fn reject_from_node(
        &mut self,
        mut placement: Placement,
        rejectors: PluginSet,
        status: &Status,
        now: Instant,
    ) -> Decision {
        self.unreserve(&mut placement);
        let no_place = turned_away(rejectors, status);
        self.reject(placement.pod, no_place, now)
    }

    fn unreserve(&mut self, placement: &mut Placement) {
        for (_, plugin) in self.profiles.serving(&placement.pod).reserve.iter().rev() {
            plugin.unreserve(&mut placement.state, &placement.pod, &placement.node);
        }
        self.cache.forget(placement.pod.uid());
        if let Some(groups) = self.groups.as_ref().filter(|_| self.cache.pod(placement.pod.uid()).is_none()) {
            groups.mark(&placement.pod, false);
        }
    }

    fn reject(&mut self, pod: Arc<PodInfo>, no_place: NoPlace, now: Instant) -> Decision {
        let NoPlace { failure, message, nomination } = no_place;
        match &nomination {
            Nomination::Choose(candidates) => {
                let candidates = candidates.clone();
                self.asking = Some(self.queue.events());
                let no_place = NoPlace { failure, message, nomination: Nomination::Keep };
                return Decision::AskPreemption(Preemption { pod, candidates, no_place });
            }
            Nomination::Keep => {}
            Nomination::Clear => self.cache.clear_nomination(pod.uid()),
            Nomination::Make { node, .. } => self.cache.nominate(pod.clone(), node),
        }
        self.queue.fail(pod.uid(), failure, now);
        let reason = if failure == Failure::Error { SCHEDULER_ERROR } else { UNSCHEDULABLE };
        Decision::Unschedulable { pod, reason, message, nomination }
    }

    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

/// Runs the `PostFilter` plugins up to one that makes room: what they say, and what becomes of the nomination.
fn run_post_filters(
    profile: &Profile,
    pod: &PodInfo,
    cache: &Cache,
    diagnosis: &Diagnosis<'_>,
) -> (String, Nomination) {
    let mut told = Vec::new();
    let mut nomination = Nomination::Keep;
    for (_, plugin) in &profile.post_filter {
        let outcome = plugin.post_filter(pod, cache, diagnosis);
        told.extend(Some(outcome.message).filter(|text| !text.is_empty()));
        if !matches!(outcome.nomination, Nomination::Keep) {
            nomination = outcome.nomination;
        }
        if matches!(nomination, Nomination::Make { .. } | Nomination::Choose(_)) {
            break;
        }
    }
    (told.join(", "), nomination)
}

/// What comes of a pod that plugins turned away from the node that had been found for it.
fn turned_away(rejectors: PluginSet, status: &Status) -> NoPlace {
    match status.code {
        Code::Error => NoPlace::new(Failure::Error, status.message()),
        _ => {
            let message = format!("0/1 nodes are available: 1 {}.", status.message());
            NoPlace::new(Failure::Rejected(rejectors), message)
        }
    }
}

// === impl Engine: events ===

impl Engine {
    /// A pod appeared or changed. Undecodable pods are skipped: they cannot be stored.
    pub fn on_pod(&mut self, object: &Object, now: Instant) {
        let Ok(pod) = object.view::<Pod>() else { return };
        if pod.is_terminal() {
            self.on_pod_gone(&pod.metadata.uid, now);
        } else if !pod.spec.node_name.is_empty() {
            self.on_bound_pod(PodInfo::new(pod, object.revision()), now);
        } else if self.profiles.named(&pod.spec.scheduler_name).is_some()
            && !self.cache.is_assumed(&pod.metadata.uid)
        {
            self.on_pending_pod(Arc::new(PodInfo::new(pod, object.revision())), now);
        }
    }

    fn on_pending_pod(&mut self, pod: Arc<PodInfo>, now: Instant) {
        // Our own nomination shows in the pod only later; until then an unchanged field says nothing.
        let known = self.queue.pod(pod.uid()).map(|known| known.pod.status.nominated_node_name.clone());
        let nominated = &pod.pod.status.nominated_node_name;
        if known.unwrap_or_default() != *nominated {
            match nominated.is_empty() {
                true => self.cache.clear_nomination(pod.uid()),
                false => self.cache.nominate(pod.clone(), nominated),
            }
        }
        let is_new = self.queue.pod(pod.uid()).is_none();
        let helps = self.joins_ready_group(&pod) && is_new;
        self.queue.upsert(pod.clone(), now);
        if helps {
            self.queue.on_event(&Event::PodAdded(&pod), now);
        }
    }

    /// Notes that a pod waits, and says whether its group has enough of them now. Before that, others of the group have
    /// nothing from one more: asking all of them each time would cost the square of their number.
    fn joins_ready_group(&self, pod: &PodInfo) -> bool {
        let Some((groups, key)) = self.groups.as_ref().zip(GroupKey::of(pod)) else { return false };
        groups.note(pod, false);
        groups.not_ready(&key).is_none()
    }

    /// A pod was deleted or has ended.
    pub fn on_pod_gone(&mut self, uid: &str, now: Instant) {
        let queued = self.queue.remove(uid);
        self.waiting.forget(uid);
        self.cache.clear_nomination(uid);
        let placed = self.cache.remove_pod(uid);
        if let Some(groups) = &self.groups {
            placed.iter().chain(&queued).for_each(|pod| groups.forget(pod));
            groups.pod_gone(uid);
        }
        if let Some(pod) = placed {
            self.queue.on_event(&Event::AssignedPodDeleted(&pod), now);
        }
    }

    fn on_bound_pod(&mut self, pod: PodInfo, now: Instant) {
        let pod = Arc::new(pod);
        self.queue.remove(pod.uid());
        if let Some(groups) = &self.groups {
            groups.note(&pod, true);
        }
        let was_assumed = self.cache.is_assumed(pod.uid());
        match self.cache.upsert_pod(pod.clone()) {
            Some(old) if !was_assumed => {
                self.queue.on_event(&Event::AssignedPodUpdated { old: &old, new: &pod }, now)
            }
            _ => self.queue.on_event(&Event::PodAssigned(&pod), now),
        }
    }

    /// A node appeared or changed.
    pub fn on_node(&mut self, object: &Object, now: Instant) {
        let Ok(node) = object.view::<Node>() else { return };
        match self.cache.node_state(&node.metadata.name) {
            None => {
                self.cache.upsert_node(node.clone());
                self.queue.on_event(&Event::NodeAdded(&node), now);
            }
            Some(old) => {
                if matters(&old, &node) {
                    self.cache.upsert_node(node.clone());
                }
                self.queue.on_event(&Event::NodeUpdated { old: &old, new: &node }, now);
            }
        }
    }

    pub fn on_node_gone(&mut self, name: &str, now: Instant) {
        if let Some(node) = self.cache.remove_node(name) {
            self.queue.on_event(&Event::NodeDeleted(&node), now);
        }
    }

    /// A namespace appeared or changed: affinity terms may select it by label.
    pub fn on_namespace(&mut self, object: &Object) {
        let labels = object.labels().map(|(key, value)| (key.into(), value.into())).collect();
        self.cache.set_namespace(object.name(), labels);
    }

    pub fn on_namespace_gone(&mut self, name: &str) {
        self.cache.remove_namespace(name);
    }

    /// A PodDisruptionBudget appeared or changed: preemption prefers victims that it allows.
    pub fn on_budget(&mut self, object: &Object) {
        if let Ok(budget) = object.view::<PodDisruptionBudget>() {
            self.cache.set_budget(object.namespace(), object.name(), Budget::new(&budget));
        }
    }

    pub fn on_budget_gone(&mut self, namespace: &str, name: &str) {
        self.cache.remove_budget(namespace, name);
    }

    /// An object of a resource that some plugin waits for appeared (without `old`), changed, or is gone (without `new`).
    pub fn on_object(&mut self, watched: &Watched, old: Option<&Object>, new: Option<&Object>, now: Instant) {
        let event = Event::Object { resource: &watched.resource, old, new };
        self.profiles.iter().for_each(|profile| profile.on_object(&event));
        self.queue.on_event(&event, now);
    }

    /// Objects of such a resource were read anew.
    pub fn on_objects(&mut self, watched: &Watched, objects: &[Arc<Object>], now: Instant) {
        self.profiles.iter().for_each(|profile| profile.on_objects(watched, objects));
        self.queue.on_resync(now);
    }

    /// Pods were read anew: what is not among them is gone.
    pub fn on_pods(&mut self, pods: &[Arc<Object>], now: Instant) {
        let present: std::collections::HashSet<&str> = pods.iter().map(|pod| pod.uid()).collect();
        let known = self.queue.uids().chain(self.cache.confirmed_pods());
        let gone: Vec<Str> = known.filter(|uid| !present.contains(uid.as_str())).cloned().collect();
        gone.iter().for_each(|uid| self.on_pod_gone(uid, now));
        pods.iter().for_each(|pod| self.on_pod(pod, now));
        self.queue.on_resync(now);
    }

    /// Nodes were read anew.
    pub fn on_nodes(&mut self, nodes: &[Arc<Object>], now: Instant) {
        let present: std::collections::HashSet<&str> = nodes.iter().map(|node| node.name()).collect();
        let gone: Vec<Str> =
            self.cache.node_names().filter(|name| !present.contains(name.as_str())).cloned().collect();
        gone.iter().for_each(|name| self.on_node_gone(name, now));
        nodes.iter().for_each(|node| self.on_node(node, now));
        self.queue.on_resync(now);
    }
}

/// On the node where it costs least.
fn make_room(candidates: &[Candidate]) -> Nomination {
    match cheapest(candidates) {
        Some(Candidate { node, victims, .. }) => {
            Nomination::Make { node: node.clone(), victims: victims.clone() }
        }
        None => Nomination::Keep,
    }
}

/// Refuses the nodes that an opinion leaves out, in its words.
fn heed(shortlist: &mut Shortlist, plugin: PluginId, opinion: &Opinion, name: impl Fn(Slot) -> Option<Str>) {
    let feasible: Vec<Slot> = shortlist.feasible().collect();
    for slot in feasible {
        let Some(node) = name(slot).filter(|node| !opinion.scores.contains_key(node)) else { continue };
        let wordless = || Status { code: Code::UnschedulableAndUnresolvable, reasons: Default::default() };
        let status = opinion.refusals.get(&node).cloned().unwrap_or_else(wordless);
        shortlist.refuse(slot, plugin, status);
    }
}

/// Anything but a heartbeat changed: placements may differ.
fn matters(old: &Node, new: &Node) -> bool {
    old.spec != new.spec
        || old.metadata.labels != new.metadata.labels
        || old.status.allocatable != new.status.allocatable
        || old.status.images != new.status.images
        || old.status.declared_features != new.status.declared_features
}

#[cfg(test)]
mod tests;
