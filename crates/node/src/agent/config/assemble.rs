//! The whole of a sandbox and of a container, put together from the parts.

use camino::{Utf8Path, Utf8PathBuf};
use k8s_openapi::api::core::v1::{Container, Pod};
use runtime::spec::{PortMapping, Protocol};
use runtime::{ContainerConfig, SandboxConfig};

use super::fields::Addresses;
use super::mounts::SubPath;
use super::{
    ContainerFacts, NodeFacts, Notice, PodFacts, Refusal, dns, env, files, hostname, labels, mounts, name,
    namespace, resources, security, subpath, uid,
};

/// What [`container`] decided.
#[derive(Clone, Debug, Default)]
pub struct Prepared {
    pub config: ContainerConfig,
    pub notices: Vec<Notice>,
    sub_paths: Vec<SubPath>,
    /// `/etc/hosts` and its text.
    hosts: Option<(Utf8PathBuf, String)>,
    termination: Option<Utf8PathBuf>,
    /// Of the pod.
    sub_path_folder: Utf8PathBuf,
}

impl Prepared {
    /// Writes the files and mounts the parts of volumes that the container needs. Blocks on the disk.
    ///
    /// # Errors
    /// Where one of them cannot be made.
    pub fn finish(mut self) -> Result<ContainerConfig, Refusal> {
        let failed = |what: &str, path: &Utf8Path, cause: std::io::Error| {
            Refusal::config(format!("failed to write {what} {path}: {cause}"))
        };
        if let Some((path, text)) = &self.hosts {
            files::write_hosts(path, text).map_err(|cause| failed("hosts file", path, cause))?;
        }
        if let Some(path) = &self.termination {
            files::make_termination_file(path).map_err(|cause| failed("termination log", path, cause))?;
        }
        for part in &self.sub_paths {
            let place = subpath::bind(part, &self.config.name, &self.sub_path_folder)?;
            self.config.mounts[part.mount].source = place;
        }
        Ok(self.config)
    }
}

/// `<logs>/<namespace>_<name>_<uid>`.
pub fn log_directory(pod: &Pod, node: &NodeFacts) -> Utf8PathBuf {
    node.logs_root.join(format!("{}_{}_{}", namespace(pod), name(pod), uid(pod)))
}

/// What a pod's sandbox is made from. `attempt` counts the sandboxes before it.
///
/// # Errors
/// Where the pod asks for something that cannot be.
pub fn sandbox(
    pod: &Pod,
    node: &NodeFacts,
    attempt: u32,
    user_mapping: Option<runtime::spec::UserMapping>,
    handler: &str,
) -> Result<(SandboxConfig, Vec<Notice>), Refusal> {
    let (dns, notices) = dns::resolver(pod, node)?;
    let names = hostname::hostname(pod, &node.cluster_domain)?;
    let namespaces = security::namespaces(pod, user_mapping)?;
    let config = SandboxConfig {
        name: name(pod).to_owned(),
        namespace: namespace(pod).to_owned(),
        uid: uid(pod).to_owned(),
        attempt,
        hostname: if namespaces.host_network { String::new() } else { names.kernel },
        log_directory: log_directory(pod, node),
        dns: Some(dns),
        port_mappings: port_mappings(pod)?,
        labels: labels::sandbox_labels(pod),
        annotations: labels::sandbox_annotations(pod),
        cgroup_parent: resources::cgroup_parent(pod),
        namespaces,
        sysctls: security::sysctls(pod, node)?,
        resources: resources::of_pod(pod, node),
        handler: handler.to_owned(),
        privileged: super::all_containers(pod).iter().any(is_privileged),
    };
    Ok((config, notices))
}

fn is_privileged(container: &Container) -> bool {
    container.security_context.as_ref().and_then(|own| own.privileged).unwrap_or(false)
}

/// Ports that are the host's too, of containers that last. A pod on the host's network has its ports there anyway.
fn port_mappings(pod: &Pod) -> Result<Vec<PortMapping>, Refusal> {
    let Some(spec) = pod.spec.as_ref().filter(|spec| spec.host_network != Some(true)) else {
        return Ok(Vec::new());
    };
    let is_sidecar = |own: &&Container| own.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.iter().flatten().filter(is_sidecar);
    let ports = spec.containers.iter().chain(sidecars).flat_map(|own| own.ports.iter().flatten());
    let mapped = ports.filter(|port| port.host_port.unwrap_or(0) != 0);
    mapped
        .map(|port| {
            let number = |number: i32| {
                u16::try_from(number).map_err(|_| Refusal::sandbox(format!("{number} is not a port")))
            };
            let host_ip = match port.host_ip.as_deref().unwrap_or_default() {
                "" | "0.0.0.0" | "::" => None,
                text => Some(
                    apimachinery::ip::parse_sloppy(text)
                        .ok_or_else(|| Refusal::sandbox(format!("hostIP {text:?} is not an address")))?,
                ),
            };
            let protocol = match port.protocol.as_deref() {
                Some("UDP") => Protocol::Udp,
                Some("SCTP") => Protocol::Sctp,
                _ => Protocol::Tcp,
            };
            let (container_port, host_port) =
                (number(port.container_port)?, number(port.host_port.unwrap_or(0))?);
            Ok(PortMapping { protocol, container_port, host_port, host_ip })
        })
        .collect()
}

