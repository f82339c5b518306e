//! A map of the kernel as we want it, and what is not yet there.
//!
//! Owns: the wanted elements, and the former value of those changed since the last commit. Never touches: the kernel.
//! Changing an element twice before a commit costs one change; changing it back costs none.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::nftables::{Batch, Element, Family, Field};

/// The wanted elements of one set or map, by key.
#[derive(Debug, Default)]
pub struct Mirror {
    wanted: HashMap<Vec<u8>, Element>,
    /// What the kernel has, of the keys that changed.
    before: HashMap<Vec<u8>, Option<Element>>,
}

impl Mirror {
    pub fn put(&mut self, element: Element) {
        let key = element.key.clone();
        let old = self.wanted.insert(key.clone(), element);
        self.before.entry(key).or_insert(old);
    }

    pub fn remove(&mut self, key: &[u8]) {
        if let Some(old) = self.wanted.remove(key) {
            self.before.entry(key.to_vec()).or_insert(Some(old));
        }
    }

    pub fn get(&self, key: &[u8]) -> Option<&Element> {
        self.wanted.get(key)
    }

    /// Puts the element, or removes what is there.
    pub fn set(&mut self, key: &[u8], element: Option<Element>) {
        match element {
            Some(element) if self.wanted.get(key) != Some(&element) => self.put(element),
            Some(_) => {}
            None => self.remove(key),
        }
    }

    pub fn len(&self) -> usize {
        self.wanted.len()
    }

    /// Everything that is wanted.
    pub fn elements(&self) -> Vec<Element> {
        self.wanted.values().cloned().collect()
    }

    /// What has to be deleted and what has to be added, in this order, since the last [`Mirror::committed`].
    pub fn changes(&self) -> (Vec<Element>, Vec<Element>) {
        let (mut deleted, mut added) = (Vec::new(), Vec::new());
        for (key, before) in &self.before {
            let now = self.wanted.get(key);
            if before.as_ref() == now {
                continue;
            }
            deleted.extend(before.as_ref().map(|before| Element::of(before.key.clone())).map(
                |mut element| {
                    element.end = before.as_ref().and_then(|before| before.end.clone());
                    element
                },
            ));
            added.extend(now.cloned());
        }
        (deleted, added)
    }

    /// Writes the changes.
    pub fn write_changes(&self, batch: &mut Batch, family: Family, table: &str, set: &str, key: &[Field]) {
        let (deleted, added) = self.changes();
        batch.delete_elements(family, table, set, key, &deleted);
        batch.add_elements(family, table, set, key, &added);
    }

    /// The kernel has now what is wanted.
    pub fn committed(&mut self) {
        self.before.clear();
        // One large change must not keep its room for ever.
        self.before.shrink_to(64);
    }
}

/// How often each thing is asked for; it is wanted from the first time to the last.
#[derive(Debug)]
pub struct Counted<T>(HashMap<T, usize>);

impl<T> Default for Counted<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: Eq + std::hash::Hash> Counted<T> {
    /// True when it was not wanted before.
    pub fn add(&mut self, item: T) -> bool {
        let count = self.0.entry(item).or_default();
        *count += 1;
        *count == 1
    }

    /// True when nobody wants it any more.
    pub fn remove(&mut self, item: T) -> bool {
        match self.0.entry(item) {
            Entry::Occupied(mut own) if *own.get() > 1 => {
                *own.get_mut() -= 1;
                false
            }
            Entry::Occupied(own) => {
                own.remove();
                true
            }
            Entry::Vacant(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(key: u8, data: u8) -> Element {
        Element::with_data(vec![key], vec![data])
    }

    #[test]
    fn only_the_net_change_is_written() {
        let mut mirror = Mirror::default();
        mirror.put(element(1, 1));
        mirror.put(element(2, 1));
        mirror.put(element(3, 1));
        mirror.committed();
        assert_eq!(mirror.changes(), (vec![], vec![]));
        mirror.put(element(1, 1));
        mirror.put(element(2, 2));
        mirror.put(element(2, 3));
        mirror.remove(&[3]);
        mirror.put(element(4, 1));
        mirror.remove(&[4]);
        mirror.remove(&[5]);
        let (mut deleted, added) = mirror.changes();
        deleted.sort_by(|a, b| a.key.cmp(&b.key));
        assert_eq!(deleted, [Element::of(vec![2]), Element::of(vec![3])]);
        assert_eq!(added, [element(2, 3)]);
        mirror.remove(&[1]);
        mirror.put(element(1, 1));
        assert_eq!(mirror.changes().1.len(), 1, "changed back");
    }

    #[test]
    fn what_several_want_stays_until_the_last_of_them() {
        let mut counted = Counted::default();
        assert_eq!((counted.add(1), counted.add(1)), (true, false));
        assert_eq!((counted.remove(1), counted.remove(1), counted.remove(1)), (false, true, false));
    }
}
