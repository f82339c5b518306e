//! Columns of the core group and of events.

use std::collections::BTreeSet;

use apimachinery::Value;
use jiff::Timestamp;

use super::{AGE, Kinds, NAME, cell, column, integer, name_and_age, pod, selector, text, wide};
use crate::strategy::Column;

pub(super) const KINDS: Kinds = &[
    ("ComponentStatus", &[NAME, text("Status"), text("Message"), text("Error")], component_status),
    ("ConfigMap", &[NAME, text("Data"), AGE], config_map),
    ("Endpoints", &[NAME, text("Endpoints"), AGE], endpoints),
    ("Event", EVENT, event),
    ("Namespace", &[NAME, text("Status"), AGE], namespace),
    (
        "Node",
        &[
            NAME,
            text("Status"),
            text("Roles"),
            AGE,
            text("Version"),
            wide("Internal-IP"),
            wide("External-IP"),
            wide("OS-Image"),
            wide("Kernel-Version"),
            wide("Container-Runtime"),
        ],
        node,
    ),
    (
        "PersistentVolume",
        &[
            NAME,
            text("Capacity"),
            text("Access Modes"),
            text("Reclaim Policy"),
            text("Status"),
            text("Claim"),
            text("StorageClass"),
            text("VolumeAttributesClass"),
            text("Reason"),
            AGE,
            wide("VolumeMode"),
        ],
        persistent_volume,
    ),
    (
        "PersistentVolumeClaim",
        &[
            NAME,
            text("Status"),
            text("Volume"),
            text("Capacity"),
            text("Access Modes"),
            text("StorageClass"),
            text("VolumeAttributesClass"),
            AGE,
            wide("VolumeMode"),
        ],
        persistent_volume_claim,
    ),
    ("Pod", pod::COLUMNS, pod::cells),
    ("PodTemplate", &[NAME, text("Containers"), text("Images"), text("Pod Labels")], pod_template),
    (
        "ReplicationController",
        &[
            NAME,
            integer("Desired"),
            integer("Current"),
            integer("Ready"),
            AGE,
            wide("Containers"),
            wide("Images"),
            wide("Selector"),
        ],
        replication_controller,
    ),
    ("ResourceQuota", &[NAME, text("Request"), text("Limit"), AGE], resource_quota),
    ("Secret", &[NAME, text("Type"), text("Data"), AGE], secret),
    (
        "Service",
        &[
            NAME,
            text("Type"),
            text("Cluster-IP"),
            text("External-IP"),
            text("Port(s)"),
            AGE,
            wide("Selector"),
        ],
        service,
    ),
    ("ServiceAccount", &[NAME, AGE], name_and_age),
];

pub(super) const EVENTS: Kinds = &[("Event", EVENT, event)];

const EVENT: &[Column] = &[
    text("Last Seen"),
    text("Type"),
    text("Reason"),
    text("Object"),
    wide("Subobject"),
    wide("Source"),
    text("Message"),
    wide("First Seen"),
    wide("Count"),
    column("Name", "string", "name", 1),
];

fn component_status(object: &Value, _: Timestamp) -> Vec<Value> {
    let healthy = object.array_at(&["conditions"]).iter().find(|own| own.str_at(&["type"]) == "Healthy");
    let status = match healthy.map(|condition| condition.str_at(&["status"])) {
        Some("True") => "Healthy",
        Some(_) => "Unhealthy",
        None => "Unknown",
    };
    let part = |field| healthy.map_or("", |condition| condition.str_at(&[field])).into();
    vec![cell::name(object), status.into(), part("message"), part("error")]
}

fn config_map(object: &Value, now: Timestamp) -> Vec<Value> {
    let data = cell::count(object, &["data"]) + cell::count(object, &["binaryData"]);
    vec![cell::name(object), data.into(), cell::age(object, now)]
}

fn endpoints(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![cell::name(object), endpoint_list(object).into(), cell::age(object, now)]
}

fn endpoint_list(object: &Value) -> String {
    const SHOWN: usize = 3;
    let subsets = object.array_at(&["subsets"]);
    if subsets.is_empty() {
        return "<none>".into();
    }
    let mut all = Vec::new();
    for subset in subsets {
        let addresses = || subset.array_at(&["addresses"]).iter().map(|address| address.str_at(&["ip"]));
        let ports = subset.array_at(&["ports"]);
        if ports.is_empty() {
            all.extend(addresses().map(str::to_owned));
        }
        for port in ports {
            let number = cell::integer(port, &["port"]);
            all.extend(addresses().map(|ip| host_port(ip, number)));
        }
    }
    cell::shortened(&all, SHOWN, ",")
}

fn host_port(ip: &str, port: i64) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

