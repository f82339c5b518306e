//! What pods cost.

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::{Str, Value, time};
use jiff::{SignedDuration, Timestamp};

use super::{Requirement, one};
use crate::amounts::Amounts;
use crate::kinds::core::pod::qos;
use crate::pod_resources::{self, Counted};
use crate::validation::resources::{is_extended, is_huge_pages, is_native};

const REQUESTS: &str = "requests.";
const DEVICE_CLASS: &str = "requests.deviceclass.resource.kubernetes.io/";
const NAMES: [&str; 10] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
];

/// A quota on one of these makes every container say what it needs. Upstream calls that a mistake that has to stay.
const REQUIRED: [&str; 6] =
    ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];

pub(super) fn counts_for(name: &str) -> bool {
    NAMES.contains(&name)
        || is_huge_pages(name)
        || name.strip_prefix(REQUESTS).is_some_and(|rest| is_huge_pages(rest) || !is_native(name))
        || name.starts_with(DEVICE_CLASS)
}

pub(super) fn usage(pod: &Value, now: Timestamp) -> Amounts {
    if !is_charged(pod, now) {
        return Amounts::default();
    }
    computed(&pod_resources::requests(pod, Counted::ALL), &pod_resources::limits(pod, Counted::ALL))
}

/// Pods that are done, and those that should have gone but cannot (their node is lost), are no longer charged.
pub(super) fn is_charged(pod: &Value, now: Timestamp) -> bool {
    if matches!(pod.str_at(&["status", "phase"]), "Failed" | "Succeeded") {
        return false;
    }
    let metadata = &pod["metadata"];
    let deadline = time::parse(metadata.str_at(&["deletionTimestamp"]));
    match (deadline, metadata["deletionGracePeriodSeconds"].as_i64()) {
        (Some(deadline), Some(grace)) => {
            deadline.checked_add(SignedDuration::from_secs(grace)).is_ok_and(|end| now <= end)
        }
        _ => true,
    }
}

/// Requests and limits under the names that quotas have for them.
fn computed(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut usage = Amounts::default();
    usage.set("pods", one());
    for (name, amount) in requests.iter() {
        let both = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") || is_huge_pages(name);
        if both {
            usage.set(name.clone(), amount);
        }
        if both || is_extended(name) || format!("{REQUESTS}{name}").starts_with(DEVICE_CLASS) {
            usage.set(format!("{REQUESTS}{name}"), amount);
        }
    }
    for (name, amount) in limits.iter() {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            usage.set(format!("limits.{name}"), amount);
        }
    }
    usage
}

pub(super) fn missing<'a>(names: impl Iterator<Item = &'a Str>, pod: &Value) -> Option<String> {
    if pod_resources::has_pod_level(pod) {
        return None;
    }
    let required: BTreeSet<&Str> = names.filter(|name| REQUIRED.contains(&name.as_str())).collect();
    let mut missing = BTreeMap::<&Str, BTreeSet<&str>>::new();
    for container in
        ["containers", "initContainers"].into_iter().flat_map(|list| pod.array_at(&["spec", list]))
    {
        let of = |which: &str| Amounts::of(container.at(&["resources", which]));
        let own = computed(&of("requests"), &of("limits"));
        for name in required.iter().filter(|name| own.get(name).is_none()) {
            missing.entry(name).or_default().insert(container.str_at(&["name"]));
        }
    }
    if missing.is_empty() {
        return None;
    }
    let each: Vec<String> = missing
        .into_iter()
        .map(|(name, containers)| {
            let containers: Vec<&str> = containers.into_iter().collect();
            format!("{name} for: {}", containers.join(","))
        })
        .collect();
    Some(format!("must specify {}", each.join("; ")))
}

/// A pod that ends by itself.
pub(super) fn is_terminating(pod: &Value) -> bool {
    pod["spec"]["activeDeadlineSeconds"].as_i64().is_some_and(|seconds| seconds >= 0)
}

pub(super) fn matches(pod: &Value, requirement: &Requirement) -> bool {
    let best_effort = || qos::class(&pod["spec"]) == "BestEffort";
    match requirement.scope.as_str() {
        "Terminating" => is_terminating(pod),
        "NotTerminating" => !is_terminating(pod),
        "BestEffort" => best_effort(),
        "NotBestEffort" => !best_effort(),
        "PriorityClass" => {
            let class = pod.str_at(&["spec", "priorityClassName"]);
            requirement.holds((!class.is_empty()).then_some(class))
        }
        "CrossNamespacePodAffinity" => crosses_namespaces(pod),
        _ => false,
    }
}

