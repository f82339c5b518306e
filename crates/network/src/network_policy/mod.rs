//! NetworkPolicies, as nftables rules.
