//! `NodeRestriction`: a kubelet writes its own node and what runs on it, and nothing else.
//!
//! The Node authorizer decides by what is asked for; this plugin by what is in it.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::gvr;
use api::kinds::core::pod::references;
use api::validation::fields::same;
use apimachinery::field::go_quote;
use apimachinery::{Status, Value};
use auth::Authorizer;
use auth::node::node_of;
use registry::Endpoint;
use registry::admission::{Attributes, Operation};

use crate::plugins::{BuildError, Environment};
use crate::{Plugin, certificates, forbidden, look_up};

const MIRROR: &str = "kubernetes.io/config.mirror";
const LEASES: &str = "kube-node-lease";

/// Labels that a kubelet may give its node, of those that Kubernetes reserves.
const OWN_LABELS: [&str; 11] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];
const OWN_DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];
/// Labels by which administrators keep workloads to nodes that the nodes themselves cannot claim to be.
const RESTRICTED_DOMAIN: &str = "node-restriction.kubernetes.io";

pub struct NodeRestriction {
    pods: Endpoint,
    nodes: Endpoint,
    claims: Endpoint,
    volumes: Endpoint,
    drivers: Endpoint,
    authorizer: Arc<dyn Authorizer>,
}

type Checked = Result<(), Status>;

impl NodeRestriction {
    pub fn new(environment: &Environment<'_>) -> Result<Self, BuildError> {
        Ok(Self {
            pods: environment.endpoint(&gvr::PODS)?,
            nodes: environment.endpoint(&gvr::NODES)?,
            claims: environment.endpoint(&gvr::PERSISTENT_VOLUME_CLAIMS)?,
            volumes: environment.endpoint(&gvr::PERSISTENT_VOLUMES)?,
            drivers: environment.named("storage.k8s.io", "v1", "csidrivers")?,
            authorizer: environment.authorizer.clone(),
        })
    }

