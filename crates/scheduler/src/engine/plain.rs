//! The default plugins as upstream describes them, written down plainly: every node is asked about every pod on every
//! node, nothing is shared, kept or repaired. What the engine decides must be among what this finds.
//!
//! It knows the typed views of nodes and pods and nothing of the engine: no cache, no shortlist, no plugin.

use std::collections::{BTreeMap, BTreeSet};

use api::view::{
    LabelSelector, Node, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodAffinity, PodAffinityTerm,
    StringMap, Taint, Toleration, TopologySpreadConstraint,
};
use apimachinery::Str;
use apimachinery::quantity::Quantity;

const HOSTNAME: &str = "kubernetes.io/hostname";
const MB: i64 = 1024 * 1024;

/// Nodes and the pods on them, by the index of the node.
#[derive(Clone, Default)]
pub struct Cluster {
    pub nodes: Vec<Node>,
    pub placed: Vec<(usize, Pod)>,
}

impl Cluster {
    fn on(&self, node: usize) -> impl Iterator<Item = &Pod> {
        self.placed.iter().filter(move |(own, _)| *own == node).map(|(_, pod)| pod)
    }

    fn label(&self, node: usize, key: &str) -> Option<&str> {
        self.nodes[node].metadata.labels.get(key).map(|value| value.as_str())
    }

    /// Whether the two nodes are in one domain of a label.
    fn together(&self, a: usize, b: usize, key: &str) -> bool {
        self.label(a, key).is_some() && self.label(a, key) == self.label(b, key)
    }

    /// The nodes that the pod fits, with their total scores.
    pub fn rate(&self, pod: &Pod) -> BTreeMap<usize, i64> {
        let feasible: Vec<usize> = (0..self.nodes.len()).filter(|&node| self.fits(pod, node)).collect();
        let scores = [
            (3, self.by_taints(pod, &feasible)),
            (2, self.by_node_affinity(pod, &feasible)),
            (1, feasible.iter().map(|&node| self.free_share(pod, node)).collect()),
            (2, self.by_spread(pod, &feasible)),
            (2, self.by_pod_affinity(pod, &feasible)),
            (1, feasible.iter().map(|&node| self.balance(pod, node)).collect()),
            (1, feasible.iter().map(|&node| self.images(pod, node)).collect()),
        ];
        let total =
            |at: usize| scores.iter().map(|(weight, values): &(i64, Vec<i64>)| weight * values[at]).sum();
        feasible.iter().enumerate().map(|(at, &node)| (node, total(at))).collect()
    }

    /// All filters.
    pub fn fits(&self, pod: &Pod, node: usize) -> bool {
        let object = &self.nodes[node];
        let cordon = Taint {
            key: "node.kubernetes.io/unschedulable".into(),
            effect: "NoSchedule".into(),
            ..Taint::default()
        };
        let tolerated = |taint: &Taint| pod.spec.tolerations.iter().any(|own| tolerates(own, taint));
        let hard = |taint: &&Taint| taint.effect == "NoSchedule" || taint.effect == "NoExecute";
        (!object.spec.unschedulable || tolerated(&cordon))
            && (pod.spec.node_name.is_empty() || pod.spec.node_name == object.metadata.name)
            && object.spec.taints.iter().filter(hard).all(tolerated)
            && selects_node(pod, object)
            && !self.on(node).any(|other| ports(pod).iter().any(|port| ports(other).contains(port)))
            && self.has_room(pod, node)
            && self.may_spread(pod, node)
            && self.likes_pods(pod, node)
            && self.is_liked(pod, node)
    }

    fn has_room(&self, pod: &Pod, node: usize) -> bool {
        let allocatable = |name: &str| amount(self.nodes[node].status.allocatable.get(name), name);
        let others: Vec<&Pod> = self.on(node).collect();
        (others.len() as i64) < allocatable("pods")
            && resources(pod).iter().all(|name| {
                let used: i64 = others.iter().map(|other| requested(other, name)).sum();
                requested(pod, name) == 0 || requested(pod, name) <= allocatable(name) - used
            })
    }

    // --- pods near each other and apart

