//! What the admission plugins may know of the catalog.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};

use admission::dynamic::Served;
use api::Resource;
use apimachinery::{GroupVersionKind, Status, Str, Value};
use async_trait::async_trait;
use parking_lot::Mutex;
use registry::Endpoint;

use crate::catalog::Catalog;
use crate::door::Door;
use crate::scale;

/// The catalog of the door, once there is one. The door holds the registry, the registry holds the admission chain,
/// and that holds this: so it holds nobody.
#[derive(Default)]
pub(crate) struct ServedNow {
    door: OnceLock<Weak<Door>>,
    equivalents: Mutex<Equivalents>,
}

/// Resources by where their objects are stored, of one catalog.
#[derive(Default)]
struct Equivalents {
    of: Weak<Catalog>,
    by_prefix: HashMap<Str, Arc<[Arc<Resource>]>>,
}

impl ServedNow {
    pub fn set(&self, door: &Arc<Door>) {
        // The first door stays; there is only one.
        let _ = self.door.set(Arc::downgrade(door));
    }

    fn catalog(&self) -> Option<Arc<Catalog>> {
        Some(self.door.get()?.upgrade()?.catalog())
    }
}

#[async_trait]
impl Served for ServedNow {
    fn equivalents(&self, resource: &Resource) -> Arc<[Arc<Resource>]> {
        let Some(catalog) = self.catalog() else { return Arc::new([]) };
        let mut known = self.equivalents.lock();
        if known.of.as_ptr() != Arc::as_ptr(&catalog) {
            *known = Equivalents { of: Arc::downgrade(&catalog), by_prefix: HashMap::new() };
        }
        if let Some(found) = known.by_prefix.get(&resource.storage_prefix) {
            return found.clone();
        }
        let found: Arc<[Arc<Resource>]> = catalog
            .resources()
            .filter(|own| own.is_stored() && own.storage_prefix == resource.storage_prefix)
            .cloned()
            .collect();
        known.by_prefix.insert(resource.storage_prefix.clone(), found.clone());
        found
    }

    fn of_kind(&self, kind: &GroupVersionKind) -> Option<Endpoint> {
        let catalog = self.catalog()?;
        let resource = catalog.resources().find(|own| own.is_stored() && own.gvk() == *kind)?.clone();
        catalog.find(&resource.gvr()).cloned()
    }

    async fn convert(&self, mut object: Value, from: &Resource, to: &Resource) -> Result<Value, Status> {
        let Some(custom) = &to.custom else {
            api::conversion::convert(&mut object, &from.gvk(), &to.gvk());
            return Ok(object);
        };
        let Some(converter) = &custom.converter else {
            object.set_at(&["apiVersion"], to.api_version());
            return Ok(object);
        };
        let converted = converter.read(vec![object]).await?.pop();
        converted.ok_or_else(|| Status::internal("the conversion returned no object"))
    }

    fn scale(&self, resource: &Resource, workload: &Value) -> Value {
        // One that cannot be shown is refused when it is validated.
        scale::of(resource, workload).unwrap_or_default()
    }

    fn rescaled(&self, resource: &Resource, workload: &Value, scale: &Value) -> Result<Value, Status> {
        scale::apply(resource, workload, scale)
    }
}
