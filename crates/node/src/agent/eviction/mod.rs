//! A node that is short of something: it says so, wins back what nobody uses, and then lets pods go, one at a time.
//!
//! Owns: the conditions MemoryPressure, DiskPressure and PIDPressure, evictions for them, and for what a pod has on
//! disk beyond its limits. Never touches: containers (a pod's worker ends them), taints (a controller makes them from
//! the conditions).
//!
//! ```text
//!     reading ─> pressure (pure) ─> conditions ─> registration, admission
//!                    └─ urgent ─> reclaim ─> rank (pure) ─> worker.end
//!     usage ─> local (pure) ─────────────────────────────────┘
//! ```
//!
//! Start at [`run`]. Thresholds, order, reasons and messages are the kubelet's.

pub mod local;
pub mod pressure;
pub mod rank;
mod reading;
pub mod thresholds;
pub mod usage;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use client::events::{Reference, Severity};
use k8s_openapi::api::core::v1::Pod;
use tracing::{info, warn};

use super::Node;
use super::config;
use super::pod::observed::Observed;
use super::pod::status::Ended;
use super::pod::worker::Worker;
use pressure::{Memory, Observations};
use rank::Candidate;
use thresholds::{Flags, HARD_DEFAULT, Pressure, Signal, Threshold};
use usage::{Counting, PodUsage, Walks};

/// How often a node looks at itself.
const PERIOD: Duration = Duration::from_secs(10);

/// So long a hard eviction lets processes end by themselves.
const HARD_GRACE: Duration = Duration::from_secs(1);

/// The next pod goes only when the one before it is gone, or after this.
const CLEANUP_WAIT: Duration = Duration::from_secs(30);
const CLEANUP_LOOK: Duration = Duration::from_millis(100);

/// The kubelet's default of `--eviction-pressure-transition-period`.
pub const TRANSITION_DEFAULT: Duration = Duration::from_secs(300);

/// When and how pods are evicted.
#[derive(Clone, Debug)]
pub struct Settings {
    pub thresholds: Vec<Threshold>,
    /// A condition stays for so long after its cause was last seen.
    pub transition: Duration,
    /// What a soft eviction grants a pod at most.
    pub soft_grace_max: Duration,
    pub period: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        let flags = Flags { hard: HARD_DEFAULT, soft: "", soft_grace: "", reclaim: "" };
        Self {
            thresholds: thresholds::parse(flags).expect("the defaults are well formed"),
            transition: TRANSITION_DEFAULT,
            soft_grace_max: Duration::ZERO,
            period: PERIOD,
        }
    }
}

impl Settings {
    /// What pods may have of a capacity: all but what a hard threshold keeps free.
    pub fn promised(&self, signal: Signal, capacity: u64) -> u64 {
        let hard = self.thresholds.iter().filter(|own| own.signal == signal && own.grace.is_zero());
        let kept = hard.map(|own| own.below.of(capacity)).max().unwrap_or_default();
        capacity.saturating_sub(kept)
    }
}

/// What the node is short of.
pub type Pressures = BTreeSet<Pressure>;

/// Looks after the node until it stops.
pub async fn run(node: Arc<Node>) {
    let mut eviction = Eviction { memory: Memory::default(), walks: Walks::default() };
    loop {
        eviction.look(&node).await;
        tokio::select! {
            () = rt::sleep(node.eviction.period) => {}
            () = node.shutdown.cancelled() => return,
        }
    }
}

struct Eviction {
    memory: Memory,
    walks: Walks,
}

impl Eviction {
    async fn look(&mut self, node: &Arc<Node>) {
        let settings = &node.eviction;
        let images = node.runtime.image_filesystem().await.ok();
        let reading = reading::read(&node.root, images.as_ref());
        let verdict =
            self.memory.look(&settings.thresholds, &reading.observations, settings.transition, rt::instant());
        node.pressures.send_if_modified(|before| {
            let is_news = *before != verdict.pressures;
            before.clone_from(&verdict.pressures);
            is_news
        });
        let workers: Vec<Arc<Worker>> =
            node.pods.all().into_iter().filter(|worker| worker.is_active()).collect();
        let pods: Vec<Arc<Pod>> = workers.iter().map(|worker| worker.pod()).collect();
        if verdict.urgent.is_empty() && !pods.iter().any(|pod| local::is_limited(pod)) {
            return;
        }
        let usages = match usage::measure(node, &pods, &mut self.walks).await {
            Ok(usages) => usages,
            Err(error) => {
                warn!(%error, "What pods use is not known; no pod is evicted");
                return;
            }
        };
        let of_node = if reading.has_image_filesystem { Counting::NodeOnly } else { Counting::Everything };
        if end_those_over_limits(node, &workers, &usages, of_node) {
            return;
        }
        let Some(threshold) = verdict.urgent.first().map(|number| &settings.thresholds[*number]) else {
            return;
        };
        warn_of(node, threshold);
        if threshold.signal.pressure() == Pressure::Disk && self.reclaim(node, threshold, &reading).await {
            return;
        }
        let counting = match threshold.signal {
            Signal::ImagefsAvailable | Signal::ImagefsInodesFree if reading.has_image_filesystem => {
                Counting::LayersOnly
            }
            _ => of_node,
        };
        evict_one(node, &workers, &usages, threshold, &reading.observations, counting).await;
    }

