//! The status of each container.

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, ContainerUser, LinuxContainerUser, VolumeMountStatus,
};
use runtime::ContainerState as State;

use super::super::observed::{init_containers, is_sidecar};
use super::super::plan::{is_initialized, should_restart};
use super::{Facts, Waiting, time};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Init,
    Regular,
    Ephemeral,
}

pub(super) fn statuses(facts: &Facts<'_>, containers: &[Container], kind: Kind) -> Vec<ContainerStatus> {
    containers.iter().map(|container| status(facts, container, kind)).collect()
}

fn status(facts: &Facts<'_>, container: &Container, kind: Kind) -> ContainerStatus {
    let old = old_status(facts, &container.name, kind);
    let Some(current) = facts.observed.latest(&container.name) else {
        return without_container(facts, container, kind, old);
    };
    let is_running = current.state == State::Running;
    let terminated = || terminated(facts, current);
    let waits = facts.waiting.get(&container.name).filter(|_| !facts.is_over);
    let mut last =
        facts.observed.previous(&container.name).filter(|previous| previous.state == State::Exited);
    let state = match current.state {
        State::Running => ContainerState {
            running: Some(ContainerStateRunning { started_at: current.started_at.map(time) }),
            ..ContainerState::default()
        },
        State::Created => match waits {
            Some(waiting) => waiting_state(waiting),
            None => default_waiting(facts, kind),
        },
        State::Exited if waits.is_some() && should_restart(facts.pod, container, Some(current)) => {
            last = Some(current);
            waiting_state(waits.expect("the guard looked"))
        }
        State::Exited | State::Unknown => {
            ContainerState { terminated: Some(terminated()), ..ContainerState::default() }
        }
    };
    let last_state = match last {
        Some(last) => Some(ContainerState {
            terminated: Some(self::terminated(facts, last)),
            ..ContainerState::default()
        }),
        None => old.as_ref().and_then(|old| old.last_state.clone()).filter(|_| current.attempt > 0),
    };
    let started =
        is_running && (container.startup_probe.is_none() || facts.probes.started(&current.id) == Some(true));
    let ready = match kind {
        Kind::Ephemeral => false,
        Kind::Init if !is_sidecar(container) => current.state == State::Exited && current.exit_code == 0,
        _ => {
            started && (container.readiness_probe.is_none() || facts.probes.ready(&current.id) == Some(true))
        }
    };
    let given = facts.observed.given.containers.get(&container.name).filter(|_| kind != Kind::Ephemeral);
    ContainerStatus {
        container_id: Some(format!("{}://{}", facts.runtime_name, current.id)),
        image: if current.image_reference.is_empty() {
            container.image.clone().unwrap_or_default()
        } else {
            current.image_reference.clone()
        },
        image_id: current.image_digest.clone(),
        last_state: Some(last_state.unwrap_or_default()),
        name: container.name.clone(),
        ready,
        resources: is_running.then(|| given.or(container.resources.as_ref()).cloned()).flatten(),
        allocated_resources: container
            .resources
            .as_ref()
            .and_then(|own| own.requests.clone())
            .filter(|_| is_running),
        restart_count: i32::try_from(current.attempt).unwrap_or(i32::MAX),
        started: Some(started),
        state: Some(state),
        user: current.user.as_ref().filter(|_| is_running).map(|user| ContainerUser {
            linux: Some(LinuxContainerUser {
                gid: i64::from(user.gid),
                supplemental_groups: Some(
                    user.supplemental_groups.iter().map(|group| i64::from(*group)).collect(),
                ),
                uid: i64::from(user.uid),
            }),
        }),
        volume_mounts: mounts(container),
        ..ContainerStatus::default()
    }
}

fn mounts(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container.volume_mounts.as_ref()?;
    let statuses = mounts.iter().map(|mount| VolumeMountStatus {
        mount_path: mount.mount_path.clone(),
        name: mount.name.clone(),
        read_only: mount.read_only.filter(|read_only| *read_only),
        recursive_read_only: mount.read_only.filter(|read_only| *read_only).map(|_| {
            match mount.recursive_read_only.as_deref() {
                Some("Enabled" | "IfPossible") => "Enabled".to_owned(),
                _ => "Disabled".to_owned(),
            }
        }),
        ..VolumeMountStatus::default()
    });
    Some(statuses.collect())
}

