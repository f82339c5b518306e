//! Kinds, and what their objects hold: one row each.

use serde_json::{Value, json};

use crate::wire::Client;

/// How a kind is reached and what its objects hold.
pub struct Kind {
    pub api_version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    pub is_namespaced: bool,
    /// All fields beside `metadata`.
    pub content: fn() -> Value,
    /// A change of the content that is allowed, as a merge patch; where there is one, a field that must not change.
    pub change: fn() -> Value,
    pub is_fixed: Option<fn() -> Value>,
    /// What a controller might say, where there is a status.
    pub status: Option<fn() -> Value>,
    pub has_scale: bool,
    /// A finalizer holds it until a controller, which is not there, says that nobody uses it.
    pub is_protected: bool,
}

fn template() -> Value {
    json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

fn replicated() -> Value {
    json!({"spec": {"replicas": 1, "selector": {"matchLabels": {"app": "a"}}, "template": template()}})
}

fn other_replicas() -> Value {
    json!({"spec": {"replicas": 3}})
}

fn other_selector() -> Value {
    json!({"spec": {"selector": {"matchLabels": {"app": "b"}}}})
}

fn condition(kind: &str) -> Value {
    json!({"type": kind, "status": "True", "reason": "E2E", "message": "Set from e2e test",
        "lastTransitionTime": "2026-01-01T00:00:00Z"})
}

/// What the endpoints of every kind are tried with.
pub fn kinds() -> Vec<Kind> {
    let base = Kind {
        api_version: "apps/v1",
        kind: "Deployment",
        plural: "deployments",
        is_namespaced: true,
        content: replicated,
        change: other_replicas,
        is_fixed: Some(other_selector),
        status: Some(|| json!({"conditions": [condition("StatusUpdate")], "replicas": 2})),
        has_scale: true,
        is_protected: false,
    };
    vec![
        Kind { kind: "ReplicaSet", plural: "replicasets", ..base },
        Kind {
            kind: "StatefulSet",
            plural: "statefulsets",
            content: || {
                json!({"spec": {"replicas": 1, "serviceName": "s", "selector": {"matchLabels": {"app": "a"}},
                    "template": template()}})
            },
            ..base
        },
        Kind {
            kind: "DaemonSet",
            plural: "daemonsets",
            content: || json!({"spec": {"selector": {"matchLabels": {"app": "a"}}, "template": template()}}),
            change: || json!({"spec": {"minReadySeconds": 5}}),
            status: Some(|| json!({"conditions": [condition("StatusUpdate")], "numberReady": 2})),
            has_scale: false,
            ..base
        },
        Kind {
            api_version: "v1",
            kind: "ReplicationController",
            plural: "replicationcontrollers",
            content: || json!({"spec": {"replicas": 1, "selector": {"app": "a"}, "template": template()}}),
            is_fixed: None,
            ..base
        },
        Kind {
            kind: "ControllerRevision",
            plural: "controllerrevisions",
            content: || json!({"revision": 1, "data": {"spec": {"a": 1}}}),
            change: || json!({"revision": 2}),
            is_fixed: Some(|| json!({"data": {"spec": {"a": 2}}})),
            status: None,
            has_scale: false,
            ..base
        },
        Kind {
            api_version: "batch/v1",
            kind: "Job",
            plural: "jobs",
            content: || {
                let mut template = template();
                template["spec"]["restartPolicy"] = "Never".into();
                json!({"spec": {"completions": 2, "template": template}})
            },
            change: || json!({"spec": {"parallelism": 2}}),
            is_fixed: Some(|| json!({"spec": {"completions": 3}})),
            status: Some(|| json!({"conditions": [condition("StatusUpdate")], "active": 1})),
            has_scale: false,
            ..base
        },
        Kind {
            api_version: "batch/v1",
            kind: "CronJob",
            plural: "cronjobs",
            content: || {
                let mut template = template();
                template["spec"]["restartPolicy"] = "OnFailure".into();
                json!({"spec": {"schedule": "* */1 * * ?", "jobTemplate": {"spec": {"template": template}}}})
            },
            change: || json!({"spec": {"suspend": true}}),
            is_fixed: None,
            status: Some(|| json!({"lastScheduleTime": "2026-01-01T00:00:00Z"})),
            has_scale: false,
            ..base
        },
        Kind {
            api_version: "policy/v1",
            kind: "PodDisruptionBudget",
            plural: "poddisruptionbudgets",
            content: || json!({"spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "a"}}}}),
            change: || json!({"spec": {"minAvailable": 2}}),
            is_fixed: None,
            status: Some(|| {
                json!({"conditions": [condition("StatusUpdate")], "disruptionsAllowed": 1, "currentHealthy": 1,
                    "desiredHealthy": 0, "expectedPods": 1})
            }),
            has_scale: false,
            ..base
        },
        Kind {
            api_version: "v1",
            kind: "LimitRange",
            plural: "limitranges",
            content: || json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}}]}}),
            change: || json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}}]}}),
            is_fixed: None,
            status: None,
            has_scale: false,
            ..base
        },
        Kind {
            api_version: "scheduling.k8s.io/v1",
            kind: "PriorityClass",
            plural: "priorityclasses",
            is_namespaced: false,
            content: || json!({"value": 10, "description": "first"}),
            change: || json!({"description": "second"}),
            is_fixed: Some(|| json!({"value": 11})),
            status: None,
            has_scale: false,
            is_protected: false,
        },
        base,
    ]
    .into_iter()
    .chain(others())
    .collect()
}

