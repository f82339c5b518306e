//! What a pod asks for, as what a runtime is told.
//!
//! Owns: the way from a [`Pod`], one of its containers and what is known of the node to a [`runtime::SandboxConfig`] and
//! a [`runtime::ContainerConfig`]: variables, users, limits, names, mounts, as a kubelet has them. Never touches: the API (what a
//! pod refers to comes in as [`Objects`]) and, but for [`files`] and [`subpath`], the disk.
//!
//! Start at [`sandbox`] and [`container`]. Both decide and do nothing; [`Prepared::finish`] then makes the files and
//! bind mounts that the decision names.

mod assemble;
pub mod dns;
pub mod env;
pub mod env_file;
pub mod expansion;
pub mod fields;
pub mod files;
pub mod hostname;
pub mod labels;
pub mod mounts;
pub mod objects;
pub mod resources;
pub mod security;
pub mod services;
pub mod subpath;

use std::net::IpAddr;
use std::sync::Arc;

use api::amounts::Amounts;
use camino::Utf8PathBuf;
use client::events::Severity;
use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, Service};
use runtime::ImageStatus;
use runtime::spec::{Device, Dns, UserMapping};

pub use assemble::{Prepared, container, log_directory, sandbox};
pub use objects::Objects;

use super::volumes::Mounted;

/// What is the same for every pod of a node.
#[derive(Clone, Debug)]
pub struct NodeFacts {
    pub name: String,
    /// The primary one first.
    pub addresses: Vec<IpAddr>,
    /// `status.allocatable`.
    pub allocatable: Amounts,
    /// Bytes of memory that the machine has.
    pub memory_bytes: i64,
    /// Sizes of huge pages that the machine has, as cgroups name them: `2MB`.
    pub huge_page_sizes: Vec<String>,
    pub cgroup_v2: bool,
    /// Microseconds of a period in which a CPU limit is kept; zero where limits are not enforced.
    pub cpu_period: u64,
    pub pids_limit: i64,
    /// Empty where Services have no names.
    pub cluster_domain: String,
    pub cluster_dns: Vec<IpAddr>,
    /// The machine's own resolver.
    pub host_dns: Dns,
    /// The machine's own `/etc/hosts`, which pods on its network see too.
    pub host_hosts: String,
    /// `<root>/pods`.
    pub pods_root: Utf8PathBuf,
    /// Where pods' log folders are: `/var/log/pods`.
    pub logs_root: Utf8PathBuf,
    /// Profiles of `Localhost` lie below it.
    pub seccomp_root: Utf8PathBuf,
    /// Pods that say nothing of seccomp get the runtime's profile.
    pub seccomp_default: bool,
    /// Names of kernel parameters that are allowed beside the safe ones; a trailing `*` stands for any rest.
    pub unsafe_sysctls: Vec<String>,
}

/// What is known of one pod beside itself.
#[derive(Clone, Copy)]
pub struct PodFacts<'a> {
    pub pod: &'a Pod,
    pub node: &'a NodeFacts,
    /// Of the pod's namespace, and `kubernetes` of `default`; others are passed over.
    pub services: &'a [Arc<Service>],
    pub objects: &'a Objects,
    /// The sandbox's addresses; of a pod on the host's network, the node's.
    pub addresses: &'a [IpAddr],
    pub volumes: &'a Mounted,
    /// A range of the host's IDs that was set aside for this pod: for `hostUsers: false`.
    pub user_mapping: Option<UserMapping>,
}

/// What is known of one start of a container.
#[derive(Clone, Copy)]
pub struct ContainerFacts<'a> {
    pub container: &'a Container,
    pub attempt: u32,
    /// For its annotation.
    pub restart_count: i32,
    pub image: &'a ImageStatus,
    /// For ephemeral containers.
    pub pid_target: Option<&'a str>,
    /// What drivers of devices give to it. Their variables, annotations and mounts are the caller's to add.
    pub devices: &'a [Device],
    /// For `fileKeyRef`.
    pub env_files: &'a dyn env_file::EnvFiles,
}

/// Why a container or a sandbox cannot be made as its pod asks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Of the waiting state and the event: `CreateContainerConfigError`, ….
    pub reason: &'static str,
    pub message: String,
}

