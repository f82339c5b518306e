//! [`Datum`]: a value that templates work on.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use apimachinery::value::Number;
use apimachinery::{Str, Value};
use jiff::Timestamp;

use crate::DEPTH_MAX;

/// A value. Maps are shared by whoever holds them, as in Go: `set` changes what all see. A map never holds itself.
#[derive(Clone, Debug)]
pub enum Datum {
    /// What is not there: a field that an object lacks.
    Missing,
    /// What is there and null.
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Str),
    /// A number of a JSON tree.
    Number(Str),
    Time(Timestamp),
    List(Rc<Vec<Datum>>),
    Map(Rc<RefCell<BTreeMap<Str, Datum>>>),
}

impl Datum {
    pub fn text(text: impl Into<Str>) -> Self {
        Self::Text(text.into())
    }

    pub fn list(items: Vec<Datum>) -> Self {
        Self::List(Rc::new(items))
    }

    pub fn map(entries: BTreeMap<Str, Datum>) -> Self {
        Self::Map(Rc::new(RefCell::new(entries)))
    }

    /// As the tree of a JSON document; times are texts in it.
    pub fn to_value(&self) -> Value {
        match self {
            Self::Missing | Self::Nil => Value::Null,
            Self::Bool(value) => (*value).into(),
            Self::Int(value) => (*value).into(),
            Self::Float(value) => (*value).into(),
            Self::Text(text) => text.clone().into(),
            Self::Number(text) => Value::parse(text.as_bytes()).unwrap_or_else(|_| text.clone().into()),
            Self::Time(time) => time.to_string().into(),
            Self::List(items) => items.iter().map(Self::to_value).collect(),
            Self::Map(map) => {
                map.borrow().iter().map(|(key, value)| (key.clone(), value.to_value())).collect()
            }
        }
    }

    /// Whether `if` takes it for true.
    pub(crate) fn is_true(&self) -> bool {
        match self {
            Self::Missing | Self::Nil => false,
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Text(text) | Self::Number(text) => !text.is_empty(),
            Self::Time(_) => true,
            Self::List(items) => !items.is_empty(),
            Self::Map(map) => !map.borrow().is_empty(),
        }
    }

    pub(crate) fn is_nil(&self) -> bool {
        matches!(self, Self::Missing | Self::Nil)
    }

    /// The text of a text or of a number.
    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Number(text) => Some(text),
            _ => None,
        }
    }

    /// The name of its type in Go.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Missing | Self::Nil => "nil",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float64",
            Self::Text(_) => "string",
            Self::Number(_) => "json.Number",
            Self::Time(_) => "time.Time",
            Self::List(_) => "[]interface {}",
            Self::Map(_) => "map[string]interface {}",
        }
    }

    /// One that shares nothing with this; too deep a value is cut off.
    pub(crate) fn deep_copy(&self, depth: usize) -> Self {
        match self {
            Self::List(_) | Self::Map(_) if depth > DEPTH_MAX => Self::Nil,
            Self::List(items) => Self::list(items.iter().map(|item| item.deep_copy(depth + 1)).collect()),
            Self::Map(map) => Self::map(
                map.borrow().iter().map(|(key, item)| (key.clone(), item.deep_copy(depth + 1))).collect(),
            ),
            other => other.clone(),
        }
    }
}

impl From<&Value> for Datum {
    fn from(value: &Value) -> Self {
        match value {
            Value::Null => Self::Nil,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(Number::Int(value)) => Self::Number(value.to_string().into()),
            Value::Number(Number::Uint(value)) => Self::Number(value.to_string().into()),
            Value::Number(Number::Float(_)) => Self::Number(value.to_json_string().into()),
            Value::String(text) => Self::Text(text.clone()),
            Value::Array(items) => Self::list(items.iter().map(Self::from).collect()),
            Value::Object(map) => {
                Self::map(map.iter().map(|(key, value)| (key.clone(), value.into())).collect())
            }
        }
    }
}

impl From<&str> for Datum {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Datum {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<bool> for Datum {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Datum {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<f64> for Datum {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl<T: Into<Datum>> From<Vec<T>> for Datum {
    fn from(items: Vec<T>) -> Self {
        Self::list(items.into_iter().map(Into::into).collect())
    }
}
