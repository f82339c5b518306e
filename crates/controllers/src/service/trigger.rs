//! When the change that a sync carries out happened, for `endpoints.kubernetes.io/last-change-trigger-time`.

use std::collections::HashMap;
use std::sync::Arc;

use api::view::{Pod, Service};
use apimachinery::{Str, Value};
use client::ObjectKey;
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::pods::timestamp;

const ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// What each service looked like at its last sync.
#[derive(Default)]
pub struct TriggerTimes {
    services: Mutex<HashMap<ObjectKey, State>>,
}

#[derive(Default)]
struct State {
    service: Option<Timestamp>,
    pods: HashMap<Str, Timestamp>,
}

impl TriggerTimes {
    /// The earliest change since the last call for this service; its creation at the first call.
    pub fn compute(&self, key: &ObjectKey, service: &Service, pods: &[Arc<Pod>]) -> Option<Timestamp> {
        let created = timestamp(service.metadata.creation_timestamp.as_ref());
        let mut services = self.services.lock();
        let known = services.contains_key(key);
        let state = services.entry(key.clone()).or_default();
        let mut earliest = created.filter(|created| state.service.is_none_or(|last| *created > last));
        let mut now = HashMap::with_capacity(pods.len());
        for pod in pods {
            let ready =
                pod.condition("Ready").and_then(|ready| timestamp(ready.last_transition_time.as_ref()));
            let Some(changed) = ready else { continue };
            if state.pods.get(&pod.metadata.name).is_none_or(|last| changed > *last) {
                earliest = Some(earliest.map_or(changed, |earliest| earliest.min(changed)));
            }
            now.insert(pod.metadata.name.clone(), changed);
        }
        *state = State { service: created, pods: now };
        if known { earliest } else { created }
    }

    pub fn forget(&self, key: &ObjectKey) {
        self.services.lock().remove(key);
    }
}

/// Sets the annotation, or takes it away when there is no time to tell.
pub fn annotate(tree: &mut Value, time: Option<Timestamp>) {
    match time {
        Some(time) => {
            tree.set_at(&["metadata", "annotations", ANNOTATION], time.to_string());
        }
        None => {
            tree.remove_at(&["metadata", "annotations", ANNOTATION]);
        }
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::time;

    use super::*;

    #[test]
    fn the_earliest_change_since_the_last_sync_is_told() {
        let pod = |name: &str, at: &str| {
            let text = format!(
                r#"{{"metadata":{{"name":"{name}"}},"status":{{"conditions":[{{"type":"Ready","lastTransitionTime":"{at}"}}]}}}}"#
            );
            Arc::new(serde_json::from_str::<Pod>(&text).unwrap())
        };
        let mut service = Service::default();
        service.metadata.creation_timestamp = Some("2026-01-01T00:00:00Z".into());
        let (times, key) = (TriggerTimes::default(), ObjectKey::new("ns", "s"));
        let at = |text: &str| time::parse(text);
        let (a, b) = (pod("a", "2026-01-01T00:00:10Z"), pod("b", "2026-01-01T00:00:20Z"));
        assert_eq!(times.compute(&key, &service, std::slice::from_ref(&a)), at("2026-01-01T00:00:00Z"));
        assert_eq!(times.compute(&key, &service, std::slice::from_ref(&a)), None);
        assert_eq!(times.compute(&key, &service, &[a.clone(), b.clone()]), at("2026-01-01T00:00:20Z"));
        let changed = [pod("a", "2026-01-01T00:00:40Z"), pod("b", "2026-01-01T00:00:30Z")];
        assert_eq!(times.compute(&key, &service, &changed), at("2026-01-01T00:00:30Z"));
    }
}