/// What a container is made from.
///
/// # Errors
/// Where it asks for something that cannot be, or that is not there.
pub fn container(facts: &PodFacts<'_>, start: &ContainerFacts<'_>) -> Result<Prepared, Refusal> {
    let (pod, own) = (facts.pod, start.container);
    let security = security::of_container(facts, own, start.image)?;
    let mut environment = env::environment(facts, start, &addresses(facts))?;
    let made = mounts::mounts(facts, own, &environment, start.attempt)?;
    let expanded = |list: &Option<Vec<String>>| -> Vec<String> {
        list.iter().flatten().map(|text| environment.expand(text)).collect()
    };
    let mut devices = made.devices;
    devices.extend_from_slice(start.devices);
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let config = ContainerConfig {
        cdi_devices: Vec::new(),
        name: own.name.clone(),
        attempt: start.attempt,
        image: start.image.id.clone(),
        image_reference: text(&own.image),
        command: expanded(&own.command),
        args: expanded(&own.args),
        working_dir: text(&own.working_dir),
        env: environment.variables.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        mounts: made.mounts,
        devices,
        labels: labels::container_labels(pod, own),
        annotations: labels::container_annotations(pod, own, start.restart_count),
        log_path: Utf8Path::new(&own.name).join(format!("{}.log", start.restart_count)),
        stdin: own.stdin.unwrap_or(false),
        stdin_once: own.stdin_once.unwrap_or(false),
        tty: own.tty.unwrap_or(false),
        resources: resources::of_container(pod, own, facts.node),
        security,
        stop_signal: own.lifecycle.as_ref().and_then(|own| own.stop_signal.clone()).unwrap_or_default(),
        pid_target: start.pid_target.map(str::to_owned),
    };
    let hosts = match made.hosts {
        Some(path) => {
            let names = hostname::hostname(pod, &facts.node.cluster_domain)?;
            Some((path, hostname::hosts(pod, &names, facts.addresses, facts.node)))
        }
        None => None,
    };
    let mut notices = std::mem::take(&mut environment.notices);
    notices.extend(security::ignored(pod, own));
    Ok(Prepared {
        config,
        notices,
        sub_paths: made.sub_paths,
        hosts,
        termination: made.termination,
        sub_path_folder: facts.node.pods_root.join(uid(pod)).join("volume-subpaths"),
    })
}

/// The pod's addresses and its node's, as variables have them.
pub fn addresses(facts: &PodFacts<'_>) -> Addresses {
    let text = |list: &[std::net::IpAddr]| list.iter().map(ToString::to_string).collect();
    Addresses { pod: text(facts.addresses), host: text(&facts.node.addresses) }
}

#[cfg(test)]
mod tests {
    use super::super::{Objects, env_file::NoEnvFiles, fixture};
    use super::*;

    #[test]
    fn a_sandbox_is_all_that_a_pod_says() {
        let pod = fixture::pod(serde_json::json!({"containers": [{"name": "c", "ports": [
            {"containerPort": 80, "hostPort": 8080, "hostIP": "127.0.0.1"}, {"containerPort": 81},
            {"containerPort": 53, "hostPort": 53, "protocol": "UDP", "hostIP": "0.0.0.0"}]}]}));
        let (config, notices) = sandbox(&pod, &fixture::node(), 1, None, "kata").expect("it is made");
        assert!(notices.is_empty());
        assert_eq!((config.hostname.as_str(), config.attempt, config.handler.as_str()), ("web", 1, "kata"));
        assert_eq!(config.log_directory, "/var/log/pods/ns_web_u-1");
        assert_eq!(config.cgroup_parent, "/kubepods/besteffort/podu-1");
        let ports: Vec<_> =
            config.port_mappings.iter().map(|own| (own.host_port, own.host_ip.is_some())).collect();
        assert_eq!(ports, [(8080, true), (53, false)]);
        let host = fixture::pod(serde_json::json!({"hostNetwork": true,
            "containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]}));
        let (config, _) = sandbox(&host, &fixture::node(), 0, None, "").expect("it is made");
        assert!(config.hostname.is_empty() && config.port_mappings.is_empty());
    }

    #[test]
    fn a_container_is_all_that_it_says_and_its_files_are_made() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = Utf8PathBuf::from_path_buf(folder.path().to_path_buf()).expect("it is text");
        let pod = fixture::pod(serde_json::json!({"containers": [{"name": "c", "image": "x:1",
            "command": ["sh", "-c"], "args": ["echo $(A) $$(A) $(B)"], "env": [{"name": "A", "value": "1"}],
            "lifecycle": {"stopSignal": "SIGUSR1"}, "tty": true}]}));
        let node = NodeFacts { pods_root: root.clone(), ..fixture::node() };
        let (objects, volumes) = (Objects::default(), fixture::volumes());
        let facts = PodFacts {
            pod: &pod,
            node: &node,
            services: &[],
            objects: &objects,
            addresses: &["10.1.0.1".parse().expect("an address")],
            volumes: &volumes,
            user_mapping: None,
        };
        let image = runtime::ImageStatus { id: "sha256:1".into(), ..runtime::ImageStatus::default() };
        let start = ContainerFacts {
            container: &pod.spec.as_ref().expect("it has one").containers[0],
            attempt: 2,
            restart_count: 2,
            image: &image,
            pid_target: None,
            devices: &[],
            env_files: &NoEnvFiles,
        };
        let config = container(&facts, &start).expect("it is decided").finish().expect("it is made");
        assert_eq!(config.args, ["echo 1 $(A) $(B)"]);
        assert_eq!((config.image.as_str(), config.image_reference.as_str()), ("sha256:1", "x:1"));
        assert_eq!((config.stop_signal.as_str(), config.log_path.as_str()), ("SIGUSR1", "c/2.log"));
        let hosts = std::fs::read_to_string(root.join("u-1/etc-hosts")).expect("it is written");
        assert!(hosts.ends_with("10.1.0.1\tweb\n"), "{hosts}");
        assert!(root.join("u-1/containers/c/2").exists());
    }
}
