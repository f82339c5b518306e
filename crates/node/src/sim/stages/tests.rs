//! Stages as users write them, played against a fake API.

use std::time::Duration;

use apimachinery::{Value, json};
use client::Discovered;
use client::fake::FakeApi;
use tokio::sync::oneshot;

use super::*;
use crate::sim::{SimOptions, run};
use api::gvr::{CONFIG_MAPS, EVENTS};

/// A cluster of so many simulated nodes in which Stages are known.
async fn start(api: &Arc<FakeApi>, nodes: usize, pods: u32) -> Shutdown {
    let shutdown = Shutdown::new();
    let (ready, is_ready) = oneshot::channel();
    let (api, stop) = (api.clone(), shutdown.clone());
    rt::spawn("sim", async move {
        let informers = Informers::new(api.clone(), stop.clone());
        let options = SimOptions { count: nodes, pods, ..SimOptions::default() };
        run(api, &informers, options, ready, stop).await.unwrap();
    });
    is_ready.await.unwrap();
    shutdown
}

fn served() -> Arc<FakeApi> {
    let api = FakeApi::new();
    let verbs = ["create", "delete", "get", "list", "patch", "update", "watch"];
    api.register(Discovered {
        gvr: STAGES,
        kind: "Stage".into(),
        namespaced: false,
        verbs: verbs.iter().map(|verb| Str::from(*verb)).collect(),
    });
    api.seed(json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "stages.kwok.x-k8s.io"},
        "status": {"conditions": [{"type": "Established", "status": "True"}]},
    }));
    api
}

fn seed_stage(api: &FakeApi, name: &str, spec: &str) {
    let mut stage =
        json!({"apiVersion": "kwok.x-k8s.io/v1alpha1", "kind": "Stage", "metadata": {"generation": 1}});
    stage.set_at(&["metadata", "name"], name);
    stage.set_at(&["spec"], Value::parse_yaml(spec).unwrap());
    api.seed(stage);
}

fn seed_pod(api: &FakeApi, name: &str, metadata: Value) {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata,
        "spec": {"nodeName": "sim-node-0", "containers": [{"name": "c", "image": "app"}]},
        "status": {"phase": "Pending"}});
    pod.set_at(&["metadata", "name"], name);
    pod.set_at(&["metadata", "namespace"], "default");
    api.seed(pod);
}

fn pod(api: &FakeApi, name: &str) -> Value {
    api.peek(&PODS, "default", name).map(|pod| pod.to_value()).unwrap_or_default()
}

fn phase(api: &FakeApi, name: &str) -> String {
    pod(api, name).str_at(&["status", "phase"]).to_owned()
}

fn events(api: &FakeApi) -> Vec<String> {
    let about = |event: &Object| {
        let event = event.to_value();
        let part = |path: &[&str]| event.str_at(path).to_owned();
        let name = part(&["involvedObject", "name"]);
        format!("{} {} {}: {}", part(&["type"]), part(&["reason"]), name, part(&["message"]))
    };
    api.peek_all(&EVENTS).iter().map(|event| about(event)).collect()
}

async fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = rt::instant() + Duration::from_secs(20);
    while !reached() {
        assert!(rt::instant() < deadline, "not reached: {what}");
        rt::sleep(Duration::from_millis(2)).await;
    }
}

const CREATED: &str = r#"
resourceRef: {kind: Pod}
selector:
  matchExpressions:
  - {key: .metadata.deletionTimestamp, operator: DoesNotExist}
  - {key: .status.podIP, operator: DoesNotExist}
delay:
  durationMilliseconds: 1
  durationFrom: {expressionFrom: '.metadata.annotations["delay"]'}
next:
  event: {type: Normal, reason: Created, message: Created container}
  statusTemplate: |
    {{ $now := Now }}
    containerStatuses:
    {{ range .spec.containers }}
    - name: {{ .name | Quote }}
      ready: false
      state: {waiting: {reason: ContainerCreating}}
    {{ end }}
    hostIP: {{ NodeIPWith .spec.nodeName | Quote }}
    podIP: {{ PodIPWith .spec.nodeName ( or .spec.hostNetwork false ) .metadata.uid .metadata.name .metadata.namespace | Quote }}
    phase: Pending
"#;

const STARTED: &str = r#"
resourceRef: {apiGroup: v1, kind: Pod}
selector:
  matchExpressions:
  - {key: .metadata.deletionTimestamp, operator: DoesNotExist}
  - {key: '.status.containerStatuses.[].state.waiting.reason', operator: In, values: [ContainerCreating]}
steps:
- patch:
    subresource: status
    root: status
    template: |
      phase: Running
      containerStatuses:
      {{ range $index, $own := .spec.containers }}
      - name: {{ $own.name | Quote }}
        ready: true
        image: {{ (index $.spec.containers $index).image | Quote }}
        state: {running: {startedAt: {{ Now | Quote }}}}
      {{ end }}
"#;

