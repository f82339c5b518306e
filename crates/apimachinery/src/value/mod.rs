//! The generic tree in which an object is edited between the wire and the store.
//!
//! Owns: [`Value`], [`Map`], [`Number`], parsing from JSON and YAML, writing both, and the bridge to serde.
//! Why not `serde_json::Value`? A pod create is mostly building and tearing down such a tree. Keys and short
//! strings are stored inline here ([`Str`]), and an object is one sorted vector instead of a B-tree, which makes
//! parse, clone and drop several times cheaper.
//!
//! **Invariant (map-sorted):** the keys of a [`Map`] are strictly increasing, so equal trees write equal bytes.

mod de;
mod json;
mod map;
mod parse;
mod plain;
mod ser;
mod write;
mod yaml;

pub use de::{DecodeError, from_value};
pub use map::Map;
pub use parse::{ParseError, Parsed};
pub(crate) use plain::plain_len;
pub use ser::to_value;
pub(crate) use write::write_string;

/// A string of a [`Value`]; up to 24 bytes are stored without allocation.
pub type Str = compact_str::CompactString;

/// A JSON value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Value {
    #[default]
    Null,
    Bool(bool),
    Number(Number),
    String(Str),
    Array(Vec<Value>),
    Object(Map),
}

/// A JSON number, kept as the integer it was when it was one.
#[derive(Clone, Copy, Debug)]
pub enum Number {
    Int(i64),
    /// Only values above `i64::MAX`.
    Uint(u64),
    Float(f64),
}

static NULL: Value = Value::Null;

impl Value {
    /// An empty object.
    pub fn object() -> Self {
        Self::Object(Map::new())
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The JSON type, as Go's decoder names it in messages.
    pub fn json_type(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Number(_) => "number",
            Self::String(_) => "string",
            Self::Array(_) => "array",
            Self::Object(_) => "object",
        }
    }

    pub fn is_object(&self) -> bool {
        matches!(self, Self::Object(_))
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(flag) => Some(*flag),
            _ => None,
        }
    }

    /// The number as an integer, also when it was written with a zero fraction (`3.0`).
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Number(number) => number.as_i64(),
            _ => None,
        }
    }

    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(number.as_f64()),
            _ => None,
        }
    }

    pub fn as_array(&self) -> Option<&Vec<Value>> {
        match self {
            Self::Array(items) => Some(items),
            _ => None,
        }
    }

    pub fn as_array_mut(&mut self) -> Option<&mut Vec<Value>> {
        match self {
            Self::Array(items) => Some(items),
            _ => None,
        }
    }

    pub fn as_object(&self) -> Option<&Map> {
        match self {
            Self::Object(map) => Some(map),
            _ => None,
        }
    }

    pub fn as_object_mut(&mut self) -> Option<&mut Map> {
        match self {
            Self::Object(map) => Some(map),
            _ => None,
        }
    }

    /// The field `key` of an object; `None` for a missing field and for anything that is not an object.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.as_object()?.get(key)
    }

    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value> {
        self.as_object_mut()?.get_mut(key)
    }

    /// The value at a path of field names, e.g. `at(&["spec", "nodeName"])`.
    pub fn at(&self, path: &[&str]) -> Option<&Value> {
        path.iter().try_fold(self, |value, key| value.get(key))
    }

    pub fn at_mut(&mut self, path: &[&str]) -> Option<&mut Value> {
        path.iter().try_fold(self, |value, key| value.get_mut(key))
    }

    /// The text at a path; the empty string when it is missing or not a string, as Go's zero value would be.
    pub fn str_at(&self, path: &[&str]) -> &str {
        self.at(path).and_then(Value::as_str).unwrap_or_default()
    }

    /// The items at a path; empty when missing or not a list.
    pub fn array_at(&self, path: &[&str]) -> &[Value] {
        self.at(path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }

    /// Turns this value into an object if it is not one already (what it was is lost) and returns its map.
    pub fn ensure_object(&mut self) -> &mut Map {
        if !self.is_object() {
            *self = Self::object();
        }
        match self {
            Self::Object(map) => map,
            _ => unreachable!("made an object above"),
        }
    }

    /// The map at a path of field names; missing steps are made as empty objects.
    pub fn ensure_object_at(&mut self, path: &[&str]) -> &mut Map {
        path.iter()
            .fold(self, |value, key| value.ensure_object().get_or_insert_with(key, Value::object))
            .ensure_object()
    }

    /// Sets the value at a path, making missing objects on the way.
    pub fn set_at(&mut self, path: &[&str], value: impl Into<Value>) {
        if let Some((last, parents)) = path.split_last() {
            self.ensure_object_at(parents).insert(*last, value.into());
        }
    }

    /// Removes and returns the value at a path.
    pub fn remove_at(&mut self, path: &[&str]) -> Option<Value> {
        let (last, parents) = path.split_last()?;
        self.at_mut(parents)?.as_object_mut()?.remove(last)
    }

    /// Leaves `Null` in its place.
    pub fn take(&mut self) -> Value {
        std::mem::take(self)
    }
}

