//! Every row of the table of upstream's scheme defaults, tried on an object that leaves the field out.

use std::collections::BTreeSet;

use api::builtin;
use apimachinery::Value;
use apimachinery::decode::normalize;
use serde_json::{Value as Json, json};

use crate::recorded::folder;

/// An object, and what its defaults make of it: the rows of the table (`type field`, several joined by ` + `), where to
/// look, what has to be there.
struct Case {
    group_version: &'static str,
    kind: &'static str,
    object: Json,
    expected: Vec<(&'static str, &'static str, Json)>,
}

/// Rows that no object can show, with the reason.
const NOT_TRIED: &[(&str, &str)] = &[
    ("core/v1 ResourceList (any) *", "quantities are rounded where they are read: see `quantity`"),
    ("core/v1 PodLogOptions stream", "a query parameter"),
    ("core/v1 ConfigMap data", "shows nowhere: an empty map is left out"),
    ("core/v1 HostPathVolumeSource type", "an empty text behind a pointer, tried with the volumes of a pod"),
    ("core/v1 Pod spec.resources.limits[hugepages-*]", "tried with the pod kind's own tests"),
    (
        "authentication/v1 TokenRequestSpec expirationSeconds",
        "the answer of a subresource, made by the token minter",
    ),
    ("autoscaling/v1 ScaleSpec replicas", "the answer of a subresource"),
    ("networking.k8s.io/v1beta1 (served types) -", "says that there are none"),
    ("resource.k8s.io/v1 DeviceTaint timeAdded", TIME_OF_WRITE),
    ("resource.k8s.io/v1beta2 DeviceTaint timeAdded", TIME_OF_WRITE),
    ("resource.k8s.io/v1beta1 DeviceTaint timeAdded", TIME_OF_WRITE),
    ("resource.k8s.io/v1alpha3 DeviceTaint timeAdded", TIME_OF_WRITE),
    (
        "apps/v1 StatefulSet spec.updateStrategy.rollingUpdate.maxUnavailable",
        "the gate MaxUnavailableStatefulSet is off",
    ),
    ("storage.k8s.io/v1 CSIDriver spec.preventPodSchedulingIfMissing", "the gate VolumeLimitScaling is off"),
];

const TIME_OF_WRITE: &str = "the time of the write, tried with the kind's own rules";

/// Empty names of references, which Go's decoder fills in and its encoder writes.
const EMPTY_NAMES: [&str; 8] = [
    "ConfigMapEnvSource",
    "ConfigMapKeySelector",
    "ConfigMapProjection",
    "ConfigMapVolumeSource",
    "LocalObjectReference",
    "SecretEnvSource",
    "SecretKeySelector",
    "SecretProjection",
];

fn case(
    group_version: &'static str,
    kind: &'static str,
    object: Json,
    expected: Vec<(&'static str, &'static str, Json)>,
) -> Case {
    Case { group_version, kind, object, expected }
}

