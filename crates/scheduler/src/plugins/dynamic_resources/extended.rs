//! Extended resources that device classes stand for: pods ask for a number of `example.com/gpu`, and get a claim.
//!
//! A node that offers the resource itself, through a device plugin, serves it that way. On other nodes the pod's
//! containers are turned into requests of one claim, which exists in memory only until the pod is bound.

use api::view::{Container, Pod};
use apimachinery::{Object, Quantity, Str, Value, json};

use super::claims::EXTENDED_ANNOTATION;
use super::classes::Classes;
use crate::pod::PodInfo;
use crate::resource::Resources;

/// The name of a claim that exists in memory only.
pub const IN_MEMORY: &str = "<extended-resources>";

/// Kept in the state of a pod's cycle, also for the plugin that counts resources: those that device classes stand for.
/// It leaves them to devices on nodes that do not offer them.
#[derive(Clone, Debug)]
pub struct BackedResources(Vec<(Str, i64)>);

/// The requests of the claim, and which container's resource is served by which.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Requests {
    pub requests: Vec<Value>,
    pub mappings: Vec<Value>,
}

// === impl BackedResources ===

impl BackedResources {
    /// `None` when no class stands for anything that the pod asks for.
    pub fn of(pod: &PodInfo, classes: &Classes) -> Option<Self> {
        let extended = pod.requests.extended.iter();
        let backed = extended.filter(|(name, amount)| *amount > 0 && classes.of_resource(name).is_some());
        let backed: Vec<_> = backed.cloned().collect();
        (!backed.is_empty()).then_some(Self(backed))
    }

    /// Whether devices serve a resource on a node.
    pub fn is_left_to_devices(&self, resource: &str, allocatable: &Resources) -> bool {
        allocatable.extended(resource) <= 0 && self.0.iter().any(|(name, _)| name == resource)
    }

    /// The resources that devices have to serve on a node, in the order of their names.
    pub fn left_to_devices(&self, allocatable: &Resources) -> Vec<Str> {
        let left = self.0.iter().filter(|(name, _)| self.is_left_to_devices(name, allocatable));
        let mut left: Vec<Str> = left.map(|(name, _)| name.clone()).collect();
        left.sort_unstable();
        left
    }
}

/// The claim of a pod as it is in memory.
pub fn claim_in_memory(pod: &Pod, requests: Vec<Value>) -> Value {
    let metadata = &pod.metadata;
    let mut claim = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
        "metadata": {
            "name": IN_MEMORY, "generateName": format!("{}-extended-resources-", metadata.name),
            "namespace": metadata.namespace.as_str(), "uid": rt::uuid(),
            "annotations": {EXTENDED_ANNOTATION: "true"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": metadata.name.as_str(),
                "uid": metadata.uid.as_str(), "controller": true}],
        },
        "spec": {},
    });
    if !requests.is_empty() {
        claim.set_at(&["spec", "devices", "requests"], requests);
    }
    claim
}

/// A tree as an object.
pub fn object(tree: &Value) -> Option<Object> {
    Object::from_value(tree, 0, &[]).ok()
}

/// Turns what containers ask of these resources (sorted) into requests. Init containers that end reuse the devices of
/// those that run later or beside them; of what they need beyond that, the most counts.
pub fn requests(pod: &Pod, resources: &[Str], classes: &Classes) -> Requests {
    let inits = pod.spec.init_containers.iter().map(|container| (container, container.is_sidecar()));
    let containers: Vec<(&Container, bool)> =
        inits.chain(pod.spec.containers.iter().map(|container| (container, true))).collect();
    let mut all = Requests::default();
    for resource in resources {
        let Some(class) = classes.of_resource(resource) else { continue };
        add_resource(&mut all, &containers, resource, class.name());
    }
    all.requests.sort_by(|a, b| a.str_at(&["name"]).cmp(b.str_at(&["name"])));
    all
}

/// A request in the making.
#[derive(Clone, Debug)]
struct Request {
    name: String,
    count: i64,
}

