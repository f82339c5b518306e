//! `autoscaling/v1` and `v2`: the old version knows one metric, the CPU's; what else there is travels in annotations.
//!
//! Annotations have the form in which upstream writes them, since clients of the old version read them: metrics as the
//! structs that `autoscaling/v1` keeps for this, the behavior with the names of Go's internal struct.

use apimachinery::{Value, json};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// A property of the old form and where the new one has it, in the order in which Go writes them.
type Fields = &'static [(&'static str, &'static [&'static str])];

/// The sources of a metric, in the order in which Go writes them.
type Sources = &'static [(&'static str, Fields)];

const SPEC: Sources = &[
    (
        "object",
        &[
            ("target", &["describedObject"]),
            ("metricName", &["metric", "name"]),
            ("targetValue", &["target", "value"]),
            ("selector", &["metric", "selector"]),
            ("averageValue", &["target", "averageValue"]),
        ],
    ),
    (
        "pods",
        &[
            ("metricName", &["metric", "name"]),
            ("targetAverageValue", &["target", "averageValue"]),
            ("selector", &["metric", "selector"]),
        ],
    ),
    (
        "resource",
        &[
            ("name", &["name"]),
            ("targetAverageUtilization", &["target", "averageUtilization"]),
            ("targetAverageValue", &["target", "averageValue"]),
        ],
    ),
    (
        "containerResource",
        &[
            ("name", &["name"]),
            ("targetAverageUtilization", &["target", "averageUtilization"]),
            ("targetAverageValue", &["target", "averageValue"]),
            ("container", &["container"]),
        ],
    ),
    (
        "external",
        &[
            ("metricName", &["metric", "name"]),
            ("metricSelector", &["metric", "selector"]),
            ("targetValue", &["target", "value"]),
            ("targetAverageValue", &["target", "averageValue"]),
        ],
    ),
];

const STATUS: Sources = &[
    (
        "object",
        &[
            ("target", &["describedObject"]),
            ("metricName", &["metric", "name"]),
            ("currentValue", &["current", "value"]),
            ("selector", &["metric", "selector"]),
            ("averageValue", &["current", "averageValue"]),
        ],
    ),
    (
        "pods",
        &[
            ("metricName", &["metric", "name"]),
            ("currentAverageValue", &["current", "averageValue"]),
            ("selector", &["metric", "selector"]),
        ],
    ),
    (
        "resource",
        &[
            ("name", &["name"]),
            ("currentAverageUtilization", &["current", "averageUtilization"]),
            ("currentAverageValue", &["current", "averageValue"]),
        ],
    ),
    (
        "containerResource",
        &[
            ("name", &["name"]),
            ("currentAverageUtilization", &["current", "averageUtilization"]),
            ("currentAverageValue", &["current", "averageValue"]),
            ("container", &["container"]),
        ],
    ),
    (
        "external",
        &[
            ("metricName", &["metric", "name"]),
            ("metricSelector", &["metric", "selector"]),
            ("currentValue", &["current", "value"]),
            ("currentAverageValue", &["current", "averageValue"]),
        ],
    ),
];

const CONDITION_KEYS: [&str; 5] = ["type", "status", "lastTransitionTime", "reason", "message"];

/// Go's names of scaling rules and of their policies, in Go's order.
const RULES: [(&str, &str); 4] = [
    ("stabilizationWindowSeconds", "StabilizationWindowSeconds"),
    ("selectPolicy", "SelectPolicy"),
    ("policies", "Policies"),
    ("tolerance", "Tolerance"),
];
const POLICY: [(&str, &str); 3] = [("type", "Type"), ("value", "Value"), ("periodSeconds", "PeriodSeconds")];

