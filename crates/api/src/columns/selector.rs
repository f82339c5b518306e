//! Label maps and label selectors as one line of text.

use apimachinery::Value;

/// `k=v,…` in key order; `<none>` when there are none.
pub(super) fn labels(map: Option<&Value>) -> String {
    let pairs: Vec<String> = map
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    if pairs.is_empty() { "<none>".into() } else { pairs.join(",") }
}

/// A `LabelSelector` as kubectl writes it on a command line. Empty and absent selectors are empty text; `None` when
/// an expression is invalid.
pub(super) fn expression(selector: Option<&Value>) -> Option<String> {
    let Some(selector) = selector else { return Some(String::new()) };
    let exact = selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten();
    let mut terms: Vec<(String, String)> = exact
        .map(|(key, value)| (key.to_string(), format!("{key}={}", value.as_str().unwrap_or_default())))
        .collect();
    for requirement in selector.array_at(&["matchExpressions"]) {
        let key = requirement.str_at(&["key"]);
        terms.push((key.to_owned(), term(key, requirement)?));
    }
    terms.sort_by(|a, b| a.0.cmp(&b.0));
    Some(terms.into_iter().map(|(_, term)| term).collect::<Vec<_>>().join(","))
}

/// [`expression`] for a cell: `<none>` for an empty selector, `<error>` for an invalid one.
pub(super) fn cell(selector: Option<&Value>) -> Value {
    match expression(selector) {
        Some(text) if text.is_empty() => "<none>".into(),
        Some(text) => text.into(),
        None => "<error>".into(),
    }
}

fn term(key: &str, requirement: &Value) -> Option<String> {
    let mut values: Vec<&str> = requirement.array_at(&["values"]).iter().filter_map(Value::as_str).collect();
    values.sort_unstable();
    match requirement.str_at(&["operator"]) {
        "In" if !values.is_empty() => Some(format!("{key} in ({})", values.join(","))),
        "NotIn" if !values.is_empty() => Some(format!("{key} notin ({})", values.join(","))),
        "Exists" if values.is_empty() => Some(key.to_owned()),
        "DoesNotExist" if values.is_empty() => Some(format!("!{key}")),
        _ => None,
    }
}
