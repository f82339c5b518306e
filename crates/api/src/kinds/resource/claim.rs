//! What a claim asks for.

use std::collections::HashSet;

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use super::attribute::full_name;
use super::selector::selectors;
use super::{CONFIGURATIONS_MAX, PARAMETERS_BYTES_MAX, each, each_once, label, name, raw_object, taint};
use crate::kinds::core::pod::volumes::csi_driver_name;
use crate::validation::fields::{Fields, invalid_each, item_text};
use crate::validation::text;

pub(super) const REQUESTS_MAX: usize = 32;
const CONSTRAINTS_MAX: usize = 32;
const ALTERNATIVES_MAX: usize = 8;

const ONE_FORM: &str = "exactly one of `exactly` or `firstAvailable` is required";
const A_REQUEST: &str =
    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";

/// A claim's spec.
pub(super) fn spec(spec: &Value, path: &Path<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = path.child("devices");
    let devices = &spec["devices"];
    let names = RequestNames::of(devices);
    let place = path.child("requests");
    each_once(&mut errors, devices.list("requests"), REQUESTS_MAX, &place, name, request);
    let place = path.child("constraints");
    each(&mut errors, devices.list("constraints"), CONSTRAINTS_MAX, &place, |errors, constraint, path| {
        names.references(errors, constraint, path);
        self::constraint(errors, constraint, path);
    });
    let place = path.child("config");
    each(&mut errors, devices.list("config"), CONFIGURATIONS_MAX, &place, |errors, config, path| {
        names.references(errors, config, path);
        configuration(errors, config, path);
    });
    errors
}

/// The names by which requests, and alternatives within them, can be referred to.
pub(super) struct RequestNames(HashSet<String>);

impl RequestNames {
    pub fn of(devices: &Value) -> Self {
        let mut names = HashSet::new();
        for request in devices.list("requests") {
            let name = request.text("name");
            names.insert(name.to_owned());
            let alternatives = request.list("firstAvailable").iter();
            names.extend(alternatives.map(|alternative| format!("{name}/{}", alternative.text("name"))));
        }
        Self(names)
    }

    /// The requests that a constraint or a configuration is about.
    pub fn references(&self, errors: &mut ErrorList, holder: &Value, path: &Path<'_>) {
        let path = path.child("requests");
        each_once(errors, holder.list("requests"), REQUESTS_MAX, &path, item_text, |errors, name, path| {
            self.reference(errors, item_text(name), path);
        });
    }

    pub fn reference(&self, errors: &mut ErrorList, name: &str, path: &Path<'_>) {
        if name.split('/').count() > 2 {
            errors.push(Error::invalid(path, name, A_REQUEST));
            return;
        }
        name.split('/').for_each(|segment| label(errors, segment, path));
        if !self.0.contains(name) {
            errors.push(Error::invalid(path, name, A_REQUEST));
        }
    }
}

fn request(errors: &mut ErrorList, request: &Value, path: &Path<'_>) {
    label(errors, request.text("name"), &path.child("name"));
    let alternatives = request.list("firstAvailable");
    match (request.maybe("exactly"), alternatives.is_empty()) {
        (None, true) => errors.push(Error::required(path, ONE_FORM)),
        (Some(_), false) => {
            let why = format!("{ONE_FORM}, but multiple fields are set");
            errors.push(Error::invalid(path, &Value::Null, why));
        }
        (Some(exactly), true) => devices(errors, exactly, &path.child("exactly")),
        (None, false) => {
            let path = path.child("firstAvailable");
            each_once(errors, alternatives, ALTERNATIVES_MAX, &path, name, |errors, alternative, path| {
                label(errors, alternative.text("name"), &path.child("name"));
                devices(errors, alternative, path);
            });
        }
    }
}

/// How many devices of which class.
fn devices(errors: &mut ErrorList, request: &Value, path: &Path<'_>) {
    let class = request.text("deviceClassName");
    let place = path.child("deviceClassName");
    if class.is_empty() {
        errors.push(Error::required(&place, ""));
    } else {
        invalid_each(errors, &place, class, text::dns1123_subdomain(class));
    }
    selectors(errors, request, path);
    allocation_mode(errors, request, path);
    let place = path.child("tolerations");
    for (index, toleration) in request.list("tolerations").iter().enumerate() {
        taint::toleration(errors, toleration, &place.index(index));
    }
}

fn allocation_mode(errors: &mut ErrorList, request: &Value, path: &Path<'_>) {
    let count = request.int("count");
    match request.text("allocationMode") {
        "All" if count != 0 => {
            let why = "must not be specified when allocationMode is 'All'";
            errors.push(Error::invalid(&path.child("count"), count, why));
        }
        "ExactCount" if count <= 0 => {
            errors.push(Error::invalid(&path.child("count"), count, "must be greater than zero"));
        }
        "All" | "ExactCount" => {}
        other => {
            let path = path.child("allocationMode");
            errors.push(Error::not_supported(&path, other, &["All", "ExactCount"]));
        }
    }
}

