//! Coming from client-side apply: the annotation it left tells what kubectl owns already.

use super::compare::{Changes, compare};
use super::conflict::Conflict;
use super::merge;
use super::set::Set;
use crate::schema::SchemaRef;
use crate::{GroupVersionKind, Value};

/// Client-side apply's record of the configuration it applied last.
const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The conflicts that remain when fields are excused which client-side apply set and nobody changed since.
pub(super) fn not_excused(
    mut conflicts: Vec<Conflict>,
    live: &Value,
    kind: &GroupVersionKind,
    schema: SchemaRef<'_>,
) -> Vec<Conflict> {
    let Some(allowed) = allowed(live, kind, schema) else { return conflicts };
    for conflict in &mut conflicts {
        conflict.fields.subtract(&allowed);
    }
    conflicts.retain(|conflict| !conflict.fields.is_empty());
    conflicts
}

/// Fields of the last applied configuration that still have the value it gave them.
fn allowed(live: &Value, kind: &GroupVersionKind, schema: SchemaRef<'_>) -> Option<Set> {
    let text = live.str_at(&["metadata", "annotations", ANNOTATION]);
    let last = Value::parse(text.as_bytes()).ok()?;
    if last.str_at(&["apiVersion"]) != kind.api_version() || !merge::validate(&last, Some(schema)).is_empty()
    {
        return None;
    }
    let mut set = merge::field_set(&last, Some(schema)).ok()?;
    let Changes { added, modified, removed } = compare(&last, live, Some(schema)).ok()?;
    [added, modified, removed].iter().for_each(|changed| {
        set.subtract(changed);
    });
    Some(set)
}

/// Brings the annotation of an object that has one in line with what server-side apply applied.
pub(super) fn keep_up(object: &mut Value, applied: &Value) {
    let path = ["metadata", "annotations", ANNOTATION];
    if object.str_at(&path).is_empty() {
        return;
    }
    let mut config = applied.clone();
    config.remove_at(&path);
    // Upstream's encoder ends with a newline.
    object.set_at(&path, format!("{config}\n"));
}
