//! [`Set`]: which fields somebody owns, as a tree of path elements.
//!
//! A set is kept in the very form in which `fieldsV1` stores it, because the trees of managers that a write does not
//! concern then stay untouched from the store back to the store:
//!
//! ```text
//!     {"f:spec":{"f:replicas":{},"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:image":{}}}}}
//!      spec.replicas and spec.containers[name=c].image are in the set, so is spec.containers[name=c] (its "."),
//!      but not spec nor spec.containers.
//! ```
//!
//! **Invariant (set-tree):** a node without children is in the set and holds nothing; a node with children is in the
//! set exactly if it holds `.`; elements are written canonically (`k:` with sorted keys, no white space).

use crate::field::go_quote;
use crate::value::write_string;
use crate::{Map, Str, Value};

/// Marks a node that has children as being in the set itself.
const SELF: &str = ".";

static EMPTY: Map = Map::new();

/// A set of field paths.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Set(Map);

impl Set {
    pub const fn new() -> Self {
        Self(Map::new())
    }

    /// A set of paths of field names: `&[&["status"], &["metadata", "labels"]]`.
    pub fn of_fields(paths: &[&[&str]]) -> Self {
        let mut set = Self::new();
        for path in paths {
            let elements: Vec<Str> = path.iter().map(|name| field_element(name)).collect();
            set.insert(&elements);
        }
        set
    }

    /// Reads `fieldsV1` of an entry that somebody else wrote: checks it and brings it into canonical form. `None` when
    /// it is not a set.
    pub fn from_fields_v1(fields: &Value) -> Option<Self> {
        let map = fields.as_object()?;
        let mut set = Map::new();
        for (element, node) in map {
            // The whole object cannot be owned.
            if element != SELF {
                set.insert(canonical_element(element)?, Value::Object(canonical_node(node)?));
            }
        }
        Some(Self(set))
    }

    /// Takes `fieldsV1` of an entry that this module wrote.
    pub(super) fn from_stored(fields: &mut Value) -> Self {
        match fields.take() {
            Value::Object(map) => Self(map),
            _ => Self::new(),
        }
    }

    pub fn into_fields_v1(self) -> Value {
        Value::Object(self.0)
    }

