//! The namespace controller: empties a namespace that is being deleted, then lets it go.
//!
//! ```text
//!     discover ──> pods first ──> everything else ──> conditions ──> finalize
//!                     │ remain          │ remain
//!                     └────────┬────────┘
//!                     come back when their last one is gone (or after a while)
//! ```
//!
//! Start at [`Controller::empty`]; what is left is told by [`conditions`]. Pods go first because what they run may
//! still need the rest (upstream's ordered deletion).

mod conditions;
mod drain;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use api::gvr::{NAMESPACES, PODS};
use api::view::Pod;
use apimachinery::{GroupVersionResource, Object, Status, Value};
use async_trait::async_trait;
use client::{Api, DeleteOptions, Discovered, Informer, ListOptions, ObjectKey, Propagation, WriteOptions};
use controller_runtime::controller::boxed;
use controller_runtime::{Action, Context, ControllerDescriptor, Error, Reconcile, Result};
use futures::StreamExt;
use futures::future::BoxFuture;

use crate::Options;
use crate::pods::timestamp;
use conditions::Remaining;
use drain::Drain;

const NAME: &str = "namespace-controller";
const FINALIZER: &str = "kubernetes";

/// Resources emptied at the same time for one namespace.
const CONCURRENT_MAX: usize = 16;

/// Looked at again after this time at the latest, when something remains whose end cannot be estimated; upstream's
/// estimate for objects with finalizers.
const ESTIMATE_UNKNOWN: Duration = Duration::from_secs(15);

pub fn descriptor() -> ControllerDescriptor<Options> {
    ControllerDescriptor { name: NAME, service_account: NAME, event_source: NAME, workers: 10, start }
}

fn start(context: Context<Options>) -> BoxFuture<'static, ()> {
    let namespaces = context.informers.of(&NAMESPACES);
    let drain = Arc::new(Drain::new(context.informers.clone(), context.shutdown.clone()));
    let reconciler = Arc::new(Controller {
        api: context.api.clone(),
        namespaces: namespaces.clone(),
        drain: drain.clone(),
    });
    let controller = controller_runtime::Controller::new(&context, reconciler).for_kind(&namespaces);
    drain.wakes(controller.queue().clone());
    boxed(controller.run())
}

struct Controller {
    api: Arc<dyn Api>,
    namespaces: Arc<Informer>,
    drain: Arc<Drain>,
}

#[async_trait]
impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result {
        match self.namespaces.get("", &key.name) {
            Some(cached) if cached.is_deleting() => self.empty(key).await,
            _ => {
                self.drain.done(&key.name);
                Ok(Action::await_change())
            }
        }
    }
}

/// What became of one resource's objects.
#[derive(Default)]
struct Outcome {
    remaining: Remaining,
    /// Until the last of them should be gone.
    estimate: Duration,
    failure: Option<Status>,
}

impl Controller {
    async fn empty(&self, key: &ObjectKey) -> Result {
        let namespace = key.name.as_str();
        let Some(mut object) = self.api.find(&NAMESPACES, "", namespace).await? else {
            self.drain.done(namespace);
            return Ok(Action::await_change());
        };
        let tree = object.to_value();
        if !object.is_deleting() || tree.array_at(&["spec", "finalizers"]).is_empty() {
            return Ok(Action::await_change());
        }
        let (outcomes, discovery_failure) = self.delete_content(namespace).await;
        let summary = conditions::Summary::of(discovery_failure, &outcomes);
        object = self.write_conditions(&object, &summary).await?;
        if let Some(status) = outcomes.iter().find_map(|outcome| outcome.failure.clone()) {
            return Err(status.into());
        }
        if let Some(reason) = summary.discovery_failure {
            return Err(Error::failed(reason));
        }
        let left: Vec<&Outcome> = outcomes.iter().filter(|outcome| !outcome.remaining.is_empty()).collect();
        if left.is_empty() {
            return self.finalize(&object).await;
        }
        self.drain.watch(namespace, left.iter().map(|outcome| outcome.remaining.resource.clone()));
        let estimate = left.iter().map(|outcome| outcome.estimate).max().unwrap_or(ESTIMATE_UNKNOWN);
        Err(Error::Waiting { after: estimate / 2 + Duration::from_secs(1), reason: "content remains".into() })
    }

