//! The visible list of plugins.

use super::default_binder::DefaultBinder;
use super::default_preemption::DefaultPreemption;
use super::dynamic_resources::DynamicResources;
use super::gang_scheduling::{GANG_SCHEDULING, GangScheduling};
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
use super::volumes::{NodeVolumeLimits, VolumeBinding, VolumeRestrictions, VolumeZone};
use crate::framework::{ArgumentError, Arguments, Handle, Profile, ProfileError, Registration};

/// Makes a plugin with the points it can serve.
pub type Factory = fn(&Handle, &Arguments) -> Result<Registration, ArgumentError>;

/// A plugin that a profile can have.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub name: &'static str,
    /// Whether the default profile has it.
    pub default: bool,
    /// How much its score counts there; 0 for one that does not score.
    pub weight: i64,
    pub factory: Factory,
}

/// The plugins of upstream's default profile that exist here, in upstream's order and with upstream's weights.
pub const DEFAULT: &[Row] = &[
    row("SchedulingGates", 0, |_, _| Ok(Registration::of(SchedulingGates).pre_enqueue().done())),
    row("PrioritySort", 0, |_, _| Ok(Registration::of(PrioritySort).queue_sort().done())),
    row("NodeUnschedulable", 0, |_, _| Ok(Registration::of(NodeUnschedulable).filter().done())),
    row("NodeName", 0, |_, _| Ok(Registration::of(NodeName).filter().done())),
    row("TaintToleration", 3, |_, _| {
        Ok(Registration::of(TaintToleration).filter().pre_score().score().done())
    }),
    row("NodeAffinity", 2, |_, arguments| {
        Ok(Registration::of(NodeAffinity::new(arguments)?).pre_filter().filter().pre_score().score().done())
    }),
    row("NodePorts", 0, |_, _| Ok(Registration::of(NodePorts).pre_filter().filter().done())),
    row("NodeResourcesFit", 1, |handle, arguments| {
        let plugin = Registration::of(Fit::new(handle, arguments)?);
        Ok(plugin.pre_filter().filter().pre_score().score().done())
    }),
    row("VolumeRestrictions", 0, |handle, _| {
        Ok(Registration::of(VolumeRestrictions::new(handle)).pre_filter().filter().done())
    }),
    row("NodeVolumeLimits", 0, |handle, _| {
        Ok(Registration::of(NodeVolumeLimits::new(handle)).pre_filter().filter().done())
    }),
    row("VolumeBinding", 0, |handle, arguments| {
        let plugin = Registration::of(VolumeBinding::new(handle, arguments)?);
        Ok(plugin.pre_filter().filter().reserve().pre_bind().done())
    }),
    row("VolumeZone", 0, |handle, _| {
        Ok(Registration::of(VolumeZone::new(handle)).pre_filter().filter().done())
    }),
    row("PodTopologySpread", 2, |handle, arguments| {
        Ok(Registration::of(PodTopologySpread::new(handle, arguments)?)
            .pre_filter()
            .filter()
            .pre_score()
            .score()
            .done())
    }),
    row("InterPodAffinity", 2, |_, arguments| {
        Ok(Registration::of(InterPodAffinity::new(arguments)?)
            .pre_filter()
            .filter()
            .pre_score()
            .score()
            .done())
    }),
    row("DynamicResources", 2, |handle, arguments| {
        let plugin = Registration::of(DynamicResources::new(handle, arguments)?);
        let plugin = plugin.pre_enqueue().pre_filter().filter().post_filter().pre_score().score();
        Ok(plugin.reserve().pre_bind().done())
    }),
    row("DefaultPreemption", 0, |_, arguments| {
        Ok(Registration::of(DefaultPreemption::new(arguments)?).post_filter().done())
    }),
    row("NodeResourcesBalancedAllocation", 1, |_, arguments| {
        Ok(Registration::of(BalancedAllocation::new(arguments)?).pre_score().score().done())
    }),
    row("ImageLocality", 1, |_, _| Ok(Registration::of(ImageLocality).pre_score().score().done())),
    row("DefaultBinder", 0, |handle, _| Ok(Registration::of(DefaultBinder::new(handle)).bind().done())),
];

const fn row(name: &'static str, weight: i64, factory: Factory) -> Row {
    Row { name, default: true, weight, factory }
}

/// What the default profile has besides where pods are scheduled in groups.
const GROUPS: &[Row] = &[row(GANG_SCHEDULING, 0, |handle, _| {
    let groups = handle.groups.clone().unwrap_or_default();
    Ok(Registration::of(GangScheduling::new(groups)).pre_enqueue().done())
})];

/// The rows that a profile can have: the default ones.
pub fn rows(groups: bool) -> Vec<Row> {
    DEFAULT.iter().chain(if groups { GROUPS } else { &[] }).copied().collect()
}

/// The rows of the default profile.
fn default_rows(handle: &Handle) -> impl Iterator<Item = &'static Row> {
    let groups: &[Row] = if handle.groups.is_some() { GROUPS } else { &[] };
    DEFAULT.iter().chain(groups)
}

/// The plugins of the default profile.
pub fn default_plugins(handle: &Handle) -> Vec<Registration> {
    let make = |row: &Row| (row.factory)(handle, &Arguments::default()).map(|made| made.weighing(row.weight));
    default_rows(handle).map(|row| make(row).expect("plugins take their defaults")).collect()
}

/// The default profile for pods that name `scheduler_name`.
pub fn default_profile(scheduler_name: &str, handle: &Handle) -> Result<Profile, ProfileError> {
    Profile::new(scheduler_name, default_plugins(handle))
}
