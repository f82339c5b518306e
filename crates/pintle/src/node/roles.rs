//! Who the parts of a node are to the API, and what they may.

use apimachinery::{Value, json};

use crate::rbac::{binding, role};

/// Serves Services, policies and names on a node: it reads.
pub const NETWORK: &str = "system:pintle:network";

/// What of the network there is once in a cluster: addresses of load balancers, and where cluster DNS is.
pub const CLUSTER_NETWORK: &str = "system:pintle:cluster-network";

/// Makes and removes the volumes of the StorageClass `local`.
pub const VOLUMES: &str = "system:pintle:local-volumes";

/// Lets nodes elsewhere act as their own parts.
const PARTS_OF_NODES: &str = "system:pintle:parts-of-nodes";

/// The ClusterRoles and bindings of what runs on nodes beside the agent, which has the Node authorizer's.
pub fn policy() -> Vec<Value> {
    let read = ["get", "list", "watch"];
    let network = json!([
        {"apiGroups": [""], "resources": ["services", "endpoints", "nodes", "pods", "namespaces"], "verbs": read.to_vec()},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read.to_vec()},
        {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": read.to_vec()},
    ]);
    let cluster_network = json!([
        {"apiGroups": [""], "resources": ["nodes"], "verbs": read.to_vec()},
        {"apiGroups": [""], "resources": ["services"], "verbs": ["get", "list", "watch", "create", "patch"]},
        {"apiGroups": [""], "resources": ["services/status"], "verbs": ["patch", "update"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"],
            "verbs": ["get", "list", "watch", "create", "patch"]},
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
    let parts = json!([
        {"apiGroups": [""], "resources": ["users"], "resourceNames": [NETWORK, VOLUMES], "verbs": ["impersonate"]},
    ]);
    for (name, rules) in [(NETWORK, network), (CLUSTER_NETWORK, cluster_network), (VOLUMES, volumes)] {
        objects.extend(bound(name, rules, ("User", name)));
    }
    objects.extend(bound(PARTS_OF_NODES, parts, ("Group", "system:nodes")));
    objects
}

fn bound(name: &str, rules: Value, subject: (&str, &str)) -> [Value; 2] {
    [
        role("ClusterRole", "", name, rules),
        binding("ClusterRoleBinding", "", name, ("ClusterRole", name), subject),
    ]
}
