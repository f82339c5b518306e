//! The Job controller: runs pods until as many succeeded as wanted, or too many failed.
//!
//! ```text
//!     Job, its pods, orphans ──> claim ──> Tally ──> Verdict?
//!         ├─ over ───────> delete the active pods
//!         └─ not over ───> Change: create n | delete these | wait for the back-off ──> complete?
//!     ──> Account: write what is done ──> remove finalizers ──> write the counters, and at the end the condition
//! ```
//!
//! Start at [`Run::run`]. What is decided is in [`plan`], how pods are counted in [`tracking`]; [`policies`],
//! [`backoff`], [`indexes`] and [`removal`] are their parts. Behaviour, reasons and messages are upstream's.
//!
//! A reconcile begins only when the caches have every earlier write of this controller, so no pod is made or counted
//! twice. Upstream waits for a second to gather events of pods; here events are gathered while a reconcile writes.
//!
//! Pods whose Job is gone, or over, lose the finalizer all the same: each is a key of its own ([`Key::Orphan`]).

mod backoff;
mod indexes;
mod plan;
mod pod;
mod policies;
mod removal;
mod status;
#[cfg(test)]
mod tests;
mod tracking;

use std::sync::Arc;
use std::time::Duration;

use api::gvr::{JOBS, PODS};
use api::view::{Job, JobStatus};
use apimachinery::{Object, Selector, Status, Str, json, time};
use async_trait::async_trait;
use client::events::Reference;
use client::typed::view;
use client::{Delta, Informer, ObjectKey, Patch, WriteOptions};
use controller_runtime::controller::{boxed, owner_key};
use controller_runtime::{Action, Context, ControllerDescriptor, Error, Expectations, Reconcile, Result};
use futures::future::BoxFuture;
use jiff::Timestamp;

use crate::Options;
use crate::ownership::{self, Family, Parent};
use crate::pod_control::{self, PodControl};
use crate::pods::PodOf;
use backoff::Backoffs;
use plan::{Change, Tally, Verdict};
use tracking::Account;

const NAME: &str = "job-controller";

/// Keeps a pod of a Job until it is counted.
const TRACKING_FINALIZER: &str = "batch.kubernetes.io/job-tracking";

/// `spec.managedBy` of the Jobs that are ours; those without are, too.
const MANAGER: &str = "kubernetes.io/job-controller";

pub fn descriptor() -> ControllerDescriptor<Options> {
    ControllerDescriptor { name: NAME, service_account: NAME, event_source: NAME, workers: 5, start }
}

fn start(context: Context<Options>) -> BoxFuture<'static, ()> {
    let (jobs, pods) = (context.informers.of(&JOBS), context.informers.of(&PODS));
    ownership::index_by_owner(&pods);
    ownership::index_orphans(&pods);
    let reconciler = Arc::new(Controller {
        control: PodControl::new(context.api.clone(), context.recorder.clone()),
        jobs: jobs.clone(),
        pods: pods.clone(),
        statuses: Expectations::default(),
        backoffs: Backoffs::default(),
    });
    let controller = controller_runtime::Controller::new(&context, reconciler)
        .watches(&jobs, {
            let pods = pods.clone();
            move |delta, keys| wake_job(&pods, delta, keys)
        })
        .watches(&pods, move |delta, keys| wake_owner(&jobs, delta, keys));
    boxed(controller.run())
}

/// What is reconciled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Job(ObjectKey),
    /// A pod that may have the finalizer without a Job that will count it.
    Orphan(ObjectKey),
}

fn wake_job(pods: &Informer, delta: &Delta, keys: &mut Vec<Key>) {
    let (job, is_over) = match delta {
        Delta::Upsert { new, .. } => (new, new.view::<Job>().is_ok_and(|job| job.finished().is_some())),
        Delta::Delete { old } => (old, true),
        Delta::Resync => return,
    };
    keys.push(Key::Job(ObjectKey::from(&**job)));
    if is_over {
        let tracked = pods.by_index(ownership::BY_OWNER, job.uid()).into_iter().filter(|pod| is_tracked(pod));
        keys.extend(tracked.map(|pod| Key::Orphan(ObjectKey::from(&*pod))));
    }
}