impl Refusal {
    /// The class of almost everything that a container's specification gets wrong.
    pub const CONTAINER_CONFIG: &'static str = "CreateContainerConfigError";
    pub const RUN_CONTAINER: &'static str = "RunContainerError";
    pub const SANDBOX: &'static str = "FailedCreatePodSandBox";

    pub fn config(message: impl Into<String>) -> Self {
        Self { reason: Self::CONTAINER_CONFIG, message: message.into() }
    }

    pub fn sandbox(message: impl Into<String>) -> Self {
        Self { reason: Self::SANDBOX, message: message.into() }
    }
}

impl From<Refusal> for runtime::Error {
    fn from(refusal: Refusal) -> Self {
        Self::Refused { reason: refusal.reason, message: refusal.message }
    }
}

/// Something that users should hear of, and that stops nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub severity: Severity,
    pub reason: &'static str,
    pub message: String,
}

impl Notice {
    pub fn warning(reason: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, reason, message: message.into() }
    }
}

/// The pod as upstream's messages name it: `name_namespace(uid)`.
pub fn pod_name(pod: &Pod) -> String {
    let meta = &pod.metadata;
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{}_{}({})", part(&meta.name), part(&meta.namespace), part(&meta.uid))
}

/// The namespace of a pod, which each has.
pub(crate) fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

pub(crate) fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

pub(crate) fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// An ephemeral container as one that has the fields of all.
pub fn as_container(ephemeral: &EphemeralContainer) -> Container {
    let own = ephemeral.clone();
    Container {
        args: own.args,
        command: own.command,
        env: own.env,
        env_from: own.env_from,
        image: own.image,
        image_pull_policy: own.image_pull_policy,
        lifecycle: own.lifecycle,
        liveness_probe: own.liveness_probe,
        name: own.name,
        ports: own.ports,
        readiness_probe: own.readiness_probe,
        resize_policy: own.resize_policy,
        resources: own.resources,
        restart_policy: own.restart_policy,
        restart_policy_rules: own.restart_policy_rules,
        security_context: own.security_context,
        startup_probe: own.startup_probe,
        stdin: own.stdin,
        stdin_once: own.stdin_once,
        termination_message_path: own.termination_message_path,
        termination_message_policy: own.termination_message_policy,
        tty: own.tty,
        volume_devices: own.volume_devices,
        volume_mounts: own.volume_mounts,
        working_dir: own.working_dir,
    }
}

/// Every container of a pod, ephemeral ones as [`as_container`] makes them.
pub fn all_containers(pod: &Pod) -> Vec<Container> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let plain = spec.init_containers.iter().flatten().chain(&spec.containers).cloned();
    plain.chain(spec.ephemeral_containers.iter().flatten().map(as_container)).collect()
}

#[cfg(test)]
pub(crate) mod fixture {
    use super::*;

    pub fn pod(spec: serde_json::Value) -> Pod {
        let meta = serde_json::json!({"name": "web", "namespace": "ns", "uid": "u-1",
            "labels": {"app": "web"}, "annotations": {"b": "two\n", "a": "1"}});
        serde_json::from_value(serde_json::json!({"metadata": meta, "spec": spec})).expect("a pod")
    }

    pub fn node() -> NodeFacts {
        NodeFacts {
            name: "n1".into(),
            addresses: vec!["192.0.2.10".parse().expect("an address")],
            allocatable: Amounts::of(Some(&apimachinery::json!({"cpu": "4", "memory": "8Gi"}))),
            memory_bytes: 16 << 30,
            huge_page_sizes: vec!["2MB".into()],
            cgroup_v2: true,
            cpu_period: 100_000,
            pids_limit: 0,
            cluster_domain: "cluster.local".into(),
            cluster_dns: vec!["10.96.0.10".parse().expect("an address")],
            host_dns: Dns {
                servers: vec!["192.0.2.53".into()],
                searches: vec!["example.com".into()],
                options: vec!["rotate".into()],
            },
            host_hosts: "127.0.0.1\tlocalhost\n".into(),
            pods_root: "/r/pods".into(),
            logs_root: "/var/log/pods".into(),
            seccomp_root: "/r/seccomp".into(),
            seccomp_default: false,
            unsafe_sysctls: Vec::new(),
        }
    }

    /// A pod without volumes.
    pub fn volumes() -> Mounted {
        Mounted::default()
    }
}
