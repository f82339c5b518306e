//! What the scheduler believes about nodes and the pods on them.
//!
//! Owns: [`Cache`]: nodes in slots of one vector, the pods on them, pods assumed to be bound before the API says so,
//! and which nodes changed since when. Never touches: pending pods (the queue), the API.
//!
//! ```text
//!     slot        0        1        2        3             most recently changed: 2 → 0 → 3 → 1
//!     node        a        b        c        (free)        changed_since(g) walks from the head until it is older
//! ```
//!
//! Why no snapshot per cycle? The cache belongs to the scheduling task alone, so nothing changes it during a cycle.
//! What is shared between cycles (`shortlist`) asks which nodes changed and repairs just those.
//!
//! **Invariant (cache-recency):** walking from the head, generations strictly fall.

mod node;

use std::collections::btree_map::{self, BTreeMap};
use std::collections::hash_map::{self, HashMap};
use std::sync::Arc;

use api::view::{Node, StringMap};
use apimachinery::Str;

use crate::affinity::AffinityTerms;
use crate::budget::Budget;
use crate::pod::PodInfo;
pub use node::NodeInfo;

/// Index of a node in the cache; reused after the node is gone.
pub type Slot = u32;

const NONE: Slot = Slot::MAX;

/// Nodes, and the pods bound or assumed to be bound to them.
#[derive(Debug)]
pub struct Cache {
    entries: Vec<Entry>,
    free: Vec<Slot>,
    by_name: HashMap<Str, Slot>,
    pods: HashMap<Str, Placed>,
    images: BTreeMap<Str, ImageState>,
    /// Placed pods with affinity, by what they say.
    affinity: HashMap<Str, AffinityGroup>,
    /// Where the pods are that name a claim, by its namespace and name.
    claims: HashMap<(Str, Str), Vec<Slot>>,
    namespaces: HashMap<Str, StringMap>,
    /// By namespace and name.
    budgets: HashMap<(Str, Str), Budget>,
    /// Pods for which room is being made, by uid.
    nominated: HashMap<Str, (Slot, Arc<PodInfo>)>,
    /// How many pods have each priority.
    priorities: BTreeMap<i32, usize>,
    node_count: usize,
    generation: u64,
    images_epoch: u64,
    namespaces_epoch: u64,
    head: Slot,
}

#[derive(Debug)]
struct Entry {
    info: NodeInfo,
    generation: u64,
    newer: Slot,
    older: Slot,
}

#[derive(Debug)]
struct Placed {
    slot: Slot,
    pod: Arc<PodInfo>,
    assumed: bool,
}

/// A pod that was taken off its node for a while.
#[derive(Debug)]
pub struct SetAside {
    slot: Slot,
    pod: Arc<PodInfo>,
    assumed: bool,
}

/// Placed pods that say the same about other pods. Deployments make many of those: terms are matched once for all.
#[derive(Debug)]
pub struct AffinityGroup {
    pub terms: Arc<AffinityTerms>,
    nodes: HashMap<Slot, usize>,
}

/// An image that at least one node has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImageState {
    pub size_bytes: i64,
    /// Nodes that have it.
    pub nodes: usize,
}

// === impl Cache ===

impl Default for Cache {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            by_name: HashMap::new(),
            pods: HashMap::new(),
            images: BTreeMap::new(),
            affinity: HashMap::new(),
            claims: HashMap::new(),
            namespaces: HashMap::new(),
            budgets: HashMap::new(),
            nominated: HashMap::new(),
            priorities: BTreeMap::new(),
            node_count: 0,
            generation: 0,
            images_epoch: 0,
            namespaces_epoch: 0,
            head: NONE,
        }
    }
}

impl Cache {
    /// Known nodes; names that only pods mention do not count.
    pub fn node_count(&self) -> usize {
        self.node_count
    }

    /// Slots ever used: what a table indexed by slot must hold.
    pub fn slot_count(&self) -> usize {
        self.entries.len()
    }

