//! The Deployment controller: moves pods from old ReplicaSets to the one of the present template.
//!
//! ```text
//!     claim ReplicaSets ──> find or create the new one, with its revision
//!        ├─ deleting ────────> status only
//!        ├─ paused, resized ─> scale all in proportion
//!        ├─ Recreate ────────> old to 0, wait for their pods, new to n
//!        └─ RollingUpdate ───> new up within maxSurge, old down within maxUnavailable
//!     ──> clean up history ──> status and progress
//! ```
//!
//! Start at [`Controller::sync`]. Decisions are pure: [`plan`] (sizes), [`revision`] (annotations), [`status`]
//! (counts and conditions), [`new_set`] (the next ReplicaSet). Behaviour, reasons and messages are upstream's.

mod new_set;
mod plan;
mod revision;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use api::gvr::{DEPLOYMENTS, PODS, REPLICA_SETS};
use api::view::{Deployment, DeploymentCondition, Pod, ReplicaSet};
use apimachinery::{Object, Status, Value};
use async_trait::async_trait;
use client::events::Reference;
use client::typed::view;
use client::{Api, DeleteOptions, Delta, Informer, ObjectKey, Recorder, WriteOptions};
use controller_runtime::controller::{boxed, owner_key};
use controller_runtime::{Action, Context, ControllerDescriptor, Error, Expectations, Reconcile, Result};
use futures::future::BoxFuture;

use crate::Options;
use crate::ownership::{self, Family, Parent};
use plan::{Fleet, Set};

const NAME: &str = "deployment-controller";

pub fn descriptor() -> ControllerDescriptor<Options> {
    ControllerDescriptor { name: NAME, service_account: NAME, event_source: NAME, workers: 5, start }
}

fn start(context: Context<Options>) -> BoxFuture<'static, ()> {
    let informers = &context.informers;
    let (deployments, sets, pods) =
        (informers.of(&DEPLOYMENTS), informers.of(&REPLICA_SETS), informers.of(&PODS));
    ownership::index_by_owner(&sets);
    ownership::index_orphans(&sets);
    ownership::index_by_owner(&pods);
    let reconciler = Arc::new(Controller {
        api: context.api.clone(),
        recorder: context.recorder.clone(),
        deployments: deployments.clone(),
        sets: sets.clone(),
        pods: pods.clone(),
        expectations: Expectations::default(),
    });
    let controller = controller_runtime::Controller::new(&context, reconciler)
        .for_kind(&deployments)
        .owns(&sets, "apps", "Deployment")
        .watches(&sets, {
            let deployments = deployments.clone();
            move |delta, keys| {
                ownership::wake_adopters(&deployments, delta, keys, |own| {
                    own.view::<Deployment>().ok()?.spec.selector.selector().ok()
                });
            }
        })
        .watches(&pods, move |delta, keys| wake_recreate(&deployments, &sets, delta, keys));
    boxed(controller.run())
}

/// A Deployment that recreates waits for the last old pod to be gone.
fn wake_recreate(deployments: &Informer, sets: &Informer, delta: &Delta, keys: &mut Vec<ObjectKey>) {
    let Delta::Delete { old } = delta else { return };
    let key = owner_key(old, "apps", "ReplicaSet")
        .and_then(|set| sets.get(&set.namespace, &set.name))
        .and_then(|set| owner_key(&set, "apps", "Deployment"));
    let Some(key) = key else { return };
    let deployment =
        deployments.get(&key.namespace, &key.name).and_then(|object| object.view::<Deployment>().ok());
    if deployment.is_some_and(|deployment| deployment.spec.strategy.type_ == "Recreate") {
        keys.push(key);
    }
}

struct Controller {
    api: Arc<dyn Api>,
    recorder: Recorder,
    deployments: Arc<Informer>,
    sets: Arc<Informer>,
    pods: Arc<Informer>,
    expectations: Expectations<ObjectKey>,
}

