//! What is answered to a question about the cluster's names: the Kubernetes DNS specification, version 1.1.0, as
//! upstream's CoreDNS plugin carries it out with kubeadm's configuration (`pods insecure`, `ttl 30`).
//!
//! Hot path. Pure: an index and a question in, bytes out.

use std::net::IpAddr;

use super::index::{Endpoint, Index, Kind, Port, Service};
use super::wire::{CLASS_IN, Name, Owner, Query, Reply, Section, Suspended, kind, rcode};

/// Of everything but the version of the specification.
const TTL: u32 = 30;
const VERSION: &str = "1.1.0";
const VERSION_TTL: u32 = 28_800;
/// A name below the zone has at most the labels of `_port._protocol.service.namespace.svc`.
const LABELS_MAX: usize = 5;
/// Aliases that are followed for one question.
const ALIASES_MAX: usize = 7;
/// Refresh, retry, expire of the zone, for secondaries that do not exist.
const SOA_TIMES: [u32; 3] = [7200, 1800, 86_400];
/// The Service of the cluster's DNS, which is the zone's name server.
const DNS_SERVICE: (&str, &str) = ("kube-system", "kube-dns");

/// The names of a cluster.
pub(super) struct Zone {
    name: Name,
    /// `ns.dns.<zone>`.
    name_server: Name,
}

/// What became of a question.
#[derive(Debug)]
pub(super) enum Outcome {
    Answered,
    /// Not ours: nothing was written.
    Foreign,
    /// An alias of something that is not ours: the answer waits for what that is.
    Alias(Box<(Name, Suspended)>),
}

/// What a name of the zone is.
enum Found<'a> {
    Nothing,
    /// It is part of other names.
    Empty,
    Apex,
    NameServer,
    Version,
    Pod(IpAddr),
    Cluster {
        addresses: &'a [IpAddr],
        ports: &'a [Port],
        wanted: Wanted<'a>,
        labels: [&'a str; 2],
    },
    Endpoints {
        of: &'a Service,
        host: &'a str,
        wanted: Wanted<'a>,
        labels: [&'a str; 2],
    },
    Alias(&'a Name),
}

/// The port and the protocol that a name begins with; empty for all.
#[derive(Clone, Copy, Default)]
struct Wanted<'a> {
    port: &'a str,
    protocol: &'a str,
}

/// A question under way: what is asked of whom.
struct Asked<'a> {
    index: &'a Index,
    kind: u16,
    /// Which of several addresses comes first.
    turn: usize,
}

impl Wanted<'_> {
    fn matches(&self, port: &Port) -> bool {
        port.matches(self.port, self.protocol)
    }
}

impl Zone {
    /// `None` where the domain cannot be a name.
    pub fn new(domain: &str) -> Option<Self> {
        let name = Name::from_text(domain)?;
        let name_server = Name::below(&["ns", "dns"], &name)?;
        Some(Self { name, name_server })
    }

    pub fn contains(&self, name: &Name) -> bool {
        name.within(&self.name).is_some()
    }

    /// Writes the answer, if it is this zone's. `turn` decides which of several addresses comes first.
    pub fn answer(
        &self,
        index: &Index,
        query: &Query<'_>,
        limit: usize,
        turn: usize,
        out: &mut Vec<u8>,
    ) -> Outcome {
        if query.class != CLASS_IN {
            return Outcome::Foreign;
        }
        let Some(zone_at) = query.name.within(&self.name) else {
            return self.answer_reverse(index, query, limit, out);
        };
        let mut reply = Reply::to(query, limit, out);
        reply.authoritative();
        let asked = Asked { index, kind: query.kind, turn };
        let code = match self.resolve(&asked, &query.name, zone_at, Owner::Question, 0, &mut reply) {
            Ok(code) => code,
            Err(target) => return Outcome::Alias(Box::new((*target, reply.suspend()))),
        };
        if !reply.has_answers() {
            self.write_authority(zone_at, &mut reply);
        }
        reply.finish(code);
        Outcome::Answered
    }

