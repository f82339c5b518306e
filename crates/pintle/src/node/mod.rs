//! A real node: this machine, beside the API server or joined to one elsewhere.
//!
//! Owns: what a node is put together from (runtime, images, network, agent), under which identity each part speaks,
//! and whether this process may be one. Never touches: how any of the parts works, and where the API is ([`Cluster`]).
//!
//! ```text
//!     image store ─> embedded runtime ─> agent ─> API as system:node:<name>
//!                          ^
//!     pod network ─────────┘   Services, policies, DNS ─> API as identities of their own
//! ```
//!
//! What a node beside the server has more is in [`beside_server`].
//!
//! Stopping ends none of the containers; a later start finds them.

pub mod beside_server;
mod container_runtime;
mod machine;
mod network;
pub mod own_image;
mod roles;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use apimachinery::{Value, json};
use camino::{Utf8Path, Utf8PathBuf};
use client::{Api, Informers};
use node::agent::registration::Identity;
use node::agent::server::logs::rotation;
use node::agent::{self, server, stats, volumes};
use runtime::SharedRuntime;
use rustls::server::ResolvesServerCert;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

use crate::cli::Taint;
use crate::joining::invitation::Settings;
pub use container_runtime::Cri;
pub use machine::addresses;
pub use network::{CniFolders, Network, NetworkPlugin};
pub use roles::{CLUSTER_NETWORK, NETWORK, VOLUMES, policy};

/// The kubelet's well-known port.
pub const KUBELET_PORT: u16 = 10_250;

/// An idle stream of exec, attach or port-forward ends after this, as the kubelet's.
const STREAMING_IDLE_TIMEOUT: Duration = Duration::from_secs(4 * 3600);

/// Why a node that is new connects no pods.
const NO_RANGE: &str = "the node has no pod range yet";

/// What a node is made with.
#[derive(Clone, Debug)]
pub struct Config {
    pub name: String,
    /// Where it keeps what outlives it.
    pub root: Utf8PathBuf,
    /// The content store, which `pintle image` works on, too.
    pub images: Utf8PathBuf,
    /// How registries are reached, in the form of containerd's `certs.d`.
    pub registries: Utf8PathBuf,
    /// Where it keeps what ends with the kernel.
    pub state: Utf8PathBuf,
    /// The first address is the one by which others reach this machine.
    pub addresses: Vec<IpAddr>,
    pub labels: Vec<(String, String)>,
    /// Put on a node that is new.
    pub taints: Vec<Taint>,
    pub pods_max: u32,
    pub cluster_domain: String,
    /// The cluster IP of the Service `kube-dns`.
    pub cluster_dns: Vec<IpAddr>,
    pub cluster_cidrs: Vec<String>,
    pub kubelet_port: u16,
    /// The container runtime behind a socket; `None` for the embedded one.
    pub cri: Option<Cri>,
    pub network_plugin: NetworkPlugin,
    pub cni: CniFolders,
    pub eviction: agent::eviction::Settings,
    pub image_collection: agent::images::collection::Settings,
    /// Where manifests of static pods lie.
    pub manifests: Option<Utf8PathBuf>,
}

impl Config {
    /// This machine as a node of the cluster in `data_dir`.
    ///
    /// # Errors
    /// Says in one line why this process cannot be a node.
    pub fn detect(data_dir: &Utf8Path, name: Option<&str>, address: Option<IpAddr>) -> anyhow::Result<Self> {
        if !cfg!(target_os = "linux") {
            return Err(anyhow!("containers need Linux"));
        }
        if !rustix::process::geteuid().is_root() {
            return Err(anyhow!("containers need root"));
        }
        let name = match name {
            Some(name) => name.to_owned(),
            None => machine::hostname()?,
        };
        // The same name each time, also before the folder is there.
        let data_dir = std::path::absolute(data_dir).context("--data-dir")?;
        let data_dir = Utf8PathBuf::from_path_buf(data_dir)
            .map_err(|path| anyhow!("--data-dir {}: it must be text", path.display()))?;
        Ok(Self {
            state: Utf8Path::new("/run/pintle").join(machine::short_name(&data_dir)),
            root: data_dir.join("node"),
            images: data_dir.join("images"),
            registries: data_dir.join("registries"),
            addresses: address.map_or_else(addresses, |address| Ok(vec![address]))?,
            labels: Vec::new(),
            taints: Vec::new(),
            pods_max: 110,
            cluster_domain: String::new(),
            cluster_dns: Vec::new(),
            cluster_cidrs: Vec::new(),
            kubelet_port: KUBELET_PORT,
            cri: None,
            network_plugin: NetworkPlugin::default(),
            cni: CniFolders::default(),
            eviction: agent::eviction::Settings::default(),
            image_collection: agent::images::collection::Settings::default(),
            manifests: None,
            name,
        })
    }

