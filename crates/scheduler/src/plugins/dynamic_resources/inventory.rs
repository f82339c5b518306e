//! [`Inventory`]: the devices that drivers publish, as pools, and which of them a node can reach.
//!
//! Hot path: [`Inventory::pools_of`] is asked for every node for every pod with claims. What a node can reach is worked
//! out once and kept until a slice of one of its pools, or the node's labels, change.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use api::placement;
use api::view::{Device, Node, NodeSelector, ResourceSlice};
use apimachinery::{Quantity, Str};

/// Below this, nodes that are no more are not worth forgetting.
const NODES_MIN: usize = 64;

/// A pool's driver and name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolId {
    pub driver: Str,
    pub name: Str,
}

/// A slice under a number that no other slice, and no other state of this slice, ever has.
#[derive(Debug)]
pub struct Slice {
    pub id: u64,
    pub view: Arc<ResourceSlice>,
}

/// What a node can reach of a pool.
#[derive(Clone, Debug)]
pub struct Pool {
    pub id: PoolId,
    pub state: PoolState,
    /// Slices with devices that the node may reach, by name. With `perDeviceNodeSelection` not all of their devices.
    pub slices: Vec<Arc<Slice>>,
    /// The other slices with devices: these draw on the same counters.
    pub elsewhere: Vec<Arc<Slice>>,
    /// By counter set and counter.
    pub counters: Counters,
}

pub type Counters = BTreeMap<Str, BTreeMap<Str, Quantity>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolState {
    Usable,
    /// The driver has not published all of it yet.
    Incomplete,
    /// A name is used twice, or counters are drawn on that there are not.
    Invalid,
}

/// All slices.
#[derive(Debug, Default)]
pub struct Inventory {
    slices: HashMap<Str, Arc<Slice>>,
    pools: HashMap<PoolId, BTreeMap<Str, Arc<Slice>>>,
    /// Pools with slices for this one node.
    by_node: HashMap<Str, BTreeSet<PoolId>>,
    /// Pools with slices that several nodes may need.
    shared: BTreeSet<PoolId>,
    reachable: HashMap<Str, Reachable>,
    next_id: u64,
}

#[derive(Debug)]
struct Reachable {
    /// That this was worked out for.
    node: Arc<Node>,
    pools: Arc<[Pool]>,
}

// === impl Inventory ===

impl Inventory {
    /// Takes note of a slice; returns the state of it that is no more.
    pub fn insert(&mut self, view: Arc<ResourceSlice>) -> Option<Arc<Slice>> {
        let name = view.metadata.name.clone();
        if self.slices.get(&name).is_some_and(|known| Arc::ptr_eq(&known.view, &view)) {
            return None;
        }
        let old = self.remove(&name);
        self.next_id += 1;
        let slice = Arc::new(Slice { id: self.next_id, view });
        self.slices.insert(name.clone(), slice.clone());
        self.pools.entry(slice.pool_id()).or_default().insert(name, slice.clone());
        self.reindex(&slice.pool_id());
        old
    }

    pub fn remove(&mut self, name: &str) -> Option<Arc<Slice>> {
        let old = self.slices.remove(name)?;
        let id = old.pool_id();
        self.forget_reachable(&id);
        if let Some(node) = old.only_node()
            && let Some(pools) = self.by_node.get_mut(node)
        {
            pools.remove(&id);
            if pools.is_empty() {
                self.by_node.remove(node);
            }
        }
        self.shared.remove(&id);
        if let Some(slices) = self.pools.get_mut(&id) {
            slices.remove(name);
            if slices.is_empty() {
                self.pools.remove(&id);
            }
        }
        self.reindex(&id);
        Some(old)
    }

    /// Names of the slices that are known.
    pub fn names(&self) -> Vec<Str> {
        self.slices.keys().cloned().collect()
    }

