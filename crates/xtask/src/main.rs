//! `cargo xtask`: the command line over the chores in the library.

use std::process::ExitCode;

use anyhow::Context;
use camino::Utf8PathBuf;
use clap::{Parser, Subcommand};
use xtask::bench;
use xtask::codegen;
use xtask::tidy::{self, Mode};

/// Repository chores.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check layers, the crate map and single files; also runs inside `cargo test`
    Tidy {
        /// Rewrite generated parts that are stale
        #[arg(long)]
        fix: bool,
    },
    /// Write the tables of built-in kinds anew from a folder of facts about upstream's API
    Codegen {
        /// The folder with `openapi-v2.json.gz`, `resources.tsv` and `group_priorities.tsv`
        reference: Utf8PathBuf,
    },
    /// Write the descriptions of types and fields anew from the source of k8s-openapi
    CodegenDescriptions {
        /// The crate's folder of one Kubernetes version, `src/v1_36`
        source: Utf8PathBuf,
    },
    /// Measure the release binary
    Bench {
        /// A suite (`server`, `scheduler`, `sim`, `node` or `services`; `server` by default), then scenarios of it by name or part of a
        /// name; all by default
        names: Vec<String>,
        /// The binary to measure; `target/release/pintle` by default
        #[arg(long)]
        binary: Option<Utf8PathBuf>,
        /// Print JSON instead of a Markdown table
        #[arg(long)]
        json: bool,
        /// Small numbers, to see that everything works
        #[arg(long)]
        smoke: bool,
        /// Nodes of the large cluster of the suite `sim`
        #[arg(long)]
        nodes: Option<u32>,
        /// Pods on them
        #[arg(long)]
        pods: Option<u64>,
        /// Who runs the containers of the suite `node`; it must have the image `pintle.dev/pintle:bench`
        #[arg(long)]
        container_runtime_endpoint: Option<String>,
        /// Only list the scenarios
        #[arg(long)]
        list: bool,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Tidy { fix } => run_tidy(if fix { Mode::Fix } else { Mode::Check }),
        Command::Codegen { reference } => {
            codegen::run(reference.as_std_path())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::CodegenDescriptions { source } => {
            xtask::codegen_descriptions::run(source.as_std_path())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Bench { list: true, .. } => {
            for (suite, name, about) in bench::list() {
                println!("{suite:10} {name:60} {about}");
            }
            Ok(ExitCode::SUCCESS)
        }
        // An unoptimized client takes the CPU that the server would need; a smoke run does not care.
        Command::Bench { smoke: false, .. } if cfg!(debug_assertions) => run_again_optimized(),
        Command::Bench {
            names,
            binary,
            json,
            smoke,
            nodes,
            pods,
            container_runtime_endpoint,
            list: false,
        } => {
            let options =
                bench::Options { names, binary, json, smoke, nodes, pods, container_runtime_endpoint };
            println!("{}", bench::run(&options)?);
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Runs this very command line in the release profile.
fn run_again_optimized() -> anyhow::Result<ExitCode> {
    let status = std::process::Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()))
        .args(["run", "--quiet", "--release", "--package", "xtask", "--"])
        .args(std::env::args_os().skip(1))
        .current_dir(xtask::repository())
        .status()
        .context("running the optimized xtask")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_tidy(mode: Mode) -> anyhow::Result<ExitCode> {
    let complaints = tidy::run(&xtask::repository(), mode)?;
    for complaint in &complaints {
        eprintln!("{complaint}");
    }
    if complaints.is_empty() {
        println!("tidy");
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("tidy: {} complaints", complaints.len());
    Ok(ExitCode::FAILURE)
}
