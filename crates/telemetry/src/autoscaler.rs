//! What the HorizontalPodAutoscaler controller does, under upstream's names.

use std::time::Duration;

use crate::metric::{Counter, Encoder, Family, Gauge, Histogram, Unit};

const SECONDS: &[f64] = &[
    0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384,
];

/// What a look at an autoscaler, or at one of its metrics, led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoscalerAction {
    ScaleUp,
    ScaleDown,
    None,
}

impl AutoscalerAction {
    /// From one number of replicas to another.
    pub fn between(from: i32, to: i32) -> Self {
        match to.cmp(&from) {
            std::cmp::Ordering::Greater => Self::ScaleUp,
            std::cmp::Ordering::Less => Self::ScaleDown,
            std::cmp::Ordering::Equal => Self::None,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::ScaleUp => "scale_up",
            Self::ScaleDown => "scale_down",
            Self::None => "none",
        }
    }
}

pub struct AutoscalerMetrics {
    reconciliations: Family<Counter, 2>,
    reconciliation_durations: Family<Histogram, 2>,
    computations: Family<Counter, 3>,
    computation_durations: Family<Histogram, 3>,
    /// Autoscalers that are looked after.
    pub autoscalers: Gauge,
    desired_replicas: Family<Gauge, 2>,
}

impl AutoscalerMetrics {
    pub(crate) fn new() -> Self {
        Self {
            reconciliations: Family::new(["action", "error"], Counter::default),
            reconciliation_durations: Family::new(["action", "error"], || {
                Histogram::new(Unit::Seconds, SECONDS)
            }),
            computations: Family::new(["action", "error", "metric_type"], Counter::default),
            computation_durations: Family::new(["action", "error", "metric_type"], || {
                Histogram::new(Unit::Seconds, SECONDS)
            }),
            autoscalers: Gauge::default(),
            desired_replicas: Family::new(["namespace", "hpa_name"], Gauge::default),
        }
    }

    /// One look at an autoscaler. `error` is `spec` or `internal`.
    pub fn reconciled(&self, action: AutoscalerAction, error: Option<&str>, took: Duration) {
        let labels = [action.label(), error.unwrap_or("none")];
        self.reconciliations.on(labels, Counter::inc);
        self.reconciliation_durations.on(labels, |durations| durations.observe(took));
    }

    /// One look at a metric of an autoscaler. `kind` is its type, as in the API.
    pub fn computed(&self, action: AutoscalerAction, error: Option<&str>, kind: &str, took: Duration) {
        let labels = [action.label(), error.unwrap_or("none"), kind];
        self.computations.on(labels, Counter::inc);
        self.computation_durations.on(labels, |durations| durations.observe(took));
    }

    /// How many replicas a target is to have.
    pub fn desired(&self, namespace: &str, name: &str, replicas: i64) {
        self.desired_replicas.on([namespace, name], |gauge| gauge.set(replicas));
    }

    pub(crate) fn encode(&self, encoder: &mut Encoder) {
        encoder.family(
            "horizontal_pod_autoscaler_controller_reconciliations_total",
            "Looks at autoscalers, by what they led to and whose fault it was if they failed.",
            &self.reconciliations,
        );
        encoder.family(
            "horizontal_pod_autoscaler_controller_reconciliation_duration_seconds",
            "Time of one look at an autoscaler.",
            &self.reconciliation_durations,
        );
        encoder.family(
            "horizontal_pod_autoscaler_controller_metric_computation_total",
            "Looks at metrics of autoscalers, by what they ask for and whose fault it was if they failed.",
            &self.computations,
        );
        encoder.family(
            "horizontal_pod_autoscaler_controller_metric_computation_duration_seconds",
            "Time of one look at a metric.",
            &self.computation_durations,
        );
        encoder.single(
            "horizontal_pod_autoscaler_controller_num_horizontal_pod_autoscalers",
            "Autoscalers that are looked after.",
            &self.autoscalers,
        );
        encoder.family(
            "horizontal_pod_autoscaler_controller_desired_replicas",
            "Replicas that targets are to have, by autoscaler.",
            &self.desired_replicas,
        );
    }
}
