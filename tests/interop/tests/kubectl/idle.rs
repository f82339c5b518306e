//! A cluster in which nothing happens asks nothing: no loop sleeps and lists.
//!
//! The witness is the server's own count of decisions on access, which every call passes that anybody makes, also a
//! component in the same process. In an idle cluster of 1,000 simulated nodes each decision is about the renewal of a
//! lease, and each renewal is one event of a lease. Nothing else changes, and no other request comes over HTTP than
//! those that ask.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use interop::{Checks, Folder, Kubectl, Server, eventually};

use super::Inputs;

const SIM_NODES: u32 = 1_000;
/// Long enough for every timer of the usual ones, up to a minute.
const IDLE: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(120);
/// A look may fall between a decision and its event; the least of several looks does not.
const LOOKS: usize = 5;

pub(super) fn idle(inputs: &Inputs, checks: &mut Checks) {
    let Inputs { binary, program, version, .. } = inputs;
    checks.check("1,000 nodes renew their leases and nobody asks for anything else", || {
        let folder = Folder::new()?;
        let server = Server::start(binary, &folder, SIM_NODES)?;
        let kubectl = Kubectl::new(program, version, &folder);
        eventually(PATIENCE, || kubectl.ok(&["get", "--raw", "/readyz"]))?;
        // What the start has set going comes to its end.
        let mut before = Counts::look(&kubectl)?;
        eventually(PATIENCE, || {
            std::thread::sleep(Duration::from_secs(5));
            let after = Counts::look(&kubectl)?;
            let settled = after.unlike(&before);
            before = after;
            ensure!(settled.is_empty(), "not idle yet: {settled:?}");
            Ok(())
        })?;
        std::thread::sleep(IDLE);
        let after = Counts::look(&kubectl)?;
        let unlike = after.unlike(&before);
        ensure!(unlike.is_empty(), "beside lease renewals within {IDLE:?}: {unlike:?}");
        let renewals = after.leases - before.leases;
        // Each lease is good for 40 s; without this an idle cluster could be one where nothing works.
        ensure!(renewals >= u64::from(SIM_NODES), "{renewals} lease renewals within {IDLE:?}");
        server.stop()
    });
}

/// What the server has counted so far.
struct Counts {
    /// Changes of leases.
    leases: u64,
    /// Decisions on access that were not about one of these.
    other_decisions: u64,
    /// Changes of each other resource.
    changes: BTreeMap<String, u64>,
    /// Requests over HTTP, without those made here.
    requests: u64,
}

impl Counts {
    fn look(kubectl: &Kubectl) -> anyhow::Result<Self> {
        let mut least: Option<Self> = None;
        for look in 0..LOOKS {
            let mut counts = Self::read(&kubectl.ok(&["get", "--raw", "/metrics"])?)?;
            counts.requests -= look as u64;
            if least.as_ref().is_none_or(|least| counts.other_decisions < least.other_decisions) {
                least = Some(counts);
            }
        }
        least.context("nobody looked")
    }

    fn read(metrics: &str) -> anyhow::Result<Self> {
        let (mut decisions, mut requests, mut changes) = (0, 0, BTreeMap::new());
        for line in metrics.lines().filter(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').context("a sample has a value")?;
            let value = || value.parse::<u64>().with_context(|| line.to_owned());
            match series.split('{').next().unwrap_or_default() {
                "apiserver_authorization_decisions_total" => decisions += value()?,
                "apiserver_watch_cache_events_received_total" => {
                    changes.insert(series.to_owned(), value()?);
                }
                "apiserver_request_total" => requests += value()?,
                _ => {}
            }
        }
        let leases =
            "apiserver_watch_cache_events_received_total{group=\"coordination.k8s.io\",resource=\"leases\"}";
        let leases = changes.remove(leases).context("no changes of leases are counted")?;
        ensure!(decisions >= leases, "{decisions} decisions on access for {leases} changes of leases");
        Ok(Self { leases, other_decisions: decisions - leases, changes, requests })
    }

    /// What has another count than before.
    fn unlike(&self, before: &Self) -> Vec<String> {
        let mut unlike = Vec::new();
        for (series, count) in &self.changes {
            let count_before = before.changes.get(series).copied().unwrap_or_default();
            if *count != count_before {
                unlike.push(format!("{series}: {count_before}, then {count}"));
            }
        }
        if self.other_decisions != before.other_decisions {
            unlike.push(format!(
                "other decisions on access: {}, then {}",
                before.other_decisions, self.other_decisions
            ));
        }
        // Those looks themselves, which stand in the counts of the next.
        let requests = self.requests - before.requests;
        if requests != LOOKS as u64 {
            unlike.push(format!("requests over HTTP beside those made here: {}", requests - LOOKS as u64));
        }
        unlike
    }
}
