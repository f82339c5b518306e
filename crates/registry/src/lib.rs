//! The generic verbs of the API over the watch cache and the store, for every kind alike.
//!
//! Owns: metadata the server decides, optimistic concurrency, finalizers and graceful deletion, paging, the order in
//! which defaulting, admission and validation happen. Never touches: HTTP, authentication, what a kind means (its
//! [`api::Strategy`] says that).
//!
//! Law (one-door): every write of the platform, also a controller's, ends in [`Registry::create`],
//! [`Registry::modify`] or [`Registry::delete`]; nothing else commits to the store.
//!
//! A write: tree in the served version → defaults → mutating admission → strategy → managed fields → validation →
//! validating admission → encode once → conditional commit → the same bytes are cached and answered.

pub mod admission;
mod create;
mod delete;
mod device_access;
mod eviction;
pub mod managed;
mod metadata;
mod modify;
pub mod pods;
mod read;
mod services;
mod watch;

use std::sync::Arc;

use api::Resource;
use api::conversion::Converter;
use api::resource::Schema;
use apimachinery::object::FieldPaths;
use apimachinery::{GroupKind, GroupVersionKind, Object, Status, Value, object};
use auth::UserInfo;
use jiff::Timestamp;
use parking_lot::Mutex;
use storage::{Durability, Precondition, Store, Write};
use watch_cache::{LoadError, ResourceCache, WatchCache};

pub use admission::Admission;
pub use delete::{DeleteRequest, Deleted, Propagation};
pub use modify::{Modified, Produce, Rewrite};
pub use read::{Filter, ListRequest, Page, RevisionMatch};
use services::Reservation;
pub use services::{Block, IP_ALLOCATOR, NetworkError, PortRange, ServiceNetwork};
pub use watch::{WatchEvent, WatchEventKind, WatchRequest, WatchStart, WatchStream};

/// A conditional write is repeated this often when someone else was quicker, as long as the caller did not name a
/// version; then the conflict is the caller's.
const CONFLICT_RETRIES_MAX: usize = 64;

/// Storage and cache of every resource, and the chain every write passes.
pub struct Registry {
    store: Arc<dyn Store>,
    cache: Arc<WatchCache>,
    admission: std::sync::OnceLock<Arc<dyn Admission>>,
    services: services::Allocator,
    /// Set once the cache was loaded.
    namespaces: std::sync::OnceLock<Endpoint>,
    allow_privileged: bool,
}

/// One served version of a resource with its cache.
#[derive(Clone)]
pub struct Endpoint {
    pub resource: Arc<Resource>,
    pub cache: Arc<ResourceCache>,
    /// Set for a kind that upstream stores as protobuf: what its objects are written by.
    stored_like_protobuf: Option<Schema>,
}

/// Who writes, and how.
pub struct WriteContext<'a> {
    pub user: &'a UserInfo,
    /// Empty for cluster-scoped resources.
    pub namespace: &'a str,
    pub subresource: Option<&'a str>,
    /// Everything happens but the commit.
    pub dry_run: bool,
    /// For managed fields.
    pub field_manager: &'a str,
    pub now: Timestamp,
    /// `Warning` headers for the answer.
    pub warnings: &'a Warnings,
}

/// What is said beside the answer while a request is served: warnings to the client, annotations to the audit log.
#[derive(Debug, Default)]
pub struct Warnings {
    texts: Mutex<Vec<String>>,
    annotations: Mutex<Vec<(String, String)>>,
}

impl Warnings {
    /// Adds a warning unless the same one is there already.
    pub fn add(&self, text: impl Into<String>) {
        let text = text.into();
        let mut list = self.texts.lock();
        if !list.contains(&text) {
            list.push(text);
        }
    }

    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.texts.lock())
    }

    /// Adds an audit annotation. The first value of a key stays, as upstream has it.
    pub fn annotate(&self, key: impl Into<String>, value: impl Into<String>) {
        let (key, value) = (key.into(), value.into());
        let mut list = self.annotations.lock();
        if !list.iter().any(|(own, _)| *own == key) {
            list.push((key, value));
        }
    }

    pub fn take_annotations(&self) -> Vec<(String, String)> {
        std::mem::take(&mut self.annotations.lock())
    }
}

