//! What is said of a pod in each of its situations.

use std::collections::BTreeMap;

use expect_test::expect;
use jiff::Timestamp;
use runtime::{ContainerState, SandboxState, SandboxStatus};

use super::super::plan::ProbeResults;
use super::*;

/// Container IDs that are started, and that are ready.
struct Probes(&'static [&'static str], &'static [&'static str]);

impl ProbeResults for Probes {
    fn started(&self, id: &str) -> Option<bool> {
        self.0.contains(&id).then_some(true)
    }

    fn alive(&self, _: &str) -> Option<bool> {
        None
    }
}

impl Readiness for Probes {
    fn ready(&self, id: &str) -> Option<bool> {
        self.1.contains(&id).then_some(true)
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("a time")
}

fn pod(spec: serde_json::Value, status: serde_json::Value) -> Pod {
    let metadata = serde_json::json!({"name": "p", "namespace": "n", "uid": "u", "generation": 3});
    serde_json::from_value(serde_json::json!({"metadata": metadata, "spec": spec, "status": status}))
        .expect("a pod")
}

fn sandbox(host_network: bool) -> SandboxStatus {
    SandboxStatus {
        id: "s".into(),
        name: "p".into(),
        namespace: "n".into(),
        uid: "u".into(),
        attempt: 0,
        state: SandboxState::Ready,
        created_at: at(0),
        addresses: if host_network { Vec::new() } else { vec!["10.244.0.5".parse().expect("an address")] },
        host_network,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
    }
}

fn container(name: &str, state: ContainerState, exit_code: i32) -> runtime::ContainerStatus {
    runtime::ContainerStatus {
        id: name.into(),
        sandbox_id: "s".into(),
        name: name.into(),
        state,
        exit_code,
        started_at: (state != ContainerState::Created).then(|| at(1)),
        finished_at: (state == ContainerState::Exited).then(|| at(2)),
        image: "sha256:i".into(),
        image_reference: "example.com/i:1".into(),
        image_digest: "example.com/i@sha256:d".into(),
        ..runtime::ContainerStatus::default()
    }
}

struct Case {
    pod: Pod,
    observed: Observed,
    course: Course,
    waiting: BTreeMap<String, Waiting>,
    is_over: bool,
    ended: Option<Ended>,
    probes: Probes,
}

impl Case {
    fn new(spec: serde_json::Value, containers: Vec<runtime::ContainerStatus>) -> Self {
        Self {
            pod: pod(spec, serde_json::json!({})),
            observed: Observed::new(vec![sandbox(false)], containers),
            course: Course::default(),
            waiting: BTreeMap::new(),
            is_over: false,
            ended: None,
            probes: Probes(&[], &[]),
        }
    }

    fn status(&self) -> PodStatus {
        status(&Facts {
            pod: &self.pod,
            course: &self.course,
            observed: &self.observed,
            probes: &self.probes,
            waiting: &self.waiting,
            host_addresses: &["192.0.2.1".parse().expect("an address")],
            is_over: self.is_over,
            ended: self.ended.as_ref(),
            runtime_name: "pintle",
            now: at(9),
        })
    }