    pub(super) fn from_nodes(children: Vec<(Str, Value)>) -> Self {
        Self(children.into_iter().collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the path of these elements (`f:spec`).
    pub fn insert(&mut self, path: &[Str]) {
        insert(&mut self.0, path);
    }

    /// Whether the path of these elements is in the set.
    pub fn contains(&self, path: &[Str]) -> bool {
        let mut node = &self.0;
        for element in path {
            match node.get(element) {
                Some(Value::Object(child)) => node = child,
                _ => return false,
            }
        }
        !path.is_empty() && is_member(node)
    }

    /// Adds all paths of `other`.
    pub fn unite(&mut self, other: &Self) {
        unite(&mut self.0, &other.0);
    }

    /// Removes the paths of `other`, and only those: what lies below them stays. Says whether any was there.
    pub fn subtract(&mut self, other: &Self) -> bool {
        subtract(&mut self.0, &other.0)
    }

    /// Removes the paths of `other` and everything below them. Says whether any was there.
    pub fn subtract_trees(&mut self, other: &Self) -> bool {
        subtract_trees(&mut self.0, &other.0)
    }

    /// The paths in both sets.
    pub fn intersection(&self, other: &Self) -> Self {
        Self(intersection(&self.0, &other.0))
    }

    /// All paths as upstream prints them (`.spec.containers[name="c"].image`), in its order: at each level first what
    /// is in the set, then what lies below.
    pub fn paths(&self) -> Vec<String> {
        let mut found = Vec::new();
        collect_paths(&self.0, "", &mut found);
        found
    }

    /// Whether all paths of these stored fields are in the set.
    pub(super) fn holds(&self, fields: &Map) -> bool {
        holds(&self.0, fields)
    }

    pub(super) fn root(&self) -> &Map {
        &self.0
    }
}

/// The map of a node; a stored node that is no map counts as empty.
pub(super) fn node(value: &Value) -> &Map {
    value.as_object().unwrap_or(&EMPTY)
}

pub(super) fn is_member(node: &Map) -> bool {
    node.is_empty() || node.contains_key(SELF)
}

pub(super) fn children(node: &Map) -> impl Iterator<Item = (&Str, &Map)> {
    node.iter().filter(|(element, _)| *element != SELF).map(|(element, child)| (element, self::node(child)))
}

pub(super) fn has_children(node: &Map) -> bool {
    node.len() > usize::from(node.contains_key(SELF))
}

/// What marks a node that has children as being in the set; sorts before every element.
pub(super) fn own_node() -> (Str, Value) {
    (Str::const_new(SELF), Value::Object(Map::new()))
}

/// Makes a node from its children and whether it is in the set; `None` when there is nothing.
pub(super) fn make_node(mut children: Vec<(Str, Value)>, member: bool) -> Option<Value> {
    if children.is_empty() {
        return member.then(Value::object);
    }
    if member {
        children.insert(0, own_node());
    }
    Some(children.into_iter().collect())
}

/// Restores the invariant after the children of a node changed; false when nothing is left.
fn settle(node: &mut Map, member: bool) -> bool {
    match (member, has_children(node)) {
        (true, true) => {
            node.get_or_insert_with(SELF, Value::object);
        }
        (false, true) => {
            node.remove(SELF);
        }
        (member, false) => {
            *node = Map::new();
            return member;
        }
    }
    true
}

fn insert(node: &mut Map, path: &[Str]) {
    let Some((element, rest)) = path.split_first() else { return };
    let existed = node.contains_key(element);
    let child = node.get_or_insert_with(element, Value::object).ensure_object();
    let member = (existed && is_member(child)) || rest.is_empty();
    insert(child, rest);
    settle(child, member);
}

fn unite(own: &mut Map, other: &Map) {
    for (element, theirs) in children(other) {
        match own.get_mut(element) {
            None => {
                own.insert(element.clone(), Value::Object(theirs.clone()));
            }
            Some(ours) => {
                let ours = ours.ensure_object();
                let member = is_member(ours) || is_member(theirs);
                unite(ours, theirs);
                settle(ours, member);
            }
        }
    }
}

fn subtract(own: &mut Map, other: &Map) -> bool {
    let mut changed = false;
    for (element, theirs) in children(other) {
        let Some(ours) = own.get_mut(element) else { continue };
        let ours = ours.ensure_object();
        let was_member = is_member(ours);
        let member = was_member && !is_member(theirs);
        let below = has_children(ours) && subtract(ours, theirs);
        if below || member != was_member {
            changed = true;
            if !settle(ours, member) {
                own.remove(element);
            }
        }
    }
    changed
}

fn subtract_trees(own: &mut Map, other: &Map) -> bool {
    let mut changed = false;
    for (element, theirs) in children(other) {
        let Some(ours) = own.get_mut(element) else { continue };
        let ours = ours.ensure_object();
        let member = is_member(ours);
        if is_member(theirs) {
            own.remove(element);
            changed = true;
        } else if has_children(ours) && subtract_trees(ours, theirs) {
            changed = true;
            if !settle(ours, member) {
                own.remove(element);
            }
        }
    }
    changed
}

fn intersection(a: &Map, b: &Map) -> Map {
    let mut common = Vec::new();
    for (element, theirs) in children(b) {
        let Some(ours) = a.get(element).map(node) else { continue };
        let below = intersection(ours, theirs);
        common.extend(
            make_node(below.into_iter().collect(), is_member(ours) && is_member(theirs))
                .map(|node| (element.clone(), node)),
        );
    }
    common.into_iter().collect()
}

fn holds(own: &Map, other: &Map) -> bool {
    children(other).all(|(element, theirs)| {
        let Some(ours) = own.get(element).map(node) else { return false };
        (is_member(ours) || !is_member(theirs)) && holds(ours, theirs)
    })
}

fn collect_paths(node: &Map, prefix: &str, found: &mut Vec<String>) {
    let shown = |element: &Str| format!("{prefix}{}", show_element(element));
    found.extend(children(node).filter(|(_, child)| is_member(child)).map(|(element, _)| shown(element)));
    for (element, child) in children(node).filter(|(_, child)| has_children(child)) {
        collect_paths(child, &shown(element), found);
    }
}

// === elements ===

pub(super) fn field_element(name: &str) -> Str {
    let mut element = Str::with_capacity(name.len() + 2);
    element.push_str("f:");
    element.push_str(name);
    element
}

/// The element of an item of a set: `v:"text"`.
pub(super) fn value_element(value: &Value) -> Str {
    let mut out = b"v:".to_vec();
    value.write_json(&mut out);
    text(out)
}

/// The element of an item of a keyed list: `k:{"name":"c"}`. `keys` are sorted by name.
pub(super) fn key_element<'v>(keys: impl Iterator<Item = (&'v str, &'v Value)>) -> Str {
    let mut out = Vec::with_capacity(48);
    out.extend_from_slice(b"k:{");
    for (index, (name, value)) in keys.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_string(name, &mut out);
        out.push(b':');
        value.write_json(&mut out);
    }
    out.push(b'}');
    text(out)
}

