//! Device plugins: what they have, what the node says of it, and which container gets what.
//!
//! Owns: the folder `device-plugins` with the socket at which plugins register, the list of devices of each, and who
//! was given which ([`ledger`], kept on disk). Never touches: devices, and containers: [`Devices::allocate`] returns
//! what a container gets.
//!
//! Start at [`Devices::run`]. A plugin that ends leaves its devices unhealthy; when the node starts, it removes the
//! plugins' sockets, which is their sign to register again. Allocations of one resource wait for each other, those of
//! different ones do not: a plugin that hangs holds up its own pods.

mod ledger;
mod messages;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::os::unix::fs::FileTypeExt;
use std::sync::Arc;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use grpc::{Client, Code, Options, Router, Server, Status};
use k8s_openapi::api::core::v1::{Container, Pod};
use parking_lot::Mutex;
use rt::{Instant, Shutdown};
use runtime::ContainerConfig;
use runtime::spec::{Device, Mount};
use tracing::{info, warn};

use super::config::uid;
use super::volumes::layout::is_one_name;
use ledger::{Grant, Ledger, choose};
use messages::{
    AllocateResponse, DeviceIds, DeviceList, DevicesOfContainers, HEALTHY, Nothing, PluginOptions,
    PreferredOfContainer, PreferredRequest, RegisterRequest,
};

/// Below the node's root.
const FOLDER: &str = "device-plugins";
const SOCKET: &str = "kubelet.sock";
const LEDGER: &str = "pintle_allocations";

/// Any call to a plugin but the list, which lasts.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Devices of a plugin that ended are told of for so long: it may be starting anew.
const GRACE: Duration = Duration::from_secs(300);

/// Resources that plugins may register.
const RESOURCES_MAX: usize = 1024;

/// How a pod is refused whose devices cannot be given.
pub const REFUSED: &str = "UnexpectedAdmissionError";

#[derive(Default)]
struct Resource {
    plugin: Option<Connected>,
    /// Whether each is healthy.
    devices: BTreeMap<String, bool>,
    ended_at: Option<Instant>,
    /// One allocation at a time.
    allocating: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Clone)]
struct Connected {
    client: Client,
    options: PluginOptions,
    /// Another one of the same resource took its place.
    replaced: Shutdown,
}

/// A resource's name, how many there are, and how many of them can be given.
pub type Count = (String, usize, usize);

pub struct Devices {
    folder: Utf8PathBuf,
    resources: Mutex<BTreeMap<String, Resource>>,
    /// Held while it is written. Never taken together with `resources`.
    ledger: Mutex<Ledger>,
}

impl Devices {
    /// `root` is the node's folder, `/var/lib/kubelet` to plugins.
    pub fn open(root: &Utf8Path) -> Arc<Self> {
        let folder = root.join(FOLDER);
        let ledger = Ledger::read(&folder.join(LEDGER)).unwrap_or_else(|error| {
            warn!(%folder, %error, "Which container has which device is not known any more");
            Ledger::default()
        });
        Arc::new(Self { folder, resources: Mutex::default(), ledger: Mutex::new(ledger) })
    }

    /// Takes registrations until `shutdown`.
    pub async fn run(self: Arc<Self>, shutdown: Shutdown) {
        let server = match self.listen() {
            Ok(server) => server,
            Err(error) => {
                warn!(folder = %self.folder, %error, "Device plugins cannot register");
                return;
            }
        };
        let (devices, ending) = (self.clone(), shutdown.clone());
        let router = Router::new().unary(messages::REGISTER, move |request: RegisterRequest| {
            let answer = devices.register(&request, &ending);
            async move { answer.map(|()| Nothing {}).map_err(|why| Status::new(Code::Unknown, why)) }
        });
        server.serve(router, shutdown).await;
    }

