//! What a Service promises, as nftables maps.