fn text(bytes: Vec<u8>) -> Str {
    String::from_utf8(bytes).expect("JSON is written from strings, hence UTF-8").into()
}

fn canonical_element(element: &str) -> Option<Str> {
    let (sort, rest) = element.split_at_checked(2)?;
    match sort {
        "f:" => Some(element.into()),
        "i:" => rest.parse::<i64>().ok().map(|index| compact_str::format_compact!("i:{index}")),
        "v:" => Some(value_element(&Value::parse(rest.as_bytes()).ok()?)),
        "k:" => {
            let keys = Value::parse(rest.as_bytes()).ok()?;
            Some(key_element(keys.as_object()?.iter().map(|(name, value)| (name.as_str(), value))))
        }
        _ => None,
    }
}

fn canonical_node(value: &Value) -> Option<Map> {
    let map = value.as_object()?;
    let mut member = map.is_empty();
    let mut below = Vec::with_capacity(map.len());
    for (element, child) in map {
        if element == SELF {
            member = true;
        } else {
            below.push((canonical_element(element)?, Value::Object(canonical_node(child)?)));
        }
    }
    match make_node(below, member)? {
        Value::Object(map) => Some(map),
        _ => None,
    }
}

/// `.name`, `[name="c"]`, `[="text"]` or `[0]`.
pub(super) fn show_element(element: &str) -> String {
    let (sort, rest) = element.split_at_checked(2).unwrap_or(("f:", element));
    let parsed = || Value::parse(rest.as_bytes()).unwrap_or_default();
    match sort {
        "k:" => {
            let keys = parsed();
            let shown: Vec<String> = keys
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, value)| format!("{name}={}", show_value(value)))
                .collect();
            format!("[{}]", shown.join(","))
        }
        "v:" => format!("[={}]", show_value(&parsed())),
        "i:" => format!("[{rest}]"),
        _ => format!(".{rest}"),
    }
}

