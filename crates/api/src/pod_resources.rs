//! What a pod asks for as a whole: its containers together, the most that its init containers need, pod-level
//! requests and overhead.
//!
//! The sums are part of the API (KEP-753, KEP-2837): schedulers, quotas and limits all have to come to the same.

use std::collections::HashMap;

use apimachinery::Value;

use crate::amounts::Amounts;
use crate::validation::resources::is_huge_pages;

/// What to count.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    /// Where a resize is under way, what the node has given or promised counts too.
    pub status: bool,
    /// The runtime's overhead counts.
    pub overhead: bool,
    /// Pod-level amounts of huge pages replace the sum of the containers', too.
    pub pod_level_huge_pages: bool,
}

impl Counted {
    /// All that the pod occupies.
    pub const ALL: Self = Self { status: true, overhead: true, pod_level_huge_pages: true };
}

/// The sum of a pod's requests.
pub fn requests(pod: &Value, counted: Counted) -> Amounts {
    let infeasible = counted.status && is_resize_infeasible(pod);
    let effective = |container: &Value, status: Option<&Value>| {
        let mut own =
            if infeasible && status.is_some() { Amounts::default() } else { amounts(container, "requests") };
        if let Some(status) = status {
            own.raise_to(&amounts(status, "requests"));
            own.raise_to(&Amounts::of(status.get("allocatedResources")));
        }
        own
    };
    let mut sum = aggregate(pod, counted, effective);
    override_by_pod(&mut sum, pod, "requests", counted);
    if counted.overhead {
        sum.add(&Amounts::of(pod.at(&["spec", "overhead"])));
    }
    sum
}

/// The sum of a pod's limits.
pub fn limits(pod: &Value, counted: Counted) -> Amounts {
    let infeasible = counted.status && is_resize_infeasible(pod);
    let effective = |container: &Value, status: Option<&Value>| {
        let mut own =
            if infeasible && status.is_some() { Amounts::default() } else { amounts(container, "limits") };
        if let Some(status) = status {
            own.raise_to(&amounts(status, "limits"));
        }
        own
    };
    let mut sum = aggregate(pod, counted, effective);
    override_by_pod(&mut sum, pod, "limits", counted);
    if counted.overhead {
        for (name, amount) in Amounts::of(pod.at(&["spec", "overhead"])).iter() {
            if let Some(own) = sum.0.get_mut(name).filter(|own| !own.is_zero()) {
                *own = own.add(amount);
            }
        }
    }
    sum
}

/// Whether the pod as a whole says what it needs.
pub fn has_pod_level(pod: &Value) -> bool {
    ["requests", "limits"].into_iter().any(|which| {
        let list = pod.at(&["spec", "resources", which]).and_then(Value::as_object);
        list.is_some_and(|list| list.keys().any(|name| is_pod_level(name, true)))
    })
}

fn is_pod_level(name: &str, huge_pages: bool) -> bool {
    matches!(name, "cpu" | "memory") || huge_pages && is_huge_pages(name)
}

fn amounts(container: &Value, which: &str) -> Amounts {
    Amounts::of(container.at(&["resources", which]))
}

fn override_by_pod(sum: &mut Amounts, pod: &Value, which: &str, counted: Counted) {
    for (name, amount) in Amounts::of(pod.at(&["spec", "resources", which])).iter() {
        if is_pod_level(name, counted.pod_level_huge_pages) {
            sum.set(name.clone(), amount);
        }
    }
}

/// The node cannot do the resize, so what the spec says is not going to be.
fn is_resize_infeasible(pod: &Value) -> bool {
    let pending = pod
        .array_at(&["status", "conditions"])
        .iter()
        .find(|condition| condition.str_at(&["type"]) == "PodResizePending");
    pending.is_some_and(|condition| condition.str_at(&["reason"]) == "Infeasible")
}

