//! Many objects: lists, memory, restart.

use std::time::Instant;

use super::super::connection::{JSON, PROTOBUF};
use super::super::report::{MIB, Measurement};
use super::super::server::Server;
use super::super::{load, objects};
use super::{Folder, Measured, World, create_namespace, fill, memory_row};

const NAMESPACE: &str = "bench";
const COLLECTION: &str = "/api/v1/namespaces/bench/pods";
const ALL_PODS: &str = "/api/v1/pods";
/// Lists of which the fastest counts, so that a cold page does not.
const REPETITIONS: usize = 3;

pub(super) async fn lists(world: World) -> Measured {
    let folder = Folder::new()?;
    let sizes = world.sizes();
    let mut measured = Vec::new();
    let server = world.start(&folder, 1).await?;
    create_namespace(&server, NAMESPACE).await?;
    let before = server.resident()?;

    more_pods(&server, 0..sizes.list_first).await?;
    measured.push(list(&server, sizes.list_first, JSON, None).await?.0);

    more_pods(&server, sizes.list_first..sizes.list_restart).await?;
    server.stop().await?;
    let server = world.start(&folder, 1).await?;
    let restart = server.ready_after.as_secs_f64();
    let what = format!("restart with {} pods to ready", sizes.list_restart);
    let note = format!("{:.0} MiB resident then", server.resident()? as f64 / MIB);
    measured.push(Measurement::new(what, restart, "s").note(note));

    let rate = more_pods(&server, sizes.list_restart..sizes.list_second).await?;
    let after_filling = server.resident()?;
    let (rows, bytes) = list(&server, sizes.list_second, JSON, Some(400.0)).await?;
    let what = format!("memory with {} pods against their JSON", sizes.list_second);
    measured.push(memory_row(what, before, after_filling, bytes, &rate).at_most(2.5));
    measured.push(rows);
    measured.push(list(&server, sizes.list_second, PROTOBUF, None).await?.0);
    measured.push(four_at_once(&server, sizes.list_second).await?);
    server.stop().await?;
    Ok(measured)
}

async fn more_pods(server: &Server, numbers: std::ops::Range<u64>) -> anyhow::Result<load::Rate> {
    // Nobody schedules them: what is measured is the store and the API.
    fill(server, COLLECTION, objects::service_pod("nobody"), "pod", numbers).await
}

/// The row about one list in the form `accept`, and its length in bytes.
async fn list(
    server: &Server,
    pods: u64,
    accept: &'static str,
    target: Option<f64>,
) -> anyhow::Result<(Measurement, u64)> {
    let mut connection = server.endpoint.connect().await?.accepting(accept);
    let mut fastest = f64::MAX;
    let mut bytes = 0;
    server.forget_peak()?;
    let before = server.resident()?;
    for _ in 0..REPETITIONS {
        let started = Instant::now();
        bytes = connection.measure(ALL_PODS).await?;
        fastest = fastest.min(started.elapsed().as_secs_f64());
    }
    let extra = server.peak_resident()?.saturating_sub(before) as f64 / MIB;
    let note = format!(
        "{fastest:.3} s for {:.1} MB, fastest of {REPETITIONS}; {extra:.1} MiB more memory at the peak",
        bytes as f64 / 1e6
    );
    let form = if accept == PROTOBUF { ", protobuf" } else { "" };
    let what = format!("LIST of {pods} pods over TLS{form}");
    let row = Measurement::new(what, bytes as f64 / 1e6 / fastest, "MB/s").note(note);
    let row = if let Some(target) = target { row.at_least(target) } else { row };
    Ok((row, bytes))
}

async fn four_at_once(server: &Server, pods: u64) -> anyhow::Result<Measurement> {
    let mut readers = tokio::task::JoinSet::new();
    server.forget_peak()?;
    let before = server.resident()?;
    for _ in 0..4 {
        let mut connection = server.endpoint.connect().await?;
        readers.spawn(async move {
            let started = Instant::now();
            connection.measure(ALL_PODS).await?;
            anyhow::Ok(started.elapsed().as_secs_f64())
        });
    }
    let mut slowest: f64 = 0.0;
    while let Some(seconds) = readers.join_next().await {
        slowest = slowest.max(seconds??);
    }
    let extra = server.peak_resident()?.saturating_sub(before) as f64 / MIB;
    let what = format!("four LISTs of {pods} pods at once, slowest");
    Ok(Measurement::new(what, slowest, "s").note(format!("{extra:.1} MiB more memory at the peak")))
}
