//! Columns of runtime classes (`node.k8s.io`) and leases (`coordination.k8s.io`).

use apimachinery::Value;
use jiff::Timestamp;

use super::{AGE, Kinds, NAME, cell, text};

pub(super) const NODE: Kinds = &[("RuntimeClass", &[NAME, text("Handler"), AGE], runtime_class)];

pub(super) const COORDINATION: Kinds = &[
    ("Lease", &[NAME, text("Holder"), AGE], lease),
    (
        "LeaseCandidate",
        &[NAME, text("LeaseName"), text("BinaryVersion"), text("EmulationVersion"), AGE],
        lease_candidate,
    ),
];

fn runtime_class(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![cell::name(object), cell::text(object, &["handler"]), cell::age(object, now)]
}

fn lease(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![cell::name(object), cell::text(object, &["spec", "holderIdentity"]), cell::age(object, now)]
}

fn lease_candidate(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = |field| cell::text(object, &["spec", field]);
    vec![
        cell::name(object),
        spec("leaseName"),
        spec("binaryVersion"),
        spec("emulationVersion"),
        cell::age(object, now),
    ]
}
