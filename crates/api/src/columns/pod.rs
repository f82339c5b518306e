//! Columns of pods: readiness, one word for the state of all containers, and restarts.

use apimachinery::{Value, time};
use jiff::Timestamp;

use super::{AGE, NAME, cell, duration::human_duration, text, wide};
use crate::strategy::Column;

pub(super) const COLUMNS: &[Column] = &[
    NAME,
    text("Ready"),
    text("Status"),
    text("Restarts"),
    AGE,
    wide("IP"),
    wide("Node"),
    wide("Nominated Node"),
    wide("Readiness Gates"),
];

pub(super) fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let summary = Summary::of(pod);
    let ip = pod.array_at(&["status", "podIPs"]).first().map_or("", |entry| entry.str_at(&["ip"]));
    vec![
        cell::name(pod),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.reason.as_str().into(),
        summary.restarts.describe(now).into(),
        cell::age(pod, now),
        if ip.is_empty() { "<none>" } else { ip }.into(),
        cell::text_or(pod, &["spec", "nodeName"], "<none>"),
        cell::text_or(pod, &["status", "nominatedNodeName"], "<none>"),
        readiness_gates(pod).into(),
    ]
}

/// The state of a pod in a few words and numbers.
struct Summary {
    ready: usize,
    /// Containers that count for readiness: all but init containers that run to completion.
    total: usize,
    reason: String,
    restarts: Restarts,
}

/// How often containers restarted, and when one last stopped.
#[derive(Clone, Copy, Default)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Summary {
    fn of(pod: &Value) -> Self {
        let sidecars = pod.array_at(&["spec", "initContainers"]).iter().filter(|own| is_sidecar(own)).count();
        let mut summary = Self {
            ready: 0,
            total: pod.array_at(&["spec", "containers"]).len() + sidecars,
            reason: phase_or_reason(pod),
            restarts: Restarts::default(),
        };
        let (initializing, sidecar_restarts) = summary.add_init_containers(pod);
        if !initializing || cell::condition_is_true(pod, "Initialized") {
            summary.restarts = sidecar_restarts;
            summary.add_containers(pod);
        }
        if cell::is_deleting(pod) {
            summary.mark_deleted(pod);
        }
        summary
    }

    /// Goes through init containers up to the first that is not done. Says whether there was one, and what the
    /// sidecars among them add to the restarts of the app containers.
    fn add_init_containers(&mut self, pod: &Value) -> (bool, Restarts) {
        let mut sidecar_restarts = Restarts::default();
        for (index, status) in pod.array_at(&["status", "initContainerStatuses"]).iter().enumerate() {
            self.restarts.add(status);
            let sidecar = named(pod, status.str_at(&["name"])).is_some_and(is_sidecar);
            if sidecar {
                sidecar_restarts.add(status);
            }
            let terminated = status.at(&["state", "terminated"]);
            if terminated.is_some_and(|state| cell::integer(state, &["exitCode"]) == 0) {
                continue;
            }
            if sidecar && is_true(status, "started") {
                self.ready += usize::from(is_true(status, "ready"));
                continue;
            }
            self.reason = init_reason(pod, status, terminated, index);
            return (true, sidecar_restarts);
        }
        (false, sidecar_restarts)
    }

    fn add_containers(&mut self, pod: &Value) {
        let mut running = false;
        let mut error = None;
        // In reverse, so that the first container's state is the one that stays.
        for status in pod.array_at(&["status", "containerStatuses"]).iter().rev() {
            self.restarts.add(status);
            let waiting = status.str_at(&["state", "waiting", "reason"]);
            if !waiting.is_empty() {
                self.reason = waiting.into();
            } else if let Some(terminated) = status.at(&["state", "terminated"]) {
                self.reason = termination_reason(terminated);
                if cell::integer(terminated, &["exitCode"]) != 0 {
                    error = Some(self.reason.clone());
                }
            } else if is_true(status, "ready") && status.at(&["state", "running"]).is_some() {
                running = true;
                self.ready += 1;
            }
        }
        // Some containers are done while others are not: the pod as a whole is not completed.
        if self.reason == "Completed" {
            if running && cell::condition_is_true(pod, "Ready") {
                self.reason = "Running".into();
            } else if let Some(error) = error {
                self.reason = error;
            } else if running {
                self.reason = "NotReady".into();
            }
        }
    }

    fn mark_deleted(&mut self, pod: &Value) {
        if pod.str_at(&["status", "reason"]) == "NodeLost" {
            self.reason = "Unknown".into();
        } else if !matches!(pod.str_at(&["status", "phase"]), "Succeeded" | "Failed") {
            self.reason = "Terminating".into();
        }
    }
}

impl Restarts {
    fn add(&mut self, status: &Value) {
        self.count += cell::integer(status, &["restartCount"]);
        let finished = time::parse(status.str_at(&["lastState", "terminated", "finishedAt"]));
        self.last = self.last.max(finished);
    }

    fn describe(self, now: Timestamp) -> String {
        match self.last {
            Some(last) if self.count != 0 => {
                format!("{} ({} ago)", self.count, human_duration(cell::seconds_between(last, now)))
            }
            _ => self.count.to_string(),
        }
    }
}

fn phase_or_reason(pod: &Value) -> String {
    let gated = pod.array_at(&["status", "conditions"]).iter().any(|condition| {
        condition.str_at(&["type"]) == "PodScheduled" && condition.str_at(&["reason"]) == "SchedulingGated"
    });
    if gated {
        return "SchedulingGated".into();
    }
    match pod.str_at(&["status", "reason"]) {
        "" => pod.str_at(&["status", "phase"]).into(),
        reason => reason.into(),
    }
}

/// Why a pod is held up by an init container.
fn init_reason(pod: &Value, status: &Value, terminated: Option<&Value>, index: usize) -> String {
    if let Some(terminated) = terminated {
        return format!("Init:{}", termination_reason(terminated));
    }
    match status.str_at(&["state", "waiting", "reason"]) {
        "" | "PodInitializing" => {
            format!("Init:{index}/{}", pod.array_at(&["spec", "initContainers"]).len())
        }
        reason => format!("Init:{reason}"),
    }
}

fn termination_reason(terminated: &Value) -> String {
    match terminated.str_at(&["reason"]) {
        "" => match cell::integer(terminated, &["signal"]) {
            0 => format!("ExitCode:{}", cell::integer(terminated, &["exitCode"])),
            signal => format!("Signal:{signal}"),
        },
        reason => reason.into(),
    }
}

fn readiness_gates(pod: &Value) -> String {
    let gates = pod.array_at(&["spec", "readinessGates"]);
    if gates.is_empty() {
        return "<none>".into();
    }
    let passed =
        gates.iter().filter(|gate| cell::condition_is_true(pod, gate.str_at(&["conditionType"]))).count();
    format!("{passed}/{}", gates.len())
}

fn named<'v>(pod: &'v Value, name: &str) -> Option<&'v Value> {
    pod.array_at(&["spec", "initContainers"]).iter().find(|container| container.str_at(&["name"]) == name)
}

/// An init container that keeps running beside the app containers.
fn is_sidecar(container: &Value) -> bool {
    container.str_at(&["restartPolicy"]) == "Always"
}

fn is_true(status: &Value, field: &str) -> bool {
    status.get(field).and_then(Value::as_bool).unwrap_or_default()
}
