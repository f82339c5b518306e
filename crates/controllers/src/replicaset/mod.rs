//! The ReplicaSet controller: keeps as many pods as `spec.replicas` says.
//!
//! ```text
//!     ReplicaSet, its pods, orphans ──> claim ──> plan: create n | delete these ──> status
//! ```
//!
//! Start at [`Controller::sync`]; what is decided is in [`plan`]. Own creates are awaited by revision and own
//! deletions believed at once ([`Expectations`]), so a burst of events never makes a pod twice.

mod plan;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use api::gvr::{PODS, REPLICA_SETS};
use api::view::{Pod, ReplicaSet};
use apimachinery::{Object, Selector, Status, Value};
use async_trait::async_trait;
use client::events::Reference;
use client::typed::view;
use client::{Api, DeleteOptions, Delta, Informer, ObjectKey, Recorder, WriteOptions};
use controller_runtime::controller::boxed;
use controller_runtime::{Action, Context, ControllerDescriptor, Error, Expectations, Reconcile, Result};
use futures::StreamExt;
use futures::future::BoxFuture;
use tracing::warn;

use crate::Options;
use crate::ownership::{self, Parent};
use plan::Change;

const NAME: &str = "replicaset-controller";

/// Pods created or deleted by one reconcile; the rest follows with the next. Each costs one request in flight.
const BURST_MAX: usize = 1_000;

/// Requests in flight at once for one ReplicaSet.
const CONCURRENT_MAX: usize = 256;

/// The first batch of creates; each batch that succeeds is followed by one twice as large, so that a quota or a
/// webhook that refuses is asked once and not a thousand times.
const FIRST_BATCH: usize = 1;

/// Tries of a status update against newer versions, upstream's number.
const STATUS_TRIES: u32 = 2;

pub fn descriptor() -> ControllerDescriptor<Options> {
    ControllerDescriptor { name: NAME, service_account: NAME, event_source: NAME, workers: 5, start }
}

fn start(context: Context<Options>) -> BoxFuture<'static, ()> {
    let (sets, pods) = (context.informers.of(&REPLICA_SETS), context.informers.of(&PODS));
    ownership::index_by_owner(&pods);
    ownership::index_orphans(&pods);
    ownership::index_by_owner(&sets);
    let reconciler = Arc::new(Controller {
        api: context.api.clone(),
        recorder: context.recorder.clone(),
        sets: sets.clone(),
        pods: pods.clone(),
        expectations: Expectations::default(),
    });
    let controller = controller_runtime::Controller::new(&context, reconciler)
        .for_kind(&sets)
        .owns(&pods, "apps", "ReplicaSet")
        .watches(&pods, {
            let sets = sets.clone();
            move |delta, keys| wake_adopters(&sets, delta, keys)
        });
    boxed(controller.run())
}

/// An orphan that appears, or whose labels change, may be somebody's.
fn wake_adopters(sets: &Informer, delta: &Delta, keys: &mut Vec<ObjectKey>) {
    let Delta::Upsert { old, new } = delta else { return };
    if new.controller_owner().is_some() || new.is_deleting() {
        return;
    }
    let unchanged =
        old.as_ref().is_some_and(|old| old.controller_owner().is_none() && old.labels().eq(new.labels()));
    if unchanged {
        return;
    }
    let selects = |set: &Arc<Object>| {
        let set = set.view::<ReplicaSet>().ok()?;
        let selector = set.spec.selector.selector().ok()?;
        (!selector.is_everything() && selector.matches_object(new)).then_some(())
    };
    let mine = sets.list_namespace(new.namespace()).into_iter().filter(|set| selects(set).is_some());
    keys.extend(mine.map(|set| ObjectKey::from(&*set)));
}

struct Controller {
    api: Arc<dyn Api>,
    recorder: Recorder,
    sets: Arc<Informer>,
    pods: Arc<Informer>,
    expectations: Expectations<ObjectKey>,
}

