//! The scenarios, each in a world of its own: a new data directory, a new server.

mod applies;
mod definitions;
mod fairness;
mod lifecycle;
mod lists;
mod policies;
mod requests;
mod start;
mod watch;

use anyhow::Context;
use camino::{Utf8Path, Utf8PathBuf};
use tempfile::TempDir;

pub(super) use lifecycle::delete_namespace;

use super::connection::Connection;
use super::load::{self, Until};
use super::objects::{self, Template};
use super::report::{MIB, Measurement};
use super::server::Server;
use super::suite::{Measured, Scenario, World};

macro_rules! scenario {
    ($name:literal, $function:path, $about:literal) => {
        Scenario {
            name: $name.to_owned(),
            about: $about.to_owned(),
            run: Box::new(|world| Box::pin($function(world))),
        }
    };
}

/// Every scenario, in the order they run.
pub(super) fn all() -> Vec<Scenario> {
    vec![
        scenario!("start", start::start, "start to ready, cold and warm"),
        scenario!("idle", start::idle, "resident memory of an idle server after 60 s"),
        scenario!(
            "configmap-creates",
            requests::config_map_creates,
            "durable ConfigMap creates/s on 1, 16, 64 connections"
        ),
        scenario!("pod-creates", requests::pod_creates, "durable pod creates/s on 1, 16, 64 connections"),
        scenario!(
            "policies",
            policies::policies,
            "server CPU of a ConfigMap create without and with 20 CEL policies"
        ),
        scenario!(
            "fairness",
            fairness::fairness,
            "small requests of one user while another floods the server with LISTs"
        ),
        scenario!(
            "applies",
            applies::deployments,
            "server CPU of a server-side apply of a Deployment of 4 KiB"
        ),
        scenario!(
            "gets",
            requests::gets,
            "GETs of a pod per second on 16 and 64 connections, as JSON and protobuf"
        ),
        scenario!("status-patches", requests::status_patches, "strategic patches of pod status per second"),
        scenario!(
            "lists",
            lists::lists,
            "LIST of 10,000 and 100,000 pods; memory against JSON; restart with 50,000"
        ),
        scenario!(
            "crds",
            definitions::crds,
            "300 and 1,000 CustomResourceDefinitions: how soon each is served, memory for each"
        ),
        scenario!("applied-memory", applies::memory, "memory of 100,000 applied pods against their JSON"),
        scenario!("watch", watch::watch, "delay of events to 100 watchers"),
        scenario!("running", lifecycle::running, "create to Running of 10,000 pods on 100 simulated nodes"),
        scenario!("deployment", lifecycle::deployment, "a Deployment of 1,000 replicas"),
        scenario!("namespace", lifecycle::namespace, "deletion of namespaces with 1,000 and 2,000 objects"),
    ]
}

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// Seconds of each request load.
    pub(super) load_seconds: u64,
    pub(super) idle_seconds: u64,
    pub(super) starts: usize,
    /// Pods in the first and second list, and at the restart between them.
    pub(super) list_first: u64,
    pub(super) list_restart: u64,
    pub(super) list_second: u64,
    /// CustomResourceDefinitions in the first and second world, and objects of each.
    pub(super) definitions_first: usize,
    pub(super) definitions_second: usize,
    pub(super) custom_objects: u64,
    /// Pods in each list of a flood, and connections that ask for one.
    pub(super) flood_pods: u64,
    pub(super) flood_connections: usize,
    pub(super) watchers: usize,
    pub(super) watched_writes: u64,
    pub(super) running_pods: u64,
    pub(super) running_nodes: u32,
    pub(super) replicas: u32,
    pub(super) namespace_config_maps: u64,
    pub(super) namespace_pods: u64,
}

impl Sizes {
    pub(super) fn new(smoke: bool) -> Self {
        if smoke { Self::SMOKE } else { Self::FULL }
    }

    const FULL: Self = Self {
        load_seconds: 5,
        idle_seconds: 60,
        starts: 5,
        list_first: 10_000,
        list_restart: 50_000,
        list_second: 100_000,
        definitions_first: 300,
        definitions_second: 1_000,
        custom_objects: 10,
        flood_pods: 10_000,
        flood_connections: 400,
        watchers: 100,
        watched_writes: 500,
        running_pods: 10_000,
        running_nodes: 100,
        replicas: 1_000,
        namespace_config_maps: 1_000,
        namespace_pods: 2_000,
    };