    fn listen(&self) -> std::io::Result<Server> {
        std::fs::create_dir_all(&self.folder)?;
        for entry in self.folder.read_dir_utf8()?.flatten() {
            if entry.file_type().is_ok_and(|own| own.is_socket()) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Server::unix(&self.folder.join(SOCKET))
    }

    fn register(self: &Arc<Self>, request: &RegisterRequest, shutdown: &Shutdown) -> Result<(), String> {
        let RegisterRequest { version, endpoint, resource_name } = request;
        check(request)?;
        let connected = Connected {
            client: Client::unix(self.folder.join(endpoint)),
            options: PluginOptions::default(),
            replaced: Shutdown::new(),
        };
        {
            let mut resources = self.resources.lock();
            if resources.len() >= RESOURCES_MAX && !resources.contains_key(resource_name) {
                return Err(format!(
                    "{resource_name}: there are {RESOURCES_MAX} resources of plugins already"
                ));
            }
            let resource = resources.entry(resource_name.clone()).or_default();
            if let Some(old) = resource.plugin.replace(connected.clone()) {
                old.replaced.cancel();
            }
            resource.ended_at = None;
        }
        info!(resource = resource_name, endpoint, version, "A device plugin registered");
        let (devices, name, shutdown) = (self.clone(), resource_name.clone(), shutdown.clone());
        rt::spawn("device plugin", async move {
            tokio::select! {
                () = connected.replaced.cancelled() => {}
                () = shutdown.cancelled() => {}
                status = devices.follow(&name, &connected) => {
                    info!(resource = name, %status, "A device plugin ended");
                    devices.ended(&name, &connected);
                }
            }
        });
        Ok(())
    }

    /// Reads the plugin's devices until it ends.
    async fn follow(&self, name: &str, plugin: &Connected) -> Status {
        let options = Options::timeout(CALL_TIMEOUT);
        match plugin.client.unary::<_, PluginOptions>(messages::GET_OPTIONS, &Nothing {}, options).await {
            Ok(options) => {
                self.change(name, plugin, |resource| {
                    if let Some(own) = &mut resource.plugin {
                        own.options = options;
                    }
                });
            }
            Err(status) => return status,
        }
        let list = plugin.client.server_streaming(messages::LIST_AND_WATCH, &Nothing {}, Options::default());
        let mut list: grpc::Streaming<DeviceList> = match list.await {
            Ok(list) => list,
            Err(status) => return status,
        };
        loop {
            match list.message().await {
                Ok(Some(DeviceList { devices })) => self.change(name, plugin, |resource| {
                    resource.devices =
                        devices.into_iter().map(|own| (own.id, own.health == HEALTHY)).collect();
                }),
                Ok(None) => return Status::new(Code::Unavailable, "the list of devices ended"),
                Err(status) => return status,
            }
        }
    }

    fn ended(&self, name: &str, plugin: &Connected) {
        self.change(name, plugin, |resource| {
            resource.plugin = None;
            resource.ended_at = Some(rt::instant());
            resource.devices.values_mut().for_each(|healthy| *healthy = false);
        });
    }

    /// Changes a resource, unless another plugin has it by now.
    fn change(&self, name: &str, plugin: &Connected, change: impl FnOnce(&mut Resource)) {
        let mut resources = self.resources.lock();
        if let Some(resource) = resources.get_mut(name)
            && !plugin.replaced.is_cancelled()
        {
            change(resource);
        }
    }

    /// For the node's capacity and what of it can be given.
    pub fn counts(&self) -> Vec<Count> {
        let mut resources = self.resources.lock();
        for resource in resources.values_mut() {
            if resource.ended_at.is_some_and(|at| at.elapsed() > GRACE) {
                resource.devices.clear();
            }
        }
        let count = |(name, own): (&String, &Resource)| {
            (name.clone(), own.devices.len(), own.devices.values().filter(|healthy| **healthy).count())
        };
        resources.iter().map(count).collect()
    }

    /// Whether all containers of a pod get their devices; they have them then.
    ///
    /// # Errors
    /// The message of a refusal with reason [`REFUSED`].
    pub async fn admit(&self, pod: &Pod) -> Result<(), String> {
        let Some(spec) = &pod.spec else { return Ok(()) };
        for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
            self.allocate(pod, container).await?;
        }
        Ok(())
    }

