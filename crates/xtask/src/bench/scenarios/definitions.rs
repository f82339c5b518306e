//! Many CustomResourceDefinitions: how soon each is served, and what it takes of memory.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hyper::StatusCode;

use super::super::connection::Connection;
use super::super::definition::Definition;
use super::super::load::{self, Until, at_quantile};
use super::super::report::{KIB, MIB, Measurement};
use super::super::server::Server;
use super::{FILLING_CONNECTIONS, Folder, Measured, NO_TIME_LIMIT, World, create_namespace};

const NAMESPACE: &str = "bench";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
/// What a client may wait for a new definition, and what each may take of memory.
const SERVED_MS_MAX: f64 = 100.0;
const MEMORY_KIB_MAX: f64 = 100.0;
/// A definition that is not served by then never will be.
const SERVED_SECONDS_MAX: u64 = 30;
/// How often it is looked at; small against what it may take.
const LOOK_AGAIN: Duration = Duration::from_micros(500);
/// The definitions at the end, which meet all the others.
const LAST: usize = 50;

pub(super) async fn crds(world: World) -> Measured {
    let mut measured = Vec::new();
    for count in [world.sizes().definitions_first, world.sizes().definitions_second] {
        measured.extend(definitions(&world, count).await?);
    }
    Ok(measured)
}

async fn definitions(world: &World, count: usize) -> Measured {
    let folder = Folder::new()?;
    let server = world.start(&folder, 1).await?;
    create_namespace(&server, NAMESPACE).await?;
    let mut connection = server.endpoint.connect().await?;
    // What the first definition and the first reader of documents cost is not what one more costs.
    define(&mut connection, &Definition::new(count)).await?;
    read_documents(&mut connection).await?;
    let before = server.resident()?;
    let cpu_before = server.cpu()?;

    let mut times = Vec::new();
    for number in 0..count {
        times.push(define(&mut connection, &Definition::new(number)).await?);
    }
    let cpu = (server.cpu()? - cpu_before).as_secs_f64() * 1e3 / count as f64;
    let schema = Definition::new(0).schema_bytes() as f64 / KIB;
    let defined = server.resident()?;
    let document_bytes = read_documents(&mut connection).await?;
    let after = server.resident()?;
    let mut measured = vec![
        served(format!("create to served, {count} definitions"), &times)
            .note(format!("{}, server CPU {cpu:.2} ms each, schemas of {schema:.1} KiB", spread(&times))),
        served(format!("the last {LAST} of {count}"), &times[count.saturating_sub(LAST)..]),
    ];
    let each = |bytes: u64| bytes as f64 / KIB / count as f64;
    let note = format!(
        "{:.0} MiB in all; {:.1} KiB each before OpenAPI and discovery were read ({:.1} MiB of documents)",
        after as f64 / MIB,
        each(defined.saturating_sub(before)),
        document_bytes as f64 / MIB,
    );
    let what = format!("memory for one of {count} definitions");
    measured.push(
        Measurement::new(what, each(after.saturating_sub(before)), "KiB").note(note).at_most(MEMORY_KIB_MAX),
    );
    measured.push(fill(&server, count, world.sizes().custom_objects).await?);
    measured.push(one_more(&mut connection, count + 1).await?);
    server.stop().await?;
    measured.push(restart(world, &folder, count).await?);
    Ok(measured)
}

/// Creates a definition; the time until its resource answers.
async fn define(connection: &mut Connection, definition: &Definition) -> anyhow::Result<Duration> {
    let started = Instant::now();
    connection.create(DEFINITIONS, definition.body()).await?;
    let path = definition.collection(NAMESPACE);
    while started.elapsed() < Duration::from_secs(SERVED_SECONDS_MAX) {
        match connection.get(&path).await?.status {
            StatusCode::OK => return Ok(started.elapsed()),
            StatusCode::NOT_FOUND => tokio::time::sleep(LOOK_AGAIN).await,
            other => bail!("{path} answered {other}"),
        }
    }
    bail!("{path} is not served after {SERVED_SECONDS_MAX} s")
}

/// Reads what clients read of an API they do not know; how many bytes that is.
async fn read_documents(connection: &mut Connection) -> anyhow::Result<u64> {
    let index = connection.get("/openapi/v3").await?.expect("/openapi/v3", StatusCode::OK)?;
    let index: serde_json::Value = serde_json::from_slice(&index.body).context("reading /openapi/v3")?;
    let documents = index["paths"].as_object().into_iter().flatten();
    let documents = documents.filter_map(|(_, own)| Some(own["serverRelativeURL"].as_str()?.to_owned()));
    let mut bytes = 0;
    for path in documents.chain(["/apis".to_owned(), "/openapi/v2".to_owned()]) {
        bytes += connection.measure(&path).await?;
    }
    Ok(bytes)
}

/// Objects of every definition, spread over all of them at any time.
async fn fill(server: &Server, definitions: usize, each: u64) -> anyhow::Result<Measurement> {
    let paths: std::sync::Arc<[String]> =
        (0..definitions).map(|number| Definition::new(number).collection(NAMESPACE)).collect();
    let until = Until { requests: definitions as u64 * each, elapsed: NO_TIME_LIMIT };
    let rate = load::run(server, FILLING_CONNECTIONS, 0, until, move |mut connection, number| {
        let paths = paths.clone();
        let definition = (number % paths.len() as u64) as usize;
        async move {
            let body = Definition::new(definition).object(&format!("object-{number}"));
            connection.create(&paths[definition], body).await?;
            Ok(connection)
        }
    })
    .await?;
    let what = format!(
        "durable creates of resources of {definitions} definitions, {FILLING_CONNECTIONS} connections"
    );
    let note = format!(
        "{each} objects for each; p99 {:.2} ms, server CPU {:.3} ms each",
        rate.latency(0.99).as_secs_f64() * 1e3,
        rate.cpu_ms()
    );
    Ok(Measurement::new(what, rate.per_second(), "/s").note(note))
}

/// What one more definition costs whoever reads the index of OpenAPI after each change.
async fn one_more(connection: &mut Connection, number: usize) -> anyhow::Result<Measurement> {
    define(connection, &Definition::new(number)).await?;
    let started = Instant::now();
    connection.get("/openapi/v3").await?.expect("/openapi/v3", StatusCode::OK)?;
    let took = started.elapsed().as_secs_f64() * 1e3;
    let what = format!("OpenAPI index after one more than {} definitions", number - 1);
    Ok(Measurement::new(what, took, "ms"))
}

async fn restart(world: &World, folder: &Folder, count: usize) -> anyhow::Result<Measurement> {
    let server = world.start(folder, 1).await?;
    let what = format!("restart with {count} definitions to ready");
    let note = format!("{:.0} MiB resident then", server.resident()? as f64 / MIB);
    let ready = server.ready_after.as_secs_f64();
    server.stop().await?;
    Ok(Measurement::new(what, ready, "s").note(note))
}

/// The 99th percentile, which is to hold.
fn served(what: String, times: &[Duration]) -> Measurement {
    let p99 = at_quantile(&sorted(times), 0.99);
    Measurement::new(format!("{what}, p99"), p99.as_secs_f64() * 1e3, "ms").at_most(SERVED_MS_MAX)
}

fn spread(times: &[Duration]) -> String {
    let times = sorted(times);
    let at = |quantile| at_quantile(&times, quantile).as_secs_f64() * 1e3;
    format!("p50 {:.2} ms, slowest {:.2} ms", at(0.5), at(1.0))
}

fn sorted(times: &[Duration]) -> Vec<Duration> {
    let mut times = times.to_vec();
    times.sort_unstable();
    times
}
