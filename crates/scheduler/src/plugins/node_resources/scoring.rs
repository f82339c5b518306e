//! How full a node becomes, as a score: the strategies of `NodeResourcesFit`, and how evenly it is filled.

use apimachinery::Str;
use apimachinery::field::{Error, ErrorList, Path};
use serde::Deserialize;
use smallvec::SmallVec;

use crate::cache::NodeInfo;
use crate::framework::MAX_NODE_SCORE;
use crate::pod::PodInfo;

/// The highest score of a point in a shape; it stands for [`MAX_NODE_SCORE`].
const SHAPE_SCORE_MAX: i64 = 10;

const STRATEGIES: [&str; 3] = ["LeastAllocated", "MostAllocated", "RequestedToCapacityRatio"];

/// A resource that is scored, and how much it counts.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ResourceSpec {
    pub name: Str,
    /// 0 stands for 1.
    pub weight: i64,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct ScoringStrategy {
    #[serde(rename = "type")]
    kind: String,
    resources: Vec<ResourceSpec>,
    requested_to_capacity_ratio: Option<RequestedToCapacityRatio>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RequestedToCapacityRatio {
    shape: Vec<ShapePoint>,
}

/// A point of a broken line from utilization to score.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ShapePoint {
    utilization: i32,
    score: i32,
}

/// Which nodes to fill first.
#[derive(Clone, Debug, PartialEq)]
pub enum Strategy {
    /// The emptiest.
    LeastAllocated,
    /// The fullest.
    MostAllocated,
    /// Those whose utilization has the highest score, by points of utilization in percent and score in percent.
    RequestedToCapacityRatio(Vec<(i64, i64)>),
}

/// Which requests count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// With those that are missing assumed.
    Assumed,
    Written,
}

/// Of one resource on a node: what its pods have, what they would have with the pod, and what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    pub weight: i64,
    pub allocated: i64,
    pub requested: i64,
    pub allocatable: i64,
}

// === impl ResourceSpec ===

/// CPU and memory where none are named; each with weight 1 where none is given.
pub fn with_defaults(mut resources: Vec<ResourceSpec>) -> Vec<ResourceSpec> {
    if resources.is_empty() {
        resources = ["cpu", "memory"].map(|name| ResourceSpec { name: name.into(), weight: 1 }).into();
    }
    resources.iter_mut().filter(|resource| resource.weight == 0).for_each(|resource| resource.weight = 1);
    resources
}

impl ResourceSpec {
    pub fn requested_by(&self, pod: &PodInfo, basis: Basis) -> i64 {
        match (self.name.as_str(), basis) {
            ("cpu", Basis::Assumed) => pod.scored_cpu_milli,
            ("cpu", Basis::Written) => pod.requests.cpu_milli,
            ("memory", Basis::Assumed) => pod.scored_memory,
            ("memory", Basis::Written) => pod.requests.memory,
            ("ephemeral-storage", _) => pod.requests.ephemeral_storage,
            (name, _) => pod.requests.extended(name),
        }
    }

    /// What the pods on the node have, and what there is.
    fn on(&self, node: &NodeInfo, basis: Basis) -> (i64, i64) {
        let (all, used) = (&node.allocatable, &node.requested);
        match (self.name.as_str(), basis) {
            ("cpu", Basis::Assumed) => (node.scored_cpu_milli, all.cpu_milli),
            ("cpu", Basis::Written) => (used.cpu_milli, all.cpu_milli),
            ("memory", Basis::Assumed) => (node.scored_memory, all.memory),
            ("memory", Basis::Written) => (used.memory, all.memory),
            ("ephemeral-storage", _) => (used.ephemeral_storage, all.ephemeral_storage),
            (name, _) => (used.extended(name), all.extended(name)),
        }
    }

    fn is_native(&self) -> bool {
        matches!(self.name.as_str(), "cpu" | "memory" | "ephemeral-storage")
    }
}

