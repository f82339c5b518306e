//! The network of this node: pods' links, the way to other nodes, Services, policies, and the addresses at which pods
//! find the API and cluster DNS.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use api::gvr::{ENDPOINT_SLICES, SERVICES};
use apimachinery::{Str, Value, json};
use apiserver::ApiServer;
use async_trait::async_trait;
use camino::Utf8Path;
use client::{Api, Informers, ObjectKey, Patch, WriteOptions};
use network::dns;
use network::network_policy::{self, AttachedPods, PolicyOptions};
use network::pod_network::{self, Backend, BuiltIn, Cidr, Options, PeerOptions};
use network::service_proxy::{self, ProxyOptions, load_balancer};
use runtime::{PodNetwork, SandboxConfig};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

use super::{Config, roles};

/// The port of cluster DNS.
const DNS_PORT: u16 = 53;

/// The Service of cluster DNS, under the name that everybody looks for.
const DNS_SERVICE: (&str, &str) = ("kube-system", "kube-dns");

/// What connects pods; cloning shares it.
#[derive(Clone)]
pub(super) struct Network {
    built_in: Arc<BuiltIn>,
    attached: Arc<AttachedPods>,
    backend: Backend,
}

impl Network {
    pub(super) async fn open(config: &Config) -> anyhow::Result<Self> {
        let backend = Backend::Vxlan;
        let cluster_cidrs = config.cluster_cidrs.iter().map(|text| {
            Cidr::parse(text).ok_or_else(|| anyhow!("--cluster-cidr {text}: it is not a range of addresses"))
        });
        let options = Options {
            state_directory: config.state.join("network"),
            backend,
            node_ip: config.addresses.first().copied(),
            cluster_cidrs: cluster_cidrs.collect::<anyhow::Result<_>>()?,
            ..Options::default()
        };
        let built_in = BuiltIn::open(options).await.context("preparing the pod network")?;
        Ok(Self { built_in: Arc::new(built_in), attached: Arc::default(), backend })
    }

    /// What the runtime asks for pods' addresses.
    pub(super) fn for_pods(&self) -> Arc<dyn PodNetwork> {
        Arc::new(Guarded { built_in: self.built_in.clone(), attached: self.attached.clone() })
    }

    /// Keeps all of it true until `shutdown`. `ready` turns true once pods can be connected.
    pub(super) fn run(
        &self,
        config: &Config,
        server: &ApiServer,
        ready: watch::Sender<bool>,
        shutdown: &rt::Shutdown,
    ) -> Vec<rt::JoinHandle<()>> {
        let informers = Informers::new(roles::network_api(server), shutdown.child_token());
        let mut tasks = Vec::new();
        let peers = PeerOptions {
            node_name: config.name.clone(),
            node_ip: config.addresses[0],
            backend: self.backend,
        };
        tasks.push(rt::spawn(
            "pod network",
            pod_network::run(self.built_in.clone(), informers.clone(), peers, shutdown.clone()),
        ));
        tasks.push(rt::spawn("pod network readiness", tell_when_ready(self.built_in.clone(), ready)));

        let mut masquerade = self.built_in.masquerade_rules();
        let host_ports = follow_host_ports(&self.built_in, shutdown);
        let (name, ending, of_services) = (config.name.clone(), shutdown.clone(), informers.clone());
        tasks.push(rt::spawn("services", async move {
            // Until this node has pods, nobody's packets need another source.
            let Ok(rules) =
                masquerade.wait_for(|rules| !rules.sources.is_empty()).await.map(|rules| rules.clone())
            else {
                return;
            };
            let cidr = |own: &Cidr| service_proxy::Cidr::parse(&own.to_string());
            let options = ProxyOptions {
                node_name: name.into(),
                policy: service_proxy::Policy {
                    cluster_cidrs: rules.except.iter().filter_map(cidr).collect(),
                    masquerade_all: false,
                    masquerade_egress_of: rules.sources.iter().filter_map(cidr).collect(),
                },
                host_ports: Some(host_ports),
                ..ProxyOptions::default()
            };
            if let Err(error) = service_proxy::run(&of_services, options, ending).await {
                tracing::error!(error = %telemetry::chain(&error), "Services are not served on this node");
            }
        }));

        let (of_balancers, ending) = (informers.clone(), shutdown.clone());
        tasks.push(rt::spawn("load balancers", async move {
            if let Err(error) = load_balancer::run(&of_balancers, ending).await {
                tracing::error!(error = %telemetry::chain(&error), "Load balancers get no addresses");
            }
        }));

        let options = PolicyOptions {
            node_name: config.name.as_str().into(),
            always_allowed: Vec::new(),
            attached: self.attached.clone(),
        };
        let ending = shutdown.clone();
        tasks.push(rt::spawn("network policies", async move {
            if let Err(error) = network_policy::run(&informers, options, ending).await {
                tracing::error!(error = %telemetry::chain(&error), "Network policies are not enforced on this node");
            }
        }));
        tasks
    }
}