fn show_value(value: &Value) -> String {
    match value {
        Value::String(text) => go_quote(text),
        other => other.to_json_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::json;

    fn set(fields: Value) -> Set {
        Set::from_fields_v1(&fields).unwrap_or_else(|| panic!("{fields} is a set"))
    }

    #[test]
    fn foreign_sets_are_checked_and_made_canonical() {
        let foreign = json!({
            ".": {}, "f:a": {".": {}}, "f:l": {"k:{ \"b\": 1, \"a\":\"x\" }": {}, "v: \"s\"": {}, "i:07": {}},
        });
        let canonical = json!({"f:a": {}, "f:l": {"k:{\"a\":\"x\",\"b\":1}": {}, "v:\"s\"": {}, "i:7": {}}});
        assert_eq!(set(foreign).into_fields_v1(), canonical);
        for bad in [
            json!([]),
            json!({"a": {}}),
            json!({"x:a": {}}),
            json!({"f:a": 1}),
            json!({"k:{": {}}),
            json!({"i:x": {}}),
        ] {
            assert_eq!(Set::from_fields_v1(&bad), None, "{bad}");
        }
    }

    #[test]
    fn paths_are_shown_as_upstream_shows_them() {
        let set = set(json!({
            "f:spec": {"f:z": {}, "f:l": {".": {}, "k:{\"name\":\"c\",\"port\":80}": {"f:image": {}}}},
            "f:finalizers": {"v:\"x\"": {}}, "f:i": {"i:0": {}},
        }));
        assert_eq!(
            set.paths(),
            [".finalizers[=\"x\"]", ".i[0]", ".spec.l", ".spec.z", ".spec.l[name=\"c\",port=80].image",]
        );
    }

    #[test]
    fn subtraction_tells_a_field_from_what_lies_below() {
        let whole = json!({"f:a": {".": {}, "f:b": {".": {}, "f:c": {}}}});
        for (gone, trees, expected) in [
            (json!({"f:a": {}}), false, json!({"f:a": {"f:b": {".": {}, "f:c": {}}}})),
            (json!({"f:a": {}}), true, json!({})),
            (json!({"f:a": {"f:b": {}}}), false, json!({"f:a": {".": {}, "f:b": {"f:c": {}}}})),
            (json!({"f:a": {"f:b": {}}}), true, json!({"f:a": {}})),
            (json!({"f:a": {"f:b": {"f:c": {}}}}), false, json!({"f:a": {".": {}, "f:b": {}}})),
            (json!({"f:x": {}}), false, whole.clone()),
        ] {
            let mut left = set(whole.clone());
            let changed = if trees {
                left.subtract_trees(&set(gone.clone()))
            } else {
                left.subtract(&set(gone.clone()))
            };
            assert_eq!(left.into_fields_v1(), expected, "{gone} {trees}");
            assert_eq!(changed, expected != whole, "{gone} {trees}");
        }
    }

    fn sets() -> impl Strategy<Value = Set> {
        prop::collection::vec(
            prop::collection::vec(prop::sample::select(vec!["f:a", "f:b", "v:1"]), 1..4),
            0..8,
        )
        .prop_map(|paths| {
            let mut set = Set::new();
            for path in paths {
                set.insert(&path.into_iter().map(Str::from).collect::<Vec<_>>());
            }
            set
        })
    }

    /// The laws are those of plain sets, so compare with sets of printed paths.
    fn plain(set: &Set) -> std::collections::BTreeSet<String> {
        set.paths().into_iter().collect()
    }

    proptest! {
        #[test]
        fn operations_are_those_of_sets(a in sets(), b in sets()) {
            let (x, y) = (plain(&a), plain(&b));
            let mut union = a.clone();
            union.unite(&b);
            prop_assert_eq!(plain(&union), x.union(&y).cloned().collect());
            let mut difference = a.clone();
            difference.subtract(&b);
            prop_assert_eq!(plain(&difference), x.difference(&y).cloned().collect());
            let intersection = a.intersection(&b);
            prop_assert_eq!(plain(&intersection), x.intersection(&y).cloned().collect());
            for set in [&union, &difference, &intersection] {
                let stored = set.clone().into_fields_v1();
                prop_assert_eq!(Set::from_fields_v1(&stored), Some(set.clone()), "{} is canonical", stored);
            }
        }
    }
}
