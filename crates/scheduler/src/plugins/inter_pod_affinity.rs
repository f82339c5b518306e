//! Pod affinity and anti-affinity: pods that want to be, or must not be, in one topology domain with others.
//!
//! Answers depend on pods anywhere in a domain: placed pods are tallied by domain, and those that share answers are
//! alike in their terms and in what the terms of others see of them.

use std::sync::Arc;

use api::view::Node;
use apimachinery::Str;
use apimachinery::field::{self, Path};
use serde::Deserialize;
use smallvec::SmallVec;

use crate::affinity::{AffinityTerm, AffinityTerms};
use crate::cache::{Cache, NodeInfo, Slot};
use crate::framework::{
    Affected, ArgumentError, Arguments, CycleState, EnqueueExtensions, Event, EventSet, Extent, Filter,
    Fragment, Hint, MAX_NODE_SCORE, Normalization, NotShareable, Plugin, PreFilter, PreScore, Relevance,
    Score, Sign, Signature, Status,
};
use crate::plugins::tally::Tally;
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

/// Tallies by topology key.
struct Tallies(Vec<Tally>);

/// What some pods of one node add, by topology key.
#[derive(Default)]
struct Shares<'a>(SmallVec<[(&'a Str, i64); 2]>);

struct Counts {
    /// Placed pods whose anti-affinity is about the pod.
    existing_anti: Tallies,
    /// Placed pods that the pod's affinity is about.
    affinity: Tallies,
    /// Placed pods that the pod's anti-affinity is about.
    anti: Tallies,
    /// The pod satisfies its own affinity: it may be the first of its kind.
    own_match: bool,
}

/// What some pods of one node add to each of the [`Counts`].
#[derive(Default)]
struct Parts<'a> {
    existing_anti: Shares<'a>,
    affinity: Shares<'a>,
    anti: Shares<'a>,
}

struct Preferences(Tallies);

// === impl Shares ===

impl<'a> Shares<'a> {
    fn add(&mut self, key: &'a Str, amount: i64) {
        match self.0.iter_mut().find(|(own, _)| *own == key) {
            Some((_, sum)) => *sum += amount,
            None => self.0.push((key, amount)),
        }
    }

    fn of(&self, key: &Str) -> i64 {
        self.0.iter().find(|(own, _)| *own == key).map_or(0, |(_, amount)| *amount)
    }
}

// === impl Tallies ===

impl Tallies {
    fn new<'a>(keys: impl Iterator<Item = &'a Str>) -> Self {
        let mut tallies: Vec<Tally> = Vec::new();
        for key in keys {
            if tallies.iter().all(|own| own.key != *key) {
                tallies.push(Tally::new(key));
            }
        }
        Self(tallies)
    }

    /// Says what the pods of a node add now; false when they add to a key that is not tallied.
    fn set(
        &mut self,
        slot: Slot,
        node: Option<&NodeInfo>,
        shares: &Shares<'_>,
        matters: fn(i64, i64) -> bool,
        affected: &mut Vec<Slot>,
    ) -> bool {
        for tally in &mut self.0 {
            tally.set(slot, node, Some(shares.of(&tally.key)), matters, affected);
        }
        shares.0.iter().all(|(key, _)| self.0.iter().any(|tally| tally.key == **key))
    }

    /// Some domain of the node has any, without those that are `gone`.
    fn any(&self, node: &NodeInfo, gone: &Shares<'_>) -> bool {
        self.0.iter().any(|tally| tally.of(node) > gone.of(&tally.key))
    }

    /// Every domain of the node has any, without those that are `gone`.
    fn all(&self, node: &NodeInfo, gone: &Shares<'_>) -> bool {
        self.0.iter().all(|tally| tally.of(node) > gone.of(&tally.key))
    }

    /// No domain of any node has any, without those that are `gone`.
    fn is_empty(&self, gone: &Shares<'_>) -> bool {
        self.0.iter().all(|tally| tally.total() == gone.of(&tally.key))
    }
}

// === impl InterPodAffinity ===

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }
}

/// The pod has terms, or those of placed pods are about it.
fn is_involved(pod: &PodInfo, cluster: &Cache) -> bool {
    pod.affinity.is_some() || cluster.affinity_groups().any(|group| group.terms.concern(pod, cluster))
}

