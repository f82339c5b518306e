//! Which revisions of which keys exist, in memory.
//!
//! Owns: for every live key its create and mod revision, and for every version superseded since the
//! last compaction how long it was current. Never holds values and never touches disk.
//! Start at [`Index::apply`]; compaction is [`Index::compact`].
//!
//! Example, on one key: put@1, put@2, delete@3, put@4
//!
//! ```text
//! live  created 4, modified 4
//! past  [1, 2) [2, 3)            a read at 2 finds 2, a read at 3 finds nothing
//! compact(2)  ->  past [2, 3), garbage 1
//! compact(4)  ->  past nothing, garbage 1 2 3     (3 is the delete itself)
//! ```
//!
//! **Invariant (index-disjoint):** the intervals of one key never overlap, so at any revision at most
//! one version is current, and listing at a revision is a merge of two sorted maps.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use storage::{EventKind, Key};

use crate::manifest::LiveSum;

/// The current version of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Live {
    pub created: u64,
    pub modified: u64,
}

/// A version to read: everything about it but the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub key: Key,
    pub created: u64,
    pub modified: u64,
}

/// One step on a key that made something garbage: at compaction of `at`, its predecessor (and, for a
/// delete, the delete itself) goes.
struct Change {
    at: u64,
    key: Key,
    is_delete: bool,
}

#[derive(Default)]
pub(crate) struct Index {
    live: BTreeMap<Key, Live>,
    /// Superseded versions by key and the revision that ended them.
    past: BTreeMap<(Key, u64), Live>,
    /// In the order in which compaction takes them.
    changes: VecDeque<Change>,
    current: u64,
    compacted: u64,
    /// The versions live at `compacted`.
    live_at_compacted: LiveSum,
}

/// Why a record read at start-up cannot be right.
pub(crate) type Inconsistency = String;

impl Index {
    /// An index of a store that was compacted at `compacted`, to be filled by [`Index::load`].
    pub(crate) fn new(compacted: u64) -> Self {
        Self { compacted, ..Self::default() }
    }

    pub(crate) fn current(&self) -> u64 {
        self.current
    }

    pub(crate) fn compacted(&self) -> u64 {
        self.compacted
    }

    pub(crate) fn live_at_compacted(&self) -> LiveSum {
        self.live_at_compacted
    }

    pub(crate) fn live(&self, key: &str) -> Option<Live> {
        self.live.get(key).copied()
    }

    /// The current version of a key, with the key as the index holds it.
    pub(crate) fn version(&self, key: &str) -> Option<Version> {
        self.live.get_key_value(key).map(|(key, live)| version(key, *live))
    }

    pub(crate) fn live_count(&self) -> usize {
        self.live.len()
    }

    /// How many steps of history are kept.
    pub(crate) fn history_len(&self) -> usize {
        self.changes.len()
    }

    /// The revision to compact at so that about `keep` steps of history stay.
    pub(crate) fn trim_point(&self, keep: usize) -> Option<u64> {
        let surplus = self.changes.len().checked_sub(keep + 1)?;
        self.changes.get(surplus).map(|change| change.at)
    }

    /// Applies a committed write. Revisions come in order.
    pub(crate) fn apply(&mut self, revision: u64, kind: EventKind, key: &Key, created: u64) {
        self.current = revision;
        let before = match kind {
            EventKind::Delete => self.live.remove(&**key),
            EventKind::Put => match self.live.get_mut(&**key) {
                Some(live) => Some(std::mem::replace(live, Live { created, modified: revision })),
                None => self.live.insert(Key::clone(key), Live { created, modified: revision }),
            },
        };
        if before.is_none() && kind == EventKind::Put {
            return;
        }
        if let Some(before) = before {
            self.past.insert((Key::clone(key), revision), before);
        }
        let is_delete = kind == EventKind::Delete;
        self.changes.push_back(Change { at: revision, key: Key::clone(key), is_delete });
    }

