//! Limits of containers and of pods as a whole, as cgroups know them.

use std::collections::BTreeMap;

use api::amounts::Amounts;
use api::pod_resources::{self, Counted};
use apimachinery::{Quantity, Str, value};
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Written;
use runtime::Resources;

use super::{NodeFacts, uid};

/// The scale of `cpu.shares`, and the shares of a whole CPU.
const SHARES_MIN: u64 = 2;
const SHARES_MAX: u64 = 262_144;
const SHARES_PER_CPU: u64 = 1_024;

/// Microseconds; the kernel refuses less.
const QUOTA_MIN: i64 = 1_000;

/// How willingly the kernel ends a process of a class when memory is short.
const OOM_GUARANTEED: i64 = -997;
const OOM_BEST_EFFORT: i64 = 1_000;
const OOM_SANDBOX: i32 = -998;

/// Pods that a node cannot do without.
const NODE_CRITICAL: &str = "system-node-critical";

/// The cgroup of all pods.
const ROOT_CGROUP: &str = "/kubepods";

/// `status.qosClass`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum QosClass {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl QosClass {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

/// A list of amounts that validation has seen.
pub(crate) fn amounts(list: Option<&BTreeMap<String, Written>>) -> Amounts {
    let parsed = list.into_iter().flatten();
    Amounts(
        parsed
            .filter_map(|(name, text)| Some((Str::from(name.as_str()), Quantity::parse(&text.0).ok()?)))
            .collect(),
    )
}

fn limits(own: Option<&ResourceRequirements>) -> Amounts {
    amounts(own.and_then(|own| own.limits.as_ref()))
}

fn requests(own: Option<&ResourceRequirements>) -> Amounts {
    amounts(own.and_then(|own| own.requests.as_ref()))
}

fn positive(list: &Amounts, name: &str) -> Option<Quantity> {
    list.get(name).filter(|amount| amount.sign() > 0)
}

fn pod_level(pod: &Pod) -> Option<&ResourceRequirements> {
    let own = pod.spec.as_ref()?.resources.as_ref()?;
    let has =
        |list: &Amounts| list.names().any(|name| matches!(name.as_str(), "cpu" | "memory") || is_huge(name));
    (has(&limits(Some(own))) || has(&requests(Some(own)))).then_some(own)
}

fn is_huge(name: &str) -> bool {
    name.starts_with("hugepages-")
}

fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec.iter();
    spec.flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()))
}

fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// What the API server has written, or else what it would write.
pub fn qos_class(pod: &Pod) -> QosClass {
    match pod.status.as_ref().and_then(|status| status.qos_class.as_deref()) {
        Some("Guaranteed") => return QosClass::Guaranteed,
        Some("Burstable") => return QosClass::Burstable,
        Some("BestEffort") => return QosClass::BestEffort,
        _ => {}
    }
    let lists: Vec<_> = match pod_level(pod) {
        Some(own) => vec![(requests(Some(own)), limits(Some(own)))],
        None => containers(pod)
            .map(|own| (requests(own.resources.as_ref()), limits(own.resources.as_ref())))
            .collect(),
    };
    let asks = |list: &Amounts| ["cpu", "memory"].into_iter().any(|name| positive(list, name).is_some());
    let is_bound = |(requests, limits): &(Amounts, Amounts)| {
        ["cpu", "memory"].into_iter().all(|name| {
            let limit = positive(limits, name);
            limit.is_some() && positive(requests, name).or(limit) == limit
        })
    };
    if !lists.iter().any(|(requests, limits)| asks(requests) || asks(limits)) {
        QosClass::BestEffort
    } else if lists.iter().all(is_bound) {
        QosClass::Guaranteed
    } else {
        QosClass::Burstable
    }
}

/// The cgroup of a pod, relative to the root of a hierarchy.
pub fn cgroup_parent(pod: &Pod) -> String {
    let id = uid(pod);
    match qos_class(pod) {
        QosClass::Guaranteed => format!("{ROOT_CGROUP}/pod{id}"),
        QosClass::Burstable => format!("{ROOT_CGROUP}/burstable/pod{id}"),
        QosClass::BestEffort => format!("{ROOT_CGROUP}/besteffort/pod{id}"),
    }
}

/// The weight of an amount of CPU.
pub fn shares(milli_cpu: i64) -> u64 {
    let milli = u64::try_from(milli_cpu).unwrap_or(0);
    (milli.saturating_mul(SHARES_PER_CPU) / 1_000).clamp(SHARES_MIN, SHARES_MAX)
}

