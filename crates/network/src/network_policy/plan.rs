//! Who may talk to the pods of this node, and to whom they may: policies resolved to addresses.
//!
//! Owns: the pure decision [`plan`], and [`Plan::allows`], which says what it means. Never touches: the kernel.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use api::view::{LabelSelector, Pod};
use apimachinery::{Selector, Str};

use super::objects::{Direction, IpBlock, NetworkPolicy, PolicyPeer, PolicyPort, PolicyRule, PortOrName};
use crate::nftables::Family;
use crate::service_proxy::Protocol;
use crate::service_proxy::cidr::{Cidr, Range, family_of, merged, number, without};

/// A namespace's labels.
pub type Namespaces = HashMap<Str, HashMap<Str, Str>>;

/// Everything that enforcement on one node needs to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The policies of each pod of this node that some policy isolates, by the pod's address and direction.
    pub pods: BTreeMap<(IpAddr, Direction), BTreeSet<PolicyId>>,
    pub policies: BTreeMap<PolicyId, Vec<Allowed>>,
}

/// One direction of one policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyId {
    pub namespace: Str,
    pub name: Str,
    pub direction: Direction,
}

/// What one rule allows: these peers on these ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    pub peers: Peers,
    /// None: everything, also what has no ports.
    pub ports: Option<Vec<Port>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peers {
    Anybody,
    Only { pods: Vec<Arc<PodSet>>, ranges_v4: Vec<Range>, ranges_v6: Vec<Range> },
}

/// The pods that a selector selects. Whoever is in it, its name stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSet {
    pub name: u64,
    pub addresses: BTreeSet<IpAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Port {
    /// Both ends included.
    Numbers(Protocol, u16, u16),
    /// Where the pods at the receiving end have a port of a name.
    Named(Protocol, BTreeSet<SocketAddr>),
}

/// Pods that have a network of their own, by namespace.
struct Pods<'a> {
    by_namespace: HashMap<&'a str, Vec<&'a Pod>>,
    namespaces: &'a Namespaces,
    /// Each selection is made once, however many rules have it.
    selections: HashMap<(Option<Selector>, Str, Selector), Selection<'a>>,
}

#[derive(Clone)]
struct Selection<'a> {
    pods: Arc<Vec<&'a Pod>>,
    set: Arc<PodSet>,
}

/// A policy whose selector cannot be read selects nothing; the API server does not let one in.
pub fn plan(policies: &[Arc<NetworkPolicy>], pods: &[Arc<Pod>], namespaces: &Namespaces, node: &str) -> Plan {
    let mut plan = Plan::default();
    let policies_of = by_namespace(policies);
    let is_ours = |pod: &&Arc<Pod>| {
        pod.spec.node_name == node
            && takes_part(pod)
            && policies_of.contains_key(pod.metadata.namespace.as_str())
    };
    let own: Vec<&Arc<Pod>> = pods.iter().filter(is_ours).collect();
    if own.is_empty() {
        return plan;
    }
    let mut resolver = Pods::of(pods, namespaces);
    for (namespace, policies) in &policies_of {
        let here: Vec<&Pod> =
            own.iter().filter(|pod| pod.metadata.namespace == *namespace).map(|pod| pod.as_ref()).collect();
        for policy in policies.iter().filter(|_| !here.is_empty()) {
            plan.add(policy, &here, &mut resolver);
        }
    }
    plan
}

fn by_namespace(policies: &[Arc<NetworkPolicy>]) -> BTreeMap<&str, Vec<&NetworkPolicy>> {
    let mut out: BTreeMap<&str, Vec<&NetworkPolicy>> = BTreeMap::new();
    for policy in policies {
        out.entry(&policy.metadata.namespace).or_default().push(policy);
    }
    out
}

/// Whether a pod has addresses that are its own, now.
fn takes_part(pod: &Pod) -> bool {
    !pod.spec.host_network && !matches!(pod.status.phase.as_str(), "Succeeded" | "Failed") && has_address(pod)
}

fn has_address(pod: &Pod) -> bool {
    !pod.status.pod_ips.is_empty() || !pod.status.pod_ip.is_empty()
}

fn addresses(pod: &Pod) -> impl Iterator<Item = IpAddr> {
    let single = pod.status.pod_ips.is_empty().then_some(&pod.status.pod_ip);
    pod.status.pod_ips.iter().map(|ip| &ip.ip).chain(single).filter_map(|ip| ip.parse().ok())
}

