//! Nobody hands out more than they have.
//!
//! Creating or changing a role, or binding one, gives power to others. It is let through if the user holds all of
//! that power in the same namespace, or is explicitly allowed to `escalate` the role or `bind` it.

use std::collections::BTreeMap;

use apimachinery::field::go_quote;

use super::authorizer::RbacAuthorizer;
use super::object::{Kind, RoleRef};
use super::rule::{ALL, PolicyRule, quoted_list, url_covers};
use crate::authorizer::{Attributes, Authorizer};
use crate::user::{self, UserInfo};

/// Why a write of a role or binding is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Answered with 403; the text follows `<resource> "<name>" is forbidden: `.
    #[error("{0}")]
    Forbidden(String),
    /// The role that is to be bound is not there; answered with 404.
    #[error("{resource}.{} {} not found", super::GROUP, go_quote(.name))]
    RoleNotFound { resource: &'static str, name: String },
}

/// A write of a Role or ClusterRole as it is about to be stored.
///
/// As upstream, writes that change nothing but what garbage collection needs (owner references, finalizers) are let
/// through by the caller without asking.
pub struct RoleWrite<'a> {
    pub user: &'a UserInfo,
    pub kind: Kind,
    pub namespace: &'a str,
    /// As in the request's path, so empty at create.
    pub name: &'a str,
    pub rules: &'a [PolicyRule],
    /// True if the new or the old object has an `aggregationRule`.
    pub aggregated: bool,
}

/// Refuses a role with rules that the user does not hold.
pub fn check_role(
    rbac: &RbacAuthorizer,
    authorizer: &dyn Authorizer,
    write: &RoleWrite<'_>,
) -> Result<(), Refused> {
    let RoleWrite { user, kind, namespace, name, rules, aggregated } = *write;
    if user.in_group(user::MASTERS) {
        return Ok(());
    }
    let escalate = Attributes {
        api_group: super::GROUP,
        api_version: "*",
        namespace,
        name,
        ..Attributes::resource(user, "escalate", kind.resource())
    };
    if authorizer.authorize(&escalate).is_allowed() {
        return Ok(());
    }
    confirm_no_escalation(rbac, user, namespace, rules).map_err(Refused::Forbidden)?;
    // An aggregation can gather any rule there is.
    if aggregated && confirm_no_escalation(rbac, user, namespace, &full_authority()).is_err() {
        let message = "must have cluster-admin privileges to use the aggregationRule";
        return Err(Refused::Forbidden(message.to_owned()));
    }
    Ok(())
}

/// Refuses a binding to a role with rules that the user does not hold. `namespace` is the binding's.
pub fn check_binding(
    rbac: &RbacAuthorizer,
    authorizer: &dyn Authorizer,
    user: &UserInfo,
    namespace: &str,
    role: &RoleRef,
) -> Result<(), Refused> {
    if user.in_group(user::MASTERS) || may_bind(authorizer, user, namespace, role) {
        return Ok(());
    }
    let resource = if role.kind == "ClusterRole" { "clusterroles" } else { "roles" };
    let rules = rbac
        .rules_of_role(role, namespace)
        .ok_or_else(|| Refused::RoleNotFound { resource, name: role.name.clone() })?;
    confirm_no_escalation(rbac, user, namespace, &rules).map_err(Refused::Forbidden)
}

fn may_bind(authorizer: &dyn Authorizer, user: &UserInfo, namespace: &str, role: &RoleRef) -> bool {
    let resource = match role.kind.as_str() {
        "ClusterRole" => "clusterroles",
        "Role" => "roles",
        _ => return false,
    };
    let attributes = Attributes {
        api_group: &role.api_group,
        api_version: "*",
        namespace,
        name: &role.name,
        ..Attributes::resource(user, "bind", resource)
    };
    authorizer.authorize(&attributes).is_allowed()
}

fn full_authority() -> [PolicyRule; 2] {
    [PolicyRule::resources(&[ALL], &[ALL], &[ALL]), PolicyRule::paths(&[ALL], &[ALL])]
}

/// Checks that `user` holds all of `rules` in `namespace`. The error is upstream's message.
pub fn confirm_no_escalation(
    rbac: &RbacAuthorizer,
    user: &UserInfo,
    namespace: &str,
    rules: &[PolicyRule],
) -> Result<(), String> {
    let (held, errors) = rbac.rules_of(user, namespace);
    let Err(missing) = covers(&held, rules) else { return Ok(()) };
    let mut missing: Vec<_> = compact(missing).iter().map(PolicyRule::compact).collect();
    missing.sort();
    missing.dedup();
    let mut message = format!(
        "user {} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        go_quote(user.name()),
        quoted_list(user.groups()),
        missing.join("\n"),
    );
    if !errors.is_empty() {
        message.push_str(&format!("; resolution errors: [{}]", errors.join(", ")));
    }
    Err(message)
}

