//! The `scale` subresource: one small kind in front of everything that has replicas.

use apimachinery::selector::Selector;
use apimachinery::{Status, Value, field, json};

/// `autoscaling/v1 Scale` of a workload's tree.
pub fn of(workload: &Value) -> Value {
    let metadata = &workload["metadata"];
    let mut scale = json!({
        "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {}, "spec": {}, "status": {"replicas": 0},
    });
    for key in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = metadata.get(key) {
            scale.set_at(&["metadata", key], value.clone());
        }
    }
    let replicas = workload["spec"]["replicas"].as_i64().unwrap_or(0);
    if replicas != 0 {
        scale.set_at(&["spec", "replicas"], replicas);
    }
    scale.set_at(&["status", "replicas"], workload["status"]["replicas"].as_i64().unwrap_or(0));
    let selector = selector_text(&workload["spec"]["selector"]);
    if !selector.is_empty() {
        scale.set_at(&["status", "selector"], selector);
    }
    scale
}

/// The workload with the replicas that a scale asks for.
pub fn apply(workload: &Value, scale: &Value) -> Result<Value, Status> {
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    if replicas < 0 {
        let error = field::Error::invalid(
            &field::Path::root("spec.replicas"),
            replicas,
            "must be greater than or equal to 0",
        );
        let kind = apimachinery::GroupKind { group: "autoscaling".into(), kind: "Scale".into() };
        return Err(Status::invalid(&kind, workload.str_at(&["metadata", "name"]), &[error]));
    }
    let mut scaled = workload.clone();
    scaled.set_at(&["spec", "replicas"], replicas);
    if let Some(version) =
        scale.at(&["metadata", "resourceVersion"]).filter(|version| version.as_str() != Some(""))
    {
        scaled.set_at(&["metadata", "resourceVersion"], version.clone());
    }
    if let Some(uid) = scale.at(&["metadata", "uid"]).filter(|uid| uid.as_str() != Some("")) {
        scaled.set_at(&["metadata", "uid"], uid.clone());
    }
    Ok(scaled)
}

/// A `LabelSelector`, or the plain map of a ReplicationController, as a query would spell it.
fn selector_text(selector: &Value) -> String {
    let structured = selector.get("matchLabels").is_some() || selector.get("matchExpressions").is_some();
    if structured {
        return Selector::from_value(selector).map(|selector| selector.to_string()).unwrap_or_default();
    }
    let pairs = selector.as_object().into_iter().flatten();
    let pairs: Vec<String> =
        pairs.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    pairs.join(",")
}