/// One reconcile of one Deployment.
struct Sync<'a> {
    controller: &'a Controller,
    key: &'a ObjectKey,
    /// The newest state known, replaced by each write.
    object: Arc<Object>,
    deployment: Arc<Deployment>,
    fleet: Fleet,
    /// Conditions as they will be written; events of this reconcile change them on the way.
    conditions: Vec<DeploymentCondition>,
    now: jiff::Timestamp,
}

#[async_trait]
impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result {
        match self.deployments.get(&key.namespace, &key.name) {
            None => {
                self.expectations.forget(key);
                Ok(Action::await_change())
            }
            // The cache lacks our own last write, whose event brings the key back.
            Some(_) if !self.expectations.met(key, &self.sets) => Ok(Action::await_change()),
            Some(object) => self.sync(key, object).await,
        }
    }
}

impl Controller {
    async fn sync(&self, key: &ObjectKey, object: Arc<Object>) -> Result {
        let deployment = view::<Deployment>(&object)?;
        let selector = deployment
            .spec
            .selector
            .selector()
            .map_err(|error| Error::Stalled { reason: error.to_string() })?;
        if selector.is_everything() {
            return self.refuse_to_select_all(&object, &deployment).await;
        }
        let parent = Parent { object: &object, selector: &selector };
        let claimed = Family::new(&*self.api, DEPLOYMENTS, &self.sets).claim(&parent).await?;
        let sets = claimed.children.into_iter().map(Set::read).collect::<Result<Vec<_>, Status>>()?;
        let fleet = Fleet::of(&deployment, sets);
        let conditions = deployment.status.conditions.clone();
        Sync { controller: self, key, object, deployment, fleet, conditions, now: rt::now() }.run().await
    }

    async fn refuse_to_select_all(&self, object: &Arc<Object>, deployment: &Deployment) -> Result {
        let message = "This deployment is selecting all pods. A non-empty selector is required.";
        self.recorder.warning(&Reference::of(object), "SelectingAll", message);
        if deployment.status.observed_generation < object.generation() {
            let mut tree = object.to_value();
            tree.set_at(&["status", "observedGeneration"], object.generation());
            self.write(object, Some("status"), tree).await?;
        }
        Ok(Action::await_change())
    }

    async fn write(&self, object: &Object, part: Option<&str>, tree: Value) -> Result<Arc<Object>, Status> {
        let (namespace, name) = (object.namespace(), object.name());
        self.api.update(&DEPLOYMENTS, namespace, name, part, tree, &WriteOptions::default()).await
    }
}

