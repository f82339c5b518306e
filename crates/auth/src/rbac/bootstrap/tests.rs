use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use expect_test::expect;

use super::*;
use crate::authorizer::{Attributes, Authorizer};
use crate::rbac::RbacAuthorizer;
use crate::user::{self, UserInfo};

/// An authorizer with all bootstrap objects, aggregated roles filled in.
fn bootstrapped() -> RbacAuthorizer {
    let rbac = RbacAuthorizer::new();
    let roles: Vec<_> =
        objects(|_| false).into_iter().filter(|object| object["kind"] == "ClusterRole").collect();
    for object in objects(|_| false) {
        let kind = Kind::ALL.into_iter().find(|kind| format!("{kind:?}") == object["kind"]).unwrap();
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or("");
        let name = object["metadata"]["name"].as_str().unwrap();
        if object.get("aggregationRule").is_some() {
            rbac.upsert_role(namespace, name, aggregated(name, &roles));
        } else {
            rbac.upsert(kind, namespace, name, object.to_string().as_bytes()).unwrap();
        }
    }
    for (binding, role) in [("ada", "admin"), ("ed", "edit"), ("vi", "view")] {
        rbac.upsert_binding(
            "a",
            binding,
            super::super::Binding {
                role_ref: RoleRef { api_group: GROUP.into(), kind: "ClusterRole".into(), name: role.into() },
                subjects: vec![Subject { kind: "User".into(), name: binding.into(), ..Subject::default() }],
            },
        );
    }
    rbac
}

/// Aggregated roles are unions of roles that may be aggregated themselves (edit is in admin, view in edit).
fn aggregated(name: &str, roles: &[Value]) -> Vec<PolicyRule> {
    let role = roles.iter().find(|role| role["metadata"]["name"] == name).unwrap();
    let Some(selectors) = role["aggregationRule"]["clusterRoleSelectors"].as_array() else {
        return Vec::deserialize(&role["rules"]).unwrap();
    };
    let selects = |other: &&Value| {
        selectors.iter().any(|selector| {
            let (key, value) = selector["matchLabels"].as_object().unwrap().iter().next().unwrap();
            other["metadata"]["labels"].get(key) == Some(value)
        })
    };
    let others = roles.iter().map(|other| (other["metadata"]["name"].as_str().unwrap(), other));
    let chosen = others.filter(|(other, role)| *other != name && selects(role));
    chosen.flat_map(|(other, _)| aggregated(other, roles)).collect()
}

fn user(name: &str) -> UserInfo {
    match name {
        "anonymous" => UserInfo::anonymous(),
        "controllers" => UserInfo::new(user::KUBE_CONTROLLER_MANAGER).authenticated(),
        "scheduler" => UserInfo::new(user::KUBE_SCHEDULER).authenticated(),
        "masters" => UserInfo::new("m").with_groups([user::MASTERS]).authenticated(),
        "monitoring" => UserInfo::new("p").with_groups([user::MONITORING]).authenticated(),
        "node" => UserInfo::node("n").authenticated(),
        other => match other.split_once('/') {
            Some((namespace, name)) => UserInfo::service_account(namespace, name, "1").authenticated(),
            None => UserInfo::new(other).authenticated(),
        },
    }
}

