//! The `rbac.authorization.k8s.io` group: roles and their bindings.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use crate::strategy::{Context, Strategy};
use crate::validation::fields::{Fields, as_go_struct, invalid_each, same};
use crate::validation::selector::{self, Match};
use crate::validation::text;

const GROUP: &str = "rbac.authorization.k8s.io";

/// The kinds of this group with rules of their own.
pub const RULES: super::Rules = &[
    ("ClusterRole", &Role::Cluster),
    ("ClusterRoleBinding", &Binding::Cluster),
    ("Role", &Role::Namespaced),
    ("RoleBinding", &Binding::Namespaced),
];

/// `Role` and `ClusterRole`.
pub enum Role {
    Namespaced,
    Cluster,
}

impl Strategy for Role {
    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let path = Path::root("rules");
        for (index, rule) in object.list("rules").iter().enumerate() {
            self.rule(&mut errors, rule, &path.index(index));
        }
        if let Some(aggregation) = object.maybe("aggregationRule") {
            aggregation_rule(&mut errors, aggregation);
        }
        errors
    }
}

impl Role {
    fn rule(&self, errors: &mut ErrorList, rule: &Value, path: &Path<'_>) {
        if rule.list("verbs").is_empty() {
            errors.push(Error::required(&path.child("verbs"), "verbs must contain at least one value"));
        }
        if !rule.list("nonResourceURLs").is_empty() {
            let path = path.child("nonResourceURLs");
            let mut complain =
                |detail: &str| errors.push(Error::invalid(&path, &rule["nonResourceURLs"], detail));
            if matches!(self, Self::Namespaced) {
                complain("namespaced rules cannot apply to non-resource URLs");
            }
            if ["apiGroups", "resources", "resourceNames"].iter().any(|key| !rule.list(key).is_empty()) {
                complain("rules cannot apply to both regular resources and non-resource URLs");
            }
            return;
        }
        if rule.list("apiGroups").is_empty() {
            errors.push(Error::required(
                &path.child("apiGroups"),
                "resource rules must supply at least one api group",
            ));
        }
        if rule.list("resources").is_empty() {
            errors.push(Error::required(
                &path.child("resources"),
                "resource rules must supply at least one resource",
            ));
        }
    }
}

fn aggregation_rule(errors: &mut ErrorList, aggregation: &Value) {
    let path = Path::root("aggregationRule");
    let path = path.child("clusterRoleSelectors");
    let selectors = aggregation.list("clusterRoleSelectors");
    if selectors.is_empty() {
        errors.push(Error::required(
            &path,
            "at least one clusterRoleSelector required if aggregationRule is non-nil",
        ));
    }
    for (index, own) in selectors.iter().enumerate() {
        let path = path.index(index);
        selector::label_selector(errors, Some(own), &path);
        if selector::matches(Some(own), None) == Match::Invalid {
            errors.push(Error::invalid(&path, Value::Null, "invalid label selector."));
        }
    }
}

/// `RoleBinding` and `ClusterRoleBinding`.
pub enum Binding {
    Namespaced,
    Cluster,
}

impl Strategy for Binding {
    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let reference = &object["roleRef"];
        let path = Path::root("roleRef");
        let (group, kind, name) =
            (reference.text("apiGroup"), reference.text("kind"), reference.text("name"));
        if group != GROUP {
            errors.push(Error::not_supported(&path.child("apiGroup"), group, &[GROUP]));
        }
        let kinds: &[&str] = match self {
            Self::Namespaced => &["Role", "ClusterRole"],
            Self::Cluster => &["ClusterRole"],
        };
        if !kinds.contains(&kind) {
            errors.push(Error::not_supported(&path.child("kind"), kind, kinds));
        }
        if name.is_empty() {
            errors.push(Error::required(&path.child("name"), ""));
        } else {
            invalid_each(&mut errors, &path.child("name"), name, text::path_segment(name, false));
        }
        let path = Path::root("subjects");
        for (index, subject) in object.list("subjects").iter().enumerate() {
            self.subject(&mut errors, subject, &path.index(index));
        }
        errors
    }

    /// What a binding grants never changes: whoever may edit subjects may not thereby choose another role.
    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(ctx, new);
        let (new, old) = (&new["roleRef"], &old["roleRef"]);
        if !same(new, old) {
            const LAYOUT: [(&str, &str, &str); 3] =
                [("apiGroup", "APIGroup", "\"\""), ("kind", "Kind", "\"\""), ("name", "Name", "\"\"")];
            errors.push(Error::invalid(
                &Path::root("roleRef"),
                as_go_struct(new, &LAYOUT),
                "cannot change roleRef",
            ));
        }
        errors
    }
}

impl Binding {
    fn subject(&self, errors: &mut ErrorList, subject: &Value, path: &Path<'_>) {
        let (kind, name, group) = (subject.text("kind"), subject.text("name"), subject.text("apiGroup"));
        if name.is_empty() {
            errors.push(Error::required(&path.child("name"), ""));
        }
        match kind {
            "ServiceAccount" => {
                if !name.is_empty() {
                    invalid_each(errors, &path.child("name"), name, text::dns1123_subdomain(name));
                }
                if !group.is_empty() {
                    errors.push(Error::not_supported(&path.child("apiGroup"), group, &[""]));
                }
                if matches!(self, Self::Cluster) && subject.text("namespace").is_empty() {
                    errors.push(Error::required(&path.child("namespace"), ""));
                }
            }
            "User" | "Group" => {
                if group != GROUP {
                    errors.push(Error::not_supported(&path.child("apiGroup"), group, &[GROUP]));
                }
            }
            _ => errors.push(Error::not_supported(
                &path.child("kind"),
                kind,
                &["ServiceAccount", "User", "Group"],
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    const CTX: Context<'static> =
        Context { now: jiff::Timestamp::UNIX_EPOCH, user: "u", subresource: None, allow_privileged: true };

    #[test]
    fn subjects_belong_to_their_groups() {
        let binding = |subject: Value| json!({"roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": "system:x"}, "subjects": [subject]});
        let complaints = |subject: Value| {
            Binding::Cluster
                .validate(&CTX, &binding(subject))
                .into_iter()
                .map(|error| error.path)
                .collect::<Vec<_>>()
        };
        assert_eq!(complaints(json!({"kind": "User", "name": "u", "apiGroup": GROUP})), Vec::<String>::new());
        assert_eq!(complaints(json!({"kind": "User", "name": "u"})), ["subjects[0].apiGroup"]);
        assert_eq!(complaints(json!({"kind": "ServiceAccount", "name": "a"})), ["subjects[0].namespace"]);
        assert_eq!(complaints(json!({"kind": "Robot"})), ["subjects[0].name", "subjects[0].kind"]);
    }
}
