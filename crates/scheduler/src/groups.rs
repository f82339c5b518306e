//! Groups of pods that are scheduled together.
//!
//! Owns: [`Groups`]: what each PodGroup asks for, which pods are in it, and which of those have a node. Never touches:
//! nodes, the queue, the API.
//!
//! One value is shared by the engine, which keeps it in step with its cache, and by the plugin `GangScheduling`, which
//! keeps pods out of the active queue until their gang is there. Both run in the scheduling task, so that nobody waits
//! for the lock.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use api::view::PodGroup;
use apimachinery::{Object, Str};
use parking_lot::Mutex;

use crate::pod::PodInfo;

/// Namespace and name of a PodGroup.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GroupKey {
    pub namespace: Str,
    pub name: Str,
}

/// What of groups is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupFeatures {
    /// Gangs are placed all or none; otherwise their policy is as good as the basic one. Gate `GangScheduling`.
    pub gangs: bool,
    /// Groups may have to stay in one topology domain. Gate `TopologyAwareWorkloadScheduling`.
    pub topology: bool,
}

/// The groups of a cluster. Cloning shares them.
#[derive(Clone, Default)]
pub struct Groups {
    features: GroupFeatures,
    known: Arc<Mutex<HashMap<GroupKey, Known>>>,
}

/// A group of which there are pods, or the object, or both.
#[derive(Default)]
struct Known {
    object: Option<Arc<PodGroup>>,
    /// Pods by uid, and whether they have a node: bound or about to be.
    members: HashMap<Str, bool>,
    /// Pods that are evicted for it and are not gone yet.
    victims: HashSet<Str>,
    /// The one of them that went last.
    last_victim: Option<Str>,
}

/// What a group asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Pods that have to have a node before any may be bound; one unless it is a gang.
    pub min_count: usize,
    /// The label of nodes that has to be the same for all pods.
    pub topology_key: Option<Str>,
}

// === impl GroupKey ===

impl GroupKey {
    /// The group that a pod says it is in.
    pub fn of(pod: &PodInfo) -> Option<Self> {
        let group = pod.pod.spec.scheduling_group.as_ref()?;
        Some(Self { namespace: pod.namespace().clone(), name: group.pod_group_name.clone() })
    }

    pub fn of_object(object: &Object) -> Self {
        Self { namespace: object.namespace().into(), name: object.name().into() }
    }
}

// === impl Groups ===

impl Groups {
    pub fn new(features: GroupFeatures) -> Self {
        Self { features, known: Arc::default() }
    }

    pub fn features(&self) -> GroupFeatures {
        self.features
    }

    /// A PodGroup appeared or changed.
    pub fn upsert(&self, object: &Object) {
        if let Ok(group) = object.view::<PodGroup>() {
            self.known.lock().entry(GroupKey::of_object(object)).or_default().object = Some(group);
        }
    }

    /// A PodGroup is gone. Its pods are remembered.
    pub fn remove(&self, key: &GroupKey) {
        self.change(key, |known| known.object = None);
    }

    /// PodGroups were read anew.
    pub fn replace_all(&self, objects: &[Arc<Object>]) {
        let present: HashSet<GroupKey> = objects.iter().map(|object| GroupKey::of_object(object)).collect();
        let gone: Vec<GroupKey> =
            self.known.lock().keys().filter(|key| !present.contains(key)).cloned().collect();
        gone.iter().for_each(|key| self.remove(key));
        objects.iter().for_each(|object| self.upsert(object));
    }

    /// A pod is waiting for a node, or has one.
    pub fn note(&self, pod: &PodInfo, placed: bool) {
        if let Some(key) = GroupKey::of(pod) {
            self.known.lock().entry(key).or_default().members.insert(pod.uid().clone(), placed);
        }
    }

    /// A pod got a node or lost it; one that is gone meanwhile stays gone.
    pub fn mark(&self, pod: &PodInfo, placed: bool) {
        let Some(key) = GroupKey::of(pod) else { return };
        self.change(&key, |known| {
            if let Some(own) = known.members.get_mut(pod.uid()) {
                *own = placed;
            }
        });
    }

    /// A pod was deleted or has ended.
    pub fn forget(&self, pod: &PodInfo) {
        if let Some(key) = GroupKey::of(pod) {
            self.change(&key, |known| _ = known.members.remove(pod.uid()));
        }
    }

    fn change(&self, key: &GroupKey, change: impl FnOnce(&mut Known)) {
        let mut all = self.known.lock();
        let Some(known) = all.get_mut(key) else { return };
        change(known);
        if known.object.is_none() && known.members.is_empty() {
            all.remove(key);
        }
    }

    /// Why no pod of a group need be tried yet, in upstream's words.
    pub fn not_ready(&self, key: &GroupKey) -> Option<String> {
        let all = self.known.lock();
        let known = all.get(key);
        let Some((known, group)) = known.and_then(|known| Some((known, known.object.as_ref()?))) else {
            return Some(format!(
                "waiting for pods's pod group {:?} to appear in scheduling queue",
                key.name
            ));
        };
        let short = known.members.len() < self.min_count(group);
        short.then(|| "waiting for minCount pods from a gang to appear in scheduling queue".to_owned())
    }

    fn min_count(&self, group: &PodGroup) -> usize {
        let gang = group.spec.scheduling_policy.gang.as_ref().filter(|_| self.features.gangs);
        gang.map_or(1, |gang| gang.min_count as usize)
    }

    /// `None` while there is no such PodGroup.
    pub fn terms(&self, key: &GroupKey) -> Option<Terms> {
        let group = self.object(key)?;
        let topology = group.spec.scheduling_constraints.topology.first().filter(|_| self.features.topology);
        Some(Terms {
            min_count: self.min_count(&group),
            topology_key: topology.map(|constraint| constraint.key.clone()),
        })
    }

    pub fn object(&self, key: &GroupKey) -> Option<Arc<PodGroup>> {
        self.known.lock().get(key)?.object.clone()
    }

    /// Uids of the pods that have a node, or of those that have none.
    pub fn members(&self, key: &GroupKey, placed: bool) -> Vec<Str> {
        let all = self.known.lock();
        let members = all.get(key).into_iter().flat_map(|known| &known.members);
        members.filter(|(_, own)| **own == placed).map(|(uid, _)| uid.clone()).collect()
    }

    /// These pods are evicted to make room for a group; those of an earlier attempt no longer matter.
    pub fn await_victims(&self, key: &GroupKey, victims: HashSet<Str>) {
        self.change(key, |known| {
            known.victims = victims;
            known.last_victim = None;
        });
    }

    /// A pod is gone, perhaps one whose room a group waits for.
    pub fn pod_gone(&self, uid: &str) {
        for known in self.known.lock().values_mut() {
            if let Some(victim) = known.victims.take(uid) {
                known.last_victim = known.victims.is_empty().then_some(victim);
            }
        }
    }

    /// Whether a group waits for victims to go.
    pub fn awaits_victims(&self, key: &GroupKey) -> bool {
        self.known.lock().get(key).is_some_and(|known| !known.victims.is_empty())
    }

    /// Whether with this pod the last victim of a group went.
    pub fn was_last_victim(&self, key: &GroupKey, uid: &str) -> bool {
        self.known.lock().get(key).is_some_and(|known| known.last_victim.as_deref() == Some(uid))
    }
}

/// Whether two pods are in one group.
pub fn are_together(a: &PodInfo, b: &PodInfo) -> bool {
    a.namespace() == b.namespace()
        && a.pod.spec.scheduling_group.is_some()
        && a.pod.spec.scheduling_group == b.pod.spec.scheduling_group
}
