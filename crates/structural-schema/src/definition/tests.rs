//! Complaints about schemas, word for word.

use apimachinery::json;
use apimachinery::schema::{Node, NodeKind, Struct};

use super::*;
use crate::custom::OBJECT_META;

fn with_builtin<T>(test: impl FnOnce(Builtin<'_>) -> T) -> T {
    let mut schemas = Schemas::default();
    let object = NodeKind::Struct(Struct { preserve_unknown: true, ..Struct::default() });
    let meta = schemas.push(Node { kind: object, definition: Some(OBJECT_META.into()) });
    schemas.define(OBJECT_META, meta);
    let named = |metadata: &Value, path: &Path<'_>| {
        let name = metadata.str_at(&["name"]);
        if name.contains(' ') {
            vec![Error::invalid(&path.child("name"), name, "has a blank")]
        } else {
            Vec::new()
        }
    };
    test(Builtin { schemas: &Arc::new(schemas), object_meta: named })
}

fn complaints(schema: &Value, has_status: bool, demands: &Demands) -> Vec<String> {
    let holder = json!({"openAPIV3Schema": schema});
    let mut errors = ErrorList::new();
    with_builtin(|builtin| {
        let place = Place { has_status, is_unchanged: false };
        super::schema(&mut errors, &holder, place, demands, builtin, &Path::root("schema"));
    });
    errors.iter().map(|error| error.to_string().replace("schema.openAPIV3Schema", "S")).collect()
}

/// Checks a schema of the field `f`.
#[track_caller]
fn check(field: Value, expected: &[&str]) {
    let schema = json!({"type": "object", "properties": {"f": field}});
    let found: Vec<String> = complaints(&schema, false, &Demands::ALL)
        .into_iter()
        .map(|text| text.replace("S.properties[f]", "F"))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn types_are_given_outside_of_the_alternatives() {
    check(
        json!({"type": "object", "properties": {"a": {"type": "string"}}, "anyOf": [{"required": ["a"]}]}),
        &[],
    );
    check(json!({}), &["F.type: Required value: must not be empty for specified object fields"]);
    check(
        json!({"type": "array", "items": {}}),
        &["F.items.type: Required value: must not be empty for specified array items"],
    );
    check(json!({"type": "array"}), &["F.items: Required value: must be specified"]);
    check(
        json!({"type": "string", "anyOf": [{"type": "string", "nullable": true}]}),
        &[
            "F.anyOf[0].nullable: Forbidden: must be false to be structural",
            "F.anyOf[0].type: Forbidden: must be empty to be structural",
        ],
    );
    check(
        json!({"type": "object", "not": {"properties": {"a": {"enum": ["x"]}, "metadata": {}}}}),
        &["F.not.properties[metadata]: Forbidden: must not be specified in a nested context"],
    );
    // Upstream asks for this at the root only.
    assert_eq!(
        complaints(
            &json!({"type": "object", "oneOf": [{"properties": {"a": {"enum": ["x"]}}}]}),
            false,
            &Demands::ALL
        ),
        ["S.properties[a]: Required value: because it is defined in S.oneOf[0].properties[a]"]
    );
    let any_of = json!([{"type": "integer"}, {"type": "string"}]);
    check(json!({"x-kubernetes-int-or-string": true, "anyOf": any_of.clone()}), &[]);
    check(json!({"x-kubernetes-int-or-string": true, "allOf": [{"anyOf": any_of}, {"pattern": "^a$"}]}), &[]);
    check(
        json!({"x-kubernetes-int-or-string": true, "x-kubernetes-preserve-unknown-fields": true}),
        &[
            "F.x-kubernetes-preserve-unknown-fields: Invalid value: true: must be false if x-kubernetes-int-or-string is true",
        ],
    );
    check(
        json!({"type": "string", "pattern": "(a"}),
        &[
            "F.pattern: Invalid value: \"(a\": must be a valid regular expression, but isn't: error parsing regexp: missing closing ): `(a`",
        ],
    );
}

#[test]
fn objects_leave_their_metadata_alone() {
    let with_metadata = |metadata: Value| {
        complaints(&json!({"type": "object", "properties": {"metadata": metadata}}), false, &Demands::ALL)
    };
    let none = Vec::<String>::new();
    assert_eq!(
        with_metadata(json!({"type": "object", "properties": {"name": {"type": "string", "maxLength": 3}}})),
        none
    );
    assert_eq!(
        with_metadata(json!({"type": "object", "properties": {"labels": {"type": "object"}}})),
        [
            "S.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified"
        ]
    );
    assert_eq!(
        complaints(
            &json!({"type": "object", "properties": {"kind": {"type": "integer"}}}),
            false,
            &Demands::ALL
        ),
        ["S.properties[kind].type: Invalid value: \"integer\": must be string"]
    );
    check(
        json!({"type": "object", "x-kubernetes-embedded-resource": true}),
        &[
            "F.properties: Required value: must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
        ],
    );
}

#[test]
fn the_root_beside_a_status() {
    assert_eq!(
        complaints(&json!({"type": "array", "items": {"type": "string"}}), true, &Demands::ALL)[0],
        "schema.openAPIV3Schema.type: Invalid value: \"array\": only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled"
            .replace("schema.openAPIV3Schema", "S")
    );
    let found = complaints(&json!({"type": "object", "maxProperties": 3}), true, &Demands::ALL);
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("S: Invalid value: {\"ID\":\"\",\"Schema\":\"\",\"Ref\":null,\"Description\":\"\",\"Type\":\"object\","), "{}", found[0]);
    assert!(
        found[0].ends_with(
            "XValidations] fields are allowed at the root of the schema if the status subresource is enabled"
        ),
        "{}",
        found[0]
    );
    assert_eq!(
        complaints(&json!({"type": "object", "nullable": true}), false, &Demands::ALL),
        ["S.nullable: Forbidden: nullable cannot be true at the root"]
    );
}