    /// Changes with every change of a node or of the pods on one.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Changes when answers for all nodes may: with the share of nodes that have some image, and with the labels of
    /// namespaces.
    pub fn epoch(&self) -> (u64, u64) {
        (self.images_epoch, self.namespaces_epoch)
    }

    pub fn image(&self, name: &str) -> Option<ImageState> {
        self.images.get(name).copied()
    }

    /// The known node in a slot.
    pub fn node(&self, slot: Slot) -> Option<&NodeInfo> {
        self.entries.get(slot as usize).map(|entry| &entry.info).filter(|info| info.node.is_some())
    }

    pub fn slot(&self, name: &str) -> Option<Slot> {
        self.by_name.get(name).copied().filter(|&slot| self.node(slot).is_some())
    }

    /// All known nodes, in slot order.
    pub fn nodes(&self) -> impl Iterator<Item = (Slot, &NodeInfo)> {
        (0..)
            .zip(&self.entries)
            .map(|(slot, entry)| (slot, &entry.info))
            .filter(|(_, info)| info.node.is_some())
    }

    /// Slots whose node, or pods on it, changed after `generation`, latest first, each once.
    pub fn changed_since(&self, generation: u64) -> impl Iterator<Item = Slot> {
        let entry = |slot: Slot| self.entries.get(slot as usize);
        let mut next = self.head;
        std::iter::from_fn(move || {
            let slot = next;
            let current = entry(slot).filter(|entry| entry.generation > generation)?;
            next = current.older;
            Some(slot)
        })
    }

    /// The lowest priority of any pod on a node; `None` without pods.
    pub fn lowest_priority(&self) -> Option<i32> {
        self.priorities.keys().next().copied()
    }

    pub fn budgets(&self) -> impl Iterator<Item = &Budget> {
        self.budgets.values()
    }

    pub fn set_budget(&mut self, namespace: &str, name: &str, budget: Budget) {
        self.budgets.insert((namespace.into(), name.into()), budget);
    }

    pub fn remove_budget(&mut self, namespace: &str, name: &str) {
        self.budgets.remove(&(namespace.into(), name.into()));
    }

    pub fn has_nominations(&self) -> bool {
        !self.nominated.is_empty()
    }

    /// The node that a pod is nominated for.
    pub fn nomination(&self, uid: &str) -> Option<Slot> {
        self.nominated.get(uid).map(|(slot, _)| *slot)
    }

    /// Pods that are nominated for a node. There are few nominations at a time.
    pub fn nominated_on(&self, slot: Slot) -> impl Iterator<Item = &Arc<PodInfo>> {
        self.nominated.values().filter(move |(own, _)| *own == slot).map(|(_, pod)| pod)
    }

    /// Keeps room on a node for a pod; nothing happens for a node that is not known.
    pub fn nominate(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.clear_nomination(pod.uid());
        if let Some(slot) = self.slot(node) {
            self.nominated.insert(pod.uid().clone(), (slot, pod));
            self.touch(slot);
        }
    }

    pub fn clear_nomination(&mut self, uid: &str) {
        if let Some((slot, _)) = self.nominated.remove(uid) {
            self.touch(slot);
        }
    }

    /// Names of the nodes of pods that use a claim, one for each pod.
    pub fn claim_users(&self, namespace: &Str, claim: &Str) -> impl Iterator<Item = &Str> {
        let users = self.claims.get(&(namespace.clone(), claim.clone())).into_iter().flatten();
        users.filter_map(|&slot| self.entries.get(slot as usize).map(|entry| &entry.info.name))
    }

    pub fn affinity_groups(&self) -> impl Iterator<Item = &AffinityGroup> {
        self.affinity.values()
    }

    pub fn namespace_label(&self, namespace: &str, key: &str) -> Option<&str> {
        self.namespaces.get(namespace)?.get(key).map(Str::as_str)
    }

