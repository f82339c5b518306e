//! The network of this node: pods' links, the way to other nodes, Services, policies, and cluster DNS at an address of
//! the node's own.
//!
//! Pods are connected by the built-in network, by CNI plugins of others, or by a runtime behind a socket that has its own
//! ([`NetworkPlugin`]). The rest is the same for all: Services and policies are rules that packets of all pods pass, and
//! the node's own address is one of its range of pods, on its loopback.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};
use client::{Informers, ObjectKey};
use network::cni::foreign::{self, ForeignNetwork};
use network::dns;
use network::network_policy::{self, AttachedPods, PolicyOptions};
use network::pod_network::{self, Backend, BuiltIn, Cidr, MasqueradeRules, Options, PeerOptions, Readiness};
use network::service_proxy::{self, ProxyOptions};
use runtime::{PodNetwork, SandboxConfig};
use tokio::sync::{oneshot, watch};

use super::Config;

/// Who connects this node's pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum NetworkPlugin {
    /// The built-in network.
    #[default]
    Pintle,
    /// CNI plugins, as they are configured on this machine.
    Cni,
}

/// Where CNI has its files on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CniFolders {
    pub configurations: Utf8PathBuf,
    pub programs: Vec<Utf8PathBuf>,
}

impl Default for CniFolders {
    fn default() -> Self {
        Self { configurations: "/etc/cni/net.d".into(), programs: vec!["/opt/cni/bin".into()] }
    }
}

/// What connects pods; cloning shares it.
#[derive(Clone)]
pub struct Network {
    built_in: Arc<BuiltIn>,
    connector: Connector,
    attached: Arc<AttachedPods>,
}

/// Who connects pods.
#[derive(Clone)]
enum Connector {
    BuiltIn,
    Plugins(Arc<ForeignNetwork>),
    /// A runtime behind a socket, which asks nobody here.
    Runtime,
}

impl Network {
    pub(super) async fn open(config: &Config) -> anyhow::Result<Self> {
        let connector = match (config.network_plugin, &config.cri) {
            (NetworkPlugin::Pintle, _) => Connector::BuiltIn,
            (NetworkPlugin::Cni, Some(_)) => Connector::Runtime,
            (NetworkPlugin::Cni, None) => Connector::Plugins(Arc::new(plugins(config).await?)),
        };
        let cluster_cidrs = config.cluster_cidrs.iter().map(|text| {
            Cidr::parse(text).ok_or_else(|| anyhow!("--cluster-cidr {text}: it is not a range of addresses"))
        });
        let options = Options {
            state_directory: config.state.join("network"),
            backend: connector.backend(),
            node_ip: config.addresses.first().copied(),
            cluster_cidrs: cluster_cidrs.collect::<anyhow::Result<_>>()?,
            routes_loopback: connector.is_built_in() && guards_loopback(),
            ..Options::default()
        };
        let built_in = BuiltIn::open(options).await.context("preparing the pod network")?;
        if !connector.is_built_in() && !bridges_pass_rules() {
            tracing::warn!(
                "Packets between pods on one bridge pass no rules of Services and NetworkPolicies: br_netfilter is not \
                 there, or net.bridge.bridge-nf-call-iptables is not 1"
            );
        }
        Ok(Self { built_in: Arc::new(built_in), connector, attached: Arc::default() })
    }

    /// What a runtime asks for pods' addresses; `None` where it has a network of its own.
    pub(super) fn for_pods(&self) -> Option<Arc<dyn PodNetwork>> {
        let network: Arc<dyn PodNetwork> = match &self.connector {
            Connector::BuiltIn => self.built_in.clone(),
            Connector::Plugins(plugins) => plugins.clone(),
            Connector::Runtime => return None,
        };
        Some(Arc::new(Guarded { network, attached: self.attached.clone() }))
    }

    /// Whether pods on the host's network, which may be what brings the plugins, run before others can be connected.
    pub(super) fn is_brought_by_pods(&self) -> bool {
        !self.connector.is_built_in()
    }

