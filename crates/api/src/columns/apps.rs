//! Columns of workloads (`apps`) and disruption budgets (`policy`).

use apimachinery::{GroupVersion, Value};
use jiff::Timestamp;

use super::{AGE, Kinds, NAME, cell, integer, selector, text, wide};

pub(super) const KINDS: Kinds = &[
    ("ControllerRevision", &[NAME, text("Controller"), text("Revision"), AGE], controller_revision),
    (
        "DaemonSet",
        &[
            NAME,
            integer("Desired"),
            integer("Current"),
            integer("Ready"),
            integer("Up-to-date"),
            integer("Available"),
            text("Node Selector"),
            AGE,
            wide("Containers"),
            wide("Images"),
            wide("Selector"),
        ],
        daemon_set,
    ),
    (
        "Deployment",
        &[
            NAME,
            text("Ready"),
            text("Up-to-date"),
            text("Available"),
            AGE,
            wide("Containers"),
            wide("Images"),
            wide("Selector"),
        ],
        deployment,
    ),
    (
        "ReplicaSet",
        &[
            NAME,
            integer("Desired"),
            integer("Current"),
            integer("Ready"),
            AGE,
            wide("Containers"),
            wide("Images"),
            wide("Selector"),
        ],
        replica_set,
    ),
    ("StatefulSet", &[NAME, text("Ready"), AGE, wide("Containers"), wide("Images")], stateful_set),
];

pub(super) const POLICY: Kinds = &[(
    "PodDisruptionBudget",
    &[NAME, text("Min Available"), text("Max Unavailable"), integer("Allowed Disruptions"), AGE],
    pod_disruption_budget,
)];

const POD_SPEC: &[&str] = &["spec", "template", "spec"];

fn controller_revision(object: &Value, now: Timestamp) -> Vec<Value> {
    let owners = object.array_at(&["metadata", "ownerReferences"]);
    let is_controller = |owner: &&Value| owner.get("controller").and_then(Value::as_bool) == Some(true);
    let controller = owners.iter().find(is_controller).map_or_else(|| "<none>".into(), owner_name);
    vec![cell::name(object), controller.into(), cell::number(object, &["revision"]), cell::age(object, now)]
}

/// `kind.group/name` of an owner.
fn owner_name(owner: &Value) -> String {
    let group = GroupVersion::parse(owner.str_at(&["apiVersion"])).unwrap_or_default().group;
    let kind = owner.str_at(&["kind"]).to_lowercase();
    let name = owner.str_at(&["name"]);
    if group.is_empty() { format!("{kind}/{name}") } else { format!("{kind}.{group}/{name}") }
}

fn daemon_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let status = |field| cell::number(object, &["status", field]);
    let [containers, images] = cell::containers(object, POD_SPEC);
    vec![
        cell::name(object),
        status("desiredNumberScheduled"),
        status("currentNumberScheduled"),
        status("numberReady"),
        status("updatedNumberScheduled"),
        status("numberAvailable"),
        selector::labels(object.at(&["spec", "template", "spec", "nodeSelector"])).into(),
        cell::age(object, now),
        containers,
        images,
        selector::cell(object.at(&["spec", "selector"])),
    ]
}

fn deployment(object: &Value, now: Timestamp) -> Vec<Value> {
    let [containers, images] = cell::containers(object, POD_SPEC);
    let chosen = selector::expression(object.at(&["spec", "selector"]));
    vec![
        cell::name(object),
        ready(object),
        cell::number(object, &["status", "updatedReplicas"]),
        cell::number(object, &["status", "availableReplicas"]),
        cell::age(object, now),
        containers,
        images,
        chosen.unwrap_or_else(|| "<invalid>".into()).into(),
    ]
}

fn replica_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let [containers, images] = cell::containers(object, POD_SPEC);
    vec![
        cell::name(object),
        cell::number(object, &["spec", "replicas"]),
        cell::number(object, &["status", "replicas"]),
        cell::number(object, &["status", "readyReplicas"]),
        cell::age(object, now),
        containers,
        images,
        selector::cell(object.at(&["spec", "selector"])),
    ]
}

fn stateful_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let [containers, images] = cell::containers(object, POD_SPEC);
    vec![cell::name(object), ready(object), cell::age(object, now), containers, images]
}

/// How many replicas are ready of how many are wanted.
fn ready(object: &Value) -> Value {
    let ready = cell::integer(object, &["status", "readyReplicas"]);
    format!("{ready}/{}", cell::integer(object, &["spec", "replicas"])).into()
}

fn pod_disruption_budget(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        cell::name(object),
        cell::scalar_or(object, &["spec", "minAvailable"], "N/A"),
        cell::scalar_or(object, &["spec", "maxUnavailable"], "N/A"),
        cell::number(object, &["status", "disruptionsAllowed"]),
        cell::age(object, now),
    ]
}
