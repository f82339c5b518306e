//! `spec.topologySpreadConstraints`: pods of a kind spread evenly over topology domains.
//!
//! Hard constraints filter by the skew a placement would leave, soft ones score. Pods with constraints share no
//! results: the skew depends on pods in all domains.
//!
//! Pods without constraints that belong to a Service or a workload get those of the plugin's `defaultConstraints`, which
//! then count the pods of the same. FIXME: upstream's own defaults (`defaultingType: System`, two soft constraints for
//! host name and zone) are none here, because such pods could share nothing; the resource scores alone spread them.

mod defaults;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use api::placement::{is_kept_away, is_required_match};
use api::view::{Node, TopologySpreadConstraint};
use apimachinery::GroupVersionResource;
use apimachinery::Str;
use apimachinery::selector::Selector;

use crate::affinity::selector;
use crate::cache::{Cache, NodeInfo, Slot};
use crate::framework::{
    ArgumentError, Arguments, CycleState, EnqueueExtensions, Event, EventSet, Extent, Filter, Handle, Hint,
    LEFT_OUT, MAX_NODE_SCORE, Normalization, NotShareable, Plugin, PreFilter, PreScore, Relevance, Score,
    Sign, Signature, Status,
};
use crate::pod::PodInfo;
use defaults::Defaults;

pub struct PodTopologySpread {
    defaults: Defaults,
}

const HOSTNAME: &str = "kubernetes.io/hostname";

/// A constraint in the form that counts.
struct Constraint {
    max_skew: i64,
    topology_key: Str,
    selector: Selector,
    min_domains: usize,
    honor_affinity: bool,
    honor_taints: bool,
}

/// A constraint with the matching pods in each domain.
struct Spread {
    constraint: Constraint,
    pods: HashMap<Str, i64>,
}

struct Hard(Vec<Spread>);

struct Soft {
    spreads: Vec<Spread>,
    /// Of each spread: domains weigh less the more there are.
    weights: Vec<f64>,
    /// Feasible nodes that lack a label.
    left_out: HashSet<Str>,
}

// === impl Constraint ===

impl Constraint {
    fn new(pod: &PodInfo, constraint: &TopologySpreadConstraint) -> Self {
        let labels = &pod.pod.metadata.labels;
        let keys = constraint.match_label_keys.iter();
        let same = keys.filter_map(|key| Some((key.as_str(), labels.get(key)?.as_str())));
        Self {
            max_skew: constraint.max_skew.into(),
            topology_key: constraint.topology_key.clone(),
            selector: selector(constraint.label_selector.as_ref()).and(Selector::of_labels(same)),
            min_domains: constraint.min_domains.and_then(|min| usize::try_from(min).ok()).unwrap_or(1),
            honor_affinity: constraint.node_affinity_policy != "Ignore",
            honor_taints: constraint.node_taints_policy == "Honor",
        }
    }

    fn includes(&self, pod: &PodInfo, node: &Node) -> bool {
        (!self.honor_affinity || is_required_match(&pod.pod.spec, node))
            && !(self.honor_taints && is_kept_away(&node.spec.taints, &pod.pod.spec.tolerations))
    }

    fn selects(&self, pod: &PodInfo) -> bool {
        let labels = &pod.pod.metadata.labels;
        self.selector.matches(|key| labels.get(key).map(Str::as_str))
    }

    /// Living pods on the node, of the pod's namespace, that are selected. An empty selector counts none.
    fn count(&self, pod: &PodInfo, node: &NodeInfo) -> i64 {
        if self.selector.is_everything() {
            return 0;
        }
        node.pods.iter().filter(|placed| self.counts(pod, placed)).count() as i64
    }

    fn counts(&self, pod: &PodInfo, placed: &PodInfo) -> bool {
        placed.namespace() == pod.namespace() && !placed.pod.is_deleting() && self.selects(placed)
    }
}

impl PodTopologySpread {
    pub fn new(handle: &Handle, arguments: &Arguments) -> Result<Self, ArgumentError> {
        Ok(Self { defaults: Defaults::new(handle, arguments)? })
    }

