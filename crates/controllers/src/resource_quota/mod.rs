//! The quota controller: a ResourceQuota's status says what is allowed and how much of it is used.
//!
//! Admission charges as objects come, so this recounts only where it cannot know: when a quota is new or changes, when
//! objects go or become cheaper, and every few minutes in case something was charged that never came to be.
//!
//! Only collections that some quota counts are followed.

mod plan;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use api::gvr::RESOURCE_QUOTAS;
use api::quota::Kind;
use apimachinery::{GroupVersionResource, Str, Value};
use async_trait::async_trait;
use client::{Api, Delta, Informer, Informers, ListOptions, ObjectKey, WriteOptions};
use controller_runtime::controller::boxed;
use controller_runtime::{Action, Context, ControllerDescriptor, Queue, Reconcile, Result};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rt::Shutdown;

use crate::Options;

const NAME: &str = "resourcequota-controller";

/// Every quota is recounted this often, whatever happens.
const RESYNC: Duration = Duration::from_secs(5 * 60);

/// Objects often go many at a time; one count does for all of them.
const SETTLE: Duration = Duration::from_millis(50);

/// A collection that came to be served is looked for this often while a quota names it.
const DISCOVERY: Duration = Duration::from_secs(30);

pub fn descriptor() -> ControllerDescriptor<Options> {
    ControllerDescriptor { name: NAME, service_account: NAME, event_source: NAME, workers: 5, start }
}

fn start(context: Context<Options>) -> BoxFuture<'static, ()> {
    let quotas = context.informers.of(&RESOURCE_QUOTAS);
    let reconciler = Arc::new(Controller {
        api: context.api.clone(),
        informers: context.informers.clone(),
        quotas: quotas.clone(),
        shutdown: context.shutdown.clone(),
        state: Mutex::default(),
    });
    let controller = controller_runtime::Controller::new(&context, reconciler.clone());
    reconciler.state.lock().queue = Some(controller.queue().clone());
    let controller = controller.watches(&quotas, |delta, keys| {
        if let Delta::Upsert { old, new } = delta
            && old.as_ref().is_none_or(|old| plan::is_dirty(&old.to_value(), &new.to_value()))
        {
            keys.push(ObjectKey::from(&**new));
        }
    });
    boxed(controller.run())
}

struct Controller {
    api: Arc<dyn Api>,
    informers: Informers,
    quotas: Arc<Informer>,
    shutdown: Shutdown,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    queue: Option<Arc<Queue<ObjectKey>>>,
    /// What is served, as of the last discovery; by the name that counts it (`count/deployments.apps`).
    served: HashMap<Str, Collection>,
    followed: HashSet<GroupVersionResource>,
}

/// A collection that can be counted.
#[derive(Clone)]
struct Collection {
    resource: GroupVersionResource,
    kind: Kind,
}

#[async_trait]
impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result {
        let Some(quota) = self.quotas.get(&key.namespace, &key.name) else {
            return Ok(Action::await_change());
        };
        let mut tree = quota.to_value();
        let names = plan::hard_names(&tree);
        let (collections, complete) = self.collections(&names).await?;
        let mut counts = Vec::with_capacity(collections.len());
        for collection in collections {
            self.follow(&collection);
            // Listed and not taken from the informer, which may not have seen yet what was charged already.
            let options = ListOptions::default();
            let objects = self.api.list(&collection.resource, &key.namespace, &options).await?.items;
            counts.push((collection.kind, objects));
        }
        if let Some(status) = plan::status(&tree, &counts, rt::now()) {
            tree.set_at(&["status"], status);
            self.write(&key.namespace, &key.name, tree).await?;
        }
        let again = if complete { RESYNC } else { DISCOVERY };
        Ok(Action::requeue(rt::jittered(again, 0.1)))
    }
}

impl Controller {
    /// Only over the state that was counted for: a charge in between makes it a conflict, and then it is counted anew.
    async fn write(&self, namespace: &str, name: &str, quota: Value) -> Result<()> {
        let options = WriteOptions::default();
        match self.api.update(&RESOURCE_QUOTAS, namespace, name, Some("status"), quota, &options).await {
            Err(status) if !status.is_not_found() => Err(status.into()),
            _ => Ok(()),
        }
    }

    /// The collections that a quota on `names` counts, and whether all of them are served.
    async fn collections(&self, names: &[Str]) -> Result<(Vec<Collection>, bool)> {
        if let Some(found) = self.known(names) {
            return Ok((found, true));
        }
        let served = self.api.discover().await?;
        let collections = served.into_iter().filter(|own| own.namespaced && has_verbs(&own.verbs));
        let by_count = collections.filter_map(|own| {
            let kind = Kind::of(&own.gvr.group, &own.gvr.resource)?;
            Some((kind.count_name().clone(), Collection { resource: own.gvr, kind }))
        });
        let by_count = by_count.collect();
        self.state.lock().served = by_count;
        Ok(match self.known(names) {
            Some(found) => (found, true),
            None => (self.matching(names), false),
        })
    }

    /// As [`Controller::matching`], if nothing is missing.
    fn known(&self, names: &[Str]) -> Option<Vec<Collection>> {
        let found = self.matching(names);
        let counted = |name: &Str| found.iter().any(|own| own.kind.counts_for(name));
        names.iter().all(counted).then_some(found)
    }

    fn matching(&self, names: &[Str]) -> Vec<Collection> {
        let state = self.state.lock();
        let counts = |own: &&Collection| names.iter().any(|name| own.kind.counts_for(name));
        state.served.values().filter(counts).cloned().collect()
    }

    /// Sees to it, once, that somebody tells of objects of a collection that go.
    fn follow(&self, collection: &Collection) {
        let mut state = self.state.lock();
        if !state.followed.insert(collection.resource.clone()) {
            return;
        }
        if let Some(queue) = state.queue.clone() {
            let informer = self.informers.of(&collection.resource);
            let quotas = self.quotas.clone();
            let feed = feed(collection.kind.clone(), informer, quotas, queue, self.shutdown.clone());
            rt::spawn(NAME, feed);
        }
    }
}

fn has_verbs(verbs: &[Str]) -> bool {
    ["create", "list", "watch"].iter().all(|verb| verbs.iter().any(|own| own == verb))
}

/// Recounts the quotas of a namespace whose objects go or become cheaper.
async fn feed(
    kind: Kind,
    informer: Arc<Informer>,
    quotas: Arc<Informer>,
    queue: Arc<Queue<ObjectKey>>,
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
            return;
        }
        for delta in batch.drain(..) {
            let (Delta::Upsert { new: object, .. } | Delta::Delete { old: object }) = &delta else {
                continue;
            };
            let quotas = quotas.list_namespace(object.namespace());
            // Comparing states costs more than seeing that there is no quota.
            if quotas.is_empty() || !has_freed(&kind, &delta) {
                continue;
            }
            for quota in quotas {
                if plan::hard_names(&quota.to_value()).iter().any(|name| kind.counts_for(name)) {
                    queue.add_after(ObjectKey::from(&*quota), SETTLE);
                }
            }
        }
    }
}

/// Whether a change may have freed something.
fn has_freed(kind: &Kind, delta: &Delta) -> bool {
    match delta {
        Delta::Delete { .. } => true,
        Delta::Upsert { old: Some(old), new } if !kind.is_plain() => {
            kind.is_freed(&old.to_value(), &new.to_value(), rt::now())
        }
        _ => false,
    }
}
