//! Recorded requests, sent in order to one server; its answers against upstream's.

use http::Method;
use registry::ServiceNetwork;
use serde_json::{Value, json};

use crate::compare;
use crate::fairness::until_dangling;
use crate::known::{self, KNOWN};
use crate::recorded::{self, Exchange};
use crate::server::Server;
use crate::wire::{APPLY, Client, JSON, MERGE, Reply};

/// In the order in which they were recorded: later files need the objects of earlier ones.
const FILES: [&str; 12] = [
    "discovery",
    "create-minimal",
    "tables",
    "partial-metadata",
    "conversions-and-subresources",
    "validate-nonsense",
    "bad-input",
    "update-rules",
    "patches",
    "requests",
    "admission",
    "watch",
];

/// Whom the recording was made as; by impersonation, since a certificate carries no UID.
const RECORDER: [(&str, &str); 3] =
    [("impersonate-user", "admin"), ("impersonate-uid", "admin"), ("impersonate-group", "system:masters")];

/// Set to see every difference, also those that are known.
const SHOW_ALL: &str = "PINTLE_REPLAY_ALL";

/// An answer with its headers in the recorder's form.
struct Answered {
    status: u16,
    headers: Value,
    body: Value,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_requests_are_answered_as_upstream_answered() {
    let Some(folder) = recorded::folder() else { return };
    let server = recorded_server().await;
    let replayer = Replayer::new(&server);
    let show_all = std::env::var_os(SHOW_ALL).is_some();
    let (mut surprises, mut total, mut matched) = (Vec::new(), 0, 0);
    for file in FILES {
        prepare(&server, file).await;
        let exchanges = recorded::exchanges(&folder, file);
        let mut matched_here = 0;
        for exchange in &exchanges {
            let differences = replayer.replay(exchange).await;
            follow_up(&server, file, &exchange.case).await;
            matched_here += usize::from(differences.is_empty());
            let reason = known::reason(file, &exchange.case);
            if show_all && !differences.is_empty() {
                println!("~ {file}: {}\n    {}", exchange.case, differences.join("\n    "));
            }
            match (differences.is_empty(), reason) {
                (true, Some(reason)) => {
                    surprises.push(format!(
                        "{file}: {}: is known to differ ({reason}) and does not",
                        exchange.case
                    ));
                }
                (false, None) => {
                    surprises.push(format!("{file}: {}\n    {}", exchange.case, differences.join("\n    ")));
                }
                _ => {}
            }
        }
        println!("{file}: {matched_here} / {}", exchanges.len());
        total += exchanges.len();
        matched += matched_here;
    }
    println!("all: {matched} / {total}");
    let stale: Vec<_> =
        KNOWN.iter().filter(|known| !FILES.contains(&known.file)).map(|known| known.file).collect();
    assert!(stale.is_empty(), "known differences of files that are not replayed: {stale:?}");
    assert!(surprises.is_empty(), "{} surprises\n{}", surprises.len(), surprises.join("\n"));
}

/// A server with the flags of the recorded one.
async fn recorded_server() -> Server {
    let ports = "30000-32767".parse().expect("a range");
    let network = ServiceNetwork::parse("10.96.0.0/16", ports).expect("a block");
    Server::on_with(network, apiserver::Options { allow_privileged: false, ..Default::default() }).await
}

/// What was there in the recording and is in no transcript.
async fn prepare(server: &Server, file: &str) {
    match file {
        "discovery" => {
            server.add_namespace("rec", json!({})).await;
            for namespace in ["default", "kube-system", "kube-public", "kube-node-lease"] {
                server.fill_namespace(namespace).await;
            }
            for schema in
                server.admin().get("/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas").await.names()
            {
                until_dangling(&server.admin(), &schema, "False").await;
            }
            own_service_cidr(server).await;
        }
        // Steps of the recording that are in no file.
        "tables" => {
            let status = json!({"metadata": {"annotations": {"deployment.kubernetes.io/revision": "1"}}});
            let path =
                "/apis/apps/v1/namespaces/rec/deployments/min/status?fieldManager=kube-controller-manager";
            server.admin().patch(path, MERGE, &status).await.expect(200);
            until_dangling(&server.admin(), "min", "False").await;
        }
        "bad-input" => {
            let widget = json!({
                "apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w-valid-pruned-and-defaulted"},
                "spec": {
                    "size": 3, "free": {"any": [1]}, "pruned": true,
                    "items": [{"name": "a", "value": 5}, {"name": "b", "value": "x"}],
                },
            });
            let path = "/apis/example.com/v1/namespaces/rec/widgets?fieldManager=unknown";
            server.admin().post(path, &widget).await.expect(201);
        }
        "patches" => {
            let toleration = json!([{"op": "add", "path": "/spec/tolerations/-", "value": {"key": "k", "operator": "Exists"}}]);
            let path = "/api/v1/namespaces/rec/pods/min";
            server.admin().patch(path, "application/json-patch+json", &toleration).await.expect(200);
        }
        "requests" => {
            let path = "/api/v1/namespaces/rec/configmaps/min";
            server.admin().patch(path, MERGE, &json!({"immutable": true})).await.expect(200);
        }
        "admission" => {
            let level = "pod-security.kubernetes.io";
            let labels =
                json!({format!("{level}/enforce"): "baseline", format!("{level}/warn"): "restricted"});
            server.add_namespace("strict", labels).await;
            server.add_namespace("limits", json!({})).await;
            server.admin().delete("/api/v1/namespaces/rec/configmaps/min").await.expect(200);
        }
        _ => {}
    }
}

