//! [`Tasks`]: what was started together and has to end together.

use std::future::Future;
use std::time::Duration;

use futures::future::join_all;
use tokio::task::JoinHandle;

/// Tasks by name, so that one that does not end can be told from the others.
#[derive(Debug, Default)]
pub struct Tasks(Vec<(&'static str, JoinHandle<()>)>);

impl Tasks {
    /// As [`crate::spawn`].
    pub fn spawn(&mut self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        self.0.push((name, crate::spawn(name, future)));
    }

    /// Takes over the tasks of a part.
    pub fn extend(&mut self, part: Self) {
        self.0.extend(part.0);
    }

    /// Waits until the last has ended.
    pub async fn ended(self) {
        // One that panicked has said so.
        let _ = join_all(self.0.into_iter().map(|(_, task)| task)).await;
    }

    /// Waits as long as `limit` for all of them; the names of those that go on are the error. They do go on.
    pub async fn end_within(mut self, limit: Duration) -> Result<(), Vec<&'static str>> {
        let all = join_all(self.0.iter_mut().map(|(_, task)| task));
        if crate::timeout(limit, all).await.is_ok() {
            return Ok(());
        }
        Err(self.0.iter().filter(|(_, task)| !task.is_finished()).map(|(name, _)| *name).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_does_not_end_is_named() {
        let mut tasks = Tasks::default();
        tasks.spawn("brief", async {});
        tasks.spawn("endless", std::future::pending());
        let mut part = Tasks::default();
        part.spawn("panics", async { panic!("as it should") });
        tasks.extend(part);
        assert_eq!(tasks.end_within(Duration::from_secs(5)).await, Err(vec!["endless"]));
    }

    #[tokio::test(start_paused = true)]
    async fn all_that_end_are_waited_for() {
        let mut tasks = Tasks::default();
        let (done, mut is_done) = tokio::sync::oneshot::channel();
        tasks.spawn("slow", async {
            crate::sleep(Duration::from_secs(4)).await;
            let _ = done.send(());
        });
        assert_eq!(tasks.end_within(Duration::from_secs(5)).await, Ok(()));
        assert!(is_done.try_recv().is_ok());
    }
}
