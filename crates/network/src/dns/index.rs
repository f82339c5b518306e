//! [`Index`]: what names there are, ready to be answered from.
//!
//! Hot path for reading: a look-up is a few hash tables, and nothing is searched through. A change costs what its
//! Service has endpoints.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use apimachinery::{Object, Str};

use super::objects::{self, EndpointSlice, SERVICE_NAME};
use super::wire::Name;

#[derive(Default)]
pub(super) struct Index {
    namespaces: HashMap<Str, Namespace>,
    /// Of which Services this is a cluster IP.
    services: HashMap<IpAddr, Vec<(Str, Str)>>,
    /// Which endpoints with a host name have this address: host name, Service, namespace.
    endpoints: HashMap<IpAddr, Vec<(Str, Str, Str)>>,
}

#[derive(Default)]
struct Namespace {
    exists: bool,
    services: HashMap<Str, Service>,
}

#[derive(Default)]
pub(super) struct Service {
    /// `None` while only slices speak of it.
    pub kind: Option<Kind>,
    slices: HashMap<Str, Vec<Endpoint>>,
    pub endpoints: Endpoints,
}

pub(super) enum Kind {
    Cluster {
        addresses: Vec<IpAddr>,
        ports: Vec<Port>,
    },
    Headless,
    /// `None` where the name is none.
    External(Option<Box<Name>>),
}

/// Which slice of which Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SliceKey {
    pub namespace: Str,
    pub service: Str,
    pub name: Str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Port {
    pub name: Str,
    /// In lower case, as in names.
    pub protocol: Str,
    /// `None` where none is declared.
    pub number: Option<u16>,
}

#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    pub address: IpAddr,
    /// Its label below the Service.
    pub host: Str,
    /// Whether the pod chose that label.
    pub is_named: bool,
    pub ports: Arc<[Port]>,
}

/// All endpoints of a Service that answer.
#[derive(Default)]
pub(super) struct Endpoints {
    pub all: Vec<Endpoint>,
    /// By label, their places in `all`.
    pub by_host: HashMap<Str, Vec<usize>>,
}

impl Index {
    pub fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.get(name).is_some_and(|namespace| namespace.exists)
    }

    pub fn service(&self, namespace: &str, name: &str) -> Option<&Service> {
        self.namespaces.get(namespace)?.services.get(name).filter(|service| service.kind.is_some())
    }

    /// The Service whose cluster IP this is, and its namespace.
    pub fn service_of(&self, address: IpAddr) -> Option<&(Str, Str)> {
        self.services.get(&address)?.first()
    }

    /// Host names, Services and namespaces of endpoints with this address.
    pub fn endpoints_of(&self, address: IpAddr) -> &[(Str, Str, Str)] {
        self.endpoints.get(&address).map_or(&[], Vec::as_slice)
    }

    pub fn set_namespace(&mut self, name: &str, exists: bool) {
        self.namespaces.entry(name.into()).or_default().exists = exists;
        self.tidy(name, "");
    }

    /// Takes a Service as it is now; `None` when it is gone.
    pub fn set_service(&mut self, namespace: &str, name: &str, kind: Option<Kind>) {
        let service = self.namespaces.entry(namespace.into()).or_default().services.entry(name.into());
        let service = service.or_default();
        let old = std::mem::replace(&mut service.kind, kind);
        let key = (Str::from(name), Str::from(namespace));
        let new_addresses = service.kind.as_ref().map_or(&[][..], Kind::addresses).to_vec();
        for address in old.as_ref().map_or(&[][..], Kind::addresses) {
            remove(&mut self.services, *address, &key);
        }
        for address in new_addresses {
            self.services.entry(address).or_default().push(key.clone());
        }
        self.tidy(namespace, name);
    }

    /// Takes a slice as it is now; `None` when it is gone. One that changes its Service is gone from the old one.
    pub fn set_slice(&mut self, slice: &SliceKey, endpoints: Option<Vec<Endpoint>>) {
        self.change_slices(&slice.namespace, &slice.service, |slices| match endpoints {
            Some(endpoints) => drop(slices.insert(slice.name.clone(), endpoints)),
            None => drop(slices.remove(&slice.name)),
        });
    }

    fn change_slices(
        &mut self,
        namespace: &str,
        name: &str,
        change: impl FnOnce(&mut HashMap<Str, Vec<Endpoint>>),
    ) {
        let service = self.namespaces.entry(namespace.into()).or_default().services.entry(name.into());
        let service = service.or_default();
        let key = |endpoint: &Endpoint| (endpoint.host.clone(), Str::from(name), Str::from(namespace));
        for endpoint in service.endpoints.all.iter().filter(|endpoint| endpoint.is_named) {
            remove(&mut self.endpoints, endpoint.address, &key(endpoint));
        }
        change(&mut service.slices);
        service.endpoints = Endpoints::merge(&service.slices);
        for endpoint in service.endpoints.all.iter().filter(|endpoint| endpoint.is_named) {
            self.endpoints.entry(endpoint.address).or_default().push(key(endpoint));
        }
        self.tidy(namespace, name);
    }

    /// Forgets what nobody speaks of any more.
    fn tidy(&mut self, namespace: &str, service: &str) {
        let Some(found) = self.namespaces.get_mut(namespace) else { return };
        if found.services.get(service).is_some_and(|own| own.kind.is_none() && own.slices.is_empty()) {
            found.services.remove(service);
        }
        if !found.exists && found.services.is_empty() {
            self.namespaces.remove(namespace);
        }
    }
}

