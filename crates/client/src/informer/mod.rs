//! Informers: a component's live copy of a collection, kept by one list and one watch.
//!
//! Owns: [`Informers`] (one informer per resource, whoever asks), [`Informer`] (the store, its indexes and its
//! subscribers). Never touches: anything that writes. The objects are the `Arc`s that the [`Api`] handed out; in
//! process they are the API server's own (law one-copy), so an informer costs pointers.
//!
//! ```text
//!     list ──> store ──> Delta ──> subscribers          410: list again, emit the differences
//!     watch ─┘   ^ get, list, by_index                  any other end: watch again from the last revision
//! ```
//!
//! Start at [`Informers::of`]; a consumer waits for [`Informer::synced`], reads the store and follows
//! [`Informer::subscribe`]. The store is always at least as new as the deltas that were delivered.
//!
//! **Invariant (informer-order):** one task applies events, store first, then subscribers, in watch order.

mod reflector;
mod store;
mod subscription;

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;

use apimachinery::{GroupVersionResource, Object, Str};
use parking_lot::{Mutex, RwLock};
use rt::Shutdown;
use tokio::sync::watch;

use crate::Api;
pub use store::IndexFn;
pub use subscription::{Delta, QUEUE_MAX, Subscription};

/// Part of a collection: a namespace (empty: all) and selectors in their query form (empty: everything).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scope {
    pub namespace: Str,
    pub label_selector: Str,
    pub field_selector: Str,
}

/// The informers of one part of the process, which read under one identity. Cloning shares them.
#[derive(Clone)]
pub struct Informers {
    shared: Arc<Shared>,
}

struct Shared {
    api: Arc<dyn Api>,
    shutdown: Shutdown,
    informers: Mutex<HashMap<(GroupVersionResource, Scope), Arc<Informer>>>,
    common: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
}

/// A live copy of one collection, or of the part of it in a [`Scope`].
pub struct Informer {
    resource: GroupVersionResource,
    scope: Scope,
    store: RwLock<store::Store>,
    subscribers: Mutex<Vec<Arc<subscription::Queue>>>,
    /// The revision up to which the store is complete; 0 before the first list.
    revision: watch::Sender<u64>,
    shutdown: Shutdown,
}

// === impl Informers ===

impl Informers {
    /// Informers that read through `api` until `shutdown`.
    pub fn new(api: Arc<dyn Api>, shutdown: Shutdown) -> Self {
        Self {
            shared: Arc::new(Shared { api, shutdown, informers: Mutex::default(), common: Mutex::default() }),
        }
    }

    /// The informer of a whole collection; it starts with the first call. Call inside a tokio runtime.
    pub fn of(&self, resource: &GroupVersionResource) -> Arc<Informer> {
        self.scoped(resource, Scope::default())
    }

    /// The informer of part of a collection. Each scope has a list and a watch of its own.
    pub fn scoped(&self, resource: &GroupVersionResource, scope: Scope) -> Arc<Informer> {
        let mut informers = self.shared.informers.lock();
        let slot = informers.entry((resource.clone(), scope));
        slot.or_insert_with_key(|(resource, scope)| {
            let informer = Arc::new(Informer::new(resource, scope, self.shared.shutdown.child_token()));
            rt::spawn("informer", reflector::run(self.shared.api.clone(), informer.clone()));
            informer
        })
        .clone()
    }

    /// Stops the informers of a resource that is served no longer. Who still holds one reads its last state.
    pub fn stop(&self, resource: &GroupVersionResource) {
        self.shared.informers.lock().retain(|(own, _), informer| {
            let keep = own != resource;
            if !keep {
                informer.shutdown.cancel();
            }
            keep
        });
    }

    /// The one state of this type that all who read through these informers have in common: books about objects that
    /// several of them keep together. Made empty when it is first asked for.
    pub fn common<T: Default + Send + Sync + 'static>(&self) -> Arc<T> {
        let mut common = self.shared.common.lock();
        let state = common.entry(TypeId::of::<T>()).or_insert_with(|| Arc::new(T::default()));
        state.clone().downcast().expect("states are kept by their type")
    }

    /// The API through which the informers read.
    pub fn api(&self) -> &Arc<dyn Api> {
        &self.shared.api
    }
}

