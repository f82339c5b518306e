//! What KWOK's users say that containers use: `ResourceUsage` and `ClusterResourceUsage`.
//!
//! Owns: which of them speaks about a container, and the value of what it says, a quantity or an expression of CEL over
//! `node`, `pod` and `container`. Never touches: what is used where nobody says anything.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use apimachinery::quantity::Format;
use apimachinery::{GroupVersionResource, Object, Quantity, Str, Value};
use cel::{Activation, Budget, Decl, Environment, Opaques, Program, limits};
use parking_lot::Mutex;
use registry::Endpoint;
use serde::Deserialize;
use tracing::{debug, warn};

const fn kwok(resource: &'static str) -> GroupVersionResource {
    GroupVersionResource {
        group: Str::const_new("kwok.x-k8s.io"),
        version: Str::const_new("v1alpha1"),
        resource: Str::const_new(resource),
    }
}

/// For the pod of the same name and namespace.
pub const RESOURCE_USAGES: GroupVersionResource = kwok("resourceusages");
/// For all pods that it selects.
pub const CLUSTER_RESOURCE_USAGES: GroupVersionResource = kwok("clusterresourceusages");

/// `ResourceUsage` and `ClusterResourceUsage`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct UsageObject {
    spec: UsageSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct UsageSpec {
    selector: Option<ObjectSelector>,
    usages: Vec<ContainerUsage>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ObjectSelector {
    match_namespaces: Vec<Str>,
    match_names: Vec<Str>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ContainerUsage {
    containers: Vec<Str>,
    usage: HashMap<Str, UsageValue>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct UsageValue {
    value: Option<Value>,
    expression: Option<Str>,
}

/// Everything that is said, at one time.
pub struct Said {
    own: Option<Endpoint>,
    cluster: Vec<Arc<UsageObject>>,
}

/// A pod whose containers use something, and its node; expressions look at them as trees, read once for all of them.
pub struct Subject<'a> {
    node: &'a Object,
    pod: &'a Object,
    node_tree: OnceCell<Value>,
    pod_tree: OnceCell<Value>,
}

static ENVIRONMENT: LazyLock<Environment> = LazyLock::new(|| {
    let declare = |environment: Environment, name| environment.variable(name, Decl::dynamic());
    ["node", "pod", "container"].into_iter().fold(Environment::new().simulation(), declare)
});

const NODE: usize = 0;
const POD: usize = 1;
const CONTAINER: usize = 2;

/// Compiled expressions; all are forgotten when there are more than this.
const PROGRAMS_MAX: usize = 1_000;
static PROGRAMS: LazyLock<Mutex<HashMap<Str, Option<Arc<Program>>>>> = LazyLock::new(Mutex::default);

// === impl Subject ===

impl<'a> Subject<'a> {
    pub fn new(node: &'a Object, pod: &'a Object) -> Self {
        Self { node, pod, node_tree: OnceCell::new(), pod_tree: OnceCell::new() }
    }

    fn node_tree(&self) -> &Value {
        self.node_tree.get_or_init(|| with_maps(self.node.to_value()))
    }

    fn pod_tree(&self) -> &Value {
        self.pod_tree.get_or_init(|| with_maps(self.pod.to_value()))
    }

    fn container_tree(&self, name: &str) -> Option<&Value> {
        let containers = self.pod_tree().array_at(&["spec", "containers"]);
        containers.iter().find(|own| own.str_at(&["name"]) == name)
    }
}

// === impl Said ===

impl Said {
    /// What is said by the objects of these resources, as far as they are served.
    pub fn new(own: Option<Endpoint>, cluster: Option<Endpoint>) -> Self {
        let cluster = cluster.map(|endpoint| endpoint.cache.snapshot());
        let objects = cluster.iter().flat_map(|snapshot| snapshot.objects.values());
        let views = objects.filter_map(|object| object.view::<UsageObject>().ok()).collect();
        Self { own: own.filter(|own| !own.cache.snapshot().objects.is_empty()), cluster: views }
    }

    /// What a container uses of some resources; `None` if nobody says anything about it. A resource that is left out,
    /// or that cannot be reckoned, is not used.
    pub fn usage<const N: usize>(
        &self,
        subject: &Subject<'_>,
        container: &str,
        resources: [&str; N],
    ) -> Option<[Quantity; N]> {
        let (namespace, name) = (subject.pod.namespace(), subject.pod.name());
        let of = |usage: &ContainerUsage| resources.map(|resource| usage.of(resource, subject, container));
        let own = self.own.as_ref().and_then(|own| own.cache.get(&own.resource.key(namespace, name)));
        if let Some(own) = own.and_then(|own| own.view::<UsageObject>().ok()) {
            return Some(own.spec.about(container).map_or([Quantity::ZERO; N], of));
        }
        let selects =
            |spec: &UsageSpec| spec.selector.as_ref().is_none_or(|own| own.matches(namespace, name));
        let mut chosen = self.cluster.iter().filter(|cluster| selects(&cluster.spec));
        chosen.find_map(|cluster| cluster.spec.about(container)).map(of)
    }
}

impl ObjectSelector {
    fn matches(&self, namespace: &str, name: &str) -> bool {
        let among = |names: &[Str], own: &str| names.is_empty() || names.iter().any(|name| name == own);
        among(&self.match_namespaces, namespace) && among(&self.match_names, name)
    }
}

impl UsageSpec {
    /// What names the container, or else the first that names none.
    fn about(&self, container: &str) -> Option<&ContainerUsage> {
        let named = self.usages.iter().find(|usage| usage.containers.iter().any(|name| name == container));
        named.or_else(|| self.usages.iter().find(|usage| usage.containers.is_empty()))
    }
}

impl ContainerUsage {
    fn of(&self, resource: &str, subject: &Subject<'_>, container: &str) -> Quantity {
        let Some(said) = self.usage.get(resource) else { return Quantity::ZERO };
        let value = said.value.as_ref().filter(|value| !value.is_null());
        if let Some(value) = value {
            let text = value.as_str().map_or_else(|| value.to_json_string(), str::to_owned);
            return Quantity::parse(&text).unwrap_or(Quantity::ZERO);
        }
        let expression = said.expression.as_ref().map(|text| evaluate(text, subject, container));
        expression.flatten().unwrap_or(Quantity::ZERO)
    }
}

// === expressions ===

fn program(text: &Str) -> Option<Arc<Program>> {
    let mut programs = PROGRAMS.lock();
    if let Some(known) = programs.get(text) {
        return known.clone();
    }
    let compiled = match ENVIRONMENT.compile(text) {
        Ok(program) => Some(Arc::new(program)),
        Err(error) => {
            // Once for each, since what came of it is kept.
            warn!(expression = %text, %error, "Compiled no expression of a resource usage, so that it says 0");
            None
        }
    };
    if programs.len() >= PROGRAMS_MAX {
        programs.clear();
    }
    programs.insert(text.clone(), compiled.clone());
    compiled
}

fn evaluate(text: &Str, subject: &Subject<'_>, container: &str) -> Option<Quantity> {
    let program = program(text)?;
    let mut activation = Activation::new(&ENVIRONMENT);
    if program.reads(NODE) {
        activation.bind(NODE, cel::Value::dynamic(subject.node_tree()));
    }
    if program.reads(POD) {
        activation.bind(POD, cel::Value::dynamic(subject.pod_tree()));
    }
    if let Some(own) = program.reads(CONTAINER).then(|| subject.container_tree(container)).flatten() {
        activation.bind(CONTAINER, cel::Value::dynamic(own));
    }
    match program.eval(&activation, &mut Budget::new(limits::PER_CALL)) {
        Ok(value) => as_quantity(&value),
        Err(error) => {
            debug!(expression = %text, %error, "Evaluated no expression of a resource usage");
            None
        }
    }
}

/// Labels and annotations can be looked into also where an object has none, as in Go.
fn with_maps(mut object: Value) -> Value {
    for field in ["labels", "annotations"] {
        object.ensure_object_at(&["metadata", field]);
    }
    object
}

/// In whole units, or in millionths of thousandths of one.
fn as_quantity(value: &cel::Value<'_>) -> Option<Quantity> {
    match value {
        cel::Value::Opaque(opaque) => match &**opaque {
            Opaques::Quantity(quantity) => Some(*quantity),
            _ => None,
        },
        cel::Value::Int(number) | cel::Value::Duration(number) => {
            Some(Quantity::new(*number, Format::DecimalSi))
        }
        cel::Value::Uint(number) => Quantity::parse(&number.to_string()).ok(),
        cel::Value::Bool(flag) => Some(Quantity::new((*flag).into(), Format::DecimalSi)),
        cel::Value::Double(number) if number.is_finite() && number.abs() < 1e9 => {
            Quantity::parse(&format!("{}n", (number * 1e9) as i64)).ok()
        }
        cel::Value::Double(number) if number.is_finite() => {
            Some(Quantity::new(*number as i64, Format::DecimalSi))
        }
        cel::Value::String(text) => Quantity::parse(text).ok(),
        _ => None,
    }
}
