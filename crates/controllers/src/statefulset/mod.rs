//! The StatefulSet controller: pods with a place each, a name and claims that stay with it.
//!
//! ```text
//!     StatefulSet ──> its history ──> current and update revision
//!     pods, orphans ──> claim ──> places, and pods out of range
//!        ├─ deleting ────> status only
//!        ├─ places ──────> create | replace | wait | set right, with the claims
//!        ├─ out of range ─> delete, the highest first
//!        └─ all in place ─> delete the highest outdated pod (RollingUpdate)
//!     ──> status ──> truncate the history
//! ```
//!
//! An ordered set (`OrderedReady`) takes one step per reconcile and waits for each pod; a parallel one takes them all.
//!
//! Start at [`Controller::sync`]. Decisions are pure: [`plan`] (pods), [`revision`] (history), [`retention`] (owners of
//! claims), [`status`]; the claims are made in [`claims`]. Behaviour, reasons and messages are upstream's, with
//! the gate `MaxUnavailableStatefulSet` off as it is by default: one pod at a time is updated.

mod claims;
mod plan;
mod retention;
mod revision;
mod status;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::sync::Arc;

use api::gvr::{CONTROLLER_REVISIONS, PERSISTENT_VOLUME_CLAIMS, PODS, STATEFUL_SETS};
use api::view::{Pod, StatefulSet};
use apimachinery::{Object, Selector, Status};
use async_trait::async_trait;
use client::events::Reference;
use client::typed::view;
use client::{Api, DeleteOptions, Delta, Informer, ObjectKey, Recorder, WriteOptions};
use controller_runtime::controller::boxed;
use controller_runtime::{Action, Context, ControllerDescriptor, Error, Expectations, Reconcile, Result};
use futures::future::BoxFuture;
use jiff::Timestamp;

use crate::history::{History, Strays};
use crate::ownership::{self, Family, Parent};
use crate::pod_control::run_doubling;
use crate::{Options, pods};
use plan::{Fate, Fleet, Member, Place, Revisions, Step};

const NAME: &str = "statefulset-controller";

pub fn descriptor() -> ControllerDescriptor<Options> {
    ControllerDescriptor { name: NAME, service_account: NAME, event_source: NAME, workers: 5, start }
}

fn start(context: Context<Options>) -> BoxFuture<'static, ()> {
    let informers = &context.informers;
    let (sets, pods) = (informers.of(&STATEFUL_SETS), informers.of(&PODS));
    let (claims, revisions) = (informers.of(&PERSISTENT_VOLUME_CLAIMS), informers.of(&CONTROLLER_REVISIONS));
    ownership::index_by_owner(&pods);
    ownership::index_orphans(&pods);
    let reconciler = Arc::new(Controller {
        api: context.api.clone(),
        recorder: context.recorder.clone(),
        history: History::new(context.api.clone(), revisions.clone()),
        sets: Watched::new(&sets),
        pods: Watched::new(&pods),
        claims: Watched::new(&claims),
        revisions: Watched::new(&revisions),
    });
    let controller = controller_runtime::Controller::new(&context, reconciler)
        .for_kind(&sets)
        .owns(&pods, "apps", "StatefulSet")
        .owns(&revisions, "apps", "StatefulSet")
        .watches(&pods, {
            let sets = sets.clone();
            move |delta, keys| ownership::wake_adopters(&sets, delta, keys, selector_of)
        })
        .watches(&claims, move |delta, keys| wake_mounters(&sets, delta, keys));
    boxed(controller.run())
}

fn selector_of(object: &Object) -> Option<Selector> {
    object.view::<StatefulSet>().ok()?.spec.selector.selector().ok()
}

/// A claim that is made, or gone, is what a set may have waited for; it is known by its name.
fn wake_mounters(sets: &Informer, delta: &Delta, keys: &mut Vec<ObjectKey>) {
    let claim = match delta {
        Delta::Upsert { new, .. } => new,
        Delta::Delete { old } => old,
        Delta::Resync => return,
    };
    for (template, name) in plan::sets_of_claim(claim.name()) {
        let Some(set) = sets.get(claim.namespace(), name) else { continue };
        if set.view::<StatefulSet>().is_ok_and(|set| plan::has_claim_template(&set, template)) {
            keys.push(ObjectKey::from(&*set));
        }
    }
}

