//! [`List`]: a part of a tree, or items that an expression made.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use apimachinery::value::Value as Json;

use super::compare::Hashed;
use super::{Evaluated, Value};
use crate::types::{DYNAMIC, Decl, ListKind, Shape};

static ATOMIC: ListKind = ListKind::Atomic;

/// A list of values.
#[derive(Clone, Debug)]
pub struct List<'a> {
    items: Items<'a>,
    kind: &'a ListKind,
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

    /// Whether the order of its items counts.
    pub(super) fn is_ordered(&self) -> bool {
        matches!(self.kind, ListKind::Atomic)
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
                let mut seen: HashSet<Hashed<'a>> = items.iter().cloned().map(Hashed).collect();
                items.extend(other.items()?.into_iter().filter(|item| seen.insert(Hashed(item.clone()))));
            }
            ListKind::Map(keys) => {
                let mut places: HashMap<ItemKey<'a>, usize> = HashMap::with_capacity(items.len());
                for (at, item) in items.iter().enumerate() {
                    if let Some(key) = ItemKey::of(item, keys) {
                        places.insert(key, at);
                    }
                }
                for item in other.iter() {
                    let item = item?;
                    match ItemKey::of(&item, keys).and_then(|key| places.get(&key)) {
                        Some(at) => items[*at] = item,
                        None => items.push(item),
                    }
                }
            }
        }
        Ok(Value::List(Self { items: Items::Owned(Arc::new(items)), kind: self.kind }))
    }

    /// `self == other`; the order of a set, and of a list that is a map, does not count.
    pub(super) fn equals(&self, other: &List<'a>) -> bool {
        self.len() == other.len()
            && match self.kind {
                ListKind::Atomic => {
                    let mut pairs = self.iter().zip(other.iter());
                    pairs.all(|pair| matches!(pair, (Ok(own), Ok(item)) if own.equals(&item)))
                }
                ListKind::Set => self.has_items(other).unwrap_or(false),
                ListKind::Map(keys) => self.has_entries(other, keys).unwrap_or(false),
            }
    }

    fn has_items(&self, other: &List<'a>) -> Result<bool, crate::EvalError> {
        let own: HashSet<Hashed<'a>> = self.items()?.into_iter().map(Hashed).collect();
        Ok(other.items()?.into_iter().all(|item| own.contains(&Hashed(item))))
    }

    fn has_entries(&self, other: &List<'a>, keys: &[Box<str>]) -> Result<bool, crate::EvalError> {
        let own = self.items()?;
        let own: HashMap<ItemKey<'a>, &Value<'a>> =
            own.iter().filter_map(|item| Some((ItemKey::of(item, keys)?, item))).collect();
        Ok(other.items()?.iter().all(|item| {
            ItemKey::of(item, keys).and_then(|key| own.get(&key)).is_some_and(|own| own.equals(item))
        }))
    }
}

/// What tells an item of a list that is a map from the others. One that an expression made, or that is no object, is
/// like no other.
#[derive(PartialEq, Eq, Hash)]
struct ItemKey<'a>(Vec<&'a Json>);

