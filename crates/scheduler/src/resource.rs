//! Amounts of resources, and what a pod asks for in total.
//!
//! Owns: [`Resources`] and upstream's accounting of containers, init containers, sidecars, pod-level requests and
//! overhead. Never touches: nodes, scores.
//! Start at [`Resources::requested_by`].

use api::view::{Pod, ResourceList};
use apimachinery::Str;
use apimachinery::quantity::Quantity;

/// Assumed for a container that names no CPU request, when scoring only; without it, all such pods would go to the
/// node with the least requests.
pub const DEFAULT_CPU_MILLI: i64 = 100;
/// The same for memory: 200 MiB.
pub const DEFAULT_MEMORY: i64 = 200 << 20;

/// Amounts by resource, in the units the scheduler counts in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub cpu_milli: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes.
    pub ephemeral_storage: i64,
    /// Of a node: how many pods it takes. Of a pod: unused.
    pub pods: i64,
    /// Extended resources, huge pages and attachable volumes, sorted by name. Names, not interned numbers: nearly
    /// every pod has none, and a pod may ask for any name it likes, so a table of them could only grow.
    pub extended: Vec<(Str, i64)>,
}

/// Whether a container without a request counts as having one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// As written: what must fit.
    Zero,
    /// [`DEFAULT_CPU_MILLI`] and [`DEFAULT_MEMORY`]: what is scored.
    Assumed,
}

// === impl Resources ===

impl Resources {
    /// Reads a list; amounts that are not quantities count as nothing (validation has refused them before).
    pub fn from_list(list: &ResourceList) -> Self {
        let mut all = Self::default();
        all.set_from(list);
        all
    }

    /// What a pod needs on a node: the sum over containers and sidecars, or the largest init container with the
    /// sidecars started before it if that is more; pod-level requests in place of the sum; and the overhead.
    pub fn requested_by(pod: &Pod, missing: Missing) -> Self {
        let spec = &pod.spec;
        let mut total = Self::default();
        for container in &spec.containers {
            total.add(&Self::of_container(&container.resources.requests, missing));
        }
        let mut sidecars = Self::default();
        let mut init_peak = Self::default();
        for container in &spec.init_containers {
            let own = Self::of_container(&container.resources.requests, missing);
            if container.is_sidecar() {
                total.add(&own);
                sidecars.add(&own);
                init_peak.raise_to(&sidecars);
            } else {
                let mut running = sidecars.clone();
                running.add(&own);
                init_peak.raise_to(&running);
            }
        }
        total.raise_to(&init_peak);
        if let Some(pod_level) = &spec.resources {
            let supported = pod_level.requests.iter().filter(|(name, _)| is_pod_level(name));
            supported.for_each(|(name, amount)| total.set(name, amount));
        }
        total.add(&Self::from_list(&spec.overhead));
        total
    }

    fn of_container(requests: &ResourceList, missing: Missing) -> Self {
        let mut own = Self::from_list(requests);
        if missing == Missing::Assumed {
            if requests.get("cpu").is_none() {
                own.cpu_milli = DEFAULT_CPU_MILLI;
            }
            if requests.get("memory").is_none() {
                own.memory = DEFAULT_MEMORY;
            }
        }
        own
    }

    fn set_from(&mut self, list: &ResourceList) {
        list.iter().for_each(|(name, amount)| self.set(name, amount));
    }

    fn set(&mut self, name: &str, amount: &str) {
        let Ok(quantity) = amount.parse::<Quantity>() else { return };
        match name {
            "cpu" => self.cpu_milli = quantity.milli_value(),
            "memory" => self.memory = quantity.value(),
            "ephemeral-storage" => self.ephemeral_storage = quantity.value(),
            "pods" => self.pods = quantity.value(),
            _ if is_scalar(name) => *self.extended_mut(name) = quantity.value(),
            _ => {}
        }
    }

    pub fn add(&mut self, other: &Self) {
        self.cpu_milli = self.cpu_milli.saturating_add(other.cpu_milli);
        self.memory = self.memory.saturating_add(other.memory);
        self.ephemeral_storage = self.ephemeral_storage.saturating_add(other.ephemeral_storage);
        for (name, amount) in &other.extended {
            let own = self.extended_mut(name);
            *own = own.saturating_add(*amount);
        }
    }

