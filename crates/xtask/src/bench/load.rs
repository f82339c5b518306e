//! Many connections sending one kind of request as fast as answers come.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::connection::Connection;
use super::server::Server;

/// When a load ends; whichever comes first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Until {
    pub(super) requests: u64,
    pub(super) elapsed: Duration,
}

/// What a load reached.
#[derive(Clone, Debug)]
pub(super) struct Rate {
    pub(super) requests: u64,
    pub(super) elapsed: Duration,
    /// CPU time of the server for all of it.
    pub(super) cpu: Duration,
    /// Time of each request, sorted.
    latencies: Vec<Duration>,
}

impl Rate {
    pub(super) fn per_second(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64()
    }

    /// CPU time of the server for one request, in milliseconds.
    pub(super) fn cpu_ms(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e3 / self.requests.max(1) as f64
    }

    pub(super) fn latency(&self, quantile: f64) -> Duration {
        at_quantile(&self.latencies, quantile)
    }
}

/// The value that this share of sorted values does not exceed; zero when there are none.
pub(super) fn at_quantile(sorted: &[Duration], quantile: f64) -> Duration {
    let rank = (sorted.len() as f64 * quantile).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// Sends requests numbered from `first` on over `connections` connections.
///
/// `send` makes one request with the number it is given and fails if the answer is not the wanted one.
///
/// # Errors
/// The first failure of any connection; a load with failures is no measurement.
pub(super) async fn run<F, Fut>(
    server: &Server,
    connections: usize,
    first: u64,
    until: Until,
    send: F,
) -> anyhow::Result<Rate>
where
    F: Fn(Connection, u64) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = anyhow::Result<Connection>> + Send,
{
    let mut open = Vec::new();
    for _ in 0..connections {
        open.push(server.endpoint.connect().await?);
    }
    let next = Arc::new(AtomicU64::new(0));
    let cpu_before = server.cpu()?;
    let started = Instant::now();
    let mut senders = tokio::task::JoinSet::new();
    for mut connection in open {
        let (next, send) = (next.clone(), send.clone());
        senders.spawn(async move {
            let mut latencies = Vec::new();
            while started.elapsed() < until.elapsed {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= until.requests {
                    break;
                }
                let sent = Instant::now();
                connection = send(connection, first + number).await?;
                latencies.push(sent.elapsed());
            }
            anyhow::Ok(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(sender) = senders.join_next().await {
        latencies.extend(sender.context("a sender panicked")??);
    }
    let elapsed = started.elapsed();
    let cpu = server.cpu()? - cpu_before;
    latencies.sort_unstable();
    Ok(Rate { requests: latencies.len() as u64, elapsed, cpu, latencies })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_a_value_that_was_seen() {
        let sorted: Vec<_> = (1..=100).map(Duration::from_millis).collect();
        for (quantile, millis) in [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1)] {
            assert_eq!(at_quantile(&sorted, quantile), Duration::from_millis(millis));
        }
        assert_eq!(at_quantile(&[], 0.5), Duration::ZERO);
    }
}
