//! Type and metadata of whole objects: the custom resource itself and those embedded in it.

use apimachinery::decode::{self, DecodeError};
use apimachinery::dns;
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::schema::SchemaRef;
use apimachinery::{GroupVersion, Map, Value};

use crate::Structural;

/// What to do about metadata that has the wrong form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// A client sent it.
    Refuse,
    /// It is in the store, and reading it must work.
    Drop,
}

/// What every whole object has, whatever its schema says.
pub(crate) fn is_meta(name: &str) -> bool {
    matches!(name, "apiVersion" | "kind" | "metadata")
}

/// Brings an object's `metadata` into the form of its Go type; paths of unknown fields go to `unknown`.
pub fn coerce(
    object: &mut Map,
    object_meta: SchemaRef<'_>,
    malformed: Malformed,
    unknown: Option<&mut Vec<String>>,
) -> Result<(), DecodeError> {
    let Some(metadata) = object.get_mut("metadata") else { return Ok(()) };
    let mut found = unknown.is_some().then(Vec::new);
    if let Err(error) = decode::coerce(metadata, object_meta, found.as_mut()) {
        if malformed == Malformed::Refuse {
            return Err(error);
        }
        let Value::Object(fields) = metadata else {
            object.remove("metadata");
            return Ok(());
        };
        fields.retain(|name, value| is_well_formed(name, value, object_meta));
        found = found.map(|_| Vec::new());
        decode::coerce(metadata, object_meta, found.as_mut())?;
    }
    if let (Some(found), Some(unknown)) = (found, unknown) {
        unknown.extend(found.into_iter().map(|path| format!("metadata.{path}")));
    }
    Ok(())
}

/// Whether a field of metadata has its type.
fn is_well_formed(name: &str, value: &Value, object_meta: SchemaRef<'_>) -> bool {
    let mut alone = Value::object();
    alone.ensure_object().insert(name, value.clone());
    decode::coerce(&mut alone, object_meta, None).is_ok()
}

/// Does the same for every object embedded in `value`, which stands at `path` and whose own metadata is left alone.
pub fn coerce_embedded(
    value: &mut Value,
    schema: &Structural,
    object_meta: SchemaRef<'_>,
    malformed: Malformed,
    unknown: Option<&mut Vec<String>>,
    path: &Path<'_>,
) -> Result<(), Error> {
    let mut found = unknown.is_some().then(Vec::new);
    coerce_level(value, schema, path, &mut Coercion { object_meta, malformed, unknown: found.as_mut() })?;
    if let (Some(mut found), Some(unknown)) = (found, unknown) {
        found.sort();
        unknown.append(&mut found);
    }
    Ok(())
}

struct Coercion<'a> {
    object_meta: SchemaRef<'a>,
    malformed: Malformed,
    unknown: Option<&'a mut Vec<String>>,
}

fn coerce_level(
    value: &mut Value,
    schema: &Structural,
    path: &Path<'_>,
    coercion: &mut Coercion<'_>,
) -> Result<(), Error> {
    match value {
        Value::Object(map) => {
            if schema.embedded {
                coerce_object(map, path, coercion)?;
            }
            for (name, value) in map.iter_mut() {
                if let Some(property) = schema.property(name) {
                    coerce_level(value, property, &path.child(name), coercion)?;
                } else if let Some(values) = schema.additional.schema() {
                    coerce_level(value, values, &path.key(name), coercion)?;
                }
            }
        }
        Value::Array(list) => {
            let Some(items) = &schema.items else { return Ok(()) };
            for (index, item) in list.iter_mut().enumerate() {
                coerce_level(item, items, &path.index(index), coercion)?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn coerce_object(map: &mut Map, path: &Path<'_>, coercion: &mut Coercion<'_>) -> Result<(), Error> {
    for name in ["apiVersion", "kind"] {
        match map.get(name) {
            None | Some(Value::String(_)) => {}
            Some(_) if coercion.malformed == Malformed::Drop => {
                map.remove(name);
            }
            Some(value) => return Err(Error::invalid(&path.child(name), value, "must be a string")),
        }
    }
    let mut found = coercion.unknown.is_some().then(Vec::new);
    // What was sent is shown in a refusal only.
    let before = map.get("metadata").filter(|_| coercion.malformed == Malformed::Refuse).cloned();
    coerce(map, coercion.object_meta, coercion.malformed, found.as_mut()).map_err(|error| {
        Error::invalid(&path.child("metadata"), before.unwrap_or_default(), error.to_string())
    })?;
    if let (Some(found), Some(unknown)) = (found, &mut coercion.unknown) {
        unknown.extend(found.into_iter().map(|name| path.child(&name).to_string()));
    }
    Ok(())
}

/// Complaints about objects embedded in `value`; `object_meta` judges a metadata by the rules of every kind.
pub fn validate_embedded(
    errors: &mut ErrorList,
    schema: &Structural,
    value: &Value,
    object_meta: ObjectMetaCheck,
    path: &Path<'_>,
) {
    match value {
        Value::Object(map) => {
            if schema.embedded {
                embedded(errors, map, object_meta, path);
            }
            for (name, value) in map {
                if let Some(property) = schema.property(name) {
                    validate_embedded(errors, property, value, object_meta, &path.child(name));
                } else if let Some(values) = schema.additional.schema() {
                    validate_embedded(errors, values, value, object_meta, &path.key(name));
                }
            }
        }
        Value::Array(list) => {
            let Some(items) = &schema.items else { return };
            for (index, item) in list.iter().enumerate() {
                validate_embedded(errors, items, item, object_meta, &path.index(index));
            }
        }
        _ => {}
    }
}

/// The rules of `metadata`, which belong to the built-in kinds' crate above this one: complaints about the metadata of
/// a new object that may have any path segment as its name.
pub type ObjectMetaCheck = fn(&Value, &Path<'_>) -> ErrorList;

fn embedded(errors: &mut ErrorList, map: &Map, object_meta: ObjectMetaCheck, path: &Path<'_>) {
    for name in ["apiVersion", "kind"] {
        let path = path.child(name);
        match map.get(name) {
            None => errors.push(Error::required(&path, "")),
            Some(Value::String(text)) if text.is_empty() => {
                errors.push(Error::invalid(&path, "", "must not be empty"));
            }
            Some(Value::String(text)) if name == "apiVersion" => {
                if GroupVersion::parse(text).is_none() {
                    let detail = format!("unexpected GroupVersion string: {text}");
                    errors.push(Error::invalid(&path, text.as_str(), detail));
                }
            }
            Some(Value::String(text)) => kind(errors, text, &path),
            Some(value) => errors.push(Error::invalid(&path, value, "must be a string")),
        }
    }
    if let Some(metadata) = map.get("metadata") {
        let mut metadata = metadata.clone();
        // A template has no name yet, and that is all right.
        if metadata.str_at(&["name"]).is_empty() {
            metadata.set_at(&["name"], "fakename");
        }
        errors.append(&mut object_meta(&metadata, &path.child("metadata")));
    }
}

fn kind(errors: &mut ErrorList, kind: &str, path: &Path<'_>) {
    let details = dns::dns1035_label(&kind.to_lowercase());
    if !details.is_empty() {
        let detail = format!("may have mixed case, but should otherwise match: {}", details.join(","));
        errors.push(Error::invalid(path, kind, detail));
    }
}
