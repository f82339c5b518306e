//! The agent of a real node: what a kubelet does.
//!
//! Owns: the pods bound to one node, from their arrival to the last process of them, and that node's object and lease.
//! Never touches: containers (a [`runtime::Runtime`] has them), addresses and Services (crate `network`).
//!
//! ```text
//!     API ── pods of this node ──> pods ── one worker each ──> runtime
//!      ^                             ^                           │
//!      └── status, events            └── containers, probes ─────┘
//! ```
//!
//! Start at [`run`], then [`pods`] and [`pod`]. Stopping the agent stops no container: when it comes back it finds
//! them by their labels and goes on.

pub mod admission;
pub mod certificates;
pub mod config;
pub mod devices;
pub mod dynamic_resources;
pub mod eviction;
pub mod images;
pub mod machine;
pub mod plugins;
pub mod pod;
pub mod pods;
pub mod probes;
pub mod registration;
pub mod report;
pub mod resize;
mod retry;
pub mod server;
pub mod static_pods;
pub mod stats;
pub mod user_namespaces;
pub mod volumes;

use std::net::IpAddr;
use std::sync::Arc;

use api::gvr::{NODES, PODS, RUNTIME_CLASSES, SERVICES};
use apimachinery::{Object, Value};
use camino::Utf8PathBuf;
use client::informer::Scope;
use client::{Api, Informer, Informers, Recorder};
use k8s_openapi::api::core::v1::{Pod, Service};
use parking_lot::Mutex;
use rt::Shutdown;
use runtime::spec::UserMapping;
use runtime::{ContainerState, ContainerStatus, SharedRuntime};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, oneshot, watch};

use config::{NodeFacts, labels};
use devices::Devices;
use dynamic_resources::DynamicResources;
use images::Images;
use machine::Machine;
use plugins::PluginWatcher;
use pod::status::Ended;
use pod::turns::Turns;
use pod::worker::Worker;
use pods::Pods;
use probes::Prober;
use registration::Identity;
use report::Reporter;
use static_pods::{StaticPods, mirror};
use user_namespaces::UserNamespaces;
use volumes::VolumeManager;
use volumes::csi::registry::Registry;

/// Who this agent is in events.
const COMPONENT: &str = "kubelet";

/// Whether pods can be connected to the network; if not, why, in the kubelet's words ([`network_not_ready`]).
pub type NetworkReadiness = Result<(), String>;

/// What a kubelet says of a network that cannot connect pods, for a reason of its own.
pub fn network_not_ready(message: &str) -> String {
    format!(
        "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:{message}"
    )
}

/// What an agent is made from.
pub struct Options {
    pub identity: Identity,
    pub facts: NodeFacts,
    /// Where the agent keeps what outlives it.
    pub root: Utf8PathBuf,
    pub runtime: SharedRuntime,
    pub network_ready: watch::Receiver<NetworkReadiness>,
    pub eviction: eviction::Settings,
    pub image_collection: images::collection::Settings,
    /// A folder of static pods' manifests, or one manifest.
    pub manifests: Option<Utf8PathBuf>,
    /// As [`volumes::Options::secrets_in_memory`].
    pub secrets_in_memory: bool,
}

/// What all pods of the node share.
pub struct Node {
    pub identity: Identity,
    pub facts: NodeFacts,
    pub root: Utf8PathBuf,
    pub api: Arc<dyn Api>,
    pub runtime: SharedRuntime,
    /// As in container IDs.
    pub runtime_name: String,
    pub reporter: Reporter,
    pub volumes: Arc<VolumeManager>,
    pub devices: Arc<Devices>,
    pub dynamic_resources: Arc<DynamicResources>,
    pub user_namespaces: UserNamespaces,
    pub probes: Prober,
    pub images: Images,
    pub pods: Pods,
    pub resources: resize::record::Records,
    /// Told when there may be room that there was not before.
    pub room: Notify,
    network_ready: watch::Receiver<NetworkReadiness>,
    /// Told when a static pod or a mirror of one changed.
    pub mirrors: Notify,
    pub turns: Turns,
    pub eviction: eviction::Settings,
    pub image_collection: images::collection::Settings,
    pub machine: Machine,
    /// What the node is short of now.
    pub pressures: watch::Sender<eviction::Pressures>,
    /// The node's object as it was last read.
    object: Mutex<Option<Arc<Object>>>,
    services: Arc<Informer>,
    pub shutdown: Shutdown,
}

