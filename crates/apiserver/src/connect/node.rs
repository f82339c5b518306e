//! Nodes: their kubelet, or another port of theirs.

use apimachinery::Status;

use super::{Backend, Finder, Location, Target, is_global_unicast, rest_path};

impl Finder<'_> {
    /// `nodes/proxy`.
    pub(super) fn node(&self, rest: &str) -> Result<Location, Status> {
        let target = Target::parse_numbered(self.call.name)
            .ok_or_else(|| Status::bad_request(format!("invalid node request {:?}", self.call.name)))?;
        let kubelet = self.kubelet(target.name)?;
        // A name is checked once it is resolved, before it is connected to.
        if kubelet.host.parse().is_ok_and(|ip| !is_global_unicast(ip)) {
            return Err(Status::bad_request("address not allowed"));
        }
        if target.port.is_empty() || target.port == kubelet.port {
            return Ok(kubelet.location(rest_path(rest), None, Backend::Kubelet));
        }
        Ok(Location {
            scheme: target.scheme,
            host: kubelet.host,
            port: target.port.to_owned(),
            path: rest_path(rest),
            query: None,
            backend: Backend::Cluster,
        })
    }
}
