//! How long a failed key waits: per key exponential, and a token bucket over all of them.
//!
//! The numbers are client-go's default controller rate limiter's.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use rt::Instant;

const FIRST: Duration = Duration::from_millis(5);
const LONGEST: Duration = Duration::from_secs(1000);
const RETRIES_PER_SECOND: f64 = 10.0;
const BURST: f64 = 100.0;

/// Delays of keys that fail; a key that succeeds is forgotten.
#[derive(Debug)]
pub struct Backoff<K> {
    failures: HashMap<K, u32>,
    /// Retries that may start at once; negative while the bucket is in debt.
    tokens: f64,
    filled: Option<Instant>,
}

impl<K> Default for Backoff<K> {
    fn default() -> Self {
        Self { failures: HashMap::new(), tokens: BURST, filled: None }
    }
}

impl<K: Clone + Eq + Hash> Backoff<K> {
    /// Counts one more failure of `key` and says how long it waits.
    pub fn failed(&mut self, key: &K, now: Instant) -> Duration {
        self.conflicted(key).max(self.take_token(now))
    }

    /// As [`Backoff::failed`], without the bucket that all keys share.
    pub fn conflicted(&mut self, key: &K) -> Duration {
        let failures = self.failures.entry(key.clone()).or_default();
        let own = FIRST.saturating_mul(1_u32 << (*failures).min(20)).min(LONGEST);
        *failures += 1;
        own
    }

    pub fn succeeded(&mut self, key: &K) {
        self.failures.remove(key);
    }

    /// Failures of `key` in a row.
    pub fn failures(&self, key: &K) -> u32 {
        self.failures.get(key).copied().unwrap_or_default()
    }

    fn take_token(&mut self, now: Instant) -> Duration {
        let passed = self.filled.map_or(0.0, |filled| now.duration_since(filled).as_secs_f64());
        self.filled = Some(now);
        self.tokens = (self.tokens + passed * RETRIES_PER_SECOND).min(BURST) - 1.0;
        Duration::from_secs_f64((-self.tokens).max(0.0) / RETRIES_PER_SECOND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_waits_twice_as_long_after_each_failure_up_to_the_limit() {
        let (mut backoff, mut now) = (Backoff::default(), rt::instant());
        let mut waits = Vec::new();
        for _ in 0..20 {
            waits.push(backoff.failed(&"a", now).as_millis());
            now += Duration::from_secs(10);
        }
        assert_eq!(waits[..4], [5, 10, 20, 40]);
        assert_eq!(waits[17..], [655_360, 1_000_000, 1_000_000]);
        assert_eq!(backoff.failed(&"b", now).as_millis(), 5);
        backoff.succeeded(&"a");
        assert_eq!(backoff.failed(&"a", now).as_millis(), 5);
        assert_eq!(backoff.failures(&"a"), 1);
    }

    #[tokio::test]
    async fn many_failing_keys_share_a_bucket() {
        let (mut backoff, now) = (Backoff::default(), rt::instant());
        for key in 0..100 {
            assert_eq!(backoff.failed(&key, now), FIRST, "{key}");
        }
        assert_eq!(backoff.failed(&100, now), Duration::from_millis(100));
        assert_eq!(backoff.failed(&101, now), Duration::from_millis(200));
        assert_eq!(backoff.conflicted(&101), 2 * FIRST, "a conflict takes nothing from the bucket");
        assert_eq!(backoff.failed(&102, now + Duration::from_secs(20)), FIRST);
    }
}
