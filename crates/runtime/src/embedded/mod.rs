//! The runtime in this binary: libcontainer in a small process beside each container.
//!
//! Owns: sandboxes and containers of this node, from the namespaces to the log files. Never touches: images (a store
//! behind [`Images`] does), addresses (a [`PodNetwork`] does), pods as the API knows them.
//!
//! Two folders: `root` is kept over a reboot and holds what is remembered (`sandboxes/*.json`, `containers/*.json`);
//! `state` is not, and holds what lives: `sandboxes/<id>` with the namespaces and `/dev/shm`, `containers/<id>` with the
//! mounted root, OCI's configuration, the socket of the program beside the container and its last word, `execs/<id>`
//! while a command runs.
//!
//! **Fail-static.** The program beside a container ([`shim`]) belongs to nobody once it is started: this process may end
//! in any way, and the next one finds the containers by their records and watches them again. A container's end is seen
//! as the end of a connection to that program, and read from the file that it left. Nothing polls.
//!
//! Locks: a container's or sandbox's `operation` is held over a whole call, sandbox before container; `record`s and the
//! maps are held for a few lines, never two at once.
//!
//! Start at [`EmbeddedRuntime::open`], then [`prepare`] and [`container`].

mod attach;
mod cdi;
mod cgroup;
mod container;
mod enclosure;
mod exec;
mod holder;
mod image_names;
mod images;
mod namespaces;
mod oci;
mod prepare;
mod record;
mod sandbox;
mod seccomp;
mod shim;
mod signals;
mod store;
mod terminal;
mod user;
mod user_namespace;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};
use parking_lot::Mutex;
use tokio::sync::broadcast;

pub use images::{ImageConfig, Images};
pub use namespaces::is_namespace;
pub use shim::{is_shim, shim_main};
pub use user_namespace::Owner;

use crate::spec::{
    ContainerConfig, ContainerStats, ContainerStatus, FilesystemUsage, ImageStatus, PullRequest, Resources,
    SandboxConfig, SandboxStatus,
};
use crate::{
    Abilities, Attached, ContainerEvent, Duplex, Error, ExecOutput, Handler, PodNetwork, Result, Runtime,
    Streams, Version,
};
use cgroup::Cgroups;
use container::Container;
use enclosure::Enclosure;
use record::Records;
use sandbox::Sandbox;

/// The name by which a RuntimeClass may ask for this runtime; it is the default one, too.
pub const HANDLER: &str = "pintle";

/// Events that somebody may be behind before they are told that they missed some.
const EVENTS_MAX: usize = 1024;

/// What an embedded runtime is made with.
pub struct Options {
    /// What is kept over a reboot.
    pub root: Utf8PathBuf,
    /// What is not; best a short path on a tmpfs, such as `/run/pintle`.
    pub state: Utf8PathBuf,
    /// The program that is started beside each container, and its first arguments; it must call [`shim_main`] before it
    /// does anything else. Empty for this very program.
    pub shim: Vec<String>,
    pub images: Arc<dyn Images>,
    /// `None` leaves pods with their loopback.
    pub network: Option<Arc<dyn PodNetwork>>,
}

pub struct EmbeddedRuntime {
    shared: Arc<Shared>,
}

/// What all parts need.
struct Shared {
    state: Utf8PathBuf,
    shim: Vec<String>,
    images: Arc<dyn Images>,
    network: Option<Arc<dyn PodNetwork>>,
    cgroups: Cgroups,
    enclosure: Enclosure,
    /// What this process may give: its bounding set.
    capabilities: BTreeSet<String>,
    sandbox_records: Records,
    container_records: Records,
    sandboxes: Mutex<HashMap<String, Arc<Sandbox>>>,
    containers: Mutex<HashMap<String, Arc<Container>>>,
    events: broadcast::Sender<ContainerEvent>,
}

impl Shared {
    fn sandbox_dir(&self, id: &str) -> Utf8PathBuf {
        self.state.join("sandboxes").join(id)
    }

    fn container_dir(&self, id: &str) -> Utf8PathBuf {
        self.state.join("containers").join(id)
    }

    fn exec_dir(&self, id: &str) -> Utf8PathBuf {
        self.state.join("execs").join(id)
    }

    fn sandbox(&self, id: &str) -> Result<Arc<Sandbox>> {
        self.find_sandbox(id).ok_or_else(|| Error::NotFound(format!("sandbox {id} does not exist")))
    }

    fn find_sandbox(&self, id: &str) -> Option<Arc<Sandbox>> {
        self.sandboxes.lock().get(id).cloned()
    }

    fn container(&self, id: &str) -> Result<Arc<Container>> {
        self.find_container(id).ok_or_else(|| Error::NotFound(format!("container {id} does not exist")))
    }

    fn find_container(&self, id: &str) -> Option<Arc<Container>> {
        self.containers.lock().get(id).cloned()
    }

    fn all_containers(&self) -> Vec<Arc<Container>> {
        self.containers.lock().values().cloned().collect()
    }

    fn containers_of(&self, sandbox: &str) -> Vec<Arc<Container>> {
        let mut containers = self.all_containers();
        containers.retain(|container| container.record.lock().sandbox_id == sandbox);
        containers
    }

