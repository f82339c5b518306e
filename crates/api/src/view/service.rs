//! `v1.Service`: what the endpoint controllers read of it.

use apimachinery::Str;
use serde::Deserialize;

use super::{IntOrString, ObjectMeta, StringMap};

/// `v1.Service`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct Service {
    pub metadata: ObjectMeta,
    pub spec: ServiceSpec,
}

/// `v1.ServiceSpec`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceSpec {
    /// Empty: endpoints are not the controllers' business.
    pub selector: StringMap,
    pub ports: Vec<ServicePort>,
    /// `ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`.
    #[serde(rename = "type")]
    pub type_: Str,
    /// `None` (the word) for headless services.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Str,
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Vec<Str>,
    /// `IPv4`, `IPv6`; the first is the primary one.
    pub ip_families: Vec<Str>,
    pub publish_not_ready_addresses: bool,
    pub traffic_distribution: Str,
}

/// `v1.ServicePort`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct ServicePort {
    pub name: Str,
    /// Empty is `TCP`.
    pub protocol: Str,
    pub app_protocol: Option<Str>,
    pub port: i32,
    pub target_port: Option<IntOrString>,
    pub node_port: i32,
}

impl Service {
    pub fn is_headless(&self) -> bool {
        self.spec.cluster_ip == "None"
    }
}
