//! The outer form of a custom resource's schema: types and items are given where they must be.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use crate::validation::fields::Fields;

/// What a schema describes.
#[derive(Clone, Copy, PartialEq)]
enum Level {
    Root,
    Item,
    Field,
}

/// The schema of a whole object, below `holder.openAPIV3Schema`.
pub fn root(errors: &mut ErrorList, holder: &Value, path: &Path<'_>) {
    let Some(schema) = holder.maybe("openAPIV3Schema") else { return };
    let mut found = ErrorList::new();
    structural(&mut found, schema, Level::Root, &path.child("openAPIV3Schema"));
    found.sort_by_cached_key(ToString::to_string);
    errors.append(&mut found);
}

fn structural(errors: &mut ErrorList, schema: &Value, level: Level, path: &Path<'_>) {
    let kind = schema.text("type");
    match schema.maybe("items") {
        Some(items) => structural(errors, items, Level::Item, &path.child("items")),
        None if kind == "array" => errors.push(Error::required(&path.child("items"), "must be specified")),
        None => {}
    }
    let properties = path.child("properties");
    for (name, property) in schema.entries("properties") {
        structural(errors, property, Level::Field, &properties.key(name));
    }
    let embedded = schema.truth("x-kubernetes-embedded-resource");
    if let Some(additional) = schema.maybe("additionalProperties") {
        let path = path.child("additionalProperties");
        if level == Level::Root {
            errors.push(Error::forbidden(&path, "must not be used at the root"));
        }
        if additional.as_object().is_some() {
            structural(errors, additional, Level::Field, &path);
        }
        if embedded {
            let detail = "must not be used if x-kubernetes-embedded-resource is set";
            errors.push(Error::forbidden(&path, detail));
        }
    }
    own_type(errors, schema, level, &path.child("type"));
    if !embedded && level != Level::Root {
        return;
    }
    for name in ["kind", "apiVersion"] {
        if let Some(property) = schema.map("properties").and_then(|all| all.get(name))
            && property.text("type") != "string"
        {
            let path = properties.key(name);
            errors.push(Error::invalid(&path.child("type"), property.text("type"), "must be string"));
        }
    }
    if embedded
        && !schema.truth("x-kubernetes-preserve-unknown-fields")
        && schema.entries("properties").next().is_none()
    {
        errors.push(Error::required(
            &properties,
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
        ));
    }
}

fn own_type(errors: &mut ErrorList, schema: &Value, level: Level, path: &Path<'_>) {
    const EMBEDDED: &str = "must be object if x-kubernetes-embedded-resource is true";
    let kind = schema.text("type");
    let any_type =
        schema.truth("x-kubernetes-int-or-string") || schema.truth("x-kubernetes-preserve-unknown-fields");
    if schema.truth("x-kubernetes-embedded-resource") && kind != "object" {
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
