//! Columns of ingresses, policies, address ranges (`networking.k8s.io`) and endpoint slices (`discovery.k8s.io`).

use apimachinery::Value;
use jiff::Timestamp;

use super::{AGE, Kinds, NAME, cell, core, selector, text};

pub(super) const NETWORKING: Kinds = &[
    // Upstream gives three cells for these two columns; clients ignore the third.
    ("IPAddress", &[NAME, text("ParentRef")], ip_address),
    ("Ingress", &[NAME, text("Class"), text("Hosts"), text("Address"), text("Ports"), AGE], ingress),
    ("IngressClass", &[NAME, text("Controller"), text("Parameters"), AGE], ingress_class),
    ("NetworkPolicy", &[NAME, text("Pod-Selector"), AGE], network_policy),
    ("ServiceCIDR", &[NAME, text("CIDRs"), AGE], service_cidr),
];

pub(super) const DISCOVERY: Kinds =
    &[("EndpointSlice", &[NAME, text("AddressType"), text("Ports"), text("Endpoints"), AGE], endpoint_slice)];

/// More hosts, ports or endpoints than this are only counted.
const SHOWN: usize = 3;

fn ip_address(object: &Value, now: Timestamp) -> Vec<Value> {
    let parent = object.at(&["spec", "parentRef"]).map_or_else(|| "<none>".into(), parent_name);
    vec![cell::name(object), parent.into(), cell::age(object, now)]
}

/// `resource.group/namespace/name`, each part if there is one.
fn parent_name(parent: &Value) -> String {
    let part = |field| parent.str_at(&[field]);
    let mut text = part("resource").to_lowercase();
    if !part("group").is_empty() {
        text = format!("{text}.{}", part("group").to_lowercase());
    }
    for field in ["namespace", "name"] {
        if !part(field).is_empty() {
            text = format!("{text}/{}", part(field));
        }
    }
    text
}

fn ingress(object: &Value, now: Timestamp) -> Vec<Value> {
    let ports = if object.array_at(&["spec", "tls"]).is_empty() { "80" } else { "80, 443" };
    vec![
        cell::name(object),
        cell::text_or(object, &["spec", "ingressClassName"], "<none>"),
        hosts(object).into(),
        core::ingress_addresses(object).into(),
        ports.into(),
        cell::age(object, now),
    ]
}

fn hosts(ingress: &Value) -> String {
    let rules = ingress.array_at(&["spec", "rules"]).iter();
    let hosts: Vec<&str> = rules.map(|rule| rule.str_at(&["host"])).filter(|host| !host.is_empty()).collect();
    if hosts.is_empty() { "*".into() } else { cell::shortened(&hosts, SHOWN, ",") }
}

fn ingress_class(object: &Value, now: Timestamp) -> Vec<Value> {
    let default = object.str_at(&["metadata", "annotations", "ingressclass.kubernetes.io/is-default-class"]);
    let name = object.str_at(&["metadata", "name"]);
    let parameters = object.at(&["spec", "parameters"]).map_or_else(|| "<none>".into(), parameters_name);
    vec![
        if default == "true" { format!("{name} (default)").into() } else { name.into() },
        cell::text(object, &["spec", "controller"]),
        parameters.into(),
        cell::age(object, now),
    ]
}

fn parameters_name(parameters: &Value) -> String {
    let part = |field| parameters.str_at(&[field]);
    match part("apiGroup") {
        "" => format!("{}/{}", part("kind"), part("name")),
        group => format!("{}.{group}/{}", part("kind"), part("name")),
    }
}

fn network_policy(object: &Value, now: Timestamp) -> Vec<Value> {
    let pods = selector::cell(object.at(&["spec", "podSelector"]));
    vec![cell::name(object), pods, cell::age(object, now)]
}

fn service_cidr(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![cell::name(object), cell::joined(object, &["spec", "cidrs"], ",").into(), cell::age(object, now)]
}

fn endpoint_slice(object: &Value, now: Timestamp) -> Vec<Value> {
    let ports: Vec<String> = object.array_at(&["ports"]).iter().map(slice_port).collect();
    let addresses: Vec<&str> = object
        .array_at(&["endpoints"])
        .iter()
        .flat_map(|endpoint| cell::strings(endpoint, &["addresses"]))
        .collect();
    let list = |items: String| if items.is_empty() { "<unset>".to_owned() } else { items };
    vec![
        cell::name(object),
        cell::text(object, &["addressType"]),
        list(cell::shortened(&ports, SHOWN, ",")).into(),
        list(cell::shortened(&addresses, SHOWN, ",")).into(),
        cell::age(object, now),
    ]
}

fn slice_port(port: &Value) -> String {
    match (port.get("port").and_then(Value::as_i64), port.str_at(&["name"])) {
        (Some(number), _) => number.to_string(),
        (None, "") => "*".into(),
        (None, name) => name.into(),
    }
}
