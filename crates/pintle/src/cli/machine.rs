//! This machine as a node, whether beside the API server or joined to one elsewhere.

use std::net::IpAddr;

use anyhow::Context;
use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;

use super::eviction::EvictionArguments;
use super::label::{Taint, parse_label, parse_taint};
use crate::node::{Config, Cri, KUBELET_PORT};

#[derive(Args)]
pub struct MachineArguments {
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
    #[arg(long, value_name = "KEY=VALUE,...", value_delimiter = ',', value_parser = parse_label)]
    node_labels: Vec<(String, String)>,

    /// Taints that this machine has when it comes into the cluster
    #[arg(long, value_name = "KEY[=VALUE]:EFFECT,...", value_delimiter = ',', value_parser = parse_taint)]
    register_with_taints: Vec<Taint>,

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

    /// A folder of manifests whose pods this machine runs by itself (static pods), or one manifest
    #[arg(long, value_name = "PATH")]
    pod_manifest_path: Option<Utf8PathBuf>,

    #[command(flatten)]
    eviction: EvictionArguments,
}

impl MachineArguments {
    /// # Errors
    /// Says in one line why this process cannot be a node.
    pub fn detect(&self, data_dir: &Utf8Path) -> anyhow::Result<Config> {
        Config::detect(data_dir, self.node_name.as_deref(), self.node_ip)
    }

    /// What the flags say about it.
    ///
    /// # Errors
    /// Where one of them says nothing sensible.
    pub fn complete(&self, mut config: Config) -> anyhow::Result<Config> {
        config.labels = self.node_labels.clone();
        config.taints = self.register_with_taints.clone();
        config.kubelet_port = self.kubelet_port;
        config.cri = self.cri();
        config.manifests = self.manifests()?;
        config.eviction = self.eviction.eviction()?;
        config.image_collection = self.eviction.image_collection()?;
        Ok(config)
    }

    fn manifests(&self) -> anyhow::Result<Option<Utf8PathBuf>> {
        let absolute = self.pod_manifest_path.as_deref().map(camino::absolute_utf8).transpose();
        absolute.context("--pod-manifest-path")
    }

    fn cri(&self) -> Option<Cri> {
        Some(Cri {
            endpoint: self.container_runtime_endpoint.clone()?,
            image_endpoint: self.image_service_endpoint.clone().filter(|endpoint| !endpoint.is_empty()),
            cni_configurations: self.cni_conf_dir.clone(),
            cni_programs: self.cni_bin_dir.clone(),
        })
    }
}
