//! `metrics.k8s.io`: what pods and nodes use, without an add-on.
//!
//! Owns: the two resources ([`resources`]) and their objects, which are made when they are asked for and stored nowhere
//! ([`ResourceMetrics`]). Never touches: where use is measured. Real nodes are asked for what they measured ([`scrape`]).
//! Containers of pods on simulated nodes use what KWOK's users say in a `ResourceUsage` or a `ClusterResourceUsage` ([`usage`]), or else what they annotate on the pod
//! (`kwok.x-k8s.io/usage-cpu`, `usage-memory`), or else what KWOK's default says.
//!
//! An APIService `v1beta1.metrics.k8s.io` that names a Service takes the group over, so that metrics-server can be
//! installed all the same.

mod scrape;
mod usage;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use api::Resource;
use api::resource::Schema;
use api::strategy::{Column, Columns, Plain};
use api::view::{Node, Pod};
use apimachinery::object::{FieldPaths, type_meta};
use apimachinery::quantity::Quantity;
use apimachinery::schema::{Node as SchemaNode, NodeKind, Schemas};
use apimachinery::time::format_seconds;
use apimachinery::{GroupResource, Object, Status, Str, Value, json};
use jiff::Timestamp;
use registry::{Endpoint, Filter, ListRequest, Page};

pub use scrape::{Measured, run};
use usage::{CLUSTER_RESOURCE_USAGES, RESOURCE_USAGES, Said, Subject};

use crate::catalog::Catalog;

pub const GROUP: &str = "metrics.k8s.io";
const VERSION: &str = "v1beta1";
/// What KWOK's default says that a container uses.
const DEFAULT_CPU: &str = "1m";
const DEFAULT_MEMORY: &str = "1Mi";
const CPU: &str = "kwok.x-k8s.io/usage-cpu";
const MEMORY: &str = "kwok.x-k8s.io/usage-memory";
/// Over how long use is said to be measured; what is simulated does not vary.
const WINDOW: &str = "30s";

const COLUMNS: Columns = Columns::Fixed {
    definitions: &[
        Column {
            name: "Name",
            kind: "string",
            format: "name",
            description: "Whose use of resources it is",
            priority: 0,
        },
        Column { name: "cpu", kind: "string", format: "", description: "Processor time in use", priority: 0 },
        Column { name: "memory", kind: "string", format: "", description: "Memory in use", priority: 0 },
        Column { name: "Window", kind: "string", format: "", description: "Measured over this", priority: 0 },
    ],
    cells,
};

/// Both resources, as descriptors.
pub fn resources() -> Vec<Arc<Resource>> {
    /// Their objects are only ever answered, so nothing is decoded against it.
    static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
        let mut schemas = Schemas::default();
        let root = schemas.push(SchemaNode { kind: NodeKind::Any, definition: None });
        Schema { schemas: Arc::new(schemas), root }
    });
    let resource = |kind: &str, plural: &'static str, namespaced: bool| Resource {
        group: GROUP.into(),
        version: VERSION.into(),
        kind: kind.into(),
        plural: plural.into(),
        singular: Str::default(),
        list_kind: format!("{kind}List").into(),
        short_names: Vec::new(),
        categories: Vec::new(),
        namespaced,
        verbs: vec!["get".into(), "list".into()],
        subresources: Vec::new(),
        storage_version: Str::default(),
        storage_prefix: Str::default(),
        schema: SCHEMA.clone(),
        selectable_fields: FieldPaths::Fixed(if namespaced {
            &["metadata.name", "metadata.namespace"]
        } else {
            &["metadata.name"]
        }),
        columns: COLUMNS,
        strategy: Arc::new(Plain),
        deprecation: None,
        custom: None,
        type_meta: type_meta(&format!("{GROUP}/{VERSION}"), kind),
        bare_list_items: false,
    };
    vec![Arc::new(resource("NodeMetrics", "nodes", false)), Arc::new(resource("PodMetrics", "pods", true))]
}

/// What a container uses and, where it was measured, until when and for how long.
struct Used {
    usage: Usage,
    over: Option<(Timestamp, Duration)>,
}

/// Makes the objects of both resources.
pub struct ResourceMetrics {
    pub nodes: Endpoint,
    pub pods: Endpoint,
    pub measured: Arc<Measured>,
}

