//! Rates of single requests.

use anyhow::Context;
use hyper::{Method, StatusCode};

use super::super::connection::{JSON, PROTOBUF};
use super::super::load::{self, Rate};
use super::super::objects::{self, Template};
use super::super::report::Measurement;
use super::super::server::Server;
use super::{Folder, Measured, World, create_namespace, fill};

const NAMESPACE: &str = "bench";
const PODS: &str = "/api/v1/namespaces/bench/pods";
const CONFIG_MAPS: &str = "/api/v1/namespaces/bench/configmaps";
const CONNECTIONS: [usize; 3] = [1, 16, 64];
/// A scheduler that does not exist: these pods stay where they are, so that only the API is measured.
const NOBODY: &str = "nobody";
/// Pods that GETs and patches choose from.
const CHOICE: u64 = 1_000;

pub(super) async fn config_map_creates(world: World) -> Measured {
    creates(&world, "ConfigMap", CONFIG_MAPS, objects::config_map(), None).await
}

pub(super) async fn pod_creates(world: World) -> Measured {
    creates(&world, "pod", PODS, objects::service_pod(NOBODY), Some(5_000.0)).await
}

/// `target` is for the most connections.
async fn creates(
    world: &World,
    kind: &str,
    collection: &'static str,
    template: Template,
    target: Option<f64>,
) -> Measured {
    let folder = Folder::new()?;
    let server = world.start(&folder, 1).await?;
    create_namespace(&server, NAMESPACE).await?;
    let mut measured = Vec::new();
    let mut stored_bytes = 0;
    for connections in CONNECTIONS {
        let name_of = move |number: u64| format!("c{connections}-{number}");
        let sender = template.clone();
        let rate = load::run(&server, connections, 0, world.until(), move |mut connection, number| {
            let body = sender.named(&name_of(number));
            async move {
                connection.create(collection, body).await?;
                Ok(connection)
            }
        })
        .await?;
        if stored_bytes == 0 {
            let first = server.endpoint.connect().await?.get(&format!("{collection}/{}", name_of(0))).await?;
            stored_bytes = first.body.len();
        }
        let note = format!("{}, {stored_bytes} bytes as stored", note_of(&rate));
        let what = format!("durable {kind} creates, {}", counted(connections));
        let measurement = Measurement::new(what, rate.per_second(), "/s").note(note);
        measured.push(match target {
            Some(target) if connections == CONNECTIONS[2] => measurement.at_least(target),
            _ => measurement,
        });
    }
    server.stop().await?;
    Ok(measured)
}

pub(super) async fn gets(world: World) -> Measured {
    let folder = Folder::new()?;
    let server = with_pods(&world, &folder).await?;
    let mut measured = Vec::new();
    for (connections, form, accept) in
        [(16, "JSON", JSON), (64, "JSON", JSON), (16, "protobuf", PROTOBUF), (64, "protobuf", PROTOBUF)]
    {
        let rate = load::run(&server, connections, 0, world.until(), move |connection, number| async move {
            let path = format!("{PODS}/pod-{}", number % CHOICE);
            let mut connection = connection.accepting(accept);
            connection.get(&path).await?.expect(&path, StatusCode::OK)?;
            Ok(connection)
        })
        .await?;
        let what = format!("GETs of a pod as {form}, {}", counted(connections));
        measured.push(Measurement::new(what, rate.per_second(), "/s").note(note_of(&rate)));
    }
    server.stop().await?;
    Ok(measured)
}

pub(super) async fn status_patches(world: World) -> Measured {
    let folder = Folder::new()?;
    let server = with_pods(&world, &folder).await?;
    let connections = 64;
    let rate = load::run(&server, connections, 0, world.until(), |mut connection, number| async move {
        let path = format!("{PODS}/pod-{}/status", number % CHOICE);
        let body = objects::status_patch(number);
        let content_type = "application/strategic-merge-patch+json";
        connection.call(Method::PATCH, &path, content_type, body).await?.expect(&path, StatusCode::OK)?;
        Ok(connection)
    })
    .await?;
    server.stop().await?;
    let what = format!("pod status patches (strategic), {}", counted(connections));
    Ok(vec![Measurement::new(what, rate.per_second(), "/s").note(note_of(&rate))])
}

async fn with_pods(world: &World, folder: &Folder) -> anyhow::Result<Server> {
    let server = world.start(folder, 1).await?;
    create_namespace(&server, NAMESPACE).await?;
    fill(&server, PODS, objects::service_pod(NOBODY), "pod", 0..CHOICE).await.context("creating pods")?;
    Ok(server)
}

fn counted(connections: usize) -> String {
    if connections == 1 { "1 connection".to_owned() } else { format!("{connections} connections") }
}

fn note_of(rate: &Rate) -> String {
    format!(
        "p50 {:.2} ms, p99 {:.2} ms, server CPU {:.3} ms each",
        rate.latency(0.5).as_secs_f64() * 1e3,
        rate.latency(0.99).as_secs_f64() * 1e3,
        rate.cpu_ms()
    )
}