    /// Applies a record read at start-up and checks that it fits those before it: nothing after the
    /// compaction may be missing, and what it changes must be there.
    pub(crate) fn load(
        &mut self,
        revision: u64,
        kind: EventKind,
        key: &str,
        created: u64,
    ) -> Result<(), Inconsistency> {
        let known = self.live.get_key_value(key).map(|(key, live)| (Key::clone(key), *live));
        if revision > self.compacted {
            self.check(revision, kind, created, known.as_ref().map(|(_, live)| *live))?;
        }
        let key = known.map_or_else(|| Key::from(key), |(key, _)| key);
        self.apply(revision, kind, &key, created);
        Ok(())
    }

    fn check(
        &mut self,
        revision: u64,
        kind: EventKind,
        created: u64,
        known: Option<Live>,
    ) -> Result<(), Inconsistency> {
        let expected = self.current.max(self.compacted) + 1;
        if revision != expected {
            return Err(format!("revision {expected} is missing, {revision} follows"));
        }
        let is_create = kind == EventKind::Put && created == revision;
        match known {
            None if !is_create => Err(format!("what revision {revision} changes is missing")),
            Some(live) if is_create || live.created != created => {
                Err(format!("revision {revision} does not fit revision {} of its key", live.modified))
            }
            _ => Ok(()),
        }
    }

    /// Counts the live versions; right after loading everything up to the compaction, these are the
    /// versions that were live then.
    pub(crate) fn sum_live(&self) -> LiveSum {
        let mut sum = LiveSum::default();
        for live in self.live.values() {
            sum.add(live.modified);
        }
        sum
    }

    /// Ends loading: history before the compaction is garbage, which is returned, ascending.
    pub(crate) fn finish_loading(&mut self, live_at_compacted: LiveSum) -> Vec<u64> {
        self.current = self.current.max(self.compacted);
        let mut garbage = Vec::new();
        while let Some(change) = self.pop_change(self.compacted) {
            self.drop_change(&change, &mut garbage);
        }
        self.live_at_compacted = live_at_compacted;
        garbage.sort_unstable();
        garbage
    }

    /// Forgets history superseded at or before `at`, at most `steps` of it, so that the caller can
    /// let others in between. Returns whether that was all; adds to `garbage` what can be removed.
    pub(crate) fn compact(&mut self, at: u64, steps: usize, garbage: &mut Vec<u64>) -> bool {
        let already = garbage.len();
        let mut reached = at;
        let mut done = true;
        for step in 0.. {
            if step == steps {
                // Stop between two steps; what comes next was superseded later than this.
                done = self.changes.front().is_none_or(|change| change.at > at);
                reached = if done { at } else { self.changes.front().map_or(at, |change| change.at - 1) };
                break;
            }
            let Some(change) = self.pop_change(at) else { break };
            self.drop_change(&change, garbage);
        }
        for revision in self.compacted + 1..=reached {
            self.live_at_compacted.add(revision);
        }
        for revision in &garbage[already..] {
            self.live_at_compacted.remove(*revision);
        }
        self.compacted = reached;
        done
    }

    fn pop_change(&mut self, at: u64) -> Option<Change> {
        self.changes.pop_front_if(|change| change.at <= at)
    }

    fn drop_change(&mut self, change: &Change, garbage: &mut Vec<u64>) {
        if let Some(before) = self.past.remove(&(Key::clone(&change.key), change.at)) {
            garbage.push(before.modified);
        }
        if change.is_delete {
            garbage.push(change.at);
        }
    }

    /// Live versions with the prefix, in key order.
    pub(crate) fn live_with<'a>(
        &'a self,
        prefix: &'a str,
        start_after: Option<&'a str>,
    ) -> impl Iterator<Item = Version> + 'a {
        let start = match start_after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        self.live
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(key, live)| version(key, *live))
    }

    /// The versions with the prefix that were current at a revision, in key order.
    pub(crate) fn versions_at<'a>(
        &'a self,
        prefix: &'a str,
        start_after: Option<&'a str>,
        at: u64,
    ) -> impl Iterator<Item = Version> + 'a {
        let live = self.live_with(prefix, start_after).filter(move |version| version.modified <= at);
        let start = (Key::from(start_after.filter(|after| *after >= prefix).unwrap_or(prefix)), 0);
        let past = self
            .past
            .range((Bound::Included(start), Bound::Unbounded))
            .take_while(move |((key, _), _)| key.starts_with(prefix))
            .filter(move |((key, _), _)| start_after.is_none_or(|after| &**key > after))
            .filter(move |((_, until), past)| past.modified <= at && at < *until)
            .map(|((key, _), past)| version(key, *past));
        merge(live, past)
    }
}

