//! What admission does, under upstream's names.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::metric::{Counter, Encoder, Family, Histogram, Unit};

/// Plugins, webhooks and policies.
pub struct AdmissionMetrics {
    steps: Family<Histogram, 3>,
    plugins: Family<Histogram, 4>,
    webhooks: Family<Histogram, 4>,
    webhook_requests: Family<Counter, 5>,
    webhook_rejections: Family<Counter, 5>,
    webhooks_failed_open: Family<Counter, 2>,
    validating_checks: Family<Counter, 4>,
    validating_durations: Family<Histogram, 4>,
    mutating_checks: Family<Counter, 3>,
    mutating_durations: Family<Histogram, 3>,
    condition_errors: Family<Counter, 4>,
    condition_exclusions: Family<Counter, 4>,
    condition_durations: Family<Histogram, 4>,
}

/// Durations by operation and outcome, each looked up once.
pub struct AdmissionHandle {
    metrics: &'static AdmissionMetrics,
    /// All of them together without one.
    plugin: Option<&'static str>,
    phase: &'static str,
    series: [[OnceLock<Arc<Histogram>>; 2]; OPERATIONS.len()],
}

/// The part of a webhook in a request.
#[derive(Clone, Copy, Debug)]
pub struct WebhookLabels<'a> {
    pub name: &'a str,
    /// `admit`, or for those that only refuse `validating`.
    pub kind: &'static str,
    pub operation: &'static str,
}

/// Match conditions in a request.
#[derive(Clone, Copy, Debug)]
pub struct MatchConditionLabels<'a> {
    /// Of the webhook or policy.
    pub name: &'a str,
    /// `webhook` or `policy`.
    pub kind: &'static str,
    /// `admit` or `validating` for webhooks (of which exclusions say `validate`), `validate` for policies of both kinds.
    pub step: &'static str,
    pub operation: &'static str,
}

/// What became of asking a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookOutcome {
    Allowed,
    /// It said no, with this code.
    Refused(u16),
    /// It could not be asked; whether that refuses the request is its failure policy's.
    NotAsked {
        fails_open: bool,
    },
    /// This server could not go on.
    Broken,
}

/// What is asked of admission, found once per request.
#[derive(Clone, Copy, Debug)]
pub struct AdmissionOperation(Option<usize>);

const OPERATIONS: [&str; 4] = ["CREATE", "UPDATE", "DELETE", "CONNECT"];
const CONDITION_LABELS: [&str; 4] = ["name", "kind", "type", "operation"];
const SECONDS: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5];
const WEBHOOK_SECONDS: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0];
const POLICY_SECONDS: &[f64] = &[0.000_000_5, 0.001, 0.01, 0.1, 1.0];
const CONDITION_SECONDS: &[f64] = &[0.001, 0.005, 0.01, 0.025, 0.1, 0.2, 0.25];
/// Higher ones are counted as this.
const CODE_MAX: u16 = 600;
/// What upstream's client makes of a webhook that cannot be reached.
const CALLING_FAILED: u16 = 500;

impl AdmissionMetrics {
    pub(crate) fn new() -> Self {
        let policies = || Histogram::new(Unit::Seconds, POLICY_SECONDS);
        Self {
            steps: Family::new(["type", "operation", "rejected"], || Histogram::new(Unit::Seconds, SECONDS)),
            plugins: Family::new(["name", "type", "operation", "rejected"], || {
                Histogram::new(Unit::Seconds, SECONDS)
            }),
            webhooks: Family::new(["name", "type", "operation", "rejected"], || {
                Histogram::new(Unit::Seconds, WEBHOOK_SECONDS)
            }),
            webhook_requests: Family::new(
                ["name", "type", "operation", "code", "rejected"],
                Counter::default,
            ),
            webhook_rejections: Family::new(
                ["name", "type", "operation", "error_type", "rejection_code"],
                Counter::default,
            ),
            webhooks_failed_open: Family::new(["name", "type"], Counter::default),
            validating_checks: Family::new(
                ["policy", "policy_binding", "error_type", "enforcement_action"],
                Counter::default,
            ),
            validating_durations: Family::new(
                ["policy", "policy_binding", "error_type", "enforcement_action"],
                policies,
            ),
            mutating_checks: Family::new(["policy", "policy_binding", "error_type"], Counter::default),
            mutating_durations: Family::new(["policy", "policy_binding", "error_type"], policies),
            condition_errors: Family::new(CONDITION_LABELS, Counter::default),
            condition_exclusions: Family::new(CONDITION_LABELS, Counter::default),
            condition_durations: Family::new(CONDITION_LABELS, || {
                Histogram::new(Unit::Seconds, CONDITION_SECONDS)
            }),
        }
    }

    /// The durations of a whole phase: `admit` or `validate`.
    pub fn step(&'static self, phase: &'static str) -> AdmissionHandle {
        AdmissionHandle { metrics: self, plugin: None, phase, series: Default::default() }
    }

    /// The durations of one plugin in one phase.
    pub fn plugin(&'static self, name: &'static str, phase: &'static str) -> AdmissionHandle {
        AdmissionHandle { metrics: self, plugin: Some(name), phase, series: Default::default() }
    }