fn pods() -> Vec<Case> {
    let probe = json!({"httpGet": {"port": 80}});
    vec![
        case(
            "core/v1",
            "Pod",
            json!({"spec": {
                "hostNetwork": true,
                "containers": [{
                    "name": "c", "image": "a:1", "ports": [{"containerPort": 80}], "livenessProbe": probe,
                    "readinessProbe": {"grpc": {"port": 1}},
                    "resources": {"limits": {"cpu": "1"}},
                    "env": [
                        {"name": "a", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                        {"name": "b", "valueFrom": {"fileKeyRef": {"volumeName": "v", "path": "p", "key": "k"}}}
                    ]
                }],
                "initContainers": [{"name": "i", "image": "a", "resources": {"limits": {"cpu": "2"}}}],
                "ephemeralContainers": [{"name": "e", "image": "a:latest"}],
                "volumes": [
                    {"name": "none"}, {"name": "image", "image": {"reference": "a"}},
                    {"name": "secret", "secret": {"secretName": "s"}}, {"name": "map", "configMap": {"name": "m"}},
                    {"name": "api", "downwardAPI": {}},
                    {"name": "projected", "projected": {"sources": [{"serviceAccountToken": {"path": "p"}}]}},
                    {"name": "azure", "azureDisk": {"diskName": "d", "diskURI": "u"}},
                    {"name": "iscsi", "iscsi": {"targetPortal": "p", "iqn": "q", "lun": 0}},
                    {"name": "rbd", "rbd": {"monitors": ["m"], "image": "i"}},
                    {"name": "io", "scaleIO": {"gateway": "g", "system": "s", "secretRef": {}}}
                ]
            }}),
            vec![
                ("Container imagePullPolicy", "/spec/containers/0/imagePullPolicy", json!("IfNotPresent")),
                ("Container imagePullPolicy", "/spec/initContainers/0/imagePullPolicy", json!("Always")),
                (
                    "Container terminationMessagePath",
                    "/spec/containers/0/terminationMessagePath",
                    json!("/dev/termination-log"),
                ),
                (
                    "Container terminationMessagePolicy",
                    "/spec/containers/0/terminationMessagePolicy",
                    json!("File"),
                ),
                (
                    "EphemeralContainer imagePullPolicy",
                    "/spec/ephemeralContainers/0/imagePullPolicy",
                    json!("Always"),
                ),
                (
                    "EphemeralContainer terminationMessagePath",
                    "/spec/ephemeralContainers/0/terminationMessagePath",
                    json!("/dev/termination-log"),
                ),
                (
                    "EphemeralContainer terminationMessagePolicy",
                    "/spec/ephemeralContainers/0/terminationMessagePolicy",
                    json!("File"),
                ),
                ("ContainerPort protocol", "/spec/containers/0/ports/0/protocol", json!("TCP")),
                ("Pod spec.containers[].ports[].hostPort", "/spec/containers/0/ports/0/hostPort", json!(80)),
                (
                    "Pod spec.containers[].resources.requests[k]",
                    "/spec/containers/0/resources/requests/cpu",
                    json!("1"),
                ),
                (
                    "Pod spec.initContainers[].resources.requests[k]",
                    "/spec/initContainers/0/resources/requests/cpu",
                    json!("2"),
                ),
                ("Pod spec.enableServiceLinks", "/spec/enableServiceLinks", json!(true)),
                ("PodSpec dnsPolicy", "/spec/dnsPolicy", json!("ClusterFirst")),
                ("PodSpec restartPolicy", "/spec/restartPolicy", json!("Always")),
                ("PodSpec securityContext", "/spec/securityContext", json!({})),
                ("PodSpec terminationGracePeriodSeconds", "/spec/terminationGracePeriodSeconds", json!(30)),
                ("PodSpec schedulerName", "/spec/schedulerName", json!("default-scheduler")),
                ("Probe timeoutSeconds", "/spec/containers/0/livenessProbe/timeoutSeconds", json!(1)),
                ("Probe periodSeconds", "/spec/containers/0/livenessProbe/periodSeconds", json!(10)),
                ("Probe successThreshold", "/spec/containers/0/livenessProbe/successThreshold", json!(1)),
                ("Probe failureThreshold", "/spec/containers/0/livenessProbe/failureThreshold", json!(3)),
                ("HTTPGetAction path", "/spec/containers/0/livenessProbe/httpGet/path", json!("/")),
                ("HTTPGetAction scheme", "/spec/containers/0/livenessProbe/httpGet/scheme", json!("HTTP")),
                ("GRPCAction service", "/spec/containers/0/readinessProbe/grpc/service", json!("")),
                (
                    "ObjectFieldSelector apiVersion",
                    "/spec/containers/0/env/0/valueFrom/fieldRef/apiVersion",
                    json!("v1"),
                ),
                (
                    "FileKeySelector optional",
                    "/spec/containers/0/env/1/valueFrom/fileKeyRef/optional",
                    json!(false),
                ),
                ("Volume emptyDir", "/spec/volumes/0/emptyDir", json!({})),
                ("Volume image.pullPolicy", "/spec/volumes/1/image/pullPolicy", json!("Always")),
                ("SecretVolumeSource defaultMode", "/spec/volumes/2/secret/defaultMode", json!(420)),
                ("ConfigMapVolumeSource defaultMode", "/spec/volumes/3/configMap/defaultMode", json!(420)),
                (
                    "DownwardAPIVolumeSource defaultMode",
                    "/spec/volumes/4/downwardAPI/defaultMode",
                    json!(420),
                ),
                ("ProjectedVolumeSource defaultMode", "/spec/volumes/5/projected/defaultMode", json!(420)),
                (
                    "ServiceAccountTokenProjection expirationSeconds",
                    "/spec/volumes/5/projected/sources/0/serviceAccountToken/expirationSeconds",
                    json!(3600),
                ),
                (
                    "AzureDiskVolumeSource cachingMode",
                    "/spec/volumes/6/azureDisk/cachingMode",
                    json!("ReadWrite"),
                ),
                ("AzureDiskVolumeSource fsType", "/spec/volumes/6/azureDisk/fsType", json!("ext4")),
                ("AzureDiskVolumeSource readOnly", "/spec/volumes/6/azureDisk/readOnly", json!(false)),
                ("AzureDiskVolumeSource kind", "/spec/volumes/6/azureDisk/kind", json!("Shared")),
                (
                    "ISCSIVolumeSource iscsiInterface",
                    "/spec/volumes/7/iscsi/iscsiInterface",
                    json!("default"),
                ),
                ("RBDVolumeSource pool", "/spec/volumes/8/rbd/pool", json!("rbd")),
                ("RBDVolumeSource user", "/spec/volumes/8/rbd/user", json!("admin")),
                ("RBDVolumeSource keyring", "/spec/volumes/8/rbd/keyring", json!("/etc/ceph/keyring")),
                (
                    "ScaleIOVolumeSource storageMode",
                    "/spec/volumes/9/scaleIO/storageMode",
                    json!("ThinProvisioned"),
                ),
                ("ScaleIOVolumeSource fsType", "/spec/volumes/9/scaleIO/fsType", json!("xfs")),
            ],
        ),
        case(
            "core/v1",
            "Pod",
            json!({"spec": {
                "resources": {"limits": {"cpu": "2", "memory": "1Gi"}},
                "containers": [{"name": "c", "image": "a", "resources": {"requests": {"cpu": "1"}}}]
            }}),
            vec![
                ("Pod spec.resources.requests[k]", "/spec/resources/requests/cpu", json!("1")),
                ("Pod spec.resources.requests[k]", "/spec/resources/requests/memory", json!("1Gi")),
            ],
        ),
    ]
}

fn core() -> Vec<Case> {
    let labelled = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": []}});
    let volume = |source: Json| {
        let mut volume = json!({"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]}});
        let (key, value) = source.as_object().unwrap().iter().next().unwrap();
        volume["spec"][key] = value.clone();
        volume
    };
    vec![
        case(
            "core/v1",
            "ReplicationController",
            json!({"spec": {"template": labelled}}),
            vec![
                ("ReplicationController spec.selector", "/spec/selector/a", json!("b")),
                ("ReplicationController metadata.labels", "/metadata/labels/a", json!("b")),
                ("ReplicationControllerSpec replicas", "/spec/replicas", json!(1)),
                // A zero that Go leaves out again.
                ("ReplicationControllerSpec minReadySeconds", "/spec/minReadySeconds", Json::Null),
            ],
        ),
        case(
            "core/v1",
            "Service",
            json!({"spec": {"ports": [{"port": 80}], "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 5}}}}),
            vec![
                ("ServicePort protocol", "/spec/ports/0/protocol", json!("TCP")),
                ("Service spec.sessionAffinity", "/spec/sessionAffinity", json!("None")),
                ("Service spec.sessionAffinityConfig", "/spec/sessionAffinityConfig", Json::Null),
                ("Service spec.type", "/spec/type", json!("ClusterIP")),
                ("Service spec.ports[].targetPort", "/spec/ports/0/targetPort", json!(80)),
                ("Service spec.internalTrafficPolicy", "/spec/internalTrafficPolicy", json!("Cluster")),
            ],
        ),
        case(
            "core/v1",
            "Service",
            json!({"spec": {"type": "LoadBalancer", "sessionAffinity": "ClientIP", "ports": [{"port": 80}]},
                "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}}),
            vec![
                (
                    "Service spec.sessionAffinityConfig",
                    "/spec/sessionAffinityConfig/clientIP/timeoutSeconds",
                    json!(10800),
                ),
                ("Service spec.externalTrafficPolicy", "/spec/externalTrafficPolicy", json!("Cluster")),
                (
                    "Service spec.allocateLoadBalancerNodePorts",
                    "/spec/allocateLoadBalancerNodePorts",
                    json!(true),
                ),
                (
                    "Service status.loadBalancer.ingress[].ipMode",
                    "/status/loadBalancer/ingress/0/ipMode",
                    json!("VIP"),
                ),
            ],
        ),
        case("core/v1", "Secret", json!({}), vec![("Secret type", "/type", json!("Opaque"))]),
        case(
            "core/v1",
            "PersistentVolume",
            volume(json!({"azureDisk": {"diskName": "d", "diskURI": "u"}})),
            vec![
                ("PersistentVolume status.phase", "/status/phase", json!("Pending")),
                (
                    "PersistentVolume spec.persistentVolumeReclaimPolicy",
                    "/spec/persistentVolumeReclaimPolicy",
                    json!("Retain"),
                ),
                ("PersistentVolume spec.volumeMode", "/spec/volumeMode", json!("Filesystem")),
                ("AzureDiskVolumeSource kind", "/spec/azureDisk/kind", json!("Shared")),
            ],
        ),
        case(
            "core/v1",
            "PersistentVolume",
            volume(json!({"iscsi": {"targetPortal": "p", "iqn": "q", "lun": 0}})),
            vec![(
                "ISCSIPersistentVolumeSource iscsiInterface",
                "/spec/iscsi/iscsiInterface",
                json!("default"),
            )],
        ),
        case(
            "core/v1",
            "PersistentVolume",
            volume(json!({"rbd": {"monitors": ["m"], "image": "i"}})),
            vec![
                ("RBDPersistentVolumeSource pool", "/spec/rbd/pool", json!("rbd")),
                ("RBDPersistentVolumeSource user", "/spec/rbd/user", json!("admin")),
                ("RBDPersistentVolumeSource keyring", "/spec/rbd/keyring", json!("/etc/ceph/keyring")),
            ],
        ),
        case(
            "core/v1",
            "PersistentVolume",
            volume(json!({"scaleIO": {"gateway": "g", "system": "s", "secretRef": {}}})),
            vec![
                (
                    "ScaleIOPersistentVolumeSource storageMode",
                    "/spec/scaleIO/storageMode",
                    json!("ThinProvisioned"),
                ),
                ("ScaleIOPersistentVolumeSource fsType", "/spec/scaleIO/fsType", json!("xfs")),
            ],
        ),
        case(
            "core/v1",
            "PersistentVolumeClaim",
            json!({"spec": {}}),
            vec![
                ("PersistentVolumeClaim status.phase", "/status/phase", json!("Pending")),
                ("PersistentVolumeClaimSpec volumeMode", "/spec/volumeMode", json!("Filesystem")),
            ],
        ),
        case(
            "core/v1",
            "Endpoints",
            json!({"subsets": [{"ports": [{"port": 1}]}]}),
            vec![("Endpoints subsets[].ports[].protocol", "/subsets/0/ports/0/protocol", json!("TCP"))],
        ),
        case(
            "core/v1",
            "Namespace",
            json!({"metadata": {"name": "n", "labels": {"kubernetes.io/metadata.name": "x"}}}),
            vec![
                (
                    "Namespace metadata.labels[kubernetes.io/metadata.name]",
                    "/metadata/labels/kubernetes.io~1metadata.name",
                    json!("n"),
                ),
                ("NamespaceStatus phase", "/status/phase", json!("Active")),
            ],
        ),
        case(
            "core/v1",
            "Node",
            json!({"status": {"capacity": {"cpu": "1"}}}),
            vec![("NodeStatus allocatable", "/status/allocatable/cpu", json!("1"))],
        ),
        case(
            "core/v1",
            "LimitRange",
            json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1"}}]}}),
            vec![
                ("LimitRangeItem default[k]", "/spec/limits/0/default/cpu", json!("2")),
                ("LimitRangeItem defaultRequest[k]", "/spec/limits/0/defaultRequest/cpu", json!("2")),
                ("LimitRangeItem defaultRequest[k]", "/spec/limits/0/defaultRequest/memory", json!("1")),
            ],
        ),
    ]
}

fn workloads() -> Vec<Case> {
    let template =
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    vec![
        case(
            "apps/v1",
            "Deployment",
            json!({"spec": {"template": template}}),
            vec![
                ("Deployment spec.replicas", "/spec/replicas", json!(1)),
                ("Deployment spec.strategy.type", "/spec/strategy/type", json!("RollingUpdate")),
                (
                    "Deployment spec.strategy.rollingUpdate.maxUnavailable",
                    "/spec/strategy/rollingUpdate/maxUnavailable",
                    json!("25%"),
                ),
                (
                    "Deployment spec.strategy.rollingUpdate.maxSurge",
                    "/spec/strategy/rollingUpdate/maxSurge",
                    json!("25%"),
                ),
                ("Deployment spec.progressDeadlineSeconds", "/spec/progressDeadlineSeconds", json!(600)),
                ("Deployment spec.revisionHistoryLimit", "/spec/revisionHistoryLimit", json!(10)),
            ],
        ),
        case(
            "apps/v1",
            "ReplicaSet",
            json!({"spec": {}}),
            vec![("ReplicaSet spec.replicas", "/spec/replicas", json!(1))],
        ),
        case(
            "apps/v1",
            "StatefulSet",
            json!({"spec": {"template": template}}),
            vec![
                ("StatefulSet spec.replicas", "/spec/replicas", json!(1)),
                ("StatefulSet spec.revisionHistoryLimit", "/spec/revisionHistoryLimit", json!(10)),
                ("StatefulSet spec.podManagementPolicy", "/spec/podManagementPolicy", json!("OrderedReady")),
                ("StatefulSet spec.updateStrategy.type", "/spec/updateStrategy/type", json!("RollingUpdate")),
                (
                    "StatefulSet spec.updateStrategy.rollingUpdate.partition",
                    "/spec/updateStrategy/rollingUpdate/partition",
                    json!(0),
                ),
                (
                    "StatefulSet spec.persistentVolumeClaimRetentionPolicy.whenDeleted",
                    "/spec/persistentVolumeClaimRetentionPolicy/whenDeleted",
                    json!("Retain"),
                ),
                (
                    "StatefulSet spec.persistentVolumeClaimRetentionPolicy.whenScaled",
                    "/spec/persistentVolumeClaimRetentionPolicy/whenScaled",
                    json!("Retain"),
                ),
            ],
        ),
        case(
            "apps/v1",
            "DaemonSet",
            json!({"spec": {"template": template}}),
            vec![
                ("DaemonSet spec.revisionHistoryLimit", "/spec/revisionHistoryLimit", json!(10)),
                ("DaemonSet spec.updateStrategy.type", "/spec/updateStrategy/type", json!("RollingUpdate")),
                (
                    "DaemonSet spec.updateStrategy.rollingUpdate.maxUnavailable",
                    "/spec/updateStrategy/rollingUpdate/maxUnavailable",
                    json!(1),
                ),
                (
                    "DaemonSet spec.updateStrategy.rollingUpdate.maxSurge",
                    "/spec/updateStrategy/rollingUpdate/maxSurge",
                    json!(0),
                ),
            ],
        ),
        case(
            "batch/v1",
            "Job",
            json!({"spec": {"template": template, "podFailurePolicy": {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "t"}]}]}}}),
            vec![
                ("Job spec.completions", "/spec/completions", json!(1)),
                ("Job spec.parallelism", "/spec/parallelism", json!(1)),
                ("Job spec.backoffLimit", "/spec/backoffLimit", json!(6)),
                ("Job metadata.labels", "/metadata/labels/a", json!("b")),
                ("Job spec.completionMode", "/spec/completionMode", json!("NonIndexed")),
                ("Job spec.suspend", "/spec/suspend", json!(false)),
                ("Job spec.manualSelector", "/spec/manualSelector", json!(false)),
                ("Job spec.podReplacementPolicy", "/spec/podReplacementPolicy", json!("Failed")),
                (
                    "PodFailurePolicyOnPodConditionsPattern status",
                    "/spec/podFailurePolicy/rules/0/onPodConditions/0/status",
                    json!("True"),
                ),
            ],
        ),
        case(
            "batch/v1",
            "Job",
            json!({"spec": {"template": template, "backoffLimitPerIndex": 1}}),
            vec![
                ("Job spec.backoffLimit", "/spec/backoffLimit", json!(2_147_483_647)),
                ("Job spec.podReplacementPolicy", "/spec/podReplacementPolicy", json!("TerminatingOrFailed")),
            ],
        ),
        case(
            "batch/v1",
            "CronJob",
            json!({"spec": {"jobTemplate": {"spec": {"template": template}}}}),
            vec![
                ("CronJob spec.concurrencyPolicy", "/spec/concurrencyPolicy", json!("Allow")),
                ("CronJob spec.suspend", "/spec/suspend", json!(false)),
                ("CronJob spec.successfulJobsHistoryLimit", "/spec/successfulJobsHistoryLimit", json!(3)),
                ("CronJob spec.failedJobsHistoryLimit", "/spec/failedJobsHistoryLimit", json!(1)),
            ],
        ),
        case(
            "autoscaling/v1",
            "HorizontalPodAutoscaler",
            json!({"spec": {}}),
            vec![
                ("HorizontalPodAutoscaler spec.minReplicas", "/spec/minReplicas", json!(1)),
                (
                    "HorizontalPodAutoscaler spec.targetCPUUtilizationPercentage",
                    "/spec/targetCPUUtilizationPercentage",
                    json!(80),
                ),
            ],
        ),
        case(
            "autoscaling/v2",
            "HorizontalPodAutoscaler",
            json!({"spec": {"behavior": {"scaleUp": {}, "scaleDown": {}}}}),
            vec![
                ("HorizontalPodAutoscaler spec.minReplicas", "/spec/minReplicas", json!(1)),
                (
                    "HorizontalPodAutoscaler spec.metrics",
                    "/spec/metrics/0/resource/target/averageUtilization",
                    json!(80),
                ),
                (
                    "HorizontalPodAutoscaler spec.behavior.scaleUp",
                    "/spec/behavior/scaleUp/policies/1/value",
                    json!(100),
                ),
                (
                    "HorizontalPodAutoscaler spec.behavior.scaleDown",
                    "/spec/behavior/scaleDown/selectPolicy",
                    json!("Max"),
                ),
            ],
        ),
    ]
}

fn registration() -> Vec<Case> {
    let service = json!({"namespace": "n", "name": "s"});
    let webhook = json!({"webhooks": [{"name": "w", "clientConfig": {"service": service}, "rules": [{}]}]});
    let policy = json!({"spec": {"matchConstraints": {"resourceRules": [{}]}}});
    let webhooks = |kind: &'static str, prefix: &'static str| {
        let mut expected = vec![
            ("Rule scope", "/webhooks/0/rules/0/scope", json!("*")),
            ("ServiceReference port", "/webhooks/0/clientConfig/service/port", json!(443)),
        ];
        for (field, pointer, value) in [
            ("failurePolicy", "/webhooks/0/failurePolicy", json!("Fail")),
            ("matchPolicy", "/webhooks/0/matchPolicy", json!("Equivalent")),
            ("namespaceSelector", "/webhooks/0/namespaceSelector", json!({})),
            ("objectSelector", "/webhooks/0/objectSelector", json!({})),
            ("timeoutSeconds", "/webhooks/0/timeoutSeconds", json!(10)),
        ] {
            expected.push((&*Box::leak(format!("{prefix} {field}").into_boxed_str()), pointer, value));
        }
        if prefix == "MutatingWebhook" {
            expected.push((
                "MutatingWebhook reinvocationPolicy",
                "/webhooks/0/reinvocationPolicy",
                json!("Never"),
            ));
        }
        case("admissionregistration.k8s.io/v1", kind, webhook.clone(), expected)
    };
    vec![
        webhooks("ValidatingWebhookConfiguration", "ValidatingWebhook"),
        webhooks("MutatingWebhookConfiguration", "MutatingWebhook"),
        case(
            "admissionregistration.k8s.io/v1",
            "ValidatingAdmissionPolicy",
            policy.clone(),
            vec![
                ("ValidatingAdmissionPolicySpec failurePolicy", "/spec/failurePolicy", json!("Fail")),
                ("MatchResources matchPolicy", "/spec/matchConstraints/matchPolicy", json!("Equivalent")),
                ("MatchResources namespaceSelector", "/spec/matchConstraints/namespaceSelector", json!({})),
                ("MatchResources objectSelector", "/spec/matchConstraints/objectSelector", json!({})),
            ],
        ),
        case(
            "admissionregistration.k8s.io/v1",
            "MutatingAdmissionPolicy",
            policy,
            vec![("MutatingAdmissionPolicySpec failurePolicy", "/spec/failurePolicy", json!("Fail"))],
        ),
        case(
            "apiextensions.k8s.io/v1",
            "CustomResourceDefinition",
            json!({"spec": {"names": {"plural": "ws", "kind": "Widget"}, "versions": [{"name": "v1", "storage": true, "served": true}]}}),
            vec![
                ("CustomResourceDefinition spec.names.singular", "/spec/names/singular", json!("widget")),
                ("CustomResourceDefinition spec.names.listKind", "/spec/names/listKind", json!("WidgetList")),
                ("CustomResourceDefinition spec.conversion", "/spec/conversion", json!({"strategy": "None"})),
                ("CustomResourceDefinition status.storedVersions", "/status/storedVersions", json!(["v1"])),
            ],
        ),
        case(
            "apiextensions.k8s.io/v1",
            "CustomResourceDefinition",
            json!({"spec": {"conversion": {"strategy": "Webhook", "webhook": {"clientConfig": {"service": service}}}}}),
            vec![("ServiceReference port", "/spec/conversion/webhook/clientConfig/service/port", json!(443))],
        ),
        case(
            "apiregistration.k8s.io/v1",
            "APIService",
            json!({"spec": {"service": service}}),
            vec![("ServiceReference port", "/spec/service/port", json!(443))],
        ),
    ]
}

fn others() -> Vec<Case> {
    vec![
        case(
            "discovery.k8s.io/v1",
            "EndpointSlice",
            json!({"ports": [{"port": 1}]}),
            vec![
                ("EndpointPort name", "/ports/0/name", json!("")),
                ("EndpointPort protocol", "/ports/0/protocol", json!("TCP")),
            ],
        ),
        case(
            "flowcontrol.apiserver.k8s.io/v1",
            "FlowSchema",
            json!({"spec": {}}),
            vec![("FlowSchemaSpec matchingPrecedence", "/spec/matchingPrecedence", json!(1000))],
        ),
        case(
            "flowcontrol.apiserver.k8s.io/v1",
            "PriorityLevelConfiguration",
            json!({"spec": {"type": "Exempt", "exempt": {}}}),
            vec![
                (
                    "ExemptPriorityLevelConfiguration nominalConcurrencyShares",
                    "/spec/exempt/nominalConcurrencyShares",
                    json!(0),
                ),
                (
                    "ExemptPriorityLevelConfiguration lendablePercent",
                    "/spec/exempt/lendablePercent",
                    json!(0),
                ),
            ],
        ),
        case(
            "flowcontrol.apiserver.k8s.io/v1",
            "PriorityLevelConfiguration",
            json!({"spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": {}}}}}),
            vec![
                (
                    "LimitedPriorityLevelConfiguration nominalConcurrencyShares",
                    "/spec/limited/nominalConcurrencyShares",
                    json!(30),
                ),
                (
                    "LimitedPriorityLevelConfiguration lendablePercent",
                    "/spec/limited/lendablePercent",
                    json!(0),
                ),
                ("QueuingConfiguration handSize", "/spec/limited/limitResponse/queuing/handSize", json!(8)),
                ("QueuingConfiguration queues", "/spec/limited/limitResponse/queuing/queues", json!(64)),
                (
                    "QueuingConfiguration queueLengthLimit",
                    "/spec/limited/limitResponse/queuing/queueLengthLimit",
                    json!(50),
                ),
            ],
        ),
        case(
            "networking.k8s.io/v1",
            "NetworkPolicy",
            json!({"spec": {"podSelector": {}, "egress": [{"ports": [{"port": 1}]}]}}),
            vec![
                ("NetworkPolicyPort protocol", "/spec/egress/0/ports/0/protocol", json!("TCP")),
                ("NetworkPolicy spec.policyTypes", "/spec/policyTypes", json!(["Ingress", "Egress"])),
            ],
        ),
        case(
            "networking.k8s.io/v1",
            "IngressClass",
            json!({"spec": {"controller": "c", "parameters": {"kind": "k", "name": "n"}}}),
            vec![("IngressClass spec.parameters.scope", "/spec/parameters/scope", json!("Cluster"))],
        ),
        case(
            "rbac.authorization.k8s.io/v1",
            "ClusterRoleBinding",
            json!({"roleRef": {"kind": "ClusterRole", "name": "r"},
                "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s"}]}),
            vec![
                (
                    "ClusterRoleBinding roleRef.apiGroup",
                    "/roleRef/apiGroup",
                    json!("rbac.authorization.k8s.io"),
                ),
                ("Subject apiGroup", "/subjects/0/apiGroup", json!("rbac.authorization.k8s.io")),
                ("Subject apiGroup", "/subjects/1/apiGroup", Json::Null),
            ],
        ),
        case(
            "rbac.authorization.k8s.io/v1",
            "RoleBinding",
            json!({"roleRef": {"kind": "Role", "name": "r"}}),
            vec![("RoleBinding roleRef.apiGroup", "/roleRef/apiGroup", json!("rbac.authorization.k8s.io"))],
        ),
        case(
            "scheduling.k8s.io/v1",
            "PriorityClass",
            json!({"value": 1}),
            vec![("PriorityClass preemptionPolicy", "/preemptionPolicy", json!("PreemptLowerPriority"))],
        ),
        case(
            "storage.k8s.io/v1",
            "StorageClass",
            json!({"provisioner": "p"}),
            vec![
                ("StorageClass reclaimPolicy", "/reclaimPolicy", json!("Delete")),
                ("StorageClass volumeBindingMode", "/volumeBindingMode", json!("Immediate")),
            ],
        ),
        case(
            "storage.k8s.io/v1",
            "CSIDriver",
            json!({"spec": {}}),
            vec![
                ("CSIDriver spec.attachRequired", "/spec/attachRequired", json!(true)),
                ("CSIDriver spec.podInfoOnMount", "/spec/podInfoOnMount", json!(false)),
                ("CSIDriver spec.storageCapacity", "/spec/storageCapacity", json!(false)),
                ("CSIDriver spec.fsGroupPolicy", "/spec/fsGroupPolicy", json!("ReadWriteOnceWithFSType")),
                ("CSIDriver spec.requiresRepublish", "/spec/requiresRepublish", json!(false)),
                ("CSIDriver spec.volumeLifecycleModes", "/spec/volumeLifecycleModes", json!(["Persistent"])),
                ("CSIDriver spec.seLinuxMount", "/spec/seLinuxMount", json!(false)),
            ],
        ),
    ]
}

