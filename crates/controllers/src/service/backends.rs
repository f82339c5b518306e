//! Pods behind a service. Pure, except for look-ups in informers.

use std::net::IpAddr;
use std::sync::Arc;

use api::view::{Container, IntOrString, Pod, Service, ServicePort};
use apimachinery::{Object, Str};
use client::{Delta, Informer, ObjectKey};

/// Address families, by their names in `spec.ipFamilies` and in `addressType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "IPv4" => Some(Self::Ipv4),
            "IPv6" => Some(Self::Ipv6),
            _ => None,
        }
    }

    fn of_address(text: &str) -> Option<Self> {
        match text.parse::<IpAddr>().ok()? {
            IpAddr::V4(_) => Some(Self::Ipv4),
            IpAddr::V6(_) => Some(Self::Ipv6),
        }
    }
}

/// The families of a service; by its cluster IP where the API server did not say, both for a headless one.
pub fn families_of_service(service: &Service) -> Vec<Family> {
    let named: Vec<Family> = service.spec.ip_families.iter().filter_map(|name| Family::parse(name)).collect();
    if !named.is_empty() {
        return named;
    }
    match Family::of_address(&service.spec.cluster_ip) {
        Some(family) => vec![family],
        None => vec![Family::Ipv4, Family::Ipv6],
    }
}

/// The primary family.
pub fn family_of_service(service: &Service) -> Family {
    families_of_service(service).first().copied().unwrap_or(Family::Ipv4)
}

/// The pod's addresses of one family, in their canonical text.
pub fn addresses(pod: &Pod, family: Family) -> Vec<String> {
    let addresses = pod.status.pod_ips.iter().filter_map(|own| own.ip.parse::<IpAddr>().ok());
    addresses.filter(|own| own.is_ipv6() == (family == Family::Ipv6)).map(|own| own.to_string()).collect()
}

/// A pod has a place in endpoints once it has an address and until it is done.
pub fn has_endpoint(pod: &Pod, include_terminating: bool) -> bool {
    let addressed = !pod.status.pod_ip.is_empty() || !pod.status.pod_ips.is_empty();
    addressed && !pod.is_terminal() && (include_terminating || !pod.is_deleting())
}

/// The pod's hostname is known to DNS below the service's name.
pub fn hostname_of<'a>(pod: &'a Pod, service: &Service) -> Option<&'a str> {
    let named = !pod.spec.hostname.is_empty()
        && pod.spec.subdomain == service.metadata.name
        && pod.metadata.namespace == service.metadata.namespace;
    named.then_some(pod.spec.hostname.as_str())
}

/// The number a service port leads to in this pod; a named target port is looked up in its containers.
pub fn find_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) if name.is_empty() => Some(port.port),
        Some(IntOrString::String(name)) => {
            let sidecars = pod.spec.init_containers.iter().filter(|container| container.is_sidecar());
            let containers = pod.spec.containers.iter().chain(sidecars);
            containers.flat_map(|container: &Container| &container.ports).find_map(|own| {
                (own.name == *name && protocol(&own.protocol) == protocol(&port.protocol))
                    .then_some(own.container_port)
            })
        }
    }
}

pub fn protocol(text: &str) -> &str {
    if text.is_empty() { "TCP" } else { text }
}

/// Pods that the service selects, ordered by name so that results are stable.
pub fn selected(pods: &Informer, service: &Service) -> Vec<Arc<Pod>> {
    let mut found = pods.list_namespace(&service.metadata.namespace);
    found.retain(|pod| selects(service, pod));
    found.sort_by(|a, b| a.name().cmp(b.name()));
    found.into_iter().filter_map(|pod| pod.view::<Pod>().ok()).collect()
}

fn selects(service: &Service, pod: &Object) -> bool {
    !service.spec.selector.is_empty()
        && service.spec.selector.iter().all(|(key, value)| pod.label(key) == Some(value.as_str()))
}

/// Keys of the services whose endpoints a pod's change may touch.
pub fn wake_services(services: &Informer, delta: &Delta, keys: &mut Vec<ObjectKey>) {
    let (old, new) = match delta {
        Delta::Upsert { old, new } => (old.as_ref(), Some(new)),
        Delta::Delete { old } => (Some(old), None),
        Delta::Resync => return,
    };
    if !matters(old, new) {
        return;
    }
    let relabeled = matches!((old, new), (Some(old), Some(new)) if !old.labels().eq(new.labels()));
    let states = [new.or(old), old.filter(|_| relabeled)];
    for pod in states.into_iter().flatten() {
        for object in services.list_namespace(pod.namespace()) {
            if object.view::<Service>().is_ok_and(|service| selects(&service, pod)) {
                keys.push(ObjectKey::from(&*object));
            }
        }
    }
}