    const SMOKE: Self = Self {
        load_seconds: 1,
        idle_seconds: 1,
        starts: 2,
        list_first: 100,
        list_restart: 200,
        list_second: 300,
        definitions_first: 5,
        definitions_second: 12,
        custom_objects: 2,
        flood_pods: 50,
        flood_connections: 10,
        watchers: 10,
        watched_writes: 20,
        running_pods: 50,
        running_nodes: 3,
        replicas: 20,
        namespace_config_maps: 50,
        namespace_pods: 20,
    };
}

/// A data directory that goes with the scenario.
pub(super) struct Folder {
    _temporary: TempDir,
    data: Utf8PathBuf,
}

impl Folder {
    pub(super) fn new() -> anyhow::Result<Self> {
        let temporary =
            tempfile::Builder::new().prefix("pintle-bench").tempdir().context("making a data directory")?;
        let path =
            Utf8Path::from_path(temporary.path()).context("the temporary folder's name is not UTF-8")?;
        Ok(Self { data: path.join("data"), _temporary: temporary })
    }

    /// What a server on it says.
    pub(super) fn log(&self) -> Utf8PathBuf {
        super::server::log_of(&self.data)
    }

    /// A file that is not the server's own.
    pub(super) fn beside(&self, name: &str) -> Utf8PathBuf {
        self.data.with_file_name(name)
    }
}

impl World {
    fn sizes(&self) -> Sizes {
        Sizes::new(self.smoke)
    }

    pub(super) async fn start(&self, folder: &Folder, sim_nodes: u32) -> anyhow::Result<Server> {
        self.start_with(folder, sim_nodes, &[]).await
    }

    pub(super) async fn start_with(
        &self,
        folder: &Folder,
        sim_nodes: u32,
        flags: &[&str],
    ) -> anyhow::Result<Server> {
        Server::start(&self.binary, &folder.data, sim_nodes, flags).await
    }

    fn until(&self) -> Until {
        Until { requests: u64::MAX, elapsed: std::time::Duration::from_secs(self.sizes().load_seconds) }
    }
}

/// Connections for filling a server with objects: enough to share syncs well.
const FILLING_CONNECTIONS: usize = 64;
/// A load by number has no end in time.
const NO_TIME_LIMIT: std::time::Duration = std::time::Duration::from_secs(3600);

pub(super) async fn create_namespace(server: &Server, name: &str) -> anyhow::Result<()> {
    let mut connection = server.endpoint.connect().await?;
    connection.create("/api/v1/namespaces", objects::namespace(name)).await?;
    wait_for_default_account(&mut connection, name).await
}

/// Pods are refused until the namespace's default service account is there. A controller makes it within
/// milliseconds, so looking again is enough here.
async fn wait_for_default_account(connection: &mut Connection, namespace: &str) -> anyhow::Result<()> {
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/default");
    for _ in 0..5_000 {
        if connection.get(&path).await?.status.is_success() {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    anyhow::bail!("namespace {namespace} got no default service account within 5 s")
}

/// Creates objects of a template, named `{prefix}-{number}`, as fast as it goes.
pub(super) async fn fill(
    server: &Server,
    collection: &str,
    template: Template,
    prefix: &'static str,
    numbers: std::ops::Range<u64>,
) -> anyhow::Result<load::Rate> {
    let collection: std::sync::Arc<str> = collection.into();
    let until = Until { requests: numbers.end - numbers.start, elapsed: NO_TIME_LIMIT };
    load::run(server, FILLING_CONNECTIONS, numbers.start, until, move |mut connection, number| {
        let (collection, template) = (collection.clone(), template.clone());
        async move {
            connection.create(&collection, template.named(&format!("{prefix}-{number}"))).await?;
            Ok(connection)
        }
    })
    .await
}

/// The row about memory that a server took for the pods it was filled with, against the length of their JSON.
fn memory_row(what: String, before: u64, after: u64, json_bytes: u64, filling: &load::Rate) -> Measurement {
    let ratio = after.saturating_sub(before) as f64 / json_bytes as f64;
    let note = format!(
        "{:.0} MiB of JSON, {:.0} MiB resident ({:.0} MiB of them before the pods); filled at {:.0}/s",
        json_bytes as f64 / MIB,
        after as f64 / MIB,
        before as f64 / MIB,
        filling.per_second(),
    );
    Measurement::new(what, ratio, "×").note(note)
}
