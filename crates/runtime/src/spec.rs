//! What a sandbox and a container are made from, and what is known of them: CRI's messages, without their wire form.
//!
//! Everything here is decided already: names are resolved, variables are expanded, users are numbers or names of the
//! image. A runtime does as it is told.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use camino::Utf8PathBuf;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub type Labels = BTreeMap<String, String>;

/// Labels by which a node finds its own again (`io.kubernetes.…`, as the kubelet sets them).
pub mod label {
    pub const POD_NAME: &str = "io.kubernetes.pod.name";
    pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
    pub const POD_UID: &str = "io.kubernetes.pod.uid";
    pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
}

/// A pod as its sandbox sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SandboxConfig {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    /// How many sandboxes this pod had before.
    pub attempt: u32,
    /// Empty where the pod has the host's network.
    pub hostname: String,
    /// Containers' log paths are relative to it. It is made where it is missing.
    pub log_directory: Utf8PathBuf,
    /// What `/etc/resolv.conf` says; `None` for the host's own file.
    pub dns: Option<Dns>,
    pub port_mappings: Vec<PortMapping>,
    pub labels: Labels,
    pub annotations: Labels,
    /// Relative to the root of each cgroup hierarchy: `/kubepods/burstable/pod<uid>`.
    pub cgroup_parent: String,
    pub namespaces: Namespaces,
    /// Namespaced kernel parameters, by dotted name.
    pub sysctls: BTreeMap<String, String>,
    /// Limits of the pod as a whole, on `cgroup_parent`.
    pub resources: Resources,
    /// A RuntimeClass' handler; empty for the default one.
    pub handler: String,
    /// A container of it will be privileged. Runtimes behind a socket want to know beforehand.
    pub privileged: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Dns {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PortMapping {
    pub protocol: Protocol,
    pub container_port: u16,
    pub host_port: u16,
    /// `None` for every address of the host.
    pub host_ip: Option<IpAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// Whose namespaces the containers of a pod live in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Namespaces {
    pub host_network: bool,
    pub host_pid: bool,
    pub host_ipc: bool,
    /// All containers see each other's processes.
    pub shared_pid: bool,
    /// A user namespace of the pod: `hostUsers: false`.
    pub user: Option<UserMapping>,
}

/// IDs of users and groups `container..container+length` are `host..` outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserMapping {
    pub container: u32,
    pub host: u32,
    pub length: u32,
}

/// Limits of a cgroup; zero or `None` is "not set".
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    /// Relative weight, 2 to 262144 (cgroup v1's scale).
    pub cpu_shares: u64,
    /// Microseconds of CPU per `cpu_period`.
    pub cpu_quota: i64,
    /// Microseconds.
    pub cpu_period: u64,
    /// Bytes.
    pub memory_limit: i64,
    /// Bytes; `memory.min` or `memory.high` and the like, by their file names, where cgroups are of version 2.
    pub unified: BTreeMap<String, String>,
    /// -1000 to 1000.
    pub oom_score_adj: i32,
    pub pids_limit: i64,
    pub cpuset_cpus: String,
    /// Page size (`2MB`, `1GB`) to bytes.
    pub hugepages: BTreeMap<String, u64>,
}

