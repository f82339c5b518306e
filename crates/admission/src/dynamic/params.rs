//! The parameters of a policy: the objects that a binding names or selects.

use apimachinery::{GroupVersion, GroupVersionKind, Selector, Value};
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
}

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
        })
    }

    /// The objects. None of them is an error only if the binding says so; the policy then does not apply.
    pub fn find(&self, collection: &Endpoint, request: &Request<'_>) -> Result<Vec<Value>, String> {
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
        let found: Vec<Value> = match &self.selector {
            _ if !self.name.is_empty() => {
                let object = collection.cache.get(&resource.key(namespace, &self.name));
                object.iter().map(|object| collection.served(object)).collect()
            }
            Some(selector) => {
                let selector = selector.as_ref().map_err(Clone::clone)?;
                let snapshot = collection.cache.snapshot();
                snapshot
                    .range(&resource.key_prefix(namespace), None)
                    .filter(|(_, object)| selector.matches_object(object))
                    .map(|(_, object)| collection.served(object))
                    .collect()
            }
            None => return Err("one of name or selector must be provided".to_owned()),
        };
        if found.is_empty() && self.denies_without {
            return Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned());
        }
        Ok(found)
    }
}
