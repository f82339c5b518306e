//! This machine as a node, whether beside the API server or joined to one elsewhere.

use std::net::IpAddr;

use anyhow::{Context, bail};
use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;

use super::eviction::EvictionArguments;
use super::label::{Taint, parse_label, parse_taint};
use crate::node::{CniFolders, Config, Cri, KUBELET_PORT, NetworkPlugin};

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

    /// What connects this machine's pods: pintle's own network, or CNI plugins as they are configured here
    #[arg(long, value_name = "PLUGIN", value_enum, default_value_t = NetworkPlugin::Pintle)]
    network_plugin: NetworkPlugin,

    /// Where the configurations of CNI networks are, of which the first is used [default: /etc/cni/net.d]; with
    /// --container-runtime-endpoint where that runtime looks for them, and this node's is written there
    #[arg(long, value_name = "DIR")]
    cni_conf_dir: Option<Utf8PathBuf>,

    /// Where CNI plugins are [default: /opt/cni/bin]; with --container-runtime-endpoint where that runtime looks for them,
    /// and this node's is put into the first
    #[arg(long, value_name = "DIR,...", value_delimiter = ',')]
    cni_bin_dir: Vec<Utf8PathBuf>,

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
        config.network_plugin = self.network_plugin;
        config.cni = self.cni()?;
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
        })
    }

    fn cni(&self) -> anyhow::Result<CniFolders> {
        let why_not = match (self.network_plugin, &self.container_runtime_endpoint) {
            (NetworkPlugin::Pintle, None) => {
                Some("it is for --network-plugin=cni and for --container-runtime-endpoint")
            }
            (NetworkPlugin::Cni, Some(_)) => {
                Some("the runtime of --container-runtime-endpoint finds its CNI plugins by itself")
            }
            _ => None,
        };
        let flags = [
            ("--cni-conf-dir", self.cni_conf_dir.is_some()),
            ("--cni-bin-dir", !self.cni_bin_dir.is_empty()),
        ];
        if let (Some(why), Some((flag, _))) = (why_not, flags.iter().find(|(_, is_given)| *is_given)) {
            bail!("{flag}: {why}");
        }
        let mut folders = CniFolders::default();
        if let Some(given) = &self.cni_conf_dir {
            folders.configurations = camino::absolute_utf8(given).context("--cni-conf-dir")?;
        }
        if !self.cni_bin_dir.is_empty() {
            let absolute = self.cni_bin_dir.iter().map(camino::absolute_utf8).collect::<Result<_, _>>();
            folders.programs = absolute.context("--cni-bin-dir")?;
        }
        Ok(folders)
    }
}
