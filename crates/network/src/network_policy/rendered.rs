//! A plan as chains and sets of one address family, and the way from one to the next.
//!
//! Owns: rules, names, differences. Never touches: the socket, and what policies mean.
//!
//! ```text
//!     forward, first  ─▶ egress  ── source is an isolated pod ─▶ out-ADDRESS: its policies' chains, else drop
//!     forward, second ─▶ ingress ── destination is one ─▶ in-ADDRESS: its policies' chains, else drop
//!     input           ─▶ as egress: a pod that talks to its node
//! ```
//!
//! The two directions are two base chains, so that what one accepts is still asked of the other. What this node
//! itself sends to its pods passes neither.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

use super::objects::Direction;
use super::plan::{Allowed, Peers, Plan, PodSet, PolicyId, Port, of_family};
use crate::nftables::{
    Base, Batch, ChainType, CmpOp, CtKey, Data, Element, Expression, Family, Field, Hook, MetaKey,
    PayloadBase, Set, Verdict,
};
use crate::service_proxy::Protocol;
use crate::service_proxy::cidr::{Range, address_bytes, family_of, interval_elements};

/// The table, in the families `ip` and `ip6`.
pub const TABLE: &str = "pintle-policies";
const PRIORITY: i32 = 0;
const PODS_EGRESS: &str = "pods-egress";
const PODS_INGRESS: &str = "pods-ingress";
const ALWAYS: &str = "always-allowed";

/// Everything in a family's table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rendered {
    sets: BTreeMap<String, RenderedSet>,
    /// Of the two verdict maps.
    pods: BTreeMap<&'static str, BTreeMap<Vec<u8>, String>>,
    chains: BTreeMap<String, Chain>,
}

#[derive(Clone, Debug, PartialEq)]
struct RenderedSet {
    key: Vec<Field>,
    interval: bool,
    elements: Vec<Element>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Chain {
    base: Option<Base>,
    comment: String,
    rules: Vec<Vec<Expression>>,
}

struct Renderer<'a> {
    family: Family,
    plan: &'a Plan,
    out: Rendered,
}

/// The plan of a family. Pods may always talk to `always_allowed`.
pub fn render(plan: &Plan, family: Family, always_allowed: &[SocketAddr]) -> Rendered {
    let mut renderer = Renderer { family, plan, out: Rendered::default() };
    renderer.out.pods.insert(PODS_EGRESS, BTreeMap::new());
    renderer.out.pods.insert(PODS_INGRESS, BTreeMap::new());
    // Also where no pod is isolated: the kernel tracks connections only while some rule asks for it, and those that
    // exist when the first pod is isolated must go on.
    renderer.always_allowed(always_allowed);
    renderer.base_chains();
    let mut used: BTreeSet<&PolicyId> = BTreeSet::new();
    for ((address, direction), policies) in &plan.pods {
        if family_of(*address) == family {
            renderer.pod(*address, *direction, policies);
            used.extend(policies);
        }
    }
    for id in used {
        renderer.policy(id);
    }
    renderer.out
}

