//! From a CustomResourceDefinition to the descriptors of the versions it serves.

use std::cmp::Reverse;
use std::sync::Arc;

use api::conversion::Converter;
use api::discovery::version::rank;
use api::kinds::apiextensions::embedded_meta;
use api::resource::{Custom, ScalePaths, Schema};
use api::strategy::Columns;
use api::{Resource, Subresource};
use apimachinery::object::{FieldPaths, type_meta};
use apimachinery::{GroupVersion, GroupVersionKind, Str, Value};
use structural_schema::CustomSchema;

use crate::columns::PrinterColumns;
use crate::conversion::{Stale, Strategy, VersionConverter};
use crate::status;
use crate::strategy::CustomResourceStrategy;

/// In the order in which upstream lists them.
const VERBS: [&str; 8] = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
const SUBRESOURCE_VERBS: [&str; 3] = ["get", "patch", "update"];

/// What a definition makes servable.
#[derive(Clone)]
pub struct Described {
    /// The served versions, the preferred one first.
    pub served: Vec<Arc<Resource>>,
    /// The version in which objects are stored, served or not.
    pub stored: Arc<Resource>,
    /// The selectable fields of all versions: what objects are indexed by.
    pub fields: FieldPaths,
    /// The schemas, by version.
    pub schemas: Vec<(Str, Arc<CustomSchema>)>,
}

/// Makes the descriptors of a definition whose names were accepted. `None` for one that cannot be served: it has no
/// accepted names or no version to store in.
///
/// Objects that are `stale` may not be in the form that the schema asks for.
pub fn describe(
    definition: &Value,
    schemas: Vec<(Str, Arc<CustomSchema>)>,
    conversion: &Strategy,
    stale: &Arc<Stale>,
) -> Option<Described> {
    let names = definition.at(&["status", "acceptedNames"])?;
    if ["plural", "singular", "kind", "listKind"].iter().any(|key| names.str_at(&[key]).is_empty()) {
        return None;
    }
    let versions = definition.array_at(&["spec", "versions"]);
    let storage = versions.iter().find(|version| is(version, "storage"))?;
    let describing = Describing {
        definition,
        names,
        group: definition.str_at(&["spec", "group"]),
        storage_version: storage.str_at(&["name"]),
        conversion,
        stale,
        schemas: &schemas,
    };
    let stored = Arc::new(describing.resource(storage));
    let mut served: Vec<Arc<Resource>> = versions
        .iter()
        .filter(|version| is(version, "served"))
        .map(|version| match is(version, "storage") {
            true => stored.clone(),
            false => Arc::new(describing.resource(version)),
        })
        .collect();
    served.sort_by_cached_key(|resource| Reverse(rank(&resource.version)));
    let mut fields: Vec<Str> = Vec::new();
    for resource in served.iter().chain([&stored]) {
        let new: Vec<Str> = resource
            .selectable_fields
            .iter()
            .filter(|path| !fields.iter().any(|own| own == path))
            .map(Into::into)
            .collect();
        fields.extend(new);
    }
    Some(Described { served, stored, fields: FieldPaths::Own(fields.into()), schemas })
}

impl Described {
    /// The schema of the version in which objects are stored.
    pub fn stored_schema(&self) -> Option<&Arc<CustomSchema>> {
        self.schemas.iter().find(|(name, _)| *name == self.stored.version).map(|(_, schema)| schema)
    }
}

struct Describing<'d> {
    definition: &'d Value,
    names: &'d Value,
    group: &'d str,
    storage_version: &'d str,
    conversion: &'d Strategy,
    stale: &'d Arc<Stale>,
    schemas: &'d [(Str, Arc<CustomSchema>)],
}

/// The compiled schemas of a definition by version; the same one for versions that say the same.
pub fn schemas(definition: &Value) -> Vec<(Str, Arc<CustomSchema>)> {
    let versions = definition.array_at(&["spec", "versions"]);
    let mut schemas: Vec<(Str, Arc<CustomSchema>)> = Vec::new();
    for version in versions {
        let declared = open_api_schema(version);
        let same = versions.iter().zip(&schemas).find(|(other, _)| open_api_schema(other) == declared);
        let schema = match same {
            Some((_, (_, schema))) => schema.clone(),
            None => Arc::new(CustomSchema::new(declared, api::builtin::schemas(), embedded_meta)),
        };
        schemas.push((version.str_at(&["name"]).into(), schema));
    }
    schemas
}

