//! The nodes of the cluster that runs in this process.

use std::net::IpAddr;

use anyhow::anyhow;
use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;

use super::eviction::EvictionArguments;
use crate::node::{Config, Cri, KUBELET_PORT};

#[derive(Args)]
pub struct NodeOptions {
    /// Simulated nodes to provide; pods on them get an IP and become ready, but no container runs. This machine is then
    /// no node, unless --node says so
    #[arg(long, value_name = "N", overrides_with = "sim_nodes", value_parser = clap::value_parser!(u32).range(0..=100_000))]
    sim_nodes: Option<u32>,

    /// Whether this machine is a node and runs containers, which needs Linux and root [default: true, and false with
    /// --sim-nodes]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    node: Option<bool>,

    /// The name of this machine as a node [default: its host name]
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,

    /// The address at which others reach this machine [default: that of its default route]
    #[arg(long, value_name = "ADDR")]
    node_ip: Option<IpAddr>,

    /// Where this machine serves logs, exec and the like; port 0 chooses a free one
    #[arg(long, value_name = "PORT", default_value_t = KUBELET_PORT)]
    kubelet_port: u16,

    /// Labels of this machine as a node
    #[arg(long, value_name = "KEY=VALUE,...", value_delimiter = ',')]
    node_labels: Vec<String>,

    /// The container runtime that runs this machine's pods, such as unix:///run/containerd/containerd.sock [default: the
    /// embedded one]
    #[arg(long, value_name = "ENDPOINT")]
    container_runtime_endpoint: Option<String>,

    /// Where that runtime's image service listens [default: the same endpoint]
    #[arg(long, value_name = "ENDPOINT", requires = "container_runtime_endpoint")]
    image_service_endpoint: Option<String>,

    /// Where that runtime reads the configurations of pods' networks; this node's is written there
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/etc/cni/net.d",
        requires = "container_runtime_endpoint"
    )]
    cni_conf_dir: Utf8PathBuf,

    /// Where that runtime finds CNI plugins; this node's is put there
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin", requires = "container_runtime_endpoint")]
    cni_bin_dir: Utf8PathBuf,
    #[command(flatten)]
    eviction: EvictionArguments,
}

/// The nodes that were asked for.
pub struct Nodes {
    pub simulated: u32,
    pub real: Option<Config>,
    /// Why this machine is no node, where nobody said that it should not be.
    pub excuse: Option<String>,
}

impl NodeOptions {
    /// # Errors
    /// Where `--node` is asked for and cannot be had, or a flag says nothing sensible.
    pub fn nodes(&self, data_dir: &Utf8Path, cluster_cidr: &str) -> anyhow::Result<Nodes> {
        let simulated = self.sim_nodes.unwrap_or(0);
        let wanted = self.node.unwrap_or(self.sim_nodes.is_none());
        if !wanted {
            return Ok(Nodes { simulated, real: None, excuse: None });
        }
        let cidrs: Vec<String> = cluster_cidr.split(',').map(|text| text.trim().to_owned()).collect();
        match Config::detect(data_dir, self.node_name.as_deref(), self.node_ip, &cidrs) {
            Ok(mut config) => {
                config.labels = self.labels()?;
                config.kubelet_port = self.kubelet_port;
                config.cri = self.cri();
                config.eviction = self.eviction.eviction()?;
                config.image_collection = self.eviction.image_collection()?;
                Ok(Nodes { simulated, real: Some(config), excuse: None })
            }
            Err(error) if self.node == Some(true) => Err(error.context("--node")),
            // A cluster on which nothing runs is of use to nobody.
            Err(error) => Ok(Nodes { simulated: 1, real: None, excuse: Some(error.to_string()) }),
        }
    }

    fn cri(&self) -> Option<Cri> {
        Some(Cri {
            endpoint: self.container_runtime_endpoint.clone()?,
            image_endpoint: self.image_service_endpoint.clone().filter(|endpoint| !endpoint.is_empty()),
            cni_configurations: self.cni_conf_dir.clone(),
            cni_programs: self.cni_bin_dir.clone(),
        })
    }

    fn labels(&self) -> anyhow::Result<Vec<(String, String)>> {
        let pairs = self.node_labels.iter().map(|text| {
            let pair = text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
            pair.ok_or_else(|| anyhow!("--node-labels {text}: want KEY=VALUE"))
        });
        pairs.collect()
    }
}
