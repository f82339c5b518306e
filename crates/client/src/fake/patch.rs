//! The fake server's patches: JSON, merge, and a strategic merge that knows the list keys controllers rely on.

use apimachinery::{Status, Value};

use crate::Patch;

/// Lists that a strategic merge patch merges by key, by field name.
const MERGE_KEYS: &[(&str, &str)] = &[
    ("conditions", "type"),
    ("containers", "name"),
    ("env", "name"),
    ("initContainers", "name"),
    ("ownerReferences", "uid"),
    ("ports", "containerPort"),
    ("volumes", "name"),
];

pub(super) fn apply(target: &mut Value, patch: Patch) -> Result<(), Status> {
    match patch {
        Patch::Json(operations) => json(target, &operations),
        Patch::Merge(tree) | Patch::Apply(tree) => {
            merge(target, tree);
            Ok(())
        }
        Patch::Strategic(tree) => {
            strategic(target, tree);
            Ok(())
        }
    }
}

fn merge(target: &mut Value, patch: Value) {
    let Value::Object(fields) = patch else {
        *target = patch;
        return;
    };
    let map = target.ensure_object();
    for (key, field) in fields {
        if field.is_null() {
            map.remove(&key);
        } else {
            merge(map.get_or_insert_with(&key, || Value::Null), field);
        }
    }
}

fn strategic(target: &mut Value, patch: Value) {
    let Value::Object(fields) = patch else {
        *target = patch;
        return;
    };
    let map = target.ensure_object();
    for (key, field) in fields {
        if let Some(list) = key.strip_prefix("$deleteFromPrimitiveList/") {
            if let Some(items) = map.get_mut(list).and_then(Value::as_array_mut) {
                items.retain(|item| !field.as_array().is_some_and(|gone| gone.contains(item)));
            }
        } else if key.starts_with("$setElementOrder/") {
            // Order only matters to readers of text.
        } else if field.is_null() {
            map.remove(&key);
        } else {
            let own = map.get_or_insert_with(&key, || Value::Null);
            match (MERGE_KEYS.iter().find(|(list, _)| *list == key.as_str()), field) {
                (Some((_, merge_key)), Value::Array(items)) => merge_list(own, items, merge_key),
                (None, Value::Array(items)) if key == "finalizers" => union(own, items),
                (_, field) => strategic(own, field),
            }
        }
    }
}

fn merge_list(own: &mut Value, items: Vec<Value>, merge_key: &str) {
    if own.as_array().is_none() {
        *own = Value::Array(Vec::new());
    }
    let Some(list) = own.as_array_mut() else { return };
    for item in items {
        let at = list.iter().position(|present| present.get(merge_key) == item.get(merge_key));
        match (at, item.str_at(&["$patch"])) {
            (Some(at), "delete") => {
                list.remove(at);
            }
            (None, "delete") => {}
            (Some(at), _) => strategic(&mut list[at], item),
            (None, _) => list.push(item),
        }
    }
}

fn union(own: &mut Value, items: Vec<Value>) {
    if own.as_array().is_none() {
        *own = Value::Array(Vec::new());
    }
    if let Some(list) = own.as_array_mut() {
        for item in items {
            if !list.contains(&item) {
                list.push(item);
            }
        }
    }
}

fn json(target: &mut Value, operations: &Value) -> Result<(), Status> {
    for operation in operations.as_array().into_iter().flatten() {
        let path = operation.str_at(&["path"]);
        let steps: Vec<String> =
            path.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~")).collect();
        let value = operation.get("value").cloned().unwrap_or_default();
        let done = match operation.str_at(&["op"]) {
            "add" => put(target, &steps, value, true),
            "replace" => put(target, &steps, value, false),
            "remove" => remove(target, &steps),
            "test" if find(target, &steps) == Some(&value) => true,
            _ => false,
        };
        if !done {
            let text = format!("the server rejected our request due to an error in our request: {operation}");
            return Err(Status::new(422, "Invalid", text));
        }
    }
    Ok(())
}

fn find<'a>(target: &'a Value, steps: &[String]) -> Option<&'a Value> {
    steps.iter().try_fold(target, |value, step| match value {
        Value::Array(items) => items.get(step.parse::<usize>().ok()?),
        other => other.get(step),
    })
}

fn find_mut<'a>(target: &'a mut Value, steps: &[String]) -> Option<&'a mut Value> {
    steps.iter().try_fold(target, |value, step| match value {
        Value::Array(items) => items.get_mut(step.parse::<usize>().ok()?),
        other => other.get_mut(step),
    })
}

fn put(target: &mut Value, steps: &[String], value: Value, adding: bool) -> bool {
    let Some((last, parents)) = steps.split_last() else {
        *target = value;
        return true;
    };
    match find_mut(target, parents) {
        Some(Value::Object(map)) if adding || map.contains_key(last) => {
            map.insert(last.as_str(), value);
            true
        }
        Some(Value::Array(items)) if adding => {
            let at = if last == "-" { Some(items.len()) } else { last.parse().ok() };
            at.filter(|at| *at <= items.len()).map(|at| items.insert(at, value)).is_some()
        }
        Some(Value::Array(items)) => {
            last.parse::<usize>().ok().and_then(|at| items.get_mut(at)).map(|slot| *slot = value).is_some()
        }
        _ => false,
    }
}

fn remove(target: &mut Value, steps: &[String]) -> bool {
    let Some((last, parents)) = steps.split_last() else { return false };
    match find_mut(target, parents) {
        Some(Value::Object(map)) => map.remove(last).is_some(),
        Some(Value::Array(items)) => {
            last.parse::<usize>().ok().filter(|at| *at < items.len()).map(|at| items.remove(at)).is_some()
        }
        _ => false,
    }
}
