//! Columns of role bindings; roles have the plain ones.

use apimachinery::Value;
use jiff::Timestamp;

use super::{AGE, Kinds, NAME, cell, text, wide};
use crate::strategy::Column;

pub(super) const KINDS: Kinds =
    &[("ClusterRoleBinding", BINDING, binding), ("RoleBinding", BINDING, binding)];

const BINDING: &[Column] = &[NAME, text("Role"), AGE, wide("Users"), wide("Groups"), wide("ServiceAccounts")];

fn binding(object: &Value, now: Timestamp) -> Vec<Value> {
    let role = |field| object.str_at(&["roleRef", field]);
    let subjects = |kind: &str, name: fn(&Value) -> String| {
        let own = object.array_at(&["subjects"]).iter().filter(|subject| subject.str_at(&["kind"]) == kind);
        own.map(name).collect::<Vec<_>>().join(", ").into()
    };
    vec![
        cell::name(object),
        format!("{}/{}", role("kind"), role("name")).into(),
        cell::age(object, now),
        subjects("User", plain_name),
        subjects("Group", plain_name),
        subjects("ServiceAccount", namespaced_name),
    ]
}

fn plain_name(subject: &Value) -> String {
    subject.str_at(&["name"]).to_owned()
}

fn namespaced_name(subject: &Value) -> String {
    format!("{}/{}", subject.str_at(&["namespace"]), subject.str_at(&["name"]))
}
