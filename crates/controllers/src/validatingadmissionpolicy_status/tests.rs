use std::sync::LazyLock;

use api::builtin;
use api::openapi::{Tables, v3_documents};
use apimachinery::Status;
use client::Discovered;
use client::fake::FakeApi;

use super::*;
use crate::testing::World;

/// The documents of the built-in kinds that these tests are about.
static DOCUMENTS: LazyLock<HashMap<String, Value>> = LazyLock::new(|| {
    let mut documents = HashMap::new();
    let wanted = |key: &str| ["api/v1", "apis/apps/v1", "apis/apiextensions.k8s.io/v1"].contains(&key);
    v3_documents(&Tables::unpack(), &builtin::resources(), &wanted, &mut |key, bytes| {
        documents.insert(key.to_owned(), Value::parse(&bytes).expect("documents are JSON"));
    });
    documents
});

/// The only kind of `example.com/v1`.
fn widgets() -> Value {
    json!({"components": {"schemas": {"com.example.v1.Widget": {
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string"}, "kind": {"type": "string"},
            "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
            "spec": {"type": "object", "properties": {
                "size": {"type": "integer"}, "at": {"type": "string", "format": "date-time"},
                "port": {"x-kubernetes-int-or-string": true},
            }},
        },
        "x-kubernetes-group-version-kind": [{"group": "example.com", "version": "v1", "kind": "Widget"}],
    }}}})
}

fn rule(groups: &[&str], versions: &[&str], resources: &[&str]) -> Value {
    json!({"apiGroups": groups, "apiVersions": versions, "resources": resources, "operations": ["*"]})
}

fn deployments() -> Value {
    rule(&["apps"], &["v1"], &["deployments"])
}

/// A policy as it is stored, with one rule and the rest of its `spec`.
fn policy(name: &str, rule: Value, mut spec: Value) -> Value {
    spec.set_at(&["matchConstraints"], json!({"resourceRules": [rule]}));
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name, "generation": 1}, "spec": spec,
    })
}

fn validation(expression: &str) -> Value {
    json!({"validations": [{"expression": expression}]})
}

fn start(policies: Vec<Value>) -> World {
    let world = World::start(vec![descriptor()], Vec::new());
    for (key, document) in DOCUMENTS.iter() {
        let group_version = key.trim_start_matches("apis/").trim_start_matches("api/");
        world.fake.describe(GroupVersion::parse(group_version).expect("a group version"), document.clone());
    }
    world.fake.describe(GroupVersion::new("example.com", "v1"), widgets());
    for (plural, kind) in [("widgets", "Widget"), ("gadgets", "Gadget")] {
        let gvr = apimachinery::GroupVersionResource::new("example.com", "v1", plural);
        let verbs = vec!["get".into()];
        world.fake.register(Discovered { gvr, kind: kind.into(), namespaced: true, verbs });
    }
    for policy in policies {
        world.fake.seed(policy);
    }
    world
}

fn observed(fake: &FakeApi, name: &str) -> i64 {
    let policy = fake.peek(&VALIDATING_ADMISSION_POLICIES, "", name);
    policy.and_then(|policy| policy.to_value()["status"]["observedGeneration"].as_i64()).unwrap_or_default()
}

/// The `typeChecking` of a policy that is new.
async fn checked(rule: Value, spec: Value) -> Value {
    let world = start(vec![policy("p", rule, spec)]);
    world.wait_for("the policy observed", |fake| observed(fake, "p") == 1).await;
    world.tree(&VALIDATING_ADMISSION_POLICIES, "", "p")["status"]["typeChecking"].clone()
}

#[tokio::test]
async fn an_expression_that_does_not_fit_a_kind_is_warned_of_in_upstreams_words() {
    let found = checked(
        rule(&["apps", "batch"], &["v1"], &["replicasets", "deployments"]),
        json!({"validations": [
            {"expression": "object.replicas > 1", "messageExpression": "'has ' + object.spec.replicas"},
            {"expression": "object.spec.replicas > 1"},
        ]}),
    )
    .await;
    let by_field = "ERROR: <input>:1:7: undefined field 'replicas'\n | object.replicas > 1\n | ......^\n";
    let by_type = "ERROR: <input>:1:8: found no matching overload for '_+_' applied to '(string, int)'\n \
                   | 'has ' + object.spec.replicas\n | .......^\n";
    let both = |text: &str| format!("apps/v1, Kind=Deployment: {text}\napps/v1, Kind=ReplicaSet: {text}");
    let expected = json!({"expressionWarnings": [
        {"fieldRef": "spec.validations[0].expression", "warning": both(by_field)},
        {"fieldRef": "spec.validations[0].messageExpression", "warning": both(by_type)},
    ]});
    assert_eq!(found, expected);
}