impl Registry {
    pub fn new(store: Arc<dyn Store>, cache: Arc<WatchCache>, network: ServiceNetwork) -> Self {
        let services = services::Allocator::new(network);
        let (admission, namespaces) = (std::sync::OnceLock::new(), std::sync::OnceLock::new());
        Self { store, cache, admission, services, namespaces, allow_privileged: true }
    }

    /// Whether containers may be privileged; they may unless this says otherwise.
    pub fn allowing_privileged(self, allow_privileged: bool) -> Self {
        Self { allow_privileged, ..self }
    }

    /// Installs the admission chain; it reads through the registry, so it is made after it. Until then nothing can
    /// be written.
    pub fn set_admission(&self, chain: Arc<dyn Admission>) {
        if self.admission.set(chain).is_err() {
            tracing::error!("Admission chain was set twice; the first one stays");
        }
    }

    /// What a kind's rules may know about a write.
    fn strategy_context<'a>(&self, ctx: &'a WriteContext<'_>) -> api::strategy::Context<'a> {
        api::strategy::Context {
            now: ctx.now,
            user: ctx.user.name(),
            subresource: ctx.subresource,
            allow_privileged: self.allow_privileged,
        }
    }

    pub fn endpoint(&self, resource: Arc<Resource>) -> Endpoint {
        let cache = self.cache.add_resource(&resource.storage_prefix, resource.selectable_fields.clone());
        cache.measured_as(&resource.group, &resource.plural);
        Endpoint::new(resource, cache)
    }

    /// As [`Registry::endpoint`], for a custom resource; `fields` are those of all its versions.
    pub fn custom_endpoint(&self, resource: Arc<Resource>, fields: FieldPaths) -> Endpoint {
        let cache = self.cache.add_resource(&resource.storage_prefix, fields);
        cache.measured_as(&resource.group, &resource.plural);
        Endpoint::new(resource, cache)
    }

    /// As [`Registry::custom_endpoint`], for a resource that comes while the store is in use: what it holds is there when this
    /// returns.
    pub fn endpoint_at_run_time(
        &self,
        resource: Arc<Resource>,
        fields: &FieldPaths,
    ) -> Result<Endpoint, LoadError> {
        let cache = self.cache.load_resource(&resource.storage_prefix, fields, self.store.as_ref())?;
        cache.measured_as(&resource.group, &resource.plural);
        Ok(Endpoint::new(resource, cache))
    }

    /// An endpoint of a kind that is answered and never stored (reviews); its cache stays empty.
    pub fn unstored_endpoint(&self, resource: Arc<Resource>) -> Endpoint {
        let path = format!("/unstored/{}/{}/", resource.group, resource.plural);
        let cache = self.cache.add_resource(&path, resource.selectable_fields.clone());
        Endpoint::new(resource, cache)
    }

