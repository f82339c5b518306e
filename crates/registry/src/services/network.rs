//! The ranges that Services are given addresses and ports of.
//!
//! Each range has two bands, as upstream's: what is asked for by number may lie anywhere, what is given out is taken
//! from the upper band first, so that numbers in the lower one are seldom in the way of who asks for them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Random tries before the whole range is searched.
const RANDOM_TRIES: usize = 16;

/// What a cluster is told when it starts.
#[derive(Clone, Debug)]
pub struct ServiceNetwork {
    /// One block, or two of different families; the family of the first is the default.
    blocks: Vec<Block>,
    pub node_ports: PortRange,
}

/// What is wrong with `--service-cluster-ip-range` or `--service-node-port-range`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("--service-cluster-ip-range must contain at least one valid cidr")]
    NoBlock,
    #[error("--service-cluster-ip-range must not contain more than two entries")]
    TooManyBlocks,
    #[error("--service-cluster-ip-range[0] and --service-cluster-ip-range[1] must be of different IP family")]
    SameFamily,
    #[error("{0} is not a valid cidr, such as 10.96.0.0/12 or fd00:10:96::/112")]
    Block(String),
    #[error(
        "specified --service-cluster-ip-range is too large; for {width}-bit addresses, the mask must be >= {min}"
    )]
    TooLarge { width: u8, min: u8 },
    #[error("{0} is not a range of ports, such as 30000-32767")]
    Ports(String),
}

impl Default for ServiceNetwork {
    /// kubeadm's `10.96.0.0/12` and upstream's port range.
    fn default() -> Self {
        let block = Block { base: Ipv4Addr::new(10, 96, 0, 0).into(), prefix_len: 12 };
        Self { blocks: vec![block], node_ports: PortRange(30000..=32767) }
    }
}

impl ServiceNetwork {
    /// Reads one block, or two joined by a comma.
    pub fn parse(blocks: &str, node_ports: PortRange) -> Result<Self, Error> {
        /// Bits of host part that upstream allows for its allocators.
        const HOST_BITS_MAX: u8 = 20;
        let blocks: Vec<Block> = blocks
            .split(',')
            .map(str::trim)
            .filter(|block| !block.is_empty())
            .map(Block::from_str)
            .collect::<Result<_, _>>()?;
        match blocks.as_slice() {
            [] => return Err(Error::NoBlock),
            [_] => {}
            [first, second] if first.is_v6() == second.is_v6() => return Err(Error::SameFamily),
            [_, _] => {}
            _ => return Err(Error::TooManyBlocks),
        }
        // IPv6 ranges may be large: nothing here keeps a bit for every address.
        if let Some(large) = blocks.iter().find(|block| {
            if block.is_v6() {
                block.prefix_len < 64
            } else {
                block.width() - block.prefix_len > HOST_BITS_MAX
            }
        }) {
            let min = if large.is_v6() { 64 } else { large.width() - HOST_BITS_MAX };
            return Err(Error::TooLarge { width: large.width(), min });
        }
        Ok(Self { blocks, node_ports })
    }

    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// As `ServiceCIDR`s have it.
    pub fn cidrs(&self) -> Vec<String> {
        self.blocks.iter().map(Block::to_string).collect()
    }

    /// The address of the `kubernetes` Service.
    pub fn first(&self) -> IpAddr {
        self.blocks[0].nth(1)
    }

    /// The address of the Service of cluster DNS, the tenth by tradition; `None` where the range is too small.
    pub fn dns(&self) -> Option<IpAddr> {
        const DNS: u128 = 10;
        (self.blocks[0].size() > DNS + 1).then(|| self.blocks[0].nth(DNS))
    }

    /// The families there are, the default one first.
    pub fn families(&self) -> Vec<&'static str> {
        self.blocks.iter().map(Block::family).collect()
    }
}

/// A block of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    base: IpAddr,
    prefix_len: u8,
}

