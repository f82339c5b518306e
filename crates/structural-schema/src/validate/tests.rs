//! Complaints word for word, as kube-apiserver makes them.

use apimachinery::json;

use super::*;

fn texts(errors: &ErrorList) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

/// Validates `value` as the field `f`.
#[track_caller]
fn check(schema: Value, value: Value, expected: &[&str]) {
    let schema = Structural::parse(&json!({"type": "object", "properties": {"f": schema}}));
    assert_eq!(texts(&create(&schema, &json!({"f": value}), &Path::NONE)), expected);
}

#[test]
fn types() {
    check(json!({"type": "string"}), json!("a"), &[]);
    check(
        json!({"type": "integer"}),
        json!("a"),
        &["f: Invalid value: \"string\": f in body must be of type integer: \"string\""],
    );
    check(
        json!({"type": "string"}),
        json!(1),
        &["f: Invalid value: \"integer\": f in body must be of type string: \"integer\""],
    );
    check(
        json!({"type": "integer"}),
        json!(1.5),
        &[
            "f: Invalid value: \"number\": f in body must be of type integer: \"number\"",
            "<nil>: Invalid value: \"\": Checked value must be of type integer (default format) in f",
        ],
    );
    check(json!({"type": "integer"}), json!(2.0), &[]);
    check(json!({"type": "number"}), json!(2), &[]);
    check(
        json!({"type": "object"}),
        json!([]),
        &["f: Invalid value: \"array\": f in body must be of type object: \"array\""],
    );
    check(
        json!({"x-kubernetes-int-or-string": true}),
        json!(true),
        &["f: Invalid value: \"boolean\": f in body must be of type integer,string: \"boolean\""],
    );
    check(
        json!({"type": "string"}),
        json!(null),
        &["f: Invalid value: \"null\": f in body must be of type string: \"null\""],
    );
    check(json!({"type": "string", "nullable": true}), json!(null), &[]);
    check(json!({"x-kubernetes-preserve-unknown-fields": true}), json!([{"a": null}]), &[]);
}

#[test]
fn formats() {
    check(
        json!({"type": "string", "format": "date-time"}),
        json!("x"),
        &["f: Invalid value: \"x\": f in body must be of type date-time: \"x\""],
    );
    check(
        json!({"type": "string", "format": "date"}),
        json!(5),
        &["f: Invalid value: \"int64\": f in body must be of type date: \"int64\""],
    );
    check(
        json!({"type": "integer", "format": "int32"}),
        json!(3_000_000_000_i64),
        &["<nil>: Invalid value: \"\": Checked value must be of type integer with format int32 in f"],
    );
    check(json!({"type": "string", "format": "nobody-knows"}), json!("x"), &[]);
}

#[test]
fn numbers() {
    check(
        json!({"type": "integer", "minimum": 1, "maximum": 9}),
        json!(10),
        &["f: Invalid value: 10: f in body should be less than or equal to 9"],
    );
    check(
        json!({"type": "integer", "minimum": 1, "exclusiveMinimum": true}),
        json!(1),
        &["f: Invalid value: 1: f in body should be greater than 1"],
    );
    check(
        json!({"type": "number", "minimum": 2000000}),
        json!(1.5),
        &["f: Invalid value: 1.5: f in body should be greater than or equal to 2e+06"],
    );
    check(
        json!({"type": "integer", "multipleOf": 3}),
        json!(10),
        &["f: Invalid value: 10: f in body should be a multiple of 3"],
    );
    check(json!({"type": "number", "multipleOf": 0.1}), json!(0.3), &[]);
    check(
        json!({"type": "integer", "multipleOf": -2}),
        json!(4),
        &["f: Invalid value: -2: factor MultipleOf declared for f must be positive: -2"],
    );
}

