//! A server under a workload: who creates, who disturbs, and who watches what gets scheduled.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use tokio::task::JoinSet;

use super::super::arrivals::{Arrivals, SCHEDULED};
use super::super::connection::Connection;
use super::super::server::Server;
use super::batch::{Batch, Request};

/// Connections that create: enough to share syncs.
const CREATORS: usize = 64;

pub(super) struct Cluster {
    pub(super) server: Server,
    creators: Vec<Connection>,
    scheduled: HashMap<String, Arrivals>,
    /// What goes on until the end.
    background: JoinSet<()>,
}

impl Cluster {
    pub(super) async fn new(server: Server) -> anyhow::Result<Self> {
        let mut creators = Vec::new();
        for _ in 0..CREATORS {
            creators.push(server.endpoint.connect().await?);
        }
        Ok(Self { server, creators, scheduled: HashMap::new(), background: JoinSet::new() })
    }

    /// Sends all requests of a batch, as fast as it goes.
    pub(super) async fn send(&mut self, batch: &Batch) -> anyhow::Result<()> {
        self.send_some(batch, 0..batch.count).await
    }

    pub(super) async fn send_some(&mut self, batch: &Batch, numbers: Range<u64>) -> anyhow::Result<()> {
        for connection in self.creators.iter_mut().filter(|connection| connection.is_closed()) {
            *connection = self.server.endpoint.connect().await?;
        }
        let next = Arc::new(AtomicU64::new(numbers.start));
        let mut senders = JoinSet::new();
        for mut connection in self.creators.drain(..) {
            let (next, batch, end) = (next.clone(), batch.clone(), numbers.end);
            senders.spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= end {
                        return anyhow::Ok(connection);
                    }
                    for request in batch.requests(number) {
                        request.send(&mut connection).await?;
                    }
                }
            });
        }
        while let Some(sender) = senders.join_next().await {
            self.creators.push(sender.context("a creator panicked")??);
        }
        Ok(())
    }

    /// The pods of a namespace that get scheduled; all that were so before are in it, too.
    pub(super) async fn scheduled(&mut self, namespace: &str) -> anyhow::Result<&mut Arrivals> {
        if !self.scheduled.contains_key(namespace) {
            let pods = format!("/api/v1/namespaces/{namespace}/pods");
            let scheduled = Arrivals::watch(&self.server, &pods, SCHEDULED).await?;
            self.scheduled.insert(namespace.to_owned(), scheduled);
        }
        self.scheduled.get_mut(namespace).context("it was made just now")
    }

    /// Sends requests at a rate until the end, or until there are no more.
    pub(super) async fn keep_sending(
        &mut self,
        interval: Duration,
        mut requests: impl FnMut(u64) -> Option<Vec<Request>> + Send + 'static,
    ) -> anyhow::Result<()> {
        let mut connection = self.server.endpoint.connect().await?;
        self.background.spawn(async move {
            let mut ticks = tokio::time::interval(interval);
            for tick in 0.. {
                ticks.tick().await;
                let Some(requests) = requests(tick) else { return };
                for request in requests {
                    if let Err(error) = request.send(&mut connection).await {
                        eprintln!("bench: in the background: {error:#}");
                        return;
                    }
                }
            }
        });
        Ok(())
    }

    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        self.background.shutdown().await;
        drop((self.scheduled, self.creators));
        self.server.stop().await
    }
}