    fn likes_pods(&self, pod: &Pod, node: usize) -> bool {
        let terms = required(affinity(pod));
        let anti = required(anti_affinity(pod));
        let all = |other: &Pod| terms.iter().all(|term| selects(term, other));
        let has = |term: &PodAffinityTerm, wanted: &dyn Fn(&Pod) -> bool| {
            let key = &term.topology_key;
            self.placed.iter().any(|(at, other)| self.together(*at, node, key) && wanted(other))
        };
        let has_labels = terms.iter().all(|term| self.label(node, &term.topology_key).is_some());
        // The first of pods that want to be near each other may go anywhere.
        let is_first = || {
            let anywhere = |(at, other): &(usize, Pod)| {
                all(other) && terms.iter().any(|term| self.label(*at, &term.topology_key).is_some())
            };
            all(pod) && !self.placed.iter().any(anywhere)
        };
        let near = terms.iter().all(|term| has(term, &all));
        let apart = !anti.iter().any(|term| has(term, &|other| selects(term, other)));
        has_labels && (near || is_first()) && apart
    }

    /// No placed pod wants to be apart from it.
    fn is_liked(&self, pod: &Pod, node: usize) -> bool {
        !self.placed.iter().any(|(at, other)| {
            let mut anti = required(anti_affinity(other)).into_iter();
            anti.any(|term| selects(term, pod) && self.together(*at, node, &term.topology_key))
        })
    }

    fn by_pod_affinity(&self, pod: &Pod, feasible: &[usize]) -> Vec<i64> {
        let mut touched = false;
        let mut raw = vec![0; feasible.len()];
        let mut add = |at: usize, key: &str, weight: i64| {
            if self.label(at, key).is_some() {
                touched = true;
                for (score, &node) in raw.iter_mut().zip(feasible) {
                    *score += if self.together(at, node, key) { weight } else { 0 };
                }
            }
        };
        for (at, other) in &self.placed {
            for (own, its, sign) in
                [(affinity(pod), affinity(other), 1), (anti_affinity(pod), anti_affinity(other), -1)]
            {
                for term in own.iter().flat_map(|own| &own.preferred) {
                    if selects(&term.pod_affinity_term, other) {
                        add(*at, &term.pod_affinity_term.topology_key, sign * i64::from(term.weight));
                    }
                }
                for term in its.iter().flat_map(|its| &its.preferred) {
                    if selects(&term.pod_affinity_term, pod) {
                        add(*at, &term.pod_affinity_term.topology_key, sign * i64::from(term.weight));
                    }
                }
            }
            for term in required(affinity(other)) {
                if selects(term, pod) {
                    add(*at, &term.topology_key, 1);
                }
            }
        }
        let (min, max) = (raw.iter().min().copied().unwrap_or(0), raw.iter().max().copied().unwrap_or(0));
        let scaled = |score: &i64| match max - min {
            0 => 0,
            range => (100.0 * ((score - min) as f64 / range as f64)) as i64,
        };
        if touched { raw.iter().map(scaled).collect() } else { raw }
    }

    // --- spreading

    /// The pods that a constraint counts on a node.
    fn counted(&self, pod: &Pod, constraint: &TopologySpreadConstraint, node: usize) -> i64 {
        let Some(selector) = constraint.label_selector.as_ref().filter(|own| !own.is_empty()) else {
            return 0;
        };
        let counts = |other: &&Pod| other.metadata.deletion_timestamp.is_none() && matches(selector, other);
        let in_namespace = |other: &&Pod| other.metadata.namespace == pod.metadata.namespace;
        self.on(node).filter(in_namespace).filter(counts).count() as i64
    }

    fn has_labels(&self, constraints: &[&TopologySpreadConstraint], node: usize) -> bool {
        constraints.iter().all(|own| self.label(node, &own.topology_key).is_some())
    }

    fn may_spread(&self, pod: &Pod, node: usize) -> bool {
        let constraints = constraints(pod, "DoNotSchedule");
        constraints.iter().all(|constraint| {
            let Some(own) = self.label(node, &constraint.topology_key) else { return false };
            let mut domains: BTreeMap<&str, i64> = BTreeMap::new();
            for other in 0..self.nodes.len() {
                if selects_node(pod, &self.nodes[other]) && self.has_labels(&constraints, other) {
                    let value = self.label(other, &constraint.topology_key).expect("all labels are there");
                    *domains.entry(value).or_default() += self.counted(pod, constraint, other);
                }
            }
            let fewest = domains.values().min().copied().unwrap_or(0);
            let itself = constraint.label_selector.as_ref().is_some_and(|selector| matches(selector, pod));
            let there = domains.get(own).copied().unwrap_or(0);
            there + i64::from(itself) - fewest <= i64::from(constraint.max_skew)
        })
    }

