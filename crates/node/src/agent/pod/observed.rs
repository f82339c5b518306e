//! What the runtime has of one pod.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};
use runtime::spec::label;
use runtime::{ContainerState, ContainerStatus, SandboxState, SandboxStatus};

use crate::agent::config;
use crate::agent::resize::record::Amounts;

/// Sandboxes and containers of one pod.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The newest first.
    pub sandboxes: Vec<SandboxStatus>,
    /// Per name, the newest first.
    containers: BTreeMap<String, Vec<ContainerStatus>>,
    /// What containers were given when they were started, or resized since.
    pub given: Amounts,
}

impl Observed {
    pub fn new(mut sandboxes: Vec<SandboxStatus>, containers: Vec<ContainerStatus>) -> Self {
        sandboxes.sort_by_key(|sandbox| std::cmp::Reverse((sandbox.attempt, sandbox.created_at)));
        let mut by_name: BTreeMap<String, Vec<ContainerStatus>> = BTreeMap::new();
        for container in containers {
            let name = container.labels.get(label::CONTAINER_NAME).unwrap_or(&container.name);
            by_name.entry(name.clone()).or_default().push(container);
        }
        for incarnations in by_name.values_mut() {
            incarnations
                .sort_by_key(|container| std::cmp::Reverse((container.attempt, container.created_at)));
        }
        Self { sandboxes, containers: by_name, given: Amounts::default() }
    }

    /// The sandbox that containers may be started in.
    pub fn sandbox(&self) -> Option<&SandboxStatus> {
        self.sandboxes.first().filter(|sandbox| sandbox.state == SandboxState::Ready)
    }

    /// The newest incarnation of a container.
    pub fn latest(&self, name: &str) -> Option<&ContainerStatus> {
        self.containers.get(name)?.first()
    }

    /// As [`Observed::latest`], if it is of the present sandbox.
    pub fn present(&self, name: &str) -> Option<&ContainerStatus> {
        let sandbox = self.sandboxes.first()?;
        self.latest(name).filter(|container| container.sandbox_id == sandbox.id)
    }

    /// The incarnation before the newest, if it is still there.
    pub fn previous(&self, name: &str) -> Option<&ContainerStatus> {
        self.containers.get(name)?.get(1)
    }

    /// The newest incarnation of each container.
    pub fn newest(&self) -> impl Iterator<Item = &ContainerStatus> {
        self.containers.values().filter_map(|incarnations| incarnations.first())
    }

    /// Every container, old incarnations included.
    pub fn all(&self) -> impl Iterator<Item = &ContainerStatus> {
        self.containers.values().flatten()
    }

    pub fn running(&self) -> impl Iterator<Item = &ContainerStatus> {
        self.all().filter(|container| container.state == ContainerState::Running)
    }

    pub fn is_empty(&self) -> bool {
        self.sandboxes.is_empty() && self.containers.is_empty()
    }

    /// Incarnations that nobody asks for any more: all but the newest two of each name, which `kubectl logs
    /// --previous` reads.
    pub fn superseded(&self) -> impl Iterator<Item = &ContainerStatus> {
        self.containers.values().flat_map(|incarnations| incarnations.iter().skip(2))
    }
}

/// The containers of a pod that run one after another before the others, sidecars among them.
pub fn init_containers(pod: &Pod) -> &[Container] {
    pod.spec.as_ref().and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default()
}

pub fn containers(pod: &Pod) -> &[Container] {
    pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default()
}

/// Ephemeral containers, as the containers that they nearly are.
pub fn ephemeral_containers(pod: &Pod) -> Vec<Container> {
    let own = pod.spec.as_ref().and_then(|spec| spec.ephemeral_containers.as_deref()).unwrap_or_default();
    own.iter().map(config::as_container).collect()
}

/// The container of which an ephemeral one shares the processes.
pub fn target_of<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    let own = pod.spec.as_ref()?.ephemeral_containers.as_ref()?;
    own.iter()
        .find(|container| container.name == name)?
        .target_container_name
        .as_deref()
        .filter(|name| !name.is_empty())
}

/// A sidecar: an init container that runs as long as the pod does (KEP-753).
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}
