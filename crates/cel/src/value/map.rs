//! [`Map`]: an object or a map of a tree, or entries that an expression made.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use apimachinery::value::{Map as JsonMap, Value as Json};

use super::{Evaluated, Text, Value};
use crate::eval_error::EvalError;
use crate::types::{DYNAMIC, Decl, ObjectType, Shape};

/// A map from keys to values, or an object with fields.
#[derive(Clone, Debug)]
pub struct Map<'a>(Entries<'a>);

#[derive(Clone, Debug)]
enum Entries<'a> {
    /// Any property is an entry.
    Tree {
        map: &'a JsonMap,
        values: &'a Decl,
    },
    /// Only declared properties are there, under their escaped names.
    Object {
        map: &'a JsonMap,
        object: &'a Arc<ObjectType>,
    },
    Owned(Arc<Owned<'a>>),
}

/// In order of insertion.
#[derive(Clone, Debug, Default)]
struct Owned<'a> {
    entries: Vec<(Key<'a>, Value<'a>)>,
    index: HashMap<Key<'a>, usize>,
    /// Of what was constructed as a message.
    object: Option<Arc<ObjectType>>,
    /// What a key that is not there reads as.
    absent: Option<Value<'a>>,
}

/// A key of a map: equal numbers are equal keys, whatever their type.
#[derive(Clone, Debug)]
pub enum Key<'a> {
    Bool(bool),
    Int(i64),
    /// Only above `i64::MAX`.
    Uint(u64),
    String(Text<'a>),
}

impl PartialEq for Key<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::Uint(a), Self::Uint(b)) => a == b,
            (Self::String(a), Self::String(b)) => **a == **b,
            _ => false,
        }
    }
}

impl Eq for Key<'_> {}

impl std::hash::Hash for Key<'_> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        match self {
            Self::Bool(value) => value.hash(state),
            Self::Int(value) => value.hash(state),
            Self::Uint(value) => value.hash(state),
            Self::String(text) => (**text).hash(state),
        }
    }
}

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Uint(value) => write!(f, "{value}"),
            Self::String(text) => f.write_str(text),
        }
    }
}

impl<'a> Key<'a> {
    /// The key that a value is, if values of its type can be keys.
    pub(crate) fn of(value: &Value<'a>) -> Option<Self> {
        Some(match value {
            Value::Bool(value) => Self::Bool(*value),
            Value::Int(value) => Self::Int(*value),
            Value::Uint(value) => i64::try_from(*value).map_or(Self::Uint(*value), Self::Int),
            Value::Double(value) if value.fract() == 0.0 && value.abs() < 9e15 => Self::Int(*value as i64),
            Value::String(text) => Self::String(text.clone()),
            _ => return None,
        })
    }

    pub(crate) fn value(&self) -> Value<'a> {
        match self {
            Self::Bool(value) => Value::Bool(*value),
            Self::Int(value) => Value::Int(*value),
            Self::Uint(value) => Value::Uint(*value),
            Self::String(text) => Value::String(text.clone()),
        }
    }
}

impl<'a> Map<'a> {
    pub(super) fn tree(map: &'a JsonMap, decl: &'a Decl) -> Self {
        Self(match &decl.shape {
            Shape::Object(object) => Entries::Object { map, object },
            Shape::Map { values, .. } => Entries::Tree { map, values },
            _ => Entries::Tree { map, values: &DYNAMIC },
        })
    }

    /// A map of these entries, of those with one key the last; an error if something cannot be a key.
    pub(crate) fn from_entries(
        entries: impl IntoIterator<Item = (Value<'a>, Value<'a>)>,
    ) -> Result<Self, EvalError> {
        let mut owned = Owned::default();
        for (key, value) in entries {
            owned.insert(key, value, true)?;
        }
        Ok(Self(Entries::Owned(Arc::new(owned))))
    }

    /// A map of these entries, and what other keys read as.
    pub(super) fn of_names(
        entries: impl IntoIterator<Item = (Text<'a>, Value<'a>)>,
        absent: Option<Value<'a>>,
    ) -> Self {
        let mut owned = Owned { absent, ..Owned::default() };
        for (name, value) in entries {
            let key = Key::String(name);
            owned.index.insert(key.clone(), owned.entries.len());
            owned.entries.push((key, value));
        }
        Self(Entries::Owned(Arc::new(owned)))
    }