/// Claims and slices; what `v1beta1` writes flat stands one level deeper in later versions.
fn devices() -> Vec<Case> {
    let toleration = json!({"key": "k"});
    let alternative = json!({"name": "x", "deviceClassName": "c", "tolerations": [toleration]});
    let mapping = json!({"nodeAllocatableResourceMappings": {"cpu": {"capacityKey": "k"}}});
    let mut cases = Vec::new();
    for group_version in ["resource.k8s.io/v1", "resource.k8s.io/v1beta2"] {
        let exactly = json!({"deviceClassName": "c", "tolerations": [toleration]});
        cases.push(case(
            group_version,
            "ResourceClaim",
            json!({"spec": {"devices": {"requests": [
                {"name": "a", "exactly": exactly}, {"name": "b", "firstAvailable": [alternative]},
                {"name": "c", "exactly": {"deviceClassName": "c", "allocationMode": "All"}},
            ]}}}),
            vec![
                (
                    "ExactDeviceRequest allocationMode",
                    "/spec/devices/requests/0/exactly/allocationMode",
                    json!("ExactCount"),
                ),
                ("ExactDeviceRequest count", "/spec/devices/requests/0/exactly/count", json!(1)),
                (
                    "DeviceToleration operator",
                    "/spec/devices/requests/0/exactly/tolerations/0/operator",
                    json!("Equal"),
                ),
                (
                    "DeviceSubRequest allocationMode",
                    "/spec/devices/requests/1/firstAvailable/0/allocationMode",
                    json!("ExactCount"),
                ),
                ("DeviceSubRequest count", "/spec/devices/requests/1/firstAvailable/0/count", json!(1)),
                (
                    "DeviceToleration operator",
                    "/spec/devices/requests/1/firstAvailable/0/tolerations/0/operator",
                    json!("Equal"),
                ),
                ("ExactDeviceRequest count", "/spec/devices/requests/2/exactly/count", Json::Null),
            ],
        ));
        cases.push(case(
            group_version,
            "ResourceSlice",
            json!({"spec": {"devices": [mapping]}}),
            vec![(
                "Device nodeAllocatableResourceMappings[].allocationMultiplier",
                "/spec/devices/0/nodeAllocatableResourceMappings/cpu/allocationMultiplier",
                json!("1"),
            )],
        ));
    }
    cases.push(case(
        "resource.k8s.io/v1beta1",
        "ResourceClaim",
        json!({"spec": {"devices": {"requests": [
            {"name": "a", "deviceClassName": "c", "tolerations": [toleration]},
            {"name": "b", "firstAvailable": [alternative]},
        ]}}}),
        vec![
            ("DeviceRequest allocationMode", "/spec/devices/requests/0/allocationMode", json!("ExactCount")),
            ("DeviceRequest count", "/spec/devices/requests/0/count", json!(1)),
            ("DeviceToleration operator", "/spec/devices/requests/0/tolerations/0/operator", json!("Equal")),
            ("DeviceRequest count", "/spec/devices/requests/1/count", Json::Null),
            (
                "DeviceSubRequest allocationMode",
                "/spec/devices/requests/1/firstAvailable/0/allocationMode",
                json!("ExactCount"),
            ),
            ("DeviceSubRequest count", "/spec/devices/requests/1/firstAvailable/0/count", json!(1)),
        ],
    ));
    cases.push(case(
        "resource.k8s.io/v1beta1",
        "ResourceSlice",
        json!({"spec": {"devices": [{"name": "d", "basic": mapping}]}}),
        vec![(
            "BasicDevice nodeAllocatableResourceMappings[].allocationMultiplier",
            "/spec/devices/0/basic/nodeAllocatableResourceMappings/cpu/allocationMultiplier",
            json!("1"),
        )],
    ));
    cases
}

