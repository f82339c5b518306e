//! What a new pod of a Job looks like. Pure.

use api::view::Job;
use apimachinery::{Object, Value, json};

use super::TRACKING_FINALIZER;
use super::indexes::{COMPLETION_INDEX, FAILURE_COUNT, IGNORED_FAILURE_COUNT, failures_before};
use super::policies::{self, Failure};
use crate::pods::{self, PodOf};

const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";

/// The longest prefix to which the server adds a suffix without cutting it.
const GENERATE_NAME_MAX: usize = 58;

/// Makes the pods of one Job.
pub(super) struct Mold<'a> {
    object: &'a Object,
    job: &'a Job,
    pod: Value,
}

impl<'a> Mold<'a> {
    pub(super) fn of(object: &'a Object, job: &'a Job) -> Self {
        let mut pod = pods::from_template(&job.spec.template.to_value(), object);
        track(&mut pod);
        if job.is_indexed() {
            for field in ["initContainers", "containers"] {
                let containers = pod.at_mut(&["spec", field]).and_then(Value::as_array_mut);
                containers.into_iter().flatten().for_each(tell_index);
            }
        }
        Self { object, job, pod }
    }

    pub(super) fn pod(&self) -> Value {
        self.pod.clone()
    }

    /// The pod of an index; `replaced` is the failed pod that it stands in for.
    pub(super) fn pod_of_index(&self, index: u32, replaced: Option<&PodOf>) -> Value {
        let mut pod = self.pod();
        let text = index.to_string();
        pod.set_at(&["metadata", "annotations", COMPLETION_INDEX], text.as_str());
        pod.set_at(&["metadata", "labels", COMPLETION_INDEX], text);
        pod.set_at(&["spec", "hostname"], format!("{}-{index}", self.object.name()));
        pod.set_at(&["metadata", "generateName"], name_prefix(self.object.name(), index));
        if self.job.spec.backoff_limit_per_index.is_some() {
            let (counted, ignored) = replaced.map(|own| self.failures_with(own)).unwrap_or_default();
            pod.set_at(&["metadata", "annotations", FAILURE_COUNT], counted.to_string());
            if ignored > 0 {
                pod.set_at(&["metadata", "annotations", IGNORED_FAILURE_COUNT], ignored.to_string());
            }
        }
        pod
    }

    /// The failures of an index up to and with those of this pod.
    fn failures_with(&self, failed: &PodOf) -> (i32, i32) {
        let (counted, ignored) = failures_before(&failed.pod);
        match policies::failure(self.job, &failed.pod) {
            Failure::Ignore => (counted, ignored.saturating_add(1)),
            _ => (counted.saturating_add(1), ignored),
        }
    }
}

/// Adds the finalizer that keeps the pod until it is counted.
fn track(pod: &mut Value) {
    let mut finalizers = pod.array_at(&["metadata", "finalizers"]).to_vec();
    if !finalizers.iter().any(|own| own.as_str() == Some(TRACKING_FINALIZER)) {
        finalizers.push(TRACKING_FINALIZER.into());
    }
    pod.set_at(&["metadata", "finalizers"], finalizers);
}

/// Gives a container the variable that tells its index, unless it has one of that name.
fn tell_index(container: &mut Value) {
    let mut variables = container.array_at(&["env"]).to_vec();
    if variables.iter().any(|own| own.str_at(&["name"]) == INDEX_VARIABLE) {
        return;
    }
    variables.push(json!({"name": INDEX_VARIABLE, "valueFrom": {"fieldRef": {
        "fieldPath": format!("metadata.labels['{COMPLETION_INDEX}']"),
    }}}));
    container.set_at(&["env"], variables);
}

/// The Job's name is cut before the index is.
fn name_prefix(job: &str, index: u32) -> String {
    let end = format!("-{index}-");
    let room = GENERATE_NAME_MAX - end.len();
    format!("{}{end}", &job[..job.len().min(room)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_pods_leave_room_for_the_suffix() {
        assert_eq!(name_prefix("render", 7), "render-7-");
        let long = "j".repeat(60);
        assert_eq!(name_prefix(&long, 12), format!("{}-12-", "j".repeat(54)));
    }
}
