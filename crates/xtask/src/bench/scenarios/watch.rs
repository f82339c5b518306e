//! How long an event takes to its watchers.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::Deserialize;

use super::super::connection::Lines;
use super::super::load::at_quantile;
use super::super::objects;
use super::super::report::Measurement;
use super::{Folder, Measured, World, create_namespace};

const COLLECTION: &str = "/api/v1/namespaces/bench/configmaps";
const PREFIX: &str = "watched-";
/// Between two writes, so that delays are those of single events and not of a queue of them.
const PAUSE: Duration = Duration::from_millis(10);

#[derive(Deserialize)]
struct Event<'a> {
    r#type: &'a str,
    object: Named,
}

#[derive(Deserialize)]
struct Named {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    name: String,
}

/// From the writer sending a create to each watcher having its event, the sync to disk included.
pub(super) async fn watch(world: World) -> Measured {
    let folder = Folder::new()?;
    let server = world.start(&folder, 1).await?;
    create_namespace(&server, "bench").await?;
    let writes = world.sizes().watched_writes;
    let start = Instant::now();
    let mut watchers = tokio::task::JoinSet::new();
    for _ in 0..world.sizes().watchers {
        let lines = Lines::watch(server.endpoint.connect().await?, COLLECTION, "").await?;
        watchers.spawn(arrivals(lines, writes, start));
    }
    let sent = write(&server, writes, start).await?;
    let mut delays = Vec::new();
    while let Some(arrived) = watchers.join_next().await {
        for (number, at) in arrived.context("a watcher panicked")??.into_iter().enumerate() {
            delays.push(at.saturating_sub(sent[number]));
        }
    }
    server.stop().await?;
    delays.sort_unstable();
    let millis = |quantile: f64| at_quantile(&delays, quantile).as_secs_f64() * 1e3;
    let what = format!("delay of an event to {} watchers, p50", world.sizes().watchers);
    let note = format!(
        "p99 {:.2} ms, slowest {:.2} ms; from sending the write, {writes} writes, one each {} ms",
        millis(0.99),
        millis(1.0),
        PAUSE.as_millis()
    );
    Ok(vec![Measurement::new(what, millis(0.5), "ms").note(note)])
}

/// When each write was sent, since `start`.
async fn write(
    server: &super::super::server::Server,
    writes: u64,
    start: Instant,
) -> anyhow::Result<Vec<Duration>> {
    let mut connection = server.endpoint.connect().await?;
    let template = objects::config_map();
    let mut sent = Vec::new();
    for number in 0..writes {
        tokio::time::sleep(PAUSE).await;
        let body = template.named(&format!("{PREFIX}{number}"));
        sent.push(start.elapsed());
        connection.create(COLLECTION, body).await?;
    }
    Ok(sent)
}

/// When each write's event came, by the write's number.
async fn arrivals(mut lines: Lines, writes: u64, start: Instant) -> anyhow::Result<Vec<Duration>> {
    let mut arrived = vec![None; usize::try_from(writes)?];
    let mut missing = arrived.len();
    while missing > 0 {
        let Some(line) = lines.next().await? else { bail!("the watch ended with {missing} events missing") };
        let at = start.elapsed();
        let event: Event<'_> = serde_json::from_slice(&line).context("reading an event")?;
        let number =
            event.object.metadata.name.strip_prefix(PREFIX).and_then(|text| text.parse::<usize>().ok());
        if let (Some(number), "ADDED") = (number, event.r#type)
            && arrived[number].replace(at).is_none()
        {
            missing -= 1;
        }
    }
    Ok(arrived.into_iter().flatten().collect())
}
