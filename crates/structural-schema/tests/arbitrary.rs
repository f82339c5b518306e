//! No schema and no value makes anything panic: both come from the network.

use std::sync::Arc;

use apimachinery::decode::FieldValidation;
use apimachinery::field::{ErrorList, Path};
use apimachinery::schema::{Node, NodeKind, Schemas, Struct};
use apimachinery::{Str, Value};
use proptest::prelude::*;
use structural_schema::definition::{self, Builtin, Demands, FieldPath, Place};
use structural_schema::openapi::{Dialect, Prose, Publication};
use structural_schema::pattern::Pattern;
use structural_schema::{CustomSchema, Structural};

fn no_complaint(_: &Value, _: &Path<'_>) -> ErrorList {
    ErrorList::new()
}

fn builtin() -> Arc<Schemas> {
    const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
    let mut schemas = Schemas::default();
    let object = NodeKind::Struct(Struct { preserve_unknown: true, ..Struct::default() });
    let meta = schemas.push(Node { kind: object, definition: Some(OBJECT_META.into()) });
    schemas.define(OBJECT_META, meta);
    Arc::new(schemas)
}

/// Words that mean something to schemas, so that the walk gets deeper than with random ones.
const WORDS: &[&str] = &[
    "type",
    "object",
    "array",
    "string",
    "integer",
    "number",
    "boolean",
    "null",
    "properties",
    "items",
    "additionalProperties",
    "required",
    "default",
    "nullable",
    "enum",
    "format",
    "date-time",
    "int32",
    "pattern",
    "^(a|b)+$",
    "(",
    "maximum",
    "minimum",
    "exclusiveMaximum",
    "multipleOf",
    "maxLength",
    "maxItems",
    "maxProperties",
    "anyOf",
    "allOf",
    "oneOf",
    "not",
    "metadata",
    "name",
    "kind",
    "apiVersion",
    "spec",
    "a",
    "b",
    "$ref",
    "x-kubernetes-int-or-string",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-list-type",
    "map",
    "set",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
    "atomic",
    "x-kubernetes-validations",
    "rule",
    "message",
    "messageExpression",
    "fieldPath",
    "reason",
    "optionalOldSelf",
    "self.a == oldSelf.a",
    "self.size() > 0",
    ".spec.a",
];

fn word() -> impl Strategy<Value = Str> {
    prop_oneof![9 => proptest::sample::select(WORDS).prop_map(Str::from), 1 => ".{0,6}".prop_map(Str::from)]
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3_i64..300).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        word().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 60, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
            proptest::collection::vec((word(), inner), 0..6)
                .prop_map(|entries| entries.into_iter().collect()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn anything_can_be_a_schema_and_an_object(schema in json(), object in json(), old in json()) {
        let custom = CustomSchema::new(&schema, &builtin(), no_complaint);
        for validation in [FieldValidation::Ignore, FieldValidation::Warn, FieldValidation::Strict] {
            let _ = custom.decode(&mut object.clone(), validation, &[]);
        }
        let mut object = object;
        let _ = custom.normalize(&mut object);
        custom.default(&mut object);
        let before = object.clone();
        custom.default(&mut object);
        prop_assert_eq!(&before, &object, "defaulting is done at once");
        let _ = custom.validate(&object, None, |_| {});
        let _ = custom.validate(&object, Some(&old), |_| {});
    }

    #[test]
    fn anything_can_be_a_schema_of_a_definition(schema in json(), text in ".{0,12}") {
        let builtin = builtin();
        let builtin = Builtin { schemas: &builtin, object_meta: no_complaint };
        let holder: Value = [("openAPIV3Schema".into(), schema.clone())].into_iter().collect();
        let version: Value = [("schema".into(), holder.clone())].into_iter().collect();
        let spec: Value = [("versions".into(), Value::Array(vec![version]))].into_iter().collect();
        let demands = Demands::of_update(&spec);
        for has_status in [true, false] {
            let place = Place { has_status, is_unchanged: has_status };
            let mut errors = ErrorList::new();
            definition::schema(&mut errors, &holder, place, &Demands::ALL, builtin, &Path::root("schema"));
            definition::schema(&mut errors, &holder, place, &demands, builtin, &Path::root("schema"));
        }
        let _ = FieldPath::parse(&text, &Structural::parse(&schema), true);
        let publication = Publication {
            group: "a.b", version: "v1", kind: "K", list_kind: "KList", plural: "ks", schema: &schema,
            selectable_fields: &[], prose: &Prose::default(),
        };
        for dialect in [Dialect::V2, Dialect::V3] {
            let _ = (publication.object(dialect), publication.list(dialect));
        }
    }

    #[test]
    fn anything_can_be_a_pattern(pattern in r"[\[\](){}a-c0-9\\*+?.,&~^$|dDwWsSbBQEpP<>-]{0,16}", text in "[a-c0-9]{0,4}") {
        let _ = Pattern::shared(&pattern).is_match(&text);
    }
}