fn wake_owner(jobs: &Informer, delta: &Delta, keys: &mut Vec<Key>) {
    let owner = |pod: &Object| owner_key(pod, "batch", "Job");
    let (old, new) = match delta {
        Delta::Upsert { old, new } => (old.as_ref(), Some(new)),
        Delta::Delete { old } => (Some(old), None),
        Delta::Resync => return,
    };
    let (was, is) = (old.and_then(|pod| owner(pod)), new.and_then(|pod| owner(pod)));
    keys.extend(was.iter().filter(|was| is.as_ref() != Some(was)).cloned().map(Key::Job));
    keys.extend(is.iter().cloned().map(Key::Job));
    if let Some(pod) =
        new.filter(|pod| is_tracked(pod) && job_of(jobs, pod).is_none_or(|job| is_done_with(&job)))
    {
        keys.push(Key::Orphan(ObjectKey::from(&**pod)));
    }
    let mut adopters = Vec::new();
    ownership::wake_adopters(jobs, delta, &mut adopters, |job| {
        job.view::<Job>().ok()?.spec.selector.selector().ok()
    });
    keys.extend(adopters.into_iter().map(Key::Job));
}

fn is_tracked(pod: &Object) -> bool {
    pod.finalizers().any(|finalizer| finalizer == TRACKING_FINALIZER)
}

/// The Job that a pod belongs to, from the cache.
fn job_of(jobs: &Informer, pod: &Object) -> Option<Arc<Object>> {
    let key = owner_key(pod, "batch", "Job")?;
    jobs.get(&key.namespace, &key.name).filter(|job| ownership::is_controlled_by(pod, job.uid()))
}

/// This Job counts no pods any more. One that another controller manages is that one's business.
fn is_done_with(job: &Object) -> bool {
    job.view::<Job>().is_ok_and(|job| is_managed(&job) && job.finished().is_some())
}

fn is_managed(job: &Job) -> bool {
    job.spec.managed_by.as_ref().is_none_or(|manager| manager == MANAGER)
}

struct Controller {
    control: PodControl,
    jobs: Arc<Informer>,
    pods: Arc<Informer>,
    /// Own writes of statuses that the cache has still to show.
    statuses: Expectations<ObjectKey>,
    backoffs: Backoffs,
}

#[async_trait]
impl Reconcile for Controller {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result {
        match key {
            Key::Job(key) => self.sync(key).await,
            Key::Orphan(key) => self.release_orphan(key).await,
        }
    }
}

// === impl Controller ===

impl Controller {
    async fn sync(&self, key: &ObjectKey) -> Result {
        let Some(object) = self.jobs.get(&key.namespace, &key.name) else {
            self.forget(key);
            return Ok(Action::await_change());
        };
        let job = view::<Job>(&object)?;
        if job.finished().is_some() {
            self.forget(key);
        }
        // What the cache lacks of our own writes comes with an event, which brings the key back.
        let is_current = self.statuses.met(key, &self.jobs) && self.control.expectations.met(key, &self.pods);
        if job.finished().is_some() || !is_managed(&job) || !is_current {
            return Ok(Action::await_change());
        }
        if !matches!(job.spec.completion_mode.as_str(), "" | "NonIndexed" | "Indexed") {
            let message = "Skipped Job sync because completion mode is unknown";
            self.control.recorder.warning(&Reference::of(&object), "UnknownCompletionMode", message);
            return Ok(Action::await_change());
        }
        let selector =
            job.spec.selector.selector().map_err(|error| Error::Stalled { reason: error.to_string() })?;
        let Some(pods) = self.claimed_pods(&object, &selector).await? else {
            return Ok(Action::await_change());
        };
        let tally = Tally::of(&job, &pods, self.backoffs.get(key));
        Run::new(self, key, &object, &tally).run().await
    }

    fn forget(&self, key: &ObjectKey) {
        self.control.expectations.forget(key);
        self.statuses.forget(key);
        self.backoffs.forget(key);
    }

    /// The pods of a Job; `None` while the cache still shows one as it was before we deleted it.
    async fn claimed_pods(&self, object: &Object, selector: &Selector) -> Result<Option<Vec<PodOf>>, Status> {
        let family = Family {
            deletions: Some(&self.control.expectations),
            finalizer: Some(TRACKING_FINALIZER),
            ..Family::new(&*self.control.api, JOBS, &self.pods)
        };
        let claimed = family.claim(&Parent { object, selector }).await?;
        let pods = claimed.children.into_iter().map(PodOf::read);
        claimed.is_current.then(|| pods.collect()).transpose()
    }

    /// Removes the finalizer of a pod that no Job will count.
    async fn release_orphan(&self, key: &ObjectKey) -> Result {
        let Some(pod) = self.pods.get(&key.namespace, &key.name).filter(|pod| is_tracked(pod)) else {
            return Ok(Action::await_change());
        };
        if !self.is_counted(&pod).await? {
            self.release(&pod).await?;
        }
        Ok(Action::await_change())
    }

