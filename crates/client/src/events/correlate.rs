//! Which event a new occurrence becomes: a new object, a higher count on an old one, or nothing.
//!
//! The three rules and their numbers are client-go's correlator's: occurrences that agree in everything raise a
//! count; more than ten that differ only in their message within ten minutes share one combined event; and one source
//! may speak about one object 25 times at once, then once in five minutes.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use apimachinery::Str;
use rt::Instant;

use super::{Occurrence, Reference, Severity};

/// Entries of each table; the longest unused ones go when it is full.
const TABLE_MAX: usize = 4_096;

/// Occurrences with different messages that are kept apart.
const DISTINCT_MAX: usize = 10;
const DISTINCT_WINDOW: Duration = Duration::from_secs(600);

const BURST: f64 = 25.0;
const REFILL_PER_SECOND: f64 = 1.0 / 300.0;

/// What to write.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Verdict {
    Create {
        message: String,
    },
    /// Raise the count of the event of this name.
    Repeat {
        name: Str,
        message: String,
        count: u32,
    },
    /// The source speaks too often about this object.
    Drop,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Subject {
    regarding: Reference,
    severity: Severity,
    reason: Str,
}

struct Written {
    name: Str,
    count: u32,
    used: Instant,
}

struct Distinct {
    messages: Vec<String>,
    since: Instant,
}

struct Bucket {
    tokens: f64,
    filled: Instant,
}

#[derive(Default)]
pub(super) struct Correlator {
    written: HashMap<(Subject, String), Written>,
    distinct: HashMap<Subject, Distinct>,
    buckets: HashMap<Reference, Bucket>,
}

impl Correlator {
    pub(super) fn judge(&mut self, occurrence: &Occurrence, now: Instant) -> Verdict {
        let subject = Subject {
            regarding: occurrence.regarding.without_revision(),
            severity: occurrence.severity,
            reason: occurrence.reason.clone(),
        };
        let message = self.aggregate(&subject, &occurrence.message, now);
        if !self.allow(&subject.regarding, now) {
            return Verdict::Drop;
        }
        match self.written.get_mut(&(subject, message.clone())) {
            None => Verdict::Create { message },
            Some(written) => {
                written.count += 1;
                written.used = now;
                Verdict::Repeat { name: written.name.clone(), message, count: written.count }
            }
        }
    }

    /// Remembers that `message` about the occurrence's subject is now told by the event `name`.
    pub(super) fn record(&mut self, occurrence: &Occurrence, message: &str, name: &str, now: Instant) {
        let subject = Subject {
            regarding: occurrence.regarding.without_revision(),
            severity: occurrence.severity,
            reason: occurrence.reason.clone(),
        };
        trim(&mut self.written, |written| written.used);
        self.written
            .insert((subject, message.to_owned()), Written { name: name.into(), count: 1, used: now });
    }

    /// The event that was to be repeated is gone (they expire); the next occurrence makes a new one.
    pub(super) fn forget(&mut self, name: &str) {
        self.written.retain(|_, written| written.name != name);
    }

    fn aggregate(&mut self, subject: &Subject, message: &str, now: Instant) -> String {
        trim(&mut self.distinct, |distinct| distinct.since);
        let seen = self
            .distinct
            .entry(subject.clone())
            .or_insert_with(|| Distinct { messages: Vec::new(), since: now });
        if now.duration_since(seen.since) > DISTINCT_WINDOW {
            seen.messages.clear();
        }
        seen.since = now;
        if !seen.messages.iter().any(|own| own == message) {
            if seen.messages.len() >= DISTINCT_MAX - 1 {
                return format!("(combined from similar events): {message}");
            }
            seen.messages.push(message.to_owned());
        }
        message.to_owned()
    }

