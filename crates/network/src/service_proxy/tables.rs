//! The state of one address family: plans turned into elements of maps.
//!
//! Owns: numbers of groups, places of endpoints in them, who has an address that two Services claim. Never touches:
//! the kernel; [`super::ruleset`] writes what is here.
//!
//! A *group* is a numbered list of endpoints. Adding an endpoint appends to it, removing one moves the last into its
//! place, so that either changes a handful of elements however long the list is.
//!
//! ```text
//!     kinds           address . protocol . port  →  kind
//!     groups-cluster  address . protocol . port  →  group
//!     groups-local    address . protocol . port  →  group of the endpoints on this node
//!     picks           group                      →  how to choose: among how many, remembering for how long
//!     endpoints       group . index              →  address . port
//! ```
//!
//! A group that remembers its clients has one step more, so that a client keeps its endpoint when another one takes
//! its index, and loses it when it is gone:
//!
//! ```text
//!     slots           group . index              →  number of the endpoint
//!     members         group . number             →  address . port
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use super::cidr::{address_bytes, family_of, merged, range_bytes};
use super::mirror::{Counted, Mirror};
use super::objects::Protocol;
use super::plan::{Frontend, Kind, PortKey, PortPlan};
use crate::nftables::{Element, Family};

/// Under which policy a group is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    Cluster,
    Local,
}

/// One way to choose an endpoint: among so many, remembering the client for so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pick {
    pub scope: Scope,
    pub count: u32,
    pub affinity_seconds: u32,
}

/// Traffic of UDP whose connections in the kernel may lead to endpoints that are no longer there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stale {
    /// The present endpoints by the address and port at which clients come.
    pub frontends: HashMap<SocketAddr, BTreeSet<SocketAddr>>,
}

/// The wanted contents of a family's table.
#[derive(Debug)]
pub struct Tables {
    family: Family,
    ports: HashMap<PortKey, Installed>,
    /// Who wants an address and port; the first has it.
    claims: HashMap<Vec<u8>, Vec<Claim>>,
    next_group: u32,
    free_groups: Vec<u32>,
    hairpin_counts: Counted<IpAddr>,
    cluster_ip_counts: Counted<IpAddr>,
    /// Every way of choosing that any group ever needed, and its number; as many as there are different sizes.
    picks: BTreeMap<Pick, u32>,
    /// Those of them that the kernel does not have.
    new_picks: BTreeMap<Pick, u32>,
    stale: Stale,
    pub(super) kinds: Mirror,
    pub(super) groups_cluster: Mirror,
    pub(super) groups_local: Mirror,
    pub(super) picks_of_groups: Mirror,
    pub(super) endpoints: Mirror,
    pub(super) slots: Mirror,
    pub(super) members: Mirror,
    pub(super) hairpin: Mirror,
    pub(super) cluster_ips: Mirror,
    pub(super) source_ranges: Mirror,
}

/// What a port wants for an address.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Claim {
    owner: PortKey,
    kind: Kind,
    cluster: u32,
    local: Option<u32>,
}

#[derive(Debug)]
struct Installed {
    plan: PortPlan,
    cluster: Group,
    local: Option<Group>,
}

#[derive(Debug)]
struct Group {
    id: u32,
    scope: Scope,
    slots: Vec<SocketAddr>,
    places: HashMap<SocketAddr, Place>,
    next_number: u32,
    affinity_seconds: u32,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    index: usize,
    /// Never that of another endpoint of the group.
    number: u32,
}

impl Tables {
    pub fn new(family: Family) -> Self {
        Self {
            family,
            ports: HashMap::new(),
            claims: HashMap::new(),
            next_group: 1,
            free_groups: Vec::new(),
            hairpin_counts: Counted::default(),
            cluster_ip_counts: Counted::default(),
            picks: BTreeMap::new(),
            new_picks: BTreeMap::new(),
            stale: Stale::default(),
            kinds: Mirror::default(),
            groups_cluster: Mirror::default(),
            groups_local: Mirror::default(),
            picks_of_groups: Mirror::default(),
            endpoints: Mirror::default(),
            slots: Mirror::default(),
            members: Mirror::default(),
            hairpin: Mirror::default(),
            cluster_ips: Mirror::default(),
            source_ranges: Mirror::default(),
        }
    }

    pub fn family(&self) -> Family {
        self.family
    }

    pub fn picks(&self) -> &BTreeMap<Pick, u32> {
        &self.picks
    }

    pub fn new_picks(&self) -> &BTreeMap<Pick, u32> {
        &self.new_picks
    }

