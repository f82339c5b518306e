use super::*;
use crate::rbac::{Binding, PolicyRule, RbacAuthorizer, RoleRef, Subject};

fn headers(headers: &[(&str, &str)]) -> Result<Option<Impersonation>, String> {
    Impersonation::from_headers(headers.iter().copied()).map_err(|status| status.message)
}

#[test]
fn headers_say_whom() {
    let wanted = headers(&[
        ("accept", "*/*"),
        ("impersonate-user", "jane"),
        ("impersonate-user", "second"),
        ("impersonate-group", "dev"),
        ("impersonate-group", "ops"),
        ("impersonate-uid", "7"),
        ("impersonate-extra-acme.com%2Fproject", "a"),
        ("impersonate-extra-acme.com%2fproject", "b"),
        ("impersonate-extra-odd%zz", "c"),
    ])
    .unwrap()
    .unwrap();
    let extra = [
        ("acme.com/project".to_owned(), vec!["a".to_owned(), "b".to_owned()]),
        ("odd%zz".to_owned(), vec!["c".to_owned()]),
    ];
    let groups = vec!["dev".to_owned(), "ops".to_owned()];
    assert_eq!(wanted, Impersonation { user: "jane".into(), uid: "7".into(), groups, extra: extra.into() });
    assert_eq!(headers(&[("accept", "*/*")]), Ok(None));
    assert_eq!(headers(&[("impersonate-user", ""), ("impersonate-uid", "")]), Ok(None));
}

#[test]
fn groups_without_a_user_are_a_bad_request() {
    let message = headers(&[("impersonate-group", "a"), ("impersonate-extra-k", "v")]).unwrap_err();
    assert_eq!(
        message,
        r#"requested &user.DefaultInfo{Name:"", UID:"", Groups:[]string{"a"}, Extra:map[string][]string{"k":[]string{"v"}}} without impersonating a user name"#
    );
    let message = headers(&[("impersonate-uid", "7")]).unwrap_err();
    assert_eq!(
        message,
        r#"requested &user.DefaultInfo{Name:"", UID:"7", Groups:[]string(nil), Extra:map[string][]string(nil)} without impersonating a user name"#
    );
}

/// An authorizer in which `ed` has `rules`.
fn rbac(rules: Vec<PolicyRule>) -> RbacAuthorizer {
    let rbac = RbacAuthorizer::new();
    rbac.upsert_role("", "role", rules);
    let role_ref = RoleRef { kind: "ClusterRole".into(), name: "role".into(), ..RoleRef::default() };
    let subject = |name: &str| Subject { kind: "User".into(), name: name.into(), ..Subject::default() };
    let subjects = vec![subject("ed"), subject("system:serviceaccount:ns:agent")];
    rbac.upsert_binding("", "binding", Binding { role_ref, subjects });
    rbac
}

fn named(rule: PolicyRule, names: &[&str]) -> PolicyRule {
    PolicyRule { resource_names: names.iter().map(|&name| name.to_owned()).collect(), ..rule }
}

fn impersonate(
    requester: &UserInfo,
    rules: Vec<PolicyRule>,
    wanted: &[(&str, &str)],
) -> Result<UserInfo, String> {
    let wanted = headers(wanted).unwrap().unwrap();
    let request = Attributes { namespace: "a", name: "x", ..Attributes::resource(requester, "get", "pods") };
    wanted.authorize(&rbac(rules), &request).map_err(|error| error.message)
}

const LEGACY: &[&str] = &["impersonate"];
const CORE: &[&str] = &[""];
const AUTHENTICATION: &[&str] = &["authentication.k8s.io"];

