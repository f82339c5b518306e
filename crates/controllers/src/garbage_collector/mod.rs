//! The garbage collector: deletes what has no owner left, and holds owners back or lets dependents go as finalizers
//! ask.
//!
//! Upstream keeps a graph of all objects. Here the informers are the graph: every resource's store has an index by
//! owner uid, so the dependents of an object are one look-up per resource, and nothing is kept twice.
//!
//! ```text
//!     object gone ───────────────> its dependents ─┐
//!     object's owners changed ───> itself ─────────┼─> queue ─> decide ─> delete | drop references | wait
//!     foreground or orphan asked > itself ─────────┤
//!     dependent of a waiting owner gone > owner ───┘
//! ```
//!
//! Start at [`Controller::collect`]; [`plan`] decides, [`resources`] knows what is served. Only metadata is read.
//!
//! **Invariant (gc-live-check):** an owner counts as absent only if its own deletion was seen, or the API said so.

mod gone;
mod plan;
mod resources;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use apimachinery::object::OwnerReference;
use apimachinery::{GroupVersionResource, Object, Status, Str, Value, json};
use async_trait::async_trait;
use client::events::Reference;
use client::{Api, DeleteOptions, Delta, ObjectKey, Patch, Propagation, Recorder, WriteOptions};
use controller_runtime::controller::boxed;
use controller_runtime::{Action, Context, ControllerDescriptor, Error, Queue, Reconcile, Result};
use futures::StreamExt;
use futures::future::BoxFuture;

use crate::Options;
use gone::Gone;
use plan::{Decision, OwnerState};
use resources::Resources;

const NAME: &str = "garbage-collector-controller";

/// Finalizers by which a deletion asks for something to happen to dependents first.
const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// Dependents orphaned at the same time.
const CONCURRENT_MAX: usize = 64;

/// Tries of taking a finalizer away from an object that others change.
const FINALIZER_TRIES: u32 = 5;

pub fn descriptor() -> ControllerDescriptor<Options> {
    ControllerDescriptor {
        name: NAME,
        service_account: "generic-garbage-collector",
        event_source: NAME,
        workers: 20,
        start,
    }
}

fn start(context: Context<Options>) -> BoxFuture<'static, ()> {
    let reconciler = Arc::new(Controller {
        api: context.api.clone(),
        recorder: context.recorder.clone(),
        resources: Resources::new(context.informers.clone()),
        gone: Gone::default(),
    });
    let controller = controller_runtime::Controller::new(&context, reconciler.clone());
    let queue = controller.queue().clone();
    let shutdown = context.shutdown.clone();
    boxed(async move {
        let on_delta: resources::OnDelta = {
            let reconciler = reconciler.clone();
            Arc::new(move |resource, delta, keys| reconciler.observe(resource, delta, keys))
        };
        let follow = reconciler.resources.follow(reconciler.api.clone(), queue, on_delta, shutdown);
        futures::join!(controller.run(), follow);
    })
}

/// One incarnation of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Item {
    resource: Arc<GroupVersionResource>,
    key: ObjectKey,
    uid: Str,
}

impl Item {
    fn of(resource: &Arc<GroupVersionResource>, object: &Object) -> Self {
        Self { resource: resource.clone(), key: ObjectKey::from(object), uid: object.uid().into() }
    }
}

type ItemQueue = Queue<Item>;

struct Controller {
    api: Arc<dyn Api>,
    recorder: Recorder,
    resources: Resources,
    gone: Gone,
}

#[async_trait]
impl Reconcile for Controller {
    type Key = Item;

    async fn reconcile(&self, item: &Item) -> Result {
        let Some(object) = self.resources.cached(&item.resource, &item.key) else {
            return Ok(Action::await_change());
        };
        if object.uid() != item.uid {
            return Ok(Action::await_change());
        }
        if !object.is_deleting() {
            return self.collect(item, &object).await;
        }
        if has_finalizer(&object, ORPHAN) {
            return self.orphan_dependents(item, &object).await;
        }
        if is_deleting_dependents(&object) {
            return self.delete_dependents(item, &object).await;
        }
        Ok(Action::await_change())
    }
}

