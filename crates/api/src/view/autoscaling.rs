//! `autoscaling/v2`: what the autoscaler reads.

use apimachinery::{Quantity, Str};
use serde::{Deserialize, Deserializer};

use super::{LabelSelector, ObjectMeta};

/// `autoscaling/v2.HorizontalPodAutoscaler`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct HorizontalPodAutoscaler {
    pub metadata: ObjectMeta,
    pub spec: HorizontalPodAutoscalerSpec,
    pub status: HorizontalPodAutoscalerStatus,
}

/// `autoscaling/v2.HorizontalPodAutoscalerSpec`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct HorizontalPodAutoscalerSpec {
    pub scale_target_ref: CrossVersionObjectReference,
    pub min_replicas: Option<i32>,
    pub max_replicas: i32,
    pub metrics: Vec<MetricSpec>,
    pub behavior: Option<HorizontalPodAutoscalerBehavior>,
}

/// `autoscaling/v2.HorizontalPodAutoscalerStatus`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct HorizontalPodAutoscalerStatus {
    pub current_replicas: i32,
    pub desired_replicas: i32,
}

/// `autoscaling/v2.CrossVersionObjectReference`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct CrossVersionObjectReference {
    pub api_version: Str,
    pub kind: Str,
    pub name: Str,
}

/// `autoscaling/v2.MetricSpec`: the source that `type` names is there.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct MetricSpec {
    /// `Object`, `Pods`, `Resource`, `ContainerResource` or `External`.
    #[serde(rename = "type")]
    pub type_: Str,
    pub object: ObjectMetricSource,
    pub pods: PodsMetricSource,
    pub resource: ResourceMetricSource,
    pub container_resource: ContainerResourceMetricSource,
    pub external: ExternalMetricSource,
}

/// `autoscaling/v2.ObjectMetricSource`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct ObjectMetricSource {
    pub described_object: CrossVersionObjectReference,
    pub target: MetricTarget,
    pub metric: MetricIdentifier,
}

/// `autoscaling/v2.PodsMetricSource`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct PodsMetricSource {
    pub metric: MetricIdentifier,
    pub target: MetricTarget,
}

/// `autoscaling/v2.ResourceMetricSource`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct ResourceMetricSource {
    pub name: Str,
    pub target: MetricTarget,
}

/// `autoscaling/v2.ContainerResourceMetricSource`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerResourceMetricSource {
    pub name: Str,
    pub target: MetricTarget,
    pub container: Str,
}

/// `autoscaling/v2.ExternalMetricSource`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct ExternalMetricSource {
    pub metric: MetricIdentifier,
    pub target: MetricTarget,
}

/// `autoscaling/v2.MetricIdentifier`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct MetricIdentifier {
    pub name: Str,
    /// Absent leaves the choice to the metrics server.
    pub selector: Option<LabelSelector>,
}

/// `autoscaling/v2.MetricTarget`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct MetricTarget {
    /// `Utilization`, `Value` or `AverageValue`.
    #[serde(rename = "type")]
    pub type_: Str,
    pub value: Option<Amount>,
    pub average_value: Option<Amount>,
    pub average_utilization: Option<i32>,
}

/// `autoscaling/v2.HorizontalPodAutoscalerBehavior`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct HorizontalPodAutoscalerBehavior {
    pub scale_up: HpaScalingRules,
    pub scale_down: HpaScalingRules,
}

/// `autoscaling/v2.HPAScalingRules`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct HpaScalingRules {
    pub stabilization_window_seconds: Option<i32>,
    /// `Max`, `Min` or `Disabled`.
    pub select_policy: Str,
    pub policies: Vec<HpaScalingPolicy>,
    pub tolerance: Option<Amount>,
}

/// `autoscaling/v2.HPAScalingPolicy`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct HpaScalingPolicy {
    /// `Pods` or `Percent`.
    #[serde(rename = "type")]
    pub type_: Str,
    pub value: i32,
    pub period_seconds: i32,
}

/// `resource.Quantity`, which may be written as a number; zero if it is none, as validation has seen to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Amount(pub Quantity);

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Text(Str),
            Whole(i64),
            Decimal(f64),
        }
        let text = match Written::deserialize(deserializer)? {
            Written::Text(text) => text,
            Written::Whole(number) => number.to_string().into(),
            Written::Decimal(number) => number.to_string().into(),
        };
        Ok(Self(Quantity::parse(&text).unwrap_or(Quantity::ZERO)))
    }
}
