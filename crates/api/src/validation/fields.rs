//! Reading a decoded object the way Go's zero values read, and small helpers to write complaints down.

use apimachinery::field::{Error, ErrorList, Path, Shown};
use apimachinery::{Map, Value};

use super::text::Messages;

/// Fields of an object, where a missing (or `null`) field reads as its type's zero value.
pub trait Fields {
    /// The field unless it is missing or `null`: what is a non-nil pointer upstream.
    fn maybe(&self, key: &str) -> Option<&Value>;

    fn has(&self, key: &str) -> bool {
        self.maybe(key).is_some()
    }

    fn text(&self, key: &str) -> &str {
        self.maybe_text(key).unwrap_or_default()
    }

    fn maybe_text(&self, key: &str) -> Option<&str> {
        self.maybe(key).and_then(Value::as_str)
    }

    fn int(&self, key: &str) -> i64 {
        self.maybe_int(key).unwrap_or_default()
    }

    fn maybe_int(&self, key: &str) -> Option<i64> {
        self.maybe(key).and_then(Value::as_i64)
    }

    fn truth(&self, key: &str) -> bool {
        self.maybe_truth(key).unwrap_or_default()
    }

    fn maybe_truth(&self, key: &str) -> Option<bool> {
        self.maybe(key).and_then(Value::as_bool)
    }

    fn list(&self, key: &str) -> &[Value] {
        self.maybe(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }

    fn map(&self, key: &str) -> Option<&Map> {
        self.maybe(key).and_then(Value::as_object)
    }

    /// The entries of a map field in key order.
    fn entries(&self, key: &str) -> impl Iterator<Item = (&str, &Value)> {
        self.map(key).into_iter().flatten().map(|(key, value)| (key.as_str(), value))
    }
}

impl Fields for Value {
    fn maybe(&self, key: &str) -> Option<&Value> {
        self.get(key).filter(|value| !value.is_null())
    }
}

impl Fields for Map {
    fn maybe(&self, key: &str) -> Option<&Value> {
        self.get(key).filter(|value| !value.is_null())
    }
}

/// The item as text; empty for anything else.
pub fn item_text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Whether a field counts as unset for a default: missing, `null`, or Go's zero value.
pub fn is_empty(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Number(number)) => number.as_f64() == 0.0,
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Bool(_) | Value::Object(_)) => false,
    }
}

/// One `Invalid` for each message.
pub fn invalid_each(errors: &mut ErrorList, path: &Path<'_>, value: impl Shown, messages: Messages) {
    for message in messages {
        errors.push(Error::invalid(path, &value, message));
    }
}

/// Complains when a required text is empty; returns whether it is there.
pub fn require(errors: &mut ErrorList, object: &Value, key: &str, path: &Path<'_>) -> bool {
    let present = !object.text(key).is_empty();
    if !present {
        errors.push(Error::required(&path.child(key), ""));
    }
    present
}

/// The message of `must be greater than or equal to 0`.
pub const NOT_NEGATIVE: &str = "must be greater than or equal to 0";
/// The message for a changed field that may not change.
pub const IMMUTABLE: &str = "field is immutable";

/// `spec.replicas: Invalid value: -1: must be greater than or equal to 0`.
pub fn not_negative(errors: &mut ErrorList, object: &Value, key: &str, path: &Path<'_>) {
    let number = object.int(key);
    if number < 0 {
        errors.push(Error::invalid(&path.child(key), number, NOT_NEGATIVE));
    }
}

/// Complains when the field differs between two states of an object. A missing field equals `null`.
pub fn immutable(errors: &mut ErrorList, new: &Value, old: &Value, key: &str, path: &Path<'_>) {
    if !same(&new[key], &old[key]) {
        errors.push(Error::invalid(path, &new[key], IMMUTABLE));
    }
}

/// Complains about a value outside a closed set; an empty value is merely required.
pub fn one_of(errors: &mut ErrorList, value: &str, path: &Path<'_>, supported: &[&str]) {
    if value.is_empty() {
        errors.push(Error::required(path, ""));
    } else if !supported.contains(&value) {
        errors.push(Error::not_supported(path, value, supported));
    }
}

/// Complains about a value outside a closed set, the empty one included.
pub fn supported(errors: &mut ErrorList, value: &str, path: &Path<'_>, supported: &[&str]) {
    if !supported.contains(&value) {
        errors.push(Error::not_supported(path, value, supported));
    }
}

/// Text that stands in a message as it is.
pub struct Verbatim(pub String);

impl Shown for Verbatim {
    fn shown(&self) -> String {
        self.0.clone()
    }
}

/// How upstream shows a structure in a message: JSON of Go's *internal* type, with fields in the order of the type
/// and under Go's names, absent ones as `null` or as the given zero value.
///
/// A layout names each field as `(JSON name, Go name, text when absent)`.
pub fn as_go_struct(value: &Value, layout: &[(&str, &str, &str)]) -> Verbatim {
    let mut text = String::from("{");
    for (index, (key, name, absent)) in layout.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        text.push('"');
        text.push_str(name);
        text.push_str("\":");
        match value.maybe(key) {
            Some(field) => text.push_str(&field.to_json_string()),
            None => text.push_str(absent),
        }
    }
    text.push('}');
    Verbatim(text)
}

/// Fields that are plain values in Go and left out when they are zero, so that `false` and `0` mean what a missing
/// field means. (Behind Go's pointers, zero is a value.)
const ZERO_IS_UNSET: [&str; 13] = [
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "hostPort",
    "initialDelaySeconds",
    "minReadySeconds",
    "nodePort",
    "partition",
    "paused",
    "publishNotReadyAddresses",
    "readOnly",
    "stdin",
    "tty",
];

/// Whether two states of a part of an object mean the same: empty lists, maps and texts are as good as missing ones.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let mut keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(key)));
            keys.all(|key| {
                let (a, b) = (a.maybe(key), b.maybe(key));
                match (a, b) {
                    (Some(a), Some(b)) => same(a, b),
                    (Some(only), None) | (None, Some(only)) => is_unset(key, only),
                    (None, None) => true,
                }
            })
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        _ => a == b || (is_void(a) && is_void(b)),
    }
}

fn is_void(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

fn is_unset(key: &str, value: &Value) -> bool {
    is_void(value)
        || ZERO_IS_UNSET.contains(&key) && (value.as_bool() == Some(false) || value.as_i64() == Some(0))
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn empty_means_missing_but_zero_behind_a_pointer_does_not() {
        let equal = [
            (json!({}), json!({"a": [], "b": {}, "c": "", "d": null})),
            (json!({"hostNetwork": false}), json!({})),
            (json!({"a": [{"b": 1}]}), json!({"a": [{"b": 1, "c": ""}]})),
        ];
        for (a, b) in equal {
            assert!(same(&a, &b) && same(&b, &a), "{a} and {b}");
        }
        let different = [
            (json!({"runAsUser": 0}), json!({})),
            (json!({"privileged": false}), json!({})),
            (json!({"a": [1]}), json!({"a": [1, 2]})),
            (json!({"a": "x"}), json!({"a": "y"})),
        ];
        for (a, b) in different {
            assert!(!same(&a, &b) && !same(&b, &a), "{a} and {b}");
        }
    }

    #[test]
    fn structures_are_shown_as_go_would() {
        let shown =
            as_go_struct(&json!({"name": "a"}), &[("name", "Name", "\"\""), ("other", "Other", "null")]);
        assert_eq!(shown.shown(), r#"{"Name":"a","Other":null}"#);
    }
}
