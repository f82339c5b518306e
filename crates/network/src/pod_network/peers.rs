//! The way to pods of other nodes: what the kernel should have for them, and that it has it.
//!
//! With VXLAN, each node has a link `pintle.1`, whose MAC is made from the node's name, so that nobody needs to publish
//! it, and whose address is the first one of the node's block. For each peer there is a route to its block over that
//! address, a neighbour (that address has this MAC) and a forwarding entry (that MAC is behind this node's address).
//! Nothing is learned and nothing is flooded. With host gateways there is only a route, over the node's own address.
//!
//! Pure: [`Plan::of`], [`Wanted::of`]. Acting: [`run`], which compares with what the kernel has, so that leftovers of a
//! former run and what somebody removed are put right.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::gvr::NODES;
use api::view::Node;
use client::Informers;
use rt::Shutdown;
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::{LinkMessageBuilder, LinkVxlan};

use super::built_in::{BuiltIn, fnv, mac};
use super::link::{Mac, Route};
use super::namespace::Namespace;
use super::{Backend, Cidr, Error, Result};

/// The end of the tunnel on this node.
const LINK: &str = "pintle.1";
const VNI: u32 = 4096;
/// The port that Linux took before there was an official one, and that flannel uses; networks let it pass.
const PORT: u16 = 8472;
/// How often the kernel is looked at when nothing happens.
const RESYNC: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_secs(2);
/// Nodes often change together; they are taken together.
const SETTLE: Duration = Duration::from_millis(50);

/// Who this node is among the others.
#[derive(Clone, Debug)]
pub struct PeerOptions {
    pub node_name: String,
    /// The address that other nodes reach; it is on a link of this host.
    pub node_ip: IpAddr,
    pub backend: Backend,
}

/// A node elsewhere, as far as its pods have to be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Peer {
    mac: Mac,
    /// `InternalIP`s.
    addresses: Vec<IpAddr>,
    pod_cidrs: Vec<Cidr>,
}

/// What Nodes say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Plan {
    own: Vec<Cidr>,
    /// By name.
    peers: BTreeMap<String, Peer>,
}

/// What the kernel should have on the link to the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Wanted {
    routes: BTreeSet<Route>,
    neighbours: BTreeSet<(IpAddr, Mac)>,
    forwarding: BTreeSet<(Mac, IpAddr)>,
}

/// Keeps pods of other nodes reachable, and tells `network` which addresses are this node's, until `shutdown`.
pub async fn run(network: Arc<BuiltIn>, informers: Informers, options: PeerOptions, shutdown: Shutdown) {
    let nodes = informers.of(&NODES);
    let mut changes = nodes.subscribe();
    tokio::select! {
        () = nodes.synced() => {}
        () = shutdown.cancelled() => return,
    }
    let mut done = None;
    loop {
        let mut plan = Plan::default();
        nodes.for_each(|object| match object.view::<Node>() {
            Ok(node) => plan.add(&node, &options.node_name),
            Err(error) => tracing::warn!(?object, %error, "A node is not reached, because it cannot be read"),
        });
        let mut pause = RESYNC;
        if done.as_ref() != Some(&plan) {
            done = None;
            match apply(&network, &options, &plan).await {
                Ok(()) => done = Some(plan),
                Err(error) => {
                    let error = telemetry::chain(&error);
                    // Who has just come has no addresses for pods for a moment.
                    if plan.own.is_empty() {
                        tracing::debug!(%error, "The node waits for its addresses");
                    } else {
                        tracing::warn!(%error, "Pods of other nodes cannot be reached; trying again");
                    }
                    pause = RETRY;
                }
            }
        }
        let mut batch = Vec::new();
        let more = tokio::select! {
            more = changes.recv_batch(&mut batch) => {
                rt::sleep(SETTLE).await;
                more
            }
            // Looked at whatever was done.
            () = rt::sleep(pause) => { done = None; true }
            () = shutdown.cancelled() => false,
        };
        if !more {
            return;
        }
    }
}