/// What the controller manager does with a new ServiceCIDR.
async fn own_service_cidr(server: &Server) {
    let path = "/apis/networking.k8s.io/v1/servicecidrs/kubernetes";
    let finalizer = json!({"metadata": {"finalizers": ["networking.k8s.io/service-cidr-finalizer"]}});
    let manager = "fieldManager=kube-controller-manager";
    server.admin().patch(&format!("{path}?{manager}"), MERGE, &finalizer).await.expect(200);
    let ready = json!({
        "type": "Ready", "status": "True", "reason": "", "message": "Kubernetes Service CIDR is ready",
        "lastTransitionTime": "2026-11-21T02:48:45Z",
    });
    let status = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"},
        "status": {"conditions": [ready]},
    });
    let manager = "fieldManager=service-cidr-controller&force=true";
    server.admin().patch(&format!("{path}/status?{manager}"), APPLY, &status).await.expect(200);
}

/// What controllers did in the recording after a request, as far as later answers show it.
async fn follow_up(server: &Server, file: &str, case: &str) {
    match (file, case) {
        ("patches", "strategic: null removes") => {
            let revision = json!({"metadata": {"annotations": {"deployment.kubernetes.io/revision": "4"}}});
            let path =
                "/apis/apps/v1/namespaces/rec/deployments/min/status?fieldManager=kube-controller-manager";
            server.admin().patch(path, MERGE, &revision).await.expect(200);
        }
        ("admission", "quota") => {
            // Two bundles of certificates were there; here there is one.
            let (hard, used) = (
                json!({"pods": "2", "configmaps": "1", "requests.memory": "1Gi"}),
                json!({"pods": "1", "configmaps": "2", "requests.memory": "0"}),
            );
            let status = json!({"status": {"hard": hard, "used": used}});
            let path = "/api/v1/namespaces/limits/resourcequotas/q/status";
            server.admin().patch(path, MERGE, &status).await.expect(200);
        }
        _ => {}
    }
}

struct Replayer {
    /// As the recorder.
    recorder: Client,
    /// With the recorder's rights, for requests that impersonate somebody themselves.
    admin: Client,
    anonymous: Client,
}

impl Replayer {
    fn new(server: &Server) -> Self {
        let recorder =
            RECORDER.iter().fold(server.admin(), |client, (name, value)| client.with_header(name, value));
        Self { recorder, admin: server.admin(), anonymous: server.anonymous() }
    }

    /// Sends one request; what is different about the answer.
    async fn replay(&self, exchange: &Exchange) -> Vec<String> {
        if exchange.response.get("events").is_some() {
            return self.replay_watch(exchange).await;
        }
        let reply = self.send(exchange).await;
        let is_create = exchange.request["method"] == "POST";
        if is_create && reply.status == 201 && exchange.response["status"] != 201 {
            self.undo(text(&exchange.request["path"]), &reply).await;
        }
        let mut actual = answered(&reply);
        let mut expected = exchange.response.clone();
        if let Value::String(text) = &expected["body"]
            && let Ok(parsed @ (Value::Object(_) | Value::Array(_))) = serde_json::from_str(text)
        {
            expected["body"] = parsed;
        }
        compare::without_controllers(&mut actual.body, is_create);
        compare::without_controllers(&mut expected["body"], is_create);
        let actual = json!({"status": actual.status, "headers": actual.headers, "body": actual.body});
        compare::differences(&expected, &actual)
    }