fn event(object: &Value, now: Timestamp) -> Vec<Value> {
    let time = |path: &[&str]| cell::since(object.str_at(path), now);
    let unknown = || "<unknown>".to_owned();
    let first_seen = time(&["firstTimestamp"]).or_else(|| time(&["eventTime"])).unwrap_or_else(unknown);
    let series = object.get("series").filter(|series| series.is_object());
    let last_seen = match series {
        Some(_) => time(&["series", "lastObservedTime"]).unwrap_or_else(unknown),
        None => time(&["lastTimestamp"]).unwrap_or_else(|| first_seen.clone()),
    };
    let count = match series {
        Some(series) => cell::integer(series, &["count"]),
        None => cell::integer(object, &["count"]),
    };
    let involved = |field| object.str_at(&["involvedObject", field]);
    let mut target = involved("kind").to_lowercase();
    if !involved("name").is_empty() {
        target = format!("{target}/{}", involved("name"));
    }
    vec![
        last_seen.into(),
        cell::text(object, &["type"]),
        cell::text(object, &["reason"]),
        target.into(),
        involved("fieldPath").into(),
        event_source(object).into(),
        object.str_at(&["message"]).trim().into(),
        first_seen.into(),
        // Events made before there were counts happened once.
        count.max(1).into(),
        cell::name(object),
    ]
}

/// The component that reported an event and, if known, where it runs.
fn event_source(event: &Value) -> String {
    let either = |old: &[&str], new| match event.str_at(old) {
        "" => event.str_at(&[new]).to_owned(),
        text => text.to_owned(),
    };
    let component = either(&["source", "component"], "reportingComponent");
    match either(&["source", "host"], "reportingInstance") {
        instance if instance.is_empty() => component,
        instance => format!("{component}, {instance}"),
    }
}

fn namespace(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![cell::name(object), cell::text(object, &["status", "phase"]), cell::age(object, now)]
}

fn node(object: &Value, now: Timestamp) -> Vec<Value> {
    let info = |field, instead| cell::text_or(object, &["status", "nodeInfo", field], instead);
    let address = |kind| {
        let addresses = object.array_at(&["status", "addresses"]);
        let own = addresses.iter().find(|address| address.str_at(&["type"]) == kind);
        own.map_or("<none>", |address| address.str_at(&["address"])).into()
    };
    vec![
        cell::name(object),
        node_status(object).into(),
        node_roles(object).into(),
        cell::age(object, now),
        info("kubeletVersion", ""),
        address("InternalIP"),
        address("ExternalIP"),
        info("osImage", "<unknown>"),
        node_kernel(object).into(),
        info("containerRuntimeVersion", "<unknown>"),
    ]
}

fn node_status(node: &Value) -> String {
    let ready = match cell::condition(node, "Ready").map(|condition| condition.str_at(&["status"])) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    let cordoned = node.at(&["spec", "unschedulable"]).and_then(Value::as_bool).unwrap_or_default();
    if cordoned { format!("{ready},SchedulingDisabled") } else { ready.into() }
}

