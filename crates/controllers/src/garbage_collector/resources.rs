//! The resources that are served: which kinds they have, their informers, and who listens to them.
//!
//! The set changes with CustomResourceDefinitions and APIServices; each change of one is followed by a new discovery.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use apimachinery::{GroupVersion, GroupVersionResource, Object, Str};
use client::{Api, Delta, Discovered, Informer, Informers, ObjectKey};
use parking_lot::RwLock;
use rt::Shutdown;
use tracing::{debug, warn};

use super::{Item, ItemQueue};
use crate::ownership::{BY_OWNER, index_by_owner};

/// Without these verbs objects can be neither seen nor collected.
const NEEDED_VERBS: [&str; 3] = ["delete", "list", "watch"];

/// How long the informers of newly served resources may take to have a first list before events are looked at without
/// them. Owners of theirs are then looked up in the API.
const SYNC_MAX: Duration = Duration::from_secs(30);

/// The API server serves a new resource a moment after its definition changed.
const SETTLE: Duration = Duration::from_millis(500);

/// Pause after a discovery that failed.
const RETRY: Duration = Duration::from_secs(1);

pub(super) type OnDelta = Arc<dyn Fn(&Arc<GroupVersionResource>, &Delta, &mut Vec<Item>) + Send + Sync>;

/// A kind that objects may name as their owner's.
#[derive(Clone)]
pub(super) struct Kind {
    pub(super) resource: Arc<GroupVersionResource>,
    pub(super) namespaced: bool,
    /// `None` for kinds that cannot be followed.
    pub(super) informer: Option<Arc<Informer>>,
}

pub(super) struct Resources {
    informers: Informers,
    state: RwLock<State>,
    queue: OnceLock<Arc<ItemQueue>>,
}

#[derive(Default)]
struct State {
    /// By group, then kind.
    kinds: HashMap<Str, HashMap<Str, Kind>>,
    followed: HashMap<GroupVersionResource, Followed>,
}

struct Followed {
    resource: Arc<GroupVersionResource>,
    informer: Arc<Informer>,
    shutdown: Shutdown,
}

impl Resources {
    pub(super) fn new(informers: Informers) -> Self {
        Self { informers, state: RwLock::default(), queue: OnceLock::new() }
    }

    pub(super) fn queue(&self) -> Option<&Arc<ItemQueue>> {
        self.queue.get()
    }

