//! `spec.topologySpreadConstraints`: pods of a kind spread evenly over topology domains.
//!
//! Hard constraints filter by the skew a placement would leave, soft ones score. Pods are tallied by domain, and pods
//! of equal constraints and labels share the tallies.
//!
//! Pods without constraints that belong to a Service or a workload get those of the plugin's `defaultConstraints`, which
//! then count the pods of the same. FIXME: upstream's own defaults (`defaultingType: System`, two soft constraints for
//! host name and zone) are none here, because such pods could share nothing; the resource scores alone spread them.

mod defaults;

use std::collections::HashSet;
use std::sync::Arc;

use api::placement::{is_kept_away, is_required_match};
use api::view::{Node, TopologySpreadConstraint};
use apimachinery::GroupVersionResource;
use apimachinery::Str;
use apimachinery::selector::Selector;

use crate::affinity::selector;
use crate::cache::{Cache, NodeInfo, Slot};
use crate::framework::{
    Affected, ArgumentError, Arguments, CycleState, EnqueueExtensions, Event, EventSet, Extent, Filter,
    Fragment, Handle, Hint, LEFT_OUT, MAX_NODE_SCORE, Normalization, NotShareable, Plugin, PreFilter,
    PreScore, Relevance, Score, Sign, Signature, Status,
};
use crate::plugins::node_affinity::sign_node_affinity;
use crate::plugins::taint_toleration::sign_tolerations;
use crate::plugins::tally::Tally;
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

/// A constraint with the matching pods in each domain; domains that no more fit in are closed.
struct Spread {
    constraint: Constraint,
    pods: Tally,
}

struct Hard(Vec<Spread>);

struct Soft {
    spreads: Vec<Spread>,
    /// Of each spread: domains weigh less the more there are.
    weights: Vec<f64>,
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

    /// What the skew is measured from: the fewest pods in a domain, or none while there are too few domains.
    fn fewest(&self, domains: usize, fewest: Option<i64>) -> i64 {
        fewest.filter(|_| domains > 0 && domains >= self.min_domains).unwrap_or(0)
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

/// Counts the pods on a node anew, if the node has all labels; true when it is in another domain.
fn count(
    spreads: &mut [Spread],
    slot: Slot,
    pod: &PodInfo,
    cluster: &Cache,
    matters: fn(i64, i64) -> bool,
    affected: &mut Vec<Slot>,
) -> bool {
    let info = cluster.node(slot);
    let counted = info.filter(|info| info.node.as_deref().is_some_and(|node| has_all_labels(node, spreads)));
    let mut moved = false;
    for Spread { constraint, pods } in spreads {
        let included =
            counted.filter(|info| info.node.as_deref().is_some_and(|node| constraint.includes(pod, node)));
        let amount = included.map(|info| constraint.count(pod, info));
        moved |= pods.set(slot, info, amount, matters, affected);
    }
    moved
}

// === impl PodTopologySpread ===

impl Plugin for PodTopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }
}

impl Sign for PodTopologySpread {
    fn sign(&self, pod: &PodInfo, _: &Cache, signature: &mut Signature) -> Result<(), NotShareable> {
        let own = &pod.pod.spec.topology_spread_constraints;
        if own.is_empty() {
            // The defaults depend on other objects.
            return if self.defaults.constraints().is_empty() { Ok(()) } else { Err(NotShareable) };
        }
        signature.labels(&pod.pod);
        signature.fragment(Fragment::TopologySpread, |out| out.text(&format!("{own:?}")));
        // Which nodes are counted.
        sign_tolerations(pod, signature);
        sign_node_affinity(&pod.pod, signature);
        Ok(())
    }
}

fn spreads(constraints: Vec<Constraint>) -> Vec<Spread> {
    let spread = |constraint: Constraint| Spread { pods: Tally::new(&constraint.topology_key), constraint };
    constraints.into_iter().map(spread).collect()
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
        for (slot, _) in cluster.nodes() {
            count(&mut spreads, slot, pod, cluster, |_, _| false, &mut Vec::new());
        }
        spreads.iter_mut().for_each(|spread| spread.close_domains(pod, &mut Vec::new()));
        state.insert(Hard(spreads));
        Ok(Relevance::EveryNode)
    }

    fn keep_up(&self, state: &mut CycleState, pod: &PodInfo, cluster: &Cache, changed: &[Slot]) -> Affected {
        let Some(Hard(spreads)) = state.get_mut() else { return Affected::NONE };
        let mut affected = Vec::new();
        for &slot in changed {
            count(spreads, slot, pod, cluster, |_, _| false, &mut affected);
        }
        spreads.iter_mut().for_each(|spread| spread.close_domains(pod, &mut affected));
        Affected::Nodes(affected)
    }
}

