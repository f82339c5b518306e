//! Keeps the index in step with the API's objects.

use std::sync::Arc;

use api::gvr::{ENDPOINT_SLICES, NAMESPACES, SERVICES};
use apimachinery::Object;
use client::informer::Subscription;
use client::{Delta, Informer, Informers};
use parking_lot::RwLock;
use rt::Shutdown;
use tokio::sync::watch;

use super::index::{self, Index, Kind, SliceKey};

/// Where names come from.
pub(super) struct Feed {
    namespaces: Arc<Informer>,
    services: Arc<Informer>,
    slices: Arc<Informer>,
    index: Arc<RwLock<Index>>,
    /// Whether the index has been filled.
    filled: watch::Sender<bool>,
}

impl Feed {
    pub fn new(informers: &Informers) -> Self {
        Self {
            namespaces: informers.of(&NAMESPACES),
            services: informers.of(&SERVICES),
            slices: informers.of(&ENDPOINT_SLICES),
            index: Arc::default(),
            filled: watch::Sender::new(false),
        }
    }

    pub fn index(&self) -> Arc<RwLock<Index>> {
        self.index.clone()
    }

    pub fn filled(&self) -> watch::Receiver<bool> {
        self.filled.subscribe()
    }

    pub async fn run(self, shutdown: Shutdown) {
        let mut namespaces = self.namespaces.subscribe();
        let mut services = self.services.subscribe();
        let mut slices = self.slices.subscribe();
        for informer in [&self.namespaces, &self.services, &self.slices] {
            tokio::select! {
                () = informer.synced() => {}
                () = shutdown.cancelled() => return,
            }
        }
        loop {
            let more = tokio::select! {
                more = self.apply(&mut namespaces, |change| self.set_namespace(change)) => more,
                more = self.apply(&mut services, |change| self.set_service(change)) => more,
                more = self.apply(&mut slices, |change| self.set_slice(change)) => more,
                () = shutdown.cancelled() => false,
            };
            if !more {
                return;
            }
        }
    }

    /// Waits for one change and takes it. False when there will be no more.
    async fn apply(&self, subscription: &mut Subscription, take: impl FnOnce(Change)) -> bool {
        match subscription.recv().await {
            Some(Delta::Resync) => self.fill(),
            Some(Delta::Upsert { old, new }) => take(Change { old, new: Some(new) }),
            Some(Delta::Delete { old }) => take(Change { old: Some(old), new: None }),
            None => return false,
        }
        true
    }

    /// Makes the index anew. Deltas that come after it repeat what is in it, which changes nothing.
    fn fill(&self) {
        let mut fresh = Index::default();
        self.namespaces.for_each(|object| fresh.set_namespace(object.name(), true));
        for object in self.services.list() {
            fresh.set_service(object.namespace(), object.name(), Some(Kind::of(&object)));
        }
        for object in self.slices.list() {
            if let Some(key) = SliceKey::of(&object) {
                fresh.set_slice(&key, Some(index::endpoints(&object)));
            }
        }
        let old = std::mem::replace(&mut *self.index.write(), fresh);
        self.filled.send_replace(true);
        drop(old);
    }

    fn set_namespace(&self, change: Change) {
        self.index.write().set_namespace(change.any().name(), change.new.is_some());
    }

    fn set_service(&self, change: Change) {
        // Decoded before anybody has to wait.
        let kind = change.new.as_deref().map(Kind::of);
        let object = change.any();
        self.index.write().set_service(object.namespace(), object.name(), kind);
    }

    fn set_slice(&self, change: Change) {
        let old = change.old.as_deref().and_then(SliceKey::of);
        let new = change.new.as_deref().and_then(SliceKey::of);
        let endpoints = change.new.as_deref().filter(|_| new.is_some()).map(index::endpoints);
        let mut index = self.index.write();
        if let Some(old) = old.filter(|old| Some(old) != new.as_ref()) {
            index.set_slice(&old, None);
        }
        if let Some(new) = new {
            index.set_slice(&new, endpoints);
        }
    }
}

/// An object before and after.
struct Change {
    old: Option<Arc<Object>>,
    new: Option<Arc<Object>>,
}

impl Change {
    fn any(&self) -> &Object {
        self.new.as_deref().or(self.old.as_deref()).expect("a change is of an object")
    }
}
