//! Services: one of the pods behind them.

use api::view::Pod;
use apimachinery::{GroupResource, GroupVersionResource, Status, Value};

use super::{Backend, Finder, Location, Target, is_global_unicast, rest_path};

impl Finder<'_> {
    /// `services/proxy`.
    pub(super) fn service(&self, rest: &str) -> Result<Location, Status> {
        let target = Target::parse(self.call.name)
            .ok_or_else(|| Status::bad_request(format!("invalid service request {:?}", self.call.name)))?;
        let port_name = self.port_name(&target)?;
        let endpoints = GroupVersionResource::new("", "v1", "endpoints");
        let endpoints = self
            .objects
            .get(&endpoints, self.call.namespace, target.name)
            .ok_or_else(|| Status::not_found(&GroupResource::new("", "endpoints"), target.name))?
            .to_value();
        let unavailable =
            |name: &str| Status::unavailable(format!("no endpoints available for service {name:?}"));
        let subsets = endpoints.array_at(&["subsets"]);
        if subsets.is_empty() {
            return Err(unavailable(target.name));
        }
        let addresses: Vec<(&Value, i64)> =
            subsets.iter().flat_map(|subset| addresses(subset, &port_name)).collect();
        // From one at random on, the first that is good: a Service may have thousands.
        let first = rt::below(addresses.len());
        let mut refusal = None;
        for (address, port) in addresses[first..].iter().chain(&addresses[..first]) {
            match self.is_own_pod(address) {
                Ok(true) => {
                    return Ok(Location {
                        scheme: target.scheme,
                        host: address.str_at(&["ip"]).to_owned(),
                        port: port.to_string(),
                        path: rest_path(rest),
                        query: None,
                        backend: Backend::Cluster,
                    });
                }
                Ok(false) => {}
                Err(status) => refusal = Some(status),
            }
        }
        Err(refusal.unwrap_or_else(|| unavailable(self.call.name)))
    }

    /// The name of the port that is asked for, maybe by its number.
    fn port_name(&self, target: &Target<'_>) -> Result<String, Status> {
        let Ok(number) = target.port.parse::<i64>() else { return Ok(target.port.to_owned()) };
        let service = self
            .objects
            .get(&api::gvr::SERVICES, self.call.namespace, target.name)
            .ok_or_else(|| Status::not_found(&GroupResource::new("", "services"), target.name))?
            .to_value();
        let ports = service.array_at(&["spec", "ports"]);
        let port = ports.iter().find(|port| port["port"].as_i64() == Some(number));
        port.map(|port| port.str_at(&["name"]).to_owned()).ok_or_else(|| {
            Status::unavailable(format!("no service port {number} found for service {:?}", target.name))
        })
    }

    /// Only addresses that are pods of the same namespace are reached: whoever may write Endpoints must not get the
    /// server to call anything else.
    fn is_own_pod(&self, address: &Value) -> Result<bool, Status> {
        let ip = address.str_at(&["ip"]);
        let pod = &address["targetRef"];
        if pod.str_at(&["namespace"]) != self.call.namespace || !ip.parse().is_ok_and(is_global_unicast) {
            return Ok(false);
        }
        let Ok(object) = self.named_pod(pod.str_at(&["name"])) else { return Ok(false) };
        let Ok(pod) = object.view::<Pod>() else { return Ok(false) };
        let holds = pod.status.pod_ips.iter().any(|own| own.ip == ip);
        if holds {
            self.check_reachable(object.name(), &pod.spec.node_name)?;
        }
        Ok(holds)
    }
}

/// The ready addresses of a subset with the number of a port, if it has that.
fn addresses<'s>(subset: &'s Value, port_name: &str) -> impl Iterator<Item = (&'s Value, i64)> {
    let ports = subset.array_at(&["ports"]);
    let port = ports.iter().find(|port| port.str_at(&["name"]) == port_name);
    let port = port.and_then(|port| port["port"].as_i64());
    let addresses = subset.array_at(&["addresses"]).iter();
    port.into_iter().flat_map(move |port| addresses.clone().map(move |address| (address, port)))
}
