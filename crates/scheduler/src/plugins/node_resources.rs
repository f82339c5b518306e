//! Resources: what fits ([`Fit`]), the emptiest node first ([`Fit`] again), and CPU and memory used evenly
//! ([`BalancedAllocation`]). Both score CPU and memory with weight 1, upstream's default.

use std::borrow::Cow;
use std::sync::Arc;

use api::view::Node;
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::dynamic_resources::{self, BackedResources, Cluster};
use crate::cache::{Cache, NodeInfo, Slot};
use crate::framework::{
    Code, CycleState, EnqueueExtensions, Event, EventSet, Filter, Fragment, Handle, Hint, MAX_NODE_SCORE,
    NotShareable, Plugin, PreFilter, PreScore, Reason, Relevance, Score, Sign, Signature, Status,
};
use crate::pod::PodInfo;
use crate::resource::Resources;

pub struct Fit {
    /// Knows which extended resources devices can serve.
    devices: Arc<Mutex<Cluster>>,
}

pub struct BalancedAllocation;

impl Fit {
    pub fn new(handle: &Handle) -> Self {
        Self { devices: handle.informers.common() }
    }
}

impl Plugin for Fit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }
}

impl Plugin for BalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }
}

fn sign_requests(pod: &PodInfo, signature: &mut Signature) {
    signature.fragment(Fragment::Requests, |out| {
        let Resources { cpu_milli, memory, ephemeral_storage, pods: _, extended } = &pod.requests;
        [*cpu_milli, *memory, *ephemeral_storage].into_iter().for_each(|amount| out.number(amount));
        // Equal requests may differ in how many containers left theirs out.
        [pod.scored_cpu_milli, pod.scored_memory].into_iter().for_each(|amount| out.number(amount));
        out.number(extended.len() as i64);
        for (name, amount) in extended {
            out.text(name);
            out.number(*amount);
        }
    });
}

impl Sign for Fit {
    fn sign(&self, pod: &PodInfo, _: &Cache, signature: &mut Signature) -> Result<(), NotShareable> {
        sign_requests(pod, signature);
        Ok(())
    }
}

impl Sign for BalancedAllocation {
    fn sign(&self, pod: &PodInfo, _: &Cache, signature: &mut Signature) -> Result<(), NotShareable> {
        sign_requests(pod, signature);
        Ok(())
    }
}

impl PreFilter for Fit {
    fn pre_filter(&self, _: &mut CycleState, _: &PodInfo, _: &Cache) -> Result<Relevance, Status> {
        Ok(Relevance::EveryNode)
    }
}

impl Filter for Fit {
    fn filter(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Status> {
        let backed = state.get::<BackedResources>();
        let (code, reasons) =
            shortages(&pod.requests, &node.allocatable, &node.requested, node.pods.len(), backed);
        if reasons.is_empty() { Ok(()) } else { Err(Status { code, reasons }) }
    }
}

/// What is missing, and whether eviction could help (it cannot where the whole node is too small). What devices are to
/// serve is not missing.
fn shortages(
    wanted: &Resources,
    allocatable: &Resources,
    used: &Resources,
    pods: usize,
    backed: Option<&BackedResources>,
) -> (Code, SmallVec<[Reason; 1]>) {
    let mut reasons = SmallVec::new();
    let mut code = Code::Unschedulable;
    if pods as i64 + 1 > allocatable.pods {
        reasons.push(Reason::Borrowed("Too many pods"));
    }
    let mut check = |wanted: i64, allocatable: i64, used: i64, reason: &dyn Fn() -> Reason| {
        if wanted > 0 && wanted > allocatable - used {
            reasons.push(reason());
            if wanted > allocatable {
                code = Code::UnschedulableAndUnresolvable;
            }
        }
    };
    check(wanted.cpu_milli, allocatable.cpu_milli, used.cpu_milli, &|| Cow::Borrowed("Insufficient cpu"));
    check(wanted.memory, allocatable.memory, used.memory, &|| Cow::Borrowed("Insufficient memory"));
    check(wanted.ephemeral_storage, allocatable.ephemeral_storage, used.ephemeral_storage, &|| {
        Cow::Borrowed("Insufficient ephemeral-storage")
    });
    let is_left = |name: &str| backed.is_some_and(|backed| backed.is_left_to_devices(name, allocatable));
    for (name, amount) in wanted.extended.iter().filter(|(name, _)| !is_left(name)) {
        check(*amount, allocatable.extended(name), used.extended(name), &|| {
            Cow::Owned(format!("Insufficient {name}"))
        });
    }
    (code, reasons)
}

impl Score for Fit {
    /// `LeastAllocated`: the mean of the free shares of CPU and memory, missing requests assumed.
    fn score(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let cpu = free_share(node.scored_cpu_milli + pod.scored_cpu_milli, node.allocatable.cpu_milli);
        let memory = free_share(node.scored_memory + pod.scored_memory, node.allocatable.memory);
        let (sum, count) =
            [cpu, memory].into_iter().flatten().fold((0, 0), |(sum, count), share| (sum + share, count + 1));
        if count == 0 { 0 } else { sum / count }
    }
}

/// Of 100, rounded down; `None` where the node has none of the resource.
fn free_share(requested: i64, allocatable: i64) -> Option<i64> {
    match allocatable {
        0 => None,
        _ if requested > allocatable => Some(0),
        // In 128 bits: memory in bytes times 100 overflows 64 bits from 82 PiB on.
        _ => Some(
            ((i128::from(allocatable - requested) * i128::from(MAX_NODE_SCORE)) / i128::from(allocatable))
                as i64,
        ),
    }
}

impl EnqueueExtensions for Fit {
    fn events(&self) -> EventSet {
        EventSet::POD_DELETE
            .with(EventSet::POD_SCALE_DOWN)
            .with(EventSet::NODE_ADD)
            .with(EventSet::NODE_ALLOCATABLE)
            .with(EventSet::DEVICE_CLASS)
    }