    fn constraints(&self, pod: &PodInfo, when_unsatisfiable: &str) -> Vec<Constraint> {
        let all = &pod.pod.spec.topology_spread_constraints;
        let of = |all: &[TopologySpreadConstraint]| -> Vec<Constraint> {
            let kept = all.iter().filter(|own| own.when_unsatisfiable == when_unsatisfiable);
            kept.map(|own| Constraint::new(pod, own)).collect()
        };
        if !all.is_empty() {
            return of(all);
        }
        let mut defaults = of(self.defaults.constraints());
        if !defaults.is_empty() {
            let selector = self.defaults.selector(pod);
            if selector.is_everything() {
                return Vec::new();
            }
            defaults.iter_mut().for_each(|constraint| constraint.selector = selector.clone());
        }
        defaults
    }

    fn hard(&self, pod: &PodInfo) -> Vec<Constraint> {
        self.constraints(pod, "DoNotSchedule")
    }
}

fn has_all_labels(node: &Node, spreads: &[Spread]) -> bool {
    spreads.iter().all(|spread| node.metadata.labels.contains_key(&spread.constraint.topology_key))
}

/// Counts pods in the domains of nodes that have all labels. `only_known`: domains are not added.
fn count_pods(spreads: &mut [Spread], pod: &PodInfo, cluster: &Cache, only_known: bool) {
    for (_, info) in cluster.nodes() {
        let Some(node) = info.node.as_deref().filter(|node| has_all_labels(node, spreads)) else { continue };
        for Spread { constraint, pods } in spreads.iter_mut() {
            let Some(value) = node.metadata.labels.get(&constraint.topology_key) else { continue };
            if !constraint.includes(pod, node) || (only_known && !pods.contains_key(value)) {
                continue;
            }
            *pods.entry(value.clone()).or_default() += constraint.count(pod, info);
        }
    }
}

// === impl PodTopologySpread ===

impl Plugin for PodTopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }
}

impl Sign for PodTopologySpread {
    fn sign(&self, pod: &PodInfo, _: &Cache, _: &mut Signature) -> Result<(), NotShareable> {
        let own = !pod.pod.spec.topology_spread_constraints.is_empty();
        if own || !self.defaults.constraints().is_empty() { Err(NotShareable) } else { Ok(()) }
    }
}

fn spreads(constraints: Vec<Constraint>) -> Vec<Spread> {
    constraints.into_iter().map(|constraint| Spread { constraint, pods: HashMap::new() }).collect()
}

impl PreFilter for PodTopologySpread {
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        cluster: &Cache,
    ) -> Result<Relevance, Status> {
        let mut spreads = spreads(self.hard(pod));
        if spreads.is_empty() {
            return Ok(Relevance::Skip);
        }
        count_pods(&mut spreads, pod, cluster, false);
        state.insert(Hard(spreads));
        Ok(Relevance::EveryNode)
    }
}

impl Spread {
    /// `gone` are pods that are counted and no longer on the node.
    fn check(&self, pod: &PodInfo, node: &NodeInfo, gone: &[Arc<PodInfo>]) -> Result<(), Status> {
        let Self { constraint, pods } = self;
        let object = node.node.as_deref();
        let value = object.and_then(|object| object.metadata.labels.get(&constraint.topology_key));
        let (Some(object), Some(value)) = (object, value) else {
            return Err(Status::unresolvable(
                "node(s) didn't match pod topology spread constraints (missing required label)",
            ));
        };
        let counted_out = match constraint.includes(pod, object) && !constraint.selector.is_everything() {
            true => gone.iter().filter(|placed| constraint.counts(pod, placed)).count() as i64,
            false => 0,
        };
        let left = |(domain, count): (&Str, &i64)| if domain == value { count - counted_out } else { *count };
        let enough_domains = pods.len() >= constraint.min_domains;
        let fewest = pods.iter().map(left).min().filter(|_| enough_domains).unwrap_or(0);
        let own = i64::from(constraint.selects(pod));
        let there = pods.get(value).map_or(0, |count| count - counted_out);
        match there + own - fewest > constraint.max_skew {
            true => Err(Status::unschedulable("node(s) didn't match pod topology spread constraints")),
            false => Ok(()),
        }
    }
}

