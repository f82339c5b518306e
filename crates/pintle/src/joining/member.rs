//! `pintle node`: this machine as a node of a cluster elsewhere.
//!
//! Everything here speaks to the API over one set of connections, under the node's certificate. The network and the
//! volumes of a node have identities of their own, as they have beside the server; the node may act as them.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{anyhow, bail};
use client::Api;
use node::agent::certificates::{Keeper, Purpose, Wanted, is_no_answer};
use pki::{KeyedCertificate, ServerNames, ShownCertificate};
use remote::{Connection, RemoteApi};
use tokio::sync::oneshot;

use super::credentials::Credentials;
use super::invitation::Settings;
use crate::cli::JoinArguments;
use crate::node::{self as own_node, Cluster, Config};
use crate::stop::{StopSignals, in_foreground};

/// Who calls, in logs and audit events of the server.
pub const USER_AGENT: &str = concat!("pintle-node/", env!("CARGO_PKG_VERSION"));

const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// How long parts may take to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

pub fn run(arguments: JoinArguments) -> anyhow::Result<()> {
    in_foreground(async {
        let mut stop = StopSignals::listen()?;
        let shutdown = rt::Shutdown::new();
        let outcome = tokio::select! {
            outcome = serve(arguments, &shutdown) => outcome,
            () = stop.received() => return Ok(()),
        };
        let tasks = outcome?;
        stop.received().await;
        if std::io::stdout().is_terminal() {
            println!("\nStopping; containers go on");
        }
        shutdown.cancel();
        if let Err(parts) = tasks.end_within(STOP_TIMEOUT).await {
            tracing::warn!(?parts, "Parts of the node did not end in time");
        }
        Ok(())
    })
}

/// Joins, if need be, and starts everything; returns once pods can run.
async fn serve(arguments: JoinArguments, shutdown: &rt::Shutdown) -> anyhow::Result<rt::Tasks> {
    let began = rt::instant();
    if arguments.data_dir.join("store").exists() {
        bail!(
            "--data-dir {}: a cluster lives there, whose node is started by `pintle up`; choose another directory",
            arguments.data_dir
        );
    }
    let config = arguments.machine.complete(arguments.machine.detect(&arguments.data_dir)?)?;
    let credentials = Credentials::keep_or_join(&config.root, &config.name, &arguments).await?;
    let connection = Connection::new(&Credentials::client_config(&config.root)?)?;
    let api: Arc<dyn Api> = Arc::new(RemoteApi::over(&connection));
    let settings = read_settings(&*api, &credentials).await?;
    let config = Config {
        cluster_domain: settings.cluster_domain,
        cluster_dns: settings.cluster_dns,
        cluster_cidrs: settings.cluster_cidrs,
        ..config
    };
    let name = config.name.clone();
    let (kept, shown) = serving_certificate(&config, &credentials)?;
    let as_part = |user: &str| -> anyhow::Result<Arc<dyn Api>> {
        Ok(Arc::new(RemoteApi::over(&connection).impersonating(user)?))
    };
    let cluster = Cluster {
        api: api.clone(),
        network: as_part(own_node::NETWORK)?,
        volumes: as_part(own_node::VOLUMES)?,
        clients: pki::ClientVerifier::from_pem(credentials.authority_pem.as_bytes())?,
        certificate: shown.clone(),
    };
    let serving = (kept, shown);
    let mut tasks = keep_certificates(&config, &credentials, &connection, &api, serving, shutdown);
    let (ready, is_ready) = oneshot::channel();
    tasks.extend(own_node::start(config, cluster, ready, shutdown.clone()).await?.tasks);
    is_ready.await.map_err(|_| anyhow!("the node ended before it was ready; the log says why"))?;
    println!("Node {name} of {} is ready after {:.2} s", credentials.server, began.elapsed().as_secs_f64());
    Ok(tasks)
}

/// What the cluster says to its nodes, or said when it could last be asked: what this machine runs without the API goes
/// on. A server that is away when a machine first comes is waited for.
async fn read_settings(api: &dyn Api, credentials: &Credentials) -> anyhow::Result<Settings> {
    let server = credentials.server.as_str();
    let mut pause = RETRY_MIN;
    loop {
        match Settings::read(api).await {
            Ok(settings) => {
                let settings =
                    settings.map_err(|problem| anyhow!("what the cluster says to its nodes: {problem}"))?;
                credentials.keep_settings(&settings)?;
                return Ok(settings);
            }
            Err(status) if is_no_answer(&status) => {
                tracing::warn!(error = %status, server, "The server does not answer");
                if let Some(kept) = credentials.kept_settings()? {
                    return Ok(kept);
                }
                rt::sleep(rt::jittered(pause, 0.5)).await;
                pause = (pause * 2).min(RETRY_MAX);
            }
            Err(status) => {
                return Err(
                    anyhow!(status).context(format!("{server} does not take this machine for its node"))
                );
            }
        }
    }
}

/// The certificate that is kept for the kubelet's API, and what shows it.
fn serving_certificate(
    config: &Config,
    credentials: &Credentials,
) -> anyhow::Result<(Option<KeyedCertificate>, Arc<ShownCertificate>)> {
    let kept = KeyedCertificate::load(&credentials.serving_path())?;
    let kept = kept.filter(|kept| serving(config).is_met_by(kept, SystemTime::from(rt::now())));
    let shown = Arc::new(ShownCertificate::default());
    if let Some(kept) = &kept {
        shown.show(kept)?;
    }
    Ok((kept, shown))
}

fn serving(config: &Config) -> Wanted {
    let named = ServerNames::default().with(&config.name);
    let names = config.addresses.iter().fold(named, |names, address| names.with(&address.to_string()));
    Wanted { purpose: Purpose::Serving, names, ..Wanted::client(&config.name) }
}

fn keep_certificates(
    config: &Config,
    credentials: &Credentials,
    connection: &Connection,
    api: &Arc<dyn Api>,
    (kept, shown): (Option<KeyedCertificate>, Arc<ShownCertificate>),
    shutdown: &rt::Shutdown,
) -> rt::Tasks {
    let (folder, connection) = (config.root.clone(), connection.clone());
    let of_client = Keeper {
        wanted: Wanted::client(&config.name),
        path: credentials.client_path(),
        on_new: Box::new(move |_| {
            let config = Credentials::client_config(&folder).map_err(|error| error.to_string())?;
            connection.replace(&config).map_err(|error| error.to_string())
        }),
    };
    let of_server = Keeper {
        wanted: serving(config),
        path: credentials.serving_path(),
        on_new: Box::new(move |certificate| shown.show(certificate).map_err(|error| error.to_string())),
    };
    let keep = |keeper: Keeper, current: Option<KeyedCertificate>| {
        let (api, shutdown) = (api.clone(), shutdown.clone());
        async move { keeper.run(&*api, current, shutdown).await }
    };
    let mut tasks = rt::Tasks::default();
    tasks.spawn("client certificate", keep(of_client, Some(credentials.client.clone())));
    tasks.spawn("serving certificate", keep(of_server, kept));
    tasks
}
