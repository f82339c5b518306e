//! How many replicas a metric asks for.
//!
//! Pure: metrics and pods go in, a [`Proposal`] comes out. The rules for pods that are not ready, or have no metrics,
//! are upstream's: they never make a target grow, nor shrink, further than if they were all at an extreme.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use api::pod_resources::{self, Counted};
use api::view::Pod;
use apimachinery::{Quantity, Str};
use jiff::Timestamp;

use super::Settings;
use crate::pods::{PodOf, timestamp};

/// One pod's use, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct PodMetric {
    pub(super) at: Timestamp,
    /// Over which it was measured.
    pub(super) window: Duration,
    pub(super) value: i64,
}

/// By the pod's name.
pub(super) type PodMetrics = BTreeMap<Str, PodMetric>;

/// By how much use may differ from the target before anything is done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tolerances {
    pub(super) down: f64,
    pub(super) up: f64,
}

/// What pods are to use.
#[derive(Clone, Copy, Debug)]
pub(super) enum Goal<'a> {
    /// Per cent of what they, or one container of them, request of a resource.
    Utilization { percent: i32, resource: &'a str, container: Option<&'a str> },
    /// Thousandths on average. The resource is `None` for what is none.
    Average { milli: i64, resource: Option<&'a str> },
}

/// The goal with what it takes to measure by it.
enum Scale {
    Utilization { percent: i32, requests: HashMap<Str, i64> },
    Average { milli: i64 },
}

/// How much is used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Usage {
    /// 1 where the target is met.
    ratio: f64,
    pub(super) utilization_percent: Option<i32>,
    /// Per pod, in thousandths.
    pub(super) average: i64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Proposal {
    pub(super) replicas: i32,
    pub(super) usage: Usage,
}

/// Pods by how far their use counts.
#[derive(Debug, Default)]
struct Groups {
    ready: usize,
    unready: Vec<Str>,
    missing: Vec<Str>,
    /// On their way out.
    ignored: Vec<Str>,
}

impl Tolerances {
    pub(super) fn hold(self, ratio: f64) -> bool {
        1.0 - self.down <= ratio && ratio <= 1.0 + self.up
    }
}

impl Goal<'_> {
    fn resource(&self) -> Option<&str> {
        match self {
            Self::Utilization { resource, .. } => Some(resource),
            Self::Average { resource, .. } => *resource,
        }
    }

    fn scale(&self, pods: &[PodOf]) -> Result<Scale, String> {
        match *self {
            Self::Average { milli, .. } => Ok(Scale::Average { milli }),
            Self::Utilization { percent, resource, container } => {
                let request =
                    |own: &PodOf| Ok((own.object.name().into(), request(own, resource, container)?));
                Ok(Scale::Utilization {
                    percent,
                    requests: pods.iter().map(request).collect::<Result<_, String>>()?,
                })
            }
        }
    }
}

impl Scale {
    fn measure(&self, metrics: &PodMetrics) -> Result<Usage, String> {
        match self {
            Self::Average { milli } => {
                let total = metrics.values().fold(0_i64, |sum, own| sum.saturating_add(own.value));
                let average = total / metrics.len().max(1) as i64;
                Ok(Usage { ratio: average as f64 / *milli as f64, utilization_percent: None, average })
            }
            Self::Utilization { percent, requests } => {
                let known = metrics.iter().filter_map(|(name, own)| Some((own.value, *requests.get(name)?)));
                let (mut used, mut requested, mut count) = (0_i64, 0_i64, 0_i64);
                for (value, request) in known {
                    used = used.saturating_add(value);
                    requested = requested.saturating_add(request);
                    count += 1;
                }
                if requested == 0 {
                    return Err("no metrics returned matched known pods".to_owned());
                }
                let utilization = (i128::from(used) * 100 / i128::from(requested)) as i32;
                Ok(Usage {
                    ratio: f64::from(utilization) / f64::from(*percent),
                    utilization_percent: Some(utilization),
                    average: used / count,
                })
            }
        }
    }

    /// What a pod without metrics is taken to use where fewer pods would do: as much as leaves its place to it.
    fn assumed(&self, pod: &str) -> i64 {
        match self {
            Self::Average { milli } => *milli,
            Self::Utilization { percent, requests } => {
                requests.get(pod).copied().unwrap_or_default().saturating_mul((*percent).max(100).into())
                    / 100
            }
        }
    }
}

/// How many replicas meet the goal.
pub(super) fn propose(
    goal: Goal<'_>,
    mut metrics: PodMetrics,
    pods: &[PodOf],
    current: i32,
    tolerances: Tolerances,
    settings: &Settings,
) -> Result<Proposal, String> {
    if pods.is_empty() {
        return Err(NO_PODS.to_owned());
    }
    let groups = Groups::of(pods, &metrics, goal.resource(), settings, rt::now());
    for name in groups.ignored.iter().chain(&groups.unready) {
        metrics.remove(name);
    }
    if metrics.is_empty() {
        return Err("did not receive metrics for targeted pods (pods might be unready)".to_owned());
    }
    let scale = goal.scale(pods)?;
    let usage = scale.measure(&metrics)?;
    let keep = Proposal { replicas: current, usage };
    let unready_count = !groups.unready.is_empty() && usage.ratio > 1.0;
    if !unready_count && groups.missing.is_empty() {
        let replicas = (usage.ratio * groups.ready as f64).ceil() as i32;
        return Ok(if tolerances.hold(usage.ratio) { keep } else { Proposal { replicas, usage } });
    }

    let mut assume = |name: &Str, value: i64| {
        metrics.insert(name.clone(), PodMetric { at: Timestamp::UNIX_EPOCH, window: Duration::ZERO, value });
    };
    if usage.ratio < 1.0 {
        groups.missing.iter().for_each(|name| assume(name, scale.assumed(name)));
    } else if usage.ratio > 1.0 {
        groups.missing.iter().for_each(|name| assume(name, 0));
    }
    if unready_count {
        groups.unready.iter().for_each(|name| assume(name, 0));
    }
    let ratio = scale.measure(&metrics)?.ratio;
    let turned = (usage.ratio < 1.0 && ratio > 1.0) || (usage.ratio > 1.0 && ratio < 1.0);
    if tolerances.hold(ratio) || turned {
        return Ok(keep);
    }
    let replicas = (ratio * metrics.len() as f64).ceil() as i32;
    if (ratio < 1.0 && replicas > current) || (ratio > 1.0 && replicas < current) {
        return Ok(keep);
    }
    Ok(Proposal { replicas, usage })
}

