//! The keywords of a schema and how they go together.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::{Str, Value};

use super::{Demands, FieldPath};
use crate::Structural;

const TYPES: &[&str] = &["array", "boolean", "integer", "number", "object", "string"];
const REASONS: &[&str] =
    &["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// Keywords that upstream's type has and its schemas may not.
const UNSUPPORTED: &[&str] =
    &["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"];

/// All complaints about a whole object's schema.
pub(super) fn validate(errors: &mut ErrorList, schema: &Value, demands: &Demands, path: &Path<'_>) {
    let walk = Walk { demands };
    let start = Scope { is_root: true, ..Scope::default() };
    walk.schema(errors, schema, &start, path);
}

/// Whether `is_bad` is true of the schema or of any in it.
pub(super) fn any(schema: &Value, is_bad: &impl Fn(&Value) -> bool) -> bool {
    is_bad(schema) || children(schema).into_iter().any(|child| any(child, is_bad))
}

fn children(schema: &Value) -> Vec<&Value> {
    let mut found = Vec::new();
    for key in ["not", "items", "additionalProperties", "additionalItems"] {
        found.extend(schema.get(key).filter(|own| own.is_object()));
    }
    for key in ["allOf", "anyOf", "oneOf", "items"] {
        found.extend(schema.array_at(&[key]));
    }
    for key in ["properties", "patternProperties", "definitions", "dependencies"] {
        found.extend(schema[key].as_object().into_iter().flat_map(apimachinery::Map::values));
    }
    found
}

pub(super) fn has_unknown_type(schema: &Value) -> bool {
    let kind = schema.str_at(&["type"]);
    !kind.is_empty() && !TYPES.contains(&kind)
}

/// Whether the schema, or one in it, cannot be read as a structural schema at all.
pub(super) fn has_unsupported(schema: &Value) -> bool {
    any(schema, &|schema: &Value| {
        UNSUPPORTED.iter().any(|key| is_set(schema, key))
            || !schema.str_at(&["$schema"]).is_empty()
            || !schema.array_at(&["items"]).is_empty()
            || schema["x-kubernetes-preserve-unknown-fields"].as_bool() == Some(false)
    })
}

fn is_set(schema: &Value, key: &str) -> bool {
    match schema.get(key) {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => key == "$ref" || !text.is_empty(),
        Some(Value::Object(map)) => key == "dependencies" || key == "additionalItems" || !map.is_empty(),
        Some(_) => true,
    }
}

/// What the places above a schema decide for it.
#[derive(Clone, Default)]
struct Scope {
    is_root: bool,
    /// Inside `metadata`, `apiVersion` or `kind` of a whole object.
    in_meta: bool,
    /// Why defaults are forbidden.
    no_defaults: Option<Str>,
}

struct Walk<'d> {
    demands: &'d Demands,
}

