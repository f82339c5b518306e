//! Which pod goes first, and what is said of it. Pure; order and words are the kubelet's.

use std::cmp::Ordering;

use api::amounts::Amounts;
use api::pod_resources::{self, Counted};
use apimachinery::value;
use k8s_openapi::api::core::v1::Pod;

use super::pressure::Observation;
use super::thresholds::{Signal, Threshold};
use super::usage::{ContainerUsage, Counting, PodUsage};
use crate::agent::config::resources::amounts;
use crate::agent::static_pods::{is_mirror, is_static};

/// Pods of this priority and above keep the cluster itself going.
pub const CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// Whether a node may not evict the pod: it is the node's own, or of a critical class.
pub fn is_critical(pod: &Pod) -> bool {
    is_static(pod)
        || is_mirror(pod)
        || pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0) >= CRITICAL_PRIORITY
}

/// A pod that could be evicted, and what it has; `None` where that is not known.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    pub pod: &'a Pod,
    pub usage: Option<&'a PodUsage>,
}

/// What a candidate has of the resource that is short, and what it asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Weight {
    known: bool,
    used: u64,
    requested: u64,
    priority: i32,
}

/// Sorts candidates: who is evicted first comes first.
pub fn rank(candidates: &mut [Candidate<'_>], signal: Signal, counting: Counting) {
    let weigh = |candidate: &Candidate<'_>| weight(candidate, signal, counting);
    candidates.sort_by_cached_key(|candidate| Reverse(weigh(candidate), signal));
}

/// Orders weights as candidates are.
#[derive(PartialEq, Eq)]
struct Reverse(Weight, Signal);

impl Ord for Reverse {
    fn cmp(&self, other: &Self) -> Ordering {
        let (own, than) = (self.0, other.0);
        // Of whom nothing is known, the worst is assumed.
        own.known.cmp(&than.known).then_with(|| {
            let exceeds = |weight: Weight| weight.used > weight.requested;
            let over = |weight: Weight| i128::from(weight.used) - i128::from(weight.requested);
            let by_request = match self.1 {
                Signal::PidAvailable => Ordering::Equal,
                _ => exceeds(than).cmp(&exceeds(own)),
            };
            by_request.then(own.priority.cmp(&than.priority)).then_with(|| over(than).cmp(&over(own)))
        })
    }
}

impl PartialOrd for Reverse {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn weight(candidate: &Candidate<'_>, signal: Signal, counting: Counting) -> Weight {
    let priority = candidate.pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0);
    let Some(usage) = candidate.usage else {
        return Weight { known: false, used: 0, requested: 0, priority };
    };
    let used = match signal {
        Signal::MemoryAvailable => usage.memory,
        Signal::PidAvailable => usage.processes,
        Signal::NodefsAvailable | Signal::ImagefsAvailable => usage.disk(counting).0,
        Signal::NodefsInodesFree | Signal::ImagefsInodesFree => usage.disk(counting).1,
    };
    let requested = match signal {
        Signal::MemoryAvailable | Signal::NodefsAvailable | Signal::ImagefsAvailable => {
            requests(candidate.pod).get(signal.resource()).map_or(0, |own| bytes(own.value()))
        }
        _ => 0,
    };
    Weight { known: true, used, requested, priority }
}

/// What the pod as a whole asked for.
pub fn requests(pod: &Pod) -> Amounts {
    let counted = Counted { status: false, overhead: true, pod_level_huge_pages: true };
    value::to_value(pod).map(|tree| pod_resources::requests(&tree, counted)).unwrap_or_default()
}

pub(super) fn bytes(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// Why a pod is evicted for a threshold.
pub fn message(pod: &Pod, usage: Option<&PodUsage>, threshold: &Threshold, observed: Observation) -> String {
    let resource = threshold.signal.resource();
    let quantity = amount(threshold.below.of(observed.capacity));
    let mut text = format!(
        "The node was low on resource: {resource}. Threshold quantity: {quantity}, available: {}. ",
        amount(observed.available)
    );
    for container in usage.into_iter().flat_map(|usage| &usage.containers) {
        let Some(used) = used_by(container, threshold.signal) else { continue };
        let Some(requested) = request_of(pod, &container.name, resource) else { continue };
        if used > bytes(requested.value()) {
            text += &format!(
                "Container {} was using {}, request is {requested}, has larger consumption of {resource}. ",
                container.name,
                amount(used)
            );
        }
    }
    text
}

fn used_by(container: &ContainerUsage, signal: Signal) -> Option<u64> {
    match signal {
        Signal::MemoryAvailable => Some(container.memory),
        Signal::NodefsAvailable | Signal::ImagefsAvailable => Some(container.layer.0 + container.logs.0),
        _ => None,
    }
}

/// What a container of the pod asked for; `None` where the pod has none of the name.
fn request_of(pod: &Pod, container: &str, resource: &str) -> Option<apimachinery::Quantity> {
    let spec = pod.spec.as_ref()?;
    let mut all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let found = all.find(|own| own.name == container)?;
    let requests = amounts(found.resources.as_ref().and_then(|own| own.requests.as_ref()));
    Some(requests.get(resource).unwrap_or_default())
}

/// A number as a quantity of binary suffixes.
pub fn amount(mut number: u64) -> String {
    let mut suffix = "";
    for next in ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"] {
        if number == 0 || !number.is_multiple_of(1024) {
            break;
        }
        number /= 1024;
        suffix = next;
    }
    format!("{number}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::super::thresholds::Amount;
    use super::*;
    use crate::agent::config::fixture;

    fn pod(priority: i32, memory: &str) -> Pod {
        fixture::pod(serde_json::json!({"priority": priority, "containers": [
            {"name": "c", "resources": {"requests": {"memory": memory}}}]}))
    }

    fn uses(memory: u64) -> PodUsage {
        let container = ContainerUsage { name: "c".into(), memory, ..ContainerUsage::default() };
        PodUsage { memory, containers: vec![container], ..PodUsage::default() }
    }

    #[test]
    fn who_exceeds_its_requests_goes_first_then_the_least_important_then_the_greediest() {
        let cases = [
            ("within, important", pod(10, "1Ki"), Some(uses(1024))),
            ("over by 1, important", pod(10, "1Ki"), Some(uses(1025))),
            ("within, by nearly all", pod(0, "1Ki"), Some(uses(10))),
            ("over by 5", pod(0, "0"), Some(uses(5))),
            ("over by 6", pod(0, "1Ki"), Some(uses(1030))),
            ("unknown", pod(1_000, "1Gi"), None),
        ];
        let mut candidates: Vec<_> =
            cases.iter().map(|(_, pod, usage)| Candidate { pod, usage: usage.as_ref() }).collect();
        rank(&mut candidates, Signal::MemoryAvailable, Counting::Everything);
        let names: Vec<&str> = candidates
            .iter()
            .map(|own| cases.iter().find(|case| std::ptr::eq(&raw const case.1, own.pod)).unwrap().0)
            .collect();
        assert_eq!(
            names,
            [
                "unknown",
                "over by 6",
                "over by 5",
                "over by 1, important",
                "within, by nearly all",
                "within, important"
            ]
        );
    }

    #[test]
    fn the_message_names_the_threshold_and_who_used_too_much() {
        let threshold = Threshold {
            signal: Signal::MemoryAvailable,
            below: Amount::Quantity(100 << 20),
            grace: std::time::Duration::ZERO,
            reclaim: None,
        };
        let observed = Observation { available: 50 << 10, capacity: 1 << 30 };
        assert_eq!(
            message(&pod(0, "1Mi"), Some(&uses(3 << 20)), &threshold, observed),
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Ki. Container c was using \
             3Mi, request is 1Mi, has larger consumption of memory. "
        );
        assert!(!message(&pod(0, "4Mi"), Some(&uses(3 << 20)), &threshold, observed).contains("Container"));
    }

    #[test]
    fn critical_pods_are_spared() {
        assert!(!is_critical(&pod(CRITICAL_PRIORITY - 1, "0")) && is_critical(&pod(CRITICAL_PRIORITY, "0")));
        let mut mirror = pod(0, "0");
        let annotations = mirror.metadata.annotations.get_or_insert_default();
        annotations.insert("kubernetes.io/config.mirror".into(), "x".into());
        assert!(is_critical(&mirror));
        assert_eq!([amount(0), amount(1024), amount(1025), amount(3 << 30)], ["0", "1Ki", "1025", "3Gi"]);
    }
}
