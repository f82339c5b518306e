//! Custom resources: definitions and what they define, over HTTP.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::server::Server;
use crate::wire::{Client, MERGE, Reply, names};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const WIDGETS: &str = "/apis/example.com/v1/namespaces/t/widgets";
const TABLE: (&str, &str) = ("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");

fn spec_schema(properties: Value) -> Value {
    json!({"openAPIV3Schema": {"type": "object", "properties": {
        "spec": {"type": "object", "properties": properties},
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    }}})
}

fn version(name: &str, storage: bool, schema: Value) -> Value {
    json!({"name": name, "served": true, "storage": storage, "schema": schema})
}

fn definition(plural: &str, kind: &str, versions: Vec<Value>) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.example.com")},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": plural, "kind": kind},
            "versions": versions,
        },
    })
}

/// A widget has a size, a colour that is blue by default, and both subresources.
fn widgets() -> Value {
    let schema = spec_schema(json!({
        "size": {"type": "integer"}, "colour": {"type": "string", "default": "blue"}, "replicas": {"type": "integer"},
    }));
    let mut v1 = version("v1", true, schema);
    v1["subresources"] = json!({
        "status": {},
        "scale": {
            "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        },
    });
    v1["additionalPrinterColumns"] = json!([
        {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
        {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"},
        {"name": "Since", "type": "date", "jsonPath": ".metadata.creationTimestamp", "priority": 1},
    ]);
    v1["selectableFields"] = json!([{"jsonPath": ".spec.colour"}]);
    let mut definition = definition("widgets", "Widget", vec![v1]);
    definition["spec"]["names"]["shortNames"] = json!(["wd"]);
    definition["spec"]["names"]["categories"] = json!(["all"]);
    definition
}

fn widget(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec})
}

fn condition<'d>(definition: &'d Value, kind: &str) -> Option<&'d Value> {
    definition["status"]["conditions"].as_array()?.iter().find(|own| own["type"] == kind)
}

fn is_established(definition: &Value) -> bool {
    condition(definition, "Established").is_some_and(|own| own["status"] == "True")
}

/// Waits until a definition is as wanted; `None` stands for one that is gone.
async fn until(client: &Client, name: &str, is_wanted: impl Fn(Option<&Value>) -> bool) -> Option<Value> {
    let mut events =
        client.stream(&format!("{DEFINITIONS}?watch=true&fieldSelector=metadata.name={name}")).await;
    let now = client.get(&format!("{DEFINITIONS}/{name}")).await;
    let mut state = (now.status == 200).then(|| now.json());
    while !is_wanted(state.as_ref()) {
        let event = events.next().await.expect("the watch goes on");
        state = (event["type"] != "DELETED").then(|| event["object"].clone());
    }
    state
}

/// Creates a definition and waits until it is served.
pub async fn define(client: &Client, definition: &Value) -> Value {
    client.post(DEFINITIONS, definition).await.expect(201);
    let name = definition["metadata"]["name"].as_str().expect("a name");
    until(client, name, |state| state.is_some_and(is_established)).await.expect("a definition")
}

async fn with_widgets() -> (Server, Client) {
    let (server, admin) = Server::with_namespace().await;
    define(&admin, &widgets()).await;
    (server, admin)
}

