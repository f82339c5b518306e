//! Pods to endpoints, endpoints to slices. Pure.
//!
//! Slices are packed as upstream does: endpoints stay where they are; slices that change anyway are filled first,
//! the fullest before others; what is left goes into the unchanged slice that it fills best, or into new ones. That
//! keeps the number of slices that watchers must be sent small, at the price of slices that are not full.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::view::{Pod, Service};
use apimachinery::{Object, Str, Value, json};

use crate::ownership;
use crate::service::backends::{self, Family, families_of_service, find_port, protocol};
use crate::service::slices::{Changes, MANAGED_BY, SERVICE_NAME};

pub(super) const MANAGER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";
const ZONE: &str = "topology.kubernetes.io/zone";

/// Labels of slices that are never copied from a service.
const RESERVED: [&str; 3] = [SERVICE_NAME, MANAGED_BY, HEADLESS];

/// Upstream's default of `--max-endpoints-per-slice`.
const ENDPOINTS_MAX: usize = 100;

/// Endpoints by identity: addresses and pod.
type Endpoints = BTreeMap<String, Value>;

/// The endpoints a service should have.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// By family; then by ports (as text), since all endpoints of a slice have the same ports.
    families: BTreeMap<Family, BTreeMap<String, (Value, Endpoints)>>,
    /// Why pods were left out that may belong in.
    pub(super) skipped: Vec<String>,
}

/// A slice while it is packed.
struct Packing {
    source: Option<Arc<Object>>,
    tree: Value,
    endpoints: Vec<Value>,
    changed: bool,
}

// === Pods to endpoints ===

/// `zone` is asked for a pod's node: `None` when there is no such node, empty when it has no zone.
pub(super) fn wanted(service: &Service, pods: &[Arc<Pod>], zone: impl Fn(&str) -> Option<Str>) -> Wanted {
    let mut wanted = Wanted::default();
    for family in families_of_service(service) {
        wanted.families.insert(family, BTreeMap::new());
    }
    for pod in pods.iter().filter(|pod| backends::has_endpoint(pod, true)) {
        let node = pod.spec.node_name.as_str();
        let zone = if node.is_empty() { Some(Str::default()) } else { zone(node) };
        if zone.is_none() && !service.spec.publish_not_ready_addresses {
            let (namespace, name) = (&service.metadata.namespace, &service.metadata.name);
            let pod = &pod.metadata.name;
            wanted
                .skipped
                .push(format!("skipping Pod {pod} for Service {namespace}/{name}: Node {node} Not Found"));
            continue;
        }
        let ports = ports(service, pod);
        let group = ports.to_string();
        for (family, groups) in &mut wanted.families {
            let (_, endpoints) =
                groups.entry(group.clone()).or_insert_with(|| (ports.clone(), Endpoints::new()));
            let addresses = backends::addresses(pod, *family);
            if !addresses.is_empty() {
                let endpoint = endpoint(service, pod, addresses, zone.as_deref().unwrap_or_default());
                endpoints.insert(identity(&endpoint), endpoint);
            }
        }
    }
    wanted
}

/// The zone label of a node.
pub(super) fn zone(node: &Object) -> Str {
    node.label(ZONE).unwrap_or_default().into()
}

fn ports(service: &Service, pod: &Pod) -> Value {
    let mut ports: Vec<Value> = Vec::new();
    for port in &service.spec.ports {
        let Some(number) = find_port(pod, port) else { continue };
        let mut own = json!({
            "name": port.name.as_str(), "port": number, "protocol": protocol(&port.protocol),
        });
        if let Some(application) = &port.app_protocol {
            own.set_at(&["appProtocol"], application.clone());
        }
        ports.push(own);
    }
    sorted(ports)
}

fn sorted(mut ports: Vec<Value>) -> Value {
    ports.sort_by_cached_key(Value::to_string);
    Value::Array(ports)
}

fn endpoint(service: &Service, pod: &Pod, addresses: Vec<String>, zone: &str) -> Value {
    let (serving, terminating) = (pod.is_ready(), pod.is_deleting());
    let ready = service.spec.publish_not_ready_addresses || (serving && !terminating);
    let mut endpoint = json!({
        "addresses": addresses,
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        "targetRef": {"kind": "Pod", "namespace": pod.metadata.namespace.as_str(), "name": pod.metadata.name.as_str(),
            "uid": pod.metadata.uid.as_str()},
    });
    let node = pod.spec.node_name.as_str();
    let texts = [
        ("hostname", backends::hostname_of(pod, service).unwrap_or_default()),
        ("nodeName", node),
        ("zone", zone),
    ];
    for (field, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        endpoint.set_at(&[field], text);
    }
    if ready && let Some(hints) = hints(&service.spec.traffic_distribution, zone, node) {
        endpoint.set_at(&["hints"], hints);
    }
    endpoint
}

