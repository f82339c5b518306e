//! Pod affinity and anti-affinity: pods that want to be, or must not be, in one topology domain with others.
//!
//! Answers depend on pods anywhere in a domain, so pods with terms of their own, and pods that terms of placed pods
//! are about, share no results.

use std::collections::HashMap;
use std::sync::Arc;

use api::view::Node;
use apimachinery::Str;
use apimachinery::field::{self, Path};
use serde::Deserialize;

use crate::affinity::{AffinityTerm, AffinityTerms};
use crate::cache::{Cache, NodeInfo, Slot};
use crate::framework::{
    ArgumentError, Arguments, CycleState, EnqueueExtensions, Event, EventSet, Extent, Filter, Hint,
    MAX_NODE_SCORE, Normalization, NotShareable, Plugin, PreFilter, PreScore, Relevance, Score, Sign,
    Signature, Status,
};
use crate::pod::PodInfo;

/// Its arguments are `InterPodAffinityArgs`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct InterPodAffinity {
    /// What a placed pod's required affinity adds to the score of a domain.
    hard_pod_affinity_weight: i32,
    /// Whether what placed pods prefer counts only for pods that prefer something themselves.
    ignore_preferred_terms_of_existing_pods: bool,
}

impl Default for InterPodAffinity {
    fn default() -> Self {
        Self { hard_pod_affinity_weight: 1, ignore_preferred_terms_of_existing_pods: false }
    }
}

impl InterPodAffinity {
    pub fn new(arguments: &Arguments) -> Result<Self, ArgumentError> {
        arguments.validated(|made: &Self, errors| {
            let weight = made.hard_pod_affinity_weight;
            if !(0..=100).contains(&weight) {
                let path = Path::root("hardPodAffinityWeight");
                errors.push(field::Error::invalid(&path, weight, "not in valid range [0, 100]"));
            }
        })
    }
}

/// Numbers by topology key and value.
#[derive(Clone, Debug, Default, PartialEq)]
struct Domains(HashMap<Str, HashMap<Str, i64>>);

#[derive(Clone)]
struct Counts {
    /// Placed pods whose anti-affinity is about the pod.
    existing_anti: Domains,
    /// Placed pods that the pod's affinity is about.
    affinity: Domains,
    /// Placed pods that the pod's anti-affinity is about.
    anti: Domains,
    /// The pod satisfies its own affinity: it may be the first of its kind.
    own_match: bool,
}

struct Preferences(Domains);

// === impl Domains ===

impl Domains {
    /// Adds to the domain that a node is in, if it is in one.
    fn add(&mut self, node: &NodeInfo, key: &Str, amount: i64) {
        let Some(value) = label(node, key) else { return };
        if !self.0.contains_key(key) {
            self.0.insert(key.clone(), HashMap::new());
        }
        if let Some(values) = self.0.get_mut(key) {
            *values.entry(value.clone()).or_default() += amount;
        }
    }

    fn of(&self, node: &NodeInfo, key: &str) -> i64 {
        let Some(values) = self.0.get(key) else { return 0 };
        label(node, key).and_then(|value| values.get(value)).copied().unwrap_or(0)
    }

    fn is_empty(&self) -> bool {
        self.0.values().flat_map(HashMap::values).all(|amount| *amount == 0)
    }
}

fn label<'a>(node: &'a NodeInfo, key: &str) -> Option<&'a Str> {
    node.node.as_ref()?.metadata.labels.get(key)
}

// === impl InterPodAffinity ===

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }
}

impl Sign for InterPodAffinity {
    fn sign(&self, pod: &PodInfo, cluster: &Cache, _: &mut Signature) -> Result<(), NotShareable> {
        let concerned = || cluster.affinity_groups().any(|group| group.terms.concern(pod, cluster));
        if pod.affinity.is_some() || concerned() { Err(NotShareable) } else { Ok(()) }
    }
}

