//! What is served now: endpoints by path, and the documents that describe them.
//!
//! Built-in resources are there from the start and stay. Custom resources come and go by group: a catalog with
//! another set of them shares everything else with the one before, also the documents of the groups that did not
//! change. Documents are made when they are asked for.

mod document;
mod openapi;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use api::Resource;
use api::discovery::{self, GroupDocuments};
use apimachinery::{GroupVersionResource, Str};
use registry::{Endpoint, Registry};

pub use document::Document;
use document::Documents;

/// An immutable set of served resources; replaced as a whole when it changes.
pub struct Catalog {
    built_in: Arc<BuiltIn>,
    custom: imbl::OrdMap<Str, Arc<CustomGroup>>,
    documents: Documents,
    discovery: OnceLock<discovery::Documents>,
}

/// What every catalog of a server has.
struct BuiltIn {
    endpoints: HashMap<GroupVersionResource, Endpoint>,
    resources: Vec<Arc<Resource>>,
    discovery: OnceLock<Vec<Arc<GroupDocuments>>>,
    openapi: OnceLock<openapi::ByKey>,
}

/// The custom resources of one group.
#[derive(Default)]
struct CustomGroup {
    /// The served versions of each resource by its plural name, the preferred one first.
    resources: BTreeMap<Str, Vec<Endpoint>>,
    discovery: OnceLock<Arc<GroupDocuments>>,
    openapi: OnceLock<openapi::ByKey>,
}

impl Catalog {
    pub fn new(registry: &Registry, resources: Vec<Arc<Resource>>) -> Self {
        let endpoints = resources
            .iter()
            .map(|resource| {
                let endpoint = if resource.is_stored() {
                    registry.endpoint(resource.clone())
                } else {
                    registry.unstored_endpoint(resource.clone())
                };
                (resource.gvr(), endpoint)
            })
            .collect();
        let built_in = BuiltIn { endpoints, resources, discovery: OnceLock::new(), openapi: OnceLock::new() };
        Self::of(Arc::new(built_in), imbl::OrdMap::new())
    }

    fn of(built_in: Arc<BuiltIn>, custom: imbl::OrdMap<Str, Arc<CustomGroup>>) -> Self {
        Self { built_in, custom, documents: Documents::default(), discovery: OnceLock::new() }
    }

    /// The same catalog with these served versions of a custom resource, the preferred one first; without any the
    /// resource goes.
    pub fn with_custom(&self, group: &str, plural: &str, versions: Vec<Endpoint>) -> Self {
        let mut resources = self.custom.get(group).map(|own| own.resources.clone()).unwrap_or_default();
        if versions.is_empty() {
            resources.remove(plural);
        } else {
            resources.insert(plural.into(), versions);
        }
        let custom = if resources.is_empty() {
            self.custom.without(group)
        } else {
            let changed = CustomGroup { resources, ..CustomGroup::default() };
            self.custom.update(group.into(), Arc::new(changed))
        };
        Self::of(self.built_in.clone(), custom)
    }

    /// Hot path: the endpoint of a request's path.
    pub fn get(&self, group: &str, version: &str, plural: &str) -> Option<&Endpoint> {
        let gvr = GroupVersionResource::new(group, version, plural);
        self.built_in.endpoints.get(&gvr).or_else(|| self.find_custom(&gvr))
    }

    pub fn find(&self, gvr: &GroupVersionResource) -> Option<&Endpoint> {
        self.built_in.endpoints.get(gvr).or_else(|| self.find_custom(gvr))
    }

    fn find_custom(&self, gvr: &GroupVersionResource) -> Option<&Endpoint> {
        let versions = self.custom.get(&gvr.group)?.resources.get(&gvr.resource)?;
        versions.iter().find(|endpoint| endpoint.resource.version == gvr.version)
    }

    /// Resources that do not come from a definition.
    pub fn built_in(&self) -> &[Arc<Resource>] {
        &self.built_in.resources
    }

    pub fn custom(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.custom.values().flat_map(|group| group.resources()).map(|endpoint| &endpoint.resource)
    }

    pub fn resources(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.built_in().iter().chain(self.custom())
    }

    /// The discovery documents of this set, made on first use.
    pub fn discovery(&self) -> &discovery::Documents {
        self.discovery.get_or_init(|| {
            let built_in = &self.built_in;
            let made = built_in.discovery.get_or_init(|| GroupDocuments::all(&built_in.resources));
            let is_extended = |group: &Arc<GroupDocuments>| self.custom.contains_key(group.name());
            let (extended, mut groups): (Vec<_>, Vec<_>) = made.iter().cloned().partition(is_extended);
            // A definition may add to a group that is built in; that one is made anew.
            let is_pure = |name: &str| extended.iter().all(|group| group.name() != name);
            let pure = self.custom.iter().filter(|(name, _)| is_pure(name));
            groups.extend(pure.filter_map(|(_, group)| group.documents()));
            for group in &extended {
                let resources = self.resources().filter(|resource| resource.group == group.name());
                groups.extend(GroupDocuments::all(&resources.cloned().collect::<Vec<_>>()));
            }
            discovery::Documents::assemble(groups)
        })
    }

    /// A document about all resources under `key`, made on first use.
    pub fn document(&self, key: &str, make: impl FnOnce() -> Document) -> Document {
        self.documents.get(key, make)
    }

    /// The preferred version of each resource of a group, for components that look at everything.
    pub fn preferred(&self) -> impl Iterator<Item = &Arc<Resource>> {
        let mut seen = std::collections::HashSet::<(Str, Str)>::new();
        self.resources()
            .filter(move |resource| seen.insert((resource.group.clone(), resource.plural.clone())))
    }
}

impl CustomGroup {
    fn resources(&self) -> impl Iterator<Item = &Endpoint> {
        self.resources.values().flatten()
    }

    fn documents(&self) -> Option<Arc<GroupDocuments>> {
        if let Some(made) = self.discovery.get() {
            return Some(made.clone());
        }
        let resources: Vec<Arc<Resource>> =
            self.resources().map(|endpoint| endpoint.resource.clone()).collect();
        let made = GroupDocuments::all(&resources).pop()?;
        Some(self.discovery.get_or_init(|| made).clone())
    }
}
