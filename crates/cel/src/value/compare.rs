//! Order and equality.

use std::cmp::Ordering;

use super::list::same_keys;
use super::{List, Map, Value};
use crate::eval_error::EvalError;
use crate::types::ListKind;

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

pub(super) fn equals(a: &Value<'_>, b: &Value<'_>) -> bool {
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
        (Value::List(a), Value::List(b)) => lists(a, b),
        (Value::Map(a), Value::Map(b)) => maps(a, b),
        (Value::Optional(None), Value::Optional(None)) => true,
        (Value::Optional(Some(a)), Value::Optional(Some(b))) => equals(a, b),
        (Value::Opaque(a), Value::Opaque(b)) => a == b,
        _ => false,
    }
}

fn lists(a: &List<'_>, b: &List<'_>) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let equal = |a: Result<Value<'_>, EvalError>, b: Result<Value<'_>, EvalError>| match (a, b) {
        (Ok(a), Ok(b)) => equals(&a, &b),
        _ => false,
    };
    match a.kind {
        ListKind::Atomic => a.iter().zip(b.iter()).all(|(a, b)| equal(a, b)),
        ListKind::Set => a.iter().all(|a| b.iter().any(|b| equal(a.clone(), b))),
        ListKind::Map(keys) => a.iter().all(|a| {
            let Ok(a) = a else { return false };
            b.iter().any(|b| b.is_ok_and(|b| same_keys(&a, &b, keys) && equals(&a, &b)))
        }),
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