async fn tell_when_ready(built_in: Arc<BuiltIn>, ready: watch::Sender<bool>) {
    let mut rules = built_in.masquerade_rules();
    if rules.wait_for(|rules| !rules.sources.is_empty()).await.is_ok() {
        ready.send_replace(true);
    }
    ready.closed().await;
}

/// The book of host ports in the words of the service proxy.
fn follow_host_ports(
    built_in: &BuiltIn,
    shutdown: &rt::Shutdown,
) -> watch::Receiver<Vec<service_proxy::HostPort>> {
    let mut book = built_in.host_ports().watch();
    let of = |own: &pod_network::HostPort| service_proxy::HostPort {
        protocol: match own.protocol {
            runtime::spec::Protocol::Tcp => service_proxy::Protocol::Tcp,
            runtime::spec::Protocol::Udp => service_proxy::Protocol::Udp,
            runtime::spec::Protocol::Sctp => service_proxy::Protocol::Sctp,
        },
        host_ip: own.host_ip,
        host_port: own.host_port,
        pod: SocketAddr::new(own.pod_ip, own.container_port),
    };
    let (sender, receiver) = watch::channel(book.borrow_and_update().iter().map(of).collect());
    let ending = shutdown.clone();
    rt::spawn("host ports", async move {
        loop {
            tokio::select! {
                changed = book.changed() => if changed.is_err() { return },
                () = ending.cancelled() => return,
            }
            sender.send_replace(book.borrow_and_update().iter().map(of).collect());
        }
    });
    receiver
}

/// The built-in network, whose pods are told apart by policies before they can speak.
struct Guarded {
    built_in: Arc<BuiltIn>,
    attached: Arc<AttachedPods>,
}

/// A pod whose policies are not in force after this starts all the same: whoever fails to enforce them says so.
const POLICY_WAIT: std::time::Duration = std::time::Duration::from_secs(5);

impl Guarded {
    fn key(config: &SandboxConfig) -> ObjectKey {
        ObjectKey { namespace: config.namespace.as_str().into(), name: config.name.as_str().into() }
    }
}

#[async_trait]
impl PodNetwork for Guarded {
    async fn attach(
        &self,
        netns: &Utf8Path,
        config: &SandboxConfig,
        sandbox: &str,
    ) -> runtime::Result<Vec<IpAddr>> {
        let addresses = self.built_in.attach(netns, config, sandbox).await?;
        let enforced = self.attached.attach(Self::key(config), addresses.clone());
        if rt::timeout(POLICY_WAIT, enforced).await.is_err() {
            tracing::warn!(namespace = %config.namespace, name = %config.name, "A pod starts before its policies hold");
        }
        Ok(addresses)
    }

    async fn detach(&self, netns: &Utf8Path, config: &SandboxConfig, sandbox: &str) -> runtime::Result<()> {
        self.attached.detach(&Self::key(config));
        self.built_in.detach(netns, config, sandbox).await
    }

    async fn retain(&self, sandboxes: &[String]) -> runtime::Result<()> {
        self.built_in.retain(sandboxes).await
    }
}

/// What this node serves its pods at an address of its own: the API, where it listens on the loopback only, and names.
pub(super) struct OwnAddresses {
    pub network: Network,
    /// Listens for the API at one more address.
    pub listen: Box<dyn FnOnce(TcpListener) -> apiserver::HttpsServer + Send>,
    pub door: Arc<apiserver::Door>,
    /// Where the API listens already.
    pub api_address: SocketAddr,
    pub node_name: String,
    /// Where others reach this machine.
    pub node_address: IpAddr,
    pub cluster_dns: Option<IpAddr>,
    pub cluster_domain: String,
    pub network_api: Arc<dyn Api>,
    pub admin: Arc<dyn Api>,
}

