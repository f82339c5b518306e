//! `policy/v1`: what the scheduler and the disruption controller read.

use std::collections::BTreeMap;

use apimachinery::Str;
use serde::Deserialize;

use super::{IntOrString, LabelSelector, ObjectMeta};

/// `policy/v1.PodDisruptionBudget`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct PodDisruptionBudget {
    pub metadata: ObjectMeta,
    pub spec: PodDisruptionBudgetSpec,
    pub status: PodDisruptionBudgetStatus,
}

/// `policy/v1.PodDisruptionBudgetSpec`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct PodDisruptionBudgetSpec {
    /// Absent selects nothing.
    pub selector: Option<LabelSelector>,
    pub min_available: Option<IntOrString>,
    pub max_unavailable: Option<IntOrString>,
}

/// `policy/v1.PodDisruptionBudgetStatus`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct PodDisruptionBudgetStatus {
    pub disruptions_allowed: i32,
    /// Pods whose eviction is counted already, by name.
    pub disrupted_pods: BTreeMap<Str, Str>,
}
