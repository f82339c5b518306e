//! NetworkPolicies on a node: what its pods may send and get, by rules in the kernel.
//!
//! Owns: the tables `pintle-policies` of nf_tables. Never touches: addresses of Services, which are translated before
//! these rules see a packet ([`super::service_proxy`]); policies as objects.
//!
//! A node enforces for its own pods, in both directions, by their addresses; so does every other node. Pods are
//! routed, each over a link of its own, and therefore all that they send and get passes the host's `forward` hook,
//! also between two pods of one node. Connections that exist go on, replies are always let through, and so is what
//! the node itself sends to its pods (probes). Pods in the network of the host are no subject of policies, and are
//! nobody's peer.
//!
//! ```text
//!     NetworkPolicies, Pods, Namespaces ─▶ plan ─▶ rendered ─▶ Batch ─▶ kernel
//!                                       (addresses)  (differences)  (one transaction)
//! ```
//!
//! Start at [`run`], then [`plan`]. A plan is made anew with each change that could matter, and what follows from it
//! is compared; pauses between plans grow with the time that one takes.

mod attached;
mod objects;
mod plan;
mod rendered;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use api::gvr::{NAMESPACES, PODS};
use api::view::{Pod, PodIp};
use apimachinery::{GroupVersionResource, Object, Str};
use client::{Delta, Informer, Informers, ObjectKey};
use parking_lot::Mutex;
use rt::Shutdown;
use serde::de::DeserializeOwned;
use tracing::{debug, warn};

use crate::nftables::{Batch, Connection, Family};
pub use attached::AttachedPods;
use objects::NetworkPolicy;
use plan::Namespaces;
pub use plan::Plan;
use rendered::Rendered;
pub use rendered::TABLE;

const NETWORK_POLICIES: GroupVersionResource = GroupVersionResource {
    group: Str::const_new("networking.k8s.io"),
    version: Str::const_new("v1"),
    resource: Str::const_new("networkpolicies"),
};
/// Changes that come within this time of the first go into one plan.
const GATHER: Duration = Duration::from_millis(4);
/// The pause before a plan, as a multiple of the time that the last one took: a fifth of one core at most.
const PAUSE_FACTOR: u32 = 4;
const PAUSE_MAX: Duration = Duration::from_secs(2);
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// How often the tables are made anew, in case somebody else changed them.
const RESYNC: Duration = Duration::from_secs(3600);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("opening nf_tables for NetworkPolicies")]
    Open(#[source] crate::nftables::Error),
    #[error("the informers of NetworkPolicies stopped")]
    InformersStopped,
}

/// How policies are enforced on this node.
#[derive(Clone, Debug, Default)]
pub struct PolicyOptions {
    pub node_name: Str,
    /// Parts of the node that pods may always talk to, such as a cluster DNS that is no pod and that no policy could
    /// therefore name.
    pub always_allowed: Vec<SocketAddr>,
    /// Pods whose network was made here, told before their status is.
    pub attached: Arc<AttachedPods>,
}

/// Policies in the kernel: plans in, commits out.
pub struct Enforcer {
    connection: Connection,
    always_allowed: Vec<SocketAddr>,
    current: Option<[Rendered; 2]>,
}

const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];

impl Enforcer {
    /// An enforcer for the network namespace of this thread; nothing changes there before [`Enforcer::enforce`].
    pub fn open(always_allowed: Vec<SocketAddr>) -> Result<Self, crate::nftables::Error> {
        Ok(Self { connection: Connection::open()?, always_allowed, current: None })
    }

    /// Makes the kernel's tables what the plan says. After an error they are as before, and are made anew next time.
    pub fn enforce(&mut self, plan: &Plan) -> Result<(), crate::nftables::Error> {
        let wanted = FAMILIES.map(|family| rendered::render(plan, family, &self.always_allowed));
        let mut batch = Batch::default();
        let current = self.current.take();
        for (index, family) in FAMILIES.into_iter().enumerate() {
            match &current {
                Some(current) => {
                    rendered::write_changes(family, &current[index], &wanted[index], &mut batch);
                }
                None => rendered::write_all(family, &wanted[index], &mut batch),
            }
        }
        self.connection.commit(&batch)?;
        self.current = Some(wanted);
        Ok(())
    }

    /// The next plan makes the tables anew.
    pub fn distrust(&mut self) {
        self.current = None;
    }
}

struct Sources {
    policies: Arc<Informer>,
    pods: Arc<Informer>,
    namespaces: Arc<Informer>,
    node_name: Str,
    attached: Arc<AttachedPods>,
}

