//! What `pintle sim` is told.

use apimachinery::quantity::Quantity;
use apimachinery::{Selector, dns};
use camino::Utf8PathBuf;
use clap::{Args, Subcommand};

use super::label::{Taint, parse_label, parse_taint};

const AFTER_NODES: &str = "\
What exists stays as it is, so that the same command goes on where an earlier one ended.

Examples:
  pintle sim nodes --count 5000 --cpu 32 --memory 256Gi --gpu 8 --zones 3
  pintle sim nodes --count 10 --prefix spot --labels pool=spot --taints spot=true:NoSchedule
  pintle sim nodes --count 10 --template node.yaml";

const AFTER_PODS: &str = "\
What exists stays as it is, so that the same command goes on where an earlier one ended.

Examples:
  pintle sim pods --count 10000 --cpu 100m --memory 128Mi
  pintle sim pods --count 500 --namespace load --deployment web
  pintle sim pods --count 100 --template pod.yaml";

const AFTER_DELETE: &str = "\
Examples:
  pintle sim delete nodes --prefix sim
  pintle sim delete pods --namespace load --selector app=web";

#[derive(Subcommand)]
pub enum SimCommand {
    /// Make simulated nodes
    #[command(after_help = AFTER_NODES)]
    Nodes(NodeArguments),
    /// Make pods, or a Deployment of them
    #[command(after_help = AFTER_PODS)]
    Pods(PodArguments),
    /// Remove simulated nodes, or pods
    #[command(subcommand, after_help = AFTER_DELETE)]
    Delete(SimTarget),
}

#[derive(Subcommand)]
pub enum SimTarget {
    /// Remove simulated nodes; others stay, whatever they are called
    Nodes(DeleteArguments),
    /// Remove pods of a namespace
    Pods {
        #[command(flatten)]
        arguments: DeleteArguments,

        /// Their namespace
        #[arg(long, short, value_name = "NAME", default_value = "default")]
        namespace: String,
    },
}

/// Which cluster.
#[derive(Args)]
pub struct ClusterArguments {
    /// The cluster's kubeconfig [default: $KUBECONFIG, or that of the cluster in the default data directory, or
    /// ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<Utf8PathBuf>,
}

#[derive(Args)]
pub struct NodeArguments {
    #[command(flatten)]
    pub cluster: ClusterArguments,

    /// How many there shall be
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub count: u64,

    /// They are called PREFIX-0, PREFIX-1, …
    #[arg(long, default_value = "sim", value_parser = parse_prefix)]
    pub prefix: String,

    /// CPU of each, such as 32 or 500m [default: 32, or what the template says]
    #[arg(long, value_name = "QUANTITY", value_parser = parse_quantity)]
    pub cpu: Option<String>,

    /// Memory of each [default: 256Gi, or what the template says]
    #[arg(long, value_name = "QUANTITY", value_parser = parse_quantity)]
    pub memory: Option<String>,

    /// Pods that fit on each [default: 110, or what the template says]
    #[arg(long, value_name = "N")]
    pub pods: Option<u32>,

    /// GPUs of each
    #[arg(long, value_name = "N")]
    pub gpu: Option<u32>,

    /// What GPUs are called as a resource
    #[arg(long, value_name = "RESOURCE", default_value = "nvidia.com/gpu", requires = "gpu")]
    pub gpu_resource: String,

    /// Zones that they are spread over, one after the other; 0 for none
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub zones: u64,

    /// Labels of each
    #[arg(long, value_name = "KEY=VALUE,…", value_delimiter = ',', value_parser = parse_label)]
    pub labels: Vec<(String, String)>,

    /// Taints of each
    #[arg(long, value_name = "KEY[=VALUE]:EFFECT,…", value_delimiter = ',', value_parser = parse_taint)]
    pub taints: Vec<Taint>,

    /// A Node to begin with, as YAML or JSON; other flags come on top of it
    #[arg(long, value_name = "FILE")]
    pub template: Option<Utf8PathBuf>,
}

#[derive(Args)]
pub struct PodArguments {
    #[command(flatten)]
    pub cluster: ClusterArguments,

    /// How many there shall be
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub count: u64,

    /// They are called PREFIX-0, PREFIX-1, …
    #[arg(long, default_value = "sim", value_parser = parse_prefix)]
    pub prefix: String,

    /// Their namespace; it is made if it is not there
    #[arg(long, short, value_name = "NAME", default_value = "default", value_parser = parse_prefix)]
    pub namespace: String,

    /// CPU that each asks for
    #[arg(long, value_name = "QUANTITY", value_parser = parse_quantity)]
    pub cpu: Option<String>,

    /// Memory that each asks for
    #[arg(long, value_name = "QUANTITY", value_parser = parse_quantity)]
    pub memory: Option<String>,

    /// GPUs that each asks for
    #[arg(long, value_name = "N")]
    pub gpu: Option<u32>,

    /// What GPUs are called as a resource
    #[arg(long, value_name = "RESOURCE", default_value = "nvidia.com/gpu", requires = "gpu")]
    pub gpu_resource: String,

    /// Labels of each
    #[arg(long, value_name = "KEY=VALUE,…", value_delimiter = ',', value_parser = parse_label)]
    pub labels: Vec<(String, String)>,

    /// A Deployment of this name keeps them, with COUNT replicas
    #[arg(long, value_name = "NAME", value_parser = parse_prefix)]
    pub deployment: Option<String>,

    /// A Pod to begin with, as YAML or JSON; other flags come on top of it
    #[arg(long, value_name = "FILE")]
    pub template: Option<Utf8PathBuf>,
}

#[derive(Args)]
pub struct DeleteArguments {
    #[command(flatten)]
    pub cluster: ClusterArguments,

    /// Those called PREFIX-0, PREFIX-1, …
    #[arg(long, required_unless_present = "selector", value_parser = parse_prefix)]
    pub prefix: Option<String>,

    /// Those whose labels match
    #[arg(long, short = 'l', value_name = "SELECTOR", value_parser = parse_selector)]
    pub selector: Option<String>,
}

fn parse_quantity(text: &str) -> Result<String, String> {
    match Quantity::parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("it is no quantity such as 4, 500m or 256Gi".to_owned()),
    }
}

fn parse_prefix(text: &str) -> Result<String, String> {
    match dns::dns1123_label(text).into_iter().next() {
        Some(problem) => Err(problem.to_string()),
        None => Ok(text.to_owned()),
    }
}

fn parse_selector(text: &str) -> Result<String, String> {
    Selector::parse(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}
