//! Which part of the old object a part of the new one was: the ground of ratcheting and of `oldSelf`.

use std::cell::OnceCell;
use std::collections::HashMap;

use apimachinery::{Str, Value};

use crate::Structural;
use crate::structural::ListType;

/// A value, what it was before, and its schema.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Correlated<'a> {
    pub new: &'a Value,
    pub old: &'a Value,
    pub schema: &'a Structural,
}

impl<'a> Correlated<'a> {
    /// The field in both objects; `None` when one lacks it, or the schema does not know it.
    pub fn key(self, name: &str) -> Option<Self> {
        let (new, old) = (self.new.get(name)?, self.old.get(name)?);
        Some(Self { new, old, schema: self.schema.field(name)? })
    }

    /// The items of a list of `x-kubernetes-list-type: map`; other lists' items are not followed.
    pub fn items(self) -> CorrelatedItems<'a> {
        let items = |list: &'a Value| list.as_array().map(Vec::as_slice).unwrap_or_default();
        CorrelatedItems {
            new: items(self.new),
            old: OldItems::of(self.schema, items(self.old)),
            schema: self.schema.items.as_deref(),
        }
    }

    /// Whether nothing changed. Fields that the schema does not know count as changed, as upstream has it, and the
    /// order of a map list does not count.
    pub fn is_unchanged(self) -> bool {
        match (self.new, self.old) {
            (Value::Null, Value::Null) => true,
            (Value::Array(new), Value::Array(old)) => {
                new.len() == old.len()
                    && match self.schema.list_type {
                        ListType::Map(_) if self.schema.items.is_some() => {
                            let items = self.items();
                            (0..new.len()).all(|index| items.get(index).is_some_and(Self::is_unchanged))
                        }
                        _ => new == old,
                    }
            }
            (Value::Object(new), Value::Object(old)) => {
                new.len() == old.len()
                    && new.keys().all(|name| self.key(name).is_some_and(Self::is_unchanged))
            }
            (new, old) => new == old,
        }
    }
}

/// The items of a list, each with what it was before.
#[derive(Debug)]
pub(crate) struct CorrelatedItems<'a> {
    new: &'a [Value],
    old: OldItems<'a>,
    schema: Option<&'a Structural>,
}

impl<'a> CorrelatedItems<'a> {
    pub fn get(&self, index: usize) -> Option<Correlated<'a>> {
        let new = self.new.get(index)?;
        Some(Correlated { new, old: self.old.find(new, index)?, schema: self.schema? })
    }
}

/// The items of an old list, found by their keys.
#[derive(Debug)]
pub(crate) struct OldItems<'a> {
    keys: &'a [Str],
    items: &'a [Value],
    /// Made for the first item that is not where it was.
    index: OnceCell<HashMap<Vec<&'a Value>, &'a Value>>,
}

impl<'a> OldItems<'a> {
    pub fn of(schema: &'a Structural, items: &'a [Value]) -> Self {
        let keys: &[Str] = match &schema.list_type {
            ListType::Map(keys) => keys,
            ListType::Atomic | ListType::Set => &[],
        };
        Self { keys, items, index: OnceCell::new() }
    }

    /// The item with the keys of `item`; the one at the same place, which is the usual one, is tried first.
    pub fn find(&self, item: &'a Value, index: usize) -> Option<&'a Value> {
        let here = self.items.get(index).filter(|own| self.have_same_keys(own, item));
        here.or_else(|| self.index().get(&self.key(item)?).copied())
    }

    /// Whether two items have the same [key](Self::key).
    fn have_same_keys(&self, one: &Value, other: &Value) -> bool {
        let (Some(one), Some(other)) = (one.as_object(), other.as_object()) else { return false };
        let is_same =
            |key: &Str| one.get(key).is_some_and(|own| is_scalar(own) && other.get(key) == Some(own));
        !self.keys.is_empty() && self.keys.iter().all(is_same)
    }

    /// The values of an item's keys, if it has all of them and they are scalars.
    fn key(&self, item: &'a Value) -> Option<Vec<&'a Value>> {
        let map = item.as_object().filter(|_| !self.keys.is_empty())?;
        self.keys.iter().map(|key| map.get(key).filter(|value| is_scalar(value))).collect()
    }

    /// Of items with one key the first counts.
    fn index(&self) -> &HashMap<Vec<&'a Value>, &'a Value> {
        self.index.get_or_init(|| {
            let all = self.items.iter().rev();
            all.filter_map(|item| Some((self.key(item)?, item))).collect()
        })
    }
}

fn is_scalar(value: &Value) -> bool {
    matches!(value, Value::Bool(_) | Value::Number(_) | Value::String(_))
}