    pub fn set_namespace(&mut self, name: &str, labels: StringMap) {
        if self.namespaces.get(name) != Some(&labels) {
            self.namespaces.insert(name.into(), labels);
            self.namespaces_epoch += 1;
        }
    }

    pub fn remove_namespace(&mut self, name: &str) {
        if self.namespaces.remove(name).is_some() {
            self.namespaces_epoch += 1;
        }
    }

    pub fn pod(&self, uid: &str) -> Option<&Arc<PodInfo>> {
        self.pods.get(uid).map(|placed| &placed.pod)
    }

    /// Bound by us, but not yet seen as bound.
    pub fn is_assumed(&self, uid: &str) -> bool {
        self.pods.get(uid).is_some_and(|placed| placed.assumed)
    }

    /// Uids of pods that the API has shown as bound.
    pub fn confirmed_pods(&self) -> impl Iterator<Item = &Str> {
        self.pods.iter().filter(|(_, placed)| !placed.assumed).map(|(uid, _)| uid)
    }

    /// Names of known nodes.
    pub fn node_names(&self) -> impl Iterator<Item = &Str> {
        self.nodes().map(|(_, info)| &info.name)
    }

    /// The last known state of a node.
    pub fn node_state(&self, name: &str) -> Option<Arc<Node>> {
        self.node(self.slot(name)?)?.node.clone()
    }

    /// Adds or replaces a node; returns what it was.
    pub fn upsert_node(&mut self, node: Arc<Node>) -> Option<Arc<Node>> {
        let slot = self.slot_for(&node.metadata.name);
        self.set_node(slot, Some(node))
    }

    /// Forgets a node. Pods on it stay counted until they are deleted.
    pub fn remove_node(&mut self, name: &str) -> Option<Arc<Node>> {
        let slot = self.by_name.get(name).copied()?;
        let old = self.set_node(slot, None);
        self.release_if_empty(slot);
        old
    }

    /// Adds or replaces a bound pod, and thereby confirms an assumed one; returns what was known before.
    pub fn upsert_pod(&mut self, pod: Arc<PodInfo>) -> Option<Arc<PodInfo>> {
        self.place(pod, false)
    }

    /// Counts a pod on the node it is about to be bound to.
    pub fn assume(&mut self, pod: Arc<PodInfo>, slot: Slot) {
        self.place_at(pod, slot, true);
    }

    /// Takes back an assumption; nothing happens once the API has confirmed it.
    pub fn forget(&mut self, uid: &str) {
        if self.is_assumed(uid) {
            self.remove_pod(uid);
        }
    }

    /// Where a pod is counted.
    pub fn slot_of_pod(&self, uid: &str) -> Option<Slot> {
        self.pods.get(uid).map(|placed| placed.slot)
    }

    /// Takes a pod off its node for a what-if; [`Cache::put_back`] undoes it.
    pub fn set_aside(&mut self, uid: &str) -> Option<SetAside> {
        let Placed { slot, assumed, .. } = *self.pods.get(uid)?;
        let pod = self.remove_pod(uid)?;
        Some(SetAside { slot, pod, assumed })
    }

    pub fn put_back(&mut self, SetAside { slot, pod, assumed }: SetAside) {
        self.place_at(pod, slot, assumed);
    }

    pub fn remove_pod(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let placed = self.pods.remove(uid)?;
        self.leave_affinity_group(&placed.pod, placed.slot);
        self.leave_claims(&placed.pod, placed.slot);
        if let btree_map::Entry::Occupied(mut count) = self.priorities.entry(placed.pod.priority()) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        if let Some(entry) = self.entries.get_mut(placed.slot as usize) {
            entry.info.remove_pod(uid);
        }
        self.touch(placed.slot);
        self.release_if_empty(placed.slot);
        Some(placed.pod)
    }

