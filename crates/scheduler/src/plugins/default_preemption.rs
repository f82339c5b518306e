//! Makes room for a pod by evicting pods of lower priority, as few and as unimportant ones as possible.
//!
//! A dry run per node: take all pods of lower priority off a copy of it, see whether the pod fits, then put back as
//! many as possible, the important ones first. Whoever remains off is a victim.
//! PodDisruptionBudgets are kept where possible: pods whose budget is spent are put back first, and a node with fewer
//! of them among its victims is cheaper.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::Str;
use apimachinery::field::{Error, ErrorList, Path};
use serde::Deserialize;

use crate::budget::Budget;
use crate::cache::{Cache, NodeInfo, Slot};
use crate::diagnosis::{Cause, Diagnosis, histogram};
use crate::framework::{
    ArgumentError, Arguments, Candidate, Code, Nomination, Plugin, PostFilter, PostFilterOutcome, Reason,
    Status,
};
use crate::pod::PodInfo;
use crate::shortlist::Shortlist;

/// Its arguments are `DefaultPreemptionArgs`: how many candidates are looked for. More would find hardly better ones.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct DefaultPreemption {
    /// Of all nodes.
    min_candidate_nodes_percentage: i32,
    /// At least so many.
    min_candidate_nodes_absolute: i32,
}

impl Default for DefaultPreemption {
    fn default() -> Self {
        Self { min_candidate_nodes_percentage: 10, min_candidate_nodes_absolute: 100 }
    }
}

impl DefaultPreemption {
    pub fn new(arguments: &Arguments) -> Result<Self, ArgumentError> {
        arguments.validated(Self::check)
    }

    fn check(&self, errors: &mut ErrorList) {
        let (percentage, absolute) = (self.min_candidate_nodes_percentage, self.min_candidate_nodes_absolute);
        let path = Path::root("minCandidateNodesPercentage");
        let absolute_path = Path::root("minCandidateNodesAbsolute");
        if !(0..=100).contains(&percentage) {
            errors.push(Error::invalid(&path, percentage, "not in valid range [0, 100]"));
        }
        if absolute < 0 {
            errors.push(Error::invalid(&absolute_path, absolute, "not in valid range [0, inf)"));
        }
        if percentage == 0 && absolute == 0 {
            let detail = "cannot be zero at the same time as minCandidateNodesAbsolute";
            errors.push(Error::invalid(&path, percentage, detail));
            let detail = "cannot be zero at the same time as minCandidateNodesPercentage";
            errors.push(Error::invalid(&absolute_path, absolute, detail));
        }
    }

    fn candidates_wanted(&self, nodes: usize) -> usize {
        let share = nodes * self.min_candidate_nodes_percentage as usize / 100;
        share.max(self.min_candidate_nodes_absolute as usize)
    }
}

/// Reason of the condition `DisruptionTarget` on a victim.
pub const PREEMPTION_REASON: &str = "PreemptionByScheduler";

const NOT_HELPFUL: Reason = Reason::Borrowed("Preemption is not helpful for scheduling");
const NO_VICTIMS: Reason = Reason::Borrowed("No preemption victims found for incoming pod");

/// What the dry runs found: candidates, and why the other nodes would still refuse.
#[derive(Default)]
struct DryRuns {
    /// Enough candidates.
    wanted: usize,
    candidates: Vec<Candidate>,
    refusals: BTreeMap<Reason, usize>,
}

impl Plugin for DefaultPreemption {
    fn name(&self) -> &'static str {
        "DefaultPreemption"
    }
}

impl PostFilter for DefaultPreemption {
    fn post_filter(&self, pod: &PodInfo, cluster: &Cache, diagnosis: &Diagnosis<'_>) -> PostFilterOutcome {
        if let Err(why) = eligible(pod, cluster) {
            return PostFilterOutcome { message: format!("preemption: {why}"), nomination: Nomination::Keep };
        }
        let wanted = self.candidates_wanted(diagnosis.node_count);
        let runs = dry_runs(pod, cluster, diagnosis, wanted);
        let choosers = diagnosis.profile.consult_about_preemption(pod);
        match cheapest(&runs.candidates) {
            Some(_) if choosers.is_some() => PostFilterOutcome {
                message: String::new(),
                nomination: Nomination::Choose(with_pods(runs.candidates, cluster)),
            },
            Some(Candidate { node, victims, .. }) => {
                let (node, victims) = (node.clone(), victims.clone());
                PostFilterOutcome { message: String::new(), nomination: Nomination::Make { node, victims } }
            }
            None => {
                let message = format!("preemption: {}", histogram(diagnosis.node_count, runs.refusals));
                PostFilterOutcome { message, nomination: Nomination::Clear }
            }
        }
    }
}

/// The candidate that costs least.
pub fn cheapest(candidates: &[Candidate]) -> Option<&Candidate> {
    candidates.iter().min_by_key(|candidate| cost(candidate))
}

fn with_pods(mut candidates: Vec<Candidate>, cluster: &Cache) -> Vec<Candidate> {
    for candidate in &mut candidates {
        let node = cluster.slot(&candidate.node).and_then(|slot| cluster.node(slot));
        candidate.pods = node.map(|node| node.pods.clone()).unwrap_or_default();
    }
    candidates
}

/// A pod whose victims are still on their way out waits for them.
fn eligible(pod: &PodInfo, cluster: &Cache) -> Result<(), &'static str> {
    if pod.pod.spec.preemption_policy == "Never" {
        return Err("not eligible due to preemptionPolicy=Never.");
    }
    let nominated = cluster.nomination(pod.uid()).and_then(|slot| cluster.node(slot));
    let leaving = |placed: &Arc<PodInfo>| placed.priority() < pod.priority() && is_leaving(placed);
    match nominated.is_some_and(|node| node.pods.iter().any(leaving)) {
        true => Err("not eligible due to a terminating pod on the nominated node."),
        false => Ok(()),
    }
}

