//! Whether a pod that was bound to this node may run here. Pure: a table of cases is its test.
//!
//! The scheduler has looked before, but others may bind pods, too, and the node may have changed. A pod that the node
//! refuses fails and stays to be looked at; reasons and messages are the kubelet's.

use std::collections::BTreeSet;

use api::amounts::Amounts;
use api::placement;
use api::pod_resources::{self, Counted};
use api::view;
use apimachinery::{Quantity, value};
use k8s_openapi::api::core::v1::Pod;

use super::config::resources::{QosClass, qos_class};
use super::config::{NodeFacts, security};
use super::eviction::Pressures;
use super::eviction::rank;
use super::eviction::thresholds::Pressure;
use super::static_pods::is_static;

const MEMORY_PRESSURE_TAINT: &str = "node.kubernetes.io/memory-pressure";

/// Why a pod is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub reason: String,
    pub message: String,
}

impl Rejection {
    fn new(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into() }
    }

    fn predicate(name: &str, why: &str) -> Self {
        Self::new(name, format!("Predicate {name} failed: {why}"))
    }

    /// Whether there is too little of something, which pods that are less important may be holding.
    pub fn is_lack(&self) -> bool {
        self.reason.starts_with("OutOf")
    }

    /// Whether a node that was read again may say otherwise.
    pub fn depends_on_node(&self) -> bool {
        matches!(
            self.reason.as_str(),
            "NodeAffinity" | "TaintToleration" | "PodOSSelectorNodeLabelDoesNotMatch"
        )
    }
}

/// What is known of the node.
pub struct Facts<'a> {
    pub node: &'a NodeFacts,
    /// As the API has it.
    pub object: &'a view::Node,
    pub pressures: &'a Pressures,
    /// `status.allocatable`, with how many pods there may be.
    pub allocatable: &'a Amounts,
    /// Pods that were admitted and have not ended.
    pub others: &'a [&'a Pod],
}

/// # Errors
/// Why the pod may not run here.
pub fn admit(pod: &Pod, seen: &view::Pod, facts: &Facts<'_>) -> Result<(), Rejection> {
    pressure(pod, seen, facts.pressures)?;
    security::sysctls(pod, facts.node).map_err(|refusal| Rejection::new(refusal.reason, refusal.message))?;
    system(pod, seen)?;
    resources(pod, facts)?;
    if !placement::is_required_match(&seen.spec, facts.object) {
        let why = "node(s) didn't match Pod's node affinity/selector";
        return Err(Rejection::predicate("NodeAffinity", why));
    }
    ports(pod, facts.others)?;
    let mut hard = facts.object.spec.taints.iter().filter(|taint| taint.effect == "NoExecute");
    if !is_static(pod) && hard.any(|taint| !placement::is_tolerated(taint, &seen.spec.tolerations)) {
        let why = "node(s) had taints that the pod didn't tolerate";
        return Err(Rejection::predicate("TaintToleration", why));
    }
    Ok(())
}

/// Which of the others have to go so that a critical pod finds room; `None` where even that does not help. As few as
/// possible, the least important first.
pub fn victims<'a>(pod: &Pod, facts: &Facts<'a>) -> Option<Vec<&'a Pod>> {
    if !rank::is_critical(pod) {
        return None;
    }
    let importance = |other: &&Pod| {
        let class = match qos_class(other) {
            QosClass::BestEffort => 0,
            QosClass::Burstable => 1,
            QosClass::Guaranteed => 2,
        };
        (class, other.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0))
    };
    let mut waiting: Vec<&Pod> =
        facts.others.iter().copied().filter(|other| !rank::is_critical(other)).collect();
    waiting.sort_by_cached_key(|other| std::cmp::Reverse(importance(other)));
    let fits_without = |gone: &[&Pod]| {
        let is_gone = |other: &Pod| gone.iter().any(|own| std::ptr::eq(*own, other));
        let others: Vec<&Pod> = facts.others.iter().copied().filter(|other| !is_gone(other)).collect();
        resources(pod, &Facts { others: &others, ..*facts }).is_ok()
    };
    let mut chosen = Vec::new();
    while !fits_without(&chosen) {
        chosen.push(waiting.pop()?);
    }
    // The most important ones were chosen last, and may have made others' going needless.
    for candidate in chosen.clone() {
        let rest: Vec<&Pod> = chosen.iter().copied().filter(|own| !std::ptr::eq(*own, candidate)).collect();
        if fits_without(&rest) {
            chosen = rest;
        }
    }
    Some(chosen)
}

