//! The CronJob controller: starts Jobs at the times of a schedule, and deletes old ones.
//!
//! ```text
//!     CronJob, its Jobs ──> delete what is too old ──> note what ended ──> due?
//!         ├─ not yet, or still active ──> look again at the next time
//!         └─ due ──> create the Job of that time ──> status ──> look again at the next time
//! ```
//!
//! Start at [`Run::run`]; what is due is decided in [`plan`], times come from [`due`]. Nothing polls: each CronJob is
//! looked at when its next time has come. Behaviour, reasons and messages are upstream's.

mod due;
mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use api::gvr::{CRON_JOBS, JOBS};
use api::view::{CronJob, CronJobStatus, Job, ObjectReference};
use apimachinery::field::go_quote;
use apimachinery::{Object, Status, Value, json, time};
use async_trait::async_trait;
use client::events::Reference;
use client::typed::view;
use client::{Api, DeleteOptions, Delta, Informer, ObjectKey, Propagation, Recorder, WriteOptions};
use controller_runtime::controller::boxed;
use controller_runtime::{
    Action, Context, ControllerDescriptor, Error, Expectations, Queue, Reconcile, Result,
};
use futures::future::BoxFuture;
use jiff::Timestamp;

use crate::Options;
use crate::ownership;
use crate::pods::timestamp;
use due::Timetable;
use plan::{Due, JobOf};

const NAME: &str = "cronjob-controller";

pub fn descriptor() -> ControllerDescriptor<Options> {
    ControllerDescriptor { name: NAME, service_account: NAME, event_source: NAME, workers: 5, start }
}

fn start(context: Context<Options>) -> BoxFuture<'static, ()> {
    let (crons, jobs) = (context.informers.of(&CRON_JOBS), context.informers.of(&JOBS));
    ownership::index_by_owner(&jobs);
    let reconciler = Arc::new(Controller {
        api: context.api.clone(),
        recorder: context.recorder.clone(),
        crons: crons.clone(),
        jobs: jobs.clone(),
        statuses: Expectations::default(),
        own_jobs: Expectations::default(),
    });
    let controller = controller_runtime::Controller::new(&context, reconciler);
    let (queue, recorder) = (controller.queue().clone(), context.recorder.clone());
    let controller = controller
        .watches(&crons, move |delta, keys| wake(&queue, &recorder, delta, keys))
        .owns(&jobs, "batch", "CronJob");
    boxed(controller.run())
}

/// A new schedule is not followed backwards: it is looked at when it is due next.
fn wake(queue: &Queue<ObjectKey>, recorder: &Recorder, delta: &Delta, keys: &mut Vec<ObjectKey>) {
    let (old, new) = match delta {
        Delta::Upsert { old, new } => (old.as_ref(), new),
        Delta::Delete { old } => (None, old),
        Delta::Resync => return,
    };
    let key = ObjectKey::from(&**new);
    let read = |object: &Arc<Object>| object.view::<CronJob>().ok();
    let (Some(before), Some(cron)) = (old.and_then(read), read(new)) else { return keys.push(key) };
    if before.spec.schedule == cron.spec.schedule && before.spec.time_zone == cron.spec.time_zone {
        return keys.push(key);
    }
    match Timetable::parse(&cron.spec.schedule, zone_of(&cron)) {
        Ok(timetable) => {
            let last = timestamp(cron.status.last_schedule_time.as_ref());
            if let Some(wait) = plan::next_look(&cron, last, &timetable, rt::now()) {
                queue.add_after(key, wait);
            }
        }
        Err(_) => {
            let message = format!("unparseable schedule for cronjob: {}", cron.spec.schedule);
            recorder.warning(&Reference::of(new), "UnParseableCronJobSchedule", message);
        }
    }
}

/// A zone in the schedule itself leaves none to `spec.timeZone`.
fn zone_of(cron: &CronJob) -> Option<&str> {
    cron.spec.time_zone.as_deref().filter(|_| !cron.spec.schedule.contains("TZ"))
}

struct Controller {
    api: Arc<dyn Api>,
    recorder: Recorder,
    crons: Arc<Informer>,
    jobs: Arc<Informer>,
    /// Own writes that the caches have still to show: of statuses, and of Jobs.
    statuses: Expectations<ObjectKey>,
    own_jobs: Expectations<ObjectKey>,
}

#[async_trait]
impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result {
        let Some(object) = self.crons.get(&key.namespace, &key.name) else {
            self.statuses.forget(key);
            self.own_jobs.forget(key);
            return Ok(Action::await_change());
        };
        let objects = self.jobs.by_index(ownership::BY_OWNER, object.uid()).into_iter();
        let own = objects.filter(|job| ownership::is_controlled_by(job, object.uid()));
        let jobs = own.map(|object| Ok(JobOf { job: view::<Job>(&object)?, object }));
        let jobs: Vec<JobOf> = jobs.collect::<Result<_, Status>>()?;
        let alive = jobs.iter().filter(|own| !own.object.is_deleting()).map(|own| own.object.uid());
        let is_current = self.own_jobs.settle(key, alive)
            && self.own_jobs.met(key, &self.jobs)
            && self.statuses.met(key, &self.crons);
        if !is_current {
            // What is missing comes with an event, which brings the key back.
            return Ok(Action::await_change());
        }
        let cron = view::<CronJob>(&object)?;
        let reference = Reference::of(&object);
        let status = cron.status.clone();
        Run { controller: self, key, object: &object, reference, cron: &cron, jobs, status, now: rt::now() }
            .run()
            .await
    }
}