#[tokio::test]
async fn expressions_are_held_against_the_schemas_of_built_in_and_custom_kinds() {
    let pods = || rule(&[""], &["v1"], &["pods"]);
    let widgets = || rule(&["example.com"], &["v1"], &["widgets"]);
    let definitions = || rule(&["apiextensions.k8s.io"], &["v1"], &["customresourcedefinitions"]);
    let secrets = || rule(&[""], &["v1"], &["secrets"]);
    let services = || rule(&[""], &["v1"], &["services"]);
    for (rule, text, refused) in [
        (deployments(), "object.spec.template.spec.containers.all(c, c.image.startsWith('a/'))", None),
        (deployments(), "object.metadata.labels['app'] == oldObject.metadata.labels['app']", None),
        (deployments(), "object.spec.replicas == '1'", Some("'_==_' applied to '(int, string)'")),
        (deployments(), "object.spec.strategy.rollingUpdate.maxSurge == '25%'", None),
        (deployments(), "request.userInfo.nickname == ''", Some("undefined field 'nickname'")),
        (deployments(), "authorizer.group('').resource('endpoints').check('create').allowed()", None),
        (
            deployments(),
            "authorizer.allowed()",
            Some("'allowed' applied to 'kubernetes.authorization.Authorizer"),
        ),
        (deployments(), "params.x == 1", Some("undeclared reference to 'params'")),
        (deployments(), "1 +", Some("Syntax error")),
        (deployments(), "object", None),
        (pods(), "object.spec.containers[0].ports[0].containerPort > 1024", None),
        (pods(), "object.metadata.creationTimestamp > timestamp('2020-01-01T00:00:00Z')", None),
        // Quantities are published without a type.
        (pods(), "'cpu' in object.spec.containers[0].resources.limits", Some("undefined field 'limits'")),
        (
            secrets(),
            "!has(object.automountServiceAccountToken)",
            Some("undefined field 'automountServiceAccountToken'"),
        ),
        (secrets(), "object.data['k'] == b'v'", None),
        (services(), "object.spec.ports.all(p, p.targetPort == 80 || p.targetPort == 'http')", None),
        (definitions(), "object.spec.versions[0].schema.openAPIV3Schema.type == 'object'", None),
        (
            definitions(),
            "object.spec.versions[0].schema.openAPIV3Schema.not.type == ''",
            Some("undefined field 'type'"),
        ),
        (widgets(), "object.spec.size > 1 && object.spec.port == 'http' && object.metadata.name != ''", None),
        (widgets(), "object.spec.at < timestamp('2020-01-01T00:00:00Z')", None),
        (widgets(), "object.spec.colour == 'red'", Some("undefined field 'colour'")),
        // Nothing is known of these.
        (rule(&["example.com"], &["v1"], &["gadgets"]), "object.whatever == 1", None),
        (rule(&["example.com"], &["v2"], &["widgets"]), "object.whatever == 1", None),
        (
            rule(&["example.com"], &["v1"], &["*", "widgets/*", "widgets/status"]),
            "object.whatever == 1",
            None,
        ),
    ] {
        let found = checked(rule, validation(text)).await;
        let warning = found["expressionWarnings"][0].str_at(&["warning"]);
        assert!(warning.contains(refused.unwrap_or_default()), "{text}: {warning}");
        assert_eq!(warning.is_empty(), refused.is_none(), "{text}: {warning}");
    }
}