/// A container that is to be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ContainerConfig {
    pub name: String,
    /// How many containers of this name the sandbox had before.
    pub attempt: u32,
    /// The image's ID.
    pub image: String,
    /// The image as the pod names it.
    pub image_reference: String,
    /// Replaces the image's entry point; empty for the image's.
    pub command: Vec<String>,
    /// Replaces the image's command; empty for the image's unless `command` is given.
    pub args: Vec<String>,
    /// Empty for the image's.
    pub working_dir: String,
    /// Added to the image's, in this order.
    pub env: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
    pub devices: Vec<Device>,
    /// Devices by their names in the Container Device Interface, `vendor.com/class=name`, with all that comes with them.
    #[serde(default)]
    pub cdi_devices: Vec<String>,
    pub labels: Labels,
    pub annotations: Labels,
    /// Relative to the sandbox's log directory: `<name>/<attempt>.log`.
    pub log_path: Utf8PathBuf,
    pub stdin: bool,
    /// Stdin is closed after the first client left.
    pub stdin_once: bool,
    pub tty: bool,
    pub resources: Resources,
    pub security: Security,
    /// `SIGTERM`, …; empty for the image's, or else TERM.
    pub stop_signal: String,
    /// Of a container in whose process namespace this one lives (ephemeral containers), by ID.
    pub pid_target: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Mount {
    /// On the host. For an image volume: empty.
    pub source: Utf8PathBuf,
    pub target: Utf8PathBuf,
    pub read_only: bool,
    pub recursive_read_only: bool,
    pub propagation: Propagation,
    /// An image's ID whose files are mounted read-only, and the path in it.
    pub image: Option<(String, Utf8PathBuf)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    #[default]
    Private,
    HostToContainer,
    Bidirectional,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Device {
    pub host: Utf8PathBuf,
    pub container: Utf8PathBuf,
    /// Some of `rwm`.
    pub permissions: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Security {
    pub privileged: bool,
    /// Without `CAP_`; `ALL` for all.
    pub add_capabilities: Vec<String>,
    pub drop_capabilities: Vec<String>,
    pub user: User,
    /// `None` for the user's own, as the image's `/etc/passwd` has it.
    pub group: Option<u32>,
    pub supplemental_groups: Vec<u32>,
    /// Whether groups that the image's `/etc/group` gives the user are left out (`supplementalGroupsPolicy: Strict`).
    pub strict_groups: bool,
    pub read_only_root: bool,
    pub no_new_privileges: bool,
    /// `procMount: Unmasked`.
    pub unmasked_proc: bool,
    pub seccomp: Seccomp,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum User {
    /// As the image says; root where it says nothing.
    #[default]
    Image,
    Id(u32),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    #[default]
    Unconfined,
    RuntimeDefault,
    /// A profile in OCI's JSON form on the host.
    Localhost(Utf8PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SandboxState {
    Ready,
    NotReady,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SandboxStatus {
    pub id: String,
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub attempt: u32,
    pub state: SandboxState,
    pub created_at: Timestamp,
    /// The primary one first; none with the host's network.
    pub addresses: Vec<IpAddr>,
    pub host_network: bool,
    pub labels: Labels,
    pub annotations: Labels,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    #[default]
    Created,
    Running,
    Exited,
    /// It was there and left no word: its state was lost.
    Unknown,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ContainerStatus {
    pub id: String,
    pub sandbox_id: String,
    pub name: String,
    pub attempt: u32,
    pub state: ContainerState,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    /// 128 + the number of the signal that ended it.
    pub exit_code: i32,
    /// `OOMKilled`, `Completed`, `Error`, `StartError`, `ContainerCannotRun`.
    pub reason: String,
    pub message: String,
    /// The image's ID.
    pub image: String,
    /// The image by name, as the runtime has it: `registry/repository:tag`.
    pub image_reference: String,
    /// `registry/repository@sha256:…`, or the image's ID where no registry has it.
    pub image_digest: String,
    pub labels: Labels,
    pub annotations: Labels,
    /// Absolute.
    pub log_path: Utf8PathBuf,
    pub mounts: Vec<Mount>,
    /// Of its first process, on the host; 0 when it is not running.
    pub pid: u32,
    /// As whom its first process runs.
    pub user: Option<RunningUser>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningUser {
    pub uid: u32,
    pub gid: u32,
    pub supplemental_groups: Vec<u32>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerStats {
    pub id: String,
    pub sandbox_id: String,
    pub name: String,
    pub labels: Labels,
    /// Nanoseconds of CPU used since it started.
    pub cpu_usage: u64,
    /// Bytes that cannot be reclaimed easily.
    pub memory_working_set: u64,
    pub memory_usage: u64,
    pub memory_rss: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
    pub processes: u64,
    /// Bytes and inodes of its writable layer.
    pub writable_layer: (u64, u64),
    pub at: Timestamp,
}

/// What to pull, and as whom.
#[derive(Clone, Debug, Default)]
pub struct PullRequest {
    /// `registry/repository:tag@digest`, as in a pod.
    pub image: String,
    /// Credentials to try, in order; the last resort is none.
    pub credentials: Vec<RegistryCredential>,
    /// The whole pull may take this long without progress before it is given up.
    pub stall_timeout: Option<Duration>,
}

#[derive(Clone, Default)]
pub struct RegistryCredential {
    pub username: String,
    pub password: String,
    /// A bearer token of the registry itself; then the others are empty.
    pub token: String,
}

impl std::fmt::Debug for RegistryCredential {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("RegistryCredential").field("username", &self.username).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImageStatus {
    /// `sha256:…` of its configuration.
    pub id: String,
    /// `registry/repository:tag`.
    pub tags: Vec<String>,
    /// `registry/repository@sha256:…`.
    pub digests: Vec<String>,
    /// Bytes on disk.
    pub size: u64,
    /// The user that its configuration names, if it is a number.
    pub uid: Option<u32>,
    /// The user that its configuration names, if it is a name.
    pub username: String,
    /// Never collected.
    pub pinned: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct FilesystemUsage {
    pub path: Utf8PathBuf,
    pub used_bytes: u64,
    pub capacity_bytes: u64,
    pub available_bytes: u64,
    pub used_inodes: u64,
    pub inodes: u64,
}
