//! Strategic merge patch: a merge patch that knows which lists merge by which key.
//!
//! Owns: the merge and its directives, told apart from fields by their names:
//!
//! | in | directive | meaning |
//! |---|---|---|
//! | an object | `$patch: replace` or `delete` | take the rest of the patch as it is, or nothing |
//! | a list item | `$patch: delete` or `replace` | drop the item with this key, or all items not in the patch |
//! | an object | `$retainKeys: […]` | drop all fields but these first |
//! | an object | `$setElementOrder/list: […]` | the order of the merged list |
//! | an object | `$deleteFromPrimitiveList/list: […]` | drop these items |
//!
//! Start at [`apply`]. Results, including the order of merged lists, and error texts are upstream's
//! (`k8s.io/apimachinery/pkg/util/strategicpatch`).

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::{PatchError, go_print};
use crate::schema::{NodeKind, PatchStrategy, SchemaRef};
use crate::{Map, Str, Value};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ORDER: &str = "$setElementOrder";
const DELETE_ITEMS: &str = "$deleteFromPrimitiveList";

type Result<T> = std::result::Result<T, PatchError>;

/// Applies a strategic merge patch to an object of a kind. On an error the object is left half patched.
pub fn apply(document: &mut Value, patch: Value, schema: SchemaRef<'_>) -> Result<()> {
    match patch {
        Value::Object(patch) => merge_map(document.ensure_object(), patch, Some(schema)),
        other => Err(PatchError::not_a("map[string]interface {}", &other)),
    }
}

/// `schema` is absent below untyped values, where nothing is known about lists.
fn merge_map(original: &mut Map, mut patch: Map, schema: Option<SchemaRef<'_>>) -> Result<()> {
    if let Some(directive) = patch.get(DIRECTIVE) {
        match directive.as_str() {
            Some("replace") => {
                patch.remove(DIRECTIVE);
                *original = patch;
            }
            Some("delete") => *original = Map::new(),
            _ => return Err(bad_directive(&patch)),
        }
        return Ok(());
    }
    retain_keys(original, &mut patch)?;
    set_orders(original, &mut patch, schema)?;
    for (name, change) in patch {
        match name.strip_prefix(DELETE_ITEMS) {
            Some(list) => delete_items(original, list, change)?,
            None => merge_field(original, name, change, schema)?,
        }
    }
    Ok(())
}

fn merge_field(original: &mut Map, name: Str, change: Value, schema: Option<SchemaRef<'_>>) -> Result<()> {
    if change.is_null() {
        original.remove(&name);
        return Ok(());
    }
    let field = Typed::of(schema, &name);
    match (original.get_mut(&name), change) {
        (Some(Value::Object(current)), Value::Object(change)) => {
            if field.patch.replace {
                *current = change;
            } else {
                merge_map(current, change, field.schema)?;
            }
        }
        (Some(Value::Array(current)), Value::Array(change)) => {
            *current =
                if field.patch.merge { merge_list(std::mem::take(current), change, &field)? } else { change };
        }
        (_, change) => {
            match without_directives(without_nulls(change)) {
                Some(value) => original.insert(name, value),
                None => original.remove(&name),
            };
        }
    }
    Ok(())
}

/// A field's type and patch strategy.
struct Typed<'s> {
    schema: Option<SchemaRef<'s>>,
    patch: Cow<'s, PatchStrategy>,
}

impl<'s> Typed<'s> {
    fn of(schema: Option<SchemaRef<'s>>, name: &str) -> Self {
        let patch = schema.and_then(|schema| schema.field(name)).map(|field| &field.patch);
        Self {
            schema: schema.and_then(|schema| schema.child(name)),
            patch: patch.map_or_else(|| Cow::Owned(PatchStrategy::default()), Cow::Borrowed),
        }
    }

    fn items(&self) -> Option<SchemaRef<'s>> {
        self.schema?.items()
    }

    fn merge_key(&self) -> Option<&str> {
        self.patch.merge_key.as_deref()
    }
}

