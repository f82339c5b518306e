//! Containers: what a node asks of whoever runs them.
//!
//! Owns: the contract [`Runtime`], in the shape of CRI's `runtime.v1`, and who implements it: [`embedded`] starts
//! containers itself, a small process beside each; [`cri`] asks containerd or CRI-O over their socket. Never touches:
//! pods as the API knows them (crate `node` turns them into [`spec`]s), addresses (a [`PodNetwork`] gives them).
//!
//! Start at [`Runtime`]. All calls are idempotent as CRI's are: stopping what is stopped and removing what is gone
//! succeeds.

pub mod cri;
pub mod embedded;
pub mod fake;
pub mod spec;

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use camino::Utf8Path;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::broadcast;

pub use spec::{
    ContainerConfig, ContainerState, ContainerStats, ContainerStatus, FilesystemUsage, ImageStatus,
    PullRequest, Resources, SandboxConfig, SandboxState, SandboxStatus,
};

/// What went wrong, in the classes that a node reacts to differently.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No sandbox, container or image of that name.
    #[error("{0}")]
    NotFound(String),
    /// What was asked for cannot be done as asked, today or tomorrow; `reason` is upstream's word for it in a
    /// container's status or an event (`CreateContainerConfigError`, `InvalidImageName`, …), or empty.
    #[error("{message}")]
    Refused { reason: &'static str, message: String },
    /// It did not end within its time.
    #[error("{0}")]
    Timeout(String),
    /// Everything else; may go away.
    #[error("{0}")]
    Failed(String),
}

pub type Result<T> = std::result::Result<T, Error>;

/// Whether a text can name an image, of whatever runtime.
///
/// # Errors
/// In the words of the library that the kubelet reads names with.
pub fn check_image_name(name: &str) -> std::result::Result<(), String> {
    name.parse::<image::Reference>().map(drop).map_err(|error| error.to_string())
}

/// Who it is, for `status.nodeInfo.containerRuntimeVersion` (`<name>://<version>`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    pub name: String,
    pub version: String,
}

/// A RuntimeClass' handler, and what it can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handler {
    /// Empty for the default one.
    pub name: String,
    pub recursive_read_only_mounts: bool,
    pub user_namespaces: bool,
}

/// What can be asked of it, for `status.runtimeHandlers` and `status.features` of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// None where the runtime does not tell.
    pub handlers: Vec<Handler>,
    /// Whether `supplementalGroupsPolicy: Strict` is heeded.
    pub supplemental_groups_policy: bool,
}

/// Something happened to a container without being asked for. A hint: who gets it looks at the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerEvent {
    pub sandbox_id: String,
    pub container_id: String,
    pub kind: ContainerEventKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerEventKind {
    Started,
    Exited,
    OutOfMemory,
}

/// The output of a command that ran to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOutput {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub exit_code: i32,
}

/// Size of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    pub width: u16,
    pub height: u16,
}

/// Which streams of a process are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    pub stdin: bool,
    pub stdout: bool,
    /// Nothing where `tty` is.
    pub stderr: bool,
    pub tty: bool,
}

pub type Reader = Pin<Box<dyn AsyncRead + Send>>;
pub type Writer = Pin<Box<dyn AsyncWrite + Send>>;

/// A process that somebody is connected to. Dropping `stdin` closes it; dropping all ends an exec's process with
/// its terminal.
pub struct Attached {
    pub stdin: Option<Writer>,
    pub stdout: Option<Reader>,
    pub stderr: Option<Reader>,
    /// Takes new sizes of the terminal.
    pub resize: Option<tokio::sync::mpsc::Sender<TerminalSize>>,
    /// The exit code, once the process ended and its output was read: for exec. Attach is done when the container is.
    pub exit: Pin<Box<dyn Future<Output = Result<i32>> + Send>>,
}

