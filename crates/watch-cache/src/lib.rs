//! Storage served from memory.
//!
//! Owns: the present state of every resource as an immutable ordered snapshot, the recent events of each, and the
//! watchers' cursors into them. Never touches: identities, selectors, wire forms, disk.
//!
//! Data flow: the store calls [`WatchCache::committed`] once per durable batch, before it answers the writers; each
//! event becomes one `Arc<Object>` that the snapshot, the ring, every watcher and every component then share. So a
//! writer always reads its own write, and no reader ever goes to disk.
//!
//! Start at [`ResourceCache`]. A snapshot is O(1): the map shares its structure, so a list that takes a second, or a
//! page at an old revision, holds up nobody.
//!
//! **Invariant (list-exact):** a snapshot labelled with revision R holds exactly the effects of all writes up to R.

mod ring;
mod watcher;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use apimachinery::Object;
use apimachinery::object::{FieldPaths, MalformedObject};
use parking_lot::RwLock;
use storage::{Event as StoredEvent, EventKind as StoredKind, Key, Store};
use telemetry::WatchCacheHandle;

use ring::Ring;
pub use watcher::{Next, Watcher};

/// The objects of one resource in key order, shared and immutable.
pub type Objects = imbl::OrdMap<Key, Arc<Object>>;

/// Snapshots at older revisions that paging readers came back for; the oldest is dropped beyond this.
const PINNED_SNAPSHOTS_MAX: usize = 16;

/// A pinned snapshot is dropped this many revisions later, whoever may still page through it; the ring can then still
/// rebuild it once.
const PINNED_REVISIONS_MAX: u64 = 10_000;

/// What happened to one object.
#[derive(Debug)]
pub struct Event {
    pub kind: EventKind,
    /// The storage key of the object.
    pub key: Key,
    pub revision: u64,
    /// The new state; for a deletion the last state, at the deletion's revision.
    pub object: Arc<Object>,
    /// The state before, for watchers whose selector it may have left.
    pub previous: Option<Arc<Object>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Added,
    Modified,
    Deleted,
}

/// The asked-for history is no longer kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("revision {requested} is too old, the oldest is {oldest}")]
pub struct Expired {
    pub requested: u64,
    pub oldest: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("reading the store")]
    Store(#[from] storage::Error),
    #[error("stored value of {key}")]
    Malformed {
        key: Key,
        #[source]
        source: MalformedObject,
    },
}

/// All resources of a server.
pub struct WatchCache {
    /// Sorted by prefix; longer prefixes may nest in shorter ones.
    resources: RwLock<Vec<Arc<ResourceCache>>>,
    revision: Arc<AtomicU64>,
}

/// One resource's state, recent events and watchers.
pub struct ResourceCache {
    prefix: Arc<str>,
    state: RwLock<State>,
    /// The newest revision of this resource; what watchers sleep on.
    newest: tokio::sync::watch::Sender<u64>,
    /// The newest revision of the whole store.
    store_revision: Arc<AtomicU64>,
    /// Set once the resource has a name; see [`ResourceCache::measured_as`].
    metrics: OnceLock<WatchCacheHandle>,
}

struct State {
    /// What each object is indexed by.
    fields: FieldPaths,
    /// Events since the cache was announced to the store, while what the store holds is still being read.
    loading: Option<Vec<StoredEvent>>,
    objects: Objects,
    /// Of the objects' JSON.
    bytes: usize,
    /// Revision of the newest event of this resource.
    revision: u64,
    ring: Ring,
    pinned: Vec<Snapshot>,
}

/// A consistent state of one resource.
#[derive(Clone)]
pub struct Snapshot {
    pub objects: Objects,
    pub revision: u64,
}