    fn check(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Checked {
        let Some(node) = node_of(attributes.user) else { return Ok(()) };
        if node.is_empty() {
            let user = go_quote(attributes.user.name());
            return Err(forbidden(attributes, format!("could not determine node from user {user}")));
        }
        let resource = attributes.resource;
        match (resource.group.as_str(), resource.plural.as_str()) {
            ("", "pods") => self.check_pods(node, attributes, object),
            ("", "nodes") => check_node(node, attributes, object),
            ("", "persistentvolumeclaims") => check_claim(node, attributes, object),
            ("", "serviceaccounts") => self.check_token(node, attributes, object),
            ("certificates.k8s.io", "podcertificaterequests") => {
                Err(forbidden(attributes, "PodCertificateRequest feature gate is disabled"))
            }
            ("coordination.k8s.io", "leases") => check_lease(node, attributes),
            ("storage.k8s.io", "csinodes") if attributes.name != node => Err(forbidden(
                attributes,
                "can only access CSINode with the same name as the requesting node",
            )),
            ("resource.k8s.io", "resourceslices") => check_slice(node, attributes, object),
            ("certificates.k8s.io", "certificatesigningrequests") => check_request(node, attributes, object),
            _ => Ok(()),
        }
    }

    fn check_pods(&self, node: &str, attributes: &Attributes<'_>, object: Option<&Value>) -> Checked {
        let quoted = go_quote(node);
        match (attributes.subresource, attributes.operation) {
            (None, Operation::Create) => self.check_new_pod(node, attributes, object.unwrap_or(&Value::Null)),
            (None, Operation::Delete) => {
                let own = attributes.old_value().is_some_and(|pod| node_name(&pod) == node);
                require(own, attributes, || {
                    format!("node {quoted} can only delete pods with spec.nodeName set to itself")
                })
            }
            (None, operation) => Err(forbidden(
                attributes,
                format!(
                    "unexpected operation \"{}\", node {quoted} can only create and delete mirror pods",
                    operation.name()
                ),
            )),
            (Some("status"), Operation::Update) => {
                let old = attributes.old_value().unwrap_or_default();
                check_pod_status(&quoted, node, object.unwrap_or(&Value::Null), &old)
                    .map_err(|why| forbidden(attributes, why))
            }
            (Some("eviction"), Operation::Create) => {
                let Some(pod) = look_up(&self.pods, attributes.namespace, attributes.name) else {
                    return Err(Status::not_found(&attributes.resource.group_resource(), attributes.name));
                };
                require(node_name(&pod.to_value()) == node, attributes, || {
                    format!("node {node} can only evict pods with spec.nodeName set to itself")
                })
            }
            (Some("status" | "eviction"), operation) => {
                Err(forbidden(attributes, format!("unexpected operation \"{}\"", operation.name())))
            }
            (Some(other), _) => Err(forbidden(
                attributes,
                format!(
                    "unexpected pod subresource {}, only 'status' and 'eviction' are allowed",
                    go_quote(other)
                ),
            )),
        }
    }

    fn check_new_pod(&self, node: &str, attributes: &Attributes<'_>, pod: &Value) -> Checked {
        let refuse = |why: String| Err(forbidden(attributes, why));
        let quoted = go_quote(node);
        if pod.at(&["metadata", "annotations", MIRROR]).is_none() {
            return refuse(format!(
                "pod does not have \"{MIRROR}\" annotation, node {quoted} can only create mirror pods"
            ));
        }
        if node_name(pod) != node {
            return refuse(format!("node {quoted} can only create pods with spec.nodeName set to itself"));
        }
        let owner = match pod.array_at(&["metadata", "ownerReferences"]) {
            [owner] => owner,
            [] => {
                return refuse(format!(
                    "node {quoted} can only create pods with an owner reference set to itself"
                ));
            }
            _ => {
                return refuse(format!(
                    "node {quoted} can only create pods with a single owner reference set to itself"
                ));
            }
        };
        let is_self = owner.str_at(&["apiVersion"]) == "v1"
            && owner.str_at(&["kind"]) == "Node"
            && owner.str_at(&["name"]) == node;
        if !is_self {
            return refuse(format!(
                "node {quoted} can only create pods with an owner reference set to itself"
            ));
        }
        if owner["controller"].as_bool() != Some(true) {
            return refuse(format!(
                "node {quoted} can only create pods with a controller owner reference set to itself"
            ));
        }
        if owner["blockOwnerDeletion"].as_bool() == Some(true) {
            return refuse(format!("node {quoted} must not set blockOwnerDeletion on an owner reference"));
        }
        let Some(own) = look_up(&self.nodes, "", node) else {
            return Err(Status::not_found(&self.nodes.resource.group_resource(), node));
        };
        let uid = owner.str_at(&["uid"]);
        if uid != own.uid() {
            return refuse(format!("node {node} UID mismatch: expected {uid} got {}", own.uid()));
        }
        match references::from_api(pod) {
            Some(what) => refuse(format!("node {quoted} can not create pods that reference {what}")),
            None => Ok(()),
        }
    }

    /// A node asks for tokens of pods that run on it, and for audiences that these name.
    fn check_token(&self, node: &str, attributes: &Attributes<'_>, object: Option<&Value>) -> Checked {
        if attributes.operation != Operation::Create || attributes.subresource != Some("token") {
            return Ok(());
        }
        let request = object.unwrap_or(&Value::Null);
        let bound = &request["spec"]["boundObjectRef"];
        let text = |key: &str| bound.str_at(&[key]);
        if text("apiVersion") != "v1" || text("kind") != "Pod" || text("name").is_empty() {
            return Err(forbidden(attributes, "node requested token not bound to a pod"));
        }
        if text("uid").is_empty() {
            return Err(forbidden(attributes, "node requested token with a pod binding without a uid"));
        }
        let Some(pod) = look_up(&self.pods, attributes.namespace, text("name")) else {
            return Err(Status::not_found(&self.pods.resource.group_resource(), text("name")));
        };
        if pod.uid() != text("uid") {
            let why = format!(
                "the UID in the bound object reference ({}) does not match the UID in record. The object might have been \
                 deleted and then recreated",
                text("uid")
            );
            return Err(forbidden(attributes, why));
        }
        let pod = pod.to_value();
        if node_name(&pod) != node {
            return Err(forbidden(
                attributes,
                "node requested token bound to a pod scheduled on a different node",
            ));
        }
        self.check_audience(attributes, request, &pod).map_err(|why| forbidden(attributes, why))
    }

    fn check_audience(
        &self,
        attributes: &Attributes<'_>,
        request: &Value,
        pod: &Value,
    ) -> Result<(), String> {
        let audience = match request.array_at(&["spec", "audiences"]) {
            [] => "",
            [only] => only.as_str().unwrap_or_default(),
            _ => return Err("node may only request 0 or 1 audiences".to_owned()),
        };
        if self.names_audience(pod, audience) {
            return Ok(());
        }
        let asked = auth::Attributes {
            api_version: "v1",
            namespace: attributes.namespace,
            name: attributes.name,
            ..auth::Attributes::resource(attributes.user, "request-serviceaccounts-token-audience", audience)
        };
        if self.authorizer.authorize(&asked).is_allowed() {
            return Ok(());
        }
        Err(format!(
            "audience {} not found in pod spec volume, {} is not authorized to request tokens for this audience",
            go_quote(audience),
            attributes.user.name()
        ))
    }

    /// Whether a token for the audience belongs into the pod: by a projected volume, or for a driver of a volume.
    fn names_audience(&self, pod: &Value, audience: &str) -> bool {
        pod.array_at(&["spec", "volumes"]).iter().any(|volume| {
            let projected = volume.array_at(&["projected", "sources"]).iter().any(|source| {
                source["serviceAccountToken"].is_object()
                    && source.str_at(&["serviceAccountToken", "audience"]) == audience
            });
            projected || self.driver(pod, volume).is_some_and(|driver| self.driver_wants(&driver, audience))
        })
    }

    /// The CSI driver of a volume.
    fn driver(&self, pod: &Value, volume: &Value) -> Option<String> {
        let named = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let claim = if volume["ephemeral"].is_object() {
            format!("{}-{}", pod.str_at(&["metadata", "name"]), volume.str_at(&["name"]))
        } else if volume["persistentVolumeClaim"].is_object() {
            volume.str_at(&["persistentVolumeClaim", "claimName"]).to_owned()
        } else {
            return named(volume.str_at(&["csi", "driver"]));
        };
        let claim = look_up(&self.claims, pod.str_at(&["metadata", "namespace"]), &claim)?.to_value();
        let volume = look_up(&self.volumes, "", claim.str_at(&["spec", "volumeName"]))?.to_value();
        named(volume.str_at(&["spec", "csi", "driver"]))
    }

    fn driver_wants(&self, driver: &str, audience: &str) -> bool {
        let driver = look_up(&self.drivers, "", driver).map(|driver| driver.to_value()).unwrap_or_default();
        driver
            .array_at(&["spec", "tokenRequests"])
            .iter()
            .any(|request| request.str_at(&["audience"]) == audience)
    }
}

impl Plugin for NodeRestriction {
    fn mutate(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), Status> {
        self.check(attributes, Some(object))
    }