    fn by_spread(&self, pod: &Pod, feasible: &[usize]) -> Vec<i64> {
        let constraints = constraints(pod, "ScheduleAnyway");
        if constraints.is_empty() {
            return vec![0; feasible.len()];
        }
        let rated: Vec<usize> =
            feasible.iter().copied().filter(|&node| self.has_labels(&constraints, node)).collect();
        let score = |node: usize| {
            let mut score = 0.0;
            for constraint in &constraints {
                let key = constraint.topology_key.as_str();
                let domains: BTreeSet<_> = rated.iter().map(|&node| self.label(node, key)).collect();
                let size = if key == HOSTNAME { rated.len() } else { domains.len() };
                let count: i64 = (0..self.nodes.len())
                    .filter(|&other| {
                        let in_domain =
                            if key == HOSTNAME { other == node } else { self.together(other, node, key) };
                        let included = key == HOSTNAME
                            || (self.has_labels(&constraints, other)
                                && selects_node(pod, &self.nodes[other]));
                        in_domain && included
                    })
                    .map(|other| self.counted(pod, constraint, other))
                    .sum();
                score += count as f64 * ((size + 2) as f64).ln() + f64::from(constraint.max_skew - 1);
            }
            score.round() as i64
        };
        let raw: BTreeMap<usize, i64> = rated.iter().map(|&node| (node, score(node))).collect();
        let (min, max) = (raw.values().min().copied().unwrap_or(0), raw.values().max().copied().unwrap_or(0));
        let scaled = |node: &usize| match (raw.get(node), max) {
            (None, _) => 0,
            (_, 0) => 100,
            (Some(score), max) => 100 * (max + min - score) / max,
        };
        feasible.iter().map(scaled).collect()
    }

    // --- scores of single nodes

    fn by_taints(&self, pod: &Pod, feasible: &[usize]) -> Vec<i64> {
        let soft = |own: &&Toleration| own.effect.is_empty() || own.effect == "PreferNoSchedule";
        let tolerated =
            |taint: &Taint| pod.spec.tolerations.iter().filter(soft).any(|own| tolerates(own, taint));
        let bad = |taint: &&Taint| taint.effect == "PreferNoSchedule" && !tolerated(taint);
        let raw: Vec<i64> = feasible
            .iter()
            .map(|&node| self.nodes[node].spec.taints.iter().filter(bad).count() as i64)
            .collect();
        let max = raw.iter().max().copied().unwrap_or(0);
        raw.iter().map(|score| if max == 0 { 100 } else { 100 - 100 * score / max }).collect()
    }

    fn by_node_affinity(&self, pod: &Pod, feasible: &[usize]) -> Vec<i64> {
        let affinity = pod.spec.affinity.as_ref().and_then(|own| own.node_affinity.as_ref());
        let terms = || affinity.iter().flat_map(|own| &own.preferred);
        let raw: Vec<i64> = feasible
            .iter()
            .map(|&node| {
                let wanted = terms().filter(|own| term_holds(&own.preference, &self.nodes[node]));
                wanted.map(|own| i64::from(own.weight)).sum()
            })
            .collect();
        let max = raw.iter().max().copied().unwrap_or(0);
        raw.iter().map(|score| if max == 0 { *score } else { 100 * score / max }).collect()
    }

    /// The mean of the shares of CPU and memory that are free with the pod, missing requests assumed.
    fn free_share(&self, pod: &Pod, node: usize) -> i64 {
        let shares: Vec<i64> = [("cpu", 100), ("memory", 200 * MB)]
            .into_iter()
            .filter_map(|(name, missing)| {
                let all = amount(self.nodes[node].status.allocatable.get(name), name);
                let used: i64 = self.on(node).chain([pod]).map(|own| assumed(own, name, missing)).sum();
                (all > 0).then(|| if used > all { 0 } else { (all - used) * 100 / all })
            })
            .collect();
        if shares.is_empty() { 0 } else { shares.iter().sum::<i64>() / shares.len() as i64 }
    }

    /// How much more even the use of CPU and memory becomes.
    fn balance(&self, pod: &Pod, node: usize) -> i64 {
        if requested(pod, "cpu") == 0 && requested(pod, "memory") == 0 {
            return 0;
        }
        let evenness = |with: bool| {
            let share = |name: &str| {
                let all = amount(self.nodes[node].status.allocatable.get(name), name);
                let used: i64 = self.on(node).map(|own| requested(own, name)).sum();
                let used = used + if with { requested(pod, name) } else { 0 };
                (all > 0).then(|| (used as f64 / all as f64).min(1.0))
            };
            let deviation = match (share("cpu"), share("memory")) {
                (Some(cpu), Some(memory)) => ((cpu - memory) / 2.0).abs(),
                _ => 0.0,
            };
            ((1.0 - deviation) * 100.0) as i64
        };
        50 + (50 + evenness(true) - evenness(false)) / 2
    }

