//! Hot path. Keeps the Node authorizer's graph in step with pods, volumes, attachments and slices.
//!
//! It listens behind the watch cache and reads the cache's own objects, so nothing is decoded twice: a pod's node and
//! generation lie ready, and its JSON is read only when it gets to a node or changes what it refers to.

use std::sync::Arc;

use apimachinery::Object;
use auth::node::{Graph, PodKey, PodReferences, VolumeReferences};
use registry::{Endpoint, Registry};
use storage::{Event, Observer};
use watch_cache::ResourceCache;

/// The collections that relate objects to nodes.
pub struct Sources {
    pub pods: Endpoint,
    pub volumes: Endpoint,
    pub attachments: Endpoint,
    /// Served only where dynamic resource allocation is.
    pub slices: Option<Endpoint>,
}

#[derive(Clone, Copy)]
enum Kind {
    Pod,
    Volume,
    Attachment,
    Slice,
}

/// Feeds one collection.
struct Feed {
    kind: Kind,
    prefix: String,
    cache: Arc<ResourceCache>,
    graph: Arc<Graph>,
    /// Where the node's name stands among the selectable fields.
    node_field: Option<usize>,
}

/// Takes in what is stored and follows every change from then on. Call before the store takes writes, and after the
/// watch cache observes it.
pub fn start(registry: &Registry, sources: Sources, graph: &Arc<Graph>) {
    let Sources { pods, volumes, attachments, slices } = sources;
    let kinds = [(Kind::Pod, pods), (Kind::Volume, volumes), (Kind::Attachment, attachments)];
    let slices = slices.map(|slices| (Kind::Slice, slices));
    for (kind, endpoint) in kinds.into_iter().chain(slices) {
        let cache = endpoint.cache.clone();
        let node_field = cache.fields().iter().position(|field| field == "spec.nodeName");
        let prefix = endpoint.resource.storage_prefix.to_string();
        let feed = Feed { kind, prefix: prefix.clone(), cache, graph: graph.clone(), node_field };
        for object in feed.cache.snapshot().objects.values() {
            feed.upsert(object);
        }
        registry.store().observe(&prefix, Arc::new(feed));
    }
}

impl Feed {
    fn upsert(&self, object: &Object) {
        let (namespace, name) = (object.namespace(), object.name());
        match self.kind {
            Kind::Pod => {
                let node = self.node_field.map(|field| object.field(field)).unwrap_or_default();
                let pod = PodKey {
                    namespace,
                    name,
                    uid: object.uid(),
                    generation: object.generation(),
                    node: &node,
                };
                self.graph.upsert_pod(pod, || read(object, PodReferences::from_json));
            }
            Kind::Volume => self.graph.upsert_volume(name, read(object, VolumeReferences::from_json)),
            Kind::Attachment => self.graph.upsert_attachment(name, &node_name(object)),
            Kind::Slice => self.graph.upsert_slice(name, &node_name(object)),
        }
    }

    fn remove(&self, key: &str) {
        let Some(path) = key.strip_prefix(&self.prefix) else { return };
        let (namespace, name) = path.split_once('/').unwrap_or(("", path));
        match self.kind {
            Kind::Pod => self.graph.remove_pod(namespace, name),
            Kind::Volume => self.graph.remove_volume(name),
            Kind::Attachment => self.graph.remove_attachment(name),
            Kind::Slice => self.graph.remove_slice(name),
        }
    }
}

/// What an object refers to; nothing where it cannot be read, so that a node gets too little rather than too much.
fn read<T: Default>(object: &Object, from_json: fn(&[u8]) -> Result<T, serde_json::Error>) -> T {
    from_json(object.json()).unwrap_or_else(|error| {
        let (namespace, name) = (object.namespace(), object.name());
        tracing::error!(namespace, name, %error, "Left out what an object that cannot be read refers to");
        T::default()
    })
}

fn node_name(object: &Object) -> String {
    object.to_value().str_at(&["spec", "nodeName"]).to_owned()
}

impl Observer for Feed {
    fn committed(&self, events: &[Event]) {
        for event in events {
            // The cache may be further than this event, never behind it.
            match self.cache.get(&event.key) {
                Some(object) => self.upsert(&object),
                None => self.remove(&event.key),
            }
        }
    }
}
