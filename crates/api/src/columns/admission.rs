//! Columns of webhooks and admission policies.

use apimachinery::Value;
use jiff::Timestamp;

use super::{AGE, Kinds, NAME, cell, integer, selector, text};
use crate::strategy::Column;

pub(super) const KINDS: Kinds = &[
    ("MutatingAdmissionPolicy", &[NAME, integer("Mutations"), text("ParamKind"), AGE], mutating_policy),
    ("MutatingAdmissionPolicyBinding", BINDING, binding),
    ("MutatingWebhookConfiguration", WEBHOOKS, webhooks),
    ("ValidatingAdmissionPolicy", &[NAME, integer("Validations"), text("ParamKind"), AGE], validating_policy),
    ("ValidatingAdmissionPolicyBinding", BINDING, binding),
    ("ValidatingWebhookConfiguration", WEBHOOKS, webhooks),
];

const BINDING: &[Column] = &[NAME, text("PolicyName"), text("ParamRef"), AGE];
const WEBHOOKS: &[Column] = &[NAME, integer("Webhooks"), AGE];

fn mutating_policy(object: &Value, now: Timestamp) -> Vec<Value> {
    policy(object, "mutations", now)
}

fn validating_policy(object: &Value, now: Timestamp) -> Vec<Value> {
    policy(object, "validations", now)
}

fn policy(object: &Value, rules: &str, now: Timestamp) -> Vec<Value> {
    let kind = object.at(&["spec", "paramKind"]).map_or_else(
        || "<unset>".to_owned(),
        |kind| format!("{}/{}", kind.str_at(&["apiVersion"]), kind.str_at(&["kind"])),
    );
    vec![
        cell::name(object),
        cell::count(object, &["spec", rules]).into(),
        kind.into(),
        cell::age(object, now),
    ]
}

fn binding(object: &Value, now: Timestamp) -> Vec<Value> {
    let parameters = object.at(&["spec", "paramRef"]).map_or_else(|| "<unset>".to_owned(), parameters_name);
    vec![
        cell::name(object),
        cell::text(object, &["spec", "policyName"]),
        parameters.into(),
        cell::age(object, now),
    ]
}

/// The parameter object a binding names, `*` standing for the namespace of the object under review, or the selector
/// of several.
fn parameters_name(reference: &Value) -> String {
    match (reference.str_at(&["name"]), reference.str_at(&["namespace"])) {
        ("", _) => match reference.get("selector") {
            Some(selector) => selector::expression(Some(selector)).unwrap_or_else(|| "<error>".into()),
            None => "<unset>".into(),
        },
        (name, "") => format!("*/{name}"),
        (name, namespace) => format!("{namespace}/{name}"),
    }
}

fn webhooks(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![cell::name(object), cell::count(object, &["webhooks"]).into(), cell::age(object, now)]
}