impl<'a> ItemKey<'a> {
    fn of(item: &Value<'a>, keys: &[Box<str>]) -> Option<Self> {
        let Value::Map(map) = item else { return None };
        let properties = map.properties()?;
        Some(Self(keys.iter().map(|name| properties.get(name).unwrap_or(&Json::Null)).collect()))
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::{Value as Json, json};

    use super::*;

    fn list<'a>(json: &'a Json, decl: &'a Decl) -> List<'a> {
        match Value::declared(json, decl) {
            Ok(Value::List(list)) => list,
            other => panic!("no list: {other:?}"),
        }
    }

    fn sets() -> Decl {
        Decl::list(Decl::dynamic(), 0, ListKind::Set)
    }

    /// Lists of objects that are told apart by `k` and `l`.
    fn maps() -> Decl {
        let item = Decl::map(Decl::string(), Decl::dynamic(), 0);
        Decl::list(item, 0, ListKind::Map(["k".into(), "l".into()].into()))
    }

    fn sum(decl: &Decl, one: Json, other: Json) -> String {
        list(&one, decl)
            .concat(&list(&other, decl))
            .map_or_else(|error| error.to_string(), |sum| sum.to_string())
    }

    fn equal(decl: &Decl, one: Json, other: Json) -> bool {
        list(&one, decl).equals(&list(&other, decl))
    }

    #[test]
    fn sets_are_equal_in_any_order_and_merge() {
        let decl = sets();
        assert!(equal(&decl, json!([1, "a", [2]]), json!([[2.0], "a", 1.0])));
        assert!(!equal(&decl, json!([1, 2]), json!([1, 3])));
        assert!(!equal(&decl, json!([1, 2]), json!([1])));
        assert_eq!(sum(&decl, json!([3, 1]), json!([1, 2, 2])), "[3, 1, 2]");
    }

    #[test]
    fn lists_that_are_maps_are_equal_by_entries_and_merge() {
        let decl = maps();
        let (a, b) = (json!({"k": "a", "l": 1, "v": 1}), json!({"k": "b", "v": 2}));
        assert!(equal(&decl, json!([a, b]), json!([b, a])));
        assert!(!equal(&decl, json!([a, b]), json!([b, {"k": "a", "v": 1}])));
        assert_eq!(
            sum(&decl, json!([a, b]), json!([{"k": "b", "v": 3}, {"k": "a", "l": 2}])),
            "[{k: a, l: 1, v: 1}, {k: b, v: 3}, {k: a, l: 2}]"
        );
    }

    /// What an expression makes has no keys, so none of it is another's equal.
    #[test]
    fn items_without_properties_are_no_entries() {
        let (decl, entries) = (maps(), json!([]));
        let made =
            || Value::Map(super::super::Map::from_entries([]).expect("nothing is wrong with no entries"));
        let made = List::owned(vec![made(), made()]);
        let Ok(Value::List(sum)) = list(&entries, &decl).concat(&made) else { panic!("lists can be added") };
        assert_eq!(sum.len(), 2);
        assert!(!sum.equals(&made));
    }

    /// One of the orders of nine items, another one for each number below 9!.
    fn permutation(number: i64) -> Json {
        let mut rest: Vec<i64> = (0..9).collect();
        let mut number = number as usize;
        let mut taken = Vec::new();
        while !rest.is_empty() {
            let choices = rest.len();
            taken.push(Json::from(rest.remove(number % choices)));
            number /= choices;
        }
        Json::from(taken)
    }

    /// Pair by pair, these would take minutes.
    #[test]
    fn long_lists_are_compared_and_merged_in_one_pass() {
        const ITEMS: i64 = 100_000;
        let numbers = |range: &mut dyn Iterator<Item = i64>| range.map(Json::from).collect::<Vec<_>>();
        let entries = |range: &mut dyn Iterator<Item = i64>| {
            range.map(|k| json!({"k": k, "l": "x"})).collect::<Vec<_>>()
        };
        let permutations = |range: &mut dyn Iterator<Item = i64>| range.map(permutation).collect::<Vec<_>>();
        for (decl, all, reversed) in [
            (sets(), numbers(&mut (0..ITEMS)), numbers(&mut (0..ITEMS).rev())),
            (sets(), permutations(&mut (0..ITEMS)), permutations(&mut (0..ITEMS).rev())),
            (maps(), entries(&mut (0..ITEMS)), entries(&mut (0..ITEMS).rev())),
        ] {
            let (all, reversed) = (Json::from(all), Json::from(reversed));
            let (all, reversed) = (list(&all, &decl), list(&reversed, &decl));
            assert!(all.equals(&reversed));
            let Ok(Value::List(sum)) = all.concat(&reversed) else { panic!("lists can be added") };
            assert_eq!(sum.len(), all.len());
        }
    }
}
