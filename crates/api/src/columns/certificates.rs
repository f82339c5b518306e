//! Columns of certificate requests and trust bundles.

use apimachinery::Value;
use jiff::Timestamp;

use super::{AGE, Kinds, NAME, cell, duration::human_duration, selector, text};

pub(super) const KINDS: Kinds = &[
    (
        "CertificateSigningRequest",
        &[NAME, AGE, text("SignerName"), text("Requestor"), text("RequestedDuration"), text("Condition")],
        signing_request,
    ),
    ("ClusterTrustBundle", &[NAME, text("SignerName")], trust_bundle),
    (
        "PodCertificateRequest",
        &[
            NAME,
            text("PodName"),
            text("ServiceAccountName"),
            text("NodeName"),
            text("SignerName"),
            text("State"),
            text("UnverifiedUserAnnotations"),
        ],
        pod_certificate_request,
    ),
];

fn signing_request(object: &Value, now: Timestamp) -> Vec<Value> {
    let duration = object.at(&["spec", "expirationSeconds"]).and_then(Value::as_i64);
    vec![
        cell::name(object),
        cell::age(object, now),
        cell::text_or(object, &["spec", "signerName"], "<none>"),
        cell::text(object, &["spec", "username"]),
        duration.map_or_else(|| "<none>".into(), human_duration).into(),
        state(object).into(),
    ]
}

/// Conditions count by being there, whatever their status says.
fn state(request: &Value) -> String {
    let has = |kind| cell::condition(request, kind).is_some();
    let decision = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied",
        (_, true) => "Approved",
        _ => "Pending",
    };
    let failed = if has("Failed") { ",Failed" } else { "" };
    let issued = if request.str_at(&["status", "certificate"]).is_empty() { "" } else { ",Issued" };
    format!("{decision}{failed}{issued}")
}

fn trust_bundle(object: &Value, _: Timestamp) -> Vec<Value> {
    vec![cell::name(object), cell::text_or(object, &["spec", "signerName"], "<none>")]
}

fn pod_certificate_request(object: &Value, _: Timestamp) -> Vec<Value> {
    let conditions =
        object.array_at(&["status", "conditions"]).iter().map(|condition| condition.str_at(&["type"]));
    let state = conditions.rev().find(|kind| matches!(*kind, "Issued" | "Denied" | "Failed"));
    vec![
        cell::name(object),
        cell::text(object, &["spec", "podName"]),
        cell::text(object, &["spec", "serviceAccountName"]),
        cell::text(object, &["spec", "nodeName"]),
        cell::text(object, &["spec", "signerName"]),
        state.unwrap_or("Pending").into(),
        selector::labels(object.at(&["spec", "unverifiedUserAnnotations"])).into(),
    ]
}