    fn place(&mut self, pod: Arc<PodInfo>, assumed: bool) -> Option<Arc<PodInfo>> {
        let slot = self.slot_for(pod.node_name());
        self.place_at(pod, slot, assumed)
    }

    fn place_at(&mut self, pod: Arc<PodInfo>, slot: Slot, assumed: bool) -> Option<Arc<PodInfo>> {
        if let Some(known) = self.pods.get_mut(pod.uid())
            && known.slot == slot
            && counts_alike(&known.pod, &pod)
        {
            // Most updates of a bound pod are of its status: nothing that a score could see.
            known.assumed = assumed;
            let old = std::mem::replace(&mut known.pod, pod.clone());
            let on_node = &mut self.entries[slot as usize].info.pods;
            if let Some(own) = on_node.iter_mut().find(|own| own.uid() == pod.uid()) {
                *own = pod;
            }
            return Some(old);
        }
        let old = self.remove_pod(pod.uid());
        self.clear_nomination(pod.uid());
        // Removing the last pod of an unknown node may have freed the slot.
        let slot = if self.entries[slot as usize].info.name.is_empty() {
            self.slot_for(pod.node_name())
        } else {
            slot
        };
        self.entries[slot as usize].info.add_pod(pod.clone());
        self.join_affinity_group(&pod, slot);
        self.join_claims(&pod, slot);
        *self.priorities.entry(pod.priority()).or_default() += 1;
        self.pods.insert(pod.uid().clone(), Placed { slot, pod, assumed });
        self.touch(slot);
        old
    }

    fn join_claims(&mut self, pod: &PodInfo, slot: Slot) {
        for claim in claims_of(pod) {
            self.claims.entry((pod.namespace().clone(), claim.clone())).or_default().push(slot);
        }
    }

    fn leave_claims(&mut self, pod: &PodInfo, slot: Slot) {
        for claim in claims_of(pod) {
            let hash_map::Entry::Occupied(mut users) =
                self.claims.entry((pod.namespace().clone(), claim.clone()))
            else {
                continue;
            };
            if let Some(at) = users.get().iter().position(|own| *own == slot) {
                users.get_mut().swap_remove(at);
            }
            if users.get().is_empty() {
                users.remove();
            }
        }
    }

    fn join_affinity_group(&mut self, pod: &PodInfo, slot: Slot) {
        let Some(terms) = &pod.affinity else { return };
        let group = self
            .affinity
            .entry(terms.key.clone())
            .or_insert_with(|| AffinityGroup { terms: terms.clone(), nodes: HashMap::new() });
        *group.nodes.entry(slot).or_default() += 1;
    }

    fn leave_affinity_group(&mut self, pod: &PodInfo, slot: Slot) {
        let Some(terms) = &pod.affinity else { return };
        let Some(group) = self.affinity.get_mut(&terms.key) else { return };
        if let hash_map::Entry::Occupied(mut pods) = group.nodes.entry(slot) {
            *pods.get_mut() -= 1;
            if *pods.get() == 0 {
                pods.remove();
            }
        }
        if group.nodes.is_empty() {
            self.affinity.remove(&terms.key);
        }
    }

    fn set_node(&mut self, slot: Slot, node: Option<Arc<Node>>) -> Option<Arc<Node>> {
        if node.is_none() {
            self.nominated.retain(|_, (own, _)| *own != slot);
        }
        let info = &mut self.entries[slot as usize].info;
        let old = info.node.clone();
        let old_images = std::mem::take(&mut info.images);
        info.set_node(node);
        let appeared = usize::from(info.node.is_some());
        let (new_images, sizes) = (info.images.clone(), info.node.clone());
        self.node_count = self.node_count + appeared - usize::from(old.is_some());
        let count_changed = old.is_some() != (appeared == 1);
        self.recount_images(&old_images, &new_images, sizes.as_deref(), count_changed);
        self.touch(slot);
        old
    }

