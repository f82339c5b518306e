//! The `autoscaling` group.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::{Value, json};

use crate::strategy::{Context, Strategy};
use crate::validation::fields::{Fields, not_negative, supported};
use crate::validation::{resources, text};

/// Longest look-back and longest policy period, in seconds.
const WINDOW_MAX: i64 = 3600;
const PERIOD_MAX: i64 = 1800;
const SOURCES: [(&str, &str); 5] = [
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];

/// The kinds of this group with rules of their own.
pub const RULES: super::Rules = &[("HorizontalPodAutoscaler", &HorizontalPodAutoscaler)];

/// `HorizontalPodAutoscaler`, of either version: what only one of them has is simply absent in the other.
pub struct HorizontalPodAutoscaler;

impl Strategy for HorizontalPodAutoscaler {
    /// The zeroes that Go writes of each version's status.
    fn prepare_for_create(&self, _ctx: &Context<'_>, object: &mut Value) {
        let status = if object.str_at(&["apiVersion"]) == "autoscaling/v1" {
            json!({"currentReplicas": 0, "desiredReplicas": 0})
        } else {
            json!({"currentMetrics": null, "desiredReplicas": 0})
        };
        object.set_at(&["status"], status);
    }

    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let (spec, path) = (&object["spec"], Path::root("spec"));
        bounds(&mut errors, spec, &path);
        target_reference(&mut errors, &spec["scaleTargetRef"], false, &path.child("scaleTargetRef"));
        metrics(&mut errors, spec, &path.child("metrics"));
        if let Some(behavior) = spec.maybe("behavior") {
            let path = path.child("behavior");
            for key in ["scaleUp", "scaleDown"] {
                if let Some(rules) = behavior.maybe(key) {
                    scaling_rules(&mut errors, rules, &path.child(key));
                }
            }
        }
        errors
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, _old: &Value) -> ErrorList {
        if ctx.subresource != Some("status") {
            return self.validate(ctx, new);
        }
        let mut errors = ErrorList::new();
        for key in ["currentReplicas", "desiredReplicas"] {
            not_negative(&mut errors, &new["status"], key, &Path::root("status"));
        }
        errors
    }
}

fn bounds(errors: &mut ErrorList, spec: &Value, path: &Path<'_>) {
    let (min, max) = (spec.maybe_int("minReplicas"), spec.int("maxReplicas"));
    let max_path = path.child("maxReplicas");
    // Scaling to zero is a feature that is off.
    if let Some(min) = min.filter(|min| *min < 1) {
        errors.push(Error::invalid(&path.child("minReplicas"), min, "must be greater than or equal to 1"));
    }
    if max == 0 {
        errors.push(Error::required(&max_path, "must be set and greater than 0"));
    } else if max < 0 {
        errors.push(Error::invalid(&max_path, max, "must be greater than or equal to 1"));
    }
    if min.is_some_and(|min| max < min) {
        errors.push(Error::invalid(&max_path, max, "must be greater than or equal to `minReplicas`"));
    }
}

fn target_reference(errors: &mut ErrorList, reference: &Value, core_allowed: bool, path: &Path<'_>) {
    for key in ["kind", "name"] {
        let value = reference.text(key);
        if value.is_empty() {
            errors.push(Error::required(&path.child(key), ""));
        }
        for message in text::path_segment(value, false) {
            errors.push(Error::invalid(&path.child(key), value, message));
        }
    }
    let version = reference.text("apiVersion");
    let complaint = match version.split('/').count() {
        1 if core_allowed || (version == "v1" && reference.text("kind") == "ReplicationController") => return,
        1 => "apiVersion must specify API group".to_owned(),
        2 => return,
        _ => format!("unexpected GroupVersion string: {version}"),
    };
    errors.push(Error::invalid(&path.child("apiVersion"), version, complaint));
}

fn metrics(errors: &mut ErrorList, spec: &Value, path: &Path<'_>) {
    for (index, metric) in spec.list("metrics").iter().enumerate() {
        self::metric(errors, metric, &path.index(index));
    }
}

fn metric(errors: &mut ErrorList, metric: &Value, path: &Path<'_>) {
    const TYPES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];
    let kind = metric.text("type");
    if kind.is_empty() {
        errors.push(Error::required(&path.child("type"), "must specify a metric source type"));
    }
    supported(errors, kind, &path.child("type"), &TYPES);
    let mut first = true;
    for (_, key) in SOURCES {
        if let Some(source) = metric.maybe(key)
            && std::mem::take(&mut first)
        {
            metric_source(errors, key, source, &path.child(key));
        }
    }
    let Some((_, wanted)) = SOURCES.iter().find(|(own, _)| *own == kind) else {
        errors.push(Error::not_supported(&path.child("type"), kind, &TYPES));
        return;
    };
    if !metric.has(wanted) {
        errors.push(Error::required(
            &path.child(wanted),
            "must populate information for the given metric source",
        ));
    }
    for (_, other) in SOURCES.iter().filter(|(_, key)| key != wanted && metric.has(key)) {
        errors.push(Error::forbidden(&path.child(other), "must populate the given metric source only"));
    }
}