impl Describing<'_> {
    fn schema_of(&self, version: &str) -> Arc<CustomSchema> {
        let found = self.schemas.iter().find(|(name, _)| *name == version);
        found.map(|(_, schema)| schema.clone()).expect("there is a schema for each version")
    }

    fn resource(&self, version: &Value) -> Resource {
        let text = |key: &str| Str::from(self.names.str_at(&[key]));
        let list = |key: &str| -> Vec<Str> {
            self.names.array_at(&[key]).iter().filter_map(Value::as_str).map(Into::into).collect()
        };
        let name = version.str_at(&["name"]);
        let gvk = GroupVersionKind::new(self.group, name, self.names.str_at(&["kind"]));
        let schema = self.schema_of(name);
        let (schemas, root) = schema.nodes();
        let subresources = version.at(&["subresources"]);
        let has_status = subresources.is_some_and(|own| own.get("status").is_some_and(Value::is_object));
        let scale =
            subresources.and_then(|own| own.get("scale")).filter(|own| own.is_object()).map(scale_paths);
        let namespaced = self.definition.str_at(&["spec", "scope"]) == "Namespaced";
        let plural = text("plural");
        Resource {
            group: self.group.into(),
            version: name.into(),
            kind: text("kind"),
            singular: text("singular"),
            list_kind: text("listKind"),
            short_names: list("shortNames"),
            categories: list("categories"),
            namespaced,
            verbs: VERBS.map(Str::const_new).to_vec(),
            subresources: self.subresources(&gvk, has_status, scale.is_some()),
            storage_version: self.storage_version.into(),
            storage_prefix: storage_prefix(self.group, &plural),
            schema: Schema { schemas: schemas.clone(), root },
            selectable_fields: selectable_fields(version, namespaced),
            columns: Columns::Own(Arc::new(PrinterColumns::new(version))),
            deprecation: deprecation(self.definition, version),
            custom: Some(Custom {
                terminating: status::is_terminating(self.definition),
                scale: scale.clone(),
                converter: self.converter(name, &schema),
            }),
            type_meta: type_meta(&gvk.api_version(), &gvk.kind),
            strategy: Arc::new(CustomResourceStrategy { schema, has_status, scale }),
            bare_list_items: false,
            plural,
        }
    }

    fn subresources(&self, gvk: &GroupVersionKind, has_status: bool, has_scale: bool) -> Vec<Subresource> {
        let subresource = |name, kind| Subresource {
            name: Str::const_new(name),
            kind,
            verbs: SUBRESOURCE_VERBS.map(Str::const_new).to_vec(),
        };
        let status = has_status.then(|| subresource("status", gvk.clone()));
        let scale =
            has_scale.then(|| subresource("scale", GroupVersionKind::new("autoscaling", "v1", "Scale")));
        status.into_iter().chain(scale).collect()
    }

    /// `None` when nothing that is stored needs more than another name.
    fn converter(&self, version: &str, schema: &Arc<CustomSchema>) -> Option<Arc<dyn Converter>> {
        let api_version = |name: &str| Str::from(GroupVersion::new(self.group, name).to_string());
        let is_alike = |name: &str, other: &Arc<CustomSchema>| match self.conversion {
            Strategy::None => Arc::ptr_eq(schema, other),
            Strategy::Webhook { .. } => name == version,
        };
        let (alike, others): (Vec<_>, Vec<_>) =
            self.schemas.iter().partition(|(name, other)| is_alike(name, other));
        if others.is_empty() && self.stale.is_nothing() {
            return None;
        }
        Some(Arc::new(VersionConverter {
            strategy: self.conversion.clone(),
            served: api_version(version),
            stored: api_version(self.storage_version),
            schema: schema.clone(),
            stored_schema: self.schema_of(self.storage_version),
            stale: self.stale.clone(),
            alike: alike.into_iter().map(|(name, _)| api_version(name)).collect(),
        }))
    }
}

/// Where objects of a custom resource are stored.
pub fn storage_prefix(group: &str, plural: &str) -> Str {
    format!("/registry/{group}/{plural}/").into()
}

fn is(version: &Value, key: &str) -> bool {
    version.get(key).and_then(Value::as_bool).unwrap_or_default()
}

fn open_api_schema(version: &Value) -> &Value {
    &version["schema"]["openAPIV3Schema"]
}

fn scale_paths(declared: &Value) -> ScalePaths {
    ScalePaths {
        spec_replicas: declared.str_at(&["specReplicasPath"]).into(),
        status_replicas: declared.str_at(&["statusReplicasPath"]).into(),
        label_selector: declared.str_at(&["labelSelectorPath"]).into(),
    }
}

fn selectable_fields(version: &Value, namespaced: bool) -> FieldPaths {
    let metadata = if namespaced { &["metadata.name", "metadata.namespace"][..] } else { &["metadata.name"] };
    let own = version.array_at(&["selectableFields"]).iter().map(|field| field.str_at(&["jsonPath"]));
    let own = own.map(|path| path.strip_prefix('.').unwrap_or(path));
    FieldPaths::Own(metadata.iter().copied().chain(own).map(Into::into).collect())
}

/// What users of a deprecated version are told: the author's words, or which newer version to use.
fn deprecation(definition: &Value, version: &Value) -> Option<Str> {
    if !is(version, "deprecated") {
        return None;
    }
    if let Some(warning) = version.get("deprecationWarning").and_then(Value::as_str) {
        return Some(warning.into());
    }
    let (group, kind) =
        (definition.str_at(&["spec", "group"]), definition.str_at(&["spec", "names", "kind"]));
    let name = version.str_at(&["name"]);
    let newer = definition
        .array_at(&["spec", "versions"])
        .iter()
        .filter(|other| is(other, "served") && !is(other, "deprecated"))
        .map(|other| other.str_at(&["name"]))
        .filter(|other| rank(other) > rank(name))
        .max_by_key(|other| rank(other));
    let mut text = format!("{group}/{name} {kind} is deprecated");
    if let Some(newer) = newer {
        text.push_str(&format!("; use {group}/{newer} {kind}"));
    }
    Some(text.into())
}

