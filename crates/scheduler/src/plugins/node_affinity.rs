//! `spec.nodeSelector` and node affinity: required terms filter, preferred terms score. The plugin's `addedAffinity` is
//! every pod's besides.

use api::kinds::core::pod::scheduling;
use api::placement::{NAME_FIELD, is_required_match, matches, required};
use api::view::{
    Node, NodeAffinity as Affinity, NodeSelector, NodeSelectorTerm, Pod, PreferredSchedulingTerm,
};
use apimachinery::field::{ErrorList, Path};
use apimachinery::{Str, Value};
use serde::Deserialize;

use crate::cache::{Cache, NodeInfo, Slot};
use crate::framework::{
    ArgumentError, Arguments, CycleState, EnqueueExtensions, Event, EventSet, Filter, Fragment, Hint,
    Normalization, NotShareable, Plugin, PreFilter, PreScore, Relevance, Score, Sign, Signature, Status,
};
use crate::pod::PodInfo;

#[derive(Default)]
pub struct NodeAffinity {
    added: Affinity,
}

/// `NodeAffinityArgs`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct NodeAffinityArguments {
    added_affinity: Affinity,
}

impl NodeAffinity {
    pub fn new(arguments: &Arguments) -> Result<Self, ArgumentError> {
        let NodeAffinityArguments { added_affinity } = arguments.validated(|_, errors| {
            let affinity = Value::from(arguments.field("addedAffinity").clone());
            check_affinity(errors, &affinity, &Path::root("addedAffinity"));
        })?;
        Ok(Self { added: added_affinity })
    }

    /// The node is one of those that all pods of the profile are kept on.
    fn is_enforced(&self, node: &Node) -> bool {
        let required = self.added.required.as_ref();
        required.is_none_or(|required| required.node_selector_terms.iter().any(|term| matches(term, node)))
    }
}

fn check_affinity(errors: &mut ErrorList, affinity: &Value, path: &Path<'_>) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
    if let Some(required) = affinity.get(REQUIRED) {
        scheduling::node_selector(errors, required, &path.child(REQUIRED));
    }
    let path = path.child(PREFERRED);
    for (index, term) in affinity.array_at(&[PREFERRED]).iter().enumerate() {
        let path = path.index(index);
        let preference = term.get("preference").cloned().unwrap_or_default();
        scheduling::node_selector_term(errors, &preference, true, &path.child("preference"));
    }
}

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
        sign_node_affinity(pod, signature);
        Ok(())
    }
}

pub(super) fn sign_node_affinity(pod: &Pod, signature: &mut Signature) {
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
            let selects = !pod.pod.spec.node_selector.is_empty() || self.added.required.is_some();
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
            Some(node) if !self.is_enforced(node) => {
                Err(Status::unresolvable("node(s) didn't match scheduler-enforced node affinity"))
            }
            Some(node) if is_required_match(&pod.pod.spec, node) => Ok(()),
            _ => Err(Status::unresolvable("node(s) didn't match Pod's node affinity/selector")),
        }
    }
}

impl PreScore for NodeAffinity {
    fn pre_score(&self, _: &mut CycleState, pod: &PodInfo, _: &Cache, _: &[Slot]) -> Relevance {
        let nothing = preferred(&pod.pod).is_empty() && self.added.preferred.is_empty();
        if nothing { Relevance::Skip } else { Relevance::EveryNode }
    }
}

impl Score for NodeAffinity {
    /// The weights of the preferred terms that match.
    fn score(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let Some(node) = &node.node else { return 0 };
        let terms = preferred(&pod.pod).iter().chain(&self.added.preferred);
        let matching = terms.filter(|term| matches(&term.preference, node));
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
            Event::NodeAdded(node) | Event::NodeUpdated { new: node, .. } if !self.is_enforced(node) => false,
            Event::NodeAdded(node) => is_required_match(&pod.pod.spec, node),
            Event::NodeUpdated { old, new } => {
                let old_matched = self.is_enforced(old) && is_required_match(&pod.pod.spec, old);
                is_required_match(&pod.pod.spec, new) && !old_matched
            }
            _ => false,
        };
        if helps { Hint::Queue } else { Hint::Skip }
    }
}