/// The resources that the node has, but for extended ones that the pod does not want.
pub fn usages<'a>(
    resources: &'a [ResourceSpec],
    pod: &'a PodInfo,
    node: &'a NodeInfo,
    basis: Basis,
) -> impl Iterator<Item = Usage> + 'a {
    resources.iter().filter_map(move |resource| {
        let wanted = resource.requested_by(pod, basis);
        if wanted == 0 && !resource.is_native() {
            return None;
        }
        let (allocated, allocatable) = resource.on(node, basis);
        let requested = allocated.saturating_add(wanted);
        (allocatable > 0).then_some(Usage { weight: resource.weight, allocated, requested, allocatable })
    })
}

// === impl ScoringStrategy ===

impl ScoringStrategy {
    pub fn least_allocated() -> Self {
        Self { kind: STRATEGIES[0].to_owned(), ..Self::default() }
    }

    pub fn check(&self, errors: &mut ErrorList, path: &Path<'_>) {
        if !STRATEGIES.contains(&self.kind.as_str()) {
            errors.push(Error::not_supported(&path.child("type"), &self.kind, &STRATEGIES));
        }
        let resources = path.child("resources");
        for (index, resource) in self.resources.iter().enumerate() {
            if !(0..=100).contains(&resource.weight) {
                let detail = format!("resource weight of {} not in valid range (0, 100]", resource.name);
                let path = resources.index(index);
                errors.push(Error::invalid(&path.child("weight"), resource.weight, detail));
            }
        }
        let path = path.child("requestedToCapacityRatio");
        match (self.kind == "RequestedToCapacityRatio", &self.requested_to_capacity_ratio) {
            (true, None) => {
                let detail = "must be specified when type is RequestedToCapacityRatio";
                errors.push(Error::required(&path, detail));
            }
            (true, Some(ratio)) => check_shape(errors, &ratio.shape, &path.child("shape")),
            (false, None) => {}
            (false, Some(_)) => {
                let detail = "must be nil when type is not RequestedToCapacityRatio";
                errors.push(Error::forbidden(&path, detail));
            }
        }
    }

    pub fn into_parts(self) -> (Strategy, Vec<ResourceSpec>) {
        let strategy = match (self.kind.as_str(), self.requested_to_capacity_ratio) {
            ("MostAllocated", _) => Strategy::MostAllocated,
            (_, Some(RequestedToCapacityRatio { shape })) => {
                let scale = MAX_NODE_SCORE / SHAPE_SCORE_MAX;
                let point = |point: ShapePoint| (point.utilization.into(), i64::from(point.score) * scale);
                Strategy::RequestedToCapacityRatio(shape.into_iter().map(point).collect())
            }
            _ => Strategy::LeastAllocated,
        };
        (strategy, with_defaults(self.resources))
    }
}

fn check_shape(errors: &mut ErrorList, shape: &[ShapePoint], path: &Path<'_>) {
    if shape.is_empty() {
        errors.push(Error::required(path, "at least one point must be specified"));
    }
    if let Some(at) = (1..shape.len()).find(|&at| shape[at - 1].utilization >= shape[at].utilization) {
        let detail = "values must be sorted in increasing order";
        let path = path.index(at);
        errors.push(Error::invalid(&path.child("utilization"), shape[at].utilization, detail));
    }
    for (index, point) in shape.iter().enumerate() {
        let path = path.index(index);
        let ranges =
            [("utilization", point.utilization, 100), ("score", point.score, SHAPE_SCORE_MAX as i32)];
        for (field, value, max) in ranges {
            if !(0..=max).contains(&value) {
                let detail = format!("not in valid range [0, {max}]");
                errors.push(Error::invalid(&path.child(field), value, detail));
            }
        }
    }
}

// === impl Strategy ===

