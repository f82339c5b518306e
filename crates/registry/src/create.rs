//! Create.

use std::sync::Arc;

use apimachinery::{Object, Status, Value};
use storage::Precondition;

use crate::admission::{Attributes, Operation};
use crate::{CommitFailure, Endpoint, Registry, WriteContext, managed, metadata};

/// A generated name that is taken is generated again this often.
const GENERATED_NAME_TRIES_MAX: usize = 8;

impl Registry {
    /// Creates an object from a tree of the served version (decoded, not yet defaulted).
    pub async fn create(
        &self,
        endpoint: &Endpoint,
        ctx: &WriteContext<'_>,
        object: Value,
    ) -> Result<Arc<Object>, Status> {
        self.create_managed(endpoint, ctx, object, false).await
    }

    /// As [`Registry::create`]; with `already_managed` the object brings its managed fields (server-side apply).
    pub(crate) async fn create_managed(
        &self,
        endpoint: &Endpoint,
        ctx: &WriteContext<'_>,
        mut object: Value,
        already_managed: bool,
    ) -> Result<Arc<Object>, Status> {
        let resource = &endpoint.resource;
        let strategy = &resource.strategy;
        if !matches!(object.str_at(&["metadata", "resourceVersion"]), "" | "0") {
            return Err(Status::internal("resourceVersion should not be set on objects to be created"));
        }
        metadata::ensure_namespace(resource, ctx, &mut object)?;
        strategy.default(&mut object);
        // Before admission: what a plugin fills in belongs to nobody.
        if !already_managed {
            managed::track(endpoint, ctx, &mut object, None);
        }
        let given_name = object.str_at(&["metadata", "name"]).to_owned();
        let wanted_name = object.str_at(&["metadata", "generateName"]).to_owned();
        let attributes = Attributes {
            registry: self,
            operation: Operation::Create,
            resource,
            subresource: ctx.subresource,
            namespace: ctx.namespace,
            name: &given_name,
            generate_name: &wanted_name,
            user: ctx.user,
            dry_run: ctx.dry_run,
            old: None,
            old_tree: None,
            field_manager: ctx.field_manager,
            delete: None,
            warnings: ctx.warnings,
        };
        let admission = self.admission()?;
        if resource.custom.as_ref().is_some_and(|custom| custom.terminating) {
            let why = "create not allowed while custom resource definition is terminating";
            return Err(Status::forbidden(&resource.group_resource(), attributes.shown_name(), why));
        }
        admission.mutate(&attributes, Some(&mut object)).await?;
        // After mutation, as upstream: webhooks see that the name is still to be made.
        if metadata::wants_generated_name(&object) {
            generate_name(endpoint, ctx, &mut object);
        }
        let name = object.str_at(&["metadata", "name"]).to_owned();
        let attributes = Attributes { name: &name, ..attributes };
        metadata::begin_create(resource, ctx, &mut object);
        let strategy_ctx = self.strategy_context(ctx);
        strategy.prepare_for_create(&strategy_ctx, &mut object);
        metadata::record_requester(resource, ctx, &mut object);
        let reservation = self.services.reserve(endpoint, ctx, &mut object, None)?;
        let mut errors = self.device_access(endpoint, ctx, &object, None);
        errors.extend(metadata::validate_create(resource, &strategy_ctx, &object));
        if !errors.is_empty() {
            return Err(Status::invalid(&endpoint.group_kind(), &name, &errors));
        }
        strategy.warnings(&strategy_ctx, &object, None).into_iter().for_each(|text| ctx.warnings.add(text));
        admission.validate(&attributes, Some(&object)).await?;
        let draft = endpoint.draft(object).await?;
        match self.commit(endpoint, ctx, &name, draft, Precondition::Absent, reservation).await {
            Ok(object) => Ok(object),
            Err(CommitFailure::Precondition) => {
                Err(Status::already_exists(&resource.group_resource(), &name))
            }
            Err(CommitFailure::Other(status)) => Err(status),
        }
    }
}

/// Names an object after its `generateName`.
fn generate_name(endpoint: &Endpoint, ctx: &WriteContext<'_>, object: &mut Value) {
    for _ in 0..GENERATED_NAME_TRIES_MAX {
        metadata::generate_name(object);
        let name = object.str_at(&["metadata", "name"]);
        // Looked up first, so that the tree need not be kept for another try but in a race.
        if endpoint.cache.get(&endpoint.resource.key(ctx.namespace, name)).is_none() {
            return;
        }
    }
}
