//! Real containers: the finished binary as a node of its own cluster, driven by kubectl.
//!
//! Each part runs in a network namespace of its own, so that it touches no address, port or rule of the machine, and some
//! beside one another, since most of what they do is to wait. Skips, saying why, where it is not root on Linux, or without
//! the binary, a kubectl or iproute2.

#![allow(clippy::disallowed_methods, reason = "a suite looks at another process, in real time")]

mod cni;
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

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};

use anyhow::Context;
use interop::Checks;
use parking_lot::Mutex;

use world::Inputs;

/// Set, to the name of a part, where the process is in a namespace of its own.
const INSIDE: &str = "PINTLE_NODE_SUITE_INSIDE";

/// Only these parts, joined by commas.
const PARTS: &str = "PINTLE_PARTS";

/// Parts that run at the same time, where they may.
const BESIDE: usize = 2;

type Part = fn(&Inputs, &mut Checks);

/// What measures how soon something happens, or needs the whole machine; one after another.
const ALONE: &[(&str, Part)] =
    &[("shop", shop::run), ("fail static", fail_static::run), ("leaks", leaks::run)];

/// The others, the longest first.
const TOGETHER: &[(&str, Part)] = &[
    ("containerd", containerd::run),
    ("conformance", conformance::run),
    ("cni", cni::run),
    ("streams", streams::run),
    ("three nodes", three_nodes::run),
    ("lifecycle", lifecycle::run),
    ("plugins", plugins::run),
    ("third party", third_party::run),
    ("resources", resources::run),
    ("static pods", static_pods::run),
];

fn main() -> ExitCode {
    if let Some(name) = std::env::var_os(INSIDE) {
        return run_inside(&name.to_string_lossy());
    }
    if let Err(reason) = world::is_possible() {
        interop::skip(&reason);
        return ExitCode::SUCCESS;
    }
    if Inputs::find().is_none() {
        return ExitCode::SUCCESS;
    }
    let wanted = std::env::var(PARTS).ok();
    let is_wanted = |name: &str| wanted.as_ref().is_none_or(|list| list.split(',').any(|own| own == name));
    let names_of = |parts: &[(&'static str, Part)]| -> VecDeque<&'static str> {
        parts.iter().map(|(name, _)| *name).filter(|name| is_wanted(name)).collect()
    };
    let total = Mutex::new(Outcome::default());
    for (parts, workers) in [(ALONE, 1), (TOGETHER, BESIDE)] {
        let waiting = Mutex::new(names_of(parts));
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| work_off(&waiting, &total));
            }
        });
    }
    let Outcome { passed, failed, broken } = total.into_inner();
    println!("node suite: {passed} passed, {failed} failed");
    if failed == 0 && !broken { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Of all parts so far.
#[derive(Default)]
struct Outcome {
    passed: usize,
    failed: usize,
    /// A part did not end as one that counted its checks.
    broken: bool,
}

/// Runs parts until none waits, or so much failed that the rest would say little more.
fn work_off(waiting: &Mutex<VecDeque<&'static str>>, total: &Mutex<Outcome>) {
    while let Some(name) = waiting.lock().pop_front() {
        if total.lock().failed >= interop::FAILURES_MAX {
            println!("node: {name}: not run after so many failures");
            continue;
        }
        let ended = enter(name);
        let mut total = total.lock();
        match ended {
            Ok(Counts { passed, failed }) => {
                total.passed += passed;
                total.failed += failed;
            }
            Err(error) => {
                println!("node: {name}: {error:#}");
                total.broken = true;
            }
        }
    }
}

/// What the last line of a part says.
#[derive(Debug, PartialEq, Eq)]
struct Counts {
    passed: usize,
    failed: usize,
}

impl Counts {
    /// `node: shop: 5 checks passed, 0 failed`
    fn parse(line: &str, name: &str) -> Option<Self> {
        let counts = line.strip_prefix("node: ")?.strip_prefix(name)?.strip_prefix(": ")?;
        let (passed, failed) = counts.strip_suffix(" failed")?.split_once(" checks passed, ")?;
        Some(Self { passed: passed.parse().ok()?, failed: failed.parse().ok()? })
    }
}

/// Runs this program again in a network namespace of its own, for one part.
fn enter(name: &str) -> anyhow::Result<Counts> {
    let program = std::env::current_exe().context("a program knows where it is")?;
    let mut child = Command::new("unshare")
        .arg("--net")
        .arg(program)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, name)
        .stdout(Stdio::piped())
        .spawn()
        .context("running unshare")?;
    let output = child.stdout.take().context("its output is piped")?;
    let mut counts = None;
    for line in BufReader::new(output).lines() {
        let line = line.context("reading what the part says")?;
        counts = Counts::parse(&line, name).or(counts);
        println!("{line}");
    }
    let status = child.wait().context("waiting for the part")?;
    counts.with_context(|| format!("it ended with {status} and no count"))
}

/// Runs a part in the namespace that is its own already.
fn run_inside(name: &str) -> ExitCode {
    if let Err(error) = world::make_uplink() {
        eprintln!("the suite's network could not be made: {error:#}");
        return ExitCode::FAILURE;
    }
    let part = ALONE.iter().chain(TOGETHER).find(|(own, _)| *own == name);
    let (Some((_, part)), Some(inputs)) = (part, Inputs::find()) else {
        eprintln!("there is no part {name:?}");
        return ExitCode::FAILURE;
    };
    let mut checks = Checks::new(format!("node: {name}")).aloud();
    part(&inputs, &mut checks);
    println!("{}", checks.summary());
    if checks.failed() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
