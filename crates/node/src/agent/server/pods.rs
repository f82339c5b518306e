//! What the server knows of pods.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

/// The pods of this node, as whoever runs them sees them.
pub trait Pods: Send + Sync + 'static {
    fn pod(&self, namespace: &str, name: &str) -> Option<PodView>;

    fn pods(&self) -> Vec<PodView>;
}

/// A pod and what runs of it.
#[derive(Clone, Debug, Default)]
pub struct PodView {
    /// Its status is the newest one that the agent has, whether or not it was written yet.
    pub pod: Arc<Pod>,
    /// The sandbox that is ready.
    pub sandbox: Option<String>,
    /// The runtime's ID of the newest container of each name.
    pub containers: BTreeMap<String, String>,
}

/// A container as its pod declares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Declared {
    pub tty: bool,
}

impl PodView {
    pub(super) fn name(&self) -> &str {
        self.pod.metadata.name.as_deref().unwrap_or_default()
    }

    pub(super) fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    pub(super) fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    /// `<name>_<namespace>`, as upstream names pods in messages.
    pub(super) fn full_name(&self) -> String {
        format!("{}_{}", self.name(), self.namespace())
    }

    /// A container of any sort.
    pub(super) fn declared(&self, name: &str) -> Option<Declared> {
        let spec = self.pod.spec.as_ref()?;
        let ordinary = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let mut found = ordinary.filter(|container| container.name == name).map(|container| container.tty);
        let mut ephemeral = spec.ephemeral_containers.iter().flatten();
        let tty = found
            .next()
            .or_else(|| ephemeral.find(|container| container.name == name).map(|container| container.tty))?;
        Some(Declared { tty: tty.unwrap_or(false) })
    }

    pub(super) fn container_status(&self, name: &str) -> Option<&ContainerStatus> {
        let status = self.pod.status.as_ref()?;
        let lists = [
            &status.container_statuses,
            &status.init_container_statuses,
            &status.ephemeral_container_statuses,
        ];
        lists.into_iter().flatten().flatten().find(|status| status.name == name)
    }
}
