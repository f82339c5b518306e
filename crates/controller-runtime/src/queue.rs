//! [`Queue`]: keys to work on, each once, each with one worker at a time.
//!
//! A key that is added while it waits is there already; one that is added while a worker has it comes back when the
//! worker is done. Keys can be added for later; the earliest time wins. The queue is bounded by the number of
//! distinct keys, which is the number of objects.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;
use rt::Instant;
use telemetry::WorkqueueHandle;
use tokio::sync::Notify;

use crate::backoff::Backoff;

/// A deduplicating work queue with delays and back-off.
pub struct Queue<K> {
    state: Mutex<State<K>>,
    changed: Notify,
}

struct State<K> {
    ready: VecDeque<K>,
    /// Keys that are in `ready`, or that must return to it when their worker is done, and since when.
    dirty: HashMap<K, Instant>,
    /// Since when a worker has them.
    processing: HashMap<K, Instant>,
    /// The sequence number keeps keys of one instant apart.
    delayed: BTreeMap<(Instant, u64), K>,
    delayed_until: HashMap<K, (Instant, u64)>,
    sequence: u64,
    backoff: Backoff<K>,
    closed: bool,
    metrics: Option<WorkqueueHandle>,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        Self::new(None)
    }
}

impl<K> Queue<K> {
    fn new(metrics: Option<WorkqueueHandle>) -> Self {
        let state = State {
            ready: VecDeque::new(),
            dirty: HashMap::new(),
            processing: HashMap::new(),
            delayed: BTreeMap::new(),
            delayed_until: HashMap::new(),
            sequence: 0,
            backoff: Backoff::default(),
            closed: false,
            metrics,
        };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }
}

impl<K: Clone + Eq + Hash> Queue<K> {
    /// A queue that shows in the `workqueue_*` metrics under this name.
    pub fn named(name: &str) -> Self {
        Self::new(Some(telemetry::metrics().workqueue.queue(name)))
    }

    pub fn add(&self, key: K) {
        self.add_all([key]);
    }

    /// Adds keys under one lock.
    pub fn add_all(&self, keys: impl IntoIterator<Item = K>) {
        let mut state = self.state.lock();
        let now = rt::instant();
        let added = keys.into_iter().filter(|key| state.add(key, now)).count();
        state.show_depth();
        drop(state);
        self.wake(added);
    }

    /// Adds `key` after `delay`, or earlier if it is already due earlier.
    pub fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let mut state = self.state.lock();
        let due = rt::instant() + delay;
        let earliest = state.delay(key, due);
        drop(state);
        if earliest {
            self.changed.notify_one();
        }
    }

    /// Adds `key` after its back-off; every call counts as a failure.
    pub fn add_failed(&self, key: K) {
        let delay = {
            let mut state = self.state.lock();
            state.count_retry();
            state.backoff.failed(&key, rt::instant())
        };
        self.add_after(key, delay);
    }

    /// As [`Queue::add_failed`], for a conflict with somebody else's write. Those are part of normal work, so they do
    /// not use up the retries that all keys share.
    pub fn add_conflicted(&self, key: K) {
        let delay = {
            let mut state = self.state.lock();
            state.count_retry();
            state.backoff.conflicted(&key)
        };
        self.add_after(key, delay);
    }

    /// Ends the back-off of `key`.
    pub fn forget(&self, key: &K) {
        self.state.lock().backoff.succeeded(key);
    }

    /// Failures of `key` in a row.
    pub fn failures(&self, key: &K) -> u32 {
        self.state.lock().backoff.failures(key)
    }

    /// The next key; the caller must give it back with [`Queue::done`]. `None` once the queue is closed. Cancel-safe.
    pub async fn next(&self) -> Option<K> {
        loop {
            let due = {
                let mut state = self.state.lock();
                if state.closed {
                    return None;
                }
                let now = rt::instant();
                let promoted = state.promote(now);
                if let Some(key) = state.take(now) {
                    drop(state);
                    self.wake(promoted.saturating_sub(1));
                    return Some(key);
                }
                state.delayed.first_key_value().map(|((due, _), _)| *due)
            };
            match due {
                None => self.changed.notified().await,
                Some(due) => tokio::select! {
                    () = self.changed.notified() => {}
                    () = rt::sleep_until(due) => {}
                },
            }
        }
    }

    /// The worker that had `key` is done with it.
    pub fn done(&self, key: &K) {
        let mut state = self.state.lock();
        if let (Some(since), Some(metrics)) = (state.processing.remove(key), &state.metrics) {
            metrics.work_duration.observe(since.elapsed());
        }
        let again = state.dirty.contains_key(key);
        if again {
            state.ready.push_back(key.clone());
            state.show_depth();
        }
        drop(state);
        self.wake(usize::from(again));
    }

    /// Keys that wait for a worker now.
    pub fn len(&self) -> usize {
        self.state.lock().ready.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends the queue: workers get no more keys.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_waiters();
        self.changed.notify_one();
    }

    fn wake(&self, count: usize) {
        // Wakes at most a few workers at once; each that takes a key while more wait wakes the next one.
        for _ in 0..count.min(WAKE_MAX) {
            self.changed.notify_one();
        }
    }
}

/// More workers than this are not woken for one call; they follow as the first ones come back.
const WAKE_MAX: usize = 64;

impl<K: Clone + Eq + Hash> State<K> {
    /// True when a worker can take the key now.
    fn add(&mut self, key: &K, now: Instant) -> bool {
        if self.closed || self.dirty.contains_key(key) {
            return false;
        }
        self.dirty.insert(key.clone(), now);
        if let Some(metrics) = &self.metrics {
            metrics.adds.inc();
        }
        if self.processing.contains_key(key) {
            return false;
        }
        self.ready.push_back(key.clone());
        true
    }

