//! What a step sends: requests by number, made when they are due.

use std::sync::Arc;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde_json::Value;

use super::super::connection::{Connection, JSON};
use super::super::objects::Template;

pub(super) const MERGE_PATCH: &str = "application/merge-patch+json";

/// One request that must succeed.
pub(super) struct Request {
    method: Method,
    path: String,
    content_type: &'static str,
    body: Bytes,
}

type Make = dyn Fn(u64) -> Vec<Request> + Send + Sync;

/// For each number the requests that follow each other; different numbers wait for nothing.
#[derive(Clone)]
pub(super) struct Batch {
    pub(super) count: u64,
    make: Arc<Make>,
}

impl Request {
    pub(super) fn post(collection: impl Into<String>, body: Bytes) -> Self {
        Self { method: Method::POST, path: collection.into(), content_type: JSON, body }
    }

    pub(super) fn patch_status(object: &str, status: &Value) -> Self {
        let (path, body) = (format!("{object}/status"), status.to_string().into());
        Self { method: Method::PATCH, path, content_type: MERGE_PATCH, body }
    }

    pub(super) fn delete(object: impl Into<String>) -> Self {
        Self { method: Method::DELETE, path: object.into(), content_type: "", body: Bytes::new() }
    }

    /// For a create of an object with a name, its deletion.
    pub(super) fn undone(self) -> Self {
        let name = serde_json::from_slice::<Value>(&self.body)
            .ok()
            .and_then(|object| object["metadata"]["name"].as_str().map(ToOwned::to_owned))
            .unwrap_or_default();
        Self::delete(format!("{}/{name}?gracePeriodSeconds=0", self.path))
    }

    #[cfg(test)]
    pub(super) fn shown(&self) -> String {
        format!("{} {} {}", self.method, self.path, String::from_utf8_lossy(&self.body))
    }

    pub(super) async fn send(self, connection: &mut Connection) -> anyhow::Result<()> {
        let wanted = if self.method == Method::POST { StatusCode::CREATED } else { StatusCode::OK };
        let answer = connection.call(self.method, &self.path, self.content_type, self.body).await?;
        answer.expect(&self.path, wanted).map(drop)
    }
}

impl Batch {
    pub(super) fn new(count: u64, make: impl Fn(u64) -> Vec<Request> + Send + Sync + 'static) -> Self {
        Self { count, make: Arc::new(make) }
    }

    /// Objects of one collection, named `{prefix}-{number}`, in the shapes in turn.
    pub(super) fn of(
        count: u64,
        collection: impl Into<String>,
        prefix: &'static str,
        shapes: &[Value],
    ) -> Self {
        let collection = collection.into();
        let templates: Vec<_> = shapes.iter().map(Template::new).collect();
        Self::new(count, move |number| {
            let template = &templates[number as usize % templates.len()];
            vec![Request::post(collection.clone(), template.named(&format!("{prefix}-{number}")))]
        })
    }

    /// One object of this very name.
    pub(super) fn one(collection: impl Into<String>, name: &'static str, shape: &Value) -> Self {
        let (collection, template) = (collection.into(), Template::new(shape));
        Self::new(1, move |_| vec![Request::post(collection.clone(), template.named(name))])
    }

    /// The requests of another batch after those of this one, number by number.
    pub(super) fn then(self, next: Self) -> Self {
        Self::new(self.count, move |number| {
            let mut requests = self.requests(number);
            requests.extend(next.requests(number));
            requests
        })
    }

    pub(super) fn requests(&self, number: u64) -> Vec<Request> {
        (self.make)(number)
    }
}
