//! The DaemonSet controller: one pod on every node that the template may run on.
//!
//! ```text
//!     DaemonSet ──> its history ──> hash of the present template
//!     pods, orphans ──> claim ──> by node, those that no scheduler has seen by the node they are meant for
//!        ├─ every node ───> create | delete, failed pods with a back-off
//!        └─ all in place ─> RollingUpdate within maxUnavailable or maxSurge
//!     ──> clean up the history ──> status
//! ```
//!
//! A pod is aimed at its node by its affinity, and the scheduler binds it as any other.
//!
//! Start at [`Controller::sync`]. Decisions are pure: [`plan`] (nodes and pods) and [`status`]; [`revision`] keeps the
//! history, [`backoff`] remembers failures. Behaviour, reasons and messages are upstream's.

mod backoff;
mod plan;
mod revision;
mod status;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use api::gvr::{CONTROLLER_REVISIONS, DAEMON_SETS, NODES, PODS};
use api::view::{DaemonSet, DaemonSetStatus, Node, Pod};
use apimachinery::{Object, Selector, Status, Str};
use async_trait::async_trait;
use client::events::Reference;
use client::typed::view;
use client::{Api, Delta, Informer, ObjectKey, Recorder, WriteOptions};
use controller_runtime::controller::{boxed, owner_key};
use controller_runtime::{Action, Context, ControllerDescriptor, Error, Expectations, Reconcile, Result};
use futures::future::BoxFuture;

use crate::history::{History, REVISION_HASH};
use crate::ownership::{self, Family, Parent};
use crate::pod_control::{PodControl, run_all};
use crate::{Options, pods};
use backoff::FailedPods;
use plan::{ByNode, Change, Daemon, Member, Place, Placement};

const NAME: &str = "daemonset-controller";

/// Upstream's name of the account differs from that of the controller.
const SERVICE_ACCOUNT: &str = "daemon-set-controller";

/// Pods created, and pods deleted, by one reconcile; the rest follows with the next.
const BURST_MAX: usize = 250;

pub fn descriptor() -> ControllerDescriptor<Options> {
    ControllerDescriptor {
        name: NAME,
        service_account: SERVICE_ACCOUNT,
        event_source: NAME,
        workers: 2,
        start,
    }
}

fn start(context: Context<Options>) -> BoxFuture<'static, ()> {
    let informers = &context.informers;
    let (sets, pods) = (informers.of(&DAEMON_SETS), informers.of(&PODS));
    let (nodes, revisions) = (informers.of(&NODES), informers.of(&CONTROLLER_REVISIONS));
    ownership::index_by_owner(&pods);
    ownership::index_orphans(&pods);
    pods::index_by_node(&pods);
    let reconciler = Arc::new(Controller {
        api: context.api.clone(),
        recorder: context.recorder.clone(),
        control: PodControl::new(context.api.clone(), context.recorder.clone()),
        history: History::new(context.api.clone(), revisions.clone()),
        failed_pods: FailedPods::default(),
        statuses: Expectations::default(),
        sets: sets.clone(),
        pods: pods.clone(),
        nodes: nodes.clone(),
    });
    let wake_adopters = || {
        let sets = sets.clone();
        move |delta: &Delta, keys: &mut Vec<ObjectKey>| {
            ownership::wake_adopters(&sets, delta, keys, selector_of);
        }
    };
    let controller = controller_runtime::Controller::new(&context, reconciler)
        .for_kind(&sets)
        .owns(&pods, "apps", "DaemonSet")
        .watches(&pods, wake_adopters())
        .owns(&revisions, "apps", "DaemonSet")
        .watches(&revisions, wake_adopters())
        .watches(&nodes, {
            let mut placements = Placements::default();
            move |delta, keys| wake_daemons(&sets, &pods, &mut placements, delta, keys)
        });
    boxed(controller.run())
}

fn selector_of(object: &Object) -> Option<Selector> {
    object.view::<DaemonSet>().ok()?.spec.selector.selector().ok()
}

