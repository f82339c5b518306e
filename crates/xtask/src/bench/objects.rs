//! What the load sends: bodies with a hole for the name, so that making one costs the client little.

use bytes::Bytes;
use serde_json::{Value, json};

/// Stands where the name belongs until a body is made.
pub(super) const HOLE: &str = "NAME-OF-OBJECT";

/// An object of which only names differ.
#[derive(Clone)]
pub(super) struct Template {
    parts: Vec<Bytes>,
}

impl Template {
    pub(super) fn new(object: &Value) -> Self {
        let text = object.to_string();
        Self { parts: text.split(HOLE).map(|part| Bytes::copy_from_slice(part.as_bytes())).collect() }
    }

    pub(super) fn named(&self, name: &str) -> Bytes {
        let length = self.parts.iter().map(Bytes::len).sum::<usize>() + name.len() * self.parts.len();
        let mut body = Vec::with_capacity(length);
        for (at, part) in self.parts.iter().enumerate() {
            if at > 0 {
                body.extend_from_slice(name.as_bytes());
            }
            body.extend_from_slice(part);
        }
        body.into()
    }
}

pub(super) fn namespace(name: &str) -> Bytes {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}).to_string().into()
}

/// A small ConfigMap: what most of them are.
pub(super) fn config_map() -> Template {
    Template::new(&json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": HOLE, "labels": {"app": "bench"}},
        "data": {"key": "value", "name": HOLE},
    }))
}

/// A pod as a Deployment of a usual web service has it: two containers, probes, resources, environment, volumes.
/// With the managed fields of its creator it is stored as about 6 KB. `scheduler` says who shall place it.
pub(super) fn service_pod(scheduler: &str) -> Template {
    let mut pod =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": service_metadata(), "spec": service_spec()});
    pod["metadata"]["name"] = HOLE.into();
    pod["spec"]["schedulerName"] = scheduler.into();
    Template::new(&pod)
}

/// A Deployment of that service. It is paused, so that its controller has nothing to do; `note` is an annotation's
/// value.
pub(super) fn service_deployment(note: &str) -> Template {
    let mut metadata = service_metadata();
    metadata["name"] = HOLE.into();
    metadata["annotations"]["example.com/note"] = note.into();
    // As people write them, and as long as it takes to 4 KiB.
    metadata["annotations"]["example.com/description"] =
        "Takes orders and hands them on. Who owns it and what to do at night stands under shop/checkout. "
            .repeat(12)
            .into();
    Template::new(&json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "paused": true,
            "replicas": 3,
            "revisionHistoryLimit": 5,
            "progressDeadlineSeconds": 300,
            "selector": {"matchLabels": {
                "app.kubernetes.io/name": "checkout",
                "app.kubernetes.io/instance": HOLE,
            }},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {"metadata": service_metadata(), "spec": service_spec()},
        },
    }))
}

fn service_metadata() -> Value {
    json!({
        "labels": {
            "app.kubernetes.io/name": "checkout",
            "app.kubernetes.io/instance": HOLE,
            "app.kubernetes.io/component": "backend",
            "app.kubernetes.io/part-of": "shop",
            "pod-template-hash": "5d5f7c9b8d",
        },
        "annotations": {
            "prometheus.io/scrape": "true",
            "prometheus.io/port": "9090",
            "checksum/config": "0f343b0931126a20f133d67c2b018a3b5b4f1cd3f8a1a2d3c4e5f60718293a4b",
        },
    })
}

fn service_spec() -> Value {
    let probe = |path: &str, port: &str| json!({"httpGet": {"path": path, "port": port}, "periodSeconds": 10, "timeoutSeconds": 2, "failureThreshold": 3});
    let variable = |name: &str, value: &str| json!({"name": name, "value": value});
    json!({
        "serviceAccountName": "default",
        "terminationGracePeriodSeconds": 30,
        "securityContext": {"runAsNonRoot": true, "runAsUser": 10001, "fsGroup": 10001},
        "containers": [
            {
                "name": "server",
                "image": "registry.example/shop/checkout:1.4.2",
                "args": ["--listen=:8080", "--metrics=:9090", "--log-format=json"],
                "ports": [
                    {"name": "http", "containerPort": 8080, "protocol": "TCP"},
                    {"name": "metrics", "containerPort": 9090, "protocol": "TCP"},
                ],
                "env": [
                    variable("PAYMENT_ADDRESS", "payment.shop.svc.cluster.local:50051"),
                    variable("SHIPPING_ADDRESS", "shipping.shop.svc.cluster.local:50051"),
                    variable("CART_ADDRESS", "cart.shop.svc.cluster.local:7070"),
                    {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "DATABASE_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "database", "key": "password"}}},
                ],
                "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "200m", "memory": "128Mi"}},
                "readinessProbe": probe("/ready", "http"),
                "livenessProbe": probe("/alive", "http"),
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [
                    {"name": "config", "mountPath": "/etc/checkout", "readOnly": true},
                    {"name": "scratch", "mountPath": "/tmp"},
                ],
            },
            {
                "name": "logs",
                "image": "registry.example/shop/log-forwarder:0.9.0",
                "env": [variable("TARGET", "logs.shop.svc.cluster.local:3100")],
                "resources": {"requests": {"cpu": "5m", "memory": "8Mi"}},
                "volumeMounts": [{"name": "scratch", "mountPath": "/var/log/checkout"}],
            },
        ],
        "volumes": [
            {"name": "config", "configMap": {"name": "checkout"}},
            {"name": "scratch", "emptyDir": {}},
        ],
        "tolerations": [{"key": "spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"}],
    })
}

/// A pod with one container, as simulations use.
pub(super) fn small_pod() -> Template {
    Template::new(&json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": HOLE, "labels": {"app": "bench"}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "main",
                "image": "registry.example/bench:1",
                "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}},
            }],
        },
    }))
}

/// What a node agent sends when a pod becomes ready.
pub(super) fn status_patch(number: u64) -> Bytes {
    let time = format!("2026-01-01T00:00:{:02}Z", number % 60);
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": time});
    json!({
        "status": {
            "phase": "Running",
            "hostIP": "10.0.0.1",
            "podIP": format!("10.1.{}.{}", number / 250 % 250, number % 250),
            "startTime": time,
            "conditions": [condition("Initialized"), condition("Ready"), condition("ContainersReady")],
        },
    })
    .to_string()
    .into()
}

pub(super) fn deployment(name: &str, replicas: u32) -> Bytes {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{
                    "name": "main",
                    "image": "registry.example/bench:1",
                    "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}},
                }]},
            },
        },
    })
    .to_string()
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_body_is_json_with_that_name_everywhere() {
        for template in [config_map(), service_pod("none"), service_deployment("a"), small_pod()] {
            let body = template.named("pod-17");
            let object: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(object["metadata"]["name"], "pod-17");
            assert!(!String::from_utf8_lossy(&body).contains(HOLE));
        }
    }

    #[test]
    fn the_service_pod_is_of_the_size_that_users_send() {
        let length = service_pod("default-scheduler").named("checkout-5d5f7c9b8d-abcde").len();
        assert!((2_000..3_500).contains(&length), "{length}");
        let length = service_deployment("a").named("checkout").len();
        assert!((3_500..4_200).contains(&length), "{length}");
    }
}
