//! [`Classes`]: device classes, and the extended resources that stand for them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use api::view::DeviceClass;
use apimachinery::{Object, Str};

/// Every class is an extended resource under this and its name.
pub const IMPLICIT_PREFIX: &str = "deviceclass.resource.kubernetes.io/";

#[derive(Debug, Default)]
pub struct Classes {
    by_name: HashMap<Str, Arc<Object>>,
    /// Names of classes by the extended resource that they say they stand for.
    by_resource: HashMap<Str, BTreeSet<Str>>,
}

impl Classes {
    pub fn insert(&mut self, class: Arc<Object>) {
        self.remove(class.name());
        if let Some(resource) = explicit_resource(&class) {
            self.by_resource.entry(resource).or_default().insert(class.name().into());
        }
        self.by_name.insert(class.name().into(), class);
    }

    pub fn remove(&mut self, name: &str) {
        let Some(old) = self.by_name.remove(name) else { return };
        let Some(resource) = explicit_resource(&old) else { return };
        if let Some(names) = self.by_resource.get_mut(&resource) {
            names.remove(name);
            if names.is_empty() {
                self.by_resource.remove(&resource);
            }
        }
    }

    pub fn names(&self) -> Vec<Str> {
        self.by_name.keys().cloned().collect()
    }

    pub fn object(&self, name: &str) -> Option<&Arc<Object>> {
        self.by_name.get(name)
    }

    pub fn get(&self, name: &str) -> Option<Arc<DeviceClass>> {
        self.by_name.get(name)?.view().ok()
    }

    /// The class that an extended resource stands for: of those that say so the newest, of equally new ones the first
    /// by name.
    pub fn of_resource(&self, resource: &str) -> Option<&Arc<Object>> {
        if let Some(name) = resource.strip_prefix(IMPLICIT_PREFIX) {
            return self.by_name.get(name);
        }
        let named = self.by_resource.get(resource)?.iter().filter_map(|name| self.by_name.get(name));
        // Of equal ones the last is taken: from the end, that is the first by name.
        named.rev().max_by_key(|class| class.creation_timestamp().to_owned())
    }
}

fn explicit_resource(class: &Object) -> Option<Str> {
    class.view::<DeviceClass>().ok()?.spec.extended_resource_name.clone()
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    fn class(name: &str, created: &str, resource: &str) -> Arc<Object> {
        let tree = json!({"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass",
            "metadata": {"name": name, "creationTimestamp": created},
            "spec": {"extendedResourceName": resource}});
        Arc::new(Object::from_value(&tree, 1, &[]).expect("test data is an object"))
    }

    #[test]
    fn the_newest_class_stands_for_an_extended_resource() {
        let mut classes = Classes::default();
        let (early, late) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        classes.insert(class("old", early, "x.io/gpu"));
        classes.insert(class("new-b", late, "x.io/gpu"));
        classes.insert(class("new-a", late, "x.io/gpu"));
        let name = |classes: &Classes, resource: &str| {
            classes.of_resource(resource).map(|class| class.name().to_owned())
        };
        assert_eq!(name(&classes, "x.io/gpu").as_deref(), Some("new-a"));
        assert_eq!(name(&classes, "deviceclass.resource.kubernetes.io/old").as_deref(), Some("old"));
        assert_eq!(name(&classes, "x.io/other"), None);
        classes.insert(class("new-a", late, "x.io/other"));
        classes.remove("new-b");
        assert_eq!(name(&classes, "x.io/gpu").as_deref(), Some("old"));
        assert_eq!(name(&classes, "x.io/other").as_deref(), Some("new-a"));
    }
}