    /// Takes away what nobody uses. Returns whether that was enough.
    async fn reclaim(&self, node: &Node, threshold: &Threshold, before: &reading::Reading) -> bool {
        let is_of_images = matches!(threshold.signal, Signal::ImagefsAvailable | Signal::ImagefsInodesFree);
        if before.has_image_filesystem && !is_of_images {
            return false;
        }
        super::images::collection::remove_unused(node).await;
        let images = node.runtime.image_filesystem().await.ok();
        let reading = reading::read(&node.root, images.as_ref());
        let observed = reading.observations.get(&threshold.signal);
        observed.is_some_and(|observed| !pressure::is_met(threshold, *observed, true))
    }
}

fn warn_of(node: &Node, threshold: &Threshold) {
    let name = node.identity.name.as_str();
    warn!(signal = %threshold.signal, "The node is low on a resource and tries to win some back");
    let reference =
        Reference { kind: "Node".into(), name: name.into(), uid: name.into(), ..Reference::default() };
    let message = format!("Attempting to reclaim {}", threshold.signal.resource());
    node.reporter.of(&reference, Severity::Warning, "EvictionThresholdMet", message);
}

/// Returns whether any pod has to go.
fn end_those_over_limits(
    node: &Node,
    workers: &[Arc<Worker>],
    usages: &BTreeMap<String, PodUsage>,
    counting: Counting,
) -> bool {
    let mut any = false;
    for worker in workers {
        let pod = worker.pod();
        let Some(message) = usages.get(&worker.uid).and_then(|usage| local::excess(&pod, usage, counting))
        else {
            continue;
        };
        if rank::is_critical(&pod) {
            warn!(name = config::name(&pod), message, "A critical pod is over its limits and stays");
            continue;
        }
        any = true;
        evict(node, worker, &pod, message, HARD_GRACE, false);
    }
    any
}

async fn evict_one(
    node: &Node,
    workers: &[Arc<Worker>],
    usages: &BTreeMap<String, PodUsage>,
    threshold: &Threshold,
    observations: &Observations,
    counting: Counting,
) {
    let pods: Vec<(Arc<Pod>, &Arc<Worker>)> = workers
        .iter()
        .map(|worker| (worker.pod(), worker))
        .filter(|(pod, _)| !rank::is_critical(pod))
        .collect();
    let mut candidates: Vec<Candidate<'_>> =
        pods.iter().map(|(pod, worker)| Candidate { pod, usage: usages.get(&worker.uid) }).collect();
    rank::rank(&mut candidates, threshold.signal, counting);
    let Some(first) = candidates.first() else {
        warn!(signal = %threshold.signal, "There is no pod that could be evicted");
        return;
    };
    let Some((_, worker)) = pods.iter().find(|(pod, _)| std::ptr::eq(&raw const **pod, first.pod)) else {
        return;
    };
    let observed = observations.get(&threshold.signal).copied().unwrap_or_default();
    let message = rank::message(first.pod, first.usage, threshold, observed);
    let grace = if threshold.grace.is_zero() { HARD_GRACE } else { node.eviction.soft_grace_max };
    evict(node, worker, first.pod, message, grace, true);
    let _gone_or_not = rt::timeout(CLEANUP_WAIT, gone(worker)).await;
}

fn evict(node: &Node, worker: &Worker, pod: &Pod, message: String, grace: Duration, disrupts: bool) {
    info!(namespace = config::namespace(pod), name = config::name(pod), message, "Evicting a pod");
    node.reporter.pod(pod).warning("Evicted", message.clone());
    let disruption = disrupts.then(|| message.clone());
    worker.end(Ended { reason: "Evicted".into(), message, grace: Some(grace), disruption });
}

/// Waits until nothing of the pod runs.
async fn gone(worker: &Worker) {
    while worker.observe().await.as_ref().is_none_or(|own: &Observed| own.running().next().is_some()) {
        rt::sleep(CLEANUP_LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_promised_all_but_what_hard_thresholds_keep_free() {
        let of = |hard, soft, soft_grace| Settings {
            thresholds: thresholds::parse(Flags { hard, soft, soft_grace, reclaim: "" })
                .expect("well formed"),
            ..Settings::default()
        };
        for (hard, want) in [("memory.available<100", 900), ("memory.available<25%", 750), ("", 1_000)] {
            let settings = of(hard, "memory.available<50%", "memory.available=1m");
            assert_eq!(settings.promised(Signal::MemoryAvailable, 1_000), want, "{hard}");
            assert_eq!(settings.promised(Signal::NodefsAvailable, 1_000), 1_000, "{hard}");
        }
        assert_eq!(of("memory.available<2k", "", "").promised(Signal::MemoryAvailable, 1_000), 0);
    }
}
