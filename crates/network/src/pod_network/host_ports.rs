//! [`HostPorts`]: which ports of the host lead to which pod.
//!
//! Owns: the book, and that no port is in it twice. Never touches: packets; the service proxy follows [`HostPorts::watch`]
//! and makes them true.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use runtime::spec::{PortMapping, Protocol};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// One port of the host and where it leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPort {
    pub protocol: Protocol,
    /// `None` for every address of the host, of the pod address' family.
    pub host_ip: Option<IpAddr>,
    pub host_port: u16,
    pub pod_ip: IpAddr,
    pub container_port: u16,
}

/// The host ports of all pods of this node.
pub struct HostPorts {
    by_sandbox: Mutex<BTreeMap<String, Vec<HostPort>>>,
    all: watch::Sender<Arc<Vec<HostPort>>>,
}

impl Default for HostPorts {
    fn default() -> Self {
        Self { by_sandbox: Mutex::default(), all: watch::Sender::new(Arc::default()) }
    }
}

impl HostPorts {
    /// All of them, now and whenever they change.
    pub fn watch(&self) -> watch::Receiver<Arc<Vec<HostPort>>> {
        self.all.subscribe()
    }

    /// Enters a sandbox' ports in place of those it had; none of them, and an explanation, if one is another's.
    pub(super) fn claim(&self, sandbox: &str, ports: Vec<HostPort>) -> Result<(), String> {
        let mut by_sandbox = self.by_sandbox.lock();
        for port in &ports {
            let holder = by_sandbox.iter().find(|(holder, held)| {
                holder.as_str() != sandbox && held.iter().any(|other| other.collides(port))
            });
            if let Some((holder, _)) = holder {
                return Err(format!("host port {port} is in use by sandbox {holder}"));
            }
        }
        let changed = if ports.is_empty() {
            by_sandbox.remove(sandbox).is_some()
        } else {
            by_sandbox.insert(sandbox.to_owned(), ports.clone()).as_ref() != Some(&ports)
        };
        if changed {
            self.all.send_replace(Arc::new(by_sandbox.values().flatten().cloned().collect()));
        }
        Ok(())
    }

    pub(super) fn release(&self, sandbox: &str) {
        self.claim(sandbox, Vec::new()).expect("nothing collides with no ports");
    }
}

impl HostPort {
    /// What a pod's mappings come to with its addresses: one for each address of a fitting family.
    pub(super) fn of(mappings: &[PortMapping], addresses: &[IpAddr]) -> Vec<Self> {
        let mut ports = Vec::new();
        for mapping in mappings.iter().filter(|mapping| mapping.host_port != 0) {
            let host_ip = mapping
                .host_ip
                .filter(|ip| *ip != IpAddr::from([0, 0, 0, 0]) && *ip != IpAddr::from([0_u8; 16]));
            // `0.0.0.0` and `::` still say which family is meant.
            let family = mapping.host_ip;
            for pod_ip in
                addresses.iter().filter(|ip| family.is_none_or(|host| host.is_ipv4() == ip.is_ipv4()))
            {
                ports.push(Self {
                    protocol: mapping.protocol,
                    host_ip,
                    host_port: mapping.host_port,
                    pod_ip: *pod_ip,
                    container_port: mapping.container_port,
                });
            }
        }
        ports
    }

    /// Whether it is a port of the host's loopback; that of IPv6 has none.
    pub(super) fn is_of_loopback(&self) -> bool {
        self.pod_ip.is_ipv4() && self.host_ip.is_none_or(|ip| ip.is_loopback())
    }

    fn collides(&self, other: &Self) -> bool {
        self.protocol == other.protocol
            && self.host_port == other.host_port
            && self.pod_ip.is_ipv4() == other.pod_ip.is_ipv4()
            && (self.host_ip.is_none() || other.host_ip.is_none() || self.host_ip == other.host_ip)
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(ip) = self.host_ip {
            write!(f, "{}/", ip)?;
        }
        let protocol = match self.protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        };
        write!(f, "{}/{protocol}", self.host_port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(protocol: Protocol, host_port: u16, host_ip: Option<&str>) -> PortMapping {
        let host_ip = host_ip.map(|ip| ip.parse().unwrap());
        PortMapping { protocol, container_port: 80, host_port, host_ip }
    }

    const PODS: [&str; 2] = ["10.0.0.5", "fd00::5"];

    fn ports(mapping: PortMapping) -> Vec<HostPort> {
        HostPort::of(&[mapping], &PODS.map(|ip| ip.parse().unwrap()))
    }

    #[test]
    fn a_port_leads_to_each_address_of_its_family() {
        for (host_port, host_ip, pods) in [
            (8080, None, &PODS[..]),
            (8080, Some("0.0.0.0"), &PODS[..1]),
            (8080, Some("::"), &PODS[1..]),
            (8080, Some("192.0.2.1"), &PODS[..1]),
            (0, None, &[]),
        ] {
            let found: Vec<_> = ports(mapping(Protocol::Tcp, host_port, host_ip))
                .iter()
                .map(|port| port.pod_ip.to_string())
                .collect();
            assert_eq!(found, pods, "{host_port} {host_ip:?}");
        }
    }

    #[test]
    fn a_port_is_held_once() {
        use Protocol::{Tcp, Udp};
        for (first, second, refused) in [
            ((Tcp, 80, None), (Tcp, 80, None), true),
            ((Tcp, 80, None), (Udp, 80, None), false),
            ((Tcp, 80, None), (Tcp, 81, None), false),
            ((Tcp, 80, Some("192.0.2.1")), (Tcp, 80, None), true),
            ((Tcp, 80, Some("192.0.2.1")), (Tcp, 80, Some("192.0.2.2")), false),
            ((Tcp, 80, Some("192.0.2.1")), (Tcp, 80, Some("192.0.2.1")), true),
            ((Tcp, 80, Some("0.0.0.0")), (Tcp, 80, Some("::")), false),
        ] {
            let book = HostPorts::default();
            let claim =
                |sandbox, (protocol, port, ip)| book.claim(sandbox, ports(mapping(protocol, port, ip)));
            claim("a", first).unwrap();
            assert_eq!(claim("b", second).is_err(), refused, "{first:?} {second:?}");
            // One's own are not in one's way, and what was given back is free.
            claim("a", first).unwrap();
            book.release("a");
            claim("b", second).unwrap();
        }
    }

    #[test]
    fn who_watches_sees_claims_and_releases() {
        let book = HostPorts::default();
        let mut all = book.watch();
        book.claim("a", ports(mapping(Protocol::Tcp, 80, None))).unwrap();
        assert!(all.has_changed().unwrap());
        assert_eq!(all.borrow_and_update().len(), 2);
        book.release("unknown");
        assert!(!all.has_changed().unwrap());
        book.release("a");
        assert!(all.borrow_and_update().is_empty());
    }
}