impl WatchCache {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { resources: RwLock::default(), revision: Arc::default() })
    }

    /// The newest revision of the store that readers can see.
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// Starts keeping the objects below `prefix` (with a trailing slash). `fields` are its selectable fields.
    ///
    /// What the store holds already is not read: that is [`WatchCache::load`] for all resources at the start, and
    /// [`WatchCache::load_resource`] for one that comes later.
    pub fn add_resource(&self, prefix: &str, fields: FieldPaths) -> Arc<ResourceCache> {
        self.find_or_add(prefix, fields, None).0
    }

    /// Starts keeping the objects below `prefix` while the store is in use. The cache is complete when this returns.
    ///
    /// A resource that is kept already is indexed by `fields` as well, if it was not before.
    pub fn load_resource(
        &self,
        prefix: &str,
        fields: &FieldPaths,
        store: &dyn Store,
    ) -> Result<Arc<ResourceCache>, LoadError> {
        let (cache, is_new) = self.find_or_add(prefix, fields.clone(), Some(Vec::new()));
        if !is_new {
            cache.index_by(fields);
            return Ok(cache);
        }
        // Events from here on wait in the cache, so that none is missed between the scan and them.
        let loaded =
            scan(store, prefix, |_| Some(cache.clone())).inspect_err(|_| self.remove_resource(prefix));
        let (mut loaded, revision) = loaded?;
        let pairs = loaded.remove(prefix).unwrap_or_default();
        cache.finish_loading(pairs.into_iter().collect(), revision);
        Ok(cache)
    }

    /// Forgets a resource. Whoever still watches it is told to list again, and will find nothing.
    pub fn remove_resource(&self, prefix: &str) {
        let mut resources = self.resources.write();
        if let Ok(at) = resources.binary_search_by(|own| (*own.prefix).cmp(prefix)) {
            resources.remove(at).end();
        }
    }

    fn find_or_add(
        &self,
        prefix: &str,
        fields: FieldPaths,
        loading: Option<Vec<StoredEvent>>,
    ) -> (Arc<ResourceCache>, bool) {
        let mut resources = self.resources.write();
        match resources.binary_search_by(|own| (*own.prefix).cmp(prefix)) {
            Ok(at) => (resources[at].clone(), false),
            Err(at) => {
                let cache = Arc::new(ResourceCache::new(prefix, fields, loading, self.revision.clone()));
                resources.insert(at, cache.clone());
                (cache, true)
            }
        }
    }

    /// Fills the cache from the store. Call once, before the store takes writes.
    pub fn load(&self, store: &dyn Store) -> Result<(), LoadError> {
        let (loaded, revision) = scan(store, "", |key| self.resource_of(key))?;
        for (prefix, pairs) in loaded {
            if let Some(cache) = self.resource_of(&prefix) {
                cache.fill(pairs.into_iter().collect(), revision);
            }
        }
        for cache in self.resources.read().iter() {
            let mut state = cache.state.write();
            state.ring.restart(revision);
            cache.measure(&state);
        }
        self.revision.store(revision, Ordering::Release);
        Ok(())
    }

    fn resource_of(&self, key: &str) -> Option<Arc<ResourceCache>> {
        let resources = self.resources.read();
        let after = resources.partition_point(|cache| *cache.prefix <= *key);
        // Nested prefixes sort after the ones they nest in, so the first match going back is the longest.
        resources[..after].iter().rev().find(|cache| key.starts_with(&*cache.prefix)).cloned()
    }
}

/// Objects by the prefix of the resource they belong to.
type Loaded = HashMap<Arc<str>, Vec<(Key, Arc<Object>)>>;

/// Reads what the store holds below `prefix`, and the revision of that state.
fn scan(
    store: &dyn Store,
    prefix: &str,
    resource_of: impl Fn(&str) -> Option<Arc<ResourceCache>>,
) -> Result<(Loaded, u64), LoadError> {
    let mut malformed = None;
    let mut loaded = Loaded::new();
    let revision = store.scan(prefix, &mut |pair| {
        let Some(cache) = resource_of(&pair.key) else { return Ok(()) };
        match Object::indexed(pair.value, pair.mod_revision.0, &cache.fields()) {
            Ok(object) => loaded.entry(cache.prefix.clone()).or_default().push((pair.key, Arc::new(object))),
            Err(source) if malformed.is_none() => malformed = Some((pair.key, source)),
            Err(_) => {}
        }
        Ok(())
    })?;
    match malformed {
        Some((key, source)) => Err(LoadError::Malformed { key, source }),
        None => Ok((loaded, revision.0)),
    }
}

impl storage::Observer for WatchCache {
    fn committed(&self, events: &[StoredEvent]) {
        let mut rest = events;
        while let Some(first) = rest.first() {
            let Some(cache) = self.resource_of(&first.key) else {
                rest = &rest[1..];
                continue;
            };
            let run = rest.iter().take_while(|event| cache.holds(&event.key)).count().max(1);
            cache.apply(&rest[..run]);
            rest = &rest[run..];
        }
        if let Some(last) = events.last() {
            self.revision.fetch_max(last.revision.0, Ordering::AcqRel);
        }
    }
}

impl ResourceCache {
    fn new(
        prefix: &str,
        fields: FieldPaths,
        loading: Option<Vec<StoredEvent>>,
        store_revision: Arc<AtomicU64>,
    ) -> Self {
        let revision = store_revision.load(Ordering::Acquire);
        let state = State {
            fields,
            loading,
            objects: Objects::new(),
            bytes: 0,
            revision,
            ring: Ring::starting_at(revision),
            pinned: Vec::new(),
        };
        Self {
            prefix: prefix.into(),
            state: RwLock::new(state),
            newest: tokio::sync::watch::Sender::new(revision),
            store_revision,
            metrics: OnceLock::new(),
        }
    }

