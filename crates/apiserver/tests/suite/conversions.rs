//! Conversion webhooks of custom resources.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::hook::Hook;
use crate::server::Server;
use crate::wire::{Client, MERGE};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

fn path(version: &str) -> String {
    format!("/apis/example.com/{version}/namespaces/t/gadgets")
}

/// A gadget's length is `spec.cm` in v1, which is stored, and `spec.mm` in v2.
async fn define(admin: &Client, hook: &Hook) {
    let version = |name: &str, field: &str| {
        let spec = json!({"type": "object", "properties": {field: {"type": "integer"}}});
        let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}});
        json!({"name": name, "served": true, "storage": name == "v1", "schema": schema})
    };
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "gadgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "gadgets", "kind": "Gadget"},
            "versions": [version("v1", "cm"), version("v2", "mm")],
            "conversion": {"strategy": "Webhook", "webhook": {
                "conversionReviewVersions": ["v1"],
                "clientConfig": {"url": hook.url(), "caBundle": hook.ca_bundle()},
            }},
        },
    });
    let mut events = admin
        .stream(&format!("{DEFINITIONS}?watch=true&fieldSelector=metadata.name=gadgets.example.com"))
        .await;
    admin.post(DEFINITIONS, &definition).await.expect(201);
    loop {
        let event = events.next().await.expect("the watch goes on");
        let conditions = event["object"]["status"]["conditions"].as_array().cloned().unwrap_or_default();
        if conditions.iter().any(|own| own["type"] == "Established" && own["status"] == "True") {
            return;
        }
    }
}

/// Answers with what `change` makes of each object, in the wanted version.
fn answer(review: &Value, change: impl Fn(&mut Value)) -> Option<Bytes> {
    let request = &review["request"];
    let mut objects = request["objects"].as_array().cloned().unwrap_or_default();
    for object in &mut objects {
        object["apiVersion"] = request["desiredAPIVersion"].clone();
        change(object);
    }
    let response =
        json!({"uid": request["uid"], "result": {"status": "Success"}, "convertedObjects": objects});
    let review =
        json!({"apiVersion": review["apiVersion"], "kind": "ConversionReview", "response": response});
    Some(review.to_string().into())
}

fn convert(object: &mut Value) {
    if let Some(cm) = object["spec"]["cm"].as_i64() {
        object["spec"] = json!({"mm": cm * 10});
    } else if let Some(mm) = object["spec"]["mm"].as_i64() {
        object["spec"] = json!({"cm": mm / 10});
    }
}

fn gadget(version: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": format!("example.com/{version}"), "kind": "Gadget", "metadata": {"name": name}, "spec": spec,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_are_read_and_written_in_every_version() {
    let (_server, admin) = Server::with_namespace().await;
    let hook = Hook::raw(|review| answer(review, convert)).await;
    define(&admin, &hook).await;
    admin.post(&path("v1"), &gadget("v1", "a", json!({"cm": 2}))).await.expect(201);
    assert!(hook.seen().is_empty(), "it is stored as it came");
    let read = admin.get(&format!("{}/a", path("v2"))).await.expect(200);
    assert_eq!((&read["apiVersion"], &read["spec"]), (&json!("example.com/v2"), &json!({"mm": 20})));
    let created = admin.post(&path("v2"), &gadget("v2", "b", json!({"mm": 50}))).await.expect(201);
    assert_eq!(created["spec"], json!({"mm": 50}));
    let stored = admin.get(&format!("{}/b", path("v1"))).await.expect(200);
    assert_eq!(stored["spec"], json!({"cm": 5}));
    let patched =
        admin.patch(&format!("{}/b", path("v2")), MERGE, &json!({"spec": {"mm": 70}})).await.expect(200);
    assert_eq!(patched["spec"], json!({"mm": 70}));
    let list = admin.get(&path("v2")).await.expect(200);
    let lengths: Vec<&Value> =
        list["items"].as_array().unwrap().iter().map(|item| &item["spec"]["mm"]).collect();
    assert_eq!(lengths, [20, 70]);
    let listed = hook.seen().pop().expect("a request");
    assert_eq!(listed["objects"].as_array().map(Vec::len), Some(2), "a list is converted at once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversion_that_is_not_one_is_refused() {
    type Raw = fn(&Value) -> Option<Bytes>;
    let renamed: Raw = |review| answer(review, |object| object["metadata"]["name"] = json!("other"));
    let refused: Raw = |review| {
        let response =
            json!({"uid": review["request"]["uid"], "result": {"status": "Failure", "message": "no way"}});
        let kind =
            json!({"apiVersion": review["apiVersion"], "kind": "ConversionReview", "response": response});
        Some(kind.to_string().into())
    };
    let closed: Raw = |_| None;
    for (raw, why) in [
        (renamed, "returned invalid converted object at index 0: must have the same name: a != other"),
        (refused, "failed: no way"),
        (closed, "failed: Post \"URL\": EOF"),
    ] {
        let (_server, admin) = Server::with_namespace().await;
        let hook = Hook::raw(raw).await;
        define(&admin, &hook).await;
        admin.post(&path("v1"), &gadget("v1", "a", json!({"cm": 2}))).await.expect(201);
        let refused = admin.get(&format!("{}/a", path("v2"))).await.expect(500);
        let why = why.replace("URL", &hook.url());
        assert_eq!(refused["message"], format!("conversion webhook for example.com/v1, Kind=Gadget {why}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_object_is_admitted_in_the_version_that_the_rules_name() {
    let (_server, admin) = Server::with_namespace().await;
    let converting = Hook::raw(|review| answer(review, convert)).await;
    define(&admin, &converting).await;
    let admitting = Hook::start(|_| json!({"allowed": true})).await;
    let rules = json!([{
        "operations": ["DELETE"], "apiGroups": ["example.com"], "apiVersions": ["v2"], "resources": ["gadgets"],
    }]);
    let change = json!({"rules": rules, "matchPolicy": "Equivalent"});
    let configuration = admitting.configuration("ValidatingWebhookConfiguration", "v2", &change);
    let configurations = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
    admin.post(configurations, &configuration).await.expect(201);
    for version in ["v1", "v2"] {
        admin.post(&path("v1"), &gadget("v1", "a", json!({"cm": 2}))).await.expect(201);
        admin.delete(&format!("{}/a", path(version))).await.expect(200);
    }
    let seen = admitting.seen();
    let asked: Vec<&Value> = seen.iter().map(|request| &request["requestKind"]["version"]).collect();
    assert_eq!(asked, ["v1", "v2"]);
    for request in &seen {
        assert_eq!(request["oldObject"]["apiVersion"], "example.com/v2");
        assert_eq!(request["oldObject"]["spec"], json!({"mm": 20}));
    }
}
