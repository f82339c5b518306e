//! [`Controller`]: watch events to keys, keys to reconciles, results to requeues.

use std::fmt::Debug;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Object, Status};
use async_trait::async_trait;
use client::{Delta, Informer, ObjectKey};
use futures::FutureExt;
use futures::future::BoxFuture;
use rt::Shutdown;
use telemetry::ControllerHandle;
use tracing::{debug, error, info};

use crate::Queue;
use crate::descriptor::Context;

pub type Result<T = Action, E = Error> = std::result::Result<T, E>;

/// What happens to a key whose reconcile succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The next event about it brings it back.
    AwaitChange,
    /// It comes back after this time, or with the next event.
    Requeue(Duration),
}

/// Why a reconcile could not finish, and so what happens to its key.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Only a change of the object can help: no retry.
    #[error("{reason}")]
    Stalled { reason: String },
    /// Something else must happen first: retried after this time without back-off.
    #[error("waiting: {reason}")]
    Waiting { after: Duration, reason: String },
    /// The API refused or failed: retried with back-off.
    #[error("{0}")]
    Api(Status),
    /// Retried with back-off.
    #[error("{0}")]
    Failed(String),
}

/// How a reconcile ended, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Success,
    /// Comes back after a back-off: somebody else's write was in between.
    Requeue,
    /// Comes back after a time that the reconcile chose.
    RequeueAfter,
    Error,
    Panic,
}

/// The work of a controller on one key: compares wanted with actual and is idempotent.
#[async_trait]
pub trait Reconcile: Send + Sync + 'static {
    type Key: Clone + Debug + Eq + Hash + Send + Sync + 'static;

    async fn reconcile(&self, key: &Self::Key) -> Result;
}

type Map<K> = Box<dyn FnMut(&Delta, &mut Vec<K>) + Send>;

/// A reconcile loop and its sources of keys.
pub struct Controller<R: Reconcile> {
    name: &'static str,
    workers: usize,
    reconciler: Arc<R>,
    queue: Arc<Queue<R::Key>>,
    sources: Vec<(Arc<Informer>, Map<R::Key>)>,
    /// Informers that are read but give no keys.
    reads: Vec<Arc<Informer>>,
    shutdown: Shutdown,
    /// Controllers of this start that have still to read their informers.
    unready: Arc<tokio::sync::watch::Sender<usize>>,
}

// === impl Action ===

impl Action {
    pub const fn await_change() -> Self {
        Self::AwaitChange
    }

    pub const fn requeue(after: Duration) -> Self {
        Self::Requeue(after)
    }
}

// === impl Error ===

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self::Api(status)
    }
}

impl Error {
    pub fn failed(reason: impl Into<String>) -> Self {
        Self::Failed(reason.into())
    }

    fn is_conflict(&self) -> bool {
        matches!(self, Self::Api(status) if status.is_conflict())
    }
}

// === impl Controller ===

impl<R: Reconcile> Controller<R> {
    pub fn new<O>(context: &Context<O>, reconciler: Arc<R>) -> Self {
        Self {
            name: context.name,
            workers: context.workers,
            reconciler,
            queue: Arc::new(Queue::named(context.name)),
            sources: Vec::new(),
            reads: Vec::new(),
            shutdown: context.shutdown.clone(),
            unready: context.unready.clone(),
        }
    }

    /// The queue, for keys from elsewhere.
    pub fn queue(&self) -> &Arc<Queue<R::Key>> {
        &self.queue
    }

    /// Keys for each change of an informer. After a resync, `map` sees every object as an `Upsert` without `old`.
    pub fn watches(
        mut self,
        informer: &Arc<Informer>,
        map: impl FnMut(&Delta, &mut Vec<R::Key>) + Send + 'static,
    ) -> Self {
        self.sources.push((informer.clone(), Box::new(map)));
        self
    }

    /// Waits for an informer before the first reconcile without taking keys from it.
    pub fn reads(mut self, informer: &Arc<Informer>) -> Self {
        self.reads.push(informer.clone());
        self
    }

    /// Runs until shutdown: waits for the informers, then reconciles with all workers.
    pub async fn run(self) {
        let Self { name, workers, reconciler, queue, sources, reads, shutdown, unready } = self;
        let informers = sources.iter().map(|(informer, _)| informer.clone()).chain(reads);
        let synced =
            futures::future::join_all(informers.map(|informer| async move { informer.synced().await }));
        for (informer, map) in sources {
            rt::spawn(name, feed(informer, map, queue.clone(), shutdown.clone()));
        }
        tokio::select! {
            _ = synced => {}
            () = shutdown.cancelled() => return,
        }
        debug!(controller = name, "Caches synced");
        unready.send_modify(|left| *left = left.saturating_sub(1));
        let workers = workers.max(1);
        let metrics = telemetry::metrics().controller.of(name);
        metrics.workers.set(workers as i64);
        let worker = Arc::new(Worker { name, reconciler, queue: queue.clone(), metrics });
        let tasks: Vec<_> = (0..workers).map(|_| rt::spawn(name, worker.clone().run())).collect();
        shutdown.cancelled().await;
        queue.close();
        // A reconcile in flight may finish its write; it is idempotent either way.
        futures::future::join_all(tasks).await;
    }
}

