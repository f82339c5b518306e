//! The `scheduling.k8s.io` group.

pub mod pod_group;
pub mod priority_class;

/// The kinds of this group with rules of their own.
pub const RULES: super::Rules =
    &[("PodGroup", &pod_group::PodGroup), ("PriorityClass", &priority_class::PriorityClass)];
