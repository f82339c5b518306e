//! The policies that are written in CEL, and their bindings.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use super::{
    FAILURE_POLICIES, MATCH_POLICIES, MUTATING_OPERATIONS, REINVOCATION_POLICIES, expression,
    expressions::{Expressions, Place},
    match_conditions, rule, selectors, supported_if_set,
};
use crate::strategy::{Context, Strategy};
use crate::validation::fields::{Fields, invalid_each, item_text, one_of, same, supported};
use crate::validation::{conditions, selector, text};

const AUDIT_ANNOTATIONS_MAX: usize = 20;
/// In bytes.
const AUDIT_EXPRESSION_MAX: usize = 5 << 10;
const REASONS: &[&str] = &["Forbidden", "Invalid", "RequestEntityTooLarge"];
const NOTHING_TO_CHECK: &str = "validations or auditAnnotations must contain at least one item";

/// `MutatingAdmissionPolicy` and `ValidatingAdmissionPolicy`.
pub enum Policy {
    Mutating,
    Validating,
}

impl Strategy for Policy {
    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        self.spec(&mut errors, object, true);
        errors
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        if ctx.subresource == Some("status") {
            status(&mut errors, &new["status"]);
            return errors;
        }
        // Conditions that were admitted once stay.
        let changed =
            ["paramKind", "matchConditions"].iter().any(|key| !same(&new["spec"][*key], &old["spec"][*key]));
        self.spec(&mut errors, new, changed);
        errors
    }
}

impl Policy {
    fn spec(&self, errors: &mut ErrorList, object: &Value, check_conditions: bool) {
        let spec = &object["spec"];
        let path = Path::root("spec");
        one_of_if_set(errors, spec, "failurePolicy", &path, FAILURE_POLICIES);
        if let Some(kind) = spec.maybe("paramKind") {
            param_kind(errors, kind, &path.child("paramKind"));
        }
        let constraints_path = path.child("matchConstraints");
        match spec.maybe("matchConstraints") {
            None => errors.push(Error::required(&constraints_path, "")),
            Some(constraints) => {
                match_resources(errors, constraints, &constraints_path);
                if constraints.list("resourceRules").is_empty() {
                    errors.push(Error::required(&constraints_path.child("resourceRules"), ""));
                }
                if matches!(self, Self::Mutating) {
                    mutating_operations(errors, constraints, &constraints_path);
                }
            }
        }
        let params = spec.maybe("paramKind").is_some();
        if check_conditions {
            match_conditions(errors, spec.list("matchConditions"), params, &path.child("matchConditions"));
        }
        let composes = matches!(self, Self::Mutating) || !spec.list("variables").is_empty();
        let mut expressions = Expressions::new(params, composes);
        let variables = path.child("variables");
        for (index, own) in spec.list("variables").iter().enumerate() {
            variable(errors, own, &mut expressions, &variables.index(index));
        }
        match self {
            Self::Mutating => mutations(errors, spec, &expressions, &path),
            Self::Validating => {
                validations(errors, object["metadata"].text("name"), spec, &expressions, &path);
            }
        }
    }
}

/// Complains when the field is missing or outside a closed set.
fn one_of_if_set(errors: &mut ErrorList, object: &Value, key: &str, path: &Path<'_>, values: &[&str]) {
    if !object.has(key) {
        errors.push(Error::required(&path.child(key), ""));
    }
    supported_if_set(errors, object, key, path, values);
}

fn param_kind(errors: &mut ErrorList, kind: &Value, path: &Path<'_>) {
    let version_path = path.child("apiVersion");
    let whole = kind.text("apiVersion");
    if whole.is_empty() {
        errors.push(Error::required(&version_path, ""));
    } else if whole.matches('/').count() > 1 {
        errors.push(Error::invalid(&version_path, whole, format!("unexpected GroupVersion string: {whole}")));
    } else {
        let (group, version) = whole.split_once('/').unwrap_or(("", whole));
        let messages = if group.is_empty() { Vec::new() } else { text::dns1123_subdomain(group) };
        if !messages.is_empty() {
            errors.push(Error::invalid(&version_path, group, messages.join(",")));
        }
        let messages = text::dns1035_label(version);
        if version.is_empty() {
            errors.push(Error::invalid(&version_path, whole, "version must be specified"));
        } else if !messages.is_empty() {
            errors.push(Error::invalid(&version_path, version, messages.join(",")));
        }
    }
    let path = path.child("kind");
    let name = kind.text("kind");
    if name.is_empty() {
        errors.push(Error::required(&path, ""));
        return;
    }
    let messages = text::dns1035_label(&name.to_lowercase());
    if !messages.is_empty() {
        let detail = format!("may have mixed case, but should otherwise match: {}", messages.join(","));
        errors.push(Error::invalid(&path, name, detail));
    }
}

fn match_resources(errors: &mut ErrorList, own: &Value, path: &Path<'_>) {
    one_of_if_set(errors, own, "matchPolicy", path, MATCH_POLICIES);
    selectors(errors, own, path, true);
    for key in ["resourceRules", "excludeResourceRules"] {
        let path = path.child(key);
        for (index, own) in own.list(key).iter().enumerate() {
            named_rule(errors, own, &path.index(index));
        }
    }
}

