//! The shape of a kind: which fields it has, of which types, and how lists and maps merge.
//!
//! One form for built-in kinds (filled from generated tables in `api`) and custom resources (filled from a CRD):
//! decoding, strategic merge, server-side apply and OpenAPI read the same nodes.
//!
//! A [`Schemas`] is an arena, because types refer to each other and to themselves (`JSONSchemaProps`).
//! Markers and their defaults are those of KEP-555: an unmarked list is atomic, an unmarked map or struct is
//! granular.

use std::collections::HashMap;
use std::sync::Arc;

use crate::Value;

/// Index of a node in its arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NodeId(pub u32);

/// An arena of schema nodes and the names under which whole types are found.
#[derive(Debug, Default)]
pub struct Schemas {
    /// The arena that this one goes on from: a custom resource's types stand on the built-in ones.
    base: Option<Arc<Schemas>>,
    /// How many nodes the arenas below have.
    offset: usize,
    nodes: Vec<Node>,
    /// Definition name (`io.k8s.api.core.v1.Pod`) to node.
    definitions: HashMap<Box<str>, NodeId>,
}

#[derive(Debug, Clone)]
pub struct Node {
    pub kind: NodeKind,
    /// The name of the definition this node is, for OpenAPI and messages.
    pub definition: Option<Box<str>>,
}

#[derive(Debug, Clone)]
pub enum NodeKind {
    /// Any JSON. With a definition (`RawExtension`, `JSON`) it is owned and replaced as a whole; without one (a field
    /// that a custom resource preserves) its maps are granular.
    Any,
    /// Any JSON, too, but an object in it, or in a list in it, is of this type (`JSONSchemaPropsOrBool`). Go reads it
    /// with a decoder of its own, which drops unknown fields without a word.
    Holding(NodeId),
    Scalar(Scalar),
    Struct(Struct),
    Map {
        values: NodeId,
        atomic: bool,
    },
    List {
        items: NodeId,
        merge: ListType,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scalar {
    Boolean,
    Int32,
    Int64,
    Double,
    String,
    /// base64 in JSON.
    Bytes,
    IntOrString,
    Quantity,
    Time,
    MicroTime,
    Duration,
}

impl Scalar {
    fn zero(self) -> Value {
        match self {
            Self::Boolean => Value::from(false),
            Self::Int32 | Self::Int64 | Self::Double | Self::IntOrString => Value::from(0),
            Self::String => Value::from(""),
            Self::Quantity => Value::from("0"),
            Self::Duration => Value::from("0s"),
            Self::Bytes | Self::Time | Self::MicroTime => Value::Null,
        }
    }
}

#[derive(Debug, Clone, Default)]
pub struct Struct {
    /// Sorted by name.
    pub fields: Vec<Field>,
    /// The struct is owned and replaced as a whole.
    pub atomic: bool,
    /// Unknown fields are kept (`x-kubernetes-preserve-unknown-fields`).
    pub preserve_unknown: bool,
}

#[derive(Debug, Clone)]
pub struct Field {
    pub name: Box<str>,
    pub node: NodeId,
    pub required: bool,
    /// `patchStrategy` of strategic merge patch; independent of the list type of server-side apply.
    pub patch: PatchStrategy,
    /// What a missing field reads as when an associative list is matched by it (`protocol: TCP`).
    pub default: Option<Value>,
    /// Go writes the field even when it is empty (no `omitempty`, or a struct): e.g. `resources: {}` of a container.
    pub always_present: bool,
    /// Go holds a pointer, so that `false`, `0` and `""` differ from absence and are written. In a field that is
    /// neither a pointer nor always present such a zero is left out.
    pub pointer: bool,
}

/// `x-kubernetes-list-type`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListType {
    Atomic,
    Set,
    /// Field names that identify an item.
    Map(Vec<Box<str>>),
}

/// `x-kubernetes-patch-strategy` and `x-kubernetes-patch-merge-key`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PatchStrategy {
    pub merge: bool,
    pub replace: bool,
    pub retain_keys: bool,
    pub merge_key: Option<Box<str>>,
}

/// A node together with its arena: what algorithms walk.
#[derive(Clone, Copy, Debug)]
pub struct SchemaRef<'s> {
    pub schemas: &'s Schemas,
    pub id: NodeId,
}

