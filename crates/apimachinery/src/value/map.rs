//! [`Map`]: the fields of an object as one sorted vector.

use std::cmp::Ordering;

use super::{Str, Value};

/// Above this size a place is found by binary search instead of a walk; short maps are quicker walked.
const LINEAR_MAX: usize = 8;
/// The same for a key that is there or not, whose place otherwise does not matter: most keys differ in length already.
const LINEAR_GET_MAX: usize = 24;

/// Fields of an object, sorted by key, each key once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Map {
    entries: Vec<(Str, Value)>,
}

impl Map {
    pub const fn new() -> Self {
        Self { entries: Vec::new() }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn get(&self, key: &str) -> Option<&Value> {
        self.find(key).map(|at| &self.entries[at].1)
    }

    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value> {
        self.find(key).map(|at| &mut self.entries[at].1)
    }

    pub fn contains_key(&self, key: &str) -> bool {
        self.find(key).is_some()
    }

    /// Sets a field and returns what it was.
    pub fn insert(&mut self, key: impl AsRef<str> + Into<Str>, value: impl Into<Value>) -> Option<Value> {
        match self.position(key.as_ref()) {
            Ok(at) => Some(std::mem::replace(&mut self.entries[at].1, value.into())),
            Err(at) => {
                self.entries.insert(at, (key.into(), value.into()));
                None
            }
        }
    }

    pub fn remove(&mut self, key: &str) -> Option<Value> {
        self.find(key).map(|at| self.entries.remove(at).1)
    }

    pub fn get_or_insert_with(&mut self, key: &str, make: impl FnOnce() -> Value) -> &mut Value {
        let at = match self.position(key) {
            Ok(at) => at,
            Err(at) => {
                self.entries.insert(at, (key.into(), make()));
                at
            }
        };
        &mut self.entries[at].1
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Str, &Value)> + DoubleEndedIterator {
        self.entries.iter().map(|(key, value)| (key, value))
    }

    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = (&Str, &mut Value)> {
        self.entries.iter_mut().map(|(key, value)| (&*key, value))
    }

    pub fn keys(&self) -> impl ExactSizeIterator<Item = &Str> {
        self.entries.iter().map(|(key, _)| key)
    }

    pub fn values(&self) -> impl ExactSizeIterator<Item = &Value> {
        self.entries.iter().map(|(_, value)| value)
    }

    pub fn values_mut(&mut self) -> impl ExactSizeIterator<Item = &mut Value> {
        self.entries.iter_mut().map(|(_, value)| value)
    }

    pub fn retain(&mut self, mut keep: impl FnMut(&Str, &mut Value) -> bool) {
        self.entries.retain_mut(|(key, value)| keep(key, value));
    }

    /// The fields of two maps in the order of their keys, each key once, with what either map has there.
    pub(crate) fn joined<'m>(
        one: &'m Self,
        other: &'m Self,
    ) -> impl Iterator<Item = (&'m Str, Option<&'m Value>, Option<&'m Value>)> {
        let (mut one, mut other) = (one.entries.iter().peekable(), other.entries.iter().peekable());
        std::iter::from_fn(move || {
            let order = match (one.peek(), other.peek()) {
                (Some((key, _)), Some((other_key, _))) => key.cmp(other_key),
                (Some(_), None) => Ordering::Less,
                (None, _) => Ordering::Greater,
            };
            let from_one = if order.is_le() { one.next() } else { None };
            let from_other = if order.is_ge() { other.next() } else { None };
            let (key, _) = from_one.or(from_other)?;
            Some((key, from_one.map(|(_, value)| value), from_other.map(|(_, value)| value)))
        })
    }

    /// The entries, for code that visits them in order together with something else that is sorted by key.
    /// **Invariant (map-sorted)** is then the caller's.
    pub(crate) fn entries_mut(&mut self) -> &mut Vec<(Str, Value)> {
        &mut self.entries
    }

    /// Makes a map of entries in any order; of equal keys the last wins, except that objects merge, as when Go decodes
    /// into a structure. The second result says whether there were any.
    pub(super) fn from_unsorted(mut entries: Vec<(Str, Value)>) -> (Self, bool) {
        if entries.is_sorted_by(|a, b| a.0 < b.0) {
            return (Self { entries }, false);
        }
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        let before = entries.len();
        entries.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                earlier.1.absorb(later.1.take());
            }
            same
        });
        let duplicates = entries.len() != before;
        (Self { entries }, duplicates)
    }

    fn find(&self, key: &str) -> Option<usize> {
        if self.entries.len() > LINEAR_GET_MAX {
            return self.position(key).ok();
        }
        let key = key.as_bytes();
        self.entries.iter().position(|(own, _)| {
            let own = own.as_bytes();
            own.len() == key.len() && own.first() == key.first() && own == key
        })
    }

    /// Where the key is, or where it would have to be.
    fn position(&self, key: &str) -> Result<usize, usize> {
        if self.entries.len() > LINEAR_MAX {
            return self.entries.binary_search_by(|(own, _)| own.as_str().cmp(key));
        }
        for (at, (own, _)) in self.entries.iter().enumerate() {
            match own.as_str().cmp(key) {
                Ordering::Less => {}
                Ordering::Equal => return Ok(at),
                Ordering::Greater => return Err(at),
            }
        }
        Err(self.entries.len())
    }
}

impl Value {
    /// Takes the place of an earlier value of the same field.
    fn absorb(&mut self, later: Self) {
        match (self, later) {
            (Self::Object(own), Self::Object(later)) => {
                for (key, value) in later {
                    own.get_or_insert_with(&key, || Self::Null).absorb(value);
                }
            }
            (own, later) => *own = later,
        }
    }
}

impl FromIterator<(Str, Value)> for Map {
    fn from_iter<I: IntoIterator<Item = (Str, Value)>>(entries: I) -> Self {
        Self::from_unsorted(entries.into_iter().collect()).0
    }
}

impl IntoIterator for Map {
    type Item = (Str, Value);
    type IntoIter = std::vec::IntoIter<(Str, Value)>;
    fn into_iter(self) -> Self::IntoIter {
        self.entries.into_iter()
    }
}

impl<'a> IntoIterator for &'a Map {
    type Item = (&'a Str, &'a Value);
    type IntoIter =
        std::iter::Map<std::slice::Iter<'a, (Str, Value)>, fn(&'a (Str, Value)) -> (&'a Str, &'a Value)>;
    fn into_iter(self) -> Self::IntoIter {
        self.entries.iter().map(|(key, value)| (key, value))
    }
}
