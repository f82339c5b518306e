//! One row per situation.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use runtime::{ContainerState, ContainerStatus, SandboxState, SandboxStatus};

use super::*;
use crate::agent::config::labels;

/// Results by container ID: started and alive.
#[derive(Default)]
struct Probes(BTreeMap<&'static str, (Option<bool>, Option<bool>)>);

impl ProbeResults for Probes {
    fn started(&self, id: &str) -> Option<bool> {
        self.0.get(id)?.0
    }

    fn alive(&self, id: &str) -> Option<bool> {
        self.0.get(id)?.1
    }
}

fn pod(spec: serde_json::Value) -> Pod {
    let pod = serde_json::json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec});
    serde_json::from_value(pod).expect("a pod")
}

fn sandbox(id: &str, attempt: u32, state: SandboxState) -> SandboxStatus {
    SandboxStatus {
        id: id.into(),
        name: "p".into(),
        namespace: "n".into(),
        uid: "u".into(),
        attempt,
        state,
        created_at: Timestamp::UNIX_EPOCH,
        addresses: Vec::new(),
        host_network: false,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
    }
}

/// `name` is also its ID. Configured with the image `i`.
fn container(name: &str, state: ContainerState, exit_code: i32) -> ContainerStatus {
    let own = Container { name: name.into(), image: Some("i".into()), ..Container::default() };
    ContainerStatus {
        id: name.into(),
        sandbox_id: "s".into(),
        name: name.into(),
        state,
        exit_code,
        annotations: [(labels::HASH.to_owned(), format!("{:x}", labels::hash(&own)))].into(),
        ..ContainerStatus::default()
    }
}

fn running(name: &str) -> ContainerStatus {
    container(name, ContainerState::Running, 0)
}

fn exited(name: &str, code: i32) -> ContainerStatus {
    container(name, ContainerState::Exited, code)
}

/// What is to be done, in short: `kill-pod`, `sandbox N`, `kill NAME`, `start NAME#ATTEMPT`.
fn short(plan: &Plan) -> String {
    let mut words = Vec::new();
    if plan.kill_pod {
        words.push("kill-pod".to_owned());
    }
    words.extend(plan.create_sandbox.map(|attempt| format!("sandbox {attempt}")));
    words.extend(plan.kill.iter().map(|kill| format!("kill {}", kill.name)));
    words.extend(plan.start.iter().map(|start| format!("start {}#{}", start.name, start.attempt)));
    words.join(", ")
}

fn in_sandbox(pod: &Pod, containers: &[ContainerStatus], probes: &Probes) -> String {
    let sandboxes = vec![sandbox("s", 0, SandboxState::Ready)];
    short(&plan(pod, &Observed::new(sandboxes, containers.to_vec()), probes))
}

#[test]
fn a_sandbox_comes_first_and_again_when_it_is_lost() {
    let always = pod(serde_json::json!({"containers": [{"name": "a", "image": "i"}]}));
    let never =
        pod(serde_json::json!({"restartPolicy": "Never", "containers": [{"name": "a", "image": "i"}]}));
    let on_failure =
        pod(serde_json::json!({"restartPolicy": "OnFailure", "containers": [{"name": "a", "image": "i"}]}));
    let lost = || vec![sandbox("s", 0, SandboxState::NotReady)];
    for (pod, sandboxes, containers, wanted) in [
        (&always, vec![], vec![], "sandbox 0"),
        (&always, lost(), vec![], "kill-pod, sandbox 1"),
        (&always, lost(), vec![running("a")], "kill-pod, sandbox 1"),
        (&never, lost(), vec![], "kill-pod, sandbox 1"),
        (&never, lost(), vec![exited("a", 0)], "kill-pod"),
        (&on_failure, lost(), vec![exited("a", 0)], "kill-pod"),
        (&on_failure, lost(), vec![exited("a", 1)], "kill-pod, sandbox 1"),
    ] {
        let observed = Observed::new(sandboxes, containers);
        assert_eq!(short(&plan(pod, &observed, &Probes::default())), wanted);
    }
}

