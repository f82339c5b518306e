//! Whether a schema is structural: every field has its type outside of `allOf` and its siblings, and these only judge.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::json;

use super::go_form;
use crate::pattern::Pattern;

/// What a schema describes.
#[derive(Clone, Copy, PartialEq)]
enum Level {
    Root,
    Item,
    Field,
}

/// All complaints, in the order of their texts.
pub(super) fn validate(schema: &Value, path: &Path<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    invariants(&mut errors, schema, Level::Root, path);
    completeness(&mut errors, Some(schema), schema, path, path);
    errors.sort_by_cached_key(ToString::to_string);
    errors
}

fn truth(schema: &Value, key: &str) -> bool {
    schema[key].as_bool() == Some(true)
}

fn entries<'a>(schema: &'a Value, key: &str) -> impl Iterator<Item = (&'a str, &'a Value)> {
    schema[key].as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

fn child<'a>(schema: &'a Value, key: &str) -> Option<&'a Value> {
    schema.get(key).filter(|schema| schema.is_object())
}

fn invariants(errors: &mut ErrorList, schema: &Value, level: Level, path: &Path<'_>) {
    let kind = schema.str_at(&["type"]);
    match child(schema, "items") {
        Some(items) => invariants(errors, items, Level::Item, &path.child("items")),
        None if kind == "array" => errors.push(Error::required(&path.child("items"), "must be specified")),
        None => {}
    }
    let properties = path.child("properties");
    for (name, property) in entries(schema, "properties") {
        invariants(errors, property, Level::Field, &properties.key(name));
    }
    let is_embedded = truth(schema, "x-kubernetes-embedded-resource");
    if let Some(additional) = schema.get("additionalProperties").filter(|own| !own.is_null()) {
        let path = path.child("additionalProperties");
        if level == Level::Root {
            errors.push(Error::forbidden(&path, "must not be used at the root"));
        }
        if additional.is_object() {
            invariants(errors, additional, Level::Field, &path);
        }
        if is_embedded {
            let detail = "must not be used if x-kubernetes-embedded-resource is set";
            errors.push(Error::forbidden(&path, detail));
        }
    }
    exclusions(errors, schema, path);
    let skip_any_of = is_int_or_string_pattern(&schema["anyOf"]);
    let skip_first_all_of = is_int_or_string_pattern(&schema["allOf"][0]["anyOf"]);
    alternatives(errors, schema, skip_any_of, skip_first_all_of, path);
    own_type(errors, schema, level, &path.child("type"));
    object_parts(errors, schema, level, &properties);
    if is_embedded
        && !truth(schema, "x-kubernetes-preserve-unknown-fields")
        && entries(schema, "properties").next().is_none()
    {
        errors.push(Error::required(
            &properties,
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
        ));
    }
}

/// Extensions that exclude each other.
fn exclusions(errors: &mut ErrorList, schema: &Value, path: &Path<'_>) {
    if !truth(schema, "x-kubernetes-int-or-string") {
        return;
    }
    for key in ["x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"] {
        if truth(schema, key) {
            let detail = "must be false if x-kubernetes-int-or-string is true";
            errors.push(Error::invalid(&path.child(key), true, detail));
        }
    }
}

fn own_type(errors: &mut ErrorList, schema: &Value, level: Level, path: &Path<'_>) {
    const EMBEDDED: &str = "must be object if x-kubernetes-embedded-resource is true";
    let kind = schema.str_at(&["type"]);
    let any_type =
        truth(schema, "x-kubernetes-int-or-string") || truth(schema, "x-kubernetes-preserve-unknown-fields");
    if truth(schema, "x-kubernetes-embedded-resource") && kind != "object" {
        errors.push(if kind.is_empty() {
            Error::required(path, EMBEDDED)
        } else {
            Error::invalid(path, kind, EMBEDDED)
        });
    } else if kind.is_empty() && !any_type {
        let detail = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        errors.push(Error::required(path, detail));
    }
    if level == Level::Root && !kind.is_empty() && kind != "object" {
        errors.push(Error::invalid(path, kind, "must be object at the root"));
    }
}

/// Type and metadata of a whole object.
fn object_parts(errors: &mut ErrorList, schema: &Value, level: Level, properties: &Path<'_>) {
    let is_object = level == Level::Root || truth(schema, "x-kubernetes-embedded-resource");
    let property = |name: &str| child(&schema["properties"], name);
    if is_object {
        for name in ["kind", "apiVersion"] {
            if let Some(property) = property(name)
                && property.str_at(&["type"]) != "string"
            {
                let path = properties.key(name);
                let kind = property.str_at(&["type"]);
                errors.push(Error::invalid(&path.child("type"), kind, "must be string"));
            }
        }
    }
    let Some(metadata) = property("metadata") else { return };
    let path = properties.key("metadata");
    if is_object && metadata.str_at(&["type"]) != "object" {
        let kind = metadata.str_at(&["type"]);
        errors.push(Error::invalid(&path.child("type"), kind, "must be object"));
    }
    // A default is complained about elsewhere.
    let is_free = go_form::FIELDS.iter().all(|(_, key)| match *key {
        "type" | "default" => true,
        "properties" => entries(metadata, key).all(|(name, _)| matches!(name, "name" | "generateName")),
        key => metadata.get(key).is_none_or(go_form::is_zero),
    });
    if level == Level::Root && !is_free {
        let detail = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        errors.push(Error::forbidden(&path, detail));
    }
}

