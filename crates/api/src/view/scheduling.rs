//! `scheduling.k8s.io/v1alpha2`: what the scheduler reads of groups of pods.

use apimachinery::Str;
use serde::Deserialize;

use super::{Condition, ObjectMeta};

/// `scheduling.k8s.io/v1alpha2.PodGroup`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct PodGroup {
    pub metadata: ObjectMeta,
    pub spec: PodGroupSpec,
    pub status: PodGroupStatus,
}

/// `scheduling.k8s.io/v1alpha2.PodGroupSpec`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct PodGroupSpec {
    pub scheduling_policy: PodGroupSchedulingPolicy,
    pub scheduling_constraints: PodGroupSchedulingConstraints,
    /// `Pod` or `PodGroup`: whether its pods may be preempted one by one.
    pub disruption_mode: Str,
    pub priority: Option<i32>,
}

/// `scheduling.k8s.io/v1alpha2.PodGroupSchedulingPolicy`; without a gang it is the basic one.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct PodGroupSchedulingPolicy {
    pub gang: Option<GangSchedulingPolicy>,
}

/// `scheduling.k8s.io/v1alpha2.GangSchedulingPolicy`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct GangSchedulingPolicy {
    pub min_count: u32,
}

/// `scheduling.k8s.io/v1alpha2.PodGroupSchedulingConstraints`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct PodGroupSchedulingConstraints {
    /// At most one.
    pub topology: Vec<TopologyConstraint>,
}

/// `scheduling.k8s.io/v1alpha2.TopologyConstraint`: all pods go where this label of nodes has one value.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct TopologyConstraint {
    pub key: Str,
}

/// `scheduling.k8s.io/v1alpha2.PodGroupStatus`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct PodGroupStatus {
    pub conditions: Vec<Condition>,
}