    /// Writes what a name is and returns the code of the answer; or the name outside of the zone that decides it.
    fn resolve(
        &self,
        asked: &Asked<'_>,
        name: &Name,
        zone_at: usize,
        owner: Owner<'_>,
        aliases: usize,
        reply: &mut Reply<'_>,
    ) -> Result<u8, Box<Name>> {
        let target = match self.find(asked.index, name, zone_at) {
            Found::Alias(target) => target,
            found => return Ok(self.write(asked, &found, owner, reply)),
        };
        reply.name(owner, kind::CNAME, TTL, target);
        if asked.kind == kind::CNAME {
            return Ok(rcode::NO_ERROR);
        }
        if aliases == ALIASES_MAX {
            return Ok(rcode::SERVER_FAILURE);
        }
        match target.within(&self.name) {
            Some(zone_at) => self.resolve(asked, target, zone_at, Owner::Name(target), aliases + 1, reply),
            None => Err(Box::new(target.clone())),
        }
    }

    fn find<'a>(&self, index: &'a Index, name: &'a Name, zone_at: usize) -> Found<'a> {
        if zone_at == 0 {
            return Found::Apex;
        }
        let mut labels = [""; LABELS_MAX];
        let mut count = 0;
        let mut before = 0;
        for label in name.labels() {
            if before == zone_at {
                break;
            }
            before += 1 + label.len();
            let (Some(place), Ok(text)) = (labels.get_mut(count), std::str::from_utf8(label)) else {
                return Found::Nothing;
            };
            *place = text;
            count += 1;
        }
        // From the right, as names are read: what is left of `namespace.svc` comes in `rest`.
        let (rest, kind) = match &labels[..count] {
            ["svc" | "pod"] => return Found::Empty,
            ["dns-version"] => return Found::Version,
            ["ns", "dns"] => return Found::NameServer,
            [rest @ .., kind @ ("svc" | "pod")] => (rest, *kind),
            _ => return Found::Nothing,
        };
        let Some((namespace, rest)) = rest.split_last() else { return Found::Empty };
        if !index.has_namespace(namespace) {
            return Found::Nothing;
        }
        match (kind, rest) {
            (_, []) => Found::Empty,
            ("pod", [pod]) => pod_address(pod).map_or(Found::Nothing, Found::Pod),
            ("svc", [before @ .., service]) => find_service(index, namespace, service, before),
            _ => Found::Nothing,
        }
    }

    fn write(&self, asked: &Asked<'_>, found: &Found<'_>, owner: Owner<'_>, reply: &mut Reply<'_>) -> u8 {
        match found {
            Found::Nothing => return rcode::NAME_ERROR,
            Found::Empty | Found::Alias(_) => {}
            Found::Apex => self.write_apex(asked, owner, reply),
            Found::NameServer => write_name_server(asked, Section::Answer, owner, reply),
            Found::Version if asked.kind == kind::TXT => reply.text(owner, VERSION_TTL, VERSION),
            Found::Version => {}
            Found::Pod(address) => write_addresses(asked, [*address].iter(), owner, reply),
            Found::Cluster { addresses, ports, wanted, labels } => {
                let ports = ports.iter().filter(|port| wanted.matches(port));
                if asked.kind != kind::SRV {
                    write_addresses(asked, addresses.iter(), owner, reply);
                    return rcode::NO_ERROR;
                }
                let Some(target) = self.service_name("", labels) else { return rcode::NO_ERROR };
                let weight = weight(ports.clone().count() * addresses.len());
                for number in ports.filter_map(|port| port.number) {
                    reply.service(owner, TTL, weight, number, &target);
                }
                if reply.has_answers() {
                    for address in *addresses {
                        reply.address(Section::Additional, Owner::Name(&target), TTL, *address);
                    }
                }
            }
            Found::Endpoints { of, host, wanted, labels } => {
                self.write_endpoints(asked, of, host, *wanted, labels, owner, reply);
            }
        }
        rcode::NO_ERROR
    }

