//! The built-in kinds, made from generated tables: their schemas and their resources.
//!
//! Owns: turning rows of `data/` into [`Schemas`] and [`Resource`]s, and which fields of a kind can be selected.
//! Never touches: the rules of a kind ([`crate::kinds`]), its table columns ([`crate::columns`]).
//!
//! Start at [`resources`]. Facts come from [`tables`], whose files `cargo xtask codegen` writes from upstream's
//! published OpenAPI document; nothing is typed in by hand here except selectable fields.

mod enablement;
mod schema;
mod selectable;
pub mod tables;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use apimachinery::object::{FieldPaths, type_meta};
use apimachinery::schema::{NodeId, Schemas};
use apimachinery::{GroupVersion, GroupVersionKind, Str};

pub use enablement::{Error as RuntimeConfigError, RuntimeConfig};
pub use selectable::field_value;

use crate::resource::Schema;
use crate::{Features, Resource, Subresource, columns, kinds};

/// The types of all built-in kinds, served or not.
pub fn schemas() -> &'static Arc<Schemas> {
    &TYPES.schemas
}

/// The schema of a built-in kind, also of ones that are no resource (`Scale`, `Eviction`, `DeleteOptions`).
pub fn schema(gvk: &GroupVersionKind) -> Option<Schema> {
    let root = TYPES.kinds.get(gvk).copied()?;
    Some(Schema { schemas: TYPES.schemas.clone(), root })
}

/// The schema of the version in which a kind is stored, if that is a kind that upstream stores as protobuf.
pub fn stored_like_protobuf(resource: &Resource) -> Option<Schema> {
    /// Groups of servers inside upstream's that store JSON.
    const JSON_GROUPS: [&str; 2] = ["apiextensions.k8s.io", "apiregistration.k8s.io"];
    let is_json = resource.custom.is_some() || JSON_GROUPS.contains(&resource.group.as_str());
    if is_json { None } else { schema(&crate::conversion::storage_gvk(resource)) }
}

/// Every resource that upstream serves by default, in the order of its discovery documents.
pub fn resources() -> Vec<Arc<Resource>> {
    served(&RuntimeConfig::default(), &Features::default())
}

/// Every resource that upstream can serve, with the alpha and beta versions that are off by default.
pub fn all_resources() -> Vec<Arc<Resource>> {
    select(&Features::default(), |_| true)
}

/// The resources that a server with these settings has.
pub fn served(config: &RuntimeConfig, features: &Features) -> Vec<Arc<Resource>> {
    select(features, |row| config.serves(row, features))
}

fn select(features: &Features, is_served: impl Fn(&tables::Resource) -> bool) -> Vec<Arc<Resource>> {
    let rows: Vec<tables::Resource> = tables::resources().filter(is_served).collect();
    rows.iter().map(|row| Arc::new(resource(row, storage_version(row, &rows), features))).collect()
}

/// The `apiVersion` in which upstream stores a built-in kind; what discovery's `storageVersionHash` is made of.
/// Empty for kinds that are not stored or not built in.
pub fn upstream_storage_version(group: &str, kind: &str) -> &'static str {
    TYPES.stores.get(&(group, kind)).copied().unwrap_or_default()
}

struct Types {
    schemas: Arc<Schemas>,
    kinds: HashMap<GroupVersionKind, NodeId>,
    /// By group and kind: in which `apiVersion` upstream stores it.
    stores: HashMap<(&'static str, &'static str), &'static str>,
}

static TYPES: LazyLock<Types> = LazyLock::new(|| {
    let (schemas, kinds) = schema::build();
    let stores = tables::resources().map(|row| ((row.group, row.kind), row.store)).collect();
    Types { schemas: Arc::new(schemas), kinds, stores }
});

/// The version in which we store a kind: upstream's if we serve it, else (a beta that is off) the most preferred
/// one that we serve. Both kinds of event are stored as core/v1.
fn storage_version(row: &tables::Resource, served: &[tables::Resource]) -> &'static str {
    if row.key.is_empty() {
        return "";
    }
    let store = GroupVersion::parse(row.store).unwrap_or_default();
    let stored = |other: &&tables::Resource| {
        other.kind == row.kind && other.group == store.group && other.version == store.version
    };
    let same_kind = |other: &&tables::Resource| other.kind == row.kind && other.group == row.group;
    served
        .iter()
        .find(stored)
        .or_else(|| served.iter().find(same_kind))
        .map_or(row.version, |other| other.version)
}

fn resource(row: &tables::Resource, storage_version: &'static str, features: &Features) -> Resource {
    let gvk = GroupVersionKind::new(row.group, row.version, row.kind);
    let api_version = gvk.api_version();
    let schema = schema(&gvk).expect("every resource of the table has a type with its kind");
    Resource {
        group: Str::const_new(row.group),
        version: Str::const_new(row.version),
        kind: Str::const_new(row.kind),
        plural: Str::const_new(row.plural),
        singular: Str::const_new(row.singular),
        list_kind: Str::const_new(row.list_kind),
        short_names: names(row.short_names),
        categories: names(row.categories),
        namespaced: row.namespaced,
        verbs: names(row.verbs),
        subresources: row.subresources().map(subresource).collect(),
        storage_version: Str::const_new(storage_version),
        storage_prefix: Str::const_new(row.key),
        schema,
        selectable_fields: FieldPaths::Fixed(selectable::fields(row.group, row.kind, row.namespaced)),
        columns: columns::for_kind(row.group, row.kind),
        strategy: kinds::strategy(row.group, row.kind, features),
        deprecation: deprecation(row.group, row.plural).map(Str::const_new),
        custom: None,
        type_meta: type_meta(&api_version, row.kind),
        bare_list_items: true,
    }
}

/// What users of a deprecated API are told.
fn deprecation(group: &str, plural: &str) -> Option<&'static str> {
    match (group, plural) {
        ("", "endpoints") => {
            Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
        }
        ("", "componentstatuses") => Some("v1 ComponentStatus is deprecated in v1.19+"),
        _ => None,
    }
}

fn subresource(row: tables::Subresource) -> Subresource {
    Subresource {
        name: Str::const_new(row.name),
        kind: GroupVersionKind {
            group: Str::const_new(row.kind.group),
            version: Str::const_new(row.kind.version),
            kind: Str::const_new(row.kind.kind),
        },
        verbs: names(row.verbs),
    }
}

fn names(cell: &'static str) -> Vec<Str> {
    tables::items(cell).map(Str::const_new).collect()
}