impl Sign for InterPodAffinity {
    fn sign(&self, pod: &PodInfo, cluster: &Cache, signature: &mut Signature) -> Result<(), NotShareable> {
        if is_involved(pod, cluster) {
            signature.labels(&pod.pod);
            let key = pod.affinity.as_ref().map_or("", |terms| terms.key.as_str());
            signature.fragment(Fragment::PodAffinity, |out| out.text(key));
        }
        Ok(())
    }
}

impl PreFilter for InterPodAffinity {
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        cluster: &Cache,
    ) -> Result<Relevance, Status> {
        if !is_involved(pod, cluster) {
            return Ok(Relevance::Skip);
        }
        let mut counts = Counts::new(pod, cluster);
        cluster.nodes().for_each(|(slot, _)| _ = counts.set(slot, pod, cluster, &mut Vec::new()));
        state.insert(counts);
        Ok(Relevance::EveryNode)
    }

    fn keep_up(&self, state: &mut CycleState, pod: &PodInfo, cluster: &Cache, changed: &[Slot]) -> Affected {
        let Some(counts) = state.get_mut::<Counts>() else { return Affected::NONE };
        let mut affected = Vec::new();
        let was_first = counts.is_first(&Shares::default());
        let tallied = changed.iter().all(|&slot| counts.set(slot, pod, cluster, &mut affected));
        match tallied && was_first == counts.is_first(&Shares::default()) {
            true => Affected::Nodes(affected),
            false => Affected::EveryNode,
        }
    }
}

// === impl Parts ===

impl<'a> Parts<'a> {
    fn of(pod: &'a PodInfo, placed: &'a [Arc<PodInfo>], cluster: &Cache) -> Self {
        let mut parts = Self::default();
        for placed in placed {
            let anti = placed.affinity.iter().flat_map(|theirs| &theirs.required_anti);
            for term in anti.filter(|term| term.matches(pod, cluster)) {
                parts.existing_anti.add(&term.topology_key, 1);
            }
            let Some(terms) = &pod.affinity else { continue };
            if terms.all_required_match(placed, cluster) {
                terms.required.iter().for_each(|term| parts.affinity.add(&term.topology_key, 1));
            }
            for term in terms.required_anti.iter().filter(|term| term.matches(placed, cluster)) {
                parts.anti.add(&term.topology_key, 1);
            }
        }
        parts
    }
}

// === impl Counts ===

impl Counts {
    fn new(pod: &PodInfo, cluster: &Cache) -> Self {
        let theirs = cluster.affinity_groups().flat_map(|group| &group.terms.required_anti);
        let terms = pod.affinity.as_deref();
        let keys = |terms: fn(&AffinityTerms) -> &Vec<AffinityTerm>| {
            pod.affinity.iter().flat_map(move |own| terms(own)).map(|term| &term.topology_key)
        };
        Self {
            existing_anti: Tallies::new(
                theirs.filter(|term| term.matches(pod, cluster)).map(|term| &term.topology_key),
            ),
            affinity: Tallies::new(keys(|own| &own.required)),
            anti: Tallies::new(keys(|own| &own.required_anti)),
            own_match: terms.is_some_and(|own| own.all_required_match(pod, cluster)),
        }
    }

    /// Counts the pods on a node anew; false when they have a term whose topology is not tallied.
    fn set(&mut self, slot: Slot, pod: &PodInfo, cluster: &Cache, affected: &mut Vec<Slot>) -> bool {
        let node = cluster.node(slot);
        let parts = Parts::of(pod, node.map_or(&[], |node| &node.pods), cluster);
        let matters = |old: i64, new: i64| (old > 0) != (new > 0);
        self.affinity.set(slot, node, &parts.affinity, matters, affected);
        self.anti.set(slot, node, &parts.anti, matters, affected);
        self.existing_anti.set(slot, node, &parts.existing_anti, matters, affected)
    }

    /// The pod needs no other to be near to.
    fn is_first(&self, gone: &Shares<'_>) -> bool {
        self.own_match && self.affinity.is_empty(gone)
    }

    /// The node is in a domain of each required affinity term; the first pod of a kind may start one.
    fn is_near(&self, node: &NodeInfo, gone: &Shares<'_>) -> bool {
        let in_domains = self.affinity.0.iter().all(|tally| tally.domain(node).is_some());
        in_domains && (self.affinity.all(node, gone) || self.is_first(gone))
    }

