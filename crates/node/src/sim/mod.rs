//! Simulated nodes: Kubernetes nodes without machines, as KWOK makes them.
//!
//! Owns: the nodes it makes, and every node annotated `kwok.x-k8s.io/node: fake`, whoever made it: their status,
//! their leases, and the pods bound to them; of storage, the volumes it makes (`storage`). Never touches: other nodes
//! and their pods.
//!
//! ```text
//!     informers ──> agent ── first stage that matches ──> one write per pod and step, many at a time
//!                     │  addresses: which pod has which IP
//!                     └─ wheel ──> leases task, one tick for a few nodes at a time
//! ```
//!
//! A node or a pod costs no task and no timer: two tasks serve all. Start at [`run`], then `agent`; what happens to a
//! pod is the table in `stage`, unless users wrote Stages (`stages`).
//!
//! Level driven: state is read from the informer when a write is due. After a restart pods go on where they are, and
//! addresses in use are found in the pods' status.

mod address;
mod agent;
mod lease;
mod network;
mod node_object;
mod stage;
mod stages;
mod storage;
mod timers;

use std::collections::BTreeMap;
use std::sync::Arc;

use api::gvr::{CUSTOM_RESOURCE_DEFINITIONS, NODES, PODS};
use apimachinery::quantity::Quantity;
use apimachinery::{Str, Value, json};
use client::{Api, Informers, Recorder};
use rt::Shutdown;
use tokio::sync::{oneshot, watch};
use tracing::warn;

use address::Cidr;
use agent::Agent;

/// What nodes report that say nothing else.
const KUBELET_VERSION: &str = "v1.36.2";

/// Nodes to make, all alike. Nodes that exist already stay as they are.
#[derive(Clone, Debug)]
pub struct SimOptions {
    pub count: usize,
    /// Nodes are called `<prefix>-0`, `<prefix>-1`, …
    pub name_prefix: Str,
    pub cpu: Str,
    pub memory: Str,
    /// Pods per node.
    pub pods: u32,
    /// In addition to the well-known labels.
    pub labels: BTreeMap<Str, Str>,
    /// Where nodes take their pod ranges from, each the smallest that holds `pods`.
    pub pod_cidr: Str,
    /// As nodes report it, e.g. `v1.36.2`.
    pub kubelet_version: Str,
}

impl Default for SimOptions {
    fn default() -> Self {
        Self {
            count: 0,
            name_prefix: "sim-node".into(),
            cpu: "32".into(),
            memory: "256Gi".into(),
            pods: 110,
            labels: BTreeMap::new(),
            pod_cidr: "10.128.0.0/9".into(),
            kubelet_version: KUBELET_VERSION.into(),
        }
    }
}

impl SimOptions {
    /// So many nodes. Where the pod range has not room enough for all, each is for fewer pods.
    pub fn of(count: usize) -> Self {
        let mut options = Self { count, ..Self::default() };
        let Some(range) = Cidr::parse(&options.pod_cidr) else { return options };
        while range.subnets(Cidr::prefix_for(options.pods)) < count && options.pods > 1 {
            options.pods /= 2;
        }
        options
    }
}

/// Options that cannot be met.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SimError {
    #[error("simulated nodes: pod range {0:?}: want an IPv4 range such as 10.128.0.0/9")]
    PodCidr(Str),
    #[error(
        "simulated nodes: pod range {cidr} has room for {room} nodes of {pods} pods each, not for {count}"
    )]
    PodCidrTooSmall { cidr: Str, room: usize, pods: u32, count: usize },
    #[error("simulated nodes: {count} are asked for; at most {max} are possible")]
    TooMany { count: usize, max: usize },
    #[error("simulated nodes: {field}: {value:?} is not a quantity such as 4 or 256Gi")]
    Quantity { field: &'static str, value: Str },
}

/// The user as which simulated nodes act. One for all of them: it stands for as many kubelets, and so may do what
/// their own role gives each of them, but for all nodes and pods, and it provisions volumes; nothing else.
pub const USER: &str = "system:pintle:simulated-nodes";

/// The ClusterRole and its binding that [`USER`] needs; to be there before [`run`].
pub fn policy() -> [Value; 2] {
    const GROUP: &str = "rbac.authorization.k8s.io";
    let object = |kind: &str| {
        json!({
            "apiVersion": format!("{GROUP}/v1"), "kind": kind,
            "metadata": {"name": USER, "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"}},
        })
    };
    let (mut role, mut binding) = (object("ClusterRole"), object("ClusterRoleBinding"));
    role.set_at(
        &["rules"],
        json!([
            {"apiGroups": [""], "resources": ["nodes"],
                "verbs": ["get", "list", "watch", "create", "patch", "delete"]},
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch", "patch", "delete"]},
            {"apiGroups": [""], "resources": ["nodes/status", "pods/status"], "verbs": ["patch"]},
            {"apiGroups": ["kwok.x-k8s.io"], "resources": ["stages"], "verbs": ["get", "list", "watch"]},
            {"apiGroups": ["kwok.x-k8s.io"], "resources": ["stages/status"], "verbs": ["patch"]},
            {"apiGroups": ["apiextensions.k8s.io"], "resources": ["customresourcedefinitions"],
                "verbs": ["get", "list", "watch", "create"]},
            {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create", "patch"]},
            {"apiGroups": [""], "resources": ["persistentvolumes"],
                "verbs": ["get", "list", "watch", "create", "delete"]},
            {"apiGroups": [""], "resources": ["persistentvolumeclaims"],
                "verbs": ["get", "list", "watch", "patch"]},
            {"apiGroups": ["storage.k8s.io"], "resources": ["csidrivers"], "verbs": ["get", "list", "watch"]},
            {"apiGroups": ["storage.k8s.io"], "resources": ["storageclasses"],
                "verbs": ["get", "list", "watch", "create"]},
            {"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch", "update"]},
        ]),
    );
    binding.set_at(&["roleRef"], json!({"apiGroup": GROUP, "kind": "ClusterRole", "name": USER}));
    binding.set_at(&["subjects"], json!([{"apiGroup": GROUP, "kind": "User", "name": USER}]));
    [role, binding]
}

