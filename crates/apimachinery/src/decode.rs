//! Decoding a parsed tree the way Go's typed decoding followed by encoding would change it.
//!
//! Owns: which fields stay, in which form, and what a client is told about the others. A [`Value`] goes in as it was
//! sent and comes out as upstream would store it: unknown fields gone, `null` and empty values gone where Go omits
//! them, fields that Go always writes present, quantities and times in canonical form, every scalar of its type.
//! Never touches: defaults and validation, which come later and are a kind's own.
//!
//! Start at [`decode`]. One pass over the tree in place, nothing allocated for a value that is fine.
//! Names are matched with case, as upstream does since `sigs.k8s.io/json`.

use std::fmt;

use crate::duration::{self, DurationError};
use crate::field::go_quote;
use crate::quantity::{Quantity, QuantityError};
use crate::schema::{Field, NodeKind, Scalar, SchemaRef, Struct};
use crate::{Map, Number, Str, Value};

mod base64;
mod timestamp;

pub use self::base64::Base64Error;
pub use timestamp::TimeError;

/// Notes on one object end here; upstream stops counting too.
const NOTES_MAX: usize = 100;

/// `fieldValidation` of a request: what happens to unknown and duplicate fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Dropped without a word.
    Ignore,
    /// Dropped with a warning.
    #[default]
    Warn,
    /// Refused.
    Strict,
}

impl FieldValidation {
    /// Reads the query parameter; `None` for a value that is not one of the three.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "Warn" => Some(Self::Warn),
            "Ignore" => Some(Self::Ignore),
            "Strict" => Some(Self::Strict),
            _ => None,
        }
    }
}

/// A tree does not have the shape of its type; the text is that of Go's decoder.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DecodeError {
    #[error("json: cannot unmarshal {found} into Go {place} of type {wanted}")]
    Type {
        /// `string`, `number 1.5`, …
        found: String,
        /// `struct field DeploymentSpec.spec.replicas` or `value`.
        place: String,
        /// The Go type.
        wanted: String,
    },
    #[error(transparent)]
    Quantity(#[from] QuantityError),
    #[error(transparent)]
    Base64(#[from] Base64Error),
    #[error(transparent)]
    Time(#[from] TimeError),
    #[error(transparent)]
    Duration(#[from] DurationError),
    /// A part of the object is to blame, and the text says which.
    #[error("{0}")]
    Field(String),
    /// Only with [`FieldValidation::Strict`].
    #[error("strict decoding error: {}", .0.join(", "))]
    Strict(Vec<String>),
}

/// Brings `value` into the form in which Go would store it.
///
/// `duplicates` are the paths that occurred more than once in the document. The result lists
/// `duplicate field "…"` and `unknown field "…"`; with [`FieldValidation::Ignore`] it is empty, and with
/// [`FieldValidation::Strict`] they are an error instead.
pub fn decode(
    value: &mut Value,
    schema: SchemaRef<'_>,
    validation: FieldValidation,
    duplicates: &[String],
) -> Result<Vec<String>, DecodeError> {
    if validation == FieldValidation::Ignore {
        return coerce(value, schema, None).map(|()| Vec::new());
    }
    let mut unknown = Vec::new();
    coerce(value, schema, Some(&mut unknown))?;
    let duplicates = duplicates.iter().map(|path| format!("duplicate field {}", go_quote(path)));
    let unknown = unknown.iter().map(|path| format!("unknown field {}", go_quote(path)));
    let notes: Vec<String> = duplicates.chain(unknown).take(NOTES_MAX).collect();
    if validation == FieldValidation::Strict && !notes.is_empty() {
        return Err(DecodeError::Strict(notes));
    }
    Ok(notes)
}

/// [`decode`] for a part of an object: appends the plain paths of unknown fields to `unknown`.
pub fn coerce(
    value: &mut Value,
    schema: SchemaRef<'_>,
    unknown: Option<&mut Vec<String>>,
) -> Result<(), DecodeError> {
    Decoder { unknown }.value(value, schema, &Place::Root)
}

/// Brings a tree that was stored or made inside into canonical form; there is nobody to tell about dropped fields.
pub fn normalize(value: &mut Value, schema: SchemaRef<'_>) -> Result<(), DecodeError> {
    coerce(value, schema, None)
}

/// Makes of a stored tree what a store in protobuf would give back: an empty list is none there, and Go writes `null`
/// for it where it writes a field in any case.
pub fn forget_empty_lists(value: &mut Value, schema: SchemaRef<'_>) {
    match (schema.kind(), value) {
        (NodeKind::Struct(object), Value::Object(map)) => {
            for (name, value) in map.entries_mut() {
                let Some(field) = object.field(name) else { continue };
                let is_empty = matches!(value, Value::Array(items) if items.is_empty());
                if is_empty && field.always_present && !field.pointer {
                    *value = Value::Null;
                } else {
                    forget_empty_lists(value, schema.schemas.at(field.node));
                }
            }
        }
        (NodeKind::Map { values, .. }, Value::Object(map)) => {
            let values = schema.schemas.at(*values);
            map.entries_mut().iter_mut().for_each(|(_, value)| forget_empty_lists(value, values));
        }
        (NodeKind::List { items, .. }, Value::Array(list)) => {
            let items = schema.schemas.at(*items);
            list.iter_mut().for_each(|item| forget_empty_lists(item, items));
        }
        _ => {}
    }
}

/// Where in the tree the decoder is; turned into text only for a message.
enum Place<'a> {
    Root,
    /// A field of the struct type with this definition name.
    Field {
        parent: &'a Place<'a>,
        name: &'a str,
        owner: Option<&'a str>,
    },
    Key {
        parent: &'a Place<'a>,
        key: &'a str,
    },
    Index {
        parent: &'a Place<'a>,
        index: usize,
    },
}

impl Place<'_> {
    /// `DeploymentSpec.spec.replicas`: the type that has the field, then the names of all fields from the root. Items
    /// and map keys do not show, as in Go.
    fn go_field(&self) -> Option<String> {
        match self {
            Self::Root => None,
            Self::Key { parent, .. } | Self::Index { parent, .. } => parent.go_field(),
            Self::Field { parent, name, owner } => {
                let mut names = vec![*name];
                parent.collect_names(&mut names);
                names.reverse();
                Some(format!("{}.{}", short_name(owner.unwrap_or_default()), names.join(".")))
            }
        }
    }

    fn collect_names<'n>(&'n self, names: &mut Vec<&'n str>) {
        match self {
            Self::Root => {}
            Self::Key { parent, .. } | Self::Index { parent, .. } => parent.collect_names(names),
            Self::Field { parent, name, .. } => {
                names.push(name);
                parent.collect_names(names);
            }
        }
    }
}

