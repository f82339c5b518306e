//! What a namespace's conditions say about its deletion. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::{GroupVersionResource, Object, Str, Value, json, time};
use jiff::Timestamp;

use super::Outcome;

/// Type, and reason and message when all is well.
const CONDITIONS: [(&str, &str, &str); 5] = [
    ("NamespaceDeletionDiscoveryFailure", "ResourcesDiscovered", "All resources successfully discovered"),
    (
        "NamespaceDeletionGroupVersionParsingFailure",
        "ParsedGroupVersions",
        "All legacy kube types successfully parsed",
    ),
    (
        "NamespaceDeletionContentFailure",
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
    ("NamespaceContentRemaining", "ContentRemoved", "All content successfully removed"),
    ("NamespaceFinalizersRemaining", "ContentHasNoFinalizers", "All content-preserving finalizers finished"),
];

/// Objects of one resource that are still there.
#[derive(Clone, Debug, Default)]
pub(super) struct Remaining {
    pub(super) resource: GroupVersionResource,
    count: usize,
    finalizers: BTreeMap<Str, usize>,
}

/// What is to be told of a round of deletion.
#[derive(Debug, Default)]
pub(super) struct Summary {
    pub(super) discovery_failure: Option<String>,
    content_failures: Vec<String>,
    /// `pods. has 2 resource instances`
    resources: Vec<String>,
    /// `example.com/x in 2 resource instances`
    finalizers: Vec<String>,
}

impl Remaining {
    pub(super) fn of(resource: &GroupVersionResource) -> Self {
        Self { resource: resource.clone(), ..Self::default() }
    }

    pub(super) fn count(&mut self, left: &[Arc<Object>]) {
        self.count = left.len();
        for finalizer in left.iter().flat_map(|object| object.finalizers()) {
            *self.finalizers.entry(finalizer.into()).or_default() += 1;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl Summary {
    pub(super) fn of(discovery_failure: Option<String>, outcomes: &[Outcome]) -> Self {
        let mut summary = Self { discovery_failure, ..Self::default() };
        let mut finalizers: BTreeMap<&str, usize> = BTreeMap::new();
        for outcome in outcomes {
            summary.content_failures.extend(outcome.failure.iter().map(|status| status.message.clone()));
            let Remaining { resource, count, finalizers: own } = &outcome.remaining;
            if *count > 0 {
                summary
                    .resources
                    .push(format!("{}.{} has {count} resource instances", resource.resource, resource.group));
            }
            for (finalizer, count) in own {
                *finalizers.entry(finalizer).or_default() += count;
            }
        }
        let told =
            finalizers.iter().map(|(finalizer, count)| format!("{finalizer} in {count} resource instances"));
        summary.finalizers = told.collect();
        summary.resources.sort_unstable();
        summary.content_failures.sort_unstable();
        summary
    }

    /// Reason and message of a condition that is not well.
    fn problem(&self, type_: &str) -> Option<(&'static str, String)> {
        let list = |items: &[String]| (!items.is_empty()).then(|| items.join(", "));
        match type_ {
            "NamespaceDeletionDiscoveryFailure" => {
                self.discovery_failure.clone().map(|message| ("DiscoveryFailed", message))
            }
            "NamespaceDeletionContentFailure" => list(&self.content_failures).map(|failures| {
                let count = self.content_failures.len();
                let message = format!("Failed to delete all resource types, {count} remaining: {failures}");
                ("ContentDeletionFailed", message)
            }),
            "NamespaceContentRemaining" => list(&self.resources).map(|resources| {
                ("SomeResourcesRemain", format!("Some resources are remaining: {resources}"))
            }),
            "NamespaceFinalizersRemaining" => list(&self.finalizers).map(|finalizers| {
                let message = format!("Some content in the namespace has finalizers remaining: {finalizers}");
                ("SomeFinalizersRemain", message)
            }),
            _ => None,
        }
    }
}

/// Sets the conditions of the tree. True when anything changed; a time alone is no change.
pub(super) fn update(tree: &mut Value, summary: &Summary, now: Timestamp) -> bool {
    let mut conditions = tree["status"].array_at(&["conditions"]).to_vec();
    let mut changed = false;
    for (type_, reason, message) in CONDITIONS {
        let problem = summary.problem(type_);
        let status = if problem.is_some() { "True" } else { "False" };
        let (reason, message) = problem.unwrap_or((reason, message.to_owned()));
        let at = conditions.iter().position(|own| own.str_at(&["type"]) == type_);
        let own = at.map(|at| &conditions[at]);
        let same = own.is_some_and(|own| {
            own.str_at(&["status"]) == status
                && own.str_at(&["reason"]) == reason
                && own.str_at(&["message"]) == message
        });
        if same {
            continue;
        }
        changed = true;
        let since = own
            .filter(|own| own.str_at(&["status"]) == status)
            .map(|own| own.str_at(&["lastTransitionTime"]));
        let since =
            since.filter(|since| !since.is_empty()).map_or_else(|| time::format_seconds(now), Into::into);
        let new = json!({"type": type_, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": since});
        match at {
            Some(at) => conditions[at] = new,
            None => conditions.push(new),
        }
    }
    if changed {
        tree.set_at(&["status", "conditions"], conditions);
    }
    changed
}