/// The change is one that endpoints show. Most of a pod's life is not.
fn matters(old: Option<&Arc<Object>>, new: Option<&Arc<Object>>) -> bool {
    let shown = |object: Option<&Arc<Object>>| {
        let pod = object?.view::<Pod>().ok()?;
        has_endpoint(&pod, true).then_some(pod)
    };
    match (shown(old), shown(new)) {
        (None, None) => false,
        (Some(was), Some(is)) => {
            was.is_deleting() != is.is_deleting()
                || was.is_ready() != is.is_ready()
                || was.status.pod_ips != is.status.pod_ips
                || was.metadata.labels != is.metadata.labels
                || (&was.spec.hostname, &was.spec.subdomain) != (&is.spec.hostname, &is.spec.subdomain)
        }
        _ => true,
    }
}

/// Index of objects by `namespace/service`, from the label that names their service.
pub fn service_index(object: &Object) -> Vec<Str> {
    let service = object.label("kubernetes.io/service-name");
    service.map(|service| format!("{}/{service}", object.namespace()).into()).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use apimachinery::{Value, json};

    use super::*;
    use crate::testing::object;

    fn pod(change: impl FnOnce(&mut Value)) -> Arc<Object> {
        let mut tree = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "ns"},
            "spec": {"containers": [{"name": "c", "ports": [
                {"name": "web", "containerPort": 80}, {"name": "dns", "containerPort": 53, "protocol": "UDP"}]}],
                "initContainers": [{"name": "i", "ports": [{"name": "init", "containerPort": 1}]},
                    {"name": "s", "restartPolicy": "Always", "ports": [{"name": "side", "containerPort": 2}]}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}});
        change(&mut tree);
        object(tree)
    }

    #[test]
    fn named_ports_are_found_by_name_and_protocol_also_in_sidecars() {
        let pod = pod(|_| {}).view::<Pod>().unwrap();
        let port = |target: Option<IntOrString>, protocol: &str| ServicePort {
            port: 8080,
            target_port: target,
            protocol: protocol.into(),
            ..ServicePort::default()
        };
        let named = |name: &str| Some(IntOrString::String(name.into()));
        let rows = [
            (port(None, ""), Some(8080)),
            (port(Some(IntOrString::Int(9)), ""), Some(9)),
            (port(named("web"), "TCP"), Some(80)),
            (port(named("web"), "UDP"), None),
            (port(named("dns"), "UDP"), Some(53)),
            (port(named("side"), ""), Some(2)),
            (port(named("init"), ""), None),
            (port(named("none"), ""), None),
        ];
        for (port, wanted) in rows {
            assert_eq!(find_port(&pod, &port), wanted, "{port:?}");
        }
    }

    #[test]
    fn only_changes_that_endpoints_show_wake_services() {
        let base = pod(|_| {});
        let rows: [(&str, Arc<Object>, bool); 5] = [
            ("annotation", pod(|pod| pod.set_at(&["metadata", "annotations", "a"], "b")), false),
            (
                "deleting",
                pod(|pod| pod.set_at(&["metadata", "deletionTimestamp"], "2026-01-01T00:00:00Z")),
                true,
            ),
            ("ready", pod(crate::testing::make_ready), true),
            ("done", pod(|pod| pod.set_at(&["status", "phase"], "Succeeded")), true),
            ("address", pod(|pod| pod.set_at(&["status", "podIPs"], json!([{"ip": "10.0.0.2"}]))), true),
        ];
        for (what, changed, wanted) in rows {
            assert_eq!(matters(Some(&base), Some(&changed)), wanted, "{what}");
        }
        let unaddressed = pod(|pod| pod.set_at(&["status"], json!({"phase": "Pending"})));
        assert!(
            !matters(None, Some(&unaddressed)) && matters(None, Some(&base)) && matters(Some(&base), None)
        );
    }

    #[test]
    fn families_come_from_the_spec_then_from_the_cluster_ip() {
        let service = |families: &[&str], ip: &str| {
            let mut service = Service::default();
            service.spec.ip_families = families.iter().map(|name| Str::from(*name)).collect();
            service.spec.cluster_ip = ip.into();
            families_of_service(&service)
        };
        assert_eq!(service(&["IPv6", "IPv4"], "10.0.0.1"), [Family::Ipv6, Family::Ipv4]);
        assert_eq!(service(&[], "fd00::1"), [Family::Ipv6]);
        assert_eq!(service(&[], "None"), [Family::Ipv4, Family::Ipv6]);
        let pod = pod(|_| {}).view::<Pod>().unwrap();
        assert_eq!(addresses(&pod, Family::Ipv6), ["fd00::1"]);
        assert_eq!(addresses(&pod, Family::Ipv4), ["10.0.0.1"]);
    }
}
