//! Plugins about pods and the nodes they are on: what a node has room for, what it can do, and where it stands.

use std::borrow::Cow;

use api::gvr;
use api::pod_resources::{self, Counted};
use api::validation::fields::same;
use apimachinery::field::go_quote;
use apimachinery::status::Cause;
use apimachinery::{Object, Status, Value};
use registry::Endpoint;
use registry::admission::{Attributes, Operation};

use crate::plugins::{BuildError, Environment};
use crate::{Plugin, forbidden, look_up};

/// What tells where a node is.
const TOPOLOGY: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

/// `PodTopologyLabels`: a pod carries the zone and region of its node.
pub struct PodTopologyLabels {
    nodes: Endpoint,
}

impl PodTopologyLabels {
    pub fn new(environment: &Environment<'_>) -> Result<Self, BuildError> {
        Ok(Self { nodes: environment.endpoint(&gvr::NODES)? })
    }
}

impl Plugin for PodTopologyLabels {
    /// A binding hands its labels on to the pod.
    fn mutate(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), Status> {
        if attributes.operation != Operation::Create {
            return Ok(());
        }
        let node = if attributes.is("", "pods") {
            object.str_at(&["spec", "nodeName"])
        } else if attributes.is_sub("", "pods", "binding") && object.str_at(&["target", "kind"]) == "Node" {
            object.str_at(&["target", "name"])
        } else {
            return Ok(());
        };
        let Some(node) = look_up(&self.nodes, "", node) else { return Ok(()) };
        for (key, value) in node.labels().filter(|(key, _)| TOPOLOGY.contains(key)) {
            object.set_at(&["metadata", "labels", key], value);
        }
        Ok(())
    }
}

/// The bound pod and its state before, for updates that changed its spec.
fn changed<'a>(
    attributes: &Attributes<'a>,
    object: Option<&'a Value>,
    subresources: &[Option<&str>],
) -> Option<(&'a Value, Cow<'a, Value>)> {
    let is_pod = attributes.resource.group.is_empty() && attributes.resource.plural == "pods";
    if attributes.operation != Operation::Update || !is_pod || !subresources.contains(&attributes.subresource)
    {
        return None;
    }
    let pod = object.filter(|pod| !pod.str_at(&["spec", "nodeName"]).is_empty())?;
    let old = attributes.old?;
    // The generation counts changes of the spec.
    if pod["metadata"]["generation"].as_i64() == Some(old.generation()) {
        return None;
    }
    Some((pod, attributes.old_value()?))
}

fn node_of(
    nodes: &Endpoint,
    attributes: &Attributes<'_>,
    pod: &Value,
) -> Result<std::sync::Arc<Object>, Status> {
    let name = pod.str_at(&["spec", "nodeName"]);
    look_up(nodes, "", name)
        .ok_or_else(|| forbidden(attributes, format!("node {} not found", go_quote(name))))
}

/// `PodResizeValidator`: a pod grows only to what its node has in all, and only where the system can do it.
pub struct PodResizeValidator {
    nodes: Endpoint,
}

impl PodResizeValidator {
    pub fn new(environment: &Environment<'_>) -> Result<Self, BuildError> {
        Ok(Self { nodes: environment.endpoint(&gvr::NODES)? })
    }
}

impl Plugin for PodResizeValidator {
    fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let Some((pod, _)) = changed(attributes, object, &[Some("resize")]) else { return Ok(()) };
        let node = node_of(&self.nodes, attributes, pod)?;
        check_resize(pod, &node.to_value()).map_err(|(why, cause)| {
            let mut status = forbidden(attributes, why);
            if let Some(details) = &mut status.details {
                details.causes.push(Cause { reason: cause.into(), ..Cause::default() });
            }
            status
        })
    }
}

fn check_resize(pod: &Value, node: &Value) -> Result<(), (String, &'static str)> {
    let system = node["metadata"]["labels"].str_at(&["kubernetes.io/os"]);
    if !matches!(system, "" | "linux") {
        let name = go_quote(node.str_at(&["metadata", "name"]));
        let why = format!("pod resize is only supported on linux nodes, node {name} is {}", go_quote(system));
        return Err((why, "UnsupportedPlatform"));
    }
    let allocatable = api::amounts::Amounts::of(node["status"].get("allocatable"));
    let counted = Counted { status: false, ..Counted::ALL };
    let requests = pod_resources::requests(pod, counted);
    let of = |amounts: &api::amounts::Amounts, name: &str| amounts.get(name).unwrap_or_default();
    let mut exceeded = Vec::new();
    let (cpu, room) = (of(&requests, "cpu"), of(&allocatable, "cpu"));
    if cpu > room {
        exceeded.push(format!("cpu, requested: {}, allocatable: {}", cpu.milli_value(), room.milli_value()));
    }
    let (memory, room) = (of(&requests, "memory"), of(&allocatable, "memory"));
    if memory > room {
        exceeded.push(format!("memory, requested: {}, allocatable: {}", memory.value(), room.value()));
    }
    if exceeded.is_empty() {
        return Ok(());
    }
    let why = format!("node didn't have enough allocatable resources: {}", exceeded.join("; "));
    Err((why, "NodeCapacity"))
}