    fn emit(&self, event: ContainerEvent) {
        // Nobody need listen.
        let _ = self.events.send(event);
    }
}

/// An ID as upstream's runtimes have them, but half as long: it is part of paths of sockets.
fn new_id() -> String {
    rt::uuid().replace('-', "")
}

fn failed(what: impl std::fmt::Display, error: impl std::fmt::Display) -> Error {
    Error::Failed(format!("{what}: {error}"))
}

/// Runs what waits for the disk, or the kernel, where that holds nobody up.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Runs what must not stop halfway to its end, also if nobody waits for it any more.
async fn to_its_end<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    let (done, outcome) = tokio::sync::oneshot::channel();
    rt::spawn("runtime-call", async move {
        // Whoever asked may have left.
        let _ = done.send(work.await);
    });
    outcome
        .await
        .unwrap_or_else(|_| Err(Error::Failed("the runtime failed in the middle of a call".to_owned())))
}

impl EmbeddedRuntime {
    /// Opens the folders, finds what a former process left running and watches it; what it left half done is taken back.
    pub async fn open(options: Options) -> Result<Arc<Self>> {
        let Options { root, state, shim, images, network } = options;
        let shim = if shim.is_empty() { vec!["/proc/self/exe".to_owned()] } else { shim };
        let opened = blocking(move || {
            for folder in ["sandboxes", "containers", "execs"] {
                std::fs::create_dir_all(state.join(folder))?;
            }
            let state = state.canonicalize_utf8()?;
            let sandbox_records = Records::open(root.join("sandboxes"))?;
            let container_records = Records::open(root.join("containers"))?;
            let sandboxes = sandbox_records.load()?;
            let containers = container_records.load()?;
            let cgroups = Cgroups::detect()?;
            let enclosure = Enclosure::open(&state, sandboxes.len())?;
            let capabilities = caps::read(None, caps::CapSet::Bounding)
                .map_err(io::Error::other)?
                .into_iter()
                .map(|capability| capability.to_string())
                .collect();
            let found = (sandboxes, containers, cgroups, enclosure, capabilities);
            Ok((state, sandbox_records, container_records, found))
        });
        let (state, sandbox_records, container_records, found) =
            opened.await.map_err(|error| failed("cannot open the runtime", error))?;
        let (sandboxes, containers, cgroups, enclosure, capabilities) = found;
        let shared = Arc::new(Shared {
            state,
            shim,
            images,
            network,
            cgroups,
            enclosure,
            capabilities,
            sandbox_records,
            container_records,
            sandboxes: Mutex::default(),
            containers: Mutex::default(),
            events: broadcast::channel(EVENTS_MAX).0,
        });
        shared.restore(sandboxes, containers).await?;
        Ok(Arc::new(Self { shared }))
    }
}

impl Shared {
    /// Takes over from a former process.
    async fn restore(
        self: &Arc<Self>,
        sandboxes: Vec<record::SandboxRecord>,
        containers: Vec<record::ContainerRecord>,
    ) -> Result<()> {
        for record in sandboxes {
            Sandbox::restore(self, record).await?;
        }
        for record in containers {
            if self.find_sandbox(&record.sandbox_id).is_some() {
                Container::restore(self, record).await?;
            } else {
                self.container_records
                    .remove(&record.id)
                    .map_err(|error| failed("cannot forget a container without a sandbox", error))?;
            }
        }
        let sandboxes: Vec<String> = self.sandboxes.lock().keys().cloned().collect();
        let containers: Vec<String> = self.containers.lock().keys().cloned().collect();
        self.sweep("sandboxes", &sandboxes).await;
        self.sweep("containers", &containers).await;
        self.sweep("execs", &[]).await;
        self.images.retain_layers(&containers).await?;
        if let Some(network) = &self.network {
            network.retain(&sandboxes).await?;
        }
        Ok(())
    }

    /// Takes back what was made for something that is not remembered.
    async fn sweep(&self, folder: &str, known: &[String]) {
        let dir = self.state.join(folder);
        let Ok(entries) = dir.read_dir_utf8() else { return };
        for entry in entries.flatten().filter(|entry| !known.iter().any(|id| id == entry.file_name())) {
            let path = entry.path().to_owned();
            if let Err(error) = blocking(move || clear(&path)).await {
                tracing::warn!(path = %entry.path(), %error, "Leftovers cannot be removed");
            }
        }
    }
}