    /// The pools that a node can reach, in the order in which devices are looked for: by name, and those last whose
    /// devices have to be made ready first.
    pub fn pools_of(&mut self, node: &Arc<Node>) -> Arc<[Pool]> {
        let name = &node.metadata.name;
        if let Some(known) = self.reachable.get_mut(name) {
            if Arc::ptr_eq(&known.node, node) {
                return known.pools.clone();
            }
            if known.node.metadata.labels == node.metadata.labels {
                known.node = node.clone();
                return known.pools.clone();
            }
        }
        let pools: Arc<[Pool]> = self.gather(node).into();
        self.reachable.insert(name.clone(), Reachable { node: node.clone(), pools: pools.clone() });
        pools
    }

    /// A node as it was when it was last asked about, with what it can reach.
    pub fn last_asked(&self, node: &str) -> Option<(Arc<Node>, Arc<[Pool]>)> {
        self.reachable.get(node).map(|known| (known.node.clone(), known.pools.clone()))
    }

    /// Forgets nodes that are no more, when there are clearly more than the cluster has.
    pub fn trim(&mut self, nodes: usize) {
        if self.reachable.len() > 2 * nodes.max(NODES_MIN) {
            self.reachable.clear();
        }
    }

    fn gather(&self, node: &Node) -> Vec<Pool> {
        let own = self.by_node.get(&node.metadata.name);
        let ids: BTreeSet<&PoolId> = own.into_iter().flatten().chain(&self.shared).collect();
        let pools = ids.into_iter().filter_map(|id| gather_pool(id, self.pools.get(id)?, node));
        let (waiting, mut pools): (Vec<_>, Vec<_>) = pools.partition(Pool::has_binding_conditions);
        pools.extend(waiting);
        pools
    }

    fn reindex(&mut self, id: &PoolId) {
        for slice in self.pools.get(id).into_iter().flat_map(BTreeMap::values) {
            match slice.only_node() {
                Some(node) => _ = self.by_node.entry(node.clone()).or_default().insert(id.clone()),
                None => _ = self.shared.insert(id.clone()),
            }
        }
        self.forget_reachable(id);
    }

    /// Nodes that may reach a pool are worked out anew.
    fn forget_reachable(&mut self, id: &PoolId) {
        if self.shared.contains(id) {
            self.reachable.clear();
            return;
        }
        for slice in self.pools.get(id).into_iter().flat_map(BTreeMap::values) {
            if let Some(node) = slice.only_node() {
                self.reachable.remove(node);
            }
        }
    }
}

/// A pool as a node sees it; `None` when nothing of it is for this node, or a newer generation is on its way.
fn gather_pool(id: &PoolId, all: &BTreeMap<Str, Arc<Slice>>, node: &Node) -> Option<Pool> {
    let relevant: Vec<&Arc<Slice>> = all.values().filter(|slice| slice.is_for(node)).collect();
    let generation = relevant.iter().map(|slice| slice.generation()).max()?;
    let mut slices = relevant;
    slices.retain(|slice| slice.generation() == generation);
    let wanted = slices.first()?.view.spec.pool.resource_slice_count;
    let mut others: Vec<&Arc<Slice>> = Vec::new();
    if slices.len() as i64 != wanted {
        if all.values().any(|slice| slice.generation() > generation) {
            return None;
        }
        let chosen: HashSet<u64> = slices.iter().map(|slice| slice.id).collect();
        others = all.values().filter(|slice| slice.generation() == generation).collect();
        if others.len() as i64 != wanted {
            return Some(Pool::without_devices(id, PoolState::Incomplete));
        }
        others.retain(|slice| !chosen.contains(&slice.id));
    }
    let (counting, slices): (Vec<_>, Vec<_>) = slices.into_iter().partition(|slice| slice.has_counters());
    let counters = counter_sets(&counting);
    let valid = counters.as_ref().is_some_and(|counters| {
        has_unique_names(&slices) && slices.iter().chain(&others).all(|slice| slice.draws_on(counters))
    });
    match counters.filter(|_| valid) {
        None => Some(Pool::without_devices(id, PoolState::Invalid)),
        Some(counters) => Some(Pool {
            id: id.clone(),
            state: PoolState::Usable,
            slices: slices.into_iter().cloned().collect(),
            elsewhere: others.into_iter().cloned().collect(),
            counters,
        }),
    }
}

