//! `StorageClass` and `VolumeAttributesClass`: descriptions that never change, since volumes were made by them.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use crate::strategy::{Context, Strategy};
use crate::validation::fields::{Fields, immutable, invalid_each, item_text, supported};
use crate::validation::{selector, text};

/// Parameters of a class: how many, and how long together, in bytes.
const PARAMETERS_MAX: usize = 512;
const PARAMETERS_SIZE_MAX: usize = 256 << 10;

pub struct StorageClass;

impl Strategy for StorageClass {
    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        driver(&mut errors, object.text("provisioner"), &Path::root("provisioner"));
        parameters(&mut errors, object, true);
        let policy = object.text("reclaimPolicy");
        if !policy.is_empty() {
            supported(&mut errors, policy, &Path::root("reclaimPolicy"), &["Delete", "Retain"]);
        }
        let path = Path::root("volumeBindingMode");
        match object.maybe_text("volumeBindingMode") {
            None => errors.push(Error::required(&path, "")),
            Some(mode) => supported(&mut errors, mode, &path, &["Immediate", "WaitForFirstConsumer"]),
        }
        let path = Path::root("allowedTopologies");
        let topologies = object.list("allowedTopologies");
        for (index, term) in topologies.iter().enumerate() {
            let path = path.index(index);
            topology_term(&mut errors, term, &path);
            if topologies[..index].contains(term) {
                errors.push(Error::duplicate(&path.child("matchLabelExpressions"), ""));
            }
        }
        errors
    }

    fn validate_update(&self, _ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        for key in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
            immutable(&mut errors, new, old, key, &Path::root(key));
        }
        errors
    }

    fn warnings(&self, ctx: &Context<'_>, new: &Value, _old: Option<&Value>) -> Vec<String> {
        if ctx.subresource.is_some() { Vec::new() } else { crate::kinds::warnings::storage_class(new) }
    }
}

pub struct VolumeAttributesClass;

impl Strategy for VolumeAttributesClass {
    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        driver(&mut errors, object.text("driverName"), &Path::root("driverName"));
        parameters(&mut errors, object, false);
        errors
    }

    fn validate_update(&self, _ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        for key in ["driverName", "parameters"] {
            immutable(&mut errors, new, old, key, &Path::root(key));
        }
        errors
    }
}

fn driver(errors: &mut ErrorList, name: &str, path: &Path<'_>) {
    if name.is_empty() {
        errors.push(Error::required(path, ""));
    } else {
        invalid_each(errors, path, name, text::qualified_name(&name.to_lowercase()));
    }
}

fn parameters(errors: &mut ErrorList, object: &Value, may_be_empty: bool) {
    let path = Path::root("parameters");
    let (mut count, mut size) = (0, 0);
    for (key, value) in object.entries("parameters") {
        if key.is_empty() {
            errors.push(Error::invalid(&path, key, "field can not be empty."));
        }
        count += 1;
        size += key.len() + item_text(value).len();
    }
    if count > PARAMETERS_MAX {
        errors.push(Error::too_long(&path, PARAMETERS_MAX));
    }
    if size > PARAMETERS_SIZE_MAX {
        errors.push(Error::too_long(&path, PARAMETERS_SIZE_MAX));
    }
    if !may_be_empty && count == 0 {
        errors.push(Error::required(&path, "must contain at least one key/value pair"));
    }
}

/// A term of `allowedTopologies`: each label once, with at least one value.
fn topology_term(errors: &mut ErrorList, term: &Value, path: &Path<'_>) {
    let path = path.child("matchLabelExpressions");
    let expressions = term.list("matchLabelExpressions");
    for (index, expression) in expressions.iter().enumerate() {
        let path = path.index(index);
        let (key, values) = (expression.text("key"), expression.list("values"));
        let values_path = path.child("values");
        if values.is_empty() {
            errors.push(Error::required(&values_path, ""));
        }
        for (index, value) in
            values.iter().enumerate().filter(|(index, value)| values[..*index].contains(value))
        {
            errors.push(Error::duplicate(&values_path.index(index), item_text(value)));
        }
        selector::label_name(errors, key, &path.child("key"));
        if expressions[..index].iter().any(|other| other.text("key") == key) {
            errors.push(Error::duplicate(&path.child("key"), key));
        }
    }
}
