//! How large each ReplicaSet of a Deployment is to be. Pure: functions change the sizes in a [`Fleet`].

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use api::view::{Deployment, ReplicaSet};
use apimachinery::{Object, Status, Str, Value};
use client::typed::view;

use super::revision::{self, DESIRED_REPLICAS, MAX_REPLICAS};

/// A ReplicaSet and what it is to become.
#[derive(Clone, Debug)]
pub(super) struct Set {
    pub(super) object: Arc<Object>,
    pub(super) view: Arc<ReplicaSet>,
    pub(super) replicas: i32,
    pub(super) min_ready_seconds: i32,
    pub(super) annotations: BTreeMap<Str, Str>,
    /// A plan looked at this set's size, so its size annotations are refreshed even if the size stays.
    pub(super) sizes_noted: bool,
}

/// The ReplicaSets of a Deployment.
#[derive(Clone, Debug, Default)]
pub(super) struct Fleet {
    /// That of the present template.
    pub(super) new: Option<Set>,
    /// All others, oldest first.
    pub(super) old: Vec<Set>,
}

// === impl Set ===

impl Set {
    pub(super) fn read(object: Arc<Object>) -> Result<Self, Status> {
        let view = view::<ReplicaSet>(&object)?;
        Ok(Self {
            replicas: view.spec.replicas.unwrap_or(1),
            min_ready_seconds: view.spec.min_ready_seconds,
            annotations: view
                .metadata
                .annotations
                .iter()
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
            sizes_noted: false,
            object,
            view,
        })
    }

    /// The size as stored.
    pub(super) fn actual_replicas(&self) -> i32 {
        self.view.spec.replicas.unwrap_or(1)
    }

    pub(super) fn is_resized(&self) -> bool {
        self.replicas != self.actual_replicas()
    }

    pub(super) fn is_changed(&self) -> bool {
        self.is_resized()
            || self.min_ready_seconds != self.view.spec.min_ready_seconds
            || !self.view.metadata.annotations.iter().eq(&self.annotations)
    }

    /// The tree to write; conditional on the version that was read.
    pub(super) fn to_value(&self) -> Value {
        let mut tree = self.object.to_value();
        tree.set_at(&["spec", "replicas"], self.replicas);
        if self.min_ready_seconds != self.view.spec.min_ready_seconds {
            tree.set_at(&["spec", "minReadySeconds"], self.min_ready_seconds);
        }
        for (key, value) in &self.annotations {
            tree.set_at(&["metadata", "annotations", key], value.clone());
        }
        tree
    }

    /// The write was accepted.
    pub(super) fn updated(&mut self, object: Arc<Object>) -> Result<(), Status> {
        *self = Self { sizes_noted: self.sizes_noted, ..Self::read(object)? };
        Ok(())
    }

    fn available(&self) -> i32 {
        self.view.status.available_replicas
    }

    fn annotation(&self, key: &str) -> Option<i32> {
        self.annotations.get(key)?.parse().ok()
    }
}

// === impl Fleet ===

