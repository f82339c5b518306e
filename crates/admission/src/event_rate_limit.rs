//! `EventRateLimit`: nobody floods the server with events.

use std::collections::HashMap;
use std::time::Duration;

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::{Status, Value};
use parking_lot::Mutex;
use registry::admission::Attributes;

use crate::configuration::{Configuration, ConfigurationError, check_type};
use crate::{Plugin, aggregate, is_write};

/// Allowances that are remembered for each limit, unless it says otherwise.
const CACHE_SIZE: usize = 4096;

const TYPES: [&str; 4] = ["Namespace", "Server", "SourceAndObject", "User"];

pub struct EventRateLimit {
    limits: Vec<Limit>,
}

/// One limit and what is left of it, for everybody it tells apart.
struct Limit {
    kind: String,
    /// Events that a bucket gains in a second, and the most that it holds.
    per_second: f64,
    burst: f64,
    buckets_max: usize,
    buckets: Mutex<HashMap<String, Bucket>>,
}

struct Bucket {
    tokens: f64,
    filled: rt::Instant,
}

impl EventRateLimit {
    pub fn new(configuration: &Configuration) -> Result<Self, ConfigurationError> {
        Ok(Self { limits: configuration.of("EventRateLimit", parse)? })
    }
}

impl Plugin for EventRateLimit {
    fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        // Those of `events.k8s.io` are not limited upstream either.
        let writes = is_write(attributes) && attributes.is("", "events") && !attributes.dry_run;
        let Some(event) = object.filter(|_| writes) else { return Ok(()) };
        let now = rt::instant();
        let reached = self.limits.iter().filter_map(|limit| {
            let key = key(&limit.kind, attributes, event);
            (!limit.accepts(&key, now)).then(|| format!("limit reached on type {} for key {key}", limit.kind))
        });
        match aggregate(reached.collect()) {
            Some(why) => Err(Status::too_many_requests(why, 0)),
            None => Ok(()),
        }
    }
}

/// Who shares an allowance.
fn key(kind: &str, attributes: &Attributes<'_>, event: &Value) -> String {
    match kind {
        "Namespace" => attributes.namespace.to_owned(),
        "User" => attributes.user.name().to_owned(),
        "SourceAndObject" => [
            ["source", "component"],
            ["source", "host"],
            ["involvedObject", "kind"],
            ["involvedObject", "namespace"],
            ["involvedObject", "name"],
            ["involvedObject", "uid"],
            ["involvedObject", "apiVersion"],
        ]
        .iter()
        .map(|path| event.str_at(path))
        .collect(),
        _ => String::new(),
    }
}

impl Limit {
    /// Takes one event from the allowance, if there is one left.
    fn accepts(&self, key: &str, now: rt::Instant) -> bool {
        let mut buckets = self.buckets.lock();
        if buckets.len() >= self.buckets_max && !buckets.contains_key(key) {
            self.forget_the_oldest(&mut buckets);
        }
        let full = || Bucket { tokens: self.burst, filled: now };
        let bucket = buckets.entry(key.to_owned()).or_insert_with(full);
        let passed: Duration = now.saturating_duration_since(bucket.filled);
        bucket.tokens = (bucket.tokens + passed.as_secs_f64() * self.per_second).min(self.burst);
        bucket.filled = now;
        let accepted = bucket.tokens >= 1.0;
        if accepted {
            bucket.tokens -= 1.0;
        }
        accepted
    }

    /// Half of them, so that it is done rarely.
    fn forget_the_oldest(&self, buckets: &mut HashMap<String, Bucket>) {
        let mut times: Vec<rt::Instant> = buckets.values().map(|bucket| bucket.filled).collect();
        times.sort_unstable();
        if let Some(middle) = times.get(times.len() / 2).copied() {
            buckets.retain(|_, bucket| bucket.filled > middle);
        }
    }
}

fn parse(document: &Value) -> Result<Vec<Limit>, String> {
    check_type(document, "Configuration", &["eventratelimit.admission.k8s.io/v1alpha1"])?;
    let path = Path::root("limits");
    let mut errors = ErrorList::new();
    let limits = document.array_at(&["limits"]);
    if limits.is_empty() {
        errors.push(Error::invalid(&path, Value::Array(Vec::new()), "must not be empty"));
    }
    let read = limits
        .iter()
        .enumerate()
        .map(|(index, limit)| read(limit, &path.index(index), &mut errors))
        .collect();
    match errors.iter().map(ToString::to_string).collect::<Vec<_>>() {
        complaints if complaints.is_empty() => Ok(read),
        complaints => Err(complaints.join("; ")),
    }
}

fn read(limit: &Value, path: &Path<'_>, errors: &mut ErrorList) -> Limit {
    let kind = limit.str_at(&["type"]);
    if !TYPES.contains(&kind) {
        errors.push(Error::not_supported(&path.child("type"), kind, &TYPES));
    }
    let mut positive = |key: &str| {
        let number = limit[key].as_i64().unwrap_or(0);
        if number <= 0 {
            errors.push(Error::invalid(&path.child(key), number, "must be positive"));
        }
        number as f64
    };
    let (burst, per_second) = (positive("burst"), positive("qps"));
    let size = limit["cacheSize"].as_i64().unwrap_or(0);
    if size < 0 && kind != "Server" {
        errors.push(Error::invalid(&path.child("cacheSize"), size, "must not be negative"));
    }
    let buckets_max = usize::try_from(size).ok().filter(|size| *size > 0).unwrap_or(CACHE_SIZE);
    Limit { kind: kind.to_owned(), per_second, burst, buckets_max, buckets: Mutex::default() }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    fn document(limit: Value) -> Value {
        json!({"apiVersion": "eventratelimit.admission.k8s.io/v1alpha1", "kind": "Configuration", "limits": [limit]})
    }

    #[test]
    fn an_allowance_is_spent_and_comes_back() {
        let limits =
            parse(&document(json!({"type": "User", "qps": 1, "burst": 2, "cacheSize": 2}))).expect("good");
        let (limit, start) = (&limits[0], rt::instant());
        assert!(limit.accepts("a", start) && limit.accepts("a", start));
        assert!(!limit.accepts("a", start));
        assert!(limit.accepts("b", start), "others have their own");
        assert!(limit.accepts("a", start + Duration::from_secs(1)));
        assert!(!limit.accepts("a", start + Duration::from_secs(1)));
        assert!(limit.accepts("c", start + Duration::from_secs(2)));
        assert!(limit.buckets.lock().len() <= 2);
    }

    #[test]
    fn every_mistake_is_named() {
        let error = parse(&document(json!({"type": "Pod", "qps": 0, "burst": -1}))).err().expect("mistakes");
        for part in [
            "limits[0].type: Unsupported value: \"Pod\"",
            "limits[0].qps: Invalid value: 0: must be positive",
            "limits[0].burst: Invalid value: -1: must be positive",
        ] {
            assert!(error.contains(part), "{part}\n{error}");
        }
    }
}
