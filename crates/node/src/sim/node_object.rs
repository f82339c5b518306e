//! Simulated nodes as objects.

use std::net::Ipv4Addr;

use api::view::{Node, SIMULATED, SIMULATED_ANNOTATION};
use apimachinery::{Str, Value, json, time};

use super::Plan;

/// A node of the plan.
pub(super) fn node(plan: &Plan, index: usize) -> Value {
    let options = &plan.options;
    let name = name(plan, index);
    let pod_cidr = plan.pod_cidr.subnet(plan.node_prefix, index).to_string();
    let mut node = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name.as_str(),
            "annotations": {SIMULATED_ANNOTATION: SIMULATED, "node.alpha.kubernetes.io/ttl": "0"},
            "labels": {
                "beta.kubernetes.io/arch": "amd64",
                "beta.kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
                "kubernetes.io/hostname": name.as_str(),
                "kubernetes.io/os": "linux",
                "type": "kwok",
            },
        },
        "spec": {"podCIDR": pod_cidr.as_str(), "podCIDRs": [pod_cidr.as_str()]},
    });
    for (key, value) in &options.labels {
        node.ensure_object_at(&["metadata", "labels"]).insert(key.clone(), value.clone());
    }
    node.set_at(&["status"], status(plan, index));
    node
}

/// The status of a node of the plan. A server may drop it from the creation, so it is also what makes a node ready
/// that has none.
pub(super) fn status(plan: &Plan, index: usize) -> Value {
    let options = &plan.options;
    let resources = json!({
        "cpu": options.cpu.as_str(), "memory": options.memory.as_str(), "pods": options.pods.to_string(),
    });
    let mut status = ready_status(&Node::default(), &options.kubelet_version);
    status.set_at(&["capacity"], resources.clone());
    status.set_at(&["allocatable"], resources);
    let address = Plan::node_cidr().address(index as u32 + 1);
    status.set_at(&["addresses"], addresses(&name(plan, index), address));
    status
}

pub(super) fn addresses(name: &str, address: Ipv4Addr) -> Value {
    json!([{"type": "InternalIP", "address": address.to_string()}, {"type": "Hostname", "address": name}])
}

pub(super) fn name(plan: &Plan, index: usize) -> Str {
    format!("{}-{index}", plan.options.name_prefix).into()
}

/// Every condition with upstream's reason and message when all is well.
pub(super) const CONDITIONS: [[&str; 4]; 5] = [
    ["Ready", "True", "KubeletReady", "kubelet is posting ready status"],
    ["MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"],
    ["DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"],
    ["PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"],
    ["NetworkUnavailable", "False", "RouteCreated", "RouteController created a route"],
];

/// What a node is given that its maker left out, so that pods can be placed on it.
const DEFAULT_CAPACITY: [(&str, &str); 3] = [("cpu", "1k"), ("memory", "1Ti"), ("pods", "1M")];

/// The status patch that makes a node ready; what the node says about itself stays.
pub(super) fn ready_status(node: &Node, kubelet_version: &str) -> Value {
    let now = time::format_seconds(rt::now());
    let conditions = CONDITIONS.iter().map(|[type_, status, reason, message]| {
        json!({
            "type": type_, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": now.as_str(), "lastTransitionTime": now.as_str(),
        })
    });
    let info = &node.status.node_info;
    let or = |own: &Str, default: &str| if own.is_empty() { Str::from(default) } else { own.clone() };
    let mut status = json!({
        "nodeInfo": {
            "architecture": or(&info.architecture, "amd64").as_str(),
            "operatingSystem": or(&info.operating_system, "linux").as_str(),
            "kubeletVersion": or(&info.kubelet_version, kubelet_version).as_str(),
            "containerRuntimeVersion": "sim://1.0", "kernelVersion": "sim", "osImage": "Simulated",
            "kubeProxyVersion": "", "bootID": "", "machineID": "", "systemUUID": "",
        },
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
        "phase": "Running",
    });
    status.set_at(&["conditions"], Value::from_iter(conditions));
    for (field, own) in [("capacity", &node.status.capacity), ("allocatable", &node.status.allocatable)] {
        if own.is_empty() {
            let defaults =
                DEFAULT_CAPACITY.iter().map(|(name, amount)| (Str::from(*name), Value::from(*amount)));
            status.set_at(&[field], Value::from_iter(defaults));
        }
    }
    status
}