impl Filter for PodTopologySpread {
    fn filter(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Status> {
        let spreads = state.get::<Hard>().into_iter().flat_map(|Hard(spreads)| spreads);
        spreads.into_iter().try_for_each(|spread| spread.check(pod, node, &[]))
    }

    fn filter_without(
        &self,
        gone: &[Arc<PodInfo>],
        _: &Cache,
        state: &CycleState,
        pod: &PodInfo,
        node: &NodeInfo,
    ) -> Result<(), Status> {
        let spreads = state.get::<Hard>().into_iter().flat_map(|Hard(spreads)| spreads);
        spreads.into_iter().try_for_each(|spread| spread.check(pod, node, gone))
    }
}

impl PreScore for PodTopologySpread {
    fn pre_score(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        cluster: &Cache,
        feasible: &[Slot],
    ) -> Relevance {
        let mut spreads = spreads(self.constraints(pod, "ScheduleAnyway"));
        if spreads.is_empty() {
            return Relevance::Skip;
        }
        let nodes: Vec<&Node> =
            feasible.iter().filter_map(|&slot| cluster.node(slot)?.node.as_deref()).collect();
        let (complete, incomplete): (Vec<&Node>, Vec<&Node>) =
            nodes.into_iter().partition(|node| has_all_labels(node, &spreads));
        for spread in spreads.iter_mut().filter(|spread| spread.constraint.topology_key != HOSTNAME) {
            let values =
                complete.iter().filter_map(|node| node.metadata.labels.get(&spread.constraint.topology_key));
            spread.pods.extend(values.map(|value| (value.clone(), 0)));
        }
        let size = |spread: &Spread| match spread.constraint.topology_key == HOSTNAME {
            true => complete.len(),
            false => spread.pods.len(),
        };
        let weights = spreads.iter().map(|spread| ((size(spread) + 2) as f64).ln()).collect();
        count_pods(&mut spreads, pod, cluster, true);
        let left_out = incomplete.into_iter().map(|node| node.metadata.name.clone()).collect();
        state.insert(Soft { spreads, weights, left_out });
        Relevance::EveryNode
    }
}

impl Score for PodTopologySpread {
    /// Matching pods in the node's domains, weighted; fewer is better.
    fn score(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let Some(Soft { spreads, weights, left_out }) = state.get::<Soft>() else { return 0 };
        if left_out.contains(&node.name) {
            return LEFT_OUT;
        }
        let Some(labels) = node.node.as_ref().map(|node| &node.metadata.labels) else { return LEFT_OUT };
        let mut score = 0.0;
        for (Spread { constraint, pods }, weight) in spreads.iter().zip(weights) {
            let Some(value) = labels.get(&constraint.topology_key) else { continue };
            let count = match constraint.topology_key == HOSTNAME {
                true => constraint.count(pod, node),
                false => pods.get(value).copied().unwrap_or(0),
            };
            score += count as f64 * weight + (constraint.max_skew - 1) as f64;
        }
        score.round() as i64
    }

    fn normalization(&self) -> Normalization {
        Normalization::By(|score, Extent { min, max }| match max {
            0 => MAX_NODE_SCORE,
            max => MAX_NODE_SCORE * (max + min - score) / max,
        })
    }
}

impl EnqueueExtensions for PodTopologySpread {
    fn events(&self) -> EventSet {
        let pods = EventSet::POD_ASSIGNED.with(EventSet::POD_LABEL).with(EventSet::POD_DELETE);
        let nodes = EventSet::NODE_ADD.with(EventSet::NODE_DELETE).with(EventSet::NODE_LABEL);
        pods.with(EventSet::POD_TOLERATION).with(nodes).with(EventSet::NODE_TAINT)
    }

    fn reads(&self) -> &[GroupVersionResource] {
        self.defaults.reads()
    }

    fn hint(&self, pod: &PodInfo, event: &Event<'_>) -> Hint {
        let constraints = self.hard(pod);
        let counts = |other: &PodInfo| {
            other.namespace() == pod.namespace()
                && constraints.iter().any(|constraint| constraint.selects(other))
        };
        let in_domains = |node: &Node| {
            constraints.iter().all(|constraint| node.metadata.labels.contains_key(&constraint.topology_key))
        };
        let helps = match event {
            Event::PodAssigned(other) | Event::AssignedPodDeleted(other) => counts(other),
            Event::AssignedPodUpdated { old, new } => counts(old) != counts(new),
            Event::PodUpdated { new, .. } => new.uid() == pod.uid(),
            Event::NodeAdded(node) | Event::NodeDeleted(node) => in_domains(node),
            Event::NodeUpdated { old, new } => in_domains(old) || in_domains(new),
            Event::PodAdded(_) | Event::Object { .. } => false,
        };
        if helps { Hint::Queue } else { Hint::Skip }
    }
}
