//! The `flowcontrol.apiserver.k8s.io` group: how requests share the server.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use crate::strategy::{Context, Strategy};
use crate::validation::fields::{Fields, Verbatim, invalid_each, item_text, supported};
use crate::validation::text;

/// The kinds of this group with rules of their own.
pub const RULES: super::Rules =
    &[("FlowSchema", &FlowSchema), ("PriorityLevelConfiguration", &PriorityLevelConfiguration)];

/// The schema and the level that never wait.
const EXEMPT: &str = "exempt";
const PRECEDENCE_MAX: i64 = 10_000;
const QUEUES_MAX: i64 = 10_000_000;
/// Bits of the hash that deals a flow its queues.
const HASH_BITS: f64 = 60.0;
const VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

pub struct FlowSchema;

impl Strategy for FlowSchema {
    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        flow_schema(&mut errors, object["metadata"].text("name"), &object["spec"], &Path::root("spec"));
        conditions(&mut errors, &object["status"]);
        errors
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, _old: &Value) -> ErrorList {
        validate_update(self, ctx, new)
    }
}

/// An update is checked like a new object; one of the status for its status only.
fn validate_update(rules: &dyn Strategy, ctx: &Context<'_>, new: &Value) -> ErrorList {
    if ctx.subresource != Some("status") {
        return rules.validate(ctx, new);
    }
    let mut errors = ErrorList::new();
    conditions(&mut errors, &new["status"]);
    errors
}

fn conditions(errors: &mut ErrorList, status: &Value) {
    let path = Path::root("status");
    let path = path.child("conditions");
    let conditions = status.list("conditions");
    for (index, condition) in conditions.iter().enumerate() {
        let path = path.index(index);
        let path = path.child("type");
        let name = condition.text("type");
        if conditions[..index].iter().any(|other| other.text("type") == name) {
            errors.push(Error::duplicate(&path, name));
        }
        if name.is_empty() {
            errors.push(Error::required(&path, ""));
        }
    }
}

fn flow_schema(errors: &mut ErrorList, name: &str, spec: &Value, path: &Path<'_>) {
    let precedence = spec.int("matchingPrecedence");
    let mut complain = |detail: String| {
        errors.push(Error::invalid(&path.child("matchingPrecedence"), precedence, detail));
    };
    if precedence <= 0 {
        complain("must be a positive value".to_owned());
    }
    if precedence > PRECEDENCE_MAX {
        complain(format!("must not be greater than {PRECEDENCE_MAX}"));
    }
    if precedence == 1 && name != EXEMPT {
        complain("only the schema named 'exempt' may have matchingPrecedence 1".to_owned());
    }
    if let Some(method) = spec.maybe("distinguisherMethod") {
        let kind = method.text("type");
        let known = ["ByNamespace", "ByUser"];
        if !known.contains(&kind) {
            let path = path.child("distinguisherMethod");
            // Upstream shows the internal struct.
            let shown = Verbatim(format!("{{\"Type\":{kind:?}}}"));
            errors.push(Error::not_supported(&path.child("type"), shown, &known));
        }
    }
    let level_path = path.child("priorityLevelConfiguration");
    let level_path = level_path.child("name");
    let level = spec["priorityLevelConfiguration"].text("name");
    if level.is_empty() {
        errors.push(Error::required(&level_path, "must reference a priority level"));
    } else {
        invalid_each(errors, &level_path, level, text::dns1123_subdomain(level));
    }
    let path = path.child("rules");
    for (index, own) in spec.list("rules").iter().enumerate() {
        rule(errors, own, &path.index(index));
    }
}

fn rule(errors: &mut ErrorList, rule: &Value, path: &Path<'_>) {
    let subjects = rule.list("subjects");
    let subjects_path = path.child("subjects");
    if subjects.is_empty() {
        errors.push(Error::required(&subjects_path, "subjects must contain at least one value"));
    }
    for (index, own) in subjects.iter().enumerate() {
        subject(errors, own, &subjects_path.index(index));
    }
    let (resources, paths) = (rule.list("resourceRules"), rule.list("nonResourceRules"));
    if resources.is_empty() && paths.is_empty() {
        errors.push(Error::required(
            path,
            "at least one of resourceRules and nonResourceRules has to be non-empty",
        ));
    }
    let list_path = path.child("resourceRules");
    for (index, own) in resources.iter().enumerate() {
        resource_rule(errors, own, &list_path.index(index));
    }
    let list_path = path.child("nonResourceRules");
    for (index, own) in paths.iter().enumerate() {
        path_rule(errors, own, &list_path.index(index));
    }
}

