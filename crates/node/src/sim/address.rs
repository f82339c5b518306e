//! Which simulated pod has which IP address.
//!
//! Owns: ranges ([`Cidr`]), pools, and who holds which address. Never touches: objects.
//!
//! **Invariant (address-unique):** an address is held by at most one pod; it is free again when its holder is
//! released.

use std::collections::HashMap;
use std::fmt;
use std::net::Ipv4Addr;

use apimachinery::Str;

/// An IPv4 range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Cidr {
    base: u32,
    prefix: u8,
}

/// The first two addresses are the network and its gateway, the last is broadcast.
const RESERVED_FIRST: u32 = 2;
const RESERVED_LAST: u32 = 1;

/// Shared by nodes that have no range of their own. Outside of what clusters usually use.
const SHARED: Cidr = Cidr { base: u32::from_be_bytes([100, 64, 0, 0]), prefix: 10 };

/// Addresses of all pods.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    pools: HashMap<Cidr, Pool>,
    /// By pod uid.
    held: HashMap<Str, (Cidr, u32)>,
}

#[derive(Debug)]
struct Pool {
    used: Vec<u64>,
    /// Where the search for a free address goes on, so that one is not reused at once.
    next: u32,
    len: u32,
}

// === impl Cidr ===

impl Cidr {
    /// Reads `10.0.0.0/8`; host bits are dropped.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let (address, prefix) = (address.parse::<Ipv4Addr>().ok()?, prefix.parse::<u8>().ok()?);
        (1..=30).contains(&prefix).then(|| Self { base: u32::from(address) & Self::mask(prefix), prefix })
    }

    /// The prefix of the smallest range that has addresses for so many pods.
    pub fn prefix_for(pods: u32) -> u8 {
        let needed = u64::from(pods) + u64::from(RESERVED_FIRST + RESERVED_LAST);
        let bits = u64::BITS - (needed - 1).leading_zeros();
        32 - bits.clamp(2, 31) as u8
    }

    pub fn len(self) -> u32 {
        1 << (32 - self.prefix)
    }

    /// How many ranges of that prefix are in this one.
    pub fn subnets(self, prefix: u8) -> usize {
        if prefix < self.prefix { 0 } else { 1 << (prefix - self.prefix) }
    }

    pub fn subnet(self, prefix: u8, index: usize) -> Self {
        Self { base: self.base + ((index as u32) << (32 - prefix)), prefix }
    }

    pub fn address(self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.base + offset)
    }

    fn offset(self, address: Ipv4Addr) -> Option<u32> {
        let address = u32::from(address);
        (address & Self::mask(self.prefix) == self.base).then(|| address - self.base)
    }

    fn mask(prefix: u8) -> u32 {
        u32::MAX << (32 - prefix)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address(0), self.prefix)
    }
}

// === impl Addresses ===

impl Addresses {
    /// The range that a node's pods live in.
    pub fn range(pod_cidr: &str) -> Cidr {
        Cidr::parse(pod_cidr).unwrap_or(SHARED)
    }

    /// The pod's address: the one it has, or a free one. `None` when the range is exhausted.
    pub fn hold(&mut self, uid: &Str, range: Cidr) -> Option<Ipv4Addr> {
        if let Some((own, offset)) = self.held.get(uid) {
            return Some(own.address(*offset));
        }
        let offset = self.pools.entry(range).or_insert_with(|| Pool::new(range.len())).take_free()?;
        self.held.insert(uid.clone(), (range, offset));
        Some(range.address(offset))
    }

    /// Takes note of the address in a pod's status. One outside of the range, or held by another pod, is left alone.
    pub fn note(&mut self, uid: &Str, range: Cidr, address: &str) {
        if self.held.contains_key(uid) {
            return;
        }
        let Some(offset) = address.parse().ok().and_then(|address| range.offset(address)) else { return };
        if self.pools.entry(range).or_insert_with(|| Pool::new(range.len())).take(offset) {
            self.held.insert(uid.clone(), (range, offset));
        }
    }