fn has_finalizer(object: &Object, finalizer: &str) -> bool {
    object.finalizers().any(|own| own == finalizer)
}

/// Waits, being deleted, for its dependents to go first.
fn is_deleting_dependents(object: &Object) -> bool {
    object.is_deleting() && has_finalizer(object, FOREGROUND)
}

// === What a change means ===

impl Controller {
    /// Keys of what a change of `resource` may concern.
    fn observe(&self, resource: &Arc<GroupVersionResource>, delta: &Delta, keys: &mut Vec<Item>) {
        match delta {
            Delta::Upsert { old, new } => self.observe_upsert(resource, old.as_deref(), new, keys),
            Delta::Delete { old } => {
                self.gone.insert(old.uid());
                keys.extend(self.dependents(old).map(|(resource, object)| Item::of(&resource, &object)));
                old.owners().for_each(|owner| self.wake_waiting_owner(old, &owner, keys));
            }
            Delta::Resync => {}
        }
    }

    fn observe_upsert(
        &self,
        resource: &Arc<GroupVersionResource>,
        old: Option<&Object>,
        new: &Object,
        keys: &mut Vec<Item>,
    ) {
        let asks = |object: &Object| {
            object.is_deleting() && (has_finalizer(object, ORPHAN) || has_finalizer(object, FOREGROUND))
        };
        if asks(new) && !old.is_some_and(asks) {
            keys.push(Item::of(resource, new));
        }
        if new.owners().len() == 0 && old.is_none_or(|old| old.owners().len() == 0) {
            return;
        }
        if let Some(old) = old {
            if old.owners().eq(new.owners()) {
                return;
            }
            // An owner that waits for this object may wait no longer.
            let kept = |owner: &OwnerReference<'_>| new.owners().any(|own| own == *owner);
            old.owners()
                .filter(|owner| !kept(owner))
                .for_each(|owner| self.wake_waiting_owner(old, &owner, keys));
        }
        if !new.is_deleting() && new.owners().any(|owner| !self.is_surely_solid(new, &owner)) {
            keys.push(Item::of(resource, new));
        }
    }

    /// The cache has the owner, and it is not waiting for dependents to go.
    fn is_surely_solid(&self, object: &Object, owner: &OwnerReference<'_>) -> bool {
        self.cached_owner(object, owner).is_some_and(|(_, owner)| !is_deleting_dependents(&owner))
    }

    fn wake_waiting_owner(&self, object: &Object, owner: &OwnerReference<'_>, keys: &mut Vec<Item>) {
        if let Some((resource, owner)) = self.cached_owner(object, owner)
            && is_deleting_dependents(&owner)
        {
            keys.push(Item::of(&resource, &owner));
        }
    }

    fn cached_owner(
        &self,
        object: &Object,
        reference: &OwnerReference<'_>,
    ) -> Option<(Arc<GroupVersionResource>, Arc<Object>)> {
        let kind = self.resources.kind(reference.api_version, reference.kind)?;
        let namespace = if kind.namespaced { object.namespace() } else { "" };
        let owner = kind.informer.as_ref()?.get(namespace, reference.name)?;
        (owner.uid() == reference.uid).then_some((kind.resource, owner))
    }

    /// Objects that name `owner` as an owner and may: those of its namespace, or all when it is cluster-scoped.
    fn dependents(
        &self,
        owner: &Object,
    ) -> impl Iterator<Item = (Arc<GroupVersionResource>, Arc<Object>)> + use<> {
        let namespace = Str::from(owner.namespace());
        let all = self.resources.dependents(owner.uid());
        all.into_iter().filter(move |(_, own)| namespace.is_empty() || own.namespace() == namespace)
    }
}

// === What is done about it ===

