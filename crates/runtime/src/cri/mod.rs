//! The client of a runtime behind a CRI socket: containerd, CRI-O.
//!
//! Owns: CRI `runtime.v1` as a client, and the runtime's streams for exec, attach and port-forward. Never touches:
//! what the runtime does with it; namespaces, cgroups, images and the pods' network are all its own, the network by
//! CNI plugins of its configuration.
//!
//! Start at [`CriRuntime::connect`]; the calls are in [`contract`]. Words are translated in [`to_wire`] and [`from_wire`]; nothing is decided here but
//! which call follows which.

mod cgroup;
mod contract;
mod events;
mod from_wire;
mod messages;
mod signal;
mod streaming;
mod to_wire;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use camino::Utf8PathBuf;
use grpc::{Client, Code, Options, Status};
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::broadcast;

pub use cgroup::CgroupDriver;

use crate::spec::SandboxConfig;
use crate::{Abilities, ContainerEvent, ContainerStatus, Error, Handler, ImageStatus, Result};
use messages::ImageSpec;

const RUNTIME_SERVICE: &str = "/runtime.v1.RuntimeService";
const IMAGE_SERVICE: &str = "/runtime.v1.ImageService";

/// Where runtimes listen unless they are told otherwise.
pub const SOCKETS: [&str; 3] =
    ["/run/containerd/containerd.sock", "/run/crio/crio.sock", "/run/cri-dockerd.sock"];

const LIST_TIMEOUT: Duration = Duration::from_secs(30);

/// A runtime that does not answer the first call within this time is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Events that a listener may be behind.
const EVENTS_MAX: usize = 1024;

/// A runtime and the connection to it.
pub struct CriRuntime {
    client: Client,
    /// Of the image service, which may have a socket of its own.
    images: Client,
    driver: CgroupDriver,
    events: broadcast::Sender<ContainerEvent>,
    /// What sandboxes are made from, by ID; what is not here the runtime knows.
    configs: Mutex<HashMap<String, Arc<SandboxConfig>>>,
    /// Ends the task that finds out what happens.
    _watching: tokio_util::sync::DropGuard,
}

impl std::fmt::Debug for CriRuntime {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("CriRuntime").field("client", &self.client).finish_non_exhaustive()
    }
}

/// Whether the runtime is able to work, in its own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// `RuntimeReady`, `NetworkReady`, …
    pub kind: String,
    pub status: bool,
    pub reason: String,
    pub message: String,
}

/// The runtime's state and abilities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    pub conditions: Vec<Condition>,
    pub abilities: Abilities,
}

impl Health {
    /// What keeps it from running pods, in the words of the kubelet; `None` where nothing does.
    pub fn complaint(&self) -> Option<String> {
        [
            ("RuntimeReady", "container runtime not ready"),
            ("NetworkReady", "container runtime network not ready"),
        ]
        .iter()
        .find_map(|(kind, complaint)| match self.conditions.iter().find(|own| own.kind == *kind) {
            Some(own) if own.status => None,
            Some(own) => {
                Some(format!("{complaint}: {kind}=false reason:{} message:{}", own.reason, own.message))
            }
            None => Some(format!("{complaint}: the runtime does not tell of {kind}")),
        })
    }
}

/// The socket of a runtime that runs here, at one of the usual places.
pub fn find_socket() -> Option<Utf8PathBuf> {
    use std::os::unix::fs::FileTypeExt;
    let is_socket =
        |path: &&&str| std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    SOCKETS.iter().find(is_socket).map(Utf8PathBuf::from)
}

impl CriRuntime {
    /// Connects to the runtime at `endpoint`, a path or `unix://` and a path, and begins to listen to its events until
    /// this is dropped or `shutdown`. `images` is where its image service listens, if that is elsewhere. `driver` is who makes its cgroups, where it is too old to say so itself.
    pub async fn connect(
        endpoint: &str,
        images: Option<&str>,
        driver: CgroupDriver,
        shutdown: &rt::Shutdown,
    ) -> Result<CriRuntime> {
        let path = socket_path("container runtime", endpoint)?;
        let client = Client::unix(path);
        let images = match images {
            Some(endpoint) => Client::unix(socket_path("image service", endpoint)?),
            None => client.clone(),
        };
        let stop = shutdown.child_token();
        let events = broadcast::Sender::new(EVENTS_MAX);
        let mut runtime = CriRuntime {
            client,
            images,
            driver,
            events,
            configs: Mutex::default(),
            _watching: stop.clone().drop_guard(),
        };
        let options = Options::timeout(CONNECT_TIMEOUT);
        let request = messages::VersionRequest { version: "v1".to_owned() };
        let version: std::result::Result<messages::VersionResponse, Status> =
            runtime.call(RUNTIME_SERVICE, "Version", &request, options).await;
        if let Err(status) = version {
            let message = match status.code {
                Code::Unimplemented => format!(
                    "the container runtime at {path} does not serve CRI runtime.v1: enable its CRI plugin: {status}"
                ),
                _ => format!("the container runtime at {path} does not answer: {status}"),
            };
            return Err(Error::Failed(message));
        }
        let config: std::result::Result<messages::RuntimeConfigResponse, Status> =
            runtime.call(RUNTIME_SERVICE, "RuntimeConfig", &messages::RuntimeConfigRequest {}, options).await;
        match config {
            Ok(messages::RuntimeConfigResponse { linux: Some(linux) }) => {
                runtime.driver = match linux.cgroup_driver {
                    messages::CGROUP_DRIVER_SYSTEMD => CgroupDriver::Systemd,
                    _ => CgroupDriver::Cgroupfs,
                };
            }
            Ok(_) => {}
            Err(status) if status.code == Code::Unimplemented => {}
            Err(status) => return Err(from_wire::error(status)),
        }
        let watch = events::run(runtime.client.clone(), runtime.events.clone());
        drop(rt::spawn("cri events", async move {
            tokio::select! {
                () = watch => {}
                () = stop.cancelled() => {}
            }
        }));
        Ok(runtime)
    }

