//! From OpenAPI schemas to declarations, and the names of properties in expressions.
//!
//! What a rule cannot see has no declaration: unknown fields that a schema preserves, and lists and maps of such.

use std::borrow::Cow;
use std::sync::Arc;

use apimachinery::value::Value as Json;

use crate::limits::REQUEST_BYTES_MAX;
use crate::parser::RESERVED;
use crate::types::{Decl, Field, ListKind, ObjectType, Type};

/// The longest date, with its quotes.
const DATE_BYTES: u64 = 12;
/// The longest duration or time, with its quotes.
const TIME_BYTES_MAX: u64 = 32;
/// The shortest duration (`"0"`).
const DURATION_BYTES_MIN: u64 = 3;
const TIME_BYTES_MIN: u64 = 21;
/// What a property takes beside its name and value: quotes, colon and comma.
const PROPERTY_BYTES: u64 = 4;
/// What an entry of a map takes beside its value, with the shortest key.
const ENTRY_BYTES: u64 = 6;

/// Whether a word cannot stand in expressions as it is.
pub fn is_reserved(word: &str) -> bool {
    RESERVED.contains(&word)
}

/// How expressions spell a property, if they can.
pub fn escape(property: &str) -> Option<Cow<'_, str>> {
    if property.is_empty() || property.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if is_reserved(property) {
        return Some(format!("__{property}__").into());
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/');
    if !property.chars().all(allowed) {
        return None;
    }
    if !property.contains(['.', '-', '/']) && !property.contains("__") {
        return Some(property.into());
    }
    let escaped = property
        .replace("__", "\u{0}")
        .replace('.', "__dot__")
        .replace('-', "__dash__")
        .replace('/', "__slash__")
        .replace('\u{0}', "__underscores__");
    Some(escaped.into())
}

/// The property that an expression means by a name, if it is a name that [`escape`] can give.
pub fn unescape(name: &str) -> Option<Cow<'_, str>> {
    if !name.contains("__") {
        return Some(name.into());
    }
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(start) = rest.find("__") {
        out.push_str(&rest[..start]);
        let inner = &rest[start + 2..];
        let end = inner.find("__")?;
        match &inner[..end] {
            "underscores" => out.push_str("__"),
            "dot" => out.push('.'),
            "dash" => out.push('-'),
            "slash" => out.push('/'),
            word if is_reserved(word) && start == 0 && inner.len() == end + 2 && out.is_empty() => {
                out.push_str(word);
            }
            _ => return None,
        }
        rest = &inner[end + 2..];
    }
    out.push_str(rest);
    Some(out.into())
}

/// The declaration of values of a schema (`JSONSchemaProps` as JSON), or nothing if expressions cannot see them.
///
/// `name` becomes the name of the type, of which nested types are named. At the root of a resource `apiVersion`,
/// `kind` and the name in `metadata` are visible whatever the schema says.
pub fn declare(schema: &Json, name: &str, resource_root: bool) -> Option<Decl> {
    let mut decl = declare_present(schema, name, resource_root)?;
    decl.nullable = schema["nullable"].as_bool() == Some(true);
    Some(decl)
}

fn declare_present(schema: &Json, name: &str, resource_root: bool) -> Option<Decl> {
    if schema["x-kubernetes-int-or-string"].as_bool() == Some(true) {
        let max =
            schema["maxLength"].as_i64().map_or(REQUEST_BYTES_MAX - 2, |length| not_negative(length) * 4);
        return Some(Decl::plain(Type::Dyn, 1).with_elements_max(max));
    }
    match schema["type"].as_str().unwrap_or(if resource_root { "object" } else { "" }) {
        "array" => list(schema, name),
        "object" => object(schema, name, resource_root),
        "string" => Some(string(schema)),
        "boolean" => Some(Decl::bool()),
        "number" => Some(Decl::double()),
        "integer" => Some(Decl::int()),
        _ => None,
    }
}

fn not_negative(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn embedded(schema: &Json) -> bool {
    schema["x-kubernetes-embedded-resource"].as_bool() == Some(true)
}

fn list(schema: &Json, name: &str) -> Option<Decl> {
    let items_schema = schema.get("items")?;
    let items = declare(items_schema, &format!("{name}.@idx"), embedded(items_schema))?;
    let max =
        schema["maxItems"].as_i64().map_or((REQUEST_BYTES_MAX - 2) / (items.bytes_min + 1), not_negative);
    let kind = match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => ListKind::Set,
        Some("map") => ListKind::Map(
            schema["x-kubernetes-list-map-keys"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|key| key.as_str().map(Into::into))
                .collect(),
        ),
        _ => ListKind::Atomic,
    };
    Some(Decl::list(items, max, kind))
}

fn object(schema: &Json, name: &str, resource_root: bool) -> Option<Decl> {
    if let Some(values_schema @ Json::Object(_)) = schema.get("additionalProperties") {
        let values = declare(values_schema, &format!("{name}.@elem"), embedded(values_schema))?;
        let max = schema["maxProperties"]
            .as_i64()
            .map_or((REQUEST_BYTES_MAX - 2) / (values.bytes_min + ENTRY_BYTES), not_negative);
        return Some(Decl::map(Decl::string(), values, max));
    }
    let required = |property: &str| {
        schema["required"]
            .as_array()
            .is_some_and(|names| names.iter().any(|name| name.as_str() == Some(property)))
    };
    let mut bytes_min = 2;
    let mut fields: Vec<Field> = Vec::new();
    for (property, property_schema) in schema["properties"].as_object().into_iter().flatten() {
        let type_name = format!("{name}.{property}");
        let Some(decl) = declare(property_schema, &type_name, embedded(property_schema)) else { continue };
        if required(property) && property_schema.get("default").is_none() {
            bytes_min += property.len() as u64 + decl.bytes_min + PROPERTY_BYTES;
        }
        if let Some(escaped) = escape(property) {
            fields.push(Field { name: (*escaped).into(), property: property.as_str().into(), decl });
        }
    }
    if resource_root {
        add_type_and_name(&mut fields, name);
    }
    let mut decl = Decl::object(Arc::new(ObjectType::new(name, fields)));
    decl.bytes_min = bytes_min;
    Some(decl)
}

