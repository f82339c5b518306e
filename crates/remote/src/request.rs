//! Requests: path, query and body of a verb.

use apimachinery::{GroupVersionResource, Value, json};
use bytes::Bytes;
use client::{DeleteOptions, ListOptions, Patch, Propagation, WatchOptions, WriteOptions};
use http::{HeaderValue, Method};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

pub(crate) const JSON: &str = "application/json";

/// What may stand in a query as it is.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// One request.
pub(crate) struct Request {
    pub(crate) method: Method,
    /// With its query.
    pub(crate) path: String,
    pub(crate) accept: &'static str,
    pub(crate) content_type: &'static str,
    pub(crate) body: Bytes,
    pub(crate) impersonated: Option<HeaderValue>,
}

impl Request {
    pub(crate) fn get(path: impl Into<String>) -> Self {
        let (method, path, body) = (Method::GET, path.into(), Bytes::new());
        Self { method, path, accept: JSON, content_type: JSON, body, impersonated: None }
    }

    pub(crate) fn sending(method: Method, path: String, body: &Value) -> Self {
        Self { method, body: body.to_json().into(), ..Self::get(path) }
    }

    pub(crate) fn accepting(self, accept: &'static str) -> Self {
        Self { accept, ..self }
    }

    pub(crate) fn typed(self, content_type: &'static str) -> Self {
        Self { content_type, ..self }
    }

    pub(crate) fn with(mut self, Query(query): Query) -> Self {
        if !query.is_empty() {
            self.path.push('?');
            self.path.push_str(&query);
        }
        self
    }
}

/// Where things are.
pub(crate) struct Path;

impl Path {
    pub(crate) fn collection(gvr: &GroupVersionResource, namespace: &str) -> String {
        let root = if gvr.group.is_empty() { "/api" } else { "/apis" };
        let (group_version, resource) = (gvr.group_version(), &gvr.resource);
        match namespace {
            "" => format!("{root}/{group_version}/{resource}"),
            namespace => format!("{root}/{group_version}/namespaces/{namespace}/{resource}"),
        }
    }

    pub(crate) fn object(gvr: &GroupVersionResource, namespace: &str, name: &str) -> String {
        format!("{}/{}", Self::collection(gvr, namespace), utf8_percent_encode(name, QUERY))
    }

    pub(crate) fn subresource(
        gvr: &GroupVersionResource,
        namespace: &str,
        name: &str,
        subresource: Option<&str>,
    ) -> String {
        let object = Self::object(gvr, namespace, name);
        match subresource {
            None | Some("") => object,
            Some(subresource) => format!("{object}/{subresource}"),
        }
    }
}

/// Parameters that have a value.
#[derive(Default)]
pub(crate) struct Query(String);

impl Query {
    fn set(mut self, key: &str, value: &str) -> Self {
        if !value.is_empty() {
            let between = if self.0.is_empty() { "" } else { "&" };
            self.0.push_str(&format!("{between}{key}={}", utf8_percent_encode(value, QUERY)));
        }
        self
    }

    pub(crate) fn of_list(options: &ListOptions) -> Self {
        let limit = if options.limit == 0 { String::new() } else { options.limit.to_string() };
        Self::default()
            .set("labelSelector", &options.label_selector)
            .set("fieldSelector", &options.field_selector)
            .set("limit", &limit)
            .set("continue", &options.continue_token)
    }

    pub(crate) fn of_watch(options: &WatchOptions) -> Self {
        let revision = if options.revision == 0 { String::new() } else { options.revision.to_string() };
        Self::default()
            .set("watch", "true")
            .set("allowWatchBookmarks", "true")
            .set("labelSelector", &options.label_selector)
            .set("fieldSelector", &options.field_selector)
            .set("resourceVersion", &revision)
    }

    pub(crate) fn of_write(options: &WriteOptions) -> Self {
        Self::default()
            .set("fieldManager", &options.field_manager)
            .set("dryRun", if options.dry_run { "All" } else { "" })
            .set("force", if options.force { "true" } else { "" })
    }
}

pub(crate) fn patch(patch: Patch) -> (&'static str, Value) {
    match patch {
        Patch::Json(body) => ("application/json-patch+json", body),
        Patch::Merge(body) => ("application/merge-patch+json", body),
        Patch::Strategic(body) => ("application/strategic-merge-patch+json", body),
        Patch::Apply(body) => ("application/apply-patch+yaml", body),
    }
}

pub(crate) fn delete_options(options: &DeleteOptions) -> Value {
    let mut body = json!({"apiVersion": "v1", "kind": "DeleteOptions"});
    if let Some(seconds) = options.grace_period_seconds {
        body.set_at(&["gracePeriodSeconds"], seconds);
    }
    if let Some(propagation) = options.propagation {
        let name = match propagation {
            Propagation::Orphan => "Orphan",
            Propagation::Background => "Background",
            Propagation::Foreground => "Foreground",
        };
        body.set_at(&["propagationPolicy"], name);
    }
    if let Some(uid) = &options.uid {
        body.set_at(&["preconditions", "uid"], uid.clone());
    }
    if let Some(revision) = options.resource_version {
        body.set_at(&["preconditions", "resourceVersion"], revision.to_string());
    }
    body
}
