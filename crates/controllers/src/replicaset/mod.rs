//! The controllers of ReplicaSets and of ReplicationControllers: they keep as many pods as `spec.replicas` says.
//!
//! ```text
//!     ReplicaSet, its pods, orphans ──> claim ──> plan: create n | delete these ──> status
//! ```
//!
//! Start at [`Controller::sync`]; what is decided is in [`plan`]. Own creates are awaited by revision and own
//! deletions believed at once ([`PodControl`]), so a burst of events never makes a pod twice.

mod kind;
mod plan;
mod status;
#[cfg(test)]
mod tests;

use std::marker::PhantomData;
use std::sync::Arc;

use api::gvr::PODS;
use api::view::{Pod, ReplicaSet, ReplicationController};
use apimachinery::{Object, Selector, Status};
use async_trait::async_trait;
use client::events::Reference;
use client::typed::view;
use client::{Informer, ObjectKey, WriteOptions};
use controller_runtime::controller::boxed;
use controller_runtime::{Action, Context, ControllerDescriptor, Error, Reconcile, Result};
use futures::future::BoxFuture;
use tracing::warn;

use crate::Options;
use crate::ownership::{self, Family, Parent};
use crate::pod_control::{self, PodControl};
use crate::pods::{self, PodOf};
use kind::{Kind, Replicated};
use plan::Change;

/// Pods created or deleted by one reconcile; the rest follows with the next. Each costs one request in flight.
const BURST_MAX: usize = 1_000;

/// Tries of a status update against newer versions, upstream's number.
const STATUS_TRIES: u32 = 2;

pub fn descriptor() -> ControllerDescriptor<Options> {
    descriptor_of::<ReplicaSet>()
}

/// The controller of ReplicationControllers.
pub fn replication_descriptor() -> ControllerDescriptor<Options> {
    descriptor_of::<ReplicationController>()
}

fn descriptor_of<V: Replicated>() -> ControllerDescriptor<Options> {
    let Kind { controller, account, event_source, .. } = *V::kind();
    ControllerDescriptor {
        name: controller,
        service_account: account,
        event_source,
        workers: 5,
        start: start::<V>,
    }
}

fn start<V: Replicated>(context: Context<Options>) -> BoxFuture<'static, ()> {
    let kind = V::kind();
    let (sets, pods) = (context.informers.of(&kind.resource), context.informers.of(&PODS));
    ownership::index_by_owner(&pods);
    ownership::index_orphans(&pods);
    ownership::index_by_owner(&sets);
    let reconciler = Arc::new(Controller::<V> {
        control: PodControl::new(context.api.clone(), context.recorder.clone()),
        sets: sets.clone(),
        pods: pods.clone(),
        view: PhantomData,
    });
    let controller = controller_runtime::Controller::new(&context, reconciler)
        .for_kind(&sets)
        .owns(&pods, &kind.resource.group, kind.kind)
        .watches(&pods, {
            let sets = sets.clone();
            move |delta, keys| {
                ownership::wake_adopters(&sets, delta, keys, |set| {
                    set.view::<V>().ok()?.set().spec.selector.selector().ok()
                });
            }
        });
    boxed(controller.run())
}

struct Controller<V> {
    control: PodControl,
    sets: Arc<Informer>,
    pods: Arc<Informer>,
    view: PhantomData<fn() -> V>,
}

#[async_trait]
impl<V: Replicated> Reconcile for Controller<V> {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result {
        match self.sets.get(&key.namespace, &key.name) {
            Some(object) => self.sync(key, &object).await,
            None => {
                self.control.expectations.forget(key);
                Ok(Action::await_change())
            }
        }
    }
}

impl<V: Replicated> Controller<V> {
    async fn sync(&self, key: &ObjectKey, object: &Arc<Object>) -> Result {
        let view = view::<V>(object)?;
        let set = view.set();
        let selector =
            set.spec.selector.selector().map_err(|error| Error::Stalled { reason: error.to_string() })?;
        // Read before the pods, so that the pods are at least as new as what the answer is about.
        let current = self.control.expectations.met(key, &self.pods);
        let pods = self.claimed_pods(object, &selector).await?;
        let (active, terminating): (Vec<_>, Vec<_>) =
            pods.into_iter().filter(|own| !own.pod.is_terminal()).partition(|own| {
                !own.pod.is_deleting() && !self.control.expectations.is_deleted(key, own.object.uid())
            });

        let failure = if current && !object.is_deleting() {
            self.manage(key, object, set, &active).await
        } else {
            None
        };
        let now = rt::now();
        let terminating = V::kind().tells_terminating.then_some(terminating.len());
        let wanted = status::calculate(set, object.generation(), &active, terminating, failure.as_ref(), now);
        self.write_status(object, set, wanted).await?;
        match failure {
            Some(status) => Err(status.into()),
            None => {
                let pods = active.iter().map(|own| &*own.pod);
                Ok(pods::next_availability(pods, set.spec.min_ready_seconds, now))
            }
        }
    }

    async fn claimed_pods(&self, object: &Object, selector: &Selector) -> Result<Vec<PodOf>, Status> {
        let family = Family {
            deletions: Some(&self.control.expectations),
            leaves_out: |pod| pod.view::<Pod>().map_or(true, |pod| pod.is_terminal()),
            ..Family::new(&*self.control.api, V::kind().resource.clone(), &self.pods)
        };
        let pods = family.claim(&Parent { object, selector }).await?.children;
        pods.into_iter().map(PodOf::read).collect()
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
            Change::Create(count) => {
                let pods = std::iter::repeat_n(plan::pod_of(object, set), count);
                self.control.create_all(key, &reference, pods).await.failure
            }
            Change::Delete(count) => {
                let related = self.related_pods(object);
                let victims = plan::victims(active, &related, count, rt::now());
                let deletes =
                    victims.iter().map(|victim| self.control.delete(key, &reference, &victim.object));
                pod_control::run_all(deletes.collect()).await.failure
            }
        }
    }

    /// Active pods of all sets of the same owner; a node with many of them is the first to lose one.
    fn related_pods(&self, object: &Object) -> Vec<Arc<Pod>> {
        let siblings: Vec<Arc<Object>> = match object.controller_owner() {
            None => self.sets.get(object.namespace(), object.name()).into_iter().collect(),
            Some(owner) => self.sets.by_index(ownership::BY_OWNER, owner.uid),
        };
        let pods = siblings.iter().flat_map(|set| self.pods.by_index(ownership::BY_OWNER, set.uid()));
        pods.filter_map(|pod| pod.view::<Pod>().ok()).filter(|pod| pods::is_active(pod)).collect()
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
            match self
                .control
                .api
                .update(&V::kind().resource, namespace, name, Some("status"), tree, &options)
                .await
            {
                Ok(_) => return Ok(()),
                // Deleted meanwhile: nobody asks for its status.
                Err(status) if status.is_not_found() => return Ok(()),
                Err(status) if status.is_conflict() && last > 0 => {
                    latest = self.control.api.get(&V::kind().resource, namespace, name).await?;
                    if latest.uid() != object.uid() {
                        warn!(%namespace, %name, kind = V::kind().kind, "Object was replaced while its status was written");
                        return Ok(());
                    }
                }
                Err(status) => return Err(status.into()),
            }
        }
        Ok(())
    }
}
