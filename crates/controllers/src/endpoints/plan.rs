//! The Endpoints object of a service. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::view::{Pod, Service};
use apimachinery::{Object, Value, json};

use crate::service::backends::{self, protocol};
use crate::service::{family_of_service, find_port};

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const HEADLESS: &str = "service.kubernetes.io/headless";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";

/// Upstream's limit of addresses in one object.
const ADDRESSES_MAX: usize = 1_000;

/// Addresses that have the same ports.
#[derive(Default)]
struct Subset {
    ports: Vec<Value>,
    ready: Vec<Value>,
    not_ready: Vec<Value>,
}

/// Made by this controller, or from before it put its label.
pub(super) fn is_ours(object: &Object) -> bool {
    object.label(MANAGED_BY).is_none_or(|manager| manager == MANAGER)
}

/// The object to write, or `None` when the current one is as it should be.
pub(super) fn change(service: &Service, pods: &[Arc<Pod>], current: Option<&Object>) -> Option<Value> {
    let mut subsets = subsets(service, pods);
    let truncated = truncate(&mut subsets);
    let subsets: Vec<Value> = subsets.into_iter().map(Subset::into_value).collect();
    let labels = labels(service);
    let mut tree = current.map(Object::to_value).unwrap_or_else(|| {
        json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {
            "name": service.metadata.name.as_str(), "namespace": service.metadata.namespace.as_str()}})
    });
    let marked = tree["metadata"]["annotations"].str_at(&[OVER_CAPACITY]) == "truncated";
    let same = current.is_some()
        && tree.array_at(&["subsets"]) == subsets.as_slice()
        && tree["metadata"]["labels"] == labels
        && marked == truncated;
    if same {
        return None;
    }
    match subsets.is_empty() {
        true => drop(tree.remove_at(&["subsets"])),
        false => tree.set_at(&["subsets"], subsets),
    }
    tree.set_at(&["metadata", "labels"], labels);
    match truncated {
        true => tree.set_at(&["metadata", "annotations", OVER_CAPACITY], "truncated"),
        false => drop(tree.remove_at(&["metadata", "annotations", OVER_CAPACITY])),
    }
    Some(tree)
}

fn subsets(service: &Service, pods: &[Arc<Pod>]) -> Vec<Subset> {
    let publish = service.spec.publish_not_ready_addresses;
    let family = family_of_service(service);
    let mut subsets: BTreeMap<String, Subset> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| backends::has_endpoint(pod, publish)) {
        let ports = ports(service, pod);
        if ports.is_empty() && !(service.spec.ports.is_empty() && service.is_headless()) {
            continue;
        }
        let Some(address) = backends::addresses(pod, family).into_iter().next() else { continue };
        let address = endpoint_address(service, pod, &address);
        let key = Value::Array(ports.clone()).to_string();
        let subset = subsets.entry(key).or_insert_with(|| Subset { ports, ..Subset::default() });
        if publish || pod.is_ready() { subset.ready.push(address) } else { subset.not_ready.push(address) }
    }
    let mut subsets: Vec<Subset> = subsets.into_values().collect();
    for subset in &mut subsets {
        let by_address =
            |own: &Value| (own.str_at(&["ip"]).to_owned(), own["targetRef"].str_at(&["uid"]).to_owned());
        subset.ready.sort_by_cached_key(by_address);
        subset.not_ready.sort_by_cached_key(by_address);
    }
    subsets
}

fn ports(service: &Service, pod: &Pod) -> Vec<Value> {
    let mut ports = Vec::new();
    for port in &service.spec.ports {
        let Some(number) = find_port(pod, port) else { continue };
        let mut own = json!({"port": number, "protocol": protocol(&port.protocol)});
        if !port.name.is_empty() {
            own.set_at(&["name"], port.name.clone());
        }
        if let Some(application) = &port.app_protocol {
            own.set_at(&["appProtocol"], application.clone());
        }
        ports.push(own);
    }
    ports.sort_by_cached_key(Value::to_string);
    ports
}

fn endpoint_address(service: &Service, pod: &Pod, address: &str) -> Value {
    let mut own = json!({
        "ip": address,
        "targetRef": {"kind": "Pod", "namespace": pod.metadata.namespace.as_str(), "name": pod.metadata.name.as_str(),
            "uid": pod.metadata.uid.as_str()},
    });
    if !pod.spec.node_name.is_empty() {
        own.set_at(&["nodeName"], pod.spec.node_name.clone());
    }
    if let Some(hostname) = backends::hostname_of(pod, service) {
        own.set_at(&["hostname"], hostname);
    }
    own
}

/// Cuts to capacity: addresses that are not ready go first, each subset giving in proportion. True when any went.
fn truncate(subsets: &mut [Subset]) -> bool {
    let ready: usize = subsets.iter().map(|subset| subset.ready.len()).sum();
    let not_ready: usize = subsets.iter().map(|subset| subset.not_ready.len()).sum();
    if ready + not_ready <= ADDRESSES_MAX {
        return false;
    }
    let cut_ready = ready > ADDRESSES_MAX;
    let (total, room) = if cut_ready { (ready, ADDRESSES_MAX) } else { (not_ready, ADDRESSES_MAX - ready) };
    let mut left = room;
    for subset in subsets {
        let own = if cut_ready { &mut subset.ready } else { &mut subset.not_ready };
        own.truncate((own.len() * room).div_ceil(total).min(left));
        left -= own.len();
        if cut_ready {
            subset.not_ready.clear();
        }
    }
    true
}

impl Subset {
    fn into_value(self) -> Value {
        let lists = [("addresses", self.ready), ("notReadyAddresses", self.not_ready), ("ports", self.ports)];
        let filled = lists.into_iter().filter(|(_, list)| !list.is_empty());
        filled.map(|(field, list)| (field.into(), Value::Array(list))).collect()
    }
}

fn labels(service: &Service) -> Value {
    let own = service.metadata.labels.iter().filter(|(key, _)| *key != HEADLESS);
    let mut labels: Value = own.map(|(key, value)| (key.clone(), Value::from(value.clone()))).collect();
    if service.is_headless() {
        labels.set_at(&[HEADLESS], "");
    }
    labels.set_at(&[MANAGED_BY], MANAGER);
    labels
}