/// Checks that `owner` has every right of `servant`. The error is what it lacks, one right a rule.
pub fn covers(owner: &[PolicyRule], servant: &[PolicyRule]) -> Result<(), Vec<PolicyRule>> {
    let lacks = |right: &PolicyRule| !owner.iter().any(|rule| rule_covers(rule, right));
    let missing: Vec<_> = servant.iter().flat_map(break_down).filter(lacks).collect();
    if missing.is_empty() { Ok(()) } else { Err(missing) }
}

/// One rule for each combination of verb, group, resource and name, and of verb and path.
fn break_down(rule: &PolicyRule) -> Vec<PolicyRule> {
    let mut rights = Vec::new();
    for group in &rule.api_groups {
        for resource in &rule.resources {
            for verb in &rule.verbs {
                let right = PolicyRule::resources(&[verb], &[group], &[resource]);
                if rule.resource_names.is_empty() {
                    rights.push(right);
                    continue;
                }
                let named =
                    |name: &String| PolicyRule { resource_names: vec![name.clone()], ..right.clone() };
                rights.extend(rule.resource_names.iter().map(named));
            }
        }
    }
    for url in &rule.non_resource_urls {
        rights.extend(rule.verbs.iter().map(|verb| PolicyRule::paths(&[verb], &[url])));
    }
    rights
}

fn rule_covers(owner: &PolicyRule, right: &PolicyRule) -> bool {
    let has_all = |owner: &[String], right: &[String]| {
        right.iter().all(|value| owner.iter().any(|own| own == ALL || own == value))
    };
    let names_match = match right.resource_names.as_slice() {
        [] => owner.resource_names.is_empty(),
        names => {
            owner.resource_names.is_empty() || names.iter().all(|name| owner.resource_names.contains(name))
        }
    };
    has_all(&owner.verbs, &right.verbs)
        && has_all(&owner.api_groups, &right.api_groups)
        && right.resources.iter().all(|resource| covers_resource(&owner.resources, resource))
        && names_match
        && right
            .non_resource_urls
            .iter()
            .all(|url| owner.non_resource_urls.iter().any(|own| url_covers(own, url)))
}

fn covers_resource(owner: &[String], resource: &str) -> bool {
    owner.iter().any(|own| {
        let of_any_resource = || {
            let (_, subresource) = resource.split_once('/')?;
            Some(own.strip_prefix("*/")? == subresource)
        };
        own == ALL || own == resource || of_any_resource() == Some(true)
    })
}