/// Makes the nodes and simulates until `shutdown`. `ready` is told once all nodes exist.
pub async fn run(
    api: Arc<dyn Api>,
    informers: &Informers,
    options: SimOptions,
    ready: oneshot::Sender<()>,
    shutdown: Shutdown,
) -> Result<(), SimError> {
    let plan = Arc::new(Plan::new(options)?);
    let wheel = lease::Wheel::new();
    let (pods, nodes) = (informers.of(&PODS), informers.of(&NODES));
    pods.add_index(agent::BY_NODE, agent::node_names);
    let world = stages::player::World {
        api: api.clone(),
        nodes: nodes.clone(),
        network: Arc::default(),
        recorder: Recorder::new(api.clone(), COMPONENT, shutdown.child_token()),
    };
    // A cluster without simulated nodes has somebody else's storage, too.
    let provisioner = (plan.options.count > 0)
        .then(|| storage::Provisioner::new(api.clone(), informers, shutdown.child_token()));
    let provision = async {
        match &provisioner {
            Some(provisioner) => provisioner.run().await,
            None => std::future::pending().await,
        }
    };
    let simulate = async {
        nodes.synced().await;
        pods.synced().await;
        if plan.options.count > 0 {
            define_kinds(&api).await;
        }
        let (replaces, replaced) = watch::channel(stages::Replaced::default());
        // Which stages there are is known before anything happens to a pod.
        let stages = stages::Stages::new(world.clone(), informers, replaces, shutdown.child_token()).await;
        let agent = Agent::new(
            api.clone(),
            pods,
            nodes.clone(),
            plan.clone(),
            wheel.clone(),
            world.network,
            replaced,
        );
        if let Some(provisioner) = &provisioner {
            provisioner.create_class().await;
        }
        let simulate = async {
            agent::create_nodes(&api, &nodes, &plan).await;
            let _ = ready.send(());
            agent.run().await;
        };
        tokio::join!(simulate, stages.run());
    };
    tokio::select! {
        () = simulate => {}
        () = lease::keep(api.clone(), wheel.clone()) => {}
        () = provision => {}
        () = shutdown.cancelled() => {}
    }
    Ok(())
}

/// Who events about simulated objects are from, as in KWOK.
const COMPONENT: &str = "kwok_controller";

/// KWOK's kinds, where they are not defined yet.
async fn define_kinds(api: &Arc<dyn Api>) {
    for definition in stages::definitions::definitions() {
        let name = definition.str_at(&["metadata", "name"]).to_owned();
        if let Err(status) = api.create_if_absent(&CUSTOM_RESOURCE_DEFINITIONS, "", definition).await {
            warn!(%name, error = %status, "Defined no kind");
        }
    }
}

/// Checked options.
struct Plan {
    options: SimOptions,
    pod_cidr: Cidr,
    /// Length of one node's prefix.
    node_prefix: u8,
}

/// Where nodes' own addresses come from; a million fit.
const NODE_CIDR: &str = "172.16.0.0/12";

impl Plan {
    fn new(options: SimOptions) -> Result<Self, SimError> {
        for (field, value) in [("cpu", &options.cpu), ("memory", &options.memory)] {
            if Quantity::parse(value).is_err() {
                return Err(SimError::Quantity { field, value: value.clone() });
            }
        }
        let pod_cidr =
            Cidr::parse(&options.pod_cidr).ok_or_else(|| SimError::PodCidr(options.pod_cidr.clone()))?;
        let node_prefix = Cidr::prefix_for(options.pods);
        let room = pod_cidr.subnets(node_prefix);
        if options.count > room {
            let (cidr, pods, count) = (options.pod_cidr, options.pods, options.count);
            return Err(SimError::PodCidrTooSmall { cidr, room, pods, count });
        }
        let max = Self::node_cidr().len() as usize - 2;
        if options.count > max {
            return Err(SimError::TooMany { count: options.count, max });
        }
        Ok(Self { options, pod_cidr, node_prefix })
    }

    /// Which node of the plan this is, if it is one.
    fn index_of(&self, name: &str) -> Option<usize> {
        let index = name.strip_prefix(self.options.name_prefix.as_str())?.strip_prefix('-')?.parse().ok()?;
        (index < self.options.count && node_object::name(self, index) == name).then_some(index)
    }

    fn node_cidr() -> Cidr {
        Cidr::parse(NODE_CIDR).expect("the constant is a range")
    }
}

#[cfg(test)]
mod tests;
