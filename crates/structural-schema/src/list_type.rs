//! Uniqueness in lists that are sets or maps.

use std::collections::HashMap;

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::{Str, Value};

use crate::Structural;
use crate::structural::ListType;

/// All items that occur twice in a set, or whose keys occur twice in a map list, anywhere in `value`.
pub fn validate(errors: &mut ErrorList, schema: &Structural, value: &Value, path: &Path<'_>) {
    match value {
        Value::Array(items) => {
            match &schema.list_type {
                ListType::Atomic => {}
                ListType::Set => {
                    for index in repeated(items.iter().map(Some)) {
                        errors.push(Error::duplicate(&path.index(index), &items[index]));
                    }
                }
                ListType::Map(keys) => map_list(errors, keys, items, path),
            }
            if let Some(schema) = &schema.items {
                for (index, item) in items.iter().enumerate() {
                    validate(errors, schema, item, &path.index(index));
                }
            }
        }
        Value::Object(map) => {
            if let Some(schema) = schema.additional.schema() {
                map.iter().for_each(|(name, value)| validate(errors, schema, value, &path.key(name)));
            }
            for (name, value) in map {
                if let Some(schema) = schema.property(name) {
                    validate(errors, schema, value, &path.child(name));
                }
            }
        }
        _ => {}
    }
}

fn map_list(errors: &mut ErrorList, keys: &[Str], items: &[Value], path: &Path<'_>) {
    let is_item = |item: &Value| item.is_object() || item.is_null();
    if let Some(index) = items.iter().position(|item| !is_item(item)) {
        let detail = "must be an object for an array of list-type map";
        errors.push(Error::invalid(&path.index(index), &items[index], detail));
        return;
    }
    let key_of = |item: &Value| -> Value {
        keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone()))).collect()
    };
    // One key is the usual case and needs no copy.
    let found = match keys {
        [key] => repeated(items.iter().map(|item| item.get(key))),
        _ => {
            let all: Vec<Value> = items.iter().map(key_of).collect();
            repeated(all.iter().map(Some))
        }
    };
    for index in found {
        errors.push(Error::duplicate(&path.index(index), key_of(&items[index])));
    }
}

/// The index at which each value that occurs more than once occurs for the second time.
fn repeated<'a>(values: impl ExactSizeIterator<Item = Option<&'a Value>>) -> Vec<usize> {
    if values.len() <= 1 {
        return Vec::new();
    }
    let mut seen: HashMap<Option<String>, u32> = HashMap::with_capacity(values.len());
    let mut found = Vec::new();
    for (index, value) in values.enumerate() {
        let times = seen.entry(value.map(Value::to_json_string)).or_default();
        *times += 1;
        if *times == 2 {
            found.push(index);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[track_caller]
    fn check(schema: Value, value: Value, expected: &[&str]) {
        let schema = Structural::parse(&json!({"type": "object", "properties": {"l": schema}}));
        let mut errors = ErrorList::new();
        validate(&mut errors, &schema, &json!({"l": value}), &Path::NONE);
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn sets_hold_each_value_once() {
        let set = json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}});
        check(set.clone(), json!(["a", "b"]), &[]);
        check(set, json!(["a", "b", "a", "a"]), &["l[2]: Duplicate value: \"a\""]);
    }

    #[test]
    fn map_lists_hold_each_key_once() {
        let map = |keys: Value| {
            json!({
                "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": keys,
                "items": {"type": "object"},
            })
        };
        check(
            map(json!(["name"])),
            json!([{"name": "a"}, {"name": "a"}, {}, {}]),
            &["l[1]: Duplicate value: {\"name\":\"a\"}", "l[3]: Duplicate value: {}"],
        );
        check(
            map(json!(["port", "protocol"])),
            json!([{"port": 1, "protocol": "T"}, {"port": 1, "protocol": "U"}, {"port": 1, "protocol": "T", "x": 1}]),
            &["l[2]: Duplicate value: {\"port\":1,\"protocol\":\"T\"}"],
        );
        check(
            map(json!(["name"])),
            json!([{}, "x"]),
            &["l[1]: Invalid value: \"x\": must be an object for an array of list-type map"],
        );
    }
}
