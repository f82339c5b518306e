//! Events in batches to a webhook.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use camino::Utf8PathBuf;
use tokio::sync::mpsc;
use webhook::{Backoff, Call, Client, ClientConfig, NoServices, ServiceResolver};

use crate::event::Event;
use crate::{OpenError, Tasks};

/// Where events go and how; upstream's `--audit-webhook-*`.
#[derive(Clone, Debug)]
pub struct HookOptions {
    /// A kubeconfig file that names the peer.
    pub config: Utf8PathBuf,
    /// Before the second attempt.
    pub initial_backoff: Duration,
    /// Events that wait at most; more are dropped.
    pub buffer_max: usize,
    pub batch_max: usize,
    /// An event waits at most so long for others.
    pub batch_wait: Duration,
    /// Batches a second; 0 is no limit.
    pub batches_per_second: f64,
    /// Batches that may follow each other at once.
    pub burst: u32,
    /// Events larger than this lose their objects; `None` lets them be.
    pub event_bytes_max: Option<usize>,
}

/// For one attempt.
const TIMEOUT: Duration = Duration::from_secs(30);
const ANSWER_BYTES_MAX: usize = 64 << 10;

#[derive(Debug)]
pub(crate) struct Hook {
    event_bytes_max: Option<usize>,
    events: mpsc::Sender<Vec<u8>>,
}

impl Hook {
    pub fn start(options: HookOptions, tasks: &mut Tasks) -> Result<Self, OpenError> {
        let config = ClientConfig::from_kubeconfig(&options.config)?;
        let resolver: Arc<dyn ServiceResolver> = Arc::new(NoServices);
        let client = Client::new(&config, &resolver)?;
        let (events, waiting) = mpsc::channel(options.buffer_max.max(1));
        let event_bytes_max = options.event_bytes_max;
        let delivery = deliver(client, options, waiting, tasks.end.clone());
        tasks.running.spawn("audit webhook", delivery);
        Ok(Self { event_bytes_max, events })
    }

    pub fn send(&self, event: &Event, json: Vec<u8>) {
        let json = match self.event_bytes_max {
            Some(max) if json.len() > max => serde_json::to_vec(&event.truncated()).unwrap_or_default(),
            _ => json,
        };
        if self.events.try_send(json).is_err() {
            telemetry::metrics().audit.failed("webhook");
            tracing::debug!(id = event.id(), "Dropped an audit event: too many wait for the webhook");
        }
    }
}

async fn deliver(
    client: Client,
    options: HookOptions,
    mut waiting: mpsc::Receiver<Vec<u8>>,
    shutdown: rt::Shutdown,
) {
    let mut throttle = Throttle::new(options.batches_per_second, options.burst);
    let backoff = Backoff { first: options.initial_backoff, ..Backoff::default() };
    while let Some(batch) = next_batch(&mut waiting, &options, &shutdown).await {
        rt::sleep_until(throttle.next(rt::instant())).await;
        let body = event_list(&batch);
        let attempt = || {
            let call = Call {
                method: http::Method::POST,
                path: "",
                query: "",
                body: body.clone(),
                timeout: TIMEOUT,
                answer_bytes_max: ANSWER_BYTES_MAX,
            };
            client.post(call)
        };
        if let Err(error) = backoff.call(attempt).await {
            telemetry::metrics().audit.failed_many("webhook", batch.len() as u64);
            tracing::error!(error = %telemetry::chain(&error), events = batch.len(), "Could not deliver audit events");
        }
    }
}

/// As many events as there are, or come soon. After the shutdown those that are there, then none.
async fn next_batch(
    waiting: &mut mpsc::Receiver<Vec<u8>>,
    options: &HookOptions,
    shutdown: &rt::Shutdown,
) -> Option<Vec<Vec<u8>>> {
    let first = tokio::select! {
        biased;
        first = waiting.recv() => first?,
        () = shutdown.cancelled() => return None,
    };
    let mut batch = vec![first];
    let deadline = rt::sleep(options.batch_wait);
    tokio::pin!(deadline);
    while batch.len() < options.batch_max {
        let next = tokio::select! {
            biased;
            next = waiting.recv() => next,
            () = &mut deadline => None,
            () = shutdown.cancelled() => None,
        };
        match next {
            Some(event) => batch.push(event),
            None => break,
        }
    }
    Some(batch)
}

fn event_list(batch: &[Vec<u8>]) -> Bytes {
    let mut list = br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#.to_vec();
    for (index, event) in batch.iter().enumerate() {
        if index > 0 {
            list.push(b',');
        }
        list.extend_from_slice(event);
    }
    list.extend_from_slice(b"]}");
    list.into()
}

/// A bucket that fills with `rate` tokens a second up to `burst`.
struct Throttle {
    interval: Duration,
    burst: u32,
    /// When the bucket would be full.
    full: Option<rt::Instant>,
}

impl Throttle {
    fn new(rate: f64, burst: u32) -> Self {
        let interval = if rate > 0.0 { Duration::from_secs_f64(1.0 / rate) } else { Duration::ZERO };
        Self { interval, burst: burst.max(1), full: None }
    }

    /// Takes a token; says from when on it may be used.
    fn next(&mut self, now: rt::Instant) -> rt::Instant {
        let full = self.full.map_or(now, |full| full.max(now)) + self.interval;
        self.full = Some(full);
        let allowed = self.interval * self.burst;
        full.checked_sub(allowed).map_or(now, |from| from.max(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_at_once_and_then_the_rate_holds() {
        let mut throttle = Throttle::new(10.0, 3);
        let now = rt::instant();
        let waits: Vec<u128> = (0..5).map(|_| (throttle.next(now) - now).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 100, 200]);
    }

    #[test]
    fn a_batch_is_a_list_of_events() {
        let body = event_list(&[b"{\"a\":1}".to_vec(), b"{}".to_vec()]);
        let list: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&list["kind"], list["items"].as_array().unwrap().len()), (&"EventList".into(), 2));
    }
}