    /// What has no object is not mutated, so deletes are looked at here.
    fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        if object.is_some() { Ok(()) } else { self.check(attributes, None) }
    }
}

fn node_name(pod: &Value) -> &str {
    pod.str_at(&["spec", "nodeName"])
}

fn require(holds: bool, attributes: &Attributes<'_>, why: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(forbidden(attributes, why())) }
}

fn check_pod_status(quoted: &str, node: &str, new: &Value, old: &Value) -> Result<(), String> {
    if node_name(old) != node {
        return Err(format!(
            "node {quoted} can only update pod status for pods with spec.nodeName set to itself"
        ));
    }
    let differs =
        |path: &[&str]| !same(new.at(path).unwrap_or(&Value::Null), old.at(path).unwrap_or(&Value::Null));
    if differs(&["metadata", "labels"]) {
        return Err(format!("node {quoted} cannot update labels through pod status"));
    }
    if differs(&["status", "resourceClaimStatuses"]) {
        return Err(format!("node {quoted} cannot update resource claim statues"));
    }
    if differs(&["status", "extendedResourceClaimStatus"]) {
        return Err(format!("node {quoted} cannot update extended resource claim status"));
    }
    Ok(())
}

fn check_node(node: &str, attributes: &Attributes<'_>, object: Option<&Value>) -> Checked {
    let quoted = go_quote(node);
    if attributes.name != node {
        let why = format!("node {quoted} is not allowed to modify node {}", go_quote(attributes.name));
        return Err(forbidden(attributes, why));
    }
    let Some(new) = object else { return Ok(()) };
    changed_node(&quoted, new, attributes.old_value().as_deref()).map_err(|why| forbidden(attributes, why))
}

