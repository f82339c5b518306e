//! [`LocalApi`]: the `client::Api` of components in this process.
//!
//! Law (one-door): each call is authorized under the component's own identity and takes the same way as one over
//! HTTPS. What is saved is the wire: objects are handed over as the cache's own `Arc`s, trees as trees.

use std::sync::Arc;

use api::Resource;
use apimachinery::selector::{FieldSelector, Selector};
use apimachinery::{GroupVersion, GroupVersionResource, Object, Status, Str, Value, json};
use async_trait::async_trait;
use auth::{Attributes, UserInfo};
use client::{
    Api, DeleteOptions, Discovered, ListOptions, ObjectList, Patch, Propagation, WatchEvent, WatchOptions,
    WatchStream, WriteOptions,
};
use percent_encoding::percent_decode_str;
use registry::{DeleteRequest, Endpoint, ListRequest, Warnings, WatchEventKind, WatchRequest, WatchStart};

use crate::decode::FieldValidation;
use crate::door::{Answer, Call, Door, Mode};
use crate::http::exchange::selected_name;
use crate::http::path::{self, ResourcePath, Target};
use crate::http::query::{self, Query};
use crate::patch::PatchBody;

/// Verbs under one identity, without a wire between.
pub struct LocalApi {
    door: Arc<Door>,
    user: UserInfo,
    shutdown: rt::Shutdown,
}

impl LocalApi {
    /// Watches end when `shutdown` fires.
    pub fn new(door: Arc<Door>, user: UserInfo, shutdown: rt::Shutdown) -> Self {
        Self { door, user, shutdown }
    }

    fn call<'a>(
        &'a self,
        endpoint: &'a Endpoint,
        namespace: &'a str,
        name: &'a str,
        subresource: &'a str,
    ) -> Call<'a> {
        Call { user: &self.user, endpoint, namespace, name, subresource }
    }

    /// Refuses with 403 what the caller may not do with a part of a collection. As over HTTPS, what the request is
    /// limited to counts: a node may list its own pods, and what they name, and nothing else.
    fn authorize_part(
        &self,
        call: &Call<'_>,
        verb: &str,
        labels: &Selector,
        fields: &FieldSelector,
    ) -> Result<(), Status> {
        let resource = &call.endpoint.resource;
        self.door.check(&Attributes {
            api_group: &resource.group,
            api_version: &resource.version,
            namespace: call.namespace,
            name: selected_name(fields),
            field_selector: fields.requirements(),
            label_selector: labels.requirements(),
            ..Attributes::resource(call.user, verb, &resource.plural)
        })
    }

    /// The component's name, which is what its managed fields are recorded under unless it says otherwise.
    fn manager<'a>(&'a self, options: &'a WriteOptions) -> &'a str {
        if !options.field_manager.is_empty() {
            return &options.field_manager;
        }
        let name = self.user.name();
        name.rsplit(':').next().unwrap_or(name)
    }
}

/// Reads of paths.
impl LocalApi {
    fn reading<'a>(&'a self, target: &Target<'a>) -> Attributes<'a> {
        match *target {
            Target::NonResource(path) => Attributes::non_resource(&self.user, "get", path),
            Target::Resource(ref path) => Attributes {
                api_group: path.group,
                api_version: path.version,
                subresource: path.subresource,
                namespace: path.namespace,
                name: path.name,
                ..Attributes::resource(&self.user, path.reading_verb(), path.resource)
            },
        }
    }

    async fn read_resource(&self, path: &ResourcePath<'_>, query: &str) -> Result<Value, Status> {
        let endpoint = self.door.endpoint(&GroupVersionResource {
            group: path.group.into(),
            version: path.version.into(),
            resource: path.resource.into(),
        })?;
        let call = self.call(&endpoint, path.namespace, path.name, path.subresource);
        if !path.name.is_empty() {
            return Ok(value(&endpoint, self.door.get(&call).await?));
        }
        let page = self.door.list(&call, &query::list_request(&Query::parse(query))?).await?;
        let items: Vec<Value> = page.objects.iter().map(|object| endpoint.served(object)).collect();
        Ok(json!({
            "apiVersion": endpoint.resource.api_version(), "kind": endpoint.resource.list_kind.as_str(),
            "metadata": {"resourceVersion": page.revision.to_string(), "continue": page.continue_token},
            "items": items,
        }))
    }

    /// A document of discovery.
    fn read_document(&self, path: &str) -> Result<Value, Status> {
        let path = path.trim_end_matches('/');
        let catalog = self.door.catalog();
        let other = |group| self.door.aggregator().group_document(group);
        let bytes = catalog
            .discovery()
            .at(path)
            .map(|own| own.to_vec())
            .or_else(|| path.strip_prefix("/apis/").and_then(other))
            .ok_or_else(Status::no_such_path)?;
        Value::parse(&bytes).map_err(|error| Status::internal(format!("reading {path}: {error}")))
    }
}

