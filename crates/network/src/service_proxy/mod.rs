//! Services on a node: traffic to their addresses goes to their endpoints, by rules in the kernel.
//!
//! Owns: the tables `pintle-services` and `pintle-loopback` of nf_tables, the health checks of load balancers, and the addresses of
//! Services of type LoadBalancer that nobody else takes care of ([`load_balancer`]). Never touches: pods' links and
//! routes ([`super::pod_network`]), policies ([`super::network_policy`]).
//!
//! The model is kube-proxy in its nftables mode: same choice of endpoints, same treatment of sources. Not its shape:
//! there a Service has a chain and an endpoint has another, and the kernel walks through all of them with each
//! change. Here Services and endpoints are elements of a few maps, and a change of one is a change of a few elements.
//!
//! ```text
//!     Services, EndpointSlices, Node ─▶ plan ─▶ Tables ─▶ Batch ─▶ kernel
//!                                   (pure)   (differences)   (one transaction)
//! ```
//!
//! Start at [`run`], then [`plan`]; the rules are in [`ruleset`].
//!
//! What it expects of the node: forwarding is on, and pods' packets are routed, not bridged past the rules.

mod affinity;
pub(crate) mod cidr;
mod conntrack;
mod endpoints;
mod health;
pub mod load_balancer;
pub mod loopback;
mod mirror;
mod objects;
mod plan;
#[cfg(test)]
mod plan_tests;
mod proxy;
mod ruleset;
mod tables;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::gvr::{ENDPOINT_SLICES, NODES, SERVICES};
use api::view::Node;
use apimachinery::{Object, Str};
use client::{Delta, Informer, Informers, ObjectKey};
use parking_lot::Mutex;
use rt::Shutdown;
use tokio::sync::watch;
use tracing::{debug, warn};

pub use cidr::Cidr;
pub use objects::Protocol;
pub use plan::{Facts, HostPort};
pub use proxy::Proxy;
pub use ruleset::{MASQUERADE_MARK, Policy, TABLE};

use objects::{EndpointSlice, SERVICE_NAME, Service};

/// Changes that come within this time of the first go into one transaction.
const GATHER: Duration = Duration::from_millis(4);
/// A commit that failed is tried again after this long, at first and at most.
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// How often the tables are made anew, in case somebody else changed them.
const RESYNC: Duration = Duration::from_secs(3600);
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
const SLICES_BY_SERVICE: &str = "service-proxy/service";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("opening nf_tables for Services")]
    Open(#[source] crate::nftables::Error),
    #[error("the informers of Services stopped")]
    InformersStopped,
}

/// How Services are served on this node.
#[derive(Clone, Debug, Default)]
pub struct ProxyOptions {
    pub node_name: Str,
    /// Addresses that node ports are served on. Empty: the node's `InternalIP`s, as its object has them.
    pub node_addresses: Vec<IpAddr>,
    /// Only those of the node's addresses that are in one of these serve node ports. Empty: all.
    pub node_port_addresses: Vec<Cidr>,
    pub policy: Policy,
    /// Ports of this node that belong to pods.
    pub host_ports: Option<watch::Receiver<Vec<HostPort>>>,
}

/// What the next round has to look at.
#[derive(Debug, Default)]
struct Dirty {
    everything: bool,
    services: HashSet<ObjectKey>,
}

struct Sources {
    services: Arc<Informer>,
    slices: Arc<Informer>,
    nodes: Arc<Informer>,
}

