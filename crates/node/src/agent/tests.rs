//! Pods on a node whose containers are a fake runtime's: what the agent asks for, and what it says.

use std::sync::Arc;
use std::time::Duration;

use api::gvr::{EVENTS, LEASES, NODES, PODS};
use apimachinery::{Value, json};
use camino::Utf8PathBuf;
use client::fake::FakeApi;
use runtime::fake::FakeRuntime;
use runtime::{ExecOutput, Runtime};

use super::*;

struct World {
    api: Arc<FakeApi>,
    runtime: Arc<FakeRuntime>,
    shutdown: Shutdown,
    folder: tempfile::TempDir,
    eviction: eviction::Settings,
    network: watch::Sender<NetworkReadiness>,
}

impl World {
    /// Nothing runs yet.
    fn new() -> Self {
        let world = Self {
            api: FakeApi::new(),
            runtime: FakeRuntime::new(),
            shutdown: Shutdown::new(),
            folder: tempfile::tempdir().expect("a folder"),
            eviction: eviction::Settings { thresholds: Vec::new(), ..eviction::Settings::default() },
            network: watch::Sender::new(Ok(())),
        };
        world.runtime.add_image("i");
        world
    }

    async fn start(seeds: Vec<Value>) -> Self {
        Self::start_with(
            seeds,
            eviction::Settings { thresholds: Vec::new(), ..eviction::Settings::default() },
        )
        .await
    }

    async fn start_with(seeds: Vec<Value>, eviction: eviction::Settings) -> Self {
        let mut world = Self::new();
        world.eviction = eviction;
        seeds.into_iter().for_each(|seed| drop(world.api.seed(seed)));
        world.run().await;
        world
    }

    async fn run(&self) -> Arc<Node> {
        self.begin().await.expect("the agent starts")
    }

    fn root(&self) -> Utf8PathBuf {
        Utf8PathBuf::from_path_buf(self.folder.path().to_path_buf()).expect("temporary paths are text")
    }

    /// Starts an agent that may find no API.
    fn begin(&self) -> oneshot::Receiver<Arc<Node>> {
        let root = self.root();
        let facts = NodeFacts {
            pods_root: root.join("pods"),
            logs_root: root.join("logs"),
            ..config::fixture::node()
        };
        let identity = Identity {
            name: facts.name.clone(),
            addresses: facts.addresses.clone(),
            labels: Vec::new(),
            taints: Vec::new(),
            pods_max: 110,
            kubelet_version: "v1.36.2".into(),
            runtime_version: "fake://1".into(),
            kubelet_port: 10250,
        };
        let options = Options {
            identity,
            facts,
            manifests: Some(root.join("manifests")),
            secrets_in_memory: false,
            root,
            runtime: self.runtime.clone(),
            network_ready: self.network.subscribe(),
            eviction: self.eviction.clone(),
            image_collection: images::collection::Settings::default(),
        };
        let (ready, is_ready) = oneshot::channel();
        let agent = run(self.api.clone(), options, ready, self.shutdown.clone());
        rt::spawn("agent", agent);
        is_ready
    }

    /// Stops the agent, as a crash would, and starts another.
    async fn restart(&mut self) {
        self.shutdown.cancel();
        self.shutdown = Shutdown::new();
        self.run().await;
    }

    fn pod(&self, name: &str) -> Value {
        self.api.peek(&PODS, "ns", name).map(|object| object.to_value()).unwrap_or_default()
    }

    /// The phase, and the state of the first container, as `Running running`.
    fn state(&self, name: &str) -> String {
        let pod = self.pod(name);
        let phase = pod.str_at(&["status", "phase"]).to_owned();
        let state = pod["status"]["containerStatuses"][0]["state"].as_object().map(|state| {
            let (kind, detail) =
                state.iter().next().map(|(kind, detail)| (kind.to_string(), detail.clone()))?;
            Some(format!("{kind} {}", detail.str_at(&["reason"])).trim().to_owned())
        });
        format!("{phase} {}", state.flatten().unwrap_or_default()).trim().to_owned()
    }

    async fn until(&self, what: &str, mut reached: impl FnMut(&Self) -> bool) {
        for _ in 0..10_000 {
            if reached(self) {
                return;
            }
            rt::sleep(Duration::from_millis(1)).await;
        }
        panic!(
            "not reached within ten seconds: {what}; calls {:?}; {}",
            self.runtime.take_calls(),
            self.pod("p")["status"]
        );
    }

    async fn until_state(&self, name: &str, wanted: &str) {
        self.until(wanted, |world| world.state(name) == wanted).await;
    }

