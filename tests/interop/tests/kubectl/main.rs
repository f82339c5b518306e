//! Every kubectl on this machine against the finished binary; each has a server of its own.
//!
//! Prints how many checks passed per version, and every failure. Skips, saying why, without a kubectl, the binary or
//! the test data.

#![allow(clippy::disallowed_methods, reason = "a suite looks at another process, in real time")]

mod boutique;
mod cassandra;
mod collect;
mod crash;
mod custom;
mod daemons;
mod devices;
mod disruption;
mod explore;
mod groups;
mod idle;
mod job_kinds;
mod jobs;
mod node_failure;
mod objects;
mod output;
mod stateful;
mod volumes;

use std::collections::VecDeque;
use std::process::ExitCode;

use camino::{Utf8Path, Utf8PathBuf};
use interop::{Checks, Folder, Kubectl, Server};
use parking_lot::Mutex;

const SIM_NODES: u32 = 3;

/// What a part of the suite works with.
struct World<'a> {
    kubectl: &'a Kubectl,
    boutique: &'a str,
}

type Part = fn(&World<'_>, &mut Checks);

/// What a part begins with that has servers of its own and one kubectl, the newest.
struct Inputs {
    binary: Utf8PathBuf,
    boutique: Utf8PathBuf,
    program: Utf8PathBuf,
    version: String,
}

type OwnPart = fn(&Inputs, &mut Checks);

/// A server for one part, with a namespace to work in.
struct Cluster {
    kubectl: Kubectl,
    server: Server,
    _folder: Folder,
}

impl Inputs {
    fn cluster(&self, namespace: &str) -> anyhow::Result<Cluster> {
        let folder = Folder::new()?;
        let server = Server::start(&self.binary, &folder, SIM_NODES)?;
        let kubectl = Kubectl::new(&self.program, &self.version, &folder).within(namespace);
        kubectl.ok(&["create", "namespace", namespace])?;
        Ok(Cluster { kubectl, server, _folder: folder })
    }
}

/// What every kubectl must be able to do.
const PARTS: [(&str, Part); 13] = [
    ("explore", explore::explore),
    ("boutique, client-side", boutique::client_side),
    ("boutique, server-side", boutique::server_side),
    ("output", output::output),
    ("objects", objects::objects),
    ("collect", collect::collect),
    ("custom", custom::custom),
    ("jobs", jobs::jobs),
    ("stateful", stateful::stateful),
    ("cassandra", cassandra::cassandra),
    ("volumes", volumes::volumes),
    ("daemons", daemons::daemons),
    ("devices", devices::devices),
];

/// What says nothing about a version of kubectl, and so is done once. Each waits more than it works, and runs beside
/// the others.
const ONCE: [(&str, OwnPart); 4] = [
    ("idle", idle::idle),
    ("node failure", node_failure::node_failure),
    ("disruption", disruption::disruption),
    ("kinds of jobs", job_kinds::job_kinds),
];

/// What comes after everything else.
const LAST: [(&str, OwnPart); 2] = [("crash", crash::crash), ("groups", groups::groups)];

fn main() -> ExitCode {
    let skip = |reason: &str| {
        println!("kubectl suite: skipped: {reason}");
        ExitCode::SUCCESS
    };
    let Some(binary) = interop::binary() else {
        return skip("no pintle binary; build it or set PINTLE_BINARY");
    };
    let Some(testdata) = interop::testdata() else { return skip("PINTLE_TESTDATA is unset") };
    let boutique = testdata.join("manifests/online-boutique.yaml");
    if !boutique.is_file() {
        return skip(&format!("{boutique} is not there"));
    }
    let kubectls = Kubectl::found();
    if kubectls.is_empty() {
        return skip("no kubectl on PATH, or none of the versions in PINTLE_KUBECTL");
    }
    let runs = run_all(&binary, &boutique, kubectls);
    let failed: usize = runs.iter().map(Checks::failed).sum();
    for checks in &runs {
        println!("{}", checks.summary());
    }
    let passed: usize = runs.iter().map(Checks::passed).sum();
    println!("kubectl suite: {passed} checks passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs every version, as many at a time as there are cores. The crash comes last and alone, because its moments
/// matter.
fn run_all(binary: &Utf8Path, boutique: &Utf8Path, kubectls: Vec<(Utf8PathBuf, String)>) -> Vec<Checks> {
    let inputs = kubectls.iter().max_by(|a, b| a.1.cmp(&b.1)).map(|(program, version)| Inputs {
        binary: binary.to_owned(),
        boutique: boutique.to_owned(),
        program: program.clone(),
        version: version.clone(),
    });
    let waiting = Mutex::new(VecDeque::from(kubectls));
    let done = Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        if let Some(inputs) = &inputs {
            for (name, part) in chosen(&ONCE) {
                let done = &done;
                scope.spawn(move || done.lock().push(run_once(inputs, name, part)));
            }
        }
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some((program, version)) = next(&waiting) {
                    let checks = run_one(binary, boutique, &program, &version);
                    done.lock().push(checks);
                }
            });
        }
    });
    let mut runs = done.into_inner();
    if let Some(inputs) = &inputs {
        runs.extend(chosen(&LAST).map(|(name, part)| run_once(inputs, name, part)));
    }
    runs
}

/// The parts whose names `PINTLE_PARTS`, a list such as `kills,jobs`, has; all of them without it.
fn chosen<P: Copy>(parts: &[(&'static str, P)]) -> impl Iterator<Item = (&'static str, P)> {
    let wanted = std::env::var("PINTLE_PARTS").unwrap_or_default();
    let is_wanted = move |name: &str| wanted.is_empty() || wanted.split(',').any(|own| own == name);
    parts.iter().copied().filter(move |(name, _)| is_wanted(name))
}

fn run_once(inputs: &Inputs, name: &str, part: OwnPart) -> Checks {
    let mut checks = Checks::new(format!("kubectl {}, {name}", inputs.version));
    part(inputs, &mut checks);
    eprintln!("{name}: {} passed, {} failed", checks.passed(), checks.failed());
    checks
}

fn next(waiting: &Mutex<VecDeque<(Utf8PathBuf, String)>>) -> Option<(Utf8PathBuf, String)> {
    waiting.lock().pop_front()
}

fn run_one(binary: &Utf8Path, boutique: &Utf8Path, program: &Utf8Path, version: &str) -> Checks {
    let mut checks = Checks::new(format!("kubectl {version}"));
    let started = Folder::new().and_then(|folder| {
        let server = Server::start(binary, &folder, SIM_NODES)?;
        Ok((folder, server))
    });
    let (folder, server) = match started {
        Ok(started) => started,
        Err(error) => {
            checks.check("the server starts", || Err(error));
            return checks;
        }
    };
    let kubectl = Kubectl::new(program, version, &folder);
    for (name, part) in chosen(&PARTS) {
        let mut of_part = Checks::new(name);
        let namespace = name.replace(", ", "-");
        let own = kubectl.within(&namespace);
        of_part
            .check("its namespace is created", || kubectl.ok(&["create", "namespace", &namespace]).map(drop));
        // Without it everything else fails too, and says nothing.
        if of_part.failed() == 0 {
            part(&World { kubectl: &own, boutique: boutique.as_str() }, &mut of_part);
        }
        of_part
            .check("its namespace is deleted", || kubectl.ok(&["delete", "namespace", &namespace]).map(drop));
        eprintln!("kubectl {version}: {name}: {} passed, {} failed", of_part.passed(), of_part.failed());
        checks.add(of_part);
    }
    checks.check("the server stops when asked to", || server.stop());
    checks
}
