//! [`Waiters`]: who waits for news about a pod or a claim.

use std::collections::HashMap;
use std::sync::Arc;

use apimachinery::Str;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Waiters by what they wait for: the uid of a pod, or `namespace/name` of a claim.
#[derive(Default)]
pub struct Waiters {
    waiting: Mutex<HashMap<Str, Vec<Arc<Notify>>>>,
}

/// Waits until dropped.
pub struct Waiter<'a> {
    waiters: &'a Waiters,
    keys: Vec<Str>,
    news: Arc<Notify>,
}

impl Waiters {
    pub fn wait_for(&self, keys: Vec<Str>) -> Waiter<'_> {
        let news = Arc::new(Notify::new());
        let mut waiting = self.waiting.lock();
        keys.iter().for_each(|key| waiting.entry(key.clone()).or_default().push(news.clone()));
        Waiter { waiters: self, keys, news }
    }

    pub fn wake(&self, key: &str) {
        self.waiting.lock().get(key).into_iter().flatten().for_each(|news| news.notify_one());
    }

    pub fn wake_all(&self) {
        self.waiting.lock().values().flatten().for_each(|news| news.notify_one());
    }
}

impl Waiter<'_> {
    /// Returns at once when there were news since the last call.
    pub async fn news(&self) {
        self.news.notified().await;
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut waiting = self.waiters.waiting.lock();
        for key in &self.keys {
            if let Some(others) = waiting.get_mut(key) {
                others.retain(|other| !Arc::ptr_eq(other, &self.news));
                if others.is_empty() {
                    waiting.remove(key);
                }
            }
        }
    }
}