    /// Returns when the node knows its range of pods.
    pub(super) async fn has_addresses(&self) {
        let mut rules = self.built_in.masquerade_rules();
        // The sender is in `self`: the wait cannot fail.
        let _ = rules.wait_for(is_known).await;
    }

    /// Keeps all of it true until `shutdown`. `ready` is told whether pods can be connected.
    pub(super) fn run(
        &self,
        config: &Config,
        informers: &Informers,
        ready: watch::Sender<Readiness>,
        shutdown: &rt::Shutdown,
    ) -> rt::Tasks {
        let mut tasks = rt::Tasks::default();
        let peers = PeerOptions {
            node_name: config.name.clone(),
            node_ip: config.addresses[0],
            backend: self.connector.backend(),
        };
        tasks.spawn(
            "pod network",
            pod_network::run(self.built_in.clone(), informers.clone(), peers, shutdown.clone()),
        );
        if let Connector::Plugins(plugins) = &self.connector {
            let (plugins, ending) = (plugins.clone(), shutdown.clone());
            tasks.spawn("cni plugins", async move { plugins.run(ending).await });
        }
        let (network, ending) = (self.clone(), shutdown.clone());
        tasks.spawn("pod network readiness", async move {
            ending.run_until_cancelled(network.tell_readiness(ready)).await;
        });
        self.serve_services(&mut tasks, config, informers, shutdown);

        let options = PolicyOptions {
            node_name: config.name.as_str().into(),
            always_allowed: Vec::new(),
            attached: self.attached.clone(),
        };
        let (of_policies, ending) = (informers.clone(), shutdown.clone());
        tasks.spawn("network policies", async move {
            if let Err(error) = network_policy::run(&of_policies, options, ending).await {
                tracing::error!(error = %telemetry::chain(&error), "Network policies are not enforced on this node");
            }
        });
        tasks
    }

    fn serve_services(
        &self,
        tasks: &mut rt::Tasks,
        config: &Config,
        informers: &Informers,
        shutdown: &rt::Shutdown,
    ) {
        let is_built_in = self.connector.is_built_in();
        // Elsewhere they are a plugin's.
        let host_ports = is_built_in.then(|| follow_host_ports(&self.built_in, shutdown));
        let mut masquerade = self.built_in.masquerade_rules();
        let (name, ending, informers) = (config.name.clone(), shutdown.clone(), informers.clone());
        tasks.spawn("services", async move {
            // Until this node has pods, nobody's packets need another source.
            let Ok(rules) = masquerade.wait_for(is_known).await.map(|rules| rules.clone()) else {
                return;
            };
            let cidr = |own: &Cidr| service_proxy::Cidr::parse(&own.to_string());
            // What leaves the cluster is masqueraded by whoever knows the addresses of its pods.
            let leaving = rules.sources.iter().filter(|_| is_built_in);
            let options = ProxyOptions {
                node_name: name.into(),
                policy: service_proxy::Policy {
                    cluster_cidrs: rules.except.iter().filter_map(cidr).collect(),
                    masquerade_all: false,
                    masquerade_egress_of: leaving.filter_map(cidr).collect(),
                },
                host_ports,
                ..ProxyOptions::default()
            };
            if let Err(error) = service_proxy::run(&informers, options, ending).await {
                tracing::error!(error = %telemetry::chain(&error), "Services are not served on this node");
            }
        });
    }

