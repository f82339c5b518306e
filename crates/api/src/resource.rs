//! [`Resource`]: the descriptor that makes a collection of objects servable.
//!
//! A built-in kind's descriptor is made from tables, a custom resource's from its CRD. The registry and the API
//! server know nothing else about a kind.

use std::sync::Arc;

use apimachinery::object::FieldPaths;
use apimachinery::schema::{NodeId, SchemaRef, Schemas};
use apimachinery::{GroupKind, GroupResource, GroupVersionKind, GroupVersionResource, Str};
use bytes::Bytes;

use crate::Strategy;
use crate::conversion::Converter;
use crate::strategy::Columns;

/// One served version of a collection.
pub struct Resource {
    pub group: Str,
    pub version: Str,
    pub kind: Str,
    /// Lower-case plural, as in the path.
    pub plural: Str,
    pub singular: Str,
    pub list_kind: Str,
    pub short_names: Vec<Str>,
    pub categories: Vec<Str>,
    pub namespaced: bool,
    /// Sorted, in discovery's words: `create`, `delete`, `deletecollection`, `get`, `list`, `patch`, `update`, `watch`.
    pub verbs: Vec<Str>,
    pub subresources: Vec<Subresource>,
    /// The version in which objects are stored; empty for kinds that are never stored (reviews).
    pub storage_version: Str,
    /// Key prefix in storage with a trailing slash, as upstream lays it out: `/registry/pods/`. Shared by all
    /// served versions of the kind. Namespaced keys go on `{namespace}/{name}`, others `{name}`.
    pub storage_prefix: Str,
    pub schema: Schema,
    /// Dotted paths usable in a field selector; always begins with `metadata.name` and, when namespaced,
    /// `metadata.namespace`. The position in this list is the index for `Object::field`.
    pub selectable_fields: FieldPaths,
    pub columns: Columns,
    pub strategy: Arc<dyn Strategy>,
    /// What everybody who uses this version is told.
    pub deprecation: Option<Str>,
    /// What sets a custom resource apart; `None` for built-in kinds.
    pub custom: Option<Custom>,
    /// `"apiVersion":"…","kind":"…",` of this served version.
    pub type_meta: Bytes,
    /// Items of its lists carry no `apiVersion` and `kind` (built-in kinds).
    pub bare_list_items: bool,
}

/// The part of a descriptor that comes from a CustomResourceDefinition.
#[derive(Clone, Default)]
pub struct Custom {
    /// Its definition is being deleted: nothing new may be created.
    pub terminating: bool,
    /// Where the `scale` subresource finds what it shows.
    pub scale: Option<ScalePaths>,
    /// Set when stored objects may need more than another `apiVersion` to be shown.
    pub converter: Option<Arc<dyn Converter>>,
}

/// `spec.versions[].subresources.scale`, as dotted paths that begin with a dot.
#[derive(Clone, Debug)]
pub struct ScalePaths {
    pub spec_replicas: Str,
    pub status_replicas: Str,
    /// Empty when there is none.
    pub label_selector: Str,
}

/// A subresource such as `status` or `scale`.
#[derive(Clone, Debug)]
pub struct Subresource {
    pub name: Str,
    /// The kind it takes and answers with; equals the parent's for `status`.
    pub kind: GroupVersionKind,
    pub verbs: Vec<Str>,
}

/// A schema node with its arena, shared.
#[derive(Clone, Debug)]
pub struct Schema {
    pub schemas: Arc<Schemas>,
    pub root: NodeId,
}

impl Schema {
    pub fn root(&self) -> SchemaRef<'_> {
        self.schemas.at(self.root)
    }
}

impl Resource {
    pub fn gvk(&self) -> GroupVersionKind {
        GroupVersionKind { group: self.group.clone(), version: self.version.clone(), kind: self.kind.clone() }
    }

    pub fn gvr(&self) -> GroupVersionResource {
        GroupVersionResource {
            group: self.group.clone(),
            version: self.version.clone(),
            resource: self.plural.clone(),
        }
    }

    pub fn group_kind(&self) -> GroupKind {
        GroupKind { group: self.group.clone(), kind: self.kind.clone() }
    }

    pub fn group_resource(&self) -> GroupResource {
        GroupResource { group: self.group.clone(), resource: self.plural.clone() }
    }

    /// The `apiVersion` of this served version.
    pub fn api_version(&self) -> String {
        self.gvk().api_version()
    }

    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.iter().any(|own| own == verb)
    }

    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|sub| sub.name == name)
    }

    /// Whether objects of this resource are ever written to storage.
    pub fn is_stored(&self) -> bool {
        !self.storage_prefix.is_empty()
    }

    /// The storage key of an object.
    pub fn key(&self, namespace: &str, name: &str) -> Arc<str> {
        if self.namespaced {
            format!("{}{namespace}/{name}", self.storage_prefix).into()
        } else {
            format!("{}{name}", self.storage_prefix).into()
        }
    }

    /// The prefix under which a namespace's objects, or with an empty namespace all objects, are stored.
    pub fn key_prefix(&self, namespace: &str) -> String {
        if self.namespaced && !namespace.is_empty() {
            format!("{}{namespace}/", self.storage_prefix)
        } else {
            self.storage_prefix.to_string()
        }
    }
}

impl std::fmt::Debug for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.gvr())
    }
}
