//! Machines that join a cluster elsewhere, and the tokens by which they do.

use std::time::Duration;

use camino::Utf8PathBuf;
use clap::{Args, Subcommand};

use super::machine::MachineArguments;
use super::sim::ClusterArguments;
use super::{default_data_dir, parse_duration};
use crate::joining::Token;
use crate::joining::discovery::Pin;

pub(super) const AFTER_NODE: &str = "\
`pintle token create`, where the cluster runs, prints the whole command. A machine that has joined needs neither server
nor token when it starts again.

Examples:
  pintle node --server https://192.0.2.1:6443 --token abcdef.0123456789abcdef --discovery-token-ca-cert-hash sha256:…
  pintle node --node-labels disk=ssd";

const AFTER_CREATE: &str = "\
Examples:
  pintle token create                         a token for a day, with the command that joins a machine
  pintle token create --ttl 0 --description \"rack 7\"";

#[derive(Args)]
pub struct JoinArguments {
    /// Where this node lives; the same directory continues the same node
    #[arg(long, value_name = "DIR", default_value_t = default_data_dir())]
    pub data_dir: Utf8PathBuf,

    /// The API server of the cluster to join
    #[arg(long, value_name = "URL", value_parser = parse_server)]
    pub server: Option<String>,

    /// The bootstrap token by which this machine joins
    #[arg(long, value_name = "TOKEN", requires = "server")]
    pub token: Option<Token>,

    /// What the cluster's authority has to be: `sha256:` and the hash of its public key; repeatable
    #[arg(long, value_name = "HASH")]
    pub discovery_token_ca_cert_hash: Vec<Pin>,

    /// Believe the cluster by the token alone: whoever else has the token could stand in its place
    #[arg(long, conflicts_with = "discovery_token_ca_cert_hash")]
    pub discovery_token_unsafe_skip_ca_verification: bool,

    /// How long to try to reach the server at first
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = parse_duration)]
    pub discovery_timeout: Duration,

    #[command(flatten)]
    pub machine: MachineArguments,
}

#[derive(Subcommand)]
pub enum TokenCommand {
    /// Make a token, and print the command by which a machine joins with it
    #[command(after_help = AFTER_CREATE)]
    Create(TokenCreateArguments),
    /// Show the tokens that there are
    List {
        #[command(flatten)]
        cluster: ClusterArguments,
    },
    /// Take tokens away; machines that have joined stay
    Delete {
        #[command(flatten)]
        cluster: ClusterArguments,

        /// Tokens, or their ids: what stands before the dot
        #[arg(required = true, value_name = "TOKEN")]
        tokens: Vec<String>,
    },
}

#[derive(Args)]
pub struct TokenCreateArguments {
    #[command(flatten)]
    pub cluster: ClusterArguments,

    /// The token, in the form abcdef.0123456789abcdef [default: a random one]
    #[arg(value_name = "TOKEN")]
    pub token: Option<Token>,

    /// How long it is good for; 0 is for ever
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = parse_duration)]
    pub ttl: Duration,

    /// What it is for, as a reminder
    #[arg(long, default_value = "")]
    pub description: String,

    /// What it may be used for: to sign what a cluster says of itself, and to authenticate
    #[arg(
        long,
        value_name = "USAGE,...",
        value_delimiter = ',',
        default_value = "signing,authentication",
        value_parser = ["signing", "authentication"]
    )]
    pub usages: Vec<String>,

    /// Groups that its bearer is in, beside system:bootstrappers
    #[arg(
        long,
        value_name = "GROUP,...",
        value_delimiter = ',',
        default_value = crate::joining::invitation::JOINING_GROUP
    )]
    pub groups: Vec<String>,

    /// Where machines reach the API server [default: as the cluster says of itself]
    #[arg(long, value_name = "URL", value_parser = parse_server)]
    pub server: Option<String>,
}

/// Secrets go there, so that nothing but HTTPS will do.
fn parse_server(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("https://").unwrap_or(text).trim_end_matches('/');
    let uri: Result<http::Uri, _> = format!("https://{rest}").parse();
    match uri {
        Ok(uri) if !text.starts_with("http://") && uri.host().is_some() && uri.path() == "/" => {
            Ok(format!("https://{rest}"))
        }
        _ => Err("it must be an address such as https://192.0.2.1:6443".to_owned()),
    }
}