#[test]
fn keywords_that_are_not_there() {
    check(
        json!({"type": "null"}),
        &[
            "F.type: Unsupported value: \"null\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"",
            "F.type: Forbidden: type cannot be set to null, use nullable as an alternative",
        ],
    );
    check(json!({"type": "string", "$ref": "#/x"}), &["F.$ref: Forbidden: $ref is not supported"]);
    check(
        json!({"type": "string", "definitions": {"a": {}}}),
        &["F.definitions: Forbidden: definitions is not supported"],
    );
    check(
        json!({"type": "array", "items": [{"type": "string"}]}),
        &["F.items: Forbidden: items must be a schema object and not an array"],
    );
    check(
        json!({"type": "array", "items": {"type": "string"}, "uniqueItems": true}),
        &[
            "F.uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        ],
    );
    check(
        json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}}),
        &["F.additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive"],
    );
    check(
        json!({"type": "object", "x-kubernetes-preserve-unknown-fields": false}),
        &["F.x-kubernetes-preserve-unknown-fields: Invalid value: false: must be true or undefined"],
    );
}

#[test]
fn lists_that_merge() {
    let list = |list_type: &str, keys: Value, items: Value| {
        json!({
            "type": "array", "x-kubernetes-list-type": list_type, "x-kubernetes-list-map-keys": keys, "items": items,
        })
    };
    let item = json!({"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}, "o": {"type": "object"}, "d": {"type": "string"}}});
    check(list("map", json!(["k"]), item.clone()), &[]);
    check(
        list("map", json!(["k", "k", "o", "x", "d"]), item.clone()),
        &[
            "F.x-kubernetes-list-map-keys: Invalid value: [\"k\",\"k\",\"o\",\"x\",\"d\"]: must not contain duplicate entries",
            "F.items.properties[o].type: Invalid value: \"object\": must be a scalar type if parent array's x-kubernetes-list-type is map",
            "F.x-kubernetes-list-map-keys: Invalid value: [\"k\",\"k\",\"o\",\"x\",\"d\"]: entries must all be names of item properties",
            "F.items.properties[o].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
            "F.items.properties[d].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
        ],
    );
    check(
        list("set", json!([]), item.clone()),
        &[
            "F.items.x-kubernetes-map-type: Invalid value: null: must be atomic as item of a list with x-kubernetes-list-type=set",
        ],
    );
    check(
        list("other", json!([]), item),
        &[
            "F.x-kubernetes-list-type: Unsupported value: \"other\": supported values: \"atomic\", \"set\", \"map\"",
        ],
    );
    check(
        json!({"type": "string", "x-kubernetes-map-type": "atomic"}),
        &["F.type: Invalid value: \"string\": must be object if x-kubernetes-map-type is specified"],
    );
}

#[test]
fn defaults_are_good_values() {
    let object = json!({"type": "object", "properties": {"n": {"type": "integer", "maximum": 3}}});
    let with_default = |default: Value| {
        let mut object = object.clone();
        object.set_at(&["default"], default);
        object
    };
    check(with_default(json!({"n": 1})), &[]);
    check(
        with_default(json!({"n": 4, "x": 1})),
        &[
            "F.default: Invalid value: {\"n\":4,\"x\":1}: must not have unknown fields",
            "F.default.n: Invalid value: 4: n in body should be less than or equal to 3",
        ],
    );
    check(
        json!({"type": "object", "x-kubernetes-embedded-resource": true, "properties": {
            "metadata": {"type": "object", "properties": {"name": {"type": "string", "default": "a b"}}},
        }}),
        &[
            "F.properties[metadata].properties[name].default: Invalid value: \"a b\": must result in valid metadata: metadata.name: Invalid value: \"a b\": has a blank",
        ],
    );
    assert_eq!(
        complaints(
            &json!({"type": "object", "properties": {"kind": {"type": "string", "default": "K"}}}),
            false,
            &Demands::ALL
        ),
        ["S.properties[kind].default: Forbidden: must not be set in top-level kind"]
    );
}

#[test]
fn an_update_may_keep_what_was_let_in() {
    let old = json!({"versions": [{"schema": {"openAPIV3Schema": {"type": "object", "properties": {
        "s": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "object"}},
        "d": {"type": "object", "default": {"unknown": 1}},
        "m": {
            "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "properties": {"k": {"type": "string"}}},
        },
    }}}}]});
    let schema = &old["versions"][0]["schema"]["openAPIV3Schema"];
    assert_eq!(complaints(schema, false, &Demands::ALL).len(), 3);
    let demands = Demands::of_update(&old);
    assert_eq!(complaints(schema, false, &demands), Vec::<String>::new());
}

