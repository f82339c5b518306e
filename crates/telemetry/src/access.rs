//! Who asks and whether they may, under upstream's names.

use std::sync::Arc;
use std::time::Duration;

use crate::metric::{Counter, Encoder, Family, Histogram, Known, Unit};

/// Authentication and authorization of requests.
pub struct AccessMetrics {
    users: Known<Counter, { USER_CLASSES.len() }>,
    authentications: Known<Counter, 3>,
    authentication_durations: Known<Histogram, 3>,
    authorizations: Known<Counter, 3>,
    authorization_durations: Known<Histogram, 3>,
    decisions: Family<Counter, 3>,
}

/// The decisions of one authorizer, looked up once. It is silent where it leaves the decision to others.
#[derive(Clone, Debug)]
pub struct DecisionHandle {
    pub allowed: Arc<Counter>,
    pub denied: Arc<Counter>,
}

const OTHER: &str = "other";
const EMAIL: &str = "email_id";
/// After the first two they are names.
const USER_CLASSES: [&str; 7] =
    [OTHER, EMAIL, "admin", "client", "kube_proxy", "kubelet", "system:serviceaccount:kube-system:default"];
const AUTHENTICATION: [&str; 3] = ["success", "failure", "error"];
const AUTHORIZATION: [&str; 3] = ["allowed", "denied", "no-opinion"];
const SECONDS: &[f64] = &[
    0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384,
];

impl AccessMetrics {
    pub(crate) fn new() -> Self {
        let seconds = || Histogram::new(Unit::Seconds, SECONDS);
        Self {
            users: Known::new("username", USER_CLASSES, Counter::default),
            authentications: Known::new("result", AUTHENTICATION, Counter::default),
            authentication_durations: Known::new("result", AUTHENTICATION, seconds),
            authorizations: Known::new("result", AUTHORIZATION, Counter::default),
            authorization_durations: Known::new("result", AUTHORIZATION, seconds),
            decisions: Family::new(["type", "name", "decision"], Counter::default),
        }
    }

    /// A request came from this user.
    pub fn authenticated(&self, username: &str, elapsed: Duration) {
        self.users.on(user_class(username), Counter::inc);
        self.authentication("success", elapsed);
    }

    /// A request showed nothing (`failure`) or nothing good (`error`).
    pub fn unauthenticated(&self, result: &'static str, elapsed: Duration) {
        self.authentication(result, elapsed);
    }

    fn authentication(&self, result: &str, elapsed: Duration) {
        self.authentications.on(result, Counter::inc);
        self.authentication_durations.on(result, |durations| durations.observe(elapsed));
    }

    /// `result` is `allowed`, `denied` or `no-opinion`.
    pub fn authorized(&self, result: &'static str, elapsed: Duration) {
        self.authorizations.on(result, Counter::inc);
        self.authorization_durations.on(result, |durations| durations.observe(elapsed));
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
            self.users.family(),
        );
        encoder.family(
            "authentication_attempts",
            "Requests, by what they showed.",
            self.authentications.family(),
        );
        encoder.family(
            "authentication_duration_seconds",
            "Time to find out who asks.",
            self.authentication_durations.family(),
        );
        encoder.family(
            "authorization_attempts_total",
            "Requests, by whether they were allowed.",
            self.authorizations.family(),
        );
        encoder.family(
            "authorization_duration_seconds",
            "Time to find out whether they may.",
            self.authorization_durations.family(),
        );
        encoder.family(
            "apiserver_authorization_decisions_total",
            "Decisions that ended an authorization, by the authorizer that made them.",
            &self.decisions,
        );
    }
}

/// Names of users are nobody's business, and too many: what upstream makes of them.
fn user_class(username: &str) -> &'static str {
    match USER_CLASSES[2..].iter().find(|name| **name == username) {
        Some(name) => name,
        None if username.contains('@') => EMAIL,
        None => OTHER,
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
