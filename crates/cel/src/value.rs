//! Values an expression works on.
//!
//! Hot path: a value of an object under validation borrows from its tree. Looking into it makes no copy; a string
//! becomes a timestamp, a duration or bytes only where its [`Decl`] says so, and only when it is read.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use apimachinery::value::{Number, Value as Json};
use jiff::Timestamp;

use crate::eval_error::EvalError;
use crate::opaques::Opaques;
use crate::time;
use crate::types::{Decl, Type};

mod compare;
mod json;
mod list;
mod map;

pub use list::List;
pub use map::{Key, Map};

/// The result of evaluating something.
pub type Evaluated<'a> = Result<Value<'a>, EvalError>;

/// A value of the language.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Text<'a>),
    Bytes(Arc<[u8]>),
    /// Nanoseconds.
    Duration(i64),
    Timestamp(Timestamp),
    List(List<'a>),
    /// A map or an object.
    Map(Map<'a>),
    Type(Type),
    Optional(Option<Arc<Value<'a>>>),
    /// A value of one of Kubernetes' libraries.
    Opaque(Arc<Opaques>),
}

/// A string, borrowed where possible.
#[derive(Clone, Debug)]
pub enum Text<'a> {
    Borrowed(&'a str),
    Shared(Arc<str>),
}

impl std::ops::Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Shared(text) => text,
        }
    }
}

impl<'a> Value<'a> {
    /// A string that outlives nothing else.
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Self::String(Text::Shared(text.into()))
    }

    pub fn borrowed(text: &'a str) -> Self {
        Self::String(Text::Borrowed(text))
    }

    pub fn list(items: Vec<Value<'a>>) -> Self {
        Self::List(List::owned(items))
    }

    /// A map of these entries. With `absent`, looking up a key that is not there gives that, although it is not there.
    pub fn map(entries: impl IntoIterator<Item = (Text<'a>, Value<'a>)>, absent: Option<Value<'a>>) -> Self {
        Self::Map(Map::of_names(entries, absent))
    }

    pub fn quantity(amount: apimachinery::Quantity) -> Self {
        Self::opaque(Opaques::Quantity(amount))
    }

    /// A semantic version, strictly read; an error says what is wrong with it.
    pub fn semver(text: &str) -> Result<Self, String> {
        crate::library::semver::Semver::parse(text).map(|version| Self::opaque(Opaques::Semver(version)))
    }

    pub fn some(value: Value<'a>) -> Self {
        Self::Optional(Some(Arc::new(value)))
    }

    pub(crate) fn opaque(value: Opaques) -> Self {
        Self::Opaque(Arc::new(value))
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// A tree of unknown types: what an admission policy sees.
    pub fn dynamic(json: &'a Json) -> Self {
        Self::declared(json, &crate::types::DYNAMIC)
            .unwrap_or_else(|_| unreachable!("only declared formats can be violated"))
    }

    /// A tree as its declaration reads it.
    pub fn declared(json: &'a Json, decl: &'a Decl) -> Evaluated<'a> {
        Ok(match json {
            Json::Null if decl.nullable => Self::Null,
            Json::Null => {
                return Err(EvalError::new("invalid data, got null for schema with nullable=false"));
            }
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => Self::number(*number, &decl.ty),
            Json::String(text) => return Self::formatted(text, &decl.ty),
            Json::Array(items) => Self::List(List::tree(items, decl)),
            Json::Object(map) => Self::Map(Map::tree(map, decl)),
        })
    }

    fn number(number: Number, ty: &Type) -> Self {
        match (number, ty) {
            (number, Type::Double) => Self::Double(number.as_f64()),
            (Number::Int(value), _) => Self::Int(value),
            (Number::Uint(value), _) => Self::Uint(value),
            (number, Type::Int) => number.as_i64().map_or(Self::Double(number.as_f64()), Self::Int),
            (Number::Float(value), _) => Self::Double(value),
        }
    }

    fn formatted(text: &'a str, ty: &Type) -> Evaluated<'a> {
        match ty {
            Type::Timestamp => time::parse_date_or_timestamp(text)
                .map(Self::Timestamp)
                .ok_or_else(|| EvalError::new(format!("invalid date-time {text}"))),
            Type::Duration => apimachinery::duration::parse_format(text)
                .map(Self::Duration)
                .ok_or_else(|| EvalError::new(format!("invalid duration {text}"))),
            Type::Bytes => decode_base64(text)
                .map(|bytes| Self::Bytes(bytes.into()))
                .ok_or_else(|| EvalError::new(format!("invalid byte string {text}"))),
            _ => Ok(Self::borrowed(text)),
        }
    }

    /// The type of this very value.
    pub fn type_of(&self) -> Type {
        match self {
            Self::Null => Type::Null,
            Self::Bool(_) => Type::Bool,
            Self::Int(_) => Type::Int,
            Self::Uint(_) => Type::Uint,
            Self::Double(_) => Type::Double,
            Self::String(_) => Type::String,
            Self::Bytes(_) => Type::Bytes,
            Self::Duration(_) => Type::Duration,
            Self::Timestamp(_) => Type::Timestamp,
            Self::List(_) => Type::list(Type::Dyn),
            Self::Map(map) => {
                map.object_type().cloned().map_or_else(|| Type::map(Type::Dyn, Type::Dyn), Type::Object)
            }
            Self::Type(_) => Type::Type(None),
            Self::Optional(_) => Type::optional(Type::Dyn),
            Self::Opaque(value) => Type::Opaque(value.opaque()),
        }
    }

    /// `size(x)`, or 1 for what has none: how large a value is for accounting.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::String(text) => text.chars().count() as u64,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::List(list) => list.len() as u64,
            Self::Map(map) => map.len() as u64,
            Self::Opaque(value) => value.size(),
            _ => 1,
        }
    }

    /// As [`Value::size`], looking into optionals.
    pub(crate) fn size_within(&self) -> u64 {
        match self {
            Self::Optional(Some(value)) => value.size_within(),
            other => other.size(),
        }
    }

    /// Whether this is the zero of its type, for `optional.ofNonZeroValue`.
    pub(crate) fn is_zero(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Bool(value) => !value,
            Self::Int(value) => *value == 0,
            Self::Uint(value) => *value == 0,
            Self::Double(value) => *value == 0.0,
            Self::String(text) => text.is_empty(),
            Self::Bytes(bytes) => bytes.is_empty(),
            Self::Duration(nanos) => *nanos == 0,
            Self::Timestamp(time) => *time == time::ZERO,
            Self::List(list) => list.is_empty(),
            Self::Map(map) => map.is_empty(),
            Self::Optional(value) => value.is_none(),
            Self::Type(_) | Self::Opaque(_) => false,
        }
    }

    /// The field of an object or the entry of a map under a name; nothing else has fields.
    pub fn field(&self, name: &str) -> Result<Option<Value<'a>>, EvalError> {
        match self {
            Self::Map(map) => map.field(name),
            Self::List(_) => Err(EvalError::new("unsupported index type 'string' in list")),
            _ => Ok(None),
        }
    }

    /// `self[key]`, or `None` when there is nothing under it.
    pub(crate) fn at(&self, key: &Value<'a>) -> Result<Option<Value<'a>>, EvalError> {
        match self {
            Self::List(list) => match index(key)? {
                Some(index) => list.get(index).transpose(),
                None => Ok(None),
            },
            Self::Map(map) => map.get(key),
            _ => Ok(None),
        }
    }

    /// Orders two values of comparable types, numbers across types.
    pub(crate) fn compare(&self, other: &Self) -> Result<Option<Ordering>, EvalError> {
        compare::compare(self, other)
    }

    /// `==`: never an error, values of different kinds are different.
    pub(crate) fn equals(&self, other: &Self) -> bool {
        compare::equals(self, other)
    }

    /// As JSON, for what leaves the language.
    pub fn to_json(&self) -> Result<Json, EvalError> {
        json::to_json(self)
    }
}