    /// `gone` are counted and no longer on the node.
    fn check(&self, node: &NodeInfo, gone: &Parts<'_>) -> Result<(), Status> {
        if !self.is_near(node, &gone.affinity) {
            return Err(Status::unresolvable("node(s) didn't match pod affinity rules"));
        }
        if self.anti.any(node, &gone.anti) {
            return Err(Status::unschedulable("node(s) didn't match pod anti-affinity rules"));
        }
        if self.existing_anti.any(node, &gone.existing_anti) {
            return Err(Status::unschedulable("node(s) didn't satisfy existing pods anti-affinity rules"));
        }
        Ok(())
    }
}

impl Filter for InterPodAffinity {
    fn filter(&self, state: &CycleState, _: &PodInfo, node: &NodeInfo) -> Result<(), Status> {
        state.get::<Counts>().map_or(Ok(()), |counts| counts.check(node, &Parts::default()))
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
        counts.check(node, &Parts::of(pod, gone, cluster))
    }
}

impl InterPodAffinity {
    /// What a placed pod's terms say of the pod, by their weight.
    fn weighted<'a>(&self, theirs: &'a AffinityTerms) -> impl Iterator<Item = (i64, &'a AffinityTerm)> {
        let weight = i64::from(self.hard_pod_affinity_weight);
        let required = theirs.required.iter().map(move |term| (weight, term));
        let preferred = theirs.preferred.iter().map(|(weight, term)| (*weight, term));
        required.chain(preferred).filter(|(weight, _)| *weight != 0)
    }

    /// Counts the preferences about the pods on a node anew; false when one is about a topology that is not tallied.
    fn prefer(
        &self,
        tallies: &mut Tallies,
        slot: Slot,
        pod: &PodInfo,
        cluster: &Cache,
        affected: &mut Vec<Slot>,
    ) -> bool {
        let node = cluster.node(slot);
        let mut shares = Shares::default();
        for placed in node.into_iter().flat_map(|node| &node.pods) {
            let own = pod.affinity.iter().flat_map(|own| &own.preferred);
            for (weight, term) in own.filter(|(_, term)| term.matches(placed, cluster)) {
                shares.add(&term.topology_key, *weight);
            }
            let theirs = placed.affinity.iter().flat_map(|theirs| self.weighted(theirs));
            for (weight, term) in theirs.filter(|(_, term)| term.matches(pod, cluster)) {
                shares.add(&term.topology_key, weight);
            }
        }
        tallies.set(slot, node, &shares, |old, new| old != new, affected)
    }
}

impl PreScore for InterPodAffinity {
    fn pre_score(&self, state: &mut CycleState, pod: &PodInfo, cluster: &Cache, _: &[Slot]) -> Relevance {
        let own = pod.affinity.iter().flat_map(|own| &own.preferred).map(|(_, term)| term);
        let prefers = own.clone().next().is_some();
        if (!prefers && self.ignore_preferred_terms_of_existing_pods) || !is_involved(pod, cluster) {
            return Relevance::Skip;
        }
        let theirs = cluster.affinity_groups().flat_map(|group| self.weighted(&group.terms));
        let theirs = theirs.map(|(_, term)| term).filter(|term| term.matches(pod, cluster));
        let mut tallies = Tallies::new(own.chain(theirs).map(|term| &term.topology_key));
        for (slot, _) in cluster.nodes() {
            self.prefer(&mut tallies, slot, pod, cluster, &mut Vec::new());
        }
        state.insert(Preferences(tallies));
        Relevance::EveryNode
    }

    fn keep_up(&self, state: &mut CycleState, pod: &PodInfo, cluster: &Cache, changed: &[Slot]) -> Affected {
        let Some(Preferences(tallies)) = state.get_mut() else { return Affected::NONE };
        let mut affected = Vec::new();
        match changed.iter().all(|&slot| self.prefer(tallies, slot, pod, cluster, &mut affected)) {
            true => Affected::Nodes(affected),
            false => Affected::EveryNode,
        }
    }
}

impl Score for InterPodAffinity {
    fn score(&self, state: &CycleState, _: &PodInfo, node: &NodeInfo) -> i64 {
        let Some(Preferences(tallies)) = state.get() else { return 0 };
        tallies.0.iter().map(|tally| tally.of(node)).sum()
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
