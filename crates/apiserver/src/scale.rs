//! The `scale` subresource: one small kind in front of everything that has replicas.

use api::Resource;
use api::resource::ScalePaths;
use apiextensions::strategy::{accessor_error, scale_field};
use apimachinery::selector::Selector;
use apimachinery::{Number, Status, Value, field, json};

/// What upstream gives a patch as the replicas of a custom resource that has none: nobody asks for so few.
const NO_REPLICAS: i64 = i32::MIN as i64;

/// `autoscaling/v1 Scale` of a workload's tree.
pub fn of(resource: &Resource, workload: &Value) -> Result<Value, Status> {
    let Some(paths) = custom(resource) else {
        let [spec, status] = ["spec", "status"].map(|part| workload[part]["replicas"].as_i64().unwrap_or(0));
        return Ok(scale(workload, spec, status, &selector_text(&workload["spec"]["selector"])));
    };
    let spec = integer(workload, &paths.spec_replicas)?.ok_or_else(|| {
        let path = field::go_quote(&paths.spec_replicas);
        Status::internal(format!("the spec replicas field {path} does not exist"))
    })?;
    custom_scale(workload, paths, spec)
}

/// The scale that a patch starts from.
pub fn before_patch(resource: &Resource, workload: &Value) -> Result<Value, Status> {
    match custom(resource) {
        Some(paths) if integer(workload, &paths.spec_replicas)?.is_none() => {
            custom_scale(workload, paths, NO_REPLICAS)
        }
        _ => of(resource, workload),
    }
}

fn custom(resource: &Resource) -> Option<&ScalePaths> {
    resource.custom.as_ref()?.scale.as_ref()
}

fn custom_scale(workload: &Value, paths: &ScalePaths, spec: i64) -> Result<Value, Status> {
    let status = integer(workload, &paths.status_replicas)?.unwrap_or(0);
    let selector = match scale_field(workload, &paths.label_selector).map_err(Status::internal)? {
        None => "",
        Some(Value::String(text)) => text.as_str(),
        Some(other) => {
            return Err(Status::internal(accessor_error(&paths.label_selector, other, "string")));
        }
    };
    Ok(scale(workload, spec, status, selector))
}

fn integer(workload: &Value, path: &str) -> Result<Option<i64>, Status> {
    match scale_field(workload, path).map_err(Status::internal)? {
        None => Ok(None),
        Some(Value::Number(Number::Int(number))) => Ok(Some(*number)),
        Some(other) => Err(Status::internal(accessor_error(path, other, "int64"))),
    }
}

fn scale(workload: &Value, spec: i64, status: i64, selector: &str) -> Value {
    let metadata = &workload["metadata"];
    let mut scale = json!({
        "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {}, "spec": {}, "status": {},
    });
    for key in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = metadata.get(key) {
            scale.set_at(&["metadata", key], value.clone());
        }
    }
    if spec != 0 {
        scale.set_at(&["spec", "replicas"], spec);
    }
    scale.set_at(&["status", "replicas"], status);
    if !selector.is_empty() {
        scale.set_at(&["status", "selector"], selector);
    }
    scale
}

/// The workload with the replicas that a scale asks for.
pub fn apply(resource: &Resource, workload: &Value, scale: &Value) -> Result<Value, Status> {
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    let mut scaled = workload.clone();
    match custom(resource) {
        // Whether it is a sensible number is for the workload's own validation.
        Some(paths) => {
            if replicas == NO_REPLICAS {
                let path = field::go_quote(&paths.spec_replicas);
                return Err(Status::bad_request(format!("the spec replicas field {path} cannot be empty")));
            }
            let path = paths.spec_replicas.strip_prefix('.').unwrap_or(&paths.spec_replicas);
            let path: Vec<&str> = path.split('.').collect();
            scaled.set_at(&path, replicas);
        }
        None => {
            check_not_negative(workload, replicas)?;
            scaled.set_at(&["spec", "replicas"], replicas);
        }
    }
    for key in ["resourceVersion", "uid"] {
        if let Some(given) = scale.at(&["metadata", key]).filter(|given| given.as_str() != Some("")) {
            scaled.set_at(&["metadata", key], given.clone());
        }
    }
    Ok(scaled)
}

fn check_not_negative(workload: &Value, replicas: i64) -> Result<(), Status> {
    if replicas >= 0 {
        return Ok(());
    }
    let path = field::Path::root("spec.replicas");
    let error = field::Error::invalid(&path, replicas, "must be greater than or equal to 0");
    let kind = apimachinery::GroupKind { group: "autoscaling".into(), kind: "Scale".into() };
    Err(Status::invalid(&kind, workload.str_at(&["metadata", "name"]), &[error]))
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