/// A node that comes, goes, or changes its labels or taints concerns the sets that want it now and did not have it, or
/// have it and may not. Heartbeats concern nobody.
fn wake_daemons(
    sets: &Informer,
    pods: &Informer,
    placements: &mut Placements,
    delta: &Delta,
    keys: &mut Vec<ObjectKey>,
) {
    let (node, is_gone) = match delta {
        Delta::Upsert { old: Some(old), new } if is_same_place(old, new) => return,
        Delta::Upsert { new, .. } => (new, false),
        Delta::Delete { old } => (old, true),
        Delta::Resync => return,
    };
    let Ok(typed) = node.view::<Node>() else { return };
    let there = pods.by_index(pods::BY_NODE, node.name());
    let with_pod: Vec<ObjectKey> =
        there.iter().filter_map(|pod| owner_key(pod, "apps", "DaemonSet")).collect();
    placements.bound(sets.len());
    sets.for_each(|object| {
        let Ok(set) = object.view::<DaemonSet>() else { return };
        let verdict = placements.of(object, &set).verdict(&typed);
        let key = ObjectKey::from(&**object);
        let has_pod = with_pod.contains(&key);
        let is_concerned = match (has_pod, is_gone) {
            (false, false) => verdict.should_run,
            (true, false) => !verdict.may_stay || set.status.number_misscheduled > 0,
            (_, true) => has_pod || verdict.should_run,
        };
        keys.extend(is_concerned.then_some(key));
    });
}

/// The placements of sets, by their uid and as of a version, for nodes that come and change many at a time.
#[derive(Default)]
struct Placements(HashMap<Str, (u64, Placement)>);

impl Placements {
    fn of(&mut self, object: &Object, set: &DaemonSet) -> &Placement {
        let version = object.revision();
        let own = self.0.entry(object.uid().into()).or_insert_with(|| (version, Placement::of(set)));
        if own.0 != version {
            *own = (version, Placement::of(set));
        }
        &own.1
    }

    /// Begins anew when there are some of sets that are gone.
    fn bound(&mut self, sets: usize) {
        if self.0.len() > sets {
            self.0.clear();
        }
    }
}

/// Nothing that decides about daemon pods differs.
fn is_same_place(old: &Object, new: &Object) -> bool {
    let taints = |node: &Object| node.view::<Node>().map(|node| node.spec.taints.clone()).ok();
    old.labels().eq(new.labels()) && taints(old) == taints(new)
}

struct Controller {
    api: Arc<dyn Api>,
    recorder: Recorder,
    control: PodControl,
    history: History,
    failed_pods: FailedPods,
    /// Own writes of statuses that the cache has still to show.
    statuses: Expectations<ObjectKey>,
    sets: Arc<Informer>,
    pods: Arc<Informer>,
    nodes: Arc<Informer>,
}

/// One reconcile of one DaemonSet.
struct Sync<'a> {
    controller: &'a Controller,
    key: &'a ObjectKey,
    object: &'a Arc<Object>,
    daemon: &'a Daemon<'a>,
    places: &'a [Place],
    pods: &'a ByNode,
    reference: Reference,
}

#[async_trait]
impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result {
        match self.sets.get(&key.namespace, &key.name) {
            None => {
                self.control.expectations.forget(key);
                self.statuses.forget(key);
                self.failed_pods.forget(key);
                Ok(Action::await_change())
            }
            // Nothing is told of its pods any more: its history may be gone already.
            Some(object) if object.is_deleting() => Ok(Action::await_change()),
            // A cache lacks our own last write, whose event brings the key back.
            Some(_) if !self.shows_own_writes(key) => Ok(Action::await_change()),
            Some(object) => self.sync(key, &object).await,
        }
    }
}

// === impl Controller ===

impl Controller {
    fn shows_own_writes(&self, key: &ObjectKey) -> bool {
        self.control.expectations.met(key, &self.pods) && self.statuses.met(key, &self.sets)
    }

    async fn sync(&self, key: &ObjectKey, object: &Arc<Object>) -> Result {
        let set = view::<DaemonSet>(object)?;
        let reference = Reference::of(object);
        if set.spec.selector.is_empty() {
            let message = "This daemon set is selecting all pods. A non-empty selector is required.";
            self.recorder.warning(&reference, "SelectingAll", message);
            return Ok(Action::await_change());
        }
        let selector =
            set.spec.selector.selector().map_err(|error| Error::Stalled { reason: error.to_string() })?;
        let parent = Parent { object, selector: &selector };
        let members = self.members(key, &parent).await?;
        let (current, old) = revision::settle(self, &parent, &set, &members).await?;

        let hash = current.object.label(REVISION_HASH).unwrap_or_default();
        let placement = Placement::of(&set);
        let daemon = Daemon { set: &set, placement, hash, now: rt::now() };
        let nodes = self.nodes.list().iter().map(|node| view(node)).collect::<Result<Vec<_>, Status>>()?;
        let (places, pods) = (daemon.places(nodes), plan::by_node(&members));
        let sync =
            Sync { controller: self, key, object, daemon: &daemon, places: &places, pods: &pods, reference };
        let updated = sync.update().await;
        let cleaned = match updated {
            Ok(_) => revision::clean_up(&self.history, &set, old, &members).await,
            Err(_) => Ok(()),
        };
        let written = sync.write_status().await;
        let failed_pods = updated?;
        written?;
        cleaned?;
        let running = members.iter().map(|own| &*own.pod);
        let availability = pods::next_availability(running, set.spec.min_ready_seconds, daemon.now);
        Ok(sooner(availability, failed_pods))
    }

