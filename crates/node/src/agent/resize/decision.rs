//! Whether what a pod asks for now may be granted, and who comes first. Pure.

use std::cmp::Reverse;

use api::amounts::Amounts;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::agent::admission;
use crate::agent::config::resources::{QosClass, qos_class};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Not now: others have the room.
    Deferred,
    /// Never on this node.
    Infeasible,
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deferred => "Deferred",
            Self::Infeasible => "Infeasible",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::Deferred, Self::Infeasible].into_iter().find(|own| own.as_str() == text)
    }

    pub(super) fn event(self) -> &'static str {
        match self {
            Self::Deferred => "ResizeDeferred",
            Self::Infeasible => "ResizeInfeasible",
        }
    }
}

/// Why a resize is not granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: Reason,
    pub message: String,
}

/// `others` are the other pods that count, with what they were granted.
///
/// # Errors
/// Why the pod keeps what it has.
pub fn decide(pod: &Pod, allocatable: &Amounts, others: &[&Pod]) -> Result<(), Refusal> {
    let requests = admission::requests(pod);
    let number = |list: &Amounts, name: &str| {
        list.get(name).map(|amount| if name == "cpu" { amount.milli_value() } else { amount.value() })
    };
    for name in ["memory", "cpu"] {
        let (Some(requested), Some(capacity)) = (number(&requests, name), number(allocatable, name)) else {
            continue;
        };
        if requested > capacity {
            let message = format!(
                "Node didn't have enough capacity: {name}, requested: {requested}, capacity: {capacity}"
            );
            return Err(Refusal { reason: Reason::Infeasible, message });
        }
    }
    admission::room(&requests, allocatable, others)
        .map_err(|rejection| Refusal { reason: Reason::Deferred, message: rejection.message })
}

/// In which order resizes are looked at, the most urgent first: those that ask for no more than they have, then by the
/// pods' priority, then by their class, then by how long they have waited.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Urgency {
    increases: bool,
    priority: Reverse<i32>,
    is_unbound: bool,
    /// Who waits already comes before who does not.
    is_new: bool,
    since: Option<Timestamp>,
}

impl Urgency {
    /// `granted` is the pod with what it has now.
    pub fn of(pod: &Pod, granted: &Pod, since: Option<Timestamp>) -> Self {
        let (wanted, had) = (admission::requests(pod), admission::requests(granted));
        let increases = ["cpu", "memory"]
            .into_iter()
            .any(|name| wanted.get(name).unwrap_or_default() > had.get(name).unwrap_or_default());
        Self {
            increases,
            priority: Reverse(pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0)),
            is_unbound: qos_class(pod) != QosClass::Guaranteed,
            is_new: since.is_none(),
            since,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::config::fixture;

    fn pod(cpu: &str, memory: &str) -> Pod {
        fixture::pod(serde_json::json!({"containers": [{"name": "c",
            "resources": {"requests": {"cpu": cpu, "memory": memory}}}]}))
    }

    #[test]
    fn what_the_node_never_has_is_infeasible_and_what_others_have_is_deferred() {
        let allocatable =
            Amounts::of(Some(&apimachinery::json!({"cpu": "2", "memory": "2Gi", "pods": "110"})));
        let mut infeasible_before = pod("3", "1Gi");
        infeasible_before.status = serde_json::from_value(serde_json::json!({
            "conditions": [{"type": super::super::PENDING, "status": "True", "reason": "Infeasible"}],
            "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                "resources": {"requests": {"cpu": "1"}}}],
        }))
        .expect("a status");
        let other = pod("500m", "512Mi");
        for (asked, others, wanted) in [
            (pod("2", "2Gi"), vec![], ""),
            (pod("1500m", "1536Mi"), vec![&other], ""),
            (
                pod("2001m", "1"),
                vec![],
                "Infeasible: Node didn't have enough capacity: cpu, requested: 2001, capacity: 2000",
            ),
            (
                pod("3", "3Gi"),
                vec![],
                "Infeasible: Node didn't have enough capacity: memory, requested: 3221225472, capacity: 2147483648",
            ),
            (
                pod("1501m", "1"),
                vec![&other],
                "Deferred: Node didn't have enough resource: cpu, requested: 1501, used: 500, capacity: 2000",
            ),
            (
                infeasible_before,
                vec![],
                "Infeasible: Node didn't have enough capacity: cpu, requested: 3000, capacity: 2000",
            ),
        ] {
            let said = decide(&asked, &allocatable, &others)
                .err()
                .map(|refusal| format!("{}: {}", refusal.reason.as_str(), refusal.message));
            assert_eq!(said.unwrap_or_default(), wanted);
        }
    }

    #[test]
    fn the_most_urgent_comes_first() {
        let granted = pod("1", "1Gi");
        let at = |second| Some(Timestamp::from_second(second).expect("a time"));
        let important = |mut pod: Pod| {
            pod.spec.as_mut().expect("it has one").priority = Some(7);
            pod
        };
        let bound = fixture::pod(serde_json::json!({"containers": [{"name": "c",
            "resources": {"limits": {"cpu": "2", "memory": "2Gi"}, "requests": {"cpu": "2", "memory": "2Gi"}}}]}));
        let order = [
            Urgency::of(&pod("500m", "1Gi"), &granted, None),
            Urgency::of(&important(pod("2", "1Gi")), &granted, None),
            Urgency::of(&bound, &granted, None),
            Urgency::of(&pod("2", "1Gi"), &granted, at(1)),
            Urgency::of(&pod("2", "1Gi"), &granted, at(2)),
            Urgency::of(&pod("2", "1Gi"), &granted, None),
        ];
        assert!(order.is_sorted(), "{order:#?}");
        assert!(order[0] < order[5]);
    }
}