fn remove<V: PartialEq>(table: &mut HashMap<IpAddr, Vec<V>>, address: IpAddr, value: &V) {
    if let Some(values) = table.get_mut(&address) {
        values.retain(|own| own != value);
        if values.is_empty() {
            table.remove(&address);
        }
    }
}

impl SliceKey {
    /// `None` where it belongs to no Service.
    pub fn of(slice: &Object) -> Option<Self> {
        let service = slice.label(SERVICE_NAME)?.into();
        Some(Self { namespace: slice.namespace().into(), service, name: slice.name().into() })
    }
}

impl Kind {
    pub fn of(service: &Object) -> Self {
        let spec = objects::decode::<objects::Service>(service).spec;
        if spec.type_ == "ExternalName" {
            let is_name = spec.external_name.parse::<IpAddr>().is_err();
            let name =
                Name::from_text(&spec.external_name).filter(|_| is_name && !spec.external_name.is_empty());
            return Self::External(name.map(Box::new));
        }
        let addresses = spec.addresses();
        if addresses.is_empty() {
            return Self::Headless;
        }
        let ports = spec.ports.iter().flatten();
        let ports = ports.map(|port| Port::new(&port.name, &port.protocol, Some(port.port)));
        Self::Cluster { addresses, ports: or_none(ports.collect()) }
    }

    fn addresses(&self) -> &[IpAddr] {
        match self {
            Self::Cluster { addresses, .. } => addresses,
            _ => &[],
        }
    }
}

impl Port {
    fn new(name: &str, protocol: &str, number: Option<u16>) -> Self {
        let protocol =
            if protocol.is_empty() { "tcp".into() } else { Str::from(protocol.to_ascii_lowercase()) };
        Self { name: name.to_ascii_lowercase().into(), protocol, number }
    }

    /// Whether it is meant: an empty word means all.
    pub fn matches(&self, name: &str, protocol: &str) -> bool {
        (name.is_empty() || self.name == name) && (protocol.is_empty() || self.protocol == protocol)
    }
}

/// Without a declared port there is still one to be matched by those who ask for none.
fn or_none(ports: Vec<Port>) -> Vec<Port> {
    if ports.is_empty() {
        vec![Port { name: Str::default(), protocol: Str::default(), number: None }]
    } else {
        ports
    }
}

/// Those of a slice that answer.
pub(super) fn endpoints(slice: &Object) -> Vec<Endpoint> {
    let slice: EndpointSlice = objects::decode(slice);
    let ports = slice.ports.iter().flatten().map(|port| {
        let text = |text: &Option<Str>| text.clone().unwrap_or_default();
        Port::new(&text(&port.name), &text(&port.protocol), port.port)
    });
    let ports: Arc<[Port]> = or_none(ports.collect()).into();
    let ready = slice.endpoints.iter().flatten().filter(|endpoint| endpoint.conditions.ready != Some(false));
    ready
        .flat_map(|endpoint| {
            let named = endpoint.hostname.as_ref().filter(|name| !name.is_empty());
            // Slices of names instead of addresses have no records.
            endpoint.addresses.iter().filter_map(|text| text.parse().ok()).map({
                let ports = &ports;
                move |address| Endpoint {
                    address,
                    host: named.map_or_else(|| host_of(address), |name| name.to_ascii_lowercase()),
                    is_named: named.is_some(),
                    ports: ports.clone(),
                }
            })
        })
        .collect()
}

/// `10.0.0.1` is `10-0-0-1`.
fn host_of(address: IpAddr) -> Str {
    let mut text = address.to_string().replace(['.', ':'], "-");
    if text.ends_with('-') {
        text.push('0');
    }
    text.into()
}

impl Endpoints {
    fn merge(slices: &HashMap<Str, Vec<Endpoint>>) -> Self {
        let mut names: Vec<&Str> = slices.keys().collect();
        names.sort_unstable();
        let mut merged = Self::default();
        let mut seen = HashSet::new();
        for endpoint in names.into_iter().flat_map(|name| &slices[name]) {
            // An endpoint that moves from slice to slice is in both for a moment.
            if seen.insert((endpoint.address, endpoint.host.clone(), endpoint.ports.clone())) {
                merged.by_host.entry(endpoint.host.clone()).or_default().push(merged.all.len());
                merged.all.push(endpoint.clone());
            }
        }
        merged
    }
}