#[test]
fn the_verb_impersonate_is_asked_for_every_part() {
    let ed = UserInfo::new("ed");
    let users = || named(PolicyRule::resources(LEGACY, CORE, &["users"]), &["jane", "system:anonymous"]);
    let groups = || named(PolicyRule::resources(LEGACY, CORE, &["groups"]), &["dev", user::UNAUTHENTICATED]);
    let extra = || named(PolicyRule::resources(LEGACY, AUTHENTICATION, &["userextras/scopes"]), &["view"]);
    let uids = || named(PolicyRule::resources(LEGACY, AUTHENTICATION, &["uids"]), &["7"]);
    let accounts = || PolicyRule::resources(LEGACY, CORE, &["serviceaccounts"]);
    let jane = ("impersonate-user", "jane");
    let dev = ("impersonate-group", "dev");
    let full = [jane, dev, ("impersonate-uid", "7"), ("impersonate-extra-scopes", "view")];

    let user = impersonate(&ed, vec![users(), groups(), extra(), uids()], &full).unwrap();
    let expected = UserInfo::new("jane").with_uid("7").with_groups(["dev", user::AUTHENTICATED]);
    assert_eq!(user, expected.with_extra("scopes", "view"));

    // Each of them is needed.
    for missing in 0..4 {
        let mut rules = vec![users(), groups(), extra(), uids()];
        rules.remove(missing);
        assert!(impersonate(&ed, rules, &full).is_err(), "rule {missing}");
    }

    let account = impersonate(&ed, vec![accounts()], &[("impersonate-user", "system:serviceaccount:ns:sa")]);
    assert_eq!(account.unwrap(), UserInfo::service_account("ns", "sa", "").authenticated());

    let unauthenticated = ("impersonate-group", user::UNAUTHENTICATED);
    let user = impersonate(&ed, vec![users(), groups()], &[jane, unauthenticated]).unwrap();
    assert_eq!(user.groups(), [user::UNAUTHENTICATED]);
    let user = impersonate(&ed, vec![users()], &[("impersonate-user", user::ANONYMOUS)]).unwrap();
    assert_eq!(user, UserInfo::anonymous());
}

#[test]
fn who_may_not_is_told_what_was_missing_first() {
    let ed = UserInfo::new("ed");
    assert_eq!(
        impersonate(&ed, vec![], &[("impersonate-user", "jane")]).unwrap_err(),
        r#"pods "x" is forbidden: User "ed" cannot impersonate-on:user-info:get resource "pods" in API group "" in the namespace "a""#
    );
    assert_eq!(
        impersonate(
            &ed,
            vec![],
            &[("impersonate-user", "system:serviceaccount:n:s"), ("impersonate-group", "g")]
        )
        .unwrap_err(),
        r#"serviceaccounts "s" is forbidden: User "ed" cannot impersonate resource "serviceaccounts" in API group "" in the namespace "n""#
    );
}

#[test]
fn constrained_impersonation_takes_two_rights() {
    let ed = UserInfo::new("ed");
    let on = |mode: &str| PolicyRule::resources(&[&format!("impersonate-on:{mode}:get")], CORE, &["pods"]);
    let as_any = |mode: &str, resource: &str| {
        PolicyRule::resources(&[&format!("impersonate:{mode}")], AUTHENTICATION, &[resource])
    };
    let jane = [("impersonate-user", "jane")];
    assert!(impersonate(&ed, vec![on("user-info")], &jane).is_err());
    assert!(impersonate(&ed, vec![as_any("user-info", "users")], &jane).is_err());
    assert!(impersonate(&ed, vec![on("user-info"), as_any("user-info", "users")], &jane).is_ok());

    let node = [("impersonate-user", "system:node:n1")];
    let user =
        impersonate(&ed, vec![on("arbitrary-node"), as_any("arbitrary-node", "nodes")], &node).unwrap();
    assert_eq!(user, UserInfo::node("n1").authenticated());

    // Only an agent on that very node is associated with it.
    let rules = || vec![on("associated-node"), as_any("associated-node", "nodes")];
    let agent = |node: &str| UserInfo::service_account("ns", "agent", "1").with_extra(user::NODE_NAME, node);
    assert!(impersonate(&agent("n1"), rules(), &node).is_ok());
    assert!(impersonate(&agent("n2"), rules(), &node).is_err());
    assert!(impersonate(&ed, rules(), &node).is_err());

    // Masters can not be reached this way.
    let rules = vec![on("user-info"), as_any("user-info", "*")];
    let masters = [("impersonate-user", "jane"), ("impersonate-group", "system:masters")];
    assert!(
        impersonate(&ed, rules, &masters)
            .unwrap_err()
            .ends_with("impersonating the system:masters group is not allowed")
    );
}
