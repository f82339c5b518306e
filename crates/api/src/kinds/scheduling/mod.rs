//! The `scheduling.k8s.io` group.

mod group;
pub mod pod_group;
pub mod priority_class;
pub mod workload;

/// The kinds of this group with rules of their own.
pub const RULES: super::Rules = &[
    ("PodGroup", &pod_group::PodGroup),
    ("PriorityClass", &priority_class::PriorityClass),
    ("Workload", &workload::Workload),
];