impl Walk<'_> {
    fn schema(&self, errors: &mut ErrorList, schema: &Value, scope: &Scope, path: &Path<'_>) {
        self.plain(errors, schema, scope, path);
        let below = Scope { is_root: false, ..scope.clone() };
        self.fields(errors, schema, scope, path);
        if let Some(not) = schema.get("not").filter(|own| own.is_object()) {
            self.schema(errors, not, &below, &path.child("not"));
        }
        for key in ["allOf", "oneOf", "anyOf"] {
            let path = path.child(key);
            for (index, own) in schema.array_at(&[key]).iter().enumerate() {
                self.schema(errors, own, &below, &path.index(index));
            }
        }
        self.named(errors, schema, "definitions", &below, path);
        let items_path = path.child("items");
        if let Some(items) = schema.get("items").filter(|own| own.is_object()) {
            self.schema(errors, items, &below, &items_path);
        }
        for (index, items) in schema.array_at(&["items"]).iter().enumerate() {
            self.schema(errors, items, &below, &items_path.index(index));
        }
        self.named(errors, schema, "dependencies", &below, path);
        extensions(errors, schema, self.demands, path);
        list_map(errors, schema, path);
        if self.demands.sound_list_items {
            list_items(errors, schema, path);
        }
        rules(errors, schema, path);
    }

    fn named(&self, errors: &mut ErrorList, schema: &Value, key: &str, scope: &Scope, path: &Path<'_>) {
        let path = path.child(key);
        for (name, own) in schema[key].as_object().into_iter().flatten().filter(|(_, own)| own.is_object()) {
            self.schema(errors, own, scope, &path.key(name));
        }
    }

    /// Keywords that are not there, or not here.
    fn plain(&self, errors: &mut ErrorList, schema: &Value, scope: &Scope, path: &Path<'_>) {
        let kind = schema.str_at(&["type"]);
        if self.demands.known_types && has_unknown_type(schema) {
            errors.push(Error::not_supported(&path.child("type"), kind, TYPES));
        }
        if let Some(reason) = &scope.no_defaults
            && !schema["default"].is_null()
        {
            errors.push(Error::forbidden(&path.child("default"), format!("must not be set {reason}")));
        }
        for key in UNSUPPORTED {
            if is_set(schema, key) {
                errors.push(Error::forbidden(&path.child(key), format!("{key} is not supported")));
            }
        }
        if kind == "null" {
            let detail = "type cannot be set to null, use nullable as an alternative";
            errors.push(Error::forbidden(&path.child("type"), detail));
        }
        if !schema.array_at(&["items"]).is_empty() {
            let detail = "items must be a schema object and not an array";
            errors.push(Error::forbidden(&path.child("items"), detail));
        }
        if scope.in_meta && schema["x-kubernetes-embedded-resource"].as_bool() == Some(true) {
            let path = path.child("x-kubernetes-embedded-resource");
            errors.push(Error::forbidden(&path, "must not be used inside of resource meta"));
        }
        if schema["uniqueItems"].as_bool() == Some(true) {
            let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            errors.push(Error::forbidden(&path.child("uniqueItems"), detail));
        }
    }

    fn fields(&self, errors: &mut ErrorList, schema: &Value, scope: &Scope, path: &Path<'_>) {
        let below = Scope { is_root: false, ..scope.clone() };
        let properties = schema["properties"].as_object().filter(|map| !map.is_empty());
        let additional = &schema["additionalProperties"];
        if !additional.is_null() {
            let path = path.child("additionalProperties");
            if properties.is_some() && additional.as_bool() != Some(true) {
                let detail = "additionalProperties and properties are mutual exclusive";
                errors.push(Error::forbidden(&path, detail));
            }
            if additional.is_object() {
                let mut scope = below.clone();
                if scope.in_meta {
                    let reason = "inside additionalProperties applying to object metadata";
                    scope.no_defaults = Some(reason.into());
                }
                self.schema(errors, additional, &scope, &path);
            }
        }
        let is_object = scope.is_root || schema["x-kubernetes-embedded-resource"].as_bool() == Some(true);
        let properties_path = path.child("properties");
        for (name, property) in properties.into_iter().flatten() {
            let mut below = below.clone();
            if is_object && matches!(name.as_str(), "metadata" | "kind" | "apiVersion") {
                below.in_meta = true;
                if scope.is_root {
                    below.no_defaults = Some(format!("in top-level {name}").into());
                }
            }
            self.schema(errors, property, &below, &properties_path.key(name));
        }
    }
}

