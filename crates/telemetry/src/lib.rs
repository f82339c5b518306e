//! What the process tells about itself: log lines, metrics, error chains.
//!
//! Owns: the log format and its filter ([`init_logging`]), every metric name ([`metrics`]), the one way to print an
//! error with its causes ([`chain`]). Never touches: HTTP (the API server serves [`Metrics::encode`]), log files.
//!
//! Metrics are fields of one struct, so a name cannot be misspelt where it is counted, and `rg` finds every place
//! that feeds it. There is one set per process, because that is what a scrape sees.

mod access;
mod admission;
mod audit;
mod autoscaler;
mod error_chain;
mod flow_control;
mod health;
mod logging;
mod metric;
mod metrics;
mod process;

pub use access::{AccessMetrics, DecisionHandle};
pub use admission::{
    AdmissionHandle, AdmissionMetrics, AdmissionOperation, MatchConditionLabels, WebhookLabels,
    WebhookOutcome,
};
pub use audit::AuditMetrics;
pub use autoscaler::{AutoscalerAction, AutoscalerMetrics};
pub use error_chain::chain;
pub use flow_control::{FlowControlMetrics, FlowHandle};
pub use health::HealthMetrics;
pub use logging::{InvalidFilter, LOG_ENV, init_logging};
pub use metric::{Counter, Family, FloatGauge, Gauge, Histogram, InFlight, Unit};
pub use metrics::{
    ApiserverMetrics, AttemptHandle, ClientMetrics, ControllerHandle, ControllerMetrics, Metrics,
    RequestLabels, SchedulerMetrics, StorageMetrics, StorageRequestMetrics, WatchCacheHandle,
    WorkqueueHandle, WorkqueueMetrics, metrics,
};

/// The content type of [`Metrics::encode`].
pub const METRICS_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