fn constraint(errors: &mut ErrorList, constraint: &Value, path: &Path<'_>) {
    let attribute = ["matchAttribute", "distinctAttribute"]
        .into_iter()
        .find_map(|key| Some((key, constraint.maybe_text(key)?)));
    match attribute {
        Some((key, name)) => full_name(errors, name, &path.child(key)),
        None => {
            let why = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields \
                       are set";
            errors.push(Error::required(path, why));
        }
    }
}

/// Settings for the driver.
pub(super) fn configuration(errors: &mut ErrorList, config: &Value, path: &Path<'_>) {
    let path = path.child("opaque");
    let Some(opaque) = config.maybe("opaque") else {
        errors.push(Error::required(&path, ""));
        return;
    };
    csi_driver_name(errors, opaque.text("driver"), &path.child("driver"));
    raw_object(errors, opaque.get("parameters"), PARAMETERS_BYTES_MAX, &path.child("parameters"));
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    fn complaints(devices: Value) -> Vec<String> {
        let errors = spec(&json!({"devices": devices}), &Path::root("spec"));
        errors.iter().map(ToString::to_string).collect()
    }

    fn gpu(name: &str) -> Value {
        json!({"name": name, "exactly": {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1}})
    }

    #[test]
    fn a_claim_asks_for_devices_in_one_form() {
        assert_eq!(complaints(json!({"requests": [gpu("a"), gpu("b")]})), Vec::<String>::new());
        assert_eq!(
            complaints(json!({"requests": [
                gpu("a"),
                gpu("a"),
                {"name": "c"},
                {"name": "d", "exactly": {}, "firstAvailable": [{}]},
                {"name": "e", "exactly": {"deviceClassName": "gpu", "allocationMode": "All", "count": 1}},
                {"name": "f", "firstAvailable": [{"name": "x", "deviceClassName": "gpu", "allocationMode": "Some"}]},
            ]})),
            [
                "spec.devices.requests[2]: Required value: exactly one of `exactly` or `firstAvailable` is required",
                "spec.devices.requests[3]: Invalid value: null: exactly one of `exactly` or `firstAvailable` is \
                 required, but multiple fields are set",
                "spec.devices.requests[4].exactly.count: Invalid value: 1: must not be specified when allocationMode \
                 is 'All'",
                "spec.devices.requests[5].firstAvailable[0].allocationMode: Unsupported value: \"Some\": supported \
                 values: \"All\", \"ExactCount\"",
                "spec.devices.requests[1]: Duplicate value: \"a\"",
            ]
        );
    }

    #[test]
    fn constraints_and_settings_are_about_requests_that_there_are() {
        assert_eq!(
            complaints(json!({
                "requests": [gpu("a")],
                "constraints": [
                    {"requests": ["a"], "matchAttribute": "example.com/numa"},
                    {"requests": ["b"], "matchAttribute": "numa"},
                ],
                "config": [{"requests": ["a/b/c"]}, {"opaque": {"driver": "d.example.com", "parameters": {}}}],
            })),
            [
                "spec.devices.constraints[1].requests[0]: Invalid value: \"b\": must be the name of a request in the \
                 claim or the name of a request and a subrequest separated by '/'",
                "spec.devices.constraints[1].matchAttribute: Invalid value: \"numa\": a fully qualified name must be a \
                 domain and a name separated by a slash",
                "spec.devices.config[0].requests[0]: Invalid value: \"a/b/c\": must be the name of a request in the \
                 claim or the name of a request and a subrequest separated by '/'",
                "spec.devices.config[0].opaque: Required value",
            ]
        );
    }

    #[test]
    fn selectors_and_tolerations_of_requests_are_judged() {
        let mut request = gpu("a");
        request.set_at(&["exactly", "selectors"], json!([{"cel": {"expression": "device.driver"}}, {}]));
        request.set_at(
            &["exactly", "tolerations"],
            json!([{"operator": "Exists", "value": "v"}, {"effect": "x"}]),
        );
        assert_eq!(
            complaints(json!({"requests": [request]})),
            [
                "spec.devices.requests[0].exactly.selectors[0].cel.expression: Invalid value: \"device.driver\": must \
                 evaluate to bool or the unknown type, not string",
                "spec.devices.requests[0].exactly.selectors[1].cel: Required value",
                "spec.devices.requests[0].exactly.tolerations[0].value: Invalid value: \"v\": must be empty for \
                 operator `Exists`",
                "spec.devices.requests[0].exactly.tolerations[1].operator: Required value",
                "spec.devices.requests[0].exactly.tolerations[1].effect: Unsupported value: \"x\": supported values: \
                 \"NoExecute\", \"NoSchedule\", \"None\"",
            ]
        );
    }
}
