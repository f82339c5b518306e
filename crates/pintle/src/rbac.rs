//! Roles of the parts of the platform, and their bindings, as objects. They are brought up to date at each start.

use apimachinery::{Value, json};

const RBAC: &str = "rbac.authorization.k8s.io";

/// A ClusterRole, or a Role of a namespace.
pub fn role(kind: &str, namespace: &str, name: &str, rules: Value) -> Value {
    let mut object = named(kind, namespace, name);
    object.set_at(&["rules"], rules);
    object
}

/// A ClusterRoleBinding or RoleBinding of a role, by kind and name, to a subject, by kind and name.
pub fn binding(kind: &str, namespace: &str, name: &str, role: (&str, &str), subject: (&str, &str)) -> Value {
    let mut object = named(kind, namespace, name);
    object.set_at(&["roleRef"], json!({"apiGroup": RBAC, "kind": role.0, "name": role.1}));
    object.set_at(&["subjects"], json!([{"apiGroup": RBAC, "kind": subject.0, "name": subject.1}]));
    object
}

fn named(kind: &str, namespace: &str, name: &str) -> Value {
    let mut object = json!({
        "apiVersion": format!("{RBAC}/v1"), "kind": kind,
        "metadata": {"name": name, "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"}},
    });
    if !namespace.is_empty() {
        object.set_at(&["metadata", "namespace"], namespace);
    }
    object
}
