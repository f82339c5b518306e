//! `batch/v1` Job and CronJob: what their controllers read.

use apimachinery::Str;
use serde::Deserialize;

use super::{LabelSelector, ObjectMeta, PodTemplate};

/// `batch/v1.Job`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct Job {
    pub metadata: ObjectMeta,
    pub spec: JobSpec,
    pub status: JobStatus,
}

/// `batch/v1.JobSpec`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct JobSpec {
    pub parallelism: Option<i32>,
    pub completions: Option<i32>,
    pub active_deadline_seconds: Option<i64>,
    pub pod_failure_policy: Option<PodFailurePolicy>,
    pub success_policy: Option<SuccessPolicy>,
    pub backoff_limit: Option<i32>,
    pub backoff_limit_per_index: Option<i32>,
    pub max_failed_indexes: Option<i32>,
    pub selector: LabelSelector,
    pub template: PodTemplate,
    pub ttl_seconds_after_finished: Option<i32>,
    /// `NonIndexed` or `Indexed`.
    pub completion_mode: Str,
    pub suspend: bool,
    /// `TerminatingOrFailed` or `Failed`.
    pub pod_replacement_policy: Str,
    pub managed_by: Option<Str>,
}

/// `batch/v1.PodFailurePolicy`: the first rule that matches decides.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct PodFailurePolicy {
    pub rules: Vec<PodFailurePolicyRule>,
}

/// `batch/v1.PodFailurePolicyRule`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct PodFailurePolicyRule {
    /// `FailJob`, `FailIndex`, `Ignore` or `Count`.
    pub action: Str,
    pub on_exit_codes: Option<PodFailurePolicyOnExitCodesRequirement>,
    pub on_pod_conditions: Option<Vec<PodFailurePolicyOnPodConditionsPattern>>,
}

/// `batch/v1.PodFailurePolicyOnExitCodesRequirement`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct PodFailurePolicyOnExitCodesRequirement {
    pub container_name: Option<Str>,
    /// `In` or `NotIn`.
    pub operator: Str,
    pub values: Vec<i32>,
}

/// `batch/v1.PodFailurePolicyOnPodConditionsPattern`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct PodFailurePolicyOnPodConditionsPattern {
    #[serde(rename = "type")]
    pub type_: Str,
    pub status: Str,
}

/// `batch/v1.SuccessPolicy`: the first rule that is met ends the Job.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct SuccessPolicy {
    pub rules: Vec<SuccessPolicyRule>,
}

/// `batch/v1.SuccessPolicyRule`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct SuccessPolicyRule {
    pub succeeded_indexes: Option<Str>,
    pub succeeded_count: Option<i32>,
}

/// `batch/v1.JobStatus`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct JobStatus {
    pub conditions: Vec<JobCondition>,
    pub start_time: Option<Str>,
    pub completion_time: Option<Str>,
    pub active: i32,
    pub succeeded: i32,
    pub failed: i32,
    pub terminating: Option<i32>,
    pub completed_indexes: Str,
    pub failed_indexes: Option<Str>,
    pub uncounted_terminated_pods: UncountedTerminatedPods,
    pub ready: Option<i32>,
}

/// `batch/v1.UncountedTerminatedPods`: uids of pods that are done, still have the tracking finalizer, and are in no
/// counter yet.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct UncountedTerminatedPods {
    pub succeeded: Vec<Str>,
    pub failed: Vec<Str>,
}

/// `batch/v1.JobCondition`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct JobCondition {
    #[serde(rename = "type")]
    pub type_: Str,
    pub status: Str,
    pub reason: Str,
    pub message: Str,
    pub last_probe_time: Option<Str>,
    pub last_transition_time: Option<Str>,
}

/// `batch/v1.CronJob`. The template of its Jobs is read from the tree when a Job is made of it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct CronJob {
    pub metadata: ObjectMeta,
    pub spec: CronJobSpec,
    pub status: CronJobStatus,
}

/// `batch/v1.CronJobSpec`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct CronJobSpec {
    pub schedule: Str,
    pub time_zone: Option<Str>,
    pub starting_deadline_seconds: Option<i64>,
    /// `Allow`, `Forbid` or `Replace`.
    pub concurrency_policy: Str,
    pub suspend: bool,
    pub successful_jobs_history_limit: Option<i32>,
    pub failed_jobs_history_limit: Option<i32>,
}

/// `batch/v1.CronJobStatus`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct CronJobStatus {
    pub active: Vec<ObjectReference>,
    pub last_schedule_time: Option<Str>,
    pub last_successful_time: Option<Str>,
}

/// `v1.ObjectReference`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct ObjectReference {
    pub api_version: Str,
    pub kind: Str,
    pub namespace: Str,
    pub name: Str,
    pub uid: Str,
    pub resource_version: Str,
}

// === impl Job ===

impl Job {
    pub fn is_indexed(&self) -> bool {
        self.spec.completion_mode == "Indexed"
    }

    /// The condition that says that the Job ended: `Complete` or `Failed`.
    pub fn finished(&self) -> Option<&JobCondition> {
        self.status
            .conditions
            .iter()
            .find(|own| own.is_true() && matches!(&*own.type_, "Complete" | "Failed"))
    }
}

impl JobStatus {
    pub fn condition(&self, type_: &str) -> Option<&JobCondition> {
        self.conditions.iter().find(|condition| condition.type_ == type_)
    }
}

impl JobCondition {
    pub fn is_true(&self) -> bool {
        self.status == "True"
    }
}
