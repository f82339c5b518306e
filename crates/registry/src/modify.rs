//! Update and patch: read, produce the new state, check, commit if nobody else was quicker.

use std::sync::Arc;

use apimachinery::{Object, Status, Value};
use storage::{Precondition, Revision};

use crate::admission::{Attributes, Operation};
use crate::{CONFLICT_RETRIES_MAX, CommitFailure, Endpoint, Registry, WriteContext, managed, metadata};

/// Makes the new state from the present one (`None`: there is no such object). Called again after a conflict.
pub type Produce<'a> = dyn FnMut(Option<&Value>) -> Result<Rewrite, Status> + Send + 'a;

/// A new state.
pub struct Rewrite {
    pub object: Value,
    /// Its managed fields are already kept (server-side apply keeps them itself).
    pub managed: bool,
    /// `metadata.resourceVersion` was named by the caller, so a conflict is the caller's and not ours to retry.
    pub conditional: bool,
    /// Made by the server itself (a binding), not by a client's body: it is neither admitted nor validated again.
    pub trusted: bool,
}

impl Rewrite {
    /// A replacement as a client sent it: conditional when it names a version.
    pub fn replacement(object: Value) -> Self {
        Self { object, managed: false, conditional: true, trusted: false }
    }

    /// A state derived from the present one. It is conditional only if the version was changed on the way, as a
    /// patch that names another one does.
    pub fn of_current(object: Value, current: &Value) -> Self {
        let conditional = object["metadata"]["resourceVersion"] != current["metadata"]["resourceVersion"];
        Self { object, managed: false, conditional, trusted: false }
    }
}

/// What a modification led to.
pub struct Modified {
    pub object: Arc<Object>,
    pub created: bool,
}

impl Registry {
    /// Changes one object. With `create_if_missing` (server-side apply, and kinds that allow it on PUT) a missing one
    /// is created.
    pub async fn modify(
        &self,
        endpoint: &Endpoint,
        ctx: &WriteContext<'_>,
        name: &str,
        create_if_missing: bool,
        produce: &mut Produce<'_>,
    ) -> Result<Modified, Status> {
        let resource = &endpoint.resource;
        let key = resource.key(ctx.namespace, name);
        for _ in 0..CONFLICT_RETRIES_MAX {
            let Some(current) = endpoint.cache.get(&key) else {
                if !create_if_missing {
                    return Err(Status::not_found(&resource.group_resource(), name));
                }
                let mut rewrite = produce(None)?;
                // What it was based on is gone; creating is what the caller is allowed here.
                rewrite.object.remove_at(&["metadata", "resourceVersion"]);
                match self.create_managed(endpoint, ctx, rewrite.object, rewrite.managed).await {
                    Err(status) if status.is_already_exists() => continue,
                    done => return Ok(Modified { object: done?, created: true }),
                }
            };
            match self.modify_once(endpoint, ctx, &current, produce).await? {
                Some(object) => return Ok(Modified { object, created: false }),
                None => continue,
            }
        }
        Err(Status::stale(&resource.group_resource(), name))
    }