/// The time in a period that a limit of CPU is; zero for none.
pub fn quota(milli_cpu: i64, period: u64) -> i64 {
    if milli_cpu <= 0 || period == 0 {
        return 0;
    }
    let period = i64::try_from(period).unwrap_or(i64::MAX);
    (milli_cpu.saturating_mul(period) / 1_000).max(QUOTA_MIN)
}

/// The limits of one container.
pub fn of_container(pod: &Pod, container: &Container, node: &NodeFacts) -> Resources {
    let (own_limits, own_requests) =
        (limits(container.resources.as_ref()), requests(container.resources.as_ref()));
    let of_pod = limits(pod_level(pod));
    let limit = |name: &str| positive(&own_limits, name).or_else(|| positive(&of_pod, name));
    let request = own_requests.get("cpu").or_else(|| positive(&own_limits, "cpu")).unwrap_or_default();
    let mut resources = Resources {
        cpu_shares: shares(request.milli_value()),
        memory_limit: limit("memory").map_or(0, |amount| amount.value()),
        oom_score_adj: oom_score_adj(pod, container, node.memory_bytes),
        hugepages: huge_pages(&own_limits, &node.huge_page_sizes),
        ..Resources::default()
    };
    if let Some(amount) = limit("cpu").filter(|_| node.cpu_period > 0) {
        resources.cpu_quota = quota(amount.milli_value(), node.cpu_period);
        resources.cpu_period = node.cpu_period;
    }
    if node.cgroup_v2 {
        // Whoever exceeds the limit ends as a whole, so that no container lives on without half of its processes.
        resources.unified.insert("memory.oom.group".into(), "1".into());
    }
    resources
}

/// The limits of a pod as a whole.
pub fn of_pod(pod: &Pod, node: &NodeFacts) -> Resources {
    let mut resources =
        Resources { oom_score_adj: OOM_SANDBOX, pids_limit: node.pids_limit, ..Resources::default() };
    let Ok(tree) = value::to_value(pod) else { return resources };
    let counted = Counted { status: false, overhead: true, pod_level_huge_pages: true };
    let (requests, sum) = (pod_resources::requests(&tree, counted), pod_resources::limits(&tree, counted));
    let of_pod = limits(pod_level(pod));
    let is_bound = |name: &str| {
        positive(&of_pod, name).is_some()
            || containers(pod).all(|own| positive(&limits(own.resources.as_ref()), name).is_some())
    };
    let class = qos_class(pod);
    let cpu = requests.get("cpu").unwrap_or_default();
    resources.cpu_shares = if class == QosClass::BestEffort { SHARES_MIN } else { shares(cpu.milli_value()) };
    if class != QosClass::BestEffort {
        if is_bound("cpu") && node.cpu_period > 0 {
            resources.cpu_quota = quota(sum.get("cpu").unwrap_or_default().milli_value(), node.cpu_period);
            resources.cpu_period = if resources.cpu_quota > 0 { node.cpu_period } else { 0 };
        }
        if is_bound("memory") {
            resources.memory_limit = sum.get("memory").unwrap_or_default().value();
        }
    }
    resources.hugepages = huge_pages(&sum, &node.huge_page_sizes);
    resources
}

/// The memory that a pod may have as a whole, in bytes; 0 where one of its containers has no limit.
pub fn memory_limit(pod: &Pod) -> i64 {
    let of_pod = positive(&limits(pod_level(pod)), "memory").is_some();
    let is_bound = |own: &Container| positive(&limits(own.resources.as_ref()), "memory").is_some();
    if !of_pod && !containers(pod).all(is_bound) {
        return 0;
    }
    let counted = Counted { status: false, overhead: true, pod_level_huge_pages: true };
    let sum = value::to_value(pod).map(|tree| pod_resources::limits(&tree, counted));
    sum.ok().and_then(|sum| sum.get("memory")).map_or(0, |own| own.value())
}

/// Every size of the machine, so that who asks for none gets none.
fn huge_pages(limits: &Amounts, sizes: &[String]) -> BTreeMap<String, u64> {
    let mut pages: BTreeMap<String, u64> = sizes.iter().map(|size| (size.clone(), 0)).collect();
    for (name, amount) in limits.iter() {
        let size = name.strip_prefix("hugepages-").and_then(|size| Quantity::parse(size).ok());
        if let Some(size) = size {
            pages.insert(huge_page_name(size.value()), u64::try_from(amount.value()).unwrap_or(0));
        }
    }
    pages
}

/// The name that cgroups have for a size of huge pages in bytes.
pub fn huge_page_name(bytes: i64) -> String {
    match bytes {
        _ if bytes >= 1 << 30 => format!("{}GB", bytes >> 30),
        _ if bytes >= 1 << 20 => format!("{}MB", bytes >> 20),
        _ => format!("{}KB", bytes >> 10),
    }
}

