//! What happens to simulated pods: a table of stages, the first that matches applies.
//!
//! Owns: the built-in stages, which are KWOK's fast ones, and the statuses they lead to. Never touches: the API.
//!
//! | stage        | when                                   | next                                    |
//! |--------------|----------------------------------------|-----------------------------------------|
//! | pod-delete   | it is being deleted                    | deleted at once, finalizers permitting  |
//! | pod-ready    | pending                                | running and ready                       |
//! | pod-complete | running and owned by a Job             | succeeded                               |
//!
//! The `Stage` API of KWOK will make such tables from objects; what follows a match stays the same.

use std::net::Ipv4Addr;
use std::time::Duration;

use api::view::{Condition, Container, Pod};
use apimachinery::{Str, Value};

/// One row.
pub(super) struct Stage {
    pub name: &'static str,
    pub matches: fn(&Pod) -> bool,
    /// Between the match and the next step.
    pub delay: Duration,
    pub next: Next,
}

/// What follows a match.
pub(super) enum Next {
    /// Patch the status, with an address of the pod's own.
    Status(fn(&Pod, &Surroundings) -> Value),
    /// Delete without grace.
    Delete,
}

/// What a status tells beyond the pod itself.
pub(super) struct Surroundings {
    /// RFC 3339.
    pub now: Str,
    /// `None` for a node without an address.
    pub host_ip: Option<Str>,
    pub pod_ip: Option<Ipv4Addr>,
}

/// The built-in stages.
pub(super) const FAST: &[Stage] = &[
    Stage { name: "pod-delete", matches: is_to_be_deleted, delay: Duration::ZERO, next: Next::Delete },
    Stage {
        name: "pod-ready",
        matches: is_to_be_started,
        delay: Duration::ZERO,
        next: Next::Status(running),
    },
    Stage {
        name: "pod-complete",
        matches: is_to_be_completed,
        delay: Duration::ZERO,
        next: Next::Status(succeeded),
    },
];

/// The stage that applies now.
pub(super) fn first_match<'a>(stages: &'a [Stage], pod: &Pod) -> Option<&'a Stage> {
    stages.iter().find(|stage| (stage.matches)(pod))
}

/// A pod that was deleted without grace already waits for its finalizers only; the API server then removes it.
fn is_to_be_deleted(pod: &Pod) -> bool {
    let metadata = &pod.metadata;
    let awaits_finalizers =
        metadata.deletion_grace_period_seconds == Some(0) && !metadata.finalizers.is_empty();
    pod.is_deleting() && !awaits_finalizers
}

fn is_to_be_started(pod: &Pod) -> bool {
    !pod.is_deleting() && matches!(pod.status.phase.as_str(), "" | "Pending") && !pod.is_ready()
}

fn is_to_be_completed(pod: &Pod) -> bool {
    let owned = pod.metadata.owner_references.iter().any(|owner| owner.kind == "Job");
    !pod.is_deleting() && pod.status.phase == "Running" && owned
}

/// Everything started and ready, in one step.
fn running(pod: &Pod, around: &Surroundings) -> Value {
    let now = &around.now;
    let types = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"];
    let gates = pod.spec.readiness_gates.iter().map(|gate| gate.condition_type.as_str());
    let conditions = types.into_iter().chain(gates).map(|type_| condition(pod, type_, "True", "", now));
    let mut fields = vec![
        ("conditions", conditions.collect()),
        (
            "containerStatuses",
            pod.spec.containers.iter().map(|own| container_running(pod, own, now)).collect(),
        ),
        ("observedGeneration", pod.metadata.generation.into()),
        ("phase", "Running".into()),
        ("startTime", now.clone().into()),
    ];
    if !pod.spec.init_containers.is_empty() {
        let statuses =
            pod.spec.init_containers.iter().map(|own| init_container_done(pod, own, now)).collect();
        fields.push(("initContainerStatuses", statuses));
    }
    let ip_list = |ip: &Str| Value::from_iter([object([("ip", ip.clone().into())])]);
    if let Some(host_ip) = &around.host_ip {
        fields.push(("hostIP", host_ip.clone().into()));
        fields.push(("hostIPs", ip_list(host_ip)));
    }
    let own_ip = around.pod_ip.map(|ip| Str::from(ip.to_string()));
    let pod_ip = if pod.spec.host_network { around.host_ip.clone() } else { own_ip };
    if let Some(pod_ip) = pod_ip {
        fields.push(("podIPs", ip_list(&pod_ip)));
        fields.push(("podIP", pod_ip.into()));
    }
    object(fields)
}

