//! Delete: preconditions, propagation, finalizers, grace; and the deletion of whole collections.

use std::sync::Arc;

use api::strategy::Deletion;
use apimachinery::{Object, Status, Str, Value};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use storage::{Durability, Precondition, Revision, Write};
use watch_cache::Objects;

use crate::admission::{Attributes, Operation};
use crate::read::ListRequest;
use crate::services::Reservation;
use crate::{CONFLICT_RETRIES_MAX, CommitFailure, Endpoint, Registry, WriteContext, metadata};

const FINALIZER_ORPHAN: &str = "orphan";
const FINALIZER_FOREGROUND: &str = "foregroundDeletion";

/// Deletes of one collection request that are on their way at the same time: enough to fill group commits.
const COLLECTION_CONCURRENCY: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Orphan,
    Background,
    Foreground,
}

/// `DeleteOptions`, checked.
#[derive(Clone, Debug, Default)]
pub struct DeleteRequest {
    pub grace_period_seconds: Option<i64>,
    pub propagation: Option<Propagation>,
    /// Preconditions.
    pub uid: Option<Str>,
    pub resource_version: Option<Str>,
}

/// What a delete led to.
pub enum Deleted {
    /// Gone; the last state at the revision of the deletion.
    Gone(Arc<Object>),
    /// Marked; finalizers or an agent have to finish.
    Pending(Arc<Object>),
}

impl Registry {
    pub async fn delete(
        &self,
        endpoint: &Endpoint,
        ctx: &WriteContext<'_>,
        name: &str,
        request: &DeleteRequest,
    ) -> Result<Deleted, Status> {
        self.delete_and(endpoint, ctx, name, request, true).await
    }

    /// As [`Registry::delete`]; without `admit` it is part of something that was admitted already.
    pub(crate) async fn delete_and(
        &self,
        endpoint: &Endpoint,
        ctx: &WriteContext<'_>,
        name: &str,
        request: &DeleteRequest,
        admit: bool,
    ) -> Result<Deleted, Status> {
        let key = endpoint.resource.key(ctx.namespace, name);
        for _ in 0..CONFLICT_RETRIES_MAX {
            let current = endpoint
                .cache
                .get(&key)
                .ok_or_else(|| Status::not_found(&endpoint.resource.group_resource(), name))?;
            if let Some(deleted) = self.delete_once(endpoint, ctx, current, request, admit).await? {
                return Ok(deleted);
            }
        }
        Err(Status::stale(&endpoint.resource.group_resource(), name))
    }

    /// One attempt; `None` when it should be repeated on a newer state.
    async fn delete_once(
        &self,
        endpoint: &Endpoint,
        ctx: &WriteContext<'_>,
        current: Arc<Object>,
        request: &DeleteRequest,
        admit: bool,
    ) -> Result<Option<Deleted>, Status> {
        let record = (current.uid(), &*current.revision().to_string());
        check_preconditions(endpoint, current.name(), record, request)?;
        let shown = endpoint.read(current.clone()).await?;
        if admit {
            self.admit_delete(endpoint, ctx, &shown, request).await?;
        }
        let outcome = match plan(endpoint, ctx, &shown, request)? {
            Plan::Nothing => return Ok(Some(Deleted::Pending(current))),
            Plan::Remove => {
                self.remove(endpoint, ctx, &current).await.map(|last| Deleted::Gone(Arc::new(last)))
            }
            Plan::Mark(value) => {
                let draft = endpoint.draft(*value).await?;
                let precondition = Precondition::ModRevision(Revision(current.revision()));
                let unchanged = Reservation::none();
                self.commit(endpoint, ctx, current.name(), draft, precondition, unchanged)
                    .await
                    .map(Deleted::Pending)
            }
        };
        match outcome {
            Ok(deleted) => Ok(Some(deleted)),
            Err(CommitFailure::Precondition) => Ok(None),
            Err(CommitFailure::Other(status)) => Err(status),
        }
    }

    async fn admit_delete(
        &self,
        endpoint: &Endpoint,
        ctx: &WriteContext<'_>,
        current: &Object,
        request: &DeleteRequest,
    ) -> Result<(), Status> {
        let attributes = Attributes {
            registry: self,
            operation: Operation::Delete,
            resource: &endpoint.resource,
            subresource: None,
            namespace: ctx.namespace,
            name: current.name(),
            generate_name: "",
            user: ctx.user,
            dry_run: ctx.dry_run,
            old: Some(current),
            old_tree: None,
            field_manager: ctx.field_manager,
            delete: Some(request),
            warnings: ctx.warnings,
        };
        let admission = self.admission()?;
        admission.mutate(&attributes, None).await?;
        admission.validate(&attributes, None).await
    }