impl Renderer<'_> {
    fn address(&self) -> Field {
        if self.family == Family::Ipv6 { Field::Ipv6 } else { Field::Ipv4 }
    }

    fn words(&self) -> u32 {
        if self.family == Family::Ipv6 { 4 } else { 1 }
    }

    fn source(&self) -> Expression {
        let offset = if self.family == Family::Ipv6 { 8 } else { 12 };
        Expression::Payload { base: PayloadBase::Network, offset, len: self.words() * 4, to: 0 }
    }

    fn destination(&self) -> Expression {
        let offset = if self.family == Family::Ipv6 { 24 } else { 16 };
        Expression::Payload { base: PayloadBase::Network, offset, len: self.words() * 4, to: 0 }
    }

    fn set(&mut self, name: &str, key: Vec<Field>, interval: bool, elements: Vec<Element>) {
        self.out.sets.entry(name.to_owned()).or_insert(RenderedSet { key, interval, elements });
    }

    fn always_allowed(&mut self, addresses: &[SocketAddr]) {
        let own = addresses.iter().filter(|address| family_of(address.ip()) == self.family);
        let elements = own.map(|address| Element::of(place(*address))).collect();
        self.set(ALWAYS, vec![self.address(), Field::Port], false, elements);
    }

    fn base_chains(&mut self) {
        let established = || {
            const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
            vec![
                Expression::Ct { key: CtKey::State, direction: None, to: 0 },
                Expression::Bitwise {
                    register: 0,
                    to: 0,
                    mask: ESTABLISHED_OR_RELATED.to_ne_bytes().into(),
                    xor: vec![0; 4],
                },
                Expression::Compare { op: CmpOp::NotEqual, register: 0, value: vec![0; 4] },
                Expression::Verdict(Verdict::Accept),
            ]
        };
        let always = vec![
            self.destination(),
            Expression::Payload { base: PayloadBase::Transport, offset: 2, len: 2, to: self.words() },
            lookup(ALWAYS),
            Expression::Verdict(Verdict::Accept),
        ];
        let dispatch = |address: Expression, map: &str| {
            vec![address, Expression::VerdictMap { map: map.into(), key: 0 }]
        };
        let egress = vec![established(), always, dispatch(self.source(), PODS_EGRESS)];
        let ingress = vec![established(), dispatch(self.destination(), PODS_INGRESS)];
        let mut input = egress.clone();
        if self.family == Family::Ipv6 {
            input.insert(0, neighbour_discovery());
        }
        for (name, hook, priority, rules) in [
            ("egress", Hook::Forward, PRIORITY, egress),
            ("ingress", Hook::Forward, PRIORITY + 1, ingress),
            ("egress-to-node", Hook::Input, PRIORITY, input),
        ] {
            let base = Some(Base { chain_type: ChainType::Filter, hook, priority });
            self.out.chains.insert(name.into(), Chain { base, comment: String::new(), rules });
        }
    }

    fn pod(&mut self, address: IpAddr, direction: Direction, policies: &BTreeSet<PolicyId>) {
        let (map, prefix) = match direction {
            Direction::Ingress => (PODS_INGRESS, "in"),
            Direction::Egress => (PODS_EGRESS, "out"),
        };
        let name = format!("{prefix}-{address}");
        let mut rules: Vec<Vec<Expression>> =
            policies.iter().map(|id| vec![Expression::Verdict(Verdict::Jump(chain_of(id)))]).collect();
        rules.push(vec![Expression::Verdict(Verdict::Drop)]);
        self.out.chains.insert(name.clone(), Chain { base: None, comment: String::new(), rules });
        self.out.pods.entry(map).or_default().insert(address_bytes(address), name);
    }

    fn policy(&mut self, id: &PolicyId) {
        let mut rules = Vec::new();
        for (index, allowed) in self.plan.policies.get(id).into_iter().flatten().enumerate() {
            for peers in self.peers(&allowed.peers, id.direction) {
                for ports in self.ports(allowed, hash(&(id, index))) {
                    let mut rule = ports;
                    rule.extend(peers.iter().cloned());
                    rule.push(Expression::Verdict(Verdict::Accept));
                    rules.push(rule);
                }
            }
        }
        let comment = format!("{}/{}", id.namespace, id.name);
        self.out.chains.insert(chain_of(id), Chain { base: None, comment, rules });
    }

    /// The ways to be a peer; each is the beginning of a rule.
    fn peers(&mut self, peers: &Peers, direction: Direction) -> Vec<Vec<Expression>> {
        let Peers::Only { pods, ranges_v4, ranges_v6 } = peers else { return vec![Vec::new()] };
        let peer = if direction == Direction::Ingress { self.source() } else { self.destination() };
        let mut names: Vec<String> = pods.iter().map(|pods| self.pod_set(pods)).collect();
        let ranges = if self.family == Family::Ipv6 { ranges_v6 } else { ranges_v4 };
        names.extend(self.range_set(ranges));
        names.sort_unstable();
        names.dedup();
        names.iter().map(|name| vec![peer.clone(), lookup(name)]).collect()
    }

    fn pod_set(&mut self, pods: &PodSet) -> String {
        let name = format!("pods-{:016x}", pods.name);
        let addresses = of_family(&pods.addresses, self.family);
        let elements = addresses.map(|address| Element::of(address_bytes(address))).collect();
        self.set(&name, vec![self.address()], false, elements);
        name
    }

    fn range_set(&mut self, ranges: &[Range]) -> Option<String> {
        (!ranges.is_empty()).then(|| {
            let name = format!("ranges-{:016x}", hash(&ranges));
            let elements = interval_elements(self.family, ranges);
            self.set(&name, vec![self.address()], true, elements);
            name
        })
    }

    /// The ways to be on an allowed port; each is a part of a rule.
    fn ports(&mut self, allowed: &Allowed, rule: u64) -> Vec<Vec<Expression>> {
        let Some(ports) = &allowed.ports else { return vec![Vec::new()] };
        ports.iter().enumerate().map(|(index, port)| self.port(port, hash(&(rule, index)))).collect()
    }

    fn port(&mut self, port: &Port, name: u64) -> Vec<Expression> {
        let is = |protocol: Protocol| {
            [
                Expression::Meta { key: MetaKey::Protocol, to: 0 },
                Expression::Compare { op: CmpOp::Equal, register: 0, value: vec![protocol as u8] },
            ]
        };
        let load = |to| Expression::Payload { base: PayloadBase::Transport, offset: 2, len: 2, to };
        match port {
            Port::Numbers(protocol, 0, u16::MAX) => is(*protocol).into(),
            Port::Numbers(protocol, first, last) => {
                let mut out: Vec<Expression> = is(*protocol).into();
                out.push(load(0));
                let bytes = |port: &u16| port.to_be_bytes().to_vec();
                out.push(if first == last {
                    Expression::Compare { op: CmpOp::Equal, register: 0, value: bytes(first) }
                } else {
                    Expression::Range { register: 0, from: bytes(first), to: bytes(last) }
                });
                out
            }
            Port::Named(protocol, places) => {
                let own: Vec<SocketAddr> =
                    places.iter().filter(|place| family_of(place.ip()) == self.family).copied().collect();
                let name = format!("places-{name:016x}");
                let elements = own.into_iter().map(|own| Element::of(place(own))).collect();
                self.set(&name, vec![self.address(), Field::Port], false, elements);
                let mut out: Vec<Expression> = is(*protocol).into();
                out.extend([self.destination(), load(self.words()), lookup(&name)]);
                out
            }
        }
    }
}