/// A list index; numbers of other types count when they are whole.
pub(crate) fn index(key: &Value<'_>) -> Result<Option<usize>, EvalError> {
    Ok(match key {
        Value::Int(value) => usize::try_from(*value).ok(),
        Value::Uint(value) => usize::try_from(*value).ok(),
        Value::Double(value) if value.fract() == 0.0 && *value >= 0.0 && *value < 9e15 => {
            Some(*value as usize)
        }
        Value::Double(value) if value.fract() == 0.0 => None,
        Value::Double(_) => return Err(EvalError::new(format!("unsupported index value {key} in list"))),
        other => {
            return Err(EvalError::new(format!(
                "unsupported index type '{}' in list",
                other.type_of().name()
            )));
        }
    })
}

/// How values read in messages.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Uint(value) => write!(f, "{value}"),
            Self::Double(value) => f.write_str(&apimachinery::field::go_float(*value)),
            Self::String(text) => f.write_str(text),
            Self::Bytes(bytes) => f.write_str(&String::from_utf8_lossy(bytes)),
            Self::Duration(nanos) => f.write_str(&time::format_duration_seconds(*nanos)),
            Self::Timestamp(time) => f.write_str(&time::format_timestamp(*time)),
            Self::List(list) => {
                f.write_str("[")?;
                for (at, item) in list.iter().enumerate() {
                    let separator = if at > 0 { ", " } else { "" };
                    match item {
                        Ok(item) => write!(f, "{separator}{item}")?,
                        Err(error) => write!(f, "{separator}{error}")?,
                    }
                }
                f.write_str("]")
            }
            Self::Map(map) => {
                f.write_str("{")?;
                for (at, (key, value)) in map.entries().enumerate() {
                    let separator = if at > 0 { ", " } else { "" };
                    match value {
                        Ok(value) => write!(f, "{separator}{key}: {value}")?,
                        Err(error) => write!(f, "{separator}{key}: {error}")?,
                    }
                }
                f.write_str("}")
            }
            Self::Type(ty) => f.write_str(ty.name()),
            Self::Optional(None) => f.write_str("optional.none()"),
            Self::Optional(Some(value)) => write!(f, "optional({value})"),
            Self::Opaque(value) => write!(f, "{value}"),
        }
    }
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}
