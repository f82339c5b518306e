//! One request as configurations see it; what few of them ask for is made once, when the first one asks.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use api::Resource;
use apimachinery::{GroupVersionKind, Object, Status, Value};
use registry::admission::{Attributes, Operation};

use super::World;
use super::rules::Subject;

pub(crate) struct Request<'a> {
    pub attributes: &'a Attributes<'a>,
    pub world: &'a World,
    equivalents: OnceLock<Arc<[Arc<Resource>]>>,
    old: OnceLock<Option<Value>>,
    namespace: OnceLock<Option<Arc<Object>>>,
}

impl<'a> Request<'a> {
    pub fn new(attributes: &'a Attributes<'a>, world: &'a World) -> Self {
        Self {
            attributes,
            world,
            equivalents: OnceLock::new(),
            old: OnceLock::new(),
            namespace: OnceLock::new(),
        }
    }

    /// Configurations of admission are never subject to themselves: nobody could repair a broken one.
    pub fn is_exempt(&self) -> bool {
        let resource = self.attributes.resource;
        resource.group == "admissionregistration.k8s.io"
            && matches!(
                resource.plural.as_str(),
                "validatingwebhookconfigurations"
                    | "mutatingwebhookconfigurations"
                    | "validatingadmissionpolicies"
                    | "validatingadmissionpolicybindings"
                    | "mutatingadmissionpolicies"
                    | "mutatingadmissionpolicybindings"
            )
    }

    pub fn subresource(&self) -> &'a str {
        self.attributes.subresource.unwrap_or_default()
    }

    /// As upstream's attributes have it: a Namespace is in the namespace of its own name.
    pub fn namespace(&self) -> &'a str {
        if self.is_about_namespaces() { self.attributes.name } else { self.attributes.namespace }
    }

    fn is_about_namespaces(&self) -> bool {
        self.attributes.resource.group.is_empty() && self.attributes.resource.plural == "namespaces"
    }

    /// The request as it would be in one of the equivalent versions.
    pub fn subject<'s>(&self, resource: &'s Resource) -> Subject<'s>
    where
        'a: 's,
    {
        Subject {
            operation: self.attributes.operation,
            group: &resource.group,
            version: &resource.version,
            plural: &resource.plural,
            subresource: self.subresource(),
            namespace: self.namespace(),
            name: self.attributes.name,
        }
    }

    /// The other versions and groups under which the same objects are served.
    pub fn equivalents(&self) -> impl Iterator<Item = &Arc<Resource>> {
        let own = self.attributes.resource;
        let all = self.equivalents.get_or_init(|| self.world.served.equivalents(own));
        all.iter().filter(move |other| {
            (&other.group, &other.version, &other.plural) != (&own.group, &own.version, &own.plural)
        })
    }

    /// The kind that is sent under a resource, or under the subresource in question.
    pub fn kind_of(&self, resource: &Resource) -> GroupVersionKind {
        match resource.subresource(self.subresource()) {
            // A status is of the kind of its parent, in the same version.
            Some(subresource) if subresource.kind.kind != resource.kind => subresource.kind.clone(),
            _ => resource.gvk(),
        }
    }

    /// The stored state in the version of the request; `None` for a create.
    pub fn old(&self) -> Option<&Value> {
        if let Some(tree) = self.attributes.old_tree {
            return Some(tree);
        }
        self.old.get_or_init(|| self.attributes.old_value().map(Cow::into_owned)).as_ref()
    }

    /// The Namespace that the request is in.
    pub fn namespace_object(&self) -> Option<&Arc<Object>> {
        let find = || {
            let namespaces = &self.world.namespaces;
            namespaces.cache.get(&namespaces.resource.key("", self.namespace()))
        };
        self.namespace.get_or_init(find).as_ref()
    }

    /// Whether the labels of the Namespace match; `Err` when there is no such Namespace.
    pub fn namespace_matches(
        &self,
        selector: &apimachinery::Selector,
        object: Option<&Value>,
    ) -> Result<bool, Status> {
        if self.namespace().is_empty() && !self.is_about_namespaces() || selector.is_everything() {
            return Ok(true);
        }
        // What is being written is newer than what is stored.
        let is_written = matches!(self.attributes.operation, Operation::Create | Operation::Update);
        if let Some(object) = object.filter(|_| self.is_about_namespaces() && is_written) {
            return Ok(selector.matches_value(object));
        }
        match self.namespace_object() {
            Some(namespace) => Ok(selector.matches_object(namespace)),
            None => {
                let resource = self.world.namespaces.resource.group_resource();
                Err(Status::not_found(&resource, self.namespace()))
            }
        }
    }

    /// Whether the labels of the new or the old object match.
    pub fn object_matches(&self, selector: &apimachinery::Selector, object: Option<&Value>) -> bool {
        selector.is_everything()
            || object.is_some_and(|object| selector.matches_value(object))
            || self.attributes.old.is_some_and(|old| selector.matches_object(old))
    }

    /// An object of the request as `target` has it: in its version, and for a scale as a `Scale`.
    pub async fn versioned(&self, object: &Value, target: &Resource) -> Result<Value, Status> {
        let own = self.attributes.resource;
        let served = &self.world.served;
        if self.subresource() == "scale" {
            return Ok(served.scale(own, object));
        }
        if self.is_own(target) {
            return Ok(object.clone());
        }
        served.convert(object.clone(), own, target).await
    }

    pub fn is_own(&self, target: &Resource) -> bool {
        let own = self.attributes.resource;
        own.group == target.group && own.version == target.version
    }
}