/// An informer, and what was written for a set and is to show in it.
struct Watched {
    informer: Arc<Informer>,
    expectations: Expectations<ObjectKey>,
}

struct Controller {
    api: Arc<dyn Api>,
    recorder: Recorder,
    history: History,
    sets: Watched,
    pods: Watched,
    claims: Watched,
    revisions: Watched,
}

/// One reconcile of one StatefulSet.
struct Sync<'a> {
    controller: &'a Controller,
    key: &'a ObjectKey,
    object: &'a Arc<Object>,
    set: &'a StatefulSet,
    revisions: &'a Revisions,
    fleet: &'a Fleet,
    reference: Reference,
    now: Timestamp,
}

/// In an ordered set, [`ControlFlow::Break`] ends the reconcile's steps.
type Flow = Result<ControlFlow<()>, Error>;

const GO_ON: Flow = Ok(ControlFlow::Continue(()));
const STOP: Flow = Ok(ControlFlow::Break(()));

#[async_trait]
impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result {
        let watched = [&self.sets, &self.pods, &self.claims, &self.revisions];
        match self.sets.informer.get(&key.namespace, &key.name) {
            None => {
                watched.iter().for_each(|own| own.expectations.forget(key));
                Ok(Action::await_change())
            }
            // The cache lacks our own last write, whose event brings the key back.
            Some(_) if !watched.iter().all(|own| own.is_current(key)) => Ok(Action::await_change()),
            Some(object) => self.sync(key, &object).await,
        }
    }
}

// === impl Watched ===

impl Watched {
    fn new(informer: &Arc<Informer>) -> Self {
        Self { informer: informer.clone(), expectations: Expectations::default() }
    }

    fn is_current(&self, key: &ObjectKey) -> bool {
        self.expectations.met(key, &self.informer)
    }
}

// === impl Controller ===

impl Controller {
    async fn sync(&self, key: &ObjectKey, object: &Arc<Object>) -> Result {
        let set = view::<StatefulSet>(object)?;
        let selector =
            set.spec.selector.selector().map_err(|error| Error::Stalled { reason: error.to_string() })?;
        let parent = Parent { object, selector: &selector };
        let history = self.history.claim(&parent, &STATEFUL_SETS, Strays::Ignored).await?;
        let members = self.members(key, &parent).await?;
        let (revisions, collisions) = revision::settle(&self.history, object, &set, &history).await?;
        // Only the events of those that the set owns bring it back.
        let all = history.iter().chain([&revisions.update]);
        let own = all.filter(|own| ownership::is_controlled_by(&own.object, object.uid()));
        let written = own.map(|own| own.object.revision()).max().unwrap_or_default();
        self.revisions.expectations.written(key, written);

        let now = rt::now();
        let fleet = Fleet::of(&set, members, now);
        let reference = Reference::of(object);
        let sync = Sync {
            controller: self,
            key,
            object,
            set: &set,
            revisions: &revisions,
            fleet: &fleet,
            reference,
            now,
        };
        let mut wanted = status::calculate(&set, &fleet, &revisions, collisions, now);
        let managed = sync.manage().await;
        if let Ok(Some(_)) = managed {
            wanted.current_replicas -= 1;
        }
        status::complete(&set, &mut wanted);
        let written = self.write_status(key, object, &set, &wanted).await;
        let truncated = self.truncate(&set, &history, &revisions, &fleet).await;
        managed?;
        written?;
        truncated?;
        let members = fleet.members().map(|member| &*member.pod);
        Ok(pods::next_availability(members, set.spec.min_ready_seconds, now))
    }