fn changed_node(quoted: &str, new: &Value, old: Option<&Value>) -> Result<(), String> {
    let source = &new["spec"]["configSource"];
    let Some(old) = old else {
        if !source.is_null() {
            return Err(format!("node {quoted} is not allowed to create pods with a non-nil configSource"));
        }
        let labels = forbidden_labels(new, &Value::Null);
        if labels.is_empty() {
            return Ok(());
        }
        return Err(format!(
            "node {quoted} is not allowed to set the following labels: {}",
            labels.into_iter().collect::<Vec<_>>().join(", ")
        ));
    };
    let differs =
        |path: &[&str]| !same(new.at(path).unwrap_or(&Value::Null), old.at(path).unwrap_or(&Value::Null));
    if !source.is_null() && differs(&["spec", "configSource"]) {
        return Err(format!(
            "node {quoted} is not allowed to update configSource to a new non-nil configSource"
        ));
    }
    if differs(&["spec", "taints"]) {
        return Err(format!("node {quoted} is not allowed to modify taints"));
    }
    if differs(&["metadata", "ownerReferences"]) {
        return Err(format!("node {quoted} is not allowed to modify ownerReferences"));
    }
    let labels = forbidden_labels(new, old);
    if labels.is_empty() {
        return Ok(());
    }
    Err(format!("is not allowed to modify labels: {}", labels.into_iter().collect::<Vec<_>>().join(", ")))
}

/// The labels that are different and that a kubelet may not touch.
fn forbidden_labels<'a>(new: &'a Value, old: &'a Value) -> BTreeSet<&'a str> {
    let labels = |object: &'a Value| object["metadata"]["labels"].as_object();
    let (new, old) = (labels(new), labels(old));
    let value = |map: Option<&'a apimachinery::Map>, key: &str| map.and_then(|map| map.get(key)).cloned();
    let keys = new.into_iter().chain(old).flat_map(|map| map.keys());
    keys.map(|key| key.as_str())
        .filter(|key| value(new, key) != value(old, key))
        .filter(|key| is_forbidden(key))
        .collect()
}

fn is_forbidden(label: &str) -> bool {
    let domain = label.split_once('/').map_or("", |(domain, _)| domain);
    let within =
        |own: &str| domain == own || domain.strip_suffix(own).is_some_and(|rest| rest.ends_with('.'));
    let own = OWN_LABELS.contains(&label) || OWN_DOMAINS.iter().any(|own| within(own));
    within(RESTRICTED_DOMAIN) || (within("kubernetes.io") || within("k8s.io")) && !own
}

fn check_claim(node: &str, attributes: &Attributes<'_>, object: Option<&Value>) -> Checked {
    if attributes.subresource != Some("status") {
        return Err(forbidden(attributes, "may only update PVC status"));
    }
    if attributes.operation != Operation::Update {
        let why = format!("unexpected operation \"{}\"", attributes.operation.name());
        return Err(forbidden(attributes, why));
    }
    let rest = |object: &Value| {
        let mut object = object.clone();
        object.remove_at(&["metadata", "resourceVersion"]);
        object.remove_at(&["metadata", "managedFields"]);
        for key in ["capacity", "conditions", "allocatedResources", "allocatedResourceStatuses"] {
            object.remove_at(&["status", key]);
        }
        object
    };
    let old = attributes.old_value().unwrap_or_default();
    require(same(&rest(object.unwrap_or(&Value::Null)), &rest(&old)), attributes, || {
        format!(
            "node {} is not allowed to update fields other than status.quantity and status.conditions",
            go_quote(node)
        )
    })
}

fn check_lease(node: &str, attributes: &Attributes<'_>) -> Checked {
    require(attributes.namespace == LEASES, attributes, || {
        format!("can only access leases in the \"{LEASES}\" system namespace")
    })?;
    require(attributes.name == node, attributes, || {
        "can only access node lease with the same name as the requesting node".to_owned()
    })
}