    fn recount_images(&mut self, old: &[Str], new: &[Str], node: Option<&Node>, count_changed: bool) {
        if old != new {
            for name in old {
                if let Some(state) = self.images.get_mut(name) {
                    state.nodes -= 1;
                }
            }
            let sizes = node.into_iter().flat_map(|node| &node.status.images);
            for (name, size) in
                sizes.flat_map(|image| image.names.iter().map(|name| (name, image.size_bytes)))
            {
                self.images.entry(name.clone()).or_insert(ImageState { size_bytes: size, nodes: 0 });
            }
            for name in new {
                self.images.entry(name.clone()).or_default().nodes += 1;
            }
            old.iter().for_each(|name| self.drop_image_if_gone(name));
        }
        if old != new || (count_changed && !self.images.is_empty()) {
            self.images_epoch += 1;
        }
    }

    fn drop_image_if_gone(&mut self, name: &str) {
        if self.images.get(name).is_some_and(|state| state.nodes == 0) {
            self.images.remove(name);
        }
    }

    fn slot_for(&mut self, name: &str) -> Slot {
        if let Some(&slot) = self.by_name.get(name) {
            return slot;
        }
        let info = NodeInfo::named(name);
        let slot = match self.free.pop() {
            Some(slot) => {
                self.entries[slot as usize].info = info;
                slot
            }
            None => {
                self.entries.push(Entry { info, generation: 0, newer: NONE, older: NONE });
                (self.entries.len() - 1) as Slot
            }
        };
        self.by_name.insert(name.into(), slot);
        slot
    }

    /// A freed slot stays in the list of changes, so that shared results learn that its node is gone.
    fn release_if_empty(&mut self, slot: Slot) {
        let info = &mut self.entries[slot as usize].info;
        if info.node.is_none() && info.pods.is_empty() && !info.name.is_empty() {
            let name = std::mem::take(&mut info.name);
            self.by_name.remove(&name);
            self.free.push(slot);
        }
    }

    /// Moves a slot to the head of the list of changes.
    fn touch(&mut self, slot: Slot) {
        self.generation += 1;
        let generation = self.generation;
        if self.head != slot {
            self.unlink(slot);
            let old_head = std::mem::replace(&mut self.head, slot);
            if let Some(entry) = self.entries.get_mut(old_head as usize) {
                entry.newer = slot;
            }
            let entry = &mut self.entries[slot as usize];
            (entry.newer, entry.older) = (NONE, old_head);
        }
        self.entries[slot as usize].generation = generation;
    }

    fn unlink(&mut self, slot: Slot) {
        let Entry { newer, older, .. } = self.entries[slot as usize];
        if let Some(entry) = self.entries.get_mut(newer as usize) {
            entry.older = older;
        }
        if let Some(entry) = self.entries.get_mut(older as usize) {
            entry.newer = newer;
        }
    }
}

// === impl AffinityGroup ===

impl AffinityGroup {
    /// Where these pods are, and how many.
    pub fn nodes(&self) -> impl Iterator<Item = (Slot, usize)> {
        self.nodes.iter().map(|(slot, pods)| (*slot, *pods))
    }
}

/// The claims that a pod names; those that are made for it are its own.
fn claims_of(pod: &PodInfo) -> impl Iterator<Item = &Str> {
    let volumes = pod.pod.spec.volumes.iter();
    volumes.filter_map(|volume| Some(&volume.persistent_volume_claim.as_ref()?.claim_name))
}

/// The two states of one pod weigh the same on a node.
fn counts_alike(a: &PodInfo, b: &PodInfo) -> bool {
    a.requests == b.requests
        && a.host_ports == b.host_ports
        && (a.scored_cpu_milli, a.scored_memory) == (b.scored_cpu_milli, b.scored_memory)
        && a.pod.metadata.labels == b.pod.metadata.labels
        && a.pod.is_deleting() == b.pod.is_deleting()
        && a.priority() == b.priority()
}

#[cfg(test)]
mod tests;
