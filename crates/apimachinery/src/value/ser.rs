//! Turning a typed value into a [`Value`].

use serde::Serialize;

use super::{DecodeError, Value};

/// The tree of a typed value, as its JSON would be.
pub fn to_value<T: Serialize + ?Sized>(typed: &T) -> Result<Value, DecodeError> {
    let tree = serde_json::to_value(typed).map_err(<DecodeError as serde::de::Error>::custom)?;
    Ok(Value::from(tree))
}
