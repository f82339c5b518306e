//! Cluster IPs and node ports of Services.
//!
//! Owns: which addresses and ports are taken, in memory. The Services themselves are the truth: the sets are rebuilt
//! from them at start, so a crash between taking an address and storing the Service loses nothing.
//!
//! An address is taken before the commit and given back when the write fails ([`Reservation`]).

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use api::Resource;
use apimachinery::{Object, Status, Value, field};
use parking_lot::Mutex;

use crate::{Endpoint, WriteContext};

/// Random tries before the whole range is searched.
const RANDOM_TRIES: usize = 16;

/// The ranges Services are given addresses and ports of.
#[derive(Clone, Debug)]
pub struct ServiceNetwork {
    pub base: Ipv4Addr,
    /// Length of the prefix, e.g. 12 for a /12.
    pub prefix_len: u8,
    pub node_ports: RangeInclusive<u16>,
}

impl Default for ServiceNetwork {
    /// kubeadm's `10.96.0.0/12` and upstream's port range.
    fn default() -> Self {
        Self { base: Ipv4Addr::new(10, 96, 0, 0), prefix_len: 12, node_ports: 30000..=32767 }
    }
}

impl ServiceNetwork {
    fn size(&self) -> u32 {
        1_u32.checked_shl(32 - u32::from(self.prefix_len)).unwrap_or(u32::MAX)
    }

    fn contains(&self, address: Ipv4Addr) -> bool {
        let offset = u32::from(address).wrapping_sub(u32::from(self.base));
        // Network and broadcast address are not given out.
        offset > 0 && offset < self.size() - 1
    }

    fn nth(&self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.base) + offset)
    }

    /// The address of the `kubernetes` Service.
    pub fn first(&self) -> Ipv4Addr {
        self.nth(1)
    }

    pub fn cidr(&self) -> String {
        format!("{}/{}", self.base, self.prefix_len)
    }
}

pub(crate) struct Allocator {
    network: ServiceNetwork,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Default)]
struct Taken {
    addresses: HashSet<Ipv4Addr>,
    ports: HashSet<u16>,
}

impl Taken {
    fn free(&mut self, addresses: impl Iterator<Item = Ipv4Addr>, ports: impl Iterator<Item = u16>) {
        for address in addresses {
            self.addresses.remove(&address);
        }
        for port in ports {
            self.ports.remove(&port);
        }
    }
}

/// What one write took; given back on drop unless kept.
#[must_use]
pub(crate) struct Reservation {
    taken: Option<Arc<Mutex<Taken>>>,
    addresses: Vec<Ipv4Addr>,
    ports: Vec<u16>,
    /// Given up by this write once it is committed.
    freed: (Vec<Ipv4Addr>, Vec<u16>),
}

impl Reservation {
    /// Nothing taken, nothing given up: every write but those of Services.
    pub fn none() -> Self {
        Self { taken: None, addresses: Vec::new(), ports: Vec::new(), freed: Default::default() }
    }

    /// Whether the outcome of the write makes no difference here.
    pub fn is_empty(&self) -> bool {
        self.taken.is_none()
    }

    /// The write was committed.
    pub fn keep(mut self) {
        if let Some(taken) = self.taken.take() {
            taken.lock().free(self.freed.0.iter().copied(), self.freed.1.iter().copied());
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(taken) = &self.taken {
            let mut taken = taken.lock();
            taken.free(self.addresses.iter().copied(), self.ports.iter().copied());
        }
    }
}

impl Allocator {
    pub fn new(network: ServiceNetwork) -> Self {
        Self { network, taken: Arc::default() }
    }

    /// Takes what the stored Services hold.
    pub fn recover(&self, services: &Endpoint) {
        let mut taken = self.taken.lock();
        for object in services.cache.snapshot().objects.values() {
            let service = object.to_value();
            taken.addresses.extend(addresses_of(&service));
            taken.ports.extend(ports_of(&service));
        }
    }

