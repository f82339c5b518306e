//! Which kinds a policy is about, as far as it names them.

use std::collections::BTreeSet;

use apimachinery::{GroupVersion, GroupVersionKind, Value};
use client::Discovered;

/// With a rule that names as many, the kinds of the rules after it are not looked at.
const KINDS_MAX: usize = 10;

/// The kinds of the objects that `resourceRules` name without wildcards, as far as they are served; in order.
pub(super) fn of_objects(rules: &[Value], served: &[Discovered]) -> Vec<GroupVersionKind> {
    let mut kinds = BTreeSet::new();
    for rule in rules {
        let mut named = of_rule(rule, served);
        named.truncate(KINDS_MAX);
        let is_full = named.len() == KINDS_MAX;
        kinds.extend(named);
        if is_full {
            break;
        }
    }
    kinds.into_iter().collect()
}

/// The kind of the parameters.
pub(super) fn of_params(kind: &Value) -> Option<GroupVersionKind> {
    if kind.is_null() {
        return None;
    }
    Some(GroupVersion::parse(kind.str_at(&["apiVersion"]))?.with_kind(kind.str_at(&["kind"])))
}

fn of_rule(rule: &Value, served: &[Discovered]) -> Vec<GroupVersionKind> {
    // A wildcard makes a rule say nothing, but among resources it is only passed over, as subresources are.
    let groups = texts(rule, "apiGroups");
    let versions = texts(rule, "apiVersions");
    if groups.iter().chain(&versions).any(|text| text.contains('*')) {
        return Vec::new();
    }
    let mut resources = texts(rule, "resources");
    resources.retain(|text| !text.contains(['*', '/']));
    let mut kinds = Vec::new();
    for group in &groups {
        for version in &versions {
            for resource in &resources {
                kinds.extend(of_resource(group, version, resource, served));
            }
        }
    }
    kinds
}

/// An empty group stands for any, as in upstream's mapping of resources to kinds: `events` of `v1` are those of the core
/// and those of `events.k8s.io`.
fn of_resource<'a>(
    group: &'a str,
    version: &'a str,
    resource: &'a str,
    served: &'a [Discovered],
) -> impl Iterator<Item = GroupVersionKind> + use<'a> {
    let found = served.iter().filter(move |own| {
        (group.is_empty() || own.gvr.group == group)
            && own.gvr.version == version
            && own.gvr.resource == resource
    });
    found.map(|own| own.gvr.group_version().with_kind(&own.kind))
}

fn texts<'a>(rule: &'a Value, key: &str) -> Vec<&'a str> {
    let mut texts: Vec<&str> = rule.array_at(&[key]).iter().filter_map(Value::as_str).collect();
    texts.sort_unstable();
    texts
}
