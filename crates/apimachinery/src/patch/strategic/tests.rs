use super::*;
use crate::json;
use crate::schema::fixture::thing;

fn patched(mut document: Value, patch: Value) -> Result<Value> {
    apply(&mut document, patch, thing().schema())?;
    Ok(document)
}

/// Patches `spec` and returns it.
fn spec(original: Value, patch: Value) -> Value {
    patched(
        json!({"spec": serde_json::Value::from(&original)}),
        json!({"spec": serde_json::Value::from(&patch)}),
    )
    .unwrap_or_else(|error| panic!("{error}"))["spec"]
        .clone()
}

fn containers(names: &[&str]) -> Value {
    json!({"containers": names.iter().map(|name| serde_json::json!({"name": name})).collect::<Vec<_>>()})
}

#[test]
fn lists_merge_by_key_and_new_items_lead() {
    let merged = spec(
        json!({"containers": [{"name": "c", "image": "a", "args": ["1"]}]}),
        json!({"containers": [{"name": "d", "image": "b"}, {"name": "c", "args": ["2"]}]}),
    );
    assert_eq!(
        merged,
        json!({"containers": [{"name": "d", "image": "b"}, {"name": "c", "image": "a", "args": ["2"]}]})
    );
}

#[test]
fn the_order_of_merged_lists_is_upstreams() {
    for (original, patch, expected) in [
        (&["a", "b", "c"][..], &["c", "a"][..], &["b", "c", "a"][..]),
        (&["a", "b", "c"], &["x"], &["x", "a", "b", "c"]),
        (&["a", "b", "c"], &["b"], &["a", "b", "c"]),
        (&["a", "b"], &["x", "b"], &["x", "a", "b"]),
    ] {
        assert_eq!(
            spec(containers(original), containers(patch)),
            containers(expected),
            "{original:?} {patch:?}"
        );
    }
}

#[test]
fn a_given_order_wins() {
    for (original, order, expected) in [
        (&["c", "d"][..], &["d", "c"][..], &["d", "c"][..]),
        (&["a", "b", "c", "d"], &["d", "b"], &["a", "c", "d", "b"]),
        (&["a"], &["b", "a"], &["a"]),
    ] {
        let order = containers(order)["containers"].clone();
        let patch = json!({"$setElementOrder/containers": serde_json::Value::from(&order)});
        assert_eq!(spec(containers(original), patch), containers(expected), "{original:?} {order}");
    }
    let patch = json!({
        "$setElementOrder/containers": [{"name": "n"}, {"name": "a"}],
        "containers": [{"name": "n", "image": "i"}],
    });
    assert_eq!(
        spec(containers(&["a", "b"]), patch),
        json!({"containers": [{"name": "n", "image": "i"}, {"name": "a"}, {"name": "b"}]})
    );
}

#[test]
fn new_items_take_the_places_of_deleted_ones() {
    for (original, order, patch, expected) in [
        (
            &["a", "b", "d"][..],
            &["b", "c"][..],
            json!([{"name": "c"}, {"name": "a", "$patch": "delete"}]),
            &["b", "d", "c"][..],
        ),
        (
            &["a", "d"],
            &["b", "c"],
            json!([{"name": "b"}, {"name": "c"}, {"name": "a", "$patch": "delete"}]),
            &["d", "b", "c"],
        ),
        (&["a", "b", "d"], &["b", "c"], json!([{"name": "c"}]), &["a", "b", "c", "d"]),
    ] {
        let order = containers(order)["containers"].clone();
        let mut change = json!({ "$setElementOrder/containers": serde_json::Value::from(&order) });
        change.set_at(&["containers"], patch);
        assert_eq!(spec(containers(original), change), containers(expected), "{original:?} {order}");
    }
}