impl Schemas {
    /// An arena whose nodes may refer to those of `base`, and which finds its definitions, too.
    pub fn extending(base: Arc<Schemas>) -> Self {
        Self { offset: base.len(), base: Some(base), ..Self::default() }
    }

    /// The number of nodes, those below included.
    fn len(&self) -> usize {
        self.offset + self.nodes.len()
    }

    fn node(&self, id: NodeId) -> &Node {
        match (&self.base, (id.0 as usize).checked_sub(self.offset)) {
            (Some(base), None) => base.node(id),
            (_, index) => &self.nodes[index.unwrap_or_default()],
        }
    }

    /// Gives back what was reserved while the nodes were pushed.
    pub fn shrink_to_fit(&mut self) {
        self.nodes.shrink_to_fit();
        self.definitions.shrink_to_fit();
    }

    pub fn push(&mut self, node: Node) -> NodeId {
        let id = NodeId(u32::try_from(self.len()).expect("fewer than 2^32 schema nodes"));
        self.nodes.push(node);
        id
    }

    /// Replaces a node of this arena made earlier, so that types may refer to each other before both are known.
    pub fn set(&mut self, id: NodeId, node: Node) {
        self.nodes[id.0 as usize - self.offset] = node;
    }

    pub fn define(&mut self, name: &str, id: NodeId) {
        self.definitions.insert(name.into(), id);
    }

    pub fn definition(&self, name: &str) -> Option<SchemaRef<'_>> {
        match self.definitions.get(name) {
            Some(&id) => Some(self.at(id)),
            None => self.base.as_ref()?.definition(name).map(|found| self.at(found.id)),
        }
    }

    /// The types defined here; those of an arena below are not among them.
    pub fn definitions(&self) -> impl Iterator<Item = (&str, SchemaRef<'_>)> {
        self.definitions.iter().map(|(name, &id)| (&**name, self.at(id)))
    }

    pub fn at(&self, id: NodeId) -> SchemaRef<'_> {
        SchemaRef { schemas: self, id }
    }
}

impl<'s> SchemaRef<'s> {
    pub fn node(self) -> &'s Node {
        self.schemas.node(self.id)
    }

    pub fn kind(self) -> &'s NodeKind {
        &self.node().kind
    }

    /// The named field of a struct, or the value type of a map.
    pub fn child(self, name: &str) -> Option<SchemaRef<'s>> {
        match self.kind() {
            NodeKind::Struct(object) => object.field(name).map(|field| self.schemas.at(field.node)),
            NodeKind::Map { values, .. } => Some(self.schemas.at(*values)),
            _ => None,
        }
    }

    pub fn field(self, name: &str) -> Option<&'s Field> {
        match self.kind() {
            NodeKind::Struct(object) => object.field(name),
            _ => None,
        }
    }

    /// What Go writes for this type when nothing was said: `null` for lists, maps and times, a structure with the
    /// fields that are always written, and zero for the rest.
    pub fn zero(self) -> Value {
        match self.kind() {
            NodeKind::Struct(object) => object
                .fields
                .iter()
                .filter(|field| field.always_present)
                .map(|field| (field.name.as_ref().into(), self.zero_field(field)))
                .collect(),
            NodeKind::Scalar(scalar) => scalar.zero(),
            NodeKind::Any | NodeKind::Holding(_) | NodeKind::Map { .. } | NodeKind::List { .. } => {
                Value::Null
            }
        }
    }

    /// What Go writes for an empty field of this structure.
    pub fn zero_field(self, field: &Field) -> Value {
        if field.pointer { Value::Null } else { self.schemas.at(field.node).zero() }
    }

    /// The item type of a list.
    pub fn items(self) -> Option<SchemaRef<'s>> {
        match self.kind() {
            NodeKind::List { items, .. } => Some(self.schemas.at(*items)),
            _ => None,
        }
    }
}

impl Field {
    /// An optional field that keeps what it is given, with no patch strategy and no default.
    pub fn new(name: &str, node: NodeId) -> Self {
        Self {
            name: name.into(),
            node,
            required: false,
            patch: PatchStrategy::default(),
            default: None,
            always_present: false,
            pointer: true,
        }
    }
}

impl Struct {
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.binary_search_by(|field| (*field.name).cmp(name)).ok().map(|at| &self.fields[at])
    }
}

#[cfg(test)]
pub(crate) mod fixture;