    #[expect(clippy::too_many_arguments, reason = "they are the parts of one thing that was found")]
    fn write_endpoints(
        &self,
        asked: &Asked<'_>,
        service: &Service,
        host: &str,
        wanted: Wanted<'_>,
        labels: &[&str; 2],
        owner: Owner<'_>,
        reply: &mut Reply<'_>,
    ) {
        let endpoints = &service.endpoints;
        let meant = |visit: &mut dyn FnMut(&Endpoint)| {
            let fits = |endpoint: &&Endpoint| endpoint.ports.iter().any(|port| wanted.matches(port));
            match host {
                "" => turned(&endpoints.all, asked.turn).filter(fits).for_each(visit),
                host => {
                    let places = endpoints.by_host.get(host).into_iter().flatten();
                    places.map(|place| &endpoints.all[*place]).filter(fits).for_each(visit);
                }
            }
        };
        if asked.kind != kind::SRV {
            meant(&mut |endpoint| write_addresses(asked, [endpoint.address].iter(), owner, reply));
            return;
        }
        let mut count = 0;
        meant(&mut |endpoint| count += endpoint.ports.iter().filter(|port| wanted.matches(port)).count());
        let weight = weight(count);
        meant(&mut |endpoint| {
            let Some(target) = self.service_name(&endpoint.host, labels) else { return };
            // The same host with another address (of the other family) has the same records.
            let places = endpoints.by_host.get(&endpoint.host).map_or(&[][..], Vec::as_slice);
            let earlier = |port: &Port| {
                let others = places.iter().map(|place| &endpoints.all[*place]);
                others
                    .take_while(|other| !std::ptr::eq(*other, endpoint))
                    .any(|other| other.ports.contains(port))
            };
            for port in endpoint.ports.iter().filter(|port| wanted.matches(port) && !earlier(port)) {
                if let Some(number) = port.number {
                    reply.service(owner, TTL, weight, number, &target);
                }
            }
        });
        if reply.has_answers() {
            meant(&mut |endpoint| {
                if let Some(target) = self.service_name(&endpoint.host, labels) {
                    reply.address(Section::Additional, Owner::Name(&target), TTL, endpoint.address);
                }
            });
        }
    }

    fn write_apex(&self, asked: &Asked<'_>, owner: Owner<'_>, reply: &mut Reply<'_>) {
        match asked.kind {
            kind::SOA => self.write_soa(Section::Answer, owner, reply),
            kind::NS => {
                reply.name(owner, kind::NS, TTL, &self.name_server);
                write_name_server(asked, Section::Additional, Owner::Name(&self.name_server), reply);
            }
            _ => {}
        }
    }

    /// Says how long it may be believed that there is nothing.
    fn write_authority(&self, zone_at: usize, reply: &mut Reply<'_>) {
        self.write_soa(Section::Authority, Owner::QuestionFrom(zone_at), reply);
    }

    fn write_soa(&self, section: Section, owner: Owner<'_>, reply: &mut Reply<'_>) {
        let serial = rt::now().as_second() as u32;
        reply.record(section, owner, kind::SOA, TTL, |out| {
            out.extend(self.name_server.as_bytes());
            out.extend(b"\x0ahostmaster");
            out.extend(self.name.as_bytes());
            out.extend(serial.to_be_bytes());
            SOA_TIMES.iter().for_each(|time| out.extend(time.to_be_bytes()));
            out.extend(TTL.to_be_bytes());
        });
    }

    /// The name of an address, if it is one of a Service or of an endpoint that has a name of its own. Others are
    /// left to whoever else may know.
    fn answer_reverse(&self, index: &Index, query: &Query<'_>, limit: usize, out: &mut Vec<u8>) -> Outcome {
        let Some(address) = reverse_address(&query.name) else { return Outcome::Foreign };
        let mut targets: Vec<Name> = Vec::new();
        match index.service_of(address) {
            Some((service, namespace)) => targets.extend(self.service_name("", &[service, namespace])),
            None => targets.extend(
                index
                    .endpoints_of(address)
                    .iter()
                    .filter_map(|(host, service, namespace)| self.service_name(host, &[service, namespace])),
            ),
        }
        if targets.is_empty() {
            return Outcome::Foreign;
        }
        let mut reply = Reply::to(query, limit, out);
        reply.authoritative();
        if query.kind == kind::PTR {
            for target in &targets {
                reply.name(Owner::Question, kind::PTR, TTL, target);
            }
        }
        reply.finish(rcode::NO_ERROR);
        Outcome::Answered
    }

    /// `[host.]service.namespace.svc.<zone>`.
    fn service_name(&self, host: &str, [service, namespace]: &[&str; 2]) -> Option<Name> {
        let labels = [host, service, namespace, "svc"];
        Name::below(if host.is_empty() { &labels[1..] } else { &labels }, &self.name)
    }
}

