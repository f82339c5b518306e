use super::*;

fn parse(text: &str) -> Value {
    Value::parse(text.as_bytes()).expect("test input is JSON")
}

#[test]
fn writes_fields_sorted_and_numbers_as_they_were() {
    let cases = [
        (r#"{"b":1,"a":[true,null,"x"]}"#, r#"{"a":[true,null,"x"],"b":1}"#),
        (r#"{"n":18446744073709551615,"m":-5}"#, r#"{"m":-5,"n":18446744073709551615}"#),
        (r#"[1.5,2.0,1e3,1e300]"#, "[1.5,2,1000,1e+300]"),
        (r#""tab\tquote\"back\\ bell\u0007 ü""#, "\"tab\\tquote\\\"back\\\\ bell\\u0007 ü\""),
    ];
    for (input, expected) in cases {
        assert_eq!(parse(input).to_json_string(), expected);
    }
}

#[test]
fn the_last_duplicate_wins_and_every_path_is_named() {
    let parsed = Value::parse_strict(br#"{"a":1,"s":{"x":1,"x":2},"l":[{"y":1,"y":3}],"a":2}"#).unwrap();
    assert_eq!(parsed.value.to_json_string(), r#"{"a":2,"l":[{"y":3}],"s":{"x":2}}"#);
    assert_eq!(parsed.duplicates, ["s.x", "l[0].y", "a"]);
}

#[test]
fn broken_and_bottomless_input_is_an_error() {
    for input in ["", "{", "{\"a\":}", "[1,]", "{} {}", "nul", "\"\\x\""] {
        assert!(Value::parse(input.as_bytes()).is_err(), "{input}");
    }
    assert!(Value::parse("[".repeat(100_000).as_bytes()).is_err());
}

#[test]
fn paths_read_and_write() {
    let mut value = parse(r#"{"spec":{"nodeName":"n"}}"#);
    assert_eq!(value.str_at(&["spec", "nodeName"]), "n");
    assert_eq!(value["spec"]["missing"], Value::Null);
    value.set_at(&["status", "phase"], "Running");
    assert_eq!(value.remove_at(&["spec", "nodeName"]), Some("n".into()));
    assert_eq!(value.to_json_string(), r#"{"spec":{},"status":{"phase":"Running"}}"#);
}

#[test]
fn yaml_scalars_read_as_go_reads_them() {
    let value = Value::parse_yaml("a: yes\nb: 'yes'\nc: 1\nd: 1.5\ne:\n1: x\n").unwrap();
    assert_eq!(value.to_json_string(), r#"{"1":"x","a":true,"b":"yes","c":1,"d":1.5,"e":null}"#);
}

#[test]
fn typed_values_decode_from_the_tree() {
    #[derive(serde::Deserialize, serde::Serialize, Debug, PartialEq)]
    #[serde(rename_all = "camelCase", default)]
    #[derive(Default)]
    struct Spec {
        node_name: Option<String>,
        count: i32,
        tags: Vec<String>,
    }
    let value = parse(r#"{"nodeName":"n","count":3,"tags":["a"],"ignored":{"x":1}}"#);
    let spec: Spec = from_value(&value).unwrap();
    assert_eq!(spec, Spec { node_name: Some("n".into()), count: 3, tags: vec!["a".into()] });
    assert_eq!(from_value::<Spec>(&to_value(&spec).unwrap()).unwrap(), spec);
    assert!(from_value::<Spec>(&parse(r#"{"count":"three"}"#)).is_err());
}

proptest::proptest! {
    #[test]
    fn writing_and_reading_again_is_the_same(text in "\\PC*", number: i64, flag: bool) {
        let value = json!({ "t": text, "n": number, "l": [flag, { "k": number }] });
        assert_eq!(Value::parse(&value.to_json()).unwrap(), value);
    }
}

#[test]
fn duplicate_objects_merge_as_go_merges_them() {
    let parsed =
        Value::parse_strict(br#"{"data":{"a":"1","a":"2"},"data":{"b":"3"},"data":{"b":{"c":1}}}"#).unwrap();
    assert_eq!(parsed.value, json!({"data": {"a": "2", "b": {"c": 1}}}));
    assert_eq!(parsed.duplicates, ["data.a", "data"]);
    let yaml = "a: 1\nb: y\na: 2\n";
    assert_eq!(Value::parse_yaml(yaml).unwrap(), json!({"a": 2, "b": true}));
    let duplicate = "yaml: unmarshal errors:\n  line 3: key \"a\" already set in map";
    assert_eq!(Value::duplicate_in_yaml(yaml).as_deref(), Some(duplicate));
    assert_eq!(Value::duplicate_in_yaml("a: {b: 1}\nb: 1\n"), None);
}

#[test]
fn equal_values_have_one_hash() {
    use std::hash::BuildHasher;

    let hash =
        |value: &Value| std::hash::BuildHasherDefault::<std::hash::DefaultHasher>::default().hash_one(value);
    for (one, other) in [
        (json!(3), json!(3.0)),
        (json!(0), json!(-0.0)),
        (json!({"a": [1, "x"], "b": null}), json!({"b": null, "a": [1.0, "x"]})),
    ] {
        assert_eq!(one, other);
        assert_eq!(hash(&one), hash(&other), "{one:?} and {other:?}");
    }
    assert_ne!(hash(&json!("3")), hash(&json!(3)));
}
