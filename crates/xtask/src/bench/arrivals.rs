//! Objects that come to match a selector, counted while they do.

use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::connection::Lines;
use super::server::Server;

/// Pods that have a node.
pub(super) const SCHEDULED: &str = "spec.nodeName%21%3D";
/// Pods that run.
pub(super) const RUNNING: &str = "status.phase%3DRunning";

/// What goes on, but slowly, is waited for so many times as long as what does not.
const PATIENCES_MAX: u32 = 10;

/// When each object was seen to match, in order.
///
/// The server tells of an object that begins to match as `ADDED`, so that only the beginning of an event is looked at:
/// reading whole ones would take the CPU that the server needs.
pub(super) struct Arrivals {
    seen: watch::Receiver<Vec<Instant>>,
    _reader: JoinSet<()>,
}

impl Arrivals {
    /// Those of a collection whose fields match; all that do already are in it, too.
    pub(super) async fn watch(server: &Server, collection: &str, fields: &str) -> anyhow::Result<Self> {
        let query = format!("&fieldSelector={fields}");
        let mut lines = Lines::watch(server.endpoint.connect().await?, collection, &query).await?;
        let (sender, seen) = watch::channel(Vec::new());
        let mut reader = JoinSet::new();
        reader.spawn(async move {
            while let Ok(Some(line)) = lines.next().await {
                if line.starts_with(b"{\"type\":\"ADDED\"") {
                    sender.send_modify(|seen| seen.push(Instant::now()));
                }
            }
        });
        Ok(Self { seen, _reader: reader })
    }

    pub(super) fn count(&self) -> usize {
        self.seen.borrow().len()
    }

    /// Waits until there are so many, or until for `patience` nothing happened or it takes too long altogether, and
    /// says how many there are.
    pub(super) async fn wait(&mut self, count: usize, patience: Duration) -> usize {
        let deadline = Instant::now() + patience * PATIENCES_MAX;
        while self.seen.borrow_and_update().len() < count {
            let next = (Instant::now() + patience).min(deadline);
            match tokio::time::timeout_at(next.into(), self.seen.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => break,
            }
        }
        self.count()
    }

    /// When those from this one on were seen.
    pub(super) fn times(&self, from: usize) -> Vec<Instant> {
        self.seen.borrow().iter().skip(from).copied().collect()
    }
}
