//! What is allowed in a pod but probably not meant.

use std::fmt::Write;

use apimachinery::Value;
use apimachinery::field::Path;

use super::container;
use crate::validation::fields::{Fields, item_text};
use crate::validation::{ip, resources};

/// Node labels that have a successor, with what upstream says about them.
const OLD_NODE_LABELS: [(&str, &str); 5] = [
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    (
        "beta.kubernetes.io/instance-type",
        "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead",
    ),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ),
];
const OLD_ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    (
        "security.alpha.kubernetes.io/unsafe-sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
];
/// Volume sources that no longer do anything: JSON name, name in the warning, what it says.
const OLD_SOURCES: [(&str, &str, &str); 9] = [
    ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
];
const NULL_SELECTOR: &str = "a null labelSelector results in matching no pod";

/// What there is to say about a node's label that has a successor.
pub fn old_node_label(label: &str) -> Option<&'static str> {
    OLD_NODE_LABELS.iter().find(|(old, _)| *old == label).map(|(_, why)| *why)
}

/// Warnings about a pod spec and its metadata. `prefix` is empty for pods and leads to the template otherwise.
pub fn spec(warnings: &mut Vec<String>, metadata: &Value, spec: &Value, prefix: &str) {
    let path = if prefix.is_empty() { "spec".to_owned() } else { format!("{prefix}.spec") };
    let path = Path::root(&path);
    scheduling(warnings, spec, &path);
    let annotations = if prefix.is_empty() {
        "metadata.annotations".to_owned()
    } else {
        format!("{prefix}.metadata.annotations")
    };
    for (key, message) in OLD_ANNOTATIONS {
        if metadata["annotations"].has(key) {
            warnings.push(format!("{annotations}[{key}]: {message}"));
        }
    }
    volumes(warnings, spec, &path.child("volumes"));
    references(warnings, spec, &path);
    container::visit(spec, &path, |container, path| self::container(warnings, container, path));
    ports(warnings, spec, &path);
    if spec.int("terminationGracePeriodSeconds") < 0 {
        warnings.push(format!(
            "{}: must be >= 0; negative values are invalid and will be treated as 1",
            path.child("terminationGracePeriodSeconds")
        ));
    }
}

fn old_label(label: &str) -> Option<&'static str> {
    OLD_NODE_LABELS.iter().find(|(own, _)| *own == label).map(|(_, message)| *message)
}

fn scheduling(warnings: &mut Vec<String>, spec: &Value, path: &Path<'_>) {
    for (key, _) in spec.entries("nodeSelector") {
        if let Some(message) = old_label(key) {
            warnings.push(format!("{}: {message}", path.child("nodeSelector").key(key)));
        }
    }
    let spread = path.child("topologySpreadConstraints");
    for (index, constraint) in spec.list("topologySpreadConstraints").iter().enumerate() {
        let path = spread.index(index);
        let key = constraint.text("topologyKey");
        if let Some(message) = old_label(key) {
            warnings.push(format!("{}: {key} is {message}", path.child("topologyKey")));
        }
        if !constraint.has("labelSelector") {
            warnings.push(format!("{}: {NULL_SELECTOR}", path.child("labelSelector")));
        }
    }
    let Some(affinity) = spec.maybe("affinity") else { return };
    let affinity_path = path.child("affinity");
    for kind in ["podAffinity", "podAntiAffinity"] {
        let path = affinity_path.child(kind);
        for (list, inner) in [
            ("requiredDuringSchedulingIgnoredDuringExecution", None),
            ("preferredDuringSchedulingIgnoredDuringExecution", Some("podAffinityTerm")),
        ] {
            let path = path.child(list);
            for (index, term) in affinity[kind].list(list).iter().enumerate() {
                let path = path.index(index);
                match inner {
                    None if !term.has("labelSelector") => {
                        warnings.push(format!("{}: {NULL_SELECTOR}", path.child("labelSelector")));
                    }
                    Some(inner) if !term[inner].has("labelSelector") => {
                        warnings
                            .push(format!("{}: {NULL_SELECTOR}", path.child(inner).child("labelSelector")));
                    }
                    _ => {}
                }
            }
        }
    }
}

fn volumes(warnings: &mut Vec<String>, spec: &Value, path: &Path<'_>) {
    for (index, volume) in spec.list("volumes").iter().enumerate() {
        for (key, spelled, message) in OLD_SOURCES {
            if volume.has(key) {
                warnings.push(format!("{}: {message}", path.index(index).child(spelled)));
            }
        }
    }
}