/// The kinds of subject and the field each one uses.
const SUBJECTS: &[(&str, &str)] =
    &[("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];

fn subject(errors: &mut ErrorList, subject: &Value, path: &Path<'_>) {
    let kind = subject.text("kind");
    let Some((_, own)) = SUBJECTS.iter().find(|(name, _)| *name == kind) else {
        errors.push(Error::not_supported(&path.child("kind"), kind, &["Group", "ServiceAccount", "User"]));
        return;
    };
    let own_path = path.child(own);
    match subject.maybe(own) {
        None => {
            errors
                .push(Error::required(&own_path, format!("{own} is required when subject kind is '{kind}'")));
        }
        Some(value) => {
            let name = value.text("name");
            if name.is_empty() {
                errors.push(Error::required(&own_path.child("name"), ""));
            } else if kind == "ServiceAccount" && name != "*" {
                invalid_each(errors, &own_path.child("name"), name, text::dns1123_subdomain(name));
            }
            if kind == "ServiceAccount" {
                let path = own_path.child("namespace");
                let namespace = value.text("namespace");
                if namespace.is_empty() {
                    errors.push(Error::required(&path, "must specify namespace for service account"));
                } else {
                    invalid_each(errors, &path, namespace, text::dns1123_label(namespace));
                }
            }
        }
    }
    for (name, key) in SUBJECTS {
        if *name != kind && subject.has(key) {
            let detail = format!("{key} is forbidden when subject kind is not '{name}'");
            errors.push(Error::forbidden(&path.child(key), detail));
        }
    }
}

fn has_wildcard(items: &[Value]) -> bool {
    items.iter().any(|item| item_text(item) == "*")
}

fn verbs(errors: &mut ErrorList, rule: &Value, path: &Path<'_>) {
    let path = path.child("verbs");
    let verbs = rule.list("verbs");
    if verbs.is_empty() {
        errors.push(Error::required(&path, "verbs must contain at least one value"));
    } else if has_wildcard(verbs) {
        alone(errors, rule, "verbs", &path, "verbs");
    } else if !verbs.iter().all(|verb| VERBS.contains(&item_text(verb))) {
        errors.push(Error::not_supported(&path, &rule["verbs"], VERBS));
    }
}

/// `*` stands alone.
fn alone(errors: &mut ErrorList, rule: &Value, key: &str, path: &Path<'_>, what: &str) {
    let items = rule.list(key);
    if items.len() > 1 && has_wildcard(items) {
        let detail = format!("if '*' is present, must not specify other {what}");
        errors.push(Error::invalid(path, &rule[key], detail));
    }
}

fn resource_rule(errors: &mut ErrorList, rule: &Value, path: &Path<'_>) {
    verbs(errors, rule, path);
    for (key, one, many) in [("apiGroups", "api group", "api groups"), ("resources", "resource", "resources")]
    {
        let path = path.child(key);
        if rule.list(key).is_empty() {
            errors.push(Error::required(&path, format!("resource rules must supply at least one {one}")));
        }
        alone(errors, rule, key, &path, many);
    }
    let path = path.child("namespaces");
    let namespaces = rule.list("namespaces");
    if namespaces.is_empty() && !rule.truth("clusterScope") {
        errors.push(Error::required(
            &path,
            "resource rules that are not cluster scoped must supply at least one namespace",
        ));
    } else if has_wildcard(namespaces) {
        alone(errors, rule, "namespaces", &path, "namespaces");
    } else {
        for (index, namespace) in namespaces.iter().enumerate() {
            let namespace = item_text(namespace);
            for message in text::dns1123_label(namespace) {
                let detail = format!("each member of this list must be '*' or a DNS-1123 label; {message}");
                errors.push(Error::invalid(&path.index(index), namespace, detail));
            }
        }
    }
}

fn path_rule(errors: &mut ErrorList, rule: &Value, path: &Path<'_>) {
    verbs(errors, rule, path);
    let path = path.child("nonResourceURLs");
    let urls = rule.list("nonResourceURLs");
    if urls.is_empty() {
        errors.push(Error::required(&path, "nonResourceURLs must contain at least one value"));
    } else if has_wildcard(urls) {
        alone(errors, rule, "nonResourceURLs", &path, "non-resource URLs");
    } else {
        for (index, url) in urls.iter().enumerate() {
            let url = item_text(url);
            if let Some(detail) = wrong_url(url) {
                errors.push(Error::invalid(&path.index(index), url, detail));
            }
        }
    }
}

fn wrong_url(url: &str) -> Option<&'static str> {
    if url.is_empty() {
        Some("must not be empty")
    } else if !url.starts_with('/') {
        Some("must start with slash")
    } else if url.contains(' ') {
        Some("must not contain white-space")
    } else if url.contains("//") {
        Some("must not contain double slash")
    } else {
        match url.matches('*').count() {
            0 => None,
            1 if url.ends_with("/*") => None,
            _ => Some("wildcard can only do suffix matching"),
        }
    }
}

pub struct PriorityLevelConfiguration;

impl Strategy for PriorityLevelConfiguration {
    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        priority_level(&mut errors, object["metadata"].text("name"), &object["spec"], &Path::root("spec"));
        conditions(&mut errors, &object["status"]);
        errors
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, _old: &Value) -> ErrorList {
        validate_update(self, ctx, new)
    }
}

