//! What is to be done next for a pod that is to run. Pure: a table of cases is its test.
//!
//! After the kubelet's `computePodActions`. Containers of a pod depend on each other in one way only: init containers
//! run in order, each after the one before it ended well (or, a sidecar, has started), and all others run after them.

use k8s_openapi::api::core::v1::{Container, Pod};
use runtime::{ContainerState, ContainerStatus};

use super::observed::{self, Observed, is_sidecar};
use crate::agent::config::labels;
use crate::agent::resize::actuation::needs_restart;

/// What probes say of running containers; `None` where they say nothing yet or none is asked for.
pub trait ProbeResults: Sync {
    /// Whether the startup probe has succeeded, or failed for good.
    fn started(&self, container_id: &str) -> Option<bool>;
    fn alive(&self, container_id: &str) -> Option<bool>;
}

/// What to do, in this order; empty when all is as it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Everything that runs ends, and the sandbox, too.
    pub kill_pod: bool,
    /// A new sandbox of this number is needed.
    pub create_sandbox: Option<u32>,
    pub kill: Vec<Kill>,
    pub start: Vec<Start>,
}

/// A container that is to end, so that it may be started anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    pub id: String,
    pub name: String,
    pub why: KillReason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillReason {
    Changed,
    /// What it was granted it can have only from its beginning.
    Resized,
    Liveness,
    Startup,
    /// Its state was lost.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    pub name: String,
    pub role: Role,
    /// Its restart count.
    pub attempt: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Init,
    Sidecar,
    Regular,
    Ephemeral,
}

/// The pod's own policy, which containers may overrule.
pub fn restart_policy(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always")
}

pub fn plan(pod: &Pod, observed: &Observed, probes: &dyn ProbeResults) -> Plan {
    let mut plan = Plan::default();
    if observed.sandbox().is_none() {
        plan_sandbox(pod, observed, &mut plan);
        return plan;
    }
    plan_ephemeral(pod, observed, &mut plan);
    let init = plan_init(pod, observed, probes, &mut plan);
    match init {
        Init::Failed => {
            plan.kill_pod = true;
            plan.start.clear();
        }
        Init::Waiting => {}
        Init::Done => {
            let sidecars = std::mem::take(&mut plan.start);
            if plan_regular(pod, observed, probes, &mut plan) == 0
                && plan.start.is_empty()
                && plan.kill.is_empty()
            {
                // Nothing is left to do, and sidecars do not keep a pod alive.
                plan.kill_pod = true;
            } else {
                plan.start.splice(0..0, sidecars);
            }
        }
    }
    plan
}

/// A pod without a usable sandbox: what is left of the old one ends, and there is a new one if anything is to run.
fn plan_sandbox(pod: &Pod, observed: &Observed, plan: &mut Plan) {
    let attempt = observed.sandboxes.first().map_or(0, |sandbox| sandbox.attempt + 1);
    plan.kill_pod = attempt > 0;
    let has_run = observed.newest().next().is_some();
    if attempt > 0 && has_run && restart_policy(pod) == "Never" {
        return;
    }
    let anything_to_run = observed::containers(pod).iter().any(|container| {
        let status = observed.latest(&container.name);
        // What still counts as running is about to be killed with its sandbox.
        status.is_none_or(|status| {
            status.state == ContainerState::Running || should_restart(pod, container, Some(status))
        })
    });
    if anything_to_run {
        plan.create_sandbox = Some(attempt);
    }
}