/// Versions that are off unless they are asked for.
fn off_by_default() -> Vec<Case> {
    vec![
        case(
            "resource.k8s.io/v1alpha3",
            "ResourcePoolStatusRequest",
            json!({"spec": {"driver": "d.example.com"}}),
            vec![("ResourcePoolStatusRequestSpec limit", "/spec/limit", json!(100))],
        ),
        case(
            "certificates.k8s.io/v1beta1",
            "PodCertificateRequest",
            json!({"spec": {"signerName": "a/b"}}),
            vec![(
                "PodCertificateRequestSpec maxExpirationSeconds",
                "/spec/maxExpirationSeconds",
                json!(86400),
            )],
        ),
        case(
            "scheduling.k8s.io/v1alpha2",
            "PodGroup",
            json!({"spec": {}}),
            vec![("PodGroupSpec disruptionMode", "/spec/disruptionMode", json!("Pod"))],
        ),
    ]
}

fn cases() -> Vec<Case> {
    [pods(), core(), workloads(), registration(), others(), devices(), off_by_default()]
        .into_iter()
        .flatten()
        .collect()
}

/// What decoding and defaulting make of an object.
fn defaulted(case: &Case) -> Json {
    let (group, version) = case.group_version.split_once('/').unwrap();
    let group = if group == "core" { "" } else { group };
    let resource = builtin::all_resources()
        .into_iter()
        .find(|own| own.group == group && own.version == version && own.kind == case.kind)
        .unwrap_or_else(|| panic!("{} {} is no resource", case.group_version, case.kind));
    let mut value = Value::from(case.object.clone());
    value.set_at(&["apiVersion"], resource.api_version());
    value.set_at(&["kind"], case.kind);
    normalize(&mut value, resource.schema.root()).unwrap_or_else(|error| panic!("{}: {error}", case.kind));
    resource.strategy.default(&mut value);
    serde_json::from_slice(&value.to_json()).unwrap()
}