    /// Gives a container the devices that it asks for, or finds those that it has.
    ///
    /// # Errors
    /// Upstream's message of why there are none.
    pub async fn allocate(&self, pod: &Pod, container: &Container) -> Result<Given, String> {
        let failed = |why: String| format!("Allocate failed due to {why}, which is unexpected");
        for (resource, wanted) in limits(container) {
            let lock = self.resources.lock().get(&resource).map(|own| own.allocating.clone());
            // Resources of nobody's plugin are not ours to give.
            let Some(lock) = lock else { continue };
            let _one = lock.lock().await;
            if self.ledger.lock().of_container(uid(pod), &container.name).contains_key(&resource) {
                continue;
            }
            self.allocate_one(pod, container, &resource, wanted).await.map_err(failed)?;
        }
        Ok(Given(self.ledger.lock().of_container(uid(pod), &container.name)))
    }

    async fn allocate_one(
        &self,
        pod: &Pod,
        container: &Container,
        resource: &str,
        wanted: usize,
    ) -> Result<(), String> {
        let (plugin, healthy) = {
            let resources = self.resources.lock();
            let own = resources.get(resource);
            let healthy = own.into_iter().flat_map(|own| &own.devices).filter(|(_, healthy)| **healthy);
            (own.and_then(|own| own.plugin.clone()), healthy.map(|(id, _)| id.clone()).collect::<Vec<_>>())
        };
        let candidates = self.ledger.lock().candidates(uid(pod), resource, healthy.iter());
        let preferred = match &plugin {
            Some(plugin) if plugin.options.preferred_allocation_available => {
                prefer(plugin, &candidates, wanted).await?
            }
            _ => Vec::new(),
        };
        let ids = choose(resource, candidates, wanted, &preferred)?;
        let plugin = plugin.ok_or_else(|| format!("no plugin of {resource} is registered"))?;
        let request = DevicesOfContainers { containers: vec![DeviceIds { ids: ids.clone() }] };
        let options = Options::timeout(CALL_TIMEOUT);
        let answer: AllocateResponse = plugin
            .client
            .unary(messages::ALLOCATE, &request, options)
            .await
            .map_err(|own| own.to_string())?;
        let allocated = answer.containers.into_iter().next();
        let allocated =
            allocated.ok_or_else(|| format!("no containers return in allocation response for {resource}"))?;
        let grant = Grant { devices: ids, allocated, passes_on: passes_on(pod, container) };
        let mut ledger = self.ledger.lock();
        ledger.grant(uid(pod), &container.name, resource, grant);
        ledger
            .write(&self.folder.join(LEDGER))
            .map_err(|error| format!("failed to write checkpoint file: {error}"))
    }

    /// Tells plugins that want to know that a container is about to start.
    ///
    /// # Errors
    /// Where a plugin does not want it to.
    pub async fn pre_start(&self, given: &Given) -> Result<(), String> {
        for (resource, grant) in &given.0 {
            let plugin = self.resources.lock().get(resource).and_then(|own| own.plugin.clone());
            let Some(plugin) = plugin.filter(|own| own.options.pre_start_required) else { continue };
            let request = DeviceIds { ids: grant.devices.clone() };
            let options = Options::timeout(CALL_TIMEOUT);
            let answer = plugin.client.unary::<_, Nothing>(messages::PRE_START, &request, options).await;
            answer
                .map_err(|status| format!("device plugin PreStartContainer rpc failed with err: {status}"))?;
        }
        Ok(())
    }