impl PreFilter for InterPodAffinity {
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        cluster: &Cache,
    ) -> Result<Relevance, Status> {
        let mut counts = Counts {
            existing_anti: existing_anti(pod, cluster),
            affinity: Domains::default(),
            anti: Domains::default(),
            own_match: false,
        };
        let terms =
            pod.affinity.as_deref().filter(|own| !own.required.is_empty() || !own.required_anti.is_empty());
        if let Some(terms) = terms {
            count_placed(terms, cluster, &mut counts);
            counts.own_match = terms.all_required_match(pod, cluster);
        } else if counts.existing_anti.is_empty() {
            return Ok(Relevance::Skip);
        }
        state.insert(counts);
        Ok(Relevance::EveryNode)
    }
}

fn existing_anti(pod: &PodInfo, cluster: &Cache) -> Domains {
    let mut domains = Domains::default();
    for group in cluster.affinity_groups() {
        for term in group.terms.required_anti.iter().filter(|term| term.matches(pod, cluster)) {
            add_group(&mut domains, term, 1, group.nodes(), cluster);
        }
    }
    domains
}

fn add_group(
    domains: &mut Domains,
    term: &AffinityTerm,
    weight: i64,
    nodes: impl Iterator<Item = (Slot, usize)>,
    cluster: &Cache,
) {
    for (slot, pods) in nodes {
        if let Some(node) = cluster.node(slot) {
            domains.add(node, &term.topology_key, weight * pods as i64);
        }
    }
}

fn count_placed(terms: &AffinityTerms, cluster: &Cache, counts: &mut Counts) {
    for (_, node) in cluster.nodes() {
        node.pods.iter().for_each(|placed| counts.add(terms, placed, node, 1, cluster));
    }
}

// === impl Counts ===

impl Counts {
    /// Counts what a pod's terms say of one that is on a node.
    fn add(
        &mut self,
        terms: &AffinityTerms,
        placed: &PodInfo,
        node: &NodeInfo,
        amount: i64,
        cluster: &Cache,
    ) {
        if terms.all_required_match(placed, cluster) {
            terms.required.iter().for_each(|term| self.affinity.add(node, &term.topology_key, amount));
        }
        for term in terms.required_anti.iter().filter(|term| term.matches(placed, cluster)) {
            self.anti.add(node, &term.topology_key, amount);
        }
    }

    /// Counts pods out that are gone from a node.
    fn without(&self, gone: &[Arc<PodInfo>], pod: &PodInfo, node: &NodeInfo, cluster: &Cache) -> Self {
        let mut counts = self.clone();
        for placed in gone {
            if let Some(terms) = &pod.affinity {
                counts.add(terms, placed, node, -1, cluster);
            }
            let anti = placed.affinity.iter().flat_map(|own| &own.required_anti);
            for term in anti.filter(|term| term.matches(pod, cluster)) {
                counts.existing_anti.add(node, &term.topology_key, -1);
            }
        }
        counts
    }