    /// Names the resource for the metrics about this cache. Versions of a resource share a cache; the first name
    /// stays.
    pub fn measured_as(&self, group: &str, resource: &str) {
        let metrics =
            self.metrics.get_or_init(|| telemetry::metrics().apiserver.watch_cache(group, resource));
        metrics.capacity.set(ring::EVENTS_MAX as i64);
        self.measure(&self.state.read());
    }

    fn measure(&self, state: &State) {
        if let Some(metrics) = self.metrics.get() {
            let State { objects, bytes, revision, ring, .. } = state;
            metrics.holds(objects.len(), *bytes, *revision, ring.len(), ring.superseded_bytes());
        }
    }

    fn count_terminated_watcher(&self) {
        if let Some(metrics) = self.metrics.get() {
            metrics.terminated_watchers.inc();
        }
    }

    /// The dotted paths of this resource's selectable fields.
    pub fn fields(&self) -> FieldPaths {
        self.state.read().fields.clone()
    }

    pub fn get(&self, key: &str) -> Option<Arc<Object>> {
        self.state.read().objects.get(key).cloned()
    }

    /// The object of a key, waited for where it is not there yet. Cancel-safe; bound it with a timeout.
    pub async fn until_present(&self, key: &str) -> Arc<Object> {
        let mut newest = self.newest.subscribe();
        loop {
            newest.borrow_and_update();
            if let Some(object) = self.get(key) {
                return object;
            }
            if newest.changed().await.is_err() {
                // The sender is this cache's own, so this cannot be reached; wait for ever.
                std::future::pending::<()>().await;
            }
        }
    }

    /// The revision of the newest change of this resource; 0 before the first. Whoever derives something from all
    /// objects knows by it whether that is still true.
    pub fn last_change(&self) -> u64 {
        *self.newest.borrow()
    }

