//! What controllers ask about pods.

use std::sync::Arc;
use std::time::Duration;

use api::gvr::PODS;
use api::view::Pod;
use apimachinery::{Object, Status, Str, Value, json, time};
use client::typed::view;
use client::{Api, DeleteOptions, Informer, Patch, WriteOptions};
use controller_runtime::Action;
use jiff::Timestamp;

use crate::ownership;

/// Index of pods by the name of their node.
pub const BY_NODE: &str = "node";

/// Declares [`BY_NODE`].
pub fn index_by_node(pods: &Informer) {
    pods.add_index(BY_NODE, |object| match object.view::<Pod>() {
        Ok(pod) if !pod.spec.node_name.is_empty() => vec![pod.spec.node_name.clone()],
        _ => Vec::new(),
    });
}

/// A pod with the object it was read from.
#[derive(Clone)]
pub struct PodOf {
    pub object: Arc<Object>,
    pub pod: Arc<Pod>,
}

impl PodOf {
    pub fn read(object: Arc<Object>) -> Result<Self, Status> {
        Ok(Self { pod: view::<Pod>(&object)?, object })
    }
}

/// Deletes a pod for a taint, after its condition `DisruptionTarget` says why. One that is gone meanwhile, or another of
/// its name, is no error.
pub async fn evict_tainted(api: &dyn Api, pod: &Object, reason: &str, message: &str) -> Result<(), Status> {
    let condition = json!({"metadata": {"uid": pod.uid()}, "status": {"conditions": [{
        "type": "DisruptionTarget", "status": "True", "reason": reason, "message": message,
        "lastTransitionTime": time::format_seconds(rt::now()),
    }]}});
    let (namespace, name) = (pod.namespace(), pod.name());
    let (patch, options) = (Patch::Strategic(condition), WriteOptions::default());
    let marked = api.patch(&PODS, namespace, name, Some("status"), patch, &options).await;
    let result = match marked {
        Ok(_) => api.delete(&PODS, namespace, name, &DeleteOptions::of(pod)).await,
        Err(status) => Err(status),
    };
    match result {
        Err(status) if status.is_not_found() || status.is_conflict() => Ok(()),
        result => result,
    }
}

/// Upstream's limit on pod names.
const POD_NAME_MAX: usize = 253;

/// The tree of a pod that `parent` makes of a template.
pub fn from_template(template: &Value, parent: &Object) -> Value {
    let mut pod = Value::object();
    pod.set_at(&["apiVersion"], "v1");
    pod.set_at(&["kind"], "Pod");
    for field in ["labels", "annotations", "finalizers"] {
        if let Some(value) = template.at(&["metadata", field]) {
            pod.set_at(&["metadata", field], value.clone());
        }
    }
    pod.set_at(&["metadata", "generateName"], name_prefix(parent.name()));
    pod.set_at(&["metadata", "ownerReferences"], vec![ownership::controller_reference(parent)]);
    pod.set_at(&["spec"], template["spec"].clone());
    pod
}

/// The dash is left out where it would make the prefix too long to be a name.
fn name_prefix(name: &str) -> String {
    if name.len() < POD_NAME_MAX { format!("{name}-") } else { name.to_owned() }
}

/// Counts as a replica: not done and not on its way out.
pub fn is_active(pod: &Pod) -> bool {
    !pod.is_terminal() && !pod.is_deleting()
}

/// On its way out, but its containers may still run.
pub fn is_terminating(pod: &Pod) -> bool {
    !pod.is_terminal() && pod.is_deleting()
}

/// When the pod became ready; `None` while it is not.
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = pod.condition("Ready").filter(|ready| ready.is_true())?;
    timestamp(ready.last_transition_time.as_ref())
}

/// Ready for at least `min_ready_seconds`.
pub fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    pod.is_ready()
        && (min_ready_seconds == 0 || until_available(pod, min_ready_seconds, now) == Some(Duration::ZERO))
}

/// How long a ready pod still has to stay ready to be available; zero when it is, `None` when it is not ready.
pub fn until_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Option<Duration> {
    let since = ready_since(pod)?;
    let wanted = Duration::from_secs(min_ready_seconds.max(0).unsigned_abs().into());
    let passed = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    Some(wanted.saturating_sub(passed))
}

/// When to look again: at the next moment at which a ready pod becomes available.
pub fn next_availability<'a>(
    pods: impl Iterator<Item = &'a Pod>,
    min_ready_seconds: i32,
    now: Timestamp,
) -> Action {
    if min_ready_seconds == 0 {
        return Action::await_change();
    }
    let waits = pods.filter_map(|pod| until_available(pod, min_ready_seconds, now));
    waits.filter(|wait| !wait.is_zero()).min().map_or(Action::await_change(), |wait| {
        // Times are kept in whole seconds; a look a little late finds the pod available.
        Action::requeue(wait + Duration::from_millis(100))
    })
}

/// Pods that have come less far are missed less.
pub fn phase_rank(pod: &Pod) -> u8 {
    match pod.status.phase.as_str() {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    }
}

/// The restarts of the container that was restarted most, and those of the sidecar that was.
pub fn max_restarts(pod: &Pod) -> (i32, i32) {
    let is_sidecar = |name: &Str| {
        pod.spec.init_containers.iter().any(|container| container.name == *name && container.is_sidecar())
    };
    let containers = pod.status.container_statuses.iter().map(|status| status.restart_count);
    let sidecars = pod.status.init_container_statuses.iter().filter(|status| is_sidecar(&status.name));
    let sidecars = sidecars.map(|status| status.restart_count);
    (containers.max().unwrap_or_default(), sidecars.max().unwrap_or_default())
}

pub fn timestamp(text: Option<&Str>) -> Option<Timestamp> {
    text.and_then(|text| time::parse(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_available_after_its_minimum_ready_time() {
        let pod: Pod = serde_json::from_str(
            r#"{"status":{"conditions":[{"type":"Ready","status":"True","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}"#,
        )
        .unwrap();
        let at = |text: &str| time::parse(text).unwrap();
        assert!(is_available(&pod, 0, at("2026-01-01T00:00:00Z")));
        assert!(!is_available(&pod, 10, at("2026-01-01T00:00:09Z")));
        assert!(is_available(&pod, 10, at("2026-01-01T00:00:10Z")));
        assert_eq!(until_available(&pod, 10, at("2026-01-01T00:00:04Z")), Some(Duration::from_secs(6)));
        assert!(!is_available(&Pod::default(), 0, at("2026-01-01T00:00:10Z")));
    }
}
