//! Ranges of addresses, as `10.0.0.0/8` names them.
//!
//! Owns: parsing, and the arithmetic that makes disjoint ranges of a block and its exceptions.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::nftables::{Element, Family};

/// An address block; the bits behind the prefix are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    address: IpAddr,
    prefix_len: u8,
}

/// Addresses as numbers, both ends included.
pub type Range = (u128, u128);

impl Cidr {
    /// From its text; an address alone is a block of one. `None` for what is neither.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix_len) = match text.trim().split_once('/') {
            Some((address, len)) => (address.parse::<IpAddr>().ok()?, Some(len.parse::<u8>().ok()?)),
            None => (text.trim().parse().ok()?, None),
        };
        let width = width(family_of(address));
        let prefix_len = prefix_len.unwrap_or(width);
        (prefix_len <= width).then(|| {
            let first = number(address) & !host_mask(width, prefix_len);
            Self { address: from_number(family_of(address), first), prefix_len }
        })
    }

    pub fn family(&self) -> Family {
        family_of(self.address)
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        let (first, last) = self.range();
        family_of(address) == self.family() && (first..=last).contains(&number(address))
    }

    pub fn range(&self) -> Range {
        let first = number(self.address);
        (first, first | host_mask(width(self.family()), self.prefix_len))
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_len)
    }
}

pub fn family_of(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 }
}

fn width(family: Family) -> u8 {
    if family == Family::Ipv6 { 128 } else { 32 }
}

fn host_mask(width: u8, prefix_len: u8) -> u128 {
    match width - prefix_len {
        128 => u128::MAX,
        bits => (1 << bits) - 1,
    }
}

pub fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn from_number(family: Family, number: u128) -> IpAddr {
    match family {
        Family::Ipv6 => Ipv6Addr::from_bits(number).into(),
        _ => Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX)).into(),
    }
}

/// The bytes of an address in a key.
pub fn address_bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Ranges that cover the same, sorted, neither overlapping nor touching.
pub fn merged(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable();
    let mut out: Vec<Range> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match out.last_mut() {
            Some(previous) if previous.1 >= first.saturating_sub(1) => previous.1 = previous.1.max(last),
            _ => out.push((first, last)),
        }
    }
    out
}

/// What of a range is in none of the others.
pub fn without(range: Range, others: &[Range]) -> Vec<Range> {
    let mut out = Vec::new();
    let mut next = Some(range.0);
    for (first, last) in merged(others.to_vec()) {
        let Some(from) = next else { break };
        if last < from || first > range.1 {
            continue;
        }
        if first > from {
            out.push((from, first - 1));
        }
        next = last.checked_add(1);
    }
    if let Some(from) = next.filter(|from| *from <= range.1) {
        out.push((from, range.1));
    }
    out
}

/// Elements of an interval set whose key is an address.
pub fn interval_elements(family: Family, ranges: &[Range]) -> Vec<Element> {
    let last = host_mask(width(family), 0);
    let bytes = |number| address_bytes(from_number(family, number));
    let element = |&(from, to): &Range| Element::range(bytes(from), (to < last).then(|| bytes(to + 1)));
    ranges.iter().map(element).collect()
}

/// The first and the last address of a range as bytes.
pub fn range_bytes(family: Family, (first, last): Range) -> (Vec<u8>, Vec<u8>) {
    (address_bytes(from_number(family, first)), address_bytes(from_number(family, last)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Range {
        Cidr::parse(text).unwrap().range()
    }

    #[test]
    fn texts_that_are_blocks_are_read() {
        for (text, shown) in [
            ("10.1.2.3/8", Some("10.0.0.0/8")),
            ("1.2.3.4", Some("1.2.3.4/32")),
            (" 0.0.0.0/0", Some("0.0.0.0/0")),
            ("fd00::1/64", Some("fd00::/64")),
            ("::/0", Some("::/0")),
            ("1.2.3.4/33", None),
            ("1.2.3/8", None),
            ("fd00::/129", None),
            ("", None),
        ] {
            assert_eq!(Cidr::parse(text).map(|cidr| cidr.to_string()).as_deref(), shown, "{text:?}");
        }
        assert_eq!(range("::/0"), (0, u128::MAX));
    }

    #[test]
    fn exceptions_are_cut_out_of_a_block() {
        let block = range("10.0.0.0/24");
        let start = block.0;
        let cut = |others: &[&str]| -> Vec<(u128, u128)> {
            let others: Vec<Range> = others.iter().map(|text| range(text)).collect();
            without(block, &others).into_iter().map(|(a, b)| (a - start, b - start)).collect()
        };
        assert_eq!(cut(&[]), [(0, 255)]);
        assert_eq!(cut(&["10.0.0.0/24"]), []);
        assert_eq!(cut(&["10.0.0.0/8"]), []);
        assert_eq!(cut(&["10.0.0.0/25"]), [(128, 255)]);
        assert_eq!(cut(&["10.0.0.64/26", "10.0.0.255"]), [(0, 63), (128, 254)]);
        assert_eq!(cut(&["10.0.1.0/24"]), [(0, 255)]);
        assert_eq!(without(range("::/0"), &[range("::/0")]), []);
    }

    #[test]
    fn touching_ranges_become_one() {
        assert_eq!(merged(vec![(5, 9), (0, 4), (11, 12), (8, 10)]), [(0, 12)]);
        assert_eq!(merged(vec![(0, 1), (3, 4)]), [(0, 1), (3, 4)]);
        assert_eq!(merged(vec![(0, u128::MAX), (3, 4)]), [(0, u128::MAX)]);
    }
}
