//! Which devices a claim got, and what is known of them.

use std::collections::HashSet;

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use super::claim::{REQUESTS_MAX, RequestNames, configuration};
use super::device::binding_conditions;
use super::{
    CONDITIONS_MAX, CONFIGURATIONS_MAX, PARAMETERS_BYTES_MAX, each, each_once, label, pool_name, raw_object,
};
use crate::kinds::core::pod::scheduling::node_selector;
use crate::kinds::core::pod::volumes::csi_driver_name;
use crate::validation::conditions;
use crate::validation::fields::{Fields, Verbatim, immutable, item_text, one_of, require};
use crate::validation::ip::check_interface_address;
use crate::validation::text::uid_form;

const CONSUMERS_MAX: usize = 256;
const ADDRESSES_MAX: usize = 16;
const INTERFACE_NAME_MAX: usize = 256;
const HARDWARE_ADDRESS_MAX: usize = 128;
/// Go shows no more of what identifies a device.
const SHOWN_DEVICE: &str = r#"{"Driver":{},"Pool":{},"Device":{},"ShareID":{}}"#;

/// Driver, pool, device and share.
type DeviceId<'v> = [&'v str; 4];

fn device_id(value: &Value) -> DeviceId<'_> {
    ["driver", "pool", "device", "shareID"].map(|key| value.text(key))
}

fn allocated(status: &Value) -> HashSet<DeviceId<'_>> {
    status["allocation"]["devices"].list("results").iter().map(device_id).collect()
}

/// Drops what is said about devices that this update takes away.
pub(super) fn forget_deallocated(new: &mut Value, old: &Value) {
    let still = allocated(&new["status"]);
    let gone: HashSet<DeviceId<'_>> =
        allocated(&old["status"]).into_iter().filter(|id| !still.contains(id)).collect();
    let devices = new["status"].list("devices");
    let kept: Vec<Value> =
        devices.iter().filter(|device| !gone.contains(&device_id(device))).cloned().collect();
    if kept.len() == devices.len() {
        return;
    }
    if kept.is_empty() {
        new.remove_at(&["status", "devices"]);
    } else {
        new.set_at(&["status", "devices"], kept);
    }
}

/// Complaints about an update of the status.
pub(super) fn update(new: &Value, old: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::root("status");
    let (status, before) = (&new["status"], &old["status"]);
    let consumers_path = path.child("reservedFor");
    let consumers = status.list("reservedFor");
    each_once(
        &mut errors,
        consumers,
        CONSUMERS_MAX,
        &consumers_path,
        |own| own.text("uid"),
        |errors, consumer, path| {
            for key in ["resource", "name", "uid"] {
                require(errors, consumer, key, path);
            }
        },
    );
    devices(&mut errors, status, &path.child("devices"));
    if !consumers.is_empty() {
        if !status.has("allocation") {
            let why = "may not be specified when `allocated` is not set";
            errors.push(Error::forbidden(&consumers_path, why));
        } else if new["metadata"].has("deletionTimestamp")
            && consumers.iter().any(|consumer| !before.list("reservedFor").contains(consumer))
        {
            let why =
                "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
            errors.push(Error::forbidden(&consumers_path, why));
        }
    }
    let place = path.child("allocation");
    match (before.maybe("allocation"), status.maybe("allocation")) {
        (Some(_), Some(_)) => immutable(&mut errors, status, before, "allocation", &place),
        (None, Some(own)) => allocation(&mut errors, own, &RequestNames::of(&new["spec"]["devices"]), &place),
        (_, None) => {}
    }
    errors
}