fn selector(labels: &LabelSelector) -> Selector {
    labels.selector().unwrap_or_else(|_| Selector::nothing())
}

fn selects(selector: &Selector, pod: &Pod) -> bool {
    selector.matches(|key| pod.metadata.labels.get(key).map(Str::as_str))
}

impl Plan {
    fn add<'a>(&mut self, policy: &'a NetworkPolicy, own: &[&'a Pod], pods: &mut Pods<'a>) {
        let selector = selector(&policy.spec.pod_selector);
        let selected: Vec<&Pod> = own.iter().filter(|pod| selects(&selector, pod)).copied().collect();
        if selected.is_empty() {
            return;
        }
        for direction in [Direction::Ingress, Direction::Egress] {
            if !policy.isolates(direction) {
                continue;
            }
            let id = PolicyId {
                namespace: policy.metadata.namespace.clone(),
                name: policy.metadata.name.clone(),
                direction,
            };
            for address in selected.iter().flat_map(|pod| addresses(pod)) {
                self.pods.entry((address, direction)).or_default().insert(id.clone());
            }
            let rules = policy.rules(direction).iter();
            let allowed = rules.map(|rule| pods.allowed(rule, &id, &selected)).collect();
            self.policies.insert(id, allowed);
        }
    }

    /// Whether a new connection may be made, as far as this node decides: it does for its own pods. `port` is that of
    /// the destination; `None` for a protocol without ports.
    pub fn allows(&self, from: IpAddr, to: IpAddr, port: Option<(Protocol, u16)>) -> bool {
        self.allows_direction(Direction::Egress, from, to, to, port)
            && self.allows_direction(Direction::Ingress, to, from, to, port)
    }

    fn allows_direction(
        &self,
        direction: Direction,
        own: IpAddr,
        peer: IpAddr,
        to: IpAddr,
        port: Option<(Protocol, u16)>,
    ) -> bool {
        let Some(policies) = self.pods.get(&(own, direction)) else { return true };
        let rules = policies.iter().filter_map(|id| self.policies.get(id)).flatten();
        rules.into_iter().any(|rule| {
            rule.peers.contain(peer)
                && rule.ports.as_ref().is_none_or(|ports| {
                    port.is_some_and(|(protocol, port)| ports.iter().any(|own| own.is(protocol, to, port)))
                })
        })
    }
}

impl Peers {
    fn contain(&self, address: IpAddr) -> bool {
        match self {
            Self::Anybody => true,
            Self::Only { pods, ranges_v4, ranges_v6 } => {
                let ranges = if address.is_ipv4() { ranges_v4 } else { ranges_v6 };
                pods.iter().any(|pods| pods.addresses.contains(&address))
                    || ranges.iter().any(|(first, last)| (first..=last).contains(&&number(address)))
            }
        }
    }
}

impl Port {
    fn is(&self, protocol: Protocol, to: IpAddr, port: u16) -> bool {
        match self {
            Self::Numbers(own, first, last) => *own == protocol && (first..=last).contains(&&port),
            Self::Named(own, places) => *own == protocol && places.contains(&SocketAddr::new(to, port)),
        }
    }
}

impl<'a> Pods<'a> {
    fn of(pods: &'a [Arc<Pod>], namespaces: &'a Namespaces) -> Self {
        let mut by_namespace: HashMap<&str, Vec<&Pod>> = HashMap::new();
        for pod in pods.iter().filter(|pod| takes_part(pod)) {
            by_namespace.entry(&pod.metadata.namespace).or_default().push(pod);
        }
        Self { by_namespace, namespaces, selections: HashMap::new() }
    }

