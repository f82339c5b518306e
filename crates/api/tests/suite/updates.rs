//! What may not change of each kind, and what its status may not say: one row for each rule of upstream's
//! `Validate…Update` functions that a change of one field can show.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::Resource;
use api::builtin;
use api::strategy::Context;
use apimachinery::Value;
use apimachinery::decode::normalize;
use jiff::Timestamp;
use serde_json::{Value as Json, json};

/// Group and version, kind, and an object of it that is good.
type Base = (&'static str, &'static str, Json);

/// Kind, subresource, path and new value of the change, and the start and the end of the complaint; both are empty for
/// a change that is fine.
type Row = (&'static str, Option<&'static str>, &'static [&'static str], Json, &'static str, &'static str);

const STATUS: Option<&str> = Some("status");
const FIXED: &str = "field is immutable";
/// PEM around a byte of nobody.
const CERTIFICATE_REQUEST: &str =
    "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KQWc9PQotLS0tLUVORCBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K";

fn template() -> Json {
    json!({
        "metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i", "terminationMessagePolicy": "File", "imagePullPolicy": "Always"}]},
    })
}

fn bases() -> Vec<Base> {
    let selector = json!({"matchLabels": {"a": "b"}});
    let workload = |more: Json| {
        let mut spec = json!({"selector": selector, "template": template()});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"spec": spec})
    };
    let mut job = template();
    job["spec"]["restartPolicy"] = "Never".into();
    let claim = json!({"spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
        "volumeName": "v", "storageClassName": "s",
    }, "status": {"phase": "Bound"}});
    vec![
        ("v1", "ConfigMap", json!({"immutable": true, "data": {"a": "b"}})),
        ("v1", "Secret", json!({"type": "Opaque", "immutable": true, "data": {"a": "Yg=="}})),
        ("v1", "PersistentVolumeClaim", claim),
        ("v1", "ResourceQuota", json!({"spec": {"scopes": ["BestEffort"]}})),
        (
            "v1",
            "Node",
            json!({"spec": {"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"], "providerID": "x"}}),
        ),
        ("v1", "Namespace", json!({"status": {"phase": "Active"}})),
        ("v1", "ReplicationController", json!({"spec": {"selector": {"a": "b"}, "template": template()}})),
        ("apps/v1", "Deployment", workload(json!({}))),
        ("apps/v1", "ReplicaSet", workload(json!({}))),
        ("apps/v1", "DaemonSet", workload(json!({}))),
        ("apps/v1", "StatefulSet", workload(json!({"serviceName": "s"}))),
        ("apps/v1", "ControllerRevision", json!({"data": {"a": 1}, "revision": 1})),
        (
            "batch/v1",
            "Job",
            json!({"spec": {
                "selector": selector, "manualSelector": true, "template": job, "completions": 1, "parallelism": 1,
                "completionMode": "NonIndexed", "backoffLimit": 6, "suspend": false,
            }}),
        ),
        ("networking.k8s.io/v1", "IngressClass", json!({"spec": {"controller": "a.b/c"}})),
        ("networking.k8s.io/v1", "ServiceCIDR", json!({"spec": {"cidrs": ["10.0.0.0/24"]}})),
        (
            "networking.k8s.io/v1",
            "IPAddress",
            json!({"spec": {"parentRef": {"resource": "services", "name": "s", "namespace": "n"}}}),
        ),
        ("discovery.k8s.io/v1", "EndpointSlice", json!({"addressType": "IPv4", "endpoints": []})),
        ("node.k8s.io/v1", "RuntimeClass", json!({"handler": "h"})),
        ("scheduling.k8s.io/v1", "PriorityClass", json!({"value": 1, "preemptionPolicy": "Never"})),
        ("storage.k8s.io/v1", "StorageClass", json!({"provisioner": "a.b/c", "parameters": {"a": "b"}})),
        (
            "storage.k8s.io/v1",
            "VolumeAttributesClass",
            json!({"driverName": "a.b", "parameters": {"a": "b"}}),
        ),
        ("storage.k8s.io/v1", "CSIDriver", json!({"spec": {}})),
        (
            "storage.k8s.io/v1",
            "CSINode",
            json!({"spec": {"drivers": [{"name": "d", "nodeID": "n", "topologyKeys": null}]}}),
        ),
        (
            "storage.k8s.io/v1",
            "CSIStorageCapacity",
            json!({"storageClassName": "s", "nodeTopology": selector}),
        ),
        (
            "storage.k8s.io/v1",
            "VolumeAttachment",
            json!({"spec": {"attacher": "a.b", "nodeName": "n", "source": {"persistentVolumeName": "v"}}}),
        ),
        (
            "rbac.authorization.k8s.io/v1",
            "RoleBinding",
            json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}}),
        ),
        (
            "rbac.authorization.k8s.io/v1",
            "ClusterRoleBinding",
            json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"}}),
        ),
        ("coordination.k8s.io/v1", "Lease", json!({"spec": {"holderIdentity": "h", "leaseTransitions": 1}})),
        ("policy/v1", "PodDisruptionBudget", json!({"spec": {"minAvailable": 1, "selector": selector}})),
        (
            "autoscaling/v2",
            "HorizontalPodAutoscaler",
            json!({"spec": {
                "maxReplicas": 2, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
            }}),
        ),
        (
            "flowcontrol.apiserver.k8s.io/v1",
            "FlowSchema",
            json!({"spec": {"priorityLevelConfiguration": {"name": "p"}, "rules": []}}),
        ),
        (
            "certificates.k8s.io/v1",
            "CertificateSigningRequest",
            json!({"spec": {"signerName": "a.b/c", "request": CERTIFICATE_REQUEST, "usages": ["any"]}}),
        ),
        (
            "resource.k8s.io/v1",
            "ResourceClaim",
            json!({"spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "c"}}]}}}),
        ),
        ("resource.k8s.io/v1", "ResourceClaimTemplate", json!({"spec": {"spec": {"devices": {}}}})),
        (
            "resource.k8s.io/v1",
            "ResourceSlice",
            json!({"spec": {
                "driver": "d.example.com", "nodeName": "n", "pool": {"name": "p", "resourceSliceCount": 1, "generation": 1},
            }}),
        ),
        ("resource.k8s.io/v1", "DeviceClass", json!({"spec": {}})),
        (
            "scheduling.k8s.io/v1alpha2",
            "PodGroup",
            json!({"spec": {
                "schedulingPolicy": {"gang": {"minCount": 2}},
                "resourceClaims": [{"name": "gpu", "resourceClaimName": "c"}],
            }}),
        ),
        (
            "storagemigration.k8s.io/v1beta1",
            "StorageVersionMigration",
            json!({
                "spec": {"resource": {"group": "apps", "resource": "deployments"}},
                "status": {"resourceVersion": "5", "conditions": [
                    {"type": "Succeeded", "status": "True", "reason": "R", "lastTransitionTime": "2026-01-01T00:00:00Z"},
                ]},
            }),
        ),
    ]
}

