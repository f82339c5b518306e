//! Pods that wait to be scheduled.
//!
//! Owns: [`Queue`]: which pod is next, who waits for what, and for how long. Never touches: nodes, the API, clocks
//! (every call says what time it is).
//!
//! ```text
//!     add ──> gated? ──> gated ──(pod changed,──┐
//!               │            or event that helps)
//!               │                               v
//!               └─────────────────────────> active ──pop──> in flight ──bound──> (gone)
//!                                              ^                │ rejected by plugins
//!             back-off over, or nothing active │                v
//!                    backing off <──(event that helps)── unschedulable
//!                         ^                                (at most 5 minutes)
//!                         └──(failed with an error)── in flight
//! ```
//!
//! Why is there no list of events that happened while a pod was in flight, as upstream has? Placing a pod is one
//! synchronous step of the task that also handles events, so none can come in between. Where others are asked about
//! the pod, it is tried again if anything happened meanwhile. What happens later, while binding, fails with an error and
//! backs off, which loses no event.

mod heap;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use apimachinery::Str;
use rt::Instant;

use crate::framework::{Event, PluginSet, Profile, ProfileId, Profiles};
use crate::pod::PodInfo;
use heap::Heap;

/// How long a pod that could not be scheduled is left alone: at first, and at most after doubling with every failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    pub initial: Duration,
    pub max: Duration,
}

/// Upstream's defaults.
pub const BACKOFF_INITIAL: Duration = Duration::from_secs(1);
pub const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// A pod that no event helped is tried again after this long.
pub const UNSCHEDULABLE_MAX: Duration = Duration::from_secs(300);

/// What moves a pod that found no place, in metrics.
const ATTEMPT_FAILED: &str = "ScheduleAttemptFailure";

/// A pod in the queue with its history.
#[derive(Debug)]
pub struct QueuedPod {
    pub pod: Arc<PodInfo>,
    /// When it last entered the queue.
    pub queued_at: Instant,
    /// Times it was popped.
    pub attempts: u32,
    /// Times plugins rejected it.
    pub rejections: u32,
    /// Errors since the last attempt that ended without one.
    pub errors: u32,
    /// Who rejected it last, or keeps it out.
    pub rejectors: PluginSet,
}

/// How an attempt ended that did not place the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Plugins rejected the pod: it waits for an event that they wait for. An empty set waits for time only.
    Rejected(PluginSet),
    /// Something failed: it is tried again after a back-off.
    Error,
}

/// Where a pod of the queue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Active,
    BackingOff,
    Unschedulable,
    Gated,
    InFlight,
}

/// The scheduling queue of all profiles.
pub struct Queue {
    profiles: Profiles,
    backoff: Backoff,
    events: u64,
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    by_uid: HashMap<Str, u32>,
    active: Heap,
    backing_off: Heap,
    /// When each pod in `Unschedulable` is to be tried again at the latest.
    unschedulable: BTreeSet<(Instant, u32)>,
    gated: BTreeSet<u32>,
    /// Unschedulable and gated pods that each plugin of each profile rejected, so that an event nobody waits for costs
    /// nothing.
    rejected_by: Vec<[usize; PluginSet::CAPACITY]>,
}

#[derive(Debug)]
struct Entry {
    queued: QueuedPod,
    profile: ProfileId,
    place: Place,
    /// When back-off ends, or when an unschedulable pod is tried again.
    due: Instant,
}

// === impl QueuedPod ===

impl QueuedPod {
    /// Some event may have helped it. One of a group has all of that tried again, which is not done for every event.
    fn need_not_back_off(&self) -> bool {
        !self.rejectors.is_empty() && self.pod.pod.spec.scheduling_group.is_none()
    }
}

// === impl Queue ===

impl Queue {
    pub fn new(profiles: Profiles, backoff: Backoff) -> Self {
        Self {
            backoff,
            events: 0,
            entries: Vec::new(),
            free: Vec::new(),
            by_uid: HashMap::new(),
            active: Heap::default(),
            backing_off: Heap::default(),
            unschedulable: BTreeSet::new(),
            gated: BTreeSet::new(),
            rejected_by: vec![[0; PluginSet::CAPACITY]; profiles.len()],
            profiles,
        }
    }

