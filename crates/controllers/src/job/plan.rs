//! What a Job and its pods come to: how many of each sort there are, whether the Job is over, which pods to make or to
//! delete. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use api::view::{Job, JobStatus, Pod};
use apimachinery::Str;
use jiff::{SignedDuration, Timestamp};

use super::TRACKING_FINALIZER;
use super::backoff::{Backoff, finished_at, remaining_of_index};
use super::indexes::{Indexes, completion_index, failures_before};
use super::policies::{self, Failure};
use super::removal;
use super::status::{FAILURE_TARGET, SUCCESS_CRITERIA_MET};
use crate::pods::{PodOf, is_active, is_terminating, timestamp};

/// Pods created or deleted by one reconcile; the rest follows with the next.
pub(super) const CHANGES_MAX: usize = 500;

/// The pods of a Job, counted.
pub(super) struct Tally<'a> {
    pub(super) job: &'a Job,
    pub(super) pods: &'a [PodOf],
    pub(super) active: Vec<PodOf>,
    pub(super) ready: usize,
    pub(super) terminating: usize,
    /// Of the whole life of the Job.
    pub(super) succeeded: usize,
    pub(super) failed: usize,
    /// Of an Indexed Job.
    pub(super) indexes: Option<IndexTally<'a>>,
    pub(super) backoff: Backoff,
}

/// The indexes of an Indexed Job.
pub(super) struct IndexTally<'a> {
    /// As the status has them.
    pub(super) counted: Indexes,
    pub(super) succeeded: Indexes,
    /// With `backoffLimitPerIndex` only.
    pub(super) failed: Option<Indexes>,
    /// With `backoffLimitPerIndex` only: the failed pods that wait for their replacement, which takes over the number
    /// of failures from them.
    pub(super) awaiting: BTreeMap<u32, &'a PodOf>,
}

/// Why a Job is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) success: bool,
    pub(super) reason: Str,
    pub(super) message: Str,
}

/// What to do about the pods of a Job that is not over.
pub(super) enum Change {
    Nothing,
    Delete(Vec<PodOf>),
    /// One pod for each of these; with its index in an Indexed Job.
    Create(Vec<Option<u32>>),
    /// Pods are missing, but the last ones failed: not before this time has passed.
    Wait(Duration),
}

// === impl Tally ===

impl<'a> Tally<'a> {
    /// `backoff` is what was remembered of the Job's failures.
    pub(super) fn of(job: &'a Job, pods: &'a [PodOf], backoff: Backoff) -> Self {
        let active: Vec<PodOf> = pods.iter().filter(|own| is_active(&own.pod)).cloned().collect();
        let uncounted = &job.status.uncounted_terminated_pods;
        let new = |known: &'a [Str], done: fn(&Job, &Pod) -> bool| {
            let is_new = move |own: &&PodOf| is_uncounted(job, own) && !known.contains(&own.pod.metadata.uid);
            pods.iter().filter(is_new).filter(move |own| done(job, &own.pod))
        };
        let new_succeeded: Vec<&PodOf> =
            new(&uncounted.succeeded, |_, pod| pod.status.phase == "Succeeded").collect();
        let new_failed: Vec<&PodOf> = new(&uncounted.failed, is_failed).collect();
        let counting =
            new_failed.iter().filter(|own| policies::failure(job, &own.pod) != Failure::Ignore).count();
        let indexes = job.is_indexed().then(|| IndexTally::of(job, pods, &active));
        let succeeded = match &indexes {
            Some(indexes) => indexes.succeeded.len(),
            None => size(job.status.succeeded) + new_succeeded.len() + uncounted.succeeded.len(),
        };
        Self {
            job,
            pods,
            ready: active.iter().filter(|own| own.pod.is_ready()).count(),
            terminating: pods.iter().filter(|own| is_terminating(&own.pod)).count(),
            succeeded,
            failed: size(job.status.failed) + counting + uncounted.failed.len(),
            indexes,
            backoff: backoff.after(new_succeeded, new_failed),
            active,
        }
    }

    /// Whether there were as many successes as the Job is to have. One without a number of completions is complete
    /// with the first success, once the other pods are done, too.
    pub(super) fn is_complete(&self, active: usize) -> bool {
        let wanted = self.job.spec.completions.map_or(1, size);
        active == 0 && self.succeeded >= wanted
    }

    /// The failed pod that a new pod of this index stands in for.
    pub(super) fn replaced(&self, index: u32) -> Option<&'a PodOf> {
        self.indexes.as_ref()?.awaiting.get(&index).copied()
    }
}

