//! The parameters of a policy: the objects that a binding names or selects.

use std::collections::HashMap;
use std::sync::Arc;

use api::Resource;
use apimachinery::{GroupVersion, GroupVersionKind, Object, Selector, Str, Value};
use parking_lot::RwLock;
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
    parsed: ParsedObjects,
}

/// Objects that were parsed for earlier requests.
#[derive(Default)]
struct ParsedObjects(RwLock<ByUid>);

#[derive(Default)]
struct ByUid {
    objects: HashMap<Str, Parsed>,
    /// With so many of them it is time to look which are stored no more.
    sweep_at: usize,
}

/// It is the same for the next request as long as the stored object and the served version are.
struct Parsed {
    stored: Arc<Object>,
    resource: Arc<Resource>,
    tree: Arc<Value>,
}

/// Fewer trees are never looked through.
const SWEEP_MIN: usize = 64;

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
            parsed: ParsedObjects::default(),
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
        if let Some(tree) = self.parsed.get(&stored, &collection.resource) {
            return Ok(tree);
        }
        let read = collection.read(stored.clone()).await.map_err(|status| status.message)?;
        let tree = Arc::new(collection.served(&read));
        let resource = collection.resource.clone();
        let is_stored = |object: &Arc<Object>| {
            let key = resource.key(object.namespace(), object.name());
            collection.cache.get(&key).is_some_and(|stored| Arc::ptr_eq(&stored, object))
        };
        self.parsed.put(Parsed { stored, resource: resource.clone(), tree: tree.clone() }, is_stored);
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

impl ParsedObjects {
    fn get(&self, stored: &Arc<Object>, resource: &Arc<Resource>) -> Option<Arc<Value>> {
        let parsed = self.0.read();
        let same = parsed.objects.get(stored.uid())?;
        (Arc::ptr_eq(&same.stored, stored) && Arc::ptr_eq(&same.resource, resource))
            .then(|| same.tree.clone())
    }

    /// Keeps one more. Whenever there are twice as many as were left the last time, those go that are not stored any
    /// more.
    fn put(&self, object: Parsed, is_stored: impl Fn(&Arc<Object>) -> bool) {
        let mut parsed = self.0.write();
        let ByUid { objects, sweep_at } = &mut *parsed;
        if objects.len() >= (*sweep_at).max(SWEEP_MIN) {
            objects.retain(|_, own| is_stored(&own.stored));
            *sweep_at = 2 * objects.len();
        }
        objects.insert(object.stored.uid().into(), object);
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn an_object_is_parsed_again_when_it_or_its_version_changed() {
        let stored = |uid: String| {
            let tree =
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "p", "uid": uid}});
            Arc::new(Object::from_value(&tree, 1, &[] as &[&str]).expect("an object"))
        };
        let mut resources = api::builtin::resources().into_iter();
        let (resource, other) = (resources.next().expect("one"), resources.next().expect("another"));
        let parsed = ParsedObjects::default();
        let put = |object: &Arc<Object>, is_stored: bool| {
            let tree = Arc::new(object.to_value());
            parsed.put(Parsed { stored: object.clone(), resource: resource.clone(), tree }, |_| is_stored);
        };
        let all: Vec<_> = (0..2 * SWEEP_MIN).map(|number| stored(number.to_string())).collect();
        all.iter().for_each(|object| put(object, true));
        let has = |object: &Arc<Object>| parsed.get(object, &resource).is_some();
        assert!(all.iter().all(has), "as many as there are");
        assert!(parsed.get(&all[0], &other).is_none(), "another version");
        let changed = stored("0".to_owned());
        assert!(!has(&changed));
        put(&changed, true);
        assert!(has(&changed) && !has(&all[0]), "in its place");
        let more: Vec<_> = (2 * SWEEP_MIN..=4 * SWEEP_MIN).map(|number| stored(number.to_string())).collect();
        more.iter().for_each(|object| put(object, false));
        assert!(more.last().is_some_and(has) && !has(&changed) && !has(&all[1]), "what is gone goes");
    }
}
