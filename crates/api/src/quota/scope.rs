//! Scopes: which objects of a kind a quota is about.

use apimachinery::{Str, Value};

/// One scope of a quota. A scope from the plain list is one that only has to exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    pub scope: Str,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: Str,
    pub values: Vec<Str>,
}

/// The scopes of a quota's spec, from both of its lists.
pub fn requirements(spec: &Value) -> Vec<Requirement> {
    let plain = spec.array_at(&["scopes"]).iter().filter_map(Value::as_str).map(|scope| Requirement {
        scope: scope.into(),
        operator: Str::const_new("Exists"),
        values: Vec::new(),
    });
    let selected = spec.array_at(&["scopeSelector", "matchExpressions"]).iter().map(Requirement::of);
    plain.chain(selected).collect()
}

impl Requirement {
    /// From a `v1.ScopedResourceSelectorRequirement`.
    pub fn of(requirement: &Value) -> Self {
        let values = requirement.array_at(&["values"]).iter().filter_map(Value::as_str);
        Self {
            scope: requirement.str_at(&["scopeName"]).into(),
            operator: requirement.str_at(&["operator"]).into(),
            values: values.map(Str::from).collect(),
        }
    }

    /// Whether what an object has, if it has something, is asked for.
    pub(super) fn holds(&self, value: Option<&str>) -> bool {
        let listed = |value: &str| self.values.iter().any(|own| own == value);
        match self.operator.as_str() {
            "In" => value.is_some_and(listed),
            "NotIn" => value.is_none_or(|value| !listed(value)),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    }
}

/// As Go prints it, in a list of scopes that no quota covers.
impl std::fmt::Display for Requirement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let values = self.values.iter().map(Str::as_str).collect::<Vec<_>>().join(" ");
        write!(f, "{{{} {} [{values}]}}", self.scope, self.operator)
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn both_lists_of_scopes_are_read() {
        let spec = json!({
            "scopes": ["BestEffort"],
            "scopeSelector": {"matchExpressions": [
                {"scopeName": "PriorityClass", "operator": "In", "values": ["high", "low"]}
            ]},
        });
        let texts: Vec<String> = requirements(&spec).iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["{BestEffort Exists []}", "{PriorityClass In [high low]}"]);
    }

    #[test]
    fn operators_compare_what_there_is() {
        for (operator, high, other, none) in [
            ("In", true, false, false),
            ("NotIn", false, true, true),
            ("Exists", true, true, false),
            ("DoesNotExist", false, false, true),
        ] {
            let requirement = Requirement {
                scope: "PriorityClass".into(),
                operator: operator.into(),
                values: vec!["high".into()],
            };
            let holds = [Some("high"), Some("other"), None].map(|value| requirement.holds(value));
            assert_eq!(holds, [high, other, none], "{operator}");
        }
    }
}
