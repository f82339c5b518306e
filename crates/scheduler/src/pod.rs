//! [`PodInfo`]: a pod with what every cycle would otherwise work out again.

use std::sync::Arc;

use api::view::Pod;
use apimachinery::Str;

use crate::affinity::AffinityTerms;
use crate::resource::{Missing, Resources};

/// A pod as the scheduler knows it. Immutable; a changed pod is a new `PodInfo`.
#[derive(Debug)]
pub struct PodInfo {
    pub pod: Arc<Pod>,
    /// The revision that this was made of.
    pub revision: u64,
    pub requests: Resources,
    /// CPU in milli and memory in bytes with missing requests assumed, for scoring.
    pub scored_cpu_milli: i64,
    pub scored_memory: i64,
    pub host_ports: Box<[HostPort]>,
    /// What it says about other pods.
    pub affinity: Option<Arc<AffinityTerms>>,
}

/// A port of the host that a container wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// `0.0.0.0` is every address.
    pub ip: Str,
    pub protocol: Str,
    pub port: i32,
}

// === impl PodInfo ===

impl PodInfo {
    pub fn new(pod: Arc<Pod>, revision: u64) -> Self {
        let requests = Resources::requested_by(&pod, Missing::Zero);
        let scored = Resources::requested_by(&pod, Missing::Assumed);
        let host_ports = host_ports(&pod);
        let affinity =
            AffinityTerms::new(&pod.metadata.namespace, pod.spec.affinity.as_deref()).map(Arc::new);
        Self {
            revision,
            requests,
            scored_cpu_milli: scored.cpu_milli,
            scored_memory: scored.memory,
            host_ports,
            affinity,
            pod,
        }
    }

    pub fn uid(&self) -> &Str {
        &self.pod.metadata.uid
    }

    pub fn name(&self) -> &Str {
        &self.pod.metadata.name
    }

    pub fn namespace(&self) -> &Str {
        &self.pod.metadata.namespace
    }

    /// Empty while the pod is not bound.
    pub fn node_name(&self) -> &Str {
        &self.pod.spec.node_name
    }

    pub fn priority(&self) -> i32 {
        self.pod.spec.priority.unwrap_or(0)
    }
}

/// Host ports of containers and sidecars, with Kubernetes' defaults filled in.
fn host_ports(pod: &Pod) -> Box<[HostPort]> {
    let sidecars = pod.spec.init_containers.iter().filter(|container| container.is_sidecar());
    let ports = pod.spec.containers.iter().chain(sidecars).flat_map(|container| &container.ports);
    let wanted = ports.filter(|port| port.host_port > 0).map(|port| HostPort {
        ip: if port.host_ip.is_empty() { ANY_ADDRESS.into() } else { port.host_ip.clone() },
        protocol: if port.protocol.is_empty() { "TCP".into() } else { port.protocol.clone() },
        port: port.host_port,
    });
    wanted.collect()
}

const ANY_ADDRESS: &str = "0.0.0.0";

// === impl HostPort ===

impl HostPort {
    /// Both cannot be open on one host.
    pub fn conflicts(&self, other: &Self) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || self.ip == ANY_ADDRESS || other.ip == ANY_ADDRESS)
    }
}
