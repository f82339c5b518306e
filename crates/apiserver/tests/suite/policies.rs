//! Admission policies in CEL: what they refuse, warn about and change.

use serde_json::{Value, json};

use crate::hook::Hook;
use crate::server::Server;
use crate::wire::{Client, MERGE};

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const CONFIG_MAPS: &str = "/api/v1/namespaces/t/configmaps";

/// A policy about ConfigMaps with the rest of its `spec`, and a binding for everywhere with the rest of its own.
async fn install(admin: &Client, kind: &str, name: &str, spec: Value, binding: Value) {
    let rules = json!([{
        "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE", "UPDATE"],
    }]);
    let mut policy = json!({"metadata": {"name": name}, "spec": spec});
    if policy["spec"]["matchConstraints"].is_null() {
        policy["spec"]["matchConstraints"] = json!({"resourceRules": rules});
    }
    let (policies, bindings) = match kind {
        "Validating" => ("validatingadmissionpolicies", "validatingadmissionpolicybindings"),
        _ => ("mutatingadmissionpolicies", "mutatingadmissionpolicybindings"),
    };
    admin.post(&format!("{GROUP}/{policies}"), &policy).await.expect(201);
    let mut bound = json!({"metadata": {"name": format!("{name}-binding")}, "spec": binding});
    bound["spec"]["policyName"] = name.into();
    admin.post(&format!("{GROUP}/{bindings}"), &bound).await.expect(201);
}

async fn deny(admin: &Client, name: &str, spec: Value) {
    install(admin, "Validating", name, spec, json!({"validationActions": ["Deny"]})).await;
}

async fn mutate(admin: &Client, name: &str, mutation: Value) {
    mutate_if_needed(admin, name, mutation, "Never").await;
}

async fn mutate_if_needed(admin: &Client, name: &str, mutation: Value, reinvocation: &str) {
    let spec = json!({
        "failurePolicy": "Fail", "reinvocationPolicy": reinvocation, "mutations": [mutation],
    });
    install(admin, "Mutating", name, spec, json!({})).await;
}

fn apply(expression: &str) -> Value {
    json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}})
}

fn json_patch(expression: &str) -> Value {
    json!({"patchType": "JSONPatch", "jsonPatch": {"expression": expression}})
}

fn config_map(name: &str, data: Value) -> Value {
    json!({"metadata": {"name": name}, "data": data})
}