fn is_leaving(pod: &PodInfo) -> bool {
    let target = pod.pod.condition("DisruptionTarget");
    pod.pod.is_deleting()
        && target.is_some_and(|target| target.is_true() && target.reason == PREEMPTION_REASON)
}

fn dry_runs(pod: &PodInfo, cluster: &Cache, diagnosis: &Diagnosis<'_>, wanted: usize) -> DryRuns {
    let mut runs = DryRuns { wanted, ..DryRuns::default() };
    if let Cause::Nodes(shortlist) = &diagnosis.cause {
        let refused = shortlist.refused().filter(|(_, refusal)| refusal.status.code == Code::Unschedulable);
        let resolvable: Vec<Slot> = refused.map(|(slot, _)| slot).collect();
        if cluster.lowest_priority().is_some_and(|lowest| lowest < pod.priority()) {
            run_on(&resolvable, pod, cluster, shortlist, diagnosis, &mut runs);
        } else if !resolvable.is_empty() {
            runs.refusals.insert(NO_VICTIMS, resolvable.len());
        }
    }
    let told: usize = runs.refusals.values().sum();
    if told < diagnosis.node_count {
        *runs.refusals.entry(NOT_HELPFUL).or_default() += diagnosis.node_count - told;
    }
    runs
}

fn run_on(
    nodes: &[Slot],
    pod: &PodInfo,
    cluster: &Cache,
    shortlist: &Shortlist,
    diagnosis: &Diagnosis<'_>,
    runs: &mut DryRuns,
) {
    // Another start each time spreads victims over the nodes.
    let start = cluster.generation() as usize % nodes.len().max(1);
    for &slot in nodes[start..].iter().chain(&nodes[..start]) {
        let Some(node) = cluster.node(slot) else { continue };
        let fits = |node: &NodeInfo, gone: &[Arc<PodInfo>]| {
            shortlist.try_filters(diagnosis.profile, pod, cluster, slot, node, gone)
        };
        match candidate(node, pod, cluster, fits) {
            Ok(candidate) => runs.candidates.push(candidate),
            Err(status) => {
                // One reason a node, so that the counts add up to the nodes.
                let reason = status.reasons.into_iter().next().unwrap_or(NOT_HELPFUL);
                *runs.refusals.entry(reason).or_default() += 1;
            }
        }
        if runs.candidates.len() >= runs.wanted {
            return;
        }
    }
}

/// The fewest pods that must go; or why the pod would not fit with all of lower priority gone.
fn candidate(
    node: &NodeInfo,
    pod: &PodInfo,
    cluster: &Cache,
    fits: impl Fn(&NodeInfo, &[Arc<PodInfo>]) -> Result<(), Status>,
) -> Result<Candidate, Status> {
    let mut lower: Vec<Arc<PodInfo>> =
        node.pods.iter().filter(|placed| placed.priority() < pod.priority()).cloned().collect();
    if lower.is_empty() {
        return Err(Status::unresolvable(NO_VICTIMS));
    }
    let mut what_if = node.clone();
    lower.iter().for_each(|placed| _ = what_if.remove_pod(placed.uid()));
    let mut gone = lower.clone();
    fits(&what_if, &gone)?;
    lower.sort_by_key(|placed| importance(placed));
    let mut budgets: Vec<Budget> = cluster.budgets().cloned().collect();
    let (within, beyond): (Vec<_>, Vec<_>) = lower.into_iter().partition(|placed| {
        // Every budget is charged, also after one that refuses.
        budgets.iter_mut().map(|budget| budget.spend_for(placed)).filter(|allowed| !allowed).count() == 0
    });
    let mut must_go = |placed: &Arc<PodInfo>| {
        what_if.add_pod(placed.clone());
        gone.retain(|own| own.uid() != placed.uid());
        let refused = fits(&what_if, &gone).is_err();
        if refused {
            what_if.remove_pod(placed.uid());
            gone.push(placed.clone());
        }
        refused
    };
    let mut victims: Vec<_> = beyond.into_iter().filter(&mut must_go).collect();
    let violations = victims.len();
    victims.extend(within.into_iter().filter(&mut must_go));
    victims.sort_by_key(|placed| importance(placed));
    Ok(Candidate { node: node.name.clone(), victims, violations, pods: Vec::new() })
}

/// More important pods sort first: higher priority, then running for longer. Times are RFC 3339 in UTC, so their
/// texts sort as they do; a pod that has not started is the least important.
fn importance(pod: &PodInfo) -> (Reverse<i32>, bool, Option<Str>) {
    let started = pod.pod.status.start_time.clone();
    (Reverse(pod.priority()), started.is_none(), started)
}

/// Cheaper candidates sort first: fewer budgets are violated, then the most important victim is less important, then the sum of priorities, then the
/// number of victims, then that the most important ones run for a shorter time.
fn cost(candidate: &Candidate) -> (usize, i32, i64, usize, Reverse<Option<Str>>) {
    let highest = candidate.victims.first().map_or(i32::MIN, |victim| victim.priority());
    // Shifted to be positive, so that more victims of negative priority are not cheaper.
    let sum = candidate.victims.iter().map(|victim| i64::from(victim.priority()) - i64::from(i32::MIN)).sum();
    let of_highest = candidate.victims.iter().filter(|victim| victim.priority() == highest);
    let earliest = of_highest.filter_map(|victim| victim.pod.status.start_time.clone()).min();
    (candidate.violations, highest, sum, candidate.victims.len(), Reverse(earliest))
}