    /// Takes away what upstream refused, so that one difference does not make others.
    async fn undo(&self, path: &str, reply: &Reply) {
        let object = reply.json();
        let name = text(&object["metadata"]["name"]);
        let path = path.split('?').next().unwrap_or_default();
        let stored = object["metadata"]["resourceVersion"].is_string();
        if stored && !path.ends_with("/eviction") {
            self.admin.delete(&format!("{path}/{name}?gracePeriodSeconds=0")).await;
        }
    }

    async fn send(&self, exchange: &Exchange) -> Reply {
        let request = &exchange.request;
        let given = request["headers"].as_object().cloned().unwrap_or_default();
        let client = if given.get("Authorization").is_some_and(Value::is_null) {
            &self.anonymous
        } else if given.contains_key("Impersonate-User") {
            &self.admin
        } else {
            &self.recorder
        };
        let headers: Vec<(&str, &str)> =
            given.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_str()?))).collect();
        let (method, path) = (text(&request["method"]), text(&request["path"]));
        let body = match &request["body"] {
            _ if !exchange.change.is_empty() => self.changed(path, &exchange.change).await.to_string(),
            Value::Null => String::new(),
            Value::String(raw) => raw.clone(),
            tree => tree.to_string(),
        };
        client.send(method.parse::<Method>().expect("a method"), path, &headers, body).await
    }

    /// The stored object with changes made to it.
    async fn changed(&self, path: &str, changes: &[Value]) -> Value {
        let mut object = self.recorder.get(path).await.json();
        let token_volume = token_volume(&object);
        for change in changes {
            if let Some(path) = change["remove"].as_array() {
                let (last, parents) = path.split_last().expect("a path");
                let parent = parents.iter().fold(&mut object, |at, key| &mut at[text(key)]);
                parent.as_object_mut().map(|map| map.remove(text(last)));
            } else {
                let path = change["set"].as_array().expect("a path to set");
                *path.iter().fold(&mut object, |at, key| &mut at[text(key)]) =
                    with_token_volume(&change["value"], &token_volume);
            }
        }
        object
    }

    async fn replay_watch(&self, exchange: &Exchange) -> Vec<String> {
        let mut stream = self.recorder.stream(text(&exchange.request["path"])).await;
        for step in &exchange.while_open {
            let (method, path) = (text(&step["method"]), text(&step["path"]));
            let media = if method == "PATCH" { MERGE } else { JSON };
            let body = if step["body"].is_null() { String::new() } else { step["body"].to_string() };
            let method = method.parse::<Method>().expect("a method");
            self.recorder.send(method, path, &[("content-type", media)], body).await;
        }
        let status = stream.status;
        let mut events = Value::Array(stream.rest().await);
        let mut expected = exchange.response["events"].clone();
        for list in [&mut events, &mut expected] {
            for event in list.as_array_mut().into_iter().flatten() {
                compare::without_controllers(&mut event["object"], false);
            }
        }
        let expected = json!({"status": exchange.response["status"], "events": expected});
        compare::differences(&expected, &json!({"status": status, "events": events}))
    }
}

/// The random name of the volume with a pod's token.
const TOKEN_VOLUME: &str = "kube-api-access-";

fn token_volume(pod: &Value) -> String {
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten().map(|volume| text(&volume["name"]));
    volumes.into_iter().find(|name| name.starts_with(TOKEN_VOLUME)).unwrap_or_default().to_owned()
}

/// A recorded value with this pod's volume in place of the recorded pod's.
fn with_token_volume(value: &Value, own: &str) -> Value {
    match value {
        Value::String(name) if name.starts_with(TOKEN_VOLUME) && !own.is_empty() => own.into(),
        Value::Array(items) => items.iter().map(|item| with_token_volume(item, own)).collect(),
        Value::Object(map) => {
            map.iter().map(|(key, item)| (key.clone(), with_token_volume(item, own))).collect()
        }
        other => other.clone(),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn answered(reply: &Reply) -> Answered {
    let mut headers = json!({});
    for name in ["content-type", "warning"] {
        // The recorder kept the last of several.
        if let Some(value) = reply.headers.get_all(name).iter().next_back() {
            headers[name] = String::from_utf8_lossy(value.as_bytes()).into();
        }
    }
    let body = match serde_json::from_slice(&reply.body) {
        Ok(body) => body,
        Err(_) => Value::String(reply.text()),
    };
    Answered { status: reply.status, headers, body }
}
