//! Which field manager keeps an object's managed fields, for ordinary writes and for server-side apply.

use std::sync::LazyLock;

use api::Resource;
use apimachinery::managed_fields::{FieldManager, Filter};
use apimachinery::{GroupVersionKind, Status, Value};
use jiff::Timestamp;

use crate::{Endpoint, WriteContext};

static EVERYTHING: LazyLock<Filter> = LazyLock::new(Filter::default);
static ALL_BUT_STATUS: LazyLock<Filter> = LazyLock::new(|| Filter::except(&[&["status"]]));
static ALL_BUT_SPEC_AND_STATUS: LazyLock<Filter> =
    LazyLock::new(|| Filter::except(&[&["spec"], &["status"]]));
static ALL_BUT_SPEC: LazyLock<Filter> = LazyLock::new(|| Filter::except(&[&["spec"]]));

/// The fields a request to this (sub)resource can set at all.
fn filter(resource: &Resource, subresource: &str) -> &'static Filter {
    match subresource {
        // Its spec is said once and for all.
        "" if resource.kind == "CertificateSigningRequest" => &ALL_BUT_SPEC_AND_STATUS,
        "" if resource.strategy.has_status() => &ALL_BUT_STATUS,
        "status" => &ALL_BUT_SPEC,
        _ => &EVERYTHING,
    }
}

fn field_manager<'a>(
    resource: &'a Resource,
    kind: &'a GroupVersionKind,
    subresource: &'a str,
) -> FieldManager<'a> {
    FieldManager { schema: resource.schema.root(), kind, subresource, filter: filter(resource, subresource) }
}

/// Records the writer as owner of every field it set (a create) or changed (with `old`, an update).
pub(crate) fn track(endpoint: &Endpoint, ctx: &WriteContext<'_>, object: &mut Value, old: Option<&Value>) {
    // As upstream: the scale of a custom resource has no type to tell its fields by, so nobody is recorded.
    if endpoint.resource.custom.is_some() && ctx.subresource == Some("scale") {
        return;
    }
    let kind = endpoint.resource.gvk();
    let manager = field_manager(&endpoint.resource, &kind, ctx.subresource.unwrap_or_default());
    manager.update(old, object, ctx.field_manager, ctx.now);
    if ctx.subresource == Some("scale") {
        forget_time(object, ctx.field_manager);
    }
}

/// As upstream's, entries made through a scale say not when: they pass through the small object, which has no times.
fn forget_time(object: &mut Value, manager: &str) {
    let entries = object.at_mut(&["metadata", "managedFields"]).and_then(Value::as_array_mut);
    for entry in entries.into_iter().flatten() {
        if entry.str_at(&["subresource"]) == "scale" && entry.str_at(&["manager"]) == manager {
            entry.remove_at(&["time"]);
        }
    }
}

/// Records the writer of an object that is answered and not stored.
pub fn track_unstored(resource: &Resource, object: &mut Value, manager: &str, now: Timestamp) {
    let kind = resource.gvk();
    field_manager(resource, &kind, "").update(None, object, manager, now);
}

/// A server-side apply: who applies what, onto which state.
pub struct Apply<'a> {
    pub applied: &'a Value,
    pub live: Option<&'a Value>,
    pub manager: &'a str,
    pub subresource: &'a str,
    /// Take over fields that others own.
    pub force: bool,
    pub now: Timestamp,
}

/// The object after the apply, with its managed fields; conflicts are a `Status` with a cause for each.
pub fn apply(endpoint: &Endpoint, apply: &Apply<'_>) -> Result<Value, Status> {
    let kind = endpoint.resource.gvk();
    let manager = field_manager(&endpoint.resource, &kind, apply.subresource);
    manager
        .apply(apply.live, apply.applied, apply.manager, apply.force, apply.now)
        .map_err(|error| error.into_status())
}
