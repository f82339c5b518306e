//! Flags, and the help a person reads.

mod admission;
mod apis;
mod audit;
mod authentication;
mod authorization;
mod controllers;
mod eviction;
mod image;
mod join;
mod kubelets;
mod label;
mod machine;
mod network;
mod node;
mod requests;
mod scheduler;
mod sim;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use camino::Utf8PathBuf;
use clap::{Args, Parser, Subcommand};

use crate::demo::DemoArguments;

use self::admission::AdmissionArguments;
use self::audit::AuditArguments;
use self::controllers::ControllerArguments;
use self::scheduler::SchedulerArguments;
use apis::ApiArguments;
use authentication::AuthenticationArguments;
use authorization::AuthorizationArguments;
pub use image::{
    BuildArguments, ExportArguments, ImageCommand, ImportArguments, ListArguments, PullArguments,
    RemoveArguments, StoreArguments,
};
pub use join::{JoinArguments, TokenCommand, TokenCreateArguments};
use kubelets::KubeletArguments;
pub use label::Taint;
use network::NetworkArguments;
use node::NodeOptions;
use requests::RequestArguments;
pub use sim::{ClusterArguments, DeleteArguments, NodeArguments, PodArguments, SimCommand, SimTarget};

const AFTER_HELP: &str = "\
Examples:
  pintle up                                   a cluster with this machine as its node, until Ctrl-C
  pintle up --sim-nodes 3 --apply app.yaml    one with three simulated nodes, and an application on it
  export KUBECONFIG=$(pintle kubeconfig)      point kubectl, helm and everything else at it";

/// A Kubernetes you start in a second.
#[derive(Parser)]
#[command(name = "pintle", version, after_help = AFTER_HELP, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,

    /// What to log to stderr: error, warn, info, debug, trace, or per part as in `warn,apiserver=debug`
    #[arg(long, global = true, value_name = "FILTER")]
    pub log: Option<String>,
}

#[derive(Subcommand)]
pub enum Command {
    /// Start a cluster and stay in the foreground
    Up(Box<UpArguments>),
    /// Make this machine a node of a cluster elsewhere, and stay in the foreground
    #[command(after_help = join::AFTER_NODE)]
    Node(Box<JoinArguments>),
    /// Make, show and take away the tokens by which machines join
    #[command(subcommand)]
    Token(TokenCommand),
    /// Make and remove simulated nodes and pods in a running cluster
    #[command(subcommand)]
    Sim(Box<SimCommand>),
    /// Fetch, make, list and remove the images that containers are made from
    #[command(subcommand)]
    Image(ImageCommand),
    /// Serve a small web page that asks other services, as the example shop does
    Demo(DemoArguments),
    /// Print where the kubeconfig of a cluster is
    Kubeconfig(KubeconfigArguments),
    /// Print the version
    Version,
}

#[derive(Args)]
pub struct UpArguments {
    /// Where the cluster lives; the same directory continues the same cluster
    #[arg(long, value_name = "DIR", default_value_t = default_data_dir())]
    pub data_dir: Utf8PathBuf,

    /// Address and port of the API; port 0 chooses a free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:6443")]
    pub listen: SocketAddr,

    /// The address at which other machines and pods reach the API [default: that of --listen, or --node-ip, or that of
    /// this machine's default route]
    #[arg(long, value_name = "ADDR")]
    pub advertise_address: Option<IpAddr>,

    /// More names and addresses that the API's certificate is for
    #[arg(long, value_name = "NAME|ADDR,...", value_delimiter = ',')]
    pub tls_san: Vec<String>,

    /// Where to write the administrator's kubeconfig (mode 0600) [default: DIR/kubeconfig]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<Utf8PathBuf>,

    #[command(flatten)]
    pub node: NodeOptions,

    /// Apply manifests and wait until they are ready: a file, a folder or - for stdin; repeatable
    #[arg(long, value_name = "PATH|-")]
    pub apply: Vec<Utf8PathBuf>,

    #[command(flatten)]
    pub requests: RequestArguments,

    #[command(flatten)]
    pub audit: AuditArguments,

    #[command(flatten)]
    pub apis: ApiArguments,

    #[command(flatten)]
    pub network: NetworkArguments,

    #[command(flatten)]
    pub admission: AdmissionArguments,

    #[command(flatten)]
    pub kubelets: KubeletArguments,

    #[command(flatten)]
    pub authentication: AuthenticationArguments,

    #[command(flatten)]
    pub authorization: AuthorizationArguments,

    #[command(flatten)]
    pub controllers: ControllerArguments,

    #[command(flatten)]
    pub scheduler: SchedulerArguments,

    /// Answer metrics.k8s.io, which `kubectl top` reads, without metrics-server
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub resource_metrics: bool,

    /// Let containers be privileged; Pod Security admission may still refuse them
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub allow_privileged: bool,
}

