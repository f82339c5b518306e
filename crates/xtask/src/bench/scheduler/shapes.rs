//! The nodes, pods and what they need, in the shapes that upstream's workloads have.

use serde_json::{Value, json};

use super::super::objects::HOLE;

/// The label by which pods of some workloads seek or avoid each other, and the domains they do it in.
const HOST: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

/// The one node of workloads that have only one, or one that all pods go to.
pub(super) const NAMED_NODE: &str = "scheduler-perf-node";
pub(super) const SECRET: &str = "secret";
pub(super) const POD_GROUP: &str = "gang-0";
pub(super) const EBS_DRIVER: &str = "ebs.csi.aws.com";
/// The driver of simulated devices, its class, and what asks for one of them.
pub(super) const DEVICE_DRIVER: &str = "test-driver.cdi.k8s.io";
const DEVICE_CLASS: &str = "test-class";
const CLAIM_TEMPLATE: &str = "test-claim-template";
const DEVICE_REQUEST: &str = "req-0";

// === Nodes ===

/// Four cores, 32 GiB, 110 pods.
pub(super) fn node() -> Value {
    node_of(json!({"pods": "110", "cpu": "4", "memory": "32Gi"}))
}

fn node_of(capacity: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": HOLE, "labels": {HOST: HOLE}},
        "spec": {},
        "status": {
            "capacity": capacity,
            "conditions": [{"type": "Ready", "status": "True"}],
            "phase": "Running",
        },
    })
}

pub(super) fn node_in(zone: &str) -> Value {
    let mut node = node();
    node["metadata"]["labels"][ZONE] = zone.into();
    node
}

/// A node for any number of pods.
pub(super) fn wide_node() -> Value {
    node_of(json!({"pods": "90000", "cpu": "4", "memory": "32Gi"}))
}

pub(super) fn tainted_node() -> Value {
    let mut node = node();
    node["spec"]["taints"] = json!([{"key": "foo", "effect": "NoSchedule"}]);
    node
}

/// A node that no pod fits on.
pub(super) fn full_node() -> Value {
    node_of(json!({"pods": "0"}))
}

/// A node to which 39 volumes of the EBS driver can be attached.
pub(super) fn node_with_ebs() -> Value {
    let mut node = node();
    node["status"]["capacity"][format!("attachable-volumes-csi-{EBS_DRIVER}")] = "39".into();
    node
}

/// The driver on that node. A `migrated` one stands for the built-in plugin of before, too.
pub(super) fn csi_node(migrated: bool) -> Value {
    let mut node = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "metadata": {"name": HOLE},
        "spec": {"drivers": [{"name": EBS_DRIVER, "nodeID": HOLE, "allocatable": {"count": 39}}]},
    });
    if migrated {
        node["metadata"]["annotations"] =
            json!({"storage.alpha.kubernetes.io/migrated-plugins": "kubernetes.io/aws-ebs"});
    }
    node
}

// === Pods ===

/// One container of 100 mCPU and 500 MiB.
pub(super) fn pod() -> Value {
    pod_of(json!({"cpu": "100m", "memory": "500Mi"}))
}

fn pod_of(resources: Value) -> Value {
    let mut pod = light_pod();
    pod["spec"]["containers"][0]["ports"] = json!([{"containerPort": 80}]);
    pod["spec"]["containers"][0]["resources"] = json!({"requests": resources, "limits": resources});
    pod
}

/// A pod that asks for nothing.
pub(super) fn light_pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": HOLE},
        "spec": {"containers": [{"name": "pause", "image": "registry.k8s.io/pause:3.10.1"}]},
    })
}

fn labelled(mut pod: Value, key: &str, value: &str) -> Value {
    pod["metadata"]["labels"] = json!({key: value});
    pod
}

fn coloured(color: &str) -> Value {
    labelled(pod(), "color", color)
}

/// Whose pods a term of affinity is about.
#[derive(Clone, Copy)]
pub(super) enum Others {
    /// Those of the namespaces `sched-0` and `sched-1`.
    Named,
    /// Those of namespaces with the label `team: devops`.
    Selected,
}

fn term(color: &str, topology_key: &str, others: Others) -> Value {
    let mut term = json!({"labelSelector": {"matchLabels": {"color": color}}, "topologyKey": topology_key});
    match others {
        Others::Named => term["namespaces"] = json!(["sched-1", "sched-0"]),
        Others::Selected => term["namespaceSelector"] = json!({"matchLabels": {"team": "devops"}}),
    }
    term
}