/// A node that is short of memory takes pods that asked for some; one that is short of anything else takes none.
fn pressure(pod: &Pod, seen: &view::Pod, pressures: &Pressures) -> Result<(), Rejection> {
    if pressures.is_empty() || rank::is_critical(pod) {
        return Ok(());
    }
    if pressures.iter().all(|own| *own == Pressure::Memory) {
        let taint = view::Taint {
            key: MEMORY_PRESSURE_TAINT.into(),
            effect: "NoSchedule".into(),
            ..view::Taint::default()
        };
        if qos_class(pod) != QosClass::BestEffort || placement::is_tolerated(&taint, &seen.spec.tolerations) {
            return Ok(());
        }
    }
    let all: Vec<&str> = pressures.iter().map(|own| own.as_str()).collect();
    Err(Rejection::new("Evicted", format!("The node had condition: [{}]. ", all.join(" "))))
}

fn system(pod: &Pod, seen: &view::Pod) -> Result<(), Rejection> {
    if seen.spec.node_selector.get("kubernetes.io/os").is_some_and(|os| os != "linux") {
        let message = "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label";
        return Err(Rejection::new("PodOSSelectorNodeLabelDoesNotMatch", message));
    }
    let os = pod.spec.as_ref().and_then(|spec| spec.os.as_ref());
    if os.is_some_and(|os| os.name != "linux") {
        let message = "Failed to admit pod as the OS field doesn't match node OS";
        return Err(Rejection::new("PodOSNotSupported", message));
    }
    Ok(())
}

/// What the pod asks for, whatever it has.
pub fn requests(pod: &Pod) -> Amounts {
    let counted = Counted { status: false, ..Counted::ALL };
    value::to_value(pod).map(|tree| pod_resources::requests(&tree, counted)).unwrap_or_default()
}

/// What the pod occupies on its node.
fn occupied(pod: &Pod) -> Amounts {
    value::to_value(pod).map(|tree| pod_resources::requests(&tree, Counted::ALL)).unwrap_or_default()
}

fn resources(pod: &Pod, facts: &Facts<'_>) -> Result<(), Rejection> {
    room(&requests(pod), facts.allocatable, facts.others)
}

/// Whether there is room for a pod that asks for this beside `others`.
///
/// # Errors
/// What there is too little of.
pub fn room(requests: &Amounts, allocatable: &Amounts, others: &[&Pod]) -> Result<(), Rejection> {
    let insufficient = |resource: &str, requested: i64, used: i64, capacity: i64| {
        let message = format!(
            "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
        );
        Err(Rejection::new(format!("OutOf{resource}"), message))
    };
    let number = |resource: &str, amount: Quantity| match resource {
        "cpu" => amount.milli_value(),
        _ => amount.value(),
    };
    let pods_max = allocatable.get("pods").map_or(i64::MAX, |pods| pods.value());
    let count = i64::try_from(others.len()).unwrap_or(i64::MAX);
    if count >= pods_max {
        return insufficient("pods", 1, count, pods_max);
    }
    let mut sum = Amounts::default();
    if requests.iter().any(|(_, amount)| amount.sign() > 0) {
        others.iter().for_each(|other| sum.add(&occupied(other)));
    }
    for (resource, amount) in requests.iter().filter(|(_, amount)| amount.sign() > 0) {
        // What the node has none of was somebody else's promise, as with extended resources of the cluster.
        let Some(capacity) = allocatable.get(resource) else { continue };
        let (requested, capacity) = (number(resource, amount), number(resource, capacity));
        let used = sum.get(resource).map_or(0, |used| number(resource, used));
        if requested > capacity.saturating_sub(used) {
            return insufficient(resource, requested, used, capacity);
        }
    }
    Ok(())
}