/// What drivers say about the devices that are allocated.
fn devices(errors: &mut ErrorList, status: &Value, path: &Path<'_>) {
    let (devices, allocated) = (status.list("devices"), allocated(status));
    for (index, device) in devices.iter().enumerate() {
        let is_allocated = allocated.contains(&device_id(device));
        self::device(errors, device, is_allocated, &path.index(index));
    }
    let mut seen = HashSet::new();
    for (index, device) in devices.iter().enumerate() {
        if !seen.insert(device_id(device)) {
            errors.push(Error::duplicate(&path.index(index), Verbatim(SHOWN_DEVICE.into())));
        }
    }
}

fn names(errors: &mut ErrorList, device: &Value, path: &Path<'_>) {
    csi_driver_name(errors, device.text("driver"), &path.child("driver"));
    pool_name(errors, device.text("pool"), &path.child("pool"));
    label(errors, device.text("device"), &path.child("device"));
}

fn share(errors: &mut ErrorList, device: &Value, path: &Path<'_>) {
    if let Some(share) = device.maybe_text("shareID") {
        for message in uid_form(share) {
            errors.push(Error::invalid(&path.child("shareID"), share, message));
        }
    }
}

fn device(errors: &mut ErrorList, device: &Value, is_allocated: bool, path: &Path<'_>) {
    names(errors, device, path);
    share(errors, device, path);
    if !is_allocated {
        let why = "must be an allocated device in the claim";
        errors.push(Error::invalid(path, Verbatim(SHOWN_DEVICE.into()), why));
    }
    let (list, place) = (device.list("conditions"), path.child("conditions"));
    if list.len() > CONDITIONS_MAX {
        errors.push(Error::too_many(&place, list.len(), CONDITIONS_MAX));
    }
    conditions::check(errors, list, &place);
    if let Some(data) = device.get("data").filter(|data| !data.is_null()) {
        raw_object(errors, Some(data), PARAMETERS_BYTES_MAX, &path.child("data"));
    }
    if let Some(network) = device.maybe("networkData") {
        self::network(errors, network, &path.child("networkData"));
    }
}

fn network(errors: &mut ErrorList, network: &Value, path: &Path<'_>) {
    for (key, max) in [("interfaceName", INTERFACE_NAME_MAX), ("hardwareAddress", HARDWARE_ADDRESS_MAX)] {
        if network.text(key).len() > max {
            errors.push(Error::too_long(&path.child(key), max));
        }
    }
    let path = path.child("ips");
    each_once(errors, network.list("ips"), ADDRESSES_MAX, &path, item_text, |errors, address, path| {
        check_interface_address(errors, item_text(address), path);
    });
}