    fn allow(&mut self, regarding: &Reference, now: Instant) -> bool {
        trim(&mut self.buckets, |bucket| bucket.filled);
        let bucket =
            self.buckets.entry(regarding.clone()).or_insert_with(|| Bucket { tokens: BURST, filled: now });
        let passed = now.duration_since(bucket.filled).as_secs_f64();
        bucket.tokens = (bucket.tokens + passed * REFILL_PER_SECOND).min(BURST);
        bucket.filled = now;
        let allowed = bucket.tokens >= 1.0;
        if allowed {
            bucket.tokens -= 1.0;
        }
        allowed
    }
}

/// Makes room by dropping the older half, so that the cost is spread over many insertions.
fn trim<K: Eq + Hash, V>(table: &mut HashMap<K, V>, used: impl Fn(&V) -> Instant) {
    if table.len() < TABLE_MAX {
        return;
    }
    let mut times: Vec<Instant> = table.values().map(&used).collect();
    let middle = times.len() / 2;
    let (_, &mut median, _) = times.select_nth_unstable(middle);
    table.retain(|_, value| used(value) > median);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn occurrence(object: &str, reason: &str, message: &str) -> Occurrence {
        Occurrence {
            regarding: Reference { kind: "Pod".into(), name: object.into(), ..Reference::default() },
            severity: Severity::Normal,
            reason: reason.into(),
            message: message.into(),
            at: rt::now(),
        }
    }

    #[tokio::test]
    async fn equal_occurrences_raise_a_count() {
        let (mut correlator, now) = (Correlator::default(), rt::instant());
        let pulled = occurrence("a", "Pulled", "image pulled");
        assert_eq!(correlator.judge(&pulled, now), Verdict::Create { message: "image pulled".into() });
        correlator.record(&pulled, "image pulled", "a.1", now);
        let repeat = |count| Verdict::Repeat { name: "a.1".into(), message: "image pulled".into(), count };
        assert_eq!(correlator.judge(&pulled, now), repeat(2));
        assert_eq!(correlator.judge(&pulled, now), repeat(3));
        let other = occurrence("b", "Pulled", "image pulled");
        assert_eq!(correlator.judge(&other, now), Verdict::Create { message: "image pulled".into() });
        correlator.forget("a.1");
        assert_eq!(correlator.judge(&pulled, now), Verdict::Create { message: "image pulled".into() });
    }

    #[tokio::test]
    async fn the_tenth_distinct_message_is_combined() {
        let (mut correlator, now) = (Correlator::default(), rt::instant());
        for n in 0..9 {
            let message = format!("created {n}");
            let verdict = correlator.judge(&occurrence("a", "Created", &message), now);
            assert_eq!(verdict, Verdict::Create { message });
        }
        let verdict = correlator.judge(&occurrence("a", "Created", "created 9"), now);
        assert_eq!(verdict, Verdict::Create { message: "(combined from similar events): created 9".into() });
        let known = correlator.judge(&occurrence("a", "Created", "created 3"), now);
        assert_eq!(known, Verdict::Create { message: "created 3".into() });
    }

    #[tokio::test]
    async fn a_source_that_speaks_too_often_about_an_object_is_dropped_until_tokens_return() {
        let (mut correlator, now) = (Correlator::default(), rt::instant());
        let noise = occurrence("a", "Noise", "noise");
        let passed = (0..40).filter(|_| correlator.judge(&noise, now) != Verdict::Drop).count();
        assert_eq!(passed, 25);
        assert_ne!(correlator.judge(&occurrence("b", "Noise", "noise"), now), Verdict::Drop);
        assert_ne!(correlator.judge(&noise, now + Duration::from_secs(301)), Verdict::Drop);
    }

    #[tokio::test]
    async fn full_tables_keep_the_recent_half() {
        let (mut table, now) = (HashMap::new(), rt::instant());
        for n in 0..TABLE_MAX as u64 {
            table.insert(n, now + Duration::from_millis(n));
        }
        trim(&mut table, |used| *used);
        assert!(table.len() < TABLE_MAX / 2 + 1 && table.contains_key(&(TABLE_MAX as u64 - 1)));
        assert!(!table.contains_key(&0));
    }
}
