//! What becomes of a recommendation: how far and how fast a target may be scaled.
//!
//! Two sets of rules, upstream's: without `spec.behavior` the highest recommendation of the last minutes counts and
//! growth is limited to double; with it, each direction has a window and policies of its own.

use std::time::Duration;

use api::conditions::Condition;
use api::view::{HorizontalPodAutoscalerBehavior, HpaScalingPolicy, HpaScalingRules};
use rt::Instant;

/// Growth in one step, without policies: to double, or to so many.
const SCALE_UP_FACTOR: f64 = 2.0;
const SCALE_UP_MINIMUM: f64 = 4.0;

/// What was recommended for one target, and how it was scaled; all of it is lost with the process, as upstream's.
#[derive(Default)]
pub(super) struct History {
    recommendations: Vec<(i32, Instant)>,
    ups: Changes,
    downs: Changes,
}

/// How many replicas were added, or removed, and when.
#[derive(Default)]
struct Changes(Vec<(i32, Instant)>);

/// A recommendation and what bounds it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub(super) current: i32,
    pub(super) desired: i32,
    pub(super) min: i32,
    pub(super) max: i32,
}

/// How many replicas there may be, and the conditions that say why.
pub(super) struct Normalized {
    pub(super) replicas: i32,
    pub(super) able_to_scale: Condition,
    pub(super) scaling_limited: Condition,
}

type Reason = (&'static str, &'static str);

const WITHIN_RANGE: Reason = ("DesiredWithinRange", "the desired count is within the acceptable range");
const TOO_FEW: Reason =
    ("TooFewReplicas", "the desired replica count is less than the minimum replica count");
const TOO_MANY: Reason =
    ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const UP_LIMIT: Reason =
    ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const DOWN_LIMIT: Reason =
    ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate");
const UP_STABILIZED: Reason = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
);
const DOWN_STABILIZED: Reason = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
);
const READY: Reason = ("ReadyForNewScale", "recommended size matches current size");

impl History {
    /// The size that a target was found with counts as recommended.
    pub(super) fn begin(&mut self, current: i32, now: Instant) {
        if self.recommendations.is_empty() {
            self.recommendations.push((current, now));
        }
    }

    /// Notes a rescale, for the policies.
    pub(super) fn rescaled(
        &mut self,
        behavior: Option<&HorizontalPodAutoscalerBehavior>,
        (from, to): (i32, i32),
        now: Instant,
    ) {
        let Some(behavior) = behavior else { return };
        if to > from {
            self.ups.note(to - from, longest_period(&behavior.scale_up), now);
        } else {
            self.downs.note(from - to, longest_period(&behavior.scale_down), now);
        }
    }

    /// Without behaviour: the highest recommendation within `window`.
    fn stabilize(&mut self, desired: i32, window: Duration, now: Instant) -> i32 {
        let recent = |at: Instant| now.duration_since(at) <= window;
        let kept = self.recommendations.iter().filter(|(_, at)| recent(*at)).map(|(replicas, _)| *replicas);
        let highest = kept.fold(desired, i32::max);
        self.recommend(desired, now, |at| !recent(at));
        highest
    }

    /// With behaviour: the current size, moved no further than every recommendation within a window agrees to.
    fn stabilize_with(&mut self, wish: Wish, up: Duration, down: Duration, now: Instant) -> i32 {
        let within = |window: Duration| {
            let recent = self.recommendations.iter().filter(move |(_, at)| now.duration_since(*at) < window);
            recent.map(|(replicas, _)| *replicas)
        };
        let lowest = within(up).fold(wish.desired, i32::min);
        let highest = within(down).fold(wish.desired, i32::max);
        let longest = up.max(down);
        self.recommend(wish.desired, now, |at| now.duration_since(at) > longest);
        wish.current.max(lowest).min(highest)
    }

    /// Takes the place of one that is too old to count, so that there are never more than fit into the windows.
    fn recommend(&mut self, desired: i32, now: Instant, is_old: impl Fn(Instant) -> bool) {
        match self.recommendations.iter_mut().rfind(|(_, at)| is_old(*at)) {
            Some(old) => *old = (desired, now),
            None => self.recommendations.push((desired, now)),
        }
    }
}

impl Changes {
    fn note(&mut self, replicas: i32, longest_period: Duration, now: Instant) {
        match self.0.iter_mut().rfind(|(_, at)| now.duration_since(*at) > longest_period) {
            Some(old) => *old = (replicas, now),
            None => self.0.push((replicas, now)),
        }
    }

    fn within(&self, period: Duration, now: Instant) -> i32 {
        let recent = self.0.iter().filter(|(_, at)| now.duration_since(*at) < period);
        recent.fold(0, |sum, (replicas, _)| sum.saturating_add(*replicas))
    }
}

