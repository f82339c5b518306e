//! What the audit log does, under upstream's names.

use crate::metric::{Counter, Encoder, Family};

pub struct AuditMetrics {
    /// Events written or handed to the webhook.
    pub events: Counter,
    levels: Family<Counter, 1>,
    errors: Family<Counter, 1>,
}

impl AuditMetrics {
    pub(crate) fn new() -> Self {
        Self {
            events: Counter::default(),
            levels: Family::new(["level"], Counter::default),
            errors: Family::new(["plugin"], Counter::default),
        }
    }

    /// A request is recorded at this level.
    pub fn level(&self, level: &str) {
        self.levels.on([level], Counter::inc);
    }

    /// An event did not get into `log` or `webhook`.
    pub fn failed(&self, plugin: &str) {
        self.failed_many(plugin, 1);
    }

    pub fn failed_many(&self, plugin: &str, events: u64) {
        self.errors.on([plugin], |errors| errors.add(events));
    }

    pub(crate) fn encode(&self, encoder: &mut Encoder) {
        encoder.single("apiserver_audit_event_total", "Audit events.", &self.events);
        encoder.family(
            "apiserver_audit_level_total",
            "Requests by the level at which they are recorded.",
            &self.levels,
        );
        encoder.family("apiserver_audit_error_total", "Audit events that were lost.", &self.errors);
    }
}
