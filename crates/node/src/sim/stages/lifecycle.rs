//! [`Lifecycle`]: the Stages of a kind, and which of them an object enters next.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Str, Value};
use jiff::Timestamp;

use super::expression::not_negative;
use super::spec::{Compiled, Delay, Stage};

/// The Stages of one kind.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle {
    pub stages: Vec<Arc<Stage>>,
}

impl Lifecycle {
    /// A stage that the object matches, chosen by weight where there are several: a Stage whose weight cannot be read
    /// is left out unless all of them are like that, and if all weigh nothing, each is as likely.
    pub fn choose(&self, object: &Value) -> Option<&Arc<Stage>> {
        let matching: Vec<&Arc<Stage>> = self.stages.iter().filter(|stage| stage.matches(object)).collect();
        if matching.len() < 2 {
            return matching.first().copied();
        }
        let weighed: Vec<(&Arc<Stage>, Option<i64>)> =
            matching.iter().map(|stage| (*stage, stage.weight_of(object))).collect();
        let total: i64 = weighed.iter().filter_map(|(_, weight)| *weight).filter(|weight| *weight > 0).sum();
        if total <= 0 {
            let known = weighed.iter().filter(|(_, weight)| weight.is_some()).map(|(stage, _)| *stage);
            let known: Vec<&Arc<Stage>> = known.collect();
            let likely = if known.is_empty() { &matching } else { &known };
            return likely.get(rt::below(likely.len())).copied();
        }
        let mut left = (rt::jitter() * total as f64) as i64;
        for (stage, weight) in &weighed {
            left -= weight.unwrap_or(0).max(0);
            if left < 0 {
                return Some(*stage);
            }
        }
        matching.last().copied()
    }
}

impl Stage {
    fn matches(&self, object: &Value) -> bool {
        self.selector.as_ref().is_some_and(|selector| selector.matches(object))
    }

    fn weight_of(&self, object: &Value) -> Option<i64> {
        match &self.weight_from {
            Some(from) => from.integer(object, self.weight),
            None => Some(self.weight),
        }
    }

    /// How long an object stays before the stage is played.
    pub fn delay_of(&self, object: &Value, now: Timestamp) -> Duration {
        self.delay.as_ref().map_or(Duration::ZERO, |delay| delay.of(object, now))
    }
}

impl Compiled {
    fn matches(&self, object: &Value) -> bool {
        let has = |field: &str, (key, value): (&Str, &Str)| {
            object.at(&["metadata", field, key.as_str()]).and_then(Value::as_str) == Some(value.as_str())
        };
        self.labels.iter().all(|label| has("labels", label))
            && self.annotations.iter().all(|annotation| has("annotations", annotation))
            && self.requirements.iter().all(|requirement| requirement.matches(object))
    }
}

const MILLISECOND: i64 = 1_000_000;