    fn images(&self, pod: &Pod, node: usize) -> i64 {
        let has = |node: &Node, image: &str| {
            let image = node.status.images.iter().find(|own| own.names.iter().any(|name| name == image))?;
            Some(image.size_bytes)
        };
        let containers: Vec<_> = pod.spec.init_containers.iter().chain(&pod.spec.containers).collect();
        let sum: i64 = containers
            .iter()
            .filter_map(|container| {
                let size = has(&self.nodes[node], &container.image)?;
                let nodes = self.nodes.iter().filter(|other| has(other, &container.image).is_some()).count();
                Some((size as f64 * (nodes as f64 / self.nodes.len() as f64)) as i64)
            })
            .sum();
        let (low, high) = (23 * MB, 1000 * MB * containers.len() as i64);
        100 * (sum.clamp(low, high.max(low)) - low) / (high - low)
    }
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let key = toleration.key.is_empty() || toleration.key == taint.key;
    let effect = toleration.effect.is_empty() || toleration.effect == taint.effect;
    key && effect && (toleration.operator == "Exists" || toleration.value == taint.value)
}

fn selects_node(pod: &Pod, node: &Node) -> bool {
    let affinity = pod.spec.affinity.as_ref().and_then(|own| own.node_affinity.as_ref());
    let required = affinity.and_then(|own| own.required.as_ref());
    pod.spec.node_selector.iter().all(|(key, value)| node.metadata.labels.get(key) == Some(value))
        && required.is_none_or(|own| own.node_selector_terms.iter().any(|term| term_holds(term, node)))
}

fn term_holds(term: &NodeSelectorTerm, node: &Node) -> bool {
    let by_label = |own: &NodeSelectorRequirement| {
        let value = node.metadata.labels.get(&own.key);
        match own.operator.as_str() {
            "In" => value.is_some_and(|value| own.values.contains(value)),
            "NotIn" => value.is_none_or(|value| !own.values.contains(value)),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            other => panic!("no random pod uses {other}"),
        }
    };
    (!term.match_expressions.is_empty() || !term.match_fields.is_empty())
        && term.match_expressions.iter().all(by_label)
        && term.match_fields.iter().all(|own| own.values.contains(&node.metadata.name))
}

/// Protocol and number; random pods name no addresses.
fn ports(pod: &Pod) -> Vec<(String, i32)> {
    let all = pod.spec.containers.iter().flat_map(|container| &container.ports);
    let protocol = |own: &str| if own.is_empty() { "TCP" } else { own }.to_owned();
    all.filter(|port| port.host_port > 0).map(|port| (protocol(&port.protocol), port.host_port)).collect()
}

fn amount(text: Option<&Str>, name: &str) -> i64 {
    let quantity: Quantity = text.map_or("0", Str::as_str).parse().expect("random amounts are quantities");
    if name == "cpu" { quantity.milli_value() } else { quantity.value() }
}

fn resources(pod: &Pod) -> BTreeSet<String> {
    let requests = pod.spec.containers.iter().flat_map(|container| container.resources.requests.iter());
    requests.map(|(name, _)| name.to_string()).collect()
}

fn requested(pod: &Pod, name: &str) -> i64 {
    pod.spec.containers.iter().map(|own| amount(own.resources.requests.get(name), name)).sum()
}

fn assumed(pod: &Pod, name: &str, missing: i64) -> i64 {
    let of = |request: Option<&Str>| request.map_or(missing, |_| amount(request, name));
    pod.spec.containers.iter().map(|own| of(own.resources.requests.get(name))).sum()
}

fn affinity(pod: &Pod) -> Option<&PodAffinity> {
    pod.spec.affinity.as_ref()?.pod_affinity.as_ref()
}

fn anti_affinity(pod: &Pod) -> Option<&PodAffinity> {
    pod.spec.affinity.as_ref()?.pod_anti_affinity.as_ref()
}

fn required(affinity: Option<&PodAffinity>) -> Vec<&PodAffinityTerm> {
    affinity.iter().flat_map(|own| &own.required).collect()
}

fn constraints<'a>(pod: &'a Pod, when: &str) -> Vec<&'a TopologySpreadConstraint> {
    pod.spec.topology_spread_constraints.iter().filter(|own| own.when_unsatisfiable == when).collect()
}

/// Random pods are all in one namespace.
fn selects(term: &PodAffinityTerm, pod: &Pod) -> bool {
    term.label_selector.as_ref().is_some_and(|selector| matches(selector, pod))
}

/// Random selectors have labels only.
fn matches(selector: &LabelSelector, pod: &Pod) -> bool {
    let labels: &StringMap = &pod.metadata.labels;
    selector.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
}

#[cfg(test)]
mod tests;
