//! The pod network: how pods get their addresses and how packets reach them.
//!
//! Owns: the links, addresses, routes and neighbours of pods on this node, the way to the pods of other nodes, and the
//! book of host ports. Never touches: nftables (what it needs there is data: [`BuiltIn::masquerade_rules`],
//! [`HostPorts`]), containers, the API except for reading Nodes.
//!
//! ```text
//!   pod's namespace             host
//!   eth0 10.244.0.5/32   ────   veth1f0c…            10.244.0.5/32 dev veth1f0c…
//!   default via 169.254.1.1     (no address)  ── forward hook ──  eth0, or pintle.1 (VXLAN)
//! ```
//!
//! There is no bridge: every packet between pods, also on one node, is routed, so that the forward hook sees it, where
//! Services and NetworkPolicies live. Nobody asks for link-layer addresses either: both ends know each other by
//! permanent neighbours, and the gateway `169.254.1.1` (`fe80::1`) is nobody's address. It is the MAC of the host's end.
//!
//! Start at [`BuiltIn`] (pods of this node) and [`run`] (pods of the others).

mod built_in;
mod cidr;
mod host_ports;
mod ipam;
mod link;
mod namespace;
mod peers;
pub(crate) mod records;

pub use built_in::{BuiltIn, MasqueradeRules, Options};
pub use cidr::Cidr;
pub use host_ports::{HostPort, HostPorts};
pub use peers::{PeerOptions, run};

/// Brings the loopback of a pod up, where nobody else did.
pub(crate) async fn bring_loopback_up(netns: &camino::Utf8Path) -> Result<()> {
    namespace::Namespace::open(netns).await?.set_link_up(built_in::LOOPBACK).await
}

/// The address of a node's block that the node itself has, for what it serves its pods; `None` in a block too small.
pub fn address_of_node(block: &Cidr) -> Option<std::net::IpAddr> {
    (block.size() > 4).then(|| block.nth(1)).flatten()
}

/// Whether pods can be connected, or why not: for the node's condition `Ready`.
pub type Readiness = std::result::Result<(), String>;

/// How packets reach pods of other nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// Not at all, or by what somebody else set up.
    #[default]
    None,
    /// In UDP between the nodes' addresses; works wherever nodes reach each other.
    Vxlan,
    /// By a plain route over the other node's address; the nodes share a link.
    HostGateway,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel said no.
    #[error("{operation}")]
    System {
        operation: String,
        #[source]
        source: std::io::Error,
    },
    /// It cannot be done as asked.
    #[error("{0}")]
    Refused(String),
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn system(operation: impl Into<String>, source: impl Into<std::io::Error>) -> Self {
        Self::System { operation: operation.into(), source: source.into() }
    }

    pub(crate) fn netlink(operation: impl Into<String>, source: rtnetlink::Error) -> Self {
        let source = match source {
            rtnetlink::Error::NetlinkError(message) => message.to_io(),
            other => std::io::Error::other(other),
        };
        Self::system(operation, source)
    }
}

impl From<Error> for runtime::Error {
    fn from(error: Error) -> Self {
        Self::Failed(telemetry::chain(&error).to_string())
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
