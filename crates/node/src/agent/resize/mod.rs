//! Resizing a pod while it runs (KEP-1287): what of each pod's resources the node has granted, and what its containers
//! have been given.
//!
//! Owns: three states of the same amounts. *Desired* is what the API's pod says; *allocated* is what the node has
//! granted of it ([`record`], kept on disk), and the pod is worked on as if it said nothing else; *given* is what its
//! containers and cgroups were told last. [`decision`] (pure) says whether what is desired may be granted, [`actuation`]
//! (pure) what is to be done where given and allocated differ, [`message`] what is said of it. Never touches:
//! containers; the pod's own task does what is to be done (`pod/resizing.rs`).
//!
//! Start at [`Node::consider_resize`].

pub mod actuation;
pub mod decision;
pub mod message;
pub mod record;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use tracing::warn;

use super::pod::worker::Worker;
use super::{Node, config, registration};
use decision::{Reason, Urgency};

pub const PENDING: &str = "PodResizePending";
pub const IN_PROGRESS: &str = "PodResizeInProgress";

/// The reason of a resize that was granted and does not get on.
pub const ERROR: &str = "Error";

/// A resize that waits for room is looked at again after this, also if nobody says that there is any.
pub const RETRY: Duration = Duration::from_secs(3 * 60);

/// How far a pod's resize has come, for its conditions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Course {
    /// Not granted.
    pub pending: Option<Pending>,
    /// Granted, and not all done.
    pub progress: Option<Progress>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    pub reason: Reason,
    pub message: String,
    /// Of the pod that asked.
    pub generation: i64,
    pub since: Timestamp,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// What keeps it from getting on.
    pub error: Option<String>,
    pub generation: i64,
}

impl Course {
    /// As the pod's conditions tell it: a node that comes back goes on from there.
    pub fn of(pod: &Pod) -> Self {
        let conditions =
            pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let find = |kind: &str| conditions.iter().find(|own| own.type_ == kind && own.status == "True");
        let generation = |own: &PodCondition| own.observed_generation.unwrap_or_default();
        let text = |own: &PodCondition| own.message.clone().unwrap_or_default();
        Self {
            pending: find(PENDING).and_then(|own| {
                Some(Pending {
                    reason: Reason::parse(own.reason.as_deref()?)?,
                    message: text(own),
                    generation: generation(own),
                    since: own.last_transition_time.as_ref().map_or_else(rt::now, |at| at.0),
                })
            }),
            progress: find(IN_PROGRESS).map(|own| Progress {
                error: (own.reason.as_deref() == Some(ERROR)).then(|| text(own)),
                generation: generation(own),
            }),
        }
    }
}

fn generation(pod: &Pod) -> i64 {
    pod.metadata.generation.unwrap_or_default()
}

impl Node {
    /// Looks at a pod that changed, before its own task does: what it asks for now may be more, or less, than before.
    pub(super) fn consider_resize(&self, worker: &Arc<Worker>, pod: &Arc<Pod>) {
        if self.resources.differs(pod) {
            self.grant_resizes(Some((worker, pod)));
        } else {
            // Whoever takes a wish back waits no longer.
            worker.course.lock().pending = None;
        }
    }

    /// Looks at every resize that waits, in their order, and grants those for which there is room.
    pub(super) fn grant_resizes(&self, changed: Option<(&Arc<Worker>, &Arc<Pod>)>) {
        let mut waiting = Vec::new();
        for worker in self.pods.all() {
            let is_changed = changed.is_some_and(|(own, _)| Arc::ptr_eq(own, &worker));
            let pod = if is_changed { changed.expect("just seen").1.clone() } else { worker.pod() };
            if pod.metadata.deletion_timestamp.is_some()
                || !worker.is_active()
                || !self.resources.differs(&pod)
            {
                continue;
            }
            let pending = worker.course.lock().pending.clone();
            let is_hopeless = pending
                .as_ref()
                .is_some_and(|own| own.reason == Reason::Infeasible && own.generation == generation(&pod));
            if !is_hopeless {
                let granted = self.resources.apply(&pod);
                let since = pending.map(|own| own.since);
                waiting.push((Urgency::of(&pod, &granted, since), worker, pod));
            }
        }
        if waiting.is_empty() {
            return;
        }
        waiting.sort_by(|a, b| a.0.cmp(&b.0));
        let allocatable = registration::allocatable(self);
        for (_, worker, pod) in waiting {
            let others: Vec<Arc<Pod>> = self.granted_pods(&worker.uid);
            let others: Vec<&Pod> = others.iter().map(|own| &**own).collect();
            match decision::decide(&pod, &allocatable, &others) {
                Ok(()) => self.grant_resize(&worker, &pod),
                Err(refusal) => self.put_off_resize(&worker, &pod, refusal),
            }
        }
    }

    /// Pods that count, but for one, with what they were granted and have.
    pub(super) fn granted_pods(&self, but: &str) -> Vec<Arc<Pod>> {
        let workers = self.pods.all();
        let others = workers.iter().filter(|own| own.uid != but && own.is_active());
        others.map(|own| self.resources.count(&own.pod())).collect()
    }

    fn grant_resize(&self, worker: &Worker, pod: &Pod) {
        if let Err(error) = self.resources.allocate(pod) {
            warn!(pod = %config::pod_name(pod), %error, "A resize is not granted, since it could not be written down");
            return;
        }
        let progress = Some(Progress { error: None, generation: generation(pod) });
        *worker.course.lock() = Course { pending: None, progress };
        let said = message::of("Pod resize started", pod, generation(pod), "");
        self.reporter.pod(pod).normal("ResizeStarted", said);
        worker.wake();
    }

    fn put_off_resize(&self, worker: &Worker, pod: &Pod, refusal: decision::Refusal) {
        let decision::Refusal { reason, message } = refusal;
        let generation = generation(pod);
        {
            let mut course = worker.course.lock();
            let old = course.pending.as_ref();
            let is_old = old.is_some_and(|old| {
                (old.reason, &old.message, old.generation) == (reason, &message, generation)
            });
            if is_old {
                return;
            }
            let since = old.map_or_else(rt::now, |old| old.since);
            course.pending = Some(Pending { reason, message: message.clone(), generation, since });
        }
        let said = message::of(&format!("Pod resize {}", reason.as_str()), pod, generation, &message);
        self.reporter.pod(pod).warning(reason.event(), said);
        worker.wake();
    }
}
