//! Which nodes a pod may run on: node selectors, required node affinity, taints and tolerations.

use apimachinery::Str;

use crate::view::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, StringMap, Taint, Toleration,
};

/// The only field of a node that can be selected.
pub const NAME_FIELD: &str = "metadata.name";

/// The required node affinity.
pub fn required(pod: &PodSpec) -> Option<&NodeSelector> {
    pod.affinity.as_ref()?.node_affinity.as_ref()?.required.as_ref()
}

/// The node satisfies `nodeSelector` and the required node affinity.
pub fn is_required_match(pod: &PodSpec, node: &Node) -> bool {
    let labels = &node.metadata.labels;
    pod.node_selector.iter().all(|(key, value)| labels.get(key) == Some(value))
        && required(pod)
            .is_none_or(|required| required.node_selector_terms.iter().any(|term| matches(term, node)))
}

/// An empty term matches nothing.
pub fn matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    is_match(term, &node.metadata.labels, &node.metadata.name)
}

/// As [`matches`], for who knows nothing of a node but its labels; no node has an empty name.
pub fn matches_labels(term: &NodeSelectorTerm, labels: &StringMap) -> bool {
    is_match(term, labels, "")
}

fn is_match(term: &NodeSelectorTerm, labels: &StringMap, name: &str) -> bool {
    let is_empty = term.match_expressions.is_empty() && term.match_fields.is_empty();
    !is_empty
        && term.match_expressions.iter().all(|requirement| holds(requirement, labels))
        && term.match_fields.iter().all(|requirement| field_holds(requirement, name))
}

fn holds(requirement: &NodeSelectorRequirement, labels: &StringMap) -> bool {
    let value = labels.get(&requirement.key);
    match requirement.operator.as_str() {
        "In" => value.is_some_and(|value| requirement.values.contains(value)),
        "NotIn" => value.is_none_or(|value| !requirement.values.contains(value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compares(value, requirement, |own, wanted| own > wanted),
        "Lt" => compares(value, requirement, |own, wanted| own < wanted),
        _ => false,
    }
}

fn compares(value: Option<&Str>, requirement: &NodeSelectorRequirement, test: fn(i64, i64) -> bool) -> bool {
    let number = |text: &Str| text.parse::<i64>().ok();
    let (own, wanted) = (value.and_then(number), requirement.values.first().and_then(number));
    matches!((own, wanted), (Some(own), Some(wanted)) if test(own, wanted))
}

/// Only `metadata.name` with exactly one value is a field that can be selected.
fn field_holds(requirement: &NodeSelectorRequirement, name: &str) -> bool {
    let [value] = requirement.values.as_slice() else { return false };
    match (requirement.key.as_str(), requirement.operator.as_str()) {
        (NAME_FIELD, "In") => value == name,
        (NAME_FIELD, "NotIn") => value != name,
        _ => false,
    }
}

/// Some hard taint is not tolerated.
pub fn is_kept_away(taints: &[Taint], tolerations: &[Toleration]) -> bool {
    let hard = taints.iter().filter(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"));
    hard.into_iter().any(|taint| !is_tolerated(taint, tolerations))
}

pub fn is_tolerated(taint: &Taint, tolerations: &[Toleration]) -> bool {
    tolerations.iter().any(|toleration| tolerates(toleration, taint))
}

/// Ignores for how long.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    (toleration.effect.is_empty() || toleration.effect == taint.effect)
        && (toleration.key.is_empty() || toleration.key == taint.key)
        && match toleration.operator.as_str() {
            "" | "Equal" => toleration.value == taint.value,
            "Exists" => true,
            // `Lt` and `Gt` are behind a gate that is off.
            _ => false,
        }
}