#[cfg(test)]
mod tests {
    use apimachinery::{Object, json};

    use super::*;

    fn definition(versions: Value) -> Value {
        let names =
            json!({"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"});
        let mut definition = json!({"spec": {"group": "example.com", "scope": "Namespaced"}, "status": {}});
        definition.set_at(&["spec", "names"], names.clone());
        definition.set_at(&["status", "acceptedNames"], names);
        definition.set_at(&["spec", "versions"], versions);
        definition
    }

    fn version(name: &str, storage: bool, schema: Value) -> Value {
        let mut version = json!({"name": name, "served": true, "storage": storage});
        version.set_at(&["schema", "openAPIV3Schema"], schema);
        version
    }

    #[test]
    fn versions_are_served_by_preference_and_stored_in_one() {
        let schema = json!({"type": "object"});
        let versions = json!([]);
        let mut definition = definition(versions);
        let versions = ["v1alpha1", "v1", "v2beta1", "v1beta1"];
        let versions = versions.map(|name| version(name, name == "v1beta1", schema.clone())).to_vec();
        definition.set_at(&["spec", "versions"], Value::Array(versions));
        let described =
            describe(&definition, schemas(&definition), &Strategy::None, &Arc::new(Stale::nothing()))
                .unwrap();
        let names: Vec<&str> = described.served.iter().map(|own| own.version.as_str()).collect();
        assert_eq!(names, ["v1", "v2beta1", "v1beta1", "v1alpha1"]);
        assert_eq!(described.stored.version, "v1beta1");
        assert_eq!(described.stored.storage_prefix, "/registry/example.com/widgets/");
        // Same schemas: a name is all that has to change.
        assert!(described.served.iter().all(|own| own.custom.as_ref().unwrap().converter.is_none()));
    }

    #[test]
    fn versions_that_differ_are_converted_and_stale_objects_are_read_anew() {
        let plain = json!({"type": "object"});
        let other = json!({"type": "object", "properties": {"a": {"type": "string"}}});
        let mut definition = definition(json!([]));
        let versions = vec![version("v1", true, plain.clone()), version("v2", false, other)];
        definition.set_at(&["spec", "versions"], Value::Array(versions));
        let described =
            describe(&definition, schemas(&definition), &Strategy::None, &Arc::new(Stale::nothing()))
                .unwrap();
        assert!(described.served.iter().all(|own| own.custom.as_ref().unwrap().converter.is_some()));
        definition.set_at(&["spec", "versions"], Value::Array(vec![version("v1", true, plain)]));
        let converter = |stale: &Arc<Stale>| {
            let described = describe(&definition, schemas(&definition), &Strategy::None, stale).unwrap();
            described.stored.custom.as_ref().unwrap().converter.clone()
        };
        assert!(converter(&Arc::new(Stale::nothing())).is_none());
        let stale = Arc::new(Stale::everything());
        let converter = converter(&stale).unwrap();
        let object = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}});
        let needed = |revision| converter.is_needed(&Object::from_value(&object, revision, &[]).unwrap());
        assert!(needed(8));
        stale.settle(8);
        assert_eq!((needed(7), needed(8)), (true, false));
    }

    #[test]
    fn users_of_a_deprecated_version_are_told_the_newest_one() {
        let deprecated = |name: &str, more: Value| {
            let mut version = version(name, false, json!({"type": "object"}));
            version.set_at(&["deprecated"], true);
            if !more.is_null() {
                version.set_at(&["deprecationWarning"], more);
            }
            version
        };
        let mut definition = definition(json!([]));
        let versions = vec![
            deprecated("v1alpha1", Value::Null),
            deprecated("v1beta1", json!("mind the gap")),
            version("v1beta2", true, json!({"type": "object"})),
            version("v1", false, json!({"type": "object"})),
            deprecated("v2", Value::Null),
        ];
        definition.set_at(&["spec", "versions"], Value::Array(versions));
        let described =
            describe(&definition, schemas(&definition), &Strategy::None, &Arc::new(Stale::nothing()))
                .unwrap();
        let texts: Vec<(&str, &str)> = described
            .served
            .iter()
            .map(|own| (own.version.as_str(), own.deprecation.as_deref().unwrap_or_default()))
            .collect();
        assert_eq!(
            texts,
            [
                ("v2", "example.com/v2 Widget is deprecated"),
                ("v1", ""),
                ("v1beta2", ""),
                ("v1beta1", "mind the gap"),
                ("v1alpha1", "example.com/v1alpha1 Widget is deprecated; use example.com/v1 Widget"),
            ]
        );
    }
}