impl Spread {
    /// Closes the domains in which one more would be too many.
    fn close_domains(&mut self, pod: &PodInfo, affected: &mut Vec<Slot>) {
        let Self { constraint, pods } = self;
        let (count, fewest) = pods.counted().fold((0, i64::MAX), |(n, min), (_, own)| (n + 1, own.min(min)));
        let fewest = constraint.fewest(count, Some(fewest));
        let own = i64::from(constraint.selects(pod));
        pods.close(|there| there + own - fewest > constraint.max_skew, affected);
    }

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
        let is_closed = match gone.is_empty() {
            true => pods.domain(node).is_some_and(|domain| domain.is_closed),
            false => self.is_closed_without(gone, pod, object, value),
        };
        match is_closed {
            true => Err(Status::unschedulable("node(s) didn't match pod topology spread constraints")),
            false => Ok(()),
        }
    }

    fn is_closed_without(&self, gone: &[Arc<PodInfo>], pod: &PodInfo, object: &Node, value: &Str) -> bool {
        let Self { constraint, pods } = self;
        let counted_out = match constraint.includes(pod, object) && !constraint.selector.is_everything() {
            true => gone.iter().filter(|placed| constraint.counts(pod, placed)).count() as i64,
            false => 0,
        };
        let left = |(domain, count): (&Str, i64)| if domain == value { count - counted_out } else { count };
        let fewest = constraint.fewest(pods.counted().count(), pods.counted().map(left).min());
        let own = i64::from(constraint.selects(pod));
        let there = pods.counted().find(|(domain, _)| *domain == value).map_or(0, left);
        there + own - fewest > constraint.max_skew
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
        for (slot, _) in cluster.nodes() {
            count(&mut spreads, slot, pod, cluster, |_, _| false, &mut Vec::new());
        }
        let weights = weights(&spreads, cluster, &mut feasible.iter().copied());
        state.insert(Soft { spreads, weights });
        Relevance::EveryNode
    }

    fn keep_up(&self, state: &mut CycleState, pod: &PodInfo, cluster: &Cache, changed: &[Slot]) -> Affected {
        let Some(Soft { spreads, .. }) = state.get_mut() else { return Affected::NONE };
        let (mut affected, mut moved) = (Vec::new(), false);
        for &slot in changed {
            moved |= count(spreads, slot, pod, cluster, |old, new| old != new, &mut affected);
        }
        // The number of domains may be another, and with it all weights.
        if moved { Affected::EveryNode } else { Affected::Nodes(affected) }
    }

    fn depends_on(
        &self,
        state: &CycleState,
        cluster: &Cache,
        feasible: &mut dyn Iterator<Item = Slot>,
    ) -> bool {
        let Some(soft) = state.get::<Soft>() else { return false };
        soft.weights != weights(&soft.spreads, cluster, feasible)
    }
}

/// By the number of domains that feasible nodes with all labels are in.
fn weights(spreads: &[Spread], cluster: &Cache, feasible: &mut dyn Iterator<Item = Slot>) -> Vec<f64> {
    let nodes = feasible.filter_map(|slot| cluster.node(slot)?.node.as_deref());
    let complete: Vec<&Node> = nodes.filter(|node| has_all_labels(node, spreads)).collect();
    let size = |Spread { constraint, .. }: &Spread| match constraint.topology_key == HOSTNAME {
        true => complete.len(),
        false => {
            let values =
                complete.iter().filter_map(|node| node.metadata.labels.get(&constraint.topology_key));
            values.collect::<HashSet<&Str>>().len()
        }
    };
    spreads.iter().map(|spread| ((size(spread) + 2) as f64).ln()).collect()
}

impl Score for PodTopologySpread {
    /// Matching pods in the node's domains, weighted; fewer is better.
    fn score(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let Some(Soft { spreads, weights }) = state.get() else { return 0 };
        if !node.node.as_deref().is_some_and(|node| has_all_labels(node, spreads)) {
            return LEFT_OUT;
        }
        let mut score = 0.0;
        for (Spread { constraint, pods }, weight) in spreads.iter().zip(weights) {
            let count = match constraint.topology_key == HOSTNAME {
                true => constraint.count(pod, node),
                false => pods.of(node),
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
