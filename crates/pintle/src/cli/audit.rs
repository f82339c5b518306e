//! What is recorded of requests, and where.

use std::time::Duration;

use anyhow::Context;
use audit::{FileOptions, HookOptions, Options, Policy};
use camino::Utf8PathBuf;
use clap::{Args, ValueEnum};

use super::requests::duration;

/// Whether a request waits for its line in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    Blocking,
    Batch,
}

#[derive(Args)]
pub struct AuditArguments {
    /// What to record of which requests: an audit.k8s.io/v1 Policy; without one nothing is recorded
    #[arg(long, value_name = "FILE")]
    pub audit_policy_file: Option<Utf8PathBuf>,

    /// Where to write audit events, one a line; - is standard output
    #[arg(long, value_name = "FILE|-")]
    pub audit_log_path: Option<Utf8PathBuf>,

    /// Delete audit logs that were put aside so many days ago; 0 keeps them
    #[arg(long, value_name = "DAYS", default_value_t = 366)]
    pub audit_log_maxage: u32,

    /// Keep so many audit logs that were put aside; 0 keeps all
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub audit_log_maxbackup: u32,

    /// Put the audit log aside when it has so many megabytes
    #[arg(long, value_name = "MB", default_value_t = 100)]
    pub audit_log_maxsize: u32,

    /// Whether requests wait for the audit log
    #[arg(long, value_name = "MODE", default_value = "blocking")]
    pub audit_log_mode: Mode,

    /// Leave the objects out of audit events in the log that are larger than the maximum
    #[arg(long)]
    pub audit_log_truncate_enabled: bool,

    /// The maximum, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 102_400)]
    pub audit_log_truncate_max_event_size: usize,

    /// A kubeconfig file that names the webhook to which audit events are sent
    #[arg(long, value_name = "FILE")]
    pub audit_webhook_config_file: Option<Utf8PathBuf>,

    /// How long to wait before events are sent a second time
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub audit_webhook_initial_backoff: Duration,

    /// Events that wait for the webhook at most; more are dropped
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub audit_webhook_batch_buffer_size: usize,

    /// Events that are sent at once at most
    #[arg(long, value_name = "N", default_value_t = 400)]
    pub audit_webhook_batch_max_size: usize,

    /// How long an event waits for others
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub audit_webhook_batch_max_wait: Duration,

    /// Batches a second on average at most
    #[arg(long, value_name = "N", default_value_t = 10.0)]
    pub audit_webhook_batch_throttle_qps: f64,

    /// Batches at once at most after a pause
    #[arg(long, value_name = "N", default_value_t = 15)]
    pub audit_webhook_batch_throttle_burst: u32,

    /// Leave the objects out of audit events to the webhook that are larger than the maximum
    #[arg(long)]
    pub audit_webhook_truncate_enabled: bool,

    /// The maximum, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 102_400)]
    pub audit_webhook_truncate_max_event_size: usize,
}

impl AuditArguments {
    /// Reads the policy.
    pub fn options(&self) -> anyhow::Result<Options> {
        let policy = self.audit_policy_file.as_ref().map(|path| {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("--audit-policy-file {path}"))?;
            Policy::parse(&text).with_context(|| format!("--audit-policy-file {path}"))
        });
        let file = self.audit_log_path.clone().map(|path| FileOptions {
            path,
            days_max: self.audit_log_maxage,
            backups_max: self.audit_log_maxbackup,
            megabytes_max: self.audit_log_maxsize,
            batch: self.audit_log_mode == Mode::Batch,
            event_bytes_max: self
                .audit_log_truncate_enabled
                .then_some(self.audit_log_truncate_max_event_size),
        });
        let hook = self.audit_webhook_config_file.clone().map(|config| HookOptions {
            config,
            initial_backoff: self.audit_webhook_initial_backoff,
            buffer_max: self.audit_webhook_batch_buffer_size,
            batch_max: self.audit_webhook_batch_max_size,
            batch_wait: self.audit_webhook_batch_max_wait,
            batches_per_second: self.audit_webhook_batch_throttle_qps,
            burst: self.audit_webhook_batch_throttle_burst,
            event_bytes_max: self
                .audit_webhook_truncate_enabled
                .then_some(self.audit_webhook_truncate_max_event_size),
        });
        Ok(Options { policy: policy.transpose()?, file, hook })
    }
}
