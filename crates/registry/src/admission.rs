//! The seam between the verbs and the admission chain (crate `admission`).

use std::borrow::Cow;

use api::Resource;
use apimachinery::{Object, Status, Value};
use async_trait::async_trait;
use auth::UserInfo;

use crate::delete::{DeleteRequest, Propagation};
use crate::{Endpoint, Registry, Warnings, WriteContext, metadata};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

impl Operation {
    /// As rules and reviews spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// What is asked for. The new object is passed beside it, since mutation changes it.
#[derive(Clone, Copy)]
pub struct Attributes<'a> {
    /// For plugins that write themselves, as quotas are charged.
    pub registry: &'a Registry,
    pub operation: Operation,
    pub resource: &'a Resource,
    pub subresource: Option<&'a str>,
    pub namespace: &'a str,
    /// Empty for a create with `generateName` while it is mutated.
    pub name: &'a str,
    pub generate_name: &'a str,
    pub user: &'a UserInfo,
    pub dry_run: bool,
    /// The stored state, for updates and deletes; one of a custom resource was [read](Endpoint::read) before.
    pub old: Option<&'a Object>,
    /// The same as a tree of the served version, where there is one already.
    pub old_tree: Option<&'a Value>,
    /// As the caller named it, or was named for it.
    pub field_manager: &'a str,
    /// What a delete was asked to be like.
    pub delete: Option<&'a DeleteRequest>,
    pub warnings: &'a Warnings,
}

impl<'a> Attributes<'a> {
    /// The stored state as a tree of the served version.
    pub fn old_value(&self) -> Option<Cow<'a, Value>> {
        if let Some(tree) = self.old_tree {
            return Some(Cow::Borrowed(tree));
        }
        self.old.map(|old| Cow::Owned(crate::served(self.resource, old)))
    }

    /// Whether this is about `group`/`plural` itself (no subresource).
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.subresource.is_none() && self.resource.group == group && self.resource.plural == plural
    }

    /// Whether this is about a subresource of `group`/`plural`.
    pub fn is_sub(&self, group: &str, plural: &str, subresource: &str) -> bool {
        self.subresource == Some(subresource)
            && self.resource.group == group
            && self.resource.plural == plural
    }

    /// The name as refusals have it: before it is made, what it is made from.
    pub fn shown_name(&self) -> &str {
        if self.name.is_empty() { self.generate_name } else { self.name }
    }

    /// `CreateOptions`, `UpdateOptions` or `DeleteOptions` of the request; `Null` for a connect.
    pub fn options(&self) -> Value {
        let kind = match self.operation {
            Operation::Create => "CreateOptions",
            Operation::Update => "UpdateOptions",
            Operation::Delete => "DeleteOptions",
            Operation::Connect => return Value::Null,
        };
        let mut options = Value::object();
        let map = options.ensure_object();
        map.insert("kind", kind);
        map.insert("apiVersion", "meta.k8s.io/v1");
        if self.dry_run {
            map.insert("dryRun", vec!["All"]);
        }
        match self.delete {
            None if self.field_manager.is_empty() || self.operation == Operation::Delete => {}
            None => {
                map.insert("fieldManager", self.field_manager);
            }
            Some(delete) => delete.describe(map),
        }
        options
    }
}

impl DeleteRequest {
    fn describe(&self, options: &mut apimachinery::Map) {
        if let Some(seconds) = self.grace_period_seconds {
            options.insert("gracePeriodSeconds", seconds);
        }
        if let Some(propagation) = self.propagation {
            let name = match propagation {
                Propagation::Orphan => "Orphan",
                Propagation::Background => "Background",
                Propagation::Foreground => "Foreground",
            };
            options.insert("propagationPolicy", name);
        }
        let named = [("uid", &self.uid), ("resourceVersion", &self.resource_version)];
        let preconditions: Value = named
            .into_iter()
            .filter_map(|(key, value)| Some((key.into(), Value::from(value.clone()?))))
            .collect();
        if preconditions.as_object().is_some_and(|map| !map.is_empty()) {
            options.insert("preconditions", preconditions);
        }
    }
}

/// All mutating plugins, then (after validation) all validating ones, as upstream orders them.
#[async_trait]
pub trait Admission: Send + Sync + 'static {
    /// `object` is `None` for a delete.
    async fn mutate(&self, attributes: &Attributes<'_>, object: Option<&mut Value>) -> Result<(), Status>;

    /// `object` is `None` for a delete.
    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status>;
}

impl Registry {
    /// Admits what is stored nowhere itself: a review, a binding, an eviction, a token request, the options of a
    /// connection.
    pub async fn admit_unstored(
        &self,
        endpoint: &Endpoint,
        ctx: &WriteContext<'_>,
        operation: Operation,
        name: &str,
        object: &mut Value,
    ) -> Result<(), Status> {
        // In the binding of a pod the uid is a precondition; elsewhere only the server says such things.
        if operation == Operation::Create && ctx.subresource != Some("binding") {
            metadata::wipe_system_fields(object);
        }
        let attributes = Attributes {
            registry: self,
            operation,
            resource: &endpoint.resource,
            subresource: ctx.subresource,
            namespace: ctx.namespace,
            name,
            generate_name: "",
            user: ctx.user,
            dry_run: ctx.dry_run,
            old: None,
            old_tree: None,
            field_manager: ctx.field_manager,
            delete: None,
            warnings: ctx.warnings,
        };
        let admission = self.admission()?;
        admission.mutate(&attributes, Some(object)).await?;
        admission.validate(&attributes, Some(object)).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use api::resource::Custom;
    use apimachinery::json;
    use watch_cache::WatchCache;

    use super::*;
    use crate::ServiceNetwork;

    #[test]
    fn the_old_object_of_a_custom_resource_is_shown_in_the_version_of_the_request() {
        let mut built_in = api::builtin::resources().into_iter();
        let any = built_in.find(|own| own.plural == "configmaps").expect("a built-in resource");
        let mut resource = Arc::into_inner(any).expect("nobody else has it");
        resource.custom = Some(Custom::default());
        (resource.group, resource.kind) = ("example.com".into(), "Widget".into());
        (resource.version, resource.storage_version) = ("v2".into(), "v2".into());
        let stored = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}});
        let stored = Object::from_value(&stored, 1, &[]).expect("an object");
        let store = Arc::new(storage_embedded::memory());
        let attributes = Attributes {
            registry: &Registry::new(store, WatchCache::new(), ServiceNetwork::default()),
            operation: Operation::Delete,
            resource: &resource,
            subresource: None,
            namespace: "",
            name: "w",
            generate_name: "",
            user: &UserInfo::new("jane"),
            dry_run: false,
            old: Some(&stored),
            old_tree: None,
            field_manager: "",
            delete: None,
            warnings: &Warnings::default(),
        };
        let shown = attributes.old_value().expect("there is one");
        assert_eq!(shown.str_at(&["apiVersion"]), "example.com/v2");
    }
}