fn mode<'a>(options: &WriteOptions, field_manager: &'a str, warnings: &'a Warnings) -> Mode<'a> {
    Mode {
        dry_run: options.dry_run,
        field_manager,
        force: options.force,
        warnings,
        now: rt::now(),
        validation: FieldValidation::Ignore,
    }
}

/// The object of an answer that has one.
fn object(answer: Answer) -> Result<Arc<Object>, Status> {
    match answer {
        Answer::Object(object) => Ok(object),
        Answer::Value(value) => Object::from_value(&value, 0, &[]).map(Arc::new).map_err(Status::internal),
        Answer::Done => Err(Status::internal("the operation answers with no object")),
    }
}

/// The tree of an answer, in the version that the endpoint serves.
fn value(endpoint: &Endpoint, answer: Answer) -> Value {
    match answer {
        Answer::Object(object) => endpoint.served(&object),
        Answer::Value(value) => value,
        Answer::Done => Value::Null,
    }
}

#[async_trait]
impl Api for LocalApi {
    async fn get(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        name: &str,
    ) -> Result<Arc<Object>, Status> {
        let endpoint = self.door.endpoint(gvr)?;
        let call = self.call(&endpoint, namespace, name, "");
        self.door.authorize(&call, "get")?;
        self.door.get(&call).await.and_then(object)
    }

    async fn get_subresource(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        name: &str,
        subresource: &str,
    ) -> Result<Value, Status> {
        let endpoint = self.door.endpoint(gvr)?;
        if endpoint.resource.subresource(subresource).is_none() {
            return Err(Status::no_such_path());
        }
        let call = self.call(&endpoint, namespace, name, subresource);
        self.door.authorize(&call, "get")?;
        Ok(value(&endpoint, self.door.get(&call).await?))
    }

    async fn get_raw(&self, path: &str) -> Result<Value, Status> {
        let (escaped, query) = path.split_once('?').unwrap_or((path, ""));
        let plain = percent_decode_str(escaped).decode_utf8_lossy();
        let target = path::parse(&plain);
        self.door.check(&self.reading(&target))?;
        let aggregator = self.door.aggregator();
        if let Some(remote) = aggregator.find(&target) {
            return aggregator.read(&remote, &self.user, path).await;
        }
        match target {
            Target::Resource(found) => self.read_resource(&found, query).await,
            Target::NonResource(path) => self.read_document(path),
        }
    }

    async fn list(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        options: &ListOptions,
    ) -> Result<ObjectList, Status> {
        let endpoint = self.door.endpoint(gvr)?;
        let call = self.call(&endpoint, namespace, "", "");
        let request = list_request(options)?;
        self.authorize_part(&call, "list", &request.labels, &request.fields)?;
        let page = self.door.list(&call, &request).await?;
        Ok(ObjectList { items: page.objects, revision: page.revision, continue_token: page.continue_token })
    }

    async fn watch(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        options: &WatchOptions,
    ) -> Result<WatchStream, Status> {
        let endpoint = self.door.endpoint(gvr)?;
        let call = self.call(&endpoint, namespace, "", "");
        let (labels, fields) = selectors(&options.label_selector, &options.field_selector)?;
        self.authorize_part(&call, "watch", &labels, &fields)?;
        let start = match options.revision {
            0 => WatchStart::PresentState,
            revision => WatchStart::After(revision),
        };
        let stream = self.door.watch(&call, WatchRequest { labels, fields, start }).await?;
        let state = (stream, self.shutdown.clone(), false);
        Ok(Box::pin(futures::stream::unfold(state, |(mut stream, shutdown, ended)| async move {
            if ended {
                return None;
            }
            if let Some(object) = stream.next_initial() {
                return Some((Ok(WatchEvent::Added(object)), (stream, shutdown, false)));
            }
            let next = tokio::select! {
                biased;
                () = shutdown.cancelled() => return None,
                next = stream.next() => next,
            };
            let ended = next.is_err();
            let event = next.map(|event| match event.kind {
                WatchEventKind::Added => WatchEvent::Added(event.object),
                WatchEventKind::Modified => WatchEvent::Modified(event.object),
                WatchEventKind::Deleted => WatchEvent::Deleted(event.object),
            });
            Some((event, (stream, shutdown, ended)))
        })))
    }

