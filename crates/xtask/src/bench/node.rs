//! The suite `node`: real containers on this machine.
//!
//! Needs root, and makes this machine a node while it runs. What runs in the containers is the program's own image, so
//! that no registry is needed.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use super::connection::Lines;
use super::load::at_quantile;
use super::objects::{HOLE, Template};
use super::report::{MIB, Measurement};
use super::scenarios::{Folder, create_namespace};
use super::server::Server;
use super::suite::{Measured, Scenario, World};
use super::websocket;

const NAMESPACE: &str = "bench";
const PODS: &str = "/api/v1/namespaces/bench/pods";
/// A full disk is not what is measured.
pub(super) const FLAGS: [&str; 7] =
    ["--node=true", "--node-name", "bench", "--kubelet-port", "0", "--eviction-hard", ""];

/// When for so long nothing happened, nothing will. The first pod waits for the image of the program.
const PATIENCE: Duration = Duration::from_secs(120);

/// How many pods, one by one and at once; a node has room for 110.
const FULL: (usize, usize) = (50, 100);
const SMOKE: (usize, usize) = (2, 3);

pub(super) fn all() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "pods".to_owned(),
            about: "create to Ready of real pods, one by one and 100 at once, and what they cost the agent"
                .to_owned(),
            run: Box::new(|world| Box::pin(pods(world))),
        },
        Scenario {
            name: "exec".to_owned(),
            about: "a command in a container, by the API and over WebSocket, there and back".to_owned(),
            run: Box::new(|world| Box::pin(exec(world))),
        },
    ]
}

async fn start(world: &World, folder: &Folder) -> anyhow::Result<Server> {
    let mut flags = FLAGS.to_vec();
    if let Some(endpoint) = &world.container_runtime_endpoint {
        flags.extend(["--container-runtime-endpoint", endpoint]);
    }
    world.start_with(folder, 0, &flags).await
}

async fn pods(world: World) -> Measured {
    let (alone, together) = if world.smoke { SMOKE } else { FULL };
    let folder = Folder::new()?;
    let server = start(&world, &folder).await?;
    create_namespace(&server, NAMESPACE).await?;
    let mut node = Node::watch(&server).await?;
    let outcome = measure(&server, &mut node, alone, together).await;
    // Containers outlive the server: they go first, whatever happened.
    let cleaned = node.delete_all(&server).await;
    let measured = outcome?;
    cleaned?;
    server.stop().await?;
    Ok(measured)
}

/// The command is the program itself, which says its version: there is no other one in its image.
async fn exec(world: World) -> Measured {
    const TIMES: (usize, usize) = (200, 3);
    let times = if world.smoke { TIMES.1 } else { TIMES.0 };
    let folder = Folder::new()?;
    let server = start(&world, &folder).await?;
    create_namespace(&server, NAMESPACE).await?;
    let mut node = Node::watch(&server).await?;
    let outcome = async {
        node.start(&server, ["target".to_owned()].into()).await?;
        let program = world.binary.file_name().context("the binary has no name")?;
        let command = ["/usr/local/bin/", program, "&command=--version"].concat();
        let path = format!("{PODS}/target/exec?container=main&stdout=true&stderr=true&command={command}");
        let mut took = Vec::new();
        for _ in 0..times {
            // As kubectl does: the connection is part of it.
            let started = Instant::now();
            let status = websocket::run(server.endpoint.connect().await?, &path).await?;
            took.push(started.elapsed());
            ensure!(status["status"] == "Success", "the command failed: {status}");
        }
        anyhow::Ok(took)
    }
    .await;
    let cleaned = node.delete_all(&server).await;
    let mut took = outcome?;
    cleaned?;
    server.stop().await?;
    took.sort_unstable();
    let ms = |share| at_quantile(&took, share).as_secs_f64() * 1e3;
    Ok(vec![
        Measurement::new("exec there and back, p50", ms(0.5), "ms").at_most(50.0),
        Measurement::new("exec there and back, p99", ms(0.99), "ms")
            .note(format!("{times} one by one, each on a connection of its own")),
    ])
}