#[test]
fn texts_and_sizes() {
    check(json!({"type": "string", "maxLength": 2}), json!("éé"), &[]);
    check(
        json!({"type": "string", "maxLength": 2, "pattern": "^x$"}),
        json!("abc"),
        &["f: Too long: may not be more than 2 bytes"],
    );
    check(
        json!({"type": "string", "minLength": 2}),
        json!("a"),
        &["f: Invalid value: \"a\": f in body should be at least 2 chars long"],
    );
    check(
        json!({"type": "string", "pattern": "^a+$"}),
        json!("b"),
        &["f: Invalid value: \"b\": f in body should match '^a+$'"],
    );
    let list = json!({"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": "integer"}});
    check(list.clone(), json!([]), &["f: Invalid value: 0: f in body should have at least 1 items"]);
    check(list, json!([1, 2, 3]), &["f: Too many: 3: must have at most 2 items"]);
    let map = json!({"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": {"type": "string"}});
    check(map.clone(), json!({}), &["f: Invalid value: 0: f in body should have at least 1 properties"]);
    check(map, json!({"a": "", "b": ""}), &["f: Too many: 2: must have at most 1 item"]);
}

#[test]
fn nested_places() {
    check(
        json!({"type": "object", "required": ["n"], "properties": {"n": {"type": "string"}}}),
        json!({}),
        &["f.n: Required value"],
    );
    check(
        json!({"type": "array", "items": {"type": "object", "additionalProperties": {"type": "integer"}}}),
        json!([{}, {"k": "x"}]),
        &["f[1].k: Invalid value: \"string\": f[1].k in body must be of type integer: \"string\""],
    );
    check(
        json!({"type": "string", "enum": ["a", "b"]}),
        json!("c"),
        &["f: Unsupported value: \"c\": supported values: \"a\", \"b\""],
    );
    check(
        json!({"type": "integer", "enum": [1, 2]}),
        json!(3),
        &["f: Unsupported value: 3: supported values: \"1\", \"2\""],
    );
}

#[test]
fn alternatives_show_the_best_failure() {
    let any = json!({
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
        "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
    });
    check(any.clone(), json!({"b": "1"}), &[]);
    check(
        any,
        json!({}),
        &[
            "<nil>: Invalid value: \"\": \"f\" must validate at least one schema (anyOf)",
            "f.a: Required value",
        ],
    );
    let one = json!({
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
        "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
    });
    check(
        one,
        json!({"a": "", "b": ""}),
        &[
            "<nil>: Invalid value: \"\": \"f\" must validate one and only one schema (oneOf). Found 2 valid alternatives",
        ],
    );
    check(
        json!({"type": "integer", "allOf": [{"minimum": 2}, {"maximum": 9}]}),
        json!(1),
        &[
            "f: Invalid value: 1: f in body should be greater than or equal to 2",
            "<nil>: Invalid value: \"\": \"f\" must validate all the schemas (allOf)",
        ],
    );
    check(
        json!({"type": "string", "not": {"enum": ["x"]}}),
        json!("x"),
        &["<nil>: Invalid value: \"\": \"f\" must not validate the schema (not)"],
    );
}

#[test]
fn an_update_is_not_blamed_for_what_it_left_alone() {
    let schema = Structural::parse(&json!({"type": "object", "properties": {
        "kind": {"type": "string", "maxLength": 1},
        "old": {"type": "string", "maxLength": 1},
        "new": {"type": "string", "maxLength": 1},
        "list": {
            "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer", "maximum": 1}}},
        },
        "atomic": {"type": "array", "items": {"type": "integer", "maximum": 1}},
    }}));
    let old = json!({"kind": "Kind", "old": "xx", "new": "x", "list": [{"k": "a", "v": 5}, {"k": "b", "v": 1}], "atomic": [5]});
    let new = json!({
        "kind": "Kind", "old": "xx", "new": "yy",
        "list": [{"k": "b", "v": 6}, {"k": "a", "v": 5}], "atomic": [5, 1],
    });
    assert_eq!(
        texts(&update(&schema, &new, &old, &Path::NONE)),
        [
            "atomic[0]: Invalid value: 5: atomic[0] in body should be less than or equal to 1",
            "kind: Too long: may not be more than 1 bytes",
            "list[0].v: Invalid value: 6: list[0].v in body should be less than or equal to 1",
            "new: Too long: may not be more than 1 bytes",
        ]
    );
    let same = json!({"kind": "K", "old": "xx", "atomic": [5]});
    assert_eq!(texts(&update(&schema, &same, &old, &Path::NONE)), Vec::<String>::new());
}