/// One reconcile of one CronJob.
struct Run<'a> {
    controller: &'a Controller,
    key: &'a ObjectKey,
    object: &'a Arc<Object>,
    reference: Reference,
    cron: &'a CronJob,
    jobs: Vec<JobOf>,
    /// As it is to be written.
    status: CronJobStatus,
    now: Timestamp,
}

// === impl Run ===

impl Run<'_> {
    async fn run(mut self) -> Result {
        self.clean_history().await;
        let outcome = self.follow().await;
        // What was done is written also when the rest failed.
        self.write_status().await?;
        Ok(outcome?.map_or(Action::await_change(), Action::requeue))
    }

    async fn clean_history(&mut self) {
        for old in plan::superfluous(self.cron, &self.jobs) {
            if !old.object.is_deleting() {
                self.delete(&old.object).await;
            }
        }
    }

    /// Deletes a Job with its pods; says whether it is gone from the active ones.
    async fn delete(&mut self, job: &Object) -> bool {
        let propagation = Some(Propagation::Background);
        let options = DeleteOptions { propagation, ..DeleteOptions::of(job) };
        let Controller { api, own_jobs, .. } = self.controller;
        if let Err(status) = api.delete(&JOBS, job.namespace(), job.name(), &options).await {
            self.warn("FailedDelete", format!("Deleted job: {status}"));
            return false;
        }
        own_jobs.deleted(self.key, job.uid());
        self.status.active.retain(|own| own.uid != job.uid());
        self.tell("SuccessfulDelete", format!("Deleted job {}", job.name()));
        true
    }

    /// Brings the status up to date and starts what is due; says when to look again.
    async fn follow(&mut self) -> Result<Option<Duration>, Error> {
        self.note_jobs();
        self.forget_missing().await?;
        if self.object.is_deleting() {
            return Ok(None);
        }
        if let Some(zone) = self.cron.spec.time_zone.as_deref()
            && let Err(why) = due::time_zone(zone)
        {
            self.warn("UnknownTimeZone", format!("invalid timeZone: {}: {why}", go_quote(zone)));
            return Ok(None);
        }
        if self.cron.spec.suspend {
            return Ok(None);
        }
        match self.timetable() {
            Some(timetable) => self.start_due(&timetable).await,
            None => Ok(None),
        }
    }

    /// Notes which Jobs have ended since the last look.
    fn note_jobs(&mut self) {
        for JobOf { object, job } in self.jobs.clone() {
            let is_active = self.status.active.iter().any(|own| own.uid == object.uid());
            let Some(end) = job.finished() else {
                if !is_active {
                    let name = object.name();
                    let message = format!("Saw a job that the controller did not create or forgot: {name}");
                    self.warn("UnexpectedJob", message);
                }
                continue;
            };
            if is_active {
                self.status.active.retain(|own| own.uid != object.uid());
                let message = format!("Saw completed job: {}, condition: {}", object.name(), end.type_);
                self.tell("SawCompletedJob", message);
            }
            let completed = job.status.completion_time.as_ref().filter(|_| end.type_ == "Complete");
            if timestamp(completed) > timestamp(self.status.last_successful_time.as_ref()) {
                self.status.last_successful_time = completed.cloned();
            }
        }
    }

    /// Active Jobs that are gone, deleted by somebody.
    async fn forget_missing(&mut self) -> Result<(), Error> {
        for active in self.status.active.clone() {
            if self.jobs.iter().any(|own| own.object.uid() == active.uid) {
                continue;
            }
            let job = self.controller.api.find(&JOBS, &self.key.namespace, &active.name).await?;
            if job.is_none_or(|job| job.uid() != active.uid) {
                self.tell("MissingJob", format!("Active job went missing: {}", active.name));
                self.status.active.retain(|own| own.uid != active.uid);
            }
        }
        Ok(())
    }

    fn timetable(&self) -> Option<Timetable> {
        let schedule = &self.cron.spec.schedule;
        if schedule.contains("TZ") {
            let message = format!(
                "CRON_TZ or TZ used in schedule {} is not officially supported, see \
                 https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details",
                go_quote(schedule)
            );
            self.warn("UnsupportedSchedule", message);
        }
        match Timetable::parse(schedule, zone_of(self.cron)) {
            Ok(timetable) => Some(timetable),
            Err(why) => {
                let message = format!("unparseable schedule: {} : {why}", go_quote(schedule));
                self.warn("UnparseableSchedule", message);
                None
            }
        }
    }

    async fn start_due(&mut self, timetable: &Timetable) -> Result<Option<Duration>, Error> {
        let (due, missed_many) = plan::due(self.cron, &self.status.active, timetable, self.now);
        if missed_many {
            let message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check \
                           clock skew";
            self.warn("TooManyMissedTimes", message);
        }
        match due {
            Due::Nothing => {}
            Due::Invalid(why) => {
                self.warn(
                    "InvalidSchedule",
                    format!("invalid schedule: {} : {why}", self.cron.spec.schedule),
                );
                return Ok(None);
            }
            Due::AlreadyActive => {
                let message =
                    "Not starting job because prior execution is running and concurrency policy is Forbid";
                self.tell("JobAlreadyActive", message);
            }
            Due::Start { at, replace } => {
                if replace {
                    self.delete_active().await?;
                }
                self.start(at).await?;
            }
        }
        let last = timestamp(self.status.last_schedule_time.as_ref());
        Ok(plan::next_look(self.cron, last, timetable, self.now))
    }

    async fn delete_active(&mut self) -> Result<(), Error> {
        for active in self.status.active.clone() {
            let found = self.controller.api.get(&JOBS, &self.key.namespace, &active.name).await;
            let job = found.inspect_err(|status| self.warn("FailedGet", format!("Get job: {status}")))?;
            if !self.delete(&job).await {
                return Err(Error::failed(format!(
                    "could not replace job {}/{}",
                    job.namespace(),
                    job.name()
                )));
            }
        }
        Ok(())
    }

    /// Creates the Job of a time. One of its name that is ours was created before the status could say so.
    async fn start(&mut self, at: Timestamp) -> Result<(), Error> {
        let Controller { api, own_jobs, .. } = self.controller;
        let job = plan::job_of(self.object, self.cron, at).map_err(Error::failed)?;
        let name = plan::job_name(self.cron, at);
        let job = match api.create(&JOBS, &self.key.namespace, job, &WriteOptions::default()).await {
            Ok(job) => {
                self.tell("SuccessfulCreate", format!("Created job {}", job.name()));
                job
            }
            Err(status) if status.is_already_exists() => {
                let job = api.get(&JOBS, &self.key.namespace, &name).await?;
                let is_ours = ownership::is_controlled_by(&job, self.object.uid());
                if !is_ours || self.status.active.iter().any(|own| own.uid == job.uid()) {
                    return Ok(());
                }
                job
            }
            Err(status) => {
                if !ownership::is_namespace_terminating(&status) {
                    self.warn("FailedCreate", format!("Error creating job: {status}"));
                }
                return Err(status.into());
            }
        };
        own_jobs.written(self.key, job.revision());
        self.status.active.push(reference_to(&job));
        self.status.last_schedule_time = Some(time::format_seconds(at).into());
        Ok(())
    }

    async fn write_status(&self) -> Result<(), Error> {
        if self.status == self.cron.status {
            return Ok(());
        }
        let Controller { api, statuses, .. } = self.controller;
        let mut tree = self.object.to_value();
        write(&mut tree, &self.status);
        let (namespace, name) = (&self.key.namespace, &self.key.name);
        let options = WriteOptions::default();
        let written = api.update(&CRON_JOBS, namespace, name, Some("status"), tree, &options).await?;
        statuses.written(self.key, written.revision());
        Ok(())
    }

    fn tell(&self, reason: &str, message: impl Into<String>) {
        self.controller.recorder.normal(&self.reference, reason, message);
    }

    fn warn(&self, reason: &str, message: impl Into<String>) {
        self.controller.recorder.warning(&self.reference, reason, message);
    }
}

fn reference_to(job: &Object) -> ObjectReference {
    ObjectReference {
        api_version: job.api_version().into(),
        kind: job.kind().into(),
        namespace: job.namespace().into(),
        name: job.name().into(),
        uid: job.uid().into(),
        resource_version: job.revision().to_string().into(),
    }
}

/// Writes the status into the tree of its CronJob.
fn write(tree: &mut Value, status: &CronJobStatus) {
    let active = |own: &ObjectReference| {
        json!({
            "apiVersion": own.api_version.as_str(), "kind": own.kind.as_str(), "name": own.name.as_str(),
            "namespace": own.namespace.as_str(), "resourceVersion": own.resource_version.as_str(),
            "uid": own.uid.as_str(),
        })
    };
    let active = (!status.active.is_empty()).then(|| status.active.iter().map(active).collect::<Value>());
    let fields = tree.ensure_object_at(&["status"]);
    for (key, value) in [
        ("active", active),
        ("lastScheduleTime", status.last_schedule_time.clone().map(Into::into)),
        ("lastSuccessfulTime", status.last_successful_time.clone().map(Into::into)),
    ] {
        match value {
            Some(value) => drop(fields.insert(key, value)),
            None => drop(fields.remove(key)),
        }
    }
}