impl Number {
    pub fn as_i64(&self) -> Option<i64> {
        match *self {
            Self::Int(n) => Some(n),
            Self::Uint(_) => None,
            Self::Float(f) if f.fract() == 0.0 && f.abs() < 9.0e15 => Some(f as i64),
            Self::Float(_) => None,
        }
    }

    pub fn as_f64(&self) -> f64 {
        match *self {
            Self::Int(n) => n as f64,
            Self::Uint(n) => n as f64,
            Self::Float(f) => f,
        }
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        match (*self, *other) {
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::Uint(a), Self::Uint(b)) => a == b,
            (Self::Float(a), Self::Float(b)) => a == b,
            _ => self.as_f64() == other.as_f64(),
        }
    }
}

/// JSON has no number that differs from itself.
impl Eq for Number {}

/// Numbers that are equal in different forms have one hash: that of the nearest double.
impl std::hash::Hash for Number {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        // Adding zero makes the negative zero positive.
        (self.as_f64() + 0.0).to_bits().hash(state);
    }
}

/// `value["spec"]["nodeName"]`; a missing step reads as `Null`.
impl std::ops::Index<&str> for Value {
    type Output = Value;
    fn index(&self, key: &str) -> &Value {
        self.get(key).unwrap_or(&NULL)
    }
}

impl std::ops::Index<usize> for Value {
    type Output = Value;
    fn index(&self, index: usize) -> &Value {
        self.as_array().and_then(|items| items.get(index)).unwrap_or(&NULL)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Bool(flag)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(Number::Int(number))
    }
}

impl From<i32> for Value {
    fn from(number: i32) -> Self {
        Self::Number(Number::Int(number.into()))
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Number(Number::Int(number.into()))
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).map_or(Number::Uint(number), Number::Int))
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Number(Number::Float(number))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.into())
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Self {
        Self::String(text.as_str().into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::String(text.into())
    }
}

impl From<Str> for Value {
    fn from(text: Str) -> Self {
        Self::String(text)
    }
}

impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(items: Vec<T>) -> Self {
        Self::Array(items.into_iter().map(Into::into).collect())
    }
}

impl From<Map> for Value {
    fn from(map: Map) -> Self {
        Self::Object(map)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl From<serde_json::Value> for Value {
    fn from(value: serde_json::Value) -> Self {
        match value {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(flag) => Self::Bool(flag),
            serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(n), _) => Self::from(n),
                (None, Some(n)) => Self::from(n),
                (None, None) => Self::from(number.as_f64().unwrap_or_default()),
            },
            serde_json::Value::String(text) => Self::from(text),
            serde_json::Value::Array(items) => Self::from(items),
            serde_json::Value::Object(map) => {
                map.into_iter().map(|(k, v)| (Str::from(k), Self::from(v))).collect()
            }
        }
    }
}

impl From<&Value> for serde_json::Value {
    fn from(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(flag) => Self::Bool(*flag),
            Value::Number(Number::Int(n)) => Self::from(*n),
            Value::Number(Number::Uint(n)) => Self::from(*n),
            Value::Number(Number::Float(f)) => Self::from(*f),
            Value::String(text) => Self::from(text.as_str()),
            Value::Array(items) => Self::Array(items.iter().map(Self::from).collect()),
            Value::Object(map) => {
                Self::Object(map.iter().map(|(k, v)| (k.to_string(), Self::from(v))).collect())
            }
        }
    }
}

impl FromIterator<(Str, Value)> for Value {
    fn from_iter<I: IntoIterator<Item = (Str, Value)>>(entries: I) -> Self {
        Self::Object(entries.into_iter().collect())
    }
}

impl FromIterator<Value> for Value {
    fn from_iter<I: IntoIterator<Item = Value>>(items: I) -> Self {
        Self::Array(items.into_iter().collect())
    }
}

/// Builds a [`Value`] from JSON-like syntax, as `serde_json::json!` does.
#[macro_export]
macro_rules! json {
    ($($tokens:tt)+) => { $crate::Value::from($crate::__serde_json::json!($($tokens)+)) };
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.to_json_string())
    }
}

#[cfg(test)]
mod tests;
