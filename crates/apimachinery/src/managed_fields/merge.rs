//! The parts of server-side apply that make values and sets: merging a configuration into an object, taking fields
//! out of it, the set of fields a configuration names, and checking a configuration against its schema.
//!
//! Start at [`merge`]. What each does with `null`, empty and duplicate values is upstream's
//! (`sigs.k8s.io/structured-merge-diff`, package `typed`).

use std::collections::{HashMap, HashSet};
use std::fmt;

use super::set::{self, Set, field_element, has_children, is_member, make_node};
use super::typed::{
    NoElement, Shape, Sort, Type, declared_type, element, field_type, indexed, item_type, shape, sort,
    take_run,
};
use crate::schema::{NodeKind, Scalar};
use crate::{Map, Str, Value};

type Result<T> = std::result::Result<T, NoElement>;

/// Lays `config` over `live`: leaves of `config` win, granular maps and associative lists merge, nothing goes.
pub(super) fn merge(live: &Value, config: &Value, of: Type<'_>) -> Result<Value> {
    match (shape(live, of), shape(config, of)) {
        (Shape::Granular(live_map), Shape::Granular(config_map)) => {
            merge_maps(live_map, config_map, of).map(|merged| merged.unwrap_or_else(|| config.clone()))
        }
        (Shape::Items(live_items), Shape::Items(config_items)) => {
            let (live_items, config_items) =
                (live_items.unwrap_or_default(), config_items.unwrap_or_default());
            if live_items.is_empty() && config_items.is_empty() {
                return Ok(config.clone());
            }
            merge_items(live_items, config_items, of).map(Value::Array)
        }
        // Where no schema says otherwise, `null` adds nothing to a map.
        (Shape::Granular(Some(map)), Shape::Leaf) if config.is_null() && !map.is_empty() => Ok(live.clone()),
        _ => Ok(config.clone()),
    }
}

/// Paths of the lists, maps and structs in a configuration that are owned as a whole.
pub(super) fn atomics(config: &Value, of: Type<'_>) -> Vec<String> {
    let mut found = Vec::new();
    atomics_below(config, of, Place::Root, &mut found);
    found
}

fn atomics_below(config: &Value, of: Type<'_>, place: Place<'_>, found: &mut Vec<String>) {
    if matches!(config, Value::Object(_) | Value::Array(_)) && sort(of) == Sort::Leaf {
        found.push(place.to_string());
    }
    match config {
        Value::Object(map) => {
            for (name, value) in map {
                atomics_below(value, field_type(of, name), Place::Field(&place, name), found);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                atomics_below(item, item_type(of), Place::Index(&place, index), found);
            }
        }
        _ => {}
    }
}

/// `None` when both are empty.
fn merge_maps(live: Option<&Map>, config: Option<&Map>, of: Type<'_>) -> Result<Option<Value>> {
    static NONE: Map = Map::new();
    let Some(config) = config.filter(|map| !map.is_empty()) else {
        return Ok(live.filter(|map| !map.is_empty()).map(|map| Value::Object(map.clone())));
    };
    let live = live.unwrap_or(&NONE);
    let mut merged = Vec::with_capacity(live.len() + config.len());
    for (name, current, value) in Map::joined(live, config) {
        let value = match (current, value) {
            (Some(current), Some(value)) => merge(current, value, field_type(of, name))?,
            (one, other) => one.or(other).cloned().unwrap_or_default(),
        };
        merged.push((name.clone(), value));
    }
    Ok(Some(merged.into_iter().collect()))
}

