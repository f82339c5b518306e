use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::rbac::{Binding, PolicyRule, RbacAuthorizer, RoleRef, Subject, bootstrap};
use crate::token;
use crate::token::tests::{World, noon};
use crate::user;
use crate::{Authorizers, PrivilegedGroup};

fn rbac() -> RbacAuthorizer {
    let rbac = RbacAuthorizer::new();
    rbac.upsert_role(
        "a",
        "reader",
        vec![PolicyRule {
            resource_names: vec!["x".into()],
            ..PolicyRule::resources(&["get"], &[""], &["pods"])
        }],
    );
    let role_ref = RoleRef { kind: "Role".into(), name: "reader".into(), ..RoleRef::default() };
    let subject =
        |kind: &str, name: &str| Subject { kind: kind.into(), name: name.into(), ..Subject::default() };
    let subjects = vec![subject("User", "jane"), subject("Group", "readers")];
    rbac.upsert_binding("a", "readers", Binding { role_ref, subjects });
    rbac
}

fn answer(kind: AccessReview, namespace: &str, review: Value) -> Result<Value, String> {
    kind.answer(&review, &UserInfo::new("jane"), namespace, &rbac()).map_err(|status| {
        assert_eq!(status.code, 422);
        status.message
    })
}

#[test]
fn access_reviews_answer_for_the_subject_they_name() {
    use AccessReview::{LocalSubjectAccessReview, SelfSubjectAccessReview, SubjectAccessReview};
    let get = json!({"verb": "get", "resource": "pods", "namespace": "a", "name": "x"});
    let allowed = |subject: &str| json!({"allowed": true, "reason": format!(r#"RBAC: allowed by RoleBinding "readers/a" of Role "reader" to {subject}"#)});
    let denied = json!({"allowed": false});
    let cases = [
        (SelfSubjectAccessReview, "", json!({"resourceAttributes": get}), allowed(r#"User "jane""#)),
        (
            SubjectAccessReview,
            "",
            json!({"resourceAttributes": get, "user": "jane"}),
            allowed(r#"User "jane""#),
        ),
        (SubjectAccessReview, "", json!({"resourceAttributes": get, "user": "joe"}), denied.clone()),
        (
            SubjectAccessReview,
            "",
            json!({"resourceAttributes": get, "user": "joe", "groups": ["readers"]}),
            allowed(r#"Group "readers""#),
        ),
        (
            LocalSubjectAccessReview,
            "a",
            json!({"resourceAttributes": get, "user": "jane"}),
            allowed(r#"User "jane""#),
        ),
        (
            SubjectAccessReview,
            "",
            json!({"nonResourceAttributes": {"verb": "get", "path": "/metrics"}, "user": "jane"}),
            denied,
        ),
    ];
    for (kind, namespace, spec, expected) in cases {
        let review = json!({"metadata": {"creationTimestamp": null}, "spec": spec});
        assert_eq!(answer(kind, namespace, review), Ok(expected), "{kind:?} {spec}");
    }
}

#[test]
fn selectors_that_are_not_understood_are_mentioned() {
    let ask = |field: Value, label: Value| {
        let mut attributes = json!({"verb": "list", "resource": "pods"});
        attributes["fieldSelector"] = field;
        attributes["labelSelector"] = label;
        let review = json!({"spec": {"resourceAttributes": attributes}});
        answer(AccessReview::SelfSubjectAccessReview, "", review).unwrap()["evaluationError"].clone()
    };
    let requirement =
        |operator: &str, values: &[&str]| json!({"key": "a", "operator": operator, "values": values});
    let requirements = |all: &[Value]| json!({"requirements": all});
    let field = "spec.resourceAttributes.fieldSelector";
    let label = "spec.resourceAttributes.labelSelector";
    let cases = [
        (json!({"rawSelector": "a=b"}), json!({"rawSelector": "a in (b)"}), json!(null)),
        (
            requirements(&[requirement("In", &["b"])]),
            requirements(&[requirement("Exists", &[])]),
            json!(null),
        ),
        (
            requirements(&[requirement("In", &["b"]), requirement("Exists", &[])]),
            json!(null),
            json!(format!("{field} partially ignored due to parse error")),
        ),
        (
            requirements(&[requirement("In", &["b", "c"])]),
            requirements(&[requirement("Odd", &[])]),
            json!(format!("{field} ignored due to parse error; {label} ignored due to parse error")),
        ),
        (
            json!({"rawSelector": "a"}),
            json!({"rawSelector": "a in"}),
            json!(format!("{field} ignored due to parse error; {label} ignored due to parse error")),
        ),
    ];
    for (field, label, expected) in cases {
        assert_eq!(ask(field.clone(), label.clone()), expected, "{field} {label}");
    }
}

#[test]
fn reviews_that_make_no_sense_are_invalid() {
    use AccessReview::{LocalSubjectAccessReview, SelfSubjectAccessReview, SubjectAccessReview};
    let cases = [
        (
            SubjectAccessReview,
            json!({}),
            r#".authorization.k8s.io "" is invalid: [spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified, spec.user: Invalid value: "": at least one of user or group must be specified]"#,
        ),
        (
            SelfSubjectAccessReview,
            json!({"spec": {"resourceAttributes": {"fieldSelector": {}}}}),
            r#".authorization.k8s.io "" is invalid: spec.resourceAttributes.fieldSelector.requirements: Required value: when spec.resourceAttributes.fieldSelector is specified, requirements or rawSelector is required"#,
        ),
        (
            SelfSubjectAccessReview,
            json!({"metadata": {"name": "x"}, "spec": {"nonResourceAttributes": {"path": "/"}}}),
            r#".authorization.k8s.io "" is invalid: metadata: Invalid value: {"name":"x"}: must be empty"#,
        ),
        (
            LocalSubjectAccessReview,
            json!({"metadata": {"namespace": "a"}, "spec": {"user": "u", "resourceAttributes": {"namespace": "b"}}}),
            r#".authorization.k8s.io "" is invalid: spec.resourceAttributes.namespace: Invalid value: "b": must match metadata.namespace"#,
        ),
    ];
    for (kind, review, expected) in cases {
        assert_eq!(answer(kind, "a", review).unwrap_err(), expected);
    }
    let unreadable = json!({"spec": {"user": 5}});
    let status = SubjectAccessReview.answer(&unreadable, &UserInfo::new("j"), "", &rbac()).unwrap_err();
    assert_eq!(status.code, 400);
}

#[tokio::test]
async fn token_reviews_tell_whose_token_it_is() {
    let world = World::new();
    let authenticator = Authenticator::new(world.authority.client_verifier().unwrap(), world.authenticator());
    let ask = async |spec: Value, now| {
        token(&json!({ "spec": spec }), &authenticator, now).await.map_err(|status| status.code)
    };
    let good = world.issue(token::Binding::None);
    let status = ask(json!({ "token": good }), noon()).await.unwrap();
    assert_eq!(status["authenticated"], true);
    assert_eq!(status["user"]["username"], "system:serviceaccount:ns:sa");
    assert_eq!(status["user"]["uid"], "sa-1");
    assert_eq!(status["audiences"], json!(["https://kubernetes.default.svc.cluster.local"]));
    let later = noon() + Duration::from_secs(7200);
    assert_eq!(
        ask(json!({ "token": good }), later).await.unwrap(),
        json!({"user": {}, "error": "[invalid bearer token, service account token has expired]"})
    );
    let for_vault = ask(json!({"token": good, "audiences": ["vault"]}), noon()).await.unwrap();
    let error = for_vault["error"].clone();
    assert!(error.as_str().unwrap().contains(r#"is invalid for the target audiences ["vault"]"#), "{error}");
    assert_eq!(
        ask(json!({"token": "x"}), noon()).await,
        Ok(json!({"user": {}, "error": "invalid bearer token"}))
    );
    assert_eq!(ask(json!({}), noon()).await, Err(400));
}

fn transcripts() -> Option<Vec<Value>> {
    let testdata = match std::env::var_os("PINTLE_TESTDATA") {
        Some(path) => PathBuf::from(path),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/testdata"),
    };
    let mut lines = Vec::new();
    for file in ["requests.jsonl", "validate-nonsense.jsonl"] {
        let text = std::fs::read_to_string(testdata.join("upstream-transcripts").join(file)).ok()?;
        lines.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
    }
    Some(lines)
}

/// The recorded server's rules, with its administrator in `system:masters`.
fn recorded_authorizer() -> Authorizers {
    let rbac = RbacAuthorizer::new();
    for object in bootstrap::objects(|_| false) {
        let kind =
            crate::rbac::Kind::ALL.into_iter().find(|kind| format!("{kind:?}") == object["kind"]).unwrap();
        let (name, namespace) = (&object["metadata"]["name"], &object["metadata"]["namespace"]);
        let json = object.to_string();
        rbac.upsert(kind, namespace.as_str().unwrap_or(""), name.as_str().unwrap(), json.as_bytes()).unwrap();
    }
    Authorizers::new(vec![std::sync::Arc::new(PrivilegedGroup::masters()), std::sync::Arc::new(rbac)])
}

/// Rules come in no particular order. The recorded server had one of its own, for `/.well-known`, that upstream's
/// bootstrap policy does not have.
fn sorted(mut status: Value) -> Value {
    for field in ["resourceRules", "nonResourceRules"] {
        if let Some(rules) = status[field].as_array_mut() {
            rules.retain(|rule| rule["nonResourceURLs"][0] != "/.well-known");
            rules.sort_by_key(Value::to_string);
        }
    }
    status
}

#[test]
fn recorded_reviews_are_answered_as_upstream_did() {
    let Some(transcripts) = transcripts() else {
        println!("skipped: PINTLE_TESTDATA is unset");
        return;
    };
    let authorizer = recorded_authorizer();
    let admin = UserInfo::new("admin").with_uid("admin").with_groups([user::MASTERS, user::AUTHENTICATED]);
    let mut seen = 0;
    for line in &transcripts {
        let (request, response) = (&line["request"], &line["response"]["body"]);
        if request["method"] != "POST" {
            continue;
        }
        let path = request["path"].as_str().unwrap().split('?').next().unwrap();
        let requester = match request["headers"]["Impersonate-User"].as_str() {
            Some(user) => UserInfo::new(user).authenticated(),
            None => admin.clone(),
        };
        let access = |kind: AccessReview, namespace| {
            let mut review = request["body"].clone();
            // The registry adds managed fields before it asks; the message shows them.
            if let Some(fields) = managed_fields(response) {
                review["metadata"]["managedFields"] = fields;
            }
            if !str::is_empty(namespace) {
                review["metadata"]["namespace"] = namespace.into();
            }
            kind.answer(&review, &requester, namespace, &authorizer)
        };
        let answer = match path.rsplit('/').next().unwrap() {
            "selfsubjectreviews" => Ok(self_subject(&requester)),
            "selfsubjectrulesreviews" => self_subject_rules(&request["body"], &requester, &authorizer),
            "selfsubjectaccessreviews" => access(AccessReview::SelfSubjectAccessReview, ""),
            "subjectaccessreviews" => access(AccessReview::SubjectAccessReview, ""),
            "localsubjectaccessreviews" => access(AccessReview::LocalSubjectAccessReview, "rec"),
            _ => continue,
        };
        seen += 1;
        match answer {
            Ok(status) => assert_eq!(sorted(status), sorted(response["status"].clone()), "{path}"),
            Err(status) => {
                assert_eq!(status.code, line["response"]["status"].as_u64().unwrap() as u16, "{path}");
                let causes = response["details"]["causes"].as_array().unwrap();
                let ours = status.details.unwrap().causes;
                let fields: Vec<_> = ours.iter().map(|cause| cause.field.as_str()).collect();
                let expected: Vec<_> = causes.iter().map(|cause| cause["field"].as_str().unwrap()).collect();
                assert_eq!(fields, expected, "{path}");
                for (cause, expected) in
                    ours.iter().zip(causes).filter(|(cause, _)| cause.field != "metadata")
                {
                    assert_eq!(cause.message, expected["message"], "{path}");
                }
            }
        }
    }
    assert!(seen >= 7, "only {seen} recorded reviews were found");
}

fn managed_fields(response: &Value) -> Option<Value> {
    response["metadata"].get("managedFields").cloned()
}
