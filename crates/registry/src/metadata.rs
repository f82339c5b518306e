//! The part of an object's metadata that the server decides, the same for every kind.

use api::validation::{ObjectMetaRules, object_meta, object_meta_update};
use api::{Resource, strategy::Context};
use apimachinery::time::format_seconds;
use apimachinery::{Object, Status, Value, field};
use jiff::Timestamp;

use crate::WriteContext;

/// Longest name that upstream generates: the base is cut so that five random characters fit.
const GENERATED_NAME_MAX: usize = 63;
const SUFFIX_LEN: usize = 5;

/// Checks that body and path agree on the namespace and fills it in.
pub(crate) fn ensure_namespace(
    resource: &Resource,
    ctx: &WriteContext<'_>,
    object: &mut Value,
) -> Result<(), Status> {
    let given = object.str_at(&["metadata", "namespace"]);
    if !resource.namespaced {
        if given.is_empty() {
            return Ok(());
        }
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    if given.is_empty() {
        object.set_at(&["metadata", "namespace"], ctx.namespace);
    } else if given != ctx.namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}

/// Takes out what only the server may say of a new object.
pub(crate) fn wipe_system_fields(object: &mut Value) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    for field in ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
        metadata.remove(field);
    }
}

/// Sets what a new object gets from the server and drops what a creator may not bring.
pub(crate) fn begin_create(resource: &Resource, ctx: &WriteContext<'_>, object: &mut Value) {
    wipe_system_fields(object);
    let metadata = object.ensure_object_at(&["metadata"]);
    metadata.insert("uid", rt::uuid());
    metadata.insert("creationTimestamp", format_seconds(ctx.now));
    if resource.strategy.has_generation() {
        metadata.insert("generation", 1);
    } else {
        metadata.remove("generation");
    }
}

/// A certificate request says who made it: what the server saw, whatever the client wrote.
pub(crate) fn record_requester(resource: &Resource, ctx: &WriteContext<'_>, object: &mut Value) {
    if resource.kind != "CertificateSigningRequest" {
        return;
    }
    let spec = object.ensure_object_at(&["spec"]);
    if !ctx.user.uid().is_empty() {
        spec.insert("uid", ctx.user.uid());
    }
    if !ctx.user.groups().is_empty() {
        spec.insert("groups", ctx.user.groups().to_vec());
    }
    let extra: Value =
        ctx.user.extra().iter().map(|(key, values)| (key.as_str().into(), values.clone().into())).collect();
    if extra.as_object().is_some_and(|extra| !extra.is_empty()) {
        spec.insert("extra", extra);
    }
}

/// Whether the object asks for a name made from its `generateName`.
pub(crate) fn wants_generated_name(object: &Value) -> bool {
    object.str_at(&["metadata", "name"]).is_empty()
        && !object.str_at(&["metadata", "generateName"]).is_empty()
}

/// Gives the object a name made from its `generateName`.
pub(crate) fn generate_name(object: &mut Value) {
    let base = object.str_at(&["metadata", "generateName"]);
    let keep = base.floor_char_boundary(GENERATED_NAME_MAX - SUFFIX_LEN);
    let name = format!("{}{}", &base[..keep], rt::name_suffix(SUFFIX_LEN));
    object.set_at(&["metadata", "name"], name);
}

/// Carries over what an update may not change, so that leaving it out is not an error.
pub(crate) fn begin_update(new: &mut Value, old: &Value) {
    let old_metadata = &old["metadata"];
    let metadata = new.ensure_object_at(&["metadata"]);
    // Left out counts as unchanged; something else is caught by validation.
    for field in ["name", "namespace", "uid", "creationTimestamp", "generateName"] {
        let given = metadata.get(field).is_some_and(|value| !value.is_null());
        if let Some(value) = old_metadata.get(field)
            && !given
        {
            metadata.insert(field, value.clone());
        }
    }
    // An update that names no version is about the present one.
    if matches!(metadata.get("resourceVersion").and_then(Value::as_str), None | Some("" | "0"))
        && let Some(present) = old_metadata.get("resourceVersion")
    {
        metadata.insert("resourceVersion", present.clone());
    }
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"] {
        match old_metadata.get(field) {
            Some(value) => {
                metadata.insert(field, value.clone());
            }
            None => {
                metadata.remove(field);
            }
        }
    }
}