    fn events(&self, reason: &str) -> Vec<String> {
        let events = self.api.peek_all(&EVENTS);
        let of_reason =
            events.iter().map(|event| event.to_value()).filter(|event| event.str_at(&["reason"]) == reason);
        of_reason.map(|event| event.str_at(&["message"]).to_owned()).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn pod(name: &str, spec: Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "ns"},
        "spec": {"containers": [{"name": "c", "image": "i", "imagePullPolicy": "IfNotPresent"}]},
    });
    for (key, value) in spec.as_object().into_iter().flat_map(|spec| spec.iter()) {
        pod.set_at(&["spec", key], value.clone());
    }
    pod.set_at(&["spec", "nodeName"], config::fixture::node().name);
    pod
}

#[tokio::test]
async fn a_node_registers_and_keeps_its_lease() {
    let world = World::start(vec![]).await;
    let name = config::fixture::node().name;
    let ready = |world: &World| {
        let node = world.api.peek(&NODES, "", &name).map(|node| node.to_value()).unwrap_or_default();
        let conditions = node.array_at(&["status", "conditions"]).to_vec();
        conditions.iter().any(|own| own.str_at(&["type"]) == "Ready" && own.str_at(&["status"]) == "True")
    };
    world.until("a ready node", ready).await;
    world.until("a lease", |world| world.api.peek(&LEASES, "kube-node-lease", &name).is_some()).await;
}

#[tokio::test]
async fn a_pod_runs_is_ready_and_leaves_nothing_when_it_is_deleted() {
    let world = World::start(vec![pod("p", json!({}))]).await;
    world.until_state("p", "Running running").await;
    let status = world.pod("p")["status"].clone();
    assert_eq!(status["containerStatuses"][0]["ready"], true.into());
    assert!(status.str_at(&["podIP"]).starts_with("10.0.0."));
    assert_eq!(world.events("Started"), ["Container started"]);
    world.api.edit(&PODS, "ns", "p", |pod| {
        pod.set_at(&["metadata", "deletionTimestamp"], apimachinery::time::format_seconds(rt::now()));
        pod.set_at(&["metadata", "deletionGracePeriodSeconds"], 1_i64);
    });
    world.until("the end of the pod", |world| world.api.peek(&PODS, "ns", "p").is_none()).await;
    world.until("an empty runtime", |world| world.runtime.is_empty()).await;
    assert_eq!(world.events("Killing"), ["Stopping container c"]);
}

#[tokio::test]
async fn a_pod_waits_for_the_network_unless_it_is_on_the_hosts() {
    let world = World::new();
    world.network.send_modify(|network| *network = Err(network_not_ready("no plugin")));
    world.api.seed(pod("p", json!({})));
    world.api.seed(pod("host", json!({"hostNetwork": true})));
    world.run().await;
    world.until_state("host", "Running running").await;
    world.until("it is said", |world| world.events("NetworkNotReady").len() == 1).await;
    let said = world.events("NetworkNotReady").remove(0);
    assert!(said.ends_with("NetworkReady=false reason:NetworkPluginNotReady message:no plugin"), "{said}");
    let calls = world.runtime.take_calls();
    assert!(!calls.contains(&"sandbox p".to_owned()), "{calls:?}");
    world.network.send_modify(|network| *network = Ok(()));
    world.until_state("p", "Running running").await;
    assert!(world.events("FailedCreatePodSandBox").is_empty());
}

#[tokio::test]
async fn a_container_that_fails_comes_back_and_then_waits() {
    let world = World::start(vec![pod("p", json!({"restartPolicy": "Always"}))]).await;
    world.until_state("p", "Running running").await;
    world.runtime.exit("c", 3);
    world
        .until("the restart", |world| {
            world.pod("p")["status"]["containerStatuses"][0]["restartCount"] == 1.into()
        })
        .await;
    world.until_state("p", "Running running").await;
    world.runtime.exit("c", 3);
    world.until_state("p", "Running waiting CrashLoopBackOff").await;
    let state = world.pod("p")["status"]["containerStatuses"][0].clone();
    let message = state["state"]["waiting"].str_at(&["message"]).to_owned();
    assert!(message.starts_with("back-off 10s restarting failed container=c pod=p_ns("), "{message}");
    assert_eq!(state["lastState"]["terminated"]["exitCode"], 3.into());
    assert_eq!(world.events("BackOff").len(), 1);
}