    /// For the removal of an object: a Service's addresses and ports are free once it is gone.
    pub fn releasing(&self, resource: &Resource, object: &Object) -> Reservation {
        if !is_services(resource) {
            return Reservation::none();
        }
        let service = object.to_value();
        let freed = (addresses_of(&service).collect(), ports_of(&service).collect());
        let mut reservation = Reservation::none();
        reservation.taken = Some(self.taken.clone());
        reservation.freed = freed;
        reservation
    }

    /// Fills in and takes the addresses and ports that a new or changed Service wants. Does nothing for other
    /// resources.
    pub fn reserve(
        &self,
        endpoint: &Endpoint,
        ctx: &WriteContext<'_>,
        service: &mut Value,
        old: Option<&Value>,
    ) -> Result<Reservation, Status> {
        let mut reservation = Reservation::none();
        if !is_services(&endpoint.resource) || ctx.subresource.is_some() {
            return Ok(reservation);
        }
        reservation.taken = Some(self.taken.clone());
        let mut errors = field::ErrorList::new();
        self.reserve_addresses(service, old, &mut reservation, &mut errors);
        self.reserve_ports(service, old, &mut reservation, &mut errors);
        if errors.is_empty() {
            return Ok(reservation);
        }
        let name = service.str_at(&["metadata", "name"]);
        Err(Status::invalid(&endpoint.resource.group_kind(), name, &errors))
    }

    fn reserve_addresses(
        &self,
        service: &mut Value,
        old: Option<&Value>,
        reservation: &mut Reservation,
        errors: &mut field::ErrorList,
    ) {
        let old_addresses: Vec<Ipv4Addr> = old.into_iter().flat_map(addresses_of).collect();
        if service.str_at(&["spec", "type"]) == "ExternalName" {
            for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                service.remove_at(&["spec", key]);
            }
            reservation.freed.0 = old_addresses;
            return;
        }
        let wanted = service.str_at(&["spec", "clusterIP"]).to_owned();
        if wanted == "None" {
            service.set_at(&["spec", "clusterIPs"], vec!["None"]);
        } else if wanted.is_empty() {
            match old_addresses.first().copied().or_else(|| self.take_any_address(reservation)) {
                Some(address) => set_address(service, address),
                None => errors.push(field::Error::invalid(
                    &field::Path::root("spec.clusterIPs"),
                    Value::Array(Vec::new()),
                    "failed to allocate a serviceIP: range is full",
                )),
            }
        } else {
            self.take_wanted_address(service, &wanted, &old_addresses, reservation, errors);
        }
        let spec = service.ensure_object_at(&["spec"]);
        spec.get_or_insert_with("ipFamilies", || Value::from(vec!["IPv4"]));
        spec.get_or_insert_with("ipFamilyPolicy", || Value::from("SingleStack"));
    }

    fn take_wanted_address(
        &self,
        service: &mut Value,
        wanted: &str,
        old: &[Ipv4Addr],
        reservation: &mut Reservation,
        errors: &mut field::ErrorList,
    ) {
        let Ok(address) = wanted.parse::<Ipv4Addr>() else {
            return; // Validation words this one.
        };
        if !old.contains(&address) {
            let why = if !self.network.contains(address) {
                Some("the provided network does not match the current range")
            } else if !self.taken.lock().addresses.insert(address) {
                Some("provided IP is already allocated")
            } else {
                reservation.addresses.push(address);
                None
            };
            if let Some(why) = why {
                errors.push(field::Error::invalid(
                    &field::Path::root("spec.clusterIPs"),
                    Value::from(vec![wanted]),
                    format!("failed to allocate IP {wanted}: {why}"),
                ));
                return;
            }
        }
        set_address(service, address);
    }

    fn take_any_address(&self, reservation: &mut Reservation) -> Option<Ipv4Addr> {
        let mut taken = self.taken.lock();
        let size = self.network.size();
        let random = (0..RANDOM_TRIES).map(|_| 1 + (rt::jitter() * f64::from(size - 2)) as u32);
        let address = random
            .chain(1..size - 1)
            .map(|offset| self.network.nth(offset))
            .find(|address| self.network.contains(*address) && !taken.addresses.contains(address))?;
        taken.addresses.insert(address);
        reservation.addresses.push(address);
        Some(address)
    }

