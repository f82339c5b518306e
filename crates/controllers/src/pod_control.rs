//! [`PodControl`]: creates and deletes the pods of a parent, with upstream's events.
//!
//! Owns: the requests, the events about them, and what the cache has still to show of them. Never touches: how many
//! pods there should be.

use std::sync::Arc;

use api::gvr::PODS;
use apimachinery::{Object, Status, Value};
use client::events::Reference;
use client::{Api, DeleteOptions, ObjectKey, Recorder, WriteOptions};
use controller_runtime::Expectations;
use futures::StreamExt;

use crate::ownership;

/// Requests in flight at once for one parent.
const CONCURRENT_MAX: usize = 256;

/// The first batch of creates; each batch that succeeds is followed by one twice as large, so that a quota or a
/// webhook that refuses is asked once and not a thousand times.
const FIRST_BATCH: usize = 1;

/// Writes pods on behalf of their parents, which are known by key.
pub struct PodControl {
    pub api: Arc<dyn Api>,
    pub recorder: Recorder,
    pub expectations: Expectations<ObjectKey>,
}

/// How a number of requests went.
#[derive(Debug, Default)]
pub struct Outcome {
    pub succeeded: usize,
    pub failure: Option<Status>,
}

// === impl PodControl ===

impl PodControl {
    pub fn new(api: Arc<dyn Api>, recorder: Recorder) -> Self {
        Self { api, recorder, expectations: Expectations::default() }
    }

    pub async fn create(&self, key: &ObjectKey, parent: &Reference, pod: Value) -> Result<(), Status> {
        match self.api.create(&PODS, &key.namespace, pod, &WriteOptions::default()).await {
            Ok(pod) => {
                self.expectations.written(key, pod.revision());
                self.recorder.normal(parent, "SuccessfulCreate", format!("Created pod: {}", pod.name()));
                Ok(())
            }
            Err(status) => {
                if !ownership::is_namespace_terminating(&status) {
                    self.recorder.warning(parent, "FailedCreate", format!("Error creating: {status}"));
                }
                Err(status)
            }
        }
    }

    /// Creates pods in batches that double. The first batch with a failure is the last, and a namespace that goes
    /// away is no failure.
    pub async fn create_all(
        &self,
        key: &ObjectKey,
        parent: &Reference,
        mut pods: impl ExactSizeIterator<Item = Value> + Send,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        let mut batch = FIRST_BATCH;
        while pods.len() > 0 {
            let creates = pods.by_ref().take(batch).map(|pod| self.create(key, parent, pod)).collect();
            let done = run_all(creates).await;
            outcome.succeeded += done.succeeded;
            if let Some(status) = done.failure {
                outcome.failure = (!ownership::is_namespace_terminating(&status)).then_some(status);
                return outcome;
            }
            batch *= 2;
        }
        outcome
    }

    pub async fn delete(&self, key: &ObjectKey, parent: &Reference, pod: &Object) -> Result<(), Status> {
        let options = DeleteOptions { uid: Some(pod.uid().into()), ..DeleteOptions::default() };
        match self.api.delete(&PODS, pod.namespace(), pod.name(), &options).await {
            Ok(()) => {
                self.expectations.deleted(key, pod.uid());
                self.recorder.normal(parent, "SuccessfulDelete", format!("Deleted pod: {}", pod.name()));
                Ok(())
            }
            // Gone, or another pod of its name: either way the victim is no more.
            Err(status) if status.is_not_found() || status.is_conflict() => {
                self.expectations.deleted(key, pod.uid());
                Ok(())
            }
            Err(status) => {
                self.recorder.warning(parent, "FailedDelete", format!("Error deleting: {status}"));
                Err(status)
            }
        }
    }
}

/// Runs requests, a bounded number at a time, all to their end. The first failure is kept.
pub async fn run_all<F: Future<Output = Result<(), Status>>>(requests: Vec<F>) -> Outcome {
    let mut results = futures::stream::iter(requests).buffer_unordered(CONCURRENT_MAX);
    let mut outcome = Outcome::default();
    while let Some(result) = results.next().await {
        match result {
            Ok(()) => outcome.succeeded += 1,
            Err(status) => drop(outcome.failure.get_or_insert(status)),
        }
    }
    outcome
}
