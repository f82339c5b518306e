//! `pintle up`.

use std::io::IsTerminal;

use anyhow::Context;
use controllers::node_ipam::ClusterCidr;

use crate::apply;
use crate::cli::UpArguments;
use crate::joining::invitation::Settings;
use crate::kubeconfig::FILE_NAME;
use crate::manifest;
use crate::platform::{Config, Platform};
use crate::stop::{StopSignals, in_foreground};

/// Under which names of Services are.
const CLUSTER_DOMAIN: &str = "cluster.local";

pub fn run(arguments: UpArguments) -> anyhow::Result<()> {
    // Before anything is started: a malformed manifest leaves nothing half done.
    let manifests = manifest::read_all(&arguments.apply)?;
    apply::check_kinds(&manifests, &arguments.apis.options())?;
    in_foreground(serve(arguments, manifests))
}

async fn serve(arguments: UpArguments, manifests: Vec<manifest::Manifest>) -> anyhow::Result<()> {
    let started = rt::instant();
    let mut stop = StopSignals::listen()?;
    let kubeconfig = arguments.kubeconfig.clone().unwrap_or_else(|| arguments.data_dir.join(FILE_NAME));
    let server = arguments.server_options()?;
    let network = arguments.network.parse()?;
    let cluster_cidrs = ClusterCidr::parse_list(&arguments.network.cluster_cidr).context("--cluster-cidr")?;
    let mut nodes = arguments.node.nodes(&arguments.data_dir)?;
    let settings = Settings {
        cluster_domain: CLUSTER_DOMAIN.to_owned(),
        cluster_dns: network.dns().into_iter().collect(),
        cluster_cidrs: arguments.network.cluster_cidr.split(',').map(|text| text.trim().to_owned()).collect(),
    };
    if let Some(node) = &mut nodes.real {
        node.take_over(settings.clone());
    }
    let config = Config {
        data_dir: arguments.data_dir,
        listen: arguments.listen,
        advertise_address: arguments.advertise_address,
        tls_san: arguments.tls_san,
        settings,
        kubeconfig,
        sim_nodes: nodes.simulated,
        node: nodes.real,
        cluster_cidrs,
        network,
        signing_duration: arguments.controllers.cluster_signing_duration,
        autoscaler: arguments.controllers.autoscaler(),
        controllers: arguments.controllers.controllers,
        scheduler: arguments.scheduler.options()?,
        kubelet_insecure_tls: arguments.kubelets.kubelet_insecure_tls,
        server,
    };
    let platform = tokio::select! {
        platform = Platform::start(&config) => platform?,
        () = stop.received() => return Ok(()),
    };
    tokio::select! {
        () = platform.ready() => {}
        () = stop.received() => return platform.stop().await,
    }
    announce(&platform, &config, started.elapsed());
    if let Some(excuse) = nodes.excuse {
        println!("  {excuse}, so that no container runs here; --sim-nodes N asks for simulated nodes");
    }
    let outcome = tokio::select! {
        outcome = apply::run(&platform, manifests) => outcome,
        () = stop.received() => return platform.stop().await,
    };
    if let Err(error) = outcome {
        platform.stop().await?;
        return Err(error);
    }
    stop.received().await;
    if std::io::stdout().is_terminal() {
        println!("\nStopping");
    }
    platform.stop().await
}

fn announce(platform: &Platform, config: &Config, elapsed: std::time::Duration) {
    let verb = if platform.continued { "continues" } else { "is ready" };
    let simulated = match config.sim_nodes {
        0 => None,
        1 => Some("1 simulated node (pods become ready, no container runs)".to_owned()),
        count => Some(format!("{count} simulated nodes (pods become ready, no container runs)")),
    };
    let real = config.node.as_ref().map(|node| format!("node {} (this machine)", node.name));
    let nodes: Vec<String> = real.into_iter().chain(simulated).collect();
    let nodes = if nodes.is_empty() { "no nodes".to_owned() } else { nodes.join(" and ") };
    println!(
        "Cluster {verb} at https://{} after {:.2} s, with {nodes}",
        platform.address,
        elapsed.as_secs_f64()
    );
    let kubeconfig = config.kubeconfig.canonicalize_utf8().unwrap_or_else(|_| config.kubeconfig.clone());
    println!("  export KUBECONFIG={kubeconfig}");
}