    /// Deletes what a list would show; returns those objects as they were. Objects that vanish meanwhile are fine,
    /// the first other failure ends it.
    pub async fn delete_collection(
        &self,
        endpoint: &Endpoint,
        ctx: &WriteContext<'_>,
        list: &ListRequest,
        request: &DeleteRequest,
    ) -> Result<(Vec<Arc<Object>>, u64), Status> {
        let page = self.list(endpoint, ctx.namespace, list)?;
        let mut running = FuturesUnordered::new();
        for object in &page.objects {
            if running.len() == COLLECTION_CONCURRENCY
                && let Some(result) = running.next().await
            {
                result?;
            }
            running.push(self.delete_listed(endpoint, ctx, object, request));
        }
        while let Some(result) = running.next().await {
            result?;
        }
        drop(running);
        Ok((page.objects, page.revision))
    }

    /// Removes objects that nobody can have a right to any more: no admission, no finalizers. One that was written
    /// again since `leftovers` were looked at has an owner, and stays.
    pub async fn discard(&self, leftovers: &Objects) -> Result<(), Status> {
        for (key, object) in leftovers {
            let write = Write {
                key: key.clone(),
                precondition: Precondition::ModRevision(Revision(object.revision())),
                value: None,
                attachment: None,
                durability: Durability::Synced,
            };
            match self.store.commit(write).await {
                Ok(_) | Err(storage::Error::PreconditionFailed { .. }) => {}
                Err(error) => return Err(crate::storage_status(&error)),
            }
        }
        Ok(())
    }

    async fn delete_listed(
        &self,
        endpoint: &Endpoint,
        ctx: &WriteContext<'_>,
        object: &Object,
        request: &DeleteRequest,
    ) -> Result<(), Status> {
        let ctx = WriteContext { namespace: object.namespace(), ..*ctx };
        match self.delete(endpoint, &ctx, object.name(), request).await {
            Err(status) if !status.is_not_found() => Err(status),
            _ => Ok(()),
        }
    }
}

enum Plan {
    /// It is on its way already and this request does not hasten it.
    Nothing,
    Remove,
    Mark(Box<Value>),
}

fn plan(
    endpoint: &Endpoint,
    ctx: &WriteContext<'_>,
    current: &Object,
    request: &DeleteRequest,
) -> Result<Plan, Status> {
    let resource = &endpoint.resource;
    if resource.group.is_empty() && resource.plural == "namespaces" {
        return Ok(plan_namespace(endpoint, ctx, current));
    }
    if let Some(begun) = begin(endpoint, ctx, current) {
        return Ok(Plan::Mark(Box::new(begun)));
    }
    let wanted = finalizers_after(endpoint, current, request.propagation);
    let finalizers_change = wanted.len() != current.finalizers().len()
        || wanted.iter().zip(current.finalizers()).any(|(wanted, own)| wanted != own);
    let grace = match resource.strategy.deletion(current, request.grace_period_seconds) {
        Deletion::Immediate => 0,
        Deletion::Graceful(seconds) => seconds.max(0),
    };
    let old = current.is_deleting().then(|| grace_of(current)).flatten();
    let hastened = old.is_none_or(|old| grace < old);
    if wanted.is_empty() && grace == 0 {
        return Ok(Plan::Remove);
    }
    if !finalizers_change && !hastened {
        return Ok(Plan::Nothing);
    }
    let mut value = endpoint.served(current);
    if finalizers_change {
        let list: Value = wanted.into_iter().map(|finalizer| Value::from(finalizer.as_str())).collect();
        value.set_at(&["metadata", "finalizers"], list);
    }
    if hastened {
        mark(&mut value, ctx, current, grace);
    }
    Ok(Plan::Mark(Box::new(value)))
}

/// The state after the first request to delete an object that its kind's controller takes down.
fn begin(endpoint: &Endpoint, ctx: &WriteContext<'_>, current: &Object) -> Option<Value> {
    let begin = endpoint.resource.strategy.begin_deletion().filter(|_| !current.is_deleting())?;
    let mut value = endpoint.served(current);
    value.set_at(&["metadata", "deletionTimestamp"], apimachinery::time::format_seconds(ctx.now));
    begin(&mut value, ctx.now);
    Some(value)
}

/// Sets the deletion's deadline; hastening an earlier one counts from when that one was made.
fn mark(value: &mut Value, ctx: &WriteContext<'_>, current: &Object, grace: i64) {
    let started = current.deletion_timestamp().and_then(apimachinery::time::parse).and_then(|deadline| {
        deadline.checked_sub(jiff::SignedDuration::from_secs(grace_of(current).unwrap_or(0))).ok()
    });
    metadata::mark_deleted(value, started.unwrap_or(ctx.now), grace);
}

