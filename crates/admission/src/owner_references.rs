//! `OwnerReferencesPermissionEnforcement`: nobody makes objects go, or stay, whose deletion is not theirs to decide.

use std::sync::Arc;

use api::validation::fields::same;
use apimachinery::{GroupVersionKind, Status, Value};
use auth::Authorizer;
use registry::admission::{Attributes, Operation};

use crate::dynamic::Served;
use crate::plugins::Environment;
use crate::{Plugin, forbidden, is_write};

pub struct OwnerReferencesPermissionEnforcement {
    authorizer: Arc<dyn Authorizer>,
    served: Arc<dyn Served>,
}

impl OwnerReferencesPermissionEnforcement {
    pub fn new(environment: &Environment<'_>) -> Self {
        Self { authorizer: environment.authorizer.clone(), served: environment.world.served.clone() }
    }

    fn check(&self, attributes: &Attributes<'_>, new: &[Value], old: &[Value]) -> Result<(), String> {
        // Whoever creates an object could have left it alone, too.
        if attributes.operation != Operation::Create {
            let delete = auth::Attributes {
                api_group: &attributes.resource.group,
                api_version: &attributes.resource.version,
                subresource: attributes.subresource.unwrap_or_default(),
                namespace: attributes.namespace,
                name: attributes.name,
                ..auth::Attributes::resource(attributes.user, "delete", &attributes.resource.plural)
            };
            let decision = self.authorizer.authorize(&delete);
            if !decision.is_allowed() {
                let reason = decision.reason();
                return Err(format!(
                    "cannot set an ownerRef on a resource you can't delete: {reason}, <nil>"
                ));
            }
        }
        let blocking = newly_blocking(new, old);
        if blocking.is_empty() || self.may_finalize(attributes, "*", "*", "*", "", "*") {
            return Ok(());
        }
        blocking.into_iter().try_for_each(|owner| self.check_owner(attributes, owner))
    }

    fn check_owner(&self, attributes: &Attributes<'_>, owner: &Value) -> Result<(), String> {
        let (api_version, kind) = (owner.str_at(&["apiVersion"]), owner.str_at(&["kind"]));
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let gvk = GroupVersionKind { group: group.into(), version: version.into(), kind: kind.into() };
        let Some(endpoint) = self.served.of_kind(&gvk) else {
            return Err(format!(
                "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion \
                 {api_version} Kind {kind}: no matches for kind \"{kind}\" in version \"{api_version}\""
            ));
        };
        let resource = &endpoint.resource;
        let namespace = if resource.namespaced { attributes.namespace } else { "" };
        let name = owner.str_at(&["name"]);
        if self.may_finalize(attributes, group, version, &resource.plural, namespace, name) {
            return Ok(());
        }
        Err("cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: , <nil>"
            .to_owned())
    }

    fn may_finalize(
        &self,
        attributes: &Attributes<'_>,
        group: &str,
        version: &str,
        plural: &str,
        namespace: &str,
        name: &str,
    ) -> bool {
        let update = auth::Attributes {
            api_group: group,
            api_version: version,
            subresource: "finalizers",
            namespace,
            name,
            ..auth::Attributes::resource(attributes.user, "update", plural)
        };
        self.authorizer.authorize(&update).is_allowed()
    }
}

impl Plugin for OwnerReferencesPermissionEnforcement {
    fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        // Old kubelets garble owners in the status of pods; what they send there is put back anyhow.
        let ignored = attributes.is_sub("", "pods", "status");
        let Some(object) = object.filter(|_| is_write(attributes) && !ignored) else { return Ok(()) };
        let old = attributes.old.map(apimachinery::Object::metadata_value).unwrap_or_default();
        let (new, old) =
            (object.array_at(&["metadata", "ownerReferences"]), old.array_at(&["ownerReferences"]));
        let unchanged = new.len() == old.len() && new.iter().zip(old).all(|(new, old)| same(new, old));
        if unchanged {
            return Ok(());
        }
        self.check(attributes, new, old).map_err(|why| forbidden(attributes, why))
    }
}

/// The owners whose deletion is to wait for this object, and did not have to before.
fn newly_blocking<'a>(new: &'a [Value], old: &[Value]) -> Vec<&'a Value> {
    let blocks = |owner: &Value| owner["blockOwnerDeletion"].as_bool() == Some(true);
    let blocked = |owner: &Value| {
        let before = old.iter().find(|old| old["uid"] == owner["uid"]);
        before.is_some_and(blocks)
    };
    new.iter().filter(|owner| blocks(owner) && !blocked(owner)).collect()
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn only_owners_that_have_to_wait_from_now_on_count() {
        let owner = |uid: &str, blocks: bool| json!({"uid": uid, "blockOwnerDeletion": blocks});
        let old = [owner("a", true), owner("b", false)];
        let new = [owner("a", true), owner("b", true), owner("c", true), owner("d", false)];
        let found: Vec<&str> =
            newly_blocking(&new, &old).into_iter().map(|owner| owner.str_at(&["uid"])).collect();
        assert_eq!(found, ["b", "c"]);
    }
}