    fn reserve_ports(
        &self,
        service: &mut Value,
        old: Option<&Value>,
        reservation: &mut Reservation,
        errors: &mut field::ErrorList,
    ) {
        let old_ports: Vec<u16> = old.into_iter().flat_map(ports_of).collect();
        let kind = service.str_at(&["spec", "type"]).to_owned();
        let wants_ports = kind == "NodePort"
            || kind == "LoadBalancer"
                && service["spec"]["allocateLoadBalancerNodePorts"].as_bool() != Some(false);
        let mut own: HashSet<(u16, String)> = HashSet::new();
        let mut in_use: HashSet<u16> = HashSet::new();
        if let Some(ports) = service.at_mut(&["spec", "ports"]).and_then(Value::as_array_mut) {
            for (index, port) in ports.iter_mut().enumerate() {
                let given = port["nodePort"].as_i64().unwrap_or(0);
                let protocol = port.str_at(&["protocol"]).to_owned();
                if kind == "ClusterIP" || kind == "ExternalName" {
                    continue;
                }
                if given == 0 && wants_ports {
                    // One number can serve several protocols of the same Service, but only when asked for.
                    let reuse =
                        old.and_then(|old| same_port(old, port)).filter(|reuse| old_ports.contains(reuse));
                    match reuse.or_else(|| self.take_any_port(reservation)) {
                        Some(number) => {
                            port.set_at(&["nodePort"], i64::from(number));
                            in_use.insert(number);
                        }
                        None => errors.push(field::Error::invalid(
                            &field::Path::root(&format!("spec.ports[{index}].nodePort")),
                            0_i64,
                            "failed to allocate a nodePort: range is full",
                        )),
                    }
                } else if given != 0 {
                    let taken_here = u16::try_from(given).is_ok_and(|number| in_use.contains(&number));
                    let duplicate = u16::try_from(given).is_ok_and(|number| !own.insert((number, protocol)));
                    if let Some(error) =
                        self.take_port(index, given, &old_ports, taken_here && !duplicate, reservation)
                    {
                        errors.push(error);
                    } else if let Ok(number) = u16::try_from(given) {
                        in_use.insert(number);
                    }
                }
            }
        }
        self.reserve_health_check_port(service, &kind, old, &mut in_use, reservation, errors);
        reservation.freed.1 = old_ports.into_iter().filter(|port| !in_use.contains(port)).collect();
    }

    fn reserve_health_check_port(
        &self,
        service: &mut Value,
        kind: &str,
        old: Option<&Value>,
        in_use: &mut HashSet<u16>,
        reservation: &mut Reservation,
        errors: &mut field::ErrorList,
    ) {
        let needed = kind == "LoadBalancer" && service.str_at(&["spec", "externalTrafficPolicy"]) == "Local";
        if !needed {
            return;
        }
        let given = service["spec"]["healthCheckNodePort"].as_i64().unwrap_or(0);
        let old_port = old.and_then(|old| old["spec"]["healthCheckNodePort"].as_i64()).unwrap_or(0);
        let number = if given != 0 {
            if given != old_port
                && let Some(error) = self.take_port(0, given, &[], false, reservation)
            {
                let path = field::Path::root("spec.healthCheckNodePort");
                errors.push(field::Error { path: path.to_string(), ..error });
                return;
            }
            given
        } else if old_port != 0 {
            old_port
        } else {
            match self.take_any_port(reservation) {
                Some(number) => i64::from(number),
                None => return,
            }
        };
        service.set_at(&["spec", "healthCheckNodePort"], number);
        in_use.extend(u16::try_from(number));
    }

