//! What is to be done so that containers have what they were granted. Pure.

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use runtime::{ContainerState, Resources};

use crate::agent::config::NodeFacts;
use crate::agent::config::resources::{self, amounts};
use crate::agent::pod::observed::{self, Observed};

/// Lifts a limit.
const UNLIMITED: i64 = -1;

/// A running container whose limits change.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    pub id: String,
    pub name: String,
    pub resources: Resources,
    /// Bytes; 0 for none.
    pub memory_before: i64,
}

/// Whether two lists mean the same amounts.
pub fn is_same(a: Option<&ResourceRequirements>, b: Option<&ResourceRequirements>) -> bool {
    let lists = |own: Option<&ResourceRequirements>| {
        let own = own.cloned().unwrap_or_default();
        (amounts(own.limits.as_ref()), amounts(own.requests.as_ref()))
    };
    a == b || lists(a) == lists(b)
}

/// Whether a container that has `given` has to be made anew to get what it was granted, as its `resizePolicy` wants.
pub fn needs_restart(container: &Container, given: &ResourceRequirements) -> bool {
    let own = container.resources.clone().unwrap_or_default();
    let policies = container.resize_policy.as_deref().unwrap_or_default();
    let differs = |name: &str| {
        let of = |list: Option<&_>| amounts(list).get(name);
        of(own.limits.as_ref()) != of(given.limits.as_ref())
            || of(own.requests.as_ref()) != of(given.requests.as_ref())
    };
    policies
        .iter()
        .any(|policy| policy.restart_policy == "RestartContainer" && differs(&policy.resource_name))
}

/// Containers that run with something else than they were granted.
fn lagging<'a>(
    pod: &'a Pod,
    observed: &'a Observed,
) -> impl Iterator<Item = (&'a Container, &'a ResourceRequirements, &'a str)> {
    observed::containers(pod).iter().chain(observed::init_containers(pod)).filter_map(|container| {
        let running = observed.present(&container.name)?;
        let given = observed.given.containers.get(&container.name)?;
        let lags =
            running.state == ContainerState::Running && !is_same(container.resources.as_ref(), Some(given));
        lags.then_some((container, given, running.id.as_str()))
    })
}

/// Whether every container that runs has what it was granted, and so has the pod as a whole.
pub fn is_done(pod: &Pod, observed: &Observed) -> bool {
    let of_pod = pod.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    lagging(pod, observed).next().is_none()
        && (observed.sandbox().is_none() || is_same(of_pod, observed.given.pod.as_ref()))
}

/// Containers that can have what they were granted as they run.
pub fn updates(pod: &Pod, observed: &Observed, node: &NodeFacts) -> Vec<Update> {
    let all = lagging(pod, observed).filter(|(container, given, _)| !needs_restart(container, given));
    all.map(|(container, given, id)| {
        let before = Container { resources: Some(given.clone()), ..container.clone() };
        let before = resources::of_container(pod, &before, node);
        let mut now = resources::of_container(pod, container, node);
        lift(&mut now, &before);
        Update {
            id: id.to_owned(),
            name: container.name.clone(),
            resources: now,
            memory_before: before.memory_limit,
        }
    })
    .collect()
}

/// The limits of the pod as a whole, before and after.
pub fn pod_limits(pod: &Pod, observed: &Observed, node: &NodeFacts) -> (Resources, Resources) {
    let before = resources::of_pod(&observed.given.apply(pod), node);
    (before, resources::of_pod(pod, node))
}

/// What is bound no longer is told so.
pub fn lift(now: &mut Resources, before: &Resources) {
    if now.cpu_quota == 0 && before.cpu_quota > 0 {
        now.cpu_quota = UNLIMITED;
        now.cpu_period = before.cpu_period;
    }
    if now.memory_limit == 0 && before.memory_limit > 0 {
        now.memory_limit = UNLIMITED;
    }
}

/// Limits under which both may be had: while some containers have the old ones and some the new ones.
pub fn widest(a: &Resources, b: &Resources) -> Resources {
    let bound = |a: i64, b: i64| if a > 0 && b > 0 { a.max(b) } else { UNLIMITED };
    let any = |a: i64, b: i64| if a == 0 && b == 0 { 0 } else { bound(a, b) };
    Resources {
        cpu_shares: a.cpu_shares.max(b.cpu_shares),
        cpu_quota: any(a.cpu_quota, b.cpu_quota),
        cpu_period: a.cpu_period.max(b.cpu_period),
        memory_limit: any(a.memory_limit, b.memory_limit),
        ..b.clone()
    }
}