impl<R: Reconcile<Key = ObjectKey>> Controller<R> {
    /// The key of every object that changes.
    pub fn for_kind(self, informer: &Arc<Informer>) -> Self {
        self.watches(informer, |delta, keys| match delta {
            Delta::Upsert { new, .. } => keys.push(ObjectKey::from(&**new)),
            Delta::Delete { old } => keys.push(ObjectKey::from(&**old)),
            Delta::Resync => {}
        })
    }

    /// The key of the controller owner of every object that changes, if the owner is of `kind` in `group` (the part
    /// of `apiVersion` before the slash). An object that changes hands wakes both owners.
    pub fn owns(self, informer: &Arc<Informer>, group: &'static str, kind: &'static str) -> Self {
        self.watches(informer, move |delta, keys| match delta {
            Delta::Upsert { old, new } => {
                let was = old.as_ref().and_then(|old| owner_key(old, group, kind));
                let is = owner_key(new, group, kind);
                if was != is {
                    keys.extend(was);
                }
                keys.extend(is);
            }
            Delta::Delete { old } => keys.extend(owner_key(old, group, kind)),
            Delta::Resync => {}
        })
    }
}

/// The key of an object's controller owner, if that is of `kind` in `group`.
pub fn owner_key(object: &Object, group: &str, kind: &str) -> Option<ObjectKey> {
    let owner = object.controller_owner()?;
    let owner_group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
    (owner.kind == kind && owner_group == group).then(|| ObjectKey::new(object.namespace(), owner.name))
}

/// Moves an informer's deltas to the queue as keys.
async fn feed<K: Clone + Eq + Hash + Send + 'static>(
    informer: Arc<Informer>,
    mut map: Map<K>,
    queue: Arc<Queue<K>>,
    shutdown: Shutdown,
) {
    let mut subscription = informer.subscribe();
    let (mut batch, mut keys) = (Vec::new(), Vec::new());
    loop {
        let more = tokio::select! {
            more = subscription.recv_batch(&mut batch) => more,
            () = shutdown.cancelled() => false,
        };
        if !more {
            return;
        }
        for delta in batch.drain(..) {
            if matches!(delta, Delta::Resync) {
                for object in informer.list() {
                    map(&Delta::Upsert { old: None, new: object }, &mut keys);
                }
            } else {
                map(&delta, &mut keys);
            }
        }
        queue.add_all(keys.drain(..));
    }
}

struct Worker<R: Reconcile> {
    name: &'static str,
    reconciler: Arc<R>,
    queue: Arc<Queue<R::Key>>,
    metrics: ControllerHandle,
}

impl<R: Reconcile> Worker<R> {
    async fn run(self: Arc<Self>) {
        while let Some(key) = self.queue.next().await {
            let started = rt::instant();
            let active = self.metrics.active_workers.track();
            let result = AssertUnwindSafe(self.reconciler.reconcile(&key)).catch_unwind().await;
            let outcome = self.settle(&key, result);
            self.queue.done(&key);
            drop(active);
            self.count(outcome, started.elapsed());
        }
    }

    fn count(&self, outcome: Outcome, took: Duration) {
        let metrics = &self.metrics;
        metrics.duration.observe(took);
        match outcome {
            Outcome::Success => metrics.success.inc(),
            Outcome::Requeue => metrics.requeue.inc(),
            Outcome::RequeueAfter => metrics.requeue_after.inc(),
            Outcome::Error => metrics.error.inc(),
            Outcome::Panic => {
                metrics.panics.inc();
                metrics.error.inc();
            }
        }
    }

    /// The one place where a result becomes a requeue.
    fn settle(&self, key: &R::Key, result: std::thread::Result<Result>) -> Outcome {
        let (controller, queue) = (self.name, &self.queue);
        match result {
            Ok(Ok(Action::AwaitChange)) => {
                queue.forget(key);
                Outcome::Success
            }
            Ok(Ok(Action::Requeue(after))) => {
                queue.forget(key);
                queue.add_after(key.clone(), after);
                Outcome::RequeueAfter
            }
            Ok(Err(Error::Stalled { reason })) => {
                info!(controller, ?key, reason, "Reconcile stalled until the object changes");
                queue.forget(key);
                Outcome::Error
            }
            Ok(Err(Error::Waiting { after, reason })) => {
                debug!(controller, ?key, reason, "Reconcile waits");
                queue.forget(key);
                queue.add_after(key.clone(), after);
                Outcome::RequeueAfter
            }
            Ok(Err(conflict)) if conflict.is_conflict() => {
                debug!(controller, ?key, error = %conflict, "Reconcile met a newer version");
                queue.add_conflicted(key.clone());
                Outcome::Requeue
            }
            Ok(Err(failure)) => {
                // Not a warning: it is tried again, and what lasts shows in the object's events and conditions.
                info!(controller, ?key, error = %failure, "Reconcile was without success");
                queue.add_failed(key.clone());
                Outcome::Error
            }
            Err(_) => {
                error!(controller, ?key, "Reconcile panicked");
                queue.add_failed(key.clone());
                Outcome::Panic
            }
        }
    }
}

/// A future as [`crate::ControllerDescriptor::start`] wants it.
pub fn boxed(future: impl Future<Output = ()> + Send + 'static) -> BoxFuture<'static, ()> {
    Box::pin(future)
}

#[cfg(test)]
mod tests;