/// Enforces policies in the network namespace of the calling thread until `shutdown`. The rules stay when it ends.
pub async fn run(informers: &Informers, options: PolicyOptions, shutdown: Shutdown) -> Result<(), Error> {
    let open = || Enforcer::open(options.always_allowed.clone()).map_err(Error::Open);
    let enforcer = Arc::new(Mutex::new(open()?));
    let sources = Arc::new(Sources {
        policies: informers.of(&NETWORK_POLICIES),
        pods: informers.of(&PODS),
        namespaces: informers.of(&NAMESPACES),
        node_name: options.node_name.clone(),
        attached: options.attached.clone(),
    });
    sources.attached.follow(sources.policies.clone());
    let (mut policies, mut pods, mut namespaces) =
        (sources.policies.subscribe(), sources.pods.subscribe(), sources.namespaces.subscribe());
    for informer in [&sources.policies, &sources.pods, &sources.namespaces] {
        tokio::select! {
            () = informer.synced() => {}
            () = shutdown.cancelled() => return Ok(()),
        }
    }
    let mut failures = 0;
    let mut pause = GATHER;
    let mut resync_at = rt::instant() + rt::jittered(RESYNC, 0.1);
    loop {
        tokio::select! {
            () = rt::sleep(pause) => {}
            () = shutdown.cancelled() => return Ok(()),
        }
        for waiting in [&mut policies, &mut pods, &mut namespaces] {
            while waiting.try_recv().is_some() {}
        }
        let started = rt::instant();
        let result = tokio::task::spawn_blocking({
            let (enforcer, sources) = (enforcer.clone(), sources.clone());
            move || sources.enforce(&mut enforcer.lock())
        });
        let wake_at = match result.await {
            Ok(Ok(())) => {
                failures = 0;
                resync_at
            }
            Ok(Err(error)) => {
                let pause = RETRY_MIN.saturating_mul(1 << failures.min(10)).min(RETRY_MAX);
                failures += 1;
                warn!(error = %telemetry::chain(&error), "Rules of NetworkPolicies not written; trying again");
                rt::instant() + rt::jittered(pause, 0.5)
            }
            Err(panic) => {
                warn!(error = %panic, "Planning NetworkPolicies panicked; starting over");
                *enforcer.lock() = open()?;
                rt::instant() + RETRY_MAX
            }
        };
        pause = (started.elapsed() * PAUSE_FACTOR).clamp(GATHER, PAUSE_MAX);
        tokio::select! {
            // First: informers stop by the same token, and that is no error then.
            biased;
            () = shutdown.cancelled() => return Ok(()),
            matters = next(&mut policies, |_, _| true) => matters?,
            matters = next(&mut pods, pod_matters) => matters?,
            matters = next(&mut namespaces, labels_differ) => matters?,
            () = sources.attached.changed() => {}
            () = rt::sleep_until(wake_at) => {
                if wake_at == resync_at {
                    enforcer.lock().distrust();
                    resync_at = rt::instant() + rt::jittered(RESYNC, 0.1);
                }
            }
        }
    }
}

/// Waits for a change that matters.
async fn next(
    subscription: &mut client::informer::Subscription,
    matters: fn(&Object, &Object) -> bool,
) -> Result<(), Error> {
    loop {
        match subscription.recv().await.ok_or(Error::InformersStopped)? {
            Delta::Upsert { old: Some(old), new } if !matters(&old, &new) => {}
            _ => return Ok(()),
        }
    }
}

fn labels_differ(old: &Object, new: &Object) -> bool {
    !old.labels().eq(new.labels())
}

fn pod_matters(old: &Object, new: &Object) -> bool {
    let (Some(before), Some(after)) = (view::<Pod>(old), view::<Pod>(new)) else { return true };
    labels_differ(old, new)
        || before.status.pod_ips != after.status.pod_ips
        || before.status.pod_ip != after.status.pod_ip
        || before.status.phase != after.status.phase
        || before.spec.node_name != after.spec.node_name
}

fn view<T: DeserializeOwned + Send + Sync + 'static>(object: &Object) -> Option<Arc<T>> {
    object
        .view::<T>()
        .inspect_err(|error| debug!(?object, error = %telemetry::chain(error), "Object not understood"))
        .ok()
}

impl Sources {
    fn enforce(&self, enforcer: &mut Enforcer) -> Result<(), crate::nftables::Error> {
        let (version, attached) = self.attached.snapshot();
        enforcer.enforce(&self.plan(&attached))?;
        self.attached.enforced(version);
        Ok(())
    }

    fn plan(&self, attached: &HashMap<ObjectKey, Vec<IpAddr>>) -> Plan {
        let policies: Vec<Arc<NetworkPolicy>> =
            self.policies.list().iter().filter_map(|policy| view(policy)).collect();
        if policies.is_empty() {
            return Plan::default();
        }
        let mut pods: Vec<Arc<Pod>> = self.pods.list().iter().filter_map(|pod| view(pod)).collect();
        for (key, addresses) in attached {
            let pod = self.pods.get(&key.namespace, &key.name).and_then(|pod| view::<Pod>(&pod));
            pods.extend(
                pod.filter(|pod| pod.status.pod_ips.is_empty()).map(|pod| with_addresses(&pod, addresses)),
            );
        }
        let mut namespaces: Namespaces = HashMap::new();
        self.namespaces.for_each(|namespace| {
            let labels = namespace.labels().map(|(key, value)| (key.into(), value.into())).collect();
            namespaces.insert(namespace.name().into(), labels);
        });
        plan::plan(&policies, &pods, &namespaces, &self.node_name)
    }
}

/// A pod as its status will show it.
fn with_addresses(pod: &Pod, addresses: &[IpAddr]) -> Arc<Pod> {
    let mut pod = pod.clone();
    pod.status.pod_ips = addresses.iter().map(|address| PodIp { ip: address.to_string().into() }).collect();
    Arc::new(pod)
}