#[tokio::test]
async fn parameters_have_the_type_of_their_kind() {
    for (api_version, kind, text, refused) in [
        ("example.com/v1", "Widget", "object.spec.replicas > params.spec.size", None),
        ("example.com/v1", "Widget", "params.data.x == ''", Some("undefined field 'data'")),
        ("v1", "ConfigMap", "object.spec.replicas > params.data.max", Some("applied to '(int, string)'")),
        ("example.com/v1", "Gadget", "params.whatever == 1", None),
        ("example.com/v2", "Widget", "params.whatever == 1", None),
        // Objects of one kind are of two types, as upstream.
        ("apps/v1", "Deployment", "object == params", Some("'_==_' applied to '(Deployment1, Deployment2)'")),
    ] {
        let mut spec = validation(text);
        spec.set_at(&["paramKind"], json!({"apiVersion": api_version, "kind": kind}));
        let found = checked(deployments(), spec).await;
        let warning = found["expressionWarnings"][0].str_at(&["warning"]);
        assert!(warning.contains(refused.unwrap_or_default()), "{text}: {warning}");
        assert_eq!(warning.is_empty(), refused.is_none(), "{text}: {warning}");
    }
}

#[tokio::test]
async fn variables_have_the_types_of_their_expressions() {
    let variables = json!([
        {"name": "name", "expression": "object.metadata.name"},
        {"name": "sure", "expression": "variables.name != ''"},
        {"name": "broken", "expression": "object.nothing"},
        {"name": "template", "expression": "object.spec.template"},
    ]);
    for (text, refused) in [
        ("variables.sure", None),
        ("variables.name == object.spec.replicas", Some("'_==_' applied to '(string, int)'")),
        ("variables.none", Some("undefined field 'none'")),
        // What is wrong in a variable is not said.
        ("variables.broken == 1", None),
        // A variable does not know of the fields of its object.
        ("variables.template.nothing", None),
    ] {
        let mut spec = validation(text);
        spec.set_at(&["variables"], variables.clone());
        let found = checked(deployments(), spec).await;
        let warning = found["expressionWarnings"][0].str_at(&["warning"]);
        assert!(warning.contains(refused.unwrap_or_default()), "{text}: {warning}");
        assert_eq!(warning.is_empty(), refused.is_none(), "{text}: {warning}");
    }
}

/// As upstream, which looks at validations and their messages alone.
#[tokio::test]
async fn conditions_and_annotations_are_not_checked() {
    let mut spec = validation("true");
    spec.set_at(&["matchConditions"], json!([{"name": "c", "expression": "object.nothing"}]));
    spec.set_at(&["auditAnnotations"], json!([{"key": "k", "valueExpression": "object.nothing"}]));
    assert_eq!(checked(deployments(), spec).await, json!({}));
}

#[tokio::test]
async fn a_policy_is_checked_once_for_each_generation() {
    let mut seen = policy("seen", deployments(), validation("object.nothing"));
    seen.set_at(&["status", "observedGeneration"], 1);
    let world = start(vec![seen, policy("new", deployments(), validation("true"))]);
    world.wait_for("the new one observed", |fake| observed(fake, "new") == 1).await;
    assert_eq!(world.fake.take_writes(), ["patch validatingadmissionpolicies/status new"]);

    world.fake.edit(&VALIDATING_ADMISSION_POLICIES, "", "seen", |policy| {
        policy.set_at(&["metadata", "generation"], 2);
    });
    world.wait_for("the change observed", |fake| observed(fake, "seen") == 2).await;
    let policy = world.tree(&VALIDATING_ADMISSION_POLICIES, "", "seen");
    let warnings = policy.array_at(&["status", "typeChecking", "expressionWarnings"]);
    assert_eq!(warnings.len(), 1, "{policy}");
    assert_eq!(world.fake.take_writes(), ["patch validatingadmissionpolicies/status seen"]);
}

#[tokio::test]
async fn a_policy_whose_kinds_cannot_be_read_waits() {
    let world = World::start(vec![descriptor()], Vec::new());
    let mut failures = 1;
    world.fake.fail(move |call| {
        let fails = call.verb == "openapi" && failures > 0;
        failures -= i32::from(fails);
        fails.then(|| Status::internal("not now"))
    });
    world.fake.describe(GroupVersion::new("apps", "v1"), DOCUMENTS["apis/apps/v1"].clone());
    world.fake.seed(policy("p", deployments(), validation("object.nothing")));
    world.wait_for("the policy observed", |fake| observed(fake, "p") == 1).await;
    let policy = world.tree(&VALIDATING_ADMISSION_POLICIES, "", "p");
    assert_eq!(policy.array_at(&["status", "typeChecking", "expressionWarnings"]).len(), 1, "{policy}");
}