#[test]
fn rules_have_a_form() {
    let with_rule = |rule: Value| json!({"type": "object", "properties": {"a": {"type": "string"}}, "x-kubernetes-validations": [rule]});
    check(
        with_rule(json!({"rule": " "})),
        &["F.x-kubernetes-validations[0].rule: Required value: rule is not specified"],
    );
    check(
        with_rule(json!({"rule": "a\nb"})),
        &[
            "F.x-kubernetes-validations[0].message: Required value: message must be specified if rule contains line breaks",
        ],
    );
    check(
        with_rule(json!({"rule": "true", "reason": "Odd", "fieldPath": ".b"})),
        &[
            "F.x-kubernetes-validations[0].reason: Unsupported value: \"Odd\": supported values: \"FieldValueDuplicate\", \"FieldValueForbidden\", \"FieldValueInvalid\", \"FieldValueRequired\"",
            "F.x-kubernetes-validations[0].fieldPath: Invalid value: \".b\": must be a valid path",
        ],
    );
}

#[test]
fn fields_to_select_by() {
    let schema = json!({"type": "object", "properties": {
        "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
        "spec": {"type": "object", "properties": {"a": {"type": "string"}, "o": {"type": "object"}}},
    }});
    let fields: Vec<Value> = [".spec.a", ".spec.a", ".spec.o", ".spec.x", "", ".metadata.name"]
        .iter()
        .map(|path| json!({"jsonPath": *path}))
        .collect();
    let mut errors = ErrorList::new();
    selectable_fields(&mut errors, &fields, &schema, false, &Path::root("f"));
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "f[1].jsonPath: Duplicate value: \".spec.a\"",
            "f[2].jsonPath: Invalid value: \".spec.o\": must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.",
            "f[3].jsonPath: Invalid value: \".spec.x\": is an invalid path: does not refer to a valid field",
            "f[4].jsonPath: Required value",
            "f[5].jsonPath: Invalid value: \".metadata.name\": must not point to fields in metadata",
        ]
    );
}

#[test]
fn rules_compile_against_the_types_of_the_schema() {
    let with_rule = |rule: Value| {
        json!({
            "type": "object", "properties": {"size": {"type": "integer"}, "a-b": {"type": "string"}},
            "x-kubernetes-validations": [rule],
        })
    };
    check(with_rule(json!({"rule": "self.size > 1 && self.a__dash__b == 'x'"})), &[]);
    check(
        with_rule(json!({"rule": "self.size + 'x' == 'y'"})),
        &[
            "F.x-kubernetes-validations[0].rule: Invalid value: {\"Rule\":\"self.size + 'x' == 'y'\",\"Message\":\"\",\"MessageExpression\":\"\",\"Reason\":null,\"FieldPath\":\"\",\"OptionalOldSelf\":null}: compilation failed: ERROR: <input>:1:11: found no matching overload for '_+_' applied to '(int, string)'\n | self.size + 'x' == 'y'\n | ..........^",
        ],
    );
    check(
        with_rule(json!({"rule": "self.size"})),
        &[
            "F.x-kubernetes-validations[0].rule: Invalid value: {\"Rule\":\"self.size\",\"Message\":\"\",\"MessageExpression\":\"\",\"Reason\":null,\"FieldPath\":\"\",\"OptionalOldSelf\":null}: cel expression must evaluate to a bool",
        ],
    );
    check(
        with_rule(json!({"rule": "true", "optionalOldSelf": true})),
        &[
            "F.x-kubernetes-validations[0].optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule",
        ],
    );
    check(
        json!({"type": "array", "items": {"type": "integer", "x-kubernetes-validations": [{"rule": "self >= oldSelf"}]}}),
        &[
            "F.items.x-kubernetes-validations[0].rule: Invalid value: \"self >= oldSelf\": oldSelf cannot be used on the uncorrelatable portion of the schema within F",
        ],
    );
}

#[test]
fn rules_have_a_price() {
    let nested = json!({"type": "array", "items": {"type": "array", "items": {"type": "string"}},
        "x-kubernetes-validations": [{"rule": "self.all(x, x.all(y, y.matches('a+')))"}]});
    let schema = json!({"type": "object", "properties": {"f": nested}});
    let found = complaints(&schema, false, &Demands::ALL);
    assert_eq!(
        found,
        [
            "S.properties[f].x-kubernetes-validations[0].rule: Forbidden: estimated rule cost exceeds budget by factor of more than 100x (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)",
            "S.properties[f].x-kubernetes-validations[0].rule: Forbidden: contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema",
            "S: Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds budget by factor of more than 100x (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)",
        ]
    );
}
