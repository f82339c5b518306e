//! [`Attachment`]: one pod's connection, and all that is needed to take it away again.

use std::net::IpAddr;

use camino::{Utf8Path, Utf8PathBuf};
use runtime::SandboxConfig;
use runtime::spec::{PortMapping, Protocol};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::bandwidth;
use super::error::{Error, Result};
use super::list::NetworkList;
use crate::cni::wire::{self, WirePort};
use crate::pod_network::Cidr;

/// The pod's end of its link.
pub(super) const INTERFACE: &str = "eth0";

/// What a pod is given, as it is remembered. A network may be configured anew meanwhile: a pod is disconnected by the
/// configuration by which it was connected.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Attachment {
    pub list: NetworkList,
    pub netns: Utf8PathBuf,
    /// `CNI_ARGS`.
    pub arguments: String,
    /// What plugins get that have the capability, by its name.
    pub capabilities: Map<String, Value>,
    /// What the last plugin answered; `None` until it did.
    pub result: Option<Value>,
}

impl Attachment {
    /// A pod that is to be connected. `pod_cidrs` are the node's, for plugins that take ranges of addresses from outside.
    ///
    /// # Errors
    /// Where an annotation of the pod asks for something impossible.
    pub fn of(
        list: NetworkList,
        netns: &Utf8Path,
        config: &SandboxConfig,
        sandbox: &str,
        pod_cidrs: &[Cidr],
    ) -> Result<Self> {
        let capabilities = capabilities(config, pod_cidrs)?;
        Ok(Self {
            list,
            netns: netns.to_owned(),
            arguments: arguments(config, sandbox),
            capabilities,
            result: None,
        })
    }

    /// What a plugin of the list is given.
    pub fn configuration(&self, plugin: &Map<String, Value>, previous: Option<&Value>) -> Value {
        let mut document = configuration(&self.list, plugin);
        let wanted = plugin.get("capabilities").and_then(Value::as_object).into_iter().flatten();
        let given: Map<String, Value> = wanted
            .filter(|(_, is_wanted)| is_wanted.as_bool() == Some(true))
            .filter_map(|(name, _)| Some((name.clone(), self.capabilities.get(name)?.clone())))
            .collect();
        if !given.is_empty() {
            document.insert("runtimeConfig".to_owned(), given.into());
        }
        if let Some(previous) = previous {
            document.insert("prevResult".to_owned(), previous.clone());
        }
        document.into()
    }

    /// The addresses of the pod's link, those of the preferred family first.
    pub fn addresses(&self, prefers_ipv4: bool) -> Vec<IpAddr> {
        let mut addresses = self.result.as_ref().map(addresses).unwrap_or_default();
        addresses.sort_by_key(|address| address.is_ipv4() != prefers_ipv4);
        addresses
    }
}

/// A plugin's part of a list, with what it has in common with the others.
pub(super) fn configuration(list: &NetworkList, plugin: &Map<String, Value>) -> Map<String, Value> {
    let mut document = plugin.clone();
    document.insert("name".to_owned(), list.name.as_str().into());
    document.insert("cniVersion".to_owned(), list.version.as_str().into());
    document
}

fn arguments(config: &SandboxConfig, sandbox: &str) -> String {
    let SandboxConfig { namespace, name, uid, .. } = config;
    format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};K8S_POD_INFRA_CONTAINER_ID={sandbox};\
         K8S_POD_UID={uid}"
    )
}

/// What can be given to plugins that ask for it, under the names that are conventions among plugins.
fn capabilities(config: &SandboxConfig, pod_cidrs: &[Cidr]) -> Result<Map<String, Value>> {
    let mut all = Map::new();
    let ports: Vec<WirePort> =
        config.port_mappings.iter().filter(|port| port.host_port != 0).map(wire_port).collect();
    if !ports.is_empty() {
        all.insert("portMappings".to_owned(), json!(ports));
    }
    if let Some(bandwidth) = bandwidth::of(&config.annotations).map_err(Error::Refused)? {
        all.insert("bandwidth".to_owned(), bandwidth);
    }
    if !pod_cidrs.is_empty() {
        let ranges = pod_cidrs.iter().map(|cidr| json!([{"subnet": cidr.to_string()}]));
        all.insert("ipRanges".to_owned(), ranges.collect());
    }
    if let Some(dns) = &config.dns {
        let dns = json!({"servers": dns.servers, "searches": dns.searches, "options": dns.options});
        all.insert("dns".to_owned(), dns);
    }
    if !config.annotations.is_empty() {
        all.insert("io.kubernetes.cri.pod-annotations".to_owned(), json!(config.annotations));
    }
    Ok(all)
}

