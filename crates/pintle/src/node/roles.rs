//! Who the parts of a node are to the API, and what they may.

use std::sync::Arc;

use apimachinery::{Value, json};
use apiserver::ApiServer;
use auth::UserInfo;
use client::Api;

/// Serves Services, policies and names on each node, and gives load balancers their addresses.
const NETWORK: &str = "system:pintle:network";

/// Makes and removes the volumes of the StorageClass `local`.
const VOLUMES: &str = "system:pintle:local-volumes";

/// The ClusterRoles and bindings of what runs on nodes beside the agent, which has the Node authorizer's.
pub fn policy() -> Vec<Value> {
    let read = ["get", "list", "watch"];
    let network = json!([
        {"apiGroups": [""], "resources": ["services", "endpoints", "nodes", "pods", "namespaces"], "verbs": read.to_vec()},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read.to_vec()},
        {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": read.to_vec()},
        {"apiGroups": [""], "resources": ["services/status"], "verbs": ["patch", "update"]},
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["patch"]},
        {"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch", "update"]},
    ]);
    let volumes = json!([
        {"apiGroups": [""], "resources": ["persistentvolumes"],
            "verbs": ["get", "list", "watch", "create", "delete", "patch", "update"]},
        {"apiGroups": [""], "resources": ["persistentvolumeclaims"],
            "verbs": ["get", "list", "watch", "patch", "update"]},
        {"apiGroups": [""], "resources": ["persistentvolumes/status", "persistentvolumeclaims/status"],
            "verbs": ["patch", "update"]},
        {"apiGroups": ["storage.k8s.io"], "resources": ["storageclasses"],
            "verbs": ["get", "list", "watch", "create"]},
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]},
        {"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch", "update"]},
    ]);
    let mut objects = Vec::new();
    for (name, rules) in [(NETWORK, network), (VOLUMES, volumes)] {
        objects.extend(role(name, rules));
    }
    objects
}

fn role(name: &str, rules: Value) -> [Value; 2] {
    const GROUP: &str = "rbac.authorization.k8s.io";
    let object = |kind: &str| {
        json!({
            "apiVersion": format!("{GROUP}/v1"), "kind": kind,
            "metadata": {"name": name, "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"}},
        })
    };
    let (mut role, mut binding) = (object("ClusterRole"), object("ClusterRoleBinding"));
    role.set_at(&["rules"], rules);
    binding.set_at(&["roleRef"], json!({"apiGroup": GROUP, "kind": "ClusterRole", "name": name}));
    binding.set_at(&["subjects"], json!([{"apiGroup": GROUP, "kind": "User", "name": name}]));
    [role, binding]
}

pub(super) fn network_api(server: &ApiServer) -> Arc<dyn Api> {
    server.client(UserInfo::new(NETWORK).authenticated())
}

pub(super) fn volumes_api(server: &ApiServer) -> Arc<dyn Api> {
    server.client(UserInfo::new(VOLUMES).authenticated())
}