impl FromStr for Block {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::Block(text.to_owned());
        let (address, length) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let prefix_len: u8 = length.parse().map_err(|_| wrong())?;
        let whole = Self { base: address, prefix_len };
        if prefix_len > whole.width() {
            return Err(wrong());
        }
        let host_bits = whole.width() - prefix_len;
        let masked = number(address).checked_shr(host_bits.into()).unwrap_or(0);
        let base = whole.address(masked.checked_shl(host_bits.into()).unwrap_or(0));
        Ok(Self { base, prefix_len })
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix_len)
    }
}

impl Block {
    fn is_v6(&self) -> bool {
        self.base.is_ipv6()
    }

    fn width(&self) -> u8 {
        if self.is_v6() { 128 } else { 32 }
    }

    pub fn family(&self) -> &'static str {
        family(self.base)
    }

    /// Whether an address is of the block at all.
    pub fn covers(&self, address: IpAddr) -> bool {
        address.is_ipv6() == self.is_v6() && number(address).wrapping_sub(number(self.base)) < self.size()
    }

    /// Whether an address can be given out: not the network's own and, in IPv4, not the broadcast address.
    pub fn has_usable(&self, address: IpAddr) -> bool {
        self.covers(address) && self.usable().contains(&(number(address) - number(self.base)))
    }

    fn size(&self) -> u128 {
        1_u128.checked_shl((self.width() - self.prefix_len).into()).unwrap_or(u128::MAX)
    }

    /// Offsets that can be given out.
    fn usable(&self) -> RangeInclusive<u128> {
        let broadcast = u128::from(!self.is_v6());
        1..=(self.size() - 1).saturating_sub(broadcast)
    }

    /// Where the upper band begins, as an offset.
    fn upper(&self) -> u128 {
        const BAND: Band = Band { min: 16, max: 256, step: 16 };
        // Upstream counts no more of an IPv6 block.
        1 + BAND.lower_size(self.size().min(1 << 16))
    }

    fn nth(&self, offset: u128) -> IpAddr {
        self.address(number(self.base) + offset)
    }

    fn address(&self, number: u128) -> IpAddr {
        if self.is_v6() { Ipv6Addr::from(number).into() } else { Ipv4Addr::from(number as u32).into() }
    }

    /// An address that is free, of the upper band if it has one.
    pub fn pick(&self, is_free: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        let (first, last) = (*self.usable().start(), *self.usable().end());
        let upper = self.upper().min(last + 1);
        let find = |band: RangeInclusive<u128>| pick(band, |offset| is_free(self.nth(offset)));
        find(upper..=last).or_else(|| find(first..=upper - 1)).map(|offset| self.nth(offset))
    }
}

/// A range of node ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRange(RangeInclusive<u16>);

impl FromStr for PortRange {
    type Err = Error;

    /// `low-high`, or `low+more`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::Ports(text.to_owned());
        let number = |text: &str| text.trim().parse::<u16>().map_err(|_| wrong());
        let range = match (text.split_once('-'), text.split_once('+')) {
            (Some((low, high)), _) => number(low)?..=number(high)?,
            (None, Some((low, more))) => {
                let low = number(low)?;
                low..=low.checked_add(number(more)?).ok_or_else(wrong)?
            }
            (None, None) => number(text)?..=number(text)?,
        };
        if range.is_empty() || *range.start() == 0 {
            return Err(wrong());
        }
        Ok(Self(range))
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0.start(), self.0.end())
    }
}

impl PortRange {
    pub fn contains(&self, port: u16) -> bool {
        self.0.contains(&port)
    }

    /// A port that is free, of the upper band if it has one.
    pub fn pick(&self, is_free: impl Fn(u16) -> bool) -> Option<u16> {
        const BAND: Band = Band { min: 16, max: 128, step: 32 };
        let (low, high) = (u128::from(*self.0.start()), u128::from(*self.0.end()));
        let upper = low + BAND.lower_size(high - low + 1);
        let free = |port: u128| u16::try_from(port).is_ok_and(&is_free);
        let found = pick(upper..=high, free).or_else(|| pick(low..=upper - 1, free))?;
        u16::try_from(found).ok()
    }
}

/// How much of a range is its lower band.
struct Band {
    min: u128,
    max: u128,
    step: u128,
}

impl Band {
    fn lower_size(&self, size: u128) -> u128 {
        if size <= self.min { 0 } else { (size / self.step).clamp(self.min, self.max) }
    }
}