    async fn members(&self, key: &ObjectKey, parent: &Parent<'_>) -> Result<Vec<Member>, Error> {
        let family = Family {
            deletions: Some(&self.control.expectations),
            ..Family::new(&*self.api, DAEMON_SETS, &self.pods)
        };
        let owned = family.claim(parent).await?.children;
        let member = |object: Arc<Object>| {
            let is_deleting = object.is_deleting() || self.control.expectations.is_deleted(key, object.uid());
            view::<Pod>(&object).map(|pod| Member { is_deleting, pod, object })
        };
        Ok(owned.into_iter().map(member).collect::<Result<_, Status>>()?)
    }
}

/// The earlier of an action and a wait.
fn sooner(action: Action, wait: Option<Duration>) -> Action {
    match (action, wait) {
        (Action::Requeue(first), Some(wait)) => Action::requeue(first.min(wait)),
        (Action::AwaitChange, Some(wait)) => Action::requeue(wait),
        (action, None) => action,
    }
}

// === impl Sync ===

impl Sync<'_> {
    /// Brings every node its pod, and goes on with the update when they all have it. Says when a failed pod may go.
    async fn update(&self) -> Result<Option<Duration>, Error> {
        let mut change = self.daemon.manage(self.places, self.pods);
        let wait = self.take_ended(&mut change);
        let is_settled = change.create.is_empty() && change.delete.is_empty();
        if !is_settled {
            self.apply(change).await?;
        } else if self.daemon.set.spec.update_strategy.type_ == "RollingUpdate" {
            let change = self.daemon.roll(self.places, self.pods).map_err(Error::Failed)?;
            self.apply(change).await?;
        }
        Ok(wait)
    }

    /// Pods that ended go; those that failed after a back-off, and the shortest of what is left of that is returned.
    fn take_ended(&self, change: &mut Change) -> Option<Duration> {
        let of = (self.object.uid(), self.daemon.set.status.observed_generation);
        let mut wait: Option<Duration> = None;
        for (node, member) in std::mem::take(&mut change.ended) {
            let (namespace, name) = (member.object.namespace(), member.object.name());
            let recorder = &self.controller.recorder;
            if member.pod.status.phase == "Succeeded" {
                let message = format!(
                    "Found succeeded daemon pod {namespace}/{name} on node {node}, will try to delete it"
                );
                recorder.normal(&self.reference, "SucceededDaemonPod", message);
            } else {
                let asked = self.controller.failed_pods.replace(self.key, of, &node, rt::instant());
                if let Err(left) = asked {
                    wait = Some(wait.map_or(left, |wait| wait.min(left)));
                    continue;
                }
                let message =
                    format!("Found failed daemon pod {namespace}/{name} on node {node}, will try to kill it");
                recorder.warning(&self.reference, "FailedDaemonPod", message);
            }
            change.delete.push(member);
        }
        wait
    }

    async fn apply(&self, change: Change) -> Result<(), Error> {
        let (control, key, parent) = (&self.controller.control, self.key, &self.reference);
        let pod = plan::pod_of(self.object, self.daemon.set, self.daemon.hash);
        let pods = change.create.iter().take(BURST_MAX).map(|node| plan::aim_at(pod.clone(), node));
        let created = control.create_all(key, parent, pods).await;
        let deletes = change.delete.iter().take(BURST_MAX);
        let deletes = deletes.map(|member| control.delete(key, parent, &member.object)).collect();
        let deleted = run_all(deletes).await;
        created.failure.or(deleted.failure).map_or(Ok(()), |status| Err(status.into()))
    }

    async fn write_status(&self) -> Result<(), Error> {
        let set = self.daemon.set;
        let wanted: DaemonSetStatus = status::calculate(self.daemon, self.places, self.pods);
        if wanted == set.status {
            return Ok(());
        }
        let mut tree = self.object.to_value();
        status::write(&mut tree, &wanted);
        let (namespace, name) = (self.object.namespace(), self.object.name());
        let (api, options) = (&self.controller.api, WriteOptions::default());
        match api.update(&DAEMON_SETS, namespace, name, Some("status"), tree, &options).await {
            Ok(written) => {
                self.controller.statuses.written(self.key, written.revision());
                Ok(())
            }
            Err(status) if status.is_not_found() => Ok(()),
            Err(status) => Err(status.into()),
        }
    }
}
