//! When something that failed is tried again: ten seconds later, then twice as long each time, up to five minutes.
//!
//! As the kubelet's: one book for crashing containers and one for images that cannot be pulled. Who goes on for ten
//! minutes without failing begins anew.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

const INITIAL: Duration = Duration::from_secs(10);
const MAX: Duration = Duration::from_secs(300);

/// The waits of one pod, by what has failed.
#[derive(Debug, Default)]
pub struct Backoff {
    entries: HashMap<String, Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    wait: Duration,
    since: Timestamp,
}

impl Backoff {
    /// How long `key`, which failed at `failed`, has still to wait, and its whole wait. `None`: it may be tried now.
    pub fn remaining(&self, key: &str, failed: Timestamp, now: Timestamp) -> Option<(Duration, Duration)> {
        let entry = self.entries.get(key)?;
        if entry.has_expired(now) {
            return None;
        }
        let waited = elapsed(failed, now);
        (waited < entry.wait).then(|| (entry.wait - waited, entry.wait))
    }

    /// How long `key` has still to wait since it was last tried, and its whole wait.
    pub fn since(&self, key: &str, now: Timestamp) -> Option<(Duration, Duration)> {
        let since = self.entries.get(key)?.since;
        self.remaining(key, since, now)
    }

    /// `key` is tried again: its next failure will have to wait, and longer than before.
    pub fn advance(&mut self, key: &str, now: Timestamp) {
        let wait = match self.entries.get(key) {
            Some(entry) if !entry.has_expired(now) => (entry.wait * 2).min(MAX),
            _ => INITIAL,
        };
        self.entries.insert(key.to_owned(), Entry { wait, since: now });
    }

    /// `key` has succeeded.
    pub fn reset(&mut self, key: &str) {
        self.entries.remove(key);
    }
}

impl Entry {
    fn has_expired(self, now: Timestamp) -> bool {
        elapsed(self.since, now) > MAX * 2
    }
}

fn elapsed(since: Timestamp, now: Timestamp) -> Duration {
    now.duration_since(since).try_into().unwrap_or_default()
}

/// A duration as Go prints it, for messages that users know: `10s`, `2m40s`.
pub fn go_seconds(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    #[test]
    fn waits_double_up_to_five_minutes_and_begin_anew_after_ten() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.remaining("c", at(0), at(0)), None, "the first restart is at once");
        let mut now = 0;
        for wait in [10, 20, 40, 80, 160, 300, 300] {
            backoff.advance("c", at(now));
            let (left, whole) = backoff.remaining("c", at(now + 1), at(now + 2)).unwrap();
            assert_eq!((left.as_secs(), whole.as_secs()), (wait - 1, wait));
            assert_eq!(backoff.remaining("other", at(now), at(now)), None);
            now += wait as i64 + 1;
            assert_eq!(backoff.remaining("c", at(now - wait as i64), at(now)), None);
        }
        assert_eq!(backoff.remaining("c", at(now + 700), at(now + 700)), None);
        backoff.advance("c", at(now + 700));
        assert_eq!(backoff.remaining("c", at(now + 700), at(now + 700)).unwrap().1.as_secs(), 10);
    }

    #[test]
    fn durations_read_as_go_writes_them() {
        for (seconds, text) in [(10, "10s"), (60, "1m0s"), (160, "2m40s"), (300, "5m0s")] {
            assert_eq!(go_seconds(Duration::from_secs(seconds)), text);
        }
    }
}
