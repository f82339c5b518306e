//! [`Tally`]: numbers by domain of one topology, made of what each node adds. When a node changes, what it added is
//! exchanged and nothing else is counted again.

use std::collections::HashMap;

use apimachinery::Str;

use crate::cache::{NodeInfo, Slot};

/// Sums over the nodes of each domain, which are those with one value of a label.
#[derive(Debug)]
pub struct Tally {
    pub key: Str,
    domains: HashMap<Str, Domain>,
    /// By slot.
    places: Vec<Option<Place>>,
    /// Of all domains.
    total: i64,
}

#[derive(Debug, Default)]
pub struct Domain {
    pub amount: i64,
    /// How many of the nodes take part in the sum.
    pub counted: usize,
    /// What the owner has made of the amount.
    pub is_closed: bool,
    nodes: Vec<Slot>,
}

/// Where a node is, and what it adds; `None` takes no part.
#[derive(Clone, Debug, PartialEq)]
struct Place {
    value: Str,
    amount: Option<i64>,
}

// === impl Domain ===

impl Domain {
    fn add(&mut self, amount: Option<i64>) {
        self.amount += amount.unwrap_or(0);
        self.counted += usize::from(amount.is_some());
    }

    fn take(&mut self, amount: Option<i64>) {
        self.amount -= amount.unwrap_or(0);
        self.counted -= usize::from(amount.is_some());
    }
}

// === impl Tally ===

impl Tally {
    pub fn new(key: &Str) -> Self {
        Self { key: key.clone(), domains: HashMap::new(), places: Vec::new(), total: 0 }
    }

    /// The domain that a node is in.
    pub fn domain(&self, node: &NodeInfo) -> Option<&Domain> {
        self.domains.get(node.node.as_ref()?.metadata.labels.get(&self.key)?)
    }

    /// The sum of the node's domain.
    pub fn of(&self, node: &NodeInfo) -> i64 {
        self.domain(node).map_or(0, |domain| domain.amount)
    }

    pub fn total(&self) -> i64 {
        self.total
    }

    /// Domains in which some node takes part.
    pub fn counted(&self) -> impl Iterator<Item = (&Str, i64)> {
        self.domains.iter().filter(|(_, domain)| domain.counted > 0).map(|(value, own)| (value, own.amount))
    }

    /// Says what the node in a slot adds now; true when it is in another domain. Nodes of domains whose sum before and
    /// after `matters` go to `affected`.
    pub fn set(
        &mut self,
        slot: Slot,
        node: Option<&NodeInfo>,
        amount: Option<i64>,
        matters: impl Fn(i64, i64) -> bool,
        affected: &mut Vec<Slot>,
    ) -> bool {
        if self.places.len() <= slot as usize {
            self.places.resize_with(slot as usize + 1, || None);
        }
        let value = node.and_then(|node| node.node.as_ref()?.metadata.labels.get(&self.key));
        let new = value.map(|value| Place { value: value.clone(), amount });
        let old = std::mem::replace(&mut self.places[slot as usize], new.clone());
        if old == new {
            return false;
        }
        let mut change = |value: &Str, change: &dyn Fn(&mut Domain)| {
            let domain = self.domains.entry(value.clone()).or_default();
            let was = domain.amount;
            change(domain);
            self.total += domain.amount - was;
            if matters(was, domain.amount) {
                affected.extend_from_slice(&domain.nodes);
            }
            if domain.nodes.is_empty() {
                self.domains.remove(value);
            }
        };
        if let (Some(old), Some(new)) = (&old, &new)
            && old.value == new.value
        {
            change(&new.value, &|domain| {
                domain.take(old.amount);
                domain.add(new.amount);
            });
            return false;
        }
        if let Some(old) = old {
            change(&old.value, &|domain| {
                domain.take(old.amount);
                domain.nodes.retain(|own| *own != slot);
            });
        }
        if let Some(new) = new {
            change(&new.value, &|domain| {
                domain.add(new.amount);
                domain.nodes.push(slot);
            });
        }
        true
    }

    /// Closes the domains whose sum is `too_much` and opens the others. Nodes of those that changed go to `affected`.
    pub fn close(&mut self, too_much: impl Fn(i64) -> bool, affected: &mut Vec<Slot>) {
        for domain in self.domains.values_mut() {
            let is_closed = too_much(domain.amount);
            if std::mem::replace(&mut domain.is_closed, is_closed) != is_closed {
                affected.extend_from_slice(&domain.nodes);
            }
        }
    }
}