fn check_slice(node: &str, attributes: &Attributes<'_>, object: Option<&Value>) -> Checked {
    let own = |slice: &Value| slice["spec"]["nodeName"].as_str() == Some(node);
    match attributes.operation {
        Operation::Create => require(object.is_some_and(own), attributes, || {
            "can only create ResourceSlice with the same NodeName as the requesting node".to_owned()
        }),
        Operation::Delete => require(attributes.old_value().is_some_and(|old| own(&old)), attributes, || {
            "can only delete ResourceSlice with the same NodeName as the requesting node".to_owned()
        }),
        _ => Ok(()),
    }
}

fn check_request(node: &str, attributes: &Attributes<'_>, object: Option<&Value>) -> Checked {
    const OWN_SIGNERS: [&str; 2] =
        ["kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"];
    let Some(request) = object.filter(|_| attributes.operation == Operation::Create) else { return Ok(()) };
    if attributes.subresource.is_some() || !OWN_SIGNERS.contains(&request.str_at(&["spec", "signerName"])) {
        return Ok(());
    }
    let parsed = certificates::parse(request)
        .map_err(|why| forbidden(attributes, format!("unable to parse csr: {why}")))?;
    require(parsed.user == format!("{}{node}", auth::user::NODE_PREFIX), attributes, || {
        format!("can only create a node CSR with CN=system:node:{node}")
    })
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn kubelets_touch_only_labels_that_are_theirs() {
        for (label, forbidden) in [
            ("example.com/x", false),
            ("plain", false),
            ("kubernetes.io/hostname", false),
            ("topology.kubernetes.io/zone", false),
            ("x.node.kubernetes.io/y", false),
            ("kubelet.kubernetes.io/y", false),
            ("node-role.kubernetes.io/control-plane", true),
            ("node-restriction.kubernetes.io/x", true),
            ("a.node-restriction.kubernetes.io/x", true),
            ("k8s.io/x", true),
            ("notkubernetes.io/x", false),
        ] {
            assert_eq!(is_forbidden(label), forbidden, "{label}");
        }
        let labelled = |labels: Value| json!({"metadata": {"labels": labels}});
        let (new, old) = (labelled(json!({"k8s.io/a": "1", "b": "2"})), labelled(json!({"k8s.io/c": "3"})));
        let found: Vec<&str> = forbidden_labels(&new, &old).into_iter().collect();
        assert_eq!(found, ["k8s.io/a", "k8s.io/c"], "also those that were removed");
    }

    #[test]
    fn a_node_does_not_choose_what_is_scheduled_on_it() {
        let old = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"taints": [{"key": "k"}]}});
        for (change, path, why) in [
            (json!([]), &["spec", "taints"][..], "node \"n\" is not allowed to modify taints"),
            (
                json!([{"uid": "u"}]),
                &["metadata", "ownerReferences"],
                "node \"n\" is not allowed to modify ownerReferences",
            ),
            (
                json!({"a": "1", "k8s.io/x": ""}),
                &["metadata", "labels"],
                "is not allowed to modify labels: k8s.io/x",
            ),
            (
                json!({"configMap": {}}),
                &["spec", "configSource"],
                "node \"n\" is not allowed to update configSource to a new non-nil configSource",
            ),
        ] {
            let mut new = old.clone();
            new.set_at(path, change);
            assert_eq!(changed_node("\"n\"", &new, Some(&old)), Err(why.to_owned()));
        }
        let mut ready = old.clone();
        ready.set_at(&["status", "phase"], "Running");
        assert_eq!(changed_node("\"n\"", &ready, Some(&old)), Ok(()));
    }

    #[test]
    fn only_the_status_of_own_pods_is_written() {
        let pod = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"nodeName": "n"}, "status": {}});
        let mut running = pod.clone();
        running.set_at(&["status", "phase"], "Running");
        assert_eq!(check_pod_status("\"n\"", "n", &running, &pod), Ok(()));
        assert!(check_pod_status("\"m\"", "m", &running, &pod).is_err());
        running.set_at(&["metadata", "labels", "a"], "2");
        assert!(
            check_pod_status("\"n\"", "n", &running, &pod)
                .is_err_and(|why| why.contains("cannot update labels"))
        );
    }
}