    /// How many ports and endpoints there are.
    pub fn len(&self) -> (usize, usize) {
        (self.ports.len(), self.endpoints.len() + self.members.len())
    }

    /// The group of this scope that an address leads to, as the kernel knows it.
    pub(super) fn group(&self, scope: Scope, frontend: &[u8]) -> Option<&[u8]> {
        let groups = match scope {
            Scope::Cluster => &self.groups_cluster,
            Scope::Local => &self.groups_local,
        };
        groups.get(frontend)?.data.as_deref()?.get(WORD..2 * WORD)
    }

    /// The kernel has all of this now. Says which connections of UDP to look at.
    pub fn committed(&mut self) -> Stale {
        self.new_picks.clear();
        for mirror in [
            &mut self.kinds,
            &mut self.groups_cluster,
            &mut self.groups_local,
            &mut self.picks_of_groups,
            &mut self.endpoints,
            &mut self.slots,
            &mut self.members,
            &mut self.hairpin,
            &mut self.cluster_ips,
            &mut self.source_ranges,
        ] {
            mirror.committed();
        }
        std::mem::take(&mut self.stale)
    }

    /// A Service has this address inside the cluster: ports of it that nobody serves are refused.
    pub fn add_cluster_ip(&mut self, address: IpAddr) {
        if self.cluster_ip_counts.add(address) {
            self.cluster_ips.put(Element::of(address_bytes(address)));
        }
    }

    pub fn remove_cluster_ip(&mut self, address: IpAddr) {
        if self.cluster_ip_counts.remove(address) {
            self.cluster_ips.remove(&address_bytes(address));
        }
    }

    /// Makes a port what the plan says.
    pub fn put(&mut self, plan: PortPlan) {
        let Some(mut installed) = self.ports.remove(&plan.key) else { return self.add(plan) };
        if installed.plan == plan {
            self.ports.insert(plan.key.clone(), installed);
            return;
        }
        self.note_stale(Some(&installed.plan), &plan);
        self.fill(&mut installed.cluster, &plan.endpoints.cluster, plan.affinity_seconds);
        installed.local = match (installed.local.take(), plan.uses_local()) {
            (Some(mut group), true) => {
                self.fill(&mut group, &plan.endpoints.local, plan.affinity_seconds);
                Some(group)
            }
            (Some(group), false) => {
                self.dissolve(group);
                None
            }
            (None, true) => Some(self.form(Scope::Local, &plan.endpoints.local, plan.affinity_seconds)),
            (None, false) => None,
        };
        let (old, group) = (&installed.plan, installed.cluster.id);
        if old.source_ranges != plan.source_ranges {
            self.set_source_ranges(group, &old.source_ranges, false);
            self.set_source_ranges(group, &plan.source_ranges, true);
        }
        self.change_hairpins(&old.endpoints.on_node, &plan.endpoints.on_node);
        let local_id = installed.local.as_ref().map(|group| group.id);
        self.change_frontends(&plan.key, &old.frontends, &plan.frontends, (group, local_id));
        installed.plan = plan;
        self.ports.insert(installed.plan.key.clone(), installed);
    }

    /// Forgets a port.
    pub fn remove(&mut self, key: &PortKey) {
        let Some(installed) = self.ports.remove(key) else { return };
        let plan = &installed.plan;
        let gone = PortPlan { endpoints: Default::default(), ..plan.clone() };
        self.note_stale(Some(plan), &gone);
        self.change_frontends(key, &plan.frontends, &[], (installed.cluster.id, None));
        self.change_hairpins(&plan.endpoints.on_node, &[]);
        self.set_source_ranges(installed.cluster.id, &plan.source_ranges, false);
        self.dissolve(installed.cluster);
        if let Some(local) = installed.local {
            self.dissolve(local);
        }
    }

    fn add(&mut self, plan: PortPlan) {
        self.note_stale(None, &plan);
        let cluster = self.form(Scope::Cluster, &plan.endpoints.cluster, plan.affinity_seconds);
        let local =
            plan.uses_local().then(|| self.form(Scope::Local, &plan.endpoints.local, plan.affinity_seconds));
        let local_id = local.as_ref().map(|group| group.id);
        self.set_source_ranges(cluster.id, &plan.source_ranges, true);
        self.change_hairpins(&[], &plan.endpoints.on_node);
        self.change_frontends(&plan.key, &[], &plan.frontends, (cluster.id, local_id));
        self.ports.insert(plan.key.clone(), Installed { plan, cluster, local });
    }

