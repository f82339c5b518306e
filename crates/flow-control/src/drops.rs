//! When whoever was sent away should come back: later, the more are sent away.

use std::collections::VecDeque;

/// Upstream's bound.
const RETRY_AFTER_MAX: u64 = 32;

/// Requests of one level that were refused, by second.
#[derive(Debug)]
pub(crate) struct Drops {
    second: u64,
    count: u64,
    /// Earlier seconds in which there were any.
    history: VecDeque<(u64, u64)>,
    retry_after: u64,
    raised: u64,
}

impl Default for Drops {
    fn default() -> Self {
        Self { second: 0, count: 0, history: VecDeque::new(), retry_after: 1, raised: 0 }
    }
}

impl Drops {
    /// One more is refused in this second; says after how many seconds it may try again.
    ///
    /// As TCP slows down: three a second over the last `retry_after` seconds double it, less than one a second takes
    /// one off.
    pub fn record(&mut self, second: u64) -> u64 {
        if second == self.second {
            self.count += 1;
            return self.retry_after;
        }
        self.history.push_back((self.second, self.count));
        let kept = (2 * self.retry_after).min(RETRY_AFTER_MAX);
        while self.history.front().is_some_and(|(earlier, _)| second.saturating_sub(*earlier) > kept) {
            self.history.pop_front();
        }
        (self.second, self.count) = (second, 1);
        let recent = self.history.iter().filter(|(at, _)| second.saturating_sub(*at) <= self.retry_after);
        let dropped: u64 = recent.map(|(_, count)| count).sum();
        if second.saturating_sub(self.raised) >= self.retry_after && dropped >= 3 * self.retry_after {
            self.retry_after = (2 * self.retry_after).min(RETRY_AFTER_MAX);
            self.raised = second;
        } else if dropped < self.retry_after {
            self.retry_after = (self.retry_after - 1).max(1);
        }
        self.retry_after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_doubles_the_pause_and_a_calm_shortens_it() {
        let mut drops = Drops::default();
        let mut pauses = Vec::new();
        for second in 100..140 {
            let pause = (0..10).map(|_| drops.record(second)).last();
            pauses.push(pause.unwrap_or_default());
        }
        assert_eq!(pauses[0], 1);
        assert!(pauses.is_sorted(), "{pauses:?}");
        assert_eq!(pauses.last(), Some(&32));
        assert_eq!(drops.record(1_000), 31);
        assert_eq!(drops.record(2_000), 30);
    }
}
