//! The network of this node: pods' links, the way to other nodes, Services, policies, and cluster DNS at an address of
//! the node's own.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use async_trait::async_trait;
use camino::Utf8Path;
use client::{Informers, ObjectKey};
use network::dns;
use network::network_policy::{self, AttachedPods, PolicyOptions};
use network::pod_network::{self, Backend, BuiltIn, Cidr, Options, PeerOptions};
use network::service_proxy::{self, ProxyOptions};
use runtime::{PodNetwork, SandboxConfig};
use tokio::sync::{oneshot, watch};

use super::Config;

/// What connects pods; cloning shares it.
#[derive(Clone)]
pub struct Network {
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
        informers: &Informers,
        ready: watch::Sender<bool>,
        shutdown: &rt::Shutdown,
    ) -> rt::Tasks {
        let mut tasks = rt::Tasks::default();
        let peers = PeerOptions {
            node_name: config.name.clone(),
            node_ip: config.addresses[0],
            backend: self.backend,
        };
        tasks.spawn(
            "pod network",
            pod_network::run(self.built_in.clone(), informers.clone(), peers, shutdown.clone()),
        );
        tasks.spawn("pod network readiness", tell_when_ready(self.built_in.clone(), ready, shutdown.clone()));

        let mut masquerade = self.built_in.masquerade_rules();
        let host_ports = follow_host_ports(&self.built_in, shutdown);
        let (name, ending, of_services) = (config.name.clone(), shutdown.clone(), informers.clone());
        tasks.spawn("services", async move {
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
        });

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

/// Who listens can do so until `shutdown`.
async fn tell_when_ready(built_in: Arc<BuiltIn>, ready: watch::Sender<bool>, shutdown: rt::Shutdown) {
    let mut rules = built_in.masquerade_rules();
    let work = async {
        if rules.wait_for(|rules| !rules.sources.is_empty()).await.is_ok() {
            ready.send_replace(true);
        }
        std::future::pending::<()>().await;
    };
    shutdown.run_until_cancelled(work).await;
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