#[test]
fn defaults_are_those_of_upstream() {
    let mut wrong = Vec::new();
    for case in cases() {
        let object = defaulted(&case);
        for (row, pointer, expected) in &case.expected {
            let actual = object.pointer(pointer).cloned().unwrap_or_default();
            if actual != *expected {
                wrong.push(format!("{} {row}: {actual} instead of {expected}", case.group_version));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_row_of_the_table_is_tried_or_has_a_reason() {
    let Some(folder) = folder("PINTLE_REFERENCE", "reference") else { return };
    let table = std::fs::read_to_string(folder.join("defaults.tsv")).unwrap();
    let tried: BTreeSet<String> = cases()
        .iter()
        .flat_map(|case| case.expected.iter().map(|own| format!("{} {}", case.group_version, own.0)))
        .collect();
    let (mut left, mut count) = (Vec::new(), 0);
    let mut needless: BTreeSet<&str> = NOT_TRIED.iter().map(|(row, _)| *row).chain(EMPTY_NAMES).collect();
    for line in table.lines().skip(1) {
        let cells: Vec<&str> = line.split('\t').collect();
        let (group_version, kind, field, layer) = (cells[0], cells[1], cells[2], cells[6]);
        // What a create adds is replayed against the recorded answers.
        if !layer.starts_with("scheme") {
            continue;
        }
        count += 1;
        let row = format!("{group_version} {kind} {field}");
        if tried.contains(&row) {
            continue;
        }
        let excuse = if field == "name" && EMPTY_NAMES.contains(&kind) { kind } else { &row };
        let excused = NOT_TRIED.iter().any(|(own, _)| *own == excuse) || excuse == kind;
        needless.remove(excuse);
        if !excused {
            left.push(row);
        }
    }
    println!("{} of {count} rows are tried", tried.len());
    assert!(left.is_empty(), "neither tried nor excused:\n{}", left.join("\n"));
    assert!(needless.is_empty(), "excused without need: {needless:?}");
}