    fn take_port(
        &self,
        index: usize,
        given: i64,
        old: &[u16],
        shared: bool,
        reservation: &mut Reservation,
    ) -> Option<field::Error> {
        let range = &self.network.node_ports;
        let invalid = |why: String| {
            Some(field::Error::invalid(
                &field::Path::root(&format!("spec.ports[{index}].nodePort")),
                given,
                why,
            ))
        };
        let number = u16::try_from(given).ok().filter(|number| range.contains(number));
        let Some(number) = number else {
            let (low, high) = (range.start(), range.end());
            return invalid(format!(
                "provided port is not in the valid range. The range of valid ports is {low}-{high}"
            ));
        };
        if old.contains(&number) || shared {
            return None;
        }
        if !self.taken.lock().ports.insert(number) {
            return invalid("provided port is already allocated".to_owned());
        }
        reservation.ports.push(number);
        None
    }

    fn take_any_port(&self, reservation: &mut Reservation) -> Option<u16> {
        let range = &self.network.node_ports;
        let mut taken = self.taken.lock();
        let size = f64::from(range.end() - range.start() + 1);
        let random = (0..RANDOM_TRIES).map(|_| range.start() + (rt::jitter() * size) as u16);
        let number = random.chain(range.clone()).find(|number| !taken.ports.contains(number))?;
        taken.ports.insert(number);
        reservation.ports.push(number);
        Some(number)
    }
}

fn is_services(resource: &Resource) -> bool {
    resource.group.is_empty() && resource.plural == "services"
}

fn set_address(service: &mut Value, address: Ipv4Addr) {
    let text = address.to_string();
    service.set_at(&["spec", "clusterIPs"], vec![text.as_str()]);
    service.set_at(&["spec", "clusterIP"], text);
}

fn addresses_of(service: &Value) -> impl Iterator<Item = Ipv4Addr> {
    let first = service.str_at(&["spec", "clusterIP"]).parse().ok();
    let rest = service.array_at(&["spec", "clusterIPs"]).iter().skip(1);
    first.into_iter().chain(rest.filter_map(Value::as_str).filter_map(|text| text.parse().ok()))
}

fn ports_of(service: &Value) -> impl Iterator<Item = u16> {
    let ports = service.array_at(&["spec", "ports"]).iter().map(|port| &port["nodePort"]);
    ports
        .chain([&service["spec"]["healthCheckNodePort"]])
        .filter_map(Value::as_i64)
        .filter(|number| *number != 0)
        .filter_map(|number| u16::try_from(number).ok())
}

/// The node port that the same port (by number and protocol) had before.
fn same_port(old: &Value, port: &Value) -> Option<u16> {
    let ports = old.array_at(&["spec", "ports"]);
    let same = ports.iter().find(|own| own["port"] == port["port"] && own["protocol"] == port["protocol"])?;
    u16::try_from(same["nodePort"].as_i64()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allocator(prefix_len: u8) -> Allocator {
        Allocator::new(ServiceNetwork { prefix_len, node_ports: 30000..=30001, ..ServiceNetwork::default() })
    }

    fn reservation(allocator: &Allocator) -> Reservation {
        let mut reservation = Reservation::none();
        reservation.taken = Some(allocator.taken.clone());
        reservation
    }

    #[test]
    fn a_failed_write_gives_back_what_it_took() {
        let allocator = allocator(29);
        let mut taken = reservation(&allocator);
        for _ in 0..6 {
            assert!(allocator.take_any_address(&mut taken).is_some());
        }
        assert!(allocator.take_any_address(&mut taken).is_none(), "a /29 holds six addresses");
        assert!(
            allocator.take_any_port(&mut taken).is_some() && allocator.take_any_port(&mut taken).is_some()
        );
        assert!(allocator.take_any_port(&mut taken).is_none());
        drop(taken);
        assert!(allocator.take_any_address(&mut reservation(&allocator)).is_some());
        assert!(allocator.take_any_port(&mut reservation(&allocator)).is_some());
    }

    #[test]
    fn network_and_broadcast_are_never_given_out() {
        let network = ServiceNetwork { prefix_len: 30, ..ServiceNetwork::default() };
        let usable: Vec<bool> = (0..4).map(|offset| network.contains(network.nth(offset))).collect();
        assert_eq!(usable, [false, true, true, false]);
        assert_eq!(network.first(), Ipv4Addr::new(10, 96, 0, 1));
    }
}
