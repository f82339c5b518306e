//! What a Service asks of this node: its addresses, and the endpoints behind them.
//!
//! Owns: the pure decision [`plan`]. Never touches: numbers of groups, elements, the kernel.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use apimachinery::Str;

use super::cidr::{Cidr, family_of};
use super::endpoints::{self, Chosen};
use super::objects::{EndpointSlice, Protocol, Service, ServicePort};
use crate::nftables::Family;

/// How long a client stays with its endpoint when the Service does not say.
const AFFINITY_SECONDS_DEFAULT: u32 = 10_800;

/// What the plan depends on besides the API's objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    pub node_name: Str,
    /// `topology.kubernetes.io/zone` of this node; empty when it has none.
    pub zone: Str,
    /// Addresses on which node ports are served.
    pub node_addresses: Vec<IpAddr>,
}

/// A port of a Service, in one address family.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortKey {
    pub namespace: Str,
    pub service: Str,
    pub port: Str,
    pub protocol: Protocol,
    pub family: Family,
}

/// What happens to traffic that comes to an address; the numbers are those in the kernel's map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Inside the cluster, to any endpoint.
    ClusterIp = 1,
    /// Inside the cluster, to endpoints of this node.
    ClusterIpLocal = 2,
    /// From anywhere, to any endpoint, which sees this node as the client.
    External = 3,
    /// From anywhere, to endpoints of this node, which see the client.
    ExternalLocal = 4,
    /// As `External`, for the allowed clients only.
    ExternalFirewalled = 5,
    ExternalLocalFirewalled = 6,
    /// A port of this node that belongs to one pod, which sees the client.
    HostPort = 7,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Frontend {
    pub address: IpAddr,
    pub port: u16,
    pub kind: Kind,
}

/// Everything that the kernel has to know of one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortPlan {
    pub key: PortKey,
    pub frontends: Vec<Frontend>,
    pub endpoints: Chosen,
    /// 0: every connection goes anywhere.
    pub affinity_seconds: u32,
    /// Clients that may come to the firewalled addresses.
    pub source_ranges: Vec<Cidr>,
}

/// What load balancers outside ask of this node, on a port of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    pub port: u16,
    /// How many endpoints on this node are ready.
    pub local_endpoints: usize,
}

/// What one Service asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServicePlan {
    pub ports: Vec<PortPlan>,
    pub cluster_ips: Vec<IpAddr>,
    pub health_check: Option<HealthCheck>,
}

/// Nothing for a Service that has no address or belongs to another proxy.
pub fn plan(service: &Service, slices: &[&EndpointSlice], facts: &Facts) -> ServicePlan {
    if !service.is_proxied() {
        return ServicePlan::default();
    }
    let mut out = ServicePlan { cluster_ips: service.cluster_ips().collect(), ..ServicePlan::default() };
    let families: BTreeSet<Family> = out.cluster_ips.iter().map(|ip| family_of(*ip)).collect();
    let mut local_ready: BTreeSet<IpAddr> = BTreeSet::new();
    for port in &service.spec.ports {
        for family in &families {
            out.ports.extend(plan_port(service, slices, port, *family, facts, &mut local_ready));
        }
    }
    let health_port = u16::try_from(service.spec.health_check_node_port).unwrap_or(0);
    if health_port > 0 && service.is_load_balancer() && service.is_external_local() {
        out.health_check = Some(HealthCheck { port: health_port, local_endpoints: local_ready.len() });
    }
    out
}

fn plan_port(
    service: &Service,
    slices: &[&EndpointSlice],
    port: &ServicePort,
    family: Family,
    facts: &Facts,
    local_ready: &mut BTreeSet<IpAddr>,
) -> Option<PortPlan> {
    let protocol = Protocol::parse(&port.protocol)?;
    let number = u16::try_from(port.port).ok().filter(|number| *number > 0)?;
    let candidates = endpoints::of_port(slices, family, &port.name, protocol);
    let ready_here = candidates.iter().filter(|(_, candidate)| {
        candidate.endpoint.is_ready()
            && candidate.endpoint.node_name.as_ref().is_some_and(|name| *name == facts.node_name)
    });
    local_ready.extend(ready_here.map(|(address, _)| address.ip()));
    let mut endpoints = endpoints::choose(&candidates, facts);
    let frontends = frontends(service, port, number, family, facts);
    if !frontends.iter().any(|frontend| frontend.kind.is_local()) {
        endpoints.local.clear();
    }
    let key = PortKey {
        namespace: service.metadata.namespace.clone(),
        service: service.metadata.name.clone(),
        port: port.name.clone(),
        protocol,
        family,
    };
    let source_ranges = source_ranges(service, family, facts);
    Some(PortPlan { key, frontends, endpoints, affinity_seconds: affinity_seconds(service), source_ranges })
}

