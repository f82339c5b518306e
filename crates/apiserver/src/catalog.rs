//! What is served now: endpoints by path, and the documents that describe them.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use api::{Resource, discovery};
use apimachinery::{GroupVersionResource, Str};
use bytes::Bytes;
use parking_lot::Mutex;
use registry::{Endpoint, Registry};

/// An immutable set of served resources; replaced as a whole when it changes.
pub struct Catalog {
    endpoints: HashMap<GroupVersionResource, Endpoint>,
    resources: Vec<Arc<Resource>>,
    documents: Mutex<HashMap<String, Document>>,
    discovery: OnceLock<discovery::Documents>,
}

/// A rendered discovery or OpenAPI document.
#[derive(Clone)]
pub struct Document {
    pub content_type: &'static str,
    pub bytes: Bytes,
    pub etag: Arc<str>,
}

impl Document {
    pub fn new(content_type: &'static str, bytes: Bytes) -> Self {
        let etag = format!("\"{}\"", digest(&bytes)).into();
        Self { content_type, bytes, etag }
    }
}

impl Catalog {
    pub fn new(registry: &Registry, resources: Vec<Arc<Resource>>) -> Self {
        let endpoints = resources
            .iter()
            .map(|resource| {
                let endpoint = if resource.is_stored() {
                    registry.endpoint(resource.clone())
                } else {
                    registry.unstored_endpoint(resource.clone())
                };
                (resource.gvr(), endpoint)
            })
            .collect();
        Self { endpoints, resources, documents: Mutex::default(), discovery: OnceLock::new() }
    }

    pub fn get(&self, group: &str, version: &str, plural: &str) -> Option<&Endpoint> {
        self.endpoints.get(&GroupVersionResource::new(group, version, plural))
    }

    pub fn find(&self, gvr: &GroupVersionResource) -> Option<&Endpoint> {
        self.endpoints.get(gvr)
    }

    pub fn resources(&self) -> &[Arc<Resource>] {
        &self.resources
    }

    /// Resources that do not come from a definition.
    pub fn built_in(&self) -> &[Arc<Resource>] {
        &self.resources
    }

    pub fn custom(&self) -> impl Iterator<Item = &Arc<Resource>> {
        std::iter::empty()
    }

    /// The discovery documents of this set, made on first use.
    pub fn discovery(&self) -> &discovery::Documents {
        self.discovery.get_or_init(|| discovery::Documents::new(&self.resources))
    }

    /// A document under `key`, made on first use.
    pub fn document(
        &self,
        key: &str,
        content_type: &'static str,
        make: impl FnOnce() -> Vec<u8>,
    ) -> Document {
        let mut documents = self.documents.lock();
        documents.entry(key.to_owned()).or_insert_with(|| Document::new(content_type, make().into())).clone()
    }

    /// As [`Catalog::document`], for a key that may name nothing.
    pub fn find_document(
        &self,
        key: &str,
        content_type: &'static str,
        make: impl FnOnce() -> Option<Vec<u8>>,
    ) -> Option<Document> {
        if let Some(document) = self.documents.lock().get(key) {
            return Some(document.clone());
        }
        make().map(|bytes| self.document(key, content_type, || bytes))
    }

    /// The preferred version of each resource of a group, for components that look at everything.
    pub fn preferred(&self) -> impl Iterator<Item = &Arc<Resource>> {
        let mut seen = std::collections::HashSet::<(Str, Str)>::new();
        self.resources
            .iter()
            .filter(move |resource| seen.insert((resource.group.clone(), resource.plural.clone())))
    }
}

/// A short name for content, in the form of upstream's ETags.
fn digest(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let hash = ring::digest::digest(&ring::digest::SHA256, bytes);
    hash.as_ref().iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02X}");
        text
    })
}