/// Whether the pod wants to be near to, or far from, pods of other namespaces.
fn crosses_namespaces(pod: &Value) -> bool {
    let crosses = |term: &Value| {
        !term.array_at(&["namespaces"]).is_empty()
            || term.get("namespaceSelector").is_some_and(|selector| !selector.is_null())
    };
    ["podAffinity", "podAntiAffinity"].into_iter().any(|kind| {
        let list = |name: &str| pod.array_at(&["spec", "affinity", kind, name]);
        list("requiredDuringSchedulingIgnoredDuringExecution").iter().any(crosses)
            || list("preferredDuringSchedulingIgnoredDuringExecution")
                .iter()
                .any(|weighted| crosses(&weighted["podAffinityTerm"]))
    })
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    fn now() -> Timestamp {
        time::parse("2026-01-01T00:00:00Z").expect("a time")
    }

    #[test]
    fn requests_and_limits_count_under_their_quota_names() {
        let pod = json!({"spec": {"containers": [{"name": "c", "resources": {
            "requests": {"cpu": "1", "hugepages-2Mi": "4Mi", "example.com/gpu": "2"},
            "limits": {"cpu": "2", "memory": "1Gi"},
        }}]}});
        assert_eq!(
            usage(&pod, now()).to_string(),
            "cpu=1,hugepages-2Mi=4Mi,limits.cpu=2,limits.memory=1Gi,pods=1,requests.cpu=1,requests.example.com/gpu=2,\
             requests.hugepages-2Mi=4Mi"
        );
        for name in ["pods", "requests.example.com/gpu", "hugepages-1Gi", "requests.hugepages-1Gi"] {
            assert!(counts_for(name), "{name}");
        }
        for name in ["example.com/gpu", "services", "requests.storage"] {
            assert!(!counts_for(name), "{name}");
        }
    }

    #[test]
    fn pods_that_are_done_or_stuck_are_free() {
        let marked = |deadline: &str| json!({"metadata": {"deletionTimestamp": deadline, "deletionGracePeriodSeconds": 30}, "spec": {}});
        assert!(is_charged(&json!({"spec": {}}), now()));
        assert!(!is_charged(&json!({"spec": {}, "status": {"phase": "Failed"}}), now()));
        assert!(is_charged(&marked("2025-12-31T23:59:40Z"), now()));
        assert!(!is_charged(&marked("2025-12-31T23:59:20Z"), now()));
    }

    #[test]
    fn containers_have_to_say_what_is_quotad() {
        let names = ["requests.memory".into(), "pods".into(), "limits.cpu".into()];
        let pod = json!({"spec": {"containers": [
            {"name": "b"}, {"name": "a", "resources": {"requests": {"memory": "1"}}}
        ]}});
        assert_eq!(
            missing(names.iter(), &pod).as_deref(),
            Some("must specify limits.cpu for: a,b; requests.memory for: b")
        );
        let whole = json!({"spec": {"resources": {"requests": {"cpu": "1"}}, "containers": [{"name": "a"}]}});
        assert_eq!(missing(names.iter(), &whole), None);
    }

    #[test]
    fn scopes_tell_pods_apart() {
        let scope = |name: &str, operator: &str| Requirement {
            scope: name.into(),
            operator: operator.into(),
            values: vec!["high".into()],
        };
        let pod = json!({"spec": {
            "activeDeadlineSeconds": 5, "priorityClassName": "high", "containers": [],
            "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                {"podAffinityTerm": {"namespaces": ["other"]}}
            ]}},
        }});
        for (name, operator, expected) in [
            ("Terminating", "Exists", true),
            ("NotTerminating", "Exists", false),
            ("BestEffort", "Exists", true),
            ("NotBestEffort", "Exists", false),
            ("PriorityClass", "In", true),
            ("PriorityClass", "NotIn", false),
            ("CrossNamespacePodAffinity", "Exists", true),
            ("VolumeAttributesClass", "Exists", false),
        ] {
            assert_eq!(matches(&pod, &scope(name, operator)), expected, "{name} {operator}");
        }
    }
}