// === impl Informer ===

impl Informer {
    fn new(resource: &GroupVersionResource, scope: &Scope, shutdown: Shutdown) -> Self {
        Self {
            resource: resource.clone(),
            scope: scope.clone(),
            store: RwLock::default(),
            subscribers: Mutex::default(),
            revision: watch::Sender::new(0),
            shutdown,
        }
    }

    pub fn resource(&self) -> &GroupVersionResource {
        &self.resource
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.store.read().get(namespace, name).cloned()
    }

    /// All objects, in no particular order.
    pub fn list(&self) -> Vec<Arc<Object>> {
        let store = self.store.read();
        let mut all = Vec::with_capacity(store.len());
        all.extend(store.iter().cloned());
        all
    }

    /// The objects of a namespace, in no particular order.
    pub fn list_namespace(&self, namespace: &str) -> Vec<Arc<Object>> {
        self.store.read().iter_namespace(namespace).cloned().collect()
    }

    /// The objects that have `value` in an index, in no particular order. An index that was never added is empty.
    pub fn by_index(&self, index: &str, value: &str) -> Vec<Arc<Object>> {
        let store = self.store.read();
        let found: Vec<Arc<Object>> = store.iter_index(index, value).into_iter().flatten().cloned().collect();
        found
    }

    /// How many objects have `value` in an index.
    pub fn index_len(&self, index: &str, value: &str) -> usize {
        self.store.read().index_len(index, value)
    }

    /// How many objects a namespace has.
    pub fn namespace_len(&self, namespace: &str) -> usize {
        self.store.read().namespace_len(namespace)
    }

    pub fn len(&self) -> usize {
        self.store.read().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Visits every object without collecting them. `visit` runs under the store's read lock: keep it short and do
    /// not call the informer from it.
    pub fn for_each(&self, mut visit: impl FnMut(&Arc<Object>)) {
        self.store.read().iter().for_each(&mut visit);
    }

    /// Declares an index and fills it. Adding one of the same name again changes nothing, so that every component
    /// can declare what it needs.
    pub fn add_index(&self, name: &'static str, values_of: fn(&Object) -> Vec<Str>) {
        self.store.write().add_index(name, Arc::new(values_of));
    }

    /// Waits for the first list; returns at once afterwards, and also when the informer was stopped before.
    pub async fn synced(&self) {
        self.caught_up(1).await;
    }

    pub fn is_synced(&self) -> bool {
        self.revision() > 0
    }

    /// The revision up to which the store is complete; 0 before the first list.
    pub fn revision(&self) -> u64 {
        *self.revision.borrow()
    }

    /// Waits until the store contains everything up to `revision`, e.g. one's own write.
    pub async fn caught_up(&self, revision: u64) {
        let mut seen = self.revision.subscribe();
        tokio::select! {
            _ = seen.wait_for(|seen| *seen >= revision) => {}
            () = self.shutdown.cancelled() => {}
        }
    }

    /// Follows the store from now on. The first delta is a [`Delta::Resync`], as soon as there is a first list.
    pub fn subscribe(&self) -> Subscription {
        let (subscription, queue) = Subscription::new();
        let mut subscribers = self.subscribers.lock();
        if self.is_synced() {
            queue.push_all(&[Delta::Resync]);
        }
        if self.shutdown.is_cancelled() {
            queue.close();
        }
        subscribers.push(queue);
        subscription
    }

    fn publish(&self, deltas: &[Delta]) {
        if deltas.is_empty() {
            return;
        }
        self.subscribers.lock().retain(|queue| {
            let keep = !queue.is_closed();
            if keep {
                queue.push_all(deltas);
            }
            keep
        });
    }
}

#[cfg(test)]
mod tests;
