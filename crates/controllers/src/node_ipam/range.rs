//! The range of all pods, and the ranges of nodes in it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bits of a node's range, of either family, as upstream's defaults have them.
const NODE_BITS_V4: u8 = 24;
const NODE_BITS_V6: u8 = 64;

/// At most so many bits tell nodes apart, as upstream limits them: 65,536 nodes.
const NODE_INDEX_BITS_MAX: u8 = 16;

/// Where nodes take the addresses of their pods from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterCidr {
    base: u128,
    bits: u8,
    is_v6: bool,
}

/// `--cluster-cidr` cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterCidrError {
    #[error("{0:?} is not a range such as 10.244.0.0/16 or fd00:244::/48")]
    NotARange(String),
    #[error(
        "{range:?} must have a prefix of {min} to {max} bits: nodes get /{max} each, and at most 65,536 nodes are possible"
    )]
    Prefix { range: String, min: u8, max: u8 },
    #[error("{0:?}: at most one range of each family is possible")]
    Family(String),
}

impl ClusterCidr {
    /// Reads one range, or one of each family joined by a comma.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, ClusterCidrError> {
        let ranges: Vec<Self> = text.split(',').map(Self::parse).collect::<Result<_, _>>()?;
        let same_family = |a: &Self, b: &Self| a.is_v6 == b.is_v6;
        if ranges.len() > 2 || (ranges.len() == 2 && same_family(&ranges[0], &ranges[1])) {
            return Err(ClusterCidrError::Family(text.to_owned()));
        }
        Ok(ranges)
    }

    fn parse(text: &str) -> Result<Self, ClusterCidrError> {
        let text = text.trim();
        let not_a_range = || ClusterCidrError::NotARange(text.to_owned());
        let (address, bits) = text.split_once('/').ok_or_else(not_a_range)?;
        let address: IpAddr = address.parse().map_err(|_| not_a_range())?;
        let bits: u8 = bits.parse().map_err(|_| not_a_range())?;
        let (base, width, is_v6) = match address {
            IpAddr::V4(address) => (u128::from(u32::from(address)), 32, false),
            IpAddr::V6(address) => (u128::from(address), 128, true),
        };
        let max = if is_v6 { NODE_BITS_V6 } else { NODE_BITS_V4 };
        let min = max - NODE_INDEX_BITS_MAX;
        if !(min..=max).contains(&bits) {
            return Err(ClusterCidrError::Prefix { range: text.to_owned(), min, max });
        }
        let host_bits = width - bits;
        Ok(Self { base: base >> host_bits << host_bits, bits, is_v6 })
    }

    fn node_bits(self) -> u8 {
        if self.is_v6 { NODE_BITS_V6 } else { NODE_BITS_V4 }
    }

    /// The first node's range that is none of `taken`.
    pub(super) fn first_free(&self, taken: &[String]) -> Option<String> {
        let count = 1_u128 << (self.node_bits() - self.bits);
        let taken: std::collections::HashSet<u128> =
            taken.iter().filter_map(|range| self.index_of(range)).collect();
        (0..count).find(|index| !taken.contains(index)).map(|index| self.subnet(index))
    }

    fn step(self) -> u128 {
        let width = if self.is_v6 { 128 } else { 32 };
        1 << (width - self.node_bits())
    }

    fn subnet(self, index: u128) -> String {
        let base = self.base + index * self.step();
        let address = if self.is_v6 {
            IpAddr::V6(Ipv6Addr::from(base))
        } else {
            IpAddr::V4(Ipv4Addr::from(u32::try_from(base).expect("the range was checked to be of version 4")))
        };
        format!("{address}/{}", self.node_bits())
    }

    /// Which node's range this is, if it is one of ours.
    fn index_of(self, range: &str) -> Option<u128> {
        let address: IpAddr = range.split('/').next()?.parse().ok()?;
        let (value, is_v6) = match address {
            IpAddr::V4(address) => (u128::from(u32::from(address)), false),
            IpAddr::V6(address) => (u128::from(address), true),
        };
        (is_v6 == self.is_v6).then_some(())?;
        let index = value.checked_sub(self.base)? / self.step();
        (index < 1 << (self.node_bits() - self.bits)).then_some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_checked_with_what_is_allowed() {
        assert!(ClusterCidr::parse_list("10.244.0.0/16,fd00::/48").is_ok());
        for (text, wanted) in [
            ("10.244.0.0", "not a range"),
            ("10.244.0.0/x", "not a range"),
            ("10.0.0.0/25", "8 to 24 bits"),
            ("fd00::/40", "48 to 64 bits"),
            ("10.0.0.0/16,10.1.0.0/16", "one range of each family"),
        ] {
            let error = ClusterCidr::parse_list(text).unwrap_err().to_string();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }

    #[test]
    fn the_first_free_range_is_taken_and_others_do_not_count() {
        let range = ClusterCidr::parse("10.244.0.0/22").unwrap();
        let taken = |list: &[&str]| list.iter().map(|own| (*own).to_owned()).collect::<Vec<_>>();
        assert_eq!(range.first_free(&[]).as_deref(), Some("10.244.0.0/24"));
        let some = taken(&["10.244.0.0/24", "10.244.2.0/24", "10.9.1.0/24", "", "fd00::/64"]);
        assert_eq!(range.first_free(&some).as_deref(), Some("10.244.1.0/24"));
        let all = taken(&["10.244.0.0/24", "10.244.1.0/25", "10.244.2.0/24", "10.244.3.0/24"]);
        assert_eq!(range.first_free(&all), None);
    }
}
