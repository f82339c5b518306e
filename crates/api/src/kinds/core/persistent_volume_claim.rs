//! `v1.PersistentVolumeClaim`, and the claim templates inside other kinds.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::{Quantity, Value};

use crate::strategy::{Context, Strategy, keep_status_apart};
use crate::validation::fields::{Fields, immutable, invalid_each, item_text, same, supported};
use crate::validation::{diff, resources, selector, text};

const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

pub struct PersistentVolumeClaim;

impl Strategy for PersistentVolumeClaim {
    fn prepare_for_create(&self, _ctx: &Context<'_>, object: &mut Value) {
        if let Some(spec) = object.get_mut("spec") {
            normalize_data_source(spec);
        }
    }

    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        spec(&mut errors, &object["spec"], &Path::root("spec"));
        errors
    }

    fn prepare_for_update(&self, ctx: &Context<'_>, new: &mut Value, old: &Value) {
        keep_status_apart(ctx, new, old);
        if ctx.subresource.is_none()
            && let Some(spec) = new.get_mut("spec")
        {
            normalize_data_source(spec);
        }
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        if ctx.subresource == Some("status") {
            if new["spec"].list("accessModes").is_empty() {
                // Upstream's path, as it is.
                errors.push(Error::required(&Path::root("Spec").child("accessModes"), ""));
            }
            status(&mut errors, &new["status"], &Path::root("status"));
            return errors;
        }
        spec(&mut errors, &new["spec"], &Path::root("spec"));
        changes(&mut errors, new, old);
        errors
    }

    fn warnings(&self, ctx: &Context<'_>, new: &Value, _old: Option<&Value>) -> Vec<String> {
        if ctx.subresource.is_some() { Vec::new() } else { crate::kinds::warnings::claim(new) }
    }
}

/// How far a resize of each resource has come.
const RESIZE_STATES: &[&str] = &[
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
];

/// What a volume has, and what it is about to have.
fn status(errors: &mut ErrorList, status: &Value, path: &Path<'_>) {
    let capacity = path.child("capacity");
    for (name, value) in status.entries("capacity") {
        not_negative_amount(errors, value, &capacity.key(name));
    }
    let states = path.child("allocatedResourceStatuses");
    for (name, state) in status.entries("allocatedResourceStatuses") {
        resource_name(errors, name, &states);
        if !RESIZE_STATES.contains(&item_text(state)) {
            // Upstream shows the resource, not its state.
            errors.push(Error::not_supported(&states, name, RESIZE_STATES));
        }
    }
    let allocated = path.child("allocatedResources");
    for (name, value) in status.entries("allocatedResources") {
        if resource_name(errors, name, &allocated) {
            not_negative_amount(errors, value, &allocated.key(name));
        }
    }
}

fn not_negative_amount(errors: &mut ErrorList, value: &Value, path: &Path<'_>) {
    if let Some(amount) = resources::quantity(value).filter(|amount| amount.sign() < 0) {
        errors.push(Error::invalid(path, amount.value(), "must be a valid resource quantity"));
    }
}

/// Of Kubernetes' own resources only storage can be allocated; says whether this one can.
fn resource_name(errors: &mut ErrorList, name: &str, path: &Path<'_>) -> bool {
    let before = errors.len();
    invalid_each(errors, path, name, text::qualified_name(name));
    if errors.len() == before && resources::is_native(name) && name != "storage" {
        errors.push(Error::not_supported(path, name, &["storage"]));
    }
    errors.len() == before
}

/// Defaults of a claim's spec.
pub fn default_spec(spec: &mut Value) {
    if !spec.has("volumeMode") {
        spec.ensure_object().insert("volumeMode", "Filesystem");
    }
}

/// `dataSource` and `dataSourceRef` mean the same for sources in the claim's own namespace; each fills the other.
///
/// Before, what they may not hold is dropped without a word, as upstream does: other namespaces (a feature that is
/// off), and sources that `dataSource` never supported.
fn normalize_data_source(spec: &mut Value) {
    if !spec["dataSourceRef"].text("namespace").is_empty() {
        spec.ensure_object().remove("dataSourceRef");
    }
    let source = &spec["dataSource"];
    let known = match source.text("kind") {
        "PersistentVolumeClaim" => source.text("apiGroup").is_empty(),
        "VolumeSnapshot" => source.text("apiGroup") == "snapshot.storage.k8s.io",
        _ => false,
    };
    if !known {
        spec.ensure_object().remove("dataSource");
    }
    let (old, new) = (spec.maybe("dataSource"), spec.maybe("dataSourceRef"));
    match (old, new) {
        (Some(source), None) => {
            let source = source.clone();
            spec.ensure_object().insert("dataSourceRef", source);
        }
        (None, Some(source)) if source.text("namespace").is_empty() => {
            let mut source = source.clone();
            source.ensure_object().remove("namespace");
            spec.ensure_object().insert("dataSource", source);
        }
        _ => {}
    }
}