/// Obeys `$retainKeys`: fields that it does not list go, and the patch may set no others.
fn retain_keys(original: &mut Map, patch: &mut Map) -> Result<()> {
    let bad = || PatchError::malformed("invalid patch format of retainKeys");
    let kept = match patch.remove(RETAIN_KEYS) {
        None => return Ok(()),
        Some(Value::Array(kept)) => kept,
        Some(_) => return Err(bad()),
    };
    let is_kept = |name: &Str| kept.iter().any(|item| item.as_str() == Some(name));
    let sets = |(name, value): (&Str, &Value)| {
        !value.is_null() && !name.starts_with(DELETE_ITEMS) && !name.starts_with(SET_ORDER) && !is_kept(name)
    };
    if patch.iter().any(sets) {
        return Err(bad());
    }
    original.retain(|name, _| is_kept(name));
    Ok(())
}

/// Merges the lists for which the patch gives an order, and takes both out of the patch.
fn set_orders(original: &mut Map, patch: &mut Map, schema: Option<SchemaRef<'_>>) -> Result<()> {
    let directives: Vec<Str> = patch.keys().filter(|name| name.starts_with(SET_ORDER)).cloned().collect();
    for directive in directives {
        let order = list(patch.remove(&directive).unwrap_or_default())?;
        let name = directive
            .strip_prefix(SET_ORDER)
            .and_then(|rest| rest.strip_prefix('/'))
            .ok_or_else(|| PatchError::malformed("invalid patch format of setElementOrder list"))?;
        let field = Typed::of(schema, name);
        let current = match original.get_mut(name) {
            None | Some(Value::Null) => None,
            Some(current) => Some(list(current.take())?),
        };
        let change = patch.remove(name).map(list).transpose()?;
        check_order(change.as_deref().unwrap_or_default(), &order, field.merge_key())?;
        let server_order = order_on_server(
            current.as_deref().unwrap_or_default(),
            change.as_deref().unwrap_or_default(),
            field.merge_key(),
        );
        let merged = match (current, change) {
            (None, None) => continue,
            (Some(current), None) => current,
            (None, Some(change)) => change.into_iter().filter_map(without_directives).collect(),
            (Some(current), Some(change)) if field.patch.merge => merge_list(current, change, &field)?,
            (Some(_), Some(change)) => change,
        };
        if let Some(key) = field.merge_key() {
            merged.iter().chain(&order).try_for_each(|item| key_of(item, key).map(drop))?;
        }
        let ordered = in_order(merged, &keys(&order, field.merge_key()), &server_order, field.merge_key());
        original.insert(name, Value::Array(ordered));
    }
    Ok(())
}

/// The order of the items on the server. Upstream looks at it after the merge, which deletes and appends in place: the
/// first new items stand where the last ones stood before as many were deleted.
fn order_on_server(current: &[Value], change: &[Value], key: Option<&str>) -> Vec<Cow<'static, str>> {
    let mut order = keys(current, key);
    if key.is_none() || change.iter().all(|item| item.get(DIRECTIVE).is_none()) {
        return order;
    }
    let (deletions, additions): (Vec<Value>, Vec<Value>) =
        change.iter().cloned().partition(|item| item.get(DIRECTIVE).is_some());
    let gone: HashSet<_> = keys(&deletions, key).into_iter().collect();
    order.retain(|identity| !gone.contains(identity));
    let freed = current.len() - order.len();
    let known: HashSet<_> = order.iter().cloned().collect();
    order.extend(keys(&additions, key).into_iter().filter(|identity| !known.contains(identity)).take(freed));
    order
}

/// The items a patch sets must stand in the order that it asks for.
fn check_order(change: &[Value], order: &[Value], key: Option<&str>) -> Result<()> {
    if change.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut wanted = order.iter();
    for item in change.iter().filter(|item| item.get(DIRECTIVE).is_none()) {
        let own = identity(item, key)?;
        let mut found = false;
        for candidate in wanted.by_ref() {
            if identity(candidate, key)? == own {
                found = true;
                break;
            }
        }
        if !found {
            return Err(PatchError::unworkable(format!(
                "The order in patch list:\n{}\n doesn't match {SET_ORDER} list:\n{}\n",
                go_print(&Value::Array(change.to_vec())),
                go_print(&Value::Array(order.to_vec())),
            )));
        }
    }
    Ok(())
}