#[tokio::test]
async fn pods_go_from_stage_to_stage() {
    let api = served();
    seed_stage(&api, "pod-create", CREATED);
    seed_stage(&api, "pod-ready", STARTED);
    let shutdown = start(&api, 1, 110).await;
    for n in 0..50 {
        seed_pod(&api, &format!("p{n}"), json!({}));
    }
    until("all running", || (0..50).all(|n| phase(&api, &format!("p{n}")) == "Running")).await;
    let addresses: std::collections::HashSet<String> =
        (0..50).map(|n| pod(&api, &format!("p{n}")).str_at(&["status", "podIP"]).to_owned()).collect();
    assert_eq!(addresses.len(), 50);
    let first = pod(&api, "p0");
    assert_eq!(first.str_at(&["status", "hostIP"]), "172.16.0.1");
    assert_eq!(first["status"]["containerStatuses"][0].str_at(&["image"]), "app");
    until("told", || events(&api).iter().any(|event| event.starts_with("Normal Created p"))).await;
    shutdown.cancel();
}

#[tokio::test]
async fn a_slow_start_waits_and_a_change_starts_the_wait_anew() {
    let api = served();
    seed_stage(&api, "pod-create", CREATED);
    seed_stage(&api, "pod-ready", STARTED);
    let shutdown = start(&api, 1, 110).await;
    seed_pod(&api, "slow", json!({"annotations": {"delay": "1h"}}));
    seed_pod(&api, "quick", json!({}));
    until("the quick one runs", || phase(&api, "quick") == "Running").await;
    assert_eq!(phase(&api, "slow"), "Pending");
    api.edit(&PODS, "default", "slow", |pod| pod.set_at(&["metadata", "annotations", "delay"], "1ms"));
    until("it runs, too", || phase(&api, "slow") == "Running").await;
    shutdown.cancel();
}

#[tokio::test]
async fn stages_replace_what_is_built_in_until_the_last_is_gone() {
    let api = served();
    let shutdown = start(&api, 1, 110).await;
    seed_pod(&api, "before", json!({"labels": {"marked": "yes"}}));
    until("built in", || phase(&api, "before") == "Running").await;
    seed_stage(
        &api,
        "mark",
        "resourceRef: {kind: Pod}\nselector: {matchLabels: {marked: 'yes'}}\nnext:\n  statusTemplate: 'reason: Marked'",
    );
    let marked = |name: &str| pod(&api, name).str_at(&["status", "reason"]) == "Marked";
    until("taken over", || marked("before")).await;
    seed_pod(&api, "probe", json!({"labels": {"marked": "yes"}}));
    until("replaced", || pod(&api, "probe").str_at(&["status", "reason"]) == "Marked").await;
    assert_eq!(phase(&api, "probe"), "Pending");
    api.drop_object(&STAGES, "", "mark");
    until("built in again", || phase(&api, "probe") == "Running").await;
    shutdown.cancel();
}

#[tokio::test]
async fn a_template_that_fails_is_told_on_the_object_and_stops_no_other() {
    let api = served();
    seed_stage(&api, "pod-create", CREATED);
    seed_stage(&api, "pod-ready", STARTED);
    seed_stage(
        &api,
        "crash",
        "resourceRef: {kind: Pod}\nselector: {matchLabels: {crash: 'yes'}}\nweight: 100\nnext:\n  statusTemplate: |\n    a: {{ index .status.nothing 0 }}",
    );
    let shutdown = start(&api, 1, 110).await;
    seed_pod(&api, "bad", json!({"labels": {"crash": "yes"}}));
    seed_pod(&api, "good", json!({}));
    until("the good one runs", || phase(&api, "good") == "Running").await;
    let told = "Warning StageFailed bad: stage crash: template: _:1:6: executing \"_\" at \
                <index .status.nothing 0>: error calling index: index of untyped nil";
    until("told", || events(&api).iter().any(|event| event == told)).await;
    assert_eq!(phase(&api, "bad"), "Pending");
    shutdown.cancel();
}

#[tokio::test]
async fn an_invalid_stage_says_why_and_that_it_is_well_again() {
    let api = served();
    let shutdown = start(&api, 1, 110).await;
    seed_stage(
        &api,
        "bad",
        "resourceRef: {kind: Pod}\nselector:\n  matchExpressions:\n  - {key: .a, operator: Like, values: [b]}",
    );
    let condition = || {
        let stage = api.peek(&STAGES, "", "bad").map(|stage| stage.to_value()).unwrap_or_default();
        let condition = &stage["status"]["conditions"][0];
        format!("{} {}", condition.str_at(&["status"]), condition.str_at(&["message"]))
    };
    let told = "False spec.selector.matchExpressions[0].operator: Unsupported value: \"Like\": supported values: \
                \"In\", \"NotIn\", \"Exists\", \"DoesNotExist\"";
    until("told", || condition() == told).await;
    api.edit(&STAGES, "", "bad", |stage| {
        stage.set_at(&["spec", "selector", "matchExpressions"], json!([]));
        stage.set_at(&["metadata", "generation"], 7);
    });
    until("well", || condition() == "True ").await;
    shutdown.cancel();
}