/// Serves Services in the network namespace of the calling thread until `shutdown`. The rules stay when it ends.
pub async fn run(informers: &Informers, options: ProxyOptions, shutdown: Shutdown) -> Result<(), Error> {
    let proxy = Arc::new(Mutex::new(Proxy::open(options.policy.clone()).map_err(Error::Open)?));
    let sources = Sources {
        services: informers.of(&SERVICES),
        slices: informers.of(&ENDPOINT_SLICES),
        nodes: informers.of(&NODES),
    };
    sources.slices.add_index(SLICES_BY_SERVICE, service_of_slice);
    let (mut services, mut slices, mut nodes) =
        (sources.services.subscribe(), sources.slices.subscribe(), sources.nodes.subscribe());
    for informer in [&sources.services, &sources.slices, &sources.nodes] {
        tokio::select! {
            () = informer.synced() => {}
            () = shutdown.cancelled() => return Ok(()),
        }
    }
    let sources = Arc::new(sources);
    let mut host_ports = options.host_ports.clone();
    let mut facts = facts_of(&sources.nodes, &options);
    let mut dirty = Dirty { everything: true, ..Dirty::default() };
    let mut health = health::HealthServers::new(&shutdown);
    let mut failures = 0;
    let mut resync_at = rt::instant() + rt::jittered(RESYNC, 0.1);
    loop {
        // Everything that is there already, and what comes right after it.
        rt::sleep(GATHER).await;
        while let Some(delta) = services.try_recv() {
            dirty.note(&delta, |object| Some(object.into()));
        }
        while let Some(delta) = slices.try_recv() {
            dirty.note(&delta, service_key_of_slice);
        }
        while nodes.try_recv().is_some() {}
        let now = facts_of(&sources.nodes, &options);
        if now != facts {
            facts = now;
            dirty.everything = true;
        }
        let ports = host_ports.as_mut().map(|ports| ports.borrow_and_update().clone());
        let round = Round { dirty: std::mem::take(&mut dirty), facts: facts.clone(), host_ports: ports };
        let result = tokio::task::spawn_blocking({
            let (proxy, sources) = (proxy.clone(), sources.clone());
            move || round.make(&mut proxy.lock(), &sources)
        });
        let result = result.await;
        let healthy = matches!(result, Ok(Ok(())));
        let checks = proxy.lock().health_checks().clone();
        health.update(checks, healthy).await;
        let retry = match result {
            Ok(Ok(())) => {
                failures = 0;
                None
            }
            Ok(Err(error)) => {
                let pause = RETRY_MIN.saturating_mul(1 << failures.min(10)).min(RETRY_MAX);
                failures += 1;
                warn!(error = %telemetry::chain(&error), "Rules of Services not written; trying again");
                Some(rt::jittered(pause, 0.5))
            }
            Err(panic) => {
                warn!(error = %panic, "Planning Services panicked; starting over");
                *proxy.lock() = Proxy::open(options.policy.clone()).map_err(Error::Open)?;
                dirty.everything = true;
                Some(RETRY_MAX)
            }
        };
        let wake_at = retry.map_or(resync_at, |pause| rt::instant() + pause);
        tokio::select! {
            // First: informers stop by the same token, and that is no error then.
            biased;
            () = shutdown.cancelled() => return Ok(()),
            delta = services.recv() => dirty.note(&delta.ok_or(Error::InformersStopped)?, |object| Some(object.into())),
            delta = slices.recv() => dirty.note(&delta.ok_or(Error::InformersStopped)?, service_key_of_slice),
            changed = own_node_changed(&mut nodes, &options.node_name) => changed?,
            () = changed(&mut host_ports) => {}
            () = rt::sleep_until(wake_at) => {
                if retry.is_none() {
                    proxy.lock().distrust();
                    resync_at = rt::instant() + rt::jittered(RESYNC, 0.1);
                }
            }
        }
    }
}

/// Waits for a change of this node; others do not wake the proxy.
async fn own_node_changed(nodes: &mut client::informer::Subscription, name: &str) -> Result<(), Error> {
    loop {
        match nodes.recv().await.ok_or(Error::InformersStopped)? {
            Delta::Upsert { new: node, .. } | Delta::Delete { old: node } if node.name() != name => {}
            _ => return Ok(()),
        }
    }
}