/// Ephemeral containers are started once, whatever becomes of them.
fn plan_ephemeral(pod: &Pod, observed: &Observed, plan: &mut Plan) {
    for container in observed::ephemeral_containers(pod) {
        if observed.latest(&container.name).is_none() {
            plan.start.push(Start { name: container.name, role: Role::Ephemeral, attempt: 0 });
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Init {
    Waiting,
    Done,
    Failed,
}

fn plan_init(pod: &Pod, observed: &Observed, probes: &dyn ProbeResults, plan: &mut Plan) -> Init {
    let initialized = is_initialized(pod, observed);
    for container in observed::init_containers(pod) {
        let status = observed.present(&container.name);
        let done = if is_sidecar(container) {
            plan_sidecar(container, status, observed, probes, plan)
        } else if initialized {
            true
        } else {
            match plan_initializer(pod, container, status, observed, plan) {
                Some(done) => done,
                None => return Init::Failed,
            }
        };
        if !done && !initialized {
            return Init::Waiting;
        }
    }
    Init::Done
}

/// Whether init containers are over for this sandbox: one of the others was made.
pub fn is_initialized(pod: &Pod, observed: &Observed) -> bool {
    observed::init_containers(pod).is_empty()
        || observed::containers(pod).iter().any(|container| observed.present(&container.name).is_some())
}

/// Whether the sidecar has started, so that the next one may.
fn plan_sidecar(
    container: &Container,
    status: Option<&ContainerStatus>,
    observed: &Observed,
    probes: &dyn ProbeResults,
    plan: &mut Plan,
) -> bool {
    match status {
        Some(status) if status.state == ContainerState::Running => {
            if let Some(why) = kill_reason(container, status, observed, probes) {
                plan.kill.push(kill(status, why));
                return false;
            }
            container.startup_probe.is_none() || probes.started(&status.id) == Some(true)
        }
        status => {
            start(container, status, Role::Sidecar, observed, plan);
            false
        }
    }
}

/// Whether it ended well; `None` if it failed and is not tried again.
fn plan_initializer(
    pod: &Pod,
    container: &Container,
    status: Option<&ContainerStatus>,
    observed: &Observed,
    plan: &mut Plan,
) -> Option<bool> {
    match status {
        Some(status) if status.state == ContainerState::Running => Some(false),
        Some(status) if status.state == ContainerState::Exited && status.exit_code == 0 => Some(true),
        Some(status)
            if status.state == ContainerState::Exited && !should_restart(pod, container, Some(status)) =>
        {
            None
        }
        status => {
            start(container, status, Role::Init, observed, plan);
            Some(false)
        }
    }
}

/// Returns how many go on running.
fn plan_regular(pod: &Pod, observed: &Observed, probes: &dyn ProbeResults, plan: &mut Plan) -> usize {
    let mut kept = 0;
    for container in observed::containers(pod) {
        let status = observed.latest(&container.name);
        let Some(running) = status.filter(|status| status.state == ContainerState::Running) else {
            if should_restart(pod, container, status) {
                start(container, status, Role::Regular, observed, plan);
            }
            continue;
        };
        match kill_reason(container, running, observed, probes) {
            Some(why) => {
                plan.kill.push(kill(running, why));
                if matches!(why, KillReason::Changed | KillReason::Resized) {
                    // What the pod asks for now was never run, so that no policy forbids it.
                    start(container, status, Role::Regular, observed, plan);
                }
            }
            None => kept += 1,
        }
    }
    kept
}

fn kill(status: &ContainerStatus, why: KillReason) -> Kill {
    Kill { id: status.id.clone(), name: status.name.clone(), why }
}

/// Why a running container is to end. Whether it comes back is its restart policy's business, once it has ended.
fn kill_reason(
    container: &Container,
    status: &ContainerStatus,
    observed: &Observed,
    probes: &dyn ProbeResults,
) -> Option<KillReason> {
    let configured = status.annotations.get(labels::HASH);
    if configured.is_some_and(|configured| *configured != format!("{:x}", labels::hash(container))) {
        Some(KillReason::Changed)
    } else if observed
        .given
        .containers
        .get(&container.name)
        .is_some_and(|given| needs_restart(container, given))
    {
        Some(KillReason::Resized)
    } else if probes.alive(&status.id) == Some(false) {
        Some(KillReason::Liveness)
    } else if probes.started(&status.id) == Some(false) {
        Some(KillReason::Startup)
    } else {
        None
    }
}

fn start(
    container: &Container,
    status: Option<&ContainerStatus>,
    role: Role,
    observed: &Observed,
    plan: &mut Plan,
) {
    if let Some(status) = status.filter(|status| status.state == ContainerState::Unknown) {
        plan.kill.push(kill(status, KillReason::Unknown));
    }
    let attempt = observed.latest(&container.name).map_or(0, |status| status.attempt + 1);
    plan.start.push(Start { name: container.name.clone(), role, attempt });
}

/// Whether a container that does not run is to be started.
pub fn should_restart(pod: &Pod, container: &Container, status: Option<&ContainerStatus>) -> bool {
    if pod.metadata.deletion_timestamp.is_some() {
        return false;
    }
    let Some(status) = status else { return true };
    match status.state {
        ContainerState::Running => false,
        ContainerState::Created | ContainerState::Unknown => true,
        ContainerState::Exited => restarts_after(pod, container, status.exit_code),
    }
}

/// Whether a container that ended with this code is started again: by its own rules and policy (KEP-5307), or else the
/// pod's.
pub fn restarts_after(pod: &Pod, container: &Container, exit_code: i32) -> bool {
    let rules = container.restart_policy_rules.as_deref().unwrap_or_default();
    let matches = |rule: &&k8s_openapi::api::core::v1::ContainerRestartRule| {
        rule.exit_codes.as_ref().is_some_and(|codes| {
            let listed = codes.values.as_deref().unwrap_or_default().contains(&exit_code);
            if codes.operator == "NotIn" { !listed } else { listed }
        })
    };
    if let Some(rule) = rules.iter().find(matches) {
        return rule.action == "Restart";
    }
    match container.restart_policy.as_deref().unwrap_or_else(|| restart_policy(pod)) {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        _ => true,
    }
}

#[cfg(test)]
mod tests;