/// `None` when two sets have one name.
fn counter_sets(slices: &[&Arc<Slice>]) -> Option<Counters> {
    let mut sets = Counters::new();
    for set in slices.iter().flat_map(|slice| &slice.view.spec.shared_counters) {
        let counters = set.counters.iter().map(|(name, counter)| (name.clone(), counter.value)).collect();
        if sets.insert(set.name.clone(), counters).is_some() {
            return None;
        }
    }
    Some(sets)
}

fn has_unique_names(slices: &[&Arc<Slice>]) -> bool {
    let mut names = HashSet::new();
    slices.iter().flat_map(|slice| slice.devices()).all(|device| names.insert(&device.name))
}

/// Where something is reachable from: one node, all, or those that a selector chooses.
pub fn reaches(name: Option<&Str>, all: bool, selector: Option<&NodeSelector>, node: &Node) -> bool {
    match (name, selector) {
        (Some(name), _) => *name == node.metadata.name,
        (None, _) if all => true,
        (None, Some(selector)) => is_selected(selector, node),
        (None, None) => false,
    }
}

/// Some term matches.
pub fn is_selected(selector: &NodeSelector, node: &Node) -> bool {
    selector.node_selector_terms.iter().any(|term| placement::matches(term, node))
}

// === impl Slice ===

impl Slice {
    pub fn driver(&self) -> &Str {
        &self.view.spec.driver
    }

    pub fn devices(&self) -> &[Device] {
        &self.view.spec.devices
    }

    /// Whether a device of it can be reached from a node that the slice is for.
    pub fn reaches(&self, device: &Device, node: &Node) -> bool {
        !self.view.spec.per_device_node_selection
            || reaches(device.node_name.as_ref(), device.all_nodes, device.node_selector.as_ref(), node)
    }

    fn pool_id(&self) -> PoolId {
        PoolId { driver: self.view.spec.driver.clone(), name: self.view.spec.pool.name.clone() }
    }

    fn generation(&self) -> i64 {
        self.view.spec.pool.generation
    }

    fn has_counters(&self) -> bool {
        !self.view.spec.shared_counters.is_empty()
    }

    /// The node that alone needs it. Counters are needed wherever there are devices of the pool.
    fn only_node(&self) -> Option<&Str> {
        self.view.spec.node_name.as_ref().filter(|_| !self.has_counters())
    }

    fn is_for(&self, node: &Node) -> bool {
        let spec = &self.view.spec;
        if self.has_counters() {
            return true;
        }
        if spec.per_device_node_selection {
            return spec.devices.iter().any(|device| self.reaches(device, node));
        }
        reaches(spec.node_name.as_ref(), spec.all_nodes, spec.node_selector.as_ref(), node)
    }

    fn draws_on(&self, sets: &Counters) -> bool {
        self.devices().iter().flat_map(|device| &device.consumes_counters).all(|consumed| {
            let set = sets.get(&consumed.counter_set);
            set.is_some_and(|set| consumed.counters.keys().all(|name| set.contains_key(name)))
        })
    }
}

// === impl Pool ===

impl Pool {
    fn without_devices(id: &PoolId, state: PoolState) -> Self {
        Self { id: id.clone(), state, slices: Vec::new(), elsewhere: Vec::new(), counters: Counters::new() }
    }

    fn has_binding_conditions(&self) -> bool {
        let mut devices = self.slices.iter().flat_map(|slice| slice.devices());
        devices.any(|device| !device.binding_conditions.is_empty())
    }
}

impl std::fmt::Display for PoolId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.driver, self.name)
    }
}
