//! The parameters of a policy: the objects that a binding names or selects.

use std::sync::Arc;

use apimachinery::{GroupVersion, GroupVersionKind, Object, Selector, Value};
use parking_lot::Mutex;
use registry::Endpoint;

use super::request::Request;

/// `paramKind` of a policy.
pub(crate) struct ParamKind {
    kind: GroupVersionKind,
}

/// `paramRef` of a binding.
pub(crate) struct ParamRef {
    name: String,
    namespace: String,
    selector: Option<Result<Selector, String>>,
    denies_without: bool,
    kept: Mutex<Vec<Kept>>,
}

/// An object that was parsed for an earlier request. It is the same for the next one as long as the stored object and
/// the served version are.
struct Kept {
    stored: Arc<Object>,
    endpoint: Endpoint,
    tree: Arc<Value>,
}

/// Trees of objects that one binding keeps; the oldest go.
const KEPT_MAX: usize = 64;

impl ParamKind {
    /// `None` for a policy without parameters.
    pub fn from_value(kind: &Value) -> Option<Self> {
        if !kind.is_object() {
            return None;
        }
        let GroupVersion { group, version } = GroupVersion::parse(kind.str_at(&["apiVersion"]))?;
        Some(Self { kind: GroupVersionKind { group, version, kind: kind.str_at(&["kind"]).into() } })
    }

    /// The collection of parameters; an error while nobody serves it.
    pub fn collection(&self, request: &Request<'_>) -> Result<Endpoint, String> {
        request.world.served.of_kind(&self.kind).ok_or_else(|| {
            format!(
                "failed to find resource referenced by paramKind: '{}, Kind={}'",
                self.kind.api_version(),
                self.kind.kind
            )
        })
    }
}

impl ParamRef {
    /// `None` for a binding without parameters.
    pub fn from_value(reference: &Value) -> Option<Self> {
        if !reference.is_object() {
            return None;
        }
        let text = |key: &str| reference.str_at(&[key]).to_owned();
        let selector = reference.get("selector").filter(|selector| selector.is_object());
        Some(Self {
            name: text("name"),
            namespace: text("namespace"),
            selector: selector
                .map(|selector| Selector::from_value(selector).map_err(|error| error.to_string())),
            denies_without: reference.str_at(&["parameterNotFoundAction"]) == "Deny",
            kept: Mutex::default(),
        })
    }

    /// The objects. None of them is an error only if the binding says so; the policy then does not apply.
    pub async fn find(
        &self,
        collection: &Endpoint,
        request: &Request<'_>,
    ) -> Result<Vec<Arc<Value>>, String> {
        let stored = self.stored(collection, request)?;
        if stored.is_empty() && self.denies_without {
            return Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned());
        }
        let mut found = Vec::with_capacity(stored.len());
        for object in stored {
            found.push(self.tree(collection, object).await?);
        }
        Ok(found)
    }

    /// The tree of an object in the version that the policy names.
    async fn tree(&self, collection: &Endpoint, stored: Arc<Object>) -> Result<Arc<Value>, String> {
        let is_same = |kept: &&Kept| {
            Arc::ptr_eq(&kept.stored, &stored) && Arc::ptr_eq(&kept.endpoint.resource, &collection.resource)
        };
        if let Some(kept) = self.kept.lock().iter().find(is_same) {
            return Ok(kept.tree.clone());
        }
        let read = collection.read(stored.clone()).await.map_err(|status| status.message)?;
        let tree = Arc::new(collection.served(&read));
        let mut kept = self.kept.lock();
        if kept.len() == KEPT_MAX {
            kept.remove(0);
        }
        kept.push(Kept { stored, endpoint: collection.clone(), tree: tree.clone() });
        Ok(tree)
    }

    fn stored(&self, collection: &Endpoint, request: &Request<'_>) -> Result<Vec<Arc<Object>>, String> {
        let resource = &collection.resource;
        let namespace = match (resource.namespaced, self.namespace.as_str(), request.namespace()) {
            (false, "", _) => "",
            (false, ..) => {
                return Err(
                    "paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned()
                );
            }
            (true, "", "") => {
                return Err(
                    "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
                        .to_owned(),
                );
            }
            (true, "", own) => own,
            (true, named, _) => named,
        };
        match &self.selector {
            _ if !self.name.is_empty() => {
                let object = collection.cache.get(&resource.key(namespace, &self.name));
                Ok(object.into_iter().collect())
            }
            Some(selector) => {
                let selector = selector.as_ref().map_err(Clone::clone)?;
                let snapshot = collection.cache.snapshot();
                let prefix = resource.key_prefix(namespace);
                let objects = snapshot.range(&prefix, None).map(|(_, object)| object);
                Ok(objects.filter(|object| selector.matches_object(object)).cloned().collect())
            }
            None => Err("one of name or selector must be provided".to_owned()),
        }
    }
}
