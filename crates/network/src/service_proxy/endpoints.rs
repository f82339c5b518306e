//! Which endpoints of a port take traffic, as upstream's proxies choose them.
//!
//! Owns: the choice by readiness, topology hints and locality. Never touches: addresses of Services.
//!
//! Ready endpoints count, narrowed to those meant for this node or this zone when every ready one carries such a hint
//! and at least one is for us. Only when none is left do endpoints that are terminating but still serve.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::objects::{Endpoint, EndpointHints, EndpointSlice, Protocol};
use super::plan::Facts;
use crate::nftables::Family;

/// One endpoint of one port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) endpoint: &'a Endpoint,
}

/// Where traffic of a port goes: under the policies `Cluster` and `Local`. Sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chosen {
    pub cluster: Vec<SocketAddr>,
    pub local: Vec<SocketAddr>,
    /// The endpoints on this node, ready or taking over for ready ones; their own traffic may come back to them.
    pub on_node: Vec<SocketAddr>,
}

/// The endpoints of a port, by address; of those that stand in several slices the ready one counts.
pub(super) fn of_port<'a>(
    slices: &'a [&'a EndpointSlice],
    family: Family,
    port_name: &str,
    protocol: Protocol,
) -> BTreeMap<SocketAddr, Candidate<'a>> {
    let wanted_type = if family == Family::Ipv6 { "IPv6" } else { "IPv4" };
    let mut all: BTreeMap<SocketAddr, Candidate<'a>> = BTreeMap::new();
    for slice in slices.iter().filter(|slice| slice.address_type == wanted_type && slice.is_proxied()) {
        let port = slice.ports.iter().find(|port| {
            port.name.as_deref().unwrap_or_default() == port_name
                && Protocol::parse(port.protocol.as_deref().unwrap_or_default()) == Some(protocol)
        });
        let Some(number) = port.and_then(|port| u16::try_from(port.port?).ok()) else { continue };
        for endpoint in &slice.endpoints {
            let Some(address) = endpoint.addresses.first().and_then(|address| address.parse().ok()) else {
                continue;
            };
            let candidate = all.entry(SocketAddr::new(address, number)).or_insert(Candidate { endpoint });
            if endpoint.is_ready() && !candidate.endpoint.is_ready() {
                candidate.endpoint = endpoint;
            }
        }
    }
    all
}

pub(super) fn choose(candidates: &BTreeMap<SocketAddr, Candidate<'_>>, facts: &Facts) -> Chosen {
    let topology = Topology::of(candidates.values().map(|candidate| candidate.endpoint), facts);
    let is_local =
        |endpoint: &Endpoint| endpoint.node_name.as_ref().is_some_and(|name| *name == facts.node_name);
    let cluster = ready_or_terminating(candidates, |endpoint| topology.allows(endpoint, facts), |_| true);
    let local = ready_or_terminating(candidates, is_local, is_local);
    let on_node = cluster
        .iter()
        .filter(|address| candidates.get(address).is_some_and(|candidate| is_local(candidate.endpoint)))
        .chain(&local);
    let mut on_node: Vec<SocketAddr> = on_node.copied().collect();
    on_node.sort_unstable();
    on_node.dedup();
    Chosen { on_node, cluster, local }
}

/// The ready ones for which `ready` holds; when there are none, the terminating ones that serve and `fallback` admits.
fn ready_or_terminating(
    candidates: &BTreeMap<SocketAddr, Candidate<'_>>,
    ready: impl Fn(&Endpoint) -> bool,
    fallback: impl Fn(&Endpoint) -> bool,
) -> Vec<SocketAddr> {
    let select = |admits: &dyn Fn(&Endpoint) -> bool| -> Vec<SocketAddr> {
        candidates.iter().filter(|(_, own)| admits(own.endpoint)).map(|(address, _)| *address).collect()
    };
    let first = select(&|endpoint| endpoint.is_ready() && ready(endpoint));
    if !first.is_empty() {
        return first;
    }
    select(&|endpoint| endpoint.is_serving() && endpoint.is_terminating() && fallback(endpoint))
}

/// How far hints narrow the choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Topology {
    Anywhere,
    SameZone,
    SameNode,
}

impl Topology {
    fn of<'a>(endpoints: impl Iterator<Item = &'a Endpoint>, facts: &Facts) -> Self {
        let (mut all_nodes, mut all_zones, mut for_node, mut for_zone) = (true, true, false, false);
        for endpoint in endpoints.filter(|endpoint| endpoint.is_ready()) {
            let hints = endpoint.hints.as_ref();
            all_nodes &= hints.is_some_and(|hints| !hints.for_nodes.is_empty());
            all_zones &= hints.is_some_and(|hints| !hints.for_zones.is_empty());
            for_node |= hints.is_some_and(|hints| names_node(hints, facts));
            for_zone |= hints.is_some_and(|hints| names_zone(hints, facts));
        }
        if all_nodes && for_node {
            Self::SameNode
        } else if all_zones && for_zone {
            Self::SameZone
        } else {
            Self::Anywhere
        }
    }

    fn allows(self, endpoint: &Endpoint, facts: &Facts) -> bool {
        let hints = endpoint.hints.as_ref();
        match self {
            Self::Anywhere => true,
            Self::SameZone => hints.is_some_and(|hints| names_zone(hints, facts)),
            Self::SameNode => hints.is_some_and(|hints| names_node(hints, facts)),
        }
    }
}

fn names_node(hints: &EndpointHints, facts: &Facts) -> bool {
    hints.for_nodes.iter().any(|hint| hint.name == facts.node_name)
}

fn names_zone(hints: &EndpointHints, facts: &Facts) -> bool {
    !facts.zone.is_empty() && hints.for_zones.iter().any(|hint| hint.name == facts.zone)
}
