//! Which controllers run, and how.

use std::time::Duration;

use clap::Args;
use controllers::{AutoscalerSettings, Selection};

use super::parse_duration;
use super::requests::duration;

#[derive(Args)]
pub struct ControllerArguments {
    /// Controllers to run, joined by commas: `*` are all that are on by default, `foo` is one, `-foo` leaves one out
    #[arg(
        long,
        value_name = "NAME,...",
        default_value = "*,bootstrapsigner,tokencleaner",
        allow_hyphen_values = true
    )]
    pub controllers: Selection,

    /// How long certificates are good for that are signed on request, those of nodes among them; a request may ask for less
    #[arg(long, value_name = "DURATION", default_value = "8760h", value_parser = duration)]
    pub cluster_signing_duration: Duration,

    /// How often the metrics of a HorizontalPodAutoscaler are looked at
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = duration)]
    pub horizontal_pod_autoscaler_sync_period: Duration,

    /// How long a high recommendation keeps a target of a HorizontalPodAutoscaler from shrinking
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = parse_duration)]
    pub horizontal_pod_autoscaler_downscale_stabilization: Duration,

    /// How far use may be from its target before a HorizontalPodAutoscaler does something, as a fraction
    #[arg(long, value_name = "FRACTION", default_value_t = 0.1)]
    pub horizontal_pod_autoscaler_tolerance: f64,

    /// How long after a pod's start its use of processors may be that of starting
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = parse_duration)]
    pub horizontal_pod_autoscaler_cpu_initialization_period: Duration,

    /// How long after a pod's start a change to not ready is taken for never having been ready
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    pub horizontal_pod_autoscaler_initial_readiness_delay: Duration,
}

impl ControllerArguments {
    pub fn autoscaler(&self) -> AutoscalerSettings {
        AutoscalerSettings {
            sync_period: self.horizontal_pod_autoscaler_sync_period,
            downscale_stabilization: self.horizontal_pod_autoscaler_downscale_stabilization,
            tolerance: self.horizontal_pod_autoscaler_tolerance,
            cpu_initialization_period: self.horizontal_pod_autoscaler_cpu_initialization_period,
            initial_readiness_delay: self.horizontal_pod_autoscaler_initial_readiness_delay,
        }
    }
}
