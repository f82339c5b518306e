//! Types of the documents: which are needed, and their schemas in the words of either OpenAPI version.

use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;
use std::sync::Arc;

use apimachinery::{GroupVersionKind, Str};
use serde_json::{Map, Value, json};
use structural_schema::openapi as custom;
pub(super) use structural_schema::openapi::Dialect;

use super::descriptions::Descriptions;
use super::parameters::Shared;
use super::paths::{Answer, Body, PathItem};
use crate::Resource;
use crate::builtin::tables::{self, DEFINITION_PREFIX, Definition, Form, Type, Union};

/// What documents are made from, unpacked and indexed: some megabytes, for as long as there are documents to make.
pub struct Tables {
    definitions: HashMap<&'static str, Definition>,
    kinds: HashMap<GroupVersionKind, &'static str>,
    descriptions: Descriptions,
    /// For fields of custom kinds.
    prose: custom::Prose,
    pub(super) shared: Shared,
}

/// The tables and the custom resources of some documents.
pub(super) struct Types<'t> {
    tables: &'t Tables,
    /// Custom kinds and their lists.
    custom: HashMap<GroupVersionKind, CustomType>,
}

impl Deref for Types<'_> {
    type Target = Tables;

    fn deref(&self) -> &Tables {
        self.tables
    }
}

/// The name of a type.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum TypeName {
    /// Without prefix.
    BuiltIn(&'static str),
    /// Of a custom kind or its list.
    Custom(GroupVersionKind),
}

/// Which group versions a document names of types that all of them have (`DeleteOptions`).
#[derive(Clone, Copy, Debug)]
pub(super) enum Kinds<'a> {
    All,
    /// This one and the core's.
    Of {
        group: &'a str,
        version: &'a str,
    },
    /// Those that upstream's clients know: documents of custom resources are made with their types.
    OfClients,
}

impl Kinds<'_> {
    fn includes(self, kind: tables::Kind) -> bool {
        let is_shared = matches!(kind.kind, "DeleteOptions" | "WatchEvent");
        match self {
            Self::Of { group, version } if is_shared => {
                kind.group.is_empty() || (kind.group, kind.version) == (group, version)
            }
            Self::OfClients if is_shared => !SERVER_GROUPS.contains(&kind.group),
            _ => true,
        }
    }
}

/// Groups that only servers know.
const SERVER_GROUPS: [&str; 4] =
    ["admission.k8s.io", "apiextensions.k8s.io", "apiregistration.k8s.io", "imagepolicy.k8s.io"];

/// The types that some paths need, directly or through others.
pub(super) struct Needed<'a, 't> {
    types: &'a Types<'t>,
    /// By their full names.
    found: BTreeMap<String, TypeName>,
}

impl Needed<'_, '_> {
    pub fn add_path(&mut self, path: &PathItem) {
        let mut open = self.types.named_by(path);
        while let Some(name) = open.pop() {
            let full = name.full();
            if !self.found.contains_key(&full) {
                open.extend(self.types.references(&name));
                self.found.insert(full, name);
            }
        }
    }

    /// By their full names.
    pub fn types(self) -> BTreeMap<String, TypeName> {
        self.found
    }
}

/// A type that comes from a definition.
struct CustomType {
    resource: Arc<Resource>,
    is_list: bool,
}

impl TypeName {
    /// As the document has it.
    pub fn full(&self) -> String {
        match self {
            Self::BuiltIn(name) => format!("{DEFINITION_PREFIX}{name}"),
            Self::Custom(gvk) => custom::type_name(&gvk.group, &gvk.version, &gvk.kind),
        }
    }

    pub fn reference(&self, dialect: Dialect) -> Value {
        match self {
            Self::BuiltIn(name) => reference(name, dialect),
            Self::Custom(_) => json!({ "$ref": format!("{}{}", place(dialect), self.full()) }),
        }
    }
}