/// Items of `config` come in its order; items only `live` has keep their places between those that both have.
fn merge_items(live: &[Value], config: &[Value], of: Type<'_>) -> Result<Vec<Value>> {
    let live_elements = live.iter().map(|item| element(item, of)).collect::<Result<Vec<_>>>()?;
    let config_elements = config.iter().map(|item| element(item, of)).collect::<Result<Vec<_>>>()?;
    let item = item_type(of);
    // What most applies find.
    if live_elements == config_elements && are_distinct(&live_elements) {
        return live.iter().zip(config).map(|(live, config)| merge(live, config, item)).collect();
    }
    // An element that several items of `live` share cannot be merged with: the item of `config` replaces them.
    let mut in_live: HashMap<&Str, Option<&Value>> = HashMap::with_capacity(live.len());
    for (element, item) in live_elements.iter().zip(live) {
        in_live.entry(element).and_modify(|found| *found = None).or_insert(Some(item));
    }
    let in_config: HashSet<&Str> = config_elements.iter().collect();
    let take = |element: &Str, value: &Value| match in_live.get(element) {
        Some(Some(current)) => merge(current, value, item),
        _ => Ok(value.clone()),
    };
    let mut shared = config_elements.iter().filter(|element| in_live.contains_key(element));
    let mut next_shared = shared.next();
    let mut taken: HashSet<&Str> = HashSet::new();
    let mut merged = Vec::with_capacity(live.len().max(config.len()));
    let (mut at_live, mut at_config) = (0, 0);
    while at_live < live.len() || at_config < config.len() {
        if at_live < live.len() && at_config < config.len() {
            let own = &live_elements[at_live];
            if *own == config_elements[at_config] {
                taken.insert(own);
                merged.push(take(own, &config[at_config])?);
                at_live += 1;
                at_config += 1;
                next_shared = shared.next();
                continue;
            }
            if in_config.contains(own) && next_shared.is_some_and(|next| next != own) {
                // Its turn comes when `config` names it.
                at_live += 1;
                continue;
            }
        }
        if at_live < live.len() {
            let own = &live_elements[at_live];
            if !in_config.contains(own) {
                merged.push(live[at_live].clone());
                at_live += 1;
                continue;
            }
            if taken.contains(own) {
                at_live += 1;
            }
        }
        if at_config < config.len() {
            let own = &config_elements[at_config];
            taken.insert(own);
            merged.push(take(own, &config[at_config])?);
            at_config += 1;
            if next_shared == Some(own) {
                next_shared = shared.next();
            }
        }
    }
    Ok(merged)
}

fn are_distinct(elements: &[Str]) -> bool {
    let mut sorted: Vec<&Str> = elements.iter().collect();
    sorted.sort_unstable();
    sorted.windows(2).all(|pair| pair[0] != pair[1])
}

/// The fields that a configuration names: all its leaves, items and map keys.
pub(super) fn field_set(value: &Value, of: Type<'_>) -> Result<Set> {
    Ok(Set::from_nodes(named_below(value, of)?))
}

fn named_below(value: &Value, of: Type<'_>) -> Result<Vec<(Str, Value)>> {
    match shape(value, of) {
        Shape::Leaf | Shape::Granular(None) | Shape::Items(None) => Ok(Vec::new()),
        Shape::Granular(Some(map)) => {
            let mut nodes = Vec::with_capacity(map.len());
            for (name, field) in map {
                let (field_type, declared) = declared_type(of, name);
                let empty = field.is_null() || field.as_object().is_some_and(Map::is_empty);
                let member = empty || !declared || matches!(shape(field, field_type), Shape::Leaf);
                nodes.extend(
                    make_node(named_below(field, field_type)?, member)
                        .map(|node| (field_element(name), node)),
                );
            }
            Ok(nodes)
        }
        Shape::Items(Some(items)) => {
            let found = indexed(items, of)?;
            let mut rest = found.as_slice();
            let mut nodes = Vec::with_capacity(found.len());
            while let Some((element, _)) = rest.first() {
                let below = match take_run(&mut rest, element) {
                    [(_, item)] => named_below(item, item_type(of))?,
                    _ => Vec::new(),
                };
                nodes.extend(make_node(below, true).map(|node| (element.clone(), node)));
            }
            Ok(nodes)
        }
    }
}

/// The value without the fields in the set. What becomes empty becomes `null`, and decoding takes that away.
pub(super) fn without(value: &Value, gone: &Set, of: Type<'_>) -> Result<Value> {
    without_below(value, gone.root(), of)
}