#[test]
fn containers_are_started_and_restarted_as_the_policy_says() {
    let spec = |policy: &str| {
        pod(serde_json::json!({"restartPolicy": policy,
            "containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]}))
    };
    for (policy, containers, wanted) in [
        ("Always", vec![], "start a#0, start b#0"),
        ("Always", vec![running("a")], "start b#0"),
        ("Always", vec![running("a"), running("b")], ""),
        ("Always", vec![running("a"), exited("b", 0)], "start b#1"),
        ("OnFailure", vec![running("a"), exited("b", 0)], ""),
        ("OnFailure", vec![running("a"), exited("b", 3)], "start b#1"),
        ("Never", vec![running("a"), exited("b", 3)], ""),
        ("Never", vec![exited("a", 0), exited("b", 3)], "kill-pod"),
        ("OnFailure", vec![exited("a", 0), exited("b", 0)], "kill-pod"),
        ("Always", vec![running("a"), container("b", ContainerState::Created, 0)], "start b#1"),
        ("Never", vec![running("a"), container("b", ContainerState::Unknown, 0)], "kill b, start b#1"),
    ] {
        assert_eq!(
            in_sandbox(&spec(policy), &containers, &Probes::default()),
            wanted,
            "{policy} {containers:?}"
        );
    }
}

#[test]
fn a_container_may_overrule_the_policy_by_its_own_and_by_exit_codes() {
    let rules = serde_json::json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]);
    let spec = pod(serde_json::json!({"restartPolicy": "Never", "containers": [
        {"name": "a", "image": "i", "restartPolicy": "Never", "restartPolicyRules": rules},
        {"name": "b", "image": "i", "restartPolicy": "OnFailure"},
        {"name": "c", "image": "i"}]}));
    for (codes, wanted) in [([42, 1, 1], "start a#1, start b#1"), ([1, 0, 1], "kill-pod")] {
        let containers =
            ["a", "b", "c"].iter().zip(codes).map(|(name, code)| exited(name, code)).collect::<Vec<_>>();
        assert_eq!(in_sandbox(&spec, &containers, &Probes::default()), wanted, "{codes:?}");
    }
}

#[test]
fn init_containers_run_one_after_another_and_before_the_others() {
    let spec = |policy: &str| {
        pod(serde_json::json!({"restartPolicy": policy,
            "initContainers": [{"name": "x", "image": "i"}, {"name": "y", "image": "i"}],
            "containers": [{"name": "a", "image": "i"}]}))
    };
    for (policy, containers, wanted) in [
        ("Always", vec![], "start x#0"),
        ("Always", vec![running("x")], ""),
        ("Always", vec![exited("x", 1)], "start x#1"),
        ("Never", vec![exited("x", 1)], "kill-pod"),
        ("Always", vec![exited("x", 0)], "start y#0"),
        ("Always", vec![exited("x", 0), exited("y", 0)], "start a#0"),
        ("Always", vec![exited("x", 0), exited("y", 0), running("a")], ""),
        // Over is over: an init container whose trace is gone is not run again beside the others.
        ("Always", vec![running("a")], ""),
        ("Always", vec![exited("a", 1)], "start a#1"),
    ] {
        assert_eq!(
            in_sandbox(&spec(policy), &containers, &Probes::default()),
            wanted,
            "{policy} {containers:?}"
        );
    }
}

#[test]
fn sidecars_start_in_order_stay_and_do_not_keep_a_pod_alive() {
    let sidecar = serde_json::json!({"name": "s", "image": "i", "restartPolicy": "Always",
        "startupProbe": {"tcpSocket": {"port": 1}}});
    let spec = pod(serde_json::json!({"restartPolicy": "Never",
        "initContainers": [sidecar, {"name": "x", "image": "i"}],
        "containers": [{"name": "a", "image": "i"}]}));
    let started = || Probes([("s", (Some(true), None))].into());
    for (containers, probes, wanted) in [
        (vec![], Probes::default(), "start s#0"),
        (vec![running("s")], Probes::default(), ""),
        (vec![running("s")], started(), "start x#0"),
        (vec![running("s"), running("x")], started(), ""),
        (vec![exited("s", 1), running("x")], Probes::default(), "start s#1"),
        (vec![running("s"), exited("x", 0)], started(), "start a#0"),
        (vec![exited("s", 0), exited("x", 0), running("a")], Probes::default(), "start s#1"),
        (vec![running("s"), exited("x", 0), exited("a", 0)], started(), "kill-pod"),
        (vec![exited("s", 0), exited("x", 0), exited("a", 0)], Probes::default(), "kill-pod"),
        (vec![running("s"), exited("x", 2)], started(), "kill-pod"),
    ] {
        assert_eq!(in_sandbox(&spec, &containers, &probes), wanted, "{containers:?}");
    }
}

#[test]
fn probes_and_changes_end_containers() {
    let spec = |image: &str, policy: &str| {
        pod(serde_json::json!({"restartPolicy": policy, "containers": [{"name": "a", "image": image}]}))
    };
    let dead = || Probes([("a", (None, Some(false)))].into());
    let stuck = || Probes([("a", (Some(false), None))].into());
    for (image, policy, probes, wanted) in [
        ("i", "Always", Probes::default(), ""),
        ("i", "Always", dead(), "kill a"),
        ("i", "Never", dead(), "kill a"),
        ("i", "Always", stuck(), "kill a"),
        ("j", "Always", Probes::default(), "kill a, start a#1"),
        ("j", "Never", Probes::default(), "kill a, start a#1"),
    ] {
        assert_eq!(in_sandbox(&spec(image, policy), &[running("a")], &probes), wanted, "{image} {policy}");
    }
}

#[test]
fn ephemeral_containers_are_started_once() {
    let spec = pod(serde_json::json!({"containers": [{"name": "a", "image": "i"}],
        "ephemeralContainers": [{"name": "debug", "image": "i"}]}));
    assert_eq!(in_sandbox(&spec, &[running("a")], &Probes::default()), "start debug#0");
    assert_eq!(in_sandbox(&spec, &[running("a"), exited("debug", 1)], &Probes::default()), "");
}

#[test]
fn nothing_is_started_in_a_pod_that_is_deleted() {
    let mut deleted = pod(serde_json::json!({"containers": [{"name": "a", "image": "i"}]}));
    deleted.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH));
    assert!(!should_restart(&deleted, &observed::containers(&deleted)[0], None));
}