/// The path in a note: `spec.containers[0].image`.
impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (parent, name) = match self {
            Self::Root => return Ok(()),
            Self::Index { parent, index } => return write!(f, "{parent}[{index}]"),
            Self::Key { parent, key: name } | Self::Field { parent, name, .. } => (parent, name),
        };
        if matches!(parent, Self::Root) { f.write_str(name) } else { write!(f, "{parent}.{name}") }
    }
}

struct Decoder<'n> {
    /// Paths of unknown fields, where somebody wants to know them.
    unknown: Option<&'n mut Vec<String>>,
}

type Result<T, E = DecodeError> = std::result::Result<T, E>;

impl Decoder<'_> {
    /// Decodes a value that is not a struct's field; `null` becomes the zero value.
    fn value(&mut self, value: &mut Value, schema: SchemaRef<'_>, place: &Place<'_>) -> Result<()> {
        if value.is_null() {
            *value = schema.zero();
            return Ok(());
        }
        match schema.kind() {
            NodeKind::Any => Ok(()),
            NodeKind::Holding(object) => held(value, schema.schemas.at(*object)),
            NodeKind::Scalar(kind) => scalar(value, *kind, schema, place),
            NodeKind::Struct(object) => match value {
                Value::Object(map) => self.fields(map, object, schema, place),
                other => Err(mismatch(other, schema, place)),
            },
            NodeKind::Map { values, .. } => {
                let values = schema.schemas.at(*values);
                match value {
                    Value::Object(map) => map.entries_mut().iter_mut().try_for_each(|(key, value)| {
                        self.value(value, values, &Place::Key { parent: place, key })
                    }),
                    other => Err(mismatch(other, schema, place)),
                }
            }
            NodeKind::List { items, .. } => {
                let items = schema.schemas.at(*items);
                match value {
                    Value::Array(list) => list.iter_mut().enumerate().try_for_each(|(index, item)| {
                        self.value(item, items, &Place::Index { parent: place, index })
                    }),
                    other => Err(mismatch(other, schema, place)),
                }
            }
        }
    }

    /// Walks the fields sent and the fields known together; both are sorted by name.
    fn fields(
        &mut self,
        map: &mut Map,
        object: &Struct,
        schema: SchemaRef<'_>,
        place: &Place<'_>,
    ) -> Result<()> {
        let owner = schema.node().definition.as_deref();
        let mut missing: smallvec::SmallVec<[&Field; 4]> = smallvec::SmallVec::new();
        let mut known = object.fields.iter().peekable();
        let mut failure = None;
        map.entries_mut().retain_mut(|(name, value)| {
            if failure.is_some() {
                return true;
            }
            while let Some(field) = known.next_if(|field| *field.name < **name) {
                if field.always_present {
                    missing.push(field);
                }
            }
            let place = Place::Field { parent: place, name, owner };
            match known.next_if(|field| *field.name == **name) {
                Some(field) => self.field(value, field, schema, &place).unwrap_or_else(|error| {
                    failure = Some(error);
                    true
                }),
                None if object.preserve_unknown => true,
                None => {
                    self.note_unknown(&place);
                    false
                }
            }
        });
        if let Some(error) = failure {
            return Err(error);
        }
        missing.extend(known.filter(|field| field.always_present));
        for field in missing {
            map.insert(&*field.name, schema.zero_field(field));
        }
        Ok(())
    }

    /// Decodes a field and says whether Go would write it.
    fn field(
        &mut self,
        value: &mut Value,
        field: &Field,
        schema: SchemaRef<'_>,
        place: &Place<'_>,
    ) -> Result<bool> {
        if value.is_null() {
            if field.always_present {
                *value = schema.zero_field(field);
            }
            return Ok(field.always_present);
        }
        self.value(value, schema.schemas.at(field.node), place)?;
        if field.always_present {
            return Ok(true);
        }
        Ok(match value {
            Value::Null => false,
            _ if field.pointer => true,
            Value::String(text) => !text.is_empty(),
            Value::Number(number) => number.as_f64() != 0.0,
            Value::Bool(flag) => *flag,
            // An explicit empty list of managed fields is a command to forget them all.
            Value::Array(items) => !items.is_empty() || &*field.name == "managedFields",
            Value::Object(map) => {
                !map.is_empty() || !matches!(schema.schemas.at(field.node).kind(), NodeKind::Map { .. })
            }
        })
    }

    fn note_unknown(&mut self, place: &Place<'_>) {
        if let Some(unknown) = &mut self.unknown
            && unknown.len() < NOTES_MAX
        {
            unknown.push(place.to_string());
        }
    }
}