/// List and map types, and what they ask of the items.
fn extensions(errors: &mut ErrorList, schema: &Value, demands: &Demands, path: &Path<'_>) {
    const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";
    const SET_ITEM: &str = "must be atomic as item of a list with x-kubernetes-list-type=set";
    if schema[PRESERVE].as_bool() == Some(false) {
        errors.push(Error::invalid(&path.child(PRESERVE), false, "must be true or undefined"));
    }
    let kind = schema.str_at(&["type"]);
    let asks_for = |errors: &mut ErrorList, key: &str, wanted: &str| {
        let given = schema[key].as_str();
        if given.is_some() && kind != wanted {
            let detail = format!("must be {wanted} if {key} is specified");
            let path = path.child("type");
            errors.push(if kind.is_empty() {
                Error::required(&path, detail)
            } else {
                Error::invalid(&path, kind, detail)
            });
            return None;
        }
        given
    };
    asks_for(errors, "x-kubernetes-map-type", "object");
    one_of(errors, schema, "x-kubernetes-map-type", &["atomic", "granular"], path);
    let list_type = asks_for(errors, "x-kubernetes-list-type", "array");
    if demands.atomic_sets && list_type == Some("set") {
        let items = &schema["items"];
        let path = path.child("items");
        if let Some(key) = granular_item(items) {
            let shown = &items["x-kubernetes-list-type"];
            errors.push(Error::invalid(&path.child(key), shown, SET_ITEM));
        }
    }
    one_of(errors, schema, "x-kubernetes-list-type", &["atomic", "set", "map"], path);
}

fn one_of(errors: &mut ErrorList, schema: &Value, key: &str, supported: &[&str], path: &Path<'_>) {
    if let Some(given) = schema[key].as_str()
        && !supported.contains(&given)
    {
        errors.push(Error::not_supported(&path.child(key), given, supported));
    }
}

/// The extension that makes an item of a set other than atomic.
fn granular_item(items: &Value) -> Option<&'static str> {
    let own = |key: &str| items[key].as_str();
    match items.str_at(&["type"]) {
        "array" if own("x-kubernetes-list-type").is_some_and(|own| own != "atomic") => {
            Some("x-kubernetes-list-type")
        }
        "object" if own("x-kubernetes-map-type") != Some("atomic") => Some("x-kubernetes-map-type"),
        _ => None,
    }
}

pub(super) fn has_set_of_granular_items(schema: &Value) -> bool {
    schema.str_at(&["x-kubernetes-list-type"]) == "set" && granular_item(&schema["items"]).is_some()
}

fn list_map(errors: &mut ErrorList, schema: &Value, path: &Path<'_>) {
    let keys = schema.array_at(&["x-kubernetes-list-map-keys"]);
    let list_type = schema["x-kubernetes-list-type"].as_str();
    if !keys.is_empty() && list_type != Some("map") {
        let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
        let path = path.child("x-kubernetes-list-type");
        errors.push(match list_type {
            None => Error::required(&path, detail),
            Some(other) => Error::invalid(&path, other, detail),
        });
    }
    if list_type != Some("map") {
        return;
    }
    let keys_path = path.child("x-kubernetes-list-map-keys");
    if keys.is_empty() {
        errors.push(Error::required(&keys_path, "must not be empty if x-kubernetes-list-type is map"));
    }
    let items_path = path.child("items");
    let items = match &schema["items"] {
        Value::Null => {
            let detail = "must have a schema if x-kubernetes-list-type is map";
            errors.push(Error::required(&items_path, detail));
            return;
        }
        items @ Value::Object(_) => items,
        other => {
            let detail = "must only have a single schema if x-kubernetes-list-type is map";
            errors.push(Error::invalid(&items_path, other, detail));
            return;
        }
    };
    let kind = items.str_at(&["type"]);
    if kind != "object" {
        let detail = "must be object if parent array's x-kubernetes-list-type is map";
        errors.push(Error::invalid(&items_path.child("type"), kind, detail));
        return;
    }
    let properties_path = items_path.child("properties");
    for (index, key) in keys.iter().enumerate() {
        let name = key.as_str().unwrap_or_default();
        match items["properties"].get(name) {
            Some(property) if matches!(property.str_at(&["type"]), "array" | "object") => {
                let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                let path = properties_path.key(name);
                errors.push(Error::invalid(&path.child("type"), kind, detail));
            }
            Some(_) => {}
            None => {
                let shown = &schema["x-kubernetes-list-map-keys"];
                errors.push(Error::invalid(
                    &keys_path,
                    shown,
                    "entries must all be names of item properties",
                ));
            }
        }
        if keys[..index].contains(key) {
            let shown = &schema["x-kubernetes-list-map-keys"];
            errors.push(Error::invalid(&keys_path, shown, "must not contain duplicate entries"));
        }
    }
}

