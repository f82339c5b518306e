//! [`ObjectCache`]: the ConfigMaps and Secrets that pods of this node name, each watched on its own.
//!
//! A node may read only what its pods name, so there is no informer of all: an object is listed and watched by its name
//! from the first pod that names it to the last. An immutable one is read once. Who wants to know of changes marks
//! pods: [`Changes`].

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use api::gvr::{CONFIG_MAPS, SECRETS};
use apimachinery::{GroupVersionResource, Object, Status};
use client::typed::view;
use client::{Api, ListOptions, WatchEvent, WatchOptions};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use rt::Shutdown;
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};

use crate::agent::config::objects::{Lookup, Objects, References};

/// How long a pod waits for the first word of an object.
const FIRST_WORD_WAIT: Duration = Duration::from_secs(10);

/// How long a refusal may last: the authorizer can learn of a pod after its node.
const FAILURE_WAIT: Duration = Duration::from_secs(2);

const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Pods whose data changed; as many as the node has, each once.
#[derive(Default)]
pub struct Changes {
    pods: Mutex<BTreeSet<String>>,
    notify: Notify,
}

impl Changes {
    pub fn mark(&self, uid: &str) {
        self.pods.lock().insert(uid.to_owned());
        self.notify.notify_one();
    }

    /// Wakes who waits, though nothing changed.
    pub fn wake(&self) {
        self.notify.notify_one();
    }