/// Checks a `PersistentVolumeClaimSpec`.
pub fn spec(errors: &mut ErrorList, spec: &Value, path: &Path<'_>) {
    let modes = spec.list("accessModes");
    let modes_path = path.child("accessModes");
    if modes.is_empty() {
        errors.push(Error::required(&modes_path, "at least 1 access mode is required"));
    }
    selector::label_selector(errors, spec.maybe("selector"), &path.child("selector"));
    let (mut exclusive, mut shared) = (false, false);
    for mode in modes.iter().map(item_text) {
        supported(errors, mode, &modes_path, &ACCESS_MODES);
        exclusive |= mode == "ReadWriteOncePod";
        shared |= mode != "ReadWriteOncePod" && ACCESS_MODES.contains(&mode);
    }
    if exclusive && shared {
        errors.push(Error::forbidden(&modes_path, "may not use ReadWriteOncePod with other access modes"));
    }
    let storage = path.child("resources");
    let storage = storage.key("storage");
    match requested(spec) {
        None => errors.push(Error::required(&storage, "")),
        Some(amount) if amount.sign() <= 0 => {
            errors.push(Error::invalid(&storage, amount.to_string(), "must be greater than zero"));
        }
        Some(amount) => resources::amount(errors, "storage", amount, &storage),
    }
    let mut class = |key: &str| {
        let class = spec.text(key);
        if !class.is_empty() {
            invalid_each(errors, &path.child(key), class, text::dns1123_subdomain(class));
        }
    };
    class("storageClassName");
    if let Some(mode) = spec.maybe_text("volumeMode") {
        supported(errors, mode, &path.child("volumeMode"), &["Block", "Filesystem"]);
    }
    for key in ["dataSource", "dataSourceRef"] {
        if let Some(source) = spec.maybe(key) {
            data_source(errors, source, &path.child(key));
        }
    }
    data_sources_agree(errors, spec, path);
    let class = spec.text("volumeAttributesClassName");
    if !class.is_empty() {
        invalid_each(errors, &path.child("volumeAttributesClassName"), class, text::dns1123_subdomain(class));
    }
}

fn requested(spec: &Value) -> Option<Quantity> {
    spec["resources"]
        .map("requests")
        .and_then(|requests| requests.get("storage"))
        .and_then(resources::quantity)
}

fn data_source(errors: &mut ErrorList, source: &Value, path: &Path<'_>) {
    for key in ["name", "kind"] {
        if source.text(key).is_empty() {
            errors.push(Error::required(&path.child(key), ""));
        }
    }
    let (group, kind) = (source.text("apiGroup"), source.text("kind"));
    if group.is_empty() && kind != "PersistentVolumeClaim" {
        errors.push(Error::invalid(
            path,
            kind,
            "must be 'PersistentVolumeClaim' when referencing the default apiGroup",
        ));
    }
    if !group.is_empty() {
        invalid_each(errors, &path.child("apiGroup"), group, text::dns1123_subdomain(group));
    }
    let namespace = source.text("namespace");
    if !namespace.is_empty() {
        invalid_each(errors, &path.child("namespace"), namespace, text::dns1123_label(namespace));
    }
}

fn data_sources_agree(errors: &mut ErrorList, spec: &Value, path: &Path<'_>) {
    let (Some(source), Some(reference)) = (spec.maybe("dataSource"), spec.maybe("dataSourceRef")) else {
        return;
    };
    let complaint = if !reference.text("namespace").is_empty() {
        "may not be specified when dataSourceRef.namespace is specified"
    } else if ["apiGroup", "kind", "name"].iter().any(|key| source.maybe(key) != reference.maybe(key)) {
        "must match dataSourceRef"
    } else {
        return;
    };
    // Upstream shows an empty structure.
    errors.push(Error::invalid(path, Value::object(), complaint));
}

/// A claim can only be bound, grown and given another attributes class.
fn changes(errors: &mut ErrorList, new: &Value, old: &Value) {
    let class = |object: &Value| object["metadata"]["annotations"].text(CLASS_ANNOTATION).to_owned();
    if class(new) != class(old) {
        errors.push(Error::invalid(
            &Path::root("metadata").child("annotations").child(CLASS_ANNOTATION),
            class(new),
            crate::validation::fields::IMMUTABLE,
        ));
    }
    let (new_spec, old_spec) = (&new["spec"], &old["spec"]);
    let mut rest = new_spec.clone();
    let bound = new["status"].text("phase") == "Bound";
    let mut put_back = |path: &[&str]| match old_spec.at(path) {
        Some(value) => rest.set_at(path, value.clone()),
        None => {
            rest.remove_at(path);
        }
    };
    if old_spec.text("volumeName").is_empty() {
        put_back(&["volumeName"]);
    }
    if !old_spec.has("storageClassName") && new_spec.has("storageClassName") {
        put_back(&["storageClassName"]);
    }
    if bound {
        put_back(&["resources", "requests", "storage"]);
        put_back(&["volumeAttributesClassName"]);
    }
    let path = Path::root("spec");
    if !same(&rest, old_spec) {
        errors.push(Error::forbidden(
            &path,
            format!(
                "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n{}",
                diff::of_structs("PersistentVolumeClaimSpec", old_spec, &rest)
            ),
        ));
    }
    let status =
        old["status"].map("capacity").and_then(|map| map.get("storage")).and_then(resources::quantity);
    if let (Some(now), Some(before)) = (requested(new_spec), requested(old_spec))
        && now < before
        && now <= status.unwrap_or_default()
    {
        errors.push(Error::forbidden(
            &path.child("resources").child("requests").child("storage"),
            "field can not be less than status.capacity",
        ));
    }
    immutable(errors, new_spec, old_spec, "volumeMode", &Path::root("volumeMode"));
    if old["status"].has("currentVolumeAttributesClassName")
        && !same(&old_spec["volumeAttributesClassName"], &new_spec["volumeAttributesClassName"])
    {
        let complaint = match new_spec.maybe_text("volumeAttributesClassName") {
            None => "update to nil is forbidden when status.currentVolumeAttributesClassName is not nil",
            Some("") => {
                "update to empty string is forbidden when status.currentVolumeAttributesClassName is not nil"
            }
            Some(_) => return,
        };
        errors.push(Error::forbidden(&path.child("volumeAttributesClassName"), complaint));
    }
}