fn node_roles(node: &Value) -> String {
    const PREFIX: &str = "node-role.kubernetes.io/";
    let labels = node.at(&["metadata", "labels"]).and_then(Value::as_object).into_iter().flatten();
    let roles: BTreeSet<&str> = labels
        .filter_map(|(key, value)| match key.strip_prefix(PREFIX) {
            Some(role) => Some(role),
            None if key == "kubernetes.io/role" => value.as_str(),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    if roles.is_empty() { "<none>".into() } else { roles.into_iter().collect::<Vec<_>>().join(",") }
}

fn node_kernel(node: &Value) -> String {
    let version = match node.str_at(&["status", "nodeInfo", "kernelVersion"]) {
        "" => "<unknown>",
        version => version,
    };
    match node.str_at(&["status", "nodeInfo", "architecture"]) {
        "" => version.to_owned(),
        architecture => format!("{version} ({architecture})"),
    }
}

fn persistent_volume(object: &Value, now: Timestamp) -> Vec<Value> {
    let claim = match object.at(&["spec", "claimRef"]) {
        Some(claim) => format!("{}/{}", claim.str_at(&["namespace"]), claim.str_at(&["name"])),
        None => String::new(),
    };
    vec![
        cell::name(object),
        cell::text(object, &["spec", "capacity", "storage"]),
        cell::access_modes(object, &["spec", "accessModes"]).into(),
        cell::text(object, &["spec", "persistentVolumeReclaimPolicy"]),
        phase(object),
        claim.into(),
        cell::storage_class(object),
        cell::text_or(object, &["spec", "volumeAttributesClassName"], "<unset>"),
        cell::text(object, &["status", "reason"]),
        cell::age(object, now),
        cell::text_or(object, &["spec", "volumeMode"], "<unset>"),
    ]
}

fn persistent_volume_claim(object: &Value, now: Timestamp) -> Vec<Value> {
    let bound = !object.str_at(&["spec", "volumeName"]).is_empty();
    let (capacity, modes) = if bound {
        let modes = cell::access_modes(object, &["status", "accessModes"]);
        (cell::text(object, &["status", "capacity", "storage"]), modes)
    } else {
        ("".into(), String::new())
    };
    vec![
        cell::name(object),
        phase(object),
        cell::text(object, &["spec", "volumeName"]),
        capacity,
        modes.into(),
        cell::storage_class(object),
        cell::text_or(object, &["spec", "volumeAttributesClassName"], "<unset>"),
        cell::age(object, now),
        cell::text_or(object, &["spec", "volumeMode"], "<unset>"),
    ]
}

fn phase(object: &Value) -> Value {
    if cell::is_deleting(object) { "Terminating".into() } else { cell::text(object, &["status", "phase"]) }
}

fn pod_template(object: &Value, _: Timestamp) -> Vec<Value> {
    let [containers, images] = cell::containers(object, &["template", "spec"]);
    let labels = selector::labels(object.at(&["template", "metadata", "labels"]));
    vec![cell::name(object), containers, images, labels.into()]
}

fn replication_controller(object: &Value, now: Timestamp) -> Vec<Value> {
    let [containers, images] = cell::containers(object, &["spec", "template", "spec"]);
    vec![
        cell::name(object),
        cell::number(object, &["spec", "replicas"]),
        cell::number(object, &["status", "replicas"]),
        cell::number(object, &["status", "readyReplicas"]),
        cell::age(object, now),
        containers,
        images,
        selector::labels(object.at(&["spec", "selector"])).into(),
    ]
}

fn resource_quota(object: &Value, now: Timestamp) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (key, hard) in object.at(&["status", "hard"]).and_then(Value::as_object).into_iter().flatten() {
        let used = cell::scalar_or(object, &["status", "used", key], "0");
        let hard = hard.as_str().unwrap_or_default();
        let text = format!("{key}: {}/{hard}", used.as_str().unwrap_or_default());
        if key.starts_with("limits.") { limits.push(text) } else { requests.push(text) }
    }
    vec![cell::name(object), requests.join(", ").into(), limits.join(", ").into(), cell::age(object, now)]
}

fn secret(object: &Value, now: Timestamp) -> Vec<Value> {
    let data = cell::count(object, &["data"]);
    vec![cell::name(object), cell::text(object, &["type"]), data.into(), cell::age(object, now)]
}

fn service(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        cell::name(object),
        cell::text(object, &["spec", "type"]),
        cluster_ip(object),
        external_ip(object).into(),
        service_ports(object).into(),
        cell::age(object, now),
        selector::labels(object.at(&["spec", "selector"])).into(),
    ]
}

fn cluster_ip(service: &Value) -> Value {
    let first = cell::strings(service, &["spec", "clusterIPs"]).next();
    first.map_or_else(|| "<none>".into(), Value::from)
}

fn external_ip(service: &Value) -> String {
    let external = cell::joined(service, &["spec", "externalIPs"], ",");
    match service.str_at(&["spec", "type"]) {
        "ClusterIP" | "NodePort" if external.is_empty() => "<none>".into(),
        "ClusterIP" | "NodePort" => external,
        "LoadBalancer" => match (ingress_addresses(service), external) {
            (ingress, external) if ingress.is_empty() && external.is_empty() => "<pending>".into(),
            (ingress, external) if external.is_empty() => ingress,
            (ingress, external) if ingress.is_empty() => external,
            (ingress, external) => format!("{ingress},{external}"),
        },
        "ExternalName" => service.str_at(&["spec", "externalName"]).into(),
        _ => "<unknown>".into(),
    }
}

/// The addresses, else host names, of a load balancer, sorted and each once.
pub(super) fn ingress_addresses(object: &Value) -> String {
    let ingress = object.array_at(&["status", "loadBalancer", "ingress"]).iter();
    let addresses: BTreeSet<&str> = ingress
        .map(|point| match point.str_at(&["ip"]) {
            "" => point.str_at(&["hostname"]),
            ip => ip,
        })
        .filter(|address| !address.is_empty())
        .collect();
    addresses.into_iter().collect::<Vec<_>>().join(",")
}

fn service_ports(service: &Value) -> String {
    let ports: Vec<String> = service
        .array_at(&["spec", "ports"])
        .iter()
        .map(|port| {
            let protocol = port.str_at(&["protocol"]);
            match (cell::integer(port, &["port"]), cell::integer(port, &["nodePort"])) {
                (number, 0) => format!("{number}/{protocol}"),
                (number, node_port) => format!("{number}:{node_port}/{protocol}"),
            }
        })
        .collect();
    if ports.is_empty() { "<none>".into() } else { ports.join(",") }
}
