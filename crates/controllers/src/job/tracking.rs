//! How the pods of a Job are counted, each once. Pure.
//!
//! A pod has a finalizer until it is counted. In one reconcile:
//!
//! ```text
//!     done, has the finalizer ──> uid in uncountedTerminatedPods ──> status written
//!                             ──> finalizer removed ──> uid becomes one more in the counter ──> status written
//! ```
//!
//! Whenever that is interrupted, the status says what was decided, and the finalizer whether it was carried out.
//!
//! **Invariant (counted-once):** a uid leaves the list in the same write that adds it to a counter, and only when its
//! pod has no finalizer any more. Indexes need no uids: the set of completed ones takes each once.

use std::collections::HashSet;

use api::view::{JobStatus, Pod};
use apimachinery::Str;
use jiff::Timestamp;

use super::indexes::completion_index;
use super::number;
use super::plan::{Tally, Verdict, has_valid_index, is_failed, is_tracked};
use super::policies::{self, Failure};
use super::status::{self, COMPLETE, FAILED, FAILURE_TARGET, SUCCESS_CRITERIA_MET};
use crate::pods::PodOf;

/// Pods that wait to be counted; keeps the status below some 20 KB.
pub(super) const UNCOUNTED_MAX: usize = 500;

/// What one reconcile counts.
pub(super) struct Account {
    /// Pods whose finalizer goes once the status says that they are done.
    pub(super) release: Vec<PodOf>,
    /// Uids of the pods that have the finalizer.
    pub(super) tracked: HashSet<Str>,
    /// There are more pods to count than fit into one status.
    pub(super) is_full: bool,
}

impl Account {
    /// Brings `status` to what is written before finalizers are removed.
    pub(super) fn open(tally: &Tally<'_>, verdict: Option<&Verdict>, status: &mut JobStatus) -> Self {
        let mut pods: Vec<&PodOf> = tally.pods.iter().filter(|own| is_tracked(own)).collect();
        if tally.indexes.is_some() {
            pods.sort_by_key(|own| completion_index(&own.pod));
        }
        let tracked = pods.iter().map(|own| own.pod.metadata.uid.clone()).collect();
        let mut account = Self { release: Vec::new(), tracked, is_full: false };
        account.settle(status);
        let known = tally.job.status.uncounted_terminated_pods.failed.iter().cloned().collect();
        let mut round = Round { tally, verdict, known_failed: known, new_indexes: 0 };
        for own in pods {
            if !round.is_over(own) {
                continue;
            }
            account.release.push(own.clone());
            round.count(&own.pod, status);
            let uncounted = &status.uncounted_terminated_pods;
            if round.new_indexes + uncounted.succeeded.len() + uncounted.failed.len() >= UNCOUNTED_MAX {
                account.is_full = true;
                break;
            }
        }
        if let Some(indexes) = &tally.indexes {
            status.succeeded = number(indexes.succeeded.len());
            status.completed_indexes = indexes.succeeded.to_string().into();
            status.failed_indexes = indexes.failed.as_ref().map(|failed| failed.to_string().into());
        }
        account
    }

    /// Moves the uids of pods that have lost the finalizer from the list to the counters.
    pub(super) fn settle(&self, status: &mut JobStatus) {
        let lists = &mut status.uncounted_terminated_pods;
        let counters =
            [(&mut lists.succeeded, &mut status.succeeded), (&mut lists.failed, &mut status.failed)];
        for (uids, counter) in counters {
            let before = uids.len();
            uids.retain(|uid| self.tracked.contains(uid));
            *counter = counter.saturating_add(number(before - uids.len()));
        }
    }
}

/// The look at every pod.
struct Round<'a> {
    tally: &'a Tally<'a>,
    verdict: Option<&'a Verdict>,
    /// Uids that an earlier reconcile took for failed; they stay so, whatever the pod says by now.
    known_failed: HashSet<Str>,
    /// Indexes completed by pods of this round.
    new_indexes: usize,
}

impl Round<'_> {
    /// Nothing will come of the pod any more. A failed pod that waits for its replacement stays as it is.
    fn is_over(&self, own: &PodOf) -> bool {
        let job = self.tally.job;
        if job.metadata.deletion_timestamp.is_some()
            || self.verdict.is_some()
            || own.pod.status.phase == "Succeeded"
        {
            return true;
        }
        let awaits_replacement = completion_index(&own.pod)
            .and_then(|index| self.tally.replaced(index))
            .is_some_and(|awaiting| awaiting.pod.metadata.uid == own.pod.metadata.uid);
        is_failed(job, &own.pod) && !awaits_replacement
    }

    fn count(&mut self, pod: &Pod, status: &mut JobStatus) {
        let (job, uid) = (self.tally.job, &pod.metadata.uid);
        let uncounted = &mut status.uncounted_terminated_pods;
        if pod.status.phase == "Succeeded" && !self.known_failed.contains(uid) {
            match &self.tally.indexes {
                Some(indexes) => {
                    let index = completion_index(pod).filter(|_| has_valid_index(job, pod));
                    self.new_indexes +=
                        usize::from(index.is_some_and(|index| !indexes.counted.contains(index)));
                }
                None => push_new(&mut uncounted.succeeded, uid),
            }
            return;
        }
        // With the failure of its Job every pod that runs fails, too.
        let fails = is_failed(job, pod) || self.verdict.is_some_and(|verdict| !verdict.success);
        let has_index = self.tally.indexes.is_none() || has_valid_index(job, pod);
        if fails && has_index && policies::failure(job, pod) != Failure::Ignore {
            push_new(&mut uncounted.failed, uid);
        }
    }
}

fn push_new(uids: &mut Vec<Str>, uid: &Str) {
    if !uids.contains(uid) {
        uids.push(uid.clone());
    }
}

/// Adds the condition that announces the end of the Job.
pub(super) fn announce(status: &mut JobStatus, verdict: &Verdict, now: Timestamp) {
    let type_ = if verdict.success { SUCCESS_CRITERIA_MET } else { FAILURE_TARGET };
    if !status.condition(type_).is_some_and(|own| own.is_true()) {
        status.conditions.push(status::condition(type_, "True", &verdict.reason, &verdict.message, now));
    }
}

/// Ends the Job, unless pods are still to be counted or on their way out. Says whether it did.
pub(super) fn finish(status: &mut JobStatus, verdict: &Verdict, now: Timestamp) -> bool {
    let uncounted = &status.uncounted_terminated_pods;
    if !(uncounted.succeeded.is_empty() && uncounted.failed.is_empty()) || status.terminating.unwrap_or(0) > 0
    {
        return false;
    }
    let type_ = if verdict.success { COMPLETE } else { FAILED };
    let condition = status::condition(type_, "True", &verdict.reason, &verdict.message, now);
    if verdict.success {
        status.completion_time = condition.last_transition_time.clone();
    }
    status::ensure(&mut status.conditions, condition);
    true
}
