//! Labels and label selectors: form and matching.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::{Map, Selector, Value};

use super::fields::{Fields, Verbatim, invalid_each, item_text};
use super::text;

/// A label's key.
pub fn label_name(errors: &mut ErrorList, name: &str, path: &Path<'_>) {
    invalid_each(errors, path, name, text::qualified_name(name));
}

/// A map of labels; both bad keys and bad values are reported at the map itself.
pub fn labels(errors: &mut ErrorList, labels: Option<&Map>, path: &Path<'_>) {
    for (key, value) in labels.into_iter().flatten() {
        label_name(errors, key, path);
        let value = item_text(value);
        invalid_each(errors, path, value, text::label_value(value));
    }
}

/// A `metav1.LabelSelector`.
pub fn label_selector(errors: &mut ErrorList, selector: Option<&Value>, path: &Path<'_>) {
    let Some(selector) = selector else { return };
    labels(errors, selector.map("matchLabels"), &path.child("matchLabels"));
    let expressions = path.child("matchExpressions");
    for (index, requirement) in selector.list("matchExpressions").iter().enumerate() {
        self::requirement(errors, requirement, &expressions.index(index));
    }
}

fn requirement(errors: &mut ErrorList, requirement: &Value, path: &Path<'_>) {
    let values = requirement.list("values");
    match requirement.text("operator") {
        "In" | "NotIn" if values.is_empty() => errors.push(Error::required(
            &path.child("values"),
            "must be specified when `operator` is 'In' or 'NotIn'",
        )),
        "Exists" | "DoesNotExist" if !values.is_empty() => errors.push(Error::forbidden(
            &path.child("values"),
            "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        )),
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => {
            errors.push(Error::invalid(&path.child("operator"), other, "not a valid selector operator"));
        }
    }
    label_name(errors, requirement.text("key"), &path.child("key"));
    label_values(errors, values, &path.child("values"));
}

/// Each item must be a possible value of a label.
pub fn label_values(errors: &mut ErrorList, values: &[Value], path: &Path<'_>) {
    for (index, value) in values.iter().enumerate() {
        let value = item_text(value);
        invalid_each(errors, &path.index(index), value, text::label_value(value));
    }
}

/// Whether a selector selects nothing in particular: no labels and no expressions.
pub fn is_empty(selector: &Value) -> bool {
    selector.map("matchLabels").is_none_or(Map::is_empty) && selector.list("matchExpressions").is_empty()
}

/// What a selector says about a set of labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    Yes,
    No,
    /// The selector has no meaning (an unknown operator, a missing value).
    Invalid,
}

/// Matches a `metav1.LabelSelector`: a missing one selects nothing, an empty one everything.
pub fn matches(selector: Option<&Value>, labels: Option<&Map>) -> Match {
    let Some(selector) = selector else { return Match::No };
    match Selector::from_value(selector) {
        Err(_) => Match::Invalid,
        Ok(selector) if selector.matches(|key| labels.and_then(|labels| labels.maybe_text(key))) => {
            Match::Yes
        }
        Ok(_) => Match::No,
    }
}

/// A selector as upstream shows it in a message: labels before expressions.
pub fn shown(selector: &Value) -> Verbatim {
    let mut text = String::from("{");
    for key in ["matchLabels", "matchExpressions"] {
        let field = match selector.maybe(key) {
            Some(Value::Object(map)) if map.is_empty() => None,
            Some(Value::Array(items)) if items.is_empty() => None,
            field => field,
        };
        if let Some(field) = field {
            if text.len() > 1 {
                text.push(',');
            }
            text.push_str(&format!("\"{key}\":{}", field.to_json_string()));
        }
    }
    text.push('}');
    Verbatim(text)
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn selectors_match_as_labels_and_expressions_say() {
        let labels = json!({"app": "x", "tier": "web"});
        let cases = [
            (json!({}), Match::Yes),
            (json!({"matchLabels": {"app": "x"}}), Match::Yes),
            (json!({"matchLabels": {"app": "y"}}), Match::No),
            (
                json!({"matchExpressions": [{"key": "tier", "operator": "In", "values": ["a", "web"]}]}),
                Match::Yes,
            ),
            (
                json!({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["web"]}]}),
                Match::No,
            ),
            (
                json!({"matchExpressions": [{"key": "none", "operator": "NotIn", "values": ["web"]}]}),
                Match::Yes,
            ),
            (json!({"matchExpressions": [{"key": "none", "operator": "Exists"}]}), Match::No),
            (json!({"matchExpressions": [{"key": "none", "operator": "DoesNotExist"}]}), Match::Yes),
            (json!({"matchExpressions": [{"key": "none", "operator": "Near"}]}), Match::Invalid),
        ];
        for (selector, expected) in cases {
            assert_eq!(matches(Some(&selector), labels.as_object()), expected, "{selector}");
        }
        assert_eq!(matches(None, labels.as_object()), Match::No);
    }
}