fn version(key: &Key, live: Live) -> Version {
    Version { key: Key::clone(key), created: live.created, modified: live.modified }
}

/// Merges two sequences that are sorted by key and have no key in common.
fn merge(
    left: impl Iterator<Item = Version>,
    right: impl Iterator<Item = Version>,
) -> impl Iterator<Item = Version> {
    let (mut left, mut right) = (left.peekable(), right.peekable());
    std::iter::from_fn(move || match (left.peek(), right.peek()) {
        (Some(l), Some(r)) if r.key < l.key => right.next(),
        (None, _) => right.next(),
        _ => left.next(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use EventKind::{Delete, Put};

    /// put a@1, put b@2, put a@3, delete b@4, put b@5
    fn sample() -> Index {
        let mut index = Index::default();
        for (revision, kind, key, created) in
            [(1, Put, "a", 1), (2, Put, "b", 2), (3, Put, "a", 1), (4, Delete, "b", 2), (5, Put, "b", 5)]
        {
            index.apply(revision, kind, &Key::from(key), created);
        }
        index
    }

    fn at(index: &Index, revision: u64) -> String {
        let versions = index.versions_at("", None, revision);
        versions.map(|v| format!("{}@{}", v.key, v.modified)).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn every_revision_shows_what_was_current_then() {
        let index = sample();
        for (revision, expected) in
            [(0, ""), (1, "a@1"), (2, "a@1 b@2"), (3, "a@3 b@2"), (4, "a@3"), (5, "a@3 b@5")]
        {
            assert_eq!(at(&index, revision), expected, "at {revision}");
        }
    }

    #[test]
    fn compaction_returns_exactly_what_nobody_can_read_any_more() {
        for (compact_at, garbage) in
            [(1, vec![]), (2, vec![]), (3, vec![1]), (4, vec![1, 2, 4]), (5, vec![1, 2, 4])]
        {
            let mut index = sample();
            let mut found = Vec::new();
            assert!(index.compact(compact_at, usize::MAX, &mut found));
            assert_eq!(found, garbage, "at {compact_at}");
            for revision in compact_at..=5 {
                assert_eq!(
                    at(&index, revision),
                    at(&sample(), revision),
                    "read {revision} after {compact_at}"
                );
            }
        }
    }

    #[test]
    fn the_live_sum_follows_compaction_also_in_small_steps() {
        for steps in [1, 2, usize::MAX] {
            let mut index = sample();
            let mut garbage = Vec::new();
            for compact_at in 1..=5 {
                while !index.compact(compact_at, steps, &mut garbage) {}
                let mut expected = LiveSum::default();
                for version in sample().versions_at("", None, compact_at) {
                    expected.add(version.modified);
                }
                assert_eq!(index.live_at_compacted(), expected, "at {compact_at} by {steps}");
                assert_eq!(index.compacted(), compact_at);
            }
        }
    }

    #[test]
    fn loading_notices_a_missing_record() {
        let mut index = Index::new(0);
        index.load(1, Put, "a", 1).unwrap();
        assert!(index.load(3, Put, "a", 1).unwrap_err().contains("revision 2 is missing"));
        assert!(index.load(2, Put, "b", 1).unwrap_err().contains("is missing"));
        assert!(index.load(2, Put, "a", 2).unwrap_err().contains("does not fit"));
        index.load(2, Delete, "a", 1).unwrap();
    }

    #[test]
    fn paging_starts_after_the_given_key_in_both_maps() {
        let index = sample();
        let keys =
            |start, at| index.versions_at("", Some(start), at).map(|v| v.key.to_string()).collect::<Vec<_>>();
        assert_eq!(keys("a", 3), ["b"]);
        assert_eq!(keys("a", 5), ["b"]);
        assert!(keys("b", 3).is_empty());
    }
}