/// Obeys `$deleteFromPrimitiveList/name`; `rest` is what follows the directive's word.
fn delete_items(original: &mut Map, rest: &str, change: Value) -> Result<()> {
    let name = rest
        .strip_prefix('/')
        .ok_or_else(|| PatchError::malformed("invalid patch format of primitive list"))?;
    if change.is_null() {
        original.remove(name);
        return Ok(());
    }
    if let (Some(Value::Array(items)), Value::Array(gone)) = (original.get_mut(name), change) {
        items.retain(|item| !gone.contains(item));
    }
    Ok(())
}

fn merge_list(original: Vec<Value>, change: Vec<Value>, field: &Typed<'_>) -> Result<Vec<Value>> {
    if original.is_empty() && change.is_empty() {
        return Ok(original);
    }
    if !holds_objects(&original, &change)? {
        return Ok(merge_scalars(original, change));
    }
    let Some(key) = field.merge_key() else {
        return Err(PatchError::unworkable("cannot merge lists without merge key for struct"));
    };
    let (mut merged, change) = obey_item_directives(original, change, key)?;
    let server_order = keys(&merged, Some(key));
    let patch_order = keys(&change, Some(key));
    let mut places: HashMap<Cow<'static, str>, usize> = HashMap::with_capacity(merged.len());
    for (at, item) in merged.iter().enumerate() {
        let Value::Object(map) = item else {
            return Err(PatchError::unworkable(format!("value for key {at} is not a map")));
        };
        if let Some(value) = map.get(key) {
            places.entry(text(value)).or_insert(at);
        }
    }
    for item in change {
        let identity = text(key_of(&item, key)?);
        match (places.get(&identity), item) {
            (Some(&at), Value::Object(item)) => merge_map(merged[at].ensure_object(), item, field.items())?,
            (_, item) => {
                places.insert(identity, merged.len());
                merged.extend(without_directives(without_nulls(item)));
            }
        }
    }
    merged.iter().try_for_each(|item| key_of(item, key).map(drop))?;
    Ok(in_order(merged, &patch_order, &server_order, Some(key)))
}

/// The union, each item once.
fn merge_scalars(original: Vec<Value>, change: Vec<Value>) -> Vec<Value> {
    let (patch_order, server_order) = (keys(&change, None), keys(&original, None));
    let mut seen = HashSet::new();
    let merged = original.into_iter().chain(change).filter(|item| seen.insert(text(item))).collect();
    in_order(merged, &patch_order, &server_order, None)
}

/// Whether the lists hold objects; all items of both must be of one JSON type.
fn holds_objects(original: &[Value], change: &[Value]) -> Result<bool> {
    let mut all = original.iter().chain(change);
    let Some(first) = all.next() else {
        return Err(PatchError::unworkable("no elements in any of the given slices"));
    };
    if matches!(first, Value::Array(_)) {
        return Err(PatchError::Inapplicable("lists of lists are not supported".into()));
    }
    if all.any(|item| std::mem::discriminant(item) != std::mem::discriminant(first)) {
        let both = Value::Array(vec![Value::Array(original.to_vec()), Value::Array(change.to_vec())]);
        return Err(PatchError::unworkable(format!(
            "list element types are not identical: {}",
            go_print(&both)
        )));
    }
    Ok(first.is_object())
}

/// Obeys `$patch` in items of the patch; what is left of it holds no more directives.
fn obey_item_directives(
    mut original: Vec<Value>,
    change: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>)> {
    let (mut rest, mut replace) = (Vec::with_capacity(change.len()), false);
    for item in change {
        match item.get(DIRECTIVE).map(Value::as_str) {
            None => rest.push(item),
            Some(Some("delete")) => {
                let gone = key_of(&item, key)?;
                original.retain(|item| item.get(key) != Some(gone));
            }
            Some(Some("replace")) => replace = true,
            Some(Some("merge")) => {
                return Err(PatchError::unworkable("merging lists cannot yet be specified in the patch"));
            }
            Some(_) => {
                return Err(item.as_object().map_or_else(|| PatchError::unworkable("no map"), bad_directive));
            }
        }
    }
    Ok(if replace { (rest, Vec::new()) } else { (original, rest) })
}