fn frontends(
    service: &Service,
    port: &ServicePort,
    number: u16,
    family: Family,
    facts: &Facts,
) -> Vec<Frontend> {
    let of_family = |address: &IpAddr| family_of(*address) == family;
    let internal = if service.is_internal_local() { Kind::ClusterIpLocal } else { Kind::ClusterIp };
    let (external, firewalled) = if service.is_external_local() {
        (Kind::ExternalLocal, Kind::ExternalLocalFirewalled)
    } else {
        (Kind::External, Kind::ExternalFirewalled)
    };
    let mut out: Vec<Frontend> = Vec::new();
    let mut add = |address: IpAddr, port: u16, kind: Kind| {
        if !out.iter().any(|own| own.address == address && own.port == port) {
            out.push(Frontend { address, port, kind });
        }
    };
    for address in service.cluster_ips().filter(of_family) {
        add(address, number, internal);
    }
    for address in service.spec.external_ips.iter().filter_map(|ip| ip.parse().ok()).filter(of_family) {
        add(address, number, external);
    }
    if service.is_load_balancer() {
        let kind = if service.spec.load_balancer_source_ranges.is_empty() { external } else { firewalled };
        for address in load_balancer_ips(service).filter(of_family) {
            add(address, number, kind);
        }
    }
    let node_port = u16::try_from(port.node_port).unwrap_or(0);
    if node_port > 0 && matches!(service.spec.type_.as_str(), "NodePort" | "LoadBalancer") {
        for address in facts.node_addresses.iter().copied().filter(of_family) {
            add(address, node_port, external);
        }
    }
    out
}

/// The load balancer's addresses that this node answers for itself.
fn load_balancer_ips(service: &Service) -> impl Iterator<Item = IpAddr> {
    let ingress = service.status.load_balancer.ingress.iter();
    ingress
        .filter(|ingress| ingress.ip_mode.as_deref().is_none_or(|mode| mode == "VIP"))
        .filter_map(|ingress| ingress.ip.parse().ok())
}

/// The allowed clients. Where this node is one of them, so are the load balancer's addresses: a node that talks to
/// such an address may do so from that address.
fn source_ranges(service: &Service, family: Family, facts: &Facts) -> Vec<Cidr> {
    let ranges = service.spec.load_balancer_source_ranges.iter().filter_map(|text| Cidr::parse(text));
    let mut ranges: Vec<Cidr> = ranges.filter(|range| range.family() == family).collect();
    if facts.node_addresses.iter().any(|address| ranges.iter().any(|range| range.contains(*address))) {
        let own = load_balancer_ips(service).filter(|address| family_of(*address) == family);
        ranges.extend(own.filter_map(|address| Cidr::parse(&address.to_string())));
    }
    ranges.sort_unstable();
    ranges.dedup();
    ranges
}

fn affinity_seconds(service: &Service) -> u32 {
    if service.spec.session_affinity != "ClientIP" {
        return 0;
    }
    let config = service.spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    config
        .and_then(|config| config.timeout_seconds)
        .filter(|seconds| *seconds > 0)
        .unwrap_or(AFFINITY_SECONDS_DEFAULT)
}

impl Kind {
    pub fn is_local(self) -> bool {
        matches!(self, Self::ClusterIpLocal | Self::ExternalLocal | Self::ExternalLocalFirewalled)
    }
}

/// A port of this node that leads to one pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    pub protocol: Protocol,
    /// `None`: every address of the node.
    pub host_ip: Option<IpAddr>,
    pub host_port: u16,
    pub pod: SocketAddr,
}

/// The port of a pod as if it were a Service. One that is on every address of the node is on its loopback, too, in IPv4;
/// the kernel does not let packets of `::1` leave.
pub fn plan_host_port(host_port: &HostPort, facts: &Facts) -> PortPlan {
    let family = family_of(host_port.pod.ip());
    let addresses = match host_port.host_ip.filter(|ip| !ip.is_unspecified()) {
        Some(address) => vec![address],
        None => {
            let mut addresses = facts.node_addresses.clone();
            addresses.push(Ipv4Addr::LOCALHOST.into());
            addresses
        }
    };
    let frontend = |address| Frontend { address, port: host_port.host_port, kind: Kind::HostPort };
    let frontends =
        addresses.into_iter().filter(|address| family_of(*address) == family).map(frontend).collect();
    let pod = vec![host_port.pod];
    PortPlan {
        key: PortKey {
            namespace: Str::default(),
            service: host_port.host_ip.map(|ip| ip.to_string()).unwrap_or_default().into(),
            port: host_port.host_port.to_string().into(),
            protocol: host_port.protocol,
            family,
        },
        frontends,
        endpoints: Chosen { cluster: pod.clone(), local: Vec::new(), on_node: pod },
        affinity_seconds: 0,
        source_ranges: Vec::new(),
    }
}
