//! An Endpoints object to slices. Pure.
//!
//! There is one slice per family and set of ports. Endpoints are repacked first: ports that have the same addresses
//! become one subset, however they were written.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use apimachinery::ip::parse_sloppy;
use apimachinery::{Object, Value, json};

use crate::ownership;
use crate::service::backends::Family;
use crate::service::slices::{Changes, MANAGED_BY, SERVICE_NAME};

pub(super) const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";

const SKIP_MIRROR: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Endpoints were once what leaders were elected by.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

/// Annotations that are never copied.
const OWN_ANNOTATIONS: [&str; 2] =
    ["endpoints.kubernetes.io/last-change-trigger-time", "kubectl.kubernetes.io/last-applied-configuration"];

/// Upstream's default of `--mirroring-max-endpoints-per-subset`.
pub(super) const ADDRESSES_MAX: usize = 1_000;

/// What the slices should hold, and what cannot be in them.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// By family and ports (as text); ports that have no addresses are here without endpoints.
    groups: BTreeMap<(Family, String), (Value, Vec<Value>)>,
    pub invalid: usize,
    /// Those that are invalid, and those beyond [`ADDRESSES_MAX`].
    pub skipped: usize,
}

/// Of an address: IP and the uid of what it belongs to.
type AddressKey = (String, String);

/// Which addresses something has, and whether each is ready.
type Readiness = BTreeMap<AddressKey, bool>;

/// Slices by family and ports (as text).
type Groups = BTreeMap<(Family, String), Vec<(Arc<Object>, Value)>>;

/// Ports that have the same addresses, and which of those are ready.
struct Subset {
    ports: Vec<Value>,
    addresses: Vec<(Value, bool)>,
}

/// Whether slices are wanted of it at all.
pub(super) fn is_mirrored(endpoints: &Object) -> bool {
    endpoints.label(SKIP_MIRROR) != Some("true")
        && endpoints.metadata_value()["annotations"].get(LEADER).is_none()
}

// === Endpoints to groups ===

pub(super) fn wanted(endpoints: &Value) -> Wanted {
    let mut wanted = Wanted::default();
    repack(endpoints.array_at(&["subsets"])).into_iter().for_each(|subset| wanted.add(subset));
    wanted
}

impl Wanted {
    fn add(&mut self, subset: Subset) {
        let total = subset.addresses.len();
        let ports = slice_ports(&subset.ports);
        let group = ports.to_string();
        let mut added = 0;
        // The ready ones first: those are kept when there are too many.
        let (ready, not_ready): (Vec<_>, Vec<_>) = subset.addresses.iter().partition(|(_, ready)| *ready);
        for (address, ready) in ready.into_iter().chain(not_ready) {
            if added == ADDRESSES_MAX {
                break;
            }
            match endpoint(address, *ready) {
                None => self.invalid += 1,
                Some((family, endpoint)) => {
                    let group = self.groups.entry((family, group.clone()));
                    group.or_insert_with(|| (ports.clone(), Vec::new())).1.push(endpoint);
                    added += 1;
                }
            }
        }
        self.skipped += total - added;
    }
}

/// Groups ports by their addresses. An address that is ready and not ready for a port is not ready.
fn repack(subsets: &[Value]) -> Vec<Subset> {
    let mut addresses: BTreeMap<AddressKey, Value> = BTreeMap::new();
    let mut by_port: BTreeMap<String, (Option<Value>, Readiness)> = BTreeMap::new();
    for subset in subsets {
        let ports = subset.array_at(&["ports"]);
        let keys: Vec<(String, Option<Value>)> = match ports {
            [] => vec![(String::new(), None)],
            ports => ports.iter().map(|port| (port.to_string(), Some(port.clone()))).collect(),
        };
        for (field, ready) in [("addresses", true), ("notReadyAddresses", false)] {
            for address in subset.array_at(&[field]) {
                let key =
                    (address.str_at(&["ip"]).to_owned(), address.str_at(&["targetRef", "uid"]).to_owned());
                addresses.entry(key.clone()).or_insert_with(|| address.clone());
                for (text, port) in &keys {
                    let (_, of_port) =
                        by_port.entry(text.clone()).or_insert_with(|| (port.clone(), Readiness::new()));
                    *of_port.entry(key.clone()).or_insert(true) &= ready;
                }
            }
        }
    }
    let mut subsets: BTreeMap<Readiness, Vec<Value>> = BTreeMap::new();
    for (port, of_port) in by_port.into_values() {
        subsets.entry(of_port).or_default().extend(port);
    }
    let subset = |(of_ports, ports): (Readiness, Vec<Value>)| Subset {
        ports,
        addresses: of_ports.iter().map(|(key, ready)| (addresses[key].clone(), *ready)).collect(),
    };
    subsets.into_iter().map(subset).collect()
}

fn slice_ports(ports: &[Value]) -> Value {
    let port = |port: &Value| {
        let mut own = json!({"name": port.str_at(&["name"]), "port": port["port"].as_i64()});
        for field in ["protocol", "appProtocol"] {
            if let Some(value) = port.get(field) {
                own.set_at(&[field], value.clone());
            }
        }
        own
    };
    sorted(ports.iter().map(port).collect())
}

fn sorted(mut ports: Vec<Value>) -> Value {
    ports.sort_by_cached_key(Value::to_string);
    Value::Array(ports)
}

