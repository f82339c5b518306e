use super::*;
use crate::json;
use crate::schema::fixture::thing;

/// The smallest object that decoding leaves as it is.
fn minimal() -> Value {
    json!({"metadata": {}, "spec": {"containers": null, "selector": null, "strategy": {}}, "status": {}})
}

fn with(path: &[&str], value: Value) -> Value {
    let mut object = minimal();
    object.set_at(path, value);
    object
}

fn decoded(mut value: Value) -> Value {
    normalize(&mut value, thing().schema()).unwrap_or_else(|error| panic!("{error}"));
    value
}

fn error(mut value: Value) -> String {
    normalize(&mut value, thing().schema()).unwrap_err().to_string()
}

#[test]
fn fields_that_go_always_writes_appear() {
    assert_eq!(decoded(json!({})), minimal());
    assert_eq!(decoded(json!({"spec": null, "status": {"ready": null}})), minimal());
    assert_eq!(
        decoded(with(&["spec", "containers"], json!([{"image": "i"}, null]))),
        with(
            &["spec", "containers"],
            json!([{"image": "i", "name": "", "resources": {}}, {"name": "", "resources": {}}])
        )
    );
    assert_eq!(
        decoded(with(&["status", "conditions"], json!([{"type": "A"}]))),
        with(&["status", "conditions"], json!([{"type": "A", "status": "", "lastTransitionTime": null}]))
    );
}

#[test]
fn empty_values_go_where_go_omits_them_and_stay_behind_pointers() {
    for path in [
        &["spec", "paused"],
        &["spec", "replicas"],
        &["status", "ready"],
        &["spec", "data"],
        &["spec", "free"],
    ] {
        assert_eq!(decoded(with(path, Value::Null)), minimal(), "{path:?}");
    }
    for (path, empty) in [
        (&["spec", "paused"], json!(false)),
        (&["status", "ready"], json!(0)),
        (&["metadata", "name"], json!("")),
        (&["metadata", "labels"], json!({})),
        (&["spec", "tolerations"], json!([])),
    ] {
        assert_eq!(decoded(with(path, empty)), minimal(), "{path:?}");
    }
    for (path, kept) in [
        (&["spec", "replicas"], json!(0)),
        (&["spec", "selector"], json!({})),
        (&["spec", "containers"], json!([])),
        (&["metadata", "managedFields"], json!([])),
    ] {
        let object = with(path, kept);
        assert_eq!(decoded(object.clone()), object, "{path:?}");
    }
    assert_eq!(
        decoded(with(&["metadata", "labels"], json!({"a": null}))),
        with(&["metadata", "labels"], json!({"a": ""}))
    );
}

#[test]
fn scalars_are_stored_in_canonical_form() {
    let sent = json!([{"name": "c", "resources": {"limits": {"cpu": "1000m", "memory": " 0.5Gi ", "x": 2, "y": 0.5, "z": null}}}]);
    let stored = json!([{"name": "c", "resources": {"limits": {"cpu": "1", "memory": "512Mi", "x": "2", "y": "500m", "z": "0"}}}]);
    assert_eq!(decoded(with(&["spec", "containers"], sent)), with(&["spec", "containers"], stored));
    assert_eq!(
        decoded(with(&["spec", "until"], json!("2026-01-01T01:00:00.5+01:00"))),
        with(&["spec", "until"], json!("2026-01-01T00:00:00Z"))
    );
}

