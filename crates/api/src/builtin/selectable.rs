//! Which fields of a kind a field selector may name, and what they read as.
//!
//! Upstream registers these by hand for each kind; so does this list. Fields are named by their path, except where
//! [`field_value`] says otherwise.

use std::borrow::Cow;

use apimachinery::{Object, Value};

use crate::Resource;

const CLUSTER: &[&str] = &["metadata.name"];
const NAMESPACED: &[&str] = &["metadata.name", "metadata.namespace"];

/// The selectable fields of a built-in kind, beginning with its name and, if it has one, its namespace.
pub(super) fn fields(group: &str, kind: &str, namespaced: bool) -> &'static [&'static str] {
    match (group, kind) {
        ("", "Pod") => &[
            "metadata.name",
            "metadata.namespace",
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        ("", "Event") => &[
            "metadata.name",
            "metadata.namespace",
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "type",
            "source",
        ],
        // The same values at the same positions under this group's names: both share one collection.
        ("events.k8s.io", "Event") => &[
            "metadata.name",
            "metadata.namespace",
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reason",
            "reportingController",
            "type",
        ],
        ("", "Namespace") => &["metadata.name", "status.phase"],
        ("", "Node") => &["metadata.name", "spec.unschedulable"],
        ("", "ReplicationController") | ("apps", "ReplicaSet") => {
            &["metadata.name", "metadata.namespace", "status.replicas"]
        }
        ("", "Secret") => &["metadata.name", "metadata.namespace", "type"],
        ("", "Service") => &["metadata.name", "metadata.namespace", "spec.clusterIP", "spec.type"],
        ("batch", "Job") => &["metadata.name", "metadata.namespace", "status.successful"],
        ("certificates.k8s.io", "CertificateSigningRequest" | "ClusterTrustBundle") => {
            &["metadata.name", "spec.signerName"]
        }
        ("certificates.k8s.io", "PodCertificateRequest") => {
            &["metadata.name", "metadata.namespace", "spec.signerName", "spec.podName", "spec.nodeName"]
        }
        ("resource.k8s.io", "ResourceSlice") => &["metadata.name", "spec.nodeName", "spec.driver"],
        _ if namespaced => NAMESPACED,
        _ => CLUSTER,
    }
}

/// The value of a selectable field by its index, as selectors compare it: like [`Object::field`], with the zero
/// values that upstream prints for absent numbers and flags, and with the fields that are not named by their path.
pub fn field_value<'o>(resource: &Resource, object: &'o Object, index: usize) -> Cow<'o, str> {
    let value = object.field(index);
    if resource.custom.is_some() {
        return value;
    }
    let Some(field) = resource.selectable_fields.get(index) else { return value };
    match field {
        "spec.unschedulable" | "spec.hostNetwork" if value.is_empty() => "false".into(),
        "status.replicas" if value.is_empty() => "0".into(),
        "status.successful" => object
            .to_value()
            .at(&["status", "succeeded"])
            .and_then(Value::as_i64)
            .unwrap_or_default()
            .to_string()
            .into(),
        // The component of the structure at this path; newer events name only a controller.
        "source" if resource.kind == "Event" => {
            let event = object.to_value();
            match event.str_at(&["source", "component"]) {
                "" => event.str_at(&["reportingComponent"]).to_owned().into(),
                component => component.to_owned().into(),
            }
        }
        _ => value,
    }
}
