//! Where a Service can be reached from here: what webhooks and aggregated API servers are called at.
//!
//! Upstream calls the cluster IP and leaves the rest to kube-proxy on its own machine. There is no such thing here, so
//! a ready endpoint is called, which is what upstream does with `--enable-aggregator-routing`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use apimachinery::{GroupResource, Object, Status, Value, field};
use parking_lot::Mutex;
use registry::Endpoint;
use webhook::ServiceResolver;

use crate::connect::join_host_port;

pub(crate) const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// Services whose slices are remembered; those of webhooks and aggregated API servers are few.
const REMEMBERED_MAX: usize = 1_000;

/// Looks into the caches of Services and EndpointSlices.
pub(crate) struct ServiceAddresses {
    services: Endpoint,
    slices: Endpoint,
    /// Where this server itself listens: `kubernetes` in `default`.
    own_address: SocketAddr,
    /// The slices of Services by namespace and name, and the last change of all slices when they were looked for:
    /// as long as that stays, so do they.
    remembered: Mutex<HashMap<(String, String), (u64, Slices)>>,
}

type Slices = Arc<[Value]>;

impl ServiceResolver for ServiceAddresses {
    fn resolve(&self, namespace: &str, name: &str, port: u16) -> Result<String, Status> {
        if (namespace, name, port) == ("default", "kubernetes", 443) {
            return Ok(self.own_address.to_string());
        }
        let service = self
            .services
            .cache
            .get(&self.services.resource.key(namespace, name))
            // In the singular, as upstream's listers have it.
            .ok_or_else(|| Status::not_found(&GroupResource::new("", "service"), name))?;
        let slices = self.remembered(namespace, name);
        address(&service.to_value(), &slices, port)
    }
}

impl ServiceAddresses {
    pub(crate) fn new(services: Endpoint, slices: Endpoint, own_address: SocketAddr) -> Self {
        Self { services, slices, own_address, remembered: Mutex::default() }
    }

    /// Hot path: every call of a webhook asks.
    fn remembered(&self, namespace: &str, name: &str) -> Slices {
        // Before the look: what changes meanwhile is looked at again.
        let change = self.slices.cache.last_change();
        let key = (namespace.to_owned(), name.to_owned());
        if let Some((_, slices)) = self.remembered.lock().get(&key).filter(|(seen, _)| *seen == change) {
            return slices.clone();
        }
        let slices = self.slices_of(namespace, name);
        let mut remembered = self.remembered.lock();
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(key, (change, slices.clone()));
        slices
    }

    fn slices_of(&self, namespace: &str, name: &str) -> Slices {
        let snapshot = self.slices.cache.snapshot();
        let belongs = |slice: &Object| slice.label(SERVICE_NAME_LABEL) == Some(name);
        snapshot
            .range(&self.slices.resource.key_prefix(namespace), None)
            .filter(|(_, slice)| belongs(slice))
            .map(|(_, slice)| slice.to_value())
            .collect()
    }
}

fn address(service: &Value, slices: &[Value], port: u16) -> Result<String, Status> {
    let name = field::go_quote(service.str_at(&["metadata", "name"]));
    if service.str_at(&["spec", "type"]) == "ExternalName" {
        return Ok(join_host_port(service.str_at(&["spec", "externalName"]), &port.to_string()));
    }
    let ports = service.array_at(&["spec", "ports"]);
    let service_port = ports
        .iter()
        .find(|own| own["port"].as_i64() == Some(port.into()))
        .ok_or_else(|| Status::unavailable(format!("no service port {port} found for service {name}")))?;
    let family = service["spec"]["ipFamilies"][0].as_str().unwrap_or("IPv4");
    let port_name = service_port.str_at(&["name"]);
    // Those of the Service's own family first.
    let preferred = |slice: &&Value| slice.str_at(&["addressType"]) == family;
    slices
        .iter()
        .filter(preferred)
        .chain(slices.iter().filter(|slice| !preferred(slice)))
        .find_map(|slice| endpoint_of(slice, port_name))
        .ok_or_else(|| Status::unavailable(format!("no endpoints available for service {name}")))
}

/// One ready endpoint of a slice, another one each time.
fn endpoint_of(slice: &Value, port_name: &str) -> Option<String> {
    let port = slice
        .array_at(&["ports"])
        .iter()
        .find(|own| own.str_at(&["name"]) == port_name)
        .and_then(|own| own["port"].as_i64())?;
    let ready: Vec<&str> = slice
        .array_at(&["endpoints"])
        .iter()
        .filter(|endpoint| endpoint["conditions"]["ready"].as_bool() != Some(false))
        .filter_map(|endpoint| endpoint["addresses"][0].as_str())
        .collect();
    ready.get(rt::below(ready.len())).map(|address| join_host_port(address, &port.to_string()))
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn a_ready_endpoint_of_the_port_is_called() {
        let service = json!({
            "metadata": {"name": "s"},
            "spec": {"type": "ClusterIP", "ipFamilies": ["IPv4"], "ports": [{"name": "https", "port": 443}]},
        });
        let slice = |family: &str, address: &str, ready: bool| {
            json!({
                "addressType": family, "ports": [{"name": "other", "port": 1}, {"name": "https", "port": 8443}],
                "endpoints": [{"addresses": [address], "conditions": {"ready": ready}}],
            })
        };
        let found = |slices: &[Value]| address(&service, slices, 443).map_err(|status| status.message);
        let none = Err("no endpoints available for service \"s\"".to_owned());
        assert_eq!(found(&[]), none);
        assert_eq!(found(&[slice("IPv4", "10.0.0.1", false)]), none);
        assert_eq!(found(&[slice("IPv6", "fd00::1", true)]), Ok("[fd00::1]:8443".to_owned()));
        let both = [slice("IPv6", "fd00::1", true), slice("IPv4", "10.0.0.1", true)];
        assert_eq!(found(&both), Ok("10.0.0.1:8443".to_owned()));
        assert_eq!(
            address(&service, &both, 80).map_err(|status| status.message),
            Err("no service port 80 found for service \"s\"".to_owned())
        );
    }

    #[test]
    fn a_name_outside_is_called_by_its_name() {
        let service = json!({"spec": {"type": "ExternalName", "externalName": "hooks.example.com"}});
        assert_eq!(address(&service, &[], 9443).ok().as_deref(), Some("hooks.example.com:9443"));
    }
}