fn wire_port(port: &PortMapping) -> WirePort {
    let protocol = match port.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    };
    WirePort {
        host_port: port.host_port,
        container_port: port.container_port,
        protocol: protocol.to_owned(),
        host_ip: port.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
    }
}

/// The addresses in a result that are the pod's: those of its link, and those of which no link is told.
fn addresses(result: &Value) -> Vec<IpAddr> {
    let is_of_pod = |ip: &Value| match ip["interface"].as_u64() {
        None => true,
        Some(index) => usize::try_from(index).is_ok_and(|index| {
            let interface = &result["interfaces"][index];
            interface["name"] == INTERFACE && interface["sandbox"].as_str().is_some_and(|own| !own.is_empty())
        }),
    };
    let ips = result["ips"].as_array().into_iter().flatten().filter(|ip| is_of_pod(ip));
    let current = ips.filter_map(|ip| wire::address(&ip["address"]));
    // Versions before 0.3.0 have one of each family.
    let old = ["ip4", "ip6"].iter().filter_map(|family| wire::address(&result[*family]["ip"]));
    current.chain(old).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> SandboxConfig {
        SandboxConfig {
            name: "web".into(),
            namespace: "shop".into(),
            uid: "u1".into(),
            port_mappings: vec![
                PortMapping {
                    protocol: Protocol::Udp,
                    container_port: 53,
                    host_port: 5353,
                    host_ip: Some("127.0.0.1".parse().unwrap()),
                },
                PortMapping { protocol: Protocol::Tcp, container_port: 80, host_port: 0, host_ip: None },
            ],
            annotations: [("kubernetes.io/ingress-bandwidth".to_owned(), "1M".to_owned())].into(),
            ..SandboxConfig::default()
        }
    }

    fn attachment(config: &SandboxConfig) -> Attachment {
        let list = NetworkList { name: "n".into(), version: "1.0.0".into(), ..NetworkList::default() };
        let cidrs = ["10.0.0.0/24", "fd00::/64"].map(|text| Cidr::parse(text).unwrap());
        Attachment::of(list, Utf8Path::new("/x"), config, "s1", &cidrs).unwrap()
    }

    #[test]
    fn a_plugin_gets_what_it_can_use_and_nothing_else() {
        let plugin = |capabilities: Value| {
            let plugin = json!({"type": "a", "own": 1, "capabilities": capabilities});
            attachment(&config()).configuration(plugin.as_object().unwrap(), None)
        };
        assert_eq!(
            plugin(json!({"portMappings": true, "ipRanges": false, "unknown": true})),
            json!({
                "type": "a", "own": 1, "name": "n", "cniVersion": "1.0.0",
                "capabilities": {"portMappings": true, "ipRanges": false, "unknown": true},
                "runtimeConfig": {"portMappings": [
                    {"hostPort": 5353, "containerPort": 53, "protocol": "udp", "hostIP": "127.0.0.1"},
                ]},
            })
        );
        assert_eq!(
            plugin(json!({"ipRanges": true, "bandwidth": true}))["runtimeConfig"],
            json!({
                "ipRanges": [[{"subnet": "10.0.0.0/24"}], [{"subnet": "fd00::/64"}]],
                "bandwidth": {"ingressRate": 1_000_000, "ingressBurst": u32::MAX},
            })
        );
        assert!(plugin(json!({})).get("runtimeConfig").is_none());
    }

    #[test]
    fn a_plugin_is_told_of_which_pod_it_is() {
        assert_eq!(
            attachment(&config()).arguments,
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=s1;K8S_POD_UID=u1"
        );
    }

    #[test]
    fn only_addresses_of_the_pods_own_link_count() {
        let result = json!({
            "interfaces": [{"name": "cni0"}, {"name": "eth0", "sandbox": "/x"}, {"name": "net1", "sandbox": "/x"}],
            "ips": [
                {"address": "10.0.0.1/24", "interface": 0},
                {"address": "fd00::5/64", "interface": 1},
                {"address": "10.0.0.5/24", "interface": 1},
                {"address": "10.9.0.5/24", "interface": 2},
                {"address": "rubbish", "interface": 1},
            ],
        });
        for (result, prefers_ipv4, expected) in [
            (result.clone(), true, vec!["10.0.0.5", "fd00::5"]),
            (result, false, vec!["fd00::5", "10.0.0.5"]),
            (json!({"ips": [{"version": "4", "address": "10.0.0.7/16"}]}), true, vec!["10.0.0.7"]),
            (json!({"ip4": {"ip": "10.0.0.8/16"}}), true, vec!["10.0.0.8"]),
            (json!({}), true, vec![]),
        ] {
            let attachment = Attachment { result: Some(result.clone()), ..Attachment::default() };
            let found: Vec<String> =
                attachment.addresses(prefers_ipv4).iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{result}");
        }
    }
}
