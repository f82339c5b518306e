//! Where the devices of a slice are, and which pool they belong to.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use super::{attribute, device, each_once, name, pool_name, required_label};
use crate::kinds::core::pod::scheduling::node_selector;
use crate::kinds::core::pod::volumes::csi_driver_name;
use crate::validation::fields::{Fields, immutable, invalid_each};
use crate::validation::text;

const DEVICES_MAX: usize = 128;
/// Of devices with taints, counters or lists, which take more room.
const LARGE_DEVICES_MAX: usize = 64;
const COUNTER_SETS_MAX: usize = 8;

const ONE_PLACE: &str =
    "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";

pub(super) fn spec(spec: &Value, old: Option<&Value>) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::root("spec");
    csi_driver_name(&mut errors, spec.text("driver"), &path.child("driver"));
    pool(&mut errors, &spec["pool"], &path.child("pool"));
    if let Some(old) = old {
        let pool_path = path.child("pool");
        immutable(&mut errors, &spec["pool"], &old["pool"], "name", &pool_path.child("name"));
        for key in ["driver", "nodeName"] {
            immutable(&mut errors, spec, old, key, &path.child(key));
        }
    }
    place(&mut errors, spec, &path);
    if spec.has("sharedCounters") && spec.has("devices") {
        errors.push(Error::invalid(&path, "", "only one of `sharedCounters` or `devices` is allowed"));
    }
    let before = |name: &str| old?.list("devices").iter().find(|own| own.text("name") == name);
    let own_place = spec.truth("perDeviceNodeSelection");
    each_once(
        &mut errors,
        spec.list("devices"),
        devices_max(spec),
        &path.child("devices"),
        name,
        |errors, own, path| device::check(errors, own, before(own.text("name")), own_place, path),
    );
    let place = path.child("sharedCounters");
    each_once(&mut errors, spec.list("sharedCounters"), COUNTER_SETS_MAX, &place, name, counter_set);
    errors
}

fn devices_max(spec: &Value) -> usize {
    let is_large = |device: &Value| {
        !device.list("taints").is_empty()
            || !device.list("consumesCounters").is_empty()
            || device.entries("attributes").any(|(_, own)| attribute::is_list(own))
    };
    if spec.list("devices").iter().any(is_large) { LARGE_DEVICES_MAX } else { DEVICES_MAX }
}

fn counter_set(errors: &mut ErrorList, set: &Value, path: &Path<'_>) {
    required_label(errors, set.text("name"), &path.child("name"));
    device::counters(errors, set, path);
}

fn pool(errors: &mut ErrorList, pool: &Value, path: &Path<'_>) {
    pool_name(errors, pool.text("name"), &path.child("name"));
    let (slices, generation) = (pool.int("resourceSliceCount"), pool.int("generation"));
    if slices <= 0 {
        let path = path.child("resourceSliceCount");
        errors.push(Error::invalid(&path, slices, "must be greater than zero"));
    }
    if generation < 0 {
        let path = path.child("generation");
        errors.push(Error::invalid(&path, generation, "must be greater than or equal to zero"));
    }
}

pub(super) fn node_name(errors: &mut ErrorList, name: &str, path: &Path<'_>) {
    invalid_each(errors, path, name, text::dns1123_subdomain(name));
}

/// On which nodes the devices are; said in one way.
fn place(errors: &mut ErrorList, spec: &Value, path: &Path<'_>) {
    let mut set = Vec::new();
    if let Some(node) = spec.maybe_text("nodeName") {
        let path = path.child("nodeName");
        if node.is_empty() {
            errors.push(Error::invalid(&path, node, "must be either unset or set to a non-empty string"));
        } else {
            set.push("`nodeName`");
            node_name(errors, node, &path);
        }
    }
    if let Some(selector) = spec.maybe("nodeSelector") {
        set.push("`nodeSelector`");
        let path = path.child("nodeSelector");
        node_selector(errors, selector, &path);
        if selector.list("nodeSelectorTerms").len() != 1 {
            let path = path.child("nodeSelectorTerms");
            let terms = &selector["nodeSelectorTerms"];
            errors.push(Error::invalid(&path, terms, "must have exactly one node selector term"));
        }
    }
    for (key, shown) in [("allNodes", "`allNodes`"), ("perDeviceNodeSelection", "`perDeviceNodeSelection`")] {
        match spec.maybe_truth(key) {
            Some(true) => set.push(shown),
            Some(false) => {
                errors.push(Error::invalid(&path.child(key), false, "must be either unset or set to true"));
            }
            None => {}
        }
    }
    let several = format!("{ONE_PLACE}, but multiple fields are set");
    complain_about_places(errors, &set, ONE_PLACE, &several, path);
}

/// Complains unless a place is said in exactly one way.
pub(super) fn complain_about_places(
    errors: &mut ErrorList,
    set: &[&str],
    none: &str,
    several: &str,
    path: &Path<'_>,
) {
    match set.len() {
        0 => errors.push(Error::required(path, none)),
        1 => {}
        _ => errors.push(Error::invalid(path, format!("{{{}}}", set.join(", ")), several)),
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    fn slice() -> Value {
        json!({"driver": "d.example.com", "nodeName": "n",
            "pool": {"name": "p", "resourceSliceCount": 1, "generation": 1}, "devices": [{"name": "a"}]})
    }

    fn complaints(new: &Value, old: Option<&Value>) -> Vec<String> {
        spec(new, old).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn devices_are_in_one_place_and_in_one_pool() {
        assert_eq!(complaints(&slice(), None), Vec::<String>::new());
        let mut bad = slice();
        bad.set_at(&["allNodes"], true);
        bad.set_at(&["pool", "resourceSliceCount"], 0);
        bad.set_at(&["devices"], json!([{"name": "a"}, {"name": "a"}]));
        assert_eq!(
            complaints(&bad, None),
            [
                "spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero",
                "spec: Invalid value: \"{`nodeName`, `allNodes`}\": exactly one of `nodeName`, `nodeSelector`, \
                 `allNodes`, `perDeviceNodeSelection` is required, but multiple fields are set",
                "spec.devices[1]: Duplicate value: \"a\"",
            ]
        );
    }

    #[test]
    fn a_slice_stays_where_it_is() {
        let mut moved = slice();
        moved.set_at(&["nodeName"], "m");
        moved.set_at(&["pool", "name"], "q");
        assert_eq!(
            complaints(&moved, Some(&slice())),
            [
                "spec.pool.name: Invalid value: \"q\": field is immutable",
                "spec.nodeName: Invalid value: \"m\": field is immutable",
            ]
        );
    }
}
