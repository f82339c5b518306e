//! Cluster IPs and node ports of Services.
//!
//! Owns: which addresses and ports are taken, in memory. The Services themselves are the truth: the sets are rebuilt
//! from them at start, so a crash between taking an address and storing the Service loses nothing. Addresses come from
//! the `ServiceCIDR`s that are ready, and never one for which somebody made an `IPAddress`. Never touches: those objects
//! themselves, which the API server's keeper makes from the Services.
//!
//! An address is taken before the commit and given back when the write fails ([`Reservation`]).

mod families;
mod network;

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use api::Resource;
use apimachinery::{Object, Status, Value, field};
use parking_lot::Mutex;

use crate::{Endpoint, WriteContext};

pub use network::{Block, Error as NetworkError, PortRange, ServiceNetwork};

pub(crate) struct Allocator {
    network: ServiceNetwork,
    taken: Arc<Mutex<Taken>>,
    stored: OnceLock<Stored>,
}

/// What is stored about addresses.
struct Stored {
    service_cidrs: Endpoint,
    ip_addresses: Endpoint,
}

/// Whom the `IPAddress`es of Services say they are managed by.
pub const IP_ALLOCATOR: &str = "ipallocator.k8s.io";

/// The block that the server was started with, as an object.
const DEFAULT_CIDR: &str = "kubernetes";

#[derive(Default)]
struct Taken {
    addresses: HashSet<IpAddr>,
    ports: HashSet<u16>,
}

impl Taken {
    fn free(&mut self, addresses: impl Iterator<Item = IpAddr>, ports: impl Iterator<Item = u16>) {
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
    addresses: Vec<IpAddr>,
    ports: Vec<u16>,
    /// Given up by this write once it is committed.
    freed: (Vec<IpAddr>, Vec<u16>),
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
        Self { network, taken: Arc::default(), stored: OnceLock::new() }
    }

