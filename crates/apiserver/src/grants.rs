//! Writes of RBAC objects: nobody hands out more than they hold.

use apimachinery::value::from_value;
use apimachinery::{Status, Value};
use auth::rbac::{Kind, PolicyRule, RbacAuthorizer, RoleRef, escalation};

use crate::door::{Call, Door};

/// Refuses a role or binding that would give away rights its writer lacks.
pub fn check(
    door: &Door,
    rbac: &RbacAuthorizer,
    call: &Call<'_>,
    object: &Value,
    current: Option<&Value>,
) -> Result<(), Status> {
    let resource = &call.endpoint.resource;
    let name = object.str_at(&["metadata", "name"]);
    let unchanged = |field: &str| current.is_some_and(|current| current.get(field) == object.get(field));
    let outcome = match resource.plural.as_str() {
        "roles" | "clusterroles" => {
            if unchanged("rules") && unchanged("aggregationRule") {
                return Ok(());
            }
            let rules: Vec<PolicyRule> = decode(object.get("rules"))?;
            let aggregated = [Some(object), current]
                .into_iter()
                .flatten()
                .any(|role| role.get("aggregationRule").is_some_and(|rule| !rule.is_null()));
            let kind = if resource.plural == "roles" { Kind::Role } else { Kind::ClusterRole };
            let write = escalation::RoleWrite {
                user: call.user,
                kind,
                namespace: call.namespace,
                name,
                rules: &rules,
                aggregated,
            };
            escalation::check_role(rbac, door.authorizer().as_ref(), &write)
        }
        _ => {
            if unchanged("roleRef") && unchanged("subjects") {
                return Ok(());
            }
            let Some(role) = object.get("roleRef") else { return Ok(()) };
            let role: RoleRef = decode(Some(role))?;
            escalation::check_binding(rbac, door.authorizer().as_ref(), call.user, call.namespace, &role)
        }
    };
    outcome.map_err(|refused| match refused {
        escalation::Refused::Forbidden(why) => Status::forbidden(&resource.group_resource(), name, why),
        escalation::Refused::RoleNotFound { resource, ref name } => {
            Status::not_found(&apimachinery::GroupResource::new(auth::rbac::GROUP, resource), name)
        }
    })
}

fn decode<T: serde::de::DeserializeOwned + Default>(value: Option<&Value>) -> Result<T, Status> {
    match value {
        Some(value) if !value.is_null() => {
            from_value(value).map_err(|error| Status::bad_request(error.to_string()))
        }
        _ => Ok(T::default()),
    }
}