/// Runs the agent until `shutdown`. `ready` is told once the node is registered and its pods are known.
pub async fn run(api: Arc<dyn Api>, options: Options, ready: oneshot::Sender<Arc<Node>>, shutdown: Shutdown) {
    let informers = Informers::new(api.clone(), shutdown.child_token());
    let recorder = Recorder::new(api.clone(), COMPONENT, shutdown.child_token());
    let reporter = Reporter::new(recorder.clone());
    let runtime = options.runtime;
    let warn = {
        let reporter = reporter.clone();
        move |pod: &Pod, container: &str, warning: probes::Warning| {
            reporter.container(pod, container).warning(warning.reason, warning.message);
        }
    };
    let runtime_name = options.identity.runtime_version.split("://").next().unwrap_or_default().to_owned();
    let volumes = volumes::Options {
        node_name: options.identity.name.clone(),
        root: options.root.clone(),
        allocatable: options.facts.allocatable.clone(),
        secrets_in_memory: options.secrets_in_memory,
    };
    let drivers = Registry::new(api.clone(), &options.identity.name);
    let resources = resize::record::Records::open(&options.root);
    let dynamic_resources = DynamicResources::open(api.clone(), &options.identity.name, &options.root);
    let watcher = PluginWatcher::new(&options.root, vec![drivers.clone(), dynamic_resources.clone()]);
    let node = Arc::new(Node {
        volumes: VolumeManager::new(volumes, api.clone(), drivers, recorder, shutdown.child_token()),
        devices: Devices::open(&options.root),
        user_namespaces: UserNamespaces::open(&options.root),
        dynamic_resources,
        images: Images::new(runtime.clone(), api.clone()),
        probes: Prober::new(runtime.clone(), Arc::new(warn), shutdown.child_token()),
        identity: options.identity,
        facts: options.facts,
        root: options.root,
        api,
        runtime,
        runtime_name,
        reporter,
        pods: Pods::default(),
        resources,
        room: Notify::new(),
        mirrors: Notify::new(),
        network_ready: options.network_ready.clone(),
        turns: Turns::default(),
        eviction: options.eviction,
        image_collection: options.image_collection,
        machine: Machine::read(),
        pressures: watch::Sender::default(),
        object: Mutex::default(),
        services: informers.of(&SERVICES),
        shutdown: shutdown.clone(),
    });
    let of_node =
        Scope { field_selector: format!("spec.nodeName={}", node.identity.name).into(), ..Scope::default() };
    let mut static_pods = StaticPods::new(options.manifests);
    let with_api = async {
        let object = registration::register(&node, &node.machine).await;
        *node.object.lock() = Some(object.clone());
        let pods = informers.scoped(&PODS, of_node);
        node.services.synced().await;
        pods.synced().await;
        let _ = ready.send(node.clone());
        let uid = object.uid().to_owned();
        tokio::join!(
            registration::keep(node.clone(), uid, options.network_ready),
            pods::run(node.clone(), pods.clone()),
            mirror::run(node.clone(), pods),
            eviction::run(node.clone()),
            images::collection::run(node.clone()),
            watcher.run(shutdown.clone()),
        );
    };
    let work = async {
        // These wait for no API. They are known before its pods are, so that what runs of them is nobody's remains.
        static_pods.look(&node).await;
        tokio::join!(
            with_api,
            static_pods.run(node.clone()),
            pods::follow_runtime(&node),
            follow_probes(&node),
            follow_objects(&node),
            node.volumes.run(shutdown.clone()),
            node.dynamic_resources.run(shutdown.clone()),
            node.devices.clone().run(shutdown.clone()),
        );
    };
    tokio::select! {
        () = work => {}
        () = shutdown.cancelled() => {}
    }
}

/// A pod hears of what its probes found.
async fn follow_probes(node: &Node) {
    let mut changes = node.probes.results().changed();
    loop {
        match changes.recv().await {
            Ok(change) => node.pods.wake(&change.pod_uid),
            Err(RecvError::Lagged(_)) => node.pods.all().iter().for_each(|worker| worker.wake()),
            Err(RecvError::Closed) => return,
        }
    }
}

