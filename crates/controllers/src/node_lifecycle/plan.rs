//! A node's taints and conditions. Pure.

use api::view::{Node, Taint};
use apimachinery::{Object, Str, Value, json, time};
use jiff::Timestamp;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Taints by condition, and the status with which the condition taints.
const TAINTS_BY_CONDITION: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];

/// Conditions that nobody but the node can know.
const NODE_CONDITIONS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// Labels that older clients read under another name.
const MIRRORED_LABELS: [(&str, &str); 2] =
    [("kubernetes.io/os", "beta.kubernetes.io/os"), ("kubernetes.io/arch", "beta.kubernetes.io/arch")];

/// What the Ready condition says; a node that never said anything is `Unknown` only once its time is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    Ready,
    NotReady,
    Unknown,
    /// No Ready condition yet.
    Unsaid,
}

impl Readiness {
    pub(super) fn of(node: &Node) -> Self {
        match node.condition("Ready").map(|ready| ready.status.as_str()) {
            None => Self::Unsaid,
            Some("True") => Self::Ready,
            Some("Unknown") => Self::Unknown,
            Some(_) => Self::NotReady,
        }
    }

    fn eviction_taint(self) -> Option<&'static str> {
        match self {
            Self::Ready | Self::Unsaid => None,
            Self::NotReady => Some(NOT_READY),
            Self::Unknown => Some(UNREACHABLE),
        }
    }
}

/// Types and statuses of conditions: what taints depend on.
pub(super) fn conditions_of(node: &Node) -> impl Iterator<Item = (&Str, &Str)> {
    node.status.conditions.iter().map(|own| (&own.type_, &own.status))
}

/// Region and zone, the unit of failure.
pub(super) fn zone_of(node: &Node) -> String {
    let label = |key: &str| node.metadata.labels.get(key).map(Str::as_str).unwrap_or_default();
    format!("{}:{}", label("topology.kubernetes.io/region"), label("topology.kubernetes.io/zone"))
}

pub(super) fn has_eviction_taint(node: &Node) -> bool {
    node.spec.taints.iter().any(is_eviction_taint)
}

fn is_eviction_taint(taint: &Taint) -> bool {
    taint.effect == "NoExecute" && (taint.key == NOT_READY || taint.key == UNREACHABLE)
}

/// The patch that makes a silent node's conditions unknown; `None` when they are.
pub(super) fn unknown_conditions(node: &Node, now: Timestamp) -> Option<Value> {
    let now = time::format_seconds(now);
    let mut conditions = Vec::new();
    for type_ in NODE_CONDITIONS {
        match node.condition(type_) {
            Some(own) if own.status == "Unknown" => {}
            Some(_) => conditions.push(json!({
                "type": type_, "status": "Unknown", "reason": "NodeStatusUnknown",
                "message": "Kubelet stopped posting node status.", "lastTransitionTime": now.as_str(),
            })),
            None => conditions.push(json!({
                "type": type_, "status": "Unknown", "reason": "NodeStatusNeverUpdated",
                "message": "Kubelet never posted node status.", "lastTransitionTime": now.as_str(),
                "lastHeartbeatTime": node.metadata.creation_timestamp.as_deref(),
            })),
        }
    }
    if conditions.is_empty() {
        return None;
    }
    let mut patch = Value::object();
    patch.set_at(&["status", "conditions"], conditions);
    Some(patch)
}

/// The patch of taints and mirrored labels; `None` when all is as it should be. `evict` allows a new NoExecute taint,
/// `spare` takes an existing one away. Conditional on the version that was read: taints are a list that others
/// write, too.
pub(super) fn node_patch(
    object: &Object,
    node: &Node,
    readiness: Readiness,
    evict: bool,
    spare: bool,
    now: Timestamp,
) -> Option<Value> {
    let wanted = taints(node, readiness, evict, spare);
    let labels = mirrored_labels(node);
    let same = wanted.len() == node.spec.taints.len()
        && wanted.iter().zip(&node.spec.taints).all(|(a, b)| (&a.key, &a.effect) == (&b.key, &b.effect));
    if same && labels.is_empty() {
        return None;
    }
    let mut patch = json!({"metadata": {"resourceVersion": object.revision().to_string()}});
    if !same {
        let taints: Value = wanted.iter().map(|taint| taint_value(taint, now)).collect();
        patch.set_at(&["spec", "taints"], taints);
    }
    for (key, value) in labels {
        patch.set_at(&["metadata", "labels", key], value);
    }
    Some(patch)
}

/// Others' taints in their order, then ours.
fn taints(node: &Node, readiness: Readiness, evict: bool, spare: bool) -> Vec<Taint> {
    let mut keys: Vec<(&str, &str)> = Vec::new();
    for (condition, status, key) in TAINTS_BY_CONDITION {
        if node.condition(condition).is_some_and(|own| own.status == status) {
            keys.push((key, "NoSchedule"));
        }
    }
    if node.spec.unschedulable {
        keys.push((UNSCHEDULABLE, "NoSchedule"));
    }
    if let Some(key) = readiness.eviction_taint()
        && !spare
        && (evict || has_eviction_taint(node))
    {
        keys.push((key, "NoExecute"));
    }
    let wanted = |taint: &Taint| keys.iter().any(|&(key, effect)| taint.key == key && taint.effect == effect);
    let mut taints: Vec<Taint> =
        node.spec.taints.iter().filter(|taint| !is_ours(taint) || wanted(taint)).cloned().collect();
    for (key, effect) in keys {
        if !taints.iter().any(|own| own.key == key && own.effect == effect) {
            taints.push(Taint { key: key.into(), effect: effect.into(), ..Taint::default() });
        }
    }
    taints
}

fn is_ours(taint: &Taint) -> bool {
    let by_condition =
        || TAINTS_BY_CONDITION.iter().any(|(_, _, key)| taint.key == *key) || taint.key == UNSCHEDULABLE;
    is_eviction_taint(taint) || (taint.effect == "NoSchedule" && by_condition())
}

fn taint_value(taint: &Taint, now: Timestamp) -> Value {
    let mut value = json!({"key": taint.key.as_str(), "effect": taint.effect.as_str()});
    if !taint.value.is_empty() {
        value.set_at(&["value"], taint.value.clone());
    }
    match &taint.time_added {
        Some(added) => value.set_at(&["timeAdded"], added.clone()),
        None if is_ours(taint) => value.set_at(&["timeAdded"], time::format_seconds(now)),
        None => {}
    }
    value
}

fn mirrored_labels(node: &Node) -> Vec<(&'static str, Str)> {
    let labels = &node.metadata.labels;
    let wanted = MIRRORED_LABELS.iter().filter_map(|(from, to)| Some((*to, labels.get(from)?.clone())));
    wanted.filter(|(to, value)| labels.get(to) != Some(value)).collect()
}