fn without_below(value: &Value, gone: &Map, of: Type<'_>) -> Result<Value> {
    match (shape(value, of), value) {
        (Shape::Granular(Some(map)), _) if !map.is_empty() => {
            let mut kept = Vec::with_capacity(map.len());
            for (name, field) in map {
                let field = match gone.get(&field_element(name)).map(set::node) {
                    None => field.clone(),
                    Some(node) if is_member(node) => continue,
                    Some(node) => without_below(field, node, field_type(of, name))?,
                };
                kept.push((name.clone(), field));
            }
            Ok(if kept.is_empty() { Value::Null } else { kept.into_iter().collect() })
        }
        (Shape::Items(Some(items)), _) if !items.is_empty() => {
            let mut kept = Vec::with_capacity(items.len());
            for item in items {
                kept.push(match gone.get(&element(item, of)?).map(set::node) {
                    None => item.clone(),
                    Some(node) if is_member(node) => continue,
                    Some(node) => without_below(item, node, item_type(of))?,
                });
            }
            Ok(if kept.is_empty() { Value::Null } else { Value::Array(kept) })
        }
        // Fields named below something that is owned as a whole take it away.
        (_, Value::Object(_) | Value::Array(_)) => Ok(Value::Null),
        _ => Ok(value.clone()),
    }
}

/// The set with every declared field added that has something below it in the set: `spec` along with `spec.replicas`.
pub(super) fn with_declared_parents(set: &Set, of: Type<'_>) -> Set {
    Set::from_nodes(declared_below(set.root(), of))
}

fn declared_below(node: &Map, of: Type<'_>) -> Vec<(Str, Value)> {
    set::children(node)
        .filter_map(|(element, child)| {
            let (below, declared) = match element.strip_prefix("f:") {
                Some(name) => declared_type(of, name),
                None => (item_type(of), false),
            };
            let member = is_member(child) || (declared && has_children(child));
            make_node(declared_below(child, below), member).map(|node| (element.clone(), node))
        })
        .collect()
}

/// The fields after their kind's schema changed: what is owned as a whole now, but was owned in parts, is owned whole.
/// `None` when nothing changed.
pub(super) fn reconciled(fields: &Map, of: Type<'_>) -> Option<Set> {
    is_stale(fields, of).then(|| Set::from_nodes(reconciled_below(fields, of)))
}

/// Whether something below is owned in parts that has to be owned as a whole.
fn is_stale(node: &Map, of: Type<'_>) -> bool {
    set::children(node).any(|(element, child)| {
        let below = element_type(of, element);
        has_children(child) && (is_whole(below) || is_stale(child, below))
    })
}

fn reconciled_below(node: &Map, of: Type<'_>) -> Vec<(Str, Value)> {
    set::children(node)
        .filter_map(|(element, child)| {
            let below = element_type(of, element);
            let node = if has_children(child) && is_whole(below) {
                Some(Value::object())
            } else {
                make_node(reconciled_below(child, below), is_member(child))
            };
            node.map(|node| (element.clone(), node))
        })
        .collect()
}

/// The type of what an element of a path names.
fn element_type<'s>(of: Type<'s>, element: &str) -> Type<'s> {
    match element.strip_prefix("f:") {
        Some(name) => field_type(of, name),
        None => item_type(of),
    }
}

/// Whether a list, map or struct of this type is owned as a whole.
fn is_whole(of: Type<'_>) -> bool {
    sort(of) == Sort::Leaf && !of.is_some_and(|schema| matches!(schema.kind(), NodeKind::Scalar(_)))
}

/// What is wrong with a configuration: fields the schema does not have, values of other types, ambiguous items.
/// Each message begins with its path (`.spec.zz: field not declared in schema`).
pub(super) fn validate(value: &Value, of: Type<'_>) -> Vec<String> {
    let mut errors = Vec::new();
    check(value, of, Place::Root, &mut errors);
    errors
}

