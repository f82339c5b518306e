//! Real containers: the finished binary as a node of its own cluster, driven by kubectl.
//!
//! Runs in a network namespace of its own, so that it touches no address, port or rule of the machine. Skips, saying
//! why, where it is not root on Linux, or without the binary, a kubectl or iproute2.

#![allow(clippy::disallowed_methods, reason = "a suite looks at another process, in real time")]

mod conformance;
mod containerd;
mod fail_static;
mod http;
mod leaks;
mod lifecycle;
mod plugins;
mod pods;
mod remains;
mod resources;
mod shop;
mod static_pods;
mod streams;
mod third_party;
mod three_nodes;
mod world;

use std::process::{Command, ExitCode};

use interop::Checks;

use world::Inputs;

/// Set where the process is in a namespace of its own already.
const INSIDE: &str = "PINTLE_NODE_SUITE_INSIDE";

/// Only these parts, joined by commas.
const PARTS: &str = "PINTLE_PARTS";

type Part = fn(&Inputs, &mut Checks);

/// Every part, each on a cluster of its own; one after another, since there is one machine.
const ALL: &[(&str, Part)] = &[
    ("shop", shop::run),
    ("lifecycle", lifecycle::run),
    ("conformance", conformance::run),
    ("streams", streams::run),
    ("fail static", fail_static::run),
    ("leaks", leaks::run),
    ("resources", resources::run),
    ("static pods", static_pods::run),
    ("plugins", plugins::run),
    ("third party", third_party::run),
    ("three nodes", three_nodes::run),
    ("containerd", containerd::run),
];

fn main() -> ExitCode {
    if std::env::var_os(INSIDE).is_none() {
        return enter();
    }
    if let Err(error) = world::make_uplink() {
        eprintln!("the suite's network could not be made: {error:#}");
        return ExitCode::FAILURE;
    }
    let Some(inputs) = Inputs::find() else { return ExitCode::SUCCESS };
    let wanted = std::env::var(PARTS).ok();
    let is_wanted = |name: &str| wanted.as_ref().is_none_or(|list| list.split(',').any(|own| own == name));
    let mut failed = 0;
    let mut passed = 0;
    for (name, part) in ALL.iter().filter(|(name, _)| is_wanted(name)) {
        let mut checks = Checks::new(format!("node: {name}")).aloud();
        part(&inputs, &mut checks);
        println!("{}", checks.summary());
        passed += checks.passed();
        failed += checks.failed();
        if checks.has_seen_enough() {
            println!("node suite: the parts after {name} are not run");
            break;
        }
    }
    println!("node suite: {passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs this program again in a network namespace of its own.
fn enter() -> ExitCode {
    if let Err(reason) = world::is_possible() {
        interop::skip(&reason);
        return ExitCode::SUCCESS;
    }
    let program = std::env::current_exe().expect("a program knows where it is");
    let status = Command::new("unshare")
        .arg("--net")
        .arg(program)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .status();
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("unshare: {error}");
            ExitCode::FAILURE
        }
    }
}
