//! Values out of the language again.

use apimachinery::value::{Map as JsonMap, Number, Value as Json};

use super::Value;
use base64::Engine as _;

use crate::eval_error::EvalError;
use crate::time;

pub(super) fn to_json(value: &Value<'_>) -> Result<Json, EvalError> {
    Ok(match value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Int(value) => Json::Number(Number::Int(*value)),
        Value::Uint(value) => Json::from(*value),
        Value::Double(value) => Json::Number(Number::Float(*value)),
        Value::String(text) => Json::from(&**text),
        Value::Bytes(bytes) => Json::from(base64::engine::general_purpose::STANDARD.encode(bytes)),
        Value::Duration(nanos) => Json::from(time::format_duration_seconds(*nanos)),
        Value::Timestamp(time) => Json::from(time::format_timestamp(*time)),
        Value::List(list) => list.iter().map(|item| to_json(&item?)).collect::<Result<Vec<_>, _>>()?.into(),
        Value::Map(map) => {
            let mut out = JsonMap::new();
            let object = map.object_type();
            for (key, value) in map.entries() {
                let name = key.to_string();
                let property = object
                    .and_then(|object| object.field(&name))
                    .map_or_else(|| name.clone(), |field| field.property.to_string());
                out.insert(property, to_json(&value?)?);
            }
            out.into()
        }
        Value::Optional(Some(value)) => to_json(value)?,
        Value::Optional(None) => Json::Null,
        other => {
            return Err(EvalError::new(format!(
                "unsupported conversion from '{}' to JSON",
                other.type_of().name()
            )));
        }
    })
}