impl Tables {
    pub fn unpack() -> Self {
        let definitions: HashMap<_, _> = tables::definitions().map(|own| (own.name, own)).collect();
        let mut kinds = HashMap::new();
        for definition in definitions.values() {
            for kind in definition.kinds() {
                let gvk = GroupVersionKind {
                    group: Str::const_new(kind.group),
                    version: Str::const_new(kind.version),
                    kind: Str::const_new(kind.kind),
                };
                kinds.insert(gvk, definition.name);
            }
        }
        let descriptions = Descriptions::unpack();
        let prose = prose(&descriptions);
        Self { definitions, kinds, descriptions, prose, shared: Shared::new() }
    }
}

impl<'t> Types<'t> {
    pub(super) fn of(tables: &'t Tables, resources: &[Arc<Resource>]) -> Self {
        let mut custom = HashMap::new();
        for resource in resources.iter().filter(|own| own.custom.is_some()) {
            let list = GroupVersionKind { kind: resource.list_kind.clone(), ..resource.gvk() };
            custom.insert(list, CustomType { resource: resource.clone(), is_list: true });
            custom.insert(resource.gvk(), CustomType { resource: resource.clone(), is_list: false });
        }
        Self { tables, custom }
    }

    /// The type of a kind.
    pub(super) fn of_kind(&self, gvk: &GroupVersionKind) -> Option<TypeName> {
        if self.custom.contains_key(gvk) {
            return Some(TypeName::Custom(gvk.clone()));
        }
        self.kinds.get(gvk).copied().map(TypeName::BuiltIn)
    }

