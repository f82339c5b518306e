//! What small requests of one user feel of another user's flood.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use hyper::StatusCode;
use serde_json::json;

use super::super::load::{self, Rate};
use super::super::objects;
use super::super::report::Measurement;
use super::super::server::Server;
use super::{Folder, Measured, World, create_namespace, fill};

const NAMESPACE: &str = "bench";
const PODS: &str = "/api/v1/namespaces/bench/pods";
const CONFIG_MAPS: &str = "/api/v1/namespaces/bench/configmaps";
const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
/// Both come under the FlowSchema `global-default`, each as a flow of its own.
const SMALL_USER: &str = "small";
const FLOOD_USER: &str = "flood";
const SMALL_CONNECTIONS: usize = 4;
/// Every so many small requests one is a create, the others read a pod.
const CREATE_EVERY: u64 = 4;

/// What the flood was answered.
#[derive(Default)]
struct Flood {
    served: AtomicU64,
    refused: AtomicU64,
}

pub(super) async fn fairness(world: World) -> Measured {
    let folder = Folder::new()?;
    let server = world.start(&folder, 1).await?;
    create_namespace(&server, NAMESPACE).await?;
    allow_everything(&server, &[SMALL_USER, FLOOD_USER]).await?;
    let pods = world.sizes.flood_pods;
    fill(&server, PODS, objects::service_pod("nobody"), "pod", 0..pods).await?;
    let alone = small_requests(&world, &server, "alone", pods).await?;
    let flood = Arc::new(Flood::default());
    let (flooded, under_flood) =
        tokio::join!(lists(&world, &server, flood.clone()), small_requests(&world, &server, "flooded", pods));
    let (flooded, under_flood) = (flooded?, under_flood?);
    server.stop().await?;
    let connections = world.sizes.flood_connections;
    let note = format!("{SMALL_CONNECTIONS} connections, {:.0}/s alone", alone.per_second());
    let row = |what: &str, rate: &Rate, quantile: f64| {
        let milliseconds = rate.latency(quantile).as_secs_f64() * 1e3;
        Measurement::new(format!("GETs and creates {what}, p{:.0}", quantile * 100.0), milliseconds, "ms")
    };
    let (served, refused) =
        (flood.served.load(Ordering::Relaxed) as f64, flood.refused.load(Ordering::Relaxed) as f64);
    let seconds = flooded.elapsed.as_secs_f64();
    Ok(vec![
        row("of one user alone", &alone, 0.5).note(note.clone()),
        row("of one user alone", &alone, 0.99).note(note),
        row("while another floods", &under_flood, 0.5).note(format!("{:.0}/s", under_flood.per_second())),
        row("while another floods", &under_flood, 0.99),
        Measurement::new(format!("LISTs of {pods} pods that the flood gets"), served / seconds, "/s")
            .note(format!("{connections} connections")),
        Measurement::new("LISTs of the flood refused with 429 and Retry-After", refused / seconds, "/s"),
    ])
}

async fn allow_everything(server: &Server, users: &[&str]) -> anyhow::Result<()> {
    let subjects: Vec<_> = users
        .iter()
        .map(|user| json!({"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}))
        .collect();
    let role =
        json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"});
    let binding = json!({"metadata": {"name": "bench"}, "roleRef": role, "subjects": subjects});
    server.endpoint.connect().await?.create(BINDINGS, binding.to_string().into()).await?;
    Ok(())
}

async fn small_requests(
    world: &World,
    server: &Server,
    prefix: &'static str,
    pods: u64,
) -> anyhow::Result<Rate> {
    let template = objects::config_map();
    load::run(server, SMALL_CONNECTIONS, 0, world.until(), move |connection, number| {
        let body = template.named(&format!("{prefix}-{number}"));
        async move {
            let mut connection = connection.acting_as(SMALL_USER);
            if number % CREATE_EVERY == 0 {
                connection.create(CONFIG_MAPS, body).await?;
            } else {
                let path = format!("{PODS}/pod-{}", number % pods);
                connection.get(&path).await?.expect(&path, StatusCode::OK)?;
            }
            Ok(connection)
        }
    })
    .await
}

/// As many lists as it goes, by a client that comes back when it is told to, as client-go does.
async fn lists(world: &World, server: &Server, flood: Arc<Flood>) -> anyhow::Result<Rate> {
    load::run(server, world.sizes.flood_connections, 0, world.until(), move |connection, _| {
        let flood = flood.clone();
        async move {
            let mut connection = connection.acting_as(FLOOD_USER);
            let answer = connection.drain(PODS).await?;
            match answer.status {
                StatusCode::OK => _ = flood.served.fetch_add(1, Ordering::Relaxed),
                StatusCode::TOO_MANY_REQUESTS => {
                    flood.refused.fetch_add(1, Ordering::Relaxed);
                    let seconds = answer.retry_after_seconds.context("a 429 without Retry-After")?;
                    tokio::time::sleep(Duration::from_secs(seconds)).await;
                }
                other => bail!("a LIST answered {other}"),
            }
            Ok(connection)
        }
    })
    .await
}
