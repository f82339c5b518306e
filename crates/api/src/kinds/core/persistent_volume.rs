//! `v1.PersistentVolume`.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::time::format_seconds;

use super::pod::scheduling::node_selector;
use super::pod::volumes::{csi_driver_name, no_backsteps, shared_source};
use crate::strategy::{Context, Strategy, keep_status_apart};
use crate::validation::fields::{Fields, immutable, invalid_each, item_text, require, same, supported};
use crate::validation::{diff, resources, text};

const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
/// Every source in the order of checks: JSON name, and how upstream's error path spells it.
const SOURCES: [(&str, &str); 22] = [
    ("hostPath", "hostPath"),
    ("gcePersistentDisk", "gcePersistentDisk"),
    ("awsElasticBlockStore", "awsElasticBlockStore"),
    ("glusterfs", "glusterfs"),
    ("flocker", "flocker"),
    ("nfs", "nfs"),
    ("rbd", "rbd"),
    ("quobyte", "quobyte"),
    ("cephfs", "cephFS"),
    ("iscsi", "iscsi"),
    ("cinder", "cinder"),
    ("fc", "fc"),
    ("flexVolume", "flexVolume"),
    ("azureFile", "azureFile"),
    ("vsphereVolume", "vsphereVolume"),
    ("photonPersistentDisk", "photonPersistentDisk"),
    ("portworxVolume", "portworxVolume"),
    ("azureDisk", "azureDisk"),
    ("scaleIO", "scaleIO"),
    ("local", "local"),
    ("storageos", "storageos"),
    ("csi", "csi"),
];

pub struct PersistentVolume;

impl Strategy for PersistentVolume {
    fn prepare_for_create(&self, ctx: &Context<'_>, object: &mut Value) {
        object.set_at(&["status", "lastPhaseTransitionTime"], format_seconds(ctx.now));
    }

    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        spec(&mut errors, &object["spec"], &Path::root("spec"));
        errors
    }

    fn prepare_for_update(&self, ctx: &Context<'_>, new: &mut Value, old: &Value) {
        keep_status_apart(ctx, new, old);
        if ctx.subresource == Some("status") && new["status"].text("phase") != old["status"].text("phase") {
            let unset = new["status"].text("lastPhaseTransitionTime")
                == old["status"].text("lastPhaseTransitionTime");
            if unset {
                new.set_at(&["status", "lastPhaseTransitionTime"], format_seconds(ctx.now));
            }
        }
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        if ctx.subresource == Some("status") {
            return ErrorList::new();
        }
        let mut errors = self.validate(ctx, new);
        changes(&mut errors, &new["spec"], &old["spec"]);
        errors
    }

    fn warnings(&self, ctx: &Context<'_>, new: &Value, _old: Option<&Value>) -> Vec<String> {
        if ctx.subresource.is_some() { Vec::new() } else { crate::kinds::warnings::volume(new) }
    }
}

fn spec(errors: &mut ErrorList, spec: &Value, path: &Path<'_>) {
    access_modes(errors, spec.list("accessModes"), &path.child("accessModes"));
    capacity(errors, spec, &path.child("capacity"));
    let policy = spec.text("persistentVolumeReclaimPolicy");
    let policy_path = path.child("persistentVolumeReclaimPolicy");
    if !policy.is_empty() {
        supported(errors, policy, &policy_path, &["Delete", "Recycle", "Retain"]);
    }
    if let Some(affinity) = spec.maybe("nodeAffinity") {
        let path = path.child("nodeAffinity");
        match affinity.maybe("required") {
            Some(required) => node_selector(errors, required, &path.child("required")),
            None => errors
                .push(Error::required(&path.child("required"), "must specify required node constraints")),
        }
    }
    sources(errors, spec, path);
    let root = spec["hostPath"]
        .maybe_text("path")
        .is_some_and(|path| !path.is_empty() && path.trim_matches('/').is_empty());
    if root && policy == "Recycle" {
        errors.push(Error::forbidden(&policy_path, "may not be 'recycle' for a hostPath mount of '/'"));
    }
    let class = spec.text("storageClassName");
    if !class.is_empty() {
        invalid_each(errors, &path.child("storageClassName"), class, text::dns1123_subdomain(class));
    }
    if let Some(mode) = spec.maybe_text("volumeMode") {
        supported(errors, mode, &path.child("volumeMode"), &["Block", "Filesystem"]);
    }
    if let Some(class) = spec.maybe_text("volumeAttributesClassName") {
        let class_path = path.child("volumeAttributesClassName");
        if class.is_empty() {
            errors.push(Error::required(&class_path, "an empty string is disallowed"));
        } else {
            invalid_each(errors, &class_path, class, text::dns1123_subdomain(class));
        }
        if !spec.has("csi") {
            errors.push(Error::required(
                &path.child("csi"),
                "has to be specified when using volumeAttributesClassName",
            ));
        }
    }
}