    /// True when `key` is now the first that is due.
    fn delay(&mut self, key: K, due: Instant) -> bool {
        if let Some(&(own, sequence)) = self.delayed_until.get(&key) {
            if own <= due {
                return false;
            }
            self.delayed.remove(&(own, sequence));
        }
        self.sequence += 1;
        let slot = (due, self.sequence);
        self.delayed_until.insert(key.clone(), slot);
        self.delayed.insert(slot, key);
        self.delayed.first_key_value().is_some_and(|(first, _)| *first == slot)
    }

    /// Moves keys that are due to the ready ones and says how many became available.
    fn promote(&mut self, now: Instant) -> usize {
        let mut promoted = 0;
        while let Some(entry) = self.delayed.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let key = entry.remove();
            self.delayed_until.remove(&key);
            promoted += usize::from(self.add(&key, now));
        }
        promoted
    }

    fn take(&mut self, now: Instant) -> Option<K> {
        let key = self.ready.pop_front()?;
        if let (Some(since), Some(metrics)) = (self.dirty.remove(&key), &self.metrics) {
            metrics.queue_duration.observe(now.saturating_duration_since(since));
        }
        self.processing.insert(key.clone(), now);
        self.show_depth();
        Some(key)
    }

    fn show_depth(&self) {
        if let Some(metrics) = &self.metrics {
            metrics.depth.set(self.ready.len() as i64);
        }
    }

    fn count_retry(&self) {
        if let Some(metrics) = &self.metrics {
            metrics.retries.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn none_within(queue: &Queue<&'static str>, millis: u64) -> bool {
        rt::timeout(Duration::from_millis(millis), queue.next()).await.is_err()
    }

    #[tokio::test]
    async fn a_waiting_key_is_there_once() {
        let queue = Queue::default();
        queue.add_all(["a", "b", "a"]);
        assert_eq!((queue.len(), queue.next().await, queue.next().await), (2, Some("a"), Some("b")));
        assert!(none_within(&queue, 5).await);
    }

    #[tokio::test]
    async fn a_key_has_one_worker_and_returns_when_it_is_done() {
        let queue = Queue::default();
        queue.add("a");
        assert_eq!(queue.next().await, Some("a"));
        queue.add("a");
        queue.add("a");
        assert!(none_within(&queue, 5).await);
        queue.done(&"a");
        assert_eq!(queue.next().await, Some("a"));
        queue.done(&"a");
        assert!(none_within(&queue, 5).await);
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_delay_of_a_key_wins() {
        let (queue, start) = (Queue::default(), rt::instant());
        queue.add_after("late", Duration::from_secs(9));
        queue.add_after("a", Duration::from_secs(5));
        queue.add_after("a", Duration::from_secs(2));
        queue.add_after("a", Duration::from_secs(7));
        assert_eq!(queue.next().await, Some("a"));
        assert_eq!(start.elapsed().as_secs(), 2);
        queue.done(&"a");
        assert_eq!(queue.next().await, Some("late"));
        assert_eq!(start.elapsed().as_secs(), 9);
    }

    #[tokio::test(start_paused = true)]
    async fn a_shorter_delay_wakes_a_sleeping_worker() {
        let queue = Queue::default();
        queue.add_after("slow", Duration::from_secs(100));
        let start = rt::instant();
        let worker = async { (queue.next().await, start.elapsed().as_secs()) };
        let adder = async {
            tokio::task::yield_now().await;
            queue.add_after("quick", Duration::from_secs(1));
        };
        let (taken, ()) = tokio::join!(worker, adder);
        assert_eq!(taken, (Some("quick"), 1));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_back_off_until_forgotten() {
        let (queue, start) = (Queue::default(), rt::instant());
        for total in [5, 15, 35] {
            queue.add_failed("a");
            assert_eq!(queue.next().await, Some("a"));
            assert_eq!(start.elapsed().as_millis(), total);
            queue.done(&"a");
        }
        assert_eq!(queue.failures(&"a"), 3);
        queue.forget(&"a");
        assert_eq!(queue.failures(&"a"), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_named_queue_is_measured() {
        let queue = Queue::named("measured");
        queue.add_all(["a", "b", "a"]);
        rt::sleep(Duration::from_secs(2)).await;
        let metrics = telemetry::metrics().workqueue.queue("measured");
        assert_eq!((metrics.adds.get(), metrics.depth.get(), metrics.queue_duration.count()), (2, 2, 0));
        assert_eq!(queue.next().await, Some("a"));
        queue.add("a");
        assert_eq!((metrics.adds.get(), metrics.depth.get(), metrics.queue_duration.count()), (3, 1, 1));
        queue.done(&"a");
        queue.add_failed("b");
        assert_eq!((metrics.depth.get(), metrics.work_duration.count(), metrics.retries.get()), (2, 1, 1));
    }

    #[tokio::test]
    async fn all_workers_get_work_and_all_end_when_the_queue_closes() {
        let queue = Queue::default();
        let workers = futures::future::join_all((0..8).map(|_| async {
            let mut seen = Vec::new();
            while let Some(key) = queue.next().await {
                seen.push(key);
                tokio::task::yield_now().await;
                queue.done(&key);
            }
            seen
        }));
        let feeder = async {
            tokio::task::yield_now().await;
            queue.add_all(0..200);
            while !queue.is_empty() {
                tokio::task::yield_now().await;
            }
            queue.close();
        };
        let (seen, ()) = tokio::join!(workers, feeder);
        assert!(seen.iter().all(|seen| !seen.is_empty()), "{seen:?}");
        let mut all = seen.concat();
        all.sort_unstable();
        assert_eq!(all, (0..200).collect::<Vec<_>>());
    }
}
