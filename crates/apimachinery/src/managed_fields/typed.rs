//! How a value is divided into fields that can be owned: by its schema, or by its form where there is none.
//!
//! Owns: [`Shape`], which sorts a value into leaf, granular map and associative list, and the path elements of list
//! items. The algorithms beside this one walk shapes and know nothing else of schemas.

use std::fmt;

use smallvec::SmallVec;

use super::set::{key_element, value_element};
use crate::schema::{ListType, NodeKind, SchemaRef};
use crate::{Map, Str, Value};

/// A type for the purpose of ownership; `None` is anything at all, with granular maps and atomic lists.
pub(super) type Type<'s> = Option<SchemaRef<'s>>;

/// A value and how it is owned.
pub(super) enum Shape<'v> {
    /// Owned as a whole: scalars, atomic lists and maps.
    Leaf,
    /// Each field by itself. The map is `None` for `null`.
    Granular(Option<&'v Map>),
    /// Each item by itself.
    Items(Option<&'v [Value]>),
}

/// What the schema says about a type, whatever the value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sort {
    Leaf,
    Granular,
    Items,
    /// The value decides.
    Deduced,
}

pub(super) fn sort(of: Type<'_>) -> Sort {
    let Some(schema) = of else { return Sort::Deduced };
    match schema.kind() {
        // Go types that hold any JSON (`RawExtension`) have a name and are owned as a whole; fields that a custom
        // resource preserves without a schema have none and are taken apart.
        NodeKind::Any if schema.node().definition.is_some() => Sort::Leaf,
        NodeKind::Any => Sort::Deduced,
        NodeKind::Holding(_) | NodeKind::Scalar(_) | NodeKind::Map { atomic: true, .. } => Sort::Leaf,
        NodeKind::Struct(object) if object.atomic => Sort::Leaf,
        NodeKind::Struct(_) | NodeKind::Map { .. } => Sort::Granular,
        NodeKind::List { merge: ListType::Atomic, .. } => Sort::Leaf,
        NodeKind::List { .. } => Sort::Items,
    }
}

/// A value that does not have the form its type asks for counts as a leaf.
pub(super) fn shape<'v>(value: &'v Value, of: Type<'_>) -> Shape<'v> {
    match (sort(of), value) {
        (Sort::Granular | Sort::Deduced, Value::Object(map)) => Shape::Granular(Some(map)),
        (Sort::Granular, Value::Null) => Shape::Granular(None),
        (Sort::Items, Value::Array(items)) => Shape::Items(Some(items)),
        (Sort::Items, Value::Null) => Shape::Items(None),
        _ => Shape::Leaf,
    }
}

/// The type of a field of a struct or map.
pub(super) fn field_type<'s>(of: Type<'s>, name: &str) -> Type<'s> {
    of?.child(name)
}

/// The same, and whether the type declares a field of this name, rather than taking any.
pub(super) fn declared_type<'s>(of: Type<'s>, name: &str) -> (Type<'s>, bool) {
    let found = field_type(of, name);
    let names_fields = of.is_some_and(|schema| matches!(schema.kind(), NodeKind::Struct(_)));
    (found, found.is_some() && names_fields)
}

pub(super) fn item_type(of: Type<'_>) -> Type<'_> {
    of?.items()
}

/// An item of an associative list that cannot be told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NoElement(pub(super) String);

impl fmt::Display for NoElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The path element of an item: by its keys, a missing one read as its default, or by its value.
pub(super) fn element(item: &Value, of: Type<'_>) -> Result<Str, NoElement> {
    let fail = |text: &str| Err(NoElement(text.into()));
    let Some((schema, NodeKind::List { items, merge })) = of.map(|schema| (schema, schema.kind())) else {
        return fail("invalid indexing of non-associative list");
    };
    let keys = match merge {
        ListType::Map(keys) => keys,
        ListType::Set => {
            return match item {
                Value::Object(_) => fail("associative list without keys has an element that's a map type"),
                Value::Array(_) => fail("not supported: associative list with lists as elements"),
                Value::Null => fail("associative list without keys has an element that's an explicit null"),
                scalar => Ok(value_element(scalar)),
            };
        }
        ListType::Atomic => return fail("invalid indexing of non-associative list"),
    };
    let map = match item {
        Value::Object(map) => map,
        Value::Null => return fail("associative list with keys may not have a null element"),
        _ => return fail("associative list with keys may not have non-map elements"),
    };
    let items = schema.schemas.at(*items);
    let mut found: SmallVec<[(&str, &Value); 4]> = keys
        .iter()
        .filter_map(|key| {
            let default = || items.field(key).and_then(|field| field.default.as_ref());
            Some((&**key, map.get(key).or_else(default)?))
        })
        .collect();
    if found.is_empty() {
        let quoted: Vec<String> = keys.iter().map(|key| crate::field::go_quote(key)).collect();
        return Err(NoElement(format!(
            "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
            quoted.join(" ")
        )));
    }
    found.sort_unstable_by_key(|(key, _)| *key);
    Ok(key_element(found.into_iter()))
}

/// Items by their elements, in the order of these; equal elements stay in list order.
pub(super) fn indexed<'v>(items: &'v [Value], of: Type<'_>) -> Result<Vec<(Str, &'v Value)>, NoElement> {
    let mut found = Vec::with_capacity(items.len());
    for item in items {
        found.push((element(item, of)?, item));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// Cuts the leading items with this element off.
pub(super) fn take_run<'i, 'v>(items: &mut &'i [(Str, &'v Value)], element: &Str) -> &'i [(Str, &'v Value)] {
    let end = items.iter().position(|(own, _)| own != element).unwrap_or(items.len());
    let (run, rest) = items.split_at(end);
    *items = rest;
    run
}