/// Turns a `v2` tree into `v1`.
pub fn to_v1(autoscaler: &mut Value) {
    for key in [METRICS, CURRENT_METRICS, CONDITIONS, BEHAVIOR] {
        take_annotation(autoscaler, key);
    }
    let metrics = list(autoscaler.remove_at(&["spec", "metrics"]));
    if let Some(target) = metrics.iter().find_map(cpu_target) {
        autoscaler.set_at(&["spec", "targetCPUUtilizationPercentage"], target);
    }
    let others: Vec<String> = metrics
        .iter()
        .filter(|metric| cpu_target(metric).is_none())
        .map(|metric| old_metric(metric, SPEC))
        .collect();
    annotate(autoscaler, METRICS, &others);
    let current = list(autoscaler.remove_at(&["status", "currentMetrics"]));
    let cpu = current.iter().rev().find_map(|metric| {
        (metric.str_at(&["resource", "name"]) == "cpu")
            .then(|| metric.at(&["resource", "current", "averageUtilization"]).and_then(Value::as_i64))
            .flatten()
    });
    if let Some(cpu) = cpu {
        autoscaler.set_at(&["status", "currentCPUUtilizationPercentage"], cpu);
    }
    let current: Vec<String> = current.iter().map(|metric| old_metric(metric, STATUS)).collect();
    annotate(autoscaler, CURRENT_METRICS, &current);
    if let Some(behavior) = autoscaler.remove_at(&["spec", "behavior"]) {
        let text =
            object(["scaleUp", "scaleDown"].into_iter().zip(["ScaleUp", "ScaleDown"]).map(|(key, name)| {
                (name, behavior.get(key).map_or_else(|| "null".to_owned(), |own| renamed(own, &RULES)))
            }));
        autoscaler.ensure_object_at(&["metadata", "annotations"]).insert(BEHAVIOR, text);
    }
    let conditions: Vec<String> = list(autoscaler.remove_at(&["status", "conditions"]))
        .iter()
        .map(|own| {
            object(CONDITION_KEYS.iter().filter_map(|key| Some((*key, own.get(key)?.to_json_string()))))
        })
        .collect();
    annotate(autoscaler, CONDITIONS, &conditions);
    let status = autoscaler.ensure_object_at(&["status"]);
    for key in ["currentReplicas", "desiredReplicas"] {
        status.get_or_insert_with(key, || Value::from(0));
    }
}

/// Turns a `v1` tree into `v2`.
pub fn from_v1(autoscaler: &mut Value) {
    let mut metrics: Vec<Value> =
        take_list(autoscaler, METRICS).iter().map(|own| new_metric(own, SPEC)).collect();
    if let Some(target) =
        autoscaler.remove_at(&["spec", "targetCPUUtilizationPercentage"]).and_then(|own| own.as_i64())
    {
        metrics.push(json!({
            "type": "Resource",
            "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": target}},
        }));
    }
    if !metrics.is_empty() {
        autoscaler.set_at(&["spec", "metrics"], metrics);
    }
    if let Some(behavior) = take_annotation(autoscaler, BEHAVIOR) {
        let mut new = Value::object();
        for (key, name) in [("scaleUp", "ScaleUp"), ("scaleDown", "ScaleDown")] {
            if let Some(rules) = behavior.get(name).filter(|rules| rules.is_object()) {
                new.ensure_object().insert(key, named_back(rules));
            }
        }
        autoscaler.set_at(&["spec", "behavior"], new);
    }
    let cpu = autoscaler.remove_at(&["status", "currentCPUUtilizationPercentage"]);
    let mut current: Vec<Value> =
        take_list(autoscaler, CURRENT_METRICS).iter().map(|own| new_metric(own, STATUS)).collect();
    if let Some(cpu) = cpu.filter(|_| current.is_empty()) {
        let mut metric = json!({"type": "Resource", "resource": {"name": "cpu", "current": {}}});
        metric.set_at(&["resource", "current", "averageUtilization"], cpu);
        current.push(metric);
    }
    let conditions = take_list(autoscaler, CONDITIONS);
    let Some(status) = autoscaler.get_mut("status").and_then(Value::as_object_mut) else { return };
    status.insert("currentMetrics", if current.is_empty() { Value::Null } else { Value::Array(current) });
    if !conditions.is_empty() {
        status.insert("conditions", conditions);
    }
    // Only the old version writes a zero.
    if status.get("currentReplicas").and_then(Value::as_i64) == Some(0) {
        status.remove("currentReplicas");
    }
}