fn held(value: &mut Value, object: SchemaRef<'_>) -> Result<()> {
    match value {
        Value::Object(_) => coerce(value, object, None),
        Value::Array(items) => {
            items.iter_mut().filter(|item| item.is_object()).try_for_each(|item| coerce(item, object, None))
        }
        _ => Ok(()),
    }
}

fn scalar(value: &mut Value, kind: Scalar, schema: SchemaRef<'_>, place: &Place<'_>) -> Result<()> {
    match (kind, &mut *value) {
        (Scalar::Boolean, Value::Bool(_))
        | (Scalar::String, Value::String(_))
        | (Scalar::Double, Value::Number(_)) => Ok(()),
        (Scalar::Int32, Value::Number(Number::Int(n))) if i32::try_from(*n).is_ok() => Ok(()),
        (Scalar::Int64, Value::Number(Number::Int(_))) => Ok(()),
        (Scalar::Int32 | Scalar::Int64, Value::Number(number)) => {
            Err(type_error(format!("number {}", go_number(*number)), schema, place))
        }
        (Scalar::Bytes, Value::String(text)) => {
            if let Some(canonical) = base64::canonicalize(text)? {
                *text = canonical;
            }
            Ok(())
        }
        (Scalar::IntOrString, Value::String(_)) => Ok(()),
        (Scalar::IntOrString, Value::Number(Number::Int(n))) if i32::try_from(*n).is_ok() => Ok(()),
        (Scalar::IntOrString, Value::Number(number)) => {
            Err(custom(format!("number {}", go_number(*number)), "int32"))
        }
        (Scalar::IntOrString, other) => Err(custom(other.json_type().into(), "int32")),
        (Scalar::Quantity, other) => quantity(other),
        (Scalar::Time | Scalar::MicroTime, Value::String(text)) => {
            let micros = kind == Scalar::MicroTime;
            match timestamp::canonicalize(text, micros)? {
                timestamp::Canonical::Same => {}
                timestamp::Canonical::Other(canonical) => *text = canonical,
                timestamp::Canonical::Zero => *value = Value::Null,
            }
            Ok(())
        }
        (Scalar::Duration, Value::String(text)) => {
            duration::parse(text)?;
            Ok(())
        }
        (Scalar::Time | Scalar::MicroTime | Scalar::Duration, other) => {
            Err(custom(other.json_type().into(), "string"))
        }
        (_, other) => Err(mismatch(other, schema, place)),
    }
}

