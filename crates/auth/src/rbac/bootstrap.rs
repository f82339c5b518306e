//! The roles and bindings that every cluster starts with, and how they are brought up to date at each start.
//!
//! The facts are in `data/rbac-bootstrap.json`, one rule a line:
//! - `get,list core,apps pods,deployments/scale a,b`: verbs, API groups (`core` is the empty one), resources, and
//!   resource names if the rule is for some only;
//! - `get /healthz,/livez`: verbs and paths;
//!
//! and subjects as `User name`, `Group name`, `ServiceAccount namespace name`.
//!
//! An object with a `gate` is there when that feature is on, and so are the rules that a role has `gated`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::escalation::covers;
use super::object::{RoleRef, Subject};
use super::rule::PolicyRule;
use super::{GROUP, Kind};

const DATA: &str = include_str!("../../data/rbac-bootstrap.json");
const API_VERSION: &str = "rbac.authorization.k8s.io/v1";
const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const AGGREGATE_TO: &str = "rbac.authorization.k8s.io/aggregate-to-";

/// The role whose rules are those of the Node authorizer.
const NODE_ROLE: &str = "system:node";

/// The namespaces that some of the objects are in; they have to be there first.
pub const NAMESPACES: [&str; 2] = ["kube-public", "kube-system"];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Data {
    cluster_roles: Vec<RoleFacts>,
    cluster_role_bindings: Vec<BindingFacts>,
    roles: Vec<RoleFacts>,
    role_bindings: Vec<BindingFacts>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RoleFacts {
    name: String,
    #[serde(default)]
    namespace: Option<String>,
    /// The role that this one is aggregated into.
    #[serde(default)]
    aggregate_to: Option<String>,
    /// This role is the union of those that are aggregated into this name.
    #[serde(default)]
    aggregate_from: Option<String>,
    #[serde(default)]
    rules: Vec<String>,
    #[serde(default)]
    gate: Option<String>,
    /// More rules by the feature that they are for.
    #[serde(default)]
    gated: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct BindingFacts {
    name: String,
    #[serde(default)]
    namespace: Option<String>,
    role: String,
    subjects: Vec<String>,
    #[serde(default)]
    gate: Option<String>,
}

/// All objects, in the order in which they should be created: cluster roles, their bindings, roles, their bindings.
/// `is_on` says whether a feature is on.
pub fn objects(is_on: impl Fn(&str) -> bool) -> Vec<Value> {
    let mut data = data();
    let is_there = |gate: &Option<String>| gate.as_deref().is_none_or(&is_on);
    for facts in data.cluster_roles.iter_mut().chain(&mut data.roles) {
        let gated = std::mem::take(&mut facts.gated).into_iter().filter(|(gate, _)| is_on(gate));
        facts.rules.extend(gated.flat_map(|(_, rules)| rules));
    }
    let roles = |kind: Kind, all: Vec<RoleFacts>| {
        all.into_iter().filter(|facts| is_there(&facts.gate)).map(move |facts| role(kind, &facts))
    };
    let bindings = |kind: Kind, all: Vec<BindingFacts>| {
        all.into_iter().filter(|facts| is_there(&facts.gate)).map(move |facts| binding(kind, &facts))
    };
    roles(Kind::ClusterRole, data.cluster_roles)
        .chain(bindings(Kind::ClusterRoleBinding, data.cluster_role_bindings))
        .chain(roles(Kind::Role, data.roles))
        .chain(bindings(Kind::RoleBinding, data.role_bindings))
        .collect()
}

/// The rules of the cluster role `system:node`, which the Node authorizer goes by.
pub fn node_rules() -> Vec<PolicyRule> {
    let facts = data().cluster_roles.into_iter().find(|facts| facts.name == NODE_ROLE);
    facts.map(|facts| facts.rules.iter().map(|text| rule(text)).collect()).unwrap_or_default()
}

fn data() -> Data {
    serde_json::from_str(DATA).expect("the data is part of this crate and read by its tests")
}

fn role(kind: Kind, facts: &RoleFacts) -> Value {
    let mut object = object(kind, &facts.name, facts.namespace.as_deref());
    if let Some(into) = &facts.aggregate_to {
        object["metadata"]["labels"][format!("{AGGREGATE_TO}{into}")] = "true".into();
    }
    if let Some(from) = &facts.aggregate_from {
        let label = format!("{AGGREGATE_TO}{from}");
        object["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
        object["rules"] = Value::Null;
    } else {
        object["rules"] = facts.rules.iter().map(|text| to_value(&rule(text))).collect();
    }
    object
}

fn binding(kind: Kind, facts: &BindingFacts) -> Value {
    let mut object = object(kind, &facts.name, facts.namespace.as_deref());
    let (role_kind, role_name) = facts.role.split_once(' ').expect("a role is given as kind and name");
    object["roleRef"] = to_value(&RoleRef {
        api_group: GROUP.to_owned(),
        kind: role_kind.to_owned(),
        name: role_name.to_owned(),
    });
    if !facts.subjects.is_empty() {
        object["subjects"] = facts.subjects.iter().map(|text| to_value(&subject(text))).collect();
    }
    object
}

fn object(kind: Kind, name: &str, namespace: Option<&str>) -> Value {
    let mut object = json!({
        "apiVersion": API_VERSION,
        "kind": match kind {
            Kind::Role => "Role",
            Kind::ClusterRole => "ClusterRole",
            Kind::RoleBinding => "RoleBinding",
            Kind::ClusterRoleBinding => "ClusterRoleBinding",
        },
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
            "annotations": {AUTO_UPDATE: "true"},
        },
    });
    if let Some(namespace) = namespace {
        object["metadata"]["namespace"] = namespace.into();
    }
    object
}

fn to_value(part: &impl serde::Serialize) -> Value {
    serde_json::to_value(part).expect("strings and lists always have a JSON form")
}

fn rule(text: &str) -> PolicyRule {
    let parts: Vec<&str> = text.split(' ').collect();
    let list = |part: &str| part.split(',').map(str::to_owned).collect();
    let groups = |part: &str| {
        part.split(',').map(|group| if group == "core" { "" } else { group }.to_owned()).collect()
    };
    match parts.as_slice() {
        [verbs, urls] => {
            PolicyRule { verbs: list(verbs), non_resource_urls: list(urls), ..PolicyRule::default() }
        }
        [verbs, api_groups, resources, names @ ..] => PolicyRule {
            verbs: list(verbs),
            api_groups: groups(api_groups),
            resources: list(resources),
            resource_names: names.iter().flat_map(|names| names.split(',')).map(str::to_owned).collect(),
            ..PolicyRule::default()
        },
        _ => panic!("{text:?} is no rule"),
    }
}

fn subject(text: &str) -> Subject {
    let parts: Vec<&str> = text.split(' ').collect();
    match *parts.as_slice() {
        ["ServiceAccount", namespace, name] => Subject {
            kind: "ServiceAccount".to_owned(),
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            ..Subject::default()
        },
        [kind, name] => Subject {
            kind: kind.to_owned(),
            api_group: GROUP.to_owned(),
            name: name.to_owned(),
            ..Subject::default()
        },
        _ => panic!("{text:?} is no subject"),
    }
}

/// What is to be done about an object that is there already.
#[derive(Clone, Debug, PartialEq)]
pub enum Reconciled {
    /// It has all that it should have, or its owner has set `autoupdate` to `false`.
    Keep,
    /// To be stored in its place.
    Update(Value),
    /// A binding to another role: a roleRef can not change, so it is to be deleted and this one created.
    Recreate(Value),
}

/// Brings `existing` up to `wanted`, as upstream does at every start: what is missing is added (rules, subjects,
/// labels, annotations, selectors of an aggregation), what somebody added beyond stays.
pub fn reconcile(existing: &Value, wanted: &Value) -> Reconciled {
    if existing["metadata"]["annotations"][AUTO_UPDATE] == "false" {
        return Reconciled::Keep;
    }
    let mut merged = existing.clone();
    merge_missing(&mut merged["metadata"], &wanted["metadata"], "labels");
    merge_missing(&mut merged["metadata"], &wanted["metadata"], "annotations");
    if wanted.get("roleRef").is_some() {
        if role_ref(existing) != role_ref(wanted) {
            return Reconciled::Recreate(wanted.clone());
        }
        append_missing(&mut merged, wanted, "subjects");
    } else {
        if let Some(aggregation) = wanted.get("aggregationRule") {
            if !merged["aggregationRule"].is_object() {
                merged["aggregationRule"] = json!({});
            }
            append_missing(&mut merged["aggregationRule"], aggregation, "clusterRoleSelectors");
        }
        append_missing_rules(&mut merged, wanted);
    }
    if merged == *existing { Reconciled::Keep } else { Reconciled::Update(merged) }
}

fn role_ref(binding: &Value) -> Option<RoleRef> {
    RoleRef::deserialize(binding.get("roleRef")?).ok()
}

/// Adds the keys of the map `field` that are not there.
fn merge_missing(into: &mut Value, from: &Value, field: &str) {
    let Some(wanted) = from[field].as_object() else { return };
    if !into[field].is_object() {
        into[field] = Value::Object(Map::new());
    }
    let Some(existing) = into[field].as_object_mut() else { return };
    for (key, value) in wanted {
        existing.entry(key).or_insert_with(|| value.clone());
    }
}

/// Adds the items of the list `field` that are not there.
fn append_missing(into: &mut Value, from: &Value, field: &str) {
    let wanted = from[field].as_array().map(Vec::as_slice).unwrap_or_default();
    let existing = into[field].as_array().map(Vec::as_slice).unwrap_or_default();
    let missing: Vec<_> = wanted.iter().filter(|item| !existing.contains(item)).cloned().collect();
    extend(into, field, missing);
}

/// Adds the rights that no existing rule has.
fn append_missing_rules(into: &mut Value, from: &Value) {
    let rules = |role: &Value| Vec::<PolicyRule>::deserialize(&role["rules"]).unwrap_or_default();
    if let Err(missing) = covers(&rules(into), &rules(from)) {
        extend(into, "rules", missing.iter().map(to_value).collect());
    }
}

fn extend(into: &mut Value, field: &str, items: Vec<Value>) {
    if items.is_empty() {
        return;
    }
    match into[field].as_array_mut() {
        Some(list) => list.extend(items),
        None => into[field] = items.into(),
    }
}

#[cfg(test)]
mod tests;