/// Who may do what, by the bootstrap roles alone. `ada`, `ed` and `vi` have admin, edit and view in namespace `a`.
#[test]
fn authorization_matrix_of_the_bootstrap_roles() {
    let rbac = bootstrapped();
    let users = [
        "masters",
        "anonymous",
        "jane",
        "ada",
        "ed",
        "vi",
        "node",
        "controllers",
        "scheduler",
        "monitoring",
        "kube-system/replicaset-controller",
        "kube-system/namespace-controller",
        "kube-system/kube-dns",
        "a/default",
    ];
    // verb, group, resource or path, namespace
    let requests = [
        ("get", "", "/healthz", ""),
        ("get", "", "/version", ""),
        ("get", "", "/api/v1", ""),
        ("get", "", "/metrics", ""),
        ("get", "", "/openid/v1/jwks", ""),
        ("post", "", "/healthz", ""),
        ("create", "authorization.k8s.io", "selfsubjectaccessreviews", ""),
        ("create", "authorization.k8s.io", "subjectaccessreviews", ""),
        ("create", "authorization.k8s.io", "localsubjectaccessreviews", "a"),
        ("create", "authentication.k8s.io", "tokenreviews", ""),
        ("list", "", "nodes", ""),
        ("list", "", "pods", "a"),
        ("list", "", "pods", "b"),
        ("list", "", "pods", ""),
        ("create", "", "pods", "a"),
        ("create", "", "pods", "b"),
        ("create", "", "pods/exec", "a"),
        ("get", "", "pods/log", "a"),
        ("create", "", "pods/binding", "a"),
        ("update", "", "pods/status", "a"),
        ("get", "", "secrets", "a"),
        ("create", "", "serviceaccounts/token", "a"),
        ("create", "apps", "deployments", "a"),
        ("update", "apps", "replicasets/status", "a"),
        ("patch", "apps", "deployments/scale", "a"),
        ("create", "rbac.authorization.k8s.io", "roles", "a"),
        ("create", "rbac.authorization.k8s.io", "clusterroles", ""),
        ("update", "", "resourcequotas", "a"),
        ("deletecollection", "example.com", "things", "a"),
        ("update", "coordination.k8s.io", "leases", "kube-system"),
    ];
    let mut matrix = String::new();
    for (verb, api_group, what, namespace) in requests {
        let allowed = users.iter().copied().filter(|name| {
            let user = user(name);
            let attributes = match what.strip_prefix('/') {
                Some(_) => Attributes::non_resource(&user, verb, what),
                None => {
                    let (resource, subresource) = what.split_once('/').unwrap_or((what, ""));
                    Attributes {
                        api_group,
                        subresource,
                        namespace,
                        ..Attributes::resource(&user, verb, resource)
                    }
                }
            };
            rbac.authorize(&attributes).is_allowed()
        });
        let allowed = allowed.collect::<Vec<_>>().join(" ");
        matrix.push_str(format!("{verb} {what} {namespace}: {allowed}").replace(" :", ":").trim_end());
        matrix.push('\n');
    }
    expect![[r#"
        get /healthz: masters anonymous jane ada ed vi node controllers scheduler monitoring kube-system/replicaset-controller kube-system/namespace-controller kube-system/kube-dns a/default
        get /version: masters anonymous jane ada ed vi node controllers scheduler monitoring kube-system/replicaset-controller kube-system/namespace-controller kube-system/kube-dns a/default
        get /api/v1: masters jane ada ed vi node controllers scheduler monitoring kube-system/replicaset-controller kube-system/namespace-controller kube-system/kube-dns a/default
        get /metrics: masters monitoring
        get /openid/v1/jwks: masters kube-system/replicaset-controller kube-system/namespace-controller kube-system/kube-dns a/default
        post /healthz: masters
        create selfsubjectaccessreviews: masters jane ada ed vi node controllers scheduler monitoring kube-system/replicaset-controller kube-system/namespace-controller kube-system/kube-dns a/default
        create subjectaccessreviews: masters controllers scheduler
        create localsubjectaccessreviews a: masters ada
        create tokenreviews: masters controllers scheduler
        list nodes: masters controllers scheduler kube-system/namespace-controller
        list pods a: masters ada ed vi controllers scheduler kube-system/replicaset-controller kube-system/namespace-controller
        list pods b: masters controllers scheduler kube-system/replicaset-controller kube-system/namespace-controller
        list pods: masters controllers scheduler kube-system/replicaset-controller kube-system/namespace-controller
        create pods a: masters ada ed kube-system/replicaset-controller
        create pods b: masters kube-system/replicaset-controller
        create pods/exec a: masters ada ed
        get pods/log a: masters ada ed vi kube-system/namespace-controller
        create pods/binding a: masters scheduler
        update pods/status a: masters scheduler
        get secrets a: masters ada ed controllers kube-system/namespace-controller
        create serviceaccounts/token a: masters ada ed controllers
        create deployments a: masters ada ed
        update replicasets/status a: masters kube-system/replicaset-controller
        patch deployments/scale a: masters ada ed
        create roles a: masters ada
        create clusterroles: masters
        update resourcequotas a: masters
        deletecollection things a: masters kube-system/namespace-controller
        update leases kube-system: masters controllers scheduler
    "#]].assert_eq(&matrix);
}

fn reference() -> Option<PathBuf> {
    let testdata = match std::env::var_os("PINTLE_TESTDATA") {
        Some(path) => PathBuf::from(path),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/testdata"),
    };
    let path = testdata.join("../reference/rbac-bootstrap.json");
    path.exists().then_some(path)
}

#[test]
fn the_objects_are_those_of_upstream() {
    let Some(path) = reference() else {
        println!("skipped: PINTLE_TESTDATA is unset");
        return;
    };
    let reference: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let key = |object: &Value| {
        let metadata = &object["metadata"];
        format!("{} {} {}", object["kind"], metadata["namespace"], metadata["name"])
    };
    let ours: BTreeMap<_, _> = objects(|_| false).into_iter().map(|object| (key(&object), object)).collect();
    let mut count = 0;
    for theirs in reference.as_object().unwrap().values().flat_map(|list| list.as_array().unwrap()) {
        assert_eq!(ours.get(&key(theirs)), Some(theirs));
        count += 1;
    }
    assert_eq!(ours.len(), count);
}

#[test]
fn what_is_gated_is_there_when_the_gate_is_open() {
    let of = |gate: &str| {
        let all = objects(|own| own == gate);
        let scheduler = all.iter().find(|own| own["metadata"]["name"] == "system:kube-scheduler");
        let rules = scheduler.unwrap()["rules"].as_array().unwrap().len();
        (all.len(), rules)
    };
    let ((plain, few), (more, many)) = (of(""), of("GenericWorkload"));
    assert_eq!((more - plain, many - few), (2, 2), "a role and its binding, and two rules");
}

fn named(name: &str) -> Value {
    objects(|_| false).into_iter().find(|object| object["metadata"]["name"] == name).unwrap()
}

#[test]
fn an_untouched_object_is_kept() {
    for object in objects(|_| false) {
        assert_eq!(reconcile(&object, &object), Reconciled::Keep);
    }
}

#[test]
fn what_is_missing_is_added_and_what_was_added_stays() {
    let wanted = named("system:basic-user");
    let mut existing = wanted.clone();
    let own = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]});
    existing["rules"] = json!([own, wanted["rules"][1]]);
    existing["metadata"]["labels"] = json!({"mine": "1"});
    existing["metadata"]["resourceVersion"] = "7".into();
    let Reconciled::Update(merged) = reconcile(&existing, &wanted) else { panic!("no update") };
    let create = |resource: &str| json!({"apiGroups": ["authorization.k8s.io"], "resources": [resource], "verbs": ["create"]});
    assert_eq!(
        merged["rules"],
        json!([
            own,
            wanted["rules"][1],
            create("selfsubjectaccessreviews"),
            create("selfsubjectrulesreviews"),
        ])
    );
    assert_eq!(
        merged["metadata"]["labels"],
        json!({"mine": "1", "kubernetes.io/bootstrapping": "rbac-defaults"})
    );
    assert_eq!(merged["metadata"]["resourceVersion"], "7");
    // A second time there is nothing to do.
    assert_eq!(reconcile(&merged, &wanted), Reconciled::Keep);
}