/// Waits for other host ports; for ever where there are none.
async fn changed(host_ports: &mut Option<watch::Receiver<Vec<HostPort>>>) {
    if let Some(receiver) = host_ports
        && receiver.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// One pass over what changed.
struct Round {
    dirty: Dirty,
    facts: Facts,
    host_ports: Option<Vec<HostPort>>,
}

impl Round {
    fn make(mut self, proxy: &mut Proxy, sources: &Sources) -> Result<(), crate::nftables::Error> {
        if self.dirty.everything {
            self.dirty.services.extend(proxy.services().cloned());
        }
        for key in self.dirty.keys(sources) {
            let plan = plan_of(&key, sources, &self.facts);
            proxy.set_service(key, plan);
        }
        if let Some(host_ports) = self.host_ports {
            proxy.set_host_ports(&host_ports, &self.facts);
        }
        proxy.commit()
    }
}

fn plan_of(key: &ObjectKey, sources: &Sources, facts: &Facts) -> plan::ServicePlan {
    let Some(service) = sources.services.get(&key.namespace, &key.name) else {
        return plan::ServicePlan::default();
    };
    let service = match service.view::<Service>() {
        Ok(service) => service,
        Err(error) => {
            warn!(service = %key, error = %telemetry::chain(&error), "Service not understood, and not served");
            return plan::ServicePlan::default();
        }
    };
    let slices = slices_of(key, sources);
    let slices: Vec<&EndpointSlice> = slices.iter().map(AsRef::as_ref).collect();
    plan::plan(&service, &slices, facts)
}

fn slices_of(key: &ObjectKey, sources: &Sources) -> Vec<Arc<EndpointSlice>> {
    let slices = sources.slices.by_index(SLICES_BY_SERVICE, &key.to_string());
    slices.iter().filter_map(|slice| slice_view(slice)).collect()
}

fn slice_view(slice: &Object) -> Option<Arc<EndpointSlice>> {
    slice
        .view::<EndpointSlice>()
        .inspect_err(|error| debug!(?slice, error = %telemetry::chain(error), "EndpointSlice not understood"))
        .ok()
}

fn service_of_slice(slice: &Object) -> Vec<Str> {
    service_key_of_slice(slice).map(|key| key.to_string().into()).into_iter().collect()
}

fn service_key_of_slice(slice: &Object) -> Option<ObjectKey> {
    Some(ObjectKey::new(slice.namespace(), slice.label(SERVICE_NAME)?))
}

impl Dirty {
    /// The Services to look at.
    fn keys(mut self, sources: &Sources) -> HashSet<ObjectKey> {
        if self.everything {
            sources.services.for_each(|object| self.services.extend([ObjectKey::from(&**object)]));
        }
        self.services
    }

    fn note(&mut self, delta: &Delta, key_of: impl Fn(&Object) -> Option<ObjectKey>) {
        match delta {
            Delta::Upsert { old, new } => {
                self.services.extend(key_of(new));
                self.services.extend(old.as_ref().and_then(|old| key_of(old)));
            }
            Delta::Delete { old } => self.services.extend(key_of(old)),
            Delta::Resync => self.everything = true,
        }
    }
}

/// What the Node object and the options say about this node.
fn facts_of(nodes: &Informer, options: &ProxyOptions) -> Facts {
    let node = nodes.get("", &options.node_name);
    let zone = node.as_ref().and_then(|node| node.label(ZONE_LABEL)).unwrap_or_default().into();
    let mut node_addresses = options.node_addresses.clone();
    if node_addresses.is_empty()
        && let Some(node) = node.and_then(|node| node.view::<Node>().ok())
    {
        let internal = node.status.addresses.iter().filter(|address| address.type_ == "InternalIP");
        node_addresses = internal.filter_map(|address| address.address.parse().ok()).collect();
    }
    if !options.node_port_addresses.is_empty() {
        node_addresses
            .retain(|address| options.node_port_addresses.iter().any(|cidr| cidr.contains(*address)));
    }
    Facts { node_name: options.node_name.clone(), zone, node_addresses }
}
