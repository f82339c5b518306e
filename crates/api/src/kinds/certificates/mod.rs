//! The `certificates.k8s.io` group.
//!
//! Never touches: the content of requests and certificates. Here they need only be PEM of the right type; whoever signs
//! reads them and checks their signature.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::{Map, Value, time};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::strategy::{Context, Strategy};
use crate::validation::fields::{Fields, item_text, same};
use crate::validation::{pem, text};

/// The kinds of this group with rules of their own.
pub const RULES: super::Rules = &[("CertificateSigningRequest", &CertificateSigningRequest)];

/// Seconds.
const SHORTEST_LIFE: i64 = 600;
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
/// Of a domain, in bytes.
const DOMAIN_MAX: usize = 253;
/// A domain, a slash, a namespace, a dot and a name.
const SIGNER_MAX: usize = DOMAIN_MAX + 1 + 63 + 1 + DOMAIN_MAX;
/// Conditions that say what was decided about the request.
const DECISIONS: &[&str] = &["Approved", "Denied"];
const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// `CertificateSigningRequest`: who asks is what the server saw, never what the client says.
pub struct CertificateSigningRequest;

impl Strategy for CertificateSigningRequest {
    /// The registry, which knows groups and extra attributes, fills the rest of the identity.
    fn prepare_for_create(&self, ctx: &Context<'_>, object: &mut Value) {
        let spec = object.ensure_object_at(&["spec"]);
        for key in ["uid", "groups", "extra"] {
            spec.remove(key);
        }
        spec.insert("username", ctx.user);
    }

    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        request(&mut errors, object, None);
        errors
    }

    /// A request never changes. Approval and certificate have their own subresources.
    fn prepare_for_update(&self, ctx: &Context<'_>, new: &mut Value, old: &Value) {
        take(new.ensure_object(), old, "spec");
        let old_status = &old["status"];
        match ctx.subresource {
            Some("approval") => {
                let status = new.ensure_object().get_or_insert_with("status", Value::object).ensure_object();
                take(status, old_status, "certificate");
                date_conditions(ctx, status, old_status);
            }
            Some("status") => {
                let status = new.ensure_object().get_or_insert_with("status", Value::object).ensure_object();
                keep_decisions(status, old_status);
                date_conditions(ctx, status, old_status);
            }
            _ => take(new.ensure_object(), old, "status"),
        }
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        request(&mut errors, new, Some(old));
        let path = Path::root("status");
        let conditions_path = path.child("conditions");
        let count = |object: &Value, kind: &str| {
            let conditions = object["status"].list("conditions");
            conditions.iter().filter(|condition| condition.text("type") == kind).count()
        };
        for kind in ["Approved", "Denied", "Failed"] {
            if count(new, kind) < count(old, kind) {
                let detail = format!("updates may not remove a condition of type \"{kind}\"");
                errors.push(Error::forbidden(&conditions_path, detail));
            }
        }
        if ctx.subresource != Some("approval") {
            for kind in DECISIONS {
                if count(new, kind) > count(old, kind) {
                    let detail = format!("updates may not add a condition of type \"{kind}\"");
                    errors.push(Error::forbidden(&conditions_path, detail));
                }
            }
        }
        if !same(&new["status"]["certificate"], &old["status"]["certificate"]) {
            let path = path.child("certificate");
            if ctx.subresource != Some("status") {
                errors.push(Error::forbidden(&path, "updates may not set certificate content"));
            } else if !old["status"].text("certificate").is_empty() {
                errors.push(Error::forbidden(&path, "updates may not modify existing certificate content"));
            }
        }
        errors
    }
}

fn request(errors: &mut ErrorList, object: &Value, old: Option<&Value>) {
    let (spec, status) = (&object["spec"], &object["status"]);
    let path = Path::root("spec");
    let pem = spec.text("request");
    let is_request = |text: String| pem::first(&text).is_some_and(|block| block.kind == pem::REQUEST);
    if !decoded(pem).is_some_and(is_request) {
        let detail = "PEM block type must be CERTIFICATE REQUEST";
        errors.push(Error::invalid(&path.child("request"), pem, detail));
    }
    usages(errors, spec.list("usages"), &path.child("usages"));
    let signer = spec.text("signerName");
    let was_legacy = old.is_some_and(|old| old["spec"].text("signerName") == LEGACY_SIGNER);
    if signer == LEGACY_SIGNER && !was_legacy {
        let detail = "the legacy signerName is not allowed via this API version";
        errors.push(Error::invalid(&path.child("signerName"), signer, detail));
    } else {
        signer_name(errors, signer, &path.child("signerName"));
    }
    if let Some(seconds) = spec.maybe_int("expirationSeconds")
        && seconds < SHORTEST_LIFE
    {
        errors.push(Error::invalid(
            &path.child("expirationSeconds"),
            seconds,
            "may not specify a duration less than 600 seconds (10 minutes)",
        ));
    }
    let path = Path::root("status");
    conditions(errors, status.list("conditions"), &path.child("conditions"));
    let untouched = old.is_some_and(|old| same(&old["status"]["certificate"], &status["certificate"]));
    if !untouched
        && let Some(text) = status.maybe_text("certificate")
        && let Some(complaint) = wrong_certificate(text)
    {
        errors.push(Error::invalid(&path.child("certificate"), "<certificate data>", complaint));
    }
}

