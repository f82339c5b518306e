//! [`Pool`]: which addresses of a block are free.
//!
//! Pure: time is an argument. The next address is the one after the last that was given out, so that an address that
//! somebody still has connections to, or in a cache, comes back late; when the block is nearly full, what was freed
//! within [`COOL_DOWN`] is given out last.

use std::collections::{HashSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use rt::Instant;

use super::{Cidr, address_of_node};

/// How long a freed address is left alone while there are others.
pub(super) const COOL_DOWN: Duration = Duration::from_secs(60);
/// Freed addresses that are remembered; of more, the oldest are free at once.
const COOLING_MAX: usize = 4096;

pub(super) struct Pool {
    block: Cidr,
    taken: HashSet<IpAddr>,
    /// Freed ones, in the order in which they were.
    cooling: VecDeque<(Instant, IpAddr)>,
    next: u128,
}

impl Pool {
    pub fn new(block: Cidr) -> Self {
        Self { block, taken: HashSet::new(), cooling: VecDeque::new(), next: 0 }
    }

    pub fn block(&self) -> Cidr {
        self.block
    }

    /// Marks an address that somebody has already; the next one is looked for after it. Those of other blocks are
    /// none of its business.
    pub fn occupy(&mut self, address: IpAddr) {
        if let Some(index) = self.block.position(address) {
            self.taken.insert(address);
            self.next = index + 1;
        }
    }

    pub fn take(&mut self, now: Instant) -> Option<IpAddr> {
        while self.cooling.front().is_some_and(|(since, _)| now.duration_since(*since) >= COOL_DOWN) {
            self.cooling.pop_front();
        }
        let cooling: HashSet<IpAddr> = self.cooling.iter().map(|(_, address)| *address).collect();
        // Whatever it meets that is not free is in one of the sets, or one of the two ends.
        let steps = self.block.size().min((self.taken.len() + cooling.len() + 3) as u128);
        let found = (0..steps).find_map(|step| {
            let index = self.next.wrapping_add(step) % self.block.size();
            let address = self.block.nth(index)?;
            let free = self.is_usable(index) && !self.taken.contains(&address) && !cooling.contains(&address);
            free.then_some(address)
        });
        let address = match found {
            Some(address) => address,
            None => self.cooling.pop_front()?.1,
        };
        self.occupy(address);
        Some(address)
    }

    pub fn free(&mut self, address: IpAddr, now: Instant) {
        if self.taken.remove(&address) {
            if self.cooling.len() == COOLING_MAX {
                self.cooling.pop_front();
            }
            self.cooling.push_back((now, address));
        }
    }

    /// The first address is the node's own end of the tunnel, and no host's by tradition; the second one is what the
    /// node serves pods at, where there is room for it; the last one of IPv4 is broadcast. A block too small for ends
    /// has none.
    fn is_usable(&self, index: u128) -> bool {
        let len = self.block.size();
        let is_end = index == 0 || (self.block.is_ipv4() && index == len - 1);
        len <= 2 || !(is_end || (index == 1 && self.of_node().is_some()))
    }

    /// The address of the block that is not a pod's: [`address_of_node`].
    pub fn of_node(&self) -> Option<IpAddr> {
        address_of_node(&self.block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(block: &str) -> Pool {
        Pool::new(Cidr::parse(block).unwrap())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_come_in_order_without_the_ends() {
        let now = rt::instant();
        let mut pool = pool("10.0.0.0/29");
        let given: Vec<_> = std::iter::from_fn(|| pool.take(now)).collect();
        let wanted: Vec<_> = (2..=6).map(|last| ip(&format!("10.0.0.{last}"))).collect();
        assert_eq!(given, wanted);
    }

    #[test]
    fn a_freed_address_comes_back_after_all_others() {
        let now = rt::instant();
        let mut pool = pool("10.0.0.0/29");
        assert_eq!(pool.take(now), Some(ip("10.0.0.2")));
        pool.free(ip("10.0.0.2"), now);
        for last in 3..=6 {
            assert_eq!(pool.take(now), Some(ip(&format!("10.0.0.{last}"))));
        }
        pool.free(ip("10.0.0.4"), now);
        // Both are cooling and nothing else is left: the oldest first, then none.
        assert_eq!(pool.take(now), Some(ip("10.0.0.2")));
        assert_eq!(pool.take(now), Some(ip("10.0.0.4")));
        assert_eq!(pool.take(now), None);
    }

    #[test]
    fn a_rested_address_is_as_good_as_any() {
        let start = rt::instant();
        let mut pool = pool("10.0.0.0/29");
        while pool.take(start).is_some() {}
        pool.free(ip("10.0.0.5"), start);
        pool.free(ip("10.0.0.2"), start + COOL_DOWN / 2);
        assert_eq!(pool.take(start + COOL_DOWN), Some(ip("10.0.0.5")));
    }

    #[test]
    fn what_is_occupied_is_not_given_out() {
        let mut pool = pool("fd00::/64");
        pool.occupy(ip("fd00::7"));
        pool.occupy(ip("10.0.0.1"));
        assert_eq!(pool.take(rt::instant()), Some(ip("fd00::8")));
        assert_eq!(pool.take(rt::instant()), Some(ip("fd00::9")));
    }

    #[test]
    fn a_block_of_one_address_has_one() {
        let mut pool = pool("10.0.0.7/32");
        assert_eq!(pool.take(rt::instant()), Some(ip("10.0.0.7")));
        assert_eq!(pool.take(rt::instant()), None);
    }
}