    /// Takes what the stored Services hold, and reads blocks and addresses from now on.
    pub fn recover(&self, services: &Endpoint, service_cidrs: Endpoint, ip_addresses: Endpoint) {
        let _ = self.stored.set(Stored { service_cidrs, ip_addresses });
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
        families::settle(service, old, &self.network.families(), &mut errors);
        if errors.is_empty() {
            self.reserve_addresses(service, old, &mut reservation, &mut errors)?;
            self.reserve_ports(service, old, &mut reservation, &mut errors);
        }
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
    ) -> Result<(), Status> {
        let held: Vec<IpAddr> = old.into_iter().flat_map(addresses_of).collect();
        if service.str_at(&["spec", "type"]) == "ExternalName" {
            for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                service.remove_at(&["spec", key]);
            }
            reservation.freed.0 = held;
            return Ok(());
        }
        let given: Vec<String> = service
            .array_at(&["spec", "clusterIPs"])
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        if given.first().is_some_and(|first| first == "None") {
            return Ok(());
        }
        let families: Vec<String> = service
            .array_at(&["spec", "ipFamilies"])
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        let mut addresses = Vec::new();
        for (index, family) in families.iter().enumerate() {
            let address = match given.get(index).filter(|text| !text.is_empty()) {
                Some(text) => self.take_wanted_address(text, &given, &held, reservation, errors),
                None => Some(self.take_any_address(family, reservation).ok_or_else(|| {
                    let name = service.str_at(&["metadata", "name"]);
                    Status::internal(format!(
                        "failed to allocate a serviceIP for Service {name:?}: range is full"
                    ))
                })?),
            };
            // Validation words what is no address.
            let Some(address) = address else { return Ok(()) };
            addresses.push(address);
        }
        reservation.freed.0 = held.into_iter().filter(|own| !addresses.contains(own)).collect();
        let texts: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
        if let Some(first) = texts.first() {
            service.set_at(&["spec", "clusterIP"], first.as_str());
        }
        service.set_at(&["spec", "clusterIPs"], texts);
        Ok(())
    }

    fn take_wanted_address(
        &self,
        wanted: &str,
        all: &[String],
        held: &[IpAddr],
        reservation: &mut Reservation,
        errors: &mut field::ErrorList,
    ) -> Option<IpAddr> {
        let address: IpAddr = wanted.parse().ok()?;
        if held.contains(&address) {
            return Some(address);
        }
        let blocks = self.blocks(network::family(address));
        let why = match blocks.iter().find(|block| block.covers(address)) {
            None => "the provided network does not match the current range".to_owned(),
            Some(block) if !block.has_usable(address) => format!(
                "the provided IP ({address}) is not in the valid range. The range of valid IPs is {block}"
            ),
            Some(_) if self.has_object(address) || !self.taken.lock().addresses.insert(address) => {
                "provided IP is already allocated".to_owned()
            }
            Some(_) => {
                reservation.addresses.push(address);
                return Some(address);
            }
        };
        errors.push(field::Error::invalid(
            &field::Path::root("spec.clusterIPs"),
            Value::from(all.to_vec()),
            format!("failed to allocate IP {wanted}: {why}"),
        ));
        None
    }

    fn take_any_address(&self, family: &str, reservation: &mut Reservation) -> Option<IpAddr> {
        let mut taken = self.taken.lock();
        let address = self.blocks(family).iter().find_map(|block| {
            block.pick(|address| !taken.addresses.contains(&address) && !self.has_object(address))
        })?;
        taken.addresses.insert(address);
        reservation.addresses.push(address);
        Some(address)
    }

    /// The blocks of a family that addresses may be taken of: those of `ServiceCIDR`s that are not unready and not
    /// going, and the configured one while its object has not been made.
    fn blocks(&self, family: &str) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut has_default = false;
        if let Some(stored) = self.stored.get() {
            for object in stored.service_cidrs.cache.snapshot().objects.values() {
                has_default |= object.name() == DEFAULT_CIDR;
                let cidr = object.to_value();
                if object.is_deleting() || !is_ready(&cidr) {
                    continue;
                }
                let texts = cidr.array_at(&["spec", "cidrs"]).iter().filter_map(Value::as_str);
                blocks.extend(texts.filter_map(|text| text.parse::<Block>().ok()));
            }
        }
        if !has_default {
            blocks.extend(self.network.blocks());
        }
        blocks.retain(|block| block.family() == family);
        blocks
    }

    /// Whether somebody else made an `IPAddress` for the address. Those of Services only follow what is taken.
    fn has_object(&self, address: IpAddr) -> bool {
        self.stored.get().is_some_and(|stored| {
            let key = stored.ip_addresses.resource.key("", &address.to_string());
            stored.ip_addresses.cache.get(&key).is_some_and(|object| {
                let metadata = object.metadata_value();
                metadata["labels"].str_at(&["ipaddress.kubernetes.io/managed-by"]) != IP_ALLOCATOR
            })
        })
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
        let number = u16::try_from(given).ok().filter(|number| range.contains(*number));
        let Some(number) = number else {
            return invalid(format!(
                "provided port is not in the valid range. The range of valid ports is {range}"
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
        let mut taken = self.taken.lock();
        let number = self.network.node_ports.pick(|number| !taken.ports.contains(&number))?;
        taken.ports.insert(number);
        reservation.ports.push(number);
        Some(number)
    }
}

/// As long as nobody says otherwise, a block is ready.
fn is_ready(service_cidr: &Value) -> bool {
    service_cidr
        .array_at(&["status", "conditions"])
        .iter()
        .find(|condition| condition.str_at(&["type"]) == "Ready")
        .is_none_or(|condition| condition.str_at(&["status"]) == "True")
}

fn is_services(resource: &Resource) -> bool {
    resource.group.is_empty() && resource.plural == "services"
}

fn addresses_of(service: &Value) -> impl Iterator<Item = IpAddr> {
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
    use apimachinery::json;

    fn allocator(blocks: &str) -> Allocator {
        let ports = "30000-30001".parse().expect("a range");
        Allocator::new(ServiceNetwork::parse(blocks, ports).expect("a network"))
    }

    fn reservation(allocator: &Allocator) -> Reservation {
        let mut reservation = Reservation::none();
        reservation.taken = Some(allocator.taken.clone());
        reservation
    }

    #[test]
    fn a_failed_write_gives_back_what_it_took() {
        let allocator = allocator("10.0.0.0/29");
        let mut taken = reservation(&allocator);
        for _ in 0..6 {
            assert!(allocator.take_any_address("IPv4", &mut taken).is_some());
        }
        assert!(allocator.take_any_address("IPv4", &mut taken).is_none(), "a /29 holds six addresses");
        assert!(
            allocator.take_any_port(&mut taken).is_some() && allocator.take_any_port(&mut taken).is_some()
        );
        assert!(allocator.take_any_port(&mut taken).is_none());
        drop(taken);
        assert!(allocator.take_any_address("IPv4", &mut reservation(&allocator)).is_some());
        assert!(allocator.take_any_port(&mut reservation(&allocator)).is_some());
    }

    #[test]
    fn a_service_has_an_address_of_each_of_its_families() {
        let allocator = allocator("10.0.0.0/24,fd00::/112");
        let mut service = json!({"metadata": {"name": "s"}, "spec": {
            "type": "ClusterIP", "ipFamilies": ["IPv6", "IPv4"], "ipFamilyPolicy": "RequireDualStack"
        }});
        let mut errors = field::ErrorList::new();
        let mut taken = reservation(&allocator);
        allocator
            .reserve_addresses(&mut service, None, &mut taken, &mut errors)
            .expect("there are addresses");
        let given: Vec<IpAddr> = addresses_of(&service).collect();
        assert!(given[0].is_ipv6() && given[1].is_ipv4(), "{service}");
        assert_eq!(service.str_at(&["spec", "clusterIP"]), given[0].to_string());
        let mut single = service.clone();
        single.set_at(&["spec", "clusterIPs"], vec![given[0].to_string()]);
        single.set_at(&["spec", "ipFamilies"], vec!["IPv6"]);
        let mut change = reservation(&allocator);
        allocator
            .reserve_addresses(&mut single, Some(&service), &mut change, &mut errors)
            .expect("it has one");
        assert_eq!(change.freed.0, [given[1]], "what is no longer wanted is given up");
    }

    #[test]
    fn an_address_that_cannot_be_had_is_named_with_the_reason() {
        let allocator = allocator("10.0.0.0/24");
        let mut errors = field::ErrorList::new();
        for wanted in ["10.1.0.1", "10.0.0.255", "10.0.0.9", "10.0.0.9"] {
            let all = [wanted.to_owned()];
            let mut taken = reservation(&allocator);
            allocator.take_wanted_address(wanted, &all, &[], &mut taken, &mut errors);
            taken.keep();
        }
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let texts: Vec<&str> =
            texts.iter().filter_map(|text| text.split_once("allocate IP ")).map(|own| own.1).collect();
        assert_eq!(
            texts,
            [
                "10.1.0.1: the provided network does not match the current range",
                "10.0.0.255: the provided IP (10.0.0.255) is not in the valid range. The range of valid IPs is 10.0.0.0/24",
                "10.0.0.9: provided IP is already allocated",
            ]
        );
    }
}
