//! The visible list of plugins, in upstream's order and with upstream's weights.

use super::default_binder::DefaultBinder;
use super::default_preemption::DefaultPreemption;
use super::image_locality::ImageLocality;
use super::inter_pod_affinity::InterPodAffinity;
use super::node_affinity::NodeAffinity;
use super::node_name::NodeName;
use super::node_ports::NodePorts;
use super::node_resources::{BalancedAllocation, Fit};
use super::node_unschedulable::NodeUnschedulable;
use super::pod_topology_spread::PodTopologySpread;
use super::priority_sort::PrioritySort;
use super::scheduling_gates::SchedulingGates;
use super::taint_toleration::TaintToleration;
use crate::framework::{Profile, ProfileError, Registration};

/// The plugins of upstream's default profile that exist here.
pub fn default_plugins() -> Vec<Registration> {
    vec![
        Registration::of(SchedulingGates).pre_enqueue().done(),
        Registration::of(PrioritySort).queue_sort().done(),
        Registration::of(NodeUnschedulable).filter().done(),
        Registration::of(NodeName).filter().done(),
        Registration::of(TaintToleration).filter().pre_score().score(3).done(),
        Registration::of(NodeAffinity).pre_filter().filter().pre_score().score(2).done(),
        Registration::of(NodePorts).pre_filter().filter().done(),
        Registration::of(Fit).pre_filter().filter().score(1).done(),
        Registration::of(PodTopologySpread).pre_filter().filter().pre_score().score(2).done(),
        Registration::of(InterPodAffinity).pre_filter().filter().pre_score().score(2).done(),
        Registration::of(DefaultPreemption).post_filter().done(),
        Registration::of(BalancedAllocation).pre_score().score(1).done(),
        Registration::of(ImageLocality).pre_score().score(1).done(),
        Registration::of(DefaultBinder).bind().done(),
    ]
}

/// The profile for pods that name `scheduler_name`.
pub fn default_profile(scheduler_name: &str) -> Result<Profile, ProfileError> {
    Profile::new(scheduler_name, default_plugins())
}