fn endpoint(address: &Value, ready: bool) -> Option<(Family, Value)> {
    let ip = parse_sloppy(address.str_at(&["ip"]))?;
    let family = match ip {
        IpAddr::V4(_) => Family::Ipv4,
        IpAddr::V6(_) => Family::Ipv6,
    };
    let mut endpoint = json!({"addresses": [ip.to_string()], "conditions": {"ready": ready}});
    for field in ["hostname", "nodeName", "targetRef"] {
        if let Some(value) = address.get(field) {
            endpoint.set_at(&[field], value.clone());
        }
    }
    Some((family, endpoint))
}

// === Groups to slices ===

/// What makes `existing` slices hold what is wanted of `endpoints`.
pub(super) fn changes(endpoints: &Object, wanted: Wanted, existing: &[Arc<Object>]) -> Changes {
    let marks = Marks::of(endpoints);
    let mut by_group = Groups::new();
    let mut changes = Changes::default();
    for slice in existing {
        let tree = slice.to_value();
        match Family::parse(tree.str_at(&["addressType"])) {
            Some(family) => {
                let ports = sorted(tree.array_at(&["ports"]).to_vec()).to_string();
                by_group.entry((family, ports)).or_default().push((slice.clone(), tree));
            }
            None => changes.delete.push(slice.clone()),
        }
    }
    let mut create = Vec::new();
    let mut spare = Vec::new();
    for (group, (ports, list)) in wanted.groups {
        let mut own = by_group.remove(&group).unwrap_or_default().into_iter();
        match own.next() {
            None => create.push((group.0, marks.slice(endpoints, group.0, &ports, list))),
            Some((_, tree)) if is_same(endpoints, &marks, &tree, &list) => {}
            Some((_, tree)) => changes.update.push(marks.rewrite(endpoints, tree, &ports, list)),
        }
        spare.extend(own.map(|(slice, tree)| (group.0, slice, tree)));
    }
    for (group, slices) in by_group {
        spare.extend(slices.into_iter().map(|(slice, tree)| (group.0, slice, tree)));
    }
    // Slices that would be deleted become the ones that would be created: one event instead of two.
    for (family, new) in create {
        match spare.iter().position(|(own, ..)| *own == family) {
            None => changes.create.push(new),
            Some(index) => {
                let (_, _, tree) = spare.remove(index);
                let list = new.array_at(&["endpoints"]).to_vec();
                changes.update.push(marks.rewrite(endpoints, tree, &new["ports"], list));
            }
        }
    }
    changes.delete.extend(spare.into_iter().map(|(_, slice, _)| slice));
    changes
}

/// What slices have of their Endpoints besides addresses.
struct Marks {
    labels: Value,
    annotations: Value,
}

impl Marks {
    fn of(endpoints: &Object) -> Self {
        let metadata = endpoints.metadata_value();
        let without = |field: &str, left_out: &[&str]| -> Value {
            let all = metadata[field].as_object().into_iter().flat_map(|map| map.iter());
            let kept = all.filter(|(key, _)| !left_out.contains(&key.as_str()));
            kept.map(|(key, value)| (key.clone(), value.clone())).collect::<Value>()
        };
        let mut labels = without("labels", &[]);
        labels.set_at(&[SERVICE_NAME], endpoints.name());
        labels.set_at(&[MANAGED_BY], MANAGER);
        Self { labels, annotations: without("annotations", &OWN_ANNOTATIONS) }
    }

    fn slice(&self, endpoints: &Object, family: Family, ports: &Value, list: Vec<Value>) -> Value {
        let tree = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family.name(),
            "metadata": {"generateName": format!("{}-", endpoints.name()), "namespace": endpoints.namespace()},
        });
        self.rewrite(endpoints, tree, ports, list)
    }

    fn rewrite(&self, endpoints: &Object, mut tree: Value, ports: &Value, list: Vec<Value>) -> Value {
        tree.set_at(&["metadata", "labels"], self.labels.clone());
        tree.set_at(&["metadata", "annotations"], self.annotations.clone());
        tree.set_at(&["metadata", "ownerReferences"], vec![ownership::controller_reference(endpoints)]);
        tree.set_at(&["ports"], ports.clone());
        tree.set_at(&["endpoints"], list);
        tree
    }
}

fn is_same(endpoints: &Object, marks: &Marks, tree: &Value, list: &[Value]) -> bool {
    let metadata = &tree["metadata"];
    let is_empty = |value: &Value| value.as_object().is_none_or(|map| map.is_empty());
    let annotations = &metadata["annotations"];
    let of_an_earlier_one = metadata.array_at(&["ownerReferences"]).iter().any(|owner| {
        owner.str_at(&["kind"]) == "Endpoints"
            && owner.str_at(&["name"]) == endpoints.name()
            && owner.str_at(&["uid"]) != endpoints.uid()
    });
    let in_order = |list: &[Value]| {
        let mut texts: Vec<String> = list.iter().map(Value::to_string).collect();
        texts.sort_unstable();
        texts
    };
    metadata["labels"] == marks.labels
        && (*annotations == marks.annotations || is_empty(annotations) && is_empty(&marks.annotations))
        && !of_an_earlier_one
        && in_order(tree.array_at(&["endpoints"])) == in_order(list)
}

/// How many endpoints each group has.
#[cfg(test)]
pub(super) fn sizes(wanted: &Wanted) -> Vec<(Family, usize)> {
    wanted.groups.iter().map(|((family, _), (_, list))| (*family, list.len())).collect()
}