fn named_rule(errors: &mut ErrorList, own: &Value, path: &Path<'_>) {
    let names = own.list("resourceNames");
    let names_path = path.child("resourceNames");
    for (index, name) in names.iter().enumerate() {
        let path = names_path.index(index);
        let text = item_text(name);
        invalid_each(errors, &path, text, text::path_segment(text, false));
        if names[..index].contains(name) {
            errors.push(Error::duplicate(&path, text));
        }
    }
    rule(errors, own, path);
}

fn mutating_operations(errors: &mut ErrorList, resources: &Value, path: &Path<'_>) {
    let path = path.child("resourceRules");
    let path = path.child("operations");
    for rule in resources.list("resourceRules") {
        for operation in rule.list("operations") {
            supported(errors, item_text(operation), &path, MUTATING_OPERATIONS);
        }
    }
}

fn variable(errors: &mut ErrorList, variable: &Value, expressions: &mut Expressions, path: &Path<'_>) {
    let name = variable.text("name");
    if name.trim().is_empty() {
        errors.push(Error::required(&path.child("name"), "name is not specified"));
    } else if !is_identifier(name) {
        errors.push(Error::invalid(&path.child("name"), name, "must be a valid CEL identifier"));
    }
    if expression(errors, variable, "expression", path, "expression is not specified") {
        expressions.add_variable(errors, name, variable.text("expression"), &path.child("expression"));
    }
}

fn is_identifier(name: &str) -> bool {
    name.starts_with(|first: char| first == '_' || first.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric())
        && !cel::names::is_reserved(name)
}

fn validations(
    errors: &mut ErrorList,
    policy: &str,
    spec: &Value,
    expressions: &Expressions,
    path: &Path<'_>,
) {
    let (validations, annotations) = (spec.list("validations"), spec.list("auditAnnotations"));
    if validations.is_empty() && annotations.is_empty() {
        errors.push(Error::required(&path.child("validations"), NOTHING_TO_CHECK));
        errors.push(Error::required(&path.child("auditAnnotations"), NOTHING_TO_CHECK));
        return;
    }
    let list_path = path.child("validations");
    for (index, own) in validations.iter().enumerate() {
        validation(errors, own, expressions, &list_path.index(index));
    }
    let list_path = path.child("auditAnnotations");
    if annotations.len() > AUDIT_ANNOTATIONS_MAX {
        let detail = format!("must not have more than {AUDIT_ANNOTATIONS_MAX} auditAnnotations");
        errors.push(Error::invalid(&list_path, &spec["auditAnnotations"], detail));
    }
    for (index, own) in annotations.iter().enumerate() {
        let path = list_path.index(index);
        audit_annotation(errors, policy, own, expressions, &path);
        let key = own.text("key");
        if annotations[..index].iter().any(|other| other.text("key") == key) {
            errors.push(Error::duplicate(&path.child("key"), key));
        }
    }
}

fn validation(errors: &mut ErrorList, own: &Value, expressions: &Expressions, path: &Path<'_>) {
    const BLANK: &str = "must be non-empty if specified";
    if expression(errors, own, "expression", path, "expression is not specified") {
        expressions.check(errors, Place::Validation, own.text("expression"), &path.child("expression"));
    }
    let message = own.text("messageExpression");
    let message_path = path.child("messageExpression");
    if !message.is_empty() && message.trim().is_empty() {
        errors.push(Error::invalid(&message_path, message, BLANK));
    } else if !message.is_empty() {
        expressions.check(errors, Place::Message, message, &message_path);
    }
    let message = own.text("message");
    if !message.is_empty() && message.trim().is_empty() {
        errors.push(Error::invalid(&path.child("message"), message, BLANK));
    } else if message.trim().contains(['\n', '\r']) {
        errors.push(Error::invalid(&path.child("message"), message, "must not contain line breaks"));
    }
    supported_if_set(errors, own, "reason", path, REASONS);
}

fn audit_annotation(
    errors: &mut ErrorList,
    policy: &str,
    own: &Value,
    expressions: &Expressions,
    path: &Path<'_>,
) {
    let key = own.text("key");
    if policy.is_empty() {
        errors.push(Error::invalid(&path.child("key"), key, "requires metadata.name be non-empty"));
    } else {
        let full = format!("{policy}/{key}");
        let messages = text::qualified_name(&full);
        invalid_each(errors, &path.child("key"), full.as_str(), messages);
    }
    if !expression(errors, own, "valueExpression", path, "valueExpression is not specified") {
        return;
    }
    let path = path.child("valueExpression");
    let text = own.text("valueExpression").trim();
    if text.len() > AUDIT_EXPRESSION_MAX {
        let detail = format!("must not exceed {AUDIT_EXPRESSION_MAX} bytes in length");
        errors.push(Error::required(&path, detail));
    } else {
        expressions.check(errors, Place::AuditAnnotation, text, &path);
    }
}