    /// What it has in common with the cluster's other nodes.
    pub fn take_over(&mut self, settings: Settings) {
        let Settings { cluster_domain, cluster_dns, cluster_cidrs } = settings;
        (self.cluster_domain, self.cluster_dns, self.cluster_cidrs) =
            (cluster_domain, cluster_dns, cluster_cidrs);
    }
}

/// The cluster, as a node reaches it.
pub struct Cluster {
    /// As `system:node:<name>`.
    pub api: Arc<dyn Api>,
    /// As [`NETWORK`].
    pub network: Arc<dyn Api>,
    /// As [`VOLUMES`].
    pub volumes: Arc<dyn Api>,
    /// Who counts as a client of the kubelet's API by its certificate.
    pub clients: pki::ClientVerifier,
    /// What the kubelet's API shows.
    pub certificate: Arc<dyn ResolvesServerCert>,
}

/// A node that was started.
pub struct Started {
    pub network: Network,
    pub tasks: rt::Tasks,
}

/// Starts the node. Its tasks end with `shutdown`; `ready` is told when pods can run.
pub async fn start(
    config: Config,
    cluster: Cluster,
    ready: oneshot::Sender<()>,
    shutdown: rt::Shutdown,
) -> anyhow::Result<Started> {
    let Cluster { api, network: network_api, volumes: volumes_api, clients, certificate } = cluster;
    for folder in [&config.root, &config.state] {
        std::fs::create_dir_all(folder).with_context(|| format!("the node's folder {folder}"))?;
    }
    let mut tasks = rt::Tasks::default();
    let network = Network::open(&config).await?;
    let (network_ready, is_network_ready) = watch::channel(Err(NO_RANGE.to_owned()));
    let container_runtime::Opened { runtime, ready: mut is_network_ready, tasks: of_runtime } =
        container_runtime::open(&config, &network, is_network_ready, &shutdown).await?;
    tasks.extend(of_runtime);
    let version = runtime.version().await.map_err(|error| anyhow!("the container runtime: {error}"))?;
    let facts = machine::facts(&config);
    let port = config.kubelet_port;
    let listener = listen(port).await.with_context(|| {
        format!("--kubelet-port {port}: choose another one; is another node running on this machine?")
    })?;
    let kubelet_port = listener.local_addr().context("reading the kubelet's address")?.port();
    let identity = Identity {
        name: config.name.clone(),
        addresses: config.addresses.clone(),
        labels: config.labels.clone(),
        taints: config.taints.iter().map(taint).collect(),
        pods_max: config.pods_max,
        kubelet_version: format!("v{}", apiserver::KUBERNETES_VERSION.2.trim_start_matches('v')),
        runtime_version: format!("{}://{}", version.name, version.version),
        kubelet_port,
    };
    let options = agent::Options {
        identity,
        facts,
        root: config.root.clone(),
        runtime: runtime.clone(),
        network_ready: is_network_ready.clone(),
        eviction: config.eviction.clone(),
        image_collection: config.image_collection,
        manifests: config.manifests.clone(),
        secrets_in_memory: true,
    };
    let (registered, node) = oneshot::channel();
    tasks.spawn("node agent", agent::run(api.clone(), options, registered, shutdown.clone()));
    let informers = Informers::new(network_api, shutdown.child_token());
    tasks.extend(network.run(&config, &informers, network_ready, &shutdown));

    let kubelet_tls = Arc::new(pki::server_config(certificate, &clients)?);
    let names = network.clone().serve_names(config.cluster_domain.clone(), informers, shutdown.clone());
    let serve = Serve { config, api, runtime: runtime.clone(), clients, listener, kubelet_tls, volumes_api };
    let (of_pods, ending) = (network.clone(), shutdown.clone());
    tasks.spawn("node", async move {
        let work = async {
            let Ok(node) = node.await else { return };
            let pods_can_run = async {
                if network.is_brought_by_pods() {
                    network.has_addresses().await;
                } else if is_network_ready.wait_for(Result::is_ok).await.is_err() {
                    return;
                }
                // Who is not interested has left.
                let _ = ready.send(());
            };
            tokio::join!(serve.run(node, ending.clone()), names, pods_can_run);
        };
        tokio::select! {
            () = work => {}
            () = ending.cancelled() => {}
        }
    });
    tasks.spawn("log rotation", rotate_logs(runtime, shutdown));
    Ok(Started { network: of_pods, tasks })
}