fn memory_request(container: &Container) -> i64 {
    // What the API server defaults: a request that is missing is the limit.
    let own = requests(container.resources.as_ref()).get("memory");
    own.or_else(|| limits(container.resources.as_ref()).get("memory")).map_or(0, |amount| amount.value())
}

/// The less of the machine a container asked for, the sooner it goes.
pub fn oom_score_adj(pod: &Pod, container: &Container, memory_bytes: i64) -> i32 {
    let is_critical =
        pod.spec.as_ref().and_then(|spec| spec.priority_class_name.as_deref()) == Some(NODE_CRITICAL);
    let score = match qos_class(pod) {
        _ if is_critical => OOM_GUARANTEED,
        QosClass::Guaranteed => OOM_GUARANTEED,
        QosClass::BestEffort => OOM_BEST_EFFORT,
        QosClass::Burstable => burstable_score(pod, container, memory_bytes.max(1)),
    };
    i32::try_from(score).unwrap_or(0)
}

fn burstable_score(pod: &Pod, container: &Container, memory_bytes: i64) -> i64 {
    let rest = unassigned_memory(pod);
    let score = |bytes: i64| {
        let share = i128::from(bytes.saturating_add(rest)) * 1_000 / i128::from(memory_bytes);
        1_000 - i64::try_from(share).unwrap_or(1_000)
    };
    let mut own = score(memory_request(container));
    let spec = pod.spec.as_ref();
    let is_init = spec.is_some_and(|spec| {
        spec.init_containers.iter().flatten().any(|init| init.name == container.name && is_sidecar(init))
    });
    if is_init {
        // A sidecar outlives the containers that it is there for.
        let smallest = spec.and_then(|spec| spec.containers.iter().map(memory_request).min());
        own = own.min(score(smallest.unwrap_or(0)));
    }
    own.clamp(OOM_BEST_EFFORT + OOM_GUARANTEED, OOM_BEST_EFFORT - 1)
}

