//! CNI's documents: what a plugin is given and what it answers.

use std::net::IpAddr;

use camino::Utf8PathBuf;
use runtime::SandboxConfig;
use runtime::spec::{PortMapping, Protocol};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Versions of the specification that are spoken.
pub(super) const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// The newest version whose answers we know by heart; errors that concern no configuration have it.
pub(super) const VERSION: &str = "1.0.0";

/// A document on standard input or on the socket is no longer.
pub(super) const DOCUMENT_BYTES_MAX: u64 = 1 << 20;

/// The only name that a pod's link has.
const LINK: &str = "eth0";

/// Well-known codes of errors.
pub(super) mod code {
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    pub const INVALID_ENVIRONMENT: u32 = 4;
    pub const IO: u32 = 5;
    pub const DECODING: u32 = 6;
    pub const INVALID_CONFIGURATION: u32 = 7;
    pub const TRY_AGAIN_LATER: u32 = 11;
    /// The first of the plugins' own.
    pub const FAILED: u32 = 100;
}

/// What a plugin is called with, as it goes over the socket.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Call {
    pub command: String,
    pub container_id: String,
    pub netns: String,
    pub interface: String,
    pub arguments: String,
    pub configuration: Configuration,
}

/// The parts of a network's configuration that matter here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Configuration {
    pub cni_version: String,
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    /// Where the node's process listens.
    pub socket: Utf8PathBuf,
    pub runtime_config: RuntimeConfiguration,
    /// What an earlier plugin of the list, or an earlier call, said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prev_result: Option<Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct RuntimeConfiguration {
    pub port_mappings: Vec<WirePort>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct WirePort {
    // containerd writes the names as Go has them, and relies on plugins that read them in either case.
    #[serde(alias = "HostPort")]
    pub host_port: u16,
    #[serde(alias = "ContainerPort")]
    pub container_port: u16,
    #[serde(alias = "Protocol")]
    pub protocol: String,
    #[serde(rename = "hostIP", alias = "HostIP")]
    pub host_ip: String,
}

/// What a plugin says when it fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub code: u32,
    pub message: String,
}

impl Failure {
    pub fn new(code: u32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub fn document(&self, version: &str) -> Value {
        json!({"cniVersion": version, "code": self.code, "msg": self.message})
    }
}

/// What a plugin prints, and whether it succeeded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Answer {
    pub is_error: bool,
    /// `null` where nothing is to be said.
    pub document: Value,
}

/// What a call asks of a pod network.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Wish {
    Attach(SandboxConfig),
    /// The addresses that the pod was told.
    Check(SandboxConfig, Vec<IpAddr>),
    Detach(SandboxConfig),
    /// Whether pods can be attached.
    Status,
}

/// What a call means.
pub(super) fn wish(call: &Call) -> Result<Wish, Failure> {
    let version = call.configuration.cni_version.as_str();
    if !VERSIONS.contains(&version) {
        let versions = VERSIONS.join(", ");
        let message = format!("CNI version {version:?} is not spoken here, but {versions} are");
        return Err(Failure::new(code::INCOMPATIBLE_VERSION, message));
    }
    let command = call.command.as_str();
    if command == "STATUS" {
        return Ok(Wish::Status);
    }
    let missing = |name: &str| {
        Failure::new(code::INVALID_ENVIRONMENT, format!("required env variables [{name}] missing"))
    };
    if call.container_id.is_empty() {
        return Err(missing("CNI_CONTAINERID"));
    }
    let sandbox = || sandbox(call);
    match command {
        "DEL" => Ok(Wish::Detach(sandbox()?)),
        "ADD" | "CHECK" if call.netns.is_empty() => Err(missing("CNI_NETNS")),
        "ADD" | "CHECK" if call.interface != LINK => Err(Failure::new(
            code::INVALID_ENVIRONMENT,
            format!("CNI_IFNAME {:?}: a pod's link is called {LINK}", call.interface),
        )),
        "ADD" => Ok(Wish::Attach(sandbox()?)),
        "CHECK" => Ok(Wish::Check(sandbox()?, told(call.configuration.prev_result.as_ref()))),
        _ => Err(Failure::new(code::INVALID_ENVIRONMENT, format!("unknown CNI_COMMAND: {command}"))),
    }
}

/// The pod, as far as a runtime tells a plugin of it.
fn sandbox(call: &Call) -> Result<SandboxConfig, Failure> {
    let mut config = SandboxConfig::default();
    for (key, value) in call.arguments.split(';').filter_map(|pair| pair.split_once('=')) {
        match key {
            "K8S_POD_NAME" => value.clone_into(&mut config.name),
            "K8S_POD_NAMESPACE" => value.clone_into(&mut config.namespace),
            "K8S_POD_UID" => value.clone_into(&mut config.uid),
            _ => {}
        }
    }
    let ports = call.configuration.runtime_config.port_mappings.iter();
    config.port_mappings =
        ports.filter(|port| port.host_port > 0).map(port_mapping).collect::<Result<_, _>>()?;
    Ok(config)
}

fn port_mapping(port: &WirePort) -> Result<PortMapping, Failure> {
    let invalid = |message: String| Failure::new(code::INVALID_CONFIGURATION, message);
    let protocol = match port.protocol.to_ascii_lowercase().as_str() {
        "" | "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        other => return Err(invalid(format!("portMappings: unknown protocol {other:?}"))),
    };
    let host_ip = match port.host_ip.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_| invalid(format!("portMappings: {text:?} is no address")))?),
    };
    Ok(PortMapping { protocol, container_port: port.container_port, host_port: port.host_port, host_ip })
}

/// The addresses in an earlier result.
fn told(result: Option<&Value>) -> Vec<IpAddr> {
    let ips = result.and_then(|result| result["ips"].as_array());
    ips.into_iter().flatten().filter_map(|ip| address(&ip["address"])).collect()
}

/// The address of an address with its prefix.
pub(super) fn address(text: &Value) -> Option<IpAddr> {
    text.as_str()?.split('/').next()?.parse().ok()
}

/// What a pod was given, in the words of the version that was asked in.
pub(super) fn attached(call: &Call, addresses: &[IpAddr]) -> Value {
    let version = call.configuration.cni_version.as_str();
    let ips: Vec<Value> = addresses
        .iter()
        .map(|address| {
            let (bits, family) = if address.is_ipv4() { (32, "4") } else { (128, "6") };
            let mut ip = json!({"address": format!("{address}/{bits}"), "interface": 0});
            if version.starts_with("0.") {
                ip["version"] = family.into();
            }
            ip
        })
        .collect();
    json!({
        "cniVersion": version,
        "interfaces": [{"name": call.interface, "sandbox": call.netns}],
        "ips": ips,
        "dns": {},
    })
}

/// What a plugin says of itself.
pub(super) fn versions() -> Value {
    json!({"cniVersion": VERSION, "supportedVersions": VERSIONS})
}