impl UpArguments {
    /// What the flags choose about the API server; a file that one of them names is read here.
    pub fn server_options(&self) -> anyhow::Result<apiserver::Options> {
        Ok(apiserver::Options {
            requests: self.requests.options(),
            audit: self.audit.options()?,
            apis: self.apis.options(),
            admission: self.admission.options()?,
            kubelets: self.kubelets.options()?,
            authentication: self.authentication.options()?,
            authorization: self.authorization.options()?,
            resource_metrics: self.resource_metrics,
            allow_privileged: self.allow_privileged,
        })
    }
}

#[derive(Args)]
pub struct KubeconfigArguments {
    /// The cluster's data directory
    #[arg(long, value_name = "DIR", default_value_t = default_data_dir())]
    pub data_dir: Utf8PathBuf,

    /// Print the file's content instead of its path
    #[arg(long)]
    pub raw: bool,
}

/// A duration in Go's form, such as `90s` or `1h30m`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let nanoseconds = apimachinery::duration::parse(text).ok().and_then(|own| u64::try_from(own).ok());
    nanoseconds.map(Duration::from_nanos).ok_or_else(|| "it is no duration such as 90s or 24h".to_owned())
}

/// `$XDG_DATA_HOME/pintle`, else `~/.local/share/pintle`, else `./pintle-data`.
pub fn default_data_dir() -> Utf8PathBuf {
    let from = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty()).map(Utf8PathBuf::from);
    match (from("XDG_DATA_HOME"), from("HOME")) {
        (Some(data), _) => data.join("pintle"),
        (None, Some(home)) => home.join(".local/share/pintle"),
        (None, None) => Utf8PathBuf::from("pintle-data"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_flags_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn bad_flags_are_named() {
        for (arguments, named) in [
            (&["pintle", "up", "--listen", "here"][..], "--listen"),
            (&["pintle", "up", "--sim-nodes", "-1"][..], "-1"),
            (&["pintle", "up", "--sim-nodes", "many"][..], "--sim-nodes"),
            (&["pintle", "up", "--feature-gates", "NoSuchGate=true"][..], "NoSuchGate"),
            (&["pintle", "up", "--controllers", "*,-no-such"][..], "no-such"),
            (&["pintle", "up", "--runtime-config", "apps/v7=true"][..], "apps/v7"),
            (&["pintle", "sim", "nodes"][..], "--count"),
            (&["pintle", "sim", "nodes", "--count", "1", "--cpu", "much"][..], "--cpu"),
            (&["pintle", "sim", "nodes", "--count", "1", "--labels", "a b=c"][..], "--labels"),
            (&["pintle", "sim", "nodes", "--count", "1", "--taints", "a=b:Never"][..], "PreferNoSchedule"),
            (&["pintle", "sim", "pods", "--count", "1", "--prefix", "A_B"][..], "--prefix"),
            (&["pintle", "sim", "delete", "nodes"][..], "--prefix"),
            (&["pintle", "image", "pull"][..], "IMAGE"),
            (&["pintle", "image", "pull", "a", "--username", "me"][..], "--password-stdin"),
            (&["pintle", "image", "build", "a:1"][..], "--from-dir"),
            (&["pintle", "image", "build", "A:1", "--self"][..], "must be lowercase"),
            (&["pintle", "image", "build", "a:1", "--self", "--binary", "b"][..], "--binary"),
            (&["pintle", "image", "build", "a:1", "--self", "--expose", "0"][..], "--expose"),
            (&["pintle", "image", "build", "a:1", "--self", "--env", "=b"][..], "NAME=VALUE"),
            (&["pintle", "up", "--advertise-address", "here"][..], "--advertise-address"),
            (&["pintle", "up", "--register-with-taints", "a=b:Never"][..], "PreferNoSchedule"),
            (&["pintle", "up", "--node-labels", "a b=c"][..], "--node-labels"),
            (&["pintle", "node", "--token", "abcdef.0123456789abcdef"][..], "--server"),
            (&["pintle", "node", "--server", "https://a", "--token", "abc"][..], "abcdef.0123456789abcdef"),
            (&["pintle", "node", "--discovery-token-ca-cert-hash", "md5:00"][..], "sha256:"),
            (&["pintle", "node", "--server", "http://192.0.2.1:6443"][..], "https://192.0.2.1:6443"),
            (&["pintle", "node", "--server", "https://"][..], "--server"),
            (&["pintle", "token", "create", "--usages", "all"][..], "signing"),
            (&["pintle", "token", "create", "--ttl", "soon"][..], "--ttl"),
            (&["pintle", "token", "delete"][..], "TOKEN"),
            (&["pintle", "down"][..], "down"),
        ] {
            let error = Cli::try_parse_from(arguments).err().expect("refused").to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
