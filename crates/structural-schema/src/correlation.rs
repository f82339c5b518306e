//! Which part of the old object a part of the new one was: the ground of ratcheting and of `oldSelf`.

use apimachinery::{Map, Value};

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

    /// The item with the same keys in a list of `x-kubernetes-list-type: map`; other lists' items are not followed.
    pub fn index(self, index: usize) -> Option<Self> {
        let new = self.new.as_array()?.get(index)?;
        let old = match_item(self.schema, self.old.as_array()?, new, index)?;
        Some(Self { new, old, schema: self.schema.items.as_deref()? })
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
                            (0..new.len()).all(|index| self.index(index).is_some_and(Self::is_unchanged))
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

/// The first item of `old` with the keys of `item`; the one at the same place is tried first.
pub(crate) fn match_item<'a>(
    schema: &Structural,
    old: &'a [Value],
    item: &Value,
    index: usize,
) -> Option<&'a Value> {
    let ListType::Map(keys) = &schema.list_type else { return None };
    let map = item.as_object().filter(|map| !keys.is_empty() && has_keys(map, keys))?;
    let is_same = |other: &&Value| {
        other.as_object().is_some_and(|other| keys.iter().all(|key| other.get(key) == map.get(key)))
    };
    old.get(index).filter(is_same).or_else(|| old.iter().find(is_same))
}

fn has_keys(map: &Map, keys: &[apimachinery::Str]) -> bool {
    keys.iter().all(|key| matches!(map.get(key), Some(Value::Bool(_) | Value::Number(_) | Value::String(_))))
}