    fn hint(&self, pod: &PodInfo, event: &Event<'_>) -> Hint {
        let helps = match event {
            Event::NodeAdded(node) => self.fits_empty(pod, node),
            Event::NodeUpdated { old, new } => {
                self.fits_empty(pod, new) && gained_what_is_wanted(pod, old, new)
            }
            Event::AssignedPodDeleted(_) => true,
            Event::AssignedPodUpdated { old, new } => shrank_what_is_wanted(pod, old, new),
            Event::PodUpdated { new, .. } => new.uid() == pod.uid(),
            Event::Object { new: Some(class), .. } => dynamic_resources::stands_for_request(class, pod),
            _ => false,
        };
        if helps { Hint::Queue } else { Hint::Skip }
    }
}

impl Fit {
    fn fits_empty(&self, pod: &PodInfo, node: &Node) -> bool {
        let allocatable = Resources::from_list(&node.status.allocatable);
        let backed = BackedResources::of(pod, &self.devices.lock().classes);
        shortages(&pod.requests, &allocatable, &Resources::default(), 0, backed.as_ref()).1.is_empty()
    }
}

fn gained_what_is_wanted(pod: &PodInfo, old: &Node, new: &Node) -> bool {
    let (old, new) =
        (Resources::from_list(&old.status.allocatable), Resources::from_list(&new.status.allocatable));
    new.pods > old.pods || exceeds_in_wanted(&pod.requests, &new, &old)
}

fn shrank_what_is_wanted(pod: &PodInfo, old: &PodInfo, new: &PodInfo) -> bool {
    exceeds_in_wanted(&pod.requests, &old.requests, &new.requests)
}

/// `more` has more than `less` of something that is wanted.
fn exceeds_in_wanted(wanted: &Resources, more: &Resources, less: &Resources) -> bool {
    (wanted.cpu_milli > 0 && more.cpu_milli > less.cpu_milli)
        || (wanted.memory > 0 && more.memory > less.memory)
        || (wanted.ephemeral_storage > 0 && more.ephemeral_storage > less.ephemeral_storage)
        || wanted
            .extended
            .iter()
            .any(|(name, amount)| *amount > 0 && more.extended(name) > less.extended(name))
}

impl PreScore for BalancedAllocation {
    /// A pod that requests neither CPU nor memory changes no balance.
    fn pre_score(&self, _: &mut CycleState, pod: &PodInfo, _: &Cache, _: &[Slot]) -> Relevance {
        let best_effort = pod.requests.cpu_milli == 0 && pod.requests.memory == 0;
        if best_effort { Relevance::Skip } else { Relevance::EveryNode }
    }
}

impl Score for BalancedAllocation {
    /// How much more even the use of CPU and memory becomes with the pod: 75 when nothing changes on an even node.
    fn score(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let (used, all) = (&node.requested, &node.allocatable);
        let without = evenness((used.cpu_milli, all.cpu_milli), (used.memory, all.memory));
        let cpu = (used.cpu_milli + pod.requests.cpu_milli, all.cpu_milli);
        let memory = (used.memory + pod.requests.memory, all.memory);
        let with = evenness(cpu, memory);
        MAX_NODE_SCORE / 2 + (MAX_NODE_SCORE / 2 + with - without) / 2
    }
}

/// 100 less the standard deviation of the used shares; resources that the node lacks are left out.
fn evenness(cpu: (i64, i64), memory: (i64, i64)) -> i64 {
    let share = |(requested, allocatable): (i64, i64)| (requested as f64 / allocatable as f64).min(1.0);
    let deviation = match (cpu.1, memory.1) {
        (0, _) | (_, 0) => 0.0,
        _ => ((share(cpu) - share(memory)) / 2.0).abs(),
    };
    ((1.0 - deviation) * MAX_NODE_SCORE as f64) as i64
}
