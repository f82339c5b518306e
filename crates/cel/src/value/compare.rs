//! Order and equality.

use std::cmp::Ordering;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash, Hasher};

use super::{Map, Value};
use crate::eval_error::EvalError;

/// `None` for what has no order (NaN).
pub(super) fn compare(a: &Value<'_>, b: &Value<'_>) -> Result<Option<Ordering>, EvalError> {
    if let Some(order) = numbers(a, b) {
        return match order {
            None => Err(EvalError::new("NaN values cannot be ordered")),
            ordered => Ok(ordered),
        };
    }
    Ok(Some(match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::String(a), Value::String(b)) => (**a).cmp(&**b),
        (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
        (Value::Duration(a), Value::Duration(b)) => a.cmp(b),
        (Value::Timestamp(a), Value::Timestamp(b)) => a.cmp(b),
        _ => return Err(EvalError::no_such_overload()),
    }))
}

/// The order of two numbers; the outer `None` says that one of them is none.
fn numbers(a: &Value<'_>, b: &Value<'_>) -> Option<Option<Ordering>> {
    Some(match (a, b) {
        (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
        (Value::Uint(a), Value::Uint(b)) => Some(a.cmp(b)),
        (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
        (Value::Int(a), Value::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Value::Uint(a), Value::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Value::Double(a), Value::Int(b)) => double_integer(*a, i128::from(*b)),
        (Value::Double(a), Value::Uint(b)) => double_integer(*a, i128::from(*b)),
        (Value::Int(a), Value::Double(b)) => double_integer(*b, i128::from(*a)).map(Ordering::reverse),
        (Value::Uint(a), Value::Double(b)) => double_integer(*b, i128::from(*a)).map(Ordering::reverse),
        _ => return None,
    })
}

/// Beyond the integers' range the sign decides; within it both are compared as doubles.
fn double_integer(a: f64, b: i128) -> Option<Ordering> {
    if a < -1.7e38 {
        return Some(Ordering::Less);
    }
    if a > 1.7e38 {
        return Some(Ordering::Greater);
    }
    a.partial_cmp(&(b as f64))
}

pub(super) fn equals<'a>(a: &Value<'a>, b: &Value<'a>) -> bool {
    if let Some(order) = numbers(a, b) {
        return order == Some(Ordering::Equal);
    }
    match (a, b) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::String(a), Value::String(b)) => **a == **b,
        (Value::Bytes(a), Value::Bytes(b)) => a == b,
        (Value::Duration(a), Value::Duration(b)) => a == b,
        (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
        (Value::Type(a), Value::Type(b)) => a.name() == b.name(),
        (Value::List(a), Value::List(b)) => a.equals(b),
        (Value::Map(a), Value::Map(b)) => maps(a, b),
        (Value::Optional(None), Value::Optional(None)) => true,
        (Value::Optional(Some(a)), Value::Optional(Some(b))) => equals(a, b),
        (Value::Opaque(a), Value::Opaque(b)) => a == b,
        _ => false,
    }
}

fn maps<'a>(a: &Map<'a>, b: &Map<'a>) -> bool {
    a.len() == b.len()
        && a.same_unknown(b)
        && a.entries().all(|(key, value)| match (value, b.get(&key.value())) {
            (Ok(value), Ok(Some(other))) => equals(&value, &other),
            _ => false,
        })
}

/// A value in a hash table: what is equal to another of the same declaration has the same hash.
#[derive(Debug)]
pub(super) struct Hashed<'a>(pub Value<'a>);

impl PartialEq for Hashed<'_> {
    fn eq(&self, other: &Self) -> bool {
        equals(&self.0, &other.0)
    }
}

/// `NaN` is not in any table, so it is never found in one.
impl Eq for Hashed<'_> {}

impl Hash for Hashed<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash(&self.0, state);
    }
}

fn hash<H: Hasher>(value: &Value<'_>, state: &mut H) {
    // Numbers are equal across types. Adding zero makes the negative zero positive.
    let mut number = |value: f64| (value + 0.0).to_bits().hash(state);
    match value {
        Value::Int(value) => number(*value as f64),
        Value::Uint(value) => number(*value as f64),
        Value::Double(value) => number(*value),
        Value::Bool(value) => value.hash(state),
        Value::String(text) => (**text).hash(state),
        Value::Bytes(bytes) => bytes.hash(state),
        Value::Duration(nanos) => nanos.hash(state),
        Value::Timestamp(time) => time.hash(state),
        Value::List(list) if list.is_ordered() => {
            list.len().hash(state);
            list.iter().flatten().for_each(|item| hash(&item, state));
        }
        // Sums, because the order of sets and of entries does not count.
        Value::List(list) => {
            let items = list.iter().flatten().map(|item| hash_of(&item));
            items.fold(0_u64, u64::wrapping_add).hash(state);
        }
        Value::Map(map) => {
            let entries = map.entries().map(|(key, value)| {
                hash_of(&key.value()).rotate_left(1) ^ value.map_or(0, |value| hash_of(&value))
            });
            entries.fold(0_u64, u64::wrapping_add).hash(state);
        }
        Value::Null | Value::Type(_) | Value::Optional(_) | Value::Opaque(_) => {}
    }
}

fn hash_of(value: &Value<'_>) -> u64 {
    let mut hasher = BuildHasherDefault::<DefaultHasher>::default().build_hasher();
    hash(value, &mut hasher);
    hasher.finish()
}
