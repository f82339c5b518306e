//! Resources: what fits ([`Fit`]), which nodes of those to fill first ([`Fit`] again, by its [`Strategy`]), and
//! resources used evenly ([`BalancedAllocation`]). Both score CPU and memory with weight 1 unless told otherwise.

mod scoring;

use std::borrow::Cow;
use std::sync::Arc;

use api::validation::{resources, selector};
use api::view::Node;
use apimachinery::field::{self, ErrorList, Path};
use parking_lot::Mutex;
use serde::Deserialize;
use smallvec::SmallVec;

use super::dynamic_resources::{self, BackedResources, Cluster};
use crate::cache::{Cache, NodeInfo, Slot};
use crate::framework::{
    ArgumentError, Arguments, Code, CycleState, EnqueueExtensions, Event, EventSet, Filter, Fragment, Handle,
    Hint, MAX_NODE_SCORE, NotShareable, Plugin, PreFilter, PreScore, Reason, Relevance, Score, Sign,
    Signature, Status,
};
use crate::pod::PodInfo;
use crate::resource::Resources;
use scoring::{Basis, ResourceSpec, ScoringStrategy, Strategy, evenness, usages};

pub struct Fit {
    /// Knows which extended resources devices can serve.
    devices: Arc<Mutex<Cluster>>,
    /// Extended resources that need not fit: others see to them.
    ignored: Vec<String>,
    /// The same, for all of a domain.
    ignored_groups: Vec<String>,
    strategy: Strategy,
    scored: Vec<ResourceSpec>,
}

pub struct BalancedAllocation {
    scored: Vec<ResourceSpec>,
}

/// `NodeResourcesFitArgs`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct FitArguments {
    ignored_resources: Vec<String>,
    ignored_resource_groups: Vec<String>,
    scoring_strategy: ScoringStrategy,
}

/// `NodeResourcesBalancedAllocationArgs`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct BalancedAllocationArguments {
    resources: Vec<ResourceSpec>,
}

impl Default for FitArguments {
    fn default() -> Self {
        let scoring_strategy = ScoringStrategy::least_allocated();
        Self { ignored_resources: Vec::new(), ignored_resource_groups: Vec::new(), scoring_strategy }
    }
}

impl FitArguments {
    fn check(&self, errors: &mut ErrorList) {
        let path = Path::root("ignoredResources");
        for (index, name) in self.ignored_resources.iter().enumerate() {
            selector::label_name(errors, name, &path.index(index));
        }
        let path = Path::root("ignoredResourceGroups");
        for (index, group) in self.ignored_resource_groups.iter().enumerate() {
            let path = path.index(index);
            if group.contains('/') {
                errors.push(field::Error::invalid(&path, group, "resource group name can't contain '/'"));
            }
            selector::label_name(errors, group, &path);
        }
        self.scoring_strategy.check(errors, &Path::root("scoringStrategy"));
    }
}

impl BalancedAllocationArguments {
    fn check(&self, errors: &mut ErrorList) {
        let path = Path::root("resources");
        for (index, resource) in self.resources.iter().enumerate() {
            let path = path.index(index);
            if self.resources[..index].iter().any(|earlier| earlier.name == resource.name) {
                errors.push(field::Error::duplicate(&path.child("name"), resource.name.as_str()));
            }
            if !matches!(resource.weight, 0 | 1) {
                errors.push(field::Error::invalid(&path.child("weight"), resource.weight, "must be 1"));
            }
        }
    }
}

impl Fit {
    pub fn new(handle: &Handle, arguments: &Arguments) -> Result<Self, ArgumentError> {
        let FitArguments { ignored_resources, ignored_resource_groups, scoring_strategy } =
            arguments.validated(FitArguments::check)?;
        let (strategy, scored) = scoring_strategy.into_parts();
        let devices = handle.informers.common();
        Ok(Self {
            devices,
            ignored: ignored_resources,
            ignored_groups: ignored_resource_groups,
            strategy,
            scored,
        })
    }

    fn ignores(&self, name: &str) -> bool {
        let has = |names: &[String], name: &str| names.iter().any(|own| own == name);
        let nothing = self.ignored.is_empty() && self.ignored_groups.is_empty();
        let group = || name.split('/').next().unwrap_or(name);
        !nothing
            && resources::is_extended(name)
            && (has(&self.ignored, name) || has(&self.ignored_groups, group()))
    }
}

impl BalancedAllocation {
    pub fn new(arguments: &Arguments) -> Result<Self, ArgumentError> {
        let BalancedAllocationArguments { resources } =
            arguments.validated(BalancedAllocationArguments::check)?;
        Ok(Self { scored: scoring::with_defaults(resources) })
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
            self.shortages(&pod.requests, &node.allocatable, &node.requested, node.pods.len(), backed);
        if reasons.is_empty() { Ok(()) } else { Err(Status { code, reasons }) }
    }
}

impl Fit {
    /// What is missing, and whether eviction could help (it cannot where the whole node is too small).
    /// What others see to, devices or whom the arguments leave it to, is not missing.
    fn shortages(
        &self,
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
        let own = |name: &str| !is_left(name) && !self.ignores(name);
        for (name, amount) in wanted.extended.iter().filter(|(name, _)| own(name)) {
            check(*amount, allocatable.extended(name), used.extended(name), &|| {
                Cow::Owned(format!("Insufficient {name}"))
            });
        }
        (code, reasons)
    }
}

impl PreScore for Fit {
    fn pre_score(&self, _: &mut CycleState, _: &PodInfo, _: &Cache, _: &[Slot]) -> Relevance {
        Relevance::EveryNode
    }
}

impl Score for Fit {
    fn score(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> i64 {
        self.strategy.score(usages(&self.scored, pod, node, Basis::Assumed))
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
        self.shortages(&pod.requests, &allocatable, &Resources::default(), 0, backed.as_ref()).1.is_empty()
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
    /// A pod that requests none of the resources changes no balance.
    fn pre_score(&self, _: &mut CycleState, pod: &PodInfo, _: &Cache, _: &[Slot]) -> Relevance {
        let requests = |resource: &ResourceSpec| resource.requested_by(pod, Basis::Written) > 0;
        if self.scored.iter().any(requests) { Relevance::EveryNode } else { Relevance::Skip }
    }
}

impl Score for BalancedAllocation {
    /// How much more even the use of the resources becomes with the pod: 75 when nothing changes on an even node.
    fn score(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let usages = || usages(&self.scored, pod, node, Basis::Written);
        let without = evenness(usages().map(|usage| (usage.allocated, usage.allocatable)));
        let with = evenness(usages().map(|usage| (usage.requested, usage.allocatable)));
        MAX_NODE_SCORE / 2 + (MAX_NODE_SCORE / 2 + with - without) / 2
    }
}