/// A kind in a namespace without status, scale and fixed fields.
fn plain(
    api_version: &'static str,
    kind: &'static str,
    plural: &'static str,
    content: fn() -> Value,
    change: fn() -> Value,
) -> Kind {
    Kind {
        api_version,
        kind,
        plural,
        is_namespaced: true,
        content,
        change,
        is_fixed: None,
        status: None,
        has_scale: false,
        is_protected: false,
    }
}

/// The kinds of nodes, networks and volumes.
fn others() -> Vec<Kind> {
    let global = |kind: Kind| Kind { is_namespaced: false, ..kind };
    vec![
        plain(
            "v1",
            "ConfigMap",
            "configmaps",
            || json!({"data": {"a": "1"}}),
            || json!({"data": {"a": "2"}}),
        ),
        plain(
            "v1",
            "Secret",
            "secrets",
            || json!({"data": {"a": "MQ=="}}),
            || json!({"data": {"a": "Mg=="}}),
        ),
        plain(
            "v1",
            "PodTemplate",
            "podtemplates",
            || json!({"template": template()}),
            || json!({"template": {"metadata": {"labels": {"app": "b"}}}}),
        ),
        Kind {
            status: Some(|| json!({"conditions": [condition("StatusUpdate")]})),
            ..plain(
                "v1",
                "Service",
                "services",
                || json!({"spec": {"clusterIP": "None", "selector": {"app": "a"}, "ports": [{"port": 80}]}}),
                || json!({"spec": {"selector": {"app": "b"}}}),
            )
        },
        Kind {
            is_protected: true,
            status: Some(|| json!({"conditions": [condition("StatusUpdate")], "message": "said"})),
            ..plain(
                "v1",
                "Pod",
                "pods",
                || json!({"spec": {"containers": [{"name": "c", "image": "i"}]}}),
                || json!({"spec": {"activeDeadlineSeconds": 30}}),
            )
        },
        global(Kind {
            status: Some(|| json!({"conditions": [condition("StatusUpdate")]})),
            ..plain("v1", "Node", "nodes", || json!({}), || json!({"spec": {"unschedulable": true}}))
        }),
        plain(
            "v1",
            "Endpoints",
            "endpoints",
            || json!({"subsets": [{"addresses": [{"ip": "192.0.2.7"}], "ports": [{"port": 80}]}]}),
            || json!({"subsets": [{"addresses": [{"ip": "192.0.2.8"}], "ports": [{"port": 81}]}]}),
        ),
        Kind {
            is_fixed: Some(|| json!({"addressType": "IPv6"})),
            ..plain(
                "discovery.k8s.io/v1",
                "EndpointSlice",
                "endpointslices",
                || json!({"addressType": "IPv4", "endpoints": [{"addresses": ["192.0.2.7"]}], "ports": []}),
                || json!({"endpoints": [{"addresses": ["192.0.2.8"]}]}),
            )
        },
        Kind {
            status: Some(|| json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.9"}]}})),
            ..plain(
                "networking.k8s.io/v1",
                "Ingress",
                "ingresses",
                || json!({"spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}}),
                || json!({"spec": {"defaultBackend": {"service": {"name": "t"}}}}),
            )
        },
        global(Kind {
            is_fixed: Some(|| json!({"spec": {"controller": "example.com/other"}})),
            ..plain(
                "networking.k8s.io/v1",
                "IngressClass",
                "ingressclasses",
                || json!({"spec": {"controller": "example.com/own"}}),
                || json!({"spec": {"parameters": {"kind": "Own", "name": "own", "scope": "Cluster"}}}),
            )
        }),
        plain(
            "coordination.k8s.io/v1",
            "Lease",
            "leases",
            || json!({"spec": {"holderIdentity": "a", "leaseDurationSeconds": 30}}),
            || json!({"spec": {"holderIdentity": "b", "leaseTransitions": 1}}),
        ),
        global(Kind {
            is_fixed: Some(|| json!({"handler": "other"})),
            ..plain(
                "node.k8s.io/v1",
                "RuntimeClass",
                "runtimeclasses",
                || json!({"handler": "own"}),
                || json!({"metadata": {"annotations": {"changed": "yes"}}}),
            )
        }),
        global(Kind {
            is_fixed: Some(|| json!({"provisioner": "example.com/other"})),
            ..plain(
                "storage.k8s.io/v1",
                "StorageClass",
                "storageclasses",
                || json!({"provisioner": "example.com/own"}),
                || json!({"allowVolumeExpansion": true}),
            )
        }),
        global(plain(
            "storage.k8s.io/v1",
            "CSIDriver",
            "csidrivers",
            || json!({"spec": {"attachRequired": false}}),
            || json!({"spec": {"requiresRepublish": true}}),
        )),
        global(plain(
            "storage.k8s.io/v1",
            "CSINode",
            "csinodes",
            || json!({"spec": {"drivers": []}}),
            || json!({"spec": {"drivers": [{"name": "example.com", "nodeID": "n", "topologyKeys": null}]}}),
        )),
        Kind {
            is_fixed: Some(|| json!({"storageClassName": "other"})),
            ..plain(
                "storage.k8s.io/v1",
                "CSIStorageCapacity",
                "csistoragecapacities",
                || json!({"storageClassName": "own", "capacity": "1Gi"}),
                || json!({"capacity": "2Gi"}),
            )
        },
        global(Kind {
            is_fixed: Some(|| json!({"spec": {"nodeName": "other"}})),
            status: Some(|| json!({"attached": true, "attachmentMetadata": {"path": "own"}})),
            ..plain(
                "storage.k8s.io/v1",
                "VolumeAttachment",
                "volumeattachments",
                || {
                    json!({"spec": {"attacher": "example.com", "nodeName": "n",
                        "source": {"persistentVolumeName": "v"}}})
                },
                || json!({"metadata": {"annotations": {"changed": "yes"}}}),
            )
        }),
        global(Kind {
            is_fixed: Some(|| json!({"parameters": {"speed": "slow"}})),
            is_protected: true,
            ..plain(
                "storage.k8s.io/v1",
                "VolumeAttributesClass",
                "volumeattributesclasses",
                || json!({"driverName": "example.com", "parameters": {"speed": "fast"}}),
                || json!({"metadata": {"annotations": {"changed": "yes"}}}),
            )
        }),
        global(Kind {
            is_protected: true,
            status: Some(|| json!({"phase": "Available", "message": "said"})),
            ..plain(
                "v1",
                "PersistentVolume",
                "persistentvolumes",
                || {
                    json!({"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
                        "hostPath": {"path": "/own"}}})
                },
                || json!({"spec": {"persistentVolumeReclaimPolicy": "Delete"}}),
            )
        }),
        Kind {
            is_protected: true,
            status: Some(|| json!({"conditions": [condition("Resizing")]})),
            ..plain(
                "v1",
                "PersistentVolumeClaim",
                "persistentvolumeclaims",
                || {
                    json!({"spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "own",
                        "resources": {"requests": {"storage": "1Gi"}}}})
                },
                || json!({"metadata": {"annotations": {"changed": "yes"}}}),
            )
        },
        global(plain(
            "resource.k8s.io/v1",
            "DeviceClass",
            "deviceclasses",
            || json!({"spec": {}}),
            || json!({"spec": {"selectors": [{"cel": {"expression": "device.driver == 'example.com'"}}]}}),
        )),
        Kind {
            is_fixed: Some(|| json!({"spec": {"devices": {"requests": []}}})),
            ..plain(
                "resource.k8s.io/v1",
                "ResourceClaim",
                "resourceclaims",
                claim,
                || json!({"metadata": {"annotations": {"changed": "yes"}}}),
            )
        },
        Kind {
            is_fixed: Some(|| json!({"spec": {"spec": {"devices": {"requests": []}}}})),
            ..plain(
                "resource.k8s.io/v1",
                "ResourceClaimTemplate",
                "resourceclaimtemplates",
                || json!({"spec": claim()}),
                || json!({"metadata": {"annotations": {"changed": "yes"}}}),
            )
        },
        global(Kind {
            is_fixed: Some(|| json!({"spec": {"driver": "other.example.com"}})),
            ..plain(
                "resource.k8s.io/v1",
                "ResourceSlice",
                "resourceslices",
                || {
                    json!({"spec": {"driver": "own.example.com", "nodeName": "n", "devices": [],
                        "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1}}})
                },
                || json!({"spec": {"pool": {"generation": 2}}}),
            )
        }),
    ]
}

fn claim() -> Value {
    json!({"spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "own"}}]}}})
}

impl Kind {
    pub fn root(&self) -> String {
        match self.api_version {
            "v1" => "/api/v1".to_owned(),
            version => format!("/apis/{version}"),
        }
    }

    pub fn collection(&self) -> String {
        let scope = if self.is_namespaced { "/namespaces/t" } else { "" };
        format!("{}{scope}/{}", self.root(), self.plural)
    }

    pub fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.collection())
    }

    pub fn manifest(&self, name: &str) -> Value {
        let mut manifest = (self.content)();
        manifest["apiVersion"] = self.api_version.into();
        manifest["kind"] = self.kind.into();
        manifest["metadata"] = json!({"name": name, "labels": {"e2e": "yes"}});
        manifest
    }

    pub async fn create(&self, admin: &Client, name: &str) -> Value {
        admin.post(&self.collection(), &self.manifest(name)).await.expect(201)
    }
}