const NO_PODS: &str = "no pods returned by selector while calculating replica count";

/// How many replicas a value of the whole target asks for, which is so many times what it should be.
pub(super) fn by_ratio(
    ratio: f64,
    pods: &[PodOf],
    current: i32,
    tolerances: Tolerances,
) -> Result<i32, String> {
    if current == 0 {
        return Ok(ratio.ceil() as i32);
    }
    if tolerances.hold(ratio) {
        return Ok(current);
    }
    if pods.is_empty() {
        return Err(format!("unable to calculate ready pods: {NO_PODS}"));
    }
    let ready = pods.iter().filter(|own| own.pod.status.phase == "Running" && own.pod.is_ready()).count();
    Ok((ratio * ready as f64).ceil() as i32)
}

/// How many replicas share a value so that each has its part, and what each has now.
pub(super) fn by_share(usage: i64, share: i64, current: i32, tolerances: Tolerances) -> (i32, i64) {
    let ratio = usage as f64 / (share as f64 * f64::from(current));
    let replicas = if tolerances.hold(ratio) { current } else { (usage as f64 / share as f64).ceil() as i32 };
    (replicas, (usage as f64 / f64::from(current)).ceil() as i64)
}

impl Groups {
    fn of(
        pods: &[PodOf],
        metrics: &PodMetrics,
        resource: Option<&str>,
        settings: &Settings,
        now: Timestamp,
    ) -> Self {
        let mut groups = Self::default();
        for PodOf { object, pod } in pods {
            let name = Str::from(object.name());
            if pod.is_deleting() || pod.status.phase == "Failed" {
                groups.ignored.push(name);
            } else if pod.status.phase == "Pending" {
                groups.unready.push(name);
            } else {
                match metrics.get(&name) {
                    None => groups.missing.push(name),
                    Some(own) if resource == Some("cpu") && is_starting(pod, own, settings, now) => {
                        groups.unready.push(name);
                    }
                    Some(_) => groups.ready += 1,
                }
            }
        }
        groups
    }
}

/// Whether a pod's use of processors is that of its start, and says nothing about the load.
fn is_starting(pod: &Pod, metric: &PodMetric, settings: &Settings, now: Timestamp) -> bool {
    let started = timestamp(pod.status.start_time.as_ref());
    let (Some(ready), Some(started)) = (pod.condition("Ready"), started) else { return true };
    let is_unready = ready.status == "False";
    let changed = timestamp(ready.last_transition_time.as_ref()).unwrap_or(Timestamp::UNIX_EPOCH);
    if started + settings.cpu_initialization_period > now {
        // A whole window must have been measured since.
        let measured = Duration::try_from(metric.at.duration_since(changed)).unwrap_or_default();
        is_unready || measured < metric.window
    } else {
        // One that was never ready.
        is_unready && started + settings.initial_readiness_delay > changed
    }
}

/// What a pod, or one container of it, requests of a resource, in thousandths.
fn request(own: &PodOf, resource: &str, container: Option<&str>) -> Result<i64, String> {
    let (pod, name) = (&own.pod.spec, own.object.name());
    if container.is_none() && pod.resources.as_ref().is_some_and(|all| has_pod_level(all.requests.iter())) {
        let all =
            pod_resources::requests(&own.object.to_value(), Counted { overhead: true, ..Counted::default() });
        let amount = all.get(resource);
        return amount
            .map(|amount| amount.milli_value())
            .ok_or_else(|| format!("missing pod-level request for {resource} in Pod {name}"));
    }
    let sidecars = pod.init_containers.iter().filter(|container| container.is_sidecar());
    let counted = pod.containers.iter().chain(sidecars);
    let mut sum = 0_i64;
    let mut found = container.is_none();
    for own in counted.filter(|own| container.is_none_or(|container| own.name == container)) {
        found = true;
        let amount = own.resources.requests.get(resource).and_then(|text| Quantity::parse(text).ok());
        let amount = amount.ok_or_else(|| {
            format!("missing request for {resource} in container {} of Pod {name}", own.name)
        })?;
        sum = sum.saturating_add(amount.milli_value());
    }
    match container {
        Some(container) if !found => Err(format!("container {container} not found in Pod {name}")),
        _ => Ok(sum),
    }
}

/// Whether a pod as a whole requests something.
fn has_pod_level<'a>(mut requests: impl Iterator<Item = (&'a Str, &'a Str)>) -> bool {
    requests.any(|(name, _)| matches!(name.as_str(), "cpu" | "memory") || name.starts_with("hugepages-"))
}
