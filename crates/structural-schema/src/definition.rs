//! What is wrong with the schemas of a CustomResourceDefinition.
//!
//! Owns: everything upstream says about `openAPIV3Schema` and about the paths that point into it. The names, versions
//! and webhooks around it are the kind's own, in the crate of the built-in kinds. Works on the schema as it was
//! written and not on [`crate::Structural`], because most complaints are about what the latter leaves out.
//!
//! Start at [`schema`].

mod defaults;
mod field_path;
mod go_form;
mod keywords;
mod rules;
mod selectable;
mod structural;

use std::sync::Arc;

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::schema::Schemas;

pub use field_path::FieldPath;
pub use selectable::selectable_fields;

use crate::Structural;
use crate::metadata::ObjectMetaCheck;

/// What is known of the built-in types, which defaults of metadata are judged by.
#[derive(Clone, Copy)]
pub struct Builtin<'a> {
    pub schemas: &'a Arc<Schemas>,
    pub object_meta: ObjectMetaCheck,
}

/// What is demanded of a definition's schemas. An update may leave in place what an older server let in.
#[derive(Clone, Debug)]
pub struct Demands {
    structural: bool,
    known_types: bool,
    pruned_defaults: bool,
    atomic_sets: bool,
    sound_list_items: bool,
}

impl Demands {
    /// All there are: for a new definition.
    pub const ALL: Self = Self {
        structural: true,
        known_types: true,
        pruned_defaults: true,
        atomic_sets: true,
        sound_list_items: true,
    };

    /// For an update of the definition with this `spec`; demands that it does not meet are dropped.
    pub fn of_update(old_spec: &Value) -> Self {
        let schemas = || {
            old_spec
                .array_at(&["versions"])
                .iter()
                .filter_map(|version| version.at(&["schema", "openAPIV3Schema"]))
        };
        let none = |is_bad: fn(&Value) -> bool| !schemas().any(|schema| keywords::any(schema, &is_bad));
        Self {
            // What is not preserved is pruned, and only a structural schema says how.
            structural: old_spec["preserveUnknownFields"].as_bool() != Some(true)
                || !schemas().any(|schema| !structural::validate(schema, &Path::NONE).is_empty()),
            known_types: none(keywords::has_unknown_type),
            pruned_defaults: !schemas().any(defaults::has_unpruned),
            atomic_sets: none(keywords::has_set_of_granular_items),
            sound_list_items: none(keywords::has_unsound_list_items),
        }
    }
}

/// What there is to know about a schema besides its text.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    /// The versions that it is for have a status subresource.
    pub has_status: bool,
    /// It was there before this update; what its rules cost was accepted then.
    pub is_unchanged: bool,
}

/// All complaints about the schema in `holder`, a version's `schema`.
pub fn schema(
    errors: &mut ErrorList,
    holder: &Value,
    place: Place,
    demands: &Demands,
    builtin: Builtin<'_>,
    path: &Path<'_>,
) {
    let Some(schema) = holder.get("openAPIV3Schema").filter(|schema| schema.is_object()) else { return };
    let own = path.child("openAPIV3Schema");
    if place.has_status {
        root_beside_status(errors, schema, path);
    }
    if schema["nullable"].as_bool() == Some(true) {
        let path = path.child("openAPIV3Schema.nullable");
        errors.push(Error::forbidden(&path, "nullable cannot be true at the root"));
    }
    let mut sound = None;
    if demands.structural && !keywords::has_unsupported(schema) {
        let parsed = Structural::parse(schema);
        let mut found = structural::validate(schema, &own);
        if found.is_empty() {
            found = defaults::validate(&parsed, demands.pruned_defaults, builtin, &own);
        }
        sound = found.is_empty().then_some(parsed);
        errors.append(&mut found);
    }
    let before = errors.len();
    keywords::validate(errors, schema, demands, &own);
    // What rules say is not judged where there is no telling what they speak of.
    if let Some(schema) = sound {
        let mut found = errors.split_off(before);
        rules::validate(&mut found, &schema, place.is_unchanged, &own);
        errors.append(&mut found);
    }
}

/// With a status subresource, the root may only say what does not depend on the status being a part of the object.
fn root_beside_status(errors: &mut ErrorList, schema: &Value, path: &Path<'_>) {
    for (name, key) in go_form::FIELDS {
        if schema.get(key).is_none_or(go_form::is_zero) {
            continue;
        }
        if *name == "Type" {
            let kind = schema.str_at(&["type"]);
            if kind != "object" {
                let detail = "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
                errors.push(Error::invalid(&path.child("openAPIV3Schema.type"), kind, detail));
                return;
            }
        } else if !go_form::ALLOWED_BESIDE_STATUS.contains(name) {
            let detail = format!(
                "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
                go_form::ALLOWED_BESIDE_STATUS.join(" ")
            );
            let path = path.child("openAPIV3Schema").to_string();
            let shown = Some(go_form::schema(schema));
            errors.push(Error { shown, path, ..Error::invalid(&Path::NONE, "", detail) });
            return;
        }
    }
}

#[cfg(test)]
mod tests;
