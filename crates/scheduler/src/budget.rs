//! PodDisruptionBudgets as preemption looks at them.

use api::view::PodDisruptionBudget;
use apimachinery::Str;
use apimachinery::selector::Selector;

use crate::affinity::selector;
use crate::pod::PodInfo;

/// A budget that can be spent in a what-if.
#[derive(Clone, Debug)]
pub struct Budget {
    namespace: Str,
    selector: Selector,
    /// Pods whose eviction it has counted already.
    disrupted: Vec<Str>,
    allowed: i64,
}

impl Budget {
    pub fn new(budget: &PodDisruptionBudget) -> Self {
        Self {
            namespace: budget.metadata.namespace.clone(),
            selector: selector(budget.spec.selector.as_ref()),
            disrupted: budget.status.disrupted_pods.keys().cloned().collect(),
            allowed: budget.status.disruptions_allowed.into(),
        }
    }

    /// Takes one eviction off the budget; false when there was none left. Other pods cost it nothing.
    pub fn spend_for(&mut self, pod: &PodInfo) -> bool {
        let labels = &pod.pod.metadata.labels;
        let covers = *pod.namespace() == self.namespace
            && !labels.is_empty()
            && !self.disrupted.contains(pod.name())
            && self.selector.matches(|key| labels.get(key).map(Str::as_str));
        if covers {
            self.allowed -= 1;
        }
        !covers || self.allowed >= 0
    }
}
