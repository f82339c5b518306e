//! Pod network, also as a CNI plugin, Services, NetworkPolicies and cluster DNS.

pub mod cni;
pub mod dns;
pub mod network_policy;
pub mod nftables;
pub mod pod_network;
pub mod service_proxy;
