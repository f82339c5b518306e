//! Which rules an aggregated role has.

use apimachinery::{Object, Selector, Value};

/// The distinct rules of the other roles that one of `selectors` chooses, selector by selector and by the order of
/// their names. A selector that is not well-formed chooses nothing.
pub(super) fn aggregate<'a>(
    name: &str,
    selectors: &[Value],
    roles: impl Iterator<Item = &'a Object> + Clone,
) -> Vec<Value> {
    let mut rules: Vec<Value> = Vec::new();
    for selector in selectors.iter().filter_map(|selector| Selector::from_value(selector).ok()) {
        let mut chosen: Vec<_> =
            roles.clone().filter(|role| role.name() != name && selector.matches_object(role)).collect();
        chosen.sort_by_key(|role| role.name());
        for role in chosen {
            for rule in role.to_value().array_at(&["rules"]) {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use apimachinery::json;

    use super::*;
    use crate::testing::object;

    #[test]
    fn selectors_choose_roles_and_rules_stand_once() {
        let role = |name: &str, labels: Value, resources: &[&str]| {
            let rules: Vec<_> = resources.iter().map(|resource| json!({"resources": [*resource]})).collect();
            object(json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
                "metadata": {"name": name, "labels": labels}, "rules": rules,
            }))
        };
        let roles = [
            role("z", json!({"to": "view"}), &["b"]),
            role("y", json!({"to": "edit"}), &["a", "b"]),
            role("x", json!({}), &["c"]),
            role("self", json!({"to": "view"}), &["own"]),
        ];
        let cases = [
            (json!([{"matchLabels": {"to": "view"}}]), "b"),
            (json!([{"matchLabels": {"to": "view"}}, {"matchLabels": {"to": "edit"}}]), "b a"),
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
            (json!([null]), ""),
        ];
        for (selectors, expected) in cases {
            let chosen = aggregate("self", selectors.as_array().unwrap(), roles.iter().map(Arc::as_ref));
            let resources: Vec<_> =
                chosen.iter().map(|rule| rule["resources"][0].as_str().unwrap()).collect();
            assert_eq!(resources.join(" "), expected, "{selectors:?}");
        }
    }
}
