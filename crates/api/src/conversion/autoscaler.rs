//! `autoscaling/v1` and `v2`: the old version knows one metric, the CPU's; what else there is travels in annotations.

use apimachinery::{Value, json};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// Turns a `v2` tree into `v1`.
pub fn to_v1(autoscaler: &mut Value) {
    let metrics = autoscaler.remove_at(&["spec", "metrics"]);
    let metrics = metrics.as_ref().and_then(Value::as_array).cloned().unwrap_or_default();
    let (cpu, others): (Vec<Value>, Vec<Value>) =
        metrics.into_iter().partition(|metric| cpu_target(metric).is_some());
    let mut cpu = cpu.into_iter();
    if let Some(target) = cpu.next().as_ref().and_then(cpu_target) {
        autoscaler.set_at(&["spec", "targetCPUUtilizationPercentage"], target);
    }
    let rest: Vec<Value> = cpu.chain(others).collect();
    if !rest.is_empty() {
        annotate(autoscaler, METRICS, &Value::Array(rest));
    }
    if let Some(behavior) = autoscaler.remove_at(&["spec", "behavior"]) {
        annotate(autoscaler, BEHAVIOR, &behavior);
    }
    let current = autoscaler.remove_at(&["status", "currentMetrics"]);
    let current = current.as_ref().and_then(Value::as_array).into_iter().flatten().find_map(|metric| {
        (metric.str_at(&["resource", "name"]) == "cpu")
            .then(|| metric.at(&["resource", "current", "averageUtilization"]).and_then(Value::as_i64))
            .flatten()
    });
    if let Some(current) = current {
        autoscaler.set_at(&["status", "currentCPUUtilizationPercentage"], current);
    }
    autoscaler.ensure_object_at(&["status"]).get_or_insert_with("currentReplicas", || Value::from(0));
}

/// Turns a `v1` tree into `v2`.
pub fn from_v1(autoscaler: &mut Value) {
    let mut metrics = Vec::new();
    if let Some(target) =
        autoscaler.remove_at(&["spec", "targetCPUUtilizationPercentage"]).and_then(|v| v.as_i64())
    {
        metrics.push(json!({
            "type": "Resource",
            "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": target}},
        }));
    }
    if let Some(Value::Array(rest)) = take_annotation(autoscaler, METRICS) {
        metrics.extend(rest);
    }
    if !metrics.is_empty() {
        autoscaler.set_at(&["spec", "metrics"], metrics);
    }
    if let Some(behavior) = take_annotation(autoscaler, BEHAVIOR) {
        autoscaler.set_at(&["spec", "behavior"], behavior);
    }
    if let Some(current) = autoscaler.remove_at(&["status", "currentCPUUtilizationPercentage"]) {
        let mut metric = json!({"type": "Resource", "resource": {"name": "cpu", "current": {}}});
        metric.set_at(&["resource", "current", "averageUtilization"], current);
        autoscaler.set_at(&["status", "currentMetrics"], vec![metric]);
    }
}

fn cpu_target(metric: &Value) -> Option<i64> {
    let resource = metric.get("resource")?;
    if resource.str_at(&["name"]) != "cpu" || resource.str_at(&["target", "type"]) != "Utilization" {
        return None;
    }
    resource.at(&["target", "averageUtilization"])?.as_i64()
}

fn annotate(autoscaler: &mut Value, key: &str, value: &Value) {
    autoscaler.ensure_object_at(&["metadata", "annotations"]).insert(key, value.to_json_string());
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

    #[test]
    fn nothing_is_lost_on_the_way_through_v1() {
        let original = json!({
            "metadata": {"name": "a"},
            "spec": {
                "maxReplicas": 3, "behavior": {"scaleDown": {"selectPolicy": "Max"}},
                "metrics": [
                    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}},
                    {"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "1"}}}
                ]
            },
            "status": {"currentReplicas": 2, "desiredReplicas": 2}
        });
        let mut value = original.clone();
        to_v1(&mut value);
        assert_eq!(value["spec"]["targetCPUUtilizationPercentage"], 60.into());
        assert!(value["spec"].get("metrics").is_none() && value["spec"].get("behavior").is_none());
        from_v1(&mut value);
        assert_eq!(value, original);
    }
}