#[test]
fn directives_delete_and_replace() {
    for (original, patch, expected) in [
        (
            containers(&["a", "b"]),
            json!({"containers": [{"name": "b", "$patch": "delete"}]}),
            containers(&["a"]),
        ),
        (
            containers(&["a", "b"]),
            json!({"containers": [{"$patch": "replace"}, {"name": "x"}]}),
            containers(&["x"]),
        ),
        (
            json!({"strategy": {"type": "A", "rolling": {}}}),
            json!({"strategy": {"$patch": "replace", "type": "B"}}),
            json!({"strategy": {"type": "B"}}),
        ),
        (
            json!({"strategy": {"type": "A"}}),
            json!({"strategy": {"$patch": "delete"}}),
            json!({"strategy": {}}),
        ),
        (
            json!({"strategy": {"type": "A", "rolling": {"maxSurge": 1}}}),
            json!({"strategy": {"$retainKeys": ["type"], "type": "B"}}),
            json!({"strategy": {"type": "B"}}),
        ),
        (json!({}), json!({"strategy": {"$patch": "delete"}, "replicas": null}), json!({})),
        (json!({"replicas": 1, "paused": true}), json!({"replicas": null}), json!({"paused": true})),
        (
            json!({}),
            json!({"selector": {"matchLabels": {"a": null, "b": "c"}}}),
            json!({"selector": {"matchLabels": {"b": "c"}}}),
        ),
        (
            json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
            json!({"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}}]}),
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
        ),
    ] {
        assert_eq!(spec(original, patch.clone()), expected, "{patch}");
    }
}

#[test]
fn scalars_merge_as_sets_where_the_field_says_so() {
    let finalizers = |items: &[&str]| json!({"metadata": {"finalizers": items}});
    assert_eq!(patched(finalizers(&["a", "b"]), finalizers(&["c", "a"])), Ok(finalizers(&["c", "a", "b"])));
    let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "$setElementOrder/finalizers": ["c", "b"]}});
    assert_eq!(patched(finalizers(&["a", "b", "c"]), patch), Ok(finalizers(&["c", "b"])));
    assert_eq!(
        spec(json!({"tolerations": ["a"]}), json!({"tolerations": ["b"]})),
        json!({"tolerations": ["b"]})
    );
}

#[test]
fn what_cannot_be_merged_is_refused_in_upstreams_words() {
    for (patch, message, code) in [
        (
            json!({"spec": {"containers": [{"image": "x"}]}}),
            "map: map[image:x] does not contain declared merge key: name",
            500,
        ),
        (json!({"spec": {"$patch": "nope"}}), "unknown patch type: nope in map: map[$patch:nope]", 500),
        (
            json!({"spec": {"containers": [{"name": "a", "$patch": "nope"}]}}),
            "unknown patch type: nope in map: map[$patch:nope name:a]",
            500,
        ),
        (
            json!({"spec": {"containers": [{"$patch": "merge"}]}}),
            "merging lists cannot yet be specified in the patch",
            500,
        ),
        (
            json!({"spec": {"containers": ["x"]}}),
            "list element types are not identical: [[map[name:a]] [x]]",
            500,
        ),
        (json!({"spec": {"$retainKeys": ["a"], "b": 1}}), "invalid patch format of retainKeys", 400),
        (json!({"spec": {"$setElementOrder": []}}), "invalid patch format of setElementOrder list", 400),
        (
            json!({"spec": {"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "b"}]}}),
            "The order in patch list:\n[map[name:b]]\n doesn't match $setElementOrder list:\n[map[name:a]]\n",
            500,
        ),
        (
            json!([]),
            "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}",
            400,
        ),
    ] {
        let error = patched(json!({"spec": {"containers": [{"name": "a"}]}}), patch).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert_eq!(error.into_status().code, code, "{message}");
    }
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    fn specs() -> impl Strategy<Value = Value> {
        let item = ("[a-d]", prop::option::of("[x-z]"))
            .prop_map(|(name, image)| json!({"name": name, "image": image}));
        (prop::collection::vec(item, 0..4), prop::option::of(0_i64..3)).prop_map(|(items, replicas)| {
            json!({"spec": {
                "containers": items.iter().map(serde_json::Value::from).collect::<Vec<_>>(), "replicas": replicas,
            }})
        })
    }

    proptest! {
        #[test]
        fn a_second_application_changes_nothing(document in specs(), patch in specs()) {
            if let Ok(once) = patched(document, patch.clone()) {
                prop_assert_eq!(patched(once.clone(), patch), Ok(once));
            }
        }

        #[test]
        fn any_patch_is_applied_or_refused(document in specs(), text in "[$a-z{}\\[\\]\":, ]{0,40}") {
            if let Ok(patch) = Value::parse(text.as_bytes()) {
                let _ = patched(document, patch);
            }
        }
    }
}