/// All containers ended well.
fn succeeded(pod: &Pod, around: &Surroundings) -> Value {
    let now = &around.now;
    let started = pod.status.start_time.as_ref().unwrap_or(now);
    let containers = pod.spec.containers.iter().map(|own| {
        let mut status = container_status(pod, own, false);
        status.push(("started", false.into()));
        status.push(("state", terminated(started, now)));
        object(status)
    });
    let types = ["PodReadyToStartContainers", "Ready", "ContainersReady"];
    let conditions = types.into_iter().map(|type_| condition(pod, type_, "False", "PodCompleted", now));
    object([
        ("conditions", conditions.collect()),
        ("containerStatuses", containers.collect()),
        ("observedGeneration", pod.metadata.generation.into()),
        ("phase", "Succeeded".into()),
    ])
}

/// Keeps the time of the last transition where the status is the same already.
fn condition(pod: &Pod, type_: &str, status: &'static str, reason: &'static str, now: &Str) -> Value {
    let old: Option<&Condition> = pod.condition(type_).filter(|old| old.status == status);
    let since = old.and_then(|old| old.last_transition_time.clone()).unwrap_or_else(|| now.clone());
    let mut fields = vec![
        ("lastTransitionTime", since.into()),
        ("observedGeneration", pod.metadata.generation.into()),
        ("status", status.into()),
        ("type", type_.into()),
    ];
    if !reason.is_empty() {
        fields.push(("reason", reason.into()));
    }
    object(fields)
}

fn container_running(pod: &Pod, container: &Container, now: &Str) -> Value {
    let mut status = container_status(pod, container, true);
    status.push(("started", true.into()));
    status.push(("state", object([("running", object([("startedAt", now.clone().into())]))])));
    object(status)
}

fn init_container_done(pod: &Pod, container: &Container, now: &Str) -> Value {
    if container.is_sidecar() {
        return container_running(pod, container, now);
    }
    let mut status = container_status(pod, container, true);
    status.push(("started", false.into()));
    status.push(("state", terminated(now, now)));
    object(status)
}

fn container_status(pod: &Pod, container: &Container, ready: bool) -> Vec<(&'static str, Value)> {
    vec![
        ("containerID", Str::from(format!("sim://{}-{}", pod.metadata.uid, container.name)).into()),
        ("image", container.image.clone().into()),
        ("imageID", Str::from(format!("sim://{}", container.image)).into()),
        ("lastState", Value::object()),
        ("name", container.name.clone().into()),
        ("ready", ready.into()),
        ("restartCount", 0.into()),
    ]
}

fn terminated(started: &Str, finished: &Str) -> Value {
    let end = object([
        ("exitCode", 0.into()),
        ("finishedAt", finished.clone().into()),
        ("reason", "Completed".into()),
        ("startedAt", started.clone().into()),
    ]);
    object([("terminated", end)])
}