    /// The kind, whatever version of its group a reference names.
    pub(super) fn kind(&self, api_version: &str, kind: &str) -> Option<Kind> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        self.state.read().kinds.get(group)?.get(kind).cloned()
    }

    pub(super) fn cached(&self, resource: &GroupVersionResource, key: &ObjectKey) -> Option<Arc<Object>> {
        let informer = self.state.read().followed.get(resource)?.informer.clone();
        informer.get(&key.namespace, &key.name)
    }

    /// Every object that names the uid as an owner.
    pub(super) fn dependents(&self, uid: &str) -> Vec<(Arc<GroupVersionResource>, Arc<Object>)> {
        let state = self.state.read();
        let mut found = Vec::new();
        for followed in state.followed.values() {
            let own = followed.informer.by_index(BY_OWNER, uid);
            found.extend(own.into_iter().map(|object| (followed.resource.clone(), object)));
        }
        found
    }

    /// Keeps the set of resources up to date until shutdown.
    pub(super) async fn follow(
        &self,
        api: Arc<dyn Api>,
        queue: Arc<ItemQueue>,
        on_delta: OnDelta,
        shutdown: Shutdown,
    ) {
        let _ = self.queue.set(queue.clone());
        let mut definitions = Definitions::default();
        while !shutdown.is_cancelled() {
            let again = match api.discover().await {
                // A server that serves nothing is starting; believing it would end every informer.
                Ok(served) if served.is_empty() => Some(RETRY),
                Ok(served) => {
                    self.replace(served, &queue, &on_delta, &shutdown).await;
                    None
                }
                Err(status) => {
                    warn!(error = %status, "Discovered no resources to collect garbage in");
                    Some(RETRY)
                }
            };
            if definitions.subscriptions.is_empty() {
                definitions = self.definitions();
            }
            tokio::select! {
                () = definitions.changed() => rt::sleep(SETTLE).await,
                () = rt::sleep(again.unwrap_or(Duration::MAX)), if again.is_some() => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Subscriptions to what defines resources, as far as it is served.
    fn definitions(&self) -> Definitions {
        let named = |group, resource| GroupVersionResource::new(group, "v1", resource);
        let sources = [
            named("apiextensions.k8s.io", "customresourcedefinitions"),
            named("apiregistration.k8s.io", "apiservices"),
        ];
        let state = self.state.read();
        let served = sources.iter().filter_map(|source| state.followed.get(source));
        Definitions { subscriptions: served.map(|followed| followed.informer.subscribe()).collect() }
    }

    async fn replace(
        &self,
        served: Vec<Discovered>,
        queue: &Arc<ItemQueue>,
        on_delta: &OnDelta,
        shutdown: &Shutdown,
    ) {
        let fresh = self.adopt(served, shutdown);
        let synced = futures::future::join_all(fresh.iter().map(|followed| followed.informer.synced()));
        if rt::timeout(SYNC_MAX, synced).await.is_err() {
            warn!("Started to collect garbage before all caches were synced");
        }
        for Followed { resource, informer, shutdown } in fresh {
            debug!(resource = %resource, "Follows resource");
            rt::spawn(
                "garbage-collector",
                feed(resource, informer, queue.clone(), on_delta.clone(), shutdown),
            );
        }
    }

    /// Takes over a discovery and returns what is new in it.
    fn adopt(&self, served: Vec<Discovered>, shutdown: &Shutdown) -> Vec<Followed> {
        let mut state = self.state.write();
        let mut kinds: HashMap<Str, HashMap<Str, Kind>> = HashMap::new();
        let mut followed = HashMap::new();
        let mut fresh = Vec::new();
        for own in served {
            let present = state.followed.remove(&own.gvr);
            let entry = can_be_followed(&own).then(|| {
                present.unwrap_or_else(|| {
                    let new = self.start(&own.gvr, shutdown);
                    fresh.push(new.clone());
                    new
                })
            });
            let kind = Kind {
                resource: entry
                    .as_ref()
                    .map_or_else(|| Arc::new(own.gvr.clone()), |own| own.resource.clone()),
                namespaced: own.namespaced,
                informer: entry.as_ref().map(|own| own.informer.clone()),
            };
            kinds.entry(own.gvr.group.clone()).or_default().insert(own.kind, kind);
            followed.extend(entry.map(|entry| (own.gvr, entry)));
        }
        for (resource, ended) in std::mem::replace(&mut state.followed, followed) {
            ended.shutdown.cancel();
            self.informers.stop(&resource);
        }
        state.kinds = kinds;
        fresh
    }

    fn start(&self, resource: &GroupVersionResource, shutdown: &Shutdown) -> Followed {
        let informer = self.informers.of(resource);
        index_by_owner(&informer);
        Followed { resource: Arc::new(resource.clone()), informer, shutdown: shutdown.child_token() }
    }
}

impl Clone for Followed {
    fn clone(&self) -> Self {
        Self {
            resource: self.resource.clone(),
            informer: self.informer.clone(),
            shutdown: self.shutdown.clone(),
        }
    }
}

/// Events are left out: there are many, they own nothing, and they expire.
fn can_be_followed(own: &Discovered) -> bool {
    let group = GroupVersion::new(&own.gvr.group, "").group;
    let is_event = own.gvr.resource == "events" && (group.is_empty() || group == "events.k8s.io");
    !is_event && NEEDED_VERBS.iter().all(|verb| own.verbs.iter().any(|own| own == verb))
}

#[derive(Default)]
struct Definitions {
    subscriptions: Vec<client::informer::Subscription>,
}

impl Definitions {
    /// Waits for the next change, and takes all that came with it.
    async fn changed(&mut self) {
        if self.subscriptions.is_empty() {
            return std::future::pending().await;
        }
        loop {
            let mut batch = Vec::new();
            let next = self.subscriptions.iter_mut().map(|own| Box::pin(own.recv()));
            let (delta, ..) = futures::future::select_all(next).await;
            batch.extend(delta);
            for own in &mut self.subscriptions {
                while let Some(delta) = own.try_recv() {
                    batch.push(delta);
                }
            }
            // The first resync says what the discovery that led here contained already.
            if batch.iter().any(|delta| !matches!(delta, Delta::Resync)) {
                return;
            }
            if batch.is_empty() {
                return std::future::pending().await;
            }
        }
    }
}

async fn feed(
    resource: Arc<GroupVersionResource>,
    informer: Arc<Informer>,
    queue: Arc<ItemQueue>,
    on_delta: OnDelta,
    shutdown: Shutdown,
) {
    let mut subscription = informer.subscribe();
    let (mut batch, mut keys) = (Vec::new(), Vec::new());
    loop {
        let more = tokio::select! {
            more = subscription.recv_batch(&mut batch) => more,
            () = shutdown.cancelled() => false,
        };
        if !more {
            return;
        }
        for delta in batch.drain(..) {
            if matches!(delta, Delta::Resync) {
                for object in informer.list() {
                    on_delta(&resource, &Delta::Upsert { old: None, new: object }, &mut keys);
                }
            } else {
                on_delta(&resource, &delta, &mut keys);
            }
        }
        queue.add_all(keys.drain(..));
    }
}
