//! Which OpenAPI documents a catalog has.
//!
//! Those of version 3 are made by group: a definition that comes or goes leaves those of all other groups as they are.
//! Version 2 is one document about everything, made anew after a change when somebody asks for it.

use std::cell::LazyCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use api::Resource;
use api::openapi::{self, Tables};
use apimachinery::Str;

use super::document::Document;
use super::{BuiltIn, Catalog, CustomGroup};

const JSON: &str = "application/json";
/// Upstream does not say what its index is, and Go takes it for text.
const INDEX: &str = "text/plain; charset=utf-8";

/// Documents by their keys in the index.
pub type ByKey = BTreeMap<String, Document>;

impl Catalog {
    pub fn openapi_v2(&self) -> Document {
        self.document("openapi v2", || Document::written(JSON, |out| openapi::v2_json(&self.all(), out)))
    }

    pub fn openapi_v2_protobuf(&self) -> Document {
        self.document("openapi v2 protobuf", || {
            Document::new(openapi::V2_PROTOBUF, &openapi::v2_protobuf(&self.all()))
        })
    }

    pub fn openapi_v3_index(&self) -> Document {
        self.document("openapi v3", || {
            let tables = LazyCell::new(Tables::unpack);
            let mut hashes: BTreeMap<&str, &str> = BTreeMap::new();
            hashes.extend(hashes_of(self.built_in.openapi(|| &tables)));
            for (name, group) in &self.custom {
                hashes.extend(hashes_of(group.openapi(&self.built_in, name, || &tables)));
            }
            Document::new(INDEX, &openapi::v3_index(hashes))
        })
    }

    /// The document with this key in the index.
    pub fn openapi_v3(&self, key: &str) -> Option<Document> {
        let tables = LazyCell::new(Tables::unpack);
        let group = key.strip_prefix("apis/").and_then(|rest| rest.split('/').next()).unwrap_or_default();
        let custom = self.custom.get(group).map(|own| own.openapi(&self.built_in, group, || &tables));
        let found = custom.and_then(|documents| documents.get(key));
        found.or_else(|| self.built_in.openapi(|| &tables).get(key)).cloned()
    }

    fn all(&self) -> Vec<Arc<Resource>> {
        self.resources().cloned().collect()
    }
}

impl BuiltIn {
    fn openapi<'t>(&self, tables: impl FnOnce() -> &'t Tables) -> &ByKey {
        self.openapi.get_or_init(|| documents(tables(), &self.resources, |_| true))
    }
}

impl CustomGroup {
    /// The documents of the group's versions. A definition may add to a version that is built in.
    fn openapi<'t>(&self, built_in: &BuiltIn, group: &str, tables: impl FnOnce() -> &'t Tables) -> &ByKey {
        self.openapi.get_or_init(|| {
            let of_group = built_in.resources.iter().filter(|own| own.group == group);
            let own = self.resources().map(|endpoint| &endpoint.resource);
            let resources: Vec<Arc<Resource>> = of_group.chain(own).cloned().collect();
            let keys: Vec<Str> = self.resources().map(|endpoint| key(&endpoint.resource)).collect();
            documents(tables(), &resources, |key| keys.iter().any(|own| own == key))
        })
    }
}

fn documents(tables: &Tables, resources: &[Arc<Resource>], wanted: impl Fn(&str) -> bool) -> ByKey {
    let mut documents = ByKey::new();
    openapi::v3_documents(tables, resources, &wanted, &mut |key, bytes| {
        documents.insert(key.to_owned(), Document::new(JSON, &bytes));
    });
    documents
}

fn hashes_of(documents: &ByKey) -> impl Iterator<Item = (&str, &str)> {
    documents.iter().map(|(key, document)| (key.as_str(), document.hash()))
}

/// The key of the document that a custom resource is described in.
fn key(resource: &Resource) -> Str {
    format!("apis/{}/{}", resource.group, resource.version).into()
}

#[cfg(test)]
mod tests {
    use apiextensions::conversion::{Stale, Strategy};
    use apiextensions::{describe, descriptor};
    use apimachinery::{Value, json};
    use registry::{Endpoint, Registry, ServiceNetwork};
    use watch_cache::WatchCache;

    use super::*;

    /// The only version of a definition whose objects have one field.
    fn widgets(registry: &Registry, group: &str, field: &str) -> Vec<Endpoint> {
        let names =
            json!({"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"});
        let schema = json!({"type": "object", "properties": {(field): {"type": "string"}}});
        let definition = json!({
            "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [
                {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}},
            ]},
            "status": {"acceptedNames": names},
        });
        let schemas = descriptor::schemas(&definition);
        let described = describe(&definition, schemas, &Strategy::None, &Arc::new(Stale::nothing()));
        let described = described.expect("it can be served");
        vec![registry.custom_endpoint(described.stored, described.fields)]
    }

    #[test]
    fn a_definition_leaves_the_documents_of_other_groups_as_they_are() {
        let store = Arc::new(storage_embedded::memory());
        let registry = Registry::new(store, WatchCache::new(), ServiceNetwork::default());
        let changing = |catalog: &Catalog, group: &str, field: &str| {
            catalog.with_custom(group, "widgets", widgets(&registry, group, field))
        };
        let before = changing(&Catalog::new(&registry, Vec::new()), "a.example.com", "size");
        let before = changing(&before, "b.example.com", "size");
        let after = changing(&before, "a.example.com", "colour");
        let etag = |catalog: &Catalog, group: &str| {
            catalog.openapi_v3(&format!("apis/{group}/v1")).expect("a document").etag
        };
        assert_ne!(etag(&before, "a.example.com"), etag(&after, "a.example.com"));
        assert!(
            Arc::ptr_eq(&etag(&before, "b.example.com"), &etag(&after, "b.example.com")),
            "not made anew"
        );
        let index = Value::parse(&after.openapi_v3_index().bytes()).expect("JSON");
        let own = index["paths"]["apis/a.example.com/v1"].str_at(&["serverRelativeURL"]);
        let hash = etag(&after, "a.example.com").trim_matches('"').to_owned();
        assert_eq!(own, format!("/openapi/v3/apis/a.example.com/v1?hash={hash}"));
        assert!(after.openapi_v3("apis/a.example.com/v2").is_none());
        assert!(after.openapi_v3("apis/c.example.com/v1").is_none());
    }
}
