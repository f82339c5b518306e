//! Hot path: which fields differ between two states of an object.
//!
//! Walks both trees together and allocates only for what differs.

use super::set::{Set, field_element, make_node, own_node};
use super::typed::{NoElement, Shape, Sort, Type, field_type, indexed, item_type, shape, sort, take_run};
use crate::{Map, Str, Value};

/// The difference between two states.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Changes {
    pub added: Set,
    pub modified: Set,
    pub removed: Set,
}

type Result<T> = std::result::Result<T, NoElement>;

pub(super) fn compare(old: &Value, new: &Value, of: Type<'_>) -> Result<Changes> {
    let mut nodes = Nodes::default();
    both(old, new, of, &mut nodes)?;
    Ok(Changes {
        added: Set::from_nodes(nodes.added.children),
        modified: Set::from_nodes(nodes.modified.children),
        removed: Set::from_nodes(nodes.removed.children),
    })
}

/// One path in the three sets under construction.
#[derive(Default)]
struct Nodes {
    added: Node,
    modified: Node,
    removed: Node,
}

#[derive(Default)]
struct Node {
    children: Vec<(Str, Value)>,
    member: bool,
}

impl Node {
    fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }

    fn push(&mut self, element: &Str, child: Node) {
        self.children.extend(make_node(child.children, child.member).map(|node| (element.clone(), node)));
    }
}

impl Nodes {
    fn is_empty(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }

    /// Hangs the nodes of a child under this path; the element is made only if there is something to hang.
    fn adopt(&mut self, child: Nodes, element: impl FnOnce() -> Str) {
        if !child.is_empty() {
            let element = element();
            self.added.push(&element, child.added);
            self.modified.push(&element, child.modified);
            self.removed.push(&element, child.removed);
        }
    }
}

fn both(old: &Value, new: &Value, of: Type<'_>, nodes: &mut Nodes) -> Result<()> {
    match (shape(old, of), shape(new, of)) {
        (Shape::Granular(old_map), Shape::Granular(new_map)) => {
            if is_blank(old_map) && is_blank(new_map) {
                nodes.modified.member = old != new;
                return Ok(());
            }
            fields(old_map, new_map, of, nodes)
        }
        (Shape::Items(old_items), Shape::Items(new_items)) => {
            let (old_items, new_items) = (old_items.unwrap_or_default(), new_items.unwrap_or_default());
            if old_items.is_empty() && new_items.is_empty() {
                nodes.modified.member = old != new;
                return Ok(());
            }
            items(old_items, new_items, of, nodes)
        }
        (Shape::Leaf, Shape::Leaf) => {
            nodes.modified.member = old != new;
            Ok(())
        }
        // Only where no schema says what the value is: it turned from one form into another. `null` is no form.
        (Shape::Granular(map), Shape::Leaf) => {
            nodes.modified.member = !new.is_null() || is_blank(map);
            fields(map, None, of, nodes)
        }
        (Shape::Leaf, Shape::Granular(map)) => {
            nodes.modified.member = !old.is_null() || is_blank(map);
            fields(None, map, of, nodes)
        }
        _ => {
            nodes.modified.member = true;
            Ok(())
        }
    }
}

fn is_blank(map: Option<&Map>) -> bool {
    map.is_none_or(Map::is_empty)
}

fn fields(old: Option<&Map>, new: Option<&Map>, of: Type<'_>, nodes: &mut Nodes) -> Result<()> {
    static NONE: Map = Map::new();
    for (name, before, after) in Map::joined(old.unwrap_or(&NONE), new.unwrap_or(&NONE)) {
        match (before, after) {
            (Some(before), Some(after)) => {
                let mut child = Nodes::default();
                both(before, after, field_type(of, name), &mut child)?;
                nodes.adopt(child, || field_element(name));
            }
            (Some(gone), None) => {
                let node = whole(gone, field_type(of, name))?;
                nodes.removed.children.push((field_element(name), node));
            }
            (None, Some(come)) => {
                let node = whole(come, field_type(of, name))?;
                nodes.added.children.push((field_element(name), node));
            }
            (None, None) => {}
        }
    }
    Ok(())
}

fn items(old: &[Value], new: &[Value], of: Type<'_>, nodes: &mut Nodes) -> Result<()> {
    if old == new {
        return Ok(());
    }
    let (old, new) = (indexed(old, of)?, indexed(new, of)?);
    let (mut old, mut new) = (old.as_slice(), new.as_slice());
    let item = item_type(of);
    while let Some(element) = smaller(old.first(), new.first()) {
        let before = take_run(&mut old, &element);
        let after = take_run(&mut new, &element);
        match (before, after) {
            ([], [(_, come)]) => nodes.added.children.push((element, whole(come, item)?)),
            ([(_, gone)], []) => nodes.removed.children.push((element, whole(gone, item)?)),
            ([(_, before)], [(_, after)]) => {
                let mut child = Nodes::default();
                both(before, after, item, &mut child)?;
                nodes.adopt(child, || element);
            }
            // Items that share an element are one thing, owned as a whole.
            ([_, _, ..], [_, _, ..]) => {
                if before != after {
                    nodes.modified.children.push((element, Value::object()));
                }
            }
            ([_, _, ..], after) => {
                nodes.removed.children.push((element.clone(), Value::object()));
                if let [(_, come)] = after {
                    nodes.added.children.push((element, whole(come, item)?));
                }
            }
            (before, _) => {
                if let [(_, gone)] = before {
                    nodes.removed.children.push((element.clone(), whole(gone, item)?));
                }
                nodes.added.children.push((element, Value::object()));
            }
        }
    }
    Ok(())
}

fn smaller(a: Option<&(Str, &Value)>, b: Option<&(Str, &Value)>) -> Option<Str> {
    match (a, b) {
        (Some((a, _)), Some((b, _))) => Some(a.min(b).clone()),
        (Some((one, _)), None) | (None, Some((one, _))) => Some(one.clone()),
        (None, None) => None,
    }
}

/// The node of a value that is there on one side only: it and everything in it.
fn whole(value: &Value, of: Type<'_>) -> Result<Value> {
    let mut nodes = Vec::new();
    match value {
        Value::Object(map) if !map.is_empty() && matches!(sort(of), Sort::Granular | Sort::Deduced) => {
            nodes.reserve_exact(map.len() + 1);
            nodes.push(own_node());
            for (name, field) in map {
                nodes.push((field_element(name), whole(field, field_type(of, name))?));
            }
        }
        Value::Array(items) if !items.is_empty() && sort(of) == Sort::Items => {
            nodes.reserve_exact(items.len() + 1);
            nodes.push(own_node());
            whole_items(items, of, &mut nodes)?;
        }
        _ => {}
    }
    Ok(nodes.into_iter().collect())
}

fn whole_items(items: &[Value], of: Type<'_>, nodes: &mut Vec<(Str, Value)>) -> Result<()> {
    let found = indexed(items, of)?;
    let mut rest = found.as_slice();
    while let Some((element, _)) = rest.first() {
        let node = match take_run(&mut rest, element) {
            [(_, one)] => whole(one, item_type(of))?,
            _ => Value::object(),
        };
        nodes.push((element.clone(), node));
    }
    Ok(())
}