impl Strategy {
    /// The mean of the resources' scores by their weights; 0 without any.
    pub fn score(&self, usages: impl Iterator<Item = Usage>) -> i64 {
        let (mut sum, mut weights) = (0, 0);
        for usage in usages {
            let score = match self {
                Self::LeastAllocated => share(usage.allocatable - usage.requested, usage.allocatable),
                Self::MostAllocated => share(usage.requested.min(usage.allocatable), usage.allocatable),
                Self::RequestedToCapacityRatio(shape) => {
                    match on_line(shape, share(usage.requested.min(usage.allocatable), usage.allocatable)) {
                        // What scores nothing does not count at all.
                        0 => continue,
                        score => score,
                    }
                }
            };
            sum += score * usage.weight;
            weights += usage.weight;
        }
        match (weights, self) {
            (0, _) => 0,
            (_, Self::RequestedToCapacityRatio(_)) => (sum as f64 / weights as f64).round() as i64,
            _ => sum / weights,
        }
    }
}

/// Of 100, rounded down; nothing where the part is negative.
fn share(part: i64, whole: i64) -> i64 {
    // In 128 bits: memory in bytes times 100 overflows 64 bits from 82 PiB on.
    (i128::from(part.max(0)) * i128::from(MAX_NODE_SCORE) / i128::from(whole)) as i64
}

/// The score at a utilization, between the points of the line on both sides of it.
fn on_line(line: &[(i64, i64)], at: i64) -> i64 {
    let Some(next) = line.iter().position(|(x, _)| at <= *x) else {
        return line.last().map_or(0, |(_, score)| *score);
    };
    let (x2, y2) = line[next];
    match next.checked_sub(1).map(|before| line[before]) {
        None => y2,
        Some((x1, y1)) => y1 + (y2 - y1) * (at - x1) / (x2 - x1),
    }
}

/// 100 less the standard deviation of the used shares.
pub fn evenness(usages: impl Iterator<Item = (i64, i64)>) -> i64 {
    let shares: SmallVec<[f64; 4]> =
        usages.map(|(used, allocatable)| (used as f64 / allocatable as f64).min(1.0)).collect();
    let deviation = match shares.as_slice() {
        [] | [_] => 0.0,
        [a, b] => ((a - b) / 2.0).abs(),
        all => {
            let mean = all.iter().sum::<f64>() / all.len() as f64;
            (all.iter().map(|share| (share - mean) * (share - mean)).sum::<f64>() / all.len() as f64).sqrt()
        }
    };
    ((1.0 - deviation) * MAX_NODE_SCORE as f64) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(requested: i64, weight: i64) -> Usage {
        Usage { weight, allocated: 0, requested, allocatable: 100 }
    }

    #[test]
    fn strategies_score_by_the_weighted_mean() {
        let ratio = |points: &[(i64, i64)]| Strategy::RequestedToCapacityRatio(points.to_vec());
        for (strategy, usages, expected) in [
            (Strategy::LeastAllocated, vec![usage(25, 1), usage(75, 1)], 50),
            (Strategy::LeastAllocated, vec![usage(25, 3), usage(75, 1)], 62),
            (Strategy::LeastAllocated, vec![usage(130, 1)], 0),
            (Strategy::MostAllocated, vec![usage(25, 3), usage(75, 1)], 37),
            (Strategy::MostAllocated, vec![usage(130, 1)], 100),
            (Strategy::MostAllocated, vec![], 0),
            (ratio(&[(0, 0), (100, 100)]), vec![usage(40, 1), usage(61, 1)], 51),
            (ratio(&[(0, 0), (100, 100)]), vec![usage(0, 9), usage(60, 1)], 60),
            (ratio(&[(20, 100), (80, 0)]), vec![usage(10, 1)], 100),
            (ratio(&[(20, 100), (80, 0)]), vec![usage(50, 1)], 50),
            (ratio(&[(20, 100), (80, 10)]), vec![usage(140, 1)], 10),
        ] {
            assert_eq!(strategy.score(usages.clone().into_iter()), expected, "{strategy:?} of {usages:?}");
        }
    }

    #[test]
    fn evenness_is_the_deviation_of_any_number_of_resources() {
        let even = |used: &[i64]| evenness(used.iter().map(|&used| (used, 100)));
        assert_eq!([even(&[]), even(&[70]), even(&[30, 70]), even(&[50, 50, 50])], [100, 100, 80, 100]);
        assert_eq!(even(&[0, 50, 100]), 59);
    }
}