impl Sync<'_> {
    async fn run(mut self) -> Result {
        if self.object.is_deleting() {
            self.sync_revisions().await?;
            return self.write_status().await;
        }
        status::note_pause(&self.deployment, &mut self.conditions, self.now);
        self.sync_revisions().await?;
        if self.deployment.spec.paused || plan::is_scaling_event(&self.deployment, &self.fleet) {
            return self.scale_only().await;
        }
        if self.deployment.spec.strategy.type_ == "Recreate" {
            self.recreate().await
        } else {
            self.roll().await
        }
    }

    /// Resizes what there is; a rollout neither starts nor goes on.
    async fn scale_only(mut self) -> Result {
        plan::scale(&self.deployment, &mut self.fleet);
        self.apply_sizes().await?;
        if self.deployment.spec.paused {
            self.clean_up().await?;
        }
        self.write_status().await
    }

    async fn roll(mut self) -> Result {
        self.ensure_new_set().await?;
        let changed = plan::grow_new(&self.deployment, &mut self.fleet)
            || plan::shrink_old(&self.deployment, &mut self.fleet);
        self.apply_sizes().await?;
        if !changed && status::is_complete(&self.deployment, &self.deployment.status) {
            self.clean_up().await?;
        }
        self.write_progress().await
    }

    async fn recreate(mut self) -> Result {
        if plan::stop_old(&mut self.fleet) {
            self.apply_sizes().await?;
            return self.write_progress().await;
        }
        if self.old_pods_run() {
            return self.write_progress().await;
        }
        self.ensure_new_set().await?;
        plan::fill_new(&self.deployment, &mut self.fleet);
        self.apply_sizes().await?;
        if status::is_complete(&self.deployment, &self.deployment.status) {
            self.clean_up().await?;
        }
        self.write_progress().await
    }

    /// Any pod of an old ReplicaSet that is not done.
    fn old_pods_run(&self) -> bool {
        let counted = self.fleet.old.iter().any(|set| set.view.status.replicas > 0);
        let pods = self
            .fleet
            .old
            .iter()
            .flat_map(|set| self.controller.pods.by_index(ownership::BY_OWNER, set.object.uid()));
        counted || pods.filter_map(|pod| pod.view::<Pod>().ok()).any(|pod| !pod.is_terminal())
    }

    /// Brings the new ReplicaSet's annotations, and the Deployment's revision, up to date.
    async fn sync_revisions(&mut self) -> Result<(), Error> {
        let number = revision::newest(self.fleet.old.iter()) + 1;
        let Some(set) = &mut self.fleet.new else { return Ok(()) };
        revision::annotate(&self.deployment, &mut set.annotations, number, true);
        set.min_ready_seconds = self.deployment.spec.min_ready_seconds;
        if set.is_changed() {
            self.controller.update_set(self.key, set).await?;
        }
        let revision = set.annotations.get(revision::REVISION).cloned().unwrap_or_default();
        status::note_found(&self.deployment, &mut self.conditions, set.object.name(), self.now);
        self.write_revision(&revision).await
    }

    /// Makes the ReplicaSet of the present template unless there is one.
    async fn ensure_new_set(&mut self) -> Result<(), Error> {
        if self.fleet.new.is_some() {
            return Ok(());
        }
        let number = revision::newest(self.fleet.old.iter()) + 1;
        let replicas = plan::new_replicas(&self.deployment, self.fleet.total(), 0);
        let name = new_set::name(&self.object, &self.deployment);
        let tree = new_set::tree(&self.object, &self.deployment, &name, replicas, number);
        let (controller, namespace) = (self.controller, self.object.namespace().to_owned());
        let created =
            match controller.api.create(&REPLICA_SETS, &namespace, tree, &WriteOptions::default()).await {
                Ok(object) => {
                    self.announce_new_set(&object, replicas);
                    object
                }
                Err(status) if status.is_already_exists() => self.existing_set(&name).await?,
                Err(status) if ownership::is_namespace_terminating(&status) => {
                    return Err(Error::Stalled { reason: status.message });
                }
                Err(status) => return Err(self.creation_failed(&name, status).await),
            };
        controller.expectations.written(self.key, created.revision());
        self.fleet.new = Some(Set::read(created)?);
        self.write_revision(&number.to_string()).await
    }

    fn announce_new_set(&mut self, set: &Object, replicas: i32) {
        status::note_created(&self.deployment, &mut self.conditions, set.name(), self.now);
        if replicas > 0 {
            let message = format!("Scaled up replica set {} from 0 to {replicas}", set.name());
            self.controller.recorder.normal(&Reference::of(&self.object), "ScalingReplicaSet", message);
        }
    }

    /// The name is taken: by our own ReplicaSet, which the cache lacks, or by a hash collision.
    async fn existing_set(&mut self, name: &str) -> Result<Arc<Object>, Error> {
        let existing = self.controller.api.get(&REPLICA_SETS, self.object.namespace(), name).await?;
        let template = view::<ReplicaSet>(&existing)?;
        let ours = ownership::is_controlled_by(&existing, self.object.uid())
            && template.spec.template.equal_ignoring_hash(&self.deployment.spec.template);
        if ours {
            return Ok(existing);
        }
        let collisions = self.deployment.status.collision_count.unwrap_or_default() + 1;
        let mut tree = self.object.to_value();
        tree.set_at(&["status", "collisionCount"], collisions);
        self.controller.write(&self.object, Some("status"), tree).await?;
        Err(Error::failed(format!("replica set {name} is another's; its name is made anew")))
    }

    async fn creation_failed(&mut self, name: &str, failure: Status) -> Error {
        let message = format!("Failed to create new replica set {name:?}: {failure}");
        status::note_creation_failed(&self.deployment, &mut self.conditions, &message, self.now);
        self.controller.recorder.warning(&Reference::of(&self.object), "ReplicaSetCreateError", message);
        let mut tree = self.object.to_value();
        status::write_conditions(&mut tree, &self.conditions);
        // The creation's failure is the one that counts; this one shows again with the next try.
        let _ = self.controller.write(&self.object, Some("status"), tree).await;
        failure.into()
    }

    /// The Deployment carries the revision of its new ReplicaSet.
    async fn write_revision(&mut self, number: &str) -> Result<(), Error> {
        let own = self.deployment.metadata.annotations.get(revision::REVISION);
        if number.is_empty() || own.is_some_and(|own| own == number) {
            return Ok(());
        }
        let mut tree = self.object.to_value();
        tree.set_at(&["metadata", "annotations", revision::REVISION], number);
        self.object = self.controller.write(&self.object, None, tree).await?;
        Ok(())
    }

    async fn apply_sizes(&mut self) -> Result<(), Error> {
        let regarding = Reference::of(&self.object);
        for set in self.fleet.old.iter_mut().chain(&mut self.fleet.new) {
            revision::annotate_sizes(&self.deployment, set);
            if !set.is_changed() {
                continue;
            }
            let (before, after) = (set.actual_replicas(), set.replicas);
            self.controller.update_set(self.key, set).await?;
            if before != after {
                let direction = if after > before { "up" } else { "down" };
                let name = set.object.name();
                let message = format!("Scaled {direction} replica set {name} from {before} to {after}");
                self.controller.recorder.normal(&regarding, "ScalingReplicaSet", message);
            }
        }
        Ok(())
    }

    /// Deletes old ReplicaSets beyond `revisionHistoryLimit`.
    async fn clean_up(&mut self) -> Result<(), Error> {
        for set in plan::beyond_history(&self.deployment, &self.fleet.old) {
            let options = DeleteOptions::of(&set.object);
            let (namespace, name) = (set.object.namespace(), set.object.name());
            match self.controller.api.delete(&REPLICA_SETS, namespace, name, &options).await {
                Err(status) if !status.is_not_found() => return Err(status.into()),
                _ => {}
            }
        }
        Ok(())
    }

    async fn write_status(self) -> Result {
        let wanted =
            status::calculate(&self.deployment, &self.object, &self.fleet, self.conditions.clone(), self.now);
        self.commit(wanted).await?;
        Ok(Action::await_change())
    }

    /// As [`Sync::write_status`], with the conditions about the rollout's progress.
    async fn write_progress(self) -> Result {
        let calculated =
            status::calculate(&self.deployment, &self.object, &self.fleet, self.conditions.clone(), self.now);
        let wanted =
            status::progress(&self.deployment, &self.fleet, calculated, self.object.name(), self.now);
        let next = status::next_check(&self.deployment, &wanted, self.now);
        self.commit(wanted).await?;
        Ok(next)
    }

    async fn commit(&self, wanted: api::view::DeploymentStatus) -> Result<(), Error> {
        if wanted == self.deployment.status {
            return Ok(());
        }
        let mut tree = self.object.to_value();
        status::write(&mut tree, &wanted);
        match self.controller.write(&self.object, Some("status"), tree).await {
            Err(status) if !status.is_not_found() => Err(status.into()),
            _ => Ok(()),
        }
    }
}

impl Controller {
    async fn update_set(&self, key: &ObjectKey, set: &mut Set) -> Result<(), Error> {
        let (namespace, name) = (set.object.namespace(), set.object.name());
        let options = WriteOptions::default();
        let updated = self.api.update(&REPLICA_SETS, namespace, name, None, set.to_value(), &options).await?;
        self.expectations.written(key, updated.revision());
        set.updated(updated)?;
        Ok(())
    }
}