fn rows() -> Vec<Row> {
    let other = json!({"matchLabels": {"a": "b", "c": "d"}});
    let mut rows: Vec<Row> = Vec::new();
    for kind in ["Deployment", "ReplicaSet", "DaemonSet"] {
        rows.push((kind, None, &["spec", "selector"], json!({"matchLabels": {"a": "b"}}), "", ""));
        rows.push((
            kind,
            None,
            &["spec", "selector"],
            json!({"matchExpressions": [{"key": "a", "operator": "Exists"}]}),
            "spec.selector: Invalid value",
            FIXED,
        ));
    }
    for kind in ["Deployment", "ReplicaSet", "StatefulSet", "ReplicationController"] {
        rows.push((kind, None, &["spec", "replicas"], json!(3), "", ""));
        rows.push((
            kind,
            STATUS,
            &["status", "replicas"],
            json!(-1),
            "status.replicas: Invalid value: -1",
            "must be greater than or equal to 0",
        ));
        rows.push((
            kind,
            STATUS,
            &["status", "readyReplicas"],
            json!(1),
            "status.readyReplicas: Invalid value: 1",
            "cannot be greater than status.replicas",
        ));
    }
    rows.extend::<Vec<Row>>(vec![
        (
            "ConfigMap",
            None,
            &["data", "a"],
            json!("c"),
            "data: Forbidden",
            "field is immutable when `immutable` is set",
        ),
        (
            "ConfigMap",
            None,
            &["immutable"],
            json!(false),
            "immutable: Forbidden",
            "field is immutable when `immutable` is set",
        ),
        (
            "Secret",
            None,
            &["data", "a"],
            json!("Yw=="),
            "data: Forbidden",
            "field is immutable when `immutable` is set",
        ),
        ("Secret", None, &["type"], json!("x/y"), "type: Invalid value: \"x/y\"", FIXED),
        ("PersistentVolumeClaim", None, &["spec", "resources", "requests", "storage"], json!("2Gi"), "", ""),
        (
            "PersistentVolumeClaim",
            None,
            &["spec", "accessModes"],
            json!(["ReadOnlyMany"]),
            "spec: Forbidden: spec is immutable after creation",
            "",
        ),
        (
            "PersistentVolumeClaim",
            STATUS,
            &["status", "capacity"],
            json!({"storage": "-1"}),
            "status.capacity[storage]: Invalid value: -1",
            "must be a valid resource quantity",
        ),
        (
            "PersistentVolumeClaim",
            STATUS,
            &["status", "allocatedResources"],
            json!({"storage": "-1"}),
            "status.allocatedResources[storage]: Invalid value: -1",
            "must be a valid resource quantity",
        ),
        (
            "PersistentVolumeClaim",
            STATUS,
            &["status", "allocatedResources"],
            json!({"cpu": "1"}),
            "status.allocatedResources: Unsupported value: \"cpu\"",
            "supported values: \"storage\"",
        ),
        (
            "PersistentVolumeClaim",
            STATUS,
            &["status", "allocatedResourceStatuses"],
            json!({"storage": "Soon"}),
            "status.allocatedResourceStatuses: Unsupported value: \"storage\"",
            "\"NodeResizePending\"",
        ),
        (
            "ResourceQuota",
            None,
            &["spec", "scopes"],
            json!(["NotBestEffort"]),
            "spec.scopes: Invalid value",
            FIXED,
        ),
        (
            "ResourceQuota",
            STATUS,
            &["status", "used"],
            json!({"pods": "-1"}),
            "status.used[pods]: Invalid value: \"-1\"",
            "must be greater than or equal to 0",
        ),
        (
            "Node",
            None,
            &["spec", "providerID"],
            json!("y"),
            "spec.providerID: Forbidden",
            "node updates may not change providerID except from \"\" to valid",
        ),
        (
            "Namespace",
            STATUS,
            &["status", "phase"],
            json!("Terminating"),
            "status.Phase: Invalid value: \"Terminating\"",
            "may only be 'Active' if `deletionTimestamp` is empty",
        ),
        (
            "DaemonSet",
            STATUS,
            &["status", "numberReady"],
            json!(-1),
            "status.numberReady: Invalid value: -1",
            "must be greater than or equal to 0",
        ),
        (
            "StatefulSet",
            None,
            &["spec", "serviceName"],
            json!("t"),
            "spec: Forbidden: updates to statefulset spec for fields other than",
            "are forbidden",
        ),
        (
            "StatefulSet",
            None,
            &["spec", "selector"],
            other,
            "spec.template.metadata.labels",
            "does not match template `labels`",
        ),
        ("ControllerRevision", None, &["data"], json!({"a": 2}), "data: Invalid value", FIXED),
        ("ControllerRevision", None, &["revision"], json!(2), "", ""),
        ("Job", None, &["spec", "parallelism"], json!(2), "", ""),
        ("Job", None, &["spec", "completions"], json!(2), "spec.completions: Invalid value: 2", FIXED),
        (
            "Job",
            None,
            &["spec", "completionMode"],
            json!("Indexed"),
            "spec.completionMode: Invalid value: \"Indexed\"",
            FIXED,
        ),
        (
            "Job",
            STATUS,
            &["status", "active"],
            json!(-1),
            "status.active: Invalid value: -1",
            "must be greater than or equal to 0",
        ),
        (
            "IngressClass",
            None,
            &["spec", "controller"],
            json!("a.b/d"),
            "spec.controller: Invalid value: \"a.b/d\"",
            FIXED,
        ),
        ("ServiceCIDR", None, &["spec", "cidrs"], json!(["10.0.0.0/24", "2001:db8::/64"]), "", ""),
        (
            "ServiceCIDR",
            None,
            &["spec", "cidrs"],
            json!(["10.0.0.0/24", "10.0.1.0/24"]),
            "spec.cidrs: Invalid value",
            "i.e 192.168.0.0/24 and 2001:db8::/64",
        ),
        (
            "ServiceCIDR",
            None,
            &["spec", "cidrs"],
            json!(["10.0.1.0/24"]),
            "spec.cidrs[0]: Invalid value: \"10.0.1.0/24\"",
            FIXED,
        ),
        ("ServiceCIDR", None, &["spec", "cidrs"], json!([]), "spec.cidrs: Invalid value", FIXED),
        (
            "IPAddress",
            None,
            &["spec", "parentRef", "name"],
            json!("t"),
            "spec.parentRef: Invalid value",
            FIXED,
        ),
        (
            "EndpointSlice",
            None,
            &["addressType"],
            json!("IPv6"),
            "addressType: Invalid value: \"IPv6\"",
            FIXED,
        ),
        ("RuntimeClass", None, &["handler"], json!("i"), "handler: Invalid value: \"i\"", FIXED),
        ("PriorityClass", None, &["value"], json!(2), "value: Forbidden", "may not be changed in an update."),
        (
            "PriorityClass",
            None,
            &["preemptionPolicy"],
            json!("PreemptLowerPriority"),
            "preemptionPolicy: Invalid value: \"PreemptLowerPriority\"",
            FIXED,
        ),
        ("StorageClass", None, &["parameters", "a"], json!("c"), "parameters: Invalid value", FIXED),
        ("StorageClass", None, &["provisioner"], json!("a.b/d"), "provisioner: Invalid value", FIXED),
        ("StorageClass", None, &["reclaimPolicy"], json!("Retain"), "reclaimPolicy: Invalid value", FIXED),
        ("StorageClass", None, &["allowVolumeExpansion"], json!(true), "", ""),
        (
            "VolumeAttributesClass",
            None,
            &["driverName"],
            json!("a.c"),
            "driverName: Invalid value: \"a.c\"",
            FIXED,
        ),
        (
            "CSIDriver",
            None,
            &["spec", "attachRequired"],
            json!(false),
            "spec.attachedRequired: Invalid value: false",
            FIXED,
        ),
        ("CSIDriver", None, &["spec", "podInfoOnMount"], json!(true), "", ""),
        (
            "CSINode",
            None,
            &["spec", "drivers"],
            json!([{"name": "d", "nodeID": "m", "topologyKeys": null}]),
            "spec.drivers: Invalid value",
            FIXED,
        ),
        (
            "CSIStorageCapacity",
            None,
            &["storageClassName"],
            json!("t"),
            "storageClassName: Invalid value: \"t\"",
            FIXED,
        ),
        ("VolumeAttachment", None, &["spec", "nodeName"], json!("m"), "spec: Invalid value", FIXED),
        (
            "RoleBinding",
            None,
            &["roleRef", "name"],
            json!("s"),
            "roleRef: Invalid value",
            "cannot change roleRef",
        ),
        (
            "ClusterRoleBinding",
            None,
            &["roleRef", "name"],
            json!("s"),
            "roleRef: Invalid value",
            "cannot change roleRef",
        ),
        (
            "Lease",
            None,
            &["spec", "leaseTransitions"],
            json!(-1),
            "spec.leaseTransitions: Invalid value: -1",
            "must be greater than or equal to 0",
        ),
        (
            "PodDisruptionBudget",
            STATUS,
            &["status", "currentHealthy"],
            json!(-1),
            "status.currentHealthy: Invalid value: -1",
            "must be greater than or equal to 0",
        ),
        (
            "PodDisruptionBudget",
            STATUS,
            &["status", "conditions"],
            json!([{"type": "a", "status": "True", "reason": "R"}]),
            "status.conditions[0].lastTransitionTime: Required value",
            "",
        ),
        (
            "HorizontalPodAutoscaler",
            STATUS,
            &["status", "desiredReplicas"],
            json!(-1),
            "status.desiredReplicas: Invalid value: -1",
            "must be greater than or equal to 0",
        ),
        (
            "FlowSchema",
            STATUS,
            &["status", "conditions"],
            json!([{"type": "a"}, {"type": "a"}]),
            "status.conditions[1].type: Duplicate value: \"a\"",
            "",
        ),
        ("ResourceClaim", None, &["spec", "devices", "requests"], json!([]), "spec: Invalid value", FIXED),
        (
            "ResourceClaim",
            STATUS,
            &["status", "reservedFor"],
            json!([{"resource": "pods", "name": "p", "uid": "1"}]),
            "status.reservedFor: Forbidden",
            "may not be specified when `allocated` is not set",
        ),
        (
            "ResourceClaimTemplate",
            None,
            &["spec", "spec", "devices", "requests"],
            json!([{"name": "r"}]),
            "spec: Invalid value",
            FIXED,
        ),
        (
            "ResourceSlice",
            None,
            &["spec", "pool", "name"],
            json!("q"),
            "spec.pool.name: Invalid value: \"q\"",
            FIXED,
        ),
        (
            "ResourceSlice",
            None,
            &["spec", "driver"],
            json!("e.example.com"),
            "spec.driver: Invalid value: \"e.example.com\"",
            FIXED,
        ),
        ("ResourceSlice", None, &["spec", "pool", "generation"], json!(2), "", ""),
        (
            "DeviceClass",
            None,
            &["spec", "selectors"],
            json!([{"cel": {"expression": "1"}}]),
            "spec.selectors[0].cel.expression: Invalid value: \"1\"",
            "must evaluate to bool or the unknown type, not int",
        ),
        (
            "PodGroup",
            None,
            &["spec", "schedulingPolicy", "gang", "minCount"],
            json!(3),
            "spec.schedulingPolicy: Invalid value: null",
            FIXED,
        ),
        (
            "PodGroup",
            STATUS,
            &["status", "resourceClaimStatuses"],
            json!([{"name": "nic"}]),
            "status.resourceClaimStatuses[0].name: Invalid value: \"nic\"",
            "must match the name of an entry in `spec.resourceClaims`",
        ),
        (
            "StorageVersionMigration",
            None,
            &["spec", "resource", "resource"],
            json!("pods"),
            "spec: Invalid value",
            FIXED,
        ),
        // What is asked for stays as it was, whatever is sent.
        ("CertificateSigningRequest", None, &["spec", "signerName"], json!("a.b/d"), "", ""),
        (
            "CertificateSigningRequest",
            STATUS,
            &["status", "certificate"],
            json!("eg=="),
            "status.certificate: Invalid value: \"<certificate data>\"",
            "must contain at least one CERTIFICATE PEM block",
        ),
        (
            "CertificateSigningRequest",
            Some("approval"),
            &["status", "conditions"],
            json!([{"type": "Approved", "status": "False"}]),
            "status.conditions[0].status: Unsupported value: \"False\"",
            "supported values: \"True\"",
        ),
        (
            "StorageVersionMigration",
            STATUS,
            &["status", "resourceVersion"],
            json!("6"),
            "status.resourceVersion: Invalid value: \"6\"",
            FIXED,
        ),
        (
            "StorageVersionMigration",
            STATUS,
            &["status", "resourceVersion"],
            json!("05"),
            "status.resourceVersion: Invalid value: \"05\"",
            "resource version is not well formed: 05",
        ),
        (
            "StorageVersionMigration",
            STATUS,
            &["status", "conditions"],
            json!([]),
            "status.conditions: Invalid value",
            "Success condition cannot be set to false once it is true",
        ),
    ]);
    rows
}