    // --- groups ---

    fn form(&mut self, scope: Scope, endpoints: &[SocketAddr], affinity_seconds: u32) -> Group {
        let id = self.free_groups.pop().unwrap_or_else(|| {
            let id = self.next_group;
            self.next_group += 1;
            id
        });
        let mut group =
            Group { id, scope, slots: Vec::new(), places: HashMap::new(), next_number: 1, affinity_seconds };
        self.fill(&mut group, endpoints, affinity_seconds);
        group
    }

    fn dissolve(&mut self, mut group: Group) {
        let affinity_seconds = group.affinity_seconds;
        self.fill(&mut group, &[], affinity_seconds);
        self.free_groups.push(group.id);
    }

    fn fill(&mut self, group: &mut Group, endpoints: &[SocketAddr], affinity_seconds: u32) {
        let changes_form = (group.affinity_seconds > 0) != (affinity_seconds > 0);
        let wanted: HashSet<&SocketAddr> =
            if changes_form { HashSet::new() } else { endpoints.iter().collect() };
        let gone: Vec<SocketAddr> = group.slots.iter().filter(|own| !wanted.contains(own)).copied().collect();
        for endpoint in gone {
            self.remove_endpoint(group, endpoint);
        }
        group.affinity_seconds = affinity_seconds;
        for endpoint in endpoints {
            if !group.places.contains_key(endpoint) {
                self.append_endpoint(group, *endpoint);
            }
        }
        let key = mark(group.id);
        match u32::try_from(group.slots.len()).unwrap_or(u32::MAX) {
            0 => self.picks_of_groups.remove(&key),
            count => {
                let pick = self.number_of(Pick { scope: group.scope, count, affinity_seconds });
                self.picks_of_groups.put(Element::with_data(key, second(pick)));
            }
        }
    }

    fn append_endpoint(&mut self, group: &mut Group, endpoint: SocketAddr) {
        let place = Place { index: group.slots.len(), number: group.next_number };
        group.next_number += 1;
        group.slots.push(endpoint);
        group.places.insert(endpoint, place);
        self.set_slot(group, endpoint, place);
        if group.affinity_seconds > 0 {
            let key = [mark(group.id), mark(place.number)].concat();
            self.members.put(Element::with_data(key, endpoint_bytes(endpoint)));
        }
    }

    fn remove_endpoint(&mut self, group: &mut Group, endpoint: SocketAddr) {
        let Some(place) = group.places.remove(&endpoint) else { return };
        group.slots.swap_remove(place.index);
        if let Some(moved) = group.slots.get(place.index).copied()
            && let Some(moved_place) = group.places.get_mut(&moved)
        {
            moved_place.index = place.index;
            let moved_place = *moved_place;
            self.set_slot(group, moved, moved_place);
        }
        let last = slot_key(group.id, group.slots.len());
        if group.affinity_seconds > 0 {
            self.slots.remove(&last);
            self.members.remove(&[mark(group.id), mark(place.number)].concat());
        } else {
            self.endpoints.remove(&last);
        }
    }

    fn set_slot(&mut self, group: &Group, endpoint: SocketAddr, place: Place) {
        let key = slot_key(group.id, place.index);
        if group.affinity_seconds > 0 {
            let data = [mark(0), mark(group.id), mark(place.number)].concat();
            self.slots.put(Element::with_data(key, data));
        } else {
            self.endpoints.put(Element::with_data(key, endpoint_bytes(endpoint)));
        }
    }

    fn number_of(&mut self, pick: Pick) -> u32 {
        let next = u32::try_from(self.picks.len() + 1).unwrap_or(u32::MAX);
        *self.picks.entry(pick).or_insert_with(|| {
            self.new_picks.insert(pick, next);
            next
        })
    }

    // --- frontends ---

    fn change_frontends(
        &mut self,
        owner: &PortKey,
        old: &[Frontend],
        new: &[Frontend],
        (cluster, local): (u32, Option<u32>),
    ) {
        let key_of = |frontend: &Frontend| frontend_key(frontend.address, owner.protocol, frontend.port);
        let wanted: BTreeSet<Vec<u8>> = new.iter().map(key_of).collect();
        for key in old.iter().map(key_of).filter(|key| !wanted.contains(key)) {
            self.claim(key, owner, None);
        }
        for frontend in new {
            let claim = Claim { owner: owner.clone(), kind: frontend.kind, cluster, local };
            self.claim(key_of(frontend), owner, Some(claim));
        }
    }

