//! Defaulting: missing fields take the schema's defaults, and nulls that mean nothing go.

use apimachinery::Value;

use crate::Structural;

/// Removes nulls where the schema does not allow them and has no default to put there.
pub fn prune_nulls(value: &mut Value, schema: &Structural) {
    match value {
        Value::Object(map) => map.retain(|name, value| {
            let Some(schema) = schema.field(name) else { return true };
            if value.is_null() && !schema.nullable && schema.default.is_none() {
                return false;
            }
            prune_nulls(value, schema);
            true
        }),
        Value::Array(items) => {
            if let Some(schema) = &schema.items {
                items.iter_mut().for_each(|item| prune_nulls(item, schema));
            }
        }
        _ => {}
    }
}

/// Fills in the defaults of fields that are missing, and of nulls that may not be null.
pub fn default(value: &mut Value, schema: &Structural) {
    match value {
        Value::Object(map) => {
            for (name, property) in &schema.properties {
                let Some(default) = &property.default else { continue };
                match map.get_mut(name) {
                    Some(own) if own.is_null() && !property.nullable => *own = (**default).clone(),
                    Some(_) => {}
                    None => {
                        map.insert(name.as_str(), (**default).clone());
                    }
                }
            }
            for (name, own) in map.iter_mut() {
                if let Some(property) = schema.property(name) {
                    default(own, property);
                } else if let Some(values) = schema.additional.schema() {
                    default_null(own, values);
                    default(own, values);
                }
            }
        }
        Value::Array(list) => {
            let Some(items) = &schema.items else { return };
            for item in list {
                default_null(item, items);
                default(item, items);
            }
        }
        _ => {}
    }
}

fn default_null(value: &mut Value, schema: &Structural) {
    if value.is_null()
        && !schema.nullable
        && let Some(default) = &schema.default
    {
        *value = (**default).clone();
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[track_caller]
    fn check(schema: Value, mut value: Value, expected: Value) {
        let schema = Structural::parse(&schema);
        prune_nulls(&mut value, &schema);
        default(&mut value, &schema);
        assert_eq!(value, expected);
    }

    #[test]
    fn defaults_fill_what_is_missing_at_every_depth() {
        let schema = json!({"type": "object", "properties": {
            "mode": {"type": "string", "default": "a"},
            "spec": {"type": "object", "default": {}, "properties": {"n": {"type": "integer", "default": 3}}},
            "list": {"type": "array", "items": {"type": "object", "properties": {"p": {"type": "string", "default": "TCP"}}}},
            "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"q": {"type": "boolean", "default": true}}}},
            "none": {"type": "object", "properties": {"deep": {"type": "string", "default": "x"}}},
        }});
        check(
            schema,
            json!({"list": [{}, {"p": "UDP"}], "map": {"k": {}}}),
            json!({
                "mode": "a", "spec": {"n": 3}, "list": [{"p": "TCP"}, {"p": "UDP"}], "map": {"k": {"q": true}},
            }),
        );
    }

    #[test]
    fn nulls_stay_only_where_they_may() {
        let schema = json!({"type": "object", "properties": {
            "nullable": {"type": "string", "nullable": true, "default": "kept null"},
            "defaulted": {"type": "string", "default": "a"},
            "plain": {"type": "string"},
            "list": {"type": "array", "items": {"type": "string", "default": "i"}},
            "map": {"type": "object", "additionalProperties": {"type": "string"}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }});
        check(
            schema,
            json!({
                "nullable": null, "defaulted": null, "plain": null, "list": [null], "map": {"k": null}, "free": {"k": null},
            }),
            json!({"nullable": null, "defaulted": "a", "list": ["i"], "map": {}, "free": {"k": null}}),
        );
    }
}