fn lookup(set: &str) -> Expression {
    Expression::Lookup { set: set.into(), key: 0, data: None, negate: false }
}

/// How neighbours find each other: not what policies are about, and nothing works without it.
fn neighbour_discovery() -> Vec<Expression> {
    const ICMPV6: u8 = 58;
    const ROUTER_SOLICITATION: u8 = 133;
    const REDIRECT: u8 = 137;
    vec![
        Expression::Meta { key: MetaKey::Protocol, to: 0 },
        Expression::Compare { op: CmpOp::Equal, register: 0, value: vec![ICMPV6] },
        Expression::Payload { base: PayloadBase::Transport, offset: 0, len: 1, to: 0 },
        Expression::Range { register: 0, from: vec![ROUTER_SOLICITATION], to: vec![REDIRECT] },
        Expression::Verdict(Verdict::Accept),
    ]
}

/// An address and a port as a key.
fn place(place: SocketAddr) -> Vec<u8> {
    let mut key = address_bytes(place.ip());
    key.extend_from_slice(&place.port().to_be_bytes());
    key.extend_from_slice(&[0, 0]);
    key
}

/// Names are too long for the kernel; the comment of the chain's first rule has it in full.
fn chain_of(id: &PolicyId) -> String {
    let prefix = if id.direction == Direction::Ingress { "policy-in" } else { "policy-out" };
    format!("{prefix}-{:016x}", hash(id))
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

// === differences ===

struct Writer<'a> {
    family: Family,
    batch: &'a mut Batch,
}

