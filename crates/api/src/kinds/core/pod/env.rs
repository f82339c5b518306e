//! Environment variables of a container and the references through which they and volumes read a pod.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::{Quantity, Value};

use super::volumes::no_backsteps;
use crate::validation::fields::{Fields, invalid_each, require};
use crate::validation::{resources, text};

/// Fields of a pod that a variable may hold.
const FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// Fields of a pod that exist for the downward API, whether or not a variable or volume may hold them.
const KNOWN: [&str; 14] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const BYTE_DIVISORS: [&str; 13] =
    ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

pub fn env(errors: &mut ErrorList, variables: &[Value], path: &Path<'_>) {
    for (index, variable) in variables.iter().enumerate() {
        let path = path.index(index);
        let name = variable.text("name");
        if name.is_empty() {
            errors.push(Error::required(&path.child("name"), ""));
        } else {
            invalid_each(errors, &path.child("name"), name, text::env_var_name(name));
        }
        if let Some(from) = variable.maybe("valueFrom") {
            value_from(errors, from, !variable.text("value").is_empty(), &path.child("valueFrom"));
        }
    }
}

fn value_from(errors: &mut ErrorList, from: &Value, has_value: bool, path: &Path<'_>) {
    let mut sources = 0;
    if let Some(reference) = from.maybe("fieldRef") {
        sources += 1;
        field_ref(errors, reference, &FIELDS, &path.child("fieldRef"));
    }
    if let Some(reference) = from.maybe("resourceFieldRef") {
        sources += 1;
        resource_field_ref(errors, reference, false, &path.child("resourceFieldRef"));
    }
    for key in ["configMapKeyRef", "secretKeyRef"] {
        if let Some(reference) = from.maybe(key) {
            sources += 1;
            key_ref(errors, reference, &path.child(key));
        }
    }
    if let Some(reference) = from.maybe("fileKeyRef") {
        sources += 1;
        file_key_ref(errors, reference, &path.child("fileKeyRef"));
    }
    let complaint = match sources {
        0 => {
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
        }
        _ if has_value => "may not be specified when `value` is not empty",
        1 => return,
        _ => "may not have more than one field specified at a time",
    };
    errors.push(Error::invalid(path, "", complaint));
}

/// A reference to a field of the pod, `metadata.labels['key']` included.
pub fn field_ref(errors: &mut ErrorList, reference: &Value, allowed: &[&str], path: &Path<'_>) {
    let field_path = path.child("fieldPath");
    let (version, field) = (reference.text("apiVersion"), reference.text("fieldPath"));
    if !require(errors, reference, "apiVersion", path) {
        return;
    }
    if field.is_empty() {
        errors.push(Error::required(&field_path, ""));
        return;
    }
    let subscripted = subscript(field);
    let unknown = if version != "v1" {
        Some(format!("unsupported pod version: {version}"))
    } else {
        match subscripted {
            Some(("metadata.annotations" | "metadata.labels", _)) => None,
            Some(_) => Some(format!("field label does not support subscript: {field}")),
            None if field == "spec.host" || KNOWN.contains(&field) => None,
            None => Some(format!("field label not supported: {field}")),
        }
    };
    if let Some(why) = unknown {
        errors.push(Error::invalid(&field_path, field, format!("error converting fieldPath: {why}")));
        return;
    }
    match subscripted {
        Some(("metadata.annotations", key)) => {
            let key = key.to_lowercase();
            invalid_each(errors, path, &key, text::qualified_name(&key));
        }
        Some((_, key)) => invalid_each(errors, path, key, text::qualified_name(key)),
        None => {
            let field = if field == "spec.host" { "spec.nodeName" } else { field };
            if !allowed.contains(&field) {
                errors.push(Error::not_supported(&field_path, field, allowed));
            }
        }
    }
}

/// `path['key']` as path and key.
fn subscript(field: &str) -> Option<(&str, &str)> {
    let (path, key) = field.strip_suffix("']")?.split_once("['")?;
    (!path.is_empty()).then_some((path, key))
}

/// A reference to a container's requests or limits; in a volume it has to name the container.
pub fn resource_field_ref(errors: &mut ErrorList, reference: &Value, in_volume: bool, path: &Path<'_>) {
    let resource = reference.text("resource");
    let huge_pages = resource.starts_with("requests.hugepages-") || resource.starts_with("limits.hugepages-");
    if in_volume && reference.text("containerName").is_empty() {
        errors.push(Error::required(&path.child("containerName"), ""));
    } else if resource.is_empty() {
        errors.push(Error::required(&path.child("resource"), ""));
    } else if !huge_pages && !RESOURCES.contains(&resource) {
        errors.push(Error::not_supported(&path.child("resource"), resource, &RESOURCES));
    }
    let divisor =
        reference.maybe("divisor").and_then(resources::quantity).filter(|divisor| *divisor != Quantity::ZERO);
    if let Some(divisor) = divisor {
        self::divisor(errors, resource, huge_pages, divisor, path);
    }
}