/// Counts a change of anything but metadata and status.
pub(crate) fn bump_generation(resource: &Resource, ctx: &Context<'_>, new: &mut Value, old: &Value) {
    let annotated = || ctx.subresource.is_none() && annotations_count(resource, new, old);
    let strategy = &resource.strategy;
    let is_same = strategy.is_same_generation(ctx, new, old);
    if !strategy.has_generation() || (is_same && !annotated()) {
        return;
    }
    let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
    new.set_at(&["metadata", "generation"], generation);
}

/// Annotations of a Deployment are copied to its ReplicaSets, so a change of them is one of what is wanted.
fn annotations_count(resource: &Resource, new: &Value, old: &Value) -> bool {
    let annotations =
        |object: &Value| object.at(&["metadata", "annotations"]).filter(|map| !map.is_null()).cloned();
    resource.group == "apps" && resource.kind == "Deployment" && annotations(new) != annotations(old)
}

fn rules(resource: &Resource) -> ObjectMetaRules {
    ObjectMetaRules {
        namespaced: resource.namespaced,
        name: resource.strategy.name_rule(),
        qualified_finalizers: !is_extension(resource),
    }
}

/// Kinds that upstream keeps outside of its core, with what they define: they are less strict about finalizers.
fn is_extension(resource: &Resource) -> bool {
    resource.custom.is_some()
        || matches!(resource.group.as_str(), "apiextensions.k8s.io" | "apiregistration.k8s.io")
}

/// Metadata and kind-specific complaints about a new object.
pub(crate) fn validate_create(resource: &Resource, ctx: &Context<'_>, object: &Value) -> field::ErrorList {
    let path = field::Path::root("metadata");
    let mut errors = object_meta(rules(resource), &object["metadata"], &path);
    errors.extend(resource.strategy.validate(ctx, object));
    errors
}

/// Metadata and kind-specific complaints about a change.
pub(crate) fn validate_update(
    resource: &Resource,
    ctx: &Context<'_>,
    new: &Value,
    old: &Value,
) -> field::ErrorList {
    let path = field::Path::root("metadata");
    let mut errors = object_meta_update(rules(resource), &new["metadata"], &old["metadata"], &path);
    errors.extend(resource.strategy.validate_update(ctx, new, old));
    errors
}

/// Marks an object as being deleted, `grace_seconds` from now at the latest.
pub(crate) fn mark_deleted(object: &mut Value, now: Timestamp, grace_seconds: i64) {
    let deadline = now.checked_add(jiff::SignedDuration::from_secs(grace_seconds)).unwrap_or(now);
    let generation = object["metadata"]["generation"].as_i64().unwrap_or(0);
    let metadata = object.ensure_object_at(&["metadata"]);
    let first = metadata.get("deletionTimestamp").is_none_or(Value::is_null);
    metadata.insert("deletionTimestamp", format_seconds(deadline));
    metadata.insert("deletionGracePeriodSeconds", grace_seconds);
    if generation > 0 && first {
        metadata.insert("generation", generation + 1);
    }
}

/// Whether nothing but the removal itself is left to do for this state.
pub(crate) fn is_finished(resource: &Resource, object: &Value) -> bool {
    let metadata = &object["metadata"];
    let marked = !metadata["deletionTimestamp"].is_null() && metadata.array_at(&["finalizers"]).is_empty();
    // A namespace has a second list of finalizers, and no grace period.
    let namespace = resource.group.is_empty() && resource.plural == "namespaces";
    let emptied = !namespace || object.array_at(&["spec", "finalizers"]).is_empty();
    marked && emptied && metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
}

/// Whether the stored state is already being deleted and free to go.
pub(crate) fn has_finalizers(object: &Object) -> bool {
    object.finalizers().len() > 0
}
