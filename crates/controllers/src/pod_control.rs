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
#[derive(Debug)]
pub struct Outcome<E = Status> {
    pub succeeded: usize,
    pub failure: Option<E>,
}

impl<E> Default for Outcome<E> {
    fn default() -> Self {
        Self { succeeded: 0, failure: None }
    }
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

    /// Creates pods in batches that double. A namespace that goes away is no failure.
    pub async fn create_all(
        &self,
        key: &ObjectKey,
        parent: &Reference,
        pods: impl ExactSizeIterator<Item = Value> + Send,
    ) -> Outcome {
        let mut outcome = run_doubling(pods, |pod| self.create(key, parent, pod)).await;
        outcome.failure = outcome.failure.filter(|status| !ownership::is_namespace_terminating(status));
        outcome
    }

    pub async fn delete(&self, key: &ObjectKey, parent: &Reference, pod: &Object) -> Result<(), Status> {
        let options = DeleteOptions::of(pod);
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
pub async fn run_all<E, F: Future<Output = Result<(), E>>>(requests: Vec<F>) -> Outcome<E> {
    let mut results = futures::stream::iter(requests).buffer_unordered(CONCURRENT_MAX);
    let mut outcome = Outcome::default();
    while let Some(result) = results.next().await {
        match result {
            Ok(()) => outcome.succeeded += 1,
            Err(failure) => drop(outcome.failure.get_or_insert(failure)),
        }
    }
    outcome
}

/// Runs a request for every item, in batches that double. The first batch with a failure is the last.
pub async fn run_doubling<T, E, F: Future<Output = Result<(), E>>>(
    mut items: impl ExactSizeIterator<Item = T>,
    request: impl Fn(T) -> F,
) -> Outcome<E> {
    let (mut outcome, mut batch) = (Outcome::default(), FIRST_BATCH);
    while items.len() > 0 && outcome.failure.is_none() {
        let done = run_all(items.by_ref().take(batch).map(&request).collect()).await;
        outcome.succeeded += done.succeeded;
        outcome.failure = done.failure;
        batch *= 2;
    }
    outcome
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_refusal_ends_the_burst_after_its_own_batch() {
        let asked = AtomicUsize::new(0);
        let ask = |number: usize| {
            asked.fetch_add(1, Ordering::Relaxed);
            std::future::ready(if number == 4 { Err("no") } else { Ok(()) })
        };
        let outcome = run_doubling(0..100, ask).await;
        assert_eq!((outcome.succeeded, outcome.failure), (6, Some("no")), "the fifth is in the third batch");
        assert_eq!(asked.load(Ordering::Relaxed), 1 + 2 + 4);
        let outcome = run_doubling(5..105, ask).await;
        assert_eq!((outcome.succeeded, outcome.failure), (100, None));
    }
}