    /// The set's pods: selected, controlled by it, and named for it.
    async fn members(&self, key: &ObjectKey, parent: &Parent<'_>) -> Result<Vec<Member>, Error> {
        let name = parent.object.name();
        let family = Family {
            deletions: Some(&self.pods.expectations),
            is_named: |set, pod| plan::ordinal_of(set, pod).is_some(),
            ..Family::new(&*self.api, STATEFUL_SETS, &self.pods.informer)
        };
        let owned = family.claim(parent).await?.children;
        let member = |object: Arc<Object>| -> Option<Result<Member, Status>> {
            let ordinal = plan::ordinal_of(name, object.name())?;
            let is_deleting = object.is_deleting() || self.pods.expectations.is_deleted(key, object.uid());
            Some(view::<Pod>(&object).map(|pod| Member { ordinal, is_deleting, pod, object }))
        };
        Ok(owned.into_iter().filter_map(member).collect::<Result<_, Status>>()?)
    }

    async fn write_status(
        &self,
        key: &ObjectKey,
        object: &Object,
        set: &StatefulSet,
        wanted: &api::view::StatefulSetStatus,
    ) -> Result<(), Error> {
        if !status::is_news(&set.status, wanted) {
            return Ok(());
        }
        let mut tree = object.to_value();
        status::write(&mut tree, wanted);
        let (namespace, name) = (object.namespace(), object.name());
        let options = WriteOptions::default();
        match self.api.update(&STATEFUL_SETS, namespace, name, Some("status"), tree, &options).await {
            Ok(updated) => self.sets.expectations.written(key, updated.revision()),
            Err(status) if status.is_not_found() => {}
            Err(status) => return Err(status.into()),
        }
        Ok(())
    }

    async fn truncate(
        &self,
        set: &StatefulSet,
        history: &[crate::history::Revision],
        revisions: &Revisions,
        fleet: &Fleet,
    ) -> Result<(), Error> {
        for revision in plan::beyond_history(set, history, revisions, fleet) {
            self.history.delete(revision).await?;
        }
        Ok(())
    }
}

// === impl Sync ===

