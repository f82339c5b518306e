//! Where the devices of a slice are, and which pool they belong to.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use super::claim;
use crate::validation::fields::{Fields, immutable, invalid_each};
use crate::validation::text;

const POOL_NAME_MAX: usize = 253;
const DEVICES_MAX: usize = 128;

const ONE_PLACE: &str =
    "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";

pub(super) fn spec(spec: &Value, old: Option<&Value>) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::root("spec");
    claim::driver(&mut errors, spec.text("driver"), &path.child("driver"));
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
    let devices = spec.list("devices");
    let place = path.child("devices");
    if devices.len() > DEVICES_MAX {
        errors.push(Error::too_many(&place, devices.len(), DEVICES_MAX));
        return errors;
    }
    let mut seen = std::collections::HashSet::new();
    for (index, device) in devices.iter().enumerate() {
        if !seen.insert(device.text("name")) {
            errors.push(Error::duplicate(&place.index(index), device.text("name")));
        }
    }
    errors
}

fn pool(errors: &mut ErrorList, pool: &Value, path: &Path<'_>) {
    let (name, name_path) = (pool.text("name"), path.child("name"));
    if name.is_empty() {
        errors.push(Error::required(&name_path, ""));
    } else {
        if name.len() > POOL_NAME_MAX {
            errors.push(Error::too_long(&name_path, POOL_NAME_MAX));
        }
        for part in name.split('/') {
            invalid_each(errors, &name_path, part, text::dns1123_subdomain(part));
        }
    }
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

/// On which nodes the devices are; said in one way.
fn place(errors: &mut ErrorList, spec: &Value, path: &Path<'_>) {
    let mut set = Vec::new();
    if let Some(node) = spec.maybe_text("nodeName") {
        let path = path.child("nodeName");
        if node.is_empty() {
            errors.push(Error::invalid(&path, node, "must be either unset or set to a non-empty string"));
        } else {
            set.push("`nodeName`");
            invalid_each(errors, &path, node, text::dns1123_subdomain(node));
        }
    }
    if let Some(selector) = spec.maybe("nodeSelector") {
        set.push("`nodeSelector`");
        if selector.list("nodeSelectorTerms").len() != 1 {
            let path = path.child("nodeSelector");
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
    match set.len() {
        0 => errors.push(Error::required(path, ONE_PLACE)),
        1 => {}
        _ => {
            let why = format!("{ONE_PLACE}, but multiple fields are set");
            errors.push(Error::invalid(path, format!("{{{}}}", set.join(", ")), why));
        }
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
