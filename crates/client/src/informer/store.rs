//! The objects an informer knows, by name and by declared indexes.
//!
//! Owns: tables of shared `Arc<Object>`s. Never touches: the API, tasks, subscribers.
//! Why tables of pointers that hash the object's own name? A map with keys of its own would hold every namespace and
//! name a second time; for a million pods that is more memory than the tables.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use apimachinery::{Object, Str};
use hashbrown::{DefaultHashBuilder, HashTable, hash_table::Entry};

/// Which values an object has in an index, e.g. the name of its node.
pub type IndexFn = Arc<dyn Fn(&Object) -> Vec<Str> + Send + Sync>;

/// Objects by namespace and name, with indexes kept in step.
#[derive(Default)]
pub(super) struct Store {
    hasher: DefaultHashBuilder,
    namespaces: HashMap<Str, Table>,
    len: usize,
    indexes: HashMap<&'static str, Index>,
}

struct Index {
    values_of: IndexFn,
    tables: HashMap<Str, Table>,
}

/// A set of objects, hashed by namespace and name.
#[derive(Default)]
struct Table(HashTable<Arc<Object>>);

// === impl Table ===

fn hash(hasher: &DefaultHashBuilder, namespace: &str, name: &str) -> u64 {
    use std::hash::Hasher;
    let mut state = hasher.build_hasher();
    namespace.hash(&mut state);
    name.hash(&mut state);
    state.finish()
}

impl Table {
    fn get(&self, hasher: &DefaultHashBuilder, namespace: &str, name: &str) -> Option<&Arc<Object>> {
        self.0.find(hash(hasher, namespace, name), |own| own.name() == name && own.namespace() == namespace)
    }

    fn insert(&mut self, hasher: &DefaultHashBuilder, object: Arc<Object>) -> Option<Arc<Object>> {
        let (namespace, name) = (object.namespace(), object.name());
        let entry = self.0.entry(
            hash(hasher, namespace, name),
            |own| own.name() == name && own.namespace() == namespace,
            |own| hash(hasher, own.namespace(), own.name()),
        );
        match entry {
            Entry::Occupied(mut present) => Some(std::mem::replace(present.get_mut(), object)),
            Entry::Vacant(absent) => {
                absent.insert(object);
                None
            }
        }
    }

    fn remove(&mut self, hasher: &DefaultHashBuilder, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.0
            .find_entry(hash(hasher, namespace, name), |own| {
                own.name() == name && own.namespace() == namespace
            })
            .ok()
            .map(|entry| entry.remove().0)
    }
}

// === impl Store ===

impl Store {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn namespace_len(&self, namespace: &str) -> usize {
        self.namespaces.get(namespace).map_or(0, |table| table.0.len())
    }

    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<&Arc<Object>> {
        self.namespaces.get(namespace)?.get(&self.hasher, namespace, name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.namespaces.values().flat_map(|table| table.0.iter())
    }

    pub(super) fn iter_namespace(&self, namespace: &str) -> impl Iterator<Item = &Arc<Object>> {
        self.namespaces.get(namespace).into_iter().flat_map(|table| table.0.iter())
    }

    /// Objects with `value` in the index; `None` when there is no such index.
    pub(super) fn iter_index(&self, index: &str, value: &str) -> Option<impl Iterator<Item = &Arc<Object>>> {
        let table = self.indexes.get(index)?.tables.get(value);
        Some(table.into_iter().flat_map(|table| table.0.iter()))
    }

    pub(super) fn index_len(&self, index: &str, value: &str) -> usize {
        self.indexes.get(index).and_then(|index| index.tables.get(value)).map_or(0, |table| table.0.len())
    }

    /// Adds the object or replaces the one of its name, which is returned.
    pub(super) fn insert(&mut self, object: Arc<Object>) -> Option<Arc<Object>> {
        let table = match self.namespaces.get_mut(object.namespace()) {
            Some(table) => table,
            None => self.namespaces.entry(object.namespace().into()).or_default(),
        };
        let old = table.insert(&self.hasher, object.clone());
        if old.is_none() {
            self.len += 1;
        }
        for index in self.indexes.values_mut() {
            index.change(&self.hasher, old.as_ref(), Some(&object));
        }
        old
    }

    pub(super) fn remove(&mut self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        let table = self.namespaces.get_mut(namespace)?;
        let old = table.remove(&self.hasher, namespace, name)?;
        if table.0.is_empty() {
            self.namespaces.remove(namespace);
        }
        self.len -= 1;
        for index in self.indexes.values_mut() {
            index.change(&self.hasher, Some(&old), None);
        }
        Some(old)
    }

    /// The functions of all indexes.
    pub(super) fn index_fns(&self) -> Vec<IndexFn> {
        self.indexes.values().map(|index| index.values_of.clone()).collect()
    }

    /// Declares an index and fills it; one that exists already stays as it is.
    pub(super) fn add_index(&mut self, name: &'static str, values_of: IndexFn) {
        if self.indexes.contains_key(name) {
            return;
        }
        let mut index = Index { values_of, tables: HashMap::new() };
        for object in self.iter() {
            index.change(&self.hasher, None, Some(object));
        }
        self.indexes.insert(name, index);
    }
}

// === impl Index ===

impl Index {
    fn change(&mut self, hasher: &DefaultHashBuilder, old: Option<&Arc<Object>>, new: Option<&Arc<Object>>) {
        let before = old.map(|object| (self.values_of)(object)).unwrap_or_default();
        let after = new.map(|object| (self.values_of)(object)).unwrap_or_default();
        if let Some(old) = old {
            for value in before.iter().filter(|value| !after.contains(value)) {
                self.remove(hasher, value, old);
            }
        }
        if let Some(new) = new {
            for value in after {
                self.tables.entry(value).or_default().insert(hasher, new.clone());
            }
        }
    }

    fn remove(&mut self, hasher: &DefaultHashBuilder, value: &str, object: &Object) {
        if let Some(table) = self.tables.get_mut(value) {
            table.remove(hasher, object.namespace(), object.name());
            if table.0.is_empty() {
                self.tables.remove(value);
            }
        }
    }
}