#[test]
fn notes_name_unknown_and_duplicate_fields() {
    let object = json!({
        "spec": {"bogus": 1, "Replicas": 2, "containers": [{"name": "a"}, {"name": "b", "nope": {}}]}, "x": null,
        "metadata": {"labels": {"any": "key"}},
    });
    let fixture = thing();
    let duplicates = ["metadata.name".to_owned()];
    let notes = |validation| decode(&mut object.clone(), fixture.schema(), validation, &duplicates);
    let expected = [
        "duplicate field \"metadata.name\"",
        "unknown field \"spec.Replicas\"",
        "unknown field \"spec.bogus\"",
        "unknown field \"spec.containers[1].nope\"",
        "unknown field \"x\"",
    ];
    assert_eq!(notes(FieldValidation::Warn).unwrap(), expected);
    assert_eq!(notes(FieldValidation::Ignore).unwrap(), Vec::<String>::new());
    let error = notes(FieldValidation::Strict).unwrap_err().to_string();
    assert_eq!(error, format!("strict decoding error: {}", expected.join(", ")));
    let dropped = decoded(object);
    assert!(dropped["x"].is_null() && dropped["spec"]["containers"][1].get("nope").is_none());
}

#[test]
fn a_value_of_another_type_is_refused_in_gos_words() {
    for (path, value, message) in [
        (
            &["spec", "replicas"],
            json!("x"),
            "cannot unmarshal string into Go struct field ThingSpec.spec.replicas of type int32",
        ),
        (
            &["spec", "replicas"],
            json!(1.5),
            "cannot unmarshal number 1.5 into Go struct field ThingSpec.spec.replicas of type int32",
        ),
        (
            &["spec", "replicas"],
            json!(3_000_000_000_i64),
            "cannot unmarshal number 3000000000 into Go struct field ThingSpec.spec.replicas of type int32",
        ),
        (
            &["metadata", "labels"],
            json!({"a": 1}),
            "cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            &["metadata", "labels"],
            json!([]),
            "cannot unmarshal array into Go struct field ObjectMeta.metadata.labels of type map[string]string",
        ),
        (
            &["spec", "containers"],
            json!({}),
            "cannot unmarshal object into Go struct field ThingSpec.spec.containers of type []v1.Container",
        ),
        (
            &["spec", "containers"],
            json!([1]),
            "cannot unmarshal number into Go struct field ThingSpec.spec.containers of type v1.Container",
        ),
        (
            &["spec", "containers"],
            json!([{"env": [{"name": true}]}]),
            "cannot unmarshal bool into Go struct field EnvVar.spec.containers.env.name of type string",
        ),
        (&["spec", "until"], json!(1), "cannot unmarshal number into Go value of type string"),
        (
            &["spec", "strategy"],
            json!({"rolling": {"maxSurge": true}}),
            "cannot unmarshal bool into Go value of type int32",
        ),
    ] {
        assert_eq!(error(with(path, value)), format!("json: {message}"));
    }
    assert_eq!(error(json!([])), "json: cannot unmarshal array into Go value of type v1.Thing");
    assert_eq!(error(with(&["spec", "data"], json!({"k": "***"}))), "illegal base64 data at input byte 0");
    let limits = json!([{"resources": {"limits": {"cpu": "one"}}}]);
    assert!(error(with(&["spec", "containers"], limits)).starts_with("quantities must match"));
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    /// Trees that use the fixture's names, with any value anywhere.
    fn trees() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "[a-z0-9:.TZ=+/-]{0,12}".prop_map(Value::from),
        ];
        let names = prop::sample::select(vec![
            "metadata",
            "spec",
            "status",
            "containers",
            "name",
            "labels",
            "resources",
            "limits",
            "cpu",
            "until",
            "ports",
            "port",
            "strategy",
            "selector",
            "data",
            "conditions",
            "zzz",
        ]);
        leaf.prop_recursive(6, 64, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((names.clone(), inner), 0..6).prop_map(|fields| fields
                    .into_iter()
                    .map(|(name, value)| (Str::from(name), value))
                    .collect::<Value>()),
            ]
        })
    }

    proptest! {
        #[test]
        fn decoding_never_panics_and_is_done_after_once(mut tree in trees()) {
            let fixture = thing();
            if normalize(&mut tree, fixture.schema()).is_ok() {
                let mut again = tree.clone();
                prop_assert_eq!(decode(&mut again, fixture.schema(), FieldValidation::Strict, &[]), Ok(vec![]));
                prop_assert_eq!(again, tree);
            }
        }
    }
}