#[test]
fn an_owner_can_opt_out() {
    let wanted = named("system:basic-user");
    let mut existing = wanted.clone();
    existing["rules"] = json!([]);
    existing["metadata"]["annotations"][AUTO_UPDATE] = "false".into();
    assert_eq!(reconcile(&existing, &wanted), Reconciled::Keep);
}

#[test]
fn bindings_get_their_subjects_back_and_are_made_anew_for_another_role() {
    let wanted = objects(|_| false)
        .into_iter()
        .find(|object| {
            object["kind"] == "ClusterRoleBinding" && object["metadata"]["name"] == "system:basic-user"
        })
        .unwrap();
    let mut existing = wanted.clone();
    let other = json!({"apiGroup": GROUP, "kind": "User", "name": "jane"});
    existing["subjects"] = json!([other]);
    let Reconciled::Update(merged) = reconcile(&existing, &wanted) else { panic!("no update") };
    assert_eq!(merged["subjects"], json!([other, wanted["subjects"][0]]));
    existing["roleRef"]["name"] = "view".into();
    assert_eq!(reconcile(&existing, &wanted), Reconciled::Recreate(wanted));
}

#[test]
fn a_missing_aggregation_is_put_back_beside_its_rules() {
    let wanted = named("view");
    let mut existing = wanted.clone();
    existing.as_object_mut().unwrap().remove("aggregationRule");
    existing["rules"] = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
    let Reconciled::Update(merged) = reconcile(&existing, &wanted) else { panic!("no update") };
    assert_eq!(merged["aggregationRule"], wanted["aggregationRule"]);
    assert_eq!(merged["rules"], existing["rules"]);
}