    fn allowed(&mut self, rule: &PolicyRule, id: &PolicyId, selected: &[&'a Pod]) -> Allowed {
        let mut ranges: [Vec<Range>; 2] = [Vec::new(), Vec::new()];
        let mut selections: Vec<Selection<'a>> = Vec::new();
        for peer in &rule.peers {
            match &peer.ip_block {
                Some(block) => add_block(block, &mut ranges),
                None => selections.push(self.select(peer, &id.namespace)),
            }
        }
        let [ranges_v4, ranges_v6] = ranges.map(merged);
        let peers = if rule.peers.is_empty() {
            Peers::Anybody
        } else {
            let pods = selections.iter().map(|selection| selection.set.clone()).collect();
            Peers::Only { pods, ranges_v4, ranges_v6 }
        };
        // A name means what the pods at the receiving end call so.
        let receivers: Vec<&Pod> = match id.direction {
            Direction::Ingress => selected.to_vec(),
            Direction::Egress if rule.peers.is_empty() => {
                self.by_namespace.values().flatten().copied().collect()
            }
            Direction::Egress => {
                selections.iter().flat_map(|selection| selection.pods.iter()).copied().collect()
            }
        };
        let ports = rule.ports.iter().filter_map(|port| resolve(port, &receivers)).collect();
        Allowed { peers, ports: (!rule.ports.is_empty()).then_some(ports) }
    }

    fn select(&mut self, peer: &PolicyPeer, own_namespace: &Str) -> Selection<'a> {
        let pod_selector = peer.pod_selector.as_ref().map_or(Selector::everything(), selector);
        let namespace_selector = peer.namespace_selector.as_ref().map(selector);
        let home = if namespace_selector.is_some() { Str::default() } else { own_namespace.clone() };
        let key = (namespace_selector, home, pod_selector);
        if let Some(known) = self.selections.get(&key) {
            return known.clone();
        }
        let (namespace_selector, home, pod_selector) = &key;
        let in_scope = |namespace: &str| match namespace_selector {
            None => *home == namespace,
            Some(selector) => self
                .namespaces
                .get(namespace)
                .is_some_and(|labels| selector.matches(|key| labels.get(key).map(Str::as_str))),
        };
        let scope = self.by_namespace.iter().filter(|(namespace, _)| in_scope(namespace));
        let pods: Vec<&Pod> =
            scope.flat_map(|(_, pods)| pods).filter(|pod| selects(pod_selector, pod)).copied().collect();
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let addresses = pods.iter().flat_map(|pod| addresses(pod)).collect();
        let set = Arc::new(PodSet { name: hasher.finish(), addresses });
        let selection = Selection { pods: Arc::new(pods), set };
        self.selections.insert(key, selection.clone());
        selection
    }
}

fn add_block(block: &IpBlock, [v4, v6]: &mut [Vec<Range>; 2]) {
    let Some(cidr) = Cidr::parse(&block.cidr) else { return };
    let except = block.except.iter().filter_map(|text| Cidr::parse(text));
    let except: Vec<Range> =
        except.filter(|own| own.family() == cidr.family()).map(|own| own.range()).collect();
    let ranges = if cidr.family() == Family::Ipv6 { v6 } else { v4 };
    ranges.extend(without(cidr.range(), &except));
}

/// `None` for what no port is.
fn resolve(port: &PolicyPort, receivers: &[&Pod]) -> Option<Port> {
    let protocol = Protocol::parse(port.protocol.as_deref().unwrap_or_default())?;
    match &port.port {
        None => Some(Port::Numbers(protocol, 0, u16::MAX)),
        Some(PortOrName::Number(number)) => {
            let first = u16::try_from(*number).ok()?;
            let last = port.end_port.map_or(Some(first), |end| u16::try_from(end).ok())?;
            (first <= last).then_some(Port::Numbers(protocol, first, last))
        }
        Some(PortOrName::Name(name)) => {
            let places = receivers.iter().flat_map(|pod| {
                let numbers: Vec<u16> = named_ports(pod, name, protocol).collect();
                addresses(pod).flat_map(move |address| {
                    numbers.clone().into_iter().map(move |number| SocketAddr::new(address, number))
                })
            });
            Some(Port::Named(protocol, places.collect()))
        }
    }
}

fn named_ports(pod: &Pod, name: &str, protocol: Protocol) -> impl Iterator<Item = u16> {
    let sidecars = pod.spec.init_containers.iter().filter(|container| container.restart_policy == "Always");
    let ports = pod.spec.containers.iter().chain(sidecars).flat_map(|container| &container.ports);
    ports
        .filter(move |port| port.name == name && Protocol::parse(&port.protocol) == Some(protocol))
        .filter_map(|port| u16::try_from(port.container_port).ok())
}

/// The addresses of a family, for a set of it.
pub(super) fn of_family(addresses: &BTreeSet<IpAddr>, family: Family) -> impl Iterator<Item = IpAddr> {
    addresses.iter().copied().filter(move |address| family_of(*address) == family)
}