impl<'a> IndexTally<'a> {
    fn of(job: &'a Job, pods: &'a [PodOf], active: &[PodOf]) -> Self {
        let counted = Indexes::parse(&job.status.completed_indexes, completions(job));
        let fresh = |done: &dyn Fn(&Pod) -> bool| {
            let fresh = pods.iter().filter(|own| is_uncounted(job, own) && done(&own.pod));
            Indexes::of(fresh.filter_map(|own| completion_index(&own.pod)))
        };
        let succeeded = counted.union(&fresh(&|pod| pod.status.phase == "Succeeded"));
        let Some(limit) = job.spec.backoff_limit_per_index else {
            return Self { counted, succeeded, failed: None, awaiting: BTreeMap::new() };
        };
        let before = job.status.failed_indexes.as_deref().unwrap_or_default();
        let failed =
            Indexes::parse(before, completions(job)).union(&fresh(&|pod| index_failed(job, pod, limit)));
        let settled = succeeded.union(&failed).union(&indexes_of(active));
        let awaiting = awaiting(job, pods, &settled);
        Self { counted, succeeded, failed: Some(failed), awaiting }
    }
}

/// The last failed pod of each index that is neither settled nor has an active pod.
fn awaiting<'a>(job: &Job, pods: &'a [PodOf], settled: &Indexes) -> BTreeMap<u32, &'a PodOf> {
    let failures = |own: &PodOf| {
        let (counted, ignored) = failures_before(&own.pod);
        counted.saturating_add(ignored)
    };
    let mut awaiting: BTreeMap<u32, &'a PodOf> = BTreeMap::new();
    for own in pods.iter().filter(|own| is_uncounted(job, own) && is_failed(job, &own.pod)) {
        let Some(index) = completion_index(&own.pod).filter(|index| !settled.contains(*index)) else {
            continue;
        };
        let last = awaiting.entry(index).or_insert(own);
        if failures(last) <= failures(own) && finished_at(&last.pod) <= finished_at(&own.pod) {
            *last = own;
        }
    }
    awaiting
}

/// The number of indexes of an Indexed Job.
pub(super) fn completions(job: &Job) -> u32 {
    job.spec.completions.and_then(|number| u32::try_from(number).ok()).unwrap_or_default()
}

/// Still has the finalizer, so it is in no counter, and in an Indexed Job has an index.
fn is_uncounted(job: &Job, own: &PodOf) -> bool {
    is_tracked(own) && (!job.is_indexed() || has_valid_index(job, &own.pod))
}

pub(super) fn is_tracked(own: &PodOf) -> bool {
    own.pod.metadata.finalizers.iter().any(|finalizer| finalizer == TRACKING_FINALIZER)
}

pub(super) fn has_valid_index(job: &Job, pod: &Pod) -> bool {
    completion_index(pod).is_some_and(|index| index < completions(job))
}

/// A pod that is deleted counts as failed at once, since nobody may be left to say so; unless it is replaced only
/// once it has failed.
pub(super) fn is_failed(job: &Job, pod: &Pod) -> bool {
    match pod.status.phase.as_str() {
        "Failed" => true,
        "Succeeded" => false,
        _ => pod.is_deleting() && !replaces_only_failed(job),
    }
}

fn replaces_only_failed(job: &Job) -> bool {
    job.spec.pod_replacement_policy == "Failed"
}

fn index_failed(job: &Job, pod: &Pod, limit: i32) -> bool {
    is_failed(job, pod)
        && match policies::failure(job, pod) {
            Failure::FailIndex => true,
            Failure::Ignore => false,
            Failure::Count | Failure::FailJob(_) => failures_before(pod).0 >= limit,
        }
}

