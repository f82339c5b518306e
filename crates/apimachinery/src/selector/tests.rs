use std::collections::BTreeMap;

use super::*;
use crate::json;

fn parse(text: &str) -> Selector {
    Selector::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn matches(selector: &Selector, labels: &[(&str, &str)]) -> bool {
    let labels: BTreeMap<&str, &str> = labels.iter().copied().collect();
    selector.matches(|key| labels.get(key).copied())
}

#[test]
fn selectors_print_in_key_order_and_one_form() {
    for (text, printed) in [
        ("", ""),
        ("b=2,a=1", "a=1,b=2"),
        ("a==1", "a==1"),
        ("x in (c, a ,b)", "x in (a,b,c)"),
        ("x notin (a)", "x notin (a)"),
        (" !x , y ", "!x,y"),
        ("x>1,y<2,z!=3", "x>1,y<2,z!=3"),
        ("in in (in,notin)", "in in (in,notin)"),
        ("x in ()", "x in ()"),
        ("x in (a,,b,)", "x in (,a,b)"),
        ("x=,y=1", "x=,y=1"),
        ("example.com/name=v", "example.com/name=v"),
    ] {
        assert_eq!(parse(text).to_string(), printed, "{text}");
    }
}

#[test]
fn each_operator_matches_as_upstream_documents() {
    let labels = [("a", "1"), ("b", "x")];
    for (text, expected) in [
        ("", true),
        ("a", true),
        ("c", false),
        ("!a", false),
        ("!c", true),
        ("a=1", true),
        ("a=2", false),
        ("a!=2", true),
        ("a!=1", false),
        ("c!=1", true),
        ("b in (x,y)", true),
        ("b in (y)", false),
        ("c in (y)", false),
        ("b notin (x)", false),
        ("c notin (x)", true),
        ("a>0", true),
        ("a>1", false),
        ("a<2", true),
        ("b>0", false),
        ("c>0", false),
        ("a=1,b=x", true),
        ("a=1,b=y", false),
    ] {
        assert_eq!(matches(&parse(text), &labels), expected, "{text}");
    }
    assert!(!matches(&Selector::nothing(), &labels));
}

#[test]
fn bad_selectors_are_refused_in_upstreams_words() {
    for (text, message) in [
        ("a,", "found '', expected: identifier after ','"),
        (",a", "found ',', expected: !, identifier, or 'end of string'"),
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a in x", "unable to parse requirement: found 'x' expected: '('"),
        ("a in (x", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("a in (x y)", "unable to parse requirement: found 'y', expected: ',' or ')'"),
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        ("!", "unable to parse requirement: found '', expected: identifier"),
        (
            "a>b",
            "unable to parse requirement: values[0]: Invalid value: \"b\": for 'Gt', 'Lt' operators, the value must be an integer",
        ),
        ("/a=b", "unable to parse requirement: <nil>: Invalid value: \"/a\": prefix part must be non-empty"),
    ] {
        assert_eq!(Selector::parse(text).unwrap_err().to_string(), message, "{text}");
    }
}

#[test]
fn the_api_type_converts() {
    let selector = Selector::from_value(&json!({
        "matchLabels": {"b": "2"},
        "matchExpressions": [
            {"key": "a", "operator": "In", "values": ["y", "x"]}, {"key": "c", "operator": "DoesNotExist"},
        ],
    }))
    .unwrap();
    assert_eq!(selector.to_string(), "a in (x,y),b=2,!c");
    assert!(Selector::from_value(&json!({})).unwrap().is_everything());
    assert!(Selector::from_value(&Value::Null).unwrap().is_nothing());
    let bad = json!({"matchExpressions": [{"key": "a", "operator": "Near"}]});
    assert_eq!(
        Selector::from_value(&bad).unwrap_err().to_string(),
        "\"Near\" is not a valid label selector operator"
    );
    let bad = json!({"matchExpressions": [{"key": "a", "operator": "In"}]});
    assert_eq!(
        Selector::from_value(&bad).unwrap_err().to_string(),
        "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty"
    );
}

#[test]
fn an_exact_requirement_is_found_for_indexes() {
    let selector = parse("a=1,b in (x),c in (x,y)");
    assert_eq!(selector.exact("a"), Some("1"));
    assert_eq!(selector.exact("b"), Some("x"));
    assert_eq!(selector.exact("c"), None);
}

#[test]
fn field_selectors_parse_escape_and_match() {
    let selector = FieldSelector::parse(r"spec.nodeName!=n,metadata.name==a\,b\=c\\").unwrap();
    assert_eq!(selector.to_string(), r"metadata.name=a\,b\=c\\,spec.nodeName!=n");
    assert_eq!(selector.exact("metadata.name"), Some(r"a,b=c\"));
    assert_eq!(selector.exact("spec.nodeName"), None);
    assert_eq!(selector.first_unsupported(&["metadata.name"]), Some("spec.nodeName"));
    let fields = |node: &'static str| {
        move |name: &str| if name == "spec.nodeName" { node.into() } else { r"a,b=c\".into() }
    };
    assert!(selector.matches(fields("other")));
    assert!(!selector.matches(fields("n")));
    assert!(FieldSelector::parse("").unwrap().is_everything());
    for (text, message) in [
        ("nope", "invalid selector: 'nope'; can't understand 'nope'"),
        (r"a=\x", r"invalid field selector: invalid escape sequence: \x"),
        ("a=b=c", "invalid field selector: unescaped character in value: 61"),
    ] {
        assert_eq!(FieldSelector::parse(text).unwrap_err().to_string(), message);
    }
}

proptest::proptest! {
    #[test]
    fn any_text_parses_or_fails_and_what_parses_prints_back(text in "[a-c=!,()<> \\\\in0-9]{0,24}") {
        if let Ok(selector) = Selector::parse(&text) {
            let printed = selector.to_string();
            proptest::prop_assert_eq!(Selector::parse(&printed).map(|again| again.to_string()), Ok(printed));
        }
        if let Ok(selector) = FieldSelector::parse(&text) {
            let printed = selector.to_string();
            proptest::prop_assert_eq!(FieldSelector::parse(&printed).map(|again| again.to_string()), Ok(printed));
        }
    }
}
