//! Rules at work on objects.

use std::sync::Arc;

use apimachinery::json;

use super::*;

fn run(schema: &Value, value: &Value, old: Option<&Value>) -> Vec<String> {
    let schema: Arc<Structural> = Structural::parse(schema);
    let rules = RuleSet::compile(&schema, true).expect("there are rules");
    let mut errors = ErrorList::new();
    rules.validate(&mut errors, value, old, true, &mut budget(), &Path::NONE);
    errors.iter().map(ToString::to_string).collect()
}

/// A whole object's schema with a `spec`.
fn with_spec(spec: Value) -> Value {
    json!({"type": "object", "properties": {"spec": spec}})
}

#[test]
fn a_rule_that_does_not_hold_is_a_complaint_at_its_place() {
    let schema = with_spec(json!({
        "type": "object",
        "properties": {
            "size": {"type": "integer", "x-kubernetes-validations": [{"rule": "self != 3"}]},
            "mode": {"type": "string"},
        },
        "x-kubernetes-validations": [
            {"rule": "self.size < 9 || self.mode == 'b'", "message": "size 9 needs mode b"},
            {"rule": "self.size != 7", "messageExpression": "'not ' + string(self.size)", "fieldPath": ".size", "reason": "FieldValueForbidden"},
            {"rule": "self.size != 6", "reason": "FieldValueRequired"},
        ],
    }));
    let object = |size: i64| json!({"spec": {"size": size, "mode": "a"}});
    assert_eq!(run(&schema, &object(1), None), Vec::<String>::new());
    assert_eq!(run(&schema, &object(9), None), ["spec: Invalid value: size 9 needs mode b"]);
    assert_eq!(run(&schema, &object(7), None), ["spec.size: Forbidden: not 7"]);
    assert_eq!(run(&schema, &object(6), None), ["spec: Required value: failed rule: self.size != 6"]);
    assert_eq!(run(&schema, &object(3), None), ["spec.size: Invalid value: 3: failed rule: self != 3"]);
}

#[test]
fn rules_about_a_change_run_on_updates() {
    let schema = with_spec(json!({
        "type": "object",
        "properties": {
            "size": {"type": "integer"},
            "list": {
                "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                "items": {
                    "type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer"}},
                    "x-kubernetes-validations": [{"rule": "self.v == oldSelf.v", "message": "v is fixed"}],
                },
            },
            "once": {
                "type": "string",
                "x-kubernetes-validations": [
                    {"rule": "oldSelf.hasValue() || self == 'first'", "optionalOldSelf": true, "message": "begin with first"},
                ],
            },
        },
        "x-kubernetes-validations": [{"rule": "self.size >= oldSelf.size", "message": "may not shrink"}],
    }));
    let old = json!({"spec": {"size": 3, "list": [{"k": "a", "v": 1}, {"k": "b", "v": 2}]}});
    let new = json!({"spec": {"size": 2, "list": [{"k": "b", "v": 3}, {"k": "c", "v": 9}], "once": "other"}});
    assert_eq!(run(&schema, &new, None), ["spec.once: Invalid value: \"other\": begin with first"]);
    assert_eq!(
        run(&schema, &new, Some(&old)),
        [
            "spec: Invalid value: may not shrink",
            "spec.list[0]: Invalid value: v is fixed",
            "spec.once: Invalid value: \"other\": begin with first",
        ]
    );
}

#[test]
fn what_did_not_change_is_not_held_against_an_update() {
    let schema = with_spec(json!({
        "type": "object",
        "properties": {
            "bad": {"type": "string", "x-kubernetes-validations": [{"rule": "self != 'bad'"}]},
            "other": {"type": "integer"},
        },
    }));
    let old = json!({"spec": {"bad": "bad", "other": 1}});
    let new = json!({"spec": {"bad": "bad", "other": 2}});
    assert_eq!(run(&schema, &new, Some(&old)), Vec::<String>::new());
    assert_eq!(run(&schema, &new, None).len(), 1);
}

#[test]
fn every_object_has_a_name_for_rules() {
    let schema = json!({
        "type": "object", "x-kubernetes-validations": [{"rule": "self.metadata.name.startsWith('a')", "message": "name"}],
    });
    assert_eq!(run(&schema, &json!({"metadata": {"name": "ab"}}), None), Vec::<String>::new());
    assert_eq!(run(&schema, &json!({"metadata": {"name": "b"}}), None), ["<nil>: Invalid value: name"]);
}

#[test]
fn a_rule_that_fails_to_run_says_why() {
    let schema = with_spec(json!({
        "type": "object",
        "properties": {"a": {"type": "string"}, "free": {"x-kubernetes-int-or-string": true}},
        "x-kubernetes-validations": [{"rule": "self.a == 'x'"}, {"rule": "self.free > 'a'"}],
    }));
    assert_eq!(
        run(&schema, &json!({"spec": {"free": 5}}), None),
        [
            "spec: Invalid value: \"object\": no such key: a evaluating rule: self.a == 'x'",
            "spec: Invalid value: \"object\": 'no such overload': call arguments did not match a supported operator, function or macro signature for rule: self.free > 'a'",
        ]
    );
}

#[test]
fn rules_stop_when_the_budget_is_spent() {
    let schema = with_spec(json!({
        "type": "array", "items": {"type": "integer"},
        "x-kubernetes-validations": [{"rule": "self.all(x, self.all(y, x + y > 0))"}],
    }));
    let items: Vec<Value> = (0..2000).map(|_| Value::from(1)).collect();
    assert_eq!(
        run(&schema, &json!({"spec": items}), None),
        [
            "spec: Invalid value: \"array\": 'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call cost exceeds limit for rule: self.all(x, self.all(y, x + y > 0))"
        ]
    );
}
