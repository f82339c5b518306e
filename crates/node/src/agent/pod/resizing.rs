//! How running containers get what the pod was granted since they were started.

use k8s_openapi::api::core::v1::Pod;
use runtime::Resources;
use tracing::warn;

use super::observed::{self, Observed};
use super::worker::{Memory, Next, RETRY, Worker};
use crate::agent::config;
use crate::agent::resize::actuation::{self, Update};
use crate::agent::resize::message;
use crate::agent::stats;

impl Worker {
    /// Says that a resize is done, once everything that runs has what the pod was granted.
    pub(super) fn note_resized(&self, pod: &Pod, observed: &Observed) {
        if !actuation::is_done(pod, observed) {
            return;
        }
        let progress = {
            let mut course = self.course.lock();
            // What is granted meanwhile is another resize.
            if self.node.resources.differs(pod) { None } else { course.progress.take() }
        };
        if let Some(progress) = progress {
            let said = message::of("Pod resize completed", pod, progress.generation, "");
            self.node.reporter.pod(pod).normal("ResizeCompleted", said);
            // Who needed less now may have left room for others.
            self.node.room.notify_one();
        }
    }

    /// Gives running containers, and the pod as a whole, what the pod was granted. `Next::Event` where they have it.
    pub(super) async fn resize(&self, pod: &Pod, observed: &Observed, memory: &mut Memory) -> Next {
        let Some(sandbox) = observed.sandbox() else { return Next::Event };
        let updates = actuation::updates(pod, observed, &self.node.facts);
        let (given, mut wanted) = actuation::pod_limits(pod, observed, &self.node.facts);
        if updates.is_empty() && memory.limits.as_ref() == Some(&wanted) {
            return Next::Event;
        }
        let before = memory.limits.clone().unwrap_or(given);
        let granted = wanted.clone();
        actuation::lift(&mut wanted, &before);
        match self.give(pod, &sandbox.id, &updates, (&before, &wanted)).await {
            Ok(()) => {
                memory.limits = Some(granted);
                let is_updated = |name: &String| updates.iter().any(|own| own.name == *name);
                let lasting = observed::containers(pod).iter().chain(observed::init_containers(pod));
                let lasting = lasting.filter(|container| is_updated(&container.name));
                self.node.resources.give(&self.uid, |own| {
                    own.pod = pod.spec.as_ref().and_then(|spec| spec.resources.clone());
                    own.containers.extend(lasting.map(|container| {
                        (container.name.clone(), container.resources.clone().unwrap_or_default())
                    }));
                });
                if updates.is_empty() { Next::Event } else { Next::Now }
            }
            Err(error) => {
                if self.note_failure(pod, error) {
                    self.report(pod, observed, &memory.waiting, None, false).await;
                }
                Next::After(RETRY)
            }
        }
    }

    /// Returns whether that is news.
    fn note_failure(&self, pod: &Pod, error: String) -> bool {
        let mut course = self.course.lock();
        let Some(progress) = &mut course.progress else {
            warn!(pod = %config::pod_name(pod), %error, "A pod's limits were not set");
            return false;
        };
        if progress.error.as_ref() == Some(&error) {
            return false;
        }
        let said = message::of("Pod resize error", pod, progress.generation, &error);
        self.node.reporter.pod(pod).warning("ResizeError", said);
        progress.error = Some(error);
        true
    }

    /// The pod has room for both old and new limits of its containers while they change.
    async fn give(
        &self,
        pod: &Pod,
        sandbox: &str,
        updates: &[Update],
        (before, wanted): (&Resources, &Resources),
    ) -> Result<(), String> {
        let runtime = &self.node.runtime;
        self.check_decreases(updates, before, wanted).await?;
        let limit = async |limits: &Resources| {
            let set = runtime.update_sandbox(sandbox, limits).await;
            set.map_err(|error| format!("failed to set the limits of pod {}: {error}", config::pod_name(pod)))
        };
        let between = actuation::widest(before, wanted);
        if !updates.is_empty() && between != *before {
            limit(&between).await?;
        }
        for update in updates {
            let updated = runtime.update_resources(&update.id, &update.resources).await;
            updated.map_err(|error| format!("updating container {:?}: {error}", update.name))?;
        }
        limit(wanted).await
    }

    /// Nobody is given less memory than it uses.
    async fn check_decreases(
        &self,
        updates: &[Update],
        before: &Resources,
        wanted: &Resources,
    ) -> Result<(), String> {
        let decreases = |before: i64, after: i64| after > 0 && (before <= 0 || after < before);
        let some = updates.iter().any(|own| decreases(own.memory_before, own.resources.memory_limit));
        if !some && !decreases(before.memory_limit, wanted.memory_limit) {
            return Ok(());
        }
        let measured = self.node.runtime.container_stats().await;
        let measured =
            measured.map_err(|error| format!("failed to read how much memory is used: {error}"))?;
        let used = |id: &str| measured.iter().find(|own| own.id == id).map(|own| own.memory_usage);
        let of_pod = stats::pod_memory(&self.uid);
        let complaints: Vec<String> = updates
            .iter()
            .filter_map(|own| {
                let what = format!("container {:?}", own.name);
                actuation::complaint(&what, own.memory_before, own.resources.memory_limit, used(&own.id))
            })
            .chain(actuation::complaint("pod", before.memory_limit, wanted.memory_limit, of_pod))
            .collect();
        if complaints.is_empty() { Ok(()) } else { Err(actuation::complaints(&complaints)) }
    }
}