impl Controller {
    /// Deletes an object none of whose owners is left; takes away references to those that are not.
    async fn collect(&self, item: &Item, object: &Arc<Object>) -> Result {
        let mut states = Vec::new();
        for owner in object.owners() {
            let state = self.owner_state(object, &owner).await?;
            match state {
                OwnerState::UnknownKind => {
                    let reason =
                        format!("owner's kind {}, Kind={} is not served", owner.api_version, owner.kind);
                    // With back-off: a definition may have been made a moment ago, or never will be.
                    return Err(Error::failed(reason));
                }
                OwnerState::Misplaced => {
                    self.report_misplaced(object, &owner);
                    return Ok(Action::await_change());
                }
                _ => states.push((Str::from(owner.uid), state)),
            }
        }
        let dependents: Vec<_> = self.dependents(object).collect();
        let cycle = dependents.iter().any(|(_, own)| is_deleting_dependents(own));
        match plan::decide(&states, !dependents.is_empty(), object) {
            Decision::Keep => Ok(Action::await_change()),
            Decision::DropReferences(uids) => self.drop_references(item, object, &uids).await,
            Decision::Delete(propagation) => {
                if propagation == Propagation::Foreground && cycle {
                    // Each would wait for the other; this one stops blocking.
                    self.unblock_owners(item, object).await?;
                    return self.delete(item, None, propagation).await;
                }
                self.delete(item, Some(object.revision()), propagation).await
            }
        }
    }

    async fn owner_state(&self, object: &Object, owner: &OwnerReference<'_>) -> Result<OwnerState, Error> {
        if self.gone.contains(owner.uid) {
            return Ok(OwnerState::Absent);
        }
        let Some(kind) = self.resources.kind(owner.api_version, owner.kind) else {
            return Ok(OwnerState::UnknownKind);
        };
        if object.namespace().is_empty() && kind.namespaced {
            return Ok(OwnerState::Misplaced);
        }
        if let Some((_, found)) = self.cached_owner(object, owner) {
            return Ok(OwnerState::of(&found));
        }
        let namespace = if kind.namespaced { object.namespace() } else { "" };
        let found = self.api.find(&kind.resource, namespace, owner.name).await?;
        Ok(found
            .filter(|found| found.uid() == owner.uid)
            .map_or(OwnerState::Absent, |found| OwnerState::of(&found)))
    }

    fn report_misplaced(&self, object: &Object, owner: &OwnerReference<'_>) {
        let message = format!(
            "ownerRef [{}, name: {}, uid: {}] does not exist in namespace {:?}",
            qualified_kind(owner),
            owner.name,
            owner.uid,
            object.namespace()
        );
        self.recorder.warning(&Reference::of(object), "OwnerRefInvalidNamespace", message);
    }

    async fn delete(&self, item: &Item, revision: Option<u64>, propagation: Propagation) -> Result {
        let options = DeleteOptions {
            propagation: Some(propagation),
            uid: Some(item.uid.clone()),
            resource_version: revision,
            grace_period_seconds: None,
        };
        match self.api.delete(&item.resource, &item.key.namespace, &item.key.name, &options).await {
            Err(status) if !status.is_not_found() => Err(status.into()),
            _ => Ok(Action::await_change()),
        }
    }

    /// Waits for blocking dependents, and sees to it that they go.
    async fn delete_dependents(&self, item: &Item, object: &Arc<Object>) -> Result {
        let queue = self.resources.queue();
        let mut blocked = false;
        for (resource, dependent) in self.dependents(object) {
            let blocks = dependent.owners().any(|own| own.uid == item.uid && own.block_owner_deletion);
            blocked |= blocks;
            if !dependent.is_deleting() {
                queue.iter().for_each(|queue| queue.add(Item::of(&resource, &dependent)));
            }
        }
        if blocked {
            return Ok(Action::await_change());
        }
        self.remove_finalizer(item, FOREGROUND).await
    }

    async fn orphan_dependents(&self, item: &Item, object: &Arc<Object>) -> Result {
        let dependents: Vec<_> = self.dependents(object).collect();
        let uids = [item.uid.clone()];
        let patches: Vec<_> = dependents
            .iter()
            .map(|(resource, own)| self.patch_references_away(resource, own, &uids))
            .collect();
        let results: Vec<Result<(), Status>> =
            futures::stream::iter(patches).buffer_unordered(CONCURRENT_MAX).collect().await;
        results.into_iter().collect::<Result<(), Status>>()?;
        self.remove_finalizer(item, ORPHAN).await
    }