/// Where an endpoint prefers its traffic from, by `spec.trafficDistribution`.
fn hints(distribution: &str, zone: &str, node: &str) -> Option<Value> {
    let (zones, nodes) = match distribution {
        "PreferClose" | "PreferSameZone" => (true, false),
        "PreferSameNode" => (true, true),
        _ => return None,
    };
    let mut hints = Value::object();
    if zones && !zone.is_empty() {
        hints.set_at(&["forZones"], json!([{"name": zone}]));
    }
    if nodes && !node.is_empty() {
        hints.set_at(&["forNodes"], json!([{"name": node}]));
    }
    hints.as_object().is_some_and(|map| !map.is_empty()).then_some(hints)
}

fn identity(endpoint: &Value) -> String {
    format!("{} {}", endpoint["addresses"], endpoint["targetRef"].str_at(&["uid"]))
}

// === Endpoints to slices ===

/// What makes `existing` slices hold what is wanted.
pub(super) fn changes(
    object: &Object,
    service: &Service,
    wanted: &Wanted,
    existing: &[Arc<Object>],
) -> Changes {
    let mut changes = Changes::default();
    let parsed: Vec<(Arc<Object>, Value)> =
        existing.iter().map(|slice| (slice.clone(), slice.to_value())).collect();
    let family_of = |tree: &Value| Family::parse(tree.str_at(&["addressType"]));
    for (slice, tree) in &parsed {
        if family_of(tree).is_none_or(|family| !wanted.families.contains_key(&family)) {
            changes.delete.push(slice.clone());
        }
    }
    for (family, groups) in &wanted.families {
        let mine = parsed.iter().filter(|(_, tree)| family_of(tree) == Some(*family)).cloned().collect();
        pack_family(object, service, *family, groups, mine, &mut changes);
    }
    changes
}

fn pack_family(
    object: &Object,
    service: &Service,
    family: Family,
    groups: &BTreeMap<String, (Value, Endpoints)>,
    existing: Vec<(Arc<Object>, Value)>,
    changes: &mut Changes,
) {
    let total = existing.len();
    let labels = labels(service);
    let (mut create, mut delete) = (Vec::new(), Vec::new());
    let mut by_ports: BTreeMap<String, Vec<(Arc<Object>, Value)>> = BTreeMap::new();
    for (slice, tree) in existing {
        if ownership::is_controlled_by(&slice, object.uid()) {
            by_ports
                .entry(sorted(tree.array_at(&["ports"]).to_vec()).to_string())
                .or_default()
                .push((slice, tree));
        } else {
            delete.push((slice, tree));
        }
    }
    for (group, (ports, endpoints)) in groups {
        let own = by_ports.remove(group).unwrap_or_default();
        for packing in pack(own, endpoints.clone(), &labels) {
            match &packing.source {
                None => create.push(new_slice(object, family, ports, packing.endpoints, &labels)),
                Some(_) if !packing.changed => {}
                Some(slice) if packing.endpoints.is_empty() => delete.push((slice.clone(), packing.tree)),
                Some(_) => changes.update.push(packing.into_tree(&labels)),
            }
        }
    }
    delete.extend(by_ports.into_values().flatten());
    if total == delete.len() && create.is_empty() {
        // A service always has a slice, if an empty one: consumers can tell it from one not seen yet.
        create.push(new_slice(object, family, &Value::Array(Vec::new()), Vec::new(), &labels));
    }
    reuse(object, &mut create, &mut delete, changes);
    changes.create.extend(create);
    changes.delete.extend(delete.into_iter().map(|(slice, _)| slice));
}

