//! [`Cidr`]: a block of addresses.

use std::fmt;
use std::net::IpAddr;

/// A block of addresses, by its first one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    first: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// The block that `address` lies in. `None` where the prefix is longer than the address.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let bits = width(address);
        let host_bits = u32::from(bits.checked_sub(prefix)?);
        let base = number(address).checked_shr(host_bits).unwrap_or(0).checked_shl(host_bits).unwrap_or(0);
        Some(Self { first: numbered(address, base), prefix })
    }

    /// Reads `10.244.0.0/24`.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = apimachinery::ip::parse_cidr(text)?;
        Self::new(address, u8::try_from(prefix).ok()?)
    }

    /// One address alone.
    pub fn host(address: IpAddr) -> Self {
        Self { first: address, prefix: width(address) }
    }

    pub fn first(&self) -> IpAddr {
        self.first
    }

    pub fn last(&self) -> IpAddr {
        numbered(self.first, number(self.first) + (self.size() - 1))
    }

    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    pub fn is_ipv4(&self) -> bool {
        self.first.is_ipv4()
    }

    /// How many addresses it has; one too few for all of IPv6.
    pub fn size(&self) -> u128 {
        1_u128.checked_shl(u32::from(width(self.first) - self.prefix)).unwrap_or(u128::MAX)
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        self.position(address).is_some()
    }

    pub fn nth(&self, index: u128) -> Option<IpAddr> {
        (index < self.size()).then(|| numbered(self.first, number(self.first) + index))
    }

    pub fn position(&self, address: IpAddr) -> Option<u128> {
        if address.is_ipv4() != self.is_ipv4() {
            return None;
        }
        number(address).checked_sub(number(self.first)).filter(|index| *index < self.size())
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// The address of this number, in the family of `like`.
fn numbered(like: IpAddr, number: u128) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4((number as u32).into()),
        IpAddr::V6(_) => IpAddr::V6(number.into()),
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

impl fmt::Debug for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_begins_where_its_host_bits_are_zero() {
        for (text, shown, len) in [
            ("10.244.3.9/24", Some("10.244.3.0/24"), 256),
            ("10.0.0.1/32", Some("10.0.0.1/32"), 1),
            ("1.2.3.4/0", Some("0.0.0.0/0"), 1 << 32),
            ("fd00::5/64", Some("fd00::/64"), 1 << 64),
            ("::/0", Some("::/0"), u128::MAX),
            ("10.0.0.0/33", None, 0),
            ("ten", None, 0),
        ] {
            let block = Cidr::parse(text);
            assert_eq!(block.map(|block| block.to_string()).as_deref(), shown, "{text}");
            assert_eq!(block.map_or(0, |block| block.size()), len, "{text}");
        }
    }

    #[test]
    fn it_holds_its_own_addresses_and_no_others() {
        let block = Cidr::parse("10.0.1.0/30").unwrap();
        for (address, index) in [
            ("10.0.0.255", None),
            ("10.0.1.0", Some(0)),
            ("10.0.1.3", Some(3)),
            ("10.0.1.4", None),
            ("::1", None),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(block.position(address), index, "{address}");
            assert_eq!(index.and_then(|index| block.nth(index)), index.map(|_| address));
        }
        assert_eq!(block.nth(4), None);
        assert_eq!(block.last(), "10.0.1.3".parse::<IpAddr>().unwrap());
    }
}
