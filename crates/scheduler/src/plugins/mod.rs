//! The plugins, one file each; [`registry`] is the one list.

mod default_binder;
mod default_preemption;
mod dynamic_resources;
mod gang_scheduling;
mod image_locality;
mod inter_pod_affinity;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_resources;
mod node_unschedulable;
mod pod_topology_spread;
mod priority_sort;
mod registry;
mod scheduling_gates;
mod taint_toleration;
mod tally;
mod volumes;

pub use default_preemption::{PREEMPTION_REASON, cheapest};
pub use gang_scheduling::GANG_SCHEDULING;
pub use registry::{DEFAULT, Factory, Row, default_plugins, default_profile, rows};

#[cfg(test)]
mod tests;
