//! The `coordination.k8s.io` group.

pub mod lease;

/// The kinds of this group with rules of their own.
pub const RULES: super::Rules = &[("Lease", &lease::Lease)];
