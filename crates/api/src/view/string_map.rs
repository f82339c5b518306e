//! [`StringMap`]: Go's `map[string]string`, and lists, in no more memory than they need.

use std::fmt;
use std::marker::PhantomData;

use apimachinery::Str;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Labels, annotations, selectors, amounts: a few pairs of texts, sorted by key. A B-tree would reserve room for eleven
/// pairs for each of them, and a pod has half a dozen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StringMap(Box<[(Str, Str)]>);

impl StringMap {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn get(&self, key: &str) -> Option<&Str> {
        let at = self.0.binary_search_by(|(own, _)| own.as_str().cmp(key)).ok()?;
        Some(&self.0[at].1)
    }

    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Str, &Str)> + Clone {
        self.0.iter().map(|(key, value)| (key, value))
    }
}

/// Of equal keys the last counts.
impl FromIterator<(Str, Str)> for StringMap {
    fn from_iter<I: IntoIterator<Item = (Str, Str)>>(pairs: I) -> Self {
        let mut pairs: Vec<(Str, Str)> = pairs.into_iter().collect();
        if !pairs.is_sorted_by(|a, b| a.0 < b.0) {
            pairs.reverse();
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
            pairs.dedup_by(|later, earlier| later.0 == earlier.0);
        }
        Self(pairs.into_boxed_slice())
    }
}

impl<'a> IntoIterator for &'a StringMap {
    type Item = (&'a Str, &'a Str);
    type IntoIter =
        std::iter::Map<std::slice::Iter<'a, (Str, Str)>, fn(&'a (Str, Str)) -> (&'a Str, &'a Str)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter().map(|(key, value)| (key, value))
    }
}

/// `null` is an empty map, as in Go.
impl<'de> Deserialize<'de> for StringMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let pairs = Option::<Pairs<Str>>::deserialize(deserializer)?.unwrap_or_default();
        Ok(pairs.0.into_iter().collect())
    }
}

/// The members of a JSON object, in their order.
pub(super) struct Pairs<V>(pub(super) Vec<(Str, V)>);

impl<V> Default for Pairs<V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Pairs<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<V>(PhantomData<V>);

        impl<'de, V: Deserialize<'de>> Visitor<'de> for Members<V> {
            type Value = Vec<(Str, V)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(pairs)
            }
        }

        deserializer.deserialize_map(Members(PhantomData)).map(Self)
    }
}

/// A list without room for more: views are kept, and nothing is ever added to them.
pub(super) fn exact<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let mut items = Vec::deserialize(deserializer)?;
    items.shrink_to_fit();
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_found_by_key_whatever_their_order_was() {
        let map: StringMap = serde_json::from_str(r#"{"b":"2","a":"1","b":"3"}"#).unwrap();
        let shown: Vec<String> = map.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(shown, ["a=1", "b=3"]);
        assert_eq!((map.get("b").map(Str::as_str), map.get("c")), (Some("3"), None));
        assert!(map.contains_key("a") && !map.contains_key(""));
    }

    #[test]
    fn null_is_empty_and_a_list_is_refused() {
        assert!(serde_json::from_str::<StringMap>("null").unwrap().is_empty());
        assert!(serde_json::from_str::<StringMap>("[]").is_err());
    }
}