    /// The pod's containers have ended for good.
    pub fn release(&self, uid: &str) {
        let mut ledger = self.ledger.lock();
        if ledger.release(uid)
            && let Err(error) = ledger.write(&self.folder.join(LEDGER))
        {
            // It is released again when the node starts and the pod is gone.
            warn!(uid, %error, "A pod's devices are still written down");
        }
    }
}

/// What a container has of devices.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Given(BTreeMap<String, Grant>);

impl Given {
    /// Puts it into a container's configuration. Variables of the container itself come after, and win.
    pub fn apply(&self, config: &mut ContainerConfig) {
        let mut env = Vec::new();
        for Grant { allocated, .. } in self.0.values() {
            env.extend(allocated.envs.iter().map(|(name, value)| (name.clone(), value.clone())));
            config.mounts.extend(allocated.mounts.iter().map(|own| Mount {
                source: own.host_path.as_str().into(),
                target: own.container_path.as_str().into(),
                read_only: own.read_only,
                ..Mount::default()
            }));
            config.devices.extend(allocated.devices.iter().map(|own| Device {
                host: own.host_path.as_str().into(),
                container: own.container_path.as_str().into(),
                permissions: own.permissions.clone(),
            }));
            config.annotations.extend(allocated.annotations.clone());
            let names = allocated.cdi_devices.iter().map(|own| own.name.clone());
            config.cdi_devices.extend(names);
        }
        env.sort();
        config.env.splice(0..0, env);
        config.cdi_devices.sort();
        config.cdi_devices.dedup();
    }
}

async fn prefer(
    plugin: &Connected,
    (left, free): &(Vec<String>, Vec<String>),
    wanted: usize,
) -> Result<Vec<String>, String> {
    let of_container = PreferredOfContainer {
        available: left.iter().chain(free).cloned().collect(),
        must_include: left.iter().take(wanted).cloned().collect(),
        size: i32::try_from(wanted).unwrap_or(i32::MAX),
    };
    let request = PreferredRequest { containers: vec![of_container] };
    let options = Options::timeout(CALL_TIMEOUT);
    let answer =
        plugin.client.unary::<_, DevicesOfContainers>(messages::GET_PREFERRED, &request, options).await;
    let answer = answer
        .map_err(|status| format!("device plugin GetPreferredAllocation rpc failed with err: {status}"))?;
    Ok(answer.containers.into_iter().next().unwrap_or_default().ids)
}

fn check(request: &RegisterRequest) -> Result<(), String> {
    let RegisterRequest { version, endpoint, resource_name } = request;
    if version != messages::VERSION {
        return Err(format!(
            "failed to register device plugin: requested API version {version:?} is not supported by kubelet. \
             Supported version is [{:?}]",
            messages::VERSION
        ));
    }
    let is_extended = resource_name.split_once('/').is_some_and(|(domain, name)| {
        !domain.is_empty() && !domain.ends_with("kubernetes.io") && is_one_name(name)
    });
    if !is_extended {
        return Err(format!(
            "failed to register device plugin: the ResourceName {resource_name:?} is invalid"
        ));
    }
    if !is_one_name(endpoint) {
        return Err(format!("failed to register device plugin: {endpoint:?} is no name of a socket"));
    }
    Ok(())
}

/// Extended resources that a container asks for; their limits are their requests.
fn limits(container: &Container) -> Vec<(String, usize)> {
    let limits = container.resources.iter().flat_map(|own| own.limits.iter().flatten());
    let extended = limits.filter(|(name, _)| name.contains('/'));
    extended
        .filter_map(|(name, amount)| Some((name.clone(), amount.0.parse().ok()?)))
        .filter(|(_, wanted)| *wanted > 0)
        .collect()
}

/// Init containers that end leave their devices to those after them.
fn passes_on(pod: &Pod, container: &Container) -> bool {
    let mut init = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    init.any(|own| own.name == container.name && own.restart_policy.as_deref() != Some("Always"))
}