impl Plan {
    fn add(&mut self, node: &Node, own: &str) {
        let texts = match node.spec.pod_cidrs.as_slice() {
            [] => std::slice::from_ref(&node.spec.pod_cidr),
            several => several,
        };
        let pod_cidrs: Vec<Cidr> = texts.iter().filter_map(|text| Cidr::parse(text)).collect();
        let name = node.metadata.name.as_str();
        if name == own {
            self.own = pod_cidrs;
            return;
        }
        let internal = node.status.addresses.iter().filter(|address| address.type_ == "InternalIP");
        let addresses: Vec<IpAddr> = internal.filter_map(|address| address.address.parse().ok()).collect();
        if !node.is_simulated() && !addresses.is_empty() && !pod_cidrs.is_empty() {
            self.peers.insert(name.to_owned(), Peer { mac: mac(fnv(name)), addresses, pod_cidrs });
        }
    }
}

impl Wanted {
    fn of(plan: &Plan, backend: Backend, node_ip: IpAddr, link: u32) -> Self {
        let mut wanted = Self::default();
        for peer in plan.peers.values() {
            let reached =
                |like: IpAddr| peer.addresses.iter().find(|ip| ip.is_ipv4() == like.is_ipv4()).copied();
            match backend {
                Backend::None => {}
                Backend::Vxlan => {
                    let Some(outer) = reached(node_ip) else { continue };
                    wanted.forwarding.insert((peer.mac, outer));
                    for to in &peer.pod_cidrs {
                        wanted.neighbours.insert((to.first(), peer.mac));
                        wanted.routes.insert(Route { to: *to, via: Some(to.first()), link });
                    }
                }
                Backend::HostGateway => {
                    for to in &peer.pod_cidrs {
                        if let Some(via) = reached(to.first()) {
                            wanted.routes.insert(Route { to: *to, via: Some(via), link });
                        }
                    }
                }
            }
        }
        wanted
    }
}

async fn apply(network: &BuiltIn, options: &PeerOptions, plan: &Plan) -> Result<()> {
    if plan.own.is_empty() {
        return Err(Error::Refused(format!("node {} has no spec.podCIDRs yet", options.node_name)));
    }
    network.set_pod_cidrs(&plan.own).await?;
    network.set_known_cidrs(plan.own.iter().chain(plan.peers.values().flat_map(|peer| &peer.pod_cidrs)));
    let host = network.host();
    if options.backend != Backend::Vxlan {
        host.delete_link(LINK).await?;
    }
    let link = match options.backend {
        Backend::None => return Ok(()),
        Backend::HostGateway => host.link_with(options.node_ip).await?,
        Backend::Vxlan => tunnel(host, options, network.mtu(), &plan.own).await?,
    };
    let wanted = Wanted::of(plan, options.backend, options.node_ip, link);
    make_so(host, link, &wanted).await?;
    tracing::debug!(peers = plan.peers.len(), "Pods of other nodes are reachable");
    Ok(())
}

/// This node's end of the tunnel, made anew where it is not as it should be.
async fn tunnel(host: &Namespace, options: &PeerOptions, mtu: u32, own: &[Cidr]) -> Result<u32> {
    // Set last: a link without it is not complete.
    let alias = format!("pintle {} {} {mtu} {own:?}", options.node_name, options.node_ip);
    match host.find_link(LINK).await? {
        Some(link) if link.alias == alias && link.is_up => return Ok(link.index),
        Some(_) => host.delete_link(LINK).await?,
        None => {}
    }
    let underlay = host.link_with(options.node_ip).await?;
    host.add_link(tunnel_message(options, underlay, mtu)).await?;
    host.set_parameters(vec![(format!("ipv6/conf/{LINK}/addr_gen_mode"), "1")]).await?;
    let link = host.link(LINK).await?.index;
    host.set_link_up(link).await?;
    for block in own {
        // From here the host itself talks to pods elsewhere, so that they answer through the tunnel.
        host.add_address(link, block.first()).await?;
    }
    host.set_link_alias(link, &alias).await?;
    Ok(link)
}

fn tunnel_message(options: &PeerOptions, underlay: u32, mtu: u32) -> LinkMessage {
    let builder = LinkMessageBuilder::<LinkVxlan>::new(LINK)
        .id(VNI)
        .dev(underlay)
        .port(PORT)
        .learning(false)
        .address(mac(fnv(&options.node_name)).to_vec())
        .mtu(mtu);
    match options.node_ip {
        IpAddr::V4(ip) => builder.local(ip).build(),
        IpAddr::V6(ip) => builder.local6(ip).build(),
    }
}

