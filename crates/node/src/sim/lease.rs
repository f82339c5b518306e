//! Leases of simulated nodes: the heartbeat by which a node counts as alive.
//!
//! Owns: the `Lease`s of simulated nodes, renewed by one task. A wheel spreads the nodes over the interval, so that
//! a few are written at a time and nothing happens per node in between.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::Str;
use client::Api;
use futures::StreamExt;
use parking_lot::Mutex;
use tracing::debug;

use crate::lease::{self, RENEW};

const RENEW_MIN: Duration = RENEW;
/// Many nodes renew less often. With the spread this stays below the 50 s after which a node counts as lost.
const RENEW_MAX: Duration = Duration::from_secs(30);
/// Renewals per second above which the interval grows.
const RENEWALS_PER_SECOND: usize = 500;

/// Positions of the wheel.
const SLOTS: usize = 64;

/// Lease writes at the same time.
const WRITES_MAX: usize = 32;

/// Which nodes are renewed when.
pub(super) struct Wheel {
    slots: Mutex<Slots>,
}

struct Slots {
    /// The uid of each node by its name.
    nodes: Vec<HashMap<Str, Str>>,
    next: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Holder {
    name: Str,
    uid: Str,
}

// === impl Wheel ===

impl Wheel {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { slots: Mutex::new(Slots { nodes: vec![HashMap::new(); SLOTS], next: 0 }) })
    }

    /// Keeps a node alive from now on.
    pub fn add(&self, name: &Str, uid: &Str) {
        let mut slots = self.slots.lock();
        let next = slots.next;
        slots.next = (next + 1) % SLOTS;
        slots.nodes[next].insert(name.clone(), uid.clone());
    }

    pub fn remove(&self, name: &str) {
        self.slots.lock().nodes.iter_mut().for_each(|slot| _ = slot.remove(name));
    }

    fn at(&self, slot: usize) -> Vec<Holder> {
        let slots = self.slots.lock();
        slots.nodes[slot].iter().map(|(name, uid)| Holder { name: name.clone(), uid: uid.clone() }).collect()
    }

    /// From one slot to the next, for as many nodes as there are now: they come and go.
    fn tick(&self) -> Duration {
        interval(self.slots.lock().nodes.iter().map(HashMap::len).sum()) / SLOTS as u32
    }
}

/// How often each of so many nodes renews.
fn interval(nodes: usize) -> Duration {
    Duration::from_secs((nodes / RENEWALS_PER_SECOND) as u64).clamp(RENEW_MIN, RENEW_MAX)
}

/// Renews leases for ever.
pub(super) async fn keep(api: Arc<dyn Api>, wheel: Arc<Wheel>) {
    let mut due = rt::instant();
    for slot in (0..SLOTS).cycle() {
        rt::sleep_until(due).await;
        futures::stream::iter(wheel.at(slot))
            .for_each_concurrent(WRITES_MAX, |holder| renew(&*api, holder))
            .await;
        // When the API server is slow, later ticks come later instead of all at once.
        due = (due + wheel.tick()).max(rt::instant());
    }
}

async fn renew(api: &dyn Api, holder: Holder) {
    if let Err(status) = lease::renew(api, &holder.name, &holder.uid).await {
        // The next turn of the wheel is the retry.
        debug!(name = %holder.name, error = %status, "Renewed no lease");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_spread_over_the_wheel_and_leave_it() {
        let wheel = Wheel::new();
        (0..SLOTS * 2).for_each(|n| wheel.add(&format!("n{n}").into(), &"u".into()));
        assert!((0..SLOTS).all(|slot| wheel.at(slot).len() == 2));
        wheel.remove("n0");
        assert_eq!(wheel.at(0), [Holder { name: "n64".into(), uid: "u".into() }]);
    }

    #[test]
    fn many_nodes_renew_less_often_but_in_time() {
        for (count, seconds) in [(0, 10), (5_000, 10), (10_000, 20), (100_000, 30)] {
            assert_eq!(interval(count), Duration::from_secs(seconds));
        }
        assert!(RENEW_MAX.as_secs() < lease::DURATION_SECONDS as u64);
    }

    #[test]
    fn the_wheel_turns_for_as_many_nodes_as_there_are() {
        let wheel = Wheel::new();
        assert_eq!(wheel.tick(), RENEW_MIN / SLOTS as u32);
        (0..20_000).for_each(|n| wheel.add(&format!("n{n}").into(), &"u".into()));
        assert_eq!(wheel.tick(), RENEW_MAX / SLOTS as u32);
        (0..15_000).for_each(|n| wheel.remove(&format!("n{n}")));
        assert_eq!(wheel.tick(), RENEW_MIN / SLOTS as u32);
    }
}
