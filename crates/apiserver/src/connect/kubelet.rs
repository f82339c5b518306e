//! Which address a node's kubelet has.

use std::str::FromStr;

use api::view::Node;
use apimachinery::{Object, Status, Value};

use super::{Backend, Finder, Location, Scheme};

/// The kubelet's port where a node reports none.
const DEFAULT_PORT: i64 = 10_250;

/// A kind of address in a node's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressType {
    Hostname,
    InternalDns,
    InternalIp,
    ExternalDns,
    ExternalIp,
}

/// Upstream's order of preference.
pub const DEFAULT_ADDRESS_TYPES: [AddressType; 5] = [
    AddressType::Hostname,
    AddressType::InternalDns,
    AddressType::InternalIp,
    AddressType::ExternalDns,
    AddressType::ExternalIp,
];

/// How kubelets are reached.
#[derive(Clone, Debug)]
pub struct KubeletOptions {
    /// `--kubelet-preferred-address-types`.
    pub preferred_address_types: Vec<AddressType>,
    /// `--kubelet-certificate-authority`, PEM: what signs their certificates. Without it they are not checked.
    pub certificate_authority: Option<Vec<u8>>,
    /// `--kubelet-client-certificate` and `--kubelet-client-key`, PEM. Without them the cluster's own authority
    /// makes a pair.
    pub client_certificate: Option<(Vec<u8>, Vec<u8>)>,
}

impl Default for KubeletOptions {
    fn default() -> Self {
        Self {
            preferred_address_types: DEFAULT_ADDRESS_TYPES.to_vec(),
            certificate_authority: None,
            client_certificate: None,
        }
    }
}

impl AddressType {
    fn as_str(self) -> &'static str {
        match self {
            Self::Hostname => "Hostname",
            Self::InternalDns => "InternalDNS",
            Self::InternalIp => "InternalIP",
            Self::ExternalDns => "ExternalDNS",
            Self::ExternalIp => "ExternalIP",
        }
    }
}

impl FromStr for AddressType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        DEFAULT_ADDRESS_TYPES.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
            format!("{text:?} is no type of node address: Hostname, InternalDNS, InternalIP, ExternalDNS or ExternalIP")
        })
    }
}

/// Host and port of a kubelet.
pub(super) struct Kubelet {
    pub host: String,
    pub port: String,
}

impl Kubelet {
    pub(super) fn location(&self, path: String, query: Option<String>, backend: Backend) -> Location {
        let (host, port) = (self.host.clone(), self.port.clone());
        Location { scheme: Scheme::Https, host, port, path, query, backend }
    }
}

impl Finder<'_> {
    /// The kubelet of a node.
    pub(super) fn kubelet(&self, node: &str) -> Result<Kubelet, Status> {
        let object = self
            .objects
            .get(&api::gvr::NODES, "", node)
            .ok_or_else(|| Status::not_found(&apimachinery::GroupResource::new("", "nodes"), node))?;
        of_node(&object, self.kubelets)
    }
}

/// The kubelet of a node, by what it reports.
pub(super) fn of_node(node: &Object, options: &KubeletOptions) -> Result<Kubelet, Status> {
    if is_simulated(node) {
        return Err(Status::bad_request(format!(
            "node {:?} is simulated: no container runs on it, so there is nothing to connect to",
            node.name()
        )));
    }
    let tree = node.to_value();
    let status = &tree["status"];
    let port = reported_port(status).unwrap_or(DEFAULT_PORT).to_string();
    let host = preferred_address(status, &options.preferred_address_types).ok_or_else(|| {
        let wanted: Vec<&str> = options.preferred_address_types.iter().map(|kind| kind.as_str()).collect();
        let known: Vec<String> = status.array_at(&["addresses"]).iter().map(ToString::to_string).collect();
        let (known, wanted) = (known.join(" "), wanted.join(" "));
        let why = format!("no preferred addresses found; known addresses: [{known}], wanted: [{wanted}]");
        Status::new(500, "", why)
    })?;
    Ok(Kubelet { host, port })
}

/// Whether a node exists as an object only: simulated, and without a kubelet that answers for it all the same.
pub(super) fn is_simulated(node: &Object) -> bool {
    node.view::<Node>().is_ok_and(|node| node.is_simulated())
        && reported_port(&node.to_value()["status"]).is_none()
}

fn reported_port(status: &Value) -> Option<i64> {
    status["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_i64().filter(|port| *port > 0)
}

fn preferred_address(status: &Value, types: &[AddressType]) -> Option<String> {
    let addresses = status.array_at(&["addresses"]);
    types.iter().find_map(|kind| {
        let found = addresses.iter().find(|address| address.str_at(&["type"]) == kind.as_str())?;
        Some(found.str_at(&["address"]).to_owned())
    })
}