    pub fn take(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.pods.lock())
    }

    /// Returns when something was marked since the last time.
    pub async fn marked(&self) {
        self.notify.notified().await;
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Key {
    is_secret: bool,
    namespace: String,
    name: String,
}

impl Key {
    fn gvr(&self) -> GroupVersionResource {
        if self.is_secret { SECRETS } else { CONFIG_MAPS }
    }
}

#[derive(Clone)]
enum State {
    Unknown,
    Found(Arc<Object>),
    Missing,
    Failed(String),
}

struct Entry {
    pods: BTreeSet<String>,
    state: watch::Sender<State>,
    stop: Shutdown,
}

pub struct ObjectCache {
    api: Arc<dyn Api>,
    shutdown: Shutdown,
    changes: Arc<Changes>,
    /// Taken before [`Changes`]' own lock.
    entries: Mutex<HashMap<Key, Entry>>,
}

impl ObjectCache {
    pub fn new(api: Arc<dyn Api>, changes: Arc<Changes>, shutdown: Shutdown) -> Arc<Self> {
        Arc::new(Self { api, shutdown, changes, entries: Mutex::default() })
    }

    /// Watches what the pod names, and no longer what it named before.
    pub fn register(self: &Arc<Self>, uid: &str, pod: &Pod) {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let references = References::of(pod);
        let key = |is_secret: bool, name: &String| Key {
            is_secret,
            namespace: namespace.clone(),
            name: name.clone(),
        };
        let config_maps = references.config_maps.iter().map(|name| key(false, name));
        let secrets = references.secrets.iter().map(|name| key(true, name));
        let wanted: BTreeSet<Key> = config_maps.chain(secrets).collect();
        let mut entries = self.entries.lock();
        for key in &wanted {
            let entry = entries.entry(key.clone()).or_insert_with(|| self.start(key.clone()));
            entry.pods.insert(uid.to_owned());
        }
        release(&mut entries, uid, |key| !wanted.contains(key));
    }

    /// The pod is gone.
    pub fn forget(&self, uid: &str) {
        release(&mut self.entries.lock(), uid, |_| true);
    }

    fn start(self: &Arc<Self>, key: Key) -> Entry {
        let (state, stop) = (watch::Sender::new(State::Unknown), self.shutdown.child_token());
        let (cache, own_state, own_stop) = (self.clone(), state.clone(), stop.clone());
        rt::spawn("object-of-a-pod", async move {
            tokio::select! {
                () = own_stop.cancelled() => {}
                () = cache.follow(&key, &own_state) => {}
            }
        });
        Entry { pods: BTreeSet::new(), state, stop }
    }

    /// Keeps the state of one object true, for ever or until it cannot change any more.
    async fn follow(&self, key: &Key, state: &watch::Sender<State>) {
        let mut pause = RETRY_MIN;
        loop {
            match self.follow_once(key, state).await {
                Ok(true) => return,
                Ok(false) => pause = RETRY_MIN,
                Err(status) => {
                    tracing::debug!(?key, error = %status, "Cannot watch an object of a pod");
                    state.send_if_modified(|own| match own {
                        // What was known stays: the API may be away for a while.
                        State::Found(_) | State::Missing => false,
                        State::Unknown | State::Failed(_) => {
                            *own = State::Failed(status.message.clone());
                            true
                        }
                    });
                    rt::sleep(rt::jittered(pause, 0.5)).await;
                    pause = (pause * 2).min(RETRY_MAX);
                }
            }
        }
    }

    /// Lists and watches until the watch ends. Returns whether the object will never change.
    async fn follow_once(&self, key: &Key, state: &watch::Sender<State>) -> Result<bool, Status> {
        let field_selector = format!("metadata.name={}", key.name);
        let options = ListOptions { field_selector: field_selector.clone(), ..ListOptions::default() };
        let list = self.api.list(&key.gvr(), &key.namespace, &options).await?;
        if self.learn(key, state, list.items.into_iter().next()) {
            return Ok(true);
        }
        let options = WatchOptions { field_selector, revision: list.revision, ..WatchOptions::default() };
        let mut events = self.api.watch(&key.gvr(), &key.namespace, &options).await?;
        while let Some(event) = events.next().await {
            let object = match event {
                Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => Some(object),
                Ok(WatchEvent::Deleted(_)) => None,
                Ok(WatchEvent::Bookmark(_)) => continue,
                // Too old: the next list says what is there.
                Err(status) if status.is_expired() => return Ok(false),
                Err(status) => return Err(status),
            };
            if self.learn(key, state, object) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes the object over and tells its pods. Returns whether it will never change.
    fn learn(&self, key: &Key, state: &watch::Sender<State>, object: Option<Arc<Object>>) -> bool {
        let is_immutable =
            object.as_ref().is_some_and(|own| own.to_value()["immutable"].as_bool() == Some(true));
        // Who waits for the first word needs no other hint.
        let was_known = !matches!(*state.borrow(), State::Unknown);
        let changed = state.send_if_modified(|own| {
            let same = match (&*own, &object) {
                (State::Found(own), Some(new)) => own.revision() == new.revision() && own.uid() == new.uid(),
                (State::Missing, None) => true,
                _ => false,
            };
            if !same {
                *own = object.clone().map_or(State::Missing, State::Found);
            }
            !same
        });
        if changed
            && was_known
            && let Some(entry) = self.entries.lock().get(key)
        {
            entry.pods.iter().for_each(|uid| self.changes.mark(uid));
        }
        is_immutable
    }

    /// What a registered pod names, once something is known of each.
    pub async fn objects(&self, pod: &Pod) -> Objects {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let references = References::of(pod);
        let deadline = rt::instant() + FIRST_WORD_WAIT;
        let mut objects = Objects::default();
        for name in references.config_maps {
            let key = Key { is_secret: false, namespace: namespace.clone(), name };
            let lookup = self.lookup(&key, deadline).await;
            objects.config_maps.insert(key.name, lookup);
        }
        for name in references.secrets {
            let key = Key { is_secret: true, namespace: namespace.clone(), name };
            let lookup = self.lookup(&key, deadline).await;
            objects.secrets.insert(key.name, lookup);
        }
        objects
    }

    async fn lookup<T: DeserializeOwned + Send + Sync + 'static>(
        &self,
        key: &Key,
        deadline: rt::Instant,
    ) -> Lookup<T> {
        let Key { namespace, name, .. } = key;
        let receiver = self.entries.lock().get(key).map(|entry| entry.state.subscribe());
        let Some(mut receiver) = receiver else {
            return Lookup::Failed(format!("object {namespace:?}/{name:?} not registered"));
        };
        let remaining = deadline.saturating_duration_since(rt::instant());
        let known = receiver.wait_for(|state| !matches!(state, State::Unknown));
        let mut state = match rt::timeout(remaining, known).await {
            Ok(Ok(state)) => state.clone(),
            _ => State::Failed(format!(
                "failed to sync {} cache: timed out waiting for the condition",
                key.gvr().resource
            )),
        };
        if matches!(state, State::Failed(_)) {
            let answered = receiver.wait_for(|state| matches!(state, State::Found(_) | State::Missing));
            if let Ok(Ok(better)) = rt::timeout(FAILURE_WAIT.min(remaining), answered).await {
                state = better.clone();
            }
        }
        match state {
            State::Found(object) => match view::<T>(&object) {
                Ok(object) => Lookup::Found(object),
                Err(status) => Lookup::Failed(status.message),
            },
            State::Missing => Lookup::Missing,
            State::Failed(why) => Lookup::Failed(why),
            State::Unknown => Lookup::Missing,
        }
    }
}

fn release(entries: &mut HashMap<Key, Entry>, uid: &str, given_up: impl Fn(&Key) -> bool) {
    entries.retain(|key, entry| {
        if given_up(key) {
            entry.pods.remove(uid);
        }
        let is_used = !entry.pods.is_empty();
        if !is_used {
            entry.stop.cancel();
        }
        is_used
    });
}

#[cfg(test)]
mod tests {
    use client::fake::FakeApi;

    use super::*;
    use crate::agent::config::fixture;

    fn map(name: &str, value: &str, immutable: bool) -> apimachinery::Value {
        apimachinery::json!({"apiVersion": "v1", "kind": "ConfigMap", "immutable": immutable,
            "metadata": {"name": name, "namespace": "ns"}, "data": {"k": value}})
    }

    fn text(objects: &Objects, name: &str) -> String {
        match objects.config_maps.get(name) {
            Some(Lookup::Found(map)) => {
                map.data.as_ref().and_then(|data| data.get("k")).cloned().unwrap_or_default()
            }
            Some(Lookup::Missing) => "missing".into(),
            Some(Lookup::Failed(why)) => format!("failed: {why}"),
            None => "none".into(),
        }
    }

    #[tokio::test]
    async fn objects_are_followed_from_the_first_pod_to_the_last() {
        let (fake, shutdown, changes) = (FakeApi::new(), Shutdown::new(), Arc::new(Changes::default()));
        fake.seed(map("a", "1", false));
        fake.seed(map("fixed", "1", true));
        let cache = ObjectCache::new(fake.clone(), changes.clone(), shutdown.clone());
        let pod = fixture::pod(serde_json::json!({"containers": [{"name": "c", "envFrom": [
            {"configMapRef": {"name": "a"}}, {"configMapRef": {"name": "b"}}, {"configMapRef": {"name": "fixed"}}]}]}));
        assert!(text(&cache.objects(&pod).await, "a").ends_with("\"ns\"/\"a\" not registered"));
        cache.register("u-1", &pod);
        cache.register("u-2", &pod);
        let objects = cache.objects(&pod).await;
        assert_eq!(
            (text(&objects, "a"), text(&objects, "b"), text(&objects, "fixed")),
            ("1".into(), "missing".into(), "1".into())
        );

        let until = async |name: &str, wanted: &str| {
            let reached = async {
                while text(&cache.objects(&pod).await, name) != wanted {
                    changes.marked().await;
                }
            };
            rt::timeout(Duration::from_secs(20), reached)
                .await
                .unwrap_or_else(|_| panic!("{name} is not {wanted}"));
        };
        changes.take();
        fake.edit(&CONFIG_MAPS, "ns", "a", |map| map.set_at(&["data", "k"], "2"));
        until("a", "2").await;
        assert_eq!(changes.take().into_iter().collect::<Vec<_>>(), ["u-1", "u-2"]);
        fake.seed(map("b", "3", false));
        until("b", "3").await;
        fake.drop_object(&CONFIG_MAPS, "ns", "b");
        until("b", "missing").await;
        fake.close_watches();
        fake.edit(&CONFIG_MAPS, "ns", "fixed", |map| map.set_at(&["data", "k"], "9"));
        fake.edit(&CONFIG_MAPS, "ns", "a", |map| map.set_at(&["data", "k"], "4"));
        until("a", "4").await;
        assert_eq!(text(&cache.objects(&pod).await, "fixed"), "1", "nobody looks at it again");

        cache.forget("u-1");
        assert_eq!(text(&cache.objects(&pod).await, "a"), "4");
        cache.forget("u-2");
        assert!(cache.entries.lock().is_empty());
        shutdown.cancel();
    }
}
