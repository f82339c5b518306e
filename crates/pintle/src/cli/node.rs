//! The nodes of the cluster that runs in this process.

use camino::Utf8Path;
use clap::Args;

use super::machine::MachineArguments;
use crate::node::Config;

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

    #[command(flatten)]
    machine: MachineArguments,
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
    pub fn nodes(&self, data_dir: &Utf8Path) -> anyhow::Result<Nodes> {
        let simulated = self.sim_nodes.unwrap_or(0);
        let wanted = self.node.unwrap_or(self.sim_nodes.is_none());
        if !wanted {
            return Ok(Nodes { simulated, real: None, excuse: None });
        }
        match self.machine.detect(data_dir) {
            Ok(config) => {
                let config = self.machine.complete(config)?;
                Ok(Nodes { simulated, real: Some(config), excuse: None })
            }
            Err(error) if self.node == Some(true) => Err(error.context("--node")),
            // A cluster on which nothing runs is of use to nobody.
            Err(error) => Ok(Nodes { simulated: 1, real: None, excuse: Some(error.to_string()) }),
        }
    }
}