/// PEM as it stands in JSON.
fn decoded(base64: &str) -> Option<String> {
    String::from_utf8(STANDARD.decode(base64).ok()?).ok()
}

fn usages(errors: &mut ErrorList, usages: &[Value], path: &Path<'_>) {
    if usages.is_empty() {
        errors.push(Error::required(path, ""));
    }
    for (index, usage) in usages.iter().enumerate() {
        let usage = item_text(usage);
        if !USAGES.contains(&usage) {
            errors.push(Error::not_supported(&path.index(index), usage, USAGES));
        }
    }
    for (index, usage) in usages.iter().enumerate() {
        if usages[..index].contains(usage) {
            errors.push(Error::duplicate(&path.index(index), item_text(usage)));
        }
    }
}

fn conditions(errors: &mut ErrorList, conditions: &[Value], path: &Path<'_>) {
    for (index, condition) in conditions.iter().enumerate() {
        let own_path = path.index(index);
        let (kind, status) = (condition.text("type"), condition.text("status"));
        if kind.is_empty() {
            errors.push(Error::required(&own_path.child("type"), ""));
        }
        let allowed: &[&str] = if DECISIONS.contains(&kind) || kind == "Failed" {
            &["True"]
        } else {
            &["False", "True", "Unknown"]
        };
        if status.is_empty() {
            errors.push(Error::required(&own_path.child("status"), ""));
        } else if !allowed.contains(&status) {
            errors.push(Error::not_supported(&own_path.child("status"), status, allowed));
        }
        let before = |kind: &str| conditions[..index].iter().any(|other| other.text("type") == kind);
        if DECISIONS.contains(&kind) && DECISIONS.iter().any(|other| *other != kind && before(other)) {
            let detail = "Approved and Denied conditions are mutually exclusive";
            errors.push(Error::invalid(path, kind, detail));
        }
        if before(kind) {
            errors.push(Error::duplicate(&own_path.child("type"), kind));
        }
    }
}

fn wrong_certificate(base64: &str) -> Option<String> {
    if base64.is_empty() {
        return None;
    }
    let text = decoded(base64).unwrap_or_default();
    let mut blocks = 0;
    let mut rest = text.as_str();
    while let Some(block) = pem::first(rest) {
        if block.kind != pem::CERTIFICATE {
            return Some(format!("only CERTIFICATE PEM blocks are allowed, found {:?}", block.kind));
        }
        if block.has_headers {
            return Some("no PEM block headers are permitted".to_owned());
        }
        blocks += 1;
        rest = block.rest;
    }
    (blocks == 0).then(|| "must contain at least one CERTIFICATE PEM block".to_owned())
}

/// The name of a signer: a domain and a path.
pub fn signer_name(errors: &mut ErrorList, name: &str, path: &Path<'_>) {
    if name.is_empty() {
        errors.push(Error::required(path, ""));
        return;
    }
    let Some((domain, rest)) = name.split_once('/').filter(|(_, rest)| !rest.contains('/')) else {
        errors.push(Error::invalid(
            path,
            name,
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        ));
        return;
    };
    if domain.len() > DOMAIN_MAX {
        errors.push(Error::too_long(path, DOMAIN_MAX));
    }
    first_wrong_label(errors, domain, text::dns1123_label, path);
    if !domain.contains('.') {
        let detail = "should be a domain with at least two segments separated by dots";
        errors.push(Error::invalid(path, domain, detail));
    }
    first_wrong_label(errors, rest, text::dns1123_subdomain, path);
    if name.len() > SIGNER_MAX {
        errors.push(Error::too_long(path, SIGNER_MAX));
    }
}

fn first_wrong_label(
    errors: &mut ErrorList,
    labels: &str,
    check: fn(&str) -> text::Messages,
    path: &Path<'_>,
) {
    for label in labels.split('.') {
        let messages = check(label);
        if messages.is_empty() {
            continue;
        }
        for message in messages {
            errors.push(Error::invalid(path, labels, format!("validating label {label:?}: {message}")));
        }
        break;
    }
}

/// Puts back what was decided, as long as nothing was added or removed: that is left to the validation to refuse.
fn keep_decisions(status: &mut Map, old: &Value) {
    for kind in DECISIONS {
        let decides = |condition: &&Value| condition.text("type") == *kind;
        let before: Vec<&Value> = old.list("conditions").iter().filter(decides).collect();
        let Some(conditions) = status.get_mut("conditions").and_then(Value::as_array_mut) else { return };
        if conditions.iter().filter(decides).count() != before.len() {
            continue;
        }
        let slots = conditions.iter_mut().filter(|condition| condition.text("type") == *kind);
        for (slot, kept) in slots.zip(before) {
            *slot = kept.clone();
        }
    }
}