/// A recommendation within all limits. `window` is how long scaling down waits where the behaviour does not say.
pub(super) fn normalize(
    history: &mut History,
    wish: Wish,
    behavior: Option<&HorizontalPodAutoscalerBehavior>,
    window: Duration,
    now: Instant,
) -> Normalized {
    let (stabilized, why, limit) = match behavior {
        None => {
            let stabilized = history.stabilize(wish.desired, window, now);
            (stabilized, DOWN_STABILIZED, doubled(Wish { desired: stabilized, ..wish }))
        }
        Some(behavior) => {
            let seconds = |rules: &HpaScalingRules| rules.stabilization_window_seconds.map(period);
            let up = seconds(&behavior.scale_up).unwrap_or_default();
            let down = seconds(&behavior.scale_down).unwrap_or(window);
            let stabilized = history.stabilize_with(wish, up, down, now);
            let why = if wish.desired >= wish.current { UP_STABILIZED } else { DOWN_STABILIZED };
            let limit = by_policies(Wish { desired: stabilized, ..wish }, behavior, history, now);
            (stabilized, why, limit)
        }
    };
    let (replicas, (reason, message)) = limit;
    let able = if stabilized == wish.desired { READY } else { why };
    Normalized {
        replicas,
        able_to_scale: Condition::new("AbleToScale", true, able.0, able.1),
        scaling_limited: Condition::new("ScalingLimited", replicas != stabilized, reason, message),
    }
}

fn doubled(wish: Wish) -> (i32, Reason) {
    let rate = (SCALE_UP_FACTOR * f64::from(wish.current)).max(SCALE_UP_MINIMUM) as i32;
    let (allowed, reason) = if wish.max > rate { (rate, UP_LIMIT) } else { (wish.max, TOO_MANY) };
    if wish.desired < wish.min {
        (wish.min, TOO_FEW)
    } else if wish.desired > allowed {
        (allowed, reason)
    } else {
        (wish.desired, WITHIN_RANGE)
    }
}

fn by_policies(
    wish: Wish,
    behavior: &HorizontalPodAutoscalerBehavior,
    history: &History,
    now: Instant,
) -> (i32, Reason) {
    if wish.desired > wish.current {
        // What was added lately may leave nothing to add now.
        let rate = up_limit(&behavior.scale_up, wish.current, history, now).max(wish.current);
        let (allowed, reason) = if wish.max > rate { (rate, UP_LIMIT) } else { (wish.max, TOO_MANY) };
        if wish.desired > allowed {
            return (allowed, reason);
        }
    } else if wish.desired < wish.current {
        let rate = down_limit(&behavior.scale_down, wish.current, history, now).min(wish.current);
        let (allowed, reason) = if wish.min < rate { (rate, DOWN_LIMIT) } else { (wish.min, TOO_FEW) };
        if wish.desired < allowed {
            return (allowed, reason);
        }
    }
    (wish.desired, WITHIN_RANGE)
}

/// The most replicas that the policies allow.
fn up_limit(rules: &HpaScalingRules, current: i32, history: &History, now: Instant) -> i32 {
    let proposal = |policy: &HpaScalingPolicy| {
        let before = before_period(policy, current, history, now);
        match policy.type_.as_str() {
            "Pods" => before.saturating_add(policy.value),
            // Rounded up, or a small target would never grow.
            _ => (f64::from(before) * (1.0 + f64::from(policy.value) / 100.0)).ceil() as i32,
        }
    };
    let proposals = rules.policies.iter().map(proposal);
    match rules.select_policy.as_str() {
        "Disabled" => current,
        "Min" => proposals.min().unwrap_or(i32::MAX),
        _ => proposals.max().unwrap_or(i32::MIN),
    }
}

/// The fewest replicas that the policies allow.
fn down_limit(rules: &HpaScalingRules, current: i32, history: &History, now: Instant) -> i32 {
    let proposal = |policy: &HpaScalingPolicy| {
        let before = before_period(policy, current, history, now);
        match policy.type_.as_str() {
            "Pods" => before.saturating_sub(policy.value),
            _ => (f64::from(before) * (1.0 - f64::from(policy.value) / 100.0)) as i32,
        }
    };
    let proposals = rules.policies.iter().map(proposal);
    match rules.select_policy.as_str() {
        "Disabled" => current,
        // The smallest change leaves the most.
        "Min" => proposals.max().unwrap_or(i32::MIN),
        _ => proposals.min().unwrap_or(i32::MAX),
    }
}

/// How many there were when the period of a policy began.
fn before_period(policy: &HpaScalingPolicy, current: i32, history: &History, now: Instant) -> i32 {
    let period = period(policy.period_seconds);
    current.saturating_sub(history.ups.within(period, now)).saturating_add(history.downs.within(period, now))
}

fn longest_period(rules: &HpaScalingRules) -> Duration {
    period(rules.policies.iter().map(|policy| policy.period_seconds).max().unwrap_or_default())
}

fn period(seconds: i32) -> Duration {
    Duration::from_secs(seconds.max(0).unsigned_abs().into())
}