/// Puts rights together that differ by verb alone.
fn compact(rights: Vec<PolicyRule>) -> Vec<PolicyRule> {
    let mut compacted = Vec::new();
    let mut by_resource: BTreeMap<(String, String), PolicyRule> = BTreeMap::new();
    for right in rights {
        match (right.api_groups.as_slice(), right.resources.as_slice()) {
            ([group], [resource]) if right.resource_names.is_empty() => {
                let key = (group.clone(), resource.clone());
                match by_resource.get_mut(&key) {
                    Some(rule) => rule.verbs.extend(right.verbs),
                    None => _ = by_resource.insert(key, right),
                }
            }
            _ => compacted.push(right),
        }
    }
    compacted.extend(by_resource.into_values());
    compacted
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::rbac::{Binding, Subject};

    fn named(rule: PolicyRule, names: &[&str]) -> PolicyRule {
        PolicyRule { resource_names: names.iter().map(|&name| name.to_owned()).collect(), ..rule }
    }

    #[test]
    fn covering_follows_wildcards_of_the_owner_only() {
        let pods = |verbs: &[&str]| PolicyRule::resources(verbs, &[""], &["pods"]);
        let resource = |resource: &str| PolicyRule::resources(&["get"], &[""], &[resource]);
        let cases = [
            ("the same", vec![pods(&["get"])], pods(&["get"]), true),
            ("fewer verbs", vec![pods(&["get", "list"])], pods(&["list"]), true),
            ("from two rules", vec![pods(&["get"]), pods(&["list"])], pods(&["get", "list"]), true),
            ("one verb more", vec![pods(&["get"])], pods(&["get", "list"]), false),
            ("any verb", vec![pods(&["*"])], pods(&["get", "x"]), true),
            ("all verbs", vec![pods(&["get"])], pods(&["*"]), false),
            ("any resource", vec![resource("*")], resource("pods/log"), true),
            ("any subresource", vec![resource("*/log")], resource("pods/log"), true),
            ("any subresource is no resource", vec![resource("*/log")], resource("log"), false),
            ("another subresource", vec![resource("*/log")], resource("pods/exec"), false),
            ("a subresource pattern", vec![resource("*/log")], resource("*/log"), true),
            ("one name of all", vec![pods(&["get"])], named(pods(&["get"]), &["a"]), true),
            ("all names of one", vec![named(pods(&["get"]), &["a"])], pods(&["get"]), false),
            ("two names", vec![named(pods(&["get"]), &["a", "b"])], named(pods(&["get"]), &["b", "a"]), true),
            (
                "a third name",
                vec![named(pods(&["get"]), &["a", "b"])],
                named(pods(&["get"]), &["a", "c"]),
                false,
            ),
            (
                "a path",
                vec![PolicyRule::paths(&["get"], &["/a/*"])],
                PolicyRule::paths(&["get"], &["/a/b"]),
                true,
            ),
            (
                "narrower",
                vec![PolicyRule::paths(&["get"], &["/a*"])],
                PolicyRule::paths(&["get"], &["/a/*"]),
                true,
            ),
            (
                "wider",
                vec![PolicyRule::paths(&["get"], &["/a/*"])],
                PolicyRule::paths(&["get"], &["/*"]),
                false,
            ),
            ("nothing", vec![], PolicyRule::default(), true),
        ];
        for (case, owner, servant, expected) in cases {
            assert_eq!(covers(&owner, &[servant]).is_ok(), expected, "{case}");
        }
    }

    fn rbac() -> RbacAuthorizer {
        let rbac = RbacAuthorizer::new();
        rbac.upsert_role(
            "",
            "editor",
            vec![
                PolicyRule::resources(
                    &["get", "create"],
                    &["rbac.authorization.k8s.io"],
                    &["roles", "rolebindings"],
                ),
                PolicyRule::resources(&["get"], &[""], &["pods"]),
            ],
        );
        rbac.upsert_role(
            "",
            "binder",
            vec![named(
                PolicyRule::resources(&["bind"], &["rbac.authorization.k8s.io"], &["clusterroles"]),
                &["root"],
            )],
        );
        rbac.upsert_role(
            "",
            "escalator",
            vec![PolicyRule::resources(&["escalate"], &["rbac.authorization.k8s.io"], &["roles"])],
        );
        rbac.upsert_role("", "root", full_authority().to_vec());
        for (role, user) in [("editor", "ed"), ("binder", "bo"), ("escalator", "eve"), ("root", "ruth")] {
            let role_ref = RoleRef { kind: "ClusterRole".into(), name: role.into(), ..RoleRef::default() };
            let subject = Subject { kind: "User".into(), name: user.into(), ..Subject::default() };
            rbac.upsert_binding("", role, Binding { role_ref, subjects: vec![subject] });
        }
        rbac
    }

    #[test]
    fn a_role_with_more_than_its_author_has_is_refused() {
        let rbac = rbac();
        let rules = [
            PolicyRule::resources(&["get", "list"], &["", "apps"], &["pods"]),
            named(PolicyRule::resources(&["get"], &[""], &["secrets"]), &["s"]),
            PolicyRule::paths(&["get"], &["/metrics"]),
        ];
        let check = |name: &str, groups: &[&str], aggregated: bool, rules: &[PolicyRule]| {
            let user = UserInfo::new(name).with_groups(groups.iter().copied());
            check_role(
                &rbac,
                &rbac,
                &RoleWrite { user: &user, kind: Kind::Role, namespace: "a", name: "new", rules, aggregated },
            )
        };
        let refused = check("ed", &["g", "h"], false, &rules).unwrap_err();
        expect![[r#"
            user "ed" (groups=["g" "h"]) is attempting to grant RBAC permissions not currently held:
            {APIGroups:[""], Resources:["pods"], Verbs:["list"]}
            {APIGroups:[""], Resources:["secrets"], ResourceNames:["s"], Verbs:["get"]}
            {APIGroups:["apps"], Resources:["pods"], Verbs:["get" "list"]}
            {NonResourceURLs:["/metrics"], Verbs:["get"]}"#]]
        .assert_eq(&refused.to_string());
        assert_eq!(check("ed", &[], false, &rules[..0]), Ok(()));
        assert_eq!(check("ed", &[], false, &[PolicyRule::resources(&["get"], &[""], &["pods"])]), Ok(()));
        assert_eq!(check("eve", &[], false, &rules), Ok(()));
        assert_eq!(check("ruth", &[], true, &rules), Ok(()));
        assert_eq!(check("ed", &[user::MASTERS], true, &rules), Ok(()));
        expect!["must have cluster-admin privileges to use the aggregationRule"]
            .assert_eq(&check("ed", &[], true, &[]).unwrap_err().to_string());
    }

    #[test]
    fn a_binding_needs_the_rights_of_its_role_or_the_right_to_bind_it() {
        let rbac = rbac();
        let check = |user: &str, kind: &str, role: &str| {
            let role = RoleRef {
                api_group: "rbac.authorization.k8s.io".into(),
                kind: kind.into(),
                name: role.into(),
            };
            check_binding(&rbac, &rbac, &UserInfo::new(user), "a", &role)
        };
        assert_eq!(check("bo", "ClusterRole", "root"), Ok(()));
        assert_eq!(check("ruth", "ClusterRole", "root"), Ok(()));
        assert_eq!(check("ed", "ClusterRole", "editor"), Ok(()));
        assert!(matches!(check("bo", "ClusterRole", "editor"), Err(Refused::Forbidden(_))));
        assert!(matches!(check("ed", "ClusterRole", "root"), Err(Refused::Forbidden(_))));
        expect![[r#"roles.rbac.authorization.k8s.io "none" not found"#]]
            .assert_eq(&check("ed", "Role", "none").unwrap_err().to_string());
    }
}
