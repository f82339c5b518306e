//! What is said of a pod: `status` from the pod, what the runtime has, and what probes say. Pure.
//!
//! Reasons and messages are the kubelet's. Conditions that others own (readiness gates, `DisruptionTarget`, …) stay as
//! they are.

mod conditions;
mod container;
mod phase;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, HostIP, Pod, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::observed::{self, Observed};
use super::plan;
use crate::agent::resize::Course;

pub use phase::Phase;

/// What probes say, as far as a status tells it.
pub trait Readiness: plan::ProbeResults {
    /// Whether the readiness probe succeeds; `None` before its first result.
    fn ready(&self, container_id: &str) -> Option<bool>;
}

/// Why a container that does not run waits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    pub reason: String,
    pub message: String,
}

/// Everything that a status is made from.
pub struct Facts<'a> {
    /// As if it asked for what it was granted.
    pub pod: &'a Pod,
    /// How far its resize has come.
    pub course: &'a Course,
    pub observed: &'a Observed,
    pub probes: &'a dyn Readiness,
    /// By container name, where starting it did not work.
    pub waiting: &'a BTreeMap<String, Waiting>,
    /// The node's own, the primary one first.
    pub host_addresses: &'a [IpAddr],
    /// Nothing of the pod runs any more, and nothing will.
    pub is_over: bool,
    /// Why the node itself ended the pod, if it did.
    pub ended: Option<&'a Ended>,
    /// Prefix of container IDs: `pintle://…`.
    pub runtime_name: &'a str,
    pub now: Timestamp,
}

/// A pod that the node ended: evicted, not admitted, past its deadline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    pub reason: String,
    pub message: String,
    /// Its processes get so long at most; `None` for what the pod says.
    pub grace: Option<Duration>,
    /// What the condition `DisruptionTarget` says: whoever counts failures need not count this one, since the node
    /// needed the room.
    pub disruption: Option<String>,
}

/// The whole status of the pod.
pub fn status(facts: &Facts<'_>) -> PodStatus {
    let old = facts.pod.status.clone().unwrap_or_default();
    let spec = facts.pod.spec.as_ref();
    let init: Vec<ContainerStatus> =
        container::statuses(facts, observed::init_containers(facts.pod), container::Kind::Init);
    let regular = container::statuses(facts, observed::containers(facts.pod), container::Kind::Regular);
    let ephemeral =
        container::statuses(facts, &observed::ephemeral_containers(facts.pod), container::Kind::Ephemeral);
    let phase = match facts.ended {
        Some(_) => Phase::Failed,
        None => phase::phase(facts.pod, &init, &regular, facts.is_over),
    };
    // A pod that has ended does not come back.
    let phase = match old.phase.as_deref() {
        Some("Failed") => Phase::Failed,
        Some("Succeeded") => Phase::Succeeded,
        _ => phase,
    };
    let conditions = conditions::conditions(facts, &init, &regular, phase);
    let (reason, message) = match facts.ended {
        Some(ended) => (Some(ended.reason.clone()), Some(ended.message.clone())),
        None => (old.reason.clone(), old.message.clone()),
    };
    let host_network = spec.and_then(|spec| spec.host_network).unwrap_or(false);
    let addresses: Vec<IpAddr> = match facts.observed.sandbox() {
        Some(_) if host_network => facts.host_addresses.to_vec(),
        Some(sandbox) => sandbox.addresses.clone(),
        // What was said once is not taken back while the pod ends.
        None => old.pod_ips.iter().flatten().filter_map(|own| own.ip.parse().ok()).collect(),
    };
    let whole = spec.and_then(|spec| spec.resources.as_ref());
    PodStatus {
        allocated_resources: whole.and_then(|whole| whole.requests.clone()),
        conditions: Some(conditions),
        container_statuses: non_empty(regular),
        ephemeral_container_statuses: non_empty(ephemeral),
        host_ip: facts.host_addresses.first().map(IpAddr::to_string),
        host_ips: non_empty(facts.host_addresses.iter().map(|ip| HostIP { ip: ip.to_string() }).collect()),
        init_container_statuses: non_empty(init),
        message,
        observed_generation: facts.pod.metadata.generation,
        phase: Some(phase.as_str().to_owned()),
        pod_ip: addresses.first().map(IpAddr::to_string),
        pod_ips: non_empty(addresses.iter().map(|ip| PodIP { ip: ip.to_string() }).collect()),
        reason,
        resources: whole.map(|whole| facts.observed.given.pod.clone().unwrap_or_else(|| whole.clone())),
        start_time: old.start_time.clone().or(Some(time(facts.now))),
        ..old
    }
}

/// To the second, as the API keeps times: what comes back is then what was said.
fn time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

fn non_empty<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

#[cfg(test)]
mod tests;