fn message(reply: &Reply) -> String {
    reply.json()["message"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_definition_is_served_by_the_time_it_says_so() {
    let (_server, admin) = Server::with_namespace().await;
    admin.get(WIDGETS).await.expect(404);
    let defined = define(&admin, &widgets()).await;
    admin.get(WIDGETS).await.expect(200);
    let reasons: Vec<&str> = defined["status"]["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|own| own["reason"].as_str().unwrap())
        .collect();
    assert_eq!(reasons, ["NoConflicts", "InitialNamesAccepted"]);
    assert_eq!(defined["status"]["acceptedNames"], defined["spec"]["names"]);
    assert_eq!(defined["status"]["storedVersions"], json!(["v1"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_are_pruned_defaulted_and_counted() {
    let (_server, admin) = with_widgets().await;
    let created = widget("a", json!({"size": 1, "unknown": true}));
    let mut created = admin.post(WIDGETS, &created).await.expect(201);
    assert_eq!(created["spec"], json!({"size": 1, "colour": "blue"}));
    assert_eq!(created["metadata"]["generation"], 1);
    assert!(created.get("status").is_none());
    // Without a version an update could overwrite anything.
    let mut blind = created.clone();
    blind["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    let refused = admin.put(&format!("{WIDGETS}/a"), &blind).await;
    assert_eq!(refused.status, 422);
    assert!(
        message(&refused)
            .contains("metadata.resourceVersion: Invalid value: 0: must be specified for an update")
    );
    created["spec"]["size"] = 2.into();
    created["status"] = json!({"replicas": 9});
    let updated = admin.put(&format!("{WIDGETS}/a"), &created).await.expect(200);
    assert_eq!((&updated["metadata"]["generation"], updated.get("status")), (&2.into(), None));
    let status = json!({"status": {"replicas": 2}, "spec": {"size": 7}, "metadata": {"labels": {"l": "v"}}});
    let updated = admin.patch(&format!("{WIDGETS}/a/status"), MERGE, &status).await.expect(200);
    assert_eq!(updated["status"], json!({"replicas": 2}));
    assert_eq!(updated["spec"], json!({"size": 2, "colour": "blue"}));
    assert!(updated["metadata"].get("labels").is_none());
    assert_eq!(updated["metadata"]["generation"], 2);
    let strict = format!("{WIDGETS}?fieldValidation=Warn");
    let warned = admin.post(&strict, &widget("b", json!({"colour": "red", "unknown": 1}))).await;
    assert!(warned.header("warning").contains("unknown field"), "{}", warned.header("warning"));
    let applied = widget("b", json!({"size": 3}));
    let path = format!("{WIDGETS}/b?fieldManager=m");
    let applied = admin.patch(&path, "application/apply-patch+yaml", &applied).await.expect(200);
    assert_eq!(applied["spec"], json!({"colour": "red", "size": 3}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_have_the_declared_columns() {
    let (_server, admin) = with_widgets().await;
    admin.post(WIDGETS, &widget("a", json!({"size": 1}))).await.expect(201);
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    admin.patch(&format!("{WIDGETS}/a/status"), MERGE, &ready).await.expect(200);
    admin.post(WIDGETS, &widget("b", json!({}))).await.expect(201);
    let table = admin.fork().with_header(TABLE.0, TABLE.1).get(WIDGETS).await.expect(200);
    let columns: Vec<&str> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| column["name"].as_str().unwrap())
        .collect();
    assert_eq!(columns, ["Name", "Size", "Ready", "Since"]);
    let cells: Vec<String> = table["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| json!(row["cells"].as_array().unwrap()[..3]).to_string())
        .collect();
    assert_eq!(cells, [r#"["a",1,"False"]"#, r#"["b",null,null]"#]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn discovery_lists_what_is_served() {
    let (_server, admin) = with_widgets().await;
    let group = admin.get("/apis/example.com").await.expect(200);
    assert_eq!(group["preferredVersion"]["groupVersion"], "example.com/v1");
    let groups = admin.get("/apis").await.expect(200);
    assert_eq!(groups["groups"].as_array().unwrap().last().unwrap()["name"], "example.com");
    let list = admin.get("/apis/example.com/v1").await.expect(200);
    let own = &list["resources"][0];
    assert_eq!((&own["shortNames"], &own["categories"]), (&json!(["wd"]), &json!(["all"])));
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let all = admin.fork().with_header("accept", accept).get("/apis").await.expect(200);
    let own = all["items"].as_array().unwrap().iter().find(|item| item["metadata"]["name"] == "example.com");
    let own = &own.expect("the group")["versions"][0]["resources"][0];
    let kind = json!({"group": "example.com", "version": "v1", "kind": "Widget"});
    assert_eq!((&own["responseKind"], &own["scope"]), (&kind, &json!("Namespaced")));
    let subresources: Vec<&Value> =
        own["subresources"].as_array().unwrap().iter().map(|own| &own["subresource"]).collect();
    assert_eq!(subresources, ["status", "scale"]);
    admin.delete(&format!("{DEFINITIONS}/widgets.example.com")).await.expect(200);
    until(&admin, "widgets.example.com", |state| state.is_none()).await;
    // The catalog follows the definition; the last request that still finds the group is one too early.
    while admin.get("/apis/example.com").await.status == 200 {
        tokio::task::yield_now().await;
    }
    admin.get("/apis/example.com/v1").await.expect(404);
    admin.get(WIDGETS).await.expect(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_scale_is_found_by_its_paths() {
    let (_server, admin) = with_widgets().await;
    let scale = format!("{WIDGETS}/a/scale");
    admin.post(WIDGETS, &widget("a", json!({}))).await.expect(201);
    let missing = admin.get(&scale).await;
    assert_eq!(missing.status, 500);
    assert!(message(&missing).contains("the spec replicas field \".spec.replicas\" does not exist"));
    let empty = admin.patch(&scale, MERGE, &json!({"metadata": {"name": "a"}})).await;
    assert_eq!(
        (empty.status, message(&empty)),
        (400, "the spec replicas field \".spec.replicas\" cannot be empty".into())
    );
    let scaled = admin.patch(&scale, MERGE, &json!({"spec": {"replicas": 3}})).await.expect(200);
    assert_eq!(scaled["spec"]["replicas"], 3);
    let status = json!({"status": {"replicas": 2, "selector": "app=a"}});
    admin.patch(&format!("{WIDGETS}/a/status"), MERGE, &status).await.expect(200);
    let scaled = admin.get(&scale).await.expect(200);
    assert_eq!(scaled["status"], json!({"replicas": 2, "selector": "app=a"}));
    let negative = admin.patch(&scale, MERGE, &json!({"spec": {"replicas": -1}})).await;
    assert_eq!(negative.status, 422);
    assert!(
        message(&negative).contains(".spec.replicas: Invalid value: -1: should be a non-negative integer")
    );
    let absent = admin.get(&format!("{WIDGETS}/a/log")).await;
    assert_eq!((absent.status, message(&absent)), (404, "widgets.example.com \"a\" not found".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn declared_fields_can_be_selected_also_later() {
    let (_server, admin) = with_widgets().await;
    for (name, colour) in [("a", "red"), ("b", "blue")] {
        admin.post(WIDGETS, &widget(name, json!({"colour": colour, "size": 4}))).await.expect(201);
    }
    let red = admin.get(&format!("{WIDGETS}?fieldSelector=spec.colour%3Dred")).await.expect(200);
    assert_eq!(names(&red), ["a"]);
    let unknown = admin.get(&format!("{WIDGETS}?fieldSelector=spec.size%3D4")).await;
    assert_eq!((unknown.status, message(&unknown)), (400, "field label not supported: spec.size".into()));
    let more = json!([{"op": "add", "path": "/spec/versions/0/selectableFields/-", "value": {"jsonPath": ".spec.size"}}]);
    let path = format!("{DEFINITIONS}/widgets.example.com");
    admin.patch(&path, "application/json-patch+json", &more).await.expect(200);
    let selected = format!("{WIDGETS}?fieldSelector=spec.size%3D4,spec.colour!%3Dred");
    let mut found = admin.get(&selected).await;
    // It is served a moment after it was written.
    while found.status == 400 {
        tokio::task::yield_now().await;
        found = admin.get(&selected).await;
    }
    assert_eq!(found.names(), ["b"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_belongs_to_the_first_who_asks_until_it_is_given_back() {
    let (_server, admin) = with_widgets().await;
    let mut other = definition("gadgets", "Gadget", vec![version("v1", true, spec_schema(json!({})))]);
    other["spec"]["names"]["shortNames"] = json!(["wd"]);
    admin.post(DEFINITIONS, &other).await.expect(201);
    let refused = until(&admin, "gadgets.example.com", |state| {
        state.is_some_and(|own| condition(own, "NamesAccepted").is_some())
    })
    .await
    .expect("a definition");
    let names_accepted = condition(&refused, "NamesAccepted").unwrap();
    assert_eq!(
        (&names_accepted["reason"], &names_accepted["message"]),
        (&json!("ShortNamesConflict"), &json!("\"wd\" is already in use"))
    );
    assert_eq!(condition(&refused, "Established").unwrap()["reason"], "NotAccepted");
    admin.get("/apis/example.com/v1/gadgets").await.expect(404);
    admin.delete(&format!("{DEFINITIONS}/widgets.example.com")).await.expect(200);
    until(&admin, "gadgets.example.com", |state| state.is_some_and(is_established)).await;
    admin.get("/apis/example.com/v1/gadgets").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_hands_out_no_name_twice() {
    let store = Arc::new(storage_embedded::memory());
    let first = Server::start_on(store.clone()).await;
    let admin = first.admin();
    define(&admin, &widgets()).await;
    // Its name sorts before that of the one it is in conflict with.
    let mut other = definition("gadgets", "Gadget", vec![version("v1", true, spec_schema(json!({})))]);
    other["spec"]["names"]["shortNames"] = json!(["wd"]);
    admin.post(DEFINITIONS, &other).await.expect(201);
    let is_refused = |state: Option<&Value>| {
        state.and_then(|own| condition(own, "NamesAccepted")).is_some_and(|own| own["status"] == "False")
    };
    until(&admin, "gadgets.example.com", is_refused).await;
    drop(first);
    let second = Server::start_on(store).await;
    let admin = second.admin();
    // Whoever comes later is looked at after those who were there.
    let doodads = definition("doodads", "Doodad", vec![version("v1", true, spec_schema(json!({})))]);
    define(&admin, &doodads).await;
    let gadgets = admin.get(&format!("{DEFINITIONS}/gadgets.example.com")).await.expect(200);
    assert!(is_refused(Some(&gadgets)), "{}", gadgets["status"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_definition_goes_after_its_objects() {
    let (_server, admin) = with_widgets().await;
    let mut held = widget("held", json!({}));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    admin.post(WIDGETS, &held).await.expect(201);
    admin.post(WIDGETS, &widget("free", json!({}))).await.expect(201);
    let path = format!("{DEFINITIONS}/widgets.example.com");
    let deleted = admin.delete(&path).await.expect(200);
    assert_eq!(condition(&deleted, "Terminating").unwrap()["reason"], "InstanceDeletionPending");
    assert_eq!(deleted["metadata"]["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]));
    let is_at_it = |state: Option<&Value>| {
        state
            .and_then(|own| condition(own, "Terminating"))
            .is_some_and(|own| own["reason"] == "InstanceDeletionInProgress")
    };
    until(&admin, "widgets.example.com", is_at_it).await;
    let refused = admin.post(WIDGETS, &widget("late", json!({}))).await;
    assert_eq!(refused.status, 403);
    assert!(message(&refused).contains("create not allowed while custom resource definition is terminating"));
    let list = admin.get("/apis/example.com/v1").await.expect(200);
    assert_eq!(list["resources"][0]["verbs"], json!(["delete", "deletecollection", "get", "list", "watch"]));
    // What is there may still be changed, so that it can be let go.
    let released =
        admin.patch(&format!("{WIDGETS}/held"), MERGE, &json!({"metadata": {"finalizers": null}})).await;
    released.expect(200);
    until(&admin, "widgets.example.com", |state| state.is_none()).await;
    define(&admin, &widgets()).await;
    assert_eq!(names(&admin.get(WIDGETS).await.expect(200)), Vec::<String>::new(), "a new one begins empty");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_version_shows_its_own_fields() {
    let (_server, admin) = Server::with_namespace().await;
    let v1 = version("v1", true, spec_schema(json!({"a": {"type": "string"}, "b": {"type": "string"}})));
    let mut v1beta1 =
        version("v1beta1", false, spec_schema(json!({"a": {"type": "string", "default": "x"}})));
    v1beta1["deprecated"] = true.into();
    define(&admin, &definition("widgets", "Widget", vec![v1beta1, v1])).await;
    admin.post(WIDGETS, &widget("w", json!({"b": "kept"}))).await.expect(201);
    let beta = WIDGETS.replace("v1/", "v1beta1/");
    let read = admin.get(&format!("{beta}/w")).await;
    assert!(
        read.header("warning")
            .contains("example.com/v1beta1 Widget is deprecated; use example.com/v1 Widget")
    );
    let read = read.expect(200);
    assert_eq!((&read["apiVersion"], &read["spec"]), (&json!("example.com/v1beta1"), &json!({"a": "x"})));
    let listed = admin.get(&beta).await.expect(200);
    assert_eq!(listed["items"][0]["spec"], json!({"a": "x"}));
    let mut watch = admin.stream(&format!("{beta}?watch=true")).await;
    assert_eq!(watch.next().await.expect("an event")["object"]["spec"], json!({"a": "x"}));
    admin.patch(&format!("{WIDGETS}/w"), MERGE, &json!({"spec": {"a": "y"}})).await.expect(200);
    assert_eq!(watch.next().await.expect("an event")["object"]["spec"], json!({"a": "y"}));
    assert_eq!(admin.get(&format!("{WIDGETS}/w")).await.expect(200)["spec"], json!({"a": "y", "b": "kept"}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_default_shows_in_old_objects() {
    let (_server, admin) = with_widgets().await;
    admin.post(WIDGETS, &widget("old", json!({"size": 1}))).await.expect(201);
    let more = json!([{
        "op": "add", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/shape",
        "value": {"type": "string", "default": "round"},
    }]);
    let path = format!("{DEFINITIONS}/widgets.example.com");
    admin.patch(&path, "application/json-patch+json", &more).await.expect(200);
    let mut read = admin.get(&format!("{WIDGETS}/old")).await.expect(200);
    while read["spec"].get("shape").is_none() {
        tokio::task::yield_now().await;
        read = admin.get(&format!("{WIDGETS}/old")).await.expect(200);
    }
    assert_eq!(read["spec"], json!({"size": 1, "colour": "blue", "shape": "round"}));
    let written =
        admin.patch(&format!("{WIDGETS}/old"), MERGE, &json!({"spec": {"size": 2}})).await.expect(200);
    assert_eq!(written["spec"]["shape"], "round");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definitions_and_objects_survive_a_restart() {
    let store = Arc::new(storage_embedded::memory());
    let first = Server::start_on(store.clone()).await;
    first.add_namespace("t", json!({})).await;
    let admin = first.admin();
    define(&admin, &widgets()).await;
    admin.post(WIDGETS, &widget("a", json!({"colour": "red"}))).await.expect(201);
    drop(first);
    let second = Server::start_on(store).await;
    let admin = second.admin();
    let red = admin.get(&format!("{WIDGETS}?fieldSelector=spec.colour%3Dred")).await.expect(200);
    assert_eq!(names(&red), ["a"]);
    admin.delete(&format!("{DEFINITIONS}/widgets.example.com")).await.expect(200);
    until(&admin, "widgets.example.com", |state| state.is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn collections_are_deleted_and_protobuf_is_refused() {
    let (_server, admin) = with_widgets().await;
    for name in ["a", "b"] {
        admin.post(WIDGETS, &widget(name, json!({}))).await.expect(201);
    }
    let protobuf = admin.fork().with_header("accept", "application/vnd.kubernetes.protobuf");
    assert_eq!(protobuf.get(WIDGETS).await.status, 406);
    let both = "application/vnd.kubernetes.protobuf,application/json";
    admin.fork().with_header("accept", both).get(WIDGETS).await.expect(200);
    let metadata = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let partial = admin.fork().with_header("accept", metadata).get(WIDGETS).await.expect(200);
    assert_eq!(partial["items"][0]["kind"], "PartialObjectMetadata");
    admin.delete(WIDGETS).await.expect(200);
    assert_eq!(names(&admin.get(WIDGETS).await.expect(200)), Vec::<String>::new());
}