/// A quantity may be written as a number.
fn quantity(value: &mut Value) -> Result<()> {
    match value {
        Value::String(text) => {
            if let Some(canonical) = Quantity::canonicalize(text.trim())? {
                *text = canonical;
            } else if text.trim().len() != text.len() {
                *text = text.trim().into();
            }
        }
        Value::Number(number) => {
            let text = Str::from(go_number(*number));
            *value = Quantity::canonicalize(&text)?.unwrap_or(text).into();
        }
        _ => return Err(QuantityError::Format.into()),
    }
    Ok(())
}

/// A number as Go's decoder would quote it; whole floats keep a fraction, so that it shows why they are refused.
fn go_number(number: Number) -> String {
    match number {
        Number::Int(n) => n.to_string(),
        Number::Uint(n) => n.to_string(),
        Number::Float(f) => serde_json::Number::from_f64(f).map(|n| n.to_string()).unwrap_or_default(),
    }
}

fn mismatch(value: &Value, schema: SchemaRef<'_>, place: &Place<'_>) -> DecodeError {
    type_error(value.json_type().into(), schema, place)
}

fn type_error(found: String, schema: SchemaRef<'_>, place: &Place<'_>) -> DecodeError {
    let place = place.go_field().map_or_else(|| "value".into(), |field| format!("struct field {field}"));
    DecodeError::Type { found, place, wanted: go_type(schema) }
}

/// The error of a type with its own decoder, which does not know where it is.
fn custom(found: String, wanted: &str) -> DecodeError {
    DecodeError::Type { found, place: "value".into(), wanted: wanted.into() }
}

/// `Container` of `io.k8s.api.core.v1.Container`.
fn short_name(definition: &str) -> &str {
    definition.rsplit('.').next().unwrap_or_default()
}

fn go_type(schema: SchemaRef<'_>) -> String {
    match schema.kind() {
        NodeKind::Any | NodeKind::Holding(_) => "interface {}".into(),
        NodeKind::Struct(_) => {
            let definition = schema.node().definition.as_deref().unwrap_or_default();
            let start = definition.rmatch_indices('.').nth(1).map_or(0, |(at, _)| at + 1);
            definition[start..].to_owned()
        }
        NodeKind::Map { values, .. } => format!("map[string]{}", go_type(schema.schemas.at(*values))),
        NodeKind::List { items, .. } => format!("[]{}", go_type(schema.schemas.at(*items))),
        NodeKind::Scalar(scalar) => match scalar {
            Scalar::Boolean => "bool",
            Scalar::Int32 => "int32",
            Scalar::Int64 => "int64",
            Scalar::Double => "float64",
            Scalar::String => "string",
            Scalar::Bytes => "[]uint8",
            Scalar::IntOrString => "intstr.IntOrString",
            Scalar::Quantity => "resource.Quantity",
            Scalar::Time => "v1.Time",
            Scalar::MicroTime => "v1.MicroTime",
            Scalar::Duration => "v1.Duration",
        }
        .into(),
    }
}

#[cfg(test)]
mod tests;