/// A pod hears of the ConfigMaps and Secrets that it names: one that was missing may be there now.
async fn follow_objects(node: &Node) {
    let mut changes = node.volumes.subscribe();
    loop {
        match changes.recv().await {
            Ok(uid) => node.pods.wake(&uid),
            Err(RecvError::Lagged(_)) => node.pods.all().iter().for_each(|worker| worker.wake()),
            Err(RecvError::Closed) => return,
        }
    }
}

impl Node {
    /// The node's own, the primary one first.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.identity.addresses
    }

    /// The node's object as it was last read; `None` before it is registered.
    pub(in crate::agent) fn object(&self) -> Option<Arc<Object>> {
        self.object.lock().clone()
    }

    /// Services that a pod's environment tells of: those of its namespace, and the API's own.
    fn services_for(&self, pod: &Pod) -> Vec<Arc<Service>> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let mut objects = self.services.list_namespace(namespace);
        objects.extend(self.services.get("default", "kubernetes").filter(|_| namespace != "default"));
        objects
            .iter()
            .filter_map(|object| Some(Arc::new(serde_json::from_slice(object.json()).ok()?)))
            .collect()
    }

    /// The runtime's handler for the pod's RuntimeClass; empty for the default.
    async fn handler(&self, pod: &Pod) -> Result<String, String> {
        let class = pod.spec.as_ref().and_then(|spec| spec.runtime_class_name.as_deref()).unwrap_or_default();
        if class.is_empty() {
            return Ok(String::new());
        }
        match self.api.get(&RUNTIME_CLASSES, "", class).await {
            Ok(object) => Ok(object.to_value().str_at(&["handler"]).to_owned()),
            Err(status) => Err(format!("failed to get RuntimeClass {class:?}: {status}")),
        }
    }

    /// The host's IDs that are set aside for the users of this pod; `None` where it uses the host's.
    fn user_mapping(&self, pod: &Pod) -> Result<Option<UserMapping>, String> {
        let has_own = pod.spec.as_ref().is_some_and(|spec| spec.host_users == Some(false));
        has_own.then(|| self.user_namespaces.range(config::uid(pod))).transpose()
    }

    /// As [`Node::user_mapping`], of a pod that is to have a sandbox of this handler.
    async fn new_user_mapping(&self, pod: &Pod, handler: &str) -> Result<Option<UserMapping>, String> {
        if pod.spec.as_ref().is_some_and(|spec| spec.host_users == Some(false)) {
            let abilities = self.runtime.abilities().await.map_err(|error| error.to_string())?;
            user_namespaces::check(&abilities, handler)?;
        }
        self.user_mapping(pod)
    }

    /// The container with what it said at its end, if it has ended.
    fn with_last_words(&self, uid: &str, mut container: ContainerStatus) -> ContainerStatus {
        if container.state != ContainerState::Exited || !container.message.is_empty() {
            return container;
        }
        let annotation = |key| container.annotations.get(key).map(String::as_str).unwrap_or_default();
        if annotation(labels::TERMINATION_MESSAGE_PATH).is_empty() {
            return container;
        }
        let folder = self.facts.pods_root.join(uid);
        let path = config::files::termination_file(&folder, &container.name, container.attempt);
        let mut message = config::files::termination_message(&path).unwrap_or_default();
        let falls_back = annotation(labels::TERMINATION_MESSAGE_POLICY) == "FallbackToLogsOnError";
        if message.is_empty() && container.exit_code != 0 && falls_back {
            message = server::logs::last_words::last_words(&container.log_path).unwrap_or_default();
        }
        container.message = message;
        container
    }

    /// Removes what is on the disk of a pod that is gone.
    async fn forget_pod(&self, pod: &Pod) -> Result<(), String> {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let all = |errors: Vec<volumes::VolumeError>| {
            errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        };
        self.devices.release(uid);
        self.resources.release(uid);
        self.dynamic_resources.unprepare(uid).await?;
        self.volumes.unmount_all(uid).await.map_err(all)?;
        self.volumes.remove_directory(uid).await.map_err(|error| error.to_string())?;
        let logs = config::log_directory(pod, &self.facts);
        match tokio::fs::remove_dir_all(&logs).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(format!("{logs}: {error}")),
            _ => {
                self.user_namespaces.release(uid);
                Ok(())
            }
        }
    }

    /// Ends a pod for a critical one.
    fn preempt(&self, pod: &Pod) {
        let Some(worker) = self.pods.get(config::uid(pod)) else { return };
        let message = "Preempted in order to admit critical pod";
        self.reporter.pod(pod).warning("Preempting", message);
        worker.end(Ended {
            reason: "Preempting".into(),
            message: message.into(),
            disruption: Some("Pod was preempted by Kubelet to accommodate a critical pod.".into()),
            ..Ended::default()
        });
    }

    /// Whether a pod that came may run here; if not, it ends.
    async fn admit(&self, object: &Object, worker: &Worker) {
        let pod = worker.pod();
        if is_admitted(&pod) || worker.is_gone() {
            return;
        }
        let Ok(seen) = client::typed::view::<api::view::Pod>(object) else { return };
        let active = self.granted_pods(&worker.uid);
        let others: Vec<&Pod> = active.iter().map(|own| &**own).collect();
        let allocatable = registration::allocatable(self);
        let decide = |node: &Object| {
            let Ok(node) = client::typed::view::<api::view::Node>(node) else { return Ok(()) };
            let facts = admission::Facts {
                node: &self.facts,
                object: &node,
                pressures: &self.pressures.borrow(),
                allocatable: &allocatable,
                others: &others,
            };
            let decision = admission::admit(&pod, &seen, &facts);
            if decision.as_ref().is_err_and(admission::Rejection::is_lack)
                && let Some(victims) = admission::victims(&pod, &facts)
            {
                // Nobody goes for a pod that may not run here anyway.
                let is_victim = |own: &Pod| victims.iter().any(|victim| std::ptr::eq(*victim, own));
                let rest: Vec<&Pod> = others.iter().copied().filter(|own| !is_victim(own)).collect();
                admission::admit(&pod, &seen, &admission::Facts { others: &rest, ..facts })?;
                victims.iter().for_each(|victim| self.preempt(victim));
                return Ok(());
            }
            decision
        };
        let Some(own) = self.object().or_else(|| registration::sketch(self)) else { return };
        let mut decision = decide(&own);
        if decision.as_ref().is_err_and(admission::Rejection::depends_on_node)
            && let Ok(fresh) = self.api.get(&NODES, "", &self.identity.name).await
        {
            // Labels and taints may have changed since somebody looked, and the scheduler knows.
            decision = decide(&fresh);
            *self.object.lock() = Some(fresh);
        }
        if let Err(rejection) = decision {
            self.reject(&pod, worker, rejection);
        }
    }

    /// Gives an admitted pod its devices, or ends it; a pod that runs already has them. Waits for plugins, so it is the pod's own task that asks.
    async fn admit_to_devices(&self, worker: &Worker) {
        let pod = worker.pod();
        if !worker.is_active() || worker.is_gone() {
            return;
        }
        if is_admitted(&pod) {
            self.volumes.adopt(&pod);
            return;
        }
        if let Err(message) = self.devices.admit(&pod).await {
            self.reject(&pod, worker, admission::Rejection { reason: devices::REFUSED.into(), message });
        } else if worker.is_static && self.volumes.layout().pod(&worker.uid).exists() {
            // A manifest tells of no admission.
            self.volumes.adopt(&pod);
        }
    }

    fn reject(&self, pod: &Pod, worker: &Worker, rejection: admission::Rejection) {
        let admission::Rejection { reason, message } = rejection;
        self.reporter.pod(pod).warning(&reason, message.clone());
        worker.end(Ended { reason, message: format!("Pod was rejected: {message}"), ..Ended::default() });
    }

    /// For the node's status.
    fn volumes_in_use(&self) -> Vec<Value> {
        self.volumes.in_use().into_iter().map(Value::from).collect()
    }
}

/// A node does not take back what it allowed: such a pod runs, or has run, already.
pub(in crate::agent) fn is_admitted(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    status.is_some_and(|own| {
        own.start_time.is_some() || matches!(own.phase.as_deref(), Some("Succeeded" | "Failed"))
    })
}

#[cfg(test)]
mod tests;
