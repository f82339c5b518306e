//! Which autoscalers' targets select which pods.

use std::collections::{BTreeMap, HashMap};

use apimachinery::{Object, Selector, Str};
use client::ObjectKey;
use parking_lot::Mutex;

/// The selectors of the targets of all autoscalers, by namespace and name. One that was not read yet selects nothing.
#[derive(Default)]
pub(super) struct Selectors(Mutex<HashMap<Str, BTreeMap<Str, Selector>>>);

impl Selectors {
    /// Begins with an autoscaler; false if it is known already.
    pub(super) fn register(&self, key: &ObjectKey) -> bool {
        let mut all = self.0.lock();
        let own = all.entry(key.namespace.clone()).or_default();
        if own.contains_key(&key.name) {
            return false;
        }
        own.insert(key.name.clone(), Selector::nothing());
        true
    }

    /// What an autoscaler's target selects now; one that is gone by now stays so.
    pub(super) fn update(&self, key: &ObjectKey, selector: &Selector) {
        let mut all = self.0.lock();
        if let Some(own) = all.get_mut(&key.namespace).and_then(|own| own.get_mut(&key.name)) {
            own.clone_from(selector);
        }
    }

    /// False if it was not known.
    pub(super) fn forget(&self, key: &ObjectKey) -> bool {
        let mut all = self.0.lock();
        let Some(own) = all.get_mut(&key.namespace) else { return false };
        let known = own.remove(&key.name).is_some();
        if own.is_empty() {
            all.remove(&key.namespace);
        }
        known
    }

    /// The names of the autoscalers of a namespace whose targets select one of these pods.
    pub(super) fn controlling<'a>(
        &self,
        namespace: &str,
        pods: impl Iterator<Item = &'a Object> + Clone,
    ) -> Vec<Str> {
        let all = self.0.lock();
        let own = all.get(namespace).into_iter().flatten();
        own.filter(|(_, selector)| pods.clone().any(|pod| selector.matches_object(pod)))
            .map(|(name, _)| name.clone())
            .collect()
    }
}