    /// A message with these fields.
    pub(crate) fn message(object: &Arc<ObjectType>, fields: Vec<(Arc<str>, Value<'a>)>) -> Self {
        let mut owned = Owned { object: Some(object.clone()), ..Owned::default() };
        for (name, value) in fields {
            let key = Key::String(Text::Shared(name));
            owned.index.insert(key.clone(), owned.entries.len());
            owned.entries.push((key, value));
        }
        Self(Entries::Owned(Arc::new(owned)))
    }

    /// The type, if this is an object and no map.
    pub(crate) fn object_type(&self) -> Option<&Arc<ObjectType>> {
        match &self.0 {
            Entries::Object { object, .. } => Some(object),
            Entries::Owned(owned) => owned.object.as_ref(),
            Entries::Tree { .. } => None,
        }
    }

    pub fn len(&self) -> usize {
        match &self.0 {
            Entries::Tree { map, .. } | Entries::Object { map, .. } => map.len(),
            Entries::Owned(owned) => owned.entries.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value under a name.
    pub fn field(&self, name: &str) -> Result<Option<Value<'a>>, EvalError> {
        match &self.0 {
            Entries::Tree { map, values } => {
                map.get(name).map(|json| Value::declared(json, values)).transpose()
            }
            Entries::Object { map, object } => {
                let Some(field) = object.field(name) else {
                    return Err(EvalError::no_such_field(name));
                };
                match map.get(&field.property) {
                    None | Some(Json::Null) => Ok(None),
                    Some(json) => Value::declared(json, &field.decl).map(Some),
                }
            }
            Entries::Owned(owned) => Ok(owned.read(&Key::String(Text::Shared(name.into()))).cloned()),
        }
    }

    /// The value under a key.
    pub(crate) fn get(&self, key: &Value<'a>) -> Result<Option<Value<'a>>, EvalError> {
        match (&self.0, key) {
            (Entries::Tree { .. } | Entries::Object { .. }, Value::String(name)) => self.field(name),
            (Entries::Owned(owned), key) => match Key::of(key) {
                Some(key) => Ok(owned.read(&key).cloned()),
                None => Ok(None),
            },
            _ => Ok(None),
        }
    }

    pub(crate) fn contains(&self, key: &Value<'a>) -> Result<bool, EvalError> {
        match (&self.0, key) {
            (Entries::Tree { map, .. }, Value::String(name)) => Ok(map.contains_key(name)),
            (Entries::Owned(owned), key) => Ok(Key::of(key).is_some_and(|key| owned.get(&key).is_some())),
            _ => Ok(self.get(key)?.is_some()),
        }
    }

    /// Whether properties that are not declared are the same in both.
    pub(super) fn same_unknown(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Entries::Object { map, object }, Entries::Object { map: other, .. }) => {
                map.iter().all(|(name, value)| {
                    object.fields().iter().any(|field| *field.property == **name)
                        || other.get(name).is_none_or(|other| other == value)
                })
            }
            _ => true,
        }
    }

    /// The raw properties, whatever they are declared as; an expression's own map has none.
    pub(super) fn properties(&self) -> Option<&'a JsonMap> {
        match &self.0 {
            Entries::Tree { map, .. } | Entries::Object { map, .. } => Some(map),
            Entries::Owned(_) => None,
        }
    }

    /// Keys and values; of an object, the declared properties that are there.
    pub fn entries(&self) -> Box<dyn Iterator<Item = (Key<'a>, Evaluated<'a>)> + '_> {
        match &self.0 {
            Entries::Tree { map, values } => {
                let (map, values) = (*map, *values);
                Box::new(map.iter().map(move |(name, json)| {
                    (Key::String(Text::Borrowed(name)), Value::declared(json, values))
                }))
            }
            Entries::Object { map, object } => {
                let (map, object) = (*map, *object);
                Box::new(object.fields().iter().filter_map(move |field| {
                    let json = map.get(&field.property).filter(|json| !json.is_null())?;
                    Some((Key::String(Text::Borrowed(&field.name)), Value::declared(json, &field.decl)))
                }))
            }
            Entries::Owned(owned) => {
                Box::new(owned.entries.iter().map(|(key, value)| (key.clone(), Ok(value.clone()))))
            }
        }
    }

    /// Adds an entry of a comprehension; without a copy if nobody else holds the map.
    pub(crate) fn insert(&mut self, key: Value<'a>, value: Value<'a>) -> Result<(), EvalError> {
        if !matches!(self.0, Entries::Owned(_)) {
            let entries: Vec<_> = self
                .entries()
                .map(|(key, value)| value.map(|value| (key.value(), value)))
                .collect::<Result<_, _>>()?;
            *self = Self::from_entries(entries)?;
        }
        match &mut self.0 {
            Entries::Owned(owned) => Arc::make_mut(owned).insert(key, value, false),
            _ => Ok(()),
        }
    }
}

impl<'a> Owned<'a> {
    fn get(&self, key: &Key<'a>) -> Option<&Value<'a>> {
        self.index.get(key).map(|&at| &self.entries[at].1)
    }

    fn read(&self, key: &Key<'a>) -> Option<&Value<'a>> {
        self.get(key).or(self.absent.as_ref())
    }

    fn insert(&mut self, key: Value<'a>, value: Value<'a>, replace: bool) -> Result<(), EvalError> {
        let Some(stored) = Key::of(&key) else {
            return Err(EvalError::new(format!("unsupported key type: {}", key.type_of().name())));
        };
        match self.index.get(&stored) {
            Some(&at) if replace => self.entries[at].1 = value,
            Some(_) => return Err(EvalError::new(format!("insert failed: key {key} already exists"))),
            None => {
                self.index.insert(stored.clone(), self.entries.len());
                self.entries.push((stored, value));
            }
        }
        Ok(())
    }
}