impl Fleet {
    /// The oldest ReplicaSet with the present template is the new one; should there be more, the rest are old.
    pub(super) fn of(deployment: &Deployment, mut sets: Vec<Set>) -> Self {
        sets.sort_by(|a, b| age(a).cmp(&age(b)));
        let template = &deployment.spec.template;
        let new = sets.iter().position(|set| set.view.spec.template.equal_ignoring_hash(template));
        Self { new: new.map(|at| sets.remove(at)), old: sets }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Set> {
        self.old.iter().chain(&self.new)
    }

    /// Pods that all ReplicaSets together are to have.
    pub(super) fn total(&self) -> i32 {
        self.all().map(|set| set.replicas).sum()
    }

    fn available(&self) -> i32 {
        self.all().map(Set::available).sum()
    }

    fn note_sizes(&mut self) {
        self.old.iter_mut().chain(&mut self.new).for_each(|set| set.sizes_noted = true);
    }
}

/// Oldest first; names decide between equals.
fn age(set: &Set) -> (&str, &str) {
    (set.object.creation_timestamp(), set.object.name())
}

// === Limits ===

fn replicas(deployment: &Deployment) -> i32 {
    deployment.spec.replicas.unwrap_or(1)
}

/// Pods that may exist beyond `spec.replicas` during a rolling update.
pub(super) fn max_surge(deployment: &Deployment) -> i32 {
    if is_rolling(deployment) { fenceposts(deployment).0 } else { 0 }
}

/// Pods that may be missing during a rolling update.
pub(super) fn max_unavailable(deployment: &Deployment) -> i32 {
    if !is_rolling(deployment) || replicas(deployment) == 0 {
        return 0;
    }
    fenceposts(deployment).1.min(replicas(deployment))
}

fn is_rolling(deployment: &Deployment) -> bool {
    deployment.spec.strategy.type_ == "RollingUpdate"
}

/// Surge is rounded up and unavailability down; if both come out as nothing, one pod may be missing, or a rollout
/// could never move.
fn fenceposts(deployment: &Deployment) -> (i32, i32) {
    let rolling = deployment.spec.strategy.rolling_update.as_ref();
    let total = replicas(deployment);
    let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref()?.scaled(total, true)).unwrap_or(0);
    let missing =
        rolling.and_then(|rolling| rolling.max_unavailable.as_ref()?.scaled(total, false)).unwrap_or(0);
    if surge == 0 && missing == 0 { (0, 1) } else { (surge, missing) }
}

/// The size of the new ReplicaSet, which has `own` of `total` pods.
pub(super) fn new_replicas(deployment: &Deployment, total: i32, own: i32) -> i32 {
    if !is_rolling(deployment) {
        return replicas(deployment);
    }
    let room = replicas(deployment) + max_surge(deployment) - total;
    if room <= 0 { own } else { own + room.min(replicas(deployment) - own) }
}

// === Rolling update ===

/// Takes the new ReplicaSet as far up as the surge allows, or down when it is too large. True when it changed.
pub(super) fn grow_new(deployment: &Deployment, fleet: &mut Fleet) -> bool {
    let total = fleet.total();
    let Some(new) = &mut fleet.new else { return false };
    let wanted = replicas(deployment);
    let size = if new.replicas > wanted { wanted } else { new_replicas(deployment, total, new.replicas) };
    std::mem::replace(&mut new.replicas, size) != size
}

/// Takes old ReplicaSets down: first what is not healthy, then as much as availability allows. True when any changed.
pub(super) fn shrink_old(deployment: &Deployment, fleet: &mut Fleet) -> bool {
    if fleet.old.iter().all(|set| set.replicas == 0) {
        return false;
    }
    let min_available = replicas(deployment) - max_unavailable(deployment);
    let new_unavailable = fleet.new.as_ref().map_or(0, |new| new.replicas - new.available());
    let most = fleet.total() - min_available - new_unavailable;
    if most <= 0 {
        return false;
    }
    let mut spare = most;
    for set in &mut fleet.old {
        let unhealthy = (set.replicas - set.available()).clamp(0, spare);
        set.replicas -= unhealthy;
        spare -= unhealthy;
    }
    let mut surplus = (fleet.available() - min_available).max(0);
    let unhealthy_gone = most - spare;
    let mut healthy_gone = 0;
    for set in &mut fleet.old {
        let gone = set.replicas.min(surplus);
        set.replicas -= gone;
        surplus -= gone;
        healthy_gone += gone;
    }
    unhealthy_gone + healthy_gone > 0
}

// === Recreate ===

/// All old ReplicaSets to nothing. True when any changed.
pub(super) fn stop_old(fleet: &mut Fleet) -> bool {
    let active = fleet.old.iter_mut().filter(|set| set.replicas > 0);
    active.map(|set| set.replicas = 0).count() > 0
}

pub(super) fn fill_new(deployment: &Deployment, fleet: &mut Fleet) {
    if let Some(new) = &mut fleet.new {
        new.replicas = replicas(deployment);
    }
}

// === Scaling ===

/// `spec.replicas` is not what the ReplicaSets in use were last sized for.
pub(super) fn is_scaling_event(deployment: &Deployment, fleet: &Fleet) -> bool {
    let mut desired =
        fleet.all().filter(|set| set.replicas > 0).filter_map(|set| set.annotation(DESIRED_REPLICAS));
    desired.any(|desired| desired != replicas(deployment))
}