fn metric_source(errors: &mut ErrorList, kind: &str, source: &Value, path: &Path<'_>) {
    let target = &source["target"];
    let target_path = path.child("target");
    let (value, average) = (target.has("value"), target.has("averageValue"));
    let utilization = target.has("averageUtilization");
    let average_path = target_path.child("averageValue");
    match kind {
        "object" => {
            target_reference(errors, &source["describedObject"], true, &path.child("describedObject"));
            metric_name(errors, source, path);
            metric_target(errors, target, &target_path);
            if !value && !average {
                errors.push(Error::required(&average_path, "must set either a target value or averageValue"));
            }
        }
        "external" => {
            metric_name(errors, source, path);
            metric_target(errors, target, &target_path);
            if !value && !average {
                errors.push(Error::required(
                    &average_path,
                    "must set either a target value for metric or a per-pod target",
                ));
            }
            if value && average {
                errors.push(Error::forbidden(
                    &target_path.child("value"),
                    "may not set both a target value for metric and a per-pod target",
                ));
            }
        }
        "pods" => {
            metric_name(errors, source, path);
            metric_target(errors, target, &target_path);
            if !average {
                errors.push(Error::required(&average_path, "must specify a positive target averageValue"));
            }
        }
        _ => {
            let name = source.text("name");
            if name.is_empty() {
                errors.push(Error::required(&path.child("name"), "must specify a resource name"));
            } else if kind == "containerResource" {
                resources::name(errors, name, resources::Owner::Container, &path.child("name"));
            }
            if kind == "containerResource" {
                let container = source.text("container");
                let container_path = path.child("container");
                if container.is_empty() {
                    errors.push(Error::required(&container_path, "must specify a container"));
                }
                if !container.is_empty() {
                    for message in text::dns1123_label(container) {
                        errors.push(Error::invalid(&container_path, container, message));
                    }
                }
            }
            metric_target(errors, target, &target_path);
            if !utilization && !average {
                errors.push(Error::required(
                    &target_path.child("averageUtilization"),
                    "must set either a target raw value or a target utilization",
                ));
            }
            if utilization && average {
                errors.push(Error::forbidden(
                    &average_path,
                    "may not set both a target raw value and a target utilization",
                ));
            }
        }
    }
}

fn metric_name(errors: &mut ErrorList, source: &Value, path: &Path<'_>) {
    let name = source["metric"].text("name");
    let path = path.child("metric");
    let path = path.child("name");
    if name.is_empty() {
        errors.push(Error::required(&path, "must specify a metric name"));
    }
    for message in text::path_segment(name, false) {
        errors.push(Error::invalid(&path, name, message));
    }
}

fn metric_target(errors: &mut ErrorList, target: &Value, path: &Path<'_>) {
    let kind = target.text("type");
    if kind.is_empty() {
        errors.push(Error::required(&path.child("type"), "must specify a metric target type"));
    }
    if !matches!(kind, "Utilization" | "Value" | "AverageValue") {
        errors.push(Error::invalid(
            &path.child("type"),
            kind,
            "must be either Utilization, Value, or AverageValue",
        ));
    }
    for key in ["value", "averageValue"] {
        if let Some(amount) =
            target.maybe(key).and_then(resources::quantity).filter(|amount| amount.sign() <= 0)
        {
            errors.push(Error::invalid(&path.child(key), amount.to_string(), "must be positive"));
        }
    }
    if let Some(utilization) = target.maybe_int("averageUtilization").filter(|utilization| *utilization < 1) {
        errors.push(Error::invalid(&path.child("averageUtilization"), utilization, "must be greater than 0"));
    }
}

fn scaling_rules(errors: &mut ErrorList, rules: &Value, path: &Path<'_>) {
    if let Some(seconds) = rules.maybe_int("stabilizationWindowSeconds") {
        let path = path.child("stabilizationWindowSeconds");
        if seconds < 0 {
            errors.push(Error::invalid(&path, seconds, "must be greater than or equal to zero"));
        }
        if seconds > WINDOW_MAX {
            errors.push(Error::invalid(
                &path,
                seconds,
                format!("must be less than or equal to {WINDOW_MAX}"),
            ));
        }
    }
    if let Some(policy) = rules.maybe_text("selectPolicy") {
        supported(errors, policy, &path.child("selectPolicy"), &["Disabled", "Max", "Min"]);
    }
    let policies = path.child("policies");
    if rules.list("policies").is_empty() {
        errors.push(Error::required(&policies, "must specify at least one Policy"));
    }
    for (index, policy) in rules.list("policies").iter().enumerate() {
        let path = policies.index(index);
        supported(errors, policy.text("type"), &path.child("type"), &["Percent", "Pods"]);
        for key in ["value", "periodSeconds"] {
            let number = policy.int(key);
            if number <= 0 {
                errors.push(Error::invalid(&path.child(key), number, "must be greater than zero"));
            }
        }
        let period = policy.int("periodSeconds");
        if period > PERIOD_MAX {
            errors.push(Error::invalid(
                &path.child("periodSeconds"),
                period,
                format!("must be less than or equal to {PERIOD_MAX}"),
            ));
        }
    }
    if let Some(tolerance) =
        rules.maybe("tolerance").and_then(resources::quantity).filter(|own| own.sign() < 0)
    {
        errors.push(Error::invalid(
            &path.child("tolerance"),
            tolerance.to_string(),
            crate::validation::fields::NOT_NEGATIVE,
        ));
    }
}
