//! `pintle`: the command.
//!
//! Owns: flags, wiring, start and stop order, what a person sees. Everything else is in the crates below.
//! Start at [`up`].

mod apply;
mod cli;
mod demo;
mod image;
mod joining;
mod kubeconfig;
mod manifest;
mod node;
mod platform;
mod progress;
mod rbac;
mod sim;
mod stop;
mod up;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};

/// Objects come on one thread and go on another, all the time: ADR 0007.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Beside each container runs this program as its shim, which must stay a single thread.
    if runtime::embedded::is_shim(std::env::args().skip(1)) {
        return runtime::embedded::shim_main(std::env::args().skip(1));
    }
    // A container runtime starts it as a CNI plugin, by that name.
    let program = std::env::args().next().unwrap_or_default();
    if ::network::cni::plugin::is_plugin(&program) {
        return ::network::cni::plugin::plugin_main(&program);
    }
    let cli = Cli::parse();
    if let Err(error) = telemetry::init_logging(cli.log.as_deref(), "warn") {
        eprintln!("error: --log: {error}");
        return ExitCode::FAILURE;
    }
    let outcome = match cli.command {
        Command::Up(arguments) => up::run(*arguments),
        Command::Node(arguments) => joining::member::run(*arguments),
        Command::Token(command) => joining::tokens::run(command),
        Command::Sim(command) => sim::run(*command),
        Command::Image(command) => image::run(command),
        Command::Demo(arguments) => demo::run(arguments),
        Command::Kubeconfig(arguments) => kubeconfig::run(&arguments),
        Command::Version => {
            let (_, _, kubernetes) = apiserver::KUBERNETES_VERSION;
            println!("pintle {} (Kubernetes {kubernetes})", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line, cause by cause, is what a person can act on.
            eprintln!("error: {}", telemetry::chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}
