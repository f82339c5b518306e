//! The suite `sim`: simulated nodes by the thousand, and what controllers do on them.
//!
//! Pods are created over HTTPS by a client on the same machine, and a watch tells which run.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::arrivals::{Arrivals, RUNNING};
use super::connection::{Connection, Lines};
use super::objects;
use super::report::{MIB, Measurement};
use super::scenarios::{Folder, create_namespace, fill};
use super::server::Server;
use super::suite::{Measured, Scenario, World};

const NAMESPACE: &str = "bench";
const PODS: &str = "/api/v1/namespaces/bench/pods";
const CONFIG_MAPS: &str = "/api/v1/namespaces/bench/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/bench/deployments";
const DEPLOYMENT: &str = "big";
/// When for so long nothing happened, nothing will.
const PATIENCE: Duration = Duration::from_secs(60);

/// How much of everything.
struct Sizes {
    nodes: u32,
    pods: u64,
    many_nodes: u32,
    many_pods: u64,
    idle_seconds: u64,
    replicas: u64,
    config_maps: u64,
}

const FULL: Sizes = Sizes {
    nodes: 1_000,
    pods: 20_000,
    many_nodes: 10_000,
    many_pods: 100_000,
    idle_seconds: 60,
    replicas: 10_000,
    config_maps: 100_000,
};

const SMOKE: Sizes = Sizes {
    nodes: 5,
    pods: 50,
    many_nodes: 10,
    many_pods: 100,
    idle_seconds: 1,
    replicas: 20,
    config_maps: 100,
};

impl Sizes {
    /// Large clusters can be asked for in any size.
    fn of(world: &World) -> Self {
        let sizes = if world.smoke { SMOKE } else { FULL };
        Self {
            many_nodes: world.nodes.unwrap_or(sizes.many_nodes),
            many_pods: world.pods.unwrap_or(sizes.many_pods),
            ..sizes
        }
    }
}

pub(super) fn all() -> Vec<Scenario> {
    macro_rules! scenario {
        ($name:literal, $function:path, $about:literal) => {
            Scenario {
                name: $name.to_owned(),
                about: $about.to_owned(),
                run: Box::new(|world| Box::pin($function(world))),
            }
        };
    }
    vec![
        scenario!("running", running, "create to Running of 20,000 pods on 1,000 nodes"),
        scenario!(
            "cluster",
            cluster,
            "10,000 nodes with 100,000 pods, or as --nodes and --pods say: memory, idle CPU, restart"
        ),
        scenario!("scale", scale, "a Deployment from 0 to 10,000 replicas and back"),
        scenario!("rollout", rollout, "a rolling update of 10,000 pods"),
        scenario!("namespace", namespace, "a namespace with 100,000 objects is deleted"),
    ]
}

async fn running(world: World) -> Measured {
    let Sizes { nodes, pods, .. } = Sizes::of(&world);
    let folder = Folder::new()?;
    let server = world.start(&folder, nodes).await?;
    create_namespace(&server, NAMESPACE).await?;
    let cpu_before = server.cpu()?;
    let filled = fill_and_run(&server, pods).await?;
    let cpu = server.cpu()? - cpu_before;
    server.stop().await?;
    let note = format!(
        "{:.2} s in all; created within {:.2} s; server CPU {:.3} ms a pod",
        filled.all.as_secs_f64(),
        filled.created.as_secs_f64(),
        cpu.as_secs_f64() * 1e3 / pods as f64,
    );
    let what = format!("create → Running, {pods} pods on {nodes} simulated nodes");
    let rate = pods as f64 / filled.all.as_secs_f64();
    Ok(vec![Measurement::new(what, rate, "pods/s").note(note).at_least(5_000.0)])
}

async fn cluster(world: World) -> Measured {
    let Sizes { many_nodes: nodes, many_pods: pods, idle_seconds, .. } = Sizes::of(&world);
    let folder = Folder::new()?;
    let server = world.start(&folder, nodes).await?;
    let nodes_ready = server.ready_after.as_secs_f64();
    create_namespace(&server, NAMESPACE).await?;
    let filled = fill_and_run(&server, pods).await?;
    let resident = server.resident()? as f64 / MIB;

    let cpu_before = server.cpu()?;
    tokio::time::sleep(Duration::from_secs(idle_seconds)).await;
    let idle = (server.cpu()? - cpu_before).as_secs_f64() * 100.0 / idle_seconds as f64;
    server.stop().await?;
    let server = world.start(&folder, nodes).await?;
    let (restart, resident_after) = (server.ready_after.as_secs_f64(), server.resident()? as f64 / MIB);
    server.stop().await?;

    let of = format!("{nodes} simulated nodes with {pods} pods");
    let reached = nodes_ready + filled.all.as_secs_f64();
    let note = format!(
        "nodes in {nodes_ready:.1} s, pods Running in {:.1} s ({:.0}/s)",
        filled.all.as_secs_f64(),
        pods as f64 / filled.all.as_secs_f64()
    );
    let idle_note = format!("over {idle_seconds} s, all leases renewed");
    let restart_note = format!("{resident_after:.0} MiB resident then");
    Ok(vec![
        Measurement::new(format!("{of}, reached"), reached, "s").note(note),
        Measurement::new(format!("{of}, memory"), resident, "MiB"),
        Measurement::new(format!("{of}, idle CPU of one core"), idle, "%").note(idle_note).at_most(10.0),
        Measurement::new(format!("{of}, restart to ready"), restart, "s").note(restart_note).at_most(5.0),
    ])
}

