//! Cluster roles that are the union of others, chosen by labels.

use std::collections::BTreeMap;

use serde_json::Value;

use super::rule::PolicyRule;

/// A cluster role as aggregation sees it.
#[derive(Clone, Debug)]
pub struct ClusterRole<'a> {
    pub name: &'a str,
    pub labels: &'a BTreeMap<String, String>,
    pub rules: &'a [PolicyRule],
}

/// The rules of the aggregated role `name`: all distinct rules of the other roles whose labels one of `selectors`
/// (`aggregationRule.clusterRoleSelectors`) matches, by the order of their names.
///
/// A selector that is not well-formed selects nothing.
pub fn aggregate<'a>(
    name: &str,
    selectors: &[Value],
    roles: impl IntoIterator<Item = ClusterRole<'a>>,
) -> Vec<PolicyRule> {
    let mut chosen: Vec<_> = roles
        .into_iter()
        .filter(|role| role.name != name && selectors.iter().any(|selector| selects(selector, role.labels)))
        .collect();
    chosen.sort_by_key(|role| role.name);
    let mut rules: Vec<PolicyRule> = Vec::new();
    for rule in chosen.iter().flat_map(|role| role.rules) {
        if !rules.contains(rule) {
            rules.push(rule.clone());
        }
    }
    rules
}

/// Whether a `LabelSelector` matches. The empty selector matches everything.
fn selects(selector: &Value, labels: &BTreeMap<String, String>) -> bool {
    let Value::Object(selector) = selector else { return false };
    let labels_match = match selector.get("matchLabels") {
        None | Some(Value::Null) => true,
        Some(Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| labels.get(key).map(String::as_str) == value.as_str())
        }
        Some(_) => false,
    };
    let expressions_match = match selector.get("matchExpressions") {
        None | Some(Value::Null) => true,
        Some(Value::Array(expressions)) => expressions.iter().all(|expression| holds(expression, labels)),
        Some(_) => false,
    };
    labels_match && expressions_match
}

fn holds(expression: &Value, labels: &BTreeMap<String, String>) -> bool {
    let (Some(key), Some(operator)) = (expression["key"].as_str(), expression["operator"].as_str()) else {
        return false;
    };
    let value = labels.get(key);
    let listed = || {
        let values = expression["values"].as_array();
        values.is_some_and(|values| values.iter().any(|one| one.as_str() == value.map(String::as_str)))
    };
    match operator {
        "In" => value.is_some() && listed(),
        "NotIn" => value.is_none() || !listed(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selectors_choose_roles_and_rules_stand_once() {
        let labels = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
        };
        let rule = |resource| PolicyRule::resources(&["get"], &[""], &[resource]);
        let (view, edit, none) = (labels(&[("to", "view")]), labels(&[("to", "edit")]), labels(&[]));
        let rules = [vec![rule("b")], vec![rule("a"), rule("b")], vec![rule("c")], vec![rule("own")]];
        let roles = || {
            [
                ClusterRole { name: "z", labels: &view, rules: &rules[0] },
                ClusterRole { name: "y", labels: &edit, rules: &rules[1] },
                ClusterRole { name: "x", labels: &none, rules: &rules[2] },
                ClusterRole { name: "self", labels: &view, rules: &rules[3] },
            ]
        };
        let cases = [
            (json!([{"matchLabels": {"to": "view"}}]), "b"),
            (json!([{"matchLabels": {"to": "view"}}, {"matchLabels": {"to": "edit"}}]), "a b"),
            (json!([{"matchLabels": {"to": "view", "more": "x"}}]), ""),
            (
                json!([{"matchExpressions": [{"key": "to", "operator": "In", "values": ["edit", "q"]}]}]),
                "a b",
            ),
            (json!([{"matchExpressions": [{"key": "to", "operator": "NotIn", "values": ["edit"]}]}]), "c b"),
            (json!([{"matchExpressions": [{"key": "to", "operator": "DoesNotExist"}]}]), "c"),
            (json!([{"matchExpressions": [{"key": "to", "operator": "Exists"}]}]), "a b"),
            (json!([{"matchExpressions": [{"key": "to", "operator": "Whatever"}]}]), ""),
            (json!([{}]), "c a b"),
            (json!([null, 5]), ""),
        ];
        for (selectors, expected) in cases {
            let rules = aggregate("self", selectors.as_array().unwrap(), roles());
            let resources: Vec<_> = rules.iter().map(|rule| rule.resources[0].as_str()).collect();
            assert_eq!(resources.join(" "), expected, "{selectors}");
        }
    }
}
