//! `resource.k8s.io/v1beta1` and what came after it: what later became structs of their own was spread over their owner.

use apimachinery::{Map, Value};

/// What a request for exactly one kind of device says; in the old version beside the request's name.
const EXACTLY: [&str; 7] =
    ["deviceClassName", "selectors", "allocationMode", "count", "adminAccess", "tolerations", "capacity"];

/// Turns a tree of a later version into `v1beta1`.
pub fn to_v1beta1(value: &mut Value) {
    each_request(value, |request| {
        if let Some(Value::Object(exactly)) = request.remove("exactly") {
            exactly.into_iter().for_each(|(key, field)| {
                request.insert(key, field);
            });
        }
        // Go always writes it.
        request.get_or_insert_with("deviceClassName", || Value::from(""));
    });
    each_device(value, |device| {
        let name = device.remove("name");
        let basic = std::mem::take(device);
        if let Some(name) = name {
            device.insert("name", name);
        }
        device.insert("basic", Value::Object(basic));
    });
}

/// Turns a `v1beta1` tree into a later version.
pub fn from_v1beta1(value: &mut Value) {
    each_request(value, |request| {
        if request.get("deviceClassName").and_then(Value::as_str) == Some("") {
            request.remove("deviceClassName");
        }
        let mut exactly = Map::new();
        for key in EXACTLY {
            if let Some(field) = request.remove(key) {
                exactly.insert(key, field);
            }
        }
        if !exactly.is_empty() {
            exactly.get_or_insert_with("deviceClassName", || Value::from(""));
            request.insert("exactly", Value::Object(exactly));
        }
    });
    each_device(value, |device| {
        if let Some(Value::Object(basic)) = device.remove("basic") {
            basic.into_iter().for_each(|(key, field)| {
                device.insert(key, field);
            });
        }
    });
}

/// The requests of a claim or of a template of claims.
fn each_request(value: &mut Value, change: impl Fn(&mut Map)) {
    for path in [&["spec", "devices", "requests"][..], &["spec", "spec", "devices", "requests"]] {
        each(value, path, &change);
    }
}

/// The devices of a slice.
fn each_device(value: &mut Value, change: impl Fn(&mut Map)) {
    if value.get("kind").and_then(Value::as_str) == Some("ResourceSlice") {
        each(value, &["spec", "devices"], &change);
    }
}

fn each(value: &mut Value, path: &[&str], change: &impl Fn(&mut Map)) {
    let items = value.at_mut(path).and_then(Value::as_array_mut);
    items.into_iter().flatten().filter_map(Value::as_object_mut).for_each(change);
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;

    #[test]
    fn requests_and_devices_read_the_same_in_both_versions() {
        let cases = [
            (
                json!({"kind": "ResourceClaim", "spec": {"devices": {"requests": [
                    {"name": "a", "exactly": {"deviceClassName": "c", "count": 2}},
                    {"name": "b", "firstAvailable": [{"name": "x", "deviceClassName": "c"}]}
                ]}}}),
                json!({"kind": "ResourceClaim", "spec": {"devices": {"requests": [
                    {"name": "a", "deviceClassName": "c", "count": 2},
                    {"name": "b", "deviceClassName": "", "firstAvailable": [{"name": "x", "deviceClassName": "c"}]}
                ]}}}),
            ),
            (
                json!({"kind": "ResourceClaimTemplate", "spec": {"spec": {"devices": {"requests": [
                    {"name": "a", "exactly": {"deviceClassName": "c"}}
                ]}}}}),
                json!({"kind": "ResourceClaimTemplate", "spec": {"spec": {"devices": {"requests": [
                    {"name": "a", "deviceClassName": "c"}
                ]}}}}),
            ),
            (
                json!({"kind": "ResourceSlice", "spec": {"devices": [{"name": "d", "attributes": {"a": {"int": 1}}}]}}),
                json!({"kind": "ResourceSlice", "spec": {"devices": [{"name": "d", "basic": {"attributes": {"a": {"int": 1}}}}]}}),
            ),
        ];
        for (new, old) in cases {
            let mut value = new.clone();
            to_v1beta1(&mut value);
            assert_eq!(value, old);
            from_v1beta1(&mut value);
            assert_eq!(value, new);
        }
    }
}