fn indexes_of(pods: &[PodOf]) -> Indexes {
    Indexes::of(pods.iter().filter_map(|own| completion_index(&own.pod)))
}

fn size(number: i32) -> usize {
    usize::try_from(number).unwrap_or_default()
}

// === impl Verdict ===

impl Verdict {
    fn failure(reason: &'static str, message: &str) -> Self {
        Self { success: false, reason: reason.into(), message: message.into() }
    }

    pub(super) fn completed() -> Self {
        Self {
            success: true,
            reason: "CompletionsReached".into(),
            message: "Reached expected number of succeeded pods".into(),
        }
    }

    /// What an earlier reconcile decided, which is final.
    fn known(status: &JobStatus) -> Option<Self> {
        [(SUCCESS_CRITERIA_MET, true), (FAILURE_TARGET, false)].into_iter().find_map(|(type_, success)| {
            let condition = status.condition(type_).filter(|condition| condition.is_true())?;
            Some(Self { success, reason: condition.reason.clone(), message: condition.message.clone() })
        })
    }

    /// Whether the Job is over whatever else its pods do. Failure comes before success where both are true.
    pub(super) fn of(tally: &Tally<'_>, start: Option<Timestamp>, now: Timestamp) -> Option<Self> {
        Self::known(&tally.job.status)
            .or_else(|| by_failure_policy(tally))
            .or_else(|| past_backoff_limit(tally))
            .or_else(|| past_deadline(tally.job, start, now))
            .or_else(|| by_failed_indexes(tally))
            .or_else(|| by_success_policy(tally))
    }
}

fn by_failure_policy(tally: &Tally<'_>) -> Option<Verdict> {
    let failed = tally.pods.iter().filter(|own| is_failed(tally.job, &own.pod));
    failed.map(|own| policies::failure(tally.job, &own.pod)).find_map(|failure| match failure {
        Failure::FailJob(message) => Some(Verdict::failure("PodFailurePolicy", &message)),
        _ => None,
    })
}

fn past_backoff_limit(tally: &Tally<'_>) -> Option<Verdict> {
    /// The API's default, for Jobs of before it.
    const BACKOFF_LIMIT: i32 = 6;
    let limit = size(tally.job.spec.backoff_limit.unwrap_or(BACKOFF_LIMIT));
    let past = tally.failed > limit || restarted_too_often(tally, limit);
    past.then(|| Verdict::failure("BackoffLimitExceeded", "Job has reached the specified backoff limit"))
}

/// Where containers are restarted in place, their restarts are the failures.
fn restarted_too_often(tally: &Tally<'_>, limit: usize) -> bool {
    if tally.job.spec.template.bare().str_at(&["spec", "restartPolicy"]) != "OnFailure" {
        return false;
    }
    let unfinished = tally.pods.iter().filter(|own| matches!(&*own.pod.status.phase, "Running" | "Pending"));
    let restarts: usize = unfinished
        .flat_map(|own| {
            own.pod.status.init_container_statuses.iter().chain(&own.pod.status.container_statuses)
        })
        .map(|status| size(status.restart_count))
        .sum();
    restarts >= limit.max(1)
}

fn past_deadline(job: &Job, start: Option<Timestamp>, now: Timestamp) -> Option<Verdict> {
    let left = until_deadline(job, start, now)?;
    left.is_zero()
        .then(|| Verdict::failure("DeadlineExceeded", "Job was active longer than specified deadline"))
}

/// How long the Job may still be active, where that is limited. Time while it is suspended is not counted.
pub(super) fn until_deadline(job: &Job, start: Option<Timestamp>, now: Timestamp) -> Option<Duration> {
    let limit = job.spec.active_deadline_seconds.filter(|_| !job.spec.suspend)?;
    let left = SignedDuration::from_secs(limit) - now.duration_since(start?);
    Some(Duration::try_from(left).unwrap_or_default())
}

