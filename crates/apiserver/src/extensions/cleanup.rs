//! The end of a definition: its instances go first, then its finalizer.

use std::sync::Arc;
use std::time::Duration;

use api::conditions::{Condition, is_true};
use api::kinds::apiextensions::conditions::CLEANUP_FINALIZER;
use apiextensions::status::OVERLAPPING;
use apimachinery::{Status, Value};
use auth::UserInfo;
use registry::{DeleteRequest, Endpoint, ListRequest, Warnings, WriteContext};
use watch_cache::Next;

use super::{Extensions, FIELD_MANAGER, RETRY_DELAY};

/// Instances with finalizers may stay this long before the definition says that it waits for them.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(60);

impl Extensions {
    /// Starts the deletion of a definition's instances, unless that is under way.
    pub(super) fn begin_cleanup(self: &Arc<Self>, name: &str) {
        if !self.state.lock().ending.insert(name.into()) {
            return;
        }
        let (extensions, name) = (self.clone(), name.to_owned());
        rt::spawn("definition cleanup", async move {
            extensions.clean_up(&name).await;
            extensions.state.lock().ending.remove(name.as_str());
        });
    }

    async fn clean_up(&self, name: &str) {
        while let Err(status) = self.try_to_clean_up(name).await {
            tracing::warn!(definition = name, error = %status, "Could not delete all instances of a definition");
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                () = rt::sleep(RETRY_DELAY) => {}
            }
        }
    }

    async fn try_to_clean_up(&self, name: &str) -> Result<(), Status> {
        let message = "CustomResource deletion is in progress";
        let begun = Condition::new("Terminating", true, "InstanceDeletionInProgress", message);
        let Some(definition) = self.rewrite(name, |definition| begun.set(definition, rt::now())).await?
        else {
            return Ok(());
        };
        let stored = self.state.lock().installed.get(name).map(|installed| installed.stored.clone());
        let outcome = match stored {
            _ if is_overlapping(&definition) => {
                ended("OverlappingBuiltInResource", "instances overlap with built-in resources in storage")
            }
            Some(stored) if is_true(&definition, "Established") => {
                self.delete_instances(name, &stored).await?
            }
            _ => ended("NeverEstablished", "resource was never established"),
        };
        let finish = |definition: &mut Value| {
            outcome.set(definition, rt::now());
            let finalizers = definition.array_at(&["metadata", "finalizers"]).iter();
            let left: Value =
                finalizers.filter(|own| own.as_str() != Some(CLEANUP_FINALIZER)).cloned().collect();
            definition.set_at(&["metadata", "finalizers"], left);
        };
        self.rewrite(name, finish).await.map(drop)
    }

    /// Deletes every instance and waits until none is left.
    async fn delete_instances(&self, name: &str, stored: &Endpoint) -> Result<Condition, Status> {
        let failed = |message: String| Condition::new("Terminating", true, "InstanceDeletionFailed", message);
        let mut told = false;
        loop {
            let snapshot = stored.cache.snapshot();
            if snapshot.objects.is_empty() {
                return Ok(ended("InstanceDeletionCompleted", "removed all instances"));
            }
            let (user, warnings) = (UserInfo::api_server(), Warnings::default());
            let ctx = WriteContext {
                user: &user,
                namespace: "",
                subresource: None,
                dry_run: false,
                field_manager: FIELD_MANAGER,
                now: rt::now(),
                warnings: &warnings,
            };
            let (list, request) = (ListRequest::default(), DeleteRequest::default());
            let deleted = self.door.registry().delete_collection(stored, &ctx, &list, &request).await;
            if let Err(status) = deleted {
                let condition = failed(format!("could not issue all deletes: {status}"));
                self.rewrite(name, |definition| condition.set(definition, rt::now())).await?;
                return Err(status);
            }
            let Ok(watcher) = stored.cache.watch(snapshot.revision) else { continue };
            let drained = rt::timeout(DRAIN_TIMEOUT, drained(stored, watcher));
            let in_time = tokio::select! {
                () = self.shutdown.cancelled() => return Err(Status::unavailable("the server is shutting down")),
                drained = drained => drained.is_ok(),
            };
            if !in_time && !std::mem::replace(&mut told, true) {
                let message = "could not confirm zero CustomResources remaining: context deadline exceeded";
                let condition = Condition::new("Terminating", true, "InstanceDeletionCheck", message);
                self.rewrite(name, |definition| condition.set(definition, rt::now())).await?;
            }
        }
    }

    /// Changes the status of a definition that is being deleted, on whatever its present state is; `None` when it is
    /// gone or has no more to wait for.
    async fn rewrite(&self, name: &str, change: impl Fn(&mut Value)) -> Result<Option<Value>, Status> {
        loop {
            let Some(current) = self.current(name) else { return Ok(None) };
            if !current.is_deleting() || !current.finalizers().any(|own| own == CLEANUP_FINALIZER) {
                return Ok(None);
            }
            let mut definition = current.to_value();
            change(&mut definition);
            match self.update_status(name, definition).await {
                Ok(written) => return Ok(Some(written.to_value())),
                Err(status) if status.is_conflict() => {}
                Err(status) if status.is_not_found() => return Ok(None),
                Err(status) => return Err(status),
            }
        }
    }
}

fn ended(reason: &'static str, message: &str) -> Condition {
    Condition::new("Terminating", false, reason, message)
}

fn is_overlapping(definition: &Value) -> bool {
    let own = (definition.str_at(&["spec", "group"]), definition.str_at(&["spec", "names", "plural"]));
    OVERLAPPING.contains(&own)
}

/// Waits until the last object is gone.
async fn drained(stored: &Endpoint, mut watcher: watch_cache::Watcher) {
    while !stored.cache.is_empty() {
        if let Next::Expired(_) = watcher.next().await {
            return;
        }
    }
}
