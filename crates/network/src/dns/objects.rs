//! What names are made from: the parts of Services, EndpointSlices and Namespaces that DNS reads.
//!
//! They are decoded where they change and not kept: the index holds what is answered, and nothing else.

use std::net::IpAddr;

use apimachinery::{Object, Str};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Which Service a slice belongs to.
pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Service {
    pub spec: ServiceSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ServiceSpec {
    #[serde(rename = "type")]
    pub type_: Str,
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Str,
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Vec<Str>,
    pub external_name: Str,
    pub ports: Option<Vec<ServicePort>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ServicePort {
    pub name: Str,
    /// Empty is `TCP`.
    pub protocol: Str,
    pub port: u16,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct EndpointSlice {
    /// Upstream writes `null` for none.
    pub endpoints: Option<Vec<SliceEndpoint>>,
    pub ports: Option<Vec<SlicePort>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct SliceEndpoint {
    pub addresses: Vec<Str>,
    pub conditions: Conditions,
    pub hostname: Option<Str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Conditions {
    /// Unknown is to be taken for ready.
    pub ready: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct SlicePort {
    pub name: Option<Str>,
    pub protocol: Option<Str>,
    /// None is every port, which no `SRV` record can say.
    pub port: Option<u16>,
}

/// Decodes an object; one that cannot be has no names.
pub(super) fn decode<T: DeserializeOwned + Default>(object: &Object) -> T {
    serde_json::from_slice(object.json()).unwrap_or_else(|error| {
        tracing::warn!(?object, %error, "An object has no names, because it cannot be read");
        T::default()
    })
}

impl ServiceSpec {
    pub fn addresses(&self) -> Vec<IpAddr> {
        let first = std::slice::from_ref(&self.cluster_ip);
        let texts = if self.cluster_ips.is_empty() { first } else { &self.cluster_ips };
        texts.iter().filter_map(|text| text.parse().ok()).collect()
    }
}