/// Processor time and memory.
#[derive(Clone)]
pub struct Usage {
    cpu: Quantity,
    memory: Quantity,
}

impl Usage {
    fn zero() -> Self {
        Self { cpu: quantity("0"), memory: quantity("0") }
    }

    fn add(self, other: &Self) -> Self {
        Self { cpu: self.cpu.add(other.cpu), memory: self.memory.add(other.memory) }
    }

    fn to_value(&self) -> Value {
        json!({"cpu": self.cpu.to_string(), "memory": self.memory.to_string()})
    }
}

impl ResourceMetrics {
    /// Whether a resource's objects are made here.
    pub fn has(resource: &Resource) -> bool {
        resource.group == GROUP && !resource.is_stored()
    }

    pub fn get(
        &self,
        catalog: &Catalog,
        endpoint: &Endpoint,
        namespace: &str,
        name: &str,
    ) -> Result<Arc<Object>, Status> {
        let said = said_in(catalog);
        let resource = &endpoint.resource;
        let source = if resource.namespaced { &self.pods } else { &self.nodes };
        let object = source.cache.get(&source.resource.key(namespace, name));
        let by_node = || self.usage_by_node(endpoint, &said, |node| node == name);
        let made = object.and_then(|object| self.measure(endpoint, &said, &object, &by_node()));
        made.ok_or_else(|| {
            // In the words of metrics-server.
            let full = if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") };
            let group_resource = GroupResource { group: GROUP.into(), resource: resource.plural.clone() };
            Status::not_found(&group_resource, &full)
        })
    }

    pub fn list(
        &self,
        catalog: &Catalog,
        endpoint: &Endpoint,
        namespace: &str,
        request: &ListRequest,
    ) -> Result<Page, Status> {
        let said = said_in(catalog);
        let source = if endpoint.resource.namespaced { &self.pods } else { &self.nodes };
        let filter = Filter::new(endpoint, &request.labels, &request.fields)?;
        let snapshot = source.cache.snapshot();
        // Labels, name and namespace are those of whose use it is, so nothing is measured in vain.
        let prefix = source.resource.key_prefix(namespace);
        let chosen: Vec<&Arc<Object>> = snapshot
            .range(&prefix, None)
            .map(|(_, object)| object)
            .filter(|object| filter.matches(object))
            .collect();
        let names: HashSet<&str> = chosen.iter().map(|object| object.name()).collect();
        let by_node = self.usage_by_node(endpoint, &said, |node| names.contains(node));
        let objects =
            chosen.iter().filter_map(|object| self.measure(endpoint, &said, object, &by_node)).collect();
        Ok(Page { objects, revision: snapshot.revision, continue_token: String::new(), remaining: None })
    }

    /// The use of the pods of some nodes; only nodes need it.
    fn usage_by_node(
        &self,
        endpoint: &Endpoint,
        said: &Said,
        wanted: impl Fn(&str) -> bool,
    ) -> HashMap<Str, Usage> {
        let mut by_node: HashMap<Str, Usage> = HashMap::new();
        if endpoint.resource.namespaced {
            return by_node;
        }
        for object in self.pods.cache.snapshot().objects.values() {
            let Ok(pod) = object.view::<Pod>() else { continue };
            if !wanted(&pod.spec.node_name) || self.is_real(&pod.spec.node_name) {
                continue;
            }
            let Some(containers) = self.containers(said, object, &pod) else { continue };
            let sum = containers.iter().fold(Usage::zero(), |sum, (_, own)| sum.add(&own.usage));
            let node = by_node.entry(pod.spec.node_name.clone()).or_insert_with(Usage::zero);
            *node = node.clone().add(&sum);
        }
        by_node
    }

    /// Such a node says itself what it uses.
    fn is_real(&self, node: &str) -> bool {
        let object = self.nodes.cache.get(&self.nodes.resource.key("", node));
        object.is_some_and(|object| !is_simulated(&object))
    }

