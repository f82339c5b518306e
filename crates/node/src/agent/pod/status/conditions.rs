//! The conditions of a pod.

use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition};

use super::super::observed::{self, is_sidecar};
use super::{Facts, Phase, time};
use crate::agent::resize;

/// A condition's value, and why it has it.
struct Verdict {
    kind: &'static str,
    is_true: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Verdict {
    fn yes(kind: &'static str) -> Self {
        Self { kind, is_true: true, reason: None, message: None }
    }

    fn no(kind: &'static str, reason: &'static str, message: String) -> Self {
        let message = Some(message).filter(|message| !message.is_empty());
        Self { kind, is_true: false, reason: Some(reason), message }
    }
}

pub(super) fn conditions(
    facts: &Facts<'_>,
    init: &[ContainerStatus],
    regular: &[ContainerStatus],
    phase: Phase,
) -> Vec<PodCondition> {
    let old = facts.pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let containers_ready = containers_ready(facts, init, regular, phase);
    let ready = ready(facts, old, &containers_ready);
    let sandbox = match facts.observed.sandbox() {
        Some(_) => Verdict::yes("PodReadyToStartContainers"),
        None => Verdict { is_true: false, ..Verdict::yes("PodReadyToStartContainers") },
    };
    let own = [sandbox, initialized(facts, init, regular, phase), ready, containers_ready];
    let mut conditions: Vec<PodCondition> =
        own.iter().map(|verdict| condition(facts, old, verdict)).collect();
    let scheduled =
        old.iter().any(|condition| condition.type_ == "PodScheduled" && condition.status == "True");
    if !scheduled {
        conditions.push(condition(facts, old, &Verdict::yes("PodScheduled")));
    }
    if let Some(message) = facts.ended.and_then(|ended| ended.disruption.as_ref()) {
        let verdict = Verdict {
            reason: Some("TerminationByKubelet"),
            message: Some(message.clone()),
            ..Verdict::yes("DisruptionTarget")
        };
        conditions.push(condition(facts, old, &verdict));
    }
    if !phase.is_terminal() {
        conditions.extend(resizing(facts, old));
    }
    let is_own = |condition: &&PodCondition| {
        !matches!(condition.type_.as_str(), resize::PENDING | resize::IN_PROGRESS)
            && !conditions.iter().any(|own| own.type_ == condition.type_)
    };
    let others: Vec<PodCondition> = old.iter().filter(is_own).cloned().collect();
    conditions.extend(others);
    conditions
}

fn condition(facts: &Facts<'_>, old: &[PodCondition], verdict: &Verdict) -> PodCondition {
    let status = if verdict.is_true { "True" } else { "False" };
    let before = old.iter().find(|condition| condition.type_ == verdict.kind);
    let since = before
        .filter(|before| before.status == status)
        .and_then(|before| before.last_transition_time.clone())
        .unwrap_or_else(|| time(facts.now));
    PodCondition {
        last_transition_time: Some(since),
        message: verdict.message.clone(),
        observed_generation: facts.pod.metadata.generation,
        reason: verdict.reason.map(str::to_owned),
        status: status.to_owned(),
        type_: verdict.kind.to_owned(),
        ..PodCondition::default()
    }
}

/// What is said while a resize waits or is under way, and only then.
fn resizing(facts: &Facts<'_>, old: &[PodCondition]) -> Vec<PodCondition> {
    let about = |kind, reason, message: &str, generation| {
        let message = Some(message.to_owned()).filter(|message| !message.is_empty());
        let verdict = Verdict { reason, message, ..Verdict::yes(kind) };
        PodCondition { observed_generation: Some(generation), ..condition(facts, old, &verdict) }
    };
    let pending = facts
        .course
        .pending
        .as_ref()
        .map(|own| about(resize::PENDING, Some(own.reason.as_str()), &own.message, own.generation));
    let progress = facts.course.progress.as_ref().map(|own| {
        let reason = own.error.as_ref().map(|_| resize::ERROR);
        about(resize::IN_PROGRESS, reason, own.error.as_deref().unwrap_or_default(), own.generation)
    });
    pending.into_iter().chain(progress).collect()
}

fn initialized(
    facts: &Facts<'_>,
    init: &[ContainerStatus],
    regular: &[ContainerStatus],
    phase: Phase,
) -> Verdict {
    const KIND: &str = "Initialized";
    if phase == Phase::Succeeded {
        return Verdict { reason: Some("PodCompleted"), ..Verdict::yes(KIND) };
    }
    let has_begun = regular.iter().any(|status| {
        status.state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some())
    });
    if has_begun {
        return Verdict::yes(KIND);
    }
    let incomplete: Vec<&str> = observed::init_containers(facts.pod)
        .iter()
        .filter(|container| {
            let status = init.iter().find(|status| status.name == container.name);
            !status.is_some_and(|status| {
                if is_sidecar(container) { status.started == Some(true) } else { status.ready }
            })
        })
        .map(|container| container.name.as_str())
        .collect();
    if incomplete.is_empty() {
        return Verdict::yes(KIND);
    }
    let message = format!("containers with incomplete status: [{}]", incomplete.join(" "));
    Verdict::no(KIND, "ContainersNotInitialized", message)
}

fn containers_ready(
    facts: &Facts<'_>,
    init: &[ContainerStatus],
    regular: &[ContainerStatus],
    phase: Phase,
) -> Verdict {
    const KIND: &str = "ContainersReady";
    match phase {
        Phase::Succeeded => return Verdict::no(KIND, "PodCompleted", String::new()),
        Phase::Failed => return Verdict::no(KIND, "PodFailed", String::new()),
        Phase::Pending | Phase::Running => {}
    }
    let sidecars = observed::init_containers(facts.pod).iter().filter(|container| is_sidecar(container));
    let all = sidecars.map(|container| (container, init));
    let all = all.chain(observed::containers(facts.pod).iter().map(|container| (container, regular)));
    let unready: Vec<&str> = all
        .filter(|(container, statuses)| {
            !statuses.iter().any(|status| status.name == container.name && status.ready)
        })
        .map(|(container, _)| container.name.as_str())
        .collect();
    if unready.is_empty() {
        return Verdict::yes(KIND);
    }
    Verdict::no(
        KIND,
        "ContainersNotReady",
        format!("containers with unready status: [{}]", unready.join(" ")),
    )
}

/// As ready as the containers, and as every readiness gate says.
fn ready(facts: &Facts<'_>, old: &[PodCondition], containers_ready: &Verdict) -> Verdict {
    const KIND: &str = "Ready";
    if !containers_ready.is_true {
        return Verdict {
            kind: KIND,
            is_true: false,
            reason: containers_ready.reason,
            message: containers_ready.message.clone(),
        };
    }
    let gates = facts.pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_deref()).unwrap_or_default();
    let complaints: Vec<String> = gates
        .iter()
        .filter_map(|gate| {
            let kind = &gate.condition_type;
            match old.iter().find(|condition| condition.type_ == *kind) {
                None => {
                    Some(format!("corresponding condition of pod readiness gate \"{kind}\" does not exist."))
                }
                Some(condition) if condition.status != "True" => Some(format!(
                    "the status of pod readiness gate \"{kind}\" is not \"True\", but {}",
                    condition.status
                )),
                Some(_) => None,
            }
        })
        .collect();
    match complaints.as_slice() {
        [] => Verdict::yes(KIND),
        [only] => Verdict::no(KIND, "ReadinessGatesNotReady", only.clone()),
        several => Verdict::no(KIND, "ReadinessGatesNotReady", format!("[{}]", several.join(", "))),
    }
}
