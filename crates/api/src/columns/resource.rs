//! Columns of dynamic resource allocation.

use apimachinery::Value;
use jiff::Timestamp;

use super::{AGE, Kinds, NAME, cell, integer, name_and_age, text};

pub(super) const KINDS: Kinds = &[
    ("DeviceClass", &[NAME, AGE], name_and_age),
    (
        "DeviceTaintRule",
        &[NAME, text("Key"), text("Value"), text("Effect"), text("TimeAdded"), AGE],
        device_taint_rule,
    ),
    ("ResourceClaim", &[NAME, text("State"), AGE], resource_claim),
    ("ResourceClaimTemplate", &[NAME, AGE], name_and_age),
    (
        "ResourcePoolStatusRequest",
        &[
            NAME,
            text("Driver"),
            text("Total"),
            text("Available"),
            text("Allocated"),
            text("Unavailable"),
            text("Errors"),
            integer("Pools"),
            text("Status"),
            text("Completed"),
        ],
        pool_status_request,
    ),
    ("ResourceSlice", &[NAME, text("Node"), text("Driver"), text("Pool"), AGE], resource_slice),
];

fn device_taint_rule(object: &Value, now: Timestamp) -> Vec<Value> {
    let taint = |field| cell::text(object, &["spec", "taint", field]);
    vec![
        cell::name(object),
        taint("key"),
        taint("value"),
        taint("effect"),
        cell::ago(object, &["spec", "taint", "timeAdded"], now, ""),
        cell::age(object, now),
    ]
}

fn resource_claim(object: &Value, now: Timestamp) -> Vec<Value> {
    let deleted = cell::is_deleting(object);
    let allocated = object.at(&["status", "allocation"]).is_some();
    let reserved = !object.array_at(&["status", "reservedFor"]).is_empty();
    let states = [
        (deleted, "deleted"),
        (!deleted && !allocated, "pending"),
        (allocated, "allocated"),
        (reserved, "reserved"),
    ];
    let states: Vec<&str> = states.iter().filter(|(holds, _)| *holds).map(|(_, state)| *state).collect();
    vec![cell::name(object), states.join(",").into(), cell::age(object, now)]
}

fn pool_status_request(object: &Value, now: Timestamp) -> Vec<Value> {
    let pools = object.array_at(&["status", "pools"]);
    let failed = cell::condition_is_true(object, "Failed");
    let answered = object.get("status").is_some() && !failed;
    let shown = |number: i64| if answered { number.to_string().into() } else { "-".into() };
    let sum = |field| shown(pools.iter().map(|pool| cell::integer(pool, &[field])).sum());
    let errors = pools.iter().filter(|pool| !pool.str_at(&["validationError"]).is_empty()).count();
    let pool_count = cell::integer(object, &["status", "poolCount"]);
    let known = i64::try_from(pools.len()).unwrap_or(i64::MAX);
    let complete = cell::condition(object, "Complete").filter(|own| own.str_at(&["status"]) == "True");
    let status = match complete {
        _ if failed => "Failed".into(),
        Some(_) if pool_count > known => format!("Complete ({known}/{pool_count} pools)"),
        Some(_) => "Complete".into(),
        None => "Pending".into(),
    };
    let completed = complete.and_then(|own| cell::since(own.str_at(&["lastTransitionTime"]), now));
    vec![
        cell::name(object),
        cell::text(object, &["spec", "driver"]),
        sum("totalDevices"),
        sum("availableDevices"),
        sum("allocatedDevices"),
        sum("unavailableDevices"),
        shown(i64::try_from(errors).unwrap_or(i64::MAX)),
        pool_count.into(),
        status.into(),
        completed.unwrap_or_else(|| "<none>".into()).into(),
    ]
}

fn resource_slice(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        cell::name(object),
        cell::text(object, &["spec", "nodeName"]),
        cell::text(object, &["spec", "driver"]),
        cell::text(object, &["spec", "pool", "name"]),
        cell::age(object, now),
    ]
}
