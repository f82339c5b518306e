//! The `networking.k8s.io` group.

pub mod addresses;
pub mod ingress;
pub mod network_policy;

/// The kinds of this group with rules of their own.
pub const RULES: super::Rules = &[
    ("IPAddress", &addresses::IpAddress),
    ("Ingress", &ingress::Ingress),
    ("IngressClass", &ingress::IngressClass),
    ("NetworkPolicy", &network_policy::NetworkPolicy),
    ("ServiceCIDR", &addresses::ServiceCidr),
];
