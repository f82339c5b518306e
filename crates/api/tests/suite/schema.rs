use api::builtin::schema;
use apimachinery::schema::{NodeKind, SchemaRef};
use apimachinery::{GroupVersion, Value};

use crate::recorded::exchanges;

/// Notes fields that Go would write but are missing, and empty ones that Go would leave out but are there.
fn check(path: &str, schema: SchemaRef<'_>, value: &Value, wrong: &mut Vec<String>) {
    match (schema.kind(), value) {
        (NodeKind::Struct(object), Value::Object(map)) => {
            for field in &object.fields {
                let path = format!("{path}.{}", field.name);
                match map.get(&field.name) {
                    None if field.always_present => wrong.push(format!("{path} is missing")),
                    Some(value) if !field.always_present && !field.pointer && is_empty(value) => {
                        wrong.push(format!("{path} is there and empty"));
                    }
                    Some(value) => check(&path, schema.schemas.at(field.node), value, wrong),
                    None => {}
                }
            }
            for (key, _) in map {
                if object.field(key).is_none() {
                    wrong.push(format!("{path}.{key} is unknown"));
                }
            }
        }
        (NodeKind::List { items, .. }, Value::Array(list)) => {
            for value in list {
                check(&format!("{path}[]"), schema.schemas.at(*items), value, wrong);
            }
        }
        (NodeKind::Map { values, .. }, Value::Object(map)) => {
            for value in map.values() {
                check(&format!("{path}{{}}"), schema.schemas.at(*values), value, wrong);
            }
        }
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(true) => false,
    }
}

#[test]
fn recorded_objects_have_the_fields_that_go_writes_and_no_others() {
    let mut wrong = Vec::new();
    let mut objects = 0;
    for file in ["create-minimal.jsonl", "conversions-and-subresources.jsonl"] {
        let Some(exchanges) = exchanges(file) else { return };
        for exchange in exchanges.iter().filter(|own| own.status < 300 && own.body.is_object()) {
            let body = Value::from(exchange.body.clone());
            let Some(version) = GroupVersion::parse(body.str_at(&["apiVersion"])) else { continue };
            let gvk = version.with_kind(body.str_at(&["kind"]));
            // Custom resources are not built in.
            let Some(schema) = schema(&gvk) else { continue };
            check(&gvk.kind, schema.root(), &body, &mut wrong);
            objects += 1;
        }
    }
    wrong.sort();
    wrong.dedup();
    assert!(wrong.is_empty(), "{} complaints:\n{}", wrong.len(), wrong.join("\n"));
    assert!(objects > 60, "only {objects} objects were recorded");
}