    /// Frees the pod's address; true when it held one.
    pub fn release(&mut self, uid: &str) -> bool {
        let Some((range, offset)) = self.held.remove(uid) else { return false };
        if let Some(pool) = self.pools.get_mut(&range) {
            pool.free(offset);
        }
        true
    }

    /// Frees the addresses of all others.
    pub fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        let gone: Vec<Str> = self.held.keys().filter(|uid| !is_there(uid)).cloned().collect();
        gone.iter().for_each(|uid| _ = self.release(uid));
    }
}

// === impl Pool ===

impl Pool {
    fn new(len: u32) -> Self {
        Self { used: Vec::new(), next: RESERVED_FIRST, len }
    }

    fn take(&mut self, offset: u32) -> bool {
        let (word, bit) = (offset as usize / 64, 1 << (offset % 64));
        if self.used.len() <= word {
            self.used.resize(word + 1, 0);
        }
        let free = self.used[word] & bit == 0;
        self.used[word] |= bit;
        free
    }

    fn take_free(&mut self) -> Option<u32> {
        let last = self.len - 1 - RESERVED_LAST;
        let start = if self.next > last { RESERVED_FIRST } else { self.next };
        let offset = (start..=last).chain(RESERVED_FIRST..start).find(|&offset| self.is_free(offset))?;
        self.take(offset);
        self.next = offset + 1;
        Some(offset)
    }

    fn is_free(&self, offset: u32) -> bool {
        self.used.get(offset as usize / 64).is_none_or(|word| word & (1 << (offset % 64)) == 0)
    }

    fn free(&mut self, offset: u32) {
        if let Some(word) = self.used.get_mut(offset as usize / 64) {
            *word &= !(1 << (offset % 64));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_to_what_pods_need() {
        assert_eq!(Cidr::prefix_for(110), 25);
        assert_eq!(Cidr::prefix_for(125), 25);
        assert_eq!(Cidr::prefix_for(126), 24);
        let all = Cidr::parse("10.128.0.0/9").unwrap();
        assert_eq!(all.subnets(25), 65_536);
        assert_eq!(all.subnet(25, 3).to_string(), "10.128.1.128/25");
        for bad in ["10.0.0.0", "10.0.0.0/33", "fd00::/64", "10.0.0/8", ""] {
            assert_eq!(Cidr::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_address_is_handed_out_once_until_it_is_released() {
        let range = Cidr::parse("10.0.0.0/29").unwrap();
        let mut addresses = Addresses::default();
        addresses.note(&"old".into(), range, "10.0.0.3");
        let mut held: Vec<String> = ["a", "b", "c", "d"]
            .iter()
            .map(|uid| addresses.hold(&(*uid).into(), range).unwrap().to_string())
            .collect();
        held.sort();
        assert_eq!(held, ["10.0.0.2", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
        assert_eq!(addresses.hold(&"e".into(), range), None, "the range is exhausted");
        assert_eq!(addresses.hold(&"old".into(), range).unwrap().to_string(), "10.0.0.3", "kept");
        assert!(addresses.release("b") && !addresses.release("b"));
        assert!(addresses.hold(&"e".into(), range).is_some());
    }

    #[test]
    fn foreign_and_doubly_claimed_addresses_are_left_alone() {
        let range = Cidr::parse("10.0.0.0/29").unwrap();
        let mut addresses = Addresses::default();
        for (uid, address) in [("a", "10.0.0.2"), ("b", "10.0.0.2"), ("c", "10.9.0.2"), ("d", "nonsense")] {
            addresses.note(&uid.into(), range, address);
        }
        assert_eq!(addresses.held.keys().collect::<Vec<_>>(), ["a"]);
        addresses.retain(|uid| uid != "c");
        assert!(addresses.held.contains_key("a"));
        assert_eq!(addresses.hold(&"b".into(), range).unwrap().to_string(), "10.0.0.3");
    }
}
