//! Says whether evicting pods of lower priority would make room, in upstream's words.
//!
//! FIXME: it does not evict yet. Where eviction would help, it says nothing and the pod waits for room.

use std::collections::BTreeMap;

use crate::cache::{Cache, NodeInfo};
use crate::diagnosis::{Cause, Diagnosis, histogram};
use crate::framework::{Code, Plugin, PostFilter, Reason, Status};
use crate::pod::PodInfo;
use crate::shortlist::Shortlist;

pub struct DefaultPreemption;

const NOT_HELPFUL: Reason = Reason::Borrowed("Preemption is not helpful for scheduling");
const NO_VICTIMS: Reason = Reason::Borrowed("No preemption victims found for incoming pod");

impl Plugin for DefaultPreemption {
    fn name(&self) -> &'static str {
        "DefaultPreemption"
    }
}

impl PostFilter for DefaultPreemption {
    fn post_filter(&self, pod: &PodInfo, cluster: &Cache, diagnosis: &Diagnosis<'_>) -> String {
        if pod.pod.spec.preemption_policy == "Never" {
            return "preemption: not eligible due to preemptionPolicy=Never.".to_owned();
        }
        match refusals_after_eviction(pod, cluster, diagnosis) {
            Some(counts) => format!("preemption: {}", histogram(diagnosis.node_count, counts)),
            None => String::new(),
        }
    }
}

/// Why nodes would still refuse with all pods of lower priority gone; `None` when one would not.
fn refusals_after_eviction(
    pod: &PodInfo,
    cluster: &Cache,
    diagnosis: &Diagnosis<'_>,
) -> Option<BTreeMap<Reason, usize>> {
    let mut counts = BTreeMap::new();
    if let Cause::Nodes(shortlist) = &diagnosis.cause
        && diagnosis.is_resolvable()
    {
        if cluster.lowest_priority().is_some_and(|lowest| lowest < pod.priority()) {
            count_dry_runs(pod, cluster, shortlist, diagnosis, &mut counts)?;
        } else {
            let resolvable =
                shortlist.refusals().filter(|refusal| refusal.status.code == Code::Unschedulable);
            counts.insert(NO_VICTIMS, resolvable.map(|refusal| refusal.nodes).sum());
        }
    }
    let told: usize = counts.values().sum();
    if told < diagnosis.node_count {
        *counts.entry(NOT_HELPFUL).or_default() += diagnosis.node_count - told;
    }
    Some(counts)
}

fn count_dry_runs(
    pod: &PodInfo,
    cluster: &Cache,
    shortlist: &Shortlist,
    diagnosis: &Diagnosis<'_>,
    counts: &mut BTreeMap<Reason, usize>,
) -> Option<()> {
    let resolvable = shortlist.refused().filter(|(_, refusal)| refusal.status.code == Code::Unschedulable);
    for node in resolvable.filter_map(|(slot, _)| cluster.node(slot)) {
        let refusal = match without_lower(node, pod.priority()) {
            None => Status::unresolvable(NO_VICTIMS),
            Some(emptied) => shortlist.try_filters(diagnosis.profile, &emptied).err()?,
        };
        // One reason a node, so that the counts add up to the nodes.
        let reason = refusal.reasons.first().cloned().unwrap_or(NOT_HELPFUL);
        *counts.entry(reason).or_default() += 1;
    }
    Some(())
}

/// The node as it would be without the pods of lower priority; `None` when it has none.
fn without_lower(node: &NodeInfo, priority: i32) -> Option<NodeInfo> {
    let victims: Vec<_> = node.pods.iter().filter(|pod| pod.priority() < priority).cloned().collect();
    if victims.is_empty() {
        return None;
    }
    let mut emptied = node.clone();
    victims.iter().for_each(|victim| _ = emptied.remove_pod(victim.uid()));
    Some(emptied)
}