    /// The static name of a type that every set of tables has.
    pub(super) fn known(&self, name: &str) -> &'static str {
        self.definitions.get(name).unwrap_or_else(|| panic!("schema.txt lacks {name}")).name
    }

    /// The types that paths need, of which none are known yet.
    pub(super) fn needed(&self) -> Needed<'_, 't> {
        Needed { types: self, found: BTreeMap::new() }
    }

    fn named_by(&self, path: &PathItem) -> Vec<TypeName> {
        let mut names = Vec::new();
        for operation in &path.operations {
            match &operation.body {
                Some(Body::Type(name)) => names.push(name.clone()),
                Some(Body::Shared(key)) => names.push(TypeName::BuiltIn(self.shared_body(key))),
                None => {}
            }
            if let Answer::Type(name) = &operation.answer {
                names.push(name.clone());
            }
        }
        names
    }

    /// The type of a shared body parameter.
    pub(super) fn shared_body(&self, key: &str) -> &'static str {
        let parameter = self.shared.all().iter().find(|own| own.key == key);
        parameter.unwrap_or_else(|| panic!("parameters.txt lacks {key}")).kind
    }

    fn references(&self, name: &TypeName) -> Vec<TypeName> {
        let definition = match name {
            TypeName::BuiltIn(name) => self.definitions[name],
            TypeName::Custom(gvk) => {
                let is_list = self.custom.get(gvk).is_some_and(|own| own.is_list);
                let meta = if is_list { "ListMeta" } else { "ObjectMeta" };
                let meta = self.known(&format!("apimachinery.pkg.apis.meta.v1.{meta}"));
                return vec![TypeName::BuiltIn(meta)];
            }
        };
        let reference = |field: tables::Field| {
            let mut kind = field.kind;
            while let Type::List(inner) | Type::Map(inner) = kind {
                kind = Type::parse(inner);
            }
            let Type::Reference(name) = kind else { return None };
            Some(TypeName::BuiltIn(self.known(&definition.resolve(name))))
        };
        definition.fields().filter_map(reference).collect()
    }

    /// The schema of a type.
    pub(super) fn schema(&self, name: &TypeName, dialect: Dialect, kinds: Kinds<'_>) -> Value {
        match name {
            TypeName::BuiltIn(name) => self.builtin_schema(self.definitions[name], dialect, kinds),
            TypeName::Custom(gvk) => {
                self.custom.get(gvk).map_or(Value::Null, |own| own.schema(dialect, &self.prose))
            }
        }
    }

    fn builtin_schema(&self, definition: Definition, dialect: Dialect, wanted: Kinds<'_>) -> Value {
        let mut schema = match (definition.form, dialect) {
            (Form::Struct, _) => self.structure(definition, dialect),
            (Form::Any, _) => Map::new(),
            (Form::Object, _) => object(json!({ "type": "object" })),
            (Form::Time | Form::MicroTime, _) => object(json!({ "type": "string", "format": "date-time" })),
            (Form::Quantity, Dialect::V2) => object(json!({ "type": "string" })),
            (Form::Quantity, Dialect::V3) => {
                object(json!({ "oneOf": [{ "type": "string" }, { "type": "number" }] }))
            }
            (Form::IntOrString, Dialect::V2) => {
                object(json!({ "type": "string", "format": "int-or-string" }))
            }
            (Form::IntOrString, Dialect::V3) => object(json!({
                "format": "int-or-string", "oneOf": [{ "type": "integer" }, { "type": "string" }] })),
        };
        if let Some(description) = self.descriptions.of(definition.name) {
            schema.insert("description".into(), description.into());
        }
        let kinds: Vec<Value> = definition
            .kinds()
            .filter(|kind| wanted.includes(*kind))
            .map(|kind| json!({ "group": kind.group, "kind": kind.kind, "version": kind.version }))
            .collect();
        if !kinds.is_empty() {
            schema.insert("x-kubernetes-group-version-kind".into(), kinds.into());
        }
        if definition.atomic {
            schema.insert("x-kubernetes-map-type".into(), "atomic".into());
        }
        let unions: Vec<Value> = definition.unions().map(union).collect();
        if !unions.is_empty() {
            schema.insert("x-kubernetes-unions".into(), unions.into());
        }
        schema.into()
    }

    fn structure(&self, definition: Definition, dialect: Dialect) -> Map<String, Value> {
        let mut schema = object(json!({ "type": "object" }));
        let properties: Map<String, Value> = definition
            .fields()
            .map(|field| (field.name.to_owned(), self.field(definition, &field, dialect)))
            .collect();
        if !properties.is_empty() {
            schema.insert("properties".into(), properties.into());
        }
        let required: Vec<&str> =
            definition.fields().filter(|own| own.required).map(|own| own.name).collect();
        if !required.is_empty() {
            schema.insert("required".into(), required.into());
        }
        schema
    }

    fn field(&self, definition: Definition, field: &tables::Field, dialect: Dialect) -> Value {
        let mut schema = self.typed(definition, field.kind, dialect);
        if dialect == Dialect::V3
            && let Some(default) = self.field_default(definition, field)
        {
            schema.insert("default".into(), default);
        }
        insert_markers(&mut schema, field);
        if let Some(description) = self.descriptions.field(definition.name, field.name) {
            schema.insert("description".into(), description.into());
        }
        if dialect == Dialect::V3 {
            wrap_reference(&mut schema);
        }
        schema.into()
    }

    /// What Go's zero value of a field is, unless it is left out when zero; or what the type declares.
    fn field_default(&self, definition: Definition, field: &tables::Field) -> Option<Value> {
        if let Some(default) = field.default {
            return serde_json::from_str(default).ok();
        }
        if field.pointer || (!field.always_present && !matches!(field.kind, Type::Reference(_))) {
            return None;
        }
        self.zero(definition, field.kind)
    }

    /// Go's zero value of a type, where it is not null.
    fn zero(&self, definition: Definition, kind: Type) -> Option<Value> {
        match kind {
            Type::Boolean => Some(false.into()),
            Type::Int32 | Type::Int64 => Some(0.into()),
            Type::Double => Some(json!(0)),
            Type::String => Some("".into()),
            Type::Reference(name) => {
                let target = self.definitions.get(definition.resolve(name).as_str())?;
                (target.form == Form::Struct).then(|| json!({}))
            }
            Type::Bytes | Type::List(_) | Type::Map(_) => None,
        }
    }

    fn typed(&self, within: Definition, kind: Type, dialect: Dialect) -> Map<String, Value> {
        let inner = |text| Value::from(self.typed(within, Type::parse(text), dialect));
        object(match kind {
            Type::Boolean => json!({ "type": "boolean" }),
            Type::Int32 => json!({ "type": "integer", "format": "int32" }),
            Type::Int64 => json!({ "type": "integer", "format": "int64" }),
            Type::Double => json!({ "type": "number", "format": "double" }),
            Type::String => json!({ "type": "string" }),
            Type::Bytes => json!({ "type": "string", "format": "byte" }),
            Type::List(items) => json!({ "type": "array", "items": inner(items) }),
            Type::Map(values) => json!({ "type": "object", "additionalProperties": inner(values) }),
            Type::Reference(name) => reference(&within.resolve(name), dialect),
        })
    }
}