    pub fn len(&self) -> usize {
        self.state.read().objects.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many objects there are and the size of their JSON together.
    pub fn size(&self) -> (usize, usize) {
        let state = self.state.read();
        (state.objects.len(), state.bytes)
    }

    /// How many watch this resource.
    pub fn watchers(&self) -> usize {
        self.newest.receiver_count()
    }

    /// The present state.
    pub fn snapshot(&self) -> Snapshot {
        let state = self.state.read();
        // Read under the lock: everything up to the store's revision has been applied, and what of this resource
        // was applied beyond it is in `state.revision` (list-exact).
        let revision = state.revision.max(self.store_revision.load(Ordering::Acquire));
        Snapshot { objects: state.objects.clone(), revision }
    }

    /// The state at an earlier revision, while its events are still in the ring.
    pub fn snapshot_at(&self, revision: u64) -> Result<Snapshot, Expired> {
        let (mut objects, events) = {
            let state = self.state.read();
            if revision >= state.revision {
                return Ok(Snapshot { objects: state.objects.clone(), revision });
            }
            if let Some(pinned) = state.pinned.iter().find(|pinned| pinned.revision == revision) {
                return Ok(pinned.clone());
            }
            let events: Vec<Arc<Event>> = state.ring.after(revision)?.cloned().collect();
            (state.objects.clone(), events)
        };
        // Without the lock: the writer must not wait while thousands of events are undone.
        for event in events.iter().rev() {
            match &event.previous {
                Some(previous) => objects.insert(event.key.clone(), previous.clone()),
                None => objects.remove(&event.key),
            };
        }
        let snapshot = Snapshot { objects, revision };
        let mut state = self.state.write();
        if state.pinned.len() == PINNED_SNAPSHOTS_MAX {
            state.pinned.remove(0);
        }
        state.pinned.push(snapshot.clone());
        state.drop_old_pins();
        Ok(snapshot)
    }

    /// A cursor that delivers every event after `revision`.
    pub fn watch(self: &Arc<Self>, revision: u64) -> Result<Watcher, Expired> {
        drop(self.state.read().ring.after(revision)?);
        Ok(Watcher::new(self.clone(), revision))
    }

    fn holds(&self, key: &str) -> bool {
        key.starts_with(&*self.prefix)
    }

    fn fill(&self, objects: Objects, revision: u64) {
        let mut state = self.state.write();
        state.hold(objects, revision);
    }

    /// No watcher can go on from here.
    fn end(&self) {
        let mut state = self.state.write();
        let revision = state.revision;
        state.hold(Objects::new(), revision);
        state.pinned.clear();
        state.ring.restart(u64::MAX);
        drop(state);
        self.newest.send_modify(|_| {});
    }

    /// What the store held at `revision`, and then what has happened since.
    fn finish_loading(&self, objects: Objects, revision: u64) {
        let mut state = self.state.write();
        state.hold(objects, revision);
        state.ring.restart(revision);
        for event in state.loading.take().unwrap_or_default() {
            if event.revision.0 > revision {
                self.apply_next(&mut state, &event);
            }
        }
        let newest = state.revision;
        self.measure(&state);
        drop(state);
        self.newest.send_replace(newest);
    }

    /// Indexes every object by further fields. What watchers have not seen yet is not indexed by them, so watchers
    /// have to list again.
    ///
    /// Fields are only ever added: objects that were prepared for an older list are told by its length.
    fn index_by(&self, fields: &FieldPaths) {
        let mut state = self.state.write();
        let missing: Vec<&str> = fields.iter().filter(|path| state.fields.position(path).is_none()).collect();
        if missing.is_empty() {
            return;
        }
        let all = FieldPaths::Own(state.fields.iter().chain(missing).map(Into::into).collect());
        let objects: Objects = state
            .objects
            .iter()
            .map(|(key, object)| (key.clone(), reindexed(object, &all).unwrap_or_else(|| object.clone())))
            .collect();
        state.objects = objects;
        state.fields = all;
        state.pinned.clear();
        let newest = state.revision;
        state.ring.restart(newest);
    }

    fn apply(&self, events: &[StoredEvent]) {
        let mut state = self.state.write();
        if let Some(waiting) = &mut state.loading {
            waiting.extend_from_slice(events);
            return;
        }
        for event in events {
            self.apply_next(&mut state, event);
        }
        let newest = state.revision;
        state.drop_old_pins();
        self.measure(&state);
        drop(state);
        if let Some(metrics) = self.metrics.get() {
            metrics.events_received.add(events.len() as u64);
        }
        self.newest.send_replace(newest);
    }

    fn apply_next(&self, state: &mut State, event: &StoredEvent) {
        if let Some(applied) = self.apply_one(state, event) {
            state.ring.push(Arc::new(applied));
        }
        state.revision = event.revision.0;
    }

    fn apply_one(&self, state: &mut State, event: &StoredEvent) -> Option<Event> {
        let revision = event.revision.0;
        if event.kind == StoredKind::Delete {
            let last = state.objects.remove(&event.key)?;
            state.bytes -= last.json().len();
            let object = Arc::new(last.at_revision(revision));
            let key = event.key.clone();
            return Some(Event { kind: EventKind::Deleted, key, revision, object, previous: Some(last) });
        }
        let object = Arc::new(decode(event, &state.fields)?);
        let previous = state.objects.insert(event.key.clone(), object.clone());
        let superseded = previous.as_ref().map_or(0, |previous| previous.json().len());
        state.bytes = state.bytes + object.json().len() - superseded;
        let kind = if previous.is_some() { EventKind::Modified } else { EventKind::Added };
        Some(Event { kind, key: event.key.clone(), revision, object, previous })
    }
}

/// The committer hands its own decoded object along; only a write from elsewhere has to be scanned.
fn decode(event: &StoredEvent, fields: &FieldPaths) -> Option<Object> {
    let own = event.attachment.as_ref().and_then(|attachment| attachment.downcast_ref::<Object>());
    if let Some(draft) = own.filter(|draft| draft.field_count() == fields.len()) {
        return Some(draft.at_revision(event.revision.0));
    }
    match Object::indexed(event.value.clone(), event.revision.0, fields) {
        Ok(object) => Some(object),
        Err(error) => {
            tracing::error!(key = %event.key, %error, "Skipped a stored value that is not an object");
            None
        }
    }
}

fn reindexed(object: &Object, fields: &FieldPaths) -> Option<Arc<Object>> {
    Object::indexed(object.json().clone(), object.revision(), fields).ok().map(Arc::new)
}

impl State {
    /// Takes over the objects of a revision.
    fn hold(&mut self, objects: Objects, revision: u64) {
        self.bytes = objects.values().map(|object| object.json().len()).sum();
        self.objects = objects;
        self.revision = revision;
    }

    /// A pinned snapshot keeps superseded objects alive, so it goes with the history it belongs to.
    fn drop_old_pins(&mut self) {
        let oldest = self.ring.oldest();
        let newest = self.revision;
        self.pinned
            .retain(|pinned| pinned.revision >= oldest && newest - pinned.revision <= PINNED_REVISIONS_MAX);
    }
}

impl Snapshot {
    /// Objects whose key starts with `prefix` and is greater than `after`, in key order.
    pub fn range<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&str>,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<Object>)> {
        let start: Key = match after {
            // The smallest string greater than `after`.
            Some(after) => format!("{after}\0").into(),
            None => prefix.into(),
        };
        self.objects.range(start..).take_while(move |(key, _)| key.starts_with(prefix))
    }
}

#[cfg(test)]
mod tests;