fn old_status<'a>(facts: &'a Facts<'_>, name: &str, kind: Kind) -> Option<&'a ContainerStatus> {
    let status = facts.pod.status.as_ref()?;
    let list = match kind {
        Kind::Init => &status.init_container_statuses,
        Kind::Regular => &status.container_statuses,
        Kind::Ephemeral => &status.ephemeral_container_statuses,
    };
    list.as_ref()?.iter().find(|status| status.name == name)
}

/// The runtime has none: it was not started yet, or every trace of it is gone.
fn without_container(
    facts: &Facts<'_>,
    container: &Container,
    kind: Kind,
    old: Option<&ContainerStatus>,
) -> ContainerStatus {
    let mut status = ContainerStatus {
        image: container.image.clone().unwrap_or_default(),
        last_state: Some(ContainerState::default()),
        name: container.name.clone(),
        started: Some(false),
        ..ContainerStatus::default()
    };
    let old_state = old.and_then(|old| old.state.as_ref());
    if let Some(old) = old {
        status.restart_count = old.restart_count;
        status.last_state = old.last_state.clone().or(Some(ContainerState::default()));
    }
    if let Some(terminated) = old_state.and_then(|state| state.terminated.as_ref()) {
        // How it ended was said before.
        status.state =
            Some(ContainerState { terminated: Some(terminated.clone()), ..ContainerState::default() });
        status.container_id = old.and_then(|old| old.container_id.clone());
        status.image_id = old.map(|old| old.image_id.clone()).unwrap_or_default();
        return status;
    }
    if old_state.is_some_and(|state| state.running.is_some()) {
        let lost = ContainerState {
            terminated: Some(ContainerStateTerminated {
                exit_code: 137,
                reason: Some("ContainerStatusUnknown".to_owned()),
                message: Some("The container could not be located when the pod was terminated".to_owned()),
                ..ContainerStateTerminated::default()
            }),
            ..ContainerState::default()
        };
        if facts.is_over {
            status.state = Some(lost);
            return status;
        }
        status.last_state = Some(lost);
        status.restart_count += 1;
    }
    status.state = Some(match facts.waiting.get(&container.name) {
        Some(waiting) => waiting_state(waiting),
        None => default_waiting(facts, kind),
    });
    status
}

fn waiting_state(waiting: &Waiting) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            message: Some(waiting.message.clone()).filter(|message| !message.is_empty()),
            reason: Some(waiting.reason.clone()),
        }),
        ..ContainerState::default()
    }
}

fn default_waiting(facts: &Facts<'_>, kind: Kind) -> ContainerState {
    let initializes = !init_containers(facts.pod).is_empty()
        && kind != Kind::Ephemeral
        && !is_initialized(facts.pod, facts.observed);
    let reason = if initializes { "PodInitializing" } else { "ContainerCreating" };
    waiting_state(&Waiting { reason: reason.to_owned(), message: String::new() })
}

fn terminated(facts: &Facts<'_>, container: &runtime::ContainerStatus) -> ContainerStateTerminated {
    let unknown = container.state == State::Unknown;
    let reason = match container.reason.as_str() {
        "" if unknown => "ContainerStatusUnknown",
        "" if container.exit_code == 0 => "Completed",
        "" => "Error",
        reason => reason,
    };
    ContainerStateTerminated {
        container_id: Some(format!("{}://{}", facts.runtime_name, container.id)),
        exit_code: if unknown && container.exit_code == 0 { 137 } else { container.exit_code },
        finished_at: container.finished_at.map(time),
        message: Some(container.message.clone()).filter(|message| !message.is_empty()),
        reason: Some(reason.to_owned()),
        started_at: container.started_at.map(time),
        ..ContainerStateTerminated::default()
    }
}
