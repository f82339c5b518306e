//! The `policy` group.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use super::apps::workload;
use crate::strategy::{Context, Strategy};
use crate::validation::fields::{Fields, Verbatim, not_negative, supported};
use crate::validation::{conditions, selector};

/// The kinds of this group with rules of their own.
pub const RULES: super::Rules = &[("PodDisruptionBudget", &PodDisruptionBudget)];

pub struct PodDisruptionBudget;

impl Strategy for PodDisruptionBudget {
    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let (spec, path) = (&object["spec"], Path::root("spec"));
        if spec.has("minAvailable") && spec.has("maxUnavailable") {
            errors.push(Error::invalid(
                &path,
                shown(spec),
                "minAvailable and maxUnavailable cannot be both set",
            ));
        }
        for key in ["minAvailable", "maxUnavailable"] {
            if let Some(amount) = spec.maybe(key) {
                workload::number_or_percent(&mut errors, amount, &path.child(key));
                workload::at_most_all(&mut errors, amount, &path.child(key));
            }
        }
        selector::label_selector(&mut errors, spec.maybe("selector"), &path.child("selector"));
        if let Some(policy) = spec.maybe_text("unhealthyPodEvictionPolicy") {
            let path = path.child("unhealthyPodEvictionPolicy");
            supported(&mut errors, policy, &path, &["AlwaysAllow", "IfHealthyBudget"]);
        }
        errors
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, _old: &Value) -> ErrorList {
        if ctx.subresource != Some("status") {
            return self.validate(ctx, new);
        }
        let mut errors = ErrorList::new();
        let path = Path::root("status");
        conditions::check(&mut errors, new["status"].list("conditions"), &path.child("conditions"));
        for key in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
            not_negative(&mut errors, &new["status"], key, &path);
        }
        errors
    }
}

/// The spec as upstream shows it.
fn shown(spec: &Value) -> Verbatim {
    let field = |key: &str| spec.maybe(key).map_or_else(|| "null".to_owned(), Value::to_json_string);
    let selector = spec.maybe("selector").map_or_else(|| "null".to_owned(), |own| selector::shown(own).0);
    Verbatim(format!(
        "{{\"MinAvailable\":{},\"Selector\":{selector},\"MaxUnavailable\":{},\"UnhealthyPodEvictionPolicy\":{}}}",
        field("minAvailable"),
        field("maxUnavailable"),
        field("unhealthyPodEvictionPolicy"),
    ))
}
