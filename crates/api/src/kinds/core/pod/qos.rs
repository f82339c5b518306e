//! The quality of service class of a pod.

use apimachinery::{Quantity, Value};

use crate::validation::fields::Fields;
use crate::validation::resources;

const COMPUTE: [&str; 2] = ["cpu", "memory"];

/// `Guaranteed` when every container's requests equal its limits for CPU and memory, `BestEffort` when none asks for
/// either, `Burstable` otherwise. Pod-level resources, where given, are all that counts.
pub fn class(spec: &Value) -> &'static str {
    let mut totals = Totals::default();
    match spec.maybe("resources") {
        Some(own) => totals.count(own),
        None => {
            for container in spec.list("containers").iter().chain(spec.list("initContainers")) {
                totals.count(&container["resources"]);
            }
        }
    }
    if totals.requests == totals.limits && !totals.unlimited && totals.any {
        "Guaranteed"
    } else if totals.any {
        "Burstable"
    } else {
        "BestEffort"
    }
}

#[derive(Default)]
struct Totals {
    requests: [Quantity; 2],
    limits: [Quantity; 2],
    any: bool,
    /// Someone lacks a limit for CPU or memory.
    unlimited: bool,
}

impl Totals {
    fn count(&mut self, of: &Value) {
        let positive = |list: &str, name: &str| {
            of.map(list)
                .and_then(|map| map.get(name))
                .and_then(resources::quantity)
                .filter(|quantity| quantity.sign() > 0)
        };
        for (index, name) in COMPUTE.into_iter().enumerate() {
            if let Some(request) = positive("requests", name) {
                self.requests[index] = self.requests[index].add(request);
                self.any = true;
            }
            match positive("limits", name) {
                Some(limit) => {
                    self.limits[index] = self.limits[index].add(limit);
                    self.any = true;
                }
                None => self.unlimited = true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn the_class_follows_requests_and_limits() {
        let full =
            json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1000m", "memory": "1Gi"}});
        let cases = [
            (json!({"containers": [{}]}), "BestEffort"),
            (json!({"containers": [{"resources": {"requests": {"example.com/gpu": "1"}}}]}), "BestEffort"),
            (json!({"containers": [{"resources": {"requests": {"cpu": "0"}}}]}), "BestEffort"),
            (json!({"containers": [{"resources": {"requests": {"cpu": "1"}}}]}), "Burstable"),
            (json!({"containers": [{"resources": full}]}), "Guaranteed"),
            (json!({"containers": [{"resources": full}, {}]}), "Burstable"),
            (json!({"containers": [{"resources": full}], "initContainers": [{}]}), "Burstable"),
            (json!({"containers": [{}], "resources": full}), "Guaranteed"),
        ];
        for (spec, expected) in cases {
            assert_eq!(class(&spec), expected, "{spec}");
        }
    }
}