    async fn drop_references(&self, item: &Item, object: &Object, uids: &[Str]) -> Result {
        self.patch_references_away(&item.resource, object, uids).await?;
        Ok(Action::await_change())
    }

    async fn patch_references_away(
        &self,
        resource: &GroupVersionResource,
        object: &Object,
        uids: &[Str],
    ) -> Result<(), Status> {
        let deletions: Value =
            uids.iter().map(|uid| json!({"$patch": "delete", "uid": uid.as_str()})).collect();
        let keep = |own: &Value| !uids.iter().any(|uid| own.str_at(&["uid"]) == uid);
        self.patch_owners(resource, object, deletions, |owners| owners.retain(keep)).await
    }

    async fn unblock_owners(&self, item: &Item, object: &Object) -> Result<(), Status> {
        let unblocked: Value =
            object.owners().map(|own| json!({"uid": own.uid, "blockOwnerDeletion": false})).collect();
        self.patch_owners(&item.resource, object, unblocked, |owners| {
            owners.iter_mut().for_each(|own| own.set_at(&["blockOwnerDeletion"], false));
        })
        .await
    }

    /// Changes owner references by strategic merge patch; custom resources, which know none, get a merge patch of
    /// the whole list, conditional on the version it was made from.
    async fn patch_owners(
        &self,
        resource: &GroupVersionResource,
        object: &Object,
        strategic: Value,
        change: impl FnOnce(&mut Vec<Value>),
    ) -> Result<(), Status> {
        let (namespace, name, options) = (object.namespace(), object.name(), WriteOptions::default());
        let mut patch = json!({"metadata": {"uid": object.uid()}});
        patch.set_at(&["metadata", "ownerReferences"], strategic);
        let result = self.api.patch(resource, namespace, name, None, Patch::Strategic(patch), &options).await;
        let result = match result {
            Err(status) if status.code == 415 => {
                let fresh = self.api.get(resource, namespace, name).await?;
                let mut owners = fresh.to_value()["metadata"].array_at(&["ownerReferences"]).to_vec();
                change(&mut owners);
                let mut patch = json!({"metadata": {
                    "uid": object.uid(), "resourceVersion": fresh.revision().to_string(),
                }});
                patch.set_at(&["metadata", "ownerReferences"], owners);
                self.api.patch(resource, namespace, name, None, Patch::Merge(patch), &options).await
            }
            result => result,
        };
        match result {
            Err(status) if !status.is_not_found() => Err(status),
            _ => Ok(()),
        }
    }

    async fn remove_finalizer(&self, item: &Item, finalizer: &str) -> Result {
        let (namespace, name) = (item.key.namespace.as_str(), item.key.name.as_str());
        for last in (0..FINALIZER_TRIES).rev() {
            let Some(fresh) = self.api.find(&item.resource, namespace, name).await? else { break };
            if fresh.uid() != item.uid || !has_finalizer(&fresh, finalizer) {
                break;
            }
            let rest: Value = fresh.finalizers().filter(|own| *own != finalizer).map(Value::from).collect();
            let mut patch = json!({"metadata": {"resourceVersion": fresh.revision().to_string()}});
            patch.set_at(&["metadata", "finalizers"], rest);
            let options = WriteOptions::default();
            match self.api.patch(&item.resource, namespace, name, None, Patch::Merge(patch), &options).await {
                Err(status) if status.is_conflict() && last > 0 => {}
                Err(status) if !status.is_not_found() => return Err(status.into()),
                _ => break,
            }
        }
        Ok(Action::await_change())
    }
}

/// `apps/v1/Deployment`.
fn qualified_kind(owner: &OwnerReference<'_>) -> String {
    format!("{}/{}", owner.api_version, owner.kind)
}
