//! Columns of aggregated APIs (`apiregistration.k8s.io`) and storage versions (`internal.apiserver.k8s.io`).

use apimachinery::Value;
use jiff::Timestamp;

use super::{AGE, Kinds, NAME, cell, text};

pub(super) const KINDS: Kinds =
    &[("APIService", &[NAME, text("Service"), text("Available"), AGE], api_service)];

pub(super) const INTERNAL: Kinds = &[(
    "StorageVersion",
    &[NAME, text("CommonEncodingVersion"), text("StorageVersions"), AGE],
    storage_version,
)];

fn api_service(object: &Value, now: Timestamp) -> Vec<Value> {
    let service = object.at(&["spec", "service"]).filter(|service| service.is_object()).map_or_else(
        || "Local".to_owned(),
        |service| format!("{}/{}", service.str_at(&["namespace"]), service.str_at(&["name"])),
    );
    vec![cell::name(object), service.into(), available(object).into(), cell::age(object, now)]
}

fn available(api_service: &Value) -> String {
    let Some(condition) = cell::condition(api_service, "Available") else { return "Unknown".into() };
    match (condition.str_at(&["status"]), condition.str_at(&["reason"])) {
        (status @ "True", _) | (status, "") => status.into(),
        (status, reason) => format!("{status} ({reason})"),
    }
}

fn storage_version(object: &Value, now: Timestamp) -> Vec<Value> {
    let servers: Vec<String> = object
        .array_at(&["status", "storageVersions"])
        .iter()
        .map(|own| format!("{}={}", own.str_at(&["apiServerID"]), own.str_at(&["encodingVersion"])))
        .collect();
    let versions = if servers.is_empty() { "<unset>".into() } else { cell::shortened(&servers, 3, ",") };
    vec![
        cell::name(object),
        cell::text_or(object, &["status", "commonEncodingVersion"], "<unset>"),
        versions.into(),
        cell::age(object, now),
    ]
}
