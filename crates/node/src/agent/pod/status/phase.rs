//! Where a pod is in its life, from the statuses of its containers.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};

use super::super::observed::{self, is_sidecar};
use super::super::plan::restart_policy;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Pending,
    Running,
    Succeeded,
    Failed,
}

impl Phase {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }

    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

#[derive(Default)]
struct Counts {
    running: usize,
    waiting: usize,
    stopped: usize,
    succeeded: usize,
    unknown: usize,
}

/// After the kubelet's `getPhase`.
pub(super) fn phase(
    pod: &Pod,
    init: &[ContainerStatus],
    regular: &[ContainerStatus],
    is_over: bool,
) -> Phase {
    let policy = restart_policy(pod);
    let (mut pending_init, mut failed_init) = (0, 0);
    for container in observed::init_containers(pod) {
        let status = find(init, &container.name);
        if is_sidecar(container) {
            pending_init += usize::from(!has_started(status));
            continue;
        }
        match ended(status) {
            Some(0) => {}
            Some(_) => failed_init += 1,
            None => pending_init += 1,
        }
    }
    let mut counts = Counts::default();
    for container in observed::containers(pod) {
        counts.add(find(regular, &container.name));
    }
    let has_begun = counts.running + counts.stopped > 0;
    if failed_init > 0 && policy == "Never" {
        return Phase::Failed;
    }
    if is_over && failed_init + pending_init > 0 && !has_begun {
        return Phase::Failed;
    }
    if pending_init + failed_init > 0 && !has_begun {
        return Phase::Pending;
    }
    match counts {
        Counts { waiting: 1.., .. } if !is_over => Phase::Pending,
        Counts { running: 1.., unknown: 0, .. } => Phase::Running,
        Counts { stopped, succeeded, unknown: 0, .. } if stopped > 0 => {
            if is_over {
                return if stopped == succeeded { Phase::Succeeded } else { Phase::Failed };
            }
            match policy {
                "Always" => Phase::Running,
                _ if stopped == succeeded => Phase::Succeeded,
                "Never" => Phase::Failed,
                _ => Phase::Running,
            }
        }
        _ if is_over => Phase::Failed,
        _ => Phase::Pending,
    }
}

fn find<'a>(statuses: &'a [ContainerStatus], name: &str) -> Option<&'a ContainerStatus> {
    statuses.iter().find(|status| status.name == name)
}

/// The code with which it ended, also if it waits to be started again.
fn ended(status: Option<&ContainerStatus>) -> Option<i32> {
    let status = status?;
    let code = |state: Option<&ContainerState>| Some(state?.terminated.as_ref()?.exit_code);
    if status.state.as_ref().is_some_and(|state| state.running.is_some()) {
        return None;
    }
    match code(status.state.as_ref()) {
        Some(code) => Some(code),
        // An init container that failed and is tried again; one that ended well is never started anew.
        None => code(status.last_state.as_ref()).filter(|code| *code != 0),
    }
}

fn has_started(status: Option<&ContainerStatus>) -> bool {
    let Some(status) = status else { return false };
    let Some(state) = &status.state else { return false };
    if state.running.is_some() {
        return status.started == Some(true);
    }
    state.terminated.is_some() || status.last_state.as_ref().is_some_and(|last| last.terminated.is_some())
}

impl Counts {
    fn add(&mut self, status: Option<&ContainerStatus>) {
        let Some(state) = status.and_then(|status| status.state.as_ref()) else {
            self.unknown += 1;
            return;
        };
        if state.running.is_some() {
            self.running += 1;
        } else if let Some(terminated) = &state.terminated {
            self.stopped += 1;
            self.succeeded += usize::from(terminated.exit_code == 0);
        } else if ended(status).is_some()
            || status
                .and_then(|status| status.last_state.as_ref())
                .is_some_and(|last| last.terminated.is_some())
        {
            // It waits to be started again, having run.
            self.stopped += 1;
        } else {
            self.waiting += 1;
        }
    }
}