/// What the pod as a whole asks for beyond its containers, for each of them.
fn unassigned_memory(pod: &Pod) -> i64 {
    let Some(whole) = positive(&requests(pod_level(pod)), "memory") else { return 0 };
    let lasting = || {
        let spec = pod.spec.iter();
        spec.flat_map(|spec| {
            let sidecars = spec.init_containers.iter().flatten().filter(|own| is_sidecar(own));
            spec.containers.iter().chain(sidecars)
        })
    };
    let count = i64::try_from(lasting().count()).unwrap_or(1).max(1);
    let assigned = lasting().map(memory_request).fold(0_i64, i64::saturating_add);
    whole.value().saturating_sub(assigned).max(0) / count
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    fn pod(containers: serde_json::Value) -> Pod {
        fixture::pod(serde_json::json!({"containers": containers}))
    }

    fn bound(cpu: &str, memory: &str) -> serde_json::Value {
        serde_json::json!({"limits": {"cpu": cpu, "memory": memory}})
    }

    #[test]
    fn the_class_is_what_all_containers_together_say() {
        let wanted = [
            (serde_json::json!([{"name": "a"}]), QosClass::BestEffort, "/kubepods/besteffort/podu-1"),
            (
                serde_json::json!([{"name": "a", "resources": bound("1", "1Gi")}]),
                QosClass::Guaranteed,
                "/kubepods/podu-1",
            ),
            (
                serde_json::json!([{"name": "a", "resources": bound("1", "1Gi")}, {"name": "b"}]),
                QosClass::Burstable,
                "/kubepods/burstable/podu-1",
            ),
            (
                serde_json::json!([{"name": "a", "resources": {"requests": {"cpu": "1", "memory": "0"},
                    "limits": {"cpu": "2", "memory": "1"}}}]),
                QosClass::Burstable,
                "/kubepods/burstable/podu-1",
            ),
            (
                serde_json::json!([{"name": "a", "resources": {"requests": {"example.com/x": "1"}}}]),
                QosClass::BestEffort,
                "/kubepods/besteffort/podu-1",
            ),
        ];
        for (containers, class, cgroup) in wanted {
            let pod = pod(containers);
            assert_eq!((qos_class(&pod), cgroup_parent(&pod).as_str()), (class, cgroup));
        }
        let whole =
            fixture::pod(serde_json::json!({"containers": [{"name": "a"}], "resources": bound("1", "1Gi")}));
        assert_eq!(qos_class(&whole), QosClass::Guaranteed);
    }

    #[test]
    fn shares_and_quotas_keep_their_bounds() {
        for (milli, wanted) in [(0, 2), (1, 2), (2, 2), (100, 102), (1_000, 1_024), (500_000, 262_144)] {
            assert_eq!(shares(milli), wanted, "{milli}");
        }
        for (milli, wanted) in [(0, 0), (1, 1_000), (10, 1_000), (11, 1_100), (2_500, 250_000)] {
            assert_eq!(quota(milli, 100_000), wanted, "{milli}");
        }
    }

    #[test]
    fn a_container_is_limited_as_it_says() {
        let node = fixture::node();
        let pod = pod(serde_json::json!([
            {"name": "a", "resources": {"limits": {"cpu": "500m", "memory": "64Mi", "hugepages-2Mi": "4Mi"},
                "requests": {"cpu": "250m"}}},
            {"name": "b"}]));
        let spec = pod.spec.as_ref().expect("it has one");
        let made = of_container(&pod, &spec.containers[0], &node);
        assert_eq!((made.cpu_shares, made.cpu_quota, made.cpu_period), (256, 50_000, 100_000));
        assert_eq!((made.memory_limit, made.hugepages["2MB"]), (64 << 20, 4 << 20));
        assert_eq!(made.unified["memory.oom.group"], "1");
        let free = of_container(&pod, &spec.containers[1], &node);
        assert_eq!((free.cpu_shares, free.cpu_quota, free.cpu_period, free.memory_limit), (2, 0, 0, 0));
        assert_eq!(free.hugepages["2MB"], 0);
    }

    #[test]
    fn a_pod_is_limited_where_all_its_containers_are() {
        let node = fixture::node();
        let made = |spec: serde_json::Value| of_pod(&fixture::pod(spec), &node);
        let all = made(serde_json::json!({"containers": [{"name": "a", "resources": bound("1", "1Gi")},
            {"name": "b", "resources": bound("500m", "1Gi")}], "overhead": {"memory": "1Gi"}}));
        assert_eq!((all.cpu_quota, all.memory_limit), (150_000, 3 << 30));
        let some = made(
            serde_json::json!({"containers": [{"name": "a", "resources": bound("1", "1Gi")}, {"name": "b"}]}),
        );
        assert_eq!((some.cpu_quota, some.memory_limit), (0, 0));
        let init = made(serde_json::json!({"containers": [{"name": "a", "resources": bound("1", "1Gi")}],
            "initContainers": [{"name": "i"}]}));
        assert_eq!((init.cpu_quota, init.memory_limit), (0, 0));
        let none = made(serde_json::json!({"containers": [{"name": "a"}]}));
        assert_eq!((none.cpu_shares, none.oom_score_adj), (2, -998));
        let whole = made(serde_json::json!({"containers": [{"name": "a"}],
            "resources": {"limits": {"cpu": "2", "memory": "2Gi"}, "requests": {"cpu": "1"}}}));
        assert_eq!((whole.cpu_shares, whole.cpu_quota, whole.memory_limit), (1_024, 200_000, 2 << 30));
    }

    #[test]
    fn who_asked_for_less_goes_first() {
        let gi = 1_i64 << 30;
        let score = |spec: serde_json::Value| {
            let pod = fixture::pod(spec);
            let all: Vec<_> = containers(&pod).map(|own| oom_score_adj(&pod, own, 16 * gi)).collect();
            all
        };
        let asks = |memory: &str| serde_json::json!({"requests": {"memory": memory}});
        assert_eq!(score(serde_json::json!({"containers": [{"name": "a"}]})), [1000]);
        assert_eq!(
            score(serde_json::json!({"containers": [{"name": "a", "resources": bound("1", "1Gi")}]})),
            [-997]
        );
        let mixed = serde_json::json!({"containers": [{"name": "a", "resources": asks("4Gi")}, {"name": "b"},
            {"name": "c", "resources": asks("64Gi")}]});
        assert_eq!(score(mixed), [750, 999, 3]);
        let sidecar = serde_json::json!({"containers": [{"name": "a", "resources": asks("4Gi")}],
            "initContainers": [{"name": "s", "restartPolicy": "Always"}, {"name": "i"}]});
        assert_eq!(score(sidecar), [750, 750, 999]);
        let critical = serde_json::json!({"containers": [{"name": "a"}], "priorityClassName": NODE_CRITICAL});
        assert_eq!(score(critical), [-997]);
        let whole = serde_json::json!({"containers": [{"name": "a"}, {"name": "b", "resources": asks("2Gi")}],
            "resources": {"requests": {"memory": "6Gi"}}});
        assert_eq!(score(whole), [875, 750]);
    }
}