    /// Somebody counts this pod, or will.
    async fn is_counted(&self, pod: &Object) -> Result<bool, Error> {
        let Some(owner) = owner_key(pod, "batch", "Job") else { return Ok(pod.controller_owner().is_some()) };
        if let Some(job) = job_of(&self.jobs, pod) {
            return Ok(!is_done_with(&job));
        }
        // The cache of pods may be ahead of that of Jobs.
        let job = self.control.api.find(&JOBS, &owner.namespace, &owner.name).await?;
        Ok(job.is_some_and(|job| ownership::is_controlled_by(pod, job.uid()) && !is_done_with(&job)))
    }

    /// Removes the tracking finalizer and says at which revision; a pod that is gone has none either.
    async fn release(&self, pod: &Object) -> Result<Option<u64>, Status> {
        let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": [TRACKING_FINALIZER]}});
        let (patch, options) = (Patch::Strategic(patch), WriteOptions::default());
        match self.control.api.patch(&PODS, pod.namespace(), pod.name(), None, patch, &options).await {
            Ok(released) => Ok(Some(released.revision())),
            Err(status) if status.is_not_found() => Ok(None),
            Err(status) => Err(status),
        }
    }

    /// Does so for a Job, whose next reconcile is to see it.
    async fn release_of(&self, job: &ObjectKey, pod: &Object) -> Result<(), Status> {
        if let Some(revision) = self.release(pod).await? {
            self.control.expectations.written(job, revision);
        }
        Ok(())
    }
}

/// One reconcile of one Job.
struct Run<'a> {
    controller: &'a Controller,
    key: &'a ObjectKey,
    reference: Reference,
    job: &'a Job,
    tally: &'a Tally<'a>,
    /// The newest state known, replaced by each write.
    object: Arc<Object>,
    /// The status as it is to be written, and as it was written last.
    status: JobStatus,
    written: JobStatus,
    active: usize,
    ready: usize,
    terminating: usize,
    now: Timestamp,
    /// When to look again without an event.
    wait: Option<Duration>,
}

// === impl Run ===

impl<'a> Run<'a> {
    fn new(
        controller: &'a Controller,
        key: &'a ObjectKey,
        object: &Arc<Object>,
        tally: &'a Tally<'a>,
    ) -> Self {
        let status = tally.job.status.clone();
        Self {
            controller,
            key,
            reference: Reference::of(object),
            job: tally.job,
            tally,
            object: object.clone(),
            written: status.clone(),
            status,
            active: tally.active.len(),
            ready: tally.ready,
            terminating: tally.terminating,
            now: rt::now(),
            wait: None,
        }
    }

    async fn run(mut self) -> Result {
        if self.status.start_time.is_none() && !self.job.spec.suspend {
            self.status.start_time = Some(self.timestamp());
        }
        let start = plan::start_time(&self.status);
        let mut verdict = Verdict::of(self.tally, start, self.now);
        let failure = if verdict.is_some() {
            let failure = self.delete_active().await;
            if self.active > 0 {
                // Not over yet: some of the pods are still there.
                verdict = None;
            }
            failure
        } else {
            self.wait_at_most(plan::until_deadline(self.job, start, self.now));
            let failure = self.manage().await;
            if self.tally.is_complete(self.active) {
                verdict = Some(Verdict::completed());
            } else if !self.is_deleting() {
                self.tell_whether_suspended();
            }
            failure
        };
        self.status.active = number(self.active);
        self.status.ready = Some(number(self.ready));
        self.status.terminating = Some(number(self.terminating));
        self.account(verdict).await?;
        match failure {
            Some(status) => Err(status.into()),
            None => Ok(self.wait.map_or(Action::await_change(), Action::requeue)),
        }
    }

    fn is_deleting(&self) -> bool {
        self.object.is_deleting()
    }

    fn timestamp(&self) -> Str {
        time::format_seconds(self.now).into()
    }

    fn wait_at_most(&mut self, wait: Option<Duration>) {
        self.wait = self.wait.into_iter().chain(wait).min();
    }

    /// Deletes the active pods of a Job that is over. They keep the finalizer until they are counted.
    async fn delete_active(&mut self) -> Option<Status> {
        let Self { controller, key, reference, tally, .. } = &*self;
        let deletes = tally.active.iter().map(|own| controller.control.delete(key, reference, &own.object));
        let outcome = pod_control::run_all(deletes.collect()).await;
        self.count_deleted(outcome.succeeded, &self.tally.active);
        outcome.failure
    }

    fn count_deleted(&mut self, count: usize, pods: &[PodOf]) {
        self.active -= count;
        self.terminating += count;
        self.ready -= pods.iter().filter(|own| own.pod.is_ready()).count().min(count);
    }