fn cpu_target(metric: &Value) -> Option<i64> {
    let resource = metric.get("resource").filter(|_| metric.str_at(&["type"]) == "Resource")?;
    if resource.str_at(&["name"]) != "cpu" {
        return None;
    }
    resource.at(&["target", "averageUtilization"])?.as_i64()
}

/// A metric as the old version writes it.
fn old_metric(metric: &Value, sources: Sources) -> String {
    let mut parts = vec![("type", metric["type"].to_json_string())];
    for (source, fields) in sources {
        let Some(own) = metric.get(source) else { continue };
        // What is averaged has no value of its own, and Go writes it all the same.
        let is_required = |key: &str| *source == "object" && matches!(key, "targetValue" | "currentValue");
        let text = object(fields.iter().filter_map(|(key, path)| match own.at(path) {
            Some(value) if *key == "target" => Some((*key, reference(value))),
            Some(value) => Some((*key, value.to_json_string())),
            None => is_required(key).then(|| (*key, "\"0\"".to_owned())),
        }));
        parts.push((source, text));
    }
    object(parts)
}

fn new_metric(metric: &Value, sources: Sources) -> Value {
    let mut new = Value::object();
    new.ensure_object().insert("type", metric["type"].clone());
    for (source, fields) in sources {
        let Some(own) = metric.get(source) else { continue };
        let averaged = own.get("averageValue").is_some();
        for (key, path) in *fields {
            let unused = averaged && matches!(*key, "targetValue" | "currentValue");
            if let Some(value) = own.get(key).filter(|_| !unused) {
                let path: Vec<&str> = std::iter::once(*source).chain(path.iter().copied()).collect();
                new.set_at(&path, value.clone());
            }
        }
        if let Some(target) = new.at_mut(&[source, "target"]).and_then(Value::as_object_mut) {
            let kind = if target.contains_key("averageUtilization") {
                "Utilization"
            } else if target.contains_key("averageValue") {
                "AverageValue"
            } else {
                "Value"
            };
            target.insert("type", kind);
        }
    }
    new
}

fn reference(value: &Value) -> String {
    object(
        ["kind", "name", "apiVersion"]
            .into_iter()
            .filter_map(|key| Some((key, value.get(key)?.to_json_string()))),
    )
}

/// Scaling rules with Go's names; what is not there is null.
fn renamed(value: &Value, names: &'static [(&'static str, &'static str)]) -> String {
    object(names.iter().map(|(key, name)| {
        let text = match value.get(key) {
            Some(Value::Array(policies)) => {
                array(&policies.iter().map(|own| renamed(own, &POLICY)).collect::<Vec<_>>())
            }
            Some(own) => own.to_json_string(),
            None => "null".to_owned(),
        };
        (*name, text)
    }))
}

fn named_back(rules: &Value) -> Value {
    let rename = |value: &Value, names: &[(&'static str, &'static str)]| {
        let mut new = Value::object();
        for (key, name) in names {
            if let Some(own) = value.get(name).filter(|own| !own.is_null()) {
                new.ensure_object().insert(*key, own.clone());
            }
        }
        new
    };
    let mut new = rename(rules, &RULES);
    if let Some(policies) = new.get_mut("policies").and_then(Value::as_array_mut) {
        policies.iter_mut().for_each(|policy| *policy = rename(policy, &POLICY));
    }
    new
}

/// JSON whose order is Go's.
fn object<'k>(fields: impl IntoIterator<Item = (&'k str, String)>) -> String {
    let fields: Vec<String> = fields.into_iter().map(|(key, text)| format!("\"{key}\":{text}")).collect();
    format!("{{{}}}", fields.join(","))
}

fn array(items: &[String]) -> String {
    format!("[{}]", items.join(","))
}