fn priority_level(errors: &mut ErrorList, name: &str, spec: &Value, path: &Path<'_>) {
    let kind = spec.text("type");
    if (name == EXEMPT) != (kind == "Exempt") {
        errors.push(Error::invalid(
            &path.child("type"),
            kind,
            "must be 'Exempt' if and only if `name` is 'exempt'",
        ));
    }
    let (limited_path, exempt_path) = (path.child("limited"), path.child("exempt"));
    match kind {
        "Exempt" => {
            if spec.has("limited") {
                errors.push(Error::forbidden(&limited_path, "must be nil if the type is not Limited"));
            }
            if let Some(exempt) = spec.maybe("exempt") {
                shares(errors, exempt, &exempt_path);
            }
        }
        "Limited" => {
            if spec.has("exempt") {
                errors.push(Error::forbidden(&exempt_path, "must be nil if the type is Limited"));
            }
            match spec.maybe("limited") {
                None => errors.push(Error::required(&limited_path, "must not be empty when type is Limited")),
                Some(own) => limited(errors, own, &limited_path),
            }
        }
        _ => errors.push(Error::not_supported(&path.child("type"), kind, &["Exempt", "Limited"])),
    }
}

fn shares(errors: &mut ErrorList, own: &Value, path: &Path<'_>) {
    share_count(errors, own, path);
    lendable(errors, own, path);
}

fn share_count(errors: &mut ErrorList, own: &Value, path: &Path<'_>) {
    let shares = own.int("nominalConcurrencyShares");
    if shares < 0 {
        let path = path.child("nominalConcurrencyShares");
        errors.push(Error::invalid(&path, shares, "must be a non-negative integer"));
    }
}

fn lendable(errors: &mut ErrorList, own: &Value, path: &Path<'_>) {
    let percent = own.int("lendablePercent");
    if !(0..=100).contains(&percent) {
        let path = path.child("lendablePercent");
        errors.push(Error::invalid(&path, percent, "must be between 0 and 100, inclusive"));
    }
}

fn limited(errors: &mut ErrorList, own: &Value, path: &Path<'_>) {
    share_count(errors, own, path);
    limit_response(errors, &own["limitResponse"], &path.child("limitResponse"));
    lendable(errors, own, path);
    let percent = own.int("borrowingLimitPercent");
    if percent < 0 {
        let path = path.child("borrowingLimitPercent");
        errors.push(Error::invalid(&path, percent, "if specified, must be a non-negative integer"));
    }
}

fn limit_response(errors: &mut ErrorList, response: &Value, path: &Path<'_>) {
    let queuing_path = path.child("queuing");
    let own = response.maybe("queuing");
    match (response.text("type"), own) {
        ("Reject", None) => {}
        ("Reject", Some(_)) => errors.push(Error::forbidden(
            &queuing_path,
            "must be nil if limited.limitResponse.type is not Limited",
        )),
        ("Queue", None) => errors.push(Error::required(
            &queuing_path,
            "must not be empty if limited.limitResponse.type is Limited",
        )),
        ("Queue", Some(own)) => queuing(errors, own, &queuing_path),
        (other, _) => supported(errors, other, &path.child("type"), &["Queue", "Reject"]),
    }
}

fn queuing(errors: &mut ErrorList, own: &Value, path: &Path<'_>) {
    const POSITIVE: &str = "must be positive";
    let (limit, queues, hand) = (own.int("queueLengthLimit"), own.int("queues"), own.int("handSize"));
    if limit <= 0 {
        errors.push(Error::invalid(&path.child("queueLengthLimit"), limit, POSITIVE));
    }
    if queues <= 0 {
        errors.push(Error::invalid(&path.child("queues"), queues, POSITIVE));
    } else if queues > QUEUES_MAX {
        let detail = format!("must not be greater than {QUEUES_MAX}");
        errors.push(Error::invalid(&path.child("queues"), queues, detail));
    }
    let path = path.child("handSize");
    if hand <= 0 {
        errors.push(Error::invalid(&path, hand, POSITIVE));
    } else if hand > queues {
        errors.push(Error::invalid(&path, hand, format!("should not be greater than queues ({queues})")));
    } else if entropy_bits(queues, hand) > HASH_BITS {
        let detail = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {HASH_BITS}"
        );
        errors.push(Error::invalid(&path, hand, detail));
    }
}

/// Bits of a hash that dealing `hand` of `queues` takes, estimated as upstream does: as if every card were put back.
fn entropy_bits(queues: i64, hand: i64) -> f64 {
    // Both are at most ten million, which floats hold exactly.
    ((queues as f64).log2() * hand as f64).ceil()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropy() {
        assert!(entropy_bits(1024, 6) <= HASH_BITS);
        assert!(entropy_bits(1025, 6) > HASH_BITS);
    }
}