    /// One attempt; `None` when it should be repeated on a newer state.
    async fn modify_once(
        &self,
        endpoint: &Endpoint,
        ctx: &WriteContext<'_>,
        current: &Arc<Object>,
        produce: &mut Produce<'_>,
    ) -> Result<Option<Arc<Object>>, Status> {
        let resource = &endpoint.resource;
        let strategy = &resource.strategy;
        let shown = endpoint.read(current.clone()).await?;
        let old = endpoint.served(&shown);
        let Rewrite { object: mut new, managed: fields_managed, conditional, trusted } = produce(Some(&old))?;
        let named_version = conditional && check_version(endpoint, ctx, current, &new)?;
        check_uid(endpoint, current, &new)?;
        metadata::ensure_namespace(resource, ctx, &mut new)?;
        metadata::begin_update(&mut new, &old);
        strategy.default(&mut new);
        // Before admission: what a plugin fills in belongs to nobody.
        if !fields_managed {
            managed::track(endpoint, ctx, &mut new, Some(&old));
        }
        let attributes = Attributes {
            registry: self,
            operation: Operation::Update,
            resource,
            subresource: ctx.subresource,
            namespace: ctx.namespace,
            name: current.name(),
            generate_name: "",
            user: ctx.user,
            dry_run: ctx.dry_run,
            old: Some(&shown),
            old_tree: Some(&old),
            field_manager: ctx.field_manager,
            delete: None,
            warnings: ctx.warnings,
        };
        let admission = self.admission()?;
        if !trusted {
            admission.mutate(&attributes, Some(&mut new)).await?;
        }
        let strategy_ctx = self.strategy_context(ctx);
        strategy.prepare_for_update(&strategy_ctx, &mut new, &old);
        let reservation = self.services.reserve(endpoint, ctx, &mut new, Some(&old))?;
        metadata::bump_generation(resource, &strategy_ctx, &mut new, &old);
        if !trusted {
            let mut errors = self.device_access(endpoint, ctx, &new, Some(&old));
            errors.extend(metadata::validate_update(resource, &strategy_ctx, &new, &old));
            if !errors.is_empty() {
                return Err(Status::invalid(&endpoint.group_kind(), current.name(), &errors));
            }
            strategy
                .warnings(&strategy_ctx, &new, Some(&old))
                .into_iter()
                .for_each(|text| ctx.warnings.add(text));
            admission.validate(&attributes, Some(&new)).await?;
        }
        apimachinery::managed_fields::keep_timestamps_of_unchanged(&old, &mut new);
        let finished = metadata::is_finished(resource, &new);
        let draft = endpoint.draft(new).await?;
        if draft.json() == current.json() {
            return Ok(Some(current.clone()));
        }
        let outcome = if finished {
            drop(reservation);
            self.remove(endpoint, ctx, current).await.map(|last| Arc::new(draft.at_revision(last.revision())))
        } else {
            let precondition = Precondition::ModRevision(Revision(current.revision()));
            self.commit(endpoint, ctx, current.name(), draft, precondition, reservation).await
        };
        match outcome {
            Ok(object) => Ok(Some(object)),
            Err(CommitFailure::Precondition) if named_version => {
                Err(Status::stale(&resource.group_resource(), current.name()))
            }
            Err(CommitFailure::Precondition) => Ok(None),
            Err(CommitFailure::Other(status)) => Err(status),
        }
    }
}

/// Whether the caller named the version it started from, and if so whether it is still the present one.
fn check_version(
    endpoint: &Endpoint,
    ctx: &WriteContext<'_>,
    current: &Object,
    new: &Value,
) -> Result<bool, Status> {
    let resource = &endpoint.resource;
    let given = new.str_at(&["metadata", "resourceVersion"]);
    if given.is_empty() || given == "0" {
        if resource.strategy.allow_unconditional_update() || ctx.subresource.is_some() {
            return Ok(false);
        }
        let error = apimachinery::field::Error::invalid(
            &apimachinery::field::Path::root("metadata.resourceVersion"),
            0_i64,
            "must be specified for an update",
        );
        return Err(Status::invalid(&resource.group_kind(), current.name(), &[error]));
    }
    match given.parse::<u64>() {
        Ok(revision) if revision == current.revision() => Ok(true),
        _ => Err(Status::stale(&resource.group_resource(), current.name())),
    }
}

fn check_uid(endpoint: &Endpoint, current: &Object, new: &Value) -> Result<(), Status> {
    let given = new.str_at(&["metadata", "uid"]);
    if given.is_empty() || given == current.uid() {
        return Ok(());
    }
    let why =
        format!("Precondition failed: UID in precondition: {given}, UID in object meta: {}", current.uid());
    Err(Status::conflict(&endpoint.resource.group_resource(), current.name(), why))
}
