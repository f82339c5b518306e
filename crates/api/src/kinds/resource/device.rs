//! One device of a slice.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use super::attribute::{self, attribute, exclusive_capacity, shared_capacity};
use super::slice::{complain_about_places, node_name};
use super::{DOMAIN_MAX, ENTRIES_MAX, IDENTIFIER_MAX, each, each_once, label, required_label, taint};
use crate::kinds::core::pod::scheduling::node_selector;
use crate::validation::fields::{Fields, item_text, same};
use crate::validation::resources::{is_native, quantity};
use crate::validation::selector::label_name;

const VALUES_MAX: usize = 48;
const TAINTS_MAX: usize = 16;
const CONSUMPTIONS_MAX: usize = 2;
pub(super) const COUNTERS_MAX: usize = 32;
const BINDING_CONDITIONS_MAX: usize = 4;
const LABEL_MAX: usize = 63;

const ONE_PLACE: &str = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when \
                         `perDeviceNodeSelection` is set to true in the ResourceSlice spec";

/// A device; `old` is the one of this name before an update, and `own_place` says that each device has a place.
pub(super) fn check(
    errors: &mut ErrorList,
    device: &Value,
    old: Option<&Value>,
    own_place: bool,
    path: &Path<'_>,
) {
    label(errors, device.text("name"), &path.child("name"));
    totals(errors, device, path);
    let place = path.child("attributes");
    map(errors, device, "attributes", DOMAIN_MAX + 1 + IDENTIFIER_MAX, &place, attribute::name, attribute);
    let capacity = match device.truth("allowMultipleAllocations") {
        true => shared_capacity,
        false => exclusive_capacity,
    };
    let place = path.child("capacity");
    map(errors, device, "capacity", DOMAIN_MAX + 1 + IDENTIFIER_MAX, &place, attribute::name, capacity);
    if old.is_none_or(|old| !same(&old["taints"], &device["taints"])) {
        let place = path.child("taints");
        each(errors, device.list("taints"), TAINTS_MAX, &place, |errors, own, path| {
            taint::taint(errors, own, None, path);
        });
    }
    let (consumed, place) = (device.list("consumesCounters"), path.child("consumesCounters"));
    each_once(errors, consumed, CONSUMPTIONS_MAX, &place, |own| own.text("counterSet"), consumption);
    if own_place {
        device_place(errors, device, path);
    } else if ["nodeName", "nodeSelector", "allNodes"].iter().any(|key| device.has(key)) {
        let why = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to \
                   true in the ResourceSlice spec";
        errors.push(Error::invalid(path, &Value::Null, why));
    }
    binding_conditions(errors, device, path);
    node_resources(errors, device, &path.child("nodeAllocatableResourceMappings"));
}

fn totals(errors: &mut ErrorList, device: &Value, path: &Path<'_>) {
    let entries = device.entries("attributes").count() + device.entries("capacity").count();
    if entries > ENTRIES_MAX {
        let why = format!("the total number of attributes and capacities must not exceed {ENTRIES_MAX}");
        errors.push(Error::invalid(path, entries, why));
    }
    let values: usize = device.entries("attributes").map(|(_, own)| attribute::values(own)).sum();
    if values > VALUES_MAX {
        let why = format!("the total number of attribute values must not exceed {VALUES_MAX}");
        errors.push(Error::invalid(path, values, why));
    }
}