impl Sync<'_> {
    /// Takes the steps that are due, and returns the pod that was deleted for the update, if one was.
    async fn manage(&self) -> Result<Option<&Member>, Error> {
        if self.object.is_deleting() {
            return Ok(None);
        }
        let (places, condemned) = (&self.fleet.places, &self.fleet.condemned);
        if self.for_each(places, |place| self.tend_place(place)).await?.is_break()
            || self.for_each(condemned, |member| self.retain_claims(member)).await?.is_break()
            || self.for_each(condemned, |member| self.condemn(member)).await?.is_break()
        {
            return Ok(None);
        }
        let outdated = plan::outdated(self.set, self.fleet, self.revisions.update.name(), self.now);
        if let Some(member) = outdated {
            self.delete_pod(member).await?;
        }
        Ok(outdated)
    }

    /// One after the other until one says stop, or all of them.
    async fn for_each<'i, T, F: Future<Output = Flow>>(
        &self,
        items: &'i [T],
        step: impl Fn(&'i T) -> F,
    ) -> Flow {
        if !plan::is_ordered(self.set) {
            let all = run_doubling(items.iter(), |item| {
                let step = step(item);
                async move { step.await.map(drop) }
            });
            return all.await.failure.map_or(GO_ON, Err);
        }
        for item in items {
            if step(item).await?.is_break() {
                return STOP;
            }
        }
        GO_ON
    }

    async fn tend_place(&self, place: &Place) -> Flow {
        match plan::step(self.set, place, self.now) {
            Step::Create => self.create_pod(place.ordinal).await,
            Step::Vacate => STOP,
            Step::Replace(member) => {
                self.delete_pod(member).await?;
                STOP
            }
            Step::Keep { member, is_good } => {
                if member.pod.status.phase == "Pending" {
                    self.restore_claims(member).await?;
                }
                if plan::is_ordered(self.set) && (member.is_deleting || !is_good) {
                    return STOP;
                }
                self.set_right(member).await
            }
        }
    }

    async fn condemn(&self, member: &Member) -> Flow {
        match plan::fate(self.set, self.fleet, member, self.now) {
            Fate::Wait => STOP,
            Fate::Going => GO_ON,
            Fate::Delete => {
                self.delete_pod(member).await?;
                STOP
            }
        }
    }

    /// The pod of a place, after its claims.
    async fn create_pod(&self, ordinal: i32) -> Flow {
        if self.has_claims_of_earlier_pod(ordinal) {
            return STOP;
        }
        let revision = plan::revision_for(self.set, self.revisions, ordinal);
        let tree = plan::pod_of(self.object, self.set, revision, ordinal);
        let name = tree.str_at(&["metadata", "name"]).to_owned();
        if let Err(error) = self.create_claims(ordinal, &name).await {
            self.failed("Create", &name, &error);
            return Err(error);
        }
        let (api, options) = (&self.controller.api, WriteOptions::default());
        let pod = match api.create(&PODS, self.object.namespace(), tree, &options).await {
            Ok(pod) => pod,
            // Somebody else's, or one that the cache does not show yet.
            Err(status) if status.is_already_exists() => return Err(status.into()),
            Err(status) if ownership::is_namespace_terminating(&status) => {
                return Err(Error::Stalled { reason: status.message });
            }
            Err(status) => {
                let error = status.into();
                self.failed("Create", &name, &error);
                return Err(error);
            }
        };
        self.controller.pods.expectations.written(self.key, pod.revision());
        let retained = self.retain(ordinal, pod.name(), pod.uid()).await;
        retained.inspect_err(|error| self.failed("Update", &name, error))?;
        self.succeeded("Create", &name);
        STOP
    }

    async fn delete_pod(&self, member: &Member) -> Result<(), Error> {
        let object = &member.object;
        let options = DeleteOptions::of(object);
        let deleted = self.controller.api.delete(&PODS, object.namespace(), object.name(), &options).await;
        match deleted {
            Err(status) if !status.is_not_found() && !status.is_conflict() => {
                let error = status.into();
                self.failed("Delete", object.name(), &error);
                Err(error)
            }
            deleted => {
                // Gone, or another pod of its name: either way this one is no more.
                self.controller.pods.expectations.deleted(self.key, object.uid());
                if deleted.is_ok() {
                    self.succeeded("Delete", object.name());
                }
                Ok(())
            }
        }
    }

    /// The pod gets the labels and volumes of its place, and its claims their owners.
    async fn set_right(&self, member: &Member) -> Flow {
        let name = self.object.name();
        let has_identity = plan::has_identity(name, member);
        let has_storage = plan::has_storage(name, self.set, member);
        let are_retained = self.are_retained(member);
        if has_identity && has_storage && are_retained {
            return GO_ON;
        }
        let updated = self.update_pod(member, has_storage, are_retained).await;
        match updated {
            Err(Error::Api(status)) if status.is_conflict() => Err(status.into()),
            Err(error) => {
                self.failed("Update", member.object.name(), &error);
                Err(error)
            }
            Ok(()) => {
                self.succeeded("Update", member.object.name());
                GO_ON
            }
        }
    }

    async fn update_pod(&self, member: &Member, has_storage: bool, are_retained: bool) -> Result<(), Error> {
        let (object, name) = (&member.object, self.object.name());
        let mut tree = object.to_value();
        plan::set_identity(&mut tree, name, member.ordinal);
        if !has_storage {
            plan::set_storage(&mut tree, name, self.set, member.ordinal);
            self.create_claims(member.ordinal, object.name()).await?;
        }
        if !are_retained {
            self.retain(member.ordinal, object.name(), object.uid()).await?;
        }
        let (api, options) = (&self.controller.api, WriteOptions::default());
        let updated = api.update(&PODS, object.namespace(), object.name(), None, tree, &options).await?;
        self.controller.pods.expectations.written(self.key, updated.revision());
        Ok(())
    }

    fn succeeded(&self, verb: &str, pod: &str) {
        let message = format!("{verb} Pod {pod} in StatefulSet {} successful", self.object.name());
        self.controller.recorder.normal(&self.reference, &format!("Successful{verb}"), message);
    }

    fn failed(&self, verb: &str, pod: &str, error: &Error) {
        let message = format!("{verb} Pod {pod} in StatefulSet {} failed error: {error}", self.object.name());
        self.controller.recorder.warning(&self.reference, &format!("Failed{verb}"), message);
    }
}
