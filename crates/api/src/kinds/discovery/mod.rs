//! The `discovery.k8s.io` group.

pub mod endpoint_slice;

/// The kinds of this group with rules of their own.
pub const RULES: super::Rules = &[("EndpointSlice", &endpoint_slice::EndpointSlice)];