fn mutations(errors: &mut ErrorList, spec: &Value, expressions: &Expressions, path: &Path<'_>) {
    let mutations = spec.list("mutations");
    let list_path = path.child("mutations");
    if mutations.is_empty() {
        errors.push(Error::required(&list_path, "mutations must contain at least one item"));
    }
    for (index, own) in mutations.iter().enumerate() {
        mutation(errors, own, expressions, &list_path.index(index));
    }
    one_of(errors, spec.text("reinvocationPolicy"), &path.child("reinvocationPolicy"), REINVOCATION_POLICIES);
}

fn mutation(errors: &mut ErrorList, own: &Value, expressions: &Expressions, path: &Path<'_>) {
    let kind = own.text("patchType");
    let (key, place, other, other_shown) = match kind {
        "ApplyConfiguration" => ("applyConfiguration", Place::ApplyConfiguration, "jsonPatch", "{jsonPatch}"),
        "JSONPatch" => ("jsonPatch", Place::JsonPatch, "applyConfiguration", "{applyConfiguration}"),
        _ => {
            one_of(errors, kind, &path.child("patchType"), &["ApplyConfiguration", "JSONPatch"]);
            return;
        }
    };
    match own.maybe(key) {
        None => {
            let detail = format!("must be specified when patchType is {kind}");
            errors.push(Error::required(&path.child(key), detail));
        }
        Some(patch) => {
            let path = path.child(key);
            if expression(errors, patch, "expression", &path, "") {
                let text = patch.text("expression").trim();
                expressions.check(errors, place, text, &path.child("expression"));
            }
        }
    }
    if own.has(other) {
        let detail = format!("must not be specified when patchType is {kind}");
        errors.push(Error::invalid(&path.child(other), other_shown, detail));
    }
}

fn status(errors: &mut ErrorList, status: &Value) {
    let path = Path::root("status");
    let warnings_path = path.child("typeChecking");
    let warnings_path = warnings_path.child("expressionWarnings");
    for (index, warning) in status["typeChecking"].list("expressionWarnings").iter().enumerate() {
        let path = warnings_path.index(index);
        for key in ["warning", "fieldRef"] {
            if warning.text(key).trim().is_empty() {
                errors.push(Error::required(&path.child(key), ""));
            }
        }
    }
    conditions::check(errors, status.list("conditions"), &path.child("conditions"));
}

/// `MutatingAdmissionPolicyBinding` and `ValidatingAdmissionPolicyBinding`.
pub enum Binding {
    Mutating,
    Validating,
}

impl Strategy for Binding {
    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let spec = &object["spec"];
        let path = Path::root("spec");
        let name = spec.text("policyName");
        if name.is_empty() {
            errors.push(Error::required(&path.child("policyName"), ""));
        } else {
            invalid_each(&mut errors, &path.child("policyName"), name, text::dns1123_subdomain(name));
        }
        if let Some(reference) = spec.maybe("paramRef") {
            param_ref(&mut errors, reference, &path.child("paramRef"));
        }
        let resources_path = path.child("matchResources");
        let resources = spec.maybe("matchResources");
        if let Some(resources) = resources {
            match_resources(&mut errors, resources, &resources_path);
        }
        match (self, resources) {
            (Self::Mutating, Some(resources)) => {
                mutating_operations(&mut errors, resources, &resources_path);
            }
            (Self::Mutating, None) => {}
            (Self::Validating, _) => actions(&mut errors, spec, &path.child("validationActions")),
        }
        errors
    }
}

fn param_ref(errors: &mut ErrorList, reference: &Value, path: &Path<'_>) {
    const EITHER: &str = "name and selector are mutually exclusive";
    let (name, own) = (reference.text("name"), reference.maybe("selector"));
    if !name.is_empty() {
        invalid_each(errors, &path.child("name"), name, text::path_segment(name, false));
        if own.is_some() {
            errors.push(Error::forbidden(&path.child("name"), EITHER));
        }
    }
    selector::label_selector(errors, own, &path.child("selector"));
    if own.is_some() && !name.is_empty() {
        errors.push(Error::forbidden(&path.child("selector"), EITHER));
    }
    if own.is_none() && name.is_empty() {
        errors.push(Error::required(path, "one of name or selector must be specified"));
    }
    let action = reference.text("parameterNotFoundAction");
    one_of(errors, action, &path.child("parameterNotFoundAction"), &["Deny", "Allow"]);
}

fn actions(errors: &mut ErrorList, spec: &Value, path: &Path<'_>) {
    let actions = spec.list("validationActions");
    for (index, action) in actions.iter().enumerate() {
        let path = path.index(index);
        supported(errors, item_text(action), &path, &["Audit", "Deny", "Warn"]);
        if actions[..index].contains(action) {
            errors.push(Error::duplicate(&path, item_text(action)));
        }
    }
    let has = |name: &str| actions.iter().any(|action| item_text(action) == name);
    if has("Deny") && has("Warn") {
        errors.push(Error::invalid(
            path,
            &spec["validationActions"],
            "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)",
        ));
    }
    if actions.is_empty() {
        errors.push(Error::required(path, "at least one validation action is required"));
    }
}