    /// Who makes its cgroups.
    pub fn cgroup_driver(&self) -> CgroupDriver {
        self.driver
    }

    /// Whether it can run containers and connect pods, for the node's conditions.
    pub async fn health(&self) -> Result<Health> {
        let answer: messages::StatusResponse =
            self.runtime("Status", &messages::StatusRequest {}, LIST_TIMEOUT).await?;
        let conditions =
            answer.status.unwrap_or_default().conditions.into_iter().map(|condition| Condition {
                kind: condition.r#type,
                status: condition.status,
                reason: condition.reason,
                message: condition.message,
            });
        let handlers = answer.runtime_handlers.into_iter().map(|handler| {
            let features = handler.features.unwrap_or_default();
            Handler {
                name: handler.name,
                recursive_read_only_mounts: features.recursive_read_only_mounts,
                user_namespaces: features.user_namespaces,
            }
        });
        Ok(Health {
            conditions: conditions.collect(),
            abilities: Abilities {
                handlers: handlers.collect(),
                supplemental_groups_policy: answer.features.unwrap_or_default().supplemental_groups_policy,
            },
        })
    }

    async fn runtime<Q: Message, A: Message + Default>(
        &self,
        method: &str,
        request: &Q,
        timeout: Duration,
    ) -> Result<A> {
        self.call(RUNTIME_SERVICE, method, request, Options::timeout(timeout)).await.map_err(from_wire::error)
    }

    async fn image<Q: Message, A: Message + Default>(
        &self,
        method: &str,
        request: &Q,
        options: Options,
    ) -> Result<A> {
        let method = format!("{IMAGE_SERVICE}/{method}");
        self.images.unary(&method, request, options).await.map_err(from_wire::error)
    }

    async fn call<Q: Message, A: Message + Default>(
        &self,
        service: &str,
        method: &str,
        request: &Q,
        options: Options,
    ) -> std::result::Result<A, Status> {
        self.client.unary(&format!("{service}/{method}"), request, options).await
    }

    async fn sandbox_status(&self, sandbox: &str) -> Result<messages::PodSandboxStatus> {
        let request = messages::PodSandboxRequest { pod_sandbox_id: sandbox.to_owned() };
        let answer: messages::PodSandboxStatusResponse =
            self.runtime("PodSandboxStatus", &request, LIST_TIMEOUT).await?;
        answer
            .status
            .ok_or_else(|| Error::NotFound(format!("the runtime has no status of sandbox {sandbox}")))
    }

    /// What a sandbox was made from.
    async fn config_of(&self, sandbox: &str) -> Result<Arc<SandboxConfig>> {
        if let Some(config) = self.configs.lock().get(sandbox) {
            return Ok(config.clone());
        }
        let status = self.sandbox_status(sandbox).await?;
        let config = to_wire::stored_config(&status.annotations).map(Arc::new).ok_or_else(|| {
            Error::Failed(format!(
                "sandbox {sandbox} was made by somebody else: it has no {}",
                to_wire::CONFIG_ANNOTATION
            ))
        })?;
        self.configs.lock().insert(sandbox.to_owned(), config.clone());
        Ok(config)
    }

    async fn list_containers(&self, id: Option<&str>) -> Result<Vec<messages::Container>> {
        let filter = id.map(|id| messages::ContainerFilter { id: id.to_owned() });
        let request = messages::ListContainersRequest { filter };
        let answer: messages::ListContainersResponse =
            self.runtime("ListContainers", &request, LIST_TIMEOUT).await?;
        Ok(answer.containers)
    }

    async fn status_of(&self, container: messages::Container) -> Result<ContainerStatus> {
        let request = messages::ContainerStatusRequest {
            container_id: container.id.clone(),
            // Only of those is there more to know.
            verbose: container.state == messages::container_state::RUNNING,
        };
        let answer: messages::ContainerStatusResponse =
            self.runtime("ContainerStatus", &request, LIST_TIMEOUT).await?;
        from_wire::container_status(answer, container.pod_sandbox_id).ok_or_else(|| {
            Error::NotFound(format!("the runtime has no status of container {}", container.id))
        })
    }

    async fn find_image(&self, image: &str) -> Result<Option<ImageStatus>> {
        let request = messages::ImageRequest { image: Some(ImageSpec::of(image)) };
        let answer: Result<messages::ImageStatusResponse> =
            self.image("ImageStatus", &request, Options::timeout(LIST_TIMEOUT)).await;
        Ok(found(answer)?.and_then(|answer| answer.image).map(from_wire::image_status))
    }
}

/// The path in an endpoint.
fn socket_path<'a>(whose: &str, endpoint: &'a str) -> Result<&'a str> {
    let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
    if path.starts_with('/') {
        return Ok(path);
    }
    let message = format!("{whose} endpoint {endpoint:?} is not unix:// and an absolute path");
    Err(Error::Refused { reason: "", message })
}

/// What is not there is `None`.
fn found<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