/// Hot path: built field by field, because every simulated pod takes a status and a macro goes through another tree.
fn object(fields: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    fields.into_iter().map(|(key, value)| (Str::const_new(key), value)).collect()
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn pod(json: &str) -> Pod {
        serde_json::from_str(json).expect("test data is a pod")
    }

    fn check(json: &str, expected: Expect) {
        let pod = pod(json);
        let around = Surroundings {
            now: "2026-01-01T00:00:00Z".into(),
            host_ip: Some("172.16.0.1".into()),
            pod_ip: Some(Ipv4Addr::new(10, 0, 0, 2)),
        };
        let outcome = match first_match(FAST, &pod) {
            None => "nothing".to_owned(),
            Some(Stage { name, next: Next::Delete, .. }) => format!("{name}: delete"),
            Some(Stage { name, next: Next::Status(status), .. }) => {
                let status: serde_json::Value = (&status(&pod, &around)).into();
                format!("{name}: {}", serde_json::to_string_pretty(&status).unwrap())
            }
        };
        expected.assert_eq(&outcome);
    }

    #[test]
    fn pods_that_run_have_ended_or_await_finalizers_are_left_alone() {
        for phase in ["Running", "Succeeded", "Failed"] {
            check(&format!(r#"{{"status":{{"phase":"{phase}"}}}}"#), expect!["nothing"]);
        }
        let deleting = r#""deletionTimestamp":"2026-01-01T00:00:00Z""#;
        check(
            &format!(r#"{{"metadata":{{{deleting},"deletionGracePeriodSeconds":0,"finalizers":["x/y"]}}}}"#),
            expect!["nothing"],
        );
    }

    #[test]
    fn deleted_pods_go_at_once_in_any_phase() {
        for phase in ["Pending", "Running", "Succeeded"] {
            let metadata = r#"{"deletionTimestamp":"2026-01-01T00:00:00Z","deletionGracePeriodSeconds":30}"#;
            check(
                &format!(r#"{{"metadata":{metadata},"status":{{"phase":"{phase}"}}}}"#),
                expect!["pod-delete: delete"],
            );
        }
    }

    #[test]
    fn a_pending_pod_becomes_running_and_ready_in_one_status() {
        check(
            r#"{"metadata":{"uid":"u","generation":1},
                "spec":{"containers":[{"name":"c","image":"app"}],
                        "initContainers":[{"name":"i","image":"init"},{"name":"s","image":"side","restartPolicy":"Always"}],
                        "readinessGates":[{"conditionType":"x.io/gate"}]},
                "status":{"phase":"Pending","conditions":[{"type":"PodScheduled","status":"True"}]}}"#,
            expect![[r#"
                pod-ready: {
                  "conditions": [
                    {
                      "lastTransitionTime": "2026-01-01T00:00:00Z",
                      "observedGeneration": 1,
                      "status": "True",
                      "type": "PodReadyToStartContainers"
                    },
                    {
                      "lastTransitionTime": "2026-01-01T00:00:00Z",
                      "observedGeneration": 1,
                      "status": "True",
                      "type": "Initialized"
                    },
                    {
                      "lastTransitionTime": "2026-01-01T00:00:00Z",
                      "observedGeneration": 1,
                      "status": "True",
                      "type": "Ready"
                    },
                    {
                      "lastTransitionTime": "2026-01-01T00:00:00Z",
                      "observedGeneration": 1,
                      "status": "True",
                      "type": "ContainersReady"
                    },
                    {
                      "lastTransitionTime": "2026-01-01T00:00:00Z",
                      "observedGeneration": 1,
                      "status": "True",
                      "type": "x.io/gate"
                    }
                  ],
                  "containerStatuses": [
                    {
                      "containerID": "sim://u-c",
                      "image": "app",
                      "imageID": "sim://app",
                      "lastState": {},
                      "name": "c",
                      "ready": true,
                      "restartCount": 0,
                      "started": true,
                      "state": {
                        "running": {
                          "startedAt": "2026-01-01T00:00:00Z"
                        }
                      }
                    }
                  ],
                  "hostIP": "172.16.0.1",
                  "hostIPs": [
                    {
                      "ip": "172.16.0.1"
                    }
                  ],
                  "initContainerStatuses": [
                    {
                      "containerID": "sim://u-i",
                      "image": "init",
                      "imageID": "sim://init",
                      "lastState": {},
                      "name": "i",
                      "ready": true,
                      "restartCount": 0,
                      "started": false,
                      "state": {
                        "terminated": {
                          "exitCode": 0,
                          "finishedAt": "2026-01-01T00:00:00Z",
                          "reason": "Completed",
                          "startedAt": "2026-01-01T00:00:00Z"
                        }
                      }
                    },
                    {
                      "containerID": "sim://u-s",
                      "image": "side",
                      "imageID": "sim://side",
                      "lastState": {},
                      "name": "s",
                      "ready": true,
                      "restartCount": 0,
                      "started": true,
                      "state": {
                        "running": {
                          "startedAt": "2026-01-01T00:00:00Z"
                        }
                      }
                    }
                  ],
                  "observedGeneration": 1,
                  "phase": "Running",
                  "podIP": "10.0.0.2",
                  "podIPs": [
                    {
                      "ip": "10.0.0.2"
                    }
                  ],
                  "startTime": "2026-01-01T00:00:00Z"
                }"#]],
        );
    }

    #[test]
    fn a_pod_on_the_host_network_has_the_hosts_address() {
        check(
            r#"{"spec":{"hostNetwork":true},"status":{"phase":"Pending"}}"#,
            expect![[r#"
            pod-ready: {
              "conditions": [
                {
                  "lastTransitionTime": "2026-01-01T00:00:00Z",
                  "observedGeneration": 0,
                  "status": "True",
                  "type": "PodReadyToStartContainers"
                },
                {
                  "lastTransitionTime": "2026-01-01T00:00:00Z",
                  "observedGeneration": 0,
                  "status": "True",
                  "type": "Initialized"
                },
                {
                  "lastTransitionTime": "2026-01-01T00:00:00Z",
                  "observedGeneration": 0,
                  "status": "True",
                  "type": "Ready"
                },
                {
                  "lastTransitionTime": "2026-01-01T00:00:00Z",
                  "observedGeneration": 0,
                  "status": "True",
                  "type": "ContainersReady"
                }
              ],
              "containerStatuses": [],
              "hostIP": "172.16.0.1",
              "hostIPs": [
                {
                  "ip": "172.16.0.1"
                }
              ],
              "observedGeneration": 0,
              "phase": "Running",
              "podIP": "172.16.0.1",
              "podIPs": [
                {
                  "ip": "172.16.0.1"
                }
              ],
              "startTime": "2026-01-01T00:00:00Z"
            }"#]],
        );
    }

    #[test]
    fn the_pod_of_a_job_succeeds() {
        check(
            r#"{"metadata":{"uid":"u","generation":1,"ownerReferences":[{"kind":"Job","name":"j"}]},
                "spec":{"containers":[{"name":"c","image":"app"}]},
                "status":{"phase":"Running","startTime":"2025-12-31T00:00:00Z"}}"#,
            expect![[r#"
                pod-complete: {
                  "conditions": [
                    {
                      "lastTransitionTime": "2026-01-01T00:00:00Z",
                      "observedGeneration": 1,
                      "reason": "PodCompleted",
                      "status": "False",
                      "type": "PodReadyToStartContainers"
                    },
                    {
                      "lastTransitionTime": "2026-01-01T00:00:00Z",
                      "observedGeneration": 1,
                      "reason": "PodCompleted",
                      "status": "False",
                      "type": "Ready"
                    },
                    {
                      "lastTransitionTime": "2026-01-01T00:00:00Z",
                      "observedGeneration": 1,
                      "reason": "PodCompleted",
                      "status": "False",
                      "type": "ContainersReady"
                    }
                  ],
                  "containerStatuses": [
                    {
                      "containerID": "sim://u-c",
                      "image": "app",
                      "imageID": "sim://app",
                      "lastState": {},
                      "name": "c",
                      "ready": false,
                      "restartCount": 0,
                      "started": false,
                      "state": {
                        "terminated": {
                          "exitCode": 0,
                          "finishedAt": "2026-01-01T00:00:00Z",
                          "reason": "Completed",
                          "startedAt": "2025-12-31T00:00:00Z"
                        }
                      }
                    }
                  ],
                  "observedGeneration": 1,
                  "phase": "Succeeded"
                }"#]],
        );
    }
}
