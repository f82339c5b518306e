//! When did a connection last carry payload?

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Shared by the two directions of a connection.
#[derive(Clone)]
pub(crate) struct Activity {
    since: rt::Instant,
    /// Milliseconds after `since`.
    last: Arc<AtomicU64>,
}

impl Activity {
    pub(crate) fn new() -> Self {
        Self { since: rt::instant(), last: Arc::default() }
    }

    pub(crate) fn touch(&self) {
        let now = rt::instant().duration_since(self.since).as_millis();
        self.last.store(u64::try_from(now).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Returns when nothing happened for `timeout`.
    pub(crate) async fn idle(&self, timeout: Duration) {
        loop {
            let due = self.since + Duration::from_millis(self.last.load(Ordering::Relaxed)) + timeout;
            if rt::instant() >= due {
                return;
            }
            rt::sleep_until(due).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn idle_time_counts_from_the_last_payload() {
        let activity = Activity::new();
        let start = rt::instant();
        let other = activity.clone();
        let touched = async {
            rt::sleep(Duration::from_secs(40)).await;
            other.touch();
        };
        tokio::join!(touched, activity.idle(Duration::from_secs(60)));
        assert_eq!(rt::instant().duration_since(start), Duration::from_secs(100));
    }
}