/// Slices that would be deleted become the ones that would be created: one event instead of two.
fn reuse(
    object: &Object,
    create: &mut Vec<Value>,
    delete: &mut Vec<(Arc<Object>, Value)>,
    changes: &mut Changes,
) {
    let mut kept = Vec::new();
    for (slice, mut tree) in std::mem::take(delete) {
        if create.is_empty() || !ownership::is_controlled_by(&slice, object.uid()) {
            kept.push((slice, tree));
            continue;
        }
        let Some(new) = create.pop() else { continue };
        let before = tree.clone();
        for field in ["endpoints", "ports"] {
            tree.set_at(&[field], new[field].clone());
        }
        tree.set_at(&["metadata", "labels"], new["metadata"]["labels"].clone());
        if !same_content(&before, &tree) {
            changes.update.push(tree);
        }
    }
    *delete = kept;
}

/// Absent lists and empty ones are the same.
fn same_content(a: &Value, b: &Value) -> bool {
    ["endpoints", "ports"].iter().all(|field| a.array_at(&[field]) == b.array_at(&[field]))
        && a["metadata"]["labels"] == b["metadata"]["labels"]
}

fn pack(existing: Vec<(Arc<Object>, Value)>, mut wanted: Endpoints, labels: &Value) -> Vec<Packing> {
    let mut packings: Vec<Packing> =
        existing.into_iter().map(|(slice, tree)| Packing::keep(slice, tree, &mut wanted, labels)).collect();
    // Of the slices that are sent anyway, the fullest are filled first.
    let mut open: Vec<&mut Packing> =
        packings.iter_mut().filter(|own| own.changed && !own.endpoints.is_empty()).collect();
    open.sort_by_key(|own| std::cmp::Reverse(own.endpoints.len()));
    open.into_iter().for_each(|own| own.fill(&mut wanted));
    while !wanted.is_empty() {
        match best_fit(&mut packings, wanted.len()) {
            Some(own) => own.fill(&mut wanted),
            None => {
                let mut new =
                    Packing { source: None, tree: Value::Null, endpoints: Vec::new(), changed: true };
                new.fill(&mut wanted);
                packings.push(new);
            }
        }
    }
    packings
}

/// The unchanged slice that `count` more endpoints fill best.
fn best_fit(packings: &mut [Packing], count: usize) -> Option<&mut Packing> {
    // A full slice of new endpoints is better off as one of its own.
    let fits = |own: &&mut Packing| {
        count < ENDPOINTS_MAX && !own.changed && own.endpoints.len() + count <= ENDPOINTS_MAX
    };
    packings.iter_mut().filter(fits).max_by_key(|own| own.endpoints.len())
}

impl Packing {
    /// Keeps what is still wanted of a slice and takes it from `wanted`.
    fn keep(slice: Arc<Object>, tree: Value, wanted: &mut Endpoints, labels: &Value) -> Self {
        let before = tree.array_at(&["endpoints"]);
        let endpoints: Vec<Value> = before.iter().filter_map(|own| wanted.remove(&identity(own))).collect();
        let changed = endpoints.as_slice() != before || tree["metadata"]["labels"] != *labels;
        Self { source: Some(slice), endpoints, changed, tree }
    }

    fn fill(&mut self, wanted: &mut Endpoints) {
        while self.endpoints.len() < ENDPOINTS_MAX
            && let Some((_, endpoint)) = wanted.pop_first()
        {
            self.endpoints.push(endpoint);
            self.changed = true;
        }
    }

    fn into_tree(self, labels: &Value) -> Value {
        let mut tree = self.tree;
        tree.set_at(&["endpoints"], self.endpoints);
        tree.set_at(&["metadata", "labels"], labels.clone());
        tree
    }
}

fn new_slice(object: &Object, family: Family, ports: &Value, endpoints: Vec<Value>, labels: &Value) -> Value {
    let mut tree = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family.name(),
        "metadata": {"generateName": format!("{}-", object.name()), "namespace": object.namespace()},
    });
    tree.set_at(&["metadata", "labels"], labels.clone());
    tree.set_at(&["metadata", "ownerReferences"], vec![ownership::controller_reference(object)]);
    tree.set_at(&["endpoints"], endpoints);
    tree.set_at(&["ports"], ports.clone());
    tree
}

/// The service's labels and the ones that consumers select by.
fn labels(service: &Service) -> Value {
    let own = service.metadata.labels.iter().filter(|(key, _)| !RESERVED.contains(&key.as_str()));
    let mut labels: Value = own.map(|(key, value)| (key.clone(), Value::from(value.clone()))).collect();
    labels.set_at(&[SERVICE_NAME], service.metadata.name.clone());
    labels.set_at(&[MANAGED_BY], MANAGER);
    if service.is_headless() {
        labels.set_at(&[HEADLESS], "");
    }
    labels
}