impl CustomType {
    fn schema(&self, dialect: Dialect, prose: &custom::Prose) -> Value {
        let resource = &self.resource;
        let schema = resource.strategy.published_schema().unwrap_or_default();
        let fields: Vec<&str> = resource
            .selectable_fields
            .iter()
            .map(AsRef::as_ref)
            .filter(|field: &&str| !field.starts_with("metadata."))
            .collect();
        let publication = custom::Publication {
            group: &resource.group,
            version: &resource.version,
            kind: &resource.kind,
            list_kind: &resource.list_kind,
            plural: &resource.plural,
            schema: &schema,
            selectable_fields: &fields,
            prose,
        };
        let published = if self.is_list { publication.list(dialect) } else { publication.object(dialect) };
        Value::from(&published)
    }
}

/// What built-in kinds say of the fields that every kind has.
fn prose(descriptions: &Descriptions) -> custom::Prose {
    let field = |kind: &str, name: &str| descriptions.field(kind, name).unwrap_or_default();
    custom::Prose {
        api_version: field("api.core.v1.ConfigMap", "apiVersion"),
        kind: field("api.core.v1.ConfigMap", "kind"),
        metadata: field("api.core.v1.ConfigMap", "metadata"),
        list_metadata: field("apimachinery.pkg.apis.meta.v1.Status", "metadata"),
    }
}

fn place(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::V2 => "#/definitions/",
        Dialect::V3 => "#/components/schemas/",
    }
}

/// A reference to a built-in type named without prefix.
pub(super) fn reference(name: &str, dialect: Dialect) -> Value {
    json!({ "$ref": format!("{}{DEFINITION_PREFIX}{name}", place(dialect)) })
}

/// Version 3 does not let anything stand beside a reference.
fn wrap_reference(schema: &mut Map<String, Value>) {
    if schema.len() > 1
        && let Some(target) = schema.remove("$ref")
    {
        schema.insert("allOf".into(), json!([{ "$ref": target }]));
    }
}

fn insert_markers(schema: &mut Map<String, Value>, field: &tables::Field) {
    let mut insert = |key: &str, value: Value| {
        schema.insert(format!("x-kubernetes-{key}"), value);
    };
    match field.list.map(|list| (list, list.strip_prefix("map:"))) {
        Some((_, Some(keys))) => {
            insert("list-type", "map".into());
            insert("list-map-keys", keys.split(',').collect::<Vec<_>>().into());
        }
        Some((list, None)) => insert("list-type", list.into()),
        None => {}
    }
    for (key, value) in
        [("map-type", field.map), ("patch-strategy", field.patch), ("patch-merge-key", field.merge_key)]
    {
        if let Some(value) = value {
            insert(key, value.into());
        }
    }
}

fn union(union: Union) -> Value {
    let fields: Map<String, Value> =
        union.fields().map(|(field, name)| (field.to_owned(), name.into())).collect();
    let mut schema = object(json!({ "fields-to-discriminateBy": fields }));
    if let Some(discriminator) = union.discriminator() {
        schema.insert("discriminator".into(), discriminator.into());
    }
    schema.into()
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