#[test]
fn a_container_is_made_anew_where_its_policy_wants_that_for_what_changed() {
    let asks = |cpu: &str, memory: &str| serde_json::json!({"requests": {"cpu": cpu, "memory": memory}});
    let spec = |resources: serde_json::Value| {
        pod(serde_json::json!({"containers": [{"name": "a", "image": "i", "resources": resources,
            "resizePolicy": [{"resourceName": "memory", "restartPolicy": "RestartContainer"},
                             {"resourceName": "cpu", "restartPolicy": "NotRequired"}]}]}))
    };
    let given: k8s_openapi::api::core::v1::ResourceRequirements =
        serde_json::from_value(asks("1", "1Gi")).expect("resources");
    for (resources, wanted) in [
        (asks("1", "1Gi"), ""),
        (asks("1000m", "1024Mi"), ""),
        (asks("2", "1Gi"), ""),
        (asks("1", "2Gi"), "kill a, start a#1"),
        (asks("2", "2Gi"), "kill a, start a#1"),
    ] {
        let mut observed = Observed::new(vec![sandbox("s", 0, SandboxState::Ready)], vec![running("a")]);
        observed.given.containers.insert("a".into(), given.clone());
        assert_eq!(
            short(&plan(&spec(resources.clone()), &observed, &Probes::default())),
            wanted,
            "{resources}"
        );
    }
}