/// Unmounts whatever is mounted in a folder of ours, and deletes it. Never follows into a mount: what cannot be
/// unmounted stops it. Asks the kernel name by name, since its table of mounts is as long as there are pods.
fn clear(dir: &Utf8Path) -> io::Result<()> {
    let entries = match dir.read_dir_utf8() {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        namespaces::unmount_all(entry.path())?;
        if entry.file_type()?.is_dir() {
            clear(entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    std::fs::remove_dir(dir)
}

#[async_trait]
impl Runtime for EmbeddedRuntime {
    async fn version(&self) -> Result<Version> {
        Ok(Version { name: "pintle".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() })
    }

    async fn abilities(&self) -> Result<Abilities> {
        let handlers = ["", HANDLER].map(|name| Handler {
            name: name.to_owned(),
            recursive_read_only_mounts: true,
            user_namespaces: user_namespace::is_supported(),
        });
        Ok(Abilities { handlers: handlers.into(), supplemental_groups_policy: true })
    }

    async fn run_sandbox(&self, config: &SandboxConfig) -> Result<String> {
        let (shared, config) = (Arc::clone(&self.shared), config.clone());
        to_its_end(async move { Sandbox::run(&shared, &config).await }).await
    }

    async fn stop_sandbox(&self, sandbox: &str) -> Result<()> {
        match self.shared.find_sandbox(sandbox) {
            Some(sandbox) => {
                let shared = Arc::clone(&self.shared);
                to_its_end(async move { sandbox.stop(&shared).await }).await
            }
            None => Ok(()),
        }
    }

    async fn remove_sandbox(&self, sandbox: &str) -> Result<()> {
        match self.shared.find_sandbox(sandbox) {
            Some(sandbox) => {
                let shared = Arc::clone(&self.shared);
                to_its_end(async move { sandbox.remove(&shared).await }).await
            }
            None => Ok(()),
        }
    }

    async fn sandboxes(&self) -> Result<Vec<SandboxStatus>> {
        let sandboxes: Vec<_> = self.shared.sandboxes.lock().values().cloned().collect();
        Ok(sandboxes.iter().map(|sandbox| sandbox.record.lock().status()).collect())
    }

    async fn create_container(&self, sandbox: &str, config: &ContainerConfig) -> Result<String> {
        let sandbox = self.shared.sandbox(sandbox)?;
        let (shared, config) = (Arc::clone(&self.shared), config.clone());
        to_its_end(async move { Container::create(&shared, &sandbox, &config).await }).await
    }

    async fn start_container(&self, container: &str) -> Result<()> {
        let (shared, container) = (Arc::clone(&self.shared), self.shared.container(container)?);
        to_its_end(async move { container.start(&shared).await }).await
    }

    async fn stop_container(&self, container: &str, grace: Duration) -> Result<()> {
        match self.shared.find_container(container) {
            Some(container) => container.stop(&self.shared, grace).await,
            None => Ok(()),
        }
    }

    async fn remove_container(&self, container: &str) -> Result<()> {
        match self.shared.find_container(container) {
            Some(container) => {
                let shared = Arc::clone(&self.shared);
                to_its_end(async move { container.remove(&shared).await }).await
            }
            None => Ok(()),
        }
    }

    async fn containers(&self) -> Result<Vec<ContainerStatus>> {
        Ok(self.shared.all_containers().iter().map(|container| container.record.lock().status()).collect())
    }

    async fn container_status(&self, container: &str) -> Result<ContainerStatus> {
        Ok(self.shared.container(container)?.record.lock().status())
    }

    async fn update_resources(&self, container: &str, resources: &Resources) -> Result<()> {
        self.shared.container(container)?.update(&self.shared, resources).await
    }

    async fn update_sandbox(&self, sandbox: &str, resources: &Resources) -> Result<()> {
        self.shared.sandbox(sandbox)?.update(&self.shared, resources).await
    }

    async fn reopen_log(&self, container: &str) -> Result<()> {
        self.shared.container(container)?.reopen_log(&self.shared).await
    }

    async fn exec_sync(&self, container: &str, command: &[String], timeout: Duration) -> Result<ExecOutput> {
        exec::to_its_end(&self.shared, &*self.shared.container(container)?, command, timeout).await
    }

    async fn exec(&self, container: &str, command: &[String], streams: Streams) -> Result<Attached> {
        exec::connected(&self.shared, &*self.shared.container(container)?, command, streams).await
    }

    async fn attach(&self, container: &str, streams: Streams) -> Result<Attached> {
        attach::attach(&self.shared, &*self.shared.container(container)?, streams).await
    }

    async fn port_forward(&self, sandbox: &str, port: u16) -> Result<Box<dyn Duplex>> {
        self.shared.sandbox(sandbox)?.connect(&self.shared, port).await
    }

    async fn container_stats(&self) -> Result<Vec<ContainerStats>> {
        let mut all = Vec::new();
        for container in self.shared.all_containers() {
            all.extend(container.stats(&self.shared).await?);
        }
        Ok(all)
    }

    fn events(&self) -> broadcast::Receiver<ContainerEvent> {
        self.shared.events.subscribe()
    }

    async fn pull_image(&self, request: &PullRequest) -> Result<String> {
        self.shared.images.pull(request).await
    }

    async fn image_status(&self, image: &str) -> Result<Option<ImageStatus>> {
        self.shared.images.status(image).await
    }

    async fn images(&self) -> Result<Vec<ImageStatus>> {
        self.shared.images.list().await
    }

    async fn remove_image(&self, image: &str) -> Result<()> {
        self.shared.images.remove(image).await
    }

    async fn image_filesystem(&self) -> Result<FilesystemUsage> {
        self.shared.images.filesystem().await
    }
}