fn access_modes(errors: &mut ErrorList, modes: &[Value], path: &Path<'_>) {
    if modes.is_empty() {
        errors.push(Error::required(path, ""));
    }
    let (mut exclusive, mut shared) = (false, false);
    for mode in modes.iter().map(item_text) {
        supported(errors, mode, path, &ACCESS_MODES);
        exclusive |= mode == "ReadWriteOncePod";
        shared |= mode != "ReadWriteOncePod" && ACCESS_MODES.contains(&mode);
    }
    if exclusive && shared {
        errors.push(Error::forbidden(path, "may not use ReadWriteOncePod with other access modes"));
    }
}

fn capacity(errors: &mut ErrorList, spec: &Value, path: &Path<'_>) {
    let capacity = spec.map("capacity").filter(|capacity| !capacity.is_empty());
    let Some(capacity) = capacity else {
        errors.push(Error::required(path, ""));
        errors.push(Error::not_supported(path, Value::Null, &["storage"]));
        return;
    };
    if capacity.len() > 1 || !capacity.has("storage") {
        errors.push(Error::not_supported(path, &spec["capacity"], &["storage"]));
    }
    for (name, value) in capacity {
        let Some(amount) = resources::quantity(value) else { continue };
        let path = path.key(name);
        if amount.sign() < 0 {
            errors.push(Error::invalid(&path, amount.value(), "must be a valid resource quantity"));
        }
        if amount.sign() <= 0 {
            errors.push(Error::invalid(&path, amount.to_string(), "must be greater than zero"));
        }
    }
}

fn sources(errors: &mut ErrorList, spec: &Value, path: &Path<'_>) {
    let mut found = false;
    for (key, spelled) in SOURCES {
        let Some(source) = spec.maybe(key) else { continue };
        if std::mem::replace(&mut found, true) {
            // Upstream forgets to count this one.
            if key == "flexVolume" {
                shared_source(errors, key, source, path);
            } else {
                errors
                    .push(Error::forbidden(&path.child(spelled), "may not specify more than 1 volume type"));
            }
            continue;
        }
        let own = path.child(key);
        match key {
            "local" => {
                require(errors, source, "path", &own);
                no_backsteps(errors, source.text("path"), &own.child("path"));
                if !spec.has("nodeAffinity") {
                    errors.push(Error::required(
                        &path.child("nodeAffinity"),
                        "Local volume requires node affinity",
                    ));
                }
            }
            "csi" => csi(errors, source, &own),
            _ => shared_source(errors, key, source, path),
        }
        if let Some(reference) = source.maybe("secretRef").filter(|_| matches!(key, "cinder" | "storageos")) {
            require(errors, reference, "namespace", &own.child("secretRef"));
        }
    }
    if !found {
        errors.push(Error::required(path, "must specify a volume type"));
    }
}

fn csi(errors: &mut ErrorList, source: &Value, path: &Path<'_>) {
    csi_driver_name(errors, source.text("driver"), &path.child("driver"));
    require(errors, source, "volumeHandle", path);
    for key in [
        "controllerPublishSecretRef",
        "controllerExpandSecretRef",
        "nodePublishSecretRef",
        "nodeExpandSecretRef",
    ] {
        let Some(reference) = source.maybe(key) else { continue };
        let path = path.child(key);
        let (name, namespace) = (reference.text("name"), reference.text("namespace"));
        if require(errors, reference, "name", &path) {
            invalid_each(errors, &path.child("name"), name, text::dns1123_subdomain(name));
        }
        if require(errors, reference, "namespace", &path) {
            invalid_each(errors, &path.child("namespace"), namespace, text::dns1123_label(namespace));
        }
    }
}

/// What a volume is made of never changes.
fn changes(errors: &mut ErrorList, new: &Value, old: &Value) {
    let source = |spec: &Value| -> Value {
        SOURCES.iter().filter_map(|(key, _)| Some(((*key).into(), spec.maybe(key)?.clone()))).collect()
    };
    let (mut new_source, old_source) = (source(new), source(old));
    // The secret for growing a volume may be given later.
    if !old_source["csi"].has("controllerExpandSecretRef") {
        new_source.remove_at(&["csi", "controllerExpandSecretRef"]);
    }
    let path = Path::root("spec");
    if !same(&new_source, &old_source) {
        errors.push(Error::forbidden(
            &path.child("persistentvolumesource"),
            format!(
                "spec.persistentvolumesource is immutable after creation\n{}",
                diff::of_structs("PersistentVolumeSource", &old_source, &new_source)
            ),
        ));
    }
    immutable(errors, new, old, "volumeMode", &Path::root("volumeMode"));
    if old.has("nodeAffinity") && !same(&new["nodeAffinity"], &old["nodeAffinity"]) {
        errors.push(Error::invalid(
            &Path::root("nodeAffinity"),
            &new["nodeAffinity"],
            "field is immutable, except for updating from beta label to GA",
        ));
    }
    if old.has("volumeAttributesClassName") && !new.has("volumeAttributesClassName") {
        errors.push(Error::forbidden(
            &path.child("volumeAttributesClassName"),
            "update from non-nil value to nil is forbidden",
        ));
    }
}