#[tokio::test]
async fn a_node_fails_and_recovers_as_scripted() {
    let api = served();
    let fails = r#"
resourceRef: {kind: Node}
selector:
  matchLabels: {broken: 'yes'}
  matchExpressions:
  - {key: '.status.conditions.[] | select(.type == "Ready") | .status', operator: In, values: ['True']}
next:
  statusTemplate: |
    conditions:
    {{ range NodeConditions }}{{ if eq .type "Ready" }}
    - {type: Ready, status: "False", reason: Broken, message: {{ .message | Quote }}, lastTransitionTime: {{ Now | Quote }}}
    {{ end }}{{ end }}
"#;
    let works = r#"
resourceRef: {kind: Node}
selector:
  matchExpressions:
  - {key: '.metadata.labels.broken', operator: NotIn, values: ['yes']}
  - {key: '.status.conditions.[] | select(.type == "Ready") | .status', operator: NotIn, values: ['True']}
next:
  statusTemplate: |
    conditions:
    - {type: Ready, status: "True", reason: KubeletReady, lastTransitionTime: {{ Now | Quote }}}
    addresses:
    - {type: InternalIP, address: {{ NodeIP | Quote }}}
"#;
    seed_stage(&api, "fails", fails);
    seed_stage(&api, "works", works);
    let shutdown = start(&api, 2, 110).await;
    let ready = |name: &str| {
        let node = api.peek(&NODES, "", name).and_then(|node| node.view::<api::view::Node>().ok());
        node.is_some_and(|node| node.is_ready())
    };
    until("ready", || ready("sim-node-0") && ready("sim-node-1")).await;
    api.edit(&NODES, "", "sim-node-1", |node| node.set_at(&["metadata", "labels", "broken"], "yes"));
    until("broken", || !ready("sim-node-1")).await;
    assert!(ready("sim-node-0"));
    api.edit(&NODES, "", "sim-node-1", |node| node.set_at(&["metadata", "labels", "broken"], "no"));
    until("recovered", || ready("sim-node-1")).await;
    shutdown.cancel();
}

#[tokio::test]
async fn finalizers_are_put_and_taken_and_pods_deleted() {
    let api = served();
    seed_stage(
        &api,
        "guard",
        "resourceRef: {kind: Pod}\nselector:\n  matchExpressions:\n  - {key: .metadata.deletionTimestamp, operator: DoesNotExist}\n  - {key: .metadata.finalizers, operator: DoesNotExist}\nnext:\n  finalizers: {add: [{value: example.com/guard}]}",
    );
    seed_stage(
        &api,
        "leave",
        "resourceRef: {kind: Pod}\nselector:\n  matchExpressions:\n  - {key: .metadata.deletionTimestamp, operator: Exists}\nnext:\n  finalizers: {empty: true}\n  delete: true",
    );
    let shutdown = start(&api, 1, 110).await;
    seed_pod(&api, "p", json!({}));
    let finalizers = || pod(&api, "p")["metadata"]["finalizers"].to_json_string();
    until("guarded", || finalizers() == "[\"example.com/guard\"]").await;
    let grace = client::DeleteOptions { grace_period_seconds: Some(30), ..Default::default() };
    client::Api::delete(&*api, &PODS, "default", "p", &grace).await.unwrap();
    until("gone", || api.peek(&PODS, "default", "p").is_none()).await;
    shutdown.cancel();
}

#[tokio::test]
async fn a_pod_waits_for_an_address() {
    let api = served();
    seed_stage(&api, "pod-create", CREATED);
    seed_stage(&api, "pod-ready", STARTED);
    let shutdown = start(&api, 1, 1).await;
    seed_pod(&api, "holder", json!({}));
    until("running", || phase(&api, "holder") == "Running").await;
    seed_pod(&api, "starved", json!({}));
    seed_pod(&api, "other", json!({"annotations": {"delay": "1h"}}));
    api.drop_object(&PODS, "default", "holder");
    until("its turn", || phase(&api, "starved") == "Running").await;
    shutdown.cancel();
}

#[tokio::test]
async fn any_kind_can_be_played() {
    let api = served();
    seed_stage(
        &api,
        "fill",
        "resourceRef: {apiGroup: v1, kind: ConfigMap}\nselector:\n  matchExpressions:\n  - cel: {expression: '!has(self.data)'}\nsteps:\n- patch: {root: data, template: 'name: {{ .metadata.name }}'}",
    );
    let shutdown = start(&api, 1, 110).await;
    api.seed(
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "default"}}),
    );
    until("filled", || {
        api.peek(&CONFIG_MAPS, "default", "c")
            .is_some_and(|map| map.to_value().str_at(&["data", "name"]) == "c")
    })
    .await;
    shutdown.cancel();
}

#[test]
fn every_definition_says_what_a_field_is() {
    for definition in definitions::definitions() {
        let spec = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        let mut stack = vec![("spec".to_owned(), spec)];
        while let Some((path, schema)) = stack.pop() {
            assert!(!schema.str_at(&["description"]).is_empty(), "{path}");
            let fields = schema["properties"].as_object();
            for (name, field) in fields.into_iter().flat_map(|fields| fields.iter()) {
                stack.push((format!("{path}.{name}"), field));
            }
        }
    }
}
