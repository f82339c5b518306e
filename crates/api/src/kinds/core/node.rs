//! `v1.Node`.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use super::pod::defaults::primary_and_list;
use super::pod::scheduling::TAINT_EFFECTS;
use crate::strategy::{Context, Strategy, keep_status_apart};
use crate::validation::fields::{Fields, as_go_struct, item_text, one_of};
use crate::validation::{ip, resources, selector, text};

const FEATURE_MAX: usize = 253;

pub struct Node;

impl Strategy for Node {
    fn default(&self, object: &mut Value) {
        if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
            primary_and_list(spec, "podCIDR", "podCIDRs", None);
        }
    }

    /// Dynamic kubelet configuration is gone; a node may not ask for it any more.
    fn prepare_for_create(&self, _ctx: &Context<'_>, object: &mut Value) {
        object.remove_at(&["spec", "configSource"]);
        object.remove_at(&["status", "config"]);
    }

    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        // Upstream reports taints under `metadata`.
        taints(&mut errors, object["spec"].list("taints"), &Path::root("metadata").child("taints"));
        status(&mut errors, &object["status"]);
        pod_cidrs(&mut errors, object["spec"].list("podCIDRs"), object);
        errors
    }

    fn prepare_for_update(&self, ctx: &Context<'_>, new: &mut Value, old: &Value) {
        keep_status_apart(ctx, new, old);
        if !old["spec"].has("configSource") {
            new.remove_at(&["spec", "configSource"]);
        }
        if !old["status"].has("config") {
            new.remove_at(&["status", "config"]);
        }
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = if ctx.subresource.is_none() { self.validate(ctx, new) } else { ErrorList::new() };
        if ctx.subresource.is_some() {
            status(&mut errors, &new["status"]);
        }
        addresses(&mut errors, new["status"].list("addresses"));
        set_once(&mut errors, &new["spec"], &old["spec"]);
        errors
    }

    fn warnings(&self, _ctx: &Context<'_>, new: &Value, _old: Option<&Value>) -> Vec<String> {
        let spec = &new["spec"];
        let mut warnings = Vec::new();
        if spec.has("configSource") {
            warnings.push("spec.configSource: the feature is removed".to_owned());
        }
        if !spec.text("externalID").is_empty() {
            warnings
                .push("spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned());
        }
        warnings
    }
}

fn taints(errors: &mut ErrorList, taints: &[Value], path: &Path<'_>) {
    for (index, taint) in taints.iter().enumerate() {
        let path = path.index(index);
        let (key, value, effect) = (taint.text("key"), taint.text("value"), taint.text("effect"));
        selector::label_name(errors, key, &path.child("key"));
        let messages = text::label_value(value);
        if !messages.is_empty() {
            errors.push(Error::invalid(&path.child("value"), value, messages.join(";")));
        }
        one_of(errors, effect, &path.child("effect"), &TAINT_EFFECTS);
        if taints[..index].iter().any(|other| other.text("key") == key && other.text("effect") == effect) {
            const LAYOUT: [(&str, &str, &str); 4] = [
                ("key", "Key", "\"\""),
                ("value", "Value", "\"\""),
                ("effect", "Effect", "\"\""),
                ("timeAdded", "TimeAdded", "null"),
            ];
            let mut error = Error::duplicate(&path, as_go_struct(taint, &LAYOUT));
            error.detail = "taints must be unique by key and effect pair".to_owned();
            errors.push(error);
        }
    }
}

fn status(errors: &mut ErrorList, status: &Value) {
    let path = Path::root("status");
    for list in ["capacity", "allocatable"] {
        let path = path.child(list);
        for (name, value) in status.entries(list) {
            if let Some(amount) = resources::quantity(value) {
                resources::amount(errors, name, amount, &path.child(name));
            }
        }
    }
    if let Some(capacity) = status["nodeInfo"]["swap"].maybe_int("capacity")
        && capacity <= 0
    {
        errors.push(Error::invalid(
            &Path::root("metadata").child("nodeSwapStatus").child("capacity"),
            capacity,
            "must be greater than zero",
        ));
    }
    declared_features(errors, status.list("declaredFeatures"), &path.child("declaredFeatures"));
}

fn declared_features(errors: &mut ErrorList, features: &[Value], path: &Path<'_>) {
    for (index, feature) in features.iter().map(item_text).enumerate() {
        if feature.len() > FEATURE_MAX {
            errors.push(Error::invalid(
                &path.index(index),
                feature,
                format!("invalid feature name \"{feature}\": must be no more than {FEATURE_MAX} characters"),
            ));
        } else if !is_feature(feature) {
            errors.push(Error::invalid(
                &path.index(index),
                feature,
                format!("invalid feature name \"{feature}\": must start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes"),
            ));
        }
        let Some(next) = features.get(index + 1).map(item_text) else { continue };
        if feature == next {
            errors.push(Error::duplicate(&path.index(index + 1), next));
        } else if feature > next {
            errors.push(Error::invalid(&path.index(index + 1), next, "list must be sorted alphabetically"));
        }
    }
}

fn is_feature(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.split('/').all(|segment| {
            segment.starts_with(|c: char| c.is_ascii_alphabetic())
                && segment.bytes().all(|byte| byte.is_ascii_alphanumeric())
        })
}

fn pod_cidrs(errors: &mut ErrorList, blocks: &[Value], object: &Value) {
    let path = Path::root("spec");
    let path = path.child("podCIDRs");
    for (index, block) in blocks.iter().enumerate() {
        ip::check_cidr(errors, item_text(block), &path.index(index), &[]);
    }
    if blocks.len() > 1 && (blocks.len() > 2 || !ip::is_dual_stack_cidrs(blocks.iter().map(item_text))) {
        errors.push(Error::invalid(
            &path,
            &object["spec"]["podCIDRs"],
            "may specify no more than one CIDR for each IP family",
        ));
    }
}

fn addresses(errors: &mut ErrorList, addresses: &[Value]) {
    let path = Path::root("status");
    let path = path.child("addresses");
    for (index, address) in addresses.iter().enumerate() {
        if addresses[..index].contains(address) {
            let shown = as_go_struct(address, &[("type", "Type", "\"\""), ("address", "Address", "\"\"")]);
            errors.push(Error::duplicate(&path.index(index), shown));
        }
    }
}

/// The provider's ID and the pod networks are decided once.
fn set_once(errors: &mut ErrorList, new: &Value, old: &Value) {
    let path = Path::root("spec");
    let (new_blocks, old_blocks) = (new.list("podCIDRs"), old.list("podCIDRs"));
    if !old_blocks.is_empty() {
        let complaint = || {
            Error::forbidden(
                &path.child("podCIDRs"),
                "node updates may not change podCIDR except from \"\" to valid",
            )
        };
        if new_blocks.len() != old_blocks.len() {
            errors.push(complaint());
        } else {
            let changed = new_blocks.iter().zip(old_blocks).filter(|(new, old)| new != old);
            errors.extend(changed.map(|_| complaint()));
        }
    }
    if !old.text("providerID").is_empty() && old.text("providerID") != new.text("providerID") {
        errors.push(Error::forbidden(
            &path.child("providerID"),
            "node updates may not change providerID except from \"\" to valid",
        ));
    }
    if old.text("externalID") != new.text("externalID") {
        errors.push(Error::forbidden(&path.child("externalID"), "may not be updated"));
    }
}