    /// Sets or withdraws what a port wants for an address; who claimed it first has it.
    fn claim(&mut self, key: Vec<u8>, owner: &PortKey, claim: Option<Claim>) {
        let claims = self.claims.entry(key.clone()).or_default();
        match (claims.iter().position(|own| own.owner == *owner), claim) {
            (Some(index), Some(claim)) => claims[index] = claim,
            (Some(index), None) => drop(claims.remove(index)),
            (None, Some(claim)) => claims.push(claim),
            (None, None) => {}
        }
        let first = claims.first().cloned();
        if first.is_none() {
            self.claims.remove(&key);
        }
        let number = |number: u32| Element::with_data(key.clone(), second(number));
        self.kinds.set(&key, first.as_ref().map(|claim| number(claim.kind as u32)));
        self.groups_cluster.set(&key, first.as_ref().map(|claim| number(claim.cluster)));
        self.groups_local.set(&key, first.and_then(|claim| claim.local).map(number));
    }

    // --- the rest ---

    fn set_source_ranges(&mut self, group: u32, ranges: &[super::cidr::Cidr], wanted: bool) {
        for range in merged(ranges.iter().map(|cidr| cidr.range()).collect()) {
            let (first, last) = range_bytes(self.family, range);
            let mut element = Element::of([mark(group), first].concat());
            element.end = Some([mark(group), last].concat());
            if wanted { self.source_ranges.put(element) } else { self.source_ranges.remove(&element.key) }
        }
    }

    fn change_hairpins(&mut self, old: &[SocketAddr], new: &[SocketAddr]) {
        let key = |address: IpAddr| [address_bytes(address), address_bytes(address)].concat();
        for address in new.iter().map(SocketAddr::ip) {
            if self.hairpin_counts.add(address) {
                self.hairpin.put(Element::of(key(address)));
            }
        }
        for address in old.iter().map(SocketAddr::ip) {
            if self.hairpin_counts.remove(address) {
                self.hairpin.remove(&key(address));
            }
        }
    }

    /// Connections of UDP outlive what they were made by: those to be looked at after the commit.
    fn note_stale(&mut self, old: Option<&PortPlan>, new: &PortPlan) {
        if new.key.protocol != Protocol::Udp {
            return;
        }
        let present: BTreeSet<SocketAddr> =
            new.endpoints.cluster.iter().chain(&new.endpoints.local).copied().collect();
        let former = old.map(|old| old.endpoints.cluster.iter().chain(&old.endpoints.local));
        let former: BTreeSet<SocketAddr> = former.into_iter().flatten().copied().collect();
        let appeared = former.is_empty() && !present.is_empty();
        let all_changed = appeared || former.iter().any(|endpoint| !present.contains(endpoint));
        let known = |frontend: &&Frontend| old.is_some_and(|old| old.frontends.contains(frontend));
        for frontend in new.frontends.iter().filter(|frontend| all_changed || !known(frontend)) {
            self.stale.frontends.insert(SocketAddr::new(frontend.address, frontend.port), present.clone());
        }
    }
}

impl PortPlan {
    fn uses_local(&self) -> bool {
        self.frontends.iter().any(|frontend| frontend.kind.is_local())
    }
}

// === keys and data, as the kernel has them ===

/// Bytes of a number in keys and data.
pub(super) const WORD: usize = 4;

/// A number in the byte order of the machine.
pub(super) fn mark(number: u32) -> Vec<u8> {
    number.to_ne_bytes().to_vec()
}

/// A number in the second of two words; [`super::ruleset`] says why.
fn second(number: u32) -> Vec<u8> {
    [mark(0), mark(number)].concat()
}

pub(super) fn frontend_key(address: IpAddr, protocol: Protocol, port: u16) -> Vec<u8> {
    let mut key = address_bytes(address);
    key.extend_from_slice(&[protocol as u8, 0, 0, 0]);
    key.extend_from_slice(&port.to_be_bytes());
    key.extend_from_slice(&[0, 0]);
    key
}

fn endpoint_bytes(endpoint: SocketAddr) -> Vec<u8> {
    debug_assert!(family_of(endpoint.ip()) != Family::Inet);
    let mut bytes = address_bytes(endpoint.ip());
    bytes.extend_from_slice(&endpoint.port().to_be_bytes());
    bytes.extend_from_slice(&[0, 0]);
    bytes
}

fn slot_key(group: u32, index: usize) -> Vec<u8> {
    [mark(group), mark(u32::try_from(index).unwrap_or(u32::MAX))].concat()
}
