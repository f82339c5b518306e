//! Wakes a namespace when the last of its remaining objects of a resource is gone.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use apimachinery::{GroupVersionResource, Str};
use client::{Delta, Informer, Informers, ObjectKey};
use controller_runtime::Queue;
use parking_lot::Mutex;
use rt::Shutdown;

/// Follows resources in which terminating namespaces still have objects. A resource that was followed once stays so:
/// the garbage collector keeps the same informer anyway.
pub(super) struct Drain {
    informers: Informers,
    shutdown: Shutdown,
    queue: OnceLock<Arc<Queue<ObjectKey>>>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    namespaces: HashSet<Str>,
    resources: HashSet<GroupVersionResource>,
}

impl Drain {
    pub(super) fn new(informers: Informers, shutdown: Shutdown) -> Self {
        Self { informers, shutdown, queue: OnceLock::new(), state: Arc::default() }
    }

    /// Tells where keys go; the first call counts.
    pub(super) fn wakes(&self, queue: Arc<Queue<ObjectKey>>) {
        let _ = self.queue.set(queue);
    }

    /// Wakes `namespace` when it has no more objects of one of `resources`.
    pub(super) fn watch(&self, namespace: &str, resources: impl Iterator<Item = GroupVersionResource>) {
        let Some(queue) = self.queue.get() else { return };
        let mut state = self.state.lock();
        state.namespaces.insert(namespace.into());
        for resource in resources {
            if state.resources.insert(resource.clone()) {
                let (informer, shutdown) = (self.informers.of(&resource), self.shutdown.clone());
                rt::spawn("namespace-drain", follow(informer, queue.clone(), self.state.clone(), shutdown));
            } else if self.informers.of(&resource).namespace_len(namespace) == 0 {
                // The last one went before the namespace was listed here.
                queue.add(ObjectKey::cluster(namespace));
            }
        }
    }

    pub(super) fn done(&self, namespace: &str) {
        self.state.lock().namespaces.remove(namespace);
    }
}

async fn follow(
    informer: Arc<Informer>,
    queue: Arc<Queue<ObjectKey>>,
    state: Arc<Mutex<State>>,
    shutdown: Shutdown,
) {
    let mut subscription = informer.subscribe();
    let mut batch = Vec::new();
    loop {
        let more = tokio::select! {
            more = subscription.recv_batch(&mut batch) => more,
            () = shutdown.cancelled() => false,
        };
        if !more {
            // A resource that is served no longer may come back.
            state.lock().resources.remove(informer.resource());
            return;
        }
        for delta in batch.drain(..) {
            let state = state.lock();
            match delta {
                Delta::Delete { old }
                    if state.namespaces.contains(old.namespace())
                        && informer.namespace_len(old.namespace()) == 0 =>
                {
                    queue.add(ObjectKey::cluster(old.namespace()));
                }
                Delta::Resync => {
                    let empty = state.namespaces.iter().filter(|name| informer.namespace_len(name) == 0);
                    queue.add_all(empty.map(|name| ObjectKey::cluster(name)));
                }
                _ => {}
            }
        }
    }
}