/// A pod with the object it was read from.
#[derive(Clone)]
struct PodOf {
    object: Arc<Object>,
    pod: Arc<Pod>,
}

#[async_trait]
impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result {
        match self.sets.get(&key.namespace, &key.name) {
            Some(object) => self.sync(key, &object).await,
            None => {
                self.expectations.forget(key);
                Ok(Action::await_change())
            }
        }
    }
}

impl Controller {
    async fn sync(&self, key: &ObjectKey, object: &Arc<Object>) -> Result {
        let set = view::<ReplicaSet>(object)?;
        let selector =
            set.spec.selector.selector().map_err(|error| Error::Stalled { reason: error.to_string() })?;
        // Read before the pods, so that the pods are at least as new as what the answer is about.
        let current = self.expectations.met(key, &self.pods);
        let pods = self.claimed_pods(key, object, &selector).await?;
        let (active, terminating): (Vec<_>, Vec<_>) = pods
            .into_iter()
            .filter(|own| !own.pod.is_terminal())
            .partition(|own| !own.pod.is_deleting() && !self.expectations.is_deleted(key, own.object.uid()));

        let failure = if current && !object.is_deleting() {
            self.manage(key, object, &set, &active).await
        } else {
            None
        };
        let now = rt::now();
        let wanted =
            status::calculate(&set, object.generation(), &active, terminating.len(), failure.as_ref(), now);
        self.write_status(object, &set, wanted).await?;
        match failure {
            Some(status) => Err(status.into()),
            None => Ok(plan::next_check(&set, active.iter().map(|own| &*own.pod), now)),
        }
    }

    async fn claimed_pods(
        &self,
        key: &ObjectKey,
        object: &Arc<Object>,
        selector: &Selector,
    ) -> Result<Vec<PodOf>, Error> {
        let parent = Parent { object, selector };
        let mut candidates = ownership::candidates(&self.pods, object);
        // Pods that are done are nobody's business any more.
        candidates.retain(|pod| pod.view::<Pod>().is_ok_and(|pod| !pod.is_terminal()));
        let alive = candidates.iter().filter(|pod| !pod.is_deleting()).map(|pod| pod.uid());
        self.expectations.settle(key, alive);
        let claim = ownership::claim(&parent, candidates);
        let pods = ownership::settle(&*self.api, &parent, &REPLICA_SETS, &PODS, claim).await?;
        let views = pods.into_iter().map(|object| Ok(PodOf { pod: view::<Pod>(&object)?, object }));
        Ok(views.collect::<Result<_, Status>>()?)
    }

    /// Creates or deletes pods; the first failure is the reconcile's.
    async fn manage(
        &self,
        key: &ObjectKey,
        object: &Arc<Object>,
        set: &ReplicaSet,
        active: &[PodOf],
    ) -> Option<Status> {
        let reference = Reference::of(object);
        match plan::change(set, active.len(), BURST_MAX) {
            Change::Nothing => None,
            Change::Create(count) => self.create_pods(key, object, set, &reference, count).await,
            Change::Delete(count) => {
                let related = self.related_pods(object);
                let victims = plan::victims(active, &related, count, rt::now());
                self.delete_pods(key, &reference, victims).await
            }
        }
    }

    async fn create_pods(
        &self,
        key: &ObjectKey,
        object: &Arc<Object>,
        set: &ReplicaSet,
        reference: &Reference,
        count: usize,
    ) -> Option<Status> {
        let template = plan::pod_of(object, set);
        let (mut left, mut batch) = (count, FIRST_BATCH);
        while left > 0 {
            let size = batch.min(left);
            let creates = (0..size).map(|_| self.create_pod(key, reference, template.clone())).collect();
            if let Some(status) = first_failure(creates).await {
                return (!ownership::is_namespace_terminating(&status)).then_some(status);
            }
            left -= size;
            batch *= 2;
        }
        None
    }