/// A number of the range, by chance first and then in order.
fn pick(range: RangeInclusive<u128>, is_free: impl Fn(u128) -> bool) -> Option<u128> {
    if range.is_empty() {
        return None;
    }
    let (first, last) = (*range.start(), *range.end());
    let size = (last - first + 1) as f64;
    let random = (0..RANDOM_TRIES).map(|_| first + ((rt::jitter() * size) as u128).min(last - first));
    random.chain(range).find(|number| is_free(*number))
}

pub fn family(address: IpAddr) -> &'static str {
    if address.is_ipv6() { "IPv6" } else { "IPv4" }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(text: &str) -> Block {
        text.parse().unwrap()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn network_and_broadcast_are_never_given_out() {
        let usable =
            |text: &str, addresses: [&str; 4]| addresses.map(|own| block(text).has_usable(address(own)));
        let four = ["10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.3"];
        assert_eq!(usable("10.0.0.0/30", four), [false, true, true, false]);
        assert_eq!(
            usable("fd00::/126", ["fd00::", "fd00::1", "fd00::3", "fd00::4"]),
            [false, true, true, false]
        );
        assert_eq!(block("10.0.0.7/30").to_string(), "10.0.0.4/30", "host bits are cut off");
        assert!(!block("10.0.0.0/30").covers(address("::1")));
    }

    #[test]
    fn the_upper_band_is_given_out_first() {
        // A /24 has 256 addresses: sixteen of them are the lower band.
        let block = block("10.0.0.0/24");
        for _ in 0..200 {
            let picked = block.pick(|_| true).unwrap();
            assert!(picked >= address("10.0.0.17") && picked <= address("10.0.0.254"), "{picked}");
        }
        let lower = block.pick(|own| own <= address("10.0.0.16")).unwrap();
        assert!(lower >= address("10.0.0.1"), "{lower}");
        assert_eq!(block.pick(|_| false), None);
        let ports: PortRange = "30000-32767".parse().unwrap();
        assert!((0..200).all(|_| ports.pick(|_| true).unwrap() >= 30086));
        assert_eq!(ports.pick(|port| port == 30003), Some(30003));
        assert_eq!("30000-30001".parse::<PortRange>().unwrap().pick(|port| port == 30001), Some(30001));
    }

    #[test]
    fn large_ipv6_blocks_need_no_search() {
        let picked = block("fd00:1::/64").pick(|_| true).unwrap();
        assert!(block("fd00:1::/64").has_usable(picked), "{picked}");
    }

    #[test]
    fn a_network_is_one_block_or_one_of_each_family() {
        let ports = || PortRange(30000..=32767);
        let network = ServiceNetwork::parse("10.0.0.0/16,fd00::/112", ports()).unwrap();
        assert_eq!(network.cidrs(), ["10.0.0.0/16", "fd00::/112"]);
        assert_eq!(network.families(), ["IPv4", "IPv6"]);
        assert_eq!(network.first(), address("10.0.0.1"));
        let cases = [
            ("", Error::NoBlock),
            ("10.0.0.0/16,10.1.0.0/16", Error::SameFamily),
            ("10.0.0.0/16,fd00::/112,fd01::/112", Error::TooManyBlocks),
            ("10.0.0.0", Error::Block("10.0.0.0".into())),
            ("10.0.0.0/33", Error::Block("10.0.0.0/33".into())),
            ("10.0.0.0/8", Error::TooLarge { width: 32, min: 12 }),
            ("fd00::/48", Error::TooLarge { width: 128, min: 64 }),
        ];
        for (text, expected) in cases {
            assert_eq!(ServiceNetwork::parse(text, ports()).unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn ports_are_a_range_that_is_not_empty() {
        assert_eq!("30000+10".parse::<PortRange>().unwrap().to_string(), "30000-30010");
        assert_eq!("30000".parse::<PortRange>().unwrap().to_string(), "30000-30000");
        for wrong in ["", "0-10", "20-10", "a-b", "65535+1", "70000-70001"] {
            assert!(wrong.parse::<PortRange>().is_err(), "{wrong}");
        }
    }
}