    pub fn subtract(&mut self, other: &Self) {
        self.cpu_milli = self.cpu_milli.saturating_sub(other.cpu_milli);
        self.memory = self.memory.saturating_sub(other.memory);
        self.ephemeral_storage = self.ephemeral_storage.saturating_sub(other.ephemeral_storage);
        for (name, amount) in &other.extended {
            let own = self.extended_mut(name);
            *own = own.saturating_sub(*amount);
        }
    }

    fn raise_to(&mut self, other: &Self) {
        self.cpu_milli = self.cpu_milli.max(other.cpu_milli);
        self.memory = self.memory.max(other.memory);
        self.ephemeral_storage = self.ephemeral_storage.max(other.ephemeral_storage);
        for (name, amount) in &other.extended {
            let own = self.extended_mut(name);
            *own = (*own).max(*amount);
        }
    }

    /// The amount of an extended resource; 0 when there is none.
    pub fn extended(&self, name: &str) -> i64 {
        self.extended_at(name).map_or(0, |at| self.extended[at].1)
    }

    fn extended_mut(&mut self, name: &str) -> &mut i64 {
        let at = self.extended_at(name).unwrap_or_else(|at| {
            self.extended.insert(at, (name.into(), 0));
            at
        });
        &mut self.extended[at].1
    }

    fn extended_at(&self, name: &str) -> Result<usize, usize> {
        self.extended.binary_search_by(|(own, _)| own.as_str().cmp(name))
    }
}

/// Resources that may be requested for a pod as a whole.
fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

/// Resources that are counted by name: anything with a domain, huge pages and attachable volumes.
fn is_scalar(name: &str) -> bool {
    (name.contains('/') && !name.starts_with("requests."))
        || name.starts_with("hugepages-")
        || name.starts_with("attachable-volumes-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    fn requested(spec: &str) -> Resources {
        Resources::requested_by(&pod("p", spec), Missing::Zero)
    }

    #[test]
    fn containers_add_up_and_the_largest_init_container_is_a_floor() {
        let sum = requested(
            r#"{"containers":[{"resources":{"requests":{"cpu":"100m","memory":"1Gi"}}},
                              {"resources":{"requests":{"cpu":"200m","nvidia.com/gpu":"1"}}}],
                "initContainers":[{"resources":{"requests":{"cpu":"250m"}}},{"resources":{"requests":{"memory":"3Gi"}}}]}"#,
        );
        assert_eq!((sum.cpu_milli, sum.memory), (300, 3 << 30));
        assert_eq!(sum.extended, [("nvidia.com/gpu".into(), 1)]);
    }

    #[test]
    fn sidecars_count_beside_containers_and_under_later_init_containers() {
        let sum = requested(
            r#"{"containers":[{"resources":{"requests":{"cpu":"1"}}}],
                "initContainers":[{"resources":{"requests":{"cpu":"2"}}},
                                  {"restartPolicy":"Always","resources":{"requests":{"cpu":"3"}}},
                                  {"resources":{"requests":{"cpu":"4"}}}]}"#,
        );
        assert_eq!(sum.cpu_milli, 7000, "sidecar 3 + init 4 is more than container 1 + sidecar 3");
    }

    #[test]
    fn pod_level_requests_replace_the_sum_and_overhead_comes_on_top() {
        let sum = requested(
            r#"{"containers":[{"resources":{"requests":{"cpu":"1","ephemeral-storage":"1Gi"}}}],
                "resources":{"requests":{"cpu":"500m","ephemeral-storage":"9Gi"}},
                "overhead":{"cpu":"10m","memory":"5Mi"}}"#,
        );
        assert_eq!((sum.cpu_milli, sum.memory, sum.ephemeral_storage), (510, 5 << 20, 1 << 30));
    }

    #[test]
    fn missing_requests_are_assumed_per_container_for_scoring_only() {
        let spec = r#"{"containers":[{},{"resources":{"requests":{"cpu":"0"}}}]}"#;
        let scored = Resources::requested_by(&pod("p", spec), Missing::Assumed);
        assert_eq!((scored.cpu_milli, scored.memory), (DEFAULT_CPU_MILLI, 2 * DEFAULT_MEMORY));
        assert_eq!(requested(spec), Resources::default());
    }
}
