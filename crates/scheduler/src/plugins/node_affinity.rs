//! `spec.nodeSelector` and node affinity: required terms filter, preferred terms score.

use api::placement::{NAME_FIELD, is_required_match, matches, required};
use api::view::{NodeAffinity as Affinity, NodeSelector, NodeSelectorTerm, Pod, PreferredSchedulingTerm};
use apimachinery::Str;

use crate::cache::{Cache, NodeInfo, Slot};
use crate::framework::{
    CycleState, EnqueueExtensions, Event, EventSet, Filter, Fragment, Hint, Normalization, NotShareable,
    Plugin, PreFilter, PreScore, Relevance, Score, Sign, Signature, Status,
};
use crate::pod::PodInfo;

pub struct NodeAffinity;

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }
}

fn affinity(pod: &Pod) -> Option<&Affinity> {
    pod.spec.affinity.as_ref()?.node_affinity.as_ref()
}

fn preferred(pod: &Pod) -> &[PreferredSchedulingTerm] {
    affinity(pod).map_or(&[], |affinity| &affinity.preferred)
}

impl Sign for NodeAffinity {
    fn sign(&self, pod: &PodInfo, _: &Cache, signature: &mut Signature) -> Result<(), NotShareable> {
        let pod = &pod.pod;
        if required(&pod.spec).is_some_and(|required| named_nodes(required) != Named::Unrestricted) {
            // One pod per node, as DaemonSets make them: nothing to share, and a table of all nodes for each.
            return Err(NotShareable);
        }
        signature.fragment(Fragment::NodeAffinity, |out| {
            out.number(pod.spec.node_selector.len() as i64);
            for (key, value) in &pod.spec.node_selector {
                out.text(key);
                out.text(value);
            }
            match required(&pod.spec) {
                None => out.number(-1),
                Some(required) => {
                    out.number(required.node_selector_terms.len() as i64);
                    required.node_selector_terms.iter().for_each(|term| sign_term(term, out));
                }
            }
            out.number(preferred(pod).len() as i64);
            for term in preferred(pod) {
                out.number(term.weight.into());
                sign_term(&term.preference, out);
            }
        });
        Ok(())
    }
}

fn sign_term(term: &NodeSelectorTerm, out: &mut Signature) {
    for requirements in [&term.match_expressions, &term.match_fields] {
        out.number(requirements.len() as i64);
        for requirement in requirements {
            out.text(&requirement.key);
            out.text(&requirement.operator);
            out.texts(&requirement.values);
        }
    }
}

/// Which nodes required terms name by `metadata.name`.
#[derive(Debug, PartialEq, Eq)]
enum Named {
    Unrestricted,
    Only(Vec<Str>),
    /// The terms contradict each other.
    Conflict,
}

/// Nodes named by every term; a term that names none leaves all nodes possible.
fn named_nodes(required: &NodeSelector) -> Named {
    let mut all: Vec<Str> = Vec::new();
    if required.node_selector_terms.is_empty() {
        return Named::Unrestricted;
    }
    for term in &required.node_selector_terms {
        let names =
            term.match_fields.iter().filter(|field| field.key == NAME_FIELD && field.operator == "In");
        let common = names.map(|field| field.values.clone()).reduce(|mut common, values| {
            common.retain(|name| values.contains(name));
            common
        });
        match common {
            None => return Named::Unrestricted,
            Some(names) => all.extend(names),
        }
    }
    all.sort_unstable();
    all.dedup();
    if all.is_empty() { Named::Conflict } else { Named::Only(all) }
}

impl PreFilter for NodeAffinity {
    fn pre_filter(&self, _: &mut CycleState, pod: &PodInfo, _: &Cache) -> Result<Relevance, Status> {
        let Some(required) = required(&pod.pod.spec) else {
            let selects = !pod.pod.spec.node_selector.is_empty();
            return Ok(if selects { Relevance::EveryNode } else { Relevance::Skip });
        };
        match named_nodes(required) {
            Named::Unrestricted => Ok(Relevance::EveryNode),
            Named::Only(names) => Ok(Relevance::OnlyNodes(names)),
            Named::Conflict => Err(Status::unresolvable("pod affinity terms conflict")),
        }
    }
}

impl Filter for NodeAffinity {
    fn filter(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Status> {
        match &node.node {
            Some(node) if is_required_match(&pod.pod.spec, node) => Ok(()),
            _ => Err(Status::unresolvable("node(s) didn't match Pod's node affinity/selector")),
        }
    }
}

impl PreScore for NodeAffinity {
    fn pre_score(&self, _: &mut CycleState, pod: &PodInfo, _: &Cache, _: &[Slot]) -> Relevance {
        if preferred(&pod.pod).is_empty() { Relevance::Skip } else { Relevance::EveryNode }
    }
}

impl Score for NodeAffinity {
    /// The weights of the preferred terms that match.
    fn score(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let Some(node) = &node.node else { return 0 };
        let matching = preferred(&pod.pod).iter().filter(|term| matches(&term.preference, node));
        matching.map(|term| i64::from(term.weight)).sum()
    }

    fn normalization(&self) -> Normalization {
        Normalization::PROPORTIONAL
    }
}

impl EnqueueExtensions for NodeAffinity {
    fn events(&self) -> EventSet {
        EventSet::NODE_ADD.with(EventSet::NODE_LABEL)
    }

    fn hint(&self, pod: &PodInfo, event: &Event<'_>) -> Hint {
        let helps = match event {
            Event::NodeAdded(node) => is_required_match(&pod.pod.spec, node),
            Event::NodeUpdated { old, new } => {
                is_required_match(&pod.pod.spec, new) && !is_required_match(&pod.pod.spec, old)
            }
            _ => false,
        };
        if helps { Hint::Queue } else { Hint::Skip }
    }
}
