//! JSON merge patch (RFC 7386): objects merge, `null` removes, everything else replaces.

use super::PatchError;
use crate::{Map, Value};

/// Applies a merge patch to an object.
pub fn apply(document: &mut Value, patch: Value) -> Result<(), PatchError> {
    match patch {
        Value::Object(patch) => merge(document.ensure_object(), patch),
        other => return Err(PatchError::not_a("map[string]interface {}", &other)),
    }
    Ok(())
}

fn merge(document: &mut Map, patch: Map) {
    for (name, change) in patch {
        match (document.get_mut(&name), change) {
            (_, Value::Null) => {
                document.remove(&name);
            }
            (Some(Value::Object(current)), Value::Object(change)) => merge(current, change),
            (_, change) => {
                document.insert(name, without_nulls(change));
            }
        }
    }
}

/// A `null` in what is new has nothing to remove. Upstream's library looks for them inside lists too.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => map
            .into_iter()
            .filter(|(_, field)| !field.is_null())
            .map(|(name, field)| (name, without_nulls(field)))
            .collect(),
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Str, json};

    #[test]
    fn objects_merge_and_everything_else_replaces() {
        for (document, patch, expected) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b", "b": 1}), json!({"a": null}), json!({"b": 1})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
            (json!({"a": 1}), json!({"a": {"b": null, "c": 1}}), json!({"a": {"c": 1}})),
            (json!({"a": {"x": 1}}), json!({"a": [{"b": null}]}), json!({"a": [{}]})),
        ] {
            let mut result = document.clone();
            apply(&mut result, patch.clone()).unwrap();
            assert_eq!(result, expected, "{document} + {patch}");
        }
    }

    #[test]
    fn only_an_object_is_a_patch() {
        let error = apply(&mut json!({}), json!([])).unwrap_err();
        let text = "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}";
        assert_eq!(error, PatchError::Malformed(text.into()));
    }

    fn objects() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(Value::Null), (0_i64..4).prop_map(Value::from)];
        let fields = |inner: BoxedStrategy<Value>| {
            prop::collection::vec(("[abc]", inner), 0..4).prop_map(|fields| {
                fields.into_iter().map(|(name, value)| (Str::from(name), value)).collect::<Value>()
            })
        };
        let tree = leaf.prop_recursive(3, 24, 4, move |inner| {
            prop_oneof![
                fields(inner.clone().boxed()),
                prop::collection::vec(inner, 0..3).prop_map(Value::from)
            ]
        });
        fields(tree.boxed())
    }

    proptest! {
        #[test]
        fn a_second_application_changes_nothing(document in objects(), patch in objects()) {
            let mut once = document;
            apply(&mut once, patch.clone()).unwrap();
            let mut twice = once.clone();
            apply(&mut twice, patch).unwrap();
            prop_assert_eq!(once, twice);
        }

        #[test]
        fn the_empty_patch_changes_nothing(document in objects()) {
            let mut result = document.clone();
            apply(&mut result, json!({})).unwrap();
            prop_assert_eq!(result, document);
        }
    }
}