    pub fn cache(&self) -> &Arc<WatchCache> {
        &self.cache
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Rebuilds what is derived from stored objects: call once after the cache was loaded.
    pub fn recover(
        &self,
        namespaces: Endpoint,
        services: &Endpoint,
        service_cidrs: Endpoint,
        ip_addresses: Endpoint,
    ) {
        let _ = self.namespaces.set(namespaces);
        self.services.recover(services, service_cidrs, ip_addresses);
    }

    fn admission(&self) -> Result<&Arc<dyn Admission>, Status> {
        self.admission.get().ok_or_else(|| Status::unavailable("admission is not ready yet"))
    }

    /// Commits a new state and returns the committed object. `reservation` is kept if that succeeds.
    async fn commit(
        &self,
        endpoint: &Endpoint,
        ctx: &WriteContext<'_>,
        name: &str,
        draft: Object,
        precondition: Precondition,
        reservation: Reservation,
    ) -> Result<Arc<Object>, CommitFailure> {
        let resource = &endpoint.resource;
        let key = resource.key(ctx.namespace, name);
        if ctx.dry_run {
            let current = endpoint.cache.get(&key).map_or(0, |object| object.revision());
            let holds = match precondition {
                Precondition::Absent => current == 0,
                Precondition::ModRevision(revision) => current == revision.0,
                _ => true,
            };
            return if holds {
                Ok(Arc::new(draft.at_revision(current)))
            } else {
                Err(CommitFailure::Precondition)
            };
        }
        let draft = Arc::new(draft);
        let write = Write {
            key: key.clone(),
            precondition,
            value: Some(draft.json().clone()),
            attachment: Some(draft.clone()),
            durability: durability(resource),
        };
        let revision = self.write(resource, write, reservation).await?;
        // The observer ran before the answer, so the cache holds this write, or a later one.
        match endpoint.cache.get(&key) {
            Some(cached) if cached.revision() == revision => Ok(cached),
            _ => Ok(Arc::new(draft.at_revision(revision))),
        }
    }

    /// Commits the removal of an object, if it is still in this state.
    async fn remove(
        &self,
        endpoint: &Endpoint,
        ctx: &WriteContext<'_>,
        object: &Object,
    ) -> Result<Object, CommitFailure> {
        if ctx.dry_run {
            return Ok(object.at_revision(object.revision()));
        }
        let write = Write {
            key: endpoint.resource.key(ctx.namespace, object.name()),
            precondition: Precondition::ModRevision(storage::Revision(object.revision())),
            value: None,
            attachment: None,
            durability: durability(&endpoint.resource),
        };
        let reservation = self.services.releasing(&endpoint.resource, object);
        let revision = self.write(&endpoint.resource, write, reservation).await?;
        Ok(object.at_revision(revision))
    }

    /// One conditional write, counted.
    async fn write(
        &self,
        resource: &Resource,
        write: Write,
        reservation: Reservation,
    ) -> Result<u64, CommitFailure> {
        let operation = match (&write.value, write.precondition) {
            (None, _) => "delete",
            (Some(_), Precondition::Absent) => "create",
            (Some(_), _) => "update",
        };
        let began = rt::instant();
        let outcome = self.write_reserved(write, reservation).await;
        let metrics = &telemetry::metrics().storage_requests;
        metrics.request(operation, &resource.group, &resource.plural, began.elapsed());
        outcome
    }

    /// A caller that gives up waiting (its client went away) does not stop the commit, so what depends on the outcome is
    /// settled by a task of its own.
    async fn write_reserved(&self, write: Write, reservation: Reservation) -> Result<u64, CommitFailure> {
        if reservation.is_empty() {
            return Ok(self.store.commit(write).await?.revision.0);
        }
        let store = self.store.clone();
        let (sender, outcome) = tokio::sync::oneshot::channel();
        rt::spawn("service commit", async move {
            let result = store.commit(write).await;
            if result.is_ok() {
                reservation.keep();
            }
            let _ = sender.send(result);
        });
        let result =
            outcome.await.map_err(|_| CommitFailure::Other(Status::internal("the commit was lost")))?;
        Ok(result?.revision.0)
    }
}

fn durability(resource: &Resource) -> Durability {
    if resource.strategy.relaxed_durability() { Durability::Relaxed } else { Durability::Synced }
}

/// Why a commit did not happen.
enum CommitFailure {
    /// Someone else wrote first.
    Precondition,
    Other(Status),
}

impl From<storage::Error> for CommitFailure {
    fn from(error: storage::Error) -> Self {
        match error {
            storage::Error::PreconditionFailed { .. } => Self::Precondition,
            other => Self::Other(storage_status(&other)),
        }
    }
}

/// Storage's failures as the API reports them.
fn storage_status(error: &storage::Error) -> Status {
    match error {
        storage::Error::Compacted { .. } => {
            Status::expired("The resourceVersion for the provided list is too old.")
        }
        storage::Error::Closed => Status::unavailable("the store is closed: the server is shutting down"),
        other => {
            tracing::error!(error = %telemetry::chain(other), "Store refused a write");
            Status::internal(telemetry::chain(other))
        }
    }
}

impl Endpoint {
    pub fn new(resource: Arc<Resource>, cache: Arc<ResourceCache>) -> Self {
        let stored_like_protobuf = api::builtin::stored_like_protobuf(&resource);
        Self { resource, cache, stored_like_protobuf }
    }

