//! Variables that say where Services are: `WEB_SERVICE_HOST`, and those of Docker's links.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort};

/// The Service whose variables every pod has, and its namespace.
const MASTER: (&str, &str) = ("default", "kubernetes");

/// The variables of a pod in `namespace`: of the API server, and where `links` of every Service beside it.
pub fn variables(services: &[Arc<Service>], namespace: &str, links: bool) -> BTreeMap<String, String> {
    let mut chosen: BTreeMap<&str, &Service> = BTreeMap::new();
    for service in services.iter().filter(|service| cluster_ip(service).is_some()) {
        let own_name = service.metadata.name.as_deref().unwrap_or_default();
        let own_namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        if (own_namespace, own_name) == MASTER {
            chosen.entry(own_name).or_insert(service);
        } else if own_namespace == namespace && links {
            chosen.insert(own_name, service);
        }
    }
    chosen.into_values().flat_map(of_service).collect()
}

/// An address of its own, which headless ones and aliases have not.
fn cluster_ip(service: &Service) -> Option<&str> {
    let ip = service.spec.as_ref()?.cluster_ip.as_deref()?;
    (!ip.is_empty() && ip != "None").then_some(ip)
}

fn of_service(service: &Service) -> Vec<(String, String)> {
    let (Some(ip), Some(spec)) = (cluster_ip(service), &service.spec) else { return Vec::new() };
    let prefix = variable_name(service.metadata.name.as_deref().unwrap_or_default());
    let ports = spec.ports.as_deref().unwrap_or_default();
    let mut variables = vec![(format!("{prefix}_SERVICE_HOST"), ip.to_owned())];
    if let Some(first) = ports.first() {
        variables.push((format!("{prefix}_SERVICE_PORT"), first.port.to_string()));
    }
    for port in ports {
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            variables.push((format!("{prefix}_SERVICE_PORT_{}", variable_name(name)), port.port.to_string()));
        }
    }
    if let Some(first) = ports.first() {
        variables.push((format!("{prefix}_PORT"), url(ip, first)));
    }
    for port in ports {
        let number = port.port.to_string();
        let base = format!("{prefix}_PORT_{number}_{}", protocol(port).to_uppercase());
        variables.push((format!("{base}_PROTO"), protocol(port).to_lowercase()));
        variables.push((format!("{base}_PORT"), number));
        variables.push((format!("{base}_ADDR"), ip.to_owned()));
        variables.push((base, url(ip, port)));
    }
    variables
}

fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().filter(|protocol| !protocol.is_empty()).unwrap_or("TCP")
}

fn url(ip: &str, port: &ServicePort) -> String {
    let protocol = protocol(port).to_lowercase();
    if ip.contains(':') {
        format!("{protocol}://[{ip}]:{}", port.port)
    } else {
        format!("{protocol}://{ip}:{}", port.port)
    }
}

fn variable_name(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(namespace: &str, name: &str, ip: &str, ports: serde_json::Value) -> Arc<Service> {
        let tree = serde_json::json!({"metadata": {"namespace": namespace, "name": name},
            "spec": {"clusterIP": ip, "ports": ports}});
        Arc::new(serde_json::from_value(tree).expect("a service"))
    }

    #[test]
    fn services_beside_the_pod_and_the_api_server_are_named() {
        let services = [
            service("default", "kubernetes", "10.0.0.1", serde_json::json!([{"name": "https", "port": 443}])),
            service("default", "other", "10.0.0.2", serde_json::json!([{"port": 1}])),
            service(
                "ns",
                "my-db",
                "fd00::5",
                serde_json::json!([{"name": "p", "port": 53, "protocol": "UDP"}]),
            ),
            service("ns", "headless", "None", serde_json::json!([{"port": 1}])),
        ];
        let all = variables(&services, "ns", true);
        let text: Vec<String> = all.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            text.join("\n"),
            "KUBERNETES_PORT=tcp://10.0.0.1:443\n\
             KUBERNETES_PORT_443_TCP=tcp://10.0.0.1:443\n\
             KUBERNETES_PORT_443_TCP_ADDR=10.0.0.1\n\
             KUBERNETES_PORT_443_TCP_PORT=443\n\
             KUBERNETES_PORT_443_TCP_PROTO=tcp\n\
             KUBERNETES_SERVICE_HOST=10.0.0.1\n\
             KUBERNETES_SERVICE_PORT=443\n\
             KUBERNETES_SERVICE_PORT_HTTPS=443\n\
             MY_DB_PORT=udp://[fd00::5]:53\n\
             MY_DB_PORT_53_UDP=udp://[fd00::5]:53\n\
             MY_DB_PORT_53_UDP_ADDR=fd00::5\n\
             MY_DB_PORT_53_UDP_PORT=53\n\
             MY_DB_PORT_53_UDP_PROTO=udp\n\
             MY_DB_SERVICE_HOST=fd00::5\n\
             MY_DB_SERVICE_PORT=53\n\
             MY_DB_SERVICE_PORT_P=53"
        );
        let without = variables(&services, "ns", false);
        assert!(without.keys().all(|name| name.starts_with("KUBERNETES_")) && without.len() == 8);
    }

    #[test]
    fn a_service_of_the_own_namespace_hides_the_api_servers() {
        let own = service("ns", "kubernetes", "10.0.0.9", serde_json::json!([{"port": 1}]));
        let master = service("default", "kubernetes", "10.0.0.1", serde_json::json!([{"port": 443}]));
        for services in [[own.clone(), master.clone()], [master, own]] {
            assert_eq!(variables(&services, "ns", true)["KUBERNETES_SERVICE_HOST"], "10.0.0.9");
        }
    }
}
