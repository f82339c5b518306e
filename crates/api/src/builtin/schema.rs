//! From the rows of `schema.txt` to the arena of [`Schemas`].

use std::collections::HashMap;

use apimachinery::schema::{Field, ListType, Node, NodeId, NodeKind, PatchStrategy, Scalar, Schemas, Struct};
use apimachinery::{GroupVersionKind, Str, Value};

use super::tables::{self, Definition, Form, Type};

const JSON_SCHEMA_PROPS: &str = "apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
/// Types that are a schema or something simpler.
const HOLDS_SCHEMAS: [&str; 3] =
    ["JSONSchemaPropsOrArray", "JSONSchemaPropsOrBool", "JSONSchemaPropsOrStringArray"];

/// The arena of all types, and the node of each kind.
pub(super) fn build() -> (Schemas, HashMap<GroupVersionKind, NodeId>) {
    let mut builder = Builder::new();
    // Types refer to each other, so all have a place before any is filled.
    for definition in tables::definitions() {
        builder.declare(definition);
    }
    for definition in tables::definitions() {
        builder.fill(definition);
    }
    builder.finish()
}

struct Builder {
    schemas: Schemas,
    /// By name without prefix.
    places: HashMap<&'static str, NodeId>,
    scalars: Vec<(Scalar, NodeId)>,
    kinds: HashMap<GroupVersionKind, NodeId>,
    /// Fields that treat a struct type as atomic or granular against the type's own marker: where the field's own
    /// copy of the node goes, of which type, and how.
    overrides: Vec<(NodeId, NodeId, bool)>,
}

impl Builder {
    fn new() -> Self {
        Self {
            schemas: Schemas::default(),
            places: HashMap::new(),
            scalars: Vec::new(),
            kinds: HashMap::new(),
            overrides: Vec::new(),
        }
    }

    fn declare(&mut self, definition: Definition) {
        let id = self.schemas.push(Node { kind: NodeKind::Any, definition: None });
        self.places.insert(definition.name, id);
        self.schemas.define(&full_name(definition.name), id);
        for kind in definition.kinds() {
            let gvk = GroupVersionKind {
                group: Str::const_new(kind.group),
                version: Str::const_new(kind.version),
                kind: Str::const_new(kind.kind),
            };
            self.kinds.insert(gvk, id);
        }
    }

    fn fill(&mut self, definition: Definition) {
        let kind = match definition.form {
            Form::Struct => NodeKind::Struct(self.structure(definition)),
            Form::Any if HOLDS_SCHEMAS.iter().any(|suffix| definition.name.ends_with(suffix)) => {
                NodeKind::Holding(self.places[JSON_SCHEMA_PROPS])
            }
            Form::Any | Form::Object => NodeKind::Any,
            Form::Time => NodeKind::Scalar(Scalar::Time),
            Form::MicroTime => NodeKind::Scalar(Scalar::MicroTime),
            Form::IntOrString => NodeKind::Scalar(Scalar::IntOrString),
            Form::Quantity => NodeKind::Scalar(Scalar::Quantity),
        };
        let node = Node { kind, definition: Some(full_name(definition.name).into()) };
        self.schemas.set(self.places[definition.name], node);
    }

    fn finish(mut self) -> (Schemas, HashMap<GroupVersionKind, NodeId>) {
        for (place, of, atomic) in std::mem::take(&mut self.overrides) {
            let mut node = self.schemas.at(of).node().clone();
            if let NodeKind::Struct(object) = &mut node.kind {
                object.atomic = atomic;
            }
            self.schemas.set(place, node);
        }
        (self.schemas, self.kinds)
    }

    fn structure(&mut self, definition: Definition) -> Struct {
        let mut fields: Vec<Field> = definition.fields().map(|row| self.field(definition, row)).collect();
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        Struct { fields, atomic: definition.atomic, preserve_unknown: false }
    }

    fn field(&mut self, definition: Definition, row: tables::Field) -> Field {
        Field {
            name: row.name.into(),
            node: self.typed(definition, row.kind, row.list, row.map),
            required: row.required,
            patch: patch_strategy(&row),
            default: row
                .default
                .map(|json| Value::parse(json.as_bytes()).expect("schema.txt holds JSON defaults")),
            always_present: row.always_present,
            pointer: row.pointer,
        }
    }

    /// The node of a type, with the list and map markers of the field that has it.
    fn typed(&mut self, within: Definition, kind: Type, list: Option<&str>, map: Option<&str>) -> NodeId {
        let node = match kind {
            Type::Boolean => return self.scalar(Scalar::Boolean),
            Type::Int32 => return self.scalar(Scalar::Int32),
            Type::Int64 => return self.scalar(Scalar::Int64),
            Type::Double => return self.scalar(Scalar::Double),
            Type::String => return self.scalar(Scalar::String),
            Type::Bytes => return self.scalar(Scalar::Bytes),
            Type::Reference(name) => return self.reference(&within.resolve(name), map),
            Type::List(items) => {
                let items = self.typed(within, Type::parse(items), None, None);
                NodeKind::List { items, merge: list_type(list) }
            }
            Type::Map(values) => {
                let values = self.typed(within, Type::parse(values), None, None);
                NodeKind::Map { values, atomic: map == Some("atomic") }
            }
        };
        self.schemas.push(Node { kind: node, definition: None })
    }

    fn reference(&mut self, name: &str, map: Option<&str>) -> NodeId {
        let id =
            *self.places.get(name).unwrap_or_else(|| panic!("schema.txt refers to {name}, which it lacks"));
        let Some(marker) = map else { return id };
        let own = self.schemas.push(Node { kind: NodeKind::Any, definition: None });
        self.overrides.push((own, id, marker == "atomic"));
        own
    }

    fn scalar(&mut self, scalar: Scalar) -> NodeId {
        if let Some((_, id)) = self.scalars.iter().find(|(own, _)| *own == scalar) {
            return *id;
        }
        let id = self.schemas.push(Node { kind: NodeKind::Scalar(scalar), definition: None });
        self.scalars.push((scalar, id));
        id
    }
}

fn full_name(short: &str) -> String {
    format!("{}{short}", tables::DEFINITION_PREFIX)
}

fn list_type(marker: Option<&str>) -> ListType {
    match marker {
        Some("set") => ListType::Set,
        Some(marker) => match marker.strip_prefix("map:") {
            Some(keys) => ListType::Map(keys.split(',').map(Into::into).collect()),
            None => ListType::Atomic,
        },
        None => ListType::Atomic,
    }
}

fn patch_strategy(row: &tables::Field) -> PatchStrategy {
    let has = |strategy| row.patch.is_some_and(|all| all.split(',').any(|own| own == strategy));
    PatchStrategy {
        merge: has("merge"),
        replace: has("replace"),
        retain_keys: has("retainKeys"),
        merge_key: row.merge_key.map(Into::into),
    }
}
