//! How a pod's status gets into the API, and how what comes back from there is told apart from news.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::gvr::PODS;
use apimachinery::{Status, Value};
use client::{Patch, WriteOptions};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tracing::warn;

use super::observed::Observed;
use super::status::{self, Ended, Facts, Phase, Waiting};
use super::worker::{Worker, decode, names};

/// Own writes that may not have come back from the API yet.
const REPORTED_MAX: usize = 16;

/// Tries to write a status against others who write the pod.
const CONFLICT_TRIES: usize = 8;

impl Worker {
    /// Whether all that changed is what this worker itself wrote. The end of a pod is news all the same.
    pub(super) fn is_echo(&self, before: &Pod, after: &Pod) -> bool {
        let is_own = after.status.as_ref().is_some_and(|status| self.reported.lock().contains(status));
        let has_ended = |pod: &Pod| {
            pod.status
                .as_ref()
                .is_some_and(|own| matches!(own.phase.as_deref(), Some("Succeeded" | "Failed")))
        };
        // A deadline counts from a start that the API has to have first.
        let awaits_start = |pod: &Pod| {
            let has_deadline = pod.spec.as_ref().is_some_and(|spec| spec.active_deadline_seconds.is_some());
            has_deadline && pod.status.as_ref().is_none_or(|own| own.start_time.is_none())
        };
        let (old, new) = (&before.metadata, &after.metadata);
        is_own
            && awaits_start(before) == awaits_start(after)
            && has_ended(before) == has_ended(after)
            && before.spec == after.spec
            && old.deletion_timestamp == new.deletion_timestamp
            && old.labels == new.labels
            && old.annotations == new.annotations
    }

    /// Writes the status if it says anything new. Returns the phase it tells, or `None` if it could not be written.
    pub(super) async fn report(
        &self,
        pod: &Pod,
        observed: &Observed,
        waiting: &BTreeMap<String, Waiting>,
        ended: Option<&Ended>,
        is_over: bool,
    ) -> Option<Phase> {
        let course = self.course.lock().clone();
        let told_of = |pod: &Pod| {
            status::status(&Facts {
                pod,
                course: &course,
                observed,
                probes: self.node.probes.results(),
                waiting,
                host_addresses: self.node.addresses(),
                is_over,
                ended,
                runtime_name: &self.node.runtime_name,
                now: rt::now(),
            })
        };
        if self.is_static {
            let latest = Pod { status: self.pod().status.clone(), ..pod.clone() };
            return self.keep_status(told_of(&latest));
        }
        let (namespace, name) = names(pod);
        let mut latest = pod.clone();
        for _ in 0..CONFLICT_TRIES {
            let new = told_of(&latest);
            let phase = phase_of(&new);
            if latest.status.as_ref() == Some(&new) || self.said.lock().as_ref() == Some(&new) {
                return phase;
            }
            let patch = status_patch(&latest, &new);
            let options = WriteOptions::default();
            self.remember(new.clone());
            match self
                .node
                .api
                .patch(&PODS, namespace, name, Some("status"), Patch::Merge(patch), &options)
                .await
            {
                Ok(_) => {
                    *self.said.lock() = Some(new);
                    return phase;
                }
                Err(status) if status.is_not_found() => return phase,
                Err(status) if status.is_conflict() => {
                    match self.node.api.get(&PODS, namespace, name).await {
                        Ok(object) if object.uid() == self.uid => match decode(&object) {
                            Ok(fresh) => latest = (*self.node.resources.apply(&Arc::new(fresh))).clone(),
                            Err(error) => return self.unreported(pod, &Status::internal(error)),
                        },
                        // Another of the name, or none: this one's status interests nobody.
                        Ok(_) => return phase,
                        Err(status) if status.is_not_found() => return phase,
                        Err(status) => return self.unreported(pod, &status),
                    }
                }
                Err(status) => return self.unreported(pod, &status),
            }
        }
        None
    }

    /// A static pod has its status here; who keeps its mirror tells the API.
    fn keep_status(&self, new: PodStatus) -> Option<Phase> {
        let phase = phase_of(&new);
        let mut target = self.target.lock();
        if target.pod.status.as_ref() != Some(&new) {
            let before = target.pod.status.as_ref().and_then(phase_of);
            target.pod = Arc::new(Pod { status: Some(new), ..(*target.pod).clone() });
            self.node.mirrors.notify_one();
            if before != phase && phase.is_some_and(Phase::is_terminal) {
                // No API brings it back with its end.
                self.wake();
            }
        }
        phase
    }

    fn remember(&self, status: PodStatus) {
        let mut reported = self.reported.lock();
        if reported.contains(&status) {
            return;
        }
        if reported.len() == REPORTED_MAX {
            reported.pop_front();
        }
        reported.push_back(status);
    }

    fn unreported(&self, pod: &Pod, status: &Status) -> Option<Phase> {
        let (namespace, name) = names(pod);
        warn!(namespace, name, error = %status, "A pod's status was not written");
        None
    }
}

fn phase_of(status: &PodStatus) -> Option<Phase> {
    Some(match status.phase.as_deref()? {
        "Succeeded" => Phase::Succeeded,
        "Failed" => Phase::Failed,
        "Running" => Phase::Running,
        _ => Phase::Pending,
    })
}

/// The merge patch that makes `pod`'s status the new one, if nobody wrote the pod meanwhile.
pub(in crate::agent) fn status_patch(pod: &Pod, new: &PodStatus) -> Value {
    let tree = |status: &PodStatus| {
        let json = serde_json::to_value(status).expect("a status is plain data");
        Value::from(json)
    };
    let mut status = tree(new);
    if let Some(old) = pod.status.as_ref().map(tree) {
        let fields = status.ensure_object();
        for key in old.as_object().into_iter().flat_map(|old| old.keys()) {
            if fields.get(key).is_none() {
                fields.insert(key.clone(), Value::Null);
            }
        }
    }
    let mut patch = Value::object();
    patch.set_at(&["metadata", "uid"], pod.metadata.uid.as_deref().unwrap_or_default());
    patch.set_at(
        &["metadata", "resourceVersion"],
        pod.metadata.resource_version.as_deref().unwrap_or_default(),
    );
    patch.set_at(&["status"], status);
    patch
}