impl Delay {
    /// Anything between duration and jitter, or the jitter itself if that is shorter.
    fn of(&self, object: &Value, now: Timestamp) -> Duration {
        let duration = self.milliseconds.saturating_mul(MILLISECOND);
        let duration = match &self.from {
            Some(from) => from.duration(object, now, Some(duration)),
            None => Some(duration),
        };
        let Some(duration) = duration else { return Duration::ZERO };
        let jitter = self.jitter_milliseconds.map(|milliseconds| milliseconds.saturating_mul(MILLISECOND));
        let jitter = match &self.jitter_from {
            Some(from) => from.duration(object, now, jitter),
            None => jitter,
        };
        match jitter {
            None => not_negative(duration),
            Some(jitter) if jitter <= duration => not_negative(jitter),
            Some(jitter) => {
                let spread = (jitter - duration) as f64 * rt::jitter();
                not_negative(duration.saturating_add(spread as i64))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;
    use crate::sim::stages::spec::StageSpec;

    fn stage(name: &str, spec: Value) -> Arc<Stage> {
        let mut spec = spec;
        spec.set_at(&["resourceRef", "kind"], "Pod");
        let spec: StageSpec = apimachinery::value::from_value(&spec).unwrap();
        Arc::new(spec.compile(name).unwrap_or_else(|refusal| panic!("{refusal}")))
    }

    #[test]
    fn only_what_is_selected_matches() {
        let pod = json!({"metadata": {"labels": {"app": "a"}, "annotations": {"x/y": "1"}},
            "status": {"phase": "Running", "ready": true}});
        let matches = |selector: Value| {
            let spec = if selector.is_null() {
                json!({})
            } else {
                [("selector".into(), selector)].into_iter().collect()
            };
            stage("s", spec).matches(&pod)
        };
        let expression = |key: &str, operator: &str, values: &[&str]| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
        assert!(!matches(Value::Null), "no selector selects nothing");
        assert!(matches(json!({})), "an empty one selects everything");
        assert!(matches(json!({"matchLabels": {"app": "a"}, "matchAnnotations": {"x/y": "1"}})));
        assert!(!matches(json!({"matchLabels": {"app": "b"}})));
        assert!(!matches(json!({"matchAnnotations": {"z": "1"}})));
        assert!(matches(expression(".status.phase", "In", &["Pending", "Running"])));
        assert!(!matches(expression(".status.phase", "NotIn", &["Running"])));
        assert!(matches(expression(".status.ready", "In", &["true"])));
        assert!(matches(expression(".status.missing", "NotIn", &["x"])));
        assert!(matches(expression(".status.missing", "DoesNotExist", &[])));
        assert!(!matches(expression(".status.phase", "DoesNotExist", &[])));
        assert!(matches(expression(".status.phase", "Exists", &[])));
        let cel = |text: &str| json!({"matchExpressions": [{"cel": {"expression": text}}]});
        assert!(matches(cel("self.status.phase == 'Running' && !has(self.metadata.deletionTimestamp)")));
        assert!(!matches(cel("self.status.missing == 'x'")), "what fails does not match");
    }

    #[test]
    fn weights_choose() {
        let weighing = |name: &str, weight: i64, from: &str| {
            let mut spec = json!({"selector": {}, "weight": weight});
            if !from.is_empty() {
                spec.set_at(&["weightFrom", "expressionFrom"], from);
            }
            stage(name, spec)
        };
        let pod = json!({"metadata": {"annotations": {"w": "3", "none": ""}}});
        let chosen = |stages: Vec<Arc<Stage>>| {
            let lifecycle = Lifecycle { stages };
            let mut names: Vec<Str> =
                (0..400).filter_map(|_| lifecycle.choose(&pod)).map(|stage| stage.name.clone()).collect();
            names.sort();
            names.dedup();
            names.join(",")
        };
        assert_eq!(chosen(vec![]), "");
        assert_eq!(chosen(vec![weighing("a", 0, ""), weighing("b", 0, "")]), "a,b");
        assert_eq!(chosen(vec![weighing("a", 0, ""), weighing("b", 1, "")]), "b");
        assert_eq!(chosen(vec![weighing("a", 1, ""), weighing("b", 0, ".metadata.annotations.w")]), "a,b");
        let unreadable = ".metadata.annotations.none";
        assert_eq!(chosen(vec![weighing("a", 5, unreadable), weighing("b", 0, "")]), "b");
        assert_eq!(chosen(vec![weighing("a", 5, unreadable), weighing("b", 5, unreadable)]), "a,b");
    }

    #[test]
    fn delays_lie_between_duration_and_jitter() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let pod = json!({"metadata": {"annotations": {"d": "3s", "bad": "soon", "empty": ""},
            "deletionTimestamp": "2026-01-01T00:00:30Z", "past": "2025-01-01T00:00:00Z"}});
        let delay = |delay: Value| {
            let stage = stage("s", [("delay".into(), delay)].into_iter().collect());
            stage.delay_of(&pod, now).as_millis()
        };
        let from =
            |path: &str| json!({"durationMilliseconds": 1000, "durationFrom": {"expressionFrom": path}});
        assert_eq!(delay(json!({})), 0);
        assert_eq!(delay(json!({"durationMilliseconds": 1500})), 1500);
        assert_eq!(delay(from(".metadata.annotations.d")), 3000);
        assert_eq!(delay(from(".metadata.annotations.missing")), 1000);
        assert_eq!(delay(from(".metadata.annotations.bad")), 1000);
        assert_eq!(delay(from(".metadata.annotations.empty")), 0);
        assert_eq!(delay(from(".metadata.deletionTimestamp")), 30_000);
        assert_eq!(delay(from(".metadata.past")), 0);
        assert_eq!(delay(json!({"durationFrom": {"cel": {"expression": "duration('2s')"}}})), 2000);
        assert_eq!(delay(json!({"durationMilliseconds": 1000, "jitterDurationMilliseconds": 500})), 500);
        for _ in 0..50 {
            let jittered = delay(json!({"durationMilliseconds": 1000, "jitterDurationMilliseconds": 5000}));
            assert!((1000..5000).contains(&jittered), "{jittered}");
            let until = delay(json!({"durationMilliseconds": 1000,
                "jitterDurationFrom": {"expressionFrom": ".metadata.deletionTimestamp"}}));
            assert!((1000..30_000).contains(&until), "{until}");
        }
    }
}
