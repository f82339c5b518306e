//! Pod affinity and anti-affinity terms in the form that matches.
//!
//! Owns: terms with parsed selectors. Never touches: nodes and topologies (that is the plugin's).

use api::view::{Affinity, LabelSelector, PodAffinityTerm};
use apimachinery::Str;
use apimachinery::selector::Selector;

use crate::cache::Cache;
use crate::pod::PodInfo;

/// What a pod says about other pods.
#[derive(Debug)]
pub struct AffinityTerms {
    /// Equal for pods that say the same in the same namespace.
    pub key: Str,
    pub required: Vec<AffinityTerm>,
    pub required_anti: Vec<AffinityTerm>,
    /// With weights; those of anti-affinity are negative.
    pub preferred: Vec<(i64, AffinityTerm)>,
}

/// One term: which pods it is about, and what "together" means.
#[derive(Debug)]
pub struct AffinityTerm {
    namespaces: Vec<Str>,
    namespace_selector: Selector,
    selector: Selector,
    pub topology_key: Str,
}

// === impl AffinityTerms ===

impl AffinityTerms {
    /// `None` for a pod that says nothing about others.
    pub fn new(namespace: &Str, affinity: Option<&Affinity>) -> Option<Self> {
        let affinity = affinity?;
        let (together, apart) = (affinity.pod_affinity.as_ref(), affinity.pod_anti_affinity.as_ref());
        if together.is_none() && apart.is_none() {
            return None;
        }
        let term = |term: &PodAffinityTerm| AffinityTerm::new(namespace, term);
        let required = |side: Option<&api::view::PodAffinity>| {
            side.into_iter().flat_map(|side| &side.required).map(term).collect()
        };
        let preferred = |side: Option<&api::view::PodAffinity>, sign: i64| -> Vec<(i64, AffinityTerm)> {
            let terms = side.into_iter().flat_map(|side| &side.preferred);
            terms
                .map(|weighted| (sign * i64::from(weighted.weight), term(&weighted.pod_affinity_term)))
                .collect()
        };
        let mut weighted = preferred(together, 1);
        weighted.extend(preferred(apart, -1));
        Some(Self {
            key: format!("{namespace}/{together:?}/{apart:?}").into(),
            required: required(together),
            required_anti: required(apart),
            preferred: weighted,
        })
    }

    /// Any term is about `pod`.
    pub fn concern(&self, pod: &PodInfo, cluster: &Cache) -> bool {
        let preferred = self.preferred.iter().map(|(_, term)| term);
        self.required
            .iter()
            .chain(&self.required_anti)
            .chain(preferred)
            .any(|term| term.matches(pod, cluster))
    }

    /// There are required affinity terms, and all are about `pod`.
    pub fn all_required_match(&self, pod: &PodInfo, cluster: &Cache) -> bool {
        !self.required.is_empty() && self.required.iter().all(|term| term.matches(pod, cluster))
    }
}

// === impl AffinityTerm ===

impl AffinityTerm {
    fn new(namespace: &Str, term: &PodAffinityTerm) -> Self {
        let own_only = term.namespaces.is_empty() && term.namespace_selector.is_none();
        Self {
            namespaces: if own_only { vec![namespace.clone()] } else { term.namespaces.clone() },
            namespace_selector: selector(term.namespace_selector.as_ref()),
            selector: selector(term.label_selector.as_ref()),
            topology_key: term.topology_key.clone(),
        }
    }

    /// The term is about this pod.
    pub fn matches(&self, pod: &PodInfo, cluster: &Cache) -> bool {
        let namespace = pod.namespace();
        let labels = &pod.pod.metadata.labels;
        (self.namespaces.contains(namespace)
            || self.namespace_selector.matches(|key| cluster.namespace_label(namespace, key)))
            && self.selector.matches(|key| labels.get(key).map(Str::as_str))
    }
}

/// Selects nothing when absent; a malformed one cannot be stored and selects nothing either.
pub(crate) fn selector(selector: Option<&LabelSelector>) -> Selector {
    selector.and_then(|selector| selector.selector().ok()).unwrap_or_else(Selector::nothing)
}