    /// What is known about an object's use; `None` for pods that do not run, and where nothing was measured yet.
    fn measure(
        &self,
        endpoint: &Endpoint,
        said: &Said,
        object: &Object,
        by_node: &HashMap<Str, Usage>,
    ) -> Option<Arc<Object>> {
        let now = format_seconds(rt::now());
        let mut made = json!({
            "apiVersion": endpoint.resource.api_version(), "kind": endpoint.resource.kind.as_str(),
            "metadata": {"name": object.name(), "creationTimestamp": now.as_str()},
            "timestamp": now.as_str(), "window": WINDOW,
        });
        let labels = object.labels().map(|(key, value)| (Str::from(key), Value::from(value)));
        if labels.len() > 0 {
            made.set_at(&["metadata", "labels"], labels.collect::<Value>());
        }
        let measured = if endpoint.resource.namespaced {
            let pod = object.view::<Pod>().ok()?;
            let all = self.containers(said, object, &pod)?;
            let measured = all.iter().find_map(|(_, own)| own.over);
            let of = |(name, own): (Str, Used)| json!({"name": name.as_str(), "usage": own.usage.to_value()});
            made.set_at(&["metadata", "namespace"], object.namespace());
            made.set_at(&["containers"], all.into_iter().map(of).collect::<Vec<Value>>());
            measured
        } else if is_simulated(object) {
            let usage = by_node.get(object.name()).cloned().unwrap_or_else(Usage::zero);
            made.set_at(&["usage"], usage.to_value());
            None
        } else {
            let own = self.measured.node(object.name())?;
            made.set_at(&["usage"], own.usage.to_value());
            Some((own.at, own.window))
        };
        if let Some((at, window)) = measured {
            made.set_at(&["timestamp"], format_seconds(at));
            made.set_at(&["window"], format!("{}s", window.as_millis() as f64 / 1e3));
        }
        let fields: Vec<&str> = endpoint.resource.selectable_fields.iter().collect();
        Object::from_value(&made, object.revision(), &fields).ok().map(Arc::new)
    }

    /// The containers of a running pod and what they use; `None` while that of one of them is not known.
    fn containers(&self, said: &Said, object: &Object, pod: &Pod) -> Option<Vec<(Str, Used)>> {
        if pod.status.phase != "Running" || object.is_deleting() {
            return None;
        }
        let node = self.nodes.cache.get(&self.nodes.resource.key("", &pod.spec.node_name))?;
        let names = pod.spec.containers.iter().map(|own| &own.name);
        if !is_simulated(&node) {
            let of = |name: &Str| {
                let own = self.measured.container(node.name(), object.namespace(), object.name(), name)?;
                Some((name.clone(), Used { usage: own.usage, over: Some((own.at, own.window)) }))
            };
            return names.map(of).collect();
        }
        let usage = Usage {
            cpu: annotated(pod, CPU).unwrap_or_else(|| quantity(DEFAULT_CPU)),
            memory: annotated(pod, MEMORY).unwrap_or_else(|| quantity(DEFAULT_MEMORY)),
        };
        let subject = Subject::new(&node, object);
        let of = |name: &Str| {
            let usage = match said.usage(&subject, name, ["cpu", "memory"]) {
                Some([cpu, memory]) => Usage { cpu, memory },
                None => usage.clone(),
            };
            (name.clone(), Used { usage, over: None })
        };
        Some(names.map(of).collect())
    }
}

fn said_in(catalog: &Catalog) -> Said {
    Said::new(catalog.find(&RESOURCE_USAGES).cloned(), catalog.find(&CLUSTER_RESOURCE_USAGES).cloned())
}

fn is_simulated(node: &Object) -> bool {
    node.view::<Node>().is_ok_and(|node| node.is_simulated())
}

fn annotated(pod: &Pod, key: &str) -> Option<Quantity> {
    Quantity::parse(pod.metadata.annotations.get(key)?).ok()
}

fn quantity(text: &str) -> Quantity {
    Quantity::parse(text).expect("our own quantities can be parsed")
}

/// Name, the sum over all containers, window.
fn cells(object: &Value, _now: Timestamp) -> Vec<Value> {
    let mut usages = vec![&object["usage"]];
    usages.extend(object.array_at(&["containers"]).iter().map(|own| &own["usage"]));
    let sum = |key: &str| {
        let amounts = usages.iter().filter_map(|usage| Quantity::parse(usage.str_at(&[key])).ok());
        amounts.fold(quantity("0"), Quantity::add).to_string()
    };
    vec![
        object.str_at(&["metadata", "name"]).into(),
        sum("cpu").into(),
        sum("memory").into(),
        object.str_at(&["window"]).into(),
    ]
}