/// Makes the table anew, whatever was in it before.
pub fn write_all(family: Family, wanted: &Rendered, batch: &mut Batch) {
    batch.add_table(family, TABLE);
    batch.delete_table(family, TABLE);
    batch.add_table(family, TABLE);
    let address = if family == Family::Ipv6 { Field::Ipv6 } else { Field::Ipv4 };
    for map in wanted.pods.keys() {
        let set =
            Set { name: map, key: &[address], data: Data::Verdict, interval: false, dynamic: false, size: 0 };
        batch.add_set(family, TABLE, &set);
    }
    write_changes(family, &Rendered::default(), wanted, batch);
}

/// Makes what is there what is wanted. Things are added before what refers to them, and deleted after it.
pub fn write_changes(family: Family, current: &Rendered, wanted: &Rendered, batch: &mut Batch) {
    let mut writer = Writer { family, batch };
    for (name, set) in &wanted.sets {
        writer.set(name, current.sets.get(name), set);
    }
    for (name, chain) in &wanted.chains {
        if !current.chains.contains_key(name) {
            writer.batch.add_chain(family, TABLE, name, chain.base);
        }
    }
    for (name, chain) in &wanted.chains {
        writer.rules(name, current.chains.get(name), chain);
    }
    for (map, pods) in &wanted.pods {
        writer.pods(map, current.pods.get(map), pods);
    }
    let gone: Vec<&String> =
        current.chains.keys().filter(|name| !wanted.chains.contains_key(*name)).collect();
    for chain in &gone {
        writer.batch.flush_chain(family, TABLE, chain);
    }
    for chain in gone {
        writer.batch.delete_chain(family, TABLE, chain);
    }
    for set in current.sets.keys().filter(|name| !wanted.sets.contains_key(*name)) {
        writer.batch.delete_set(family, TABLE, set);
    }
}

impl Writer<'_> {
    fn set(&mut self, name: &str, current: Option<&RenderedSet>, wanted: &RenderedSet) {
        if current.is_none() {
            let (key, interval) = (&wanted.key, wanted.interval);
            let set = Set { name, key, data: Data::None, interval, dynamic: false, size: 0 };
            self.batch.add_set(self.family, TABLE, &set);
        }
        let none = Vec::new();
        let current = current.map_or(&none, |set| &set.elements);
        if *current == wanted.elements {
            return;
        }
        let minus = |from: &[Element], what: &[Element]| -> Vec<Element> {
            let what: HashSet<&Element> = what.iter().collect();
            from.iter().filter(|element| !what.contains(element)).cloned().collect()
        };
        let (gone, new) = (minus(current, &wanted.elements), minus(&wanted.elements, current));
        self.batch.delete_elements(self.family, TABLE, name, &wanted.key, &gone);
        self.batch.add_elements(self.family, TABLE, name, &wanted.key, &new);
    }

    fn rules(&mut self, name: &str, current: Option<&Chain>, wanted: &Chain) {
        if current == Some(wanted) {
            return;
        }
        if current.is_some() {
            self.batch.flush_chain(self.family, TABLE, name);
        }
        for rule in &wanted.rules {
            self.batch.add_commented_rule(self.family, TABLE, name, rule, &wanted.comment);
        }
    }

    fn pods(
        &mut self,
        map: &str,
        current: Option<&BTreeMap<Vec<u8>, String>>,
        wanted: &BTreeMap<Vec<u8>, String>,
    ) {
        let address = if self.family == Family::Ipv6 { Field::Ipv6 } else { Field::Ipv4 };
        let none = BTreeMap::new();
        let current = current.unwrap_or(&none);
        let gone = current.keys().filter(|key| !wanted.contains_key(*key));
        let gone: Vec<Element> = gone.map(|key| Element::of(key.clone())).collect();
        let new = wanted.iter().filter(|(key, _)| !current.contains_key(*key));
        let new: Vec<Element> = new
            .map(|(key, chain)| Element::with_verdict(key.clone(), Verdict::Goto(chain.clone())))
            .collect();
        self.batch.delete_elements(self.family, TABLE, map, &[address], &gone);
        self.batch.add_elements(self.family, TABLE, map, &[address], &new);
    }
}
