//! What a `PodGroup` and the template of one in a `Workload` say alike.
//!
//! The rules are upstream's declarative ones. A field whose gate is off never comes here: it was dropped before.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use super::priority_class::USER_MAX;
use crate::validation::fields::{Fields, IMMUTABLE, invalid_each, one_of, require, same};
use crate::validation::text;

const CLAIMS_MAX: usize = 4;
const CONSTRAINTS_MAX: usize = 1;
const DISRUPTION_MODES: [&str; 2] = ["Pod", "PodGroup"];

/// Checks how the pods of a group are scheduled, in the order of the fields.
pub fn scheduling(errors: &mut ErrorList, group: &Value, path: &Path<'_>) {
    policy(errors, &group["schedulingPolicy"], &path.child("schedulingPolicy"));
    let topology = group["schedulingConstraints"].list("topology");
    constraints(errors, topology, &path.child("schedulingConstraints").child("topology"));
    resource_claims(errors, group.list("resourceClaims"), &path.child("resourceClaims"));
    if let Some(mode) = group.maybe_text("disruptionMode") {
        one_of(errors, mode, &path.child("disruptionMode"), &DISRUPTION_MODES);
    }
    let class = group.text("priorityClassName");
    if !class.is_empty() {
        invalid_each(errors, &path.child("priorityClassName"), class, text::dns1123_subdomain(class));
    }
    let priority = group.int("priority");
    if priority > USER_MAX {
        let why = format!("must be less than or equal to {USER_MAX}");
        errors.push(Error::invalid(&path.child("priority"), priority, why));
    }
}

fn policy(errors: &mut ErrorList, policy: &Value, path: &Path<'_>) {
    union(errors, policy, &["basic", "gang"], path);
    let Some(gang) = policy.maybe("gang") else { return };
    let path = path.child("gang");
    match gang.int("minCount") {
        0 => errors.push(Error::required(&path.child("minCount"), "")),
        1.. => {}
        low => {
            errors.push(Error::invalid(&path.child("minCount"), low, "must be greater than or equal to 1"));
        }
    }
}

fn constraints(errors: &mut ErrorList, topology: &[Value], path: &Path<'_>) {
    if !at_most(errors, topology, CONSTRAINTS_MAX, path) {
        return;
    }
    for (index, constraint) in topology.iter().enumerate() {
        let path = path.index(index);
        if require(errors, constraint, "key", &path) {
            let key = constraint.text("key");
            invalid_each(errors, &path.child("key"), key, text::qualified_name(key));
        }
    }
}

fn resource_claims(errors: &mut ErrorList, claims: &[Value], path: &Path<'_>) {
    if !at_most(errors, claims, CLAIMS_MAX, path) {
        return;
    }
    unique_names(errors, claims, path);
    for (index, claim) in claims.iter().enumerate() {
        let path = path.index(index);
        union(errors, claim, &["resourceClaimName", "resourceClaimTemplateName"], &path);
        name(errors, claim, "name", text::dns1123_label, &path);
        for key in ["resourceClaimName", "resourceClaimTemplateName"] {
            if let Some(name) = claim.maybe_text(key) {
                invalid_each(errors, &path.child(key), name, text::dns1123_subdomain(name));
            }
        }
    }
}

/// The claims that were made for a group, in its status.
pub fn claim_statuses(errors: &mut ErrorList, statuses: &[Value], path: &Path<'_>) {
    if !at_most(errors, statuses, CLAIMS_MAX, path) {
        return;
    }
    unique_names(errors, statuses, path);
    for (index, status) in statuses.iter().enumerate() {
        if let Some(name) = status.maybe_text("resourceClaimName") {
            let path = path.index(index);
            invalid_each(errors, &path.child("resourceClaimName"), name, text::dns1123_subdomain(name));
        }
    }
}

/// A text that has to be there and of a form.
pub fn name(
    errors: &mut ErrorList,
    object: &Value,
    key: &str,
    form: fn(&str) -> text::Messages,
    path: &Path<'_>,
) {
    if require(errors, object, key, path) {
        let name = object.text(key);
        invalid_each(errors, &path.child(key), name, form(name));
    }
}

/// Exactly one of `members` is set.
pub fn union(errors: &mut ErrorList, object: &Value, members: &[&str], path: &Path<'_>) {
    let set: Vec<&str> = members.iter().copied().filter(|member| object.has(member)).collect();
    let all: Vec<String> = members.iter().map(|member| format!("`{member}`")).collect();
    let all = all.join(", ");
    match set.len() {
        0 => errors.push(Error::invalid(path, "", format!("must specify one of: {all}"))),
        1 => {}
        _ => {
            let set = format!("{{{}}}", set.join(", "));
            errors.push(Error::invalid(path, set.as_str(), format!("must specify exactly one of: {all}")));
        }
    }
}

/// Complains about a list that is too long, whose items are not looked at then.
pub fn at_most(errors: &mut ErrorList, items: &[Value], max: usize, path: &Path<'_>) -> bool {
    if items.len() > max {
        errors.push(Error::too_many(path, items.len(), max));
    }
    items.len() <= max
}

/// Complains about items whose name another one before them has.
pub fn unique_names(errors: &mut ErrorList, items: &[Value], path: &Path<'_>) {
    for (index, item) in items.iter().enumerate() {
        if items[..index].iter().any(|other| other.text("name") == item.text("name")) {
            errors.push(Error::duplicate(&path.index(index), item));
        }
    }
}

/// Complains about each of these fields that changed.
pub fn unchanged(errors: &mut ErrorList, new: &Value, old: &Value, keys: &[&str], path: &Path<'_>) {
    for key in keys {
        if !same(&new[*key], &old[*key]) {
            errors.push(Error::invalid(&path.child(key), &Value::Null, IMMUTABLE));
        }
    }
}