/// Where a value stands; written only when there is something to say of it.
#[derive(Clone, Copy)]
enum Place<'p> {
    Root,
    Field(&'p Place<'p>, &'p str),
    /// An item by its element, and by its index.
    Item(&'p Place<'p>, &'p str),
    Index(&'p Place<'p>, usize),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(parent, name) => write!(f, "{parent}.{name}"),
            Self::Item(parent, element) => write!(f, "{parent}{}", set::show_element(element)),
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

fn check(value: &Value, of: Type<'_>, place: Place<'_>, errors: &mut Vec<String>) {
    let Some(schema) = of else { return };
    let mut complain = |text: String| {
        errors.push(if matches!(place, Place::Root) { text } else { format!("{place}: {text}") });
    };
    match (schema.kind(), value) {
        (NodeKind::Any | NodeKind::Holding(_), _) | (_, Value::Null) => {}
        (NodeKind::Scalar(scalar), value) => {
            if let Some(text) = scalar_error(*scalar, value) {
                complain(text);
            }
        }
        (NodeKind::Struct(_) | NodeKind::Map { .. }, Value::Object(map)) => {
            let open = !matches!(schema.kind(), NodeKind::Struct(object) if !object.preserve_unknown);
            for (name, field) in map {
                let below = Place::Field(&place, name);
                let (field_type, declared) = declared_type(of, name);
                if !declared {
                    // The schema of a custom resource need not repeat what every object has.
                    if matches!(place, Place::Root) && is_of_every_object(name) {
                        continue;
                    }
                    if !open {
                        errors.push(format!("{below}: field not declared in schema"));
                        return;
                    }
                }
                check(field, field_type, below, errors);
            }
        }
        (NodeKind::List { .. }, Value::Array(items)) => check_items(items, of, place, errors),
        (NodeKind::Struct(_) | NodeKind::Map { .. }, other) => {
            complain(format!("expected map, got &{{{}}}", go_value(other)));
        }
        (NodeKind::List { .. }, other) => complain(format!("expected list, got &{{{}}}", go_value(other))),
    }
}

fn is_of_every_object(name: &str) -> bool {
    matches!(name, "apiVersion" | "kind" | "metadata")
}

fn check_items(items: &[Value], of: Type<'_>, place: Place<'_>, errors: &mut Vec<String>) {
    if sort(of) != Sort::Items {
        for (index, item) in items.iter().enumerate() {
            check(item, item_type(of), Place::Index(&place, index), errors);
        }
        return;
    }
    let mut seen = HashSet::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let own = match element(item, of) {
            Ok(own) => own,
            Err(error) => {
                errors.push(format!("{place}: element {index}: {error}"));
                return;
            }
        };
        if seen.contains(&own) {
            errors.push(format!("{place}: duplicate entries for key {}", set::show_element(&own)));
        }
        check(item, item_type(of), Place::Item(&place, &own), errors);
        seen.insert(own);
    }
}

fn scalar_error(scalar: Scalar, value: &Value) -> Option<String> {
    let is_scalar = !matches!(value, Value::Object(_) | Value::Array(_));
    match (scalar, value) {
        (Scalar::Boolean, Value::Bool(_)) => None,
        (Scalar::Int32 | Scalar::Int64 | Scalar::Double, Value::Number(_)) => None,
        (Scalar::String | Scalar::Bytes | Scalar::Duration, Value::String(_)) => None,
        (Scalar::IntOrString | Scalar::Quantity | Scalar::Time | Scalar::MicroTime, _) if is_scalar => None,
        (Scalar::Boolean, other) => Some(format!("expected boolean, got &{{{}}}", go_value(other))),
        (Scalar::Int32 | Scalar::Int64 | Scalar::Double, other) => {
            Some(format!("expected numeric (int or float), got {}", go_type(other)))
        }
        (Scalar::String | Scalar::Bytes | Scalar::Duration, other) => {
            Some(format!("expected string, got &value.valueUnstructured{{Value:{}}}", go_syntax(other)))
        }
        (_, other) => Some(format!("expected any scalar, got &{{{}}}", go_value(other))),
    }
}

/// Go's `%v`.
fn go_value(value: &Value) -> String {
    crate::patch::go_print(value)
}

/// Go's `%#v`.
fn go_syntax(value: &Value) -> String {
    match value {
        Value::String(text) => crate::field::go_quote(text),
        Value::Array(items) => {
            let shown: Vec<String> = items.iter().map(go_syntax).collect();
            format!("[]interface {{}}{{{}}}", shown.join(", "))
        }
        Value::Object(map) => {
            let shown: Vec<String> = map
                .iter()
                .map(|(name, value)| format!("{}:{}", crate::field::go_quote(name), go_syntax(value)))
                .collect();
            format!("map[string]interface {{}}{{{}}}", shown.join(", "))
        }
        other => other.to_json_string(),
    }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(crate::Number::Float(_)) => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}