fn with_affinity(mut pod: Value, kind: &str, field: &str, term: Value) -> Value {
    pod["spec"]["affinity"] = json!({kind: {field: [term]}});
    pod
}

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// Never two on one node.
pub(super) fn anti_affine(others: Others) -> Value {
    with_affinity(coloured("green"), "podAntiAffinity", REQUIRED, term("green", HOST, others))
}

/// What the pods above want to be alone from, without such a wish of its own.
pub(super) fn green() -> Value {
    coloured("green")
}

/// All in one zone.
pub(super) fn affine(others: Others) -> Value {
    with_affinity(coloured("blue"), "podAffinity", REQUIRED, term("blue", ZONE, others))
}

pub(super) fn preferably_affine(others: Others) -> Value {
    let term = json!({"weight": 1, "podAffinityTerm": term("red", HOST, others)});
    with_affinity(coloured("red"), "podAffinity", PREFERRED, term)
}

pub(super) fn preferably_anti_affine(others: Others) -> Value {
    let color = match others {
        Others::Named => "yellow",
        Others::Selected => "green",
    };
    let term = json!({"weight": 1, "podAffinityTerm": term(color, HOST, others)});
    with_affinity(coloured(color), "podAntiAffinity", PREFERRED, term)
}

/// Only in one of two zones, of which there is one.
pub(super) fn zonal() -> Value {
    let expression = json!({"key": ZONE, "operator": "In", "values": ["zone1", "zone2"]});
    with_node_affinity(pod(), json!({"matchExpressions": [expression]}))
}

/// Only on the node of that name, as pods of a DaemonSet are.
pub(super) fn daemon() -> Value {
    let field = json!({"key": "metadata.name", "operator": "In", "values": [NAMED_NODE]});
    with_node_affinity(light_pod(), json!({"matchFields": [field]}))
}

fn with_node_affinity(mut pod: Value, term: Value) -> Value {
    pod["spec"]["affinity"] = json!({"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [term]}}});
    pod
}

/// What many gated pods want to be near.
pub(super) fn sought() -> Value {
    labelled(light_pod(), "app", "scheduler-perf")
}

pub(super) fn gated_seeker() -> Value {
    let others = json!({"labelSelector": {"matchLabels": {"app": "scheduler-perf"}}, "topologyKey": HOST});
    gated(with_affinity(sought(), "podAffinity", REQUIRED, others))
}

pub(super) fn gated_pod() -> Value {
    gated(light_pod())
}

fn gated(mut pod: Value) -> Value {
    pod["spec"]["schedulingGates"] = json!([{"name": "test.k8s.io/hold"}]);
    pod
}

/// A pod that asks for nothing and goes at once when it is deleted.
pub(super) fn short_lived() -> Value {
    let mut pod = light_pod();
    pod["spec"]["terminationGracePeriodSeconds"] = 0.into();
    pod
}

/// Four of them leave 400 mCPU of a node.
pub(super) fn low_priority() -> Value {
    let mut pod = pod_of(json!({"cpu": "900m", "memory": "500Mi"}));
    pod["spec"]["terminationGracePeriodSeconds"] = 0.into();
    pod
}

/// It has to preempt three of those.
pub(super) fn high_priority() -> Value {
    let mut pod = pod_of(json!({"cpu": "3000m", "memory": "500Mi"}));
    pod["spec"]["priority"] = 10.into();
    pod
}

/// A pod that fits nowhere, whatever is preempted.
pub(super) fn too_large() -> Value {
    let mut pod = pod_of(json!({"cpu": "9", "memory": "500Mi"}));
    pod["spec"]["priority"] = 10.into();
    pod
}

/// Over three zones, `how` as `whenUnsatisfiable` says it.
pub(super) fn spread(how: &str) -> Value {
    let constraint = json!({
        "maxSkew": 5, "topologyKey": ZONE, "whenUnsatisfiable": how,
        "labelSelector": {"matchLabels": {"color": "blue"}},
    });
    let mut pod = coloured("blue");
    pod["spec"]["topologySpreadConstraints"] = json!([constraint]);
    pod
}

/// Over all nodes that it could be on, which leaves out tainted ones.
pub(super) fn spread_over_eligible() -> Value {
    let constraint = json!({
        "maxSkew": 1, "topologyKey": HOST, "whenUnsatisfiable": "DoNotSchedule",
        "nodeAffinityPolicy": "Honor", "nodeTaintsPolicy": "Honor",
        "labelSelector": {"matchLabels": {"foo": "bar"}},
    });
    let mut pod = labelled(pod(), "foo", "bar");
    pod["spec"]["topologySpreadConstraints"] = json!([constraint]);
    pod
}

fn with_volume(mut volume: Value) -> Value {
    volume["name"] = "volume".into();
    let mut pod = pod();
    pod["spec"]["volumes"] = json!([volume]);
    pod
}

pub(super) fn with_secret() -> Value {
    with_volume(json!({"secret": {"secretName": SECRET}}))
}

/// With the claim of the pod's own name.
pub(super) fn with_claim() -> Value {
    with_volume(json!({"persistentVolumeClaim": {"claimName": HOLE}}))
}

pub(super) fn with_device() -> Value {
    let mut pod = light_pod();
    pod["spec"]["containers"][0]["resources"] = json!({"claims": [{"name": "resource"}]});
    pod["spec"]["resourceClaims"] =
        json!([{"name": "resource", "resourceClaimTemplateName": CLAIM_TEMPLATE}]);
    pod
}

pub(super) fn gang_member() -> Value {
    let mut pod = pod();
    pod["spec"]["schedulingGroup"] = json!({"podGroupName": POD_GROUP});
    pod
}

// === What pods need ===

pub(super) fn namespace() -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": HOLE, "labels": {"team": "devops"}}})
}

pub(super) fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": HOLE},
        "spec": {"selector": {"app": "foo"}, "ports": [{"protocol": "TCP", "port": 8080, "targetPort": 8080}]},
    })
}

