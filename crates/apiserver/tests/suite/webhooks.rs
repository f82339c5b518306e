//! Admission webhooks: who is asked about what, and what their answers do.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::hook::Hook;
use crate::server::Server;
use crate::wire::{APPLY, Client, MERGE};

const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
const VALIDATING: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
const CONFIG_MAPS: &str = "/api/v1/namespaces/t/configmaps";

fn allow(_: &Value) -> Value {
    json!({"allowed": true})
}

fn patching(patch: &Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(patch.to_string())})
}

async fn validate(admin: &Client, hook: &Hook, name: &str, change: Value) {
    let configuration = hook.configuration("ValidatingWebhookConfiguration", name, &change);
    admin.post(VALIDATING, &configuration).await.expect(201);
}

async fn mutate(admin: &Client, hook: &Hook, name: &str, change: Value) {
    let configuration = hook.configuration("MutatingWebhookConfiguration", name, &change);
    admin.post(MUTATING, &configuration).await.expect(201);
}

fn config_map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"a": "b"}})
}

/// What the first create after this configuration is answered with.
async fn refusal(admin: &Client) -> (u16, String) {
    let reply = admin.post(CONFIG_MAPS, &config_map("m")).await;
    (reply.status, reply.json()["message"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_is_told_everything_about_a_request() {
    let (_server, admin) = Server::with_namespace().await;
    let hook = Hook::start(allow).await;
    let everything = json!([{
        "operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"],
    }]);
    validate(&admin, &hook, "all", json!({"rules": everything})).await;
    let path = format!("{CONFIG_MAPS}/m");
    admin.post(&format!("{CONFIG_MAPS}?fieldManager=me"), &config_map("m")).await.expect(201);
    admin.patch(&path, MERGE, &json!({"data": {"a": "c"}})).await.expect(200);
    admin.delete_with(&format!("{path}?dryRun=All"), &json!({"gracePeriodSeconds": 3})).await.expect(200);
    let [created, updated, deleted] = hook.seen().try_into().expect("three requests");

    assert_eq!(created["operation"], "CREATE");
    assert_eq!(created["kind"], json!({"group": "", "version": "v1", "kind": "ConfigMap"}));
    assert_eq!(created["resource"], json!({"group": "", "version": "v1", "resource": "configmaps"}));
    assert_eq!(created["requestKind"], created["kind"]);
    assert_eq!(created["requestResource"], created["resource"]);
    assert_eq!((&created["name"], &created["namespace"]), (&json!("m"), &json!("t")));
    assert_eq!(created["userInfo"]["username"], "kubernetes-admin");
    assert_eq!(created["userInfo"]["groups"], json!(["system:masters", "system:authenticated"]));
    assert_eq!(created["object"]["data"], json!({"a": "b"}));
    assert_eq!(created["object"]["metadata"]["namespace"], "t");
    assert_eq!((&created["oldObject"], &created["dryRun"]), (&Value::Null, &json!(false)));
    assert_eq!(
        created["options"],
        json!({"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "fieldManager": "me"})
    );

    assert_eq!(
        (&updated["operation"], &updated["options"]["kind"]),
        (&json!("UPDATE"), &json!("UpdateOptions"))
    );
    assert_eq!(
        (&updated["object"]["data"]["a"], &updated["oldObject"]["data"]["a"]),
        (&json!("c"), &json!("b"))
    );

    assert_eq!((&deleted["operation"], &deleted["object"]), (&json!("DELETE"), &Value::Null));
    assert_eq!((&deleted["oldObject"]["data"]["a"], &deleted["dryRun"]), (&json!("c"), &json!(true)));
    assert_eq!(deleted["options"]["gracePeriodSeconds"], 3);
    assert_eq!(deleted["options"]["dryRun"], json!(["All"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denial_reaches_the_client_with_code_reason_and_warnings() {
    let (_server, admin) = Server::with_namespace().await;
    let hook = Hook::start(|_| {
        json!({
            "allowed": false, "warnings": ["be careful"],
            "status": {"code": 403, "reason": "Forbidden", "message": "not on my watch"},
        })
    })
    .await;
    validate(&admin, &hook, "deny", json!({})).await;
    let reply = admin.post(CONFIG_MAPS, &config_map("m")).await;
    let status = reply.json();
    assert_eq!((reply.status, &status["reason"]), (403, &json!("Forbidden")));
    assert_eq!(
        status["message"],
        "admission webhook \"deny.example.com\" denied the request: not on my watch"
    );
    assert_eq!(reply.headers["warning"], "299 - \"be careful\"");
    admin.get(&format!("{CONFIG_MAPS}/m")).await.expect(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_patch_is_applied_before_the_object_is_validated() {
    let (_server, admin) = Server::with_namespace().await;
    let adding = Hook::start(|request| match request["object"]["data"]["a"].as_str() {
        Some("bad") => patching(&json!([{"op": "add", "path": "/data/not a key", "value": "x"}])),
        _ => patching(&json!([{"op": "add", "path": "/data/added", "value": "by the hook"}])),
    })
    .await;
    mutate(&admin, &adding, "adding", json!({})).await;
    let created = admin.post(CONFIG_MAPS, &config_map("m")).await.expect(201);
    assert_eq!(created["data"], json!({"a": "b", "added": "by the hook"}));
    // What the webhook fills in is nobody's field.
    let fields = created["metadata"]["managedFields"].to_string();
    assert!(fields.contains("f:a") && !fields.contains("f:added"), "{fields}");

    let body =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "n"}, "data": {"k": "v"}});
    let applied = admin.patch(&format!("{CONFIG_MAPS}/n?fieldManager=me"), APPLY, &body).await.expect(201);
    assert_eq!(applied["data"]["added"], "by the hook");

    let bad = json!({"metadata": {"name": "bad"}, "data": {"a": "bad"}});
    let refused = admin.post(CONFIG_MAPS, &bad).await.expect(422);
    assert!(refused["message"].as_str().unwrap().contains("not a key"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_made_after_mutation() {
    let (_server, admin) = Server::with_namespace().await;
    let hook = Hook::start(allow).await;
    mutate(&admin, &hook, "look", json!({})).await;
    validate(&admin, &hook, "look", json!({})).await;
    let created = admin.post(CONFIG_MAPS, &json!({"metadata": {"generateName": "m-"}})).await.expect(201);
    let [before, after] = hook.seen().try_into().expect("two requests");
    assert_eq!((&before["name"], &before["object"]["metadata"]["name"]), (&Value::Null, &Value::Null));
    assert_eq!(after["name"], created["metadata"]["name"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn early_webhooks_see_what_later_ones_changed() {
    let (_server, admin) = Server::with_namespace().await;
    let first = Hook::start(allow).await;
    let once = Hook::start(allow).await;
    let second = Hook::start(|_| patching(&json!([{"op": "add", "path": "/data/late", "value": "x"}]))).await;
    mutate(&admin, &first, "a-first", json!({"reinvocationPolicy": "IfNeeded"})).await;
    mutate(&admin, &once, "b-once", json!({})).await;
    mutate(&admin, &second, "c-second", json!({"reinvocationPolicy": "IfNeeded"})).await;
    admin.post(CONFIG_MAPS, &config_map("m")).await.expect(201);
    let saw: Vec<bool> =
        first.seen().iter().map(|request| request["object"]["data"]["late"].is_string()).collect();
    assert_eq!(saw, [false, true]);
    assert_eq!((once.seen().len(), second.seen().len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn selectors_and_rules_choose_the_requests() {
    let (server, admin) = Server::with_namespace().await;
    server.add_namespace("labelled", json!({"hooked": "yes"})).await;
    let by_namespace = Hook::start(allow).await;
    let by_object = Hook::start(allow).await;
    let other = Hook::start(allow).await;
    let selector = |key: &str| json!({"matchLabels": {key: "yes"}});
    validate(&admin, &by_namespace, "namespace", json!({"namespaceSelector": selector("hooked")})).await;
    validate(&admin, &by_object, "object", json!({"objectSelector": selector("watched")})).await;
    let deployments = json!([{
        "operations": ["CREATE"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"],
    }]);
    validate(&admin, &other, "other", json!({"rules": deployments})).await;
    admin.post(CONFIG_MAPS, &config_map("plain")).await.expect(201);
    let watched = json!({"metadata": {"name": "watched", "labels": {"watched": "yes"}}});
    admin.post(CONFIG_MAPS, &watched).await.expect(201);
    admin.post("/api/v1/namespaces/labelled/configmaps", &config_map("inside")).await.expect(201);
    // Losing the label is a change to something watched.
    admin
        .patch(&format!("{CONFIG_MAPS}/watched"), MERGE, &json!({"metadata": {"labels": null}}))
        .await
        .expect(200);
    let names = |hook: &Hook| -> Vec<String> {
        hook.seen().iter().map(|request| request["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&by_namespace), ["inside"]);
    assert_eq!(names(&by_object), ["watched", "watched"]);
    assert!(other.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_version_of_the_same_objects_counts_unless_told_otherwise() {
    let (_server, admin) = Server::with_namespace().await;
    let equivalent = Hook::start(allow).await;
    let exact = Hook::start(allow).await;
    let rules = json!([{
        "operations": ["CREATE"], "apiGroups": ["autoscaling"], "apiVersions": ["v1"],
        "resources": ["horizontalpodautoscalers"],
    }]);
    validate(&admin, &equivalent, "equivalent", json!({"rules": rules})).await;
    validate(&admin, &exact, "exact", json!({"rules": rules, "matchPolicy": "Exact"})).await;
    let metric = json!({
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}},
    });
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"});
    let autoscaler = json!({
        "metadata": {"name": "h"},
        "spec": {"maxReplicas": 3, "metrics": [metric], "scaleTargetRef": target},
    });
    let path = "/apis/autoscaling/v2/namespaces/t/horizontalpodautoscalers";
    admin.post(path, &autoscaler).await.expect(201);
    let [request] = equivalent.seen().try_into().expect("one request");
    assert_eq!(
        (&request["kind"]["version"], &request["requestKind"]["version"]),
        (&json!("v1"), &json!("v2"))
    );
    assert_eq!(request["object"]["apiVersion"], "autoscaling/v1");
    assert_eq!(request["object"]["spec"]["targetCPUUtilizationPercentage"], 50);
    assert!(exact.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_that_fail_are_told_in_upstream_s_words() {
    type Raw = fn(&Value) -> Option<Bytes>;
    let closed: Raw = |_| None;
    let nonsense: Raw = |_| Some("hello".into());
    let absent: Raw = |_| Some("{}".into());
    let stranger: Raw = |review| {
        let uid = &review["request"]["uid"];
        Some(
            json!({"kind": "Pod", "apiVersion": "v1", "response": {"uid": uid, "allowed": true}})
                .to_string()
                .into(),
        )
    };
    let huge: Raw = |_| Some(vec![b' '; 17 << 20].into());
    for (answer, expected) in [
        (closed, "failed to call webhook: Post \"URL?timeout=10s\": EOF"),
        (
            nonsense,
            "failed to call webhook: couldn't get version/kind; json parse error: invalid character 'h' looking for beginning of value",
        ),
        (absent, "received invalid webhook response: webhook response was absent"),
        (
            stranger,
            "received invalid webhook response: expected webhook response of admission.k8s.io/v1, \
             Kind=AdmissionReview, got /v1, Kind=Pod",
        ),
        (huge, "failed to call webhook: the response is larger than the 16777216 bytes that are allowed"),
    ] {
        let (_server, admin) = Server::with_namespace().await;
        let hook = Hook::raw(answer).await;
        validate(&admin, &hook, "bad", json!({})).await;
        let expected = expected.replace("URL", &hook.url());
        assert_eq!(
            refusal(&admin).await,
            (500, format!("Internal error occurred: failed calling webhook \"bad.example.com\": {expected}"))
        );
        // One that may be left out is.
        let policy = json!([{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}]);
        admin.patch(&format!("{VALIDATING}/bad"), "application/json-patch+json", &policy).await.expect(200);
        admin.post(CONFIG_MAPS, &config_map("m")).await.expect(201);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_that_hangs_is_given_up_in_its_time() {
    let (_server, admin) = Server::with_namespace().await;
    let hook = Hook::raw(|_| {
        std::thread::park_timeout(std::time::Duration::from_secs(3));
        None
    })
    .await;
    validate(&admin, &hook, "slow", json!({"timeoutSeconds": 1})).await;
    let (code, message) = refusal(&admin).await;
    assert_eq!(code, 500);
    assert!(message.ends_with("?timeout=1s\": context deadline exceeded"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_somebody_else_is_not_trusted() {
    let (_server, admin) = Server::with_namespace().await;
    let (hook, stranger) = (Hook::start(allow).await, Hook::start(allow).await);
    let config = json!({"url": hook.url(), "caBundle": stranger.ca_bundle()});
    validate(&admin, &hook, "tls", json!({"clientConfig": config})).await;
    let (code, message) = refusal(&admin).await;
    let expected = "tls: failed to verify certificate: x509: certificate signed by unknown authority";
    assert!(code == 500 && message.ends_with(expected), "{message}");
    assert!(hook.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_is_called_at_a_ready_endpoint() {
    let (_server, admin) = Server::with_namespace().await;
    let hook = Hook::start(allow).await;
    let config =
        json!({"service": {"namespace": "t", "name": "hook", "path": "/x"}, "caBundle": hook.ca_bundle()});
    validate(&admin, &hook, "service", json!({"clientConfig": config})).await;
    let failed = "Internal error occurred: failed calling webhook \"service.example.com\": failed to call webhook: \
                  Post \"https://hook.t.svc:443/x?timeout=10s\": ";
    assert_eq!(refusal(&admin).await, (500, format!("{failed}service \"hook\" not found")));
    let service = json!({"metadata": {"name": "hook"}, "spec": {"ports": [{"port": 443, "name": "https"}]}});
    admin.post("/api/v1/namespaces/t/services", &service).await.expect(201);
    assert_eq!(refusal(&admin).await, (500, format!("{failed}no endpoints available for service \"hook\"")));
    let slice = json!({
        "metadata": {"name": "hook-1", "labels": {"kubernetes.io/service-name": "hook"}},
        "addressType": "IPv4", "ports": [{"name": "https", "port": hook.port()}],
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": true}}],
    });
    // Upstream lets nobody point an EndpointSlice at loopback, and neither do we.
    let refused = admin.post("/apis/discovery.k8s.io/v1/namespaces/t/endpointslices", &slice).await;
    assert_eq!(refused.status, 422, "{}", refused.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_reaches_only_webhooks_without_side_effects() {
    let (_server, admin) = Server::with_namespace().await;
    let hook = Hook::start(allow).await;
    let old = json!({"sideEffects": "NoneOnDryRun"});
    validate(&admin, &hook, "harmless", old).await;
    admin.post(&format!("{CONFIG_MAPS}?dryRun=All"), &config_map("m")).await.expect(201);
    assert_eq!(hook.seen()[0]["dryRun"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configurations_are_never_subject_to_themselves() {
    let (_server, admin) = Server::with_namespace().await;
    let deny = Hook::start(|_| json!({"allowed": false})).await;
    let everything = json!([{
        "operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"],
    }]);
    validate(&admin, &deny, "deny-all", json!({"rules": everything})).await;
    assert_eq!(
        refusal(&admin).await,
        (400, "admission webhook \"deny-all.example.com\" denied the request without explanation".to_owned())
    );
    admin.delete(&format!("{VALIDATING}/deny-all")).await.expect(200);
    admin.post(CONFIG_MAPS, &config_map("m")).await.expect(201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn evictions_and_scales_are_asked_about() {
    let (_server, admin) = Server::with_namespace().await;
    let hook = Hook::start(allow).await;
    let rules = json!([
        {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods/eviction"]},
        {"operations": ["UPDATE"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments/scale"]},
    ]);
    validate(&admin, &hook, "sub", json!({"rules": rules})).await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    admin.post("/api/v1/namespaces/t/pods", &pod).await.expect(201);
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    admin.post("/api/v1/namespaces/t/pods/p/eviction", &eviction).await.expect(201);
    let labels = json!({"app": "d"});
    let deployment = json!({
        "metadata": {"name": "d"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod["spec"]},
        },
    });
    let path = "/apis/apps/v1/namespaces/t/deployments";
    admin.post(path, &deployment).await.expect(201);
    admin.patch(&format!("{path}/d/scale"), MERGE, &json!({"spec": {"replicas": 2}})).await.expect(200);
    let [eviction, scale] = hook.seen().try_into().expect("two requests");
    assert_eq!(
        (&eviction["subResource"], &eviction["kind"]["kind"]),
        (&json!("eviction"), &json!("Eviction"))
    );
    assert_eq!((&eviction["object"]["kind"], &eviction["name"]), (&json!("Eviction"), &json!("p")));
    assert_eq!((&scale["subResource"], &scale["kind"]["group"]), (&json!("scale"), &json!("autoscaling")));
    assert_eq!(
        (&scale["object"]["kind"], &scale["object"]["spec"]["replicas"]),
        (&json!("Scale"), &json!(2))
    );
    assert_eq!(scale["oldObject"]["spec"]["replicas"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stored_nowhere_is_admitted() {
    let (_server, admin) = Server::with_namespace().await;
    let hook = Hook::start(|request| {
        let is_bad = request["object"]["target"]["name"] == "bad";
        json!({"allowed": !is_bad, "status": {"message": "not that one"}})
    })
    .await;
    let rules = json!([{
        "operations": ["CREATE"], "apiGroups": ["*"], "apiVersions": ["*"],
        "resources": ["bindings", "pods/binding", "selfsubjectaccessreviews"],
    }]);
    validate(&admin, &hook, "unstored", json!({"rules": rules})).await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let pods = "/api/v1/namespaces/t/pods";
    admin.post(pods, &pod).await.expect(201);
    let binding = |node: &str| {
        json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p", "uid": "none"},
            "target": {"kind": "Node", "name": node}})
    };
    let refused = admin.post("/api/v1/namespaces/t/bindings", &binding("bad")).await.expect(400);
    let message = "admission webhook \"unstored.example.com\" denied the request: not that one";
    assert_eq!(refused["message"], message);
    admin.post("/api/v1/namespaces/t/bindings", &binding("good")).await.expect(201);
    assert_eq!(admin.get(&format!("{pods}/p")).await.expect(200)["spec"]["nodeName"], "good");
    let review = json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    assert_eq!(admin.post(reviews, &review).await.expect(201)["status"]["allowed"], true);
    let seen = hook.seen();
    let asked: Vec<_> = seen.iter().map(|own| (&own["resource"]["resource"], &own["name"])).collect();
    assert!(seen.iter().all(|own| own["object"]["metadata"].get("uid").is_none()), "{seen:?}");
    let (bindings, reviews) = (json!("bindings"), json!("selfsubjectaccessreviews"));
    assert_eq!(asked, [(&bindings, &json!("p")), (&bindings, &json!("p")), (&reviews, &Value::Null)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_deleted_is_shown_in_the_version_that_the_rules_name() {
    let (_server, admin) = Server::with_namespace().await;
    let mut hooks = Vec::new();
    for version in ["v1", "v2"] {
        let hook = Hook::start(allow).await;
        let rules = json!([{
            "operations": ["DELETE"], "apiGroups": ["autoscaling"], "apiVersions": [version],
            "resources": ["horizontalpodautoscalers"],
        }]);
        validate(&admin, &hook, version, json!({"rules": rules, "matchPolicy": "Equivalent"})).await;
        hooks.push(hook);
    }
    let path = |version: &str| format!("/apis/autoscaling/{version}/namespaces/t/horizontalpodautoscalers");
    let target = json!({"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"});
    for version in ["v1", "v2"] {
        let scaler = json!({"metadata": {"name": "h"}, "spec": {
            "scaleTargetRef": target, "maxReplicas": 3, "targetCPUUtilizationPercentage": 50,
        }});
        admin.post(&path("v1"), &scaler).await.expect(201);
        admin.delete(&format!("{}/h", path(version))).await.expect(200);
    }
    for (hook, version) in hooks.iter().zip(["v1", "v2"]) {
        let seen = hook.seen();
        assert_eq!(seen.len(), 2);
        for (request, asked) in seen.iter().zip(["v1", "v2"]) {
            let old = &request["oldObject"];
            assert_eq!(
                (&request["object"], &request["requestKind"]["version"]),
                (&Value::Null, &json!(asked))
            );
            assert_eq!(old["apiVersion"], format!("autoscaling/{version}"));
            let (percent, metrics) =
                (&old["spec"]["targetCPUUtilizationPercentage"], &old["spec"]["metrics"]);
            assert_eq!((percent.is_null(), metrics.is_null()), (version == "v2", version == "v1"), "{old}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_can_be_refused() {
    let (_server, admin) = Server::with_namespace().await;
    let hook = Hook::start(|_| json!({"allowed": false, "status": {"message": "no shells here"}})).await;
    let rules = json!([{
        "operations": ["CONNECT"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods/exec"],
    }]);
    validate(&admin, &hook, "exec", json!({"rules": rules})).await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    admin.post("/api/v1/namespaces/t/pods", &pod).await.expect(201);
    let path = "/api/v1/namespaces/t/pods/p/exec?command=sh&command=-c&stdout=true&container=c";
    let refused = admin.post(path, &json!({})).await.expect(400);
    assert_eq!(
        refused["message"],
        "admission webhook \"exec.example.com\" denied the request: no shells here"
    );
    let [request] = hook.seen().try_into().expect("one request");
    assert_eq!((&request["operation"], &request["options"]), (&json!("CONNECT"), &Value::Null));
    assert_eq!((&request["kind"]["kind"], &request["name"]), (&json!("PodExecOptions"), &json!("p")));
    assert_eq!(
        request["object"],
        json!({"kind": "PodExecOptions", "apiVersion": "v1", "stdout": true, "container": "c", "command": ["sh", "-c"]})
    );
}
