//! Which operations on which resources are meant: `RuleWithOperations`.

use apimachinery::{Str, Value};
use registry::admission::Operation;

/// One rule, compiled.
#[derive(Debug)]
pub(crate) struct Rule {
    operations: Vec<Str>,
    groups: Vec<Str>,
    versions: Vec<Str>,
    /// Resource and subresource; a star stands for any.
    resources: Vec<(Str, Str)>,
    scope: Scope,
    /// Policies only; empty means any.
    names: Vec<Str>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Scope {
    All,
    Namespaced,
    Cluster,
}

/// What a request is about, as one of the served versions has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub operation: Operation,
    pub group: &'a str,
    pub version: &'a str,
    pub plural: &'a str,
    pub subresource: &'a str,
    /// Of a Namespace, its own name.
    pub namespace: &'a str,
    pub name: &'a str,
}

impl Rule {
    pub fn from_value(rule: &Value) -> Self {
        let texts =
            |key: &str| rule.array_at(&[key]).iter().filter_map(Value::as_str).map(Str::from).collect();
        let split = |text: &str| match text.split_once('/') {
            Some((resource, subresource)) => (resource.into(), subresource.into()),
            None => (text.into(), Str::default()),
        };
        Self {
            operations: texts("operations"),
            groups: texts("apiGroups"),
            versions: texts("apiVersions"),
            resources: rule.array_at(&["resources"]).iter().filter_map(Value::as_str).map(split).collect(),
            scope: match rule.str_at(&["scope"]) {
                "Namespaced" => Scope::Namespaced,
                "Cluster" => Scope::Cluster,
                _ => Scope::All,
            },
            names: texts("resourceNames"),
        }
    }

    /// Hot path.
    pub fn matches(&self, subject: &Subject<'_>) -> bool {
        let has = |list: &[Str], wanted: &str| list.iter().any(|own| own == "*" || own == wanted);
        has(&self.groups, subject.group)
            && self.resources.iter().any(|(resource, subresource)| {
                (resource == "*" || resource == subject.plural)
                    && (subresource == "*" || subresource == subject.subresource)
            })
            && has(&self.versions, subject.version)
            && has(&self.operations, subject.operation.name())
            && self.is_in_scope(subject)
            && (self.names.is_empty() || self.names.iter().any(|own| own == subject.name))
    }

    fn is_in_scope(&self, subject: &Subject<'_>) -> bool {
        // A Namespace has its own name as namespace, and is cluster-scoped all the same.
        let is_namespace = (subject.group, subject.version, subject.plural) == ("", "v1", "namespaces");
        let is_namespaced = !is_namespace && !subject.namespace.is_empty();
        match self.scope {
            Scope::All => true,
            Scope::Namespaced => is_namespaced,
            Scope::Cluster => !is_namespaced,
        }
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    const POD: Subject<'static> = Subject {
        operation: Operation::Create,
        group: "",
        version: "v1",
        plural: "pods",
        subresource: "",
        namespace: "t",
        name: "p",
    };
    const NAMESPACE: Subject<'static> = Subject { plural: "namespaces", namespace: "t", name: "t", ..POD };

    fn rule(change: Value) -> Rule {
        let mut rule = json!({
            "operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"],
        });
        for (key, value) in change.as_object().into_iter().flatten() {
            rule.set_at(&[key.as_str()], value.clone());
        }
        Rule::from_value(&rule)
    }

    #[test]
    fn a_rule_means_what_upstream_takes_it_to_mean() {
        let exec = Subject { subresource: "exec", operation: Operation::Connect, ..POD };
        let cases = [
            (json!({}), POD, true),
            (json!({"operations": ["UPDATE"]}), POD, false),
            (json!({"operations": ["*"]}), POD, true),
            (json!({"apiGroups": ["apps"]}), POD, false),
            (json!({"apiGroups": ["*"]}), POD, true),
            (json!({"apiVersions": ["v2"]}), POD, false),
            (json!({"resources": ["*"]}), POD, true),
            (json!({"resources": ["pods/*"]}), POD, true),
            (json!({"resources": ["*/*"]}), POD, true),
            (json!({"resources": ["pods/exec"]}), POD, false),
            (json!({"operations": ["*"]}), exec, false),
            (json!({"operations": ["*"], "resources": ["*"]}), exec, false),
            (json!({"operations": ["*"], "resources": ["pods/exec"]}), exec, true),
            (json!({"operations": ["CONNECT"], "resources": ["pods/*"]}), exec, true),
            (json!({"operations": ["CONNECT"], "resources": ["*/exec"]}), exec, true),
            (json!({"scope": "Namespaced"}), POD, true),
            (json!({"scope": "Cluster"}), POD, false),
            (json!({"scope": "Namespaced", "resources": ["namespaces"]}), NAMESPACE, false),
            (json!({"scope": "Cluster", "resources": ["namespaces"]}), NAMESPACE, true),
            (json!({"resourceNames": ["p"]}), POD, true),
            (json!({"resourceNames": ["q"]}), POD, false),
        ];
        for (change, subject, expected) in cases {
            assert_eq!(rule(change.clone()).matches(&subject), expected, "{change} on {subject:?}");
        }
    }
}