    pub fn len(&self) -> usize {
        self.by_uid.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many pods are in each place: active, backing off, unschedulable, gated.
    pub fn lens(&self) -> [usize; 4] {
        [self.active.len(), self.backing_off.len(), self.unschedulable.len(), self.gated.len()]
    }

    pub fn place(&self, uid: &str) -> Option<Place> {
        self.by_uid.get(uid).map(|&slot| self.entry(slot).place)
    }

    /// The last known state of a pod.
    pub fn pod(&self, uid: &str) -> Option<&Arc<PodInfo>> {
        self.by_uid.get(uid).map(|&slot| &self.entry(slot).queued.pod)
    }

    pub fn uids(&self) -> impl Iterator<Item = &Str> {
        self.by_uid.keys()
    }

    /// Adds a pod, or takes note of its new state. A change that may let it be scheduled moves it. A pod of no profile is
    /// none of ours.
    pub fn upsert(&mut self, pod: Arc<PodInfo>, now: Instant) {
        match self.by_uid.get(pod.uid()).copied() {
            None => self.add(pod, now),
            Some(slot) => self.update(slot, pod, now),
        }
    }

    /// Forgets a pod wherever it is.
    pub fn remove(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let slot = self.by_uid.remove(uid)?;
        self.leave(slot);
        self.free.push(slot);
        self.entries[slot as usize].take().map(|entry| entry.queued.pod)
    }

    /// The next pod; it is in flight until [`Queue::remove`] or [`Queue::fail`]. When nothing is active, a pod that
    /// some event may have helped need not sit out its back-off.
    pub fn pop(&mut self, now: Instant) -> Option<Arc<PodInfo>> {
        self.flush(now);
        let slot = match self.active.peek() {
            Some(slot) => slot,
            None => self.backing_off.peek().filter(|&slot| self.entry(slot).queued.need_not_back_off())?,
        };
        Some(self.take_out(slot))
    }

    /// Takes a certain pod as [`Queue::pop`] takes the next; `None` when it is gated or in flight.
    pub fn take(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let slot = *self.by_uid.get(uid)?;
        let waits =
            matches!(self.entry(slot).place, Place::Active | Place::BackingOff | Place::Unschedulable);
        waits.then(|| self.take_out(slot))
    }

    fn take_out(&mut self, slot: u32) -> Arc<PodInfo> {
        self.leave(slot);
        let entry = self.entry_mut(slot);
        entry.place = Place::InFlight;
        entry.queued.attempts += 1;
        entry.queued.pod.clone()
    }

    /// Takes back a pod that was popped and found no place, with why.
    pub fn fail(&mut self, uid: &str, failure: Failure, now: Instant) {
        let Some(&slot) = self.by_uid.get(uid) else { return };
        let entry = self.entry_mut(slot);
        if entry.place != Place::InFlight {
            return;
        }
        let queued = &mut entry.queued;
        queued.queued_at = now;
        match failure {
            Failure::Rejected(rejectors) => {
                queued.rejections += 1;
                queued.errors = 0;
                queued.rejectors = rejectors;
                self.enter_unschedulable(slot, now);
            }
            Failure::Error => {
                queued.errors += 1;
                queued.rejectors = PluginSet::default();
                self.enter_back_off(slot, ATTEMPT_FAILED, now);
            }
        }
    }

    /// How many events there were.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Moves the pods that an event may help.
    pub fn on_event(&mut self, event: &Event<'_>, now: Instant) {
        self.events += 1;
        if self.unschedulable.is_empty() && self.gated.is_empty() {
            return;
        }
        let kinds = event.kinds();
        let interested: Vec<PluginSet> = self
            .profiles
            .iter()
            .map(|profile| self.rejecting(profile).and(profile.interested_in(kinds)))
            .collect();
        if interested.iter().all(|plugins| plugins.is_empty()) {
            return;
        }
        let helped = |slot: &u32| {
            let Entry { queued, profile, .. } = self.entry(*slot);
            let asked = queued.rejectors.and(interested[*profile]);
            !asked.is_empty()
                && self.profiles.at(*profile).is_worth_requeuing(&queued.pod, asked, event, kinds)
        };
        let helped: Vec<u32> = self.waiting().filter(helped).collect();
        if !helped.is_empty() {
            let cause = event.name();
            helped.into_iter().for_each(|slot| self.requeue(slot, &cause, now));
        }
    }

    /// Pods that wait for an event.
    fn waiting(&self) -> impl Iterator<Item = u32> {
        self.unschedulable.iter().map(|&(_, slot)| slot).chain(self.gated.iter().copied())
    }

    /// The profile's plugins because of which some pod waits.
    fn rejecting(&self, profile: &Profile) -> PluginSet {
        let counts = (0..).zip(&self.rejected_by[profile.id()]);
        counts.filter(|(_, pods)| **pods > 0).map(|(plugin, _)| plugin).collect()
    }

    /// Moves one unschedulable pod: something happened while it was judged.
    pub fn wake(&mut self, uid: &str, now: Instant) {
        if let Some(&slot) = self.by_uid.get(uid)
            && self.entry(slot).place == Place::Unschedulable
        {
            self.requeue(slot, "InFlightEvent", now);
        }
    }

    /// Moves every unschedulable pod, whatever it waits for: after the world was read anew.
    pub fn on_resync(&mut self, now: Instant) {
        let all: Vec<u32> = self.waiting().collect();
        all.into_iter().for_each(|slot| self.requeue(slot, "Resync", now));
    }

    /// When [`Queue::pop`] may have something without anything else happening; `None` for never.
    pub fn next_due(&self) -> Option<Instant> {
        let backing_off = self.backing_off.peek().map(|slot| self.entry(slot).due);
        let unschedulable = self.unschedulable.first().map(|&(due, _)| due);
        backing_off.into_iter().chain(unschedulable).min()
    }

    fn flush(&mut self, now: Instant) {
        while let Some(slot) = self.backing_off.peek().filter(|&slot| self.entry(slot).due <= now) {
            self.activate(slot, "BackoffComplete", now);
        }
        while let Some(&(_, slot)) = self.unschedulable.first().filter(|(due, _)| *due <= now) {
            self.requeue(slot, "UnschedulableTimeout", now);
        }
    }

    fn add(&mut self, pod: Arc<PodInfo>, now: Instant) {
        let Some(profile) = self.profiles.of(&pod).map(Profile::id) else { return };
        let uid = pod.uid().clone();
        let queued = QueuedPod {
            pod,
            queued_at: now,
            attempts: 0,
            rejections: 0,
            errors: 0,
            rejectors: PluginSet::default(),
        };
        let entry = Some(Entry { queued, profile, place: Place::InFlight, due: now });
        let slot = match self.free.pop() {
            Some(slot) => {
                self.entries[slot as usize] = entry;
                slot
            }
            None => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
        };
        self.by_uid.insert(uid, slot);
        self.activate(slot, "UnschedulablePodAdd", now);
    }

    fn update(&mut self, slot: u32, pod: Arc<PodInfo>, now: Instant) {
        let entry = self.entry_mut(slot);
        let place = entry.place;
        if place == Place::Active {
            // Its priority may have changed: take it out while the heap's order still holds.
            self.leave(slot);
        }
        let old = std::mem::replace(&mut self.entry_mut(slot).queued.pod, pod.clone());
        match place {
            Place::Active | Place::Gated => self.activate(slot, "UnschedulablePodUpdate", now),
            Place::Unschedulable => {
                let event = Event::PodUpdated { old: &old, new: &pod };
                let Entry { queued, profile, .. } = self.entry(slot);
                let profile = self.profiles.at(*profile);
                if profile.is_worth_requeuing(&pod, queued.rejectors, &event, event.kinds()) {
                    self.requeue(slot, &event.name(), now);
                }
            }
            Place::BackingOff | Place::InFlight => {}
        }
    }

    /// To active if its back-off is over, else to back-off.
    fn requeue(&mut self, slot: u32, cause: &str, now: Instant) {
        if self.backoff.end(&self.entry(slot).queued) > now {
            self.leave(slot);
            self.enter_back_off(slot, cause, now);
        } else {
            self.activate(slot, cause, now);
        }
    }

    /// To active, or to gated if a `PreEnqueue` plugin says so.
    fn activate(&mut self, slot: u32, cause: &str, now: Instant) {
        self.leave(slot);
        let entry = self.entry(slot);
        if let Some(gate) = self.profiles.at(entry.profile).gate(&entry.queued.pod) {
            self.enter_gated(slot, PluginSet::from_iter([gate]), cause);
            return;
        }
        let entry = self.entry_mut(slot);
        entry.place = Place::Active;
        if entry.queued.attempts == 0 {
            // Time spent gated is not time spent in the queue.
            entry.queued.queued_at = now;
        }
        count_incoming("active", cause);
        let Self { active, entries, profiles, .. } = self;
        let sort = profiles.queue_sort();
        active.push(slot, |a, b| sort.less(&queued(entries, a).queued, &queued(entries, b).queued));
    }

    fn enter_gated(&mut self, slot: u32, gate: PluginSet, cause: &str) {
        count_incoming("gated", cause);
        let entry = self.entry_mut(slot);
        entry.place = Place::Gated;
        entry.queued.rejectors = gate;
        self.gated.insert(slot);
        self.count_rejectors(slot, |count| *count += 1);
    }

    fn enter_back_off(&mut self, slot: u32, cause: &str, now: Instant) {
        count_incoming("backoff", cause);
        let backoff = self.backoff;
        let entry = self.entry_mut(slot);
        entry.place = Place::BackingOff;
        entry.due = backoff.end(&entry.queued).max(now);
        let Self { backing_off, entries, .. } = self;
        backing_off.push(slot, |a, b| queued(entries, a).due < queued(entries, b).due);
    }

    fn enter_unschedulable(&mut self, slot: u32, now: Instant) {
        count_incoming("unschedulable", ATTEMPT_FAILED);
        let entry = self.entry_mut(slot);
        entry.place = Place::Unschedulable;
        entry.due = now + UNSCHEDULABLE_MAX;
        let due = entry.due;
        self.unschedulable.insert((due, slot));
        self.count_rejectors(slot, |count| *count += 1);
    }

    /// Out of whatever structure its place is in.
    fn leave(&mut self, slot: u32) {
        let Self { active, backing_off, unschedulable, gated, entries, profiles, .. } = self;
        let entry = queued(entries, slot);
        match entry.place {
            Place::Active => {
                let sort = profiles.queue_sort();
                active.remove(slot, |a, b| sort.less(&queued(entries, a).queued, &queued(entries, b).queued));
            }
            Place::BackingOff => {
                backing_off.remove(slot, |a, b| queued(entries, a).due < queued(entries, b).due)
            }
            Place::Unschedulable => {
                unschedulable.remove(&(entry.due, slot));
                self.count_rejectors(slot, |count| *count -= 1);
            }
            Place::Gated => {
                gated.remove(&slot);
                self.count_rejectors(slot, |count| *count -= 1);
            }
            Place::InFlight => {}
        }
        self.entry_mut(slot).place = Place::InFlight;
    }

    /// Counts a waiting pod for those who rejected it.
    fn count_rejectors(&mut self, slot: u32, change: impl Fn(&mut usize)) {
        let Self { entries, rejected_by, .. } = self;
        let entry = queued(entries, slot);
        let counts = (0..).zip(&mut rejected_by[entry.profile]);
        let of_rejectors = counts.filter(|(plugin, _)| entry.queued.rejectors.contains(*plugin));
        of_rejectors.for_each(|(_, count)| change(count));
    }

    fn entry(&self, slot: u32) -> &Entry {
        queued(&self.entries, slot)
    }

    fn entry_mut(&mut self, slot: u32) -> &mut Entry {
        self.entries[slot as usize].as_mut().expect("slots of indexes are filled")
    }
}

fn count_incoming(queue: &str, cause: &str) {
    telemetry::metrics().scheduler.incoming_pods(queue, cause);
}

fn queued(entries: &[Option<Entry>], slot: u32) -> &Entry {
    entries[slot as usize].as_ref().expect("slots of indexes are filled")
}

// === impl Backoff ===

impl Default for Backoff {
    fn default() -> Self {
        Self { initial: BACKOFF_INITIAL, max: BACKOFF_MAX }
    }
}

impl Backoff {
    /// Doubles with every failure of the same sort.
    fn end(self, queued: &QueuedPod) -> Instant {
        let failures = if queued.errors > 0 { queued.errors } else { queued.rejections };
        let duration = match failures {
            0 => Duration::ZERO,
            count => self.initial.saturating_mul(1 << (count - 1).min(16)).min(self.max),
        };
        queued.queued_at + duration
    }
}

#[cfg(test)]
mod tests;
