//! The `certificates.k8s.io` group.

use apimachinery::{Map, Value};

use crate::strategy::{Context, Strategy};
use crate::validation::fields::Fields;

/// The kinds of this group with rules of their own.
pub const RULES: super::Rules = &[("CertificateSigningRequest", &CertificateSigningRequest)];

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

    /// A request never changes. Approval and certificate have their own subresources.
    fn prepare_for_update(&self, ctx: &Context<'_>, new: &mut Value, old: &Value) {
        take(new.ensure_object(), old, "spec");
        let status = new.ensure_object().get_or_insert_with("status", Value::object).ensure_object();
        let old_status = &old["status"];
        match ctx.subresource {
            None => take(new.ensure_object(), old, "status"),
            Some("approval") => take(status, old_status, "certificate"),
            // The signer may add conditions of its own, but neither approve nor deny.
            Some("status") => {
                let decides = |condition: &Value| matches!(condition.text("type"), "Approved" | "Denied");
                let mut conditions: Vec<Value> = old_status
                    .list("conditions")
                    .iter()
                    .filter(|condition| decides(condition))
                    .cloned()
                    .collect();
                conditions.extend(
                    status.list("conditions").iter().filter(|condition| !decides(condition)).cloned(),
                );
                if !conditions.is_empty() || status.has("conditions") {
                    status.insert("conditions", Value::Array(conditions));
                }
            }
            Some(_) => {}
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

    #[test]
    fn nobody_asks_in_anothers_name() {
        let ctx = Context { now: jiff::Timestamp::UNIX_EPOCH, user: "me", subresource: None };
        let mut request =
            json!({"spec": {"username": "admin", "groups": ["system:masters"], "request": "x"}});
        CertificateSigningRequest.prepare_for_create(&ctx, &mut request);
        assert_eq!(request["spec"], json!({"username": "me", "request": "x"}));
    }

    #[test]
    fn a_signer_cannot_approve() {
        let ctx = Context { now: jiff::Timestamp::UNIX_EPOCH, user: "me", subresource: Some("status") };
        let old = json!({"spec": {"request": "x"}, "status": {}});
        let mut new = json!({"spec": {"request": "y"}, "status": {"certificate": "c", "conditions": [{"type": "Approved"}, {"type": "Failed"}]}});
        CertificateSigningRequest.prepare_for_update(&ctx, &mut new, &old);
        assert_eq!(
            new,
            json!({"spec": {"request": "x"}, "status": {"certificate": "c", "conditions": [{"type": "Failed"}]}})
        );
    }
}
