//! How components reach the API: lists, watches and writes, in process or over HTTPS.
//!
//! Owns: the [`Api`] contract, informers and listers over it, event recording. Never touches: storage, the API
//! server's insides. A component holds an `Arc<dyn Api>` that speaks under that component's own identity and cannot
//! tell which transport is behind it (law separable); every call is authenticated, authorized, admitted and validated
//! like one from outside (law one-door).

pub mod events;
pub mod fake;
pub mod informer;
pub mod key;
pub mod typed;

use std::pin::Pin;
use std::sync::Arc;

use apimachinery::{GroupVersion, GroupVersionResource, Object, Status, Str, Value};
use async_trait::async_trait;
use futures::Stream;

pub use events::Recorder;
pub use informer::{Delta, Informer, Informers};
pub use key::ObjectKey;

/// The verbs of the Kubernetes API on objects. An empty namespace means all namespaces for reads of collections,
/// and "none" for cluster-scoped resources.
#[async_trait]
pub trait Api: Send + Sync + 'static {
    async fn get(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        name: &str,
    ) -> Result<Arc<Object>, Status>;

    /// Reads a subresource (`scale`, `status`) as a tree. An object that is not there is named in the [`Status`]'s
    /// details; a resource without such a subresource is [`Status::no_such_path`].
    async fn get_subresource(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        name: &str,
        subresource: &str,
    ) -> Result<Value, Status>;

    /// Reads what is at a path with a query, as `kubectl get --raw` does. That may be what another API server behind
    /// this one serves, and then it need not be objects (`/apis/custom.metrics.k8s.io/v1beta2/…`).
    async fn get_raw(&self, path: &str) -> Result<Value, Status>;

    async fn list(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        options: &ListOptions,
    ) -> Result<ObjectList, Status>;

    /// Events after `options.revision`; the stream ends when the server closes it. An `Err` item is the watch's
    /// `ERROR` event (410 when the revision is too old: list again).
    async fn watch(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        options: &WatchOptions,
    ) -> Result<WatchStream, Status>;

    async fn create(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        object: Value,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, Status>;

    /// Creates through a subresource (`binding`, `eviction`, `token`) and returns the answer's tree.
    async fn create_subresource(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        name: &str,
        subresource: &str,
        body: Value,
    ) -> Result<Value, Status>;

    /// Replaces an object, or only its `subresource`. `metadata.resourceVersion` in the tree makes it conditional.
    async fn update(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        name: &str,
        subresource: Option<&str>,
        object: Value,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, Status>;

    async fn patch(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        name: &str,
        subresource: Option<&str>,
        patch: Patch,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, Status>;

    async fn delete(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<(), Status>;

    async fn delete_collection(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        selection: &ListOptions,
        options: &DeleteOptions,
    ) -> Result<(), Status>;

    /// Every resource that is served now, preferred versions only, subresources left out.
    async fn discover(&self) -> Result<Vec<Discovered>, Status>;

    /// As [`Api::discover`], but in every version, and with resources of which nothing is stored (reviews).
    async fn discover_all(&self) -> Result<Vec<Discovered>, Status>;

    /// The OpenAPI document (version 3) of a group version; [`Status::no_such_path`] if nothing of that is served.
    async fn openapi(&self, group_version: &GroupVersion) -> Result<Value, Status>;
}

/// Selectors are in their string form, as in a query.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    pub label_selector: String,
    pub field_selector: String,
    /// 0 is no limit.
    pub limit: usize,
    pub continue_token: String,
}

#[derive(Clone, Debug, Default)]
pub struct WatchOptions {
    pub label_selector: String,
    pub field_selector: String,
    /// Events after this revision (of a list). 0 starts with the present state as `Added` events.
    pub revision: u64,
}

#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// Recorded in managed fields; required for [`Patch::Apply`].
    pub field_manager: Str,
    pub dry_run: bool,
    /// Take over fields that another manager owns (apply only).
    pub force: bool,
}

#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    pub grace_period_seconds: Option<i64>,
    pub propagation: Option<Propagation>,
    /// Preconditions: delete only this incarnation, only this version.
    pub uid: Option<Str>,
    pub resource_version: Option<u64>,
}

impl DeleteOptions {
    /// Deletes this incarnation of an object, and no other that has its name by then.
    pub fn of(object: &Object) -> Self {
        Self { uid: Some(object.uid().into()), ..Self::default() }
    }
}

/// `DeletionPropagation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Orphan,
    Background,
    Foreground,
}

#[derive(Clone, Debug)]
pub enum Patch {
    /// RFC 6902.
    Json(Value),
    /// RFC 7386.
    Merge(Value),
    Strategic(Value),
    /// Server-side apply.
    Apply(Value),
}

/// Objects of one consistent read.
#[derive(Clone, Debug, Default)]
pub struct ObjectList {
    pub items: Vec<Arc<Object>>,
    /// The list's `resourceVersion`.
    pub revision: u64,
    /// Empty on the last page.
    pub continue_token: String,
}

#[derive(Clone, Debug)]
pub enum WatchEvent {
    Added(Arc<Object>),
    Modified(Arc<Object>),
    /// The last state, at the revision of the deletion.
    Deleted(Arc<Object>),
    /// Everything up to this revision was delivered.
    Bookmark(u64),
}

pub type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchEvent, Status>> + Send>>;

/// A served resource, as discovery lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovered {
    pub gvr: GroupVersionResource,
    pub kind: Str,
    pub namespaced: bool,
    pub verbs: Vec<Str>,
}
