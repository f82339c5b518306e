//! What is said to extenders and what they answer: `k8s.io/kube-scheduler/extender/v1`, whose fields have Go's names.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::{Object, Value, json};
use serde::{Deserialize, Deserializer};

use crate::framework::Candidate;

/// `ExtenderArgs`: the nodes with all that is known of them, or their names.
pub fn filter_arguments(pod: &Object, nodes: &[Arc<Object>], by_name: bool) -> Value {
    let (list, names) = match by_name {
        true => (Value::Null, nodes.iter().map(|node| Value::from(node.name())).collect::<Vec<_>>().into()),
        false => {
            let items: Vec<Value> = nodes.iter().map(|node| node.to_value()).collect();
            (json!({"metadata": {}, "items": items}), Value::Null)
        }
    };
    json!({"Pod": pod.to_value(), "Nodes": list, "NodeNames": names})
}

/// `ExtenderFilterResult`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct FilterResult {
    pub nodes: Option<NodeList>,
    pub node_names: Option<Vec<String>>,
    #[serde(deserialize_with = "or_default")]
    pub failed_nodes: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub failed_and_unresolvable_nodes: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub error: String,
}

/// Of which only the names matter: a node is what the API says it is.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeList {
    #[serde(deserialize_with = "or_default")]
    pub items: Vec<Named>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Named {
    pub metadata: NamedMetadata,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct NamedMetadata {
    pub name: String,
}

/// `HostPriority`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HostPriority {
    pub host: String,
    pub score: i64,
}

/// `ExtenderBindingArgs`.
pub fn binding_arguments(namespace: &str, name: &str, uid: &str, node: &str) -> Value {
    json!({"PodName": name, "PodNamespace": namespace, "PodUID": uid, "Node": node})
}

/// `ExtenderBindingResult`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct BindingResult {
    #[serde(deserialize_with = "or_default")]
    pub error: String,
}

/// `ExtenderPreemptionArgs`: victims with all that `pod_of` knows of them, or their uids.
pub fn preemption_arguments(
    pod: &Object,
    candidates: &[Candidate],
    by_uid: bool,
    pod_of: impl Fn(&crate::pod::PodInfo) -> Value,
) -> Value {
    let victims_of = |candidate: &Candidate| {
        let pods = candidate.victims.iter().map(|victim| match by_uid {
            true => json!({"UID": victim.uid().as_str()}),
            false => pod_of(victim),
        });
        let pods: Vec<Value> = pods.collect();
        json!({"Pods": pods, "NumPDBViolations": candidate.violations as i64})
    };
    let map: Value =
        candidates.iter().map(|candidate| (candidate.node.clone(), victims_of(candidate))).collect();
    let (victims, meta) = if by_uid { (Value::Null, map) } else { (map, Value::Null) };
    json!({"Pod": pod.to_value(), "NodeNameToVictims": victims, "NodeNameToMetaVictims": meta})
}

/// `ExtenderPreemptionResult`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PreemptionResult {
    #[serde(deserialize_with = "or_default")]
    pub node_name_to_meta_victims: BTreeMap<String, MetaVictims>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct MetaVictims {
    #[serde(deserialize_with = "or_default")]
    pub pods: Vec<MetaPod>,
    #[serde(rename = "NumPDBViolations")]
    pub violations: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct MetaPod {
    #[serde(rename = "UID")]
    pub uid: String,
}

/// Go writes an empty map or list as `null`.
fn or_default<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
