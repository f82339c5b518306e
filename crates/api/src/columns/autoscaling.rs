//! Columns of autoscalers and of the `scale` subresource.

use apimachinery::Value;
use jiff::Timestamp;

use super::{AGE, Kinds, NAME, cell, integer, text};

pub(super) const KINDS: Kinds = &[
    (
        "HorizontalPodAutoscaler",
        &[NAME, text("Reference"), text("Targets"), text("MinPods"), text("MaxPods"), text("Replicas"), AGE],
        horizontal_pod_autoscaler,
    ),
    ("Scale", &[text("Name"), integer("Desired"), integer("Available"), AGE], scale),
];

/// More targets than this are only counted.
const TARGETS_SHOWN: usize = 2;

fn horizontal_pod_autoscaler(object: &Value, now: Timestamp) -> Vec<Value> {
    let target = |field| object.str_at(&["spec", "scaleTargetRef", field]);
    vec![
        cell::name(object),
        format!("{}/{}", target("kind"), target("name")).into(),
        targets(object).into(),
        cell::scalar_or(object, &["spec", "minReplicas"], "<unset>"),
        cell::number(object, &["spec", "maxReplicas"]),
        cell::number(object, &["status", "currentReplicas"]),
        cell::age(object, now),
    ]
}

/// Current and wanted value of each metric.
fn targets(object: &Value) -> String {
    let metrics = object.array_at(&["spec", "metrics"]);
    if metrics.is_empty() {
        return "<none>".into();
    }
    let current = object.array_at(&["status", "currentMetrics"]);
    let all: Vec<String> =
        metrics.iter().enumerate().map(|(index, spec)| metric(spec, current.get(index))).collect();
    cell::shortened(&all, TARGETS_SHOWN, ", ")
}

/// One metric; statuses stand in the order of the specs.
fn metric(spec: &Value, status: Option<&Value>) -> String {
    let (field, named) = match spec.str_at(&["type"]) {
        "Pods" => ("pods", false),
        "Object" => ("object", false),
        "External" => ("external", false),
        "Resource" => ("resource", true),
        "ContainerResource" => ("containerResource", true),
        _ => return "<unknown type>".into(),
    };
    let current = |value: &str| status.map_or("", |status| status.str_at(&[field, "current", value]));
    let target = |value: &str| spec.str_at(&[field, "target", value]);
    let known = |value: &str| if value.is_empty() { "<unknown>".to_owned() } else { value.to_owned() };
    let average = target("averageValue");
    if !named {
        return match (field, average) {
            ("object" | "external", "") => format!("{}/{}", known(current("value")), target("value")),
            ("object" | "external", _) => format!("{}/{average} (avg)", known(current("averageValue"))),
            _ => format!("{}/{average}", known(current("averageValue"))),
        };
    }
    let name = spec.str_at(&[field, "name"]);
    if !average.is_empty() {
        return format!("{name}: {}/{average}", known(current("averageValue")));
    }
    let percent = |value: Option<&Value>, missing: &str| {
        value.and_then(Value::as_i64).map_or_else(|| missing.to_owned(), |percent| format!("{percent}%"))
    };
    let now =
        percent(status.and_then(|status| status.at(&[field, "current", "averageUtilization"])), "<unknown>");
    let wanted = percent(spec.at(&[field, "target", "averageUtilization"]), "<auto>");
    format!("{name}: {now}/{wanted}")
}

fn scale(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        cell::name(object),
        cell::number(object, &["spec", "replicas"]),
        cell::number(object, &["status", "replicas"]),
        cell::age(object, now),
    ]
}