/// What every resource has, unless the schema has all of it already.
fn add_type_and_name(fields: &mut Vec<Field>, name: &str) {
    let is_text = |fields: &[Field], name: &str| {
        fields.iter().any(|field| *field.name == *name && field.decl.ty == Type::String)
    };
    let has_name = fields.iter().any(|field| match &field.decl.ty {
        Type::Object(metadata) if &*field.name == "metadata" => {
            is_text(metadata.fields(), "name") && is_text(metadata.fields(), "generateName")
        }
        _ => false,
    });
    if has_name && is_text(fields, "kind") && is_text(fields, "apiVersion") {
        return;
    }
    let text = || Decl::string().with_elements_max(REQUEST_BYTES_MAX - 2);
    let metadata = ObjectType::new(
        &format!("{name}.metadata"),
        vec![Field::new("name", text()), Field::new("generateName", text())],
    );
    fields.retain(|field| !matches!(&*field.name, "kind" | "apiVersion" | "metadata"));
    fields.push(Field::new("kind", text()));
    fields.push(Field::new("apiVersion", text()));
    fields.push(Field::new("metadata", Decl::object(Arc::new(metadata))));
}

fn string(schema: &Json) -> Decl {
    let max_length = schema["maxLength"].as_i64().map(not_negative);
    let unbounded = REQUEST_BYTES_MAX - 2;
    match schema["format"].as_str() {
        Some("byte") => Decl::plain(Type::Bytes, 2).with_elements_max(max_length.unwrap_or(unbounded)),
        Some("duration") => Decl::plain(Type::Duration, DURATION_BYTES_MIN).with_elements_max(TIME_BYTES_MAX),
        Some("date") => Decl::plain(Type::Timestamp, DATE_BYTES).with_elements_max(DATE_BYTES),
        Some("date-time") => Decl::plain(Type::Timestamp, TIME_BYTES_MIN).with_elements_max(TIME_BYTES_MAX),
        _ => {
            let longest = || {
                let choices = schema["enum"].as_array().filter(|choices| !choices.is_empty())?;
                choices.iter().map(|choice| choice.as_str().map_or(0, |text| text.len() as u64)).max()
            };
            // Lengths are in characters, requests in bytes.
            let max = max_length.map(|length| length * 4).or_else(longest).unwrap_or(unbounded);
            Decl::string().with_elements_max(max)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;

    #[test]
    fn names_are_escaped_and_back() {
        for (property, name) in [
            ("plain", Some("plain")),
            ("a.b-c/d", Some("a__dot__b__dash__c__slash__d")),
            ("a__b", Some("a__underscores__b")),
            ("namespace", Some("__namespace__")),
            ("_a", Some("_a")),
            ("1a", None),
            ("a b", None),
            ("", None),
        ] {
            assert_eq!(escape(property).as_deref(), name, "{property}");
            if let Some(name) = name {
                assert_eq!(unescape(name).as_deref(), Some(property), "{name}");
            }
        }
        assert_eq!(unescape("a__what__b"), None);
        assert_eq!(unescape("a__if__"), None);
    }

    #[test]
    fn sizes_are_guessed_from_what_a_request_can_hold() {
        let schema = json!({"type": "object", "required": ["a"], "properties": {
            "a": {"type": "string"},
            "list": {"type": "array", "items": {"type": "string", "maxLength": 5}},
            "map": {"type": "object", "additionalProperties": {"type": "integer"}},
            "any": {"type": "object", "additionalProperties": {"x-kubernetes-preserve-unknown-fields": true}},
            "mode": {"type": "string", "enum": ["a", "four"]},
            "either": {"x-kubernetes-int-or-string": true}
        }});
        let decl = declare(&schema, "self", false).unwrap();
        assert_eq!(decl.bytes_min, 2 + 1 + 2 + 4);
        let max = |path: &[&str]| {
            path.iter().try_fold(&decl, |decl, step| decl.step(step)).map(|decl| decl.elements_max)
        };
        assert_eq!(max(&["a"]), Some(3_145_726));
        assert_eq!(max(&["list"]), Some(1_048_575));
        assert_eq!(max(&["list", "@items"]), Some(20));
        assert_eq!(max(&["map"]), Some(449_389));
        assert_eq!(max(&["any"]), None);
        assert_eq!(max(&["mode"]), Some(4));
        assert_eq!(decl.step("either").unwrap().ty, Type::Dyn);
    }

    #[test]
    fn the_root_of_a_resource_has_type_and_name() {
        let decl = declare(&json!({"type": "object", "properties": {"spec": {"type": "object"}}}), "r", true)
            .unwrap();
        for path in
            [&["kind"][..], &["apiVersion"], &["metadata", "name"], &["metadata", "generateName"], &["spec"]]
        {
            assert!(path.iter().try_fold(&decl, |decl, step| decl.step(step)).is_some(), "{path:?}");
        }
        assert!(decl.step("metadata").unwrap().step("labels").is_none());
    }
}
