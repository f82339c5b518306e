//! Conversion between the versions of one kind.
//!
//! Objects are stored in one version and served in several. Most versions differ in nothing but their name; the few
//! that do differ have a function here.

use std::pin::Pin;

use apimachinery::{GroupVersionKind, Object, Status, Value};

use crate::Resource;

mod autoscaler;
pub(crate) mod resource;

/// A conversion on its way: it may have to ask somebody.
pub type Converting<'a, T> = Pin<Box<dyn Future<Output = Result<T, Status>> + Send + 'a>>;

/// What makes objects of one version of a custom resource from those of the others. A version whose objects need no
/// more than their name replaced has none.
pub trait Converter: Send + Sync + 'static {
    /// Whether a stored object has to be converted before it is shown.
    fn is_needed(&self, stored: &Object) -> bool;

    /// Makes stored objects of any version ones of this version, in order.
    fn read<'a>(&'a self, objects: Vec<Value>) -> Converting<'a, Vec<Value>>;

    /// Makes an object of this version one that can be stored.
    fn write(&self, object: Value) -> Converting<'_, Value>;
}

/// The kind in which a resource's objects are stored.
pub fn storage_gvk(resource: &Resource) -> GroupVersionKind {
    if resource.kind == "Event" {
        // Both event APIs share one collection, stored as core/v1.
        return GroupVersionKind::new("", "v1", "Event");
    }
    GroupVersionKind { version: resource.storage_version.clone(), ..resource.gvk() }
}

/// Whether going from one to the other changes more than `apiVersion` and `kind`.
pub fn is_needed(from: &GroupVersionKind, to: &GroupVersionKind) -> bool {
    from != to
        && (from.kind == "Event"
            || from.kind == "HorizontalPodAutoscaler"
            || is_old_resource(from) != is_old_resource(to))
}

/// Turns a tree of one version into the other.
pub fn convert(value: &mut Value, from: &GroupVersionKind, to: &GroupVersionKind) {
    match (from.kind.as_str(), from.group.as_str(), to.group.as_str()) {
        ("Event", "", "events.k8s.io") => {
            rename(value, &EVENT_FIELDS);
            // Go writes these even when they are empty in core/v1, and leaves them out here.
            for key in ["reportingController", "reportingInstance"] {
                if value.str_at(&[key]).is_empty() {
                    value.remove_at(&[key]);
                }
            }
        }
        ("Event", "events.k8s.io", "") => rename(value, &EVENT_FIELDS.map(|(core, events)| (events, core))),
        ("HorizontalPodAutoscaler", ..) if to.version == "v1" => autoscaler::to_v1(value),
        ("HorizontalPodAutoscaler", ..) if from.version == "v1" => autoscaler::from_v1(value),
        _ if is_old_resource(to) && !is_old_resource(from) => resource::to_v1beta1(value),
        _ if is_old_resource(from) && !is_old_resource(to) => resource::from_v1beta1(value),
        _ => {}
    }
    let map = value.ensure_object();
    map.insert("apiVersion", to.api_version());
    map.insert("kind", to.kind.clone());
}

/// Claims and slices of devices before their structs had names.
fn is_old_resource(kind: &GroupVersionKind) -> bool {
    kind.group == "resource.k8s.io"
        && kind.version == "v1beta1"
        && matches!(kind.kind.as_str(), "ResourceClaim" | "ResourceClaimTemplate" | "ResourceSlice")
}

/// core/v1 name, events.k8s.io/v1 name.
const EVENT_FIELDS: [(&str, &str); 6] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

fn rename(value: &mut Value, names: &[(&str, &str)]) {
    let map = value.ensure_object();
    for (from, to) in names {
        if let Some(field) = map.remove(from) {
            map.insert(*to, field);
        }
    }
    // `reportingComponent` is `reportingController` in events.k8s.io; which way shows in what is there.
    for (from, to) in
        [("reportingComponent", "reportingController"), ("reportingController", "reportingComponent")]
    {
        let forward = names.first().is_some_and(|(first, _)| *first == "involvedObject");
        if (from == "reportingComponent") == forward
            && let Some(field) = map.remove(from)
        {
            map.insert(to, field);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;

    #[test]
    fn an_event_reads_the_same_through_both_groups() {
        let core = GroupVersionKind::new("", "v1", "Event");
        let events = GroupVersionKind::new("events.k8s.io", "v1", "Event");
        let original = json!({
            "apiVersion": "v1", "kind": "Event", "involvedObject": {"name": "p"}, "message": "m", "count": 2,
            "reportingComponent": "c", "source": {"component": "c"}, "reason": "r"
        });
        let mut value = original.clone();
        convert(&mut value, &core, &events);
        assert_eq!(
            value,
            json!({
                "apiVersion": "events.k8s.io/v1", "kind": "Event", "regarding": {"name": "p"}, "note": "m",
                "deprecatedCount": 2, "reportingController": "c", "deprecatedSource": {"component": "c"}, "reason": "r"
            })
        );
        convert(&mut value, &events, &core);
        assert_eq!(value, original);
    }
}
