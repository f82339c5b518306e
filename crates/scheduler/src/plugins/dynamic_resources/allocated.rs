//! [`Allocated`]: what is taken of each device, kept as claims come and go.
//!
//! Counted, not noted: two claims may say that they have the same device (somebody wrote one by hand), and it is free
//! only when both have let go.

use std::collections::{BTreeMap, HashMap};

use api::view::{AllocationResult, DeviceRequestAllocationResult};
use apimachinery::{Quantity, Str};

use super::inventory::PoolId;

#[derive(Debug, Default)]
pub struct Allocated {
    pools: HashMap<PoolId, TakenDevices>,
}

/// Of one pool, by device.
pub type TakenDevices = HashMap<Str, Taken>;

/// What is taken of one device.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Taken {
    /// Claims that have it for themselves.
    pub whole: usize,
    /// Claims' shares of it.
    pub shares: usize,
    /// What the shares take in all.
    pub capacity: BTreeMap<Str, Quantity>,
}

impl Allocated {
    pub fn add(&mut self, allocation: &AllocationResult) {
        for result in taking(allocation) {
            let taken =
                self.pools.entry(pool_of(result)).or_default().entry(result.device.clone()).or_default();
            match result.share_id {
                None => taken.whole += 1,
                Some(_) => {
                    taken.shares += 1;
                    add_capacity(&mut taken.capacity, &result.consumed_capacity);
                }
            }
        }
    }

    pub fn remove(&mut self, allocation: &AllocationResult) {
        for result in taking(allocation) {
            let id = pool_of(result);
            let Some(devices) = self.pools.get_mut(&id) else { continue };
            let Some(taken) = devices.get_mut(&result.device) else { continue };
            match result.share_id {
                None => taken.whole = taken.whole.saturating_sub(1),
                Some(_) => {
                    taken.shares = taken.shares.saturating_sub(1);
                    remove_capacity(&mut taken.capacity, &result.consumed_capacity);
                }
            }
            if taken.whole == 0 && taken.shares == 0 {
                devices.remove(&result.device);
            }
            if devices.is_empty() {
                self.pools.remove(&id);
            }
        }
    }

    /// `None` when nothing of the pool is taken.
    pub fn of_pool(&self, id: &PoolId) -> Option<&TakenDevices> {
        self.pools.get(id)
    }
}

/// Who only looks at a device takes nothing.
fn taking(allocation: &AllocationResult) -> impl Iterator<Item = &DeviceRequestAllocationResult> {
    allocation.devices.results.iter().filter(|result| !result.admin_access)
}

fn pool_of(result: &DeviceRequestAllocationResult) -> PoolId {
    PoolId { driver: result.driver.clone(), name: result.pool.clone() }
}

pub fn add_capacity(sum: &mut BTreeMap<Str, Quantity>, more: &BTreeMap<Str, Quantity>) {
    for (name, amount) in more {
        let own = sum.entry(name.clone()).or_default();
        *own = own.add(*amount);
    }
}

pub fn remove_capacity(sum: &mut BTreeMap<Str, Quantity>, less: &BTreeMap<Str, Quantity>) {
    for (name, amount) in less {
        if let Some(own) = sum.get_mut(name) {
            *own = own.sub(*amount);
        }
    }
}