/// Both directions of a connection to a port in a pod.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// The contract, after CRI's `RuntimeService` and `ImageService`.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    async fn version(&self) -> Result<Version>;

    async fn abilities(&self) -> Result<Abilities> {
        Ok(Abilities::default())
    }

    /// Makes namespaces, network and cgroup of a pod. Returns the sandbox's ID when it is ready.
    async fn run_sandbox(&self, config: &SandboxConfig) -> Result<String>;

    /// Ends every process of it and gives its addresses back.
    async fn stop_sandbox(&self, sandbox: &str) -> Result<()>;

    /// Removes it with all its containers; it is stopped first where it was not.
    async fn remove_sandbox(&self, sandbox: &str) -> Result<()>;

    /// All of them, also those of a former run of this process.
    async fn sandboxes(&self) -> Result<Vec<SandboxStatus>>;

    /// The sandboxes of one pod.
    async fn pod_sandboxes(&self, uid: &str) -> Result<Vec<SandboxStatus>> {
        let mut sandboxes = self.sandboxes().await?;
        sandboxes.retain(|sandbox| sandbox.uid == uid);
        Ok(sandboxes)
    }

    /// The containers of one pod, by their label.
    async fn pod_containers(&self, uid: &str) -> Result<Vec<ContainerStatus>> {
        let mut containers = self.containers().await?;
        containers
            .retain(|container| container.labels.get(spec::label::POD_UID).is_some_and(|own| own == uid));
        Ok(containers)
    }

    /// `config.image` is an ID that [`Runtime::pull_image`] or [`Runtime::image_status`] returned.
    async fn create_container(&self, sandbox: &str, config: &ContainerConfig) -> Result<String>;

    async fn start_container(&self, container: &str) -> Result<()>;

    /// Sends the stop signal, and KILL after `grace`. Returns when it has ended.
    async fn stop_container(&self, container: &str, grace: Duration) -> Result<()>;

    async fn remove_container(&self, container: &str) -> Result<()>;

    /// All of them, also those of a former run of this process.
    async fn containers(&self) -> Result<Vec<ContainerStatus>>;

    async fn container_status(&self, container: &str) -> Result<ContainerStatus>;

    /// Changes limits while it runs; what is not set stays, and -1 lifts a limit.
    async fn update_resources(&self, container: &str, resources: &Resources) -> Result<()>;

    /// As [`Runtime::update_resources`], for the limits of the pod as a whole. Nothing happens where the runtime has
    /// none of those.
    async fn update_sandbox(&self, _sandbox: &str, _resources: &Resources) -> Result<()> {
        Ok(())
    }

    /// Makes a new log file at the container's log path, after somebody moved the old one away.
    async fn reopen_log(&self, container: &str) -> Result<()>;

    /// Runs a command to its end; it is killed after `timeout` ([`Error::Timeout`]). Zero is no limit. At most 16 MiB
    /// of each output are kept.
    async fn exec_sync(&self, container: &str, command: &[String], timeout: Duration) -> Result<ExecOutput>;

    async fn exec(&self, container: &str, command: &[String], streams: Streams) -> Result<Attached>;

    async fn attach(&self, container: &str, streams: Streams) -> Result<Attached>;

    /// Connects to a TCP port on the pod's loopback.
    async fn port_forward(&self, sandbox: &str, port: u16) -> Result<Box<dyn Duplex>>;

    async fn container_stats(&self) -> Result<Vec<ContainerStats>>;

    /// What happens from now on. Who lags looks at everything again.
    fn events(&self) -> broadcast::Receiver<ContainerEvent>;

    /// Returns the image's ID.
    async fn pull_image(&self, request: &PullRequest) -> Result<String>;

    /// The image that a reference or an ID means, if it is here.
    async fn image_status(&self, image: &str) -> Result<Option<ImageStatus>>;

    async fn images(&self) -> Result<Vec<ImageStatus>>;

    async fn remove_image(&self, image: &str) -> Result<()>;

    /// Where images and container layers lie, and how full it is.
    async fn image_filesystem(&self) -> Result<FilesystemUsage>;
}

/// Whom a pod's network is asked of: the built-in one, or CNI plugins.
#[async_trait]
pub trait PodNetwork: Send + Sync + 'static {
    /// Connects the network namespace at `netns` (a path that holds it open); the loopback is up already. Called again
    /// for the same sandbox it returns the same addresses. The first address is the primary one.
    async fn attach(&self, netns: &Utf8Path, config: &SandboxConfig, sandbox: &str) -> Result<Vec<IpAddr>>;

    /// Gives addresses, links and host ports back; also when `netns` is gone or was never attached.
    async fn detach(&self, netns: &Utf8Path, config: &SandboxConfig, sandbox: &str) -> Result<()>;

    /// As [`PodNetwork::detach`], for a sandbox of which nobody will ask again. What takes long, or fails, is done later.
    async fn abandon(&self, netns: &Utf8Path, config: &SandboxConfig, sandbox: &str) -> Result<()> {
        self.detach(netns, config, sandbox).await
    }

    /// Only these sandboxes exist: everything that belongs to others is given back. Called once at the start.
    async fn retain(&self, sandboxes: &[String]) -> Result<()>;
}

/// A runtime that several parts share.
pub type SharedRuntime = Arc<dyn Runtime>;