fn references(warnings: &mut Vec<String>, spec: &Value, path: &Path<'_>) {
    for (list, key, what) in [("hostAliases", "ip", "ip"), ("imagePullSecrets", "name", "name")] {
        let items = spec.list(list);
        let list_path = path.child(list);
        for (index, item) in items.iter().enumerate() {
            let value = item.text(key);
            if items[..index].iter().any(|other| other.text(key) == value) {
                warnings.push(format!("{}: duplicate {what} \"{value}\"", list_path.index(index).child(key)));
            }
            if list == "imagePullSecrets" && value.is_empty() {
                warnings.push(format!("{}: invalid empty name \"\"", list_path.index(index).child(key)));
            }
        }
    }
    fractional_bytes(warnings, &spec["overhead"], &path.child("overhead"));
    let servers = path.child("dnsConfig");
    let servers = servers.child("nameservers");
    for (index, server) in spec["dnsConfig"].list("nameservers").iter().enumerate() {
        warnings.extend(ip::ip_warning(item_text(server), &servers.index(index)));
    }
}

fn fractional_bytes(warnings: &mut Vec<String>, list: &Value, path: &Path<'_>) {
    for name in ["memory", "ephemeral-storage"] {
        if let Some(quantity) = list.maybe(name).and_then(resources::quantity)
            && quantity.milli_value() % 1000 != 0
        {
            warnings.push(format!(
                "{}: fractional byte value \"{quantity}\" is invalid, must be an integer",
                path.key(name)
            ));
        }
    }
}

fn container(warnings: &mut Vec<String>, container: &Value, path: &Path<'_>) {
    let resources = path.child("resources");
    for list in ["limits", "requests"] {
        fractional_bytes(warnings, &container["resources"][list], &resources.child(list));
    }
    let variables = container.list("env");
    for (index, variable) in variables.iter().enumerate() {
        let name = variable.text("name");
        if !variables[..index].iter().any(|other| other.text("name") == name) {
            continue;
        }
        // A later value that builds on the earlier one is meant.
        let reference = format!("$({name})");
        let value = variable.text("value");
        if variable.has("valueFrom") || value == reference || !value.contains(&reference) {
            warnings.push(format!(
                "{}: hides previous definition of \"{name}\", which may be dropped when using apply",
                path.child("env").index(index)
            ));
        }
    }
}

/// Ports that are defined twice, within a container or across containers.
fn ports(warnings: &mut Vec<String>, spec: &Value, path: &Path<'_>) {
    let mut count = 0;
    container::visit(spec, path, |container, _| count += container.list("ports").len());
    if count < 2 {
        return;
    }
    let mut seen: Vec<(String, Value)> = Vec::new();
    container::visit(spec, path, |container, path| {
        let list = path.child("ports");
        for (index, port) in container.list("ports").iter().enumerate() {
            let mut here = String::new();
            // Writing to a string cannot fail.
            let _ = write!(here, "{}", list.index(index));
            let host = (port.text("hostIP"), port.int("hostPort"));
            for (there, other) in &seen {
                if other.int("containerPort") != port.int("containerPort")
                    || other.text("protocol") != port.text("protocol")
                {
                    continue;
                }
                let other_host = (other.text("hostIP"), other.int("hostPort"));
                let what = if host == other_host {
                    "duplicate"
                } else if host.1 == 0 || other_host.1 == 0 {
                    "overlapping"
                } else if host.1 == other_host.1 && host.0.is_empty() != other_host.0.is_empty() {
                    "dangerously ambiguous"
                } else {
                    continue;
                };
                warnings.push(format!("{here}: {what} port definition with {there}"));
            }
            let name = port.text("name");
            if !name.is_empty()
                && let Some((there, _)) = seen.iter().find(|(_, other)| other.text("name") == name)
            {
                warnings.push(format!(
                    "{here}: duplicate port name \"{name}\" with {there}, services and probes that select ports by name will use {there}"
                ));
            }
            seen.push((here, port.clone()));
        }
    });
}

/// Warnings about the addresses in a status.
pub fn addresses(warnings: &mut Vec<String>, status: &Value) {
    for list in ["podIPs", "hostIPs"] {
        let path = Path::root("status");
        let path = path.child(list);
        for (index, address) in status.list(list).iter().enumerate() {
            warnings.extend(ip::ip_warning(address.text("ip"), &path.index(index).child("ip")));
        }
    }
}