fn list(value: Option<Value>) -> Vec<Value> {
    value.as_ref().and_then(Value::as_array).cloned().unwrap_or_default()
}

fn annotate(autoscaler: &mut Value, key: &str, items: &[String]) {
    if !items.is_empty() {
        autoscaler.ensure_object_at(&["metadata", "annotations"]).insert(key, array(items));
    }
}

fn take_list(autoscaler: &mut Value, key: &str) -> Vec<Value> {
    list(take_annotation(autoscaler, key))
}

fn take_annotation(autoscaler: &mut Value, key: &str) -> Option<Value> {
    let annotations = autoscaler.at_mut(&["metadata", "annotations"])?.as_object_mut()?;
    let value = annotations.remove(key)?;
    if annotations.is_empty() {
        autoscaler.remove_at(&["metadata", "annotations"]);
    }
    Value::parse(value.as_str()?.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn autoscaler() -> Value {
        json!({
            "metadata": {"name": "a"},
            "spec": {
                "maxReplicas": 3,
                "behavior": {"scaleDown": {"selectPolicy": "Max", "policies": [
                    {"type": "Pods", "value": 1, "periodSeconds": 60}
                ]}},
                "metrics": [
                    {"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "1"}}},
                    {"type": "Object", "object": {"describedObject": {"kind": "K", "name": "n"}, "metric": {"name": "o"},
                        "target": {"type": "AverageValue", "averageValue": "2"}}},
                    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}}
                ]
            },
            "status": {
                "currentReplicas": 2, "desiredReplicas": 2,
                "conditions": [{"type": "AbleToScale", "status": "True", "reason": "r", "message": "m",
                    "lastTransitionTime": "2026-01-01T00:00:00Z"}],
                "currentMetrics": [
                    {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 7, "averageValue": "7m"}}}
                ]
            }
        })
    }

    #[test]
    fn nothing_is_lost_on_the_way_through_v1() {
        let mut value = autoscaler();
        to_v1(&mut value);
        assert_eq!(value["spec"]["targetCPUUtilizationPercentage"], 60.into());
        assert_eq!(value["status"]["currentCPUUtilizationPercentage"], 7.into());
        for (part, key) in [
            ("spec", "metrics"),
            ("spec", "behavior"),
            ("status", "conditions"),
            ("status", "currentMetrics"),
        ] {
            assert!(value[part].get(key).is_none(), "{key}");
        }
        from_v1(&mut value);
        assert_eq!(value, autoscaler());
    }

    #[test]
    fn annotations_are_written_as_upstream_writes_them() {
        let mut value = autoscaler();
        to_v1(&mut value);
        let annotation = |key: &str| value["metadata"]["annotations"].str_at(&[key]).to_owned();
        assert_eq!(
            annotation(METRICS),
            r#"[{"type":"Pods","pods":{"metricName":"m","targetAverageValue":"1"}},{"type":"Object","object":{"target":{"kind":"K","name":"n"},"metricName":"o","targetValue":"0","averageValue":"2"}}]"#
        );
        assert_eq!(
            annotation(BEHAVIOR),
            r#"{"ScaleUp":null,"ScaleDown":{"StabilizationWindowSeconds":null,"SelectPolicy":"Max","Policies":[{"Type":"Pods","Value":1,"PeriodSeconds":60}],"Tolerance":null}}"#
        );
        assert_eq!(
            annotation(CONDITIONS),
            r#"[{"type":"AbleToScale","status":"True","lastTransitionTime":"2026-01-01T00:00:00Z","reason":"r","message":"m"}]"#
        );
    }

    #[test]
    fn a_new_object_has_the_zeroes_of_its_version() {
        let mut value =
            json!({"metadata": {}, "spec": {}, "status": {"currentMetrics": null, "desiredReplicas": 0}});
        to_v1(&mut value);
        assert_eq!(value["status"], json!({"currentReplicas": 0, "desiredReplicas": 0}));
        from_v1(&mut value);
        assert_eq!(value["status"], json!({"currentMetrics": null, "desiredReplicas": 0}));
    }
}