impl OwnAddresses {
    pub(super) async fn offer(self, shutdown: &rt::Shutdown) {
        if let Err(error) = self.try_offer(shutdown).await {
            tracing::error!(error = %telemetry::chain(error.as_ref()), "Pods cannot reach the API or cluster DNS");
        }
    }

    async fn try_offer(self, shutdown: &rt::Shutdown) -> anyhow::Result<()> {
        let own = self
            .network
            .built_in
            .own_addresses()
            .await
            .context("giving this node an address for its pods")?;
        let Some(own) = own.first().copied() else {
            return Err(anyhow!("the node's range of pods is too small"));
        };
        let reached = match self.api_address.ip() {
            ip if ip.is_loopback() => {
                let at = SocketAddr::new(own, self.api_address.port());
                let listener =
                    TcpListener::bind(at).await.with_context(|| format!("listening for pods on {at}"))?;
                let https = (self.listen)(listener);
                rt::spawn("https for pods", https.run(shutdown.clone()));
                at
            }
            ip if ip.is_unspecified() => SocketAddr::new(self.node_address, self.api_address.port()),
            ip => SocketAddr::new(ip, self.api_address.port()),
        };
        apiserver::bootstrap::advertise(&self.door, reached, shutdown)
            .await
            .map_err(|status| anyhow!("the endpoints of the Service kubernetes: {status}"))?;
        if let Some(cluster_ip) = self.cluster_dns {
            serve_names(&*self.admin, cluster_ip, own, &self.node_name)
                .await
                .map_err(|status| anyhow!("the Service of cluster DNS: {status}"))?;
        }
        let informers = Informers::new(self.network_api.clone(), shutdown.child_token());
        let resolv_conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let options = dns::DnsOptions {
            listen: vec![SocketAddr::new(own, DNS_PORT)],
            cluster_domain: self.cluster_domain,
            upstreams: dns::upstreams(&resolv_conf),
        };
        let (ready, _is_ready) = oneshot::channel();
        dns::run(&informers, options, ready, shutdown.clone()).await.context("serving cluster DNS")
    }
}

/// The Service `kube-dns` and this node's endpoint of it: pods ask the server of their own node.
async fn serve_names(
    api: &dyn Api,
    cluster_ip: IpAddr,
    own: IpAddr,
    node: &str,
) -> Result<(), apimachinery::Status> {
    let (namespace, name) = DNS_SERVICE;
    let ports = json!([
        {"name": "dns", "port": i64::from(DNS_PORT), "protocol": "UDP"},
        {"name": "dns-tcp", "port": i64::from(DNS_PORT), "protocol": "TCP"},
    ]);
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "labels": {
            "k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS",
        }},
        "spec": {"clusterIP": cluster_ip.to_string(), "internalTrafficPolicy": "Local"},
    });
    service.set_at(&["spec", "ports"], ports.clone());
    let mut slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": format!("{name}-{node}"), "namespace": namespace, "labels": {
            "kubernetes.io/service-name": name, "endpointslice.kubernetes.io/managed-by": "dns.pintle.dev",
        }},
        "addressType": if own.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{"addresses": [own.to_string()], "conditions": {"ready": true}, "nodeName": node}],
    });
    slice.set_at(&["ports"], ports);
    let options = WriteOptions { field_manager: Str::from("pintle-dns"), force: true, dry_run: false };
    for (resource, object) in [(&SERVICES, service), (&ENDPOINT_SLICES, slice)] {
        let name = object.str_at(&["metadata", "name"]).to_owned();
        apply(api, resource, namespace, &name, object, &options).await?;
    }
    Ok(())
}

async fn apply(
    api: &dyn Api,
    resource: &apimachinery::GroupVersionResource,
    namespace: &str,
    name: &str,
    object: Value,
    options: &WriteOptions,
) -> Result<(), apimachinery::Status> {
    api.patch(resource, namespace, name, None, Patch::Apply(object), options).await.map(drop)
}
