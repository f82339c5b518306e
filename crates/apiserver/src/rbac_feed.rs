//! Keeps the RBAC authorizer in step with the stored roles and bindings.
//!
//! It listens where the watch cache does, so a binding counts for the very next request after it was answered.

use std::sync::Arc;

use apimachinery::object::FieldPaths;
use auth::rbac::{Kind, RbacAuthorizer};
use registry::Registry;
use storage::{Event, EventKind, Observer};
use watch_cache::ResourceCache;

/// Feeds one kind.
struct Feed {
    kind: Kind,
    prefix: String,
    namespaced: bool,
    rbac: Arc<RbacAuthorizer>,
}

/// Storage prefix, kind, namespaced.
const KINDS: [(&str, Kind, bool); 4] = [
    ("/registry/clusterroles/", Kind::ClusterRole, false),
    ("/registry/clusterrolebindings/", Kind::ClusterRoleBinding, false),
    ("/registry/roles/", Kind::Role, true),
    ("/registry/rolebindings/", Kind::RoleBinding, true),
];

/// Takes in what is stored and follows every change from then on. Call before the store takes writes.
pub fn start(registry: &Registry, rbac: &Arc<RbacAuthorizer>) {
    for (prefix, kind, namespaced) in KINDS {
        let feed = Feed { kind, prefix: prefix.to_owned(), namespaced, rbac: rbac.clone() };
        let cache: Arc<ResourceCache> = registry.cache().add_resource(prefix, FieldPaths::NONE);
        for object in cache.snapshot().objects.values() {
            feed.upsert(object.namespace(), object.name(), object.json());
        }
        registry.store().observe(prefix, Arc::new(feed));
    }
}

impl Feed {
    fn upsert(&self, namespace: &str, name: &str, json: &[u8]) {
        if let Err(error) = self.rbac.upsert(self.kind, namespace, name, json) {
            tracing::error!(namespace, name, %error, "Left out an RBAC object that cannot be read");
        }
    }
}

impl Observer for Feed {
    fn committed(&self, events: &[Event]) {
        for event in events {
            let Some(path) = event.key.strip_prefix(&self.prefix) else { continue };
            let (namespace, name) =
                if self.namespaced { path.split_once('/').unwrap_or(("", path)) } else { ("", path) };
            match event.kind {
                EventKind::Put => self.upsert(namespace, name, &event.value),
                EventKind::Delete => self.rbac.remove(self.kind, namespace, name),
            }
        }
    }
}