/// What is not wanted goes first: a block may have moved from one node to another.
async fn make_so(host: &Namespace, link: u32, wanted: &Wanted) -> Result<()> {
    let routes: BTreeSet<Route> = host.own_routes(link).await?.into_iter().collect();
    let (neighbours, forwarding) = host.permanent_neighbours(link).await?;
    for route in routes.difference(&wanted.routes) {
        host.delete_route(*route).await?;
    }
    for (address, _) in neighbours.difference(&wanted.neighbours) {
        host.delete_neighbour(link, *address).await?;
    }
    for (mac, address) in forwarding.difference(&wanted.forwarding) {
        host.delete_forwarding(link, *mac, *address).await?;
    }
    for (mac, address) in wanted.forwarding.difference(&forwarding) {
        host.set_forwarding(link, *mac, *address).await?;
    }
    for (address, mac) in wanted.neighbours.difference(&neighbours) {
        host.set_neighbour(link, *address, *mac).await?;
    }
    for route in wanted.routes.difference(&routes) {
        host.set_route(*route).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use apimachinery::{Object, json};

    use super::*;

    fn plan(nodes: &[(&str, &[&str], &[&str], bool)]) -> Plan {
        let mut plan = Plan::default();
        for (name, blocks, addresses, simulated) in nodes {
            let addresses: Vec<_> =
                addresses.iter().map(|ip| json!({"type": "InternalIP", "address": *ip})).collect();
            let mut node = json!({
                "apiVersion": "v1", "kind": "Node", "metadata": {"name": *name},
                "spec": {"podCIDRs": blocks.iter().map(|block| apimachinery::Value::from(*block)).collect::<Vec<_>>()},
                "status": {"addresses": addresses}
            });
            if *simulated {
                node.set_at(
                    &["metadata", "annotations", api::view::SIMULATED_ANNOTATION],
                    api::view::SIMULATED,
                );
            }
            plan.add(&Object::from_value(&node, 1, &[]).unwrap().view::<Node>().unwrap(), "own");
        }
        plan
    }

    #[test]
    fn only_real_nodes_with_addresses_and_blocks_are_peers() {
        let plan = plan(&[
            ("own", &["10.0.0.0/24"], &["192.0.2.1"], false),
            ("a", &["10.0.1.0/24", "fd00:1::/64"], &["192.0.2.2"], false),
            ("b", &[], &["192.0.2.3"], false),
            ("c", &["10.0.3.0/24"], &[], false),
            ("d", &["10.0.4.0/24"], &["192.0.2.5"], true),
        ]);
        assert_eq!(plan.own, [Cidr::parse("10.0.0.0/24").unwrap()]);
        assert_eq!(plan.peers.keys().collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn each_backend_wants_its_own_routes() {
        let plan = plan(&[("a", &["10.0.1.0/24", "fd00:1::/64"], &["192.0.2.2"], false)]);
        for (backend, routes, neighbours, forwarding) in [
            (Backend::None, &[][..], 0, 0),
            (Backend::Vxlan, &[("10.0.1.0/24", "10.0.1.0"), ("fd00:1::/64", "fd00:1::")], 2, 1),
            // It has no address of the other family.
            (Backend::HostGateway, &[("10.0.1.0/24", "192.0.2.2")], 0, 0),
        ] {
            let wanted = Wanted::of(&plan, backend, "192.0.2.1".parse().unwrap(), 7);
            let found: Vec<_> = wanted
                .routes
                .iter()
                .map(|route| (route.to.to_string(), route.via.unwrap().to_string()))
                .collect();
            let routes: Vec<_> =
                routes.iter().map(|(to, via)| ((*to).to_owned(), (*via).to_owned())).collect();
            assert_eq!(found, routes, "{backend:?}");
            assert_eq!(
                (wanted.neighbours.len(), wanted.forwarding.len()),
                (neighbours, forwarding),
                "{backend:?}"
            );
        }
    }
}
