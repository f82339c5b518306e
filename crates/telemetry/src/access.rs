//! Who asks and whether they may, under upstream's names.

use std::sync::Arc;
use std::time::Duration;

use crate::metric::{Counter, Encoder, Family, Histogram, Unit};

/// Authentication and authorization of requests.
pub struct AccessMetrics {
    users: Family<Counter, 1>,
    authentications: Family<Counter, 1>,
    authentication_durations: Family<Histogram, 1>,
    authorizations: Family<Counter, 1>,
    authorization_durations: Family<Histogram, 1>,
    decisions: Family<Counter, 3>,
}

/// The decisions of one authorizer, looked up once. It is silent where it leaves the decision to others.
#[derive(Clone, Debug)]
pub struct DecisionHandle {
    pub allowed: Arc<Counter>,
    pub denied: Arc<Counter>,
}

const SECONDS: &[f64] = &[
    0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384,
];

impl AccessMetrics {
    pub(crate) fn new() -> Self {
        let seconds = || Histogram::new(Unit::Seconds, SECONDS);
        Self {
            users: Family::new(["username"], Counter::default),
            authentications: Family::new(["result"], Counter::default),
            authentication_durations: Family::new(["result"], seconds),
            authorizations: Family::new(["result"], Counter::default),
            authorization_durations: Family::new(["result"], seconds),
            decisions: Family::new(["type", "name", "decision"], Counter::default),
        }
    }

    /// A request came from this user.
    pub fn authenticated(&self, username: &str, elapsed: Duration) {
        self.users.on([user_class(username)], Counter::inc);
        self.authentication("success", elapsed);
    }

    /// A request showed nothing (`failure`) or nothing good (`error`).
    pub fn unauthenticated(&self, result: &'static str, elapsed: Duration) {
        self.authentication(result, elapsed);
    }

    fn authentication(&self, result: &str, elapsed: Duration) {
        self.authentications.on([result], Counter::inc);
        self.authentication_durations.on([result], |durations| durations.observe(elapsed));
    }

    /// `result` is `allowed`, `denied` or `no-opinion`.
    pub fn authorized(&self, result: &'static str, elapsed: Duration) {
        self.authorizations.on([result], Counter::inc);
        self.authorization_durations.on([result], |durations| durations.observe(elapsed));
    }

    /// The decisions of one authorizer.
    pub fn decisions(&self, kind: &str, name: &str) -> DecisionHandle {
        DecisionHandle {
            allowed: self.decisions.with([kind, name, "allowed"]),
            denied: self.decisions.with([kind, name, "denied"]),
        }
    }

    pub(crate) fn encode(&self, encoder: &mut Encoder) {
        encoder.family(
            "authenticated_user_requests",
            "Requests that were authenticated, by class of user.",
            &self.users,
        );
        encoder.family("authentication_attempts", "Requests, by what they showed.", &self.authentications);
        encoder.family(
            "authentication_duration_seconds",
            "Time to find out who asks.",
            &self.authentication_durations,
        );
        encoder.family(
            "authorization_attempts_total",
            "Requests, by whether they were allowed.",
            &self.authorizations,
        );
        encoder.family(
            "authorization_duration_seconds",
            "Time to find out whether they may.",
            &self.authorization_durations,
        );
        encoder.family(
            "apiserver_authorization_decisions_total",
            "Decisions that ended an authorization, by the authorizer that made them.",
            &self.decisions,
        );
    }
}

/// Names of users are nobody's business, and too many: what upstream makes of them.
fn user_class(username: &str) -> &str {
    match username {
        "admin" | "client" | "kube_proxy" | "kubelet" | "system:serviceaccount:kube-system:default" => {
            username
        }
        other if other.contains('@') => "email_id",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_counted_by_class() {
        for (name, class) in
            [("admin", "admin"), ("jane@example.com", "email_id"), ("system:node:a", "other")]
        {
            assert_eq!(user_class(name), class);
        }
    }
}
