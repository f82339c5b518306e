//! Whole cycles with an extender that a plain server plays.

use std::collections::BTreeMap;
use std::time::Duration;

use api::gvr::EVENTS;
use apimachinery::{Value, json};
use client::fake::FakeApi;
use client::{Api, Informers};
use parking_lot::Mutex;
use rt::Shutdown;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::*;
use crate::configuration::Configuration;
use crate::{Options, run};

type Answers = BTreeMap<&'static str, (u16, Value)>;

/// A server that has an answer for each verb, and remembers what it was sent.
struct Server {
    port: u16,
    answers: Mutex<Answers>,
    asked: Mutex<Vec<(String, Value)>>,
}

impl Server {
    async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = Arc::new(Self { port, answers: Mutex::default(), asked: Mutex::default() });
        let serving = server.clone();
        rt::spawn("extender", async move {
            while let Ok((stream, _)) = listener.accept().await {
                rt::spawn("extender connection", serving.clone().serve(stream));
            }
        });
        server
    }

    fn answer(&self, verb: &'static str, answer: Value) {
        self.answers.lock().insert(verb, (200, answer));
    }

    /// What a verb was sent, the last time.
    fn sent(&self, verb: &str) -> Option<Value> {
        self.asked.lock().iter().rev().find(|(own, _)| own == verb).map(|(_, sent)| sent.clone())
    }

    async fn serve(self: Arc<Self>, mut stream: TcpStream) {
        let mut seen = Vec::new();
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut chunk).await {
            seen.extend_from_slice(&chunk[..count]);
            let Some((verb, body)) = request(&seen) else { continue };
            seen.clear();
            self.asked.lock().push((verb.clone(), body));
            let answer = self.answers.lock().get(verb.as_str()).cloned();
            // A verb without an answer never gets one.
            let Some((code, answer)) = answer else { return std::future::pending().await };
            let body = answer.to_json_string();
            let head = format!(
                "HTTP/1.1 {code} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            if stream.write_all(format!("{head}{body}").as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

/// The verb and body of a request that is complete.
fn request(seen: &[u8]) -> Option<(String, Value)> {
    let text = std::str::from_utf8(seen).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok())?;
    let verb = head.split_whitespace().nth(1)?.strip_prefix("/base/")?.to_owned();
    (body.len() >= length)
        .then(|| (verb, Value::from(serde_json::from_str::<serde_json::Value>(body).unwrap())))
}

/// A cluster with two nodes, and a scheduler with an extender.
struct World {
    api: Arc<FakeApi>,
    server: Arc<Server>,
    shutdown: Shutdown,
}

impl World {
    /// `fields` are the extender's besides its URL.
    async fn start(fields: &str) -> Self {
        Self::start_with(Server::start().await, fields).await
    }

    async fn start_with(server: Arc<Server>, fields: &str) -> Self {
        let api = FakeApi::new();
        for node in ["a", "b"] {
            api.seed(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node, "labels": {"own": node}},
                "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}}}));
        }
        let text = format!(
            "{{apiVersion: kubescheduler.config.k8s.io/v1, kind: KubeSchedulerConfiguration, podInitialBackoffSeconds: 1,\
             extenders: [{{urlPrefix: 'http://127.0.0.1:{}/base', {fields}}}]}}",
            server.port
        );
        let configuration = Configuration::parse(std::path::Path::new("s.yaml"), &text).unwrap();
        let options = Options { configuration, ..Options::default() };
        let shutdown = Shutdown::new();
        let (ready, is_ready) = oneshot::channel();
        let (used, stop): (Arc<dyn Api>, _) = (api.clone(), shutdown.clone());
        rt::spawn("scheduler", async move {
            let informers = Informers::new(used.clone(), stop.clone());
            run(used, &informers, options, ready, stop).await.unwrap();
        });
        is_ready.await.unwrap();
        Self { api, server, shutdown }
    }

    fn pod(&self, name: &str, resources: Value, priority: i64) {
        self.api.seed(
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
            "spec": {"schedulerName": "default-scheduler", "priority": priority,
                "containers": [{"name": "c", "resources": {"requests": resources}}]},
            "status": {"phase": "Pending"}}),
        );
    }

    fn node_of(&self, pod: &str) -> String {
        let pod = self.api.peek(&PODS, "default", pod).map(|pod| pod.to_value()).unwrap_or_default();
        pod.str_at(&["spec", "nodeName"]).to_owned()
    }

    fn told(&self, pod: &str) -> String {
        let pod = self.api.peek(&PODS, "default", pod).unwrap().to_value();
        let conditions = pod.array_at(&["status", "conditions"]);
        conditions.first().map(|own| own.str_at(&["message"]).to_owned()).unwrap_or_default()
    }

    async fn until(&self, what: &str, mut reached: impl FnMut(&Self) -> bool) {
        let deadline = rt::instant() + Duration::from_secs(20);
        while !reached(self) {
            assert!(rt::instant() < deadline, "not reached: {what}; asked {:?}", self.server.asked.lock());
            rt::sleep(Duration::from_millis(2)).await;
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn names(nodes: &Value) -> Vec<&str> {
    nodes.array_at(&["items"]).iter().map(|node| node.str_at(&["metadata", "name"])).collect()
}

#[tokio::test]
async fn nodes_are_refused_and_rated_with_all_that_is_known_of_them() {
    let world = World::start("filterVerb: filter, prioritizeVerb: rate, weight: 3").await;
    let node = |name: &str| json!({"metadata": {"name": name}});
    world.server.answer(
        "filter",
        json!({"Nodes": {"items": [node("a"), node("b")]}, "FailedNodes": null, "Error": ""}),
    );
    world.server.answer(
        "rate",
        json!([{"Host": "a", "Score": 1}, {"Host": "b", "Score": 10}, {"Host": "c", "Score": 5}]),
    );
    world.pod("p", json!({"cpu": "1"}), 0);
    world.until("bound", |world| world.node_of("p") == "b").await;
    let sent = world.server.sent("filter").unwrap();
    assert_eq!(sent.str_at(&["Pod", "metadata", "name"]), "p");
    let mut asked = names(&sent["Nodes"]);
    asked.sort_unstable();
    assert_eq!((asked, sent["NodeNames"].is_null()), (vec!["a", "b"], true));
    assert_eq!(sent["Nodes"]["items"][0].str_at(&["metadata", "labels", "own"]).len(), 1, "whole nodes");

    world.server.answer("filter", json!({"Nodes": {"items": [node("a")]}, "FailedNodes": {"b": "too hot"}}));
    world.pod("q", json!({"cpu": "1"}), 0);
    world.until("bound", |world| world.node_of("q") == "a").await;
    assert_eq!(names(&world.server.sent("rate").unwrap()["Nodes"]), ["a"], "the others are out");
}

#[tokio::test]
async fn an_extender_that_knows_the_nodes_is_sent_their_names() {
    let world = World::start("filterVerb: filter, nodeCacheCapable: true").await;
    world.server.answer("filter", json!({"NodeNames": ["b"]}));
    world.pod("p", json!({"cpu": "1"}), 0);
    world.until("bound", |world| world.node_of("p") == "b").await;
    let sent = world.server.sent("filter").unwrap();
    assert_eq!((sent.array_at(&["NodeNames"]).len(), sent["Nodes"].is_null()), (2, true));
    world.server.answer("filter", json!({"NodeNames": ["elsewhere"]}));
    world.pod("q", json!({"cpu": "1"}), 0);
    world.until("told", |world| !world.told("q").is_empty()).await;
    assert!(
        world
            .told("q")
            .contains(r#"claims a filtered node "elsewhere" which is not found in the input node list"#)
    );
}

#[tokio::test]
async fn a_pod_that_is_refused_everywhere_is_told_why_and_tried_again_after_any_event() {
    let world = World::start("filterVerb: filter").await;
    let refused = json!({"FailedNodes": {"a": "too hot"}, "FailedAndUnresolvableNodes": {"b": "broken", "a": "broken"}});
    world.server.answer("filter", refused);
    world.pod("p", json!({"cpu": "1"}), 0);
    world.until("told", |world| !world.told("p").is_empty()).await;
    assert_eq!(
        world.told("p"),
        "0/2 nodes are available: 2 broken. no new claims to deallocate, preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
    );
    world.server.answer("filter", json!({"Nodes": {"items": [{"metadata": {"name": "a"}}]}}));
    world.api.edit(&NODES, "", "b", |node| node.set_at(&["metadata", "labels", "own"], "other"));
    world.until("bound", |world| world.node_of("p") == "a").await;
}

#[tokio::test]
async fn one_that_fails_fails_the_attempt_unless_it_may_be_ignored() {
    for (ignorable, code, answer) in [
        (false, 500, json!({})),
        (false, 200, json!({"Error": "out of order"})),
        (false, 200, json!("no result")),
        (true, 500, json!({})),
        (true, 200, json!({"Error": "out of order"})),
    ] {
        let world =
            World::start(&format!("filterVerb: filter, ignorable: {ignorable}, httpTimeout: 10s")).await;
        world.server.answers.lock().insert("filter", (code, answer.clone()));
        world.pod("p", json!({"cpu": "1"}), 0);
        if ignorable {
            world.until("bound", |world| !world.node_of("p").is_empty()).await;
            continue;
        }
        world.until("told", |world| !world.told("p").is_empty()).await;
        let told = world.told("p");
        let expected = match (code, answer["Error"].as_str()) {
            (500, _) => format!(
                "failed filter with extender at URL http://127.0.0.1:{}/base/filter, code 500",
                world.server.port
            ),
            (_, Some(error)) => error.to_owned(),
            _ => "invalid type: string".to_owned(),
        };
        assert!(told.starts_with(&expected), "{told}");
    }
}

#[tokio::test]
async fn one_that_does_not_answer_is_given_up() {
    let world = World::start("filterVerb: filter, httpTimeout: 50ms").await;
    world.pod("p", json!({"cpu": "1"}), 0);
    world.until("told", |world| !world.told("p").is_empty()).await;
    let told = world.told("p");
    assert!(
        told.contains("context deadline exceeded") && told.starts_with("Post \"http://127.0.0.1:"),
        "{told}"
    );
}

#[tokio::test]
async fn only_pods_that_want_what_it_manages_are_its_business() {
    let fields =
        "filterVerb: filter, bindVerb: bind, managedResources: [{name: x.io/gpu, ignoredByScheduler: true}]";
    let world = World::start(fields).await;
    world.server.answer("filter", json!({"Nodes": {"items": [{"metadata": {"name": "b"}}]}}));
    world.server.answer("bind", json!({}));
    world.pod("plain", json!({"cpu": "1"}), 0);
    world.until("bound", |world| !world.node_of("plain").is_empty()).await;
    assert!(world.server.asked.lock().is_empty());

    world.pod("wants", json!({"cpu": "1", "x.io/gpu": "1"}), 0);
    world.until("asked to bind", |world| world.server.sent("bind").is_some()).await;
    let uid = world.api.peek(&PODS, "default", "wants").unwrap().uid().to_owned();
    let sent = world.server.sent("bind").unwrap();
    assert_eq!(sent, json!({"PodName": "wants", "PodNamespace": "default", "PodUID": uid, "Node": "b"}));
    let told = || {
        let message = "Successfully assigned default/wants to b";
        world.api.peek_all(&EVENTS).iter().any(|event| event.to_value().str_at(&["message"]) == message)
    };
    world.until("told", |_| told()).await;
    assert_eq!(world.node_of("wants"), "", "the extender binds it");
}

#[tokio::test]
async fn a_binding_that_it_refuses_is_tried_again_or_left_to_the_plugins() {
    for ignorable in [false, true] {
        let world = World::start(&format!("bindVerb: bind, ignorable: {ignorable}")).await;
        world.server.answer("bind", json!({"Error": "not now"}));
        world.pod("p", json!({"cpu": "1"}), 0);
        if ignorable {
            world.until("bound", |world| !world.node_of("p").is_empty()).await;
        } else {
            world.until("told", |world| !world.told("p").is_empty()).await;
            assert_eq!(world.told("p"), r#"running Bind plugin "Extenders": not now"#);
        }
    }
}

#[tokio::test]
async fn it_chooses_whom_to_evict() {
    for by_uid in [true, false] {
        let world = World::start(&format!("preemptVerb: preempt, nodeCacheCapable: {by_uid}")).await;
        for name in ["one", "two"] {
            world.pod(name, json!({"cpu": "4"}), 0);
            world.until("bound", |world| !world.node_of(name).is_empty()).await;
        }
        let (dear, node) = ("two", world.node_of("two"));
        let uid = world.api.peek(&PODS, "default", dear).unwrap().uid().to_owned();
        let victims = json!({"Pods": [{"UID": uid}], "NumPDBViolations": 0});
        let chosen: Value = [(Str::from(node.clone()), victims)].into_iter().collect();
        world.server.answer("preempt", json!({"NodeNameToMetaVictims": chosen}));
        world.pod("high", json!({"cpu": "3"}), 10);
        let is_leaving = |pod: &str| world.api.peek(&PODS, "default", pod).unwrap().is_deleting();
        world.until("evicted", |_| is_leaving(dear)).await;
        assert!(!is_leaving("one"));
        world.api.drop_object(&PODS, "default", dear);
        world.until("bound", |world| world.node_of("high") == node).await;
        let sent = world.server.sent("preempt").unwrap();
        let (full, meta) = (&sent["NodeNameToVictims"], &sent["NodeNameToMetaVictims"]);
        assert_eq!((full.is_null(), meta.is_null()), (by_uid, !by_uid));
        let pods = &(if by_uid { meta } else { full })[node.as_str()]["Pods"][0];
        let shown = if by_uid { pods["UID"].as_str() } else { pods["metadata"]["uid"].as_str() };
        assert_eq!(shown, Some(uid.as_str()));
    }
}

#[tokio::test]
async fn without_a_candidate_that_it_leaves_nobody_is_evicted() {
    let world = World::start("preemptVerb: preempt").await;
    for name in ["one", "two"] {
        world.pod(name, json!({"cpu": "4"}), 0);
        world.until("bound", |world| !world.node_of(name).is_empty()).await;
    }
    for (answer, told) in [
        (json!({"NodeNameToMetaVictims": null}), "preemption: no candidate node for preemption"),
        (
            json!({"NodeNameToMetaVictims": {"a": {"Pods": []}}}),
            r#"preemption: expected at least one victim pod on node "a""#,
        ),
        (
            json!({"NodeNameToMetaVictims": {"a": {"Pods": [{"UID": "u"}]}}}),
            "claims to preempt pod (UID: u) on node: a, but the pod is not found on that node",
        ),
    ] {
        world.server.answer("preempt", answer);
        let name = format!("high-{}", told.len());
        world.pod(&name, json!({"cpu": "3"}), 10);
        world.until("told", |world| !world.told(&name).is_empty()).await;
        assert!(world.told(&name).ends_with(told), "{}", world.told(&name));
        let is_leaving = |pod: &str| world.api.peek(&PODS, "default", pod).unwrap().is_deleting();
        assert!(!is_leaving("one") && !is_leaving("two"));
    }
}

#[test]
fn what_cannot_be_called_is_refused_by_field() {
    let refused = |fields: &str| {
        let text = format!(
            "{{apiVersion: kubescheduler.config.k8s.io/v1, kind: KubeSchedulerConfiguration, extenders: [{{ignorable: true}}, {{{fields}}}]}}"
        );
        let configuration = Configuration::parse(std::path::Path::new("s.yaml"), &text).unwrap();
        let rows = crate::plugins::DEFAULT;
        configuration.profiles(rows, |_| crate::testing::handle()).err().unwrap().to_string()
    };
    for (fields, expected) in [
        ("urlPrefix: ''", r#"extenders[1].urlPrefix: Invalid value: "": "#),
        ("urlPrefix: 'http://a b'", r#"extenders[1].urlPrefix: Invalid value: "http://a b": Unparsable URL"#),
        (
            "urlPrefix: 'https://a', tlsConfig: {caData: '!'}",
            "extenders[1].tlsConfig.caData: Invalid value: not base64",
        ),
        (
            "urlPrefix: 'https://a', tlsConfig: {caFile: /no/where}",
            r#"extenders[1].tlsConfig.caFile: Invalid value: "/no/where": No such file"#,
        ),
        (
            "urlPrefix: 'https://a', tlsConfig: {certData: eA==}",
            "extenders[1].tlsConfig: Required value: a client certificate and its key",
        ),
        (
            "urlPrefix: 'https://a', tlsConfig: {insecure: true, caData: eA==}",
            "extenders[1].tlsConfig.insecure: Forbidden: specifying a root certificates file",
        ),
        (
            "urlPrefix: 'https://a', tlsConfig: {caData: eA==}",
            r#"extenders[1].urlPrefix: Invalid value: "https://a": unable to load root certificates"#,
        ),
    ] {
        let told = refused(fields);
        assert!(told.starts_with(&format!("--scheduler-config: s.yaml: {expected}")), "{told}");
    }
}