fn grace_of(object: &Object) -> Option<i64> {
    object.metadata_value()["deletionGracePeriodSeconds"].as_i64()
}

/// A namespace is emptied by its controller first; only without `spec.finalizers` does it go.
fn plan_namespace(endpoint: &Endpoint, ctx: &WriteContext<'_>, current: &Object) -> Plan {
    let mut value = endpoint.served(current);
    let finalizers_left =
        !value.array_at(&["spec", "finalizers"]).is_empty() || metadata::has_finalizers(current);
    if !finalizers_left {
        return Plan::Remove;
    }
    if current.is_deleting() {
        return Plan::Nothing;
    }
    value.set_at(&["metadata", "deletionTimestamp"], apimachinery::time::format_seconds(ctx.now));
    value.set_at(&["status", "phase"], "Terminating");
    Plan::Mark(Box::new(value))
}

/// The finalizers that make the garbage collector treat dependents as asked.
fn finalizers_after(endpoint: &Endpoint, current: &Object, propagation: Option<Propagation>) -> Vec<String> {
    let has = |name: &str| current.finalizers().any(|own| own == name);
    let (orphan, foreground) = match propagation {
        Some(Propagation::Orphan) => (true, false),
        Some(Propagation::Foreground) => (false, true),
        Some(Propagation::Background) => (false, false),
        None if has(FINALIZER_ORPHAN) || has(FINALIZER_FOREGROUND) => {
            (has(FINALIZER_ORPHAN), has(FINALIZER_FOREGROUND))
        }
        None => (endpoint.resource.strategy.orphans_dependents(), false),
    };
    let mut finalizers: Vec<String> = current
        .finalizers()
        .filter(|own| !matches!(*own, FINALIZER_ORPHAN | FINALIZER_FOREGROUND))
        .map(str::to_owned)
        .collect();
    if orphan {
        finalizers.push(FINALIZER_ORPHAN.to_owned());
    }
    if foreground {
        finalizers.push(FINALIZER_FOREGROUND.to_owned());
    }
    if finalizers.len() == current.finalizers().len()
        && current.finalizers().all(|own| finalizers.iter().any(|f| f == own))
    {
        return current.finalizers().map(str::to_owned).collect();
    }
    finalizers
}

/// `uid` and `version` are those of the object as it is.
pub(crate) fn check_preconditions(
    endpoint: &Endpoint,
    name: &str,
    (uid, version): (&str, &str),
    request: &DeleteRequest,
) -> Result<(), Status> {
    let conflict = |why: String| {
        let kind = apimachinery::GroupResource::new(&endpoint.resource.group, &endpoint.resource.kind);
        Err(Status::conflict(&kind, name, why))
    };
    if let Some(wanted) = request.uid.as_deref().filter(|wanted| *wanted != uid) {
        return conflict(format!(
            "the UID in the precondition ({wanted}) does not match the UID in record ({uid}). The object might have been \
             deleted and then recreated"
        ));
    }
    if let Some(wanted) = request.resource_version.as_deref().filter(|wanted| *wanted != version) {
        return conflict(format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record \
             ({version}). The object might have been modified"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use apimachinery::json;
    use apimachinery::object::{self, FieldPaths};
    use storage::Store;
    use watch_cache::WatchCache;

    use super::*;
    use crate::ServiceNetwork;

    #[tokio::test]
    async fn what_was_written_again_is_no_leftover() {
        let store = Arc::new(storage_embedded::memory());
        let cache = WatchCache::new();
        let widgets = cache.add_resource("/registry/example.com/widgets/", FieldPaths::NONE);
        store.observe("", cache.clone());
        let registry = Registry::new(store.clone(), cache, ServiceNetwork::default());
        let put = |name: &str, size: i64| {
            let value = json!({
                "apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "size": size,
            });
            let write = Write {
                key: format!("/registry/example.com/widgets/{name}").into(),
                precondition: Precondition::None,
                value: Some(object::encode(&value)),
                attachment: None,
                durability: Durability::Synced,
            };
            store.commit(write)
        };
        put("left", 1).await.unwrap();
        put("again", 1).await.unwrap();
        let leftovers = widgets.snapshot().objects;
        put("again", 2).await.unwrap();
        put("new", 1).await.unwrap();
        registry.discard(&leftovers).await.unwrap();
        let names: Vec<String> =
            widgets.snapshot().objects.values().map(|own| own.name().to_owned()).collect();
        assert_eq!(names, ["again", "new"]);
    }
}
