//! A binary heap of slots that knows where each one stands, so that any can be removed or moved.

/// Position of a slot that is in no heap.
pub(super) const ABSENT: u32 = u32::MAX;

/// Slots ordered by a comparison that is given with each call: the ordered things live elsewhere.
#[derive(Debug, Default)]
pub(super) struct Heap {
    slots: Vec<u32>,
    /// Position in `slots` by slot.
    positions: Vec<u32>,
}

impl Heap {
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn peek(&self) -> Option<u32> {
        self.slots.first().copied()
    }

    /// Adds a slot that is not in the heap. `less(a, b)`: `a` comes out before `b`.
    pub fn push(&mut self, slot: u32, less: impl Fn(u32, u32) -> bool) {
        if self.positions.len() <= slot as usize {
            self.positions.resize(slot as usize + 1, ABSENT);
        }
        debug_assert_eq!(self.positions[slot as usize], ABSENT);
        self.slots.push(slot);
        let last = self.slots.len() - 1;
        self.positions[slot as usize] = last as u32;
        self.rise(last, &less);
    }

    #[cfg(test)]
    pub fn pop(&mut self, less: impl Fn(u32, u32) -> bool) -> Option<u32> {
        let first = self.peek()?;
        self.remove(first, less);
        Some(first)
    }

    /// Removes a slot if it is there.
    pub fn remove(&mut self, slot: u32, less: impl Fn(u32, u32) -> bool) {
        let Some(position) = self.positions.get_mut(slot as usize) else { return };
        let at = std::mem::replace(position, ABSENT) as usize;
        if at >= self.slots.len() {
            return;
        }
        self.slots.swap_remove(at);
        if let Some(&moved) = self.slots.get(at) {
            self.positions[moved as usize] = at as u32;
            self.rise(at, &less);
            self.sink(self.positions[moved as usize] as usize, &less);
        }
    }

    fn rise(&mut self, mut at: usize, less: &impl Fn(u32, u32) -> bool) {
        while at > 0 {
            let parent = (at - 1) / 2;
            if !less(self.slots[at], self.slots[parent]) {
                return;
            }
            self.swap(at, parent);
            at = parent;
        }
    }

    fn sink(&mut self, mut at: usize, less: &impl Fn(u32, u32) -> bool) {
        loop {
            let children = (2 * at + 1)..(2 * at + 3).min(self.slots.len());
            let Some(first) = children.reduce(|a, b| if less(self.slots[b], self.slots[a]) { b } else { a })
            else {
                return;
            };
            if !less(self.slots[first], self.slots[at]) {
                return;
            }
            self.swap(at, first);
            at = first;
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.slots.swap(a, b);
        self.positions[self.slots[a] as usize] = a as u32;
        self.positions[self.slots[b] as usize] = b as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_out_in_order_whatever_was_removed_in_between() {
        let keys: Vec<u32> = (0..200).map(|n: u32| n.wrapping_mul(2_654_435_761) % 1009).collect();
        let less = |a: u32, b: u32| keys[a as usize] < keys[b as usize];
        let mut heap = Heap::default();
        (0..200).for_each(|slot| heap.push(slot, less));
        for slot in (0..200).step_by(3) {
            heap.remove(slot, less);
            heap.remove(slot, less);
        }
        let mut expected: Vec<u32> = (0..200).filter(|slot| slot % 3 != 0).collect();
        expected.sort_by_key(|&slot| keys[slot as usize]);
        let order: Vec<u32> = std::iter::from_fn(|| heap.pop(less)).collect();
        let keys_of = |slots: &[u32]| slots.iter().map(|&slot| keys[slot as usize]).collect::<Vec<_>>();
        assert_eq!(keys_of(&order), keys_of(&expected));
        assert_eq!(heap.len(), 0);
    }
}
