//! A whole object's way through decoding, defaults and validation.

use apimachinery::json;
use apimachinery::schema::{Field, Node, NodeKind, Scalar, Struct};

use super::*;

/// Built-in types with as much of `ObjectMeta` as the tests look at.
fn builtin() -> Arc<Schemas> {
    let mut schemas = Schemas::default();
    let string = schemas.push(Node { kind: NodeKind::Scalar(Scalar::String), definition: None });
    let labels =
        schemas.push(Node { kind: NodeKind::Map { values: string, atomic: false }, definition: None });
    let fields = vec![Field::new("labels", labels), Field::new("name", string)];
    let object = NodeKind::Struct(Struct { fields, ..Struct::default() });
    let meta = schemas.push(Node { kind: object, definition: Some(OBJECT_META.into()) });
    schemas.define(OBJECT_META, meta);
    Arc::new(schemas)
}

fn no_complaint(_: &Value, _: &Path<'_>) -> ErrorList {
    ErrorList::new()
}

fn widget() -> CustomSchema {
    let schema = json!({"type": "object", "required": ["spec"], "properties": {
        "metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 8}}},
        "spec": {"type": "object", "required": ["size"], "properties": {
            "size": {"type": "integer", "maximum": 9},
            "mode": {"type": "string", "default": "a"},
            "template": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
            "items": {
                "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "properties": {"name": {"type": "string"}}},
            },
        }},
    }});
    CustomSchema::new(&schema, &builtin(), no_complaint)
}

fn texts(errors: &ErrorList) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn an_object_is_pruned_and_its_author_is_told() {
    let mut object = json!({
        "apiVersion": "e.example/v1", "kind": "Widget", "metadata": {"name": "a", "odd": 1},
        "spec": {
            "size": 1, "extra": 1, "mode": null,
            "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"bad": 1, "name": "p"}, "spec": {"any": 1}},
        },
        "status": {},
    });
    let schema = widget();
    let notes = schema.decode(&mut object, FieldValidation::Warn, &["spec.size".into()]).expect("is good");
    assert_eq!(
        notes,
        [
            "duplicate field \"spec.size\"",
            "unknown field \"metadata.odd\"",
            "unknown field \"spec.extra\"",
            "unknown field \"status\"",
            "unknown field \"spec.template.metadata.bad\"",
        ]
    );
    schema.default(&mut object);
    assert_eq!(
        object,
        json!({
            "apiVersion": "e.example/v1", "kind": "Widget", "metadata": {"name": "a"},
            "spec": {
                "size": 1, "mode": "a",
                "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"any": 1}},
            },
        })
    );
}

#[test]
fn malformed_metadata_is_refused_from_clients_and_dropped_from_the_store() {
    let object = json!({"metadata": {"name": "a", "labels": {"x": 1}}, "spec": {"size": 1}});
    let error = widget().decode(&mut object.clone(), FieldValidation::Ignore, &[]).expect_err("is bad");
    assert_eq!(
        error.to_string(),
        "json: cannot unmarshal number into Go struct field ObjectMeta.labels of type string"
    );
    let mut stored = object;
    widget().normalize(&mut stored).expect("can be read");
    assert_eq!(stored, json!({"metadata": {"name": "a"}, "spec": {"size": 1}}));
}

#[test]
fn complaints_come_in_upstreams_order() {
    let object = json!({
        "metadata": {"name": "much-too-long"},
        "spec": {"size": 10, "items": [{"name": "a"}, {"name": "a"}], "template": {"kind": "Pod"}},
    });
    let extra = |errors: &mut ErrorList| errors.push(Error::required(&Path::root("between"), ""));
    assert_eq!(
        texts(&widget().validate(&object, None, extra)),
        [
            "metadata.name: Too long: may not be more than 8 bytes",
            "spec.size: Invalid value: 10: spec.size in body should be less than or equal to 9",
            "between: Required value",
            "spec.template.apiVersion: Required value",
            "spec.items[1]: Duplicate value: {\"name\":\"a\"}",
        ]
    );
}

#[test]
fn repeated_items_that_were_there_may_stay() {
    let object = json!({"spec": {"size": 1, "items": [{"name": "a"}, {"name": "a"}]}});
    assert_eq!(texts(&widget().validate(&object, Some(&object), |_| {})), Vec::<String>::new());
}

#[test]
fn apply_and_merge_find_their_way() {
    let schema = widget();
    let (nodes, root) = schema.nodes();
    let root = nodes.at(root);
    let items = root.child("spec").and_then(|spec| spec.child("items")).expect("a list");
    assert!(matches!(
        items.kind(),
        NodeKind::List { merge: apimachinery::schema::ListType::Map(keys), .. } if *keys == ["name".into()]
    ));
    let name = root.child("metadata").and_then(|meta| meta.child("name")).expect("of ObjectMeta");
    assert!(matches!(name.kind(), NodeKind::Scalar(Scalar::String)));
    let template = root.child("spec").and_then(|spec| spec.child("template")).expect("embedded");
    assert!(template.child("metadata").is_some());
}