#[tokio::test]
async fn a_pod_that_is_done_keeps_its_containers_and_loses_its_sandbox() {
    for (policy, code, wanted) in [
        ("Never", 0, "Succeeded terminated Completed"),
        ("Never", 1, "Failed terminated Error"),
        ("OnFailure", 0, "Succeeded terminated Completed"),
    ] {
        let world = World::start(vec![pod("p", json!({"restartPolicy": policy}))]).await;
        world.until_state("p", "Running running").await;
        world.runtime.exit("c", code);
        world.until_state("p", wanted).await;
        world
            .until("a stopped sandbox", |world| {
                world.runtime.take_calls().iter().any(|call| call.starts_with("stop-sandbox"))
            })
            .await;
        assert_eq!(world.runtime.len(), 2, "for logs");
    }
}

#[tokio::test]
async fn init_containers_come_first_and_their_failure_is_the_pods() {
    let init = json!([{"name": "x", "image": "i", "imagePullPolicy": "IfNotPresent"}]);
    let world = World::start(vec![pod("p", json!({"initContainers": init, "restartPolicy": "Never"}))]).await;
    world.until("the init container", |world| world.runtime.running("x").is_some()).await;
    world.until_state("p", "Pending waiting PodInitializing").await;
    assert!(world.runtime.running("c").is_none());
    world.runtime.exit("x", 0);
    world.until_state("p", "Running running").await;

    let world = World::start(vec![pod("q", json!({"initContainers": init, "restartPolicy": "Never"}))]).await;
    world.until("the init container", |world| world.runtime.running("x").is_some()).await;
    world.runtime.exit("x", 1);
    world.until("a failed pod", |world| world.pod("q").str_at(&["status", "phase"]) == "Failed").await;
    assert!(world.runtime.config("c").is_none(), "it was never made");
}

#[tokio::test]
async fn an_agent_that_comes_back_finds_its_pods_and_ends_those_that_are_gone() {
    let mut world = World::start(vec![pod("p", json!({})), pod("gone", json!({}))]).await;
    world.until_state("p", "Running running").await;
    world.until_state("gone", "Running running").await;
    world.runtime.take_calls();
    world.shutdown.cancel();
    world.api.drop_object(&PODS, "ns", "gone");
    world.restart().await;
    world.until("the end of what is gone", |world| world.runtime.len() == 2).await;
    world.until_state("p", "Running running").await;
    let made: Vec<String> = world
        .runtime
        .take_calls()
        .into_iter()
        .filter(|call| call.starts_with("create") || call.starts_with("sandbox"))
        .collect();
    assert!(made.is_empty(), "{made:?}");
}

