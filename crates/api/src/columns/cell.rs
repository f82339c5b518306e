//! Cells that many kinds have.

use apimachinery::{Value, time};
use jiff::Timestamp;

use super::duration::human_duration;

pub(super) fn name(object: &Value) -> Value {
    text(object, &["metadata", "name"])
}

/// The text at a path; empty when there is none.
pub(super) fn text(object: &Value, path: &[&str]) -> Value {
    object.str_at(path).into()
}

/// The text at a path, or `instead` of an empty one.
pub(super) fn text_or(object: &Value, path: &[&str], instead: &str) -> Value {
    match object.str_at(path) {
        "" => instead.into(),
        text => text.into(),
    }
}

/// The number at a path; zero when there is none.
pub(super) fn number(object: &Value, path: &[&str]) -> Value {
    integer(object, path).into()
}

pub(super) fn integer(object: &Value, path: &[&str]) -> i64 {
    object.at(path).and_then(Value::as_i64).unwrap_or_default()
}

/// The number at a path as text, or `instead` of a missing one.
pub(super) fn number_or(object: &Value, path: &[&str], instead: &str) -> Value {
    object.at(path).and_then(Value::as_i64).map_or_else(|| instead.into(), Value::from)
}

pub(super) fn flag(object: &Value, path: &[&str], instead: bool) -> Value {
    object.at(path).and_then(Value::as_bool).unwrap_or(instead).into()
}

/// A number or a string as text (`IntOrString`), or `instead` of a missing one.
pub(super) fn scalar_or(object: &Value, path: &[&str], instead: &str) -> Value {
    match object.at(path) {
        Some(Value::String(text)) => text.clone().into(),
        Some(value) => value.as_i64().map_or_else(|| instead.into(), |number| number.to_string().into()),
        None => instead.into(),
    }
}

/// How many items or fields there are at a path.
pub(super) fn count(object: &Value, path: &[&str]) -> i64 {
    let len = match object.at(path) {
        Some(Value::Array(items)) => items.len(),
        Some(Value::Object(map)) => map.len(),
        _ => 0,
    };
    i64::try_from(len).unwrap_or(i64::MAX)
}

/// The object's age; `<unknown>` when it has no creation time.
pub(super) fn age(object: &Value, now: Timestamp) -> Value {
    ago(object, &["metadata", "creationTimestamp"], now, "<unknown>")
}

/// How long ago the time at a path was, or `instead` when there is none.
pub(super) fn ago(object: &Value, path: &[&str], now: Timestamp, instead: &str) -> Value {
    since(object.str_at(path), now).map_or_else(|| instead.into(), Value::from)
}

/// How long ago a time was; `None` when it is no time.
pub(super) fn since(time: &str, now: Timestamp) -> Option<String> {
    time::parse(time).map(|time| human_duration(seconds_between(time, now)))
}

/// Whole seconds, rounded towards zero.
pub(super) fn seconds_between(from: Timestamp, to: Timestamp) -> i64 {
    from.duration_until(to).as_secs()
}

/// The strings at a path, joined.
pub(super) fn joined(object: &Value, path: &[&str], separator: &str) -> String {
    strings(object, path).collect::<Vec<_>>().join(separator)
}

pub(super) fn strings<'v>(object: &'v Value, path: &[&str]) -> impl Iterator<Item = &'v str> {
    object.array_at(path).iter().filter_map(Value::as_str)
}

/// The first `shown` of a list and how many more there are: `a,b,c + 2 more...`.
pub(super) fn shortened(items: &[impl AsRef<str>], shown: usize, separator: &str) -> String {
    let text = items.iter().take(shown).map(AsRef::as_ref).collect::<Vec<_>>().join(separator);
    if items.len() > shown { format!("{text} + {} more...", items.len() - shown) } else { text }
}

/// The names and the images of a pod spec's containers, as two cells.
pub(super) fn containers(object: &Value, pod_spec: &[&str]) -> [Value; 2] {
    let spec = object.at(pod_spec);
    ["name", "image"].map(|field| {
        let containers = spec.map(|spec| spec.array_at(&["containers"])).unwrap_or_default();
        containers.iter().map(|container| container.str_at(&[field])).collect::<Vec<_>>().join(",").into()
    })
}

/// The condition of a type in `status.conditions`.
pub(super) fn condition<'v>(object: &'v Value, kind: &str) -> Option<&'v Value> {
    object.array_at(&["status", "conditions"]).iter().find(|condition| condition.str_at(&["type"]) == kind)
}

pub(super) fn condition_is_true(object: &Value, kind: &str) -> bool {
    condition(object, kind).is_some_and(|condition| condition.str_at(&["status"]) == "True")
}

pub(super) fn is_deleting(object: &Value) -> bool {
    !object.str_at(&["metadata", "deletionTimestamp"]).is_empty()
}

/// A storage class's short names for access modes, in fixed order and each once.
pub(super) fn access_modes(object: &Value, path: &[&str]) -> String {
    const MODES: [(&str, &str); 4] = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let has = |mode: &str| strings(object, path).any(|own| own == mode);
    MODES.iter().filter(|(mode, _)| has(mode)).map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

/// `spec.storageClassName`, or the annotation that named the class before there was a field.
pub(super) fn storage_class(object: &Value) -> Value {
    match object.str_at(&["metadata", "annotations", "volume.beta.kubernetes.io/storage-class"]) {
        "" => text(object, &["spec", "storageClassName"]),
        class => class.into(),
    }
}
