//! What a budget allows: pure.

use std::collections::BTreeMap;
use std::time::Duration;

use api::view::{IntOrString, Pod, PodDisruptionBudgetSpec};
use apimachinery::{Str, Value, json, time};
use jiff::Timestamp;

/// How long an eviction may take to show as a deletion before it counts as one that failed.
pub(super) const DELETION_MAX: Duration = Duration::from_mins(2);

/// `policy/v1.DisruptionAllowedCondition`.
const CONDITION: &str = "DisruptionAllowed";

/// The pods behind a budget, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Health {
    pub(super) current: i32,
    pub(super) desired: i32,
    pub(super) expected: i32,
}

/// Evictions that were granted, sorted by what became of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Disrupted {
    /// Will be deleted any moment: name and time of the eviction.
    pub(super) going: BTreeMap<Str, Str>,
    /// Should have been deleted by now.
    pub(super) overdue: Vec<Str>,
    /// When the first of those going will be overdue.
    pub(super) recheck: Option<Duration>,
}

/// Whether the number of pods that there should be follows from their controllers.
pub(super) fn depends_on_scale(spec: &PodDisruptionBudgetSpec) -> bool {
    spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
}

/// How many of `expected` pods have to be healthy. Fractions are rounded up on both sides.
pub(super) fn desired(spec: &PodDisruptionBudgetSpec, expected: i32) -> i32 {
    let scaled = |bound: &IntOrString| bound.scaled(expected, true).unwrap_or(0);
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(bound), _) => expected.saturating_sub(scaled(bound)).max(0),
        (None, Some(bound)) => scaled(bound),
        (None, None) => 0,
    }
}

/// Pods that are ready and will stay.
pub(super) fn healthy<'a>(pods: impl Iterator<Item = &'a Pod>, going: &BTreeMap<Str, Str>) -> i32 {
    let stays = |pod: &&Pod| !pod.is_deleting() && !going.contains_key(&pod.metadata.name) && pod.is_ready();
    i32::try_from(pods.filter(stays).count()).unwrap_or(i32::MAX)
}

impl Disrupted {
    /// `noted` are the budget's `status.disruptedPods`. A pod that is being deleted, or gone, is settled.
    pub(super) fn of<'a>(
        noted: &BTreeMap<Str, Str>,
        pods: impl Iterator<Item = &'a Pod>,
        now: Timestamp,
    ) -> Self {
        let mut disrupted = Self::default();
        for pod in pods.filter(|pod| !pod.is_deleting()) {
            let name = &pod.metadata.name;
            let Some(noted) = noted.get(name) else { continue };
            match time::parse(noted).and_then(|at| left(at, now)) {
                None => disrupted.overdue.push(name.clone()),
                Some(wait) => {
                    disrupted.recheck = Some(disrupted.recheck.map_or(wait, |first| first.min(wait)));
                    disrupted.going.insert(name.clone(), noted.clone());
                }
            }
        }
        disrupted
    }
}

/// What is left of [`DELETION_MAX`] since `at`.
pub(super) fn left(at: Timestamp, now: Timestamp) -> Option<Duration> {
    let passed = Duration::try_from(now.duration_since(at)).unwrap_or_default();
    DELETION_MAX.checked_sub(passed).filter(|left| !left.is_zero())
}

/// The budget with its status as it is now; `None` when it says so already.
pub(super) fn judged(
    budget: &Value,
    health: &Health,
    going: &BTreeMap<Str, Str>,
    now: Timestamp,
) -> Option<Value> {
    let spare = health.current.saturating_sub(health.desired);
    let allowed = if health.expected > 0 { spare.max(0) } else { 0 };
    let mut status = status_of(budget);
    status.set_at(&["currentHealthy"], health.current);
    status.set_at(&["desiredHealthy"], health.desired);
    status.set_at(&["expectedPods"], health.expected);
    status.set_at(&["disruptionsAllowed"], allowed);
    status.set_at(&["observedGeneration"], budget["metadata"]["generation"].as_i64().unwrap_or(0));
    if going.is_empty() {
        status.remove_at(&["disruptedPods"]);
    } else {
        let noted = going.iter().map(|(name, at)| (name.clone(), Value::from(at.clone())));
        status.set_at(&["disruptedPods"], noted.collect::<Value>());
    }
    let reason = if allowed > 0 { "SufficientPods" } else { "InsufficientPods" };
    finished(budget, status, allowed > 0, reason, "", now)
}

/// The budget that allows nothing because `why`; `None` when it says so already. What was observed before stays.
pub(super) fn refused(budget: &Value, why: &str, now: Timestamp) -> Option<Value> {
    let mut status = status_of(budget);
    for number in ["currentHealthy", "desiredHealthy", "expectedPods"] {
        if status[number].is_null() {
            status.set_at(&[number], 0);
        }
    }
    status.set_at(&["disruptionsAllowed"], 0);
    finished(budget, status, false, "SyncFailed", why, now)
}

fn status_of(budget: &Value) -> Value {
    if budget["status"].is_null() { Value::object() } else { budget["status"].clone() }
}

fn finished(
    budget: &Value,
    mut status: Value,
    allowed: bool,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> Option<Value> {
    set_condition(&mut status, allowed, reason, message, now);
    if status == budget["status"] {
        return None;
    }
    let mut judged = budget.clone();
    judged.set_at(&["status"], status);
    Some(judged)
}

/// The time of transition moves with the status only.
fn set_condition(status: &mut Value, allowed: bool, reason: &str, message: &str, now: Timestamp) {
    let state = if allowed { "True" } else { "False" };
    let mut conditions = status.array_at(&["conditions"]).to_vec();
    let present = conditions.iter().position(|condition| condition.str_at(&["type"]) == CONDITION);
    let since = present
        .map(|index| &conditions[index])
        .filter(|condition| condition.str_at(&["status"]) == state)
        .map_or_else(|| time::format_seconds(now), |own| own.str_at(&["lastTransitionTime"]).into());
    let mut condition = json!({"type": CONDITION, "status": state, "reason": reason, "message": message,
        "lastTransitionTime": since});
    if let Some(observed) = status["observedGeneration"].as_i64().filter(|generation| *generation != 0) {
        condition.set_at(&["observedGeneration"], observed);
    }
    match present {
        Some(index) => conditions[index] = condition,
        None => conditions.push(condition),
    }
    status.set_at(&["conditions"], conditions);
}
