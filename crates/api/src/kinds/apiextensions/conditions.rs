//! Conditions of a CustomResourceDefinition, and of an APIService, in the order in which they were first set.

use apimachinery::{Value, time};
use jiff::Timestamp;

/// The finalizer that holds a definition until its instances are gone.
pub const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// A state of one condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub kind: &'static str,
    pub status: &'static str,
    pub reason: &'static str,
    pub message: String,
}

impl Condition {
    pub fn new(kind: &'static str, status: bool, reason: &'static str, message: impl Into<String>) -> Self {
        let status = if status { "True" } else { "False" };
        Self { kind, status, reason, message: message.into() }
    }

    /// Whether the definition has this very condition, whenever it came to be.
    pub fn is_set(&self, definition: &Value) -> bool {
        find(definition, self.kind).is_some_and(|own| {
            own.str_at(&["status"]) == self.status
                && own.str_at(&["reason"]) == self.reason
                && own.str_at(&["message"]) == self.message
        })
    }

    /// Sets the condition; its time is that of the last change of the status.
    pub fn set(&self, definition: &mut Value, now: Timestamp) {
        let since = find(definition, self.kind)
            .filter(|own| own.str_at(&["status"]) == self.status)
            .map(|own| own.str_at(&["lastTransitionTime"]))
            .filter(|time| !time.is_empty())
            .map_or_else(|| time::format_seconds(now), Into::into);
        let condition = apimachinery::json!({
            "type": self.kind, "status": self.status, "lastTransitionTime": since.as_str(), "reason": self.reason,
            "message": self.message.as_str(),
        });
        let mut all = definition.array_at(&["status", "conditions"]).to_vec();
        match all.iter_mut().find(|own| own.str_at(&["type"]) == self.kind) {
            Some(own) => *own = condition,
            None => all.push(condition),
        }
        definition.set_at(&["status", "conditions"], Value::Array(all));
    }
}

/// The condition of a type.
pub fn find<'d>(definition: &'d Value, kind: &str) -> Option<&'d Value> {
    definition.array_at(&["status", "conditions"]).iter().find(|own| own.str_at(&["type"]) == kind)
}

pub fn is_true(definition: &Value, kind: &str) -> bool {
    find(definition, kind).is_some_and(|own| own.str_at(&["status"]) == "True")
}

/// The first request to delete a definition: its instances go first.
pub(super) fn begin_deletion(definition: &mut Value, now: Timestamp) {
    let mut finalizers = definition.array_at(&["metadata", "finalizers"]).to_vec();
    if !finalizers.iter().any(|own| own.as_str() == Some(CLEANUP_FINALIZER)) {
        finalizers.push(CLEANUP_FINALIZER.into());
    }
    definition.set_at(&["metadata", "finalizers"], Value::Array(finalizers));
    let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    Condition::new("Terminating", true, "InstanceDeletionPending", message).set(definition, now);
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn a_condition_keeps_its_place_and_its_time_until_the_status_changes() {
        let first: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let later: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        let mut definition = json!({"status": {"conditions": null}});
        Condition::new("NamesAccepted", true, "NoConflicts", "a").set(&mut definition, first);
        Condition::new("Established", false, "Installing", "b").set(&mut definition, first);
        Condition::new("NamesAccepted", true, "NoConflicts", "c").set(&mut definition, later);
        Condition::new("Established", true, "InitialNamesAccepted", "d").set(&mut definition, later);
        let seen: Vec<_> = definition
            .array_at(&["status", "conditions"])
            .iter()
            .map(|own| (own.str_at(&["type"]), own.str_at(&["lastTransitionTime"]), own.str_at(&["message"])))
            .collect();
        assert_eq!(
            seen,
            [("NamesAccepted", "2026-01-01T00:00:00Z", "c"), ("Established", "2026-01-02T00:00:00Z", "d")]
        );
        assert!(is_true(&definition, "Established"));
        assert!(Condition::new("NamesAccepted", true, "NoConflicts", "c").is_set(&definition));
        assert!(!Condition::new("NamesAccepted", true, "NoConflicts", "a").is_set(&definition));
    }
}
