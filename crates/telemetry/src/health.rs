//! What health checks said, under upstream's names.

use crate::metric::{Counter, Encoder, Family, Gauge};

/// What health checks said, served apart as `/metrics/slis`.
pub struct HealthMetrics {
    last: Family<Gauge, 2>,
    checks: Family<Counter, 3>,
}

impl HealthMetrics {
    pub(crate) fn new() -> Self {
        Self {
            last: Family::new(["name", "type"], Gauge::default),
            checks: Family::new(["name", "type", "status"], Counter::default),
        }
    }

    /// What a check said; `endpoint` is `healthz`, `livez` or `readyz`.
    pub fn checked(&self, name: &str, endpoint: &str, healthy: bool) {
        self.last.on([name, endpoint], |gauge| gauge.set(i64::from(healthy)));
        let status = if healthy { "success" } else { "error" };
        self.checks.on([name, endpoint, status], Counter::inc);
    }

    /// As [`Metrics::encode`](crate::Metrics::encode).
    pub fn encode(&self) -> String {
        let mut encoder = Encoder::new();
        encoder.family("kubernetes_healthcheck", "The last result of a health check: 1 is good.", &self.last);
        encoder.family("kubernetes_healthchecks_total", "Results of health checks.", &self.checks);
        encoder.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_checks_are_counted_apart() {
        let health = HealthMetrics::new();
        health.checked("ping", "livez", true);
        health.checked("ping", "livez", false);
        let text = health.encode();
        for line in [
            r#"kubernetes_healthcheck{name="ping",type="livez"} 0"#,
            r#"kubernetes_healthchecks_total{name="ping",type="livez",status="error"} 1"#,
            r#"kubernetes_healthchecks_total{name="ping",type="livez",status="success"} 1"#,
        ] {
            assert!(text.lines().any(|own| own == line), "{line}\n{text}");
        }
    }
}
