//! What the proxy reads of Services and EndpointSlices.
//!
//! Owns: typed views with the fields that traffic depends on. Never touches: objects; a view is read only.

use std::net::IpAddr;

use api::view::ObjectMeta;
use apimachinery::Str;
use serde::{Deserialize, Deserializer};

/// Somebody else's proxy handles a Service or a slice with this label.
const SERVICE_PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// A slice of a Service without an address of its own.
const HEADLESS: &str = "service.kubernetes.io/headless";
/// The Service to which a slice belongs.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// `v1.Service`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct Service {
    pub metadata: ObjectMeta,
    pub spec: ServiceSpec,
    pub status: ServiceStatus,
}

/// `v1.ServiceSpec`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceSpec {
    #[serde(deserialize_with = "null_is_empty")]
    pub ports: Vec<ServicePort>,
    #[serde(rename = "type")]
    pub type_: Str,
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Str,
    #[serde(rename = "clusterIPs", deserialize_with = "null_is_empty")]
    pub cluster_ips: Vec<Str>,
    #[serde(rename = "externalIPs", deserialize_with = "null_is_empty")]
    pub external_ips: Vec<Str>,
    #[serde(deserialize_with = "null_is_empty")]
    pub ip_families: Vec<Str>,
    pub session_affinity: Str,
    pub session_affinity_config: Option<SessionAffinityConfig>,
    pub internal_traffic_policy: Option<Str>,
    pub external_traffic_policy: Str,
    pub health_check_node_port: i32,
    pub load_balancer_class: Option<Str>,
    #[serde(deserialize_with = "null_is_empty")]
    pub load_balancer_source_ranges: Vec<Str>,
}

/// `v1.ServicePort`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct ServicePort {
    pub name: Str,
    /// Empty is `TCP`.
    pub protocol: Str,
    pub port: i32,
    pub node_port: i32,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct SessionAffinityConfig {
    #[serde(rename = "clientIP")]
    pub client_ip: Option<ClientIpConfig>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct ClientIpConfig {
    pub timeout_seconds: Option<u32>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceStatus {
    pub load_balancer: LoadBalancerStatus,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct LoadBalancerStatus {
    #[serde(deserialize_with = "null_is_empty")]
    pub ingress: Vec<LoadBalancerIngress>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, rename_all = "camelCase")]
pub struct LoadBalancerIngress {
    pub ip: Str,
    pub hostname: Str,
    /// `VIP` (also when absent) or `Proxy`.
    pub ip_mode: Option<Str>,
}

/// `discovery.k8s.io/v1.EndpointSlice`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointSlice {
    pub metadata: ObjectMeta,
    pub address_type: Str,
    #[serde(deserialize_with = "null_is_empty")]
    pub endpoints: Vec<Endpoint>,
    #[serde(deserialize_with = "null_is_empty")]
    pub ports: Vec<EndpointPort>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct Endpoint {
    #[serde(deserialize_with = "null_is_empty")]
    pub addresses: Vec<Str>,
    pub conditions: EndpointConditions,
    pub node_name: Option<Str>,
    pub hints: Option<EndpointHints>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointConditions {
    pub ready: Option<bool>,
    pub serving: Option<bool>,
    pub terminating: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointHints {
    #[serde(deserialize_with = "null_is_empty")]
    pub for_zones: Vec<Hint>,
    #[serde(deserialize_with = "null_is_empty")]
    pub for_nodes: Vec<Hint>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct Hint {
    pub name: Str,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointPort {
    pub name: Option<Str>,
    pub protocol: Option<Str>,
    pub port: Option<i32>,
}

fn null_is_empty<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    Ok(Option::<Vec<T>>::deserialize(deserializer)?.unwrap_or_default())
}

/// A protocol that has ports, by its number in IP packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    Tcp = 6,
    Udp = 17,
    Sctp = 132,
}

impl Protocol {
    /// From the API's word; empty is TCP.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }
}

impl Service {
    /// Whether it has addresses that are ours to serve.
    pub fn is_proxied(&self) -> bool {
        self.spec.type_ != "ExternalName"
            && !matches!(self.spec.cluster_ip.as_str(), "" | "None")
            && !self.metadata.labels.contains_key(SERVICE_PROXY_NAME)
    }

    pub fn is_load_balancer(&self) -> bool {
        self.spec.type_ == "LoadBalancer"
    }

    pub fn is_external_local(&self) -> bool {
        self.spec.external_traffic_policy == "Local"
    }

    pub fn is_internal_local(&self) -> bool {
        self.spec.internal_traffic_policy.as_deref() == Some("Local")
    }

    /// The addresses inside the cluster, all families.
    pub fn cluster_ips(&self) -> impl Iterator<Item = IpAddr> {
        let single = self.spec.cluster_ips.is_empty().then_some(&self.spec.cluster_ip);
        self.spec.cluster_ips.iter().chain(single).filter_map(|ip| ip.parse().ok())
    }
}

impl EndpointSlice {
    pub fn is_proxied(&self) -> bool {
        !self.metadata.labels.contains_key(SERVICE_PROXY_NAME) && !self.metadata.labels.contains_key(HEADLESS)
    }
}

impl Endpoint {
    pub fn is_ready(&self) -> bool {
        self.conditions.ready.unwrap_or(true)
    }

    pub fn is_serving(&self) -> bool {
        self.conditions.serving.unwrap_or_else(|| self.is_ready())
    }

    pub fn is_terminating(&self) -> bool {
        self.conditions.terminating.unwrap_or(false)
    }
}