/// Items of sets and map lists are told apart, so they and their keys are there.
fn list_items(errors: &mut ErrorList, schema: &Value, path: &Path<'_>) {
    let list_type = schema.str_at(&["x-kubernetes-list-type"]);
    let items = &schema["items"];
    if !matches!(list_type, "set" | "map") || !items.is_object() {
        return;
    }
    let path = path.child("items");
    let is_nullable = |schema: &Value| schema["nullable"].as_bool() == Some(true);
    if is_nullable(items) {
        let detail = format!("cannot be nullable when x-kubernetes-list-type is {list_type}");
        errors.push(Error::forbidden(&path.child("nullable"), detail));
    }
    if list_type != "map" {
        return;
    }
    let properties_path = path.child("properties");
    for key in schema.array_at(&["x-kubernetes-list-map-keys"]) {
        let name = key.as_str().unwrap_or_default();
        let Some(property) = items["properties"].get(name) else { continue };
        let path = properties_path.key(name);
        if !items.array_at(&["required"]).contains(key) && property["default"].is_null() {
            let detail = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            errors.push(Error::required(&path.child("default"), detail));
        }
        if is_nullable(property) {
            let detail = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            errors.push(Error::forbidden(&path.child("nullable"), detail));
        }
    }
}

pub(super) fn has_unsound_list_items(schema: &Value) -> bool {
    let mut errors = ErrorList::new();
    list_items(&mut errors, schema, &Path::NONE);
    !errors.is_empty()
}

/// The form of rules; what they say is checked where they are compiled.
fn rules(errors: &mut ErrorList, schema: &Value, path: &Path<'_>) {
    const MUST_NOT_BREAK: &str = "must not contain line breaks";
    let has_breaks = |text: &str| text.contains(['\n', '\r']);
    let path = path.child("x-kubernetes-validations");
    let mut parsed = None;
    for (index, rule) in schema.array_at(&["x-kubernetes-validations"]).iter().enumerate() {
        let path = path.index(index);
        let text = |key: &str| rule.str_at(&[key]);
        let (message, trimmed) = (text("message"), text("message").trim());
        let message_path = path.child("message");
        if text("rule").trim().is_empty() {
            errors.push(Error::required(&path.child("rule"), "rule is not specified"));
        } else if !message.is_empty() && trimmed.is_empty() {
            errors.push(Error::invalid(&message_path, message, "must be non-empty if specified"));
        } else if has_breaks(trimmed) {
            errors.push(Error::invalid(&message_path, message, MUST_NOT_BREAK));
        } else if has_breaks(text("rule").trim()) && trimmed.is_empty() {
            let detail = "message must be specified if rule contains line breaks";
            errors.push(Error::required(&message_path, detail));
        }
        let expression = text("messageExpression");
        if !expression.is_empty() && expression.trim().is_empty() {
            let detail = "messageExpression must be non-empty if specified";
            errors.push(Error::required(&path.child("messageExpression"), detail));
        }
        if let Some(reason) = rule["reason"].as_str()
            && !REASONS.contains(&reason)
        {
            errors.push(Error::not_supported(&path.child("reason"), reason, REASONS));
        }
        let field_path = text("fieldPath");
        let own_path = path.child("fieldPath");
        if field_path.is_empty() {
            continue;
        }
        if field_path.trim().is_empty() {
            errors.push(Error::invalid(&own_path, field_path, "must be non-empty if specified"));
        }
        if has_breaks(field_path) {
            errors.push(Error::invalid(&own_path, field_path, MUST_NOT_BREAK));
        }
        let parsed = parsed.get_or_insert_with(|| Structural::parse(schema));
        if !has_unsupported(schema) && FieldPath::parse(field_path, parsed, true).is_err() {
            errors.push(Error::invalid(&own_path, field_path, "must be a valid path"));
        }
    }
}