    async fn create(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        body: Value,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, Status> {
        let endpoint = self.door.endpoint(gvr)?;
        let call = self.call(&endpoint, namespace, "", "");
        self.door.authorize(&call, "create")?;
        let body = crate::decode::tree(&endpoint.resource, body)?;
        let warnings = Warnings::default();
        self.door.create(&call, &mode(options, self.manager(options), &warnings), body).await.and_then(object)
    }

    async fn create_subresource(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        name: &str,
        subresource: &str,
        body: Value,
    ) -> Result<Value, Status> {
        let endpoint = self.door.endpoint(gvr)?;
        let call = self.call(&endpoint, namespace, name, subresource);
        self.door.authorize(&call, "create")?;
        let options = WriteOptions::default();
        let warnings = Warnings::default();
        let mode = mode(&options, self.manager(&options), &warnings);
        Ok(value(&endpoint, self.door.create(&call, &mode, body).await?))
    }

    async fn update(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        name: &str,
        subresource: Option<&str>,
        body: Value,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, Status> {
        let endpoint = self.door.endpoint(gvr)?;
        let call = self.call(&endpoint, namespace, name, subresource.unwrap_or_default());
        self.door.authorize(&call, "update")?;
        let body =
            if call.subresource == "scale" { body } else { crate::decode::tree(&endpoint.resource, body)? };
        let warnings = Warnings::default();
        let mode = mode(options, self.manager(options), &warnings);
        self.door.update(&call, &mode, body).await.and_then(|(answer, _)| object(answer))
    }

    async fn patch(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        name: &str,
        subresource: Option<&str>,
        patch: Patch,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, Status> {
        let endpoint = self.door.endpoint(gvr)?;
        let call = self.call(&endpoint, namespace, name, subresource.unwrap_or_default());
        self.door.authorize(&call, "patch")?;
        let body = match patch {
            Patch::Json(value) => PatchBody::Json(value),
            Patch::Merge(value) => PatchBody::Merge(value),
            Patch::Strategic(value) => PatchBody::Strategic(value),
            Patch::Apply(value) => PatchBody::Apply(value),
        };
        let warnings = Warnings::default();
        let mode = mode(options, self.manager(options), &warnings);
        self.door.patch(&call, &mode, &body).await.and_then(|(answer, _)| object(answer))
    }

    async fn delete(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<(), Status> {
        let endpoint = self.door.endpoint(gvr)?;
        let call = self.call(&endpoint, namespace, name, "");
        self.door.authorize(&call, "delete")?;
        let (warnings, write) = (Warnings::default(), WriteOptions::default());
        let mode = mode(&write, self.manager(&write), &warnings);
        self.door.delete(&call, &mode, &delete_request(options)).await.map(|_| ())
    }

    async fn delete_collection(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        selection: &ListOptions,
        options: &DeleteOptions,
    ) -> Result<(), Status> {
        let endpoint = self.door.endpoint(gvr)?;
        let call = self.call(&endpoint, namespace, "", "");
        let list = list_request(selection)?;
        self.authorize_part(&call, "deletecollection", &list.labels, &list.fields)?;
        let (warnings, write) = (Warnings::default(), WriteOptions::default());
        let mode = mode(&write, self.manager(&write), &warnings);
        self.door.delete_collection(&call, &mode, &list, &delete_request(options)).await.map(|_| ())
    }

    async fn discover(&self) -> Result<Vec<Discovered>, Status> {
        let catalog = self.door.catalog();
        let stored = catalog.preferred().filter(|resource| resource.is_stored());
        Ok(stored.map(discovered).collect())
    }

    async fn discover_all(&self) -> Result<Vec<Discovered>, Status> {
        self.door.check(&Attributes::non_resource(&self.user, "get", "/apis"))?;
        Ok(self.door.catalog().resources().map(discovered).collect())
    }

    async fn openapi(&self, group_version: &GroupVersion) -> Result<Value, Status> {
        let root = if group_version.group.is_empty() { "api" } else { "apis" };
        let key = format!("{root}/{group_version}");
        self.door.check(&Attributes::non_resource(&self.user, "get", &format!("/openapi/v3/{key}")))?;
        let document = self.door.catalog().openapi_v3(&key).ok_or_else(Status::no_such_path)?;
        Value::parse(&document.bytes()).map_err(|error| Status::internal(format!("reading {key}: {error}")))
    }
}

fn discovered(resource: &Arc<Resource>) -> Discovered {
    Discovered {
        gvr: resource.gvr(),
        kind: resource.kind.clone(),
        namespaced: resource.namespaced,
        verbs: resource.verbs.clone(),
    }
}

fn selectors(labels: &str, fields: &str) -> Result<(Selector, FieldSelector), Status> {
    let labels = Selector::parse(labels).map_err(|error| Status::bad_request(error.to_string()))?;
    let fields = FieldSelector::parse(fields).map_err(|error| Status::bad_request(error.to_string()))?;
    Ok((labels, fields))
}

fn list_request(options: &ListOptions) -> Result<ListRequest, Status> {
    let (labels, fields) = selectors(&options.label_selector, &options.field_selector)?;
    let continue_token = options.continue_token.clone();
    Ok(ListRequest { labels, fields, limit: options.limit, continue_token, ..ListRequest::default() })
}

fn delete_request(options: &DeleteOptions) -> DeleteRequest {
    DeleteRequest {
        grace_period_seconds: options.grace_period_seconds,
        propagation: options.propagation.map(|propagation| match propagation {
            Propagation::Orphan => registry::Propagation::Orphan,
            Propagation::Background => registry::Propagation::Background,
            Propagation::Foreground => registry::Propagation::Foreground,
        }),
        uid: options.uid.clone(),
        resource_version: options.resource_version.map(|revision| Str::from(revision.to_string())),
    }
}