fn add_resource(all: &mut Requests, containers: &[(&Container, bool)], resource: &str, class: &str) {
    let mut lasting: Vec<Option<Request>> = vec![None; containers.len()];
    let (mut lasting_mappings, mut passing_mappings) = (Vec::new(), Vec::new());
    for (index, (container, _)) in containers.iter().enumerate().filter(|(_, (_, lasts))| *lasts) {
        let (request, mappings) = of_container(index, container, resource, &[]);
        lasting[index] = request;
        lasting_mappings.extend(mappings);
    }
    let mut largest: Option<Request> = None;
    let mut passing_names = Vec::new();
    for (index, (container, _)) in containers.iter().enumerate().filter(|(_, (_, lasts))| !*lasts) {
        let (request, mappings) = of_container(index, container, resource, &lasting[index..]);
        passing_mappings.extend(mappings);
        if let Some(request) = request {
            passing_names.push(request.name.clone());
            if largest.as_ref().is_none_or(|largest| largest.count < request.count) {
                largest = Some(request);
            }
        }
    }
    if let Some(largest) = &largest {
        // The containers that end share the devices of the one that needs the most.
        for (_, _, request) in &mut passing_mappings {
            if passing_names.contains(request) {
                request.clone_from(&largest.name);
            }
        }
    }
    let made = largest.into_iter().chain(lasting.into_iter().flatten());
    all.requests.extend(made.map(|request| {
        json!({"name": request.name, "exactly": {"deviceClassName": class,
            "allocationMode": "ExactCount", "count": request.count}})
    }));
    let mappings = lasting_mappings.into_iter().chain(passing_mappings);
    all.mappings.extend(mappings.map(|(container, resource, request)| {
        json!({"containerName": container.as_str(), "resourceName": resource, "requestName": request})
    }));
}

/// What a container needs beyond the devices that it can reuse, and by which requests it is served.
fn of_container(
    index: usize,
    container: &Container,
    resource: &str,
    reusable: &[Option<Request>],
) -> (Option<Request>, Vec<(Str, String, String)>) {
    let wanted = amount(container, resource);
    let mut mappings = Vec::new();
    if wanted == 0 {
        return (None, mappings);
    }
    let mapping = |request: &str| (container.name.clone(), resource.to_owned(), request.to_owned());
    let mut reused = 0;
    for request in reusable.iter().flatten() {
        reused += request.count;
        mappings.push(mapping(&request.name));
        if reused >= wanted {
            return (None, mappings);
        }
    }
    let names = container.resources.requests.iter().map(|(name, _)| name.as_str());
    // Resources are sorted by name.
    let position = names.take_while(|name| *name < resource).count();
    let name = format!("container-{index}-request-{position}");
    mappings.push(mapping(&name));
    (Some(Request { name, count: wanted - reused }), mappings)
}

fn amount(container: &Container, resource: &str) -> i64 {
    let text = container.resources.requests.get(resource);
    let quantity = text.and_then(|text| text.parse::<Quantity>().ok());
    quantity.filter(Quantity::is_integer).map_or(0, |quantity| quantity.value())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::testing::pod;

    #[test]
    fn containers_that_end_reuse_the_devices_of_those_that_stay() {
        let mut classes = Classes::default();
        let class = json!({"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass",
            "metadata": {"name": "gpu"}, "spec": {"extendedResourceName": "x.io/gpu"}});
        classes.insert(Arc::new(object(&class).unwrap()));
        let with = |name: &str, count: u32| {
            format!(r#"{{"name":"{name}","resources":{{"requests":{{"cpu":"1","x.io/gpu":"{count}"}}}}}}"#)
        };
        let shown = |inits: &[String], containers: &[String]| {
            let spec = format!(
                r#"{{"initContainers":[{}],"containers":[{}]}}"#,
                inits.join(","),
                containers.join(",")
            );
            let made = requests(&pod("p", &spec), &["x.io/gpu".into()], &classes);
            let requests = made.requests.iter().map(|own| {
                format!("{}={}", own.str_at(&["name"]), own["exactly"]["count"].as_i64().unwrap_or(0))
            });
            let mappings = made
                .mappings
                .iter()
                .map(|own| format!("{}:{}", own.str_at(&["containerName"]), own.str_at(&["requestName"])));
            requests.chain(mappings).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(shown(&[], &[with("a", 2)]), "container-0-request-1=2 a:container-0-request-1");
        assert_eq!(
            shown(&[with("i", 1)], &[with("a", 2)]),
            "container-1-request-1=2 a:container-1-request-1 i:container-1-request-1"
        );
        assert_eq!(
            shown(&[with("i", 5), with("j", 3)], &[with("a", 2)]),
            "container-0-request-1=3 container-2-request-1=2 a:container-2-request-1 \
             i:container-2-request-1 i:container-0-request-1 j:container-2-request-1 j:container-0-request-1"
        );
        assert_eq!(shown(&[], &[with("a", 0)]), "");
    }
}
