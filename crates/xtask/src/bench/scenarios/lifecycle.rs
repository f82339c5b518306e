//! Whole ways of objects through controllers, scheduler and simulated nodes.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use hyper::Method;
use serde::Deserialize;

use super::super::connection::Lines;
use super::super::objects;
use super::super::report::Measurement;
use super::super::server::Server;
use super::{Folder, Measured, World, create_namespace, fill};

const NAMESPACE: &str = "bench";
const PODS: &str = "/api/v1/namespaces/bench/pods";
/// Nothing measured here may take longer.
const PATIENCE: Duration = Duration::from_secs(300);

#[derive(Deserialize)]
struct Event {
    r#type: String,
    object: Watched,
}

#[derive(Deserialize)]
struct Watched {
    metadata: Metadata,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    phase: String,
    ready_replicas: u64,
}

/// From the first create to the last pod seen Running by a watcher.
pub(super) async fn running(world: World) -> Measured {
    let folder = Folder::new()?;
    let (pods, nodes) = (world.sizes().running_pods, world.sizes().running_nodes);
    let server = world.start(&folder, nodes).await?;
    create_namespace(&server, NAMESPACE).await?;
    let watching = watch(&server, PODS).await?;
    let cpu_before = server.cpu()?;
    let started = Instant::now();
    let watcher = tokio::spawn(until_running(watching, pods));
    let created = fill(&server, PODS, objects::small_pod(), "pod", 0..pods).await?;
    let all_running = watcher.await.context("the watcher panicked")??;
    let elapsed = all_running.duration_since(started);
    let cpu = server.cpu()? - cpu_before;
    server.stop().await?;
    let note = format!(
        "{:.2} s in all; creating alone took {:.2} s ({:.0}/s); server CPU {:.3} ms a pod",
        elapsed.as_secs_f64(),
        created.elapsed.as_secs_f64(),
        created.per_second(),
        cpu.as_secs_f64() * 1e3 / pods as f64,
    );
    let what = format!("create → Running, {pods} pods on {nodes} simulated nodes");
    Ok(vec![
        Measurement::new(what, pods as f64 / elapsed.as_secs_f64(), "pods/s").note(note).at_least(2_000.0),
    ])
}

/// From creating the Deployment to its last pod existing, and to all of them ready.
pub(super) async fn deployment(world: World) -> Measured {
    let folder = Folder::new()?;
    let replicas = world.sizes().replicas;
    let server = world.start(&folder, world.sizes().running_nodes).await?;
    create_namespace(&server, NAMESPACE).await?;
    let pods = watch(&server, PODS).await?;
    let deployments = watch(&server, "/apis/apps/v1/namespaces/bench/deployments").await?;
    let started = Instant::now();
    let existing = tokio::spawn(until_added(pods, u64::from(replicas)));
    let ready = tokio::spawn(until_ready_replicas(deployments, u64::from(replicas)));
    let mut connection = server.endpoint.connect().await?;
    connection
        .create("/apis/apps/v1/namespaces/bench/deployments", objects::deployment("big", replicas))
        .await?;
    let existing = existing.await.context("the watcher panicked")??.duration_since(started).as_secs_f64();
    let ready = ready.await.context("the watcher panicked")??.duration_since(started).as_secs_f64();
    server.stop().await?;
    Ok(vec![
        Measurement::new(format!("Deployment of {replicas} replicas to {replicas} pods"), existing, "s"),
        Measurement::new(format!("Deployment of {replicas} replicas to all ready"), ready, "s"),
    ])
}

/// From the DELETE of the namespace to its end.
pub(super) async fn namespace(world: World) -> Measured {
    let folder = Folder::new()?;
    let server = world.start(&folder, world.sizes().running_nodes).await?;
    let config_maps = world.sizes().namespace_config_maps;
    create_namespace(&server, "maps").await?;
    fill(&server, "/api/v1/namespaces/maps/configmaps", objects::config_map(), "map", 0..config_maps).await?;
    let maps_gone = delete_namespace(&server, "maps").await?;

    let pods = world.sizes().namespace_pods;
    create_namespace(&server, NAMESPACE).await?;
    let watching = tokio::spawn(until_running(watch(&server, PODS).await?, pods));
    fill(&server, PODS, objects::small_pod(), "pod", 0..pods).await?;
    watching.await.context("the watcher panicked")??;
    let pods_gone = delete_namespace(&server, NAMESPACE).await?;
    server.stop().await?;
    Ok(vec![
        Measurement::new(format!("namespace with {config_maps} ConfigMaps deleted"), maps_gone, "s")
            .at_most(5.0),
        Measurement::new(format!("namespace with {pods} running pods deleted"), pods_gone, "s"),
    ])
}

pub(in super::super) async fn delete_namespace(server: &Server, name: &str) -> anyhow::Result<f64> {
    let selector = format!("&fieldSelector=metadata.name%3D{name}");
    let mut lines = Lines::watch(server.endpoint.connect().await?, "/api/v1/namespaces", &selector).await?;
    let mut connection = server.endpoint.connect().await?;
    let path = format!("/api/v1/namespaces/{name}");
    let started = Instant::now();
    let answer = connection.call(Method::DELETE, &path, "", Bytes::new()).await?;
    if !answer.status.is_success() {
        bail!("DELETE {path} answered {}", answer.status);
    }
    let gone =
        until(&mut lines, |event| event.r#type == "DELETED" && event.object.metadata.name == name).await?;
    Ok(gone.duration_since(started).as_secs_f64())
}

async fn watch(server: &Server, collection: &str) -> anyhow::Result<Lines> {
    Lines::watch(server.endpoint.connect().await?, collection, "").await
}

async fn until_running(mut lines: Lines, pods: u64) -> anyhow::Result<Instant> {
    let mut running = HashSet::new();
    until(&mut lines, |event| {
        if event.object.status.phase == "Running" {
            running.insert(event.object.metadata.name);
        }
        running.len() as u64 >= pods
    })
    .await
}

async fn until_added(mut lines: Lines, pods: u64) -> anyhow::Result<Instant> {
    let mut added = 0;
    until(&mut lines, |event| {
        added += u64::from(event.r#type == "ADDED");
        added >= pods
    })
    .await
}

async fn until_ready_replicas(mut lines: Lines, replicas: u64) -> anyhow::Result<Instant> {
    until(&mut lines, |event| event.object.status.ready_replicas >= replicas).await
}

/// Reads events until one satisfies; the answer is when.
async fn until(lines: &mut Lines, mut satisfied: impl FnMut(Event) -> bool) -> anyhow::Result<Instant> {
    let reading = async {
        while let Some(line) = lines.next().await? {
            let event: Event = serde_json::from_slice(&line).context("reading an event")?;
            if satisfied(event) {
                return Ok(Instant::now());
            }
        }
        bail!("the watch ended too early")
    };
    tokio::time::timeout(PATIENCE, reading).await.context("waited too long for an event")?
}