/// `before` is what stands left of the Service: nothing, an endpoint, or a port and a protocol.
fn find_service<'a>(index: &'a Index, namespace: &'a str, service: &'a str, before: &[&'a str]) -> Found<'a> {
    let Some(found) = index.service(namespace, service) else { return Found::Nothing };
    let plain = |label: &'a str| label.strip_prefix('_').unwrap_or(label);
    let (host, wanted) = match before {
        [] => ("", Wanted::default()),
        [host] => (*host, Wanted::default()),
        [port, protocol] => ("", Wanted { port: plain(port), protocol: plain(protocol) }),
        _ => return Found::Nothing,
    };
    let labels = [service, namespace];
    match found.kind.as_ref() {
        None => Found::Nothing,
        Some(Kind::External(Some(target))) if before.is_empty() => Found::Alias(target),
        Some(Kind::External(_)) => Found::Nothing,
        Some(Kind::Cluster { addresses, ports }) if host.is_empty() => {
            match ports.iter().any(|port| wanted.matches(port)) {
                true => Found::Cluster { addresses, ports, wanted, labels },
                false => Found::Nothing,
            }
        }
        Some(Kind::Cluster { .. } | Kind::Headless) => {
            let endpoints = &found.endpoints;
            let exists = match host {
                "" => endpoints.all.iter().any(|one| one.ports.iter().any(|port| wanted.matches(port))),
                host => endpoints.by_host.contains_key(host),
            };
            if exists { Found::Endpoints { of: found, host, wanted, labels } } else { Found::Nothing }
        }
    }
}

fn write_addresses<'a>(
    asked: &Asked<'_>,
    addresses: impl Iterator<Item = &'a IpAddr>,
    owner: Owner<'_>,
    reply: &mut Reply<'_>,
) {
    for address in addresses {
        if matches!((asked.kind, address), (kind::A, IpAddr::V4(_)) | (kind::AAAA, IpAddr::V6(_))) {
            reply.address(Section::Answer, owner, TTL, *address);
        }
    }
}

fn write_name_server(asked: &Asked<'_>, section: Section, owner: Owner<'_>, reply: &mut Reply<'_>) {
    let service = asked.index.service(DNS_SERVICE.0, DNS_SERVICE.1);
    let Some(Kind::Cluster { addresses, .. }) = service.and_then(|service| service.kind.as_ref()) else {
        return;
    };
    match section {
        Section::Answer => write_addresses(asked, addresses.iter(), owner, reply),
        _ => addresses.iter().for_each(|address| reply.address(section, owner, TTL, *address)),
    }
}

/// All, beginning with another one each turn.
fn turned(endpoints: &[Endpoint], turn: usize) -> impl Iterator<Item = &Endpoint> {
    let (before, after) = endpoints.split_at(turn.checked_rem(endpoints.len()).unwrap_or(0));
    after.iter().chain(before)
}

/// A hundred, shared by all.
fn weight(count: usize) -> u16 {
    (100 / count.max(1)).max(1) as u16
}

/// `10-0-0-1`, or IPv6 with its colons so written.
fn pod_address(label: &str) -> Option<IpAddr> {
    let is_v4 = label.bytes().filter(|byte| *byte == b'-').count() == 3 && !label.contains("--");
    label.replace('-', if is_v4 { "." } else { ":" }).parse().ok()
}

/// The address whose name below `in-addr.arpa` or `ip6.arpa` this is.
fn reverse_address(name: &Name) -> Option<IpAddr> {
    const V4: &[u8] = b"\x07in-addr\x04arpa\0";
    const V6: &[u8] = b"\x03ip6\x04arpa\0";
    let mut labels = name.labels().filter_map(|label| std::str::from_utf8(label).ok());
    if name.as_bytes().ends_with(V4) {
        let mut octets = [0_u8; 4];
        for octet in octets.iter_mut().rev() {
            *octet = labels.next()?.parse().ok()?;
        }
        return (labels.next()? == "in-addr").then(|| IpAddr::from(octets));
    }
    if name.as_bytes().ends_with(V6) {
        let mut number = 0_u128;
        for place in 0..32 {
            let digit = labels.next().filter(|label| label.len() == 1)?;
            number |= u128::from_str_radix(digit, 16).ok()? << (4 * place);
        }
        return (labels.next()? == "ip6").then(|| IpAddr::V6(number.into()));
    }
    None
}
