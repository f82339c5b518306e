//! [`List`]: a part of a tree, or items that an expression made.

use std::sync::Arc;

use apimachinery::value::Value as Json;

use super::{Evaluated, Value};
use crate::types::{DYNAMIC, Decl, ListKind, Shape};

static ATOMIC: ListKind = ListKind::Atomic;

/// A list of values.
#[derive(Clone, Debug)]
pub struct List<'a> {
    items: Items<'a>,
    pub(super) kind: &'a ListKind,
}

#[derive(Clone, Debug)]
enum Items<'a> {
    Tree { items: &'a [Json], decl: &'a Decl },
    Owned(Arc<Vec<Value<'a>>>),
}

impl<'a> List<'a> {
    pub fn owned(items: Vec<Value<'a>>) -> Self {
        Self { items: Items::Owned(Arc::new(items)), kind: &ATOMIC }
    }

    pub(super) fn tree(items: &'a [Json], decl: &'a Decl) -> Self {
        match &decl.shape {
            Shape::List { items: decl, kind } => Self { items: Items::Tree { items, decl }, kind },
            _ => Self { items: Items::Tree { items, decl: &DYNAMIC }, kind: &ATOMIC },
        }
    }

    pub fn len(&self) -> usize {
        match &self.items {
            Items::Tree { items, .. } => items.len(),
            Items::Owned(items) => items.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get(&self, index: usize) -> Option<Evaluated<'a>> {
        match &self.items {
            Items::Tree { items, decl } => items.get(index).map(|item| Value::declared(item, decl)),
            Items::Owned(items) => items.get(index).cloned().map(Ok),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = Evaluated<'a>> + '_ {
        (0..self.len()).map_while(|index| self.get(index))
    }

    /// All items, or the first that is not what it is declared to be.
    pub(crate) fn items(&self) -> Result<Vec<Value<'a>>, crate::EvalError> {
        self.iter().collect()
    }

    /// Adds an item; without a copy if nobody else holds the list.
    pub(crate) fn push(&mut self, item: Value<'a>) -> Result<(), crate::EvalError> {
        if let Items::Tree { .. } = self.items {
            self.items = Items::Owned(Arc::new(self.items()?));
        }
        if let Items::Owned(items) = &mut self.items {
            Arc::make_mut(items).push(item);
        }
        Ok(())
    }

    /// `self + other`. Sets and lists that are maps merge.
    pub(crate) fn concat(&self, other: &List<'a>) -> Evaluated<'a> {
        let mut items = self.items()?;
        match self.kind {
            ListKind::Atomic => items.extend(other.items()?),
            ListKind::Set => {
                for item in other.iter() {
                    let item = item?;
                    if !items.iter().any(|present| present.equals(&item)) {
                        items.push(item);
                    }
                }
            }
            ListKind::Map(keys) => {
                for item in other.iter() {
                    let item = item?;
                    match items.iter().position(|present| same_keys(present, &item, keys)) {
                        Some(at) => items[at] = item,
                        None => items.push(item),
                    }
                }
            }
        }
        Ok(Value::List(Self { items: Items::Owned(Arc::new(items)), kind: self.kind }))
    }
}

/// Whether two items of a list that is a map are the same entry.
pub(super) fn same_keys(a: &Value<'_>, b: &Value<'_>, keys: &[Box<str>]) -> bool {
    keys.iter().all(|name| match (property(a, name), property(b, name)) {
        (Some(a), Some(b)) => a == b,
        (None, None) => true,
        _ => false,
    })
}

fn property<'a>(item: &Value<'a>, name: &str) -> Option<&'a Json> {
    match item {
        Value::Map(map) => map.property(name),
        _ => None,
    }
}