async fn scale(world: World) -> Measured {
    let Sizes { nodes, replicas, .. } = Sizes::of(&world);
    let folder = Folder::new()?;
    let server = world.start(&folder, nodes).await?;
    let mut deployment = Deployment::create(&server, 0).await?;
    let up = deployment.scale(replicas).await?;
    let down = deployment.scale(0).await?;
    server.stop().await?;
    Ok(vec![
        Measurement::new(format!("Deployment from 0 to {replicas} replicas, all available"), up, "s"),
        Measurement::new(format!("Deployment from {replicas} replicas to 0, all pods gone"), down, "s"),
    ])
}

async fn rollout(world: World) -> Measured {
    let Sizes { nodes, replicas, .. } = Sizes::of(&world);
    let folder = Folder::new()?;
    let server = world.start(&folder, nodes).await?;
    let mut deployment = Deployment::create(&server, replicas).await?;
    deployment.until_there(replicas).await?;
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "registry.example/bench:2"}]}}}});
    let started = Instant::now();
    deployment.patch(&image).await?;
    deployment.until_there(replicas).await?;
    let elapsed = started.elapsed().as_secs_f64();
    server.stop().await?;
    let note = format!("{:.0} pods/s, 25 % surge and unavailable", replicas as f64 / elapsed);
    Ok(vec![Measurement::new(format!("rolling update of {replicas} pods"), elapsed, "s").note(note)])
}

async fn namespace(world: World) -> Measured {
    let Sizes { config_maps, .. } = Sizes::of(&world);
    let folder = Folder::new()?;
    let server = world.start(&folder, 0).await?;
    create_namespace(&server, NAMESPACE).await?;
    fill(&server, CONFIG_MAPS, objects::config_map(), "map", 0..config_maps).await?;
    let cpu_before = server.cpu()?;
    let elapsed = super::scenarios::delete_namespace(&server, NAMESPACE).await?;
    let cpu = (server.cpu()? - cpu_before).as_secs_f64();
    server.stop().await?;
    let what = format!("namespace with {config_maps} ConfigMaps deleted");
    let note = format!(
        "{:.0}/s; server CPU {:.3} ms each",
        config_maps as f64 / elapsed,
        cpu * 1e3 / config_maps as f64
    );
    Ok(vec![Measurement::new(what, elapsed, "s").note(note)])
}

/// How long it took.
struct Filled {
    created: Duration,
    all: Duration,
}

/// Creates pods and waits until all run.
async fn fill_and_run(server: &Server, pods: u64) -> anyhow::Result<Filled> {
    let mut running = Arrivals::watch(server, PODS, RUNNING).await?;
    let started = Instant::now();
    fill(server, PODS, objects::small_pod(), "pod", 0..pods).await?;
    let created = started.elapsed();
    let reached = running.wait(usize::try_from(pods)?, PATIENCE).await;
    if (reached as u64) < pods {
        bail!("only {reached} of {pods} pods run, and for {} s it was no more", PATIENCE.as_secs());
    }
    let last = running.times(reached - 1).first().map_or(created, |last| last.duration_since(started));
    Ok(Filled { created, all: last })
}

/// A Deployment and what is watched of it.
struct Deployment {
    connection: Connection,
    changes: Lines,
}

impl Deployment {
    async fn create(server: &Server, replicas: u64) -> anyhow::Result<Self> {
        create_namespace(server, NAMESPACE).await?;
        let changes = Lines::watch(server.endpoint.connect().await?, DEPLOYMENTS, "").await?;
        let mut connection = server.endpoint.connect().await?;
        connection.create(DEPLOYMENTS, objects::deployment(DEPLOYMENT, u32::try_from(replicas)?)).await?;
        Ok(Self { connection, changes })
    }

    async fn patch(&mut self, patch: &Value) -> anyhow::Result<()> {
        let path = format!("{DEPLOYMENTS}/{DEPLOYMENT}");
        let body = Bytes::from(patch.to_string());
        let content_type = "application/strategic-merge-patch+json";
        self.connection
            .call(Method::PATCH, &path, content_type, body)
            .await?
            .expect(&path, StatusCode::OK)?;
        Ok(())
    }

    async fn scale(&mut self, replicas: u64) -> anyhow::Result<f64> {
        let started = Instant::now();
        self.patch(&json!({"spec": {"replicas": replicas}})).await?;
        self.until_there(replicas).await?;
        Ok(started.elapsed().as_secs_f64())
    }

    /// Until its status says that so many pods are there, all of the present template and available, and no others.
    async fn until_there(&mut self, replicas: u64) -> anyhow::Result<()> {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.changes.next()).await;
            let line = next.context("nothing happens any more")??.context("the watch ended too early")?;
            let event: Value = serde_json::from_slice(&line).context("reading an event")?;
            let (object, status) = (&event["object"], &event["object"]["status"]);
            let count = |field: &str| status[field].as_u64().unwrap_or_default();
            let is_observed = status["observedGeneration"] == object["metadata"]["generation"];
            let is_wanted = object["spec"]["replicas"].as_u64() == Some(replicas);
            let fields = ["replicas", "updatedReplicas", "availableReplicas"];
            if is_observed && is_wanted && fields.iter().all(|field| count(field) == replicas) {
                return Ok(());
            }
        }
    }
}