/// `NodeDeclaredFeatureValidator`: a pod changes only in ways that its node says it can do.
pub struct NodeDeclaredFeatureValidator {
    nodes: Endpoint,
}

impl NodeDeclaredFeatureValidator {
    pub fn new(environment: &Environment<'_>) -> Result<Self, BuildError> {
        Ok(Self { nodes: environment.endpoint(&gvr::NODES)? })
    }
}

impl Plugin for NodeDeclaredFeatureValidator {
    fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let Some((pod, old)) = changed(attributes, object, &[None, Some("resize")]) else { return Ok(()) };
        let needed = needed_features(pod, &old);
        if needed.is_empty() {
            return Ok(());
        }
        let node = node_of(&self.nodes, attributes, pod)?.to_value();
        let declared = node.array_at(&["status", "declaredFeatures"]);
        let missing: Vec<&str> = needed
            .into_iter()
            .filter(|feature| !declared.iter().any(|own| own.as_str() == Some(feature)))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let why = format!(
            "pod update requires features {} which are not available on node {}",
            missing.join(", "),
            go_quote(node.str_at(&["metadata", "name"]))
        );
        Err(forbidden(attributes, why))
    }
}

/// The features, sorted, that a node needs for a change.
fn needed_features(pod: &Value, old: &Value) -> Vec<&'static str> {
    let mut needed = Vec::new();
    let resources = |of: &Value| of.get("resources").cloned().unwrap_or_default();
    if !same(&resources(&pod["spec"]), &resources(&old["spec"])) {
        needed.push("InPlacePodLevelResourcesVerticalScaling");
    }
    let starting = |pod: &'_ Value| pod.array_at(&["spec", "initContainers"]).to_vec();
    let resized = starting(old).iter().zip(&starting(pod)).any(|(old, new)| {
        old.str_at(&["restartPolicy"]) != "Always" && !same(&resources(old), &resources(new))
    });
    if resized {
        needed.push("InPlacePodVerticalScalingInitContainers");
    }
    needed
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn a_pod_outgrows_its_node_by_cpu_or_memory() {
        let node =
            json!({"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "2", "memory": "1Gi"}}});
        let pod = |requests: Value| json!({"spec": {"containers": [{"resources": {"requests": requests}}]}});
        assert_eq!(check_resize(&pod(json!({"cpu": "2", "memory": "1Gi"})), &node), Ok(()));
        assert_eq!(
            check_resize(&pod(json!({"cpu": "2500m", "memory": "2Gi"})), &node),
            Err((
                "node didn't have enough allocatable resources: cpu, requested: 2500, allocatable: 2000; memory, \
                 requested: 2147483648, allocatable: 1073741824"
                    .to_owned(),
                "NodeCapacity"
            ))
        );
        let mut windows = node;
        windows.set_at(&["metadata", "labels", "kubernetes.io/os"], "windows");
        assert_eq!(
            check_resize(&pod(json!({})), &windows),
            Err((
                "pod resize is only supported on linux nodes, node \"n\" is \"windows\"".to_owned(),
                "UnsupportedPlatform"
            ))
        );
    }

    #[test]
    fn features_are_needed_for_what_changes() {
        let pod = |whole: Value, starting: Value, policy: &str| {
            json!({"spec": {"resources": whole, "initContainers": [
                {"name": "i", "restartPolicy": policy, "resources": starting}
            ]}})
        };
        let (one, two) = (json!({"requests": {"cpu": "1"}}), json!({"requests": {"cpu": "2"}}));
        let old = pod(one.clone(), one.clone(), "");
        assert!(needed_features(&old, &old).is_empty());
        assert_eq!(
            needed_features(&pod(two.clone(), one.clone(), ""), &old),
            ["InPlacePodLevelResourcesVerticalScaling"]
        );
        assert_eq!(
            needed_features(&pod(one.clone(), two.clone(), ""), &old),
            ["InPlacePodVerticalScalingInitContainers"]
        );
        let sidecar = pod(one.clone(), one.clone(), "Always");
        assert!(needed_features(&pod(one, two, "Always"), &sidecar).is_empty());
    }
}
