//! [`Expectations`]: what a controller wrote and its cache has not shown yet.
//!
//! A controller that counts its children in a cache would make them twice if it looked again before its own creates
//! arrived. Creates are known by the revision at which they were committed: the cache has all of them once it has
//! reached the highest one. Deletions have no revision, so they are known by uid: until the cache shows the child as
//! deleting or gone, it counts as gone.
//!
//! Why not counters as upstream's? A counter depends on seeing every event exactly once and needs a time limit for
//! when it did not; a revision is reached by any event, bookmark or new list.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::time::Duration;

use apimachinery::Str;
use client::Informer;
use parking_lot::Mutex;

/// How long a reconcile waits for a cache to show its own writes; usually it takes microseconds.
pub const OWN_WRITE_MAX: Duration = Duration::from_secs(1);

/// Waits until the cache shows what was written at `revision`, so that the next reconcile does not do it again or meets
/// a conflict; says whether it does. For writes that are known to no key, and controllers that their events do not wake.
pub async fn shown(cache: &Informer, revision: u64) -> bool {
    rt::timeout(OWN_WRITE_MAX, cache.caught_up(revision)).await.is_ok()
}

/// Own writes by key of the parent.
pub struct Expectations<K> {
    pending: Mutex<HashMap<K, Pending>>,
}

#[derive(Default)]
struct Pending {
    revision: u64,
    deleted: HashSet<Str>,
}

impl<K> Default for Expectations<K> {
    fn default() -> Self {
        Self { pending: Mutex::default() }
    }
}

impl<K: Clone + Eq + Hash> Expectations<K> {
    /// A child of `key` was created (or changed) at `revision`.
    pub fn written(&self, key: &K, revision: u64) {
        let mut pending = self.pending.lock();
        let own = pending.entry(key.clone()).or_default();
        own.revision = own.revision.max(revision);
    }

    /// The deletion of the child with this uid was accepted.
    pub fn deleted(&self, key: &K, uid: &str) {
        self.pending.lock().entry(key.clone()).or_default().deleted.insert(uid.into());
    }

    /// The cache has everything that was written for `key`. When it does not, the event that is still to come adds
    /// the key again; there is nothing to wait for here.
    pub fn met(&self, key: &K, cache: &Informer) -> bool {
        self.pending.lock().get(key).is_none_or(|own| own.revision <= cache.revision())
    }

    /// Waits until the cache has everything that was written for `key`, as [`shown`] does.
    pub async fn wait(&self, key: &K, cache: &Informer) -> bool {
        let revision = self.pending.lock().get(key).map_or(0, |own| own.revision);
        shown(cache, revision).await
    }

    /// The child was deleted by us, whatever the cache says.
    pub fn is_deleted(&self, key: &K, uid: &str) -> bool {
        self.pending.lock().get(key).is_some_and(|own| own.deleted.contains(uid))
    }

    /// Drops the deletions that the cache shows by now: those not among `alive`, the uids of children that it still
    /// shows as not deleting. Says whether that was all of them.
    pub fn settle<'a>(&self, key: &K, alive: impl Iterator<Item = &'a str>) -> bool {
        let mut pending = self.pending.lock();
        let Some(own) = pending.get_mut(key) else { return true };
        if !own.deleted.is_empty() {
            let still: HashSet<&str> = alive.collect();
            own.deleted.retain(|uid| still.contains(uid.as_str()));
        }
        own.deleted.is_empty()
    }

    /// The parent is gone.
    pub fn forget(&self, key: &K) {
        self.pending.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use api::gvr::CONFIG_MAPS;
    use apimachinery::json;
    use client::fake::FakeApi;
    use client::{Api, Informers, WriteOptions};

    use super::*;

    #[tokio::test]
    async fn own_creates_are_awaited_and_own_deletions_believed() {
        let fake = FakeApi::new();
        let informer = Informers::new(fake.clone(), rt::Shutdown::new()).of(&CONFIG_MAPS);
        informer.synced().await;
        let expectations = Expectations::default();
        assert!(expectations.met(&"parent", &informer));

        fake.pause_watches();
        let child = json!({"metadata": {"name": "child"}});
        let child = fake.create(&CONFIG_MAPS, "ns", child, &WriteOptions::default()).await.unwrap();
        expectations.written(&"parent", child.revision());
        assert!(!expectations.met(&"parent", &informer));
        assert!(expectations.met(&"other", &informer));
        fake.resume_watches();
        informer.caught_up(child.revision()).await;
        assert!(expectations.met(&"parent", &informer));

        expectations.deleted(&"parent", child.uid());
        assert!(!expectations.settle(&"parent", [child.uid()].into_iter()));
        assert!(expectations.is_deleted(&"parent", child.uid()));
        assert!(expectations.settle(&"parent", [].into_iter()));
        assert!(!expectations.is_deleted(&"parent", child.uid()));
    }
}
