//! What small requests of one user feel of another user's flood.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hyper::StatusCode;
use serde_json::json;
use tokio::sync::Notify;

use super::super::load::{self, Rate, Until};
use super::super::objects;
use super::super::report::Measurement;
use super::super::server::Server;
use super::{Folder, Measured, NO_TIME_LIMIT, World, create_namespace, fill};

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
    /// There is an answer: all of its connections are open, and have asked.
    answered: Notify,
}

impl Flood {
    /// How many were served, and how many refused.
    fn answers(&self) -> (u64, u64) {
        (self.served.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }
}

/// What was measured while the flood was there all the time.
struct Flooded {
    small: Rate,
    /// Lists per second.
    served: f64,
    refused: f64,
}

pub(super) async fn fairness(world: World) -> Measured {
    let folder = Folder::new()?;
    let server = world.start(&folder, 1).await?;
    create_namespace(&server, NAMESPACE).await?;
    allow_everything(&server, &[SMALL_USER, FLOOD_USER]).await?;
    let pods = world.sizes().flood_pods;
    fill(&server, PODS, objects::service_pod("nobody"), "pod", 0..pods).await?;
    let alone = small_requests(&world, &server, "alone", pods).await?;
    let flooded = under_flood(&world, &server, pods).await?;
    server.stop().await?;
    let rows = |what: &str, rate: &Rate| {
        let note = format!("{SMALL_CONNECTIONS} connections, {:.0}/s", rate.per_second());
        [("p50", 0.5), ("p99", 0.99), ("slowest", 1.0)].map(|(name, quantile)| {
            let milliseconds = rate.latency(quantile).as_secs_f64() * 1e3;
            Measurement::new(format!("GETs and creates {what}, {name}"), milliseconds, "ms")
                .note(note.as_str())
        })
    };
    let mut measured = Vec::from(rows("of one user alone", &alone));
    measured.extend(rows("while another floods", &flooded.small));
    measured.push(
        Measurement::new(format!("LISTs of {pods} pods that the flood gets"), flooded.served, "/s")
            .note(format!("{} connections", world.sizes().flood_connections)),
    );
    let what = "LISTs of the flood refused with 429 and Retry-After";
    measured.push(Measurement::new(what, flooded.refused, "/s"));
    Ok(measured)
}

/// Measures small requests from the flood's first answer on. The flood ends after the last of them is answered.
async fn under_flood(world: &World, server: &Server, pods: u64) -> anyhow::Result<Flooded> {
    let flood = Arc::new(Flood::default());
    let measuring = async {
        flood.answered.notified().await;
        let (before, began) = (flood.answers(), Instant::now());
        let small = small_requests(world, server, "flooded", pods).await?;
        let (after, seconds) = (flood.answers(), began.elapsed().as_secs_f64());
        let rate = |before: u64, after: u64| (after - before) as f64 / seconds;
        anyhow::Ok(Flooded { small, served: rate(before.0, after.0), refused: rate(before.1, after.1) })
    };
    tokio::select! {
        measured = measuring => measured,
        ended = lists(server, world.sizes().flood_connections, flood.clone()) => {
            ended.context("flooding")?;
            bail!("the flood ended before what is measured under it")
        }
    }
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

/// As many lists as it goes, by a client that comes back when it is told to, as client-go does. Ends when it is dropped.
async fn lists(server: &Server, connections: usize, flood: Arc<Flood>) -> anyhow::Result<Rate> {
    let until = Until { requests: u64::MAX, elapsed: NO_TIME_LIMIT };
    load::run(server, connections, 0, until, move |connection, _| {
        let flood = flood.clone();
        async move {
            let mut connection = connection.acting_as(FLOOD_USER);
            let answer = connection.drain(PODS).await?;
            flood.answered.notify_one();
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