/// Fits the ReplicaSets to a new `spec.replicas`: the only one in use directly; old ones to nothing once the new one
/// is complete; in the middle of a rolling update all of them in proportion, so that no single one takes the risk.
pub(super) fn scale(deployment: &Deployment, fleet: &mut Fleet) {
    fleet.note_sizes();
    if let Some(only) = active_or_latest(fleet) {
        only.replicas = replicas(deployment);
        return;
    }
    if fleet.new.as_ref().is_some_and(|new| is_saturated(deployment, new)) {
        stop_old(fleet);
        return;
    }
    if is_rolling(deployment) {
        scale_in_proportion(deployment, fleet);
    }
}

/// The ReplicaSet in use when there is at most one; with none, the new one, or the youngest.
fn active_or_latest(fleet: &mut Fleet) -> Option<&mut Set> {
    match fleet.all().filter(|set| set.replicas > 0).count() {
        0 if fleet.new.is_some() => fleet.new.as_mut(),
        0 => fleet.old.last_mut(),
        1 => fleet.old.iter_mut().chain(&mut fleet.new).find(|set| set.replicas > 0),
        _ => None,
    }
}

fn is_saturated(deployment: &Deployment, new: &Set) -> bool {
    let wanted = replicas(deployment);
    new.replicas == wanted && new.annotation(DESIRED_REPLICAS) == Some(wanted) && new.available() == wanted
}

fn scale_in_proportion(deployment: &Deployment, fleet: &mut Fleet) {
    let total = fleet.total();
    let allowed = if replicas(deployment) > 0 { replicas(deployment) + max_surge(deployment) } else { 0 };
    let to_add = allowed - total;
    let mut active: Vec<&mut Set> =
        fleet.old.iter_mut().chain(&mut fleet.new).filter(|set| set.replicas > 0).collect();
    // The largest first. Growing favours the younger of equals, shrinking the older.
    active.sort_by(|a, b| age(a).cmp(&age(b)));
    if to_add > 0 {
        active.reverse();
    }
    active.sort_by_key(|set| Reverse(set.replicas));
    let mut added = 0;
    for set in &mut active {
        let part = proportion(deployment, set, to_add, added);
        set.replicas += part;
        added += part;
    }
    if let Some(largest) = active.first_mut() {
        largest.replicas = (largest.replicas + to_add - added).max(0);
    }
}

/// This set's share of `to_add` pods, of which `added` are given out already.
fn proportion(deployment: &Deployment, set: &Set, to_add: i32, added: i32) -> i32 {
    if set.replicas == 0 || to_add == 0 || to_add == added {
        return 0;
    }
    let share = fraction(deployment, set);
    let left = to_add - added;
    if to_add > 0 { share.min(left) } else { share.max(left) }
}

/// How much the set would change if it kept its part of the whole.
fn fraction(deployment: &Deployment, set: &Set) -> i32 {
    if replicas(deployment) == 0 {
        return -set.replicas;
    }
    let most = i64::from(replicas(deployment) + max_surge(deployment));
    let most_before = match set.annotation(MAX_REPLICAS) {
        Some(noted) if noted != 0 => noted,
        _ => deployment.status.replicas,
    };
    if most_before == 0 {
        return 0;
    }
    let exact = (i64::from(set.replicas) * most) as f64 / f64::from(most_before);
    exact.round() as i32 - set.replicas
}

// === History ===

/// Old ReplicaSets to delete: those of the lowest revisions beyond the limit, as far as they are at rest.
pub(super) fn beyond_history<'a>(deployment: &Deployment, old: &'a [Set]) -> Vec<&'a Set> {
    let Some(limit) = deployment.spec.revision_history_limit.filter(|limit| *limit != i32::MAX) else {
        return Vec::new();
    };
    let mut alive: Vec<&Set> = old.iter().filter(|set| !set.object.is_deleting()).collect();
    let surplus = alive.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    alive.sort_by_key(|set| revision::of(&set.annotations).unwrap_or_default());
    let at_rest = |set: &&Set| {
        set.replicas == 0
            && set.actual_replicas() == 0
            && set.view.status.replicas == 0
            && set.object.generation() <= set.view.status.observed_generation
    };
    alive.into_iter().take(surplus).filter(at_rest).collect()
}