    fn check(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Status> {
        if let Some(terms) = &pod.affinity {
            if !is_near(terms, self, node) {
                return Err(Status::unresolvable("node(s) didn't match pod affinity rules"));
            }
            if terms.required_anti.iter().any(|term| self.anti.of(node, &term.topology_key) > 0) {
                return Err(Status::unschedulable("node(s) didn't match pod anti-affinity rules"));
            }
        }
        if self.existing_anti.0.keys().any(|key| self.existing_anti.of(node, key) > 0) {
            return Err(Status::unschedulable("node(s) didn't satisfy existing pods anti-affinity rules"));
        }
        Ok(())
    }
}

impl Filter for InterPodAffinity {
    fn filter(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Status> {
        state.get::<Counts>().map_or(Ok(()), |counts| counts.check(pod, node))
    }

    fn filter_without(
        &self,
        gone: &[Arc<PodInfo>],
        cluster: &Cache,
        state: &CycleState,
        pod: &PodInfo,
        node: &NodeInfo,
    ) -> Result<(), Status> {
        let Some(counts) = state.get::<Counts>() else { return Ok(()) };
        counts.without(gone, pod, node, cluster).check(pod, node)
    }
}

/// The node is in a domain of each required affinity term; the first pod of a kind may start one.
fn is_near(terms: &AffinityTerms, counts: &Counts, node: &NodeInfo) -> bool {
    let in_domains = terms.required.iter().all(|term| label(node, &term.topology_key).is_some());
    let populated = || terms.required.iter().all(|term| counts.affinity.of(node, &term.topology_key) > 0);
    in_domains && (populated() || (counts.affinity.is_empty() && counts.own_match))
}

impl PreScore for InterPodAffinity {
    fn pre_score(&self, state: &mut CycleState, pod: &PodInfo, cluster: &Cache, _: &[Slot]) -> Relevance {
        let mut domains = Domains::default();
        let own = pod.affinity.as_deref().filter(|own| !own.preferred.is_empty());
        if own.is_none() && self.ignore_preferred_terms_of_existing_pods {
            return Relevance::Skip;
        }
        if let Some(own) = own {
            for (_, node) in cluster.nodes() {
                for (placed, (weight, term)) in
                    node.pods.iter().flat_map(|placed| own.preferred.iter().map(move |t| (placed, t)))
                {
                    if term.matches(placed, cluster) {
                        domains.add(node, &term.topology_key, *weight);
                    }
                }
            }
        }
        for group in cluster.affinity_groups() {
            let weight = i64::from(self.hard_pod_affinity_weight);
            let required = group.terms.required.iter().map(|term| (weight, term));
            let preferred = group.terms.preferred.iter().map(|(weight, term)| (*weight, term));
            let matching =
                required.chain(preferred).filter(|(weight, term)| *weight != 0 && term.matches(pod, cluster));
            for (weight, term) in matching {
                add_group(&mut domains, term, weight, group.nodes(), cluster);
            }
        }
        let relevance = if domains.is_empty() { Relevance::Skip } else { Relevance::EveryNode };
        state.insert(Preferences(domains));
        relevance
    }
}

impl Score for InterPodAffinity {
    fn score(&self, state: &CycleState, _: &PodInfo, node: &NodeInfo) -> i64 {
        let Some(Preferences(domains)) = state.get::<Preferences>() else { return 0 };
        domains.0.keys().map(|key| domains.of(node, key)).sum()
    }

    /// From the lowest to the highest, because sums may be negative.
    fn normalization(&self) -> Normalization {
        Normalization::By(|score, Extent { min, max }| match max - min {
            0 => 0,
            range => (MAX_NODE_SCORE as f64 * ((score - min) as f64 / range as f64)) as i64,
        })
    }
}

impl EnqueueExtensions for InterPodAffinity {
    fn events(&self) -> EventSet {
        EventSet::POD_ASSIGNED
            .with(EventSet::POD_LABEL)
            .with(EventSet::POD_DELETE)
            .with(EventSet::NODE_ADD)
            .with(EventSet::NODE_LABEL)
    }

    fn hint(&self, pod: &PodInfo, event: &Event<'_>) -> Hint {
        let helps = match event {
            Event::NodeAdded(node) => node_may_help(pod, None, node),
            Event::NodeUpdated { old, new } => node_may_help(pod, Some(old), new),
            Event::PodAssigned(_) => pod.affinity.as_ref().is_some_and(|own| !own.required.is_empty()),
            // Whether its terms and this pod's were about each other needs namespaces; being gone or relabelled is
            // reason enough to look again.
            Event::AssignedPodDeleted(_) | Event::AssignedPodUpdated { .. } => true,
            Event::PodUpdated { new, .. } => new.uid() == pod.uid(),
            Event::NodeDeleted(_) | Event::PodAdded(_) | Event::Object { .. } => false,
        };
        if helps { Hint::Queue } else { Hint::Skip }
    }
}

fn node_may_help(pod: &PodInfo, old: Option<&Node>, new: &Node) -> bool {
    let Some(own) = &pod.affinity else { return true };
    let value = |node: &Node, key: &Str| node.metadata.labels.get(key).cloned();
    let moved = |term: &AffinityTerm| match old {
        None => true,
        Some(old) => value(old, &term.topology_key) != value(new, &term.topology_key),
    };
    let has_domain = |term: &&AffinityTerm| value(new, &term.topology_key).is_some();
    own.required.iter().filter(has_domain).any(moved) || own.required_anti.iter().any(moved)
}