    /// Deletes pods, and once they are gone everything else. The second result is why discovery failed.
    async fn delete_content(&self, namespace: &str) -> (Vec<Outcome>, Option<String>) {
        let served = match self.api.discover().await {
            Ok(served) => served,
            Err(status) => return (Vec::new(), Some(status.message)),
        };
        let deletable = |own: &Discovered| own.namespaced && own.verbs.iter().any(|verb| verb == "delete");
        let (pods, others): (Vec<_>, Vec<_>) = served
            .into_iter()
            .filter(deletable)
            .partition(|own| own.gvr.group_resource() == PODS.group_resource());
        let mut outcomes = self.delete_all(namespace, pods).await;
        let pods_left =
            outcomes.iter().any(|outcome| outcome.failure.is_some() || !outcome.remaining.is_empty());
        if !pods_left {
            outcomes.extend(self.delete_all(namespace, others).await);
        }
        (outcomes, None)
    }

    async fn delete_all(&self, namespace: &str, resources: Vec<Discovered>) -> Vec<Outcome> {
        let deletions: Vec<_> =
            resources.iter().map(|resource| self.delete_resource(namespace, resource)).collect();
        futures::stream::iter(deletions).buffer_unordered(CONCURRENT_MAX).collect().await
    }

    async fn delete_resource(&self, namespace: &str, resource: &Discovered) -> Outcome {
        let mut outcome = Outcome { remaining: Remaining::of(&resource.gvr), ..Outcome::default() };
        if let Err(status) = self.try_delete_resource(namespace, resource, &mut outcome).await {
            // A resource that is served no longer has no objects.
            if !(status.is_not_found() || status.code == 405) {
                outcome.failure = Some(status);
            }
        }
        outcome
    }

    async fn try_delete_resource(
        &self,
        namespace: &str,
        resource: &Discovered,
        outcome: &mut Outcome,
    ) -> Result<(), Status> {
        let everything = ListOptions::default();
        let mut left = self.api.list(&resource.gvr, namespace, &everything).await?.items;
        if left.iter().any(|object| !object.is_deleting()) {
            self.delete_objects(namespace, resource, &left).await?;
            left = self.api.list(&resource.gvr, namespace, &everything).await?.items;
        }
        outcome.estimate = estimate(&resource.gvr, &left);
        outcome.remaining.count(&left);
        Ok(())
    }

    async fn delete_objects(
        &self,
        namespace: &str,
        resource: &Discovered,
        all: &[Arc<Object>],
    ) -> Result<(), Status> {
        let options =
            DeleteOptions { propagation: Some(Propagation::Background), ..DeleteOptions::default() };
        if resource.verbs.iter().any(|verb| verb == "deletecollection") {
            let everything = ListOptions::default();
            match self.api.delete_collection(&resource.gvr, namespace, &everything, &options).await {
                Err(status) if status.code == 405 => {}
                result => return result,
            }
        }
        for object in all.iter().filter(|object| !object.is_deleting()) {
            match self.api.delete(&resource.gvr, namespace, object.name(), &options).await {
                Err(status) if !(status.is_not_found() || status.code == 405) => return Err(status),
                _ => {}
            }
        }
        Ok(())
    }

    async fn write_conditions(
        &self,
        object: &Arc<Object>,
        summary: &conditions::Summary,
    ) -> Result<Arc<Object>, Error> {
        let mut tree = object.to_value();
        if !conditions::update(&mut tree, summary, rt::now()) {
            return Ok(object.clone());
        }
        let options = WriteOptions::default();
        Ok(self.api.update(&NAMESPACES, "", object.name(), Some("status"), tree, &options).await?)
    }

    /// Nothing is left: the namespace loses our finalizer, and with the last one itself.
    async fn finalize(&self, object: &Object) -> Result {
        let mut tree = object.to_value();
        let mut finalizers = tree.array_at(&["spec", "finalizers"]).to_vec();
        finalizers.retain(|own| own.as_str() != Some(FINALIZER));
        tree.set_at(&["spec", "finalizers"], Value::Array(finalizers));
        let options = WriteOptions::default();
        match self.api.update(&NAMESPACES, "", object.name(), Some("finalize"), tree, &options).await {
            Err(status) if !status.is_not_found() => Err(status.into()),
            _ => {
                self.drain.done(object.name());
                Ok(Action::await_change())
            }
        }
    }
}

/// How long what is left will take. Only pods say how long.
fn estimate(resource: &GroupVersionResource, left: &[Arc<Object>]) -> Duration {
    if left.iter().any(|object| object.finalizers().len() > 0) || *resource != PODS {
        return ESTIMATE_UNKNOWN;
    }
    let grace = |object: &Arc<Object>| {
        let pod = object.view::<Pod>().ok()?;
        let until = timestamp(pod.metadata.deletion_timestamp.as_ref())?;
        Duration::try_from(until.duration_since(rt::now())).ok()
    };
    left.iter().filter_map(grace).max().unwrap_or_default()
}
