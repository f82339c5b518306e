//! What a claim asks for.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use crate::validation::fields::{Fields, immutable, invalid_each};
use crate::validation::text;

const REQUESTS_MAX: usize = 32;
const CONSTRAINTS_MAX: usize = 32;
const CONFIGURATIONS_MAX: usize = 32;
const SELECTORS_MAX: usize = 32;
const ALTERNATIVES_MAX: usize = 8;

const ONE_FORM: &str = "exactly one of `exactly` or `firstAvailable` is required";
const A_REQUEST: &str =
    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";

pub(super) fn unchanged(new: &Value, old: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    immutable(&mut errors, new, old, "spec", &Path::root("spec"));
    errors
}

/// A claim's spec at `root`.
pub(super) fn spec(spec: &Value, root: &str) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::root(root);
    let path = path.child("devices");
    let devices = &spec["devices"];
    let names = names(devices);
    let requests = devices.list("requests");
    // Older versions of the API have no `exactly`: their requests are what `exactly` holds.
    let newest = requests.iter().all(|request| !request.has("deviceClassName"));
    let place = path.child("requests");
    if newest && fits(&mut errors, requests, REQUESTS_MAX, &place) {
        for (index, one) in requests.iter().enumerate() {
            request(&mut errors, one, &place.index(index));
        }
        unique(&mut errors, requests.iter().map(|request| request.text("name")), &place);
    }
    let place = path.child("constraints");
    if fits(&mut errors, devices.list("constraints"), CONSTRAINTS_MAX, &place) {
        for (index, constraint) in devices.list("constraints").iter().enumerate() {
            let place = place.index(index);
            references(&mut errors, constraint, &names, &place);
            let attribute = ["matchAttribute", "distinctAttribute"]
                .into_iter()
                .find_map(|key| Some((key, constraint.maybe_text(key)?)));
            match attribute {
                Some((key, name)) => attribute_name(&mut errors, name, &place.child(key)),
                None => {
                    let why = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple \
                               fields are set";
                    errors.push(Error::required(&place, why));
                }
            }
        }
    }
    let place = path.child("config");
    if fits(&mut errors, devices.list("config"), CONFIGURATIONS_MAX, &place) {
        for (index, config) in devices.list("config").iter().enumerate() {
            let place = place.index(index);
            references(&mut errors, config, &names, &place);
            match config.maybe("opaque") {
                None => errors.push(Error::required(&place.child("opaque"), "")),
                Some(opaque) => {
                    let place = place.child("opaque");
                    driver(&mut errors, opaque.text("driver"), &place.child("driver"));
                    parameters(&mut errors, opaque, &place.child("parameters"));
                }
            }
        }
    }
    errors
}

/// Whether a list is short enough to be looked into.
fn fits(errors: &mut ErrorList, list: &[Value], max: usize, path: &Path<'_>) -> bool {
    if list.len() > max {
        errors.push(Error::too_many(path, list.len(), max));
    }
    list.len() <= max
}

fn unique<'a>(errors: &mut ErrorList, names: impl Iterator<Item = &'a str>, path: &Path<'_>) {
    let mut seen = Vec::new();
    for (index, name) in names.enumerate() {
        if seen.contains(&name) {
            errors.push(Error::duplicate(&path.index(index), name));
        }
        seen.push(name);
    }
}

/// The names by which requests, and alternatives within them, can be referred to.
fn names(devices: &Value) -> Vec<String> {
    let mut names = Vec::new();
    for request in devices.list("requests") {
        let name = request.text("name");
        names.push(name.to_owned());
        let alternatives = request.list("firstAvailable").iter();
        names.extend(alternatives.map(|alternative| format!("{name}/{}", alternative.text("name"))));
    }
    names
}

fn request(errors: &mut ErrorList, request: &Value, path: &Path<'_>) {
    let name = request.text("name");
    required_label(errors, name, &path.child("name"));
    let alternatives = request.list("firstAvailable");
    match (request.maybe("exactly"), alternatives.is_empty()) {
        (None, true) => errors.push(Error::required(path, ONE_FORM)),
        (Some(_), false) => {
            let why = format!("{ONE_FORM}, but multiple fields are set");
            errors.push(Error::invalid(path, &Value::Null, why));
        }
        (Some(exactly), true) => devices(errors, exactly, &path.child("exactly")),
        (None, false) => {
            let place = path.child("firstAvailable");
            if !fits(errors, alternatives, ALTERNATIVES_MAX, &place) {
                return;
            }
            for (index, alternative) in alternatives.iter().enumerate() {
                let place = place.index(index);
                required_label(errors, alternative.text("name"), &place.child("name"));
                devices(errors, alternative, &place);
            }
            unique(errors, alternatives.iter().map(|own| own.text("name")), &place);
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
    fits(errors, request.list("selectors"), SELECTORS_MAX, &path.child("selectors"));
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

fn required_label(errors: &mut ErrorList, name: &str, path: &Path<'_>) {
    if name.is_empty() {
        errors.push(Error::required(path, ""));
    } else {
        invalid_each(errors, path, name, text::dns1123_label(name));
    }
}

/// The requests that a constraint or a configuration is about.
fn references(errors: &mut ErrorList, holder: &Value, names: &[String], path: &Path<'_>) {
    let place = path.child("requests");
    let list = holder.list("requests");
    if !fits(errors, list, REQUESTS_MAX, &place) {
        return;
    }
    let texts = || list.iter().map(|name| name.as_str().unwrap_or_default());
    for (index, name) in texts().enumerate() {
        let place = place.index(index);
        let segments: Vec<&str> = name.split('/').collect();
        if segments.len() > 2 {
            errors.push(Error::invalid(&place, name, A_REQUEST));
            continue;
        }
        segments.iter().for_each(|segment| required_label(errors, segment, &place));
        if !names.iter().any(|own| own == name) {
            errors.push(Error::invalid(&place, name, A_REQUEST));
        }
    }
    unique(errors, texts(), &place);
}

/// A name with the domain of the driver that defines it.
fn attribute_name(errors: &mut ErrorList, name: &str, path: &Path<'_>) {
    if !name.contains('/') {
        let why = "a fully qualified name must be a domain and a name separated by a slash";
        errors.push(Error::invalid(path, name, why));
    }
}

pub(super) fn driver(errors: &mut ErrorList, name: &str, path: &Path<'_>) {
    const NAME_MAX: usize = 63;
    if name.is_empty() {
        errors.push(Error::required(path, ""));
        return;
    }
    if name.len() > NAME_MAX {
        errors.push(Error::too_long(path, NAME_MAX));
    }
    let lower = name.to_lowercase();
    invalid_each(errors, path, name, text::dns1123_subdomain(&lower));
}

/// Settings for the driver: an object that nobody else understands.
fn parameters(errors: &mut ErrorList, opaque: &Value, path: &Path<'_>) {
    match opaque.maybe("parameters") {
        None => errors.push(Error::required(path, "")),
        Some(Value::Object(_)) => {}
        Some(_) => errors.push(Error::invalid(path, "<value omitted>", "must be a valid JSON object")),
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    fn complaints(devices: Value) -> Vec<String> {
        spec(&json!({"devices": devices}), "spec").iter().map(ToString::to_string).collect()
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
    fn what_is_asked_for_never_changes() {
        let claim = |name: &str| json!({"spec": {"devices": {"requests": [gpu(name)]}}});
        assert!(unchanged(&claim("a"), &claim("a")).is_empty());
        let errors = unchanged(&claim("b"), &claim("a"));
        assert!(errors[0].to_string().ends_with(": field is immutable"), "{}", errors[0]);
    }
}
