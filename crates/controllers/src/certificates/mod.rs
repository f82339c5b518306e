//! Certificates on request: a CertificateSigningRequest is [approved](approving), [signed](signing) by the signer it
//! names, and [cleaned up](cleaner).
//!
//! What a request must look like for a signer is [`rules`]; the key that signs is behind [`pki::Signer`]. Requests for
//! other signers than the cluster's own are left alone.

pub(crate) mod approving;
pub(crate) mod cleaner;
mod rules;
pub(crate) mod serving_approving;
pub(crate) mod signing;
#[cfg(test)]
mod tests;

use apimachinery::{Value, json};
use serde::{Deserialize, Deserializer};

/// As much of a CertificateSigningRequest as the controllers read.
#[derive(Deserialize, Default)]
#[serde(default)]
struct CertificateSigningRequest {
    spec: Spec,
    status: Status,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    /// PEM, in base64.
    #[serde(deserialize_with = "base64")]
    request: Vec<u8>,
    signer_name: String,
    expiration_seconds: Option<i64>,
    #[serde(deserialize_with = "null_is_default")]
    usages: Vec<String>,
    username: String,
    uid: String,
    #[serde(deserialize_with = "null_is_default")]
    groups: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    extra: serde_json::Map<String, serde_json::Value>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Status {
    #[serde(deserialize_with = "null_is_default")]
    conditions: Vec<Condition>,
    /// PEM, in base64.
    #[serde(deserialize_with = "base64")]
    certificate: Vec<u8>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    last_update_time: String,
}

const APPROVED: &str = "Approved";
const DENIED: &str = "Denied";
const FAILED: &str = "Failed";

impl Status {
    fn has(&self, kind: &str) -> bool {
        self.conditions.iter().any(|condition| condition.kind == kind)
    }

    fn is_true(&self, kind: &str) -> bool {
        self.conditions.iter().any(|condition| condition.kind == kind && condition.status == "True")
    }

    fn is_issued(&self) -> bool {
        !self.certificate.is_empty()
    }
}

/// Adds a condition to a request's tree.
fn add_condition(request: &mut Value, kind: &str, reason: &str, message: &str) {
    let now = apimachinery::time::format_seconds(rt::now());
    let condition = json!({
        "type": kind, "status": "True", "reason": reason, "message": message, "lastUpdateTime": now,
    });
    let mut conditions = request.array_at(&["status", "conditions"]).to_vec();
    conditions.push(condition);
    request.set_at(&["status", "conditions"], Value::from(conditions));
}

/// A ClusterRole and its binding to a service account of `kube-system`.
fn role_of_account(name: &str, account: &str, rules: Value) -> [Value; 2] {
    let name = format!("system:controller:{name}");
    let group = "rbac.authorization.k8s.io";
    let mut role = json!({
        "apiVersion": format!("{group}/v1"), "kind": "ClusterRole", "metadata": {"name": name.as_str()},
    });
    role.set_at(&["rules"], rules);
    let binding = json!({
        "apiVersion": format!("{group}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": name.as_str()},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name.as_str()},
        "subjects": [{"kind": "ServiceAccount", "namespace": "kube-system", "name": account}],
    });
    [role, binding]
}

fn null_is_default<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

fn base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    use base64::Engine;
    let text: Option<String> = Option::deserialize(deserializer)?;
    base64::engine::general_purpose::STANDARD
        .decode(text.unwrap_or_default())
        .map_err(serde::de::Error::custom)
}