    async fn create_pod(&self, key: &ObjectKey, reference: &Reference, pod: Value) -> Result<(), Status> {
        match self.api.create(&PODS, &key.namespace, pod, &WriteOptions::default()).await {
            Ok(pod) => {
                self.expectations.written(key, pod.revision());
                self.recorder.normal(reference, "SuccessfulCreate", format!("Created pod: {}", pod.name()));
                Ok(())
            }
            Err(status) => {
                if !ownership::is_namespace_terminating(&status) {
                    self.recorder.warning(reference, "FailedCreate", format!("Error creating: {status}"));
                }
                Err(status)
            }
        }
    }

    async fn delete_pods(
        &self,
        key: &ObjectKey,
        reference: &Reference,
        victims: Vec<PodOf>,
    ) -> Option<Status> {
        first_failure(victims.iter().map(|victim| self.delete_pod(key, reference, victim)).collect()).await
    }

    async fn delete_pod(&self, key: &ObjectKey, reference: &Reference, victim: &PodOf) -> Result<(), Status> {
        let object = &victim.object;
        let options = DeleteOptions { uid: Some(object.uid().into()), ..DeleteOptions::default() };
        match self.api.delete(&PODS, object.namespace(), object.name(), &options).await {
            Ok(()) => {
                self.expectations.deleted(key, object.uid());
                self.recorder.normal(
                    reference,
                    "SuccessfulDelete",
                    format!("Deleted pod: {}", object.name()),
                );
                Ok(())
            }
            // Gone, or another pod of its name: either way the victim is no more.
            Err(status) if status.is_not_found() || status.is_conflict() => {
                self.expectations.deleted(key, object.uid());
                Ok(())
            }
            Err(status) => {
                self.recorder.warning(reference, "FailedDelete", format!("Error deleting: {status}"));
                Err(status)
            }
        }
    }

    /// Active pods of all ReplicaSets of the same owner; a node with many of them is the first to lose one.
    fn related_pods(&self, object: &Object) -> Vec<Arc<Pod>> {
        let siblings: Vec<Arc<Object>> = match object.controller_owner() {
            None => self.sets.get(object.namespace(), object.name()).into_iter().collect(),
            Some(owner) => self.sets.by_index(ownership::BY_OWNER, owner.uid),
        };
        let pods = siblings.iter().flat_map(|set| self.pods.by_index(ownership::BY_OWNER, set.uid()));
        pods.filter_map(|pod| pod.view::<Pod>().ok()).filter(|pod| crate::pods::is_active(pod)).collect()
    }

    async fn write_status(
        &self,
        object: &Arc<Object>,
        set: &ReplicaSet,
        wanted: status::Wanted,
    ) -> Result<(), Error> {
        if status::equal(&set.status, &wanted) {
            return Ok(());
        }
        let mut latest = object.clone();
        for last in (0..STATUS_TRIES).rev() {
            let mut tree = latest.to_value();
            status::write(&mut tree, &wanted);
            let (namespace, name) = (object.namespace(), object.name());
            let options = WriteOptions::default();
            match self.api.update(&REPLICA_SETS, namespace, name, Some("status"), tree, &options).await {
                Ok(_) => return Ok(()),
                // Deleted meanwhile: nobody asks for its status.
                Err(status) if status.is_not_found() => return Ok(()),
                Err(status) if status.is_conflict() && last > 0 => {
                    latest = self.api.get(&REPLICA_SETS, namespace, name).await?;
                    if latest.uid() != object.uid() {
                        warn!(%namespace, %name, "ReplicaSet was replaced while its status was written");
                        return Ok(());
                    }
                }
                Err(status) => return Err(status.into()),
            }
        }
        Ok(())
    }
}

/// Runs requests, a bounded number at a time, all to their end. The first failure is returned.
async fn first_failure<F: Future<Output = Result<(), Status>>>(requests: Vec<F>) -> Option<Status> {
    let failures = futures::stream::iter(requests)
        .buffer_unordered(CONCURRENT_MAX)
        .filter_map(|result| std::future::ready(result.err()));
    failures.collect::<Vec<_>>().await.into_iter().next()
}