fn by_failed_indexes(tally: &Tally<'_>) -> Option<Verdict> {
    let indexes = tally.indexes.as_ref()?;
    let failed = indexes.failed.as_ref()?.len();
    if tally.job.spec.max_failed_indexes.is_some_and(|limit| failed > size(limit)) {
        let message = "Job has exceeded the specified maximal number of failed indexes";
        return Some(Verdict::failure("MaxFailedIndexesExceeded", message));
    }
    let all_done = failed + indexes.succeeded.len() >= completions(tally.job) as usize;
    (failed > 0 && all_done).then(|| Verdict::failure("FailedIndexes", "Job has failed indexes"))
}

fn by_success_policy(tally: &Tally<'_>) -> Option<Verdict> {
    let policy = tally.job.spec.success_policy.as_ref()?;
    let succeeded = &tally.indexes.as_ref()?.succeeded;
    let message = policies::success(policy, succeeded, completions(tally.job))?;
    Some(Verdict { success: true, reason: "SuccessPolicy".into(), message: message.into() })
}

// === impl Change ===

impl Change {
    pub(super) fn of(tally: &Tally<'_>, now: Timestamp) -> Self {
        let (job, active) = (tally.job, tally.active.len());
        if job.spec.suspend {
            return Self::delete(removal::victims(job, &tally.active, active));
        }
        let wanted = wanted_active(tally);
        let mut surplus = removal::victims(job, &tally.active, active.saturating_sub(wanted));
        surplus.truncate(CHANGES_MAX);
        if !surplus.is_empty() {
            return Self::delete(surplus);
        }
        let occupied = if replaces_only_failed(job) { tally.terminating } else { 0 };
        match wanted.saturating_sub(active + occupied).min(CHANGES_MAX) {
            0 => Self::Nothing,
            missing => Self::create(tally, missing, now),
        }
    }

    fn delete(victims: Vec<PodOf>) -> Self {
        if victims.is_empty() { Self::Nothing } else { Self::Delete(victims) }
    }

    fn create(tally: &Tally<'_>, missing: usize, now: Timestamp) -> Self {
        if tally.job.spec.backoff_limit_per_index.is_none() {
            let wait = tally.backoff.remaining(now);
            if !wait.is_zero() {
                return Self::Wait(wait);
            }
        }
        let Some(indexes) = &tally.indexes else { return Self::Create(vec![None; missing]) };
        let pending = pending(tally, indexes, missing);
        let wait = |index: &u32| {
            indexes.awaiting.get(index).map_or(Duration::ZERO, |last| remaining_of_index(&last.pod, now))
        };
        let (now, later): (Vec<u32>, Vec<u32>) = pending.into_iter().partition(|index| wait(index).is_zero());
        match later.iter().map(wait).min() {
            Some(wait) if now.is_empty() => Self::Wait(wait),
            _ if now.is_empty() => Self::Nothing,
            _ => Self::Create(now.into_iter().map(Some).collect()),
        }
    }
}

/// How many pods should be active: `parallelism` at most, and no more than there are successes missing.
fn wanted_active(tally: &Tally<'_>) -> usize {
    let spec = &tally.job.spec;
    let parallelism = size(spec.parallelism.unwrap_or(1));
    match spec.completions {
        // After the first success nothing is started any more, and what runs may end.
        None if tally.succeeded > 0 => tally.active.len(),
        None => parallelism,
        Some(completions) => size(completions).saturating_sub(tally.succeeded).min(parallelism),
    }
}

/// The lowest indexes that have neither ended nor a pod.
fn pending(tally: &Tally<'_>, indexes: &IndexTally<'_>, count: usize) -> Vec<u32> {
    let mut taken = indexes.succeeded.union(&indexes_of(&tally.active));
    if replaces_only_failed(tally.job) {
        let terminating = tally.pods.iter().filter(|own| is_terminating(&own.pod));
        taken = taken.union(&Indexes::of(terminating.filter_map(|own| completion_index(&own.pod))));
    }
    if let Some(failed) = &indexes.failed {
        taken = taken.union(failed);
    }
    taken.first_missing(completions(tally.job), count)
}

pub(super) fn start_time(status: &JobStatus) -> Option<Timestamp> {
    timestamp(status.start_time.as_ref())
}