    /// The object as this version shows it, for reading. Only custom resources that need more than their name replaced
    /// ever wait here; everything else is handed on as it is.
    pub async fn read(&self, object: Arc<Object>) -> Result<Arc<Object>, Status> {
        match self.converter() {
            Some(converter) if converter.is_needed(&object) => {
                let read = converter.read(vec![object.to_value()]).await?;
                read.first().map_or(Ok(object.clone()), |value| rebuilt(value, &object))
            }
            _ => Ok(object),
        }
    }

    /// As [`Endpoint::read`], for many at once.
    pub async fn read_all(&self, mut objects: Vec<Arc<Object>>) -> Result<Vec<Arc<Object>>, Status> {
        let Some(converter) = self.converter() else { return Ok(objects) };
        let (places, trees): (Vec<usize>, Vec<Value>) = objects
            .iter()
            .enumerate()
            .filter(|(_, object)| converter.is_needed(object))
            .map(|(at, object)| (at, object.to_value()))
            .unzip();
        if places.is_empty() {
            return Ok(objects);
        }
        let read = converter.read(trees).await?;
        for (at, value) in places.into_iter().zip(&read) {
            objects[at] = rebuilt(value, &objects[at])?;
        }
        Ok(objects)
    }

    /// The tree of a stored object in this endpoint's served version. One of a custom resource was [read] before.
    ///
    /// [read]: Endpoint::read
    pub fn served(&self, object: &Object) -> Value {
        served(&self.resource, object)
    }

    /// Whether stored bytes need more than another `apiVersion` to be served.
    pub fn needs_conversion(&self) -> bool {
        self.resource.custom.is_none() && api::conversion::is_needed(&self.stored_gvk(), &self.resource.gvk())
    }

    /// Encodes a tree of the served version as it is stored.
    async fn draft(&self, mut value: Value) -> Result<Object, Status> {
        match self.converter() {
            Some(converter) => value = converter.write(value).await?,
            None => convert(&self.resource, &mut value, &self.resource.gvk(), &self.stored_gvk()),
        }
        let encoded = match &self.stored_like_protobuf {
            Some(schema) => object::encode_like_protobuf(value, schema.root()),
            None => object::encode(&value),
        };
        // The stored form's own fields: both event APIs share a collection, and name them differently.
        Object::indexed(encoded, 0, &self.cache.fields())
            .map_err(|error| Status::bad_request(format!("{} cannot be stored: {error}", self.resource.kind)))
    }

    fn converter(&self) -> Option<&Arc<dyn Converter>> {
        self.resource.custom.as_ref()?.converter.as_ref()
    }

    /// The kind as failures name it: by the group it is stored in, which for events is the older one.
    fn group_kind(&self) -> GroupKind {
        let GroupVersionKind { group, kind, .. } = self.stored_gvk();
        GroupKind { group, kind }
    }

    fn stored_gvk(&self) -> GroupVersionKind {
        api::conversion::storage_gvk(&self.resource)
    }
}

/// The tree of a stored object in the version that a resource serves.
fn served(resource: &Resource, object: &Object) -> Value {
    let mut value = object.to_value();
    convert(resource, &mut value, &api::conversion::storage_gvk(resource), &resource.gvk());
    value
}

fn convert(resource: &Resource, value: &mut Value, from: &GroupVersionKind, to: &GroupVersionKind) {
    if resource.custom.is_some() {
        // What is stored may be of any version there ever was.
        value.set_at(&["apiVersion"], to.api_version());
    } else if from != to {
        api::conversion::convert(value, from, to);
    }
}

/// What a converter made of a stored object, at that object's revision.
fn rebuilt(value: &Value, stored: &Object) -> Result<Arc<Object>, Status> {
    Object::from_value(value, stored.revision(), &[]).map(Arc::new).map_err(Status::internal)
}
