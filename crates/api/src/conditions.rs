//! Conditions in an object's status, in the order in which they were first set.

use apimachinery::{Value, json, time};
use jiff::Timestamp;

/// A state of one condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub kind: &'static str,
    pub status: &'static str,
    /// Empty where the status says it all: then there is no message either.
    pub reason: &'static str,
    pub message: String,
    /// The object's generation when the state was seen, for kinds that say it.
    pub observed_generation: Option<i64>,
}

impl Condition {
    pub fn new(kind: &'static str, status: bool, reason: &'static str, message: impl Into<String>) -> Self {
        let status = if status { "True" } else { "False" };
        Self { kind, status, reason, message: message.into(), observed_generation: None }
    }

    /// The same, seen at a generation of the object.
    pub fn at_generation(self, generation: Option<i64>) -> Self {
        Self { observed_generation: generation, ..self }
    }

    /// Whether the object has this very condition, whenever it came to be.
    pub fn is_set(&self, object: &Value) -> bool {
        find(object, self.kind).is_some_and(|own| {
            own.str_at(&["status"]) == self.status
                && own.str_at(&["reason"]) == self.reason
                && own.str_at(&["message"]) == self.message
                && self.observed_generation.is_none_or(|at| own["observedGeneration"].as_i64() == Some(at))
        })
    }

    /// Sets the condition; its time is that of the last change of the status.
    pub fn set(&self, object: &mut Value, now: Timestamp) {
        let since = find(object, self.kind)
            .filter(|own| own.str_at(&["status"]) == self.status)
            .map(|own| own.str_at(&["lastTransitionTime"]))
            .filter(|time| !time.is_empty())
            .map_or_else(|| time::format_seconds(now), Into::into);
        let mut condition = json!({
            "type": self.kind, "status": self.status, "lastTransitionTime": since.as_str(),
        });
        let fields = condition.ensure_object();
        if !self.reason.is_empty() {
            fields.insert("reason", self.reason);
            fields.insert("message", self.message.as_str());
        }
        if let Some(generation) = self.observed_generation {
            fields.insert("observedGeneration", generation);
        }
        let all = object
            .ensure_object_at(&["status"])
            .get_or_insert_with("conditions", || Value::Array(Vec::new()));
        if all.as_array().is_none() {
            *all = Value::Array(Vec::new());
        }
        let Some(all) = all.as_array_mut() else { return };
        match all.iter_mut().find(|own| own.str_at(&["type"]) == self.kind) {
            Some(own) => *own = condition,
            None => all.push(condition),
        }
    }
}

/// The condition of a type.
pub fn find<'o>(object: &'o Value, kind: &str) -> Option<&'o Value> {
    object.array_at(&["status", "conditions"]).iter().find(|own| own.str_at(&["type"]) == kind)
}

pub fn is_true(object: &Value, kind: &str) -> bool {
    find(object, kind).is_some_and(|own| own.str_at(&["status"]) == "True")
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn a_condition_says_no_more_than_it_was_told() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let set = |condition: Condition| {
            let mut object = json!({});
            condition.set(&mut object, now);
            object["status"]["conditions"][0].clone()
        };
        let time = "2026-01-01T00:00:00Z";
        assert_eq!(
            set(Condition::new("Ready", true, "", "")),
            json!({"type": "Ready", "status": "True", "lastTransitionTime": time})
        );
        let seen = Condition::new("Ready", false, "Because", "").at_generation(Some(3));
        assert_eq!(
            set(seen.clone()),
            json!({
                "type": "Ready", "status": "False", "lastTransitionTime": time, "reason": "Because", "message": "",
                "observedGeneration": 3,
            })
        );
        let mut object = json!({});
        seen.set(&mut object, now);
        assert!(seen.is_set(&object) && !seen.at_generation(Some(4)).is_set(&object));
    }
}