fn message(refused: &Value) -> &str {
    refused["message"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_refuses_with_its_message_and_reason() {
    let (_server, admin) = Server::with_namespace().await;
    let spec = json!({
        "variables": [
            {"name": "keys", "expression": "object.data.map(key, key)"},
            {"name": "n", "expression": "size(variables.keys)"},
        ],
        "validations": [
            {"expression": "variables.n < 3", "messageExpression": "'has ' + string(variables.n) + ' keys'", "reason": "Forbidden"},
            {"expression": "object.metadata.name != 'no'", "message": "not that name"},
            {"expression": "!('bare' in object.data)"},
        ],
    });
    deny(&admin, "p", spec).await;
    let by = "is forbidden: ValidatingAdmissionPolicy 'p' with binding 'p-binding' denied request:";
    let many =
        admin.post(CONFIG_MAPS, &config_map("many", json!({"a": "", "b": "", "c": ""}))).await.expect(403);
    assert_eq!(message(&many), format!("configmaps \"many\" {by} has 3 keys"));
    assert_eq!(
        many["details"]["causes"][0]["message"],
        message(&many)["configmaps \"many\" is forbidden: ".len()..]
    );
    let no = admin.post(CONFIG_MAPS, &config_map("no", json!({"a": ""}))).await.expect(422);
    assert_eq!(
        (message(&no), &no["reason"]),
        (&*format!("configmaps \"no\" {by} not that name"), &json!("Invalid"))
    );
    let bare = admin.post(CONFIG_MAPS, &config_map("m", json!({"bare": ""}))).await.expect(422);
    assert_eq!(message(&bare), format!("configmaps \"m\" {by} failed expression: !('bare' in object.data)"));
    let absent = admin.post(CONFIG_MAPS, &json!({"metadata": {"name": "m"}})).await.expect(422);
    assert_eq!(
        message(&absent),
        format!(
            "configmaps \"m\" {by} expression 'variables.n < 3' resulted in error: composited variable \"n\" fails to \
             evaluate: composited variable \"keys\" fails to evaluate: no such key: data"
        )
    );
    admin.post(CONFIG_MAPS, &config_map("m", json!({"a": ""}))).await.expect(201);
    // A patch is looked at as well, and a policy that is gone is gone at once.
    let patch = json!({"data": {"b": "", "c": ""}});
    admin.patch(&format!("{CONFIG_MAPS}/m"), MERGE, &patch).await.expect(403);
    admin.delete(&format!("{GROUP}/validatingadmissionpolicybindings/p-binding")).await.expect(200);
    admin.patch(&format!("{CONFIG_MAPS}/m"), MERGE, &patch).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_knows_request_old_object_namespace_and_authorizer() {
    let (server, admin) = Server::with_namespace().await;
    server.add_namespace("strict", json!({"level": "strict"})).await;
    let rights = "authorizer.group('').resource('secrets').namespace('t').check('get').allowed()";
    let spec = json!({"validations": [
        {"expression": "request.operation != 'UPDATE' || object.data.k == oldObject.data.k", "message": "k stays"},
        {"expression": "namespaceObject.metadata.?labels.level.orValue('') != 'strict' || request.namespace != 'strict'",
         "message": "strict"},
        {"expression": "request.userInfo.username != 'jane' || authorizer.requestResource.check('approve').allowed()",
         "message": "jane may not"},
        {"expression": format!("{rights} || 'system:masters' in request.userInfo.groups"), "message": "no secrets"},
    ]});
    deny(&admin, "p", spec).await;
    let m = config_map("m", json!({"k": "1"}));
    admin.post(CONFIG_MAPS, &m).await.expect(201);
    let changed =
        admin.patch(&format!("{CONFIG_MAPS}/m"), MERGE, &json!({"data": {"k": "2"}})).await.expect(422);
    assert!(message(&changed).ends_with("denied request: k stays"), "{changed}");
    let strict = admin.post("/api/v1/namespaces/strict/configmaps", &m).await.expect(422);
    assert!(message(&strict).ends_with("denied request: strict"), "{strict}");
    let role = json!({"metadata": {"name": "all"}, "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["*"]}]});
    admin.post("/apis/rbac.authorization.k8s.io/v1/clusterroles", &role).await.expect(201);
    let binding = json!({
        "metadata": {"name": "all"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "all"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}],
    });
    admin.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding).await.expect(201);
    // Jane may do everything to ConfigMaps, approving them included, but not read Secrets.
    let jane = server.user("jane", &[]);
    let refused = jane.post(CONFIG_MAPS, &config_map("j", json!({"k": "1"}))).await.expect(422);
    assert!(message(&refused).ends_with("denied request: no secrets"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_binding_warns_instead_of_refusing() {
    let (_server, admin) = Server::with_namespace().await;
    let spec = json!({"validations": [{"expression": "false", "message": "never good"}]});
    install(&admin, "Validating", "p", spec, json!({"validationActions": ["Warn", "Audit"]})).await;
    let reply = admin.post(CONFIG_MAPS, &config_map("m", json!({}))).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    assert_eq!(
        reply.headers["warning"],
        "299 - \"Validation failed for ValidatingAdmissionPolicy 'p' with binding 'p-binding': never good\""
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_are_found_by_name_and_by_selector() {
    let (server, admin) = Server::with_namespace().await;
    server.add_namespace("params", json!({})).await;
    let spec = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConstraints": {"resourceRules": [{
            "apiGroups": [""], "apiVersions": ["v1"], "resources": ["secrets"], "operations": ["CREATE"],
        }]},
        "validations": [{
            "expression": "size(object.?data.orValue({})) <= int(params.data.max)",
            "messageExpression": "'at most ' + params.data.max",
        }],
    });
    let by_name = json!({
        "validationActions": ["Deny"],
        "paramRef": {"name": "limit", "namespace": "params", "parameterNotFoundAction": "Deny"},
    });
    install(&admin, "Validating", "p", spec.clone(), by_name).await;
    let secrets = "/api/v1/namespaces/t/secrets";
    let secret = |name: &str| json!({"metadata": {"name": name}, "stringData": {"a": "", "b": ""}});
    let missing = admin.post(secrets, &secret("s")).await.expect(422);
    assert!(
        message(&missing).ends_with(
            "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"
        ),
        "{missing}"
    );
    let params = "/api/v1/namespaces/params/configmaps";
    admin.post(params, &config_map("limit", json!({"max": "1"}))).await.expect(201);
    let refused = admin.post(secrets, &secret("s")).await.expect(422);
    assert!(message(&refused).ends_with("denied request: at most 1"), "{refused}");
    admin.patch(&format!("{params}/limit"), MERGE, &json!({"data": {"max": "2"}})).await.expect(200);
    admin.post(secrets, &secret("s")).await.expect(201);

    let by_selector = json!({
        "validationActions": ["Deny"],
        "paramRef": {
            "selector": {"matchLabels": {"limits": "yes"}}, "namespace": "params",
            "parameterNotFoundAction": "Allow",
        },
    });
    install(&admin, "Validating", "q", spec, by_selector).await;
    admin.post(secrets, &secret("none-selected")).await.expect(201);
    for (name, max) in [("loose", "5"), ("tight", "0")] {
        let selected = json!({"metadata": {"name": name, "labels": {"limits": "yes"}}, "data": {"max": max}});
        admin.post(params, &selected).await.expect(201);
    }
    // Each of them has to agree.
    let refused = admin.post(secrets, &secret("both")).await.expect(422);
    assert!(message(&refused).ends_with("denied request: at most 0"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conditions_decide_whether_a_policy_or_a_webhook_is_asked() {
    let (_server, admin) = Server::with_namespace().await;
    let condition = |expression: &str| json!([{"name": "c", "expression": expression}]);
    let spec = json!({
        "matchConditions": condition("object.metadata.name.startsWith('watched')"),
        "validations": [{"expression": "false", "message": "no"}],
    });
    deny(&admin, "p", spec).await;
    let hook = Hook::start(|_| json!({"allowed": true})).await;
    let change = json!({"matchConditions": condition("object.metadata.name == 'hooked'")});
    let configuration = hook.configuration("ValidatingWebhookConfiguration", "h", &change);
    admin.post(&format!("{GROUP}/validatingwebhookconfigurations"), &configuration).await.expect(201);
    admin.post(CONFIG_MAPS, &config_map("plain", json!({}))).await.expect(201);
    assert!(hook.seen().is_empty());
    admin.post(CONFIG_MAPS, &config_map("hooked", json!({}))).await.expect(201);
    assert_eq!(hook.seen().len(), 1);
    admin.post(CONFIG_MAPS, &config_map("watched", json!({}))).await.expect(422);

    // What cannot be told is refused.
    let change = json!({"matchConditions": condition("object.data.missing == 'x'")});
    let configuration = hook.configuration("ValidatingWebhookConfiguration", "i", &change);
    admin.post(&format!("{GROUP}/validatingwebhookconfigurations"), &configuration).await.expect(201);
    let refused = admin.post(CONFIG_MAPS, &config_map("m", json!({"a": "b"}))).await.expect(403);
    assert_eq!(
        message(&refused),
        "configmaps \"m\" is forbidden: expression 'object.data.missing == 'x'' resulted in error: no such key: missing"
    );
}

/// Under upstream's labels, which call the step of webhooks by other names than that of policies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conditions_that_do_not_hold_are_counted() {
    let (_server, admin) = Server::with_namespace().await;
    let conditions = json!([
        {"name": "broken", "expression": "object.data.missing == 'x'"},
        {"name": "named", "expression": "object.metadata.name == 'other'"},
    ]);
    let spec = json!({"matchConditions": conditions, "validations": [{"expression": "false"}]});
    deny(&admin, "counted-policy", spec).await;
    let hook = Hook::start(|_| json!({"allowed": true})).await;
    for (kind, path) in [
        ("ValidatingWebhookConfiguration", "validatingwebhookconfigurations"),
        ("MutatingWebhookConfiguration", "mutatingwebhookconfigurations"),
    ] {
        let change = json!({"matchConditions": conditions});
        let configuration = hook.configuration(kind, "counted", &change);
        admin.post(&format!("{GROUP}/{path}"), &configuration).await.expect(201);
    }
    admin.post(CONFIG_MAPS, &config_map("m", json!({"a": "b"}))).await.expect(201);
    admin.post(CONFIG_MAPS, &config_map("other", json!({"missing": "x"}))).await.expect(422);

    let metrics = admin.get("/metrics").await.text();
    let counted: Vec<&str> = metrics
        .lines()
        .filter(|line| line.contains("match_condition") && line.contains("name=\"counted"))
        .filter(|line| !line.contains("_bucket") && !line.contains("_sum"))
        .filter_map(|line| line.strip_prefix("apiserver_admission_match_condition_"))
        .collect();
    let policy = r#"{name="counted-policy",kind="policy",type="validate",operation="CREATE"} 1"#;
    let webhook = |step: &str| {
        format!(r#"{{name="counted.example.com",kind="webhook",type="{step}",operation="CREATE"}} 1"#)
    };
    let expected: Vec<String> = [
        ("evaluation_errors_total", policy.to_owned()),
        ("evaluation_errors_total", webhook("admit")),
        ("evaluation_errors_total", webhook("validating")),
        ("exclusions_total", webhook("admit")),
        // Only these say `validate`, as upstream's.
        ("exclusions_total", webhook("validate")),
        ("evaluation_seconds_count", policy.to_owned()),
        ("evaluation_seconds_count", webhook("admit")),
        ("evaluation_seconds_count", webhook("validating")),
    ]
    .map(|(name, labels)| format!("{name}{labels}"))
    .to_vec();
    assert_eq!(counted, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_counts_only_if_the_policy_says_so() {
    let (_server, admin) = Server::with_namespace().await;
    let spec = |policy: &str| json!({"failurePolicy": policy, "validations": [{"expression": "object.data.missing == 'x'"}]});
    deny(&admin, "open", spec("Ignore")).await;
    admin.post(CONFIG_MAPS, &config_map("m", json!({"a": "b"}))).await.expect(201);
    deny(&admin, "closed", spec("Fail")).await;
    let refused = admin.post(CONFIG_MAPS, &config_map("n", json!({"a": "b"}))).await.expect(422);
    let expected =
        "denied request: expression 'object.data.missing == 'x'' resulted in error: no such key: missing";
    assert!(message(&refused).ends_with(expected), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mutation_is_applied_like_a_configuration() {
    let (_server, admin) = Server::with_namespace().await;
    let pods = json!({"resourceRules": [{
        "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"],
    }]});
    let expression = "Object{
        metadata: Object.metadata{labels: {'team': object.metadata.namespace}},
        spec: Object.spec{initContainers: [
            Object.spec.initContainers{name: 'sidecar', image: 'proxy', restartPolicy: 'Always'},
        ]}
    }";
    let spec = json!({
        "matchConstraints": pods, "failurePolicy": "Fail", "reinvocationPolicy": "Never",
        "matchConditions": [{
            "name": "once", "expression": "!object.spec.?initContainers.orValue([]).exists(c, c.name == 'sidecar')",
        }],
        "mutations": [apply(expression)],
    });
    install(&admin, "Mutating", "sidecar", spec, json!({})).await;
    let pod = json!({
        "metadata": {"name": "p", "labels": {"own": "x"}},
        "spec": {"initContainers": [{"name": "first", "image": "i"}], "containers": [{"name": "c", "image": "i"}]},
    });
    let created = admin.post("/api/v1/namespaces/t/pods", &pod).await.expect(201);
    assert_eq!(created["metadata"]["labels"], json!({"own": "x", "team": "t"}));
    let init: Vec<&str> = created["spec"]["initContainers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|container| container["name"].as_str().unwrap())
        .collect();
    assert_eq!(init, ["first", "sidecar"]);
    // Defaults are filled in, as for anything else that is created.
    assert_eq!(created["spec"]["initContainers"][1]["terminationMessagePolicy"], "File");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mutation_may_be_a_json_patch() {
    let (_server, admin) = Server::with_namespace().await;
    let expression = "[
        JSONPatch{op: 'test', path: '/data/color', value: 'red'},
        JSONPatch{op: 'replace', path: '/data/color', value: 'green'},
        JSONPatch{op: 'add', path: '/data/' + jsonpatch.escapeKey('a~b'), value: object.metadata.name},
    ]";
    mutate(&admin, "paint", json_patch(expression)).await;
    let red = admin.post(CONFIG_MAPS, &config_map("red", json!({"color": "red"}))).await.expect(422);
    assert!(message(&red).contains("a~b"), "the key is not a good one, but it got there: {red}");
    let blue = admin.post(CONFIG_MAPS, &config_map("blue", json!({"color": "blue"}))).await.expect(201);
    assert_eq!(blue["data"], json!({"color": "blue"}), "the test failed, so nothing is patched");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mutation_that_cannot_be_carried_out_refuses_the_request() {
    let (_server, admin) = Server::with_namespace().await;
    let pods = json!({"resourceRules": [{
        "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"],
    }]});
    let spec = |expression: &str| {
        json!({
            "matchConstraints": pods, "failurePolicy": "Fail", "reinvocationPolicy": "Never",
            "mutations": [apply(expression)],
        })
    };
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    for (expression, why) in [
        (
            "Object{spec: Object.spec{containers: [Object.spec.containers{name: 'c', args: ['x']}]}}",
            "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: \
             .spec.containers[0].args",
        ),
        (
            "Object{spec: Object.wrong{}}",
            "type mismatch: unexpected type name \"Object.wrong\", expected \"Object.spec\", which matches field name \
             path from root Object type",
        ),
        (
            "Object{metadata: object.nothing}",
            "expression 'Object{metadata: object.nothing}' resulted in error: no such key: nothing",
        ),
    ] {
        install(&admin, "Mutating", "m", spec(expression), json!({})).await;
        let refused = admin.post("/api/v1/namespaces/t/pods", &pod).await;
        let body = refused.json();
        assert_eq!(message(&body), format!("policy 'm' with binding 'm-binding' denied request: {why}"));
        assert_eq!((refused.status, &body["reason"]), (403, &json!("Invalid")));
        admin.delete(&format!("{GROUP}/mutatingadmissionpolicies/m")).await.expect(200);
        admin.delete(&format!("{GROUP}/mutatingadmissionpolicybindings/m-binding")).await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policies_see_what_later_ones_changed() {
    let (_server, admin) = Server::with_namespace().await;
    let count =
        |key: &str| apply(&format!("Object{{data: Object.data{{{key}: string(size(object.data))}}}}"));
    mutate_if_needed(&admin, "a", count("first"), "IfNeeded").await;
    mutate_if_needed(&admin, "b", count("second"), "Never").await;
    let created = admin.post(CONFIG_MAPS, &config_map("m", json!({"own": ""}))).await.expect(201);
    // `a` counted one key, then `b` two; `a` was asked again and counted three.
    assert_eq!(created["data"], json!({"own": "", "first": "3", "second": "2"}));
}
