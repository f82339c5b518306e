use super::*;
use crate::json;

const POD_FIELDS: &[&str] = &["metadata.name", "spec.nodeName", "status.phase", "spec.hostNetwork"];

fn pod() -> Value {
    json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {
            "name": "p", "namespace": "ns", "uid": "u-1", "resourceVersion": "7", "generation": 3,
            "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"b": "2", "a": "1"},
            "annotations": {"x": "quote \" and \\ back"}, "finalizers": ["f/one"],
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "u-0", "controller": true}]
        },
        "spec": {"containers": [{"name": "c", "args": ["}", "\"", "{"]}], "hostNetwork": true, "nodeName": "n1"},
        "status": {"phase": "Run\"ning"}
    })
}

fn object(value: &Value) -> Object {
    Object::from_value(value, 42, POD_FIELDS).unwrap()
}

#[test]
fn metadata_is_found_without_decoding() {
    let object = object(&pod());
    assert_eq!((object.namespace(), object.name(), object.uid()), ("ns", "p", "u-1"));
    assert_eq!((object.api_version(), object.kind(), object.generation()), ("v1", "Pod", 3));
    assert_eq!(object.labels().collect::<Vec<_>>(), [("a", "1"), ("b", "2")]);
    assert_eq!(object.finalizers().collect::<Vec<_>>(), ["f/one"]);
    assert_eq!(object.controller_owner().unwrap().uid, "u-0");
    assert!(object.deletion_timestamp().is_none() && !object.is_deleting());
    let fields: Vec<_> = (0..5).map(|index| object.field(index).into_owned()).collect();
    assert_eq!(fields, ["p", "n1", "Run\"ning", "true", ""]);
}

#[test]
fn each_form_is_json_with_the_revision() {
    let object = object(&pod());
    let mut expected = pod();
    expected.set_at(&["metadata", "resourceVersion"], "42");
    let written = |form: Form<'_>| {
        let mut out = Vec::new();
        object.write(form, &mut out);
        Value::parse(&out).unwrap()
    };
    assert_eq!(written(Form::Full), expected);
    assert_eq!(object.to_value(), expected);
    expected.set_at(&["apiVersion"], "v2");
    assert_eq!(written(Form::As(&type_meta("v2", "Pod"))), expected);
    expected.as_object_mut().unwrap().remove("apiVersion");
    expected.as_object_mut().unwrap().remove("kind");
    assert_eq!(written(Form::ListItem), expected);
    assert_eq!(object.metadata_value(), expected["metadata"]);
}

#[test]
fn the_revision_fits_into_any_metadata() {
    for metadata in [json!({}), json!({"name": "a"}), json!({"uid": "u"}), json!({"name": "a", "uid": "u"})] {
        let value = json!({"apiVersion": "v1", "kind": "X", "metadata": serde_json::Value::from(&metadata)});
        let mut out = Vec::new();
        Object::from_value(&value, 9, &[]).unwrap().write(Form::Full, &mut out);
        assert_eq!(Value::parse(&out).unwrap()["metadata"]["resourceVersion"], "9".into(), "{metadata}");
    }
}

#[test]
fn damaged_bytes_are_an_error_at_every_cut() {
    let json = encode(&pod());
    for cut in 0..json.len() {
        assert!(
            Object::from_json(Bytes::copy_from_slice(&json[..cut]), 1, POD_FIELDS).is_err(),
            "cut at {cut}"
        );
    }
    assert!(Object::from_json(Bytes::from_static(b"{\"kind\":\"X\"}"), 1, &[]).is_err());
}

#[test]
fn what_could_not_be_parsed_again_is_no_object() {
    let nested = |levels: usize| {
        let deep = (0..levels).fold(Value::from(1), |inner, _| Value::Array(vec![inner]));
        let mut value = pod();
        value.set_at(&["spec", "deep"], deep);
        Object::from_value(&value, 1, &[])
    };
    assert_eq!(nested(115).unwrap().to_value()["spec"]["hostNetwork"], true.into());
    assert!(nested(200).is_err());
}

#[test]
fn the_view_is_decoded_once() {
    #[derive(serde::Deserialize)]
    struct View {
        kind: String,
    }
    let object = object(&pod());
    let first = object.view::<View>().unwrap();
    assert_eq!(first.kind, "Pod");
    assert!(Arc::ptr_eq(&first, &object.view::<View>().unwrap()));
}