    async fn manage(&mut self) -> Option<Status> {
        if self.is_deleting() {
            return None;
        }
        match Change::of(self.tally, self.now) {
            Change::Nothing => None,
            Change::Wait(wait) => {
                self.wait_at_most(Some(wait));
                None
            }
            Change::Delete(victims) => self.delete(&victims).await,
            Change::Create(indexes) => self.create(indexes).await,
        }
    }

    /// Deletes pods that are not wanted any more. They fail nobody, so they lose the finalizer first.
    async fn delete(&mut self, victims: &[PodOf]) -> Option<Status> {
        let Self { controller, key, reference, .. } = &*self;
        let deletes = victims.iter().map(|own| async move {
            controller.release_of(key, &own.object).await?;
            controller.control.delete(key, reference, &own.object).await
        });
        let outcome = pod_control::run_all(deletes.collect()).await;
        self.count_deleted(outcome.succeeded, victims);
        outcome.failure
    }

    async fn create(&mut self, indexes: Vec<Option<u32>>) -> Option<Status> {
        let mold = pod::Mold::of(&self.object, self.job);
        let pods = indexes.into_iter().map(|index| match index {
            Some(index) => mold.pod_of_index(index, self.tally.replaced(index)),
            None => mold.pod(),
        });
        let outcome = self.controller.control.create_all(self.key, &self.reference, pods).await;
        self.active += outcome.succeeded;
        outcome.failure
    }

    /// The `Suspended` condition. The time of a Job begins anew when it resumes.
    fn tell_whether_suspended(&mut self) {
        let (status, reason, event, message) = if self.job.spec.suspend {
            ("True", "JobSuspended", "Suspended", "Job suspended")
        } else {
            ("False", "JobResumed", "Resumed", "Job resumed")
        };
        let condition = status::condition(status::SUSPENDED, status, reason, message, self.now);
        if status::ensure(&mut self.status.conditions, condition) {
            self.controller.control.recorder.normal(&self.reference, event, message);
            self.status.start_time = (!self.job.spec.suspend).then(|| self.timestamp());
        }
    }

    /// Counts the pods that are done, and ends the Job when there is a verdict and nothing more to count.
    async fn account(&mut self, verdict: Option<Verdict>) -> Result<(), Error> {
        let mut account = Account::open(self.tally, verdict.as_ref(), &mut self.status);
        if let Some(verdict) = &verdict {
            tracking::announce(&mut self.status, verdict, self.now);
        }
        if self.flush().await? {
            self.controller.backoffs.set(self.key, self.tally.backoff);
        }
        let failure = self.release(&mut account).await;
        account.settle(&mut self.status);
        if let Some(status) = failure {
            self.flush().await?;
            return Err(status.into());
        }
        let over = verdict
            .filter(|verdict| !account.is_full && tracking::finish(&mut self.status, verdict, self.now));
        self.flush().await?;
        if let Some(verdict) = over {
            self.tell_end(&verdict);
        }
        Ok(())
    }

    /// Removes finalizers; the uids of pods that lost it leave the account.
    async fn release(&self, account: &mut Account) -> Option<Status> {
        let Self { controller, key, .. } = self;
        let released = parking_lot::Mutex::new(Vec::new());
        let requests = account.release.iter().map(|own| {
            let released = &released;
            async move {
                controller.release_of(key, &own.object).await?;
                released.lock().push(own.pod.metadata.uid.clone());
                Ok(())
            }
        });
        let outcome = pod_control::run_all(requests.collect()).await;
        for uid in released.into_inner() {
            account.tracked.remove(&uid);
        }
        outcome.failure
    }

    /// Writes the status if it differs from what was written last; says whether it did.
    async fn flush(&mut self) -> Result<bool, Error> {
        if self.status == self.written {
            return Ok(false);
        }
        let mut tree = self.object.to_value();
        status::write(&mut tree, &self.status);
        let (api, options) = (&self.controller.control.api, WriteOptions::default());
        let (namespace, name) = (&self.key.namespace, &self.key.name);
        self.object = api.update(&JOBS, namespace, name, Some("status"), tree, &options).await?;
        self.controller.statuses.written(self.key, self.object.revision());
        self.written = self.status.clone();
        Ok(true)
    }

    fn tell_end(&self, verdict: &Verdict) {
        let recorder = &self.controller.control.recorder;
        if !verdict.success {
            return recorder.warning(&self.reference, &verdict.reason, verdict.message.as_str());
        }
        if self.job.spec.completions.is_some_and(|wanted| self.status.succeeded > wanted) {
            let message = "Too many succeeded pods running after completion count reached";
            recorder.warning(&self.reference, "TooManySucceededPods", message);
        }
        recorder.normal(&self.reference, "Completed", "Job completed");
    }
}

fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