#[tokio::test]
async fn what_cannot_be_started_says_why_and_is_tried_again() {
    let world = World::start(vec![]).await;
    let failures = Arc::new(std::sync::atomic::AtomicUsize::new(1));
    let left = failures.clone();
    world.runtime.fail(move |call, _| {
        let fails = call == "pull"
            && left
                .fetch_update(
                    std::sync::atomic::Ordering::SeqCst,
                    std::sync::atomic::Ordering::SeqCst,
                    |left| left.checked_sub(1),
                )
                .is_ok();
        fails.then(|| runtime::Error::Failed("no route to host".into()))
    });
    let container = json!([{"name": "c", "image": "other", "imagePullPolicy": "Always"}]);
    world.api.seed(pod("p", json!({"containers": container})));
    world.until_state("p", "Pending waiting ErrImagePull").await;
    assert_eq!(
        world.events("Failed"),
        ["Failed to pull image \"other\": no route to host", "Error: ErrImagePull"]
    );
    let missing = json!([{"name": "c", "image": "i", "imagePullPolicy": "IfNotPresent",
        "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "k"}}}]}]);
    world.api.seed(pod("q", json!({"containers": missing})));
    world.until_state("q", "Pending waiting CreateContainerConfigError").await;
    assert!(world.events("Failed").contains(&"Error: configmap \"none\" not found".to_owned()));
    let never = json!([{"name": "c", "image": "absent", "imagePullPolicy": "Never"}]);
    world.api.seed(pod("r", json!({"containers": never})));
    world.until_state("r", "Pending waiting ErrImageNeverPull").await;
}

#[tokio::test]
async fn a_pod_past_its_deadline_fails() {
    let world =
        World::start(vec![pod("p", json!({"activeDeadlineSeconds": 1, "terminationGracePeriodSeconds": 1}))])
            .await;
    world
        .until("its failure", |world| world.pod("p").str_at(&["status", "reason"]) == "DeadlineExceeded")
        .await;
    assert_eq!(world.pod("p").str_at(&["status", "phase"]), "Failed");
    world.until("its end", |world| world.runtime.running("c").is_none()).await;
}

#[tokio::test]
async fn a_liveness_probe_that_fails_restarts_the_container() {
    let probe = json!({"exec": {"command": ["check"]}, "periodSeconds": 1, "failureThreshold": 1});
    let container =
        json!([{"name": "c", "image": "i", "imagePullPolicy": "IfNotPresent", "livenessProbe": probe}]);
    let world = World::start(vec![]).await;
    world.runtime.answer_exec("check", ExecOutput { exit_code: 1, ..ExecOutput::default() });
    world.api.seed(pod("p", json!({"containers": container, "restartPolicy": "Always"})));
    world
        .until("a restart", |world| {
            world.pod("p")["status"]["containerStatuses"][0]["restartCount"] == 1.into()
        })
        .await;
    assert!(
        world.events("Killing").contains(&"Container c failed liveness probe, will be restarted".to_owned())
    );
    assert!(world.runtime.version().await.is_ok());
}

/// Looks often, and forgets pressure at once.
fn quick(hard: &str) -> eviction::Settings {
    let flags = eviction::thresholds::Flags { hard, soft: "", soft_grace: "", reclaim: "" };
    eviction::Settings {
        thresholds: eviction::thresholds::parse(flags).expect("well formed"),
        transition: Duration::ZERO,
        period: Duration::from_millis(10),
        ..eviction::Settings::default()
    }
}

#[tokio::test]
async fn a_pod_for_which_there_is_no_room_is_refused() {
    let asks = json!([{"name": "c", "image": "i", "resources": {"requests": {"cpu": "100k"}}}]);
    let world = World::start(vec![pod("p", json!({"containers": asks})), pod("q", json!({}))]).await;
    world.until("the refusal", |world| world.pod("p").str_at(&["status", "reason"]) == "OutOfcpu").await;
    let status = world.pod("p")["status"].clone();
    assert_eq!(status.str_at(&["phase"]), "Failed");
    let wanted =
        "Pod was rejected: Node didn't have enough resource: cpu, requested: 100000000, used: 0, capacity: ";
    assert!(status.str_at(&["message"]).starts_with(wanted), "{status}");
    assert_eq!(world.events("OutOfcpu").len(), 1);
    world.until_state("q", "Running running").await;
    assert_eq!(world.runtime.len(), 2, "nothing was made of the other");
}

#[tokio::test]
async fn a_node_that_is_short_of_something_evicts_a_pod_and_takes_no_other() {
    // No machine has so many processes to spare.
    let critical = pod("critical", json!({"priority": 2_000_001_000_i64}));
    let world = World::start_with(vec![pod("p", json!({})), critical], quick("pid.available<100Gi")).await;
    world.until("the eviction", |world| world.pod("p").str_at(&["status", "reason"]) == "Evicted").await;
    let status = world.pod("p")["status"].clone();
    assert_eq!(status.str_at(&["phase"]), "Failed");
    world.until_state("critical", "Running running").await;
    let name = config::fixture::node().name;
    world
        .until("the condition", |world| {
            let node = world.api.peek(&NODES, "", &name).map(|node| node.to_value()).unwrap_or_default();
            let conditions = node.array_at(&["status", "conditions"]).to_vec();
            conditions.iter().any(|own| {
                own.str_at(&["type"]) == "PIDPressure"
                    && own.str_at(&["reason"]) == "KubeletHasInsufficientPID"
            })
        })
        .await;
    world.api.seed(pod("late", json!({})));
    world.until("the refusal", |world| world.pod("late").str_at(&["status", "reason"]) == "Evicted").await;
    let message = world.pod("late").str_at(&["status", "message"]).to_owned();
    assert_eq!(message, "Pod was rejected: The node had condition: [PIDPressure]. ");
}

#[tokio::test]
async fn a_volume_over_its_limit_ends_its_pod() {
    let container = json!([{"name": "c", "image": "i", "imagePullPolicy": "IfNotPresent",
        "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]);
    let volumes = json!([{"name": "v", "emptyDir": {"sizeLimit": "64Ki"}}]);
    let spec = json!({"containers": container, "volumes": volumes});
    let world = World::start_with(vec![pod("p", spec)], quick("")).await;
    world.until_state("p", "Running running").await;
    let uid = world.pod("p").str_at(&["metadata", "uid"]).to_owned();
    let folder = world.folder.path().join("pods").join(uid).join("volumes/kubernetes.io~empty-dir/v");
    std::fs::write(folder.join("file"), vec![1; 128 << 10]).expect("the volume is there");
    world.until("the eviction", |world| world.pod("p").str_at(&["status", "reason"]) == "Evicted").await;
    let wanted = "Usage of EmptyDir volume \"v\" exceeds the limit \"64Ki\". ";
    assert_eq!(world.pod("p").str_at(&["status", "message"]), wanted);
    assert_eq!(world.events("Evicted"), [wanted]);
    world.until("its end", |world| world.runtime.running("c").is_none()).await;
}

mod resizing;
mod static_pods;