    /// The phase, and which conditions are true.
    fn summary(&self) -> String {
        let status = self.status();
        let conditions = status.conditions.unwrap_or_default();
        let on: Vec<&str> =
            conditions.iter().filter(|own| own.status == "True").map(|own| own.type_.as_str()).collect();
        format!("{}: {}", status.phase.unwrap_or_default(), on.join(" "))
    }
}

fn one() -> serde_json::Value {
    serde_json::json!({"containers": [{"name": "a", "image": "i"}]})
}

#[test]
fn phases_follow_containers() {
    use ContainerState::{Created, Exited, Running};
    let policy = |policy: &str| serde_json::json!({"restartPolicy": policy, "containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]});
    for (spec, states, phase) in [
        (policy("Always"), vec![], "Pending"),
        (policy("Always"), vec![(Created, 0), (Running, 0)], "Pending"),
        (policy("Always"), vec![(Running, 0), (Running, 0)], "Running"),
        (policy("Always"), vec![(Running, 0), (Exited, 1)], "Running"),
        (policy("Always"), vec![(Exited, 0), (Exited, 0)], "Running"),
        (policy("OnFailure"), vec![(Exited, 0), (Exited, 0)], "Succeeded"),
        (policy("OnFailure"), vec![(Exited, 0), (Exited, 1)], "Running"),
        (policy("Never"), vec![(Exited, 0), (Exited, 1)], "Failed"),
        (policy("Never"), vec![(Running, 0), (Exited, 1)], "Running"),
    ] {
        let containers = ["a", "b"]
            .iter()
            .zip(&states)
            .map(|(name, (state, code))| container(name, *state, *code))
            .collect();
        assert_eq!(Case::new(spec, containers).status().phase.as_deref(), Some(phase), "{states:?}");
    }
}

#[test]
fn a_pod_that_was_told_to_end_failed_unless_all_ended_well() {
    use ContainerState::Exited;
    for (code, phase) in [(0, "Succeeded"), (143, "Failed")] {
        let mut case = Case::new(one(), vec![container("a", Exited, code)]);
        case.is_over = true;
        assert_eq!(case.status().phase.as_deref(), Some(phase));
    }
    let mut case = Case::new(one(), vec![container("a", Exited, 0)]);
    case.ended = Some(Ended {
        reason: "Evicted".into(),
        message: "The node was low on resource: memory.".into(),
        ..Ended::default()
    });
    let status = case.status();
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("Evicted")));
}

#[test]
fn conditions_say_how_far_it_is() {
    use ContainerState::{Exited, Running};
    let probed = serde_json::json!({"containers": [{"name": "a", "image": "i", "readinessProbe": {"tcpSocket": {"port": 1}}}]});
    let initialized = serde_json::json!({"initContainers": [{"name": "x", "image": "i"}], "containers": [{"name": "a", "image": "i"}]});
    let gated = serde_json::json!({"readinessGates": [{"conditionType": "g"}], "containers": [{"name": "a", "image": "i"}]});
    let all = "Running: PodReadyToStartContainers Initialized Ready ContainersReady PodScheduled";
    let mut ready = Case::new(probed.clone(), vec![container("a", Running, 0)]);
    ready.probes = Probes(&[], &["a"]);
    for (case, wanted) in [
        (Case::new(one(), vec![container("a", Running, 0)]), all),
        (
            Case::new(probed, vec![container("a", Running, 0)]),
            "Running: PodReadyToStartContainers Initialized PodScheduled",
        ),
        (ready, all),
        (
            Case::new(initialized.clone(), vec![container("x", Running, 0)]),
            "Pending: PodReadyToStartContainers PodScheduled",
        ),
        (Case::new(initialized, vec![container("x", Exited, 0), container("a", Running, 0)]), all),
        (
            Case::new(gated, vec![container("a", Running, 0)]),
            "Running: PodReadyToStartContainers Initialized ContainersReady PodScheduled",
        ),
    ] {
        assert_eq!(case.summary(), wanted);
    }
}

#[test]
fn what_others_say_of_a_pod_stays_and_times_do_not_move_without_a_change() {
    let mut case = Case::new(one(), vec![container("a", ContainerState::Running, 0)]);
    case.pod = pod(
        one(),
        serde_json::json!({"startTime": "2026-01-01T00:00:00Z", "conditions": [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:01Z"},
            {"type": "Initialized", "status": "False", "lastTransitionTime": "2026-01-01T00:00:01Z"},
            {"type": "example.com/gate", "status": "True"}]}),
    );
    let status = case.status();
    let conditions = status.conditions.unwrap_or_default();
    let of = |kind: &str| conditions.iter().find(|own| own.type_ == kind).cloned().unwrap_or_default();
    assert_eq!(
        of("Ready").last_transition_time.map(|time| time.0.to_string()).as_deref(),
        Some("2026-01-01T00:00:01Z")
    );
    assert_eq!(of("Initialized").last_transition_time.map(|time| time.0), Some(at(9)));
    assert_eq!(of("example.com/gate").status, "True");
    assert_eq!(status.start_time.map(|time| time.0.to_string()).as_deref(), Some("2026-01-01T00:00:00Z"));
}

#[test]
fn a_container_that_waits_says_why_and_how_it_ended_before() {
    let mut case = Case::new(one(), vec![container("a", ContainerState::Exited, 3)]);
    let waiting = Waiting { reason: "CrashLoopBackOff".into(), message: "back-off 10s".into() };
    case.waiting.insert("a".into(), waiting);
    let statuses = case.status().container_statuses.unwrap_or_default();
    let text = serde_json::to_string_pretty(&statuses[0]).expect("plain data");
    expect![[r#"
        {
          "containerID": "pintle://a",
          "image": "example.com/i:1",
          "imageID": "example.com/i@sha256:d",
          "lastState": {
            "terminated": {
              "containerID": "pintle://a",
              "exitCode": 3,
              "finishedAt": "2027-01-15T08:00:02Z",
              "reason": "Error",
              "startedAt": "2027-01-15T08:00:01Z"
            }
          },
          "name": "a",
          "ready": false,
          "restartCount": 0,
          "started": false,
          "state": {
            "waiting": {
              "message": "back-off 10s",
              "reason": "CrashLoopBackOff"
            }
          }
        }"#]]
    .assert_eq(&text);
}

#[test]
fn a_pod_on_the_hosts_network_has_the_hosts_addresses() {
    let mut case = Case::new(
        serde_json::json!({"hostNetwork": true, "containers": [{"name": "a", "image": "i"}]}),
        vec![container("a", ContainerState::Running, 0)],
    );
    case.observed = Observed::new(vec![sandbox(true)], vec![container("a", ContainerState::Running, 0)]);
    let status = case.status();
    assert_eq!(status.pod_ip.as_deref(), Some("192.0.2.1"));
    assert_eq!(status.host_ip.as_deref(), Some("192.0.2.1"));
    let own = Case::new(one(), vec![]).status();
    assert_eq!(own.pod_ip.as_deref(), Some("10.244.0.5"));
}

#[test]
fn a_container_without_a_trace_was_lost_if_it_ran_before() {
    let mut case = Case::new(one(), vec![]);
    let state = serde_json::json!({"containerStatuses": [{"name": "a", "image": "i", "imageID": "", "ready": true,
        "restartCount": 1, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]});
    case.pod = pod(one(), state);
    let status = |case: &Case| case.status().container_statuses.unwrap_or_default().remove(0);
    let again = status(&case);
    assert_eq!(again.restart_count, 2);
    let last = again.last_state.and_then(|state| state.terminated).unwrap_or_default();
    assert_eq!((last.exit_code, last.reason.as_deref()), (137, Some("ContainerStatusUnknown")));
    case.is_over = true;
    assert!(status(&case).state.and_then(|state| state.terminated).is_some());
}

#[test]
fn a_resize_is_told_while_it_lasts_and_containers_tell_what_they_were_given() {
    use crate::agent::resize::decision::Reason;
    use crate::agent::resize::{Pending, Progress};
    let asks = |cpu: &str| serde_json::json!({"requests": {"cpu": cpu}});
    let spec = serde_json::json!({"containers": [{"name": "a", "image": "i", "resources": asks("2")}]});
    let mut case = Case::new(spec.clone(), vec![container("a", ContainerState::Running, 0)]);
    let given = serde_json::from_value(asks("1")).expect("resources");
    case.observed.given.containers.insert("a".into(), given);
    let pending =
        Pending { reason: Reason::Deferred, message: "no room".into(), generation: 3, since: at(1) };
    let stuck = Progress { error: Some("used".into()), generation: 2 };
    case.course = Course { pending: Some(pending), progress: Some(stuck) };
    let status = case.status();
    let told = |status: &PodStatus| {
        let conditions = status.conditions.iter().flatten().filter(|own| own.type_.starts_with("PodResize"));
        let texts = conditions.map(|own| {
            let generation = own.observed_generation.unwrap_or_default();
            let (reason, message) = (own.reason.as_deref(), own.message.as_deref());
            format!(
                "{} {} {generation} {} {}",
                own.type_,
                own.status,
                reason.unwrap_or_default(),
                message.unwrap_or_default()
            )
        });
        texts.collect::<Vec<_>>()
    };
    assert_eq!(
        told(&status),
        ["PodResizePending True 3 Deferred no room", "PodResizeInProgress True 2 Error used"]
    );
    let own = &status.container_statuses.as_ref().expect("one")[0];
    let cpu = |list: Option<&BTreeMap<String, _>>| {
        let amount: Option<&k8s_openapi::apimachinery::pkg::api::resource::Quantity> =
            list.and_then(|list| list.get("cpu"));
        amount.map(|amount| amount.0.clone()).unwrap_or_default()
    };
    assert_eq!(cpu(own.resources.as_ref().and_then(|own| own.requests.as_ref())), "1");
    assert_eq!(cpu(own.allocated_resources.as_ref()), "2");

    // A node that comes back reads its conditions, and takes them away once they are over.
    case.pod.status = Some(status);
    let read = Course::of(&case.pod);
    assert_eq!(read.progress, case.course.progress);
    assert_eq!(read.pending.map(|own| (own.reason, own.generation)), Some((Reason::Deferred, 3)));
    case.course = Course { pending: None, progress: Some(Progress { error: None, generation: 3 }) };
    assert_eq!(told(&case.status()), ["PodResizeInProgress True 3  "]);
    case.course = Course::default();
    assert_eq!(told(&case.status()), Vec::<String>::new());
}