/// The entries of a map: complaints about a key stand at the map, those about its value at the entry.
fn map(
    errors: &mut ErrorList,
    holder: &Value,
    key: &str,
    shown_max: usize,
    path: &Path<'_>,
    check_key: impl Fn(&mut ErrorList, &str, &Path<'_>),
    check_value: impl Fn(&mut ErrorList, &Value, &Path<'_>),
) {
    for (name, value) in holder.entries(key) {
        check_key(errors, name, path);
        check_value(errors, value, &path.key(&shortened(name, shown_max)));
    }
}

/// A key as paths show it: what is too long lacks its middle.
fn shortened(key: &str, max: usize) -> String {
    const ELLIPSIS: &str = "...";
    if key.len() <= max {
        return key.into();
    }
    let left = max - ELLIPSIS.len();
    let bytes = key.as_bytes();
    let ends = [&bytes[..left.div_ceil(2)], ELLIPSIS.as_bytes(), &bytes[bytes.len() - left / 2..]];
    String::from_utf8_lossy(&ends.concat()).into_owned()
}

/// Counters by their names; any amount is good.
pub(super) fn counters(errors: &mut ErrorList, holder: &Value, path: &Path<'_>) {
    let path = path.child("counters");
    match holder.entries("counters").count() {
        0 => errors.push(Error::required(&path, "")),
        count if count > COUNTERS_MAX => errors.push(Error::too_many(&path, count, COUNTERS_MAX)),
        _ => map(errors, holder, "counters", LABEL_MAX, &path, label, |_, _, _| {}),
    }
}

fn consumption(errors: &mut ErrorList, consumption: &Value, path: &Path<'_>) {
    required_label(errors, consumption.text("counterSet"), &path.child("counterSet"));
    counters(errors, consumption, path);
}

/// On which nodes the device is; said in one way.
fn device_place(errors: &mut ErrorList, device: &Value, path: &Path<'_>) {
    let mut set = Vec::new();
    match device.maybe_text("nodeName") {
        Some("") => errors.push(Error::invalid(&path.child("nodeName"), "", "must not be empty")),
        Some(name) => {
            set.push("`nodeName`");
            node_name(errors, name, &path.child("nodeName"));
        }
        None => {}
    }
    if let Some(selector) = device.maybe("nodeSelector") {
        set.push("`nodeSelector`");
        node_selector(errors, selector, &path.child("nodeSelector"));
    }
    match device.maybe_truth("allNodes") {
        Some(true) => set.push("`allNodes`"),
        Some(false) => {
            errors.push(Error::invalid(
                &path.child("allNodes"),
                false,
                "must be either unset or set to true",
            ));
        }
        None => {}
    }
    complain_about_places(errors, &set, ONE_PLACE, ONE_PLACE, path);
}

/// Conditions that a claim waits for, or that make it give up, before a pod is bound: both or none.
pub(super) fn binding_conditions(errors: &mut ErrorList, holder: &Value, path: &Path<'_>) {
    const GOOD: &str = "bindingConditions";
    const BAD: &str = "bindingFailureConditions";
    let (good, bad) = (holder.list(GOOD), holder.list(BAD));
    let (good_path, bad_path) = (path.child(GOOD), path.child(BAD));
    for (list, path) in [(good, &good_path), (bad, &bad_path)] {
        each(errors, list, BINDING_CONDITIONS_MAX, path, |errors, name, path| {
            label_name(errors, item_text(name), path);
        });
    }
    for (index, name) in good.iter().enumerate().filter(|(index, name)| good[..*index].contains(name)) {
        errors.push(Error::duplicate(&good_path.index(index), name));
    }
    for (index, name) in bad.iter().enumerate() {
        if bad[..index].contains(name) {
            errors.push(Error::duplicate(&bad_path.index(index), name));
        }
        if good.contains(name) {
            let why = "bindingFailureConditions must not overlap with bindingConditions";
            errors.push(Error::invalid(&bad_path.index(index), name, why));
        }
    }
    if good.is_empty() && !bad.is_empty() {
        let why = "bindingConditions are required to use bindingFailureConditions";
        errors.push(Error::invalid(&good_path, &holder[GOOD], why));
    }
    if bad.is_empty() && !good.is_empty() {
        let why = "bindingFailureConditions are required to use bindingConditions";
        errors.push(Error::invalid(&bad_path, &holder[BAD], why));
    }
}

/// What the device takes of its node's own resources.
fn node_resources(errors: &mut ErrorList, device: &Value, path: &Path<'_>) {
    for (resource, mapping) in device.entries("nodeAllocatableResourceMappings") {
        let path = path.key(resource);
        if !is_native(resource) {
            errors.push(Error::invalid(&path, resource, "must be a node allocatable resource name"));
        }
        let (factor, key) = (mapping.maybe("allocationMultiplier"), mapping.maybe_text("capacityKey"));
        if factor.is_none() && key.is_none() {
            let why = "at least one of allocationMultiplier or capacityKey must be set";
            errors.push(Error::invalid(&path, "", why));
        }
        if let Some(factor) = factor.and_then(quantity).filter(|factor| factor.sign() <= 0) {
            let path = path.child("allocationMultiplier");
            errors.push(Error::invalid(&path, factor.to_string(), "must be positive"));
        }
        match key {
            Some("") => {
                let why = "capacityKey must not be an empty string";
                errors.push(Error::invalid(&path.child("capacityKey"), "", why));
            }
            Some(key) if device.entries("capacity").all(|(own, _)| own != key) => {
                errors.push(Error::not_found(&path.child("capacityKey"), key));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    fn complaints(device: Value, own_place: bool) -> Vec<String> {
        let mut errors = ErrorList::new();
        check(&mut errors, &device, None, own_place, &Path::root("d"));
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_good_device_passes() {
        let device = json!({
            "name": "gpu-0",
            "attributes": {"model": {"string": "x"}, "example.com/driverVersion": {"version": "1.0.0"}},
            "capacity": {"memory": {"value": "80Gi"}},
            "taints": [{"key": "example.com/broken", "effect": "NoExecute"}],
            "consumesCounters": [{"counterSet": "set", "counters": {"memory": {"value": "1"}}}],
            "bindingConditions": ["ready"], "bindingFailureConditions": ["failed"],
        });
        assert_eq!(complaints(device, false), Vec::<String>::new());
    }

    #[test]
    fn what_is_wrong_with_a_device_is_said_at_its_place() {
        let device = json!({
            "name": "GPU",
            "attributes": {"1a": {}},
            "capacity": {"memory": {"value": "80Gi", "requestPolicy": {}}},
            "taints": [{"key": "k"}],
            "consumesCounters": [{}],
            "nodeName": "n",
            "bindingConditions": ["ready", "ready"], "bindingFailureConditions": ["ready"],
            "nodeAllocatableResourceMappings": {"example.com/x": {"capacityKey": "nothing"}},
        });
        let found = complaints(device, false);
        let starts: Vec<&str> =
            found.iter().map(|text| text.split(": ").next().unwrap_or_default()).collect();
        assert_eq!(
            starts,
            [
                "d.name",
                "d.attributes",
                "d.attributes[1a]",
                "d.capacity[memory].requestPolicy",
                "d.taints[0].effect",
                "d.consumesCounters[0].counterSet",
                "d.consumesCounters[0].counters",
                "d",
                "d.bindingConditions[1]",
                "d.bindingFailureConditions[0]",
                "d.nodeAllocatableResourceMappings[example.com/x]",
                "d.nodeAllocatableResourceMappings[example.com/x].capacityKey",
            ]
        );
    }

    #[test]
    fn a_device_with_a_place_of_its_own_has_one() {
        assert_eq!(complaints(json!({"name": "a"}), true), [format!("d: Required value: {ONE_PLACE}")]);
        let two = json!({"name": "a", "nodeName": "n", "allNodes": true});
        assert_eq!(
            complaints(two, true),
            [format!("d: Invalid value: \"{{`nodeName`, `allNodes`}}\": {ONE_PLACE}")]
        );
    }

    #[test]
    fn devices_have_room_for_so_much() {
        let attributes: apimachinery::Map =
            (0..33).map(|n| (format!("a{n}").into(), json!({"ints": [1, 2]}))).collect();
        let found = complaints(json!({"name": "a", "attributes": Value::Object(attributes)}), false);
        assert_eq!(
            found,
            [
                "d: Invalid value: 33: the total number of attributes and capacities must not exceed 32",
                "d: Invalid value: 66: the total number of attribute values must not exceed 48",
            ]
        );
        assert_eq!(shortened(&"k".repeat(100), 16), "kkkkkkk...kkkkkk");
    }
}