/// At all addresses of both families, or of IPv4 where the machine has no other.
async fn listen(port: u16) -> std::io::Result<TcpListener> {
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Err(error) if error.kind() != std::io::ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await
        }
        bound => bound,
    }
}

fn taint(taint: &Taint) -> Value {
    json!({"key": taint.key.as_str(), "value": taint.value.as_str(), "effect": taint.effect.as_str()})
}

async fn rotate_logs(runtime: SharedRuntime, shutdown: rt::Shutdown) {
    rotation::run(runtime, rotation::Limits::default(), shutdown).await;
}

/// What serves the kubelet's API and the node's volumes once the agent runs.
struct Serve {
    config: Config,
    api: Arc<dyn Api>,
    runtime: SharedRuntime,
    clients: pki::ClientVerifier,
    listener: TcpListener,
    kubelet_tls: Arc<rustls::ServerConfig>,
    volumes_api: Arc<dyn Api>,
}

impl Serve {
    async fn run(self, node: Arc<agent::Node>, shutdown: rt::Shutdown) {
        let informers = Informers::new(self.volumes_api.clone(), shutdown.child_token());
        let options = volumes::provisioner::Options {
            node_name: self.config.name.clone(),
            root: self.config.root.join("volumes"),
        };
        let api = self.volumes_api.clone();
        let provisioner =
            volumes::provisioner::Provisioner::new(options, api, &informers, shutdown.child_token());
        let provision = async {
            provisioner.create_class().await;
            provisioner.run(shutdown.clone()).await;
        };
        let serve = self.serve(node, shutdown.clone());
        tokio::join!(provision, serve);
    }

    async fn serve(self, node: Arc<agent::Node>, shutdown: rt::Shutdown) {
        let pods: Arc<dyn server::Pods> = node.clone();
        let stats = stats::Stats::new(stats::Sources {
            node_name: self.config.name.clone(),
            runtime: self.runtime.clone(),
            pods: pods.clone(),
            volumes: Arc::new(volumes::VolumeUsages::new(node.volumes.clone())),
            root: self.config.root.clone(),
            cgroups: "/sys/fs/cgroup".into(),
            proc: "/proc".into(),
        });
        let parts = server::Parts {
            node_name: self.config.name.clone(),
            pods,
            runtime: self.runtime.clone(),
            access: server::access::Access::by_reviews(self.api.clone(), Some(self.clients.clone())),
            stats: Arc::new(stats),
            health: Arc::new(|| Ok(())),
            configuration: serde_json::json!({"kubeletconfig": {"kind": "KubeletConfiguration"}}),
            probe_metrics: Arc::new(String::new),
            node_logs: None,
            streaming_idle_timeout: STREAMING_IDLE_TIMEOUT,
        };
        match server::Server::new(self.listener, self.kubelet_tls, parts, shutdown.clone()) {
            Ok(server) => server.run().await,
            Err(error) => tracing::error!(%error, "The kubelet's API is not served"),
        }
    }
}