/// A good object of each kind, decoded and with its defaults.
fn stored() -> BTreeMap<&'static str, (Arc<Resource>, Value)> {
    let resources = builtin::all_resources();
    let mut stored = BTreeMap::new();
    for (group_version, kind, object) in bases() {
        let (group, version) = group_version.split_once('/').unwrap_or(("", group_version));
        let is_wanted =
            |own: &&Arc<Resource>| own.group == group && own.version == version && own.kind == kind;
        let resource = resources.iter().find(is_wanted).unwrap_or_else(|| panic!("no resource for {kind}"));
        let mut value = Value::from(object);
        value.set_at(&["apiVersion"], resource.api_version());
        value.set_at(&["kind"], kind);
        value.set_at(&["metadata"], Value::from(json!({"name": "n", "resourceVersion": "1"})));
        decode(resource, &mut value);
        stored.insert(kind, (resource.clone(), value));
    }
    stored
}

fn decode(resource: &Resource, value: &mut Value) {
    normalize(value, resource.schema.root()).unwrap_or_else(|error| panic!("{}: {error}", resource.kind));
    resource.strategy.default(value);
}

#[test]
fn every_kind_that_stands_here_is_tried() {
    let tried: BTreeSet<&str> = rows().iter().map(|row| row.0).collect();
    let untried: Vec<&str> = bases().iter().map(|base| base.1).filter(|kind| !tried.contains(kind)).collect();
    assert_eq!(untried, [""; 0]);
}

#[test]
fn what_may_not_change_does_not() {
    let stored = stored();
    let mut wrong = Vec::new();
    for (kind, subresource, path, value, starts, ends) in rows() {
        let (resource, old) = &stored[kind];
        let mut new = old.clone();
        new.set_at(path, Value::from(value.clone()));
        decode(resource, &mut new);
        let ctx = Context { now: Timestamp::UNIX_EPOCH, user: "u", subresource, allow_privileged: true };
        resource.strategy.prepare_for_update(&ctx, &mut new, old);
        let errors = resource.strategy.validate_update(&ctx, &new, old);
        let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let is_good = match starts {
            "" => found.is_empty(),
            _ => found.iter().any(|text| text.starts_with(starts) && text.ends_with(ends)),
        };
        if !is_good {
            wrong
                .push(format!("{kind} {} = {value}: {found:?} instead of {starts} … {ends}", path.join(".")));
        }
    }
    assert!(wrong.is_empty(), "{} rows differ:\n{}", wrong.len(), wrong.join("\n"));
}