    /// Tells for ever whether pods can be connected.
    async fn tell_readiness(&self, ready: watch::Sender<Readiness>) {
        let mut rules = self.built_in.masquerade_rules();
        if rules.wait_for(is_known).await.is_err() {
            return;
        }
        let Connector::Plugins(plugins) = &self.connector else {
            ready.send_modify(|readiness| *readiness = Ok(()));
            return std::future::pending().await;
        };
        let mut readiness = plugins.readiness();
        loop {
            plugins.set_pod_cidrs(&rules.borrow_and_update().sources);
            let present = readiness.borrow_and_update().clone();
            ready.send_modify(|before| *before = present);
            let changed = tokio::select! {
                changed = readiness.changed() => changed,
                changed = rules.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    }

    /// The address of this node that its own pods reach, once it has addresses for them.
    pub async fn own_address(&self) -> anyhow::Result<IpAddr> {
        let own = self.built_in.own_addresses().await.context("giving this node an address for its pods")?;
        own.first().copied().ok_or_else(|| anyhow!("the node's range of pods is too small"))
    }

    /// Answers the questions of this node's pods about names, until `shutdown`.
    pub(super) async fn serve_names(
        self,
        cluster_domain: String,
        informers: Informers,
        shutdown: rt::Shutdown,
    ) {
        let serve = async {
            self.has_addresses().await;
            let own = self.own_address().await?;
            let resolv_conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
            let options = dns::DnsOptions {
                listen: vec![SocketAddr::new(own, dns::PORT)],
                cluster_domain,
                upstreams: dns::upstreams(&resolv_conf),
            };
            let (ready, _is_ready) = oneshot::channel();
            dns::run(&informers, options, ready, shutdown).await.context("serving cluster DNS")
        };
        if let Err(error) = serve.await {
            tracing::error!(error = %telemetry::chain(error.as_ref()), "Pods of this node cannot look up names");
        }
    }
}

impl Connector {
    fn is_built_in(&self) -> bool {
        matches!(self, Self::BuiltIn)
    }

    /// How packets reach pods of other nodes: a matter of who connects them.
    fn backend(&self) -> Backend {
        if self.is_built_in() { Backend::Vxlan } else { Backend::None }
    }
}

async fn plugins(config: &Config) -> anyhow::Result<ForeignNetwork> {
    let options = foreign::Options {
        configurations: config.cni.configurations.clone(),
        programs: config.cni.programs.clone(),
        root: config.root.join("cni"),
        prefers_ipv4: config.addresses.first().is_none_or(IpAddr::is_ipv4),
        call_limit: foreign::CALL_LIMIT,
    };
    ForeignNetwork::open(options).await.context("preparing CNI plugins (--cni-conf-dir)")
}

fn is_known(rules: &MasqueradeRules) -> bool {
    !rules.sources.is_empty()
}

/// Keeps pods from the node's loopback, and says whether that is so.
fn guards_loopback() -> bool {
    service_proxy::loopback::guard()
        .inspect_err(|error| {
            tracing::warn!(error = %telemetry::chain(error), "Host ports are not on the node's loopback");
        })
        .is_ok()
}

/// Whether what a bridge hands on passes the rules of IP, too.
fn bridges_pass_rules() -> bool {
    let setting = std::fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables");
    setting.is_ok_and(|setting| setting.trim() == "1")
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

/// A network whose pods are told apart by policies before they can speak.
struct Guarded {
    network: Arc<dyn PodNetwork>,
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
        let addresses = self.network.attach(netns, config, sandbox).await?;
        let enforced = self.attached.attach(Self::key(config), addresses.clone());
        if rt::timeout(POLICY_WAIT, enforced).await.is_err() {
            tracing::warn!(namespace = %config.namespace, name = %config.name, "A pod starts before its policies hold");
        }
        Ok(addresses)
    }

    async fn detach(&self, netns: &Utf8Path, config: &SandboxConfig, sandbox: &str) -> runtime::Result<()> {
        self.attached.detach(&Self::key(config));
        self.network.detach(netns, config, sandbox).await
    }

    async fn abandon(&self, netns: &Utf8Path, config: &SandboxConfig, sandbox: &str) -> runtime::Result<()> {
        self.attached.detach(&Self::key(config));
        self.network.abandon(netns, config, sandbox).await
    }

    async fn retain(&self, sandboxes: &[String]) -> runtime::Result<()> {
        self.network.retain(sandboxes).await
    }
}
