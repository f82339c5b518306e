//! `cargo xtask`: the command line over the chores in the library.

use camino::Utf8PathBuf;
use clap::{Parser, Subcommand};
use xtask::bench;
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
    /// Measure the release binary; names of scenarios choose some
    Bench {
        /// Scenarios to run; all by default
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
        /// Only list the scenarios
        #[arg(long)]
        list: bool,
    },
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Tidy { fix } => run_tidy(if fix { Mode::Fix } else { Mode::Check }),
        Command::Bench { list: true, .. } => {
            for (name, about) in bench::scenarios() {
                println!("{name:20} {about}");
            }
            Ok(())
        }
        Command::Bench { names, binary, json, smoke, list: false } => {
            let options = bench::Options { names, binary, json, smoke };
            println!("{}", bench::run(&options)?);
            Ok(())
        }
    }
}

fn run_tidy(mode: Mode) -> anyhow::Result<()> {
    let complaints = tidy::run(&xtask::repository(), mode)?;
    for complaint in &complaints {
        eprintln!("{complaint}");
    }
    anyhow::ensure!(complaints.is_empty(), "{} complaints", complaints.len());
    println!("tidy");
    Ok(())
}
