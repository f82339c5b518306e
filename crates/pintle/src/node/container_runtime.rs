//! Who runs the containers of this node: the embedded runtime, or one behind a CRI socket.
//!
//! Either connects pods to the same network: the embedded one asks it in this process, the other one through a CNI
//! plugin, unless it is to have a network of its own.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use camino::Utf8PathBuf;
use network::cni::{install, server::Server};
use network::pod_network::Readiness;
use node::agent::{self, NetworkReadiness};
use runtime::cri::{CgroupDriver, CriRuntime};
use runtime::embedded::{self, EmbeddedRuntime};
use runtime::{PodNetwork, Runtime, SharedRuntime};
use tokio::sync::watch;

use super::network::Network;
use super::{Config, own_image};

/// How often a runtime behind a socket is asked whether it is well, as the kubelet does.
const HEALTH_INTERVAL: Duration = Duration::from_secs(5);

/// The same until it is for the first time: it reads its network's configuration a moment after that is written.
const FIRST_HEALTH_INTERVAL: Duration = Duration::from_millis(250);

/// The runtime behind a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cri {
    pub endpoint: String,
    /// `None` where images are at the same endpoint.
    pub image_endpoint: Option<String>,
}

/// A runtime that is there.
pub(super) struct Opened {
    pub runtime: SharedRuntime,
    /// Whether pods can be connected, in the kubelet's words.
    pub ready: watch::Receiver<NetworkReadiness>,
    pub tasks: rt::Tasks,
}

/// `is_network_ready` tells whether the node's network can connect pods.
pub(super) async fn open(
    config: &Config,
    network: &Network,
    is_network_ready: watch::Receiver<Readiness>,
    shutdown: &rt::Shutdown,
) -> anyhow::Result<Opened> {
    match &config.cri {
        Some(cri) => behind_socket(config, cri, network, is_network_ready, shutdown).await,
        None => {
            let runtime = embedded(config, network).await?;
            let (sender, ready) = watch::channel(in_words(&is_network_ready.borrow()));
            let mut tasks = rt::Tasks::default();
            let telling = tell_network(is_network_ready, sender);
            let ending = shutdown.clone();
            tasks.spawn("network readiness", async move {
                ending.run_until_cancelled(telling).await;
            });
            Ok(Opened { runtime, ready, tasks })
        }
    }
}

async fn embedded(config: &Config, network: &Network) -> anyhow::Result<SharedRuntime> {
    let options = image::Options { registries: Some(config.registries.clone()) };
    let store = image::Store::open(&config.images, options).await.context("opening the image store")?;
    let runtime = EmbeddedRuntime::open(embedded::Options {
        root: config.root.join("runtime"),
        state: config.state.join("runtime"),
        shim: Vec::new(),
        images: Arc::new(own_image::OwnImage::new(store)),
        network: network.for_pods(),
    })
    .await
    .map_err(|error| anyhow!("starting the container runtime: {error}"))?;
    Ok(runtime)
}

async fn behind_socket(
    config: &Config,
    cri: &Cri,
    network: &Network,
    is_network_ready: watch::Receiver<Readiness>,
    shutdown: &rt::Shutdown,
) -> anyhow::Result<Opened> {
    let images = cri.image_endpoint.as_deref();
    let runtime = CriRuntime::connect(&cri.endpoint, images, CgroupDriver::default(), shutdown)
        .await
        .map_err(|error| anyhow!("--container-runtime-endpoint: {error}"))?;
    let runtime = Arc::new(runtime);
    let mut tasks = rt::Tasks::default();
    if let Some(for_pods) = network.for_pods() {
        let server = offer(config, &runtime, for_pods, is_network_ready.clone()).await?;
        tasks.spawn("cni server", server.run(shutdown.clone()));
    }
    let (sender, ready) = watch::channel(in_words(&is_network_ready.borrow()));
    let health = follow_health(runtime.clone(), is_network_ready, sender);
    let ending = shutdown.clone();
    tasks.spawn("runtime health", async move {
        tokio::select! {
            () = health => {}
            () = ending.cancelled() => {}
        }
    });
    Ok(Opened { runtime, ready, tasks })
}

/// Makes this node's network known to the runtime as a CNI plugin, and what answers that plugin.
async fn offer(
    config: &Config,
    runtime: &CriRuntime,
    for_pods: Arc<dyn PodNetwork>,
    is_network_ready: watch::Receiver<Readiness>,
) -> anyhow::Result<Server> {
    let sandboxes = runtime.sandboxes().await.map_err(|error| anyhow!("the container runtime: {error}"))?;
    let sandboxes: Vec<String> = sandboxes.into_iter().map(|sandbox| sandbox.id).collect();
    for_pods.retain(&sandboxes).await.map_err(|error| anyhow!("taking up the pod network: {error}"))?;

    let socket = config.state.join("cni").join("cni.sock");
    let server = Server::bind(&socket, for_pods, is_network_ready)
        .with_context(|| format!("listening for the CNI plugin on {socket}"))?;
    let executable = std::env::current_exe().context("finding this program's file")?;
    let executable = Utf8PathBuf::from_path_buf(executable)
        .map_err(|path| anyhow!("the path of this program, {}, is not text", path.display()))?;
    let first = config.cni.programs.first().context("--cni-bin-dir: one folder at least")?;
    let warning = install::install(&install::Places {
        configurations: config.cni.configurations.clone(),
        programs: first.clone(),
        socket,
        executable,
    })
    .context("making this node's network known to the container runtime (--cni-conf-dir, --cni-bin-dir)")?;
    if let Some(warning) = warning {
        tracing::warn!("Pods are not connected by this node: {warning}");
    }
    Ok(server)
}

/// A network's readiness in the kubelet's words.
fn in_words(readiness: &Readiness) -> NetworkReadiness {
    readiness.clone().map_err(|why| agent::network_not_ready(&why))
}

/// Tells how the network is, for as long as there are news.
async fn tell_network(mut network: watch::Receiver<Readiness>, told: watch::Sender<NetworkReadiness>) {
    loop {
        let readiness = in_words(&network.borrow_and_update());
        told.send_modify(|before| *before = readiness);
        if network.changed().await.is_err() {
            return;
        }
    }
}

/// Tells whether both the node's network and the runtime can connect pods, for as long as somebody listens.
async fn follow_health(
    runtime: Arc<CriRuntime>,
    mut is_network_ready: watch::Receiver<Readiness>,
    ready: watch::Sender<NetworkReadiness>,
) {
    let mut said = String::new();
    let mut interval = FIRST_HEALTH_INTERVAL;
    while !ready.is_closed() {
        let complaint = match runtime.health().await {
            Ok(health) => health.complaint().unwrap_or_default(),
            Err(error) => error.to_string(),
        };
        if complaint != said && !complaint.is_empty() {
            tracing::warn!(complaint, "The container runtime is not ready");
        }
        said = complaint;
        let of_network = in_words(&is_network_ready.borrow_and_update());
        let readiness = if said.is_empty() { of_network } else { Err(said.clone()) };
        let is_ready = readiness.is_ok();
        ready.send_if_modified(|before| {
            let changed = *before != readiness;
            *before = readiness;
            changed
        });
        if is_ready {
            interval = HEALTH_INTERVAL;
        }
        tokio::select! {
            () = rt::sleep(interval) => {}
            changed = is_network_ready.changed() => if changed.is_err() { return },
        }
    }
}