fn divisor(errors: &mut ErrorList, resource: &str, huge_pages: bool, divisor: Quantity, path: &Path<'_>) {
    let text = divisor.to_string();
    let (allowed, listed, of): (&[&str], _, _) = match resource.split_once('.').map_or("", |(_, name)| name) {
        "cpu" => (&["1m", "1"], "'s values 1m and 1 are", "cpu"),
        "memory" => (&BYTE_DIVISORS, "", "memory"),
        "ephemeral-storage" => (&BYTE_DIVISORS, "", "local ephemeral storage"),
        _ if huge_pages => (&BYTE_DIVISORS, "", "hugepages"),
        _ => return,
    };
    if allowed.contains(&text.as_str()) {
        return;
    }
    let detail = if listed.is_empty() {
        format!("only divisor's values {} are supported with the {of} resource", BYTE_DIVISORS.join(", "))
    } else {
        format!("only divisor{listed} supported with the {of} resource")
    };
    errors.push(Error::invalid(&path.child("divisor"), resource, detail));
}

/// A key of a Secret or ConfigMap.
fn key_ref(errors: &mut ErrorList, reference: &Value, path: &Path<'_>) {
    let name = reference.text("name");
    invalid_each(errors, &path.child("name"), name, text::dns1123_subdomain(name));
    if require(errors, reference, "key", path) {
        let key = reference.text("key");
        invalid_each(errors, &path.child("key"), key, text::config_map_key(key));
    }
}

fn file_key_ref(errors: &mut ErrorList, reference: &Value, path: &Path<'_>) {
    if require(errors, reference, "key", path) {
        let key = reference.text("key");
        invalid_each(errors, &path.child("key"), key, text::env_var_name(key));
    }
    if require(errors, reference, "volumeName", path) {
        let name = reference.text("volumeName");
        invalid_each(errors, &path.child("volumeName"), name, text::dns1123_label(name));
    }
    if require(errors, reference, "path", path) {
        no_backsteps(errors, reference.text("path"), &path.child("path"));
    }
}

pub fn env_from(errors: &mut ErrorList, sources: &[Value], path: &Path<'_>) {
    for (index, source) in sources.iter().enumerate() {
        let own = path.index(index);
        let prefix = source.text("prefix");
        if !prefix.is_empty() {
            invalid_each(errors, &own.child("prefix"), prefix, text::env_var_name(prefix));
        }
        let mut kinds = 0;
        for key in ["configMapRef", "secretRef"] {
            let Some(reference) = source.maybe(key) else { continue };
            kinds += 1;
            let own = own.child(key);
            if require(errors, reference, "name", &own) {
                let name = reference.text("name");
                let messages = text::object_name(crate::strategy::NameRule::DnsSubdomain, name, true);
                invalid_each(errors, &own.child("name"), name, messages);
            }
        }
        // Upstream reports these at the list.
        match kinds {
            0 => errors.push(Error::invalid(path, "", "must specify one of: `configMapRef` or `secretRef`")),
            1 => {}
            _ => {
                errors.push(Error::invalid(path, "", "may not have more than one field specified at a time"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    fn complaints(variable: Value) -> Vec<String> {
        let mut errors = ErrorList::new();
        env(&mut errors, &[variable], &Path::root("env"));
        errors.into_iter().map(|error| error.to_string()).collect()
    }

    #[test]
    fn variables_are_checked() {
        let field = |path: &str| json!({"name": "A", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}});
        assert_eq!(complaints(json!({"name": "A", "value": "x"})), Vec::<String>::new());
        assert_eq!(complaints(field("metadata.labels['a.b/c']")), Vec::<String>::new());
        assert_eq!(complaints(field("spec.host")), Vec::<String>::new());
        assert_eq!(
            complaints(field("spec.nodeName['x']")),
            [
                "env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.nodeName['x']\": error converting fieldPath: field label does not support subscript: spec.nodeName['x']"
            ]
        );
        assert!(complaints(field("metadata.labels"))[0].contains("Unsupported value: \"metadata.labels\""));
        assert_eq!(
            complaints(
                json!({"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "2"}}})
            ),
            [
                "env[0].valueFrom.resourceFieldRef.divisor: Invalid value: \"limits.cpu\": only divisor's values 1m and 1 are supported with the cpu resource"
            ]
        );
        assert_eq!(
            complaints(
                json!({"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}})
            ),
            Vec::<String>::new()
        );
    }
}
