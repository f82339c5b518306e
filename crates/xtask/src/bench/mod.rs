//! `cargo xtask bench`: the release binary measured from outside, over HTTPS, by a client on the same machine.
//!
//! Owns: starting and watching the server process ([`server`]), a load client ([`connection`], [`load`]), what is
//! sent ([`objects`], [`definition`]), the scenarios in their suites ([`suite`]), the report. Never touches: the server's crates; it sees what a user sees.
//!
//! Client and server share the machine's cores, so a figure is what both together reach. The server's own cost is in
//! the CPU columns, read from `/proc`.

mod arrivals;
mod connection;
mod definition;
mod load;
mod node;
mod objects;
mod report;
mod scenarios;
mod scheduler;
mod server;
mod services;
mod sim;
mod suite;
mod websocket;

use anyhow::{Context, bail};
use camino::Utf8PathBuf;

use report::Report;

/// What to measure, and how to show it.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Perhaps a suite, then names of its scenarios; empty for all of the server.
    pub names: Vec<String>,
    /// The binary; by default the release build in `target`.
    pub binary: Option<Utf8PathBuf>,
    /// JSON instead of a Markdown table.
    pub json: bool,
    /// Short runs with small numbers, to see that everything works; the figures mean nothing.
    pub smoke: bool,
    /// Nodes and pods of the large cluster of the suite `sim`.
    pub nodes: Option<u32>,
    pub pods: Option<u64>,
    /// Who runs the containers of the suite `node` instead of the server itself.
    pub container_runtime_endpoint: Option<String>,
}

pub use suite::list;

/// Runs the scenarios and returns the report's text. What is done shows on standard error meanwhile.
///
/// # Errors
/// A name that no scenario has, a binary that is missing or does not become ready, a request that fails.
pub fn run(options: &Options) -> anyhow::Result<String> {
    let chosen = suite::choose(&options.names)?;
    let binary = binary(options)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    let mut report = Report::new(&binary, options.smoke)?;
    for scenario in chosen {
        eprintln!("bench: {} …", scenario.name);
        let &Options { smoke, nodes, pods, .. } = options;
        let container_runtime_endpoint = options.container_runtime_endpoint.clone();
        let world = suite::World { binary: binary.clone(), smoke, nodes, pods, container_runtime_endpoint };
        for measurement in runtime.block_on(suite::named(&scenario, world))? {
            eprintln!("bench: {measurement}");
            report.add(measurement);
        }
    }
    Ok(if options.json { report.json() } else { report.markdown() })
}

fn binary(options: &Options) -> anyhow::Result<Utf8PathBuf> {
    let default = || crate::target_folder().join("release/pintle");
    let binary = options.binary.clone().unwrap_or_else(default);
    if !binary.is_file() {
        bail!("{binary} is not there; run `cargo build --release -p pintle` or name one with --binary");
    }
    Ok(binary)
}
