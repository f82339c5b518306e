//! Whether a block of addresses can go.

use std::net::IpAddr;

use apimachinery::{Object, Str, Value};

/// One CIDR of a ServiceCIDR.
#[derive(Clone, Debug)]
pub(super) struct Block {
    /// Of the ServiceCIDR.
    name: Str,
    base: IpAddr,
    prefix_len: u32,
}

impl Block {
    pub(super) fn all_of(object: &Object) -> Vec<Self> {
        let tree = object.to_value();
        let texts = tree.array_at(&["spec", "cidrs"]).iter().filter_map(Value::as_str);
        texts.filter_map(|text| Self::parse(object.name(), text)).collect()
    }

    pub(super) fn parse(name: &str, text: &str) -> Option<Self> {
        let (base, length) = text.split_once('/')?;
        Some(Self { name: name.into(), base: base.parse().ok()?, prefix_len: length.parse().ok()? })
    }

    fn contains(&self, address: IpAddr) -> bool {
        let same = |own: u128, other: u128, width: u32| {
            let host = width.saturating_sub(self.prefix_len);
            own.checked_shr(host).unwrap_or(0) == other.checked_shr(host).unwrap_or(0)
        };
        match (self.base, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => same(u32::from(own).into(), u32::from(other).into(), 32),
            (IpAddr::V6(own), IpAddr::V6(other)) => same(own.into(), other.into(), 128),
            _ => false,
        }
    }

    fn contains_block(&self, other: &Self) -> bool {
        self.prefix_len <= other.prefix_len && self.contains(other.base)
    }
}

/// The address that an `IPAddress` stands for, if a Service was given it.
pub(super) fn allocated(object: &Object) -> Option<IpAddr> {
    let metadata = object.metadata_value();
    let manager = metadata["labels"].str_at(&["ipaddress.kubernetes.io/managed-by"]);
    if manager == "ipallocator.k8s.io" { object.name().parse().ok() } else { None }
}

/// A block is needed if it lies in no other one and an address lies in it alone.
pub(super) fn is_needed(name: &str, blocks: &[Block], addresses: &[IpAddr]) -> bool {
    let (own, others): (Vec<&Block>, Vec<&Block>) = blocks.iter().partition(|block| block.name == name);
    if own.iter().all(|block| others.iter().any(|other| other.contains_block(block))) {
        return false;
    }
    addresses.iter().any(|address| {
        own.iter().any(|block| block.contains(*address))
            && !others.iter().any(|block| block.contains(*address))
    })
}
