//! From a [`Structural`] to the nodes of [`apimachinery::schema`], on which merging and server-side apply work.
//!
//! Nothing in these nodes judges a value: for custom resources a wrong type is a validation error and not one of
//! decoding, so [`crate::CustomSchema::decode`] and not `apimachinery::decode` reads them.

use std::collections::HashMap;
use std::sync::Arc;

use apimachinery::schema::{self, Field, Node, NodeId, NodeKind, Scalar, Schemas, Struct};

use crate::Structural;
use crate::metadata::is_meta;
use crate::structural::{Additional, Kind, ListType};

/// Adds the nodes of an object's schema and returns the root; `metadata` is the node of `ObjectMeta`.
pub fn object(schemas: &mut Schemas, schema: &Structural, metadata: NodeId) -> NodeId {
    let mut bridge = Bridge { schemas, metadata, scalars: HashMap::new(), done: HashMap::new() };
    bridge.structure(schema, true)
}

struct Bridge<'s> {
    schemas: &'s mut Schemas,
    metadata: NodeId,
    scalars: HashMap<u8, NodeId>,
    /// Nodes that several places share, by address.
    done: HashMap<*const Structural, NodeId>,
}

impl Bridge<'_> {
    fn node(&mut self, schema: &Arc<Structural>) -> NodeId {
        let address = Arc::as_ptr(schema);
        if let Some(id) = self.done.get(&address) {
            return *id;
        }
        let id = self.make(schema);
        self.done.insert(address, id);
        id
    }

    fn make(&mut self, schema: &Structural) -> NodeId {
        if schema.int_or_string {
            return self.scalar(Scalar::IntOrString);
        }
        match schema.kind {
            None => self.push(NodeKind::Any),
            Some(Kind::String) => self.scalar(Scalar::String),
            Some(Kind::Integer) => self.scalar(Scalar::Int64),
            Some(Kind::Number) => self.scalar(Scalar::Double),
            Some(Kind::Boolean) => self.scalar(Scalar::Boolean),
            Some(Kind::Array) => self.list(schema),
            Some(Kind::Object) => self.structure(schema, schema.embedded),
        }
    }

    fn list(&mut self, schema: &Structural) -> NodeId {
        let items = match &schema.items {
            Some(items) => self.node(items),
            None => self.push(NodeKind::Any),
        };
        let merge = match &schema.list_type {
            ListType::Atomic => schema::ListType::Atomic,
            ListType::Set => schema::ListType::Set,
            ListType::Map(keys) => {
                schema::ListType::Map(keys.iter().map(|key| key.as_str().into()).collect())
            }
        };
        self.push(NodeKind::List { items, merge })
    }

    /// `is_object` for a whole object, which has type and metadata whether the schema says so or not.
    fn structure(&mut self, schema: &Structural, is_object: bool) -> NodeId {
        let atomic = schema.atomic_map;
        match &schema.additional {
            Additional::Schema(values) if !is_object => {
                let values = self.node(values);
                return self.push(NodeKind::Map { values, atomic });
            }
            Additional::Any if !is_object => {
                let values = self.push(NodeKind::Any);
                return self.push(NodeKind::Map { values, atomic });
            }
            Additional::None
                if schema.properties.is_empty() && schema.preserve_unknown && !is_object && !atomic =>
            {
                return self.push(NodeKind::Any);
            }
            _ => {}
        }
        let mut fields: Vec<Field> = schema
            .properties
            .iter()
            .filter(|(name, _)| !is_object || !is_meta(name))
            .map(|(name, property)| self.field(schema, name, property))
            .collect();
        if is_object {
            let string = self.scalar(Scalar::String);
            fields.push(Field::new("apiVersion", string));
            fields.push(Field::new("kind", string));
            fields.push(Field::new("metadata", self.metadata));
            fields.sort_by(|a, b| a.name.cmp(&b.name));
        }
        let preserve_unknown = schema.preserve_unknown;
        self.push(NodeKind::Struct(Struct { fields, atomic, preserve_unknown }))
    }

    fn field(&mut self, schema: &Structural, name: &str, property: &Arc<Structural>) -> Field {
        let validation = schema.validation.as_deref();
        Field {
            required: validation.is_some_and(|own| own.required.iter().any(|required| required == name)),
            // Only read for the keys of a map list, which are scalars.
            default: property
                .default
                .as_deref()
                .filter(|value| !value.is_object() && value.as_array().is_none())
                .cloned(),
            ..Field::new(name, self.node(property))
        }
    }

    fn scalar(&mut self, scalar: Scalar) -> NodeId {
        if let Some(id) = self.scalars.get(&(scalar as u8)) {
            return *id;
        }
        let id = self.push(NodeKind::Scalar(scalar));
        self.scalars.insert(scalar as u8, id);
        id
    }

    fn push(&mut self, kind: NodeKind) -> NodeId {
        self.schemas.push(Node { kind, definition: None })
    }
}
