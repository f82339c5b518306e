//! The `scheduling.k8s.io` group.

pub mod priority_class;

/// The kinds of this group with rules of their own.
pub const RULES: super::Rules = &[("PriorityClass", &priority_class::PriorityClass)];