/// Dates conditions that came without times.
fn date_conditions(ctx: &Context<'_>, status: &mut Map, old: &Value) {
    let now = time::format_seconds(ctx.now);
    for condition in status.get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten() {
        if condition.text("lastTransitionTime").is_empty() {
            let alike = |other: &&Value| {
                ["type", "status"].iter().all(|key| other.text(key) == condition.text(key))
                    && !other.text("lastTransitionTime").is_empty()
            };
            let since = old.list("conditions").iter().find(alike);
            let since = since.map_or(now.as_str(), |other| other.text("lastTransitionTime")).to_owned();
            condition.ensure_object().insert("lastTransitionTime", since);
        }
        if condition.text("lastUpdateTime").is_empty() {
            condition.ensure_object().insert("lastUpdateTime", now.clone());
        }
    }
}

fn take(new: &mut Map, old: &Value, key: &str) {
    match old.maybe(key) {
        Some(value) => {
            new.insert(key, value.clone());
        }
        None => {
            new.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    const REQUEST: &str = "-----BEGIN CERTIFICATE REQUEST-----\nAg==\n-----END CERTIFICATE REQUEST-----\n";

    fn ctx(subresource: Option<&'static str>) -> Context<'static> {
        Context { now: jiff::Timestamp::UNIX_EPOCH, user: "me", subresource, allow_privileged: true }
    }

    fn good(status: Value) -> Value {
        json!({
            "spec": {"request": STANDARD.encode(REQUEST), "signerName": "example.com/a", "usages": ["any"]},
            "status": status,
        })
    }

    fn update(subresource: &'static str, old: &Value, status: Value) -> (Value, Vec<String>) {
        let ctx = ctx(Some(subresource));
        let mut new = good(status);
        CertificateSigningRequest.prepare_for_update(&ctx, &mut new, old);
        let errors = CertificateSigningRequest.validate_update(&ctx, &new, old);
        (new, errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn nobody_asks_in_anothers_name() {
        let mut request =
            json!({"spec": {"username": "admin", "groups": ["system:masters"], "request": "x"}});
        CertificateSigningRequest.prepare_for_create(&ctx(None), &mut request);
        assert_eq!(request["spec"], json!({"username": "me", "request": "x"}));
    }

    #[test]
    fn requests_are_checked() {
        let check = |request: &Value| -> Vec<String> {
            CertificateSigningRequest.validate(&ctx(None), request).iter().map(ToString::to_string).collect()
        };
        assert_eq!(check(&good(json!({}))), Vec::<String>::new());
        let bad = json!({"spec": {"request": "bm90IGEgY3Ny", "signerName": "a", "usages": ["any", "any"], "expirationSeconds": 1}});
        assert_eq!(
            check(&bad),
            [
                "spec.request: Invalid value: \"bm90IGEgY3Ny\": PEM block type must be CERTIFICATE REQUEST",
                "spec.usages[1]: Duplicate value: \"any\"",
                "spec.signerName: Invalid value: \"a\": must be a fully qualified domain and path of the form 'example.com/signer-name'",
                "spec.expirationSeconds: Invalid value: 1: may not specify a duration less than 600 seconds (10 minutes)",
            ]
        );
    }

    #[test]
    fn a_signer_cannot_approve() {
        let approved = json!({"conditions": [{"type": "Approved", "status": "True"}]});
        let (_, errors) = update("status", &good(json!({})), approved.clone());
        assert_eq!(
            errors,
            ["status.conditions: Forbidden: updates may not add a condition of type \"Approved\""]
        );
        let (new, errors) = update("approval", &good(json!({})), approved);
        assert_eq!(errors, Vec::<String>::new());
        assert_eq!(new["status"]["conditions"][0]["lastTransitionTime"], "1970-01-01T00:00:00Z".into());
        // Nor take it back.
        let (_, errors) = update("status", &new, json!({}));
        assert_eq!(
            errors,
            ["status.conditions: Forbidden: updates may not remove a condition of type \"Approved\""]
        );
    }

    #[test]
    fn a_certificate_is_written_once() {
        let certificate = |text: &str| json!({"certificate": STANDARD.encode(text)});
        let pem = "-----BEGIN CERTIFICATE-----\nAg==\n-----END CERTIFICATE-----\n";
        let (new, errors) = update("status", &good(json!({})), certificate(pem));
        assert_eq!(errors, Vec::<String>::new());
        let (_, errors) = update("status", &new, certificate(REQUEST));
        assert_eq!(
            errors,
            [
                "status.certificate: Invalid value: \"<certificate data>\": only CERTIFICATE PEM blocks are allowed, found \"CERTIFICATE REQUEST\"",
                "status.certificate: Forbidden: updates may not modify existing certificate content",
            ]
        );
        let (kept, errors) = update("approval", &new, json!({}));
        assert_eq!((&kept["status"], errors.len()), (&new["status"], 0));
    }
}
