//! What expressions know of a value: its type and how large it can be, from its schema.

use std::sync::Arc;

use apimachinery::Value;
use cel::limits::REQUEST_BYTES_MAX;
use cel::names::escape;
use cel::{Decl, Field, ListKind, ObjectType, Type};

use crate::Structural;
use crate::metadata::is_meta;
use crate::structural::{Kind, ListType};

/// Bytes that the quotes or brackets of a value take.
const BRACKETS: u64 = 2;
/// An entry of a map, beside its value: quotes, one letter, colon, comma, and the like.
const ENTRY_BYTES: u64 = 6;
/// A required field, beside its name and value: quotes, colon and comma.
const FIELD_BYTES: u64 = 4;
/// Names are DNS subdomains.
const NAME_MAX: u64 = 253;
const TIME_CHARACTERS_MAX: u64 = 32;
const DATE_CHARACTERS: u64 = 12;

/// The declaration of a value of this schema; `None` for values that expressions cannot look at. The name of the type
/// tells it from others: it is where the value stands.
pub(crate) fn declare(schema: &Structural, is_object: bool, name: &str) -> Option<Decl> {
    let mut decl = declare_present(schema, is_object, name)?;
    decl.nullable = schema.nullable;
    Some(decl)
}

/// The declaration of what is not `null`.
fn declare_present(schema: &Structural, is_object: bool, name: &str) -> Option<Decl> {
    if schema.int_or_string {
        return Some(Decl::plain(Type::Dyn, 1).with_elements_max(characters_max(schema)));
    }
    match schema.kind? {
        Kind::Boolean => Some(Decl::bool()),
        Kind::Number => Some(Decl::double()),
        Kind::Integer => Some(Decl::int()),
        Kind::String => Some(text(schema)),
        Kind::Array => list(schema, name),
        Kind::Object => match schema.additional.schema() {
            Some(values) if !is_object => map(schema, values, name),
            _ => Some(object(schema, is_object, name)),
        },
    }
}

fn limit(limit: Option<i64>) -> Option<u64> {
    limit.map(|limit| u64::try_from(limit).unwrap_or_default())
}

/// In bytes, of which a character may take four.
fn characters_max(schema: &Structural) -> u64 {
    let max = schema.validation.as_ref().and_then(|own| limit(own.max_length));
    max.map_or(REQUEST_BYTES_MAX - BRACKETS, |max| max.saturating_mul(4))
}

fn text(schema: &Structural) -> Decl {
    let validation = schema.validation.as_deref();
    let format = validation.and_then(|own| own.format.as_ref()).map_or("", |format| &*format.name);
    let plain = |ty, bytes_min, elements_max| Decl::plain(ty, bytes_min).with_elements_max(elements_max);
    match format {
        "byte" => {
            let max = validation.and_then(|own| limit(own.max_length));
            plain(Type::Bytes, 2, max.unwrap_or(REQUEST_BYTES_MAX - BRACKETS))
        }
        "duration" => plain(Type::Duration, 3, TIME_CHARACTERS_MAX),
        "date" => plain(Type::Timestamp, DATE_CHARACTERS, DATE_CHARACTERS),
        "date-time" => plain(Type::Timestamp, 21, TIME_CHARACTERS_MAX),
        _ => {
            let longest = |choices: &[Value]| {
                choices.iter().filter_map(Value::as_str).map(|choice| choice.len() as u64).max().unwrap_or(0)
            };
            let max = match validation {
                Some(own) if own.max_length.is_none() && !own.choices.is_empty() => longest(&own.choices),
                _ => characters_max(schema),
            };
            plain(Type::String, 2, max)
        }
    }
}

fn list(schema: &Structural, name: &str) -> Option<Decl> {
    let items = schema.items.as_ref()?;
    let items = declare(items, items.embedded, &format!("{name}.@idx"))?;
    let max = schema.validation.as_ref().and_then(|own| limit(own.max_items));
    let max = max.unwrap_or((REQUEST_BYTES_MAX - BRACKETS) / (items.bytes_min + 1));
    let kind = match &schema.list_type {
        ListType::Atomic => ListKind::Atomic,
        ListType::Set => ListKind::Set,
        ListType::Map(keys) => ListKind::Map(keys.iter().map(|key| key.as_str().into()).collect()),
    };
    Some(Decl::list(items, max, kind))
}