async fn measure(server: &Server, node: &mut Node, alone: usize, together: usize) -> Measured {
    // The image is made, and everything has been used once.
    node.start(server, ["warm".to_owned()].into()).await?;
    let idle = server.resident()?;
    let mut one_by_one = Vec::new();
    for number in 0..alone {
        one_by_one.extend(node.start(server, [format!("alone-{number}")].into()).await?);
    }
    node.delete_all(server).await?;
    let before = server.resident()?;
    let at_once =
        node.start(server, (0..together).map(|number| format!("together-{number}")).collect()).await?;
    let grown = server.resident()?.saturating_sub(before.max(idle)) as f64 / MIB;
    let rows =
        [(format!("{alone} pods one by one"), one_by_one), (format!("{together} pods at once"), at_once)];
    let mut measured = Vec::new();
    for (what, mut times) in rows {
        times.sort_unstable();
        let at = |share| at_quantile(&times, share).as_secs_f64() * 1e3;
        measured.push(Measurement::new(format!("create → Ready, {what}, p50"), at(0.5), "ms").at_most(150.0));
        measured
            .push(Measurement::new(format!("create → Ready, {what}, p99"), at(0.99), "ms").at_most(500.0));
    }
    measured.push(Measurement::new(format!("memory of {together} more pods"), grown, "MiB").at_most(40.0));
    Ok(measured)
}

/// The pods of the node, as a watch tells of them.
struct Node {
    changes: Lines,
    template: Template,
}

impl Node {
    async fn watch(server: &Server) -> anyhow::Result<Self> {
        let changes = Lines::watch(server.endpoint.connect().await?, PODS, "").await?;
        let template = Template::new(&json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": HOLE},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [{
                    "name": "main", "image": "pintle.dev/pintle:bench", "imagePullPolicy": "IfNotPresent",
                    "args": ["demo"], "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}},
                }],
            },
        }));
        Ok(Self { changes, template })
    }

    /// Creates these pods at once and returns how long each took to become ready.
    async fn start(&mut self, server: &Server, names: Vec<String>) -> anyhow::Result<Vec<Duration>> {
        let mut connection = server.endpoint.connect().await?;
        let mut started = HashMap::new();
        for name in names {
            let body = self.template.named(&name);
            started.insert(name, Instant::now());
            connection.create(PODS, body).await?;
        }
        let mut times = Vec::new();
        while !started.is_empty() {
            let event = self.next().await?;
            let pod = &event["object"];
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            if is_ready(pod)
                && let Some(since) = started.remove(name)
            {
                times.push(since.elapsed());
            }
            ensure!(pod["status"]["phase"] != "Failed", "pod {name} failed: {}", pod["status"]);
        }
        Ok(times)
    }

    /// Deletes all pods and waits until they are gone, and with them their containers.
    async fn delete_all(&mut self, server: &Server) -> anyhow::Result<()> {
        let mut connection = server.endpoint.connect().await?;
        let list: Value =
            serde_json::from_slice(&connection.get(PODS).await?.body).context("reading the pods")?;
        let mut left: Vec<String> = Vec::new();
        for pod in list["items"].as_array().into_iter().flatten() {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let path = format!("{PODS}/{name}");
            connection.call(hyper::Method::DELETE, &path, "application/json", bytes::Bytes::new()).await?;
            left.push(name);
        }
        while !left.is_empty() {
            let event = self.next().await?;
            if event["type"] == "DELETED" {
                left.retain(|name| event["object"]["metadata"]["name"] != name.as_str());
            }
        }
        Ok(())
    }

    async fn next(&mut self) -> anyhow::Result<Value> {
        let next = tokio::time::timeout(PATIENCE, self.changes.next()).await;
        let Some(line) = next.context("nothing happens any more")?? else {
            bail!("the watch ended too early")
        };
        serde_json::from_slice(&line).context("reading an event")
    }
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|own| own["type"] == "Ready" && own["status"] == "True")
}
