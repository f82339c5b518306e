//! Columns of storage classes, CSI objects, attachments (`storage.k8s.io`) and migrations (`storagemigration.k8s.io`).

use apimachinery::Value;
use jiff::Timestamp;

use super::{AGE, Kinds, NAME, boolean, cell, column, integer, text};

pub(super) const KINDS: Kinds = &[
    (
        "CSIDriver",
        &[
            NAME,
            boolean("AttachRequired"),
            boolean("PodInfoOnMount"),
            boolean("StorageCapacity"),
            text("TokenRequests"),
            boolean("RequiresRepublish"),
            text("Modes"),
            AGE,
        ],
        csi_driver,
    ),
    ("CSINode", &[NAME, integer("Drivers"), AGE], csi_node),
    (
        "StorageClass",
        &[
            NAME,
            text("Provisioner"),
            text("ReclaimPolicy"),
            text("VolumeBindingMode"),
            text("AllowVolumeExpansion"),
            AGE,
        ],
        storage_class,
    ),
    (
        "VolumeAttachment",
        &[NAME, column("Attacher", "string", "name", 0), text("PV"), text("Node"), boolean("Attached"), AGE],
        volume_attachment,
    ),
    ("VolumeAttributesClass", &[NAME, text("DriverName"), AGE], volume_attributes_class),
];

pub(super) const MIGRATION: Kinds =
    &[("StorageVersionMigration", &[text("Name"), text("Resource"), text("Status")], migration)];

fn csi_driver(object: &Value, now: Timestamp) -> Vec<Value> {
    let requests = match object.at(&["spec", "tokenRequests"]).and_then(Value::as_array) {
        Some(requests) => {
            requests.iter().map(|request| request.str_at(&["audience"])).collect::<Vec<_>>().join(",")
        }
        None => "<unset>".into(),
    };
    let modes = match cell::joined(object, &["spec", "volumeLifecycleModes"], ",") {
        modes if modes.is_empty() => "<none>".into(),
        modes => modes,
    };
    vec![
        cell::name(object),
        cell::flag(object, &["spec", "attachRequired"], true),
        cell::flag(object, &["spec", "podInfoOnMount"], false),
        cell::flag(object, &["spec", "storageCapacity"], false),
        requests.into(),
        cell::flag(object, &["spec", "requiresRepublish"], false),
        modes.into(),
        cell::age(object, now),
    ]
}

fn csi_node(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![cell::name(object), cell::count(object, &["spec", "drivers"]).into(), cell::age(object, now)]
}

fn storage_class(object: &Value, now: Timestamp) -> Vec<Value> {
    const DEFAULT: [&str; 2] =
        ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
    let default = DEFAULT.iter().any(|key| object.str_at(&["metadata", "annotations", key]) == "true");
    let name = object.str_at(&["metadata", "name"]);
    vec![
        if default { format!("{name} (default)").into() } else { name.into() },
        cell::text(object, &["provisioner"]),
        cell::text_or(object, &["reclaimPolicy"], "Delete"),
        cell::text_or(object, &["volumeBindingMode"], "Immediate"),
        cell::flag(object, &["allowVolumeExpansion"], false),
        cell::age(object, now),
    ]
}

fn volume_attachment(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        cell::name(object),
        cell::text(object, &["spec", "attacher"]),
        cell::text(object, &["spec", "source", "persistentVolumeName"]),
        cell::text(object, &["spec", "nodeName"]),
        cell::flag(object, &["status", "attached"], false),
        cell::age(object, now),
    ]
}

fn volume_attributes_class(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![cell::name(object), cell::text(object, &["driverName"]), cell::age(object, now)]
}

fn migration(object: &Value, _: Timestamp) -> Vec<Value> {
    let resource = |field| object.str_at(&["spec", "resource", field]);
    let name = match resource("group") {
        "" => resource("resource").to_owned(),
        group => format!("{}.{group}", resource("resource")),
    };
    let states = ["Running", "Failed", "Succeeded"];
    let state = states.into_iter().rev().find(|kind| cell::condition_is_true(object, kind));
    vec![cell::name(object), name.into(), state.unwrap_or("Unknown").into()]
}