/// Orders a merged list: items of the patch as the patch has them, items only the server has as the server has them,
/// and the latter before the first of the former that the server has behind them.
fn in_order(
    merged: Vec<Value>,
    patch_order: &[Cow<'_, str>],
    server_order: &[Cow<'_, str>],
    key: Option<&str>,
) -> Vec<Value> {
    let places = |order: &[Cow<'_, str>]| {
        let mut places: HashMap<String, usize> = HashMap::with_capacity(order.len());
        for (at, identity) in order.iter().enumerate() {
            places.entry(identity.to_string()).or_insert(at);
        }
        places
    };
    let (in_patch, on_server) = (places(patch_order), places(server_order));
    let (mut patched, mut server_only) = (Vec::new(), Vec::new());
    for item in merged {
        let identity = key.map_or(Some(&item), |key| item.get(key)).map(text).unwrap_or_default();
        let server_at = on_server.get(&*identity).copied();
        match in_patch.get(&*identity) {
            Some(&at) => patched.push((at, server_at, item)),
            None => server_only.push((server_at.unwrap_or(usize::MAX), server_at, item)),
        }
    }
    patched.sort_by_key(|(at, ..)| *at);
    server_only.sort_by_key(|(at, ..)| *at);
    let mut ordered = Vec::with_capacity(patched.len() + server_only.len());
    let mut server_only = server_only.into_iter().peekable();
    for (_, patched_at, item) in patched {
        let before = |(_, server_at, _): &(usize, Option<usize>, Value)| matches!((server_at, patched_at), (Some(server), Some(patched)) if *server < patched);
        while let Some((.., item)) = server_only.next_if(before) {
            ordered.push(item);
        }
        ordered.push(item);
    }
    ordered.extend(server_only.map(|(.., item)| item));
    ordered
}

fn keys(items: &[Value], key: Option<&str>) -> Vec<Cow<'static, str>> {
    items.iter().filter_map(|item| key.map_or(Some(item), |key| item.get(key))).map(text).collect()
}

/// A scalar as text that no other scalar has.
fn text(value: &Value) -> Cow<'static, str> {
    match value {
        Value::String(text) => Cow::Owned(text.to_string()),
        other => Cow::Owned(format!("\0{other}")),
    }
}

fn identity<'v>(item: &'v Value, key: Option<&str>) -> Result<&'v Value> {
    key.map_or(Ok(item), |key| key_of(item, key))
}

fn key_of<'v>(item: &'v Value, key: &str) -> Result<&'v Value> {
    if !item.is_object() {
        let found = go_type(item);
        return Err(PatchError::unworkable(format!(
            "expected a map[string]interface {{}}, but received a {found}"
        )));
    }
    item.get(key).ok_or_else(|| {
        PatchError::unworkable(format!("map: {} does not contain declared merge key: {key}", go_print(item)))
    })
}

fn list(value: Value) -> Result<Vec<Value>> {
    match value {
        Value::Array(items) => Ok(items),
        other => {
            let found = go_type(&other);
            Err(PatchError::unworkable(format!("expected a []interface {{}}, but received a {found}")))
        }
    }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "%!s(<nil>)",
        Value::Bool(_) => "bool",
        Value::Number(crate::Number::Float(_)) => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

fn bad_directive(map: &Map) -> PatchError {
    let directive = map.get(DIRECTIVE).map(go_print).unwrap_or_default();
    let shown = go_print(&Value::Object(map.clone()));
    PatchError::unworkable(format!("unknown patch type: {directive} in map: {shown}"))
}

/// A `null` in what is new has nothing to remove.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => map
            .into_iter()
            .filter(|(_, field)| !field.is_null())
            .map(|(name, field)| (name, without_nulls(field)))
            .collect(),
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

/// What is new, without objects that carry a `$patch` directive: they meant something that is not there.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.contains_key(DIRECTIVE) => None,
        Value::Object(map) => Some(
            map.into_iter().filter_map(|(name, field)| Some((name, without_directives(field)?))).collect(),
        ),
        Value::Array(items) => Some(items.into_iter().filter_map(without_directives).collect()),
        other => Some(other),
    }
}

/// Whether a kind can take strategic merge patches: custom resources, which have no merge keys, cannot.
pub fn is_supported(schema: SchemaRef<'_>) -> bool {
    matches!(schema.kind(), NodeKind::Struct(_))
}

#[cfg(test)]
mod tests;