fn map(schema: &Structural, values: &Structural, name: &str) -> Option<Decl> {
    let values = declare(values, values.embedded, &format!("{name}.@elem"))?;
    let max = schema.validation.as_ref().and_then(|own| limit(own.max_properties));
    let max = max.unwrap_or((REQUEST_BYTES_MAX - BRACKETS) / (values.bytes_min + ENTRY_BYTES));
    Some(Decl::map(Decl::string(), values, max))
}

fn object(schema: &Structural, is_object: bool, name: &str) -> Decl {
    let implied = is_object && !specifies_meta(schema);
    let mut fields = Vec::new();
    let mut bytes_min = BRACKETS;
    let mut add = |property: &str, decl: Decl, has_default: bool| {
        let required =
            schema.validation.as_ref().is_some_and(|own| own.required.iter().any(|own| own == property));
        if required && !has_default {
            bytes_min += property.len() as u64 + decl.bytes_min + FIELD_BYTES;
        }
        if let Some(escaped) = escape(property) {
            fields.push(Field { name: (&*escaped).into(), property: property.into(), decl });
        }
    };
    for (property, own) in &schema.properties {
        if implied && is_meta(property) {
            continue;
        }
        if let Some(decl) = declare(own, own.embedded, &format!("{name}.{property}")) {
            add(property, decl, own.default.is_some());
        }
    }
    if implied {
        let any = || Decl::string().with_elements_max(REQUEST_BYTES_MAX - BRACKETS);
        add("apiVersion", any(), false);
        add("kind", any(), false);
        add("metadata", implied_metadata(schema, name), false);
    }
    let mut decl = Decl::object(Arc::new(ObjectType::new(name, fields)));
    decl.bytes_min = bytes_min;
    decl
}

/// Whether a whole object's schema itself says what every object has.
fn specifies_meta(schema: &Structural) -> bool {
    let is_text = |schema: &Structural, name: &str| {
        schema.property(name).is_some_and(|own| own.kind == Some(Kind::String))
    };
    is_text(schema, "kind")
        && is_text(schema, "apiVersion")
        && schema.property("metadata").is_some_and(|own| {
            own.kind == Some(Kind::Object) && is_text(own, "name") && is_text(own, "generateName")
        })
}

fn implied_metadata(schema: &Structural, name: &str) -> Decl {
    let own = |field: &str, max: u64| {
        let given = schema
            .property("metadata")
            .and_then(|metadata| metadata.property(field))
            .and_then(|own| own.validation.as_ref())
            .and_then(|own| limit(own.max_length));
        Field::new(field, Decl::string().with_elements_max(given.map_or(max, |own| own.min(max)) * 4))
    };
    // What is generated adds at least one character.
    let fields = vec![own("name", NAME_MAX), own("generateName", NAME_MAX - 1)];
    Decl::object(Arc::new(ObjectType::new(&format!("{name}.metadata"), fields)))
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn sizes_follow_from_limits_or_from_the_largest_request() {
        let decl = |schema: Value| declare(&Structural::parse(&schema), false, "t").expect("visible");
        assert_eq!(decl(json!({"type": "string", "maxLength": 10})).elements_max, 40);
        assert_eq!(decl(json!({"type": "string"})).elements_max, 3 * 1024 * 1024 - 2);
        assert_eq!(decl(json!({"type": "string", "enum": ["a", "abc"]})).elements_max, 3);
        let list = json!({"type": "array", "items": {"type": "integer"}});
        assert_eq!(decl(list).elements_max, (3 * 1024 * 1024 - 2) / 2);
        let object = json!({"type": "object", "required": ["ab", "d"], "properties": {
            "ab": {"type": "string"}, "c": {"type": "string"}, "d": {"type": "integer", "default": 1},
        }});
        assert_eq!(decl(object).bytes_min, 2 + 2 + 2 + 4);
    }

    #[test]
    fn only_what_is_nullable_may_be_null() {
        for (nullable, int_or_string) in [(true, false), (false, false), (true, true), (false, true)] {
            let schema =
                json!({"nullable": nullable, "x-kubernetes-int-or-string": int_or_string, "type": "string"});
            assert_eq!(
                declare(&Structural::parse(&schema), false, "t").map(|decl| decl.nullable),
                Some(nullable)
            );
        }
    }

    #[test]
    fn what_has_no_type_is_not_visible() {
        let free = json!({"x-kubernetes-preserve-unknown-fields": true});
        assert!(declare(&Structural::parse(&free), false, "t").is_none());
        let list = json!({"type": "array", "items": free});
        assert!(declare(&Structural::parse(&list), false, "t").is_none());
    }
}