    /// Counts a call of a webhook, and what came of it.
    pub fn webhook(&self, webhook: &WebhookLabels<'_>, elapsed: Duration, outcome: WebhookOutcome) {
        let &WebhookLabels { name, kind, operation } = webhook;
        let (code, rejected, error_type) = match outcome {
            WebhookOutcome::Allowed => (200, false, None),
            WebhookOutcome::Refused(code) => (code.min(CODE_MAX), true, Some("no_error")),
            WebhookOutcome::NotAsked { fails_open: true } => (CALLING_FAILED, false, None),
            WebhookOutcome::NotAsked { fails_open: false } => {
                (CALLING_FAILED, true, Some("calling_webhook_error"))
            }
            WebhookOutcome::Broken => (0, true, Some("apiserver_internal_error")),
        };
        let (code, rejected) = (code.to_string(), if rejected { "true" } else { "false" });
        self.webhook_requests.on([name, kind, operation, &code, rejected], Counter::inc);
        self.webhooks.on([name, kind, operation, rejected], |durations| durations.observe(elapsed));
        if let Some(error_type) = error_type {
            self.webhook_rejections.on([name, kind, operation, error_type, &code], Counter::inc);
        }
        if outcome == (WebhookOutcome::NotAsked { fails_open: true }) {
            self.webhooks_failed_open.on([name, kind], Counter::inc);
        }
    }

    /// Counts what a validating policy does about an object. `action` is `allow`, `deny`, `audit` or `warn`; objects that
    /// simply are as they should be are not counted.
    pub fn validated(&self, policy: &str, binding: &str, error_type: &str, action: &str, elapsed: Duration) {
        let labels = [policy, binding, error_type, action];
        self.validating_checks.on(labels, Counter::inc);
        self.validating_durations.on(labels, |durations| durations.observe(elapsed));
    }

    /// Counts a mutation of a policy.
    pub fn mutated(&self, policy: &str, binding: &str, error_type: &str, elapsed: Duration) {
        let labels = [policy, binding, error_type];
        self.mutating_checks.on(labels, Counter::inc);
        self.mutating_durations.on(labels, |durations| durations.observe(elapsed));
    }

    /// Counts an evaluation of match conditions that ended in no or in errors; upstream does not time those that hold.
    pub fn conditions_failed(&self, own: &MatchConditionLabels<'_>, elapsed: Duration, errors: u64) {
        if errors > 0 {
            self.condition_errors.on(own.values(), |count| count.add(errors));
        }
        self.condition_durations.on(own.values(), |durations| durations.observe(elapsed));
    }

    /// Counts a webhook that is not asked since its match conditions do not hold.
    pub fn conditions_excluded(&self, own: &MatchConditionLabels<'_>) {
        self.condition_exclusions.on(own.values(), Counter::inc);
    }

    pub(crate) fn encode(&self, encoder: &mut Encoder) {
        encoder.family(
            "apiserver_admission_step_admission_duration_seconds",
            "Time of a phase of admission, all plugins together.",
            &self.steps,
        );
        encoder.family(
            "apiserver_admission_controller_admission_duration_seconds",
            "Time of one admission plugin.",
            &self.plugins,
        );
        encoder.family(
            "apiserver_admission_webhook_admission_duration_seconds",
            "Time to ask one webhook.",
            &self.webhooks,
        );
        encoder.family(
            "apiserver_admission_webhook_request_total",
            "Webhooks asked, by the code of what came of it.",
            &self.webhook_requests,
        );
        encoder.family(
            "apiserver_admission_webhook_rejection_count",
            "Requests that a webhook refused, or that were refused since it could not be asked.",
            &self.webhook_rejections,
        );
        encoder.family(
            "apiserver_admission_webhook_fail_open_count",
            "Webhooks that could not be asked and were left out.",
            &self.webhooks_failed_open,
        );
        encoder.family(
            "apiserver_validating_admission_policy_check_total",
            "What validating policies did about objects that are not as they should be.",
            &self.validating_checks,
        );
        encoder.family(
            "apiserver_validating_admission_policy_check_duration_seconds",
            "Time to evaluate the expression behind it.",
            &self.validating_durations,
        );
        encoder.family(
            "apiserver_mutating_admission_policy_check_total",
            "Mutations of policies.",
            &self.mutating_checks,
        );
        encoder.family(
            "apiserver_mutating_admission_policy_check_duration_seconds",
            "Time of one mutation.",
            &self.mutating_durations,
        );
        encoder.family(
            "apiserver_admission_match_condition_evaluation_errors_total",
            "Match conditions that have no value.",
            &self.condition_errors,
        );
        encoder.family(
            "apiserver_admission_match_condition_exclusions_total",
            "Webhooks that were not asked since their match conditions do not hold.",
            &self.condition_exclusions,
        );
        encoder.family(
            "apiserver_admission_match_condition_evaluation_seconds",
            "Time to evaluate match conditions that do not hold.",
            &self.condition_durations,
        );
    }
}

impl<'a> MatchConditionLabels<'a> {
    fn values(&self) -> [&'a str; 4] {
        [self.name, self.kind, self.step, self.operation]
    }
}

impl AdmissionOperation {
    pub fn named(name: &str) -> Self {
        Self(OPERATIONS.iter().position(|own| *own == name))
    }
}

impl AdmissionHandle {
    /// Hot path.
    pub fn observe(&self, operation: AdmissionOperation, rejected: bool, elapsed: Duration) {
        let AdmissionOperation(Some(at)) = operation else { return };
        self.series[at][usize::from(rejected)]
            .get_or_init(|| self.series(OPERATIONS[at], if rejected { "true" } else { "false" }))
            .observe(elapsed);
    }

    fn series(&self, operation: &str, rejected: &str) -> Arc<Histogram> {
        match self.plugin {
            Some(name) => self.metrics.plugins.with([name, self.phase, operation, rejected]),
            None => self.metrics.steps.with([self.phase, operation, rejected]),
        }
    }
}
