//! What the probes found, and who wants to hear of it.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::broadcast;

use super::Kind;

/// Changes that a listener may be behind. Who is further behind looks at everything again.
const CHANGES_MAX: usize = 1024;

/// A probe has another result than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub pod_uid: String,
    pub container: String,
    pub container_id: String,
    pub kind: Kind,
    /// `None` for a startup probe that begins.
    pub passed: Option<bool>,
}

/// The results of all probed containers, by container ID.
#[derive(Clone, Debug)]
pub struct Results {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    by_container: RwLock<HashMap<String, HashMap<Kind, Option<bool>>>>,
    changes: broadcast::Sender<Change>,
}

impl Default for Results {
    fn default() -> Results {
        let shared = Shared { by_container: RwLock::default(), changes: broadcast::Sender::new(CHANGES_MAX) };
        Results { shared: Arc::new(shared) }
    }
}

impl Results {
    /// What is known now. `None` where there is no such probe, and of a startup probe before its first result.
    pub fn get(&self, container_id: &str, kind: Kind) -> Option<bool> {
        *self.shared.by_container.read().get(container_id)?.get(&kind)?
    }

    /// Whether a running container counts as started (`status.started`): it has no startup probe, or that passed.
    pub fn started(&self, container_id: &str, container: &k8s_openapi::api::core::v1::Container) -> bool {
        container.startup_probe.is_none() || self.get(container_id, Kind::Startup) == Some(true)
    }

    /// Whether a running container is ready: it is started, and has no readiness probe or that passed.
    pub fn ready(&self, container_id: &str, container: &k8s_openapi::api::core::v1::Container) -> bool {
        self.started(container_id, container)
            && (container.readiness_probe.is_none() || self.get(container_id, Kind::Readiness) == Some(true))
    }

    /// Every change from now on.
    pub fn changed(&self) -> broadcast::Receiver<Change> {
        self.shared.changes.subscribe()
    }

    /// A container's probe begins.
    pub(super) fn begin(&self, change: Change) {
        self.shared
            .by_container
            .write()
            .entry(change.container_id.clone())
            .or_default()
            .insert(change.kind, change.passed);
        let _nobody_listens = self.shared.changes.send(change);
    }

    /// A result. One of a container that was removed meanwhile is forgotten.
    pub(super) fn set(&self, change: Change) {
        let former = match self.shared.by_container.write().get_mut(&change.container_id) {
            Some(kinds) => kinds.insert(change.kind, change.passed),
            None => return,
        };
        if former != Some(change.passed) {
            let _nobody_listens = self.shared.changes.send(change);
        }
    }

    pub(super) fn remove(&self, container_id: &str) {
        self.shared.by_container.write().remove(container_id);
    }
}

impl crate::agent::pod::plan::ProbeResults for Results {
    fn started(&self, container_id: &str) -> Option<bool> {
        self.get(container_id, Kind::Startup)
    }

    fn alive(&self, container_id: &str) -> Option<bool> {
        self.get(container_id, Kind::Liveness)
    }
}

impl crate::agent::pod::status::Readiness for Results {
    fn ready(&self, container_id: &str) -> Option<bool> {
        self.get(container_id, Kind::Readiness)
    }
}
