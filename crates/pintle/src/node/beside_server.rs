//! What belongs to the server of a cluster: the node beside it, and what of the network there is once in a cluster.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use api::gvr::NODES;
use api::view::Node;
use apiserver::ApiServer;
use auth::UserInfo;
use client::{Api, Delta, Informers};
use network::dns::publication;
use network::service_proxy::load_balancer;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::{Cluster, Config, NETWORK, Network, VOLUMES};

/// What the rest of the process gives a node.
pub struct Parts<'a> {
    pub server: &'a ApiServer,
    pub authority: &'a Arc<pki::Authority>,
    pub tls: Arc<rustls::ServerConfig>,
    /// Where the API listens already.
    pub api_address: SocketAddr,
    pub shutdown: rt::Shutdown,
}

/// Starts the node beside the server. `ready` is told when pods can run, and find the API.
pub async fn start(
    config: Config,
    parts: Parts<'_>,
    ready: oneshot::Sender<()>,
) -> anyhow::Result<rt::Tasks> {
    let Parts { server, authority, tls, api_address, shutdown } = parts;
    let user =
        UserInfo::new(format!("system:node:{}", config.name)).with_groups(["system:nodes"]).authenticated();
    let names =
        config.addresses.iter().fold(pki::ServerNames::default().with(&config.name), |names, address| {
            names.with(&address.to_string())
        });
    let cluster = Cluster {
        api: server.client(user),
        network: server.client(UserInfo::new(NETWORK).authenticated()),
        volumes: server.client(UserInfo::new(VOLUMES).authenticated()),
        clients: authority.client_verifier()?,
        certificate: authority.serving_certificate(names, rt::now().into())?,
    };
    let (node_ready, is_node_ready) = oneshot::channel();
    let started = super::start(config, cluster, node_ready, shutdown.clone()).await?;
    let mut tasks = started.tasks;
    let for_pods = ApiForPods {
        network: started.network,
        listen: Box::new(server.listen_later(tls)),
        door: server.door().clone(),
        api_address,
    };
    tasks.spawn("api for pods", async move {
        if is_node_ready.await.is_err() {
            return;
        }
        if let Err(error) = for_pods.offer(&shutdown).await {
            tracing::error!(error = %telemetry::chain(error.as_ref()), "Pods cannot reach the API");
        }
        let _ = ready.send(());
    });
    Ok(tasks)
}

/// An API that listens on the loopback only is served to the pods of this node at the node's own address.
struct ApiForPods {
    network: Network,
    /// Listens for the API at one more address.
    listen: Box<dyn FnOnce(TcpListener) -> apiserver::HttpsServer + Send>,
    door: Arc<apiserver::Door>,
    api_address: SocketAddr,
}

impl ApiForPods {
    async fn offer(self, shutdown: &rt::Shutdown) -> anyhow::Result<()> {
        if !self.api_address.ip().is_loopback() {
            return Ok(());
        }
        let at = SocketAddr::new(self.network.own_address().await?, self.api_address.port());
        let listener = TcpListener::bind(at).await.with_context(|| format!("listening for pods on {at}"))?;
        rt::spawn("https for pods", (self.listen)(listener).run(shutdown.clone()));
        apiserver::bootstrap::advertise(&self.door, at, shutdown)
            .await
            .map_err(|status| anyhow!("the endpoints of the Service kubernetes: {status}"))
    }
}

/// Gives load balancers their addresses and says where cluster DNS is, from the first real node on.
pub async fn run_cluster_network(api: Arc<dyn Api>, cluster_dns: Option<IpAddr>, shutdown: rt::Shutdown) {
    let informers = Informers::new(api.clone(), shutdown.child_token());
    tokio::select! {
        is_there = a_real_node(&informers) => if !is_there { return },
        () = shutdown.cancelled() => return,
    }
    let balancers = async {
        if let Err(error) = load_balancer::run(&informers, shutdown.clone()).await {
            tracing::error!(error = %telemetry::chain(&error), "Load balancers get no addresses");
        }
    };
    let names = async {
        if let Some(cluster_ip) = cluster_dns {
            publication::run(&informers, api, cluster_ip, shutdown.clone()).await;
        }
    };
    tokio::join!(balancers, names);
}

/// Waits for a node that is not simulated; false if there will be none.
async fn a_real_node(informers: &Informers) -> bool {
    let is_real =
        |object: &apimachinery::Object| object.view::<Node>().is_ok_and(|node| !node.is_simulated());
    let nodes = informers.of(&NODES);
    let mut changes = nodes.subscribe();
    loop {
        match changes.recv().await {
            Some(Delta::Resync) => {
                let mut found = false;
                nodes.for_each(|node| found |= is_real(node));
                if found {
                    return true;
                }
            }
            Some(Delta::Upsert { old: None, new }) if is_real(&new) => return true,
            Some(_) => {}
            None => return false,
        }
    }
}