/// What the scheduler decided.
fn allocation(errors: &mut ErrorList, allocation: &Value, requests: &RequestNames, path: &Path<'_>) {
    let (devices, place) = (&allocation["devices"], path.child("devices"));
    each(errors, devices.list("results"), REQUESTS_MAX, &place.child("results"), |errors, result, path| {
        requests.reference(errors, result.text("request"), &path.child("request"));
        names(errors, result, path);
        binding_conditions(errors, result, path);
        share(errors, result, path);
    });
    let (configs, place) = (devices.list("config"), place.child("config"));
    // Those of the claim and those of its classes.
    each(errors, configs, 2 * CONFIGURATIONS_MAX, &place, |errors, config, path| {
        one_of(errors, config.text("source"), &path.child("source"), &["FromClaim", "FromClass"]);
        requests.references(errors, config, path);
        configuration(errors, config, path);
    });
    if let Some(selector) = allocation.maybe("nodeSelector") {
        node_selector(errors, selector, &path.child("nodeSelector"));
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    fn claim(status: Value) -> Value {
        json!({"metadata": {}, "spec": {"devices": {"requests": [{"name": "gpu"}]}}, "status": status})
    }

    fn result() -> Value {
        json!({"request": "gpu", "driver": "d.example.com", "pool": "p", "device": "gpu-0"})
    }

    fn complaints(new: &Value, old: &Value) -> Vec<String> {
        update(new, old).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_claim_is_allocated_once_and_then_reserved() {
        let pod = json!({"resource": "pods", "name": "p", "uid": "1"});
        let allocation = json!({"devices": {"results": [result()]}});
        let (empty, done) =
            (claim(json!({})), claim(json!({"allocation": allocation, "reservedFor": [pod]})));
        assert_eq!(complaints(&done, &empty), Vec::<String>::new());
        assert_eq!(
            complaints(&claim(json!({"reservedFor": [pod]})), &empty),
            ["status.reservedFor: Forbidden: may not be specified when `allocated` is not set"]
        );
        let other = claim(json!({"allocation": {"devices": {"results": []}}}));
        let found = complaints(&other, &done);
        assert!(found.len() == 1 && found[0].ends_with("field is immutable"), "{found:?}");
        let mut going = done.clone();
        going.set_at(&["metadata", "deletionTimestamp"], "2026-01-01T00:00:00Z");
        going.set_at(&["status", "reservedFor"], json!([pod, {"resource": "pods", "name": "q", "uid": "2"}]));
        assert_eq!(
            complaints(&going, &done),
            ["status.reservedFor: Forbidden: new entries may not be added while `deallocationRequested` or \
                 `deletionTimestamp` are set"]
        );
    }

    #[test]
    fn an_allocation_is_of_what_was_asked_for() {
        let mut bad = result();
        bad.set_at(&["request"], "nic");
        bad.set_at(&["shareID"], "X");
        let allocation = json!({"devices": {"results": [bad], "config": [{"source": "Elsewhere"}]}});
        assert_eq!(
            complaints(&claim(json!({"allocation": allocation})), &claim(json!({}))),
            [
                "status.allocation.devices.results[0].request: Invalid value: \"nic\": must be the name of a request \
                 in the claim or the name of a request and a subrequest separated by '/'",
                "status.allocation.devices.results[0].shareID: Invalid value: \"X\": error validating uid: invalid \
                 UUID length: 1",
                "status.allocation.devices.config[0].source: Unsupported value: \"Elsewhere\": supported values: \
                 \"FromClaim\", \"FromClass\"",
                "status.allocation.devices.config[0].opaque: Required value",
            ]
        );
    }

    #[test]
    fn drivers_speak_of_allocated_devices() {
        let allocation = json!({"devices": {"results": [result()]}});
        let of = |device: &str, ips: Value| json!({"driver": "d.example.com", "pool": "p", "device": device, "networkData": {"ips": ips}});
        let status = |devices: Value| claim(json!({"allocation": allocation, "devices": devices}));
        let good = status(json!([of("gpu-0", json!(["10.9.8.7/24", "2001:db8::1/64"]))]));
        assert_eq!(complaints(&good, &good), Vec::<String>::new());
        let bad = status(json!([of("gpu-1", json!(["10.9.8.7", "10.09.8.7/24"]))]));
        assert_eq!(
            complaints(&bad, &good),
            [
                &format!(
                    "status.devices[0]: Invalid value: {SHOWN_DEVICE}: must be an allocated device in the claim"
                ),
                "status.devices[0].networkData.ips[0]: Invalid value: \"10.9.8.7\": must be a valid address in CIDR \
                 form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)",
                "status.devices[0].networkData.ips[1]: Invalid value: \"10.09.8.7/24\": must be in canonical form \
                 (\"10.9.8.7/24\")",
            ]
        );
    }

    #[test]
    fn what_was_said_of_a_device_goes_with_it() {
        let allocation = json!({"devices": {"results": [result()]}});
        let device = json!({"driver": "d.example.com", "pool": "p", "device": "gpu-0"});
        let old = claim(json!({"allocation": allocation, "devices": [device]}));
        let mut new = claim(json!({"devices": [device]}));
        forget_deallocated(&mut new, &old);
        assert_eq!(new["status"], json!({}));
        let mut same = old.clone();
        forget_deallocated(&mut same, &old);
        assert_eq!(same, old);
    }
}