mod which_kinds {
    use apimachinery::GroupVersionResource;

    use super::*;

    fn served(resources: &[(&str, &str, &str, &str)]) -> Vec<Discovered> {
        let of = |&(group, version, resource, kind): &(&str, &str, &str, &str)| Discovered {
            gvr: GroupVersionResource::new(group, version, resource),
            kind: kind.into(),
            namespaced: true,
            verbs: Vec::new(),
        };
        resources.iter().map(of).collect()
    }

    fn named(rules: &[Value]) -> String {
        let served = served(&[
            ("", "v1", "pods", "Pod"),
            ("", "v1", "events", "Event"),
            ("apps", "v1", "deployments", "Deployment"),
            ("apps", "v1beta1", "deployments", "Deployment"),
            ("events.k8s.io", "v1", "events", "Event"),
        ]);
        let kinds = kinds::of_objects(rules, &served);
        kinds.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn those_that_rules_name_without_wildcards() {
        let (deployments, pods) = (deployments(), rule(&[""], &["v1"], &["pods"]));
        for (rules, expected) in [
            (vec![], ""),
            (vec![deployments.clone()], "apps/v1, Kind=Deployment"),
            (vec![deployments.clone(), pods.clone(), pods], "/v1, Kind=Pod; apps/v1, Kind=Deployment"),
            (vec![rule(&["apps"], &["v1"], &["*"])], ""),
            (
                vec![rule(&["apps"], &["v1"], &["*", "deployments/scale", "deployments"])],
                "apps/v1, Kind=Deployment",
            ),
            (vec![rule(&[""], &["v1"], &["pods/*", "pods/exec"])], ""),
            (vec![rule(&["apps", "*"], &["v1"], &["deployments"])], ""),
            (vec![rule(&["apps"], &["v1", "*"], &["deployments"])], ""),
            (vec![rule(&["apps"], &["*"], &["deployments"]), deployments], "apps/v1, Kind=Deployment"),
            (
                vec![rule(&["apps", "batch"], &["v1beta1", "v1"], &["deployments", "pods"])],
                "apps/v1, Kind=Deployment; apps/v1beta1, Kind=Deployment",
            ),
            (vec![rule(&["events.k8s.io"], &["v1"], &["events"])], "events.k8s.io/v1, Kind=Event"),
            (vec![rule(&[""], &["v1"], &["events"])], "/v1, Kind=Event; events.k8s.io/v1, Kind=Event"),
        ] {
            assert_eq!(named(&rules), expected, "{rules:?}");
        }
    }

    #[test]
    fn a_rule_with_ten_is_the_last_one() {
        let names: Vec<String> = (0..30).map(|number| format!("r{number:02}")).collect();
        let all: Vec<_> = names.iter().map(|name| ("g", "v1", name.as_str(), name.as_str())).collect();
        let served = served(&all);
        let rule = |from: usize, to: usize| {
            let names: Vec<&str> = names[from..to].iter().rev().map(String::as_str).collect();
            rule(&["g"], &["v1"], &names)
        };
        for (rules, expected) in [
            (vec![rule(0, 9), rule(9, 18), rule(18, 20)], 0..20),
            (vec![rule(0, 9), rule(9, 19), rule(19, 30)], 0..19),
            (vec![rule(0, 15), rule(20, 30)], 0..10),
        ] {
            let kinds = kinds::of_objects(&rules, &served);
            let kinds: Vec<&str> = kinds.iter().map(|kind| kind.kind.as_str()).collect();
            assert_eq!(kinds, names[expected].iter().collect::<Vec<_>>(), "{rules:?}");
        }
    }

    #[test]
    fn that_of_the_parameters() {
        let kind = |kind: Value| kinds::of_params(&kind).map(|kind| kind.to_string()).unwrap_or_default();
        assert_eq!(kind(Value::Null), "");
        assert_eq!(kind(json!({"apiVersion": "v1", "kind": "ConfigMap"})), "/v1, Kind=ConfigMap");
        assert_eq!(kind(json!({"apiVersion": "a.b/v1", "kind": "C"})), "a.b/v1, Kind=C");
        assert_eq!(kind(json!({"apiVersion": "a/b/v1", "kind": "C"})), "");
    }
}