/// `anyOf` that says what `x-kubernetes-int-or-string` says.
fn is_int_or_string_pattern(any_of: &Value) -> bool {
    *any_of == json!([{"type": "integer"}, {"type": "string"}])
}

fn alternatives(
    errors: &mut ErrorList,
    schema: &Value,
    skip_any_of: bool,
    skip_first_all_of: bool,
    path: &Path<'_>,
) {
    if !skip_any_of {
        each(errors, schema, "anyOf", path);
    }
    let all_of = path.child("allOf");
    for (index, own) in schema.array_at(&["allOf"]).iter().enumerate() {
        nested(errors, own, skip_first_all_of && index == 0, &all_of.index(index));
    }
    each(errors, schema, "oneOf", path);
    if let Some(not) = child(schema, "not") {
        nested(errors, not, false, &path.child("not"));
    }
    let pattern = schema.str_at(&["pattern"]);
    if !pattern.is_empty()
        && let Some(why) = Pattern::shared(pattern).error()
    {
        let detail = format!("must be a valid regular expression, but isn't: {why}");
        errors.push(Error::invalid(&path.child("pattern"), pattern, detail));
    }
}

fn each(errors: &mut ErrorList, schema: &Value, key: &str, path: &Path<'_>) {
    let path = path.child(key);
    for (index, own) in schema.array_at(&[key]).iter().enumerate() {
        nested(errors, own, false, &path.index(index));
    }
}

/// A schema below `allOf` and its siblings, which may only judge.
fn nested(errors: &mut ErrorList, schema: &Value, skip_any_of: bool, path: &Path<'_>) {
    alternatives(errors, schema, skip_any_of, false, path);
    if let Some(items) = child(schema, "items") {
        nested(errors, items, false, &path.child("items"));
    }
    let properties = path.child("properties");
    for (name, property) in entries(schema, "properties") {
        nested(errors, property, false, &properties.key(name));
    }
    const FORBIDDEN: &[(&str, &str)] = &[
        ("type", "must be empty to be structural"),
        ("additionalProperties", "must be undefined to be structural"),
        ("default", "must be undefined to be structural"),
        ("title", "must be empty to be structural"),
        ("description", "must be empty to be structural"),
        ("nullable", "must be false to be structural"),
        ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
        ("x-kubernetes-embedded-resource", "must be false to be structural"),
        ("x-kubernetes-int-or-string", "must be false to be structural"),
        ("x-kubernetes-list-map-keys", "must be empty to be structural"),
        ("x-kubernetes-list-type", "must be undefined to be structural"),
        ("x-kubernetes-map-type", "must be undefined to be structural"),
        ("x-kubernetes-validations", "must be empty to be structural"),
    ];
    for (key, detail) in FORBIDDEN {
        let Some(value) = schema.get(key) else { continue };
        let is_set = match *key {
            "default" => !value.is_null(),
            "additionalProperties" => value.is_object() || value.as_bool() == Some(true),
            "x-kubernetes-list-type" | "x-kubernetes-map-type" => !value.is_null(),
            _ => !go_form::is_zero(value),
        };
        if is_set {
            errors.push(Error::forbidden(&path.child(key), *detail));
        }
    }
    if child(&schema["properties"], "metadata").is_some() {
        let path = properties.key("metadata");
        errors.push(Error::forbidden(&path, "must not be specified in a nested context"));
    }
}

/// Whatever the alternatives of `own` talk about is there in the structure, which is `None` where it ends. Upstream
/// looks at the root's alternatives only.
fn completeness(
    errors: &mut ErrorList,
    structure: Option<&Value>,
    own: &Value,
    structure_path: &Path<'_>,
    path: &Path<'_>,
) {
    let Some(structure) = structure else {
        let detail = format!("because it is defined in {path}");
        errors.push(Error::required(structure_path, detail));
        return;
    };
    if let Some(not) = child(own, "not") {
        nested_completeness(errors, structure, not, structure_path, &path.child("not"));
    }
    for key in ["allOf", "anyOf", "oneOf"] {
        let path = path.child(key);
        for (index, own) in own.array_at(&[key]).iter().enumerate() {
            nested_completeness(errors, structure, own, structure_path, &path.index(index));
        }
    }
}

fn nested_completeness(
    errors: &mut ErrorList,
    structure: &Value,
    own: &Value,
    structure_path: &Path<'_>,
    path: &Path<'_>,
) {
    completeness(errors, Some(structure), own, structure_path, path);
    let mut descend = |structure: Option<&Value>, own: &Value, structure_path: &Path<'_>, path: &Path<'_>| {
        match structure {
            Some(structure) => nested_completeness(errors, structure, own, structure_path, path),
            None => completeness(errors, None, own, structure_path, path),
        }
    };
    if let Some(items) = child(own, "items") {
        descend(child(structure, "items"), items, &structure_path.child("items"), &path.child("items"));
    }
    let (structure_path, path) = (structure_path.child("properties"), path.child("properties"));
    for (name, property) in entries(own, "properties") {
        let structure = child(&structure["properties"], name);
        descend(structure, property, &structure_path.key(name), &path.key(name));
    }
}
