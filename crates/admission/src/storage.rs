//! Plugins about volumes, claims and their classes.

use api::amounts::Amounts;
use api::gvr;
use apimachinery::{Quantity, Status, Value};
use registry::Endpoint;
use registry::admission::{Attributes, Operation};

use crate::plugins::{BuildError, Environment};
use crate::{Plugin, forbidden, look_up, newest_default, protect};

const IS_DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
const IS_DEFAULT_BETA: &str = "storageclass.beta.kubernetes.io/is-default-class";
/// How claims named their class before they had a field for it; it still wins.
const CLASS_BETA: &str = "volume.beta.kubernetes.io/storage-class";

/// `DefaultStorageClass`: a claim that names no class gets the default one. Naming the empty class is naming one.
pub struct DefaultStorageClass {
    classes: Endpoint,
}

impl DefaultStorageClass {
    pub fn new(environment: &Environment<'_>) -> Result<Self, BuildError> {
        Ok(Self { classes: environment.endpoint(&gvr::STORAGE_CLASSES)? })
    }
}

impl Plugin for DefaultStorageClass {
    fn mutate(&self, attributes: &Attributes<'_>, claim: &mut Value) -> Result<(), Status> {
        if attributes.operation != Operation::Create || !attributes.is("", "persistentvolumeclaims") {
            return Ok(());
        }
        let named = claim.at(&["metadata", "annotations", CLASS_BETA]).is_some()
            || !claim["spec"]["storageClassName"].is_null();
        if !named && let Some(class) = newest_default(&self.classes, &[IS_DEFAULT, IS_DEFAULT_BETA]) {
            claim.set_at(&["spec", "storageClassName"], class.name());
        }
        Ok(())
    }
}

/// `PersistentVolumeClaimResize`: a claim grows only when it is bound and its class says that volumes can.
pub struct PersistentVolumeClaimResize {
    classes: Endpoint,
}

impl PersistentVolumeClaimResize {
    pub fn new(environment: &Environment<'_>) -> Result<Self, BuildError> {
        Ok(Self { classes: environment.endpoint(&gvr::STORAGE_CLASSES)? })
    }

    fn allows(&self, claim: &Value, old: &Value) -> bool {
        let (class, old_class) = (class_of(claim), class_of(old));
        if class.is_empty() || class != old_class {
            return false;
        }
        let class = look_up(&self.classes, "", class).map(|class| class.to_value());
        class.is_some_and(|class| class["allowVolumeExpansion"].as_bool() == Some(true))
    }
}

impl Plugin for PersistentVolumeClaimResize {
    fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let updates =
            attributes.operation == Operation::Update && attributes.is("", "persistentvolumeclaims");
        let Some(claim) = object.filter(|_| updates) else { return Ok(()) };
        let Some(old) = attributes.old_value() else { return Ok(()) };
        if size_of(claim) <= size_of(&old) {
            return Ok(());
        }
        if old.str_at(&["status", "phase"]) != "Bound" {
            return Err(forbidden(attributes, "Only bound persistent volume claims can be expanded"));
        }
        if self.allows(claim, &old) {
            return Ok(());
        }
        let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must \
                   support resize";
        Err(forbidden(attributes, why))
    }
}

fn size_of(claim: &Value) -> Quantity {
    let requests = Amounts::of(claim.at(&["spec", "resources", "requests"]));
    requests.get("storage").unwrap_or(Quantity::ZERO)
}

fn class_of(claim: &Value) -> &str {
    match claim.at(&["metadata", "annotations", CLASS_BETA]).and_then(Value::as_str) {
        Some(class) => class,
        None => claim.str_at(&["spec", "storageClassName"]),
    }
}

/// `StorageObjectInUseProtection`: claims, volumes and their classes stay until nobody uses them; a controller of each
/// takes the finalizer off.
pub struct StorageObjectInUseProtection;

const PROTECTED: [(&str, &str, &str); 3] = [
    ("", "persistentvolumeclaims", "kubernetes.io/pvc-protection"),
    ("", "persistentvolumes", "kubernetes.io/pv-protection"),
    ("storage.k8s.io", "volumeattributesclasses", "kubernetes.io/vac-protection"),
];

impl Plugin for StorageObjectInUseProtection {
    fn mutate(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), Status> {
        if attributes.operation != Operation::Create {
            return Ok(());
        }
        let protected = PROTECTED.iter().find(|(group, plural, _)| attributes.is(group, plural));
        let Some((_, _, finalizer)) = protected else { return Ok(()) };
        protect(object, finalizer);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn the_annotation_names_the_class_before_the_field_does() {
        let claim =
            json!({"metadata": {"annotations": {CLASS_BETA: "old"}}, "spec": {"storageClassName": "new"}});
        assert_eq!(class_of(&claim), "old");
        assert_eq!(class_of(&json!({"spec": {"storageClassName": "new"}})), "new");
    }

    #[test]
    fn sizes_compare_as_amounts() {
        let claim = |size: &str| json!({"spec": {"resources": {"requests": {"storage": size}}}});
        assert!(size_of(&claim("1Gi")) > size_of(&claim("1000Mi")));
        assert_eq!(size_of(&json!({})), Quantity::ZERO);
    }
}