pub(super) fn secret() -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": HOLE}, "data": {"key": "dmFsdWU="}})
}

/// Where a volume's data are.
#[derive(Clone, Copy)]
pub(super) enum Volume {
    /// Named as before there was CSI.
    InTree,
    Csi,
}

/// A volume that is bound to the claim of its name already, as its claim is to it.
pub(super) fn volume(kind: Volume, namespace: &str) -> Value {
    let mut volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": HOLE},
        "spec": {
            "accessModes": ["ReadOnlyMany"],
            "capacity": {"storage": "1Gi"},
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {"kind": "PersistentVolumeClaim", "namespace": namespace, "name": HOLE},
        },
    });
    match kind {
        Volume::InTree => volume["spec"]["awsElasticBlockStore"] = json!({"volumeID": HOLE}),
        Volume::Csi => volume["spec"]["csi"] = json!({"driver": EBS_DRIVER, "volumeHandle": HOLE}),
    }
    volume
}

pub(super) fn claim() -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": HOLE, "annotations": {"pv.kubernetes.io/bind-completed": "true"}},
        "spec": {
            "accessModes": ["ReadOnlyMany"],
            "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": "",
            "volumeName": HOLE,
        },
    })
}

/// What a controller writes when both are bound.
pub(super) fn bound() -> Value {
    json!({"status": {"phase": "Bound"}})
}

pub(super) fn device_class() -> Value {
    let expression = format!("device.driver == {DEVICE_DRIVER:?}");
    json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": {"name": DEVICE_CLASS},
        "spec": {"selectors": [{"cel": {"expression": expression}}]},
    })
}

fn claim_spec() -> Value {
    json!({"devices": {"requests": [{"name": DEVICE_REQUEST, "exactly": {"deviceClassName": DEVICE_CLASS}}]}})
}

pub(super) fn claim_template() -> Value {
    json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaimTemplate",
        "metadata": {"name": CLAIM_TEMPLATE}, "spec": {"spec": claim_spec()},
    })
}

pub(super) fn device_claim() -> Value {
    json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
        "metadata": {"name": HOLE}, "spec": claim_spec(),
    })
}

/// The devices of the node of that name.
pub(super) fn devices(count: u64) -> Value {
    let devices: Vec<_> = (0..count).map(|number| json!({"name": device_name(number)})).collect();
    json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": HOLE},
        "spec": {
            "driver": DEVICE_DRIVER, "nodeName": HOLE,
            "pool": {"name": HOLE, "generation": 1, "resourceSliceCount": 1},
            "devices": devices,
        },
    })
}

fn device_name(number: u64) -> String {
    format!("instance-{number:02}")
}

/// The status of a claim that got this device of a node.
pub(super) fn allocated(node: &str, device: u64) -> Value {
    let only_there = json!({"key": "metadata.name", "operator": "In", "values": [node]});
    json!({"status": {"allocation": {
        "devices": {"results": [
            {"request": DEVICE_REQUEST, "driver": DEVICE_DRIVER, "pool": node, "device": device_name(device)},
        ]},
        "nodeSelector": {"nodeSelectorTerms": [{"matchFields": [only_there]}]},
    }}})
}

pub(super) fn pod_group(members: u64) -> Value {
    json!({
        "apiVersion": "scheduling.k8s.io/v1alpha2", "kind": "PodGroup", "metadata": {"name": HOLE},
        "spec": {"schedulingPolicy": {"gang": {"minCount": members}}},
    })
}
