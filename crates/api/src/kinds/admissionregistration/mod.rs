//! The `admissionregistration.k8s.io` group: webhooks and policies of admission.
//!
//! Owns: the form of rules that say which requests are meant ([`rules`] and below), used by both, and that expressions
//! compile and have the type that their place asks for. Never touches: what they evaluate to.

mod expressions;
mod policy;
pub mod webhook;

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use crate::validation::fields::{Fields, invalid_each, item_text, supported};
use crate::validation::{selector, text};

/// The kinds of this group with rules of their own.
pub const RULES: super::Rules = &[
    ("MutatingAdmissionPolicy", &policy::Policy::Mutating),
    ("MutatingAdmissionPolicyBinding", &policy::Binding::Mutating),
    ("MutatingWebhookConfiguration", &webhook::Configuration::Mutating),
    ("ValidatingAdmissionPolicy", &policy::Policy::Validating),
    ("ValidatingAdmissionPolicyBinding", &policy::Binding::Validating),
    ("ValidatingWebhookConfiguration", &webhook::Configuration::Validating),
];

const FAILURE_POLICIES: &[&str] = &["Fail", "Ignore"];
const MATCH_POLICIES: &[&str] = &["Equivalent", "Exact"];
const REINVOCATION_POLICIES: &[&str] = &["IfNeeded", "Never"];
const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
/// Nothing is left to mutate in a delete.
const MUTATING_OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "UPDATE"];
const SCOPES: &[&str] = &["*", "Cluster", "Namespaced"];
const MATCH_CONDITIONS_MAX: usize = 64;

/// Complains about a value outside a closed set, if there is one.
fn supported_if_set(errors: &mut ErrorList, object: &Value, key: &str, path: &Path<'_>, values: &[&str]) {
    if let Some(value) = object.maybe_text(key) {
        supported(errors, value, &path.child(key), values);
    }
}

fn has_wildcard(items: &[Value]) -> bool {
    items.iter().any(|item| item_text(item) == "*")
}

/// Operations and resources that are meant.
fn rule(errors: &mut ErrorList, rule: &Value, path: &Path<'_>) {
    let operations = rule.list("operations");
    let list_path = path.child("operations");
    list(errors, rule, "operations", &list_path, "if '*' is present, must not specify other operations");
    for (index, operation) in operations.iter().enumerate() {
        supported(errors, item_text(operation), &list_path.index(index), OPERATIONS);
    }
    list(
        errors,
        rule,
        "apiGroups",
        &path.child("apiGroups"),
        "if '*' is present, must not specify other API groups",
    );
    let list_path = path.child("apiVersions");
    list(errors, rule, "apiVersions", &list_path, "if '*' is present, must not specify other API versions");
    for (index, version) in rule.list("apiVersions").iter().enumerate() {
        if item_text(version).is_empty() {
            errors.push(Error::required(&list_path.index(index), ""));
        }
    }
    resources(errors, rule, &path.child("resources"));
    supported_if_set(errors, rule, "scope", path, SCOPES);
}

/// A list that is required, and where `*` stands alone.
fn list(errors: &mut ErrorList, rule: &Value, key: &str, path: &Path<'_>, wildcard_alone: &str) {
    let items = rule.list(key);
    if items.is_empty() {
        errors.push(Error::required(path, ""));
    }
    if items.len() > 1 && has_wildcard(items) {
        errors.push(Error::invalid(path, &rule[key], wildcard_alone));
    }
}

fn resources(errors: &mut ErrorList, rule: &Value, path: &Path<'_>) {
    let resources = rule.list("resources");
    if resources.is_empty() {
        errors.push(Error::required(path, ""));
    }
    // Upstream looks at the last resource without a subresource only; so do we.
    let mut last_is_plain = false;
    for (index, resource) in resources.iter().enumerate() {
        let path = path.index(index);
        let whole = item_text(resource);
        if whole.is_empty() {
            errors.push(Error::required(&path, ""));
            continue;
        }
        let Some((name, sub)) = whole.split_once('/') else {
            last_is_plain = whole != "*";
            continue;
        };
        let covered_by = |name: &str, sub: &str| {
            resources[..index].iter().any(|other| item_text(other).split_once('/') == Some((name, sub)))
        };
        if covered_by(name, "*") {
            let detail = format!("if '{name}/*' is present, must not specify {whole}");
            errors.push(Error::invalid(&path, whole, detail));
        }
        if covered_by("*", sub) {
            let detail = format!("if '*/{sub}' is present, must not specify {whole}");
            errors.push(Error::invalid(&path, whole, detail));
        }
    }
    if resources.len() > 1 && resources.iter().any(|resource| item_text(resource) == "*/*") {
        errors.push(Error::invalid(
            path,
            &rule["resources"],
            "if '*/*' is present, must not specify other resources",
        ));
    }
    if last_is_plain && has_wildcard(resources) {
        errors.push(Error::invalid(
            path,
            &rule["resources"],
            "if '*' is present, must not specify other resources without subresources",
        ));
    }
}

/// The CEL conditions that narrow what is meant.
fn match_conditions(errors: &mut ErrorList, conditions: &[Value], params: bool, path: &Path<'_>) {
    if conditions.len() > MATCH_CONDITIONS_MAX {
        errors.push(Error::too_many(path, conditions.len(), MATCH_CONDITIONS_MAX));
    }
    for (index, condition) in conditions.iter().enumerate() {
        let path = path.index(index);
        if expression(errors, condition, "expression", &path, "") {
            let text = condition.text("expression").trim();
            expressions::match_condition(errors, text, params, &path.child("expression"));
        }
        let path = path.child("name");
        let name = condition.text("name");
        if name.is_empty() {
            errors.push(Error::required(&path, ""));
            continue;
        }
        invalid_each(errors, &path, name, text::qualified_name(name));
        if conditions[..index].iter().any(|other| other.text("name") == name) {
            errors.push(Error::duplicate(&path, name));
        }
    }
}

/// A CEL expression must be there. Whether it is.
fn expression(errors: &mut ErrorList, object: &Value, key: &str, path: &Path<'_>, missing: &str) -> bool {
    let there = !object.text(key).trim().is_empty();
    if !there {
        errors.push(Error::required(&path.child(key), missing));
    }
    there
}

/// Selectors of the namespace and of the object itself.
fn selectors(errors: &mut ErrorList, object: &Value, path: &Path<'_>, required: bool) {
    for key in ["namespaceSelector", "objectSelector"] {
        let selector = object.maybe(key);
        if required && selector.is_none() {
            errors.push(Error::required(&path.child(key), ""));
        }
        selector::label_selector(errors, selector, &path.child(key));
    }
}