/// What a limit that comes down would do to who uses more already: the kernel would end it. `used` is in bytes, and
/// unknown where nobody counts.
pub fn complaint(what: &str, before: i64, after: i64, used: Option<u64>) -> Option<String> {
    let is_decrease = after > 0 && (before <= 0 || after < before);
    let used = used.filter(|used| is_decrease && *used >= after.unsigned_abs())?;
    Some(format!("attempting to set {what} memory limit ({after}) below current usage ({used})"))
}

/// All complaints as one, in upstream's words.
pub fn complaints(all: &[String]) -> String {
    match all {
        [only] => format!("cannot decrease memory limits: {only}"),
        several => format!("cannot decrease memory limits: [{}]", several.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use runtime::{ContainerStatus, SandboxState, SandboxStatus};

    use super::*;
    use crate::agent::config::fixture;

    fn amounts_of(cpu: &str, memory: &str) -> serde_json::Value {
        serde_json::json!({"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}})
    }

    fn observed(given: serde_json::Value, state: ContainerState) -> Observed {
        let sandbox = SandboxStatus {
            id: "s".into(),
            name: "web".into(),
            namespace: "ns".into(),
            uid: "u-1".into(),
            attempt: 0,
            state: SandboxState::Ready,
            created_at: Timestamp::UNIX_EPOCH,
            addresses: Vec::new(),
            host_network: false,
            labels: runtime::spec::Labels::new(),
            annotations: runtime::spec::Labels::new(),
        };
        let container = ContainerStatus {
            id: "1".into(),
            sandbox_id: "s".into(),
            name: "c".into(),
            state,
            ..ContainerStatus::default()
        };
        let mut observed = Observed::new(vec![sandbox], vec![container]);
        observed.given.containers.insert("c".into(), serde_json::from_value(given).expect("resources"));
        observed
    }

    #[test]
    fn only_running_containers_that_lag_are_updated_and_what_is_lifted_is_said() {
        use ContainerState::{Exited, Running};
        let node = fixture::node();
        let none = serde_json::json!({});
        for (asked, given, state, wanted) in [
            (amounts_of("1", "1Gi"), amounts_of("1", "1Gi"), Running, None),
            (amounts_of("1", "1Gi"), amounts_of("1000m", "1024Mi"), Running, None),
            (amounts_of("2", "2Gi"), amounts_of("1", "1Gi"), Exited, None),
            (
                amounts_of("2", "2Gi"),
                amounts_of("1", "1Gi"),
                Running,
                Some((2048, 200_000, 2 << 30, 1 << 30)),
            ),
            (amounts_of("2", "1Gi"), none.clone(), Running, Some((2048, 200_000, 1 << 30, 0))),
            (none.clone(), amounts_of("1", "1Gi"), Running, Some((2, UNLIMITED, UNLIMITED, 1 << 30))),
        ] {
            let pod = fixture::pod(serde_json::json!({"containers": [{"name": "c", "resources": asked}]}));
            let observed = observed(given.clone(), state);
            let updates = updates(&pod, &observed, &node);
            assert_eq!(is_done(&pod, &observed), wanted.is_none(), "{asked} {given}");
            let said = updates.first().map(|own| {
                let to = &own.resources;
                (to.cpu_shares, to.cpu_quota, to.memory_limit, own.memory_before)
            });
            assert_eq!(said, wanted, "{asked} {given}");
        }
    }

    #[test]
    fn while_limits_change_the_wider_ones_hold() {
        let limits = |cpu_quota, memory_limit| Resources { cpu_quota, memory_limit, ..Resources::default() };
        for (a, b, wanted) in [
            (limits(1, 4), limits(2, 3), limits(2, 4)),
            (limits(0, 4), limits(2, 0), limits(UNLIMITED, UNLIMITED)),
            (limits(0, 0), limits(0, 0), limits(0, 0)),
            (limits(1, 1), limits(UNLIMITED, 2), limits(UNLIMITED, 2)),
        ] {
            assert_eq!(widest(&a, &b), wanted);
        }
    }

    #[test]
    fn nobody_is_given_less_than_it_uses() {
        for (before, after, used, complains) in [
            (10, 5, Some(5), true),
            (10, 5, Some(4), false),
            (10, 5, None, false),
            (0, 5, Some(6), true),
            (5, 10, Some(20), false),
            (10, UNLIMITED, Some(20), false),
        ] {
            let complaint = complaint("container \"c\"", before, after, used);
            assert_eq!(complaint.is_some(), complains, "{before} {after} {used:?}");
            if let Some(complaint) = complaint {
                let used = used.unwrap_or_default();
                let wanted = format!(
                    "cannot decrease memory limits: attempting to set container \"c\" memory limit (5) below current usage ({used})"
                );
                assert_eq!(complaints(&[complaint]), wanted);
            }
        }
    }
}
