//! Which field manager keeps an object's managed fields, for ordinary writes and for server-side apply.

use std::sync::LazyLock;

use api::Resource;
use apimachinery::managed_fields::{FieldManager, Filter};
use apimachinery::{GroupVersionKind, Status, Value};
use jiff::Timestamp;

use crate::{Endpoint, WriteContext};

static EVERYTHING: LazyLock<Filter> = LazyLock::new(Filter::default);
static ALL_BUT_STATUS: LazyLock<Filter> = LazyLock::new(|| Filter::except(&[&["status"]]));
static ALL_BUT_SPEC: LazyLock<Filter> = LazyLock::new(|| Filter::except(&[&["spec"]]));

/// The fields a request to this (sub)resource can set at all.
fn filter(resource: &Resource, subresource: &str) -> &'static Filter {
    match subresource {
        "" if resource.strategy.has_status() => &ALL_BUT_STATUS,
        "status" => &ALL_BUT_SPEC,
        _ => &EVERYTHING,
    }
}

fn field_manager<'a>(resource: &'a Resource, kind: &'a GroupVersionKind, subresource: &'a str) -> FieldManager<'a> {
    FieldManager { schema: resource.schema.root(), kind, subresource, filter: filter(resource, subresource) }
}

/// Records the writer as owner of every field it set (a create) or changed (with `old`, an update).
pub(crate) fn track(endpoint: &Endpoint, ctx: &WriteContext<'_>, object: &mut Value, old: Option<&Value>) {
    let kind = endpoint.resource.gvk();
    let manager = field_manager(&endpoint.resource, &kind, ctx.subresource.unwrap_or_default());
    manager.update(old, object, ctx.field_manager, ctx.now);
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
    manager.apply(apply.live, apply.applied, apply.manager, apply.force, apply.now).map_err(|error| error.into_status())
}