/// Ports of the host, with protocol and address.
fn host_ports(pod: &Pod) -> BTreeSet<(i32, &str, &str)> {
    let Some(spec) = &pod.spec else { return BTreeSet::new() };
    let is_sidecar =
        |own: &&k8s_openapi::api::core::v1::Container| own.restart_policy.as_deref() == Some("Always");
    let all = spec.containers.iter().chain(spec.init_containers.iter().flatten().filter(is_sidecar));
    all.flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            let host_port = port.host_port.filter(|port| *port > 0)?;
            let address = port.host_ip.as_deref().filter(|ip| !ip.is_empty()).unwrap_or("0.0.0.0");
            Some((host_port, port.protocol.as_deref().unwrap_or("TCP"), address))
        })
        .collect()
}

fn ports(pod: &Pod, others: &[&Pod]) -> Result<(), Rejection> {
    let wanted = host_ports(pod);
    let collides = |taken: &(i32, &str, &str)| {
        wanted.iter().any(|own| {
            (own.0, own.1) == (taken.0, taken.1)
                && (own.2 == taken.2 || own.2 == "0.0.0.0" || taken.2 == "0.0.0.0")
        })
    };
    if !wanted.is_empty() && others.iter().any(|other| host_ports(other).iter().any(collides)) {
        let why = "node(s) didn't have free ports for the requested pod ports";
        return Err(Rejection::predicate("NodePorts", why));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::config::fixture;

    fn said(spec: serde_json::Value, pressures: &[Pressure], others: &[&Pod]) -> String {
        let mut full = serde_json::json!({"containers": [{"name": "c"}]});
        let fields = spec.as_object().expect("an object").clone();
        full.as_object_mut().expect("an object").extend(fields);
        let pod = fixture::pod(full.clone());
        let seen: view::Pod = serde_json::from_value(serde_json::json!({"spec": full})).expect("a pod");
        let object: view::Node = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "n1", "labels": {"disk": "ssd"}},
            "spec": {"taints": [{"key": "broken", "effect": "NoExecute"}, {"key": "soft", "effect": "NoSchedule"}]},
        }))
        .expect("a node");
        let allocatable = Amounts::of(Some(&apimachinery::json!({"cpu": "2", "memory": "1Gi", "pods": "2"})));
        let node = fixture::node();
        let pressures = pressures.iter().copied().collect();
        let facts =
            Facts { node: &node, object: &object, pressures: &pressures, allocatable: &allocatable, others };
        match admit(&pod, &seen, &facts) {
            Ok(()) => "admitted".to_owned(),
            Err(rejection) => format!("{}: {}", rejection.reason, rejection.message),
        }
    }

    #[test]
    fn a_node_refuses_what_it_cannot_keep() {
        use serde_json::json;
        let asks = |cpu: &str, memory: &str| {
            json!([{"name": "c", "ports": [{"containerPort": 1, "hostPort": 80}],
                "resources": {"requests": {"cpu": cpu, "memory": memory, "example.com/x": "1"}}}])
        };
        let tolerates = json!([{"key": "broken", "operator": "Exists"}]);
        let with = |containers: serde_json::Value| json!({"containers": containers, "tolerations": tolerates.clone()});
        let other = fixture::pod(json!({"containers": asks("1500m", "512Mi")}));
        let mild = json!([{"operator": "Exists"}]);
        for (spec, pressures, others, wanted) in [
            (with(json!([{"name": "c"}])), &[][..], vec![], "admitted"),
            (
                json!({}),
                &[],
                vec![],
                "TaintToleration: Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate",
            ),
            (with(asks("2", "1Gi")), &[], vec![], "admitted"),
            (
                with(asks("501m", "1")),
                &[],
                vec![&other],
                "OutOfcpu: Node didn't have enough resource: cpu, requested: 501, used: 1500, capacity: 2000",
            ),
            (
                with(asks("1m", "513Mi")),
                &[],
                vec![&other],
                "OutOfmemory: Node didn't have enough resource: memory, requested: 537919488, used: 536870912, capacity: 1073741824",
            ),
            (
                with(asks("1m", "1")),
                &[],
                vec![&other],
                "NodePorts: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
            ),
            (
                with(json!([{"name": "c"}])),
                &[],
                vec![&other, &other],
                "OutOfpods: Node didn't have enough resource: pods, requested: 1, used: 2, capacity: 2",
            ),
            (
                json!({"nodeSelector": {"disk": "tape"}}),
                &[],
                vec![],
                "NodeAffinity: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
            ),
            (
                json!({"nodeSelector": {"kubernetes.io/os": "windows"}}),
                &[],
                vec![],
                "PodOSSelectorNodeLabelDoesNotMatch: Failed to admit pod as the `kubernetes.io/os` label doesn't match node label",
            ),
            (
                json!({"os": {"name": "windows"}}),
                &[],
                vec![],
                "PodOSNotSupported: Failed to admit pod as the OS field doesn't match node OS",
            ),
            (
                json!({"securityContext": {"sysctls": [{"name": "vm.swappiness", "value": "1"}]}}),
                &[],
                vec![],
                "SysctlForbidden: forbidden sysctl: \"vm.swappiness\" not allowlisted",
            ),
            (json!({"tolerations": mild}), &[Pressure::Memory], vec![], "admitted"),
            (
                with(json!([{"name": "c"}])),
                &[Pressure::Memory],
                vec![],
                "Evicted: The node had condition: [MemoryPressure]. ",
            ),
            (with(asks("1m", "1")), &[Pressure::Memory], vec![], "admitted"),
            (
                with(asks("1m", "1")),
                &[Pressure::Memory, Pressure::Disk],
                vec![],
                "Evicted: The node had condition: [MemoryPressure DiskPressure]. ",
            ),
            (json!({"tolerations": mild, "priority": 2_000_000_000}), &[Pressure::Disk], vec![], "admitted"),
        ] {
            assert_eq!(said(spec.clone(), pressures, &others), wanted, "{spec}");
        }
    }

    #[test]
    fn as_few_as_possible_go_for_a_critical_pod() {
        use serde_json::json;
        let asking = |priority: i32, cpu: &str| {
            fixture::pod(json!({"priority": priority,
                "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}))
        };
        let all = [asking(0, "100m"), asking(1, "900m"), asking(2, "500m"), asking(2_000_000_000, "500m")];
        let node = fixture::node();
        let (object, pressures) = (view::Node::default(), Pressures::new());
        let allocatable = Amounts::of(Some(&apimachinery::json!({"cpu": "2"})));
        let others: Vec<&Pod> = all.iter().collect();
        let facts = Facts {
            node: &node,
            object: &object,
            pressures: &pressures,
            allocatable: &allocatable,
            others: &others,
        };
        let chosen = |pod: Pod| -> Option<Vec<usize>> {
            let number = |own: &Pod| all.iter().position(|other| std::ptr::eq(own, other));
            victims(&pod, &facts).map(|gone| gone.into_iter().filter_map(number).collect())
        };
        let critical = 2_000_000_000;
        assert_eq!(chosen(asking(critical - 1, "1m")), None, "it is not critical");
        assert_eq!(chosen(asking(critical, "100m")), Some(vec![0]));
        assert_eq!(chosen(asking(critical, "900m")), Some(vec![1]), "the first one's going is needless then");
        assert_eq!(chosen(asking(critical, "1500m")), Some(vec![0, 1, 2]));
        assert_eq!(chosen(asking(critical, "1501m")), None, "critical pods stay");
    }
}