/// Containers run together with sidecars; init containers run one after another beside the sidecars before them.
fn aggregate(
    pod: &Value,
    counted: Counted,
    effective: impl Fn(&Value, Option<&Value>) -> Amounts,
) -> Amounts {
    let statuses = if counted.status { statuses(pod) } else { HashMap::new() };
    let status_of = |container: &Value| statuses.get(container.str_at(&["name"])).copied();
    let mut together = Amounts::default();
    for container in pod.array_at(&["spec", "containers"]) {
        together.add(&effective(container, status_of(container)));
    }
    let (mut sidecars, mut starting) = (Amounts::default(), Amounts::default());
    for container in pod.array_at(&["spec", "initContainers"]) {
        if container.str_at(&["restartPolicy"]) == "Always" {
            let own = effective(container, status_of(container));
            together.add(&own);
            sidecars.add(&own);
            starting.raise_to(&sidecars);
        } else {
            let mut own = effective(container, None);
            own.add(&sidecars);
            starting.raise_to(&own);
        }
    }
    together.raise_to(&starting);
    together
}

/// What nodes report of containers' resources, by the container's name.
fn statuses(pod: &Value) -> HashMap<&str, &Value> {
    ["containerStatuses", "initContainerStatuses"]
        .into_iter()
        .flat_map(|list| pod.array_at(&["status", list]))
        .filter(|status| status.get("resources").is_some_and(|own| !own.is_null()))
        .map(|status| (status.str_at(&["name"]), status))
        .collect()
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    fn container(cpu: &str) -> Value {
        json!({"name": "c", "resources": {"requests": {"cpu": cpu}, "limits": {"cpu": cpu}}})
    }

    fn sidecar(cpu: &str) -> Value {
        let mut container = container(cpu);
        container.set_at(&["restartPolicy"], "Always");
        container
    }

    #[test]
    fn init_containers_count_where_they_need_more() {
        for (containers, init, sum) in [
            (vec![container("1"), container("2")], vec![], "3"),
            (vec![container("1")], vec![container("2")], "2"),
            (vec![container("3")], vec![container("2")], "3"),
            (vec![container("1")], vec![sidecar("1"), container("2")], "3"),
            (vec![container("1")], vec![container("2"), sidecar("1")], "2"),
            (vec![container("1")], vec![sidecar("1"), sidecar("1")], "3"),
        ] {
            let pod = json!({"spec": {"containers": containers, "initContainers": init}});
            assert_eq!(requests(&pod, Counted::ALL).to_string(), format!("cpu={sum}"), "{pod}");
            assert_eq!(limits(&pod, Counted::ALL).to_string(), format!("cpu={sum}"), "{pod}");
        }
    }

    #[test]
    fn the_pod_level_replaces_and_overhead_adds() {
        let pod = json!({"spec": {
            "containers": [container("1")], "overhead": {"cpu": "250m", "memory": "1Mi"},
            "resources": {"requests": {"cpu": "2", "hugepages-2Mi": "2Mi"}},
        }});
        assert_eq!(requests(&pod, Counted::ALL).to_string(), "cpu=2250m,hugepages-2Mi=2Mi,memory=1Mi");
        assert_eq!(requests(&pod, Counted::default()).to_string(), "cpu=2");
        assert_eq!(limits(&pod, Counted::ALL).to_string(), "cpu=1250m", "no overhead without a limit");
        assert!(has_pod_level(&pod));
        assert!(!has_pod_level(&json!({"spec": {"resources": {"requests": {"example.com/x": "1"}}}})));
    }

    #[test]
    fn a_resize_under_way_counts_what_is_larger() {
        let mut pod = json!({
            "spec": {"containers": [container("1")]},
            "status": {"containerStatuses": [{"name": "c", "resources": {"requests": {"cpu": "2"}},
                "allocatedResources": {"cpu": "3"}}]},
        });
        assert_eq!(requests(&pod, Counted::ALL).to_string(), "cpu=3");
        assert_eq!(requests(&pod, Counted::default()).to_string(), "cpu=1");
        pod.set_at(&["spec", "containers"], json!([container("9")]));
        assert_eq!(requests(&pod, Counted::ALL).to_string(), "cpu=9");
        let infeasible = json!([{"type": "PodResizePending", "reason": "Infeasible"}]);
        pod.set_at(&["status", "conditions"], infeasible);
        assert_eq!(requests(&pod, Counted::ALL).to_string(), "cpu=3");
    }
}
